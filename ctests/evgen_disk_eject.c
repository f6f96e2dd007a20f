/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libxl_evenable_disk_eject and _evdisable_: which events the nodes of a virtual CD drive give, for whom, and what they say.
 */
#include <signal.h>

#ifndef XLEVENT_STANDALONE
#include <libxl.h>
#endif

#include "harness/check.h"
#include "harness/drive.h"
#include "harness/host.h"
#include "harness/quiet.h"
#include "harness/xl.h"

/* ---- the event ---- */

DOMAIN_TEST(an_ejection_gives_one_event_and_is_acknowledged)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();
    int round;

    enable_eject(ctx, drive.domid, "hdc", 7);
    expect_silence(ctx);
    for (round = 0; round < 3; round++) {
        eject(drive);
        expect_eject(ctx, drive.domid, 7);
        CHECK(holds(drive, "eject", ""));
        expect_silence(ctx);
    }
    close_context(ctx);
}

DOMAIN_TEST(every_field_of_the_event_is_as_documented)
{
    static const libxl_device_disk zero;
    static const uint8_t no_uuid[16];
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();
    libxl_event *event;
    libxl_device_disk *disk, expected;

    enable_eject(ctx, drive.domid, "hdc", UINT64_MAX);
    eject(drive);
    event = wait_event(ctx);
    check_eject(event, drive.domid, UINT64_MAX, "hdc", "hdc");
    CHECK(same_string(event->u.disk_eject.vdev, OURS("eject-vdev") ? "hdc" : NULL));
    CHECK(memcmp(&event->domuuid, no_uuid, sizeof no_uuid) == 0);
    disk = &event->u.disk_eject.disk;
    expected = zero;
    expected.backend = LIBXL_DISK_BACKEND_QDISK;
    expected.format = LIBXL_DISK_FORMAT_EMPTY;
    expected.removable = expected.is_cdrom = 1;
    expected.vdev = disk->vdev;
    expected.pdev_path = disk->pdev_path;
    /* Bytes between the fields too: nothing of the library's memory may show. */
    CHECK(memcmp(disk, &expected, sizeof expected) == 0);
    libxl_event_free(ctx, event);
    close_context(ctx);
}

DOMAIN_TEST(an_event_may_outlive_its_generator_and_its_context)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();
    libxl_evgen_disk_eject *evgen = enable_eject(ctx, drive.domid, "hdc", 1);
    libxl_event *event;

    eject(drive);
    event = wait_event(ctx);
    libxl_evdisable_disk_eject(ctx, evgen);
    close_context(ctx);
    check_eject(event, drive.domid, 1, "hdc", "hdc");
    libxl_event_free(NULL, event);
}

/* Where libxenlight is in the process, its own functions are used on the event, whose ever that is. */
DOMAIN_TEST(an_event_is_made_of_the_same_parts_as_libxenlights)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();
    libxl_event *event;

    enable_eject(ctx, drive.domid, "hdc", 5);
    eject(drive);
    event = wait_event(ctx);
#ifndef XLEVENT_STANDALONE
    libxl_event expected, copy;
    libxl_device_disk *disk = &expected.u.disk_eject.disk;
    char *have, *want, *copied;

    libxl_event_init(&expected);
    expected.domid = drive.domid;
    expected.for_user = 5;
    libxl_event_init_type(&expected, LIBXL_EVENT_TYPE_DISK_EJECT);
    if (column != REAL)
        expected.u.disk_eject.vdev = strdup("hdc");
    disk->vdev = strdup("hdc");
    disk->pdev_path = strdup("");
    disk->backend = LIBXL_DISK_BACKEND_QDISK;
    disk->format = LIBXL_DISK_FORMAT_EMPTY;
    disk->removable = disk->is_cdrom = 1;

    have = libxl_event_to_json(ctx, event);
    want = libxl_event_to_json(ctx, &expected);
    CHECK(have && want);
    if (strcmp(have, want) != 0)
        FAIL("the event is\n%s\nand not\n%s", have, want);

    libxl_event_init(&copy);
    libxl_event_copy(ctx, &copy, event);
    copied = libxl_event_to_json(ctx, &copy);
    CHECK(same_string(copied, want));
    libxl_event_dispose(&copy);
    libxl_event_dispose(&expected);
    libxl_event_dispose(event);
    free(have);
    free(want);
    free(copied);
#else
    check_eject(event, drive.domid, 5, "hdc", "hdc");
    free(event->u.disk_eject.vdev);
    free(event->u.disk_eject.disk.vdev);
    free(event->u.disk_eject.disk.pdev_path);
#endif
    /* The memory, and what belongs to it, are malloc's. */
    free(event);
    close_context(ctx);
}

