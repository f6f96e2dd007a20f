/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Operations with devices: xlevent_device_remove, xlevent_devices_remove, xlevent_device_wait_ready and xlevent_ao_abort.
 * libxenlight does the same inside functions of its own, which need whole domains. What takes a backend's, QEMU's or a
 * script's whole time is tested in one test, all at the same time.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>
#include <xenstore.h>

#include "harness/check.h"
#include "harness/drive.h"
#include "harness/host.h"
#include "harness/plug.h"
#include "harness/store.h"
#include "harness/xl.h"

/* Where they are missing, nobody calls them. */
#pragma weak xlevent_device_remove
#pragma weak xlevent_devices_remove
#pragma weak xlevent_device_wait_ready
#pragma weak xlevent_ao_abort

enum { DEVICES = COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT };

static int begin_removal(libxl_ctx *ctx, const struct plug *plug, enum xlevent_force force, const libxl_asyncop_how *how)
{
    return xlevent_device_remove(ctx, plug->domid, plug->kind, plug->devid, force, how);
}

/* What the script does after that wakes nobody. */
static void poll_until_script_runs(libxl_ctx *ctx, const struct plug *plug)
{
    while (script_runs(plug) == 0)
        poll_once(ctx, 10);
}

/* ---- the ways to be told ---- */

TEST_WITH(a_removal_can_be_waited_for, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk();

    plug_script(&disk, "exit 0");
    backend_closes(&disk);
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_LATE), 0);
    CHECK(is_removed(&disk));
    CHECK_EQUAL(script_runs(&disk), 1);
    CHECK_EQUAL(logged_errors, 0);
    expect_nothing_queued(ctx);
    close_context(ctx);
}

TEST_WITH(its_end_can_be_an_event, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk();
    libxl_asyncop_how how = { .callback = NULL };
    libxl_event *event;

    how.u.for_event = 0x1234567890;
    CHECK_EQUAL(begin_removal(ctx, &disk, XLEVENT_FORCE_LATE, &how), 0);
    /* Begun, and not more. */
    CHECK(is_whole(&disk));
    CHECK(node_is(backend_node(&disk, "state"), "5"));
    CHECK(node_is(backend_node(&disk, "online"), "0"));
    expect_nothing_queued(ctx);
    put_node(backend_node(&disk, "state"), "6");
    event = wait_event(ctx);
    CHECK_EQUAL(event->type, LIBXL_EVENT_TYPE_OPERATION_COMPLETE);
    CHECK_EQUAL(event->domid, disk.domid);
    CHECK_EQUAL(event->for_user, 0x1234567890);
    CHECK_EQUAL(event->u.operation_complete.rc, 0);
    CHECK(is_removed(&disk));
    libxl_event_free(ctx, event);
    expect_silence(ctx);
    close_context(ctx);
}

TEST_WITH(its_end_can_be_told_by_a_callback, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk();
    struct note note;
    libxl_asyncop_how how = told_to(&note);

    backend_closes(&disk);
    CHECK_EQUAL(begin_removal(ctx, &disk, XLEVENT_FORCE_LATE, &how), 0);
    /* It was copied. */
    memset(&how, 0xff, sizeof how);
    CHECK_EQUAL(await_end(ctx, &note), 0);
    CHECK(is_removed(&disk));
    expect_silence(ctx);
    CHECK_EQUAL(note.calls, 1);
    close_context(ctx);
}

static struct plug second;
static struct note second_note;

static void remove_another(libxl_ctx *ctx, int rc, void *for_callback)
{
    libxl_asyncop_how how = told_to(&second_note);
    int *result = for_callback;

    *result = rc;
    CHECK_EQUAL(begin_removal(ctx, &second, XLEVENT_FORCE_LATE, &how), 0);
}

TEST_WITH(a_callback_may_begin_another_operation, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug first = plug_disk();
    int result = 1;
    libxl_asyncop_how how = { .callback = remove_another };

    how.u.for_callback = &result;
    second = plug_disk();
    backend_closes(&first);
    backend_closes(&second);
    CHECK_EQUAL(begin_removal(ctx, &first, XLEVENT_FORCE_LATE, &how), 0);
    while (result == 1)
        poll_once(ctx, -1);
    CHECK_EQUAL(result, 0);
    CHECK_EQUAL(await_end(ctx, &second_note), 0);
    CHECK(is_removed(&first) && is_removed(&second));
    close_context(ctx);
}

static void *take_turns(void *ctx)
{
    libxl_event *event = wait_event(ctx);

    CHECK_EQUAL(event->type, LIBXL_EVENT_TYPE_DOMAIN_DEATH);
    libxl_event_free(ctx, event);
    return NULL;
}

/* Whoever of them polls, each is woken. */
TEST_WITH(one_thread_may_wait_for_an_operation_and_another_for_events, DEVICES)
{
    libxl_ctx *ctx = open_context();
    uint32_t last = host_create();
    pthread_t thread;
    int round;

    enable(ctx, last, 1);
    CHECK_EQUAL(pthread_create(&thread, NULL, take_turns, ctx), 0);
    for (round = 0; round < 20; round++) {
        struct plug disk = plug_disk();

        backend_closes(&disk);
        CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_LATE), 0);
        CHECK(is_removed(&disk));
    }
    host_destroy(last);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    close_context(ctx);
}

/* ---- what backends do ---- */

