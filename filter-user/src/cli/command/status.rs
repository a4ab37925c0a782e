//! `palang status`.

use std::io::{self, Write};

use clap::Args;
use filter_common::reason::{Fate, Reason};

use crate::api::client::Client;
use crate::api::wire::{Health, Records, Replies, Status};
use crate::cli::fallback::or_directly;
use crate::cli::input::time;
use crate::cli::output::in_force::ask;
use crate::cli::output::{
    self, Answer, Output, counted, interface, known, mode, r#override, thousands,
};
use crate::exit::{Exit, Failure};
use crate::offline;

/// Show the state of the gate: green, amber or red, and why
///
/// palang status
///
/// palang status --exit-code || notify-send 'look at the gate'
///
/// Works for root when the daemon does not answer.
///
/// Raw: one line per item, with its name and its value.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Exit 20 if the state is amber, and 21 if it is red
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Prints the status.
///
/// # Errors
/// `NoDaemon` if neither the daemon nor the kernel's maps can be read.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    let status = or_directly(ask(client), offline::status)?.0;
    arguments.output.print(&status)?;
    Ok(match status.colour {
        _ if !arguments.exit_code => Exit::Done,
        Health::Green => Exit::Done,
        Health::Amber => Exit::Amber,
        Health::Red => Exit::Red,
    })
}

/// Returns the numbers of refused and passed packets, without the ACKs for replies.
pub(crate) fn packets(status: &Status) -> (u64, u64) {
    let refuses = |name: &str| {
        let mut reasons = Reason::ALL.iter();
        reasons.any(|reason| reason.name() == name && reason.fate() == Fate::Refuse)
    };
    let mut counts = (0, 0);
    let ack = Reason::RefusalAck.name();
    for (reason, count) in status.packets.iter().filter(|(reason, _)| *reason != ack) {
        let side = if refuses(reason) { &mut counts.0 } else { &mut counts.1 };
        *side += count;
    }
    counts
}

pub(crate) fn colour(colour: Health) -> &'static str {
    match colour {
        Health::Green => "GREEN",
        Health::Amber => "AMBER",
        Health::Red => "RED",
    }
}

impl Answer for Status {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        if self.findings.is_empty() {
            writeln!(writer, "{:<5}  no problems found", colour(self.colour))?;
        }
        for (index, finding) in self.findings.iter().enumerate() {
            // The first line shows the overall state, not the colour of the first finding.
            let name = colour(if index == 0 { self.colour } else { finding.colour });
            writeln!(writer, "{name:<5}  {}", output::clean(&finding.message))?;
        }
        writeln!(writer)?;
        let mut field = |label, text: &str| output::field(writer, label, text);
        field("mode", &mode::describe(&self.mode))?;
        field("override", &r#override::describe(&self.r#override))?;
        if self.interfaces.is_empty() {
            field("interfaces", "none")?;
        }
        for (index, interface) in self.interfaces.iter().enumerate() {
            let label = if index == 0 { "interfaces" } else { "" };
            field(label, &interface::describe(interface))?;
        }
        let number = |count: Option<u64>| count.map_or_else(|| "?".to_owned(), thousands);
        let room = thousands(self.blocks_capacity);
        field("blocks", &format!("{} of {room}", number(self.blocks)))?;
        field("allows", &number(self.allows))?;
        let (refused, passed) = packets(self);
        let passed = thousands(passed);
        field("packets", &format!("{} refused, {passed} passed", thousands(refused)))?;
        let passes = counted(self.passed_lost, "pass").replace("passs", "passes");
        let lost =
            format!("{} and {passes} without a record", counted(self.refused_lost, "refusal"));
        field("lost", &lost)?;
        for (trunk, thinned) in self.attempts.iter().flat_map(|attempts| &attempts.thinned) {
            let thinned = counted(*thinned, "refusal");
            field("", &format!("{thinned} in floods on {trunk} without a record, only counted"))?;
        }
        for (index, replies) in self.replies.iter().enumerate() {
            field(if index == 0 { "replies" } else { "" }, &describe_replies(replies))?;
        }
        let list =
            if self.reviews.is_some_and(|open| open > 0) { ": palang review list" } else { "" };
        field("reviews", &format!("{} open{list}", number(self.reviews)))?;
        let reattached = thousands(self.reattached);
        field(
            "repaired",
            &format!("{} in the maps, {reattached} re-attached", thousands(self.drift)),
        )?;
        field("audit head", &known(self.audit_head.as_ref()))?;
        let since = self.since.map_or_else(String::new, |since| {
            let ago = time::distance(since, jiff::Timestamp::now());
            format!(", since {} ({ago})", time::local(since))
        });
        let answers =
            if self.daemon { "" } else { "DOES NOT ANSWER; read from the kernel's maps by " };
        field("daemon", &format!("{answers}{}{since}", self.version))
    }

