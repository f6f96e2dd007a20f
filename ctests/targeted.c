/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A xenstored that can watch single domains, as Xen 4.22's, played by stand_in/newer_xenstore.c: who watches few domains is
 * woken by no others, and nothing of what libxl_event.h promises changes. libxenlight knows nothing of this.
 */
#include <pthread.h>
#include <unistd.h>

#include "harness/check.h"
#include "harness/host.h"
#include "harness/ours.h"
#include "harness/xl.h"
#include "stand_in/newer_xenstore.h"

#define TARGETED_TEST(name) TEST_WITH(name, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)

/* src/evgen/targets.rs: up to MANY domains have a watch each, and down to FEW again. */
enum { FIRST = 1000, MANY = 16, FEW = 8 };

/* ---- who is woken ---- */

static libxl_ctx *waited_for;
static libxl_event *waited_event;

static void *wait_for_event(void *unused)
{
    (void)unused;
    waited_event = wait_event(waited_for);
    return NULL;
}

/* How many looks it costs a thread in event_wait that many others end before its own domain; each of them one by one. */
static uint64_t looks_while_others_end(libxl_ctx *ctx, bool each_must_wake)
{
    enum { OTHERS = 30 };
    uint32_t domid = host_create_at(FIRST), i;
    pthread_t thread;
    uint64_t asked;

    host_create_many(FIRST + 1, OTHERS);
    enable(ctx, domid, 1);
    expect_silence(ctx);
    asked = host_lists_asked();
    waited_for = ctx;
    thread = start_thread(wait_for_event, NULL);
    for (i = 0; i < OTHERS; i++) {
        uint64_t before = host_lists_asked();

        host_destroy(FIRST + 1 + i);
        host_settle();
        if (each_must_wake)
            WAIT_UNTIL(host_lists_asked() > before);
        else
            usleep(2000); /* Who is woken by mistake gets the time to be counted. */
    }
    host_shutdown(domid, CRASH);
    finish_thread(thread);
    check_shutdown(waited_event, domid, 1, CRASH);
    libxl_event_free(ctx, waited_event);
    return host_lists_asked() - asked;
}

DOMAIN_TEST(the_ends_of_other_domains_wake_nobody)
{
    libxl_ctx *ctx = open_context();

    if (OURS("single-domains")) {
        CHECK_EQUAL(looks_while_others_end(ctx, false), 1);
        CHECK_EQUAL(domain_watches(), 1);
        CHECK_EQUAL(release_watches(), 0);
    } else {
        CHECK_AT_LEAST(looks_while_others_end(ctx, true), 30);
    }
    close_context(ctx);
}

/* Which also shows that the test before this would notice. */
TARGETED_TEST(an_older_daemon_wakes_for_every_domain_and_is_asked_for_nothing_else)
{
    libxl_ctx *ctx;

    xenstored_is_newer(false);
    ctx = open_context();
    CHECK_AT_LEAST(looks_while_others_end(ctx, true), 30);
    CHECK_EQUAL(domain_watches(), 0);
    close_context(ctx);
}

TARGETED_TEST(among_few_watched_domains_one_that_fires_without_news_is_looked_at_alone)
{
    enum { DOMAINS = MANY - 2 }; /* expect_silence adds two. */
    libxl_ctx *ctx = open_context();
    uint64_t asked;
    uint32_t i;

    host_create_many(FIRST, DOMAINS);
    for (i = 0; i < DOMAINS; i++)
        enable(ctx, FIRST + i, i);
    expect_silence(ctx);
    asked = host_lists_asked();
    host_suspend(FIRST + 3);
    WAIT_UNTIL((poll_once(ctx, 10), host_lists_asked() > asked));
    CHECK_EQUAL(host_lists_asked() - asked, 1);
    expect_silence(ctx);
    close_context(ctx);
}

/* ---- the rules of events ---- */

TARGETED_TEST(a_domain_shuts_down_and_dies_once_each)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();

    enable(ctx, domid, 1);
    expect_silence(ctx);
    host_shutdown(domid, REBOOT);
    expect_shutdown(ctx, domid, 1, REBOOT);
    expect_silence(ctx);
    host_kill(domid);
    expect_death(ctx, domid, 1);
    host_destroy(domid);
    expect_silence(ctx);
    close_context(ctx);
}

