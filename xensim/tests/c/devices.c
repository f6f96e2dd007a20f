/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The simulated devices under Xen's small libraries, and everything else left alone: watches fire for what happens to
 * domains, event channels deliver, descriptors behave as descriptors, and what is none of Xen's goes where it always
 * went.
 */
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>

#include <xenctrl.h>
#include <xenevtchn.h>
#include <xenstore.h>
#include <xen/sys/privcmd.h>
#include <xen/version.h>

#include "check.h"

/* How many of the watches with this token have fired so far. */
static int firings(struct xs_handle *xs, const char *token)
{
    struct pollfd fd = { .fd = xs_fileno(xs), .events = POLLIN };
    int count = 0;

    while (poll(&fd, 1, 0) == 1) {
        unsigned num;
        char **watch = xs_read_watch(xs, &num);

        CHECK(watch != NULL);
        count += !strcmp(watch[XS_WATCH_TOKEN], token);
        free(watch);
    }
    return count;
}

/*
 * The same, when xenstored has sent all that it will send: its answer to a request of ours comes after what it had sent
 * us before, and the thread that reads both hands on the watches first.
 */
static int all_firings(xensim_host *host, struct xs_handle *xs, const char *token)
{
    unsigned length;

    CHECK_EQUAL(xensim_settle(host), 0);
    free(xs_read(xs, XBT_NULL, "/tool/xenstored", &length));
    return firings(xs, token);
}

static struct xs_handle *watch(const char *path)
{
    struct xs_handle *xs = xs_open(0);
    struct pollfd fd;

    CHECK(xs != NULL);
    CHECK(xs_watch(xs, path, "token"));
    fd = (struct pollfd){ .fd = xs_fileno(xs), .events = POLLIN };
    CHECK_EQUAL(poll(&fd, 1, 60000), 1);
    CHECK_EQUAL(firings(xs, "token"), 1);
    return xs;
}

static void introductions_fire(xensim_host *host)
{
    static const struct xensim_config unknown = {
        .name = "unknown", .domid = XENSIM_DOMID_ANY, .flags = XENSIM_NOT_INTRODUCED
    };
    struct xs_handle *xs = watch("@introduceDomain");
    uint32_t domid;

    CHECK_EQUAL(xensim_create(host, "guest", &domid), 0);
    CHECK_EQUAL(all_firings(host, xs, "token"), 1);
    CHECK_EQUAL(xensim_create_many(host, &unknown, 1, &domid), 0);
    CHECK_EQUAL(all_firings(host, xs, "token"), 0);
    xs_close(xs);
}

static void ends_fire(xensim_host *host)
{
    static const struct xensim_config unknown = {
        .name = "unknown", .domid = XENSIM_DOMID_ANY, .flags = XENSIM_NOT_INTRODUCED
    };
    static const struct xensim_config many = { .name = "many", .domid = XENSIM_DOMID_ANY };
    struct xs_handle *xs = watch("@releaseDomain");
    uint32_t domid, domids[100];

    CHECK_EQUAL(xensim_create(host, "guest", &domid), 0);
    CHECK_EQUAL(all_firings(host, xs, "token"), 0);
    CHECK_EQUAL(xensim_virq(host), 0);
    CHECK_EQUAL(all_firings(host, xs, "token"), 0);
    CHECK_EQUAL(xensim_shutdown(host, domid, 0), 0);
    CHECK_EQUAL(all_firings(host, xs, "token"), 1);
    CHECK_EQUAL(xensim_shutdown(host, domid, 1), -1);
    CHECK_EQUAL(errno, EINVAL);
    CHECK_EQUAL(xensim_kill(host, domid), 0);
    CHECK_EQUAL(all_firings(host, xs, "token"), 1);
    /* Forgotten by xenstored when it was dying. */
    CHECK_EQUAL(xensim_destroy(host, domid), 0);
    CHECK_EQUAL(all_firings(host, xs, "token"), 0);

    CHECK_EQUAL(xensim_create_many(host, &many, COUNT(domids), domids), 0);
    CHECK_EQUAL(xensim_change_many(host, domids, COUNT(domids), XENSIM_CHANGE_SHUTDOWN, 3), COUNT(domids));
    CHECK_EQUAL(all_firings(host, xs, "token"), 1);
    /* xenstored lets go of the dying one by one. */
    CHECK_EQUAL(xensim_change_many(host, domids, COUNT(domids), XENSIM_CHANGE_KILL, 0), COUNT(domids));
    CHECK_EQUAL(all_firings(host, xs, "token"), COUNT(domids));
    CHECK_EQUAL(xensim_create_many(host, &many, 1, domids), 0);
    CHECK_EQUAL(xensim_change_many(host, domids, 1, XENSIM_CHANGE_SHUTDOWN_AND_KILL, 3), 1);
    CHECK_EQUAL(all_firings(host, xs, "token"), 1);

    CHECK_EQUAL(xensim_create_many(host, &unknown, 1, &domid), 0);
    CHECK_EQUAL(xensim_destroy(host, domid), 0);
    CHECK_EQUAL(all_firings(host, xs, "token"), 0);
    xs_close(xs);
}

