/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libxl_evenable_domain_state and _evdisable_: what becomes of a domain, and of all domains. libxenlight has no such
 * functions, so in its column there is nothing to run.
 */
#include <errno.h>
#include <pthread.h>

#include "harness/check.h"
#include "harness/host.h"
#include "harness/ours.h"
#include "harness/store.h"
#include "harness/xl.h"

#define STATE_TEST(name) TEST_WITH(name, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)

/* Event types, as a switch wants them. */
enum {
    SHUT_DOWN = LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN,
    DEAD = LIBXL_EVENT_TYPE_DOMAIN_DEATH,
    SUSPENDED = LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED,
    RUNNING = LIBXL_EVENT_TYPE_DOMAIN_RUNNING,
    CREATED = LIBXL_EVENT_TYPE_DOMAIN_CREATED,
    EJECTED = LIBXL_EVENT_TYPE_DISK_EJECT,
};

#define BIT(type) ((uint64_t)1 << (type))
#define STATES (BIT(SHUT_DOWN) | BIT(DEAD) | BIT(SUSPENDED) | BIT(RUNNING))
#define ALL (STATES | BIT(CREATED))

static libxl_evgen_domain_state *enable_states(libxl_ctx *ctx, uint32_t domid, uint64_t states, libxl_ev_user user)
{
    libxl_evgen_domain_state *evgen = NULL;

    CHECK_EQUAL(libxl_evenable_domain_state(ctx, domid, states, user, &evgen), 0);
    CHECK(evgen != NULL);
    return evgen;
}

/* An event is this one. It is not freed. */
static void check_event(const libxl_event *event, int type, uint32_t domid, libxl_ev_user user)
{
    if ((int)event->type != type || event->domid != domid || event->for_user != user)
        FAIL("type %d of domain %u for %llu, not type %d of %u for %llu", (int)event->type, (unsigned)event->domid,
             (unsigned long long)event->for_user, type, (unsigned)domid, (unsigned long long)user);
}

/* The next event that comes is this one. It is freed. */
static void expect_event(libxl_ctx *ctx, int type, uint32_t domid, libxl_ev_user user)
{
    libxl_event *event = wait_event(ctx);

    check_event(event, type, domid, user);
    libxl_event_free(ctx, event);
}

static struct xlevent_stats stats_of(libxl_ctx *ctx)
{
    struct xlevent_stats stats;

    CHECK_EQUAL(xlevent_stats(ctx, &stats, sizeof stats), 0);
    return stats;
}

/* ---- one domain ---- */

STATE_TEST(a_domain_can_be_followed_through_checkpoints_to_its_end)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    int round;

    enable_states(ctx, domid, STATES, 7);
    expect_silence(ctx);
    for (round = 0; round < 3; round++) {
        host_suspend(domid);
        expect_event(ctx, SUSPENDED, domid, 7);
        host_resume(domid);
        expect_event(ctx, RUNNING, domid, 7);
        expect_silence(ctx);
    }
    host_shutdown(domid, POWEROFF);
    expect_shutdown(ctx, domid, 7, POWEROFF);
    host_kill(domid);
    expect_event(ctx, DEAD, domid, 7);
    host_destroy(domid);
    expect_silence(ctx);
    close_context(ctx);
}

/* The same in an application's own loop, which asks for no timeout and has one descriptor. */
STATE_TEST(a_poll_loop_is_told_of_a_resume)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    libxl_event *event;

    enable_states(ctx, domid, STATES, 1);
    host_suspend(domid);
    event = poll_until_event(ctx, NULL, NULL);
    check_event(event, SUSPENDED, domid, 1);
    libxl_event_free(ctx, event);
    host_resume(domid);
    event = poll_until_event(ctx, NULL, NULL);
    check_event(event, RUNNING, domid, 1);
    libxl_event_free(ctx, event);
    close_context(ctx);
}

STATE_TEST(the_state_at_the_beginning_is_told_and_running_is_none)
{
    libxl_ctx *ctx = open_context();
    uint32_t running = host_create(), suspended = host_create(), crashed = host_create(), dying = host_create();
    int round;

    host_suspend(suspended);
    host_shutdown(crashed, CRASH);
    host_kill(dying);
    /* Both as a context's first generators and where there are others. */
    for (round = 0; round < 2; round++) {
        enable_states(ctx, running, STATES, 1);
        enable_states(ctx, suspended, STATES, 2);
        enable_states(ctx, crashed, STATES, 3);
        enable_states(ctx, dying, STATES, 4);
        enable_states(ctx, NOBODY, STATES, 5);
        expect_event(ctx, SUSPENDED, suspended, 2);
        expect_shutdown(ctx, crashed, 3, CRASH);
        expect_event(ctx, DEAD, dying, 4);
        expect_event(ctx, DEAD, NOBODY, 5);
        expect_silence(ctx);
    }
    close_context(ctx);
}