DOMAIN_TEST(the_type_and_the_domain_of_the_backend_are_told)
{
    static const struct {
        const char *type;
        libxl_disk_backend backend;
        uint32_t domid;
    } backends[] = {
        { "qdisk", LIBXL_DISK_BACKEND_QDISK, 0 }, { "vbd", LIBXL_DISK_BACKEND_TAP, 0 },
        { "vbd3", LIBXL_DISK_BACKEND_TAP, 1 },    { "tap", LIBXL_DISK_BACKEND_TAP, 32751 },
        { "phy", LIBXL_DISK_BACKEND_UNKNOWN, 2 }, { "virtio", LIBXL_DISK_BACKEND_UNKNOWN, 300 },
    };
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();
    size_t i;

    enable_eject(ctx, drive.domid, "hdc", 1);
    for (i = 0; i < COUNT(backends); i++) {
        libxl_event *event;
        char path[100];

        snprintf(path, sizeof path, "/local/domain/%u/backend/%s/%u/%u", (unsigned)backends[i].domid, backends[i].type,
                 (unsigned)drive.domid, (unsigned)drive.devid);
        put(drive, "backend", path);
        put_bytes(own_node(drive, "backend"), path, strlen(path));
        eject(drive);
        event = wait_event(ctx);
        check_eject(event, drive.domid, 1, "hdc", "hdc");
        CHECK_EQUAL(event->u.disk_eject.disk.backend, backends[i].backend);
        CHECK_EQUAL(event->u.disk_eject.disk.backend_domid, backends[i].domid);
        libxl_event_free(ctx, event);
    }
    close_context(ctx);
}

/* ---- which disk ---- */

DOMAIN_TEST(a_disk_is_found_by_the_number_that_its_name_stands_for)
{
    static const struct {
        const char *vdev;
        uint32_t devid;
    } names[] = {
        { "hda", 768 },         { "hdb", 832 },        { "hdc", 5632 },       { "hdd", 5696 },     { "hdd63", 5759 },
        { "xvda", 51712 },      { "xvda1", 51713 },    { "xvdp15", 51967 },   { "xvdq", 268439552 }, { "xvda16", 268435472 },
        { "xvdaa", 268442112 }, { "xvdba255", 268449023 }, { "sda", 2048 },   { "sda1", 2049 },    { "sdp15", 2303 },
        { "d0p2", 51714 },      { "d16p1", 268439553 }, { "d0x20p010", 268443656 }, { "51715", 51715 }, { "0xca04", 51716 },
        { "0145005", 51717 },   { "0", 0 },            { "2147483647", 2147483647 },
    };
    libxl_ctx *ctx = open_context();
    uint32_t domid = host_create();
    size_t i;

    for (i = 0; i < COUNT(names); i++) {
        drive_at(domid, names[i].devid, names[i].vdev);
        enable_eject(ctx, domid, names[i].vdev, i);
    }
    expect_silence(ctx);
    for (i = COUNT(names); i-- > 0;) {
        struct drive drive = { domid, names[i].devid };
        libxl_event *event;

        eject(drive);
        event = wait_event(ctx);
        check_eject(event, domid, i, names[i].vdev, names[i].vdev);
        libxl_event_free(ctx, event);
    }
    expect_silence(ctx);
    close_context(ctx);
}

/* Alone or with others: domains are left alone. */
TEST(a_name_of_no_disk_is_refused)
{
    static const char *const names[] = { "",      "xvd",   "xvda0",       "xvda256",          "hde",  "hda64", "sdq",
                                         "sda16", "d0",    "d0p256",      "d1048576p0",       "disk", "hdc ",  "../hdc",
                                         "-1",    " hdc",  "2147483648",  "4294972928",       "vda",  "cdrom", "hdc\n",
                                         "xvdA",  "\xff",  "xvdaaaaaaaaaaaaaaaaaaaaaaaaaaa" };
    libxl_ctx *ctx = open_context();
    size_t i;

    for (i = 0; i < COUNT(names); i++) {
        libxl_evgen_disk_eject *evgen = UNTOUCHED;
        int rc = libxl_evenable_disk_eject(ctx, NOBODY, names[i], 0, &evgen);

        if (OURS("eject-bad-vdev")) {
            CHECK_EQUAL(rc, ERROR_INVAL);
            CHECK(evgen == UNTOUCHED);
            CHECK_EQUAL(logged_errors, i + 1);
        } else {
            CHECK_EQUAL(rc, 0);
            libxl_evdisable_disk_eject(ctx, evgen);
            CHECK_EQUAL(logged_errors, 0);
        }
    }
    /* Nothing is left that would be waited for. */
    while (poll_once(ctx, 0))
        ;
    expect_nothing_queued(ctx);
    close_context(ctx);
}

