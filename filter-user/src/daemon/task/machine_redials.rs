//! Watches for trunks whose carrier calls again by machine, and reports them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use filter_common::abi::{EVENT_REPEATED, Event, Profile, Verdict};
use filter_common::number::Number;
use filter_common::reason::Reason;

use crate::config::Config;
use crate::daemon::state::Control;
use crate::model::machine_redials::{Machine, Redials};
use crate::model::policy::Trunk;
use crate::store::Entry;
use crate::sys::clock;

/// Interval of the looks.
const TICK: Duration = Duration::from_secs(10);

/// The refused attempts of each trunk, by its name, and what they show.
#[derive(Clone, Default)]
pub struct MachineRedials(Arc<Mutex<BTreeMap<String, Watch>>>);

#[derive(Default)]
struct Watch {
    redials: Redials,
    machine: Option<Machine>,
    /// The settings of the trunk that the attempts were made with.
    settings: Settings,
}

/// The settings that a carrier's machine reacts to: how the trunk refuses, and which attempts are one.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Settings {
    refuse: u8,
    separate: u32,
    attempt_identity: u8,
}

impl Settings {
    fn of(trunk: &Trunk) -> Settings {
        let Profile { refuse, separate, attempt_identity, .. } = trunk.profile;
        Settings { refuse, separate, attempt_identity }
    }
}

impl Watch {
    /// Forgets the attempts if they were made with other settings: they say nothing about these.
    fn keep_only(&mut self, settings: Settings) {
        if self.settings != settings {
            self.redials = Redials::default();
            self.settings = settings;
        }
    }
}

impl MachineRedials {
    /// Notes an attempt of a trunk if it was refused, or opened a redial grant.
    pub fn take(&self, event: &Event, trunk: &Trunk) {
        let is_refused = event.verdict == Verdict::Drop as u8;
        let counts = is_refused || event.reason == Reason::RedialGrant as u8;
        if !counts || event.number == Number::NONE || event.flags & EVENT_REPEATED != 0 {
            return;
        }
        // Legs with one identity are one attempt.
        let attempt = match event.attempt_identity {
            0 => event.call_id,
            identity => identity.into(),
        };
        let mut watches = self.lock();
        if !watches.contains_key(&trunk.name) {
            watches.insert(trunk.name.clone(), Watch::default());
        }
        if let Some(watch) = watches.get_mut(&trunk.name) {
            watch.keep_only(Settings::of(trunk));
            watch.redials.note(event.number, attempt, event.time, trunk.profile.separate);
        }
    }

    /// Looks at all trunks at a time in boot time. Returns the trunks whose finding begins or ends, and the machine;
    /// `None`: it ended. Trunks that are no longer configured are forgotten.
    fn look(&self, trunks: &[Trunk], now: u64) -> Vec<(String, Option<Machine>)> {
        let mut changes = Vec::new();
        self.lock().retain(|name, watch| {
            let trunk = trunks.iter().find(|trunk| trunk.name == *name);
            let machine = trunk.and_then(|trunk| {
                watch.keep_only(Settings::of(trunk));
                watch.redials.machine(now, trunk.profile.separate)
            });
            if watch.machine.is_some() != machine.is_some() {
                changes.push((name.clone(), machine));
            }
            watch.machine = machine;
            trunk.is_some()
        });
        changes
    }

