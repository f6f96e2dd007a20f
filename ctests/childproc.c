/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libxl_childproc_setmode, _reaped and _sigchld_occurred: whose SIGCHLD is, and who reaps what.
 *
 * Children here are the tests' own. The library's are libxenlight's, where it is in the process: the destruction of a domain
 * forks. (Those of xlevent alone are tested where they are made, in src/context/children_tests.)
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/check.h"
#include "harness/host.h"
#include "harness/xl.h"

/* ---- SIGCHLD ---- */

static struct sigaction sigchld(void)
{
    struct sigaction action;

    CHECK(sigaction(SIGCHLD, NULL, &action) == 0);
    return action;
}

static bool sigchld_is(void (*handler)(int))
{
    return sigchld().sa_handler == handler;
}

static bool sigchld_is_the_librarys(void)
{
    struct sigaction action = sigchld();

    return action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN && (action.sa_flags & SA_RESTART) &&
           (action.sa_flags & SA_NOCLDSTOP) && !(action.sa_flags & SA_SIGINFO);
}

static volatile sig_atomic_t own_handler_calls;

static void own_handler(int number)
{
    (void)number;
    own_handler_calls++;
}

/* ---- children of the application's ---- */

static pid_t child_exiting_with(int code)
{
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid == 0)
        _exit(code);
    return pid;
}

/* It has ended, and has not been reaped. */
static void await_end_of(pid_t pid)
{
    siginfo_t info;

    while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) != 0)
        CHECK_EQUAL(errno, EINTR);
}

static pid_t ended_child(int code)
{
    pid_t pid = child_exiting_with(code);

    await_end_of(pid);
    return pid;
}

/* It is still there to be reaped, and is. */
static void check_unreaped(pid_t pid, int code)
{
    int status;

    CHECK_EQUAL(waitpid(pid, &status, WNOHANG), pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == code);
}

/* ---- an application ---- */

static int logged_warnings;

static void note_line(xentoollog_logger *to, xentoollog_level level, int errnoval, const char *context,
                      const char *format, va_list arguments)
{
    (void)to, (void)errnoval, (void)context, (void)format, (void)arguments;
    logged_warnings += level == XTL_WARN;
    logged_errors += level >= XTL_ERROR;
}

/* Counts warnings too, and passes nothing on. */
static xentoollog_logger counter = { note_line, NULL, NULL };

static libxl_ctx *open_counted(void)
{
    libxl_ctx *ctx = NULL;

    CHECK_EQUAL(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &counter), 0);
    return ctx;
}

struct application {
    libxl_ctx *ctx;
    int forks, fork_errno;
    int answer;
    int told;
    pid_t pids[100];
    int statuses[100];
};

static pid_t count_and_fork(void *user)
{
    struct application *application = user;

    application->forks++;
    if (application->fork_errno) {
        errno = application->fork_errno;
        return -1;
    }
    return fork();
}

static int note_child(pid_t pid, int status, void *user)
{
    struct application *application = user;

    CHECK((size_t)application->told < COUNT(application->pids));
    application->pids[application->told] = pid;
    application->statuses[application->told] = status;
    application->told++;
    return application->answer;
}

