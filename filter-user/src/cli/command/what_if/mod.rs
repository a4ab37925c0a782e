//! `palang what-if`.

pub(crate) mod output;
pub(crate) mod policy_in_force;

use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;
use filter_common::abi::MODE_OBSERVE;
use filter_common::bytes::Slice;
use filter_common::number::Number;
use filter_common::plan::Plan;
use filter_common::reason::Reason;
use filter_common::sip::message::call_id_hash;
use jiff::{SignedDuration, Timestamp};

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire;
use crate::cli::command::what_if::output::{Compared, Comparison};
use crate::cli::input::time;
use crate::cli::output::Output;
use crate::cli::output::not_judged::not_judged;
use crate::cli::output::progress::progress;
use crate::config::policy_file;
use crate::config::policy_file::PolicyFile;
use crate::exit::{Exit, Failure};
use crate::model::policy::Subject;
use crate::replay;
use crate::what_if::Outcome;
use crate::what_if::frames::Frames;
use crate::what_if::plot;
use crate::what_if::records::{self, Record, Report};
use crate::what_if::tally::Tally;

/// Largest number of rows in the table without `--all`.
const ROWS: usize = 20;

/// Try a policy on past calls: which it would refuse, which it would let through
///
/// palang what-if --since 7d --policy new.toml
///
/// palang what-if trunk.pcap --policy new.toml --against old.toml --plot calls.svg
///
/// Counts the calls that the policy file would have refused or let through by a redial grant, and
/// compares them with another policy. Then lists the numbers whose outcome changes. Nothing is changed. The calls are judged outside the kernel by the same code, so root is
/// not needed.
///
/// With captures, the comparison is --against, or without it the daemon's policy in force (role
/// operate): configuration, mode, blocks and allows as they are now. An INVITE that is
/// retransmitted within 64 s is the same call.
///
/// With --since, the comparison is --against, or without it the recorded outcome of the calls. This
/// needs the role operate, because masked numbers cannot be judged. The numbers are used as they were
/// parsed at the time: another numbering plan or identity has no effect, other trunks do. `ladder =
/// "FILE"` in a policy uses the reports that were strikes, unless the policy would have refused the
/// call. It is unknown how callers would have acted after another outcome.
///
/// Raw: number, refused, let through by a grant, both again for the comparison. Then newly refused,
/// newly passed, newly let through by a grant, no longer let through by a grant.
#[derive(Debug, Args)]
pub struct Arguments {
    /// pcap or pcapng files; `-` is standard input
    #[arg(required_unless_present = "since", conflicts_with = "since", value_name = "CAPTURE")]
    captures: Vec<PathBuf>,
    /// Use the daemon's call records since: 7d, '2026-11-25 18:20' local time, or RFC 3339
    #[arg(long, value_name = "DURATION|TIME", value_parser = time::since)]
    since: Option<Timestamp>,
    /// End of the period; a duration counts back from now
    #[arg(long, conflicts_with = "captures", value_name = "DURATION|TIME", value_parser = time::since)]
    until: Option<Timestamp>,
    /// Policy to try, in the format of docs/demo-policy.toml
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Policy to compare with
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// List all numbers whose outcome changes, not only 20; JSON and raw always have all
    #[arg(long)]
    all: bool,
    /// Draw refusals and grants over time
    #[arg(long, value_name = "FILE.svg", value_parser = picture)]
    plot: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Why the picture of `--plot` cannot be drawn.
#[derive(Debug, thiserror::Error)]
enum PictureError {
    /// PNG needs a font library.
    #[error("PNG is not supported: write FILE.svg; any browser can show and convert it")]
    Png,
    /// The file name does not end with `.svg`.
    #[error("{0:?} is not supported: write FILE.svg")]
    Format(String),
}

/// Accepts only SVG files: other formats need a font library.
///
/// # Errors
/// Returns an error for a file name with another ending.
fn picture(text: &str) -> Result<PathBuf, PictureError> {
    let path = PathBuf::from(text);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => Ok(path),
        Some("png") => Err(PictureError::Png),
        Some(_) | None => Err(PictureError::Format(text.to_owned())),
    }
}

