/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * xensim.h: drives a simulated Xen host from a C test. Link with -lxensim, or preload libxensim.so.
 *
 * A program that brings a host up is its client from then on, and so are the programs that it starts: what they open
 * below /dev/xen and /proc/xen is the host's, and libxenstore finds the host's xenstored. Nothing has to be preloaded
 * for that, as long as the program is linked with -lxensim.
 *
 *     xensim_host *host = xensim_up(0);
 *     uint32_t domid;
 *
 *     xensim_create(host, "guest", &domid);
 *     libxl_ctx_alloc(...); libxl_evenable_domain_death(ctx, domid, ...);
 *     xensim_shutdown(host, domid, XENSIM_REASON_CRASH);
 *     libxl_event_wait(...);
 *     xensim_down(host);
 *
 * Functions that return int return 0, or -1 with errno set and the reason in words from xensim_error(). A NULL host is
 * EINVAL. A host may be used from several threads. xensim_up and xensim_use change the environment, which no thread may
 * read meanwhile.
 */
#ifndef XENSIM_H
#define XENSIM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct xensim_host xensim_host;

/* ---- Hosts ---- */

/* xensim_up: without xenstored, until XENSIM_XENSTORED_START. */
#define XENSIM_UP_WITHOUT_XENSTORED 1u

/*
 * Brings a host up, with xenstored and a control domain, and makes this process its client. It goes down with this
 * process, however that ends. NULL on failure.
 */
xensim_host *xensim_up(unsigned flags);

/* The host in a directory that `xensim up` printed; NULL: the one that XENSIM_DIR names. NULL on failure. */
xensim_host *xensim_attach(const char *dir);

/* Makes this process, and the programs that it starts from now on, clients of this host and no other. */
int xensim_use(xensim_host *host);

/* Takes the host down and frees the handle. What has been opened on it stays open, and fails. */
int xensim_down(xensim_host *host);

/* Frees the handle of a host that was attached to; the host stays up. EINVAL for one that xensim_up gave. */
int xensim_detach(xensim_host *host);

/* The host's directory; valid as long as the handle. */
const char *xensim_dir(xensim_host *host);

/* What the last function that failed in this thread has to say; valid until the next one fails. Never NULL. */
const char *xensim_error(void);

/* ---- Domains ---- */

enum xensim_reason {
    XENSIM_REASON_POWEROFF = 0,
    XENSIM_REASON_REBOOT = 1,
    XENSIM_REASON_SUSPEND = 2,
    XENSIM_REASON_CRASH = 3,
    XENSIM_REASON_WATCHDOG = 4,
    XENSIM_REASON_SOFT_RESET = 5 /* and any other up to 255 */
};

/* Which nodes a new domain gets in the store. */
enum xensim_nodes {
    XENSIM_NODES_ALL,  /* what a toolstack writes for a guest without devices */
    XENSIM_NODES_NAME, /* its name alone */
    XENSIM_NODES_NONE
};

#define XENSIM_DOMID_ANY (~(uint32_t)0)

#define XENSIM_HVM 1u
#define XENSIM_PAUSED 2u
/* xenstored is not told of it: no watch fires for it. */
#define XENSIM_NOT_INTRODUCED 4u

/* Zeroes, a name and XENSIM_DOMID_ANY make an ordinary guest. */
struct xensim_config {
    const char *name;    /* of many, each gets its place (from 1) behind it */
    uint32_t domid;      /* the first one's, the others' follow; or XENSIM_DOMID_ANY */
    uint32_t vcpus;      /* 0: 1 */
    uint64_t memory_mib; /* 0: 64 */
    const uint8_t *uuid; /* 16 bytes; NULL: a random one. For one domain only. */
    uint32_t flags;      /* XENSIM_HVM ... */
    enum xensim_nodes nodes;
};

/* Creates an ordinary guest. Numbers count up and are not used again before they have all been used. */
int xensim_create(xensim_host *host, const char *name, uint32_t *domid);

/* Creates `count` domains, or none, and puts their numbers into `domids`, which may be NULL. */
int xensim_create_many(xensim_host *host, const struct xensim_config *config, size_t count, uint32_t *domids);

/*
 * What happens to a domain. ESRCH if it is not there; EINVAL if it cannot happen to it any more: the first shutdown
 * counts, and the dying do nothing.
 */
