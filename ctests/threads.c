/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads: several that use one context at the same time, and one context each.
 *
 * With libxenlight a thread may go on sleeping although there is an event for it; whatever happens next on the host wakes
 * it. So that the rest can be compared all the same, wait_for_count and finish_stirring let something happen there again
 * and again.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness/check.h"
#include "harness/host.h"
#include "harness/quiet.h"
#include "harness/xl.h"

/* Until the threads have counted this far. */
static void wait_for_count(atomic_size_t *count, size_t wanted)
{
    while (*count < wanted) {
        if (column == REAL)
            stir();
        pause_a_little();
    }
    CHECK_EQUAL(*count, wanted);
}

/* Until the thread has ended, likewise. */
static void finish_stirring(pthread_t thread)
{
    while (column == REAL) {
        if (pthread_tryjoin_np(thread, NULL) == 0)
            return;
        stir();
        pause_a_little();
    }
    finish_thread(thread);
}

static atomic_bool stop;

/* ---- threads that sleep ---- */

/* A thread in event_wait, for one event. */
struct waiter {
    libxl_ctx *ctx;
    pthread_t thread;
    atomic_int id; /* the kernel's number of the thread, once it runs */
    atomic_bool done;
    libxl_ev_user got;
    atomic_size_t *count;
};

static void *wait_for_one(void *arg)
{
    struct waiter *waiter = arg;
    libxl_event *event;

    waiter->id = gettid();
    event = wait_event(waiter->ctx);
    waiter->got = event->for_user;
    libxl_event_free(waiter->ctx, event);
    waiter->done = true;
    ++*waiter->count;
    return NULL;
}

/* What the kernel says of the thread: its state, and how often it has run. False if it has ended. */
static bool look_at(const struct waiter *waiter, char *state, long *switches)
{
    char path[64], line[200];
    FILE *file;

    if (!waiter->id)
        return false;
    snprintf(path, sizeof path, "/proc/self/task/%d/status", waiter->id);
    file = fopen(path, "r");
    if (!file)
        return false;
    *switches = 0;
    while (fgets(line, sizeof line, file)) {
        sscanf(line, "State: %c", state);
        if (strstr(line, "ctxt_switches:"))
            *switches += strtol(strchr(line, ':') + 1, NULL, 10);
    }
    fclose(file);
    return true;
}

/*
 * Sleeps in a call that waits for descriptors; not, say, where it is still on its way there and a lock or a page keeps it.
 * With xlevent, it may also be waiting for the thread that does.
 */
static bool is_asleep(const struct waiter *waiter)
{
    char state;
    long switches;

    if (!look_at(waiter, &state, &switches) || state != 'S')
        return false;
    return waits_for_descriptors(waiter->id) || (column != REAL && sleeps_in(waiter->id) == SYS_futex);
}

/* Sleeps, and nothing has woken it for a while: for what libxenlight does wrong. */
static bool is_stuck(const struct waiter *waiter)
{
    char state;
    long before, after;

    if (!look_at(waiter, &state, &before) || state != 'S')
        return false;
    usleep(300 * 1000);
    return look_at(waiter, &state, &after) && state == 'S' && after == before;
}

static void start_waiters(struct waiter *waiters, size_t how_many, libxl_ctx *ctx, atomic_size_t *count)
{
    size_t i;

    *count = 0;
    for (i = 0; i < how_many; i++) {
        waiters[i] = (struct waiter){ .ctx = ctx, .count = count };
        waiters[i].thread = start_thread(wait_for_one, &waiters[i]);
    }
    for (i = 0; i < how_many; i++)
        WAIT_UNTIL(is_asleep(&waiters[i]));
}

/* A predicate that counts what it is shown and wants nothing. */
static int count_queued(const libxl_event *event, void *count)
{
    (void)event;
    ++*(int *)count;
    return 0;
}

static int queued(libxl_ctx *ctx)
{
    libxl_event *event;
    int count = 0;

    CHECK_EQUAL(libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, count_queued, &count), ERROR_NOT_READY);
    return count;
}

/* ---- several that wait ---- */

