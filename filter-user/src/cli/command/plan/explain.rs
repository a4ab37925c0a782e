//! `palang plan explain`.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use crate::cli::command::plan::which::Which;
use crate::cli::output::{self, Answer, Output, known};
use crate::exit::{Exit, Failure};
use crate::model::plan::explain::{Explanation, explain};

/// Show step by step how a plan reads a text, and which setting would read it if the plan does not
///
/// palang plan explain 'tel:0812-3456-7890;phone-context=+62'
///
/// The text is a number as people write it, or a SIP or tel URI as in From or P-Asserted-Identity.
/// Exit code 4: the plan reads no number, so a call with this text passes.
///
/// Raw: number, reason, step, result; then one line per setting: `-`, `setting`, setting, number.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Number or URI
    #[arg(value_name = "TEXT")]
    text: String,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    output: Output,
}

/// Prints the explanation.
pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let trunk = arguments.which.one()?;
    let explanation = explain(&arguments.text, &trunk.profile.plan, &trunk.contexts);
    let is_read = explanation.number.is_some();
    arguments.output.print(&Explained { plan: trunk.name, explanation })?;
    Ok(if is_read { Exit::Done } else { Exit::NotFound })
}

#[derive(Serialize)]
struct Explained {
    /// Name of the trunk or preset.
    plan: String,
    #[serde(flatten)]
    explanation: Explanation,
}

impl Answer for Explained {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        let Explanation { text, number, local, reason, steps, settings } = &self.explanation;
        let outcome = match (number, reason) {
            (Some(number), _) if *local => format!("is the local number {number}"),
            (Some(number), _) => format!("is +{number}"),
            (None, reason) => format!("is no number: a call passes as {}", known(reason.as_ref())),
        };
        writeln!(writer, "{}", output::clean(&format!("{text}: {outcome} ({})", self.plan)))?;
        let rows = steps.iter().map(|step| vec![step.step.clone(), step.result.clone()]);
        writeln!(writer, "\n{}", output::table(Some(&["step", "result"]), rows).trim_fmt())?;
        if settings.is_empty() {
            return Ok(());
        }
        let rows =
            settings.iter().map(|each| vec![each.setting.clone(), format!("+{}", each.number)]);
        let columns = ["setting that would read it", "as"];
        writeln!(writer, "\n{}", output::table(Some(&columns), rows).trim_fmt())
    }

    fn raw(&self) -> Vec<Vec<String>> {
        let Explanation { number, reason, steps, settings, .. } = &self.explanation;
        let fields = |step: &str, result: &str| {
            let (number, reason) = (known(number.as_ref()), known(reason.as_ref()));
            vec![number, reason, step.to_owned(), result.to_owned()]
        };
        let steps = steps.iter().map(|step| fields(&step.step, &step.result));
        let settings = settings.iter().map(|each| {
            vec!["-".to_owned(), "setting".to_owned(), each.setting.clone(), each.number.clone()]
        });
        steps.chain(settings).collect()
    }
}