TEST_WITH(a_backend_that_has_closed_already_keeps_its_state, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk();

    put_node(backend_node(&disk, "state"), "6");
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_NEVER), 0);
    CHECK(is_removed(&disk));
    close_context(ctx);
}

TEST_WITH(a_backend_that_is_gone_leaves_the_other_nodes_to_remove, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk();

    remove_node(backend_of(&disk));
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_NEVER), 0);
    CHECK(is_removed(&disk));
    close_context(ctx);
}

TEST_WITH(a_backend_may_vanish_instead_of_closing, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk();

    plug_script(&disk, "exit 0");
    backend_vanishes(&disk);
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_NEVER), 0);
    CHECK(is_removed(&disk));
    CHECK_EQUAL(script_runs(&disk), 0);
    close_context(ctx);
}

TEST_WITH(by_force_the_frontend_is_cut_off_first, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk();

    plug_script(&disk, "exit 0");
    backend_closes_when_cut_off(&disk);
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_NOW), 0);
    CHECK(is_removed(&disk));
    CHECK_EQUAL(script_runs(&disk), 1);
    close_context(ctx);
}

TEST_WITH(other_devices_and_directories_that_are_not_empty_stay, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk();
    struct plug other = plug_in(disk.domid, XLEVENT_DEVICE_KIND_VBD, 51728, 0, "vbd");

    backend_closes(&disk);
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_LATE), 0);
    CHECK(is_removed(&disk));
    CHECK(is_whole(&other));
    backend_closes(&other);
    CHECK_EQUAL(remove_now(ctx, &other, XLEVENT_FORCE_LATE), 0);
    /* With the last, the directories go. */
    CHECK(!has_node(path_of("/libxl/%u/device", (unsigned)disk.domid)));
    CHECK(!has_node(path_of("/local/domain/%u/device", (unsigned)disk.domid)));
    CHECK(!has_node(path_of("/local/domain/0/backend/vbd/%u", (unsigned)disk.domid)));
    close_context(ctx);
}

/* States on the way, and values that are no states, are waited through. */
TEST_WITH(only_the_state_of_a_closed_backend_counts, DEVICES)
{
    static const char *const others[] = { "", "x", "7", "06", " 6", "6 ", "-6", "4", "5", "99999999999999999999" };
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk();
    struct note note;
    libxl_asyncop_how how = told_to(&note);
    size_t i;

    put_node(backend_node(&disk, "state"), "nonsense");
    CHECK_EQUAL(begin_removal(ctx, &disk, XLEVENT_FORCE_LATE, &how), 0);
    CHECK(node_is(backend_node(&disk, "state"), "5"));
    for (i = 0; i < COUNT(others); i++) {
        put_node(backend_node(&disk, "state"), others[i]);
        expect_silence(ctx);
        CHECK_EQUAL(note.calls, 0);
    }
    put_node(backend_node(&disk, "state"), "6");
    CHECK_EQUAL(await_end(ctx, &note), 0);
    close_context(ctx);
}

/* The guest owns its frontend's nodes, so they name whatever it likes. */
TEST_WITH(what_the_guest_writes_is_not_believed, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk(), victim = plug_disk();

    plug_script(&disk, "exit 0");
    plug_script(&victim, "exit 0");
    put_node(path_of("%s/backend", frontend_of(&disk)), backend_of(&victim));
    put_node(path_of("%s/script", frontend_of(&disk)), "/bin/false");
    backend_closes(&disk);
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_LATE), 0);
    CHECK(is_removed(&disk));
    CHECK(is_whole(&victim));
    CHECK(node_is(backend_node(&victim, "state"), "4"));
    CHECK_EQUAL(script_runs(&disk), 1);
    CHECK_EQUAL(script_runs(&victim), 0);
    close_context(ctx);
}

TEST_WITH(a_backend_path_of_another_form_is_refused, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk(), other = plug_disk();
    const char *const paths[] = { "", "/", "/local/domain/0", "/local/domain/0/backend/vbd/../51712" };
    struct note note;
    libxl_asyncop_how how = told_to(&note);
    size_t i;

    log_quietly = true;
    for (i = 0; i <= COUNT(paths); i++) {
        put_node(path_of("%s/backend", libxl_node_of(&disk)), i < COUNT(paths) ? paths[i] : backend_of(&other));
        CHECK_EQUAL(begin_removal(ctx, &disk, XLEVENT_FORCE_NOW, &how), ERROR_FAIL);
        CHECK_EQUAL(logged_errors, i + 1);
    }
    CHECK(is_whole(&disk) && is_whole(&other));
    CHECK_EQUAL(note.calls, 0);
    close_context(ctx);
}

/* ---- what takes its time ---- */

