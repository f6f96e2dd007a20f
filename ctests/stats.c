/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counters: xlevent_stats. libxenlight has none, so in its column there is nothing to run; the program is linked with it all
 * the same, for the column in which libxlevent is preloaded.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "harness/check.h"
#include "harness/drive.h"
#include "harness/host.h"
#include "harness/ours.h"
#include "harness/quiet.h"
#include "harness/xl.h"

enum { FIRST = 1000 };

static struct xlevent_stats stats_of(libxl_ctx *ctx)
{
    struct xlevent_stats stats;

    CHECK_EQUAL(xlevent_stats(ctx, &stats, sizeof stats), 0);
    CHECK_EQUAL(stats.filled, sizeof stats);
    return stats;
}

/* How much a counter has grown since an earlier snapshot. */
#define GREW(now, before, counter) ((now).counter - (before).counter)

/* Rounds of the loop until a counter has come to `value`. */
#define POLL_UNTIL(ctx, counter, value)                                                                                \
    do {                                                                                                               \
        while (stats_of(ctx).counter < (uint64_t)(value))                                                              \
            poll_once(ctx, -1);                                                                                        \
    } while (0)

/* What is ready now is taken in. */
static void take_in(libxl_ctx *ctx)
{
    while (poll_once(ctx, 0))
        ;
}

/* Generators for `count` domains from `first` on, for the users 0, 1, ... All have had their first look. */
static void watch_domains(libxl_ctx *ctx, uint32_t first, uint32_t count)
{
    uint32_t i;

    for (i = 0; i < count; i++)
        enable(ctx, first + i, i);
    /* The new watch has fired. */
    POLL_UNTIL(ctx, releases, 1);
    take_in(ctx);
}

/* ---- looks, hypercalls, domains ---- */

TEST_WITH(a_new_context_has_counted_nothing, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    struct xlevent_stats nothing = { .filled = sizeof nothing }, stats;
    libxl_ctx *ctx = open_context();

    stats = stats_of(ctx);
    /* Alone, the first context of a process asks the hypervisor what its answers look like. */
    CHECK_EQUAL(stats.hypercalls, column == ALONE);
    CHECK_EQUAL(stats.domains_examined, column == ALONE);
    stats.hypercalls = stats.domains_examined = 0;
    CHECK(memcmp(&stats, &nothing, sizeof stats) == 0);
    close_context(ctx);
}

/* Those of the library are all that there are: nobody else in this process asks for lists. */
TEST_WITH(hypercalls_are_counted_as_the_host_counts_them, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    uint64_t asked = host_lists_asked();
    libxl_ctx *ctx = open_context();
    uint32_t domids[40];
    size_t i;

    for (i = 0; i < COUNT(domids); i++) {
        domids[i] = host_create();
        enable(ctx, domids[i], i);
        if (i % 10 == 0)
            expect_silence(ctx);
        CHECK_EQUAL(stats_of(ctx).hypercalls, host_lists_asked() - asked);
    }
    for (i = 0; i < COUNT(domids); i++) {
        host_destroy(domids[i]);
        expect_death(ctx, domids[i], i);
        CHECK_EQUAL(stats_of(ctx).hypercalls, host_lists_asked() - asked);
    }
    CHECK_AT_LEAST(stats_of(ctx).hypercalls, COUNT(domids));
    close_context(ctx);
}

/* Of two contexts, each counts what it was told, and the hypercalls that it made itself. */
TEST_WITH(every_context_counts_for_itself, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    uint64_t asked = host_lists_asked();
    libxl_ctx *one = open_context(), *other = open_context();
    uint32_t domid = host_create();

    enable(one, domid, 1);
    expect_silence(one);
    CHECK_EQUAL(stats_of(other).releases, 0);
    CHECK_EQUAL(stats_of(other).events_domain_death, 0);
    CHECK_EQUAL(stats_of(other).death_generators, 0);
    enable(other, domid, 2);
    expect_silence(other);
    CHECK_EQUAL(stats_of(one).hypercalls + stats_of(other).hypercalls, host_lists_asked() - asked);
    close_context(one);
    close_context(other);
}

