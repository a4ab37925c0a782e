//! Explains which rule decides on a number.

use filter_common::abi::{Block, SEPARATE, TOMBSTONE};

use crate::api::wire::{self, NextAttempt, Problem, ProblemKind};
use crate::change_plan::allow::describe;
use crate::daemon::state::{Control, problem};
use crate::inspect;
use crate::model::attempt_identity::names;
use crate::model::policy::{Subject, Trunk};
use crate::model::redial::{RedialPolicy, short};
use crate::store::Decision;
use crate::sys::clock;

impl Control {
    /// Returns the rule that decides on a number, its author and end, and the entries of the maps.
    ///
    /// # Errors
    /// [`ProblemKind::Usage`] if the text is not a number; [`ProblemKind::Failed`] if a system call
    /// fails.
    pub async fn explain(&self, text: &str) -> Result<wire::Explain, Problem> {
        let Subject::Number(number) = self.subject(text)? else {
            return problem(ProblemKind::Usage, "explain a number, not a prefix");
        };
        let check = self.check(number)?;
        let subject = Subject::Number(number);
        let key = subject.key();
        let mut steps = Vec::new();
        let mut step = |name: &str, decides: bool, kernel: Option<String>, rule: Option<u64>| {
            steps.push((name.to_owned(), decides, kernel, rule));
        };
        let until = inspect::live(self.maps.pass_maps().override_until()?);
        let ends = |expires: u64| match expires {
            0 => "no end".to_owned(),
            TOMBSTONE => "lifted".to_owned(),
            time if time <= clock::boot() => format!("ended {}", clock::wall(time)),
            time => format!("ends {}", clock::wall(time)),
        };
        let reason = check.reason.as_str();
        step("override", reason == "override", until.map(ends), None);
        let found = self.maps.protected(&key)?;
        let config = self.config();
        let kernel = match found {
            Some(found) => {
                Some(config.policy.rule_name(found.rule).unwrap_or_else(|| "protected".into()))
            }
            None => config.policy.too_short(subject),
        };
        step("protected", reason == "protected", kernel, None);
        let found = self.maps.pass_maps().allow(subject)?;
        let kernel = found.map(|found| format!("rule {}, {}", found.rule, ends(found.expires)));
        step("allowed-number", reason == "allowed-number", kernel, found.map(|found| found.rule));
        let found = self.maps.allowed_prefix(&key)?;
        let kernel = found.map(|found| {
            let prefix = Subject::of_prefix_entry(found.number);
            format!("{prefix}, rule {}, {}", found.rule, ends(found.expires))
        });
        step("allowed-prefix", reason == "allowed-prefix", kernel, found.map(|found| found.rule));
        let blocked = matches!(reason, "blocked-number" | "blocked-prefix");
        let found = self.maps.block(subject)?;
        let number_block = found;
        let by_number = found
            .is_some_and(|found| ends(found.expires).starts_with("ends") || found.expires == 0);
        let kernel = found.map(|found| format!("rule {}, {}", found.rule, ends(found.expires)));
        step("blocked-number", blocked && by_number, kernel, found.map(|found| found.rule));
        let found = self.maps.blocked_prefix(&key)?;
        let kernel = found.map(|found| {
            let prefix = Subject::of_prefix_entry(found.number);
            let short = config.policy.too_short(prefix);
            let idle = short.map_or_else(String::new, |why| format!(", never in force: {why}"));
            format!("{prefix}, rule {}, {}{idle}", found.rule, ends(found.expires))
        });
        step("blocked-prefix", blocked && !by_number, kernel, found.map(|found| found.rule));
        let block = if by_number { number_block } else { found };
        let granted = check.granted.as_ref();
        let granted = granted.map(|granted| format!("granted until {}", granted.until));
        let next = check.next_attempt.map(|NextAttempt { attempt, of }| {
            let separate = separations(&config.policy.trunks, block);
            format!("the next attempt is {attempt}, attempt {of} passes; {separate}")
        });
        step("redial-grant", reason == "redial-grant", granted.or(next), None);
        step("mode", reason == "observe", Some(self.get_mode()?.mode), None);

        let rules: Vec<_> = steps.iter().filter_map(|step| step.3).collect();
        let stored = self
            .store_handle
            .read(move |reader| {
                rules.into_iter().map(|rule| Ok((rule, reader.by_rule(rule)?))).collect()
            })
            .await;
        let stored: Vec<(u64, Option<Decision>)> = stored.unwrap_or_default();
        let of = |rule: u64| {
            let found = stored.iter().find(|(number, _)| *number == rule);
            found.and_then(|(_, decision)| decision.as_ref()).map(describe)
        };
        let steps = steps
            .into_iter()
            .map(|(step, decides, kernel, rule)| wire::Step {
                step,
                kernel,
                store: rule.and_then(of),
                decides,
            })
            .collect();
        Ok(wire::Explain { check, steps })
    }
}

/// Describes how far apart separate attempts are: `attempts are separate after 5s, on trunk telkom after 35s and with another icid`. The window
/// of a block may be too short for that; then the time that counts comes first.
fn separations(trunks: &[Trunk], block: Option<Block>) -> String {
    let after = |configured: u32| {
        let counts = block.map_or(configured, |block| redial_of(&block).separation(configured));
        if counts == configured {
            short(configured)
        } else {
            format!("{} (separate is {}; the window is short)", short(counts), short(configured))
        }
    };
    let own = trunks
        .iter()
        .filter(|trunk| trunk.profile.separate != SEPARATE || trunk.profile.attempt_identity != 0);
    let own = own.map(|trunk| {
        let after = format!(", on trunk {} after {}", trunk.name, after(trunk.profile.separate));
        match names(trunk.profile.attempt_identity) {
            names if names.is_empty() => after,
            names => format!("{after} and with another {}", names.replace(", ", " or ")),
        }
    });
    let own = own.collect::<String>();
    format!("attempts are separate after {}{own}", after(SEPARATE))
}

/// Returns the redial grant of a block.
fn redial_of(block: &Block) -> RedialPolicy {
    RedialPolicy {
        attempts: block.redial_attempts,
        window: block.redial_window,
        grant: block.redial_grant,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::Policy;

    #[test]
    fn time_that_counts_is_beside_the_one_of_the_trunk() {
        let mut trunks = Policy::default().trunks;
        assert_eq!(separations(&trunks, None), "attempts are separate after 5s");
        trunks.push(trunks[0].clone());
        (trunks[1].name, trunks[1].profile.separate) = ("telkom".to_owned(), 35);
        let block =
            |window| Some(Block { redial_attempts: 2, redial_window: window, ..Block::default() });
        let long = "attempts are separate after 5s, on trunk telkom after 35s";
        assert_eq!(separations(&trunks, block(600)), long);
        let clamped = "attempts are separate after 5s, on trunk telkom after 15s (separate is 35s; the window is short)";
        assert_eq!(separations(&trunks, block(60)), clamped);
    }
}
