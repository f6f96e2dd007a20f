/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * See inject.h.
 *
 * - Nothing here takes memory or a lock in a wrapper: it may be called in a forked child, and from within the allocator's
 *   callers. Counters and the table of blocks are atomics.
 * - The table of the libraries' addresses is made anew when something has been loaded.
 */
#include "inject.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xenstore.h>

#include "harness/next.h"

const char *const inject_names[FUNCTION_COUNT] = {
#define AS_NAME(name) #name,
    FUNCTIONS(AS_NAME)
#undef AS_NAME
};

/* glibc's own, for the functions that take memory: dlsym may take some itself. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *block, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *block);

/* ---- whose call it is ---- */

enum { RANGES_MAX = 16, SITES_MAX = 64 };

static struct range {
    uintptr_t begin, end, base;
    enum whose whose;
    const char *name;
} ranges[RANGES_MAX];
static size_t range_count;

/* The calls of malloc and its like in libxlevent that are not Rust's, as return addresses in its file: INJECT_SITES. */
static uintptr_t sites[SITES_MAX];
static size_t site_count;

static enum whose library(const char *path)
{
    static const char *const xens[] = { "/libxenstore.so", "/libxenctrl.so", "/libxencall.so", "/libxentoolcore.so",
                                        "/libxentoollog.so" };
    size_t i;

    if (strstr(path, "/libxlevent.so"))
        return OURS;
    for (i = 0; i < sizeof xens / sizeof *xens; i++)
        if (strstr(path, xens[i]))
            return XENS;
    return NOBODYS;
}

static int add_range(struct dl_phdr_info *info, size_t size, void *unused)
{
    enum whose whose = library(info->dlpi_name);
    int i;

    (void)size, (void)unused;
    for (i = 0; whose != NOBODYS && i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];

        if (segment->p_type == PT_LOAD && (segment->p_flags & PF_X) && range_count < RANGES_MAX) {
            uintptr_t begin = info->dlpi_addr + segment->p_vaddr;

            ranges[range_count++] = (struct range){ begin, begin + segment->p_memsz, info->dlpi_addr, whose,
                                                    info->dlpi_name };
        }
    }
    return 0;
}

static void find_libraries(void)
{
    range_count = 0;
    dl_iterate_phdr(add_range, NULL);
}

__attribute__((constructor)) static void prepare(void)
{
    const char *list = getenv("INJECT_SITES");
    char *end;

    while (list && *list && site_count < SITES_MAX) {
        sites[site_count++] = strtoul(list, &end, 16);
        list = *end ? end + 1 : end;
    }
    find_libraries();
}

static const struct range *range_of(const void *address)
{
    uintptr_t at = (uintptr_t)address;
    size_t i;

    for (i = 0; i < range_count; i++)
        if (at >= ranges[i].begin && at < ranges[i].end)
            return &ranges[i];
    return NULL;
}

static enum whose caller(const void *address, enum function function)
{
    const struct range *range = range_of(address);
    size_t i;

    if (!range)
        return NOBODYS;
    if (range->whose != OURS || function > FN_strdup)
        return range->whose;
    for (i = 0; i < site_count; i++)
        if ((uintptr_t)address - range->base == sites[i])
            return OURS;
    return RUSTS;
}

/* ---- counting and failing ---- */

static bool active;
static struct fault fault;
static bool has_fault;
static unsigned long calls[WHOSE_COUNT][FUNCTION_COUNT], struck;
static const void *struck_at;
static __thread int paused __attribute__((tls_model("initial-exec")));

void inject_begin(const struct fault *wanted)
{
    has_fault = wanted != NULL;
    if (wanted)
        fault = *wanted;
    memset(calls, 0, sizeof calls);
    struck = 0;
    struck_at = NULL;
    __atomic_store_n(&active, true, __ATOMIC_SEQ_CST);
}

