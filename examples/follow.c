/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * follow: say what becomes of some domains, until none of them is left.
 *
 *     follow DOMID...
 *
 * It shows xlevent.h in a program with a loop of its own: the one descriptor
 * that xlevent_get_fd gives, beside others in an epoll set, and a table of
 * handlers for xlevent_dispatch. The other descriptor here is one for signals:
 * SIGINT and SIGTERM end the program.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <xlevent.h>

static void on_shutdown(void *user, const libxl_event *event)
{
    (void)user;
    printf("%" PRIu32 " SHUTDOWN %d\n", event->domid, (int)event->u.domain_shutdown.shutdown_reason);
    fflush(stdout);
}

static void on_death(void *user, const libxl_event *event)
{
    int *left = user;

    printf("%" PRIu32 " DEATH\n", event->domid);
    fflush(stdout);
    --*left;
}

/* Nothing else has been asked for, so that there is no handler for the rest. */
static const struct xlevent_handler handlers[] = {
    { LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN, on_shutdown },
    { LIBXL_EVENT_TYPE_DOMAIN_DEATH, on_death },
    { XLEVENT_ALL_OTHERS, NULL },
};

static int wait_for(int epoll, int fd)
{
    struct epoll_event event;

    memset(&event, 0, sizeof event);
    event.events = EPOLLIN;
    event.data.fd = fd;
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

/* 0 when all domains are dead, 1 after a signal, negative if something fails. */
static int loop(libxl_ctx *ctx, int epoll, int signals, int *left)
{
    /* What has happened before the first wait is there already. */
    int rc = xlevent_dispatch(ctx, handlers, left);

    while (rc >= 0 && *left > 0) {
        struct epoll_event ready;
        int count = epoll_wait(epoll, &ready, 1, -1);

        if (count < 0 && errno != EINTR)
            return -1;
        if (count == 1 && ready.data.fd == signals)
            return 1;
        if (count == 1)
            rc = xlevent_dispatch(ctx, handlers, left);
    }
    return rc < 0 ? rc : 0;
}

int main(int argc, char **argv)
{
    libxl_ctx *ctx = NULL;
    sigset_t ends;
    int epoll, signals, fd, i, rc, left = argc - 1;

    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, NULL);

    rc = libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, NULL);
    if (rc) {
        fprintf(stderr, "follow: libxl_ctx_alloc: error %d\n", rc);
        return 1;
    }
    epoll = epoll_create1(EPOLL_CLOEXEC);
    signals = signalfd(-1, &ends, SFD_CLOEXEC);
    fd = xlevent_get_fd(ctx);
    if (epoll < 0 || signals < 0 || fd < 0 || wait_for(epoll, signals) || wait_for(epoll, fd)) {
        fprintf(stderr, "follow: no descriptors to wait for\n");
        return 1;
    }
    for (i = 1; i < argc && !rc; i++) {
        libxl_evgen_domain_death *evgen;

        rc = libxl_evenable_domain_death(ctx, (uint32_t)strtoul(argv[i], NULL, 10), 0, &evgen);
    }
    if (!rc)
        rc = loop(ctx, epoll, signals, &left);
    if (rc < 0)
        fprintf(stderr, "follow: error %d\n", rc);

    /* Out of the set before the context closes it. The generators end with the context. */
    close(epoll);
    close(signals);
    libxl_ctx_free(ctx);
    return rc ? 1 : 0;
}
