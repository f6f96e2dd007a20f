/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sixteen threads call all functions of both headers at random, with contexts that they share; and it is counted what
 * becomes of each event.
 *
 * A generator's for_user is its number in a ledger, which says whose it is: of which context, of which subscriber, for which
 * domain. An event is looked up there by whoever is given it:
 *
 *   - it came to where its generator was enabled, and is about that domain;
 *   - there is one DEATH at most, one SHUTDOWN at most (no domain here runs again after one);
 *   - there is none of a generator that was disabled, once what was queued then has been taken out by checks alone, without a
 *     turn of the context. With callbacks nothing is queued: there is none as soon as nobody else is in a call with it.
 *
 * And at an audit of a context, which has it for itself, each generator whose domain has ended must have had its DEATH, or it
 * comes now. Operations' ends, ejections and callbacks are counted likewise. The contexts live in slots; each slot is used in
 * a way of its own (waits, callbacks, hooks, dispatch). A slot's lock is for the rule that a context is freed only when
 * nobody uses it: whoever uses it has the lock shared.
 *
 * usage, from `run`: SECONDS and SEED are in the environment as STRESS_SECONDS and STRESS_SEED. With the same seed each thread
 * makes the same choices; the order of the threads is the machine's. STRESS_SPOIL: what happens to one event in many on its way
 * into the ledger, which has to be found (`enum spoil`). STRESS_FORKS=0: without forked children, for who can't follow them.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libxl_event.h>

#include "../trial.h"
#include "harness/check.h"
#include "harness/drive.h"
#include "harness/host.h"
#include "harness/ours.h"
#include "harness/plug.h"
#include "harness/store.h"
#include "harness/xl.h"

enum { THREADS = 16, SUBSCRIBERS = 2, LIVE_MAX = 64, ENTRIES_MAX = 1 << 22, DOMAINS_MAX = 1 << 19, LIST_MAX = 4096 };

/* For users that are no entry of the ledger. */
#define FIRST_USER ((libxl_ev_user)1 << 40)

/* ---- the ledger ---- */

struct domain {
    uint32_t domid;
    atomic_bool ended;
    atomic_uint suspends;
};

enum what { DEATH_GENERATOR, STATE_GENERATOR, ANY_GENERATOR, EJECT_GENERATOR, OPERATION };

struct entry {
    unsigned char what, slot;
    uint32_t life, domain; /* the slot's context, and the place in `domains` */
    uint64_t subscriber; /* 0: the context's own */
    void *handle;
    atomic_uint deaths, shutdowns, others;
    atomic_bool disabled, quiet;
    atomic_int ended_by; /* who has disabled it, for a failure's report */
};

static struct domain *domains;
static atomic_uint domain_count;
static struct entry *ledger;
static atomic_uint entry_count;

static atomic_ulong events_seen, cases, audits, lives, restarts, forks, operations, ejections, refused, calls_made, waits_ended, subscribers_freed;
static atomic_bool stop;

/*
 * What is spoilt on purpose, to see that it is found: a death is lost, or taken in twice; an event is said to have come to
 * another context; or one comes when its generator was disabled and is to be quiet.
 */
static enum spoil { NOTHING_SPOILT, LOSE, REPEAT, ASTRAY, LATE } spoil;
static const char *const spoil_names[] = { "", "lose", "repeat", "astray", "late" };
enum { SPOILT_ONE_IN = 50, SPOILT_PATIENCE_S = 5 };

/* ---- slots ---- */

enum way { WAITS, CALLS_BACK, POLLS_BY_SET, DISPATCHES, OWNS_NO_CHILDREN, REAPS_ITS_OWN, WAYS };

struct slot {
    pthread_rwlock_t lock;
    atomic_bool wanted; /* somebody would have it for himself */
    libxl_ctx *ctx;
    uint32_t life;
    enum way way;
    struct xlevent_pollset *set;
    pthread_mutex_t loop; /* one thread at a time is the application's loop */
    pthread_mutex_t books;
    struct {
        struct xlevent_subscriber *handle;
        uint64_t id;
    } subscribers[SUBSCRIBERS];
    struct entry *list[LIST_MAX];
    size_t listed;
};

static struct slot slots[WAYS];
static atomic_ullong next_subscriber = 1;

/* Whoever needs xenstored to stay has it shared. */
static pthread_rwlock_t daemon_lock = PTHREAD_RWLOCK_INITIALIZER;
static atomic_bool daemon_wanted;
static atomic_uint daemon_changes;

/*
 * Shared by whoever uses libxenstore himself, as the frame's functions for nodes do; before all other locks. libxenstore has a
 * list of its handles with a lock, and a child that is forked while a thread is at it can't take it any more, nor can what
 * libxl_postfork_child_noexec calls. The library keeps forks away from its own such moments, an application must from its own.
 */
static pthread_rwlock_t own_handles_lock = PTHREAD_RWLOCK_INITIALIZER;

/* Before any slot. */
static void hold_daemon(void)
{
    while (daemon_wanted)
        pause_a_little();
    pthread_rwlock_rdlock(&daemon_lock);
}

static void let_daemon(void)
{
    pthread_rwlock_unlock(&daemon_lock);
}

static void enter(struct slot *slot)
{
    while (slot->wanted)
        pause_a_little();
    pthread_rwlock_rdlock(&slot->lock);
}

static void leave(struct slot *slot)
{
    pthread_rwlock_unlock(&slot->lock);
}

/* For itself: those that wait for events in it are called off. */
static bool take_over(struct slot *slot)
{
    int i;

    if (atomic_exchange(&slot->wanted, true))
        return false;
    while (pthread_rwlock_trywrlock(&slot->lock) != 0) {
        /* The context stays: only who has the slot for himself frees it, and that would be this thread. */
        CHECK_EQUAL(xlevent_wait_cancel(slot->ctx), 0);
        for (i = 0; i < SUBSCRIBERS; i++) {
            struct xlevent_subscriber *subscriber;

            pthread_mutex_lock(&slot->books);
            subscriber = slot->subscribers[i].handle;
            pthread_mutex_unlock(&slot->books);
            if (subscriber)
                xlevent_subscriber_wait_cancel(slot->ctx, subscriber);
        }
        pause_a_little();
    }
    return true;
}