/* Contexts that have been told of something share a look: each counts it, and one of them the hypercall. */
TEST_WITH(a_look_for_many_contexts_counts_in_each_and_its_hypercall_in_one,
          COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT | WITH_ONE_WATCH)
{
    enum { CONTEXTS = 10 };
    struct xlevent_stats before[CONTEXTS], after;
    uint64_t asked, hypercalls = 0, examined = 0;
    libxl_ctx *contexts[CONTEXTS];
    struct polled polled;
    time_t begin = time(NULL);
    uint32_t i;

    host_create_many(FIRST, CONTEXTS);
    for (i = 0; i < CONTEXTS; i++) {
        contexts[i] = open_context();
        watch_domains(contexts[i], FIRST + i, 1);
    }
    for (i = 0; i < CONTEXTS; i++)
        come_to_rest(contexts[i]);
    for (i = 0; i < CONTEXTS; i++)
        before[i] = stats_of(contexts[i]);
    asked = host_lists_asked();
    host_destroy(FIRST + 3);
    receive_all();
    for (i = 0; i < CONTEXTS; i++) {
        before_poll(contexts[i], &polled, -1);
        CHECK_AT_LEAST(poll_now(&polled), 1);
    }
    /* Any of them may be the first. */
    take_in(contexts[5]);
    for (i = 0; i < CONTEXTS; i++) {
        after = stats_of(contexts[i]);
        CHECK_EQUAL(GREW(after, before[i], releases), 1);
        CHECK_EQUAL(GREW(after, before[i], scans), 1);
        CHECK_EQUAL(GREW(after, before[i], partial_scans), 0);
        CHECK_EQUAL(GREW(after, before[i], events_domain_death), i == 3);
        CHECK_EQUAL(GREW(after, before[i], turns) > 0, i == 5);
        CHECK_EQUAL(GREW(after, before[i], hypercalls), i == 5);
        hypercalls += GREW(after, before[i], hypercalls);
        examined += GREW(after, before[i], domains_examined);
        /* It is woken if there is something new, and not otherwise; but for a health check, the first after 10 s. */
        before_poll(contexts[i], &polled, 0);
        if (i == 3 || time(NULL) - begin < 8)
            CHECK_EQUAL(poll_now(&polled), i == 3);
    }
    CHECK_EQUAL(hypercalls, host_lists_asked() - asked);
    CHECK_EQUAL(examined, CONTEXTS - 1);
    expect_death(contexts[3], FIRST + 3, 0);
    for (i = 0; i < CONTEXTS; i++)
        close_context(contexts[i]);
}

/*
 * They end one by one, and nobody looks meanwhile: a firing for each, then one look at all. The watched domains are the
 * only ones from the first of them on, so that the answer has as many.
 */
TEST_WITH(a_burst_counts_a_firing_for_each_and_one_look,
          COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT | WITH_ONE_WATCH)
{
    enum { DOMAINS = 50 };
    libxl_ctx *ctx = open_context();
    struct xlevent_stats before, after;
    uint64_t asked;
    uint32_t i;

    host_create_many(FIRST, DOMAINS);
    watch_domains(ctx, FIRST, DOMAINS);
    before = stats_of(ctx);
    asked = host_lists_asked();
    for (i = 0; i < DOMAINS; i++) {
        host_shutdown(FIRST + i, POWEROFF);
        host_settle();
    }
    receive_all();
    POLL_UNTIL(ctx, releases, before.releases + DOMAINS);
    after = stats_of(ctx);
    CHECK_EQUAL(GREW(after, before, releases), DOMAINS);
    CHECK_AT_LEAST(GREW(after, before, scans), 1);
    /* They may be taken in parts. */
    CHECK_AT_MOST(GREW(after, before, scans), DOMAINS / 3);
    CHECK_EQUAL(GREW(after, before, partial_scans), 0);
    CHECK_EQUAL(GREW(after, before, failed_scans), 0);
    /* One answer is enough for a look at so many. */
    CHECK_EQUAL(GREW(after, before, hypercalls), GREW(after, before, scans));
    CHECK_EQUAL(GREW(after, before, hypercalls), host_lists_asked() - asked);
    CHECK_EQUAL(GREW(after, before, domains_examined), DOMAINS * GREW(after, before, scans));
    CHECK_EQUAL(GREW(after, before, events_domain_shutdown), DOMAINS);
    CHECK_EQUAL(after.events_queued, DOMAINS);
    close_context(ctx);
}

