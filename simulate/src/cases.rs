//! The compared rules and centres.

use filter_common::abi::SEPARATE;
use palang::model::ladder::{Ladder, Rung};
use palang::model::redial::RedialPolicy;

use crate::centre::Rules;
use crate::model::{self, World};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// Groups of cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    /// The default, and no blocks.
    Ends,
    /// A different N.
    Attempts,
    /// A different W or G, or no doubling.
    Times,
    /// A different ladder.
    Ladders,
    /// A different centre.
    Centres,
    /// A carrier whose machine calls again after silence.
    Machines,
    /// A centre whose trunks are trusted for every forged number, or for none.
    Forgery,
}

/// One case of the comparison.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its group.
    pub series: Series,
    /// Its name in tables.
    pub name: String,
    /// The centre.
    pub world: World,
    /// The rules.
    pub rules: Rules,
}

/// Returns all cases; the default policy is the first.
#[must_use]
pub fn all(days: u32) -> Vec<Case> {
    let mut cases = policies(days);
    cases.extend(centres(days));
    cases.extend(machines(days));
    cases
}

/// Returns the default policy.
#[must_use]
pub fn default_rules() -> Rules {
    Rules {
        redial: RedialPolicy::default(),
        ladder: Ladder::default(),
        for_ever: false,
        doubles: true,
        separate: SEPARATE,
    }
}

/// Returns the default policy with another redial setting.
#[must_use]
pub fn with_redial(redial: RedialPolicy) -> Rules {
    Rules { redial, ..default_rules() }
}

fn policies(days: u32) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |series, name: String, rules| {
        cases.push(Case { series, name, world: World::new(days), rules });
    };
    let usual = RedialPolicy::default();
    let off = RedialPolicy { attempts: 0, ..usual };
    add(Series::Ends, format!("default: {usual}"), default_rules());
    let nobody = Ladder { rungs: Vec::new(), ..Ladder::default() };
    add(Series::Ends, "nobody is blocked".to_owned(), Rules { ladder: nobody, ..default_rules() });
    for attempts in [3, 4, 5, 8] {
        let redial = RedialPolicy { attempts, ..usual };
        add(Series::Attempts, format!("redial {redial}"), with_redial(redial));
    }
    add(Series::Attempts, "redial off".to_owned(), with_redial(off));
    for attempts in [3, 2] {
        let rules = with_redial(RedialPolicy { attempts, ..usual });
        let name = format!("redial {}, never doubled", rules.redial);
        add(Series::Times, name, Rules { doubles: false, ..rules });
    }
    let times = [(2, 2, 30), (2, 5, 30), (2, 30, 30), (2, 60, 30), (2, 10, 5), (2, 10, 10)];
    for (attempts, window, grant) in times.into_iter().chain([(2, 10, 120), (3, 10, 10)]) {
        let redial = RedialPolicy { attempts, window: window * 60, grant: grant * 60 };
        add(Series::Times, format!("redial {redial}"), with_redial(redial));
    }
    let rung = |strikes: u32, block| Rung { strikes: strikes * 100, block, review: false };
    let mild = Ladder {
        rungs: vec![rung(2, None), rung(3, Some(HOUR)), rung(4, Some(DAY)), rung(6, Some(3 * DAY))],
        ..Ladder::default()
    };
    let shorter = Ladder {
        rungs: vec![
            rung(1, None),
            rung(2, Some(6 * HOUR)),
            rung(3, Some(DAY)),
            rung(4, Some(3 * DAY)),
        ],
        ..Ladder::default()
    };
    // Bontang and Purworejo: a prank or a silent call blocks for 1x24 h.
    let at_once = Ladder {
        weights: [100, 100, 100, 0],
        silent_longest: DAY,
        rungs: vec![rung(1, Some(DAY))],
        ..Ladder::default()
    };
    // Police 110, North Sumatra: three pranks. The source does not mention strikes that fade.
    let three = Ladder {
        weights: [100, 100, 0, 0],
        fades: 366 * DAY,
        rungs: vec![rung(3, Some(DAY))],
        ..Ladder::default()
    };
    let ladder = |ladder, redial, for_ever| Rules { redial, ladder, for_ever, ..default_rules() };
    let more = RedialPolicy { attempts: 3, ..usual };
    add(Series::Ladders, "shorter blocks".to_owned(), ladder(shorter.clone(), usual, false));
    add(Series::Ladders, "shorter blocks, N = 3".to_owned(), ladder(shorter, more, false));
    add(Series::Ladders, "mild ladder".to_owned(), ladder(mild.clone(), usual, false));
    add(Series::Ladders, "mild ladder, N = 3".to_owned(), ladder(mild, more, false));
    add(Series::Ladders, "24 h at once".to_owned(), ladder(at_once.clone(), usual, false));
    add(Series::Ladders, "24 h at once, redial off".to_owned(), ladder(at_once, off, false));
    add(Series::Ladders, "three and for ever".to_owned(), ladder(three.clone(), usual, true));
    add(Series::Ladders, "three and for ever, redial off".to_owned(), ladder(three, off, true));
    cases
}

