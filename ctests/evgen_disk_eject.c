/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libxl_evenable_disk_eject and _evdisable_: which events the nodes of a virtual CD drive give, for whom, and what they say.
 *
 * The tests write the nodes as a toolstack and a guest would, with libxenstore. Every drive is one of a domain that no
 * other test has.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <unistd.h>
#include <xenstore.h>

#ifndef XLEVENT_STANDALONE
#include <libxl.h>
#endif

#include "harness/check.h"
#include "harness/host.h"
#include "harness/xl.h"

#define EJECT_BIT ((uint64_t)1 << LIBXL_EVENT_TYPE_DISK_EJECT)

/* ---- the store ---- */

/*
 * Calls of libxenstore, those of the library under test among them, come through here: what is about to be done with a node
 * whose path ends in `suffix` fails with `errnoval`, `times` times.
 */
struct refusal {
    const char *suffix;
    int errnoval, times, refused;
};
static struct refusal reads, writes, watches;

static bool is_refused(struct refusal *refusal, const char *path)
{
    size_t length = strlen(path), suffix = refusal->suffix ? strlen(refusal->suffix) : 0;

    if (!suffix || length < suffix || strcmp(path + length - suffix, refusal->suffix) != 0 ||
        refusal->refused == refusal->times)
        return false;
    refusal->refused++;
    errno = refusal->errnoval;
    return true;
}

void *xs_read(struct xs_handle *xs, xs_transaction_t transaction, const char *path, unsigned *length)
{
    static void *(*real)(struct xs_handle *, xs_transaction_t, const char *, unsigned *);

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "xs_read");
    return is_refused(&reads, path) ? NULL : real(xs, transaction, path, length);
}

bool xs_write(struct xs_handle *xs, xs_transaction_t transaction, const char *path, const void *data, unsigned length)
{
    static bool (*real)(struct xs_handle *, xs_transaction_t, const char *, const void *, unsigned);

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "xs_write");
    return is_refused(&writes, path) ? false : real(xs, transaction, path, data, length);
}

bool xs_watch(struct xs_handle *xs, const char *path, const char *token)
{
    static bool (*real)(struct xs_handle *, const char *, const char *);

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "xs_watch");
    return is_refused(&watches, path) ? false : real(xs, path, token);
}

/* A connection of the test's own, closed again: a daemon may have gone in between. */
static struct xs_handle *store(void)
{
    struct xs_handle *xs = xs_open(0);

    if (!xs)
        FAIL("xenstored: %s", strerror(errno));
    return xs;
}

static void put_bytes(const char *path, const void *value, size_t length)
{
    struct xs_handle *xs = store();

    if (!xs_write(xs, XBT_NULL, path, value, (unsigned)length))
        FAIL("writing %s: %s", path, strerror(errno));
    xs_close(xs);
}

static bool holds_bytes(const char *path, const void *value, size_t length)
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

/* A disk of a domain's, by the numbers in its path. */
struct drive {
    uint32_t domid, devid;
};

enum { HDC = 5632 };

static const char *node(struct drive drive, const char *name)
{
    static __thread char path[100];

    snprintf(path, sizeof path, "/local/domain/%u/device/vbd/%u/%s", (unsigned)drive.domid, (unsigned)drive.devid, name);
    return path;
}

static void put(struct drive drive, const char *name, const char *value)
{
    put_bytes(node(drive, name), value, strlen(value));
}

static bool holds(struct drive drive, const char *name, const char *value)
{
    return holds_bytes(node(drive, name), value, strlen(value));
}

/* As a toolstack makes it: served by QEMU in the control domain, with a medium. */
static struct drive drive_at(uint32_t domid, uint32_t devid, const char *dev)
{
    struct drive drive = { domid, devid };
    char backend[100];

    snprintf(backend, sizeof backend, "/local/domain/0/backend/qdisk/%u/%u", (unsigned)domid, (unsigned)devid);
    put(drive, "dev", dev);
    put(drive, "backend", backend);
    put(drive, "eject", "");
    return drive;
}

static struct drive cd_drive(void)
{
    return drive_at(host_create(), HDC, "hdc");
}

static void eject(struct drive drive)
{
    put(drive, "eject", "eject");
}

