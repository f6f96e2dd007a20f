/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Xen's own libxenlight on a simulated host: what happens to domains arrives as its events, it lists them, it can end
 * them, and what is injected is what it sees.
 */
#include <poll.h>
#include <time.h>

#include <libxl.h>
#include <libxl_event.h>
#include <libxl_utils.h>
#include <xentoollog.h>

#include "check.h"

static xentoollog_logger *logger;

static libxl_ctx *open_context(void)
{
    libxl_ctx *ctx = NULL;

    logger = (xentoollog_logger *)xtl_createlogger_stdiostream(stderr, XTL_CRITICAL, 0);
    CHECK(logger != NULL);
    CHECK_EQUAL(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, logger), 0);
    return ctx;
}

static void close_context(libxl_ctx *ctx)
{
    CHECK_EQUAL(libxl_ctx_free(ctx), 0);
    xtl_logger_destroy(logger);
}

/* The next event is this one. */
static void expect(libxl_ctx *ctx, libxl_event_type type, uint32_t domid, int reason)
{
    libxl_event *event = NULL;

    CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), 0);
    CHECK_EQUAL(event->type, type);
    CHECK_EQUAL(event->domid, domid);
    if (type == LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN)
        CHECK_EQUAL(event->u.domain_shutdown.shutdown_reason, reason);
    libxl_event_free(ctx, event);
}

/* There is none, and none will come of what has happened so far. */
static void expect_none(xensim_host *host, libxl_ctx *ctx)
{
    libxl_event *event = NULL;
    struct pollfd fds[16];
    int count = COUNT(fds), timeout = -1;
    struct timeval now = { 0, 0 };

    CHECK_EQUAL(xensim_settle(host), 0);
    CHECK_EQUAL(libxl_osevent_beforepoll(ctx, &count, fds, &timeout, now), 0);
    CHECK(poll(fds, (nfds_t)count, 0) >= 0);
    libxl_osevent_afterpoll(ctx, count, fds, now);
    CHECK_EQUAL(libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), ERROR_NOT_READY);
}

static void a_shutdown_and_a_death_arrive_as_events(xensim_host *host)
{
    static const unsigned reasons[] = { 0, 1, 3, 4, 5, 77, 255 };
    libxl_ctx *ctx = open_context();
    size_t i;

    for (i = 0; i < COUNT(reasons); i++) {
        libxl_evgen_domain_death *death = NULL;
        uint32_t domid;

        CHECK_EQUAL(xensim_create(host, "guest", &domid), 0);
        CHECK_EQUAL(libxl_evenable_domain_death(ctx, domid, 7, &death), 0);
        expect_none(host, ctx);
        CHECK_EQUAL(xensim_shutdown(host, domid, reasons[i]), 0);
        expect(ctx, LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN, domid, (int)reasons[i]);
        expect_none(host, ctx);
        CHECK_EQUAL(xensim_kill(host, domid), 0);
        expect(ctx, LIBXL_EVENT_TYPE_DOMAIN_DEATH, domid, 0);
        CHECK_EQUAL(xensim_destroy(host, domid), 0);
        expect_none(host, ctx);
        libxl_evdisable_domain_death(ctx, death);
    }
    close_context(ctx);
}

static void a_domain_that_is_destroyed_while_it_runs_only_dies(xensim_host *host)
{
    libxl_ctx *ctx = open_context();
    libxl_evgen_domain_death *death = NULL;
    uint32_t domid;

    CHECK_EQUAL(xensim_create(host, "guest", &domid), 0);
    CHECK_EQUAL(libxl_evenable_domain_death(ctx, domid, 0, &death), 0);
    CHECK_EQUAL(xensim_destroy(host, domid), 0);
    expect(ctx, LIBXL_EVENT_TYPE_DOMAIN_DEATH, domid, 0);
    expect_none(host, ctx);
    libxl_evdisable_domain_death(ctx, death);
    close_context(ctx);
}

static void many_domains_shut_down_in_one_look(xensim_host *host)
{
    enum { MANY = 500 };
    static const struct xensim_config config = { .name = "guest", .domid = XENSIM_DOMID_ANY };
    static uint32_t domids[MANY];
    libxl_evgen_domain_death *death[MANY];
    libxl_ctx *ctx = open_context();
    uint64_t calls;
    size_t i;

    CHECK_EQUAL(xensim_create_many(host, &config, MANY, domids), 0);
    for (i = 0; i < MANY; i++)
        CHECK_EQUAL(libxl_evenable_domain_death(ctx, domids[i], i, &death[i]), 0);
    expect_none(host, ctx);
    CHECK_EQUAL(xensim_reset_counts(host), 0);
    CHECK_EQUAL(xensim_change_many(host, domids, MANY, XENSIM_CHANGE_SHUTDOWN, 1), MANY);
    for (i = 0; i < MANY; i++)
        expect(ctx, LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN, domids[i], 1);
    /* One look at 500 domains, 200 at a time. */
    calls = xensim_count(host, XENSIM_CALL_GETDOMAININFOLIST);
    CHECK(calls >= 3 && calls <= 6);
    expect_none(host, ctx);
    CHECK_EQUAL(xensim_destroy_many(host, domids, MANY, 0), MANY);
    for (i = 0; i < MANY; i++) {
        expect(ctx, LIBXL_EVENT_TYPE_DOMAIN_DEATH, domids[i], 0);
        libxl_evdisable_domain_death(ctx, death[i]);
    }
    close_context(ctx);
}

