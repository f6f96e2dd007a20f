/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * crowd: many domains at once, with next to nothing in them.
 *
 *     crowd create COUNT          make them; prints their domids
 *     crowd create-unknown COUNT  likewise, and xenstored isn't told, as when a domain's creation fails half-way
 *     crowd shutdown              shut down each domain of stdin's lines, "DOMID REASON"
 *     crowd destroy [--settle]    destroy each of stdin's lines, "DOMID ..."
 *     crowd settle                wait until xenstored has let go of each of stdin's lines, "DOMID ..."
 *
 * A domain here is what xenstored needs to know it: a vCPU that never runs, one page, one event channel and the grant by
 * which xenstored maps the page. To Xen, to xenstored and to whoever watches, it ends as any other does.
 *
 * Each line is acted on as it comes: a file makes a burst, and who writes the next line only after having seen the end of the
 * last has them end one by one. With --settle that is done here: the next is destroyed after xenstored has let go of the last,
 * and so has told everyone.
 *
 * Exits with 1 and a line on stderr as soon as something does not work.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xenctrl.h>
#include <xenguest.h>
#include <xenstore.h>

/* Generous: xenstored looks at every domain whenever one ends. */
enum { SETTLE_LIMIT_MS = 120000 };

static xc_interface *xen;
static struct xs_handle *store;

static void die(const char *format, ...)
{
    int errnoval = errno;
    va_list arguments;

    fflush(stdout);
    fputs("crowd: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, ": %s\n", strerror(errnoval));
    exit(1);
}

static uint32_t create(unsigned index, bool introduce)
{
    struct xen_domctl_createdomain config = {
        .handle = { 0xc0, 0x0d, [12] = (uint8_t)(index >> 24), (uint8_t)(index >> 16), (uint8_t)(index >> 8), (uint8_t)index },
        .max_vcpus = 1,
        .max_evtchn_port = 15,
        .max_grant_frames = 1,
        .max_maptrack_frames = 1,
        .grant_opts = XEN_DOMCTL_GRANT_version(1),
    };
    uint32_t domid = 0;
    /* Goes in as the guest's number of its page, comes out as the machine's. */
    xen_pfn_t page = 0;
    int port;

    if (xc_domain_create(xen, &domid, &config))
        die("creating domain %u of them", index);
    if (xc_domain_max_vcpus(xen, domid, 1) || xc_domain_setmaxmem(xen, domid, 64))
        die("domain %" PRIu32 ": its limits", domid);
    if (xc_domain_populate_physmap_exact(xen, domid, 1, 0, 0, &page))
        die("domain %" PRIu32 ": its page", domid);
    port = xc_evtchn_alloc_unbound(xen, domid, 0);
    if (port < 0)
        die("domain %" PRIu32 ": its event channel", domid);
    /* No console. */
    if (xc_dom_gnttab_seed(xen, domid, false, (xen_pfn_t)-1, page, 0, 0))
        die("domain %" PRIu32 ": its grant to xenstored", domid);
    if (introduce && !xs_introduce_domain(store, domid, page, (unsigned)port))
        die("domain %" PRIu32 ": introducing it to xenstored", domid);
    return domid;
}

static void watch_ends(void)
{
    if (!xs_watch(store, "@releaseDomain", "crowd"))
        die("watching @releaseDomain");
}

/* xenstored forgets a domain when it sees that it is dying, and fires the watches of all for it. */
static void settle(uint32_t domid)
{
    struct pollfd readable = { .fd = xs_fileno(store), .events = POLLIN };
    unsigned count;

    while (xs_is_domain_introduced(store, domid)) {
        switch (poll(&readable, 1, SETTLE_LIMIT_MS)) {
        case 0: errno = ETIMEDOUT; /* fall through */
        case -1: die("domain %" PRIu32 ": waiting for xenstored", domid);
        }
        free(xs_read_watch(store, &count));
    }
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";
    bool shutting_down = !strcmp(command, "shutdown"), destroying = !strcmp(command, "destroy"),
         settling = !strcmp(command, "settle"), introducing = !strcmp(command, "create"),
         creating = introducing || !strcmp(command, "create-unknown"), each = false;
    char line[64];

    if (destroying && argc == 3 && !strcmp(argv[2], "--settle"))
        each = true;
    else if (argc != 2 + creating || !(shutting_down || destroying || settling || creating)) {
        fprintf(stderr, "usage: crowd create COUNT | create-unknown COUNT | shutdown | destroy [--settle] | settle\n");
        return 2;
    }
    xen = xc_interface_open(NULL, NULL, 0);
    store = xs_open(0);
    if (!xen || !store)
        die("opening Xen and xenstore");

    if (creating) {
        unsigned count = (unsigned)strtoul(argv[2], NULL, 10), i;

        for (i = 0; i < count; i++)
            printf("%" PRIu32 "\n", create(i, introducing));
    }
    if (settling || each)
        watch_ends();
    while ((shutting_down || destroying || settling) && fgets(line, sizeof line, stdin)) {
        uint32_t domid;
        int reason = 0;

        if (sscanf(line, "%" SCNu32 " %d", &domid, &reason) < 1 + shutting_down) {
            errno = EINVAL;
            die("'%s'", line);
        }
        if (shutting_down && xc_domain_shutdown(xen, domid, reason))
            die("shutting down domain %" PRIu32, domid);
        if (destroying && xc_domain_destroy(xen, domid))
            die("destroying domain %" PRIu32, domid);
        if (settling || each)
            settle(domid);
    }
    xs_close(store);
    xc_interface_close(xen);
    return fflush(stdout) ? 1 : 0;
}
