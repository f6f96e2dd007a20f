/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guests and driver domains that write what they should not, through the real xenstored and with their own permissions and
 * quotas: none gets a crash, memory without bound, a command run, another domain's event, or a word in the log that is not
 * marked as its own.
 *
 * HOSTILE_WRITES says how often a storm writes.
 */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/check.h"
#include "harness/drive.h"
#include "harness/guest.h"
#include "harness/host.h"
#include "harness/ours.h"
#include "harness/plug.h"
#include "harness/quiet.h"
#include "harness/store.h"
#include "harness/xl.h"

enum { HOSTILE = COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT };

static unsigned long storm_length(void)
{
    const char *text = getenv("HOSTILE_WRITES");

    return text ? strtoul(text, NULL, 10) : 20000;
}

/* ---- guests ---- */

/* A drive whose frontend's nodes are its guest's, as a toolstack makes it. */
static struct drive guests_drive(void)
{
    struct drive drive = cd_drive();
    static const char *const nodes[] = { "dev", "backend", "eject" };
    size_t i;

    give_node(path_of("/local/domain/%u/device/vbd/%u", (unsigned)drive.domid, (unsigned)drive.devid), drive.domid, 0);
    for (i = 0; i < COUNT(nodes); i++)
        give_node(node(drive, nodes[i]), drive.domid, 0);
    return drive;
}

/* A disk that a driver domain serves: the nodes of its backend are that domain's. */
static struct plug driver_domains_disk(uint32_t *driver_domain)
{
    uint32_t domid = host_create();
    struct plug plug = plug_in(0, XLEVENT_DEVICE_KIND_VBD, 51712, domid, "vbd");
    static const char *const nodes[] = { "state", "online", "frontend" };
    size_t i;

    put_home(domid);
    give_node(path_of("/local/domain/%u/backend", (unsigned)domid), domid, 0);
    give_node(path_of("/local/domain/%u/backend/vbd", (unsigned)domid), domid, 0);
    give_node(path_of("/local/domain/%u/backend/vbd/%u", (unsigned)domid, (unsigned)plug.domid), domid, 0);
    give_node(backend_of(&plug), domid, plug.domid);
    for (i = 0; i < COUNT(nodes); i++)
        give_node(backend_node(&plug, nodes[i]), domid, plug.domid);
    *driver_domain = domid;
    return plug;
}

/* What everything else here rests on. */
TEST_WITH(a_guest_can_write_to_its_frontend_and_not_to_what_is_believed, HOSTILE)
{
    struct drive drive = guests_drive();
    uint32_t driver_domain;
    struct plug plug = driver_domains_disk(&driver_domain);
    struct guest *guest = guest_open(drive.domid), *driver = guest_open(driver_domain);
    const char *const refused[] = {
        own_node(drive, "backend"),
        path_of("/libxl/%u", (unsigned)drive.domid),
        path_of("/local/domain/%u/image/device-model-domid", (unsigned)drive.domid),
        path_of("/local/domain/%u/device/vbd/51712/eject", (unsigned)drive.domid),
        path_of("/local/domain/0/backend/qdisk/%u/%u/script", (unsigned)drive.domid, (unsigned)drive.devid),
        path_of("/local/domain/%u/device/vbd/5632/eject", (unsigned)plug.domid),
        "/tool/xenstored",
    };
    size_t i;

    CHECK_EQUAL(guest_write(guest, node(drive, "eject"), "x"), 0);
    CHECK(holds(drive, "eject", "x"));
    CHECK_EQUAL(guest_write(guest, node(drive, "new"), "x"), 0);
    CHECK_EQUAL(guest_write(driver, backend_node(&plug, "state"), "5"), 0);
    for (i = 0; i < COUNT(refused); i++)
        if (guest_write(guest, refused[i], "x") != EACCES)
            FAIL("a guest may write to %s", refused[i]);
    CHECK_EQUAL(guest_write(driver, path_of("%s/backend", libxl_node_of(&plug)), "x"), EACCES);
    CHECK_EQUAL(guest_write(driver, path_of("%s/state", frontend_of(&plug)), "x"), EACCES);
    guest_close(guest);
    guest_close(driver);
}