static void a_resumed_domain_lives(xensim_host *host)
{
    libxl_ctx *ctx = open_context();
    libxl_evgen_domain_death *death = NULL;
    libxl_dominfo info;
    uint64_t cpu_time;
    uint32_t domid;

    CHECK_EQUAL(xensim_create(host, "guest", &domid), 0);
    CHECK_EQUAL(libxl_evenable_domain_death(ctx, domid, 0, &death), 0);
    CHECK_EQUAL(xensim_suspend(host, domid), 0);
    expect(ctx, LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN, domid, LIBXL_SHUTDOWN_REASON_SUSPEND);
    libxl_evdisable_domain_death(ctx, death);
    libxl_dominfo_init(&info);
    CHECK_EQUAL(libxl_domain_info(ctx, &info, domid), 0);
    CHECK(info.shutdown);
    cpu_time = info.cpu_time;
    CHECK_EQUAL(xensim_resume(host, domid), 0);
    CHECK_EQUAL(xensim_resume(host, domid), -1);
    CHECK_EQUAL(errno, EINVAL);

    CHECK_EQUAL(libxl_domain_info(ctx, &info, domid), 0);
    CHECK(!info.shutdown && !info.dying && !info.paused);
    CHECK_EQUAL(info.cpu_time, cpu_time + 1000000);
    libxl_dominfo_dispose(&info);

    /* xenstored has been told: it notices the next shutdown. */
    CHECK_EQUAL(libxl_evenable_domain_death(ctx, domid, 0, &death), 0);
    expect_none(host, ctx);
    CHECK_EQUAL(xensim_shutdown(host, domid, 0), 0);
    expect(ctx, LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN, domid, LIBXL_SHUTDOWN_REASON_POWEROFF);
    libxl_evdisable_domain_death(ctx, death);
    close_context(ctx);
}

