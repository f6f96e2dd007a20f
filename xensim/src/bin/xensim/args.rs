// SPDX-License-Identifier: LGPL-2.1-or-later
//! The command line, taken apart: options with or without a value, anywhere among the other words.
//!
//! Invariant: an option that no command asked for is an error, so that a misspelt one is never silently ignored.

use std::str::FromStr;

/// What is wrong with a command line.
pub type UsageError = String;

/// The words of a command line that have not been asked for yet.
pub struct Args {
    words: Vec<String>,
    /// What follows `--`: never an option.
    rest: Vec<String>,
}

impl Args {
    pub fn new(words: impl IntoIterator<Item = String>) -> Args {
        let mut words: Vec<String> = words.into_iter().collect();
        let rest = match words.iter().position(|word| word == "--") {
            Some(at) => words.split_off(at).split_off(1),
            None => Vec::new(),
        };
        Args { words, rest }
    }

    /// Whether the option is there.
    pub fn flag(&mut self, name: &str) -> bool {
        let found = self.words.iter().position(|word| word == name);
        found.map(|at| self.words.remove(at)).is_some()
    }

    /// The option's value, as `--name value` or `--name=value`.
    pub fn value(&mut self, name: &str) -> Result<Option<String>, UsageError> {
        let with_value =
            |word: &str| word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')).map(str::to_owned);
        for at in 0..self.words.len() {
            if self.words[at] == name {
                if at + 1 == self.words.len() {
                    return Err(format!("{name} needs a value"));
                }
                self.words.remove(at);
                return Ok(Some(self.words.remove(at)));
            }
            if let Some(value) = with_value(&self.words[at]) {
                self.words.remove(at);
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// The option's value as a number or the like.
    pub fn parsed<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, UsageError> {
        let parse = |value: String| value.parse().map_err(|_| format!("{name} {value}: not a valid number"));
        self.value(name)?.map(parse).transpose()
    }

    /// The next word that is no option.
    pub fn word(&mut self, what: &str) -> Result<String, UsageError> {
        self.optional_word().ok_or_else(|| format!("{what} is missing"))
    }

    /// The next word that is no option, if there is one. Options must have been asked for before.
    pub fn optional_word(&mut self) -> Option<String> {
        if self.words.first().is_some_and(|word| !is_option(word)) {
            return Some(self.words.remove(0));
        }
        if self.words.is_empty() && !self.rest.is_empty() { Some(self.rest.remove(0)) } else { None }
    }

    /// All other words; at the latest here a word that looks like an option is an error.
    pub fn words(mut self) -> Result<Vec<String>, UsageError> {
        match self.words.iter().find(|word| is_option(word)) {
            Some(word) => Err(format!("unknown option {word}")),
            None => {
                self.words.append(&mut self.rest);
                Ok(self.words)
            }
        }
    }

    /// The words of a command that is to be run: all from the first that is no option.
    pub fn command(mut self) -> Result<Vec<String>, UsageError> {
        if self.words.first().is_some_and(|word| is_option(word)) {
            return Err(format!("unknown option {}", self.words[0]));
        }
        if !self.words.is_empty() && !self.rest.is_empty() {
            self.words.push("--".into());
        }
        self.words.append(&mut self.rest);
        Ok(self.words)
    }

    /// All words as they came, to be handed on.
    pub fn into_options(self) -> Vec<String> {
        self.words
    }

    /// There must be no more words.
    pub fn end(self) -> Result<(), UsageError> {
        match self.words()?.first() {
            Some(word) => Err(format!("unexpected {word}")),
            None => Ok(()),
        }
    }

    /// Splits off the words up to the first that is no option (`valued` names those that have a value in the next
    /// word): the options of `run`, which must not be looked for in the command that is run.
    pub fn split_leading_options(&mut self, valued: &[&str]) -> Args {
        let mut at = 0;
        while at < self.words.len() && is_option(&self.words[at]) {
            at += if valued.contains(&self.words[at].as_str()) { 2 } else { 1 };
        }
        let tail = self.words.split_off(at.min(self.words.len()));
        Args { words: std::mem::replace(&mut self.words, tail), rest: Vec::new() }
    }
}

fn is_option(word: &str) -> bool {
    word.len() > 1 && word.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        Args::new(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn options_are_found_anywhere_and_unknown_ones_refused() {
        let mut line = args("5 --reason crash 6 --quiet --errno=EIO 7");
        assert!(line.flag("--quiet"));
        assert!(!line.flag("--quiet"));
        assert_eq!(line.value("--reason").unwrap().unwrap(), "crash");
        assert_eq!(line.value("--errno").unwrap().unwrap(), "EIO");
        assert_eq!(line.words().unwrap(), ["5", "6", "7"]);
        assert!(args("5 --reson crash").words().is_err());
        assert!(args("5 --reason").value("--reason").is_err());
        assert!(args("--count x").parsed::<u32>("--count").is_err());
    }

    #[test]
    fn a_command_keeps_its_own_options() {
        let mut line = args("--name n prog --name other -x -- --y");
        let mut options = line.split_leading_options(&["--name"]);
        assert_eq!(options.value("--name").unwrap().unwrap(), "n");
        options.end().unwrap();
        assert_eq!(line.command().unwrap(), ["prog", "--name", "other", "-x", "--", "--y"]);
        assert_eq!(args("-- --odd").command().unwrap(), ["--odd"]);
    }
}
