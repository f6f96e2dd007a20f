/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Signals: storms of them while threads wait and poll, threads that have them blocked, and SIGPIPE, which a write to a
 * xenstored that is gone would raise. (childproc.c has SIGCHLD and its owners.)
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/check.h"
#include "harness/host.h"
#include "harness/xl.h"

/* ---- storms ---- */

static atomic_long caught[NSIG];

static void count_signal(int number)
{
    caught[number]++;
}

static void handle(int number, int flags)
{
    struct sigaction action = { .sa_handler = count_signal, .sa_flags = flags };

    sigemptyset(&action.sa_mask);
    CHECK_EQUAL(sigaction(number, &action, NULL), 0);
}

/* All deaths, each once: a thread in event_wait, and one in a loop around poll. */
enum { FIRST = 100, DOMAINS = 40 };

static atomic_bool stop;
static atomic_int done;

struct fetcher {
    libxl_ctx *ctx;
    bool polls;
    unsigned seen[DOMAINS];
};

static void *fetch(void *arg)
{
    struct fetcher *fetcher = arg;
    size_t left = DOMAINS;

    for (; left > 0; left--) {
        libxl_event *event = fetcher->polls ? poll_until_event(fetcher->ctx, NULL, NULL) : wait_event(fetcher->ctx);

        CHECK_EQUAL(event->type, LIBXL_EVENT_TYPE_DOMAIN_DEATH);
        CHECK(event->domid >= FIRST && event->domid < FIRST + DOMAINS);
        CHECK_EQUAL(fetcher->seen[event->domid - FIRST]++, 0);
        libxl_event_free(fetcher->ctx, event);
    }
    done++;
    /* Signals are sent to it until then. */
    WAIT_UNTIL(stop);
    return NULL;
}

static const int storm[] = { SIGUSR1, SIGALRM, SIGCHLD };
static pthread_t targets[2];

static void *send_signals(void *unused)
{
    size_t i, j;

    (void)unused;
    while (!stop) {
        for (i = 0; i < COUNT(targets); i++)
            for (j = 0; j < COUNT(storm); j++)
                pthread_kill(targets[i], storm[j]);
        usleep(50);
    }
    return NULL;
}

/* In a process of its own: the alarm clock is the harness's here. Each thread has its own context (two-waiters). */
static void weather_a_storm(void *flags)
{
    const struct itimerval often = { { 0, 500 }, { 0, 500 } };
    static struct fetcher fetchers[COUNT(targets)];
    pthread_t sender;
    size_t i, j;

    for (i = 0; i < COUNT(storm); i++)
        handle(storm[i], *(const int *)flags);
    for (i = 0; i < COUNT(targets); i++) {
        fetchers[i] = (struct fetcher){ .ctx = open_context(), .polls = i % 2 };
        for (j = 0; j < DOMAINS; j++)
            enable(fetchers[i].ctx, FIRST + (uint32_t)j, j);
        targets[i] = start_thread(fetch, &fetchers[i]);
    }
    sender = start_thread(send_signals, NULL);
    CHECK_EQUAL(setitimer(ITIMER_REAL, &often, NULL), 0);
    for (i = 0; i < DOMAINS; i++) {
        for (j = 0; j < COUNT(storm); j++) {
            long before = caught[storm[j]];

            WAIT_UNTIL(caught[storm[j]] > before + 3);
        }
        host_destroy(FIRST + (uint32_t)i);
    }
    WAIT_UNTIL(done == COUNT(targets));
    stop = true;
    finish_thread(sender);
    for (i = 0; i < COUNT(targets); i++) {
        finish_thread(targets[i]);
        close_context(fetchers[i].ctx);
    }
}

DOMAIN_TEST(storms_of_signals_that_interrupt_calls_lose_no_event)
{
    static int flags = 0;

    host_create_many(FIRST, DOMAINS);
    CHECK_EQUAL(in_child(weather_a_storm, &flags), 0);
}

DOMAIN_TEST(nor_do_those_that_restart_calls)
{
    static int flags = SA_RESTART;

    host_create_many(FIRST, DOMAINS);
    CHECK_EQUAL(in_child(weather_a_storm, &flags), 0);
}

/* ---- blocked ---- */

