//! Many blocks. (A million, with times and memory, is for a release build on a quiet machine.)

use std::fs;

use palang::api::wire::{Block, Explain, Status};
use palang_tests::lab::{Daemon, Lab};

use crate::socket::{ask, until};

const COUNT: u32 = 100_000;

fn number(index: u32) -> String {
    format!("62812{index:08}")
}

fn must(daemon: &Daemon<'_>, arguments: &[&str]) -> String {
    let output = daemon.cli(arguments);
    assert_eq!(output.code, 0, "{arguments:?}: {}", output.stderr);
    output.stdout
}

fn status(daemon: &Daemon<'_>) -> Status {
    ask(daemon, "GET", "/v1/status", "").json()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn hundred_thousand_blocks_are_in_force_after_each_start() {
    let lab = Lab::new("scale");
    let mut daemon = Daemon::start(&lab, "[limits]\nblocks = 200000");
    must(&daemon, &["mode", "enforce"]);
    let file = daemon.folder().join("blocks.csv");
    let rows: String = (1..=COUNT)
        .map(|index| {
            let (number, author) = (number(index), ["siti", "budi"][index as usize % 2]);
            let refuse = ["", "486", "drop"][index as usize % 3];
            format!(
                "{number},2099-01-01T00:00:00Z,list {},{author},import,false,,{refuse}\n",
                index % 100
            )
        })
        .collect();
    let csv = format!("number,expires,reason,author,origin,observe,redial,refuse\n{rows}");
    // As people write numbers.
    let by_people = csv.replace("\n62812", "\n0812-");
    fs::write(&file, by_people).expect("written");
    let told = must(&daemon, &["block", "import", &file.display().to_string(), "-o", "raw"]);
    assert_eq!(told, format!("{COUNT}\t0\t0\t0\t0\t0\n"));

    let list = must(&daemon, &["block", "list", "-o", "json"]);
    assert_eq!(list.lines().count(), COUNT as usize);
    for (index, line) in (1..).zip(list.lines()) {
        let block: Block = serde_json::from_str(line).expect("a block");
        assert_eq!(block.number, number(index));
        assert_eq!(block.reason, format!("list {}", index % 100));
    }
    fs::remove_file(&file).unwrap();
    must(&daemon, &["block", "export", &file.display().to_string()]);
    let exported = fs::read_to_string(&file).unwrap();
    assert!(exported == csv, "{}", exported.lines().take(3).collect::<Vec<_>>().join("\n"));
    // Once more, from what was exported: nothing changes.
    let told = must(&daemon, &["block", "import", &file.display().to_string(), "-o", "raw"]);
    assert_eq!(told, format!("0\t0\t{COUNT}\t0\t0\t0\n"));

    let all = ask(&daemon, "GET", "/v1/blocks", "").body;
    let receiver = lab.receiver(5060);
    let here = |daemon: &Daemon<'_>, why: &str| {
        let told = status(daemon);
        assert_eq!(told.blocks, Some(COUNT.into()), "{why}");
        assert!(told.findings.is_empty(), "{why}: {:?}", told.findings);
        for index in [1, COUNT / 2, COUNT] {
            let explain: Explain =
                ask(daemon, "GET", &format!("/v1/explain/%2B{}", number(index)), "").json();
            assert_eq!(explain.check.verdict, "drop", "{why}");
            let step = explain.steps.iter().find(|step| step.decides).expect("a step");
            let store = step.store.as_deref().expect("the store knows it");
            assert!(store.contains(&format!("list {}", index % 100)), "{why}: {store}");
        }
        let callers = [&number(1), &number(COUNT), &number(COUNT + 1)].map(|one| format!("+{one}"));
        let callers: Vec<_> = callers.iter().map(String::as_str).collect();
        let record = lab.traffic(&receiver, &callers, 5_000, 30).finish();
        let refused: Vec<_> =
            callers.iter().map(|caller| record.refused(caller, ..).len()).collect();
        assert_eq!(refused, [10, 10, 0], "{why}");
        assert!(ask(daemon, "GET", "/v1/blocks", "").body == all, "{why}");
        let before = daemon.stderr().matches("store and maps were compared").count();
        daemon.signal("USR1");
        until("compared", || {
            let now = daemon.stderr().matches("store and maps were compared").count();
            (now > before).then_some(())
        });
        assert_eq!(status(daemon).drift, 0, "{why}");
    };
    here(&daemon, "imported");
    daemon.restart();
    here(&daemon, "restarted with the maps that were there");
    assert_eq!(daemon.stop(), 0);
    fs::remove_dir_all(daemon.pins()).expect("the pins removed");
    daemon.start_again();
    here(&daemon, "restarted with fresh maps, as after a restart of the machine");
}
