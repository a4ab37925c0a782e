//! Plans what a report that is a strike does to the block and the redial grant of a number.
//!
//! The daemon, `palang what-if` and the simulator call [`plan_report`]; each of them then puts the
//! planned block into force in its own way.

use filter_common::abi::{BLOCK_NO_REDIAL, BLOCK_OBSERVE, Block};
use filter_common::decide;

use crate::model::ladder::ReportKind;
use crate::model::redial::RedialPolicy;
use crate::model::refuse::Refuse;

/// Largest number of attempts of a doubled redial setting.
pub const ATTEMPTS_MAX: u8 = 8;

const SECOND: u64 = 1_000_000_000;

/// A block, as far as a report changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockView {
    /// The end in nanoseconds, on the clock of the report; 0: the block does not end.
    pub expires: u64,
    /// Flags of the kernel's entry, such as [`BLOCK_NO_REDIAL`].
    pub flags: u8,
    /// The epoch.
    pub epoch: u32,
    /// The redial setting; `None`: the configured one.
    pub redial: Option<RedialPolicy>,
}

impl BlockView {
    /// Reads the kernel's entry of a block.
    #[must_use]
    pub fn of(block: &Block) -> BlockView {
        BlockView {
            expires: block.expires,
            flags: block.flags,
            epoch: block.epoch,
            redial: Some(RedialPolicy::of(block)),
        }
    }

    fn is_live(&self, now: u64) -> bool {
        decide::is_live(self.expires, now)
    }
}

/// The live block that decides on a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covering {
    /// The block, with its redial setting in force.
    pub block: BlockView,
    /// Whether it is the number's own block; otherwise it is the block of a prefix.
    pub is_own: bool,
}

/// A strike, and what the policy says about it.
#[derive(Clone, Copy, Debug)]
pub struct StrikeReport {
    /// Time of the report in nanoseconds.
    pub now: u64,
    /// Kind of call.
    pub kind: ReportKind,
    /// The end that the ladder demands, in nanoseconds; 0: no end; `None`: the ladder blocks nothing.
    pub ladder_end: Option<u64>,
    /// Whether a redial grant let the call through.
    pub was_granted: bool,
    /// Whether an earlier report ended that grant already.
    pub was_ended: bool,
    /// The factor for the attempts that open the next grant. Palang doubles.
    pub factor: u8,
}

/// Where the planned block comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The ladder sets or extends it.
    Ladder,
    /// The number's own block remains, with another epoch and redial setting.
    OwnBlock,
    /// The number gets a block of its own, because the block of a prefix covers other callers too.
    PrefixBlock,
}

/// Why the ladder leaves the number's block unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unchanged {
    /// The block lasts as long, or longer.
    LastsLonger,
    /// The block only observes, or no redial opens it.
    IsSpecial,
}

/// The effect of a report on the block and the grant of a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportPlan {
    /// The number's block afterwards; `None`: it does not change.
    pub block: Option<(Source, BlockView)>,
    /// The attempts that open the next grant; `None`: no grant ends. 0: no grant opens.
    pub ends_grant: Option<u8>,
    /// Why the ladder changes nothing, although it demands a block.
    pub unchanged: Option<Unchanged>,
}

/// Plans what a strike does. `own` is the number's own block, live or ended; `covering` is the live
/// block that decides on the number.
#[must_use]
pub fn plan_report(
    report: &StrikeReport,
    own: Option<&BlockView>,
    covering: Option<&Covering>,
) -> ReportPlan {
    let mut plan = ReportPlan::default();
    if let Some(expires) = report.ladder_end {
        match own.filter(|own| own.is_live(report.now)) {
            Some(live) if lasts_as_long(live.expires, expires) => {
                plan.unchanged = Some(Unchanged::LastsLonger);
            }
            Some(live) if live.flags & (BLOCK_OBSERVE | BLOCK_NO_REDIAL) != 0 => {
                plan.unchanged = Some(Unchanged::IsSpecial);
            }
            Some(_) | None => {
                // A doubled setting remains doubled, and a grant that ended does not start again.
                let epoch = own.map(|own| own.epoch);
                let epoch = epoch.or(covering.map(|covering| covering.block.epoch));
                let block = BlockView {
                    expires,
                    // The refusal that a person chose stays.
                    flags: own.map_or(0, |own| {
                        Refuse::without_redirect(own.flags & !(BLOCK_OBSERVE | BLOCK_NO_REDIAL))
                    }),
                    epoch: epoch.unwrap_or(0),
                    redial: own.and_then(|own| own.redial),
                };
                plan.block = Some((Source::Ladder, block));
            }
        }
    }
    let ends = report.kind.is_misuse() && report.was_granted && !report.was_ended;
    if let Some(covering) = covering.filter(|_| ends) {
        let old = covering.block;
        let (source, mut block) = plan.block.unwrap_or_else(|| match (covering.is_own, own) {
            (true, Some(own)) => (Source::OwnBlock, *own),
            (true, None) => (Source::OwnBlock, old),
            // The other callers of the prefix keep their grants.
            (false, _) => {
                let grant = old.redial.map_or(0, |redial| redial.grant);
                let over = report.now.saturating_add(u64::from(grant) * SECOND);
                let expires = if old.expires == 0 { over } else { old.expires.min(over) };
                (Source::PrefixBlock, BlockView { expires, ..old })
            }
        });
        // The kernel drops what it remembers of another epoch.
        block.epoch = old.epoch.wrapping_add(1);
        let opens =
            old.redial.filter(|redial| redial.attempts != 0 && old.flags & BLOCK_NO_REDIAL == 0);
        let next = opens.map(|redial| RedialPolicy {
            attempts: redial.attempts.saturating_mul(report.factor).min(ATTEMPTS_MAX),
            ..redial
        });
        block.redial = next.or(block.redial);
        plan.ends_grant = Some(next.map_or(0, |next| next.attempts));
        plan.block = Some((source, block));
    }
    plan
}