TARGETED_TEST(a_suspend_is_not_told_and_the_shutdown_after_it_is)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    int round;

    enable(ctx, domid, 1);
    for (round = 0; round < 3; round++) {
        host_suspend(domid);
        expect_silence(ctx);
        host_resume(domid);
        expect_silence(ctx);
    }
    host_shutdown(domid, POWEROFF);
    expect_shutdown(ctx, domid, 1, POWEROFF);
    expect_silence(ctx);
    close_context(ctx);
}

TARGETED_TEST(generators_of_one_domain_share_a_watch_until_the_last_goes)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    libxl_evgen_domain_death *evgens[3];
    int i;

    for (i = 0; i < 3; i++)
        evgens[i] = enable(ctx, domid, i);
    CHECK_EQUAL(domain_watches(), 1);
    host_shutdown(domid, CRASH);
    for (i = 2; i >= 0; i--)
        expect_shutdown(ctx, domid, i, CRASH);
    libxl_evdisable_domain_death(ctx, evgens[0]);
    libxl_evdisable_domain_death(ctx, evgens[2]);
    CHECK_EQUAL(domain_watches(), 1);
    host_destroy(domid);
    expect_death(ctx, domid, 1);
    libxl_evdisable_domain_death(ctx, evgens[1]);
    CHECK_EQUAL(domain_watches(), 0);
    CHECK_EQUAL(release_watches(), 0);
    close_context(ctx);
}

TARGETED_TEST(the_watch_of_one_domain_goes_with_its_generator_and_the_others_stay)
{
    libxl_ctx *ctx = open_context();
    uint32_t one = host_create(), other = host_create();
    libxl_evgen_domain_death *evgen = enable(ctx, one, 1);

    enable(ctx, other, 2);
    CHECK_EQUAL(domain_watches(), 2);
    libxl_evdisable_domain_death(ctx, evgen);
    CHECK_EQUAL(domain_watches(), 1);
    host_destroy(one);
    host_destroy(other);
    expect_death(ctx, other, 2);
    expect_silence(ctx);
    close_context(ctx);
}

TARGETED_TEST(what_is_dead_is_told_at_once_and_what_no_domain_can_be_needs_no_watch)
{
    static const uint32_t nobodies[] = { NOBODY, 32752, 40000, 65536, 0xffffffff };
    libxl_ctx *ctx = open_context();
    libxl_evgen_domain_death *evgen;
    uint32_t down = host_create();
    size_t i;

    for (i = 0; i < COUNT(nobodies); i++) {
        evgen = enable(ctx, nobodies[i], i);
        CHECK_EQUAL(domain_watches(), nobodies[i] == NOBODY);
        expect_death(ctx, nobodies[i], i);
        libxl_evdisable_domain_death(ctx, evgen);
        CHECK_EQUAL(domain_watches() + release_watches(), 0);
    }
    enable(ctx, host_create(), 1);
    for (i = 0; i < COUNT(nobodies); i++) {
        enable(ctx, nobodies[i], i);
        expect_death(ctx, nobodies[i], i);
    }
    CHECK_EQUAL(domain_watches(), 2);
    host_shutdown(down, WATCHDOG);
    enable(ctx, down, 2);
    expect_shutdown(ctx, down, 2, WATCHDOG);
    expect_silence(ctx);
    close_context(ctx);
}

TARGETED_TEST(a_domid_that_is_used_again_is_followed_by_the_new_generator)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = FIRST;
    int round;

    for (round = 0; round < 5; round++) {
        host_create_at(domid);
        enable(ctx, domid, round);
        if (round % 2)
            expect_silence(ctx);
        host_destroy(domid);
        expect_death(ctx, domid, round);
    }
    CHECK_EQUAL(domain_watches(), 1);
    expect_silence(ctx);
    close_context(ctx);
}

TARGETED_TEST(few_domains_that_end_at_once_are_told_ascending)
{
    libxl_ctx *ctx = open_context();
    uint32_t i;

    host_create_many(FIRST, MANY - 2);
    for (i = MANY - 2; i-- > 0;)
        enable(ctx, FIRST + i, i);
    expect_silence(ctx);
    host_shutdown_many(FIRST, MANY - 2, POWEROFF);
    for (i = 0; i < MANY - 2; i++)
        expect_shutdown(ctx, FIRST + i, i, POWEROFF);
    host_destroy_many(FIRST, MANY - 2);
    for (i = 0; i < MANY - 2; i++)
        expect_death(ctx, FIRST + i, i);
    expect_silence(ctx);
    close_context(ctx);
}

