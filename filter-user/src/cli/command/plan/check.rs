//! `palang plan check`.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;

use crate::api::client::Client;

use crate::cli::command::plan::which::read;
use crate::cli::input::country::preset;
use crate::cli::input::{time, trunk};
use crate::cli::output::Output;
use crate::cli::output::plan_check::Checked;
use crate::cli::output::progress::progress;
use crate::config::{Config, limits};
use crate::exit::{Exit, Failure};
use crate::model::policy::Policy;
use crate::replay::plan_check::PlanCheck;
use crate::replay::plan_check::records::{self, recorded};

/// Show what share of callers the plans read, and which other setting would read more
///
/// palang plan check trunk.pcap
///
/// A number is possible if libphonenumber knows its length. A setting is only shown if it reads more
/// possible numbers. Nothing is sent to the kernel. Exit code 6: a capture was not read to its end.
///
/// --since asks the daemon for its call records instead, and needs the role operate. A record has the number
/// that was read, or the header field that was not. Numbers that are not possible are read again by other
/// settings, too. If most are of other countries, so are those.
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
    #[arg(long, env = "PALANG_CONFIG", value_name = "FILE", default_value = limits::PATH)]
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
        policy.assume_trunk(trunk::find(&policy, name)?);
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
    let frames = check.frames;
    if frames > 0 || broken.is_empty() {
        arguments.output.print(&Checked::of_captures(check))?;
    }
    match (broken.is_empty(), frames) {
        (true, _) => Ok(Exit::Done),
        (false, 0) => Err(Failure::new(Exit::Failed, broken.join("\n"))),
        (false, _) => Err(Failure::new(Exit::Partly, broken.join("\n"))),
    }
}

/// Checks the call records and prints the findings.
fn of_records(arguments: &Arguments, since: Timestamp, client: &Client) -> Result<Exit, Failure> {
    // Without advice on --country: the records are of the trunks that the daemon has.
    let config = Config::read(&arguments.config);
    let policy = config.map_err(|error| Failure::new(Exit::Usage, error))?.policy;
    if let Some(name) = &arguments.trunk {
        trunk::find(&policy, name)?;
    }
    let check = recorded(client, &policy, since, arguments.trunk.as_deref());
    let check = check.map_err(|error| match error {
        records::Error::Masked => Failure::new(Exit::Refused, error),
        records::Error::Daemon(error) => error.into(),
    })?;
    arguments.output.print(&Checked::of_records(check))?;
    Ok(Exit::Done)
}
