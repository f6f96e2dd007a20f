/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a process may do with the library as a file and as a tenant: load it, unload it, have several copies of it, fork over
 * and over while events flow, and live within limits. The library is loaded with dlopen, and so this program is linked with
 * the simulated host alone, unless `run` says otherwise.
 *
 * usage: processes TRIAL [NUMBER] [FILE...]      FILE: a copy of the library, or a plugin with one inside (plugin.c)
 *
 *   unload N FILE       loaded, used, unloaded, N times
 *   unload-in-use FILE  unloaded with a context open, and a thread inside
 *   copies FILE FILE    two files of it at the same time, and what they do about SIGCHLD
 *   beside FILE         another file, or a plugin, where a copy is in front of libxenlight already
 *   namespace FILE      with dlmopen; FILE brings the simulated host along
 *   linked              what this program is linked with
 *   own works|told [FILE...]         the same, or the copy inside this program (plugin.c), after these files have been loaded
 *   other works|told FILE [FILE...]  that copy, after the other files have been loaded; told: that another one is in front
 *   forks N FILE        N forks while events flow, of children that go on with the library or not
 *   jail DIR FILE       chroot to DIR, no /proc, and no longer root, with a context that is open
 *   kernel FILE         a kernel that refuses calls (seccomp)
 *
 * It prints nothing and exits with 0 if all was as it should be; else what was not, and exits with 1. It brings up a
 * host of its own. SEED is the seed of what is random.
 */
#include <dlfcn.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libxl_event.h>
#include <xentoollog.h>
#include <xensim.h>

#include "harness/assert.h"

/* ---- a copy of the library ---- */

#define FUNCTIONS(X)                                                                                                   \
    X(libxl_ctx_alloc) X(libxl_ctx_free) X(libxl_evenable_domain_death) X(libxl_evdisable_domain_death)                \
    X(libxl_event_wait) X(libxl_event_check) X(libxl_event_free) X(libxl_childproc_setmode)                            \
    X(libxl_postfork_child_noexec)

struct copy {
#define MEMBER(name) __typeof__(name) *name;
    FUNCTIONS(MEMBER)
};

/* That of plugin.c, where that is a part of this program. */
__attribute__((weak)) void *plugin_symbol(const char *name);

static struct copy functions_by(void *(*symbol)(const char *), void *handle)
{
    struct copy copy;

#define FIND(name)                                                                                                     \
    if (!(*(void **)&copy.name = symbol ? symbol(#name) : dlsym(handle, #name)))                                       \
        FAIL("%s is not there", #name);
    FUNCTIONS(FIND)
    return copy;
}

static struct copy functions_of(void *handle)
{
    void *(*symbol)(const char *) = NULL;

    if (handle != RTLD_DEFAULT)
        *(void **)&symbol = dlsym(handle, "plugin_symbol");
    return functions_by(symbol, handle);
}

static struct copy own_functions(void)
{
    return functions_by(plugin_symbol, RTLD_DEFAULT);
}

static void *load(const char *file, int flags)
{
    void *handle = dlopen(file, RTLD_NOW | flags);

    if (!handle)
        FAIL("%s", dlerror());
    return handle;
}

/* ---- what is done with it ---- */

enum { NOBODY = 30000 };

static xensim_host *host;
static atomic_int logged;
static char last_line[500];

static void log_line(xentoollog_logger *to, xentoollog_level level, int errnoval, const char *context, const char *format,
                     va_list arguments)
{
    (void)to, (void)errnoval, (void)context;
    if (level < XTL_WARN)
        return;
    vsnprintf(last_line, sizeof last_line, format, arguments);
    logged++;
}

static xentoollog_logger logger = { log_line, NULL, NULL };

static libxl_ctx *open_with(const struct copy *copy)
{
    libxl_ctx *ctx = NULL;
    int rc = copy->libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &logger);

    if (rc != 0)
        FAIL("libxl_ctx_alloc: %d, %s", rc, last_line);
    return ctx;
}

static void enable(const struct copy *copy, libxl_ctx *ctx, uint32_t domid, libxl_ev_user user)
{
    libxl_evgen_domain_death *evgen;

    CHECK_EQUAL(copy->libxl_evenable_domain_death(ctx, domid, user, &evgen), 0);
}

static void expect(const struct copy *copy, libxl_ctx *ctx, uint32_t domid, libxl_ev_user user)
{
    libxl_event *event;

    CHECK_EQUAL(copy->libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), 0);
    CHECK_EQUAL(event->type, LIBXL_EVENT_TYPE_DOMAIN_DEATH);
    CHECK_EQUAL(event->domid, domid);
    CHECK_EQUAL(event->for_user, user);
    copy->libxl_event_free(ctx, event);
}

static void expect_nothing(const struct copy *copy, libxl_ctx *ctx)
{
    libxl_event *event;

    CHECK_EQUAL(copy->libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_NOT_READY);
}

/* A domain's life and death, on a context of its own. */
static void use(const struct copy *copy)
{
    libxl_ctx *ctx = open_with(copy);
    uint32_t domid;

    CHECK_EQUAL(xensim_create(host, "guest", &domid), 0);
    enable(copy, ctx, domid, 1);
    CHECK_EQUAL(xensim_destroy(host, domid), 0);
    expect(copy, ctx, domid, 1);
    expect_nothing(copy, ctx);
    CHECK_EQUAL(copy->libxl_ctx_free(ctx), 0);
}

static void *use_in_a_thread(void *copy)
{
    use(copy);
    return NULL;
}

static void end_in_order(void *unused)
{
    (void)unused;
    exit(0);
}

/* Files that are mapped: a line for each of their parts. */
static long mapped_parts(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[4096];
    long count = 0;

    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps))
        count += strchr(line, '/') != NULL;
    fclose(maps);
    return count;
}

