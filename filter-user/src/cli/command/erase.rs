//! `palang erase`.

use std::io::{self, Write};

use clap::Args;

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::Erasure;
use crate::cli::input::number;
use crate::cli::input::options::ChangeOptions;
use crate::cli::output::{self, Answer, Output, counted};
use crate::exit::{Exit, Failure};

/// Erase all data about a number; the audit keeps a pseudonym
///
/// palang erase --number 0812-3456-7890 --reason 'asked for by its owner, letter 12'
///
/// This cannot be undone. Exit 5 while a block, an allow or a redial grant for exactly this number is
/// in force: end it first. Exit 4 if there is no data. Free text (reasons, notes) is not searched,
/// and backups are not changed. Needs the role admin (docs/privacy.md).
///
/// Raw: number, pseudonym, calls, reports, reviews, audit rows, audit rows that keep the number.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The number in any usual spelling
    #[arg(long, value_name = "NUMBER", value_parser = number::given)]
    number: String,
    /// Reason; the audit keeps it, so do not put the number or a name in it
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    change: ChangeOptions,
    #[command(flatten)]
    output: Output,
}

/// Erases the data about a number.
///
/// # Errors
/// Returns an error if the daemon refuses or cannot be reached.
pub fn run(arguments: &Arguments, client: &Client) -> Result<Exit, Failure> {
    let dry_run = arguments.change.dry_run.then_some("true");
    let query = [("reason", Some(arguments.reason.as_str())), ("dry_run", dry_run)];
    let path = client::path(&["numbers", &arguments.number], &query);
    let erased: Erasure = client.delete(&path, client::LONG)?;
    arguments.output.print(&erased)?;
    Ok(Exit::Done)
}

impl Answer for Erasure {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        if self.dry_run {
            writeln!(writer, "dry run, nothing was changed")?;
        }
        let verb = if self.dry_run { "would erase" } else { "erased" };
        let counts = [
            counted(self.calls, "call"),
            counted(self.reports, "report"),
            counted(self.reviews, "review"),
        ];
        writeln!(writer, "{verb} {}: {}", output::clean(&self.number), counts.join(", "))?;
        let verb = if self.dry_run { "would show" } else { "now show" };
        let rows = counted(self.audit_rows, "audit row");
        writeln!(writer, "{rows} {verb} {} instead", output::clean(&self.pseudonym))?;
        self.notes.iter().try_for_each(|note| writeln!(writer, "note: {}", output::clean(note)))
    }

    fn raw(&self) -> Vec<Vec<String>> {
        let counts =
            [self.calls, self.reports, self.reviews, self.audit_rows, self.audit_rows_kept];
        let names = [self.number.clone(), self.pseudonym.clone()];
        vec![names.into_iter().chain(counts.map(|count| count.to_string())).collect()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(erased: &Erasure) -> Vec<String> {
        let mut text = Vec::new();
        erased.write_table(&mut text).unwrap();
        String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn erasure_shows_what_was_removed_and_what_stays() {
        let erased = Erasure {
            number: "6281234567890".into(),
            pseudonym: "#ab".into(),
            calls: 1,
            reports: 0,
            reviews: 2,
            audit_rows: 5,
            audit_rows_kept: 3,
            dry_run: false,
            notes: vec!["backups".into()],
        };
        assert_eq!(
            table(&erased),
            [
                "erased 6281234567890: 1 call, 0 reports, 2 reviews",
                "5 audit rows now show #ab instead",
                "note: backups",
            ]
        );
        assert_eq!(erased.raw(), [["6281234567890", "#ab", "1", "0", "2", "5", "3"]]);
        let lines = table(&Erasure { dry_run: true, ..erased });
        assert_eq!(lines[0], "dry run, nothing was changed");
        assert!(lines[1].starts_with("would erase 6281234567890"), "{lines:?}");
    }
}