static void *with_all_blocked(void *arg)
{
    sigset_t all, left;

    sigfillset(&all);
    CHECK_EQUAL(pthread_sigmask(SIG_SETMASK, &all, NULL), 0);
    expect_death(arg, NOBODY, 1);
    /* What comes of a call doesn't change it. */
    CHECK_EQUAL(pthread_sigmask(SIG_BLOCK, NULL, &left), 0);
    CHECK(sigismember(&left, SIGUSR1) == 1 && sigismember(&left, SIGPIPE) == 1 && sigismember(&left, SIGCHLD) == 1);
    return NULL;
}

TEST(a_thread_with_all_signals_blocked_is_served_and_keeps_them_blocked)
{
    libxl_ctx *ctx = open_context();
    pthread_t thread;

    enable(ctx, NOBODY, 1);
    thread = start_thread(with_all_blocked, ctx);
    finish_thread(thread);
    close_context(ctx);
}

/* And one that takes them all takes them all. */
TEST(calls_leave_a_threads_mask_as_it_is)
{
    libxl_ctx *ctx = open_context();
    sigset_t mask;
    int number;

    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    close_context(ctx);
    CHECK_EQUAL(pthread_sigmask(SIG_BLOCK, NULL, &mask), 0);
    for (number = 1; number < SIGRTMIN; number++)
        CHECK_EQUAL(sigismember(&mask, number), 0);
}

/* ---- SIGPIPE ---- */

static bool sigpipe_is_ours(void)
{
    struct sigaction action;

    CHECK_EQUAL(sigaction(SIGPIPE, NULL, &action), 0);
    return action.sa_handler == count_signal;
}

/* Calls that write to xenstored, which is gone; what they return is said elsewhere (failures.c). */
static void write_to_nobody(void *unused)
{
    libxl_evgen_disk_eject *drive;
    libxl_evgen_domain_death *evgen;
    libxl_ctx *idle = open_context(), *listening = open_context();

    (void)unused;
    log_quietly = true;
    evgen = enable(listening, 0, 1);
    host_kill_xenstored();
    if (column != REAL)
        libxl_evenable_disk_eject(idle, 0, "hdc", 1, &drive);
    libxl_evenable_domain_death(idle, 0, 1, &evgen);
    if (column != REAL)
        libxl_evenable_disk_eject(listening, 0, "hdc", 1, &drive);
    libxl_ctx_free(listening);
    libxl_ctx_free(idle);
    CHECK_EQUAL(caught[SIGPIPE], 0);
}

DOMAIN_TEST(writing_to_a_xenstored_that_is_gone_raises_no_SIGPIPE)
{
    CHECK_EQUAL(in_child(write_to_nobody, NULL), 0);
    host_start_xenstored();
    handle(SIGPIPE, 0);
    CHECK_EQUAL(in_child(write_to_nobody, NULL), 0);
    CHECK(sigpipe_is_ours());
}

static void *enable_and_disable(void *unused)
{
    libxl_ctx *ctx = open_context();

    (void)unused;
    while (!stop)
        libxl_evdisable_domain_death(ctx, enable(ctx, 0, 1));
    close_context(ctx);
    done++;
    return NULL;
}

/* Each enable and each disable is a request to xenstored. */
TEST(a_handler_of_SIGPIPE_stays_while_threads_talk_to_xenstored)
{
    enum { THREADS = 4, ROUNDS = 20 };
    pthread_t threads[THREADS];
    int round, i;

    for (round = 0; round < ROUNDS || !OURS("sigpipe-kept"); round++) {
        handle(SIGPIPE, 0);
        stop = false;
        for (i = 0; i < THREADS; i++)
            threads[i] = start_thread(enable_and_disable, NULL);
        for (i = 0; i < 30; i++)
            pause_a_little();
        stop = true;
        for (i = 0; i < THREADS; i++)
            finish_thread(threads[i]);
        if (OURS("sigpipe-kept"))
            CHECK(sigpipe_is_ours());
        else if (!sigpipe_is_ours())
            break;
    }
}

/* A pipe for stderr that nobody reads is no reason to end either. */
static void say_something_to_nobody(void *unused)
{
    int fds[2];

    (void)unused;
    CHECK(pipe(fds) == 0);
    close(fds[0]);
    CHECK(dup2(fds[1], STDERR_FILENO) == STDERR_FILENO);
    CHECK_EQUAL(libxl_ctx_free((libxl_ctx *)UNTOUCHED), ERROR_INVAL);
}

TEST_OF_OURS(a_line_to_a_stderr_that_nobody_reads_does_not_end_the_process)
{
    CHECK_EQUAL(in_child(say_something_to_nobody, NULL), 0);
}