static void after_a_resume_the_next_end_fires(xensim_host *host)
{
    struct xs_handle *xs = watch("@releaseDomain");
    uint32_t domid;
    int i;

    CHECK_EQUAL(xensim_create(host, "guest", &domid), 0);
    for (i = 0; i < 3; i++) {
        CHECK_EQUAL(xensim_suspend(host, domid), 0);
        CHECK_EQUAL(all_firings(host, xs, "token"), 1);
        CHECK_EQUAL(xensim_resume(host, domid), 0);
        CHECK_EQUAL(all_firings(host, xs, "token"), 0);
    }
    CHECK_EQUAL(xensim_shutdown(host, domid, 0), 0);
    CHECK_EQUAL(all_firings(host, xs, "token"), 1);
    xs_close(xs);
}

/* libxenstore cancels the thread that reads for it. */
static void a_watching_connection_can_be_closed(xensim_host *host)
{
    int i;

    (void)host;
    for (i = 0; i < 100; i++)
        xs_close(watch("@releaseDomain"));
}

static int xen_version(int fd)
{
    privcmd_hypercall_t call = { .op = __HYPERVISOR_xen_version, .arg = { XENVER_version } };

    return ioctl(fd, IOCTL_PRIVCMD_HYPERCALL, &call);
}

static void descriptors_are_descriptors(xensim_host *host)
{
    int fd = open("/dev/xen/privcmd", O_RDWR | O_CLOEXEC), copy, status, zero;
    pid_t child;

    (void)host;
    CHECK(fd >= 0);
    CHECK(xen_version(fd) > 0);
    copy = dup(fd);
    CHECK(copy >= 0);
    CHECK_EQUAL(close(fd), 0);
    CHECK_EQUAL(xen_version(fd), -1);
    CHECK_EQUAL(errno, EBADF);
    CHECK(xen_version(copy) > 0);

    /* The number, when it is another file's. */
    zero = open("/dev/zero", O_RDWR);
    CHECK_EQUAL(zero, fd);
    CHECK_EQUAL(xen_version(zero), -1);
    CHECK_EQUAL(errno, ENOTTY);
    CHECK_EQUAL(dup2(copy, zero), zero);
    CHECK(xen_version(zero) > 0);

    child = fork();
    CHECK(child >= 0);
    if (child == 0)
        _exit(xen_version(copy) > 0 ? 0 : 1);
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    CHECK_EQUAL(status, 0);
}