/* Nobody looks while the domain runs. */
STATE_TEST(a_resume_and_a_suspend_between_two_looks_are_both_told)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    int round;

    enable_states(ctx, domid, STATES, 1);
    host_suspend(domid);
    expect_event(ctx, SUSPENDED, domid, 1);
    for (round = 0; round < 3; round++) {
        host_resume(domid);
        host_suspend(domid);
        expect_event(ctx, RUNNING, domid, 1);
        expect_event(ctx, SUSPENDED, domid, 1);
        expect_silence(ctx);
    }
    host_resume(domid);
    host_shutdown(domid, REBOOT);
    expect_event(ctx, RUNNING, domid, 1);
    expect_shutdown(ctx, domid, 1, REBOOT);
    expect_silence(ctx);
    close_context(ctx);
}

STATE_TEST(a_suspended_domain_that_is_destroyed_gives_its_death)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();

    enable_states(ctx, domid, STATES, 1);
    host_suspend(domid);
    expect_event(ctx, SUSPENDED, domid, 1);
    host_destroy(domid);
    expect_event(ctx, DEAD, domid, 1);
    expect_silence(ctx);
    close_context(ctx);
}

/* When there is cause to look at it: only the suspended are looked at by themselves. */
STATE_TEST(a_domain_that_runs_again_after_a_shutdown_is_told_of_too)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();

    enable_states(ctx, domid, STATES, 1);
    host_shutdown(domid, CRASH);
    expect_shutdown(ctx, domid, 1, CRASH);
    CHECK_EQUAL(stats_of(ctx).resume_looks, 0);
    host_resume(domid);
    enable_states(ctx, LIBXL_DOMID_ANY, ALL, 2);
    expect_event(ctx, CREATED, domid, 2);
    expect_event(ctx, RUNNING, domid, 1);
    host_shutdown(domid, CRASH);
    expect_shutdown(ctx, domid, 2, CRASH);
    expect_shutdown(ctx, domid, 1, CRASH);
    host_resume(domid);
    host_suspend(domid);
    expect_event(ctx, RUNNING, domid, 2);
    expect_event(ctx, SUSPENDED, domid, 2);
    expect_event(ctx, RUNNING, domid, 1);
    expect_event(ctx, SUSPENDED, domid, 1);
    close_context(ctx);
}

STATE_TEST(what_was_not_asked_for_is_not_told)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();

    enable_states(ctx, domid, BIT(SUSPENDED), 1);
    enable_states(ctx, domid, BIT(RUNNING), 2);
    enable_states(ctx, domid, BIT(SHUT_DOWN), 3);
    enable_states(ctx, domid, BIT(DEAD), 4);
    expect_silence(ctx);
    host_suspend(domid);
    expect_event(ctx, SUSPENDED, domid, 1);
    host_resume(domid);
    expect_event(ctx, RUNNING, domid, 2);
    host_shutdown(domid, WATCHDOG);
    expect_shutdown(ctx, domid, 3, WATCHDOG);
    host_kill(domid);
    expect_event(ctx, DEAD, domid, 4);
    expect_silence(ctx);
    close_context(ctx);
}

STATE_TEST(the_resume_alone_of_a_domain_that_is_suspended_already)
{
    libxl_ctx *ctx = open_context();
    uint32_t one = host_create(), any = host_create();

    host_suspend(one);
    host_suspend(any);
    enable_states(ctx, one, BIT(RUNNING), 1);
    expect_silence(ctx);
    host_resume(one);
    expect_event(ctx, RUNNING, one, 1);
    enable_states(ctx, LIBXL_DOMID_ANY, BIT(RUNNING), 2);
    expect_silence(ctx);
    host_resume(any);
    expect_event(ctx, RUNNING, any, 2);
    close_context(ctx);
}

