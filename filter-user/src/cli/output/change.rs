//! Prints a change of a block or an allow, and what is in force now.

use std::io::{self, Write};

use jiff::Timestamp;
use serde::Serialize;

use crate::api::client::Client;
use crate::api::wire::{Allow, Block, Change, Changed};
use crate::cli::output::in_force;
use crate::cli::output::{self, Answer, Format, Output, Row};
use crate::exit::Failure;

/// Names the party that carried out a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The daemon.
    Daemon,
    /// This command, directly on the kernel's maps.
    Offline,
}

/// A block or an allow, with the verbs of its changes.
pub trait Decision: Row {
    /// Returns the verb of an addition: `blocked`, or `block` in a dry run.
    fn added(dry_run: bool) -> &'static str;
    /// Returns the verb of a removal: `unblocked`, or `unblock` in a dry run.
    fn removed(dry_run: bool) -> &'static str;
    /// Returns the number or prefix.
    fn number(&self) -> &str;
    /// Returns the end.
    fn expires(&self) -> Option<Timestamp>;
    /// Returns the reason.
    fn why(&self) -> &str;
    /// Returns further details.
    fn besides(&self) -> String {
        String::new()
    }
}

impl Decision for Block {
    fn added(dry_run: bool) -> &'static str {
        if dry_run { "block" } else { "blocked" }
    }

    fn removed(dry_run: bool) -> &'static str {
        if dry_run { "unblock" } else { "unblocked" }
    }

    fn number(&self) -> &str {
        &self.number
    }

    fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    fn why(&self) -> &str {
        &self.reason
    }

    fn besides(&self) -> String {
        let refuse = match self.refuse.as_deref().filter(|_| !self.observe) {
            Some("drop") => ", without a reply".to_owned(),
            Some(code) => format!(", answered {code}"),
            None => String::new(),
        };
        let besides = match (self.observe, self.no_redial) {
            (true, _) => ", observe only",
            (false, true) => ", without redial grant",
            (false, false) => "",
        };
        besides.to_owned() + &refuse
    }
}

impl Decision for Allow {
    fn added(dry_run: bool) -> &'static str {
        if dry_run { "allow" } else { "allowed" }
    }

    fn removed(dry_run: bool) -> &'static str {
        if dry_run { "remove the allow for" } else { "removed the allow for" }
    }

    fn number(&self) -> &str {
        &self.number
    }

    fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    fn why(&self) -> &str {
        &self.comment
    }

    fn besides(&self) -> String {
        match &self.incident {
            Some(incident) => format!(", incident {incident}"),
            None => String::new(),
        }
    }
}

/// Prints a change.
///
/// # Errors
/// `Failed` if the output cannot be written.
pub fn print<D: Decision>(
    changed: &Changed<D>,
    by: By,
    client: &Client,
    output: Output,
) -> Result<(), Failure> {
    // A prefix has no single outcome, so show what the gate does in general.
    let gate = match (&changed.in_force, by, output.format) {
        (None, By::Daemon, Format::Table) => in_force::in_force(client),
        _ => None,
    };
    output.print(&Printed { changed, gate })?;
    output::warn_unless_persisted(&changed.persisted, changed.dry_run);
    Ok(())
}

#[derive(Serialize)]
#[serde(transparent)]
struct Printed<'a, D> {
    changed: &'a Changed<D>,
    #[serde(skip)]
    gate: Option<String>,
}

impl<D: Decision> Answer for Printed<'_, D> {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        let Changed { change, now, before, dry_run, in_force, notes, .. } = self.changed;
        if *dry_run {
            writeln!(writer, "dry run, nothing was changed")?;
        }
        let verb = match change {
            Change::Added | Change::Updated | Change::Unchanged => D::added(*dry_run),
            Change::Removed => D::removed(*dry_run),
        };
        let conditional = if *dry_run { "would " } else { "" };
        let ends = output::until(now.expires(), "for good");
        let ends = match change {
            Change::Added | Change::Updated | Change::Unchanged => format!(" {ends}"),
            Change::Removed => format!(", which was in force {ends}"),
        };
        let why = match now.why() {
            "" => String::new(),
            why => format!(": {why}"),
        };
        let line = format!("{conditional}{verb} {}{ends}{}{why}", now.number(), now.besides());
        writeln!(writer, "{}", output::clean(&line))?;
        match (change, before) {
            (Change::Updated, Some(before)) => {
                let was = output::until(before.expires(), "for good");
                let line = format!("updated: was {was}{}: {}", before.besides(), before.why());
                writeln!(writer, "{}", output::clean(line.trim_end_matches(": ")))?;
            }
            (Change::Unchanged, _) => writeln!(writer, "unchanged: already set")?,
            (Change::Added | Change::Updated | Change::Removed, _) => {}
        }
        let now = if *dry_run { " now" } else { "" };
        if let Some(outcome) = in_force.as_ref().map(output::outcome).or_else(|| self.gate.clone())
        {
            writeln!(writer, "in force{now}: {}", output::clean(&outcome))?;
        }
        notes.iter().try_for_each(|note| writeln!(writer, "note: {}", output::clean(note)))
    }

    fn raw(&self) -> Vec<Vec<String>> {
        vec![raw(self.changed)]
    }
}

