/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who watches, and who enables and disables. See storm.h.
 *
 * Each observer has a context, with a logger of its own that counts, and a thread that waits in its own way. Generators are
 * enabled and disabled by threads of their own, as in a daemon that does many things at a time: an enable that fails since
 * xenstored is away is tried again.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "storm.h"

enum style { WAIT, POLL, HOOKS, CALLBACKS, DISPATCH, SUBSCRIBER };

struct registered {
    int fd;
    short events;
    void *for_libxl;
};

static struct observer {
    const char *name;
    enum style style;
    enum kind kind;
    /* Slots: all, or these two. */
    unsigned slots[2];
    /* First, for the logger's sake. */
    xentoollog_logger logger;
    uint64_t lines_lost, lines_found, lines_disaster, lines_other;
    libxl_ctx *ctx;
    struct xlevent_subscriber *subscriber;
    pthread_t thread;
    int wake[2];
    bool ended;
    uint64_t disasters;
    pthread_mutex_t lock;
    struct registered registered[8];
} all[] = {
    { .name = "event_wait, deaths", .style = WAIT, .kind = DEATHS },
    { .name = "beforepoll, states", .style = POLL, .kind = STATES },
    { .name = "hooks, deaths", .style = HOOKS, .kind = DEATHS },
    { .name = "callbacks, deaths", .style = CALLBACKS, .kind = DEATHS },
    { .name = "dispatch, any domain", .style = DISPATCH, .kind = ANY },
    { .name = "subscriber, any domain", .style = SUBSCRIBER, .kind = ANY },
    { .name = "event_wait, deaths of one", .style = WAIT, .kind = DEATHS, .slots = { 1, 1 } },
    { .name = "subscriber, states of one", .style = SUBSCRIBER, .kind = STATES, .slots = { 2, 2 } },
    { .name = "hooks, states of two", .style = HOOKS, .kind = STATES, .slots = { 3, 4 } },
    { .name = "callbacks, deaths of two", .style = CALLBACKS, .kind = DEATHS, .slots = { 5, 6 } },
};

enum { OBSERVERS = COUNT(all), TOOLSTACKS = 2 };

#define BIT(type) ((uint64_t)1 << LIBXL_EVENT_TYPE_##type)
static const uint64_t states = BIT(DOMAIN_SUSPENDED) | BIT(DOMAIN_RUNNING) | BIT(DOMAIN_SHUTDOWN) | BIT(DOMAIN_DEATH);

unsigned observers(void) { return OBSERVERS; }
const char *observer_name(unsigned observer) { return all[observer].name; }
enum kind kind_of_observer(unsigned observer) { return all[observer].kind; }

bool observes(unsigned observer, unsigned slot)
{
    const struct observer *it = &all[observer];

    return it->kind != ANY && (!it->slots[0] || it->slots[0] == slot || it->slots[1] == slot);
}

static unsigned number(const struct observer *it)
{
    return (unsigned)(it - all);
}

/* ---- the log ---- */

/* For how many a line stands: what repeats is held back for up to a minute, and then counted in one. */
static uint64_t stands_for(const char *text)
{
    const char *more = strstr(text, "(and ");
    unsigned long long others = 0;

    if (more && sscanf(more, "(and %llu more like it", &others) != 1)
        others = 0;
    return 1 + others;
}

static void log_line(xentoollog_logger *logger, xentoollog_level level, int errnoval, const char *context,
                     const char *format, va_list arguments)
{
    struct observer *it = (struct observer *)((char *)logger - offsetof(struct observer, logger));
    char text[500];

    vsnprintf(text, sizeof text, format, arguments);
    if (strstr(text, "waiting for it to come back")) {
        __atomic_fetch_add(&it->lines_lost, stands_for(text), __ATOMIC_SEQ_CST);
    } else if (strstr(text, "xenstored is back")) {
        __atomic_fetch_add(&it->lines_found, stands_for(text), __ATOMIC_SEQ_CST);
    } else if (strstr(text, "disaster")) {
        __atomic_fetch_add(&it->lines_disaster, 1, __ATOMIC_SEQ_CST);
        fprintf(stderr, "%s: %s (errno %d)\n", it->name, text, errnoval);
    } else if (level >= XTL_WARN) {
        __atomic_fetch_add(&it->lines_other, 1, __ATOMIC_SEQ_CST);
        fprintf(stderr, "%s: %s: %s (errno %d)\n", it->name, context ? context : "-", text, errnoval);
    }
}