static void *sigchld_handler(void)
{
    struct sigaction action;

    CHECK_EQUAL(sigaction(SIGCHLD, NULL, &action), 0);
    return *(void **)&action.sa_handler;
}

/* ---- unload ---- */

static void unload(int times, const char *file)
{
    static const libxl_childproc_hooks selective = { .chldowner = libxl_sigchld_owner_libxl_always_selective_reap };
    long parts = 0;
    int fds = 0;
    int i;

    for (i = 0; i < times; i++) {
        void *handle = load(file, i % 2 ? RTLD_GLOBAL : RTLD_LOCAL);
        struct copy copy = functions_of(handle);
        libxl_ctx *ctx = open_with(&copy);
        pthread_t thread;

        copy.libxl_childproc_setmode(ctx, &selective, NULL);
        CHECK(sigchld_handler() != SIG_DFL);
        enable(&copy, ctx, NOBODY, 7);
        expect(&copy, ctx, NOBODY, 7);
        thread = start_thread(use_in_a_thread, &copy);
        if (i % 3 == 0) /* one that ends after the library was unloaded, as it believes */
            finish_thread(thread);
        else
            use(&copy);
        CHECK_EQUAL(copy.libxl_ctx_free(ctx), 0);
        CHECK(sigchld_handler() == SIG_DFL);
        if (i % 3 != 0)
            finish_thread(thread);
        CHECK_EQUAL(dlclose(handle), 0);
        /* It stays all the same. */
        CHECK(dlopen(file, RTLD_NOW | RTLD_NOLOAD) == handle && dlclose(handle) == 0);
        CHECK_EQUAL(in_child(end_in_order, NULL), 0);
        CHECK_EQUAL(raise(SIGCHLD), 0);
        if (i == 1)
            parts = mapped_parts(), fds = count_fds();
        if (i > 1) {
            CHECK_EQUAL(mapped_parts(), parts);
            CHECK_EQUAL(count_fds(), fds);
        }
    }
}

/* One that is unloaded with a context left open, its threads, its handler and all: nothing that is called later is gone. */
static void *wait_for_ever(void *argument)
{
    const struct copy *copy = ((void **)argument)[0];
    libxl_event *event;

    copy->libxl_event_wait(((void **)argument)[1], &event, LIBXL_EVENTMASK_ALL, NULL, NULL);
    return NULL;
}