/// Adds other centres, each with the default and with one attempt more.
fn centres(days: u32) -> Vec<Case> {
    let usual = World::new(days);
    let [least, most] = model::NUISANCE_ENDS;
    let worlds = [
        ("20 % nuisance", World { nuisance: least, ..usual.clone() }),
        ("80 % nuisance", World { nuisance: most, ..usual.clone() }),
        ("callers give up soon", World { redials: model::REDIALS_HASTY, ..usual.clone() }),
        ("30 % know the rule", World { knowing: model::KNOWN_WIDELY, ..usual.clone() }),
        (
            "30 % know it and dial on to 8",
            World { knowing: model::KNOWN_WIDELY, dialling_on: true, ..usual.clone() },
        ),
        ("two edges", World { edges: 2, ..usual.clone() }),
    ];
    let mut cases = Vec::new();
    for (name, world) in worlds {
        for attempts in [3, 2] {
            let redial = RedialPolicy { attempts, ..RedialPolicy::default() };
            cases.push(Case {
                series: Series::Centres,
                name: format!("{name}, redial {redial}"),
                world: world.clone(),
                rules: with_redial(redial),
            });
        }
    }
    let forgeries = [("all forged on trusted trunks", 1.0), ("none forged on trusted trunks", 0.0)];
    for (name, forged_on_trusted) in forgeries {
        cases.push(Case {
            series: Series::Forgery,
            name: name.to_owned(),
            world: World { forged_on_trusted, ..usual.clone() },
            rules: default_rules(),
        });
    }
    cases
}

/// Adds carriers that call again by machine when nothing answers, each with the usual `separate` and with a longer one.
fn machines(days: u32) -> Vec<Case> {
    let usual = World::new(days);
    let waits = World { waits: model::WAITS_ON, ..usual.clone() };
    let world = |seconds| World { machine: Some(seconds), ..waits.clone() };
    let cases = [
        ("silence", usual, 2, SEPARATE),
        ("silence, callers wait for 64 s", waits.clone(), 2, SEPARATE),
        ("again after 32 s", world(32.0), 2, SEPARATE),
        ("again after 32 s", world(32.0), 3, SEPARATE),
        ("again after 32 s", world(32.0), 2, 35),
        ("again after 6 s", world(6.0), 2, SEPARATE),
        ("again after 6 s", world(6.0), 3, SEPARATE),
        ("again after 6 s", world(6.0), 2, 9),
    ];
    let case = |(name, world, attempts, separate): (&str, World, u8, u32)| {
        let redial = RedialPolicy { attempts, ..RedialPolicy::default() };
        Case {
            series: Series::Machines,
            name: format!("{name}, redial {redial}, separate {separate}s"),
            world,
            rules: Rules { separate, ..with_redial(redial) },
        }
    };
    cases.map(case).to_vec()
}
