/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libxl_evenable_domain_death and _evdisable_: which events a domain's life gives, for whom, and in which order.
 */
#include <signal.h>
#include <unistd.h>

#include "harness/check.h"
#include "harness/host.h"
#include "harness/quiet.h"
#include "harness/xl.h"

/* ---- one domain's life ---- */

DOMAIN_TEST(a_poweroff_is_a_shutdown_and_then_one_death_when_the_domain_is_dying)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();

    enable(ctx, domid, 7);
    expect_silence(ctx);
    host_shutdown(domid, POWEROFF);
    expect_shutdown(ctx, domid, 7, POWEROFF);
    expect_silence(ctx);
    host_kill(domid);
    expect_death(ctx, domid, 7);
    expect_silence(ctx);
    host_destroy(domid);
    expect_silence(ctx);
    close_context(ctx);
}

DOMAIN_TEST(a_domain_that_is_killed_while_it_runs_gives_a_death_only)
{
    libxl_ctx *ctx = open_context();
    uint32_t killed = host_create(), destroyed = host_create();

    enable(ctx, killed, 1);
    enable(ctx, destroyed, 2);
    expect_silence(ctx);
    host_kill(killed);
    expect_death(ctx, killed, 1);
    host_destroy(destroyed);
    expect_death(ctx, destroyed, 2);
    host_destroy(killed);
    expect_silence(ctx);
    close_context(ctx);
}

DOMAIN_TEST(a_shutdown_and_the_death_seen_in_one_look_are_a_death_only)
{
    libxl_ctx *ctx = open_context();
    uint32_t at_once = host_create(), one_by_one = host_create(), gone = host_create();

    enable(ctx, at_once, 1);
    enable(ctx, one_by_one, 2);
    enable(ctx, gone, 3);
    expect_silence(ctx);
    host_shutdown_and_kill(at_once, POWEROFF);
    host_shutdown(one_by_one, CRASH);
    host_kill(one_by_one);
    host_shutdown(gone, REBOOT);
    host_destroy(gone);
    expect_death(ctx, at_once, 1);
    expect_death(ctx, one_by_one, 2);
    expect_death(ctx, gone, 3);
    expect_silence(ctx);
    close_context(ctx);
}

/* Every value but that of suspend, most of which Xen gives no meaning to. */
DOMAIN_TEST(a_shutdown_reason_is_passed_on_as_it_is)
{
    enum { FIRST = 100 };
    libxl_ctx *ctx = open_context();
    int reason;

    host_create_many(FIRST, 256);
    for (reason = 0; reason < 256; reason++)
        enable(ctx, FIRST + (uint32_t)reason, (libxl_ev_user)reason);
    for (reason = 0; reason < 256; reason++)
        if (reason != SUSPEND)
            host_shutdown(FIRST + (uint32_t)reason, reason);
    for (reason = 0; reason < 256; reason++)
        if (reason != SUSPEND)
            expect_shutdown(ctx, FIRST + (uint32_t)reason, (libxl_ev_user)reason, reason);
    expect_silence(ctx);
    close_context(ctx);
}

DOMAIN_TEST(the_user_value_has_all_its_64_bits)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();

    enable(ctx, domid, 0);
    enable(ctx, domid, UINT64_MAX);
    enable(ctx, domid, UINT64_C(0x8000000080000001));
    host_destroy(domid);
    expect_death(ctx, domid, UINT64_C(0x8000000080000001));
    expect_death(ctx, domid, UINT64_MAX);
    expect_death(ctx, domid, 0);
    close_context(ctx);
}

