/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libxl_event_check, _wait, _free and _register_callbacks: how events reach the application.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "harness/check.h"
#include "harness/host.h"
#include "harness/xl.h"

/* ---- event_check, event_wait ---- */

/* Every way of asking that no event fits. */
static void expect_no_match(libxl_ctx *ctx)
{
    libxl_event *event = UNTOUCHED;

    CHECK_EQUAL(libxl_event_check(ctx, &event, 0, NULL, NULL), ERROR_NOT_READY);
    CHECK_EQUAL(libxl_event_check(ctx, &event, SHUTDOWN_BIT, NULL, NULL), ERROR_NOT_READY);
    CHECK_EQUAL(libxl_event_check(ctx, &event, ~DEATH_BIT, NULL, NULL), ERROR_NOT_READY);
    CHECK_EQUAL(libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, is_never_wanted, NULL), ERROR_NOT_READY);
    CHECK(event == UNTOUCHED);
}

TEST(masks_and_predicates_that_fit_nothing_leave_the_place_alone)
{
    libxl_ctx *ctx = open_context();
    libxl_event *event;
    libxl_ev_user user = 2;

    expect_no_match(ctx);
    enable(ctx, NOBODY, 1);
    enable(ctx, NOBODY + 1, 2);
    event = poll_until_event(ctx, is_for_user, &user);
    libxl_event_free(ctx, event);
    /* The first one's death is queued now. */
    expect_no_match(ctx);
    event = NULL;
    CHECK_EQUAL(libxl_event_check(ctx, &event, DEATH_BIT, NULL, NULL), 0);
    check_death(event, NOBODY, 1);
    libxl_event_free(ctx, event);
    expect_nothing_queued(ctx);
    close_context(ctx);
}

/* A thread that is to be cancelled, and what it has got to. */
struct called_off {
    libxl_ctx *ctx;
    unsigned asked;
    bool fetched;
};

static int comes_past_a_cancellation_point(const libxl_event *event, void *it)
{
    (void)event;
    ((struct called_off *)it)->asked++;
    pthread_testcancel();
    return 0;
}

static void *check_though_called_off(void *arg)
{
    struct called_off *it = arg;
    libxl_event *event = NULL;

    CHECK_EQUAL(pthread_cancel(pthread_self()), 0);
    CHECK_EQUAL(libxl_event_check(it->ctx, &event, LIBXL_EVENTMASK_ALL, comes_past_a_cancellation_point, it), ERROR_NOT_READY);
    CHECK_EQUAL(libxl_event_check(it->ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), 0);
    libxl_event_free(it->ctx, event);
    it->fetched = true;
    pthread_testcancel();
    return NULL;
}

/* Neither with a predicate, which may come past such a point, nor without, nor when the event is freed. */
TEST_WITH(a_thread_that_is_cancelled_comes_to_the_end_of_its_check, NOT_FOR_LIBXENLIGHT | NOT_UNDER_VALGRIND)
{
    struct called_off it = { open_context(), 0, false };
    libxl_ev_user user = 2;
    pthread_t thread;
    void *result;

    enable(it.ctx, NOBODY, 1);
    enable(it.ctx, NOBODY + 1, 2);
    libxl_event_free(it.ctx, poll_until_event(it.ctx, is_for_user, &user));
    /* The first one's death is queued now. */
    CHECK_EQUAL(pthread_create(&thread, NULL, check_though_called_off, &it), 0);
    CHECK_EQUAL(pthread_join(thread, &result), 0);
    CHECK(result == PTHREAD_CANCELED);
    CHECK_EQUAL(it.asked, 1);
    CHECK(it.fetched);
    expect_nothing_queued(it.ctx);
    close_context(it.ctx);
}

