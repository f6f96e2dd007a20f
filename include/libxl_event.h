/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libxl_event.h: events from Xen's toolstack library, as xlevent provides them.
 *
 * Generated from src/capi; do not edit. A contributor changes the Rust file and runs `make headers`.
 *
 * This header works in two ways.
 *
 * - In place of Xen's own: where <libxl.h> is installed, the types come from there. <libxl.h> itself includes this file
 *   instead of Xen's when this directory comes first in the search path (-I). What is declared is the same.
 * - Alone: where there is no <libxl.h>, the few types that are needed are declared here.
 *
 * The second is chosen where the compiler cannot find <libxl.h>, or with -DXLEVENT_STANDALONE (then leave <libxl.h> out
 * of the same source file).
 *
 * What holds for every function
 *
 * - Those that can fail return 0 or a negative error number, ERROR_..., and log why through the context's logger. Where
 *   there is no context, the line goes to stderr.
 * - A pointer that is NULL without need, a context or a handle that does not exist: ERROR_INVAL and a log line; from a
 *   function that returns nothing, a log line. A function says so where NULL means something.
 * - ERROR_NOMEM may come from any function that can fail.
 * - Anything may be called from any thread, also at the same time with the same context, unless it says otherwise.
 * - Callbacks and hooks run with no lock of the library's held, and may call any function unless it says otherwise.
 * - LIBXL_EXTERNAL_CALLERS_ONLY marks what libxl itself must not call; it means nothing to applications.
 */

#ifndef LIBXL_EVENT_H
#define LIBXL_EVENT_H

/* Which of the two ways it is. Once <libxl.h> has been seen, its types are there and count. */
#if defined(LIBXL_H)
#  define XLEVENT__ALONE 0
#elif defined(XLEVENT_STANDALONE)
#  define XLEVENT__ALONE 1
#elif defined(__has_include)
#  if __has_include(<libxl.h>)
#    define XLEVENT__ALONE 0
#  else
#    define XLEVENT__ALONE 1
#  endif
#else
#  define XLEVENT__ALONE 0
#endif

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/time.h>
#include <sys/types.h>

#if !XLEVENT__ALONE
#  if defined(__cplusplus) && !defined(LIBXL_H)
/*
 * <libxl.h> does not say extern "C", so we do. The standard headers that it includes must have been seen before: theirs
 * may hold what is not C.
 */
#    include <errno.h>
#    include <netinet/in.h>
#    include <stdarg.h>
#    include <stddef.h>
#    include <stdio.h>
#    include <stdlib.h>
#    include <string.h>
#    include <sys/wait.h>
extern "C" {
#    include <libxl.h>
}
#  else
#    include <libxl.h>
#  endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

#if XLEVENT__ALONE

/*
 * ==== What <libxl.h> would have brought ====
 */

#define LIBXL_VERSION 0

#ifndef LIBXL_EXTERNAL_CALLERS_ONLY
#define LIBXL_EXTERNAL_CALLERS_ONLY
#endif

/* Until Xen 4.2 the event_occurs callback took a pointer to const. */
#if !defined(LIBXL_API_VERSION) || LIBXL_API_VERSION != 0x040200
#define LIBXL_HAVE_NONCONST_EVENT_OCCURS_EVENT_ARG 1
#endif

/* Xen's logger; <xentoollog.h> says how to make one. */
struct xentoollog_logger;

/** The error numbers that functions return. All are negative; 0 is success. */
typedef enum libxl_error {
    /** An error of no particular kind. */
    ERROR_NONSPECIFIC = -1,
    /** The caller was built for another version of the interface. */
    ERROR_VERSION = -2,
    /** The operation failed; the log says why. */
    ERROR_FAIL = -3,
    /** Not implemented. */
    ERROR_NI = -4,
    /** Out of memory. */
    ERROR_NOMEM = -5,
    /** An argument, or the moment of the call, is wrong. */
    ERROR_INVAL = -6,
    /** The operation failed, and so did the attempt to undo it. */
    ERROR_BADFAIL = -7,
    /** The guest did not answer in time. */
    ERROR_GUEST_TIMEDOUT = -8,
    /** Something other than the guest did not answer in time. */
    ERROR_TIMEDOUT = -9,
    /** The guest has no paravirtual drivers. */
    ERROR_NOPARAVIRT = -10,
    /** What was asked for has not happened yet. */
    ERROR_NOT_READY = -11,
    /** A hook of the application refused to register a descriptor or a timeout. */
    ERROR_OSEVENT_REG_FAIL = -12,
    /** The caller's buffer is too small. */
    ERROR_BUFFERFULL = -13,
    /** The process is not a child that the one asked knows of. */
    ERROR_UNKNOWN_CHILD = -14,
    /** A lock could not be taken. */
    ERROR_LOCK_FAIL = -15,
    /** There is no stored configuration. */
    ERROR_JSON_CONFIG_EMPTY = -16,
    /** The device exists already. */
    ERROR_DEVICE_EXISTS = -17,
    /** A checkpoint device operation does not fit the device. */
    ERROR_CHECKPOINT_DEVOPS_DOES_NOT_MATCH = -18,
    /** The device cannot be checkpointed. */
    ERROR_CHECKPOINT_DEVICE_NOT_SUPPORTED = -19,
    /** The virtual NUMA configuration is not valid. */
    ERROR_VNUMA_CONFIG_INVALID = -20,
    /** There is no such domain. */
    ERROR_DOMAIN_NOTFOUND = -21,
    /** The operation was called off. */
    ERROR_ABORTED = -22,
    /** There is no such thing. */
    ERROR_NOTFOUND = -23,
    /** The domain was destroyed meanwhile. */
    ERROR_DOMAIN_DESTROYED = -24,
    /** The feature no longer exists. */
    ERROR_FEATURE_REMOVED = -25,
    /** QEMU's answer breaks its protocol. */
    ERROR_PROTOCOL_ERROR_QMP = -26,
    /** QEMU answered with an error of an unknown class. */
    ERROR_UNKNOWN_QMP_ERROR = -27,
    /** QEMU answered with an error of its general class. */
    ERROR_QMP_GENERIC_ERROR = -28,
    /** QEMU does not know the command. */
    ERROR_QMP_COMMAND_NOT_FOUND = -29,
    /** QEMU says that the device is not active. */
    ERROR_QMP_DEVICE_NOT_ACTIVE = -30,
    /** QEMU does not know the device. */
    ERROR_QMP_DEVICE_NOT_FOUND = -31,
    /** QEMU's answer lacks something that it should have. */
    ERROR_QEMU_API = -32,
} libxl_error;