/* Each in its own way, all at once: 40 s for the longest. */
TEST_WITH(who_takes_too_long_is_not_waited_for, DEVICES)
{
    enum { LATE, LATE_CUT_OFF, NEVER, NOW, FOREIGN, FOREIGN_NOW, SCRIPT, QEMU, QEMU_SHUT_DOWN, NOT_READY, COUNT_OF_ALL };
    libxl_ctx *ctx = open_context();
    struct plug plugs[COUNT_OF_ALL];
    struct note notes[COUNT_OF_ALL];
    libxl_asyncop_how hows[COUNT_OF_ALL];
    int i;

    log_quietly = true;
    for (i = 0; i < COUNT_OF_ALL; i++) {
        bool by_qemu = i == QEMU || i == QEMU_SHUT_DOWN, foreign = i == FOREIGN || i == FOREIGN_NOW;

        plugs[i] = plug_in(0, XLEVENT_DEVICE_KIND_VBD, 51712, foreign ? 7 : 0, by_qemu ? "qdisk" : "vbd");
        plug_script(&plugs[i], i == SCRIPT ? "trap '' TERM; while :; do sleep 1; done" : "exit 0");
        hows[i] = told_to(&notes[i]);
    }
    backend_closes_when_cut_off(&plugs[LATE_CUT_OFF]);
    put_node(backend_node(&plugs[SCRIPT], "state"), "6");
    put_node(backend_node(&plugs[FOREIGN], "state"), "6");
    put_node(backend_node(&plugs[FOREIGN_NOW], "state"), "6");
    put_node(backend_node(&plugs[NOT_READY], "state"), "1");
    host_kill(plugs[QEMU].domid);
    host_shutdown(plugs[QEMU_SHUT_DOWN].domid, POWEROFF);
    for (i = 0; i < COUNT_OF_ALL; i++) {
        bool now = i == NOW || i == FOREIGN_NOW;

        if (i == NOT_READY)
            CHECK_EQUAL(xlevent_device_wait_ready(ctx, plugs[i].domid, plugs[i].kind, plugs[i].devid, &hows[i]), 0);
        else
            CHECK_EQUAL(begin_removal(ctx, &plugs[i],
                                      i == NEVER ? XLEVENT_FORCE_NEVER : now ? XLEVENT_FORCE_NOW : XLEVENT_FORCE_LATE,
                                      &hows[i]), 0);
    }
    /* QEMU isn't told anything. */
    CHECK(node_is(backend_node(&plugs[QEMU], "state"), "4") && node_is(backend_node(&plugs[QEMU], "online"), "1"));
    CHECK_EQUAL(await_end(ctx, &notes[QEMU]), 0);
    CHECK(is_removed(&plugs[QEMU]));
    CHECK_EQUAL(await_end(ctx, &notes[QEMU_SHUT_DOWN]), 0);
    CHECK(is_removed(&plugs[QEMU_SHUT_DOWN]));
    CHECK_EQUAL(notes[NEVER].calls, 0);

    CHECK_EQUAL(await_end(ctx, &notes[NEVER]), ERROR_TIMEDOUT);
    CHECK(is_whole(&plugs[NEVER]));
    CHECK_EQUAL(await_end(ctx, &notes[NOW]), ERROR_TIMEDOUT);
    CHECK(is_removed(&plugs[NOW]));
    CHECK_EQUAL(await_end(ctx, &notes[FOREIGN]), ERROR_TIMEDOUT);
    CHECK(is_whole(&plugs[FOREIGN]));
    CHECK_EQUAL(await_end(ctx, &notes[FOREIGN_NOW]), ERROR_TIMEDOUT);
    CHECK(is_removed(&plugs[FOREIGN_NOW]));
    CHECK_EQUAL(notes[LATE].calls, 0);

    CHECK_EQUAL(await_end(ctx, &notes[LATE_CUT_OFF]), 0);
    CHECK(is_removed(&plugs[LATE_CUT_OFF]));
    CHECK_EQUAL(await_end(ctx, &notes[LATE]), ERROR_TIMEDOUT);
    CHECK(is_removed(&plugs[LATE]));
    /* Its time, and that of the removal which undoes it. */
    CHECK_EQUAL(await_end(ctx, &notes[NOT_READY]), ERROR_TIMEDOUT);
    CHECK(is_removed(&plugs[NOT_READY]));
    CHECK_EQUAL(notes[SCRIPT].calls, 0);

    CHECK_EQUAL(await_end(ctx, &notes[SCRIPT]), ERROR_TIMEDOUT);
    CHECK(is_whole(&plugs[SCRIPT]));
    for (i = 0; i < COUNT_OF_ALL; i++)
        CHECK_EQUAL(script_runs(&plugs[i]), i == SCRIPT || i == LATE_CUT_OFF);
    /* What has failed, and is still there, can be done again. */
    put_node(backend_node(&plugs[NEVER], "state"), "6");
    CHECK_EQUAL(remove_now(ctx, &plugs[NEVER], XLEVENT_FORCE_NEVER), 0);
    plug_script(&plugs[SCRIPT], "exit 0");
    CHECK_EQUAL(remove_now(ctx, &plugs[SCRIPT], XLEVENT_FORCE_NEVER), 0);
    driver_domain_closes(&plugs[FOREIGN]);
    put_node(backend_node(&plugs[FOREIGN], "state"), "4");
    CHECK_EQUAL(remove_now(ctx, &plugs[FOREIGN], XLEVENT_FORCE_NEVER), 0);
    for (i = 0; i < COUNT_OF_ALL; i++)
        CHECK(is_removed(&plugs[i]));
    close_context(ctx);
}

/* ---- scripts ---- */

