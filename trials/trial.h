/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What trials need that tests have no use for: time, and chance. */
#ifndef TRIALS_TRIAL_H
#define TRIALS_TRIAL_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

static inline uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/*
 * Chance: the same for the same seed, as far as the machine lets threads do the same. Each thread has its own in each source
 * file, and sets it first.
 */
static __thread uint64_t chance __attribute__((unused));

/* A number below `limit`; 0 if that is 0. */
static inline uint32_t below(uint64_t limit)
{
    uint64_t mixed = chance += 0x9e3779b97f4a7c15;

    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
    return limit ? (uint32_t)((mixed ^ mixed >> 31) >> 32) % (uint32_t)limit : 0;
}

static inline bool one_in(uint32_t n)
{
    return below(n) == 0;
}

#endif