/** What an event is about. In a mask of event types, the bit is `1 << type`. */
typedef enum libxl_event_type {
    /** A domain has shut down; `u.domain_shutdown` says why. Its memory and devices are still there. */
    LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN = 1,
    /** A domain is being destroyed, or is gone. */
    LIBXL_EVENT_TYPE_DOMAIN_DEATH = 2,
    /** A guest has opened the tray of a virtual CD drive; see `u.disk_eject`. */
    LIBXL_EVENT_TYPE_DISK_EJECT = 3,
    /** An asynchronous operation has ended; `u.operation_complete` has its result. */
    LIBXL_EVENT_TYPE_OPERATION_COMPLETE = 4,
    /** A domain that is being created has its console. */
    LIBXL_EVENT_TYPE_DOMAIN_CREATE_CONSOLE_AVAILABLE = 5,
} libxl_event_type;

/** What a disk's data is stored in. */
typedef enum libxl_disk_format {
    /** Not known. */
    LIBXL_DISK_FORMAT_UNKNOWN = 0,
    /** A qcow image. */
    LIBXL_DISK_FORMAT_QCOW = 1,
    /** A qcow2 image. */
    LIBXL_DISK_FORMAT_QCOW2 = 2,
    /** A VHD image. */
    LIBXL_DISK_FORMAT_VHD = 3,
    /** The plain data. */
    LIBXL_DISK_FORMAT_RAW = 4,
    /** No medium: a drive with nothing in it. */
    LIBXL_DISK_FORMAT_EMPTY = 5,
    /** A QED image. */
    LIBXL_DISK_FORMAT_QED = 6,
} libxl_disk_format;

/** Which program or driver serves a disk. */
typedef enum libxl_disk_backend {
    /** Not known, or left to the library. */
    LIBXL_DISK_BACKEND_UNKNOWN = 0,
    /** The kernel's block driver. */
    LIBXL_DISK_BACKEND_PHY = 1,
    /** blktap. */
    LIBXL_DISK_BACKEND_TAP = 2,
    /** QEMU. */
    LIBXL_DISK_BACKEND_QDISK = 3,
    /** A program that is none of these. */
    LIBXL_DISK_BACKEND_STANDALONE = 4,
} libxl_disk_backend;

/** By which protocol the guest talks to a disk. */
typedef enum libxl_disk_specification {
    /** Not said. */
    LIBXL_DISK_SPECIFICATION_UNKNOWN = 0,
    /** Xen's block protocol. */
    LIBXL_DISK_SPECIFICATION_XEN = 1,
    /** virtio. */
    LIBXL_DISK_SPECIFICATION_VIRTIO = 2,
} libxl_disk_specification;

/** How a virtio disk is attached. */
typedef enum libxl_disk_transport {
    /** Not said, or not virtio. */
    LIBXL_DISK_TRANSPORT_UNKNOWN = 0,
    /** Through memory-mapped registers. */
    LIBXL_DISK_TRANSPORT_MMIO = 1,
} libxl_disk_transport;

/** A value of the caller's own choice, handed back unchanged in each event. It can hold any pointer. */
typedef uint64_t libxl_ev_user;

/** The links of the library's own list of events. Not for applications: the contents mean nothing outside. */
typedef struct libxl_ev_link {
    /** The next event of the list. */
    struct libxl_event *tqe_next;
    /** Where the pointer to this event is stored. */
    struct libxl_event **tqe_prev;
} libxl_ev_link;

/** A domain's number, from 0 (the control domain) up. Xen gives a number out again after its domain is gone. */
typedef uint32_t libxl_domid;

/** A domain's UUID: 16 bytes, most significant first. */
typedef struct libxl_uuid {
    /** The bytes, in the order in which they are printed. */
    unsigned char uuid[16];
} libxl_uuid;

/** The part of an event that only LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN has. */
typedef struct libxl_event_domain_shutdown {
    /** Why the domain shut down, as Xen numbers it: 0 power off, 1 reboot, 2 suspend, 3 crash, 4 watchdog, 5 soft reset. */
    uint8_t shutdown_reason;
} libxl_event_domain_shutdown;

/** A yes or no that may be left open: negative is no, positive is yes, 0 leaves it to the library. */
typedef struct libxl_defbool {
    /** The answer. */
    int val;
} libxl_defbool;

