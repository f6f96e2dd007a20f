/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For programs with a loop of their own: xlevent_get_fd and xlevent_dispatch. libxenlight has neither; the program is linked
 * with it for the column in which libxlevent is preloaded.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <unistd.h>

#include "harness/check.h"
#include "harness/host.h"
#include "harness/ours.h"
#include "harness/xl.h"

static int get_fd(libxl_ctx *ctx)
{
    int fd = xlevent_get_fd(ctx);

    CHECK_AT_LEAST(fd, 0);
    return fd;
}

static bool readable(libxl_ctx *ctx)
{
    struct pollfd polled = { get_fd(ctx), POLLIN, 0 };

    CHECK_AT_LEAST(poll(&polled, 1, 0), 0);
    CHECK_EQUAL(polled.revents & ~POLLIN, 0);
    return polled.revents != 0;
}

static void await_readable(libxl_ctx *ctx)
{
    struct pollfd polled = { get_fd(ctx), POLLIN, 0 };

    CHECK_EQUAL(poll(&polled, 1, -1), 1);
    CHECK_EQUAL(polled.revents, POLLIN);
}

/* What the handlers of a test have been given. */
static struct handled {
    libxl_ctx *ctx;
    int shutdowns, deaths, others;
    libxl_ev_user last;
    uint32_t domid;
} handled;

static void on_shutdown(void *user, const libxl_event *event)
{
    struct handled *to = user;

    CHECK(to == &handled);
    CHECK_EQUAL(event->type, LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN);
    to->shutdowns++;
    to->domid = event->domid;
}

static void on_death(void *user, const libxl_event *event)
{
    struct handled *to = user;

    CHECK(to == &handled);
    CHECK_EQUAL(event->type, LIBXL_EVENT_TYPE_DOMAIN_DEATH);
    to->deaths++;
    to->last = event->for_user;
    to->domid = event->domid;
}

static void on_other(void *user, const libxl_event *event)
{
    struct handled *to = user;

    CHECK(to == &handled);
    to->others++;
    to->last = event->for_user;
}

static const struct xlevent_handler all_handlers[] = {
    { LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN, on_shutdown },
    { LIBXL_EVENT_TYPE_DOMAIN_DEATH, on_death },
    { XLEVENT_ALL_OTHERS, NULL },
};
static const struct xlevent_handler default_handler[] = { { XLEVENT_ALL_OTHERS, on_other } };
static const struct xlevent_handler no_handlers[] = { { XLEVENT_ALL_OTHERS, NULL } };

static int dispatch(libxl_ctx *ctx, const struct xlevent_handler *handlers)
{
    int count = xlevent_dispatch(ctx, handlers, &handled);

    CHECK_AT_LEAST(count, 0);
    return count;
}

/* ---- the descriptor ---- */

TEST_OF_OURS(it_is_one_descriptor_and_that_of_beforepoll)
{
    libxl_ctx *ctx = open_context(), *other = open_context();
    struct polled polled;
    int fd = get_fd(ctx);

    CHECK(fd_is_open(fd));
    CHECK_EQUAL(get_fd(ctx), fd);
    before_poll(ctx, &polled, -1);
    CHECK_EQUAL(polled.nfds, 1);
    CHECK_EQUAL(polled.fds[0].fd, fd);
    CHECK(get_fd(other) != fd);
    close_context(other);
    CHECK(fd_is_open(fd));
    close_context(ctx);
    CHECK(!fd_is_open(fd));
}

/* By whoever queues it: another thread, here. */
static void *wait_for_a_shutdown(void *ctx)
{
    libxl_event *event;

    CHECK_EQUAL(libxl_event_wait(ctx, &event, SHUTDOWN_BIT, NULL, NULL), 0);
    libxl_event_free(ctx, event);
    return NULL;
}

TEST_WITH(it_is_readable_once_for_an_event_that_stays, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    pthread_t thread;

    get_fd(ctx);
    enable(ctx, NOBODY, 1);
    enable(ctx, domid, 2);
    thread = start_thread(wait_for_a_shutdown, ctx);
    host_shutdown(domid, POWEROFF);
    finish_thread(thread);
    /* That thread has done all the work, and left an event. */
    await_readable(ctx);
    CHECK_EQUAL(dispatch(ctx, no_handlers), 0);
    while (readable(ctx))
        dispatch(ctx, no_handlers);
    expect_death(ctx, NOBODY, 1);
    close_context(ctx);
}

TEST_WITH(it_is_readable_until_what_has_happened_is_taken_in, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    int i;

    enable(ctx, domid, 1);
    do
        await_readable(ctx), dispatch(ctx, all_handlers);
    while (readable(ctx));
    host_destroy(domid);
    await_readable(ctx);
    for (i = 0; i < 3; i++)
        CHECK(readable(ctx));
    while (handled.deaths == 0) {
        await_readable(ctx);
        dispatch(ctx, all_handlers);
    }
    CHECK_EQUAL(handled.domid, domid);
    while (readable(ctx))
        dispatch(ctx, all_handlers);
    expect_silence(ctx);
    close_context(ctx);
}