int xensim_shutdown(xensim_host *host, uint32_t domid, unsigned reason);
int xensim_suspend(xensim_host *host, uint32_t domid);
/* Runs again after a shutdown; xenstored is told, as a toolstack does. */
int xensim_resume(xensim_host *host, uint32_t domid);
/* Runs again after a shutdown, reset in place: xenstored is told to forget it, and is told of it anew. */
int xensim_soft_reset(xensim_host *host, uint32_t domid);
/* Dying, and still there. */
int xensim_kill(xensim_host *host, uint32_t domid);
/* Gone, and its nodes removed. */
int xensim_destroy(xensim_host *host, uint32_t domid);
int xensim_pause(xensim_host *host, uint32_t domid);
int xensim_unpause(xensim_host *host, uint32_t domid);
/* Another UUID (16 bytes) for a domain that is there, living or dying, as a toolstack gives it. Its nodes stay as they are. */
int xensim_set_uuid(xensim_host *host, uint32_t domid, const uint8_t *uuid);

enum xensim_change {
    XENSIM_CHANGE_SHUTDOWN,
    XENSIM_CHANGE_KILL,
    XENSIM_CHANGE_SHUTDOWN_AND_KILL, /* in one step: nobody sees it shut down and alive */
    XENSIM_CHANGE_PAUSE,
    XENSIM_CHANGE_UNPAUSE
};

/* The same for many domains at once, under one VIRQ. How many it happened to: others are left out. -1 on failure. */
long xensim_change_many(xensim_host *host, const uint32_t *domids, size_t count, enum xensim_change change,
                        unsigned reason);

#define XENSIM_KEEP_NODES 1u

/* Many domains gone at once, under one VIRQ. How many; -1 on failure. */
long xensim_destroy_many(xensim_host *host, const uint32_t *domids, size_t count, unsigned flags);

/* ---- xenstored ---- */

/*
 * Waits until xenstored has dealt with all that happened to domains so far, and has sent what it will send because of
 * it: after this, an event that a client cannot see yet will not come.
 */
int xensim_settle(xensim_host *host);

/* Lets xenstored look at its domains for no reason. */
int xensim_virq(xensim_host *host);

enum xensim_xenstored {
    XENSIM_XENSTORED_START,       /* and tell it of the domains, as their toolstack would */
    XENSIM_XENSTORED_START_EMPTY, /* and tell it nothing */
    XENSIM_XENSTORED_KILL,        /* what it held is lost */
    XENSIM_XENSTORED_RESTART,     /* KILL and START */
    XENSIM_XENSTORED_PAUSE,       /* it answers nothing until ... */
    XENSIM_XENSTORED_CONTINUE
};

int xensim_xenstored(xensim_host *host, enum xensim_xenstored what);

/* Nodes of the store, as the control domain. */
int xensim_store_write(xensim_host *host, const char *path, const char *value);
/* The value, a zero byte behind it, for free(); NULL with ENOENT if there is no such node. */
char *xensim_store_read(xensim_host *host, const char *path);
/* A node and all below it; none there is fine. */
int xensim_store_remove(xensim_host *host, const char *path);

/* ---- Hypercalls ---- */

enum xensim_call {
    XENSIM_CALL_GETDOMAININFOLIST, /* xc_domain_getinfolist */
    XENSIM_CALL_GETDOMAININFO,     /* one domain */
    XENSIM_CALL_SYSCTL,            /* any other sysctl */
    XENSIM_CALL_DOMCTL,            /* any other domctl */
    XENSIM_CALL_XEN_VERSION,
    XENSIM_CALL_SCHED_OP,
    XENSIM_CALL_EVENT_CHANNEL_OP,
    XENSIM_CALL_MEMORY_OP,
    XENSIM_CALL_OTHER
};

#define XENSIM_ALWAYS (~(uint64_t)0)

/* How hypercalls of one kind misbehave, those of clients only: xenstored's stay good. */
struct xensim_fault {
    int errnum;        /* what they fail with; 0: they succeed, late */
    uint64_t times;    /* how many fail, or XENSIM_ALWAYS */
    uint64_t after;    /* how many succeed before */
    uint64_t delay_us; /* how long each takes, failing or not */
};

int xensim_inject(xensim_host *host, enum xensim_call call, const struct xensim_fault *fault);
int xensim_clear_faults(xensim_host *host);

/* How many hypercalls of a kind clients have made since the last reset, those that failed too. 0 for a bad argument. */
uint64_t xensim_count(xensim_host *host, enum xensim_call call);
int xensim_reset_counts(xensim_host *host);

enum xensim_access {
    XENSIM_ACCESS_FULL,
    XENSIM_ACCESS_NO_PERMISSION, /* opening a device fails with EACCES */
    XENSIM_ACCESS_NO_HYPERVISOR  /* there are no devices: ENOENT */
};

/* Whether clients may open the devices from now on. What is open stays good. */
int xensim_access(xensim_host *host, enum xensim_access access);

#ifdef __cplusplus
}
#endif

#endif
