//! Each program of the object beside the host: with and without `xdp.frags`, with the full and the slim
//! reader.

use filter_common::abi::{ATTEMPT_ALL, EVENT_PAI_IGNORED};
use filter_common::number::{Digits, Number};
use filter_common::plan::{IDENTITY_FROM, IDENTITY_PAI, IDENTITY_PAI_ELSE_FROM};
use filter_common::reason::Reason;
use filter_common::sip::message::{Reader, SLIM_SCAN_MAX};
use palang::datapath::object::OBJECT;
use palang::datapath::{Error, Features, Plan, Program, Replay};
use palang::model::host_gate::{HostGate, READABLE};
use palang::model::policy::{Policy, Subject};
use palang_tests::common::gates::{self, Gates, reason};
use palang_tests::common::packet::{Layers, crlf};
use palang_tests::common::planted::exploding;
use palang_tests::common::{invites, seeds};

use crate::{NOW, SECOND, captures};

const CALLER: &str = "6281234567890";

/// Returns the programs that this kernel can take.
fn programs() -> impl Iterator<Item = Program> {
    let features = Features::probe().unwrap();
    Program::ALL.into_iter().filter(move |program| !program.frags || features.frags)
}

fn blocking() -> Policy {
    let mut policy = Policy::default();
    policy.trunks[0].profile.attempt_identity = ATTEMPT_ALL;
    policy.block(Subject::Number(Number::e164(Digits::parse(CALLER).unwrap())), 0, 0);
    policy
}

fn invite(call_id: &str, headers: &str, body: &str) -> Vec<u8> {
    crlf(&format!(
        "INVITE sip:112@psap.example SIP/2.0\nFrom: <sip:+{CALLER}@x>\nTo: <sip:112@x>\n{headers}\
         Call-ID: {call_id}\n\n{body}"
    ))
}

