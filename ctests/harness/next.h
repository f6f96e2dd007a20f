/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* For functions that stand in front of others of their name: of the C library, or of a library that comes later. */
#ifndef CTESTS_NEXT_H
#define CTESTS_NEXT_H

#include <dlfcn.h>

/* The next function of this name. It is looked up once: a forked child may not be able to. */
#define NEXT(name)                                                                                                     \
    __extension__({                                                                                                    \
        static void *next_;                                                                                            \
        void *found_ = __atomic_load_n(&next_, __ATOMIC_RELAXED);                                                      \
        if (!found_) {                                                                                                 \
            found_ = dlsym(RTLD_NEXT, #name);                                                                          \
            __atomic_store_n(&next_, found_, __ATOMIC_RELAXED);                                                        \
        }                                                                                                              \
        (__typeof__(&name))found_;                                                                                     \
    })

#endif
