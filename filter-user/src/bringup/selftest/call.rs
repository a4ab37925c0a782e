//! Builds the calls of a self-test: from unassigned numbers, in the format of a trunk.
//!
//! E.164 allows 15 digits (ITU-T E.164 §6.2.1). No country assigns its callers numbers of that
//! length with only nines after the country code. Such a number is unassigned, and the trunk's own
//! plan still parses it in the format that the trunk sends. If an allow or a protected entry covers
//! it, a number under +999 is used, a country code that ITU-T keeps in reserve. The calls never
//! leave the self-test's own network namespace.

use std::net::{IpAddr, Ipv6Addr};

use etherparse::{
    Ethernet2Header, IpFragOffset, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, PacketBuilder,
    ip_number,
};
use filter_common::decide::is_live;
use filter_common::number::{DIGITS_MAX, Digits, Number};
use filter_common::plan::{
    FORMAT_BARE_NATIONAL, FORMAT_E164, FORMAT_NATIONAL, FORMAT_OWN_E164, Plan,
};

use crate::model::number_text;
use crate::model::policy::{Policy, Subject, Trunk};

/// ITU-T: "reserved for a future global service".
const RESERVED_COUNTRY: &str = "999";
/// Number of addresses of a source prefix to search for one that belongs to its trunk.
const ADDRESSES: u128 = 64;
const IPV4_MAPPED_BITS: u32 = 96;
const TTL: u8 = 64;
/// Longest frame of an Ethernet with an MTU of 1,500 bytes.
const FRAME_MAX: usize = Ethernet2Header::LEN + 1500;
/// Bytes of a datagram in its first fragment: a multiple of 8.
const FRAGMENT_LEN: usize = 1400;

/// A caller number in the format of a trunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The number.
    pub number: Number,
    /// User part of its URI.
    pub text: String,
}

/// Reasons why no number can be used for a test call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTestNumber {
    /// This rule lets every test number through.
    #[error("no number can be refused: {0} lets every test number through")]
    Covered(String),
    /// The plan parses no test number.
    #[error("the numbering plan cannot parse any test number")]
    Unparsable,
}

/// Returns two unassigned numbers that no rule lets through: one to block, one to leave free.
///
/// # Errors
/// [`NoTestNumber`] if a rule lets all of them through or the plan cannot parse any.
pub fn callers(policy: &Policy, trunk: &Trunk, now: u64) -> Result<[Caller; 2], NoTestNumber> {
    let country = trunk.profile.plan.country.to_string();
    let mut found = Vec::new();
    for country in [country.as_str(), RESERVED_COUNTRY] {
        for last in 10..100 {
            let nines = (DIGITS_MAX as usize).saturating_sub(country.len() + 2);
            let text = format!("{country}{}{last}", "9".repeat(nines));
            let Some(digits) = Digits::parse(&text) else { continue };
            let number = Number::e164(digits);
            if covers(policy, number, now).is_some() {
                continue;
            }
            if let Some(text) = spell(&trunk.profile.plan, number) {
                found.push(Caller { number, text });
            }
            if let [blocked, free] = &found[..] {
                return Ok([blocked.clone(), free.clone()]);
            }
        }
    }
    let own = Digits::parse(&format!("{country}9999999")).map(Number::e164);
    Err(match own.and_then(|number| covers(policy, number, now)) {
        Some(rule) => NoTestNumber::Covered(rule),
        None => NoTestNumber::Unparsable,
    })
}

/// Returns the rule that always lets a number through.
fn covers(policy: &Policy, number: Number, now: u64) -> Option<String> {
    let is_of = |subject: Subject| match subject {
        Subject::Number(other) => other == number,
        Subject::Prefix(prefix) => number.digits().starts_with(prefix),
    };
    let protected = policy.protected.iter().find(|protected| is_of(protected.subject));
    let allowed = policy
        .allows
        .iter()
        .find(|(subject, allow)| is_of(*subject) && is_live(allow.expires, now));
    match (protected, allowed) {
        (Some(protected), _) => Some(format!("protected {}", protected.subject)),
        (None, Some((subject, _))) => Some(format!("allow {subject}")),
        (None, None) if number.count() < policy.settings.shortest_number.into() => {
            Some(format!("[limits] shortest_number = {}", policy.settings.shortest_number))
        }
        (None, None) => None,
    }
}

