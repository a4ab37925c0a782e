//! `palang calls`.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use crate::api::client;
use crate::api::client::Client;
use crate::api::udp_payload::udp_payload;
use crate::api::wire::{Call, CallShown};
use crate::cli::input::time;
use crate::cli::output::atomic_file::{self, Exported, WholeFile};
use crate::cli::output::call::{caller, reason};
use crate::cli::output::{self, Answer, Format, Output, Row, counted, harmless, known, thousands};
use crate::exit::{Exit, Failure};

/// List call attempts, newest first; passed ones too
///
/// palang calls --since 1h --caller 0812-3456-7890
///
/// In a flood one line covers many refused attempts of one caller; the column `attempts` has their
/// number. Time, source and Call-ID are those of the first; the others came within the same minute.
///
/// Where the caller could not be read, its column has the beginning of the header field, after a `?`.
///
/// Raw: time, caller, trunk, source, verdict, policy verdict, reason, rule, identity, repeats, Call-ID,
/// id, attempts, unread header field.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    filter: Filter,
    /// Show at most N attempts; says if there are more [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..u64::MAX))]
    limit: Option<u64>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Command {
    Show(Show),
    Export(Export),
}

/// Selects attempts.
#[derive(Debug, Args)]
struct Filter {
    /// Start: 1h, 7d, '2026-11-25 18:20' local time, or RFC 3339
    #[arg(long, value_name = "DURATION|TIME", value_parser = time::since)]
    since: Option<Timestamp>,
    /// Only this caller number
    #[arg(long, value_name = "NUMBER")]
    caller: Option<String>,
    /// Only this Call-ID
    #[arg(long, value_name = "ID")]
    call_id: Option<String>,
    /// Only this verdict
    #[arg(long, value_name = "pass|drop")]
    verdict: Option<String>,
    /// Only this reason, as shown in the list
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Only this trunk
    #[arg(long, value_name = "NAME")]
    trunk: Option<String>,
    /// Only attempts that passed because they could not be read (docs/reasons.md)
    #[arg(long)]
    unread: bool,
}

impl Filter {
    fn path(&self, limit: Option<u64>) -> String {
        let since = self.since.map(|since| since.to_string());
        let limit = limit.map(|limit| limit.to_string());
        let query = [
            ("since", since.as_deref()),
            ("caller", self.caller.as_deref()),
            ("call_id", self.call_id.as_deref()),
            ("verdict", self.verdict.as_deref()),
            ("reason", self.reason.as_deref()),
            ("trunk", self.trunk.as_deref()),
            ("unread", self.unread.then_some("true")),
            ("limit", limit.as_deref()),
        ];
        client::path(&["calls"], &query)
    }
}

/// Show all details of one attempt, with its INVITE if it was kept
///
/// palang calls show 4711
///
/// The list shows the id. INVITEs of refused attempts are kept if palang.toml has [evidence]. Needs
/// the role operate: the message has numbers in it that cannot be masked.
///
/// JSON: `frame` has the whole frame as base64. Raw: the message byte by byte; exit 4 if none was kept.
#[derive(Debug, Args)]
struct Show {
    /// Number of the attempt
    id: u64,
    #[command(flatten)]
    output: Output,
}

/// Export attempts as CSV, newest first
///
/// palang calls export --since 30d --verdict drop refused.csv
///
/// The file appears only when it is complete; only its owner can read it. Times are in UTC. The caller
/// chooses the Call-ID: a cell that a spreadsheet would read as a formula gets an apostrophe in front.
///
/// Raw: file, rows; nothing if the export itself goes to standard output.
#[derive(Debug, Args)]
struct Export {
    /// Output file, or `-` [default: standard output]
    file: Option<PathBuf>,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    output: Output,
}

/// Runs the `palang calls` command.
///
/// # Errors
/// `Failed` if a file cannot be written; otherwise returns an error if the daemon refuses or cannot be reached.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    match &arguments.command {
        None => list(arguments, client),
        Some(Command::Show(show)) => self::show(show, client),
        Some(Command::Export(export)) => self::export(export, client),
    }
}

fn list(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    let mut rows = arguments.output.list();
    let (mut left, mut cut) = (arguments.limit, false);
    // One more than the limit shows whether there are more.
    let path = arguments.filter.path(arguments.limit.map(|limit| limit + 1));
    let end = client.list(&path, |call: Call| {
        cut = left == Some(0);
        if cut {
            return ControlFlow::Break(());
        }
        left = left.map(|left| left - 1);
        rows.row(&call)
    });
    rows.finish(end)?;
    if let Some(limit) = arguments.limit.filter(|_| cut) {
        let calls = counted(limit, "call");
        eprintln!("palang: there are more than {calls}; omit --limit to show all");
    }
    Ok(Exit::Done)
}

