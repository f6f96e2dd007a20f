/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The suspend event channel's node: xlevent_suspend_node_create. libxenlight makes it itself when it creates a domain, and
 * has no such function.
 */
#include <errno.h>
#include <xenstore.h>

#include "harness/check.h"
#include "harness/drive.h"
#include "harness/host.h"
#include "harness/next.h"
#include "harness/ours.h"
#include "harness/store.h"
#include "harness/xl.h"

enum { EXTENSION_OF_DOMAINS = COMMANDS_DOMAINS | NOT_FOR_LIBXENLIGHT };

static const char *device_of(uint32_t domid)
{
    return path_of("/local/domain/%u/device", (unsigned)domid);
}

static const char *channel_of(uint32_t domid)
{
    return path_of("%s/suspend/event-channel", device_of(domid));
}

static uint32_t domain_in_store(void)
{
    uint32_t domid = host_create();

    put_home(domid);
    return domid;
}

/* Of the directory, the one below it and the node: `%D` stands for the domain's number. */
struct permissions {
    char device[30], suspend[30], channel[30];
};

static const char *without_number(const char *permissions, uint32_t domid)
{
    const char *readable = path_of("n0,r%u", (unsigned)domid), *owned = path_of("n%u", (unsigned)domid);

    return strcmp(permissions, readable) == 0 ? "n0,r%D" : strcmp(permissions, owned) == 0 ? "n%D" : permissions;
}

static struct permissions permissions_now(uint32_t domid)
{
    struct permissions now = { "", "", "" };

    snprintf(now.device, sizeof now.device, "%s", without_number(permissions_of(device_of(domid)), domid));
    snprintf(now.suspend, sizeof now.suspend, "%s",
             without_number(permissions_of(path_of("%s/suspend", device_of(domid))), domid));
    snprintf(now.channel, sizeof now.channel, "%s", without_number(permissions_of(channel_of(domid)), domid));
    return now;
}

static const struct permissions libxls = { "n0,r%D", "n0,r%D", "n%D" }, libxls_for_xend = { "n%D", "-", "-" };

static void check_same(struct permissions have, struct permissions want)
{
    if (memcmp(&have, &want, sizeof have) != 0)
        FAIL("%s %s %s, not %s %s %s", have.device, have.suspend, have.channel, want.device, want.suspend, want.channel);
}

static void check_node(uint32_t domid)
{
    check_same(permissions_now(domid), libxls);
}

static void check_xend_compat(uint32_t domid)
{
    check_same(permissions_now(domid), libxls_for_xend);
}

/* ---- as libxl has it ---- */

#ifndef XLEVENT_STANDALONE

/* libxenlight creates a domain. When its nodes are there, it asks for virtual processors: a look is taken then, and it fails. */
static struct permissions created;

int xc_domain_max_vcpus(void *xch, uint32_t domid, unsigned max);
int xc_domain_max_vcpus(void *xch, uint32_t domid, unsigned max)
{
    (void)xch, (void)max;
    created = permissions_now(domid);
    errno = ENOSYS;
    return -1;
}

static struct permissions permissions_by_libxl(libxl_ctx *ctx, bool xend_compat)
{
    libxl_domain_config config;
    uint32_t domid = UINT32_MAX;

    libxl_domain_config_init(&config);
    config.c_info.type = LIBXL_DOMAIN_TYPE_PV;
    config.c_info.name = strdup("guest");
    libxl_uuid_generate(&config.c_info.uuid);
    libxl_defbool_set(&config.c_info.xend_suspend_evtchn_compat, xend_compat);
    libxl_domain_build_info_init_type(&config.b_info, LIBXL_DOMAIN_TYPE_PV);
    config.b_info.max_memkb = config.b_info.target_memkb = 65536;
    config.b_info.kernel = strdup("/dev/null");
    memset(&created, 0, sizeof created);
    log_quietly = true;
    CHECK(libxl_domain_create_new(ctx, &config, &domid, NULL, NULL) != 0);
    log_quietly = false;
    libxl_domain_config_dispose(&config);
    return created;
}

#else

static struct permissions permissions_by_libxl(libxl_ctx *ctx, bool xend_compat)
{
    (void)ctx;
    return xend_compat ? libxls_for_xend : libxls;
}

#endif

