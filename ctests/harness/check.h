/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The frame of the C tests: a list of tests, each run in a process of its own, so that one that crashes or hangs is a
 * failure and not the end.
 *
 * A test program is a source file with tests in it; main() is in check.c:
 *
 *     #include "harness/check.h"
 *
 *     TEST(one_and_one_is_two)
 *     {
 *         CHECK_EQUAL(1 + 1, 2);
 *     }
 *
 * The same source runs in three columns: with libxenlight alone, with libxlevent alone, and with libxlevent in front of
 * libxenlight. What a test asserts holds in all of them, but for the differences that are listed in ctests/differences:
 *
 *     if (OURS("domuuid"))
 *         CHECK(what we promise);
 *     else
 *         CHECK(what libxenlight does);
 *
 * Invariants: a test waits for conditions, never for time to pass, and asserts nothing on time; it needs nothing that an
 * earlier test has left. A failed check ends the whole process of the test, from whichever thread or child it is made.
 */
#ifndef CTESTS_CHECK_H
#define CTESTS_CHECK_H

#include "assert.h"
#include "column.h"

/* ---- tests ---- */

enum {
    COMMANDS_DOMAINS = 1, /* needs a simulated host */
    NOT_FOR_LIBXENLIGHT = 2, /* asks for what libxenlight leaves undefined, or has not */
    NOT_BESIDE_LIBXENLIGHT = 4, /* and cannot be had where it is in the process */
    NOT_UNDER_VALGRIND = 8, /* counts descriptors, of which valgrind has some; or loses what other threads had in hand */
    WITH_ONE_WATCH = 16, /* counts on one watch for all domains, which few domains don't have with a newer xenstored */
    NOT_ON_A_STAND_IN = 64, /* closes descriptors, of which the stand-in for a newer xenstored has some */
    LIBXENLIGHTS_BESIDE = 32, /* is libxenlight's doing where it is in the process: column real shows it */
};

void add_test(const char *name, void (*run)(void), int traits);

#define TEST_WITH(name, traits)                                                                                        \
    static void name(void);                                                                                            \
    __attribute__((constructor)) static void add_##name(void)                                                          \
    {                                                                                                                  \
        add_test(#name, name, traits);                                                                                 \
    }                                                                                                                  \
    static void name(void)

/* A test for any host with Xen. Tests run in the order in which they stand in the file. */
#define TEST(name) TEST_WITH(name, 0)
/* A test with domains that do what it says. */
#define DOMAIN_TEST(name) TEST_WITH(name, COMMANDS_DOMAINS)
/* A test for any host of what with libxenlight may crash, or not: a handle that is stale, say; or of an extension. */
#define TEST_OF_OURS(name) TEST_WITH(name, NOT_FOR_LIBXENLIGHT)

/* ---- differences ---- */

/*
 * Whether it is libxlevent that answers, or a libxenlight that does the same by now, for an assertion in which it differs from
 * libxenlight on purpose: `key` is the difference's name in ctests/differences.
 */
bool OURS(const char *key);

#endif
