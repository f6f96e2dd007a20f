/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libxl_osevent_*: the application's event loop, as a poll loop and with hooks.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "harness/check.h"
#include "harness/host.h"
#include "harness/quiet.h"
#include "harness/xl.h"

/* ---- beforepoll ---- */

TEST(beforepoll_says_how_much_room_it_wants_and_leaves_the_rest_alone)
{
    libxl_ctx *ctx = open_context();
    struct pollfd fds[FDS_MAX];
    int nfds = 0, wanted, timeout = 1234, watching;

    for (watching = 0; watching < 2; watching++) {
        nfds = 0;
        CHECK_EQUAL(libxl_osevent_beforepoll(ctx, &nfds, NULL, &timeout, no_time), ERROR_BUFFERFULL);
        wanted = nfds;
        if (OURS("one-descriptor"))
            CHECK_EQUAL(wanted, 1);
        else
            CHECK_EQUAL(wanted, watching ? 2 : 1);
        nfds = -1;
        CHECK_EQUAL(libxl_osevent_beforepoll(ctx, &nfds, fds, &timeout, no_time), ERROR_BUFFERFULL);
        CHECK_EQUAL(nfds, wanted);
        memset(fds, 0x5a, sizeof fds);
        nfds = FDS_MAX;
        CHECK_EQUAL(libxl_osevent_beforepoll(ctx, &nfds, fds, &timeout, no_time), 0);
        CHECK_EQUAL(nfds, wanted);
        for (nfds = 0; nfds < wanted; nfds++) {
            CHECK(fd_is_open(fds[nfds].fd));
            CHECK_EQUAL(fds[nfds].events, POLLIN);
        }
        CHECK_EQUAL(fds[wanted].fd, 0x5a5a5a5a);
        /* Exactly enough is enough. */
        nfds = wanted;
        CHECK_EQUAL(libxl_osevent_beforepoll(ctx, &nfds, fds, &timeout, no_time), 0);
        CHECK_EQUAL(nfds, wanted);
        CHECK_EQUAL(timeout, 1234);
        enable(ctx, 0, 1);
    }
    close_context(ctx);
}

DOMAIN_TEST(beforepoll_wants_no_more_room_for_more_domains)
{
    enum { FIRST = 100, DOMAINS = 300 };
    libxl_ctx *ctx = open_context();
    struct polled few, many;
    uint32_t i;

    host_create_many(FIRST, DOMAINS);
    enable(ctx, 0, 1);
    before_poll(ctx, &few, -1);
    for (i = 0; i < DOMAINS; i++)
        enable(ctx, FIRST + i, i);
    before_poll(ctx, &many, -1);
    CHECK_EQUAL(many.nfds, few.nfds);
    close_context(ctx);
}

TEST(the_timeout_stays_as_it_is_while_no_timer_runs)
{
    static const int timeouts[] = { -1, 0, 1, 100000 };
    libxl_ctx *ctx = open_context();
    struct polled polled;
    size_t i;

    enable(ctx, 0, 1);
    while (poll_once(ctx, 0))
        ;
    for (i = 0; i < COUNT(timeouts); i++) {
        before_poll(ctx, &polled, timeouts[i]);
        CHECK_EQUAL(polled.timeout, timeouts[i]);
    }
    close_context(ctx);
}

static void beforepoll_without_a_place(void *ctx)
{
    struct pollfd fds[FDS_MAX];
    int timeout = -1;

    libxl_osevent_beforepoll(ctx, NULL, fds, &timeout, no_time);
}

static void beforepoll_without_entries(void *ctx)
{
    int timeout = -1, nfds = FDS_MAX;

    libxl_osevent_beforepoll(ctx, &nfds, NULL, &timeout, no_time);
}

