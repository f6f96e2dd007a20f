/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the C tests have in common: checks that say what they saw, and tests by name, each on a host of its own. */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <xensim.h>

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: not true: %s (errno %d %s; xensim: %s)\n", __FILE__, __LINE__, #condition, errno, \
                    strerror(errno), xensim_error());                                                                  \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#define CHECK_EQUAL(value, wanted)                                                                                     \
    do {                                                                                                               \
        long long value_ = (long long)(value), wanted_ = (long long)(wanted);                                          \
        if (value_ != wanted_) {                                                                                       \
            fprintf(stderr, "%s:%d: %s is %lld, not %lld (errno %d; xensim: %s)\n", __FILE__, __LINE__, #value,       \
                    value_, wanted_, errno, xensim_error());                                                           \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

struct test {
    const char *name;
    void (*run)(xensim_host *host);
};

/* Runs the tests, each in a process of its own. The exit status of main. */
static inline int run_tests(const struct test *tests, size_t count, int argc, char **argv)
{
    int failed = 0;
    size_t i;

    for (i = 0; i < count; i++) {
        pid_t child;
        int status;

        if (argc > 1 && !strstr(tests[i].name, argv[1]))
            continue;
        fflush(stdout);
        child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            xensim_host *host = xensim_up(0);

            /* Nothing here may take so long; a hang is a failure with a name. */
            alarm(600);
            CHECK(host != NULL);
            tests[i].run(host);
            CHECK_EQUAL(xensim_down(host), 0);
            exit(0);
        }
        CHECK_EQUAL(waitpid(child, &status, 0), child);
        printf("%s %s\n", status ? "FAIL" : "PASS", tests[i].name);
        failed += status != 0;
    }
    return failed ? 1 : 0;
}

#endif
