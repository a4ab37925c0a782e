//! Output of `palang what-if`: totals, then the numbers whose outcome changes.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use comfy_table::CellAlignment;
use filter_common::reason::Reason;
use serde::Serialize;

use crate::cli::output::{self, Answer, counted, known, thousands};
use crate::what_if::tally::{Counts, Difference, NumberRow, Tally};

/// The policy or the records to compare with.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// `file`, `in-force` or `recorded`.
    kind: &'static str,
    /// Name in the column header.
    pub name: String,
}

impl Compared {
    /// Returns the comparison with another policy file.
    pub fn file(path: &Path) -> Compared {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Compared { kind: "file", name }
    }

    /// Returns the comparison with the policy of the running daemon.
    pub fn in_force() -> Compared {
        Compared { kind: "in-force", name: "in force".to_owned() }
    }

    /// Returns the comparison with what happened to the recorded calls.
    pub fn recorded() -> Compared {
        Compared { kind: "recorded", name: "recorded".to_owned() }
    }
}

/// Holds the result of a comparison.
pub struct Comparison {
    /// The counts.
    pub tally: Tally,
    /// The other side of the comparison, if there is one.
    pub compared: Option<Compared>,
    /// Number of frames in the captures.
    pub frames: Option<u64>,
    numbers: Vec<NumberRow>,
    /// Maximum number of rows in the table.
    rows_max: Option<usize>,
}

/// The JSON form is a contract.
#[derive(Serialize)]
struct Json<'a> {
    frames: Option<u64>,
    calls: u64,
    policy: &'a Counts,
    compared_with: Option<&'a Compared>,
    baseline: Option<&'a Counts>,
    difference: Option<&'a Difference>,
    numbers: &'a [NumberRow],
}

impl Serialize for Comparison {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let baseline = self.tally.baseline.as_ref();
        let json = Json {
            frames: self.frames,
            calls: self.tally.calls,
            policy: &self.tally.policy,
            compared_with: self.compared.as_ref(),
            baseline: baseline.map(|(counts, _)| counts),
            difference: baseline.map(|(_, difference)| difference),
            numbers: &self.numbers,
        };
        json.serialize(serializer)
    }
}

impl Comparison {
    /// Returns the result; `frames` is the number of frames in the captures.
    pub fn new(tally: Tally, compared: Option<Compared>, frames: Option<u64>) -> Comparison {
        let numbers = tally.numbers();
        Comparison { tally, compared, frames, numbers, rows_max: None }
    }

    /// Limits the number of rows in the table.
    #[must_use]
    pub fn cut_to(self, rows_max: Option<usize>) -> Comparison {
        Comparison { rows_max, ..self }
    }

    fn totals(&self, writer: &mut dyn Write) -> io::Result<()> {
        let Tally { calls, policy, baseline, .. } = &self.tally;
        let baseline = baseline.as_ref().map(|(counts, _)| counts);
        let counts = [Some(policy), baseline].map(|counts| counts.cloned().unwrap_or_default());
        let mut reasons: BTreeSet<_> =
            counts.iter().flat_map(|counts| counts.passed.keys()).collect();
        // Redial grants have a line of their own.
        reasons.remove(&Reason::RedialGrant.name());
        let mut lines = vec![
            ("calls".to_owned(), [*calls; 2]),
            ("refused".to_owned(), counts.each_ref().map(|counts| counts.refused)),
            (
                "let through by a redial grant".to_owned(),
                counts.each_ref().map(|counts| counts.granted),
            ),
        ];
        lines.extend(reasons.into_iter().map(|reason| {
            let of = |counts: &Counts| counts.passed.get(reason).copied().unwrap_or(0);
            (format!("passed: {reason}"), counts.each_ref().map(of))
        }));
        let mut header = vec!["", "policy"];
        if let Some(compared) = &self.compared {
            header.extend([compared.name.as_str(), "difference"]);
        }
        let rows = lines.into_iter().map(|(label, [policy, baseline])| {
            let mut row = vec![label, thousands(policy)];
            if self.compared.is_some() {
                row.extend([thousands(baseline), signed(policy, baseline)]);
            }
            row
        });
        right(writer, &header, rows.collect())
    }