TEST(NULL_places_are_refused)
{
    libxl_ctx *ctx = open_context();
    struct pollfd fd;
    int nfds = 1, timeout = -1;

    if (OURS("bad-input")) {
        CHECK_EQUAL(libxl_osevent_beforepoll(ctx, NULL, &fd, &timeout, no_time), ERROR_INVAL);
        CHECK_EQUAL(libxl_osevent_beforepoll(ctx, &nfds, NULL, &timeout, no_time), ERROR_INVAL);
        CHECK_EQUAL(libxl_osevent_beforepoll(ctx, &nfds, &fd, NULL, no_time), ERROR_INVAL);
        CHECK_EQUAL(logged_errors, 3);
        libxl_osevent_afterpoll(ctx, 1, NULL, no_time);
        libxl_osevent_register_hooks(ctx, NULL, NULL);
        CHECK_EQUAL(logged_errors, 5);
    } else {
        CHECK_DIES(SIGSEGV, beforepoll_without_a_place, ctx);
        CHECK_DIES(SIGSEGV, beforepoll_without_entries, ctx);
    }
    close_context(ctx);
}

/* ---- afterpoll ---- */

TEST(afterpoll_is_harmless_in_any_form)
{
    static const short revents[] = { 0, POLLIN, POLLHUP, POLLERR, POLLIN | POLLHUP };
    libxl_ctx *ctx = open_context();
    struct polled polled;
    size_t i;
    int j;

    libxl_osevent_afterpoll(ctx, 0, NULL, no_time);
    enable(ctx, NOBODY, 1);
    libxl_osevent_afterpoll(ctx, 0, NULL, no_time);
    before_poll(ctx, &polled, -1);
    for (i = 0; i < COUNT(revents); i++) {
        for (j = 0; j < polled.nfds; j++)
            polled.fds[j].revents = revents[i];
        after_poll(ctx, &polled);
        after_poll(ctx, &polled);
    }
    expect_death(ctx, NOBODY, 1);
    close_context(ctx);
}

static void poll_finds_the_descriptors_closed(void *ctx)
{
    struct polled polled;
    int i;

    before_poll(ctx, &polled, -1);
    for (i = 0; i < polled.nfds; i++)
        polled.fds[i].revents = POLLNVAL;
    after_poll(ctx, &polled);
}

TEST(a_descriptor_that_poll_finds_closed_is_no_reason_to_abort)
{
    libxl_ctx *ctx = open_context();

    enable(ctx, NOBODY, 1);
    if (OURS("pollnval"))
        poll_finds_the_descriptors_closed(ctx);
    else
        CHECK_DIES(SIGABRT, poll_finds_the_descriptors_closed, ctx);
    expect_death(ctx, NOBODY, 1);
    close_context(ctx);
}

DOMAIN_TEST(poll_and_afterpoll_bring_the_events)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    libxl_event *event;

    enable(ctx, domid, 1);
    host_shutdown(domid, REBOOT);
    event = poll_until_event(ctx, NULL, NULL);
    check_shutdown(event, domid, 1, REBOOT);
    libxl_event_free(ctx, event);
    host_destroy(domid);
    event = poll_until_event(ctx, NULL, NULL);
    check_death(event, domid, 1);
    libxl_event_free(ctx, event);
    expect_silence(ctx);
    close_context(ctx);
}

/* A loop that sleeps when there is nothing to do. */
DOMAIN_TEST(an_event_that_nobody_fetches_does_not_make_poll_spin)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    int rounds = 0;

    enable(ctx, domid, 1);
    host_destroy(domid);
    CHECK(poll_once(ctx, -1));
    receive_all();
    while (poll_once(ctx, 300))
        CHECK_AT_MOST(++rounds, 20);
    expect_death(ctx, domid, 1);
    close_context(ctx);
}

TEST(an_idle_context_does_not_make_poll_spin)
{
    libxl_ctx *ctx = open_context();
    int rounds = 0;

    CHECK(!poll_once(ctx, 100));
    enable(ctx, NOBODY, 1);
    enable(ctx, 0, 2);
    while (poll_once(ctx, 300))
        CHECK_AT_MOST(++rounds, 20);
    expect_death(ctx, NOBODY, 1);
    receive_all();
    /* What was late, and its own look at the connection, each 10 s. */
    for (rounds = 0; poll_once(ctx, 100);)
        CHECK_AT_MOST(++rounds, 20);
    close_context(ctx);
}

