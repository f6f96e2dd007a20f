/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes one call fail, of those that a library makes: `libinject.so`, preloaded ahead of the libraries under test.
 *
 * A call belongs to whoever holds its return address, so that the same function can fail for libxlevent and work for the
 * program and for Xen's libraries; or fail for Xen's libraries, which is what happens on libxlevent's behalf. What the
 * program does inside inject_pause is left alone, whoever makes the calls.
 *
 * It also knows which blocks of memory the libraries hold.
 */
#ifndef FAULTS_INJECT_H
#define FAULTS_INJECT_H

#include <stdbool.h>
#include <stddef.h>

/* F(name): every function that can be made to fail. */
#define FUNCTIONS(F)                                                                                                   \
    F(malloc) F(calloc) F(realloc) F(posix_memalign) F(strdup)                                                         \
    F(epoll_create1) F(epoll_ctl) F(epoll_wait) F(timerfd_create) F(timerfd_settime) F(eventfd) F(poll)                \
    F(read) F(write) F(open) F(open64) F(mmap) F(ioctl) F(fcntl) F(dup2) F(dup3) F(pipe2) F(socketpair) F(socket)      \
    F(connect) F(send) F(recv) F(fork) F(execve) F(waitpid) F(pidfd_open) F(pthread_create)                            \
    F(xs_open) F(xs_fileno) F(xs_watch) F(xs_unwatch) F(xs_check_watch) F(xs_read) F(xs_write) F(xs_rm)                \
    F(xs_directory) F(xs_set_permissions) F(xs_transaction_start) F(xs_transaction_end)

enum function {
#define AS_ENUM(name) FN_##name,
    FUNCTIONS(AS_ENUM)
#undef AS_ENUM
    FUNCTION_COUNT
};

extern const char *const inject_names[FUNCTION_COUNT];

/* Whose call it is. */
enum whose {
    OURS, /* libxlevent's; of the calls that take memory, those that are not Rust's own */
    RUSTS, /* what takes memory for Rust's collections and strings in libxlevent */
    XENS, /* libxenstore's, libxenctrl's and their like */
    WHOSE_COUNT,
    NOBODYS
};

struct fault {
    enum function function;
    enum whose whose;
    /* Of these calls, from 0, the first that fails, and how many do. */
    unsigned long first, times;
    /* What they fail with. 0: they do less than they were asked to (read, write). */
    int errnum;
};

/* Of Rust's blocks of memory only those of this size or more count: what may be refused. The others end the process. */
enum { LARGE = 16384 };

/* Begins to count calls, from 0, and lets these fail, if there is a fault. */
void inject_begin(const struct fault *fault);
/* No more of either. */
void inject_end(void);
/* How many there were. */
unsigned long inject_calls(enum whose whose, enum function function);
/* How many were made to fail. */
unsigned long inject_struck(void);
/* Where the last of them came from: an address in its library's file, and which that is; for addr2line. */
void inject_where(char *text, size_t size);

/* Around what the program does itself with the libraries; for the calling thread. */
void inject_pause(void);
void inject_resume(void);

/* A place in a library, by its address in the library's file, and how many blocks are held that were taken there. */
struct place {
    char library[30];
    unsigned long address, blocks;
};
enum { PLACES_MAX = 512 };

/* All blocks of memory that the libraries hold; how many places there are. */
size_t inject_held(struct place places[PLACES_MAX]);

#endif
