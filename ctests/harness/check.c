/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The frame's working: main() of every test program.
 *
 * usage: PROGRAM [--list] [--prefix TEXT] [NAME]     NAME: the test of this name, else those whose names contain it
 *
 * One line a test: `PASS name`, `PASS name [differs: keys]`, or `FAIL name: why` with what the test wrote to stderr
 * indented below it; the totals last. CTESTS_COLUMN says in which column the caller believes the program to be: what is
 * loaded must agree.
 *
 * What a test's process has to say goes through a pipe, a line each: `D key`, a difference that it asked about, or
 * `F why`.
 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host.h"

enum { TESTS_MAX = 200 };

static struct test {
    const char *name;
    void (*run)(void);
    int traits;
} tests[TESTS_MAX];
static size_t test_count;

/* The pipe to the process that runs the tests. */
static int report = -1;

static void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(2);
}

void add_test(const char *name, void (*run)(void), int traits)
{
    if (test_count == TESTS_MAX) {
        fprintf(stderr, "too many tests\n");
        exit(2);
    }
    tests[test_count++] = (struct test){ name, run, traits };
}

/* A line in one write, so that threads and children don't mix theirs. */
static void tell(char kind, const char *text)
{
    char line[600];
    int length = snprintf(line, sizeof line, "%c %s\n", kind, text);

    if (length >= (int)sizeof line) {
        length = sizeof line;
        line[length - 1] = '\n';
    }
    if (write(report, line, (size_t)length) != length)
        _exit(2);
}

/* Whether libxenlight does as we do by now: ctests/run lists such differences, for the release that there is. */
static bool is_mended(const char *key)
{
    const char *list = getenv("CTESTS_MENDED"), *found = list ? strstr(list, key) : NULL;
    size_t length = strlen(key);

    for (; found; found = strstr(found + length, key))
        if ((found == list || found[-1] == ' ') && (found[length] == ' ' || found[length] == '\0'))
            return true;
    return false;
}

/* on_failure */
static void report_failure(const char *text)
{
    tell('F', text);
    _exit(1);
}

bool OURS(const char *key)
{
    /* Once is enough: a test that asks in a loop would fill the pipe. */
    static const char *told[16];
    size_t i;

    for (i = 0; i < COUNT(told) && told[i] && strcmp(told[i], key) != 0; i++)
        ;
    if (i < COUNT(told) && !told[i]) {
        told[i] = key;
        tell('D', key);
    }
    return column != REAL || is_mended(key);
}

/* ---- running ---- */

/* ctests/run says so: a program can't tell. */
static bool under_valgrind(void)
{
    return getenv("CTESTS_VALGRIND") != NULL;
}

/* In a process of its own, from which nothing returns. */
static void run_here(const struct test *test, pid_t parent, FILE *errors)
{
    static const struct rlimit no_core;

    /* With its children in a group, so that whatever remains can be removed. */
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(2);
    setrlimit(RLIMIT_CORE, &no_core);
    dup2(fileno(errors), STDERR_FILENO);
    fclose(errors);
    alarm(under_valgrind() ? 3 * PATIENCE_S : PATIENCE_S);
    test->run();
    exit(0);
}

static void append(char *text, size_t size, const char *separator, const char *word)
{
    size_t length = strlen(text);

    snprintf(text + length, size - length, "%s%s", length ? separator : "", word);
}

/* Takes one line of the test's report apart. */
static void take_line(const char *line, char *keys, size_t keys_size, char *why, size_t why_size)
{
    char padded[2000], word[600];

    if (line[0] == 'F') {
        append(why, why_size, "; ", line + 2);
        return;
    }
    snprintf(padded, sizeof padded, " %s ", keys);
    snprintf(word, sizeof word, " %s ", line + 2);
    if (!strstr(padded, word))
        append(keys, keys_size, " ", line + 2);
}

/* What the test had to say on stderr: its last lines, which are the closest to what went wrong. */
static void show_errors(FILE *errors)
{
    enum { SHOWN = 4000 };
    char line[1000];
    long size;

    fseek(errors, 0, SEEK_END);
    size = ftell(errors);
    fseek(errors, size > SHOWN ? size - SHOWN : 0, SEEK_SET);
    if (size > SHOWN && !fgets(line, sizeof line, errors))
        return;
    while (fgets(line, sizeof line, errors))
        printf("    %.*s\n", (int)strcspn(line, "\n"), line);
}

