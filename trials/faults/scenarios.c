/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The programs that meet a fault: each does with libxlevent what applications do, and waits for events of its own doing.
 *
 * What it says of itself goes into `run`: how many events were due, how many came, and in which way it was told that one
 * may not come. It gives up waiting as an application would: when it has been told.
 */
#include "faults.h"

#include <poll.h>
#include <stdarg.h>
#include <sys/wait.h>

#include <libxl_event.h>
#include <xentoollog.h>

#include "harness/drive.h"
#include "harness/ours.h"
#include "harness/plug.h"
#include "harness/store.h"

/* ---- what it says ---- */

__attribute__((format(printf, 2, 3))) static void tell(enum told how, const char *format, ...)
{
    va_list arguments;

    if (how <= run->told[run->round])
        return;
    run->told[run->round] = how;
    va_start(arguments, format);
    vsnprintf(run->words[run->round], sizeof run->words[0], format, arguments);
    va_end(arguments);
}

static bool was_told(void)
{
    return run->told[run->round] > BY_LOG;
}

/* ---- the host ---- */

/* What the program does to the host is its own affair. */
#define HOST(call)                                                                                                     \
    do {                                                                                                               \
        inject_pause();                                                                                                \
        if ((call) < 0)                                                                                                \
            FAIL("%s: %s", #call, xensim_error());                                                                   \
        inject_resume();                                                                                               \
    } while (0)

static uint32_t create(void)
{
    struct xensim_config config = { .name = "guest", .domid = XENSIM_DOMID_ANY, .nodes = XENSIM_NODES_NAME };
    uint32_t domid;

    HOST(xensim_create_many(host, &config, 1, &domid));
    run->domids[run->domid_count++ % (int)COUNT(run->domids)] = domid;
    return domid;
}

static struct drive create_drive(uint32_t domid)
{
    struct drive drive;

    inject_pause();
    drive = drive_at(domid, HDC, "hdc");
    inject_resume();
    return drive;
}

static void eject_from(struct drive drive)
{
    inject_pause();
    eject(drive);
    inject_resume();
}

/* ---- the application ---- */

static void log_line(xentoollog_logger *logger, xentoollog_level level, int errnoval, const char *context,
                     const char *format, va_list arguments)
{
    char text[250];

    (void)logger;
    vsnprintf(text, sizeof text, format, arguments);
    if (getenv("FAULTS_VERBOSE"))
        fprintf(stderr, "    %d %s: %s (%d)\n", (int)level, context ? context : "", text, errnoval);
    if (level >= XTL_ERROR)
        tell(BY_LOG, "%s", text);
}

static void log_progress(xentoollog_logger *logger, const char *context, const char *what, int percent,
                         unsigned long done, unsigned long total)
{
    (void)logger, (void)context, (void)what, (void)percent, (void)done, (void)total;
}

static xentoollog_logger logger = { log_line, log_progress, NULL };
static libxl_ctx *hooked;

/* It calls back in, as an application that gives up would. */
static void disaster(void *user, libxl_event_type type, const char *message, int errnoval)
{
    (void)user, (void)type;
    tell(BY_DISASTER, "%s (%d)", message, errnoval);
    xlevent_wait_cancel(hooked);
}

static int events_by_callback;

static void occurs(void *user, libxl_event *event)
{
    (void)user;
    events_by_callback++;
    libxl_event_free(hooked, event);
}

static const libxl_event_hooks disaster_hooks = { .disaster = disaster };
static const libxl_event_hooks event_hooks = { .event_occurs_mask = ~(uint64_t)0, .event_occurs = occurs,
                                               .disaster = disaster };

static libxl_ctx *open_context(const libxl_event_hooks *hooks)
{
    libxl_ctx *ctx = NULL;
    int rc = libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &logger);

    if (rc != 0) {
        tell(BY_VALUE, "libxl_ctx_alloc: %d", rc);
        if (ctx)
            FAIL("libxl_ctx_alloc has failed, and given a context");
        return NULL;
    }
    hooked = ctx;
    libxl_event_register_callbacks(ctx, hooks, NULL);
    return ctx;
}

