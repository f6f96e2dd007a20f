/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The driver of a storm. See storm.h.
 *
 * usage: storm restarts|live-updates COUNT SEED [lose|repeat]
 *
 * One thread alone does things to the host, so that nothing happens to a domain between a daemon's start and its being
 * told of the domains: of that it could never tell. As on a real host, no domain is created or resumed while xenstored is
 * away; they shut down, are killed and go.
 */
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/column.h"
#include "harness/host.h"
#include "storm.h"

extern char **environ;

/* The life in each slot, 0 for none. The first slot's is everyone's witness. */
static int in_slot[SLOTS];
static unsigned living;
static uint64_t outages, live_updates;
/* Since when not all may have known again that xenstored is there, 0 while they do; and the longest such time. */
static uint64_t unsure_since_ms, longest_ms;
/* After so long without xenstored, which nobody means to bring about here, a disaster is in order. */
enum { DISASTER_AFTER_MS = 59000 };

/* ---- domains ---- */

/* Two numbers for each slot: most are used again by the next domain at once, some after a while. */
static void create(unsigned slot)
{
    uint32_t domid = 100 + slot + (one_in(3) ? 1000 : 0);
    int life = begin_life(slot, domid);
    uint8_t uuid[16];

    uuid_of(life, uuid);
    host_create_with_uuid_at(domid, uuid);
    has_begun(life);
    in_slot[slot] = life;
    living++;
    enable_for(slot, life);
}

static void destroy(unsigned slot)
{
    int life = in_slot[slot];

    if (state_of(life) != DEAD)
        note_state(life, DEAD);
    host_destroy(domid_of(life));
    in_slot[slot] = 0;
    living--;
}

static void kill_domain(int life)
{
    note_state(life, DEAD);
    host_kill(domid_of(life));
}

static void shut_down(int life, int reason)
{
    note_state(life, reason);
    host_shutdown(domid_of(life), reason);
}

/* Another for each of a number's lives: two that have shut down for one reason can't be told apart on this host. */
static int reason_of(int life)
{
    int reason = life % 251;

    return reason == REASON_SUSPEND ? 251 : reason;
}

/* The next step in the life of whatever is in a slot. */
static void go_on(unsigned slot, bool served)
{
    int life = in_slot[slot];

    if (!life) {
        if (served)
            create(slot);
        return;
    }
    switch (state_of(life)) {
    case RUNNING:
        switch (below(10)) {
        case 0 ... 2: shut_down(life, reason_of(life)); return;
        case 3 ... 6: shut_down(life, can_live_on(life) ? REASON_SUSPEND : reason_of(life)); return;
        case 7: kill_domain(life); return;
        default: destroy(slot); return;
        }
    case REASON_SUSPEND:
        if (!one_in(4)) {
            if (served) {
                note_state(life, RUNNING);
                host_resume(domid_of(life));
            }
            return;
        }
        /* fall through */
    default:
        if (state_of(life) != DEAD && one_in(3))
            kill_domain(life);
        else
            destroy(slot);
    }
}

static void stir(unsigned most, bool served)
{
    unsigned count = below(most + 1);

    while (count--)
        go_on(1 + below(SLOTS - 1), served);
}

/* At least a hundred, and a witness. */
static void populate(void)
{
    unsigned slot;

    if (!in_slot[0])
        create(0);
    for (slot = 1; slot < SLOTS && living < 102; slot++)
        if (!in_slot[slot])
            create(slot);
}

static void await_quiet(void)
{
    await_toolstack();
    /* Who has told of its end has looked at all domains after all that has happened. */
    if (in_slot[0])
        destroy(0);
    host_settle();
    await_truth();
    check_logs();
    if (unsure_since_ms && now_ms() - unsure_since_ms > longest_ms)
        longest_ms = now_ms() - unsure_since_ms;
    unsure_since_ms = 0;
}

/* ---- xenstored ---- */

static void kill_daemon(void)
{
    if (!unsure_since_ms)
        unsure_since_ms = now_ms();
    host_kill_xenstored();
}

static void start_daemon(void)
{
    host_start_xenstored();
    outages++;
}