static bool run_test(const struct test *test, const char *prefix)
{
    int fds[2], status;
    char line[600], keys[1000] = "", why[1000] = "";
    pid_t pid, self = getpid();
    FILE *lines, *errors = tmpfile();
    bool passed;

    fflush(stdout);
    if (!errors || pipe2(fds, O_CLOEXEC) != 0 || (pid = fork()) < 0)
        die("starting a test");
    if (pid == 0) {
        close(fds[0]);
        report = fds[1];
        run_here(test, self, errors);
    }
    setpgid(pid, pid);
    close(fds[1]);
    /* Before its children are gone it may not be waited for: then the group would have no name. */
    siginfo_t info;
    while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) != 0)
        if (errno != EINTR)
            die("waiting for a test");
    kill(-pid, SIGKILL);
    if (waitpid(pid, &status, 0) != pid)
        die("waiting for a test");
    /* The pipe holds more than any test says. */
    lines = fdopen(fds[0], "r");
    if (!lines)
        die("reading a test's report");
    while (fgets(line, sizeof line, lines)) {
        line[strcspn(line, "\n")] = '\0';
        take_line(line, keys, sizeof keys, why, sizeof why);
    }
    fclose(lines);

    passed = WIFEXITED(status) && WEXITSTATUS(status) == 0 && !*why;
    if (WIFSIGNALED(status)) {
        snprintf(line, sizeof line, "%s by signal %d", WTERMSIG(status) == SIGALRM ? "hangs: ended" : "ended",
                 WTERMSIG(status));
        append(why, sizeof why, "; ", line);
    } else if (!passed && !*why) {
        snprintf(line, sizeof line, "exit status %d", WEXITSTATUS(status));
        append(why, sizeof why, "; ", line);
    }
    if (passed)
        printf("PASS %s%s%s%s%s\n", prefix, test->name, *keys ? " [differs: " : "", keys, *keys ? "]" : "");
    else
        printf("FAIL %s%s: %s\n", prefix, test->name, why);
    if (!passed)
        show_errors(errors);
    fclose(errors);
    return passed;
}

static bool is_wanted(const struct test *test, const char *name)
{
    size_t i;

    if (test->traits & COMMANDS_DOMAINS && !host_is_simulated())
        return false;
    if (test->traits & NOT_FOR_LIBXENLIGHT && column == REAL)
        return false;
    if (test->traits & NOT_BESIDE_LIBXENLIGHT && column != ALONE)
        return false;
    if (test->traits & LIBXENLIGHTS_BESIDE && column == BESIDE)
        return false;
    if (test->traits & NOT_UNDER_VALGRIND && under_valgrind())
        return false;
    if (test->traits & (WITH_ONE_WATCH | NOT_ON_A_STAND_IN) && host_has_newer_xenstored())
        return false;
    if (!name)
        return true;
    for (i = 0; i < test_count; i++)
        if (strcmp(tests[i].name, name) == 0)
            return strcmp(test->name, name) == 0;
    return strstr(test->name, name) != NULL;
}

int main(int argc, char **argv)
{
    const char *prefix = "", *name = NULL;
    bool list = false;
    size_t i, passed = 0, failed = 0;
    int argument;

    for (argument = 1; argument < argc; argument++) {
        if (strcmp(argv[argument], "--list") == 0)
            list = true;
        else if (strcmp(argv[argument], "--prefix") == 0 && argument + 1 < argc)
            prefix = argv[++argument];
        else
            name = argv[argument];
    }
    find_column();
    on_failure = report_failure;
    host_bring_up();
    for (i = 0; i < test_count; i++) {
        if (!is_wanted(&tests[i], name))
            continue;
        if (list) {
            puts(tests[i].name);
            continue;
        }
        if (run_test(&tests[i], prefix))
            passed++;
        else
            failed++;
        host_reset();
    }
    if (list)
        return 0;
    printf("%zu passed, %zu failed\n", passed, failed);
    return failed || !passed;
}
