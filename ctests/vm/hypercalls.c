/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counts a process's hypercalls, alike for every library in it.
 *
 * Whoever makes a hypercall from user space asks the kernel for it with one ioctl on /dev/xen/privcmd. A program that is linked
 * with this file, and with -rdynamic, has its own ioctl, which is ahead of the C library's for all shared libraries in the
 * process, also for those that are loaded later. Nothing need be preloaded, so nothing can be in the way of what is.
 */
#include "hypercalls.h"

#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <xenctrl.h>
#include <xen/sys/privcmd.h>

static uint64_t made;

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    void *argument;

    va_start(arguments, request);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    if (request == IOCTL_PRIVCMD_HYPERCALL)
        __atomic_fetch_add(&made, 1, __ATOMIC_RELAXED);
    /* As the C library's does: no request of Linux on this architecture needs more. */
    return (int)syscall(SYS_ioctl, fd, request, argument);
}

uint64_t hypercalls_made(void)
{
    return __atomic_load_n(&made, __ATOMIC_RELAXED);
}
