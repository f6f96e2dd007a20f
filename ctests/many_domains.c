/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Many domains: every event once, in order, whatever happens to however many of them between two looks; and what that
 * costs.
 */
#include "harness/check.h"
#include "harness/host.h"
#include "harness/quiet.h"
#include "harness/xl.h"

enum { FIRST = 1000, THOUSAND = 1000 };

/* In an order that is not the domids'. 7919 is prime, so that every number comes once. */
static uint32_t scattered(uint32_t i, uint32_t count)
{
    return (uint32_t)((uint64_t)i * 7919 % count);
}

static void enable_scattered(libxl_ctx *ctx, uint32_t first, uint32_t count)
{
    uint32_t i;

    for (i = 0; i < count; i++)
        enable(ctx, first + scattered(i, count), first + scattered(i, count));
}

DOMAIN_TEST(a_thousand_domains_that_end_at_once_are_reported_once_each_in_order)
{
    libxl_ctx *ctx = open_context();
    uint32_t i;

    host_create_many(FIRST, THOUSAND);
    enable_scattered(ctx, FIRST, THOUSAND);
    expect_silence(ctx);
    host_shutdown_many(FIRST, THOUSAND, POWEROFF);
    for (i = 0; i < THOUSAND; i++)
        expect_shutdown(ctx, FIRST + i, FIRST + i, POWEROFF);
    expect_silence(ctx);
    host_destroy_many(FIRST, THOUSAND);
    for (i = 0; i < THOUSAND; i++)
        expect_death(ctx, FIRST + i, FIRST + i);
    expect_silence(ctx);
    close_context(ctx);
}

DOMAIN_TEST(a_thousand_domains_that_end_one_by_one_are_reported_once_each)
{
    libxl_ctx *ctx = open_context();
    uint32_t i, domid;

    host_create_many(FIRST, THOUSAND);
    enable_scattered(ctx, FIRST, THOUSAND);
    for (i = 0; i < THOUSAND; i++) {
        domid = FIRST + scattered(i, THOUSAND);
        if (i % 2) {
            host_shutdown(domid, (int)(i % 100) + 3);
            expect_shutdown(ctx, domid, domid, (int)(i % 100) + 3);
        } else {
            host_destroy(domid);
            expect_death(ctx, domid, domid);
        }
    }
    expect_silence(ctx);
    close_context(ctx);
}

/* More than any answer of the hypervisor holds. */
DOMAIN_TEST(thousands_of_domains_are_all_seen)
{
    enum { DOMAINS = 6000, STEP = 250 };
    libxl_ctx *ctx = open_context();
    uint32_t i;

    host_create_many(FIRST, DOMAINS);
    enable_scattered(ctx, FIRST, DOMAINS);
    expect_silence(ctx);
    for (i = 0; i < DOMAINS; i += STEP)
        host_shutdown(FIRST + i, CRASH);
    for (i = 0; i < DOMAINS; i += STEP)
        expect_shutdown(ctx, FIRST + i, FIRST + i, CRASH);
    host_destroy_many(FIRST, DOMAINS);
    for (i = 0; i < DOMAINS; i++)
        expect_death(ctx, FIRST + i, FIRST + i);
    expect_silence(ctx);
    close_context(ctx);
}

/* The others are many, and live. */
DOMAIN_TEST(one_watched_domain_among_thousands_is_found)
{
    enum { DOMAINS = 3000 };
    libxl_ctx *ctx = open_context();
    uint32_t domid = FIRST + DOMAINS - 3;

    host_create_many(FIRST, DOMAINS);
    enable(ctx, domid, 1);
    host_destroy_many(FIRST, 1000);
    expect_silence(ctx);
    host_shutdown(domid, CRASH);
    expect_shutdown(ctx, domid, 1, CRASH);
    host_destroy_many(FIRST + 1000, DOMAINS - 1000);
    expect_death(ctx, domid, 1);
    expect_silence(ctx);
    close_context(ctx);
}

/* ---- what it costs ---- */

/* Many have ended, one by one, before anybody looks. */
DOMAIN_TEST(a_burst_is_one_look_and_not_one_for_each)
{
    enum { DOMAINS = 100 };
    libxl_ctx *ctx = open_context();
    uint64_t asked;
    uint32_t i;

    host_create_many(FIRST, DOMAINS);
    enable_scattered(ctx, FIRST, DOMAINS);
    expect_silence(ctx);
    come_to_rest(ctx);
    asked = host_lists_asked();
    for (i = 0; i < DOMAINS; i++) {
        host_shutdown(FIRST + i, POWEROFF);
        host_settle();
    }
    receive_all();
    CHECK_EQUAL(host_lists_asked(), asked);
    for (i = 0; i < DOMAINS; i++)
        expect_shutdown(ctx, FIRST + i, FIRST + i, POWEROFF);
    expect_silence(ctx);
    /* To know that there are no more costs a few looks too. */
    if (OURS("burst"))
        CHECK_AT_MOST(host_lists_asked() - asked, DOMAINS / 3);
    else
        CHECK_AT_LEAST(host_lists_asked() - asked, DOMAINS);
    close_context(ctx);
}

