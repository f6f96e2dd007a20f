/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the tests of single calls share: a list of tests, each run in a process of its own, so that one that crashes is
 * a failure and not the end. One line a test, `PASS name` or `FAIL name: why`; the totals last.
 */
#ifndef CHECK_H
#define CHECK_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct test {
    const char *name;
    void (*run)(void);
};

/* Ends the test if the condition does not hold. */
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(report, "%s:%d: %s", __FILE__, __LINE__, #condition);                                              \
            fflush(report);                                                                                            \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

/* Likewise, with both numbers in the report. */
#define CHECK_EQUAL(have, want)                                                                                        \
    do {                                                                                                               \
        long long have_ = (long long)(have), want_ = (long long)(want);                                                \
        if (have_ != want_) {                                                                                          \
            fprintf(report, "%s:%d: %s is %lld, not %lld", __FILE__, __LINE__, #have, have_, want_);                   \
            fflush(report);                                                                                            \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

static FILE *report;

/* Longer than anything takes on an emulated machine: a test that hangs is a failure too. */
enum { PATIENCE = 120 };

static bool run_test(const struct test *test, const char *prefix)
{
    int fds[2], status;
    char why[400];
    size_t length = 0;
    ssize_t got;
    pid_t pid;

    fflush(stdout);
    if (pipe(fds) != 0 || (pid = fork()) < 0) {
        perror("starting a test");
        exit(2);
    }
    if (pid == 0) {
        close(fds[0]);
        report = fdopen(fds[1], "w");
        alarm(PATIENCE);
        test->run();
        exit(0);
    }
    close(fds[1]);
    while (length < sizeof why - 1 && (got = read(fds[0], why + length, sizeof why - 1 - length)) > 0)
        length += (size_t)got;
    why[length] = '\0';
    close(fds[0]);
    waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0 && length == 0) {
        printf("PASS %s%s\n", prefix, test->name);
        return true;
    }
    if (WIFSIGNALED(status))
        printf("FAIL %s%s: %s by signal %d%s\n", prefix, test->name, why,
               WTERMSIG(status), WTERMSIG(status) == SIGALRM ? " (hangs)" : "");
    else
        printf("FAIL %s%s: %s (exit status %d)\n", prefix, test->name, why, WEXITSTATUS(status));
    return false;
}

/* Arguments: [prefix [name]]; with a name, only tests that contain it. */
static int run_tests(const struct test *tests, size_t count, int argc, char **argv)
{
    size_t i, passed = 0, failed = 0;
    const char *prefix = argc > 1 ? argv[1] : "";

    for (i = 0; i < count; i++) {
        if (argc > 2 && !strstr(tests[i].name, argv[2]))
            continue;
        if (run_test(&tests[i], prefix))
            passed++;
        else
            failed++;
    }
    printf("%zu passed, %zu failed\n", passed, failed);
    return failed || !passed;
}

#define RUN_TESTS(tests) run_tests(tests, sizeof tests / sizeof *tests, argc, argv)

#endif
