/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libxl_postfork_child_noexec, and programs that fork as xl does.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/check.h"
#include "harness/host.h"
#include "harness/xl.h"

TEST(a_forked_child_forgets_the_contexts_and_the_parent_notices_nothing)
{
    libxl_ctx *ctx = open_context(), *other = open_context();

    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    enable(ctx, 0, 2);
    enable(other, NOBODY, 5);
    CHECK_EQUAL(in_child(forget_and_begin_anew, ctx), 0);
    expect_death(other, NOBODY, 5);
    enable(ctx, NOBODY, 4);
    stir();
    expect_death(ctx, NOBODY, 4);
    expect_nothing_queued(ctx);
    close_context(ctx);
    close_context(other);
}

DOMAIN_TEST(the_parent_misses_nothing_of_what_happens_while_a_child_lives)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    int go[2];
    pid_t pid;
    char byte;
    int status;

    enable(ctx, domid, 1);
    expect_silence(ctx);
    CHECK(pipe(go) == 0);
    CHECK((pid = fork()) >= 0);
    if (pid == 0) {
        libxl_postfork_child_noexec(ctx);
        use_a_new_context();
        close(go[1]);
        CHECK(read(go[0], &byte, 1) == 0);
        _exit(0);
    }
    host_shutdown(domid, REBOOT);
    expect_shutdown(ctx, domid, 1, REBOOT);
    close(go[1]);
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_EQUAL(status, 0);
    host_destroy(domid);
    expect_death(ctx, domid, 1);
    expect_silence(ctx);
    close_context(ctx);
}

static void forget_twice(void *ctx)
{
    libxl_postfork_child_noexec(ctx);
    libxl_postfork_child_noexec(ctx);
    use_a_new_context();
    libxl_postfork_child_noexec(ctx);
}

TEST(postfork_may_be_called_again)
{
    libxl_ctx *ctx = open_context();

    enable(ctx, 0, 1);
    CHECK_EQUAL(in_child(forget_twice, ctx), 0);
    close_context(ctx);
}

/* Calls with a context of the parent's are refused in the child. */
static void use_a_forgotten_context(void *ctx)
{
    libxl_event *event = UNTOUCHED;
    libxl_evgen_domain_death *evgen = UNTOUCHED;

    libxl_postfork_child_noexec(ctx);
    CHECK_EQUAL(libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_INVAL);
    CHECK_EQUAL(libxl_evenable_domain_death(ctx, NOBODY, 1, &evgen), ERROR_INVAL);
    CHECK_EQUAL(libxl_ctx_free(ctx), ERROR_INVAL);
    CHECK(event == UNTOUCHED && evgen == UNTOUCHED);
}

TEST_OF_OURS(after_postfork_the_parents_context_is_refused_in_the_child)
{
    libxl_ctx *ctx = open_context();

    enable(ctx, NOBODY, 1);
    CHECK_EQUAL(in_child(use_a_forgotten_context, ctx), 0);
    expect_death(ctx, NOBODY, 1);
    close_context(ctx);
}

/* How many descriptors there were before the first context. */
static int fds_before;

static void count_after_postfork(void *ctx)
{
    int with = count_fds();

    libxl_postfork_child_noexec(ctx);
    if (OURS("postfork-closes"))
        CHECK(count_fds() < with);
    else
        CHECK_EQUAL(count_fds(), with);
    if (column == ALONE)
        CHECK_EQUAL(count_fds(), fds_before);
}

TEST_WITH(postfork_closes_our_descriptors_in_the_child, NOT_UNDER_VALGRIND)
{
    libxl_ctx *ctx;
    int with;

    fds_before = count_fds();
    ctx = open_context();
    enable(ctx, 0, 1);
    with = count_fds();
    CHECK_EQUAL(in_child(count_after_postfork, ctx), 0);
    CHECK_EQUAL(count_fds(), with);
    close_context(ctx);
}

static void do_nothing(void *unused)
{
    (void)unused;
}

static void exit_in_order(void *unused)
{
    (void)unused;
    exit(0);
}

/* A child that does nothing with the library may end in any way, or exec. */
TEST(a_child_that_just_ends_disturbs_nobody)
{
    libxl_ctx *ctx = open_context();

    enable(ctx, NOBODY, 1);
    CHECK_EQUAL(in_child(do_nothing, NULL), 0);
    CHECK_EQUAL(in_child(exit_in_order, NULL), 0);
    CHECK_EQUAL(system("true"), 0);
    expect_death(ctx, NOBODY, 1);
    enable(ctx, NOBODY, 2);
    stir();
    expect_death(ctx, NOBODY, 2);
    close_context(ctx);
}

static void *wait_for_its_end(void *ctx)
{
    libxl_event_free(ctx, wait_event(ctx));
    return NULL;
}

/*
 * The thread that waits does not exist in the child, and its locks, if any, are held by nobody there. (What it had in hand, if
 * it was in its turn just then, nobody frees there: valgrind would call it lost.)
 */
TEST_WITH(a_fork_while_another_thread_waits_leaves_both_processes_working, COMMANDS_DOMAINS | NOT_UNDER_VALGRIND)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    pthread_t thread;
    int i;

    enable(ctx, domid, 1);
    expect_silence(ctx);
    thread = start_thread(wait_for_its_end, ctx);
    for (i = 0; i < 20; i++)
        CHECK_EQUAL(in_child(forget_and_begin_anew, ctx), 0);
    host_destroy(domid);
    finish_thread(thread);
    close_context(ctx);
}