static const struct {
    const char *value;
    size_t length;
} odd_values[] = {
#define BYTES(text) { text, sizeof(text) - 1 }
    BYTES(""),
    BYTES("\0"),
    BYTES("\0eject"),
    BYTES("eject "),
    BYTES("ejec"),
    BYTES("eject\n"),
    BYTES("EJECT"),
    BYTES("\xff\xfe\xc3\x28"),
    BYTES("../../../../../etc/passwd"),
    BYTES("%s%n%s%n%p"),
    BYTES("$(reboot);`reboot`|reboot&&reboot"),
    BYTES("\x1b[2J\x1b]0;root\x07\r\nxl: all is well"),
    BYTES("-1"),
    BYTES("99999999999999999999"),
    BYTES("/local/domain/0/backend/vbd/0/51712"),
#undef BYTES
};

TEST_WITH(whatever_a_guest_writes_to_its_drive_gives_an_ejection_or_nothing, HOSTILE)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = guests_drive(), other = guests_drive();
    struct guest *guest = guest_open(drive.domid);
    static const char *const nodes[] = { "eject", "backend", "dev", "state", "eject/eject", "" };
    static const size_t lengths[] = { 1, 255, 1900, 2048, 4000 };
    static char longest[4000];
    size_t i, j;

    enable_eject(ctx, drive.domid, "hdc", 1);
    enable_eject(ctx, other.domid, "hdc", 2);
    expect_silence(ctx);
    memset(longest, 'e', sizeof longest);
    for (j = 0; j < COUNT(nodes); j++) {
        char path[100];

        snprintf(path, sizeof path, "%s", node(drive, nodes[j]));
        if (!nodes[j][0])
            path[strlen(path) - 1] = 0;
        for (i = 0; i < COUNT(odd_values); i++)
            CHECK_EQUAL(guest_write_bytes(guest, path, odd_values[i].value, odd_values[i].length), 0);
        expect_silence(ctx);
        for (i = 0; i < COUNT(lengths); i++) {
            int refused = guest_write_bytes(guest, path, longest, lengths[i]);

            /* Its quota says how long a value may be. */
            CHECK(refused == 0 || lengths[i] >= 1900);
        }
        expect_silence(ctx);
    }
    CHECK_EQUAL(guest_write(guest, node(drive, "eject"), "eject"), 0);
    expect_eject(ctx, drive.domid, 1);
    /* The whole frontend goes. */
    CHECK_EQUAL(guest_remove(guest, path_of("/local/domain/%u/device/vbd/%u", (unsigned)drive.domid, HDC)), 0);
    expect_silence(ctx);
    eject(other);
    expect_eject(ctx, other.domid, 2);
    CHECK_EQUAL(logged_lines, 0);
    guest_close(guest);
    close_context(ctx);
}

/* ---- without end ---- */

static unsigned long kilobytes(void)
{
    unsigned long size, resident;
    FILE *file = fopen("/proc/self/statm", "r");

    CHECK(file && fscanf(file, "%lu %lu", &size, &resident) == 2);
    fclose(file);
    return resident * (unsigned long)sysconf(_SC_PAGESIZE) / 1024;
}

/*
 * What the process has from the allocator and has not given back. How much it had meanwhile is another matter: libxenstore's
 * thread reads what it is sent, as fast as it is sent, so that depends on how long the loop has to wait for the processor.
 */
static unsigned long kilobytes_in_use(void)
{
    struct mallinfo2 all = mallinfo2();

    return (all.uordblks + all.hblkhd) / 1024;
}

struct storm {
    uint32_t domid;
    const char *path, *value, *other;
    unsigned long times;
    int over;
};