/// Writes a number in a format that a trunk with this plan sends and that the plan parses as the
/// same number; `+` always works.
fn spell(plan: &Plan, number: Number) -> Option<String> {
    let digits = number.to_string();
    let national = digits.strip_prefix(&plan.country.to_string());
    let sends = |format: u8| plan.formats & format != 0;
    let mut spellings = Vec::new();
    if let Some(national) = national {
        if sends(FORMAT_NATIONAL) && !plan.trunk_prefix.is_empty() {
            spellings.push(format!("{}{national}", plan.trunk_prefix));
        }
        if sends(FORMAT_BARE_NATIONAL) {
            spellings.push(national.to_owned());
        }
    }
    if sends(FORMAT_E164 | FORMAT_OWN_E164) {
        spellings.push(digits.clone());
    }
    spellings.push(format!("+{digits}"));
    spellings.into_iter().find(|text| number_text::number(text, plan) == Ok(number))
}

/// Returns a source address of a trunk; `None` if no packet can come from any of its addresses.
#[must_use]
pub fn source(policy: &Policy, trunk: usize, taken: &[IpAddr]) -> Option<IpAddr> {
    let trunk_of = |address: u128| {
        let sources = policy.trunks.iter().enumerate().flat_map(|(index, trunk)| {
            trunk
                .sources
                .iter()
                .map(move |(prefix, bits)| (index, u128::from_be_bytes(*prefix), *bits))
        });
        sources
            .filter(|(_, prefix, bits)| (prefix ^ address).leading_zeros() >= *bits)
            .max_by_key(|(_, _, bits)| *bits)
            .map(|(index, _, _)| index)
    };
    let prefixes = policy.trunks.get(trunk)?.sources.iter();
    let mut addresses = prefixes.flat_map(|(prefix, bits)| {
        let network = u128::from_be_bytes(*prefix);
        let room = 1u128.checked_shl(128 - bits).map_or(u128::MAX, |room| room - 1);
        // The first address of a network with more than two addresses is not a host address.
        let first = u128::from(room > 1);
        (first..=room.min(ADDRESSES)).map(move |host| network | host)
    });
    addresses.find_map(|address| {
        let address = (trunk_of(address) == Some(trunk)).then(|| canonical(address))?;
        (is_a_hosts(address) && !taken.contains(&address)).then_some(address)
    })
}

fn canonical(address: u128) -> IpAddr {
    Ipv6Addr::from_bits(address).to_canonical()
}

/// Checks whether a packet can come from an address; the kernel drops others before any socket.
fn is_a_hosts(address: IpAddr) -> bool {
    let reserved = match address {
        IpAddr::V4(address) => address.octets()[0] == 0 || address.octets()[0] >= 240,
        IpAddr::V6(address) => address.to_bits().leading_zeros() >= IPV4_MAPPED_BITS,
    };
    !reserved && !address.is_loopback() && !address.is_multicast() && !address.is_unspecified()
}

/// Builds an initial INVITE to 112 with this many bytes of filling in its headers, before the caller. If the
/// trunk is trusted for it, the caller is only in P-Asserted-Identity.
#[must_use]
pub fn invite(caller: &Caller, asserted: bool, call_id: &str, filling: usize) -> String {
    let uri = format!("<sip:{}@palang.invalid>", caller.text);
    let filling = match filling {
        0 => String::new(),
        filling => format!("Subject: {}\r\n", "-".repeat(filling)),
    };
    if asserted {
        let from = "<sip:anonymous@anonymous.invalid>";
        let more = format!("{filling}P-Asserted-Identity: {uri}\r\n");
        return request("INVITE", from, &more, call_id);
    }
    request("INVITE", &uri, &filling, call_id)
}

/// Builds a message that every gate lets through.
#[must_use]
pub fn options(call_id: &str) -> String {
    request("OPTIONS", "<sip:selftest@palang.invalid>", "", call_id)
}