/// Returns every fixture, in every form of outer layers where it is a message of its own.
fn fixtures() -> Vec<(u64, Vec<u8>)> {
    let invites = invites::all();
    let messages = invites.iter().map(invites::Invite::message).chain(seeds::all());
    let mut frames: Vec<_> = messages
        .filter(|message| message.len() < 65_000)
        .flat_map(|message| Layers::ALL.map(|layers| (NOW, layers.frame(&message))))
        .collect();
    frames.extend(captures::all_frames());
    frames
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn every_program_says_of_every_fixture_what_the_host_says() {
    let frames = fixtures();
    assert!(frames.len() > 3_000, "{}", frames.len());
    for program in programs() {
        let mut gates = Gates::of(&gates::only(program), &blocking());
        let mut full = HostGate::new(&blocking());
        let mut cut = 0;
        for (time, frame) in &frames {
            let event = gates.judge(frame, *time);
            let expected = full.judge(frame, *time);
            if event == expected {
                continue;
            }
            // A message that the slim reader does not read to its end passes, and nothing else differs.
            let name = program.name();
            assert_eq!(program.reader, Reader::Slim, "{name}: {event:?}, not {expected:?}");
            assert_eq!(reason(&event), Reason::HeadersCut, "{name}: {event:?}, not {expected:?}");
            assert!(frame.len() > SLIM_SCAN_MAX, "{name}");
            cut += 1;
        }
        println!("{}: {cut} of {} fixtures cut", program.name(), frames.len());
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn the_slim_reader_reads_all_that_an_ethernet_frame_holds() {
    for program in programs() {
        let mut gates = Gates::of(&gates::only(program), &blocking());
        let message = |len: usize| {
            let fill = |count| invite("1", &format!("X: {}\n", "x".repeat(count)), "");
            fill(len - fill(0).len())
        };
        // After an IPv4 and a UDP header: 1,500 bytes.
        let judged = |gates: &mut Gates, len| {
            reason(&gates.judge(&Layers::IPV4.frame(&message(len)), NOW)).name()
        };
        assert_eq!(judged(&mut gates, 1472), "blocked-number", "{}", program.name());
        // Both readers read a few bytes more than they promise, and the same on the host.
        for len in SLIM_SCAN_MAX - 10..SLIM_SCAN_MAX + 30 {
            judged(&mut gates, len);
        }
        let beyond = if program.reader == Reader::Slim { "headers-cut" } else { "blocked-number" };
        assert_eq!(judged(&mut gates, SLIM_SCAN_MAX + 30), beyond, "{}", program.name());
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn every_program_copies_call_ids_and_frames() {
    for program in programs() {
        let mut gates = Gates::of(&gates::only(program), &blocking());
        gates.kernel().evidence().set(u32::MAX).unwrap();
        let name = program.name();
        let lengths = (1..=140).chain([200, 255, 256, 300]);
        for (count, len) in lengths.enumerate() {
            let call_id: String = ('a'..='z').cycle().skip(count % 26).take(len).collect();
            // The Call-ID is also the last that the frame holds, and the frame is longer than what is kept.
            for body in ["", "v=0\n", &"x".repeat(if len % 10 == 0 { 2_000 } else { 37 })] {
                let frame = Layers::IPV4.frame(&invite(&call_id, "", body));
                let time = NOW + count as u64 * 100 * SECOND;
                gates.kernel().judge(&frame, time).unwrap();
                let (refused, _) = gates.kernel().drain_events().unwrap();
                let kept = gates.kernel().drain_evidence().unwrap();
                if !body.is_empty() {
                    assert_eq!((refused.len(), kept.len()), (0, 0), "sent again: no event");
                    continue;
                }
                assert_eq!((refused.len(), kept.len()), (1, 1), "{name}: {len}");
                assert_eq!(refused[0].call_id(), &call_id.as_bytes()[..len.min(128)], "{name}");
                assert_eq!(kept[0].frame_len as usize, frame.len(), "{name}");
                assert_eq!(kept[0].frame(), &frame[..frame.len().min(2048)], "{name}: {len}");
            }
        }
        for len in (300..360).chain(2_000..2_100).chain([3_000, READABLE - 1, READABLE]) {
            let padding = len - Layers::IPV4.frame(&invite(&format!("{len:05}"), "", "")).len();
            let body: String = ('0'..='9').cycle().take(padding).collect();
            let frame = Layers::IPV4.frame(&invite(&format!("{len:05}"), "", &body));
            assert_eq!(frame.len(), len);
            gates.kernel().judge(&frame, NOW + 1_000_000 * SECOND).unwrap();
            let (refused, _) = gates.kernel().drain_events().unwrap();
            assert_eq!(refused[0].call_id(), format!("{len:05}").as_bytes(), "{name}");
            let kept = gates.kernel().drain_evidence().unwrap();
            assert_eq!(kept[0].frame(), &frame[..len.min(2048)], "{name}: {len}");
            assert_eq!(kept[0].frame_len as usize, len, "{name}");
        }
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn every_program_copies_the_header_field_of_an_unread_caller() {
    for program in programs() {
        let mut policy = blocking();
        for (identity, value, headers, expected) in [
            (IDENTITY_FROM, "<sip:siti@x>;tag=1", "", "<sip:siti@x>;tag=1"),
            (IDENTITY_FROM, "<sip:+62812@x>;tag=1", "", ""),
            (IDENTITY_FROM, "\"Siti\"\n\t<sip:0812a@x>", "", "\"Siti\"\r\n\t<sip:0812a@x>"),
            (IDENTITY_FROM, "Santoso, Budi <sip:+62812@x>", "", "Santoso, Budi <sip:+62812@x>"),
            (
                IDENTITY_PAI_ELSE_FROM,
                "<sip:+62812@x>",
                "P-Asserted-Identity: <tel:1;ext=2>\n",
                "<tel:1;ext=2>",
            ),
            (IDENTITY_PAI_ELSE_FROM, "<sip:siti@x>", "", "<sip:siti@x>"),
        ] {
            policy.trunks[0].profile.identity = identity;
            let mut gates = Gates::of(&gates::only(program), &policy);
            let message = crlf(&format!(
                "INVITE sip:112@psap.example SIP/2.0\nTo: <sip:112@x>\nCall-ID: 1\n{headers}From: {value}\n\n"
            ));
            // Also where the frame ends at once, and where more follows than is kept.
            for (count, body) in
                [String::new(), "v=0\r\n".into(), "x".repeat(300)].iter().enumerate()
            {
                let frame = Layers::IPV4.frame(&[&message[..], body.as_bytes()].concat());
                gates.kernel().judge(&frame, NOW + count as u64 * 100 * SECOND).unwrap();
                let (_, passed) = gates.kernel().drain_events().unwrap();
                assert_eq!(passed.len(), 1, "{}: {value}", program.name());
                let text = String::from_utf8_lossy(passed[0].unread());
                assert_eq!(text, expected, "{}: {value}", program.name());
            }
        }
        let mut gates = Gates::of(&gates::only(program), &blocking());
        let long = format!("\"{}\" <sip:siti@x>", "x".repeat(300));
        let message = invite("1", "", "");
        let message =
            String::from_utf8(message).unwrap().replace(&format!("<sip:+{CALLER}@x>"), &long);
        gates.kernel().judge(&Layers::IPV4.frame(message.as_bytes()), NOW).unwrap();
        let (_, passed) = gates.kernel().drain_events().unwrap();
        assert_eq!(
            passed[0].unread(),
            &long.as_bytes()[..127],
            "the space before it was copied too"
        );
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn every_program_copies_an_asserted_identity_that_its_trunk_does_not_read() {
    let asserted = "<tel:+6281200000002>";
    for program in programs() {
        let mut policy = blocking();
        for (identity, headers, from, expected) in [
            (
                IDENTITY_FROM,
                "P-Asserted-Identity: <tel:+6281200000002>\n",
                "+6281200000001",
                asserted,
            ),
            (IDENTITY_FROM, "", "+6281200000001", ""),
            // The record of an unread caller has `From`.
            (IDENTITY_FROM, "P-Asserted-Identity: <tel:+6281200000002>\n", "anonymous", ""),
            (IDENTITY_PAI, "P-Asserted-Identity: <tel:+6281200000002>\n", "+6281200000001", ""),
            (IDENTITY_PAI_ELSE_FROM, "", "+6281200000001", ""),
        ] {
            policy.trunks[0].profile.identity = identity;
            let mut gates = Gates::of(&gates::only(program), &policy);
            let message = crlf(&format!(
                "INVITE sip:112@psap.example SIP/2.0\nTo: <sip:112@x>\nCall-ID: 1\nFrom: <sip:{from}@x>\n\
                 {headers}\n"
            ));
            let event = gates.judge(&Layers::IPV4.frame(&message), NOW);
            let is_ignored = identity == IDENTITY_FROM && !headers.is_empty();
            assert_eq!(event.flags, if is_ignored { EVENT_PAI_IGNORED } else { 0 }, "{headers}");
            let (_, passed) = gates.kernel().drain_events().unwrap();
            let text = String::from_utf8_lossy(passed[0].ignored_pai());
            assert_eq!(text, expected, "{}: {headers}", program.name());
            assert_eq!(passed[0].unread().is_empty(), from != "anonymous");
        }
    }
}

/// Returns the programs of one reader: with and without `xdp.frags`.
fn of(reader: Reader) -> Vec<&'static str> {
    let programs = Program::ALL.into_iter().filter(|program| program.reader == reader);
    programs.map(Program::name).collect()
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn the_slim_program_stands_in_for_a_full_one_that_the_kernel_refuses() {
    let object = exploding(OBJECT, &of(Reader::Full));
    let plan = Plan::of_this_kernel().unwrap();
    let mut kernel = Replay::load_object(&object, &plan, &blocking()).unwrap();
    assert_eq!(kernel.program(), Program { reader: Reader::Slim, ..plan.programs[0] });
    let why = kernel.slow_reader().expect("it is said");
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    for part in ["slow reader on this kernel", release.trim(), "1000001 instructions"] {
        assert!(why.contains(part), "no {part:?} in {why:?}");
    }
    let judged = kernel.judge(&Layers::IPV4.frame(&invite("1", "", "")), NOW).unwrap();
    assert!(judged.dropped);
    assert_eq!(reason(&judged.event), Reason::BlockedNumber);
    // A number of the real object: a kernel that takes the full one says nothing.
    assert_eq!(Replay::load(&blocking()).unwrap().slow_reader(), None);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_kernel_that_refuses_both_is_named_with_what_to_do() {
    let object = exploding(OBJECT, &[of(Reader::Full), of(Reader::Slim)].concat());
    let plan = Plan::of_this_kernel().unwrap();
    let error = Replay::load_object(&object, &plan, &Policy::default()).err().expect("refused");
    let Error::Refused(refusals) = &error else { panic!("{error}") };
    let names: Vec<_> = refusals.iter().map(|refusal| refusal.program).collect();
    assert_eq!(names, plan.programs.iter().map(|program| program.name()).collect::<Vec<_>>());
    let walked: Vec<_> = refusals.iter().map(|refusal| refusal.instructions).collect();
    assert!(walked.iter().all(|count| count.is_some_and(|count| count > 999_999)), "{walked:?}");
    let text = error.to_string();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    for part in
        [release.trim(), "1000001 instructions", "boot the previous kernel", "report this with"]
    {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn features_are_those_that_the_programs_need() {
    let Features { frags, buffer_helpers, .. } = Features::probe().unwrap();
    let takes = |program: Program, buffer_helpers: bool| {
        let plan = Plan::only(program).unwrap();
        let features = Features { buffer_helpers, ..plan.features };
        Replay::load_as(&Plan { features, ..plan }, &Policy::default(), &[]).is_ok()
    };
    let slim = |frags| Program { reader: Reader::Slim, frags };
    assert!(takes(slim(false), false), "every kernel");
    assert_eq!(takes(slim(true), false), frags);
    assert_eq!(takes(slim(false), true), buffer_helpers);
    let first = Plan::of_this_kernel().unwrap().programs[0];
    assert_eq!(first, Program { reader: Reader::Full, frags: frags && buffer_helpers });
}
