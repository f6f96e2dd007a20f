/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An application that has closed the library's descriptors, by a late closefrom() or by a close() too many, and whose own
 * files have those numbers then: nothing of the application's is read, written or closed, it is told once, and no loop spins.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libxl_event.h>

#include "harness/check.h"
#include "harness/host.h"
#include "harness/ours.h"
#include "harness/xl.h"

enum { FDS = 128, TRAITS = NOT_FOR_LIBXENLIGHT | NOT_UNDER_VALGRIND | NOT_ON_A_STAND_IN };

static atomic_int disasters;

static void event_occurs(void *user, libxl_event *event)
{
    (void)user;
    (void)event;
    FAIL("there is no such event");
}

static void disaster(void *user, libxl_event_type type, const char *message, int errnoval)
{
    (void)user;
    (void)message;
    CHECK_EQUAL(type, 0);
    CHECK_EQUAL(errnoval, EBADF);
    disasters++;
}

static const libxl_event_hooks event_hooks = { 0, event_occurs, disaster };

/* ---- what the application does ---- */

static bool before[FDS];
/* The application's files, and those at the other ends of them. */
static int theirs[FDS], other_end[FDS], stolen;

static void note_what_is_open(void)
{
    int fd;

    for (fd = 0; fd < FDS; fd++)
        before[fd] = fd_is_open(fd);
}

enum kind { NOTHING, SOCKETS, PIPES, EVENTFDS, EPOLLS, FILES };

static const char data[] = "the application's";

/* At this number; what is at the other end is far from all of them. */
static void open_at(int fd, enum kind kind, int i)
{
    struct epoll_event interest = { .events = EPOLLIN | EPOLLONESHOT, .data = { .u64 = 5 } };
    uint64_t three = 3;
    int pair[2], file = -1, far = 500 + 2 * i;

    switch (kind) {
    case NOTHING:
        return;
    case SOCKETS:
        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        break;
    case PIPES:
        CHECK(pipe(pair) == 0);
        break;
    case EVENTFDS:
        CHECK((file = eventfd(3, EFD_NONBLOCK)) >= 0);
        break;
    case EPOLLS:
        CHECK(pipe(pair) == 0);
        CHECK(write(pair[1], &three, sizeof three) == sizeof three);
        CHECK((file = epoll_create1(0)) >= 0);
        CHECK(dup2(pair[0], far + 1) >= 0);
        CHECK(epoll_ctl(file, EPOLL_CTL_ADD, far + 1, &interest) == 0);
        break;
    case FILES:
        CHECK((file = open("/tmp", O_TMPFILE | O_RDWR, 0600)) >= 0);
        CHECK(write(file, data, sizeof data) == sizeof data);
        break;
    }
    if (kind == SOCKETS || kind == PIPES) {
        CHECK(write(pair[1], data, sizeof data) == sizeof data);
        file = pair[0];
    }
    /* One that has come to lie where another is to be stays open there until then. */
    if (kind == SOCKETS || kind == PIPES || kind == EPOLLS) {
        CHECK(fcntl(pair[1], F_DUPFD, 700) >= 0);
        other_end[i] = fcntl(pair[1], F_DUPFD, far);
    }
    CHECK(dup2(file, fd) == fd);
}

/* Closes all that has been opened since, and has the numbers for files of its own. */
static void steal_all(enum kind kind)
{
    int fd, i;

    stolen = 0;
    for (fd = 3; fd < FDS; fd++)
        if (fd_is_open(fd) && !before[fd]) {
            close(fd);
            theirs[stolen++] = fd;
        }
    CHECK_AT_LEAST(stolen, 5);
    for (i = 0; i < stolen; i++)
        open_at(theirs[i], kind, i);
}

/* All is as the application has left it. */
static void check_theirs(enum kind kind)
{
    struct epoll_event event;
    char text[100];
    uint64_t count;
    int i;

    for (i = 0; i < stolen; i++) {
        if (kind == NOTHING)
            continue;
        CHECK(fd_is_open(theirs[i]));
        switch (kind) {
        case NOTHING:
            break;
        case SOCKETS:
            CHECK_EQUAL(recv(other_end[i], text, sizeof text, MSG_DONTWAIT), -1);
            CHECK_EQUAL(errno, EAGAIN);
            /* fall through */
        case PIPES:
            CHECK_EQUAL(read(theirs[i], text, sizeof text), sizeof data);
            break;
        case EVENTFDS:
            CHECK_EQUAL(read(theirs[i], &count, sizeof count), sizeof count);
            CHECK_EQUAL(count, 3);
            break;
        case EPOLLS:
            CHECK_EQUAL(epoll_wait(theirs[i], &event, 1, 0), 1);
            CHECK_EQUAL(event.data.u64, 5);
            break;
        case FILES:
            CHECK_EQUAL(lseek(theirs[i], 0, SEEK_CUR), sizeof data);
            CHECK_EQUAL(lseek(theirs[i], 0, SEEK_END), sizeof data);
            break;
        }
    }
}

