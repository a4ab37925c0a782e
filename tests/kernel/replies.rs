//! Replies of the kernel program to refused calls. [`Gates`] compares each with the reply of the host.

use filter_common::abi::{
    DROPPED_WITHOUT_DAEMON, EVENT_BY_DAEMON, MODE_OBSERVE, PASSES_ON_SOME_INTERFACES,
    PASSES_WITHOUT_DAEMON, REPLY_PATH_AUTO, REPLY_PATH_DAEMON, REPLY_PATH_DRIVER, ReplyStats,
};
use filter_common::answer::code::Code;
use filter_common::contact::Contact;
use filter_common::number::{Digits, Number};
use filter_common::reason::Reason;
use palang::model::policy::{Policy, Subject, Trunk};
use palang::model::refuse::Refuse;
use palang_tests::common::gates::{Gates, plan, reason};
use palang_tests::common::invites;
use palang_tests::common::packet::{Layers, crlf, fragments};

use crate::{NOW, SECOND};

/// The source of [`Layers`], as a trunk.
const SOURCE: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 10, 0, 0, 1];
const CALLER: &str = "6281234567890";

/// Returns a policy that blocks [`CALLER`], with a trunk for [`SOURCE`] that answers.
fn policy() -> Policy {
    let mut policy = Policy::default();
    policy.settings.trunks_configured = 1;
    let mut profile = policy.trunks[0].profile;
    profile.refuse = Code::BusyEverywhere as u8;
    profile.replies_per_second = 5_000;
    let trunk = Trunk {
        name: "carrier".into(),
        sources: vec![(SOURCE, 128)],
        profile,
        ..policy.trunks[0].clone()
    };
    policy.trunks.push(trunk);
    policy.block(Subject::Number(Number::e164(Digits::parse(CALLER).unwrap())), 0, 0);
    policy
}

/// Returns `false` on a kernel that answers no call: there each refused call ends in silence.
fn can_answer() -> bool {
    plan().features.replies
}

/// Returns whether the driver can answer. Otherwise the daemon does.
fn has_driver_path() -> bool {
    can_answer() && plan().programs.iter().all(|program| program.frags)
}

fn invite(call: &str) -> Vec<u8> {
    crlf(&format!(
        "INVITE sip:112@psap.example SIP/2.0\nVia: SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bK{call};rport\n\
         Max-Forwards: 70\nFrom: <sip:+{CALLER}@ims.example>;tag=f1\nTo: <sip:112@psap.example>\n\
         Call-ID: {call}\nCSeq: 1 INVITE\nContact: <sip:10.0.0.1:5060>\nUser-Agent: an exchange\n\
         Supported: timer, 100rel\nContent-Length: 0\n\n"
    ))
}

/// Returns the ACK for a reply, as a client makes it (RFC 3261 §17.1.1.3).
const CONTACT: &str = "sip:announcement@192.0.2.9";

fn ack(reply: &str) -> Vec<u8> {
    let value = |name: &str| {
        let line = reply.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        format!("{line}\n")
    };
    let cseq = value("CSeq").replace("INVITE", "ACK");
    let fields = [value("Via"), value("From"), value("To"), value("Call-ID"), cseq].concat();
    crlf(&format!("ACK sip:112@psap.example SIP/2.0\n{fields}Content-Length: 0\n\n"))
}