/* ---- events ---- */

static void handle(struct observer *it, const libxl_event *event)
{
    static unsigned count;

    if (spoil != NOTHING_SPOILT && __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST) % 100 == 0) {
        if (spoil == SPOILT_BY_LOSS)
            return;
        take_in(number(it), event);
    }
    if (take_in(number(it), event))
        disable_later(number(it), event->for_user);
}

static void occurs(void *user, libxl_event *event)
{
    struct observer *it = user;

    handle(it, event);
    libxl_event_free(it->ctx, event);
}

static void disaster(void *user, libxl_event_type type, const char *message, int errnoval)
{
    struct observer *it = user;

    (void)type, (void)message, (void)errnoval;
    __atomic_fetch_add(&it->disasters, 1, __ATOMIC_SEQ_CST);
}

static void handle_from_table(void *user, const libxl_event *event)
{
    handle(user, event);
}

static void drain(struct observer *it)
{
    libxl_event *event;
    int rc;

    while ((rc = libxl_event_check(it->ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL)) == 0)
        occurs(it, event);
    CHECK(rc == ERROR_NOT_READY);
}

/* ---- hooks ---- */

static void wake(struct observer *it)
{
    CHECK(write(it->wake[1], "", 1) == 1 || errno == EAGAIN);
}

static int fd_register(void *user, int fd, void **out, short events, void *for_libxl)
{
    struct observer *it = user;
    size_t i;

    pthread_mutex_lock(&it->lock);
    for (i = 0; i < COUNT(it->registered) && it->registered[i].for_libxl; i++)
        ;
    CHECK(i < COUNT(it->registered));
    it->registered[i] = (struct registered){ fd, events, for_libxl };
    *out = &it->registered[i];
    pthread_mutex_unlock(&it->lock);
    wake(it);
    return 0;
}

static int fd_modify(void *user, int fd, void **registration, short events)
{
    struct observer *it = user;

    (void)fd;
    pthread_mutex_lock(&it->lock);
    ((struct registered *)*registration)->events = events;
    pthread_mutex_unlock(&it->lock);
    wake(it);
    return 0;
}

static void fd_deregister(void *user, int fd, void *registration)
{
    struct observer *it = user;

    (void)fd;
    pthread_mutex_lock(&it->lock);
    ((struct registered *)registration)->for_libxl = NULL;
    pthread_mutex_unlock(&it->lock);
}

static int timeout_register(void *user, void **out, struct timeval time, void *for_libxl)
{
    (void)user, (void)out, (void)time, (void)for_libxl;
    FAIL("a timeout was asked for");
}

static int timeout_modify(void *user, void **registration, struct timeval time)
{
    (void)user, (void)registration, (void)time;
    FAIL("a timeout was changed");
}

static void timeout_deregister(void *user, void *registration)
{
    (void)user, (void)registration;
    FAIL("a timeout was taken back");
}

static const libxl_osevent_hooks os_hooks = {
    .fd_register = fd_register,
    .fd_modify = fd_modify,
    .fd_deregister = fd_deregister,
    .timeout_register = timeout_register,
    .timeout_modify = timeout_modify,
    .timeout_deregister = timeout_deregister,
};

static void go_round_with_hooks(struct observer *it)
{
    struct registered ready[COUNT(it->registered)];
    struct pollfd fds[1 + COUNT(it->registered)];
    char bytes[64];
    nfds_t count = 1, i;

    fds[0] = (struct pollfd){ it->wake[0], POLLIN, 0 };
    pthread_mutex_lock(&it->lock);
    for (i = 0; i < COUNT(it->registered); i++)
        if (it->registered[i].for_libxl) {
            ready[count - 1] = it->registered[i];
            fds[count++] = (struct pollfd){ it->registered[i].fd, it->registered[i].events, 0 };
        }
    pthread_mutex_unlock(&it->lock);
    if (poll(fds, count, -1) < 0)
        return;
    if (fds[0].revents)
        CHECK(read(it->wake[0], bytes, sizeof bytes) > 0);
    for (i = 1; i < count; i++)
        if (fds[i].revents && !(fds[i].revents & POLLNVAL))
            libxl_osevent_occurred_fd(it->ctx, ready[i - 1].for_libxl, fds[i].fd, fds[i].events, fds[i].revents);
    drain(it);
}

