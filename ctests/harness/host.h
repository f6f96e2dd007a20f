/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The host under the tests, as far as they command it: domains that begin, shut down and end, and what goes wrong.
 *
 * Every function does what it says or ends the test. A test that uses one is a DOMAIN_TEST. What a test has done to the
 * host is undone after it.
 */
#ifndef CTESTS_HOST_H
#define CTESTS_HOST_H

#include <stdbool.h>
#include <stdint.h>

/* Whether the host can be commanded. Where it can't, only host_bring_up and host_reset may be called. */
bool host_is_simulated(void);

/* Before the first test. */
void host_bring_up(void);
/* After a test, also after one that was killed: only the control domain is left, everything works. */
void host_reset(void);

/* Whether xenstored can watch single domains, as from Xen 4.22 on: `ctests/run --newer-xenstore`. */
bool host_has_newer_xenstored(void);

/* ---- domains ---- */

/* Why a domain shut down, as Xen numbers it. */
enum { POWEROFF = 0, REBOOT = 1, SUSPEND = 2, CRASH = 3, WATCHDOG = 4 };

/* A running domain that xenstored knows. */
uint32_t host_create(void);
uint32_t host_create_at(uint32_t domid);
/* `count` of them: first, first + 1, ... */
void host_create_many(uint32_t first, uint32_t count);
uint32_t host_create_with_uuid(const uint8_t uuid[16]);
uint32_t host_create_with_uuid_at(uint32_t domid, const uint8_t uuid[16]);
/* xenstored doesn't know it. */
uint32_t host_create_unknown(void);

void host_shutdown(uint32_t domid, int reason);
void host_suspend(uint32_t domid);
/* As after a checkpoint: it runs on. */
void host_resume(uint32_t domid);
/* After a shutdown it is reset in place and runs on: xenstored forgets it, and then gets to know it again. */
void host_soft_reset(uint32_t domid);
/* Its toolstack gives it another UUID. */
void host_set_uuid(uint32_t domid, const uint8_t uuid[16]);
/* Dying, and still there. */
void host_kill(uint32_t domid);
/* Both at once. */
void host_shutdown_and_kill(uint32_t domid, int reason);
/* Gone, from whatever it was. */
void host_destroy(uint32_t domid);

/* To `count` domains from `first` on, all at the same time: xenstored is told once. */
void host_shutdown_many(uint32_t first, uint32_t count, int reason);
void host_destroy_many(uint32_t first, uint32_t count);

/* Until xenstored has dealt with all this, and has sent what it had to send because of it. */
void host_settle(void);

/* ---- what goes wrong ---- */

/* The next `times` questions for a list of domains fail, -1 for all from now on; 0 makes them work again. */
void host_fail_lists(int errnoval, int times);

/* How many questions for a list of domains the programs under test have asked. */
uint64_t host_lists_asked(void);

enum host_access { ACCESS_FULL, ACCESS_NO_PERMISSION, ACCESS_NO_HYPERVISOR };
/* What happens from now on when somebody opens Xen's devices. */
void host_access(enum host_access access);

void host_kill_xenstored(void);
/* With a store that knows the domains that there are. */
void host_start_xenstored(void);
/* As on a real host after a crash: it knows the control domain alone. */
void host_start_empty_xenstored(void);
/* It answers nothing, until it goes on. */
void host_stop_xenstored(void);
void host_continue_xenstored(void);

#endif
