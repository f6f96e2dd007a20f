/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Subscribers: several users of one context who get their own events and nobody else's. libxenlight has none; the program is
 * linked with it for the column in which libxlevent is preloaded.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "harness/check.h"
#include "harness/drive.h"
#include "harness/host.h"
#include "harness/ours.h"
#include "harness/xl.h"

typedef struct xlevent_subscriber subscriber;

static subscriber *subscribe(libxl_ctx *ctx)
{
    subscriber *who = NULL;

    CHECK_EQUAL(xlevent_subscriber_new(ctx, &who), 0);
    CHECK(who != NULL);
    return who;
}

static void unsubscribe(libxl_ctx *ctx, subscriber *who)
{
    CHECK_EQUAL(xlevent_subscriber_free(ctx, who), 0);
}

static libxl_evgen_domain_death *enable_for(libxl_ctx *ctx, subscriber *who, uint32_t domid, libxl_ev_user user)
{
    libxl_evgen_domain_death *evgen = NULL;

    CHECK_EQUAL(xlevent_subscriber_evenable_domain_death(ctx, who, domid, user, &evgen), 0);
    CHECK(evgen != NULL);
    return evgen;
}

static libxl_event *wait_event_of(libxl_ctx *ctx, subscriber *who)
{
    libxl_event *event = NULL;

    CHECK_EQUAL(xlevent_subscriber_wait(ctx, who, &event, LIBXL_EVENTMASK_ALL, NULL, NULL, -1), 0);
    CHECK(event != NULL);
    return event;
}

static void expect_death_of(libxl_ctx *ctx, subscriber *who, uint32_t domid, libxl_ev_user user)
{
    libxl_event *event = wait_event_of(ctx, who);

    check_death(event, domid, user);
    libxl_event_free(ctx, event);
}

