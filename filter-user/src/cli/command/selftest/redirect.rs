//! `palang selftest redirect`.

use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::{
    Block, Call, Changed, RedirectTest, RedirectTested, Replies, SetRedirect, Status, TestRedirect,
};
use crate::cli::input::{number, time};
use crate::cli::output::{self, Answer, Output};
use crate::exit::{Exit, Failure};

/// Test with a real call whether the carrier of a trunk follows 302
///
/// palang selftest redirect telkom --caller 0812-3456-7890
///
/// Call 112 from that telephone through that trunk. The gate answers this one number with 302 and the contact of the
/// trunk (`redirect` in palang.toml). All other calls go on as before.
/// The test is passed if the carrier acknowledges the reply, sends no other INVITE of this caller, and you hear the
/// announcement. Then the daemon accepts refuse = "302" for this trunk and contact.
/// The number is free again at the end in any case. Needs the daemon and the role admin.
///
/// Exit codes: 0 is passed, 1 is failed. The audit has the result.
///
/// Raw: trunk, contact, passed or failed, reason, time, author.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Name of the trunk
    trunk: String,
    /// The number of the telephone that calls
    #[arg(long, value_name = "NUMBER", value_parser = number::given)]
    caller: String,
    /// How long to wait for the call, at most 30m
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = time::seconds)]
    wait: u64,
    /// Whether you heard the announcement; without it the command asks
    #[arg(long, value_name = "yes|no")]
    heard: Option<Heard>,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Heard {
    Yes,
    No,
}

/// Interval of the looks at records and counters.
const LOOK: Duration = Duration::from_millis(500);
/// How long a carrier may take to send the call another way. Most do at once; silence is the reason for the others.
const AFTER_REPLY: Duration = Duration::from_secs(10);

/// Tests the redirection of a trunk.
///
/// # Errors
/// `Usage` if nobody can be asked, `Failed` if no call came or on Ctrl-C. Otherwise returns an error if the daemon refuses
/// or cannot be reached.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    if arguments.heard.is_none() && !io::stdin().is_terminal() {
        let message = "nobody can be asked here: add --heard yes or --heard no after a test call";
        return Err(Failure::new(Exit::Usage, message));
    }
    let failed = |error: io::Error| Failure::new(Exit::Failed, error);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    // From here on a signal only ends the wait: the number must be free again.
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        let open = |kind| signal(kind).map_err(failed);
        (
            open(SignalKind::interrupt())?,
            open(SignalKind::terminate())?,
            open(SignalKind::hangup())?,
        )
    };
    let before = replies(client, &arguments.trunk)?;
    let path = client::path(&["redirects", &arguments.trunk], &[]);
    let body = TestRedirect { number: arguments.caller.clone(), seconds: arguments.wait };
    let test: RedirectTest = client.post(&path, &body, client::LONG)?;
    eprintln!(
        "call 112 from {} through {} now, and listen. The call should go to {}",
        output::clean(&test.number),
        output::clean(&test.trunk),
        output::clean(&test.contact)
    );
    let (heard, wait) = (arguments.heard, Duration::from_secs(arguments.wait));
    let (watching, on) = (client.clone(), test.clone());
    let found = runtime.block_on(async {
        let watch = tokio::task::spawn_blocking(move || watch(&watching, &on, &before, wait, heard));
        tokio::select! {
            found = watch => found.unwrap_or_else(|error| Err(Failure::new(Exit::Internal, error))),
            _ = interrupt.recv() => Err(Failure::new(Exit::Failed, "interrupted: nothing was tested")),
            _ = terminate.recv() => Err(Failure::new(Exit::Failed, "ended: nothing was tested")),
            _ = hangup.recv() => Err(Failure::new(Exit::Failed, "ended: nothing was tested")),
        }
    });
    // A question that nobody answers does not hold the command.
    runtime.shutdown_background();
    free(client, &test)?;
    let (passed, why) = found?;
    let result = SetRedirect { contact: test.contact, passed, why };
    let tested: RedirectTested = client.put(&path, &result, client::LONG)?;
    arguments.output.print(&tested)?;
    Ok(if tested.passed { Exit::Done } else { Exit::Failed })
}

