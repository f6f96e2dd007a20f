/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * epoll: say what becomes of a domain until it is dead, or of all domains.
 *
 *     epoll [DOMID]
 *
 * xlevent's one descriptor, beside another, in a loop around epoll: the other
 * is for signals, SIGINT and SIGTERM end the program. Each type of event has a
 * handler of its own, in the table for xlevent_dispatch.
 */
#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <xentoollog.h>
#include <xlevent.h>

#include "events.h"

static void on_death(void *user, const libxl_event *event)
{
    bool *dead = user;

    print_event(event);
    *dead = true;
}

static void on_other(void *user, const libxl_event *event)
{
    (void)user;
    print_event(event);
}

static const struct xlevent_handler handlers[] = {
    { LIBXL_EVENT_TYPE_DOMAIN_DEATH, on_death },
    { XLEVENT_ALL_OTHERS, on_other },
};

static int wait_for(int epoll, int fd)
{
    struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static int loop(libxl_ctx *ctx, bool all, int epoll, int signals)
{
    bool dead = false;
    /* What is there already doesn't make the descriptor readable. */
    int rc = xlevent_dispatch(ctx, handlers, &dead);

    while (rc >= 0 && (all || !dead)) {
        struct epoll_event ready;
        int count = epoll_wait(epoll, &ready, 1, -1);

        if (count < 0 && errno != EINTR)
            return ERROR_FAIL;
        if (count == 1 && ready.data.fd == signals)
            return 0;
        if (count == 1)
            rc = xlevent_dispatch(ctx, handlers, &dead);
    }
    return rc < 0 ? rc : 0;
}

int main(int argc, char **argv)
{
    xentoollog_logger *logger = (xentoollog_logger *)xtl_createlogger_stdiostream(stderr, XTL_WARN, 0);
    libxl_ctx *ctx = NULL;
    sigset_t ends;
    int epoll, signals, rc;

    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    signals = signalfd(-1, &ends, SFD_CLOEXEC);

    rc = libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, logger);
    if (!rc)
        rc = enable(ctx, argv[1]);
    if (!rc)
        rc = wait_for(epoll, signals) || wait_for(epoll, xlevent_get_fd(ctx)) ? ERROR_FAIL : 0;
    if (!rc)
        rc = loop(ctx, argc < 2, epoll, signals);
    if (rc)
        fprintf(stderr, "epoll: error %d\n", rc);

    /* Out of the set before the context closes its descriptor. */
    close(epoll);
    close(signals);
    libxl_ctx_free(ctx);
    xtl_logger_destroy(logger);
    return rc ? 1 : 0;
}