/* Of one domain, the newest generator speaks first. */
STATE_TEST(generators_of_shutdown_and_death_hear_of_nothing_else)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();

    enable(ctx, domid, 1);
    enable_states(ctx, domid, STATES, 2);
    enable(ctx, domid, 3);
    expect_silence(ctx);
    host_suspend(domid);
    expect_event(ctx, SUSPENDED, domid, 2);
    host_resume(domid);
    expect_event(ctx, RUNNING, domid, 2);
    host_shutdown(domid, POWEROFF);
    expect_shutdown(ctx, domid, 3, POWEROFF);
    expect_shutdown(ctx, domid, 2, POWEROFF);
    expect_shutdown(ctx, domid, 1, POWEROFF);
    host_destroy(domid);
    expect_event(ctx, DEAD, domid, 3);
    expect_event(ctx, DEAD, domid, 2);
    expect_event(ctx, DEAD, domid, 1);
    expect_silence(ctx);
    close_context(ctx);
}

/* The way back to libxenlight's rule is for generators of shutdown and death. */
STATE_TEST(a_suspend_is_no_shutdown_whatever_the_environment_says)
{
    libxl_ctx *ctx;
    uint32_t domid = host_create();

    setenv("XLEVENT_REPORT_SUSPEND", "1", 1);
    ctx = open_context();
    enable(ctx, domid, 1);
    enable_states(ctx, domid, STATES, 2);
    host_suspend(domid);
    expect_event(ctx, SUSPENDED, domid, 2);
    expect_shutdown(ctx, domid, 1, SUSPEND);
    host_resume(domid);
    expect_event(ctx, RUNNING, domid, 2);
    host_shutdown(domid, POWEROFF);
    expect_shutdown(ctx, domid, 2, POWEROFF);
    expect_silence(ctx);
    close_context(ctx);
}

/* The next two events are of this type, for user 2 and then 1. */
static void expect_from_both(libxl_ctx *ctx, int type, uint32_t domid, const uint8_t uuid[16])
{
    libxl_ev_user user;

    for (user = 2; user > 0; user--) {
        libxl_event *event = wait_event(ctx);

        check_event(event, type, domid, user);
        CHECK(memcmp(&event->domuuid, uuid, 16) == 0);
        libxl_event_free(ctx, event);
    }
}

/* In each state that it can be in; with both kinds of generator, and while something else happens on the host. */
STATE_TEST(another_uuid_is_nothing_to_tell_and_later_events_have_it)
{
    enum { FIRST = 100, RUNNING_ONE = FIRST, SUSPENDED_ONE, CRASHED_ONE, DYING_ONE, KINDS = 4, OTHER = 200 };
    static const uint8_t second[16] = "another of them!";
    libxl_ctx *ctx = open_context();
    uint32_t i;

    host_create_many(FIRST, KINDS);
    host_create_many(OTHER, 2);
    host_suspend(SUSPENDED_ONE);
    host_shutdown(CRASHED_ONE, CRASH);
    host_kill(DYING_ONE);
    for (i = 0; i < KINDS; i++)
        enable_states(ctx, FIRST + i, STATES, 1);
    expect_event(ctx, SUSPENDED, SUSPENDED_ONE, 1);
    expect_shutdown(ctx, CRASHED_ONE, 1, CRASH);
    expect_event(ctx, DEAD, DYING_ONE, 1);
    enable_states(ctx, LIBXL_DOMID_ANY, STATES, 2);
    expect_event(ctx, SUSPENDED, SUSPENDED_ONE, 2);
    expect_shutdown(ctx, CRASHED_ONE, 2, CRASH);
    expect_event(ctx, DEAD, DYING_ONE, 2);
    for (i = 0; i < KINDS; i++)
        host_set_uuid(FIRST + i, second);
    expect_silence(ctx);
    /* A domain that was there ends, and one comes. */
    host_destroy(OTHER);
    expect_event(ctx, DEAD, OTHER, 2);
    host_create_at(OTHER + 10);
    host_kill(OTHER + 1);
    expect_event(ctx, DEAD, OTHER + 1, 2);
    expect_silence(ctx);
    host_resume(SUSPENDED_ONE);
    expect_from_both(ctx, RUNNING, SUSPENDED_ONE, second);
    host_destroy(RUNNING_ONE);
    expect_from_both(ctx, DEAD, RUNNING_ONE, second);
    host_destroy(DYING_ONE);
    expect_silence(ctx);
    close_context(ctx);
}

STATE_TEST(each_shutdown_is_told_though_nobody_saw_it_run_in_between)
{
    enum { SOFT_RESET = 5 };
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();

    enable_states(ctx, domid, STATES, 1);
    host_shutdown(domid, SOFT_RESET);
    expect_shutdown(ctx, domid, 1, SOFT_RESET);
    host_resume(domid);
    host_shutdown(domid, SOFT_RESET);
    expect_event(ctx, RUNNING, domid, 1);
    expect_shutdown(ctx, domid, 1, SOFT_RESET);
    /* That it runs again may be told at once, or with what comes next. */
    host_soft_reset(domid);
    host_shutdown(domid, REBOOT);
    expect_event(ctx, RUNNING, domid, 1);
    expect_shutdown(ctx, domid, 1, REBOOT);
    expect_silence(ctx);
    close_context(ctx);
}

