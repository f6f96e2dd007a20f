/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a process does besides calling us: it forks in all the ways there are, and execs. (fork.c has
 * libxl_postfork_child_noexec itself; endings.c how a process and its threads end; signals.c the signals.)
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/check.h"
#include "harness/host.h"
#include "harness/xl.h"

extern char **environ;

/* ---- busy threads ---- */

static atomic_bool stop;
static atomic_size_t rounds[4];

static int want_user_2(const libxl_event *event, void *unused)
{
    (void)unused;
    return event->for_user == 2;
}

/* One that waits, with a predicate, and is woken again and again by what it doesn't want. */
static void *keep_waiting(void *ctx)
{
    libxl_event *event;

    while (!stop) {
        CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, want_user_2, NULL), 0);
        check_death(event, NOBODY, 2);
        libxl_event_free(ctx, event);
        rounds[0]++;
    }
    return NULL;
}

static void *keep_enabling(void *ctx)
{
    while (!stop) {
        libxl_evgen_domain_death *evgen = enable(ctx, NOBODY, 2);

        libxl_evdisable_domain_death(ctx, evgen);
        rounds[1]++;
    }
    return NULL;
}

static void *keep_checking(void *ctx)
{
    libxl_event *event;

    while (!stop) {
        CHECK_EQUAL(libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, is_never_wanted, NULL), ERROR_NOT_READY);
        rounds[2]++;
    }
    return NULL;
}

static void *keep_polling(void *ctx)
{
    while (!stop) {
        poll_once(ctx, 1);
        rounds[3]++;
    }
    return NULL;
}

static void *(*const busy[])(void *) = { keep_waiting, keep_enabling, keep_checking, keep_polling };
static pthread_t busy_threads[COUNT(busy)];

static void start_busy(libxl_ctx *ctx)
{
    size_t i;

    stop = false;
    for (i = 0; i < COUNT(busy); i++)
        busy_threads[i] = start_thread(busy[i], ctx);
    for (i = 0; i < COUNT(busy); i++)
        WAIT_UNTIL(rounds[i] > 3);
}

static void stop_busy(libxl_ctx *ctx)
{
    size_t i;

    stop = true;
    for (i = 1; i < COUNT(busy); i++)
        finish_thread(busy_threads[i]);
    /* It may have been woken by none of theirs. */
    enable(ctx, NOBODY, 2);
    finish_thread(busy_threads[0]);
}

/* ---- fork ---- */

static void end_in_order(void *unused)
{
    (void)unused;
    exit(0);
}

/* In libxenlight's process no more than the child's end is tried: it has locks of its own that nobody guards (fork.c). */
TEST_WITH(children_that_are_forked_while_threads_are_in_all_calls_work, NOT_FOR_LIBXENLIGHT | NOT_UNDER_VALGRIND)
{
    libxl_ctx *ctx = open_context();
    int i;

    start_busy(ctx);
    for (i = 0; i < 60; i++) {
        CHECK_EQUAL(in_child(end_in_order, NULL), 0);
        if (column == ALONE)
            CHECK_EQUAL(in_child(forget_and_begin_anew, ctx), 0);
    }
    stop_busy(ctx);
    close_context(ctx);
}

/* What a child does that hasn't called libxl_postfork_child_noexec, with a context that its parent listens with. */
static void use_the_parents_context(void *ctx)
{
    libxl_event *event = UNTOUCHED;
    libxl_evgen_domain_death *evgen = UNTOUCHED;
    struct pollfd fds[FDS_MAX];
    int nfds = FDS_MAX, timeout = -1;

    CHECK_EQUAL(libxl_evenable_domain_death(ctx, NOBODY, 1, &evgen), ERROR_INVAL);
    CHECK_EQUAL(libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_INVAL);
    CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_INVAL);
    CHECK_EQUAL(libxl_osevent_beforepoll(ctx, &nfds, fds, &timeout, no_time), ERROR_INVAL);
    CHECK_EQUAL(libxl_ctx_free(ctx), ERROR_INVAL);
    CHECK(event == UNTOUCHED && evgen == UNTOUCHED);
    /* And it isn't too late. */
    forget_and_begin_anew(ctx);
}

static void ask_with_the_parents_context(void *ctx)
{
    libxl_evgen_domain_death *evgen;

    libxl_evenable_disk_eject(ctx, 0, "hdc", 1, (libxl_evgen_disk_eject **)&evgen);
}

