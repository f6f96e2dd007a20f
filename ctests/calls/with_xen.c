/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Calls on a host with Xen, real or simulated: bad input, re-entry, limits, fork. No domain is needed: one that does not
 * exist is dead, and so a source of events.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

#include <libxl_event.h>
#include <xentoollog.h>

#include "check.h"

/* Domids of no domain; the last ones are no domain's by their nature. */
enum { NOBODY = 30000 };
static const uint32_t impossible[] = { 32752, 40000, 65535, 65536, 65536 + 1, 1u << 31, 0xffffffff };
#define COUNT(array) (sizeof(array) / sizeof *(array))

static struct timeval now;
static int logged_errors;

static void count_errors(xentoollog_logger *logger, xentoollog_level level, int errnoval, const char *context,
                         const char *format, va_list arguments)
{
    (void)logger, (void)errnoval, (void)context, (void)format, (void)arguments;
    logged_errors += level >= XTL_ERROR;
}

static xentoollog_logger logger = { count_errors, NULL, NULL };

static libxl_ctx *open_context(void)
{
    libxl_ctx *ctx = NULL;

    CHECK_EQUAL(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &logger), 0);
    CHECK(ctx != NULL);
    return ctx;
}

static libxl_evgen_domain_death *enable(libxl_ctx *ctx, uint32_t domid, libxl_ev_user user)
{
    libxl_evgen_domain_death *evgen = NULL;

    CHECK_EQUAL(libxl_evenable_domain_death(ctx, domid, user, &evgen), 0);
    CHECK(evgen != NULL);
    return evgen;
}

static libxl_event *wait_event(libxl_ctx *ctx)
{
    libxl_event *event = NULL;

    CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), 0);
    CHECK(event != NULL);
    return event;
}

static void expect_death(libxl_ctx *ctx, uint32_t domid, libxl_ev_user user)
{
    libxl_event *event = wait_event(ctx);

    CHECK_EQUAL(event->type, LIBXL_EVENT_TYPE_DOMAIN_DEATH);
    CHECK_EQUAL(event->domid, domid);
    CHECK_EQUAL(event->for_user, user);
    libxl_event_free(ctx, event);
}

static void expect_nothing(libxl_ctx *ctx)
{
    libxl_event *event = (libxl_event *)&logger;

    CHECK_EQUAL(libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_NOT_READY);
    CHECK(event == (libxl_event *)&logger);
}

static bool is_open(int fd)
{
    return dup2(fd, fd) == fd;
}

static int count_fds(void)
{
    int fd, count = 0;

    for (fd = 0; fd < 256; fd++)
        count += is_open(fd);
    return count;
}

/* One round of the poll loop; false if poll found nothing within the time (milliseconds, -1 for ever). */
static bool poll_once(libxl_ctx *ctx, int timeout)
{
    struct pollfd fd;
    int nfds = 1, ready;

    CHECK_EQUAL(libxl_osevent_beforepoll(ctx, &nfds, &fd, &timeout, now), 0);
    CHECK_EQUAL(nfds, 1);
    while ((ready = poll(&fd, 1, timeout)) < 0)
        CHECK(errno == EINTR);
    libxl_osevent_afterpoll(ctx, nfds, &fd, now);
    return ready > 0;
}

/* ---- bad input ---- */

static void a_wrong_version_is_refused(void)
{
    libxl_ctx *ctx = (libxl_ctx *)&logger;

    CHECK_EQUAL(libxl_ctx_alloc(&ctx, LIBXL_VERSION + 7, 0, &logger), ERROR_VERSION);
    CHECK(ctx == NULL);
    CHECK(logged_errors > 0);
}

static void without_permission_a_context_is_refused(void)
{
    libxl_ctx *ctx = (libxl_ctx *)&logger;
    int fds = count_fds();

    CHECK(setuid(65534) == 0);
    CHECK_EQUAL(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &logger), ERROR_FAIL);
    CHECK(ctx == NULL);
    CHECK(logged_errors > 0);
    CHECK_EQUAL(count_fds(), fds);
}

static void flags_and_a_null_logger_are_accepted(void)
{
    libxl_ctx *ctx = NULL;

    CHECK_EQUAL(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0xffffffff, NULL), 0);
    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    libxl_evdisable_domain_death(ctx, (libxl_evgen_domain_death *)&logger);
    CHECK_EQUAL(libxl_ctx_free(ctx), 0);
}