/* xenstored has forgotten it, and is never told of it again. Nobody wants to know of its shutdown. */
STATE_TEST(the_end_of_a_domain_whose_soft_reset_goes_no_further_is_told_to_who_asks_for_ends_alone)
{
    enum { SOFT_RESET = 5 };
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create(), other = host_create();

    enable_states(ctx, domid, DEATH_BIT, 1);
    expect_silence(ctx);
    host_shutdown(domid, SOFT_RESET);
    host_settle();
    expect_silence(ctx);
    release_domain(domid);
    host_settle();
    expect_silence(ctx);
    host_destroy(domid);
    expect_event(ctx, DEAD, domid, 1);
    enable_states(ctx, LIBXL_DOMID_ANY, DEATH_BIT, 2);
    expect_silence(ctx);
    host_shutdown(other, SOFT_RESET);
    release_domain(other);
    host_settle();
    expect_silence(ctx);
    host_destroy(other);
    expect_event(ctx, DEAD, other, 2);
    close_context(ctx);
}

STATE_TEST(a_number_that_is_used_again_ends_the_generator)
{
    libxl_ctx *ctx = open_context();
    uint32_t suspended = host_create_at(100), running = host_create_at(101);

    enable_states(ctx, suspended, STATES, 1);
    enable_states(ctx, running, STATES, 2);
    host_suspend(suspended);
    expect_event(ctx, SUSPENDED, suspended, 1);
    /* Nobody looks in between. */
    host_destroy(suspended);
    host_destroy(running);
    host_create_at(suspended);
    host_create_at(running);
    host_suspend(suspended);
    expect_event(ctx, DEAD, suspended, 1);
    expect_event(ctx, DEAD, running, 2);
    host_destroy(suspended);
    host_destroy(running);
    expect_silence(ctx);
    close_context(ctx);
}

STATE_TEST(an_event_carries_the_uuid_of_its_domain_and_nothing_more)
{
    static const uint8_t uuid[16] = "sixteen of them!";
    static const libxl_event zero;
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create_with_uuid(uuid);
    int expected[] = { CREATED, SUSPENDED, RUNNING, DEAD };
    size_t i;

    enable_states(ctx, LIBXL_DOMID_ANY, ALL, 1);
    for (i = 0; i < COUNT(expected); i++) {
        libxl_event *event = wait_event(ctx);

        check_event(event, expected[i], domid, 1);
        CHECK(memcmp(&event->domuuid, uuid, sizeof uuid) == 0);
        CHECK(memcmp(&event->u, &zero.u, sizeof zero.u) == 0);
        libxl_event_free(ctx, event);
        if (i == 0)
            host_suspend(domid);
        else if (i == 1)
            host_resume(domid);
        else if (i == 2)
            host_destroy(domid);
    }
    close_context(ctx);
}

STATE_TEST(suspended_domains_are_looked_at_by_themselves_and_only_then)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    struct xlevent_stats before, after;

    enable_states(ctx, domid, STATES, 1);
    expect_silence(ctx);
    CHECK_EQUAL(stats_of(ctx).resume_looks, 0);
    host_suspend(domid);
    expect_event(ctx, SUSPENDED, domid, 1);
    before = stats_of(ctx);
    while (stats_of(ctx).resume_looks < before.resume_looks + 3)
        poll_once(ctx, -1);
    after = stats_of(ctx);
    /* Each costs a hypercall for one domain. */
    CHECK_AT_LEAST(after.hypercalls, before.hypercalls + 3);
    CHECK_EQUAL(after.hypercalls - before.hypercalls, after.domains_examined - before.domains_examined);
    /* Looks at everything have firings for a cause: the suspend's own may come after a look that found it already. */
    CHECK_AT_LEAST(after.releases - before.releases, after.scans - before.scans);
    host_resume(domid);
    expect_event(ctx, RUNNING, domid, 1);
    before = stats_of(ctx);
    expect_silence(ctx);
    CHECK_EQUAL(stats_of(ctx).resume_looks, before.resume_looks);
    close_context(ctx);
}

/* ---- all domains ---- */

