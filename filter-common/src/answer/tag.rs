//! The tag that a reply adds to `To`: a keyed hash, so that the ACK is known again without a memory.

use super::text::hex;
use crate::abi::{CALL_ID_HASH_MAX, Keys};
use crate::bytes::Bytes;

/// Length of a tag: `p`, the number of its key, 16 hexadecimal digits.
pub const TAG_LEN: usize = 18;

impl Keys {
    /// Returns whether a daemon has written keys. Without keys nothing is answered.
    #[inline(always)]
    #[must_use]
    pub const fn are_set(&self) -> bool {
        (self.keys[0][0] | self.keys[0][1] | self.keys[1][0] | self.keys[1][1]) != 0
    }

    /// Returns the tag for a request.
    #[inline(always)]
    #[must_use]
    pub fn tag<B: Bytes>(&self, bytes: &B, call: &Call) -> [u8; TAG_LEN] {
        let number = bytes.hide_range(self.newest as usize) & 1;
        text(number, hash(bytes, &self.keys[number], call))
    }

    /// Returns whether the text at `at` is a tag that these keys made for the same call. The beginning of a longer
    /// text is not.
    #[inline(always)]
    #[must_use]
    pub fn made<B: Bytes>(&self, bytes: &B, at: usize, call: &Call, now: u64) -> bool {
        let Some(digit) = bytes.byte(at + 1) else {
            return false;
        };
        let number = digit.wrapping_sub(b'0') as usize;
        if number > 1 || (number as u64 != self.newest & 1 && now >= self.older_until) {
            return false;
        }
        let number = bytes.hide_range(number) & 1;
        let expected = text(number, hash(bytes, &self.keys[number], call));
        let (words, rest) = expected.as_chunks::<8>();
        let ends = matches!(bytes.byte(at + TAG_LEN), Some(b' ' | b'\t' | b'\r' | b'\n' | b';'));
        ends && bytes.word(at) == Some(u64::from_le_bytes(words[0]))
            && bytes.word(at + 8) == Some(u64::from_le_bytes(words[1]))
            && bytes.be16(at + 16) == Some(u16::from_be_bytes([rest[0], rest[1]]))
    }
}

/// The parts that an INVITE and the ACK for its reply have in common (RFC 3261 §17.1.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Offset of the Call-ID.
    pub id: usize,
    /// Length of the Call-ID in bytes.
    pub id_len: usize,
    /// The number of the `CSeq`.
    pub cseq: u32,
}

/// Returns the SipHash-2-4 (Aumasson and Bernstein 2012) of a call: the Call-ID, with zeros up to a multiple of
/// eight bytes, and one more word. It is the number of the `CSeq` and the length of the Call-ID, of which at
/// most [`CALL_ID_HASH_MAX`] bytes are read.
#[inline(never)]
fn hash<B: Bytes>(bytes: &B, key: &[u64; 2], call: &Call) -> u64 {
    let mut state = State::new(key);
    let mut i = 0;
    while i < CALL_ID_HASH_MAX && i + 8 <= call.id_len {
        let Some(word) = bytes.word(call.id + i) else {
            break;
        };
        state.add(word);
        i += 8;
    }
    let (mut i, len) = (bytes.hide_range(i), bytes.hide_range(call.id_len));
    let mut last = 0;
    let mut rest = 0;
    while rest < 7 && i < len {
        let Some(byte) = bytes.byte(call.id + i) else {
            break;
        };
        last |= (byte as u64) << (8 * rest);
        i += 1;
        rest += 1;
    }
    state.add(last);
    state.add(call.cseq as u64 | (call.id_len as u64) << 32);
    // The final word has the length of all words before it, in bytes.
    state.finish((call.id_len as u64 / 8 + 2) * 8)
}

struct State([u64; 4]);

impl State {
    #[inline(always)]
    const fn new(key: &[u64; 2]) -> State {
        let [k0, k1] = *key;
        State([
            k0 ^ 0x736F_6D65_7073_6575,
            k1 ^ 0x646F_7261_6E64_6F6D,
            k0 ^ 0x6C79_6765_6E65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ])
    }

