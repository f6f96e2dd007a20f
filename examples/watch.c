/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * watch: say when a domain shuts down or dies, for every domain on the host.
 *
 * One line per happening, written at once:
 *
 *     TIME DOMID NAME FOUND
 *     TIME DOMID NAME SHUTDOWN REASON
 *     TIME DOMID NAME DEATH
 *
 * It shows the simplest way to use libxl_event.h in a program that has
 * descriptors of its own: a poll() loop around libxl_osevent_beforepoll and
 * _afterpoll.  Which domains there are is xenstore's to say (its special watch
 * "@introduceDomain"); what becomes of them is libxl's.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#include <libxl_event.h>
#include <xenstore.h>
#include <xentoollog.h>

struct domain {
    struct domain *next;
    uint32_t domid;
    char *name;
    libxl_evgen_domain_death *death;    /* NULL once the DEATH has come */
};

static struct domain *domains;
static volatile sig_atomic_t stop;
static bool broken;

static void on_signal(int signum)
{
    (void)signum;
    stop = 1;
}

static void on_disaster(void *user, libxl_event_type type, const char *msg, int errnoval)
{
    (void)user;
    fprintf(stderr, "watch: events of type %d may be missing: %s: %s\n", (int)type, msg, strerror(errnoval));
    broken = true;
}

static const char *reason_name(uint8_t reason)
{
    static const char *const names[] = { "poweroff", "reboot", "suspend", "crash", "watchdog", "soft_reset" };
    static char number[sizeof "255"];

    if (reason < sizeof names / sizeof names[0])
        return names[reason];
    snprintf(number, sizeof number, "%u", (unsigned)reason);
    return number;
}

static void say(const struct domain *domain, const char *what, const char *reason)
{
    struct timeval now;
    struct tm tm;
    char clock[sizeof "00:00:00"];

    gettimeofday(&now, NULL);
    localtime_r(&now.tv_sec, &tm);
    strftime(clock, sizeof clock, "%H:%M:%S", &tm);
    printf("%s.%03ld %" PRIu32 " %s %s%s%s\n", clock, (long)now.tv_usec / 1000, domain->domid, domain->name, what,
           reason ? " " : "", reason ? reason : "");
    fflush(stdout);
}

static struct domain *find(uint32_t domid)
{
    struct domain *domain;

    for (domain = domains; domain && domain->domid != domid; domain = domain->next)
        ;
    return domain;
}

static char *read_name(struct xs_handle *store, uint32_t domid)
{
    char path[sizeof "/local/domain/4294967295/name"];
    char *name;

    snprintf(path, sizeof path, "/local/domain/%" PRIu32 "/name", domid);
    name = xs_read(store, XBT_NULL, path, NULL);
    return name ? name : strdup("-");
}

static int follow(libxl_ctx *ctx, struct xs_handle *store, uint32_t domid)
{
    struct domain *domain = calloc(1, sizeof *domain);
    int rc;

    if (!domain)
        return -1;
    domain->domid = domid;
    domain->name = read_name(store, domid);
    rc = domain->name ? libxl_evenable_domain_death(ctx, domid, domid, &domain->death) : -1;
    if (rc) {
        fprintf(stderr, "watch: can't follow domain %" PRIu32 ": error %d\n", domid, rc);
        free(domain->name);
        free(domain);
        return rc;
    }
    domain->next = domains;
    domains = domain;
    say(domain, "FOUND", NULL);
    return 0;
}

static void forget(libxl_ctx *ctx, struct domain *domain)
{
    struct domain **link = &domains;

    while (*link != domain)
        link = &(*link)->next;
    *link = domain->next;
    if (domain->death)
        libxl_evdisable_domain_death(ctx, domain->death);
    free(domain->name);
    free(domain);
}

/* Follow every domain that is new.  A dead one is remembered for as long as
 * xenstore lists it, lest it be taken for a new one and die twice. */
