//! Every capture against its expected verdicts, which were derived without this code
//! (`pcaps/README.md`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use filter_common::abi::{ATTEMPT_ALL, Verdict};
use filter_common::number::Number;
use filter_common::reason::Reason;
use palang::model::policy::{Policy, Subject};
use palang::replay::capture::Capture;
use palang::replay::{link, message};
use palang_tests::common::gates::{Gates, reason};

/// The "modified" pcap of an old libpcap patch: not read, which replay says.
const NOT_READ: &str = "ptavi-a__invite.pcap";

/// A capture and a file of expected verdicts.
struct Fixture {
    capture: PathBuf,
    expected: PathBuf,
}

fn fixtures() -> Vec<Fixture> {
    let mut fixtures = Vec::new();
    for folder in ["pcaps", "pcaps/gpl"] {
        let folder = palang_tests::fixtures().join(folder);
        for expected in ["expected", "expected-all-ports"] {
            let mut files: Vec<_> = std::fs::read_dir(folder.join(expected))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            files.sort();
            for expected in files {
                let name = expected.file_stem().unwrap();
                fixtures.push(Fixture { capture: folder.join(name), expected });
            }
        }
    }
    fixtures.retain(|fixture| !fixture.capture.ends_with(NOT_READ));
    assert!(fixtures.len() > 80);
    fixtures
}

/// A row of an expected file; `-` where nothing is said.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    frame: u64,
    transport: String,
    to_tag: String,
    caller: String,
    reason: String,
}

fn expected(path: &Path) -> (Vec<u16>, Vec<Row>) {
    let text = std::fs::read_to_string(path).unwrap();
    let ports = text
        .lines()
        .find_map(|line| line.strip_prefix("#ports\t"))
        .map_or(vec![5060], |ports| ports.split('\t').map(|port| port.parse().unwrap()).collect());
    let rows = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with("frame"))
        .map(|line| {
            let fields: Vec<_> = line.split('\t').collect();
            let [frame, transport, to_tag, caller, reason] = fields[..] else {
                panic!("{path:?}: {line:?}");
            };
            Row {
                frame: frame.parse().unwrap(),
                transport: transport.into(),
                to_tag: to_tag.into(),
                caller: caller.into(),
                reason: reason.into(),
            }
        })
        .collect();
    (ports, rows)
}

/// A frame re-framed as Ethernet, with its number and time.
type Frame = (u64, u64, Vec<u8>);

fn frames(capture: &Path) -> Vec<Frame> {
    let frames: Vec<_> = Capture::open(capture, |_| {})
        .unwrap_or_else(|error| panic!("{capture:?} {error}"))
        .map_while(Result::ok)
        .map(|frame| {
            let ethernet = link::ethernet(frame.link, &frame.bytes).unwrap().into_owned();
            (frame.number, frame.time, ethernet)
        })
        .collect();
    assert!(!frames.is_empty(), "{capture:?}");
    frames
}

/// Returns the frames of all captures, with their times.
pub fn all_frames() -> Vec<(u64, Vec<u8>)> {
    let mut captures: Vec<_> = fixtures().into_iter().map(|fixture| fixture.capture).collect();
    captures.dedup();
    let all = captures.iter().flat_map(|capture| frames(capture));
    all.map(|(_, time, frame)| (time, frame)).collect()
}

/// Judges all frames. Returns the rows of frames in which an INVITE begins, and the numbers of the refused
/// frames.
fn judge(gates: &mut Gates, frames: &[Frame]) -> (Vec<(Row, Number)>, Vec<u64>) {
    let (mut rows, mut refused) = (Vec::new(), Vec::new());
    for (number, time, frame) in frames {
        let event = gates.judge_twice(frame, *time);
        if event.verdict != Verdict::Pass as u8 {
            refused.push(*number);
        }
        let (packet, message) = message::read(frame);
        let Some(message) = message.filter(|message| message.method == "INVITE") else { continue };
        let mut reason = reason(&event).name();
        if reason == Reason::SecondLook.name() {
            // A first fragment alone.
            reason = Reason::HeadersCut.name();
        }
        if reason == "not-udp" {
            continue;
        }
        let is_call = event.number != Number::NONE;
        let row = Row {
            frame: *number,
            transport: if packet.transport == 6 { "tcp" } else { "udp" }.into(),
            to_tag: message.to_tag.map_or("-".into(), |to_tag| to_tag.to_string()),
            caller: if is_call { event.number.to_string() } else { "-".into() },
            reason: reason.into(),
        };
        rows.push((row, event.number));
    }
    (rows, refused)
}

fn policy(ports: &[u16]) -> Policy {
    let mut policy = Policy { ports: ports.to_vec(), ..Policy::default() };
    policy.trunks[0].profile.attempt_identity = ATTEMPT_ALL;
    policy
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn captures_are_judged_as_expected() {
    let mut gates = Gates::new(&Policy::default());
    let is_cut = !gates.add_second_look();
    let mut failures = Vec::new();
    let mut invites = 0;
    for fixture in fixtures() {
        let (ports, expected) = expected(&fixture.expected);
        gates.replace(&policy(&ports));
        let (rows, refused) = judge(&mut gates, &frames(&fixture.capture));
        assert!(refused.is_empty(), "{:?}: nothing is blocked", fixture.capture);
        let told: Vec<_> = rows
            .into_iter()
            .zip(expected.iter().map(Some).chain(std::iter::repeat(None)))
            .map(|((mut row, _), expected)| {
                // The expected files say nothing of a To-tag that was not looked at.
                if expected.is_some_and(|expected| expected.to_tag == "-") {
                    row.to_tag = "-".into();
                }
                match expected {
                    // A long message passes on a kernel without a second look.
                    Some(expected) if is_cut && row.reason == "headers-cut" => expected.clone(),
                    _ => row,
                }
            })
            .collect();
        invites += told.len();
        if told != expected {
            failures
                .push(format!("{:?}\n told {told:?}\n expected {expected:?}", fixture.expected));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(invites > 200, "only {invites} INVITEs");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn blocking_each_caller_refuses_exactly_that_caller() {
    let mut gates = Gates::new(&Policy::default());
    let mut callers = 0;
    for fixture in fixtures() {
        let (ports, _) = expected(&fixture.expected);
        let frames = frames(&fixture.capture);
        gates.replace(&policy(&ports));
        let (rows, _) = judge(&mut gates, &frames);
        let numbers: BTreeSet<_> = rows
            .iter()
            .map(|(_, number)| *number)
            .filter(|number| *number != Number::NONE)
            .collect();
        for number in numbers {
            callers += 1;
            let mut policy = policy(&ports);
            policy.block(Subject::Number(number), 0, 0);
            gates.replace(&policy);
            let (_, refused) = judge(&mut gates, &frames);
            let initial: Vec<_> = rows
                .iter()
                .filter(|(_, other)| *other == number)
                .map(|(row, _)| row.frame)
                .collect();
            assert_eq!(refused, initial, "{:?}, {number}", fixture.capture);
        }
    }
    assert!(callers > 15, "only {callers} callers");
}

#[test]
fn a_capture_that_is_not_read_says_so() {
    let path = palang_tests::fixtures().join("pcaps/gpl").join(NOT_READ);
    let error = Capture::open(&path, |_| {}).err().expect("an old format").to_string();
    assert!(error.contains("editcap"), "{error}");
}
