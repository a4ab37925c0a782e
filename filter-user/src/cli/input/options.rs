//! Options that several commands share.

use clap::Args;
use jiff::Timestamp;

use crate::cli::input::{number, time};

/// The option of every command that changes something.
#[derive(Clone, Copy, Debug, Args)]
pub struct ChangeOptions {
    /// Change nothing, only show what would change
    #[arg(long)]
    pub dry_run: bool,
}

/// The number or prefix that a command is about.
#[derive(Clone, Debug, Args)]
pub struct Subject {
    /// The number in any usual spelling, or a prefix that ends with `*`
    #[arg(value_name = "NUMBER|PREFIX*", value_parser = number::given)]
    pub number: String,
}

/// The caller number that a command is about.
#[derive(Clone, Debug, Args)]
pub struct Caller {
    /// The caller number in any usual spelling
    #[arg(value_name = "NUMBER", value_parser = number::given)]
    pub number: String,
}

/// When a decision ends; a command with it has the group `end`.
#[derive(Clone, Copy, Debug, Args)]
pub struct End {
    /// How long: 30m, 24h, 7d
    #[arg(long = "for", value_name = "DURATION", group = "end", value_parser = time::seconds)]
    pub seconds: Option<u64>,
    /// Until when: '2026-11-25 18:20' local time, or RFC 3339
    #[arg(long, value_name = "TIME", group = "end", value_parser = time::point)]
    pub until: Option<Timestamp>,
}

/// Why a decision is made.
#[derive(Clone, Debug, Args)]
pub struct Reason {
    /// Reason; the audit keeps it
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}