static void null_places_are_refused_with_a_log_line(void)
{
    libxl_ctx *ctx = open_context();
    struct pollfd fd;
    int nfds = 1, timeout = -1;

    CHECK_EQUAL(libxl_event_check(ctx, NULL, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_INVAL);
    CHECK_EQUAL(libxl_event_wait(ctx, NULL, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_INVAL);
    CHECK_EQUAL(libxl_evenable_domain_death(ctx, NOBODY, 0, NULL), ERROR_INVAL);
    CHECK_EQUAL(libxl_evenable_disk_eject(ctx, NOBODY, "hdc", 0, NULL), ERROR_INVAL);
    CHECK_EQUAL(libxl_osevent_beforepoll(ctx, NULL, &fd, &timeout, now), ERROR_INVAL);
    CHECK_EQUAL(libxl_osevent_beforepoll(ctx, &nfds, NULL, &timeout, now), ERROR_INVAL);
    CHECK_EQUAL(libxl_osevent_beforepoll(ctx, &nfds, &fd, NULL, now), ERROR_INVAL);
    CHECK_EQUAL(logged_errors, 7);
    libxl_osevent_afterpoll(ctx, 1, NULL, now);
    libxl_osevent_register_hooks(ctx, NULL, NULL);
    CHECK_EQUAL(logged_errors, 9);
    CHECK_EQUAL(libxl_ctx_free(ctx), 0);
}

static void null_means_nothing_where_it_may(void)
{
    libxl_ctx *ctx = open_context();

    libxl_event_free(ctx, NULL);
    libxl_event_free(NULL, NULL);
    libxl_evdisable_domain_death(ctx, NULL);
    libxl_evdisable_disk_eject(ctx, NULL);
    libxl_event_register_callbacks(ctx, NULL, NULL);
    libxl_childproc_setmode(ctx, NULL, NULL);
    CHECK_EQUAL(logged_errors, 0);
    CHECK_EQUAL(libxl_ctx_free(NULL), 0);
    CHECK_EQUAL(libxl_ctx_free(ctx), 0);
}

static void stale_and_foreign_handles_are_logged_and_ignored(void)
{
    libxl_ctx *ctx = open_context(), *other = open_context();
    libxl_evgen_domain_death *evgen = enable(ctx, NOBODY, 1), *second;

    expect_death(ctx, NOBODY, 1);
    libxl_evdisable_domain_death(other, evgen);
    CHECK_EQUAL(logged_errors, 1);
    libxl_evdisable_domain_death(ctx, (libxl_evgen_domain_death *)&logger);
    CHECK_EQUAL(logged_errors, 2);
    libxl_evdisable_domain_death(ctx, evgen);
    CHECK_EQUAL(logged_errors, 2);
    second = enable(ctx, NOBODY, 2);
    CHECK(second != evgen);
    libxl_evdisable_domain_death(ctx, evgen);
    CHECK_EQUAL(logged_errors, 3);
    expect_death(ctx, NOBODY, 2);
    CHECK_EQUAL(libxl_ctx_free(ctx), 0);
    CHECK_EQUAL(libxl_ctx_free(ctx), ERROR_INVAL);
    CHECK_EQUAL(libxl_ctx_free(other), 0);
}

static void a_callback_mask_without_a_callback_is_refused(void)
{
    libxl_ctx *ctx = open_context();
    libxl_event_hooks hooks = { LIBXL_EVENTMASK_ALL, NULL, NULL };

    libxl_event_register_callbacks(ctx, &hooks, NULL);
    CHECK_EQUAL(logged_errors, 1);
    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    CHECK_EQUAL(libxl_ctx_free(ctx), 0);
}

static void domids_that_no_domain_can_have_are_dead(void)
{
    libxl_ctx *ctx = open_context();
    size_t i;

    for (i = 0; i < COUNT(impossible); i++) {
        enable(ctx, impossible[i], i);
        expect_death(ctx, impossible[i], i);
    }
    expect_nothing(ctx);
    CHECK_EQUAL(libxl_ctx_free(ctx), 0);
}

static void the_control_domain_lives(void)
{
    libxl_ctx *ctx = open_context();

    enable(ctx, 0, 1);
    enable(ctx, NOBODY, 2);
    expect_death(ctx, NOBODY, 2);
    expect_nothing(ctx);
    CHECK_EQUAL(libxl_ctx_free(ctx), 0);
}

/* ---- retrieval ---- */

static int never(const libxl_event *event, void *user)
{
    (void)event, (void)user;
    return 0;
}

static void masks_and_predicates_that_pass_nothing_leave_the_place_alone(void)
{
    libxl_ctx *ctx = open_context();
    libxl_event *event = (libxl_event *)&logger;

    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    enable(ctx, NOBODY, 2);
    while (libxl_event_check(ctx, &event, 1u << LIBXL_EVENT_TYPE_DOMAIN_DEATH, never, NULL) == ERROR_NOT_READY &&
           poll_once(ctx, 200))
        ;
    CHECK_EQUAL(libxl_event_check(ctx, &event, 0, NULL, NULL), ERROR_NOT_READY);
    CHECK_EQUAL(libxl_event_check(ctx, &event, 1u << LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN, NULL, NULL), ERROR_NOT_READY);
    CHECK_EQUAL(libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, never, NULL), ERROR_NOT_READY);
    CHECK(event == (libxl_event *)&logger);
    expect_death(ctx, NOBODY, 2);
    CHECK_EQUAL(libxl_ctx_free(ctx), 0);
}

struct reentry {
    libxl_ctx *ctx;
    int calls;
};

static int predicate_that_calls_back(const libxl_event *event, void *user)
{
    struct reentry *reentry = user;
    libxl_event *other = NULL;
    libxl_evgen_domain_death *evgen = NULL;

    reentry->calls++;
    CHECK_EQUAL(libxl_event_check(reentry->ctx, &other, LIBXL_EVENTMASK_ALL, never, NULL), ERROR_NOT_READY);
    CHECK_EQUAL(libxl_evenable_domain_death(reentry->ctx, NOBODY + 1, 0, &evgen), 0);
    libxl_evdisable_domain_death(reentry->ctx, evgen);
    return event->domid == NOBODY;
}

static void a_predicate_may_call_back(void)
{
    struct reentry reentry = { open_context(), 0 };
    libxl_event *event = NULL;

    enable(reentry.ctx, NOBODY, 1);
    CHECK_EQUAL(libxl_event_wait(reentry.ctx, &event, LIBXL_EVENTMASK_ALL, predicate_that_calls_back, &reentry), 0);
    CHECK_EQUAL(event->for_user, 1);
    CHECK_EQUAL(reentry.calls, 1);
    libxl_event_free(reentry.ctx, event);
    CHECK_EQUAL(libxl_ctx_free(reentry.ctx), 0);
}

static libxl_evgen_domain_death *callback_evgen;

static void callback_that_calls_back(void *user, libxl_event *event)
{
    struct reentry *reentry = user;
    libxl_evgen_domain_death *evgen = NULL;

    reentry->calls++;
    libxl_event_free(reentry->ctx, event);
    libxl_evdisable_domain_death(reentry->ctx, callback_evgen);
    callback_evgen = NULL;
    if (reentry->calls < 3) {
        CHECK_EQUAL(libxl_evenable_domain_death(reentry->ctx, NOBODY, 0, &evgen), 0);
        callback_evgen = evgen;
    }
}

static void a_callback_may_free_the_event_disable_its_generator_and_enable_another(void)
{
    struct reentry reentry = { open_context(), 0 };
    libxl_event_hooks hooks = { LIBXL_EVENTMASK_ALL, callback_that_calls_back, NULL };

    libxl_event_register_callbacks(reentry.ctx, &hooks, &reentry);
    callback_evgen = enable(reentry.ctx, NOBODY, 1);
    while (reentry.calls < 3)
        poll_once(reentry.ctx, -1);
    CHECK_EQUAL(reentry.calls, 3);
    CHECK_EQUAL(logged_errors, 0);
    CHECK_EQUAL(libxl_ctx_free(reentry.ctx), 0);
}

static void an_unretrieved_event_does_not_make_poll_spin(void)
{
    libxl_ctx *ctx = open_context();
    int rounds = 0;

    enable(ctx, NOBODY, 1);
    while (poll_once(ctx, 500))
        CHECK(++rounds < 20);
    expect_death(ctx, NOBODY, 1);
    CHECK_EQUAL(libxl_ctx_free(ctx), 0);
}

static void a_domain_that_died_before_the_enable_is_reported_also_when_the_watch_exists(void)
{
    libxl_ctx *ctx = open_context();

    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    enable(ctx, NOBODY, 2);
    expect_death(ctx, NOBODY, 2);
    enable(ctx, NOBODY + 1, 3);
    while (poll_once(ctx, 500))
        ;
    expect_death(ctx, NOBODY + 1, 3);
    CHECK_EQUAL(libxl_ctx_free(ctx), 0);
}

static void one_domain_enabled_three_times_gives_three_events_last_enabled_first(void)
{
    libxl_ctx *ctx = open_context();
    int user;

    for (user = 1; user <= 3; user++)
        enable(ctx, NOBODY, (libxl_ev_user)user);
    for (user = 3; user >= 1; user--)
        expect_death(ctx, NOBODY, (libxl_ev_user)user);
    expect_nothing(ctx);
    CHECK_EQUAL(libxl_ctx_free(ctx), 0);
}

/* ---- threads ---- */

static void *enable_from_another_thread(void *ctx)
{
    enable(ctx, NOBODY + 1, 2);
    return NULL;
}

static int second(const libxl_event *event, void *user)
{
    (void)user;
    return event->for_user == 2;
}

static void an_enable_in_one_thread_wakes_another_that_waits(void)
{
    libxl_ctx *ctx = open_context();
    libxl_event *event = NULL;
    pthread_t thread;

    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    CHECK(pthread_create(&thread, NULL, enable_from_another_thread, ctx) == 0);
    CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, second, NULL), 0);
    libxl_event_free(ctx, event);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK_EQUAL(libxl_ctx_free(ctx), 0);
}

