/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libxl_ctx_alloc and _free, and what every function does with a context that is none.
 */
#include <dlfcn.h>
#include <glob.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "harness/check.h"
#include "harness/host.h"
#include "harness/xl.h"

/* ---- what is refused ---- */

/* Refused, again and again, with (`lines` or more) lines in the log; nothing is stored and nothing is left. */
static void expect_refusal(int version, int rc, int lines)
{
    libxl_ctx *ctx;
    int i, fds, threads;

    ctx = UNTOUCHED;
    CHECK_EQUAL(libxl_ctx_alloc(&ctx, version, 0, &logger), rc);
    fds = count_fds(), threads = count_threads();
    for (i = 0; i < 10; i++) {
        ctx = UNTOUCHED;
        logged_errors = 0;
        CHECK_EQUAL(libxl_ctx_alloc(&ctx, version, 0, &logger), rc);
        CHECK(ctx == NULL);
        CHECK_AT_LEAST(logged_errors, lines);
    }
    CHECK_EQUAL(count_fds(), fds);
    WAIT_UNTIL(count_threads() == threads);
}

TEST(a_wrong_version_is_refused)
{
    int lines = OURS("version-logged") ? 1 : 0;

    expect_refusal(LIBXL_VERSION + 7, ERROR_VERSION, lines);
    expect_refusal(-1, ERROR_VERSION, lines);
    CHECK_EQUAL(logged_errors, lines);
}

DOMAIN_TEST(without_a_hypervisor_a_context_is_refused)
{
    host_access(ACCESS_NO_HYPERVISOR);
    expect_refusal(LIBXL_VERSION, ERROR_FAIL, 1);
}

DOMAIN_TEST(without_xenstored_a_context_is_refused)
{
    host_kill_xenstored();
    expect_refusal(LIBXL_VERSION, ERROR_FAIL, 1);
    host_start_xenstored();
    close_context(open_context());
}

DOMAIN_TEST(without_hypervisor_and_xenstored_a_context_is_refused)
{
    host_kill_xenstored();
    host_access(ACCESS_NO_HYPERVISOR);
    expect_refusal(LIBXL_VERSION, ERROR_FAIL, 1);
}

TEST(without_permission_a_context_is_refused)
{
    /* A simulated host's files are its owner's alone, for the library that is preloaded too. */
    if (host_is_simulated())
        host_access(ACCESS_NO_PERMISSION);
    else
        CHECK(setuid(65534) == 0);
    expect_refusal(LIBXL_VERSION, ERROR_FAIL, 1);
}

static void alloc_without_a_place(void *unused)
{
    (void)unused;
    libxl_ctx_alloc(NULL, LIBXL_VERSION, 0, &logger);
}

TEST(a_NULL_place_for_the_context_is_refused)
{
    if (OURS("bad-input"))
        CHECK_EQUAL(libxl_ctx_alloc(NULL, LIBXL_VERSION, 0, &logger), ERROR_INVAL);
    else
        CHECK_DIES(SIGSEGV, alloc_without_a_place, NULL);
}

/* ---- what is accepted ---- */

TEST(flags_are_ignored)
{
    libxl_ctx *ctx = NULL;

    CHECK_EQUAL(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0xffffffff, &logger), 0);
    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    close_context(ctx);
}

/* Both libraries have something to log: one that the context does not survive is not asked further. */
static void live_without_a_logger(void *unused)
{
    libxl_ctx *ctx = NULL;

    (void)unused;
    CHECK_EQUAL(libxl_ctx_alloc(&ctx, LIBXL_VERSION + 1, 0, NULL), ERROR_VERSION);
    CHECK_EQUAL(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, NULL), 0);
    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    if (OURS("bad-input"))
        libxl_evdisable_domain_death(ctx, UNTOUCHED);
    close_context(ctx);
}

TEST(a_NULL_logger_is_accepted)
{
    if (OURS("null-logger"))
        CHECK_EQUAL(in_child(live_without_a_logger, NULL), 0);
    else
        CHECK_DIES(SIGSEGV, live_without_a_logger, NULL);
}

TEST(freeing_no_context_is_fine)
{
    CHECK_EQUAL(libxl_ctx_free(NULL), 0);
}

TEST(what_may_be_NULL_does_nothing)
{
    libxl_ctx *ctx = open_context();

    libxl_event_free(ctx, NULL);
    libxl_event_free(NULL, NULL);
    libxl_event_register_callbacks(ctx, NULL, NULL);
    libxl_childproc_setmode(ctx, NULL, NULL);
    CHECK_EQUAL(logged_errors, 0);
    close_context(ctx);
}

