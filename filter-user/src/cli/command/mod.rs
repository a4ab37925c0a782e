//! The commands: one file or folder for each.

pub mod allow;
pub mod attach;
pub mod audit;
pub mod block;
pub mod callback;
pub mod calls;
pub mod check;
pub mod completions;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod erase;
pub mod explain;
pub mod export;
pub mod mode;
pub mod monitor;
pub mod r#override;
pub mod replay;
pub mod report;
pub mod review;
pub mod selftest;
pub mod setup;
pub mod status;
pub mod store;
pub mod top;
pub mod what_if;
