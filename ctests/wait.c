/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Waiting with a time-out, and calling a wait off. libxenlight has neither; the program is linked with it for the column in
 * which libxlevent is preloaded.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include "harness/check.h"
#include "harness/host.h"
#include "harness/ours.h"
#include "harness/xl.h"

/* Longer than anything takes, for waits that something else has to end. */
enum { LONG_MS = PATIENCE_S * 1000 };

static int wait_for(libxl_ctx *ctx, libxl_event **event, int timeout_ms)
{
    return xlevent_event_wait(ctx, event, LIBXL_EVENTMASK_ALL, NULL, NULL, timeout_ms);
}

static void expect_timeout(libxl_ctx *ctx, int timeout_ms)
{
    libxl_event *event = UNTOUCHED;

    CHECK_EQUAL(wait_for(ctx, &event, timeout_ms), ERROR_TIMEDOUT);
    CHECK(event == UNTOUCHED);
}

static void expect_aborted(libxl_ctx *ctx, int timeout_ms)
{
    libxl_event *event = UNTOUCHED;

    CHECK_EQUAL(wait_for(ctx, &event, timeout_ms), ERROR_ABORTED);
    CHECK(event == UNTOUCHED);
}

static void cancel(libxl_ctx *ctx)
{
    CHECK_EQUAL(xlevent_wait_cancel(ctx), 0);
}

static long long now_ns(void)
{
    struct timespec now;

    CHECK_EQUAL(clock_gettime(CLOCK_MONOTONIC, &now), 0);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

/* ---- time-outs ---- */

TEST_OF_OURS(a_wait_without_an_event_ends_when_its_time_has_passed_and_says_nothing)
{
    static const int timeouts[] = { 0, 1, 20 };
    libxl_ctx *ctx = open_context();
    size_t i;

    for (i = 0; i < COUNT(timeouts); i++) {
        long long begin = now_ns();

        expect_timeout(ctx, timeouts[i]);
        /* No sooner: of what it does besides nothing is known. */
        CHECK_AT_LEAST(now_ns() - begin, timeouts[i] * 1000000ll);
    }
    CHECK_EQUAL(logged_lines, logged_by_libxl);
    close_context(ctx);
}

TEST_OF_OURS(an_event_in_time_is_returned_whatever_the_time_is)
{
    libxl_ctx *ctx = open_context();
    libxl_event *event = NULL;
    int rc;

    enable(ctx, NOBODY, 1);
    CHECK_EQUAL(wait_for(ctx, &event, -1), 0);
    check_death(event, NOBODY, 1);
    libxl_event_free(ctx, event);
    enable(ctx, NOBODY, 2);
    CHECK_EQUAL(wait_for(ctx, &event, LONG_MS), 0);
    check_death(event, NOBODY, 2);
    libxl_event_free(ctx, event);
    /* With no time at all, the library's work is done all the same. */
    enable(ctx, NOBODY, 3);
    while ((rc = wait_for(ctx, &event, 0)) == ERROR_TIMEDOUT)
        ;
    CHECK_EQUAL(rc, 0);
    check_death(event, NOBODY, 3);
    libxl_event_free(ctx, event);
    expect_timeout(ctx, 0);
    close_context(ctx);
}

TEST_WITH(a_domain_that_ends_during_the_wait_ends_it, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    libxl_event *event;

    enable(ctx, domid, 1);
    expect_timeout(ctx, 1);
    host_shutdown(domid, REBOOT);
    CHECK_EQUAL(wait_for(ctx, &event, LONG_MS), 0);
    check_shutdown(event, domid, 1, REBOOT);
    libxl_event_free(ctx, event);
    expect_timeout(ctx, 1);
    host_destroy(domid);
    CHECK_EQUAL(wait_for(ctx, &event, -5), 0);
    check_death(event, domid, 1);
    libxl_event_free(ctx, event);
    expect_silence(ctx);
    close_context(ctx);
}

TEST_OF_OURS(what_is_not_wanted_does_not_end_the_wait_and_stays)
{
    libxl_ctx *ctx = open_context();
    libxl_ev_user user = 2;
    libxl_event *event = UNTOUCHED;

    enable(ctx, NOBODY, 1);
    enable(ctx, NOBODY, 2);
    CHECK_EQUAL(xlevent_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, is_for_user, &user, LONG_MS), 0);
    check_death(event, NOBODY, 2);
    libxl_event_free(ctx, event);
    event = UNTOUCHED;
    CHECK_EQUAL(xlevent_event_wait(ctx, &event, SHUTDOWN_BIT, NULL, NULL, 1), ERROR_TIMEDOUT);
    CHECK_EQUAL(xlevent_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, is_never_wanted, NULL, 1), ERROR_TIMEDOUT);
    CHECK_EQUAL(xlevent_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, is_for_user, &user, 0), ERROR_TIMEDOUT);
    CHECK(event == UNTOUCHED);
    expect_death(ctx, NOBODY, 1);
    close_context(ctx);
}

static atomic_int signals_caught;

static void catch_signal(int signum)
{
    (void)signum;
    signals_caught++;
}