/// Ends the block of the test. It is not an error that it has ended by itself. Another block of the number stays.
fn free(client: &Client, test: &RedirectTest) -> Result<(), Failure> {
    let path = client::path(&["blocks", &test.number], &[]);
    match client.get::<Block>(&path, client::LONG).map_err(Failure::from) {
        Ok(block) if block.id == test.id => {}
        Ok(_) => return Ok(()),
        Err(failure) if failure.exit == Exit::NotFound => return Ok(()),
        Err(failure) => return Err(failure),
    }
    match client.delete::<Changed<Block>>(&path, client::LONG).map_err(Failure::from) {
        Err(failure) if failure.exit == Exit::NotFound => Ok(()),
        done => done.map(drop),
    }
}

/// Returns the counters of a trunk.
fn replies(client: &Client, trunk: &str) -> Result<Replies, Failure> {
    let status: Status = client.get(&client::path(&["status"], &[]), client::LONG)?;
    let found = status.replies.into_iter().find(|replies| replies.trunk == trunk);
    found.ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("the configuration has no [[trunk]] {trunk:?}"))
    })
}

/// Waits for the call and for what the carrier does then. Returns whether the test is passed, and why.
fn watch(
    client: &Client,
    test: &RedirectTest,
    before: &Replies,
    wait: Duration,
    heard: Option<Heard>,
) -> Result<(bool, String), Failure> {
    let begun = Instant::now();
    let mut seen = look(client, test, before)?;
    while seen.calls.is_empty() {
        if begun.elapsed() > wait {
            let message = format!("no call of {} came: nothing was tested", test.number);
            return Err(Failure::new(Exit::Failed, message));
        }
        thread::sleep(LOOK);
        seen = look(client, test, before)?;
    }
    eprintln!("the call came; the gate watches what the carrier does");
    let came = Instant::now();
    while came.elapsed() < AFTER_REPLY {
        thread::sleep(LOOK);
        seen = look(client, test, before)?;
        if let Some(why) = seen.another_way() {
            return Ok((false, why));
        }
    }
    if let Some(why) = seen.problem(test) {
        return Ok((false, why));
    }
    // The number is not blocked while a person thinks.
    free(client, test)?;
    let heard = heard.map_or_else(ask, Ok)?;
    // The carrier had time meanwhile.
    if let Some(why) = look(client, test, before)?.problem(test) {
        return Ok((false, why));
    }
    Ok(match heard {
        Heard::Yes => (true, "acknowledged, and the announcement was heard".to_owned()),
        Heard::No => (false, "acknowledged, but the announcement was not heard".to_owned()),
    })
}

fn ask() -> Result<Heard, Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Failed, error);
    loop {
        eprint!("did you hear the announcement? [y/n] ");
        io::stderr().flush().map_err(failed)?;
        let mut line = String::new();
        if io::stdin().lock().read_line(&mut line).map_err(failed)? == 0 {
            return Err(Failure::new(Exit::Failed, "no answer: nothing was tested"));
        }
        match line.trim() {
            "y" | "yes" => return Ok(Heard::Yes),
            "n" | "no" => return Ok(Heard::No),
            _ => {}
        }
    }
}

/// An attempt of the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Attempt {
    call_id: String,
    trunk: String,
    /// Why it passed; `None`: it was refused.
    passed: Option<String>,
    reply: Option<u16>,
}

/// Observations of the gate since the test began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// The attempts of the caller, oldest first.
    calls: Vec<Attempt>,
    /// Replies of the trunk, those that came again, and ACKs.
    sent: u64,
    repeated: u64,
    acks: u64,
}

impl Seen {
    /// Returns why the carrier does not follow the reply, as soon as it shows: it sends the call another way.
    fn another_way(&self) -> Option<String> {
        let (first, other) = (self.calls.first()?, self.calls.get(1)?);
        Some(format!(
            "the carrier does not follow it: after the reply to {} it sent another INVITE of the caller, {}",
            first.call_id, other.call_id
        ))
    }