DOMAIN_TEST(a_disk_of_a_stub_domain_stands_for_the_guests)
{
    libxl_ctx *ctx = open_context();
    uint32_t guest = host_create(), stub = host_create();
    struct drive own = drive_at(guest, HDC, "hdc"), stubs = drive_at(stub, HDC, "hdc");
    char path[100], number[20];

    snprintf(path, sizeof path, "/local/domain/%u/image/device-model-domid", (unsigned)guest);
    snprintf(number, sizeof number, "%u", (unsigned)stub);
    put_bytes(path, number, strlen(number));
    enable_eject(ctx, guest, "hdc", 1);
    expect_silence(ctx);
    eject(own);
    expect_silence(ctx);
    CHECK(holds(own, "eject", "eject"));
    eject(stubs);
    expect_eject(ctx, guest, 1);
    CHECK(holds(stubs, "eject", ""));
    /* The stub domain's own disk is the same, and told as its own. */
    enable_eject(ctx, stub, "hdc", 2);
    eject(stubs);
    if (OURS("eject-shared")) {
        expect_eject(ctx, stub, 2);
        expect_eject(ctx, guest, 1);
    } else {
        libxl_event_free(ctx, wait_event(ctx));
    }
    expect_silence(ctx);
    close_context(ctx);
}

DOMAIN_TEST(what_names_no_stub_domain_means_the_guest)
{
    static const char *const values[] = { "", "0", "none", "/local/domain/7" };
    libxl_ctx *ctx = open_context();
    size_t i;

    for (i = 0; i < COUNT(values); i++) {
        struct drive drive = cd_drive();
        char path[100];

        snprintf(path, sizeof path, "/local/domain/%u/image/device-model-domid", (unsigned)drive.domid);
        put_bytes(path, values[i], strlen(values[i]));
        enable_eject(ctx, drive.domid, "hdc", i);
        eject(drive);
        expect_eject(ctx, drive.domid, i);
    }
    close_context(ctx);
}

/* ---- what is missing ---- */

DOMAIN_TEST(neither_the_disk_nor_its_domain_need_be_there_when_it_is_enabled)
{
    libxl_ctx *ctx = open_context();
    uint32_t later = host_create(), missing = host_create();
    struct drive drives[2];
    libxl_event *event;
    int i;

    host_destroy(missing);
    enable_eject(ctx, later, "hdc", 0);
    enable_eject(ctx, missing, "hdc", 1);
    enable_eject(ctx, UINT32_MAX, "hdc", 2);
    expect_silence(ctx);
    host_create_at(missing);
    drives[0] = drive_at(later, HDC, "hdc");
    drives[1] = drive_at(missing, HDC, "hdc");
    expect_silence(ctx);
    for (i = 0; i < 2; i++) {
        eject(drives[i]);
        event = wait_event(ctx);
        /* It had no name then. */
        check_eject(event, drives[i].domid, (libxl_ev_user)i, "hdc", NULL);
        CHECK_EQUAL(event->u.disk_eject.disk.backend, LIBXL_DISK_BACKEND_QDISK);
        libxl_event_free(ctx, event);
    }
    expect_silence(ctx);
    close_context(ctx);
}

DOMAIN_TEST(an_ejection_before_the_enable_counts)
{
    libxl_ctx *ctx = open_context();
    struct drive first = cd_drive(), second = cd_drive();

    eject(first);
    enable_eject(ctx, first.domid, "hdc", 1);
    expect_eject(ctx, first.domid, 1);
    /* Also when there is something to watch already. */
    eject(second);
    enable_eject(ctx, second.domid, "hdc", 2);
    expect_eject(ctx, second.domid, 2);
    expect_silence(ctx);
    close_context(ctx);
}

DOMAIN_TEST(an_ejection_without_a_backend_is_acknowledged_and_not_told)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();

    enable_eject(ctx, drive.domid, "hdc", 1);
    remove_from_both(drive, "backend");
    eject(drive);
    expect_silence(ctx);
    CHECK(holds(drive, "eject", ""));
    /* The whole drive goes, and another comes. */
    remove_node(node(drive, "eject"));
    remove_from_both(drive, "dev");
    expect_silence(ctx);
    drive = drive_at(drive.domid, HDC, "hdc");
    expect_silence(ctx);
    eject(drive);
    expect_eject(ctx, drive.domid, 1);
    expect_silence(ctx);
    close_context(ctx);
}

/* ---- what guests write ---- */

DOMAIN_TEST(only_the_word_eject_is_an_ejection)
{
    static const char *const values[] = { "",        "e",       "ejec",     "ejected", "eject ", " eject", "Eject", "EJECT",
                                          "eject\n", "eject/", "\xff""eject", "ejecteject", "1" };
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();
    char child[120];
    size_t i;

    enable_eject(ctx, drive.domid, "hdc", 1);
    for (i = 0; i < COUNT(values); i++) {
        put(drive, "eject", values[i]);
        expect_silence(ctx);
        CHECK(holds(drive, "eject", values[i]));
    }
    put_bytes(node(drive, "eject"), "\0eject", 6);
    expect_silence(ctx);
    CHECK(holds_bytes(node(drive, "eject"), "\0eject", 6));
    put_bytes(node(drive, "eject"), "ejec\0t", 6);
    expect_silence(ctx);
    CHECK(holds_bytes(node(drive, "eject"), "ejec\0t", 6));
    /* A node below fires the watch too. */
    snprintf(child, sizeof child, "%s/eject", node(drive, "eject"));
    put_bytes(child, "eject", 5);
    expect_silence(ctx);
    eject(drive);
    expect_eject(ctx, drive.domid, 1);
    expect_silence(ctx);
    close_context(ctx);
}

