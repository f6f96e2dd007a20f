/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * When nothing is on its way any more, and which threads sleep: as the kernel shows it, however slow the machine is. To wait for
 * some milliseconds would show that of a fast machine alone.
 */
#ifndef CTESTS_QUIET_H
#define CTESTS_QUIET_H

#include <libxl_event.h>

#include "assert.h"

/*
 * Returns when the process has received all that xenstored had to send: its connections have nothing left to be read, and the
 * threads that read them (libxenstore's) sleep. No context does any work for it: what has come waits there to be processed.
 */
void receive_all(void);

/* The same, and the context has processed it: its poll loop has nothing to do. */
void come_to_rest(libxl_ctx *ctx);

/* The thread, or a process's only one, sleeps in a call that waits for descriptors. */
bool waits_for_descriptors(pid_t id);

#endif