/// Judges a frame and returns the message of the reply; `None`: no reply.
fn reply(gates: &mut Gates, frame: &[u8], time: u64) -> Option<String> {
    let event = gates.judge(frame, time);
    let reply = gates.reply().map(|frame| {
        let sliced = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
        let Some(etherparse::TransportSlice::Udp(udp)) = sliced.transport else {
            panic!("not UDP")
        };
        String::from_utf8(udp.payload().to_vec()).unwrap()
    });
    assert_eq!(event.reply != 0, reply.is_some(), "event and reply disagree");
    reply
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn each_fixture_gets_the_reply_of_the_host() {
    let mut gates = Gates::new(&Policy::default());
    let mut answered = 0;
    let is_judged =
        |invite: &&invites::Invite| invite.caller.is_some() && invite.reason == "not-blocked";
    for (index, invite) in invites::all().iter().filter(is_judged).enumerate() {
        let mut policy = invite.policy();
        let code = Code::ALL[index % Code::ALL.len()];
        let mut message = invite.message();
        // Room for the reply: a fixture may have no body.
        message.resize(message.len().max(1_400), b'x');
        gates.replace(&policy);
        let number = gates.judge(&Layers::IPV4.frame(&message), NOW).number;
        policy.block(Subject::Number(number), 0, 0);
        policy.trunks[0].profile.refuse = code as u8;
        policy.trunks[0].profile.contact = Contact::new(CONTACT).unwrap();
        policy.trunks[0].profile.replies_per_second = u32::MAX;
        gates.replace(&policy);
        for layers in Layers::ALL {
            let Some(reply) = reply(&mut gates, &layers.frame(&message), NOW) else { continue };
            assert!(reply.starts_with(&format!("SIP/2.0 {} ", code.status())), "{reply}");
            let redirects = code == Code::MovedTemporarily;
            assert_eq!(reply.contains(&format!("\r\nContact: <{CONTACT}>\r\n")), redirects);
            answered += 1;
        }
    }
    assert!(!can_answer() || answered > 300, "{answered}");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn ack_of_a_reply_is_dropped_and_every_other_one_passes() {
    let mut gates = Gates::new(&policy());
    let Some(reply) = reply(&mut gates, &Layers::IPV4.frame(&invite("a")), NOW) else {
        assert!(!can_answer());
        return;
    };
    let ack = ack(&reply);
    let own = gates.judge(&Layers::IPV4.frame(&ack), NOW + SECOND);
    assert_eq!((reason(&own), own.trunk), (Reason::RefusalAck, 1));
    let text = String::from_utf8(ack).unwrap();
    let changed = [
        text.replace("Call-ID: a", "Call-ID: b"),
        text.replace("CSeq: 1", "CSeq: 2"),
        text.replace(";tag=p", ";tag=q"),
        text.replace("ACK ", "BYE "),
    ];
    for other in changed {
        assert_ne!(other, text);
        let event = gates.judge(&Layers::IPV4.frame(other.as_bytes()), NOW + SECOND);
        assert_eq!((reason(&event), event.verdict), (Reason::NotInvite, 0), "{other}");
    }
    // A source outside all trunks gets no reply, so its ACK is not for one.
    let event = gates.judge(&Layers { ipv6: true, vlans: 0 }.frame(text.as_bytes()), NOW + SECOND);
    assert_eq!(reason(&event), Reason::NotInvite);
    let stats = gates.kernel().reply_stats(1).unwrap();
    let sent = u64::from(has_driver_path());
    assert_eq!(stats, ReplyStats { sent, acks: 1, ..ReplyStats::default() });
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn call_that_passes_gets_no_reply() {
    let frame = Layers::IPV4.frame(&invite("a"));
    let change = |change: fn(&mut Policy)| {
        let mut policy = policy();
        change(&mut policy);
        policy
    };
    let passing = [
        change(|policy| policy.blocks.clear()),
        change(|policy| policy.settings.mode = MODE_OBSERVE),
        change(|policy| policy.trunks[1].profile.mode = MODE_OBSERVE),
        change(|policy| policy.override_until = u64::MAX),
        // The source is outside all trunks.
        change(|policy| policy.trunks[1].sources.clear()),
    ];
    let mut gates = Gates::new(&policy());
    for policy in passing {
        gates.replace(&policy);
        assert_eq!(reply(&mut gates, &frame, NOW), None);
        assert_eq!(gates.judge(&frame, NOW).verdict, 0);
    }
    let silent = change(|policy| policy.trunks[1].profile.refuse = 0);
    gates.replace(&silent);
    assert_eq!(reply(&mut gates, &frame, NOW), None);
    assert_eq!(gates.judge(&frame, NOW).verdict, 1, "refused in silence");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn damaged_frame_is_dropped_and_never_answered() {
    let mut gates = Gates::new(&policy());
    let mut damaged = Layers::IPV4.frame(&invite("a"));
    let user_agent = damaged.windows(11).position(|window| window == b"an exchange").unwrap();
    damaged[user_agent] ^= 0x20;
    let mut header = Layers::IPV4.frame(&invite("b"));
    // The time to live, which is in the sum of the IPv4 header.
    header[22] ^= 1;
    let mut without = Layers::IPV4.frame(&invite("c"));
    without[40..42].fill(0);
    for frame in [&damaged, &header, &without] {
        assert_eq!(reply(&mut gates, frame, NOW), None);
        assert_eq!(reason(&gates.judge(frame, NOW)), Reason::BlockedNumber);
    }
    if can_answer() {
        assert_eq!(gates.kernel().reply_stats(1).unwrap().damaged, 6);
        let mut accepts = policy();
        accepts.trunks[1].profile.replies_without_checksum = 1;
        gates.replace(&accepts);
        assert!(reply(&mut gates, &without, NOW).is_some());
        assert_eq!(reply(&mut gates, &damaged, NOW), None);
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn replies_end_at_the_limit_of_a_second() {
    let mut policy = policy();
    policy.trunks[1].profile.replies_per_second = 3;
    let mut gates = Gates::new(&policy);
    let mut answered = |time: u64| {
        let calls = (0..10).map(|call| Layers::IPV4.frame(&invite(&format!("{time}-{call}"))));
        calls.filter(|frame| reply(&mut gates, frame, time).is_some()).count()
    };
    let expected = if can_answer() { 3 } else { 0 };
    assert_eq!(answered(NOW), expected);
    assert_eq!(answered(NOW + SECOND - 1), 0, "the same second");
    assert_eq!(answered(NOW + SECOND), expected);
    if can_answer() {
        assert_eq!(gates.kernel().reply_stats(1).unwrap().limited, 24);
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn call_that_comes_again_gets_the_same_reply_and_is_counted() {
    let mut gates = Gates::new(&policy());
    let frame = Layers::IPV4.frame(&invite("a"));
    let first = reply(&mut gates, &frame, NOW);
    assert_eq!(first.is_some(), can_answer());
    assert_eq!(reply(&mut gates, &frame, NOW + SECOND), first);
    if has_driver_path() {
        let stats = gates.kernel().reply_stats(1).unwrap();
        assert_eq!(stats, ReplyStats { sent: 2, repeated: 1, ..ReplyStats::default() });
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn refused_first_fragment_gets_no_reply() {
    let mut gates = Gates::new(&policy());
    let mut message = invite("a");
    message.resize(1_200, b'x');
    let parts = fragments(&Layers::IPV4.frame(&message), 7, &[1_000]);
    assert_eq!(reply(&mut gates, &parts[0], NOW), None);
    assert_eq!(reason(&gates.judge(&parts[0], NOW)), Reason::BlockedNumber);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn event_of_an_answered_call_has_the_code_and_the_call_id() {
    let mut gates = Gates::new(&policy());
    let is_answered = reply(&mut gates, &Layers::IPV4.frame(&invite("call-7")), NOW).is_some();
    assert_eq!(is_answered, can_answer());
    let (refused, passed) = gates.kernel().drain_events().unwrap();
    assert_eq!((refused.len(), passed.len()), (1, 0));
    assert_eq!(refused[0].call_id(), b"call-7");
    let expected = if is_answered { Code::BusyEverywhere as u8 } else { 0 };
    assert_eq!(refused[0].event.reply, expected);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn refusal_of_a_block_wins_over_that_of_the_trunk() {
    let mut gates = Gates::new(&policy());
    let number = Subject::Number(Number::e164(Digits::parse(CALLER).unwrap()));
    let prefix = Subject::Prefix(Digits::parse("62812").unwrap());
    let mut answered = |subject, refuse: Option<Refuse>, trunk: u8| {
        let mut policy = policy();
        policy.blocks.clear();
        policy.block(subject, 0, refuse.map_or(0, Refuse::flags));
        policy.trunks[1].profile.refuse = trunk;
        gates.replace(&policy);
        let reply = reply(&mut gates, &Layers::IPV4.frame(&invite("a")), NOW);
        assert_eq!(gates.judge(&Layers::IPV4.frame(&invite("a")), NOW).verdict, 1);
        reply.map(|reply| reply[8..11].to_owned())
    };
    for subject in [number, prefix] {
        for (own, trunk, expected) in [
            (None, Code::Decline, Some("603")),
            (Some(Refuse::Reply(Code::BusyHere)), Code::Decline, Some("486")),
            (Some(Refuse::Reply(Code::TemporarilyUnavailable)), Code::BusyEverywhere, Some("480")),
            (Some(Refuse::Drop), Code::Decline, None),
        ] {
            let expected = expected.filter(|_| can_answer()).map(str::to_owned);
            assert_eq!(answered(subject, own, trunk as u8), expected, "{own:?}");
        }
        // A trunk that is silent stays silent.
        assert_eq!(answered(subject, Some(Refuse::Reply(Code::BusyHere)), 0), None);
    }
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn refusal_is_that_of_the_prefix_that_refused_also_if_longer_ones_hide_it() {
    let prefix = |digits| Subject::Prefix(Digits::parse(digits).unwrap());
    let mut policy = policy();
    policy.blocks.clear();
    // Longer blocks that have ended, each with a refusal of its own, and a shorter one that is live.
    let ended = Refuse::Reply(Code::Decline).flags();
    for digits in ["628123456789", "6281234567", "628123"] {
        policy.block(prefix(digits), 1, ended);
    }
    policy.block(prefix("62812"), 0, Refuse::Reply(Code::BusyHere).flags());
    policy.block(prefix("62"), 0, Refuse::Reply(Code::Forbidden).flags());
    let mut gates = Gates::new(&policy);
    let frame = Layers::IPV4.frame(&invite("a"));
    let reply = reply(&mut gates, &frame, NOW);
    assert_eq!(reply.is_some(), can_answer());
    assert!(reply.is_none_or(|reply| reply.starts_with("SIP/2.0 486 ")));
    assert_eq!(reason(&gates.judge(&frame, NOW)), Reason::BlockedPrefix);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn reply_goes_to_one_host_alone() {
    let mut gates = Gates::new(&policy());
    let whole = Layers::IPV4.frame(&invite("a"));
    assert_eq!(reply(&mut gates, &whole, NOW).is_some(), can_answer());
    // The Ethernet source is a group, which no sum covers.
    let mut group = whole.clone();
    group[6] |= 1;
    assert_eq!(reply(&mut gates, &group, NOW), None);
    for (via, is_answered) in [
        ("10.0.0.1;branch=z9;received", false),
        ("10.0.0.1;branch=z9;received,SIP/2.0/UDP b", false),
        ("10.0.0.1;maddr,SIP/2.0/UDP b", false),
        ("10.0.0.1;branch=z9;received=192.0.2.1", false),
        ("10.0.0.1;branch=z9,SIP/2.0/UDP b;received=192.0.2.1;maddr=192.0.2.2", true),
    ] {
        let text = String::from_utf8(invite("b")).unwrap();
        let text = text.replace("10.0.0.1:5070;branch=z9hG4bKb;rport", via);
        let frame = Layers::IPV4.frame(text.as_bytes());
        let expected = is_answered && can_answer();
        assert_eq!(reply(&mut gates, &frame, NOW).is_some(), expected, "{via}");
    }
}

/// Returns [`policy`] with another path of its trunk.
fn with_path(reply_path: u8, without_daemon: u8) -> Policy {
    let mut policy = policy();
    policy.trunks[1].profile.reply_path = reply_path;
    policy.trunks[1].profile.without_daemon = without_daemon;
    policy
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn both_paths_send_the_same_bytes() {
    let mut gates = Gates::new(&policy());
    for layers in Layers::ALL {
        let mut policy = policy();
        policy.trunks[1].sources = vec![([0; 16], 0)];
        gates.replace(&policy);
        gates.set_answered_by_daemon(false);
        let frame = layers.frame(&invite("a"));
        let event = gates.judge(&frame, NOW);
        let by_driver = gates.reply().map(<[u8]>::to_vec);
        assert_eq!((event.reply != 0, by_driver.is_some()), (can_answer(), can_answer()));
        assert_eq!(event.flags & EVENT_BY_DAEMON == 0, has_driver_path());
        for reply_path in [REPLY_PATH_AUTO, REPLY_PATH_DAEMON] {
            policy.trunks[1].profile.reply_path = reply_path;
            gates.replace(&policy);
            gates.set_answered_by_daemon(reply_path == REPLY_PATH_AUTO);
            let event = gates.judge(&frame, NOW);
            assert_eq!(event.flags & EVENT_BY_DAEMON != 0, can_answer());
            assert_eq!(gates.reply(), by_driver.as_deref(), "path {reply_path}");
        }
    }
}

// One request, for the first look and in fragments for the second.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn datagram_of_the_second_look_gets_the_reply_of_the_first() {
    let mut gates = Gates::new(&policy());
    let whole = Layers::IPV4.frame(&invite("a"));
    let first = reply(&mut gates, &whole, NOW);
    if !gates.add_second_look() {
        return;
    }
    // A first fragment without the method is left to the second look.
    let again = |gates: &mut Gates, message: &[u8]| {
        gates.judge(&fragments(&Layers::IPV4.frame(message), 7, &[8])[0], NOW);
        let event = gates.judge_again(&Layers::IPV4.frame(message), NOW).expect("left");
        assert_eq!(reason(&event), Reason::BlockedNumber);
        let reply = gates.reply().map(|frame| String::from_utf8_lossy(&frame[42..]).into_owned());
        (event.reply, reply)
    };
    gates.replace(&policy());
    let (code, reply) = again(&mut gates, &invite("a"));
    assert_eq!(code, Code::BusyEverywhere as u8);
    assert!(!can_answer() || reply == first);
    // As many headers as an INVITE of an IMS has.
    let long = String::from_utf8(invite("b")).unwrap();
    let long = long.replace("User-Agent: ", &format!("User-Agent: {}", "x".repeat(2_500)));
    let (_, reply) = again(&mut gates, long.as_bytes());
    assert!(reply.unwrap().starts_with("SIP/2.0 600 "));
    for (keys, code) in [
        (with_path(REPLY_PATH_DRIVER, DROPPED_WITHOUT_DAEMON), 0),
        (with_path(REPLY_PATH_DAEMON, PASSES_WITHOUT_DAEMON), Code::BusyEverywhere as u8),
    ] {
        gates.replace(&keys);
        assert_eq!(again(&mut gates, &invite("c")).0, code);
    }
    // A damaged datagram is refused, and the daemon finds the damage.
    gates.replace(&policy());
    let mut damaged = Layers::IPV4.frame(&invite("d"));
    let last = damaged.len() - 30;
    gates.judge(&fragments(&damaged, 7, &[8])[0], NOW);
    damaged[last] ^= 0x20;
    assert!(gates.judge_again(&damaged, NOW).is_some_and(|event| event.reply != 0));
    assert_eq!(gates.reply(), None);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn without_a_daemon_the_first_verdict_of_an_attempt_holds() {
    let mut gates = Gates::new(&policy());
    let frame = |call: &str| Layers::IPV4.frame(&invite(call));
    let is_always = !has_driver_path();
    for (path, without_daemon, by_daemon, passes) in [
        (REPLY_PATH_AUTO, PASSES_ON_SOME_INTERFACES, true, true),
        (REPLY_PATH_AUTO, PASSES_ON_SOME_INTERFACES, false, is_always),
        (REPLY_PATH_DAEMON, PASSES_WITHOUT_DAEMON, false, true),
        (REPLY_PATH_DAEMON, DROPPED_WITHOUT_DAEMON, false, false),
        (REPLY_PATH_DRIVER, DROPPED_WITHOUT_DAEMON, true, false),
    ] {
        gates.replace(&with_path(path, without_daemon));
        gates.set_answered_by_daemon(by_daemon);
        gates.set_daemon(true);
        assert_eq!(gates.judge(&frame("a"), NOW).verdict, 1);
        gates.set_daemon(false);
        let event = gates.judge(&frame("b"), NOW);
        let expected = if passes { Reason::WithoutDaemon } else { Reason::BlockedNumber };
        assert_eq!((reason(&event), event.verdict), (expected, u8::from(!passes)), "path {path}");
        assert_eq!(event.policy_verdict, 1);
        // Refused before, so it may have got its reply.
        assert_eq!(gates.judge(&frame("a"), NOW + SECOND).verdict, 1);
        // With a daemon again, an attempt that passed may ring.
        gates.set_daemon(true);
        let event = gates.judge(&frame("b"), NOW + SECOND);
        let expected = if passes { Reason::AttemptPassed } else { Reason::BlockedNumber };
        assert_eq!(reason(&event), expected, "path {path}");
    }
    // A block that wants silence gets it.
    let mut silent = with_path(REPLY_PATH_DAEMON, PASSES_WITHOUT_DAEMON);
    silent.blocks.clear();
    let number = Subject::Number(Number::e164(Digits::parse(CALLER).unwrap()));
    silent.block(number, 0, Refuse::Drop.flags());
    gates.replace(&silent);
    gates.set_daemon(false);
    assert_eq!(reason(&gates.judge(&frame("c"), NOW)), Reason::BlockedNumber);
}
