/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libevent: say what becomes of a domain until it is dead, or of all domains.
 *
 *     libevent [DOMID]
 *
 * xlevent's one descriptor in libevent's loop, beside signals.  (libev has the
 * same functions, and others that are as simple.)
 */
#include <signal.h>

#include <event2/event.h>
#include <xentoollog.h>
#include <xlevent.h>

#include "events.h"

struct program {
    libxl_ctx *ctx;
    struct event_base *base;
    bool all;
    int rc;
};

static void on_event(void *user, const libxl_event *event)
{
    struct program *program = user;

    print_event(event);
    if (event->type == LIBXL_EVENT_TYPE_DOMAIN_DEATH && !program->all)
        event_base_loopbreak(program->base);
}

static const struct xlevent_handler handlers[] = { { XLEVENT_ALL_OTHERS, on_event } };

static void on_readable(evutil_socket_t fd, short what, void *user)
{
    struct program *program = user;
    int rc = xlevent_dispatch(program->ctx, handlers, program);

    (void)fd;
    (void)what;
    if (rc < 0) {
        program->rc = rc;
        event_base_loopbreak(program->base);
    }
}

static void on_signal(evutil_socket_t signum, short what, void *user)
{
    struct program *program = user;

    (void)signum;
    (void)what;
    event_base_loopbreak(program->base);
}

/* Waits in the loop until somebody breaks it. */
static int run(struct program *program)
{
    struct event *xen = event_new(program->base, xlevent_get_fd(program->ctx), EV_READ | EV_PERSIST, on_readable, program);
    struct event *interrupt = evsignal_new(program->base, SIGINT, on_signal, program);
    struct event *terminate = evsignal_new(program->base, SIGTERM, on_signal, program);

    if (!xen || !interrupt || !terminate || event_add(xen, NULL) || event_add(interrupt, NULL) || event_add(terminate, NULL)) {
        program->rc = ERROR_FAIL;
    } else {
        /* What is there already doesn't make the descriptor readable: look once without it. */
        event_active(xen, EV_READ, 0);
        event_base_dispatch(program->base);
    }
    /* Out of the loop before the context closes the descriptor. */
    if (xen)
        event_free(xen);
    if (interrupt)
        event_free(interrupt);
    if (terminate)
        event_free(terminate);
    return program->rc;
}

int main(int argc, char **argv)
{
    xentoollog_logger *logger = (xentoollog_logger *)xtl_createlogger_stdiostream(stderr, XTL_WARN, 0);
    struct program program = { .base = event_base_new(), .all = argc < 2 };
    int rc = program.base ? libxl_ctx_alloc(&program.ctx, LIBXL_VERSION, 0, logger) : ERROR_NOMEM;

    if (!rc)
        rc = enable(program.ctx, argv[1]);
    if (!rc)
        rc = run(&program);
    if (rc)
        fprintf(stderr, "libevent: error %d\n", rc);
    libxl_ctx_free(program.ctx);
    xtl_logger_destroy(logger);
    if (program.base)
        event_base_free(program.base);
    return rc ? 1 : 0;
}
