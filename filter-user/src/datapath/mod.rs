//! The kernel side, from user space: loads the program, attaches it, fills its maps, runs it. No other
//! room uses Aya.

pub(crate) mod attach;
pub(crate) mod bpf_stats;
pub(crate) mod egress;
pub(crate) mod error;
pub(crate) mod evidence;
pub(crate) mod features;
pub(crate) mod forwarded;
pub(crate) mod load;
pub(crate) mod loaded;
pub(crate) mod maps;
pub mod object;
pub(crate) mod own_addresses;
pub(crate) mod pins;
pub(crate) mod positions;
pub(crate) mod raw;
pub(crate) mod replay;
pub(crate) mod replies;
pub(crate) mod reply_queue;
pub(crate) mod rings;
pub(crate) mod second_look;
mod syscall;
pub(crate) mod trial;

pub use crate::datapath::attach::{Attached, Filter};
pub use crate::datapath::bpf_stats::{RunTime, Statistics};
pub use crate::datapath::egress::{Egress, tcx_programs};
pub use crate::datapath::error::{Error, Refusal};
pub use crate::datapath::evidence::{EvidenceRing, EvidenceSwitch};
pub use crate::datapath::features::{Features, memory_limit};
pub use crate::datapath::forwarded::{tag, try_forwarded};
pub use crate::datapath::load::{Plan, Program, slow_reader};
pub use crate::datapath::loaded::{Loaded, loaded, map_id};
pub use crate::datapath::maps::carry_over::carry_over;
pub use crate::datapath::maps::lookup::LookUp;
pub use crate::datapath::maps::pass_maps::{AllowHalves, PassMaps};
pub use crate::datapath::maps::{Maps, event_stats, walk_blocks};
pub use crate::datapath::own_addresses::OwnAddresses;
pub use crate::datapath::pins::Pins;
pub use crate::datapath::positions::{EVENT_BYTES, Positions};
pub use crate::datapath::replay::{Judged, Replay};
pub use crate::datapath::replies::{ReplyCounters, ReplyKeys};
pub use crate::datapath::reply_queue::{DaemonPaths, DaemonReplyCounters, Heartbeat, ReplyQueue};
pub use crate::datapath::rings::Events;
pub use crate::datapath::trial::Trial;
