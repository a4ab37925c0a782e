//! `palang plan check`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use crate::api::client::Client;

use crate::cli::command::plan::which::read;
use crate::cli::input::country::preset;
use crate::cli::input::{time, trunk};
use crate::cli::output::not_judged::not_judged;
use crate::cli::output::progress::progress;
use crate::cli::output::{self, Answer, Output, counted};
use crate::config::limits;
use crate::exit::{Exit, Failure};
use crate::model::policy::Policy;
use crate::replay::frames::Skipped;
use crate::replay::plan_check::records::{self, recorded};
use crate::replay::plan_check::{PlanCheck, TrunkCheck};

/// Show what share of callers the plans read, and which other setting would read more
///
/// palang plan check trunk.pcap
///
/// A number is possible if libphonenumber knows its length. A setting is only shown if it reads more
/// possible numbers. Nothing is sent to the kernel. Exit code 6: a capture was not read to its end.
///
/// --since asks the daemon for its call records instead, and needs the role operate. A record has the number
/// that was read, and no text. So a setting is only found for numbers that were read and are not possible.
///
/// Raw: trunk, kind (read, unread, example, setting), text, calls, possible, changed.
#[derive(Debug, Args)]
pub struct Arguments {
    /// pcap or pcapng files; `-` is standard input
    #[arg(required_unless_present = "since", value_name = "CAPTURE")]
    captures: Vec<PathBuf>,
    /// Check the call records since then: 1h, 7d, '2026-11-25 18:20' local time, or RFC 3339
    #[arg(
        long,
        value_name = "DURATION|TIME",
        value_parser = time::since,
        conflicts_with_all = ["captures", "decap", "country", "port"]
    )]
    since: Option<Timestamp>,
    /// Check every packet of a capture as if it came from this trunk; only its records with --since
    #[arg(long, value_name = "NAME", conflicts_with = "country")]
    trunk: Option<String>,
    /// Check the packet in a tunnel or in a HEP message, as `palang replay --decap` does
    #[arg(long)]
    decap: bool,
    /// Preset of this country, two letters of ISO 3166, instead of the configuration
    #[arg(long, value_name = "CC")]
    country: Option<String>,
    /// UDP port that is read as SIP, instead of those of the configuration; may be repeated
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..))]
    port: Vec<u16>,
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = limits::PATH)]
    config: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// Checks the captures and prints the findings.
pub(super) fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    if let Some(since) = arguments.since {
        return of_records(arguments, since, client);
    }
    let mut policy = match &arguments.country {
        Some(country) => Policy { trunks: vec![preset(country)?], ..Policy::default() },
        None => read(&arguments.config)?.policy,
    };
    if !arguments.port.is_empty() {
        policy.ports.clone_from(&arguments.port);
    }
    if let Some(name) = &arguments.trunk {
        trunk::assume(&mut policy, name)?;
    }
    let mut check = PlanCheck::new(&policy, arguments.decap);
    let mut broken = Vec::new();
    for path in &arguments.captures {
        let bar = progress(path);
        let ticker = bar.clone();
        let result = check.capture(path, move |bytes| ticker.inc(bytes));
        bar.finish_and_clear();
        if let Err(error) = result {
            broken.push(format!("{}: {error}", path.display()));
        }
    }
    let (frames, outside) = (check.frames, check.outside);
    let skipped = std::mem::take(&mut check.reader.skipped);
    if frames > 0 || broken.is_empty() {
        let trunks = check.finish();
        arguments.output.print(&Checked {
            frames: Some(frames),
            records: None,
            outside,
            skipped,
            trunks,
        })?;
    }
    match (broken.is_empty(), frames) {
        (true, _) => Ok(Exit::Done),
        (false, 0) => Err(Failure::new(Exit::Failed, broken.join("\n"))),
        (false, _) => Err(Failure::new(Exit::Partly, broken.join("\n"))),
    }
}