/* It is level-triggered: whoever polls again before afterpoll finds it again. */
DOMAIN_TEST(a_descriptor_stays_ready_until_afterpoll_has_seen_to_it)
{
    libxl_ctx *ctx = open_context();
    struct polled polled;
    uint32_t domid = host_create();
    int i;

    enable(ctx, domid, 1);
    while (poll_once(ctx, 0))
        ;
    host_destroy(domid);
    before_poll(ctx, &polled, -1);
    for (i = 0; i < 3; i++)
        CHECK_AT_LEAST(poll_now(&polled), 1);
    after_poll(ctx, &polled);
    expect_death(ctx, domid, 1);
    close_context(ctx);
}

/* ---- hooks ---- */

enum { REGISTRATIONS_MAX = 8 };

/* An event loop, as the library sees it through the hooks. */
struct loop {
    libxl_ctx *ctx;
    struct registration {
        bool active;
        int fd;
        short events;
        void *for_libxl;
    } fds[REGISTRATIONS_MAX];
    int registered, deregistered, timeouts, refuse;
    /* The last `*for_app_registration_out` on entry of fd_register. */
    void *on_entry;
    /* Call occurred_fd from inside fd_register. */
    bool occur_inside;
    /* Enable a generator from inside fd_deregister, once. */
    bool enable_inside;
    libxl_evgen_domain_death *enabled_inside;
};

static int loop_fd_register(void *user, int fd, void **out, short events, void *for_libxl)
{
    struct loop *loop = user;
    size_t i;

    loop->on_entry = *out;
    if (loop->refuse)
        return loop->refuse;
    if (loop->occur_inside)
        libxl_osevent_occurred_fd(loop->ctx, for_libxl, fd, events, POLLIN);
    for (i = 0; loop->fds[i].active; i++)
        CHECK(i + 1 < REGISTRATIONS_MAX);
    loop->fds[i] = (struct registration){ true, fd, events, for_libxl };
    loop->registered++;
    *out = &loop->fds[i];
    return 0;
}

static int loop_fd_modify(void *user, int fd, void **update, short events)
{
    struct registration *registration = *update;

    (void)user;
    CHECK_EQUAL(registration->fd, fd);
    registration->events = events;
    return 0;
}

static void loop_fd_deregister(void *user, int fd, void *for_app)
{
    struct loop *loop = user;
    struct registration *registration = for_app;

    CHECK(registration->active);
    CHECK_EQUAL(registration->fd, fd);
    registration->active = false;
    loop->deregistered++;
    if (loop->enable_inside) {
        loop->enable_inside = false;
        loop->enabled_inside = enable(loop->ctx, NOBODY + 1, 2);
    }
}

static int loop_timeout_register(void *user, void **out, struct timeval abs, void *for_libxl)
{
    (void)out, (void)abs, (void)for_libxl;
    ((struct loop *)user)->timeouts++;
    return 0;
}

static int loop_timeout_modify(void *user, void **update, struct timeval abs)
{
    (void)update, (void)abs;
    ((struct loop *)user)->timeouts++;
    return 0;
}

static void loop_timeout_deregister(void *user, void *for_app)
{
    (void)for_app;
    ((struct loop *)user)->timeouts++;
}

static const libxl_osevent_hooks loop_hooks = { loop_fd_register,      loop_fd_modify,      loop_fd_deregister,
                                                loop_timeout_register, loop_timeout_modify, loop_timeout_deregister };

static struct loop *open_loop(void)
{
    struct loop *loop = calloc(1, sizeof *loop);

    CHECK(loop != NULL);
    loop->ctx = open_context();
    libxl_osevent_register_hooks(loop->ctx, &loop_hooks, loop);
    return loop;
}

static void close_loop(struct loop *loop)
{
    close_context(loop->ctx);
    CHECK_EQUAL(loop->deregistered, loop->registered);
    CHECK_EQUAL(loop->timeouts, 0);
    free(loop);
}