static void give_back(struct slot *slot)
{
    slot->wanted = false;
    pthread_rwlock_unlock(&slot->lock);
}

/* ---- what comes ---- */

static struct entry *entry_of(libxl_ev_user user)
{
    CHECK(user >= FIRST_USER && user - FIRST_USER < entry_count);
    return &ledger[user - FIRST_USER];
}

/* An event has been given to somebody: at this slot, for this subscriber or (0) the context's own. */
static void enter_in_ledger(struct slot *slot, uint64_t subscriber, const libxl_event *event)
{
    struct entry *entry = entry_of(event->for_user);
    struct domain *domain = &domains[entry->domain];
    unsigned type = event->type;

    events_seen++;
    /* Before all else: its context may be another by now. */
    if (entry->quiet)
        FAIL("event of type %u, domain %u, user %u, kind %d of slot %d, subscriber %u: its generator was disabled (%d) and its "
             "events were taken out; it has had %u deaths; xenstored was restarted %lu times", type, event->domid,
             (unsigned)(entry - ledger), entry->what, entry->slot, (unsigned)subscriber, (int)entry->ended_by,
             (unsigned)entry->deaths, (unsigned long)restarts);
    if (&slots[entry->slot] != slot || entry->life != slot->life || entry->subscriber != subscriber)
        FAIL("event of type %u, user %u, of slot %d life %u subscriber %u has come to slot %d life %u subscriber %u", type,
             (unsigned)(entry - ledger), entry->slot, entry->life, (unsigned)entry->subscriber, (int)(slot - slots),
             slot->life, (unsigned)subscriber);
    if (entry->what == ANY_GENERATOR) {
        CHECK(type == LIBXL_EVENT_TYPE_DOMAIN_DEATH || type == LIBXL_EVENT_TYPE_DOMAIN_CREATED);
        return;
    }
    CHECK_EQUAL(event->domid, domain->domid);
    switch (type) {
    case LIBXL_EVENT_TYPE_DOMAIN_DEATH:
        CHECK(entry->what == DEATH_GENERATOR || entry->what == STATE_GENERATOR);
        if (atomic_fetch_add(&entry->deaths, 1))
            FAIL("domain %u, user %u has died twice", event->domid, (unsigned)(entry - ledger));
        break;
    case LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN:
        CHECK(entry->what == DEATH_GENERATOR || entry->what == STATE_GENERATOR);
        if (atomic_fetch_add(&entry->shutdowns, 1))
            FAIL("domain %u, user %u has shut down twice", event->domid, (unsigned)(entry - ledger));
        CHECK_EQUAL(event->u.domain_shutdown.shutdown_reason, CRASH);
        break;
    case LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED:
        CHECK_EQUAL(entry->what, STATE_GENERATOR);
        CHECK_AT_MOST(atomic_fetch_add(&entry->others, 1) + 1, domain->suspends);
        break;
    case LIBXL_EVENT_TYPE_DOMAIN_RUNNING:
        CHECK_EQUAL(entry->what, STATE_GENERATOR);
        CHECK_AT_LEAST(domain->suspends, 1);
        break;
    case LIBXL_EVENT_TYPE_DISK_EJECT:
        CHECK_EQUAL(entry->what, EJECT_GENERATOR);
        CHECK(same_string(event->u.disk_eject.vdev, "hdc"));
        if (atomic_fetch_add(&entry->others, 1))
            FAIL("the drive of domain %u has been ejected twice", event->domid);
        break;
    case LIBXL_EVENT_TYPE_OPERATION_COMPLETE:
        CHECK_EQUAL(entry->what, OPERATION);
        if (atomic_fetch_add(&entry->others, 1))
            FAIL("the end of an operation with domain %u is told twice", event->domid);
        break;
    default:
        FAIL("event of type %u", type);
    }
}

/* Keeps an event back until its generator is to be quiet. Those of which the audit would wait for another stay. */
static void come_late(struct slot *slot, uint64_t subscriber, const libxl_event *event)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct {
        struct slot *slot;
        uint64_t subscriber;
        libxl_event event;
    } kept[256];
    static size_t count;
    size_t i;

    pthread_mutex_lock(&lock);
    for (i = 0; i < count; i++)
        if (entry_of(kept[i].event.for_user)->quiet)
            enter_in_ledger(kept[i].slot, kept[i].subscriber, &kept[i].event);
    if (event->type == LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN && count < COUNT(kept)) {
        kept[count].slot = slot;
        kept[count].subscriber = subscriber;
        kept[count++].event = *event;
    } else {
        enter_in_ledger(slot, subscriber, event);
    }
    pthread_mutex_unlock(&lock);
}

/* An event has been given to somebody, and may be spoilt. */
static void account(struct slot *slot, uint64_t subscriber, const libxl_event *event)
{
    bool death = event->type == LIBXL_EVENT_TYPE_DOMAIN_DEATH && entry_of(event->for_user)->what != ANY_GENERATOR;

    if (spoil == LATE) {
        come_late(slot, subscriber, event);
        return;
    }
    if (spoil != NOTHING_SPOILT && death && one_in(SPOILT_ONE_IN)) {
        if (spoil == LOSE)
            return;
        if (spoil == ASTRAY)
            slot = &slots[(slot - slots + 1) % WAYS];
        if (spoil == REPEAT)
            enter_in_ledger(slot, subscriber, event);
    }
    enter_in_ledger(slot, subscriber, event);
}

static void take(struct slot *slot, uint64_t subscriber, libxl_event *event)
{
    account(slot, subscriber, event);
    /* It may be freed with the context or without. */
    libxl_event_free(one_in(2) ? slot->ctx : NULL, event);
}

