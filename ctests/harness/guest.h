/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest, or a driver domain, at xenstore: over a ring in a page of its own, as its kernel would be. What it may do is what
 * xenstored lets a domain of its number do: permissions and quotas are the real ones.
 *
 * A guest may be used by one thread at a time.
 */
#ifndef CTESTS_GUEST_H
#define CTESTS_GUEST_H

#include <stddef.h>
#include <stdint.h>

struct guest;

/* Of a domain that xenstored knows, and whose ring nobody else uses. */
struct guest *guest_open(uint32_t domid);
void guest_close(struct guest *guest);

/* 0, or the errno by which xenstored refuses. */
int guest_write_bytes(struct guest *guest, const char *path, const void *value, size_t length);
int guest_write(struct guest *guest, const char *path, const char *value);
int guest_remove(struct guest *guest, const char *path);

/* The same write, `times` times; each must succeed. */
void guest_write_often(struct guest *guest, const char *path, const char *value, unsigned long times);

/* The control domain hands a node, and what will be below it, over to a domain, as a toolstack does with a frontend's or a backend's. */
void give_node(const char *path, uint32_t owner, uint32_t reader);

#endif
