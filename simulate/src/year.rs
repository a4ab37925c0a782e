//! Simulates a year of a centre, event by event.

use std::collections::{BTreeMap, HashSet};

use anyhow::Result;
use filter_common::abi::{SEPARATE, Verdict};
use filter_common::decide::Decision;
use filter_common::number::Number;
use filter_common::reason::Reason;
use palang::change_plan::report::ATTEMPTS_MAX;
use palang::model::ladder::ReportKind;
use palang::model::machine_redials::Redials;

use crate::callers::{Callers, Intent, Principal};
use crate::centre::{Answered, Centre, Rules, SECOND};
use crate::chance::{Chance, mixed};
use crate::model::{self, DAY, World};

/// An emergency call from a number that was blocked at the first attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Need {
    /// The attempt that passed, from 1; `None` if the caller gave up.
    pub passed: Option<u32>,
    /// Seconds from the first attempt until one passed or the caller gave up.
    pub seconds: f64,
    /// Whether it passed by a redial grant; otherwise the block had ended.
    pub granted: bool,
    /// Whether an earlier call of the same emergency was answered.
    pub again: bool,
    /// Owner of the number.
    pub whose: Whose,
}

/// Kinds of blocked numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A number that was used for pranks, by its owner at the time.
    Misused,
    /// The number of an innocent person, which somebody forged.
    Forged,
    /// The number of another innocent person: reported by mistake, or silent.
    Other,
}

/// Results of one or more years.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Years of one centre.
    pub years: f64,
    /// Attempts of pranksters and forgers, without the carrier's duplicates.
    pub prank_attempts: u64,
    /// Refused attempts of these.
    pub pranks_refused: u64,
    /// Pranks that a call-taker answered.
    pub pranks_answered: u64,
    /// Emergency calls from blocked numbers, in the order of their ends.
    pub needs: Vec<Need>,
    /// Strikes.
    pub strikes: u64,
    /// Strikes against a number by forgery; its owner made no prank.
    pub strikes_forged: u64,
    /// Strikes by mistake: the call was real.
    pub strikes_mistaken: u64,
    /// Blocks of innocent people whose number was forged, and their hours.
    pub forged: (u64, f64),
    /// Blocks of other innocent people who spoke, and their hours.
    pub mistaken: (u64, f64),
    /// Calls of the carrier's machine that opened a redial grant or passed by one.
    pub machine_passed: u64,
    /// Centres where the gate found the machine, and the hours until then.
    pub machine_found: (u64, f64),
}

impl Outcome {
    /// Adds the results of another centre.
    pub fn add(&mut self, other: Outcome) {
        self.years += other.years;
        self.prank_attempts += other.prank_attempts;
        self.pranks_refused += other.pranks_refused;
        self.pranks_answered += other.pranks_answered;
        self.needs.extend(other.needs);
        self.strikes += other.strikes;
        self.strikes_forged += other.strikes_forged;
        self.strikes_mistaken += other.strikes_mistaken;
        self.machine_passed += other.machine_passed;
        for (sum, more) in [
            (&mut self.forged, other.forged),
            (&mut self.mistaken, other.mistaken),
            (&mut self.machine_found, other.machine_found),
        ] {
            sum.0 += more.0;
            sum.1 += more.1;
        }
    }
}

enum Event {
    /// The caller dials.
    Dial { intent: usize },
    /// An INVITE arrives again: retransmitted, or duplicated by the carrier.
    Again { intent: usize, generation: u32, call_id: u64, edge: usize },
    /// The carrier's machine calls again.
    Machine { intent: usize, generation: u32, edge: usize },
    /// The caller gives up.
    GiveUp { intent: usize, generation: u32 },
    /// A call-taker reports a call.
    Report { call: Answered, kind: ReportKind, who: Principal },
}

/// Progress of an intended series of calls.
#[derive(Clone, Copy, Default)]
struct Progress {
    /// Counts dials and answers, so that outdated events are ignored.
    generation: u32,
    calls_left: u32,
    /// Number of calls in a row.
    refusals: u32,
    /// Time of this call's first attempt, in nanoseconds.
    first: u64,
    /// Whether the number was blocked at the first attempt of this call.
    blocked: bool,
}