void inject_end(void)
{
    __atomic_store_n(&active, false, __ATOMIC_SEQ_CST);
}

unsigned long inject_calls(enum whose whose, enum function function)
{
    return __atomic_load_n(&calls[whose][function], __ATOMIC_RELAXED);
}

unsigned long inject_struck(void)
{
    return __atomic_load_n(&struck, __ATOMIC_RELAXED);
}

void inject_where(char *text, size_t size)
{
    const struct range *range = range_of(struck_at);

    if (range)
        snprintf(text, size, "%s+0x%lx", strrchr(range->name, '/') + 1, (unsigned long)((uintptr_t)struck_at - range->base));
    else
        snprintf(text, size, "nowhere");
}

void inject_pause(void)
{
    paused++;
}

void inject_resume(void)
{
    paused--;
}

/* Counts a call; whether it is to fail. errno is set then. */
static bool strikes(enum function function, const void *address, size_t size)
{
    enum whose whose;
    unsigned long number;

    if (!__atomic_load_n(&active, __ATOMIC_RELAXED) || paused)
        return false;
    whose = caller(address, function);
    if (whose == NOBODYS)
        return false;
    if (whose == RUSTS && size < LARGE)
        return false;
    number = __atomic_fetch_add(&calls[whose][function], 1, __ATOMIC_RELAXED);
    if (!has_fault || fault.function != function || fault.whose != whose || number < fault.first ||
        number - fault.first >= fault.times)
        return false;
    __atomic_fetch_add(&struck, 1, __ATOMIC_RELAXED);
    struck_at = address;
    errno = fault.errnum;
    return true;
}

#define CALLER __builtin_return_address(0)

/* ---- memory ---- */

/* The blocks that the libraries hold, by address. A place that was left is used again. */
enum { BLOCKS = 1 << 17 };
#define LEFT ((void *)1)
static struct block {
    void *address;
    const void *place;
} blocks[BLOCKS];

static size_t hash(const void *address)
{
    return ((uintptr_t)address >> 4) * 0x9e3779b97f4a7c15u >> 20;
}

static void note_block(void *address, const void *place)
{
    size_t at = hash(address), tries;

    if (!address || !range_of(place))
        return;
    for (tries = 0; tries < BLOCKS; tries++, at++) {
        struct block *block = &blocks[at % BLOCKS];
        void *there = __atomic_load_n(&block->address, __ATOMIC_RELAXED);

        if ((!there || there == LEFT) &&
            __atomic_compare_exchange_n(&block->address, &there, address, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
            block->place = place;
            return;
        }
    }
}

static void forget_block(void *address)
{
    size_t at = hash(address), tries;

    for (tries = 0; address && tries < BLOCKS; tries++, at++) {
        struct block *block = &blocks[at % BLOCKS];
        void *there = __atomic_load_n(&block->address, __ATOMIC_RELAXED);

        if (there == address) {
            __atomic_store_n(&block->address, LEFT, __ATOMIC_RELEASE);
            return;
        }
        if (!there)
            return;
    }
}

size_t inject_held(struct place places[PLACES_MAX])
{
    size_t i, at, count = 0;

    for (i = 0; i < BLOCKS; i++) {
        const struct range *range = range_of(blocks[i].place);
        unsigned long address;
        const char *name;

        if (!blocks[i].address || blocks[i].address == LEFT || !range)
            continue;
        address = (uintptr_t)blocks[i].place - range->base;
        name = strrchr(range->name, '/') + 1;
        for (at = 0; at < count; at++)
            if (places[at].address == address && strcmp(places[at].library, name) == 0)
                break;
        if (at == PLACES_MAX)
            continue;
        if (at == count) {
            snprintf(places[at].library, sizeof places[at].library, "%s", name);
            places[at].address = address;
            places[count++].blocks = 0;
        }
        places[at].blocks++;
    }
    return count;
}

void *malloc(size_t size)
{
    void *block = strikes(FN_malloc, CALLER, size) ? NULL : __libc_malloc(size);

    note_block(block, CALLER);
    return block;
}

void *calloc(size_t count, size_t size)
{
    void *block = strikes(FN_calloc, CALLER, count * size) ? NULL : __libc_calloc(count, size);

    note_block(block, CALLER);
    return block;
}

void *realloc(void *old, size_t size)
{
    void *block;

    if (strikes(FN_realloc, CALLER, size))
        return NULL;
    forget_block(old);
    block = __libc_realloc(old, size);
    if (!block && size)
        note_block(old, CALLER);
    note_block(block, CALLER);
    return block;
}

int posix_memalign(void **block, size_t alignment, size_t size)
{
    int before = errno;

    if (strikes(FN_posix_memalign, CALLER, size)) {
        errno = before;
        return ENOMEM;
    }
    *block = __libc_memalign(alignment, size);
    note_block(*block, CALLER);
    return *block ? 0 : ENOMEM;
}

char *strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = strikes(FN_strdup, CALLER, size) ? NULL : __libc_malloc(size);

    note_block(copy, CALLER);
    return copy ? memcpy(copy, text, size) : NULL;
}

