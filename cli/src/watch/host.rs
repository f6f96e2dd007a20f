// SPDX-License-Identifier: LGPL-2.1-or-later
//! What the host had to show when the command began.

use std::collections::HashMap;

use xlevent::event::Kind;
use xlevent::xen::hypervisor::{DomainInfo, Hypervisor};

use crate::exit::{Failure, Result};

/// `LIBXL_SHUTDOWN_REASON_SUSPEND`.
const SUSPEND: u8 = 2;

/// Domain 0 is nobody's guest.
pub const CONTROL_DOMAIN: u32 = 0;

/// All domains, ascending.
pub fn domains() -> Result<Vec<DomainInfo>> {
    let (hypervisor, lines) = Hypervisor::open();
    let no_xen = |why: xlevent::error::Error| {
        let said = lines.last().map(|line| format!(" ({})", line.text)).unwrap_or_default();
        Failure::NoXen(format!("{}{said}", super::describe(&why)))
    };
    hypervisor.and_then(|mut hypervisor| hypervisor.domains()).map_err(no_xen)
}

/// What may be told of a domain that was there at the beginning, although it is no news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Old {
    uuid: [u8; 16],
    state: Option<Kind>,
}

/// What was there at the beginning, domain by domain, until the first news of it.
#[derive(Debug, Default)]
pub struct Beginning(HashMap<u32, Old>);

impl Beginning {
    pub fn of(domains: &[DomainInfo]) -> Self {
        let old = |info: &DomainInfo| {
            let state = match info.shutdown_reason() {
                _ if info.dying() => Some(Kind::DomainDeath),
                None => None,
                Some(SUSPEND) => Some(Kind::DomainSuspended),
                Some(reason) => Some(Kind::DomainShutdown { reason }),
            };
            (info.domid(), Old { uuid: info.uuid(), state })
        };
        Beginning(domains.iter().map(old).collect())
    }

    /// Whether this tells only what was so at the beginning.
    pub fn has(&mut self, domid: u32, uuid: [u8; 16], kind: Kind) -> bool {
        let Some(old) = self.0.get(&domid) else { return false };
        let same = old.uuid == uuid;
        if same && kind == Kind::DomainCreated {
            // Its state may follow.
            return true;
        }
        let known = same && old.state == Some(kind);
        self.0.remove(&domid);
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_so_is_no_news_and_what_follows_is() {
        let one = [1; 16];
        let old = |state| Beginning(HashMap::from([(5, Old { uuid: one, state })]));
        let shutdown = |reason| Kind::DomainShutdown { reason };

        let mut running = old(None);
        assert!(running.has(5, one, Kind::DomainCreated));
        assert!(!running.has(5, one, shutdown(0)));
        assert!(!running.has(5, one, Kind::DomainCreated));

        let mut down = old(Some(shutdown(3)));
        assert!(down.has(5, one, Kind::DomainCreated));
        assert!(down.has(5, one, shutdown(3)));
        assert!(!down.has(5, one, shutdown(3)), "once");
        assert!(!old(Some(shutdown(3))).has(5, one, shutdown(0)), "for another reason");

        let mut suspended = old(Some(Kind::DomainSuspended));
        assert!(!suspended.has(5, one, Kind::DomainRunning));
        assert!(!suspended.has(5, one, Kind::DomainSuspended), "it has run since");

        assert!(!old(None).has(5, [2; 16], Kind::DomainCreated), "another domain with its number");
        assert!(!old(None).has(6, one, Kind::DomainCreated));
    }
}
