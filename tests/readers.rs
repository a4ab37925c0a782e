//! The readers, side by side. Where the fast one answers, the full one says the same. A message
//! that the slim one reads to its end, it reads as the full one does.

use std::cell::Cell;

use filter_common::bytes::Slice;
use filter_common::sip::fields::Fields;
use filter_common::sip::headers::{BAD, END};
use filter_common::sip::message::SLIM_SCAN_MAX;
use filter_common::sip::{fast, message};
use palang_tests::common::mutations::{apply, change};
use palang_tests::common::{invites, seeds};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

/// Returns whether the fast reader answered. Fails when the full one says anything else.
fn compare(message: &[u8]) -> Result<bool, String> {
    let bytes = Slice::from(message);
    let start = message::request_uri(&bytes, 0, message.len());
    if start == 0 {
        return Ok(false);
    }
    let len = message.len() - start;
    let (mut quick, mut full): (Fields, Fields) = (Fields::default(), Fields::default());
    if fast::scan(&bytes, start, len, &mut quick) == 0 {
        return Ok(false);
    }
    let state = message::scan_all(&bytes, start, len, &mut full);
    // Slot 0 is the waste-paper basket of both.
    if (state, &quick[1..]) == (END, &full[1..]) {
        return Ok(true);
    }
    Err(format!("{state} {full:?}, not {quick:?}: {}", message.escape_ascii()))
}

/// Returns whether the slim reader came to an end. Fails when it says anything but the full one.
fn compare_slim(message: &[u8]) -> Result<bool, String> {
    let bytes = Slice::from(message);
    let start = message::request_uri(&bytes, 0, message.len());
    if start == 0 {
        return Ok(false);
    }
    let len = message.len() - start;
    let (mut slim, mut full): (Fields, Fields) = (Fields::default(), Fields::default());
    let state = message::scan_slim(&bytes, start, len, &mut slim);
    let expected = message::scan_all(&bytes, start, len, &mut full);
    let ended = state == END || state == BAD;
    if len > SLIM_SCAN_MAX && !ended {
        return Ok(false);
    }
    if (state, &slim[1..]) == (expected, &full[1..]) {
        return Ok(ended);
    }
    Err(format!("{expected} {full:?}, not {state} {slim:?}: {}", message.escape_ascii()))
}

/// An INVITE as trunks send it.
const USUAL: &str = "INVITE sip:112@psap.example.net SIP/2.0\r\n\
    Via: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK776asdhds;rport\r\n\
    Max-Forwards: 70\r\n\
    Record-Route: <sip:10.0.0.1;lr;ftag=1928301774>\r\n\
    From: \"Budi Santoso\" <sip:+6281234567890@ims.example.net;user=phone>;tag=1928301774\r\n\
    To: <sip:112@psap.example.net;user=phone>\r\n\
    Call-ID: a84b4c76e66710-3848a8f2@10.0.0.1\r\n\
    CSeq: 314159 INVITE\r\n\
    Contact: <sip:+6281234567890@10.0.0.1:5060;transport=udp>\r\n\
    P-Asserted-Identity: <tel:+6281234567890>\r\n\
    Content-Type: application/sdp\r\n\
    Content-Length: 10\r\n\r\nv=0\r\ns=x\r\n";

#[test]
fn the_usual_form_is_read_fast() {
    let replaced = |from: &str, to: &str| {
        assert!(USUAL.contains(from), "{from}");
        USUAL.replace(from, to)
    };
    let body = USUAL.find("v=0").expect("a body");
    for message in [
        USUAL.to_owned(),
        USUAL[..body].to_owned(),
        replaced("From: \"Budi Santoso\" ", "f:"),
        replaced("\"Budi Santoso\" ", "\"\""),
        replaced("Call-ID: ", "i: "),
        replaced("To: ", "TO:"),
        replaced("To: <sip:112@psap.example.net;user=phone>", "t: <urn:service:sos.police>"),
        replaced("user=phone>\r\n", "user=phone>;tag=abc\r\n"),
        replaced("<tel:", "\"Budi\" <sips:"),
        replaced("P-Asserted-Identity: <tel:+6281234567890>\r\n", ""),
        replaced("SIP/2.0\r\nV", "sip/2.0\r\nV"),
        replaced("10.0.0.1\r\nCSeq", &format!("{}\r\nCSeq", "x".repeat(80))),
        replaced("Max-Forwards: 70", &format!("Max-Forwards: 70\r\nX-Long: {}", "x".repeat(600))),
        replaced("Content-Type: application/sdp", "X-1.y: "),
    ] {
        assert_eq!(compare(&message.into_bytes()), Ok(true));
    }
    for (from, to) in [
        ("From: ", "From : "),
        ("From: ", "From:\r\n "),
        ("Max-Forwards: 70", "Max-Forwards: 70\r\n 1"),
        ("Max-Forwards", "Max Forwards"),
        ("Max-Forwards", ""),
        ("CSeq: 314159 INVITE", "CSeq"),
        ("Budi", "Bu\\di"),
        ("Call-ID", "f: <sip:1@x>\r\nCall-ID"),
        ("\r\nTo", "\nTo"),
        ("To: ", "X: "),
    ] {
        assert_eq!(compare(&replaced(from, to).into_bytes()), Ok(false), "{from} {to}");
    }
}

#[test]
fn readers_agree_on_every_fixture() {
    let (mut answered, mut ended) = (0, 0);
    for message in invites::all().iter().map(invites::Invite::message).chain(seeds::all()) {
        let read = |reader: fn(&[u8]) -> Result<bool, String>, message: &[u8]| {
            usize::from(reader(message).unwrap_or_else(|differs| panic!("{differs}")))
        };
        answered += read(compare, &message);
        ended += read(compare_slim, &message);
        for end in 0..message.len() {
            read(compare, &message[..end]);
            read(compare_slim, &message[..end]);
        }
    }
    assert!(answered > 50, "only {answered} were answered at all");
    assert!(ended > 150, "only {ended} were read to their end");
}

#[test]
fn readers_agree_on_changed_messages() {
    let mut originals: Vec<Vec<u8>> = invites::all().iter().map(invites::Invite::message).collect();
    originals.extend(seeds::all());
    originals.extend(std::iter::repeat_n(USUAL.as_bytes().to_vec(), 100));
    let answered = Cell::new(0);
    let more = std::env::var("PALANG_CASES").map_or(1, |more| more.parse().expect("a number"));
    let config = Config { cases: 60_000 * more, failure_persistence: None, ..Config::default() };
    let strategy = (any::<Index>(), prop::collection::vec(change(), 0..4));
    let run = TestRunner::new(config).run(&strategy, |(original, changes)| {
        let mut message = original.get(&originals).clone();
        for change in &changes {
            apply(&mut message, change);
        }
        let quick = compare(&message).map_err(TestCaseError::fail)?;
        compare_slim(&message).map_err(TestCaseError::fail)?;
        answered.set(answered.get() + u32::from(quick));
        Ok(())
    });
    run.unwrap_or_else(|error| panic!("{error}"));
    assert!(answered.get() > 6_000, "only {} were answered at all", answered.get());
}