void free(void *block)
{
    forget_block(block);
    __libc_free(block);
}

/* ---- all others ---- */

#define WRAP(type, name, parameters, arguments, failure)                                                               \
    type name parameters                                                                                               \
    {                                                                                                                  \
        return strikes(FN_##name, CALLER, 0) ? (failure) : NEXT(name) arguments;                                       \
    }

WRAP(int, epoll_create1, (int flags), (flags), -1)
WRAP(int, epoll_ctl, (int ep, int op, int fd, struct epoll_event *event), (ep, op, fd, event), -1)
WRAP(int, epoll_wait, (int ep, struct epoll_event *events, int max, int timeout), (ep, events, max, timeout), -1)
WRAP(int, timerfd_create, (clockid_t clock, int flags), (clock, flags), -1)
WRAP(int, timerfd_settime, (int fd, int flags, const struct itimerspec *new, struct itimerspec *old),
     (fd, flags, new, old), -1)
WRAP(int, eventfd, (unsigned count, int flags), (count, flags), -1)
WRAP(int, poll, (struct pollfd *fds, nfds_t count, int timeout), (fds, count, timeout), -1)
WRAP(void *, mmap, (void *at, size_t size, int protection, int flags, int fd, off_t offset),
     (at, size, protection, flags, fd, offset), MAP_FAILED)
WRAP(int, dup2, (int from, int to), (from, to), -1)
WRAP(int, dup3, (int from, int to, int flags), (from, to, flags), -1)
WRAP(int, pipe2, (int fds[2], int flags), (fds, flags), -1)
WRAP(int, socketpair, (int domain, int type, int protocol, int fds[2]), (domain, type, protocol, fds), -1)
WRAP(int, socket, (int domain, int type, int protocol), (domain, type, protocol), -1)
WRAP(int, connect, (int fd, const struct sockaddr *address, socklen_t length), (fd, address, length), -1)
WRAP(ssize_t, send, (int fd, const void *data, size_t length, int flags), (fd, data, length, flags), -1)
WRAP(ssize_t, recv, (int fd, void *data, size_t length, int flags), (fd, data, length, flags), -1)
WRAP(pid_t, fork, (void), (), -1)
WRAP(int, execve, (const char *path, char *const arguments[], char *const environment[]),
     (path, arguments, environment), -1)
WRAP(pid_t, waitpid, (pid_t pid, int *status, int options), (pid, status, options), -1)

/* These give an error number, and leave errno alone. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    int before = errno;

    if (strikes(FN_pthread_create, CALLER, 0)) {
        errno = before;
        return fault.errnum;
    }
    return NEXT(pthread_create)(thread, attributes, run, argument);
}

ssize_t read(int fd, void *data, size_t length)
{
    if (strikes(FN_read, CALLER, 0)) {
        if (fault.errnum)
            return -1;
        length = length > 1 ? 1 : length;
    }
    return NEXT(read)(fd, data, length);
}

ssize_t write(int fd, const void *data, size_t length)
{
    if (strikes(FN_write, CALLER, 0)) {
        if (fault.errnum)
            return -1;
        length = length > 1 ? 1 : length;
    }
    return NEXT(write)(fd, data, length);
}

#define WRAP_OPEN(name)                                                                                                \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        va_list arguments;                                                                                             \
        int mode;                                                                                                      \
                                                                                                                       \
        va_start(arguments, flags);                                                                                    \
        mode = va_arg(arguments, int);                                                                                 \
        va_end(arguments);                                                                                             \
        return strikes(FN_##name, CALLER, 0) ? -1 : NEXT(name)(path, flags, mode);                                     \
    }
WRAP_OPEN(open)
WRAP_OPEN(open64)

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    void *argument;

    va_start(arguments, request);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    return strikes(FN_ioctl, CALLER, 0) ? -1 : NEXT(ioctl)(fd, request, argument);
}

int fcntl(int fd, int command, ...)
{
    va_list arguments;
    void *argument;

    va_start(arguments, command);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    return strikes(FN_fcntl, CALLER, 0) ? -1 : NEXT(fcntl)(fd, command, argument);
}

/* Only pidfd_open counts, which libc of the time has no function for. */
long syscall(long number, ...)
{
    va_list arguments;
    long a[6];
    int i;

    va_start(arguments, number);
    for (i = 0; i < 6; i++)
        a[i] = va_arg(arguments, long);
    va_end(arguments);
    if (number == SYS_pidfd_open && strikes(FN_pidfd_open, CALLER, 0))
        return -1;
    return NEXT(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

void *dlopen(const char *path, int flags)
{
    void *library;

    library = NEXT(dlopen)(path, flags);
    if (library && path)
        find_libraries();
    return library;
}

WRAP(struct xs_handle *, xs_open, (unsigned long flags), (flags), NULL)
WRAP(int, xs_fileno, (struct xs_handle *xs), (xs), -1)
WRAP(bool, xs_watch, (struct xs_handle *xs, const char *path, const char *token), (xs, path, token), false)
WRAP(bool, xs_unwatch, (struct xs_handle *xs, const char *path, const char *token), (xs, path, token), false)
WRAP(char **, xs_check_watch, (struct xs_handle *xs), (xs), NULL)
WRAP(void *, xs_read, (struct xs_handle *xs, xs_transaction_t id, const char *path, unsigned *length),
     (xs, id, path, length), NULL)
WRAP(bool, xs_write, (struct xs_handle *xs, xs_transaction_t id, const char *path, const void *data, unsigned length),
     (xs, id, path, data, length), false)
WRAP(bool, xs_rm, (struct xs_handle *xs, xs_transaction_t id, const char *path), (xs, id, path), false)
WRAP(char **, xs_directory, (struct xs_handle *xs, xs_transaction_t id, const char *path, unsigned *count),
     (xs, id, path, count), NULL)
WRAP(bool, xs_set_permissions,
     (struct xs_handle *xs, xs_transaction_t id, const char *path, struct xs_permissions *entries, unsigned count),
     (xs, id, path, entries, count), false)
WRAP(xs_transaction_t, xs_transaction_start, (struct xs_handle *xs), (xs), XBT_NULL)
/* One that fails has ended: the daemon's transaction is called off, as it does itself then. */
bool xs_transaction_end(struct xs_handle *xs, xs_transaction_t id, bool off)
{
    bool fails = strikes(FN_xs_transaction_end, CALLER, 0), done;

    done = NEXT(xs_transaction_end)(xs, id, off || fails);
    if (fails)
        errno = fault.errnum;
    return done && !fails;
}