static libxl_evgen_disk_eject *enable_eject(libxl_ctx *ctx, uint32_t domid, const char *vdev, libxl_ev_user user)
{
    libxl_evgen_disk_eject *evgen = NULL;

    CHECK_EQUAL(libxl_evenable_disk_eject(ctx, domid, vdev, user, &evgen), 0);
    CHECK(evgen != NULL);
    return evgen;
}

static bool same_string(const char *have, const char *want)
{
    return have && want ? strcmp(have, want) == 0 : have == want;
}

/* An event is the ejection of a drive that QEMU serves, enabled by this name and called `dev` in the store. */
static void check_eject(const libxl_event *event, uint32_t domid, libxl_ev_user user, const char *vdev, const char *dev)
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

static void expect_eject(libxl_ctx *ctx, uint32_t domid, libxl_ev_user user)
{
    libxl_event *event = wait_event(ctx);

    check_eject(event, domid, user, "hdc", "hdc");
    libxl_event_free(ctx, event);
}

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

static void remove_node(const char *path)
{
    struct xs_handle *xs = store();

    CHECK(xs_rm(xs, XBT_NULL, path));
    xs_close(xs);
}

DOMAIN_TEST(an_ejection_without_a_backend_is_acknowledged_and_not_told)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();

    enable_eject(ctx, drive.domid, "hdc", 1);
    remove_node(node(drive, "backend"));
    eject(drive);
    expect_silence(ctx);
    CHECK(holds(drive, "eject", ""));
    /* The whole drive goes, and another comes. */
    remove_node(node(drive, "eject"));
    remove_node(node(drive, "dev"));
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

/* As long as xenstore's protocol lets a value be beside its path, and no text. */
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

    second = enable_eject(ctx, drive.domid, "hdc", 2);
    enable(ctx, 0, 3);
    expect_silence(ctx);
    libxl_evdisable_disk_eject(ctx, first);
    put(drive, "eject", "nonsense");
    CHECK(poll_once(ctx, -1));
    libxl_evdisable_disk_eject(ctx, second);
    while (poll_once(ctx, 0))
        ;
    eject(drive);
    host_settle();
    CHECK(!poll_once(ctx, 200));
    close_context(ctx);
}

DOMAIN_TEST(an_ejection_that_is_queued_survives_the_disable)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();
    uint32_t later = host_create();
    libxl_evgen_disk_eject *evgen = enable_eject(ctx, drive.domid, "hdc", 1);
    libxl_event *event = NULL;

    enable(ctx, later, 2);
    eject(drive);
    host_destroy(later);
    CHECK_EQUAL(libxl_event_wait(ctx, &event, DEATH_BIT, NULL, NULL), 0);
    libxl_event_free(ctx, event);
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
    int events, disasters;
    libxl_event_type disaster;
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

static void on_disaster(void *user, libxl_event_type type, const char *message, int errnoval)
{
    (void)message, (void)errnoval;
    CHECK(user == &called);
    called.disasters++;
    called.disaster = type;
}

static const libxl_event_hooks eject_callbacks = { EJECT_BIT, on_event, on_disaster };
static const libxl_event_hooks disaster_callback = { .disaster = on_disaster };

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
    expect_silence(ctx);
    CHECK_EQUAL(called.disasters, 0);
    close_context(ctx);
}

/* ---- threads ---- */

enum { EJECTIONS = 200 };
static int taken;

static void *take_events(void *ctx)
{
    libxl_event *event;

    do {
        event = wait_event(ctx);
        CHECK(event->type == LIBXL_EVENT_TYPE_DISK_EJECT || event->type == LIBXL_EVENT_TYPE_DOMAIN_DEATH);
        if (event->type == LIBXL_EVENT_TYPE_DOMAIN_DEATH)
            break;
        check_eject(event, called.drive.domid, 1, "hdc", "hdc");
        __atomic_fetch_add(&taken, 1, __ATOMIC_RELAXED);
        libxl_event_free(ctx, event);
    } while (true);
    libxl_event_free(ctx, event);
    return NULL;
}

