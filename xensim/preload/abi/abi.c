/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How hypercalls and ioctls are laid out, from the installed Xen headers: this file takes questions apart and puts
 * answers together, and decides nothing. Compiled against another release of Xen it speaks that release's interface.
 *
 * Runs inside other people's programs: allocates nothing, keeps nothing, touches only what its caller points at.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

#include <xenctrl.h>
#include <xen/domctl.h>
#include <xen/sched.h>
#include <xen/sys/evtchn.h>
#include <xen/sys/gntdev.h>
#include <xen/sys/privcmd.h>
#include <xen/sysctl.h>
#include <xen/version.h>
#include <xen/xen.h>

#include "abi.h"

/*
 * The numbers of the interfaces whose layout, in what is used here, is that of the headers: the domctl's of 4.17 is 0x15,
 * that of 4.19 to 4.21 0x17. Headers outside this range need a look at this file.
 */
#define OLDEST_DOMCTL 0x15u
#define NEWEST_DOMCTL 0x17u
_Static_assert(XEN_DOMCTL_INTERFACE_VERSION >= OLDEST_DOMCTL && XEN_DOMCTL_INTERFACE_VERSION <= NEWEST_DOMCTL,
               "a domctl interface that this has not been tried with");
_Static_assert(XEN_SYSCTL_INTERFACE_VERSION == 0x15u, "a sysctl interface that this has not been tried with");
_Static_assert(sizeof(xen_domain_handle_t) == 16, "a domain's handle is a UUID");

/* Up to this one, getdomaininfo gives the domain that was asked for or, if there is none, the next. */
#define LAST_DOMCTL_WITH_NEXT 0x15u

#define KIB_PER_PAGE 4u
/* Of the machine. */
#define CPUS 4u

enum xensim_request xensim_abi_request(unsigned long request)
{
    switch (request) {
    case IOCTL_PRIVCMD_HYPERCALL:
        return XENSIM_REQUEST_HYPERCALL;
    case IOCTL_GNTDEV_MAP_GRANT_REF:
        return XENSIM_REQUEST_GRANT_MAP;
    case IOCTL_GNTDEV_GET_OFFSET_FOR_VADDR:
        return XENSIM_REQUEST_GRANT_OFFSET;
    case IOCTL_GNTDEV_UNMAP_GRANT_REF:
    case IOCTL_GNTDEV_SET_MAX_GRANTS:
        return XENSIM_REQUEST_GRANT_NOTHING;
    case IOCTL_EVTCHN_BIND_VIRQ:
        return XENSIM_REQUEST_BIND_VIRQ;
    case IOCTL_EVTCHN_BIND_INTERDOMAIN:
        return XENSIM_REQUEST_BIND_INTERDOMAIN;
    case IOCTL_EVTCHN_BIND_UNBOUND_PORT:
        return XENSIM_REQUEST_BIND_UNBOUND;
    case IOCTL_EVTCHN_UNBIND:
        return XENSIM_REQUEST_UNBIND;
    case IOCTL_EVTCHN_NOTIFY:
        return XENSIM_REQUEST_NOTIFY;
    }
    if (_IOC_DIR(request) != _IOC_NONE)
        return XENSIM_REQUEST_FOREIGN;
    switch (_IOC_TYPE(request)) {
    case 'P':
    case 'G':
    case 'E':
        return XENSIM_REQUEST_UNKNOWN;
    }
    return XENSIM_REQUEST_FOREIGN;
}

static void decode_cpupool(const struct xen_sysctl_cpupool_op *cpupool, struct xensim_call *call)
{
    call->count = cpupool->cpupool_id;
    call->domid = cpupool->domid;
    switch (cpupool->op) {
    case XEN_SYSCTL_CPUPOOL_OP_INFO:
        call->op = XENSIM_OP_CPUPOOL_INFO;
        break;
    case XEN_SYSCTL_CPUPOOL_OP_FREEINFO:
        call->op = XENSIM_OP_CPUPOOL_FREE;
        break;
    case XEN_SYSCTL_CPUPOOL_OP_MOVEDOMAIN:
        call->op = XENSIM_OP_CPUPOOL_MOVE;
        break;
    }
}