/* Nothing is queued and nothing is on its way for a generator of all domains: what a new domain gives is the next. */
static void expect_silence_of_all(libxl_ctx *ctx, libxl_ev_user user)
{
    uint32_t witness = host_create_at(32700);

    expect_event(ctx, CREATED, witness, user);
    host_destroy(witness);
    expect_event(ctx, DEAD, witness, user);
    expect_nothing_queued(ctx);
}

STATE_TEST(a_generator_of_all_domains_begins_with_those_that_are_there)
{
    libxl_ctx *ctx = open_context();
    int round;

    host_create_many(100, 4);
    host_suspend(101);
    host_shutdown(102, CRASH);
    host_kill(103);
    for (round = 1; round < 3; round++) {
        libxl_evgen_domain_state *evgen = enable_states(ctx, LIBXL_DOMID_ANY, ALL, (libxl_ev_user)round);

        expect_event(ctx, CREATED, 100, (libxl_ev_user)round);
        expect_event(ctx, CREATED, 101, (libxl_ev_user)round);
        expect_event(ctx, SUSPENDED, 101, (libxl_ev_user)round);
        expect_event(ctx, CREATED, 102, (libxl_ev_user)round);
        expect_shutdown(ctx, 102, (libxl_ev_user)round, CRASH);
        expect_event(ctx, CREATED, 103, (libxl_ev_user)round);
        expect_event(ctx, DEAD, 103, (libxl_ev_user)round);
        expect_silence_of_all(ctx, (libxl_ev_user)round);
        libxl_evdisable_domain_state(ctx, evgen);
        if (round == 1)
            /* The second is not the context's only one. */
            enable(ctx, 100, 99);
    }
    close_context(ctx);
}

STATE_TEST(new_domains_are_told_of_and_followed)
{
    libxl_ctx *ctx = open_context();
    uint32_t first, second;

    enable_states(ctx, LIBXL_DOMID_ANY, ALL, 1);
    first = host_create();
    expect_event(ctx, CREATED, first, 1);
    second = host_create();
    expect_event(ctx, CREATED, second, 1);
    host_suspend(second);
    expect_event(ctx, SUSPENDED, second, 1);
    host_shutdown(first, POWEROFF);
    expect_shutdown(ctx, first, 1, POWEROFF);
    host_resume(second);
    expect_event(ctx, RUNNING, second, 1);
    host_destroy(first);
    expect_event(ctx, DEAD, first, 1);
    host_kill(second);
    expect_event(ctx, DEAD, second, 1);
    host_destroy(second);
    expect_silence_of_all(ctx, 1);
    CHECK_EQUAL(stats_of(ctx).domains_known, 0);
    close_context(ctx);
}

/* Between two looks: nobody has seen the second live, nor the first die. */
STATE_TEST(a_domain_that_was_never_seen_alive_is_created_and_dead)
{
    libxl_ctx *ctx = open_context();
    uint32_t killed, crashed;

    enable_states(ctx, LIBXL_DOMID_ANY, ALL, 1);
    expect_silence_of_all(ctx, 1);
    killed = host_create_at(100);
    crashed = host_create_at(101);
    host_kill(killed);
    host_shutdown(crashed, CRASH);
    expect_event(ctx, CREATED, killed, 1);
    expect_event(ctx, DEAD, killed, 1);
    expect_event(ctx, CREATED, crashed, 1);
    expect_shutdown(ctx, crashed, 1, CRASH);
    expect_silence_of_all(ctx, 1);
    close_context(ctx);
}

STATE_TEST(a_number_that_is_used_again_is_a_death_and_a_creation)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create_at(100);
    libxl_event *dead, *created;

    enable_states(ctx, LIBXL_DOMID_ANY, ALL, 1);
    expect_event(ctx, CREATED, domid, 1);
    expect_silence_of_all(ctx, 1);
    host_destroy(domid);
    host_create_at(domid);
    dead = wait_event(ctx);
    created = wait_event(ctx);
    check_event(dead, DEAD, domid, 1);
    check_event(created, CREATED, domid, 1);
    CHECK(memcmp(&dead->domuuid, &created->domuuid, sizeof dead->domuuid) != 0);
    libxl_event_free(ctx, dead);
    libxl_event_free(ctx, created);
    expect_silence_of_all(ctx, 1);
    close_context(ctx);
}

