/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What libxl_event.h costs, one operation a run: the same program is linked with libxenlight and with libxlevent, and
 * runs on the same simulated host (xensim).
 *
 * usage: events OPERATION N ROUNDS
 *
 * Prints `OPERATION N ROUNDS ns hypercalls`, the last two per round (medians; what one round is, is said beside each
 * operation). Only what stands between the two readings of the clock counts; callgrind counts the same when it is told
 * `--collect-atstart=no --toggle-collect=measured`.
 */
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libxl_event.h>
#include <xensim.h>
#include <xentoollog.h>

#define DIE(...)                                                                                                       \
    do {                                                                                                               \
        fprintf(stderr, "events: " __VA_ARGS__);                                                                       \
        fputc('\n', stderr);                                                                                           \
        exit(2);                                                                                                       \
    } while (0)

static xensim_host *host;
static xentoollog_logger *logger;
static libxl_ctx *ctx;
static struct timeval now;

/* Domains FIRST .. FIRST + count - 1 are watched; BYSTANDER is not. */
enum { BYSTANDER = 99, FIRST = 100 };
static unsigned count;

static libxl_evgen_domain_death **evgens;

/* ---- measuring ---- */

static uint64_t *samples, *hypercalls;
static unsigned sample_count;

static uint64_t clock_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t count_hypercalls(void)
{
    return xensim_count(host, XENSIM_CALL_GETDOMAININFOLIST) + xensim_count(host, XENSIM_CALL_GETDOMAININFO);
}

/* The one function whose instructions count. */
void measured(void (*work)(void *), void *argument);

__attribute__((noinline)) void measured(void (*work)(void *), void *argument)
{
    work(argument);
    __asm__ volatile("" ::: "memory");
}

static void measure(void (*work)(void *), void *argument)
{
    uint64_t calls = count_hypercalls(), begin = clock_ns(), end;

    measured(work, argument);
    end = clock_ns();
    samples[sample_count] = end - begin;
    hypercalls[sample_count++] = count_hypercalls() - calls;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static uint64_t median(uint64_t *values)
{
    qsort(values, sample_count, sizeof *values, by_size);
    return sample_count ? values[sample_count / 2] : 0;
}

/* ---- the host ---- */

static void must(int rc, const char *what)
{
    if (rc)
        DIE("%s: %d (%s)", what, rc, xensim_error());
}

static uint32_t domid_of(unsigned index)
{
    return FIRST + index;
}

/* `number` domains from `first` on, without nodes in the store: nobody here looks at those. */
static void create(uint32_t first, unsigned number)
{
    struct xensim_config config = { "bench", first, 0, 0, NULL, 0, XENSIM_NODES_NONE };

    must(xensim_create_many(host, &config, number, NULL), "creating domains");
}

/* One firing of @releaseDomain that concerns nobody; what xenstored had to do is done. */
static void irrelevant_release(void)
{
    create(BYSTANDER, 1);
    must(xensim_destroy(host, BYSTANDER), "destroying the bystander");
    must(xensim_settle(host), "settling");
}

static void shut_down(uint32_t domid)
{
    must(xensim_shutdown(host, domid, XENSIM_REASON_POWEROFF), "shutting down");
}

/* ---- the library ---- */

static void open_context(void)
{
    must(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, logger), "libxl_ctx_alloc");
}

static libxl_evgen_domain_death *enable(uint32_t domid)
{
    libxl_evgen_domain_death *evgen = NULL;

    must(libxl_evenable_domain_death(ctx, domid, domid, &evgen), "libxl_evenable_domain_death");
    return evgen;
}

/* Whether the library's descriptors are readable within so many milliseconds; *fds is as after poll. */
static struct pollfd fds[8];
static int nfds;

static bool readable(int timeout)
{
    nfds = 8;
    must(libxl_osevent_beforepoll(ctx, &nfds, fds, &timeout, now), "libxl_osevent_beforepoll");
    return poll(fds, (nfds_t)nfds, timeout) > 0;
}

static unsigned events_seen;

static void retrieve_all(void)
{
    libxl_event *event;

    while (libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == 0) {
        events_seen++;
        libxl_event_free(ctx, event);
    }
}

