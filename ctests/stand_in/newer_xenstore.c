/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * See newer_xenstore.h.
 *
 * A connection to a newer daemon has a thread that takes the real connection's firings and fills a queue of its own, of
 * which the client's descriptor tells. Nothing is added for connections to an older one.
 */
#include "newer_xenstore.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xenctrl.h>
#include <xenstore.h>

#include "../harness/next.h"

#define ALL "@releaseDomain"
#define ONE ALL "/"
/* Of the watches on the real daemon that serve those on single domains. */
#define OWN_TOKEN "stand-in"

enum { CONNECTIONS_MAX = 1024, FEATURE_WATCHDEPTH = 1u << 4, FEATURES_BEFORE = 7 };

enum life { UNKNOWN, RUNNING, SHUT_DOWN, DEAD };

struct watch {
    struct watch *next;
    char *path, *token;
    uint32_t domid;
    enum life seen;
};

struct firing {
    struct firing *next;
    char **vector;
};

struct connection {
    struct xs_handle *handle;
    bool newer, threaded, serving;
    int release_watches;
    pthread_t thread;
    /* The client's descriptor: one byte is in it while something is queued. */
    int tell[2];
    int stop[2];
    xc_interface *xc;
    struct watch *watches;
    struct firing *first, **last;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct connection *connections[CONNECTIONS_MAX];
static bool newer_daemon = true, refusing;

static void before_fork(void) { pthread_mutex_lock(&lock); }
static void after_fork(void) { pthread_mutex_unlock(&lock); }

__attribute__((constructor)) static void prepare_for_forks(void)
{
    pthread_atfork(before_fork, after_fork, after_fork);
}

__attribute__((noreturn)) static void die(const char *what)
{
    fprintf(stderr, "newer_xenstore: %s: %s\n", what, strerror(errno));
    abort();
}

static void *allocate(size_t size)
{
    void *memory = calloc(1, size);

    if (!memory)
        die("memory");
    return memory;
}

/* ---- for the tests ---- */

void xenstored_is_newer(bool newer)
{
    __atomic_store_n(&newer_daemon, newer, __ATOMIC_SEQ_CST);
}

void xenstored_refuses_domains(bool refuses)
{
    __atomic_store_n(&refusing, refuses, __ATOMIC_SEQ_CST);
}

static int count_watches(bool of_domains)
{
    int count = 0;
    size_t i;

    pthread_mutex_lock(&lock);
    for (i = 0; i < CONNECTIONS_MAX; i++) {
        const struct watch *watch = connections[i] ? connections[i]->watches : NULL;

        for (; of_domains && watch; watch = watch->next)
            count++;
        if (!of_domains && connections[i])
            count += connections[i]->release_watches;
    }
    pthread_mutex_unlock(&lock);
    return count;
}

int domain_watches(void)
{
    return count_watches(true);
}

int release_watches(void)
{
    return count_watches(false);
}

/* ---- the client's queue; with the lock ---- */

static struct connection *find(const struct xs_handle *handle)
{
    size_t i;

    for (i = 0; i < CONNECTIONS_MAX; i++)
        if (connections[i] && connections[i]->handle == handle)
            return connections[i];
    return NULL;
}

static void push(struct connection *connection, char **vector)
{
    struct firing *firing = allocate(sizeof *firing);

    firing->vector = vector;
    if (!connection->first && write(connection->tell[1], "", 1) != 1)
        die("telling the client");
    *connection->last = firing;
    connection->last = &firing->next;
}

static char **pop(struct connection *connection)
{
    struct firing *firing = connection->first;
    char **vector, byte;

    if (!firing)
        return NULL;
    vector = firing->vector;
    connection->first = firing->next;
    free(firing);
    if (!connection->first) {
        connection->last = &connection->first;
        if (read(connection->tell[0], &byte, 1) != 1)
            die("the client's descriptor");
    }
    return vector;
}

/* One allocation with both strings, as libxenstore gives. */
static void fire(struct connection *connection, const struct watch *watch)
{
    size_t path = strlen(watch->path) + 1, token = strlen(watch->token) + 1;
    char **vector = allocate(2 * sizeof *vector + path + token);

    vector[XS_WATCH_PATH] = memcpy((char *)(vector + 2), watch->path, path);
    vector[XS_WATCH_TOKEN] = memcpy((char *)(vector + 2) + path, watch->token, token);
    push(connection, vector);
}

/* ---- domains; with the lock ---- */

/* By a hypercall that no other part of a test makes, so that it is not counted with theirs. */
static enum life life_of(struct connection *connection, uint32_t domid)
{
#if XEN_DOMCTL_INTERFACE_VERSION > 0x15
    xc_domaininfo_t info;

