//! `palang monitor`.

use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use filter_common::abi::Verdict;
use filter_common::reason::Reason;

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::{Call, Live, Lost};
use crate::cli::input::time;
use crate::cli::output::call as call_output;
use crate::cli::output::capture_file::Capture;
use crate::cli::output::{self, Format, Output, Row as _, known};
use crate::exit::{Exit, Failure};

/// Show each attempt as it is judged, until Ctrl-C
///
/// palang monitor -t refuse -t unread
///
/// One line per attempt: time, verdict, reason, caller, trunk. A line with `lost` counts attempts
/// without a line, at the start and when the count grows. Raw: as `palang calls`, without `lost` lines.
///
/// `--write` saves the INVITEs of all refused attempts, regardless of `-t`, in a capture for Wireshark
/// and `palang replay`. Each is in the file at once. Meanwhile the kernel keeps INVITEs even without
/// [evidence] in palang.toml, and the audit records it. Needs the role operate.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only attempts of this type; may be repeated [default: all]
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    types: Vec<Type>,
    /// Also show source, rule and Call-ID
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Stop after N attempts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Write the INVITEs of refused attempts to this new pcapng file; only its owner can read it
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Write at most N bytes
    #[arg(long, value_name = "N", requires = "write", default_value_t = 64 << 20)]
    max_bytes: u64,
    /// Write at most N INVITEs
    #[arg(long, value_name = "N", requires = "write", default_value_t = 10_000)]
    max_count: u64,
    #[command(flatten)]
    output: Output,
}

/// Outcome of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Type {
    /// Refused
    Refuse,
    /// Passed after a decision
    Pass,
    /// Passed, because the caller could not be read with certainty
    Unread,
}

impl Type {
    fn of(call: &Call) -> Type {
        let reason = Reason::ALL.iter().find(|reason| reason.name() == call.reason);
        if call.verdict != Verdict::Pass.name() {
            Type::Refuse
        } else if reason.is_some_and(|reason| reason.is_unread()) {
            Type::Unread
        } else {
            Type::Pass
        }
    }
}

/// Prints attempts until the user or the reader ends it.
///
/// # Errors
/// `Failed` if a file cannot be written; otherwise returns an error if the daemon refuses, ends or cannot be
/// reached.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    let mut left = arguments.count;
    let mut known_lost = None;
    let mut capture = match &arguments.write {
        Some(path) => Some(Capture::create(path, arguments.max_bytes, arguments.max_count)?),
        None => None,
    };
    // Seconds to wait for the INVITEs of the attempts already printed.
    let mut ending = None;
    let mut failed = None;
    let query = [("evidence", capture.as_ref().map(|_| "true"))];
    let ended = client.list(&client::path(&["calls", "live"], &query), |line: Live| {
        let written = match line {
            Live::Evidence(evidence) => {
                let written = capture.as_mut().map_or(Ok(()), |capture| capture.put(&evidence));
                failed = written.err();
                return if failed.is_some() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                };
            }
            Live::Call(call) => {
                let wanted =
                    arguments.types.is_empty() || arguments.types.contains(&Type::of(&call));
                if !wanted || ending.is_some() {
                    return ControlFlow::Continue(());
                }
                left = left.map(|left| left - 1);
                print(arguments, &call)
            }
            Live::Lost(lost) => {
                ending = ending.map(|seconds: u32| seconds - 1);
                if known_lost == Some(lost) {
                    Ok(())
                } else {
                    known_lost = Some(lost);
                    print_lost(arguments.output.format, lost)
                }
            }
        };
        if left == Some(0) && ending.is_none() && capture.is_some() {
            ending = Some(2);
        }
        // An error may mean that the reader closed the output.
        let is_over = match &capture {
            Some(_) => ending == Some(0),
            None => left == Some(0),
        };
        if written.is_err() || is_over {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    if let Some(failure) = failed {
        return Err(failure);
    }
    if let Some(capture) = capture {
        capture.finish();
    }
    ended?;
    Ok(Exit::Done)
}

fn print(arguments: &Arguments, call: &Call) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match arguments.output.format {
        Format::Json => output::json_line(call, &mut out),
        Format::Raw => output::raw_line(&call.raw(), &mut out),
        Format::Table => {
            let (time, reason) = (time::local(call.time), call_output::reason(call));
            let (caller, trunk) = (call_output::caller(call), known(call.trunk.as_ref()));
            let mut line =
                format!("{time}  {:<5}  {reason:<24}  {caller:<16}  {trunk}", call.verdict);
            if arguments.verbose {
                let call_id = known(call.call_id.as_ref());
                line += &format!("  {}  rule {}  {call_id}", call.source, call.rule);
            }
            // The caller writes the Call-ID, so control characters are removed.
            writeln!(out, "{}", output::clean(&line))
        }
    }?;
    out.flush()
}

fn print_lost(format: Format, lost: Lost) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let Lost { refused, passed, thinned, missed, evidence } = lost;
    match format {
        Format::Json => output::json_line(&Live::Lost(lost), &mut out),
        Format::Raw => Ok(()),
        Format::Table => {
            write!(
                out,
                "lost: {refused} refused and {passed} passed attempts have no record (thinned ones \
                 included); {missed} missed here"
            )?;
            if thinned > 0 {
                write!(out, "; {thinned} refused attempts of floods only counted")?;
            }
            if let Some(evidence) = evidence {
                write!(out, "; {evidence} INVITEs not kept")?;
            }
            writeln!(out)
        }
    }?;
    out.flush()
}
