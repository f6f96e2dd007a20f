/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hotplug scripts of operations with devices: what they say, what they leave running, what they end with, and what the log
 * says of all that.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/check.h"
#include "harness/drive.h"
#include "harness/host.h"
#include "harness/ours.h"
#include "harness/plug.h"
#include "harness/store.h"
#include "harness/xl.h"

enum { DEVICES = COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT };

/* ---- a log that is kept ---- */

struct line {
    xentoollog_level level;
    char text[1200];
};

static struct line kept[1000];
static int kept_count;
static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;

static void keep_line(xentoollog_logger *to, xentoollog_level level, int errnoval, const char *context,
                      const char *format, va_list arguments)
{
    (void)to, (void)errnoval;
    if (context && strcmp(context, "xlevent") != 0)
        return;
    pthread_mutex_lock(&kept_lock);
    CHECK(kept_count < (int)COUNT(kept));
    kept[kept_count].level = level;
    CHECK(vsnprintf(kept[kept_count].text, sizeof kept->text, format, arguments) < (int)sizeof kept->text);
    kept_count++;
    pthread_mutex_unlock(&kept_lock);
}

static xentoollog_logger keeper = { keep_line, NULL, NULL };

static libxl_ctx *open_kept(void)
{
    libxl_ctx *ctx = NULL;

    CHECK_EQUAL(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &keeper), 0);
    return ctx;
}

static int times_in(const char *text, const char *part)
{
    int times = 0;

    for (; (text = strstr(text, part)) != NULL; text += strlen(part))
        times++;
    return times;
}

/* In how many lines of this level, or of any, a text is. */
static int logged(xentoollog_level level, const char *part)
{
    int i, count = 0;

    for (i = 0; i < kept_count; i++)
        count += (level == XTL_NONE || kept[i].level == level) && strstr(kept[i].text, part) != NULL;
    return count;
}

/* Lines that can be read one by one, and name their device once. */
static void check_lines(void)
{
    int i;
    const char *character;

    for (i = 0; i < kept_count; i++) {
        if (times_in(kept[i].text, "device vbd") > 1 || times_in(kept[i].text, "domain ") > 1)
            FAIL("it names something twice: %s", kept[i].text);
        for (character = kept[i].text; *character; character++)
            CHECK((unsigned char)*character >= ' ' && *character != 0x7f);
    }
}

/* ---- a script that is run ---- */

static struct plug closed_disk(const char *script)
{
    struct plug disk = plug_disk();

    plug_script(&disk, script);
    put_node(backend_node(&disk, "state"), "6");
    return disk;
}

static int run_script(libxl_ctx *ctx, const char *script)
{
    struct plug disk = closed_disk(script);

    return remove_now(ctx, &disk, XLEVENT_FORCE_LATE);
}

/* ---- what it says ---- */

TEST_WITH(what_a_script_says_is_in_the_log_whatever_it_ends_with, DEVICES)
{
    libxl_ctx *ctx = open_kept();

    CHECK_EQUAL(run_script(ctx, "echo the path is degraded >&2; echo all is well; exit 0"), 0);
    CHECK_EQUAL(kept_count, 2);
    CHECK_EQUAL(logged(XTL_WARN, "the path is degraded"), 1);
    CHECK_EQUAL(logged(XTL_INFO, "all is well"), 1);

    /* The failure has the last word, and all of it is there. */
    kept_count = 0;
    CHECK_EQUAL(run_script(ctx, "echo begun; echo no such bridge >&2; exit 4"), ERROR_FAIL);
    CHECK_EQUAL(kept_count, 2);
    CHECK_EQUAL(logged(XTL_WARN, "begun"), 1);
    CHECK_EQUAL(logged(XTL_ERROR, "status 4: no such bridge"), 1);

    kept_count = 0;
    CHECK_EQUAL(run_script(ctx, "echo so far >&2; kill -KILL $$"), ERROR_FAIL);
    CHECK_EQUAL(logged(XTL_ERROR, "signal 9: so far"), 1);

    /* What explains a failure in xenstore doesn't stand in the way of what was said. */
    kept_count = 0;
    {
        struct plug disk = closed_disk("echo details >&2; exit 1");

        put_node(backend_node(&disk, "hotplug-error"), "the device is busy");
        CHECK_EQUAL(remove_now(ctx, &disk, XLEVENT_FORCE_LATE), ERROR_FAIL);
    }
    CHECK_EQUAL(logged(XTL_WARN, "details"), 1);
    CHECK_EQUAL(logged(XTL_ERROR, "the device is busy"), 1);

    kept_count = 0;
    CHECK_EQUAL(run_script(ctx, "printf 'without an end' >&2"), 0);
    CHECK_EQUAL(logged(XTL_WARN, "without an end"), 1);
    kept_count = 0;
    CHECK_EQUAL(run_script(ctx, "echo; echo >&2; exit 0"), 0);
    CHECK_EQUAL(kept_count, 0);
    check_lines();
    close_context(ctx);
}

