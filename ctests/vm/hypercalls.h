/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How many hypercalls this process has made.
 */
#ifndef HYPERCALLS_H
#define HYPERCALLS_H

#include <stdint.h>

/* By any thread, whichever library has asked for them. */
uint64_t hypercalls_made(void);

#endif