static volatile bool stop;

static void *open_and_close(void *unused)
{
    (void)unused;
    while (!stop)
        use_a_new_context();
    return NULL;
}

/*
 * fork while contexts come and go and look at domains: the child must find everything in order. (Where libxenlight is in the
 * process it may not: libxencall has a lock that a child finds taken, for ever, if its parent has forked inside a hypercall,
 * and libxenlight's are not ours to guard.)
 */
TEST_WITH(a_fork_while_contexts_are_opened_and_closed_leaves_the_child_working,
          NOT_BESIDE_LIBXENLIGHT | NOT_UNDER_VALGRIND)
{
    libxl_ctx *ctx = open_context();
    pthread_t thread;
    int i;

    thread = start_thread(open_and_close, NULL);
    for (i = 0; i < 30; i++)
        CHECK_EQUAL(in_child(forget_and_begin_anew, ctx), 0);
    stop = true;
    finish_thread(thread);
    close_context(ctx);
}

/* ---- as xl does it ---- */

/*
 * The daemon that `xl create` leaves behind: a child forgets the parent's context and opens a new one, a grandchild goes on
 * with that, and watches the domain until its end.
 */
static void become_a_daemon_and_watch(void *ctx, uint32_t domid, int result)
{
    static const libxl_childproc_hooks childproc = { .chldowner = libxl_sigchld_owner_libxl };
    libxl_evgen_domain_death *evgen;
    libxl_event *event, *late;
    libxl_ctx *own;
    pid_t pid;

    libxl_postfork_child_noexec(ctx);
    own = open_context();
    libxl_childproc_setmode(own, &childproc, NULL);
    CHECK((pid = fork()) >= 0);
    if (pid > 0)
        _exit(0);
    CHECK(setsid() != -1);
    evgen = enable(own, domid, 1);
    CHECK(write(result, "w", 1) == 1);
    event = wait_event(own);
    check_shutdown(event, domid, 1, POWEROFF);
    host_destroy(domid);
    libxl_event_free(own, event);
    libxl_evdisable_domain_death(own, evgen);
    /* Its death may have been seen already, and is freed with the context otherwise. */
    if (libxl_event_check(own, &late, LIBXL_EVENTMASK_ALL, NULL, NULL) == 0) {
        check_death(late, domid, 1);
        libxl_event_free(own, late);
    }
    close_context(own);
    CHECK(write(result, "d", 1) == 1);
    _exit(0);
}

DOMAIN_TEST(a_daemon_two_forks_away_watches_as_that_of_xl_create)
{
    static const libxl_childproc_hooks childproc = { .chldowner = libxl_sigchld_owner_libxl };
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    int result[2], status;
    pid_t pid;
    char byte;

    libxl_childproc_setmode(ctx, &childproc, NULL);
    CHECK(pipe(result) == 0);
    CHECK((pid = fork()) >= 0);
    if (pid == 0)
        become_a_daemon_and_watch(ctx, domid, result[1]);
    close(result[1]);
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_EQUAL(status, 0);
    CHECK(read(result[0], &byte, 1) == 1 && byte == 'w');
    host_shutdown(domid, POWEROFF);
    CHECK(read(result[0], &byte, 1) == 1 && byte == 'd');
    CHECK(read(result[0], &byte, 1) == 0);
    close_context(ctx);
}

/* Many of them at once, each with a domain of its own. */
DOMAIN_TEST(many_such_daemons_do_not_disturb_one_another)
{
    enum { DAEMONS = 12, FIRST = 100 };
    libxl_ctx *ctx = open_context();
    int result[2], status, watching = 0, done = 0;
    uint32_t i;
    pid_t pid;
    char byte;

    host_create_many(FIRST, DAEMONS);
    CHECK(pipe(result) == 0);
    for (i = 0; i < DAEMONS; i++) {
        CHECK((pid = fork()) >= 0);
        if (pid == 0)
            become_a_daemon_and_watch(ctx, FIRST + i, result[1]);
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK_EQUAL(status, 0);
    }
    close(result[1]);
    for (; watching < DAEMONS; watching++)
        CHECK(read(result[0], &byte, 1) == 1 && byte == 'w');
    host_shutdown_many(FIRST, DAEMONS, POWEROFF);
    while (read(result[0], &byte, 1) == 1) {
        CHECK_EQUAL(byte, 'd');
        done++;
    }
    CHECK_EQUAL(done, DAEMONS);
    close_context(ctx);
}

/* A reboot: the domain is destroyed, what is left in the queue is thrown away, and the next one has the same context. */
DOMAIN_TEST(a_reboot_goes_on_with_the_same_context_as_in_xl)
{
    libxl_ctx *ctx = open_context();
    libxl_evgen_domain_death *evgen;
    libxl_event *event;
    uint32_t domid = host_create();
    int round;

    for (round = 0; round < 5; round++) {
        evgen = enable(ctx, domid, 0);
        host_shutdown(domid, REBOOT);
        expect_shutdown(ctx, domid, 0, REBOOT);
        host_destroy(domid);
        libxl_evdisable_domain_death(ctx, evgen);
        while (libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == 0) {
            check_death(event, domid, 0);
            libxl_event_free(ctx, event);
        }
        domid = host_create();
    }
    evgen = enable(ctx, domid, 0);
    expect_silence(ctx);
    host_destroy(domid);
    expect_death(ctx, domid, 0);
    libxl_evdisable_domain_death(ctx, evgen);
    close_context(ctx);
}
