// SPDX-License-Identifier: LGPL-2.1-or-later
//! The C types that a program takes from `<libxl.h>`, laid out as in Xen 4.17.
//!
//! On a machine with libxen-dev the C side has them from there; without it, our `libxl_event.h` declares them itself,
//! generated from this file. Types that belong to one section of the header stand in that section's file.
//!
//! Invariants:
//! - Size, alignment and every offset equal those of Xen's headers (`tests/layout.rs`, `ctests/header/`).
//! - A C enum is a plain integer here. C lets a caller pass any number for an enum, and in Rust an enum with an unlisted
//!   value is undefined behaviour. So each comes as a pair: an integer alias with the C name, which is what crosses the
//!   boundary, and an enum that lists the values (`…Values`), from which the header's enum and our constants are made.
//! - Nothing here is read from a caller's memory except through raw pointers in `capi`.
//! - This is the lowest room: it knows nothing of the others.

// The names are C's.
#![allow(non_camel_case_types, non_upper_case_globals)]

use std::ffi::{c_char, c_int, c_uchar, c_uint};

/// Makes integer constants, with the C names, from the enum that lists the values.
macro_rules! constants {
    ($values:ident as $integer:ty: $($name:ident),* $(,)?) => {
        $(
            #[doc = concat!("The C constant `", stringify!($name), "`.")]
            pub const $name: $integer = $values::$name as $integer;
        )*
    };
}
pub(crate) use constants;

/// A domain's number, from 0 (the control domain) up. Xen gives a number out again after its domain is gone.
pub type libxl_domid = u32;

/// A value of the caller's own choice, handed back unchanged in each event. It can hold any pointer.
pub type libxl_ev_user = u64;

/// The version number to give to libxl_ctx_alloc.
///
/// cbindgen:ignore
pub const LIBXL_VERSION: c_int = 0;

/// The links of the library's own list of events. Not for applications: the contents mean nothing outside.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct libxl_ev_link {
    /// The next event of the list.
    pub tqe_next: *mut libxl_event,
    /// Where the pointer to this event is stored.
    pub tqe_prev: *mut *mut libxl_event,
}

/// A domain's UUID: 16 bytes, most significant first.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct libxl_uuid {
    /// The bytes, in the order in which they are printed.
    pub uuid: [c_uchar; 16],
}

/// A yes or no that may be left open: negative is no, positive is yes, 0 leaves it to the library.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct libxl_defbool {
    /// The answer.
    pub val: c_int,
}

