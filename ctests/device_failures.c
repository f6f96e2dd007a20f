/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Operations with devices that take too long, are called off, or meet what is wrong. What takes a backend's, QEMU's or a
 * script's whole time is tested in one test, all at the same time.
 */
#include <pthread.h>
#include <sys/resource.h>
#include <xenstore.h>

#include "harness/check.h"
#include "harness/drive.h"
#include "harness/host.h"
#include "harness/next.h"
#include "harness/ours.h"
#include "harness/plug.h"
#include "harness/store.h"
#include "harness/xl.h"

enum { DEVICES = COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT };

/* What the script does after that wakes nobody. */
static void poll_until_script_runs(libxl_ctx *ctx, const struct plug *plug)
{
    while (script_runs(plug) == 0)
        poll_once(ctx, 10);
}

/* ---- what takes its time ---- */

/*
 * Each in its own way, all at once: 40 s for the longest. How long each has is for src/ao/course_tests.rs to say: which of them
 * ends first here depends on who gets the processor.
 */
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

    CHECK_EQUAL(await_end(ctx, &notes[NEVER]), ERROR_TIMEDOUT);
    CHECK(is_whole(&plugs[NEVER]));
    CHECK_EQUAL(await_end(ctx, &notes[NOW]), ERROR_TIMEDOUT);
    CHECK(is_removed(&plugs[NOW]));
    CHECK_EQUAL(await_end(ctx, &notes[FOREIGN]), ERROR_TIMEDOUT);
    CHECK(is_whole(&plugs[FOREIGN]));
    CHECK_EQUAL(await_end(ctx, &notes[FOREIGN_NOW]), ERROR_TIMEDOUT);
    CHECK(is_removed(&plugs[FOREIGN_NOW]));

    CHECK_EQUAL(await_end(ctx, &notes[LATE_CUT_OFF]), 0);
    CHECK(is_removed(&plugs[LATE_CUT_OFF]));
    CHECK_EQUAL(await_end(ctx, &notes[LATE]), ERROR_TIMEDOUT);
    CHECK(is_removed(&plugs[LATE]));
    /* Its time, and that of the removal which undoes it. */
    CHECK_EQUAL(await_end(ctx, &notes[NOT_READY]), ERROR_TIMEDOUT);
    CHECK(is_removed(&plugs[NOT_READY]));

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
    thread = start_thread(abort_when_it_runs, NULL);
    CHECK_EQUAL(remove_now(ctx, &hanging, XLEVENT_FORCE_LATE), ERROR_ABORTED);
    finish_thread(thread);
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

enum { ROUNDS = 15 };

static void *remove_and_abort(void *arg)
{
    int round;

    (void)arg;
    for (round = 0; round < ROUNDS; round++) {
        struct plug disk = plug_disk();
        struct note note;
        libxl_asyncop_how how = told_to(&note);
        int rc;

        /* It has closed, or is going to: an end and an abort come at any moments of each other's. */
        if (round % 2)
            put_node(backend_node(&disk, "state"), "6");
        else
            backend_closes(&disk);
        CHECK_EQUAL(begin_removal(shared, &disk, XLEVENT_FORCE_LATE, &how), 0);
        rc = xlevent_ao_abort(shared, &how);
        CHECK(rc == 0 || rc == ERROR_NOTFOUND);
        while (__atomic_load_n(&note.calls, __ATOMIC_ACQUIRE) == 0)
            poll_once(shared, 10);
        CHECK(note.rc == 0 || (note.rc == ERROR_ABORTED && rc == 0));
        if (note.rc == ERROR_ABORTED) {
            CHECK(is_whole(&disk));
            CHECK_EQUAL(remove_now(shared, &disk, XLEVENT_FORCE_LATE), 0);
        }
        CHECK(is_removed(&disk));
        CHECK_EQUAL(note.calls, 1);
    }
    return NULL;
}

