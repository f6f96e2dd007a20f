/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A storm: domains come and go while xenstored does, and whoever watches must be told of all that can still be seen, once.
 *
 *   storm.c      what happens to the host, round by round
 *   observers.c  who watches: contexts of all kinds, each with a thread; and the threads that enable and disable generators
 *   oracle.c     what each generator may say, must say by now, and has said
 *
 * State is looked at and not counted, so not all that has happened is seen: what a look comes too late for is nobody's
 * loss. What a generator has told must be the way of the domain's life, with steps left out and none repeated; and whenever
 * all is quiet (`await_truth`), what it told last must be how things stand.
 */
#ifndef TRIALS_STORM_H
#define TRIALS_STORM_H

#include <libxl_event.h>
#include <xentoollog.h>

#include "../trial.h"
#include "harness/assert.h"
#include "harness/ours.h"

/* Seconds, longer than anything takes on a busy machine. */
extern unsigned patience_s;

/* What is spoilt on purpose, to see that it is found: one event in many is lost, or taken in twice. */
extern enum spoil { NOTHING_SPOILT, SPOILT_BY_LOSS, SPOILT_BY_REPETITION } spoil;

/* ---- lives of domains (oracle.c) ---- */

enum { SLOTS = 120, REASON_SUSPEND = 2, STEPS_MAX = 14 };

/* A state: a shutdown's reason, or one of these. */
enum { RUNNING = 0x100, DEAD, NOT_CREATED };

/* The driver says what is about to happen, just before it does it. */
int begin_life(unsigned slot, uint32_t domid);
/* It has begun. Who enables a generator before this has it for the domain that had the number before, which is dead. */
void has_begun(int life);
void note_state(int life, int state);
int state_of(int life);
uint32_t domid_of(int life);
void uuid_of(int life, uint8_t uuid[16]);
bool can_live_on(int life);

/* ---- generators (oracle.c) ---- */

enum kind { DEATHS, STATES, ANY };

/* A generator for the present domain of this number; what it is for_user. */
uint64_t begin_generator(unsigned observer, enum kind kind, unsigned slot, uint32_t domid);
/* Enabled: it has to speak from now on. */
void generator_enabled(uint64_t user, void *evgen);
/*
 * Disabled, or never enabled: it may speak, and need not. Its handle, once; NULL if somebody else has got it, or
 * STILL_ENABLING.
 */
#define STILL_ENABLING ((void *)-1)
void *generator_ends(uint64_t user, bool failed);
/* Takes an event in; whether it was the generator's last word. */
bool take_in(unsigned observer, const libxl_event *event);
/* Waits until every generator has told how things stand. */
void await_truth(void);

struct tally {
    uint64_t events, lives, generators, followed;
};
struct tally tally(void);

/* ---- who watches (observers.c) ---- */

void start_observers(uint64_t seed);
void stop_observers(void);
unsigned observers(void);
const char *observer_name(unsigned observer);
/* Which slots an observer is for. */
bool observes(unsigned observer, unsigned slot);
enum kind kind_of_observer(unsigned observer);
/* A new domain: all that are for it enable a generator, soon. */
void enable_for(unsigned slot, int life);
/* A generator of a dead domain's is disabled, soon. */
void disable_later(unsigned observer, uint64_t user);
/* Until nothing is left to be enabled or disabled. Only while xenstored answers. */
void await_toolstack(void);
/* How often xenstored was lost and found again, by all of them, and whether the log has a line for each and no more. */
struct outages {
    uint64_t lost, found, disasters, retries;
};
struct outages check_logs(void);

#endif