static void *wait_for_one(void *ctx)
{
    libxl_event *event = wait_event(ctx);

    libxl_event_free(ctx, event);
    return NULL;
}

static void two_threads_that_wait_get_one_event_each(void)
{
    libxl_ctx *ctx = open_context();
    pthread_t threads[2];
    int i;

    for (i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, wait_for_one, ctx) == 0);
    enable(ctx, NOBODY, 1);
    enable(ctx, NOBODY, 2);
    for (i = 0; i < 2; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    expect_nothing(ctx);
    CHECK_EQUAL(libxl_ctx_free(ctx), 0);
}

/* ---- beforepoll, afterpoll ---- */

static void beforepoll_wants_one_entry_and_says_so(void)
{
    libxl_ctx *ctx = open_context();
    struct pollfd fds[3];
    int nfds = 0, timeout = 1234;

    memset(fds, 0, sizeof fds);
    CHECK_EQUAL(libxl_osevent_beforepoll(ctx, &nfds, NULL, &timeout, now), ERROR_BUFFERFULL);
    CHECK_EQUAL(nfds, 1);
    nfds = -1;
    CHECK_EQUAL(libxl_osevent_beforepoll(ctx, &nfds, fds, &timeout, now), ERROR_BUFFERFULL);
    CHECK_EQUAL(nfds, 1);
    nfds = 3;
    fds[1].fd = 77;
    CHECK_EQUAL(libxl_osevent_beforepoll(ctx, &nfds, fds, &timeout, now), 0);
    CHECK_EQUAL(nfds, 1);
    CHECK(fds[0].fd >= 0 && fds[0].events == POLLIN);
    CHECK_EQUAL(fds[1].fd, 77);
    CHECK_EQUAL(timeout, 1234);
    CHECK_EQUAL(libxl_ctx_free(ctx), 0);
}