/* ---- the other loops ---- */

static void go_round_with_poll(struct observer *it)
{
    struct timeval now = { 0, 0 };
    struct pollfd fds[8];
    int count = COUNT(fds) - 1, timeout = -1;
    char bytes[64];

    CHECK(libxl_osevent_beforepoll(it->ctx, &count, fds + 1, &timeout, now) == 0);
    fds[0] = (struct pollfd){ it->wake[0], POLLIN, 0 };
    if (poll(fds, (nfds_t)count + 1, timeout) < 0)
        return;
    if (fds[0].revents)
        CHECK(read(it->wake[0], bytes, sizeof bytes) > 0);
    libxl_osevent_afterpoll(it->ctx, count, fds + 1, now);
    drain(it);
}

static void dispatch_until_the_end(struct observer *it)
{
    static const struct xlevent_handler handlers[] = { { XLEVENT_ALL_OTHERS, handle_from_table } };
    int epoll = epoll_create1(EPOLL_CLOEXEC), fd = xlevent_get_fd(it->ctx);
    struct epoll_event event = { .events = EPOLLIN };
    char bytes[64];

    CHECK(epoll >= 0 && fd >= 0);
    event.data.fd = fd;
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
    event.data.fd = it->wake[0];
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, it->wake[0], &event) == 0);
    while (!__atomic_load_n(&it->ended, __ATOMIC_SEQ_CST)) {
        CHECK(xlevent_dispatch(it->ctx, handlers, it) >= 0);
        if (epoll_wait(epoll, &event, 1, -1) == 1 && event.data.fd == it->wake[0])
            CHECK(read(it->wake[0], bytes, sizeof bytes) > 0);
    }
    close(epoll);
}

static void *observe(void *user)
{
    struct observer *it = user;
    libxl_event *event;
    int rc;

    switch (it->style) {
    case DISPATCH:
        dispatch_until_the_end(it);
        break;
    case WAIT:
    case SUBSCRIBER:
        for (;;) {
            rc = it->style == WAIT
                     ? libxl_event_wait(it->ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL)
                     : xlevent_subscriber_wait(it->ctx, it->subscriber, &event, LIBXL_EVENTMASK_ALL, NULL, NULL, -1);
            if (rc == ERROR_ABORTED)
                break;
            CHECK(rc == 0);
            occurs(it, event);
        }
        break;
    default:
        while (!__atomic_load_n(&it->ended, __ATOMIC_SEQ_CST)) {
            if (it->style == HOOKS)
                go_round_with_hooks(it);
            else
                go_round_with_poll(it);
        }
    }
    return NULL;
}

/* ---- the toolstack ---- */

struct job {
    struct job *next;
    unsigned observer, slot;
    uint32_t domid;
    /* To be disabled; 0: something is to be enabled. */
    uint64_t user;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct job *first, **last;
    unsigned busy;
    bool ended;
    uint64_t retries, seed;
    pthread_t threads[TOOLSTACKS];
} toolstack = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .last = &toolstack.first };

static void add_job(struct job job)
{
    struct job *copy = malloc(sizeof *copy);

    CHECK(copy);
    *copy = job;
    copy->next = NULL;
    pthread_mutex_lock(&toolstack.lock);
    *toolstack.last = copy;
    toolstack.last = &copy->next;
    pthread_cond_broadcast(&toolstack.changed);
    pthread_mutex_unlock(&toolstack.lock);
}

void enable_for(unsigned slot, int life)
{
    unsigned observer;

    for (observer = 0; observer < OBSERVERS; observer++)
        if (observes(observer, slot))
            add_job((struct job){ .observer = observer, .slot = slot, .domid = domid_of(life) });
}

