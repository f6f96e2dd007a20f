/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * states: print the states of a domain, or of any domain, one line for each
 * event.
 *
 *     states DOMID|any
 *
 * Prints "ready" once it has asked, then "DOMID CREATED", "DOMID SUSPENDED",
 * "DOMID RUNNING", "DOMID SHUTDOWN REASON" or "DOMID DEATH", each at once.
 * Goes on until SIGTERM, also after a death: nothing is filtered, and what comes
 * too late or twice is to be seen.  On SIGUSR1 it prints "looks N": so often has
 * the library looked whether suspended domains run again.
 *
 * Built twice.  states-alone is linked with libxlevent and nothing else of Xen's
 * event library.  states-beside is linked with libxenlight behind libxlevent, as
 * a toolstack would be; it asks libxenlight, with the very same context, what
 * Xen it is on, and prints "xen MAJOR.MINOR" first.
 */
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libxl_event.h>
#include <xentoollog.h>
#include <xlevent.h>

/* What comes back in for_user: more than 32 bits, to see that all of it does. */
#define USER UINT64_C(0x5ca1ab1e00c0ffee)

static sigset_t signals;

/* The main thread waits in the library, where a signal would not end it. */
static void *take_signals(void *user)
{
    struct xlevent_stats stats;
    int signum;

    while (!sigwait(&signals, &signum) && signum != SIGTERM) {
        xlevent_stats(user, &stats, sizeof stats);
        printf("looks %" PRIu64 "\n", stats.resume_looks);
        fflush(stdout);
    }
    xlevent_wait_cancel(user);
    return NULL;
}

static void on_disaster(void *user, libxl_event_type type, const char *msg, int errnoval)
{
    (void)user;
    fprintf(stderr, "states: disaster, type %d: %s: %s\n", (int)type, msg, strerror(errnoval));
}

static void print_event(const libxl_event *event)
{
    switch ((int)event->type) {
    case LIBXL_EVENT_TYPE_DOMAIN_CREATED:
        printf("%" PRIu32 " CREATED\n", event->domid);
        break;
    case LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED:
        printf("%" PRIu32 " SUSPENDED\n", event->domid);
        break;
    case LIBXL_EVENT_TYPE_DOMAIN_RUNNING:
        printf("%" PRIu32 " RUNNING\n", event->domid);
        break;
    case LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN:
        printf("%" PRIu32 " SHUTDOWN %u\n", event->domid, (unsigned)event->u.domain_shutdown.shutdown_reason);
        break;
    case LIBXL_EVENT_TYPE_DOMAIN_DEATH:
        printf("%" PRIu32 " DEATH\n", event->domid);
        break;
    default:
        printf("%" PRIu32 " TYPE %d\n", event->domid, (int)event->type);
    }
    if (event->for_user != USER)
        printf("%" PRIu32 " WRONG-USER %" PRIx64 "\n", event->domid, event->for_user);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const libxl_event_hooks hooks = { .disaster = on_disaster };
    uint64_t states = (uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED |
                      (uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_RUNNING |
                      (uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN |
                      (uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_DEATH;
    libxl_evgen_domain_state *evgen;
    xentoollog_logger *logger;
    libxl_ctx *ctx = NULL;
    libxl_event *event;
    pthread_t waiter;
    uint32_t domid;
    int rc;

    if (argc != 2) {
        fprintf(stderr, "usage: states DOMID|any\n");
        return 2;
    }
    if (!strcmp(argv[1], "any")) {
        domid = LIBXL_DOMID_ANY;
        states |= (uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_CREATED;
    } else {
        domid = (uint32_t)strtoul(argv[1], NULL, 10);
    }
    /* Before the first thread, so that all of them have it blocked. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGUSR1);
    sigprocmask(SIG_BLOCK, &signals, NULL);

    logger = (xentoollog_logger *)xtl_createlogger_stdiostream(stderr, XTL_WARN, 0);
    if (!logger)
        return 1;
    rc = libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, logger);
    if (rc) {
        fprintf(stderr, "states: libxl_ctx_alloc: error %d\n", rc);
        return 1;
    }
    libxl_event_register_callbacks(ctx, &hooks, NULL);
#ifdef BESIDE
    const libxl_version_info *version = libxl_get_version_info(ctx);

    if (version)
        printf("xen %d.%d\n", version->xen_version_major, version->xen_version_minor);
#endif
    rc = libxl_evenable_domain_state(ctx, domid, states, USER, &evgen);
    if (rc) {
        fprintf(stderr, "states: libxl_evenable_domain_state: error %d\n", rc);
        return 1;
    }
    if (pthread_create(&waiter, NULL, take_signals, ctx))
        return 1;
    printf("ready\n");
    fflush(stdout);

    while (!(rc = libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL))) {
        print_event(event);
        libxl_event_free(ctx, event);
    }
    if (rc != ERROR_ABORTED) {
        /* The other thread may still use the context: the process ends, and it with it. */
        fprintf(stderr, "states: libxl_event_wait: error %d\n", rc);
        return 1;
    }
    pthread_join(waiter, NULL);
    libxl_evdisable_domain_state(ctx, evgen);
    libxl_ctx_free(ctx);
    xtl_logger_destroy(logger);
    return 0;
}