/// Returns the fields of the raw line: the change, then the block or allow.
#[must_use]
pub fn raw<D: Decision>(changed: &Changed<D>) -> Vec<String> {
    let change = match changed.change {
        Change::Added => "added",
        Change::Updated => "updated",
        Change::Unchanged => "unchanged",
        Change::Removed => "removed",
    };
    let mut fields = vec![change.to_owned()];
    fields.extend(changed.now.raw());
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::{Check, Persisted};

    fn block(expires: Option<Timestamp>, reason: &str) -> Block {
        Block {
            id: uuid::Uuid::nil(),
            rule: 7,
            number: "6281234567890".into(),
            created: Timestamp::UNIX_EPOCH,
            expires,
            reason: reason.into(),
            author: "siti".into(),
            origin: "operator".into(),
            node: "edge1".into(),
            observe: false,
            redial: None,
            no_redial: false,
            refuse: None,
        }
    }

    fn changed(change: Change) -> Changed<Block> {
        let hours = |hours: i64| Timestamp::now() + jiff::SignedDuration::from_hours(hours);
        Changed {
            change,
            now: block(Some(hours(24)), "prank, case 118"),
            before: (change == Change::Updated).then(|| block(Some(hours(2)), "prank")),
            persisted: Persisted::Yes,
            dry_run: false,
            order: 7,
            in_force: Some(Check {
                number: "6281234567890".into(),
                verdict: "drop".into(),
                policy_verdict: "drop".into(),
                reason: "blocked-number".into(),
                rule: Some("block 6281234567890".into()),
                mode: "enforce".into(),
                override_until: None,
                granted: None,
                next_attempt: None,
            }),
            notes: vec!["a block for 62812* is there too".into()],
        }
    }

    fn table(changed: &Changed<Block>) -> Vec<String> {
        let mut text = Vec::new();
        Printed { changed, gate: None }.write_table(&mut text).unwrap();
        String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn change_shows_what_is_in_force() {
        let lines = table(&changed(Change::Added));
        assert!(lines[0].starts_with("blocked 6281234567890 until 20"), "{lines:?}");
        assert!(lines[0].ends_with(" (in 24 h): prank, case 118"), "{lines:?}");
        let force = "in force: this number is refused (drop, blocked-number, block 6281234567890)";
        assert_eq!(lines[1..], [force, "note: a block for 62812* is there too"]);
    }

    #[test]
    fn change_shows_what_was_before() {
        let lines = table(&changed(Change::Updated));
        assert!(lines[1].starts_with("updated: was until 20"), "{lines:?}");
        assert!(lines[1].ends_with("(in 2 h): prank"), "{lines:?}");
        assert_eq!(table(&changed(Change::Unchanged))[1], "unchanged: already set");
        let lines = table(&changed(Change::Removed));
        assert!(lines[0].starts_with("unblocked 6281234567890, which was in force until 20"));
    }

    #[test]
    fn dry_run_is_named_as_one() {
        let lines = table(&Changed { dry_run: true, ..changed(Change::Added) });
        assert_eq!(lines[0], "dry run, nothing was changed");
        assert!(lines[1].starts_with("would block 6281234567890 until "), "{lines:?}");
        assert!(lines[2].starts_with("in force now: "), "{lines:?}");
    }

    #[test]
    fn json_is_that_of_the_api() {
        let changed = changed(Change::Updated);
        let json = serde_json::to_value(Printed { changed: &changed, gate: Some("x".into()) });
        assert_eq!(json.unwrap(), serde_json::to_value(&changed).unwrap());
    }
}
