// SPDX-License-Identifier: LGPL-2.1-or-later
//! Words of the command line that stand for something: domains, error numbers, kinds of hypercall.

use xensim::{Call, Domid, Host};

use crate::args::UsageError;

/// The numbers of the domains that these words name, each once, in the order of the words. A number need not be a
/// domain's.
pub fn domains(host: &Host, words: &[String]) -> Result<Vec<Domid>, UsageError> {
    let mut domids: Vec<Domid> = Vec::new();
    for word in words {
        if word == "all" {
            domids.extend(host.domains().iter().map(|domain| domain.domid).filter(|domid| *domid != 0));
        } else if let Ok(domid) = word.parse() {
            domids.push(domid);
        } else if let Some(range) = range(word) {
            domids.extend(range);
        } else {
            let named = host.domains().into_iter().filter(|domain| domain.name.as_str() == word);
            let before = domids.len();
            domids.extend(named.map(|domain| domain.domid));
            if domids.len() == before {
                return Err(format!("no domain is called {word}"));
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    domids.retain(|domid| seen.insert(*domid));
    if domids.is_empty() && !words.iter().any(|word| word == "all") {
        return Err("a domain is missing".into());
    }
    Ok(domids)
}

fn range(word: &str) -> Option<std::ops::RangeInclusive<Domid>> {
    let (first, last) = word.split_once('-')?;
    Some(first.parse().ok()?..=last.parse().ok()?)
}

const ERRNOS: &[(&str, i32)] = &[
    ("EPERM", libc::EPERM),
    ("ENOENT", libc::ENOENT),
    ("ESRCH", libc::ESRCH),
    ("EINTR", libc::EINTR),
    ("EIO", libc::EIO),
    ("E2BIG", libc::E2BIG),
    ("EBADF", libc::EBADF),
    ("EAGAIN", libc::EAGAIN),
    ("ENOMEM", libc::ENOMEM),
    ("EACCES", libc::EACCES),
    ("EFAULT", libc::EFAULT),
    ("EBUSY", libc::EBUSY),
    ("EEXIST", libc::EEXIST),
    ("ENODEV", libc::ENODEV),
    ("EINVAL", libc::EINVAL),
    ("ENOSPC", libc::ENOSPC),
    ("ERANGE", libc::ERANGE),
    ("ENOSYS", libc::ENOSYS),
    ("EOPNOTSUPP", libc::EOPNOTSUPP),
    ("ETIMEDOUT", libc::ETIMEDOUT),
];

/// The error number with this name, or this number.
pub fn errno(word: &str) -> Result<i32, UsageError> {
    let named = ERRNOS.iter().find(|(name, _)| *name == word).map(|(_, number)| *number);
    named
        .or_else(|| word.parse().ok().filter(|number| (1..4096).contains(number)))
        .ok_or_else(|| format!("{word}: not an error number that is known here"))
}

/// The kind of hypercall with this name.
pub fn call(word: &str) -> Result<Call, UsageError> {
    Call::ALL.into_iter().find(|call| call.name() == word).ok_or_else(|| {
        let names: Vec<&str> = Call::ALL.iter().map(|call| call.name()).collect();
        format!("{word}: not one of {}", names.join(", "))
    })
}