/** A guest's disk. In an event all strings belong to the event and go with it. */
typedef struct libxl_device_disk {
    /** The domain that serves the disk. */
    libxl_domid backend_domid;
    /** That domain's name, where it is given by name; else NULL. */
    char *backend_domname;
    /** What the disk is stored in: a path or a target of the backend's. */
    char *pdev_path;
    /** The disk's name in the guest, such as `xvda` or `hdc`. */
    char *vdev;
    /** Who serves it. */
    libxl_disk_backend backend;
    /** What the data is stored in. */
    libxl_disk_format format;
    /** The hotplug script, or NULL. */
    char *script;
    /** Whether the medium can be taken out. */
    int removable;
    /** Whether the guest may write. */
    int readwrite;
    /** Whether it is a CD drive. */
    int is_cdrom;
    /** Whether the backend may pass the page cache by. */
    bool direct_io_safe;
    /** Whether the guest may discard blocks. */
    struct libxl_defbool discard_enable;
    /** The guest's protocol. */
    libxl_disk_specification specification;
    /** How a virtio disk is attached. */
    libxl_disk_transport transport;
    /** The interrupt of a virtio disk. */
    uint32_t irq;
    /** The address of a virtio disk's registers. */
    uint64_t base;
    /** Whether COLO replicates the disk. */
    struct libxl_defbool colo_enable;
    /** Whether this is COLO's receiving side. */
    struct libxl_defbool colo_restore_enable;
    /** COLO's other host. */
    char *colo_host;
    /** COLO's port there. */
    int colo_port;
    /** COLO's export there. */
    char *colo_export;
    /** COLO's active disk. */
    char *active_disk;
    /** COLO's hidden disk. */
    char *hidden_disk;
    /** Whether the guest trusts the backend with its data. */
    struct libxl_defbool trusted;
} libxl_device_disk;

/** The part of an event that only LIBXL_EVENT_TYPE_DISK_EJECT has. */
typedef struct libxl_event_disk_eject {
    /** The disk's name, as it was given to libxl_evenable_disk_eject. */
    char *vdev;
    /** The drive, now without a medium. */
    struct libxl_device_disk disk;
} libxl_event_disk_eject;

/** The part of an event that only LIBXL_EVENT_TYPE_OPERATION_COMPLETE has. */
typedef struct libxl_event_operation_complete {
    /** The operation's result: 0 or an error number. */
    int rc;
} libxl_event_operation_complete;

/** The part of an event that depends on its type. Bytes that the type does not use are zero. */
typedef union libxl_event_u {
    /** For LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN. */
    struct libxl_event_domain_shutdown domain_shutdown;
    /** For LIBXL_EVENT_TYPE_DISK_EJECT. */
    struct libxl_event_disk_eject disk_eject;
    /** For LIBXL_EVENT_TYPE_OPERATION_COMPLETE. */
    struct libxl_event_operation_complete operation_complete;
} libxl_event_u;

/** Something that has happened. Whoever receives one owns it, and gives it back with libxl_event_free. */
typedef struct libxl_event {
    /** The library's own. */
    struct libxl_ev_link link;
    /** The domain that it happened to. */
    libxl_domid domid;
    /** That domain's UUID; all zero where it could not be learnt. */
    struct libxl_uuid domuuid;
    /** What the caller gave when it asked for such events. */
    uint64_t for_user;
    /** What has happened; it says which member of `u` holds more. */
    libxl_event_type type;
    /** More about it. */
    union libxl_event_u u;
} libxl_event;

/** What `libxl_ctx` names. Applications see the pointer alone. */
struct libxl__ctx;

/**
 * A context: one program's connection to Xen. Everything else in this header takes one.
 *
 * A process may have several; each has its own events, hooks and generators. All functions may be called from any
 * thread, also at the same time with the same context, except where their descriptions say otherwise. A thread that is in
 * a call is not cancelled: what pthread_cancel has asked for happens when the call is over, and xlevent_wait_cancel ends one
 * that waits. Callbacks, hooks and predicates return normally; they don't leave by pthread_exit either. They may end the
 * process.
 */
typedef struct libxl__ctx libxl_ctx;

/**
 * Opens a context and stores it in `*pctx`.
 *
 * `version` is LIBXL_VERSION. `flags` is 0; nothing is defined for it yet and all values are accepted. `lg` receives
 * the log lines; it stays the caller's and must outlive the context. It may be NULL: then nothing is logged. A line that
 * repeats is written at once the first time, and then once a minute at most, with how many there were.
 *
 * Nothing is registered with an event loop yet, and no signal handler is installed.
 *
 * The context's descriptors are the library's. A program that closes them (closefrom in a late daemonise, or a number of its
 * own closed twice) loses the context. When the library finds that, it calls the disaster callback once and logs one line. It
 * does not end the program. From then on no events come, threads in libxl_event_wait return, operations end with an error, and
 * calls that need a descriptor return ERROR_FAIL. Events that are queued can still be fetched, and libxl_ctx_free works; other
 * contexts, and new ones, are not affected.
 *
 * The library checks its numbers before it reads, writes or closes them, so files of the program's that have got them are left
 * alone. It finds a loss at the next call that uses a descriptor, in libxl_osevent_beforepoll within a second or so, and in a
 * thread that waits in libxl_event_wait within a quarter of a minute (later with many contexts). It cannot find or prevent:
 *
 * - a loss in a loop of the program's that waits with epoll, and so is never called again: the kernel takes a closed descriptor
 *   out of it without a word;
 * - descriptors that are closed by one thread while another is inside a call;
 * - one of libxenctrl's descriptors that is closed alone; and one of libxenstore's, where the kernel is older than Linux 5.9, or
 *   xenstored is not reached through a socket: its thread may then read a message's rest from the new file;
 * - what libxenlight does with its own descriptors, if it is in the process. libxl_ctx_free leaves libxenlight's context as it
 *   is then, rather than have it close numbers that are not its own; its handler of SIGCHLD may write one byte to one of them.
 *
 * Returns 0, ERROR_VERSION for another version, ERROR_INVAL for a NULL `pctx`, or ERROR_FAIL (no hypervisor, no
 * xenstored, no permission, no descriptors left, or libxenlight is there and another copy of this library in front of it;
 * the log says which, and where that copy is). On any error `*pctx` is NULL and nothing is left behind.
 *
 * # Safety
 *
 * `pctx` is NULL or points to a writable pointer. `lg` is NULL or a logger made with xentoollog.
 */
