/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * detach: remove a disk from a domain, wait for the end, and print the result.
 *
 *     detach late|now|never DOMID DEVID
 *
 * One source, two programs, which say the same when the two libraries do: built
 * for libxlevent it calls xlevent_device_remove; with DETACH_BY_LIBXL it calls
 * what libxl has for each of the three, of which xl knows the last two only.
 *
 * Exit status: 0 if there is a result, whatever it is; 2 for wrong arguments, 1
 * if nothing could be asked.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef DETACH_BY_LIBXL
#include <libxl_utils.h>
#else
#include <libxl_event.h>
#include <xlevent.h>
#endif
#include <xentoollog.h>

static const char *const forces[] = { "late", "now", "never" };

#ifdef DETACH_BY_LIBXL
static int remove_disk(libxl_ctx *ctx, uint32_t domid, uint32_t devid, int force)
{
    static int (*const functions[])(libxl_ctx *, uint32_t, libxl_device_disk *, const libxl_asyncop_how *) = {
        libxl_device_disk_remove, libxl_device_disk_destroy, libxl_device_disk_safe_remove
    };
    libxl_device_disk disk;
    char name[32];
    int rc;

    snprintf(name, sizeof name, "%lu", (unsigned long)devid);
    rc = libxl_vdev_to_device_disk(ctx, domid, name, &disk);
    if (rc)
        return rc;
    rc = functions[force](ctx, domid, &disk, NULL);
    libxl_device_disk_dispose(&disk);
    return rc;
}
#else
static int remove_disk(libxl_ctx *ctx, uint32_t domid, uint32_t devid, int force)
{
    static const enum xlevent_force values[] = { XLEVENT_FORCE_LATE, XLEVENT_FORCE_NOW, XLEVENT_FORCE_NEVER };

    return xlevent_device_remove(ctx, domid, XLEVENT_DEVICE_KIND_VBD, devid, values[force], NULL);
}
#endif

static int usage(void)
{
    fprintf(stderr, "usage: detach late|now|never DOMID DEVID\n");
    return 2;
}

static int number(const char *text, uint32_t *value)
{
    char *end;
    unsigned long read = strtoul(text, &end, 10);

    *value = (uint32_t)read;
    return *text && !*end && *value == read;
}

int main(int argc, char **argv)
{
    xentoollog_logger *logger;
    libxl_ctx *ctx = NULL;
    uint32_t domid, devid;
    int force, rc;

    if (argc != 4 || !number(argv[2], &domid) || !number(argv[3], &devid))
        return usage();
    for (force = 0; force < 3 && strcmp(argv[1], forces[force]); force++)
        ;
    if (force == 3)
        return usage();
    logger = (xentoollog_logger *)xtl_createlogger_stdiostream(stderr, XTL_WARN, 0);
    if (!logger)
        return 1;
    rc = libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, logger);
    if (rc) {
        fprintf(stderr, "detach: libxl_ctx_alloc: error %d\n", rc);
        return 1;
    }
    printf("%d\n", remove_disk(ctx, domid, devid, force));
    libxl_ctx_free(ctx);
    xtl_logger_destroy(logger);
    return 0;
}