/* ---- what a context holds ---- */

TEST(contexts_and_generators_leave_no_descriptors_and_no_threads)
{
    int i, fds, threads;
    libxl_ctx *ctx;
    libxl_evgen_domain_death *evgen;

    close_context(open_context());
    fds = count_fds(), threads = count_threads();
    for (i = 0; i < 20; i++) {
        ctx = open_context();
        evgen = enable(ctx, NOBODY, 1);
        if (i % 2)
            expect_death(ctx, NOBODY, 1);
        if (i % 4 < 2)
            libxl_evdisable_domain_death(ctx, evgen);
        close_context(ctx);
        CHECK_EQUAL(count_fds(), fds);
        /* The kernel may show one that has been joined for a moment longer. */
        WAIT_UNTIL(count_threads() == threads);
    }
}

TEST(many_contexts_at_once_are_independent)
{
    enum { CONTEXTS = 20 };
    libxl_ctx *contexts[CONTEXTS];
    int i, fds = count_fds();

    for (i = 0; i < CONTEXTS; i++) {
        contexts[i] = open_context();
        enable(contexts[i], NOBODY + (uint32_t)i, (libxl_ev_user)i);
    }
    for (i = 0; i < CONTEXTS; i += 2)
        close_context(contexts[i]);
    for (i = CONTEXTS - 1; i > 0; i -= 2) {
        expect_death(contexts[i], NOBODY + (uint32_t)i, (libxl_ev_user)i);
        expect_nothing_queued(contexts[i]);
        close_context(contexts[i]);
    }
    CHECK_EQUAL(count_fds(), fds);
}

/* A child that execs must not hold what is ours: xenstored would think that we still live. */
TEST_WITH(no_descriptor_survives_an_exec, NOT_UNDER_VALGRIND)
{
    libxl_ctx *ctx = open_context();
    FILE *without, *with;
    char list[2][400] = { "", "" };

    enable(ctx, 0, 1);
    CHECK((with = popen("ls /proc/self/fd | tr '\\n' ' '", "r")) != NULL);
    CHECK(fgets(list[0], sizeof list[0], with) != NULL);
    pclose(with);
    close_context(ctx);
    CHECK((without = popen("ls /proc/self/fd | tr '\\n' ' '", "r")) != NULL);
    CHECK(fgets(list[1], sizeof list[1], without) != NULL);
    pclose(without);
    if (strcmp(list[0], list[1]) != 0)
        FAIL("with a context a program has descriptors %s, without %s", list[0], list[1]);
}

static void limit_descriptors(rlim_t count)
{
    struct rlimit limit;

    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = count;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

/* The lowest limit that leaves no descriptor free beyond `more`. */
static rlim_t room_for(int more)
{
    int fd = 0;

    while (fd_is_open(fd) || more-- > 0)
        fd++;
    return (rlim_t)fd;
}

/* count_fds without a descriptor of its own. */
static int count_open(void)
{
    int fd, count = 0;

    for (fd = 0; fd < 256; fd++)
        count += fd_is_open(fd);
    return count;
}

static void enable_somebody(void *ctx)
{
    enable(ctx, NOBODY, 1);
}

TEST_WITH(without_descriptors_alloc_and_enable_fail_and_leave_nothing, NOT_UNDER_VALGRIND)
{
    libxl_ctx *ctx = NULL;
    libxl_evgen_domain_death *evgen = NULL;
    int fds, more;

    close_context(open_context());
    fds = count_open();
    /* With more and more room, until it is enough. */
    for (more = 0; ctx == NULL; more++) {
        CHECK_AT_MOST(more, 100);
        limit_descriptors(room_for(more));
        if (libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &logger) == 0)
            break;
        CHECK(ctx == NULL);
        CHECK_EQUAL(count_open(), fds);
    }
    CHECK_AT_LEAST(more, 1);
    if (!OURS("no-descriptors")) {
        limit_descriptors(room_for(0));
        CHECK_DIES(SIGABRT, enable_somebody, ctx);
    }
    for (more = 0; evgen == NULL && OURS("no-descriptors"); more++) {
        CHECK_AT_MOST(more, 100);
        limit_descriptors(room_for(more));
        if (libxl_evenable_domain_death(ctx, NOBODY, 1, &evgen) == 0)
            break;
        CHECK(evgen == NULL);
    }
    limit_descriptors(1024);
    if (!evgen)
        enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    expect_nothing_queued(ctx);
    close_context(ctx);
}