static void a_number_may_be_used_again(xensim_host *host)
{
    struct xensim_config config = { .name = "first", .domid = 32751 };
    static const uint8_t uuid[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
    libxl_ctx *ctx = open_context();
    libxl_dominfo info;
    char *name;

    CHECK_EQUAL(xensim_create_many(host, &config, 1, NULL), 0);
    CHECK_EQUAL(xensim_create_many(host, &config, 1, NULL), -1);
    CHECK_EQUAL(errno, EEXIST);
    CHECK_EQUAL(xensim_destroy(host, 32751), 0);
    config.name = "second";
    config.uuid = uuid;
    config.memory_mib = 256;
    config.flags = XENSIM_PAUSED | XENSIM_HVM;
    CHECK_EQUAL(xensim_create_many(host, &config, 1, NULL), 0);

    libxl_dominfo_init(&info);
    CHECK_EQUAL(libxl_domain_info(ctx, &info, 32751), 0);
    CHECK_EQUAL(memcmp(info.uuid.uuid, uuid, sizeof uuid), 0);
    CHECK(info.paused);
    CHECK_EQUAL(info.current_memkb, 256 * 1024);
    CHECK_EQUAL(info.domain_type, LIBXL_DOMAIN_TYPE_HVM);
    libxl_dominfo_dispose(&info);
    name = libxl_domid_to_name(ctx, 32751);
    CHECK(name && !strcmp(name, "second"));
    free(name);

    config.domid = 32752;
    CHECK_EQUAL(xensim_create_many(host, &config, 1, NULL), -1);
    CHECK_EQUAL(errno, EINVAL);
    close_context(ctx);
}

static void libxl_lists_and_changes_domains(xensim_host *host)
{
    libxl_ctx *ctx = open_context();
    libxl_evgen_domain_death *death = NULL;
    const libxl_version_info *version;
    libxl_physinfo physinfo;
    libxl_dominfo *list;
    libxl_dominfo info;
    uint32_t domid, first;
    int count = 0;

    CHECK_EQUAL(xensim_create(host, "one", &first), 0);
    CHECK_EQUAL(xensim_create(host, "two", &domid), 0);
    list = libxl_list_domain(ctx, &count);
    CHECK(list != NULL);
    CHECK_EQUAL(count, 3);
    CHECK_EQUAL(list[0].domid, 0);
    CHECK_EQUAL(list[1].domid, first);
    CHECK_EQUAL(list[2].domid, domid);
    libxl_dominfo_list_free(list, count);

    libxl_dominfo_init(&info);
    CHECK_EQUAL(libxl_domain_info(ctx, &info, 555), ERROR_DOMAIN_NOTFOUND);
    CHECK_EQUAL(libxl_domain_pause(ctx, domid, NULL), 0);
    CHECK_EQUAL(libxl_domain_info(ctx, &info, domid), 0);
    CHECK(info.paused);
    CHECK_EQUAL(libxl_domain_unpause(ctx, domid, NULL), 0);
    CHECK_EQUAL(libxl_domain_info(ctx, &info, domid), 0);
    CHECK(!info.paused);
    libxl_dominfo_dispose(&info);

    version = libxl_get_version_info(ctx);
    CHECK(version != NULL);
    CHECK_EQUAL(version->xen_version_major, 4);
    libxl_physinfo_init(&physinfo);
    CHECK_EQUAL(libxl_get_physinfo(ctx, &physinfo), 0);
    CHECK(physinfo.nr_cpus > 0);
    libxl_physinfo_dispose(&physinfo);

    /* The hypercall, which a toolstack makes, has the same consequences as the driver. */
    CHECK_EQUAL(libxl_evenable_domain_death(ctx, domid, 0, &death), 0);
    CHECK_EQUAL(libxl_domain_destroy(ctx, domid, NULL), 0);
    expect(ctx, LIBXL_EVENT_TYPE_DOMAIN_DEATH, domid, 0);
    libxl_evdisable_domain_death(ctx, death);
    CHECK_EQUAL(xensim_destroy(host, domid), -1);
    CHECK_EQUAL(errno, ESRCH);
    close_context(ctx);
}

static void an_ejected_disk_is_reported(xensim_host *host)
{
    libxl_ctx *ctx = open_context();
    libxl_evgen_disk_eject *eject = NULL;
    libxl_event *event = NULL;
    char path[200], *value;
    uint32_t domid;

    CHECK_EQUAL(xensim_create(host, "guest", &domid), 0);
    snprintf(path, sizeof path, "/local/domain/%u/device/vbd/768/backend", domid);
    CHECK_EQUAL(xensim_store_write(host, path, "/local/domain/0/backend/qdisk/1/768"), 0);
    snprintf(path, sizeof path, "/local/domain/%u/device/vbd/768/dev", domid);
    CHECK_EQUAL(xensim_store_write(host, path, "hda"), 0);
    CHECK_EQUAL(libxl_evenable_disk_eject(ctx, domid, "hda", 5, &eject), 0);
    snprintf(path, sizeof path, "/local/domain/%u/device/vbd/768/eject", domid);
    CHECK_EQUAL(xensim_store_write(host, path, "eject"), 0);
    CHECK_EQUAL(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), 0);
    CHECK_EQUAL(event->type, LIBXL_EVENT_TYPE_DISK_EJECT);
    CHECK_EQUAL(event->domid, domid);
    CHECK_EQUAL(event->for_user, 5);
    libxl_event_free(ctx, event);
    value = xensim_store_read(host, path);
    CHECK(value && !*value);
    free(value);
    libxl_evdisable_disk_eject(ctx, eject);
    CHECK_EQUAL(xensim_store_remove(host, path), 0);
    CHECK(!xensim_store_read(host, path));
    CHECK_EQUAL(errno, ENOENT);
    close_context(ctx);
}

/* By which hypercall libxl_domain_info asks depends on the release. */
static int call_for_one_domain(xensim_host *host, libxl_ctx *ctx)
{
    libxl_dominfo info;
    bool by_list;

    libxl_dominfo_init(&info);
    CHECK_EQUAL(xensim_reset_counts(host), 0);
    CHECK_EQUAL(libxl_domain_info(ctx, &info, 0), 0);
    libxl_dominfo_dispose(&info);
    by_list = xensim_count(host, XENSIM_CALL_GETDOMAININFOLIST) == 1;
    CHECK(by_list != (xensim_count(host, XENSIM_CALL_GETDOMAININFO) == 1));
    return by_list ? XENSIM_CALL_GETDOMAININFOLIST : XENSIM_CALL_GETDOMAININFO;
}

