/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * See quiet.h.
 */
#include "quiet.h"

#include <dirent.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host.h"
#include "xl.h"

/* Sleeps, and not in a read of something that has come already: then it is about to wake. */
static bool has_nothing_to_do(pid_t thread)
{
    char path[64];
    long call = -1;
    unsigned long fd;
    int unread = 0, fields;
    FILE *file;

    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", (int)thread);
    file = fopen(path, "r");
    /* It has ended. */
    if (!file)
        return true;
    fields = fscanf(file, "%ld %lx", &call, &fd);
    fclose(file);
    if (fields < 1)
        return false;
    if (fields == 2 && (call == SYS_read || call == SYS_recvfrom || call == SYS_recvmsg))
        return ioctl((int)fd, FIONREAD, &unread) != 0 || unread == 0;
    return call >= 0;
}

static bool others_have_nothing_to_do(void)
{
    DIR *directory = opendir("/proc/self/task");
    const struct dirent *entry;
    bool all = true;

    CHECK(directory != NULL);
    while ((entry = readdir(directory)) && all) {
        pid_t thread = atoi(entry->d_name);

        if (thread > 0 && thread != gettid())
            all = has_nothing_to_do(thread);
    }
    closedir(directory);
    return all;
}

void receive_all(void)
{
    /* More than once: one may have been seen in a short sleep, at a lock that another had. */
    enum { ENOUGH = 3 };
    int quiet;

    for (quiet = 0; quiet < ENOUGH; quiet++) {
        if (host_is_simulated())
            host_settle();
        if (!others_have_nothing_to_do())
            quiet = -1;
        pause_a_little();
    }
}

void come_to_rest(libxl_ctx *ctx)
{
    bool any;

    do {
        receive_all();
        for (any = false; poll_once(ctx, 0);)
            any = true;
    } while (any);
}

bool waits_for_descriptors(pid_t id)
{
    long call = sleeps_in(id);

#ifdef SYS_poll
    if (call == SYS_poll || call == SYS_epoll_wait)
        return true;
#endif
    return call == SYS_ppoll || call == SYS_epoll_pwait;
}