TEST(a_context_that_the_parent_listens_with_is_refused_in_a_child_that_has_not_forgotten_it)
{
    libxl_ctx *ctx = open_context();

    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    if (OURS("inherited-context")) {
        CHECK_EQUAL(in_child(use_the_parents_context, ctx), 0);
    } else {
        /* It waits for the answer from a thread that exists in its parent alone. */
        pid_t pid = fork();

        CHECK(pid >= 0);
        if (pid == 0) {
            ask_with_the_parents_context(ctx);
            _exit(0);
        }
        WAIT_UNTIL(sleeps_in(pid) == SYS_futex);
        CHECK_EQUAL(waitpid(pid, NULL, WNOHANG), 0);
        CHECK_EQUAL(kill(pid, SIGKILL), 0);
        CHECK(waitpid(pid, NULL, 0) == pid);
    }
    enable(ctx, NOBODY, 2);
    stir();
    expect_death(ctx, NOBODY, 2);
    close_context(ctx);
}

static void use_it_and_close_it(void *ctx)
{
    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    close_context(ctx);
}

/* As xl's daemon has it: what was only opened goes along, here through daemon(3) with a last fork of its own. */
TEST(a_context_that_has_only_been_opened_goes_along_into_a_daemon)
{
    int result[2], status;
    char byte;
    pid_t pid;

    CHECK(pipe(result) == 0);
    CHECK((pid = fork()) >= 0);
    if (pid == 0) {
        libxl_ctx *ctx = open_context();

        CHECK(daemon(1, 1) == 0);
        CHECK_EQUAL(in_child(use_it_and_close_it, ctx), 0);
        use_it_and_close_it(ctx);
        CHECK(write(result[1], "d", 1) == 1);
        _exit(0);
    }
    close(result[1]);
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_EQUAL(status, 0);
    CHECK(read(result[0], &byte, 1) == 1 && byte == 'd');
}

TEST(a_daemon_that_opens_its_context_after_daemon_works)
{
    int result[2], status;
    char byte;
    pid_t pid;

    CHECK(pipe(result) == 0);
    CHECK((pid = fork()) >= 0);
    if (pid == 0) {
        CHECK(daemon(1, 1) == 0);
        use_a_new_context();
        CHECK(write(result[1], "d", 1) == 1);
        _exit(0);
    }
    close(result[1]);
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_EQUAL(status, 0);
    CHECK(read(result[0], &byte, 1) == 1 && byte == 'd');
}

/* ---- fork from inside ---- */

static libxl_ctx *forks_with;
static int forked;

static void fork_here(void)
{
    CHECK_EQUAL(in_child(end_in_order, NULL), 0);
    if (column != REAL)
        CHECK_EQUAL(in_child(forget_and_begin_anew, forks_with), 0);
    forked++;
}

static int fork_in_a_predicate(const libxl_event *event, void *unused)
{
    (void)event, (void)unused;
    fork_here();
    return 1;
}

static void fork_in_a_callback(void *unused, libxl_event *event)
{
    (void)unused;
    fork_here();
    libxl_event_free(forks_with, event);
}

static int fork_in_fd_register(void *user, int fd, void **for_app, short events, void *for_libxl)
{
    (void)user, (void)fd, (void)for_app, (void)events, (void)for_libxl;
    fork_here();
    return 0;
}

static int modify_nothing(void *user, int fd, void **for_app, short events)
{
    (void)user, (void)fd, (void)for_app, (void)events;
    return 0;
}

static void fork_in_fd_deregister(void *user, int fd, void *for_app)
{
    (void)user, (void)fd, (void)for_app;
    fork_here();
}

static int no_timeout(void *user, void **for_app, struct timeval abs, void *for_libxl)
{
    (void)user, (void)for_app, (void)abs, (void)for_libxl;
    return ERROR_FAIL;
}

static int no_change(void *user, void **for_app, struct timeval abs)
{
    (void)user, (void)for_app, (void)abs;
    return ERROR_FAIL;
}

TEST(a_predicate_may_fork)
{
    libxl_ctx *ctx = forks_with = open_context();
    libxl_event *event;

    enable(ctx, NOBODY, 1);
    CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, fork_in_a_predicate, NULL), 0);
    CHECK_EQUAL(forked, 1);
    libxl_event_free(ctx, event);
    close_context(ctx);
}

