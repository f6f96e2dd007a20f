/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sets for poll and select: xlevent_pollset_..., as hooks of this library, of a libxenlight with which this library has
 * nothing to do, and of a library that is played here. libxenlight has none; the program is linked with it for the column in
 * which libxlevent is preloaded.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "harness/check.h"
#include "harness/host.h"
#include "harness/ours.h"
#include "harness/xl.h"

typedef struct xlevent_pollset pollset;

enum { ROOM = 20 };

/* ---- rounds of a loop ---- */

static void fill(pollset *set, struct pollfd *fds, int *nfds, int *timeout_ms)
{
    *nfds = ROOM;
    CHECK_EQUAL(xlevent_pollset_beforepoll(set, nfds, fds, timeout_ms), 0);
}

static void poll_round(pollset *set, int timeout_ms)
{
    struct pollfd fds[ROOM];
    int nfds;

    fill(set, fds, &nfds, &timeout_ms);
    CHECK(poll(fds, (nfds_t)nfds, timeout_ms) >= 0 || errno == EINTR);
    CHECK_EQUAL(xlevent_pollset_afterpoll(set, nfds, fds), 0);
}

static void select_round(pollset *set, struct timeval *limit)
{
    fd_set readable, writable, exceptional;
    struct timeval room;
    int nfds = 0;

    FD_ZERO(&readable);
    FD_ZERO(&writable);
    FD_ZERO(&exceptional);
    CHECK_EQUAL(xlevent_pollset_beforeselect(set, &nfds, &readable, &writable, &exceptional, &limit, &room), 0);
    CHECK_AT_LEAST(select(nfds, &readable, &writable, &exceptional, limit), 0);
    CHECK_EQUAL(xlevent_pollset_afterselect(set, &readable, &writable, &exceptional), 0);
}

static void round_for_ever(pollset *set, bool with_select)
{
    if (with_select)
        select_round(set, NULL);
    else
        poll_round(set, -1);
}

/* ---- this library's contexts ---- */

static void serve_a_context(bool with_select)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    libxl_event *event;
    pollset *set = NULL;

    CHECK_EQUAL(xlevent_pollset_new(ctx, NULL, NULL, &set), 0);
    libxl_osevent_register_hooks(ctx, xlevent_pollset_hooks(), set);
    enable(ctx, domid, 1);
    host_shutdown(domid, REBOOT);
    while (libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == ERROR_NOT_READY)
        round_for_ever(set, with_select);
    check_shutdown(event, domid, 1, REBOOT);
    libxl_event_free(ctx, event);
    host_destroy(domid);
    while (libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == ERROR_NOT_READY)
        round_for_ever(set, with_select);
    check_death(event, domid, 1);
    libxl_event_free(ctx, event);
    close_context(ctx);
    xlevent_pollset_free(set);
}

TEST_WITH(a_loop_around_poll_with_a_set_hears_of_everything, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    serve_a_context(false);
}

TEST_WITH(so_does_one_around_select, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    serve_a_context(true);
}

/* ---- a library that is played here ---- */

enum { TOLD_MAX = 100 };

static struct {
    void *for_libxl;
    int fd; /* -1 for a timeout */
    short events, revents;
} told[TOLD_MAX];
static int told_count;
static void (*when_told)(void);

static libxl_ctx *const its_context = (libxl_ctx *)told;

static void note(void *for_libxl, int fd, short events, short revents)
{
    CHECK(told_count < TOLD_MAX);
    told[told_count].for_libxl = for_libxl;
    told[told_count].fd = fd;
    told[told_count].events = events;
    told[told_count++].revents = revents;
    if (when_told)
        when_told();
}

static void played_fd(libxl_ctx *ctx, void *for_libxl, int fd, short events, short revents)
{
    CHECK(ctx == its_context);
    note(for_libxl, fd, events, revents);
}

static void played_timeout(libxl_ctx *ctx, void *for_libxl)
{
    CHECK(ctx == its_context);
    note(for_libxl, -1, 0, 0);
}

