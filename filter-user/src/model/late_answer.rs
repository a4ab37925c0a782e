//! The reply to a refused call that the kernel hands to the daemon.

use filter_common::abi::{Keys, Profile};
use filter_common::answer::{Answer, LONG_ROOM, Outcome};
use filter_common::bytes::Slice;
use filter_common::contact::Contact;
use filter_common::frame::{self, Packet};
use filter_common::handed_over::{HANDED_REQUEST, HANDED_WITHOUT_CHECKSUM, HandedOver};

/// Why a call gets no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoReply {
    /// A checksum is wrong, or missing where the trunk does not accept that.
    Damaged,
    /// No reply is possible: see [`Answer::write`].
    Impossible,
}

/// Returns the IP packet of the reply to a call: [`reply`] without its Ethernet header.
///
/// # Errors
/// As [`reply`].
pub fn packet(
    head: &HandedOver,
    frame: &[u8],
    keys: &Keys,
    contact: &Contact,
) -> Result<Vec<u8>, NoReply> {
    let mut frame = reply(head, frame, keys, contact)?;
    let ip = usize::from(head.ip);
    if ip >= frame.len() {
        return Err(NoReply::Impossible);
    }
    Ok(frame.split_off(ip))
}

/// Returns the frame of the reply to a call, which the kernel has refused and counted. `frame` is that of the request,
/// or already that of the reply. `contact` is the trunk's.
///
/// # Errors
/// [`NoReply`] with the reason.
pub fn reply(
    head: &HandedOver,
    frame: &[u8],
    keys: &Keys,
    contact: &Contact,
) -> Result<Vec<u8>, NoReply> {
    if head.flags & HANDED_REQUEST == 0 {
        return Ok(frame.to_vec());
    }
    let mut packet = Packet::default();
    let bytes = &mut Slice::from(frame);
    frame::read(bytes, &mut packet).map_err(|_| NoReply::Impossible)?;
    let without = u8::from(head.flags & HANDED_WITHOUT_CHECKSUM != 0);
    let profile =
        Profile { replies_without_checksum: without, contact: *contact, ..Profile::default() };
    let mut answer = Box::<Answer<LONG_ROOM>>::default();
    match answer.reply(bytes, &packet, keys, &profile, head.code, || true) {
        Outcome::Written(reply) => Ok(answer.bytes(reply.start, reply.end).to_vec()),
        Outcome::Damaged => Err(NoReply::Damaged),
        Outcome::Impossible | Outcome::Limited | Outcome::Silent => Err(NoReply::Impossible),
    }
}