/* Under one VIRQ, xenstored fires once. */
TEST_WITH(domains_that_end_at_once_count_one_firing,
          COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT | WITH_ONE_WATCH)
{
    enum { DOMAINS = 20 };
    libxl_ctx *ctx = open_context();
    struct xlevent_stats before, after;

    host_create_many(FIRST, DOMAINS);
    watch_domains(ctx, FIRST, DOMAINS);
    before = stats_of(ctx);
    host_shutdown_many(FIRST, DOMAINS, CRASH);
    host_settle();
    POLL_UNTIL(ctx, releases, before.releases + 1);
    take_in(ctx);
    after = stats_of(ctx);
    CHECK_EQUAL(GREW(after, before, releases), 1);
    CHECK_EQUAL(GREW(after, before, scans), 1);
    CHECK_EQUAL(GREW(after, before, hypercalls), 1);
    CHECK_EQUAL(GREW(after, before, domains_examined), DOMAINS);
    CHECK_EQUAL(GREW(after, before, events_domain_shutdown), DOMAINS);
    close_context(ctx);
}

/* The first generator has its look by the new watch's own firing; a later one has a look of its own. */
TEST_WITH(a_new_generator_counts_a_look_at_its_domain_alone,
          COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT | WITH_ONE_WATCH)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create(), other = host_create();
    struct xlevent_stats before, after;

    watch_domains(ctx, domid, 1);
    before = stats_of(ctx);
    CHECK_EQUAL(before.releases, 1);
    CHECK_EQUAL(before.scans, 1);
    CHECK_EQUAL(before.partial_scans, 0);
    enable(ctx, other, 2);
    POLL_UNTIL(ctx, partial_scans, 1);
    take_in(ctx);
    after = stats_of(ctx);
    CHECK_EQUAL(GREW(after, before, releases), 0);
    CHECK_EQUAL(GREW(after, before, scans), 0);
    CHECK_EQUAL(GREW(after, before, partial_scans), 1);
    CHECK_EQUAL(GREW(after, before, hypercalls), 1);
    CHECK_EQUAL(GREW(after, before, domains_examined), 1);
    close_context(ctx);
}

static void note_disaster(void *user, libxl_event_type type, const char *message, int errnoval)
{
    (void)type, (void)message, (void)errnoval;
    ++*(int *)user;
}

TEST_WITH(looks_that_fail_and_disasters_are_counted,
          COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT | WITH_ONE_WATCH)
{
    static const libxl_event_hooks hooks = { .disaster = note_disaster };
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    struct xlevent_stats before, after;
    int disasters = 0;

    libxl_event_register_callbacks(ctx, &hooks, &disasters);
    watch_domains(ctx, domid, 1);
    before = stats_of(ctx);
    /* It passes. */
    host_fail_lists(EBUSY, 1);
    host_destroy(domid);
    expect_death(ctx, domid, 0);
    after = stats_of(ctx);
    CHECK_EQUAL(GREW(after, before, failed_scans), 1);
    CHECK_EQUAL(GREW(after, before, scans), 2);
    CHECK_EQUAL(GREW(after, before, hypercalls), 2);
    CHECK_EQUAL(after.disasters, 0);
    /* This doesn't. */
    domid = host_create();
    enable(ctx, domid, 2);
    take_in(ctx);
    before = stats_of(ctx);
    host_fail_lists(EPERM, -1);
    host_destroy(domid);
    while (disasters == 0)
        poll_once(ctx, -1);
    after = stats_of(ctx);
    CHECK_AT_LEAST(GREW(after, before, failed_scans), 1);
    CHECK_EQUAL(after.disasters, 1);
    CHECK_EQUAL(disasters, 1);
    close_context(ctx);
}