static pollset *played_set(void)
{
    pollset *set = NULL;

    CHECK_EQUAL(xlevent_pollset_new(its_context, played_fd, played_timeout, &set), 0);
    return set;
}

/* Values to come back. */
static char values[10];

static void *add_fd(pollset *set, int fd, short events, int value)
{
    void *registration = NULL;

    CHECK_EQUAL(xlevent_pollset_hooks()->fd_register(set, fd, &registration, events, &values[value]), 0);
    return registration;
}

static void modify_fd(pollset *set, int fd, void *registration, short events)
{
    CHECK_EQUAL(xlevent_pollset_hooks()->fd_modify(set, fd, &registration, events), 0);
}

static void remove_fd(pollset *set, int fd, void *registration)
{
    xlevent_pollset_hooks()->fd_deregister(set, fd, registration);
}

/* So many milliseconds after `begin`. */
static void *add_timeout_after(pollset *set, struct timeval begin, long ms, int value)
{
    void *registration = NULL;
    struct timeval left = { ms / 1000, ms % 1000 * 1000 }, at;

    timeradd(&begin, &left, &at);
    CHECK_EQUAL(xlevent_pollset_hooks()->timeout_register(set, &registration, at, &values[value]), 0);
    return registration;
}

/* In so many milliseconds. */
static void *add_timeout(pollset *set, long ms, int value)
{
    struct timeval now;

    CHECK_EQUAL(gettimeofday(&now, NULL), 0);
    return add_timeout_after(set, now, ms, value);
}

static void hasten(pollset *set, void *registration)
{
    struct timeval at_once = { 0, 0 };

    CHECK_EQUAL(xlevent_pollset_hooks()->timeout_modify(set, &registration, at_once), 0);
}

static void open_pair(int fds[2])
{
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
}

static void feed(int fd)
{
    CHECK_EQUAL(write(fd, "x", 1), 1);
}

static void check_told(int index, int value, int fd, short events, short revents)
{
    CHECK(index < told_count);
    CHECK(told[index].for_libxl == &values[value]);
    CHECK_EQUAL(told[index].fd, fd);
    CHECK_EQUAL(told[index].events, events);
    CHECK_EQUAL(told[index].revents, revents);
}

static void tell_of_descriptors(bool with_select)
{
    struct timeval none = { 0, 0 };
    pollset *set = played_set();
    int pair[2];
    void *reader, *writer;

    open_pair(pair);
    reader = add_fd(set, pair[0], POLLIN, 1);
    writer = add_fd(set, pair[0], 0, 2);
    select_round(set, &none);
    poll_round(set, 0);
    CHECK_EQUAL(told_count, 0);
    feed(pair[1]);
    round_for_ever(set, with_select);
    CHECK_EQUAL(told_count, 1);
    check_told(0, 1, pair[0], POLLIN, POLLIN);
    /* One descriptor, registered twice. */
    modify_fd(set, pair[0], writer, POLLOUT);
    round_for_ever(set, with_select);
    CHECK_EQUAL(told_count, 3);
    check_told(1, 1, pair[0], POLLIN, POLLIN);
    check_told(2, 2, pair[0], POLLOUT, POLLOUT);
    remove_fd(set, pair[0], reader);
    round_for_ever(set, with_select);
    CHECK_EQUAL(told_count, 4);
    check_told(3, 2, pair[0], POLLOUT, POLLOUT);
    remove_fd(set, pair[0], writer);
    select_round(set, &none);
    poll_round(set, 0);
    CHECK_EQUAL(told_count, 4);
    xlevent_pollset_free(set);
}

TEST_OF_OURS(each_registration_is_told_of_what_it_wants_by_poll)
{
    tell_of_descriptors(false);
}

TEST_OF_OURS(each_registration_is_told_of_what_it_wants_by_select)
{
    tell_of_descriptors(true);
}