/* The loop of a program with epoll, with either kind of trigger. */
static void run_epoll(uint32_t trigger)
{
    libxl_ctx *ctx = open_context();
    struct epoll_event wanted = { .events = EPOLLIN | trigger }, ready;
    int epoll = epoll_create1(EPOLL_CLOEXEC), count = 0, number;
    uint32_t domids[20];
    size_t i;

    CHECK_AT_LEAST(epoll, 0);
    for (i = 0; i < COUNT(domids); i++) {
        domids[i] = host_create();
        enable(ctx, domids[i], i);
    }
    CHECK_EQUAL(epoll_ctl(epoll, EPOLL_CTL_ADD, get_fd(ctx), &wanted), 0);
    for (i = 0; i < COUNT(domids); i++) {
        if (i % 2)
            host_shutdown(domids[i], POWEROFF);
        else
            host_destroy(domids[i]);
        while (count <= (int)i) {
            number = epoll_wait(epoll, &ready, 1, -1);
            CHECK(number == 1 || (number < 0 && errno == EINTR));
            do
                count += dispatch(ctx, all_handlers);
            while (trigger && readable(ctx));
        }
    }
    CHECK_EQUAL(handled.shutdowns, COUNT(domids) / 2);
    CHECK_EQUAL(handled.deaths, COUNT(domids) / 2);
    close(epoll);
    close_context(ctx);
}

TEST_WITH(a_loop_around_epoll_hears_of_everything, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    run_epoll(0);
}

TEST_WITH(so_does_one_with_edges, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    run_epoll(EPOLLET);
}

TEST_OF_OURS(a_loop_around_select_needs_nothing_more)
{
    libxl_ctx *ctx = open_context();
    int fd = get_fd(ctx);
    fd_set set;

    CHECK(fd < FD_SETSIZE);
    enable(ctx, NOBODY, 4);
    while (dispatch(ctx, all_handlers) == 0) {
        FD_ZERO(&set);
        FD_SET(fd, &set);
        CHECK_EQUAL(select(fd + 1, &set, NULL, NULL, NULL), 1);
        CHECK(FD_ISSET(fd, &set));
    }
    CHECK_EQUAL(handled.last, 4);
    close_context(ctx);
}

/* The descriptor is made when it is first asked for. */
TEST_WITH(without_descriptors_it_cannot_be_had_and_later_it_can, NOT_FOR_LIBXENLIGHT | NOT_BESIDE_LIBXENLIGHT)
{
    struct rlimit limit, none;
    libxl_ctx *ctx = open_context();

    log_quietly = true;
    CHECK_EQUAL(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 0;
    CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &none), 0);
    CHECK_EQUAL(xlevent_get_fd(ctx), ERROR_FAIL);
    CHECK_EQUAL(logged_errors, 1);
    CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &limit), 0);
    enable(ctx, NOBODY, 1);
    await_readable(ctx);
    close_context(ctx);
}

/* ---- handlers ---- */

/* Until so many events are queued that nobody takes. */
static void queue_deaths(libxl_ctx *ctx, int count)
{
    struct xlevent_handler leave[] = { { XLEVENT_ALL_OTHERS, NULL } };
    libxl_event *event;
    libxl_ev_user last;
    int i;

    for (i = 1; i <= count; i++)
        enable(ctx, NOBODY + (uint32_t)i, (libxl_ev_user)i);
    /* In the order of the domids. */
    last = (libxl_ev_user)count + 1;
    enable(ctx, NOBODY + (uint32_t)last, last);
    CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, is_for_user, &last), 0);
    libxl_event_free(ctx, event);
    CHECK_EQUAL(dispatch(ctx, leave), 0);
}

TEST_OF_OURS(each_type_has_its_handler_and_the_rest_the_default)
{
    static const struct xlevent_handler shutdowns[] = {
        { LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN, on_shutdown },
        { XLEVENT_ALL_OTHERS, on_other },
    };
    static const struct xlevent_handler shutdowns_alone[] = {
        { LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN, on_shutdown },
        { XLEVENT_ALL_OTHERS, NULL },
    };
    static const struct xlevent_handler no_deaths[] = {
        { LIBXL_EVENT_TYPE_DOMAIN_DEATH, NULL },
        { LIBXL_EVENT_TYPE_DOMAIN_DEATH, on_death },
        { XLEVENT_ALL_OTHERS, on_other },
    };
    libxl_ctx *ctx = open_context();

    queue_deaths(ctx, 2);
    CHECK_EQUAL(dispatch(ctx, no_deaths), 0);
    CHECK_EQUAL(dispatch(ctx, shutdowns_alone), 0);
    CHECK_EQUAL(dispatch(ctx, all_handlers), 2);
    CHECK_EQUAL(handled.deaths, 2);
    CHECK_EQUAL(handled.last, 2);
    CHECK_EQUAL(dispatch(ctx, all_handlers), 0);
    queue_deaths(ctx, 3);
    CHECK_EQUAL(dispatch(ctx, shutdowns), 3);
    CHECK_EQUAL(handled.others, 3);
    CHECK_EQUAL(handled.shutdowns, 0);
    expect_nothing_queued(ctx);
    close_context(ctx);
}

