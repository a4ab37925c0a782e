//! Maps that somebody changed without the daemon, or that a kill left half written. The answers show
//! what the kernel does, and a comparison heals it.

use std::path::PathBuf;
use std::time::Duration;

use filter_common::abi::{Allow, MODE_OBSERVE, RULE_DIRECT};
use filter_common::number::{Digits, Number};
use palang::datapath::AllowHalves;
use palang::model::policy::{Policy, Protected, Subject};
use palang_tests::lab::{Lab, TRUNK, TRUNK6};
use serde_json::{Value, json};

use crate::gate::{Gate, eventually, eventually_within, subject};
use crate::socket::ask;
use palang_tests::lab::bpf::set_element;

const CALLER: &str = "+6281200000001";
const OTHER: &str = "+6281200000002";
/// Within this time a comparison heals: what ARCHITECTURE.md promises, and what a busy machine needs
/// besides.
const HEALS: Duration = Duration::from_secs(60 + 15);

/// One of the two maps of an allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Hash,
    Trie,
}

/// Writes one half of an allow of a number, or removes it.
fn set_half(gate: &Gate, half: Half, number: &str, allow: Option<Allow>) {
    let folder = gate.map_folder();
    let subject = subject(number);
    let (map, key): (PathBuf, Vec<u8>) = match half {
        Half::Hash => (folder.join("ALLOWED_NUMBERS"), subject.raw().0.to_ne_bytes().to_vec()),
        Half::Trie => {
            let key = subject.key();
            let bytes = [&key.prefix_len.to_ne_bytes()[..], &key.number[..]].concat();
            (folder.join("ALLOWED_PREFIXES"), bytes)
        }
    };
    let value = allow.map(|Allow { number, expires, rule }| {
        [number.0, expires, rule].map(u64::to_ne_bytes).concat()
    });
    set_element(&map, &key, value.as_deref());
}

fn halves(gate: &Gate, number: &str) -> AllowHalves {
    gate.maps().pass_maps().allow_halves(subject(number)).unwrap()
}

fn verdict(gate: &Gate, number: &str) -> Value {
    ask(&gate.daemon, "GET", &format!("/v1/check/{number}"), "").json::<Value>()["verdict"].clone()
}

/// Waits until a comparison has healed something, without asking for one.
fn heals(what: &str, is_healed: impl FnMut() -> bool) {
    eventually_within(HEALS, what, is_healed);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn allow_missing_in_one_of_its_maps_is_shown_and_repaired() {
    let lab = Lab::new("half-allow");
    let gate = Gate::start(&lab, "");
    for number in [CALLER, OTHER] {
        gate.does(&["block", "add", number, "--for", "1h", "--reason", "a test"]);
        gate.does(&["allow", "add", number]);
    }
    let whole = halves(&gate, CALLER);
    assert_eq!(whole.hash, whole.trie);
    let drift = || gate.does(&["status"])["drift"].as_u64().unwrap();
    for half in [Half::Hash, Half::Trie] {
        let before = drift();
        set_half(&gate, half, CALLER, None);
        assert_ne!(halves(&gate, CALLER), whole);
        assert!(gate.passes(CALLER), "{half:?}: the other half lets through");
        assert_eq!(verdict(&gate, CALLER), "pass", "{half:?}");
        heals("half an allow", || halves(&gate, CALLER) == whole);
        assert!(drift() > before, "{half:?}: it is counted");
    }

    // Both, and not the same: the trie is written first, so it has the newer one.
    let by_hand = Allow { rule: RULE_DIRECT, ..whole.trie.unwrap() };
    set_half(&gate, Half::Trie, CALLER, Some(by_hand));
    assert_eq!(verdict(&gate, CALLER), "pass");
    heals("two allows in one", || {
        let found = halves(&gate, CALLER);
        found.hash == found.trie && found.hash.unwrap().rule != RULE_DIRECT
    });
    assert_eq!(gate.last("allow adopt").unwrap()["number"], CALLER[1..]);

    // A removal that a kill cut short: it is stored, and the kernel still lets through.
    let removed = halves(&gate, OTHER).trie;
    gate.does(&["allow", "remove", OTHER]);
    assert!(!gate.passes(OTHER));
    set_half(&gate, Half::Trie, OTHER, removed);
    assert!(gate.passes(OTHER));
    assert_eq!(verdict(&gate, OTHER), "pass", "what the kernel does");
    heals("half a removal", || halves(&gate, OTHER) == AllowHalves::default());
    assert!(!gate.passes(OTHER));
    assert_eq!(verdict(&gate, OTHER), "drop");
    assert_eq!(gate.rows(&["allow", "list"]).len(), 1);
}

// An allow by hand for a prefix has the same number in the same trie as one for the number.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn allow_for_a_prefix_does_not_allow_the_number_of_the_same_digits() {
    let lab = Lab::new("half-prefix");
    let gate = Gate::start(&lab, "");
    gate.does(&["allow", "add", "+62812345*"]);
    let by_hand = |subject: Subject| Allow { number: subject.raw(), expires: 0, rule: RULE_DIRECT };
    let prefix = subject("+62812346*");
    gate.maps().pass_maps().set_allow(prefix, by_hand(prefix)).unwrap();
    for number in ["+62812345", "+62812346"] {
        assert_eq!(halves(&gate, number), AllowHalves::default(), "{number}");
    }
    gate.daemon.signal("USR1");
    eventually("it is adopted", || gate.rows(&["allow", "list"]).len() == 2);
    assert_eq!(halves(&gate, "+62812346"), AllowHalves::default());
    gate.does(&["allow", "add", "+62812345"]);
    let found = halves(&gate, "+62812345");
    assert_eq!(found.hash, found.trie);
    gate.does(&["allow", "remove", "+62812345"]);
    assert_eq!(halves(&gate, "+62812345"), AllowHalves::default());
    assert!(gate.kernel_allow("+62812345*").is_some());
}

