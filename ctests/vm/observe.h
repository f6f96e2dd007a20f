/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The part that observe's three ways of waiting share.
 */
#ifndef OBSERVE_H
#define OBSERVE_H

#include <signal.h>
#include <stdbool.h>

#include <libxl_event.h>

/* Set by SIGTERM or SIGINT, which are let in only while waiting. */
extern volatile sig_atomic_t observe_stop;

/* Has every observed domain died? */
bool observe_done(void);

/* Print one event and free it. */
void observe_event(libxl_ctx *ctx, libxl_event *event);

/* Print all that is queued.  0 or a libxl error. */
int observe_queue(libxl_ctx *ctx);

/* The loop over the application's own register of descriptors and timeouts:
 * attach before the first domain is observed, then turn until done.
 * 0 or a libxl error. */
void hookloop_attach(libxl_ctx *ctx);
int hookloop_turn(libxl_ctx *ctx, const sigset_t *unblocked);

#endif
