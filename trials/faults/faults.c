/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lets one call after another fail, in what programs do with libxlevent, and judges what the program saw.
 *
 * usage: faults --list COLUMN short|long
 *        faults COLUMN short|long SEED [SCENARIO [FAULT]]
 *   COLUMN     alone or beside: what the process has loaded
 *   SCENARIO   only this one; FAULT: only this, as a failure names it
 *
 * A scenario is a short program that waits for events of its own doing. It runs in a process of its own, first with a
 * fault, then once more without. What is asked of the first run:
 *
 *   - it comes to its end: no signal, no exit of the library's, and nothing that waits for ever;
 *   - each event that was due has come, once; or the application was told: by the value of a call, by the disaster hook, or,
 *     where neither is there to be had, by a line of the log of level error or worse.
 *
 * And of the second: all events, without a word. After it the process holds no descriptor, and the libraries no memory,
 * that they don't hold after two good runs, but for what is kept once for the whole process: more faults leave no more.
 *
 * First a good run counts each function's calls; the first of them all fail, one a run, and of the others a sample that the
 * seed chooses. In the short form all is a sample. See inject.h for whose calls fail.
 */
#include "faults.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

struct run *run;
xensim_host *host;

enum { SCENARIOS_MAX = 20 };

static const char *const told_names[TOLD_COUNT] = { "delivered", "log", "disaster", "value" };

/* ---- faults ---- */

#define E(...) { __VA_ARGS__, -1 }
enum { SHORT = 0 };

/* What can fail, and how. Ends of lists are -1. */
static const struct way {
    enum whose whose;
    enum function function;
    int errnums[8];
} ways[] = {
    { OURS, FN_malloc, E(ENOMEM) },
    { OURS, FN_strdup, E(ENOMEM) },
    { RUSTS, FN_malloc, E(ENOMEM) },
    { RUSTS, FN_calloc, E(ENOMEM) },
    { RUSTS, FN_realloc, E(ENOMEM) },
    { OURS, FN_epoll_create1, E(EMFILE, ENFILE, ENOMEM) },
    { OURS, FN_epoll_ctl, E(ENOMEM, ENOSPC) },
    { OURS, FN_epoll_wait, E(EINTR) },
    { OURS, FN_timerfd_create, E(EMFILE, ENOMEM) },
    { OURS, FN_eventfd, E(EMFILE, ENFILE, ENOMEM) },
    { OURS, FN_poll, E(EINTR, ENOMEM) },
    { OURS, FN_read, E(EINTR, EAGAIN, EIO, SHORT) },
    { OURS, FN_write, E(EINTR, EAGAIN, EIO) },
    { OURS, FN_open, E(EMFILE, ENFILE, ENOMEM, EINTR) },
    { OURS, FN_open64, E(EMFILE, ENFILE, ENOMEM, EINTR) },
    { OURS, FN_fcntl, E(EMFILE) },
    { OURS, FN_pipe2, E(EMFILE, ENFILE) },
    { OURS, FN_socketpair, E(EMFILE, ENFILE, ENOMEM) },
    { OURS, FN_socket, E(EMFILE, ENFILE, ENOBUFS, ENOMEM) },
    { OURS, FN_connect, E(EINTR, EAGAIN, ECONNREFUSED, EACCES) },
    { OURS, FN_send, E(EINTR, EAGAIN, EPIPE) },
    { OURS, FN_recv, E(EINTR, EAGAIN) },
    { OURS, FN_dup2, E(EINTR, EMFILE) },
    { OURS, FN_dup3, E(EINTR, EMFILE) },
    { OURS, FN_fork, E(EAGAIN, ENOMEM) },
    { OURS, FN_execve, E(ENOMEM, EACCES, ENOENT, EMFILE) },
    { OURS, FN_waitpid, E(EINTR) },
    { OURS, FN_pidfd_open, E(EMFILE, ENOSYS, ENOMEM) },
    { OURS, FN_xs_open, E(ENOMEM, EMFILE, EACCES, EAGAIN) },
    { OURS, FN_xs_fileno, E(EMFILE) },
    { OURS, FN_xs_watch, E(ENOMEM, EACCES, ENOSPC, EAGAIN, EIO, E2BIG) },
    { OURS, FN_xs_unwatch, E(ENOMEM, ENOENT, EIO) },
    { OURS, FN_xs_check_watch, E(EAGAIN, ENOMEM) },
    { OURS, FN_xs_read, E(ENOMEM, EACCES, EAGAIN, EIO) },
    { OURS, FN_xs_write, E(ENOMEM, EACCES, ENOSPC, EAGAIN, EIO) },
    { OURS, FN_xs_rm, E(ENOMEM, EACCES, EIO) },
    { OURS, FN_xs_directory, E(ENOMEM, EACCES, EIO) },
    { OURS, FN_xs_set_permissions, E(ENOMEM, EACCES, EIO) },
    { OURS, FN_xs_transaction_start, E(ENOMEM, ENOSPC, EIO) },
    { OURS, FN_xs_transaction_end, E(EAGAIN, ENOSPC, ENOMEM, EIO) },
    { XENS, FN_malloc, E(ENOMEM) },
    { XENS, FN_calloc, E(ENOMEM) },
    { XENS, FN_realloc, E(ENOMEM) },
    { XENS, FN_strdup, E(ENOMEM) },
    { XENS, FN_posix_memalign, E(ENOMEM) },
    { XENS, FN_open, E(EMFILE, ENFILE, EINTR) },
    { XENS, FN_open64, E(EMFILE, ENFILE, EINTR) },
    { XENS, FN_mmap, E(ENOMEM) },
    { XENS, FN_ioctl, E(EINTR, ENOMEM, EFAULT) },
    { XENS, FN_pipe2, E(EMFILE, ENFILE) },
    { XENS, FN_socket, E(EMFILE, ENFILE) },
    { XENS, FN_connect, E(EAGAIN, ECONNREFUSED) },
    { XENS, FN_read, E(EINTR, EIO, SHORT) },
    { XENS, FN_write, E(EINTR, SHORT) },
    { XENS, FN_pthread_create, E(EAGAIN) },
};

