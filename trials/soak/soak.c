/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Events without end, and much of everything: memory, descriptors and threads stay what they were.
 *
 * usage: soak cycles EVENTS [LEAK]    until so many events have come; LEAK bytes an event are lost on purpose
 *        soak generators COUNT        so many at once, and a queue that nobody reads
 *
 * At the end of each cycle all that was made in it is gone: then malloc's own figures must be those of the cycles before. The
 * environment turns malloc's cache of freed blocks off, which counts as used. The host is driven from this process; what
 * that takes, it gives back.
 */
#include <limits.h>
#include <malloc.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#include <libxl_event.h>

#include "harness/assert.h"
#include "harness/column.h"
#include "harness/drive.h"
#include "harness/host.h"
#include "harness/ours.h"
#include "harness/store.h"
#include "harness/xl.h"

/* ---- what this process holds ---- */

struct held {
    /* Of the allocator, and of the system in KiB. */
    size_t bytes, resident;
    int fds, threads;
};

static size_t bytes_held(void)
{
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

/* What other threads are about to give back is waited for, and their ends: as long as more than this is taken, for a while. */
static struct held held(size_t bytes, int threads)
{
    struct held held;
    char line[200];
    FILE *status;
    int i;

    for (i = 0; i < 6000 && (bytes_held() > bytes || count_threads() > threads); i++)
        usleep(5000);
    malloc_trim(0);
    held.fds = count_fds();
    held.threads = count_threads();
    held.resident = 0;
    status = fopen("/proc/self/status", "r");
    CHECK(status);
    while (fgets(line, sizeof line, status))
        sscanf(line, "VmRSS: %zu", &held.resident);
    fclose(status);
    held.bytes = bytes_held();
    return held;
}

/* ---- events ---- */

static uint64_t events;
static size_t leak_bytes;

/* Two threads take events, and lose what is lost into the same room. */
static void leak(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static size_t leaked;
    static char *room;

    pthread_mutex_lock(&lock);
    leaked += leak_bytes;
    room = realloc(room, leaked);
    CHECK(room);
    pthread_mutex_unlock(&lock);
}

static void take(libxl_event *event, libxl_ctx *ctx)
{
    libxl_event_free(ctx, event);
    __atomic_fetch_add(&events, 1, __ATOMIC_SEQ_CST);
    if (leak_bytes)
        leak();
}

static void occurs(void *user, libxl_event *event)
{
    take(event, *(libxl_ctx **)user);
}

static void disaster(void *user, libxl_event_type type, const char *message, int errnoval)
{
    (void)user, (void)type;
    FAIL("a disaster: %s (errno %d)", message, errnoval);
}

static const libxl_event_hooks queue_all = { .disaster = disaster };
static const libxl_event_hooks call_back_all = { .event_occurs_mask = LIBXL_EVENTMASK_ALL,
                                                 .event_occurs = occurs,
                                                 .disaster = disaster };

static libxl_ctx *open_with(const libxl_event_hooks *hooks, libxl_ctx **user)
{
    libxl_ctx *ctx = open_context();

    libxl_event_register_callbacks(ctx, hooks, user);
    return ctx;
}

static struct xlevent_stats stats_of(libxl_ctx *ctx)
{
    struct xlevent_stats stats;

    CHECK(xlevent_stats(ctx, &stats, sizeof stats) == 0);
    return stats;
}

/* ---- loops ---- */

/* One descriptor is all that is ever asked for. */
static struct {
    int fd;
    void *for_libxl;
} hooked = { -1, NULL };

static int fd_register(void *user, int fd, void **out, short wanted, void *for_libxl)
{
    (void)user, (void)out, (void)wanted;
    CHECK(hooked.fd < 0);
    hooked.fd = fd;
    hooked.for_libxl = for_libxl;
    return 0;
}

static int fd_modify(void *user, int fd, void **registration, short wanted)
{
    (void)user, (void)fd, (void)registration, (void)wanted;
    return 0;
}

static void fd_deregister(void *user, int fd, void *registration)
{
    (void)user, (void)registration;
    CHECK(hooked.fd == fd);
    hooked.fd = -1;
}

static int timeout_register(void *user, void **out, struct timeval at, void *for_libxl)
{
    (void)user, (void)out, (void)at, (void)for_libxl;
    FAIL("a timeout");
}

static int timeout_modify(void *user, void **registration, struct timeval at)
{
    (void)user, (void)registration, (void)at;
    FAIL("a timeout");
}

static void timeout_deregister(void *user, void *registration)
{
    (void)user, (void)registration;
    FAIL("a timeout");
}

static const libxl_osevent_hooks os_hooks = { fd_register,      fd_modify,      fd_deregister,
                                              timeout_register, timeout_modify, timeout_deregister };

static void go_round_with_hooks(libxl_ctx *ctx)
{
    struct pollfd fd = { hooked.fd, POLLIN, 0 };

    CHECK(hooked.fd >= 0);
    if (poll(&fd, 1, 1000) == 1)
        libxl_osevent_occurred_fd(ctx, hooked.for_libxl, fd.fd, fd.events, fd.revents);
}

static void *wait_for_events(void *user)
{
    libxl_ctx *ctx = user;
    libxl_event *event;
    int rc;

    while ((rc = libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL)) == 0)
        take(event, ctx);
    CHECK(rc == ERROR_ABORTED);
    return NULL;
}