    if (!connection->xc)
        connection->xc = xc_interface_open(NULL, NULL, 0);
    if (!connection->xc)
        return UNKNOWN;
    if (xc_domain_getinfo_single(connection->xc, domid, &info) != 0)
        return errno == ESRCH ? DEAD : UNKNOWN;
    if (info.flags & XEN_DOMINF_dying)
        return DEAD;
    return info.flags & XEN_DOMINF_shutdown ? SHUT_DOWN : RUNNING;
#else
    /* Xen 4.17's. */
    xc_dominfo_t info;
    int found;

    if (!connection->xc)
        connection->xc = xc_interface_open(NULL, NULL, 0);
    if (!connection->xc || (found = xc_domain_getinfo(connection->xc, domid, 1, &info)) < 0)
        return UNKNOWN;
    if (found == 0 || info.domid != domid || info.dying)
        return DEAD;
    /* A crash is not called a shutdown here. */
    return info.shutdown || info.crashed ? SHUT_DOWN : RUNNING;
#endif
}

/* Some domain has ended. */
static void released(struct connection *connection)
{
    struct watch *watch;

    for (watch = connection->watches; watch; watch = watch->next) {
        enum life life = life_of(connection, watch->domid);

        if (life != RUNNING && !(life == DEAD && watch->seen == DEAD))
            fire(connection, watch);
        watch->seen = life;
    }
}

/* Some domain has begun, perhaps with the number of one that is dead; perhaps it has ended already. */
static void introduced(struct connection *connection)
{
    struct watch *watch;

    for (watch = connection->watches; watch; watch = watch->next)
        if (watch->seen == DEAD)
            watch->seen = UNKNOWN;
}

/* ---- the thread of a connection ---- */

static void *take_firings(void *argument)
{
    struct connection *connection = argument;
    struct pollfd fds[2] = { { .fd = NEXT(xs_fileno)(connection->handle), .events = POLLIN },
                             { .fd = connection->stop[0], .events = POLLIN } };
    char **vector;

    for (;;) {
        if (poll(fds, 2, -1) < 0) {
            /* poll refuses more descriptors than the process may have, and a test may let it have none for a moment. */
            if (errno == EINVAL)
                usleep(1000);
            else if (errno != EINTR)
                die("poll");
        }
        if (fds[1].revents)
            return NULL;
        while ((vector = NEXT(xs_check_watch)(connection->handle))) {
            pthread_mutex_lock(&lock);
            if (strcmp(vector[XS_WATCH_TOKEN], OWN_TOKEN) != 0) {
                push(connection, vector);
            } else {
                if (strcmp(vector[XS_WATCH_PATH], ALL) == 0)
                    released(connection);
                else
                    introduced(connection);
                free(vector);
            }
            pthread_mutex_unlock(&lock);
        }
    }
}

static void close_pipe(int fds[2])
{
    int error = errno;

    close(fds[0]), close(fds[1]);
    errno = error;
}

/* Where there is none yet and there must be one; whether that could be done. With the lock. */
static bool start_thread(struct connection *connection)
{
    if (!connection->newer || connection->threaded)
        return true;
    if (NEXT(xs_fileno)(connection->handle) < 0 || pipe2(connection->tell, O_CLOEXEC) != 0)
        return false;
    if (pipe2(connection->stop, O_CLOEXEC) != 0) {
        close_pipe(connection->tell);
        return false;
    }
    errno = pthread_create(&connection->thread, NULL, take_firings, connection);
    if (errno != 0) {
        close_pipe(connection->tell);
        close_pipe(connection->stop);
        return false;
    }
    connection->threaded = true;
    return true;
}

/* ---- libxenstore's functions ---- */

struct xs_handle *xs_open(unsigned long flags)
{
    struct xs_handle *handle = NEXT(xs_open)(flags);
    struct connection *connection;
    size_t i;