/* ---- events ---- */

static void take_event(void *user, libxl_event *event)
{
    libxl_event_free(user, event);
}

TEST_WITH(events_are_counted_by_type_and_the_fullest_queue_is_remembered, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    enum { DOMAINS = 7 };
    const libxl_event_hooks hooks = { .event_occurs_mask = DEATH_BIT, .event_occurs = take_event };
    libxl_ctx *ctx = open_context();
    struct xlevent_stats stats;
    uint32_t i;

    host_create_many(FIRST, DOMAINS);
    watch_domains(ctx, FIRST, DOMAINS);
    host_shutdown_many(FIRST, DOMAINS, POWEROFF);
    POLL_UNTIL(ctx, events_domain_shutdown, DOMAINS);
    stats = stats_of(ctx);
    CHECK_EQUAL(stats.events_domain_shutdown, DOMAINS);
    CHECK_EQUAL(stats.events_domain_death, 0);
    CHECK_EQUAL(stats.events_queued, DOMAINS);
    CHECK_EQUAL(stats.events_queued_most, DOMAINS);
    for (i = 0; i < DOMAINS; i++) {
        expect_shutdown(ctx, FIRST + i, i, POWEROFF);
        CHECK_EQUAL(stats_of(ctx).events_queued, DOMAINS - 1 - i);
    }
    CHECK_EQUAL(stats_of(ctx).events_queued_most, DOMAINS);

    /* What goes to a callback is never queued. */
    libxl_event_register_callbacks(ctx, &hooks, ctx);
    host_destroy_many(FIRST, DOMAINS);
    POLL_UNTIL(ctx, events_domain_death, DOMAINS);
    stats = stats_of(ctx);
    CHECK_EQUAL(stats.events_domain_shutdown, DOMAINS);
    CHECK_EQUAL(stats.events_domain_death, DOMAINS);
    CHECK_EQUAL(stats.events_called_back, DOMAINS);
    CHECK_EQUAL(stats.events_queued, 0);
    CHECK_EQUAL(stats.events_queued_most, DOMAINS);
    CHECK_EQUAL(stats.events_disk_eject + stats.events_operation_complete +
                    stats.events_domain_create_console_available + stats.events_other,
                0);
    close_context(ctx);
}

TEST_WITH(ejections_are_counted_and_so_are_generators_and_drives, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive(), other = cd_drive();
    libxl_evgen_disk_eject *ejects[3];
    libxl_evgen_domain_death *death;
    struct xlevent_stats stats, before;

    ejects[0] = enable_eject(ctx, drive.domid, "hdc", 1);
    ejects[1] = enable_eject(ctx, drive.domid, "hdc", 2);
    ejects[2] = enable_eject(ctx, other.domid, "hdc", 3);
    death = enable(ctx, drive.domid, 4);
    stats = stats_of(ctx);
    CHECK_EQUAL(stats.eject_generators, 3);
    CHECK_EQUAL(stats.drives_watched, 2);
    CHECK_EQUAL(stats.death_generators, 1);
    CHECK_EQUAL(stats.watching, 1);
    /* New watches fire too. */
    POLL_UNTIL(ctx, drive_looks, 2);
    CHECK_EQUAL(stats_of(ctx).events_disk_eject, 0);

    before = stats_of(ctx);
    eject(drive);
    expect_eject(ctx, drive.domid, 2);
    expect_eject(ctx, drive.domid, 1);
    stats = stats_of(ctx);
    CHECK_EQUAL(stats.events_disk_eject, 2);
    CHECK_AT_LEAST(GREW(stats, before, drive_looks), 1);
    CHECK_EQUAL(GREW(stats, before, hypercalls), 0);

    libxl_evdisable_disk_eject(ctx, ejects[0]);
    CHECK_EQUAL(stats_of(ctx).eject_generators, 2);
    CHECK_EQUAL(stats_of(ctx).drives_watched, 2);
    libxl_evdisable_disk_eject(ctx, ejects[1]);
    CHECK_EQUAL(stats_of(ctx).drives_watched, 1);
    libxl_evdisable_disk_eject(ctx, ejects[2]);
    CHECK_EQUAL(stats_of(ctx).watching, 1);
    libxl_evdisable_domain_death(ctx, death);
    stats = stats_of(ctx);
    CHECK_EQUAL(stats.eject_generators + stats.drives_watched + stats.death_generators, 0);
    CHECK_EQUAL(stats.watching, 0);
    close_context(ctx);
}

