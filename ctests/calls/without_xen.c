/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Calls where there is no Xen: no hypervisor, no xenstored. Everything must say so, and nothing crash.
 */
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>

#include <libxl_event.h>
#include <xentoollog.h>

#include "check.h"

static struct timeval now;

static int logged_errors, logged_by_libxl;

static void count_errors(xentoollog_logger *logger, xentoollog_level level, int errnoval, const char *context,
                         const char *format, va_list arguments)
{
    (void)logger, (void)errnoval, (void)format, (void)arguments;
    logged_errors += level >= XTL_ERROR;
    logged_by_libxl += context && strcmp(context, "libxl") == 0;
}

static xentoollog_logger logger = { count_errors, NULL, NULL };

static int count_fds(void)
{
    int fd, count = 0;

    for (fd = 0; fd < 256; fd++)
        count += dup2(fd, fd) == fd;
    return count;
}

static void a_context_is_refused_with_a_log_line_and_nothing_is_left(void)
{
    libxl_ctx *ctx = (libxl_ctx *)&logger;
    int i, fds = count_fds();

    for (i = 0; i < 10; i++) {
        CHECK_EQUAL(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &logger), ERROR_FAIL);
        CHECK(ctx == NULL);
        CHECK(logged_errors > i);
    }
    CHECK_EQUAL(count_fds(), fds);
}

static void a_context_without_a_logger_is_refused(void)
{
    libxl_ctx *ctx = (libxl_ctx *)&logger;

    CHECK_EQUAL(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, NULL), ERROR_FAIL);
    CHECK(ctx == NULL);
}

static void a_wrong_version_is_refused(void)
{
    libxl_ctx *ctx = (libxl_ctx *)&logger;

    CHECK_EQUAL(libxl_ctx_alloc(&ctx, LIBXL_VERSION + 1, 0, &logger), ERROR_VERSION);
    CHECK(ctx == NULL);
    ctx = (libxl_ctx *)&logger;
    CHECK_EQUAL(libxl_ctx_alloc(&ctx, -1, 0, &logger), ERROR_VERSION);
    CHECK(ctx == NULL);
    CHECK_EQUAL(logged_errors, 2);
}

static void a_null_place_for_the_context_is_refused(void)
{
    CHECK_EQUAL(libxl_ctx_alloc(NULL, LIBXL_VERSION, 0, &logger), ERROR_INVAL);
}

static void without_descriptors_a_context_is_refused(void)
{
    struct rlimit limit;
    libxl_ctx *ctx = (libxl_ctx *)&logger;

    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = (rlim_t)count_fds();
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    CHECK_EQUAL(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &logger), ERROR_FAIL);
    CHECK(ctx == NULL);
}

/* As a plugin of a daemon's does it. */
static void a_libxenlight_that_is_loaded_privately_is_found(void)
{
    libxl_ctx *ctx = NULL;

    CHECK(dlopen("libxenlight.so", RTLD_NOW | RTLD_LOCAL) != NULL);
    CHECK_EQUAL(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &logger), ERROR_FAIL);
    CHECK(ctx == NULL);
    CHECK(logged_by_libxl > 0);
}

/* Every function, with a context that is none. */
static void every_function_refuses(libxl_ctx *ctx)
{
    libxl_event *event = (libxl_event *)&logger;
    libxl_evgen_domain_death *death = NULL;
    libxl_evgen_disk_eject *eject = NULL;
    libxl_event_hooks event_hooks = { 0, NULL, NULL };
    libxl_osevent_hooks os_hooks;
    libxl_childproc_hooks childproc_hooks = { libxl_sigchld_owner_libxl, NULL, NULL };
    struct pollfd fds[4];
    int nfds = 4, timeout = -1;

    memset(&os_hooks, 0, sizeof os_hooks);
    memset(fds, 0, sizeof fds);
    CHECK_EQUAL(libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_INVAL);
    CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_INVAL);
    CHECK(event == (libxl_event *)&logger);
    libxl_event_free(ctx, NULL);
    libxl_event_register_callbacks(ctx, &event_hooks, NULL);
    libxl_event_register_callbacks(ctx, NULL, NULL);
    CHECK_EQUAL(libxl_evenable_domain_death(ctx, 1, 0, &death), ERROR_INVAL);
    CHECK_EQUAL(libxl_evenable_domain_death(ctx, 1, 0, NULL), ERROR_INVAL);
    CHECK(death == NULL);
    libxl_evdisable_domain_death(ctx, NULL);
    libxl_evdisable_domain_death(ctx, (libxl_evgen_domain_death *)&logger);
    CHECK_EQUAL(libxl_evenable_disk_eject(ctx, 1, "hdc", 0, &eject), ERROR_INVAL);
    CHECK_EQUAL(libxl_evenable_disk_eject(ctx, 1, NULL, 0, NULL), ERROR_INVAL);
    CHECK(eject == NULL);
    libxl_evdisable_disk_eject(ctx, NULL);
    libxl_evdisable_disk_eject(ctx, (libxl_evgen_disk_eject *)&logger);
    CHECK_EQUAL(libxl_osevent_beforepoll(ctx, &nfds, fds, &timeout, now), ERROR_INVAL);
    CHECK_EQUAL(libxl_osevent_beforepoll(ctx, NULL, NULL, NULL, now), ERROR_INVAL);
    libxl_osevent_afterpoll(ctx, nfds, fds, now);
    libxl_osevent_afterpoll(ctx, 1, NULL, now);
    libxl_osevent_afterpoll(ctx, -1, NULL, now);
    libxl_osevent_register_hooks(ctx, &os_hooks, NULL);
    libxl_osevent_register_hooks(ctx, NULL, NULL);
    libxl_osevent_occurred_fd(ctx, NULL, 0, POLLIN, POLLIN);
    libxl_osevent_occurred_timeout(ctx, NULL);
    libxl_childproc_setmode(ctx, &childproc_hooks, NULL);
    libxl_childproc_setmode(ctx, NULL, NULL);
    CHECK_EQUAL(libxl_childproc_reaped(ctx, 1, 0), ERROR_INVAL);
    libxl_childproc_sigchld_occurred(ctx);
    libxl_postfork_child_noexec(ctx);
}

static void every_function_refuses_a_null_context(void)
{
    every_function_refuses(NULL);
    CHECK_EQUAL(libxl_ctx_free(NULL), 0);
}

static void every_function_refuses_an_unknown_context(void)
{
    every_function_refuses((libxl_ctx *)&logger);
    CHECK_EQUAL(libxl_ctx_free((libxl_ctx *)&logger), ERROR_INVAL);
    every_function_refuses((libxl_ctx *)1);
}

static const struct test tests[] = {
    { "a context is refused with a log line, and nothing is left", a_context_is_refused_with_a_log_line_and_nothing_is_left },
    { "a context without a logger is refused", a_context_without_a_logger_is_refused },
    { "a wrong version is refused", a_wrong_version_is_refused },
    { "a NULL place for the context is refused", a_null_place_for_the_context_is_refused },
    { "without descriptors a context is refused", without_descriptors_a_context_is_refused },
    { "a libxenlight that is loaded privately is found", a_libxenlight_that_is_loaded_privately_is_found },
    { "every function refuses a NULL context", every_function_refuses_a_null_context },
    { "every function refuses an unknown context", every_function_refuses_an_unknown_context },
};

int main(int argc, char **argv)
{
    return RUN_TESTS(tests);
}