TEST_WITH(a_disks_script_has_what_libxl_gives_it, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk();
    char path[100];

    snprintf(path, sizeof path, "path=backend/vbd/%u/51712 base=backend", (unsigned)disk.domid);
    plug_script(&disk, "exit 0");
    put_node(backend_node(&disk, "state"), "2");
    CHECK_EQUAL(setenv("HOME", "/of/the/application", 1), 0);
    CHECK_EQUAL(xlevent_device_wait_ready(ctx, disk.domid, disk.kind, disk.devid, NULL), 0);
    CHECK_EQUAL(script_runs(&disk), 1);
    backend_closes(&disk);
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_LATE), 0);
    CHECK_EQUAL(script_runs(&disk), 2);
    CHECK(script_had(&disk, 1, "args=add script=/"));
    CHECK(script_had(&disk, 2, "args=remove script=/"));
    CHECK(script_had(&disk, 1, path) && script_had(&disk, 2, path));
    CHECK(script_had(&disk, 2, "type=vbd "));
    CHECK(script_had(&disk, 2, "netdev=unset vif=unset interface=unset home=/of/the/application ."));
    close_context(ctx);
}

TEST_WITH(an_interfaces_scripts_have_what_libxl_gives_them, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug plain = plug_in(0, XLEVENT_DEVICE_KIND_VIF, 3, 0, "vif");
    struct plug emulated = plug_in(0, XLEVENT_DEVICE_KIND_VIF, 3, 0, "vif");
    struct plug of_stub = plug_in(0, XLEVENT_DEVICE_KIND_VIF, 3, 0, "vif");

    plug_script(&plain, "exit 0");
    put_node(backend_node(&plain, "type"), "vif");
    put_node(backend_node(&plain, "state"), "2");
    CHECK_EQUAL(xlevent_device_wait_ready(ctx, plain.domid, plain.kind, plain.devid, NULL), 0);
    backend_closes(&plain);
    CHECK_EQUAL(remove_now(ctx, &plain, XLEVENT_FORCE_LATE), 0);
    CHECK_EQUAL(script_runs(&plain), 2);
    CHECK(script_had(&plain, 1, "args=online type_if=vif "));
    CHECK(script_had(&plain, 2, "args=offline type_if=vif "));
    CHECK(script_had(&plain, 2, path_of("type=vif path=backend/vif/%u/3 ", (unsigned)plain.domid)));
    CHECK(script_had(&plain, 2, path_of("netdev= vif=vif%u.3 interface=unset ", (unsigned)plain.domid)));

    plug_script(&emulated, "exit 0");
    put_node(backend_node(&emulated, "type"), "vif_ioemu");
    put_node(backend_node(&emulated, "gatewaydev"), "xenbr0");
    backend_closes(&emulated);
    CHECK_EQUAL(remove_now(ctx, &emulated, XLEVENT_FORCE_LATE), 0);
    CHECK_EQUAL(script_runs(&emulated), 2);
    CHECK(script_had(&emulated, 1, "args=offline type_if=vif "));
    CHECK(script_had(&emulated, 2, "args=remove type_if=tap "));
    CHECK(script_had(&emulated, 2, path_of("netdev=xenbr0 vif=vif%u.3 interface=vif%u.3-emu ",
                                           (unsigned)emulated.domid, (unsigned)emulated.domid)));

    /* A stub domain sees to its own. */
    plug_script(&of_stub, "exit 0");
    put_node(backend_node(&of_stub, "type"), "vif_ioemu");
    put_node(path_of("/local/domain/%u/image/device-model-domid", (unsigned)of_stub.domid), "9");
    backend_closes(&of_stub);
    CHECK_EQUAL(remove_now(ctx, &of_stub, XLEVENT_FORCE_LATE), 0);
    CHECK_EQUAL(script_runs(&of_stub), 1);
    close_context(ctx);
}

TEST_WITH(a_script_that_fails_leaves_the_nodes_and_the_removal_can_be_repeated, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk();

    plug_script(&disk, "echo no >&2; exit 3");
    put_node(backend_node(&disk, "hotplug-error"), "the device is busy");
    backend_closes(&disk);
    log_quietly = true;
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_LATE), ERROR_FAIL);
    CHECK_EQUAL(logged_errors, 1);
    CHECK(is_whole(&disk));
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_NEVER), ERROR_FAIL);
    CHECK(is_whole(&disk));
    /* By force the nodes go all the same. */
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_NOW), ERROR_FAIL);
    CHECK(is_removed(&disk));
    CHECK_EQUAL(script_runs(&disk), 3);
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_NOW), ERROR_NOTFOUND);
    close_context(ctx);
}

TEST_WITH(a_script_that_cannot_be_run_is_a_failure, DEVICES)
{
    static const char *const scripts[] = { "/nowhere/block", "block", "/" };
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk();
    size_t i;

    put_node(backend_node(&disk, "state"), "6");
    log_quietly = true;
    for (i = 0; i < COUNT(scripts); i++) {
        put_node(backend_node(&disk, "script"), scripts[i]);
        CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_NEVER), ERROR_FAIL);
        CHECK_EQUAL(logged_errors, i + 1);
        CHECK(is_whole(&disk));
    }
    close_context(ctx);
}

/* ---- other backends ---- */

TEST_WITH(a_driver_domains_backend_is_removed_there, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_in(0, XLEVENT_DEVICE_KIND_VBD, 51712, 7, "vbd");

    plug_script(&disk, "exit 0");
    driver_domain_closes(&disk);
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_LATE), 0);
    CHECK(is_removed(&disk));
    CHECK_EQUAL(script_runs(&disk), 0);
    close_context(ctx);
}

