/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * callbacks: say what becomes of a domain, until it is dead.
 *
 *     callbacks DOMID
 *
 * The library tells the program what to wait for, by hooks, and what has
 * happened, by a callback; that is how libvirt's Xen driver does it.  It needs
 * libxl_event.h alone, and runs as well with Xen's own library, which registers
 * several descriptors, and timeouts.  xlevent registers one descriptor and
 * never a timeout: a program that is linked with nothing else can leave the
 * three hooks for these empty.
 *
 * Here the loop is one around poll(2) and a list of what is registered.  In a
 * program with a loop of its own each hook is a call of that loop's.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/time.h>

#include <libxl_event.h>
#include <xentoollog.h>

#include "events.h"

enum { MOST = 32 };

/* A descriptor to wait for, or a time. */
struct source {
    bool used;
    int fd;             /* -1 for a time */
    short events;
    struct timeval at;
    void *for_libxl;
};

struct program {
    libxl_ctx *ctx;
    struct source sources[MOST];
    bool dead, broken;
};

/* ---- hooks: what to wait for ---- */

static int add(struct program *program, struct source source, void **out)
{
    int i;

    for (i = 0; i < MOST; i++) {
        if (!program->sources[i].used) {
            program->sources[i] = source;
            *out = &program->sources[i];
            return 0;
        }
    }
    return ERROR_OSEVENT_REG_FAIL;
}

static int fd_register(void *user, int fd, void **out, short events, void *for_libxl)
{
    struct source source = { .used = true, .fd = fd, .events = events, .for_libxl = for_libxl };

    return add(user, source, out);
}

static int fd_modify(void *user, int fd, void **registration, short events)
{
    struct source *source = *registration;

    (void)user;
    (void)fd;
    source->events = events;
    return 0;
}

static void fd_deregister(void *user, int fd, void *registration)
{
    struct source *source = registration;

    (void)user;
    (void)fd;
    source->used = false;
}

static int timeout_register(void *user, void **out, struct timeval at, void *for_libxl)
{
    struct source source = { .used = true, .fd = -1, .at = at, .for_libxl = for_libxl };

    return add(user, source, out);
}

static int timeout_modify(void *user, void **registration, struct timeval at)
{
    struct source *source = *registration;

    (void)user;
    source->at = at;
    return 0;
}

static void timeout_deregister(void *user, void *registration)
{
    struct source *source = registration;

    (void)user;
    source->used = false;
}

static const libxl_osevent_hooks os_hooks = {
    .fd_register = fd_register,
    .fd_modify = fd_modify,
    .fd_deregister = fd_deregister,
    .timeout_register = timeout_register,
    .timeout_modify = timeout_modify,
    .timeout_deregister = timeout_deregister,
};

/* ---- callbacks: what has happened ---- */

static void on_event(void *user, libxl_event *event)
{
    struct program *program = user;

    print_event(event);
    program->dead = program->dead || event->type == LIBXL_EVENT_TYPE_DOMAIN_DEATH;
    libxl_event_free(program->ctx, event);
}

static void on_disaster(void *user, libxl_event_type type, const char *msg, int errnoval)
{
    struct program *program = user;

    fprintf(stderr, "callbacks: events of type %d may be missing: %s: %s\n", (int)type, msg, strerror(errnoval));
    program->broken = true;
}

static const libxl_event_hooks event_hooks = {
    .event_occurs_mask = LIBXL_EVENTMASK_ALL,
    .event_occurs = on_event,
    .disaster = on_disaster,
};

/* ---- the loop ---- */

/* How long until then, in milliseconds: 0 if it has passed. */
static int until(struct timeval at)
{
    struct timeval now, left;

    gettimeofday(&now, NULL);
    if (!timercmp(&at, &now, >))
        return 0;
    timersub(&at, &now, &left);
    return left.tv_sec >= INT_MAX / 1000 - 1 ? INT_MAX : (int)(left.tv_sec * 1000 + left.tv_usec / 1000) + 1;
}

static int turn(struct program *program)
{
    /* Each in the place of its source. poll(2) leaves out the negative ones. */
    struct pollfd fds[MOST];
    int timeout_ms = -1, i;

    for (i = 0; i < MOST; i++) {
        const struct source *source = &program->sources[i];

        fds[i].fd = source->used && source->events ? source->fd : -1;
        fds[i].events = source->events;
        if (source->used && source->fd < 0 && (timeout_ms < 0 || until(source->at) < timeout_ms))
            timeout_ms = until(source->at);
    }
    if (poll(fds, MOST, timeout_ms) < 0)
        return errno == EINTR ? 0 : ERROR_FAIL;

    for (i = 0; i < MOST; i++) {
        struct source *source = &program->sources[i];

        /* A call for one may end or replace others. A word too many does no harm: the library knows its own. */
        if (!source->used)
            continue;
        if (source->fd >= 0 && source->fd == fds[i].fd && fds[i].revents) {
            libxl_osevent_occurred_fd(program->ctx, source->for_libxl, source->fd, source->events, fds[i].revents);
        } else if (source->fd < 0 && until(source->at) == 0) {
            /* Once told, it has ended. */
            source->used = false;
            libxl_osevent_occurred_timeout(program->ctx, source->for_libxl);
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct program program = { .dead = false };
    xentoollog_logger *logger;
    libxl_evgen_domain_death *death;
    uint32_t domid;
    int rc;

    if (argc != 2 || !read_domid(argv[1], &domid)) {
        fprintf(stderr, "usage: callbacks DOMID\n");
        return 2;
    }
    /* xlevent takes NULL for a logger; Xen's own library doesn't. */
    logger = (xentoollog_logger *)xtl_createlogger_stdiostream(stderr, XTL_WARN, 0);
    rc = libxl_ctx_alloc(&program.ctx, LIBXL_VERSION, 0, logger);
    if (!rc) {
        /* Before anything is asked for. */
        libxl_osevent_register_hooks(program.ctx, &os_hooks, &program);
        libxl_event_register_callbacks(program.ctx, &event_hooks, &program);
        rc = libxl_evenable_domain_death(program.ctx, domid, 0, &death);
    }
    if (!rc) {
        while (!rc && !program.dead && !program.broken)
            rc = turn(&program);
        libxl_evdisable_domain_death(program.ctx, death);
    }
    if (rc)
        fprintf(stderr, "callbacks: error %d\n", rc);
    libxl_ctx_free(program.ctx);
    xtl_logger_destroy(logger);
    return rc || program.broken ? 1 : 0;
}
