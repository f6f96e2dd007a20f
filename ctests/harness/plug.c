/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * See plug.h.
 */
#include "plug.h"

#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xenstore.h>

#include "assert.h"
#include "column.h"
#include "drive.h"
#include "host.h"
#include "store.h"
#include "xl.h"

/* ---- nodes ---- */

static const char *kind_name(enum xlevent_device_kind kind)
{
    switch (kind) {
    case XLEVENT_DEVICE_KIND_VIF: return "vif";
    case XLEVENT_DEVICE_KIND_VBD: return "vbd";
    case XLEVENT_DEVICE_KIND_VFB: return "vfb";
    case XLEVENT_DEVICE_KIND_VKBD: return "vkbd";
    case XLEVENT_DEVICE_KIND_VTPM: return "vtpm";
    case XLEVENT_DEVICE_KIND_9PFS: return "9pfs";
    case XLEVENT_DEVICE_KIND_VDISPL: return "vdispl";
    case XLEVENT_DEVICE_KIND_PVCALLS: return "pvcalls";
    case XLEVENT_DEVICE_KIND_VSND: return "vsnd";
    }
    FAIL("kind %d", (int)kind);
}

const char *frontend_of(const struct plug *plug)
{
    return path_of("/local/domain/%u/device/%s/%u", (unsigned)plug->domid, kind_name(plug->kind), (unsigned)plug->devid);
}

const char *backend_of(const struct plug *plug)
{
    return path_of("/local/domain/%u/backend/%s/%u/%u", (unsigned)plug->backend_domid, plug->backend_kind,
                   (unsigned)plug->domid, (unsigned)plug->devid);
}

const char *backend_node(const struct plug *plug, const char *name)
{
    return path_of("%s/%s", backend_of(plug), name);
}

const char *libxl_node_of(const struct plug *plug)
{
    return path_of("/libxl/%u/device/%s/%u", (unsigned)plug->domid, kind_name(plug->kind), (unsigned)plug->devid);
}

void plug_write(const struct plug *plug, unsigned state)
{
    put_home(plug->domid);
    put_node(path_of("%s/backend", libxl_node_of(plug)), backend_of(plug));
    put_node(path_of("%s/frontend", libxl_node_of(plug)), frontend_of(plug));
    put_node(path_of("%s/backend", frontend_of(plug)), backend_of(plug));
    put_number(path_of("%s/state", frontend_of(plug)), state);
    put_node(backend_node(plug, "frontend"), frontend_of(plug));
    put_node(backend_node(plug, "online"), "1");
    put_number(backend_node(plug, "state"), state);
}

struct plug plug_in(uint32_t domid, enum xlevent_device_kind kind, uint32_t devid, uint32_t backend_domid,
                    const char *backend_kind)
{
    struct plug plug = { domid ? domid : host_create(), kind, devid, backend_domid, backend_kind };

    plug_write(&plug, 4);
    return plug;
}

struct plug plug_disk(void)
{
    return plug_in(0, XLEVENT_DEVICE_KIND_VBD, 51712, 0, "vbd");
}

bool is_removed(const struct plug *plug)
{
    return !has_node(frontend_of(plug)) && !has_node(backend_of(plug)) && !has_node(libxl_node_of(plug));
}

bool is_whole(const struct plug *plug)
{
    return has_node(path_of("%s/backend", frontend_of(plug))) && has_node(backend_node(plug, "state")) &&
           has_node(path_of("%s/backend", libxl_node_of(plug)));
}

/* ---- backends ---- */

enum manner { CLOSES, CLOSES_WHEN_CUT_OFF, VANISHES, CLOSES_AND_VANISHES };

struct backend {
    struct plug plug;
    enum manner manner;
};

static void *serve(void *arg)
{
    struct backend *backend = arg;
    const struct plug *plug = &backend->plug;
    int lines;

    WAIT_UNTIL(node_is(backend_node(plug, "state"), "5") && node_is(backend_node(plug, "online"), "0") &&
               (backend->manner != CLOSES_WHEN_CUT_OFF || !has_node(frontend_of(plug))));
    lines = __atomic_load_n(&logged_by_libxl, __ATOMIC_RELAXED);
    if (backend->manner != VANISHES)
        put_node(backend_node(plug, "state"), "6");
    /*
     * libxenlight must have read that, or it fails: to it, a backend that has gone hasn't closed. It logs that something has
     * happened, what it has read, and the same once more if that was still the state before; then that it goes on.
     */
    if (backend->manner == CLOSES_AND_VANISHES && column == REAL)
        WAIT_UNTIL(__atomic_load_n(&logged_by_libxl, __ATOMIC_RELAXED) >= lines + 4);
    if (backend->manner == VANISHES || backend->manner == CLOSES_AND_VANISHES)
        remove_node(backend_of(plug));
    free(backend);
    return NULL;
}

