//! `palang report`.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use jiff::Timestamp;

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::{AddReport, Change, Report, Reported};
use crate::cli::input::options::{Caller, ChangeOptions};
use crate::cli::input::{number, time};
use crate::cli::output::strikes::reports;
use crate::cli::output::{self, Answer, Output, Row, known};
use crate::exit::{Exit, Failure};
use crate::model::ladder::{ReportKind, decimal};

/// Report what kind of call a call was, and list such reports
///
/// palang report add 0812-3456-7890 --kind prank --call-id 7f3a@pbx --note 'laughter'
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Add(Add),
    List(List),
}

/// Report a call
///
/// palang report add 0812-3456-7890 --kind prank --call-id 7f3a@pbx --note 'laughter'
///
/// The report is a strike if a call of the last 24 h with this number and Call-ID passed. The trunk of
/// that call must be trusted for its numbers. The ladder (docs/ladder.toml) decides what strikes lead to. Any
/// other report is recorded and goes to the review list, but blocks nobody. A second report of a
/// call replaces the first. Exit 6: recorded, but the block that should follow was not set.
///
/// Raw: the report as in the list, strikes of the number, end of the ladder's block, review. Before the
/// review come the attempts for the next redial grant, if a grant was ended.
#[derive(Debug, Args)]
pub(crate) struct Add {
    #[command(flatten)]
    pub(crate) caller: Caller,
    /// Kind of call; `silent` if nobody spoke
    #[arg(long)]
    pub(crate) kind: ReportKind,
    /// Call-ID of the call, as the console shows it; in full, even if `palang calls` cuts it short
    #[arg(long, value_name = "ID")]
    pub(crate) call_id: Option<String>,
    /// Free text
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) note: String,
    #[command(flatten)]
    pub(crate) change: ChangeOptions,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// List reports of calls, newest first
///
/// palang report list 0812-3456-7890 --since 30d
///
/// Raw: id, time, number, kind, strikes it counts now, why it does not count. Then of the call trunk,
/// reason and rule; then author, note, Call-ID, time of the call, number of the call.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only reports of this caller number
    #[arg(value_parser = number::given)]
    pub(crate) number: Option<String>,
    /// Start: 1h, 7d, '2026-11-25 18:20' local time, or RFC 3339
    #[arg(long, value_name = "DURATION|TIME", value_parser = time::since)]
    pub(crate) since: Option<Timestamp>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Runs the `palang report` command.
///
/// # Errors
/// `Partly` if the report was recorded but the block was not set; otherwise returns an error if the
/// daemon refuses or cannot be reached.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::Add(add) => {
            let what = AddReport {
                number: add.caller.number.clone(),
                kind: add.kind,
                call_id: add.call_id.clone(),
                note: add.note.clone(),
                dry_run: add.change.dry_run,
            };
            let path = client::path(&["reports"], &[]);
            let reported: Reported = client.post(&path, &what, client::LONG)?;
            add.output.print(&reported)?;
            if let Some(problem) = reported.problem.filter(|_| !add.change.dry_run) {
                let message = format!(
                    "the report is recorded, but the number was not blocked: {}",
                    problem.message
                );
                return Err(Failure::new(Exit::Partly, output::clean(&message)));
            }
        }
        Command::List(list) => {
            let mut rows = list.output.list();
            let end =
                reports(client, list.number.as_deref(), list.since, |report| rows.row(&report));
            rows.finish(end)?;
        }
    }
    Ok(Exit::Done)
}