/// Returns whether one end is as late as another one; 0 is no end.
fn lasts_as_long(end: u64, other: u64) -> bool {
    end == 0 || other != 0 && end >= other
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000 * SECOND;
    const REDIAL: RedialPolicy = RedialPolicy { attempts: 3, window: 600, grant: 1800 };

    fn strike(ladder_end: Option<u64>, was_granted: bool) -> StrikeReport {
        let kind = ReportKind::Prank;
        StrikeReport { now: NOW, kind, ladder_end, was_granted, was_ended: false, factor: 2 }
    }

    fn block(expires: u64) -> BlockView {
        BlockView { expires, flags: 0, epoch: 4, redial: Some(REDIAL) }
    }

    #[test]
    fn strike_without_a_ladder_step_changes_nothing() {
        assert_eq!(plan_report(&strike(None, false), None, None), ReportPlan::default());
    }

    #[test]
    fn ladder_block_is_new_or_lasts_longer_than_the_one_before() {
        let end = NOW + 60 * SECOND;
        let plan = plan_report(&strike(Some(end), false), None, None);
        let (source, new) = plan.block.unwrap();
        assert_eq!((source, new.expires, new.epoch, new.redial), (Source::Ladder, end, 0, None));
        let shorter = block(end - 1);
        let (_, longer) =
            plan_report(&strike(Some(end), false), Some(&shorter), None).block.unwrap();
        assert_eq!((longer.expires, longer.epoch, longer.redial), (end, 4, Some(REDIAL)));
        for expires in [0, end] {
            let plan = plan_report(&strike(Some(end), false), Some(&block(expires)), None);
            assert_eq!((plan.block, plan.unchanged), (None, Some(Unchanged::LastsLonger)));
        }
        let special = BlockView { flags: BLOCK_NO_REDIAL, ..shorter };
        let plan = plan_report(&strike(Some(end), false), Some(&special), None);
        assert_eq!((plan.block, plan.unchanged), (None, Some(Unchanged::IsSpecial)));
    }

    #[test]
    fn reported_grant_ends_and_the_next_needs_twice_the_attempts() {
        let own = block(0);
        let covering = Covering { block: own, is_own: true };
        let mut report = strike(None, true);
        let plan = plan_report(&report, Some(&own), Some(&covering));
        let (source, changed) = plan.block.unwrap();
        assert_eq!((source, changed.expires, changed.epoch), (Source::OwnBlock, 0, 5));
        assert_eq!((plan.ends_grant, changed.redial.unwrap().attempts), (Some(6), 6));
        report.was_ended = true;
        assert_eq!(plan_report(&report, Some(&own), Some(&covering)), ReportPlan::default());
    }

    #[test]
    fn reported_grant_of_a_prefix_ends_by_a_block_of_the_number_alone() {
        let covering = Covering { block: block(0), is_own: false };
        let plan = plan_report(&strike(None, true), None, Some(&covering));
        let (source, own) = plan.block.unwrap();
        assert_eq!((source, own.epoch), (Source::PrefixBlock, 5));
        assert_eq!(own.expires, NOW + 1800 * SECOND);
    }

    #[test]
    fn block_that_no_redial_opens_keeps_its_setting() {
        let own = BlockView { flags: BLOCK_NO_REDIAL, ..block(0) };
        let covering = Covering { block: own, is_own: true };
        let plan = plan_report(&strike(None, true), Some(&own), Some(&covering));
        assert_eq!((plan.ends_grant, plan.block.unwrap().1.redial), (Some(0), Some(REDIAL)));
    }
}
