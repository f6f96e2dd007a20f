/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What goes wrong beneath the library: the hypervisor does not answer, xenstored goes away.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "harness/check.h"
#include "harness/host.h"
#include "harness/ours.h"
#include "harness/quiet.h"
#include "harness/store.h"
#include "harness/xl.h"

/* ---- disaster ---- */

static struct {
    int calls, errnoval;
    libxl_event_type type;
    char message[200];
} disaster;

static void note_disaster(void *user, libxl_event_type type, const char *message, int errnoval)
{
    (void)user;
    disaster.calls++;
    disaster.type = type;
    disaster.errnoval = errnoval;
    snprintf(disaster.message, sizeof disaster.message, "%s", message);
}

static const libxl_event_hooks disaster_hooks = { .disaster = note_disaster };

DOMAIN_TEST(a_hypervisor_that_does_not_answer_is_a_disaster_and_nothing_is_lost)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();

    libxl_event_register_callbacks(ctx, &disaster_hooks, NULL);
    enable(ctx, domid, 1);
    expect_silence(ctx);
    /* A firing that is still under way would be a look, and a disaster, of its own. */
    come_to_rest(ctx);
    host_fail_lists(EPERM, -1);
    host_shutdown(domid, CRASH);
    while (disaster.calls == 0)
        poll_once(ctx, -1);
    CHECK_EQUAL(disaster.calls, 1);
    CHECK_EQUAL(disaster.type, 0);
    CHECK_EQUAL(disaster.errnoval, EPERM);
    CHECK(disaster.message[0] != '\0');
    CHECK_AT_LEAST(logged_errors, 1);
    expect_nothing_queued(ctx);
    host_fail_lists(0, 0);
    stir();
    expect_shutdown(ctx, domid, 1, CRASH);
    expect_silence(ctx);
    CHECK_EQUAL(disaster.calls, 1);
    close_context(ctx);
}

DOMAIN_TEST(the_first_look_that_fails_is_a_disaster_too)
{
    libxl_ctx *ctx = open_context();

    libxl_event_register_callbacks(ctx, &disaster_hooks, NULL);
    host_fail_lists(EACCES, -1);
    enable(ctx, NOBODY, 1);
    while (disaster.calls == 0)
        poll_once(ctx, -1);
    CHECK_EQUAL(disaster.errnoval, EACCES);
    host_fail_lists(0, 0);
    stir();
    expect_death(ctx, NOBODY, 1);
    close_context(ctx);
}

static void meet_a_disaster(void *unused)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();

    (void)unused;
    enable(ctx, domid, 1);
    host_fail_lists(EPERM, -1);
    host_destroy(domid);
    wait_event(ctx);
}

/* With its message on stderr. */
DOMAIN_TEST(a_disaster_that_nobody_wants_to_know_of_ends_the_process)
{
    FILE *errors = tmpfile();
    char line[400];
    bool told = false;
    int status;

    CHECK(errors != NULL);
    CHECK(dup2(fileno(errors), STDERR_FILENO) == STDERR_FILENO);
    log_quietly = true;
    status = in_child(meet_a_disaster, NULL);
    CHECK(WIFEXITED(status));
    CHECK_EQUAL(WEXITSTATUS(status), 255);
    rewind(errors);
    while (fgets(line, sizeof line, errors))
        told = true;
    CHECK(told);
}

/* Errors that pass. */
DOMAIN_TEST(a_hypervisor_that_is_busy_for_a_moment_is_asked_again)
{
    static const int passing[] = { EINTR, EAGAIN, EBUSY, ENOMEM };
    size_t i;

    for (i = 0; i < COUNT(passing); i++) {
        libxl_ctx *ctx = open_context();
        uint32_t domid = host_create();

        disaster.calls = 0;
        libxl_event_register_callbacks(ctx, &disaster_hooks, NULL);
        enable(ctx, domid, 1);
        expect_silence(ctx);
        host_fail_lists(passing[i], 1);
        host_destroy(domid);
        if (OURS("busy-hypervisor")) {
            expect_death(ctx, domid, 1);
            CHECK_EQUAL(disaster.calls, 0);
        } else {
            while (disaster.calls == 0)
                poll_once(ctx, -1);
            CHECK_EQUAL(disaster.errnoval, passing[i]);
            stir();
            expect_death(ctx, domid, 1);
        }
        expect_silence(ctx);
        close_context(ctx);
    }
}