TARGETED_TEST(drives_alone_need_no_watch_for_domains)
{
    libxl_ctx *ctx = open_context();
    libxl_evgen_disk_eject *evgen = NULL;
    uint32_t domid = host_create();

    CHECK_EQUAL(libxl_evenable_disk_eject(ctx, domid, "xvda", 1, &evgen), 0);
    CHECK_EQUAL(domain_watches() + release_watches(), 0);
    enable(ctx, domid, 2);
    host_destroy(domid);
    expect_death(ctx, domid, 2);
    libxl_evdisable_disk_eject(ctx, evgen);
    CHECK_EQUAL(domain_watches(), 1);
    close_context(ctx);
}

/* ---- between few and many ---- */

TARGETED_TEST(many_domains_have_one_watch_and_few_have_one_each_again)
{
    libxl_evgen_domain_death *evgens[MANY + 1];
    libxl_ctx *ctx = open_context();
    uint32_t i;

    host_create_many(FIRST, MANY + 1);
    for (i = 0; i < MANY; i++) {
        evgens[i] = enable(ctx, FIRST + i, i);
        CHECK_EQUAL(domain_watches(), i + 1);
        CHECK_EQUAL(release_watches(), 0);
    }
    evgens[MANY] = enable(ctx, FIRST + MANY, MANY);
    CHECK_EQUAL(domain_watches(), 0);
    CHECK_EQUAL(release_watches(), 1);
    /* One that comes and goes moves nothing. */
    for (i = 0; i < 3; i++) {
        libxl_evdisable_domain_death(ctx, evgens[MANY]);
        CHECK_EQUAL(domain_watches(), 0);
        evgens[MANY] = enable(ctx, FIRST + MANY, MANY);
        CHECK_EQUAL(release_watches(), 1);
    }
    for (i = MANY; i > FEW; i--) {
        CHECK_EQUAL(domain_watches(), 0);
        libxl_evdisable_domain_death(ctx, evgens[i]);
    }
    CHECK_EQUAL(domain_watches(), 0);
    libxl_evdisable_domain_death(ctx, evgens[FEW]);
    CHECK_EQUAL(domain_watches(), FEW);
    CHECK_EQUAL(release_watches(), 0);
    host_destroy_many(FIRST, MANY + 1);
    for (i = 0; i < FEW; i++)
        expect_death(ctx, FIRST + i, i);
    expect_silence(ctx);
    close_context(ctx);
}

/* The next event that comes is this one. It is freed. */
static void expect_created(libxl_ctx *ctx, uint32_t domid, libxl_ev_user user)
{
    libxl_event *event = wait_event(ctx);

    CHECK_EQUAL(event->type, LIBXL_EVENT_TYPE_DOMAIN_CREATED);
    CHECK_EQUAL(event->domid, domid);
    CHECK_EQUAL(event->for_user, user);
    libxl_event_free(ctx, event);
}

