//! The record of a frame. Its JSON form is a contract.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use filter_common::abi::{EVENT_FROM, EVENT_PAI, Event, TRANSPORT_TCP, TRANSPORT_UDP, Verdict};
use filter_common::answer::code::Code;
use filter_common::frame::Packet;
use filter_common::number::Number;
use filter_common::reason::Reason;
use jiff::Timestamp;
use serde::Serialize;

use crate::api::udp_payload::udp_payload;
use crate::model::attempt_identity;
use crate::model::policy::Policy;
use crate::replay::message::Message;

/// One frame and its verdict. Unknown fields are null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Path of the capture.
    pub file: String,
    /// Number in the capture, from 1.
    pub frame: u64,
    /// Capture time, RFC 3339 in UTC.
    pub time: String,
    /// Source address and port.
    pub src: Option<String>,
    /// Destination address and port.
    pub dst: Option<String>,
    /// SIP method of a request.
    pub method: Option<String>,
    /// Call-ID.
    pub call_id: Option<String>,
    /// Whether it is an INVITE that begins a call.
    pub initial: Option<bool>,
    /// `udp` or `tcp`.
    pub transport: Option<&'static str>,
    /// Tunnels that were removed from the packet, the outermost first: `GTP-U`.
    pub tunnel: Option<String>,
    /// Name of the trunk, if the message was read.
    pub trunk: Option<String>,
    /// Whether the `To` has a tag.
    pub to_tag: Option<bool>,
    /// The caller number.
    pub caller: Option<String>,
    /// Header in which the caller was looked for: `from` or `pai`.
    pub identity: Option<&'static str>,
    /// `pass` or `drop`.
    pub verdict: &'static str,
    /// The verdict without observe and override, if it differs.
    pub policy_verdict: Option<&'static str>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// The reason, from the closed list.
    pub reason: &'static str,
    /// SIP status code of the reply.
    pub reply: Option<u16>,
    /// The identity that all legs of the attempt share, and its hash: `icid 1f3c90aa`.
    pub attempt_identity: Option<String>,
    /// The SIP message of the reply.
    pub reply_message: Option<String>,
    /// Time of the frame in nanoseconds since 1970.
    #[serde(skip)]
    pub nanoseconds: u64,
    /// The frame of the reply.
    #[serde(skip)]
    pub reply_frame: Option<Vec<u8>>,
}

impl Record {
    /// Creates the record of a frame.
    #[must_use]
    pub fn new(
        file: &str,
        frame: u64,
        time: u64,
        packet: &Packet,
        message: Option<&Message>,
        event: &Event,
        policy: &Policy,
    ) -> Record {
        let reason = Reason::from_number(event.reason).unwrap_or(Reason::NoPolicy);
        let method = message.map(|message| message.method.clone());
        let is_invite = method.as_deref() == Some("INVITE");
        let to_tag = message.and_then(|message| message.to_tag);
        let was_read = reason >= Reason::BadRequestLine || reason == Reason::InDialog;
        // If trunks are configured, index 0 is a source outside all of them.
        let outside = policy.settings.trunks_configured != 0 && event.trunk == 0;
        let trunk = policy.trunks.get(usize::from(event.trunk)).filter(|_| was_read && !outside);
        let policy_verdict = verdict(event.policy_verdict);
        let verdict = verdict(event.verdict);
        let transport = match packet.transport {
            TRANSPORT_UDP => Some("udp"),
            TRANSPORT_TCP => Some("tcp"),
            _ => None,
        };
        let key = &packet.fragment;
        Record {
            file: file.to_owned(),
            frame,
            time: Timestamp::from_nanosecond(time.into())
                .map(|time| time.to_string())
                .unwrap_or_default(),
            src: transport.map(|_| address(key.source, packet.source_port)),
            dst: transport.map(|_| address(key.destination, packet.destination_port)),
            initial: to_tag.filter(|_| is_invite).map(|to_tag| !to_tag),
            call_id: message.and_then(|message| message.call_id.clone()),
            method,
            transport,
            tunnel: None,
            trunk: trunk.map(|trunk| trunk.name.clone()),
            to_tag,
            caller: (event.number != Number::NONE).then(|| event.number.to_string()),
            identity: match event.identity {
                EVENT_FROM => Some("from"),
                EVENT_PAI => Some("pai"),
                _ => None,
            },
            verdict,
            policy_verdict: (policy_verdict != verdict).then_some(policy_verdict),
            rule: policy.rule_name(event.rule),
            reason: reason.name(),
            reply: Code::from_number(event.reply).map(Code::status),
            attempt_identity: attempt_identity::shown(event.attempt_identity),
            reply_message: None,
            nanoseconds: time,
            reply_frame: None,
        }
    }

    /// Adds the frame of the reply.
    #[must_use]
    pub fn with_reply(mut self, frame: Option<Vec<u8>>) -> Record {
        let text = |frame: &Vec<u8>| {
            udp_payload(frame).map(|text| String::from_utf8_lossy(text).into_owned())
        };
        self.reply_message = frame.as_ref().and_then(text);
        self.reply_frame = frame;
        self
    }

    /// Checks whether an INVITE begins in this frame.
    #[must_use]
    pub fn is_invite(&self) -> bool {
        self.method.as_deref() == Some("INVITE")
    }
}

fn verdict(number: u8) -> &'static str {
    Verdict::from_number(number).unwrap_or(Verdict::Pass).name()
}

fn address(address: [u8; 16], port: u16) -> String {
    let address = Ipv6Addr::from(address);
    let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
    SocketAddr::new(address, port).to_string()
}