/* Hypercalls, which the simulated host fails. */
static const int hypercall_errnums[] = { EINTR, EAGAIN, EBUSY, ENOMEM, EPERM, EACCES, EFAULT, EIO, ENOSYS };

static const char *const whose_names[] = { [OURS] = "", [RUSTS] = "rust's ", [XENS] = "xen's " };

/* One of them, chosen. */
struct chosen {
    bool hypercall;
    struct fault fault;
};

static void name_fault(const struct chosen *chosen, char *text, size_t size)
{
    const struct fault *fault = &chosen->fault;
    char times[30] = "";

    if (fault->times != 1)
        snprintf(times, sizeof times, fault->times == ~0ul ? " and all after it" : " and %lu after it", fault->times - 1);
    snprintf(text, size, "%s%s %lu%s: %s", chosen->hypercall ? "" : whose_names[fault->whose],
             chosen->hypercall ? "hypercall" : inject_names[fault->function], fault->first + 1, times,
             fault->errnum == SHORT ? "short" : strerrorname_np(fault->errnum));
}

/* ---- running ---- */

static void clean_up(void)
{
    static uint32_t crowd[CROWD];
    int i, count = run->domid_count < (int)COUNT(run->domids) ? run->domid_count : (int)COUNT(run->domids);

    xensim_clear_faults(host);
    xensim_xenstored(host, XENSIM_XENSTORED_START);
    for (i = 0; i < count; i++)
        xensim_destroy(host, run->domids[i]);
    for (i = 0; i < (int)run->crowd_count; i++)
        crowd[i] = run->crowd_first + (uint32_t)i;
    xensim_destroy_many(host, crowd, run->crowd_count, 0);
    /* What is gone is no error. */
    errno = 0;
}

static void count_calls(void)
{
    int whose, function;

    for (whose = 0; whose < WHOSE_COUNT; whose++)
        for (function = 0; function < FUNCTION_COUNT; function++)
            run->calls[whose][function] = inject_calls((enum whose)whose, (enum function)function);
    run->struck = inject_struck();
    run->hypercalls = xensim_count(host, XENSIM_CALL_GETDOMAININFOLIST);
    inject_where(run->where, sizeof run->where);
}

/* It says where from, before it ends. */
static void on_abort(int signal)
{
    (void)signal;
    inject_where(run->where, sizeof run->where);
}

/* What the program does itself has failed: no fault's doing. */
static void break_off(const char *text)
{
    fprintf(stderr, "    %s\n", text);
    _exit(3);
}

