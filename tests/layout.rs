// SPDX-License-Identifier: LGPL-2.1-or-later
//! The Rust types of the C boundary have the sizes, offsets and values of `ctests/header/abi.def` and `extensions.def`,
//! the lists that the C compiler checks against Xen's headers and ours. The lists are read, not copied, and both sides
//! must be complete: an entry without a Rust counterpart fails, and so does a row below that the lists don't have.
#![cfg(target_pointer_width = "64")]

use std::collections::BTreeMap;
use std::mem::{align_of, offset_of, size_of};

use xlevent::capi::ao::*;
use xlevent::capi::asyncop::*;
use xlevent::capi::childproc::*;
use xlevent::capi::event::*;
use xlevent::capi::loops::*;
use xlevent::capi::osevent::*;
use xlevent::capi::state::*;
use xlevent::capi::stats::*;
use xlevent::capi::types::*;

/// The entries of one kind, `KIND(a, b, …)`, each split at the commas outside parentheses.
fn entries(kind: &str) -> Vec<Vec<String>> {
    concat!(include_str!("../ctests/header/abi.def"), include_str!("../ctests/header/extensions.def"))
        .lines()
        .filter_map(|line| line.strip_prefix(kind)?.strip_prefix('(')?.strip_suffix(')'))
        .map(|inside| {
            let mut depth = 0;
            let at_commas = |c: char| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                c == ',' && depth == 0
            };
            // Rust has no tags.
            inside.split(at_commas).map(|part| part.trim().trim_start_matches("struct ").to_owned()).collect()
        })
        .collect()
}

/// Entries as the name and its numbers, so that two lists can be compared with one `assert_eq!`.
type Table = BTreeMap<String, Vec<i64>>;

fn number(text: &str) -> i64 {
    text.parse().unwrap_or_else(|_| panic!("abi.def: {text} is not a number"))
}

macro_rules! types {
    ($($type:ty),* $(,)?) => {
        [$((stringify!($type).to_owned(), vec![size_of::<$type>() as i64, align_of::<$type>() as i64])),*]
    };
}

macro_rules! fields {
    ($($type:ident { $($field:ident),* $(,)? })*) => {
        [$($((
            format!("{}.{}", stringify!($type), stringify!($field).trim_start_matches("r#")),
            vec![offset_of!($type, $field) as i64],
        )),*),*]
    };
}

macro_rules! values {
    ($($value:expr),* $(,)?) => {
        [$((stringify!($value).rsplit("::").next().unwrap().trim().to_owned(), vec![$value as i64])),*]
    };
}

#[test]
fn sizes_and_alignments() {
    let list: Table = entries("TYPE").iter().map(|e| (e[0].clone(), vec![number(&e[1]), number(&e[2])])).collect();
    let rust = Table::from(types![
        libxl_domid,
        libxl_ev_user,
        libxl_event_type,
        libxl_sigchld_owner,
        libxl_disk_format,
        libxl_disk_backend,
        libxl_disk_specification,
        libxl_disk_transport,
        libxl_ev_link,
        libxl_uuid,
        libxl_defbool,
        libxl_device_disk,
        libxl_event,
        libxl_event_hooks,
        libxl_osevent_hooks,
        libxl_childproc_hooks,
        libxl_asyncop_how,
        xlevent_stats,
        xlevent_handler,
        xlevent_device,
    ]);
    assert_eq!(rust, list);
}

