//! Call records and live calls.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::udp_payload::udp_payload;

/// A line of `GET /v1/calls?since=&caller=&call_id=&verdict=&reason=&trunk=&unread=&limit=`, newest first: one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Call {
    /// Its number.
    pub id: u64,
    /// When it came.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// Caller number; null where none was read.
    pub caller: Option<String>,
    /// Name of the trunk; null: outside every trunk.
    pub trunk: Option<String>,
    /// Source address and port.
    pub source: String,
    /// Call-ID, cut at 128 bytes; null where none was read.
    pub call_id: Option<String>,
    /// `from` or `pai`: which header named the caller.
    pub identity: Option<String>,
    /// Its verdict.
    pub verdict: String,
    /// Its verdict without observe and override.
    pub policy_verdict: String,
    /// Its reason, from the closed list.
    pub reason: String,
    /// The rule that decided, by its number; 0: none.
    pub rule: u64,
    /// Number of retransmissions; known 70 s after the attempt came.
    pub repeats: u32,
    /// Attempts that this record counts: 1, or in a flood this one and further refusals of the same
    /// caller within the same minute.
    #[serde(default = "one")]
    pub attempts: u64,
    /// Value of `From` or `P-Asserted-Identity` where the caller could not be read, cut at 128 bytes. Below the
    /// role operate its letters and digits are masked.
    #[serde(default)]
    pub unread: Option<String>,
    /// SIP status code of the reply to the refused call; null: no reply.
    #[serde(default)]
    pub reply: Option<u16>,
}

/// Returns 1, the default of `attempts`: records of an older daemon lack the field.
fn one() -> u64 {
    1
}

/// `GET /v1/calls/{id}`: one attempt with its INVITE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CallShown {
    /// Its record.
    pub call: Call,
    /// Its INVITE; null where it was not kept, or is deleted already.
    pub evidence: Option<Evidence>,
}

/// The INVITE of a refused attempt, as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Evidence {
    /// Number of its call; 0: it is not stored yet, or not at all.
    pub call: u64,
    /// When it came.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// Length of the frame in bytes; the kept frame is cut at 2,048.
    pub frame_len: u32,
    /// The frame from its Ethernet header on, as base64 (RFC 4648 §4).
    pub frame: String,
    /// The SIP message in it, for people: bytes that are not UTF-8 are replaced.
    pub message: String,
}

impl Evidence {
    /// Encodes the frame of a call.
    #[must_use]
    pub fn new(call: u64, time: Timestamp, frame_len: u32, frame: &[u8]) -> Evidence {
        let message = udp_payload(frame).unwrap_or_default();
        Evidence {
            call,
            time,
            frame_len,
            frame: BASE64_STANDARD.encode(frame),
            message: String::from_utf8_lossy(message).into_owned(),
        }
    }

    /// Returns the bytes of the frame; `None` if they are not base64.
    #[must_use]
    pub fn bytes(&self) -> Option<Vec<u8>> {
        BASE64_STANDARD.decode(&self.frame).ok()
    }
}

/// A line of `GET /v1/calls/live?evidence=`: attempts that are judged from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Live {
    /// An attempt; its `id` is 0, because it is not stored yet.
    Call(Box<Call>),
    /// The INVITE of a refused one, before or after its line; only where it was asked for.
    Evidence(Box<Evidence>),
    /// Once a second: the number of attempts without a line.
    Lost(Lost),
}

/// Attempts without a record or a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lost {
    /// Refused attempts without a record, since the maps were made.
    pub refused: u64,
    /// Passed attempts without a record, thinned ones included.
    pub passed: u64,
    /// Refused attempts of a flood that are only counted, by trunk.
    #[serde(default)]
    pub thinned: u64,
    /// Attempts that this client was too slow to receive, since it connected.
    pub missed: u64,
    /// INVITEs of refused attempts that were not kept, since the maps were made; null: they were not
    /// asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<u64>,
}