/* ---- xenstored ---- */

TEST_WITH(a_restart_of_xenstored_counts_a_loss_a_reconnection_and_a_look,
          COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT | WITH_ONE_WATCH)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    struct xlevent_stats before, stats;
    int round;

    watch_domains(ctx, domid, 1);
    CHECK_EQUAL(stats_of(ctx).watching, 1);
    for (round = 1; round <= 3; round++) {
        before = stats_of(ctx);
        host_kill_xenstored();
        POLL_UNTIL(ctx, xenstored_losses, round);
        stats = stats_of(ctx);
        CHECK_EQUAL(stats.watching, 0);
        CHECK_EQUAL(stats.reconnections, round - 1);
        CHECK_EQUAL(stats.death_generators, 1);
        host_start_xenstored();
        POLL_UNTIL(ctx, reconnections, round);
        CHECK_EQUAL(stats_of(ctx).watching, 1);
        POLL_UNTIL(ctx, scans, before.scans + 1);
        stats = stats_of(ctx);
        CHECK_EQUAL(stats.xenstored_losses, round);
        CHECK_EQUAL(stats.reconnections, round);
        CHECK_AT_LEAST(GREW(stats, before, releases), 1);
    }
    CHECK_EQUAL(stats_of(ctx).disasters, 0);
    close_context(ctx);
}

/* ---- callers built with another version, and callers that are wrong ---- */

/* Of any kind but zero. */
enum { CANARY = 0xa5 };

static void check_bytes(const unsigned char *bytes, size_t from, size_t to, int value)
{
    size_t i;

    for (i = from; i < to; i++)
        if (bytes[i] != value)
            FAIL("byte %zu is %#x, not %#x", i, bytes[i], (unsigned)value);
}

/* For every size: whole counters as far as they fit, then zeroes, and nothing behind the caller's structure. */
TEST_OF_OURS(a_caller_with_a_smaller_or_larger_structure_gets_what_both_know)
{
    enum { COUNTER = sizeof(uint64_t), KNOWN = sizeof(struct xlevent_stats), ROOM = KNOWN + 100 };
    libxl_ctx *ctx = open_context();
    union {
        struct xlevent_stats stats;
        unsigned char bytes[ROOM];
    } given;
    struct xlevent_stats whole;
    size_t size, filled;

    /* So that something has been counted, and no more happens. */
    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    take_in(ctx);
    whole = stats_of(ctx);
    CHECK_EQUAL(whole.events_domain_death, 1);
    CHECK_EQUAL(whole.events_queued_most, 1);
    for (size = COUNTER; size <= ROOM; size++) {
        memset(&given, CANARY, sizeof given);
        CHECK_EQUAL(xlevent_stats(ctx, &given.stats, size), 0);
        filled = size / COUNTER * COUNTER;
        if (filled > KNOWN)
            filled = KNOWN;
        CHECK_EQUAL(given.stats.filled, filled);
        CHECK(memcmp(given.bytes + COUNTER, (unsigned char *)&whole + COUNTER, filled - COUNTER) == 0);
        check_bytes(given.bytes, filled, size, 0);
        check_bytes(given.bytes, size, ROOM, CANARY);
    }
    close_context(ctx);
}