TARGETED_TEST(a_generator_of_all_domains_has_one_watch_on_them_for_as_long_as_it_is_there)
{
    const uint64_t created = (uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_CREATED;
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create_at(FIRST), next = FIRST + 1;
    libxl_evgen_domain_state *evgen;
    int round;

    enable(ctx, domid, 1);
    for (round = 0; round < 3; round++) {
        CHECK_EQUAL(domain_watches(), 1);
        CHECK_EQUAL(release_watches(), 0);
        CHECK_EQUAL(libxl_evenable_domain_state(ctx, LIBXL_DOMID_ANY, created | DEATH_BIT, 2, &evgen), 0);
        CHECK_EQUAL(domain_watches(), 0);
        CHECK_EQUAL(release_watches(), 1);
        expect_created(ctx, domid, 2);
        host_create_at(next);
        expect_created(ctx, next, 2);
        host_destroy(next);
        expect_death(ctx, next, 2);
        libxl_evdisable_domain_state(ctx, evgen);
    }
    CHECK_EQUAL(domain_watches(), 1);
    host_destroy(domid);
    expect_death(ctx, domid, 1);
    expect_silence(ctx);
    close_context(ctx);
}

/* Ends domains one after another, while others come and go. */
static void *end_them(void *count)
{
    uint32_t i;

    for (i = 0; i < *(uint32_t *)count; i++) {
        if (i % 2)
            host_shutdown(FIRST + i, CRASH);
        else
            host_destroy(FIRST + i);
    }
    return NULL;
}

/*
 * Generators of domains that live carry the number up and down across both limits, again and again, while others' domains
 * end: each of these is told of once.
 */
TARGETED_TEST(nothing_is_lost_or_told_twice_while_it_moves_between_few_and_many)
{
    enum { ROUNDS = 6, LIVING = 2 * MANY };
    static libxl_evgen_domain_death *ending[FEW], *living[LIVING];
    libxl_ctx *ctx = open_context();
    uint32_t round, i, count = FEW - 2;

    host_create_many(FIRST + 100, LIVING);
    for (round = 0; round < ROUNDS; round++) {
        uint32_t told = 0, swing;
        bool seen[FEW] = { false };
        pthread_t thread;

        host_create_many(FIRST, count);
        for (i = 0; i < count; i++)
            ending[i] = enable(ctx, FIRST + i, i);
        if (round % 2)
            expect_silence(ctx);
        thread = start_thread(end_them, &count);
        for (swing = 0; swing < 3 || told < count; swing++) {
            libxl_event *event;

            for (i = 0; i < LIVING; i++)
                living[i] = enable(ctx, FIRST + 100 + i, 1000);
            CHECK_EQUAL(release_watches(), 1);
            poll_once(ctx, 0);
            for (i = 0; i < LIVING; i++)
                libxl_evdisable_domain_death(ctx, living[i]);
            CHECK_EQUAL(release_watches(), 0);
            poll_once(ctx, 0);
            while (libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == 0) {
                CHECK_AT_MOST(event->for_user, count - 1);
                CHECK(!seen[event->for_user]);
                seen[event->for_user] = true;
                if (event->for_user % 2)
                    check_shutdown(event, FIRST + (uint32_t)event->for_user, event->for_user, CRASH);
                else
                    check_death(event, FIRST + (uint32_t)event->for_user, event->for_user);
                libxl_event_free(ctx, event);
                told++;
            }
        }
        finish_thread(thread);
        expect_silence(ctx);
        for (i = 0; i < count; i++) {
            libxl_evdisable_domain_death(ctx, ending[i]);
            if (i % 2)
                host_destroy(FIRST + i);
        }
        expect_silence(ctx);
    }
    close_context(ctx);
}

static void *come_and_go(void *of)
{
    enum { TIMES = 40, AT_ONCE = 7 };
    uint32_t first = *(uint32_t *)of, i, time;
    libxl_evgen_domain_death *evgens[AT_ONCE];

    for (time = 0; time < TIMES; time++) {
        for (i = 0; i < AT_ONCE; i++)
            evgens[i] = enable(waited_for, first + i, 1000);
        for (i = 0; i < AT_ONCE; i++)
            libxl_evdisable_domain_death(waited_for, evgens[i]);
    }
    return NULL;
}

/* With another in event_wait. */
TARGETED_TEST(threads_may_move_it_together)
{
    enum { THREADS = 4 };
    uint32_t firsts[THREADS], last = FIRST + 500, i;
    pthread_t threads[THREADS], waiter;

    waited_for = open_context();
    host_create_many(FIRST, 10 * THREADS);
    host_create_at(last);
    enable(waited_for, last, 1);
    waiter = start_thread(wait_for_event, NULL);
    for (i = 0; i < THREADS; i++) {
        firsts[i] = FIRST + 10 * i;
        threads[i] = start_thread(come_and_go, &firsts[i]);
    }
    for (i = 0; i < THREADS; i++)
        finish_thread(threads[i]);
    WAIT_UNTIL(domain_watches() == 1 && release_watches() == 0);
    host_destroy(last);
    finish_thread(waiter);
    check_death(waited_event, last, 1);
    libxl_event_free(waited_for, waited_event);
    expect_silence(waited_for);
    close_context(waited_for);
}

/* ---- refusals ---- */

TARGETED_TEST(a_watch_that_is_refused_is_the_enables_error_and_leaves_nothing)
{
    libxl_evgen_domain_death *evgen = UNTOUCHED;
    libxl_ctx *ctx = open_context();
    uint32_t one = host_create(), other = host_create();
    int round;

    /* The first of a context, and another. */
    for (round = 0; round < 2; round++) {
        xenstored_refuses_domains(true);
        CHECK_EQUAL(libxl_evenable_domain_death(ctx, other, 7, &evgen), ERROR_FAIL);
        CHECK(evgen == UNTOUCHED);
        CHECK_EQUAL(domain_watches(), round);
        xenstored_refuses_domains(false);
        if (round == 0)
            enable(ctx, one, 1);
    }
    host_destroy(one);
    expect_death(ctx, one, 1);
    expect_nothing_queued(ctx);
    enable(ctx, other, 2);
    host_destroy(other);
    expect_death(ctx, other, 2);
    expect_silence(ctx);
    close_context(ctx);
}

TARGETED_TEST(who_is_refused_on_the_way_to_few_stays_with_the_watch_for_all)
{
    libxl_evgen_domain_death *evgens[MANY + 1];
    libxl_ctx *ctx = open_context();
    uint32_t i;

    host_create_many(FIRST, MANY + 1);
    for (i = 0; i <= MANY; i++)
        evgens[i] = enable(ctx, FIRST + i, i);
    xenstored_refuses_domains(true);
    for (i = 1; i <= MANY; i++)
        libxl_evdisable_domain_death(ctx, evgens[i]);
    CHECK_EQUAL(domain_watches(), 0);
    CHECK_EQUAL(release_watches(), 1);
    host_destroy(FIRST);
    expect_death(ctx, FIRST, 0);
    expect_silence(ctx);
    xenstored_refuses_domains(false);
    close_context(ctx);
}

/* ---- daemons that come and go ---- */

/* Another daemon takes the place of the one that there is, while a domain ends. */
static void replace_daemon(bool newer, uint32_t ending)
{
    host_kill_xenstored();
    xenstored_is_newer(newer);
    host_destroy(ending);
    host_start_xenstored();
}

TARGETED_TEST(an_older_daemon_in_place_of_a_newer_gets_one_watch_for_all_and_the_other_way_round)
{
    libxl_ctx *ctx = open_context();
    uint32_t stays = host_create(), round;

    enable(ctx, stays, 1);
    for (round = 0; round < 6; round++) {
        bool newer = round % 2;
        uint32_t before = host_create(), after = host_create(), i;
        libxl_evgen_domain_death *evgens[2] = { enable(ctx, before, 2), enable(ctx, after, 3) };

        if (round % 3)
            expect_silence(ctx);
        replace_daemon(newer, before);
        expect_death(ctx, before, 2);
        /* A look for another reason may have found that before there was a daemon again. */
        WAIT_UNTIL((poll_once(ctx, 0), domain_watches() == (newer ? 3 : 0) && release_watches() == !newer));
        host_destroy(after);
        expect_death(ctx, after, 3);
        expect_silence(ctx);
        for (i = 0; i < 2; i++)
            libxl_evdisable_domain_death(ctx, evgens[i]);
    }
    host_shutdown(stays, CRASH);
    expect_shutdown(ctx, stays, 1, CRASH);
    expect_silence(ctx);
    close_context(ctx);
}

/* The connection that a context keeps without generators may be to a daemon of the past. */
TARGETED_TEST(a_daemon_that_was_replaced_while_nothing_was_watched_is_asked_anew)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid, round;

    for (round = 0; round < 6; round++) {
        bool newer = round % 2;
        libxl_evgen_domain_death *evgen = enable(ctx, domid = host_create(), round);

        CHECK_EQUAL(domain_watches(), round == 0 || !newer);
        libxl_evdisable_domain_death(ctx, evgen);
        replace_daemon(newer, domid);
        evgen = enable(ctx, domid = host_create(), round);
        CHECK_EQUAL(domain_watches(), newer);
        CHECK_EQUAL(release_watches(), !newer);
        host_destroy(domid);
        expect_death(ctx, domid, round);
        libxl_evdisable_domain_death(ctx, evgen);
    }
    close_context(ctx);
}

TARGETED_TEST(many_domains_outlast_a_daemon_and_few_that_are_left_have_a_watch_each)
{
    libxl_evgen_domain_death *evgens[3 * MANY];
    libxl_ctx *ctx = open_context();
    uint32_t i;

    host_create_many(FIRST, 3 * MANY);
    for (i = 0; i < 3 * MANY; i++)
        evgens[i] = enable(ctx, FIRST + i, i);
    expect_silence(ctx);
    replace_daemon(true, FIRST);
    expect_death(ctx, FIRST, 0);
    WAIT_UNTIL((poll_once(ctx, 0), release_watches() == 1));
    host_kill_xenstored();
    for (i = 3; i < 3 * MANY; i++)
        libxl_evdisable_domain_death(ctx, evgens[i]);
    host_destroy(FIRST + 1);
    host_start_xenstored();
    expect_death(ctx, FIRST + 1, 1);
    WAIT_UNTIL((poll_once(ctx, 0), domain_watches() == 3 && release_watches() == 0));
    host_destroy(FIRST + 2);
    expect_death(ctx, FIRST + 2, 2);
    expect_silence(ctx);
    close_context(ctx);
}
