//! The strikes of a number, and the reports that count.

use std::io::{self, Write};
use std::ops::ControlFlow;

use jiff::Timestamp;
use serde::Serialize;

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::Report;
use crate::cli::output;
use crate::cli::output::Row;
use crate::model::ladder::decimal;

pub(crate) fn reports(
    client: &Client,
    number: Option<&str>,
    since: Option<Timestamp>,
    f: impl FnMut(Report) -> ControlFlow<()>,
) -> Result<(), client::Error> {
    let since = since.map(|since| since.to_string());
    let query = [("number", number), ("since", since.as_deref())];
    client.list(&client::path(&["reports"], &query), f)
}

/// Holds the strikes of a number and the reports that count.
#[derive(Debug, Default, Serialize)]
pub struct Strikes {
    pub(crate) strikes_hundredths: u32,
    pub(crate) reports: Vec<Report>,
}

impl Strikes {
    /// Returns the strikes of a number that count now, newest first; a prefix has none.
    ///
    /// # Errors
    /// Returns an error if the daemon refuses or cannot be reached.
    pub fn of(client: &Client, number: &str) -> Result<Strikes, client::Error> {
        let mut found = Strikes::default();
        if number.ends_with('*') {
            return Ok(found);
        }
        reports(client, Some(number), None, |report| {
            found.strikes_hundredths += report.counts_hundredths;
            if report.counts_hundredths > 0 {
                found.reports.push(report);
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Writes the strikes for people; nothing for a number without strikes.
    ///
    /// # Errors
    /// Returns the error of the writer.
    pub fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        if self.reports.is_empty() {
            return Ok(());
        }
        let rows = self.reports.iter().map(Row::cells);
        let table = output::table(Some(Report::COLUMNS), rows);
        let sum = decimal(self.strikes_hundredths);
        writeln!(writer, "\n{sum} strikes from these reports:\n{}", table.trim_fmt())
    }
}