/* In a process of its own. */
static void go(const struct scenario *scenario, const struct chosen *chosen, int times)
{
    on_failure = break_off;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGABRT, on_abort);
    for (; times > 0; times--) {
        memset(run, 0, offsetof(struct run, domids));
        xensim_reset_counts(host);
        if (chosen && chosen->hypercall) {
            const struct xensim_fault fault = { .errnum = chosen->fault.errnum, .times = chosen->fault.times,
                                                .after = chosen->fault.first };

            xensim_inject(host, XENSIM_CALL_GETDOMAININFOLIST, &fault);
        }
        inject_begin(chosen && !chosen->hypercall ? &chosen->fault : NULL);
        scenario->go();
        inject_end();
        xensim_clear_faults(host);
        count_calls();
        if (chosen && chosen->hypercall && run->hypercalls > chosen->fault.first)
            run->struck = 1;
        run->round = 1;
        scenario->go();
    }
    run->fds = count_fds();
    if (getenv("FAULTS_VERBOSE"))
        list_fds(stderr);
    run->places = inject_held(run->held);
    run->ended = true;
    _exit(0);
}

/* Runs it, and returns how the process has ended: its wait status, or -1 if it had to be killed. */
static int run_one(const struct scenario *scenario, const struct chosen *chosen, int times)
{
    int status = 0;
    pid_t pid;
    uint64_t end = now_ms() + (scenario->traits & OPERATES ? WATCHDOG_OF_OPERATIONS_S : WATCHDOG_S) * 1000;

    memset(run, 0, sizeof *run);
    fflush(NULL);
    pid = fork();
    if (pid == 0)
        go(scenario, chosen, times);
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (now_ms() > end) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            status = -1;
            break;
        }
        usleep(300);
    }
    clean_up();
    return status;
}

/* After two good runs. */
static struct {
    int fds;
    struct place held[PLACES_MAX];
    size_t places;
} good[SCENARIOS_MAX];

static unsigned long held_by_good(size_t number, const struct place *place)
{
    size_t i;

    for (i = 0; i < good[number].places; i++)
        if (good[number].held[i].address == place->address && strcmp(good[number].held[i].library, place->library) == 0)
            return good[number].held[i].blocks;
    return 0;
}

static unsigned long runs, hits, failures, by_way[TOLD_COUNT];

/* Every way in which the functions' failures were told, for the table. */
static unsigned long table[COUNT(ways) + 1][TOLD_COUNT];

__attribute__((format(printf, 3, 4))) static void fail(const struct scenario *scenario, const char *name,
                                                       const char *format, ...)
{
    va_list arguments;

    failures++;
    printf("    %s: %s: ", scenario->name, name);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    if (run->where[0])
        printf("        at %s\n", run->where);
    if (run->words[0][0])
        printf("        it was told: %s\n", run->words[0]);
    fflush(stdout);
}

static void judge(const struct scenario *scenario, const struct chosen *chosen, int status, size_t row)
{
    char name[100];

    name_fault(chosen, name, sizeof name);
    runs++;
    if (status == -1) {
        fail(scenario, name, "hangs in round %d", run->round + 1);
        return;
    }
    if (WIFSIGNALED(status)) {
        fail(scenario, name, "ends by signal %d in round %d", WTERMSIG(status), run->round + 1);
        return;
    }
    if (!run->ended) {
        fail(scenario, name, "ends with %d in round %d", WEXITSTATUS(status), run->round + 1);
        return;
    }
    if (run->struck == 0)
        return;
    hits++;
    if (run->came[0] > run->due[0])
        fail(scenario, name, "%d events came, %d were due", run->came[0], run->due[0]);
    if (run->came[0] < run->due[0] && run->told[0] == NOT_TOLD)
        fail(scenario, name, "an event is lost without a word");
    if (run->came[1] != run->due[1] || run->told[1] != NOT_TOLD)
        fail(scenario, name, "what comes after it isn't good: %d events of %d; %s", run->came[1], run->due[1],
             run->words[1]);
    {
        enum told told = run->came[0] >= run->due[0] && run->told[0] <= BY_DISASTER ? NOT_TOLD : run->told[0];

        by_way[told]++;
        table[row][told]++;
    }
    if (getenv("FAULTS_VERBOSE"))
        printf("    %s: %s: %s %s\n", scenario->name, name, told_names[run->told[0]], run->words[0]);
}