int libxl_ctx_alloc(libxl_ctx **pctx,
                    int version,
                    unsigned int flags,
                    struct xentoollog_logger *lg);

/**
 * Closes a context: stops its generators, frees the events that nobody has fetched, and closes its descriptors.
 *
 * Its generator handles become invalid with it and need no evdisable call. Events for a callback that have been found and not
 * yet given to it are given to it before this returns. Events that the application has fetched
 * stay the application's; they may still be given to libxl_event_free, with a NULL context.
 *
 * Not to be called while another thread is inside a call with the same context, nor from one of its callbacks. NULL is
 * fine and does nothing.
 *
 * Returns 0, or ERROR_INVAL for something that is not a live context.
 *
 * # Safety
 *
 * `ctx` is NULL or was returned by libxl_ctx_alloc. A context that was freed before is recognised, unless its address
 * has been given to a new one.
 */
int libxl_ctx_free(libxl_ctx *ctx);

/** By what an application knows an operation again. */
typedef union libxl_asyncop_how_u {
    /** Without a callback: `for_user` of the event. */
    libxl_ev_user for_event;
    /** With one: its argument. */
    void *for_callback;
} libxl_asyncop_how_u;

/** How the end of an asynchronous operation is told. */
typedef struct libxl_asyncop_how {
    /** Called once, with the operation's result. NULL: there is an event of type LIBXL_EVENT_TYPE_OPERATION_COMPLETE instead. */
    void (*callback)(libxl_ctx *ctx, int rc, void *for_callback);
    /** What comes back with it. */
    union libxl_asyncop_how_u u;
} libxl_asyncop_how;

#endif /* XLEVENT__ALONE */

#ifdef LIBXL_HAVE_NONCONST_EVENT_OCCURS_EVENT_ARG
#define LIBXL_EVENT_OCCURS_CONST
#else
#define LIBXL_EVENT_OCCURS_CONST const
#endif

/*
 * ==== Receiving events ====
 *
 * An event is either fetched, with libxl_event_check and libxl_event_wait, or handed to a callback, as
 * libxl_event_register_callbacks says for its type. It happens only after it has been asked for (see the next section),
 * and it stays queued until somebody fetches it.
 */

/* All types of event. */
#define LIBXL_EVENTMASK_ALL (~(unsigned long)0)

/* A caller's choice: returns non-zero for an event that it wants. It cannot fail. */
typedef int libxl_event_predicate(const libxl_event *event, void *user);

/** The application's callbacks, for libxl_event_register_callbacks. */
typedef struct libxl_event_hooks {
    /** The types of event to hand to event_occurs: the sum of `1 << type`. */
    uint64_t event_occurs_mask;
    /**
     * Receives an event, which then is the application's: it must free it with libxl_event_free, here or later. May be
     * NULL if the mask is 0. It may call any function of this library except libxl_ctx_free on the same context.
     */
    void (*event_occurs)(void *user, LIBXL_EVENT_OCCURS_CONST libxl_event *event);
    /**
     * Told when events may have been lost for good: `type` is the type that may be missing, 0 if any may, `msg` and
     * `errnoval` say what failed. Let it take a note, and the program exit or open a new context later. It may call this
     * library, but for libxl_ctx_free, unless libxenlight is in the process: that may hold a lock of its own meanwhile. May be
     * NULL.
     */
    void (*disaster)(void *user, libxl_event_type type, const char *msg, int errnoval);
} libxl_event_hooks;

/**
 * Looks for an event that has already happened, without waiting.
 *
 * Finds the oldest queued event whose type is in `typemask` (bit `1 << type`) and which `predicate` accepts, takes it
 * out of the queue and stores it in `*event_r`. The event is then the caller's, to be freed with libxl_event_free.
 * `predicate` is called with events that pass the mask, oldest first, until it returns non-zero; NULL accepts all. It
 * may call functions of this library; it must not free or keep the event that it is shown.
 *
 * This looks only at what has been found out before. What is going on outside is looked at in libxl_osevent_afterpoll,
 * libxl_osevent_occurred_fd and libxl_event_wait.
 *
 * Returns 0; ERROR_NOT_READY if no event matches, with `*event_r` left as it was; ERROR_INVAL for a NULL or unknown
 * `ctx` or a NULL `event_r`.
 *
 * # Safety
 *
 * `event_r` is NULL or points to a writable pointer. `predicate` returns normally: no longjmp, no C++ exception.
 */
int libxl_event_check(libxl_ctx *ctx,
                      libxl_event **event_r,
                      uint64_t typemask,
                      libxl_event_predicate *predicate,
                      void *predicate_user)
    LIBXL_EXTERNAL_CALLERS_ONLY;

/**
 * Waits until there is an event that matches, and fetches it as libxl_event_check does.
 *
 * While it waits it does the library's work, also where hooks are registered for that. Any number of threads may wait
 * on one context; each event that is queued wakes them all, and goes to one that wants it. Event callbacks may run
 * inside this call. Signals do not end it.
 *
 * Returns 0 and the event in `*event_r`, or ERROR_INVAL as libxl_event_check does, or ERROR_FAIL when it cannot wait
 * (the log says why); ERROR_ABORTED if the program has asked for that by xlevent_wait_cancel.
 *
 * # Safety
 *
 * As for libxl_event_check.
 */