static void unload_in_use(const char *file)
{
    static const libxl_childproc_hooks selective = { .chldowner = libxl_sigchld_owner_libxl_always_selective_reap };
    void *handle = load(file, RTLD_LOCAL);
    struct copy copy = functions_of(handle);
    libxl_ctx *ctx = open_with(&copy);
    void *argument[2] = { &copy, ctx };
    int i;

    copy.libxl_childproc_setmode(ctx, &selective, NULL);
    enable(&copy, ctx, 0, 1);
    start_thread(wait_for_ever, argument);
    CHECK_EQUAL(dlclose(handle), 0);
    for (i = 0; i < 10; i++) {
        CHECK_EQUAL(in_child(end_in_order, NULL), 0); /* fork handlers, and SIGCHLD */
        CHECK_EQUAL(system("true"), 0);
    }
    exit(0);
}

/* ---- copies ---- */

struct user {
    const struct copy *copy;
    uint32_t first, count;
    pthread_t thread;
};

static void *count_deaths(void *argument)
{
    struct user *user = argument;
    libxl_ctx *ctx = open_with(user->copy);
    uint32_t i;

    for (i = 0; i < user->count; i++)
        enable(user->copy, ctx, user->first + i, user->first + i);
    for (i = 0; i < user->count; i++)
        CHECK_EQUAL(xensim_destroy(host, user->first + i) == 0 || errno == ESRCH, 1);
    for (i = 0; i < user->count; i++) {
        libxl_event *event;

        CHECK_EQUAL(user->copy->libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), 0);
        CHECK_EQUAL(event->domid, event->for_user);
        user->copy->libxl_event_free(ctx, event);
    }
    expect_nothing(user->copy, ctx);
    CHECK_EQUAL(user->copy->libxl_ctx_free(ctx), 0);
    return NULL;
}

static void at_the_same_time(const struct copy *copies, size_t how_many)
{
    struct user users[8];
    struct xensim_config config = { .name = "guest", .domid = 100, .nodes = XENSIM_NODES_NONE };
    size_t i;

    CHECK_EQUAL(xensim_create_many(host, &config, 20, NULL), 0);
    for (i = 0; i < 2 * how_many; i++) {
        users[i] = (struct user){ .copy = &copies[i % how_many], .first = 100, .count = 20 };
        users[i].thread = start_thread(count_deaths, &users[i]);
    }
    for (i = 0; i < 2 * how_many; i++)
        finish_thread(users[i].thread);
}

static void two_copies(char **files)
{
    static const libxl_childproc_hooks always = { .chldowner = libxl_sigchld_owner_libxl_always };
    struct copy copies[2] = { functions_of(load(files[0], RTLD_GLOBAL)), functions_of(load(files[1], RTLD_LOCAL)) };
    libxl_ctx *first, *second;
    void *handler;
    int lines;

    /* They are two. */
    CHECK(copies[0].libxl_ctx_alloc != copies[1].libxl_ctx_alloc);
    at_the_same_time(copies, 2);
    /* SIGCHLD has one handler: who comes second is told, and leaves it alone. */
    first = open_with(&copies[0]);
    second = open_with(&copies[1]);
    copies[0].libxl_childproc_setmode(first, &always, NULL);
    handler = sigchld_handler();
    CHECK(handler != SIG_DFL);
    lines = logged;
    copies[1].libxl_childproc_setmode(second, &always, NULL);
    CHECK(sigchld_handler() == handler);
    CHECK_EQUAL(logged, lines + 1);
    /* A context of the one is none of the other's. */
    CHECK_EQUAL(copies[1].libxl_ctx_free(first), ERROR_INVAL);
    CHECK_EQUAL(copies[0].libxl_ctx_free(first), 0);
    CHECK(sigchld_handler() == SIG_DFL);
    CHECK_EQUAL(copies[1].libxl_ctx_free(second), 0);
    CHECK(sigchld_handler() == SIG_DFL);
    CHECK_EQUAL(in_child(end_in_order, NULL), 0);
    use(&copies[0]);
    use(&copies[1]);
}