/* A call that says by its value whether it has worked. */
#define WORKS(call) works(#call, call)
static bool works(const char *call, int rc)
{
    if (rc != 0)
        tell(BY_VALUE, "%.60s: %d", call, rc);
    return rc == 0;
}

/* An event is there: what is left to be judged is whether it was due. */
static void came(libxl_ctx *ctx, libxl_event *event)
{
    run->came[run->round]++;
    libxl_event_free(ctx, event);
}

static void due(int events)
{
    run->due[run->round] += events;
}

/* The next event, by libxl_event_wait; whether it came. The disaster hook ends the wait. */
static bool wait_event(libxl_ctx *ctx)
{
    libxl_event *event = NULL;
    int rc = libxl_event_wait(ctx, &event, ~(uint64_t)0, NULL, NULL);

    if (rc == 0)
        came(ctx, event);
    else if (rc != ERROR_ABORTED || run->told[run->round] < BY_DISASTER)
        tell(BY_VALUE, "libxl_event_wait: %d", rc);
    return rc == 0;
}

/* One round of a poll loop; whether it could be had. */
static bool poll_once(libxl_ctx *ctx)
{
    struct pollfd fds[8];
    int count = COUNT(fds), timeout = 50;
    struct timeval now = { 0, 0 };

    if (!WORKS(libxl_osevent_beforepoll(ctx, &count, fds, &timeout, now)))
        return false;
    inject_pause();
    poll(fds, (nfds_t)count, timeout);
    inject_resume();
    libxl_osevent_afterpoll(ctx, count, fds, now);
    return true;
}

/* Rounds until an event is there, or the application knows that it may not come. */
static bool poll_event(libxl_ctx *ctx)
{
    uint64_t end = now_ms() + LONGEST_S * 1000;

    while (now_ms() < end) {
        libxl_event *event = NULL;

        if (libxl_event_check(ctx, &event, ~(uint64_t)0, NULL, NULL) == 0) {
            came(ctx, event);
            return true;
        }
        if (was_told() || !poll_once(ctx))
            return false;
    }
    return false;
}

/* ---- scenarios ---- */

static void open_and_close(void)
{
    libxl_ctx *ctx = open_context(&disaster_hooks);

    if (ctx)
        works("libxl_ctx_free", libxl_ctx_free(ctx));
}

static void wait_for_death(void)
{
    libxl_ctx *ctx = open_context(&disaster_hooks);
    libxl_evgen_domain_death *evgen;
    uint32_t domid = create();

    if (!ctx)
        return;
    if (WORKS(libxl_evenable_domain_death(ctx, domid, 1, &evgen))) {
        due(2);
        HOST(xensim_shutdown(host, domid, 0));
        if (wait_event(ctx)) {
            HOST(xensim_destroy(host, domid));
            wait_event(ctx);
        }
        libxl_evdisable_domain_death(ctx, evgen);
    }
    libxl_ctx_free(ctx);
}

static void poll_for_death(void)
{
    libxl_ctx *ctx = open_context(&disaster_hooks);
    libxl_evgen_domain_death *evgen, *second;
    uint32_t domid = create(), other = create();

    if (!ctx)
        return;
    if (WORKS(libxl_evenable_domain_death(ctx, domid, 1, &evgen))) {
        due(1);
        HOST(xensim_destroy(host, domid));
        if (poll_event(ctx) && WORKS(libxl_evenable_domain_death(ctx, other, 2, &second))) {
            due(1);
            HOST(xensim_destroy(host, other));
            poll_event(ctx);
            libxl_evdisable_domain_death(ctx, second);
        }
        libxl_evdisable_domain_death(ctx, evgen);
    }
    libxl_ctx_free(ctx);
}

/* An application's loop, which has room for one descriptor. */
static struct {
    int fd;
    void *for_libxl;
} registered[32];

static int fd_register(void *user, int fd, void **for_app, short events, void *for_libxl)
{
    size_t i;

    (void)user, (void)events;
    for (i = 0; i < COUNT(registered); i++)
        if (!registered[i].for_libxl) {
            registered[i].fd = fd;
            registered[i].for_libxl = for_libxl;
            *for_app = &registered[i];
            return 0;
        }
    return ERROR_NOMEM;
}

