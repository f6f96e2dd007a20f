/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * select: say what becomes of a domain until it is dead, or of all domains.
 *
 *     select [DOMID]
 *
 * xlevent's one descriptor in a loop around select(2).  SIGINT and SIGTERM end
 * the program: they are let in only while it waits.
 *
 * (For a program that has to run with Xen's own library too, which has several
 * descriptors and timeouts, there is xlevent_pollset_beforeselect.)
 */
#include <errno.h>
#include <signal.h>
#include <sys/select.h>

#include <xentoollog.h>
#include <xlevent.h>

#include "events.h"

static volatile sig_atomic_t stop;

static void on_signal(int signum)
{
    (void)signum;
    stop = 1;
}

static void on_event(void *user, const libxl_event *event)
{
    bool *dead = user;

    print_event(event);
    *dead = *dead || event->type == LIBXL_EVENT_TYPE_DOMAIN_DEATH;
}

static const struct xlevent_handler handlers[] = { { XLEVENT_ALL_OTHERS, on_event } };

static int loop(libxl_ctx *ctx, bool all, const sigset_t *unblocked)
{
    int fd = xlevent_get_fd(ctx);
    bool dead = false;
    /* What is there already doesn't make the descriptor readable. */
    int rc = xlevent_dispatch(ctx, handlers, &dead);

    if (fd < 0 || fd >= FD_SETSIZE)
        return ERROR_FAIL;
    while (rc >= 0 && !stop && (all || !dead)) {
        fd_set readable;

        FD_ZERO(&readable);
        FD_SET(fd, &readable);
        if (pselect(fd + 1, &readable, NULL, NULL, NULL, unblocked) > 0)
            rc = xlevent_dispatch(ctx, handlers, &dead);
        else if (errno != EINTR)
            rc = ERROR_FAIL;
    }
    return rc < 0 ? rc : 0;
}

int main(int argc, char **argv)
{
    struct sigaction action = { .sa_handler = on_signal };
    sigset_t blocked, unblocked;
    xentoollog_logger *logger = (xentoollog_logger *)xtl_createlogger_stdiostream(stderr, XTL_WARN, 0);
    libxl_ctx *ctx = NULL;
    int rc;

    sigemptyset(&blocked);
    sigaddset(&blocked, SIGINT);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &blocked, &unblocked);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);

    rc = libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, logger);
    if (!rc)
        rc = enable(ctx, argv[1]);
    if (!rc)
        rc = loop(ctx, argc < 2, &unblocked);
    if (rc)
        fprintf(stderr, "select: error %d\n", rc);
    libxl_ctx_free(ctx);
    xtl_logger_destroy(logger);
    return rc ? 1 : 0;
}