static int decode_sysctl(struct xen_sysctl *sysctl, struct xensim_call *call)
{
    call->op = XENSIM_OP_OTHER_SYSCTL;
    call->argument = sysctl;
    switch (sysctl->cmd) {
    case XEN_SYSCTL_getdomaininfolist:
        call->op = XENSIM_OP_GETDOMAININFOLIST;
        call->domid = sysctl->u.getdomaininfolist.first_domain;
        call->count = sysctl->u.getdomaininfolist.max_domains;
        break;
    case XEN_SYSCTL_physinfo:
        call->op = XENSIM_OP_PHYSINFO;
        break;
    case XEN_SYSCTL_cpupool_op:
        decode_cpupool(&sysctl->u.cpupool_op, call);
        break;
    }
    return sysctl->interface_version == XEN_SYSCTL_INTERFACE_VERSION ? 0 : EACCES;
}

static int decode_domctl(struct xen_domctl *domctl, struct xensim_call *call)
{
    call->op = XENSIM_OP_OTHER_DOMCTL;
    call->argument = domctl;
    call->domid = domctl->domain;
    switch (domctl->cmd) {
    case XEN_DOMCTL_getdomaininfo:
        call->op = XENSIM_OP_GETDOMAININFO;
        call->flag = domctl->interface_version > LAST_DOMCTL_WITH_NEXT;
        break;
    case XEN_DOMCTL_createdomain:
        call->op = XENSIM_OP_CREATE;
        call->count = domctl->u.createdomain.max_vcpus;
        call->flag = (domctl->u.createdomain.flags & XEN_DOMCTL_CDF_hvm) != 0;
        memcpy(call->handle, domctl->u.createdomain.handle, sizeof call->handle);
        break;
    case XEN_DOMCTL_destroydomain:
        call->op = XENSIM_OP_DESTROY;
        break;
    case XEN_DOMCTL_pausedomain:
        call->op = XENSIM_OP_PAUSE;
        break;
    case XEN_DOMCTL_unpausedomain:
        call->op = XENSIM_OP_UNPAUSE;
        break;
    case XEN_DOMCTL_resumedomain:
        call->op = XENSIM_OP_RESUME;
        break;
    case XEN_DOMCTL_setdomainhandle:
        call->op = XENSIM_OP_SET_HANDLE;
        memcpy(call->handle, domctl->u.setdomainhandle.handle, sizeof call->handle);
        break;
    case XEN_DOMCTL_max_vcpus:
        call->op = XENSIM_OP_MAX_VCPUS;
        call->count = domctl->u.max_vcpus.max;
        break;
    case XEN_DOMCTL_max_mem:
        call->op = XENSIM_OP_MAX_MEM;
        call->count = domctl->u.max_mem.max_memkb > UINT32_MAX ? UINT32_MAX : (uint32_t)domctl->u.max_mem.max_memkb;
        break;
#ifdef XEN_DOMCTL_set_llc_colors
    case XEN_DOMCTL_set_llc_colors:
        call->op = XENSIM_OP_UNSUPPORTED;
        break;
#endif
    }
    return domctl->interface_version >= OLDEST_DOMCTL && domctl->interface_version <= NEWEST_DOMCTL ? 0 : EACCES;
}