fn show(arguments: &Show, client: &Client) -> Result<Exit, Failure> {
    let id = arguments.id.to_string();
    let shown: CallShown = client.get(&client::path(&["calls", &id], &[]), client::LONG)?;
    if arguments.output.format != Format::Raw {
        arguments.output.print(&shown)?;
        return Ok(Exit::Done);
    }
    let Some(evidence) = shown.evidence else {
        let message = format!("no INVITE of call {id} is kept: see [evidence] in palang.toml");
        return Err(Failure::new(Exit::NotFound, message));
    };
    let frame = evidence.bytes().unwrap_or_default();
    let message = udp_payload(&frame).unwrap_or_default();
    let mut out = io::stdout().lock();
    output::written(out.write_all(message).and_then(|()| out.flush()))?;
    Ok(Exit::Done)
}

impl Answer for CallShown {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        for (name, cell) in Call::COLUMNS.iter().zip(self.call.cells()) {
            output::field(writer, name, &cell)?;
        }
        output::field(writer, "identity", &known(self.call.identity.as_ref()))?;
        if let Some(unread) = &self.call.unread {
            output::field(writer, "unread", &output::clean(unread))?;
        }
        if self.call.attempts > 1 {
            let more = counted(self.call.attempts - 1, "further refused attempt");
            output::field(
                writer,
                "",
                &format!("this attempt, and {more} of this caller within the same minute"),
            )?;
        }
        let Some(evidence) = &self.evidence else {
            return output::field(writer, "INVITE", "not kept");
        };
        let kept = evidence.bytes().map_or(0, |frame| frame.len() as u64);
        let length = match u64::from(evidence.frame_len) {
            whole if whole > kept => format!("a frame of {whole} bytes, of which {kept} were kept"),
            whole => format!("a frame of {whole} bytes"),
        };
        output::field(writer, "INVITE", &length)?;
        writeln!(writer)?;
        // The caller writes the message, so control characters are removed.
        evidence.message.lines().try_for_each(|line| writeln!(writer, "  {}", output::clean(line)))
    }

    /// Returns the raw fields; not used, because the raw output is the message itself.
    fn raw(&self) -> Vec<Vec<String>> {
        vec![self.call.raw()]
    }
}

fn export(arguments: &Export, client: &Client) -> Result<Exit, Failure> {
    let path = arguments.file.as_deref();
    let mut writer = csv::Writer::from_writer(WholeFile::create(path)?);
    let (mut rows, mut result) = (0, Ok(()));
    let end = client.list(&arguments.filter.path(None), |call: Call| {
        // The header is written with the first row, so that a refused request writes nothing.
        if rows == 0 {
            result = writer.write_record(CSV);
        }
        rows += 1;
        if result.is_ok() {
            result = writer.write_record(csv_cells(&call));
        }
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if rows == 0 && end.is_ok() {
        result = writer.write_record(CSV);
    }
    let file = result
        .map_err(io::Error::from)
        .and_then(|()| writer.into_inner().map_err(csv::IntoInnerError::into_error));
    match file {
        Ok(file) => atomic_file::finish(file, Ok(()), end)?,
        Err(error) => output::written(Err(error))?,
    }
    Exported::print(path, rows, "call", arguments.output)?;
    Ok(Exit::Done)
}

/// Header of an export: the fields of a raw line.
const CSV: [&str; 15] = [
    "time",
    "caller",
    "trunk",
    "source",
    "verdict",
    "policy_verdict",
    "reason",
    "rule",
    "identity",
    "repeats",
    "call_id",
    "id",
    "attempts",
    "unread",
    "reply",
];

/// Returns the cells of a call; unknown values are empty.
fn csv_cells(call: &Call) -> [String; 15] {
    let text = |text: Option<&String>| text.map_or_else(String::new, |text| harmless(text));
    [
        call.time.to_string(),
        text(call.caller.as_ref()),
        text(call.trunk.as_ref()),
        harmless(&call.source),
        call.verdict.clone(),
        call.policy_verdict.clone(),
        call.reason.clone(),
        if call.rule == 0 { String::new() } else { call.rule.to_string() },
        text(call.identity.as_ref()),
        call.repeats.to_string(),
        text(call.call_id.as_ref()),
        call.id.to_string(),
        call.attempts.to_string(),
        text(call.unread.as_ref()),
        call.reply.map_or_else(String::new, |code| code.to_string()),
    ]
}

impl Row for Call {
    const NOUN: &'static str = "call";
    const COLUMNS: &'static [&'static str] = &[
        "id", "time", "caller", "trunk", "source", "verdict", "reason", "rule", "attempts",
        "repeats", "Call-ID",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            time::local(self.time).to_string(),
            caller(self),
            known(self.trunk.as_ref()),
            self.source.clone(),
            self.verdict.clone(),
            reason(self),
            rule(self),
            thousands(self.attempts),
            self.repeats.to_string(),
            known(self.call_id.as_ref()),
        ]
    }

    fn raw(&self) -> Vec<String> {
        vec![
            self.time.to_string(),
            known(self.caller.as_ref()),
            known(self.trunk.as_ref()),
            self.source.clone(),
            self.verdict.clone(),
            self.policy_verdict.clone(),
            self.reason.clone(),
            rule(self),
            known(self.identity.as_ref()),
            self.repeats.to_string(),
            known(self.call_id.as_ref()),
            self.id.to_string(),
            self.attempts.to_string(),
            known(self.unread.as_deref().map(output::clean)),
            known(self.reply),
        ]
    }
}