/* It works, or says which copy is in front of libxenlight, and leaves nothing behind. */
static void one_copy(const struct copy *copy, const char *expected)
{
    libxl_ctx *ctx = (libxl_ctx *)&logger;
    int lines = logged;
    int fds;

    if (strcmp(expected, "works") == 0) {
        use(copy);
        CHECK_EQUAL(logged, lines);
        return;
    }
    fds = count_fds();
    CHECK_EQUAL(copy->libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &logger), ERROR_FAIL);
    CHECK(ctx == NULL);
    CHECK_EQUAL(logged, lines + 1);
    if (!strstr(last_line, "another copy") || !strstr(last_line, "LD_PRELOAD"))
        FAIL("%s", last_line);
    CHECK_EQUAL(count_fds(), fds);
    /* Without a logger, too. */
    CHECK_EQUAL(copy->libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, NULL), ERROR_FAIL);
}

static void own(const char *expected, char **files)
{
    struct copy copy = own_functions();

    for (; *files; files++)
        load(*files, RTLD_LOCAL);
    one_copy(&copy, expected);
}

static void other(const char *expected, char **files)
{
    struct copy copy;
    char **file;

    for (file = files + 1; *file; file++)
        load(*file, RTLD_LOCAL);
    copy = functions_of(load(files[0], RTLD_LOCAL));
    one_copy(&copy, expected);
    /* A second one, now that something is known of the first. */
    one_copy(&copy, expected);
}

/* Two are in front, and one of them is it; others are told. libxenlight is there. */
static void beside_libxenlight(int count, char **files)
{
    struct copy front = functions_of(RTLD_DEFAULT);
    Dl_info info;
    int i;

    CHECK(dladdr(*(void **)&front.libxl_event_wait, &info) && strstr(info.dli_fname, "libxlevent"));
    CHECK(dlsym(RTLD_DEFAULT, "libxl_domain_info") != NULL);
    use(&front);
    for (i = 0; i < count; i++) {
        struct copy other = functions_of(load(files[i], RTLD_LOCAL));
        libxl_ctx *ctx = (libxl_ctx *)&logger;
        int lines = logged;

        CHECK(other.libxl_ctx_alloc != front.libxl_ctx_alloc);
        CHECK_EQUAL(other.libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &logger), ERROR_FAIL);
        CHECK(ctx == NULL && logged > lines);
        CHECK(strstr(last_line, "another copy") != NULL);
        use(&front);
    }
}

static void namespace(const char *file)
{
    void *handle = dlmopen(LM_ID_NEWLM, file, RTLD_NOW | RTLD_LOCAL);
    struct copy copy;

    if (!handle)
        FAIL("%s", dlerror());
    copy = functions_of(handle);
    use(&copy);
    CHECK_EQUAL(in_child(end_in_order, NULL), 0);
    use(&copy);
}

/* ---- forks ---- */

static const struct copy *forked_copy;
static libxl_ctx *parents;
static unsigned kind_of_child;