TEST_OF_OURS(a_hang_up_is_told)
{
    pollset *set = played_set();
    int pair[2];

    open_pair(pair);
    add_fd(set, pair[0], POLLIN, 1);
    close(pair[1]);
    poll_round(set, -1);
    check_told(0, 1, pair[0], POLLIN, POLLIN | POLLHUP);
    xlevent_pollset_free(set);
}

static void tell_of_timeouts(bool with_select)
{
    pollset *set = played_set();
    struct timeval begin;
    void *late;

    late = add_timeout(set, 1000000, 3);
    /* Which of the two is the earlier one doesn't depend on how long it takes to register them. */
    CHECK_EQUAL(gettimeofday(&begin, NULL), 0);
    add_timeout_after(set, begin, 30, 2);
    add_timeout_after(set, begin, 10, 1);
    while (told_count < 2)
        round_for_ever(set, with_select);
    check_told(0, 1, -1, 0, 0);
    check_told(1, 2, -1, 0, 0);
    hasten(set, late);
    while (told_count < 3)
        round_for_ever(set, with_select);
    check_told(2, 3, -1, 0, 0);
    /* It is over, and whoever is late isn't told that it failed. */
    hasten(set, late);
    poll_round(set, 0);
    CHECK_EQUAL(told_count, 3);
    xlevent_pollset_free(set);
}

TEST_OF_OURS(a_timeout_is_told_once_when_its_time_has_come_by_poll)
{
    tell_of_timeouts(false);
}

TEST_OF_OURS(a_timeout_is_told_once_when_its_time_has_come_by_select)
{
    tell_of_timeouts(true);
}

TEST_OF_OURS(the_shorter_of_two_times_counts)
{
    pollset *set = played_set();
    struct pollfd fds[ROOM];
    struct timeval room = { -1, -1 }, soon = { 0, 1000 }, later = { 1000000, 0 }, *limit;
    fd_set sets[3];
    int nfds, timeout_ms = -1;
    size_t i;

    fill(set, fds, &nfds, &timeout_ms);
    CHECK_EQUAL(timeout_ms, -1);
    add_timeout(set, 500000, 1);
    fill(set, fds, &nfds, &timeout_ms);
    CHECK_AT_LEAST(timeout_ms, 1);
    CHECK_AT_MOST(timeout_ms, 500000);
    timeout_ms = 1;
    fill(set, fds, &nfds, &timeout_ms);
    CHECK_EQUAL(timeout_ms, 1);
    for (i = 0; i < COUNT(sets); i++)
        FD_ZERO(&sets[i]);
    limit = &soon;
    CHECK_EQUAL(xlevent_pollset_beforeselect(set, &nfds, &sets[0], &sets[1], &sets[2], &limit, &room), 0);
    CHECK(limit == &soon && room.tv_sec == -1);
    limit = &later;
    CHECK_EQUAL(xlevent_pollset_beforeselect(set, &nfds, &sets[0], &sets[1], &sets[2], &limit, &room), 0);
    CHECK(limit == &room);
    CHECK_AT_MOST(room.tv_sec, 500);
    /* What is past is not waited for. */
    add_timeout(set, 0, 2);
    timeout_ms = -1;
    fill(set, fds, &nfds, &timeout_ms);
    CHECK_AT_MOST(timeout_ms, 1);
    xlevent_pollset_free(set);
}

/* While a thread is in poll, another registers something. */
static pollset *shared_set;
static int shared_fd;

static void *register_while_another_waits(void *unused)
{
    (void)unused;
    pause_a_little();
    add_fd(shared_set, shared_fd, POLLIN, 1);
    pause_a_little();
    add_timeout(shared_set, 5, 2);
    return NULL;
}

TEST_OF_OURS(what_another_thread_registers_is_waited_for_at_once)
{
    int pair[2], i, round;

    open_pair(pair);
    shared_fd = pair[0];
    for (round = 0; round < 20; round++) {
        bool fd_told = false, timeout_told = false;
        pthread_t thread;

        told_count = 0;
        shared_set = played_set();
        feed(pair[1]);
        thread = start_thread(register_while_another_waits, NULL);
        while (!fd_told || !timeout_told) {
            char byte;

            round_for_ever(shared_set, round % 2);
            for (i = 0; i < told_count; i++) {
                fd_told |= told[i].fd >= 0;
                timeout_told |= told[i].fd < 0;
            }
            if (fd_told)
                recv(pair[0], &byte, 1, MSG_DONTWAIT);
        }
        finish_thread(thread);
        xlevent_pollset_free(shared_set);
    }
}

