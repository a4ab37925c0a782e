//! The decision for programs that find the caller number in another way: the rest of the filter
//! when reading the message costs nothing.

use aya_ebpf::programs::XdpContext;
use filter_common::abi::{EVENT_REPEATED, Event, MODE_ENFORCE, TRANSPORT_UDP};
use filter_common::bytes::Bytes;
use filter_common::decide::{self, Call, PolicyLookup as _};
use filter_common::judge::JudgeContext as _;
use filter_common::number::Number;
use filter_common::sip::message;

use crate::lookup::Kernel;
use crate::maps;
use crate::outer::Outer;
use crate::telemetry;
use crate::variants::Variant;

/// Packs eight digits of a text, the first one lowest, as nibbles from the top of 32 bits.
#[inline(always)]
const fn nibbles(text: u64) -> u64 {
    let digits = text.swap_bytes() & 0x0F0F_0F0F_0F0F_0F0F;
    let pairs = (digits | digits >> 4) & 0x00FF_00FF_00FF_00FF;
    let fours = (pairs | pairs >> 8) & 0x0000_FFFF_0000_FFFF;
    (fours | fours >> 16) & 0xFFFF_FFFF
}

/// Returns the number whose digits are where the runner says: two loads, no look at any of them.
#[inline(always)]
pub fn number<B: Bytes>(bytes: &B, variant: &Variant) -> Option<Number> {
    let at = variant.number_at as usize;
    let digits = nibbles(bytes.word(at)?) << 32 | nibbles(bytes.word(at + 8)?);
    let len = variant.number_len as u64 & 15;
    let unused = (u64::MAX >> (2 * len)) >> (2 * len);
    Some(Number(digits & !unused & !15 | len))
}

/// Decides on a call of this number as the filter does, with all its look-ups, and reports it.
/// The runner gives the place of the Call-ID. Returns whether the call is refused.
#[inline(always)]
pub fn decide<B: Bytes>(
    ctx: &XdpContext,
    bytes: &B,
    outer: &Outer,
    number: Number,
    variant: &Variant,
) -> Option<bool> {
    let scratch = maps::SCRATCH.get_ptr_mut(0)?;
    // SAFETY: a per-CPU element; XDP programs do not interrupt each other on a CPU.
    let scratch = unsafe { &mut *scratch };
    let event = &mut scratch.event;
    let mut kernel = Kernel::new(ctx.ctx)?;
    let time = kernel.now();
    let settings = kernel.settings()?;
    let limit = settings.pass_events_per_second;
    let enforces = settings.mode == MODE_ENFORCE
        && (settings.enforce_until == 0 || time < settings.enforce_until);
    let call_id =
        message::call_id_hash(bytes, variant.call_id_at as usize, variant.call_id_len as usize);
    *event = Event {
        time,
        number,
        call_id,
        source_port: outer.source_port,
        destination_port: outer.destination_port,
        transport: TRANSPORT_UDP,
        call_id_offset: variant.call_id_at,
        call_id_len: variant.call_id_len,
        ..Event::default()
    };
    event.source[10] = 0xFF;
    event.source[11] = 0xFF;
    let mut i = 0;
    while i < 4 {
        event.source[12 + i] = (outer.source >> (24 - 8 * i)) as u8;
        i += 1;
    }
    event.trunk = kernel.trunk(&event.source) as u16;
    let profile = kernel.profile(event.trunk as u32)?;
    let enforced = bytes.hide_range((enforces && profile.mode == MODE_ENFORCE) as usize) as u32;
    let (second, identity, separate, without_daemon) = (Number::NONE, 0, profile.separate, 0);
    let call = Call { number, second, call_id, identity, enforced, separate, without_daemon };
    let decision = decide::decide(&mut kernel, &call);
    event.verdict = decision.verdict as u8;
    event.policy_verdict = decision.policy_verdict as u8;
    event.rule = decision.rule;
    event.reason = decision.reason as u8;
    if decision.repeated {
        event.flags |= EVENT_REPEATED;
    }
    telemetry::report(ctx.ctx, scratch, decision.reason, limit);
    Some(scratch.event.verdict != 0)
}