DOMAIN_TEST(a_hypervisor_that_stays_busy_is_a_disaster)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();

    libxl_event_register_callbacks(ctx, &disaster_hooks, NULL);
    enable(ctx, domid, 1);
    expect_silence(ctx);
    host_fail_lists(EBUSY, -1);
    host_destroy(domid);
    while (disaster.calls == 0)
        poll_once(ctx, -1);
    CHECK_EQUAL(disaster.errnoval, EBUSY);
    host_fail_lists(0, 0);
    stir();
    expect_death(ctx, domid, 1);
    expect_silence(ctx);
    close_context(ctx);
}

/* ---- xenstored goes away and comes back ---- */

/* What libxenlight does then: nothing, ever again. */
static void expect_deafness(libxl_ctx *ctx)
{
    while (poll_once(ctx, 500))
        ;
    expect_nothing_queued(ctx);
}

/* xenstored goes away when the library has taken in all that it had sent: libxenlight would trip over the rest. */
static void kill_xenstored_in_silence(libxl_ctx *ctx)
{
    come_to_rest(ctx);
    host_kill_xenstored();
}

DOMAIN_TEST(nothing_is_lost_and_nothing_comes_twice_when_xenstored_is_restarted)
{
    enum { FIRST = 100, DOMAINS = 30 };
    libxl_ctx *ctx = open_context();
    uint32_t i;

    libxl_event_register_callbacks(ctx, &disaster_hooks, NULL);
    host_create_many(FIRST, DOMAINS);
    for (i = 0; i < DOMAINS; i++)
        enable(ctx, FIRST + i, i);
    expect_silence(ctx);
    /* Before, while it is away, and after. */
    host_destroy_many(FIRST, 10);
    for (i = 0; i < 10; i++)
        expect_death(ctx, FIRST + i, i);
    kill_xenstored_in_silence(ctx);
    host_shutdown_many(FIRST + 10, 5, CRASH);
    host_destroy_many(FIRST + 15, 5);
    host_start_xenstored();
    host_shutdown_many(FIRST + 20, 5, REBOOT);
    host_destroy_many(FIRST + 25, 5);
    host_settle();
    if (OURS("xenstored-restart")) {
        for (i = 10; i < DOMAINS; i++) {
            libxl_event *event = wait_event(ctx);

            CHECK_EQUAL(event->domid, FIRST + i);
            CHECK_EQUAL(event->type,
                        i % 10 < 5 ? LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN : LIBXL_EVENT_TYPE_DOMAIN_DEATH);
            libxl_event_free(ctx, event);
        }
        expect_silence(ctx);
        host_destroy_many(FIRST + 20, 5);
        for (i = 20; i < 25; i++)
            expect_death(ctx, FIRST + i, i);
        expect_silence(ctx);
    } else {
        expect_deafness(ctx);
    }
    CHECK_EQUAL(disaster.calls, 0);
    close_context(ctx);
}

DOMAIN_TEST(xenstored_may_be_restarted_again_and_again)
{
    libxl_ctx *ctx = open_context();
    int round;

    if (!OURS("xenstored-restart")) {
        enable(ctx, 0, 1);
        expect_silence(ctx);
        kill_xenstored_in_silence(ctx);
        host_start_xenstored();
        enable(ctx, host_create(), 2);
        stir();
        expect_deafness(ctx);
        close_context(ctx);
        return;
    }
    for (round = 0; round < 8; round++) {
        uint32_t domid = host_create();
        libxl_evgen_domain_death *evgen = enable(ctx, domid, 1);

        if (round % 2)
            expect_silence(ctx);
        host_kill_xenstored();
        if (round % 4 < 2)
            host_destroy(domid);
        host_start_xenstored();
        if (round % 4 >= 2)
            host_destroy(domid);
        expect_death(ctx, domid, 1);
        expect_silence(ctx);
        libxl_evdisable_domain_death(ctx, evgen);
    }
    close_context(ctx);
}

static struct {
    libxl_ctx *ctx;
    uint32_t domid;
    pid_t id;
    bool over;
} waiting;

static void *wait_for_death(void *unused)
{
    (void)unused;
    __atomic_store_n(&waiting.id, gettid(), __ATOMIC_RELEASE);
    expect_death(waiting.ctx, waiting.domid, 1);
    __atomic_store_n(&waiting.over, true, __ATOMIC_RELEASE);
    return NULL;
}