/// Runs the `palang what-if` command.
///
/// # Errors
/// `Usage` for wrong arguments or files; `Partly` or `Failed` if a capture cannot be read to its end.
/// Otherwise returns an error if the daemon refuses or cannot be reached.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    let read = |path: &Path| {
        policy_file::read(path, &|_| Ok(())).map_err(|message| Failure::new(Exit::Usage, message))
    };
    let policy = read(&arguments.policy)?;
    let against = arguments.against.as_deref().map(read).transpose()?;
    let named = arguments.against.as_ref().map(|path| Compared::file(path));
    let (comparison, broken) = match arguments.since {
        Some(since) => {
            let until = arguments.until.unwrap_or(Timestamp::MAX);
            let tally = recorded(&policy, against.as_ref(), since, until, client)?;
            (Comparison::new(tally, named.or(Some(Compared::recorded())), None), Vec::new())
        }
        None => captured(arguments, &policy, against, named, client),
    };
    if comparison.frames == Some(0) && !broken.is_empty() {
        return Err(Failure::new(Exit::Failed, broken.join("\n")));
    }
    let comparison = comparison.cut_to(if arguments.all { None } else { Some(ROWS) });
    arguments.output.print(&comparison)?;
    if let Some(path) = &arguments.plot {
        draw(path, &comparison)?;
    }
    match broken.is_empty() {
        true => Ok(Exit::Done),
        false => Err(Failure::new(Exit::Partly, broken.join("\n"))),
    }
}

fn draw(path: &Path, comparison: &Comparison) -> Result<(), Failure> {
    let failed = |what: &dyn std::fmt::Display| {
        Failure::new(Exit::Failed, format!("{}: {what}", path.display()))
    };
    let baseline = comparison.compared.as_ref().map(|compared| compared.name.as_str());
    let picture =
        plot::svg(&comparison.tally.timeline, baseline).map_err(|error| failed(&error))?;
    std::fs::write(path, picture)
        .map_err(|error| failed(&format!("cannot write the file: {error}")))
}

/// Judges captures; also returns the errors of captures that could not be read to their end.
fn captured(
    arguments: &Arguments,
    policy: &PolicyFile,
    against: Option<PolicyFile>,
    named: Option<Compared>,
    client: &Client,
) -> (Comparison, Vec<String>) {
    if [Some(policy), against.as_ref()].into_iter().flatten().any(|file| file.ladder.is_some()) {
        eprintln!("palang: a capture has no reports, so the ladder has no effect: see --since");
    }
    let (baseline, compared) = match against {
        Some(file) => (Some(file.policy), named),
        None => match policy_in_force::policy(client) {
            Ok(in_force) => {
                if in_force.settings.mode == MODE_OBSERVE {
                    eprintln!("palang: the policy in force refuses nothing: its mode is observe");
                }
                (Some(in_force), Some(Compared::in_force()))
            }
            Err(why) => {
                eprintln!(
                    "palang: no comparison, because the policy in force is not known \
                     (to compare with a file: --against FILE): {why}"
                );
                (None, None)
            }
        },
    };
    let mut frames = Frames::new(&policy.policy, baseline.as_ref());
    let mut broken = Vec::new();
    for path in &arguments.captures {
        let bar = progress(path);
        let ticker = bar.clone();
        let result = capture(path, move |bytes| ticker.inc(bytes), &mut frames);
        bar.finish_and_clear();
        if let Err(failure) = result {
            broken.push(format!("{}: {}", path.display(), failure.message));
        }
    }
    (Comparison::new(frames.tally, compared, Some(frames.count)), broken)
}

/// Judges the frames of a capture. Frames of link types that are not supported are skipped and counted.
///
/// # Errors
/// `Failed` if the capture cannot be read to its end, or has no other frames.
fn capture(
    path: &Path,
    progress: impl Fn(u64) + 'static,
    frames: &mut Frames,
) -> Result<(), Failure> {
    let mut reader = replay::frames::Frames::new(false);
    let judged = reader.capture(path, progress, |frame, ethernet, _| {
        frames.judge(ethernet, frame.time);
        Ok(())
    });
    judged.map_err(|error| Failure::new(Exit::Failed, error))?;
    for line in not_judged(&reader.skipped) {
        eprintln!("palang: {}: {line}", path.display());
    }
    Ok(())
}

