// SPDX-License-Identifier: LGPL-2.1-or-later
//! How a host is asked for many domains: with few questions, and no longer answers than are needed. Who wants to know goes
//! through its domains and the answers side by side, both ascending.

use nix::errno::Errno;

use crate::xen::DOMID_LIMIT;
use crate::xen::hypervisor::{DomainInfo, Host};

/// Up to this many questions the host is asked for each domain by itself,
pub(super) const FEW: usize = 4;

/// unless they are so near each other that one answer serves for all: it then fits a page, as any does.
const NEAR: usize = 32;

/// Otherwise for so many domains at a time, per question that is left: where most domains are watched, one answer serves
/// for all; where few are, an answer isn't much longer than what is wanted of it.
pub(super) const PER_QUESTION: usize = 8;

/// And never for more than this at once.
pub(super) const BATCH: usize = 1024;

/// What a look will want to know of the host, to be learnt with as few hypercalls as can be.
#[derive(Clone, Copy)]
pub(super) struct Questions {
    /// How many places will be asked for, at most.
    pub(super) most: usize,
    /// The highest of them.
    pub(super) last: u32,
}

impl Questions {
    /// Asks for a place, and for those after it that the same answer may serve. `done`: how many were asked for before.
    /// Rare beside what is done with an answer, and kept out of its way.
    #[cold]
    pub(super) fn ask<'host, H: Host + ?Sized>(
        &self,
        host: &'host mut H,
        place: u32,
        done: usize,
    ) -> Result<Answer<'host>, Errno> {
        if place >= DOMID_LIMIT {
            return Ok(Answer { domains: [].iter(), to: u32::MAX });
        }
        let left = self.most - done;
        let span = self.last.saturating_sub(place) as usize + 1;
        let batch = match left {
            ..=FEW if span <= NEAR => span,
            ..=FEW => 1,
            _ => BATCH.min(left * PER_QUESTION).min(span),
        };
        host.ask(place, batch)?;
        let domains = host.answer();
        let to = match domains.last() {
            Some(last) if domains.len() >= batch => last.domid() + 1,
            _ => DOMID_LIMIT,
        };
        Ok(Answer { domains: domains.iter(), to })
    }
}

/// What the host has said of the places from the one that was asked for, to be gone through in ascending order.
pub(super) struct Answer<'host> {
    /// The domains that haven't been passed.
    domains: std::slice::Iter<'host, DomainInfo>,
    /// From here on it says nothing.
    to: u32,
}

impl Answer<'_> {
    /// Before the first question.
    pub(super) fn none() -> Self {
        Answer { domains: [].iter(), to: 0 }
    }

    pub(super) fn tells_of(&self, place: u32) -> bool {
        place < self.to
    }

    /// The domain of that number, if there is one.
    pub(super) fn find(&mut self, place: u32) -> Option<&DomainInfo> {
        loop {
            let next = self.domains.as_slice().first()?;
            if next.domid() >= place {
                return Some(next).filter(|next| next.domid() == place);
            }
            self.domains.next();
        }
    }
}