TEST(a_callback_may_fork)
{
    static const libxl_event_hooks hooks = { LIBXL_EVENTMASK_ALL, fork_in_a_callback, NULL };
    libxl_ctx *ctx = forks_with = open_context();

    libxl_event_register_callbacks(ctx, &hooks, NULL);
    enable(ctx, NOBODY, 1);
    while (forked < 1)
        poll_once(ctx, 1000);
    close_context(ctx);
}

/* libxenlight calls hooks with its lock held, which its own function for children would want. */
TEST_WITH(hooks_may_fork, NOT_FOR_LIBXENLIGHT)
{
    static const libxl_osevent_hooks hooks = {
        .fd_register = fork_in_fd_register,
        .fd_modify = modify_nothing,
        .fd_deregister = fork_in_fd_deregister,
        .timeout_register = no_timeout,
        .timeout_modify = no_change,
    };
    libxl_ctx *ctx = forks_with = open_context();

    libxl_osevent_register_hooks(ctx, &hooks, NULL);
    libxl_evdisable_domain_death(ctx, enable(ctx, NOBODY, 1));
    close_context(ctx);
    CHECK_EQUAL(forked, 2);
}

/* ---- other ways to start a process ---- */

static int only_end(void *unused)
{
    (void)unused;
    _exit(0);
}

TEST_WITH(processes_started_in_any_way_disturb_nobody, NOT_UNDER_VALGRIND)
{
    static char stack[65536] __attribute__((aligned(16)));
    static char *const arguments[] = { "/bin/true", NULL };
    libxl_ctx *ctx = open_context();
    char line[16];
    int status, i;
    FILE *output;
    pid_t pid;

    enable(ctx, 0, 1);
    if (column != REAL)
        start_busy(ctx);
    for (i = 0; i < 20; i++) {
        CHECK_EQUAL(system("true"), 0);
        CHECK((output = popen("echo said", "re")) != NULL);
        CHECK(fgets(line, sizeof line, output) && strcmp(line, "said\n") == 0);
        CHECK_EQUAL(pclose(output), 0);
        CHECK_EQUAL(posix_spawn(&pid, "/bin/true", NULL, NULL, arguments, environ), 0);
        CHECK(waitpid(pid, &status, 0) == pid && status == 0);
        CHECK((pid = vfork()) >= 0);
        if (pid == 0) {
            execv("/bin/true", arguments);
            _exit(1);
        }
        CHECK(waitpid(pid, &status, 0) == pid && status == 0);
        CHECK((pid = clone(only_end, stack + sizeof stack, SIGCHLD, NULL)) >= 0);
        CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    }
    if (column != REAL)
        stop_busy(ctx);
    enable(ctx, NOBODY, 4);
    stir();
    libxl_event *event;
    libxl_ev_user user = 4;
    CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, is_for_user, &user), 0);
    libxl_event_free(ctx, event);
    close_context(ctx);
}

/* ---- exec ---- */

/* What a command of the shell writes. */
static void output_of(const char *command, char *text, size_t size)
{
    FILE *output = popen(command, "re");
    size_t length;

    CHECK(output != NULL);
    length = fread(text, 1, size - 1, output);
    text[length] = '\0';
    CHECK(length > 0 && length < size - 1);
    CHECK_EQUAL(pclose(output), 0);
}

/* A program finds what it would have found without us: descriptors, what is done at signals, the environment. */
TEST_WITH(a_program_that_is_started_finds_nothing_of_ours, NOT_UNDER_VALGRIND)
{
    static const libxl_childproc_hooks selective = { .chldowner = libxl_sigchld_owner_libxl_always_selective_reap };
    static const char *const commands[] = { "ls /proc/self/fd", "grep -E '^Sig(Blk|Ign)' /proc/self/status", "env" };
    static char before[COUNT(commands)][65536], with[65536];
    libxl_ctx *ctx, *other;
    struct polled polled;
    size_t i;

    for (i = 0; i < COUNT(commands); i++)
        output_of(commands[i], before[i], sizeof before[i]);
    ctx = open_context();
    other = open_context();
    libxl_childproc_setmode(other, &selective, NULL);
    enable(ctx, 0, 1);
    enable(other, NOBODY, 2);
    expect_death(other, NOBODY, 2);
    before_poll(ctx, &polled, -1);
    before_poll(other, &polled, -1);
    for (i = 0; i < COUNT(commands); i++) {
        output_of(commands[i], with, sizeof with);
        if (strcmp(with, before[i]) != 0)
            FAIL("%s: %s, and before: %s", commands[i], with, before[i]);
    }
    close_context(ctx);
    close_context(other);
}