DOMAIN_TEST(two_threads_that_wait_get_one_each_of_two_events_of_one_look)
{
    static atomic_size_t count;
    static struct waiter waiters[2];
    libxl_ctx *ctx = open_context();
    uint32_t first = 100;
    bool seen_stuck = false;

    /* Whether libxenlight lets one sleep depends on which thread the kernel runs first: often, but not always. */
    do {
        host_create_many(first, 2);
        enable(ctx, first, 1);
        enable(ctx, first + 1, 2);
        start_waiters(waiters, 2, ctx, &count);
        host_destroy_many(first, 2);
        if (!OURS("two-waiters")) {
            WAIT_UNTIL(count > 0);
            seen_stuck |= count == 1 && is_stuck(&waiters[!waiters[1].done]) && queued(ctx) == 1;
        }
        wait_for_count(&count, 2);
        finish_thread(waiters[0].thread);
        finish_thread(waiters[1].thread);
        CHECK_EQUAL(waiters[0].got + waiters[1].got, 3);
        first += 2;
    } while (!seen_stuck && !OURS("two-waiters"));
    expect_silence(ctx);
    close_context(ctx);
}

DOMAIN_TEST(each_event_goes_to_exactly_one_of_many_threads_that_wait)
{
    enum { THREADS = 16, FIRST = 100 };
    static atomic_size_t count;
    static struct waiter waiters[THREADS];
    libxl_ctx *ctx = open_context();
    bool seen[THREADS] = { false };
    uint32_t i;

    host_create_many(FIRST, THREADS);
    for (i = 0; i < THREADS; i++)
        enable(ctx, FIRST + i, i);
    start_waiters(waiters, THREADS, ctx, &count);
    for (i = 0; i < THREADS; i++) {
        if (i % 4 == 3)
            host_settle();
        host_destroy(FIRST + i);
    }
    wait_for_count(&count, THREADS);
    for (i = 0; i < THREADS; i++) {
        finish_thread(waiters[i].thread);
        CHECK(waiters[i].got < THREADS);
        CHECK(!seen[waiters[i].got]);
        seen[waiters[i].got] = true;
    }
    expect_silence(ctx);
    close_context(ctx);
}

/* The one that waits has nothing to wait for but the other's generator. */
static void serve_one_that_waits_already(void *(*body)(void *))
{
    static atomic_size_t count;
    static struct waiter waiter;
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();

    waiter.ctx = ctx, waiter.count = &count;
    waiter.thread = start_thread(body, &waiter);
    WAIT_UNTIL(is_asleep(&waiter));
    enable(ctx, domid, 1);
    host_destroy(domid);
    if (OURS("enable-wakes")) {
        finish_thread(waiter.thread);
        CHECK_EQUAL(waiter.got, 1);
        expect_silence(ctx);
        close_context(ctx);
    } else {
        receive_all();
        /* Not woken, also if it had to be looked at for longer until it had come to rest. */
        WAIT_UNTIL(waiter.done || is_stuck(&waiter));
        CHECK(!waiter.done);
        /* And there is something to do. As soon as anyone looks, the sleeper may be woken, and do it first. */
        WAIT_UNTIL(poll_once(ctx, 0) || waiter.done);
    }
}

DOMAIN_TEST(an_enable_in_one_thread_serves_another_that_waits_already)
{
    serve_one_that_waits_already(wait_for_one);
}

static void *enable_nobody(void *ctx)
{
    enable(ctx, NOBODY + 1, 2);
    return NULL;
}

/* The same where domains can't be commanded. */
TEST(what_another_thread_enables_wakes_the_one_that_waits)
{
    libxl_ctx *ctx = open_context();
    libxl_ev_user user = 2;
    libxl_event *event;
    pthread_t thread;

    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    thread = start_thread(enable_nobody, ctx);
    if (!OURS("enable-looks")) {
        finish_thread(thread);
        stir();
    }
    CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, is_for_user, &user), 0);
    check_death(event, NOBODY + 1, 2);
    libxl_event_free(ctx, event);
    if (OURS("enable-looks"))
        finish_thread(thread);
    close_context(ctx);
}

/* In poll, with what beforepoll told before there was anything to wait for. */
static void *poll_for_one(void *arg)
{
    struct waiter *waiter = arg;
    struct polled polled;
    libxl_event *event;

    before_poll(waiter->ctx, &polled, -1);
    waiter->id = gettid();
    CHECK_AT_LEAST(poll_now(&polled), 1);
    after_poll(waiter->ctx, &polled);
    event = poll_until_event(waiter->ctx, NULL, NULL);
    waiter->got = event->for_user;
    libxl_event_free(waiter->ctx, event);
    waiter->done = true;
    return NULL;
}

