//! `palang monitor`.

use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use filter_common::abi::Verdict;
use filter_common::reason::Reason;

use super::evidence_file::Capture;
use super::print::{Format, Output, Row as _, known};
use super::{calls, print, time};
use crate::client::{self, Client};
use crate::exit::{Exit, Failure};
use crate::wire::{Call, Live, Lost};

/// Show each attempt as it is judged, until Ctrl-C
///
/// palang monitor -t refuse -t unread
///
/// One line an attempt: time, verdict, reason, caller, trunk. A line with `lost` tells of attempts that have none, at
/// the beginning and whenever it grows. Raw: as `palang calls`, without lines of what was lost.
///
/// `--write` puts the INVITEs of refused attempts, whatever `-t` says, into a capture that Wireshark and `palang
/// replay` read; each is in the file at once. The kernel keeps them for as long, also without [evidence] in
/// palang.toml; the audit tells of it. Needs the role operate.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Only these; may be given more than once [default: all]
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    types: Vec<Type>,
    /// Source, rule and Call-ID as well
    #[arg(short = 'v', long)]
    verbose: bool,
    /// End after so many attempts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Write the INVITEs of refused attempts to this new file, as pcapng; only its owner may read it
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Write no more than so many bytes
    #[arg(long, value_name = "N", requires = "write", default_value_t = 64 << 20)]
    max_bytes: u64,
    /// Write no more than so many INVITEs
    #[arg(long, value_name = "N", requires = "write", default_value_t = 10_000)]
    max_count: u64,
    #[command(flatten)]
    output: Output,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Type {
    /// Refused
    Refuse,
    /// Passed, by what was decided
    Pass,
    /// Passed, because it could not be read for sure
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

/// Looks until it is ended, or nobody reads any more.
///
/// # Errors
/// The daemon's no, or none to ask; a daemon that ends.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    let mut left = arguments.count;
    let mut known_lost = None;
    let mut capture = match &arguments.write {
        Some(path) => Some(Capture::create(path, arguments.max_bytes, arguments.max_count)?),
        None => None,
    };
    // Seconds until the INVITEs of what was told last are surely here.
    let mut ending = None;
    let mut failed = None;
    let query = [("evidence", capture.as_ref().map(|_| "true"))];
    let looked = client.list(&client::path(&["calls", "live"], &query), |line: Live| {
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
                tell(arguments, &call)
            }
            Live::Lost(lost) => {
                ending = ending.map(|seconds: u32| seconds - 1);
                if known_lost == Some(lost) {
                    Ok(())
                } else {
                    known_lost = Some(lost);
                    tell_lost(arguments.output.format, lost)
                }
            }
        };
        if left == Some(0) && ending.is_none() && capture.is_some() {
            ending = Some(2);
        }
        // Whoever reads it may have seen enough.
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
    looked?;
    Ok(Exit::Done)
}

fn tell(arguments: &Arguments, call: &Call) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match arguments.output.format {
        Format::Json => print::json_line(call, &mut out),
        Format::Raw => print::raw_line(&call.raw(), &mut out),
        Format::Table => {
            let (time, reason) = (time::local(call.time), calls::reason(call));
            let (caller, trunk) = (known(call.caller.as_ref()), known(call.trunk.as_ref()));
            let mut line =
                format!("{time}  {:<5}  {reason:<24}  {caller:<16}  {trunk}", call.verdict);
            if arguments.verbose {
                let call_id = known(call.call_id.as_ref());
                line += &format!("  {}  rule {}  {call_id}", call.source, call.rule);
            }
            // Whoever calls writes the Call-ID.
            writeln!(out, "{}", print::clean(&line))
        }
    }?;
    out.flush()
}

fn tell_lost(format: Format, lost: Lost) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let Lost { refused, passed, thinned, missed, evidence } = lost;
    match format {
        Format::Json => print::json_line(&Live::Lost(lost), &mut out),
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
