/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stands in front of the library as a tracer does, in the functions that libxenlight calls itself: hands on to what comes next.
 */
#include <stddef.h>

#include "harness/next.h"

#define HAND_ON(name)                                                                                                  \
    size_t name(size_t a, size_t b, size_t c);                                                                         \
    size_t name(size_t a, size_t b, size_t c)                                                                          \
    {                                                                                                                  \
        return NEXT(name)(a, b, c);                                                                                    \
    }

HAND_ON(libxl_event_free)
HAND_ON(libxl_ctx_free)
HAND_ON(libxl_childproc_setmode)
