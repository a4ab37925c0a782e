//! Texts of the topmost `Via`: the port and the address that a request came from.

/// Room for `;received=` and an IPv6 address; a power of two, because the verifier understands a mask.
const ROOM: usize = 64;

/// A short text.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Text {
    bytes: [u8; ROOM],
    len: usize,
}

impl Default for Text {
    fn default() -> Text {
        Text { bytes: [0; ROOM], len: 0 }
    }
}

impl Text {
    #[inline(always)]
    pub(super) const fn len(&self) -> usize {
        self.len & (ROOM - 1)
    }

    #[inline(always)]
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len()).unwrap_or_default()
    }

    #[inline(always)]
    pub(super) fn push(&mut self, text: &[u8]) {
        let mut i = 0;
        while i < text.len() {
            self.bytes[self.len & (ROOM - 1)] = text[i];
            self.len += 1;
            i += 1;
        }
    }

    /// Adds a number in decimal digits.
    #[inline(always)]
    pub(super) fn push_number(&mut self, number: u16) {
        let mut power = 10_000;
        while power > 0 {
            if number >= power || power == 1 {
                self.push(&[b'0' + (number / power % 10) as u8]);
            }
            power /= 10;
        }
    }

    /// Adds an address; an IPv4 one comes mapped (RFC 4291 §2.5.5.2). An IPv6 one gets its eight groups
    /// without the short form (RFC 4291 §2.2).
    #[inline(always)]
    pub(super) fn push_address(&mut self, address: &[u8; 16]) {
        let (words, _) = address.as_chunks::<2>();
        if u128::from_be_bytes(*address) >> 32 == 0xFFFF {
            let [.., a, b, c, d] = *address;
            self.push_number(a as u16);
            for byte in [b, c, d] {
                self.push(b".");
                self.push_number(byte as u16);
            }
            return;
        }
        let mut i = 0;
        while i < words.len() {
            if i > 0 {
                self.push(b":");
            }
            self.push_hex(u16::from_be_bytes(words[i]));
            i += 1;
        }
    }

    #[inline(always)]
    fn push_hex(&mut self, number: u16) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut shift = 16;
        while shift > 0 {
            shift -= 4;
            if shift == 0 || number >> shift != 0 {
                self.push(&[DIGITS[(number >> shift) as usize & 0xF]]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_is_read_back_as_the_same_address(v4: u32, v6: u128, cleared: u128) {
            let v4 = Ipv4Addr::from(v4);
            let v6 = Ipv6Addr::from(v6 & cleared);
            prop_assume!(v6.to_ipv4_mapped().is_none());
            for (octets, address) in
                [(v4.to_ipv6_mapped().octets(), IpAddr::V4(v4)), (v6.octets(), IpAddr::V6(v6))]
            {
                let mut text = Text::default();
                text.push_address(&octets);
                let read = std::str::from_utf8(text.as_bytes()).expect("text").parse::<IpAddr>();
                prop_assert_eq!(read, Ok(address));
            }
        }

        #[test]
        fn number_is_written_in_its_digits(number: u16) {
            let mut text = Text::default();
            text.push_number(number);
            let expected = number.to_string();
            prop_assert_eq!(text.as_bytes(), expected.as_bytes());
        }
    }
}
