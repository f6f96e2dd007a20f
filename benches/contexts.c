/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What many contexts in one process cost: see bench.h. */
#include <sys/resource.h>
#include <time.h>

#include "bench.h"

enum { CONTEXTS = 100, FDS_EACH = 8 };

static libxl_ctx *contexts[CONTEXTS];

/* A context has up to a dozen descriptors. */
static void allow_descriptors(void)
{
    struct rlimit limit;

    must(getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
    limit.rlim_cur = limit.rlim_max;
    must(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
}

static bool is_readable(const struct pollfd *from, const struct pollfd *to)
{
    while (from < to && !from->revents)
        from++;
    return from < to;
}

/* One loop for all of them, until none of their descriptors is readable. */
static void all_turns(void *unused)
{
    static struct pollfd all[CONTEXTS * FDS_EACH];
    struct pollfd *first[CONTEXTS + 1];
    int i, timeout, room;
    libxl_event *event;

    (void)unused;
    for (;;) {
        first[0] = all;
        for (i = 0; i < CONTEXTS; i++) {
            timeout = 0, room = FDS_EACH;
            must(libxl_osevent_beforepoll(contexts[i], &room, first[i], &timeout, now), "libxl_osevent_beforepoll");
            first[i + 1] = first[i] + room;
        }
        if (poll(all, (nfds_t)(first[CONTEXTS] - all), 0) <= 0)
            return;
        for (i = 0; i < CONTEXTS; i++) {
            if (!is_readable(first[i], first[i + 1]))
                continue;
            libxl_osevent_afterpoll(contexts[i], (int)(first[i + 1] - first[i]), first[i], now);
            while (libxl_event_check(contexts[i], &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == 0)
                libxl_event_free(contexts[i], event);
        }
    }
}

/*
 * A release that concerns nobody, `count` domains watched, spread over a hundred contexts of the process: all that is done
 * in one loop until every context is quiet, each of them having been told when it begins.
 */
static void op_release_100_contexts(unsigned rounds)
{
    const struct timespec pause = { 0, 100000000 };
    libxl_evgen_domain_death *evgen;
    unsigned i;

    allow_descriptors();
    create(FIRST, count);
    for (i = 0; i < CONTEXTS; i++)
        must(libxl_ctx_alloc(&contexts[i], LIBXL_VERSION, 0, logger), "libxl_ctx_alloc");
    for (i = 0; i < count; i++)
        must(libxl_evenable_domain_death(contexts[i % CONTEXTS], domid_of(i), i, &evgen), "libxl_evenable_domain_death");
    nanosleep(&pause, NULL);
    all_turns(NULL);
    while (rounds--) {
        irrelevant_release();
        /* The thread that libxenstore has in each context takes it in meanwhile. */
        nanosleep(&pause, NULL);
        measure(all_turns, NULL);
    }
}

const struct operation contexts_operations[] = {
    { "release-100-contexts", op_release_100_contexts, NULL },
    { NULL, NULL, NULL },
};
