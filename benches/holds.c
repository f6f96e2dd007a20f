/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the library holds: memory for generators and queued events, descriptors and threads. See bench.h. */
#include <dirent.h>
#include <malloc.h>

#include "bench.h"

static void result(uint64_t value)
{
    samples[0] = value;
    hypercalls[0] = 0;
    sample_count = 1;
}

/* What malloc has given out, its own bookkeeping included, in this process. */
static uint64_t allocated(void)
{
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

static unsigned entries(const char *directory)
{
    DIR *open = opendir(directory);
    unsigned found = 0;

    if (!open)
        DIE("%s can't be listed", directory);
    while (readdir(open))
        found++;
    closedir(open);
    return found;
}

/* Bytes for each of `count` generators; what the first brings with it (a watch, a thread) is there already. */
static void op_generator_bytes(unsigned rounds)
{
    uint64_t before;
    unsigned i;

    (void)rounds;
    watch(1);
    create(domid_of(1), count);
    before = allocated();
    for (i = 1; i <= count; i++)
        enable(domid_of(i));
    turn_until_quiet();
    result((allocated() - before) / count);
}

/* Bytes for each of `count` queued events, their generators not counted. */
static void op_event_bytes(unsigned rounds)
{
    uint64_t before;
    unsigned i;

    (void)rounds;
    create(FIRST, 1);
    for (i = 0; i < count; i++)
        enable(FIRST);
    turn_until_quiet();
    before = allocated();
    shut_down(FIRST);
    while (readable(200))
        libxl_osevent_afterpoll(ctx, nfds, fds, now);
    result((allocated() - before) / count);
    retrieve_all();
    if (events_seen != count)
        DIE("%u events, not %u", events_seen, count);
}

static void look_once(void)
{
    readable(0);
}

static void wait_once(void)
{
    libxl_event *event;

    shut_down(FIRST);
    must(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), "libxl_event_wait");
    libxl_event_free(ctx, event);
}

/* What a context that watches a domain, and is used so, adds to a directory of the process. */
static void held_by_a_context(const char *directory, void (*use)(void))
{
    unsigned before;

    libxl_ctx_free(ctx);
    before = entries(directory);
    must(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, logger), "libxl_ctx_alloc");
    create(FIRST, 1);
    enable(FIRST);
    use();
    result(entries(directory) - before);
}

/* In a loop of the application's. */
static void op_descriptors_loop(unsigned rounds)
{
    (void)rounds;
    held_by_a_context("/proc/self/fd", look_once);
}

/* In libxl_event_wait. */
static void op_descriptors_wait(unsigned rounds)
{
    (void)rounds;
    held_by_a_context("/proc/self/fd", wait_once);
}

static void op_threads(unsigned rounds)
{
    (void)rounds;
    held_by_a_context("/proc/self/task", wait_once);
}

const struct operation holds_operations[] = {
    { "generator-bytes", op_generator_bytes, "bytes" },
    { "event-bytes", op_event_bytes, "bytes" },
    { "descriptors-loop", op_descriptors_loop, "descriptors" },
    { "descriptors-wait", op_descriptors_wait, "descriptors" },
    { "threads", op_threads, "threads" },
    { NULL, NULL, NULL },
};