static void hypercalls_fail_as_they_are_told(xensim_host *host)
{
    static const struct xensim_fault twice_after_one = { .errnum = EPERM, .times = 2, .after = 1 };
    static const struct xensim_fault always = { .errnum = ENOMEM, .times = XENSIM_ALWAYS };
    libxl_ctx *ctx = open_context();
    libxl_dominfo info;
    int i, call = call_for_one_domain(host, ctx);

    libxl_dominfo_init(&info);
    CHECK_EQUAL(xensim_reset_counts(host), 0);
    CHECK_EQUAL(xensim_inject(host, call, &twice_after_one), 0);
    CHECK_EQUAL(libxl_domain_info(ctx, &info, 0), 0);
    CHECK(libxl_domain_info(ctx, &info, 0) < 0);
    CHECK(libxl_domain_info(ctx, &info, 0) < 0);
    CHECK_EQUAL(libxl_domain_info(ctx, &info, 0), 0);
    CHECK_EQUAL(xensim_inject(host, call, &always), 0);
    for (i = 0; i < 10; i++)
        CHECK(libxl_domain_info(ctx, &info, 0) < 0);
    CHECK_EQUAL(xensim_clear_faults(host), 0);
    CHECK_EQUAL(libxl_domain_info(ctx, &info, 0), 0);
    CHECK_EQUAL(xensim_count(host, call), 15);
    libxl_dominfo_dispose(&info);
    close_context(ctx);
}

static void a_delayed_hypercall_takes_its_time(xensim_host *host)
{
    static const struct xensim_fault slow = { .delay_us = 50000 };
    libxl_ctx *ctx = open_context();
    struct timespec before, after;
    libxl_dominfo info;
    int call = call_for_one_domain(host, ctx);

    libxl_dominfo_init(&info);
    CHECK_EQUAL(xensim_inject(host, call, &slow), 0);
    clock_gettime(CLOCK_MONOTONIC, &before);
    CHECK_EQUAL(libxl_domain_info(ctx, &info, 0), 0);
    clock_gettime(CLOCK_MONOTONIC, &after);
    /* At least: the machine may add to it. */
    CHECK((after.tv_sec - before.tv_sec) * 1000000000LL + (after.tv_nsec - before.tv_nsec) >= 50000000LL);
    libxl_dominfo_dispose(&info);
    close_context(ctx);
}

static void without_devices_or_xenstored_there_is_no_context(xensim_host *host)
{
    libxl_ctx *ctx;

    logger = (xentoollog_logger *)xtl_createlogger_stdiostream(stderr, XTL_CRITICAL + 1, 0);
    CHECK_EQUAL(xensim_access(host, XENSIM_ACCESS_NO_PERMISSION), 0);
    CHECK(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, logger) < 0);
    CHECK_EQUAL(xensim_access(host, XENSIM_ACCESS_NO_HYPERVISOR), 0);
    CHECK(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, logger) < 0);
    CHECK_EQUAL(xensim_access(host, XENSIM_ACCESS_FULL), 0);
    CHECK_EQUAL(xensim_xenstored(host, XENSIM_XENSTORED_KILL), 0);
    CHECK(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, logger) < 0);
    CHECK_EQUAL(xensim_xenstored(host, XENSIM_XENSTORED_START), 0);
    CHECK_EQUAL(libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, logger), 0);
    close_context(ctx);
}

static void a_restarted_xenstored_knows_the_domains(xensim_host *host)
{
    libxl_evgen_domain_death *death = NULL;
    libxl_ctx *ctx;
    uint32_t domid;
    char *name;

    CHECK_EQUAL(xensim_create(host, "guest", &domid), 0);
    CHECK_EQUAL(xensim_xenstored(host, XENSIM_XENSTORED_RESTART), 0);
    ctx = open_context();
    name = libxl_domid_to_name(ctx, domid);
    CHECK(name && !strcmp(name, "guest"));
    free(name);
    CHECK_EQUAL(libxl_evenable_domain_death(ctx, domid, 0, &death), 0);
    expect_none(host, ctx);
    CHECK_EQUAL(xensim_shutdown(host, domid, 3), 0);
    expect(ctx, LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN, domid, 3);
    libxl_evdisable_domain_death(ctx, death);
    close_context(ctx);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
#define TEST(name) { #name, name }
        TEST(a_shutdown_and_a_death_arrive_as_events),
        TEST(a_domain_that_is_destroyed_while_it_runs_only_dies),
        TEST(many_domains_shut_down_in_one_look),
        TEST(a_resumed_domain_lives),
        TEST(a_number_may_be_used_again),
        TEST(libxl_lists_and_changes_domains),
        TEST(an_ejected_disk_is_reported),
        TEST(hypercalls_fail_as_they_are_told),
        TEST(a_delayed_hypercall_takes_its_time),
        TEST(without_devices_or_xenstored_there_is_no_context),
        TEST(a_restarted_xenstored_knows_the_domains),
    };

    return run_tests(tests, COUNT(tests), argc, argv);
}
