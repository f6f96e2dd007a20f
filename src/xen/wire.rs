// SPDX-License-Identifier: LGPL-2.1-or-later
//! xenstore's wire protocol (`xen/io/xs_wire.h`), as far as [`super::idle`] speaks it: bytes to messages and back, no I/O.
//!
//! A message is a header of four 32-bit numbers in the host's byte order (type, request, transaction, length) and a payload of
//! at most 4096 bytes.

use nix::errno::Errno;

/// `XS_ERROR`: a request's answer, in which it is refused.
pub const ERROR: u32 = 16;

/// `XS_IS_DOMAIN_INTRODUCED`: whether the daemon knows a domain.
pub const IS_DOMAIN_INTRODUCED: u32 = 17;

const HEADER: usize = 16;
const PAYLOAD_MAX: usize = 4096;

/// What the daemon has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'bytes> {
    /// What it is an answer to, or [`ERROR`].
    pub kind: u32,
    /// The number of the request.
    pub request: u32,
    /// The daemon chooses the bytes.
    pub payload: &'bytes [u8],
}

/// Appends a request without a transaction. Its payload is a string, which gets its zero byte here.
pub fn put_request(out: &mut Vec<u8>, kind: u32, request: u32, payload: &str) {
    // A number's digits: the length fits.
    let length = payload.len() as u32 + 1;
    for word in [kind, request, 0, length] {
        out.extend_from_slice(&word.to_ne_bytes());
    }
    out.extend_from_slice(payload.as_bytes());
    out.push(0);
}

/// The first message of these bytes and how many it takes, `None` if not all of it is there yet. EPROTO if it can't be one.
pub fn first(bytes: &[u8]) -> Result<Option<(Message<'_>, usize)>, Errno> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
    let word = |index: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&header[index * 4..][..4]);
        u32::from_ne_bytes(word)
    };
    let length = word(3) as usize;
    if length > PAYLOAD_MAX {
        return Err(Errno::EPROTO);
    }
    let message = |payload| (Message { kind: word(0), request: word(1), payload }, HEADER + length);
    Ok(rest.get(..length).map(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(kind: u32, request: u32, payload: &[u8]) -> Vec<u8> {
        let words = [kind, request, 0, payload.len() as u32];
        words.iter().flat_map(|word| word.to_ne_bytes()).chain(payload.iter().copied()).collect()
    }

    #[test]
    fn a_request_is_a_header_and_a_string_with_its_zero_byte() {
        let mut out = vec![7];
        put_request(&mut out, IS_DOMAIN_INTRODUCED, 9, "12");
        assert_eq!(out[0], 7);
        assert_eq!(out[1..], bytes(17, 9, b"12\0"));
    }

    #[test]
    fn a_message_is_there_when_its_last_byte_is() {
        let all = bytes(17, 9, b"T\0");
        for length in 0..all.len() {
            assert_eq!(first(&all[..length]), Ok(None));
        }
        let message = Message { kind: 17, request: 9, payload: b"T\0" };
        assert_eq!(first(&all), Ok(Some((message, all.len()))));
        let more = [all.clone(), vec![1, 2, 3]].concat();
        assert_eq!(first(&more), Ok(Some((message, all.len()))));
        let empty = bytes(ERROR, 0, b"");
        assert_eq!(first(&empty), Ok(Some((Message { kind: ERROR, request: 0, payload: b"" }, HEADER))));
    }

    #[test]
    fn a_payload_is_never_longer_than_the_protocol_allows() {
        let mut longest = bytes(17, 9, &[0; PAYLOAD_MAX]);
        assert!(first(&longest).is_ok_and(|message| message.is_some()));
        longest[12..16].copy_from_slice(&(PAYLOAD_MAX as u32 + 1).to_ne_bytes());
        assert_eq!(first(&longest), Err(Errno::EPROTO));
        assert_eq!(first(&[0xff; HEADER]), Err(Errno::EPROTO));
    }
}