static int fd_modify(void *user, int fd, void **for_app, short events)
{
    (void)user, (void)fd, (void)for_app, (void)events;
    return 0;
}

static void fd_deregister(void *user, int fd, void *for_app)
{
    (void)user, (void)fd;
    *(void **)((char *)for_app + offsetof(__typeof__(registered[0]), for_libxl)) = NULL;
}

static int timeout_register(void *user, void **for_app, struct timeval at, void *for_libxl)
{
    (void)user, (void)for_app, (void)at, (void)for_libxl;
    return ERROR_FAIL;
}

static int timeout_modify(void *user, void **for_app, struct timeval at)
{
    (void)user, (void)for_app, (void)at;
    return ERROR_FAIL;
}

static const libxl_osevent_hooks os_hooks = { fd_register, fd_modify, fd_deregister,
                                              timeout_register, timeout_modify, NULL };

static bool serve_hooks(libxl_ctx *ctx, int wanted)
{
    uint64_t end = now_ms() + LONGEST_S * 1000;

    while (events_by_callback < wanted && !was_told() && now_ms() < end) {
        struct pollfd fds[COUNT(registered)];
        size_t i;

        for (i = 0; i < COUNT(registered); i++)
            fds[i] = (struct pollfd){ registered[i].for_libxl ? registered[i].fd : -1, POLLIN, 0 };
        inject_pause();
        poll(fds, COUNT(registered), 50);
        inject_resume();
        for (i = 0; i < COUNT(registered); i++)
            if (fds[i].revents && registered[i].for_libxl)
                libxl_osevent_occurred_fd(ctx, registered[i].for_libxl, registered[i].fd, POLLIN, fds[i].revents);
    }
    return events_by_callback >= wanted;
}

static void hooks_and_callbacks(void)
{
    libxl_ctx *ctx;
    libxl_evgen_domain_death *evgen;
    uint32_t domid = create();

    memset(registered, 0, sizeof registered);
    events_by_callback = 0;
    ctx = open_context(&event_hooks);
    if (!ctx)
        return;
    libxl_osevent_register_hooks(ctx, &os_hooks, NULL);
    if (WORKS(libxl_evenable_domain_death(ctx, domid, 1, &evgen))) {
        due(2);
        HOST(xensim_shutdown(host, domid, 3));
        if (serve_hooks(ctx, 1)) {
            HOST(xensim_destroy(host, domid));
            serve_hooks(ctx, 2);
        }
        libxl_evdisable_domain_death(ctx, evgen);
    }
    libxl_ctx_free(ctx);
    run->came[run->round] += events_by_callback;
}

static void handle(void *user, const libxl_event *event)
{
    (void)user, (void)event;
    run->came[run->round]++;
}

static void one_descriptor(void)
{
    static const struct xlevent_handler handlers[] = { { LIBXL_EVENT_TYPE_DOMAIN_DEATH, handle },
                                                       { XLEVENT_ALL_OTHERS, NULL } };
    libxl_ctx *ctx = open_context(&disaster_hooks);
    libxl_evgen_domain_death *evgen;
    uint32_t domid = create();
    uint64_t end = now_ms() + LONGEST_S * 1000;
    int fd;

    if (!ctx)
        return;
    fd = xlevent_get_fd(ctx);
    if (fd < 0)
        tell(BY_VALUE, "xlevent_get_fd: %d", fd);
    else if (WORKS(libxl_evenable_domain_death(ctx, domid, 1, &evgen))) {
        due(1);
        HOST(xensim_destroy(host, domid));
        while (run->came[run->round] < 1 && !was_told() && now_ms() < end) {
            struct pollfd polled = { fd, POLLIN, 0 };

            inject_pause();
            poll(&polled, 1, 50);
            inject_resume();
            if (polled.revents && xlevent_dispatch(ctx, handlers, NULL) < 0)
                tell(BY_VALUE, "xlevent_dispatch");
        }
        libxl_evdisable_domain_death(ctx, evgen);
    }
    libxl_ctx_free(ctx);
}