TEST_WITH(operations_of_several_threads_end_once_each_also_when_they_are_called_off, DEVICES)
{
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    int i;

    shared = open_context();
    for (i = 0; i < THREADS; i++)
        threads[i] = start_thread(remove_and_abort, NULL);
    for (i = 0; i < THREADS; i++)
        finish_thread(threads[i]);
    CHECK_EQUAL(logged_errors, 0);
    close_context(shared);
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
    if (!abort && conflicts > 0) {
        conflicts--;
        conflicted++;
        put_number(contested, 4);
    }
    return NEXT(xs_transaction_end)(xs, transaction, abort);
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

/* What can't be waited for isn't begun. */
TEST_WITH(without_descriptors_an_operation_that_is_waited_for_is_not_begun, DEVICES | NOT_UNDER_VALGRIND)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk();
    struct rlimit limit, none;

    /* All else that is needed is there. */
    enable(ctx, 0, 1);
    log_quietly = true;
    CHECK_EQUAL(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 0;
    CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &none), 0);
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_LATE), ERROR_FAIL);
    CHECK_EQUAL(logged_errors, 1);
    CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &limit), 0);
    CHECK(node_is(backend_node(&disk, "state"), "4"));
    CHECK(is_whole(&disk));
    backend_closes(&disk);
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_LATE), 0);
    CHECK(is_removed(&disk));
    close_context(ctx);
}

/* ---- numbers ---- */

/* Xen keeps 16 bits of a domain's number. No function takes a number that is longer for the domain that its end names. */
TEST_WITH(a_long_number_is_no_other_domains, DEVICES)
{
    static const uint32_t above[] = { UINT32_C(1) << 16, UINT32_C(1) << 17, UINT32_C(1) << 31 };
    const uint64_t dead = (uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_DEATH;
    libxl_ctx *ctx = open_context();
    struct plug plug = plug_disk();
    struct drive drive = drive_at(plug.domid, HDC, "hdc");
    struct xlevent_subscriber *subscriber;
    libxl_evgen_disk_eject *ejection;
    libxl_evgen_domain_state *state;
    libxl_evgen_domain_death *death;
    libxl_event *event;
    size_t i;

    log_quietly = true;
    CHECK_EQUAL(xlevent_subscriber_new(ctx, &subscriber), 0);
    for (i = 0; i < COUNT(above); i++) {
        uint32_t domid = above[i] + plug.domid;
        struct xlevent_device device = { plug.kind, plug.devid };

        /* It is nobody's, and so dead; the other one lives. */
        CHECK_EQUAL(libxl_evenable_domain_death(ctx, domid, 1, &death), 0);
        expect_death(ctx, domid, 1);
        CHECK_EQUAL(libxl_evenable_domain_state(ctx, domid, dead, 2, &state), ERROR_INVAL);
        CHECK_EQUAL(xlevent_subscriber_evenable_domain_death(ctx, subscriber, domid, 3, &death), 0);
        CHECK_EQUAL(xlevent_subscriber_wait(ctx, subscriber, &event, dead, NULL, NULL, -1), 0);
        check_death(event, domid, 3);
        libxl_event_free(ctx, event);
        CHECK_EQUAL(xlevent_subscriber_evenable_domain_state(ctx, subscriber, domid, dead, 4, &state), ERROR_INVAL);
        CHECK_EQUAL(xlevent_device_remove(ctx, domid, plug.kind, plug.devid, XLEVENT_FORCE_NOW, NULL),
                    ERROR_DOMAIN_NOTFOUND);
        CHECK_EQUAL(xlevent_devices_remove(ctx, domid, &device, 1, XLEVENT_FORCE_NOW, NULL), ERROR_DOMAIN_NOTFOUND);
        CHECK_EQUAL(xlevent_device_wait_ready(ctx, domid, plug.kind, plug.devid, NULL), ERROR_DOMAIN_NOTFOUND);
        CHECK_EQUAL(xlevent_suspend_node_create(ctx, domid, 0), ERROR_DOMAIN_NOTFOUND);
        /* Its drive is another one. */
        CHECK_EQUAL(libxl_evenable_disk_eject(ctx, domid, "hdc", 5, &ejection), 0);
        CHECK_EQUAL(xlevent_subscriber_evenable_disk_eject(ctx, subscriber, domid, "hdc", 6, &ejection), 0);
    }
    CHECK(is_whole(&plug));
    eject(drive);
    expect_silence(ctx);
    CHECK(holds(drive, "eject", "eject"));
    CHECK_EQUAL(xlevent_subscriber_check(ctx, subscriber, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_NOT_READY);
    close_context(ctx);
}