/// The error numbers that functions return. All are negative; 0 is success.
#[repr(C)]
pub enum LibxlErrorValues {
    /// An error of no particular kind.
    ERROR_NONSPECIFIC = -1,
    /// The caller was built for another version of the interface.
    ERROR_VERSION = -2,
    /// The operation failed; the log says why.
    ERROR_FAIL = -3,
    /// Not implemented.
    ERROR_NI = -4,
    /// Out of memory.
    ERROR_NOMEM = -5,
    /// An argument, or the moment of the call, is wrong.
    ERROR_INVAL = -6,
    /// The operation failed, and so did the attempt to undo it.
    ERROR_BADFAIL = -7,
    /// The guest did not answer in time.
    ERROR_GUEST_TIMEDOUT = -8,
    /// Something other than the guest did not answer in time.
    ERROR_TIMEDOUT = -9,
    /// The guest has no paravirtual drivers.
    ERROR_NOPARAVIRT = -10,
    /// What was asked for has not happened yet.
    ERROR_NOT_READY = -11,
    /// A hook of the application refused to register a descriptor or a timeout.
    ERROR_OSEVENT_REG_FAIL = -12,
    /// The caller's buffer is too small.
    ERROR_BUFFERFULL = -13,
    /// The process is not a child that the one asked knows of.
    ERROR_UNKNOWN_CHILD = -14,
    /// A lock could not be taken.
    ERROR_LOCK_FAIL = -15,
    /// There is no stored configuration.
    ERROR_JSON_CONFIG_EMPTY = -16,
    /// The device exists already.
    ERROR_DEVICE_EXISTS = -17,
    /// A checkpoint device operation does not fit the device.
    ERROR_CHECKPOINT_DEVOPS_DOES_NOT_MATCH = -18,
    /// The device cannot be checkpointed.
    ERROR_CHECKPOINT_DEVICE_NOT_SUPPORTED = -19,
    /// The virtual NUMA configuration is not valid.
    ERROR_VNUMA_CONFIG_INVALID = -20,
    /// There is no such domain.
    ERROR_DOMAIN_NOTFOUND = -21,
    /// The operation was called off.
    ERROR_ABORTED = -22,
    /// There is no such thing.
    ERROR_NOTFOUND = -23,
    /// The domain was destroyed meanwhile.
    ERROR_DOMAIN_DESTROYED = -24,
    /// The feature no longer exists.
    ERROR_FEATURE_REMOVED = -25,
    /// QEMU's answer breaks its protocol.
    ERROR_PROTOCOL_ERROR_QMP = -26,
    /// QEMU answered with an error of an unknown class.
    ERROR_UNKNOWN_QMP_ERROR = -27,
    /// QEMU answered with an error of its general class.
    ERROR_QMP_GENERIC_ERROR = -28,
    /// QEMU does not know the command.
    ERROR_QMP_COMMAND_NOT_FOUND = -29,
    /// QEMU says that the device is not active.
    ERROR_QMP_DEVICE_NOT_ACTIVE = -30,
    /// QEMU does not know the device.
    ERROR_QMP_DEVICE_NOT_FOUND = -31,
    /// QEMU's answer lacks something that it should have.
    ERROR_QEMU_API = -32,
}

constants! { LibxlErrorValues as c_int:
    ERROR_NONSPECIFIC, ERROR_VERSION, ERROR_FAIL, ERROR_NI, ERROR_NOMEM, ERROR_INVAL, ERROR_BADFAIL,
    ERROR_TIMEDOUT, ERROR_NOT_READY, ERROR_OSEVENT_REG_FAIL, ERROR_BUFFERFULL, ERROR_UNKNOWN_CHILD,
    ERROR_DOMAIN_NOTFOUND, ERROR_ABORTED, ERROR_NOTFOUND,
}

/// What an event is about. In a mask of event types, the bit is `1 << type`.
#[repr(C)]
pub enum LibxlEventTypeValues {
    /// A domain has shut down; `u.domain_shutdown` says why. Its memory and devices are still there.
    LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN = 1,
    /// A domain is being destroyed, or is gone.
    LIBXL_EVENT_TYPE_DOMAIN_DEATH = 2,
    /// A guest has opened the tray of a virtual CD drive; see `u.disk_eject`.
    LIBXL_EVENT_TYPE_DISK_EJECT = 3,
    /// An asynchronous operation has ended; `u.operation_complete` has its result.
    LIBXL_EVENT_TYPE_OPERATION_COMPLETE = 4,
    /// A domain that is being created has its console.
    LIBXL_EVENT_TYPE_DOMAIN_CREATE_CONSOLE_AVAILABLE = 5,
}

/// An event's type as it crosses the boundary: one of [`LibxlEventTypeValues`], or anything that a caller makes up.
///
/// cbindgen:ignore
pub type libxl_event_type = c_uint;

constants! { LibxlEventTypeValues as libxl_event_type:
    LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN, LIBXL_EVENT_TYPE_DOMAIN_DEATH, LIBXL_EVENT_TYPE_DISK_EJECT,
    LIBXL_EVENT_TYPE_OPERATION_COMPLETE, LIBXL_EVENT_TYPE_DOMAIN_CREATE_CONSOLE_AVAILABLE,
}

/// The event type "a domain is suspended", which libxl hasn't, as those that follow. C programs have them from xlevent.h.
///
/// cbindgen:ignore
pub const LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED: libxl_event_type = 40;