/* What a poll loop does when its descriptors are readable. */
static void turn(void *unused)
{
    (void)unused;
    libxl_osevent_afterpoll(ctx, nfds, fds, now);
    retrieve_all();
}

static void turn_until_quiet(void)
{
    while (readable(50))
        turn(NULL);
}

/* Creates `number` domains, and watches them. */
static void watch(unsigned number)
{
    unsigned i;

    create(FIRST, number);
    evgens = calloc(number ? number : 1, sizeof *evgens);
    for (i = 0; i < number; i++)
        evgens[i] = enable(domid_of(i));
    turn_until_quiet();
    events_seen = 0;
}

/* Waits (outside the measurement) until there is something, then measures turns until `want` events have come. */
static void measure_turns(unsigned want)
{
    uint64_t ns = 0, calls = 0;
    unsigned first = sample_count;

    events_seen = 0;
    do {
        if (!readable(10000))
            DIE("nothing comes");
        measure(turn, NULL);
        ns += samples[sample_count - 1];
        calls += hypercalls[sample_count - 1];
        sample_count = first;
    } while (events_seen < want);
    samples[first] = ns;
    hypercalls[first] = calls;
    sample_count = first + 1;
}

/* ---- operations; one round each ---- */

/* A release that concerns nobody, `count` domains watched. */
static void op_release(unsigned rounds)
{
    watch(count);
    while (rounds--) {
        irrelevant_release();
        measure_turns(0);
        turn_until_quiet();
    }
}

/* The same, a hundred of them before the loop comes to it. */
static void op_release_100(unsigned rounds)
{
    struct timespec pause = { 0, 50000000 };
    int i;

    watch(count);
    while (rounds--) {
        uint64_t ns = 0, calls = 0;
        unsigned first = sample_count;

        for (i = 0; i < 100; i++)
            irrelevant_release();
        /* libxenstore's thread takes them in meanwhile. */
        nanosleep(&pause, NULL);
        while (readable(0)) {
            measure(turn, NULL);
            ns += samples[sample_count - 1];
            calls += hypercalls[sample_count - 1];
            sample_count = first;
        }
        samples[first] = ns;
        hypercalls[first] = calls;
        sample_count = first + 1;
    }
}

/* One of `count` watched domains shuts down: until its event is there and freed. */
static void op_shutdown(unsigned rounds)
{
    unsigned i;

    watch(count);
    for (i = 0; i < rounds && i < count; i++) {
        shut_down(domid_of(i));
        measure_turns(1);
        turn_until_quiet();
    }
}

/* All of `count` shut down at once: until all events are there and freed. A round needs new domains. */
static void op_mass(unsigned rounds)
{
    uint32_t *domids;
    unsigned i;

    (void)rounds;
    watch(count);
    domids = calloc(count, sizeof *domids);
    for (i = 0; i < count; i++)
        domids[i] = domid_of(i);
    if (xensim_change_many(host, domids, count, XENSIM_CHANGE_SHUTDOWN, XENSIM_REASON_POWEROFF) != (long)count)
        DIE("shutting all down: %s", xensim_error());
    free(domids);
    must(xensim_settle(host), "settling");
    measure_turns(count);
}

/* All of `count`, one by one, each event taken before the next; the whole of it is the round. */
static void op_one_by_one(unsigned rounds)
{
    uint64_t ns = 0, calls = 0;
    unsigned i;

    (void)rounds;
    watch(count);
    for (i = 0; i < count; i++) {
        shut_down(domid_of(i));
        measure_turns(1);
        ns += samples[0];
        calls += hypercalls[0];
        sample_count = 0;
    }
    samples[0] = ns;
    hypercalls[0] = calls;
    sample_count = 1;
}

/* A generator is enabled and disabled again, `count` others being there. */
static void enable_and_disable(void *domid)
{
    libxl_evdisable_domain_death(ctx, enable(*(uint32_t *)domid));
}

static void enable_disable(unsigned rounds, uint32_t domid)
{
    watch(count);
    while (rounds--)
        measure(enable_and_disable, &domid);
}

