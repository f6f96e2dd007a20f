/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * events.h: what the examples have in common, so that each shows its loop and
 * little else: an event is a line.
 *
 *     DOMID CREATED          there is a new domain, or it was there already
 *     DOMID SUSPENDED        to be saved, migrated or snapshotted
 *     DOMID RUNNING          again
 *     DOMID SHUTDOWN REASON  0 power off, 1 reboot, 2 suspend, 3 crash, ...
 *     DOMID DEATH            it is being destroyed, or gone
 *
 * A program includes libxl_event.h or xlevent.h first.  With Xen's own library
 * there are the last two alone.
 */
#ifndef EXAMPLES_EVENTS_H
#define EXAMPLES_EVENTS_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* Writes an event's line, at once also into a pipe. */
static inline void print_event(const libxl_event *event)
{
    printf("%" PRIu32 " ", event->domid);
    /* Xen's list of types does not name them all. */
    switch ((int)event->type) {
    case LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN:
        printf("SHUTDOWN %d\n", (int)event->u.domain_shutdown.shutdown_reason);
        break;
    case LIBXL_EVENT_TYPE_DOMAIN_DEATH:
        printf("DEATH\n");
        break;
#ifdef XLEVENT_H
    case LIBXL_EVENT_TYPE_DOMAIN_CREATED:
        printf("CREATED\n");
        break;
    case LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED:
        printf("SUSPENDED\n");
        break;
    case LIBXL_EVENT_TYPE_DOMAIN_RUNNING:
        printf("RUNNING\n");
        break;
#endif
    default:
        printf("type %d\n", (int)event->type);
        break;
    }
    fflush(stdout);
}

/* Reads a domain's number; false if it is none. */
static inline bool read_domid(const char *text, uint32_t *domid)
{
    char *end;
    unsigned long number = strtoul(text, &end, 10);

    *domid = (uint32_t)number;
    return *text >= '0' && *text <= '9' && !*end && number <= 0xffff;
}

#ifdef XLEVENT_H

#define BIT(type) ((uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_##type)

/*
 * Asks for all that becomes of one domain, or of any where `text` is NULL:
 * then CREATED comes for those that are there, first of all.
 */
static inline int enable(libxl_ctx *ctx, const char *text)
{
    uint64_t states = BIT(SUSPENDED) | BIT(RUNNING) | BIT(SHUTDOWN) | BIT(DEATH);
    libxl_evgen_domain_state *evgen;    /* it ends with the context */
    uint32_t domid;

    if (!text)
        return libxl_evenable_domain_state(ctx, LIBXL_DOMID_ANY, states | BIT(CREATED), 0, &evgen);
    if (!read_domid(text, &domid))
        return ERROR_INVAL;
    return libxl_evenable_domain_state(ctx, domid, states, 0, &evgen);
}

#endif
#endif
