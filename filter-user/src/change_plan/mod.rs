//! Plans what a change does, without doing it: pure functions, one for each kind of change.
//!
//! The daemon and the offline commands share the plans of overrides and allows. The daemon, what-if
//! and the simulator share the plan of a report.

pub mod allow;
pub mod checks;
pub mod override_switch;
pub mod report;
pub mod shared_number;
