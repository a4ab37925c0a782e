//! Maps that are full, at a wrong place, of another layout or changed: the daemon names the fault,
//! and repairs what it can.

use std::fs;
use std::path::PathBuf;

use filter_common::abi;
use filter_common::number::{Digits, Number};
use palang::api::wire::{Allow, Block, Changed, Check, Health, ImportNews, Problem, ProblemKind};
use palang::datapath::{Maps, Pins};
use palang::model::policy::Subject;
use palang_tests::lab::{Daemon, Lab, run};
use serde_json::{Value, json};

use crate::api_robustness::{
    BLOCKS, CALLER, block, blocks, done, import, number, refuses, refusing, status,
};
use crate::socket::{ask, until};

// ---- full -----------------------------------------------------------------------------------

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn block_for_a_full_map_is_not_stored_and_other_changes_work() {
    let lab = Lab::new("full");
    let mut daemon = Daemon::start(&lab, "[limits]\nblocks = 50");
    done(&daemon, "PUT", "/v1/mode", &json!({ "mode": "enforce" }));
    let all = ImportNews::Done {
        added: 49,
        updated: 0,
        unchanged: 0,
        superseded: 0,
        permanent: 0,
        last_end: "2099-01-01T00:00:00Z".parse().ok(),
        impossible: 0,
        bad: vec![],
        dry_run: false,
    };
    assert_eq!(import(&daemon, (1..50).map(number)), all);
    let before = blocks(&daemon);
    let ImportNews::Refused { problem, bad } = import(&daemon, (100..102).map(number)) else {
        panic!("two into one place");
    };
    assert_eq!((problem.kind, bad.len()), (ProblemKind::Full, 0), "{}", problem.message);
    assert_eq!(blocks(&daemon), before);
    // Fills it: moves one, adds one.
    let both = ImportNews::Done {
        added: 1,
        updated: 0,
        unchanged: 1,
        superseded: 0,
        permanent: 0,
        last_end: "2099-01-01T00:00:00Z".parse().ok(),
        impossible: 0,
        bad: vec![],
        dry_run: false,
    };
    assert_eq!(import(&daemon, [1, 50].into_iter().map(number)), both);

    let head = status(&daemon).audit_head;
    let full = block(&daemon, CALLER);
    let problem: Problem = full.json();
    assert_eq!((full.status, problem.kind), (507, ProblemKind::Full));
    assert!(problem.message.contains("50 of 50") && problem.message.contains("[limits] blocks"));
    let told = daemon.cli(&["block", "add", CALLER, "--for", "1h", "--reason", "a test"]);
    assert_eq!((told.code, &*told.stdout), (1, ""), "{}", told.stderr);
    assert!(told.stderr.contains("full: 50 of 50 blocked numbers"), "{}", told.stderr);
    assert_eq!(blocks(&daemon).len(), 50);
    assert_eq!(status(&daemon).audit_head, head, "nothing happened");
    let check: Check = ask(&daemon, "GET", "/v1/check/+6281234567890", "").json();
    assert_eq!(check.verdict, "pass");
    let told = status(&daemon);
    assert_eq!((told.blocks, told.blocks_capacity, told.colour), (Some(50), 50, Health::Amber));

    // A block that is there can be moved; prefixes have a place of their own; what lets through
    // always fits.
    let moved: Changed<Block> = block(&daemon, &number(7)).json();
    assert!(moved.before.is_some());
    assert_eq!(block(&daemon, "+62431*").status, 200);
    done(&daemon, "POST", "/v1/allows", &json!({ "number": number(8) }));
    done(&daemon, "PUT", "/v1/override", &json!({ "seconds": 60, "reason": "a test" }));
    done(&daemon, "PUT", "/v1/override", &json!({ "seconds": 0 }));

    daemon.restart();
    assert_eq!(block(&daemon, CALLER).status, 507, "also after a restart");
    done(&daemon, "DELETE", "/v1/blocks/+6281300000001", &Value::Null);
    assert_eq!(block(&daemon, CALLER).status, 200, "there is room again");
    assert_eq!(blocks(&daemon).len(), 51);
    assert!(refuses(&lab, &lab.receiver(5060)));
}

// ---- pins -----------------------------------------------------------------------------------

/// Puts another BPF object at the place of a pin; dropped, both are where they were.
struct Swapped {
    place: PathBuf,
    other: PathBuf,
}