/* One round; whether something was ready. */
static bool run_loop_once(struct loop *loop, int timeout)
{
    struct pollfd fds[REGISTRATIONS_MAX];
    struct registration copies[REGISTRATIONS_MAX];
    nfds_t count = 0, i;
    int ready;

    for (i = 0; i < REGISTRATIONS_MAX; i++)
        if (loop->fds[i].active) {
            copies[count] = loop->fds[i];
            fds[count++] = (struct pollfd){ loop->fds[i].fd, loop->fds[i].events, 0 };
        }
    while ((ready = poll(fds, count, timeout)) < 0)
        CHECK_EQUAL(errno, EINTR);
    for (i = 0; i < count; i++)
        if (fds[i].revents)
            libxl_osevent_occurred_fd(loop->ctx, copies[i].for_libxl, fds[i].fd, fds[i].events, fds[i].revents);
    return ready > 0;
}

static libxl_event *run_loop_until_event(struct loop *loop)
{
    libxl_event *event = NULL;

    while (libxl_event_check(loop->ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == ERROR_NOT_READY)
        run_loop_once(loop, -1);
    return event;
}

TEST(a_descriptor_is_registered_with_the_first_generator_and_deregistered_with_the_last)
{
    struct loop *loop = open_loop();
    libxl_evgen_domain_death *first, *second;
    int round;

    CHECK_EQUAL(loop->registered, 0);
    for (round = 1; round <= 3; round++) {
        first = enable(loop->ctx, 0, 1);
        CHECK_EQUAL(loop->registered, round);
        CHECK_EQUAL(loop->fds[0].events, POLLIN);
        CHECK(fd_is_open(loop->fds[0].fd));
        second = enable(loop->ctx, 0, 2);
        CHECK_EQUAL(loop->registered, round);
        libxl_evdisable_domain_death(loop->ctx, first);
        CHECK_EQUAL(loop->deregistered, round - 1);
        libxl_evdisable_domain_death(loop->ctx, second);
        CHECK_EQUAL(loop->deregistered, round);
    }
    enable(loop->ctx, 0, 3);
    CHECK_EQUAL(loop->registered, 4);
    close_loop(loop);
}

TEST(the_place_for_a_registration_is_NULL_on_entry)
{
    struct loop *loop = open_loop();
    int round;

    for (round = 0; round < 3; round++) {
        loop->on_entry = UNTOUCHED;
        libxl_evdisable_domain_death(loop->ctx, enable(loop->ctx, 0, 1));
        if (round == 0 || OURS("registration-out"))
            CHECK(loop->on_entry == NULL);
        else
            CHECK(loop->on_entry == &loop->fds[0]);
    }
    close_loop(loop);
}

/* Neither children nor many domains need more than one. */
DOMAIN_TEST(hooks_see_one_descriptor)
{
    enum { FIRST = 100, DOMAINS = 20 };
    static const libxl_childproc_hooks always = { .chldowner = libxl_sigchld_owner_libxl_always };
    struct loop *loop = open_loop();
    uint32_t i;

    host_create_many(FIRST, DOMAINS);
    for (i = 0; i < DOMAINS; i++)
        enable(loop->ctx, FIRST + i, i);
    CHECK_EQUAL(loop->registered, 1);
    libxl_childproc_setmode(loop->ctx, &always, NULL);
    if (OURS("one-descriptor"))
        CHECK_EQUAL(loop->registered, 1);
    else
        CHECK_EQUAL(loop->registered, 2);
    libxl_childproc_setmode(loop->ctx, NULL, NULL);
    close_loop(loop);
}

DOMAIN_TEST(a_loop_with_hooks_brings_the_events)
{
    struct loop *loop = open_loop();
    uint32_t domid = host_create();
    libxl_event *event;

    enable(loop->ctx, domid, 1);
    host_shutdown(domid, CRASH);
    event = run_loop_until_event(loop);
    check_shutdown(event, domid, 1, CRASH);
    libxl_event_free(loop->ctx, event);
    host_destroy(domid);
    event = run_loop_until_event(loop);
    check_death(event, domid, 1);
    libxl_event_free(loop->ctx, event);
    expect_silence(loop->ctx);
    close_loop(loop);
}

struct counted {
    libxl_ctx *ctx;
    int deaths;
};

static void count_deaths(void *user, libxl_event *event)
{
    struct counted *counted = user;

    CHECK_EQUAL(event->type, LIBXL_EVENT_TYPE_DOMAIN_DEATH);
    counted->deaths++;
    libxl_event_free(counted->ctx, event);
}

/* As libvirt: hooks and callbacks, and nobody fetches events. */
DOMAIN_TEST(a_loop_with_hooks_and_callbacks_brings_the_events)
{
    static const libxl_event_hooks hooks = { .event_occurs_mask = LIBXL_EVENTMASK_ALL, .event_occurs = count_deaths };
    struct loop *loop = open_loop();
    struct counted counted = { loop->ctx, 0 };
    uint32_t first = host_create(), second = host_create();

    libxl_event_register_callbacks(loop->ctx, &hooks, &counted);
    enable(loop->ctx, first, 1);
    enable(loop->ctx, second, 2);
    host_destroy(first);
    while (counted.deaths < 1)
        run_loop_once(loop, -1);
    host_destroy(second);
    while (counted.deaths < 2)
        run_loop_once(loop, -1);
    close_loop(loop);
}

DOMAIN_TEST(a_loop_with_hooks_does_not_spin)
{
    struct loop *loop = open_loop();
    uint32_t domid = host_create();
    int rounds = 0;

    enable(loop->ctx, domid, 1);
    host_destroy(domid);
    CHECK(run_loop_once(loop, -1));
    receive_all();
    while (run_loop_once(loop, 300))
        CHECK_AT_MOST(++rounds, 20);
    expect_death(loop->ctx, domid, 1);
    close_loop(loop);
}

DOMAIN_TEST(event_wait_and_the_poll_loop_work_with_hooks_too)
{
    struct loop *loop = open_loop();
    uint32_t first = host_create(), second = host_create(), third = host_create();
    libxl_event *event;

    enable(loop->ctx, first, 1);
    enable(loop->ctx, second, 2);
    enable(loop->ctx, third, 3);
    host_destroy(first);
    expect_death(loop->ctx, first, 1);
    host_destroy(second);
    event = poll_until_event(loop->ctx, NULL, NULL);
    check_death(event, second, 2);
    libxl_event_free(loop->ctx, event);
    host_destroy(third);
    event = run_loop_until_event(loop);
    check_death(event, third, 3);
    libxl_event_free(loop->ctx, event);
    close_loop(loop);
}

TEST(a_refused_registration_comes_back_from_the_enable_and_a_retry_works)
{
    static const int refusals[] = { 5, ERROR_OSEVENT_REG_FAIL, 1 };
    struct loop *loop = open_loop();
    libxl_evgen_domain_death *evgen = UNTOUCHED;
    size_t i;

    for (i = 0; i < COUNT(refusals); i++) {
        loop->refuse = refusals[i];
        CHECK_EQUAL(libxl_evenable_domain_death(loop->ctx, NOBODY, 1, &evgen), refusals[i]);
        CHECK(evgen == UNTOUCHED);
    }
    loop->refuse = 0;
    enable(loop->ctx, NOBODY, 2);
    expect_death(loop->ctx, NOBODY, 2);
    expect_nothing_queued(loop->ctx);
    close_loop(loop);
}

DOMAIN_TEST(a_late_or_false_occurrence_is_harmless)
{
    struct loop *loop = open_loop();
    uint32_t domid = host_create();
    libxl_evgen_domain_death *evgen = enable(loop->ctx, domid, 1);
    struct registration before = loop->fds[0];
    int i;

    /* Nothing has occurred. */
    for (i = 0; i < 3; i++)
        libxl_osevent_occurred_fd(loop->ctx, before.for_libxl, before.fd, POLLIN, POLLIN);
    libxl_osevent_occurred_fd(loop->ctx, before.for_libxl, before.fd, POLLIN, 0);
    libxl_evdisable_domain_death(loop->ctx, evgen);
    /* Another thread's loop was about to say this. */
    libxl_osevent_occurred_fd(loop->ctx, before.for_libxl, before.fd, POLLIN, POLLIN);
    evgen = enable(loop->ctx, domid, 2);
    libxl_osevent_occurred_fd(loop->ctx, before.for_libxl, before.fd, POLLIN, POLLIN);
    host_destroy(domid);
    expect_death(loop->ctx, domid, 2);
    expect_silence(loop->ctx);
    CHECK_EQUAL(logged_errors, 0);
    close_loop(loop);
}

static void occur_inside_a_hook(void *user)
{
    struct loop *loop = user;

    loop->occur_inside = true;
    enable(loop->ctx, NOBODY, 1);
    loop->occur_inside = false;
}

TEST(an_occurrence_from_inside_a_hook_is_logged_and_ignored)
{
    struct loop *loop = open_loop();

    if (OURS("too-late")) {
        occur_inside_a_hook(loop);
        CHECK_EQUAL(logged_errors, 1);
        expect_death(loop->ctx, NOBODY, 1);
    } else {
        CHECK_DIES(SIGABRT, occur_inside_a_hook, loop);
    }
    close_loop(loop);
}

/* The watch is being given up just then. */
TEST_WITH(a_generator_that_fd_deregister_enables_is_served, NOT_FOR_LIBXENLIGHT)
{
    struct loop *loop = open_loop();
    libxl_evgen_domain_death *evgen = enable(loop->ctx, NOBODY, 1);

    expect_death(loop->ctx, NOBODY, 1);
    loop->enable_inside = true;
    libxl_evdisable_domain_death(loop->ctx, evgen);
    CHECK_EQUAL(loop->registered, 2);
    expect_death(loop->ctx, NOBODY + 1, 2);
    libxl_evdisable_domain_death(loop->ctx, loop->enabled_inside);
    CHECK_EQUAL(loop->deregistered, 2);
    close_loop(loop);
}

static void register_again(void *user)
{
    struct loop *loop = user;

    libxl_osevent_register_hooks(loop->ctx, &loop_hooks, loop);
}

TEST(hooks_after_an_enable_or_a_second_time_are_refused)
{
    struct loop *loop = open_loop(), *late = calloc(1, sizeof *late);

    CHECK(late != NULL);
    late->ctx = open_context();
    enable(late->ctx, 0, 1);
    if (OURS("too-late")) {
        register_again(loop);
        CHECK_EQUAL(logged_errors, 1);
        register_again(late);
        CHECK_EQUAL(logged_errors, 2);
        CHECK_EQUAL(late->registered, 0);
    } else {
        CHECK_DIES(SIGABRT, register_again, late);
    }
    enable(loop->ctx, NOBODY, 1);
    CHECK_EQUAL(loop->registered, 1);
    close_loop(loop);
    close_loop(late);
}

TEST_OF_OURS(an_occurrence_of_what_was_never_registered_is_ignored)
{
    struct loop *loop = open_loop();

    enable(loop->ctx, NOBODY, 1);
    libxl_osevent_occurred_timeout(loop->ctx, UNTOUCHED);
    libxl_osevent_occurred_timeout(loop->ctx, NULL);
    libxl_osevent_occurred_fd(loop->ctx, UNTOUCHED, loop->fds[0].fd, POLLIN, POLLIN);
    libxl_osevent_occurred_fd(loop->ctx, NULL, 0, POLLIN, POLLIN);
    expect_death(loop->ctx, NOBODY, 1);
    close_loop(loop);
}

/* ---- as libvirt does it ---- */

/* A daemon: its loop in one thread, domains that come and go in others, and a thread of its own for each end. */
struct daemon {
    struct loop *loop;
    pthread_mutex_t lock;
    libxl_evgen_domain_death *evgens[40000];
    int ends; /* of domains, dealt with */
    bool stop;
};

struct end {
    struct daemon *daemon;
    libxl_event *event;
};

static void *deal_with_an_end(void *arg)
{
    struct end *end = arg;
    struct daemon *daemon = end->daemon;
    libxl_ctx *ctx = daemon->loop->ctx;
    uint32_t domid = end->event->domid;
    libxl_evgen_domain_death *evgen;

    CHECK_EQUAL(end->event->type, LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN);
    CHECK_EQUAL(end->event->u.domain_shutdown.shutdown_reason, POWEROFF);
    pthread_mutex_lock(&daemon->lock);
    evgen = daemon->evgens[domid];
    daemon->evgens[domid] = NULL;
    pthread_mutex_unlock(&daemon->lock);
    CHECK(evgen != NULL);
    libxl_evdisable_domain_death(ctx, evgen);
    host_destroy(domid);
    libxl_event_free(ctx, end->event);
    pthread_mutex_lock(&daemon->lock);
    daemon->ends++;
    pthread_mutex_unlock(&daemon->lock);
    free(end);
    return NULL;
}

static void event_for_the_daemon(void *user, libxl_event *event)
{
    struct daemon *daemon = user;
    struct end *end;
    pthread_t thread;

    /* Of one that was seen dead before its thread had disabled its generator. */
    if (event->type != LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN) {
        libxl_event_free(daemon->loop->ctx, event);
        return;
    }
    end = malloc(sizeof *end);
    CHECK(end != NULL);
    *end = (struct end){ daemon, event };
    thread = start_thread(deal_with_an_end, end);
    CHECK_EQUAL(pthread_detach(thread), 0);
}

static void *run_daemon_loop(void *arg)
{
    struct daemon *daemon = arg;

    while (!__atomic_load_n(&daemon->stop, __ATOMIC_RELAXED))
        run_loop_once(daemon->loop, 20);
    return NULL;
}

static int ends_of(struct daemon *daemon)
{
    int ends;

    pthread_mutex_lock(&daemon->lock);
    ends = daemon->ends;
    pthread_mutex_unlock(&daemon->lock);
    return ends;
}

DOMAIN_TEST(a_daemon_with_hooks_callbacks_and_threads_watches_as_libvirtd)
{
    enum { FIRST = 100, DOMAINS = 60 };
    static const libxl_event_hooks callbacks = { .event_occurs_mask = LIBXL_EVENTMASK_ALL,
                                                 .event_occurs = event_for_the_daemon };
    static const libxl_childproc_hooks childproc = { .chldowner = libxl_sigchld_owner_libxl_always_selective_reap };
    static struct daemon daemon = { .lock = PTHREAD_MUTEX_INITIALIZER };
    libxl_evgen_domain_death *control;
    pthread_t thread;
    uint32_t i;

    daemon.loop = open_loop();
    libxl_event_register_callbacks(daemon.loop->ctx, &callbacks, &daemon);
    libxl_childproc_setmode(daemon.loop->ctx, &childproc, &daemon);
    control = enable(daemon.loop->ctx, 0, 0);
    thread = start_thread(run_daemon_loop, &daemon);
    for (i = FIRST; i < FIRST + DOMAINS; i++) {
        host_create_at(i);
        pthread_mutex_lock(&daemon.lock);
        daemon.evgens[i] = enable(daemon.loop->ctx, i, i);
        pthread_mutex_unlock(&daemon.lock);
        if (i >= FIRST + 5)
            host_shutdown(i - 5, POWEROFF);
    }
    host_shutdown_many(FIRST + DOMAINS - 5, 5, POWEROFF);
    WAIT_UNTIL(ends_of(&daemon) == DOMAINS);
    __atomic_store_n(&daemon.stop, true, __ATOMIC_RELAXED);
    finish_thread(thread);
    for (i = FIRST; i < FIRST + DOMAINS; i++)
        CHECK(daemon.evgens[i] == NULL);
    libxl_evdisable_domain_death(daemon.loop->ctx, control);
    libxl_childproc_setmode(daemon.loop->ctx, NULL, NULL);
    close_loop(daemon.loop);
}