#[test]
fn offsets() {
    let list: Table = entries("FIELD").iter().map(|e| (format!("{}.{}", e[0], e[1]), vec![number(&e[2])])).collect();
    let mut rust = Table::from(fields! {
        libxl_ev_link { tqe_next, tqe_prev }
        libxl_uuid { uuid }
        libxl_defbool { val }
        libxl_device_disk {
            backend_domid, backend_domname, pdev_path, vdev, backend, format, script, removable, readwrite, is_cdrom,
            direct_io_safe, discard_enable, specification, transport, irq, base, colo_enable, colo_restore_enable,
            colo_host, colo_port, colo_export, active_disk, hidden_disk, trusted,
        }
        libxl_event { link, domid, domuuid, for_user, r#type }
        libxl_event_hooks { event_occurs_mask, event_occurs, disaster }
        libxl_osevent_hooks {
            fd_register, fd_modify, fd_deregister, timeout_register, timeout_modify, timeout_deregister,
        }
        libxl_childproc_hooks { chldowner, fork_replacement, reaped_callback }
        libxl_asyncop_how { callback }
        xlevent_device { kind, devid }
        xlevent_stats {
            filled, releases, scans, partial_scans, failed_scans, hypercalls, domains_examined, drive_looks,
            events_domain_shutdown, events_domain_death, events_disk_eject, events_operation_complete,
            events_domain_create_console_available, events_other, events_called_back, disasters, xenstored_losses,
            reconnections, children_started, turns, events_queued, events_queued_most, watching, death_generators,
            eject_generators, drives_watched, children_running, events_domain_suspended, events_domain_running,
            events_domain_created, introductions, resume_looks, state_generators, domains_known, ejections_merged,
            events_queued_for_subscribers, events_queued_bytes,
        }
        xlevent_handler { r#type, handle }
    });
    // Inside the union, whose members all begin where it begins.
    let u = offset_of!(libxl_event, u);
    for (name, at) in [
        ("domain_shutdown.shutdown_reason", offset_of!(libxl_event_domain_shutdown, shutdown_reason)),
        ("disk_eject.vdev", offset_of!(libxl_event_disk_eject, vdev)),
        ("disk_eject.disk", offset_of!(libxl_event_disk_eject, disk)),
        ("operation_complete.rc", offset_of!(libxl_event_operation_complete, rc)),
    ] {
        rust.insert(format!("libxl_event.u.{name}"), vec![(u + at) as i64]);
    }
    for name in ["for_event", "for_callback"] {
        rust.insert(format!("libxl_asyncop_how.u.{name}"), vec![offset_of!(libxl_asyncop_how, u) as i64]);
    }
    assert_eq!(rust, list);
}

#[test]
fn enumerators() {
    use LibxlDiskBackendValues as Backend;
    use LibxlDiskFormatValues as Format;
    use LibxlDiskSpecificationValues as Specification;
    use LibxlDiskTransportValues as Transport;
    use LibxlErrorValues as E;

    let list: Table = entries("VALUE").iter().map(|e| (e[0].clone(), vec![number(&e[1])])).collect();
    let rust = Table::from(values![
        LIBXL_VERSION,
        LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN,
        LIBXL_EVENT_TYPE_DOMAIN_DEATH,
        LIBXL_EVENT_TYPE_DISK_EJECT,
        LIBXL_EVENT_TYPE_OPERATION_COMPLETE,
        LIBXL_EVENT_TYPE_DOMAIN_CREATE_CONSOLE_AVAILABLE,
        LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED,
        LIBXL_EVENT_TYPE_DOMAIN_RUNNING,
        LIBXL_EVENT_TYPE_DOMAIN_CREATED,
        LIBXL_DOMID_ANY,
        libxl_sigchld_owner_libxl,
        libxl_sigchld_owner_mainloop,
        libxl_sigchld_owner_libxl_always,
        libxl_sigchld_owner_libxl_always_selective_reap,
        Format::LIBXL_DISK_FORMAT_UNKNOWN,
        Format::LIBXL_DISK_FORMAT_QCOW,
        Format::LIBXL_DISK_FORMAT_QCOW2,
        Format::LIBXL_DISK_FORMAT_VHD,
        Format::LIBXL_DISK_FORMAT_RAW,
        Format::LIBXL_DISK_FORMAT_EMPTY,
        Format::LIBXL_DISK_FORMAT_QED,
        Backend::LIBXL_DISK_BACKEND_UNKNOWN,
        Backend::LIBXL_DISK_BACKEND_PHY,
        Backend::LIBXL_DISK_BACKEND_TAP,
        Backend::LIBXL_DISK_BACKEND_QDISK,
        Backend::LIBXL_DISK_BACKEND_STANDALONE,
        Specification::LIBXL_DISK_SPECIFICATION_UNKNOWN,
        Specification::LIBXL_DISK_SPECIFICATION_XEN,
        Specification::LIBXL_DISK_SPECIFICATION_VIRTIO,
        Transport::LIBXL_DISK_TRANSPORT_UNKNOWN,
        Transport::LIBXL_DISK_TRANSPORT_MMIO,
        E::ERROR_NONSPECIFIC,
        E::ERROR_VERSION,
        E::ERROR_FAIL,
        E::ERROR_NI,
        E::ERROR_NOMEM,
        E::ERROR_INVAL,
        E::ERROR_BADFAIL,
        E::ERROR_GUEST_TIMEDOUT,
        E::ERROR_TIMEDOUT,
        E::ERROR_NOPARAVIRT,
        E::ERROR_NOT_READY,
        E::ERROR_OSEVENT_REG_FAIL,
        E::ERROR_BUFFERFULL,
        E::ERROR_UNKNOWN_CHILD,
        E::ERROR_LOCK_FAIL,
        E::ERROR_JSON_CONFIG_EMPTY,
        E::ERROR_DEVICE_EXISTS,
        E::ERROR_CHECKPOINT_DEVOPS_DOES_NOT_MATCH,
        E::ERROR_CHECKPOINT_DEVICE_NOT_SUPPORTED,
        E::ERROR_VNUMA_CONFIG_INVALID,
        E::ERROR_DOMAIN_NOTFOUND,
        E::ERROR_ABORTED,
        E::ERROR_NOTFOUND,
        E::ERROR_DOMAIN_DESTROYED,
        E::ERROR_FEATURE_REMOVED,
        E::ERROR_PROTOCOL_ERROR_QMP,
        E::ERROR_UNKNOWN_QMP_ERROR,
        E::ERROR_QMP_GENERIC_ERROR,
        E::ERROR_QMP_COMMAND_NOT_FOUND,
        E::ERROR_QMP_DEVICE_NOT_ACTIVE,
        E::ERROR_QMP_DEVICE_NOT_FOUND,
        E::ERROR_QEMU_API,
        XLEVENT_ALL_OTHERS,
        XleventDeviceKindValues::XLEVENT_DEVICE_KIND_VIF,
        XleventDeviceKindValues::XLEVENT_DEVICE_KIND_VBD,
        XleventDeviceKindValues::XLEVENT_DEVICE_KIND_VFB,
        XleventDeviceKindValues::XLEVENT_DEVICE_KIND_VKBD,
        XleventDeviceKindValues::XLEVENT_DEVICE_KIND_VTPM,
        XleventDeviceKindValues::XLEVENT_DEVICE_KIND_9PFS,
        XleventDeviceKindValues::XLEVENT_DEVICE_KIND_VDISPL,
        XleventDeviceKindValues::XLEVENT_DEVICE_KIND_PVCALLS,
        XleventDeviceKindValues::XLEVENT_DEVICE_KIND_VSND,
        XLEVENT_FORCE_LATE,
        XLEVENT_FORCE_NOW,
        XLEVENT_FORCE_NEVER,
    ]);
    assert_eq!(rust, list);
}
