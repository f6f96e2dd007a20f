/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * observe: print what happens to some domains, once for each event.
 *
 *     observe poll|hooks|callbacks DOMID...
 *
 * The three modes are the three ways in which an application can take part in
 * libxl's waiting: its own poll() around beforepoll and afterpoll, its own
 * register of descriptors and timeouts behind the osevent hooks, and events
 * handed to event_occurs instead of a queue.
 *
 * Prints "ready" once it observes all of them, then "DOMID SHUTDOWN REASON" or
 * "DOMID DEATH", each at once.  Ends well when each has had its DEATH, or on
 * SIGTERM.  Nothing is filtered: an event that comes twice is printed twice.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include <libxl_event.h>
#include <xentoollog.h>

#include "observe.h"

struct observed {
    uint32_t domid;
    bool dead;
    libxl_evgen_domain_death *death;
};

volatile sig_atomic_t observe_stop;

static struct observed *observed;
static int observed_count, dead_count;
static bool broken;

static void on_signal(int signum)
{
    (void)signum;
    observe_stop = 1;
}

static void on_disaster(void *user, libxl_event_type type, const char *msg, int errnoval)
{
    (void)user;
    fprintf(stderr, "observe: disaster, type %d: %s: %s\n", (int)type, msg, strerror(errnoval));
    broken = true;
}

bool observe_done(void)
{
    return dead_count == observed_count;
}

void observe_event(libxl_ctx *ctx, libxl_event *event)
{
    struct observed *domain = event->for_user < (uint64_t)observed_count ? &observed[event->for_user] : NULL;

    switch (event->type) {
    case LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN:
        printf("%" PRIu32 " SHUTDOWN %u\n", event->domid, (unsigned)event->u.domain_shutdown.shutdown_reason);
        break;
    case LIBXL_EVENT_TYPE_DOMAIN_DEATH:
        printf("%" PRIu32 " DEATH\n", event->domid);
        if (domain && !domain->dead) {
            domain->dead = true;
            dead_count++;
        }
        break;
    default:
        printf("%" PRIu32 " TYPE %d\n", event->domid, (int)event->type);
    }
    if (!domain || domain->domid != event->domid)
        printf("%" PRIu32 " WRONG-USER %" PRIu64 "\n", event->domid, event->for_user);
    fflush(stdout);
    libxl_event_free(ctx, event);
}

/* Older headers give event_occurs a const event, though it is the callee's to free. */
#ifdef LIBXL_HAVE_NONCONST_EVENT_OCCURS_EVENT_ARG
static void on_event(void *user, libxl_event *event)
{
    observe_event(user, event);
}
#else
static void on_event(void *user, const libxl_event *event)
{
    observe_event(user, (libxl_event *)event);
}
#endif

int observe_queue(libxl_ctx *ctx)
{
    libxl_event *event;
    int rc;

    while (!(rc = libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL)))
        observe_event(ctx, event);
    return rc == ERROR_NOT_READY ? 0 : rc;
}

static int poll_turn(libxl_ctx *ctx, const sigset_t *unblocked)
{
    static struct pollfd *fds;
    static int room;
    struct timespec limit;
    struct timeval now;
    int count, timeout_ms, rc;

    for (;;) {
        count = room;
        timeout_ms = -1;
        gettimeofday(&now, NULL);
        rc = libxl_osevent_beforepoll(ctx, &count, fds, &timeout_ms, now);
        if (rc != ERROR_BUFFERFULL)
            break;
        room = count;
        fds = realloc(fds, (size_t)room * sizeof *fds);
        if (!fds)
            return ERROR_NOMEM;
    }
    if (rc)
        return rc;
    limit.tv_sec = timeout_ms / 1000;
    limit.tv_nsec = timeout_ms % 1000 * 1000000L;
    if (ppoll(fds, (nfds_t)count, timeout_ms < 0 ? NULL : &limit, unblocked) < 0)
        return errno == EINTR ? 0 : ERROR_FAIL;
    gettimeofday(&now, NULL);
    libxl_osevent_afterpoll(ctx, count, fds, now);
    return 0;
}

int main(int argc, char **argv)
{
    static libxl_event_hooks events = { .event_occurs = on_event, .disaster = on_disaster };
    struct sigaction action = { .sa_handler = on_signal };
    sigset_t blocked, unblocked;
    xentoollog_logger *logger;
    libxl_ctx *ctx = NULL;
    const char *mode = argc > 1 ? argv[1] : "";
    bool hooks = !strcmp(mode, "hooks"), callbacks = !strcmp(mode, "callbacks");
    int i, rc;

    if (argc < 3 || !(hooks || callbacks || !strcmp(mode, "poll"))) {
        fprintf(stderr, "usage: observe poll|hooks|callbacks DOMID...\n");
        return 2;
    }
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGINT);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &blocked, &unblocked);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);

    observed_count = argc - 2;
    observed = calloc((size_t)observed_count, sizeof *observed);
    logger = (xentoollog_logger *)xtl_createlogger_stdiostream(stderr, XTL_WARN, 0);
    if (!observed || !logger)
        return 1;
    rc = libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, logger);
    if (rc) {
        fprintf(stderr, "observe: libxl_ctx_alloc: error %d\n", rc);
        return 1;
    }
    if (hooks)
        hookloop_attach(ctx);
    events.event_occurs_mask = callbacks ? LIBXL_EVENTMASK_ALL : 0;
    libxl_event_register_callbacks(ctx, &events, ctx);

    for (i = 0; i < observed_count; i++) {
        observed[i].domid = (uint32_t)strtoul(argv[i + 2], NULL, 10);
        rc = libxl_evenable_domain_death(ctx, observed[i].domid, (libxl_ev_user)i, &observed[i].death);
        if (rc) {
            fprintf(stderr, "observe: domain %" PRIu32 ": error %d\n", observed[i].domid, rc);
            return 1;
        }
    }
    printf("ready\n");
    fflush(stdout);

    rc = observe_queue(ctx);
    while (!rc && !observe_done() && !observe_stop && !broken) {
        rc = hooks ? hookloop_turn(ctx, &unblocked) : poll_turn(ctx, &unblocked);
        if (!rc)
            rc = observe_queue(ctx);
    }
    if (rc)
        fprintf(stderr, "observe: error %d\n", rc);

    for (i = 0; i < observed_count; i++)
        libxl_evdisable_domain_death(ctx, observed[i].death);
    libxl_ctx_free(ctx);
    xtl_logger_destroy(logger);
    free(observed);
    return rc || broken ? 1 : 0;
}
