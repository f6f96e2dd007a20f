/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * See drive.h.
 */
#include "drive.h"

#include <errno.h>
#include <xenstore.h>

#include "column.h"
#include "host.h"
#include "xl.h"

/* ---- the store ---- */

/* A connection of the test's own, closed again: a daemon may have gone in between. */
static struct xs_handle *store(void)
{
    struct xs_handle *xs = xs_open(0);

    if (!xs)
        FAIL("xenstored: %s", strerror(errno));
    return xs;
}

void put_bytes(const char *path, const void *value, size_t length)
{
    struct xs_handle *xs = store();

    if (!xs_write(xs, XBT_NULL, path, value, (unsigned)length))
        FAIL("writing %s: %s", path, strerror(errno));
    xs_close(xs);
}

bool holds_bytes(const char *path, const void *value, size_t length)
{
    struct xs_handle *xs = store();
    unsigned have = 0;
    char *found = xs_read(xs, XBT_NULL, path, &have);
    bool same = found && have == length && memcmp(found, value, length) == 0;

    free(found);
    xs_close(xs);
    return same;
}

/* ---- drives ---- */

const char *node(struct drive drive, const char *name)
{
    static __thread char path[100];

    snprintf(path, sizeof path, "/local/domain/%u/device/vbd/%u/%s", (unsigned)drive.domid, (unsigned)drive.devid, name);
    return path;
}

const char *own_node(struct drive drive, const char *name)
{
    static __thread char path[100];

    snprintf(path, sizeof path, "/libxl/%u/device/vbd/%u/%s", (unsigned)drive.domid, (unsigned)drive.devid, name);
    return path;
}

void remove_from_both(struct drive drive, const char *name)
{
    remove_node(node(drive, name));
    remove_node(own_node(drive, name));
}

void put(struct drive drive, const char *name, const char *value)
{
    put_bytes(node(drive, name), value, strlen(value));
}

bool holds(struct drive drive, const char *name, const char *value)
{
    return holds_bytes(node(drive, name), value, strlen(value));
}

struct drive drive_at(uint32_t domid, uint32_t devid, const char *dev)
{
    struct drive drive = { domid, devid };
    char backend[100];

    snprintf(backend, sizeof backend, "/local/domain/0/backend/qdisk/%u/%u", (unsigned)domid, (unsigned)devid);
    put(drive, "dev", dev);
    put(drive, "backend", backend);
    put_bytes(own_node(drive, "dev"), dev, strlen(dev));
    put_bytes(own_node(drive, "backend"), backend, strlen(backend));
    put(drive, "eject", "");
    return drive;
}

struct drive cd_drive(void)
{
    return drive_at(host_create(), HDC, "hdc");
}

void eject(struct drive drive)
{
    put(drive, "eject", "eject");
}

libxl_evgen_disk_eject *enable_eject(libxl_ctx *ctx, uint32_t domid, const char *vdev, libxl_ev_user user)
{
    libxl_evgen_disk_eject *evgen = NULL;

    CHECK_EQUAL(libxl_evenable_disk_eject(ctx, domid, vdev, user, &evgen), 0);
    CHECK(evgen != NULL);
    return evgen;
}

bool same_string(const char *have, const char *want)
{
    return have && want ? strcmp(have, want) == 0 : have == want;
}

void check_eject(const libxl_event *event, uint32_t domid, libxl_ev_user user, const char *vdev, const char *dev)
{
    const libxl_device_disk *disk = &event->u.disk_eject.disk;

    if (event->type != LIBXL_EVENT_TYPE_DISK_EJECT || event->domid != domid || event->for_user != user)
        FAIL("type %d of domain %u for %llu, not the ejection of %u for %llu", (int)event->type, (unsigned)event->domid,
             (unsigned long long)event->for_user, (unsigned)domid, (unsigned long long)user);
    /* Said once, by the test of all fields, to be a difference. */
    CHECK(same_string(event->u.disk_eject.vdev, column == REAL ? NULL : vdev));
    CHECK(same_string(disk->vdev, dev));
    CHECK(same_string(disk->pdev_path, ""));
    CHECK_EQUAL(disk->format, LIBXL_DISK_FORMAT_EMPTY);
    CHECK_EQUAL(disk->removable, 1);
    CHECK_EQUAL(disk->readwrite, 0);
    CHECK_EQUAL(disk->is_cdrom, 1);
}

void expect_eject(libxl_ctx *ctx, uint32_t domid, libxl_ev_user user)
{
    libxl_event *event = wait_event(ctx);

    check_eject(event, domid, user, "hdc", "hdc");
    libxl_event_free(ctx, event);
}

void remove_node(const char *path)
{
    struct xs_handle *xs = store();

    CHECK(xs_rm(xs, XBT_NULL, path));
    xs_close(xs);
}