int xensim_abi_decode(const void *hypercall, struct xensim_call *call)
{
    const privcmd_hypercall_t *privcmd = hypercall;
    void *first = (void *)(uintptr_t)privcmd->arg[0], *second = (void *)(uintptr_t)privcmd->arg[1];
    const struct sched_remote_shutdown *shutdown = second;

    memset(call, 0, sizeof *call);
    switch (privcmd->op) {
    case __HYPERVISOR_sysctl:
        return decode_sysctl(first, call);
    case __HYPERVISOR_domctl:
        return decode_domctl(first, call);
    case __HYPERVISOR_xen_version:
        call->op = XENSIM_OP_XEN_VERSION;
        call->count = (uint32_t)privcmd->arg[0];
        call->argument = second;
        return 0;
    case __HYPERVISOR_sched_op:
        call->op = XENSIM_OP_OTHER_SCHED;
        if (privcmd->arg[0] == SCHEDOP_remote_shutdown) {
            call->op = XENSIM_OP_SHUTDOWN;
            call->domid = shutdown->domain_id;
            call->count = shutdown->reason;
        }
        return 0;
    case __HYPERVISOR_event_channel_op:
        call->op = XENSIM_OP_EVENT_CHANNEL;
        return 0;
    case __HYPERVISOR_memory_op:
        call->op = XENSIM_OP_MEMORY;
        return 0;
    }
    call->op = XENSIM_OP_OTHER;
    return 0;
}

static void describe(const struct xensim_domain *domain, xen_domctl_getdomaininfo_t *info)
{
    /* A domain that has not shut down has all ones there: a reader who forgets to look at the flag shall notice. */
    uint32_t reason = domain->shutdown ? domain->reason : 0xffff;

    memset(info, 0, sizeof *info);
    info->domain = (domid_t)domain->domid;
    info->flags = reason << XEN_DOMINF_shutdownshift;
    if (domain->dying)
        info->flags |= XEN_DOMINF_dying;
    if (domain->shutdown)
        info->flags |= XEN_DOMINF_shutdown;
    if (domain->paused)
        info->flags |= XEN_DOMINF_paused;
    if (domain->hvm)
        info->flags |= XEN_DOMINF_hvm_guest | XEN_DOMINF_hap;
    if (domain->domid == 0)
        info->flags |= XEN_DOMINF_running;
    else if (!domain->dying && !domain->shutdown && !domain->paused)
        info->flags |= XEN_DOMINF_blocked;
    info->tot_pages = domain->dying ? 0 : domain->pages;
    info->max_pages = domain->pages;
    info->cpu_time = domain->cpu_time_ns;
    /* A fully virtualised guest has mapped it where it likes, or nowhere yet. */
    info->shared_info_frame = domain->hvm ? ~(uint64_t)0 : domain->shared_frame;
    info->nr_online_vcpus = domain->vcpus;
    info->max_vcpu_id = domain->vcpus ? domain->vcpus - 1 : 0;
    memcpy(info->handle, domain->handle, sizeof info->handle);
}

void xensim_abi_put_domain(const struct xensim_call *call, uint32_t index, const struct xensim_domain *domain)
{
    if (call->op == XENSIM_OP_GETDOMAININFOLIST) {
        struct xen_sysctl *sysctl = call->argument;

        describe(domain, sysctl->u.getdomaininfolist.buffer.p + index);
    } else {
        struct xen_domctl *domctl = call->argument;

        describe(domain, &domctl->u.getdomaininfo);
        domctl->domain = (domid_t)domain->domid;
    }
}

void xensim_abi_put_count(const struct xensim_call *call, uint32_t count)
{
    struct xen_sysctl *sysctl = call->argument;

    sysctl->u.getdomaininfolist.num_domains = count;
}

void xensim_abi_put_domid(const struct xensim_call *call, uint32_t domid)
{
    struct xen_domctl *domctl = call->argument;

    domctl->domain = (domid_t)domid;
}

void xensim_abi_put_physinfo(const struct xensim_call *call, uint64_t used_pages)
{
    struct xen_sysctl_physinfo *info = &((struct xen_sysctl *)call->argument)->u.physinfo;

    memset(info, 0, sizeof *info);
    info->threads_per_core = 1;
    info->cores_per_socket = CPUS;
    info->nr_cpus = CPUS;
    info->max_cpu_id = CPUS - 1;
    info->nr_nodes = 1;
    info->cpu_khz = 2000000;
    info->capabilities = XEN_SYSCTL_PHYSCAP_pv | XEN_SYSCTL_PHYSCAP_hvm;
    /* 64 GiB, or as much as is used and 4 GiB. */
    info->free_pages = used_pages < (15u << 20) ? (16u << 20) - used_pages : 1u << 20;
    info->total_pages = info->free_pages + used_pages;
}