static void everything_else_is_left_alone(xensim_host *host)
{
    struct stat status;
    char line[32] = "";
    FILE *file;
    int pipefd[2], pending = 0, fd;

    (void)host;
    CHECK_EQUAL(pipe(pipefd), 0);
    CHECK_EQUAL(write(pipefd[1], "hello", 5), 5);
    CHECK_EQUAL(ioctl(pipefd[0], FIONREAD, &pending), 0);
    CHECK_EQUAL(pending, 5);
    CHECK_EQUAL(xen_version(pipefd[0]), -1);
    CHECK_EQUAL(errno, ENOTTY);

    CHECK_EQUAL(stat("/dev/null", &status), 0);
    CHECK(S_ISCHR(status.st_mode));
    fd = open("/dev/null", O_WRONLY);
    CHECK(fd >= 0);
    CHECK_EQUAL(open("/dev/xenial", O_RDWR), -1);
    CHECK_EQUAL(errno, ENOENT);
    CHECK_EQUAL(open("/dev/xen/no-such-device", O_RDWR), -1);
    CHECK_EQUAL(errno, ENOENT);
    CHECK_EQUAL(open("/dev/xen/../null", O_RDWR), -1);
    CHECK_EQUAL(access("/dev/xen/xenbus", F_OK), -1);
    CHECK_EQUAL(access("/dev/xen/evtchn", F_OK), 0);
    CHECK_EQUAL(stat("/proc/xen", &status), 0);
    CHECK(S_ISDIR(status.st_mode));
    file = fopen("/proc/xen/capabilities", "r");
    CHECK(file && fgets(line, sizeof line, file));
    CHECK(!strcmp(line, "control_d\n"));
    fclose(file);

    /* A success leaves errno as it was. */
    errno = 4711;
    fd = open("/dev/xen/privcmd", O_RDWR);
    CHECK(fd >= 0 && xen_version(fd) > 0);
    CHECK_EQUAL(errno, 4711);
}

static void foreign_interfaces_and_hypercalls_are_refused(xensim_host *host)
{
    xc_interface *xc = xc_interface_open(NULL, NULL, 0);
    struct xen_domctl domctl = { .cmd = XEN_DOMCTL_getdomaininfo, .interface_version = 1 };
    privcmd_hypercall_t call = { .op = __HYPERVISOR_domctl, .arg = { (uintptr_t)&domctl } };
    int fd = open("/dev/xen/privcmd", O_RDWR);
    xc_domaininfo_t info;

    (void)host;
    CHECK(xc && fd >= 0);
    CHECK_EQUAL(ioctl(fd, IOCTL_PRIVCMD_HYPERCALL, &call), -1);
    CHECK_EQUAL(errno, EACCES);
    domctl.interface_version = XEN_DOMCTL_INTERFACE_VERSION;
    CHECK_EQUAL(ioctl(fd, IOCTL_PRIVCMD_HYPERCALL, &call), 0);
    call.op = __HYPERVISOR_kexec_op;
    CHECK_EQUAL(ioctl(fd, IOCTL_PRIVCMD_HYPERCALL, &call), -1);
    CHECK_EQUAL(errno, ENOSYS);
    CHECK_EQUAL(ioctl(fd, IOCTL_PRIVCMD_MMAPBATCH_V2, NULL), -1);
    CHECK_EQUAL(errno, ENOTTY);

    CHECK_EQUAL(xc_domain_getinfolist(xc, 0, 1, &info), 1);
    CHECK_EQUAL(info.domain, 0);
    CHECK_EQUAL(xc_domain_getinfolist(xc, 32752, 1, &info), 0);
    /* The dead have no more: none of these may hang or be a domain. */
    CHECK_EQUAL(xc_domain_getinfolist(xc, 40000, 1, &info), 0);
    xc_interface_close(xc);
}