static void *enable_and_disable(void *ctx)
{
    /* Of drives that nobody ejects, and one whose number is the other's: watches come and go beside it. */
    while (__atomic_load_n(&taken, __ATOMIC_RELAXED) < EJECTIONS) {
        libxl_evgen_disk_eject *evgens[2];

        evgens[0] = enable_eject(ctx, called.drive.domid, "hdd", 2);
        evgens[1] = enable_eject(ctx, NOBODY, "hdc", 3);
        libxl_evdisable_disk_eject(ctx, evgens[1]);
        libxl_evdisable_disk_eject(ctx, evgens[0]);
    }
    return NULL;
}

/* With two threads that may look at the drive at the same time, an ejection is still one. */
TEST_WITH(each_ejection_is_told_once_whatever_other_threads_do, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    enum { TAKERS = 3 };
    libxl_ctx *ctx = open_context();
    pthread_t takers[TAKERS], changer;
    uint32_t last[TAKERS];
    int i;

    called.drive = cd_drive();
    enable_eject(ctx, called.drive.domid, "hdc", 1);
    for (i = 0; i < TAKERS; i++) {
        last[i] = host_create();
        enable(ctx, last[i], 9);
        CHECK_EQUAL(pthread_create(&takers[i], NULL, take_events, ctx), 0);
    }
    CHECK_EQUAL(pthread_create(&changer, NULL, enable_and_disable, ctx), 0);
    for (i = 0; i < EJECTIONS; i++) {
        eject(called.drive);
        /* Nothing but noise, in between. */
        put(called.drive, "eject/child", "eject");
        WAIT_UNTIL(holds(called.drive, "eject", ""));
    }
    WAIT_UNTIL(__atomic_load_n(&taken, __ATOMIC_RELAXED) == EJECTIONS);
    CHECK_EQUAL(pthread_join(changer, NULL), 0);
    for (i = 0; i < TAKERS; i++)
        host_destroy(last[i]);
    for (i = 0; i < TAKERS; i++)
        CHECK_EQUAL(pthread_join(takers[i], NULL), 0);
    CHECK_EQUAL(taken, EJECTIONS);
    expect_silence(ctx);
    close_context(ctx);
}

/* ---- what goes wrong ---- */

DOMAIN_TEST(an_ejection_that_cannot_be_acknowledged_is_told_once_and_acknowledged_later)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();

    libxl_event_register_callbacks(ctx, &disaster_callback, &called);
    enable_eject(ctx, drive.domid, "hdc", 1);
    expect_silence(ctx);
    eject(drive);
    writes = (struct refusal){ "/eject", EACCES, 2, 0 };
    if (OURS("eject-refused")) {
        expect_eject(ctx, drive.domid, 1);
        CHECK_EQUAL(logged_errors, 1);
        /* It is looked at again, by itself or because something has happened there. */
        while (!holds(drive, "eject", ""))
            poll_once(ctx, -1);
        CHECK_EQUAL(writes.refused, 2);
        CHECK_EQUAL(logged_errors, 1);
        CHECK_EQUAL(called.disasters, 0);
    } else {
        while (called.disasters == 0)
            poll_once(ctx, -1);
        CHECK_EQUAL(called.disaster, LIBXL_EVENT_TYPE_DISK_EJECT);
        CHECK(holds(drive, "eject", "eject"));
        writes.times = writes.refused;
        put(drive, "eject", "");
    }
    expect_silence(ctx);
    eject(drive);
    expect_eject(ctx, drive.domid, 1);
    expect_silence(ctx);
    close_context(ctx);
}

DOMAIN_TEST(a_node_that_cannot_be_read_is_read_again)
{
    static const char *const suffixes[] = { "/eject", "/backend" };
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();
    size_t i;

    libxl_event_register_callbacks(ctx, &disaster_callback, &called);
    enable_eject(ctx, drive.domid, "hdc", 1);
    for (i = 0; i < COUNT(suffixes); i++) {
        expect_silence(ctx);
        eject(drive);
        reads = (struct refusal){ suffixes[i], EIO, 1, 0 };
        if (OURS("eject-refused")) {
            expect_eject(ctx, drive.domid, 1);
            CHECK_EQUAL(logged_errors, i + 1);
        } else {
            while (reads.refused == 0)
                poll_once(ctx, -1);
            put(drive, "eject", "");
        }
        CHECK_EQUAL(reads.refused, 1);
        CHECK(holds(drive, "eject", ""));
    }
    expect_silence(ctx);
    if (OURS("eject-refused"))
        CHECK_EQUAL(called.disasters, 0);
    close_context(ctx);
}