STATE_TEST(a_thousand_domains_come_and_go_in_order_and_leave_nothing)
{
    enum { FIRST = 1000, DOMAINS = 1000 };
    libxl_ctx *ctx = open_context();
    uint32_t i;

    host_create_many(FIRST, DOMAINS / 2);
    enable_states(ctx, LIBXL_DOMID_ANY, ALL, 1);
    host_create_many(FIRST + DOMAINS / 2, DOMAINS / 2);
    for (i = 0; i < DOMAINS; i++)
        expect_event(ctx, CREATED, FIRST + i, 1);
    CHECK_EQUAL(stats_of(ctx).domains_known, DOMAINS);
    host_shutdown_many(FIRST, DOMAINS, REBOOT);
    for (i = 0; i < DOMAINS; i++)
        expect_shutdown(ctx, FIRST + i, 1, REBOOT);
    host_destroy_many(FIRST, DOMAINS);
    for (i = 0; i < DOMAINS; i++)
        expect_event(ctx, DEAD, FIRST + i, 1);
    expect_silence_of_all(ctx, 1);
    CHECK_EQUAL(stats_of(ctx).domains_known, 0);
    CHECK_EQUAL(stats_of(ctx).events_domain_created, DOMAINS + 1);
    close_context(ctx);
}

STATE_TEST(each_generator_of_all_domains_tells_what_it_was_asked_for)
{
    libxl_ctx *ctx = open_context(), *other = open_context();
    uint32_t domid;

    enable_states(ctx, LIBXL_DOMID_ANY, BIT(CREATED), 1);
    enable_states(ctx, LIBXL_DOMID_ANY, BIT(DEAD), 2);
    enable_states(other, LIBXL_DOMID_ANY, BIT(DEAD) | BIT(SUSPENDED), 3);
    domid = host_create();
    expect_event(ctx, CREATED, domid, 1);
    host_suspend(domid);
    expect_event(other, SUSPENDED, domid, 3);
    host_destroy(domid);
    expect_event(ctx, DEAD, domid, 2);
    expect_event(other, DEAD, domid, 3);
    expect_nothing_queued(ctx);
    expect_nothing_queued(other);
    close_context(ctx);
    close_context(other);
}

/* New domains are watched for as long as somebody wants to know of them. */
STATE_TEST(without_a_generator_of_all_domains_no_new_domain_is_a_cause_to_look)
{
    libxl_ctx *ctx = open_context();
    libxl_evgen_domain_state *evgen;
    uint64_t introductions;
    uint32_t domid = host_create();

    enable(ctx, domid, 1);
    evgen = enable_states(ctx, LIBXL_DOMID_ANY, ALL, 2);
    expect_event(ctx, CREATED, domid, 2);
    expect_silence_of_all(ctx, 2);
    libxl_evdisable_domain_state(ctx, evgen);
    /* Whatever it is that it has fired. */
    expect_silence(ctx);
    introductions = stats_of(ctx).introductions;
    CHECK_AT_LEAST(introductions, 2);
    host_destroy(host_create());
    expect_silence(ctx);
    CHECK_EQUAL(stats_of(ctx).introductions, introductions);
    close_context(ctx);
}

STATE_TEST(what_happens_while_xenstored_is_away_is_told_when_it_is_back)
{
    libxl_ctx *ctx = open_context();
    uint32_t suspended = host_create_at(100), crashed = host_create_at(101), created;

    enable_states(ctx, LIBXL_DOMID_ANY, ALL, 1);
    expect_event(ctx, CREATED, suspended, 1);
    expect_event(ctx, CREATED, crashed, 1);
    expect_silence_of_all(ctx, 1);
    log_quietly = true;
    host_kill_xenstored();
    host_suspend(suspended);
    host_shutdown(crashed, CRASH);
    host_start_xenstored();
    expect_event(ctx, SUSPENDED, suspended, 1);
    expect_shutdown(ctx, crashed, 1, CRASH);
    /* Both watches are set again. */
    created = host_create_at(102);
    expect_event(ctx, CREATED, created, 1);
    host_destroy(created);
    expect_event(ctx, DEAD, created, 1);
    expect_silence_of_all(ctx, 1);
    close_context(ctx);
}

STATE_TEST(a_look_that_fails_is_taken_again_and_nothing_is_lost)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();

    log_quietly = true;
    host_fail_lists(EAGAIN, 2);
    enable_states(ctx, LIBXL_DOMID_ANY, ALL, 1);
    expect_event(ctx, CREATED, domid, 1);
    host_suspend(domid);
    expect_event(ctx, SUSPENDED, domid, 1);
    /* Those that look whether it runs. */
    host_fail_lists(EAGAIN, 2);
    host_resume(domid);
    expect_event(ctx, RUNNING, domid, 1);
    CHECK_AT_LEAST(stats_of(ctx).failed_scans, 3);
    close_context(ctx);
}

