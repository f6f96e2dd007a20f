/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * See assert.h.
 */
#include "assert.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

static void print_failure(const char *text)
{
    printf("FAIL %s\n", text);
    fflush(stdout);
    _exit(1);
}

void (*on_failure)(const char *text) = print_failure;

void fail_at(const char *file, int line, const char *format, ...)
{
    char text[500];
    const char *base = strrchr(file, '/');
    int error = errno, length = snprintf(text, sizeof text, "%s:%d: ", base ? base + 1 : file, line);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text + length, sizeof text - (size_t)length, format, arguments);
    va_end(arguments);
    errno = error;
    on_failure(text);
    abort();
}

/* ---- processes ---- */

int in_child(void (*body)(void *), void *arg)
{
    int status;
    pid_t pid = fork();

    if (pid < 0)
        FAIL("fork: %s", strerror(errno));
    if (pid == 0) {
        body(arg);
        _exit(0);
    }
    while (waitpid(pid, &status, 0) != pid)
        if (errno != EINTR)
            FAIL("waitpid: %s", strerror(errno));
    return status;
}

void check_dies(const char *file, int line, int signal, const char *name, void (*body)(void *), void *arg)
{
    int status = in_child(body, arg);

    if (!WIFSIGNALED(status))
        fail_at(file, line, "%s ends with status %d, not by signal %d", name, WEXITSTATUS(status), signal);
    if (WTERMSIG(status) != signal)
        fail_at(file, line, "%s ends by signal %d, not %d", name, WTERMSIG(status), signal);
}

void pause_a_little(void)
{
    poll(NULL, 0, 1);
}

bool fd_is_open(int fd)
{
    return fcntl(fd, F_GETFD) != -1;
}

static int count_entries(const char *path)
{
    DIR *directory = opendir(path);
    const struct dirent *entry;
    int count = 0;

    if (!directory)
        FAIL("%s: %s", path, strerror(errno));
    while ((entry = readdir(directory)))
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

int count_fds(void)
{
    return count_entries("/proc/self/fd");
}

void list_fds(FILE *to)
{
    char path[300], target[300];
    const struct dirent *entry;
    DIR *directory = opendir("/proc/self/fd");
    ssize_t length;

    CHECK(directory != NULL);
    while ((entry = readdir(directory))) {
        snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
        length = readlink(path, target, sizeof target);
        if (length > 0)
            fprintf(to, "    descriptor %s: %.*s\n", entry->d_name, (int)length, target);
    }
    closedir(directory);
}

int count_threads(void)
{
    return count_entries("/proc/self/task");
}

/* ---- threads ---- */

pthread_t start_thread(void *(*body)(void *), void *arg)
{
    pthread_t thread;

    CHECK_EQUAL(pthread_create(&thread, NULL, body, arg), 0);
    return thread;
}

void *finish_thread(pthread_t thread)
{
    void *result;

    CHECK_EQUAL(pthread_join(thread, &result), 0);
    return result;
}

long sleeps_in(pid_t id)
{
    char path[64];
    long number = -1;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/syscall", (int)id);
    file = fopen(path, "r");
    if (!file)
        return -1;
    if (fscanf(file, "%ld", &number) != 1)
        number = -1;
    fclose(file);
    return number;
}
