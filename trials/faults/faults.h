/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Between the programs that meet a fault (scenarios.c) and their judge (faults.c), which are two processes.
 */
#ifndef FAULTS_FAULTS_H
#define FAULTS_FAULTS_H

#include <xensim.h>

#include "../trial.h"
#include "harness/assert.h"
#include "inject.h"

/* Longer than any fault is waited out (60 s without xenstored are a disaster): who has nothing after it has lost its event. */
enum { LONGEST_S = 150, WATCHDOG_S = 400, WATCHDOG_OF_OPERATIONS_S = 400 };

/* In the order in which one is preferred to the next. */
enum told { NOT_TOLD, BY_LOG, BY_DISASTER, BY_VALUE, TOLD_COUNT };

/* What a run tells its judge, in memory of both. */
struct run {
    int round;
    bool ended;
    /* Of each round. */
    int due[2], came[2];
    enum told told[2];
    char words[2][300];
    /* After both. */
    int fds;
    struct place held[PLACES_MAX];
    size_t places;
    unsigned long calls[WHOSE_COUNT][FUNCTION_COUNT], struck, hypercalls;
    char where[100];
    /* Of all rounds. */
    uint32_t domids[16], crowd_first, crowd_count;
    int domid_count;
};
extern struct run *run;
extern xensim_host *host;

/* A scenario: a short program, which says in `run` what it has seen. */
struct scenario {
    const char *name;
    void (*go)(void);
    int traits;
};
enum {
    ONLY_ALONE = 1,
    OPERATES = 2, /* with scripts and backends, which have their time */
    RESTARTS = 4, /* xenstored: faults that stay are another matter there */
    ONLY_MEMORY = 8 /* nothing but large blocks of memory fail */
};
extern const struct scenario scenarios[];
extern const size_t scenario_count;

/* Domains of the scenario `crowd`. */
enum { CROWD = 3000 };

#endif
