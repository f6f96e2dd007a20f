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
#include <dirent.h>
#include <limits.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef XLEVENT_STANDALONE
#include <libxl_event.h>
#else
#include <libxl.h>
#endif
#include <xensim.h>
#include <xentoollog.h>

#include "harness/ours.h"

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    printf("FAIL ");
    vprintf(format, arguments);
    printf("\n");
    fflush(stdout);
    _exit(1);
}

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            fail("line %d: %s", __LINE__, #condition);                                                                 \
    } while (0)

#define DO(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) < 0)                                                                                                \
            fail("%s: %s", #call, xensim_error());                                                                     \
    } while (0)

static xensim_host *host;

/* ---- what this process holds ---- */

struct held {
    /* Of the allocator, and of the system in KiB. */
    size_t bytes, resident;
    int fds, threads;
};

static int entries(const char *path)
{
    DIR *dir = opendir(path);
    int count = 0;

    CHECK(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

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

    for (i = 0; i < 6000 && (bytes_held() > bytes || entries("/proc/self/task") > threads); i++)
        usleep(5000);
    malloc_trim(0);
    held.fds = entries("/proc/self/fd");
    held.threads = entries("/proc/self/task");
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
    fail("a disaster: %s (errno %d)", message, errnoval);
}

static void log_line(xentoollog_logger *logger, xentoollog_level level, int errnoval, const char *context,
                     const char *format, va_list arguments)
{
    (void)logger, (void)context;
    if (level < XTL_WARN)
        return;
    vfprintf(stderr, format, arguments);
    fprintf(stderr, " (errno %d)\n", errnoval);
}

static xentoollog_logger logger = { log_line, NULL, NULL };

static const libxl_event_hooks queue_all = { .disaster = disaster };
static const libxl_event_hooks call_back_all = { .event_occurs_mask = LIBXL_EVENTMASK_ALL,
                                                 .event_occurs = occurs,
                                                 .disaster = disaster };

static libxl_ctx *open_context(const libxl_event_hooks *hooks, libxl_ctx **user)
{
    libxl_ctx *ctx;

    CHECK(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &logger) == 0);
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

static void go_round(libxl_ctx *ctx, int timeout_ms)
{
    struct timeval now = { 0, 0 };
    struct pollfd fds[8];
    int count = 8, timeout = -1;

    CHECK(libxl_osevent_beforepoll(ctx, &count, fds, &timeout, now) == 0);
    poll(fds, (nfds_t)count, timeout_ms);
    libxl_osevent_afterpoll(ctx, count, fds, now);
}

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
    fail("a timeout");
}

static int timeout_modify(void *user, void **registration, struct timeval at)
{
    (void)user, (void)registration, (void)at;
    fail("a timeout");
}