/* The first place that holds more blocks than after two good runs, and how many more. */
static unsigned long excess(size_t number, struct place *where)
{
    size_t i;

    for (i = 0; i < run->places; i++) {
        const unsigned long before = held_by_good(number, &run->held[i]);

        if (run->held[i].blocks > before) {
            *where = run->held[i];
            return run->held[i].blocks - before;
        }
    }
    return 0;
}

/* Something may be kept for good once it was needed. What is left each time is lost. */
static void judge_leavings(const struct scenario *scenario, const struct chosen *chosen)
{
    size_t number = (size_t)(scenario - scenarios);
    struct place first, last;
    unsigned long more = excess(number, &first), then;
    char name[100];

    int fds = run->fds - good[number].fds;

    if ((more == 0 && fds <= 0) || run_one(scenario, chosen, 4) != 0)
        return;
    then = excess(number, &last);
    name_fault(chosen, name, sizeof name);
    if (fds > 0 && run->fds - good[number].fds >= fds + 2)
        fail(scenario, name, "descriptors are left open: %d, after four times %d", fds, run->fds - good[number].fds);
    if (then >= more + 2)
        fail(scenario, name, "memory is left: %lu blocks more of %s+0x%lx, after four times %lu of %s+0x%lx", more,
             first.library, first.address, then, last.library, last.address);
}

static const char *only_fault;
static bool is_long;

static void try(const struct scenario *scenario, const struct chosen *chosen, size_t row)
{
    char name[100];

    name_fault(chosen, name, sizeof name);
    if (only_fault ? strncmp(only_fault, name, strlen(only_fault)) != 0 : !is_long && below(100) >= 6)
        return;
    judge(scenario, chosen, run_one(scenario, chosen, 1), row);
    if (run->ended)
        judge_leavings(scenario, chosen);
}

/* Of a function's calls in the long form: this many first ones, and so many others. */
enum { FIRST = 16, OTHERS = 6 };

/*
 * What can't fail for good: memory for two descriptors is the kernel's stack; and libxenstore reads a pipe of its own, over
 * and over until that works.
 */
static bool lasts_never(const struct fault *fault)
{
    return (fault->whose == OURS && fault->function == FN_poll) || (fault->whose == XENS && fault->function == FN_read);
}

/* All that has gone wrong in `calls` calls, at each in its turn. */
static void try_calls(const struct scenario *scenario, struct chosen chosen, unsigned long calls, const int *errnums,
                      size_t count, size_t row)
{
    size_t i;
    unsigned long number;

    for (i = 0; i < count && errnums[i] != -1; i++) {
        chosen.fault.errnum = errnums[i];
        chosen.fault.times = 1;
        for (number = 0; number < calls && number < FIRST + OTHERS; number++) {
            chosen.fault.first = number < FIRST ? number : FIRST + below(calls - FIRST);
            try(scenario, &chosen, row);
        }
        /* One that is named may be any. */
        for (number = 0; only_fault && number < calls; number++) {
            chosen.fault.first = number;
            chosen.fault.times = 3;
            try(scenario, &chosen, row);
            chosen.fault.times = ~0ul;
            if (!lasts_never(&chosen.fault))
                try(scenario, &chosen, row);
        }
        if (only_fault)
            continue;
        /* What interrupts passes. */
        if (errnums[i] == EINTR || errnums[i] == EAGAIN || errnums[i] == SHORT || scenario->traits & RESTARTS)
            continue;
        chosen.fault.times = 3;
        chosen.fault.first = below(calls);
        if (calls > 1)
            try(scenario, &chosen, row);
        if (lasts_never(&chosen.fault))
            continue;
        /* Without xenstored for good there is a disaster after a minute: too long for the short form. */
        if (!is_long && (chosen.fault.whose == XENS || chosen.fault.function >= FN_xs_open))
            continue;
        chosen.fault.times = ~0ul;
        chosen.fault.first = 0;
        if (calls > 0)
            try(scenario, &chosen, row);
        chosen.fault.first = below(calls);
        if (calls > 1)
            try(scenario, &chosen, row);
    }
}