static void let_time_pass(void)
{
    /* Once in a while longer than several pauses of those that look for it. */
    if (one_in(40))
        usleep(400000 + below(1200000));
    else if (!one_in(3))
        usleep(below(30000));
}

/* In the middle of something: of a look, of an enable, of the taking in of what has fired. */
static void strike(void)
{
    stir(10, true);
    if (!one_in(4))
        usleep(below(1500));
}

static void restart_round(void)
{
    bool stopped = one_in(4);

    strike();
    if (stopped) {
        host_stop_xenstored();
        stir(10, false);
        let_time_pass();
        if (one_in(2)) {
            host_continue_xenstored();
            strike();
        }
    }
    kill_daemon();
    stir(20, false);
    let_time_pass();
    stir(5, false);
    start_daemon();
    if (one_in(6)) {
        strike();
        kill_daemon();
        stir(10, false);
        start_daemon();
    }
    stir(15, true);
}

/* The daemon replaces itself, while domains come and go. */
static void live_update_round(void)
{
    char *const arguments[] = { getenv("STORM_CONTROL"), "live-update", "-c", "-N", getenv("STORM_XENSTORED"), NULL };
    int status;
    pid_t pid;

    CHECK(arguments[0] && arguments[4]);
    strike();
    CHECK(posix_spawn(&pid, arguments[0], NULL, NULL, arguments, environ) == 0);
    do {
        stir(6, true);
    } while (waitpid(pid, &status, WNOHANG) == 0);
    if (status != 0)
        FAIL("live-update ends with %#x", (unsigned)status);
    live_updates++;
    stir(10, true);
}

int main(int argc, char **argv)
{
    bool updates = argc > 1 && strcmp(argv[1], "live-updates") == 0;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 0) : 40, seed = argc > 3 ? strtoull(argv[3], NULL, 0) : 1;
    struct outages logs;
    struct tally sums;
    uint64_t quiet = 0;
    int fds;

    find_column();
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 4) {
        spoil = strcmp(argv[4], "lose") == 0 ? SPOILT_BY_LOSS : SPOILT_BY_REPETITION;
        /* What is lost is waited for in vain. */
        if (spoil == SPOILT_BY_LOSS)
            patience_s = 10;
    }
    printf("    seed %llu\n", (unsigned long long)seed);
    chance = seed;
    unsetenv("LD_PRELOAD");
    host_bring_up();
    fds = count_fds();
    start_observers(seed);
    while (updates ? live_updates < count : outages < count) {
        populate();
        if (updates)
            live_update_round();
        else
            restart_round();
        if (!one_in(3)) {
            await_quiet();
            quiet++;
        }
    }
    await_quiet();
    logs = check_logs();
    sums = tally();
    /* On a machine that stands still for a minute, it was away for one. */
    if (logs.disasters && longest_ms < DISASTER_AFTER_MS)
        FAIL("%llu disasters, and never more than %llu ms until all was well again", (unsigned long long)logs.disasters,
             (unsigned long long)longest_ms);
    if (updates && logs.lost)
        FAIL("xenstored was lost %llu times", (unsigned long long)logs.lost);
    if (!updates && !logs.lost)
        FAIL("nobody has noticed any outage");
    stop_observers();
    if (count_fds() != fds) {
        list_fds(stdout);
        FAIL("%d descriptors are left open", count_fds() - fds);
    }
    printf("PASS %llu %s, %u observers: each state that could be seen was told once\n", (unsigned long long)count,
           argv[1], observers());
    printf("FIGURE domains: %llu\n", (unsigned long long)sums.lives);
    printf("FIGURE generators: %llu\n", (unsigned long long)sums.generators);
    printf("FIGURE events: %llu\n", (unsigned long long)sums.events);
    printf("FIGURE times that all was quiet and compared: %llu\n", (unsigned long long)quiet + 1);
    if (!updates) {
        printf("FIGURE times that a context noticed the end of xenstored: %llu\n", (unsigned long long)logs.lost);
        printf("FIGURE times that a context found it again: %llu\n", (unsigned long long)logs.found);
        printf("FIGURE enables that failed and were repeated: %llu\n", (unsigned long long)logs.retries);
        printf("FIGURE longest time from its end until all was told: %llu ms\n", (unsigned long long)longest_ms);
    }
    return 0;
}