static void timeout_deregister(void *user, void *registration)
{
    (void)user, (void)registration;
    fail("a timeout");
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

static uint32_t domids[DOMAINS];

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
    char path[200], backend[200];
    int i;

    for (i = 0; i < DOMAINS; i++) {
        CHECK(libxl_evenable_domain_death(watchers.waits, domids[i], 1, &deaths[0][i]) == 0);
        CHECK(libxl_evenable_domain_death(watchers.called_back, domids[i], 2, &deaths[1][i]) == 0);
        CHECK(libxl_evenable_domain_death(watchers.called_back, domids[i], 3, &deaths[2][i]) == 0);
        CHECK(libxl_evenable_domain_death(watchers.hooked, domids[i], 4, &deaths[3][i]) == 0);
        CHECK(xlevent_subscriber_evenable_domain_death(watchers.shared, watchers.subscriber, domids[i], 5,
                                                       &deaths[4][i]) == 0);
        CHECK(libxl_evenable_domain_state(watchers.shared, domids[i], ends, 6, &states[i]) == 0);
        /* They go with their context. */
        CHECK(libxl_evenable_domain_death(passing, domids[i], 7, &(libxl_evgen_domain_death *){ NULL }) == 0);
    }
    for (i = 0; i < DRIVES; i++) {
        /* As the toolstack has it; the guest's own node isn't believed. */
        snprintf(path, sizeof path, "/libxl/%u/device/vbd/5632/backend", domids[i]);
        snprintf(backend, sizeof backend, "/local/domain/0/backend/qdisk/%u/5632", domids[i]);
        DO(xensim_store_write(host, path, backend));
        CHECK(libxl_evenable_disk_eject(watchers.called_back, domids[i], "hdc", 8, &drives[i]) == 0);
        snprintf(path, sizeof path, "/local/domain/%u/device/vbd/5632/eject", domids[i]);
        DO(xensim_store_write(host, path, "eject"));
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

/* Longer than anything takes on a busy machine. */
enum { PATIENCE_S = 1200 };

/* All that come of one thing, from all of them. */
static void take_in_until(uint64_t count, libxl_ctx *passing)
{
    time_t begin = time(NULL);
    libxl_event *event;

    while (__atomic_load_n(&events, __ATOMIC_SEQ_CST) < count) {
        if (time(NULL) > begin + PATIENCE_S)
            fail("%llu events, where there were to be %llu", (unsigned long long)events, (unsigned long long)count);
        go_round(watchers.called_back, 0);
        go_round(watchers.shared, 0);
        while (libxl_event_check(watchers.shared, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == 0)
            take(event, watchers.shared);
        while (xlevent_subscriber_check(watchers.shared, watchers.subscriber, &event, LIBXL_EVENTMASK_ALL, NULL,
                                        NULL) == 0)
            take(event, watchers.shared);
        if (hooked.fd >= 0)
            go_round_with_hooks(watchers.hooked);
        while (libxl_event_check(watchers.hooked, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == 0)
            take(event, watchers.hooked);
        go_round(passing, 0);
        while (libxl_event_check(passing, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == 0)
            take(event, passing);
    }
    if (__atomic_load_n(&events, __ATOMIC_SEQ_CST) != count)
        fail("%llu events, where there were to be %llu", (unsigned long long)events, (unsigned long long)count);
}

static void cycle(void)
{
    struct xensim_config config = { .name = "guest", .domid = FIRST, .nodes = XENSIM_NODES_NONE };
    libxl_ctx *passing = NULL;
    uint64_t before = events;

    DO(xensim_create_many(host, &config, DOMAINS, domids));
    passing = open_context(&queue_all, NULL);
    enable_all(passing);
    take_in_until(before + DRIVES, passing);
    DO(xensim_change_many(host, domids, DOMAINS, XENSIM_CHANGE_SHUTDOWN, XENSIM_REASON_CRASH));
    take_in_until(before + DRIVES + 7 * DOMAINS, passing);
    /* What it is about to be told of goes with it. */
    DO(xensim_destroy_many(host, domids, DOMAINS, 0));
    DO(xensim_settle(host));
    CHECK(libxl_ctx_free(passing) == 0);
    passing = open_context(&queue_all, NULL);
    take_in_until(before + DRIVES + 13 * DOMAINS, passing);
    CHECK(libxl_ctx_free(passing) == 0);
    disable_all();
    DO(xensim_store_remove(host, "/local/domain"));
    DO(xensim_store_remove(host, "/libxl"));
}

/*
 * Has a context look at all the domains by itself, so that it has what that takes. In the cycles, one context looks for all
 * that have been told of something, and which one it is, is chance.
 */
static void look_alone(libxl_ctx *ctx, unsigned generators)
{
    struct xensim_config config = { .name = "guest", .domid = FIRST, .nodes = XENSIM_NODES_NONE };
    uint64_t before = events;
    libxl_event *event;
    unsigned i, each;

    CHECK(generators <= GENERATORS);
    DO(xensim_create_many(host, &config, DOMAINS, domids));
    for (each = 0; each < generators; each++)
        for (i = 0; i < DOMAINS; i++)
            CHECK(libxl_evenable_domain_death(ctx, domids[i], 1, &deaths[each][i]) == 0);
    DO(xensim_change_many(host, domids, DOMAINS, XENSIM_CHANGE_SHUTDOWN, XENSIM_REASON_CRASH));
    DO(xensim_settle(host));
    while (__atomic_load_n(&events, __ATOMIC_SEQ_CST) < before + 2 * generators * DOMAINS) {
        if (ctx == watchers.hooked)
            go_round_with_hooks(ctx);
        else
            go_round(ctx, 10);
        while (ctx != watchers.waits && libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == 0)
            take(event, ctx);
        if (domids[0] && __atomic_load_n(&events, __ATOMIC_SEQ_CST) == before + generators * DOMAINS) {
            DO(xensim_destroy_many(host, domids, DOMAINS, 0));
            domids[0] = 0;
        }
    }
    domids[0] = FIRST;
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

    watchers.waits = open_context(&queue_all, NULL);
    watchers.called_back = open_context(&call_back_all, &watchers.called_back);
    watchers.hooked = open_context(&queue_all, NULL);
    libxl_osevent_register_hooks(watchers.hooked, &os_hooks, NULL);
    watchers.shared = open_context(&queue_all, NULL);
    CHECK(xlevent_subscriber_new(watchers.shared, &watchers.subscriber) == 0);
    CHECK(pthread_create(&watchers.thread, NULL, wait_for_events, watchers.waits) == 0);
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
        if (entries("/proc/self/task") < first.threads)
            first.threads = entries("/proc/self/task");
    }
    printf("    %zu bytes, %zu KiB, %d descriptors, %d threads\n", first.bytes, first.resident, first.fds, first.threads);
    for (warm = events; events < warm + wanted; count++) {
        cycle();
        last = held(first.bytes + BYTES_MORE, first.threads);
        if (last.bytes > first.bytes + BYTES_MORE)
            fail("after %llu events %zu bytes of memory are taken, %zu more than before", (unsigned long long)(events - warm),
                 last.bytes, last.bytes - first.bytes);
        if (last.resident > first.resident + RESIDENT_KIB_MORE)
            fail("after %llu events %zu KiB are resident, %zu more than before", (unsigned long long)(events - warm),
                 last.resident, last.resident - first.resident);
        if (last.fds != first.fds || last.threads != first.threads)
            fail("after %llu events %d descriptors and %d threads, not %d and %d", (unsigned long long)(events - warm),
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
    pthread_join(watchers.thread, NULL);
    CHECK(xlevent_subscriber_free(watchers.shared, watchers.subscriber) == 0);
    CHECK(libxl_ctx_free(watchers.waits) == 0);
    CHECK(libxl_ctx_free(watchers.called_back) == 0);
    CHECK(libxl_ctx_free(watchers.hooked) == 0);
    CHECK(libxl_ctx_free(watchers.shared) == 0);
}

/* ---- many generators, and nobody who reads ---- */

/* Several for each domain, and some for numbers that there are no domains of. */
enum { FOR_EACH = 4, BATCH = 2000 };

static void expect_queued(libxl_ctx *ctx, uint64_t count)
{
    while (stats_of(ctx).events_queued < count)
        go_round(ctx, 1000);
    DO(xensim_settle(host));
    go_round(ctx, 0);
    if (stats_of(ctx).events_queued != count)
        fail("%llu events are queued, not %llu", (unsigned long long)stats_of(ctx).events_queued, (unsigned long long)count);
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
            fail("generator %llu has told twice", (unsigned long long)event->for_user);
        libxl_event_free(ctx, event);
    }
    CHECK(libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == ERROR_NOT_READY);
}

static void generators(uint32_t count)
{
    uint32_t domains = count / FOR_EACH, i, end;
    struct xensim_config config = { .name = "guest", .domid = FIRST, .nodes = XENSIM_NODES_NONE };
    libxl_evgen_domain_death **evgens = calloc(count, sizeof *evgens);
    uint32_t *numbers = calloc(domains, sizeof *numbers);
    unsigned char *told = calloc(count, 1);
    libxl_ctx *ctx = open_context(&queue_all, NULL);
    struct held empty, enabled, full, drained;
    struct xlevent_stats stats;
    uint64_t said, scans = 0;
    int rounds;

    CHECK(evgens && numbers && told);
    for (i = 0; i < domains; i += end) {
        end = domains - i < BATCH ? domains - i : BATCH;
        config.domid = FIRST + i;
        DO(xensim_create_many(host, &config, end, numbers + i));
    }
    /* What looks at so many domains take is kept for the next: it is not counted. */
    for (rounds = 0; rounds < 2; rounds++) {
        empty = held(SIZE_MAX, INT_MAX);
        for (i = 0; i < count; i++)
            CHECK(libxl_evenable_domain_death(ctx, FIRST + i % domains, i, &evgens[i]) == 0);
        while (stats_of(ctx).scans == scans)
            go_round(ctx, 1000);
        scans = stats_of(ctx).scans;
        enabled = held(SIZE_MAX, INT_MAX);
        for (i = 0; i < count && rounds == 0; i++)
            libxl_evdisable_domain_death(ctx, evgens[i]);
    }
    CHECK(stats_of(ctx).death_generators == count && stats_of(ctx).events_queued == 0);
    DO(xensim_change_many(host, numbers, domains, XENSIM_CHANGE_SHUTDOWN, XENSIM_REASON_CRASH));
    expect_queued(ctx, count);
    full = held(SIZE_MAX, INT_MAX);
    said = stats_of(ctx).events_queued_bytes;
    drain(ctx, count, LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN, told);
    drained = held(enabled.bytes + ROOM_KEPT, INT_MAX);
    if (drained.bytes > enabled.bytes + ROOM_KEPT)
        fail("when all is read, %zu bytes more are taken than before", drained.bytes - enabled.bytes);
    if (said < (full.bytes - enabled.bytes) * 8 / 10 || said > (full.bytes - enabled.bytes) * 12 / 10)
        fail("the counters speak of %llu bytes, malloc of %zu", (unsigned long long)said, full.bytes - enabled.bytes);
    DO(xensim_destroy_many(host, numbers, domains, 0));
    expect_queued(ctx, count);
    drain(ctx, count, LIBXL_EVENT_TYPE_DOMAIN_DEATH, told);
    stats = stats_of(ctx);
    CHECK(stats.events_queued == 0 && stats.events_queued_most == count && stats.disasters == 0);
    CHECK(stats.events_domain_shutdown == count && stats.events_domain_death == count);
    for (i = 0; i < count; i++)
        libxl_evdisable_domain_death(ctx, evgens[i]);
    drained = held(empty.bytes + ROOM_KEPT, INT_MAX);
    if (drained.bytes > empty.bytes + ROOM_KEPT)
        fail("without generators, %zu bytes more are taken than before", drained.bytes - empty.bytes);
    printf("PASS %u generators for %u domains: two events each, and once\n", count, domains);
    printf("PASS a queue that nobody reads: the counters say what it takes, and it is given back when it is read\n");
    printf("FIGURE memory for each generator: %zu B\n", (enabled.bytes - empty.bytes) / count);
    printf("FIGURE memory for each event that nobody reads: %zu B\n", (full.bytes - enabled.bytes) / count);
    printf("FIGURE of that by the counters: %llu B\n", (unsigned long long)said / count);
    printf("FIGURE of that still taken when all have been read: %zu B\n",
           drained.bytes > empty.bytes ? drained.bytes - empty.bytes : 0);
    free(evgens);
    free(numbers);
    free(told);
    CHECK(libxl_ctx_free(ctx) == 0);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 3)
        fail("usage: soak cycles EVENTS [LEAK] | soak generators COUNT");
    unsetenv("LD_PRELOAD");
    host = xensim_up(0);
    if (!host)
        fail("no simulated host: %s", xensim_error());
    leak_bytes = argc > 3 ? strtoul(argv[3], NULL, 0) : 0;
    if (strcmp(argv[1], "cycles") == 0)
        cycles(strtoull(argv[2], NULL, 0));
    else
        generators((uint32_t)strtoul(argv[2], NULL, 0));
    DO(xensim_down(host));
    return 0;
}