DOMAIN_TEST(an_enable_in_one_thread_serves_another_that_polls_already)
{
    serve_one_that_waits_already(poll_for_one);
}

/* Wants nothing, and tells how many events it has been shown. */
static atomic_size_t seen_by_the_picky;

static int want_nothing(const libxl_event *event, void *unused)
{
    (void)event, (void)unused;
    seen_by_the_picky++;
    return 0;
}

static void *wait_for_nothing(void *arg)
{
    struct waiter *waiter = arg;
    libxl_event *event;

    waiter->id = gettid();
    libxl_event_wait(waiter->ctx, &event, LIBXL_EVENTMASK_ALL, want_nothing, NULL);
    FAIL("an event that nobody wanted");
}

/*
 * The loop has asked what to poll, and another thread, to which it is of no use, finds the event before the loop polls. All
 * descriptors but one for this case are quiet then.
 */
DOMAIN_TEST(an_event_that_a_thread_in_event_wait_finds_and_leaves_wakes_the_loop)
{
    static struct waiter waiter;
    libxl_ctx *ctx = open_context();
    uint32_t domid;
    int i;

    enable(ctx, NOBODY, 1);
    expect_death(ctx, NOBODY, 1);
    waiter.ctx = ctx;
    start_thread(wait_for_nothing, &waiter);
    for (i = 0; i < 20; i++) {
        struct polled polled;
        libxl_event *event;
        libxl_ev_user user = (libxl_ev_user)(10 + i);

        WAIT_UNTIL(is_asleep(&waiter));
        domid = host_create();
        enable(ctx, domid, user);
        come_to_rest(ctx);
        before_poll(ctx, &polled, OURS("wakes-the-loop") ? -1 : 20);
        seen_by_the_picky = 0;
        host_destroy(domid);
        WAIT_UNTIL(seen_by_the_picky > 0);
        receive_all();
        WAIT_UNTIL(is_asleep(&waiter));
        CHECK_EQUAL(poll_now(&polled), OURS("wakes-the-loop") ? 1 : 0);
        after_poll(ctx, &polled);
        CHECK_EQUAL(libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, is_for_user, &user), 0);
        check_death(event, domid, user);
        libxl_event_free(ctx, event);
    }
    /* Its context can't be freed: a thread is in it for good. */
}

static void *poll_until_stopped(void *ctx)
{
    struct polled polled;

    while (!stop) {
        before_poll(ctx, &polled, 0);
        poll_now(&polled);
        after_poll(ctx, &polled);
    }
    return NULL;
}

/* Over and over: who comes first differs. */
DOMAIN_TEST(an_event_that_the_loop_finds_and_leaves_wakes_a_thread_in_event_wait)
{
    enum { FIRST = 100, ROUNDS = 300 };
    static atomic_size_t count;
    static struct waiter waiter;
    libxl_ctx *ctx = open_context();
    pthread_t loop;
    uint32_t i;

    host_create_many(FIRST, ROUNDS);
    for (i = 0; i < ROUNDS; i++)
        enable(ctx, FIRST + i, i);
    loop = start_thread(poll_until_stopped, ctx);
    for (i = 0; i < ROUNDS; i++) {
        start_waiters(&waiter, 1, ctx, &count);
        host_destroy(FIRST + i);
        wait_for_count(&count, 1);
        finish_thread(waiter.thread);
        CHECK_EQUAL(waiter.got, i);
    }
    stop = true;
    finish_thread(loop);
    expect_silence(ctx);
    close_context(ctx);
}

/* ---- many events ---- */

/* How often the death of each domid has been fetched; how many in all. */
static atomic_uchar deaths[40000];
static atomic_size_t total_deaths;

static void note_death(const libxl_event *event)
{
    CHECK_EQUAL(event->type, LIBXL_EVENT_TYPE_DOMAIN_DEATH);
    CHECK(event->domid < COUNT(deaths));
    deaths[event->domid]++;
    total_deaths++;
}

static void check_deaths(uint32_t first, uint32_t count)
{
    uint32_t i;

    for (i = 0; i < count; i++)
        if (deaths[first + i] != 1)
            FAIL("domain %u has died %d times", (unsigned)(first + i), deaths[first + i]);
}

enum { STOP = 0x5709 };

