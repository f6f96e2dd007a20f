/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What libxl_event.h costs, one operation a run: the same program is linked with libxenlight and with libxlevent, and
 * runs on the same simulated host (xensim).
 *
 * usage: events OPERATION N ROUNDS
 *
 * Prints `OPERATION N ROUNDS value hypercalls unit`, value and hypercalls per round (medians; what one round is, is said
 * beside each operation). A value in ns is a time: only what stands between the two readings of the clock counts, and
 * callgrind counts the same when it is told `--collect-atstart=no --toggle-collect=measured`.
 *
 * events.c has the operations that take time, contexts.c those of many contexts at once, holds.c those that tell what is
 * held meanwhile.
 */
#ifndef BENCH_H
#define BENCH_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <libxl_event.h>
#include <xensim.h>
#include <xentoollog.h>

#define DIE(...)                                                                                                       \
    do {                                                                                                               \
        fprintf(stderr, "events: " __VA_ARGS__);                                                                       \
        fputc('\n', stderr);                                                                                           \
        exit(2);                                                                                                       \
    } while (0)

struct operation {
    const char *name;
    void (*run)(unsigned rounds);
    /* NULL: ns. */
    const char *unit;
};

/* Ended by one without a name. */
extern const struct operation events_operations[], contexts_operations[], holds_operations[];

/* Open before an operation runs; its logger drops everything, as xl has it. */
extern xensim_host *host;
extern xentoollog_logger *logger;
extern libxl_ctx *ctx;

/* Domains FIRST .. FIRST + count - 1 are watched; BYSTANDER is not. */
enum { BYSTANDER = 99, FIRST = 100 };
extern unsigned count;

/* One of each per round. */
extern uint64_t *samples, *hypercalls;
extern unsigned sample_count;

/* Adds a sample of what `work` costs. */
void measure(void (*work)(void *), void *argument);
/* Ends the program unless rc is 0. */
void must(int rc, const char *what);

uint32_t domid_of(unsigned index);
/* `number` domains from `first` on, without nodes in the store: nobody here looks at those. */
void create(uint32_t first, unsigned number);
void shut_down(uint32_t domid);
/* One firing of @releaseDomain that concerns nobody; what xenstored had to do is done. */
void irrelevant_release(void);

libxl_evgen_domain_death *enable(uint32_t domid);
/* Whether the library's descriptors are readable within so many milliseconds; `fds` is as after poll. */
bool readable(int timeout);
extern struct pollfd fds[8];
extern int nfds;
extern struct timeval now;
/* Takes all events, and counts them. */
void retrieve_all(void);
extern unsigned events_seen;
/* What a poll loop does when its descriptors are readable. */
void turn(void *unused);
void turn_until_quiet(void);
/* Waits (outside the measurement) until there is something, then measures turns until `want` events have come. */
void measure_turns(unsigned want);
/* Creates `number` domains, and watches them. */
void watch(unsigned number);
/* Has `number` SHUTDOWN events queued, and one more taken. */
void queue_shutdowns(unsigned number);

#endif