static void start_backend(const struct plug *plug, enum manner manner)
{
    struct backend *backend = malloc(sizeof *backend);
    pthread_t thread;

    CHECK(backend != NULL);
    *backend = (struct backend){ *plug, manner };
    CHECK_EQUAL(pthread_create(&thread, NULL, serve, backend), 0);
    CHECK_EQUAL(pthread_detach(thread), 0);
}

void backend_closes(const struct plug *plug)
{
    start_backend(plug, CLOSES);
}

void backend_closes_when_cut_off(const struct plug *plug)
{
    start_backend(plug, CLOSES_WHEN_CUT_OFF);
}

void backend_vanishes(const struct plug *plug)
{
    start_backend(plug, VANISHES);
}

void driver_domain_closes(const struct plug *plug)
{
    start_backend(plug, CLOSES_AND_VANISHES);
}

/* ---- scripts ---- */

/* Of this process, and so of this test; beside the host's own files, which go with the host. */
static const char *file_of(const struct plug *plug, const char *suffix)
{
    const char *dir = getenv("XENSTORED_RUNDIR");

    CHECK(dir != NULL);
    return path_of("%s/plug-%d-%u-%s-%u.%s", dir, (int)getpid(), (unsigned)plug->domid, kind_name(plug->kind),
                   (unsigned)plug->devid, suffix);
}

void plug_script(const struct plug *plug, const char *lines)
{
    const char *path = file_of(plug, "sh");
    FILE *file = fopen(path, "w");

    CHECK(file != NULL);
    fprintf(file,
            "#!/bin/sh\n"
            "echo \"args=$* script=$script type=$XENBUS_TYPE path=$XENBUS_PATH base=$XENBUS_BASE_PATH"
            " netdev=${netdev-unset} vif=${vif-unset} interface=${INTERFACE-unset} home=${HOME-unset} .\" >>%s\n"
            "%s\n",
            file_of(plug, "trace"), lines);
    CHECK_EQUAL(fchmod(fileno(file), 0700), 0);
    CHECK_EQUAL(fclose(file), 0);
    put_node(backend_node(plug, "script"), path);
}

/* The line of this number, from 1; how many there are if there is none. */
static int read_trace(const struct plug *plug, int run, char *line, int size)
{
    FILE *file = fopen(file_of(plug, "trace"), "r");
    int count = 0;

    if (!file) {
        CHECK_EQUAL(errno, ENOENT);
        return 0;
    }
    while (count != run && fgets(line, size, file))
        count++;
    if (count != run)
        line[0] = 0;
    fclose(file);
    return count;
}

int script_runs(const struct plug *plug)
{
    char line[500];

    return read_trace(plug, -1, line, sizeof line);
}

bool script_had(const struct plug *plug, int run, const char *text)
{
    char line[500];

    CHECK_EQUAL(read_trace(plug, run, line, sizeof line), run);
    return strstr(line, text) != NULL;
}

/* ---- operations ---- */

static void take_note(libxl_ctx *ctx, int rc, void *for_callback)
{
    struct note *note = for_callback;

    note->rc = rc;
    note->ctx = ctx;
    __atomic_fetch_add(&note->calls, 1, __ATOMIC_RELEASE);
}

libxl_asyncop_how told_to(struct note *note)
{
    libxl_asyncop_how how;

    *note = (struct note){ 0, 1, NULL };
    how.callback = take_note;
    how.u.for_callback = note;
    return how;
}

int await_end(libxl_ctx *ctx, const struct note *note)
{
    while (__atomic_load_n(&note->calls, __ATOMIC_ACQUIRE) == 0)
        poll_once(ctx, -1);
    CHECK_EQUAL(note->calls, 1);
    CHECK(note->ctx == ctx);
    return note->rc;
}

int begin_removal(libxl_ctx *ctx, const struct plug *plug, enum xlevent_force force, const libxl_asyncop_how *how)
{
    return xlevent_device_remove(ctx, plug->domid, plug->kind, plug->devid, force, how);
}

int remove_now(libxl_ctx *ctx, const struct plug *plug, enum xlevent_force force)
{
    return begin_removal(ctx, plug, force, NULL);
}
