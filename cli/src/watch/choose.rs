// SPDX-License-Identifier: LGPL-2.1-or-later
//! Which domains are meant.

use std::collections::BTreeMap;

use xlevent::xen::hypervisor::DomainInfo;

use super::line::printable;
use crate::args::Wanted;
use crate::exit::{Failure, Result};

/// The domains that are named, ascending, of those that are there.
pub fn choose<'a>(
    wanted: &[Wanted],
    there: &[DomainInfo],
    name: impl Fn(u32) -> Option<&'a [u8]>,
) -> Result<Vec<DomainInfo>> {
    let mut chosen = BTreeMap::new();
    for wanted in wanted {
        let (found, shown): (Vec<&DomainInfo>, String) = match wanted {
            Wanted::Number(domid) => (there.iter().filter(|info| info.domid() == *domid).collect(), domid.to_string()),
            Wanted::Name(wanted) => {
                let called = there.iter().filter(|info| name(info.domid()) == Some(wanted));
                let (dying, living): (Vec<_>, Vec<_>) = called.partition(|info| info.dying());
                // A name may be empty, or have blanks.
                let shown = format!("'{}'", printable(wanted));
                match living.len() {
                    // They are dead, as far as anybody waits for that.
                    0 => (dying, shown),
                    1 => (living, shown),
                    _ => return Err(several(&shown, &living)),
                }
            }
        };
        if found.is_empty() {
            return Err(Failure::Failed(format!("there is no domain {shown}")));
        }
        chosen.extend(found.into_iter().map(|info| (info.domid(), *info)));
    }
    Ok(chosen.into_values().collect())
}

fn several(shown: &str, living: &[&DomainInfo]) -> Failure {
    let domids: Vec<_> = living.iter().map(|info| info.domid().to_string()).collect();
    Failure::Failed(format!("{shown} is the name of several domains: {}", domids.join(", ")))
}