/* Some guests write the zero byte at the end of their string; what is behind it is not looked at. */
DOMAIN_TEST(the_word_ends_at_a_zero_byte)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();

    enable_eject(ctx, drive.domid, "hdc", 1);
    put_bytes(node(drive, "eject"), "eject", 6);
    expect_eject(ctx, drive.domid, 1);
    CHECK(holds(drive, "eject", ""));
    put_bytes(node(drive, "eject"), "eject\0and more", 14);
    expect_eject(ctx, drive.domid, 1);
    CHECK(holds(drive, "eject", ""));
    expect_silence(ctx);
    close_context(ctx);
}

DOMAIN_TEST(a_burst_that_nobody_has_looked_at_is_one_ejection)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();
    int i;

    enable_eject(ctx, drive.domid, "hdc", 1);
    expect_silence(ctx);
    for (i = 0; i < 300; i++)
        put(drive, "eject", i % 3 ? "eject" : "nonsense");
    expect_eject(ctx, drive.domid, 1);
    expect_silence(ctx);
    for (i = 0; i < 300; i++)
        put(drive, "eject", i % 3 ? "nonsense" : "eject");
    expect_silence(ctx);
    close_context(ctx);
}

/* Each is acknowledged, and so the guest can eject again, as often as it likes. */
DOMAIN_TEST(a_guest_that_ejects_again_and_again_fills_no_queue)
{
    enum { TIMES = 50 };
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();
    int i;

    enable_eject(ctx, drive.domid, "hdc", 1);
    for (i = 0; i < TIMES; i++) {
        eject(drive);
        while (!holds(drive, "eject", ""))
            poll_once(ctx, 10);
    }
    if (OURS("eject-unread")) {
        expect_eject(ctx, drive.domid, 1);
        expect_nothing_queued(ctx);
        /* The next is told again. */
        eject(drive);
        expect_eject(ctx, drive.domid, 1);
    } else {
        for (i = 0; i < TIMES; i++)
            expect_eject(ctx, drive.domid, 1);
    }
    expect_silence(ctx);
    close_context(ctx);
}

/* As long as xenstore's protocol lets a value be beside its path, and no text; also where the toolstack has it. */
DOMAIN_TEST(any_bytes_are_a_name_and_any_a_backend)
{
    enum { LONG = 3900 };
    static const char *const odd[] = { "\xff\xfe", "../../../etc", "%s%n", "\x01", "" };
    libxl_ctx *ctx = open_context();
    static char name[LONG + 1];
    size_t i;

    memset(name, 0xc3, LONG);
    for (i = 0; i <= COUNT(odd); i++) {
        const char *text = i < COUNT(odd) ? odd[i] : name;
        struct drive drive = drive_at(host_create(), HDC, text);
        libxl_event *event;

        enable_eject(ctx, drive.domid, "hdc", i);
        put(drive, "backend", text);
        put_bytes(own_node(drive, "backend"), text, strlen(text));
        eject(drive);
        event = wait_event(ctx);
        check_eject(event, drive.domid, i, "hdc", text);
        if (OURS("eject-backend")) {
            CHECK_EQUAL(event->u.disk_eject.disk.backend, LIBXL_DISK_BACKEND_UNKNOWN);
            CHECK_EQUAL(event->u.disk_eject.disk.backend_domid, 0);
        }
        libxl_event_free(ctx, event);
    }
    close_context(ctx);
}

DOMAIN_TEST(nothing_is_believed_of_what_is_no_path_of_a_backend)
{
    static const char *const paths[] = {
        "/local/domain/3/backend/qdisk",
        "/local/domain/3/backend/qdisk/1",
        "/local/domain/3/backend/qdisk/1/5632/x",
        "/local/domain/3/backend/qdisk/../../1/5632",
        "/local/domain/3/backend/qdisk/1/..",
        "/local/domain/3/backend/qdiskette/1/5632",
        "/local/domain/32752/backend/qdisk/1/5632",
        "/local/domain/-1/backend/qdisk/1/5632",
        "/local/domain/ 3/backend/qdisk/1/5632",
    };
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();
    size_t i;

    enable_eject(ctx, drive.domid, "hdc", 1);
    for (i = 0; i < COUNT(paths); i++) {
        libxl_event *event;

        put(drive, "backend", paths[i]);
        put_bytes(own_node(drive, "backend"), paths[i], strlen(paths[i]));
        eject(drive);
        event = wait_event(ctx);
        check_eject(event, drive.domid, 1, "hdc", "hdc");
        if (OURS("eject-backend")) {
            CHECK_EQUAL(event->u.disk_eject.disk.backend, LIBXL_DISK_BACKEND_UNKNOWN);
            if (!strstr(paths[i], "qdiskette"))
                CHECK_EQUAL(event->u.disk_eject.disk.backend_domid, 0);
        } else {
            CHECK_EQUAL(event->u.disk_eject.disk.backend, LIBXL_DISK_BACKEND_QDISK);
            CHECK(event->u.disk_eject.disk.backend_domid != 0);
        }
        libxl_event_free(ctx, event);
    }
    close_context(ctx);
}

