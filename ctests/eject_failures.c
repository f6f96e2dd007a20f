/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Ejections while several threads are at it, and while xenstored refuses, or goes away.
 */
#include <errno.h>
#include <pthread.h>
#include <xenstore.h>

#include "harness/check.h"
#include "harness/drive.h"
#include "harness/host.h"
#include "harness/next.h"
#include "harness/xl.h"

/* ---- threads ---- */

enum { EJECTIONS = 200 };
static struct drive ejected;
static int taken;

static void *take_events(void *ctx)
{
    libxl_event *event;

    do {
        event = wait_event(ctx);
        CHECK(event->type == LIBXL_EVENT_TYPE_DISK_EJECT || event->type == LIBXL_EVENT_TYPE_DOMAIN_DEATH);
        if (event->type == LIBXL_EVENT_TYPE_DOMAIN_DEATH)
            break;
        check_eject(event, ejected.domid, 1, "hdc", "hdc");
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

        evgens[0] = enable_eject(ctx, ejected.domid, "hdd", 2);
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

    ejected = cd_drive();
    enable_eject(ctx, ejected.domid, "hdc", 1);
    for (i = 0; i < TAKERS; i++) {
        last[i] = host_create();
        enable(ctx, last[i], 9);
        takers[i] = start_thread(take_events, ctx);
    }
    changer = start_thread(enable_and_disable, ctx);
    for (i = 0; i < EJECTIONS; i++) {
        eject(ejected);
        /* Nothing but noise, in between. */
        put(ejected, "eject/child", "eject");
        WAIT_UNTIL(holds(ejected, "eject", ""));
        /* One that nobody has taken yet would stand for the next too. */
        WAIT_UNTIL(__atomic_load_n(&taken, __ATOMIC_RELAXED) == i + 1);
    }
    finish_thread(changer);
    for (i = 0; i < TAKERS; i++)
        host_destroy(last[i]);
    for (i = 0; i < TAKERS; i++)
        finish_thread(takers[i]);
    CHECK_EQUAL(taken, EJECTIONS);
    expect_silence(ctx);
    close_context(ctx);
}

/* ---- what xenstored refuses ---- */

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
    return is_refused(&reads, path) ? NULL : NEXT(xs_read)(xs, transaction, path, length);
}

bool xs_write(struct xs_handle *xs, xs_transaction_t transaction, const char *path, const void *data, unsigned length)
{
    return is_refused(&writes, path) ? false : NEXT(xs_write)(xs, transaction, path, data, length);
}

bool xs_watch(struct xs_handle *xs, const char *path, const char *token)
{
    return is_refused(&watches, path) ? false : NEXT(xs_watch)(xs, path, token);
}

/* The next firing is taken off the queue and comes to nothing, with this errno. */
static int lost_firing;

char **xs_check_watch(struct xs_handle *xs)
{
    char **firing = NEXT(xs_check_watch)(xs);

    if (firing && lost_firing) {
        free(firing);
        firing = NULL;
        errno = lost_firing;
        lost_firing = 0;
    }
    return firing;
}

static struct {
    int calls;
    libxl_event_type type;
} disaster;

static void note_disaster(void *user, libxl_event_type type, const char *message, int errnoval)
{
    (void)user, (void)message, (void)errnoval;
    disaster.calls++;
    disaster.type = type;
}

static const libxl_event_hooks disaster_hooks = { .disaster = note_disaster };

DOMAIN_TEST(an_ejection_that_cannot_be_acknowledged_is_told_once_and_acknowledged_later)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = cd_drive();

    libxl_event_register_callbacks(ctx, &disaster_hooks, NULL);
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
        CHECK_EQUAL(disaster.calls, 0);
    } else {
        while (disaster.calls == 0)
            poll_once(ctx, -1);
        CHECK_EQUAL(disaster.type, LIBXL_EVENT_TYPE_DISK_EJECT);
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

    libxl_event_register_callbacks(ctx, &disaster_hooks, NULL);
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
        CHECK_EQUAL(disaster.calls, 0);
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

            /* Not asked for again where a generator is active, and not at all for drives where domains have their own. */
            if (i == 3 && (with_others || host_has_newer_xenstored()))
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

/* ---- xenstored goes away ---- */

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

/* ---- firings that get lost in libxenstore ---- */

/* ENOMEM where it has no memory for one; EINVAL where nothing comes any more, which makes nothing readable. */
TEST_WITH(what_a_lost_firing_would_have_told_is_found_all_the_same, COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT)
{
    static const int errnos[] = { ENOMEM, EINVAL };
    size_t i;

    for (i = 0; i < COUNT(errnos); i++) {
        libxl_ctx *ctx = open_context();
        struct drive drive = cd_drive();
        uint32_t domid = host_create();

        libxl_event_register_callbacks(ctx, &disaster_hooks, NULL);
        enable_eject(ctx, drive.domid, "hdc", 1);
        enable(ctx, domid, 2);
        expect_silence(ctx);
        lost_firing = errnos[i];
        eject(drive);
        expect_eject(ctx, drive.domid, 1);
        CHECK_EQUAL(lost_firing, 0);
        lost_firing = errnos[i];
        host_destroy(domid);
        expect_death(ctx, domid, 2);
        expect_silence(ctx);
        CHECK_EQUAL(disaster.calls, 0);
        close_context(ctx);
    }
}