void disable_later(unsigned observer, uint64_t user)
{
    if (all[observer].kind != ANY)
        add_job((struct job){ .observer = observer, .user = user });
}

static void disable(struct observer *it, void *evgen)
{
    if (it->kind == DEATHS)
        libxl_evdisable_domain_death(it->ctx, evgen);
    else
        libxl_evdisable_domain_state(it->ctx, evgen);
}

/* Enables a generator; whether that has succeeded. */
static bool enable(struct observer *it, unsigned slot, uint32_t domid, uint64_t *user)
{
    uint64_t mask = it->kind == ANY ? states | BIT(DOMAIN_CREATED) : states;
    libxl_evgen_domain_state *state = NULL;
    libxl_evgen_domain_death *death = NULL;
    int rc;

    *user = begin_generator(number(it), it->kind, slot, domid);
    if (it->subscriber)
        rc = xlevent_subscriber_evenable_domain_state(it->ctx, it->subscriber, domid, mask, *user, &state);
    else if (it->kind == DEATHS)
        rc = libxl_evenable_domain_death(it->ctx, domid, *user, &death);
    else
        rc = libxl_evenable_domain_state(it->ctx, domid, mask, *user, &state);
    if (rc == 0) {
        generator_enabled(*user, death ? (void *)death : (void *)state);
        return true;
    }
    if (rc != ERROR_FAIL)
        FAIL("%s: an enable gives %d", it->name, rc);
    generator_ends(*user, true);
    return false;
}

static void do_job(const struct job *job)
{
    struct observer *it = &all[job->observer];
    uint64_t user;
    void *evgen;

    if (job->user) {
        evgen = generator_ends(job->user, false);
        if (evgen == STILL_ENABLING)
            add_job(*job);
        else if (evgen)
            disable(it, evgen);
    } else if (!enable(it, job->slot, job->domid, &user)) {
        __atomic_fetch_add(&toolstack.retries, 1, __ATOMIC_SEQ_CST);
        usleep(2000);
        add_job(*job);
    } else if (one_in(8)) {
        /* Another in its place. */
        disable_later(job->observer, user);
        add_job(*job);
    }
}

static void *run_toolstack(void *number)
{
    struct job *job;

    chance = toolstack.seed + (uintptr_t)number;
    pthread_mutex_lock(&toolstack.lock);
    for (;;) {
        while (!toolstack.first && !toolstack.ended)
            pthread_cond_wait(&toolstack.changed, &toolstack.lock);
        job = toolstack.first;
        if (!job)
            break;
        toolstack.first = job->next;
        if (!job->next)
            toolstack.last = &toolstack.first;
        toolstack.busy++;
        pthread_mutex_unlock(&toolstack.lock);
        do_job(job);
        free(job);
        pthread_mutex_lock(&toolstack.lock);
        toolstack.busy--;
        pthread_cond_broadcast(&toolstack.changed);
    }
    pthread_mutex_unlock(&toolstack.lock);
    return NULL;
}

void await_toolstack(void)
{
    pthread_mutex_lock(&toolstack.lock);
    while (toolstack.first || toolstack.busy)
        pthread_cond_wait(&toolstack.changed, &toolstack.lock);
    pthread_mutex_unlock(&toolstack.lock);
}

/* ---- beginning and end ---- */

static void open_observer(struct observer *it)
{
    libxl_event_hooks *hooks = calloc(1, sizeof *hooks);

    CHECK(hooks);
    it->logger.vmessage = log_line;
    pthread_mutex_init(&it->lock, NULL);
    CHECK(pipe2(it->wake, O_CLOEXEC | O_NONBLOCK) == 0);
    CHECK(libxl_ctx_alloc(&it->ctx, LIBXL_VERSION, 0, &it->logger) == 0);
    /* For the life of the context, and no less. */
    hooks->event_occurs_mask = it->style == CALLBACKS ? LIBXL_EVENTMASK_ALL : 0;
    hooks->event_occurs = occurs;
    hooks->disaster = disaster;
    libxl_event_register_callbacks(it->ctx, hooks, it);
    if (it->style == HOOKS)
        libxl_osevent_register_hooks(it->ctx, &os_hooks, it);
    if (it->style == SUBSCRIBER)
        CHECK(xlevent_subscriber_new(it->ctx, &it->subscriber) == 0);
}

