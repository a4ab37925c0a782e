//! Replies to the INVITEs of all fixtures and to changed ones. Another SIP stack reads them, and each header
//! field is compared with that of the request.

use std::cell::Cell;

use filter_common::abi::Keys;
use filter_common::answer::code::Code;
use filter_common::answer::sums::{Checked, check};
use filter_common::answer::{Answer, ROOM, is_own_ack};
use filter_common::bytes::Slice;
use filter_common::contact::Contact;
use filter_common::frame::{Packet, read};
use palang_tests::common::mutations::{apply, change};
use palang_tests::common::packet::Layers;
use palang_tests::common::{invites, seeds};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use rvoip_sip_core::parser::parse_message;
use rvoip_sip_core::types::Message;
use rvoip_sip_core::types::via::Via;

const KEYS: Keys = Keys { keys: [[7, 8], [9, 10]], newest: 0, older_until: 0 };
const TAG: &str = ";tag=p0";
const TAG_LEN: usize = TAG.len() + 16;

fn packet(frame: &[u8]) -> Packet {
    let mut packet = Packet::default();
    // A frame that is no datagram leaves the packet without one.
    _ = read(&Slice::from(frame), &mut packet);
    packet
}

/// Returns the reply to a message, as bytes.
fn answer(layers: Layers, message: &[u8]) -> Option<Vec<u8>> {
    let frame = layers.frame(message);
    let mut answer = Answer::<ROOM>::default();
    let (request, code) = (&Slice::from(&frame[..]), Code::default() as u8);
    let reply = answer.write(request, &packet(&frame), &KEYS, code, &Contact::default())?;
    let whole = answer.bytes(reply.start, reply.end);
    assert!(whole.len() <= frame.len());
    assert_eq!(check::<_, ROOM>(&Slice::from(whole), &packet(whole)), Checked::Right);
    Some(answer.bytes(reply.message, reply.end).to_vec())
}

/// Returns the header fields of a message: small letters of the long name, and the value as it came, line end
/// included.
fn fields(message: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut fields: Vec<(String, Vec<u8>)> = Vec::new();
    let empty = message.iter().take_while(|byte| b"\r\n".contains(byte)).count();
    for line in message[empty..].split_inclusive(|byte| *byte == b'\n').skip(1) {
        if line.trim_ascii().is_empty() && !line.starts_with(b" ") && !line.starts_with(b"\t") {
            break;
        }
        if let (b' ' | b'\t', Some((_, value))) = (line[0], fields.last_mut()) {
            value.extend(line);
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len() - 1);
        let name = line[..colon].trim_ascii().escape_ascii().to_string().to_lowercase();
        let name = match &name[..] {
            "v" => "via",
            "f" => "from",
            "t" => "to",
            "i" => "call-id",
            _ => &name,
        };
        fields.push((name.to_owned(), line[colon + 1..].to_vec()));
    }
    fields
}

fn values(message: &[u8], name: &str) -> Vec<Vec<u8>> {
    fields(message).into_iter().filter(|field| field.0 == name).map(|field| field.1).collect()
}

/// Removes the only occurrence of a text; `false` without one.
fn remove(value: &mut Vec<u8>, text: &[u8]) -> bool {
    let Some(at) = value.windows(text.len()).position(|window| window == text) else {
        return false;
    };
    value.drain(at..at + text.len());
    true
}

/// Compares a reply with its request. Returns the difference.
fn compare(request: &[u8], reply: &[u8], source: &str) -> Result<(), String> {
    let differs = |what: &str| {
        Err(format!("{what}: {} is answered by {}", request.escape_ascii(), reply.escape_ascii()))
    };
    if !reply.starts_with(b"SIP/2.0 600 Busy Everywhere\r\n") || !reply.ends_with(b"\r\n\r\n") {
        return differs("first or last line");
    }
    for name in ["from", "call-id", "cseq"] {
        let value = values(request, name);
        if value.len() != 1 || value != values(reply, name) {
            return differs(name);
        }
    }
    let (from, to) = (values(request, "to"), values(reply, "to"));
    let ([from], [to]) = (&from[..], &to[..]) else { return differs("to") };
    let mut plain = to.clone();
    let Some(at) = to.windows(TAG.len()).position(|window| window == TAG.as_bytes()) else {
        return differs("tag");
    };
    plain.drain(at..at + TAG_LEN);
    if plain != *from || !matches!(&plain[at..], b"\r\n" | b"\n") {
        return differs("to");
    }
    let (from, mut to) = (values(request, "via"), values(reply, "via"));
    let received = format!(";received={source}");
    let with_rport = format!("=5060{received}");
    if from.is_empty()
        || !(remove(&mut to[0], with_rport.as_bytes()) || remove(&mut to[0], received.as_bytes()))
        || from != to
    {
        return differs("via");
    }
    let rest = |name: &String| !["via", "from", "to", "call-id", "cseq"].contains(&&name[..]);
    let names: Vec<_> = fields(reply).into_iter().map(|field| field.0).filter(rest).collect();
    if names != ["l"] && names != ["content-length"] && names != ["reason", "content-length"] {
        return differs("other fields");
    }
    if reply.len() > request.len() {
        return differs("longer");
    }
    Ok(())
}