static void event_occurs(void *user, libxl_event *event)
{
    struct slot *slot = user;
    libxl_event *other;

    account(slot, 0, event);
    /* Callbacks may call back. */
    if (one_in(8))
        CHECK_EQUAL(libxl_event_check(slot->ctx, &other, 0, NULL, NULL), ERROR_NOT_READY);
    libxl_event_free(slot->ctx, event);
}

static void disaster(void *user, libxl_event_type type, const char *msg, int errnoval)
{
    (void)user;
    FAIL("disaster of type %u: %s (%d)", (unsigned)type, msg, errnoval);
}

static void handle(void *user, const libxl_event *event)
{
    account(user, 0, event);
}

/* ---- generators ---- */

static libxl_ev_user user_of(const struct entry *entry)
{
    return FIRST_USER + (libxl_ev_user)(entry - ledger);
}

/* A new entry, written before anything can come of it. */
static struct entry *write_entry(struct slot *slot, enum what what, uint64_t subscriber, uint32_t domain)
{
    unsigned place = entry_count;
    struct entry *entry;

    do {
        CHECK(place < ENTRIES_MAX);
    } while (!atomic_compare_exchange_weak(&entry_count, &place, place + 1));
    entry = &ledger[place];
    entry->what = (unsigned char)what;
    entry->slot = (unsigned char)(slot - slots);
    entry->life = slot->life;
    entry->subscriber = subscriber;
    entry->domain = domain;
    return entry;
}

static void list(struct slot *slot, struct entry *entry)
{
    int i;

    pthread_mutex_lock(&slot->books);
    CHECK(slot->listed < LIST_MAX);
    slot->list[slot->listed++] = entry;
    /* Its subscriber may have gone since it was enabled, and has taken it along. */
    for (i = 0; i < SUBSCRIBERS && slot->subscribers[i].id != entry->subscriber; i++)
        ;
    if (entry->subscriber && i == SUBSCRIBERS) {
        entry->disabled = true;
        entry->ended_by = 1;
    }
    pthread_mutex_unlock(&slot->books);
}

#define STATES (SHUTDOWN_BIT | DEATH_BIT | (uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED | \
                (uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_RUNNING)