void start_observers(uint64_t seed)
{
    uint64_t user;
    unsigned i;

    toolstack.seed = seed;
    for (i = 0; i < OBSERVERS; i++)
        open_observer(&all[i]);
    for (i = 0; i < OBSERVERS; i++)
        CHECK(all[i].kind != ANY || enable(&all[i], 0, LIBXL_DOMID_ANY, &user));
    for (i = 0; i < OBSERVERS; i++)
        all[i].thread = start_thread(observe, &all[i]);
    for (i = 0; i < TOOLSTACKS; i++)
        toolstack.threads[i] = start_thread(run_toolstack, (void *)(uintptr_t)(i + 1));
}

void stop_observers(void)
{
    unsigned i;

    pthread_mutex_lock(&toolstack.lock);
    toolstack.ended = true;
    pthread_cond_broadcast(&toolstack.changed);
    pthread_mutex_unlock(&toolstack.lock);
    for (i = 0; i < TOOLSTACKS; i++)
        finish_thread(toolstack.threads[i]);
    for (i = 0; i < OBSERVERS; i++) {
        struct observer *it = &all[i];
        struct xlevent_stats stats;

        __atomic_store_n(&it->ended, true, __ATOMIC_SEQ_CST);
        wake(it);
        if (it->style == WAIT)
            CHECK(xlevent_wait_cancel(it->ctx) == 0);
        if (it->style == SUBSCRIBER)
            CHECK(xlevent_subscriber_wait_cancel(it->ctx, it->subscriber) == 0);
        finish_thread(it->thread);
        CHECK(xlevent_stats(it->ctx, &stats, sizeof stats) == 0);
        CHECK(libxl_ctx_free(it->ctx) == 0);
        /* What was held back is written with the end of the context: now the log has told of each. */
        if (it->lines_lost != stats.xenstored_losses || it->lines_found != stats.reconnections)
            FAIL("%s: xenstored was lost %llu times and found %llu times, and the whole log says %llu and %llu", it->name,
                 (unsigned long long)stats.xenstored_losses, (unsigned long long)stats.reconnections,
                 (unsigned long long)it->lines_lost, (unsigned long long)it->lines_found);
        close(it->wake[0]);
        close(it->wake[1]);
    }
}

struct outages check_logs(void)
{
    uint64_t deadline = now_ms() + patience_s * 1000;
    struct outages sum = { .retries = __atomic_load_n(&toolstack.retries, __ATOMIC_SEQ_CST) };
    unsigned i;

    for (i = 0; i < OBSERVERS; i++) {
        struct observer *it = &all[i];
        struct xlevent_stats stats;

        /*
         * What is counted is logged a moment later, the first of it at once, the rest within a minute: never more than there
         * was. All of it is compared when the observers end.
         */
        for (;;) {
            uint64_t lost = __atomic_load_n(&it->lines_lost, __ATOMIC_SEQ_CST);
            uint64_t found = __atomic_load_n(&it->lines_found, __ATOMIC_SEQ_CST);

            CHECK(xlevent_stats(it->ctx, &stats, sizeof stats) == 0);
            if (lost <= stats.xenstored_losses && found <= stats.reconnections && !lost == !stats.xenstored_losses &&
                !found == !stats.reconnections)
                break;
            if (now_ms() > deadline)
                FAIL("%s: xenstored was lost %llu times and found %llu times, and the log says %llu and %llu", it->name,
                     (unsigned long long)stats.xenstored_losses, (unsigned long long)stats.reconnections,
                     (unsigned long long)it->lines_lost, (unsigned long long)it->lines_found);
            usleep(500);
        }
        sum.lost += stats.xenstored_losses;
        sum.found += stats.reconnections;
        sum.disasters += stats.disasters;
        if (stats.disasters != it->disasters)
            FAIL("%s: %llu disasters, and %llu told", it->name, (unsigned long long)stats.disasters,
                 (unsigned long long)it->disasters);
    }
    return sum;
}
