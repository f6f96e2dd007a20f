// SPDX-License-Identifier: LGPL-2.1-or-later
//! What is written of an event: columns for people and awk, or JSON.
//!
//! A domain's name is whatever was written into xenstore. Neither form lets a byte of it through that a terminal might obey,
//! or that could be taken for the end of a line.

use std::fmt::Write as _;
use std::io;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;
use xlevent::abi::*;
use xlevent::event::Kind;

/// Something that has happened to a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    pub time: SystemTime,
    pub domid: u32,
    /// All zero if it isn't known.
    pub uuid: [u8; 16],
    pub name: Option<Vec<u8>>,
    pub kind: Kind,
}

/// As JSON has it, in this order.
#[derive(Serialize)]
struct Record<'a> {
    time: String,
    domid: u32,
    uuid: Option<String>,
    name: Option<String>,
    r#type: &'a str,
    type_number: u32,
    reason: Option<&'a str>,
    reason_number: Option<u8>,
}

impl Happening {
    /// Columns, with the end of the line.
    pub fn text(&self) -> String {
        let uuid = self.uuid().unwrap_or_else(|| "-".to_owned());
        let (what, _) = words(self.kind);
        let mut line = format!("{} {} {uuid} {what} ", self.time(), self.domid);
        // Writing to a String can't fail.
        let _ = match self.reason() {
            Some(reason) => write!(line, "{}({reason})", reason_word(reason)),
            None => write!(line, "-"),
        };
        line.push(' ');
        line.push_str(&printable(self.name.as_deref().unwrap_or_default()));
        line.push('\n');
        line
    }

    /// A JSON object, with the end of the line.
    pub fn json(&self) -> io::Result<String> {
        let (what, number) = words(self.kind);
        let record = Record {
            time: self.time(),
            domid: self.domid,
            uuid: self.uuid(),
            name: self.name.as_deref().map(|name| String::from_utf8_lossy(name).into_owned()),
            r#type: what,
            type_number: number,
            reason: self.reason().map(reason_word),
            reason_number: self.reason(),
        };
        let mut line = Vec::new();
        record.serialize(&mut Serializer::with_formatter(&mut line, Ascii))?;
        line.push(b'\n');
        String::from_utf8(line).map_err(io::Error::other)
    }

    fn time(&self) -> String {
        humantime::format_rfc3339_micros(self.time).to_string()
    }

    fn uuid(&self) -> Option<String> {
        (self.uuid != [0; 16]).then(|| format_uuid(&self.uuid))
    }

    fn reason(&self) -> Option<u8> {
        match self.kind {
            Kind::DomainShutdown { reason } => Some(reason),
            _ => None,
        }
    }
}

/// In groups of 8, 4, 4, 4 and 12 digits.
pub fn format_uuid(uuid: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in uuid.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// What is written of an event's type, and its number.
fn words(kind: Kind) -> (&'static str, u32) {
    match kind {
        Kind::DomainCreated => ("created", LIBXL_EVENT_TYPE_DOMAIN_CREATED),
        Kind::DomainSuspended => ("suspended", LIBXL_EVENT_TYPE_DOMAIN_SUSPENDED),
        Kind::DomainRunning => ("running", LIBXL_EVENT_TYPE_DOMAIN_RUNNING),
        Kind::DomainShutdown { .. } => ("shutdown", LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN),
        Kind::DomainDeath => ("death", LIBXL_EVENT_TYPE_DOMAIN_DEATH),
        Kind::Other(number) => ("other", number),
        _ => ("other", 0),
    }
}

/// `LIBXL_SHUTDOWN_REASON_*`; the guest chooses the number.
fn reason_word(reason: u8) -> &'static str {
    const WORDS: [&str; 6] = ["poweroff", "reboot", "suspend", "crash", "watchdog", "soft_reset"];
    WORDS.get(usize::from(reason)).copied().unwrap_or("unknown")
}

/// Printable ASCII as it is, everything else as `\xNN`; so a backslash is never anything but the beginning of these.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\\' | 0..0x20 | 0x7f.. => {
                let _ = write!(text, "\\x{byte:02x}");
            }
            _ => text.push(char::from(*byte)),
        }
    }
    text
}

/// JSON in which all that isn't printable ASCII is escaped.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        for letter in fragment.chars() {
            match letter {
                ' '..='~' => writer.write_all(&[letter as u8])?,
                _ => {
                    for unit in letter.encode_utf16(&mut [0; 2]) {
                        write!(writer, "\\u{unit:04x}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn happening(name: Option<&[u8]>, kind: Kind) -> Happening {
        let mut uuid = [0; 16];
        (0..16).for_each(|index| uuid[usize::from(index)] = index);
        let time = UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
        Happening { time, domid: 7, uuid, name: name.map(<[u8]>::to_vec), kind }
    }

    #[test]
    fn a_line_has_six_columns() {
        let uuid = "00010203-0405-0607-0809-0a0b0c0d0e0f";
        assert_eq!(
            happening(Some(b"web"), Kind::DomainShutdown { reason: 3 }).text(),
            format!("2023-11-14T22:13:20.123456Z 7 {uuid} shutdown crash(3) web\n")
        );
        assert_eq!(
            happening(None, Kind::DomainShutdown { reason: 200 }).text(),
            format!("2023-11-14T22:13:20.123456Z 7 {uuid} shutdown unknown(200) \n")
        );
        let unknown = Happening { uuid: [0; 16], ..happening(Some(b"a b"), Kind::DomainDeath) };
        assert_eq!(unknown.text(), "2023-11-14T22:13:20.123456Z 7 - death - a b\n");
    }

    #[test]
    fn an_object_has_all_members() {
        assert_eq!(
            happening(Some(b"web"), Kind::DomainShutdown { reason: 0 }).json().unwrap(),
            "{\"time\":\"2023-11-14T22:13:20.123456Z\",\"domid\":7,\"uuid\":\"00010203-0405-0607-0809-0a0b0c0d0e0f\",\
             \"name\":\"web\",\"type\":\"shutdown\",\"type_number\":1,\"reason\":\"poweroff\",\"reason_number\":0}\n"
        );
        let unknown = Happening { uuid: [0; 16], ..happening(None, Kind::DomainCreated) };
        assert_eq!(
            unknown.json().unwrap(),
            "{\"time\":\"2023-11-14T22:13:20.123456Z\",\"domid\":7,\"uuid\":null,\"name\":null,\
             \"type\":\"created\",\"type_number\":42,\"reason\":null,\"reason_number\":null}\n"
        );
    }

    #[test]
    fn no_name_reaches_the_terminal_or_ends_a_line() {
        let everything: Vec<u8> = (0..=255).chain("\u{202e}\u{9b}\u{1f600}".bytes()).collect();
        for name in [&everything[..], b"\x1b]0;x\x07", b"a\nb", "\u{85}\u{2028}".as_bytes(), b"\xff\"\\\x00"] {
            let happening = happening(Some(name), Kind::DomainDeath);
            for line in [happening.text(), happening.json().unwrap()] {
                let line = line.strip_suffix('\n').unwrap();
                assert!(line.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{line}");
            }
            let parsed: serde_json::Value = serde_json::from_str(&happening.json().unwrap()).unwrap();
            assert_eq!(parsed["name"], *String::from_utf8_lossy(name));
        }
        assert_eq!(printable(b"a\\x41 \xc3\xa9"), "a\\x5cx41 \\xc3\\xa9");
    }
}