    if (!handle)
        return NULL;
    connection = allocate(sizeof *connection);
    connection->handle = handle;
    connection->newer = __atomic_load_n(&newer_daemon, __ATOMIC_SEQ_CST);
    connection->last = &connection->first;
    pthread_mutex_lock(&lock);
    for (i = 0; i < CONNECTIONS_MAX && connections[i]; i++)
        ;
    if (i == CONNECTIONS_MAX)
        die("too many connections");
    connections[i] = connection;
    pthread_mutex_unlock(&lock);
    return handle;
}

/* Frees what we have for a connection; in a child of fork the thread is the parent's. */
static void forget(struct xs_handle *handle, bool forked)
{
    struct connection *connection;
    size_t i;

    pthread_mutex_lock(&lock);
    connection = find(handle);
    for (i = 0; i < CONNECTIONS_MAX; i++)
        if (connection && connections[i] == connection)
            connections[i] = NULL;
    pthread_mutex_unlock(&lock);
    if (!connection)
        return;
    if (connection->threaded) {
        if (!forked) {
            if (write(connection->stop[1], "", 1) != 1)
                die("ending a thread");
            pthread_join(connection->thread, NULL);
        }
        close_pipe(connection->tell);
        close_pipe(connection->stop);
    }
    while (connection->first) {
        struct firing *firing = connection->first;

        connection->first = firing->next;
        free(firing->vector);
        free(firing);
    }
    while (connection->watches) {
        struct watch *watch = connection->watches;

        connection->watches = watch->next;
        free(watch->path);
        free(watch->token);
        free(watch);
    }
    if (connection->xc)
        xc_interface_close(connection->xc);
    free(connection);
}

void xs_close(struct xs_handle *handle)
{
    if (handle)
        forget(handle, false);
    NEXT(xs_close)(handle);
}

void xs_daemon_close(struct xs_handle *handle)
{
    if (handle)
        forget(handle, false);
    NEXT(xs_daemon_close)(handle);
}

void xs_daemon_destroy_postfork(struct xs_handle *handle)
{
    forget(handle, true);
    NEXT(xs_daemon_destroy_postfork)(handle);
}

/* Newer than the installed header. */
bool xs_get_features_domain(struct xs_handle *handle, unsigned domid, unsigned *features);

bool xs_get_features_domain(struct xs_handle *handle, unsigned domid, unsigned *features)
{
    struct connection *connection;
    unsigned length;
    bool newer;
    void *answer;

    pthread_mutex_lock(&lock);
    connection = find(handle);
    newer = connection && connection->newer;
    pthread_mutex_unlock(&lock);
    if (!newer || domid != 0) {
        errno = ENOSYS;
        return false;
    }
    /* As for the real question, there must be a daemon to answer it. */
    answer = xs_read(handle, XBT_NULL, "/", &length);
    if (!answer && errno != ENOENT)
        return false;
    free(answer);
    *features = FEATURES_BEFORE | FEATURE_WATCHDEPTH;
    return true;
}

static bool watch_domain(struct connection *connection, const char *path, const char *token)
{
    struct watch *watch;

    if (!connection->newer) {
        fprintf(stderr, "newer_xenstore: an older xenstored was given %s\n", path);
        abort();
    }
    if (__atomic_load_n(&refusing, __ATOMIC_SEQ_CST)) {
        errno = ENOSPC;
        return false;
    }
    if (!connection->serving) {
        struct xs_handle *handle = connection->handle;
        bool set;

        /* Waits for the daemon; the handle stays its owner's. */
        pthread_mutex_unlock(&lock);
        set = NEXT(xs_watch)(handle, "@introduceDomain", OWN_TOKEN) && NEXT(xs_watch)(handle, ALL, OWN_TOKEN);
        pthread_mutex_lock(&lock);
        if (!set)
            return false;
        connection->serving = true;
    } else {
        unsigned length;
        void *answer;

        pthread_mutex_unlock(&lock);
        answer = xs_read(connection->handle, XBT_NULL, "/", &length);
        pthread_mutex_lock(&lock);
        if (!answer && errno != ENOENT)
            return false;
        free(answer);
    }
    for (watch = connection->watches; watch; watch = watch->next)
        if (strcmp(watch->path, path) == 0 && strcmp(watch->token, token) == 0) {
            errno = EEXIST;
            return false;
        }
    watch = allocate(sizeof *watch);
    watch->path = strdup(path);
    watch->token = strdup(token);
    watch->domid = (uint32_t)strtoul(path + strlen(ONE), NULL, 10);
    watch->seen = life_of(connection, watch->domid);
    watch->next = connection->watches;
    connection->watches = watch;
    fire(connection, watch);
    return true;
}

bool xs_watch(struct xs_handle *handle, const char *path, const char *token)
{
    bool one = strncmp(path, ONE, strlen(ONE)) == 0, set;
    struct connection *connection;

    pthread_mutex_lock(&lock);
    connection = find(handle);
    if (connection) {
        if (!start_thread(connection)) {
            pthread_mutex_unlock(&lock);
            return false;
        }
        if (one) {
            set = watch_domain(connection, path, token);
            pthread_mutex_unlock(&lock);
            return set;
        }
    }
    pthread_mutex_unlock(&lock);
    set = NEXT(xs_watch)(handle, path, token);
    if (set && connection && strcmp(path, ALL) == 0) {
        pthread_mutex_lock(&lock);
        connection->release_watches++;
        pthread_mutex_unlock(&lock);
    }
    return set;
}

bool xs_unwatch(struct xs_handle *handle, const char *path, const char *token)
{
    struct connection *connection;
    struct watch **place, *watch = NULL;
    bool unset;

    pthread_mutex_lock(&lock);
    connection = find(handle);
    if (connection && strncmp(path, ONE, strlen(ONE)) == 0) {
        for (place = &connection->watches; *place; place = &(*place)->next)
            if (strcmp((*place)->path, path) == 0 && strcmp((*place)->token, token) == 0) {
                watch = *place;
                *place = watch->next;
                break;
            }
        pthread_mutex_unlock(&lock);
        if (!watch) {
            errno = ENOENT;
            return false;
        }
        free(watch->path);
        free(watch->token);
        free(watch);
        return true;
    }
    pthread_mutex_unlock(&lock);
    unset = NEXT(xs_unwatch)(handle, path, token);
    if (unset && connection && strcmp(path, ALL) == 0) {
        pthread_mutex_lock(&lock);
        connection->release_watches--;
        pthread_mutex_unlock(&lock);
    }
    return unset;
}

int xs_fileno(struct xs_handle *handle)
{
    struct connection *connection;
    bool newer;
    int fd = -1;

    pthread_mutex_lock(&lock);
    connection = find(handle);
    newer = connection && connection->newer;
    if (newer && start_thread(connection))
        fd = connection->tell[0];
    pthread_mutex_unlock(&lock);
    return newer ? fd : NEXT(xs_fileno)(handle);
}

char **xs_check_watch(struct xs_handle *handle)
{
    struct connection *connection;
    char **vector = NULL;

    pthread_mutex_lock(&lock);
    connection = find(handle);
    if (!connection || !connection->threaded) {
        pthread_mutex_unlock(&lock);
        return NEXT(xs_check_watch)(handle);
    }
    vector = pop(connection);
    pthread_mutex_unlock(&lock);
    if (!vector)
        errno = EAGAIN;
    return vector;
}
