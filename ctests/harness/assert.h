/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Assertions, and what is asked of processes and threads again and again. The frame of the C tests (check.h) is built on them;
 * trials and the simulated host's tests, which have a main() of their own, use them without it.
 *
 * Invariant: a failure ends the whole process, from whichever thread or child it is made, with a status that isn't 0.
 */
#ifndef CTESTS_ASSERT_H
#define CTESTS_ASSERT_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

/* ---- assertions ---- */

/*
 * What becomes of a failure's text, "file:line: what". It doesn't return. At first: a line `FAIL text` on stdout, and the
 * process ends with status 1.
 */
extern void (*on_failure)(const char *text);

__attribute__((format(printf, 3, 4), noreturn)) void fail_at(const char *file, int line, const char *format, ...);

#define FAIL(...) fail_at(__FILE__, __LINE__, __VA_ARGS__)

/* Fails if the condition does not hold. */
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            FAIL("%s", #condition);                                                                                    \
    } while (0)

#define CHECK_COMPARED(have, want, operator, words)                                                                    \
    do {                                                                                                               \
        long long have_ = (long long)(have), want_ = (long long)(want);                                                \
        if (!(have_ operator want_))                                                                                   \
            FAIL("%s is %lld, not %s%lld", #have, have_, words, want_);                                                \
    } while (0)

/* Likewise, with both numbers in the report. */
#define CHECK_EQUAL(have, want) CHECK_COMPARED(have, want, ==, "")
#define CHECK_AT_MOST(have, want) CHECK_COMPARED(have, want, <=, "at most ")
#define CHECK_AT_LEAST(have, want) CHECK_COMPARED(have, want, >=, "at least ")

/* Runs body(arg) in a child process and returns the child's wait status: 0 if it came to its end. */
int in_child(void (*body)(void *), void *arg);

/* body(arg) ends its process by this signal. */
#define CHECK_DIES(signal, body, arg) check_dies(__FILE__, __LINE__, signal, #body, body, arg)
void check_dies(const char *file, int line, int signal, const char *name, void (*body)(void *), void *arg);

/* Longer than anything takes on a machine that is emulated, or busy with much else: a test that takes longer hangs. */
enum { PATIENCE_S = 600 };

/* Waits until the condition holds; it is looked at again and again. If it never does, the test hangs, which is a failure. */
#define WAIT_UNTIL(condition)                                                                                          \
    do {                                                                                                               \
        while (!(condition))                                                                                           \
            pause_a_little();                                                                                          \
    } while (0)
void pause_a_little(void);

/* ---- threads ---- */

/* Runs body(arg) in a thread. */
pthread_t start_thread(void *(*body)(void *), void *arg);

/* Waits until it has come to its end; what it has returned. */
void *finish_thread(pthread_t thread);

/* The system call that a thread, or the only one of a process, sleeps in; -1 if it doesn't. */
long sleeps_in(pid_t id);

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- what a process holds ---- */

bool fd_is_open(int fd);
int count_fds(void);
/* What each of them is, a line each. */
void list_fds(FILE *to);
int count_threads(void);

#endif