/* What the first poll, or the first wait, needs besides. */
TEST_WITH(without_descriptors_a_first_poll_or_wait_fails_and_a_later_one_works, NOT_UNDER_VALGRIND)
{
    libxl_ctx *ctx = open_context();
    libxl_event *event = UNTOUCHED;
    struct pollfd fds[8];
    int nfds = COUNT(fds), timeout = -1, open;

    enable(ctx, NOBODY, 1);
    open = count_open();
    limit_descriptors(room_for(0));
    if (OURS("first-poll")) {
        CHECK_EQUAL(libxl_osevent_beforepoll(ctx, &nfds, fds, &timeout, no_time), ERROR_FAIL);
        CHECK_EQUAL(nfds, COUNT(fds));
        CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_FAIL);
    } else {
        CHECK_EQUAL(libxl_osevent_beforepoll(ctx, &nfds, fds, &timeout, no_time), 0);
    }
    CHECK(event == UNTOUCHED);
    CHECK_EQUAL(count_open(), open);
    limit_descriptors(1024);
    expect_death(ctx, NOBODY, 1);
    nfds = COUNT(fds);
    CHECK_EQUAL(libxl_osevent_beforepoll(ctx, &nfds, fds, &timeout, no_time), 0);
    close_context(ctx);
}

/* A library that threw SIGCHLD about would break programs with children of their own. */
TEST(no_signal_handler_is_installed)
{
    libxl_ctx *ctx;
    struct sigaction action;
    int number;

    ctx = open_context();
    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    for (number = 1; number < 32; number++) {
        CHECK(sigaction(number, NULL, &action) == 0);
        if (action.sa_handler != SIG_DFL)
            FAIL("there is a handler for signal %d", number);
    }
    close_context(ctx);
}

/* ---- where libxenlight is ---- */

/* The installed one: without libxen-dev it has its release in its name. */
static void *load_libxenlight(void)
{
    void *library = dlopen("libxenlight.so", RTLD_NOW | RTLD_LOCAL);
    glob_t found;

    if (!library && glob("/usr/lib/*/libxenlight.so.4*", 0, NULL, &found) == 0) {
        library = dlopen(found.gl_pathv[0], RTLD_NOW | RTLD_LOCAL);
        globfree(&found);
    }
    if (!library)
        FAIL("%s", dlerror());
    return library;
}

/*
 * As a plugin of a daemon's does it. Then contexts are libxenlight's, also where libxlevent has been alone before: its
 * other functions take them.
 */
TEST(a_libxenlight_that_is_loaded_privately_is_found)
{
    void *function;
    int (*domain_info)(libxl_ctx *, void *, uint32_t);
    libxl_ctx *ctx;

    close_context(open_context());
    function = dlsym(load_libxenlight(), "libxl_domain_info");
    ctx = open_context();
    CHECK(function != NULL);
    memcpy(&domain_info, &function, sizeof function);
    CHECK_EQUAL(domain_info(ctx, NULL, 0), 0);
    CHECK_EQUAL(domain_info(ctx, NULL, NOBODY), ERROR_DOMAIN_NOTFOUND);
    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    close_context(ctx);
}

/* ---- a context that is none ---- */

static struct pollfd some_fds[4];
static int some_nfds, some_timeout;
static libxl_event *some_event;
static libxl_evgen_domain_death *some_death;
static libxl_evgen_disk_eject *some_eject;
static const libxl_event_hooks some_event_hooks;
static const libxl_childproc_hooks some_childproc_hooks;
static libxl_osevent_hooks some_os_hooks;
static int some_rc;

/* One call of each function. Those that return nothing leave some_rc alone. */
#define CALL(name, call)                                                                                               \
    static void name(void *ctx)                                                                                        \
    {                                                                                                                  \
        call;                                                                                                          \
    }