TEST_WITH(a_script_that_says_much_is_not_disturbed_and_the_log_is_bounded, DEVICES)
{
    libxl_ctx *ctx = open_kept();

    CHECK_EQUAL(run_script(ctx, "set -e; i=0; while [ $i -lt 20000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"), 0);
    CHECK(kept_count <= 2 * 65);
    CHECK_EQUAL(logged(XTL_INFO, "stdout: out 0"), 1);
    CHECK_EQUAL(logged(XTL_INFO, "stdout: out 19999"), 1);
    CHECK_EQUAL(logged(XTL_WARN, "stderr: err 0"), 1);
    CHECK_EQUAL(logged(XTL_WARN, "stderr: err 19999"), 1);
    CHECK_EQUAL(logged(XTL_WARN, "(19936 more lines)"), 1);

    kept_count = 0;
    CHECK_EQUAL(run_script(ctx, "set -e; head -c 3000000 /dev/zero | tr '\\0' x >&2; echo; echo after >&2"), 0);
    CHECK_EQUAL(kept_count, 1);
    CHECK_EQUAL(logged(XTL_WARN, "xxx... (2999605 more bytes)"), 1);
    /* One big write; other ways to write. */
    kept_count = 0;
    CHECK_EQUAL(run_script(ctx, "set -e; dd if=/dev/zero bs=1M count=3 status=none; echo more >/dev/stderr; echo again >>/dev/stdout"), 0);
    CHECK_EQUAL(logged(XTL_WARN, "stderr: more"), 1);
    CHECK_EQUAL(logged(XTL_INFO, "more bytes"), 1);

    kept_count = 0;
    CHECK_EQUAL(run_script(ctx, "head -c 300000 /dev/urandom; printf '\\033[2J\\a\\nxl: fine\\r\\n' >&2"), 0);
    CHECK_EQUAL(logged(XTL_WARN, "stderr: \\u{1b}[2J\\u{7}"), 1);
    CHECK_EQUAL(logged(XTL_WARN, "stderr: xl: fine"), 1);
    check_lines();
    close_context(ctx);
}

TEST_WITH(what_a_script_has_said_that_is_called_off_is_in_the_log, DEVICES)
{
    libxl_ctx *ctx = open_kept();
    struct plug disk = closed_disk("trap '' TERM; echo it hangs >&2; while :; do sleep 0.1; done");
    struct plug at_the_end = closed_disk("echo it hangs too >&2; while :; do sleep 0.1; done");
    struct note notes[2];
    libxl_asyncop_how hows[2] = { told_to(&notes[0]), told_to(&notes[1]) };

    CHECK_EQUAL(begin_removal(ctx, &disk, XLEVENT_FORCE_LATE, &hows[0]), 0);
    while (script_runs(&disk) == 0)
        poll_once(ctx, 10);
    CHECK_EQUAL(xlevent_ao_abort(ctx, &hows[0]), 0);
    CHECK_EQUAL(await_end(ctx, &notes[0]), ERROR_ABORTED);
    CHECK_EQUAL(logged(XTL_WARN, "it hangs"), 1);
    CHECK_EQUAL(begin_removal(ctx, &at_the_end, XLEVENT_FORCE_LATE, &hows[1]), 0);
    while (script_runs(&at_the_end) == 0)
        poll_once(ctx, 10);
    close_context(ctx);
    CHECK_EQUAL(notes[1].rc, ERROR_ABORTED);
    check_lines();
}