TEST_WITH(every_kind_of_device_can_be_removed, DEVICES)
{
    static const struct {
        enum xlevent_device_kind kind;
        const char *backend;
    } kinds[] = {
        { XLEVENT_DEVICE_KIND_VIF, "vif" }, { XLEVENT_DEVICE_KIND_VBD, "vbd3" }, { XLEVENT_DEVICE_KIND_VBD, "qdisk" },
        { XLEVENT_DEVICE_KIND_VFB, "vfb" }, { XLEVENT_DEVICE_KIND_VKBD, "vkbd" }, { XLEVENT_DEVICE_KIND_VTPM, "vtpm" },
        { XLEVENT_DEVICE_KIND_9PFS, "9pfs" }, { XLEVENT_DEVICE_KIND_VDISPL, "vdispl" },
        { XLEVENT_DEVICE_KIND_PVCALLS, "pvcalls" }, { XLEVENT_DEVICE_KIND_VSND, "vsnd" },
    };
    libxl_ctx *ctx = open_context();
    size_t i;

    for (i = 0; i < COUNT(kinds); i++) {
        struct plug plug = plug_in(0, kinds[i].kind, (uint32_t)i, 0, kinds[i].backend);

        backend_closes(&plug);
        CHECK_EQUAL(remove_now(ctx, &plug, XLEVENT_FORCE_LATE), 0);
        CHECK(is_removed(&plug));
    }
    close_context(ctx);
}

/* What is left of a domain that is gone. */
TEST_WITH(the_devices_of_a_domain_that_is_gone_can_be_removed, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk();

    host_destroy(disk.domid);
    plug_write(&disk, 4);
    backend_closes(&disk);
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_LATE), 0);
    CHECK(is_removed(&disk));
    log_quietly = true;
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_LATE), ERROR_DOMAIN_NOTFOUND);
    close_context(ctx);
}

/* ---- several ---- */

enum { MANY = 20 };

TEST_WITH(several_devices_are_removed_at_the_same_time, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug plugs[MANY];
    struct xlevent_device devices[MANY];
    struct note note;
    libxl_asyncop_how how = told_to(&note);
    uint32_t domid = host_create();
    int i;

    for (i = 0; i < MANY; i++) {
        plugs[i] = plug_in(domid, i % 2 ? XLEVENT_DEVICE_KIND_VBD : XLEVENT_DEVICE_KIND_VIF, (uint32_t)i, 0,
                           i % 2 ? "vbd" : "vif");
        plug_script(&plugs[i], "exit 0");
        devices[i] = (struct xlevent_device){ plugs[i].kind, plugs[i].devid };
    }
    CHECK_EQUAL(xlevent_devices_remove(ctx, domid, devices, MANY, XLEVENT_FORCE_LATE, &how), 0);
    for (i = MANY - 1; i >= 0; i--) {
        CHECK(node_is(backend_node(&plugs[i], "state"), "5"));
        CHECK_EQUAL(note.calls, 0);
        put_node(backend_node(&plugs[i], "state"), "6");
        while (!is_removed(&plugs[i]))
            poll_once(ctx, -1);
    }
    CHECK_EQUAL(await_end(ctx, &note), 0);
    for (i = 0; i < MANY; i++)
        CHECK_EQUAL(script_runs(&plugs[i]), 1);
    close_context(ctx);
}

TEST_WITH(of_several_the_first_that_fails_is_the_result_and_the_others_are_removed, DEVICES)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    struct plug plugs[3];
    struct xlevent_device devices[3];
    int i;

    for (i = 0; i < 3; i++) {
        plugs[i] = plug_in(domid, XLEVENT_DEVICE_KIND_VBD, (uint32_t)i, 0, "vbd");
        plug_script(&plugs[i], i == 1 ? "exit 1" : "exit 0");
        devices[i] = (struct xlevent_device){ plugs[i].kind, plugs[i].devid };
        backend_closes(&plugs[i]);
    }
    log_quietly = true;
    CHECK_EQUAL(xlevent_devices_remove(ctx, domid, devices, 3, XLEVENT_FORCE_LATE, NULL), ERROR_FAIL);
    CHECK(is_removed(&plugs[0]) && is_whole(&plugs[1]) && is_removed(&plugs[2]));
    plug_script(&plugs[1], "exit 0");
    CHECK_EQUAL(xlevent_devices_remove(ctx, domid, &devices[1], 1, XLEVENT_FORCE_LATE, NULL), 0);
    CHECK(is_removed(&plugs[1]));
    close_context(ctx);
}

TEST_WITH(none_is_removed_if_one_is_refused_and_none_is_no_mistake, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk();
    struct xlevent_device devices[] = { { disk.kind, disk.devid }, { disk.kind, disk.devid + 1 } };
    struct note note;
    libxl_asyncop_how how = told_to(&note);

    log_quietly = true;
    CHECK_EQUAL(xlevent_devices_remove(ctx, disk.domid, devices, 2, XLEVENT_FORCE_LATE, &how), ERROR_NOTFOUND);
    devices[1] = devices[0];
    CHECK_EQUAL(xlevent_devices_remove(ctx, disk.domid, devices, 2, XLEVENT_FORCE_LATE, &how), ERROR_INVAL);
    devices[1].kind = 3;
    CHECK_EQUAL(xlevent_devices_remove(ctx, disk.domid, devices, 2, XLEVENT_FORCE_LATE, &how), ERROR_INVAL);
    CHECK_EQUAL(xlevent_devices_remove(ctx, disk.domid, NULL, 1, XLEVENT_FORCE_LATE, &how), ERROR_INVAL);
    CHECK_EQUAL(logged_errors, 4);
    CHECK_EQUAL(note.calls, 0);
    CHECK(node_is(backend_node(&disk, "state"), "4"));
    CHECK_EQUAL(xlevent_devices_remove(ctx, disk.domid, NULL, 0, XLEVENT_FORCE_LATE, NULL), 0);
    CHECK_EQUAL(xlevent_devices_remove(ctx, disk.domid, NULL, 0, XLEVENT_FORCE_LATE, &how), 0);
    CHECK_EQUAL(await_end(ctx, &note), 0);
    close_context(ctx);
}