static void afterpoll_is_harmless_in_any_form(void)
{
    libxl_ctx *ctx = open_context();
    struct pollfd fd;
    int nfds = 1, timeout = -1;
    static const short revents[] = { 0, POLLIN, POLLHUP, POLLERR, POLLNVAL, POLLIN | POLLNVAL, -1 };
    size_t i;

    libxl_osevent_afterpoll(ctx, 0, NULL, now);
    enable(ctx, NOBODY, 1);
    libxl_osevent_afterpoll(ctx, 0, NULL, now);
    libxl_osevent_afterpoll(ctx, -5, NULL, now);
    CHECK_EQUAL(libxl_osevent_beforepoll(ctx, &nfds, &fd, &timeout, now), 0);
    for (i = 0; i < COUNT(revents); i++) {
        fd.revents = revents[i];
        libxl_osevent_afterpoll(ctx, 1, &fd, now);
        libxl_osevent_afterpoll(ctx, 1, &fd, now);
    }
    expect_death(ctx, NOBODY, 1);
    CHECK_EQUAL(libxl_ctx_free(ctx), 0);
}

/* ---- hooks ---- */

struct loop {
    libxl_ctx *ctx;
    int fd, registered, deregistered, timeouts, refuse;
    bool reenter;
    void *for_libxl;
};

