/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a process ends while threads wait, and how threads end: by themselves, with variables that call us, and cancelled.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness/check.h"
#include "harness/host.h"
#include "harness/quiet.h"
#include "harness/xl.h"

/* ---- exit ---- */

static void *wait_for_ever(void *ctx)
{
    libxl_event *event;

    libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, is_never_wanted, NULL);
    return NULL;
}

static libxl_ctx *at_exit;

static void look_and_wait_a_little(void)
{
    expect_nothing_queued(at_exit);
    enable(at_exit, 0, 7);
    use_a_new_context();
}

static void close_it(void)
{
    close_context(at_exit);
}

/* Some threads wait, one with a context of its own; in libxenlight's process they must not share one (two-waiters). */
static void have_threads_wait(void)
{
    libxl_ctx *other = open_context();

    at_exit = open_context();
    enable(at_exit, 0, 1);
    enable(other, 0, 1);
    start_thread(wait_for_ever, other);
    if (column != REAL)
        start_thread(wait_for_ever, at_exit);
    pause_a_little();
}

static void exit_with_threads(void *unused)
{
    (void)unused;
    have_threads_wait();
    exit(0);
}

static void exit_calls_the_library(void *unused)
{
    (void)unused;
    have_threads_wait();
    atexit(look_and_wait_a_little);
    exit(0);
}

static void exit_closes_the_context(void *unused)
{
    (void)unused;
    at_exit = open_context();
    enable(at_exit, 0, 1);
    atexit(close_it);
    exit(0);
}

static bool use_it_last;

__attribute__((destructor)) static void after_all_else(void)
{
    if (use_it_last)
        use_a_new_context();
}

static void exit_calls_it_in_a_destructor(void *unused)
{
    (void)unused;
    have_threads_wait();
    use_it_last = true;
    exit(0);
}

static void quick_exit_with_threads(void *unused)
{
    (void)unused;
    have_threads_wait();
    at_quick_exit(look_and_wait_a_little);
    quick_exit(0);
}

static void end_at_once_with_threads(void *unused)
{
    (void)unused;
    have_threads_wait();
    _exit(0);
}

static void exit_in_a_callback_now(void *unused, libxl_event *event)
{
    (void)unused, (void)event;
    atexit(use_a_new_context);
    exit(0);
}

static void exit_in_a_callback(void *unused)
{
    static const libxl_event_hooks hooks = { LIBXL_EVENTMASK_ALL, exit_in_a_callback_now, NULL };

    (void)unused;
    have_threads_wait();
    libxl_event_register_callbacks(at_exit, &hooks, NULL);
    enable(at_exit, NOBODY, 1);
    stir();
    for (;;)
        poll_once(at_exit, 1000);
}

static int exit_in_a_predicate_now(const libxl_event *event, void *unused)
{
    (void)event, (void)unused;
    exit(0);
}

static void exit_in_a_predicate(void *unused)
{
    libxl_event *event;

    (void)unused;
    at_exit = open_context();
    enable(at_exit, NOBODY, 1);
    libxl_event_wait(at_exit, &event, LIBXL_EVENTMASK_ALL, exit_in_a_predicate_now, NULL);
    CHECK(!"comes back");
}

static void *exit_from_a_thread_now(void *unused)
{
    (void)unused;
    exit(0);
}

static void exit_from_a_thread_while_main_waits(void *unused)
{
    (void)unused;
    have_threads_wait();
    start_thread(exit_from_a_thread_now, NULL);
    wait_for_ever(at_exit);
}

TEST(a_process_may_end_in_any_way_while_threads_wait)
{
    static void (*const ends[])(void *) = {
        exit_with_threads,
        exit_calls_the_library,
        exit_closes_the_context,
        exit_calls_it_in_a_destructor,
        quick_exit_with_threads,
        end_at_once_with_threads,
        exit_in_a_callback,
        exit_in_a_predicate,
        exit_from_a_thread_while_main_waits,
    };
    size_t i;

    for (i = 0; i < COUNT(ends); i++)
        CHECK_EQUAL(in_child(ends[i], NULL), 0);
}

static void end_in_order_too(int signal)
{
    (void)signal;
    _exit(0);
}

