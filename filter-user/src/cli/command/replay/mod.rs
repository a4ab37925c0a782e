//! `palang replay`.

pub mod hints;
pub mod output;
pub mod replies;

use std::io::{self, BufWriter};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use filter_common::abi::{MODE_ENFORCE, MODE_OBSERVE};
use filter_common::number::Digits;
use filter_common::plan::{PREFIX_DIGITS_MAX, Prefix, TRUNK_PREFIX_DIGITS_MAX};

use crate::cli::command::replay::output::Output;
use crate::cli::command::replay::replies::Replies;
use crate::cli::input::country::preset;
use crate::cli::input::{plan, trunk};
use crate::cli::output::progress::progress;
use crate::cli::output::written;
use crate::config::Config;
use crate::config::error::ConfigError;
use crate::config::policy_file;
use crate::exit::{Exit, Failure};
use crate::model::number_text;
use crate::model::plan::format::Format;
use crate::model::plan::identity::Identity;
use crate::model::policy::{self, Policy, Subject};
use crate::replay::record::Record;
use crate::replay::{Error, Replay};

/// Judge recorded calls with the real program in the kernel
///
/// palang replay trunk.pcap --block 0812-3456-7890 --block '+62811*'
///
/// Prints the verdict of every INVITE. Each frame runs through the kernel program on separate maps;
/// nothing is attached and no live traffic is touched. The clock is that of the capture.
#[derive(Debug, Args)]
pub struct Arguments {
    /// pcap or pcapng files, also compressed by gzip, zstd or xz; `-` is standard input
    #[arg(required = true, value_name = "CAPTURE")]
    pub(crate) captures: Vec<PathBuf>,
    /// Block a number, or a prefix that ends with `*`; may be repeated
    #[arg(long, value_name = "NUMBER|PREFIX*")]
    pub(crate) block: Vec<String>,
    /// Allow a number or a prefix: wins over every block; may be repeated
    #[arg(long, value_name = "NUMBER|PREFIX*")]
    pub(crate) allow: Vec<String>,
    /// Policy file (TOML); command-line options add to it or override it
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Configuration of the daemon: its trunks, ports and protected numbers; without its lists
    #[arg(long, value_name = "FILE", conflicts_with = "policy")]
    pub(crate) config: Option<PathBuf>,
    /// Header that names the caller, instead of From: from, pai, pai-else-from
    #[arg(long, value_name = "IDENTITY", value_parser = plan::identity, conflicts_with = "config")]
    identity: Option<Identity>,
    /// Format in which the trunk writes numbers, instead of those of its plan; may be repeated
    #[arg(long, value_name = "FORMAT", value_parser = plan::format, conflicts_with = "config")]
    format: Vec<Format>,
    /// Numbering plan of this country, two letters of ISO 3166; further options change it
    #[arg(long, value_name = "CC", conflicts_with_all = ["policy", "config"])]
    country: Option<String>,
    /// Judge every packet as if it came from this trunk of --config or --policy, from any source
    #[arg(long, value_name = "NAME")]
    trunk: Option<String>,
    /// Judge the packet in a tunnel or in a HEP message; a live filter sees the outer packet, which passes
    ///
    /// Tunnels are more than two VLAN tags, PPPoE, MPLS, GRE, ERSPAN, VXLAN, GENEVE, GTP-U, and IP in IP.
    #[arg(long)]
    decap: bool,
    /// Print the SIP replies to refused calls below the table; trunks of --config or --policy answer
    #[arg(long)]
    replies: bool,
    /// Write the frames of these replies to a new pcap file
    #[arg(long, value_name = "FILE")]
    write_replies: Option<PathBuf>,
    /// Enforce blocks, or only show what would be refused
    #[arg(long)]
    pub(crate) mode: Option<Mode>,
    /// UDP port that is read as SIP, instead of 5060; may be repeated
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Vec<u16>,
    /// Country code of the numbering plan [default: 62]
    #[arg(long, value_name = "CC")]
    pub(crate) country_code: Option<String>,
    /// Trunk prefix of national numbers, may be empty [default: 0]
    #[arg(long, value_name = "P")]
    trunk_prefix: Option<String>,
    /// International prefix, such as 001; may be repeated [default: no prefix]
    #[arg(long, value_name = "P")]
    international_prefix: Vec<String>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: output::Format,
    /// Print every frame, not only INVITEs; the summary then counts all frames
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Mode {
    Enforce,
    Observe,
}

/// Judges the captures and prints the verdicts.
///
/// # Errors
/// `Usage` for wrong arguments, `Refused` for a missing permission, `Partly` or `Failed` if a capture
/// cannot be read to its end.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let policy = policy(arguments)?;
    let mut replay = Replay::new(policy, arguments.all, arguments.decap)?;
    let writer = BufWriter::new(io::stdout().lock());
    let mut output =
        Output::new(arguments.output, writer, arguments.captures.len() > 1, arguments.replies);
    let mut replies = arguments.write_replies.as_deref().map(Replies::new).transpose()?;
    let mut broken = Vec::new();
    for path in &arguments.captures {
        let bar = progress(path);
        let ticker = bar.clone();
        let mut report = |record: Record| {
            if let Some(replies) = &mut replies {
                replies.put(&record)?;
            }
            output.record(&record)
        };
        let result = replay.capture(path, move |bytes| ticker.inc(bytes), &mut report);
        bar.finish_and_clear();
        match result {
            Ok(()) => {}
            Err(error @ (Error::Capture(_) | Error::Link { .. })) => {
                broken.push(format!("{}: {error}", path.display()));
            }
            // The frames before the error are still printed.
            Err(Error::Kernel(error)) => broken.push(format!("{}: {error}", path.display())),
            Err(Error::Output(error)) => return written(Err(error)),
        }
    }
    let something = replay.summary.frames > 0 || broken.is_empty();
    if something && let Err(error) = output.finish(&replay.summary, replay.ports()) {
        return written(Err(error));
    }
    if let Some(note) = replies.as_ref().and_then(Replies::note) {
        eprintln!("{note}");
    }
    if broken.is_empty() {
        return Ok(());
    }
    let exit = if replay.summary.frames > 0 { Exit::Partly } else { Exit::Failed };
    Err(Failure::new(exit, broken.join("\n")))
}