static bool try_scenario(const struct scenario *scenario, const char *column)
{
    unsigned long calls[WHOSE_COUNT][FUNCTION_COUNT], hypercalls;
    size_t i, number = (size_t)(scenario - scenarios);
    unsigned long runs_before = runs, hits_before = hits, failures_before = failures;
    int status = 0;

    /* Some things are made once in a process at times that vary: the most of several. */
    memset(calls, 0, sizeof calls);
    for (i = 0; i < 3; i++) {
        int whose, function;

        status = run_one(scenario, NULL, 1);
        if (status != 0 || run->came[0] != run->due[0] || run->told[0] != NOT_TOLD || run->came[1] != run->due[1]) {
            printf("FAIL faults: %s: %s: without a fault: status %#x, %d events of %d; %s\n", column, scenario->name,
                   (unsigned)status, run->came[0], run->due[0], run->words[0]);
            return false;
        }
        for (whose = 0; whose < WHOSE_COUNT; whose++)
            for (function = 0; function < FUNCTION_COUNT; function++)
                if (run->calls[whose][function] > calls[whose][function])
                    calls[whose][function] = run->calls[whose][function];
        hypercalls = run->hypercalls;
        if (run->fds > good[number].fds)
            good[number].fds = run->fds;
        if (i == 0) {
            memcpy(good[number].held, run->held, sizeof run->held);
            good[number].places = run->places;
        }
    }
    for (i = 0; i < COUNT(ways); i++) {
        struct chosen chosen = { false, { ways[i].function, ways[i].whose, 0, 1, 0 } };

        if (!(scenario->traits & ONLY_MEMORY) || ways[i].whose == RUSTS)
            try_calls(scenario, chosen, calls[ways[i].whose][ways[i].function], ways[i].errnums, COUNT(ways[i].errnums),
                      i);
    }
    if (!(scenario->traits & ONLY_MEMORY)) {
        struct chosen chosen = { true, { FN_malloc, OURS, 0, 1, 0 } };

        try_calls(scenario, chosen, hypercalls, hypercall_errnums, COUNT(hypercall_errnums), COUNT(ways));
    }
    if (failures > failures_before)
        printf("FAIL faults: %s: %s: %lu of %lu runs failed, see above\n", column, scenario->name,
               failures - failures_before, runs - runs_before);
    else
        printf("PASS faults: %s: %s: %lu runs, %lu of them met their fault\n", column, scenario->name, runs - runs_before,
               hits - hits_before);
    fflush(stdout);
    return failures == failures_before;
}

int main(int argc, char **argv)
{
    struct rlimit no_core = { 0, 0 };
    bool good_so_far = true;
    size_t i;

    if (argc == 4 && strcmp(argv[1], "--list") == 0) {
        is_long = strcmp(argv[3], "long") == 0;
        for (i = 0; i < scenario_count; i++)
            if ((is_long || !(scenarios[i].traits & ONLY_MEMORY)) &&
                (!(scenarios[i].traits & ONLY_ALONE) || strcmp(argv[2], "alone") == 0))
                printf("%s\n", scenarios[i].name);
        return 0;
    }
    if (argc < 4) {
        fprintf(stderr, "usage: %s alone|beside short|long SEED [SCENARIO [FAULT]]\n", argv[0]);
        return 2;
    }
    is_long = strcmp(argv[2], "long") == 0;
    chance = strtoull(argv[3], NULL, 0);
    only_fault = argc > 5 ? argv[5] : NULL;
    setrlimit(RLIMIT_CORE, &no_core);
    /* What ends for want of memory says so there. */
    run = mmap(NULL, sizeof *run, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    host = run == MAP_FAILED ? NULL : xensim_up(0);
    if (!host) {
        fprintf(stderr, "no simulated host: %s\n", xensim_error());
        return 2;
    }
    for (i = 0; i < scenario_count; i++) {
        const struct scenario *scenario = &scenarios[i];

        if ((argc > 4 && strcmp(argv[4], scenario->name) != 0) ||
            (scenario->traits & ONLY_ALONE && strcmp(argv[1], "alone") != 0))
            continue;
        good_so_far &= try_scenario(scenario, argv[1]);
    }
    printf("    total runs %lu met %lu", runs, hits);
    for (i = 0; i < TOLD_COUNT; i++)
        printf(" %s %lu", told_names[i], by_way[i]);
    printf("\n");
    if (getenv("FAULTS_TABLE"))
        for (i = 0; i <= COUNT(ways); i++)
            printf("    table %s%s: delivered %lu log %lu disaster %lu value %lu\n",
                   i == COUNT(ways) ? "" : whose_names[ways[i].whose],
                   i == COUNT(ways) ? "hypercall" : inject_names[ways[i].function], table[i][NOT_TOLD], table[i][BY_LOG],
                   table[i][BY_DISASTER], table[i][BY_VALUE]);
    xensim_down(host);
    return good_so_far ? 0 : 1;
}