// A refused allow is in neither map.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn allow_refused_by_a_full_map_lets_no_call_pass() {
    let lab = Lab::new("full-allows");
    let gate = Gate::start(&lab, "");
    gate.does(&["block", "add", CALLER, "--for", "1h", "--reason", "a test"]);
    let maps = gate.maps();
    let mut fits = 0;
    for index in 0_u32.. {
        let number = Number::e164(Digits::parse(&format!("49{index:08}")).unwrap());
        let allow = Allow { number, expires: 0, rule: RULE_DIRECT };
        match maps.pass_maps().set_allow(Subject::Number(number), allow) {
            Ok(()) => fits += 1,
            Err(error) => {
                assert!(error.is_full(), "{error}");
                assert_eq!(
                    maps.pass_maps().allow_halves(Subject::Number(number)).unwrap(),
                    AllowHalves::default()
                );
                break;
            }
        }
    }
    assert_eq!(fits, 65_536);
    let answer = ask(&gate.daemon, "POST", "/v1/allows", &json!({"number": CALLER}).to_string());
    assert_eq!(answer.status, 507, "{}", answer.text());
    assert_eq!(halves(&gate, CALLER), AllowHalves::default());
    assert!(!gate.passes(CALLER));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn settings_changed_in_the_map_are_repaired() {
    let lab = Lab::new("tampered");
    let gate = Gate::start(
        &lab,
        &format!(
            "ports = [5060, 5070]\nprotected = [\"+62431*\", \"112\"]\n\
             [[trunk]]\nname = \"telkom\"\nsources = [\"{TRUNK}\"]\n\
             [[trunk]]\nname = \"other\"\nsources = [\"{TRUNK6}\", \"10.9.0.0/16\"]\n"
        ),
    );
    gate.does(&["block", "add", CALLER, "--for", "1h", "--reason", "a test"]);
    gate.does(&["mode", "enforce", "--for", "8h"]);
    let maps = gate.maps();
    let settings = || {
        let mut policy = maps.copy_without_blocks().unwrap();
        policy.protected.sort_by_key(|protected| protected.subject.raw());
        policy
    };
    let right = settings();
    // Two protected numbers, and five placeholders of withheld numbers.
    assert_eq!((right.trunks.len(), right.ports.len(), right.protected.len()), (3, 2, 2 + 5));
    assert!(right.settings.enforce_until > 0);

    type Tamper = (&'static str, fn(&mut Policy));
    let tampers: [Tamper; 9] = [
        ("mode", |policy| policy.settings.mode = MODE_OBSERVE),
        ("enforce_until", |policy| policy.settings.enforce_until += 3_600_000_000_000),
        ("enforcing ends", |policy| policy.settings.enforce_until = 1),
        ("ports", |policy| policy.ports = vec![5070]),
        ("a source", |policy| policy.trunks[1].sources.clear()),
        ("another source", |policy| policy.trunks[2].sources[0].1 = 1),
        ("a profile", |policy| policy.trunks[1].profile.mode = MODE_OBSERVE),
        ("protected, one fewer", |policy| drop(policy.protected.pop())),
        ("protected, one more", |policy| {
            let subject = Subject::Prefix(Digits::parse("62812").unwrap());
            let entry = Allow { number: subject.raw(), expires: 0, rule: 99 };
            policy.protected.push(Protected {
                subject,
                entry,
                name: String::new(),
                is_placeholder: false,
            });
        }),
    ];
    let tamper = |change: fn(&mut Policy)| {
        let mut policy = settings();
        change(&mut policy);
        maps.set_settings(&policy).unwrap();
        maps.set_protected(&policy.protected).unwrap();
        assert_ne!(settings(), right);
    };
    for (what, change) in tampers {
        tamper(change);
        gate.daemon.signal("USR1");
        eventually(what, || settings() == right);
    }
    // The daemon counts a repair after it has written the maps.
    eventually("the repairs are counted", || {
        gate.does(&["status"])["drift"].as_u64().unwrap() >= tampers.len() as u64
    });
    assert!(!gate.passes(CALLER));

    // Nobody has to ask for it; and nothing but the maps was wrong.
    let head = gate.does(&["status"])["audit_head"].clone();
    for (_, change) in tampers {
        tamper(change);
    }
    heals("everything at once", || settings() == right);
    assert_eq!(gate.does(&["status"])["audit_head"], head);
    assert_eq!(gate.does(&["mode"])["mode"], "enforce");
}

// The store counts where it differs from what the daemon put into force: an older file in its
// place, say. An allow or override stays.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn store_with_another_mode_does_not_end_observe() {
    let lab = Lab::new("other-mode");
    let gate = Gate::start(&lab, "");
    let store = rusqlite::Connection::open(gate.daemon.state().join("palang.db")).unwrap();
    let mode = || gate.does(&["mode"])["mode"].clone();
    let say = |enforce: bool| {
        let value = json!({"enforce": enforce, "since": "2026-01-01T00:00:00Z", "until": null});
        let sql = "UPDATE state SET value = ?1 WHERE key = 'mode'";
        assert_eq!(store.execute(sql, [value.to_string()]).unwrap(), 1);
    };
    say(false);
    gate.daemon.signal("USR1");
    eventually("observe", || mode() == "observe");
    gate.does(&["mode", "observe"]);
    say(true);
    gate.daemon.signal("USR1");
    eventually("adopted", || gate.last("mode adopt").is_some());
    assert_eq!(mode(), "observe");
}

// A chain that lost its last rows looks whole: only a head from before shows it.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn audit_that_another_program_cut_or_rewrote_is_red() {
    for statement in [
        "DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)",
        "UPDATE audit SET hash = zeroblob(32) WHERE seq = (SELECT max(seq) FROM audit)",
    ] {
        let lab = Lab::new("cut-audit");
        let gate = Gate::start(&lab, "");
        let red = || {
            let finding = "the audit was changed by another program";
            gate.findings().iter().any(|found| found.contains(finding))
        };
        gate.does(&["block", "add", CALLER, "--for", "1h", "--reason", "prank"]);
        // The daemon looks once a second.
        std::thread::sleep(Duration::from_secs(3));
        assert!(!red());
        let store = rusqlite::Connection::open(gate.daemon.state().join("palang.db")).unwrap();
        assert_eq!(store.execute(statement, []).unwrap(), 1);
        eventually("red", red);
        assert_eq!(gate.does(&["status"])["colour"], "red");
        // Later rows do not hide it.
        gate.does(&["block", "remove", CALLER]);
        assert!(red());
    }
}