    /// Returns the trunks with a machine that calls again.
    #[must_use]
    pub fn found(&self) -> Vec<(String, Machine)> {
        let watches = self.lock();
        let found = watches.iter().filter_map(|(name, watch)| Some((name.clone(), watch.machine?)));
        found.collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Watch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Describes the finding about a trunk; `None` if it is no longer configured.
#[must_use]
pub fn finding(config: &Config, trunk: &str, machine: Machine) -> Option<String> {
    let trunk = config.policy.trunks.iter().find(|found| found.name == trunk)?;
    Some(machine.finding(trunk, config.redial.attempts != 0))
}

/// Looks every few seconds, and notes in the audit when a finding begins or ends.
pub async fn run(control: Arc<Control>, redials: MachineRedials) {
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        let config = control.config();
        for (trunk, machine) in redials.look(&config.policy.trunks, clock::boot()) {
            let entry = match machine {
                Some(machine) => {
                    if let Some(finding) = finding(&config, &trunk, machine) {
                        tracing::warn!("{finding}");
                    }
                    Entry::new(clock::now(), "daemon", "machine redials")
                        .with("trunk", trunk)
                        .with("gap_ms", machine.gap)
                        .with("numbers", machine.numbers)
                        .with("of", machine.of)
                }
                None => {
                    tracing::info!(trunk, "no machine redials any more");
                    Entry::new(clock::now(), "daemon", "machine redials ended").with("trunk", trunk)
                }
            };
            control.store_handle.write_behind(move |store| store.audit(entry.clone())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::Policy;

    const SECOND: u64 = 1_000_000_000;

    fn attempt(number: u64, call_id: u64, seconds: u64) -> Event {
        Event {
            number: Number(number << 8 | 0x1C),
            call_id,
            time: seconds * SECOND,
            verdict: Verdict::Drop as u8,
            reason: Reason::BlockedNumber as u8,
            ..Event::default()
        }
    }

    #[test]
    fn finding_begins_with_eight_second_legs_and_ends_with_the_cure() {
        let mut trunk = Policy::default().trunks[0].clone();
        trunk.name = "telkom".to_owned();
        let redials = MachineRedials::default();
        for number in 1..=8 {
            let (first, second) = (60 * number, 60 * number + 32);
            redials.take(&attempt(number, 2 * number, first), &trunk);
            redials.take(&Event { flags: EVENT_REPEATED, ..attempt(number, 9, first + 6) }, &trunk);
            // It opens the grant, or is refused where the block opens none.
            let opens = Event {
                verdict: Verdict::Pass as u8,
                reason: Reason::RedialGrant as u8,
                ..attempt(number, 2 * number + 1, second)
            };
            redials.take(&opens, &trunk);
            let other = Event {
                verdict: Verdict::Pass as u8,
                reason: Reason::NotBlocked as u8,
                ..attempt(number + 100, number, first)
            };
            redials.take(&other, &trunk);
        }
        let trunks = &mut [trunk];
        let machine = Machine { gap: 32_000, numbers: 8, of: 8 };
        let now = 600 * SECOND;
        assert_eq!(redials.found(), []);
        assert_eq!(redials.look(trunks, now), [("telkom".to_owned(), Some(machine))]);
        assert_eq!(redials.look(trunks, now), [], "it is noted once");
        assert_eq!(redials.found(), [("telkom".to_owned(), machine)]);
        trunks[0].profile.separate = 35;
        assert_eq!(redials.look(trunks, now), [("telkom".to_owned(), None)]);
        assert_eq!(redials.found(), []);
        assert_eq!(redials.look(&[], now), [], "the trunk is gone");
        assert!(redials.lock().is_empty());
    }

    #[test]
    fn attempts_before_another_refusal_or_separate_are_forgotten() {
        let mut trunk = Policy::default().trunks[0].clone();
        for change in [
            (|trunk: &mut Trunk| trunk.profile.refuse = 1) as fn(&mut Trunk),
            |trunk: &mut Trunk| trunk.profile.separate = 20,
        ] {
            let redials = MachineRedials::default();
            for number in 1..=8 {
                redials.take(&attempt(number, 2 * number, 60 * number), &trunk);
                redials.take(&attempt(number, 2 * number + 1, 60 * number + 32), &trunk);
            }
            let now = 600 * SECOND;
            assert_eq!(redials.look(std::slice::from_ref(&trunk), now).len(), 1);
            change(&mut trunk);
            let changes = redials.look(std::slice::from_ref(&trunk), now);
            assert!(matches!(&changes[..], [(_, None)]), "it ends at once");
            assert_eq!(redials.look(std::slice::from_ref(&trunk), now), []);
        }
    }
}
