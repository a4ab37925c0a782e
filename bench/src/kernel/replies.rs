//! A reply beside a drop: the filter as it is shipped, with programs that answer, one call at a time.
//!
//! A reply shortens the frame, so a run cannot be repeated inside the kernel. Each call is a test run of its own, and
//! the rows take turns.

use std::time::Duration;

use anyhow::{Result, ensure};
use filter_common::answer::code::Code;
use filter_common::number::{Digits, Number};
use palang::datapath::Replay;
use palang::model::policy::{Policy, Subject};
use palang_tests::common::packet::{Layers, crlf};

use super::policy::BLOCKED;

/// Calls of each row in a round.
const CALLS: u32 = 2_000;

/// One line of the table.
pub struct Row {
    /// Its label.
    pub name: &'static str,
    replay: Replay,
    is_answered: bool,
    calls: u32,
    times: Vec<Duration>,
}

impl Row {
    fn new(name: &'static str, refuse: Option<u8>) -> Result<Row> {
        let mut policy = Policy::default();
        if let Some(code) = refuse {
            let number = Digits::parse(BLOCKED).map(Number::e164).unwrap_or(Number::NONE);
            policy.block(Subject::Number(number), 0, 0);
            policy.trunks[0].profile.refuse = code;
            policy.trunks[0].profile.replies_per_second = u32::MAX;
        }
        let is_answered = refuse.is_some_and(|code| code != 0);
        Ok(Row { name, replay: Replay::load(&policy)?, is_answered, calls: 0, times: Vec::new() })
    }

    /// Runs one round. Fails if a call is not answered that should be, or otherwise.
    pub fn run(&mut self) -> Result<()> {
        for _ in 0..CALLS {
            self.calls += 1;
            let frame = invite(self.calls);
            let (judged, took) = self.replay.judge_and_time(&frame, 1)?;
            let can_answer = self.replay.no_replies().is_none();
            ensure!(judged.reply.is_some() == (self.is_answered && can_answer), "{}", self.name);
            self.times.push(took);
        }
        Ok(())
    }

    /// Returns the median time of a call in ns.
    pub fn median(&self) -> f64 {
        let mut times = self.times.clone();
        times.sort_unstable();
        times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_nanos() as f64)
    }
}

/// Returns an INVITE of the blocked number, each with a Call-ID of its own.
fn invite(call: u32) -> Vec<u8> {
    Layers::IPV4.frame(&crlf(&format!(
        "INVITE sip:112@psap.example.id;user=phone SIP/2.0\n\
         Via: SIP/2.0/UDP 198.51.100.23:5060;branch=z9hG4bK74bf9;rport\nMax-Forwards: 70\n\
         From: <sip:+{BLOCKED}@198.51.100.23;user=phone>;tag=1\nTo: <sip:112@psap.example.id>\n\
         Call-ID: {call:08x}4b4c76e66710@198.51.100.23\nCSeq: 1 INVITE\nContact: <sip:198.51.100.23:5060>\n\
         Content-Length: 0\n\n"
    )))
}

/// Returns the rows.
///
/// # Errors
/// Returns the error of a program that does not load.
pub fn rows() -> Result<Vec<Row>> {
    Ok(vec![
        Row::new("innocent, new → pass", None)?,
        Row::new("blocked, new → drop", Some(0))?,
        Row::new("blocked, new → reply", Some(Code::BusyEverywhere as u8))?,
    ])
}