static int enable_for(struct slot *slot, struct xlevent_subscriber *subscriber, const struct entry *entry, void **handle)
{
    libxl_ctx *ctx = slot->ctx;
    uint32_t domid = domains[entry->domain].domid;
    libxl_ev_user user = user_of(entry);

    switch ((enum what)entry->what) {
    case DEATH_GENERATOR:
        if (subscriber)
            return xlevent_subscriber_evenable_domain_death(ctx, subscriber, domid, user,
                                                            (libxl_evgen_domain_death **)handle);
        return libxl_evenable_domain_death(ctx, domid, user, (libxl_evgen_domain_death **)handle);
    case STATE_GENERATOR:
        if (subscriber)
            return xlevent_subscriber_evenable_domain_state(ctx, subscriber, domid, STATES, user,
                                                            (libxl_evgen_domain_state **)handle);
        return libxl_evenable_domain_state(ctx, domid, STATES, user, (libxl_evgen_domain_state **)handle);
    case ANY_GENERATOR:
        return libxl_evenable_domain_state(ctx, LIBXL_DOMID_ANY,
                                           DEATH_BIT | (uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_CREATED, user,
                                           (libxl_evgen_domain_state **)handle);
    case EJECT_GENERATOR:
        if (subscriber)
            return xlevent_subscriber_evenable_disk_eject(ctx, subscriber, domid, "hdc", user,
                                                          (libxl_evgen_disk_eject **)handle);
        return libxl_evenable_disk_eject(ctx, domid, "hdc", user, (libxl_evgen_disk_eject **)handle);
    default:
        FAIL("no generator");
    }
}

static void disable(struct slot *slot, struct entry *entry)
{
    switch ((enum what)entry->what) {
    case DEATH_GENERATOR: libxl_evdisable_domain_death(slot->ctx, entry->handle); break;
    case EJECT_GENERATOR: libxl_evdisable_disk_eject(slot->ctx, entry->handle); break;
    case STATE_GENERATOR:
    case ANY_GENERATOR: libxl_evdisable_domain_state(slot->ctx, entry->handle); break;
    case OPERATION: break;
    }
}

static void drain(struct slot *slot);

/*
 * After a failure that is one, if xenstored is there: the context has not come back to it yet after a restart, which it will
 * in one of its turns. (A patience that ends is a failure of the test.)
 */
static bool comes_back(struct slot *slot, int rc)
{
    static __thread uint64_t since_ms;

    if (rc != ERROR_FAIL || daemon_changes == 0) {
        since_ms = 0;
        return false;
    }
    if (!since_ms)
        since_ms = now_ms();
    if (now_ms() - since_ms > PATIENCE_S * 1000)
        FAIL("xenstored is back, and nothing can be enabled");
    drain(slot);
    pause_a_little();
    refused++;
    return true;
}

/*
 * In a slot that this thread uses, xenstored being held or not. NULL if the subscriber went, or xenstored just then.
 */
static struct entry *enable_in(struct slot *slot, enum what what, uint32_t domain, bool held)
{
    struct xlevent_subscriber *subscriber = NULL;
    struct entry *entry;
    uint64_t id = 0;
    int rc, i = (int)below(2 * SUBSCRIBERS);

    if (i < SUBSCRIBERS && what != ANY_GENERATOR) {
        pthread_mutex_lock(&slot->books);
        subscriber = slot->subscribers[i].handle;
        id = subscriber ? slot->subscribers[i].id : 0;
        pthread_mutex_unlock(&slot->books);
    }
    entry = write_entry(slot, what, id, domain);
    do {
        rc = enable_for(slot, subscriber, entry, &entry->handle);
    } while (held && comes_back(slot, rc));
    if (rc == 0) {
        list(slot, entry);
        return entry;
    }
    /* Another thread may have freed the subscriber, and xenstored may have been away. */
    if (!(subscriber && rc == ERROR_INVAL) && (held || daemon_changes == 0))
        FAIL("enabling of kind %d for domain %u: %d", (int)what, domains[domain].domid, rc);
    refused++;
    return NULL;
}

/* ---- taking events ---- */

/* A predicate that lets others run, and calls back. */
static int looks_for_a_while(const libxl_event *event, void *user)
{
    struct slot *slot = user;
    libxl_ev_user before = event->for_user;
    libxl_event *other;

    sched_yield();
    CHECK_EQUAL(libxl_event_check(slot->ctx, &other, 0, NULL, NULL), ERROR_NOT_READY);
    CHECK(event->for_user == before);
    return before % 3 != 0;
}

static void poll_round(struct slot *slot, int patience_ms)
{
    struct pollfd fds[8];
    int nfds = COUNT(fds), timeout = patience_ms;

    CHECK_EQUAL(libxl_osevent_beforepoll(slot->ctx, &nfds, fds, &timeout, no_time), 0);
    poll(fds, (nfds_t)nfds, timeout < 0 || timeout > patience_ms ? patience_ms : timeout);
    libxl_osevent_afterpoll(slot->ctx, nfds, fds, no_time);
}

static void clear_sets(fd_set *readable, fd_set *writable, fd_set *excepted)
{
    FD_ZERO(readable);
    FD_ZERO(writable);
    FD_ZERO(excepted);
}

static void set_round(struct slot *slot, int patience_ms)
{
    struct pollfd fds[8];
    int nfds = COUNT(fds), timeout = patience_ms;

    if (one_in(4)) {
        fd_set readable, writable, excepted;
        struct timeval room, at_most = { 0, patience_ms * 1000 }, *wait = &at_most;
        int count = 0;

        clear_sets(&readable, &writable, &excepted);
        if (xlevent_pollset_beforeselect(slot->set, &count, &readable, &writable, &excepted, &wait, &room) != 0)
            return; /* a descriptor is beyond what select can have */
        if (select(count, &readable, &writable, &excepted, wait) < 0)
            clear_sets(&readable, &writable, &excepted);
        CHECK_EQUAL(xlevent_pollset_afterselect(slot->set, &readable, &writable, &excepted), 0);
        return;
    }
    CHECK_EQUAL(xlevent_pollset_beforepoll(slot->set, &nfds, fds, &timeout), 0);
    poll(fds, (nfds_t)nfds, timeout < 0 || timeout > patience_ms ? patience_ms : timeout);
    CHECK_EQUAL(xlevent_pollset_afterpoll(slot->set, nfds, fds), 0);
}

/* The slot's own way of hearing of what has happened. */
static void turn(struct slot *slot, int patience_ms)
{
    static const struct xlevent_handler all[] = { { LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN, handle },
                                                  { XLEVENT_ALL_OTHERS, handle } };
    libxl_event *event;
    struct pollfd fd;
    int rc;

    switch (slot->way) {
    case CALLS_BACK:
        poll_round(slot, patience_ms);
        break;
    case POLLS_BY_SET:
        if (pthread_mutex_trylock(&slot->loop) == 0) {
            set_round(slot, patience_ms);
            pthread_mutex_unlock(&slot->loop);
        }
        break;
    case DISPATCHES:
        fd = (struct pollfd){ xlevent_get_fd(slot->ctx), POLLIN, 0 };
        CHECK(fd.fd >= 0);
        poll(&fd, 1, patience_ms);
        CHECK_AT_LEAST(xlevent_dispatch(slot->ctx, all, slot), 0);
        break;
    default:
        rc = xlevent_event_wait(slot->ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL, patience_ms);
        if (rc == 0)
            take(slot, 0, event);
        else
            CHECK(rc == ERROR_TIMEDOUT || rc == ERROR_ABORTED);
    }
}

static void take_for_subscriber(struct slot *slot, int i, bool wait)
{
    struct xlevent_subscriber *subscriber;
    libxl_event *event;
    uint64_t id;
    int rc;

    pthread_mutex_lock(&slot->books);
    subscriber = slot->subscribers[i].handle;
    id = slot->subscribers[i].id;
    pthread_mutex_unlock(&slot->books);
    if (!subscriber)
        return;
    do {
        rc = wait ? xlevent_subscriber_wait(slot->ctx, subscriber, &event, LIBXL_EVENTMASK_ALL,
                                            one_in(2) ? looks_for_a_while : NULL, slot, one_in(4) ? -1 : (int)below(4))
                  : xlevent_subscriber_check(slot->ctx, subscriber, &event, LIBXL_EVENTMASK_ALL, NULL, NULL);
        if (rc == 0)
            take(slot, id, event);
    } while (rc == 0 && !wait);
    /* It may have been freed. */
    CHECK(rc == 0 || rc == ERROR_INVAL || rc == (wait ? ERROR_TIMEDOUT : ERROR_NOT_READY) || (wait && rc == ERROR_ABORTED));
    waits_ended += rc == ERROR_ABORTED;
}

/* All that is queued. */
static void take_queued(struct slot *slot)
{
    libxl_event *event;
    int i;

    while (libxl_event_check(slot->ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == 0)
        take(slot, 0, event);
    for (i = 0; i < SUBSCRIBERS; i++)
        take_for_subscriber(slot, i, false);
}

/* All that there is now, and can be had without a wait. */
static void drain(struct slot *slot)
{
    turn(slot, 0);
    take_queued(slot);
}

static void take_some(struct slot *slot)
{
    libxl_event *event;
    int rc;

    switch (below(8)) {
    case 0:
    case 1:
        turn(slot, (int)below(4));
        break;
    case 2:
        drain(slot);
        break;
    case 3:
        rc = libxl_event_check(slot->ctx, &event, one_in(2) ? DEATH_BIT : LIBXL_EVENTMASK_ALL, looks_for_a_while, slot);
        CHECK(rc == 0 || rc == ERROR_NOT_READY);
        if (rc == 0)
            take(slot, 0, event);
        break;
    case 4:
        rc = xlevent_event_wait(slot->ctx, &event, LIBXL_EVENTMASK_ALL, one_in(2) ? looks_for_a_while : NULL, slot,
                                (int)below(6));
        CHECK(rc == 0 || rc == ERROR_TIMEDOUT || rc == ERROR_ABORTED);
        waits_ended += rc == ERROR_ABORTED;
        if (rc == 0)
            take(slot, 0, event);
        break;
    case 5:
        if (!one_in(4) || stop)
            break;
        /* For as long as it takes: an event, or that somebody calls it off. */
        rc = libxl_event_wait(slot->ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL);
        CHECK(rc == 0 || rc == ERROR_ABORTED);
        waits_ended += rc == ERROR_ABORTED;
        if (rc == 0)
            take(slot, 0, event);
        break;
    default:
        take_for_subscriber(slot, (int)below(SUBSCRIBERS), !stop && one_in(2));
    }
}

/* ---- domains ---- */

static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t pool[LIVE_MAX];
static unsigned pool_size;

static uint32_t new_domain(uint32_t domid)
{
    uint32_t place = domain_count++;

    CHECK(place < DOMAINS_MAX);
    domains[place].domid = domid;
    return place;
}

static void begin_case(void)
{
    uint32_t domain;
    unsigned generators = 1 + below(3);
    bool room;

    hold_daemon();
    domain = new_domain(host_create());
    while (generators-- > 0) {
        struct slot *slot = &slots[below(WAYS)];

        enter(slot);
        enable_in(slot, one_in(3) ? STATE_GENERATOR : DEATH_GENERATOR, domain, true);
        leave(slot);
    }
    pthread_mutex_lock(&pool_lock);
    room = pool_size < LIVE_MAX;
    if (room)
        pool[pool_size++] = domain;
    pthread_mutex_unlock(&pool_lock);
    if (!room) {
        host_destroy(domains[domain].domid);
        domains[domain].ended = true;
    }
    let_daemon();
    cases++;
}

static void end_case(void)
{
    struct domain *domain = NULL;
    uint32_t domid;

    pthread_mutex_lock(&pool_lock);
    if (pool_size > 0) {
        unsigned i = below(pool_size);

        domain = &domains[pool[i]];
        pool[i] = pool[--pool_size];
    }
    pthread_mutex_unlock(&pool_lock);
    if (!domain)
        return;
    domid = domain->domid;
    hold_daemon();
    if (one_in(4)) {
        domain->suspends++;
        host_suspend(domid);
        if (one_in(2))
            sched_yield();
        host_resume(domid);
    }
    switch (below(4)) {
    case 0:
        host_shutdown(domid, CRASH);
        if (one_in(2))
            sched_yield();
        host_destroy(domid);
        break;
    case 1:
        host_shutdown_and_kill(domid, CRASH);
        domain->ended = true;
        host_destroy(domid);
        break;
    case 2:
        host_kill(domid);
        domain->ended = true;
        host_destroy(domid);
        break;
    default:
        host_destroy(domid);
    }
    domain->ended = true;
    let_daemon();
}

/* One more generator for a domain that is there, or has just gone. */
static void join_case(void)
{
    struct slot *slot = &slots[below(WAYS)];
    bool held = !one_in(8);
    uint32_t domain = 0;
    bool found;

    pthread_mutex_lock(&pool_lock);
    found = pool_size > 0;
    if (found)
        domain = pool[below(pool_size)];
    pthread_mutex_unlock(&pool_lock);
    if (!found)
        return;
    /* Now and then while xenstored goes or comes, too. */
    if (held)
        hold_daemon();
    enter(slot);
    enable_in(slot, one_in(16) ? ANY_GENERATOR : one_in(2) ? STATE_GENERATOR : DEATH_GENERATOR, domain,
              held);
    leave(slot);
    if (held)
        let_daemon();
}

static void disable_one(struct slot *slot)
{
    struct entry *entry = NULL;

    pthread_mutex_lock(&slot->books);
    if (slot->listed > 0) {
        entry = slot->list[below((unsigned)slot->listed)];
        /* A subscriber's generators may go with it at any moment, and a stale handle is fine; but not one that is used twice
         * for what the ledger says. */
        if (atomic_exchange(&entry->disabled, true))
            entry = NULL;
        else
            entry->ended_by = 2;
    }
    pthread_mutex_unlock(&slot->books);
    if (entry)
        disable(slot, entry);
}

/* ---- drives and devices ---- */

static void remove_if_there(const char *path)
{
    if (has_node(path))
        remove_node(path);
}

/* Whether a slot has this subscriber, or (0) the context's own. */
static bool is_there(struct slot *slot, uint64_t subscriber)
{
    bool there = subscriber == 0;
    int i;

    pthread_mutex_lock(&slot->books);
    for (i = 0; i < SUBSCRIBERS; i++)
        there |= slot->subscribers[i].id == subscriber;
    pthread_mutex_unlock(&slot->books);
    return there;
}

/* A drive of a new domain is ejected once. The event comes once, to whoever looks. */
static void eject_once(struct slot *slot)
{
    struct entry *entry;
    struct drive drive;
    uint32_t domain;

    pthread_rwlock_rdlock(&own_handles_lock);
    hold_daemon();
    enter(slot);
    drive = cd_drive();
    domain = new_domain(drive.domid);
    entry = enable_in(slot, EJECT_GENERATOR, domain, true);
    if (entry) {
        uint64_t id = entry->subscriber;

        eject(drive);
        while (!stop && !entry->others) {
            drain(slot);
            if (!is_there(slot, id))
                break; /* the subscriber has gone, with its drives and its events */
            pause_a_little();
        }
        if (!atomic_exchange(&entry->disabled, true))
            disable(slot, entry);
        ejections++;
    }
    remove_if_there(path_of("/local/domain/%u", (unsigned)drive.domid));
    host_destroy(drive.domid);
    leave(slot);
    let_daemon();
    pthread_rwlock_unlock(&own_handles_lock);
}

static void note_end(libxl_ctx *ctx, int rc, void *for_callback)
{
    struct entry *entry = for_callback;

    (void)rc;
    CHECK(slots[entry->slot].ctx == ctx && slots[entry->slot].life == entry->life);
    if (atomic_fetch_add(&entry->others, 1))
        FAIL("the end of an operation is told twice");
}

static int begin_operation(struct slot *slot, const struct plug *plug, unsigned choice, const libxl_asyncop_how *how)
{
    struct xlevent_device device = { plug->kind, plug->devid };

    switch (choice) {
    case 0: return xlevent_device_wait_ready(slot->ctx, plug->domid, plug->kind, plug->devid, how);
    case 1: return xlevent_devices_remove(slot->ctx, plug->domid, &device, 1, XLEVENT_FORCE_NOW, how);
    case 2: return begin_removal(slot->ctx, plug, XLEVENT_FORCE_LATE, how);
    default: return begin_removal(slot->ctx, plug, XLEVENT_FORCE_NOW, how);
    }
}

static void operate(struct slot *slot)
{
    struct plug plug;
    struct entry *entry;
    libxl_asyncop_how how;
    bool aborts = one_in(4), closed = false;
    unsigned choice;
    int rc;

    pthread_rwlock_rdlock(&own_handles_lock);
    hold_daemon();
    enter(slot);
    plug = plug_in(host_create(), one_in(2) ? XLEVENT_DEVICE_KIND_VBD : XLEVENT_DEVICE_KIND_VKBD, 51712, 0, "vbd");
    if (slot->way == REAPS_ITS_OWN && plug.kind == XLEVENT_DEVICE_KIND_VBD)
        plug_script(&plug, "exit 0");
    entry = write_entry(slot, OPERATION, 0, new_domain(plug.domid));
    if (one_in(2)) {
        how = (libxl_asyncop_how){ .callback = note_end, .u = { .for_callback = entry } };
    } else {
        how = (libxl_asyncop_how){ .callback = NULL, .u = { .for_event = user_of(entry) } };
    }
    choice = below(4);
    do {
        rc = begin_operation(slot, &plug, choice, &how);
    } while (comes_back(slot, rc));
    CHECK_EQUAL(rc, 0);
    while (!entry->others) {
        if (aborts && one_in(4)) {
            rc = xlevent_ao_abort(slot->ctx, &how);
            CHECK(rc == 0 || rc == ERROR_NOTFOUND || rc == ERROR_ABORTED);
            aborts = false;
        }
        if (!closed && node_is(backend_node(&plug, "state"), "5")) {
            put_node(backend_node(&plug, "state"), "6");
            closed = true;
        }
        drain(slot);
        pause_a_little();
    }
    operations++;
    if (one_in(4)) {
        put_home(plug.domid); /* the last device may have taken it along */
        do {
            rc = xlevent_suspend_node_create(slot->ctx, plug.domid, (int)below(2));
        } while (comes_back(slot, rc));
        CHECK_EQUAL(rc, 0);
    }
    remove_if_there(path_of("/local/domain/%u", (unsigned)plug.domid));
    remove_if_there(path_of("/libxl/%u", (unsigned)plug.domid));
    host_destroy(plug.domid);
    leave(slot);
    let_daemon();
    pthread_rwlock_unlock(&own_handles_lock);
}

/* ---- contexts ---- */

static void add_subscriber(struct slot *slot, int i)
{
    struct xlevent_subscriber *subscriber;

    CHECK_EQUAL(xlevent_subscriber_new(slot->ctx, &subscriber), 0);
    pthread_mutex_lock(&slot->books);
    slot->subscribers[i].handle = subscriber;
    slot->subscribers[i].id = next_subscriber++;
    pthread_mutex_unlock(&slot->books);
}

/* While others use it. What they get then is said to be no subscriber. */
static void change_subscriber(struct slot *slot)
{
    int i = (int)below(SUBSCRIBERS);
    struct xlevent_subscriber *subscriber;
    size_t n;
    uint64_t id;

    pthread_mutex_lock(&slot->books);
    subscriber = slot->subscribers[i].handle;
    id = slot->subscribers[i].id;
    slot->subscribers[i].handle = NULL;
    slot->subscribers[i].id = 0;
    pthread_mutex_unlock(&slot->books);
    if (!subscriber)
        return;
    CHECK_EQUAL(xlevent_subscriber_free(slot->ctx, subscriber), 0);
    subscribers_freed++;
    /* Their generators have gone; one that another thread was just enabling has been refused, or has gone too. */
    pthread_mutex_lock(&slot->books);
    for (n = 0; n < slot->listed; n++)
        if (slot->list[n]->subscriber == id) {
            slot->list[n]->disabled = true;
            slot->list[n]->ended_by = 3;
        }
    pthread_mutex_unlock(&slot->books);
    add_subscriber(slot, i);
}

static void open_slot(struct slot *slot)
{
    static const libxl_event_hooks event_hooks = { .event_occurs_mask = LIBXL_EVENTMASK_ALL,
                                                   .event_occurs = event_occurs,
                                                   .disaster = disaster };
    static const libxl_event_hooks no_events = { .disaster = disaster };
    static const libxl_childproc_hooks mainloop = { .chldowner = libxl_sigchld_owner_mainloop };
    static const libxl_childproc_hooks selective = { .chldowner = libxl_sigchld_owner_libxl_always_selective_reap };
    int i;

    slot->ctx = open_context();
    slot->life++;
    lives++;
    if (slot->way == POLLS_BY_SET) {
        CHECK_EQUAL(xlevent_pollset_new(slot->ctx, NULL, NULL, &slot->set), 0);
        libxl_osevent_register_hooks(slot->ctx, xlevent_pollset_hooks(), slot->set);
    }
    libxl_event_register_callbacks(slot->ctx, slot->way == CALLS_BACK ? &event_hooks : &no_events, slot);
    if (slot->way == OWNS_NO_CHILDREN)
        libxl_childproc_setmode(slot->ctx, &mainloop, NULL);
    /* Not beside libxenlight: a child that is forked while its handler of SIGCHLD runs may hang (fork-in-handler). */
    if (slot->way == REAPS_ITS_OWN && column == ALONE)
        libxl_childproc_setmode(slot->ctx, &selective, NULL);
    for (i = 0; i < SUBSCRIBERS; i++)
        add_subscriber(slot, i);
}

static void close_slot(struct slot *slot)
{
    close_context(slot->ctx);
    if (slot->set) {
        xlevent_pollset_free(slot->set);
        slot->set = NULL;
    }
    slot->ctx = NULL;
    memset(slot->subscribers, 0, sizeof slot->subscribers);
}

/*
 * With the slot for itself: those that are disabled say nothing more. With callbacks from here on; else when what was queued
 * has been taken out, which takes no turn.
 */
static void silence(struct slot *slot)
{
    size_t i;

    for (i = 0; i < slot->listed; i++)
        if (slot->list[i]->disabled && slot->way == CALLS_BACK && slot->list[i]->subscriber == 0)
            slot->list[i]->quiet = true;
    take_queued(slot);
    for (i = 0; i < slot->listed; i++)
        if (slot->list[i]->disabled)
            slot->list[i]->quiet = true;
}

/* With the slot for itself. Each generator whose domain has ended has its death, or gets it now. */
static void await_deaths(struct slot *slot)
{
    size_t i;
    uint64_t end_ms = now_ms() + (spoil == LOSE ? SPOILT_PATIENCE_S : PATIENCE_S) * 1000;
    bool *ended = calloc(LIST_MAX, sizeof *ended);

    CHECK(ended != NULL);
    for (i = 0; i < slot->listed; i++) {
        struct entry *entry = slot->list[i];

        ended[i] = !entry->disabled && domains[entry->domain].ended &&
                   (entry->what == DEATH_GENERATOR || entry->what == STATE_GENERATOR);
    }
    for (i = 0; i < slot->listed; i++) {
        struct entry *entry = slot->list[i];

        while (ended[i] && !entry->deaths) {
            drain(slot);
            if (entry->deaths)
                break;
            if (now_ms() > end_ms)
                FAIL("slot %d: the death of domain %u, user %u, subscriber %u has not come", (int)(slot - slots),
                     domains[entry->domain].domid, (unsigned)(entry - ledger), (unsigned)entry->subscriber);
            pause_a_little();
        }
    }
    free(ended);
}

/* With the slot for itself: what was promised until now has come, and what has ended has done so. */
static void audit(struct slot *slot, bool reopen)
{
    size_t i, kept = 0;

    silence(slot);
    await_deaths(slot);
    for (i = 0; i < slot->listed; i++) {
        struct entry *entry = slot->list[i];

        if (entry->disabled || (reopen ? one_in(2) : !entry->deaths))
            continue;
        disable(slot, entry);
        entry->ended_by = 4;
        entry->disabled = true;
    }
    silence(slot);
    for (i = 0; i < slot->listed; i++)
        if (!slot->list[i]->quiet)
            slot->list[kept++] = slot->list[i];
    slot->listed = kept;
    if (reopen) {
        /* Not as others do it: whoever has xenstored held may wait for this slot, and who would restart it for them. */
        pthread_rwlock_rdlock(&daemon_lock);
        close_slot(slot);
        /* Until here a neighbour's look may have found something for a callback. */
        for (i = 0; i < slot->listed; i++) {
            slot->list[i]->ended_by = 5;
            slot->list[i]->disabled = slot->list[i]->quiet = true;
        }
        slot->listed = 0;
        open_slot(slot);
        let_daemon();
    }
    audits++;
}

/* A context of this thread's own, from its beginning to its end. */
static void live_shortly(void)
{
    libxl_evgen_domain_death *evgen;
    libxl_ctx *ctx;

    hold_daemon();
    ctx = open_context();
    evgen = enable(ctx, NOBODY, 7);
    if (one_in(2))
        expect_death(ctx, NOBODY, 7);
    if (one_in(2))
        libxl_evdisable_domain_death(ctx, evgen);
    close_context(ctx);
    let_daemon();
    lives++;
}

/* ---- the process, and the rest ---- */

static bool may_fork;

static void fork_once(struct slot *slot)
{
    int status;
    pid_t pid;

    if (!may_fork)
        return;
    pthread_rwlock_wrlock(&own_handles_lock);
    hold_daemon();
    enter(slot);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(PATIENCE_S);
        libxl_postfork_child_noexec(slot->ctx);
        /* libxenlight's own locks may have been held by another thread. */
        if (column == ALONE) {
            libxl_ctx *ctx = open_context();

            enable(ctx, NOBODY, 7);
            expect_death(ctx, NOBODY, 7);
            close_context(ctx);
        }
        _exit(0);
    }
    pthread_rwlock_unlock(&own_handles_lock);
    CHECK_EQUAL(waitpid(pid, &status, 0), pid);
    if (status != 0)
        FAIL("a forked child has ended with %#x", (unsigned)status);
    leave(slot);
    let_daemon();
    forks++;
}

static void look_around(struct slot *slot)
{
    struct xlevent_stats stats;
    struct pollfd fd;
    int nfds = 0, timeout = -1;

    switch (below(7)) {
    case 0:
        CHECK_EQUAL(xlevent_stats(slot->ctx, &stats, sizeof stats), 0);
        CHECK_EQUAL(stats.filled, sizeof stats);
        CHECK_EQUAL(stats.disasters, 0);
        break;
    case 1:
        CHECK_EQUAL(xlevent_wait_cancel(slot->ctx), 0);
        break;
    case 2:
        CHECK_EQUAL(libxl_osevent_beforepoll(slot->ctx, &nfds, &fd, &timeout, no_time), ERROR_BUFFERFULL);
        CHECK_EQUAL(nfds, 1);
        break;
    case 3:
        /* One that nobody has registered is ignored. */
        libxl_osevent_occurred_fd(slot->ctx, &fd, 0, POLLIN, POLLIN);
        libxl_osevent_occurred_timeout(slot->ctx, &fd);
        break;
    case 4:
        if (slot->way == OWNS_NO_CHILDREN) {
            libxl_childproc_sigchld_occurred(slot->ctx);
            CHECK_EQUAL(libxl_childproc_reaped(slot->ctx, 1, 0), ERROR_UNKNOWN_CHILD);
        }
        break;
    case 5:
        change_subscriber(slot);
        break;
    default:
        disable_one(slot);
    }
}

static void restart_daemon(void)
{
    daemon_wanted = true;
    pthread_rwlock_wrlock(&daemon_lock);
    daemon_changes++;
    host_kill_xenstored();
    if (one_in(2))
        pause_a_little();
    host_start_xenstored();
    daemon_changes++;
    pthread_rwlock_unlock(&daemon_lock);
    daemon_wanted = false;
    restarts++;
}

static void *work(void *arg)
{
    chance = *(uint64_t *)arg;
    while (!stop) {
        unsigned choice = below(1000);
        struct slot *slot = &slots[below(WAYS)];

        calls_made++;
        if (choice < 150) {
            begin_case();
        } else if (choice < 300) {
            end_case();
        } else if (choice < 400) {
            join_case();
        } else if (choice < 410) {
            live_shortly();
        } else if (choice < 413) {
            fork_once(slot);
        } else if (choice < 423) {
            eject_once(slot);
        } else if (choice < 433) {
            operate(slot);
        } else if (choice < 450) {
            if (take_over(slot)) {
                audit(slot, one_in(3));
                give_back(slot);
            }
        } else if (choice < 451) {
            if (one_in(4))
                restart_daemon();
        } else {
            enter(slot);
            if (choice < 600)
                look_around(slot);
            else
                take_some(slot);
            leave(slot);
        }
    }
    return NULL;
}

static unsigned long long setting(const char *name, unsigned long long otherwise)
{
    const char *value = getenv(name);

    return value && *value ? strtoull(value, NULL, 10) : otherwise;
}

TEST_WITH(sixteen_threads_and_every_event_accounted_for, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    unsigned long long seed = setting("STRESS_SEED", 1), length = setting("STRESS_SECONDS", 20);
    static uint64_t seeds[THREADS];
    pthread_t threads[THREADS];
    uint64_t end_ms = now_ms() + length * 1000;
    int i, fds;
    unsigned n, told = 0;

    for (n = 0; n < COUNT(spoil_names); n++)
        if (same_string(getenv("STRESS_SPOIL") ? getenv("STRESS_SPOIL") : "", spoil_names[n]))
            spoil = (enum spoil)n;
    /* The frame's limit is for tests that don't last. */
    alarm((unsigned)length + 3 * PATIENCE_S);
    log_quietly = true;
    may_fork = setting("STRESS_FORKS", 1) != 0;
    domains = calloc(DOMAINS_MAX, sizeof *domains);
    ledger = calloc(ENTRIES_MAX, sizeof *ledger);
    CHECK(domains && ledger);
    chance = seed;
    /* Whatever the libraries keep is there after the first. */
    close_context(open_context());
    fds = count_fds();
    for (i = 0; i < WAYS; i++) {
        slots[i].way = (enum way)i;
        pthread_rwlock_init(&slots[i].lock, NULL);
        pthread_mutex_init(&slots[i].loop, NULL);
        pthread_mutex_init(&slots[i].books, NULL);
        open_slot(&slots[i]);
    }
    for (i = 0; i < THREADS; i++) {
        seeds[i] = (seed + 1) * THREADS + (unsigned)i;
        threads[i] = start_thread(work, &seeds[i]);
    }
    while (now_ms() < end_ms)
        sleep(1);
    stop = true;
    /* Those that wait are called off, until all have come. */
    for (i = 0; i < THREADS; i++) {
        while (pthread_tryjoin_np(threads[i], NULL) != 0) {
            int s;

            for (s = 0; s < WAYS; s++)
                if (take_over(&slots[s]))
                    give_back(&slots[s]);
            pause_a_little();
        }
    }
    /* All domains end, and each death must come. */
    while (pool_size > 0)
        end_case();
    for (i = 0; i < WAYS; i++) {
        audit(&slots[i], false);
        close_slot(&slots[i]);
    }
    for (n = 0; n < entry_count; n++)
        told += ledger[n].what == OPERATION && ledger[n].others == 1;
    CHECK_EQUAL(told, operations);
    CHECK_EQUAL(count_fds(), fds);
    printf("FIGURE events: %lu\n", (unsigned long)events_seen);
    printf("FIGURE generators: %u\n", (unsigned)entry_count);
    printf("FIGURE domains: %u\n", (unsigned)domain_count);
    printf("FIGURE choices: %lu\n", (unsigned long)calls_made);
    printf("FIGURE contexts opened and freed: %lu\n", (unsigned long)lives);
    printf("FIGURE audits: %lu\n", (unsigned long)audits);
    printf("FIGURE waits called off: %lu\n", (unsigned long)waits_ended);
    printf("FIGURE subscribers freed: %lu\n", (unsigned long)subscribers_freed);
    printf("FIGURE operations: %lu\n", (unsigned long)operations);
    printf("FIGURE ejections: %lu\n", (unsigned long)ejections);
    printf("FIGURE forks: %lu\n", (unsigned long)forks);
    printf("FIGURE restarts of xenstored: %lu\n", (unsigned long)restarts);
    printf("FIGURE enables refused meanwhile: %lu\n", (unsigned long)refused);
    fflush(stdout);
}
