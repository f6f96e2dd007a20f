/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the operations are made of, and the program around them: see bench.h. */
#include <string.h>
#include <time.h>

#include "bench.h"

xensim_host *host;
xentoollog_logger *logger;
libxl_ctx *ctx;
unsigned count;

static libxl_evgen_domain_death **evgens;

/* ---- measuring ---- */

uint64_t *samples, *hypercalls;
unsigned sample_count;

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

void measure(void (*work)(void *), void *argument)
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

void must(int rc, const char *what)
{
    if (rc)
        DIE("%s: %d (%s)", what, rc, xensim_error());
}

uint32_t domid_of(unsigned index)
{
    return FIRST + index;
}

void create(uint32_t first, unsigned number)
{
    struct xensim_config config = { "bench", first, 0, 0, NULL, 0, XENSIM_NODES_NONE };

    must(xensim_create_many(host, &config, number, NULL), "creating domains");
}

void irrelevant_release(void)
{
    create(BYSTANDER, 1);
    must(xensim_destroy(host, BYSTANDER), "destroying the bystander");
    must(xensim_settle(host), "settling");
}

void shut_down(uint32_t domid)
{
    must(xensim_shutdown(host, domid, XENSIM_REASON_POWEROFF), "shutting down");
}

/* ---- the library ---- */

libxl_evgen_domain_death *enable(uint32_t domid)
{
    libxl_evgen_domain_death *evgen = NULL;

    must(libxl_evenable_domain_death(ctx, domid, domid, &evgen), "libxl_evenable_domain_death");
    return evgen;
}

struct pollfd fds[8];
int nfds;
struct timeval now;

bool readable(int timeout)
{
    nfds = 8;
    must(libxl_osevent_beforepoll(ctx, &nfds, fds, &timeout, now), "libxl_osevent_beforepoll");
    return poll(fds, (nfds_t)nfds, timeout) > 0;
}

unsigned events_seen;

void retrieve_all(void)
{
    libxl_event *event;

    while (libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == 0) {
        events_seen++;
        libxl_event_free(ctx, event);
    }
}

void turn(void *unused)
{
    (void)unused;
    libxl_osevent_afterpoll(ctx, nfds, fds, now);
    retrieve_all();
}

void turn_until_quiet(void)
{
    while (readable(50))
        turn(NULL);
}

void watch(unsigned number)
{
    unsigned i;

    create(FIRST, number);
    evgens = calloc(number ? number : 1, sizeof *evgens);
    for (i = 0; i < number; i++)
        evgens[i] = enable(domid_of(i));
    turn_until_quiet();
    events_seen = 0;
}

void measure_turns(unsigned want)
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

/* A library that doesn't look at the domain by itself does so at the release. */
void queue_shutdowns(unsigned number)
{
    libxl_event *event = NULL;
    unsigned i;

    create(FIRST, 1);
    shut_down(FIRST);
    for (i = 0; i <= number; i++)
        enable(FIRST);
    irrelevant_release();
    while (readable(200))
        libxl_osevent_afterpoll(ctx, nfds, fds, now);
    if (libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) != 0)
        DIE("nothing is queued");
    libxl_event_free(ctx, event);
}

/* ---- the program ---- */

static void say_nothing(xentoollog_logger *self, xentoollog_level level, int errnoval, const char *context,
                        const char *format, va_list arguments)
{
    (void)self, (void)level, (void)errnoval, (void)context, (void)format, (void)arguments;
}

static const struct operation *find(const struct operation *operations, const char *name)
{
    while (operations->name && strcmp(operations->name, name) != 0)
        operations++;
    return operations->name ? operations : NULL;
}

int main(int argc, char **argv)
{
    static xentoollog_logger quiet = { say_nothing, NULL, NULL };
    const struct operation *operation;
    unsigned rounds;

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
    must(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, logger), "libxl_ctx_alloc");
    operation = find(events_operations, argv[1]);
    if (!operation)
        operation = find(contexts_operations, argv[1]);
    if (!operation)
        operation = find(holds_operations, argv[1]);
    if (!operation)
        DIE("there is no operation %s", argv[1]);
    operation->run(rounds);
    printf("%s %u %u %llu %llu %s\n", operation->name, count, sample_count, (unsigned long long)median(samples),
           (unsigned long long)median(hypercalls), operation->unit ? operation->unit : "ns");
    return 0;
}