fn request(method: &str, from: &str, more: &str, call_id: &str) -> String {
    format!(
        "{method} sip:112@palang.invalid SIP/2.0\r\n\
         Via: SIP/2.0/UDP palang.invalid:5060;branch=z9hG4bK-{call_id}\r\n\
         Max-Forwards: 70\r\n\
         {more}\
         From: {from};tag={call_id}\r\n\
         To: <sip:112@palang.invalid>\r\n\
         Call-ID: {call_id}\r\n\
         CSeq: 1 {method}\r\n\
         Contact: <sip:palang.invalid:5060>\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

/// Wraps a message in UDP, IP and Ethernet, in two fragments if it needs them. `id` is the identification of
/// their datagram. `None` if the addresses are of different families, or the message is too long.
#[must_use]
pub fn frames(
    macs: ([u8; 6], [u8; 6]),
    source: IpAddr,
    destination: IpAddr,
    port: u16,
    message: &str,
    id: u32,
) -> Option<Vec<Vec<u8>>> {
    let ethernet = PacketBuilder::ethernet2(macs.0, macs.1);
    let ip = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ethernet.ipv4(source.octets(), destination.octets(), TTL)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ethernet.ipv6(source.octets(), destination.octets(), TTL)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let udp = ip.udp(crate::model::policy::SIP_PORT, port);
    let mut frame = Vec::with_capacity(udp.size(message.len()));
    udp.write(&mut frame, message.as_bytes()).ok()?;
    if frame.len() <= FRAME_MAX { Some(vec![frame]) } else { fragments(&frame, id) }
}

/// Cuts a frame without VLAN tags and options into two fragments (RFC 791 §3.2, RFC 8200 §4.5).
fn fragments(frame: &[u8], id: u32) -> Option<Vec<Vec<u8>>> {
    let (ethernet, packet) = frame.split_at_checked(Ethernet2Header::LEN)?;
    let parts = match packet.first()? >> 4 {
        4 => {
            let (header, datagram) = Ipv4Header::from_slice(packet).ok()?;
            parts(datagram)?.map(|(offset, more, part)| {
                let mut header = header.clone();
                header.identification = id as u16;
                header.dont_fragment = false;
                header.more_fragments = more;
                header.fragment_offset = offset;
                header.set_payload_len(part.len()).ok()?;
                header.header_checksum = header.calc_header_checksum();
                Some([ethernet, &header.to_bytes(), part].concat())
            })
        }
        _ => {
            let (header, datagram) = Ipv6Header::from_slice(packet).ok()?;
            parts(datagram)?.map(|(offset, more, part)| {
                let mut header = header.clone();
                header.next_header = ip_number::IPV6_FRAGMENTATION_HEADER;
                header.set_payload_length(Ipv6FragmentHeader::LEN + part.len()).ok()?;
                let fragment = Ipv6FragmentHeader::new(ip_number::UDP, offset, more, id);
                Some([ethernet, &header.to_bytes(), &fragment.to_bytes(), part].concat())
            })
        }
    };
    parts.into_iter().collect()
}

/// Cuts a datagram into two parts: offset, whether more follow, and bytes.
fn parts(datagram: &[u8]) -> Option<[(IpFragOffset, bool, &[u8]); 2]> {
    let (first, last) = datagram.split_at_checked(FRAGMENT_LEN)?;
    let offset = IpFragOffset::try_new((FRAGMENT_LEN / 8) as u16).ok()?;
    Some([(IpFragOffset::ZERO, true, first), (offset, false, last)])
}

#[cfg(test)]
mod tests {
    use filter_common::plan::FORMAT_SUBSCRIBER;

    use super::*;

    fn digits(text: &str) -> Digits {
        Digits::parse(text).unwrap()
    }

    fn texts(policy: &Policy) -> Result<[String; 2], NoTestNumber> {
        callers(policy, &policy.trunks[0], 1000).map(|callers| callers.map(|caller| caller.text))
    }

    #[test]
    fn numbers_are_written_in_the_format_of_the_trunk() {
        for (formats, blocked) in [
            (FORMAT_E164 | FORMAT_NATIONAL, "09999999999910"),
            (FORMAT_E164, "629999999999910"),
            (FORMAT_NATIONAL | FORMAT_BARE_NATIONAL, "09999999999910"),
            (FORMAT_BARE_NATIONAL, "9999999999910"),
            // As E.164 it is another number, so it is ambiguous and written with `+`.
            (FORMAT_E164 | FORMAT_BARE_NATIONAL, "629999999999910"),
            (FORMAT_SUBSCRIBER, "+629999999999910"),
        ] {
            let mut policy = Policy::default();
            policy.trunks[0].profile.plan.formats = formats;
            let [first, second] = callers(&policy, &policy.trunks[0], 0).unwrap();
            let plan = &policy.trunks[0].profile.plan;
            assert_eq!(number_text::number(&first.text, plan), Ok(first.number), "{formats}");
            assert_eq!(first.number.to_string(), "629999999999910", "{formats}");
            assert_ne!(first.number, second.number);
            assert_eq!(first.text.trim_start_matches('+'), blocked.trim_start_matches('+'));
        }
    }

    #[test]
    fn numbers_that_a_rule_lets_through_are_skipped() {
        let mut policy = Policy::default();
        policy.protect(Subject::Number(Number::e164(digits("629999999999910"))));
        assert_eq!(texts(&policy).unwrap()[0], "09999999999911");
        policy.allow(Subject::Prefix(digits("62999")), 1000);
        assert_eq!(texts(&policy).unwrap()[0], "09999999999911", "that allow has ended");
        policy.allow(Subject::Prefix(digits("62999")), 1001);
        assert_eq!(texts(&policy).unwrap()[0], "999999999999910");
        policy.allow(Subject::Prefix(digits("9")), 0);
        let error = texts(&policy).unwrap_err();
        assert_eq!(error, NoTestNumber::Covered("allow 62999*".to_owned()));
    }

    #[test]
    fn long_calls_come_in_two_fragments() {
        let caller = Caller { number: Number::NONE, text: "112".to_owned() };
        let addresses = [["10.0.0.1", "10.0.0.2"], ["2001:db8::1", "2001:db8::2"]];
        for ([source, destination], headers) in addresses.into_iter().zip([34, 62]) {
            let frames = |filling| {
                let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
                let message = invite(&caller, false, "id", filling);
                let macs = ([2; 6], [4; 6]);
                let frames = frames(macs, source, destination, 5060, &message, 7).unwrap();
                (frames, message)
            };
            assert_eq!(frames(0).0.len(), 1, "{source}");
            let (frames, message) = frames(2_000);
            let [first, last] = &frames[..] else { panic!("{}", frames.len()) };
            assert_eq!(first.len(), headers + FRAGMENT_LEN, "{source}");
            let whole = [&first[headers + 8..], &last[headers..]].concat();
            assert_eq!(whole, message.into_bytes(), "{source}");
        }
    }

    #[test]
    fn sources_lead_to_their_trunk() {
        let mut policy = Policy::default();
        let mapped = |text: &str| {
            let address: std::net::Ipv4Addr = text.parse().unwrap();
            address.to_ipv6_mapped().octets()
        };
        let six: Ipv6Addr = "2001:db8::".parse().unwrap();
        for sources in [
            vec![(mapped("10.0.0.0"), 96 + 24)],
            // Inside the first: the longer prefix wins.
            vec![(mapped("10.0.0.0"), 96 + 31)],
            vec![(mapped("10.9.9.9"), 128)],
            vec![(mapped("127.0.0.1"), 128), (six.octets(), 32)],
            vec![(mapped("0.0.0.0"), 96)],
            vec![(mapped("127.0.0.1"), 128)],
        ] {
            let trunk = Trunk { sources, ..policy.trunks[0].clone() };
            policy.trunks.push(trunk);
        }
        let text = |trunk| source(&policy, trunk, &[]).map(|address| address.to_string());
        let found: Vec<_> = (0..8).map(text).collect();
        let some = |text: &str| Some(text.to_owned());
        let expected = [
            None,
            some("10.0.0.2"),
            some("10.0.0.0"),
            some("10.9.9.9"),
            some("2001:db8::1"),
            None,
            None,
            None,
        ];
        assert_eq!(found, expected);
        let taken = ["10.9.9.9".parse().unwrap()];
        assert_eq!(source(&policy, 3, &taken), None);
    }
}
