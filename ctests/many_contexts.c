/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Many contexts in one process, as toolstacks have them that open one for each domain: each is told what concerns it, once,
 * in its own calls; and what a look costs that all of them have to take.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <unistd.h>

#include "harness/check.h"
#include "harness/drive.h"
#include "harness/host.h"
#include "harness/quiet.h"
#include "harness/store.h"
#include "harness/xl.h"

enum { FIRST = 1000, MOST = 100, WITNESSES = 31000, WITNESS = 0x5117e };

static libxl_ctx *contexts[MOST];

/* A context has up to a dozen descriptors. */
static void allow_descriptors(void)
{
    struct rlimit limit;

    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

static void open_contexts(uint32_t count)
{
    uint32_t i;

    allow_descriptors();
    for (i = 0; i < count; i++)
        contexts[i] = open_context();
}

static void close_contexts(uint32_t count)
{
    uint32_t i;

    for (i = 0; i < count; i++)
        close_context(contexts[i]);
}

/* Something has come in for the context. It isn't taken in. */
static void await_told(libxl_ctx *ctx)
{
    struct polled polled;

    before_poll(ctx, &polled, -1);
    CHECK_AT_LEAST(poll_now(&polled), 1);
}

static void await_all_told(uint32_t count)
{
    uint32_t i;

    for (i = 0; i < count; i++)
        await_told(contexts[i]);
}

/* Some domain ends that nobody watches, and every context has been told. */
static void tell_all(uint32_t count)
{
    stir();
    receive_all();
    await_all_told(count);
}

/* Rounds of one loop for all contexts, until nothing is ready; `take` is given the events. */
static void take_turns(uint32_t count, void (*take)(uint32_t i, const libxl_event *event))
{
    libxl_event *event;
    bool any;
    uint32_t i;

    do {
        any = false;
        for (i = 0; i < count; i++) {
            any |= poll_once(contexts[i], 0);
            while (libxl_event_check(contexts[i], &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == 0) {
                take(i, event);
                libxl_event_free(contexts[i], event);
            }
        }
    } while (any);
}

/*
 * New generators have had their first look, and new watches have fired. Two domains that all contexts watch end: the
 * first may be found by a generator's first look, the second is found by a look at all domains.
 */
static void all_come_to_rest(uint32_t count)
{
    uint32_t i, round;

    host_create_many(WITNESSES, 2);
    for (i = 0; i < count; i++)
        for (round = 0; round < 2; round++)
            enable(contexts[i], WITNESSES + round, WITNESS);
    for (round = 0; round < 2; round++) {
        host_destroy(WITNESSES + round);
        for (i = 0; i < count; i++)
            expect_death(contexts[i], WITNESSES + round, WITNESS);
    }
    receive_all();
}

static void expect_none(uint32_t i, const libxl_event *event)
{
    FAIL("context %u: an event of type %d, of domain %u", (unsigned)i, (int)event->type, (unsigned)event->domid);
}

/* ---- what it costs ---- */

/* So many domains each that there is one watch for all of them, also where single domains can be watched. */
DOMAIN_TEST(a_release_that_concerns_nobody_is_one_look_for_all_contexts)
{
    enum { EACH = 20 };
    uint64_t asked;
    uint32_t i, j;

    open_contexts(MOST);
    host_create_many(FIRST, MOST * EACH);
    for (i = 0; i < MOST; i++)
        for (j = 0; j < EACH; j++)
            enable(contexts[i], FIRST + i + j * MOST, j);
    all_come_to_rest(MOST);
    take_turns(MOST, expect_none);
    asked = host_lists_asked();
    tell_all(MOST);
    CHECK_EQUAL(host_lists_asked(), asked);
    take_turns(MOST, expect_none);
    /* One answer doesn't hold all domains. */
    if (OURS("one-look-for-all"))
        CHECK_AT_MOST(host_lists_asked() - asked, 10);
    else
        CHECK_AT_LEAST(host_lists_asked() - asked, MOST);
    CHECK_AT_LEAST(host_lists_asked() - asked, 1);
    close_contexts(MOST);
}

/* ---- what one context takes in for another ---- */

/* What tells of a soft reset's first half is taken in by a neighbour; the second half never comes. */
TEST_WITH(a_domain_that_xenstored_has_forgotten_is_followed_whoever_was_told_of_it, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    enum { SOFT_RESET = 5 };
    uint32_t domid = host_create(), other = host_create();

    open_contexts(2);
    enable(contexts[0], other, 1);
    enable(contexts[1], domid, 2);
    all_come_to_rest(2);
    host_shutdown(domid, SOFT_RESET);
    expect_shutdown(contexts[1], domid, 2, SOFT_RESET);
    tell_all(2);
    take_turns(2, expect_none);
    /* Nothing is ready any more, and no answer is on its way. */
    usleep(100000);
    take_turns(2, expect_none);
    release_domain(domid);
    host_settle();
    if (!host_has_newer_xenstored())
        await_all_told(2);
    poll_once(contexts[0], 0);
    usleep(100000);
    take_turns(2, expect_none);
    host_destroy(domid);
    expect_death(contexts[1], domid, 2);
    close_contexts(2);
}

/* ---- every event once ---- */

enum { DOMAINS = 50, EACH = 10 };

/* Which of the domains a context's generator is for. Every domain is watched by several contexts. */
static uint32_t watched(uint32_t i, uint32_t j)
{
    return (i * 7 + j * 13) % DOMAINS;
}

static int shutdowns[MOST][DOMAINS], deaths[MOST][DOMAINS];
static uint32_t shutdown_count, death_count;

static void count_event(uint32_t i, const libxl_event *event)
{
    uint32_t domain = event->domid - FIRST;

    CHECK(domain < DOMAINS);
    CHECK_EQUAL(event->for_user, i * 1000 + domain);
    if (event->type == LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN) {
        CHECK_EQUAL(event->u.domain_shutdown.shutdown_reason, CRASH);
        shutdowns[i][domain]++, shutdown_count++;
    } else {
        CHECK_EQUAL(event->type, LIBXL_EVENT_TYPE_DOMAIN_DEATH);
        deaths[i][domain]++, death_count++;
    }
}

DOMAIN_TEST(every_context_gets_the_events_of_its_domains_once)
{
    uint32_t i, j, domain;

    open_contexts(MOST);
    host_create_many(FIRST, DOMAINS);
    for (i = 0; i < MOST; i++)
        for (j = 0; j < EACH; j++)
            enable(contexts[i], FIRST + watched(i, j), i * 1000 + watched(i, j));
    all_come_to_rest(MOST);
    /* Some at once, some one by one, and with turns in between. */
    host_shutdown_many(FIRST, DOMAINS / 2, CRASH);
    for (domain = DOMAINS / 2; domain < DOMAINS; domain++) {
        host_shutdown(FIRST + domain, CRASH);
        if (domain % 5 == 0)
            take_turns(MOST, count_event);
    }
    while (shutdown_count < MOST * EACH)
        take_turns(MOST, count_event);
    CHECK_EQUAL(death_count, 0);
    for (domain = 0; domain < DOMAINS / 2; domain++) {
        host_destroy(FIRST + domain);
        if (domain % 5 == 0)
            take_turns(MOST, count_event);
    }
    host_destroy_many(FIRST + DOMAINS / 2, DOMAINS / 2);
    while (death_count < MOST * EACH)
        take_turns(MOST, count_event);
    /* There is no more to come. */
    all_come_to_rest(MOST);
    take_turns(MOST, expect_none);
    CHECK_EQUAL(shutdown_count, MOST * EACH);
    for (i = 0; i < MOST; i++) {
        for (j = 0; j < EACH; j++) {
            CHECK_EQUAL(shutdowns[i][watched(i, j)], 1);
            CHECK_EQUAL(deaths[i][watched(i, j)], 1);
        }
    }
    close_contexts(MOST);
}

/* ---- whose calls ---- */

/* An application's context with callbacks, and a logger, of its own. */
struct own {
    xentoollog_logger logger;
    libxl_ctx *ctx;
    libxl_event_hooks hooks;
    uint32_t events, disasters, lines;
};

/* Whose call this thread is in. */
static __thread struct own *inside;

static void own_event(void *user, libxl_event *event)
{
    struct own *own = user;

    CHECK(inside == own);
    own->events++;
    libxl_event_free(own->ctx, event);
}

static void own_disaster(void *user, libxl_event_type type, const char *message, int errnoval)
{
    struct own *own = user;

    (void)type, (void)message;
    CHECK(inside == own);
    CHECK_EQUAL(errnoval, EPERM);
    own->disasters++;
}

static void own_line(xentoollog_logger *to, xentoollog_level level, int errnoval, const char *context,
                     const char *format, va_list arguments)
{
    struct own *own = (struct own *)to;

    (void)errnoval, (void)context, (void)format, (void)arguments;
    /* While it is opened, there is nobody yet to be called. */
    CHECK(!own->ctx || inside == own);
    own->lines += level >= XTL_ERROR;
}

enum { OWNERS = 12 };

static struct own owners[OWNERS];

/* Each watches the same domains. */
static void open_owners(uint32_t domains)
{
    libxl_evgen_domain_death *evgen;
    uint32_t i, j;

    allow_descriptors();
    for (i = 0; i < OWNERS; i++) {
        struct own *own = &owners[i];

        *own = (struct own){ .logger = { own_line, NULL, NULL },
                             .hooks = { .event_occurs_mask = LIBXL_EVENTMASK_ALL, .event_occurs = own_event,
                                        .disaster = own_disaster } };
        CHECK_EQUAL(libxl_ctx_alloc(&own->ctx, LIBXL_VERSION, 0, &own->logger), 0);
        inside = own;
        libxl_event_register_callbacks(own->ctx, &own->hooks, own);
        for (j = 0; j < domains; j++)
            CHECK_EQUAL(libxl_evenable_domain_death(own->ctx, FIRST + j, 0, &evgen), 0);
        inside = NULL;
    }
}

/* What is ready now is taken in, each in its own calls. Whether there was anything. */
static bool own_turns(void)
{
    bool any = false;
    uint32_t i;

    for (i = 0; i < OWNERS; i++) {
        inside = &owners[i];
        any |= poll_once(owners[i].ctx, 0);
        inside = NULL;
    }
    return any;
}

/* Turns until every context's counter has come to `wanted`; then, what else is ready. */
#define OWN_TURNS_UNTIL(counter, wanted)                                                                               \
    do {                                                                                                               \
        uint32_t owner_ = 0;                                                                                           \
        while (owner_ < OWNERS) {                                                                                      \
            own_turns();                                                                                               \
            while (owner_ < OWNERS && owners[owner_].counter >= (uint32_t)(wanted))                                    \
                owner_++;                                                                                              \
        }                                                                                                              \
        while (own_turns())                                                                                            \
            ;                                                                                                          \
    } while (0)

static void close_owners(void)
{
    uint32_t i;

    for (i = 0; i < OWNERS; i++) {
        inside = &owners[i];
        close_context(owners[i].ctx);
        inside = NULL;
    }
}

DOMAIN_TEST(callbacks_run_in_calls_of_their_own_context)
{
    enum { WATCHED = 6 };
    uint32_t i;

    host_create_many(FIRST, WATCHED);
    open_owners(WATCHED);
    for (i = 0; i < WATCHED; i++) {
        host_shutdown(FIRST + i, POWEROFF);
        OWN_TURNS_UNTIL(events, 2 * i + 1);
        host_destroy(FIRST + i);
        OWN_TURNS_UNTIL(events, 2 * i + 2);
    }
    for (i = 0; i < OWNERS; i++) {
        CHECK_EQUAL(owners[i].events, 2 * WATCHED);
        CHECK_EQUAL(owners[i].disasters, 0);
    }
    close_owners();
}

TEST_WITH(a_look_that_fails_is_told_to_every_context_in_its_own_calls, COMMANDS_DOMAINS | WITH_ONE_WATCH)
{
    enum { WATCHED = 6 };
    uint32_t i;

    host_create_many(FIRST, WATCHED + 1);
    open_owners(WATCHED);
    host_destroy(FIRST);
    OWN_TURNS_UNTIL(events, 1);
    host_fail_lists(EPERM, -1);
    host_destroy(FIRST + 1);
    OWN_TURNS_UNTIL(disasters, 1);
    for (i = 0; i < OWNERS; i++) {
        CHECK_EQUAL(owners[i].events, 1);
        CHECK_AT_LEAST(owners[i].lines, 1);
    }
    /* Nothing is lost by it. */
    host_fail_lists(0, 0);
    host_destroy(FIRST + WATCHED);
    OWN_TURNS_UNTIL(events, 2);
    for (i = 0; i < OWNERS; i++)
        CHECK_EQUAL(owners[i].events, 2);
    close_owners();
}

/* A failure that passes: each context tries again. */
TEST_WITH(a_look_that_fails_once_is_repeated_for_every_context, COMMANDS_DOMAINS | WITH_ONE_WATCH | NOT_FOR_LIBXENLIGHT)
{
    enum { WATCHED = 6 };
    uint32_t i;

    host_create_many(FIRST, WATCHED);
    open_owners(WATCHED);
    host_destroy(FIRST);
    OWN_TURNS_UNTIL(events, 1);
    receive_all();
    while (own_turns())
        ;
    host_destroy(FIRST + 1);
    receive_all();
    for (i = 0; i < OWNERS; i++)
        await_told(owners[i].ctx);
    host_fail_lists(EBUSY, 1);
    OWN_TURNS_UNTIL(events, 2);
    for (i = 0; i < OWNERS; i++) {
        CHECK_EQUAL(owners[i].events, 2);
        CHECK_EQUAL(owners[i].disasters, 0);
        CHECK_EQUAL(owners[i].lines, 1);
    }
    close_owners();
}

/* What has been fired besides, for a drive, isn't lost when another context has its turn first. */
TEST_WITH(an_ejection_is_not_lost_in_the_turn_of_another_context, COMMANDS_DOMAINS | WITH_ONE_WATCH)
{
    enum { ROUNDS = 10 };
    struct drive drive = cd_drive();
    uint32_t domid = host_create();
    int round;

    open_contexts(3);
    enable(contexts[0], domid, 1);
    enable(contexts[1], domid, 1);
    enable_eject(contexts[1], drive.domid, "hdc", 2);
    enable_eject(contexts[2], drive.domid, "hdc", 3);
    all_come_to_rest(3);
    take_turns(3, expect_none);
    for (round = 0; round < ROUNDS; round++) {
        eject(drive);
        tell_all(3);
        while (poll_once(contexts[0], 0))
            ;
        expect_nothing_queued(contexts[0]);
        /* By poll, and by waiting, which sleeps in another way. Whoever is the first acknowledges it for both. */
        if (round % 2) {
            libxl_event *event = poll_until_event(contexts[1], NULL, NULL);

            check_eject(event, drive.domid, 2, "hdc", "hdc");
            libxl_event_free(contexts[1], event);
        } else {
            expect_eject(contexts[1], drive.domid, 2);
        }
        take_turns(3, expect_none);
    }
    host_destroy(domid);
    expect_death(contexts[0], domid, 1);
    expect_death(contexts[1], domid, 1);
    close_contexts(3);
}

/* ---- threads, forks ---- */

enum { WAITERS = 8, ROUNDS = 20 };

/* A thread that watches one domain after the other, on a context of its own. */
static struct waiter {
    pthread_t thread;
    libxl_ctx *ctx;
    uint32_t number;
    /* The domain that it watches, when it does; and the one that it knows to have shut down. */
    _Atomic uint32_t watches, shut_down;
} waiters[WAITERS];

static void *wait_for_one_after_the_other(void *arg)
{
    struct waiter *waiter = arg;
    libxl_evgen_domain_death *evgen;
    uint32_t round, domid;

    for (round = 0; round < ROUNDS; round++) {
        domid = FIRST + round * WAITERS + waiter->number;
        evgen = enable(waiter->ctx, domid, round);
        waiter->watches = domid;
        expect_shutdown(waiter->ctx, domid, round, REBOOT);
        waiter->shut_down = domid;
        expect_death(waiter->ctx, domid, round);
        libxl_evdisable_domain_death(waiter->ctx, evgen);
    }
    return NULL;
}

static void start_waiters(void)
{
    uint32_t i;

    allow_descriptors();
    host_create_many(FIRST, WAITERS * ROUNDS);
    for (i = 0; i < WAITERS; i++) {
        waiters[i].ctx = open_context();
        waiters[i].number = i;
        /* So that its context goes on watching between two domains. */
        enable(waiters[i].ctx, 0, 0);
    }
    for (i = 0; i < WAITERS; i++)
        waiters[i].thread = start_thread(wait_for_one_after_the_other, &waiters[i]);
}

/* Domains end as soon as they are watched, until all have; `each_round` is called once for each of a thread's. */
static void end_what_is_watched(void (*each_round)(uint32_t round))
{
    uint32_t i, round, domid;

    for (round = 0; round < ROUNDS; round++) {
        for (i = 0; i < WAITERS; i++) {
            domid = FIRST + round * WAITERS + i;
            WAIT_UNTIL(waiters[i].watches == domid);
            host_shutdown(domid, REBOOT);
        }
        each_round(round);
        for (i = 0; i < WAITERS; i++) {
            domid = FIRST + round * WAITERS + i;
            WAIT_UNTIL(waiters[i].shut_down == domid);
            host_destroy(domid);
        }
    }
}

static void join_waiters(void)
{
    uint32_t i;

    for (i = 0; i < WAITERS; i++)
        finish_thread(waiters[i].thread);
    for (i = 0; i < WAITERS; i++)
        expect_silence(waiters[i].ctx);
    for (i = 0; i < WAITERS; i++)
        close_context(waiters[i].ctx);
}

static atomic_bool stop;
static atomic_uint opened;

static void *open_and_close(void *unused)
{
    (void)unused;
    while (!stop) {
        use_a_new_context();
        opened++;
    }
    return NULL;
}

/* In each round, some have come and gone. */
static void until_some_have_come_and_gone(uint32_t round)
{
    unsigned before = opened;

    (void)round;
    WAIT_UNTIL(opened != before);
}

DOMAIN_TEST(threads_with_contexts_of_their_own_miss_nothing_while_others_come_and_go)
{
    int fds = count_fds(), threads = count_threads();
    pthread_t others[2];
    size_t i;

    start_waiters();
    for (i = 0; i < COUNT(others); i++)
        others[i] = start_thread(open_and_close, NULL);
    end_what_is_watched(until_some_have_come_and_gone);
    stop = true;
    for (i = 0; i < COUNT(others); i++)
        finish_thread(others[i]);
    join_waiters();
    CHECK_EQUAL(count_fds(), fds);
    /* The kernel may show one that was joined for a little longer. */
    WAIT_UNTIL(count_threads() == threads);
}

static void fork_in_between(uint32_t round)
{
    (void)round;
    CHECK_EQUAL(in_child(forget_and_begin_anew, waiters[0].ctx), 0);
}

/* libxenlight's own hypercalls aren't ours to guard: see fork.c. Here it makes none while there are forks. */
TEST_WITH(a_fork_while_contexts_look_for_one_another_leaves_both_processes_working,
          COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT | NOT_UNDER_VALGRIND)
{
    start_waiters();
    end_what_is_watched(fork_in_between);
    join_waiters();
}

static void watch_many_anew(void *ctx)
{
    libxl_postfork_child_noexec(ctx);
    open_contexts(3);
    all_come_to_rest(3);
    close_contexts(3);
}

/* The contexts of a parent are no neighbours of its children's. */
DOMAIN_TEST(what_a_parent_was_told_before_a_fork_is_left_to_it)
{
    enum { OURS_ALL = 20 };
    uint32_t domid = host_create(), i;

    open_contexts(OURS_ALL);
    for (i = 0; i < OURS_ALL; i++)
        enable(contexts[i], domid, i);
    all_come_to_rest(OURS_ALL);
    host_destroy(domid);
    host_settle();
    await_all_told(OURS_ALL);
    CHECK_EQUAL(in_child(watch_many_anew, contexts[0]), 0);
    await_all_told(OURS_ALL);
    for (i = 0; i < OURS_ALL; i++)
        expect_death(contexts[i], domid, i);
    close_contexts(OURS_ALL);
}