static void op_enable_start(unsigned rounds)
{
    enable_disable(rounds, domid_of(0));
}

static void op_enable_middle(unsigned rounds)
{
    enable_disable(rounds, domid_of(count / 2));
}

static void op_enable_end(unsigned rounds)
{
    enable_disable(rounds, domid_of(count ? count - 1 : 0));
}

/* `count` SHUTDOWN events are queued. */
static void queue_shutdowns(void)
{
    unsigned i;
    libxl_event *event = NULL;

    create(FIRST, 1);
    shut_down(FIRST);
    for (i = 0; i < count; i++)
        enable(FIRST);
    /* A library that doesn't look at the domain by itself does so at the next release. */
    irrelevant_release();
    while (readable(200))
        libxl_osevent_afterpoll(ctx, nfds, fds, now);
    if (libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) != 0)
        DIE("nothing is queued");
    libxl_event_free(ctx, event);
}

static void check_deaths(void *unused)
{
    libxl_event *event;

    (void)unused;
    if (libxl_event_check(ctx, &event, 1u << LIBXL_EVENT_TYPE_DOMAIN_DEATH, NULL, NULL) != ERROR_NOT_READY)
        DIE("a death, where there are only shutdowns");
}

/* A look for deaths past `count` queued shutdowns. */
static void op_check_mask(unsigned rounds)
{
    queue_shutdowns();
    while (rounds--)
        measure(check_deaths, NULL);
}

static int unwanted(const libxl_event *event, void *user)
{
    return event->for_user == (uint64_t)(uintptr_t)user;
}

static void check_unwanted(void *unused)
{
    libxl_event *event;

    (void)unused;
    if (libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, unwanted, (void *)1) != ERROR_NOT_READY)
        DIE("a predicate's no was taken for a yes");
}

/* A predicate that rejects all of `count` queued events. */
static void op_check_predicate(unsigned rounds)
{
    queue_shutdowns();
    while (rounds--)
        measure(check_unwanted, NULL);
}

static void before_and_after(void *unused)
{
    int timeout = -1;

    (void)unused;
    nfds = 8;
    libxl_osevent_beforepoll(ctx, &nfds, fds, &timeout, now);
    libxl_osevent_afterpoll(ctx, nfds, fds, now);
}

static void before_and_after_1000(void *unused)
{
    int i;

    for (i = 0; i < 1000; i++)
        before_and_after(unused);
}

/* beforepoll and afterpoll with nothing to do, a thousand times, `count` domains watched. */
static void op_poll_idle_x1000(unsigned rounds)
{
    watch(count);
    memset(fds, 0, sizeof fds);
    while (rounds--)
        measure(before_and_after_1000, NULL);
}

/* ---- hooks ---- */

static struct hooked {
    int fd;
    short events;
    void *for_libxl;
} hooked[16];
static int hooked_count;

static int fd_register(void *user, int fd, void **registration, short events, void *for_libxl)
{
    (void)user;
    hooked[hooked_count] = (struct hooked){ fd, events, for_libxl };
    *registration = &hooked[hooked_count++];
    return 0;
}

static int fd_modify(void *user, int fd, void **registration, short events)
{
    (void)user, (void)fd;
    ((struct hooked *)*registration)->events = events;
    return 0;
}

static void fd_deregister(void *user, int fd, void *registration)
{
    (void)user, (void)fd;
    ((struct hooked *)registration)->fd = -1;
}

static int timeout_register(void *user, void **registration, struct timeval abs, void *for_libxl)
{
    (void)user, (void)registration, (void)abs, (void)for_libxl;
    return 0;
}

static int timeout_modify(void *user, void **registration, struct timeval abs)
{
    (void)user, (void)registration, (void)abs;
    return 0;
}

static void timeout_deregister(void *user, void *registration)
{
    (void)user, (void)registration;
}

static const libxl_osevent_hooks hooks = {
    fd_register, fd_modify, fd_deregister, timeout_register, timeout_modify, timeout_deregister
};

static bool hooks_readable(int timeout)
{
    int i;

    for (i = 0; i < hooked_count; i++)
        fds[i] = (struct pollfd){ hooked[i].fd, hooked[i].events, 0 };
    return poll(fds, (nfds_t)hooked_count, timeout) > 0;
}