static void *rage(void *arg)
{
    struct storm *storm = arg;
    struct guest *guest = guest_open(storm->domid);
    unsigned long left = storm->times;

    while (left > 0 && !__atomic_load_n(&storm->over, __ATOMIC_ACQUIRE)) {
        unsigned long some = left < 8 ? left : 8;

        guest_write_often(guest, storm->path, storm->value, some);
        if (storm->other)
            guest_write_often(guest, storm->path, storm->other, 1);
        left -= some;
    }
    __atomic_store_n(&storm->over, 1, __ATOMIC_RELEASE);
    guest_close(guest);
    return NULL;
}

static unsigned long take_ejections(libxl_ctx *ctx, uint32_t domid)
{
    unsigned long taken = 0;
    libxl_event *event;

    for (; libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL) == 0; taken++) {
        check_eject(event, domid, 1, "hdc", "hdc");
        libxl_event_free(ctx, event);
    }
    return taken;
}

/* The application takes its events: then nothing is kept of what was written. */
TEST_WITH(a_guest_that_ejects_without_end_takes_no_memory, HOSTILE | NOT_UNDER_VALGRIND)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = guests_drive();
    char path[100];
    struct storm storm = { drive.domid, path, "eject", NULL, storm_length(), 0 };
    unsigned long events = 0, before = 0, after;
    struct xlevent_stats stats;
    pthread_t thread;
    bool busy;

    snprintf(path, sizeof path, "%s", node(drive, "eject"));
    enable_eject(ctx, drive.domid, "hdc", 1);
    thread = start_thread(rage, &storm);
    while (!__atomic_load_n(&storm.over, __ATOMIC_ACQUIRE)) {
        poll_once(ctx, 10);
        events += take_ejections(ctx, drive.domid);
        if (before == 0)
            before = kilobytes_in_use();
    }
    finish_thread(thread);
    do {
        receive_all();
        for (busy = false; poll_once(ctx, 0); busy = true)
            events += take_ejections(ctx, drive.domid);
    } while (busy);
    after = kilobytes_in_use();
    CHECK_EQUAL(xlevent_stats(ctx, &stats, sizeof stats), 0);
    printf("FIGURE ejections written %lu, told %lu, most queued at once %llu, memory in use %lu -> %lu KiB\n", storm.times, events,
           (unsigned long long)stats.events_queued_most, before, after);
    CHECK_AT_LEAST(events, 1);
    CHECK_AT_MOST(events, storm.times);
    CHECK_AT_MOST(stats.events_queued_most, 2);
    /* What the allocator keeps ready for its threads; not something for each write. */
    CHECK_AT_MOST(after, before + 512);
    CHECK_EQUAL(logged_lines, 0);
    close_context(ctx);
}

/* What has been written while the application was busy elsewhere is one look, and one ejection. */
TEST_WITH(a_storm_that_nobody_has_looked_at_is_few_looks, HOSTILE)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = guests_drive();
    struct guest *guest = guest_open(drive.domid);
    unsigned long writes = storm_length(), before;
    struct xlevent_stats first, last;

    enable_eject(ctx, drive.domid, "hdc", 1);
    expect_silence(ctx);
    CHECK_EQUAL(xlevent_stats(ctx, &first, sizeof first), 0);
    before = kilobytes();
    guest_write_often(guest, node(drive, "eject"), "eject", writes);
    receive_all();
    printf("FIGURE writes that nobody has looked at %lu, memory %lu -> %lu KiB\n", writes, before, kilobytes());
    expect_eject(ctx, drive.domid, 1);
    expect_silence(ctx);
    CHECK_EQUAL(xlevent_stats(ctx, &last, sizeof last), 0);
    printf("FIGURE looks for them %llu\n", (unsigned long long)(last.drive_looks - first.drive_looks));
    /* So many at a time are taken in at least; and the acknowledgement fires too. */
    CHECK_AT_MOST(last.drive_looks - first.drive_looks, 3 + writes / 1000);
    guest_close(guest);
    close_context(ctx);
}