/// A year in progress.
struct Year<'a> {
    world: &'a World,
    rules: &'a Rules,
    callers: &'a Callers,
    centre: Centre,
    progress: Vec<Progress>,
    /// Ordered by time in nanoseconds, then by sequence.
    queue: BTreeMap<(u64, u64), Event>,
    counter: u64,
    misused: HashSet<Number>,
    forged: HashSet<Number>,
    end: u64,
    redials: Redials,
    next_look: u64,
    outcome: Outcome,
}

/// Simulates a year.
///
/// # Errors
/// Returns an error if a number would have more than 15 digits.
pub fn run(world: &World, rules: &Rules, seed: u64) -> Result<Outcome> {
    let callers = Callers::new(world, seed)?;
    let is_prankster = |intent: &&Intent| matches!(intent.who, Principal::Prankster { .. });
    let mut year = Year {
        world,
        rules,
        centre: Centre::new(rules, world.edges)?,
        progress: callers
            .intents
            .iter()
            .map(|intent| Progress { calls_left: intent.calls, ..Progress::default() })
            .collect(),
        queue: BTreeMap::new(),
        counter: 0,
        misused: callers.intents.iter().filter(is_prankster).map(|intent| intent.number).collect(),
        forged: callers.forged.iter().copied().collect(),
        callers: &callers,
        end: nanoseconds(f64::from(world.days) * DAY),
        redials: Redials::default(),
        next_look: 0,
        outcome: Outcome { years: f64::from(world.days) / model::YEAR, ..Outcome::default() },
    };
    let mut next_forget = 0;
    for (index, intent) in callers.intents.iter().enumerate() {
        let time = nanoseconds(intent.time);
        year.until(time);
        if time > next_forget {
            year.centre.forget(time);
            next_forget = time + 600 * SECOND;
        }
        year.dial(index, time);
    }
    year.until(u64::MAX);
    Ok(year.outcome)
}