DOMAIN_TEST(an_event_carries_the_uuid_of_its_domain)
{
    static const uint8_t zero[16], uuid[16] = "sixteen of them!";
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create_with_uuid(uuid);
    libxl_event *events[2];
    int i;

    enable(ctx, domid, 1);
    expect_silence(ctx);
    host_shutdown(domid, CRASH);
    events[0] = wait_event(ctx);
    check_shutdown(events[0], domid, 1, CRASH);
    host_destroy(domid);
    events[1] = wait_event(ctx);
    check_death(events[1], domid, 1);
    for (i = 0; i < 2; i++) {
        if (OURS("domuuid"))
            CHECK(memcmp(&events[i]->domuuid, uuid, sizeof uuid) == 0);
        else
            CHECK(memcmp(&events[i]->domuuid, zero, sizeof zero) == 0);
        libxl_event_free(ctx, events[i]);
    }
    /* Of a domain that was never there none can be known. */
    enable(ctx, NOBODY, 2);
    stir();
    events[0] = wait_event(ctx);
    check_death(events[0], NOBODY, 2);
    CHECK(memcmp(&events[0]->domuuid, zero, sizeof zero) == 0);
    libxl_event_free(ctx, events[0]);
    close_context(ctx);
}

/* Callers look at members of the union before they look at the type. */
DOMAIN_TEST(what_an_event_does_not_use_of_its_union_is_zero)
{
    static const libxl_event zero;
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    libxl_event *event;
    const unsigned char *bytes;
    size_t i;

    enable(ctx, domid, 1);
    expect_silence(ctx);
    host_shutdown(domid, 255);
    event = wait_event(ctx);
    check_shutdown(event, domid, 1, 255);
    bytes = (const unsigned char *)&event->u;
    for (i = sizeof event->u.domain_shutdown; i < sizeof event->u; i++)
        CHECK_EQUAL(bytes[i], 0);
    libxl_event_free(ctx, event);
    host_destroy(domid);
    event = wait_event(ctx);
    check_death(event, domid, 1);
    CHECK(memcmp(&event->u, &zero.u, sizeof zero.u) == 0);
    libxl_event_free(ctx, event);
    close_context(ctx);
}

/* ---- suspend ---- */

/* What a suspend gives: with libxenlight a SHUTDOWN. */
static void expect_suspend(libxl_ctx *ctx, uint32_t domid, libxl_ev_user user)
{
    if (!OURS("suspend-hidden"))
        expect_shutdown(ctx, domid, user, SUSPEND);
    expect_silence(ctx);
}

DOMAIN_TEST(a_poweroff_after_a_suspend_and_resume_is_reported)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();

    enable(ctx, domid, 1);
    expect_silence(ctx);
    host_suspend(domid);
    expect_suspend(ctx, domid, 1);
    host_resume(domid);
    expect_silence(ctx);
    host_shutdown(domid, POWEROFF);
    if (OURS("suspend-hidden"))
        expect_shutdown(ctx, domid, 1, POWEROFF);
    expect_silence(ctx);
    host_destroy(domid);
    expect_death(ctx, domid, 1);
    expect_silence(ctx);
    close_context(ctx);
}

DOMAIN_TEST(a_suspend_that_ends_in_a_destruction_gives_the_death)
{
    libxl_ctx *ctx = open_context();
    uint32_t saved = host_create(), resumed = host_create();

    enable(ctx, saved, 1);
    enable(ctx, resumed, 2);
    expect_silence(ctx);
    host_suspend(saved);
    expect_suspend(ctx, saved, 1);
    host_destroy(saved);
    expect_death(ctx, saved, 1);
    host_suspend(resumed);
    expect_suspend(ctx, resumed, 2);
    host_resume(resumed);
    host_destroy(resumed);
    expect_death(ctx, resumed, 2);
    expect_silence(ctx);
    close_context(ctx);
}

DOMAIN_TEST(a_domain_may_be_suspended_again_and_again)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    int round;

    enable(ctx, domid, 1);
    for (round = 0; round < 5; round++) {
        host_suspend(domid);
        if (round == 0 && !OURS("suspend-hidden"))
            expect_shutdown(ctx, domid, 1, SUSPEND);
        expect_silence(ctx);
        host_resume(domid);
        expect_silence(ctx);
    }
    host_shutdown(domid, REBOOT);
    if (OURS("suspend-hidden"))
        expect_shutdown(ctx, domid, 1, REBOOT);
    host_destroy(domid);
    expect_death(ctx, domid, 1);
    expect_silence(ctx);
    close_context(ctx);
}