TEST(the_types_have_their_numbers)
{
    CHECK_EQUAL(LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN, 1);
    CHECK_EQUAL(LIBXL_EVENT_TYPE_DOMAIN_DEATH, 2);
    CHECK_EQUAL(LIBXL_EVENT_TYPE_DISK_EJECT, 3);
    CHECK_EQUAL(LIBXL_EVENT_TYPE_OPERATION_COMPLETE, 4);
    CHECK_EQUAL(LIBXL_EVENT_TYPE_DOMAIN_CREATE_CONSOLE_AVAILABLE, 5);
}

struct seen {
    libxl_ev_user users[10], wanted;
    size_t count;
};

static int note_and_want(const libxl_event *event, void *user)
{
    struct seen *seen = user;

    if (seen->count < COUNT(seen->users))
        seen->users[seen->count] = event->for_user;
    seen->count++;
    return event->for_user == seen->wanted;
}

DOMAIN_TEST(a_predicate_sees_the_events_of_the_mask_the_oldest_first_until_it_wants_one)
{
    enum { FIRST = 100 };
    libxl_ctx *ctx = open_context();
    libxl_event *event;
    struct seen seen = { .wanted = 5 };
    libxl_ev_user last = 6;
    uint32_t i;

    host_create_many(FIRST, 7);
    for (i = 0; i < 7; i++)
        enable(ctx, FIRST + i, i);
    expect_silence(ctx);
    for (i = 0; i < 7; i++) {
        if (i % 2)
            host_shutdown(FIRST + i, POWEROFF);
        else
            host_destroy(FIRST + i);
    }
    /* All are in the queue when the last has been found. */
    CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, is_for_user, &last), 0);
    libxl_event_free(ctx, event);

    CHECK_EQUAL(libxl_event_check(ctx, &event, SHUTDOWN_BIT, note_and_want, &seen), 0);
    check_shutdown(event, FIRST + 5, 5, POWEROFF);
    libxl_event_free(ctx, event);
    CHECK_EQUAL(seen.count, 3);
    CHECK(seen.users[0] == 1 && seen.users[1] == 3 && seen.users[2] == 5);

    seen = (struct seen){ .wanted = 2 };
    CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, note_and_want, &seen), 0);
    check_death(event, FIRST + 2, 2);
    libxl_event_free(ctx, event);
    CHECK_EQUAL(seen.count, 3);
    CHECK(seen.users[0] == 0 && seen.users[1] == 1 && seen.users[2] == 2);
    /* What was passed over is still there, in its order. */
    expect_death(ctx, FIRST, 0);
    expect_shutdown(ctx, FIRST + 1, 1, POWEROFF);
    expect_shutdown(ctx, FIRST + 3, 3, POWEROFF);
    expect_death(ctx, FIRST + 4, 4);
    expect_silence(ctx);
    close_context(ctx);
}

DOMAIN_TEST(event_check_does_not_look_at_the_domains_itself)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    uint64_t asked;
    int i;

    enable(ctx, domid, 1);
    expect_silence(ctx);
    host_destroy(domid);
    host_settle();
    asked = host_lists_asked();
    for (i = 0; i < 100; i++)
        expect_nothing_queued(ctx);
    CHECK_EQUAL(host_lists_asked(), asked);
    expect_death(ctx, domid, 1);
    close_context(ctx);
}

struct reentry {
    libxl_ctx *ctx;
    int calls;
};

static int predicate_that_calls_back(const libxl_event *event, void *user)
{
    struct reentry *reentry = user;
    libxl_event *other = NULL;
    libxl_evgen_domain_death *evgen = NULL;

    reentry->calls++;
    CHECK_EQUAL(libxl_event_check(reentry->ctx, &other, LIBXL_EVENTMASK_ALL, is_never_wanted, NULL), ERROR_NOT_READY);
    CHECK_EQUAL(libxl_evenable_domain_death(reentry->ctx, NOBODY + 1, 0, &evgen), 0);
    libxl_evdisable_domain_death(reentry->ctx, evgen);
    return event->domid == NOBODY;
}