static void occurred(void *unused)
{
    int i;

    (void)unused;
    for (i = 0; i < hooked_count; i++)
        if (fds[i].revents)
            libxl_osevent_occurred_fd(ctx, hooked[i].for_libxl, fds[i].fd, fds[i].events, fds[i].revents);
    retrieve_all();
}

/* A release that concerns nobody, by hooks, `count` domains watched. */
static void op_release_hooks(unsigned rounds)
{
    unsigned i;

    libxl_osevent_register_hooks(ctx, &hooks, NULL);
    create(FIRST, count);
    for (i = 0; i < count; i++)
        enable(domid_of(i));
    while (hooks_readable(50))
        occurred(NULL);
    while (rounds--) {
        irrelevant_release();
        if (!hooks_readable(10000))
            DIE("nothing comes");
        measure(occurred, NULL);
        while (hooks_readable(50))
            occurred(NULL);
    }
}

/* ---- contexts ---- */

static void alloc_and_free(void *unused)
{
    libxl_ctx *other;

    (void)unused;
    must(libxl_ctx_alloc(&other, LIBXL_VERSION, 0, logger), "libxl_ctx_alloc");
    libxl_ctx_free(other);
}

static void op_context(unsigned rounds)
{
    while (rounds--)
        measure(alloc_and_free, NULL);
}

static void alloc_watch_and_free(void *unused)
{
    libxl_ctx *other;
    libxl_evgen_domain_death *evgen;

    (void)unused;
    must(libxl_ctx_alloc(&other, LIBXL_VERSION, 0, logger), "libxl_ctx_alloc");
    must(libxl_evenable_domain_death(other, 0, 0, &evgen), "libxl_evenable_domain_death");
    libxl_ctx_free(other);
}

/* A context that has watched something. */
static void op_context_watch(unsigned rounds)
{
    while (rounds--)
        measure(alloc_watch_and_free, NULL);
}

static const struct operation {
    const char *name;
    void (*run)(unsigned rounds);
} operations[] = {
    { "release", op_release },
    { "release-hooks", op_release_hooks },
    { "release-100", op_release_100 },
    { "shutdown", op_shutdown },
    { "mass-shutdown", op_mass },
    { "one-by-one", op_one_by_one },
    { "enable-start", op_enable_start },
    { "enable-middle", op_enable_middle },
    { "enable-end", op_enable_end },
    { "check-mask", op_check_mask },
    { "check-predicate", op_check_predicate },
    { "poll-idle-x1000", op_poll_idle_x1000 },
    { "context", op_context },
    { "context-watch", op_context_watch },
};

static void say_nothing(xentoollog_logger *self, xentoollog_level level, int errnoval, const char *context,
                        const char *format, va_list arguments)
{
    (void)self, (void)level, (void)errnoval, (void)context, (void)format, (void)arguments;
}

int main(int argc, char **argv)
{
    /* As xl has it: what isn't wanted is dropped by the logger. */
    static xentoollog_logger quiet = { say_nothing, NULL, NULL };
    unsigned rounds;
    size_t i;

    if (argc != 4)
        DIE("usage: events OPERATION N ROUNDS");
    count = (unsigned)strtoul(argv[2], NULL, 10);
    rounds = (unsigned)strtoul(argv[3], NULL, 10);
    logger = &quiet;
    host = xensim_attach(NULL);
    samples = calloc(rounds + 2, sizeof *samples);
    hypercalls = calloc(rounds + 2, sizeof *hypercalls);
    if (!host || !samples || !hypercalls)
        DIE("no simulated host (run this by benches/run)");
    open_context();
    for (i = 0; i < sizeof operations / sizeof *operations; i++) {
        if (strcmp(operations[i].name, argv[1]) == 0) {
            operations[i].run(rounds);
            printf("%s %u %u %llu %llu\n", argv[1], count, sample_count, (unsigned long long)median(samples),
                   (unsigned long long)median(hypercalls));
            return 0;
        }
    }
    DIE("there is no operation %s", argv[1]);
}
