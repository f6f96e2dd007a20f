/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Nodes of xenstore, as tests write and look at them, with libxenstore. Every function here ends the test if something is
 * not as its name says.
 */
#ifndef CTESTS_STORE_H
#define CTESTS_STORE_H

#include <stdbool.h>
#include <stdint.h>

/* A path; good until the thread's eighth next call. */
__attribute__((format(printf, 1, 2))) const char *path_of(const char *format, ...);

void put_node(const char *path, const char *value);
void put_number(const char *path, unsigned value);
bool has_node(const char *path);
/* Whether a node has this value; false if there is none. */
bool node_is(const char *path, const char *value);

/* xenstored is told to forget a domain, as in a soft reset that goes no further. */
void release_domain(uint32_t domid);

/* As a toolstack makes a domain's own directory: its guest may read it. */
void put_home(uint32_t domid);
/*
 * Who may do what with a node, as `xenstore-ls -p` has it, such as `n0,r5`: the first is the owner, and says what everybody
 * else may. `-` if there is no such node. Good until the thread's eighth next call.
 */
const char *permissions_of(const char *path);

#endif
