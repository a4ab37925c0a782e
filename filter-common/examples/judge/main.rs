//! Judges three calls by the code that runs in the kernel:
//! `cargo run -p filter-common --example judge`.
//!
//! `gate.rs` has all that the decision needs from outside: settings, lists, and a memory.

mod gate;

use filter_common::abi::Verdict;
use filter_common::bytes::Slice;
use filter_common::judge::{Scratch, judge};
use filter_common::number::{Digits, Number};
use filter_common::sip::message::Reader;

use gate::{OneBlock, invite};

fn main() {
    let blocked = Number::e164(Digits::parse("6281234567890").unwrap_or_default());
    let mut gate = OneBlock::new(blocked);

    let minute = 60_000_000_000;
    for (override_until, caller) in [
        (0, "+6281234567890"),
        (0, "0812-3456-7890"),
        (0, "+6281234567891"),
        (9 * minute, "081234567890"),
    ] {
        gate.now += minute;
        gate.override_until = override_until;
        let frame = invite(caller, &format!("{}@example", gate.now));
        let mut scratch = Scratch::default();
        let reason =
            judge(&mut Slice::new(&frame, frame.len()), &mut gate, &mut scratch, Reader::Full);
        let verdict = Verdict::from_number(scratch.event.verdict).map_or("unknown", Verdict::name);
        println!("{caller:>16}  {verdict:<5} {}", reason.name());
    }
}