TEST_OF_OURS(bad_arguments_are_errors_with_a_line_in_the_log)
{
    libxl_ctx *ctx = open_context(), *freed = open_context();
    struct xlevent_stats stats;
    size_t size;

    log_quietly = true;
    close_context(freed);
    memset(&stats, CANARY, sizeof stats);
    /* Without a context there is no log but stderr. */
    CHECK_EQUAL(xlevent_stats(NULL, &stats, sizeof stats), ERROR_INVAL);
    CHECK_EQUAL(xlevent_stats((libxl_ctx *)&stats, &stats, sizeof stats), ERROR_INVAL);
    CHECK_EQUAL(xlevent_stats(freed, &stats, sizeof stats), ERROR_INVAL);
    CHECK_EQUAL(xlevent_stats(NULL, NULL, 0), ERROR_INVAL);
    CHECK_EQUAL(logged_errors, 0);
    CHECK_EQUAL(xlevent_stats(ctx, NULL, sizeof stats), ERROR_INVAL);
    CHECK_EQUAL(logged_errors, 1);
    for (size = 0; size < sizeof(uint64_t); size++) {
        CHECK_EQUAL(xlevent_stats(ctx, &stats, size), ERROR_INVAL);
        CHECK_EQUAL(logged_errors, 2 + (int)size);
    }
    check_bytes((unsigned char *)&stats, 0, sizeof stats, CANARY);
    CHECK_EQUAL(xlevent_stats(ctx, &stats, sizeof stats), 0);
    close_context(ctx);
}

/* ---- threads ---- */

static struct {
    libxl_ctx *ctx;
    bool ended;
} shared;

/* Whatever the moment, a snapshot is whole, and nothing in it runs backwards. */
static void *look_again_and_again(void *unused)
{
    struct xlevent_stats before = stats_of(shared.ctx), now;

    (void)unused;
    while (!__atomic_load_n(&shared.ended, __ATOMIC_ACQUIRE)) {
        now = stats_of(shared.ctx);
        CHECK_AT_LEAST(now.releases, before.releases);
        CHECK_AT_LEAST(now.hypercalls, before.hypercalls);
        CHECK_AT_LEAST(now.hypercalls, now.scans + now.partial_scans);
        CHECK_AT_LEAST(now.events_domain_death, before.events_domain_death);
        CHECK_AT_LEAST(now.events_domain_death, now.events_queued);
        CHECK_AT_LEAST(now.events_queued_most, now.events_queued);
        before = now;
        /* Not all the time that there is: valgrind runs one thread at a time, and whoever asks first. */
        sched_yield();
    }
    return NULL;
}

TEST_WITH(snapshots_from_another_thread_are_whole, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    enum { DOMAINS = 200 };
    pthread_t threads[3];
    uint32_t i;

    shared.ctx = open_context();
    host_create_many(FIRST, DOMAINS);
    for (i = 0; i < COUNT(threads); i++)
        threads[i] = start_thread(look_again_and_again, NULL);
    watch_domains(shared.ctx, FIRST, DOMAINS);
    for (i = 0; i < DOMAINS; i++) {
        host_destroy(FIRST + i);
        expect_death(shared.ctx, FIRST + i, i);
    }
    __atomic_store_n(&shared.ended, true, __ATOMIC_RELEASE);
    for (i = 0; i < COUNT(threads); i++)
        finish_thread(threads[i]);
    CHECK_EQUAL(stats_of(shared.ctx).events_domain_death, DOMAINS);
    close_context(shared.ctx);
}

static void look_from_inside(void *user, libxl_event *event)
{
    libxl_ctx *ctx = user;

    CHECK_EQUAL(stats_of(ctx).events_called_back, 1);
    libxl_event_free(ctx, event);
}

TEST_OF_OURS(a_callback_may_take_a_snapshot)
{
    const libxl_event_hooks hooks = { .event_occurs_mask = DEATH_BIT, .event_occurs = look_from_inside };
    libxl_ctx *ctx = open_context();

    libxl_event_register_callbacks(ctx, &hooks, ctx);
    enable(ctx, NOBODY, 1);
    POLL_UNTIL(ctx, events_called_back, 1);
    close_context(ctx);
}