struct bombardment {
    pthread_t target;
    atomic_bool over;
};

static void *bombard(void *arg)
{
    struct bombardment *bombardment = arg;

    while (!bombardment->over) {
        pthread_kill(bombardment->target, SIGUSR1);
        pause_a_little();
    }
    return NULL;
}

TEST_OF_OURS(signals_neither_end_nor_prolong_the_wait)
{
    /* Not restarted: system calls fail with EINTR. */
    const struct sigaction action = { .sa_handler = catch_signal };
    struct bombardment bombardment = { .target = pthread_self() };
    libxl_ctx *ctx = open_context();
    long long begin;
    pthread_t thread;
    int before;

    CHECK_EQUAL(sigaction(SIGUSR1, &action, NULL), 0);
    thread = start_thread(bombard, &bombardment);
    /* Until there was a signal in one. */
    do {
        before = signals_caught;
        begin = now_ns();
        expect_timeout(ctx, 100);
        CHECK_AT_LEAST(now_ns() - begin, 100000000ll);
    } while (signals_caught == before);
    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    bombardment.over = true;
    finish_thread(thread);
    close_context(ctx);
}

/* Several wait, and the time of the one that sleeps for all passes first: the others are served on. */
static void *wait_long(void *ctx)
{
    libxl_event *event;

    CHECK_EQUAL(wait_for(ctx, &event, LONG_MS), 0);
    libxl_event_free(ctx, event);
    return NULL;
}

static void *wait_shortly(void *ctx)
{
    int i;

    for (i = 0; i < 50; i++)
        CHECK_EQUAL(xlevent_event_wait(ctx, &(libxl_event *){ NULL }, SHUTDOWN_BIT, NULL, NULL, i % 4), ERROR_TIMEDOUT);
    return NULL;
}

TEST_OF_OURS(who_has_no_more_time_leaves_the_others_served)
{
    enum { PATIENT = 3, HASTY = 3 };
    libxl_ctx *ctx = open_context();
    pthread_t patient[PATIENT], hasty[HASTY];
    int i;

    for (i = 0; i < HASTY; i++)
        hasty[i] = start_thread(wait_shortly, ctx);
    for (i = 0; i < PATIENT; i++)
        patient[i] = start_thread(wait_long, ctx);
    for (i = 0; i < HASTY; i++)
        finish_thread(hasty[i]);
    for (i = 0; i < PATIENT; i++)
        enable(ctx, NOBODY, (libxl_ev_user)i);
    for (i = 0; i < PATIENT; i++)
        finish_thread(patient[i]);
    expect_nothing_queued(ctx);
    close_context(ctx);
}

static void count_event(void *user, libxl_event *event)
{
    ++*(atomic_int *)user;
    libxl_event_free(NULL, event);
}

TEST_OF_OURS(callbacks_run_in_a_wait_with_a_time_out_too)
{
    const libxl_event_hooks hooks = { .event_occurs_mask = DEATH_BIT, .event_occurs = count_event };
    libxl_ctx *ctx = open_context();
    atomic_int count = 0;

    libxl_event_register_callbacks(ctx, &hooks, &count);
    enable(ctx, NOBODY, 1);
    while (count == 0)
        expect_timeout(ctx, 5);
    CHECK_EQUAL(count, 1);
    libxl_event_register_callbacks(ctx, NULL, NULL);
    close_context(ctx);
}

/* ---- calling a wait off ---- */

TEST_OF_OURS(a_wait_that_is_called_off_before_it_begins_ends_at_once)
{
    libxl_ctx *ctx = open_context();
    libxl_event *event = UNTOUCHED;

    cancel(ctx);
    CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_ABORTED);
    CHECK(event == UNTOUCHED);
    expect_timeout(ctx, 1);
    cancel(ctx);
    cancel(ctx);
    /* Who would not wait is not called off. */
    expect_timeout(ctx, 0);
    expect_aborted(ctx, -1);
    expect_aborted(ctx, LONG_MS);
    expect_timeout(ctx, 1);
    CHECK_EQUAL(logged_errors, 0);
    close_context(ctx);
}

TEST_OF_OURS(an_event_comes_before_the_cancellation_which_is_kept)
{
    libxl_ctx *ctx = open_context();

    enable(ctx, NOBODY, 1);
    enable(ctx, NOBODY, 2);
    expect_death(ctx, NOBODY, 2);
    cancel(ctx);
    expect_death(ctx, NOBODY, 1);
    expect_nothing_queued(ctx);
    expect_aborted(ctx, -1);
    /* It goes with the context, if nobody waits any more. */
    cancel(ctx);
    close_context(ctx);
}

static void *wait_until_aborted(void *ctx)
{
    libxl_event *event = UNTOUCHED;

    CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_ABORTED);
    CHECK(event == UNTOUCHED);
    return NULL;
}

TEST_OF_OURS(a_wait_is_called_off_at_whatever_moment)
{
    libxl_ctx *ctx = open_context();
    int round, i;

    for (round = 0; round < 300; round++) {
        pthread_t thread = start_thread(wait_until_aborted, ctx);

        /* From before it begins until it sleeps. */
        for (i = 0; i < round % 30; i++)
            sched_yield();
        if (round % 30 == 29)
            pause_a_little();
        cancel(ctx);
        finish_thread(thread);
    }
    expect_timeout(ctx, 1);
    close_context(ctx);
}

