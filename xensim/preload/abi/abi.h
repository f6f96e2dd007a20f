/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Between abi.c, which knows from Xen's headers how hypercalls and ioctls are laid out, and abi.rs, which mirrors this
 * file and knows what they mean here.
 */
#ifndef XENSIM_ABI_H
#define XENSIM_ABI_H

#include <stdint.h>

/* What a hypercall asks. The order is abi.rs's. */
enum xensim_op {
    XENSIM_OP_OTHER,
    XENSIM_OP_OTHER_SYSCTL,
    XENSIM_OP_OTHER_DOMCTL,
    XENSIM_OP_OTHER_SCHED,
    XENSIM_OP_EVENT_CHANNEL,
    XENSIM_OP_MEMORY,
    XENSIM_OP_XEN_VERSION,
    XENSIM_OP_GETDOMAININFOLIST, /* domid: the first, count: how many there is room for */
    XENSIM_OP_PHYSINFO,
    XENSIM_OP_GETDOMAININFO, /* exact: that domain, otherwise that or the next */
    XENSIM_OP_CREATE,        /* domid, handle, count: virtual processors, flag: HVM */
    XENSIM_OP_DESTROY,
    XENSIM_OP_PAUSE,
    XENSIM_OP_UNPAUSE,
    XENSIM_OP_RESUME,
    XENSIM_OP_SET_HANDLE, /* handle */
    XENSIM_OP_MAX_VCPUS,  /* count */
    XENSIM_OP_MAX_MEM,    /* count: KiB */
    XENSIM_OP_SHUTDOWN,   /* count: the reason */
    XENSIM_OP_CPUPOOL_INFO, /* count: the pool, or the first one after it */
    XENSIM_OP_CPUPOOL_FREE, /* which processors no pool has */
    XENSIM_OP_CPUPOOL_MOVE, /* domid, count: the pool */
    XENSIM_OP_UNSUPPORTED   /* a domctl of which most machines say that they have not got it */
};

/* A hypercall, taken apart. */
struct xensim_call {
    uint32_t op;
    uint32_t domid;
    uint32_t count;
    uint32_t flag;
    uint8_t handle[16];
    /* The hypercall's own structure, for abi.c to put the answer into. */
    void *argument;
};

/* A domain, as it is to be described. */
struct xensim_domain {
    uint32_t domid;
    uint32_t dying, shutdown, reason, paused, hvm;
    uint32_t vcpus;
    uint64_t pages;
    uint64_t cpu_time_ns;
    uint64_t shared_frame;
    uint8_t handle[16];
};

/* What an ioctl asks. The order is abi.rs's. */
enum xensim_request {
    XENSIM_REQUEST_FOREIGN, /* nothing of a Xen device */
    XENSIM_REQUEST_UNKNOWN,
    XENSIM_REQUEST_HYPERCALL,
    XENSIM_REQUEST_GRANT_MAP,
    XENSIM_REQUEST_GRANT_OFFSET,
    XENSIM_REQUEST_GRANT_NOTHING, /* succeeds without doing anything */
    XENSIM_REQUEST_BIND_VIRQ,
    XENSIM_REQUEST_BIND_INTERDOMAIN,
    XENSIM_REQUEST_BIND_UNBOUND,
    XENSIM_REQUEST_UNBIND,
    XENSIM_REQUEST_NOTIFY
};

/* How many of a grant mapping's pages there are, and the first one's place. */
struct xensim_grant {
    uint32_t count, domid, reference;
};

enum xensim_request xensim_abi_request(unsigned long request);

/* Takes a privcmd hypercall apart: 0, or an errno if the caller speaks another version of the interface. */
int xensim_abi_decode(const void *hypercall, struct xensim_call *call);

/* Puts answers into the caller's structure. */
void xensim_abi_put_domain(const struct xensim_call *call, uint32_t index, const struct xensim_domain *domain);
void xensim_abi_put_count(const struct xensim_call *call, uint32_t count);
void xensim_abi_put_domid(const struct xensim_call *call, uint32_t domid);
void xensim_abi_put_physinfo(const struct xensim_call *call, uint64_t used_pages);
/* Pool 0, which has all processors and so many domains; or that no processor is free. */
void xensim_abi_put_cpupool(const struct xensim_call *call, uint32_t domains);
void xensim_abi_put_no_free_cpu(const struct xensim_call *call);
/* Answers xen_version: its value, or -errno. */
long xensim_abi_xen_version(const struct xensim_call *call);

/* The arguments of ioctls. */
void xensim_abi_get_grant(const void *argument, struct xensim_grant *grant);
void xensim_abi_put_grant_index(void *argument, uint64_t index);
void xensim_abi_put_grant_offset(void *argument);
/* The virtual interrupt or the port. */
uint32_t xensim_abi_get_number(const void *argument);

#endif