/* Nobody has looked while the domain was suspended. */
DOMAIN_TEST(a_suspend_and_resume_between_two_looks_are_never_seen)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();

    enable(ctx, domid, 1);
    expect_silence(ctx);
    host_suspend(domid);
    host_resume(domid);
    expect_silence(ctx);
    host_shutdown(domid, POWEROFF);
    expect_shutdown(ctx, domid, 1, POWEROFF);
    expect_silence(ctx);
    close_context(ctx);
}

/* Not after a suspend: toolstacks don't do this, but a hypervisor lets them. */
DOMAIN_TEST(a_domain_that_runs_again_after_its_shutdown_may_shut_down_again)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();

    enable(ctx, domid, 1);
    host_shutdown(domid, CRASH);
    expect_shutdown(ctx, domid, 1, CRASH);
    host_resume(domid);
    expect_silence(ctx);
    host_shutdown(domid, REBOOT);
    if (OURS("runs-again"))
        expect_shutdown(ctx, domid, 1, REBOOT);
    expect_silence(ctx);
    host_destroy(domid);
    expect_death(ctx, domid, 1);
    expect_silence(ctx);
    close_context(ctx);
}

/* One after the other, seen while it runs or not, on a host where nothing else happens. */
DOMAIN_TEST(each_shutdown_between_soft_resets_is_reported)
{
    enum { SOFT_RESET = 5, ROUNDS = 6 };
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    int round;

    enable(ctx, domid, 1);
    for (round = 0; round < ROUNDS; round++) {
        host_shutdown(domid, SOFT_RESET);
        if (round == 0 || OURS("runs-again"))
            expect_shutdown(ctx, domid, 1, SOFT_RESET);
        host_soft_reset(domid);
        if (round % 2)
            expect_silence(ctx);
    }
    host_shutdown(domid, CRASH);
    if (OURS("runs-again"))
        expect_shutdown(ctx, domid, 1, CRASH);
    expect_silence(ctx);
    host_destroy(domid);
    expect_death(ctx, domid, 1);
    close_context(ctx);
}

/* For the same reason: nobody has seen it run. */
DOMAIN_TEST(a_second_shutdown_for_the_same_reason_is_reported_though_nobody_looked_in_between)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    int round;

    enable(ctx, domid, 1);
    for (round = 0; round < 4; round++) {
        host_shutdown(domid, CRASH);
        if (round == 0 || OURS("runs-again"))
            expect_shutdown(ctx, domid, 1, CRASH);
        else
            expect_silence(ctx);
        host_resume(domid);
    }
    host_destroy(domid);
    expect_death(ctx, domid, 1);
    expect_silence(ctx);
    close_context(ctx);
}

/* The second domain has never been seen running; its end is for the same reason, or for another. */
DOMAIN_TEST(the_shutdown_of_another_domain_of_that_number_is_reported_though_nobody_saw_it_run)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create_at(400);
    int reason;

    enable(ctx, domid, 1);
    host_shutdown(domid, POWEROFF);
    expect_shutdown(ctx, domid, 1, POWEROFF);
    for (reason = POWEROFF; reason <= REBOOT; reason++) {
        host_destroy(domid);
        host_create_at(domid);
        host_shutdown(domid, reason);
        if (OURS("runs-again"))
            expect_shutdown(ctx, domid, 1, reason);
        expect_silence(ctx);
    }
    host_destroy(domid);
    expect_death(ctx, domid, 1);
    expect_silence(ctx);
    close_context(ctx);
}

