/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * host.h over the simulated host, xensim/. Built without it (no CTESTS_XENSIM), nothing can be commanded: that is for real
 * Xen.
 *
 * A test program brings a host of its own up before its first test; XENSIM_DIR names one that is there already, for those
 * who want to look at it. The tests' processes are forked from the program and find the host through the same handle.
 */
#include "host.h"

#include "assert.h"

bool host_has_newer_xenstored(void)
{
    return getenv("CTESTS_NEWER_XENSTORE") != NULL;
}

#ifndef CTESTS_XENSIM

bool host_is_simulated(void)
{
    return false;
}

void host_bring_up(void)
{
}

void host_reset(void)
{
}

/* No test gets here: those that command domains are left out. */
#define NOT_HERE FAIL("%s: this host can't be commanded", __func__)

uint32_t host_create(void) { NOT_HERE; }
uint32_t host_create_at(uint32_t domid) { (void)domid; NOT_HERE; }
void host_create_many(uint32_t first, uint32_t count) { (void)first, (void)count; NOT_HERE; }
uint32_t host_create_with_uuid(const uint8_t uuid[16]) { (void)uuid; NOT_HERE; }
uint32_t host_create_with_uuid_at(uint32_t domid, const uint8_t uuid[16]) { (void)domid, (void)uuid; NOT_HERE; }
void host_shutdown(uint32_t domid, int reason) { (void)domid, (void)reason; NOT_HERE; }
void host_suspend(uint32_t domid) { (void)domid; NOT_HERE; }
void host_resume(uint32_t domid) { (void)domid; NOT_HERE; }
void host_kill(uint32_t domid) { (void)domid; NOT_HERE; }
void host_shutdown_and_kill(uint32_t domid, int reason) { (void)domid, (void)reason; NOT_HERE; }
void host_destroy(uint32_t domid) { (void)domid; NOT_HERE; }
void host_shutdown_many(uint32_t first, uint32_t count, int reason) { (void)first, (void)count, (void)reason; NOT_HERE; }
void host_destroy_many(uint32_t first, uint32_t count) { (void)first, (void)count; NOT_HERE; }
void host_settle(void) { NOT_HERE; }
void host_fail_lists(int errnoval, int times) { (void)errnoval, (void)times; NOT_HERE; }
uint64_t host_lists_asked(void) { NOT_HERE; }
void host_access(enum host_access access) { (void)access; NOT_HERE; }
void host_kill_xenstored(void) { NOT_HERE; }
void host_start_xenstored(void) { NOT_HERE; }
void host_start_empty_xenstored(void) { NOT_HERE; }
void host_stop_xenstored(void) { NOT_HERE; }
void host_continue_xenstored(void) { NOT_HERE; }
uint32_t host_create_unknown(void) { NOT_HERE; }
void host_soft_reset(uint32_t domid) { (void)domid; NOT_HERE; }
void host_set_uuid(uint32_t domid, const uint8_t uuid[16]) { (void)domid, (void)uuid; NOT_HERE; }

#else

#include <xensim.h>

static xensim_host *host;

/* Domids: 0 is the control domain's, those from here on are nobody's. */
enum { DOMID_LIMIT = 0x7ff0 };

bool host_is_simulated(void)
{
    return host != NULL;
}

#define DO(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) < 0)                                                                                                \
            FAIL("%s: %s", #call, xensim_error());                                                                     \
    } while (0)

void host_bring_up(void)
{
    const char *dir = getenv("XENSIM_DIR");

    host = dir && *dir ? xensim_attach(dir) : xensim_up(0);
    if (!host) {
        fprintf(stderr, "no simulated host: %s\n", xensim_error());
        exit(2);
    }
}

void host_reset(void)
{
    static uint32_t domids[DOMID_LIMIT - 1];
    uint32_t i;

    for (i = 0; i < COUNT(domids); i++)
        domids[i] = i + 1;
    /* It may run already, or have been stopped. */
    xensim_xenstored(host, XENSIM_XENSTORED_CONTINUE);
    xensim_xenstored(host, XENSIM_XENSTORED_START);
    if (xensim_clear_faults(host) != 0 || xensim_access(host, XENSIM_ACCESS_FULL) != 0 ||
        xensim_destroy_many(host, domids, COUNT(domids), 0) < 0 || xensim_settle(host) != 0) {
        fprintf(stderr, "the simulated host can't be put back in order: %s\n", xensim_error());
        exit(2);
    }
}

/* ---- domains ---- */

/* Without nodes in the store, which are a toolstack's matter, thousands cost little. */
static uint32_t create(uint32_t domid, uint32_t count)
{
    struct xensim_config config = { .name = "guest", .domid = domid, .nodes = XENSIM_NODES_NONE };
    uint32_t *domids = calloc(count, sizeof *domids);
    uint32_t first;

    CHECK(domids != NULL);
    DO(xensim_create_many(host, &config, count, domids));
    first = domids[0];
    free(domids);
    return first;
}