/* The caller's map may have room for fewer. */
static void put_cpus(struct xenctl_bitmap *map, uint32_t cpus)
{
    uint32_t cpu;

    memset(map->bitmap.p, 0, (map->nr_bits + 7) / 8);
    for (cpu = 0; cpu < cpus && cpu < map->nr_bits; cpu++)
        map->bitmap.p[cpu / 8] |= (uint8_t)(1u << cpu % 8);
}

void xensim_abi_put_cpupool(const struct xensim_call *call, uint32_t domains)
{
    struct xen_sysctl_cpupool_op *cpupool = &((struct xen_sysctl *)call->argument)->u.cpupool_op;

    cpupool->cpupool_id = 0;
    cpupool->sched_id = XEN_SCHEDULER_CREDIT2;
    cpupool->n_dom = domains;
    put_cpus(&cpupool->cpumap, CPUS);
}

void xensim_abi_put_no_free_cpu(const struct xensim_call *call)
{
    put_cpus(&((struct xen_sysctl *)call->argument)->u.cpupool_op.cpumap, 0);
}

static long put_text(char *out, size_t room, const char *text)
{
    memset(out, 0, room);
    memcpy(out, text, strlen(text));
    return 0;
}

long xensim_abi_xen_version(const struct xensim_call *call)
{
    void *out = call->argument;

    switch (call->count) {
    case XENVER_version:
        return XENSIM_XEN_MAJOR << 16 | XENSIM_XEN_MINOR;
    case XENVER_extraversion:
        return put_text(out, sizeof(xen_extraversion_t), ".0-xensim");
    case XENVER_compile_info: {
        xen_compile_info_t *info = out;

        put_text(info->compiler, sizeof info->compiler, "none");
        put_text(info->compile_by, sizeof info->compile_by, "xensim");
        put_text(info->compile_domain, sizeof info->compile_domain, "");
        return put_text(info->compile_date, sizeof info->compile_date, "");
    }
    case XENVER_capabilities:
        return put_text(out, sizeof(xen_capabilities_info_t), "xen-3.0-x86_64 hvm-3.0-x86_64 ");
    case XENVER_changeset:
        return put_text(out, sizeof(xen_changeset_info_t), "simulated");
    case XENVER_platform_parameters:
        memset(out, 0, sizeof(xen_platform_parameters_t));
        return 0;
    case XENVER_commandline:
        return put_text(out, sizeof(xen_commandline_t), "");
    case XENVER_pagesize:
        return KIB_PER_PAGE * 1024;
    }
    return -ENOSYS;
}

void xensim_abi_get_grant(const void *argument, struct xensim_grant *grant)
{
    const struct ioctl_gntdev_map_grant_ref *map = argument;

    grant->count = map->count;
    grant->domid = map->refs[0].domid;
    grant->reference = map->refs[0].ref;
}

void xensim_abi_put_grant_index(void *argument, uint64_t index)
{
    struct ioctl_gntdev_map_grant_ref *map = argument;

    map->index = index;
}

/* Asked for before an unmap, which then succeeds whatever it says. A mapping is always one page. */
void xensim_abi_put_grant_offset(void *argument)
{
    struct ioctl_gntdev_get_offset_for_vaddr *get = argument;

    get->offset = 0;
    get->count = 1;
}

_Static_assert(offsetof(struct ioctl_evtchn_bind_virq, virq) == 0 && offsetof(struct ioctl_evtchn_unbind, port) == 0 &&
                   offsetof(struct ioctl_evtchn_notify, port) == 0 && sizeof(unsigned int) == sizeof(uint32_t),
               "the number stands first");

uint32_t xensim_abi_get_number(const void *argument)
{
    uint32_t number;

    memcpy(&number, argument, sizeof number);
    return number;
}