/* A toolstack that preserves a crashed domain gives its UUID to the one that it starts in its place. */
DOMAIN_TEST(a_domain_that_is_given_another_uuid_has_neither_shut_down_again_nor_died)
{
    static const uint8_t second[16] = "another of them!";
    libxl_ctx *ctx = open_context();
    uint32_t running = host_create(), crashed = host_create(), dying = host_create(), other = host_create();

    enable(ctx, running, 1);
    enable(ctx, crashed, 2);
    enable(ctx, dying, 3);
    host_shutdown(crashed, CRASH);
    expect_shutdown(ctx, crashed, 2, CRASH);
    host_kill(dying);
    expect_death(ctx, dying, 3);
    host_set_uuid(running, second);
    host_set_uuid(crashed, second);
    host_set_uuid(dying, second);
    expect_silence(ctx);
    host_destroy(other);
    expect_silence(ctx);
    host_shutdown(running, REBOOT);
    expect_shutdown(ctx, running, 1, REBOOT);
    host_destroy(crashed);
    expect_death(ctx, crashed, 2);
    host_destroy(running);
    expect_death(ctx, running, 1);
    expect_silence(ctx);
    close_context(ctx);
}

/*
 * What xl does from Xen 4.20 on: after a suspend it enables a second generator, disables the first, and waits on. A
 * generator that reported the suspend at once would make it spin.
 */
DOMAIN_TEST(a_second_generator_for_a_suspended_domain_hears_of_its_end_only)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    libxl_evgen_domain_death *first, *next;
    int round;

    first = enable(ctx, domid, 1);
    host_suspend(domid);
    expect_suspend(ctx, domid, 1);
    for (round = 2; round < 5; round++) {
        next = enable(ctx, domid, (libxl_ev_user)round);
        libxl_evdisable_domain_death(ctx, first);
        first = next;
        if (!OURS("suspend-hidden")) {
            stir();
            expect_shutdown(ctx, domid, (libxl_ev_user)round, SUSPEND);
        }
        expect_silence(ctx);
    }
    host_resume(domid);
    next = enable(ctx, domid, 9);
    libxl_evdisable_domain_death(ctx, first);
    host_shutdown(domid, POWEROFF);
    expect_shutdown(ctx, domid, 9, POWEROFF);
    host_destroy(domid);
    expect_death(ctx, domid, 9);
    libxl_evdisable_domain_death(ctx, next);
    expect_silence(ctx);
    close_context(ctx);
}

DOMAIN_TEST(XLEVENT_REPORT_SUSPEND_brings_the_old_reports_back)
{
    libxl_ctx *ctx;
    uint32_t domid = host_create();

    CHECK(setenv("XLEVENT_REPORT_SUSPEND", "1", 1) == 0);
    ctx = open_context();
    enable(ctx, domid, 1);
    expect_silence(ctx);
    host_suspend(domid);
    expect_shutdown(ctx, domid, 1, SUSPEND);
    expect_silence(ctx);
    host_resume(domid);
    host_shutdown(domid, POWEROFF);
    expect_silence(ctx);
    host_destroy(domid);
    expect_death(ctx, domid, 1);
    expect_silence(ctx);
    close_context(ctx);
}

/* ---- the state at the time of the enable ---- */

DOMAIN_TEST(the_first_enable_reports_what_has_happened_before)
{
    libxl_ctx *ctx = open_context();
    uint32_t down = host_create(), dying = host_create();

    host_shutdown(down, WATCHDOG);
    host_kill(dying);
    enable(ctx, down, 1);
    expect_shutdown(ctx, down, 1, WATCHDOG);
    close_context(ctx);
    ctx = open_context();
    enable(ctx, dying, 2);
    expect_death(ctx, dying, 2);
    close_context(ctx);
    ctx = open_context();
    enable(ctx, NOBODY, 3);
    expect_death(ctx, NOBODY, 3);
    expect_silence(ctx);
    close_context(ctx);
}

DOMAIN_TEST(a_later_enable_reports_what_has_happened_before_too)
{
    libxl_ctx *ctx = open_context();
    uint32_t down = host_create();

    enable(ctx, 0, 1);
    expect_silence(ctx);
    host_shutdown(down, CRASH);
    expect_silence(ctx);
    come_to_rest(ctx);
    enable(ctx, down, 2);
    enable(ctx, NOBODY, 3);
    if (!OURS("enable-looks")) {
        /* Nothing comes of it: its loop has nothing to do. */
        come_to_rest(ctx);
        expect_nothing_queued(ctx);
        stir();
    }
    expect_shutdown(ctx, down, 2, CRASH);
    expect_death(ctx, NOBODY, 3);
    expect_silence(ctx);
    close_context(ctx);
}

