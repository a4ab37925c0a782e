//! The measured cases: a program, its frames, and the expected result.

use std::rc::Rc;

use anyhow::{Result, ensure};
use filter_common::reason::Reason;
use palang::model::policy::Policy;
use palang_tests::common::packet::Layers;

use super::packets::{self, Packet};
use super::policy;
use super::programs::{Draw, Program, Stack};
use super::rounds::Rounds;

/// Number of refusal events that fit the ring: test runs without a reader must be shorter.
const RING: u32 = 4096;
/// `XDP_DROP` (`enum xdp_action`, Linux `include/uapi/linux/bpf.h`).
const XDP_DROP: u32 = 1;

/// How the attempts of a case differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempts {
    /// No attempts.
    None,
    /// Retransmissions: the frame is always the same.
    Repeated,
    /// Each frame has its own Call-ID.
    New,
}

/// One line of a table.
pub struct Case {
    /// Its label.
    pub name: String,
    /// The measured program.
    pub program: Program,
    /// Whether frames are drawn from [`Case::corpus`].
    pub is_drawn: bool,
    /// The frames.
    pub corpus: Rc<Vec<Packet>>,
    /// Upper bound of random numbers; 0: none.
    pub numbers: u32,
    /// Kind of attempts.
    pub attempts: Attempts,
    /// Expected reason; `None` if the program does not decide.
    pub reason: Option<Reason>,
    /// Pass events per second.
    pub pass_events: u32,
    /// Whether the events are read; then test runs are short.
    pub is_read: bool,
    /// ns per packet of each round.
    pub rounds: Rounds,
}

impl Case {
    fn new(name: &str, program: Program, packet: Packet, reason: Option<Reason>) -> Case {
        let attempts = if program.decides() && reason.is_some_and(|reason| reason.is_attempt()) {
            Attempts::Repeated
        } else {
            Attempts::None
        };
        Case {
            name: name.to_owned(),
            program,
            is_drawn: false,
            corpus: Rc::new(vec![packet]),
            numbers: 0,
            attempts,
            reason: reason.filter(|_| program.decides()),
            pass_events: 0,
            is_read: true,
            rounds: Rounds::default(),
        }
    }

    /// Returns the same case with drawn frames.
    fn drawn(mut self, attempts: Attempts) -> Case {
        self.is_drawn = true;
        if self.program.decides() {
            self.attempts = attempts;
        }
        self
    }

    fn corpus(mut self, corpus: &Rc<Vec<Packet>>) -> Case {
        self.corpus = Rc::clone(corpus);
        self
    }

    fn numbers(mut self, numbers: u32) -> Case {
        self.numbers = numbers;
        self
    }

    fn sends_events(&self) -> bool {
        self.attempts == Attempts::New
            && self.is_read
            && (self.pass_events != 0
                || self.reason.is_some_and(|reason| reason == Reason::BlockedNumber))
    }

    /// Runs one round of about N test runs. Fails if the filter returns another reason than the case
    /// expects.
    pub fn run(&mut self, stack: &mut Stack, policy: &mut Policy, repeat: u32) -> Result<()> {
        if policy.settings.pass_events_per_second != self.pass_events {
            policy.settings.pass_events_per_second = self.pass_events;
            stack.maps.set_settings(policy)?;
        }
        let variants: Vec<_> = self.corpus.iter().map(Packet::variant).collect();
        stack.set_corpus(&variants)?;
        stack.set_draw(Draw {
            variants: variants.len() as u32,
            numbers: self.numbers,
            new_attempts: u32::from(self.attempts == Attempts::New || self.is_base()),
            attempt: 0,
        })?;
        let first = &self.corpus[0];
        let frame = if self.is_drawn { first.padded() } else { first.bytes.clone() };
        let name = if self.is_drawn { self.program.varied() } else { Some(self.program.name()) };
        let name = name.unwrap_or_default();
        let length = if self.sends_events() { RING.min(repeat) } else { repeat };
        let runs = (repeat / length).max(1);
        let before = self.count(stack)?;
        let mut total = 0.0;
        for _ in 0..runs {
            if self.is_read {
                stack.events.discard();
            }
            let (time, action) = stack.run(name, &frame, length)?;
            total += time;
            let dropped = action == XDP_DROP;
            if self.program.decides() {
                let refuses = self.reason == Some(Reason::BlockedNumber);
                ensure!(dropped == refuses, "{}: dropped {dropped}, not {refuses}", self.name);
            } else {
                ensure!(dropped, "{}: {name} did not run to its end", self.name);
            }
        }
        if let Some(reason) = self.reason {
            let (counted, ran) = (self.count(stack)? - before, u64::from(runs * length));
            ensure!(
                counted == ran,
                "{} ({name}): of {ran} packets {counted} were {}",
                self.name,
                reason.name()
            );
        }
        self.rounds.push(total / f64::from(runs));
        Ok(())
    }