static void be_a_child(void *unused)
{
    (void)unused;
    switch (kind_of_child % 4) {
    case 0:
        exit(0);
    case 1:
        forked_copy->libxl_postfork_child_noexec(parents);
        exit(0);
    case 2: {
        libxl_ctx *own;

        forked_copy->libxl_postfork_child_noexec(parents);
        own = open_with(forked_copy);
        enable(forked_copy, own, NOBODY, 5);
        expect(forked_copy, own, NOBODY, 5);
        CHECK_EQUAL(forked_copy->libxl_ctx_free(own), 0);
        _exit(0);
    }
    default: {
        /* Forgets nothing, and asks: an error, and no hang. */
        libxl_event *event;

        fclose(stderr);
        close(2);
        CHECK_EQUAL(forked_copy->libxl_event_wait(parents, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_INVAL);
        exit(0);
    }
    }
}

static atomic_bool stop;
static atomic_long deaths, made;

static void *fetch(void *unused)
{
    (void)unused;
    for (;;) {
        libxl_event *event;
        bool last;

        CHECK_EQUAL(forked_copy->libxl_event_wait(parents, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), 0);
        last = event->for_user == 99;
        CHECK_EQUAL(event->type, LIBXL_EVENT_TYPE_DOMAIN_DEATH);
        forked_copy->libxl_event_free(parents, event);
        if (last)
            return NULL;
        deaths++;
    }
}

static void *let_domains_die(void *unused)
{
    (void)unused;
    while (!stop) {
        struct xensim_config config = { .name = "guest", .domid = XENSIM_DOMID_ANY, .nodes = XENSIM_NODES_NONE };
        libxl_evgen_domain_death *evgen;
        uint32_t domid;
        long before = deaths;

        CHECK_EQUAL(xensim_create_many(host, &config, 1, &domid), 0);
        CHECK_EQUAL(forked_copy->libxl_evenable_domain_death(parents, domid, 1, &evgen), 0);
        CHECK_EQUAL(xensim_destroy(host, domid), 0);
        made++;
        WAIT_UNTIL(deaths != before);
        forked_copy->libxl_evdisable_domain_death(parents, evgen);
    }
    return NULL;
}

static void many_forks(int times, const char *file)
{
    struct copy copy = functions_of(load(file, RTLD_LOCAL));
    pthread_t fetcher, maker;
    int fds;
    int i;

    forked_copy = &copy;
    srand((unsigned)atoi(getenv("SEED") ? getenv("SEED") : "1"));
    parents = open_with(&copy);
    enable(&copy, parents, 0, 1);
    enable(&copy, parents, NOBODY, 1);
    fetcher = start_thread(fetch, NULL);
    WAIT_UNTIL(deaths >= 1);
    fds = count_fds();
    maker = start_thread(let_domains_die, NULL);
    WAIT_UNTIL(deaths >= 2);
    for (i = 0; i < times; i++) {
        kind_of_child = (unsigned)rand();
        CHECK_EQUAL(in_child(be_a_child, NULL), 0);
    }
    stop = true;
    finish_thread(maker);
    enable(&copy, parents, NOBODY, 99);
    finish_thread(fetcher);
    CHECK_EQUAL(deaths, made + 1);
    CHECK_EQUAL(count_fds(), fds);
    CHECK_EQUAL(copy.libxl_ctx_free(parents), 0);
    printf("FIGURE deaths told meanwhile: %ld events\n", (long)made);
    fflush(stdout);
}

/* ---- limits ---- */

/* As daemons do that open what they need and then lock themselves in. The host is commanded from outside. */
static void lock_in(void *argument)
{
    const char *dir = ((char **)argument)[0];
    struct copy copy = functions_of(load(((char **)argument)[1], RTLD_LOCAL));
    libxl_ctx *ctx, *other = (libxl_ctx *)&logger;
    libxl_event *event;
    uint32_t domid, later;

    CHECK_EQUAL(xensim_create(host, "guest", &domid), 0);
    CHECK_EQUAL(xensim_create(host, "guest", &later), 0);
    ctx = open_with(&copy);
    enable(&copy, ctx, domid, 1);
    if (fork() == 0) {
        sleep(1);
        CHECK_EQUAL(xensim_destroy(host, domid), 0);
        CHECK_EQUAL(xensim_shutdown(host, later, XENSIM_REASON_CRASH), 0);
        _exit(0);
    }
    CHECK_EQUAL(chroot(dir), 0);
    CHECK_EQUAL(chdir("/"), 0);
    CHECK_EQUAL(setgid(65534), 0);
    CHECK_EQUAL(setuid(65534), 0);
    CHECK_EQUAL(access("/proc/self", F_OK), -1);
    expect(&copy, ctx, domid, 1);
    /* More domains are no trouble: the connections are there. */
    enable(&copy, ctx, later, 2);
    CHECK_EQUAL(copy.libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), 0);
    CHECK_EQUAL(event->type, LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN);
    copy.libxl_event_free(ctx, event);
    enable(&copy, ctx, NOBODY, 3);
    expect(&copy, ctx, NOBODY, 3);
    /* A new context is, and that is an error. */
    CHECK_EQUAL(copy.libxl_ctx_alloc(&other, LIBXL_VERSION, 0, &logger), ERROR_FAIL);
    CHECK(other == NULL);
    CHECK(logged > 0);
    CHECK_EQUAL(copy.libxl_ctx_free(ctx), 0);
}

