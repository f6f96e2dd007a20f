/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A stand-in for the libxenstore and the xenstored of Xen 4.22, over those of the host: single domains can be watched, at
 * `@releaseDomain/<domid>`, and the daemon says so.
 *
 * It is linked ahead of libxenstore, or preloaded, and takes its watches' functions. Below, the real library is connected
 * to the real daemon. A watch on a single domain is served by a watch on @releaseDomain there: when that fires, the
 * domains are looked at that are watched, and those that have ended since the last time are told of. Like the daemon it
 * tells once of a new watch. Unlike it, it may tell again of a domain that is shut down, when another ends: it can't see
 * whether that has been resumed meanwhile. (The daemon does the same after a live update.)
 *
 * It can also be the daemon of an older release. Who then watches a single domain, which that daemon would accept and
 * forget, is ended with SIGABRT.
 */
#ifndef CTESTS_NEWER_XENSTORE_H
#define CTESTS_NEWER_XENSTORE_H

#include <stdbool.h>

/* What connections from now on are to: at first, to a newer daemon. */
void xenstored_is_newer(bool newer);

/* From now on the daemon refuses watches on single domains, as it may for want of memory. */
void xenstored_refuses_domains(bool refuses);

/* How many watches on single domains are set, and on all domains, by this process. */
int domain_watches(void);
int release_watches(void);

#endif
