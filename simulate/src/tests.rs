//! The simulator does what it says; each of these can fail.

use palang::redial::Redial;

use crate::cases::{default_rules, with_redial};
use crate::centre::Rules;
use crate::model::World;
use crate::tables::lost;
use crate::year::{self, Outcome};

fn run(world: &World, rules: &Rules) -> Outcome {
    year::run(world, rules, 7).unwrap()
}

/// A short year with many emergencies, to have some to count.
fn short() -> World {
    World { needs: 20.0, ..World::new(60) }
}

fn with_attempts(attempts: u8) -> Outcome {
    run(&short(), &with_redial(Redial { attempts, ..Redial::default() }))
}

#[test]
fn one_seed_is_one_year() {
    let world = short();
    let first = run(&world, &default_rules());
    assert_eq!(first, run(&world, &default_rules()));
    assert_ne!(first, year::run(&world, &default_rules(), 8).unwrap());
    assert!(first.pranks_refused > 0 && first.strikes > 0 && !first.needs.is_empty());
}

#[test]
fn without_redial_who_is_blocked_is_lost() {
    let outcome = with_attempts(0);
    assert!(!outcome.needs.is_empty());
    // A block may end while somebody dials again; a grant there is none.
    let given_up = outcome.needs.iter().filter(|need| need.passed.is_none()).count();
    let ended = outcome.needs.iter().filter(|need| need.passed.is_some()).count();
    assert_eq!(given_up + ended, outcome.needs.len());
    assert!(outcome.needs.iter().all(|need| !need.granted));
    assert!(ended * 100 <= given_up, "{ended} blocks ended just then, {given_up} gave up");
    assert!(with_attempts(3).needs.iter().any(|need| need.granted));
}

#[test]
fn one_attempt_less_loses_fewer() {
    let (two, three) = (with_attempts(2), with_attempts(3));
    for o in [&two, &three, &with_attempts(0)] {
        eprintln!(
            "DBG lost {} of {} answered {} refused {} strikes {}",
            lost(o),
            crate::tables::emergencies(o).count(),
            o.pranks_answered,
            o.pranks_refused,
            o.strikes
        );
    }
    assert!(lost(&two) < lost(&three));
    assert!(lost(&three) < lost(&with_attempts(0)));
    assert!(two.pranks_answered > three.pranks_answered);
}

#[test]
fn a_number_that_is_forged_on_a_trunk_that_does_not_vouch_is_not_blocked() {
    let world = |forged_on_trusted| World { forged_on_trusted, ..World::new(60) };
    let outcome = run(&world(0.0), &default_rules());
    assert_eq!((outcome.strikes_forged, outcome.forged), (0, (0, 0.0)));
    let outcome = run(&world(1.0), &default_rules());
    assert!(outcome.strikes_forged > 0 && outcome.forged.0 > 0);
}