/* From now on the kernel refuses these, as one that is too old does, or a daemon's sandbox. */
static void refuse(const int *calls, size_t count, int errnoval)
{
    struct sock_filter filter[32] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    };
    struct sock_fprog program = { .filter = filter };
    size_t i, n = 1;

    for (i = 0; i < count; i++) {
        filter[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], 0, 1);
        filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)errnoval);
    }
    filter[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    program.len = (unsigned short)n;
    CHECK_EQUAL(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    CHECK_EQUAL(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static void without_what_can_be_done_without(void *file)
{
    static const int calls[] = { SYS_pidfd_open, SYS_close_range, SYS_openat2, SYS_clone3 };
    struct copy copy = functions_of(load(file, RTLD_LOCAL));

    refuse(calls, COUNT(calls), ENOSYS);
    use(&copy);
    CHECK_EQUAL(logged, 0);
}

static void without_one_that_is_needed(const struct copy *copy, int call, int errnoval)
{
    libxl_ctx *ctx = NULL;
    libxl_evgen_domain_death *evgen;
    libxl_event *event;
    int rc;

    refuse(&call, 1, errnoval);
    rc = copy->libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &logger);
    if (rc == 0)
        rc = copy->libxl_evenable_domain_death(ctx, NOBODY, 1, &evgen);
    if (rc == 0)
        rc = copy->libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL);
    CHECK_EQUAL(rc, ERROR_FAIL);
    CHECK(logged > 0);
    if (ctx)
        CHECK_EQUAL(copy->libxl_ctx_free(ctx), 0);
}

static const struct copy *refused_copy;
static int refused_call;

static void without_this_one(void *unused)
{
    (void)unused;
    without_one_that_is_needed(refused_copy, refused_call, EPERM);
}

static void kernel(const char *file)
{
    static const int needed[] = { SYS_timerfd_create, SYS_epoll_create1, SYS_eventfd2, SYS_socket };
    struct copy copy = functions_of(load(file, RTLD_LOCAL));
    size_t i;

    CHECK_EQUAL(in_child(without_what_can_be_done_without, (void *)file), 0);
    refused_copy = &copy;
    for (i = 0; i < COUNT(needed); i++) {
        refused_call = needed[i];
        CHECK_EQUAL(in_child(without_this_one, NULL), 0);
    }
    use(&copy);
}

int main(int argc, char **argv)
{
    const char *trial = argc > 1 ? argv[1] : "";

    host = xensim_up(0);
    if (!host) {
        fprintf(stderr, "    no simulated host: %s\n", xensim_error());
        return 1;
    }
    if (strcmp(trial, "unload") == 0 && argc == 4)
        unload(atoi(argv[2]), argv[3]);
    else if (strcmp(trial, "unload-in-use") == 0 && argc == 3)
        unload_in_use(argv[2]);
    else if (strcmp(trial, "copies") == 0 && argc == 4)
        two_copies(argv + 2);
    else if (strcmp(trial, "beside") == 0)
        beside_libxenlight(argc - 2, argv + 2);
    else if (strcmp(trial, "namespace") == 0 && argc == 3)
        namespace(argv[2]);
    else if (strcmp(trial, "linked") == 0) {
        struct copy copy = functions_of(RTLD_DEFAULT);

        use(&copy);
    } else if (strcmp(trial, "own") == 0 && argc >= 3)
        own(argv[2], argv + 3);
    else if (strcmp(trial, "other") == 0 && argc >= 4)
        other(argv[2], argv + 3);
    else if (strcmp(trial, "forks") == 0 && argc == 4)
        many_forks(atoi(argv[2]), argv[3]);
    else if (strcmp(trial, "jail") == 0 && argc == 4)
        CHECK_EQUAL(in_child(lock_in, argv + 2), 0);
    else if (strcmp(trial, "kernel") == 0 && argc == 3)
        kernel(argv[2]);
    else {
        fprintf(stderr, "    no such trial\n");
        return 2;
    }
    return 0;
}