static void event_channels_deliver_once_until_unmasked(xensim_host *host)
{
    xenevtchn_handle *channels = xenevtchn_open(NULL, 0);
    xenevtchn_port_or_error_t port, other;
    struct pollfd fd;

    CHECK(channels != NULL);
    /* There is a xenstored, and a global virtual interrupt has one owner. */
    CHECK_EQUAL(xenevtchn_bind_virq(channels, VIRQ_DOM_EXC), -1);
    CHECK_EQUAL(errno, EEXIST);
    CHECK_EQUAL(xensim_xenstored(host, XENSIM_XENSTORED_KILL), 0);
    port = xenevtchn_bind_virq(channels, VIRQ_DOM_EXC);
    CHECK(port > 0);
    other = xenevtchn_bind_unbound_port(channels, 0);
    CHECK(other > 0 && other != port);
    CHECK_EQUAL(xenevtchn_notify(channels, other), 0);
    CHECK_EQUAL(xenevtchn_unbind(channels, other), 0);
    CHECK_EQUAL(xenevtchn_notify(channels, other), -1);

    fd = (struct pollfd){ .fd = xenevtchn_fd(channels), .events = POLLIN };
    CHECK_EQUAL(poll(&fd, 1, 0), 0);
    CHECK_EQUAL(xensim_virq(host), 0);
    CHECK_EQUAL(xensim_virq(host), 0);
    CHECK_EQUAL(poll(&fd, 1, 60000), 1);
    CHECK_EQUAL(xenevtchn_pending(channels), port);
    /* Masked, and one more pending. */
    CHECK_EQUAL(poll(&fd, 1, 0), 0);
    CHECK_EQUAL(xenevtchn_unmask(channels, (evtchn_port_t)port), 0);
    CHECK_EQUAL(poll(&fd, 1, 60000), 1);
    CHECK_EQUAL(xenevtchn_pending(channels), port);
    CHECK_EQUAL(xenevtchn_unmask(channels, (evtchn_port_t)port), 0);
    CHECK_EQUAL(poll(&fd, 1, 0), 0);
    CHECK_EQUAL(xenevtchn_unbind(channels, (evtchn_port_t)port), 0);
    CHECK_EQUAL(xensim_virq(host), 0);
    CHECK_EQUAL(poll(&fd, 1, 0), 0);
    CHECK_EQUAL(xenevtchn_close(channels), 0);
    CHECK_EQUAL(xensim_xenstored(host, XENSIM_XENSTORED_START), 0);
    CHECK_EQUAL(xensim_settle(host), 0);
}

/* More than there are slots for, one after the other: those of the dead are used again. */
static void event_channel_devices_come_and_go(xensim_host *host)
{
    int i;

    (void)host;
    for (i = 0; i < 300; i++) {
        xenevtchn_handle *channels = xenevtchn_open(NULL, 0);

        CHECK(channels != NULL);
        CHECK(xenevtchn_bind_unbound_port(channels, 0) > 0);
        CHECK_EQUAL(xenevtchn_close(channels), 0);
    }
}

static void a_process_may_have_several_hosts(xensim_host *first)
{
    xensim_host *second = xensim_up(0);
    xc_interface *on_first, *on_second;
    xc_domaininfo_t info[10];
    uint32_t domid;

    CHECK(second != NULL);
    CHECK_EQUAL(xensim_create(first, "guest", &domid), 0);
    on_second = xc_interface_open(NULL, NULL, 0);
    CHECK_EQUAL(xensim_use(first), 0);
    on_first = xc_interface_open(NULL, NULL, 0);
    CHECK(on_first && on_second);
    CHECK_EQUAL(xc_domain_getinfolist(on_first, 0, 10, info), 2);
    CHECK_EQUAL(xc_domain_getinfolist(on_second, 0, 10, info), 1);
    CHECK_EQUAL(xensim_down(second), 0);
    CHECK_EQUAL(xc_domain_getinfolist(on_first, 0, 10, info), 2);
    xc_interface_close(on_first);
    xc_interface_close(on_second);
}

