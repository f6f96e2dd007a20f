/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Operations with devices, as they should go: xlevent_device_remove, xlevent_devices_remove and xlevent_device_wait_ready.
 * libxenlight does the same inside functions of its own for each kind; one test runs them side by side.
 */
#include <pthread.h>

#include "harness/check.h"
#include "harness/drive.h"
#include "harness/host.h"
#include "harness/ours.h"
#include "harness/plug.h"
#include "harness/store.h"
#include "harness/xl.h"

enum { DEVICES = COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT };

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
    thread = start_thread(take_turns, ctx);
    for (round = 0; round < 20; round++) {
        struct plug disk = plug_disk();

        backend_closes(&disk);
        CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_LATE), 0);
        CHECK(is_removed(&disk));
    }
    host_destroy(last);
    finish_thread(thread);
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

/* ---- side by side with libxenlight ---- */

/* libxenlight's own function in its column, ours in the others. */
static int remove_as_libxl(libxl_ctx *ctx, const struct plug *plug)
{
#ifndef XLEVENT_STANDALONE
    if (column == REAL) {
        libxl_device_disk disk;
        libxl_device_nic nic;
        int rc;

        libxl_device_disk_init(&disk);
        libxl_device_nic_init(&nic);
        disk.vdev = strdup("xvda");
        disk.pdev_path = strdup("/dev/null");
        disk.format = LIBXL_DISK_FORMAT_RAW;
        disk.backend = strcmp(plug->backend_kind, "qdisk") == 0 ? LIBXL_DISK_BACKEND_QDISK : LIBXL_DISK_BACKEND_PHY;
        disk.backend_domid = plug->backend_domid;
        nic.devid = (int)plug->devid;
        if (plug->kind == XLEVENT_DEVICE_KIND_VIF)
            rc = libxl_device_nic_remove(ctx, plug->domid, &nic, NULL);
        else
            rc = libxl_device_disk_remove(ctx, plug->domid, &disk, NULL);
        libxl_device_disk_dispose(&disk);
        libxl_device_nic_dispose(&nic);
        return rc;
    }
#endif
    return remove_now(ctx, plug, XLEVENT_FORCE_LATE);
}

/* What is run with what, what is left, and what it comes to. */
DOMAIN_TEST(a_removal_does_what_libxls_does)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk(), failing = plug_disk(), foreign = plug_in(0, XLEVENT_DEVICE_KIND_VBD, 51712, 7, "vbd");
    struct plug by_qemu = plug_in(0, XLEVENT_DEVICE_KIND_VBD, 51712, 0, "qdisk");
    struct plug leaving = plug_in(0, XLEVENT_DEVICE_KIND_VBD, 51712, 0, "qdisk");
    struct plug nic = plug_in(0, XLEVENT_DEVICE_KIND_VIF, 3, 0, "vif"), emulated = plug_in(0, XLEVENT_DEVICE_KIND_VIF, 3, 0, "vif");

    CHECK_EQUAL(setenv("HOME", "/of/the/application", 1), 0);
    plug_script(&disk, "exit 0");
    backend_closes(&disk);
    CHECK_EQUAL(remove_as_libxl(ctx, &disk), 0);
    CHECK(is_removed(&disk));
    CHECK(!has_node(path_of("/libxl/%u/device", (unsigned)disk.domid)));
    CHECK(!has_node(path_of("/local/domain/%u/device", (unsigned)disk.domid)));
    CHECK(!has_node(path_of("/local/domain/0/backend/vbd/%u", (unsigned)disk.domid)));
    CHECK_EQUAL(script_runs(&disk), 1);
    CHECK(script_had(&disk, 1, "args=remove script=/"));
    CHECK(script_had(&disk, 1, path_of("type=vbd path=backend/vbd/%u/51712 base=backend ", (unsigned)disk.domid)));
    CHECK(script_had(&disk, 1, "netdev=unset vif=unset interface=unset home=/of/the/application ."));

    plug_script(&nic, "exit 0");
    put_node(backend_node(&nic, "type"), "vif");
    backend_closes(&nic);
    CHECK_EQUAL(remove_as_libxl(ctx, &nic), 0);
    CHECK(is_removed(&nic));
    CHECK_EQUAL(script_runs(&nic), 1);
    CHECK(script_had(&nic, 1, "args=offline type_if=vif script=/"));
    CHECK(script_had(&nic, 1, path_of("path=backend/vif/%u/3 base=backend netdev= vif=vif%u.3 interface=unset ",
                                      (unsigned)nic.domid, (unsigned)nic.domid)));

    plug_script(&emulated, "exit 0");
    put_node(backend_node(&emulated, "type"), "vif_ioemu");
    put_node(backend_node(&emulated, "gatewaydev"), "xenbr0");
    backend_closes(&emulated);
    CHECK_EQUAL(remove_as_libxl(ctx, &emulated), 0);
    CHECK_EQUAL(script_runs(&emulated), 2);
    CHECK(script_had(&emulated, 1, "args=offline type_if=vif "));
    CHECK(script_had(&emulated, 2, "args=remove type_if=tap "));
    CHECK(script_had(&emulated, 2, path_of("netdev=xenbr0 vif=vif%u.3 interface=vif%u.3-emu ", (unsigned)emulated.domid,
                                           (unsigned)emulated.domid)));

    plug_script(&foreign, "exit 0");
    driver_domain_closes(&foreign);
    CHECK_EQUAL(remove_as_libxl(ctx, &foreign), 0);
    CHECK(is_removed(&foreign));
    CHECK_EQUAL(script_runs(&foreign), 0);

    plug_script(&by_qemu, "exit 0");
    backend_closes(&by_qemu);
    CHECK_EQUAL(remove_as_libxl(ctx, &by_qemu), 0);
    CHECK(is_removed(&by_qemu));
    CHECK_EQUAL(script_runs(&by_qemu), 0);

    host_kill(leaving.domid);
    CHECK_EQUAL(remove_as_libxl(ctx, &leaving), 0);
    CHECK(is_removed(&leaving));

    log_quietly = true;
    plug_script(&failing, "exit 1");
    backend_closes(&failing);
    if (OURS("script-fails")) {
        CHECK_EQUAL(remove_as_libxl(ctx, &failing), ERROR_FAIL);
        CHECK(is_whole(&failing));
    } else {
        CHECK_EQUAL(remove_as_libxl(ctx, &failing), 0);
        CHECK(is_removed(&failing));
    }
    CHECK_EQUAL(script_runs(&failing), 1);
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
    CHECK_EQUAL(xlevent_devices_remove(ctx, disk.domid, NULL, 0, (enum xlevent_force)7, &how), ERROR_INVAL);
    CHECK_EQUAL(logged_errors, 5);
    CHECK_EQUAL(note.calls, 0);
    CHECK(node_is(backend_node(&disk, "state"), "4"));
    CHECK_EQUAL(xlevent_devices_remove(ctx, disk.domid, NULL, 0, XLEVENT_FORCE_LATE, NULL), 0);
    CHECK_EQUAL(xlevent_devices_remove(ctx, disk.domid, NULL, 0, XLEVENT_FORCE_LATE, &how), 0);
    CHECK_EQUAL(await_end(ctx, &note), 0);
    close_context(ctx);
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