static void expect_nothing_for(libxl_ctx *ctx, subscriber *who)
{
    libxl_event *event = UNTOUCHED;

    CHECK_EQUAL(xlevent_subscriber_check(ctx, who, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_NOT_READY);
    CHECK(event == UNTOUCHED);
}

/* ---- whose an event is ---- */

TEST_WITH(of_one_domain_each_gets_the_events_that_it_has_asked_for, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    libxl_ctx *ctx = open_context();
    subscriber *one = subscribe(ctx), *other = subscribe(ctx);
    uint32_t domid = host_create(), second = host_create();
    libxl_event *event;

    enable(ctx, domid, 1);
    enable_for(ctx, one, domid, 2);
    enable_for(ctx, other, second, 3);
    enable_for(ctx, other, domid, 4);
    host_shutdown(domid, CRASH);
    event = wait_event_of(ctx, one);
    check_shutdown(event, domid, 2, CRASH);
    libxl_event_free(ctx, event);
    event = wait_event_of(ctx, other);
    check_shutdown(event, domid, 4, CRASH);
    libxl_event_free(ctx, event);
    expect_shutdown(ctx, domid, 1, CRASH);
    host_destroy(domid);
    host_destroy(second);
    expect_death(ctx, domid, 1);
    expect_death_of(ctx, other, domid, 4);
    expect_death_of(ctx, other, second, 3);
    expect_death_of(ctx, one, domid, 2);
    expect_silence(ctx);
    expect_nothing_for(ctx, one);
    expect_nothing_for(ctx, other);
    close_context(ctx);
}

/* A SUSPENDED, RUNNING or CREATED of a domain. */
static void expect_state_of(libxl_ctx *ctx, subscriber *who, int type, uint32_t domid, libxl_ev_user user)
{
    libxl_event *event = wait_event_of(ctx, who);

    CHECK_EQUAL((int)event->type, type);
    CHECK_EQUAL(event->domid, domid);
    CHECK_EQUAL(event->for_user, user);
    libxl_event_free(ctx, event);
}

#define BIT(type) ((uint64_t)1 << LIBXL_EVENT_TYPE_##type)

TEST_WITH(states_of_a_domain_and_of_all_come_to_who_has_asked_for_them, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    libxl_ctx *ctx = open_context();
    subscriber *one = subscribe(ctx), *all = subscribe(ctx);
    uint32_t domid = host_create();
    libxl_evgen_domain_state *state = NULL, *any = NULL, *own = NULL;
    libxl_event *event = UNTOUCHED;

    CHECK_EQUAL(xlevent_subscriber_evenable_domain_state(ctx, one, domid, BIT(DOMAIN_SUSPENDED), 1, &state), 0);
    CHECK_EQUAL(xlevent_subscriber_evenable_domain_state(ctx, all, LIBXL_DOMID_ANY,
                                                         BIT(DOMAIN_CREATED) | BIT(DOMAIN_SUSPENDED) | BIT(DOMAIN_DEATH),
                                                         2, &any), 0);
    expect_state_of(ctx, all, LIBXL_EVENT_TYPE_DOMAIN_CREATED, domid, 2);
    host_suspend(domid);
    expect_state_of(ctx, all, LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED, domid, 2);
    expect_state_of(ctx, one, LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED, domid, 1);
    /* One generator is disabled by itself, the other goes with its subscriber; nobody is told of what comes then. */
    libxl_evdisable_domain_state(ctx, state);
    unsubscribe(ctx, all);
    CHECK_EQUAL(libxl_evenable_domain_state(ctx, domid, BIT(DOMAIN_DEATH), 3, &own), 0);
    host_destroy(domid);
    expect_death(ctx, domid, 3);
    expect_nothing_for(ctx, one);
    CHECK_EQUAL(libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_NOT_READY);
    /* As for the context itself. */
    CHECK_EQUAL(xlevent_subscriber_evenable_domain_state(ctx, one, domid, 0, 0, &state), ERROR_INVAL);
    CHECK_EQUAL(xlevent_subscriber_evenable_domain_state(ctx, all, domid, BIT(DOMAIN_DEATH), 0, &state), ERROR_INVAL);
    CHECK_EQUAL(xlevent_subscriber_evenable_domain_state(ctx, one, domid, BIT(DOMAIN_DEATH), 0, NULL), ERROR_INVAL);
    close_context(ctx);
}

TEST_WITH(an_ejection_comes_to_who_has_asked_for_it, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    libxl_ctx *ctx = open_context();
    subscriber *who = subscribe(ctx);
    struct drive drive = cd_drive();
    libxl_evgen_disk_eject *evgen = NULL;
    libxl_event *event;

    CHECK_EQUAL(xlevent_subscriber_evenable_disk_eject(ctx, who, drive.domid, "hdc", 7, &evgen), 0);
    eject(drive);
    event = wait_event_of(ctx, who);
    check_eject(event, drive.domid, 7, "hdc", "hdc");
    libxl_event_free(ctx, event);
    expect_nothing_queued(ctx);
    /* Another's generator for the same drive. */
    enable_eject(ctx, drive.domid, "hdc", 8);
    eject(drive);
    expect_eject(ctx, drive.domid, 8);
    event = wait_event_of(ctx, who);
    check_eject(event, drive.domid, 7, "hdc", "hdc");
    libxl_event_free(ctx, event);
    libxl_evdisable_disk_eject(ctx, evgen);
    eject(drive);
    expect_eject(ctx, drive.domid, 8);
    expect_nothing_for(ctx, who);
    CHECK_EQUAL(logged_errors, 0);
    close_context(ctx);
}

static void *wait_for_anything(void *ctx)
{
    libxl_event *event = UNTOUCHED;

    CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_ABORTED);
    CHECK(event == UNTOUCHED);
    return NULL;
}

