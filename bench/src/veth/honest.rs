//! Honest callers: a fixed number of INVITEs per second, and when each was answered.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::unistd::gettid;
use palang_tests::lab::{GATE, TRUNK};

use super::invites::HOST;
use super::{Bench, SENDER_CPU, cpu, must};

/// An answer after this time does not count: the caller would retransmit (T1 of RFC 3261 §17.1.1.1).
pub const IN_TIME: Duration = Duration::from_millis(500);

/// Outcome of the calls.
pub struct Answers {
    /// Number of calls.
    pub calls: usize,
    /// Delays of the answers in time, shortest first.
    pub delays: Vec<Duration>,
}

impl Answers {
    /// Returns the share that was answered in time.
    pub fn share(&self) -> f64 {
        self.delays.len() as f64 / self.calls.max(1) as f64
    }

    /// Returns a percentile of the delays.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let last = self.delays.len().checked_sub(1)?;
        self.delays.get(last * percent / 100).copied()
    }
}

/// Makes calls for a given time.
pub fn call(bench: &Bench, per_second: u32, time: Duration) -> Result<Answers> {
    let socket = bench.lab.in_trunk(|| UdpSocket::bind((TRUNK, 0)))?;
    socket.connect((GATE, 5060))?;
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| calls(bench, &socket, per_second, time));
        caller.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn calls(bench: &Bench, socket: &UdpSocket, per_second: u32, time: Duration) -> Result<Answers> {
    cpu::pin_here(SENDER_CPU)?;
    // The flood runs on this CPU, too, and must not delay the callers.
    must(Command::new("chrt").args(["--fifo", "--pid", "1", &gettid().to_string()]))?;
    let port = socket.local_addr()?.port();
    let interval = Duration::from_secs(1) / per_second;
    let calls = (time.as_secs_f64() * f64::from(per_second)) as usize;
    let mut sent = HashMap::new();
    let mut answers = Answers { calls, delays: Vec::new() };
    let mut due = Instant::now();
    for index in 0..calls {
        receive(socket, due, &mut sent, &mut answers)?;
        bench.go_on()?;
        due += interval;
        sent.insert(index, Instant::now());
        // The receiver may refuse or lose it: that is what is measured.
        let _ = socket.send(invite(index, port).as_bytes());
    }
    receive(socket, Instant::now() + IN_TIME, &mut sent, &mut answers)?;
    answers.delays.sort_unstable();
    Ok(answers)
}

/// Receives answers until a given time.
fn receive(
    socket: &UdpSocket,
    until: Instant,
    sent: &mut HashMap<usize, Instant>,
    answers: &mut Answers,
) -> Result<()> {
    let mut buffer = [0; 2048];
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        // A timeout of zero would mean no timeout.
        socket.set_read_timeout(Some(left.max(Duration::from_micros(1))))?;
        // A timeout, or ICMP port unreachable: neither is an answer.
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let now = Instant::now();
        let message = String::from_utf8_lossy(&buffer[..length]);
        let call = message.lines().find_map(|line| line.strip_prefix("Call-ID: honest-"));
        let call = call.and_then(|call| call.split('-').next()?.parse().ok());
        let call = call.with_context(|| format!("an answer to nothing: {message}"))?;
        // An answer may arrive twice.
        let Some(at) = sent.remove(&call) else { continue };
        if now - at <= IN_TIME {
            answers.delays.push(now - at);
        }
    }
    Ok(())
}

fn invite(index: usize, port: u16) -> String {
    let caller = 6_282_100_000_000 + index;
    format!(
        "INVITE sip:112@{GATE} SIP/2.0\r\n\
         Via: SIP/2.0/UDP {TRUNK}:{port};branch=z9hG4bKhonest{index}\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:+{caller}@{HOST}>;tag={index}\r\n\
         To: <sip:112@{GATE}>\r\n\
         Call-ID: honest-{index}-{port}\r\n\
         CSeq: 1 INVITE\r\n\
         Contact: <sip:+{caller}@{TRUNK}:{port}>\r\n\
         Content-Length: 0\r\n\r\n"
    )
}