static int fd_register(void *user, int fd, void **registration, short events, void *for_libxl)
{
    struct loop *loop = user;

    CHECK(*registration == NULL);
    CHECK_EQUAL(events, POLLIN);
    if (loop->refuse)
        return loop->refuse;
    if (loop->reenter)
        libxl_osevent_occurred_fd(loop->ctx, for_libxl, fd, events, POLLIN);
    loop->fd = fd;
    loop->for_libxl = for_libxl;
    loop->registered++;
    *registration = loop;
    return 0;
}

static int fd_modify(void *user, int fd, void **registration, short events)
{
    (void)user, (void)fd, (void)registration, (void)events;
    return 0;
}

static void fd_deregister(void *user, int fd, void *registration)
{
    struct loop *loop = user;

    CHECK(registration == loop);
    CHECK_EQUAL(fd, loop->fd);
    loop->deregistered++;
}

static int timeout_register(void *user, void **registration, struct timeval abs, void *for_libxl)
{
    (void)registration, (void)abs, (void)for_libxl;
    ((struct loop *)user)->timeouts++;
    return 0;
}

static int timeout_modify(void *user, void **registration, struct timeval abs)
{
    (void)registration, (void)abs;
    ((struct loop *)user)->timeouts++;
    return 0;
}

static void timeout_deregister(void *user, void *registration)
{
    (void)registration;
    ((struct loop *)user)->timeouts++;
}

static const libxl_osevent_hooks os_hooks = {
    fd_register, fd_modify, fd_deregister, timeout_register, timeout_modify, timeout_deregister
};