uint32_t host_create(void)
{
    return create(XENSIM_DOMID_ANY, 1);
}

uint32_t host_create_at(uint32_t domid)
{
    return create(domid, 1);
}

void host_create_many(uint32_t first, uint32_t count)
{
    create(first, count);
}

uint32_t host_create_with_uuid_at(uint32_t domid, const uint8_t uuid[16])
{
    struct xensim_config config = { .name = "guest", .domid = domid, .uuid = uuid, .nodes = XENSIM_NODES_NONE };

    DO(xensim_create_many(host, &config, 1, &domid));
    return domid;
}

uint32_t host_create_with_uuid(const uint8_t uuid[16])
{
    return host_create_with_uuid_at(XENSIM_DOMID_ANY, uuid);
}

uint32_t host_create_unknown(void)
{
    struct xensim_config config = { .name = "guest", .domid = XENSIM_DOMID_ANY, .flags = XENSIM_NOT_INTRODUCED,
                                    .nodes = XENSIM_NODES_NONE };
    uint32_t domid;

    DO(xensim_create_many(host, &config, 1, &domid));
    return domid;
}

void host_shutdown(uint32_t domid, int reason)
{
    DO(xensim_shutdown(host, domid, (unsigned)reason));
}

void host_suspend(uint32_t domid)
{
    DO(xensim_suspend(host, domid));
}

void host_resume(uint32_t domid)
{
    DO(xensim_resume(host, domid));
}

void host_soft_reset(uint32_t domid)
{
    DO(xensim_soft_reset(host, domid));
}

void host_set_uuid(uint32_t domid, const uint8_t uuid[16])
{
    DO(xensim_set_uuid(host, domid, uuid));
}

void host_kill(uint32_t domid)
{
    DO(xensim_kill(host, domid));
}

void host_destroy(uint32_t domid)
{
    DO(xensim_destroy(host, domid));
}

static void change(uint32_t first, uint32_t count, enum xensim_change change, int reason, bool destroy)
{
    uint32_t *domids = calloc(count, sizeof *domids), i;
    long changed;

    CHECK(domids != NULL);
    for (i = 0; i < count; i++)
        domids[i] = first + i;
    if (destroy)
        DO(changed = xensim_destroy_many(host, domids, count, 0));
    else
        DO(changed = xensim_change_many(host, domids, count, change, (unsigned)reason));
    CHECK_EQUAL(changed, count);
    free(domids);
}

void host_shutdown_and_kill(uint32_t domid, int reason)
{
    change(domid, 1, XENSIM_CHANGE_SHUTDOWN_AND_KILL, reason, false);
}

void host_shutdown_many(uint32_t first, uint32_t count, int reason)
{
    change(first, count, XENSIM_CHANGE_SHUTDOWN, reason, false);
}

void host_destroy_many(uint32_t first, uint32_t count)
{
    change(first, count, XENSIM_CHANGE_KILL, 0, true);
}

void host_settle(void)
{
    DO(xensim_settle(host));
}

/* ---- what goes wrong ---- */

void host_fail_lists(int errnoval, int times)
{
    struct xensim_fault fault = { .errnum = errnoval, .times = times < 0 ? XENSIM_ALWAYS : (uint64_t)times };

    if (times == 0)
        DO(xensim_clear_faults(host));
    else
        DO(xensim_inject(host, XENSIM_CALL_GETDOMAININFOLIST, &fault));
}

uint64_t host_lists_asked(void)
{
    return xensim_count(host, XENSIM_CALL_GETDOMAININFOLIST);
}

void host_access(enum host_access access)
{
    static const enum xensim_access accesses[] = { [ACCESS_FULL] = XENSIM_ACCESS_FULL,
                                                   [ACCESS_NO_PERMISSION] = XENSIM_ACCESS_NO_PERMISSION,
                                                   [ACCESS_NO_HYPERVISOR] = XENSIM_ACCESS_NO_HYPERVISOR };

    DO(xensim_access(host, accesses[access]));
}

void host_kill_xenstored(void)
{
    DO(xensim_xenstored(host, XENSIM_XENSTORED_KILL));
}

void host_start_xenstored(void)
{
    DO(xensim_xenstored(host, XENSIM_XENSTORED_START));
}

void host_start_empty_xenstored(void)
{
    DO(xensim_xenstored(host, XENSIM_XENSTORED_START_EMPTY));
}

void host_stop_xenstored(void)
{
    DO(xensim_xenstored(host, XENSIM_XENSTORED_PAUSE));
}

void host_continue_xenstored(void)
{
    DO(xensim_xenstored(host, XENSIM_XENSTORED_CONTINUE));
}

#endif