int libxl_event_wait(libxl_ctx *ctx,
                     libxl_event **event_r,
                     uint64_t typemask,
                     libxl_event_predicate *predicate,
                     void *predicate_user)
    LIBXL_EXTERNAL_CALLERS_ONLY;

/**
 * Frees an event that was fetched or was handed to a callback, with all that belongs to it.
 *
 * `ctx` may be any context, a freed one, or NULL: the event alone counts. A NULL `event` does nothing. May be called
 * from any thread and any callback, event_occurs included.
 *
 * # Safety
 *
 * `event` is NULL or an event that this library, or libxenlight, has given to the application and that has not been
 * freed.
 */
void libxl_event_free(libxl_ctx *ctx,
                      libxl_event *event);

/**
 * Has events handed to a callback instead of queued, and names whom to tell of a disaster.
 *
 * From now on, events whose type is in `hooks->event_occurs_mask` go to `hooks->event_occurs`, on the thread whose
 * call found them and before that call returns. All others, and those already queued, go the way of
 * libxl_event_check. The callbacks run with no lock of the library's held.
 *
 * A disaster is something that cannot be put right even after trying again for a while: xenstored is gone and does not
 * come back, the hypervisor refuses to answer; or there was no memory for an event. It is logged as critical first. The
 * callback may return, and the library goes on then; what it may call, libxl_event_hooks says. Without a
 * `disaster` callback the message also goes to stderr and the process ends with `exit(-1)`, unless it is xenstored that is
 * away: what happens meanwhile is told when it is back; or unless the program has closed the library's descriptors
 * (libxl_ctx_alloc).
 *
 * May be called again; the last call counts. A NULL `hooks` puts everything back: all events are queued and there is no
 * disaster callback. Keep `*hooks` valid as long as the context. Call this before the first generator is enabled, and
 * not from a callback or while another thread uses the context, so that it is clear which event goes where.
 *
 * A NULL or unknown `ctx`, or a NULL event_occurs with a mask that is not 0, is logged and changes nothing.
 *
 * # Safety
 *
 * `hooks` is NULL or points to valid callbacks that stay valid as long as the context. They return normally: no
 * longjmp, no C++ exception.
 */
void libxl_event_register_callbacks(libxl_ctx *ctx,
                                    const struct libxl_event_hooks *hooks,
                                    void *user);

/*
 * ==== Asking for events ====
 *
 * libxl_evenable_... starts a generator of events and gives a handle; libxl_evdisable_... stops it. `user` comes back in
 * each of its events. Asking twice gives every event twice. A handle belongs to its context, and ends with it.
 */

/** What `libxl_evgen_disk_eject` names. Applications see the pointer alone. */
struct libxl__evgen_disk_eject;

/** What `libxl_evgen_domain_death` names. Applications see the pointer alone. */
struct libxl__evgen_domain_death;

/** The handle of a generator of shutdown and death events. It is not an address: compare it, pass it on, nothing else. */
typedef struct libxl__evgen_domain_death libxl_evgen_domain_death;

/** The handle of a generator of disk-eject events. As opaque as that of domain death. */
typedef struct libxl__evgen_disk_eject libxl_evgen_disk_eject;

/**
 * Asks for the shutdown and the death of a domain.
 *
 * Produces LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN, with the reason, when the domain stops running, and
 * LIBXL_EVENT_TYPE_DOMAIN_DEATH when it is being destroyed or is gone. The DEATH comes once, and nothing after it. A SHUTDOWN
 * comes for each time that the domain shuts down: once, unless it runs again (resumed, or after a soft reset). A domain that is destroyed while it runs, or whose shutdown and destruction are seen together, gives only the
 * DEATH. The present state counts: a domain that is already shut down, dead or missing gives its event at once. Both
 * events carry `domid`, `user`, and the UUID that the domain has then, where it could be learnt. A domain may be given another
 * UUID while it lives; that is no event.
 *
 * What can be seen, and what can't. The library looks at domains when xenstored says that something has happened, and at
 * those that xenstored doesn't know (they were never introduced, or it has crashed since) each second at the latest.
 *
 * - A second shutdown is reported also if nobody looked while the domain ran, by its other reason or by the processor time that
 *   it has used since. Of several shutdowns between two looks the last is reported. A domain that was shut down again without
 *   having run at all can't be told from one that still is.
 * - A domain that is gone, and whose number another domain has before anyone looks, gives no DEATH: the generator follows the
 *   new one, as libxl's does, and reports its shutdown and its death.
 *
 * A shutdown with reason 2, suspend, is not reported: the domain will run again or die, and then its later shutdown or
 * death is reported. With `XLEVENT_REPORT_SUSPEND=1` in the environment it is reported, and is then the only SHUTDOWN.
 *
 * Several generators may watch one domain; each gives its own events. When several have something to report at the
 * same time, domains come in ascending order, and within a domain the generator enabled last comes first.
 *
 * Returns 0 and a handle in `*evgen_out`; ERROR_INVAL for a NULL or unknown `ctx` or a NULL `evgen_out`; the value that
 * the application's fd_register hook returned if that refused; ERROR_FAIL if Xen cannot be asked (the log says why). On
 * an error nothing is left behind, `*evgen_out` is as it was, and a later try may succeed.
 *
 * # Safety
 *
 * `evgen_out` is NULL or points to a writable pointer.
 */
int libxl_evenable_domain_death(libxl_ctx *ctx,
                                uint32_t domid,
                                libxl_ev_user user,
                                libxl_evgen_domain_death **evgen_out);

