/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * onlooker: watch many domains, keep a record of each event, and say what hearing of them has cost.
 *
 *     onlooker RECORD
 *
 * RECORD gets "DOMID SHUTDOWN REASON" or "DOMID DEATH" for each event. Prints "ready", and takes commands from stdin, a line
 * each:
 *
 *     watch FILE     the domids in FILE too, each the first word of a line; prints "watching COUNT"
 *     await COUNT    prints "seen COUNT" once COUNT events have come since the start
 *     report         prints what was seen, and what it has cost, since the last report:
 *                        report EVENTS HYPERCALLS CPU_US FIRINGS OWN_HYPERCALLS
 *     end            gives everything back, and ends
 *
 * A report waits until nothing has happened for a moment, so that all that there was to do is in the figures. CPU_US is that of
 * all threads, in user space and in the kernel, in microseconds. FIRINGS and OWN_HYPERCALLS are what xlevent_stats says, "-"
 * without libxlevent.
 *
 * It does what a toolstack does: its own poll() around libxl's descriptors, and a generator for each domain until the domain
 * is dead. The same source is linked with either library. Nothing is filtered: an event that comes twice is recorded twice.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <libxl_event.h>
#include <xentoollog.h>

#include "../harness/ours.h"
#include "hypercalls.h"

/* Far longer than xenstored needs from one firing to the next, also where something else holds the machine up. */
enum { QUIET_MS = 3000 };

struct watched {
    uint32_t domid;
    libxl_evgen_domain_death *death;
};

struct figures {
    uint64_t events, hypercalls, cpu_us, firings, own_hypercalls;
};

static libxl_ctx *ctx;
static struct watched *watched;
static size_t watched_count;
static uint64_t events;
static struct figures reported;
static FILE *record;
/* What was asked for last, and has not come yet. */
static uint64_t awaited;
static bool report_is_due;
static bool broken, ended;

static void complain(const char *what, int rc)
{
    fprintf(stderr, "onlooker: %s: error %d\n", what, rc);
    broken = true;
}

static void on_disaster(void *user, libxl_event_type type, const char *msg, int errnoval)
{
    (void)user;
    fprintf(stderr, "onlooker: disaster, type %d: %s: %s\n", (int)type, msg, strerror(errnoval));
    broken = true;
}

static struct figures figures_now(void)
{
    struct figures now = { .events = events, .hypercalls = hypercalls_made() };
    struct xlevent_stats stats;
    struct timespec cpu;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    now.cpu_us = (uint64_t)cpu.tv_sec * 1000000 + (uint64_t)cpu.tv_nsec / 1000;
    if (xlevent_stats) {
        int rc = xlevent_stats(ctx, &stats, sizeof stats);

        if (rc)
            complain("xlevent_stats", rc);
        now.firings = stats.releases;
        now.own_hypercalls = stats.hypercalls;
    }
    return now;
}

static void report(void)
{
    struct figures now = figures_now();

    printf("report %" PRIu64 " %" PRIu64 " %" PRIu64, now.events - reported.events, now.hypercalls - reported.hypercalls,
           now.cpu_us - reported.cpu_us);
    if (xlevent_stats)
        printf(" %" PRIu64 " %" PRIu64 "\n", now.firings - reported.firings, now.own_hypercalls - reported.own_hypercalls);
    else
        printf(" - -\n");
    report_is_due = false;
    reported = figures_now();
}

static void watch(const char *path)
{
    FILE *file = fopen(path, "r");
    size_t room = watched_count, count = 0;
    uint32_t domid;
    int rc;

    if (!file) {
        complain(path, errno);
        return;
    }
    while (fscanf(file, "%" SCNu32 "%*[^\n]", &domid) == 1) {
        if (watched_count == room) {
            room = room ? room * 2 : 1024;
            watched = realloc(watched, room * sizeof *watched);
            if (!watched)
                abort();
        }
        watched[watched_count].domid = domid;
        rc = libxl_evenable_domain_death(ctx, domid, watched_count, &watched[watched_count].death);
        if (rc) {
            complain("libxl_evenable_domain_death", rc);
            break;
        }
        watched_count++;
        count++;
    }
    fclose(file);
    printf("watching %zu\n", count);
}

static void obey(char *line)
{
    if (!strncmp(line, "watch ", 6))
        watch(line + 6);
    else if (!strncmp(line, "await ", 6))
        awaited = strtoull(line + 6, NULL, 10);
    else if (!strcmp(line, "report"))
        report_is_due = true;
    else if (!strcmp(line, "end"))
        ended = true;
    else
        complain(line, ERROR_INVAL);
}