    fn raw(&self) -> Vec<Vec<String>> {
        let mut lines = vec![
            vec!["colour".to_owned(), colour(self.colour).to_lowercase()],
            vec!["daemon".to_owned(), if self.daemon { "yes" } else { "no" }.to_owned()],
            vec!["version".to_owned(), self.version.clone()],
            vec!["since".to_owned(), known(self.since)],
            vec!["mode".to_owned(), self.mode.mode.clone(), known(self.mode.until)],
            vec!["override".to_owned(), known(self.r#override.until)],
            vec!["blocks".to_owned(), known(self.blocks), self.blocks_capacity.to_string()],
            vec!["allows".to_owned(), known(self.allows)],
            vec!["refused_lost".to_owned(), self.refused_lost.to_string()],
            vec!["passed_lost".to_owned(), self.passed_lost.to_string()],
            vec!["drift".to_owned(), self.drift.to_string()],
            vec!["reattached".to_owned(), self.reattached.to_string()],
            vec!["audit_head".to_owned(), known(self.audit_head.as_ref())],
            vec!["reviews".to_owned(), known(self.reviews)],
        ];
        if let Some(attempts) = &self.attempts {
            for (ring, records) in [("refused", attempts.refused), ("passed", attempts.passed)] {
                let Records { judged, recorded, waiting, thinned, lost } = records;
                let counts = [judged, recorded, waiting, thinned, lost].map(|n| n.to_string());
                lines.push([&["attempts".to_owned(), ring.to_owned()], &counts[..]].concat());
            }
            for (trunk, thinned) in &attempts.thinned {
                lines.push(vec!["thinned".to_owned(), trunk.clone(), thinned.to_string()]);
            }
        }
        for replies in &self.replies {
            let Replies {
                trunk,
                refuse,
                path,
                sent,
                repeated,
                acks,
                limited,
                damaged,
                impossible,
                by_daemon,
                without_daemon,
                failed,
                moved: _,
                problem: _,
            } = replies;
            let counts = [
                sent,
                repeated,
                acks,
                limited,
                damaged,
                impossible,
                by_daemon,
                without_daemon,
                failed,
            ]
            .map(u64::to_string);
            let names = ["replies".to_owned(), trunk.clone(), refuse.clone(), path.clone()];
            lines.push([&names[..], &counts[..]].concat());
        }
        for finding in &self.findings {
            let colour = colour(finding.colour).to_lowercase();
            lines.push(vec!["finding".to_owned(), colour, finding.message.clone()]);
        }
        for interface in &self.interfaces {
            let mut line = vec!["interface".to_owned()];
            line.extend(interface::fields(interface));
            lines.push(line);
        }
        for (reason, count) in &self.packets {
            lines.push(vec!["packets".to_owned(), reason.clone(), count.to_string()]);
        }
        lines
    }
}

/// Describes how a trunk refuses, and what became of its replies.
fn describe_replies(replies: &Replies) -> String {
    let Replies { trunk, refuse, path, sent, repeated, acks, limited, damaged, impossible, .. } =
        replies;
    let Replies { by_daemon, without_daemon, failed, moved, .. } = replies;
    let trunk = output::clean(trunk);
    let mut text = match &path[..] {
        "driver" => format!("{trunk}: {refuse}, "),
        "daemon" if *moved => format!("{trunk}: {refuse} by daemon after the driver, "),
        "daemon" | "both" => {
            format!("{trunk}: {refuse} by {path}, ").replace("by both", "by driver and daemon")
        }
        _ if refuse == "none" => return format!("{trunk}: no call is refused (esinet)"),
        _ if refuse == "drop" => format!("{trunk}: none, refused in silence; "),
        _ => format!("{trunk}: {refuse}, but now refused in silence; "),
    };
    let acks = counted(*acks, "ACK");
    text += &format!("{} sent, {acks}, {} again", thousands(*sent), thousands(*repeated));
    if *by_daemon > 0 && path != "daemon" {
        text += &format!(", {} by the daemon", thousands(*by_daemon));
    }
    for (count, what) in [
        (without_daemon, "in silence for want of a daemon"),
        (failed, "not sent by the daemon"),
        (limited, "above the limit"),
        (damaged, "with a wrong or missing checksum"),
        (impossible, "that cannot be answered"),
    ] {
        if *count > 0 {
            text += &format!(", {} {what}", thousands(*count));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::{Attempts, Finding, Interface};

    use crate::cli::output::in_force::gate;

    fn status() -> Status {
        Status {
            interfaces: vec![Interface {
                name: "ens1".into(),
                index: Some(3),
                xdp: Some("native".into()),
                program: Some(42),
                problem: None,
                carrier: Some(true),
                replies_by_daemon: None,
            }],
            blocks: Some(1234),
            allows: Some(2),
            packets: [("blocked-number", 5), ("refused-fragment", 1), ("not-blocked", 70)]
                .map(|(name, count)| (name.to_owned(), count))
                .into(),
            passed_lost: 1,
            audit_head: Some("17:ab".into()),
            reviews: Some(2),
            ..Status::sample()
        }
    }

    fn table(status: &Status) -> String {
        let mut text = Vec::new();
        status.write_table(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn status_page_has_every_field() {
        let page = table(&status());
        assert_eq!(
            page,
            "GREEN  no problems found\n\n\
             mode        enforce\n\
             override    off\n\
             interfaces  ens1: native (program 42)\n\
             blocks      1,234 of 1,000,000\n\
             allows      2\n\
             packets     6 refused, 70 passed\n\
             lost        0 refusals and 1 pass without a record\n\
             reviews     2 open: palang review list\n\
             repaired    0 in the maps, 0 re-attached\n\
             audit head  17:ab\n\
             daemon      0.1.0\n"
        );
    }

    #[test]
    fn status_accounts_for_every_attempt() {
        let records = Records { judged: 15, recorded: 9, waiting: 1, thinned: 4, lost: 1 };
        let thinned = [("telkom".to_owned(), 4)].into();
        let attempts = Attempts { refused: records, passed: Records::default(), thinned };
        let status = Status { attempts: Some(attempts), ..status() };
        let page = table(&status);
        let line = "            4 refusals in floods on telkom without a record, only counted\n";
        assert!(page.contains(&format!("without a record\n{line}reviews")), "{page}");
        let raw: Vec<_> = status.raw().iter().map(|line| line.join(" ")).collect();
        for line in ["attempts refused 15 9 1 4 1", "attempts passed 0 0 0 0 0", "thinned telkom 4"]
        {
            assert!(raw.iter().any(|found| found == line), "{line}: {raw:?}");
        }
    }

    #[test]
    fn first_line_shows_the_overall_state() {
        let finding = |colour, message: &str| Finding { colour, message: message.into() };
        let findings = vec![
            finding(Health::Red, "ens1: the filter is gone"),
            finding(Health::Amber, "SIP over TCP was seen"),
        ];
        let page = table(&Status {
            colour: Health::Red,
            findings,
            daemon: false,
            blocks: None,
            ..status()
        });
        assert!(
            page.starts_with("RED    ens1: the filter is gone\nAMBER  SIP over TCP was seen\n\n")
        );
        assert!(page.contains("blocks      ? of 1,000,000\n"), "{page}");
        assert!(page.contains("daemon      DOES NOT ANSWER; "), "{page}");
    }

    #[test]
    fn gate_is_described_by_mode_and_override() {
        let mut status = status();
        let enforce = gate(&status.mode, &status.r#override);
        assert_eq!(enforce, "mode enforce: blocked callers are refused");
        status.mode.mode = "observe".into();
        assert_eq!(gate(&status.mode, &status.r#override), "mode observe: no call is refused");
        status.r#override.until = Some(jiff::Timestamp::MAX);
        assert!(gate(&status.mode, &status.r#override).starts_with("override until "));
    }
}
