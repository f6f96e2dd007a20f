/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the C tests have in common: tests by name, each on a host of its own, with the assertions of ctests/harness. */
#ifndef XENSIM_TESTS_CHECK_H
#define XENSIM_TESTS_CHECK_H

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include <xensim.h>

#include "harness/assert.h"

static inline void fail_here(const char *text)
{
    fprintf(stderr, "%s (errno %d %s; xensim: %s)\n", text, errno, strerror(errno), xensim_error());
    exit(1);
}

struct test {
    const char *name;
    void (*run)(xensim_host *host);
};

/* Runs the tests, each in a process of its own. The exit status of main. */
static inline int run_tests(const struct test *tests, size_t count, int argc, char **argv)
{
    int failed = 0;
    size_t i;

    on_failure = fail_here;
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