/* A generator speaks as soon as it is there, to another thread as likely as not. */
TEST_OF_OURS(not_even_the_first_event_goes_to_a_thread_that_waits_for_all_of_the_contexts_own)
{
    libxl_ctx *ctx = open_context();
    subscriber *who = subscribe(ctx);
    pthread_t thread = start_thread(wait_for_anything, ctx);
    libxl_ev_user i;

    for (i = 0; i < 300; i++) {
        libxl_evgen_domain_death *evgen = enable_for(ctx, who, NOBODY, i);

        expect_death_of(ctx, who, NOBODY, i);
        libxl_evdisable_domain_death(ctx, evgen);
    }
    CHECK_EQUAL(xlevent_wait_cancel(ctx), 0);
    finish_thread(thread);
    close_context(ctx);
}

static void take_event(void *user, libxl_event *event)
{
    CHECK_EQUAL(event->for_user, 1);
    ++*(atomic_int *)user;
    libxl_event_free(NULL, event);
}

TEST_OF_OURS(callbacks_get_the_contexts_own_events_alone)
{
    const libxl_event_hooks hooks = { .event_occurs_mask = LIBXL_EVENTMASK_ALL, .event_occurs = take_event };
    libxl_ctx *ctx = open_context();
    subscriber *who = subscribe(ctx);
    atomic_int taken = 0;

    libxl_event_register_callbacks(ctx, &hooks, &taken);
    enable_for(ctx, who, NOBODY, 2);
    enable(ctx, NOBODY, 1);
    expect_death_of(ctx, who, NOBODY, 2);
    while (taken == 0)
        poll_once(ctx, -1);
    CHECK_EQUAL(taken, 1);
    expect_nothing_for(ctx, who);
    libxl_event_register_callbacks(ctx, NULL, NULL);
    close_context(ctx);
}