/* Where domains can't be commanded: the same with domains that are none. */
TEST(a_missing_domain_is_dead)
{
    libxl_ctx *ctx = open_context();

    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    enable(ctx, NOBODY, 2);
    stir();
    expect_death(ctx, NOBODY, 2);
    enable(ctx, NOBODY + 1, 3);
    stir();
    expect_death(ctx, NOBODY + 1, 3);
    expect_nothing_queued(ctx);
    close_context(ctx);
}

TEST(the_control_domain_lives)
{
    libxl_ctx *ctx = open_context();

    enable(ctx, 0, 1);
    enable(ctx, NOBODY, 2);
    expect_death(ctx, NOBODY, 2);
    expect_nothing_queued(ctx);
    close_context(ctx);
}

/* ---- who gets what, and in which order ---- */

DOMAIN_TEST(each_of_several_generators_of_a_domain_gets_its_events_the_last_enabled_first)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    int user;

    for (user = 1; user <= 3; user++)
        enable(ctx, domid, (libxl_ev_user)user);
    expect_silence(ctx);
    host_shutdown(domid, POWEROFF);
    for (user = 3; user >= 1; user--)
        expect_shutdown(ctx, domid, (libxl_ev_user)user, POWEROFF);
    host_destroy(domid);
    for (user = 3; user >= 1; user--)
        expect_death(ctx, domid, (libxl_ev_user)user);
    expect_silence(ctx);
    close_context(ctx);
}

TEST(each_of_several_generators_of_a_missing_domain_gets_its_death_the_last_enabled_first)
{
    libxl_ctx *ctx = open_context();
    int user;

    for (user = 1; user <= 3; user++)
        enable(ctx, NOBODY, (libxl_ev_user)user);
    for (user = 3; user >= 1; user--)
        expect_death(ctx, NOBODY, (libxl_ev_user)user);
    expect_nothing_queued(ctx);
    close_context(ctx);
}

DOMAIN_TEST(the_same_user_value_twice_gets_every_event_twice)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();

    enable(ctx, domid, 1);
    enable(ctx, domid, 1);
    host_destroy(domid);
    expect_death(ctx, domid, 1);
    expect_death(ctx, domid, 1);
    expect_silence(ctx);
    close_context(ctx);
}

DOMAIN_TEST(what_one_look_finds_comes_by_ascending_domid)
{
    enum { FIRST = 200, DOMAINS = 40 };
    libxl_ctx *ctx = open_context();
    uint32_t i;

    host_create_many(FIRST, DOMAINS);
    /* Enabled, and ended, in other orders. */
    for (i = 0; i < DOMAINS; i++)
        enable(ctx, FIRST + i * 7 % DOMAINS, i * 7 % DOMAINS);
    expect_silence(ctx);
    for (i = DOMAINS; i-- > 0;) {
        if (i % 3 == 0)
            host_shutdown(FIRST + i, (int)i);
        else if (i % 3 == 1)
            host_kill(FIRST + i);
        else
            host_destroy(FIRST + i);
    }
    for (i = 0; i < DOMAINS; i++) {
        if (i % 3 == 0)
            expect_shutdown(ctx, FIRST + i, i, (int)i);
        else
            expect_death(ctx, FIRST + i, i);
    }
    expect_silence(ctx);
    close_context(ctx);
}

static void wait_for_user(libxl_ctx *ctx, libxl_ev_user user)
{
    libxl_event *event = NULL;

    CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, is_for_user, &user), 0);
    libxl_event_free(ctx, event);
}