static void hooks_see_one_descriptor_and_no_timeout(void)
{
    struct loop loop = { open_context(), -1, 0, 0, 0, 0, false, NULL };
    libxl_evgen_domain_death *first, *other;
    libxl_event *event = NULL;
    struct pollfd fd;

    libxl_osevent_register_hooks(loop.ctx, &os_hooks, &loop);
    CHECK_EQUAL(loop.registered, 0);
    first = enable(loop.ctx, NOBODY, 1);
    CHECK_EQUAL(loop.registered, 1);
    other = enable(loop.ctx, 0, 2);
    fd.fd = loop.fd;
    fd.events = POLLIN;
    while (libxl_event_check(loop.ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == ERROR_NOT_READY) {
        CHECK(poll(&fd, 1, -1) == 1);
        libxl_osevent_occurred_fd(loop.ctx, loop.for_libxl, fd.fd, POLLIN, fd.revents);
    }
    CHECK_EQUAL(event->for_user, 1);
    libxl_event_free(loop.ctx, event);
    libxl_osevent_occurred_timeout(loop.ctx, loop.for_libxl);
    libxl_osevent_occurred_fd(loop.ctx, &logger, fd.fd, POLLIN, POLLIN);
    libxl_evdisable_domain_death(loop.ctx, first);
    CHECK_EQUAL(loop.deregistered, 0);
    libxl_evdisable_domain_death(loop.ctx, other);
    CHECK_EQUAL(loop.deregistered, 1);
    enable(loop.ctx, NOBODY, 3);
    CHECK_EQUAL(loop.registered, 2);
    CHECK_EQUAL(libxl_ctx_free(loop.ctx), 0);
    CHECK_EQUAL(loop.deregistered, 2);
    CHECK_EQUAL(loop.timeouts, 0);
    CHECK_EQUAL(logged_errors, 0);
}

static void a_refused_registration_comes_back_from_the_enable_and_a_retry_works(void)
{
    struct loop loop = { open_context(), -1, 0, 0, 0, 5, false, NULL };
    libxl_evgen_domain_death *evgen = (libxl_evgen_domain_death *)&logger;

    libxl_osevent_register_hooks(loop.ctx, &os_hooks, &loop);
    CHECK_EQUAL(libxl_evenable_domain_death(loop.ctx, NOBODY, 1, &evgen), 5);
    loop.refuse = ERROR_OSEVENT_REG_FAIL;
    CHECK_EQUAL(libxl_evenable_domain_death(loop.ctx, NOBODY, 1, &evgen), ERROR_OSEVENT_REG_FAIL);
    CHECK(evgen == (libxl_evgen_domain_death *)&logger);
    loop.refuse = 0;
    enable(loop.ctx, NOBODY, 1);
    expect_death(loop.ctx, NOBODY, 1);
    CHECK_EQUAL(libxl_ctx_free(loop.ctx), 0);
    CHECK_EQUAL(loop.deregistered, loop.registered);
}

static void an_occurrence_from_inside_a_hook_is_logged_and_ignored(void)
{
    struct loop loop = { open_context(), -1, 0, 0, 0, 0, true, NULL };

    libxl_osevent_register_hooks(loop.ctx, &os_hooks, &loop);
    enable(loop.ctx, NOBODY, 1);
    CHECK_EQUAL(logged_errors, 1);
    expect_death(loop.ctx, NOBODY, 1);
    CHECK_EQUAL(libxl_ctx_free(loop.ctx), 0);
}

static void hooks_after_an_enable_or_a_second_time_are_refused(void)
{
    struct loop loop = { open_context(), -1, 0, 0, 0, 0, false, NULL };
    struct loop late = { open_context(), -1, 0, 0, 0, 0, false, NULL };

    libxl_osevent_register_hooks(loop.ctx, &os_hooks, &loop);
    libxl_osevent_register_hooks(loop.ctx, &os_hooks, &late);
    CHECK_EQUAL(logged_errors, 1);
    enable(late.ctx, 0, 1);
    libxl_osevent_register_hooks(late.ctx, &os_hooks, &late);
    CHECK_EQUAL(logged_errors, 2);
    CHECK_EQUAL(late.registered, 0);
    CHECK_EQUAL(libxl_ctx_free(loop.ctx), 0);
    CHECK_EQUAL(libxl_ctx_free(late.ctx), 0);
}

/* ---- descriptors ---- */

static void limit_descriptors(rlim_t count)
{
    struct rlimit limit;

    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = count;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

/* The lowest limit that leaves no descriptor free beyond `more`. */
static rlim_t room_for(int more)
{
    int fd = 0;

    while (is_open(fd) || more-- > 0)
        fd++;
    return (rlim_t)fd;
}

static void without_descriptors_alloc_and_enable_fail_and_leave_nothing(void)
{
    libxl_ctx *ctx = NULL, *full = open_context();
    libxl_evgen_domain_death *evgen = NULL;
    int fds, more;

    CHECK_EQUAL(libxl_ctx_free(full), 0);
    fds = count_fds();
    /* With more and more room, until it is enough. */
    for (more = 0; ctx == NULL; more++) {
        CHECK(more < 100);
        limit_descriptors(room_for(more));
        if (libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &logger) == 0)
            break;
        CHECK(ctx == NULL);
        CHECK_EQUAL(count_fds(), fds);
    }
    CHECK(more > 1);
    fds = count_fds();
    for (more = 0; evgen == NULL; more++) {
        CHECK(more < 100);
        limit_descriptors(room_for(more));
        if (libxl_evenable_domain_death(ctx, NOBODY, 1, &evgen) == 0)
            break;
        CHECK(evgen == NULL);
    }
    limit_descriptors(1024);
    expect_death(ctx, NOBODY, 1);
    expect_nothing(ctx);
    CHECK_EQUAL(libxl_ctx_free(ctx), 0);
}

static void contexts_and_generators_leave_no_descriptors(void)
{
    int i, fds;
    libxl_ctx *ctx;
    libxl_evgen_domain_death *evgen;

    CHECK_EQUAL(libxl_ctx_free(open_context()), 0);
    fds = count_fds();
    for (i = 0; i < 20; i++) {
        ctx = open_context();
        evgen = enable(ctx, NOBODY, 1);
        if (i % 2)
            expect_death(ctx, NOBODY, 1);
        if (i % 4 < 2)
            libxl_evdisable_domain_death(ctx, evgen);
        CHECK_EQUAL(libxl_ctx_free(ctx), 0);
        CHECK_EQUAL(count_fds(), fds);
    }
}

/* ---- fork ---- */

static void a_forked_child_forgets_the_contexts_and_the_parent_notices_nothing(void)
{
    libxl_ctx *ctx = open_context(), *new = NULL;
    libxl_event *event;
    pid_t pid;
    int status;

    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    enable(ctx, 0, 2);
    CHECK((pid = fork()) >= 0);
    if (pid == 0) {
        libxl_postfork_child_noexec(ctx);
        CHECK_EQUAL(libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_INVAL);
        CHECK_EQUAL(libxl_ctx_alloc(&new, LIBXL_VERSION, 0, &logger), 0);
        enable(new, NOBODY, 3);
        expect_death(new, NOBODY, 3);
        CHECK_EQUAL(libxl_ctx_free(new), 0);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_EQUAL(status, 0);
    enable(ctx, NOBODY, 4);
    expect_death(ctx, NOBODY, 4);
    expect_nothing(ctx);
    CHECK_EQUAL(libxl_ctx_free(ctx), 0);
}

static pthread_t waiting_thread;

static void note_signal(int number)
{
    (void)number;
}

static void *signal_then_enable(void *ctx)
{
    CHECK(pthread_kill(waiting_thread, SIGUSR1) == 0);
    enable(ctx, NOBODY + 1, 2);
    return NULL;
}

static void a_signal_does_not_end_the_wait(void)
{
    libxl_ctx *ctx = open_context();
    struct sigaction action;
    pthread_t thread;
    libxl_event *event = NULL;

    memset(&action, 0, sizeof action);
    action.sa_handler = note_signal;
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    waiting_thread = pthread_self();
    CHECK(pthread_create(&thread, NULL, signal_then_enable, ctx) == 0);
    CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, second, NULL), 0);
    CHECK(pthread_join(thread, NULL) == 0);
    libxl_event_free(ctx, event);
    CHECK_EQUAL(libxl_ctx_free(ctx), 0);
}