TEST(a_predicate_may_call_back)
{
    struct reentry reentry = { open_context(), 0 };
    libxl_event *event = NULL;

    enable(reentry.ctx, NOBODY, 1);
    CHECK_EQUAL(libxl_event_wait(reentry.ctx, &event, LIBXL_EVENTMASK_ALL, predicate_that_calls_back, &reentry), 0);
    CHECK_EQUAL(event->for_user, 1);
    CHECK_EQUAL(reentry.calls, 1);
    libxl_event_free(reentry.ctx, event);
    close_context(reentry.ctx);
}

DOMAIN_TEST(event_wait_gives_what_is_queued_without_looking)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create(), later = host_create();
    libxl_ev_user user = 2;
    libxl_event *event;
    uint64_t asked;

    enable(ctx, domid, 1);
    enable(ctx, later, 2);
    host_destroy(domid);
    host_destroy(later);
    CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, is_for_user, &user), 0);
    libxl_event_free(ctx, event);
    asked = host_lists_asked();
    expect_death(ctx, domid, 1);
    CHECK_EQUAL(host_lists_asked(), asked);
    close_context(ctx);
}

static pthread_t waiting_thread;
static int signals;

static void note_signal(int number)
{
    (void)number;
    __atomic_fetch_add(&signals, 1, __ATOMIC_SEQ_CST);
}

static void *signal_then_end(void *domid)
{
    int i;

    for (i = 1; i <= 5; i++) {
        CHECK(pthread_kill(waiting_thread, SIGUSR1) == 0);
        WAIT_UNTIL(__atomic_load_n(&signals, __ATOMIC_SEQ_CST) == i);
    }
    host_destroy(*(uint32_t *)domid);
    return NULL;
}

DOMAIN_TEST(a_signal_does_not_end_the_wait)
{
    libxl_ctx *ctx = open_context();
    struct sigaction action;
    uint32_t domid = host_create();
    pthread_t thread;

    memset(&action, 0, sizeof action);
    action.sa_handler = note_signal;
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    enable(ctx, domid, 1);
    expect_silence(ctx);
    waiting_thread = pthread_self();
    thread = start_thread(signal_then_end, &domid);
    expect_death(ctx, domid, 1);
    finish_thread(thread);
    CHECK_EQUAL(signals, 5);
    close_context(ctx);
}

static void wait_without_a_place(void *unused)
{
    libxl_ctx *ctx = open_context();

    (void)unused;
    enable(ctx, NOBODY, 1);
    libxl_event_wait(ctx, NULL, LIBXL_EVENTMASK_ALL, NULL, NULL);
}