DOMAIN_TEST(what_several_looks_find_comes_in_the_order_of_the_looks)
{
    enum { LOOKED = 99 };
    libxl_ctx *ctx = open_context();
    uint32_t low = host_create_at(50), middle = host_create_at(60), high = host_create_at(70), looked;

    enable(ctx, low, 1);
    enable(ctx, middle, 2);
    enable(ctx, high, 3);
    /* Each of these deaths is the first thing that its look finds last. */
    looked = host_create_at(80);
    enable(ctx, looked, LOOKED);
    host_shutdown(high, REBOOT);
    host_destroy(looked);
    wait_for_user(ctx, LOOKED);

    host_create_at(81);
    enable(ctx, 81, LOOKED);
    host_destroy(low);
    host_destroy(81);
    wait_for_user(ctx, LOOKED);

    host_destroy(high);
    host_shutdown(middle, POWEROFF);
    expect_shutdown(ctx, high, 3, REBOOT);
    expect_death(ctx, low, 1);
    expect_shutdown(ctx, middle, 2, POWEROFF);
    expect_death(ctx, high, 3);
    expect_silence(ctx);
    close_context(ctx);
}

/* ---- disabling ---- */

DOMAIN_TEST(a_generator_that_is_disabled_before_the_event_gives_none)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    libxl_evgen_domain_death *first, *second;

    first = enable(ctx, domid, 1);
    second = enable(ctx, domid, 2);
    expect_silence(ctx);
    libxl_evdisable_domain_death(ctx, first);
    host_shutdown(domid, POWEROFF);
    expect_shutdown(ctx, domid, 2, POWEROFF);
    libxl_evdisable_domain_death(ctx, second);
    host_destroy(domid);
    expect_silence(ctx);
    close_context(ctx);
}

DOMAIN_TEST(an_end_that_nobody_has_looked_at_before_the_disable_gives_no_event)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    libxl_evgen_domain_death *evgen = enable(ctx, domid, 1);

    expect_silence(ctx);
    host_destroy(domid);
    host_settle();
    libxl_evdisable_domain_death(ctx, evgen);
    expect_silence(ctx);
    close_context(ctx);
}

DOMAIN_TEST(an_event_that_is_queued_survives_the_disable)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create(), later = host_create();
    libxl_evgen_domain_death *evgen = enable(ctx, domid, 1);

    enable(ctx, later, 2);
    host_shutdown(domid, CRASH);
    host_destroy(later);
    wait_for_user(ctx, 2);
    libxl_evdisable_domain_death(ctx, evgen);
    expect_shutdown(ctx, domid, 1, CRASH);
    host_destroy(domid);
    expect_silence(ctx);
    close_context(ctx);
}

DOMAIN_TEST(a_generator_may_be_disabled_after_the_death_and_the_domain_be_watched_again)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create_at(300);
    libxl_evgen_domain_death *evgen;
    int round;

    for (round = 1; round <= 3; round++) {
        evgen = enable(ctx, domid, (libxl_ev_user)round);
        host_destroy(domid);
        expect_death(ctx, domid, (libxl_ev_user)round);
        host_create_at(domid);
        expect_silence(ctx);
        libxl_evdisable_domain_death(ctx, evgen);
    }
    close_context(ctx);
}

/* Nobody is told of the deaths of others: a program that watches nothing any more must not be woken. */
DOMAIN_TEST(after_the_last_disable_nothing_is_watched)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    libxl_evgen_domain_death *first = enable(ctx, domid, 1), *second = enable(ctx, 0, 2);
    uint64_t asked;

    expect_silence(ctx);
    libxl_evdisable_domain_death(ctx, first);
    libxl_evdisable_domain_death(ctx, second);
    come_to_rest(ctx);
    asked = host_lists_asked();
    host_destroy(domid);
    receive_all();
    CHECK(!poll_once(ctx, 0));
    CHECK_EQUAL(host_lists_asked(), asked);
    /* And it can begin again. */
    enable(ctx, domid, 3);
    expect_death(ctx, domid, 3);
    close_context(ctx);
}