/// Checks the call records and prints the findings.
fn of_records(arguments: &Arguments, since: Timestamp, client: &Client) -> Result<Exit, Failure> {
    let policy = read(&arguments.config)?.policy;
    if let Some(name) = &arguments.trunk {
        trunk::assume(&mut policy.clone(), name)?;
    }
    let check = recorded(client, &policy, since, arguments.trunk.as_deref(), None);
    let check = check.map_err(|error| match error {
        records::Error::Masked => Failure::new(Exit::Refused, error),
        records::Error::Daemon(error) => error.into(),
    })?;
    let (records, outside) = (Some(check.records), check.outside);
    let (skipped, trunks) = (Skipped::default(), check.finish());
    arguments.output.print(&Checked { frames: None, records, outside, skipped, trunks })?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Checked {
    /// Frames that were read, of captures.
    #[serde(skip_serializing_if = "Option::is_none")]
    frames: Option<u64>,
    /// Call records that were read.
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<u64>,
    /// Calls from a source outside all trunks.
    outside: u64,
    /// Frames and calls that were not judged.
    #[serde(flatten)]
    skipped: Skipped,
    trunks: Vec<TrunkCheck>,
}

/// Formats a share: `12 of 40 (30 %)`.
fn share(part: u64, all: u64) -> String {
    let percent = (100 * part).checked_div(all).unwrap_or(0);
    format!("{part} of {all} ({percent} %)")
}

impl Answer for Checked {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        if let Some(frames) = self.frames {
            writeln!(writer, "{}", counted(frames, "frame"))?;
            if self.trunks.is_empty() {
                writeln!(writer, "no INVITE was found: check the ports (--port)")?;
            }
        }
        if let Some(records) = self.records {
            writeln!(writer, "{}", counted(records, "call record"))?;
        }
        for line in not_judged(&self.skipped) {
            writeln!(writer, "{line}")?;
        }
        if self.outside > 0 {
            let calls = counted(self.outside, "call");
            writeln!(writer, "{calls} from a source outside every trunk: never refused")?;
        }
        for trunk in &self.trunks {
            writeln!(writer, "\n{}", output::clean(&trunk.trunk))?;
            writeln!(writer, "  callers read       {}", share(trunk.read, trunk.calls))?;
            let global = trunk.read - trunk.local;
            writeln!(writer, "  possible numbers   {}", share(trunk.possible, global))?;
            writeln!(writer, "  of the own country {}", share(trunk.own, global))?;
            if trunk.local > 0 {
                writeln!(writer, "  local numbers      {}", trunk.local)?;
            }
            for (reason, calls) in &trunk.unread {
                writeln!(writer, "  not read           {calls} {reason}")?;
            }
            if self.records.is_some() && !trunk.unread.is_empty() {
                let text =
                    "records have no text of these: check a capture (palang plan check CAPTURE)";
                writeln!(writer, "  {text}")?;
            }
            if !trunk.examples.is_empty() {
                let rows = trunk
                    .examples
                    .iter()
                    .map(|example| vec![format!("  {}", example.text), example.reason.to_owned()]);
                let columns = ["  text that is not read", "reason"];
                writeln!(writer, "\n{}", output::table(Some(&columns), rows).trim_fmt())?;
            }
            if !trunk.settings.is_empty() {
                let rows = trunk.settings.iter().map(|other| {
                    vec![
                        format!("  {}", other.setting),
                        other.read.to_string(),
                        other.possible.to_string(),
                        other.changed.to_string(),
                    ]
                });
                let columns = ["  setting that reads more", "read", "possible", "read otherwise"];
                writeln!(writer, "\n{}", output::table(Some(&columns), rows).trim_fmt())?;
            }
        }
        Ok(())
    }

    fn raw(&self) -> Vec<Vec<String>> {
        let mut lines = Vec::new();
        for trunk in &self.trunks {
            let mut line = |kind: &str, text: &str, counts: [Option<u64>; 3]| {
                let mut fields = vec![trunk.trunk.clone(), kind.to_owned(), text.to_owned()];
                fields.extend(counts.map(output::known));
                lines.push(fields);
            };
            line("read", "-", [Some(trunk.read), Some(trunk.possible), None]);
            for (reason, calls) in &trunk.unread {
                line("unread", reason, [Some(*calls), None, None]);
            }
            for example in &trunk.examples {
                line("example", &example.text, [None, None, None]);
            }
            for other in &trunk.settings {
                let counts = [other.read, other.possible, other.changed];
                line("setting", &other.setting, counts.map(Some));
            }
        }
        lines
    }
}