static int look_for_domains(libxl_ctx *ctx, struct xs_handle *store)
{
    struct domain *domain, *next;
    unsigned count, i;
    char **list = xs_directory(store, XBT_NULL, "/local/domain", &count);

    if (!list) {
        fprintf(stderr, "watch: can't list the domains: %s\n", strerror(errno));
        return -1;
    }
    for (i = 0; i < count; i++) {
        uint32_t domid = (uint32_t)strtoul(list[i], NULL, 10);

        /* The nodes of a domain come before the domain itself does. */
        if (domid != 0 && !find(domid) && xs_is_domain_introduced(store, domid) && follow(ctx, store, domid)) {
            free(list);
            return -1;
        }
    }
    free(list);
    for (domain = domains; domain; domain = next) {
        next = domain->next;
        if (!domain->death && !xs_is_domain_introduced(store, domain->domid))
            forget(ctx, domain);
    }
    return 0;
}

static int report_events(libxl_ctx *ctx)
{
    libxl_event *event;
    int rc;

    while (!(rc = libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL))) {
        struct domain *domain = find(event->domid);

        if (domain && event->type == LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN) {
            say(domain, "SHUTDOWN", reason_name(event->u.domain_shutdown.shutdown_reason));
        } else if (domain && event->type == LIBXL_EVENT_TYPE_DOMAIN_DEATH) {
            say(domain, "DEATH", NULL);
            libxl_evdisable_domain_death(ctx, domain->death);
            domain->death = NULL;
        }
        libxl_event_free(ctx, event);
    }
    return rc == ERROR_NOT_READY ? 0 : rc;
}

/* Wait for anything: our xenstore watch is fds[0], libxl's descriptors follow. */
static int wait_and_dispatch(libxl_ctx *ctx, struct xs_handle *store, const sigset_t *unblocked)
{
    static struct pollfd *fds;
    static int room;
    struct timespec limit;
    struct timeval now;
    int count, timeout_ms, rc;

    for (;;) {
        count = room > 0 ? room - 1 : 0;
        timeout_ms = -1;
        gettimeofday(&now, NULL);
        rc = libxl_osevent_beforepoll(ctx, &count, room > 0 ? fds + 1 : NULL, &timeout_ms, now);
        if (room > 0 && rc != ERROR_BUFFERFULL)
            break;
        room = count + 1;
        fds = realloc(fds, (size_t)room * sizeof *fds);
        if (!fds)
            return -1;
    }
    if (rc)
        return rc;

    fds[0].fd = xs_fileno(store);
    fds[0].events = POLLIN;
    fds[0].revents = 0;
    limit.tv_sec = timeout_ms / 1000;
    limit.tv_nsec = timeout_ms % 1000 * 1000000L;
    if (ppoll(fds, (nfds_t)count + 1, timeout_ms < 0 ? NULL : &limit, unblocked) < 0)
        return errno == EINTR ? 0 : -1;

    gettimeofday(&now, NULL);
    libxl_osevent_afterpoll(ctx, count, fds + 1, now);

    if (fds[0].revents) {
        char **watch;
        bool fired = false;

        while ((watch = xs_check_watch(store))) {
            free(watch);
            fired = true;
        }
        if (fired && look_for_domains(ctx, store))
            return -1;
    }
    return report_events(ctx);
}

int main(void)
{
    static const libxl_event_hooks hooks = { .event_occurs_mask = 0, .disaster = on_disaster };
    struct sigaction action = { .sa_handler = on_signal };
    sigset_t blocked, unblocked;
    xentoollog_logger *logger;
    struct xs_handle *store;
    libxl_ctx *ctx = NULL;
    int rc;

    /* The signals that end us are let in only while we wait. */
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGINT);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &blocked, &unblocked);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);

    logger = (xentoollog_logger *)xtl_createlogger_stdiostream(stderr, XTL_WARN, 0);
    store = xs_open(0);
    if (!logger || !store) {
        perror("watch: can't reach xenstore");
        return 1;
    }
    rc = libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, logger);
    if (rc) {
        fprintf(stderr, "watch: libxl_ctx_alloc: error %d\n", rc);
        return 1;
    }
    libxl_event_register_callbacks(ctx, &hooks, NULL);

    /* The watch fires once as soon as it is set: that finds those that are there. */
    if (!xs_watch(store, "@introduceDomain", "watch")) {
        perror("watch: @introduceDomain");
        return 1;
    }
    rc = 0;
    while (!stop && !broken && !rc)
        rc = wait_and_dispatch(ctx, store, &unblocked);

    while (domains)
        forget(ctx, domains);
    libxl_ctx_free(ctx);
    xs_close(store);
    xtl_logger_destroy(logger);
    return rc || broken ? 1 : 0;
}