/* The thread of libxenlight's is left to itself, half a second after all others know: it goes with the process. */
DOMAIN_TEST(a_thread_in_event_wait_outlasts_a_restart)
{
    libxl_ctx *other;
    pthread_t thread;
    pid_t id;

    waiting.ctx = open_context();
    waiting.domid = host_create();
    enable(waiting.ctx, waiting.domid, 1);
    expect_silence(waiting.ctx);
    come_to_rest(waiting.ctx);
    thread = start_thread(wait_for_death, NULL);
    /* In a process that has nothing to read from xenstored. */
    WAIT_UNTIL((id = __atomic_load_n(&waiting.id, __ATOMIC_ACQUIRE)) != 0 && waits_for_descriptors(id));
    host_kill_xenstored();
    host_start_xenstored();
    host_destroy(waiting.domid);
    host_settle();
    other = open_context();
    enable(other, waiting.domid, 2);
    expect_death(other, waiting.domid, 2);
    close_context(other);
    if (OURS("xenstored-restart")) {
        finish_thread(thread);
        expect_silence(waiting.ctx);
        close_context(waiting.ctx);
    } else {
        usleep(500000);
        CHECK(!__atomic_load_n(&waiting.over, __ATOMIC_ACQUIRE));
    }
}

/* With nothing left to be told by. */
DOMAIN_TEST(generators_may_be_disabled_and_contexts_freed_while_xenstored_is_away)
{
    libxl_ctx *first = open_context(), *second = open_context(), *third;
    libxl_evgen_domain_death *evgen = enable(first, 0, 1);
    int fds = count_fds();

    enable(second, 0, 2);
    kill_xenstored_in_silence(second);
    poll_once(second, 0);
    libxl_evdisable_domain_death(first, evgen);
    close_context(first);
    close_context(second);
    CHECK(count_fds() < fds);
    host_start_xenstored();
    third = open_context();
    enable(third, NOBODY, 3);
    expect_death(third, NOBODY, 3);
    close_context(third);
}

/* What was asked for without xenstored either fails, and leaves nothing, or counts when it is back. */
TEST_WITH(an_enable_while_xenstored_is_away_fails_or_counts, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create(), other = host_create();
    libxl_evgen_domain_death *evgen = UNTOUCHED;
    int rc;

    enable(ctx, other, 1);
    expect_silence(ctx);
    host_kill_xenstored();
    while (!poll_once(ctx, -1))
        ;
    rc = libxl_evenable_domain_death(ctx, domid, 2, &evgen);
    if (rc != 0) {
        CHECK_EQUAL(rc, ERROR_FAIL);
        CHECK(evgen == UNTOUCHED);
    }
    host_start_xenstored();
    host_destroy(other);
    expect_death(ctx, other, 1);
    if (rc != 0)
        enable(ctx, domid, 2);
    host_destroy(domid);
    expect_death(ctx, domid, 2);
    expect_silence(ctx);
    close_context(ctx);
}

static long now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* It is looked for now and then. A machine that is slow makes for fewer rounds, never for more. */
DOMAIN_TEST(a_loop_without_xenstored_does_not_spin)
{
    libxl_ctx *ctx = open_context();
    int rounds = 0;
    long end;

    enable(ctx, 0, 1);
    kill_xenstored_in_silence(ctx);
    for (end = now_ms() + 1500; now_ms() < end; rounds++)
        poll_once(ctx, 100);
    CHECK_AT_MOST(rounds, 200);
    close_context(ctx);
}

/* ---- domains that xenstored doesn't know ---- */

/* After a crash it knows none, and nobody introduces running domains again: no watch fires for them. */
DOMAIN_TEST(the_ends_of_domains_that_a_new_xenstored_does_not_know_are_reported)
{
    enum { FIRST = 100, DOMAINS = 40 };
    libxl_ctx *ctx = open_context();
    uint32_t i;

    host_create_many(FIRST, DOMAINS);
    for (i = 0; i < DOMAINS; i++)
        enable(ctx, FIRST + i, i);
    expect_silence(ctx);
    log_quietly = true;
    kill_xenstored_in_silence(ctx);
    host_start_empty_xenstored();
    if (!OURS("xenstored-restart")) {
        host_destroy_many(FIRST, DOMAINS);
        expect_deafness(ctx);
        close_context(ctx);
        return;
    }
    expect_silence(ctx);
    for (i = 0; i < DOMAINS; i += 10) {
        host_shutdown(FIRST + i, CRASH);
        expect_shutdown(ctx, FIRST + i, i, CRASH);
    }
    host_destroy_many(FIRST, DOMAINS);
    for (i = 0; i < DOMAINS; i++)
        expect_death(ctx, FIRST + i, i);
    expect_silence(ctx);
    /* What comes later it knows. */
    i = host_create();
    enable(ctx, i, 7);
    host_destroy(i);
    expect_death(ctx, i, 7);
    close_context(ctx);
}