static void *fetch_until_stopped(void *ctx)
{
    for (;;) {
        libxl_event *event = wait_event(ctx);
        bool last = event->for_user == STOP;

        if (!last)
            note_death(event);
        libxl_event_free(ctx, event);
        if (last)
            return NULL;
    }
}

DOMAIN_TEST(many_threads_fetch_the_deaths_of_many_domains_each_once)
{
    enum { THREADS = 6, FIRST = 1000, DOMAINS = 600 };
    libxl_ctx *ctx = open_context();
    pthread_t threads[THREADS];
    uint32_t i;

    host_create_many(FIRST, DOMAINS);
    for (i = 0; i < DOMAINS; i++)
        enable(ctx, FIRST + i, i + 0x10000);
    for (i = 0; i < THREADS; i++)
        threads[i] = start_thread(fetch_until_stopped, ctx);
    for (i = 0; i < DOMAINS; i += 20)
        host_destroy_many(FIRST + i, 20);
    wait_for_count(&total_deaths, DOMAINS);
    check_deaths(FIRST, DOMAINS);
    for (i = 0; i < THREADS; i++)
        enable(ctx, NOBODY + i, STOP);
    for (i = 0; i < THREADS; i++)
        finish_stirring(threads[i]);
    expect_silence(ctx);
    close_context(ctx);
}

/* A thread that waits for its own domain's events among all others'. */
struct chooser {
    libxl_ctx *ctx;
    pthread_t thread;
    libxl_ev_user user;
    uint32_t domid;
    atomic_size_t *shutdowns, *deaths;
};

static void *choose(void *arg)
{
    struct chooser *chooser = arg;
    libxl_event *event;

    CHECK_EQUAL(libxl_event_wait(chooser->ctx, &event, LIBXL_EVENTMASK_ALL, is_for_user, &chooser->user), 0);
    check_shutdown(event, chooser->domid, chooser->user, REBOOT);
    libxl_event_free(chooser->ctx, event);
    ++*chooser->shutdowns;
    CHECK_EQUAL(libxl_event_wait(chooser->ctx, &event, DEATH_BIT, is_for_user, &chooser->user), 0);
    check_death(event, chooser->domid, chooser->user);
    libxl_event_free(chooser->ctx, event);
    ++*chooser->deaths;
    return NULL;
}

DOMAIN_TEST(threads_with_predicates_get_what_they_want_and_nothing_else)
{
    enum { THREADS = 12, FIRST = 200 };
    static atomic_size_t got_shutdown, got_death;
    static struct chooser choosers[THREADS];
    libxl_ctx *ctx = open_context();
    uint32_t i;

    host_create_many(FIRST, THREADS);
    for (i = 0; i < THREADS; i++) {
        choosers[i] = (struct chooser){ ctx, 0, i, FIRST + i, &got_shutdown, &got_death };
        enable(ctx, FIRST + i, i);
        choosers[i].thread = start_thread(choose, &choosers[i]);
    }
    host_shutdown_many(FIRST, THREADS, REBOOT);
    wait_for_count(&got_shutdown, THREADS);
    for (i = THREADS; i-- > 0;)
        host_destroy(FIRST + i);
    wait_for_count(&got_death, THREADS);
    for (i = 0; i < THREADS; i++)
        finish_thread(choosers[i].thread);
    expect_silence(ctx);
    close_context(ctx);
}

/* Three ways to receive at once, on one context: event_wait, the poll loop, and event_check alone. */
static void *fetch_by_polling(void *ctx)
{
    libxl_event *event;

    while (!stop) {
        poll_once(ctx, 1);
        while (libxl_event_check(ctx, &event, DEATH_BIT, NULL, NULL) == 0) {
            if (event->for_user != STOP)
                note_death(event);
            libxl_event_free(ctx, event);
        }
    }
    return NULL;
}

static void *fetch_by_checking(void *ctx)
{
    libxl_event *event;

    while (!stop) {
        if (libxl_event_check(ctx, &event, DEATH_BIT, NULL, NULL) != 0) {
            pause_a_little();
            continue;
        }
        if (event->for_user != STOP)
            note_death(event);
        libxl_event_free(ctx, event);
    }
    return NULL;
}

static int is_shutdown(const libxl_event *event, void *user)
{
    (void)user;
    return event->type == LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN;
}