/* ---- cycles ---- */

enum { FIRST = 100, DOMAINS = 400, DRIVES = 8, CYCLES_TO_WARM_UP = 4 };

static struct {
    libxl_ctx *waits, *called_back, *hooked, *shared;
    struct xlevent_subscriber *subscriber;
    pthread_t thread;
} watchers;

enum { GENERATORS = 5 };
static libxl_evgen_domain_death *deaths[GENERATORS][DOMAINS];
static libxl_evgen_domain_state *states[DOMAINS];
static libxl_evgen_disk_eject *drives[DRIVES];

static void enable_all(libxl_ctx *passing)
{
    const uint64_t ends = ((uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN) | ((uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_DEATH);
    uint32_t i;

    for (i = 0; i < DOMAINS; i++) {
        deaths[0][i] = enable(watchers.waits, FIRST + i, 1);
        deaths[1][i] = enable(watchers.called_back, FIRST + i, 2);
        deaths[2][i] = enable(watchers.called_back, FIRST + i, 3);
        deaths[3][i] = enable(watchers.hooked, FIRST + i, 4);
        CHECK(xlevent_subscriber_evenable_domain_death(watchers.shared, watchers.subscriber, FIRST + i, 5,
                                                       &deaths[4][i]) == 0);
        CHECK(libxl_evenable_domain_state(watchers.shared, FIRST + i, ends, 6, &states[i]) == 0);
        /* They go with their context. */
        enable(passing, FIRST + i, 7);
    }
    for (i = 0; i < DRIVES; i++) {
        struct drive drive = drive_at(FIRST + i, HDC, "hdc");

        drives[i] = enable_eject(watchers.called_back, FIRST + i, "hdc", 8);
        eject(drive);
    }
}

static void disable_all(void)
{
    int i;

    for (i = 0; i < DOMAINS; i++) {
        libxl_evdisable_domain_death(watchers.waits, deaths[0][i]);
        libxl_evdisable_domain_death(watchers.called_back, deaths[1][i]);
        libxl_evdisable_domain_death(watchers.called_back, deaths[2][i]);
        libxl_evdisable_domain_death(watchers.hooked, deaths[3][i]);
        libxl_evdisable_domain_death(watchers.shared, deaths[4][i]);
        libxl_evdisable_domain_state(watchers.shared, states[i]);
    }
    for (i = 0; i < DRIVES; i++)
        libxl_evdisable_disk_eject(watchers.called_back, drives[i]);
}

/* All that come of one thing, from all of them. */
static void take_in_until(uint64_t count, libxl_ctx *passing)
{
    time_t begin = time(NULL);
    libxl_event *event;

    while (__atomic_load_n(&events, __ATOMIC_SEQ_CST) < count) {
        if (time(NULL) > begin + PATIENCE_S)
            FAIL("%llu events, where there were to be %llu", (unsigned long long)events, (unsigned long long)count);
        poll_once(watchers.called_back, 0);
        poll_once(watchers.shared, 0);
        while (libxl_event_check(watchers.shared, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == 0)
            take(event, watchers.shared);
        while (xlevent_subscriber_check(watchers.shared, watchers.subscriber, &event, LIBXL_EVENTMASK_ALL, NULL,
                                        NULL) == 0)
            take(event, watchers.shared);
        if (hooked.fd >= 0)
            go_round_with_hooks(watchers.hooked);
        while (libxl_event_check(watchers.hooked, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == 0)
            take(event, watchers.hooked);
        poll_once(passing, 0);
        while (libxl_event_check(passing, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == 0)
            take(event, passing);
    }
    if (__atomic_load_n(&events, __ATOMIC_SEQ_CST) != count)
        FAIL("%llu events, where there were to be %llu", (unsigned long long)events, (unsigned long long)count);
}

static void cycle(void)
{
    libxl_ctx *passing = NULL;
    uint64_t before = events;

    host_create_many(FIRST, DOMAINS);
    passing = open_with(&queue_all, NULL);
    enable_all(passing);
    take_in_until(before + DRIVES, passing);
    host_shutdown_many(FIRST, DOMAINS, CRASH);
    take_in_until(before + DRIVES + 7 * DOMAINS, passing);
    /* What it is about to be told of goes with it. */
    host_destroy_many(FIRST, DOMAINS);
    host_settle();
    close_context(passing);
    passing = open_with(&queue_all, NULL);
    take_in_until(before + DRIVES + 13 * DOMAINS, passing);
    close_context(passing);
    disable_all();
    remove_node("/local/domain");
    remove_node("/libxl");
}

/*
 * Has a context look at all the domains by itself, so that it has what that takes. In the cycles, one context looks for all
 * that have been told of something, and which one it is, is chance.
 */
static void look_alone(libxl_ctx *ctx, unsigned generators)
{
    uint64_t before = events;
    libxl_event *event;
    unsigned i, each;
    bool alive = true;

    CHECK(generators <= GENERATORS);
    host_create_many(FIRST, DOMAINS);
    for (each = 0; each < generators; each++)
        for (i = 0; i < DOMAINS; i++)
            deaths[each][i] = enable(ctx, FIRST + i, 1);
    host_shutdown_many(FIRST, DOMAINS, CRASH);
    host_settle();
    while (__atomic_load_n(&events, __ATOMIC_SEQ_CST) < before + 2 * generators * DOMAINS) {
        if (ctx == watchers.hooked)
            go_round_with_hooks(ctx);
        else
            poll_once(ctx, 10);
        while (ctx != watchers.waits && libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == 0)
            take(event, ctx);
        if (alive && __atomic_load_n(&events, __ATOMIC_SEQ_CST) == before + generators * DOMAINS) {
            host_destroy_many(FIRST, DOMAINS);
            alive = false;
        }
    }
    for (each = 0; each < generators; each++)
        for (i = 0; i < DOMAINS; i++)
            libxl_evdisable_domain_death(ctx, deaths[each][i]);
}

/*
 * How much more may be held, of the allocator: less than a byte for each event of the shortest run (queues and the like keep
 * some room, and how much each has needed is chance); and by a queue that has been long, and is empty.
 */
enum { ROOM_KEPT = 64 * 1024, BYTES_MORE = 32 * 1024, RESIDENT_KIB_MORE = 2048 };

static void cycles(uint64_t wanted)
{
    struct held first, last;
    uint64_t warm;
    int count, i;

    watchers.waits = open_with(&queue_all, NULL);
    watchers.called_back = open_with(&call_back_all, &watchers.called_back);
    watchers.hooked = open_with(&queue_all, NULL);
    libxl_osevent_register_hooks(watchers.hooked, &os_hooks, NULL);
    watchers.shared = open_with(&queue_all, NULL);
    CHECK(xlevent_subscriber_new(watchers.shared, &watchers.subscriber) == 0);
    watchers.thread = start_thread(wait_for_events, watchers.waits);
    look_alone(watchers.waits, 1);
    look_alone(watchers.called_back, 2);
    look_alone(watchers.hooked, 1);
    look_alone(watchers.shared, 2);
    for (count = 0; count < CYCLES_TO_WARM_UP; count++)
        cycle();
    /* The least of many looks is that of a moment at which nothing is under way. */
    first = last = held(SIZE_MAX, INT_MAX);
    for (i = 0; i < 100; i++) {
        usleep(5000);
        if (bytes_held() < first.bytes)
            first.bytes = bytes_held();
        if (count_threads() < first.threads)
            first.threads = count_threads();
    }
    printf("    %zu bytes, %zu KiB, %d descriptors, %d threads\n", first.bytes, first.resident, first.fds, first.threads);
    for (warm = events; events < warm + wanted; count++) {
        cycle();
        last = held(first.bytes + BYTES_MORE, first.threads);
        if (last.bytes > first.bytes + BYTES_MORE)
            FAIL("after %llu events %zu bytes of memory are taken, %zu more than before", (unsigned long long)(events - warm),
                 last.bytes, last.bytes - first.bytes);
        if (last.resident > first.resident + RESIDENT_KIB_MORE)
            FAIL("after %llu events %zu KiB are resident, %zu more than before", (unsigned long long)(events - warm),
                 last.resident, last.resident - first.resident);
        if (last.fds != first.fds || last.threads != first.threads)
            FAIL("after %llu events %d descriptors and %d threads, not %d and %d", (unsigned long long)(events - warm),
                 last.fds, last.threads, first.fds, first.threads);
    }
    printf("    %zu bytes, %zu KiB, %d descriptors, %d threads\n", last.bytes, last.resident, last.fds, last.threads);
    printf("PASS %llu events, each cycle's memory, descriptors and threads those of the one before\n",
           (unsigned long long)(events - warm));
    printf("FIGURE cycles: %d\n", count - CYCLES_TO_WARM_UP);
    printf("FIGURE memory at the beginning: %zu B\n", first.bytes);
    printf("FIGURE memory at the end: %zu B\n", last.bytes);
    printf("FIGURE resident at the beginning: %zu KiB\n", first.resident);
    printf("FIGURE resident at the end: %zu KiB\n", last.resident);
    CHECK(xlevent_wait_cancel(watchers.waits) == 0);
    finish_thread(watchers.thread);
    CHECK(xlevent_subscriber_free(watchers.shared, watchers.subscriber) == 0);
    close_context(watchers.waits);
    close_context(watchers.called_back);
    close_context(watchers.hooked);
    close_context(watchers.shared);
}

/* ---- many generators, and nobody who reads ---- */

/* Several for each domain, and some for numbers that there are no domains of. */
enum { FOR_EACH = 4, BATCH = 2000 };

static void expect_queued(libxl_ctx *ctx, uint64_t count)
{
    while (stats_of(ctx).events_queued < count)
        poll_once(ctx, 1000);
    host_settle();
    poll_once(ctx, 0);
    if (stats_of(ctx).events_queued != count)
        FAIL("%llu events are queued, not %llu", (unsigned long long)stats_of(ctx).events_queued, (unsigned long long)count);
}

/* Fetches all: one for each generator. */
static void drain(libxl_ctx *ctx, uint32_t count, libxl_event_type type, unsigned char *told)
{
    libxl_event *event;
    uint32_t i;

    memset(told, 0, count);
    for (i = 0; i < count; i++) {
        CHECK(libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == 0);
        CHECK(event->type == type && event->for_user < count);
        if (told[event->for_user]++)
            FAIL("generator %llu has told twice", (unsigned long long)event->for_user);
        libxl_event_free(ctx, event);
    }
    expect_nothing_queued(ctx);
}

static void generators(uint32_t count)
{
    uint32_t domains = count / FOR_EACH, i, end;
    libxl_evgen_domain_death **evgens = calloc(count, sizeof *evgens);
    unsigned char *told = calloc(count, 1);
    libxl_ctx *ctx = open_with(&queue_all, NULL);
    struct held empty, enabled, full, drained;
    struct xlevent_stats stats;
    uint64_t said, scans = 0;
    int rounds;

    CHECK(evgens && told);
    for (i = 0; i < domains; i += end) {
        end = domains - i < BATCH ? domains - i : BATCH;
        host_create_many(FIRST + i, end);
    }
    /* What looks at so many domains take is kept for the next: it is not counted. */
    for (rounds = 0; rounds < 2; rounds++) {
        empty = held(SIZE_MAX, INT_MAX);
        for (i = 0; i < count; i++)
            evgens[i] = enable(ctx, FIRST + i % domains, i);
        while (stats_of(ctx).scans == scans)
            poll_once(ctx, 1000);
        scans = stats_of(ctx).scans;
        enabled = held(SIZE_MAX, INT_MAX);
        for (i = 0; i < count && rounds == 0; i++)
            libxl_evdisable_domain_death(ctx, evgens[i]);
    }
    CHECK(stats_of(ctx).death_generators == count && stats_of(ctx).events_queued == 0);
    host_shutdown_many(FIRST, domains, CRASH);
    expect_queued(ctx, count);
    full = held(SIZE_MAX, INT_MAX);
    said = stats_of(ctx).events_queued_bytes;
    drain(ctx, count, LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN, told);
    drained = held(enabled.bytes + ROOM_KEPT, INT_MAX);
    if (drained.bytes > enabled.bytes + ROOM_KEPT)
        FAIL("when all is read, %zu bytes more are taken than before", drained.bytes - enabled.bytes);
    if (said < (full.bytes - enabled.bytes) * 8 / 10 || said > (full.bytes - enabled.bytes) * 12 / 10)
        FAIL("the counters speak of %llu bytes, malloc of %zu", (unsigned long long)said, full.bytes - enabled.bytes);
    host_destroy_many(FIRST, domains);
    expect_queued(ctx, count);
    drain(ctx, count, LIBXL_EVENT_TYPE_DOMAIN_DEATH, told);
    stats = stats_of(ctx);
    CHECK(stats.events_queued == 0 && stats.events_queued_most == count && stats.disasters == 0);
    CHECK(stats.events_domain_shutdown == count && stats.events_domain_death == count);
    for (i = 0; i < count; i++)
        libxl_evdisable_domain_death(ctx, evgens[i]);
    drained = held(empty.bytes + ROOM_KEPT, INT_MAX);
    if (drained.bytes > empty.bytes + ROOM_KEPT)
        FAIL("without generators, %zu bytes more are taken than before", drained.bytes - empty.bytes);
    printf("PASS %u generators for %u domains: two events each, and once\n", count, domains);
    printf("PASS a queue that nobody reads: the counters say what it takes, and it is given back when it is read\n");
    printf("FIGURE memory for each generator: %zu B\n", (enabled.bytes - empty.bytes) / count);
    printf("FIGURE memory for each event that nobody reads: %zu B\n", (full.bytes - enabled.bytes) / count);
    printf("FIGURE of that by the counters: %llu B\n", (unsigned long long)said / count);
    printf("FIGURE of that still taken when all have been read: %zu B\n",
           drained.bytes > empty.bytes ? drained.bytes - empty.bytes : 0);
    free(evgens);
    free(told);
    close_context(ctx);
}

int main(int argc, char **argv)
{
    find_column();
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 3)
        FAIL("usage: soak cycles EVENTS [LEAK] | soak generators COUNT");
    unsetenv("LD_PRELOAD");
    host_bring_up();
    leak_bytes = argc > 3 ? strtoul(argv[3], NULL, 0) : 0;
    if (strcmp(argv[1], "cycles") == 0)
        cycles(strtoull(argv[2], NULL, 0));
    else
        generators((uint32_t)strtoul(argv[2], NULL, 0));
    return 0;
}