/* At each of the steps that an enable takes. */
TEST_OF_OURS(an_enable_that_fails_leaves_nothing_behind)
{
    struct refusal *const steps[] = { &reads, &reads, &watches, &watches };
    static const char *const suffixes[] = { "/device-model-domid", "/dev", "/eject", "@releaseDomain" };
    size_t i;
    int with_others;

    for (with_others = 0; with_others < 2; with_others++) {
        libxl_ctx *ctx = open_context();

        logged_errors = 0;
        if (with_others)
            enable(ctx, 0, 1);
        for (i = 0; i < COUNT(steps); i++) {
            libxl_evgen_disk_eject *evgen = UNTOUCHED;

            /* Not asked for again where a generator is active. */
            if (with_others && i == 3)
                continue;
            *steps[i] = (struct refusal){ suffixes[i], EIO, i == 3 ? 2 : 1, 0 };
            CHECK_EQUAL(libxl_evenable_disk_eject(ctx, NOBODY, "hdc", 1, &evgen), ERROR_FAIL);
            CHECK(evgen == UNTOUCHED);
            CHECK_EQUAL(steps[i]->refused, steps[i]->times);
            CHECK_EQUAL(logged_errors, i + 1);
            steps[i]->suffix = NULL;
        }
        libxl_evdisable_disk_eject(ctx, enable_eject(ctx, NOBODY, "hdc", 1));
        expect_nothing_queued(ctx);
        close_context(ctx);
    }
}

TEST_WITH(drives_are_watched_again_when_xenstored_comes_back, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    libxl_ctx *ctx = open_context();
    struct drive kept = cd_drive(), gone = cd_drive(), before = cd_drive();
    libxl_evgen_disk_eject *evgen;
    int round;

    enable_eject(ctx, kept.domid, "hdc", 1);
    evgen = enable_eject(ctx, gone.domid, "hdc", 2);
    enable_eject(ctx, before.domid, "hdc", 3);
    expect_silence(ctx);
    log_quietly = true;
    for (round = 0; round < 4; round++) {
        host_kill_xenstored();
        /* Noticed before it is back, or only then. */
        if (round % 2)
            poll_once(ctx, -1);
        if (round == 1)
            libxl_evdisable_disk_eject(ctx, evgen);
        host_start_xenstored();
        /* The new daemon knows of no nodes, until a toolstack writes them. */
        kept = drive_at(kept.domid, HDC, "hdc");
        gone = drive_at(gone.domid, HDC, "hdc");
        before = drive_at(before.domid, HDC, "hdc");
        eject(before);
        expect_eject(ctx, before.domid, 3);
        eject(kept);
        expect_eject(ctx, kept.domid, 1);
        eject(gone);
        if (round < 1)
            expect_eject(ctx, gone.domid, 2);
        expect_silence(ctx);
        CHECK(holds(gone, "eject", round < 1 ? "" : "eject"));
    }
    close_context(ctx);
}

TEST_WITH(while_xenstored_is_away_enabling_fails_and_disabling_works, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();
    libxl_evgen_disk_eject *evgen = enable_eject(ctx, drive.domid, "hdc", 1), *refused = UNTOUCHED;

    enable(ctx, 0, 2);
    expect_silence(ctx);
    log_quietly = true;
    host_kill_xenstored();
    /* Unnoticed as yet, and then noticed. */
    CHECK_EQUAL(libxl_evenable_disk_eject(ctx, drive.domid, "hdd", 3, &refused), ERROR_FAIL);
    poll_once(ctx, -1);
    while (poll_once(ctx, 0))
        ;
    CHECK_EQUAL(libxl_evenable_disk_eject(ctx, drive.domid, "hdd", 3, &refused), ERROR_FAIL);
    CHECK(refused == UNTOUCHED);
    libxl_evdisable_disk_eject(ctx, evgen);
    host_start_xenstored();
    drive = drive_at(drive.domid, HDC, "hdc");
    eject(drive);
    expect_silence(ctx);
    CHECK(holds(drive, "eject", "eject"));
    enable_eject(ctx, drive.domid, "hdc", 4);
    expect_eject(ctx, drive.domid, 4);
    expect_silence(ctx);
    close_context(ctx);
}