    #[inline(always)]
    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.0;
        a = a.wrapping_add(b);
        c = c.wrapping_add(d);
        b = b.rotate_left(13) ^ a;
        d = d.rotate_left(16) ^ c;
        a = a.rotate_left(32).wrapping_add(d);
        c = c.wrapping_add(b);
        d = d.rotate_left(21) ^ a;
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.0 = [a, b, c, d];
    }

    #[inline(always)]
    fn add(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.round();
        self.0[0] ^= word;
    }

    #[inline(always)]
    fn finish(mut self, len: u64) -> u64 {
        self.add(len << 56);
        self.0[2] ^= 0xFF;
        let mut rounds = 0;
        while rounds < 4 {
            self.round();
            rounds += 1;
        }
        let [a, b, c, d] = self.0;
        a ^ b ^ c ^ d
    }
}

/// Returns the text of a tag.
#[inline(always)]
fn text(number: usize, hash: u64) -> [u8; TAG_LEN] {
    let mut text = [0; TAG_LEN];
    text[0] = b'p';
    text[1] = b'0' + number as u8;
    let mut i = 0;
    while i < 16 {
        text[2 + i] = hex((hash >> (60 - 4 * i)) as u8 & 0xF);
        i += 1;
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(deprecated, reason = "the standard library's SipHash-2-4 is the oracle")]

    use std::hash::{Hasher, SipHasher};

    use super::*;
    use crate::bytes::Slice;

    const KEYS: Keys = Keys { keys: [[1, 2], [0xDEAD_BEEF, !0]], newest: 0, older_until: 1_000 };

    fn call(id_len: usize, cseq: u32) -> Call {
        Call { id: 0, id_len, cseq }
    }

    #[test]
    fn hash_is_siphash_of_id_number_and_length() {
        let id: Vec<u8> = (0..240).collect();
        for len in 0..id.len() {
            let call = call(len, 0x0102_0304);
            let mut text = id[..len].to_vec();
            // The rest is a word of its own, even when it is empty.
            text.resize((len / 8 + 1) * 8, 0);
            text.extend(call.cseq.to_le_bytes());
            text.extend((len as u32).to_le_bytes());
            let mut oracle = SipHasher::new_with_keys(7, 9);
            oracle.write(&text);
            let ours = hash(&Slice::from(&id[..]), &[7, 9], &call);
            assert_eq!(ours, oracle.finish(), "{len}");
        }
    }

    #[test]
    fn tag_is_18_digits_and_letters() {
        let tag = KEYS.tag(&Slice::from(&b"a@b"[..]), &call(3, 1));
        assert!(tag.starts_with(b"p0"), "{}", tag.escape_ascii());
        assert!(tag[2..].iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
        assert_eq!(&text(1, 0x0123_4567_89AB_CDEF), b"p10123456789abcdef");
    }

    #[test]
    fn tag_of_an_old_key_is_known_until_it_ends() {
        let mut text = b"a@b".to_vec();
        text.extend(KEYS.tag(&Slice::from(&text[..]), &call(3, 1)));
        text.extend(b"\r\n");
        let bytes = Slice::from(&text[..]);
        let made = |keys: &Keys, cseq, now| keys.made(&bytes, 3, &call(3, cseq), now);
        assert!(made(&KEYS, 1, u64::MAX));
        assert!(!made(&KEYS, 2, 0));
        let turned = Keys { newest: 1, ..KEYS };
        assert!(made(&turned, 1, 999));
        assert!(!made(&turned, 1, 1_000));
        let replaced = Keys { keys: [[3, 4], KEYS.keys[1]], ..KEYS };
        assert!(!made(&replaced, 1, 0));
        text.truncate(text.len() - 2);
        text.extend(b"0\r\n");
        assert!(!KEYS.made(&Slice::from(&text[..]), 3, &call(3, 1), 0));
    }
}