    fn rows(&self, writer: &mut dyn Write) -> io::Result<()> {
        let shown = &self.numbers[..self.numbers.len().min(self.rows_max.unwrap_or(usize::MAX))];
        let mut header = vec!["number", "refused", "let through"];
        let names = self.compared.as_ref().map(|compared| {
            [format!("refused, {}", compared.name), format!("let through, {}", compared.name)]
        });
        if let Some([refused, granted]) = &names {
            header.extend([refused.as_str(), granted, "change"]);
        }
        let rows = shown.iter().map(|row| {
            let counts = [Some(row.refused), Some(row.granted)];
            let counts = counts.into_iter().chain([row.baseline_refused, row.baseline_granted]);
            let counts = counts.flatten().map(thousands);
            let change = row.difference.as_ref().map(change);
            [row.number.clone()].into_iter().chain(counts).chain(change).collect()
        });
        right(writer, &header, rows.collect())?;
        let more = self.numbers.len() - shown.len();
        if more > 0 {
            writeln!(writer, "\nand {} (--all shows them)", counted(more as u64, "more number"))?;
        }
        Ok(())
    }
}

impl Answer for Comparison {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        let within = self
            .frames
            .map_or_else(String::new, |frames| format!(" in {}", counted(frames, "frame")));
        if self.tally.calls == 0 {
            let ports = self.frames.map_or("", |_| " on the policy's UDP ports");
            return writeln!(writer, "no calls{within}{ports}: nothing to judge");
        }
        writeln!(writer, "{}{within}\n", counted(self.tally.calls, "call"))?;
        self.totals(writer)?;
        let (some, none) = match self.compared {
            Some(_) => ("numbers whose outcome changes", "no number's outcome changes"),
            None => ("numbers that are refused or let through", "no number is refused"),
        };
        if self.numbers.is_empty() {
            return writeln!(writer, "\n{none}");
        }
        writeln!(writer, "\n{some}:\n")?;
        self.rows(writer)
    }

    fn raw(&self) -> Vec<Vec<String>> {
        let line = |row: &NumberRow| {
            let of = |count: fn(&Difference) -> u64| known(row.difference.as_ref().map(count));
            vec![
                row.number.clone(),
                row.refused.to_string(),
                row.granted.to_string(),
                known(row.baseline_refused),
                known(row.baseline_granted),
                of(|difference| difference.newly_refused),
                of(|difference| difference.newly_passed),
                of(|difference| difference.newly_granted),
                of(|difference| difference.no_longer_granted),
            ]
        };
        self.numbers.iter().map(line).collect()
    }
}

/// Writes a table with its counts aligned to the right.
fn right(writer: &mut dyn Write, header: &[&str], rows: Vec<Vec<String>>) -> io::Result<()> {
    let mut table = output::table(Some(header), rows.into_iter());
    for (column, name) in table.column_iter_mut().zip(header).skip(1) {
        if *name != "change" {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(writer, "{}", table.trim_fmt())
}

/// Formats a difference: `+3`, `-1`, `0`.
fn signed(now: u64, before: u64) -> String {
    match now.cmp(&before) {
        std::cmp::Ordering::Less => format!("-{}", thousands(before - now)),
        std::cmp::Ordering::Equal => "0".to_owned(),
        std::cmp::Ordering::Greater => format!("+{}", thousands(now - before)),
    }
}

/// Describes the changes of a number: `2 newly refused, 1 newly let through`.
fn change(difference: &Difference) -> String {
    let parts = [
        (difference.newly_refused, "newly refused"),
        (difference.newly_passed, "newly passed"),
        (difference.newly_granted, "newly let through"),
        (difference.no_longer_granted, "no longer let through"),
    ];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    parts.map(|(count, what)| format!("{} {what}", thousands(count))).collect::<Vec<_>>().join(", ")
}