/* Obeys all lines that are complete. */
static void read_commands(void)
{
    static char text[4096];
    static size_t length;
    ssize_t got = read(STDIN_FILENO, text + length, sizeof text - 1 - length);
    char *line = text, *end;

    if (got <= 0) {
        ended = true;
        return;
    }
    length += (size_t)got;
    text[length] = 0;
    while ((end = strchr(line, '\n'))) {
        *end = 0;
        obey(line);
        line = end + 1;
    }
    length -= (size_t)(line - text);
    memmove(text, line, length);
}

static void take_event(libxl_event *event)
{
    struct watched *domain = event->for_user < watched_count ? &watched[event->for_user] : NULL;

    events++;
    switch (event->type) {
    case LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN:
        fprintf(record, "%" PRIu32 " SHUTDOWN %u\n", event->domid, (unsigned)event->u.domain_shutdown.shutdown_reason);
        break;
    case LIBXL_EVENT_TYPE_DOMAIN_DEATH:
        fprintf(record, "%" PRIu32 " DEATH\n", event->domid);
        break;
    default:
        fprintf(record, "%" PRIu32 " TYPE %d\n", event->domid, (int)event->type);
    }
    if (!domain || domain->domid != event->domid) {
        fprintf(record, "%" PRIu32 " WRONG-USER %" PRIu64 "\n", event->domid, event->for_user);
    } else if (event->type == LIBXL_EVENT_TYPE_DOMAIN_DEATH && domain->death) {
        libxl_evdisable_domain_death(ctx, domain->death);
        domain->death = NULL;
    }
    libxl_event_free(ctx, event);
}

/* Waits for libxl or a command, and serves them. */
static void turn(void)
{
    static struct pollfd *fds;
    static int room = 1;
    struct timeval now;
    libxl_event *event;
    int count, timeout_ms, ready, rc;
    bool at_rest;

    for (;;) {
        /* The first is ours. */
        fds = realloc(fds, (size_t)room * sizeof *fds);
        if (!fds)
            abort();
        count = room - 1;
        timeout_ms = -1;
        gettimeofday(&now, NULL);
        rc = libxl_osevent_beforepoll(ctx, &count, fds + 1, &timeout_ms, now);
        if (rc != ERROR_BUFFERFULL)
            break;
        room = count + 1;
    }
    if (rc) {
        complain("libxl_osevent_beforepoll", rc);
        return;
    }
    fds[0] = (struct pollfd){ .fd = STDIN_FILENO, .events = POLLIN };
    at_rest = report_is_due && (timeout_ms < 0 || timeout_ms > QUIET_MS);
    if (at_rest)
        timeout_ms = QUIET_MS;
    /* Before it is said that they have come. */
    if (fflush(record))
        complain("the record", errno);
    if (awaited && events >= awaited) {
        printf("seen %" PRIu64 "\n", awaited);
        awaited = 0;
    }
    fflush(stdout);
    ready = poll(fds, (nfds_t)count + 1, timeout_ms);
    if (ready < 0) {
        if (errno != EINTR)
            complain("poll", errno);
        return;
    }
    gettimeofday(&now, NULL);
    libxl_osevent_afterpoll(ctx, count, fds + 1, now);
    while (!(rc = libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL)))
        take_event(event);
    if (rc != ERROR_NOT_READY)
        complain("libxl_event_check", rc);
    if (ready == 0 && at_rest)
        report();
    if (fds[0].revents)
        read_commands();
}

int main(int argc, char **argv)
{
    static const libxl_event_hooks disasters = { .disaster = on_disaster };
    xentoollog_logger *logger = (xentoollog_logger *)xtl_createlogger_stdiostream(stderr, XTL_WARN, 0);
    size_t i;
    int rc;

    if (argc != 2) {
        fprintf(stderr, "usage: onlooker RECORD\n");
        return 2;
    }
    record = fopen(argv[1], "w");
    if (!record || !logger)
        return 1;
    rc = libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, logger);
    if (rc) {
        complain("libxl_ctx_alloc", rc);
        return 1;
    }
    libxl_event_register_callbacks(ctx, &disasters, NULL);
    /* What is said goes out together, before each wait. */
    setvbuf(stdout, NULL, _IOFBF, BUFSIZ);
    setvbuf(record, NULL, _IOFBF, 1 << 16);
    printf("ready\n");
    reported = figures_now();
    while (!ended && !broken)
        turn();

    for (i = 0; i < watched_count; i++)
        if (watched[i].death)
            libxl_evdisable_domain_death(ctx, watched[i].death);
    libxl_ctx_free(ctx);
    xtl_logger_destroy(logger);
    free(watched);
    return fclose(record) || fflush(stdout) || broken ? 1 : 0;
}
