//! Generates the calls of a year: the same for every policy.

use anyhow::{Context as _, Result};
use filter_common::number::{Digits, Number};

use crate::chance::Chance;
use crate::model::{self, DAY, World, YEAR};

/// Kinds of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Principal {
    /// A person with a real call.
    InNeed {
        /// The person cannot speak.
        hiding: bool,
    },
    /// A prankster.
    Prankster {
        /// The prankster knows the redial rule.
        knowing: bool,
    },
    /// A prankster who forges the number of an innocent person.
    Forger,
    /// A telephone in a pocket.
    Pocket,
}

/// One or more calls that a caller intends to make.
#[derive(Clone, Debug)]
pub struct Intent {
    /// Time of the first call, in seconds.
    pub time: f64,
    /// Kind of the caller.
    pub who: Principal,
    /// Number shown by the calls.
    pub number: Number,
    /// Whether the trunk is trusted for the number.
    pub trusted: bool,
    /// Number of calls to make; each follows when the previous one is answered.
    pub calls: u32,
    /// Random numbers for these calls.
    pub seed: u64,
}

/// All intended calls of one centre.
#[derive(Debug, Default)]
pub struct Callers {
    /// Ordered by time.
    pub intents: Vec<Intent>,
    /// Forged numbers of innocent people.
    pub forged: Vec<Number>,
    numbers: u32,
}

impl Callers {
    /// Generates the callers of one centre.
    ///
    /// # Errors
    /// Returns an error if a number would have more than 15 digits.
    pub fn new(world: &World, seed: u64) -> Result<Callers> {
        let mut callers = Callers::default();
        let days = f64::from(world.days);
        let nuisance = model::CALLS_PER_DAY * days * world.nuisance;
        let pranks = nuisance * model::PRANKS_OF_NUISANCE;
        callers.pranksters(world, pranks, &mut Chance::new(seed, 1))?;
        callers.silent(days, nuisance - pranks, &mut Chance::new(seed, 2))?;
        let ordinary = model::CALLS_PER_DAY * days - nuisance;
        callers.ordinary(days, ordinary, &mut Chance::new(seed, 3))?;
        callers.forgers(world, days, &mut Chance::new(seed, 4))?;
        callers.intents.sort_by(|a, b| a.time.total_cmp(&b.time));
        Ok(callers)
    }

    fn number(&mut self) -> Result<Number> {
        self.numbers += 1;
        let text = format!("62812{:08}", self.numbers);
        Ok(Number::e164(Digits::parse(&text).context("a number of more than 15 digits")?))
    }

    fn add(&mut self, time: f64, who: Principal, number: Number, calls: u32, chance: &mut Chance) {
        let seed = chance.seed();
        self.intents.push(Intent { time, who, number, trusted: true, calls, seed });
    }

    /// Adds pranks, and the real calls from the same telephones, also by a later owner.
    fn pranksters(&mut self, world: &World, pranks: f64, chance: &mut Chance) -> Result<()> {
        let days = f64::from(world.days);
        let count = (pranks / model::PRANKS_PER_NUMBER).round() as usize;
        let weights: Vec<_> = (0..count).map(|_| chance.pareto(model::PARETO)).collect();
        let whole: f64 = weights.iter().sum();
        let most = model::PRANKS_MOST * days / YEAR;
        for weight in weights {
            let number = self.number()?;
            let pranks = (pranks * weight / whole).min(most);
            let who = Principal::Prankster { knowing: chance.happens(world.knowing) };
            let start = chance.within(&(0.0..days));
            let mut end = (start + chance.exponential(model::PRANK_DAYS)).min(days);
            let phase = start * DAY..end * DAY;
            if chance.happens(model::CHANGES_HANDS * days / YEAR) {
                end = end.min(chance.within(&(0.0..days)));
            }
            for time in chance.times(&phase, pranks / model::PRANKS_IN_A_ROW) {
                let calls = chance.count(model::PRANKS_IN_A_ROW);
                let seed = chance.seed();
                if time < end * DAY {
                    self.intents.push(Intent { time, who, number, trusted: true, calls, seed });
                }
            }
            self.needs(0.0..days * DAY, world.needs * days / YEAR, number, chance);
        }
        Ok(())
    }

    fn needs(
        &mut self,
        range: std::ops::Range<f64>,
        expected: f64,
        number: Number,
        chance: &mut Chance,
    ) {
        for time in chance.times(&range, expected) {
            self.need(time, number, chance);
        }
    }

    fn need(&mut self, time: f64, number: Number, chance: &mut Chance) {
        let who = Principal::InNeed { hiding: chance.happens(model::HIDING) };
        let calls = if chance.happens(model::CALLS_AGAIN) { 2 } else { 1 };
        self.add(time, who, number, calls, chance);
    }

    fn silent(&mut self, days: f64, calls: f64, chance: &mut Chance) -> Result<()> {
        let year = 0.0..days * DAY;
        for time in chance.times(&year, calls * model::HIDING / model::HIDING_CALLS) {
            let number = self.number()?;
            let calls = chance.count(model::HIDING_CALLS);
            self.add(time, Principal::InNeed { hiding: true }, number, calls, chance);
        }
        let pocket = calls * (1.0 - model::HIDING);
        let repeated = pocket * model::SILENT_REPEATED;
        for time in chance.times(&year, pocket - repeated) {
            let number = self.number()?;
            self.add(time, Principal::Pocket, number, 1, chance);
        }
        for time in chance.times(&year, repeated / model::SILENT_IN_A_ROW) {
            let number = self.number()?;
            let calls = chance.count(model::SILENT_IN_A_ROW);
            self.add(time, Principal::Pocket, number, calls, chance);
        }
        Ok(())
    }

    /// Adds people who call once, and innocent people who call often.
    fn ordinary(&mut self, days: f64, calls: f64, chance: &mut Chance) -> Result<()> {
        let year = 0.0..days * DAY;
        let often = model::FREQUENT_PER_DAY * days / (1.0 + model::CALLS_AGAIN);
        for _ in 0..model::FREQUENT_NUMBERS {
            let number = self.number()?;
            self.needs(year.clone(), often, number, chance);
        }
        let once = calls / (1.0 + model::CALLS_AGAIN) - often * f64::from(model::FREQUENT_NUMBERS);
        for time in chance.times(&year, once) {
            let number = self.number()?;
            self.need(time, number, chance);
        }
        Ok(())
    }

    fn forgers(&mut self, world: &World, days: f64, chance: &mut Chance) -> Result<()> {
        let year = 0.0..days * DAY;
        for start in chance.times(&year, model::FORGED_PER_YEAR * days / YEAR) {
            let number = self.number()?;
            self.forged.push(number);
            let trusted = chance.happens(world.forged_on_trusted);
            let (least, most) = (*model::FORGED_CALLS.start(), *model::FORGED_CALLS.end());
            let calls = least + chance.one_of((most - least + 1) as usize) as u32;
            let span = start..(start + model::FORGED_DAYS * DAY).min(year.end);
            for _ in 0..calls {
                let (time, seed) = (chance.within(&span), chance.seed());
                let who = Principal::Forger;
                self.intents.push(Intent { time, who, number, trusted, calls: 1, seed });
            }
            self.needs(year.clone(), world.needs * days / YEAR, number, chance);
        }
        Ok(())
    }
}
