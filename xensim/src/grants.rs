// SPDX-License-Identifier: LGPL-2.1-or-later
//! The pages that domains grant to others: one sparse file, a place for each.
//!
//! There is no guest memory beyond these: the page of a domain's console and that of its store connection, which every
//! domain has from the start. xenstored maps the latter when a domain is introduced, and finds an idle connection in
//! it.

use std::ffi::CStr;
use std::io;

use crate::sys;
use crate::table::FIRST_RESERVED_DOMID;

/// How many references of a domain are known, from 0: its console's and its store's page.
const PER_DOMAIN: u64 = 2;
/// The reference of the store's page.
pub const STORE_REFERENCE: u32 = 1;
/// Bytes in a page.
pub const PAGE: u64 = 4096;
/// Length of the file; it is sparse.
pub const SIZE: u64 = FIRST_RESERVED_DOMID as u64 * PER_DOMAIN * PAGE;

/// Where in the file the page stands that a domain has granted under this reference.
pub fn offset(domid: u32, reference: u32) -> Option<u64> {
    let known = (domid as usize) < FIRST_RESERVED_DOMID && u64::from(reference) < PER_DOMAIN;
    known.then(|| (u64::from(domid) * PER_DOMAIN + u64::from(reference)) * PAGE)
}

/// Makes a new domain's pages read as zeroes, whatever an earlier domain of that number left in them.
pub fn clear(file: &CStr, domid: u32) -> io::Result<()> {
    let Some(offset) = offset(domid, 0) else { return Ok(()) };
    let file = sys::open(file, libc::O_RDWR)?;
    sys::punch_hole(&file, offset, PER_DOMAIN * PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_its_place_in_the_file() {
        let last = FIRST_RESERVED_DOMID as u32 - 1;
        assert_eq!(offset(0, 0), Some(0));
        assert_eq!(offset(0, STORE_REFERENCE), Some(PAGE));
        assert_eq!(offset(1, 0), Some(2 * PAGE));
        assert_eq!(offset(last, STORE_REFERENCE), Some(SIZE - PAGE));
        assert_eq!(offset(last + 1, 0), None);
        assert_eq!(offset(1, 2), None);
    }
}