/* A domain's own events are not kept back by another's storm. */
TEST_WITH(a_storm_of_one_guest_keeps_no_event_of_anothers_back, HOSTILE)
{
    libxl_ctx *ctx = open_context();
    struct drive drive = guests_drive(), other = guests_drive();
    char path[100];
    struct storm storm = { drive.domid, path, "eject", "noise", ~0ul, 0 };
    uint32_t domid = host_create();
    bool died = false, ejected = false;
    pthread_t thread;

    snprintf(path, sizeof path, "%s", node(drive, "eject"));
    enable_eject(ctx, drive.domid, "hdc", 1);
    enable_eject(ctx, other.domid, "hdc", 2);
    enable(ctx, domid, 3);
    thread = start_thread(rage, &storm);
    libxl_event_free(ctx, wait_event(ctx));
    eject(other);
    host_destroy(domid);
    while (!died || !ejected) {
        libxl_event *event = wait_event(ctx);

        died |= event->type == LIBXL_EVENT_TYPE_DOMAIN_DEATH && event->domid == domid;
        ejected |= event->type == LIBXL_EVENT_TYPE_DISK_EJECT && event->domid == other.domid;
        libxl_event_free(ctx, event);
    }
    __atomic_store_n(&storm.over, 1, __ATOMIC_RELEASE);
    finish_thread(thread);
    close_context(ctx);
}

/* ---- driver domains ---- */

/* It may write a script, and what goes with one, into its backend's directory: that is for its own domain. */
TEST_WITH(a_driver_domain_has_no_command_run_here, HOSTILE)
{
    libxl_ctx *ctx = open_context();
    uint32_t driver_domain;
    struct plug plug = driver_domains_disk(&driver_domain);
    struct guest *driver = guest_open(driver_domain);
    struct note note;
    libxl_asyncop_how how = told_to(&note);

    /* The node is the control domain's until it has been written; then it is handed over. */
    plug_script(&plug, "exit 0");
    give_node(backend_node(&plug, "script"), driver_domain, plug.domid);
    CHECK_EQUAL(guest_write(driver, backend_node(&plug, "params"), "$(touch /tmp/evil)"), 0);
    CHECK_EQUAL(guest_write(driver, backend_node(&plug, "type"), "vif_ioemu"), 0);
    CHECK_EQUAL(guest_write(driver, backend_node(&plug, "hotplug-status"), "connected"), 0);
    CHECK_EQUAL(guest_write(driver, backend_node(&plug, "hotplug-error"), "\x1b[2J\nroot"), 0);
    CHECK_EQUAL(begin_removal(ctx, &plug, XLEVENT_FORCE_LATE, &how), 0);
    CHECK_EQUAL(guest_write(driver, backend_node(&plug, "state"), "6"), 0);
    expect_silence(ctx);
    CHECK_EQUAL(note.calls, 0);
    CHECK_EQUAL(guest_remove(driver, backend_of(&plug)), 0);
    CHECK_EQUAL(await_end(ctx, &note), 0);
    CHECK_EQUAL(script_runs(&plug), 0);
    CHECK(is_removed(&plug));
    guest_close(driver);
    close_context(ctx);
}

