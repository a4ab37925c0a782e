//! The second look: what each packet to a socket pays, and what a datagram pays that it judges.

use anyhow::{Result, ensure};
use filter_common::reason::Reason;
use palang_tests::common::packet::{Layers, crlf, fragments};

use super::packets;
use super::policy;
use super::programs::{NULL_AGAIN, SECOND_LOOK, Stack};
use super::rounds::Rounds;

/// `SK_DROP` and `SK_PASS` (`enum sk_action`, Linux `include/uapi/linux/bpf.h`).
const SK_DROP: u32 = 0;
const SK_PASS: u32 = 1;

/// Bytes of a datagram in its first fragment.
const FIRST_FRAGMENT: usize = 1480;
/// Filling in the headers of a long INVITE: enough for a second fragment.
const FILLING: usize = 1600;

/// One line of the table.
pub struct Row {
    /// Its label.
    pub name: &'static str,
    program: &'static str,
    frame: Vec<u8>,
    /// Why the second look judges it; `None`: it does not.
    reason: Option<Reason>,
    /// ns per packet of each round.
    pub rounds: Rounds,
}

impl Row {
    fn new(name: &'static str, frame: Vec<u8>, reason: Option<Reason>) -> Row {
        Row { name, program: SECOND_LOOK, frame, reason, rounds: Rounds::default() }
    }

    /// Runs one round of N test runs. Fails if the second look judges what it should not, or otherwise.
    pub fn run(&mut self, stack: &mut Stack, repeat: u32) -> Result<()> {
        if self.reason.is_some() {
            // The first look leaves it to the second for a minute.
            let parts = fragments(&self.frame, 7, &[FIRST_FRAGMENT]);
            stack.leave(&parts[0])?;
        }
        stack.events.discard();
        let count = |stack: &Stack| -> Result<u64> {
            let mut judged = 0;
            for reason in Reason::ALL.iter().filter(|reason| reason.is_attempt()) {
                judged += stack.maps.count(0, *reason)?;
            }
            Ok(judged)
        };
        let before = count(stack)?;
        let (time, action) = stack.run_again(self.program, &self.frame, repeat)?;
        let refuses = self.reason == Some(Reason::BlockedNumber);
        ensure!(action == if refuses { SK_DROP } else { SK_PASS }, "{}: {action}", self.name);
        let (counted, wanted) = (count(stack)? - before, self.reason.map_or(0, |_| repeat.into()));
        ensure!(counted == wanted, "{}: {counted} of {wanted} were judged", self.name);
        self.rounds.push(time);
        Ok(())
    }
}

/// Returns an INVITE with long headers, in one datagram.
fn long(number: &str) -> Vec<u8> {
    let filling = "x".repeat(FILLING);
    Layers::IPV4.frame(&crlf(&format!(
        "INVITE sip:112@psap.example.id;user=phone SIP/2.0\nX-Long: {filling}\n\
         From: <sip:+{number}@198.51.100.23;user=phone>;tag=1\nTo: <sip:112@psap.example.id>\n\
         Call-ID: a84b4c76e66710@198.51.100.23\nCSeq: 1 INVITE\n\n"
    )))
}

/// Changes the source port of a frame without options.
fn from_port(mut frame: Vec<u8>, port: u16) -> Vec<u8> {
    frame[34..36].copy_from_slice(&port.to_be_bytes());
    frame
}

/// Changes a frame without options to TCP.
fn tcp(mut frame: Vec<u8>) -> Vec<u8> {
    frame[23] = 6;
    frame
}

/// Returns the rows; the first one is the test run itself.
pub fn rows() -> Vec<Row> {
    // As long as a packet of speech (RFC 3550): 20 ms of G.711.
    let speech = Layers::IPV4.frame(&[0x80; 172]);
    let sip = packets::not_invite().bytes;
    let mut null = Row::new("null", speech.clone(), None);
    null.program = NULL_AGAIN;
    let innocent = Some(Reason::NotBlocked);
    vec![
        null,
        Row::new("TCP", tcp(speech.clone()), None),
        Row::new("speech, not noted, from another port", from_port(speech, 16_384), None),
        Row::new("long INVITE, innocent number", long(policy::INNOCENT), innocent),
        Row::new("long INVITE, blocked → drop", long(policy::BLOCKED), Some(Reason::BlockedNumber)),
        // After those that the first look leaves to the second.
        Row::new("SIP, not noted, from their port", sip, None),
    ]
}