/* Uses the library from within. */
static int note_child_and_call_in(pid_t pid, int status, void *user)
{
    struct application *application = user;
    libxl_event *event;

    libxl_evdisable_domain_death(application->ctx, enable(application->ctx, 0, 1));
    CHECK_EQUAL(libxl_event_check(application->ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_NOT_READY);
    return note_child(pid, status, user);
}

#define HOOKS(name, owner)                                                                                             \
    static const libxl_childproc_hooks name = { libxl_sigchld_owner_##owner, count_and_fork, note_child }

HOOKS(by_default, libxl);
HOOKS(always, libxl_always);
HOOKS(selective, libxl_always_selective_reap);
static const libxl_childproc_hooks mainloop = { libxl_sigchld_owner_mainloop, count_and_fork, NULL };
static const libxl_childproc_hooks always_alone = { .chldowner = libxl_sigchld_owner_libxl_always };
static const libxl_childproc_hooks always_calling_in = { .chldowner = libxl_sigchld_owner_libxl_always,
                                                         .reaped_callback = note_child_and_call_in };
static const libxl_childproc_hooks nonsense = { .chldowner = 4 };

static void poll_until_told(struct application *application, int told)
{
    while (application->told < told)
        poll_once(application->ctx, -1);
    CHECK_EQUAL(application->told, told);
}

/* The library has had its turn for every SIGCHLD so far: an event that comes after them has come. */
static void take_turns(libxl_ctx *ctx)
{
    libxl_evgen_domain_death *evgen = enable(ctx, NOBODY, 77);

    stir();
    libxl_event_free(ctx, poll_until_event(ctx, is_for_user, &(libxl_ev_user){ 77 }));
    while (poll_once(ctx, 0))
        ;
    libxl_evdisable_domain_death(ctx, evgen);
}

/* ---- who has the handler ---- */

TEST(by_default_SIGCHLD_is_left_alone)
{
    libxl_ctx *ctx = open_context();

    CHECK(sigchld_is(SIG_DFL));
    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    CHECK(sigchld_is(SIG_DFL));
    libxl_childproc_setmode(ctx, &by_default, NULL);
    CHECK(sigchld_is(SIG_DFL));
    libxl_childproc_setmode(ctx, NULL, NULL);
    CHECK(sigchld_is(SIG_DFL));
    close_context(ctx);
    CHECK(sigchld_is(SIG_DFL));
}

TEST(with_mainloop_SIGCHLD_is_left_alone)
{
    libxl_ctx *ctx = open_context();

    CHECK(signal(SIGCHLD, own_handler) == SIG_DFL);
    libxl_childproc_setmode(ctx, &mainloop, NULL);
    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    CHECK(sigchld_is(own_handler));
    check_unreaped(ended_child(3), 3);
    CHECK_EQUAL(own_handler_calls, 1);
    close_context(ctx);
    CHECK(sigchld_is(own_handler));
}

static void handler_is_there_in(const libxl_childproc_hooks *hooks, void (*before)(int))
{
    libxl_ctx *ctx = open_context();

    CHECK(signal(SIGCHLD, before) != SIG_ERR);
    libxl_childproc_setmode(ctx, hooks, NULL);
    CHECK(sigchld_is_the_librarys());
    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    CHECK(sigchld_is_the_librarys());
    libxl_childproc_setmode(ctx, hooks, NULL);
    CHECK(sigchld_is_the_librarys());
    libxl_childproc_setmode(ctx, NULL, NULL);
    CHECK(sigchld_is(before));
    libxl_childproc_setmode(ctx, hooks, NULL);
    CHECK(sigchld_is_the_librarys());
    close_context(ctx);
    CHECK(sigchld_is(before));
}

TEST(with_always_the_handler_is_there_from_the_call_to_the_contexts_end)
{
    handler_is_there_in(&always, SIG_DFL);
}

TEST(with_selective_the_handler_is_there_from_the_call_to_the_contexts_end)
{
    handler_is_there_in(&selective, SIG_DFL);
}

TEST(SIGCHLD_that_was_ignored_is_ignored_again)
{
    handler_is_there_in(&always, SIG_IGN);
    handler_is_there_in(&selective, SIG_IGN);
}

TEST(flags_and_mask_that_were_there_come_back)
{
    libxl_ctx *ctx = open_context();
    struct sigaction action = { .sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT };

    sigaddset(&action.sa_mask, SIGUSR1);
    CHECK(sigaction(SIGCHLD, &action, NULL) == 0);
    libxl_childproc_setmode(ctx, &selective, NULL);
    check_unreaped(ended_child(3), 3);
    close_context(ctx);
    action = sigchld();
    CHECK(action.sa_handler == SIG_DFL && action.sa_flags & SA_NOCLDWAIT && sigismember(&action.sa_mask, SIGUSR1));
}

TEST(the_handler_stays_until_the_last_context_that_wants_it_leaves)
{
    libxl_ctx *contexts[3] = { open_context(), open_context(), open_context() };

    libxl_childproc_setmode(contexts[0], &selective, NULL);
    libxl_childproc_setmode(contexts[1], &selective, NULL);
    libxl_childproc_setmode(contexts[2], &selective, NULL);
    close_context(contexts[0]);
    CHECK(sigchld_is_the_librarys());
    libxl_childproc_setmode(contexts[2], &mainloop, NULL);
    CHECK(sigchld_is_the_librarys());
    close_context(contexts[1]);
    CHECK(sigchld_is(SIG_DFL));
    close_context(contexts[2]);
}

/* libxenlight looks at the flags in its destructor too, so only what is said at once is the same. */
static void set_always(void *ctx)
{
    libxl_childproc_setmode(ctx, &always, NULL);
}

static void set_selective(void *ctx)
{
    libxl_childproc_setmode(ctx, &selective, NULL);
}

TEST(a_handler_of_the_applications_own_stays)
{
    libxl_ctx *ctx = open_context();

    CHECK(signal(SIGCHLD, own_handler) == SIG_DFL);
    log_quietly = true;
    if (OURS("foreign-handler")) {
        set_always(ctx);
        CHECK_EQUAL(logged_errors, 1);
        CHECK(sigchld_is(own_handler));
        check_unreaped(ended_child(3), 3);
        CHECK_EQUAL(own_handler_calls, 1);
        set_selective(ctx);
        /* It has just been said. */
        CHECK_EQUAL(logged_errors, 1);
        enable(ctx, NOBODY, 1);
        expect_death(ctx, NOBODY, 1);
    } else {
        CHECK_DIES(SIGABRT, set_always, ctx);
        CHECK_DIES(SIGABRT, set_selective, ctx);
    }
    close_context(ctx);
    CHECK(sigchld_is(own_handler));
}

/* A signal that comes while a call waits does not end it, and errno is not the handler's to change. */
TEST(the_handler_disturbs_neither_calls_nor_errno)
{
    libxl_ctx *ctx = open_context();
    int fds[2];
    char byte;
    pid_t pid;

    libxl_childproc_setmode(ctx, &selective, NULL);
    errno = EXDEV;
    raise(SIGCHLD);
    CHECK_EQUAL(errno, EXDEV);
    CHECK(pipe(fds) == 0);
    CHECK((pid = fork()) >= 0);
    if (pid == 0) {
        /* A child of its own is the signal; then the byte. */
        pid_t parent = getppid();
        int i;

        for (i = 0; i < 50; i++) {
            kill(parent, SIGCHLD);
            pause_a_little();
        }
        CHECK(write(fds[1], "x", 1) == 1);
        _exit(0);
    }
    CHECK(read(fds[0], &byte, 1) == 1);
    await_end_of(pid);
    check_unreaped(pid, 0);
    close_context(ctx);
}

/* ---- who reaps ---- */

TEST(with_always_every_child_is_reaped_and_told)
{
    struct application application = { .ctx = open_counted() };
    pid_t pid;

    libxl_childproc_setmode(application.ctx, &always, &application);
    pid = child_exiting_with(3);
    poll_until_told(&application, 1);
    CHECK_EQUAL(application.pids[0], pid);
    CHECK(WIFEXITED(application.statuses[0]) && WEXITSTATUS(application.statuses[0]) == 3);
    CHECK(waitpid(pid, NULL, WNOHANG) == -1 && errno == ECHILD);
    CHECK((pid = fork()) >= 0);
    if (pid == 0)
        for (;;)
            pause();
    kill(pid, SIGKILL);
    poll_until_told(&application, 2);
    CHECK_EQUAL(application.pids[1], pid);
    CHECK(WIFSIGNALED(application.statuses[1]) && WTERMSIG(application.statuses[1]) == SIGKILL);
    CHECK_EQUAL(application.forks, 0);
    CHECK_EQUAL(logged_warnings, 0);
    close_context(application.ctx);
}

TEST(with_always_many_children_that_end_together_are_all_told)
{
    struct application application = { .ctx = open_counted() };
    pid_t pids[50];
    size_t i, j;

    libxl_childproc_setmode(application.ctx, &always, &application);
    for (i = 0; i < COUNT(pids); i++)
        pids[i] = ended_child((int)i);
    poll_until_told(&application, COUNT(pids));
    for (i = 0; i < COUNT(pids); i++) {
        for (j = 0; j < COUNT(pids) && application.pids[j] != pids[i]; j++)
            ;
        CHECK(j < COUNT(pids));
        CHECK_EQUAL(WEXITSTATUS(application.statuses[j]), i);
    }
    close_context(application.ctx);
}

/* SIGCHLD may have come before the context was told to care. */
TEST(with_always_one_that_has_ended_before_is_reaped_with_the_next)
{
    struct application application = { .ctx = open_counted() };
    pid_t before = ended_child(1);

    libxl_childproc_setmode(application.ctx, &always, &application);
    child_exiting_with(2);
    poll_until_told(&application, 2);
    CHECK(application.pids[0] == before || application.pids[1] == before);
    close_context(application.ctx);
}

TEST(a_child_that_nobody_knows_is_a_warning)
{
    struct application application = { .ctx = open_counted(), .answer = ERROR_UNKNOWN_CHILD };

    libxl_childproc_setmode(application.ctx, &always, &application);
    child_exiting_with(3);
    poll_until_told(&application, 1);
    CHECK_EQUAL(logged_warnings, 1);
    CHECK_EQUAL(logged_errors, 0);
    close_context(application.ctx);
}

TEST(without_a_callback_too_a_child_that_nobody_knows_is_a_warning)
{
    struct application application = { .ctx = open_counted() };

    libxl_childproc_setmode(application.ctx, &always_alone, NULL);
    child_exiting_with(4);
    while (logged_warnings < 1)
        poll_once(application.ctx, -1);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    CHECK_EQUAL(logged_errors, 0);
    close_context(application.ctx);
}

static int disasters;
static libxl_event_type disaster_type;

static void note_disaster(void *user, libxl_event_type type, const char *message, int errnoval)
{
    (void)user, (void)message, (void)errnoval;
    disasters++;
    disaster_type = type;
}

TEST(a_callback_that_fails_is_a_disaster)
{
    static const libxl_event_hooks hooks = { .disaster = note_disaster };
    struct application application = { .ctx = open_counted(), .answer = ERROR_FAIL };

    libxl_event_register_callbacks(application.ctx, &hooks, NULL);
    libxl_childproc_setmode(application.ctx, &always, &application);
    child_exiting_with(3);
    poll_until_told(&application, 1);
    CHECK_EQUAL(disasters, 1);
    CHECK_EQUAL(disaster_type, 0);
    application.answer = 0;
    child_exiting_with(4);
    poll_until_told(&application, 2);
    CHECK_EQUAL(disasters, 1);
    close_context(application.ctx);
}

TEST(a_callback_may_call_the_library)
{
    struct application application = { .ctx = open_counted() };

    libxl_childproc_setmode(application.ctx, &always_calling_in, &application);
    child_exiting_with(3);
    poll_until_told(&application, 1);
    child_exiting_with(4);
    poll_until_told(&application, 2);
    close_context(application.ctx);
}

static int set_mainloop_when_told(pid_t pid, int status, void *user)
{
    struct application *application = user;

    libxl_childproc_setmode(application->ctx, &mainloop, application);
    return note_child(pid, status, user);
}

/* It is told of one child, and has the rest for itself. */
TEST(a_callback_may_change_the_mode)
{
    static const libxl_childproc_hooks hooks = { .chldowner = libxl_sigchld_owner_libxl_always,
                                                 .reaped_callback = set_mainloop_when_told };
    struct application application = { .ctx = open_counted() };
    pid_t pids[3];
    size_t i, left = 0;

    libxl_childproc_setmode(application.ctx, &hooks, &application);
    for (i = 0; i < COUNT(pids); i++)
        pids[i] = ended_child((int)i);
    poll_until_told(&application, 1);
    CHECK(sigchld_is(SIG_DFL));
    for (i = 0; i < COUNT(pids); i++)
        left += waitpid(pids[i], NULL, WNOHANG) == pids[i];
    CHECK_EQUAL(left, 2);
    close_context(application.ctx);
}

static void application_keeps_its_children(const libxl_childproc_hooks *hooks)
{
    struct application application = { .ctx = open_counted() };
    pid_t first, second;

    first = ended_child(1);
    libxl_childproc_setmode(application.ctx, hooks, &application);
    second = ended_child(2);
    take_turns(application.ctx);
    check_unreaped(first, 1);
    check_unreaped(second, 2);
    CHECK_EQUAL(application.told, 0);
    CHECK_EQUAL(logged_warnings, 0);
    close_context(application.ctx);
}

TEST(by_default_the_applications_children_are_its_own)
{
    application_keeps_its_children(&by_default);
    application_keeps_its_children(NULL);
}

TEST(with_selective_the_applications_children_are_its_own)
{
    application_keeps_its_children(&selective);
}

TEST(with_mainloop_the_applications_children_are_its_own)
{
    struct application application = { .ctx = open_counted() };
    pid_t pid = ended_child(1);

    libxl_childproc_setmode(application.ctx, &mainloop, &application);
    libxl_childproc_sigchld_occurred(application.ctx);
    take_turns(application.ctx);
    check_unreaped(pid, 1);
    CHECK_EQUAL(logged_errors, 0);
    close_context(application.ctx);
}

TEST(a_child_that_is_not_the_librarys_is_unknown_without_a_word)
{
    libxl_ctx *ctx = open_context();

    libxl_childproc_setmode(ctx, &mainloop, NULL);
    CHECK_EQUAL(libxl_childproc_reaped(ctx, 1, 0), ERROR_UNKNOWN_CHILD);
    CHECK_EQUAL(libxl_childproc_reaped(ctx, getpid(), 0), ERROR_UNKNOWN_CHILD);
    CHECK_EQUAL(libxl_childproc_reaped(ctx, 0, 0), ERROR_UNKNOWN_CHILD);
    CHECK_EQUAL(libxl_childproc_reaped(ctx, -1, 0xffff), ERROR_UNKNOWN_CHILD);
    CHECK_EQUAL(logged_errors + logged_warnings, 0);
    close_context(ctx);
}

/* Those that don't reap leave it to the one that does. */
TEST(contexts_with_different_owners_get_along)
{
    struct application application = { .ctx = open_counted() };
    libxl_ctx *others[3] = { open_context(), open_context(), open_context() };
    size_t i;

    libxl_childproc_setmode(others[0], &selective, NULL);
    libxl_childproc_setmode(others[1], &mainloop, NULL);
    libxl_childproc_setmode(application.ctx, &always, &application);
    child_exiting_with(1);
    poll_until_told(&application, 1);
    for (i = 0; i < COUNT(others); i++)
        take_turns(others[i]);
    child_exiting_with(2);
    poll_until_told(&application, 2);
    close_context(application.ctx);
    CHECK(sigchld_is_the_librarys());
    check_unreaped(ended_child(3), 3);
    for (i = 0; i < COUNT(others); i++)
        close_context(others[i]);
    CHECK(sigchld_is(SIG_DFL));
}

/* ---- misuse ---- */

static void tell_of_a_child(void *ctx)
{
    libxl_childproc_reaped(ctx, 1, 0);
}

static void tell_of_sigchld(void *ctx)
{
    libxl_childproc_sigchld_occurred(ctx);
}

TEST(only_an_application_that_owns_SIGCHLD_may_tell_of_it)
{
    static const libxl_childproc_hooks *const wrong[] = { NULL, &by_default, &always, &selective };
    libxl_ctx *ctx = open_context();
    size_t i;

    log_quietly = true;
    for (i = 0; i < COUNT(wrong); i++) {
        libxl_childproc_setmode(ctx, wrong[i], NULL);
        if (OURS("wrong-owner")) {
            /* The first two are the same owner, and the same lines. */
            int owner = i < 2 ? 0 : (int)i - 1;

            CHECK_EQUAL(libxl_childproc_reaped(ctx, 1, 0), ERROR_INVAL);
            CHECK_EQUAL(logged_errors, 2 * owner + (i == 1 ? 2 : 1));
            tell_of_sigchld(ctx);
            CHECK_EQUAL(logged_errors, 2 * owner + 2);
        } else {
            CHECK_DIES(SIGABRT, tell_of_a_child, ctx);
            CHECK_DIES(SIGABRT, tell_of_sigchld, ctx);
        }
    }
    close_context(ctx);
}

static void set_nonsense(void *ctx)
{
    libxl_childproc_setmode(ctx, &nonsense, NULL);
}

TEST(an_owner_that_does_not_exist_changes_nothing)
{
    struct application application = { .ctx = open_counted() };

    libxl_childproc_setmode(application.ctx, &always, &application);
    if (OURS("unknown-owner")) {
        set_nonsense(application.ctx);
        CHECK_EQUAL(logged_errors, 1);
        CHECK(sigchld_is_the_librarys());
        child_exiting_with(1);
        poll_until_told(&application, 1);
    } else {
        CHECK_DIES(SIGABRT, set_nonsense, application.ctx);
    }
    close_context(application.ctx);
}

static void postfork_of_nothing(void *unused)
{
    (void)unused;
    libxl_postfork_child_noexec(NULL);
}

static void set_mode_of_nothing(void *unused)
{
    (void)unused;
    libxl_childproc_setmode(NULL, &mainloop, NULL);
}

TEST(a_NULL_context_is_refused_and_a_NULL_table_is_the_default)
{
    libxl_ctx *ctx = open_context();

    if (OURS("bad-input")) {
        set_mode_of_nothing(NULL);
        CHECK_EQUAL(libxl_childproc_reaped(NULL, 1, 0), ERROR_INVAL);
        tell_of_sigchld(NULL);
        CHECK_EQUAL(in_child(postfork_of_nothing, NULL), 0);
    } else {
        CHECK_DIES(SIGSEGV, set_mode_of_nothing, NULL);
        CHECK_DIES(SIGSEGV, tell_of_a_child, NULL);
        CHECK_DIES(SIGSEGV, tell_of_sigchld, NULL);
    }
    libxl_childproc_setmode(ctx, &always, NULL);
    libxl_childproc_setmode(ctx, NULL, NULL);
    CHECK(sigchld_is(SIG_DFL));
    close_context(ctx);
}

/* ---- fork ---- */

static void forget_and_have_children(void *ctx)
{
    struct application application = { 0 };

    CHECK(sigchld_is_the_librarys());
    libxl_postfork_child_noexec(ctx);
    CHECK(sigchld_is(SIG_DFL));
    check_unreaped(ended_child(1), 1);
    application.ctx = open_counted();
    libxl_childproc_setmode(application.ctx, &always, &application);
    CHECK(sigchld_is_the_librarys());
    child_exiting_with(2);
    poll_until_told(&application, 1);
    close_context(application.ctx);
    CHECK(sigchld_is(SIG_DFL));
}

TEST(a_forked_child_gives_SIGCHLD_back_and_may_take_it_anew)
{
    libxl_ctx *ctx = open_context(), *other = open_context();

    libxl_childproc_setmode(ctx, &selective, NULL);
    libxl_childproc_setmode(other, &selective, NULL);
    CHECK_EQUAL(in_child(forget_and_have_children, ctx), 0);
    CHECK(sigchld_is_the_librarys());
    close_context(ctx);
    CHECK(sigchld_is_the_librarys());
    close_context(other);
    CHECK(sigchld_is(SIG_DFL));
}

static void forget_twice(void *ctx)
{
    libxl_postfork_child_noexec(ctx);
    libxl_postfork_child_noexec(ctx);
    CHECK(sigchld_is(SIG_DFL));
    check_unreaped(ended_child(1), 1);
}

TEST(postfork_may_be_called_again_where_SIGCHLD_was_the_librarys)
{
    libxl_ctx *ctx = open_context();

    libxl_childproc_setmode(ctx, &selective, NULL);
    CHECK_EQUAL(in_child(forget_twice, ctx), 0);
    CHECK(sigchld_is_the_librarys());
    close_context(ctx);
}

static void count_after_forgetting(void *user)
{
    struct application *application = user;
    int before = application->answer;

    libxl_postfork_child_noexec(application->ctx);
    if (OURS("postfork-closes"))
        CHECK_AT_MOST(count_fds(), before);
}

/* The eventfd, or the pipe, of SIGCHLD among them. */
TEST_WITH(a_forked_child_keeps_no_descriptor_for_SIGCHLD, NOT_UNDER_VALGRIND | NOT_BESIDE_LIBXENLIGHT)
{
    struct application application = { .answer = count_fds() };

    application.ctx = open_counted();
    libxl_childproc_setmode(application.ctx, &selective, NULL);
    CHECK_EQUAL(in_child(count_after_forgetting, &application), 0);
    close_context(application.ctx);
    CHECK_EQUAL(count_fds(), application.answer);
}

/* ---- with threads ---- */

struct forker {
    pthread_t thread;
    libxl_ctx *ctx;
    int failures;
};

enum { FORKERS = 3, FORKS = 20 };

static void *fork_and_reap(void *user)
{
    struct forker *forker = user;
    int i, status;
    pid_t pid;

    for (i = 0; i < FORKS; i++) {
        pid = fork();
        if (pid == 0) {
            /* Every other one forgets; the rest just end. (Not with libxenlight: the next test says why.) */
            if (i & 1 && column == ALONE)
                libxl_postfork_child_noexec(forker->ctx);
            _exit(i);
        }
        while (waitpid(pid, &status, 0) != pid)
            if (errno != EINTR)
                break;
        forker->failures += !WIFEXITED(status) || WEXITSTATUS(status) != i;
    }
    return NULL;
}

DOMAIN_TEST(threads_fork_and_reap_their_own_while_events_flow)
{
    enum { FIRST = 100, DOMAINS = 60 };
    struct forker forkers[FORKERS] = { 0 };
    libxl_ctx *ctx = open_context();
    uint32_t i;

    libxl_childproc_setmode(ctx, &selective, NULL);
    host_create_many(FIRST, DOMAINS);
    for (i = 0; i < DOMAINS; i++)
        enable(ctx, FIRST + i, i);
    for (i = 0; i < FORKERS; i++) {
        forkers[i].ctx = ctx;
        forkers[i].thread = start_thread(fork_and_reap, &forkers[i]);
    }
    for (i = 0; i < DOMAINS; i++) {
        host_shutdown(FIRST + i, POWEROFF);
        expect_shutdown(ctx, FIRST + i, i, POWEROFF);
    }
    for (i = 0; i < FORKERS; i++) {
        finish_thread(forkers[i].thread);
        CHECK_EQUAL(forkers[i].failures, 0);
    }
    expect_silence(ctx);
    close_context(ctx);
}

static atomic_bool no_more_signals;

static void *raise_SIGCHLD(void *unused)
{
    (void)unused;
    while (!no_more_signals)
        pthread_kill(pthread_self(), SIGCHLD);
    return NULL;
}

/* libxenlight's handler takes a lock, and its libxl_postfork_child_noexec the same. */
TEST_WITH(a_child_that_is_forked_while_the_handler_runs_can_forget_its_parents_contexts,
          LIBXENLIGHTS_BESIDE | NOT_UNDER_VALGRIND)
{
    enum { THREADS = 2, CHILDREN = 300, UNTIL_SEEN = 100000 };
    libxl_ctx *ctx = open_context();
    pthread_t threads[THREADS];
    bool stuck = false;
    int i, status;

    libxl_childproc_setmode(ctx, &selective, NULL);
    for (i = 0; i < THREADS; i++)
        threads[i] = start_thread(raise_SIGCHLD, NULL);
    for (i = 0; i < (column == REAL ? UNTIL_SEEN : CHILDREN) && !stuck; i++) {
        pid_t pid = fork(), ended;

        CHECK(pid >= 0);
        if (pid == 0) {
            libxl_postfork_child_noexec(ctx);
            _exit(0);
        }
        while ((ended = waitpid(pid, &status, WNOHANG)) == 0 && !stuck) {
            /* Its only thread waits for a lock: nobody will give it up. */
            stuck = sleeps_in(pid) == SYS_futex;
            sched_yield();
        }
        if (stuck) {
            kill(pid, SIGKILL);
            CHECK_EQUAL(waitpid(pid, &status, 0), pid);
        } else {
            CHECK_EQUAL(ended, pid);
            CHECK_EQUAL(status, 0);
        }
    }
    no_more_signals = true;
    for (i = 0; i < THREADS; i++)
        finish_thread(threads[i]);
    CHECK_EQUAL(stuck, !OURS("fork-in-handler"));
    close_context(ctx);
}

static void *fork_and_leave(void *unused)
{
    int i;

    (void)unused;
    for (i = 0; i < FORKS; i++)
        child_exiting_with(0);
    return NULL;
}

DOMAIN_TEST(children_of_many_threads_are_reaped_by_one_that_waits_for_events)
{
    struct application application = { .ctx = open_counted() };
    pthread_t threads[FORKERS];
    uint32_t domid = host_create();
    size_t i;

    libxl_childproc_setmode(application.ctx, &always, &application);
    enable(application.ctx, domid, 1);
    for (i = 0; i < FORKERS; i++)
        threads[i] = start_thread(fork_and_leave, NULL);
    poll_until_told(&application, FORKERS * FORKS);
    for (i = 0; i < FORKERS; i++)
        finish_thread(threads[i]);
    host_shutdown(domid, POWEROFF);
    expect_shutdown(application.ctx, domid, 1, POWEROFF);
    CHECK_EQUAL(application.told, FORKERS * FORKS);
    close_context(application.ctx);
}

/* ---- children of libxenlight's ---- */

/* Has libxenlight destroy a domain, which it does in a child; false where there is no libxenlight. */
static bool have_a_domain_destroyed(libxl_ctx *ctx, int *rc)
{
    int (*destroy)(libxl_ctx *, uint32_t, const void *);

    *(void **)&destroy = dlsym(RTLD_DEFAULT, "libxl_domain_destroy");
    if (!destroy)
        return false;
    *rc = destroy(ctx, host_create(), NULL);
    return true;
}

static void libxenlight_has_a_child_in(const libxl_childproc_hooks *hooks)
{
    struct application application = { .ctx = open_counted(), .answer = ERROR_UNKNOWN_CHILD };
    int rc;

    libxl_childproc_setmode(application.ctx, hooks, &application);
    if (have_a_domain_destroyed(application.ctx, &rc)) {
        CHECK_AT_LEAST(application.forks, 1);
        CHECK_EQUAL(application.told, 0);
        CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
    }
    close_context(application.ctx);
    CHECK(sigchld_is(SIG_DFL));
}

DOMAIN_TEST(libxenlights_children_are_forked_by_the_application_and_reaped_by_libxenlight)
{
    libxenlight_has_a_child_in(&by_default);
    libxenlight_has_a_child_in(&always);
    libxenlight_has_a_child_in(&selective);
}