/* ---- being called off ---- */

TEST_WITH(an_operation_is_called_off_by_its_how, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug first = plug_disk(), other = plug_disk();
    struct note notes[2];
    libxl_asyncop_how hows[2] = { told_to(&notes[0]), told_to(&notes[1]) }, event = { .callback = NULL };

    event.u.for_event = (libxl_ev_user)(uintptr_t)&notes[0];
    CHECK_EQUAL(begin_removal(ctx, &first, XLEVENT_FORCE_NOW, &hows[0]), 0);
    CHECK_EQUAL(begin_removal(ctx, &other, XLEVENT_FORCE_LATE, &hows[1]), 0);
    CHECK_EQUAL(xlevent_ao_abort(ctx, NULL), ERROR_NOTFOUND);
    CHECK_EQUAL(xlevent_ao_abort(ctx, &event), ERROR_NOTFOUND);
    CHECK_EQUAL(xlevent_ao_abort(ctx, &hows[0]), 0);
    CHECK_EQUAL(await_end(ctx, &notes[0]), ERROR_ABORTED);
    CHECK_EQUAL(xlevent_ao_abort(ctx, &hows[0]), ERROR_NOTFOUND);
    /* What it had done is done, and no more. */
    CHECK(!has_node(frontend_of(&first)) && has_node(libxl_node_of(&first)));
    CHECK(node_is(backend_node(&first, "state"), "5"));
    CHECK_EQUAL(notes[1].calls, 0);
    CHECK_EQUAL(xlevent_ao_abort(ctx, &hows[1]), 0);
    CHECK_EQUAL(await_end(ctx, &notes[1]), ERROR_ABORTED);
    CHECK(is_whole(&other));
    CHECK_EQUAL(logged_errors, 0);
    /* Nothing is left of it: what the backend does now concerns nobody. */
    put_node(backend_node(&other, "state"), "6");
    expect_silence(ctx);
    CHECK(is_whole(&other));
    put_node(backend_node(&first, "state"), "6");
    CHECK_EQUAL(remove_now(ctx, &first, XLEVENT_FORCE_LATE), 0);
    CHECK_EQUAL(remove_now(ctx, &other, XLEVENT_FORCE_LATE), 0);
    CHECK(is_removed(&first) && is_removed(&other));
    close_context(ctx);
}

static struct plug hanging;
static libxl_ctx *shared;

static void *abort_when_it_runs(void *arg)
{
    (void)arg;
    WAIT_UNTIL(script_runs(&hanging) == 1);
    CHECK_EQUAL(xlevent_ao_abort(shared, NULL), 0);
    return NULL;
}

TEST_WITH(a_script_is_told_to_end_when_its_operation_is_called_off, DEVICES)
{
    libxl_ctx *ctx = shared = open_context();
    pthread_t thread;

    hanging = plug_disk();
    plug_script(&hanging, "trap 'exit 0' TERM; while :; do sleep 0.1; done");
    put_node(backend_node(&hanging, "state"), "6");
    CHECK_EQUAL(pthread_create(&thread, NULL, abort_when_it_runs, NULL), 0);
    CHECK_EQUAL(remove_now(ctx, &hanging, XLEVENT_FORCE_LATE), ERROR_ABORTED);
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    CHECK(is_whole(&hanging));
    plug_script(&hanging, "exit 0");
    CHECK_EQUAL(remove_now(ctx, &hanging, XLEVENT_FORCE_LATE), 0);
    CHECK(is_removed(&hanging));
    close_context(ctx);
}

TEST_WITH(called_off_twice_says_so, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct note note;
    libxl_asyncop_how how = told_to(&note);

    hanging = plug_disk();
    /* It takes its time to end. */
    plug_script(&hanging, "trap '' TERM; while :; do sleep 0.1; done");
    put_node(backend_node(&hanging, "state"), "6");
    CHECK_EQUAL(begin_removal(ctx, &hanging, XLEVENT_FORCE_LATE, &how), 0);
    poll_until_script_runs(ctx, &hanging);
    CHECK_EQUAL(xlevent_ao_abort(ctx, &how), 0);
    CHECK_EQUAL(xlevent_ao_abort(ctx, &how), ERROR_ABORTED);
    CHECK_EQUAL(await_end(ctx, &note), ERROR_ABORTED);
    CHECK(is_whole(&hanging));
    close_context(ctx);
}

