/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Devices for tests of operations with them: their nodes, as libxl writes them, a backend that does what the test says, and
 * hotplug scripts that leave a trace. Every function here ends the test if something is not as its name says.
 */
#ifndef CTESTS_PLUG_H
#define CTESTS_PLUG_H

#include <stdbool.h>
#include <stdint.h>

#include <libxl_event.h>
#include "ours.h"

/* A device of a domain's, and who serves it, as in the paths of its nodes. */
struct plug {
    uint32_t domid;
    enum xlevent_device_kind kind;
    uint32_t devid;
    uint32_t backend_domid;
    const char *backend_kind;
};

/* The paths; good until the thread's eighth next call of something like it. */
const char *frontend_of(const struct plug *plug);
const char *backend_of(const struct plug *plug);
const char *backend_node(const struct plug *plug, const char *name);
const char *libxl_node_of(const struct plug *plug);

/* A device that is connected (both sides in state 4), of a new domain unless `domid` says which (0 doesn't). */
struct plug plug_in(uint32_t domid, enum xlevent_device_kind kind, uint32_t devid, uint32_t backend_domid,
                    const char *backend_kind);
/* A disk of a new domain's, served by the kernel. */
struct plug plug_disk(void);
/* Its nodes alone, in a store that has lost them. */
void plug_write(const struct plug *plug, unsigned state);

/* All nodes are gone, with the directories above them that would be empty. */
bool is_removed(const struct plug *plug);
/* None is. */
bool is_whole(const struct plug *plug);

/* ---- backends ---- */

/*
 * A backend in a thread of its own, which does its part when it sees `state` 5: says 6. As the kernel's. Ends with the
 * process.
 */
void backend_closes(const struct plug *plug);
/* The same, only when the frontend's nodes are gone. */
void backend_closes_when_cut_off(const struct plug *plug);
/* Its nodes vanish instead. */
void backend_vanishes(const struct plug *plug);
/* It says 6, and then removes its nodes, as a driver domain does. */
void driver_domain_closes(const struct plug *plug);

/* ---- scripts ---- */

/*
 * Has a device's script be one of these lines of shell, with "$1" and the rest of what libxl gives. All leave a trace: each
 * call, with its arguments and environment, is a line of a file.
 */
void plug_script(const struct plug *plug, const char *lines);
/* How often it has been run. */
int script_runs(const struct plug *plug);
/* Whether the run number `run`, from 1, had these in its arguments and environment: `text` is part of the line. */
bool script_had(const struct plug *plug, int run, const char *text);

/* ---- operations ---- */

/* How an operation's end is told here: by a callback that takes a note. */
struct note {
    int calls, rc;
    libxl_ctx *ctx;
};
libxl_asyncop_how told_to(struct note *note);
/* Rounds of the loop until the end has been told; the result. */
int await_end(libxl_ctx *ctx, const struct note *note);
int begin_removal(libxl_ctx *ctx, const struct plug *plug, enum xlevent_force force, const libxl_asyncop_how *how);
/* A synchronous removal. */
int remove_now(libxl_ctx *ctx, const struct plug *plug, enum xlevent_force force);

#endif