static void abort_with_threads(void *caught)
{
    have_threads_wait();
    if (caught)
        signal(SIGABRT, end_in_order_too);
    abort();
}

TEST(abort_ends_it_too_and_its_handler_runs)
{
    static int yes;

    CHECK_DIES(SIGABRT, abort_with_threads, NULL);
    CHECK_EQUAL(in_child(abort_with_threads, &yes), 0);
}

/* ---- the end of a thread ---- */

static pthread_key_t key;
static atomic_int destructions;

/* When the library's own variables of this thread have been destroyed. It comes again as long as there is a value. */
static void use_it_at_the_end(void *ctx)
{
    libxl_ev_user user = (libxl_ev_user)(100 + destructions);
    libxl_event *event;

    enable(ctx, NOBODY, user);
    stir();
    CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, is_for_user, &user), 0);
    libxl_event_free(ctx, event);
    use_a_new_context();
    if (++destructions < 3)
        pthread_setspecific(key, ctx);
}

static void *use_it_and_end(void *ctx)
{
    enable(ctx, NOBODY, 1);
    stir();
    expect_death(ctx, NOBODY, 1);
    CHECK_EQUAL(pthread_setspecific(key, ctx), 0);
    return NULL;
}

TEST(the_destructors_of_a_threads_variables_may_call_the_library)
{
    libxl_ctx *ctx = open_context();

    CHECK_EQUAL(pthread_key_create(&key, use_it_at_the_end), 0);
    finish_thread(start_thread(use_it_and_end, ctx));
    CHECK_EQUAL(destructions, 3);
    close_context(ctx);
}

/* ---- cancellation ---- */

static atomic_int cancelled_id;
static atomic_bool came_back;

/* The event of a call that has come back is the application's, also if it ends the thread at once. */
static void free_it(void *event)
{
    libxl_event_free(NULL, *(libxl_event **)event);
}

static void *wait_and_be_cancelled(void *ctx)
{
    libxl_event *event = NULL;

    pthread_cleanup_push(free_it, &event);
    cancelled_id = gettid();
    event = wait_event(ctx);
    came_back = true;
    pthread_testcancel();
    pthread_cleanup_pop(0);
    return NULL;
}

static void cancel_one_that_waits(void *unused)
{
    libxl_ctx *ctx = open_context();
    pthread_t thread;

    (void)unused;
    enable(ctx, 0, 1);
    /* It isn't woken by what the new watch has fired, and cancelled somewhere else. */
    come_to_rest(ctx);
    thread = start_thread(wait_and_be_cancelled, ctx);
    WAIT_UNTIL(cancelled_id && waits_for_descriptors(cancelled_id));
    CHECK_EQUAL(pthread_cancel(thread), 0);
    if (column != REAL)
        enable(ctx, NOBODY, 2);
    CHECK(finish_thread(thread) == PTHREAD_CANCELED);
    CHECK_EQUAL(came_back, column != REAL);
    enable(ctx, NOBODY, 3);
    stir();
    expect_death(ctx, NOBODY, 3);
    expect_nothing_queued(ctx);
    close_context(ctx);
}

/* libxenlight's thread ends in the middle of its call. What it leaves there is noticed when the context is freed. */
TEST_WITH(a_thread_that_is_cancelled_ends_when_its_call_is_over, NOT_UNDER_VALGRIND)
{
    if (OURS("cancel"))
        cancel_one_that_waits(NULL);
    else
        CHECK_DIES(SIGABRT, cancel_one_that_waits, NULL);
}

/* A call doesn't change whether a thread may be cancelled: neither way. */
TEST(whether_a_thread_may_be_cancelled_is_as_before_after_each_call)
{
    libxl_ctx *ctx = open_context();
    int state;

    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    CHECK_EQUAL(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state), 0);
    CHECK_EQUAL(state, PTHREAD_CANCEL_ENABLE);
    enable(ctx, NOBODY, 2);
    poll_once(ctx, 0);
    close_context(ctx);
    CHECK_EQUAL(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state), 0);
    CHECK_EQUAL(state, PTHREAD_CANCEL_DISABLE);
}