fn source(layers: Layers) -> &'static str {
    if layers.ipv6 { "fd00:0:0:0:0:0:0:1" } else { "10.0.0.1" }
}

#[test]
fn calls_of_all_fixtures_get_replies_with_their_own_fields() {
    let mut read_alike = 0;
    for invite in invites::all() {
        let mut message = invite.message();
        // Room for the reply: a fixture may have no body.
        message.resize(message.len().max(1_400), b'x');
        for layers in Layers::ALL {
            let reply = answer(layers, &message);
            let has_caller = invite.caller.is_some() || invite.callers.is_some();
            // With a tag of ours the empty one would be a second one.
            let may_lack = !has_caller || invite.name == "to-tag-empty";
            assert!(reply.is_some() || may_lack, "{} gets no reply", invite.name);
            let Some(reply) = reply else { continue };
            let read = compare(&message, &reply, source(layers))
                .and_then(|()| is_read_alike(&message, &reply))
                .unwrap_or_else(|differs| panic!("{}: {differs}", invite.name));
            read_alike += usize::from(read);
        }
    }
    assert!(read_alike > 1_000, "{read_alike}");
}

/// Returns whether rvoip reads the request. Fails when it then does not read the reply, or reads another call.
fn is_read_alike(request: &[u8], reply: &[u8]) -> Result<bool, String> {
    let Ok(Message::Request(request)) = parse_message(request) else { return Ok(false) };
    if request.to().is_none() {
        // It reads no URN there.
        return Ok(false);
    }
    let parsed =
        parse_message(reply).map_err(|error| format!("{error}: {}", reply.escape_ascii()))?;
    let Message::Response(reply) = parsed else { return Err("not a response".to_owned()) };
    assert_eq!(reply.status_code(), 600);
    let branches = |vias: &[Via]| -> Vec<_> {
        vias.iter().map(|via| via.branch().map(str::to_owned)).collect()
    };
    let parts = [
        ("Call-ID", request.call_id() == reply.call_id()),
        ("CSeq", request.cseq() == reply.cseq()),
        ("From", request.from() == reply.from()),
        ("tag", reply.to_tag().is_some_and(|tag| TAG.ends_with(&tag[..2]))),
        ("To", request.to().map(|to| &to.0.uri) == reply.to().map(|to| &to.0.uri)),
        ("Via", branches(&request.via_headers()) == branches(&reply.via_headers())),
    ];
    match parts.iter().find(|(_, is_same)| !is_same) {
        None => Ok(true),
        Some((name, _)) => Err(format!("{name}: {:?} {:?}", request.to(), reply.to())),
    }
}

#[test]
fn changed_messages_get_their_own_fields_or_no_reply() {
    let mut messages: Vec<_> = invites::all().iter().map(invites::Invite::message).collect();
    messages.extend(seeds::all());
    messages.retain(|message| message.len() < 1400);
    let answered = Cell::new(0);
    let strategy = (any::<Index>(), prop::collection::vec(change(), 1..4), any::<Index>());
    let mut runner = TestRunner::new(Config { cases: 20_000, ..Config::default() });
    runner
        .run(&strategy, |(message, changes, layers)| {
            let mut message = messages[message.index(messages.len())].clone();
            for change in &changes {
                apply(&mut message, change);
            }
            let layers = *layers.get(&Layers::ALL);
            if message.len() > 1450 {
                return Ok(());
            }
            if let Some(reply) = answer(layers, &message) {
                answered.set(answered.get() + 1);
                compare(&message, &reply, source(layers)).map_err(TestCaseError::fail)?;
            }
            let frame = layers.frame(&message);
            let packet = packet(&frame);
            prop_assert!(!is_own_ack(
                &Slice::from(&frame[..]),
                &packet,
                &KEYS,
                0,
                &mut Answer::default()
            ));
            Ok(())
        })
        .unwrap();
    assert!(answered.get() > 2_000, "{}", answered.get());
}