/* An application goes on with the backend that an event names, so that is the toolstack's word. */
DOMAIN_TEST(a_guest_does_not_choose_who_serves_its_drive)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();
    char path[100];
    int round;

    /* As the name is before the generator is there, and the backend at any time. */
    put(drive, "dev", "hdd");
    enable_eject(ctx, drive.domid, "hdc", 1);
    snprintf(path, sizeof path, "/local/domain/7/backend/tap/%u/%u", (unsigned)drive.domid, (unsigned)drive.devid);
    for (round = 0; round < 2; round++) {
        libxl_event *event;
        libxl_device_disk *disk;

        put(drive, "backend", path);
        eject(drive);
        event = wait_event(ctx);
        disk = &event->u.disk_eject.disk;
        if (OURS("eject-backend")) {
            check_eject(event, drive.domid, 1, "hdc", "hdc");
            CHECK_EQUAL(disk->backend, LIBXL_DISK_BACKEND_QDISK);
            CHECK_EQUAL(disk->backend_domid, 0);
        } else {
            check_eject(event, drive.domid, 1, "hdc", "hdd");
            CHECK_EQUAL(disk->backend, LIBXL_DISK_BACKEND_TAP);
            CHECK_EQUAL(disk->backend_domid, 7);
        }
        libxl_event_free(ctx, event);
    }
    if (OURS("eject-backend")) {
        /* Nor does it keep it from being told. */
        remove_node(node(drive, "backend"));
        eject(drive);
        expect_eject(ctx, drive.domid, 1);
    }
    close_context(ctx);
}

/* Another toolstack may keep no notes. */
DOMAIN_TEST(a_name_that_the_toolstack_has_not_noted_is_the_frontends)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();

    remove_node(own_node(drive, "dev"));
    enable_eject(ctx, drive.domid, "hdc", 1);
    eject(drive);
    expect_eject(ctx, drive.domid, 1);
    close_context(ctx);
}

/* ---- several generators ---- */

DOMAIN_TEST(all_generators_of_a_drive_are_told_the_last_enabled_first)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();
    libxl_evgen_disk_eject *evgens[3];
    libxl_event *event;
    int i;

    for (i = 0; i < 3; i++)
        evgens[i] = enable_eject(ctx, drive.domid, i == 1 ? "5632" : "hdc", (libxl_ev_user)i);
    expect_silence(ctx);
    eject(drive);
    if (OURS("eject-shared")) {
        for (i = 3; i-- > 0;) {
            event = wait_event(ctx);
            check_eject(event, drive.domid, (libxl_ev_user)i, i == 1 ? "5632" : "hdc", "hdc");
            libxl_event_free(ctx, event);
        }
    } else {
        libxl_event_free(ctx, wait_event(ctx));
    }
    expect_silence(ctx);
    /* Those that are left go on. */
    libxl_evdisable_disk_eject(ctx, evgens[2]);
    libxl_evdisable_disk_eject(ctx, evgens[0]);
    eject(drive);
    event = wait_event(ctx);
    check_eject(event, drive.domid, 1, "5632", "hdc");
    libxl_event_free(ctx, event);
    expect_silence(ctx);
    close_context(ctx);
}

/* The node is the only sign that there is, and the first to see it takes it away. */
DOMAIN_TEST(of_two_contexts_with_one_drive_the_first_to_look_is_told)
{
    libxl_ctx *first = open_context(), *second = open_context();
    struct drive shared = cd_drive(), own = cd_drive();

    enable_eject(first, shared.domid, "hdc", 1);
    enable_eject(second, shared.domid, "hdc", 2);
    enable_eject(second, own.domid, "hdc", 3);
    expect_silence(first);
    expect_silence(second);
    eject(shared);
    expect_eject(first, shared.domid, 1);
    expect_silence(second);
    eject(own);
    expect_eject(second, own.domid, 3);
    expect_silence(first);
    /* One that is closed leaves the drive to the other. */
    close_context(first);
    eject(shared);
    expect_eject(second, shared.domid, 2);
    expect_silence(second);
    close_context(second);
}