static void *wait_for_a_shutdown(void *ctx)
{
    libxl_event *event;

    CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, is_shutdown, NULL), 0);
    libxl_event_free(ctx, event);
    return NULL;
}

DOMAIN_TEST(threads_that_wait_poll_and_check_share_the_events)
{
    enum { FIRST = 1000, DOMAINS = 300 };
    libxl_ctx *ctx = open_context();
    pthread_t threads[5];
    uint32_t i, last;

    last = host_create_at(900);
    enable(ctx, last, 1);
    host_create_many(FIRST, DOMAINS);
    for (i = 0; i < DOMAINS; i++)
        enable(ctx, FIRST + i, 2);
    threads[0] = start_thread(fetch_by_polling, ctx);
    threads[1] = start_thread(fetch_by_polling, ctx);
    threads[2] = start_thread(fetch_by_checking, ctx);
    threads[3] = start_thread(wait_for_a_shutdown, ctx);
    for (i = 0; i < DOMAINS; i += 10)
        host_destroy_many(FIRST + i, 10);
    wait_for_count(&total_deaths, DOMAINS);
    host_shutdown(last, POWEROFF);
    finish_stirring(threads[3]);
    stop = true;
    for (i = 0; i < 3; i++)
        finish_thread(threads[i]);
    check_deaths(FIRST, DOMAINS);
    close_context(ctx);
}

/* ---- while others are at it ---- */

/* Enables and disables without end, domains that live, die and are not there. */
static void *enable_and_disable(void *ctx)
{
    enum { AT_ONCE = 8 };
    libxl_evgen_domain_death *evgens[AT_ONCE];
    uint32_t domid = 1000;
    int i;

    while (!stop) {
        for (i = 0; i < AT_ONCE; i++) {
            domid = 1000 + (domid * 7 + 1) % 400;
            evgens[i] = enable(ctx, domid, STOP);
        }
        for (i = 0; i < AT_ONCE; i++)
            libxl_evdisable_domain_death(ctx, evgens[i]);
    }
    return NULL;
}

DOMAIN_TEST(enabling_and_disabling_in_some_threads_takes_nothing_from_others)
{
    enum { FIRST = 1000, DOMAINS = 300 };
    libxl_ctx *ctx = open_context();
    pthread_t threads[4];
    uint32_t i;

    host_create_many(FIRST, DOMAINS);
    for (i = 0; i < DOMAINS; i++)
        enable(ctx, FIRST + i, 2);
    threads[0] = start_thread(enable_and_disable, ctx);
    threads[1] = start_thread(enable_and_disable, ctx);
    threads[2] = start_thread(fetch_by_polling, ctx);
    threads[3] = start_thread(fetch_by_polling, ctx);
    for (i = 0; i < DOMAINS; i += 10)
        host_destroy_many(FIRST + i, 10);
    wait_for_count(&total_deaths, DOMAINS);
    stop = true;
    for (i = 0; i < COUNT(threads); i++)
        finish_thread(threads[i]);
    check_deaths(FIRST, DOMAINS);
    close_context(ctx);
}

/* One thread's generator, disabled just when its domain ends: one event or none, and none later. */
struct race {
    libxl_ctx *ctx;
    libxl_evgen_domain_death *evgen;
    pthread_barrier_t *barrier;
};

static void *disable_now(void *arg)
{
    struct race *race = arg;

    pthread_barrier_wait(race->barrier);
    libxl_evdisable_domain_death(race->ctx, race->evgen);
    return NULL;
}

DOMAIN_TEST(a_disable_that_races_with_the_event_leaves_one_or_none)
{
    enum { FIRST = 500, ROUNDS = 60 };
    libxl_ctx *ctx = open_context();
    pthread_barrier_t barrier;
    uint32_t i;

    CHECK_EQUAL(pthread_barrier_init(&barrier, NULL, 2), 0);
    host_create_many(FIRST, ROUNDS);
    for (i = 0; i < ROUNDS; i++) {
        struct race race = { ctx, enable(ctx, FIRST + i, i), &barrier };
        pthread_t thread = start_thread(disable_now, &race);
        libxl_event *event;
        int got = 0, j;

        host_destroy(FIRST + i);
        host_settle();
        pthread_barrier_wait(&barrier);
        for (j = 0; j < 3; j++)
            poll_once(ctx, 0);
        finish_thread(thread);
        while (libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == 0) {
            check_death(event, FIRST + i, i);
            libxl_event_free(ctx, event);
            got++;
        }
        CHECK_AT_MOST(got, 1);
    }
    expect_silence(ctx);
    close_context(ctx);
}