/* What libxenlight writes when it creates a domain, where it is in the process; of what it forks for it, memory is lost. */
TEST_WITH(the_permissions_are_those_of_a_domain_that_libxl_has_created, COMMANDS_DOMAINS | NOT_UNDER_VALGRIND)
{
    libxl_ctx *ctx = open_context();

    check_same(permissions_by_libxl(ctx, false), libxls);
    check_same(permissions_by_libxl(ctx, true), libxls_for_xend);
    if (column != REAL) {
        uint32_t domid = domain_in_store(), for_xend = domain_in_store();

        CHECK_EQUAL(xlevent_suspend_node_create(ctx, domid, 0), 0);
        check_node(domid);
        CHECK_EQUAL(xlevent_suspend_node_create(ctx, for_xend, 1), 0);
        check_xend_compat(for_xend);
    }
    close_context(ctx);
}

TEST_WITH(the_node_is_the_guests_and_the_directories_are_not, EXTENSION_OF_DOMAINS)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = domain_in_store(), other = domain_in_store();

    CHECK_EQUAL(xlevent_suspend_node_create(ctx, domid, 0), 0);
    check_node(domid);
    CHECK(node_is(channel_of(domid), ""));
    CHECK(!has_node(device_of(other)));
    close_context(ctx);
}

TEST_WITH(with_xend_compat_the_directory_is_the_guests_and_the_node_is_left_out, EXTENSION_OF_DOMAINS)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = domain_in_store();

    CHECK_EQUAL(xlevent_suspend_node_create(ctx, domid, 1), 0);
    check_xend_compat(domid);
    close_context(ctx);
}

TEST_WITH(it_may_be_called_again_and_keeps_what_the_guest_has_written, EXTENSION_OF_DOMAINS)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = domain_in_store();
    int round;

    put_node(path_of("%s/vbd/51712/state", device_of(domid)), "4");
    for (round = 0; round < 2; round++) {
        CHECK_EQUAL(xlevent_suspend_node_create(ctx, domid, 0), 0);
        put_node(channel_of(domid), "17");
        CHECK_EQUAL(xlevent_suspend_node_create(ctx, domid, 0), 0);
        check_node(domid);
        CHECK(node_is(channel_of(domid), "17"));
        CHECK_EQUAL(xlevent_suspend_node_create(ctx, domid, 1), 0);
        CHECK_EQUAL(xlevent_suspend_node_create(ctx, domid, 1), 0);
        check_xend_compat(domid);
    }
    CHECK(node_is(path_of("%s/vbd/51712/state", device_of(domid)), "4"));
    /* Something else of the guest's in the same directory stays. */
    CHECK_EQUAL(xlevent_suspend_node_create(ctx, domid, 0), 0);
    put_node(path_of("%s/suspend/other", device_of(domid)), "x");
    CHECK_EQUAL(xlevent_suspend_node_create(ctx, domid, 1), 0);
    CHECK(!has_node(channel_of(domid)));
    CHECK(node_is(path_of("%s/suspend/other", device_of(domid)), "x"));
    close_context(ctx);
}

TEST_WITH(an_unknown_domain_is_an_error_and_nothing_is_made, EXTENSION_OF_DOMAINS)
{
    static const uint32_t unknown[] = { NOBODY, 0x7ff0, 65536, UINT32_MAX };
    libxl_ctx *ctx = open_context();
    size_t i;

    log_quietly = true;
    for (i = 0; i < COUNT(unknown); i++) {
        CHECK_EQUAL(xlevent_suspend_node_create(ctx, unknown[i], (int)i % 2), ERROR_DOMAIN_NOTFOUND);
        CHECK_EQUAL(logged_errors, i + 1);
        CHECK(!has_node(path_of("/local/domain/%u", (unsigned)unknown[i])));
    }
    CHECK_EQUAL(xlevent_suspend_node_create(NULL, 0, 0), ERROR_INVAL);
    close_context(ctx);
    CHECK_EQUAL(xlevent_suspend_node_create(ctx, 0, 0), ERROR_INVAL);
}

/* ---- what goes wrong ---- */

/*
 * Calls of libxenstore, those of the library under test among them, come through here: somebody else changes a node just
 * before a transaction ends, `conflicts` times; and the change of nodes number `refused_change`, from 1, fails.
 */