TEST_OF_OURS(a_loop_serves_subscribers_too)
{
    libxl_ctx *ctx = open_context();
    subscriber *who = subscribe(ctx);
    libxl_event *event;

    enable_for(ctx, who, NOBODY, 1);
    while (xlevent_subscriber_check(ctx, who, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == ERROR_NOT_READY)
        poll_once(ctx, -1);
    check_death(event, NOBODY, 1);
    libxl_event_free(ctx, event);
    expect_nothing_queued(ctx);
    close_context(ctx);
}

TEST_OF_OURS(masks_and_predicates_choose_among_a_subscribers_events)
{
    libxl_ctx *ctx = open_context();
    subscriber *who = subscribe(ctx);
    libxl_ev_user user = 1;
    libxl_event *event = UNTOUCHED;

    enable_for(ctx, who, NOBODY, 1);
    enable_for(ctx, who, NOBODY, 2);
    CHECK_EQUAL(xlevent_subscriber_wait(ctx, who, &event, DEATH_BIT, is_for_user, &user, -1), 0);
    check_death(event, NOBODY, 1);
    libxl_event_free(ctx, event);
    event = UNTOUCHED;
    CHECK_EQUAL(xlevent_subscriber_check(ctx, who, &event, DEATH_BIT, is_for_user, &user), ERROR_NOT_READY);
    CHECK_EQUAL(xlevent_subscriber_wait(ctx, who, &event, DEATH_BIT, is_for_user, &user, 1), ERROR_TIMEDOUT);
    CHECK_EQUAL(xlevent_subscriber_wait(ctx, who, &event, SHUTDOWN_BIT, NULL, NULL, 0), ERROR_TIMEDOUT);
    CHECK(event == UNTOUCHED);
    expect_death_of(ctx, who, NOBODY, 2);
    CHECK_EQUAL(xlevent_subscriber_wait(ctx, who, &event, DEATH_BIT, NULL, NULL, 1), ERROR_TIMEDOUT);
    close_context(ctx);
}

TEST_OF_OURS(counters_count_everybodys_events)
{
    struct xlevent_stats stats;
    libxl_ctx *ctx = open_context();
    subscriber *who = subscribe(ctx);

    enable_for(ctx, who, NOBODY, 1);
    enable(ctx, NOBODY, 2);
    expect_death(ctx, NOBODY, 2);
    expect_death_of(ctx, who, NOBODY, 1);
    CHECK_EQUAL(xlevent_stats(ctx, &stats, sizeof stats), 0);
    CHECK_EQUAL(stats.events_domain_death, 2);
    CHECK_EQUAL(stats.death_generators, 2);
    CHECK_EQUAL(stats.events_queued_most, 1);
    close_context(ctx);
}

/* ---- threads ---- */

enum { SUBSCRIBERS = 8, EVENTS_EACH = 50 };

struct user_of_a_context {
    libxl_ctx *ctx;
    libxl_ev_user number;
};

static void *use(void *arg)
{
    struct user_of_a_context *user = arg;
    subscriber *who = subscribe(user->ctx);
    libxl_evgen_domain_death *evgens[EVENTS_EACH];
    uint32_t i;

    for (i = 0; i < EVENTS_EACH; i++)
        evgens[i] = enable_for(user->ctx, who, NOBODY, user->number);
    for (i = 0; i < EVENTS_EACH; i++)
        expect_death_of(user->ctx, who, NOBODY, user->number);
    expect_nothing_for(user->ctx, who);
    if (user->number % 2)
        for (i = 0; i < EVENTS_EACH; i++)
            libxl_evdisable_domain_death(user->ctx, evgens[i]);
    unsubscribe(user->ctx, who);
    return NULL;
}

TEST_OF_OURS(many_that_come_and_go_each_get_theirs)
{
    libxl_ctx *ctx = open_context();
    pthread_t threads[SUBSCRIBERS], own = start_thread(wait_for_anything, ctx);
    struct user_of_a_context users[SUBSCRIBERS];
    size_t i;

    for (i = 0; i < SUBSCRIBERS; i++) {
        users[i] = (struct user_of_a_context){ ctx, i };
        threads[i] = start_thread(use, &users[i]);
    }
    for (i = 0; i < SUBSCRIBERS; i++)
        finish_thread(threads[i]);
    CHECK_EQUAL(xlevent_wait_cancel(ctx), 0);
    finish_thread(own);
    CHECK_EQUAL(logged_errors, 0);
    close_context(ctx);
}

struct waiting {
    libxl_ctx *ctx;
    subscriber *who;
    int wanted;
};

static void *wait_for_the_end(void *arg)
{
    struct waiting *waiting = arg;
    libxl_event *event = UNTOUCHED;

    CHECK_EQUAL(xlevent_subscriber_wait(waiting->ctx, waiting->who, &event, LIBXL_EVENTMASK_ALL, NULL, NULL, -1),
                waiting->wanted);
    CHECK(event == UNTOUCHED);
    return NULL;
}

TEST_OF_OURS(a_subscribers_wait_is_called_off_and_no_other)
{
    libxl_ctx *ctx = open_context();
    struct waiting one = { ctx, subscribe(ctx), ERROR_ABORTED }, other = { ctx, subscribe(ctx), ERROR_ABORTED };
    int round;

    for (round = 0; round < 100; round++) {
        pthread_t own = start_thread(wait_for_anything, ctx), first = start_thread(wait_for_the_end, &one),
                  second = start_thread(wait_for_the_end, &other);

        if (round % 2)
            pause_a_little();
        CHECK_EQUAL(xlevent_subscriber_wait_cancel(ctx, one.who), 0);
        finish_thread(first);
        CHECK_EQUAL(xlevent_wait_cancel(ctx), 0);
        finish_thread(own);
        CHECK_EQUAL(xlevent_subscriber_wait_cancel(ctx, other.who), 0);
        finish_thread(second);
    }
    close_context(ctx);
}

/* ---- the end of a subscriber ---- */

TEST_OF_OURS(freeing_a_subscriber_disables_its_generators_and_drops_its_events)
{
    libxl_ctx *ctx = open_context();
    subscriber *who = subscribe(ctx), *next;
    libxl_evgen_domain_death *evgen;
    struct xlevent_stats stats;

    enable_for(ctx, who, NOBODY, 1);
    expect_death_of(ctx, who, NOBODY, 1);
    /* Both are queued when the second has come. */
    evgen = enable_for(ctx, who, NOBODY, 2);
    enable(ctx, NOBODY, 3);
    expect_death(ctx, NOBODY, 3);
    unsubscribe(ctx, who);
    CHECK_EQUAL(xlevent_stats(ctx, &stats, sizeof stats), 0);
    CHECK_EQUAL(stats.death_generators, 1);
    expect_nothing_queued(ctx);
    CHECK_EQUAL(logged_errors, 0);
    log_quietly = true;
    libxl_evdisable_domain_death(ctx, evgen);
    CHECK_EQUAL(logged_errors, 1);
    next = subscribe(ctx);
    expect_nothing_for(ctx, next);
    unsubscribe(ctx, next);
    close_context(ctx);
}

TEST_WITH(a_domain_that_ends_after_its_subscriber_is_nobodys, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    libxl_ctx *ctx = open_context();
    subscriber *who = subscribe(ctx);
    struct drive drive = cd_drive();
    libxl_evgen_disk_eject *evgen;

    enable_for(ctx, who, drive.domid, 1);
    CHECK_EQUAL(xlevent_subscriber_evenable_disk_eject(ctx, who, drive.domid, "hdc", 2, &evgen), 0);
    unsubscribe(ctx, who);
    eject(drive);
    host_destroy(drive.domid);
    expect_silence(ctx);
    /* Nobody has taken notice of it. */
    CHECK(holds(drive, "eject", "eject"));
    CHECK_EQUAL(logged_errors, 0);
    close_context(ctx);
}

TEST_OF_OURS(freeing_a_subscriber_ends_its_waits_and_no_others)
{
    libxl_ctx *ctx = open_context();
    int round;

    log_quietly = true;
    for (round = 0; round < 50; round++) {
        struct waiting waiting = { ctx, subscribe(ctx), ERROR_INVAL };
        pthread_t threads[3], own = start_thread(wait_for_anything, ctx);
        size_t i;

        for (i = 0; i < COUNT(threads); i++)
            threads[i] = start_thread(wait_for_the_end, &waiting);
        if (round % 2)
            pause_a_little();
        unsubscribe(ctx, waiting.who);
        for (i = 0; i < COUNT(threads); i++)
            finish_thread(threads[i]);
        CHECK_EQUAL(xlevent_wait_cancel(ctx), 0);
        finish_thread(own);
    }
    close_context(ctx);
}

/* Until it is told that there is no such subscriber. */
static void *enable_again_and_again(void *arg)
{
    struct waiting *waiting = arg;
    libxl_evgen_domain_death *evgen;
    int rc;

    while ((rc = xlevent_subscriber_evenable_domain_death(waiting->ctx, waiting->who, NOBODY, 9, &evgen)) == 0)
        ;
    CHECK_EQUAL(rc, ERROR_INVAL);
    return NULL;
}

TEST_OF_OURS(what_is_enabled_while_a_subscriber_is_freed_is_nobody_elses)
{
    libxl_ctx *ctx = open_context();
    struct xlevent_stats stats;
    int round;

    log_quietly = true;
    for (round = 0; round < 50; round++) {
        struct waiting waiting = { ctx, subscribe(ctx), 0 };
        pthread_t thread = start_thread(enable_again_and_again, &waiting);
        subscriber *next;

        if (round % 2)
            pause_a_little();
        unsubscribe(ctx, waiting.who);
        /* In the place of the other, if it is free. */
        next = subscribe(ctx);
        finish_thread(thread);
        expect_nothing_for(ctx, next);
        unsubscribe(ctx, next);
        CHECK_EQUAL(xlevent_stats(ctx, &stats, sizeof stats), 0);
        CHECK_EQUAL(stats.death_generators, 0);
    }
    expect_nothing_queued(ctx);
    close_context(ctx);
}

/* In the middle of whose predicate it is freed. */
static struct {
    struct waiting waiting;
    atomic_bool looked_at;
} seen;

static int look_for_a_while(const libxl_event *event, void *unused)
{
    int i;

    (void)unused;
    seen.looked_at = true;
    for (i = 0; i < 20; i++) {
        pause_a_little();
        check_death(event, NOBODY, 5);
    }
    return 0;
}

static void *look(void *unused)
{
    libxl_event *event = UNTOUCHED;
    int rc = xlevent_subscriber_check(seen.waiting.ctx, seen.waiting.who, &event, LIBXL_EVENTMASK_ALL, look_for_a_while,
                                      NULL);

    (void)unused;
    CHECK(rc == ERROR_NOT_READY || rc == ERROR_INVAL);
    return NULL;
}

TEST_OF_OURS(what_a_predicate_looks_at_is_not_freed_with_its_subscriber)
{
    libxl_ctx *ctx = open_context();
    pthread_t thread;

    seen.waiting = (struct waiting){ ctx, subscribe(ctx), 0 };
    enable_for(ctx, seen.waiting.who, NOBODY, 5);
    enable(ctx, NOBODY, 6);
    expect_death(ctx, NOBODY, 6);
    thread = start_thread(look, NULL);
    WAIT_UNTIL(seen.looked_at);
    unsubscribe(ctx, seen.waiting.who);
    finish_thread(thread);
    close_context(ctx);
}

static int free_it(const libxl_event *event, void *arg)
{
    struct waiting *waiting = arg;

    CHECK_EQUAL(xlevent_subscriber_free(waiting->ctx, waiting->who), ERROR_INVAL);
    check_death(event, NOBODY, 1);
    return 1;
}

TEST_OF_OURS(a_predicate_may_not_free_a_subscriber)
{
    libxl_ctx *ctx = open_context();
    struct waiting waiting = { ctx, subscribe(ctx), 0 };
    libxl_event *event;

    log_quietly = true;
    enable_for(ctx, waiting.who, NOBODY, 1);
    CHECK_EQUAL(xlevent_subscriber_wait(ctx, waiting.who, &event, LIBXL_EVENTMASK_ALL, free_it, &waiting, -1), 0);
    check_death(event, NOBODY, 1);
    libxl_event_free(ctx, event);
    unsubscribe(ctx, waiting.who);
    close_context(ctx);
}

static void free_at_event(void *arg, libxl_event *event)
{
    struct waiting *waiting = arg;

    libxl_event_free(NULL, event);
    unsubscribe(waiting->ctx, waiting->who);
}

TEST_OF_OURS(a_callback_may_free_a_subscriber)
{
    const libxl_event_hooks hooks = { .event_occurs_mask = LIBXL_EVENTMASK_ALL, .event_occurs = free_at_event };
    libxl_ctx *ctx = open_context();
    struct waiting waiting = { ctx, subscribe(ctx), ERROR_INVAL };

    log_quietly = true;
    libxl_event_register_callbacks(ctx, &hooks, &waiting);
    enable(ctx, NOBODY, 1);
    wait_for_the_end(&waiting);
    libxl_event_register_callbacks(ctx, NULL, NULL);
    close_context(ctx);
}

TEST_OF_OURS(a_context_may_be_freed_with_its_subscribers)
{
    libxl_ctx *ctx = open_context();
    subscriber *who = subscribe(ctx);

    enable_for(ctx, who, NOBODY, 1);
    enable(ctx, NOBODY, 2);
    expect_death(ctx, NOBODY, 2);
    /* It has its event. */
    close_context(ctx);
    log_quietly = true;
    CHECK_EQUAL(xlevent_subscriber_free(ctx, who), ERROR_INVAL);
}

/* ---- arguments ---- */

static void check_unknown(libxl_ctx *ctx, subscriber *who)
{
    libxl_evgen_domain_death *death = UNTOUCHED;
    libxl_evgen_disk_eject *ejection = UNTOUCHED;
    libxl_event *event = UNTOUCHED;
    int before = logged_errors;

    CHECK_EQUAL(xlevent_subscriber_check(ctx, who, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_INVAL);
    CHECK_EQUAL(xlevent_subscriber_wait(ctx, who, &event, LIBXL_EVENTMASK_ALL, NULL, NULL, -1), ERROR_INVAL);
    CHECK_EQUAL(xlevent_subscriber_wait_cancel(ctx, who), ERROR_INVAL);
    CHECK_EQUAL(xlevent_subscriber_evenable_domain_death(ctx, who, NOBODY, 0, &death), ERROR_INVAL);
    CHECK_EQUAL(xlevent_subscriber_evenable_disk_eject(ctx, who, NOBODY, "hdc", 0, &ejection), ERROR_INVAL);
    CHECK(event == UNTOUCHED && death == UNTOUCHED && ejection == UNTOUCHED);
    CHECK_EQUAL(logged_errors - before, 5);
}

TEST_OF_OURS(wrong_arguments_about_subscribers_are_errors)
{
    libxl_ctx *ctx = open_context(), *other = open_context();
    subscriber *who = subscribe(ctx), *freed = subscribe(ctx), *foreign = subscribe(other), *none = UNTOUCHED;
    libxl_evgen_domain_death *evgen = enable(ctx, NOBODY, 1);

    unsubscribe(ctx, freed);
    log_quietly = true;
    CHECK_EQUAL(xlevent_subscriber_new(NULL, &none), ERROR_INVAL);
    CHECK_EQUAL(xlevent_subscriber_free(NULL, who), ERROR_INVAL);
    CHECK_EQUAL(xlevent_subscriber_wait_cancel(NULL, who), ERROR_INVAL);
    CHECK_EQUAL(logged_errors, 0);
    CHECK_EQUAL(xlevent_subscriber_new(ctx, NULL), ERROR_INVAL);
    CHECK_EQUAL(logged_errors, 1);
    CHECK(none == UNTOUCHED);
    check_unknown(ctx, NULL);
    check_unknown(ctx, freed);
    check_unknown(ctx, foreign);
    check_unknown(ctx, (subscriber *)evgen);
    check_unknown(ctx, (subscriber *)&evgen);
    logged_errors = 0;
    CHECK_EQUAL(xlevent_subscriber_free(ctx, NULL), 0);
    CHECK_EQUAL(logged_errors, 0);
    CHECK_EQUAL(xlevent_subscriber_free(ctx, freed), ERROR_INVAL);
    CHECK_EQUAL(xlevent_subscriber_free(ctx, foreign), ERROR_INVAL);
    CHECK_EQUAL(logged_errors, 2);
    CHECK_EQUAL(xlevent_subscriber_check(ctx, who, NULL, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_INVAL);
    CHECK_EQUAL(xlevent_subscriber_wait(ctx, who, NULL, LIBXL_EVENTMASK_ALL, NULL, NULL, -1), ERROR_INVAL);
    CHECK_EQUAL(xlevent_subscriber_evenable_domain_death(ctx, who, NOBODY, 0, NULL), ERROR_INVAL);
    CHECK_EQUAL(xlevent_subscriber_evenable_disk_eject(ctx, who, NOBODY, "hdc", 0, NULL), ERROR_INVAL);
    CHECK_EQUAL(xlevent_subscriber_evenable_disk_eject(ctx, who, NOBODY, NULL, 0, &(libxl_evgen_disk_eject *){ NULL }),
                ERROR_INVAL);
    CHECK_EQUAL(logged_errors, 7);
    expect_nothing_for(ctx, who);
    close_context(ctx);
    close_context(other);
}