DOMAIN_TEST(ejections_and_the_ends_of_domains_come_from_one_context)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();
    libxl_evgen_domain_death *death = enable(ctx, drive.domid, 1);

    enable_eject(ctx, drive.domid, "hdc", 2);
    expect_silence(ctx);
    eject(drive);
    expect_eject(ctx, drive.domid, 2);
    host_shutdown(drive.domid, CRASH);
    expect_shutdown(ctx, drive.domid, 1, CRASH);
    /* A guest that is down has its drive still. */
    eject(drive);
    expect_eject(ctx, drive.domid, 2);
    libxl_evdisable_domain_death(ctx, death);
    eject(drive);
    expect_eject(ctx, drive.domid, 2);
    death = enable(ctx, drive.domid, 3);
    expect_shutdown(ctx, drive.domid, 3, CRASH);
    host_destroy(drive.domid);
    expect_death(ctx, drive.domid, 3);
    expect_silence(ctx);
    close_context(ctx);
}

DOMAIN_TEST(many_drives_each_give_their_own)
{
    enum { DRIVES = 400 };
    static struct drive drives[DRIVES];
    static int told[DRIVES];
    libxl_ctx *ctx = open_context();
    uint32_t i;

    for (i = 0; i < DRIVES; i++) {
        drives[i] = cd_drive();
        enable_eject(ctx, drives[i].domid, "hdc", i);
    }
    expect_silence(ctx);
    for (i = 0; i < DRIVES; i++)
        if (i % 3)
            eject(drives[i * 7 % DRIVES]);
    for (i = 0; i < DRIVES; i++) {
        libxl_event *event;

        if (i % 3 == 0)
            continue;
        event = wait_event(ctx);
        CHECK(event->for_user < DRIVES);
        check_eject(event, drives[event->for_user].domid, event->for_user, "hdc", "hdc");
        told[event->for_user]++;
        libxl_event_free(ctx, event);
    }
    expect_silence(ctx);
    for (i = 0; i < DRIVES; i++)
        CHECK_EQUAL(told[i * 7 % DRIVES], i % 3 ? 1 : 0);
    close_context(ctx);
}

/* ---- the end of a generator ---- */

DOMAIN_TEST(after_the_disable_nothing_is_told_or_acknowledged)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();
    libxl_evgen_disk_eject *evgen = enable_eject(ctx, drive.domid, "hdc", 1);

    expect_silence(ctx);
    libxl_evdisable_disk_eject(ctx, evgen);
    eject(drive);
    expect_silence(ctx);
    CHECK(holds(drive, "eject", "eject"));
    /* And it can begin again, with what has happened meanwhile. */
    evgen = enable_eject(ctx, drive.domid, "hdc", 2);
    expect_eject(ctx, drive.domid, 2);
    /* What the watch has fired, and nobody has looked at, goes with it. */
    eject(drive);
    libxl_evdisable_disk_eject(ctx, evgen);
    expect_silence(ctx);
    CHECK(holds(drive, "eject", "eject"));
    close_context(ctx);
}

/* Its guest may write as it likes: a program that has something else to wait for must not be woken. */
DOMAIN_TEST(after_the_disable_the_drive_is_no_longer_watched)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();
    libxl_evgen_disk_eject *first = enable_eject(ctx, drive.domid, "hdc", 1), *second;
    int rounds = 0;
    bool woken;

    second = enable_eject(ctx, drive.domid, "hdc", 2);
    enable(ctx, 0, 3);
    expect_silence(ctx);
    libxl_evdisable_disk_eject(ctx, first);
    put(drive, "eject", "nonsense");
    CHECK(poll_once(ctx, -1));
    libxl_evdisable_disk_eject(ctx, second);
    come_to_rest(ctx);
    /* Its own look at the connection, each 10 s, may wake it now and then; a drive that is watched would each time. */
    do {
        CHECK_AT_MOST(++rounds, 10);
        eject(drive);
        receive_all();
        woken = poll_once(ctx, 0);
    } while (woken);
    close_context(ctx);
}

DOMAIN_TEST(an_ejection_that_is_queued_survives_the_disable)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();
    libxl_evgen_disk_eject *evgen = enable_eject(ctx, drive.domid, "hdc", 1);

    eject(drive);
    /* What is acknowledged is queued, once the round of the loop is over in which it was. */
    WAIT_UNTIL((poll_once(ctx, 0), holds(drive, "eject", "")));
    libxl_evdisable_disk_eject(ctx, evgen);
    expect_eject(ctx, drive.domid, 1);
    expect_silence(ctx);
    close_context(ctx);
}

static struct {
    int registered, deregistered;
} hooked;
static int hook_refusal;
static libxl_ctx *enable_in_hook;
static int enabled_in_hook;