static int conflicts, conflicted, refused_change, changes;
static const char *contested;

bool xs_transaction_end(struct xs_handle *xs, xs_transaction_t transaction, bool abort)
{
    if (!abort && conflicts > 0) {
        conflicts--;
        conflicted++;
        put_number(contested, (unsigned)conflicted);
    }
    return NEXT(xs_transaction_end)(xs, transaction, abort);
}

static bool change_is_refused(xs_transaction_t transaction)
{
    /* Not those of the tests' own. */
    if (transaction == XBT_NULL || ++changes != refused_change)
        return false;
    errno = EACCES;
    return true;
}

bool xs_write(struct xs_handle *xs, xs_transaction_t transaction, const char *path, const void *data, unsigned length)
{
    return change_is_refused(transaction) ? false : NEXT(xs_write)(xs, transaction, path, data, length);
}

bool xs_set_permissions(struct xs_handle *xs, xs_transaction_t transaction, const char *path,
                        struct xs_permissions *permissions, unsigned count)
{
    return change_is_refused(transaction) ? false : NEXT(xs_set_permissions)(xs, transaction, path, permissions, count);
}

bool xs_rm(struct xs_handle *xs, xs_transaction_t transaction, const char *path)
{
    return change_is_refused(transaction) ? false : NEXT(xs_rm)(xs, transaction, path);
}

TEST_WITH(a_conflict_with_others_is_no_failure, EXTENSION_OF_DOMAINS)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = domain_in_store();

    /* A node that it looks at. */
    contested = device_of(domid);
    conflicts = 3;
    CHECK_EQUAL(xlevent_suspend_node_create(ctx, domid, 0), 0);
    CHECK_EQUAL(conflicted, 3);
    check_node(domid);
    CHECK(node_is(device_of(domid), "3"));
    conflicts = 2;
    contested = device_of(domid);
    CHECK_EQUAL(xlevent_suspend_node_create(ctx, domid, 1), 0);
    CHECK_EQUAL(conflicted, 5);
    check_xend_compat(domid);
    CHECK_EQUAL(logged_errors, 0);
    close_context(ctx);
}

TEST_WITH(what_is_refused_at_any_step_leaves_nothing_behind, EXTENSION_OF_DOMAINS)
{
    uint32_t domid = domain_in_store();
    int compat, failures = 0;

    log_quietly = true;
    for (compat = 1; compat >= 0; compat--) {
        /* Until none of its steps is the one that is refused. */
        for (refused_change = 1;; refused_change++) {
            /* One each: two steps may fail with the same line, which a context writes once. */
            libxl_ctx *ctx = open_context();
            int rc;

            changes = 0;
            rc = xlevent_suspend_node_create(ctx, domid, compat);
            close_context(ctx);
            if (rc == 0)
                break;
            CHECK_EQUAL(rc, ERROR_FAIL);
            CHECK_EQUAL(logged_errors, ++failures);
            if (compat)
                CHECK(!has_node(device_of(domid)));
            else
                check_xend_compat(domid);
        }
        CHECK_AT_LEAST(refused_change, 4);
    }
    refused_change = 0;
    check_node(domid);
}

TEST_WITH(while_xenstored_is_away_it_fails, EXTENSION_OF_DOMAINS)
{
    libxl_ctx *ctx = open_context();
    uint32_t domid = domain_in_store();
    int watching;

    log_quietly = true;
    for (watching = 0; watching < 2; watching++) {
        libxl_evgen_domain_death *evgen = watching ? enable(ctx, 0, 1) : NULL;

        host_kill_xenstored();
        CHECK_EQUAL(xlevent_suspend_node_create(ctx, domid, 0), ERROR_FAIL);
        if (watching) {
            /* Now it is known. */
            poll_once(ctx, -1);
            CHECK_EQUAL(xlevent_suspend_node_create(ctx, domid, 0), ERROR_FAIL);
        }
        host_start_xenstored();
        put_home(domid);
        /* A context that watches connects again by itself. */
        while (xlevent_suspend_node_create(ctx, domid, 0) != 0)
            poll_once(ctx, -1);
        check_node(domid);
        libxl_evdisable_domain_death(ctx, evgen);
    }
    close_context(ctx);
}
