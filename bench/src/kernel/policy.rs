//! The lists of the measured filter.

use anyhow::{Context as _, Result};
use filter_common::abi::{BLOCK_NO_REDIAL, BLOCK_OBSERVE, Block, Verdict};
use filter_common::number::{Digits, Number};
use palang::datapath::Maps;
use palang::model::policy::{Policy, Subject};

use super::programs::octal;

/// Prefix of the blocked numbers of a list; eight octal digits follow.
pub const BLOCKED_START: &str = "6281";
/// The first of them.
pub const BLOCKED: &str = "628100000000";
/// Prefix of numbers that are on no list.
pub const INNOCENT_START: &str = "6282";
/// One of them.
pub const INNOCENT: &str = "6282345670123";
/// Prefix of blocked numbers whose redials are counted.
const REDIALLED_START: &str = "6283";
/// One of them.
pub const REDIALLED: &str = "628300000000";
/// Number of these.
pub const REDIALLED_NUMBERS: u32 = 1 << 16;
/// A number whose block only observes.
pub const OBSERVED: &str = "6284345670123";
/// A number that an allow of its prefix lets through.
pub const ALLOWED: &str = "6285345670123";
const ALLOWED_START: &str = "62853";

/// Room for the other blocks beside the list of a base stack.
pub const EXTRA: u32 = REDIALLED_NUMBERS + 64;

/// Fills a list with N numbers, by the daemon's writer.
pub fn fill(maps: &Maps, numbers: u32) -> Result<()> {
    for number in 0..numbers {
        block(maps, &drawn(BLOCKED_START, number), BLOCK_NO_REDIAL)?;
    }
    Ok(())
}

/// Adds the other entries that the verdicts need.
pub fn fill_extra(maps: &Maps) -> Result<()> {
    for number in 0..REDIALLED_NUMBERS {
        block(maps, &drawn(REDIALLED_START, number), 0)?;
    }
    block(maps, OBSERVED, BLOCK_OBSERVE)
}

/// Returns the settings and the allow.
pub fn policy() -> Result<Policy> {
    let mut policy = Policy::default();
    policy.allow(Subject::Prefix(digits(ALLOWED_START)?), 0);
    policy.settings.pass_events_per_second = 0;
    Ok(policy)
}

/// Returns a number in the form that the programs draw.
fn drawn(start: &str, number: u32) -> String {
    let digits = octal(number).to_le_bytes();
    format!("{start}{}", String::from_utf8_lossy(&digits))
}

fn digits(text: &str) -> Result<Digits> {
    Digits::parse(text).with_context(|| format!("{text} is not a number"))
}

fn block(maps: &Maps, number: &str, flags: u8) -> Result<()> {
    let number = Number::e164(digits(number)?);
    let block = Block {
        number,
        rule: 1,
        redial_window: 3600,
        redial_grant: 600,
        // More attempts than any number makes here, so that no grant is opened.
        redial_attempts: u8::MAX,
        action: Verdict::Drop as u8,
        flags,
        ..Block::default()
    };
    Ok(maps.set_block(Subject::Number(number), block)?)
}
