// SPDX-License-Identifier: LGPL-2.1-or-later
//! `xlevent doctor`: what there is on this host, what would be used of it, and what is amiss.
//!
//! Each thing is looked at by doing what a program would do: hypercalls are made, xenstored is asked. Nothing is changed,
//! and no program is started but the dynamic linker, which is asked what it would do. Each check has its time (`limit`), whatever
//! hangs.

mod libxl;
mod limit;
mod xen;

use std::fmt::{self, Display};
use std::io;
use std::os::fd::AsFd;

use crate::exit::{Failure, Result};
use crate::output::Writer;

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
}

impl Display for Finding {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
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
fn show(findings: &[Finding], to: &Writer) -> Result<bool> {
    findings.iter().for_each(|finding| to.push(finding.to_string().into_bytes()));
    if !to.finish(limit::LIMIT) {
        return Err(Failure::failed("writing", "nobody reads it"));
    }
    match to.take_failure() {
        // Nobody reads any more. How it stands, the exit code says all the same.
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(Failure::failed("writing", error)),
        _ => {}
    }
    Ok(findings.iter().any(|finding| finding.verdict == Verdict::Bad))
}

/// Shows what a check has found; whether something is amiss.
type Show<'a> = &'a mut dyn FnMut(Vec<Finding>) -> Result<bool>;

pub fn doctor() -> Result<()> {
    let stdout = io::stdout().as_fd().try_clone_to_owned().and_then(|stdout| Writer::start(stdout, || {}));
    let stdout = stdout.map_err(|why| Failure::failed("writing", why))?;
    let mut amiss = |findings: Vec<Finding>| show(&findings, &stdout);
    let xen = xen::findings(&mut amiss)?;
    if libxl::findings(&mut amiss)? || xen {
        return Err(Failure::Amiss { xen });
    }
    Ok(())
}
