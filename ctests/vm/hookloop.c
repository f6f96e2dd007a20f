/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An application's own event loop, as libxl_osevent_register_hooks expects one:
 * a register of descriptors and timeouts that libxl adds to and takes from, and
 * a turn that waits for them and tells libxl which occurred.
 *
 * Invariants: libxl may change the register from within any call into it, so a
 * turn walks a list that only ever grows in front of it, entries that libxl took
 * back are freed between turns, and one that is gone is never reported.
 * The same descriptor may be registered more than once.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

#include "observe.h"

struct entry {
    struct entry *next;
    bool gone;
    bool is_timeout;
    int fd;
    short events, revents;
    struct timeval abs;
    void *for_libxl;
};

static struct entry *entries;
static struct pollfd *fds;
static size_t fds_room;

static struct entry *add(void *for_libxl)
{
    struct entry *entry = calloc(1, sizeof *entry);

    if (entry) {
        entry->for_libxl = for_libxl;
        entry->next = entries;
        entries = entry;
    }
    return entry;
}

static int fd_register(void *user, int fd, void **for_app, short events, void *for_libxl)
{
    struct entry *entry = add(for_libxl);

    (void)user;
    if (!entry)
        return ERROR_OSEVENT_REG_FAIL;
    entry->fd = fd;
    entry->events = events;
    *for_app = entry;
    return 0;
}

static int fd_modify(void *user, int fd, void **for_app, short events)
{
    struct entry *entry = *for_app;

    (void)user;
    (void)fd;
    entry->events = events;
    return 0;
}

static void fd_deregister(void *user, int fd, void *for_app)
{
    struct entry *entry = for_app;

    (void)user;
    (void)fd;
    entry->gone = true;
}

static int timeout_register(void *user, void **for_app, struct timeval abs, void *for_libxl)
{
    struct entry *entry = add(for_libxl);

    (void)user;
    if (!entry)
        return ERROR_OSEVENT_REG_FAIL;
    entry->is_timeout = true;
    entry->abs = abs;
    *for_app = entry;
    return 0;
}

static int timeout_modify(void *user, void **for_app, struct timeval abs)
{
    struct entry *entry = *for_app;

    (void)user;
    entry->abs = abs;
    return 0;
}

static void timeout_deregister(void *user, void *for_app)
{
    (void)user;
    (void)for_app;
    fprintf(stderr, "observe: timeout_deregister must never be called\n");
    abort();
}

void hookloop_attach(libxl_ctx *ctx)
{
    static const libxl_osevent_hooks hooks = {
        fd_register, fd_modify, fd_deregister, timeout_register, timeout_modify, timeout_deregister,
    };

    libxl_osevent_register_hooks(ctx, &hooks, NULL);
}

static void sweep(void)
{
    struct entry **link = &entries, *entry;

    while ((entry = *link)) {
        if (entry->gone) {
            *link = entry->next;
            free(entry);
        } else {
            link = &entry->next;
        }
    }
}

/* Milliseconds until abs, rounded up, not below 0. */
static int until(struct timeval abs)
{
    struct timeval now, left;

    gettimeofday(&now, NULL);
    if (!timercmp(&abs, &now, >))
        return 0;
    timersub(&abs, &now, &left);
    return left.tv_sec > 1000000 ? 1000000000 : (int)(left.tv_sec * 1000 + (left.tv_usec + 999) / 1000);
}

int hookloop_turn(libxl_ctx *ctx, const sigset_t *unblocked)
{
    struct timespec limit;
    struct entry *entry;
    nfds_t count = 0, i = 0;
    int timeout_ms = -1;

    sweep();
    for (entry = entries; entry; entry = entry->next)
        count += !entry->is_timeout;
    if (count > fds_room) {
        struct pollfd *more = realloc(fds, count * sizeof *fds);

        if (!more)
            return ERROR_NOMEM;
        fds = more;
        fds_room = count;
    }
    for (entry = entries; entry; entry = entry->next) {
        if (entry->is_timeout) {
            int left_ms = until(entry->abs);

            if (timeout_ms < 0 || left_ms < timeout_ms)
                timeout_ms = left_ms;
        } else {
            fds[i].fd = entry->events ? entry->fd : -1;
            fds[i].revents = 0;
            fds[i++].events = entry->events;
        }
    }
    limit.tv_sec = timeout_ms / 1000;
    limit.tv_nsec = timeout_ms % 1000 * 1000000L;
    if (ppoll(fds, count, timeout_ms < 0 ? NULL : &limit, unblocked) < 0)
        return errno == EINTR ? 0 : ERROR_FAIL;

    for (entry = entries, i = 0; entry; entry = entry->next) {
        if (!entry->is_timeout)
            entry->revents = fds[i++].revents;
    }
    for (entry = entries; entry; entry = entry->next) {
        if (entry->gone)
            continue;
        if (entry->is_timeout && until(entry->abs) == 0) {
            entry->gone = true;
            libxl_osevent_occurred_timeout(ctx, entry->for_libxl);
        } else if (!entry->is_timeout && entry->revents) {
            short revents = entry->revents;

            entry->revents = 0;
            libxl_osevent_occurred_fd(ctx, entry->for_libxl, entry->fd, entry->events, revents);
        }
    }
    return 0;
}