/// "A domain runs again".
///
/// cbindgen:ignore
pub const LIBXL_EVENT_TYPE_DOMAIN_RUNNING: libxl_event_type = 41;

/// "There is a new domain".
///
/// cbindgen:ignore
pub const LIBXL_EVENT_TYPE_DOMAIN_CREATED: libxl_event_type = 42;

/// What a disk's data is stored in.
#[repr(C)]
pub enum LibxlDiskFormatValues {
    /// Not known.
    LIBXL_DISK_FORMAT_UNKNOWN = 0,
    /// A qcow image.
    LIBXL_DISK_FORMAT_QCOW = 1,
    /// A qcow2 image.
    LIBXL_DISK_FORMAT_QCOW2 = 2,
    /// A VHD image.
    LIBXL_DISK_FORMAT_VHD = 3,
    /// The plain data.
    LIBXL_DISK_FORMAT_RAW = 4,
    /// No medium: a drive with nothing in it.
    LIBXL_DISK_FORMAT_EMPTY = 5,
    /// A QED image.
    LIBXL_DISK_FORMAT_QED = 6,
}

/// A disk format as it crosses the boundary.
///
/// cbindgen:ignore
pub type libxl_disk_format = c_uint;

constants! { LibxlDiskFormatValues as libxl_disk_format: LIBXL_DISK_FORMAT_UNKNOWN, LIBXL_DISK_FORMAT_EMPTY }

/// Which program or driver serves a disk.
#[repr(C)]
pub enum LibxlDiskBackendValues {
    /// Not known, or left to the library.
    LIBXL_DISK_BACKEND_UNKNOWN = 0,
    /// The kernel's block driver.
    LIBXL_DISK_BACKEND_PHY = 1,
    /// blktap.
    LIBXL_DISK_BACKEND_TAP = 2,
    /// QEMU.
    LIBXL_DISK_BACKEND_QDISK = 3,
    /// A program that is none of these.
    LIBXL_DISK_BACKEND_STANDALONE = 4,
}

/// A disk backend as it crosses the boundary.
///
/// cbindgen:ignore
pub type libxl_disk_backend = c_uint;

constants! { LibxlDiskBackendValues as libxl_disk_backend:
    LIBXL_DISK_BACKEND_UNKNOWN, LIBXL_DISK_BACKEND_PHY, LIBXL_DISK_BACKEND_TAP, LIBXL_DISK_BACKEND_QDISK,
}

/// By which protocol the guest talks to a disk.
#[repr(C)]
pub enum LibxlDiskSpecificationValues {
    /// Not said.
    LIBXL_DISK_SPECIFICATION_UNKNOWN = 0,
    /// Xen's block protocol.
    LIBXL_DISK_SPECIFICATION_XEN = 1,
    /// virtio.
    LIBXL_DISK_SPECIFICATION_VIRTIO = 2,
}

/// A disk protocol as it crosses the boundary.
///
/// cbindgen:ignore
pub type libxl_disk_specification = c_uint;

/// How a virtio disk is attached.
#[repr(C)]
pub enum LibxlDiskTransportValues {
    /// Not said, or not virtio.
    LIBXL_DISK_TRANSPORT_UNKNOWN = 0,
    /// Through memory-mapped registers.
    LIBXL_DISK_TRANSPORT_MMIO = 1,
}

/// A virtio transport as it crosses the boundary.
///
/// cbindgen:ignore
pub type libxl_disk_transport = c_uint;