/**
 * Stops a generator of shutdown and death events, and makes its handle invalid.
 *
 * When this returns it produces nothing more. What it has produced before is still delivered: events that are queued are
 * given out by libxl_event_check and libxl_event_wait like all others, whenever they are called. Events for a callback have
 * been given to it when this returns, but for those that other threads, in calls with the same context, have in hand: such a
 * callback may still be running, or just begin. With no other thread in a call with the context, none comes after this.
 *
 * A NULL `evgen` does nothing; one that this context does not know, or no longer knows, is logged and ignored. May be called
 * from any thread and from event callbacks.
 *
 * # Safety
 *
 * No requirement beyond those of all functions: the handle is looked up, not followed.
 */
void libxl_evdisable_domain_death(libxl_ctx *ctx,
                                  libxl_evgen_domain_death *evgen);

/**
 * Asks for the ejections of a virtual CD drive by its guest.
 *
 * `vdev` is the drive's name, such as `hdc` or `xvdb`; it is copied. Each ejection gives one
 * LIBXL_EVENT_TYPE_DISK_EJECT with `domid` and `user`. In it, `u.disk_eject.vdev` is a copy of `vdev`, and
 * `u.disk_eject.disk` is the drive without its medium: `vdev` as xenstore had it at the time of this call, or NULL if it
 * had none; `backend_domid` and `backend` as they are now, as far as libxl tells backends apart here; `pdev_path` empty,
 * `format` LIBXL_DISK_FORMAT_EMPTY, `removable` and `is_cdrom` 1, everything else as libxl_device_disk_init leaves it.
 * These come from the nodes that the toolstack keeps for itself (`/libxl/DOMID/device/vbd/...`). Only if it has noted no name
 * there, `vdev` is what the frontend's nodes say, where the guest may write any bytes.
 *
 * If the domain has a stub domain at the time of this call, the drive is a device of that. Neither the domain nor the
 * drive need be there yet. An ejection that is there already, and that nobody has taken notice of, counts.
 *
 * An ejection is acknowledged in xenstore before it is told. Several generators in one context for one drive each give
 * their own event, the generator enabled last first; of several contexts, or processes, that watch one drive, the first
 * to take notice of an ejection leaves nothing to see for the others. One that cannot be acknowledged is told once, and
 * its acknowledgement tried again later. One of a drive that the toolstack has no backend of, because it is being removed, is
 * acknowledged and not told.
 *
 * While an event of a generator is still in the queue, another ejection is acknowledged and gives that generator no event
 * of its own: the one that is there says that the drive is empty, and a guest that ejects again and again can't fill the
 * memory of a program that doesn't fetch its events. (xlevent_stats counts these.)
 *
 * Waits for xenstored's answers. Returns 0 and a handle in `*evgen_out`; ERROR_INVAL for a NULL or unknown `ctx`, a NULL
 * `evgen_out`, a `vdev` that is NULL or no name of a disk, or if called by an fd_register or fd_deregister hook;
 * ERROR_FAIL also while xenstored is away; otherwise as libxl_evenable_domain_death. On an error nothing is left behind,
 * `*evgen_out` is as it was, and a later try may succeed.
 *
 * # Safety
 *
 * `vdev` is NULL or a string that ends with a zero byte; `evgen_out` is NULL or points to a writable pointer.
 */
int libxl_evenable_disk_eject(libxl_ctx *ctx,
                              uint32_t domid,
                              const char *vdev,
                              libxl_ev_user user,
                              libxl_evgen_disk_eject **evgen_out);

/**
 * Stops a generator of disk-eject events, and makes its handle invalid.
 *
 * As libxl_evdisable_domain_death: events that it has produced are still delivered, NULL does nothing, and an unknown
 * handle, that of another kind of generator too, is logged and ignored. May be called from any thread and from event
 * callbacks.
 *
 * # Safety
 *
 * No requirement beyond those of all functions: the handle is looked up, not followed.
 */
void libxl_evdisable_disk_eject(libxl_ctx *ctx,
                                libxl_evgen_disk_eject *evgen);

/*
 * ==== The application's event loop ====
 *
 * Programs that sit in libxl_event_wait need none of this. Others either call libxl_osevent_beforepoll, poll(2) and
 * libxl_osevent_afterpoll in a loop, then libxl_event_check until it returns ERROR_NOT_READY; or register hooks, and the
 * library asks their event loop to watch its one descriptor. The two may be mixed.
 */

struct pollfd;

/**
 * The application's event loop, for libxl_osevent_register_hooks.
 *
 * A hook that registers or modifies returns 0, or ERROR_OSEVENT_REG_FAIL or any positive number if it refuses; then
 * nothing must have changed, and the number goes back to the application from the call that needed the registration.
 * The value that a hook stores through its third argument is the application's own: later hooks for the same descriptor
 * get it back. Hooks are called with no lock of the library's held, on the thread of whichever call needs them.
 */
typedef struct libxl_osevent_hooks {
    /**
     * Start to watch `fd` for `events`, as for poll(2), and call libxl_osevent_occurred_fd with `for_libxl` when one
     * occurs. A context has one descriptor; this is called when there is first something to wait for, and again when
     * there is after fd_deregister. `*for_app_registration_out` is NULL on entry.
     */
    int (*fd_register)(void *user,
                       int fd,
                       void **for_app_registration_out,
                       short events,
                       void *for_libxl);
    /** Watch `fd` for other events from now on; 0 means none. This library never needs it. */
    int (*fd_modify)(void *user, int fd, void **for_app_registration_update, short events);
    /**
     * Stop watching `fd`: there is nothing left to wait for. Also called when the program has closed `fd` (see
     * libxl_ctx_alloc); the number may then be another file's.
     */
    void (*fd_deregister)(void *user, int fd, void *for_app_registration);
    /**
     * Start a timer that calls libxl_osevent_occurred_timeout at the time `abs`. This library never calls it: its
     * timers make its descriptor readable.
     */
    int (*timeout_register)(void *user,
                            void **for_app_registration_out,
                            struct timeval abs,
                            void *for_libxl);
    /** Let a timer fire as soon as possible. This library never calls it. */
    int (*timeout_modify)(void *user, void **for_app_registration_update, struct timeval abs);
    /** Stop a timer. This library never calls it. */
    void (*timeout_deregister)(void *user, void *for_app_registration);
} libxl_osevent_hooks;