/* Any states, in any order, as fast as it can: until the time is up, and no longer. */
TEST_WITH(a_driver_domain_that_never_comes_to_rest_is_not_waited_for, HOSTILE | NOT_UNDER_VALGRIND)
{
    libxl_ctx *ctx = open_context();
    uint32_t driver_domain;
    struct plug plug = driver_domains_disk(&driver_domain);
    char path[100];
    struct storm storm = { driver_domain, path, "4", "5", ~0ul, 0 };
    struct note note;
    libxl_asyncop_how how = told_to(&note);
    unsigned long before = kilobytes_in_use();
    pthread_t thread;
    int rc;

    log_quietly = true;
    snprintf(path, sizeof path, "%s", backend_node(&plug, "state"));
    thread = start_thread(rage, &storm);
    CHECK_EQUAL(begin_removal(ctx, &plug, XLEVENT_FORCE_NEVER, &how), 0);
    rc = await_end(ctx, &note);
    /* It was told to close and never did; or it kept that from being written down. */
    CHECK(rc == ERROR_TIMEDOUT || rc == ERROR_FAIL);
    CHECK(is_whole(&plug));
    __atomic_store_n(&storm.over, 1, __ATOMIC_RELEASE);
    finish_thread(thread);
    /* When it has come to rest, it can be removed. */
    put_node(path, "4");
    driver_domain_closes(&plug);
    CHECK_EQUAL(remove_now(ctx, &plug, XLEVENT_FORCE_NEVER), 0);
    CHECK(is_removed(&plug));
    expect_silence(ctx);
    printf("FIGURE memory in use %lu -> %lu KiB\n", before, kilobytes_in_use());
    CHECK_AT_MOST(kilobytes_in_use(), before + 512);
    close_context(ctx);
}

/* As full as its quotas let it make them: the names in a directory are part of what is counted. */
TEST_WITH(directories_that_a_driver_domain_has_filled_are_no_trouble, HOSTILE)
{
    libxl_ctx *ctx = open_context();
    uint32_t driver_domain;
    struct plug plug = driver_domains_disk(&driver_domain);
    struct guest *driver = guest_open(driver_domain);
    const char *const directories[] = {
        strdup(path_of("/local/domain/%u/backend/vbd/%u", (unsigned)driver_domain, (unsigned)plug.domid)),
        strdup(backend_of(&plug)),
    };
    struct note note;
    libxl_asyncop_how how = told_to(&note);
    size_t i, made = 0;

    for (i = 0; i < 1000; i++)
        made += guest_write(driver, path_of("%s/%zu", directories[i % 2], i), "") == 0;
    printf("FIGURE nodes of a driver domain's %zu\n", made);
    CHECK_AT_LEAST(made, 100);
    CHECK_EQUAL(begin_removal(ctx, &plug, XLEVENT_FORCE_NEVER, &how), 0);
    CHECK_EQUAL(guest_write(driver, backend_node(&plug, "state"), "6"), 0);
    expect_silence(ctx);
    CHECK_EQUAL(guest_remove(driver, backend_of(&plug)), 0);
    CHECK_EQUAL(await_end(ctx, &note), 0);
    CHECK(is_removed(&plug));
    free((void *)directories[0]);
    free((void *)directories[1]);
    guest_close(driver);
    close_context(ctx);
}

/* A guest fills its frontend: it is removed with all that is in it. */
TEST_WITH(a_frontend_that_its_guest_has_filled_is_removed, HOSTILE)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk();
    struct guest *guest = guest_open(disk.domid);
    size_t i, made = 0;

    give_node(frontend_of(&disk), disk.domid, 0);
    for (i = 0; i < 600; i++)
        made += guest_write(guest, path_of("%s/%zu/%zu", frontend_of(&disk), i % 10, i), "../../../0") == 0;
    CHECK_AT_LEAST(made, 100);
    backend_closes(&disk);
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_LATE), 0);
    CHECK(is_removed(&disk));
    /* And can't be made again by it. */
    CHECK(guest_write(guest, path_of("%s/state", frontend_of(&disk)), "1") != 0);
    guest_close(guest);
    close_context(ctx);
}

/* ---- the log ---- */

static char last_line[8192];
static int lines;

