/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What lies between code that a newer LLVM has instrumented for ThreadSanitizer, and the runtime of GCC that watches it. It is
 * preloaded, and compiled without the sanitizer.
 *
 * - LLVM calls memcpy and its like by names that GCC's runtime hasn't. It watches the ordinary ones.
 * - Rust's Arc counts down with a release, and whoever comes to zero has a fence before it frees. The sanitizer knows no
 *   fences, and would report each Arc that two threads have had. So here every count-down acquires, too. What it may not see
 *   for that: races with what a thread does that has just let go of a read lock, the only other thing that counts down so.
 * - The runtime has a thread of its own: from a process's first pthread_create on, and in a child from the fork on, which gets
 *   a second one at its own first pthread_create if its parent had none. Tests, each in a child of its program, count
 *   threads; so the program calls pthread_create before it forks.
 */
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "harness/next.h"

/* As the compilers number them. */
enum { RELEASE = 3, ACQUIRE_AND_RELEASE = 4 };

/* There in programs that are watched, and not in others that they start. */
void __tsan_init(void) __attribute__((weak));
void *__tsan_memcpy(void *to, const void *from, size_t size);
void *__tsan_memmove(void *to, const void *from, size_t size);
void *__tsan_memset(void *to, int byte, size_t size);
uint64_t __tsan_atomic64_fetch_sub(volatile uint64_t *at, uint64_t value, int order);

void *__tsan_memcpy(void *to, const void *from, size_t size)
{
    return memcpy(to, from, size);
}

void *__tsan_memmove(void *to, const void *from, size_t size)
{
    return memmove(to, from, size);
}

void *__tsan_memset(void *to, int byte, size_t size)
{
    return memset(to, byte, size);
}

uint64_t __tsan_atomic64_fetch_sub(volatile uint64_t *at, uint64_t value, int order)
{
    return NEXT(__tsan_atomic64_fetch_sub)(at, value, order == RELEASE ? ACQUIRE_AND_RELEASE : order);
}

static void *nothing(void *unused)
{
    return unused;
}

static void __attribute__((constructor)) begin(void)
{
    pthread_t thread;

    if (!__tsan_init)
        return;
    __tsan_init();
    if (pthread_create(&thread, NULL, nothing, NULL) == 0)
        pthread_join(thread, NULL);
}