/* Nor is a line made that nobody reads: a logger cannot say beforehand which it drops. */
DOMAIN_TEST(domains_that_live_on_are_not_spoken_of_in_the_log)
{
    enum { WATCHED = 100, OTHERS = 10 };
    libxl_ctx *ctx = open_context();
    uint32_t i;
    int lines;

    host_create_many(FIRST, WATCHED + OTHERS);
    enable_scattered(ctx, FIRST, WATCHED);
    expect_silence(ctx);
    lines = logged_lines;
    for (i = 0; i < OTHERS; i++) {
        host_destroy(FIRST + WATCHED + i);
        expect_silence(ctx);
    }
    if (OURS("debug-lines"))
        CHECK_EQUAL(logged_lines, lines);
    else
        CHECK_AT_LEAST(logged_lines - lines, WATCHED * OTHERS);
    close_context(ctx);
}

/* ---- random lives ---- */

/* What the test knows of a domain and of its generators, to say what the next look must find. */
enum { DOMAINS = 40, GENERATORS = 4, STEPS = 250, CHANGES = 12 };

static struct domain {
    bool exists, dying, down;
    int reason;
    struct generator {
        libxl_evgen_domain_death *evgen;
        libxl_ev_user user;
        bool shutdown_told, death_told;
    } generators[GENERATORS]; /* the newest last */
    int count;
} domains[DOMAINS];

/* The same sequence every time: what has failed once fails again. */
static uint32_t random_state = 20261121;

static uint32_t random_below(uint32_t limit)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state % limit;
}

/* Lets something happen to a domain that can happen to it. */
static void change(uint32_t domid, struct domain *domain)
{
    static const int reasons[] = { POWEROFF, REBOOT, SUSPEND, SUSPEND, SUSPEND, CRASH, WATCHDOG, 77, 255 };

    if (!domain->exists) {
        host_create_at(domid);
        domain->exists = true, domain->dying = domain->down = false;
        return;
    }
    switch (random_below(4)) {
    case 0:
        host_destroy(domid);
        domain->exists = false;
        break;
    case 1:
        if (domain->dying)
            break;
        host_kill(domid);
        domain->dying = true;
        break;
    default:
        if (domain->dying)
            break;
        if (domain->down) {
            if (domain->reason == SUSPEND) {
                host_resume(domid);
                domain->down = false;
            }
            break;
        }
        domain->reason = reasons[random_below(COUNT(reasons))];
        domain->down = true;
        host_shutdown(domid, domain->reason);
    }
}

static void enable_or_disable(libxl_ctx *ctx, uint32_t domid, struct domain *domain)
{
    static libxl_ev_user next_user = 1;

    if (domain->count < GENERATORS && random_below(2)) {
        domain->generators[domain->count++] = (struct generator){ enable(ctx, domid, next_user), next_user, false, false };
        next_user++;
    } else if (domain->count > 0) {
        int i = (int)random_below((uint32_t)domain->count);

        libxl_evdisable_domain_death(ctx, domain->generators[i].evgen);
        memmove(&domain->generators[i], &domain->generators[i + 1],
                sizeof *domain->generators * (size_t)(--domain->count - i));
    }
}

/* The next look: what each generator must say now, in this order. */
static void expect_what_is_new(libxl_ctx *ctx)
{
    uint32_t domid;
    int i;

    for (domid = 0; domid < DOMAINS; domid++) {
        struct domain *domain = &domains[domid];
        bool dead = !domain->exists || domain->dying;
        bool reportable = domain->down && (domain->reason != SUSPEND || !OURS("suspend-hidden"));

        for (i = domain->count; i-- > 0;) {
            struct generator *generator = &domain->generators[i];

            if (generator->death_told)
                continue;
            if (dead) {
                generator->death_told = true;
                expect_death(ctx, FIRST + domid, generator->user);
            } else if (reportable && !generator->shutdown_told) {
                generator->shutdown_told = true;
                expect_shutdown(ctx, FIRST + domid, generator->user, domain->reason);
            } else if (!reportable && OURS("runs-again")) {
                generator->shutdown_told = false;
            }
        }
    }
    expect_silence(ctx);
}

/*
 * Hundreds of times: some domains begin, end, suspend and resume, some generators come and go, nobody looks meanwhile; then
 * what comes is exactly what the new state says.
 */
DOMAIN_TEST(random_lives_give_exactly_the_events_that_they_must)
{
    libxl_ctx *ctx = open_context();
    uint32_t step, i;

    for (step = 0; step < STEPS; step++) {
        uint32_t changes = random_below(CHANGES);

        for (i = 0; i < changes; i++) {
            uint32_t domid = random_below(DOMAINS);

            if (random_below(3))
                change(FIRST + domid, &domains[domid]);
            else
                enable_or_disable(ctx, FIRST + domid, &domains[domid]);
        }
        /* Everybody looks, also libxenlight, for which an enable is no reason. */
        stir();
        host_settle();
        expect_what_is_new(ctx);
    }
    close_context(ctx);
}