pub(crate) fn policy(arguments: &Arguments) -> Result<Policy, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::new(Exit::Usage, error);
    let adjust = |policy: &mut Policy| adjust(policy, arguments);
    let mut policy = match (&arguments.policy, &arguments.config) {
        (None, Some(path)) => {
            let mut policy = Config::read(path).map_err(|error| usage(&error))?.policy;
            // The mode of a daemon is in its store.
            policy.settings.mode = MODE_ENFORCE;
            adjust(&mut policy).map_err(|error| usage(&error))?;
            policy
        }
        (Some(path), _) => policy_file::read(path, &adjust).map_err(|error| usage(&error))?.policy,
        (None, None) => {
            let mut policy = Policy::default();
            if let Some(country) = &arguments.country {
                policy.trunks[0].profile.plan = preset(country)?.profile.plan;
            }
            adjust(&mut policy).map_err(|error| usage(&error))?;
            policy
        }
    };
    if let Some(name) = &arguments.trunk {
        policy.assume_trunk(trunk::find(&policy, name)?);
    }
    match arguments.mode {
        Some(Mode::Enforce) => policy.settings.mode = MODE_ENFORCE,
        Some(Mode::Observe) => policy.settings.mode = MODE_OBSERVE,
        None => {}
    }
    if !arguments.port.is_empty() {
        policy.ports = arguments.port.clone();
    }
    let assumed = arguments.trunk.as_ref();
    let assumed = policy.trunks.iter().find(|trunk| Some(&trunk.name) == assumed);
    let plan = assumed.unwrap_or(&policy.trunks[0]).profile.plan;
    for text in &arguments.allow {
        let subject = number_text::subject(text, &plan)
            .map_err(|message| usage(&format!("--allow: {message}")))?;
        match policy.allows.iter().find(|(known, _)| *known == subject) {
            Some((_, allow)) if allow.expires == 0 => {}
            Some(_) => return Err(usage(&conflict("allow", subject))),
            None => policy.allow(subject, 0),
        }
    }
    for text in &arguments.block {
        let subject = number_text::subject(text, &plan)
            .map_err(|message| usage(&format!("--block: {message}")))?;
        match policy.blocks.iter().find(|(known, _)| *known == subject) {
            Some((_, block)) if block.expires == 0 && block.flags == 0 => {}
            Some(_) => return Err(usage(&conflict("block", subject))),
            None => policy.block(subject, 0, 0),
        }
    }
    if arguments.policy.is_none() {
        policy.protect_placeholders();
    }
    Ok(policy)
}

/// Describes two different rules of one kind for one subject: neither may win silently.
fn conflict(kind: &str, subject: Subject) -> String {
    format!(
        "--{kind}: the policy file has a different {kind} for {subject} (it ends or only observes): \
         remove one of the two"
    )
}

/// Applies the numbering plan of the command line, before any number is parsed.
///
/// # Errors
/// `Argument` if an option has a mistake.
fn adjust(policy: &mut Policy, arguments: &Arguments) -> Result<(), ConfigError> {
    let profile = &mut policy.trunks[0].profile;
    if let Some(identity) = arguments.identity {
        profile.identity = identity.value();
    }
    let plan = &mut profile.plan;
    if !arguments.format.is_empty() {
        plan.formats = Format::bits(&arguments.format);
    }
    if let Some(text) = &arguments.country_code {
        plan.country = digits("--country-code", text, 1, 3)?;
    }
    if let Some(text) = &arguments.trunk_prefix {
        plan.trunk_prefix = digits("--trunk-prefix", text, 0, TRUNK_PREFIX_DIGITS_MAX)?;
    }
    let mut prefixes: Vec<Prefix> =
        plan.international.iter().copied().filter(|prefix| !prefix.is_empty()).collect();
    for text in &arguments.international_prefix {
        let digits = digits("--international-prefix", text, 1, PREFIX_DIGITS_MAX)?;
        prefixes.push(Prefix::exact(digits));
    }
    policy::set_international(plan, prefixes).map_err(|message| {
        ConfigError::Argument(format!(
            "--international-prefix: {message} (including those of the policy file)"
        ))
    })
}

/// Parses digits of an option.
///
/// # Errors
/// `Argument` if `text` does not have `min` to `max` digits.
pub(crate) fn digits(
    argument: &str,
    text: &str,
    min: u32,
    max: u32,
) -> Result<Digits, ConfigError> {
    Digits::parse(text).filter(|digits| (min..=max).contains(&digits.len())).ok_or_else(|| {
        let message = format!("{argument}: {text:?} must have {min} to {max} digits");
        ConfigError::Argument(message)
    })
}