/// A guest's disk. In an event all strings belong to the event and go with it.
#[repr(C)]
pub struct libxl_device_disk {
    /// The domain that serves the disk.
    pub backend_domid: libxl_domid,
    /// That domain's name, where it is given by name; else NULL.
    pub backend_domname: *mut c_char,
    /// What the disk is stored in: a path or a target of the backend's.
    pub pdev_path: *mut c_char,
    /// The disk's name in the guest, such as `xvda` or `hdc`.
    pub vdev: *mut c_char,
    /// Who serves it.
    pub backend: libxl_disk_backend,
    /// What the data is stored in.
    pub format: libxl_disk_format,
    /// The hotplug script, or NULL.
    pub script: *mut c_char,
    /// Whether the medium can be taken out.
    pub removable: c_int,
    /// Whether the guest may write.
    pub readwrite: c_int,
    /// Whether it is a CD drive.
    pub is_cdrom: c_int,
    /// Whether the backend may pass the page cache by.
    pub direct_io_safe: bool,
    /// Whether the guest may discard blocks.
    pub discard_enable: libxl_defbool,
    /// The guest's protocol.
    pub specification: libxl_disk_specification,
    /// How a virtio disk is attached.
    pub transport: libxl_disk_transport,
    /// The interrupt of a virtio disk.
    pub irq: u32,
    /// The address of a virtio disk's registers.
    pub base: u64,
    /// Whether COLO replicates the disk.
    pub colo_enable: libxl_defbool,
    /// Whether this is COLO's receiving side.
    pub colo_restore_enable: libxl_defbool,
    /// COLO's other host.
    pub colo_host: *mut c_char,
    /// COLO's port there.
    pub colo_port: c_int,
    /// COLO's export there.
    pub colo_export: *mut c_char,
    /// COLO's active disk.
    pub active_disk: *mut c_char,
    /// COLO's hidden disk.
    pub hidden_disk: *mut c_char,
    /// Whether the guest trusts the backend with its data.
    pub trusted: libxl_defbool,
    // From Xen 4.19 on, `grant_usage`, a libxl_defbool, is in the padding here. Size and offsets are the same; zero is what
    // libxl takes for "not said", so events that are made without it are good for both.
}

/// The part of an event that only LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN has.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct libxl_event_domain_shutdown {
    /// Why the domain shut down, as Xen numbers it: 0 power off, 1 reboot, 2 suspend, 3 crash, 4 watchdog, 5 soft reset.
    pub shutdown_reason: u8,
}

/// The part of an event that only LIBXL_EVENT_TYPE_DISK_EJECT has.
#[repr(C)]
pub struct libxl_event_disk_eject {
    /// The disk's name, as it was given to libxl_evenable_disk_eject.
    pub vdev: *mut c_char,
    /// The drive, now without a medium.
    pub disk: libxl_device_disk,
}

/// The part of an event that only LIBXL_EVENT_TYPE_OPERATION_COMPLETE has.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct libxl_event_operation_complete {
    /// The operation's result: 0 or an error number.
    pub rc: c_int,
}

/// The part of an event that depends on its type. Bytes that the type does not use are zero.
#[repr(C)]
pub union libxl_event_u {
    /// For LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN.
    pub domain_shutdown: libxl_event_domain_shutdown,
    /// For LIBXL_EVENT_TYPE_DISK_EJECT.
    pub disk_eject: std::mem::ManuallyDrop<libxl_event_disk_eject>,
    /// For LIBXL_EVENT_TYPE_OPERATION_COMPLETE.
    pub operation_complete: libxl_event_operation_complete,
}

/// Something that has happened. Whoever receives one owns it, and gives it back with libxl_event_free.
#[repr(C)]
pub struct libxl_event {
    /// The library's own.
    pub link: libxl_ev_link,
    /// The domain that it happened to.
    pub domid: libxl_domid,
    /// That domain's UUID; all zero where it could not be learnt.
    pub domuuid: libxl_uuid,
    /// What the caller gave when it asked for such events.
    pub for_user: u64,
    /// What has happened; it says which member of `u` holds more.
    pub r#type: libxl_event_type,
    /// More about it.
    pub u: libxl_event_u,
}

/// Xen's logger, from `<xentoollog.h>`. Opaque here: a logger is only ever passed on.
pub struct xentoollog_logger {
    _opaque: (),
}