CALL(call_check, some_rc = libxl_event_check(ctx, &some_event, LIBXL_EVENTMASK_ALL, NULL, NULL))
CALL(call_wait, some_rc = libxl_event_wait(ctx, &some_event, LIBXL_EVENTMASK_ALL, NULL, NULL))
CALL(call_register_callbacks, libxl_event_register_callbacks(ctx, &some_event_hooks, NULL))
CALL(call_enable_death, some_rc = libxl_evenable_domain_death(ctx, 1, 0, &some_death))
CALL(call_disable_death, libxl_evdisable_domain_death(ctx, UNTOUCHED))
CALL(call_enable_eject, some_rc = libxl_evenable_disk_eject(ctx, 1, "hdc", 0, &some_eject))
CALL(call_disable_eject, libxl_evdisable_disk_eject(ctx, UNTOUCHED))
CALL(call_beforepoll, some_rc = libxl_osevent_beforepoll(ctx, &some_nfds, some_fds, &some_timeout, no_time))
CALL(call_afterpoll, libxl_osevent_afterpoll(ctx, 1, some_fds, no_time))
CALL(call_register_hooks, libxl_osevent_register_hooks(ctx, &some_os_hooks, NULL))
CALL(call_occurred_fd, libxl_osevent_occurred_fd(ctx, NULL, 0, POLLIN, POLLIN))
CALL(call_occurred_timeout, libxl_osevent_occurred_timeout(ctx, NULL))
CALL(call_setmode, libxl_childproc_setmode(ctx, &some_childproc_hooks, NULL))
CALL(call_reaped, some_rc = libxl_childproc_reaped(ctx, 1, 0))
CALL(call_sigchld, libxl_childproc_sigchld_occurred(ctx))
CALL(call_postfork, libxl_postfork_child_noexec(ctx))

static const struct call {
    void (*call)(void *ctx);
    bool returns;
} calls[] = {
    { call_check, true },
    { call_wait, true },
    { call_register_callbacks, false },
    { call_enable_death, true },
    { call_disable_death, false },
    { call_enable_eject, true },
    { call_disable_eject, false },
    { call_beforepoll, true },
    { call_afterpoll, false },
    { call_register_hooks, false },
    { call_occurred_fd, false },
    { call_occurred_timeout, false },
    { call_setmode, false },
    { call_reaped, true },
    { call_sigchld, false },
    { call_postfork, false },
};

static void check_refused(libxl_ctx *ctx)
{
    size_t i;

    for (i = 0; i < COUNT(calls); i++) {
        some_nfds = 4, some_timeout = -1, some_rc = 77;
        some_event = UNTOUCHED, some_death = UNTOUCHED, some_eject = UNTOUCHED;
        calls[i].call(ctx);
        if (some_rc != (calls[i].returns ? ERROR_INVAL : 77))
            FAIL("call %zu returns %d", i, some_rc);
        CHECK(some_event == UNTOUCHED && (void *)some_death == UNTOUCHED && (void *)some_eject == UNTOUCHED);
    }
}

static void check_crashes(libxl_ctx *ctx)
{
    size_t i;

    for (i = 0; i < COUNT(calls); i++)
        if (calls[i].call != call_postfork)
            CHECK_DIES(SIGSEGV, calls[i].call, ctx);
    /* It does not look at its context before it is needed. */
    CHECK_EQUAL(in_child(call_postfork, ctx), 0);
}

TEST(every_function_refuses_a_NULL_context)
{
    if (OURS("bad-input"))
        check_refused(NULL);
    else
        check_crashes(NULL);
}

/* There is no logger to tell. */
TEST(a_call_with_no_context_is_logged_to_stderr)
{
    static const char expected[] = "xlevent: libxl_event_check: the context is NULL\n";
    char line[200];
    FILE *log = tmpfile();

    if (!OURS("bad-input")) {
        CHECK_DIES(SIGSEGV, call_check, NULL);
        return;
    }
    CHECK(log != NULL);
    CHECK(dup2(fileno(log), STDERR_FILENO) == STDERR_FILENO);
    call_check(NULL);
    rewind(log);
    CHECK(fgets(line, sizeof line, log) != NULL);
    if (strcmp(line, expected) != 0)
        FAIL("the line is: %s", line);
    CHECK(fgets(line, sizeof line, log) == NULL);
}

TEST(every_function_refuses_an_unknown_context)
{
    libxl_ctx *freed = open_context();

    close_context(freed);
    if (OURS("bad-input")) {
        check_refused(UNTOUCHED);
        CHECK_EQUAL(libxl_ctx_free(UNTOUCHED), ERROR_INVAL);
        check_refused(freed);
        CHECK_EQUAL(libxl_ctx_free(freed), ERROR_INVAL);
        check_refused((libxl_ctx *)1);
        return;
    }
    check_crashes((libxl_ctx *)1);
}