static void bad_arguments_are_refused_in_words(xensim_host *host)
{
    struct xensim_config config = { .name = "guest", .domid = XENSIM_DOMID_ANY };
    struct xensim_fault fault = { .errnum = EIO };
    uint32_t domid;

#define REFUSED(call, number)                                                                                          \
    do {                                                                                                               \
        errno = 0;                                                                                                     \
        CHECK_EQUAL(call, -1);                                                                                         \
        CHECK_EQUAL(errno, number);                                                                                    \
        CHECK(*xensim_error());                                                                                        \
    } while (0)
    REFUSED(xensim_create(NULL, "guest", &domid), EINVAL);
    REFUSED(xensim_create(host, NULL, &domid), EINVAL);
    REFUSED(xensim_create_many(host, NULL, 1, &domid), EINVAL);
    config.flags = 1u << 31;
    REFUSED(xensim_create_many(host, &config, 1, &domid), EINVAL);
    REFUSED(xensim_shutdown(host, 5, 0), ESRCH);
    REFUSED(xensim_shutdown(host, 0, 256), EINVAL);
    REFUSED(xensim_shutdown(host, 1u << 16, 0), ESRCH);
    REFUSED(xensim_change_many(host, NULL, 1, XENSIM_CHANGE_PAUSE, 0), EINVAL);
    REFUSED(xensim_destroy(host, 0), ESRCH);
    REFUSED(xensim_inject(host, (enum xensim_call)99, &fault), EINVAL);
    REFUSED(xensim_inject(host, XENSIM_CALL_OTHER, NULL), EINVAL);
    REFUSED(xensim_access(host, (enum xensim_access)3), EINVAL);
    REFUSED(xensim_xenstored(host, XENSIM_XENSTORED_START), EIO);
    REFUSED(xensim_store_write(host, "no/such//path", ""), EINVAL);
    REFUSED(xensim_detach(host), EINVAL);
    REFUSED(xensim_down(NULL), EINVAL);
    CHECK(!xensim_attach("/nowhere"));
    CHECK_EQUAL(errno, ENOENT);
    CHECK(!xensim_up(1u << 31));
    CHECK_EQUAL(errno, EINVAL);
}

static void an_attached_host_stays_up(xensim_host *host)
{
    xensim_host *again = xensim_attach(xensim_dir(host)), *named = xensim_attach(NULL);
    uint32_t domid;

    CHECK(again && named);
    CHECK_EQUAL(xensim_create(again, "guest", &domid), 0);
    CHECK_EQUAL(xensim_detach(again), 0);
    CHECK_EQUAL(xensim_detach(named), 0);
    CHECK_EQUAL(xensim_destroy(host, domid), 0);
    CHECK_EQUAL(xensim_settle(host), 0);
}

/* Nor does a forked child that exits as a program does. */
static void a_forked_child_does_not_end_the_host(xensim_host *host)
{
    pid_t child = fork();
    uint32_t domid;
    int status;

    CHECK(child >= 0);
    if (child == 0)
        exit(0);
    CHECK_EQUAL(waitpid(child, &status, 0), child);
    CHECK_EQUAL(status, 0);
    CHECK_EQUAL(xensim_create(host, "guest", &domid), 0);
    CHECK_EQUAL(xensim_settle(host), 0);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
#define TEST(name) { #name, name }
        TEST(introductions_fire),
        TEST(ends_fire),
        TEST(after_a_resume_the_next_end_fires),
        TEST(a_watching_connection_can_be_closed),
        TEST(descriptors_are_descriptors),
        TEST(everything_else_is_left_alone),
        TEST(foreign_interfaces_and_hypercalls_are_refused),
        TEST(event_channels_deliver_once_until_unmasked),
        TEST(event_channel_devices_come_and_go),
        TEST(a_process_may_have_several_hosts),
        TEST(bad_arguments_are_refused_in_words),
        TEST(an_attached_host_stays_up),
        TEST(a_forked_child_does_not_end_the_host),
    };

    return run_tests(tests, COUNT(tests), argc, argv);
}
