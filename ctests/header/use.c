/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Uses libxl_event.h, and with -DWITH_EXTENSIONS xlevent.h, as a program would, every function and type of it, in what C99, C11 and C++17 have in common.
 * ctests/header/run compiles it, with all warnings as errors, in each way in which the header can be included, and links
 * it with libxlevent alone. Run without an argument it only proves that the library loads: what it calls then needs no
 * Xen.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef VIA_LIBXL
#ifdef __cplusplus
#include <netinet/in.h>
#include <sys/wait.h>
extern "C" {
#endif
#include <libxl.h>
#ifdef __cplusplus
}
#endif
#else
#include <libxl_event.h>
#endif
#ifdef WITH_EXTENSIONS
#include <xlevent.h>
#endif

struct app {
    libxl_ctx *ctx;
    struct pollfd fd;
    void *for_libxl;
    int events;
};

static int wants_domain(const libxl_event *event, void *user)
{
    const uint32_t *domid = (const uint32_t *)user;
    return event->domid == *domid;
}

#ifdef LIBXL_HAVE_NONCONST_EVENT_OCCURS_EVENT_ARG
static void event_occurs(void *user, libxl_event *event)
{
    struct app *app = (struct app *)user;
    app->events++;
    libxl_event_free(app->ctx, event);
}
#else
static void event_occurs(void *user, const libxl_event *event)
{
    struct app *app = (struct app *)user;
    app->events++;
    libxl_event_free(app->ctx, (libxl_event *)event);
}
#endif

static void disaster(void *user, libxl_event_type type, const char *msg, int errnoval)
{
    (void)user;
    fprintf(stderr, "disaster: type %d: %s: %s\n", (int)type, msg, strerror(errnoval));
}

static int fd_register(void *user, int fd, void **for_app_registration_out, short events, void *for_libxl)
{
    struct app *app = (struct app *)user;
    if (app->for_libxl)
        return ERROR_OSEVENT_REG_FAIL;
    app->fd.fd = fd;
    app->fd.events = events;
    app->for_libxl = for_libxl;
    *for_app_registration_out = app;
    return 0;
}

static int fd_modify(void *user, int fd, void **for_app_registration_update, short events)
{
    struct app *app = (struct app *)user;
    (void)for_app_registration_update;
    if (app->fd.fd != fd)
        return ERROR_OSEVENT_REG_FAIL;
    app->fd.events = events;
    return 0;
}

static void fd_deregister(void *user, int fd, void *for_app_registration)
{
    struct app *app = (struct app *)user;
    (void)for_app_registration;
    if (app->fd.fd == fd)
        app->for_libxl = NULL;
}

static int timeout_register(void *user, void **for_app_registration_out, struct timeval abs, void *for_libxl)
{
    (void)user;
    (void)for_app_registration_out;
    (void)abs;
    (void)for_libxl;
    return ERROR_OSEVENT_REG_FAIL;
}

static int timeout_modify(void *user, void **for_app_registration_update, struct timeval abs)
{
    (void)user;
    (void)for_app_registration_update;
    return abs.tv_sec == 0 && abs.tv_usec == 0 ? 0 : ERROR_OSEVENT_REG_FAIL;
}

static void timeout_deregister(void *user, void *for_app_registration)
{
    (void)user;
    (void)for_app_registration;
}

static pid_t fork_replacement(void *user)
{
    (void)user;
    return -1;
}

static int reaped(pid_t pid, int status, void *user)
{
    (void)user;
    (void)status;
    return pid > 0 ? 0 : ERROR_UNKNOWN_CHILD;
}

static const libxl_event_hooks event_hooks = {LIBXL_EVENTMASK_ALL, event_occurs, disaster};
static const libxl_osevent_hooks osevent_hooks = {
    fd_register, fd_modify, fd_deregister, timeout_register, timeout_modify, timeout_deregister,
};
static const libxl_childproc_hooks childproc_hooks = {
    libxl_sigchld_owner_libxl_always_selective_reap, fork_replacement, reaped,
};