static int note_register(void *user, int fd, void **for_app, short events, void *for_libxl)
{
    libxl_evgen_disk_eject *evgen = UNTOUCHED;

    (void)user, (void)fd, (void)for_app, (void)events, (void)for_libxl;
    if (enable_in_hook) {
        enabled_in_hook = libxl_evenable_disk_eject(enable_in_hook, NOBODY, "hdc", 0, &evgen);
        CHECK(evgen == UNTOUCHED);
    }
    if (hook_refusal)
        return hook_refusal;
    hooked.registered++;
    return 0;
}

static int note_modify(void *user, int fd, void **for_app, short events)
{
    (void)user, (void)fd, (void)for_app, (void)events;
    return 0;
}

static void note_deregister(void *user, int fd, void *for_app)
{
    (void)user, (void)fd, (void)for_app;
    hooked.deregistered++;
}

static int note_timeout(void *user, void **for_app, struct timeval at, void *for_libxl)
{
    (void)user, (void)for_app, (void)at, (void)for_libxl;
    return 0;
}

static int note_timeout_modify(void *user, void **for_app, struct timeval at)
{
    (void)user, (void)for_app, (void)at;
    return 0;
}

static void note_timeout_deregister(void *user, void *for_app)
{
    (void)user, (void)for_app;
}

static const libxl_osevent_hooks hooks = { note_register, note_modify,         note_deregister,
                                           note_timeout,  note_timeout_modify, note_timeout_deregister };

static bool is_waited_for(void)
{
    return hooked.registered > hooked.deregistered;
}

TEST(xenstored_is_listened_to_until_the_last_generator_of_either_kind_is_gone)
{
    libxl_ctx *ctx = open_context();
    libxl_evgen_disk_eject *drives[2];
    libxl_evgen_domain_death *death;

    libxl_osevent_register_hooks(ctx, &hooks, NULL);
    CHECK(!is_waited_for());
    drives[0] = enable_eject(ctx, NOBODY, "hdc", 1);
    CHECK(is_waited_for());
    drives[1] = enable_eject(ctx, NOBODY, "hdc", 2);
    death = enable(ctx, 0, 3);
    libxl_evdisable_disk_eject(ctx, drives[0]);
    libxl_evdisable_disk_eject(ctx, drives[1]);
    CHECK(is_waited_for());
    libxl_evdisable_domain_death(ctx, death);
    CHECK(!is_waited_for());
    death = enable(ctx, 0, 3);
    drives[0] = enable_eject(ctx, NOBODY, "hdd", 1);
    libxl_evdisable_domain_death(ctx, death);
    CHECK(is_waited_for());
    libxl_evdisable_disk_eject(ctx, drives[0]);
    CHECK(!is_waited_for());
    close_context(ctx);
}

static void enable_refused(void *ctx)
{
    libxl_evgen_disk_eject *evgen = NULL;

    libxl_evenable_disk_eject(ctx, NOBODY, "hdc", 0, &evgen);
}

TEST(what_a_hook_refuses_with_is_the_answer)
{
    static const int refusals[] = { 5, ERROR_OSEVENT_REG_FAIL };
    libxl_ctx *ctx = open_context();
    libxl_evgen_disk_eject *evgen = UNTOUCHED;
    size_t i;

    libxl_osevent_register_hooks(ctx, &hooks, NULL);
    for (i = 0; i < COUNT(refusals); i++) {
        hook_refusal = refusals[i];
        if (OURS("eject-enable-fails")) {
            CHECK_EQUAL(libxl_evenable_disk_eject(ctx, NOBODY, "hdc", 0, &evgen), refusals[i]);
            CHECK(evgen == UNTOUCHED);
        } else {
            CHECK_DIES(SIGSEGV, enable_refused, ctx);
        }
    }
    hook_refusal = 0;
    enable_eject(ctx, NOBODY, "hdc", 1);
    close_context(ctx);
}

TEST_OF_OURS(a_hook_that_waits_for_descriptors_may_not_enable)
{
    libxl_ctx *ctx = open_context();

    libxl_osevent_register_hooks(ctx, &hooks, NULL);
    enable_in_hook = ctx;
    enable_eject(ctx, NOBODY, "hdc", 1);
    enable_in_hook = NULL;
    CHECK_EQUAL(enabled_in_hook, ERROR_INVAL);
    CHECK_AT_LEAST(logged_errors, 1);
    close_context(ctx);
}

/* ---- bad input ---- */

static void enable_nothing(void *ctx)
{
    libxl_evgen_disk_eject *evgen = NULL;

    libxl_evenable_disk_eject(ctx, NOBODY, NULL, 0, &evgen);
}

static void enable_to_nowhere(void *ctx)
{
    libxl_evenable_disk_eject(ctx, NOBODY, "hdc", 0, NULL);
}

static void enable_in_nothing(void *unused)
{
    libxl_evgen_disk_eject *evgen = NULL;

    (void)unused;
    libxl_evenable_disk_eject(NULL, NOBODY, "hdc", 0, &evgen);
}