/* ---- handles ---- */

TEST_OF_OURS(bad_arguments_are_errors_with_a_line_in_the_log)
{
    static const uint64_t masks[] = { 0, 1, BIT(EJECTED), BIT(39), BIT(43), BIT(63), UINT64_MAX, ~ALL, STATES | BIT(EJECTED) };
    static const uint32_t nobodies[] = { 0x7ff0, 40000, 65536, 0xfffffffd, 0xffffffff };
    libxl_ctx *ctx = open_context(), *freed = open_context();
    libxl_evgen_domain_state *evgen = UNTOUCHED;
    int expected = 0;
    size_t i;

    log_quietly = true;
    close_context(freed);
    CHECK_EQUAL(libxl_evenable_domain_state(NULL, 1, STATES, 1, &evgen), ERROR_INVAL);
    CHECK_EQUAL(libxl_evenable_domain_state(freed, 1, STATES, 1, &evgen), ERROR_INVAL);
    CHECK_EQUAL(libxl_evenable_domain_state((libxl_ctx *)&evgen, 1, STATES, 1, &evgen), ERROR_INVAL);
    CHECK_EQUAL(logged_errors, 0);
    CHECK_EQUAL(libxl_evenable_domain_state(ctx, 1, STATES, 1, NULL), ERROR_INVAL);
    CHECK_EQUAL(logged_errors, ++expected);
    for (i = 0; i < COUNT(masks); i++) {
        CHECK_EQUAL(libxl_evenable_domain_state(ctx, 1, masks[i], 1, &evgen), ERROR_INVAL);
        CHECK_EQUAL(logged_errors, ++expected);
        CHECK_EQUAL(libxl_evenable_domain_state(ctx, LIBXL_DOMID_ANY, masks[i], 1, &evgen), ERROR_INVAL);
        CHECK_EQUAL(logged_errors, ++expected);
    }
    /* A domain that has a number is there already. */
    CHECK_EQUAL(libxl_evenable_domain_state(ctx, 1, ALL, 1, &evgen), ERROR_INVAL);
    CHECK_EQUAL(logged_errors, ++expected);
    for (i = 0; i < COUNT(nobodies); i++) {
        CHECK_EQUAL(libxl_evenable_domain_state(ctx, nobodies[i], STATES, 1, &evgen), ERROR_INVAL);
        CHECK_EQUAL(logged_errors, ++expected);
    }
    CHECK(evgen == UNTOUCHED);
    CHECK_EQUAL(stats_of(ctx).state_generators, 0);
    CHECK_EQUAL(stats_of(ctx).watching, 0);
    expect_nothing_queued(ctx);
    close_context(ctx);
}

TEST_OF_OURS(an_unknown_handle_is_logged_and_disables_nothing)
{
    libxl_ctx *ctx = open_context(), *other = open_context();
    libxl_evgen_domain_state *state = enable_states(ctx, NOBODY, STATES, 1);
    libxl_evgen_domain_state *any = enable_states(ctx, LIBXL_DOMID_ANY, BIT(CREATED), 2);
    libxl_evgen_domain_death *death = enable(ctx, NOBODY, 3);

    log_quietly = true;
    libxl_evdisable_domain_state(ctx, NULL);
    CHECK_EQUAL(logged_errors, 0);
    libxl_evdisable_domain_state(ctx, (libxl_evgen_domain_state *)death);
    libxl_evdisable_domain_state(ctx, (libxl_evgen_domain_state *)&state);
    libxl_evdisable_domain_state(other, state);
    libxl_evdisable_domain_state(other, any);
    libxl_evdisable_domain_death(ctx, (libxl_evgen_domain_death *)state);
    libxl_evdisable_domain_death(ctx, (libxl_evgen_domain_death *)any);
    CHECK_EQUAL(logged_errors, 6);
    CHECK_EQUAL(stats_of(ctx).state_generators, 2);
    CHECK_EQUAL(stats_of(ctx).death_generators, 1);
    libxl_evdisable_domain_state(ctx, state);
    libxl_evdisable_domain_state(ctx, any);
    CHECK_EQUAL(logged_errors, 6);
    libxl_evdisable_domain_state(ctx, state);
    libxl_evdisable_domain_state(ctx, any);
    CHECK_EQUAL(logged_errors, 8);
    CHECK_EQUAL(stats_of(ctx).state_generators, 0);
    close_context(ctx);
    close_context(other);
}

