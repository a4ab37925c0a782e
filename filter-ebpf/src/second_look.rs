//! The second look: judges a datagram that the host has put together, when the first look could not read
//! it whole. It runs where a packet is about to go to a socket (`cgroup_skb/ingress`).

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use filter_common::abi::TRANSPORT_TCP;
use filter_common::judge::{JudgeContext as _, is_noted, judge_again};
use filter_common::reason::Reason;

use crate::datagram::{Datagram, OUTER_MAX, Reassembled};
use crate::lookup::Kernel;
use crate::room::COPY_MAX;
use crate::{maps, run, telemetry};

/// Judges a packet that the first look has noted, and reports it. Returns the reason and the number of the
/// `Verdict`; `None` for all other packets.
#[inline(always)]
pub fn look_again(skb: *mut __sk_buff) -> Option<(Reason, u8)> {
    if !may_be_udp(skb) {
        return None;
    }
    let scratch = run::cleared(&maps::SECOND_LOOK_SCRATCH)?;
    let mut datagram = Datagram::of_this_cpu()?;
    let mut kernel = Kernel::new()?;
    if !datagram.fill::<OUTER_MAX>(skb)
        || !is_noted(&datagram, &mut kernel, scratch)
        || !datagram.fill::<COPY_MAX>(skb)
    {
        return None;
    }
    let scan = |datagram: &Datagram, start, len, fields: &mut _| datagram.scan(start, len, fields);
    let reason = judge_again(&mut datagram, &mut kernel, scratch, scan);
    let limit = kernel.settings().map_or(0, |settings| settings.pass_events_per_second);
    telemetry::report(Reassembled(skb), scratch, reason, limit);
    Some((reason, scratch.event.verdict))
}

/// Returns `false` for a packet that is surely not UDP: most packets to the sockets of a machine are TCP.
#[inline(always)]
fn may_be_udp(skb: *mut __sk_buff) -> bool {
    const ETHERTYPE_IPV4: u16 = 0x0800;
    // The protocol of an IPv4 header (RFC 791 §3.1), or the next header of IPv6 (RFC 8200 §3).
    // SAFETY: the context that this program was called with, and room for one byte.
    unsafe {
        let is_ipv4 = u16::from_be((*skb).protocol as u16) == ETHERTYPE_IPV4;
        let mut protocol = 0_u8;
        let at = if is_ipv4 { 9 } else { 6 };
        bpf_skb_load_bytes(skb.cast(), at, (&raw mut protocol).cast(), 1) == 0
            && protocol != TRANSPORT_TCP
    }
}