static libxl_ctx *open_watched_context(uint32_t domid)
{
    libxl_ctx *ctx = open_context();
    struct polled polled;

    libxl_event_register_callbacks(ctx, &event_hooks, NULL);
    enable(ctx, domid, 1);
    before_poll(ctx, &polled, -1);
    while (poll_once(ctx, 0))
        ;
    expect_nothing_queued(ctx);
    return ctx;
}

static void expect_every_call_to_fail(libxl_ctx *ctx)
{
    libxl_evgen_domain_death *evgen = UNTOUCHED;
    libxl_event *event = UNTOUCHED;

    CHECK_EQUAL(libxl_evenable_domain_death(ctx, NOBODY, 2, &evgen), ERROR_FAIL);
    CHECK(evgen == UNTOUCHED);
    CHECK_EQUAL(libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_FAIL);
    CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_FAIL);
    CHECK(event == UNTOUCHED);
    CHECK_EQUAL(xlevent_get_fd(ctx), ERROR_FAIL);
}

static int lines_of_ours(void)
{
    return logged_lines - logged_by_libxl;
}

/* A loop around poll(2) that knows of nothing, once round; how many descriptors it was given to wait for. */
static int go_round(libxl_ctx *ctx)
{
    struct polled polled = { .nfds = FDS_MAX, .timeout = 20 };
    struct timeval now;

    gettimeofday(&now, NULL);
    CHECK_EQUAL(libxl_osevent_beforepoll(ctx, &polled.nfds, polled.fds, &polled.timeout, now), 0);
    CHECK_EQUAL(polled.timeout, 20);
    poll_now(&polled);
    after_poll(ctx, &polled);
    return polled.nfds;
}

/* It ends when it has been told. */
static void go_round_until_told(libxl_ctx *ctx)
{
    int rounds;

    for (rounds = 0; !disasters; rounds++) {
        CHECK_AT_MOST(rounds, 1000);
        go_round(ctx);
    }
}

static void close_all(enum kind kind)
{
    uint32_t domid = host_create();
    libxl_ctx *ctx;
    int lines, i;

    note_what_is_open();
    ctx = open_watched_context(domid);
    lines = lines_of_ours();
    steal_all(kind);
    /* libxenstore's thread has something to read. */
    host_destroy(domid);
    host_settle();
    go_round_until_told(ctx);
    for (i = 0; i < 10; i++)
        CHECK_EQUAL(go_round(ctx), 0);
    expect_every_call_to_fail(ctx);
    CHECK_EQUAL(disasters, 1);
    CHECK_EQUAL(lines_of_ours() - lines, 1);
    close_context(ctx);
    CHECK_EQUAL(disasters, 1);
    check_theirs(kind);
}

TEST_WITH(an_application_that_has_closed_all_is_told_once, COMMANDS_DOMAINS | TRAITS)
{
    close_all(NOTHING);
}

TEST_WITH(sockets_that_have_the_numbers_of_closed_descriptors_are_left_alone, COMMANDS_DOMAINS | TRAITS)
{
    close_all(SOCKETS);
}

TEST_WITH(pipes_that_have_them_are_left_alone, COMMANDS_DOMAINS | TRAITS)
{
    close_all(PIPES);
}

TEST_WITH(eventfds_that_have_them_are_left_alone, COMMANDS_DOMAINS | TRAITS)
{
    close_all(EVENTFDS);
}

TEST_WITH(epoll_sets_that_have_them_are_left_alone, COMMANDS_DOMAINS | TRAITS)
{
    close_all(EPOLLS);
}

TEST_WITH(files_that_have_them_are_left_alone, COMMANDS_DOMAINS | TRAITS)
{
    close_all(FILES);
}

TEST_WITH(a_new_context_works_after_the_old_one_has_lost_its_descriptors, COMMANDS_DOMAINS | TRAITS)
{
    uint32_t domid = host_create();
    libxl_ctx *ctx, *lost;

    note_what_is_open();
    lost = open_watched_context(domid);
    steal_all(SOCKETS);
    ctx = open_context();
    enable(ctx, domid, 7);
    host_destroy(domid);
    expect_death(ctx, domid, 7);
    expect_every_call_to_fail(lost);
    close_context(lost);
    enable(ctx, NOBODY, 8);
    expect_death(ctx, NOBODY, 8);
    close_context(ctx);
    check_theirs(SOCKETS);
}

