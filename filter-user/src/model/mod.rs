//! The domain without a clock, a file or a kernel: policies, ladders, numbers and the host's gate.

pub(crate) mod attempt_identity;
pub mod duration;
pub mod free_text;
pub mod host_gate;
pub mod ladder;
pub mod late_answer;
pub mod machine_redials;
pub mod number_text;
pub mod per_ring;
pub mod plan;
pub mod policy;
pub mod reasons;
pub mod redial;
pub mod redirect;
pub mod refuse;
pub mod reply_path;
pub(crate) mod xdp_mode;
