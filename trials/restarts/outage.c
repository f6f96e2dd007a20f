/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One outage of xenstored, looked at closely: how often it is looked for, what is logged, what the application is told.
 *
 * usage: outage minute|descriptors
 *
 *   minute       it is away for two minutes, which pass at a thirtieth of the time: the library's clock and its timer are
 *                this program's functions of those names, which come ahead of the C library's
 *   descriptors  when it comes back, the process has no descriptors left
 *
 * What counts is counted in the library's own time: a machine that is slow makes for fewer tries, never for more.
 */
#include <stdint.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <libxl_event.h>
#include <xenstore.h>
#include <xentoollog.h>

#include "harness/assert.h"
#include "harness/column.h"
#include "harness/host.h"
#include "harness/next.h"
#include "harness/ours.h"
#include "harness/xl.h"

/* ---- the library's time ---- */

static int64_t rate = 1, from_real, from_ours;

static int64_t real_ns(void)
{
    struct timespec now;

    NEXT(clock_gettime)(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int64_t our_ns(void)
{
    return from_ours + (real_ns() - from_real) * rate;
}

static void set_rate(int64_t to)
{
    int64_t ours = our_ns();

    from_real = real_ns();
    from_ours = ours;
    rate = to;
}

static struct timespec timespec_of(int64_t ns)
{
    return (struct timespec){ ns / 1000000000, ns % 1000000000 };
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    if (clock != CLOCK_MONOTONIC)
        return NEXT(clock_gettime)(clock, time);
    *time = timespec_of(our_ns());
    return 0;
}

static int timers_set;

int timerfd_settime(int fd, int flags, const struct itimerspec *new, struct itimerspec *old)
{
    struct itimerspec real = *new;
    int64_t at = new->it_value.tv_sec * 1000000000LL + new->it_value.tv_nsec;

    CHECK(flags == TFD_TIMER_ABSTIME);
    timers_set++;
    at = from_real + (at - from_ours) / rate;
    real.it_value = timespec_of(at > 0 ? at : 1);
    return NEXT(timerfd_settime)(fd, flags, &real, old);
}

/* ---- what the library does ---- */

/* Connections to xenstored's socket that were tried, and those to it that may have gone another way. */
static int tries, unsure_tries;

int socket(int domain, int type, int protocol)
{
    tries += domain == AF_UNIX && (type & ~(SOCK_CLOEXEC | SOCK_NONBLOCK)) == SOCK_STREAM;
    return NEXT(socket)(domain, type, protocol);
}

struct xs_handle *xs_open(unsigned long flags)
{
    unsure_tries += !(flags & XS_OPEN_SOCKETONLY);
    return NEXT(xs_open)(flags);
}

static int lines, disasters, disaster_errno;

static void log_line(xentoollog_logger *logger, xentoollog_level level, int errnoval, const char *context,
                     const char *format, va_list arguments)
{
    (void)logger;
    if (context && strcmp(context, "libxl") == 0)
        return;
    if (level < XTL_INFO)
        return;
    lines++;
    printf("    %s: ", xtl_level_to_string(level));
    vprintf(format, arguments);
    printf(" (errno %d)\n", errnoval);
}

static xentoollog_logger own_logger = { log_line, NULL, NULL };

static void disaster(void *user, libxl_event_type type, const char *message, int errnoval)
{
    (void)user, (void)type, (void)message;
    disasters++;
    disaster_errno = errnoval;
}

static const libxl_event_hooks hooks = { .disaster = disaster };

/* ---- a watcher and its host ---- */

static libxl_ctx *ctx;
static uint32_t domid;

static struct xlevent_stats stats(void)
{
    struct xlevent_stats stats;

    CHECK(xlevent_stats(ctx, &stats, sizeof stats) == 0);
    return stats;
}

static void begin(void)
{
    unsetenv("LD_PRELOAD");
    host_bring_up();
    domid = host_create();
    CHECK(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &own_logger) == 0);
    libxl_event_register_callbacks(ctx, &hooks, NULL);
    enable(ctx, domid, 7);
    while (stats().scans == 0)
        poll_once(ctx, 1000);
    host_settle();
    while (poll_once(ctx, 0))
        ;
}

static void end(int reason)
{
    libxl_event *event = poll_until_event(ctx, NULL, NULL);

    check_shutdown(event, domid, 7, reason);
    libxl_event_free(ctx, event);
    expect_nothing_queued(ctx);
    close_context(ctx);
}

/* ---- the trials ---- */

static void minute(void)
{
    const int64_t second = 1000000000LL;
    int64_t gone, told = 0, away = 0;
    int before;

    begin();
    CHECK(lines == 0);
    host_kill_xenstored();
    while (stats().xenstored_losses == 0)
        poll_once(ctx, 1000);
    host_shutdown(domid, CRASH);
    tries = unsure_tries = timers_set = 0;
    gone = our_ns();
    set_rate(30);
    /* On a machine that is slow a round takes long in the library's time. */
    while (away < 120 * second || disasters == 0 || tries < 10) {
        before = disasters;
        poll_once(ctx, 100);
        away = our_ns() - gone;
        if (disasters > before)
            told = away;
    }
    set_rate(1);
    if (disasters != 1 || told < 59 * second)
        FAIL("%d disasters, the last after %lld s", disasters, (long long)(told / second));
    CHECK(disaster_errno != 0);
    /* Pauses of 10 ms, 20 ms, ... up to a second, and then of a second each. */
    if (tries > 8 + (int)(away / second))
        FAIL("xenstored was looked for %d times in %lld s", tries, (long long)(away / second));
    if (unsure_tries)
        FAIL("%d times it was not its socket that was tried", unsure_tries);
    if (lines != 2)
        FAIL("%d lines in the log for its end and the disaster", lines);
    host_start_xenstored();
    while (stats().reconnections == 0)
        poll_once(ctx, 1000);
    if (lines != 3)
        FAIL("%d lines in the log for its end, the disaster and its return", lines);
    end(CRASH);
    printf("PASS two minutes without xenstored: one disaster, after one, three lines, and the event when it is back\n");
    printf("FIGURE tries to find it in %lld s: %d\n", (long long)(away / second), tries);
}

/* One more descriptor is left each time, so that each step is at some time the one that fails. */
static void descriptors(void)
{
    enum { LIMIT = 100 };
    struct rlimit limit, few;
    int taken[LIMIT], count = 0, left = 0;

    begin();
    host_kill_xenstored();
    host_shutdown(domid, REBOOT);
    host_start_xenstored();
    /* Nobody has looked yet. What libxenstore's thread closes by itself, at its end, is not to make room later. */
    CHECK(stats().xenstored_losses == 0);
    while (count_threads() > 1)
        usleep(1000);
    set_rate(30);
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    few = (struct rlimit){ LIMIT, limit.rlim_max };
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    while ((taken[count] = dup(STDOUT_FILENO)) >= 0)
        count++;
    /* The connection that was lost makes room when it is closed, with the first look, which needs none of it. */
    for (tries = 0; tries < 1;)
        poll_once(ctx, 1000);
    while ((taken[count] = dup(STDOUT_FILENO)) >= 0)
        count++;
    for (;;) {
        for (tries = 0; tries < 3 && stats().reconnections == 0;)
            poll_once(ctx, 1000);
        if (stats().reconnections != 0)
            break;
        if (lines != 1)
            FAIL("%d lines in the log with %d descriptors left", lines, left);
        CHECK(count > 0);
        close(taken[--count]);
        left++;
    }
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    while (count > 0)
        close(taken[--count]);
    if (left < 2)
        FAIL("found with %d descriptors", left);
    CHECK(disasters == 0);
    end(REBOOT);
    printf("PASS xenstored is back and there are no descriptors, one, two, ...: looked for again, and nothing is lost\n");
    printf("FIGURE descriptors that it takes: %d\n", left);
}

int main(int argc, char **argv)
{
    find_column();
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 1 && strcmp(argv[1], "minute") == 0)
        minute();
    else if (argc > 1 && strcmp(argv[1], "descriptors") == 0)
        descriptors();
    else
        FAIL("usage: outage minute|descriptors");
    return 0;
}