static void keep_line(xentoollog_logger *to, xentoollog_level level, int errnoval, const char *context,
                      const char *format, va_list arguments)
{
    const unsigned char *byte;

    (void)to, (void)errnoval, (void)context;
    CHECK_AT_MOST(vsnprintf(last_line, sizeof last_line, format, arguments), 1200);
    for (byte = (unsigned char *)last_line; *byte; byte++)
        if (*byte < 0x20 || *byte == 0x7f)
            FAIL("byte %#x in a line of the log", *byte);
    lines += level >= XTL_ERROR;
}

static xentoollog_logger line_keeper = { keep_line, NULL, NULL };

/* What libxenlight writes is its own. */
TEST_WITH(what_is_quoted_in_the_log_can_neither_end_its_line_nor_command_a_terminal,
          HOSTILE | NOT_BESIDE_LIBXENLIGHT)
{
    static const char evil[] = "\nxl: \x1b[2J\x1b]0;x\x07\r\x7f all is well";
    static char longest[3900];
    libxl_ctx *ctx = NULL;
    struct plug disk = plug_disk();
    char backend[200];

    CHECK_EQUAL(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &line_keeper), 0);

    /* Where the backend is: the toolstack's own, and yet. */
    snprintf(backend, sizeof backend, "%s", backend_of(&disk));
    put_node(path_of("%s/backend", libxl_node_of(&disk)), evil);
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_NOW), ERROR_FAIL);
    CHECK_EQUAL(lines, 1);
    CHECK(strstr(last_line, "all is well"));
    put_node(path_of("%s/backend", libxl_node_of(&disk)), backend);

    /* A script that is none. */
    put_node(backend_node(&disk, "state"), "6");
    put_node(backend_node(&disk, "script"), evil);
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_NEVER), ERROR_FAIL);
    CHECK(strstr(last_line, "all is well"));

    /* One that fails, and what it says. */
    plug_script(&disk, "printf '\\n\\033[2J\\0 says all is well'; exit 1");
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_NEVER), ERROR_FAIL);
    CHECK(strstr(last_line, "says all is well"));

    /* What it has left behind. */
    put_node(backend_node(&disk, "hotplug-error"), evil);
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_NEVER), ERROR_FAIL);
    CHECK(strstr(last_line, "all is well") && !strstr(last_line, "says"));
    memset(longest, '\x1b', sizeof longest);
    put_bytes(backend_node(&disk, "hotplug-error"), longest, sizeof longest);
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_NEVER), ERROR_FAIL);
    CHECK_EQUAL(lines, 5);
    CHECK(is_whole(&disk));

    CHECK_EQUAL(libxl_ctx_free(ctx), 0);
}

/* ---- scripts ---- */

/* A script's path is a program, and no command line. */
TEST_WITH(a_scripts_path_reaches_no_shell, HOSTILE)
{
    libxl_ctx *ctx = open_context();
    struct plug disk = plug_disk();
    static const char *const scripts[] = {
        "/bin/sh -c 'touch %s'",
        "/bin/true; touch %s",
        "/bin/true\ntouch %s",
        "/nonexistent/$(touch %s)",
        "/bin/../bin/true && touch %s",
        "",
        "touch %s",
        "%s",
    };
    char touched[150];
    struct stat status;
    size_t i;

    snprintf(touched, sizeof touched, "%s/touched-%d", getenv("XENSTORED_RUNDIR"), (int)getpid());
    log_quietly = true;
    put_node(backend_node(&disk, "state"), "6");
    for (i = 0; i < COUNT(scripts); i++) {
        char script[300];

        snprintf(script, sizeof script, scripts[i], touched);
        put_node(backend_node(&disk, "script"), script);
        CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_NEVER), ERROR_FAIL);
        CHECK(is_whole(&disk));
        CHECK(stat(touched, &status) < 0);
    }
    /* It can say so if one does. */
    plug_script(&disk, path_of("touch %s", touched));
    CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_NEVER), 0);
    CHECK_EQUAL(stat(touched, &status), 0);
    CHECK_EQUAL(unlink(touched), 0);
    close_context(ctx);
}