/* Who is told first takes the others out. */
static void *others[2];

static void take_the_others_out(void)
{
    size_t i;

    for (i = 0; i < COUNT(others); i++)
        remove_fd(shared_set, shared_fd, others[i]);
    add_fd(shared_set, shared_fd, POLLIN, 9);
    when_told = NULL;
}

TEST_OF_OURS(who_was_taken_out_meanwhile_is_not_told)
{
    int pair[2];

    open_pair(pair);
    shared_fd = pair[0];
    shared_set = played_set();
    add_fd(shared_set, pair[0], POLLIN, 1);
    others[0] = add_fd(shared_set, pair[0], POLLIN, 2);
    others[1] = add_fd(shared_set, pair[0], POLLIN, 3);
    feed(pair[1]);
    when_told = take_the_others_out;
    poll_round(shared_set, -1);
    CHECK_EQUAL(told_count, 1);
    check_told(0, 1, pair[0], POLLIN, POLLIN);
    poll_round(shared_set, -1);
    CHECK_EQUAL(told_count, 3);
    check_told(2, 9, pair[0], POLLIN, POLLIN);
    xlevent_pollset_free(shared_set);
}

/* ---- limits ---- */

TEST_OF_OURS(an_array_that_is_too_small_is_not_overrun)
{
    pollset *set = played_set();
    struct pollfd fds[4];
    int nfds = 0, timeout_ms = -1, pair[2];

    open_pair(pair);
    CHECK_EQUAL(xlevent_pollset_beforepoll(set, &nfds, NULL, &timeout_ms), ERROR_BUFFERFULL);
    CHECK_EQUAL(nfds, 1);
    add_fd(set, pair[0], POLLIN, 1);
    add_fd(set, pair[1], POLLIN, 2);
    memset(fds, 0x5a, sizeof fds);
    nfds = 2;
    CHECK_EQUAL(xlevent_pollset_beforepoll(set, &nfds, fds, &timeout_ms), ERROR_BUFFERFULL);
    CHECK_EQUAL(nfds, 3);
    CHECK_EQUAL(fds[0].fd, 0x5a5a5a5a);
    CHECK_EQUAL(xlevent_pollset_beforepoll(set, &nfds, fds, &timeout_ms), 0);
    CHECK_EQUAL(fds[1].fd, pair[0]);
    CHECK_EQUAL(fds[2].fd, pair[1]);
    CHECK_EQUAL(fds[3].fd, 0x5a5a5a5a);
    xlevent_pollset_free(set);
}

TEST_OF_OURS(a_descriptor_too_high_for_select_is_an_error)
{
    struct { fd_set set; unsigned char beyond[64]; } sets[3], before[3];
    struct timeval room, *limit = NULL;
    struct rlimit files;
    pollset *set = played_set();
    int pair[2], high, nfds = 0, i;
    void *registration;

    open_pair(pair);
    CHECK_EQUAL(getrlimit(RLIMIT_NOFILE, &files), 0);
    files.rlim_cur = files.rlim_max;
    CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &files), 0);
    CHECK_AT_LEAST(files.rlim_cur, FD_SETSIZE + 2);
    high = fcntl(pair[0], F_DUPFD_CLOEXEC, FD_SETSIZE);
    CHECK_AT_LEAST(high, FD_SETSIZE);
    memset(sets, 0, sizeof sets);
    memset(sets[0].beyond, 0x5a, sizeof sets[0].beyond);
    memcpy(before, sets, sizeof sets);
    log_quietly = true;
    registration = add_fd(set, high, POLLIN | POLLOUT | POLLPRI, 1);
    CHECK_EQUAL(xlevent_pollset_beforeselect(set, &nfds, &sets[0].set, &sets[1].set, &sets[2].set, &limit, &room),
                ERROR_BUFFERFULL);
    CHECK(memcmp(before, sets, sizeof sets) == 0);
    CHECK(nfds == 0 && limit == NULL);
    CHECK_EQUAL(xlevent_pollset_afterselect(set, &sets[0].set, &sets[1].set, &sets[2].set), 0);
    CHECK_EQUAL(told_count, 0);
    /* If nothing is wanted of it, it does no harm; and poll can do it. */
    poll_round(set, -1);
    check_told(0, 1, high, POLLIN | POLLOUT | POLLPRI, POLLOUT);
    modify_fd(set, high, registration, 0);
    for (i = 0; i < 2; i++)
        CHECK_EQUAL(
            xlevent_pollset_beforeselect(set, &nfds, &sets[0].set, &sets[1].set, &sets[2].set, &limit, &room), 0);
    CHECK_AT_LEAST(nfds, 1);
    xlevent_pollset_free(set);
}

