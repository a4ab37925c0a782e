//! The way of a packet that leaves: which number does the centre call?
//!
//! Two steps, because between them the kernel may have to make more of the packet readable.

use crate::bytes::Bytes;
use crate::frame::{self, Part};
use crate::judge::{self, JudgeContext, Scratch};
use crate::number::Number;
use crate::sip::fields::{Field, FieldOffset, Form};
use crate::sip::headers::BAD;
use crate::sip::message;

/// Bytes of a frame that are read at most.
pub const READ_MAX: usize = message::SCAN_MAX + 256;

/// `sip:`, `sips` and `tel:` in small letters; schemes are case-insensitive (RFC 3261 §19.1.1).
const SIP: u32 = u32::from_be_bytes(*b"sip:");
const SIPS: u32 = u32::from_be_bytes(*b"sips");
const TEL: u32 = u32::from_be_bytes(*b"tel:");
const SMALL: u32 = 0x2020_2020;

/// Reads the outer layers into `scratch`, which comes all zero. Returns whether call-back grace is on and
/// this may be SIP over UDP. A SIP server sends from its SIP port; where it does not, the trunk listens on one.
#[inline(always)]
pub fn is_sip<B: Bytes, G: JudgeContext>(bytes: &B, gate: &G, scratch: &mut Scratch) -> bool {
    let packet = &mut scratch.packet;
    gate.settings().is_some_and(|settings| settings.callback_grace != 0)
        && frame::read(bytes, packet).is_ok()
        && packet.transport == crate::abi::TRANSPORT_UDP
        && matches!(packet.part, Part::Whole | Part::First)
        && (gate.is_sip_port(packet.source_port) || gate.is_sip_port(packet.destination_port))
}

/// Returns the number that an initial INVITE calls. [`Number::NONE`]: not an initial INVITE, or its
/// Request-URI has no number in the plan of the trunk that it goes to. Follows [`is_sip`].
#[inline(always)]
pub fn called<B: Bytes, G: JudgeContext>(bytes: &mut B, gate: &G, scratch: &mut Scratch) -> Number {
    let payload = bytes.hide_range(scratch.packet.payload);
    let len = bytes.hide_range(scratch.packet.payload_len);
    let start = message::request_uri(bytes, payload, len);
    if start == 0 {
        return Number::NONE;
    }
    // From here on all ways are equal for the verifier.
    bytes.revalidate();
    let start = bytes.hide_range(start);
    let state = message::scan_all(bytes, start, payload + len - start, &mut scratch.fields);
    // Within a dialog the Request-URI is the other side's contact. Headers after `To` may be
    // cut off: they change nothing.
    let fields = &scratch.fields;
    if state == BAD
        || fields[Field::To as usize].is_missing()
        || !fields[Field::ToTag as usize].is_missing()
    {
        return Number::NONE;
    }
    let trunk =
        bytes.hide_range(find_trunk(gate, &scratch.packet.fragment.destination) as usize) as u32;
    let Some(profile) = gate.profile(trunk) else {
        return Number::NONE;
    };
    let scheme = FieldOffset(bytes.hide_range(scheme(bytes, start).0 as usize) as u64);
    if scheme == FieldOffset::NONE {
        return Number::NONE;
    }
    bytes.revalidate();
    // A call to an extension is a call to the number: who calls from there next may not name it.
    let number = judge::number::<B, false>(bytes, bytes.hide_range(start), scheme, &profile.plan);
    // A low nibble of 0 is a reason without a number.
    if number & 0xF == 0 { Number::NONE } else { Number(number) }
}

/// Returns the index of the trunk that a destination belongs to.
#[inline(never)]
fn find_trunk<G: JudgeContext>(gate: &G, destination: &[u8; 16]) -> u32 {
    gate.trunk(destination)
}

/// Returns the offset of the colon after the scheme at `start`; [`FieldOffset::NONE`]: the scheme has
/// no numbers.
#[inline(never)]
fn scheme<B: Bytes>(bytes: &B, start: usize) -> FieldOffset {
    let Some(scheme) = bytes.be32(start) else {
        return FieldOffset::NONE;
    };
    // The `@` ends the reading of the first two, as in angle brackets; a space that of `tel:`.
    match scheme | SMALL {
        SIP => FieldOffset::new(3, Form::Sip),
        SIPS => FieldOffset::new(4, Form::Sip),
        TEL => FieldOffset::new(3, Form::TelBare),
        _ => FieldOffset::NONE,
    }
}
