/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What libxl_event.h's functions cost: see bench.h. */
#include <string.h>
#include <time.h>

#include "bench.h"

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
    /* The first finds the allocator with what the watches have left behind. */
    enable_and_disable(&domid);
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
    queue_shutdowns(count);
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
    queue_shutdowns(count);
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

const struct operation events_operations[] = {
    { "release", op_release, NULL },
    { "release-hooks", op_release_hooks, NULL },
    { "release-100", op_release_100, NULL },
    { "shutdown", op_shutdown, NULL },
    { "mass-shutdown", op_mass, NULL },
    { "one-by-one", op_one_by_one, NULL },
    { "enable-start", op_enable_start, NULL },
    { "enable-middle", op_enable_middle, NULL },
    { "enable-end", op_enable_end, NULL },
    { "check-mask", op_check_mask, NULL },
    { "check-predicate", op_check_predicate, NULL },
    { "poll-idle-x1000", op_poll_idle_x1000, NULL },
    { "context", op_context, NULL },
    { "context-watch", op_context_watch, NULL },
    { NULL, NULL, NULL },
};