impl Year<'_> {
    fn until(&mut self, time: u64) {
        while let Some(entry) = self.queue.first_entry()
            && entry.key().0 < time
        {
            let ((now, _), event) = entry.remove_entry();
            match event {
                Event::Dial { intent } => self.dial(intent, now),
                Event::Again { intent, generation, call_id, edge } => {
                    let decision = self.call(intent, edge, call_id, now);
                    let current = self.progress[intent].generation == generation;
                    if current && decision.verdict == Verdict::Pass {
                        self.passed(intent, decision.reason, now);
                    }
                }
                Event::Machine { intent, generation, edge } => {
                    // A caller who has hung up has ended the call.
                    if self.progress[intent].generation != generation {
                        continue;
                    }
                    let call_id = self.call_id();
                    let decision = self.call(intent, edge, call_id, now);
                    if decision.verdict == Verdict::Pass {
                        self.outcome.machine_passed +=
                            u64::from(decision.reason == Reason::RedialGrant);
                        self.passed(intent, decision.reason, now);
                    }
                }
                Event::GiveUp { intent, generation } => {
                    if self.progress[intent].generation == generation {
                        self.need(intent, None, false, now);
                    }
                }
                Event::Report { call, kind, who } => self.report(&call, kind, who, now),
            }
        }
    }

    fn at(&mut self, time: u64, event: Event) {
        self.counter += 1;
        self.queue.insert((time, self.counter), event);
    }

    fn call_id(&mut self) -> u64 {
        self.counter += 1;
        mixed(self.counter)
    }

    /// Makes a call. Looks for a carrier's machine as the daemon does.
    fn call(&mut self, index: usize, edge: usize, call_id: u64, now: u64) -> Decision {
        let number = self.callers.intents[index].number;
        let decision = self.centre.call(edge, number, call_id, now);
        let counts = decision.verdict != Verdict::Pass || decision.reason == Reason::RedialGrant;
        if counts && !decision.repeated {
            self.redials.note(number, call_id, now, self.rules.separate);
        }
        if now >= self.next_look && self.outcome.machine_found.0 == 0 {
            self.next_look = now + 600 * SECOND;
            if self.redials.machine(now, self.rules.separate).is_some() {
                self.outcome.machine_found = (1, now as f64 / SECOND as f64 / 3600.0);
            }
        }
        decision
    }

    fn dial(&mut self, index: usize, now: u64) {
        let intent = &self.callers.intents[index];
        let progress = &mut self.progress[index];
        progress.generation += 1;
        let generation = progress.generation;
        let mut chance = Chance::new(intent.seed, generation.into());
        let edge = chance.one_of(self.world.edges);
        let call_id = self.call_id();
        let decision = self.call(index, edge, call_id, now);
        let refused = decision.verdict != Verdict::Pass;

        let progress = &mut self.progress[index];
        if progress.refusals == 0 {
            progress.first = now;
            progress.blocked = refused || decision.reason == Reason::RedialGrant;
        }
        if is_prank(intent.who) {
            self.outcome.prank_attempts += 1;
            self.outcome.pranks_refused += u64::from(refused);
        }
        if chance.happens(model::SENT_TWICE) {
            let call_id = self.call_id();
            let edge = (edge + 1) % self.world.edges;
            let time = now + nanoseconds(chance.within(&(0.3..4.5)));
            self.at(time, Event::Again { intent: index, generation, call_id, edge });
        }
        if refused {
            self.refused(index, call_id, edge, chance, now);
        } else {
            self.passed(index, decision.reason, now);
        }
    }

    fn refused(&mut self, index: usize, call_id: u64, edge: usize, mut chance: Chance, now: u64) {
        let intent = &self.callers.intents[index];
        let Progress { generation, refusals, .. } = self.progress[index];
        let refusals = refusals + 1;
        self.progress[index].refusals = refusals;
        let mut redials = match intent.who {
            Principal::InNeed { .. } => refusals <= patience(self.world, intent.seed),
            Principal::Prankster { knowing: true } => match self.rules.redial.attempts {
                0 => false,
                _ if self.world.dialling_on => refusals < ATTEMPTS_MAX.into(),
                attempts => refusals < attempts.into(),
            },
            Principal::Prankster { knowing: false } | Principal::Forger => {
                chance.happens(model::PRANKSTER_REDIALS)
            }
            Principal::Pocket => false,
        };
        let wait = match intent.who {
            // Those who know the rule know how far apart attempts are.
            Principal::Prankster { knowing: true } => {
                chance.within(&model::KNOWING) + f64::from(self.rules.separate - SEPARATE)
            }
            Principal::Pocket => chance.within(&model::NEXT_CALL),
            Principal::InNeed { .. }
            | Principal::Prankster { knowing: false }
            | Principal::Forger
                if redials =>
            {
                until_redial(self.world, &mut chance)
            }
            Principal::InNeed { .. }
            | Principal::Prankster { knowing: false }
            | Principal::Forger => chance.within(&self.world.waits),
        };
        if intent.who == Principal::Pocket {
            // Nobody notices: the next call comes as planned.
            let progress = &mut self.progress[index];
            progress.calls_left = progress.calls_left.saturating_sub(1);
            redials = progress.calls_left > 0;
        }
        for after in model::SENT_AGAIN.into_iter().filter(|after| *after < wait) {
            let time = now + nanoseconds(after);
            self.at(time, Event::Again { intent: index, generation, call_id, edge });
        }
        if let Some(after) = self.world.machine.filter(|after| *after < wait) {
            let edge = (edge + 1) % self.world.edges;
            self.at(now + nanoseconds(after), Event::Machine { intent: index, generation, edge });
        }
        let time = now + nanoseconds(wait);
        if redials {
            self.at(time, Event::Dial { intent: index });
        } else if matches!(intent.who, Principal::InNeed { .. }) {
            self.at(time, Event::GiveUp { intent: index, generation });
        }
    }

    fn passed(&mut self, index: usize, reason: Reason, now: u64) {
        let intent = &self.callers.intents[index];
        let progress = &mut self.progress[index];
        progress.generation += 1;
        let mut chance = Chance::new(intent.seed, progress.generation.into());
        let attempt = progress.refusals + 1;
        if matches!(intent.who, Principal::InNeed { .. }) && progress.blocked {
            self.need(index, Some(attempt), reason == Reason::RedialGrant, now);
        }
        if is_prank(intent.who) {
            self.outcome.pranks_answered += 1;
        }
        let (kind, share) = match intent.who {
            Principal::Prankster { .. } | Principal::Forger => {
                (ReportKind::Prank, model::PRANKS_REPORTED)
            }
            Principal::Pocket | Principal::InNeed { hiding: true } => {
                (ReportKind::Silent, model::SILENT_REPORTED)
            }
            Principal::InNeed { hiding: false } => (ReportKind::Prank, model::MISTAKEN),
        };
        if chance.happens(share) {
            let Intent { number, trusted, who, .. } = *intent;
            let call = Answered { number, time: now, reason, trusted };
            let time = now + nanoseconds(chance.within(&model::REPORT_AFTER));
            self.at(time, Event::Report { call, kind, who });
        }
        let progress = &mut self.progress[index];
        progress.refusals = 0;
        progress.calls_left = progress.calls_left.saturating_sub(1);
        if progress.calls_left > 0 {
            let after = match intent.who {
                Principal::InNeed { hiding: false } => model::CALLS_AGAIN_AFTER,
                Principal::InNeed { hiding: true }
                | Principal::Prankster { .. }
                | Principal::Forger
                | Principal::Pocket => model::NEXT_CALL,
            };
            let time = now + nanoseconds(chance.within(&after));
            self.at(time, Event::Dial { intent: index });
        }
    }

    fn need(&mut self, index: usize, passed: Option<u32>, granted: bool, now: u64) {
        let Intent { number, calls, .. } = self.callers.intents[index];
        let Progress { first, calls_left, .. } = self.progress[index];
        let seconds = (now - first) as f64 / SECOND as f64;
        let whose = self.whose(number);
        let again = calls_left < calls;
        self.outcome.needs.push(Need { passed, seconds, granted, again, whose });
    }

    fn whose(&self, number: Number) -> Whose {
        if self.forged.contains(&number) {
            Whose::Forged
        } else if self.misused.contains(&number) {
            Whose::Misused
        } else {
            Whose::Other
        }
    }

    fn report(&mut self, call: &Answered, kind: ReportKind, who: Principal, now: u64) {
        let reported = self.centre.report(call, kind, now);
        let strike = u64::from(reported.strike);
        self.outcome.strikes += strike;
        match who {
            Principal::Forger => self.outcome.strikes_forged += strike,
            Principal::InNeed { hiding: false } => self.outcome.strikes_mistaken += strike,
            Principal::InNeed { hiding: true }
            | Principal::Prankster { .. }
            | Principal::Pocket => {}
        }
        if let Some((from, to)) = reported.blocked {
            let hours = (to.min(self.end).saturating_sub(from)) as f64 / SECOND as f64 / 3600.0;
            let sum = match self.whose(call.number) {
                Whose::Forged => &mut self.outcome.forged,
                Whose::Other if who == (Principal::InNeed { hiding: false }) => {
                    &mut self.outcome.mistaken
                }
                Whose::Other | Whose::Misused => return,
            };
            sum.0 += 1;
            sum.1 += hours;
        }
    }
}

fn is_prank(who: Principal) -> bool {
    match who {
        Principal::Prankster { .. } | Principal::Forger => true,
        Principal::InNeed { .. } | Principal::Pocket => false,
    }
}

/// Returns how often a person in need dials again.
fn patience(world: &World, seed: u64) -> u32 {
    let mut chance = Chance::new(seed, u64::MAX);
    let mut redials = chance.which(&world.redials) as u32;
    if redials as usize + 1 == world.redials.len() {
        while chance.happens(model::REDIALS_ON) {
            redials += 1;
        }
    }
    redials
}

/// Returns the seconds until a caller who does not know the rule dials again.
fn until_redial(world: &World, chance: &mut Chance) -> f64 {
    let [hang_up, wait] = model::HANG_UP_OR_WAIT;
    match chance.which(&[hang_up, wait, 1.0 - hang_up - wait]) {
        0 => chance.within(&model::HANGS_UP),
        1 => chance.within(&world.waits) + chance.within(&model::DIALS),
        _ => chance.within(&model::SOMETHING_ELSE),
    }
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * SECOND as f64) as u64
}