    /// Returns why the test is not passed.
    fn problem(&self, test: &RedirectTest) -> Option<String> {
        let Attempt { call_id: call, trunk, passed, reply } = self.calls.first()?;
        if let Some(reason) = passed {
            return Some(format!("{call} was not refused: {reason}"));
        }
        if *trunk != test.trunk {
            return Some(format!("{call} came through {trunk}"));
        }
        match reply {
            Some(302) => {}
            Some(other) => return Some(format!("{call} was answered with {other}")),
            None => {
                return Some(format!(
                    "{call} got no reply: with the contact {} it may be longer than the INVITE (palang status)",
                    test.contact
                ));
            }
        }
        if let Some(why) = self.another_way() {
            return Some(why);
        }
        if self.repeated > 0 {
            return Some("the INVITE came again, so the reply did not arrive".to_owned());
        }
        (self.acks < self.sent).then(|| "the carrier sent no ACK for the reply".to_owned())
    }
}

fn look(client: &Client, test: &RedirectTest, before: &Replies) -> Result<Seen, Failure> {
    let since = test.begun.to_string();
    let query = [("since", Some(since.as_str())), ("caller", Some(test.number.as_str()))];
    let mut calls = Vec::new();
    client.list(&client::path(&["calls"], &query), |call: Call| {
        let unknown = || "-".to_owned();
        calls.push(Attempt {
            call_id: call.call_id.unwrap_or_else(unknown),
            trunk: call.trunk.unwrap_or_else(unknown),
            passed: (call.verdict == "pass").then_some(call.reason),
            reply: call.reply,
        });
        ControlFlow::Continue(())
    })?;
    calls.reverse();
    let now = replies(client, &test.trunk)?;
    Ok(Seen {
        calls,
        sent: now.sent.saturating_sub(before.sent),
        repeated: now.repeated.saturating_sub(before.repeated),
        acks: now.acks.saturating_sub(before.acks),
    })
}

impl Answer for RedirectTested {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        let (trunk, contact) = (output::clean(&self.trunk), output::clean(&self.contact));
        let why = output::clean(&self.why);
        if !self.passed {
            return writeln!(writer, "FAILED  trunk {trunk}, 302 to {contact}: {why}");
        }
        writeln!(writer, "PASSED  trunk {trunk}, 302 to {contact}: {why}")?;
        writeln!(
            writer,
            "now set refuse = \"302\" in [[trunk]] {trunk}, then: systemctl reload palang"
        )
    }

    fn raw(&self) -> Vec<Vec<String>> {
        let result = if self.passed { "passed" } else { "failed" };
        vec![vec![
            self.trunk.clone(),
            self.contact.clone(),
            result.to_owned(),
            self.why.clone(),
            self.time.to_string(),
            self.author.clone(),
        ]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carrier_that_does_not_follow_fails_with_the_reason() {
        let test = RedirectTest {
            id: uuid::Uuid::nil(),
            trunk: "telkom".to_owned(),
            contact: "sip:a@192.0.2.9".to_owned(),
            number: "6281".to_owned(),
            begun: jiff::Timestamp::UNIX_EPOCH,
        };
        let call = |id: &str, reply| Attempt {
            call_id: id.to_owned(),
            trunk: "telkom".to_owned(),
            passed: None,
            reply,
        };
        let good = Seen { calls: vec![call("a", Some(302))], sent: 1, repeated: 0, acks: 1 };
        assert_eq!(good.problem(&test), None);
        assert_eq!(Seen::default().problem(&test), None, "no call yet");
        for (seen, why) in [
            (Seen { acks: 0, ..good.clone() }, "no ACK"),
            (Seen { sent: 2, repeated: 1, ..good.clone() }, "came again"),
            (
                Seen {
                    calls: vec![Attempt { passed: Some("grace".to_owned()), ..call("a", None) }],
                    ..good.clone()
                },
                "a was not refused: grace",
            ),
            (
                Seen {
                    calls: vec![Attempt { trunk: "other".to_owned(), ..call("a", Some(302)) }],
                    ..good.clone()
                },
                "came through other",
            ),
            (Seen { calls: vec![call("a", Some(600))], ..good.clone() }, "answered with 600"),
            (
                Seen { calls: vec![call("a", None)], sent: 0, ..good.clone() },
                "longer than the INVITE",
            ),
            (
                Seen { calls: vec![call("a", Some(302)), call("b", Some(302))], ..good.clone() },
                "after the reply to a it sent another INVITE of the caller, b",
            ),
        ] {
            let found = seen.problem(&test).expect(why);
            assert!(found.contains(why), "{found}");
        }
    }
}