fn rule(call: &Call) -> String {
    known((call.rule != 0).then_some(call.rule))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::Evidence;

    fn call(call_id: &str) -> Call {
        Call {
            id: 7,
            time: Timestamp::UNIX_EPOCH,
            caller: Some("6281234567890".into()),
            trunk: None,
            source: "[2001:db8::1]:5060".into(),
            call_id: Some(call_id.into()),
            identity: Some("from".into()),
            verdict: "drop".into(),
            policy_verdict: "drop".into(),
            reason: "blocked-number".into(),
            rule: 3,
            repeats: 1,
            attempts: 1,
            unread: None,
            reply: None,
        }
    }

    #[test]
    fn export_has_no_formula_and_no_control_character() {
        for call_id in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1+1", "\r=1"] {
            let cells = csv_cells(&call(call_id));
            assert!(cells[10].starts_with('\''), "{cells:?}");
            assert!(!cells[10].contains(char::is_control), "{cells:?}");
        }
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(csv_cells(&call("a,\"b\"@x"))).unwrap();
        let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        let expected = "1970-01-01T00:00:00Z,6281234567890,,[2001:db8::1]:5060,drop,drop,\
                        blocked-number,3,from,1,\"a,\"\"b\"\"@x\",7,1,,\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn unread_header_field_turns_no_line_and_hides_nothing() {
        let unread = Some("\"Jane \u{202e}Doe\u{e0031}\u{200b}\" <sip:a@x>".to_owned());
        let call = Call { caller: None, unread, ..call("1") };
        let shown = "\"Jane \u{fffd}Doe\u{fffd}\u{fffd}\" <sip:a@x>";
        assert_eq!(call.cells()[2], format!("?{shown}"));
        assert_eq!(call.raw()[13], shown);
        assert_eq!(csv_cells(&call)[13], shown);
    }

    #[test]
    fn columns_of_the_readme_are_those_of_the_table() {
        let readme = include_str!("../../../../README.md");
        let header = readme.lines().find(|line| line.starts_with(" id ")).unwrap();
        assert_eq!(header.split_whitespace().collect::<Vec<_>>(), Call::COLUMNS);
    }

    #[test]
    fn message_is_shown_without_control_characters() {
        let mut frame = Vec::new();
        etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(5060, 5060)
            .write(&mut frame, b"INVITE sip:112@x SIP/2.0\r\nX: \x1b[2J\r\n\r\n")
            .unwrap();
        let evidence = Evidence::new(7, Timestamp::UNIX_EPOCH, 3000, &frame);
        assert_eq!(evidence.bytes().unwrap(), frame);
        let table = |shown: &CallShown| {
            let mut text = Vec::new();
            shown.write_table(&mut text).unwrap();
            String::from_utf8(text).unwrap()
        };
        let text = table(&CallShown { call: call("1"), evidence: Some(evidence) });
        assert!(text.ends_with("  INVITE sip:112@x SIP/2.0\n  X: \u{fffd}[2J\n  \n"), "{text:?}");
        assert!(text.contains("a frame of 3000 bytes, of which"), "{text}");
        assert!(!text.contains('\x1b'));
        let text = table(&CallShown { call: call("1"), evidence: None });
        assert!(text.ends_with("INVITE      not kept\n"), "{text:?}");
    }
}