#define TEST(function) { #function, function }

static const struct test tests[] = {
    TEST(a_wrong_version_is_refused),
    TEST(without_permission_a_context_is_refused),
    TEST(flags_and_a_null_logger_are_accepted),
    TEST(null_places_are_refused_with_a_log_line),
    TEST(null_means_nothing_where_it_may),
    TEST(stale_and_foreign_handles_are_logged_and_ignored),
    TEST(a_callback_mask_without_a_callback_is_refused),
    TEST(domids_that_no_domain_can_have_are_dead),
    TEST(the_control_domain_lives),
    TEST(masks_and_predicates_that_pass_nothing_leave_the_place_alone),
    TEST(a_predicate_may_call_back),
    TEST(a_callback_may_free_the_event_disable_its_generator_and_enable_another),
    TEST(an_unretrieved_event_does_not_make_poll_spin),
    TEST(a_domain_that_died_before_the_enable_is_reported_also_when_the_watch_exists),
    TEST(one_domain_enabled_three_times_gives_three_events_last_enabled_first),
    TEST(an_enable_in_one_thread_wakes_another_that_waits),
    TEST(two_threads_that_wait_get_one_event_each),
    TEST(beforepoll_wants_one_entry_and_says_so),
    TEST(afterpoll_is_harmless_in_any_form),
    TEST(hooks_see_one_descriptor_and_no_timeout),
    TEST(a_refused_registration_comes_back_from_the_enable_and_a_retry_works),
    TEST(an_occurrence_from_inside_a_hook_is_logged_and_ignored),
    TEST(hooks_after_an_enable_or_a_second_time_are_refused),
    TEST(without_descriptors_alloc_and_enable_fail_and_leave_nothing),
    TEST(contexts_and_generators_leave_no_descriptors),
    TEST(a_forked_child_forgets_the_contexts_and_the_parent_notices_nothing),
    TEST(a_signal_does_not_end_the_wait),
};

int main(int argc, char **argv)
{
    return RUN_TESTS(tests);
}
