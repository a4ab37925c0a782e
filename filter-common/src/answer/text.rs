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

    /// Returns the byte at an index.
    #[inline(always)]
    pub(super) const fn byte(&self, index: usize) -> u8 {
        self.bytes[index & (ROOM - 1)]
    }

    /// Sets what comes after an `rport`: its value, and `received` (RFC 3581 §4).
    #[inline(never)]
    pub(super) fn set_rport(&mut self, port: u16, address: &[u8; 16]) {
        self.push(b"=");
        self.push_number(port);
        self.push_received(address);
    }

    /// Sets what comes after a `Via` without `rport` (RFC 3261 §18.2.1).
    #[inline(never)]
    pub(super) fn set_received(&mut self, address: &[u8; 16]) {
        self.push_received(address);
    }

    #[inline(always)]
    fn push_received(&mut self, address: &[u8; 16]) {
        self.push(b";received=");
        self.push_address(address);
    }

    #[inline(always)]
    pub(super) fn push(&mut self, text: &[u8]) {
        let mut i = 0;
        while i < text.len() {
            self.push_if(text[i], 1);
            i += 1;
        }
    }

    /// Adds a byte if `is_added` is 1, and leaves it away if that is 0. A branch would double the paths that the
    /// verifier walks.
    #[inline(always)]
    fn push_if(&mut self, byte: u8, is_added: usize) {
        let at = self.len();
        self.bytes[at] = byte;
        self.len = at + is_added;
    }

    /// Adds a number in decimal digits.
    #[inline(always)]
    fn push_number(&mut self, number: u16) {
        let mut power = 10_000;
        let mut is_added = 0;
        while power > 0 {
            let digit = number / power % 10;
            // 0 only for the digit 0.
            is_added |= (digit as usize + 15) >> 4 | (power == 1) as usize;
            self.push_if(b'0' + digit as u8, is_added);
            power /= 10;
        }
    }

    /// Adds an address; an IPv4 one comes mapped (RFC 4291 §2.5.5.2). An IPv6 one gets its eight groups
    /// without the short form (RFC 4291 §2.2).
    #[inline(always)]
    fn push_address(&mut self, address: &[u8; 16]) {
        if u128::from_be_bytes(*address) >> 32 == 0xFFFF {
            let mut i = 12;
            while i < 16 {
                if i > 12 {
                    self.push(b".");
                }
                self.push_number(address[i] as u16);
                i += 1;
            }
            return;
        }
        let (groups, _) = address.as_chunks::<2>();
        let mut i = 0;
        while i < groups.len() {
            if i > 0 {
                self.push(b":");
            }
            self.push_group(u16::from_be_bytes(groups[i]));
            i += 1;
        }
    }

    #[inline(always)]
    fn push_group(&mut self, number: u16) {
        let mut shift = 16;
        let mut is_added = 0;
        while shift > 0 {
            shift -= 4;
            let digit = (number >> shift) as u8 & 0xF;
            is_added |= (digit as usize + 15) >> 4 | (shift == 0) as usize;
            self.push_if(hex(digit), is_added);
        }
    }
}

/// Returns a hexadecimal digit, in small letters.
#[inline(always)]
pub(super) const fn hex(digit: u8) -> u8 {
    // 1 for `a` to `f`, otherwise 0.
    let is_letter = (digit + 6) >> 4;
    b'0' + digit + is_letter * (b'a' - b'0' - 10)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    impl Text {
        pub(in super::super) fn as_bytes(&self) -> &[u8] {
            &self.bytes[..self.len()]
        }
    }

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