    /// Checks whether the case is only subtracted from others.
    fn is_base(&self) -> bool {
        self.is_drawn && !self.program.decides() && self.attempts == Attempts::New
    }

    fn count(&self, stack: &Stack) -> Result<u64> {
        let Some(reason) = self.reason else { return Ok(0) };
        Ok(stack.maps.count(0, reason)?)
    }
}

/// Returns the programs side by side, on the fixed INVITE of an innocent number and on a corpus.
pub fn programs() -> Vec<Case> {
    let packet = packets::fixed(Layers::IPV4, policy::INNOCENT);
    let corpus = Rc::new(packets::varied(policy::INNOCENT_START, 10..=14));
    let mut cases = Vec::new();
    for program in Program::ALL {
        let case = || Case::new(program.name(), program, packet.clone(), Some(Reason::NotBlocked));
        cases.push(case());
        if program.varied().is_some() {
            cases.push(case().drawn(Attempts::Repeated).corpus(&corpus));
        }
    }
    cases
}

/// Returns the filter's verdicts on all kinds of packets.
pub fn verdicts() -> Vec<Case> {
    let filter = Program::Palang;
    let invite = |layers, number: &str| packets::fixed(layers, number);
    let v4 = |number: &str| invite(Layers::IPV4, number);
    let case = |name: &str, packet, reason| Case::new(name, filter, packet, Some(reason));
    let drawn =
        |name: &str, number: &str, reason| case(name, v4(number), reason).drawn(Attempts::New);
    let mut cases = vec![
        case("not SIP", packets::not_sip(), Reason::NotInvite),
        case("SIP, not INVITE", packets::not_invite(), Reason::NotInvite),
        case("innocent number", v4(policy::INNOCENT), Reason::NotBlocked),
        case("allow by prefix", v4(policy::ALLOWED), Reason::AllowedPrefix),
        case("observe", v4(policy::OBSERVED), Reason::Observe),
        case("blocked → drop", v4(policy::BLOCKED), Reason::BlockedNumber),
        drawn("innocent number", policy::INNOCENT, Reason::NotBlocked),
        drawn("innocent number, pass events on", policy::INNOCENT, Reason::NotBlocked),
        drawn("blocked → drop", policy::BLOCKED, Reason::BlockedNumber),
        drawn("blocked → drop, nobody reads the events", policy::BLOCKED, Reason::BlockedNumber),
        drawn("blocked → drop, redials counted", policy::REDIALLED, Reason::BlockedNumber)
            .numbers(policy::REDIALLED_NUMBERS),
    ];
    for case in &mut cases {
        match case.name.as_str() {
            "innocent number, pass events on" => case.pass_events = u32::MAX,
            "blocked → drop, nobody reads the events" => case.is_read = false,
            _ => {}
        }
    }
    let names = ["IPv4", "IPv4, VLAN", "IPv4, two VLANs", "IPv6", "IPv6, VLAN", "IPv6, two VLANs"];
    for (layers, name) in Layers::ALL.into_iter().zip(names) {
        let packet = invite(layers, policy::INNOCENT);
        cases.push(case(&format!("innocent number, {name}"), packet, Reason::NotBlocked));
    }
    cases
}

/// Returns the cases that are subtracted from the verdicts: only the test run, and drawing a frame
/// without and with a random number.
pub fn verdict_bases() -> [Case; 3] {
    let packet = packets::fixed(Layers::IPV4, policy::INNOCENT);
    let base = |name| Case::new(name, Program::Null, packet.clone(), None);
    let copied = |name| {
        let mut case = base(name).drawn(Attempts::New);
        case.attempts = Attempts::New;
        case
    };
    [
        base("null"),
        copied("copy"),
        copied("copy, a random number").numbers(policy::REDIALLED_NUMBERS),
    ]
}

/// Returns the whole filter with a full list, with each call from another number.
pub fn sizes(numbers: u32) -> [Case; 3] {
    let innocent = Rc::new(packets::varied(policy::INNOCENT_START, 12..=12));
    let blocked = Rc::new(packets::varied(policy::BLOCKED_START, 12..=12));
    let case = |name, program, reason, corpus: &Rc<Vec<Packet>>| {
        let packet = corpus[0].clone();
        let mut case = Case::new(name, program, packet, reason).drawn(Attempts::New);
        case.attempts = Attempts::New;
        case.corpus(corpus).numbers(numbers)
    };
    [
        case("copy", Program::Null, None, &innocent),
        case("innocent", Program::Palang, Some(Reason::NotBlocked), &innocent),
        case("blocked", Program::Palang, Some(Reason::BlockedNumber), &blocked),
    ]
}