/* As `xl create` leaves it when it fails half-way. */
DOMAIN_TEST(the_end_of_a_domain_that_was_never_introduced_is_reported)
{
    libxl_ctx *ctx = open_context();
    uint32_t unknown = host_create_unknown(), known = host_create();

    enable(ctx, known, 1);
    enable(ctx, unknown, 2);
    if (OURS("never-introduced")) {
        expect_silence(ctx);
        host_destroy(unknown);
        expect_death(ctx, unknown, 2);
    } else {
        stir();
        expect_silence(ctx);
        host_destroy(unknown);
        expect_silence(ctx);
        /* Until some other domain ends. */
        host_destroy(known);
        expect_death(ctx, unknown, 2);
        expect_death(ctx, known, 1);
    }
    close_context(ctx);
}

/* xenstored has forgotten it, and is never told of it again. When: before anybody has seen the shutdown, after it, or after a
 * restart of xenstored. */
TEST_WITH(the_end_of_a_domain_whose_soft_reset_goes_no_further_is_reported, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    enum { SOFT_RESET = 5, BEFORE = 0, AFTER, RESTARTED, WAYS };
    libxl_ctx *ctx = open_context();
    int way;

    log_quietly = true;
    for (way = BEFORE; way < WAYS; way++) {
        uint32_t domid = host_create();

        enable(ctx, domid, (libxl_ev_user)way);
        expect_silence(ctx);
        host_shutdown(domid, SOFT_RESET);
        if (way != BEFORE)
            expect_shutdown(ctx, domid, (libxl_ev_user)way, SOFT_RESET);
        if (way == RESTARTED) {
            kill_xenstored_in_silence(ctx);
            host_start_xenstored();
            expect_silence(ctx);
        }
        release_domain(domid);
        host_settle();
        if (way == BEFORE)
            expect_shutdown(ctx, domid, (libxl_ev_user)way, SOFT_RESET);
        expect_silence(ctx);
        host_destroy(domid);
        expect_death(ctx, domid, (libxl_ev_user)way);
    }
    close_context(ctx);
}

TEST_WITH(without_domains_that_xenstored_does_not_know_nobody_looks_at_any_by_timer, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    libxl_ctx *ctx = open_context();
    uint64_t asked;
    uint32_t i;

    for (i = 0; i < 20; i++)
        enable(ctx, host_create(), i);
    expect_silence(ctx);
    asked = host_lists_asked();
    /* The questions have been answered by then, and no timer runs. */
    for (i = 0; i < 5; i++)
        expect_silence(ctx);
    CHECK_EQUAL(host_lists_asked(), asked);
    close_context(ctx);
}

/* ---- a xenstored that hangs ---- */

static uint64_t reconnections(libxl_ctx *ctx)
{
    struct xlevent_stats stats;

    CHECK_EQUAL(xlevent_stats(ctx, &stats, sizeof stats), 0);
    return stats.reconnections;
}

static void *continue_xenstored(void *over)
{
    WAIT_UNTIL(__atomic_load_n((bool *)over, __ATOMIC_ACQUIRE));
    host_continue_xenstored();
    return NULL;
}

/* It would hang for ever if a turn waited: who lets xenstored go on waits for the turns. */
TEST_WITH(no_turn_waits_for_a_xenstored_that_came_back_and_hangs, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    bool over = false;
    pthread_t thread;
    int turns;

    enable(ctx, domid, 1);
    expect_silence(ctx);
    log_quietly = true;
    host_kill_xenstored();
    host_start_xenstored();
    host_stop_xenstored();
    CHECK_EQUAL(pthread_create(&thread, NULL, continue_xenstored, &over), 0);
    /* It has been found, and hasn't answered, after some of them. */
    for (turns = 0; turns < 100; turns++)
        poll_once(ctx, 20);
    CHECK_EQUAL(reconnections(ctx), 0);
    __atomic_store_n(&over, true, __ATOMIC_RELEASE);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    host_destroy(domid);
    expect_death(ctx, domid, 1);
    CHECK_EQUAL(reconnections(ctx), 1);
    close_context(ctx);
}

/* ---- what is no xenstored ---- */

/* A socket in its place. */
static int sit_in_its_place(void)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    const char *path = getenv("XENSTORED_PATH");
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(path && strlen(path) < sizeof address.sun_path && fd >= 0);
    strcpy(address.sun_path, path);
    unlink(path);
    CHECK_EQUAL(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    CHECK_EQUAL(listen(fd, 5), 0);
    return fd;
}

static void leave_its_place(int fd)
{
    unlink(getenv("XENSTORED_PATH"));
    shutdown(fd, SHUT_RDWR);
    close(fd);
}

struct header {
    uint32_t type, request, transaction, length;
};

