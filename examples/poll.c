/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * poll: say what becomes of a domain, until it is dead.
 *
 *     poll DOMID
 *
 * The loop around poll(2) that libxl_event.h is made for: what the library
 * waits for is asked for each time.  With xlevent that is one descriptor, and
 * no timeout; with Xen's own library, under which this program runs as well,
 * there are several.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/time.h>

#include <libxl_event.h>
#include <xentoollog.h>

#include "events.h"

/* Prints what has happened so far. */
static int report(libxl_ctx *ctx, bool *dead)
{
    libxl_event *event;
    int rc;

    while (!(rc = libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL))) {
        print_event(event);
        *dead = *dead || event->type == LIBXL_EVENT_TYPE_DOMAIN_DEATH;
        libxl_event_free(ctx, event);
    }
    return rc == ERROR_NOT_READY ? 0 : rc;
}

static int loop(libxl_ctx *ctx)
{
    struct pollfd fds[16];
    bool dead = false;
    int rc;

    while (!(rc = report(ctx, &dead)) && !dead) {
        int count = sizeof fds / sizeof fds[0];
        int timeout_ms = -1;
        struct timeval now;

        /* ERROR_BUFFERFULL would say that 16 is not enough, and `count` what is. */
        gettimeofday(&now, NULL);
        rc = libxl_osevent_beforepoll(ctx, &count, fds, &timeout_ms, now);
        if (rc)
            return rc;

        /* A program's own descriptors go behind those. */
        if (poll(fds, (nfds_t)count, timeout_ms) < 0 && errno != EINTR)
            return ERROR_FAIL;
        gettimeofday(&now, NULL);
        libxl_osevent_afterpoll(ctx, count, fds, now);
    }
    return rc;
}

int main(int argc, char **argv)
{
    xentoollog_logger *logger;
    libxl_ctx *ctx = NULL;
    libxl_evgen_domain_death *death;
    uint32_t domid;
    int rc;

    if (argc != 2 || !read_domid(argv[1], &domid)) {
        fprintf(stderr, "usage: poll DOMID\n");
        return 2;
    }
    /* xlevent takes NULL for a logger; Xen's own library doesn't. */
    logger = (xentoollog_logger *)xtl_createlogger_stdiostream(stderr, XTL_WARN, 0);
    rc = libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, logger);
    if (!rc)
        rc = libxl_evenable_domain_death(ctx, domid, 0, &death);
    if (!rc) {
        rc = loop(ctx);
        libxl_evdisable_domain_death(ctx, death);
    }
    if (rc)
        fprintf(stderr, "poll: error %d\n", rc);
    libxl_ctx_free(ctx);
    xtl_logger_destroy(logger);
    return rc ? 1 : 0;
}