STATE_TEST(a_disabled_generator_is_silent_and_what_is_queued_still_comes)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    libxl_evgen_domain_state *queued, *silent;

    queued = enable_states(ctx, domid, STATES, 1);
    host_suspend(domid);
    while (stats_of(ctx).events_queued == 0)
        poll_once(ctx, -1);
    silent = enable_states(ctx, domid, STATES, 2);
    libxl_evdisable_domain_state(ctx, queued);
    libxl_evdisable_domain_state(ctx, silent);
    expect_event(ctx, SUSPENDED, domid, 1);
    host_resume(domid);
    expect_silence(ctx);
    host_destroy(domid);
    expect_silence(ctx);
    close_context(ctx);
}

static struct {
    libxl_ctx *ctx;
    libxl_evgen_domain_state *evgen;
    int created;
} called_back;

static void disable_from_inside(void *user, libxl_event *event)
{
    libxl_ctx *ctx = user;

    check_event(event, CREATED, 100 + (uint32_t)called_back.created, 1);
    called_back.created++;
    libxl_event_free(ctx, event);
    if (called_back.evgen)
        libxl_evdisable_domain_state(ctx, called_back.evgen);
    called_back.evgen = NULL;
}

/* Which of the types come to a callback is the mask's to say, for these as for all. */
STATE_TEST(a_callback_may_disable_the_generator_that_it_is_called_for)
{
    const libxl_event_hooks hooks = { .event_occurs_mask = BIT(CREATED), .event_occurs = disable_from_inside };
    libxl_ctx *ctx = open_context();

    host_create_many(100, 3);
    host_suspend(101);
    libxl_event_register_callbacks(ctx, &hooks, ctx);
    called_back.evgen = enable_states(ctx, LIBXL_DOMID_ANY, ALL, 1);
    expect_event(ctx, SUSPENDED, 101, 1);
    /* What one look has found has been told by then. */
    CHECK_EQUAL(called_back.created, 3);
    CHECK_EQUAL(stats_of(ctx).state_generators, 0);
    expect_silence(ctx);
    close_context(ctx);
}

/* ---- threads ---- */

static struct {
    libxl_ctx *ctx;
    bool ended;
} shared;

static void *come_and_go(void *unused)
{
    (void)unused;
    while (!__atomic_load_n(&shared.ended, __ATOMIC_ACQUIRE)) {
        libxl_evgen_domain_state *any = enable_states(shared.ctx, LIBXL_DOMID_ANY, BIT(RUNNING), 2);
        libxl_evgen_domain_state *one = enable_states(shared.ctx, NOBODY, BIT(RUNNING), 3);

        libxl_evdisable_domain_state(shared.ctx, any);
        libxl_evdisable_domain_state(shared.ctx, one);
        pause_a_little();
    }
    return NULL;
}

/* Watches are set and given up all the time, and a generator that stays hears of each domain once. */
STATE_TEST(generators_that_come_and_go_take_nothing_from_one_that_stays)
{
    enum { ROUNDS = 50 };
    libxl_ctx *ctx = open_context();
    pthread_t threads[2];
    size_t i;

    shared.ctx = ctx;
    enable_states(ctx, LIBXL_DOMID_ANY, ALL & ~BIT(RUNNING), 1);
    for (i = 0; i < COUNT(threads); i++)
        threads[i] = start_thread(come_and_go, NULL);
    for (i = 0; i < ROUNDS; i++) {
        uint32_t domid = host_create();

        expect_event(ctx, CREATED, domid, 1);
        host_suspend(domid);
        expect_event(ctx, SUSPENDED, domid, 1);
        host_destroy(domid);
        expect_event(ctx, DEAD, domid, 1);
    }
    __atomic_store_n(&shared.ended, true, __ATOMIC_RELEASE);
    for (i = 0; i < COUNT(threads); i++)
        finish_thread(threads[i]);
    expect_silence_of_all(ctx, 1);
    close_context(ctx);
}

static void *wait_for_created(void *arg)
{
    expect_event(shared.ctx, CREATED, *(uint32_t *)arg, 1);
    return NULL;
}

STATE_TEST(a_thread_that_waits_already_is_told_by_a_generator_that_is_enabled_then)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    pthread_t thread;

    shared.ctx = ctx;
    thread = start_thread(wait_for_created, &domid);
    /* Whether it waits by then or not. */
    enable_states(ctx, LIBXL_DOMID_ANY, ALL, 1);
    finish_thread(thread);
    close_context(ctx);
}