#ifdef WITH_EXTENSIONS
static void handle(void *user, const libxl_event *event)
{
    struct app *app = (struct app *)user;
    app->events += event->domid != 0;
}

static const struct xlevent_handler handlers[] = {{LIBXL_EVENT_TYPE_DOMAIN_DEATH, handle}, {XLEVENT_ALL_OTHERS, NULL}};

/* One that shares the context, and a wait that ends. */
static int share(struct app *app, uint32_t domid)
{
    struct xlevent_subscriber *subscriber = NULL;
    libxl_evgen_domain_death *death = NULL;
    libxl_evgen_domain_state *state = NULL;
    libxl_evgen_disk_eject *eject = NULL;
    libxl_event *event = NULL;
    int rc = xlevent_subscriber_new(app->ctx, &subscriber);

    if (rc == 0)
        rc = xlevent_subscriber_evenable_domain_death(app->ctx, subscriber, domid, 0, &death);
    if (rc == 0)
        rc = xlevent_subscriber_evenable_domain_state(app->ctx, subscriber, LIBXL_DOMID_ANY,
                                                      (uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_CREATED, 0, &state);
    if (rc == 0)
        rc = xlevent_subscriber_evenable_disk_eject(app->ctx, subscriber, domid, "hdc", 0, &eject);
    if (rc == 0)
        rc = xlevent_subscriber_check(app->ctx, subscriber, &event, LIBXL_EVENTMASK_ALL, wants_domain, &domid);
    if (rc == ERROR_NOT_READY)
        rc = xlevent_subscriber_wait(app->ctx, subscriber, &event, LIBXL_EVENTMASK_ALL, NULL, NULL, 1000);
    libxl_event_free(app->ctx, event);
    if (rc == 0 && xlevent_subscriber_wait_cancel(app->ctx, subscriber) == 0)
        rc = xlevent_subscriber_free(app->ctx, subscriber);
    event = NULL;
    if (rc == 0 && xlevent_wait_cancel(app->ctx) == 0)
        rc = xlevent_event_wait(app->ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL, 1000);
    libxl_event_free(app->ctx, event);
    return rc == ERROR_ABORTED ? 0 : rc;
}

static struct xlevent_pollset *set;

/* A round of a loop with poll, and one with select. */
static int go_round(libxl_ctx *ctx)
{
    struct timeval room, *limit = NULL;
    struct pollfd fds[4];
    fd_set readable, writable, exceptional;
    int nfds = 4, timeout_ms = 0, rc;

    rc = xlevent_pollset_new(ctx, libxl_osevent_occurred_fd, libxl_osevent_occurred_timeout, &set);
    if (rc)
        return rc;
    libxl_osevent_register_hooks(ctx, xlevent_pollset_hooks(), set);
    rc = xlevent_pollset_beforepoll(set, &nfds, fds, &timeout_ms);
    if (rc == 0 && poll(fds, (nfds_t)nfds, timeout_ms) >= 0)
        rc = xlevent_pollset_afterpoll(set, nfds, fds);
    FD_ZERO(&readable);
    FD_ZERO(&writable);
    FD_ZERO(&exceptional);
    nfds = 0;
    if (rc == 0)
        rc = xlevent_pollset_beforeselect(set, &nfds, &readable, &writable, &exceptional, &limit, &room);
    if (rc == 0 && select(nfds, &readable, &writable, &exceptional, limit) >= 0)
        rc = xlevent_pollset_afterselect(set, &readable, &writable, &exceptional);
    return rc;
}

static void count(libxl_ctx *ctx)
{
    struct xlevent_stats stats;
    struct app app;

    memset(&app, 0, sizeof(app));
    app.ctx = ctx;
    if (xlevent_stats(ctx, &stats, sizeof(stats)) == 0)
        printf("%llu looks, %llu events queued at most\n", (unsigned long long)stats.scans,
               (unsigned long long)stats.events_queued_most);
    app.fd.fd = xlevent_get_fd(ctx);
    app.fd.events = POLLIN;
    if (app.fd.fd >= 0 && poll(&app.fd, 1, 1000) >= 0 && xlevent_dispatch(ctx, handlers, &app) >= 0)
        printf("%d deaths, %d, %d\n", app.events, share(&app, 1), go_round(ctx));
}

static void removed(libxl_ctx *ctx, int rc, void *for_callback)
{
    (void)ctx;
    printf("%s: result %d\n", (const char *)for_callback, rc);
}

static void plug(libxl_ctx *ctx, uint32_t domid)
{
    static char what[] = "both devices";
    struct xlevent_device devices[2] = {{XLEVENT_DEVICE_KIND_VBD, 51712}, {XLEVENT_DEVICE_KIND_VIF, 0}};
    libxl_asyncop_how how;

    if (xlevent_suspend_node_create(ctx, domid, 0) || xlevent_device_wait_ready(ctx, domid, devices[0].kind, 51712, NULL))
        return;
    how.callback = removed;
    how.u.for_callback = what;
    if (xlevent_devices_remove(ctx, domid, devices, 2, XLEVENT_FORCE_NEVER, &how) == 0)
        xlevent_ao_abort(ctx, &how);
    how.callback = NULL;
    how.u.for_event = 1;
    xlevent_device_remove(ctx, domid, XLEVENT_DEVICE_KIND_VBD, 51712, XLEVENT_FORCE_LATE, &how);
}

/* What becomes of all domains, until the first has died. */
static int states(libxl_ctx *ctx)
{
#ifdef LIBXL_HAVE_EVENABLE_DOMAIN_STATE
    const uint64_t wanted = (uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED |
        (uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_RUNNING | (uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_CREATED |
        (uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN | (uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_DEATH;
    libxl_evgen_domain_state *evgen = NULL;
    libxl_event *event;
    int rc, dead = 0;

    rc = libxl_evenable_domain_state(ctx, LIBXL_DOMID_ANY, wanted, 0, &evgen);
    while (rc == 0 && !dead) {
        rc = libxl_event_wait(ctx, &event, wanted, NULL, NULL);
        if (rc)
            break;
        switch ((int)event->type) {
        case LIBXL_EVENT_TYPE_DOMAIN_CREATED:
            printf("domain %u is there\n", (unsigned)event->domid);
            break;
        case LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED:
        case LIBXL_EVENT_TYPE_DOMAIN_RUNNING:
            printf("domain %u %s\n", (unsigned)event->domid,
                   event->type == LIBXL_EVENT_TYPE_DOMAIN_RUNNING ? "runs" : "is suspended");
            break;
        default:
            dead = event->type == LIBXL_EVENT_TYPE_DOMAIN_DEATH;
        }
        libxl_event_free(ctx, event);
    }
    libxl_evdisable_domain_state(ctx, evgen);
    return rc;
#else
#error "the functions are there, and the macro that says so is not"
#endif
}
#else
static int states(libxl_ctx *ctx)
{
    (void)ctx;
    return 0;
}

static void count(libxl_ctx *ctx)
{
    (void)ctx;
}

static void plug(libxl_ctx *ctx, uint32_t domid)
{
    (void)ctx;
    (void)domid;
}
#endif

static void print(const libxl_event *event)
{
    const unsigned char *uuid = event->domuuid.uuid;

    printf("domain %u, UUID %02x%02x..., user %llu: ", (unsigned)event->domid, uuid[0], uuid[1],
           (unsigned long long)event->for_user);
    switch (event->type) {
    case LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN:
        printf("shutdown, reason %d\n", (int)event->u.domain_shutdown.shutdown_reason);
        break;
    case LIBXL_EVENT_TYPE_DOMAIN_DEATH:
        printf("death\n");
        break;
    case LIBXL_EVENT_TYPE_DISK_EJECT:
        printf("%s ejected, backend %s\n", event->u.disk_eject.vdev,
               event->u.disk_eject.disk.backend == LIBXL_DISK_BACKEND_QDISK ? "qdisk" : "other");
        break;
    case LIBXL_EVENT_TYPE_OPERATION_COMPLETE:
        printf("operation complete, result %d\n", event->u.operation_complete.rc);
        break;
    default:
        printf("type %d\n", (int)event->type);
    }
}

/* A poll loop over one domain, until it has died. */
static int poll_loop(struct app *app, uint32_t domid)
{
    libxl_evgen_domain_death *death = NULL;
    libxl_evgen_disk_eject *eject = NULL;
    libxl_event *event;
    int rc, dead = 0;

    rc = libxl_evenable_domain_death(app->ctx, domid, (libxl_ev_user)domid, &death);
    if (rc)
        return rc;
    rc = libxl_evenable_disk_eject(app->ctx, domid, "hdc", 0, &eject);
    if (rc && rc != ERROR_NI)
        return rc;

    while (!dead) {
        struct pollfd fds[4];
        struct timeval now = {0, 0};
        int nfds = 4, timeout_ms = -1;

        rc = libxl_osevent_beforepoll(app->ctx, &nfds, fds, &timeout_ms, now);
        if (rc)
            return rc;
        if (poll(fds, (nfds_t)nfds, timeout_ms) < 0)
            return ERROR_FAIL;
        libxl_osevent_afterpoll(app->ctx, nfds, fds, now);
        while ((rc = libxl_event_check(app->ctx, &event, LIBXL_EVENTMASK_ALL, wants_domain, &domid)) == 0) {
            print(event);
            dead = event->type == LIBXL_EVENT_TYPE_DOMAIN_DEATH;
            libxl_event_free(app->ctx, event);
        }
        if (rc != ERROR_NOT_READY)
            return rc;
    }

    libxl_evdisable_domain_death(app->ctx, death);
    libxl_evdisable_disk_eject(app->ctx, eject);
    return 0;
}

/* The same with hooks and callbacks, and what else the header offers. */
static int hooks(struct app *app, uint32_t domid)
{
    libxl_evgen_domain_death *death = NULL;
    libxl_event *event = NULL;
    int rc;

    libxl_osevent_register_hooks(app->ctx, &osevent_hooks, app);
    libxl_event_register_callbacks(app->ctx, &event_hooks, app);
    libxl_childproc_setmode(app->ctx, &childproc_hooks, app);
    rc = libxl_evenable_domain_death(app->ctx, domid, 0, &death);
    while (rc == 0 && app->events == 0 && poll(&app->fd, 1, -1) >= 0)
        libxl_osevent_occurred_fd(app->ctx, app->for_libxl, app->fd.fd, app->fd.events, app->fd.revents);
    libxl_evdisable_domain_death(app->ctx, death);

    libxl_event_register_callbacks(app->ctx, NULL, NULL);
    libxl_osevent_occurred_timeout(app->ctx, NULL);
    libxl_childproc_sigchld_occurred(app->ctx);
    if (libxl_childproc_reaped(app->ctx, 0, 0) != ERROR_UNKNOWN_CHILD)
        libxl_postfork_child_noexec(app->ctx);
    if (rc == 0)
        rc = libxl_event_wait(app->ctx, &event, (uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_DEATH, NULL, NULL);
    libxl_event_free(app->ctx, event);
    return rc;
}

int main(int argc, char **argv)
{
    struct app app;
    uint32_t domid;
    int rc;

    memset(&app, 0, sizeof(app));
    /* NULL has a meaning for both. */
    libxl_event_free(NULL, NULL);
    rc = libxl_ctx_free(NULL);
    if (rc)
        fprintf(stderr, "libxl_ctx_free(NULL) returned %d, not 0\n", rc);
    if (argc < 2)
        return rc ? EXIT_FAILURE : EXIT_SUCCESS;

    domid = (uint32_t)atoi(argv[1]);
    rc = libxl_ctx_alloc(&app.ctx, LIBXL_VERSION, 0, NULL);
    if (rc == 0)
        rc = argc > 2 ? hooks(&app, domid) : poll_loop(&app, domid);
    if (rc == 0)
        rc = states(app.ctx);
    if (rc)
        fprintf(stderr, "error %d\n", rc);
    if (rc == 0 && argc > 3)
        plug(app.ctx, domid);
    count(app.ctx);
    libxl_ctx_free(app.ctx);
#ifdef WITH_EXTENSIONS
    xlevent_pollset_free(set);
#endif
    return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}
