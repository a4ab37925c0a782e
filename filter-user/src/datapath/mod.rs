//! The kernel side, from user space: load the program, attach it, fill its maps, run it. The
//! only place that knows Aya.

mod egress;
mod error;
mod evidence;
mod features;
mod gate;
mod live;
mod loaded;
mod maps;
mod positions;
mod raw;
mod replay;
mod run_time;
mod trial;

pub use self::egress::{Egress, tcx_programs};
pub use self::error::{Error, Refusal};
pub use self::evidence::{EvidenceRing, EvidenceSwitch};
pub use self::features::{Features, memory_limit};
pub use self::gate::{Plan, Program, slow_reader};
pub use self::live::{Attached, Events, Filter, Pins};
pub use self::loaded::{Loaded, loaded, map_id};
pub use self::maps::{AllowHalves, LookUp, Maps, WayOut, carry_over, event_stats, walk_blocks};
pub use self::positions::{EVENT_BYTES, Positions};
pub use self::replay::{Judged, Replay};
pub use self::run_time::{RunTime, Statistics};
pub use self::trial::Trial;

/// The program's memory of attempts needs room for two of each blocked number, and for
/// what each CPU keeps free for itself, or it forgets too early.
fn attempts(blocks: u32) -> Result<u32, Error> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| Error::Cpus(error))? as u32;
    Ok(blocks.saturating_mul(2).saturating_add(128 * cpus).max(65_536))
}
