//! Tests of the simulator's own rules.

use filter_common::number::{Digits, Number};
use filter_common::reason::Reason;
use palang::model::ladder::ReportKind;
use palang::model::redial::RedialPolicy;

use crate::cases::{default_rules, with_redial};
use crate::centre::{Answered, Centre, Rules, SECOND};
use crate::model::{self, World};
use crate::tables::lost;
use crate::year::{self, Outcome};

fn run(world: &World, rules: &Rules) -> Outcome {
    year::run(world, rules, 7).unwrap()
}

/// Returns a short year with many emergencies.
fn short() -> World {
    World { needs: 20.0, ..World::new(60) }
}

fn with_attempts(attempts: u8) -> Outcome {
    run(&short(), &with_redial(RedialPolicy { attempts, ..RedialPolicy::default() }))
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
    // A block may end while the caller dials again; there is no grant.
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

#[test]
fn a_prank_report_on_a_granted_call_ends_the_grant_and_doubles_n_once() {
    let three = RedialPolicy { attempts: 3, ..RedialPolicy::default() };
    let mut centre = Centre::new(&with_redial(three), 1).unwrap();
    let number = Number::e164(Digits::parse("6281234567890").unwrap());
    let mut now = 0;
    let mut reasons = |centre: &mut Centre, calls: u64| -> Vec<Reason> {
        let calls = (0..calls).map(|_| {
            now += 10 * SECOND;
            centre.call(0, number, now, now).reason
        });
        calls.collect()
    };
    let report = |centre: &mut Centre, reason, time| {
        let call = Answered { number, time, reason, trusted: true };
        centre.report(&call, ReportKind::Prank, time + SECOND)
    };
    assert_eq!(reasons(&mut centre, 2), [Reason::NotBlocked; 2]);
    assert_eq!(report(&mut centre, Reason::NotBlocked, 10 * SECOND).blocked, None);
    assert!(report(&mut centre, Reason::NotBlocked, 20 * SECOND).blocked.is_some());
    let third = [Reason::BlockedNumber, Reason::BlockedNumber, Reason::RedialGrant];
    assert_eq!(reasons(&mut centre, 3), third);
    report(&mut centre, Reason::RedialGrant, 50 * SECOND);
    // A grant that has already ended let this call through.
    report(&mut centre, Reason::RedialGrant, 49 * SECOND);
    let sixth = reasons(&mut centre, 6);
    assert_eq!(sixth[..5], [Reason::BlockedNumber; 5]);
    assert_eq!(sixth[5], Reason::RedialGrant);
}

#[test]
fn machine_of_a_carrier_opens_grants_and_is_found_but_people_are_not() {
    let world = World { waits: model::WAITS_ON, ..short() };
    let people = run(&world, &default_rules());
    assert_eq!((people.machine_passed, people.machine_found.0), (0, 0));
    assert_eq!(run(&short(), &default_rules()).machine_found.0, 0);
    let known = World { knowing: model::KNOWN_WIDELY, ..short() };
    assert_eq!(run(&known, &default_rules()).machine_found.0, 0);
    for (seconds, separate) in [(6.0, 9), (32.0, 35)] {
        let world = World { machine: Some(seconds), ..world.clone() };
        let usual = run(&world, &default_rules());
        assert!(usual.machine_passed > 0 && usual.pranks_answered > people.pranks_answered);
        assert_eq!(usual.machine_found.0, 1, "{seconds} s");
        // The cure: the machine opens fewer grants, and is no finding.
        let cured = run(&world, &Rules { separate, ..default_rules() });
        assert!(cured.machine_passed * 2 < usual.machine_passed);
        assert!(cured.pranks_answered < usual.pranks_answered);
        assert_eq!(cured.machine_found.0, 0, "{seconds} s");
    }
}