TEST_WITH(freeing_the_context_ends_what_is_under_way, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk(), with_script = plug_disk();
    struct note notes[2];
    libxl_asyncop_how hows[2] = { told_to(&notes[0]), told_to(&notes[1]) };

    plug_script(&with_script, "while :; do sleep 0.1; done");
    put_node(backend_node(&with_script, "state"), "6");
    CHECK_EQUAL(begin_removal(ctx, &disk, XLEVENT_FORCE_LATE, &hows[0]), 0);
    CHECK_EQUAL(begin_removal(ctx, &with_script, XLEVENT_FORCE_LATE, &hows[1]), 0);
    poll_until_script_runs(ctx, &with_script);
    close_context(ctx);
    CHECK_EQUAL(notes[0].calls, 1);
    CHECK_EQUAL(notes[0].rc, ERROR_ABORTED);
    CHECK_EQUAL(notes[1].calls, 1);
    CHECK_EQUAL(notes[1].rc, ERROR_ABORTED);
    CHECK(is_whole(&disk) && is_whole(&with_script));
}

/* ---- the other direction ---- */

TEST_WITH(a_new_device_is_ready_when_its_backend_is_and_its_script_has_run, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk(), by_qemu = plug_in(0, XLEVENT_DEVICE_KIND_VBD, 51712, 0, "qdisk");
    struct plug foreign = plug_in(0, XLEVENT_DEVICE_KIND_VBD, 51712, 7, "vbd");
    struct note note;
    libxl_asyncop_how how = told_to(&note);

    plug_script(&disk, "exit 0");
    plug_script(&foreign, "exit 0");
    put_node(backend_node(&disk, "state"), "1");
    CHECK_EQUAL(xlevent_device_wait_ready(ctx, disk.domid, disk.kind, disk.devid, &how), 0);
    expect_silence(ctx);
    CHECK_EQUAL(note.calls, 0);
    CHECK_EQUAL(script_runs(&disk), 0);
    put_node(backend_node(&disk, "state"), "2");
    CHECK_EQUAL(await_end(ctx, &note), 0);
    CHECK_EQUAL(script_runs(&disk), 1);
    CHECK(is_whole(&disk));
    put_node(backend_node(&by_qemu, "state"), "1");
    CHECK_EQUAL(xlevent_device_wait_ready(ctx, by_qemu.domid, by_qemu.kind, by_qemu.devid, NULL), 0);
    CHECK_EQUAL(xlevent_device_wait_ready(ctx, foreign.domid, foreign.kind, foreign.devid, NULL), 0);
    CHECK_EQUAL(script_runs(&foreign), 0);
    close_context(ctx);
}

TEST_WITH(a_new_device_that_fails_is_removed, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk(), vanishing = plug_disk();
    struct note note;
    libxl_asyncop_how how = told_to(&note);

    plug_script(&disk, "[ \"$1\" = remove ]");
    put_node(backend_node(&disk, "state"), "2");
    backend_closes_when_cut_off(&disk);
    log_quietly = true;
    CHECK_EQUAL(xlevent_device_wait_ready(ctx, disk.domid, disk.kind, disk.devid, NULL), ERROR_FAIL);
    CHECK(is_removed(&disk));
    CHECK_EQUAL(script_runs(&disk), 2);
    CHECK(script_had(&disk, 1, "args=add ") && script_had(&disk, 2, "args=remove "));

    put_node(backend_node(&vanishing, "state"), "1");
    CHECK_EQUAL(xlevent_device_wait_ready(ctx, vanishing.domid, vanishing.kind, vanishing.devid, &how), 0);
    remove_node(backend_of(&vanishing));
    CHECK_EQUAL(await_end(ctx, &note), ERROR_FAIL);
    CHECK(is_removed(&vanishing));
    close_context(ctx);
}

/* ---- what is wrong ---- */

TEST_WITH(bad_arguments_are_refused_and_nothing_is_done, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk();
    struct note note;
    libxl_asyncop_how how = told_to(&note);
    enum xlevent_device_kind vbd = XLEVENT_DEVICE_KIND_VBD;
    int errors = 0;

    log_quietly = true;
#define REFUSED(call, error)                                                                                           \
    do {                                                                                                               \
        CHECK_EQUAL(call, error);                                                                                      \
        CHECK_EQUAL(logged_errors, ++errors);                                                                          \
    } while (0)
    REFUSED(xlevent_device_remove(ctx, NOBODY, vbd, 51712, XLEVENT_FORCE_LATE, &how), ERROR_DOMAIN_NOTFOUND);
    REFUSED(xlevent_device_remove(ctx, UINT32_MAX, vbd, 51712, XLEVENT_FORCE_LATE, &how), ERROR_DOMAIN_NOTFOUND);
    REFUSED(xlevent_device_remove(ctx, disk.domid, vbd, 51713, XLEVENT_FORCE_LATE, &how), ERROR_NOTFOUND);
    REFUSED(xlevent_device_remove(ctx, disk.domid, vbd, 0x80000000, XLEVENT_FORCE_LATE, &how), ERROR_INVAL);
    REFUSED(xlevent_device_remove(ctx, disk.domid, XLEVENT_DEVICE_KIND_VIF, 51712, XLEVENT_FORCE_LATE, &how),
            ERROR_NOTFOUND);
    REFUSED(xlevent_device_remove(ctx, disk.domid, 3, 51712, XLEVENT_FORCE_LATE, &how), ERROR_INVAL);
    REFUSED(xlevent_device_remove(ctx, disk.domid, vbd, 51712, 3, &how), ERROR_INVAL);
    REFUSED(xlevent_device_wait_ready(ctx, disk.domid, 0, 51712, &how), ERROR_INVAL);
    REFUSED(xlevent_device_wait_ready(ctx, NOBODY, vbd, 51712, NULL), ERROR_DOMAIN_NOTFOUND);
    CHECK_EQUAL(xlevent_device_remove(NULL, disk.domid, vbd, 51712, XLEVENT_FORCE_LATE, &how), ERROR_INVAL);
    CHECK_EQUAL(xlevent_devices_remove(NULL, disk.domid, NULL, 0, XLEVENT_FORCE_LATE, &how), ERROR_INVAL);
    CHECK_EQUAL(xlevent_device_wait_ready(NULL, disk.domid, vbd, 51712, &how), ERROR_INVAL);
    CHECK_EQUAL(xlevent_ao_abort(NULL, &how), ERROR_INVAL);
    /* One at a time for each device. */
    CHECK_EQUAL(begin_removal(ctx, &disk, XLEVENT_FORCE_LATE, &how), 0);
    REFUSED(begin_removal(ctx, &disk, XLEVENT_FORCE_NOW, NULL), ERROR_INVAL);
    CHECK_EQUAL(note.calls, 0);
    put_node(backend_node(&disk, "state"), "6");
    CHECK_EQUAL(await_end(ctx, &note), 0);
    close_context(ctx);
}