/**
 * Says what to wait for: prepares a call of poll(2).
 *
 * The library needs room for exactly one entry, however many domains are watched. On entry `*nfds_io` is how many
 * entries there are at `fds`; on return it is 1. If there was room, `fds[0]` is filled in. `fds` may point into a
 * larger array. With `fds` NULL and `*nfds_io` 0 the call only asks how much room is needed.
 *
 * `*timeout_upd`, in milliseconds with negative for infinite, is what the application will give to poll. A library may
 * shorten it; this one never needs to, since its timers make the descriptor readable.
 *
 * Any thread may wait on the descriptor at any time; what is enabled or disabled meanwhile takes effect at once.
 *
 * If the program has closed the library's descriptors (see libxl_ctx_alloc), there is nothing to wait for: `*nfds_io` is 0 on
 * return, and the timeout is as it was. `now` only says when to check for that again.
 *
 * Returns 0; ERROR_BUFFERFULL if there was no room; ERROR_INVAL for a NULL or unknown `ctx`, a NULL `nfds_io` or
 * `timeout_upd`, or a NULL `fds` with `*nfds_io` greater than 0; ERROR_FAIL if the descriptor, which the first call
 * makes, cannot be had.
 *
 * # Safety
 *
 * `nfds_io` and `timeout_upd` are NULL or point to an int; `fds` is NULL or points to `*nfds_io` writable entries.
 */
int libxl_osevent_beforepoll(libxl_ctx *ctx,
                             int *nfds_io,
                             struct pollfd *fds,
                             int *timeout_upd,
                             struct timeval now)
    LIBXL_EXTERNAL_CALLERS_ONLY;

/**
 * Does what is to be done after poll(2): reads what has come in, looks at the domains, and produces events.
 *
 * `fds[0 .. nfds]` is what libxl_osevent_beforepoll filled in and poll went over. It only says whether there is
 * something to do; what it is, the library finds out by itself, so that calling this twice, with `nfds` 0, or with
 * `revents` that are not true is harmless. It never waits for anything. Events go to the queue or to event_occurs,
 * which then runs inside this call. `now` is not used.
 *
 * A NULL or unknown `ctx`, or a NULL `fds` with `nfds` greater than 0, is logged and nothing is done.
 *
 * # Safety
 *
 * `fds` is NULL or points to `nfds` entries.
 */
void libxl_osevent_afterpoll(libxl_ctx *ctx,
                             int nfds,
                             const struct pollfd *fds,
                             struct timeval now)
    LIBXL_EXTERNAL_CALLERS_ONLY;

/**
 * Has the library use the application's event loop: an alternative to libxl_osevent_beforepoll and _afterpoll.
 *
 * The application sees one descriptor, registered while there is something to wait for, and never a timeout. Both ways
 * may be mixed, and libxl_event_wait goes on working.
 *
 * Once per context, and before any generator is enabled: a later call is logged and refused. Keep `*hooks` valid as
 * long as the context. A NULL or unknown `ctx`, a NULL `hooks`, or hooks without fd_register or fd_deregister are
 * logged and refused too.
 *
 * # Safety
 *
 * `hooks` is NULL or points to valid functions, which stay valid as long as the context and return normally: no
 * longjmp, no C++ exception.
 */
void libxl_osevent_register_hooks(libxl_ctx *ctx,
                                  const struct libxl_osevent_hooks *hooks,
                                  void *user);

/**
 * To be called by the application's event loop when a descriptor that it was given has something to report.
 *
 * `for_libxl`, `fd` and `events` are those of the registration, `revents` is what poll(2) reports. The library finds
 * out by itself what is to be done, does it without blocking, and produces events. A call that comes late, for a
 * registration that is gone, is ignored; so are wrong `revents`.
 *
 * Not to be called from inside a hook: that is logged and ignored. A NULL or unknown `ctx` is logged.
 *
 * # Safety
 *
 * No requirement beyond those of all functions: `for_libxl` is looked up, not followed.
 */
void libxl_osevent_occurred_fd(libxl_ctx *ctx,
                               void *for_libxl,
                               int fd,
                               short events,
                               short revents)
    LIBXL_EXTERNAL_CALLERS_ONLY;

/**
 * To be called by the application's event loop when a timer that it was given fires.
 *
 * This library gives it none, so that there is never a reason to call this; a call is harmless. A NULL or unknown `ctx`
 * is logged.
 *
 * # Safety
 *
 * No requirement beyond those of all functions: `for_libxl` is looked up, not followed.
 */
void libxl_osevent_occurred_timeout(libxl_ctx *ctx,
                                    void *for_libxl)
    LIBXL_EXTERNAL_CALLERS_ONLY;

/*
 * ==== Child processes ====
 *
 * SIGCHLD and wait(2) belong to the whole process, so a library with children and its application must agree. By
 * default the library touches neither while it has no children. See libxl_sigchld_owner for the other arrangements.
 */

