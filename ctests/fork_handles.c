/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A fork while another thread is opening or closing a connection: what the child's libxl_postfork_child_noexec finds then.
 *
 * The functions of libxenstore's that this program defines stand ahead of its own, and call them.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <xenstore.h>

#include "harness/check.h"
#include "harness/host.h"
#include "harness/next.h"
#include "harness/xl.h"

/* libxentoolcore's list of handles: what each library puts there, with room for the list's own. */
struct active_handle {
    int (*restrict_to)(struct active_handle *handle, uint32_t domid);
    void *links[2];
};

static __thread bool stays_in_xs_close, stays_in_xs_watch;
static struct xs_handle *closed;
static atomic_bool has_the_list, is_watching, may_go_on;

/* The list's lock is held meanwhile. Nothing is restricted. */
static int stay_with_the_list(struct active_handle *unused, uint32_t domid)
{
    (void)unused;
    (void)domid;
    has_the_list = true;
    WAIT_UNTIL(may_go_on);
    return -1;
}

/* libxenlight's xs_close comes by here. It takes that lock by itself, for a moment. */
void xs_close(struct xs_handle *handle)
{
    void (*add)(struct active_handle *), (*take_out)(struct active_handle *);
    int (*restrict_all)(uint32_t domid);

    if (stays_in_xs_close) {
        struct active_handle own = { stay_with_the_list, { NULL, NULL } };

        *(void **)&add = dlsym(RTLD_DEFAULT, "xentoolcore__register_active_handle");
        *(void **)&take_out = dlsym(RTLD_DEFAULT, "xentoolcore__deregister_active_handle");
        *(void **)&restrict_all = dlsym(RTLD_DEFAULT, "xentoolcore_restrict_all");
        CHECK(add && take_out && restrict_all);
        stays_in_xs_close = false;
        add(&own);
        restrict_all(0);
        take_out(&own);
    }
    NEXT(xs_close)(handle);
    closed = handle;
}

static void *close_and_stay(void *ctx)
{
    stays_in_xs_close = true;
    close_context(ctx);
    return NULL;
}

static void forget_contexts(void *ctx)
{
    libxl_postfork_child_noexec(ctx);
}

static atomic_int forker;
static atomic_bool has_forked;

static void *fork_and_forget(void *ctx)
{
    forker = gettid();
    CHECK_EQUAL(in_child(forget_contexts, ctx), 0);
    has_forked = true;
    return NULL;
}

/* Alone, the fork waits for whoever closes. Where libxenlight does, which may call the application, none can wait. */
TEST(a_child_that_is_forked_while_another_thread_closes_its_connection_can_forget_all_contexts)
{
    libxl_ctx *ctx = open_context();
    pthread_t closing, forking;

    enable(ctx, NOBODY, 1);
    closing = start_thread(close_and_stay, open_context());
    WAIT_UNTIL(has_the_list);
    forking = start_thread(fork_and_forget, ctx);
    if (column == ALONE) {
        WAIT_UNTIL(has_forked || (forker && sleeps_in(forker) == SYS_futex));
        CHECK(!has_forked);
    } else {
        WAIT_UNTIL(has_forked);
    }
    may_go_on = true;
    finish_thread(closing);
    finish_thread(forking);
    expect_death(ctx, NOBODY, 1);
    close_context(ctx);
}

bool xs_watch(struct xs_handle *handle, const char *path, const char *token)
{
    if (stays_in_xs_watch && closed) {
        stays_in_xs_watch = false;
        is_watching = true;
        WAIT_UNTIL(may_go_on);
    }
    return NEXT(xs_watch)(handle, path, token);
}

/* In the child. What has been closed is nobody's, also if something else is at its address by now. */
void xs_daemon_destroy_postfork(struct xs_handle *handle)
{
    CHECK(handle != closed);
    NEXT(xs_daemon_destroy_postfork)(handle);
}

static void *enable_and_stay(void *ctx)
{
    stays_in_xs_watch = true;
    enable(ctx, NOBODY, 2);
    return NULL;
}

/* The connection from before a restart is found to be dead by the next enable, which closes it and opens another. */
TEST_WITH(a_child_that_is_forked_while_a_connection_is_replaced_leaves_the_old_one_alone,
          COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT | NOT_UNDER_VALGRIND)
{
    libxl_ctx *ctx = open_context();
    libxl_evgen_domain_death *evgen = enable(ctx, NOBODY, 1);
    pthread_t thread;

    expect_death(ctx, NOBODY, 1);
    libxl_evdisable_domain_death(ctx, evgen);
    host_kill_xenstored();
    host_start_xenstored();
    thread = start_thread(enable_and_stay, ctx);
    WAIT_UNTIL(is_watching);
    CHECK_EQUAL(in_child(forget_contexts, ctx), 0);
    may_go_on = true;
    finish_thread(thread);
    expect_death(ctx, NOBODY, 2);
    close_context(ctx);
}