/*
 * Calls of libxenstore, those of the library under test among them, come through here: somebody else changes a node just
 * before a transaction ends, `conflicts` times.
 */
static int conflicts, conflicted;
static char contested[200];

bool xs_transaction_end(struct xs_handle *xs, xs_transaction_t transaction, bool abort)
{
    static bool (*real)(struct xs_handle *, xs_transaction_t, bool);

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "xs_transaction_end");
    if (!abort && conflicts > 0) {
        conflicts--;
        conflicted++;
        put_number(contested, 4);
    }
    return real(xs, transaction, abort);
}

TEST_WITH(a_conflict_with_others_is_no_failure, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk();
    struct note note;
    libxl_asyncop_how how = told_to(&note);

    strcpy(contested, backend_node(&disk, "state"));
    conflicts = 5;
    CHECK_EQUAL(begin_removal(ctx, &disk, XLEVENT_FORCE_LATE, &how), 0);
    CHECK_EQUAL(conflicted, 5);
    CHECK(node_is(backend_node(&disk, "state"), "5"));
    /* And at the end. */
    strcpy(contested, path_of("%s/other", frontend_of(&disk)));
    conflicts = 3;
    put_node(backend_node(&disk, "state"), "6");
    CHECK_EQUAL(await_end(ctx, &note), 0);
    CHECK_EQUAL(conflicted, 8);
    CHECK(is_removed(&disk));
    CHECK_EQUAL(logged_errors, 0);
    close_context(ctx);
}

TEST_WITH(a_backend_is_watched_again_when_xenstored_comes_back, DEVICES)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk(), lost = plug_disk();
    struct note notes[2];
    libxl_asyncop_how hows[2] = { told_to(&notes[0]), told_to(&notes[1]) };

    log_quietly = true;
    CHECK_EQUAL(begin_removal(ctx, &disk, XLEVENT_FORCE_LATE, &hows[0]), 0);
    CHECK_EQUAL(begin_removal(ctx, &lost, XLEVENT_FORCE_LATE, &hows[1]), 0);
    host_kill_xenstored();
    poll_once(ctx, -1);
    CHECK_EQUAL(begin_removal(ctx, &disk, XLEVENT_FORCE_LATE, &hows[0]), ERROR_FAIL);
    host_start_xenstored();
    /* The new daemon knows no nodes, until a toolstack writes them: there is nothing left of the other. */
    plug_write(&disk, 5);
    CHECK_EQUAL(await_end(ctx, &notes[1]), 0);
    if (notes[0].calls == 0)
        put_node(backend_node(&disk, "state"), "6");
    CHECK_EQUAL(await_end(ctx, &notes[0]), 0);
    close_context(ctx);
}

static int refuse(void *user, int fd, void **registration, short events, void *for_libxl)
{
    (void)fd, (void)registration, (void)events, (void)for_libxl;
    return *(int *)user;
}

static int modify(void *user, int fd, void **registration, short events)
{
    (void)user, (void)fd, (void)registration, (void)events;
    return 0;
}

static void deregister(void *user, int fd, void *registration)
{
    (void)user, (void)fd, (void)registration;
}

static int timeout_refused(void *user, void **registration, struct timeval at, void *for_libxl)
{
    (void)user, (void)registration, (void)at, (void)for_libxl;
    FAIL("a timeout is asked for");
}

static int timeout_modify(void *user, void **registration, struct timeval at)
{
    (void)user, (void)registration, (void)at;
    return 0;
}

TEST_WITH(a_loop_that_refuses_the_descriptor_refuses_the_operation, DEVICES)
{
    static const libxl_osevent_hooks hooks = {
        .fd_register = refuse, .fd_modify = modify, .fd_deregister = deregister,
        .timeout_register = timeout_refused, .timeout_modify = timeout_modify,
    };
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk();
    int answer = 5;

    libxl_osevent_register_hooks(ctx, &hooks, &answer);
    log_quietly = true;
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_LATE), 5);
    CHECK(node_is(backend_node(&disk, "state"), "4"));
    answer = 0;
    backend_closes(&disk);
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_LATE), 0);
    CHECK(is_removed(&disk));
    close_context(ctx);
}