impl Row for Report {
    const NOUN: &'static str = "report";
    const COLUMNS: &'static [&'static str] =
        &["id", "time", "number", "kind", "strike", "trunk", "author", "note", "Call-ID"];

    fn cells(&self) -> Vec<String> {
        let strike = match &self.why_not {
            Some(why) => format!("no: {why}"),
            None if self.counts_hundredths == 0 => "faded".to_owned(),
            None => decimal(self.counts_hundredths),
        };
        vec![
            known(self.id),
            time::local(self.time).to_string(),
            self.number.clone(),
            self.kind.to_string(),
            strike,
            known(self.trunk.as_ref()),
            self.author.clone(),
            self.note.clone(),
            known(self.call_id.as_ref()),
        ]
    }

    fn raw(&self) -> Vec<String> {
        vec![
            known(self.id),
            self.time.to_string(),
            self.number.clone(),
            self.kind.to_string(),
            decimal(self.counts_hundredths),
            known(self.why_not.as_ref()),
            known(self.trunk.as_ref()),
            known(self.reason.as_ref()),
            known((self.rule != 0).then_some(self.rule)),
            self.author.clone(),
            known(Some(&self.note).filter(|note| !note.is_empty())),
            known(self.call_id.as_ref()),
            known(self.call_time),
            known(self.call),
        ]
    }
}

/// Returns the attempt that opens a grant from now on, if a grant was ended.
pub(crate) fn attempts(reported: &Reported) -> Option<String> {
    let block = reported.grant_ended.as_ref()?;
    Some(known(block.redial.map(|redial| redial.attempts)))
}