/// Judges the daemon's records of a period.
fn recorded(
    policy: &PolicyFile,
    against: Option<&PolicyFile>,
    since: Timestamp,
    until: Timestamp,
    client: &Client,
) -> Result<Tally, Failure> {
    let plan = policy.policy.trunks[0].profile.plan;
    let text = since.to_string();
    let mut found = Vec::new();
    let mut wrong = None;
    let calls = client::path(&["calls"], &[("since", Some(&text))]);
    client.list(&calls, |call: wire::Call| {
        if call.time > until {
            return ControlFlow::Continue(());
        }
        match record(&call, &plan) {
            Ok(record) => found.push(record),
            Err(failure) => wrong = Some(failure),
        }
        if wrong.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let mut reports = Vec::new();
    let both = [Some(policy), against];
    let ladders = || both.into_iter().flatten().filter_map(|file| file.ladder.as_ref());
    // Strikes count for a long time, and the blocks that follow may last even longer.
    let back = ladders().map(|ladder| {
        ladder.fades + ladder.rungs.iter().filter_map(|rung| rung.block).max().unwrap_or(0)
    });
    if let Some(back) = back.max().filter(|_| wrong.is_none()) {
        let back = SignedDuration::from_secs(back.cast_signed());
        let text = since.checked_sub(back).unwrap_or(Timestamp::MIN).to_string();
        client.list(
            &client::path(&["reports"], &[("since", Some(&text))]),
            |comparison: wire::Report| {
                match report(&comparison, &plan) {
                    Ok(report) => reports.extend(report.filter(|report| report.time <= until)),
                    Err(failure) => wrong = Some(failure),
                }
                if wrong.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        )?;
    }
    if let Some(failure) = wrong {
        return Err(failure);
    }
    // The newest comes first.
    found.sort_by_key(|record| (record.time, record.id));
    reports.reverse();
    reports.sort_by_key(|report| report.time);
    Ok(records::judge(policy, against, &found, &reports))
}

fn record(call: &wire::Call, plan: &Plan) -> Result<Record, Failure> {
    let number = match &call.caller {
        None => Number::NONE,
        Some(text) => whole_number(text, plan)?,
    };
    let address = call.source.parse::<SocketAddr>().map(|source| match source.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    });
    let address = address
        .map_err(|_| not_understood(&format!("{:?} as the source of a call", call.source)))?;
    let call_id = call.call_id.as_ref().map(|text| {
        let bytes = text.as_bytes();
        call_id_hash(&Slice::from(bytes), 0, bytes.len())
    });
    let known = Reason::ALL.iter().map(|reason| reason.name()).find(|name| *name == call.reason);
    Ok(Record {
        id: call.id,
        time: records::nanoseconds(call.time),
        number,
        // Without a Call-ID, no other call is the same one.
        call_id: call_id.unwrap_or(call.id),
        source: address.octets(),
        outcome: Outcome { refused: call.verdict != "pass", reason: known.unwrap_or("unknown") },
        attempts: call.attempts,
    })
}

/// Converts a report; `None` if it is not a strike.
fn report(report: &wire::Report, plan: &Plan) -> Result<Option<Report>, Failure> {
    let number = whole_number(&report.number, plan)?;
    let call = report.call.zip(report.call_time).filter(|_| report.strike);
    Ok(call.map(|(call, call_time)| Report {
        time: report.time,
        number,
        kind: report.kind,
        call,
        call_time,
    }))
}

fn whole_number(text: &str, plan: &Plan) -> Result<Number, Failure> {
    // A caller is never a prefix.
    if text.contains('*') {
        let message = "the daemon masks the numbers, so a policy cannot be tried on them: this \
                       needs the role operate ([roles] in palang.toml)";
        return Err(Failure::new(Exit::Refused, message));
    }
    match policy_in_force::subject(text, plan) {
        Ok(Subject::Number(number)) => Ok(number),
        Ok(Subject::Prefix(_)) | Err(_) => Err(not_understood(&format!("{text:?} as a caller"))),
    }
}

fn not_understood(what: &str) -> Failure {
    Failure::new(Exit::Failed, format!("the daemon returned {what}: does it have another version?"))
}