/* ---- what it leaves running ---- */

/*
 * A script that leaves a daemon with both of its outputs, which tells in a file how many lines it could write to each, with a
 * pause of so many seconds after each. It ends with the test.
 */
static const char *daemon_script(const char *file, int pause)
{
    static char script[6000];

    snprintf(script, sizeof script,
             "(i=0; while [ -d /proc/%d ]; do i=$((i+1)); echo 1234567890123456789012345678901234567890 && echo x >&2 || exit;"
             " echo $i >%s; [ %d = 0 ] || sleep %d; done) &", (int)getpid(), file, pause, pause);
    return script;
}

static const char *progress_file(int number)
{
    return path_of("%s/daemon-%d-%d", getenv("XENSTORED_RUNDIR"), (int)getpid(), number);
}

static int progress(const char *file)
{
    FILE *stream = fopen(file, "r");
    int lines = 0;

    if (stream) {
        if (fscanf(stream, "%d", &lines) != 1)
            lines = 0;
        fclose(stream);
    }
    return lines;
}

/* So much goes on being written that no pipe would hold it. */
static void check_goes_on(const char *file, int lines)
{
    int before = progress(file);

    WAIT_UNTIL(progress(file) > before + lines);
}

static long resident_kib(void)
{
    FILE *stream = fopen("/proc/self/statm", "r");
    long size, resident;

    CHECK(stream != NULL);
    CHECK_EQUAL(fscanf(stream, "%ld %ld", &size, &resident), 2);
    fclose(stream);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

TEST_WITH(a_daemon_that_a_script_starts_lives_on_and_costs_nothing, DEVICES | NOT_UNDER_VALGRIND)
{
    libxl_ctx *ctx = open_context();
    char file[100];
    long memory;
    int before;

    strcpy(file, progress_file(0));
    /* All that a first operation may leave is there. */
    CHECK_EQUAL(run_script(ctx, "exit 0"), 0);
    before = count_fds();
    CHECK_EQUAL(run_script(ctx, daemon_script(file, 0)), 0);
    CHECK_EQUAL(count_fds(), before);
    memory = resident_kib();
    check_goes_on(file, 10000);
    CHECK(resident_kib() < memory + 4096);
    expect_silence(ctx);
    /* No child of ours has anything to do with it. */
    CHECK_EQUAL(waitpid(-1, NULL, WNOHANG | __WALL), -1);
    close_context(ctx);
    check_goes_on(file, 10000);
}

TEST_WITH(fifty_daemons_cost_no_descriptors, DEVICES | NOT_UNDER_VALGRIND)
{
    enum { MANY = 50 };
    libxl_ctx *ctx = open_context();
    char files[MANY][100];
    int lines[MANY], before, i;

    CHECK_EQUAL(run_script(ctx, "exit 0"), 0);
    before = count_fds();
    for (i = 0; i < MANY; i++) {
        strcpy(files[i], progress_file(i));
        CHECK_EQUAL(run_script(ctx, daemon_script(files[i], 1)), 0);
    }
    CHECK_EQUAL(count_fds(), before);
    for (i = 0; i < MANY; i++)
        lines[i] = progress(files[i]);
    for (i = 0; i < MANY; i++)
        WAIT_UNTIL(progress(files[i]) > lines[i] + 1);
    close_context(ctx);
}

/* ---- SIGCHLD ---- */

static void reap_all(int number)
{
    int before = errno;

    (void)number;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        continue;
    errno = before;
}

static void nothing(int number)
{
    (void)number;
}

/* Linux 6.15 and later, which valgrind doesn't let one ask. */
static bool kernel_keeps_statuses(void)
{
    struct utsname name;
    int major = 0, minor = 0;

    CHECK_EQUAL(uname(&name), 0);
    CHECK_EQUAL(sscanf(name.release, "%d.%d", &major, &minor), 2);
    return !getenv("CTESTS_VALGRIND") && (major > 6 || (major == 6 && minor >= 15));
}

/* In default mode the library is to have SIGCHLD while it has children. Applications do otherwise. */
TEST_WITH(by_default_an_applications_use_of_SIGCHLD_is_one_line_at_most_and_scripts_end_right, DEVICES)
{
    void (*const handlers[])(int) = { SIG_IGN, nothing, reap_all };
    size_t i;
    int round;

    for (i = 0; i < COUNT(handlers); i++) {
        libxl_ctx *ctx = open_kept();
        bool known = kernel_keeps_statuses() || handlers[i] == nothing;

        kept_count = 0;
        CHECK(signal(SIGCHLD, handlers[i]) != SIG_ERR);
        for (round = 0; round < 3; round++) {
            int good = run_script(ctx, "exit 0"), bad = run_script(ctx, "exit 3");

            CHECK(good == 0 || (!known && good == ERROR_FAIL));
            CHECK_EQUAL(bad, ERROR_FAIL);
        }
        CHECK(logged(XTL_NONE, "SIGCHLD") <= 1);
        CHECK_EQUAL(logged(XTL_ERROR, "SIGCHLD"), 0);
        if (known) {
            CHECK_EQUAL(logged(XTL_ERROR, "has failed with status 3"), 3);
            CHECK_EQUAL(logged(XTL_ERROR, ""), 3);
        }
        close_context(ctx);
    }
}

/* ---- names ---- */

TEST_WITH(the_log_names_a_device_once_in_a_line, DEVICES)
{
    libxl_ctx *ctx = open_kept();
    struct plug gone = plug_disk(), stays = plug_disk(), no_path = closed_disk("");
    struct xlevent_device twice[] = { { stays.kind, stays.devid }, { stays.kind, stays.devid } };
    struct note notes[2];
    libxl_asyncop_how hows[2] = { told_to(&notes[0]), told_to(&notes[1]) };
    char named[100];

    put_node(backend_node(&gone, "state"), "1");
    CHECK_EQUAL(xlevent_device_wait_ready(ctx, gone.domid, gone.kind, gone.devid, &hows[0]), 0);
    CHECK_EQUAL(begin_removal(ctx, &stays, XLEVENT_FORCE_NEVER, &hows[1]), 0);
    remove_node(backend_of(&gone));
    CHECK_EQUAL(await_end(ctx, &notes[0]), ERROR_FAIL);
    snprintf(named, sizeof named, "device vbd 51712 of domain %u: the backend was removed", (unsigned)gone.domid);
    CHECK_EQUAL(logged(XTL_ERROR, named), 1);
    CHECK_EQUAL(begin_removal(ctx, &stays, XLEVENT_FORCE_NEVER, NULL), ERROR_INVAL);
    CHECK_EQUAL(logged(XTL_ERROR, "under way"), 1);
    CHECK_EQUAL(xlevent_devices_remove(ctx, stays.domid, twice, 2, XLEVENT_FORCE_NEVER, NULL), ERROR_INVAL);
    CHECK_EQUAL(xlevent_device_remove(ctx, stays.domid, stays.kind, 5, XLEVENT_FORCE_NEVER, NULL), ERROR_NOTFOUND);
    CHECK_EQUAL(xlevent_device_remove(ctx, NOBODY, stays.kind, 5, XLEVENT_FORCE_NEVER, NULL), ERROR_DOMAIN_NOTFOUND);
    put_node(backend_node(&no_path, "script"), "block");
    CHECK_EQUAL(remove_now(ctx, &no_path, XLEVENT_FORCE_NEVER), ERROR_FAIL);
    put_node(backend_node(&no_path, "script"), "/nowhere/block");
    CHECK_EQUAL(remove_now(ctx, &no_path, XLEVENT_FORCE_NEVER), ERROR_FAIL);
    CHECK_EQUAL(await_end(ctx, &notes[1]), ERROR_TIMEDOUT);
    CHECK_EQUAL(logged(XTL_ERROR, "has not closed"), 1);
    check_lines();
    close_context(ctx);
}