static void disk_eject(void)
{
    libxl_ctx *ctx = open_context(&disaster_hooks);
    libxl_evgen_disk_eject *evgen;
    uint32_t domid = create();
    struct drive drive;

    if (!ctx)
        return;
    drive = create_drive(domid);
    if (WORKS(libxl_evenable_disk_eject(ctx, domid, "hdc", 1, &evgen))) {
        due(2);
        eject_from(drive);
        if (poll_event(ctx)) {
            eject_from(drive);
            poll_event(ctx);
        }
        libxl_evdisable_disk_eject(ctx, evgen);
    }
    libxl_ctx_free(ctx);
}

static void domain_states(void)
{
    libxl_ctx *ctx = open_context(&disaster_hooks);
    libxl_evgen_domain_state *evgen;
    uint32_t domid = create();
    uint64_t states = (uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED | (uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_RUNNING |
                      (uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_DEATH;

    if (!ctx)
        return;
    if (WORKS(libxl_evenable_domain_state(ctx, domid, states, 1, &evgen))) {
        due(3);
        HOST(xensim_suspend(host, domid));
        if (poll_event(ctx)) {
            HOST(xensim_resume(host, domid));
            if (wait_event(ctx)) {
                HOST(xensim_destroy(host, domid));
                wait_event(ctx);
            }
        }
        libxl_evdisable_domain_state(ctx, evgen);
    }
    libxl_ctx_free(ctx);
}

static void subscribers(void)
{
    libxl_ctx *ctx = open_context(&disaster_hooks);
    struct xlevent_subscriber *subscriber = NULL;
    libxl_evgen_domain_death *evgen;
    uint32_t domid = create();
    uint64_t end = now_ms() + LONGEST_S * 1000;

    if (!ctx)
        return;
    if (WORKS(xlevent_subscriber_new(ctx, &subscriber))) {
        if (WORKS(xlevent_subscriber_evenable_domain_death(ctx, subscriber, domid, 1, &evgen))) {
            due(1);
            HOST(xensim_destroy(host, domid));
            while (run->came[run->round] == 0 && !was_told() && now_ms() < end) {
                libxl_event *event = NULL;
                int rc = xlevent_subscriber_wait(ctx, subscriber, &event, ~(uint64_t)0, NULL, NULL, 100);

                if (rc == 0)
                    came(ctx, event);
                else if (rc != ERROR_TIMEDOUT)
                    tell(BY_VALUE, "xlevent_subscriber_wait: %d", rc);
            }
            libxl_evdisable_domain_death(ctx, evgen);
        }
        WORKS(xlevent_subscriber_free(ctx, subscriber));
    }
    libxl_ctx_free(ctx);
}

/* A disk whose backend has closed it already, with a script; its end is an event. */
static void remove_device(void)
{
    libxl_ctx *ctx = open_context(&disaster_hooks);
    libxl_asyncop_how how = { .callback = NULL };
    uint32_t domid = create();
    struct plug plug;

    if (!ctx)
        return;
    inject_pause();
    plug = plug_in(domid, XLEVENT_DEVICE_KIND_VBD, 51712, 0, "vbd");
    plug_script(&plug, "exit 0");
    inject_resume();
    how.u.for_event = 1;
    if (WORKS(xlevent_device_remove(ctx, domid, XLEVENT_DEVICE_KIND_VBD, 51712, XLEVENT_FORCE_NEVER, &how))) {
        libxl_event *event = NULL;

        due(1);
        inject_pause();
        put_node(backend_node(&plug, "state"), "6");
        inject_resume();
        if (libxl_event_wait(ctx, &event, ~(uint64_t)0, NULL, NULL) == 0) {
            WORKS(event->u.operation_complete.rc);
            came(ctx, event);
        }
    }
    libxl_ctx_free(ctx);
}

static int reaped;

static int note_reaped(pid_t pid, int status, void *user)
{
    (void)status;
    if (pid != *(pid_t *)user)
        return ERROR_UNKNOWN_CHILD;
    reaped++;
    return 0;
}

/* A child of the application's, which the library reaps. */
static void reap_children(void)
{
    static const libxl_childproc_hooks hooks = { .chldowner = libxl_sigchld_owner_libxl_always,
                                                 .reaped_callback = note_reaped };
    libxl_ctx *ctx = open_context(&disaster_hooks);
    uint64_t end = now_ms() + LONGEST_S * 1000;
    static pid_t pid;

    if (!ctx)
        return;
    reaped = 0;
    pid = 0;
    libxl_childproc_setmode(ctx, &hooks, &pid);
    due(1);
    inject_pause();
    pid = fork();
    if (pid == 0)
        _exit(0);
    inject_resume();
    while (reaped == 0 && run->told[run->round] == NOT_TOLD && now_ms() < end)
        poll_once(ctx);
    run->came[run->round] += reaped;
    libxl_ctx_free(ctx);
    if (!reaped)
        waitpid(pid, NULL, 0);
}

static void outlive_xenstored(void)
{
    libxl_ctx *ctx = open_context(&disaster_hooks);
    libxl_evgen_domain_death *evgen;
    libxl_evgen_disk_eject *drive;
    uint32_t domid = create(), other = create();

    if (!ctx)
        return;
    if (WORKS(libxl_evenable_domain_death(ctx, domid, 1, &evgen))) {
        if (WORKS(libxl_evenable_disk_eject(ctx, other, "hdc", 2, &drive))) {
            due(2);
            HOST(xensim_xenstored(host, XENSIM_XENSTORED_KILL));
            HOST(xensim_destroy(host, domid));
            HOST(xensim_xenstored(host, XENSIM_XENSTORED_START));
            eject_from(create_drive(other));
            if (poll_event(ctx))
                poll_event(ctx);
            libxl_evdisable_disk_eject(ctx, drive);
        }
        libxl_evdisable_domain_death(ctx, evgen);
    }
    libxl_ctx_free(ctx);
}

/* So many end at once that what is taken for them is large. One context queues their events, another calls back. */
static void crowd(void)
{
    static const struct xensim_config config = { .name = "one of many", .domid = 1000, .nodes = XENSIM_NODES_NONE };
    static uint32_t domids[CROWD];
    libxl_ctx *queues, *calls;
    libxl_evgen_domain_death *evgen;
    libxl_event *event;
    uint64_t end;
    int i;

    HOST(xensim_create_many(host, &config, CROWD, domids));
    run->crowd_first = domids[0];
    run->crowd_count = CROWD;
    events_by_callback = 0;
    calls = open_context(&event_hooks);
    queues = open_context(&disaster_hooks);
    for (i = 0; queues && calls && i < CROWD && !was_told(); i++) {
        if (WORKS(libxl_evenable_domain_death(queues, domids[i], 1, &evgen)))
            due(1);
        if (WORKS(libxl_evenable_domain_death(calls, domids[i], 2, &evgen)))
            due(1);
    }
    HOST(xensim_destroy_many(host, domids, CROWD, 0));
    run->crowd_count = 0;
    end = now_ms() + LONGEST_S * 1000;
    while (queues && calls && run->came[run->round] + events_by_callback < run->due[run->round] && now_ms() < end) {
        if (!poll_once(queues) || !poll_once(calls))
            break;
        /* What a disaster leaves is to be had all the same. */
        if (was_told() && end > now_ms() + 300)
            end = now_ms() + 300;
        HOST(xensim_settle(host));
        while (libxl_event_check(queues, &event, ~(uint64_t)0, NULL, NULL) == 0)
            came(queues, event);
    }
    run->came[run->round] += events_by_callback;
    libxl_ctx_free(queues);
    libxl_ctx_free(calls);
}

const struct scenario scenarios[] = {
    { "open", open_and_close, 0 },
    { "wait", wait_for_death, 0 },
    { "poll", poll_for_death, 0 },
    { "hooks", hooks_and_callbacks, 0 },
    { "descriptor", one_descriptor, 0 },
    { "eject", disk_eject, 0 },
    { "states", domain_states, 0 },
    { "subscribers", subscribers, 0 },
    { "removal", remove_device, OPERATES },
    { "children", reap_children, ONLY_ALONE },
    { "crowd", crowd, ONLY_MEMORY },
    { "restart", outlive_xenstored, RESTARTS },
};
const size_t scenario_count = COUNT(scenarios);
