/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * See xl.h.
 */
#include "xl.h"

#include <errno.h>

#include "drive.h"
#include "host.h"
#include "store.h"

const struct timeval no_time;

/* ---- contexts ---- */

bool log_quietly;
int logged_errors, logged_lines, logged_by_libxl;

static void log_line(xentoollog_logger *to, xentoollog_level level, int errnoval, const char *context,
                     const char *format, va_list arguments)
{
    char text[500];

    (void)to;
    __atomic_fetch_add(&logged_lines, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&logged_errors, level >= XTL_ERROR, __ATOMIC_RELAXED);
    __atomic_fetch_add(&logged_by_libxl, context && strcmp(context, "libxl") == 0, __ATOMIC_RELAXED);
    if (log_quietly || level < XTL_WARN)
        return;
    vsnprintf(text, sizeof text, format, arguments);
    fprintf(stderr, "%s: %s: %s (errno %d)\n", context ? context : "-", xtl_level_to_string(level), text, errnoval);
}

xentoollog_logger logger = { log_line, NULL, NULL };

libxl_ctx *open_context(void)
{
    libxl_ctx *ctx = NULL;

    CHECK_EQUAL(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &logger), 0);
    CHECK(ctx != NULL);
    return ctx;
}

void close_context(libxl_ctx *ctx)
{
    CHECK_EQUAL(libxl_ctx_free(ctx), 0);
}

libxl_evgen_domain_death *enable(libxl_ctx *ctx, uint32_t domid, libxl_ev_user user)
{
    libxl_evgen_domain_death *evgen = NULL;

    CHECK_EQUAL(libxl_evenable_domain_death(ctx, domid, user, &evgen), 0);
    CHECK(evgen != NULL);
    return evgen;
}

void use_a_new_context(void)
{
    libxl_ctx *ctx = open_context();

    enable(ctx, NOBODY, 3);
    expect_death(ctx, NOBODY, 3);
    close_context(ctx);
}

void forget_and_begin_anew(void *ctx)
{
    libxl_postfork_child_noexec(ctx);
    use_a_new_context();
}

/* ---- events ---- */

libxl_event *wait_event(libxl_ctx *ctx)
{
    libxl_event *event = NULL;

    CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), 0);
    CHECK(event != NULL);
    return event;
}

void check_shutdown(const libxl_event *event, uint32_t domid, libxl_ev_user user, int reason)
{
    if (event->type != LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN || event->domid != domid || event->for_user != user)
        FAIL("type %d of domain %u for %llu, not the shutdown of %u for %llu", (int)event->type, (unsigned)event->domid,
             (unsigned long long)event->for_user, (unsigned)domid, (unsigned long long)user);
    if (event->u.domain_shutdown.shutdown_reason != reason)
        FAIL("domain %u: shutdown reason %d, not %d", (unsigned)domid, event->u.domain_shutdown.shutdown_reason, reason);
}

void check_death(const libxl_event *event, uint32_t domid, libxl_ev_user user)
{
    if (event->type != LIBXL_EVENT_TYPE_DOMAIN_DEATH || event->domid != domid || event->for_user != user)
        FAIL("type %d of domain %u for %llu, not the death of %u for %llu", (int)event->type, (unsigned)event->domid,
             (unsigned long long)event->for_user, (unsigned)domid, (unsigned long long)user);
}

void expect_shutdown(libxl_ctx *ctx, uint32_t domid, libxl_ev_user user, int reason)
{
    libxl_event *event = wait_event(ctx);

    check_shutdown(event, domid, user, reason);
    libxl_event_free(ctx, event);
}

void expect_death(libxl_ctx *ctx, uint32_t domid, libxl_ev_user user)
{
    libxl_event *event = wait_event(ctx);

    check_death(event, domid, user);
    libxl_event_free(ctx, event);
}

void expect_nothing_queued(libxl_ctx *ctx)
{
    libxl_event *event = UNTOUCHED;

    CHECK_EQUAL(libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_NOT_READY);
    CHECK(event == UNTOUCHED);
}

void expect_silence(libxl_ctx *ctx)
{
    /* Of no domain. Its watch is fired through the context's own connection, behind all that was fired before. */
    enum { WITNESS = 0x5117e, WITNESS_DOMID = 32001 };
    libxl_evgen_disk_eject *evgen;
    struct drive witness;

    host_settle();
    witness = drive_at(WITNESS_DOMID, HDC, "hdc");
    /* A context whose xenstored was killed may not know yet that there is another. */
    while (libxl_evenable_disk_eject(ctx, WITNESS_DOMID, "hdc", WITNESS, &evgen) != 0)
        poll_once(ctx, 1000);
    eject(witness);
    expect_eject(ctx, WITNESS_DOMID, WITNESS);
    libxl_evdisable_disk_eject(ctx, evgen);
    remove_node(path_of("/local/domain/%d", WITNESS_DOMID));
    remove_node(path_of("/libxl/%d", WITNESS_DOMID));
    expect_nothing_queued(ctx);
}

int is_for_user(const libxl_event *event, void *user)
{
    return event->for_user == *(const libxl_ev_user *)user;
}

int is_never_wanted(const libxl_event *event, void *user)
{
    (void)event, (void)user;
    return 0;
}

void stir(void)
{
    if (host_is_simulated())
        host_destroy(host_create());
}

/* ---- the poll loop ---- */

void before_poll(libxl_ctx *ctx, struct polled *polled, int timeout)
{
    memset(polled, 0, sizeof *polled);
    polled->nfds = FDS_MAX;
    polled->timeout = timeout;
    CHECK_EQUAL(libxl_osevent_beforepoll(ctx, &polled->nfds, polled->fds, &polled->timeout, no_time), 0);
    CHECK_AT_LEAST(polled->nfds, 1);
}

int poll_now(struct polled *polled)
{
    int ready;

    while ((ready = poll(polled->fds, (nfds_t)polled->nfds, polled->timeout)) < 0)
        CHECK_EQUAL(errno, EINTR);
    return ready;
}

void after_poll(libxl_ctx *ctx, struct polled *polled)
{
    libxl_osevent_afterpoll(ctx, polled->nfds, polled->fds, no_time);
}

bool poll_once(libxl_ctx *ctx, int timeout)
{
    struct polled polled;
    int ready;

    before_poll(ctx, &polled, timeout);
    ready = poll_now(&polled);
    after_poll(ctx, &polled);
    return ready > 0;
}

libxl_event *poll_until_event(libxl_ctx *ctx, libxl_event_predicate *predicate, void *user)
{
    libxl_event *event = NULL;
    int rc;

    while ((rc = libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, predicate, user)) == ERROR_NOT_READY)
        poll_once(ctx, -1);
    CHECK_EQUAL(rc, 0);
    return event;
}
