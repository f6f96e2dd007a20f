/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * host.h over the command `xensim`, which XENSIM names and which acts on the host that XENSIM_DIR names.
 */
#include "host.h"

#include <errno.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static const char *xensim(void)
{
    const char *command = getenv("XENSIM");

    return command ? command : "xensim";
}

static bool run(char *output, size_t size, const char *arguments)
{
    char command[1000];
    size_t length;
    FILE *pipe;

    snprintf(command, sizeof command, "LD_PRELOAD= exec %s %s", xensim(), arguments);
    pipe = popen(command, "r");
    if (!pipe)
        return false;
    length = fread(output, 1, size - 1, pipe);
    output[length] = '\0';
    return pclose(pipe) == 0;
}

__attribute__((format(printf, 3, 4))) static void ask(char *output, size_t size, const char *format, ...)
{
    char arguments[500];
    va_list list;

    va_start(list, format);
    vsnprintf(arguments, sizeof arguments, format, list);
    va_end(list);
    if (!run(output, size, arguments))
        FAIL("xensim %s failed", arguments);
}

#define COMMAND(...)                                                                                                   \
    do {                                                                                                               \
        char output_[100];                                                                                             \
        ask(output_, sizeof output_, __VA_ARGS__);                                                                     \
    } while (0)

bool host_is_simulated(void)
{
    return getenv("XENSIM_DIR") != NULL;
}

void host_reset(void)
{
    char output[100];

    if (!host_is_simulated())
        return;
    run(output, sizeof output, "inject --clear");
    run(output, sizeof output, "access full");
    run(output, sizeof output, "xenstored start 2>/dev/null");
    run(output, sizeof output, "destroy all 2>/dev/null");
}

uint32_t host_create(void)
{
    char output[100];

    ask(output, sizeof output, "create guest");
    return (uint32_t)strtoul(output, NULL, 10);
}

uint32_t host_create_at(uint32_t domid)
{
    COMMAND("create guest --domid %u", (unsigned)domid);
    return domid;
}

void host_create_many(uint32_t first, uint32_t count)
{
    COMMAND("create guest --domid %u --count %u", (unsigned)first, (unsigned)count);
}

void host_uuid(uint32_t domid, uint8_t uuid[16])
{
    char output[300], text[40], *at = text;
    int i;
    unsigned byte;

    ask(output, sizeof output, "list %u", (unsigned)domid);
    CHECK(sscanf(strchr(output, '\n'), "%*s %*s %*s %36s", text) == 1);
    for (i = 0; i < 16; i++) {
        if (*at == '-')
            at++;
        CHECK(sscanf(at, "%2x", &byte) == 1);
        uuid[i] = (uint8_t)byte;
        at += 2;
    }
}

void host_shutdown(uint32_t domid, int reason)
{
    COMMAND("shutdown %u --reason %d", (unsigned)domid, reason);
}

void host_suspend(uint32_t domid)
{
    COMMAND("suspend %u", (unsigned)domid);
}

void host_resume(uint32_t domid)
{
    COMMAND("resume %u", (unsigned)domid);
}

void host_kill(uint32_t domid)
{
    COMMAND("kill %u", (unsigned)domid);
}

void host_shutdown_and_kill(uint32_t domid, int reason)
{
    COMMAND("shutdown %u --reason %d --and-die", (unsigned)domid, reason);
}

void host_destroy(uint32_t domid)
{
    COMMAND("destroy %u", (unsigned)domid);
}

void host_shutdown_many(uint32_t first, uint32_t count, int reason)
{
    COMMAND("shutdown %u-%u --reason %d", (unsigned)first, (unsigned)(first + count - 1), reason);
}

void host_destroy_many(uint32_t first, uint32_t count)
{
    COMMAND("destroy %u-%u", (unsigned)first, (unsigned)(first + count - 1));
}

void host_settle(void)
{
    COMMAND("settle");
}

void host_fail_lists(int errnoval, int times)
{
    if (times == 0)
        COMMAND("inject --clear");
    else if (times < 0)
        COMMAND("inject getdomaininfolist --errno %d", errnoval);
    else
        COMMAND("inject getdomaininfolist --errno %d --times %d", errnoval, times);
}

uint64_t host_lists_asked(void)
{
    char output[1000], *line;

    ask(output, sizeof output, "counters");
    line = strstr(output, "getdomaininfolist ");
    CHECK(line != NULL);
    return strtoull(line + strlen("getdomaininfolist "), NULL, 10);
}

void host_access(enum host_access access)
{
    static const char *const names[] = { "full", "no-permission", "no-hypervisor" };

    COMMAND("access %s", names[access]);
}

void host_kill_xenstored(void)
{
    COMMAND("xenstored kill");
}

void host_start_xenstored(void)
{
    COMMAND("xenstored start");
}
