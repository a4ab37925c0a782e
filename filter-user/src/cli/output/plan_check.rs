//! How well numbering plans fit calls.

use std::io::{self, Write};

use serde::Serialize;

use crate::cli::output::not_judged::not_judged;
use crate::cli::output::{self, Answer, counted};
use crate::replay::frames::Skipped;
use crate::replay::plan_check::records::RecordCheck;
use crate::replay::plan_check::{PlanCheck, TrunkCheck};

/// The findings, as `palang plan check` and `palang setup` print them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Checked {
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
    /// The findings of each trunk with calls.
    trunks: Vec<TrunkCheck>,
}

impl Checked {
    /// Returns the findings on captures.
    pub(crate) fn of_captures(mut check: PlanCheck) -> Checked {
        let (frames, outside) = (Some(check.frames), check.outside);
        let skipped = std::mem::take(&mut check.reader.skipped);
        Checked { frames, records: None, outside, skipped, trunks: check.finish() }
    }

    /// Returns the findings on call records.
    pub(crate) fn of_records(check: RecordCheck) -> Checked {
        let (records, outside) = (Some(check.records), check.outside);
        let (skipped, trunks) = (Skipped::default(), check.finish());
        Checked { frames: None, records, outside, skipped, trunks }
    }
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
            if self.records.is_some() && !trunk.unread.is_empty() && trunk.examples.is_empty() {
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