/** Who catches SIGCHLD, and who reaps which children. */
typedef enum libxl_sigchld_owner {
    /** The library, but only while it has a child of its own; then it reaps every child of the process. The default. */
    libxl_sigchld_owner_libxl,
    /**
     * The application. It tells the library with libxl_childproc_reaped or libxl_childproc_sigchld_occurred, and not
     * from inside a signal handler.
     */
    libxl_sigchld_owner_mainloop,
    /** The library, all the time; it reaps every child and tells the application about those that are not its own. */
    libxl_sigchld_owner_libxl_always,
    /** The library, all the time; it reaps only its own. The application waits for its children by their pids. */
    libxl_sigchld_owner_libxl_always_selective_reap,
} libxl_sigchld_owner;

/** How children are dealt with, for libxl_childproc_setmode. The functions may be NULL. */
typedef struct libxl_childproc_hooks {
    /** Who owns SIGCHLD. */
    libxl_sigchld_owner chldowner;
    /** Called in place of fork(2), and to behave just like it, errno included. It must not call this library. */
    pid_t (*fork_replacement)(void *user);
    /**
     * Told of a child that the library has reaped and that is not its own. Returns 0 if the application takes note,
     * ERROR_UNKNOWN_CHILD if it does not know it either (which is logged); anything else is a disaster. It runs inside
     * an ordinary call, never in a signal handler, and may call this library.
     */
    int (*reaped_callback)(pid_t pid, int status, void *user);
} libxl_childproc_hooks;

/**
 * Says how children are dealt with.
 *
 * A NULL `hooks` means libxl_sigchld_owner_libxl without functions, which is the default. Keep `*hooks` valid as long
 * as the context. Call it right after libxl_ctx_alloc and the registration of hooks: it must not be called while the
 * library may have a child.
 *
 * With libxl_sigchld_owner_libxl_always and libxl_sigchld_owner_libxl_always_selective_reap a handler of SIGCHLD is
 * there from now on, with SA_RESTART and SA_NOCLDSTOP; and with libxl_sigchld_owner_libxl while the library has a
 * child. What was there before, which is to be SIG_DFL or SIG_IGN, comes back when no context needs the handler any
 * more. At least one thread must have SIGCHLD unblocked.
 *
 * A NULL or unknown `ctx`, an owner that does not exist, and a call while the library has a child are logged and change
 * nothing. A handler of the application's own is logged too, and stays: the library's own children are cared for all
 * the same, but nobody tells it of others.
 *
 * # Safety
 *
 * `hooks` is NULL or points to valid functions, which stay valid as long as the context and return normally: no
 * longjmp, no C++ exception.
 */
void libxl_childproc_setmode(libxl_ctx *ctx,
                             const struct libxl_childproc_hooks *hooks,
                             void *user);

/**
 * Tells the library that the application has reaped a child.
 *
 * Only with libxl_sigchld_owner_mainloop, by an application that reaps all children of the process. `status` is what
 * waitpid stored. Not to be called from a signal handler.
 *
 * Returns 0 if the child was the library's, and was started with this context; ERROR_UNKNOWN_CHILD, with nothing
 * logged, if it was not; ERROR_INVAL for a NULL or unknown `ctx`, or with another owner.
 *
 * # Safety
 *
 * No requirement beyond those of all functions.
 */
int libxl_childproc_reaped(libxl_ctx *ctx,
                           pid_t pid,
                           int status)
    LIBXL_EXTERNAL_CALLERS_ONLY;

/**
 * Tells the library that there was a SIGCHLD.
 *
 * Only with libxl_sigchld_owner_mainloop, by an application that does not reap all children itself. The library then
 * looks at its own children, reaps those that have ended, and touches no others. Not to be called from a signal
 * handler.
 *
 * A NULL or unknown `ctx`, or another owner, is logged and nothing is done.
 *
 * # Safety
 *
 * No requirement beyond those of all functions.
 */
void libxl_childproc_sigchld_occurred(libxl_ctx *ctx)
    LIBXL_EXTERNAL_CALLERS_ONLY;

/**
 * To be called in a child after fork, by a program that had contexts before and does not exec at once.
 *
 * One call, with any context of the parent's, does it for all of them. Until it has returned, no other function of
 * this library may be called in the child, and the child must not fork or touch SIGCHLD. (Where that is forgotten: a
 * context that another thread was using during the fork, or that has or had generators, is refused in the child with
 * ERROR_INVAL; one that was only opened is as good there, for one of the two processes.) After it the parent's contexts
 * do not exist in the child, not even to be freed; new ones can be opened. The descriptors that this library had open
 * are closed in the child, its handler of SIGCHLD is replaced by what was there before, and the parent notices nothing.
 *
 * Xen's libraries have locks that a child finds taken for ever if another thread held one during the fork. Forks wait for this
 * library's own use of them; not for the application's (xs_open, xs_close, xc_interface_open and their like), nor for
 * libxenlight's. So an application doesn't fork while another thread of its own is in those. If one is in libxl_ctx_alloc or
 * libxl_ctx_free, and libxenlight is there, then this function leaves the connections to xenstored and to the hypervisor
 * open in the child, and opening another context there may hang, as it may with libxenlight alone. Its handler of SIGCHLD,
 * which is there while it has children or, with the two owners that say "always", while it has contexts, takes a lock too:
 * in a child that was forked while another thread was in it, this function may never return. (This library's own handler
 * takes none.)
 *
 * May be called before an exec. A NULL or unknown `ctx`, as in a second call, is logged; our contexts are forgotten all
 * the same, but libxenlight, which wants a context of the parent's, is not told.
 *
 * # Safety
 *
 * To be called in a forked child, by its only thread.
 */
void libxl_postfork_child_noexec(libxl_ctx *ctx);

#undef LIBXL_EVENT_OCCURS_CONST
#undef XLEVENT__ALONE

#ifdef __cplusplus
}
#endif

#endif /* LIBXL_EVENT_H */