/* Serves as many requests of a connection as make sense; of questions for domains, the first. */
static void serve_once(int fd)
{
    enum { WATCH = 4, UNWATCH = 5, FAILED = 16, IS_KNOWN = 17 };
    char payload[4096];
    struct header header;

    while (recv(fd, &header, sizeof header, MSG_WAITALL) == sizeof header && header.length <= sizeof payload
           && recv(fd, payload, header.length, MSG_WAITALL) == header.length) {
        const char *answer = header.type == IS_KNOWN ? "T" : header.type == WATCH || header.type == UNWATCH ? "OK" : "ENOSYS";

        if (header.type == IS_KNOWN && header.request > 0)
            return;
        if (*answer == 'E')
            header.type = FAILED;
        header.length = (uint32_t)strlen(answer) + 1;
        if (send(fd, &header, sizeof header, MSG_NOSIGNAL) < 0 || send(fd, answer, header.length, MSG_NOSIGNAL) < 0)
            return;
    }
}

struct stranger {
    int fd;
    bool answers;
    int accepted;
};

struct client {
    int fd;
    bool answers;
};

static void *serve_client(void *of)
{
    struct client client = *(struct client *)of;

    free(of);
    if (client.answers)
        serve_once(client.fd);
    else
        recv(client.fd, &(struct header){ 0 }, sizeof(struct header), MSG_WAITALL);
    close(client.fd);
    return NULL;
}

static void *accept_all(void *of)
{
    struct stranger *stranger = of;
    int fd;

    while ((fd = accept(stranger->fd, NULL, NULL)) >= 0) {
        struct client *client = malloc(sizeof *client);
        pthread_t thread;

        CHECK(client != NULL);
        *client = (struct client){ fd, stranger->answers };
        __atomic_add_fetch(&stranger->accepted, 1, __ATOMIC_SEQ_CST);
        CHECK_EQUAL(pthread_create(&thread, NULL, serve_client, client), 0);
        pthread_detach(thread);
    }
    return NULL;
}

/* It is tried as seldom as one that isn't there. A machine that is slow makes for fewer tries, never for more. */
static void live_with(bool answers)
{
    libxl_ctx *ctx = open_context();
    struct stranger stranger = { .answers = answers };
    uint32_t domid = host_create();
    pthread_t thread;
    long end;

    enable(ctx, domid, 1);
    expect_silence(ctx);
    log_quietly = true;
    host_kill_xenstored();
    stranger.fd = sit_in_its_place();
    CHECK_EQUAL(pthread_create(&thread, NULL, accept_all, &stranger), 0);
    for (end = now_ms() + 3000; now_ms() < end;)
        poll_once(ctx, 100);
    /* Three connections for each try at most. */
    CHECK_AT_MOST(__atomic_load_n(&stranger.accepted, __ATOMIC_SEQ_CST), 45);
    leave_its_place(stranger.fd);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    host_start_xenstored();
    host_destroy(domid);
    expect_death(ctx, domid, 1);
    close_context(ctx);
}

TEST_WITH(who_accepts_in_place_of_xenstored_and_goes_away_is_tried_seldom, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    live_with(false);
}

TEST_WITH(a_xenstored_that_goes_away_as_soon_as_it_is_back_is_tried_seldom, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    live_with(true);
}

/* A close too many, which hits the connection that waits for the first answer. */
TEST_WITH(xenstored_is_found_though_the_application_has_closed_what_waits_for_it, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    enum { MOST = 1024 };
    static bool open_before[MOST];
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    int listener, fd, found = -1, turns, own[2];

    enable(ctx, domid, 1);
    expect_silence(ctx);
    log_quietly = true;
    host_kill_xenstored();
    for (turns = 0; turns < 10; turns++)
        poll_once(ctx, 20);
    listener = sit_in_its_place();
    for (fd = 0; fd < MOST; fd++)
        open_before[fd] = fcntl(fd, F_GETFD) >= 0;
    while (found < 0) {
        poll_once(ctx, 20);
        for (fd = 0; fd < MOST && found < 0; fd++)
            if (!open_before[fd] && fcntl(fd, F_GETFD) >= 0)
                found = fd;
    }
    close(found);
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, own), 0);
    CHECK_EQUAL(own[0], found);
    leave_its_place(listener);
    host_start_xenstored();
    host_destroy(domid);
    expect_death(ctx, domid, 1);
    CHECK_EQUAL(write(own[0], "x", 1), 1);
    CHECK_EQUAL(read(own[1], &(char){ 0 }, 1), 1);
    close_context(ctx);
    CHECK_EQUAL(close(own[0]), 0);
    CHECK_EQUAL(close(own[1]), 0);
}