TEST_OF_OURS(a_handle_that_is_none_is_logged_and_ignored)
{
    libxl_ctx *ctx = open_context(), *other = open_context();
    libxl_evgen_domain_death *evgen = enable(ctx, NOBODY, 1), *second;

    expect_death(ctx, NOBODY, 1);
    libxl_evdisable_domain_death(other, evgen);
    CHECK_EQUAL(logged_errors, 1);
    libxl_evdisable_domain_death(ctx, UNTOUCHED);
    CHECK_EQUAL(logged_errors, 2);
    libxl_evdisable_domain_death(ctx, evgen);
    CHECK_EQUAL(logged_errors, 2);
    second = enable(ctx, NOBODY, 2);
    CHECK(second != evgen);
    libxl_evdisable_domain_death(ctx, evgen);
    CHECK_EQUAL(logged_errors, 3);
    expect_death(ctx, NOBODY, 2);
    close_context(ctx);
    close_context(other);
}

static void enable_without_a_place(void *unused)
{
    (void)unused;
    libxl_evenable_domain_death(open_context(), NOBODY, 0, NULL);
}

static void enable_eject_without_a_place(void *unused)
{
    (void)unused;
    libxl_evenable_disk_eject(open_context(), NOBODY, "hdc", 0, NULL);
}

TEST(a_NULL_place_for_the_handle_is_refused)
{
    libxl_ctx *ctx = open_context();
    libxl_evgen_disk_eject *eject = UNTOUCHED;

    if (OURS("bad-input")) {
        CHECK_EQUAL(libxl_evenable_domain_death(ctx, NOBODY, 0, NULL), ERROR_INVAL);
        CHECK_EQUAL(libxl_evenable_disk_eject(ctx, NOBODY, "hdc", 0, NULL), ERROR_INVAL);
        CHECK_EQUAL(libxl_evenable_disk_eject(ctx, NOBODY, NULL, 0, &eject), ERROR_INVAL);
        CHECK(eject == UNTOUCHED);
        CHECK_EQUAL(logged_errors, 3);
    } else {
        CHECK_DIES(SIGSEGV, enable_without_a_place, NULL);
        CHECK_DIES(SIGSEGV, enable_eject_without_a_place, NULL);
    }
    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    close_context(ctx);
}

static void disable_nothing(void *ctx)
{
    libxl_evdisable_domain_death(ctx, NULL);
}

static void disable_no_eject(void *ctx)
{
    libxl_evdisable_disk_eject(ctx, NULL);
}

TEST(disabling_NULL_does_nothing)
{
    libxl_ctx *ctx = open_context();

    if (OURS("evdisable-null"))
        CHECK_EQUAL(in_child(disable_nothing, ctx), 0);
    else
        CHECK_DIES(SIGSEGV, disable_nothing, ctx);
    if (OURS("evdisable-null"))
        CHECK_EQUAL(in_child(disable_no_eject, ctx), 0);
    else
        CHECK_DIES(SIGSEGV, disable_no_eject, ctx);
    CHECK_EQUAL(logged_errors, 0);
    close_context(ctx);
}

/* ---- domids ---- */

DOMAIN_TEST(a_generator_follows_a_domid_that_was_used_again_before_anyone_looked)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create_at(400);
    int i;

    for (i = 0; i < 20; i++) {
        libxl_evgen_domain_death *evgen = enable(ctx, domid, 1);

        expect_silence(ctx);
        host_shutdown(domid, POWEROFF);
        host_destroy(domid);
        host_create_at(domid);
        expect_silence(ctx);
        host_shutdown(domid, CRASH);
        expect_shutdown(ctx, domid, 1, CRASH);
        host_destroy(domid);
        expect_death(ctx, domid, 1);
        expect_silence(ctx);
        libxl_evdisable_domain_death(ctx, evgen);
        host_create_at(domid);
    }
    close_context(ctx);
}

DOMAIN_TEST(a_domid_that_is_used_again_after_the_death_means_nothing_to_the_old_generator)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create_at(400);

    enable(ctx, domid, 1);
    host_destroy(domid);
    expect_death(ctx, domid, 1);
    host_create_at(domid);
    host_shutdown(domid, POWEROFF);
    expect_silence(ctx);
    host_destroy(domid);
    expect_silence(ctx);
    close_context(ctx);
}

