/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Virtual CD drives: their nodes in xenstore, written as a toolstack and a guest would, with libxenstore; and the events of
 * their ejection. Every function here ends the test if something is not as its name says.
 */
#ifndef CTESTS_DRIVE_H
#define CTESTS_DRIVE_H

#include <libxl_event.h>

#include "assert.h"

/* ---- nodes ---- */

void put_bytes(const char *path, const void *value, size_t length);
/* A node has this value; false if there is none. */
bool holds_bytes(const char *path, const void *value, size_t length);
/* With all below it. */
void remove_node(const char *path);

/* A disk of a domain's, by the numbers in its path. */
struct drive {
    uint32_t domid, devid;
};

/* The path of one of its nodes; good until the thread's next call. */
const char *node(struct drive drive, const char *name);
/* Likewise of one of the toolstack's own, which its guest can't write. */
const char *own_node(struct drive drive, const char *name);
/* Of both. */
void remove_from_both(struct drive drive, const char *name);
void put(struct drive drive, const char *name, const char *value);
bool holds(struct drive drive, const char *name, const char *value);

/* ---- drives ---- */

enum { HDC = 5632 };

/* As a toolstack makes it: served by QEMU in the control domain, with a medium. */
struct drive drive_at(uint32_t domid, uint32_t devid, const char *dev);
/* The drive hdc of a new domain. */
struct drive cd_drive(void);
/* As its guest does it. */
void eject(struct drive drive);

libxl_evgen_disk_eject *enable_eject(libxl_ctx *ctx, uint32_t domid, const char *vdev, libxl_ev_user user);

/* ---- events ---- */

#define EJECT_BIT ((uint64_t)1 << LIBXL_EVENT_TYPE_DISK_EJECT)

/* Both may be NULL. */
bool same_string(const char *have, const char *want);

/*
 * An event is the ejection of a drive, enabled by the name `vdev` and called `dev` in the store. Who serves it isn't looked
 * at. It is not freed.
 */
void check_eject(const libxl_event *event, uint32_t domid, libxl_ev_user user, const char *vdev, const char *dev);

/* The next event that comes is that of the drive hdc. It is freed. */
void expect_eject(libxl_ctx *ctx, uint32_t domid, libxl_ev_user user);

#endif