static void disable_nothing(void *ctx)
{
    libxl_evdisable_disk_eject(ctx, NULL);
}

TEST(each_pointer_may_be_NULL)
{
    libxl_ctx *ctx = open_context();
    libxl_evgen_disk_eject *evgen = UNTOUCHED;

    if (OURS("bad-input")) {
        CHECK_EQUAL(libxl_evenable_disk_eject(NULL, NOBODY, "hdc", 0, &evgen), ERROR_INVAL);
        CHECK_EQUAL(libxl_evenable_disk_eject(ctx, NOBODY, NULL, 0, &evgen), ERROR_INVAL);
        CHECK_EQUAL(libxl_evenable_disk_eject(ctx, NOBODY, "hdc", 0, NULL), ERROR_INVAL);
        CHECK_EQUAL(logged_errors, 2);
        CHECK(evgen == UNTOUCHED);
        /* What isn't valid is looked at before what it would be used for. */
        CHECK_EQUAL(libxl_evenable_disk_eject(UNTOUCHED, NOBODY, NULL, 0, NULL), ERROR_INVAL);
        libxl_evdisable_disk_eject(NULL, UNTOUCHED);
        libxl_evdisable_disk_eject(NULL, NULL);
    } else {
        CHECK_DIES(SIGSEGV, enable_in_nothing, NULL);
        CHECK_DIES(SIGSEGV, enable_nothing, ctx);
        CHECK_DIES(SIGSEGV, enable_to_nowhere, ctx);
    }
    if (OURS("evdisable-null"))
        libxl_evdisable_disk_eject(ctx, NULL);
    else
        CHECK_DIES(SIGSEGV, disable_nothing, ctx);
    close_context(ctx);
}

TEST_OF_OURS(a_handle_of_none_or_of_another_kind_is_logged_and_ignored)
{
    libxl_ctx *ctx = open_context(), *other = open_context();
    libxl_evgen_disk_eject *drive = enable_eject(ctx, NOBODY, "hdc", 1), *next;
    libxl_evgen_domain_death *death = enable(ctx, 0, 2);

    libxl_evdisable_disk_eject(ctx, (libxl_evgen_disk_eject *)death);
    CHECK_EQUAL(logged_errors, 1);
    libxl_evdisable_domain_death(ctx, (libxl_evgen_domain_death *)drive);
    CHECK_EQUAL(logged_errors, 2);
    libxl_evdisable_disk_eject(other, drive);
    CHECK_EQUAL(logged_errors, 3);
    libxl_evdisable_disk_eject(ctx, UNTOUCHED);
    CHECK_EQUAL(logged_errors, 4);
    /* Both are there still. */
    libxl_evdisable_domain_death(ctx, death);
    libxl_evdisable_disk_eject(ctx, drive);
    CHECK_EQUAL(logged_errors, 4);
    next = enable_eject(ctx, NOBODY, "hdc", 1);
    CHECK(next != drive);
    libxl_evdisable_disk_eject(ctx, drive);
    CHECK_EQUAL(logged_errors, 5);
    libxl_evdisable_disk_eject(ctx, next);
    CHECK_EQUAL(logged_errors, 5);
    close_context(ctx);
    close_context(other);
}

/* ---- callbacks ---- */

static struct {
    libxl_ctx *ctx;
    libxl_evgen_disk_eject *evgen;
    struct drive drive;
    int events;
} called;

/* Does in the callback what a program might: ends the generator, begins another for the drive, frees the event. */
static void on_event(void *user, libxl_event *event)
{
    CHECK(user == &called);
    check_eject(event, called.drive.domid, (libxl_ev_user)called.events, "hdc", "hdc");
    CHECK(holds(called.drive, "eject", ""));
    libxl_evdisable_disk_eject(called.ctx, called.evgen);
    called.events++;
    called.evgen = enable_eject(called.ctx, called.drive.domid, "hdc", (libxl_ev_user)called.events);
    libxl_event_free(called.ctx, event);
}

static const libxl_event_hooks eject_callbacks = { .event_occurs_mask = EJECT_BIT, .event_occurs = on_event };

DOMAIN_TEST(a_callback_may_end_the_generator_and_begin_another)
{
    libxl_ctx *ctx = open_context();

    called.ctx = ctx;
    called.drive = cd_drive();
    libxl_event_register_callbacks(ctx, &eject_callbacks, &called);
    called.evgen = enable_eject(ctx, called.drive.domid, "hdc", 0);
    while (called.events < 5) {
        eject(called.drive);
        poll_once(ctx, -1);
        while (poll_once(ctx, 0))
            ;
    }
    /* What the mask doesn't have is queued. */
    enable(ctx, NOBODY, 7);
    expect_death(ctx, NOBODY, 7);
    libxl_event_register_callbacks(ctx, NULL, NULL);
    expect_silence(ctx);
    close_context(ctx);
}