/* ---- libxenlight, with which this library has nothing to do ---- */

/* Its own functions, past ours: those of the release whose headers these programs are built with. */
static void *real_function(const char *name)
{
    void *library = dlopen(LIBXENLIGHT, RTLD_NOW), *function;

    CHECK(library != NULL);
    function = dlsym(library, name);
    CHECK(function != NULL);
    return function;
}

#define REAL_FUNCTION(name, result, parameters)                                                                        \
    result(*name) parameters;                                                                                          \
    *(void **)&name = real_function("libxl_" #name)

TEST_WITH(the_hooks_serve_a_libxenlight_alone, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    libxl_evgen_domain_death *evgens[5];
    libxl_ctx *ctx = NULL;
    uint32_t domids[COUNT(evgens)];
    size_t i, seen = 0;
    pollset *set;

    REAL_FUNCTION(ctx_alloc, int, (libxl_ctx **, int, unsigned, xentoollog_logger *));
    REAL_FUNCTION(ctx_free, int, (libxl_ctx *));
    REAL_FUNCTION(osevent_register_hooks, void, (libxl_ctx *, const libxl_osevent_hooks *, void *));
    REAL_FUNCTION(osevent_occurred_fd, void, (libxl_ctx *, void *, int, short, short));
    REAL_FUNCTION(osevent_occurred_timeout, void, (libxl_ctx *, void *));
    REAL_FUNCTION(evenable_domain_death, int, (libxl_ctx *, uint32_t, libxl_ev_user, libxl_evgen_domain_death **));
    REAL_FUNCTION(evdisable_domain_death, void, (libxl_ctx *, libxl_evgen_domain_death *));
    REAL_FUNCTION(event_check, int, (libxl_ctx *, libxl_event **, uint64_t, libxl_event_predicate *, void *));
    REAL_FUNCTION(event_free, void, (libxl_ctx *, libxl_event *));

    CHECK_EQUAL(ctx_alloc(&ctx, LIBXL_VERSION, 0, &logger), 0);
    CHECK_EQUAL(xlevent_pollset_new(ctx, osevent_occurred_fd, osevent_occurred_timeout, &set), 0);
    osevent_register_hooks(ctx, xlevent_pollset_hooks(), set);
    for (i = 0; i < COUNT(evgens); i++) {
        domids[i] = host_create();
        CHECK_EQUAL(evenable_domain_death(ctx, domids[i], i, &evgens[i]), 0);
    }
    for (i = 0; i < COUNT(evgens); i++) {
        libxl_event *event;

        host_destroy(domids[i]);
        while (event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == ERROR_NOT_READY)
            round_for_ever(set, i % 2);
        check_death(event, domids[i], i);
        event_free(ctx, event);
        seen++;
    }
    CHECK_EQUAL(seen, COUNT(evgens));
    for (i = 0; i < COUNT(evgens); i++)
        evdisable_domain_death(ctx, evgens[i]);
    CHECK_EQUAL(ctx_free(ctx), 0);
    xlevent_pollset_free(set);
}

/* ---- arguments ---- */

TEST_OF_OURS(wrong_arguments_about_sets_are_errors)
{
    pollset *set = UNTOUCHED, *freed = played_set(), *live;
    struct pollfd fds[ROOM];
    struct timeval room, *limit = NULL;
    fd_set one, two, three;
    void *registration = NULL;
    int nfds = ROOM, timeout_ms = -1;

    FD_ZERO(&one);
    FD_ZERO(&two);
    FD_ZERO(&three);
    xlevent_pollset_free(freed);
    xlevent_pollset_free(freed);
    xlevent_pollset_free(NULL);
    CHECK_EQUAL(xlevent_pollset_new(NULL, NULL, NULL, &set), ERROR_INVAL);
    CHECK_EQUAL(xlevent_pollset_new(its_context, NULL, NULL, NULL), ERROR_INVAL);
    CHECK_EQUAL(xlevent_pollset_new(its_context, played_fd, NULL, &set), ERROR_INVAL);
    CHECK_EQUAL(xlevent_pollset_new(its_context, NULL, played_timeout, &set), ERROR_INVAL);
    CHECK(set == UNTOUCHED);
    CHECK_EQUAL(xlevent_pollset_beforepoll(NULL, &nfds, fds, &timeout_ms), ERROR_INVAL);
    CHECK_EQUAL(xlevent_pollset_beforepoll(freed, &nfds, fds, &timeout_ms), ERROR_INVAL);
    CHECK_EQUAL(xlevent_pollset_afterpoll(freed, 0, NULL), ERROR_INVAL);
    CHECK_EQUAL(xlevent_pollset_beforeselect(freed, &nfds, &one, &two, &three, &limit, &room), ERROR_INVAL);
    CHECK_EQUAL(xlevent_pollset_afterselect(freed, &one, &two, &three), ERROR_INVAL);
    CHECK_EQUAL(xlevent_pollset_hooks()->fd_register(freed, 0, &registration, POLLIN, NULL), ERROR_OSEVENT_REG_FAIL);
    CHECK(registration == NULL);
    xlevent_pollset_hooks()->fd_deregister(freed, 0, NULL);

    live = played_set();
    CHECK_EQUAL(xlevent_pollset_beforepoll(live, NULL, fds, &timeout_ms), ERROR_INVAL);
    CHECK_EQUAL(xlevent_pollset_beforepoll(live, &nfds, NULL, &timeout_ms), ERROR_INVAL);
    CHECK_EQUAL(xlevent_pollset_beforepoll(live, &nfds, fds, NULL), ERROR_INVAL);
    CHECK_EQUAL(nfds, ROOM);
    CHECK_EQUAL(xlevent_pollset_afterpoll(live, 1, NULL), ERROR_INVAL);
    CHECK_EQUAL(xlevent_pollset_beforeselect(live, NULL, &one, &two, &three, &limit, &room), ERROR_INVAL);
    CHECK_EQUAL(xlevent_pollset_beforeselect(live, &nfds, NULL, &two, &three, &limit, &room), ERROR_INVAL);
    CHECK_EQUAL(xlevent_pollset_beforeselect(live, &nfds, &one, NULL, &three, &limit, &room), ERROR_INVAL);
    CHECK_EQUAL(xlevent_pollset_beforeselect(live, &nfds, &one, &two, NULL, &limit, &room), ERROR_INVAL);
    CHECK_EQUAL(xlevent_pollset_beforeselect(live, &nfds, &one, &two, &three, NULL, &room), ERROR_INVAL);
    CHECK_EQUAL(xlevent_pollset_beforeselect(live, &nfds, &one, &two, &three, &limit, NULL), ERROR_INVAL);
    /* After a select that has failed. */
    CHECK_EQUAL(xlevent_pollset_afterselect(live, NULL, NULL, NULL), 0);
    CHECK_EQUAL(told_count, 0);
    xlevent_pollset_free(live);
}