TEST(a_NULL_place_for_the_event_is_refused)
{
    libxl_ctx *ctx = open_context();

    enable(ctx, NOBODY, 1);
    if (OURS("bad-input")) {
        CHECK_EQUAL(libxl_event_check(ctx, NULL, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_INVAL);
        CHECK_EQUAL(libxl_event_wait(ctx, NULL, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_INVAL);
        CHECK_EQUAL(logged_errors, 2);
    } else {
        CHECK_DIES(SIGSEGV, wait_without_a_place, NULL);
    }
    expect_death(ctx, NOBODY, 1);
    close_context(ctx);
}

/* ---- event_free ---- */

TEST(an_event_may_be_freed_with_its_context_another_one_or_none)
{
    libxl_ctx *ctx = open_context(), *other = open_context();
    libxl_event *event;
    int i;

    libxl_event_free(ctx, NULL);
    libxl_event_free(NULL, NULL);
    for (i = 0; i < 3; i++) {
        enable(ctx, NOBODY, 1);
        stir();
        event = wait_event(ctx);
        libxl_event_free(i == 0 ? ctx : i == 1 ? other : NULL, event);
    }
    enable(ctx, NOBODY, 2);
    stir();
    event = wait_event(ctx);
    close_context(ctx);
    check_death(event, NOBODY, 2);
    libxl_event_free(NULL, event);
    close_context(other);
    CHECK_EQUAL(logged_errors, 0);
}

/* Its memory is malloc's, as that of every libxl structure. */
TEST(a_death_event_may_be_freed_with_free)
{
    libxl_ctx *ctx = open_context();
    libxl_event *event;

    enable(ctx, NOBODY, 1);
    event = wait_event(ctx);
    free(event);
    enable(ctx, NOBODY, 2);
    stir();
    expect_death(ctx, NOBODY, 2);
    close_context(ctx);
}

/* ---- callbacks ---- */

/* What a callback was given: it frees the events. */
struct taken {
    libxl_ctx *ctx;
    struct {
        libxl_event_type type;
        uint32_t domid;
        libxl_ev_user user;
    } events[20];
    size_t count;
};

static void take(void *user, libxl_event *event)
{
    struct taken *taken = user;

    CHECK(taken->count < COUNT(taken->events));
    taken->events[taken->count].type = event->type;
    taken->events[taken->count].domid = event->domid;
    taken->events[taken->count++].user = event->for_user;
    libxl_event_free(taken->ctx, event);
}

static void check_taken(const struct taken *taken, size_t index, libxl_event_type type, uint32_t domid,
                        libxl_ev_user user)
{
    CHECK_AT_LEAST(taken->count, index + 1);
    CHECK_EQUAL(taken->events[index].type, type);
    CHECK_EQUAL(taken->events[index].domid, domid);
    CHECK_EQUAL(taken->events[index].user, user);
}

DOMAIN_TEST(types_of_the_mask_go_to_the_callback_and_the_others_to_the_queue)
{
    static const libxl_event_hooks hooks = { .event_occurs_mask = DEATH_BIT, .event_occurs = take };
    struct taken taken = { .ctx = open_context() };
    libxl_ctx *ctx = taken.ctx;
    uint32_t first = host_create(), second = host_create();

    libxl_event_register_callbacks(ctx, &hooks, &taken);
    enable(ctx, first, 1);
    enable(ctx, second, 2);
    host_shutdown(first, CRASH);
    expect_shutdown(ctx, first, 1, CRASH);
    host_destroy(first);
    host_shutdown(second, REBOOT);
    expect_shutdown(ctx, second, 2, REBOOT);
    CHECK_EQUAL(taken.count, 1);
    check_taken(&taken, 0, LIBXL_EVENT_TYPE_DOMAIN_DEATH, first, 1);
    host_destroy(second);
    while (taken.count < 2)
        poll_once(ctx, -1);
    check_taken(&taken, 1, LIBXL_EVENT_TYPE_DOMAIN_DEATH, second, 2);
    expect_nothing_queued(ctx);
    close_context(ctx);
}

/* The call that finds an event hands it over before it returns. */
DOMAIN_TEST(the_callback_runs_inside_the_call_that_found_the_event)
{
    static const libxl_event_hooks hooks = { .event_occurs_mask = LIBXL_EVENTMASK_ALL, .event_occurs = take };
    struct taken taken = { .ctx = open_context() };
    struct polled polled;
    uint32_t domid = host_create();

    libxl_event_register_callbacks(taken.ctx, &hooks, &taken);
    enable(taken.ctx, domid, 1);
    while (poll_once(taken.ctx, 0))
        ;
    host_destroy(domid);
    before_poll(taken.ctx, &polled, -1);
    CHECK_EQUAL(taken.count, 0);
    while (taken.count == 0) {
        CHECK_AT_LEAST(poll_now(&polled), 1);
        CHECK_EQUAL(taken.count, 0);
        after_poll(taken.ctx, &polled);
        if (taken.count == 0)
            before_poll(taken.ctx, &polled, -1);
    }
    check_taken(&taken, 0, LIBXL_EVENT_TYPE_DOMAIN_DEATH, domid, 1);
    close_context(taken.ctx);
}

DOMAIN_TEST(callbacks_come_in_the_order_of_the_events)
{
    enum { FIRST = 100 };
    static const libxl_event_hooks hooks = { .event_occurs_mask = LIBXL_EVENTMASK_ALL, .event_occurs = take };
    struct taken taken = { .ctx = open_context() };
    uint32_t i;

    libxl_event_register_callbacks(taken.ctx, &hooks, &taken);
    host_create_many(FIRST, 9);
    for (i = 0; i < 9; i++)
        enable(taken.ctx, FIRST + i, i);
    while (poll_once(taken.ctx, 0))
        ;
    for (i = 9; i-- > 0;) {
        if (i % 2)
            host_shutdown(FIRST + i, POWEROFF);
        else
            host_destroy(FIRST + i);
    }
    while (taken.count < 9)
        poll_once(taken.ctx, -1);
    for (i = 0; i < 9; i++)
        check_taken(&taken, i, i % 2 ? LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN : LIBXL_EVENT_TYPE_DOMAIN_DEATH, FIRST + i, i);
    close_context(taken.ctx);
}

DOMAIN_TEST(what_is_queued_when_callbacks_are_registered_stays_queued)
{
    static const libxl_event_hooks hooks = { .event_occurs_mask = LIBXL_EVENTMASK_ALL, .event_occurs = take };
    struct taken taken = { .ctx = open_context() };
    libxl_ctx *ctx = taken.ctx;
    uint32_t first = host_create(), second = host_create(), third = host_create();
    libxl_ev_user user = 2;

    enable(ctx, first, 1);
    enable(ctx, second, 2);
    enable(ctx, third, 3);
    host_destroy(first);
    host_destroy(second);
    libxl_event_free(ctx, poll_until_event(ctx, is_for_user, &user));
    libxl_event_register_callbacks(ctx, &hooks, &taken);
    host_destroy(third);
    while (taken.count == 0)
        poll_once(ctx, -1);
    check_taken(&taken, 0, LIBXL_EVENT_TYPE_DOMAIN_DEATH, third, 3);
    CHECK_EQUAL(taken.count, 1);
    expect_death(ctx, first, 1);
    expect_nothing_queued(ctx);
    close_context(ctx);
}

DOMAIN_TEST(the_last_registration_counts_and_NULL_takes_it_back)
{
    static const libxl_event_hooks all = { .event_occurs_mask = LIBXL_EVENTMASK_ALL, .event_occurs = take };
    static const libxl_event_hooks none;
    struct taken first = { .ctx = open_context() }, second = { .ctx = first.ctx };
    libxl_ctx *ctx = first.ctx;
    uint32_t domids[4];
    size_t i;

    for (i = 0; i < COUNT(domids); i++) {
        domids[i] = host_create();
        enable(ctx, domids[i], i);
    }
    libxl_event_register_callbacks(ctx, &all, &first);
    host_destroy(domids[0]);
    while (first.count == 0)
        poll_once(ctx, -1);
    libxl_event_register_callbacks(ctx, &all, &second);
    host_destroy(domids[1]);
    while (second.count == 0)
        poll_once(ctx, -1);
    libxl_event_register_callbacks(ctx, &none, NULL);
    host_destroy(domids[2]);
    expect_death(ctx, domids[2], 2);
    libxl_event_register_callbacks(ctx, NULL, NULL);
    host_destroy(domids[3]);
    expect_death(ctx, domids[3], 3);
    CHECK_EQUAL(first.count, 1);
    CHECK_EQUAL(second.count, 1);
    close_context(ctx);
}

static libxl_evgen_domain_death *callback_evgen;

static void callback_that_calls_back(void *user, libxl_event *event)
{
    struct reentry *reentry = user;
    libxl_evgen_domain_death *evgen = NULL;

    reentry->calls++;
    libxl_event_free(reentry->ctx, event);
    libxl_evdisable_domain_death(reentry->ctx, callback_evgen);
    callback_evgen = NULL;
    if (reentry->calls < 3) {
        CHECK_EQUAL(libxl_evenable_domain_death(reentry->ctx, NOBODY, 0, &evgen), 0);
        callback_evgen = evgen;
    }
}

TEST(a_callback_may_free_the_event_disable_its_generator_and_enable_another)
{
    static const libxl_event_hooks hooks = { .event_occurs_mask = LIBXL_EVENTMASK_ALL,
                                             .event_occurs = callback_that_calls_back };
    struct reentry reentry = { open_context(), 0 };

    libxl_event_register_callbacks(reentry.ctx, &hooks, &reentry);
    callback_evgen = enable(reentry.ctx, NOBODY, 1);
    while (reentry.calls < 3)
        poll_once(reentry.ctx, -1);
    CHECK_EQUAL(reentry.calls, 3);
    CHECK_EQUAL(logged_errors, 0);
    close_context(reentry.ctx);
}

static void callback_that_waits(void *user, libxl_event *event)
{
    struct reentry *reentry = user;
    libxl_ctx *own;

    reentry->calls++;
    libxl_event_free(NULL, event);
    expect_nothing_queued(reentry->ctx);
    /* Another context's loop, inside this one's. */
    own = open_context();
    enable(own, NOBODY, 5);
    expect_death(own, NOBODY, 5);
    close_context(own);
    poll_once(reentry->ctx, 0);
}

DOMAIN_TEST(a_callback_may_use_another_context_and_poll_its_own)
{
    static const libxl_event_hooks hooks = { .event_occurs_mask = LIBXL_EVENTMASK_ALL,
                                             .event_occurs = callback_that_waits };
    struct reentry reentry = { open_context(), 0 };
    uint32_t first = host_create(), second = host_create();

    libxl_event_register_callbacks(reentry.ctx, &hooks, &reentry);
    enable(reentry.ctx, first, 1);
    enable(reentry.ctx, second, 2);
    host_destroy(first);
    while (reentry.calls < 1)
        poll_once(reentry.ctx, -1);
    host_destroy(second);
    while (reentry.calls < 2)
        poll_once(reentry.ctx, -1);
    close_context(reentry.ctx);
}

static void replace_callbacks(void *user, libxl_event *event)
{
    struct reentry *reentry = user;

    reentry->calls++;
    libxl_event_free(reentry->ctx, event);
    libxl_event_register_callbacks(reentry->ctx, NULL, NULL);
}

/* A daemon that shuts down from its callback. */
DOMAIN_TEST(a_callback_may_take_the_callbacks_back)
{
    static const libxl_event_hooks hooks = { .event_occurs_mask = LIBXL_EVENTMASK_ALL,
                                             .event_occurs = replace_callbacks };
    struct reentry reentry = { open_context(), 0 };
    uint32_t first = host_create(), second = host_create();

    libxl_event_register_callbacks(reentry.ctx, &hooks, &reentry);
    enable(reentry.ctx, first, 1);
    enable(reentry.ctx, second, 2);
    host_destroy(first);
    while (reentry.calls == 0)
        poll_once(reentry.ctx, -1);
    host_destroy(second);
    expect_death(reentry.ctx, second, 2);
    CHECK_EQUAL(reentry.calls, 1);
    close_context(reentry.ctx);
}

static void occur_without_a_callback(void *ctx)
{
    static const libxl_event_hooks hooks = { .event_occurs_mask = LIBXL_EVENTMASK_ALL };

    libxl_event_register_callbacks(ctx, &hooks, NULL);
    enable(ctx, NOBODY, 1);
    for (;;)
        poll_once(ctx, -1);
}

TEST(a_callback_mask_without_a_callback_is_refused)
{
    static const libxl_event_hooks hooks = { .event_occurs_mask = LIBXL_EVENTMASK_ALL };
    libxl_ctx *ctx = open_context();

    if (OURS("bad-input")) {
        libxl_event_register_callbacks(ctx, &hooks, NULL);
        CHECK_EQUAL(logged_errors, 1);
        enable(ctx, NOBODY, 1);
        expect_death(ctx, NOBODY, 1);
    } else {
        CHECK_DIES(SIGSEGV, occur_without_a_callback, ctx);
    }
    close_context(ctx);
}