/* ---- one alone: a close() too many ---- */

TEST_WITH(the_one_descriptor_that_an_application_knows_is_missed_when_it_was_closed, TRAITS)
{
    enum kind kinds[] = { NOTHING, SOCKETS, EPOLLS, EVENTFDS };
    size_t i;

    for (i = 0; i < COUNT(kinds); i++) {
        libxl_ctx *ctx = open_watched_context(0);
        int fd = xlevent_get_fd(ctx);

        CHECK_AT_LEAST(fd, 3);
        close(fd);
        theirs[0] = fd, stolen = 1;
        open_at(fd, kinds[i], 0);
        go_round_until_told(ctx);
        expect_every_call_to_fail(ctx);
        close_context(ctx);
        CHECK_EQUAL(disasters, 1);
        check_theirs(kinds[i]);
        if (kinds[i] != NOTHING)
            close(fd);
        disasters = 0;
    }
}

TEST_WITH(each_of_the_descriptors_alone_is_left_to_who_has_its_number, TRAITS | NOT_BESIDE_LIBXENLIGHT)
{
    int nth, found = 1;

    for (nth = 0; found; nth++) {
        libxl_ctx *ctx;
        int fd, seen = 0, round;

        note_what_is_open();
        ctx = open_watched_context(0);
        found = 0;
        for (fd = 3; fd < FDS && !found; fd++)
            found = fd_is_open(fd) && !before[fd] && seen++ == nth;
        if (found) {
            /* Those of Xen's libraries for which nobody tells a number can't be recognised alone. */
            char link[64], target[128];
            ssize_t length;

            theirs[0] = --fd, stolen = 1;
            snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
            CHECK((length = readlink(link, target, sizeof target - 1)) > 0);
            target[length] = '\0';
            if (!strstr(target, "eventfd") && !strstr(target, "timerfd") && !strstr(target, "eventpoll")) {
                close_context(ctx);
                continue;
            }
            close(fd);
            open_at(fd, SOCKETS, 0);
        }
        for (round = 0; round < 5; round++)
            go_round(ctx);
        close_context(ctx);
        if (found) {
            check_theirs(SOCKETS);
            close(theirs[0]);
        }
    }
    CHECK_AT_LEAST(nth, 4);
}

/* ---- those who wait otherwise ---- */

static atomic_int waiter;

static void *wait_in_vain(void *ctx)
{
    libxl_event *event = UNTOUCHED;

    waiter = (int)syscall(SYS_gettid);
    return (void *)(intptr_t)libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL);
}

TEST_WITH(a_thread_in_event_wait_returns_by_itself, TRAITS)
{
    libxl_ctx *ctx;
    pthread_t thread;

    note_what_is_open();
    ctx = open_watched_context(0);
    thread = start_thread(wait_in_vain, ctx);
    WAIT_UNTIL(waiter && (sleeps_in(waiter) == SYS_ppoll || sleeps_in(waiter) == SYS_poll));
    steal_all(SOCKETS);
    CHECK_EQUAL((intptr_t)finish_thread(thread), ERROR_FAIL);
    CHECK_EQUAL(disasters, 1);
    close_context(ctx);
    check_theirs(SOCKETS);
}

static int registered_fd = -1, deregistrations;
static void *registered_for;

static int fd_register(void *user, int fd, void **for_app_registration_out, short events, void *for_libxl)
{
    (void)user;
    (void)for_app_registration_out;
    (void)events;
    registered_fd = fd, registered_for = for_libxl;
    return 0;
}

static int fd_modify(void *user, int fd, void **for_app_registration_update, short events)
{
    (void)user, (void)fd, (void)for_app_registration_update, (void)events;
    return 0;
}

static void fd_deregister(void *user, int fd, void *for_app_registration)
{
    (void)user;
    (void)for_app_registration;
    CHECK_EQUAL(fd, registered_fd);
    registered_fd = -1;
    deregistrations++;
}

static int timeout_register(void *user, void **for_app_registration_out, struct timeval abs, void *for_libxl)
{
    (void)user, (void)for_app_registration_out, (void)abs, (void)for_libxl;
    return 0;
}

static int timeout_modify(void *user, void **for_app_registration_update, struct timeval abs)
{
    (void)user, (void)for_app_registration_update, (void)abs;
    return 0;
}

static void timeout_deregister(void *user, void *for_app_registration)
{
    (void)user, (void)for_app_registration;
}