/* A callback that does all that it may; several threads run it at once. */
static void busy_callback(void *ctx, libxl_event *event)
{
    libxl_event *other;

    note_death(event);
    libxl_evdisable_domain_death(ctx, enable(ctx, 0, 0));
    CHECK_EQUAL(libxl_event_check(ctx, &other, 0, NULL, NULL), ERROR_NOT_READY);
    libxl_event_free(ctx, event);
}

static void *poll_until_told(void *ctx)
{
    while (!stop)
        poll_once(ctx, 1);
    return NULL;
}

DOMAIN_TEST(callbacks_run_on_several_threads_and_call_back)
{
    enum { FIRST = 1000, DOMAINS = 300 };
    static const libxl_event_hooks hooks = { .event_occurs_mask = DEATH_BIT, .event_occurs = busy_callback };
    libxl_ctx *ctx = open_context();
    pthread_t threads[4];
    uint32_t i;

    libxl_event_register_callbacks(ctx, &hooks, ctx);
    host_create_many(FIRST, DOMAINS);
    for (i = 0; i < DOMAINS; i++)
        enable(ctx, FIRST + i, 2);
    for (i = 0; i < COUNT(threads); i++)
        threads[i] = start_thread(poll_until_told, ctx);
    for (i = 0; i < DOMAINS; i += 10)
        host_destroy_many(FIRST + i, 10);
    wait_for_count(&total_deaths, DOMAINS);
    stop = true;
    for (i = 0; i < COUNT(threads); i++)
        finish_thread(threads[i]);
    check_deaths(FIRST, DOMAINS);
    close_context(ctx);
}

/* Fetched here, freed there. */
struct handover {
    libxl_ctx *ctx;
    libxl_event *_Atomic slot;
};

static void *free_what_is_handed_over(void *arg)
{
    struct handover *handover = arg;

    while (!stop || handover->slot) {
        libxl_event *event = atomic_exchange(&handover->slot, NULL);

        if (event) {
            note_death(event);
            libxl_event_free(handover->ctx, event);
        }
    }
    return NULL;
}

DOMAIN_TEST(events_may_be_freed_by_another_thread_while_others_are_queued)
{
    enum { FIRST = 1000, DOMAINS = 200 };
    struct handover handover = { .ctx = open_context() };
    pthread_t thread = start_thread(free_what_is_handed_over, &handover);
    uint32_t i;

    host_create_many(FIRST, DOMAINS);
    for (i = 0; i < DOMAINS; i++)
        enable(handover.ctx, FIRST + i, 1);
    for (i = 0; i < DOMAINS; i += 10)
        host_destroy_many(FIRST + i, 10);
    for (i = 0; i < DOMAINS; i++) {
        libxl_event *event = wait_event(handover.ctx);

        WAIT_UNTIL(handover.slot == NULL);
        handover.slot = event;
    }
    stop = true;
    finish_thread(thread);
    check_deaths(FIRST, DOMAINS);
    CHECK_EQUAL(total_deaths, DOMAINS);
    close_context(handover.ctx);
}

/* ---- a context for each thread ---- */

static void *live_alone(void *number)
{
    uint32_t base = NOBODY + 100 * (uint32_t)(uintptr_t)number;
    int round;

    for (round = 0; round < 15; round++) {
        libxl_ctx *ctx = open_context();
        libxl_evgen_domain_death *evgen = enable(ctx, base, 1);

        enable(ctx, base + 1, 2);
        expect_death(ctx, base, 1);
        if (round % 3)
            expect_death(ctx, base + 1, 2);
        if (round % 2)
            libxl_evdisable_domain_death(ctx, evgen);
        close_context(ctx);
    }
    return NULL;
}

TEST(threads_with_a_context_each_do_not_disturb_one_another)
{
    pthread_t threads[8];
    uintptr_t i;
    int fds = count_fds();

    for (i = 0; i < COUNT(threads); i++)
        threads[i] = start_thread(live_alone, (void *)i);
    for (i = 0; i < COUNT(threads); i++)
        finish_thread(threads[i]);
    CHECK_EQUAL(count_fds(), fds);
    CHECK_EQUAL(logged_errors, 0);
}