impl Answer for Reported {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        let Reported { report, dry_run, .. } = self;
        let mut line = |text: &str| writeln!(writer, "{}", output::clean(text));
        if *dry_run {
            line("dry run, nothing was changed")?;
        }
        let id = report.id.map_or_else(String::new, |id| format!(" {id}"));
        let recorded = if *dry_run { "would record" } else { "recorded" };
        line(&format!("{recorded} report{id} of {}: {}", report.number, report.kind))?;
        match &report.why_not {
            Some(why) => line(&format!("not a strike: {why}"))?,
            None => line(&format!("counts as a strike: now {}", self.strikes))?,
        }
        if self.warning && report.strike {
            line("recorded as a warning: it blocks nothing")?;
        }
        let conditional = if *dry_run { "would be " } else { "" };
        if let (Some(block), Some(change)) = (&self.block, self.change) {
            let verb = match change {
                Change::Updated => "blocked longer",
                Change::Added | Change::Unchanged | Change::Removed => "blocked",
            };
            let end = output::until(block.expires, "for good");
            line(&format!("{conditional}{verb} {end}: {}", block.reason))?;
        }
        if let Some(block) = &self.grant_ended {
            let next = block.redial.map_or_else(String::new, |redial| {
                format!("; from now on attempt {} gets through", redial.attempts)
            });
            line(&format!("redial grant {conditional}ended by block {}{next}", block.number))?;
        }
        if self.needs_review {
            let which = self.review.map_or_else(String::new, |id| format!(", review {id}"));
            line(&format!("needs a review{which}: palang review list"))?;
        }
        if let Some(problem) = self.problem.as_ref().filter(|_| *dry_run) {
            line(&format!("would not be blocked: {}", problem.message))?;
        }
        let now = if *dry_run { " now" } else { "" };
        line(&format!("in force{now}: {}", output::outcome(&self.in_force)))?;
        self.notes.iter().try_for_each(|note| line(&format!("note: {note}")))
    }

    fn raw(&self) -> Vec<Vec<String>> {
        let mut fields = Row::raw(&self.report);
        fields.push(decimal(self.strikes_hundredths));
        fields.push(known(self.block.as_ref().and_then(|block| block.expires)));
        fields.push(known(attempts(self)));
        fields.push(known(self.review));
        vec![fields]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::{Block, Check, Problem, ProblemKind};
    use crate::model::redial::RedialPolicy;

    fn report(why_not: Option<&str>) -> Report {
        Report {
            id: Some(7),
            time: Timestamp::UNIX_EPOCH,
            number: "6281234567890".into(),
            kind: ReportKind::Prank,
            call_id: Some("7f3a@pbx".into()),
            call: Some(3),
            call_time: Some(Timestamp::UNIX_EPOCH),
            trunk: Some("telkom".into()),
            reason: Some("redial-grant".into()),
            rule: 0,
            strike: why_not.is_none(),
            counts_hundredths: if why_not.is_none() { 100 } else { 0 },
            why_not: why_not.map(str::to_owned),
            author: "siti".into(),
            note: String::new(),
        }
    }

    fn block() -> Block {
        Block {
            id: uuid::Uuid::nil(),
            rule: 9,
            number: "6281234567890".into(),
            created: Timestamp::UNIX_EPOCH,
            expires: Some(Timestamp::now() + jiff::SignedDuration::from_hours(24)),
            reason: "2.00 strikes: 2 prank".into(),
            author: "siti".into(),
            origin: "ladder".into(),
            node: "edge1".into(),
            observe: false,
            redial: Some(RedialPolicy { attempts: 4, window: 600, grant: 1800 }),
            no_redial: false,
            refuse: None,
        }
    }

    fn reported(why_not: Option<&str>) -> Reported {
        Reported {
            report: report(why_not),
            strikes_hundredths: 200,
            strikes: "2.00 strikes: 2 prank".into(),
            warning: false,
            change: Some(Change::Added),
            block: Some(block()),
            grant_ended: Some(block()),
            needs_review: true,
            review: Some(3),
            problem: None,
            in_force: Check {
                number: "6281234567890".into(),
                verdict: "drop".into(),
                policy_verdict: "drop".into(),
                reason: "blocked-number".into(),
                rule: None,
                mode: "enforce".into(),
                override_until: None,
                granted: None,
                next_attempt: None,
            },
            dry_run: false,
            notes: vec!["be careful".into()],
        }
    }

    fn table(reported: &Reported) -> Vec<String> {
        let mut text = Vec::new();
        reported.write_table(&mut text).unwrap();
        String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn report_that_is_a_strike_prints_every_consequence() {
        let lines = table(&reported(None));
        let [recorded, strike, blocked, ended, look, force, note] = &lines[..] else {
            panic!("{lines:?}")
        };
        assert_eq!(recorded, "recorded report 7 of 6281234567890: prank");
        assert_eq!(strike, "counts as a strike: now 2.00 strikes: 2 prank");
        assert!(blocked.starts_with("blocked until "), "{blocked}");
        assert!(blocked.ends_with("(in 24 h): 2.00 strikes: 2 prank"), "{blocked}");
        let by = "redial grant ended by block 6281234567890; from now on attempt 4 gets through";
        assert_eq!(ended, by);
        assert_eq!(look, "needs a review, review 3: palang review list");
        assert_eq!(force, "in force: this number is refused (drop, blocked-number)");
        assert_eq!(note, "note: be careful");
        let raw = Answer::raw(&reported(None));
        assert_eq!(raw[0].len(), 14 + 4);
        assert_eq!((&*raw[0][14], &*raw[0][16], &*raw[0][17]), ("2.00", "4", "3"));
    }

    #[test]
    fn report_that_is_not_a_strike_prints_why() {
        let not =
            Reported { block: None, change: None, grant_ended: None, ..reported(Some("why")) };
        let lines = table(&Reported { dry_run: true, ..not });
        assert_eq!(
            lines[..2],
            ["dry run, nothing was changed", "would record report 7 of 6281234567890: prank"]
        );
        assert_eq!(lines[2], "not a strike: why");
        let problem = Problem { kind: ProblemKind::Full, message: "full".into() };
        let full = Reported { dry_run: true, problem: Some(problem), ..reported(None) };
        assert!(table(&full).contains(&"would not be blocked: full".to_owned()));
        let warned = Reported { warning: true, block: None, change: None, ..reported(None) };
        assert_eq!(table(&warned)[2], "recorded as a warning: it blocks nothing");
    }

    #[test]
    fn report_row_shows_what_counts() {
        let strike = |report: &Report| Row::cells(report)[4].clone();
        assert_eq!(strike(&report(None)), "1.00");
        assert_eq!(strike(&report(Some("why"))), "no: why");
        assert_eq!(strike(&Report { counts_hundredths: 0, ..report(None) }), "faded");
        assert_eq!(Row::cells(&report(None)).len(), Report::COLUMNS.len());
    }
}