/* Takes the next one itself. */
static void take_another(void *user, const libxl_event *event)
{
    struct handled *to = user;
    libxl_event *next;

    CHECK_EQUAL(event->for_user, 1);
    CHECK_EQUAL(libxl_event_check(to->ctx, &next, LIBXL_EVENTMASK_ALL, NULL, NULL), 0);
    CHECK_EQUAL(next->for_user, 2);
    libxl_event_free(to->ctx, next);
    CHECK_EQUAL(dispatch(to->ctx, all_handlers), 2);
    CHECK_EQUAL(to->last, 4);
    /* Still there. */
    CHECK_EQUAL(event->for_user, 1);
    libxl_evdisable_domain_death(to->ctx, enable(to->ctx, NOBODY, 9));
    to->others++;
}

TEST_OF_OURS(a_handler_may_call_the_library_again)
{
    static const struct xlevent_handler handlers[] = { { XLEVENT_ALL_OTHERS, take_another } };
    libxl_ctx *ctx = open_context();

    handled.ctx = ctx;
    queue_deaths(ctx, 4);
    CHECK_EQUAL(dispatch(ctx, handlers), 1);
    CHECK_EQUAL(handled.others, 1);
    CHECK_EQUAL(handled.deaths, 2);
    expect_nothing_queued(ctx);
    close_context(ctx);
}

static void take_event(void *count, libxl_event *event)
{
    ++*(int *)count;
    libxl_event_free(NULL, event);
}

TEST_OF_OURS(what_goes_to_a_callback_is_no_handlers)
{
    const libxl_event_hooks hooks = { .event_occurs_mask = DEATH_BIT, .event_occurs = take_event };
    libxl_ctx *ctx = open_context();
    int taken = 0;

    libxl_event_register_callbacks(ctx, &hooks, &taken);
    enable(ctx, NOBODY, 1);
    while (taken == 0) {
        CHECK_EQUAL(dispatch(ctx, default_handler), 0);
        if (taken == 0)
            await_readable(ctx);
    }
    CHECK_EQUAL(taken, 1);
    CHECK_EQUAL(handled.others, 0);
    libxl_event_register_callbacks(ctx, NULL, NULL);
    close_context(ctx);
}

/* ---- arguments ---- */

static int dispatched;

static int dispatch_in_hook(void *ctx, int fd, void **registration, short events, void *for_libxl)
{
    (void)fd, (void)registration, (void)events, (void)for_libxl;
    dispatched = xlevent_dispatch(ctx, default_handler, &handled);
    return 0;
}

static void stop_watching(void *user, int fd, void *registration)
{
    (void)user, (void)fd, (void)registration;
}

TEST_OF_OURS(a_hook_may_not_dispatch)
{
    static const libxl_osevent_hooks hooks = { .fd_register = dispatch_in_hook, .fd_deregister = stop_watching };
    libxl_ctx *ctx = open_context();

    log_quietly = true;
    libxl_osevent_register_hooks(ctx, &hooks, ctx);
    enable(ctx, NOBODY, 1);
    CHECK_EQUAL(dispatched, ERROR_INVAL);
    close_context(ctx);
}

TEST_OF_OURS(wrong_arguments_for_loops_are_errors)
{
    static const struct xlevent_handler wrong[][2] = {
        { { 64, on_other }, { XLEVENT_ALL_OTHERS, on_other } },
        { { 0x80000001u, on_other }, { XLEVENT_ALL_OTHERS, on_other } },
    };
    libxl_ctx *ctx = open_context(), *freed = open_context();
    size_t i;

    close_context(freed);
    log_quietly = true;
    queue_deaths(ctx, 1);
    CHECK_EQUAL(xlevent_get_fd(NULL), ERROR_INVAL);
    CHECK_EQUAL(xlevent_get_fd(freed), ERROR_INVAL);
    CHECK_EQUAL(xlevent_dispatch(NULL, default_handler, &handled), ERROR_INVAL);
    CHECK_EQUAL(xlevent_dispatch(freed, default_handler, &handled), ERROR_INVAL);
    CHECK_EQUAL(logged_errors, 0);
    CHECK_EQUAL(xlevent_dispatch(ctx, NULL, &handled), ERROR_INVAL);
    for (i = 0; i < COUNT(wrong); i++)
        CHECK_EQUAL(xlevent_dispatch(ctx, wrong[i], &handled), ERROR_INVAL);
    CHECK_EQUAL(logged_errors, 1 + (int)COUNT(wrong));
    CHECK_EQUAL(handled.others, 0);
    CHECK_EQUAL(dispatch(ctx, default_handler), 1);
    close_context(ctx);
}
