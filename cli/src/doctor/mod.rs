// SPDX-License-Identifier: LGPL-2.1-or-later
//! `xlevent doctor`: what there is on this host, what would be used of it, and what is amiss.
//!
//! Each thing is looked at by doing what a program would do: hypercalls are made, xenstored is asked. Nothing is changed,
//! and no program is started but the dynamic linker, which is asked what it would do.

mod libxl;
mod xen;

use std::fmt::Display;
use std::io::{self, Write};

use crate::exit::{Failure, Result};

/// How good it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Ok,
    Warn,
    Bad,
}

/// Something that was looked at.
#[derive(Debug)]
pub struct Finding {
    verdict: Verdict,
    what: &'static str,
    text: String,
    advice: Option<String>,
}

impl Finding {
    pub fn ok(what: &'static str, text: impl Display) -> Self {
        Finding { verdict: Verdict::Ok, what, text: text.to_string(), advice: None }
    }

    pub fn warn(what: &'static str, text: impl Display, advice: impl Display) -> Self {
        Finding { verdict: Verdict::Warn, what, text: text.to_string(), advice: Some(advice.to_string()) }
    }

    pub fn bad(what: &'static str, text: impl Display, advice: impl Display) -> Self {
        Finding { verdict: Verdict::Bad, what, text: text.to_string(), advice: Some(advice.to_string()) }
    }

    fn show(&self, to: &mut impl Write) -> io::Result<()> {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Bad => "BAD",
        };
        writeln!(to, "{verdict:<5} {:<12} {}", self.what, self.text)?;
        match &self.advice {
            Some(advice) => writeln!(to, "{:<18} -> {advice}", ""),
            None => Ok(()),
        }
    }
}

/// Shows what was found; whether something is amiss.
fn show(findings: &[Finding]) -> Result<bool> {
    let mut stdout = io::stdout().lock();
    match findings.iter().try_for_each(|finding| finding.show(&mut stdout)) {
        // Nobody reads any more. How it stands, the exit code says all the same.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(Failure::failed("writing", error)),
        _ => {}
    }
    Ok(findings.iter().any(|finding| finding.verdict == Verdict::Bad))
}

pub fn doctor() -> Result<()> {
    let xen = show(&xen::findings())?;
    if show(&libxl::findings())? || xen {
        return Err(Failure::Amiss { xen });
    }
    Ok(())
}
