// SPDX-License-Identifier: LGPL-2.1-or-later
//! What is to be run: a program, its arguments and environment, and how far it may go.

use std::ffi::{CString, OsStr, OsString, c_char};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use crate::error::{Error, Result};

/// A program to run. It has /dev/null as its input; of its output and its errors as much is kept as [`Said`](super::Said)
/// does.
#[derive(Debug, Clone)]
pub struct Command {
    program: OsString,
    arguments: Vec<OsString>,
    /// None: the process's own, as it is when the child is started.
    environment: Option<Vec<(OsString, OsString)>>,
    added: Vec<(OsString, OsString)>,
    pub(super) time_limit: Option<Duration>,
    pub(super) grace: Duration,
}

/// A program that is told to end has this long before it is killed.
const GRACE: Duration = Duration::from_secs(5);

impl Command {
    /// A program by its path; it isn't searched for.
    pub fn new(program: impl Into<OsString>) -> Self {
        Command {
            program: program.into(),
            arguments: Vec::new(),
            environment: None,
            added: Vec::new(),
            time_limit: None,
            grace: GRACE,
        }
    }

    /// Adds arguments, after the program's name, which comes first by itself.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds a variable to the environment, or replaces it.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.added.push((name.into(), value.into()));
        self
    }

    /// Begins with an empty environment rather than the process's own.
    #[must_use]
    pub fn env_clear(mut self) -> Self {
        self.environment = Some(Vec::new());
        self.added.clear();
        self
    }

    /// How long the program may run before SIGTERM is sent to it and to what it has started. For ever if nothing is said.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self
    }

    /// How long after that SIGKILL is sent. 5 s if nothing is said.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The program, for the log.
    pub fn program(&self) -> &OsStr {
        &self.program
    }

    /// Puts it into the form that execve takes, so that a forked child has nothing left to do.
    pub(super) fn prepare(&self) -> Result<Prepared> {
        let program = c_string(self.program.clone())?;
        let mut arguments = vec![program.clone()];
        for argument in &self.arguments {
            arguments.push(c_string(argument.clone())?);
        }
        let mut variables = self.environment.clone().unwrap_or_else(|| std::env::vars_os().collect());
        for (name, value) in &self.added {
            if name.is_empty() || name.as_bytes().contains(&b'=') {
                return Err(Error::Invalid(format!("{} is not the name of a variable", name.to_string_lossy())));
            }
            variables.retain(|(present, _)| present != name);
            variables.push((name.clone(), value.clone()));
        }
        let variables = variables.into_iter().map(|(mut variable, value)| {
            variable.push("=");
            variable.push(value);
            c_string(variable)
        });
        Ok(Prepared {
            program,
            arguments: Array::new(arguments),
            environment: Array::new(variables.collect::<Result<_>>()?),
        })
    }
}

fn c_string(text: OsString) -> Result<CString> {
    CString::new(text.into_vec()).map_err(|error| {
        let text = OsString::from_vec(error.into_vec());
        Error::Invalid(format!("{} has a zero byte inside", text.to_string_lossy()))
    })
}

/// What execve takes.
pub(super) struct Prepared {
    pub(super) program: CString,
    pub(super) arguments: Array,
    pub(super) environment: Array,
}

/// Strings as C has them: an array of pointers that ends in a null pointer.
pub(super) struct Array {
    pointers: Vec<*const c_char>,
    /// What the pointers point to.
    _strings: Vec<CString>,
}

impl Array {
    fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect();
        Array { pointers, _strings: strings }
    }

    /// Valid as long as this is.
    pub(super) fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(array: &Array) -> Vec<&str> {
        array._strings.iter().map(|string| string.to_str().unwrap()).collect()
    }

    #[test]
    fn the_programs_name_is_the_first_argument_and_the_arrays_end_in_null() {
        let prepared = Command::new("/bin/sh").args(["-c", "true"]).env_clear().env("A", "1").prepare().unwrap();
        assert_eq!(strings(&prepared.arguments), ["/bin/sh", "-c", "true"]);
        assert_eq!(strings(&prepared.environment), ["A=1"]);
        assert_eq!(prepared.arguments.pointers.len(), 4);
        assert!(prepared.arguments.pointers[3].is_null());
    }

    #[test]
    fn a_variable_replaces_one_of_the_same_name() {
        let prepared = Command::new("/bin/true").env("PATH", "/nowhere").env("PATH", "/here").prepare().unwrap();
        let paths = strings(&prepared.environment).into_iter().filter(|variable| variable.starts_with("PATH="));
        assert_eq!(paths.collect::<Vec<_>>(), ["PATH=/here"]);
    }

    #[test]
    fn what_c_cannot_say_is_refused() {
        let refused = |command: Command| matches!(command.prepare(), Err(Error::Invalid(_)));
        assert!(refused(Command::new("/bin/\0sh")));
        assert!(refused(Command::new("/bin/sh").args(["a\0b"])));
        assert!(refused(Command::new("/bin/sh").env("A", "a\0b")));
        assert!(refused(Command::new("/bin/sh").env("A=B", "c")));
        assert!(refused(Command::new("/bin/sh").env("", "c")));
    }
}