static const libxl_osevent_hooks os_hooks = { fd_register,      fd_modify,      fd_deregister,
                                              timeout_register, timeout_modify, timeout_deregister };

static void close_all_with_hooks(enum kind kind)
{
    libxl_ctx *ctx;
    int rounds = 0;

    note_what_is_open();
    ctx = open_context();
    libxl_event_register_callbacks(ctx, &event_hooks, NULL);
    libxl_osevent_register_hooks(ctx, &os_hooks, NULL);
    enable(ctx, 0, 1);
    CHECK_AT_LEAST(registered_fd, 3);
    steal_all(kind);
    /* It finds POLLNVAL each time, or what the application's own file has to read. */
    while (registered_fd >= 0) {
        struct pollfd pollfd = { .fd = registered_fd, .events = POLLIN };

        CHECK_AT_MOST(++rounds, 100);
        if (poll(&pollfd, 1, 20) > 0)
            libxl_osevent_occurred_fd(ctx, registered_for, pollfd.fd, POLLIN, pollfd.revents);
    }
    CHECK_EQUAL(disasters, 1);
    expect_every_call_to_fail(ctx);
    close_context(ctx);
    CHECK_EQUAL(deregistrations, 1);
    check_theirs(kind);
}

TEST_WITH(hooks_are_told_to_forget_a_descriptor_that_was_closed, TRAITS)
{
    close_all_with_hooks(NOTHING);
}

TEST_WITH(hooks_are_told_to_forget_a_descriptor_that_is_the_applications, TRAITS)
{
    close_all_with_hooks(SOCKETS);
}

/* ---- SIGCHLD ---- */

static int reaped(pid_t pid, int status, void *user)
{
    (void)pid;
    (void)status;
    (void)user;
    return 0;
}

static const libxl_childproc_hooks always = { .chldowner = libxl_sigchld_owner_libxl_always, .reaped_callback = reaped };

TEST_WITH(the_handler_of_SIGCHLD_writes_to_nothing_of_the_applications, TRAITS | NOT_BESIDE_LIBXENLIGHT)
{
    enum kind kinds[] = { SOCKETS, EVENTFDS };
    size_t i;

    for (i = 0; i < COUNT(kinds); i++) {
        libxl_ctx *ctx;
        int j;

        note_what_is_open();
        ctx = open_watched_context(0);
        libxl_childproc_setmode(ctx, &always, NULL);
        steal_all(kinds[i]);
        CHECK_EQUAL(raise(SIGCHLD), 0);
        close_context(ctx);
        check_theirs(kinds[i]);
        for (j = 0; j < stolen; j++)
            close(theirs[j]);
    }
}

/* ---- lines that repeat ---- */

static char last_line[1000];

static void note_line(struct xentoollog_logger *self, xentoollog_level level, int errnoval, const char *context,
                      const char *format, va_list arguments)
{
    (void)self, (void)level, (void)errnoval, (void)context;
    logged_lines++;
    vsnprintf(last_line, sizeof last_line, format, arguments);
}

TEST_WITH(a_mistake_that_is_made_again_and_again_is_one_line_and_a_count, TRAITS)
{
    static xentoollog_logger noting = { .vmessage = note_line };
    libxl_ctx *ctx;
    int i, lines, nfds = 1, timeout = -1;

    CHECK_EQUAL(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &noting), 0);
    lines = logged_lines;
    for (i = 0; i < 1000; i++) {
        CHECK_EQUAL(libxl_osevent_beforepoll(ctx, &nfds, NULL, &timeout, no_time), ERROR_INVAL);
        libxl_evdisable_domain_death(ctx, (libxl_evgen_domain_death *)(intptr_t)4096);
    }
    /* And one a minute, should this take so long. */
    CHECK_AT_LEAST(logged_lines - lines, 2);
    CHECK_AT_MOST(logged_lines - lines, 10);
    /* Another handle is another mistake; of very many, a few are written. */
    libxl_evdisable_domain_death(ctx, (libxl_evgen_domain_death *)(intptr_t)8192);
    CHECK_AT_LEAST(logged_lines - lines, 3);
    for (i = 0; i < 1000; i++)
        libxl_evdisable_domain_death(ctx, (libxl_evgen_domain_death *)(intptr_t)(10000 + i));
    CHECK_AT_MOST(logged_lines - lines, 200);
    lines = logged_lines;
    last_line[0] = '\0';
    libxl_ctx_free(ctx);
    CHECK_AT_LEAST(logged_lines - lines, 2);
    CHECK(strstr(last_line, "more like it") != NULL);
}