DOMAIN_TEST(the_highest_domid_of_all_is_a_domain_like_any_other)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create_at(32751);
    libxl_event *event;

    enable(ctx, domid, 1);
    enable(ctx, 0, 2);
    expect_silence(ctx);
    host_shutdown(domid, REBOOT);
    event = wait_event(ctx);
    check_shutdown(event, domid, 1, REBOOT);
    libxl_event_free(ctx, event);
    host_destroy(domid);
    expect_death(ctx, domid, 1);
    expect_silence(ctx);
    close_context(ctx);
}

TEST(domids_that_are_for_no_domain_are_dead)
{
    static const uint32_t reserved[] = { 32752, 0x7ff4, 40000, 65535 };
    libxl_ctx *ctx = open_context();
    size_t i;

    for (i = 0; i < COUNT(reserved); i++) {
        enable(ctx, reserved[i], i);
        stir();
        expect_death(ctx, reserved[i], i);
    }
    expect_nothing_queued(ctx);
    close_context(ctx);
}

static const uint32_t impossible[] = { 65536, 65536 + 1, UINT32_C(1) << 31, UINT32_C(0xffffffff) };

static void wait_for_the_impossible(void *domid)
{
    libxl_ctx *ctx = open_context();

    enable(ctx, *(uint32_t *)domid, 1);
    expect_death(ctx, *(uint32_t *)domid, 1);
    close_context(ctx);
}

/* Asks for ever, as long as there is a domain that is no less than the lower bits. */
static void check_asks_for_ever(uint32_t domid)
{
    uint64_t asked = host_lists_asked();
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid == 0) {
        wait_for_the_impossible(&domid);
        _exit(0);
    }
    WAIT_UNTIL(host_lists_asked() > asked + 10000);
    CHECK(kill(pid, SIGKILL) == 0);
}

/* Xen's calls take 16 bits: such a number must not be taken for the domain that the lower ones name. */
TEST(domids_that_no_domain_can_have_are_dead)
{
    size_t i;

    if (host_is_simulated())
        host_create_at(1000);
    for (i = 0; i < COUNT(impossible); i++) {
        uint32_t domid = impossible[i];

        /* The lower bits of the last one are no domain's. */
        if (OURS("domid-range") || domid == UINT32_C(0xffffffff))
            wait_for_the_impossible(&domid);
        else
            check_asks_for_ever(domid);
    }
}

/* ---- several contexts ---- */

DOMAIN_TEST(each_context_gets_its_own_events)
{
    libxl_ctx *first = open_context(), *second = open_context();
    uint32_t both = host_create(), mine = host_create();

    enable(first, both, 1);
    enable(second, both, 2);
    enable(second, mine, 3);
    expect_silence(first);
    expect_silence(second);
    host_shutdown(both, POWEROFF);
    host_destroy(mine);
    expect_shutdown(second, both, 2, POWEROFF);
    expect_death(second, mine, 3);
    expect_silence(second);
    expect_shutdown(first, both, 1, POWEROFF);
    expect_silence(first);
    host_destroy(both);
    expect_death(first, both, 1);
    close_context(first);
    expect_death(second, both, 2);
    expect_silence(second);
    close_context(second);
}

DOMAIN_TEST(a_context_with_generators_and_queued_events_may_be_freed)
{
    libxl_ctx *first = open_context(), *second = open_context();
    uint32_t domid = host_create(), later = host_create();

    enable(first, domid, 1);
    enable(first, later, 2);
    enable(first, 0, 3);
    enable(second, domid, 4);
    host_destroy(domid);
    host_destroy(later);
    /* The first death stays queued. */
    wait_for_user(first, 2);
    close_context(first);
    expect_death(second, domid, 4);
    expect_silence(second);
    /* One with an event that nobody has looked for yet. */
    first = open_context();
    enable(first, domid, 5);
    close_context(first);
    close_context(second);
}