impl Swapped {
    fn new(place: PathBuf, other: PathBuf) -> Swapped {
        let swapped = Swapped { place, other };
        swapped.swap();
        swapped
    }

    fn swap(&self) {
        let third = self.place.with_file_name("third");
        fs::rename(&self.place, &third).expect("moved away");
        fs::rename(&self.other, &self.place).expect("moved there");
        fs::rename(&third, &self.other).expect("moved to the other's place");
    }
}

impl Drop for Swapped {
    fn drop(&mut self) {
        self.swap();
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_pinned_map_of_another_layout_is_refused_and_the_old_filter_goes_on() {
    let lab = Lab::new("pins");
    let mut daemon = refusing(&lab);
    let receiver = lab.receiver(5060);
    assert_eq!(daemon.stop(), 0);
    let pins = Pins::new(daemon.pins());
    let folder = pins.maps(BLOCKS);
    let blocked = folder.join("BLOCKED_NUMBERS");
    for (place, other, what) in [
        // Another kind of map, other sizes, an empty ring, no map at all.
        (&blocked, folder.join("COUNTERS"), "PerCpuArray"),
        (&blocked, folder.join("ALLOWED_NUMBERS"), "bytes"),
        (&blocked, folder.join("FRAGMENTS"), "LruHash"),
        (&folder.join("EVENTS_PASSED"), folder.join("SETTINGS"), "Array"),
        (&blocked, pins.link("gate0"), ""),
    ] {
        let swapped = Swapped::new(place.clone(), other);
        let said = daemon.stderr().len();
        daemon.spawn();
        assert_eq!(daemon.wait_for_end(), 1);
        let said = daemon.stderr()[said..].to_owned();
        let wrong = [&swapped.place, &swapped.other];
        let named = wrong.iter().any(|path| said.contains(&path.display().to_string()));
        assert!(named && said.contains(what), "{said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
        assert!(refuses(&lab, &receiver), "the old filter goes on");
        if swapped.other.ends_with("ALLOWED_NUMBERS") {
            // Nor does the way without a daemon guess.
            let mut direct = daemon.command(&["allow", "add", CALLER]);
            let direct = run::run(direct.env("PALANG_CONFIG", daemon.config_file()));
            assert_ne!(direct.code, 0, "{}", direct.stdout);
            let path = swapped.other.display().to_string();
            assert!(direct.stderr.contains(&path), "{}", direct.stderr);
        }
    }
    // The maps of another capacity, under the name of this one.
    daemon.configure("[limits]\nblocks = 30000");
    fs::rename(&folder, pins.maps(30_000)).expect("renamed");
    daemon.spawn();
    assert_eq!(daemon.wait_for_end(), 1);
    assert!(daemon.stderr().contains("it holds 20000 entries, not 30000"), "{}", daemon.stderr());
    assert!(refuses(&lab, &receiver));

    daemon.configure("");
    fs::rename(pins.maps(30_000), &folder).expect("renamed");
    daemon.start_again();
    assert!(status(&daemon).findings.is_empty(), "{:?}", status(&daemon).findings);
    assert!(refuses(&lab, &receiver));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn map_at_the_place_of_a_link_is_reported_and_not_touched() {
    let lab = Lab::new("link");
    let mut daemon = refusing(&lab);
    let receiver = lab.receiver(5060);
    assert_eq!(daemon.stop(), 0);
    let pins = Pins::new(daemon.pins());
    let (link, aside) = (pins.link("gate0"), daemon.pins().join("aside"));
    fs::rename(&link, &aside).expect("moved away");
    // A map that nobody reads: made again at the next start.
    fs::rename(pins.maps(BLOCKS).join("EVENTS_PASSED"), &link).expect("moved there");

    daemon.start_again();
    let told = status(&daemon);
    assert_eq!(told.colour, Health::Red);
    let message = &told.findings[0].message;
    assert!(message.contains(&link.display().to_string()), "{message}");
    assert!(link.exists(), "whatever it is");
    assert!(refuses(&lab, &receiver), "the old filter goes on");

    fs::rename(&link, daemon.pins().join("v0")).expect("moved away");
    fs::rename(&aside, &link).expect("moved back");
    until("attached again", || {
        let interface = status(&daemon).interfaces.into_iter().next()?;
        interface.xdp.is_some().then_some(())
    });
    assert!(refuses(&lab, &receiver));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn foreign_object_at_the_place_of_a_pin_lets_calls_pass() {
    let lab = Lab::new("folder");
    let mut daemon = Daemon::prepare(&lab, "");
    let blocked = Pins::new(daemon.pins()).maps(BLOCKS).join("BLOCKED_NUMBERS");
    fs::create_dir_all(&blocked).expect("a folder on bpffs");
    daemon.spawn();
    assert_eq!(daemon.wait_for_end(), 1);
    assert!(daemon.stderr().contains(&blocked.display().to_string()), "{}", daemon.stderr());
    assert!(!refuses(&lab, &lab.receiver(5060)));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn daemon_without_a_bpf_file_system_says_what_to_mount() {
    let lab = Lab::new("bpffs");
    let mut daemon = Daemon::prepare(&lab, "");
    let pins = daemon.folder().join("pins");
    daemon.configure(&format!("[paths]\npins = \"{}\"", pins.display()));
    daemon.spawn();
    assert_eq!(daemon.wait_for_end(), 1);
    let said = daemon.stderr();
    assert!(said.contains("mount -t bpf"), "{said}");
    assert!(said.contains(&pins.display().to_string()), "{said}");
    assert!(!pins.exists());

    // As on a machine where nobody has mounted it: /sys/fs/bpf is a folder of sysfs.
    daemon.configure("");
    let umount = "umount -l /sys/fs/bpf && exec \"$@\"";
    daemon.spawn_by(&["unshare", "--mount", "sh", "-c", umount, "sh"], &[]);
    assert_eq!(daemon.wait_for_end(), 1);
    let said = daemon.stderr()[said.len()..].to_owned();
    assert!(said.contains("mount -t bpf"), "{said}");
    assert!(said.contains(&daemon.pins().display().to_string()), "{said}");
}

// ---- drift ----------------------------------------------------------------------------------

fn subject(digits: &str) -> Subject {
    Subject::Number(Number::e164(Digits::parse(digits).expect("digits")))
}

fn prefix(digits: &str) -> Subject {
    Subject::Prefix(Digits::parse(digits).expect("digits"))
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn maps_changed_without_the_daemon_are_repaired_and_counted() {
    let lab = Lab::new("drift");
    let daemon = Daemon::start(&lab, "protected = [\"113\"]");
    done(&daemon, "PUT", "/v1/mode", &json!({ "mode": "enforce" }));
    for number in ["+6281234567890", "+6281200000001", "+6281200000002", "+62431*"] {
        assert_eq!(block(&daemon, number).status, 200);
    }
    done(&daemon, "POST", "/v1/allows", &json!({ "number": "+6281200000005" }));
    done(&daemon, "POST", "/v1/allows", &json!({ "number": "+62811*", "seconds": 3600 }));
    let maps = Maps::open(&Pins::new(daemon.pins()).maps(BLOCKS)).expect("the maps");
    let compared = || daemon.stderr().matches("store and maps were compared").count();
    let compare = || {
        let before = compared();
        daemon.signal("USR1");
        until("compared", || (compared() > before).then_some(()));
        status(&daemon).drift
    };
    assert_eq!(compare(), 0);

    let state = || {
        let block = |subject| maps.block(subject).expect("the map");
        [
            subject("6281234567890"),
            subject("6281200000001"),
            subject("6281200000002"),
            prefix("62431"),
        ]
        .map(block)
    };
    let before = state();
    assert!(before.iter().all(Option::is_some));

    // A stored block is gone; a prefix, too.
    assert!(maps.remove_block(subject("6281234567890")).expect("removed"));
    assert!(maps.remove_block(prefix("62431")).expect("removed"));
    assert_eq!(compare(), 2);
    let near = |one: Option<abi::Block>, other: Option<abi::Block>| {
        let (Some(one), Some(other)) = (one, other) else { return one == other };
        // Two clocks, compared a moment later.
        let same = abi::Block { expires: other.expires, ..one } == other;
        same && one.expires.abs_diff(other.expires) < 2_000_000_000
    };
    let restored = |why: &str| {
        for (now, then) in state().into_iter().zip(before) {
            assert!(near(now, then), "{why}: {now:?} {then:?}");
        }
    };
    restored("removed");
    assert!(refuses(&lab, &lab.receiver(5060)));

    // Foreign blocks: they would refuse callers without a decision.
    let foreign = abi::Block { rule: 77_777, ..before[0].expect("a block") };
    let alien = abi::Block { number: subject("6281200000009").raw(), ..foreign };
    maps.set_block(subject("6281200000009"), alien).expect("inserted");
    let alien = abi::Block { number: prefix("6285").raw(), ..foreign };
    maps.set_block(prefix("6285"), alien).expect("inserted");
    assert_eq!(compare(), 4);
    assert_eq!(maps.block(subject("6281200000009")).expect("the map"), None);
    assert_eq!(maps.block(prefix("6285")).expect("the map"), None);

    // An expiry that somebody made longer; endless; another rule's; another action.
    let first = before[1].expect("a block");
    for (index, block) in [
        abi::Block { expires: first.expires + 7_200_000_000_000, ..first },
        abi::Block { expires: 0, ..first },
        abi::Block { rule: 77_778, ..first },
        abi::Block { flags: abi::BLOCK_OBSERVE, ..first },
    ]
    .into_iter()
    .enumerate()
    {
        maps.set_block(subject("6281200000001"), block).expect("written");
        assert_eq!(compare(), 5 + index as u64, "{block:?}");
        restored("changed");
    }
    // One that ends sooner lets through sooner: no drift, it stays.
    let sooner = abi::Block { expires: first.expires - 1_800_000_000_000, ..first };
    maps.set_block(subject("6281200000001"), sooner).expect("written");
    assert_eq!(compare(), 8);
    assert_eq!(maps.block(subject("6281200000001")).expect("the map"), Some(sooner));
    // One that somebody lifted by hand is over, and the store learns it.
    let lifted = abi::Block { expires: abi::TOMBSTONE, ..before[2].expect("a block") };
    maps.set_block(subject("6281200000002"), lifted).expect("written");
    assert_eq!(compare(), 8);
    assert_eq!(maps.block(subject("6281200000002")).expect("the map"), None);
    assert_eq!(ask(&daemon, "GET", "/v1/blocks/+6281200000002", "").status, 404);

    // Allows: one that is gone comes back, one that only the map has is adopted; none is removed.
    assert!(maps.pass_maps().remove_allow(subject("6281200000005")).expect("removed"));
    assert!(maps.pass_maps().remove_allow(prefix("62811")).expect("removed"));
    let foreign = abi::Allow { number: subject("6281200000006").raw(), expires: 0, rule: 77_779 };
    maps.pass_maps().set_allow(subject("6281200000006"), foreign).expect("inserted");
    let alien = abi::Allow { number: prefix("62812000001").raw(), ..foreign };
    maps.pass_maps().set_allow(prefix("62812000001"), alien).expect("inserted");
    assert_eq!(compare(), 10);
    for _ in 0..2 {
        for there in [
            subject("6281200000005"),
            prefix("62811"),
            subject("6281200000006"),
            prefix("62812000001"),
        ] {
            assert!(maps.pass_maps().allow(there).expect("the map").is_some(), "{there}");
        }
        assert_eq!(compare(), 10);
    }
    let allows: Vec<Allow> = ask(&daemon, "GET", "/v1/allows", "").lines();
    let origins: Vec<_> = allows.iter().map(|allow| (&*allow.number, &*allow.origin)).collect();
    assert_eq!(
        origins,
        [
            ("6281200000005", "operator"),
            ("6281200000006", "direct"),
            ("62811*", "operator"),
            ("62812000001*", "direct"),
        ]
    );

    let told = status(&daemon);
    assert_eq!(told.colour, Health::Amber);
    let message = "10 differences of store and maps were repaired";
    assert!(told.findings.iter().any(|one| one.message == message), "{:?}", told.findings);
    let audit = daemon.cli(&["audit", "verify"]);
    assert_eq!(audit.code, 0, "{}", audit.stderr);
}

// The numbers that the configuration protects are compared as well.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn protected_number_removed_from_the_map_is_restored() {
    let lab = Lab::new("protected");
    let daemon = refusing(&lab);
    daemon.configure(&format!("protected = [\"{CALLER}\"]"));
    daemon.signal("HUP");
    until("reloaded", || daemon.stderr().contains("read again").then_some(()));
    let receiver = lab.receiver(5060);
    assert!(!refuses(&lab, &receiver));
    let maps = Maps::open(&Pins::new(daemon.pins()).maps(BLOCKS)).expect("the maps");
    maps.set_protected(&[]).expect("emptied");
    assert!(refuses(&lab, &receiver), "the lab sees it");
    daemon.signal("USR1");
    // The number, and five placeholders of withheld numbers.
    until("repaired", || (status(&daemon).drift == 1 + 5).then_some(()));
    assert!(!refuses(&lab, &receiver));
}
