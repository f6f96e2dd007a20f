// SPDX-License-Identifier: LGPL-2.1-or-later
//! Where the library is, and the object that `run` loads beside it.
//!
//! They are looked for from this program's own place: beside it, as cargo builds them; then in the library directories of
//! the tree that it is installed in; then where `make` was told that they would be installed. So an installation can be
//! moved as a whole, and one that isn't finished doesn't use another's library.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Of a program's tree, where distributions have their libraries.
const DIRECTORIES: [&str; 3] = ["../lib", "../lib64", concat!("../lib/", env!("XLEVENT_MULTIARCH"))];

/// Where `make libdir=...` wants them.
const CONFIGURED: Option<&str> = option_env!("XLEVENT_LIBDIR");

/// What is preloaded: absolute paths.
#[derive(Debug)]
pub struct Libraries {
    /// libxlevent.so.
    pub library: PathBuf,
    /// What takes both out of the environment again.
    pub keeper: PathBuf,
}

impl Libraries {
    /// Finds them. The error says where they were looked for.
    pub fn find() -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| format!("this program's own path: {error}"))?;
        let here = program.parent().unwrap_or(Path::new("/"));
        let places = [here.to_owned()].into_iter().chain(DIRECTORIES.iter().map(|directory| here.join(directory)));
        let places: Vec<PathBuf> = places.chain(CONFIGURED.map(PathBuf::from)).collect();
        places.iter().find_map(|place| Self::at(place)).ok_or_else(|| {
            let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
            format!("libxlevent.so.1 and libxlevent_run.so are in none of {}", places.join(", "))
        })
    }

    fn at(directory: &Path) -> Option<Self> {
        let file = |names: &[&str]| names.iter().find_map(|name| fs::canonicalize(directory.join(name)).ok());
        Some(Libraries {
            library: file(&["libxlevent.so.1", "libxlevent.so"])?,
            keeper: file(&["xlevent/libxlevent_run.so", "libxlevent_run.so"])?,
        })
    }

    /// `LD_PRELOAD` with them ahead of what is in it. The dynamic linker has no way to write a path with a colon or a
    /// blank in it.
    pub fn preload(&self, others: Option<OsString>) -> Result<OsString, String> {
        let mut preload = OsString::new();
        for path in [&self.keeper, &self.library] {
            if path.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b':' | b' ')) {
                return Err(format!("{} has a colon or a blank in its path, and can't be preloaded", path.display()));
            }
            preload.push(path);
            preload.push(":");
        }
        preload.push(others.unwrap_or_default());
        Ok(preload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_first_and_what_was_there_stays() {
        let libraries =
            Libraries { library: "/l/libxlevent.so.1".into(), keeper: "/l/xlevent/libxlevent_run.so".into() };
        let preload = |others: Option<&str>| libraries.preload(others.map(OsString::from)).unwrap();
        assert_eq!(preload(None), "/l/xlevent/libxlevent_run.so:/l/libxlevent.so.1:");
        assert_eq!(preload(Some("/a:b c")), "/l/xlevent/libxlevent_run.so:/l/libxlevent.so.1:/a:b c");
        for path in ["/a:b/l.so", "/a b/l.so"] {
            assert!(Libraries { library: path.into(), keeper: "/k".into() }.preload(None).is_err());
        }
    }
}
