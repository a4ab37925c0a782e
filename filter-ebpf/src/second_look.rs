//! The second look: judges a datagram that the host has put together, when the first look could not read
//! it whole. It runs where a packet is about to go to a socket (`cgroup_skb/ingress`), or is forwarded (netfilter).

use aya_ebpf::bindings::__sk_buff;
use filter_common::abi::{BLOCK_REFUSE_DROP, EVENT_BY_DAEMON, TRUNKS_MAX};
use filter_common::bytes::Bytes as _;
use filter_common::decide::{PolicyLookup as _, refusal};
use filter_common::handed_over::{HANDED_REQUEST, HandedOver};
use filter_common::judge::{JudgeContext as _, Scratch, is_noted, judge_again};
use filter_common::reason::Reason;

use crate::datagram::{
    Datagram, ETHERTYPE_IPV4, IPV4_LEN, IPV6_LEN, OUTER_MAX, Packet, Reassembled, is_port_noted,
};
use crate::forwarded::{Forwarded, NetfilterContext};
use crate::lookup::Kernel;
use crate::packet::Arrival;
use crate::room::{COPY_MAX, ETHERNET_LEN};
use crate::{maps, reply, run, telemetry};

/// Length of a UDP header (RFC 768).
const UDP_LEN: usize = 8;

/// Judges a packet to a socket of this machine. See [`look_again`].
#[inline(always)]
pub fn look_at_own(skb: *mut __sk_buff) -> Option<(Reason, u8)> {
    if may_be_noted(skb) { look_again(skb) } else { None }
}

/// Judges a packet that this machine forwards. See [`look_again`].
#[inline(always)]
pub fn look_at_forwarded(context: *mut NetfilterContext) -> Option<(Reason, u8)> {
    look_again(Forwarded::new(context)?)
}

/// Judges a packet that the first look has noted, and reports it. Returns the reason and the number of the
/// `Verdict`; `None` for all other packets.
#[inline(always)]
fn look_again(packet: impl Packet + Arrival) -> Option<(Reason, u8)> {
    let scratch = run::cleared(&maps::SECOND_LOOK_SCRATCH)?;
    let mut datagram = Datagram::of_this_cpu()?;
    let mut kernel = Kernel::new(packet)?;
    if !datagram.fill::<OUTER_MAX>(packet)
        || !is_noted(&datagram, &mut kernel, scratch)
        || !datagram.fill::<COPY_MAX>(packet)
    {
        return None;
    }
    let scan = |datagram: &Datagram, start, len, fields: &mut _| datagram.scan(start, len, fields);
    let reason = judge_again(&mut datagram, &mut kernel, scratch, scan);
    if let Some(stats) = maps::EVENT_STATS.get_ptr_mut(0) {
        // SAFETY: a per-CPU element, and nothing else runs on this CPU meanwhile.
        unsafe { (*stats).judged_again += 1 };
    }
    if scratch.event.reply != 0 {
        hand_over(&datagram, &kernel, scratch, packet.interface())?;
    }
    let limit = kernel.settings().map_or(0, |settings| settings.pass_events_per_second);
    telemetry::report(Reassembled(packet), scratch, reason, limit);
    Some((reason, scratch.event.verdict))
}

/// Hands a refused call to the daemon, which answers it. `None` never happens: the maps have those elements.
#[inline(always)]
fn hand_over(
    datagram: &Datagram,
    kernel: &Kernel<impl Arrival>,
    scratch: &mut Scratch,
    interface: u32,
) -> Option<()> {
    let event = &mut scratch.event;
    let trunk = datagram.hide_range(event.trunk as usize) as u32 & (TRUNKS_MAX - 1);
    let profile = kernel.profile(trunk)?;
    let code = datagram.hide_range(refusal(kernel, event) as usize) as u8;
    event.reply = 0;
    if code == BLOCK_REFUSE_DROP {
        return Some(());
    }
    let stats = reply::stats(trunk)?;
    if !kernel.has_daemon(event.time) {
        stats.without_daemon += reply::first(event);
    } else if datagram.frame_len() != datagram.readable() {
        stats.impossible += 1;
    } else if !reply::has_room(trunk, event.time, profile) {
        stats.limited += 1;
    } else {
        let head = reply::head(event, trunk, interface, code, profile, ETHERNET_LEN as u8);
        let head = HandedOver { flags: head.flags | HANDED_REQUEST, ..head };
        let is_sent = datagram.hand_over(&head);
        stats.lost += 1 - is_sent;
        event.reply = code * is_sent as u8;
        event.flags |= EVENT_BY_DAEMON * is_sent as u8;
    }
    Some(())
}

/// Returns `false` for a packet that the first look has surely not noted. Most packets to the sockets of a
/// machine are such: TCP, or speech from another port.
#[inline(always)]
fn may_be_noted(skb: *mut __sk_buff) -> bool {
    // SAFETY: the context that this program was called with.
    let ethertype = u16::from_be(unsafe { (*skb).protocol } as u16);
    let is_ipv4 = ethertype == ETHERTYPE_IPV4;
    let (protocol, port) = if is_ipv4 {
        let Some(start) = start::<{ IPV4_LEN + UDP_LEN }>(skb) else { return true };
        if start[0] & 0xF != (IPV4_LEN / 4) as u8 {
            // It has options.
            return true;
        }
        (start[9], [start[IPV4_LEN], start[IPV4_LEN + 1]])
    } else {
        let Some(start) = start::<{ IPV6_LEN + UDP_LEN }>(skb) else { return true };
        (start[6], [start[IPV6_LEN], start[IPV6_LEN + 1]])
    };
    is_port_noted(is_ipv4, protocol, u16::from_be_bytes(port))
}

/// Returns the beginning of a packet, if the kernel has it in one piece.
#[inline(always)]
fn start<'a, const LEN: usize>(skb: *mut __sk_buff) -> Option<&'a [u8; LEN]> {
    // SAFETY: the context that this program was called with. The kernel gives the bytes from `data` to
    // `data_end`, which stay until the program ends.
    unsafe {
        let (data, end) = ((*skb).data as usize, (*skb).data_end as usize);
        if data + LEN > end { None } else { Some(&*(data as *const [u8; LEN])) }
    }
}