/* Deals with events until it is told to stop. */
struct pool {
    libxl_ctx *ctx;
    atomic_size_t events, aborted;
};

static void *work(void *arg)
{
    struct pool *pool = arg;
    libxl_event *event;
    int rc;

    while ((rc = wait_for(pool->ctx, &event, -1)) == 0) {
        libxl_event_free(pool->ctx, event);
        pool->events++;
    }
    CHECK_EQUAL(rc, ERROR_ABORTED);
    pool->aborted++;
    return NULL;
}

static void *cancel_in_a_thread(void *ctx)
{
    cancel(ctx);
    return NULL;
}

TEST_OF_OURS(each_call_ends_one_thread_of_a_pool_and_no_event_is_lost)
{
    enum { THREADS = 6, EVENTS = 20, ROUNDS = 20 };
    libxl_ctx *ctx = open_context();
    size_t i, round;

    for (round = 0; round < ROUNDS; round++) {
        struct pool pool = { .ctx = ctx };
        pthread_t workers[THREADS], cancelling[THREADS];
        size_t left = 0;
        libxl_event *event;

        for (i = 0; i < THREADS; i++)
            workers[i] = start_thread(work, &pool);
        for (i = 0; i < EVENTS; i++) {
            enable(ctx, NOBODY, i);
            if (i % 7 == round % 7)
                pause_a_little();
        }
        /* While they are still busy, or not. */
        for (i = 0; i < THREADS; i++)
            cancelling[i] = start_thread(cancel_in_a_thread, ctx);
        for (i = 0; i < THREADS; i++)
            finish_thread(cancelling[i]);
        for (i = 0; i < THREADS; i++)
            finish_thread(workers[i]);
        CHECK_EQUAL(pool.aborted, THREADS);
        while (pool.events + left < EVENTS) {
            CHECK_EQUAL(wait_for(ctx, &event, LONG_MS), 0);
            libxl_event_free(ctx, event);
            left++;
        }
        CHECK_EQUAL(pool.events + left, EVENTS);
        expect_timeout(ctx, 1);
    }
    close_context(ctx);
}

static void cancel_at_event(void *ctx, libxl_event *event)
{
    cancel(ctx);
    libxl_event_free(ctx, event);
}

TEST_OF_OURS(a_callback_can_call_the_wait_off_that_it_runs_in)
{
    const libxl_event_hooks hooks = { .event_occurs_mask = DEATH_BIT, .event_occurs = cancel_at_event };
    libxl_ctx *ctx = open_context();

    libxl_event_register_callbacks(ctx, &hooks, ctx);
    enable(ctx, NOBODY, 1);
    expect_aborted(ctx, -1);
    libxl_event_register_callbacks(ctx, NULL, NULL);
    close_context(ctx);
}

static int cancel_and_refuse(const libxl_event *event, void *ctx)
{
    (void)event;
    cancel(ctx);
    return 0;
}

TEST_OF_OURS(so_can_a_predicate)
{
    libxl_ctx *ctx = open_context();
    libxl_event *event = UNTOUCHED;

    enable(ctx, NOBODY, 1);
    CHECK_EQUAL(xlevent_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, cancel_and_refuse, ctx, -1), ERROR_ABORTED);
    CHECK(event == UNTOUCHED);
    expect_death(ctx, NOBODY, 1);
    close_context(ctx);
}

/* Contexts don't mix. */
TEST_OF_OURS(a_wait_on_another_context_goes_on)
{
    libxl_ctx *ctx = open_context(), *other = open_context();
    pthread_t thread = start_thread(wait_until_aborted, ctx);

    enable(other, NOBODY, 1);
    expect_death(other, NOBODY, 1);
    cancel(other);
    expect_aborted(other, -1);
    cancel(ctx);
    finish_thread(thread);
    close_context(ctx);
    close_context(other);
}

/* ---- arguments ---- */

TEST_OF_OURS(wrong_arguments_of_waits_are_errors)
{
    libxl_ctx *ctx = open_context(), *freed = open_context();
    libxl_event *event = UNTOUCHED;

    close_context(freed);
    log_quietly = true;
    CHECK_EQUAL(wait_for(NULL, &event, 0), ERROR_INVAL);
    CHECK_EQUAL(wait_for(freed, &event, -1), ERROR_INVAL);
    CHECK_EQUAL(wait_for((libxl_ctx *)&event, &event, -1), ERROR_INVAL);
    CHECK_EQUAL(xlevent_wait_cancel(NULL), ERROR_INVAL);
    CHECK_EQUAL(xlevent_wait_cancel(freed), ERROR_INVAL);
    CHECK_EQUAL(logged_errors, 0);
    CHECK_EQUAL(wait_for(ctx, NULL, -1), ERROR_INVAL);
    CHECK_EQUAL(logged_errors, 1);
    CHECK(event == UNTOUCHED);
    close_context(ctx);
}
