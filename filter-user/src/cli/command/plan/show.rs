//! `palang plan show`.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use crate::cli::command::plan::which::Which;
use crate::cli::output::{self, Answer, Output, Row, known};
use crate::config::effective::EffectiveProfile;
use crate::exit::{Exit, Failure};
use crate::model::plan::example::{Example, examples};
use crate::model::plan::format::Format;
use crate::model::plan::preset::Preset;
use crate::model::plan::presets;
use crate::model::policy::Trunk;

/// Show the numbering plan of each trunk, or of a country, with an example of each format
///
/// palang plan show --country ID
///
/// Raw: plan, format or setting, example or value, number.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    which: Which,
    /// List the presets of all countries
    #[arg(long, conflicts_with_all = ["trunk", "country"])]
    all: bool,
    #[command(flatten)]
    output: Output,
}

/// Prints the plans.
pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    if arguments.all {
        let mut list = arguments.output.list();
        for preset in presets::all() {
            if list.row(&Listed::of(preset)).is_break() {
                break;
            }
        }
        list.finish(Ok(()))?;
        return Ok(Exit::Done);
    }
    let plans = arguments.which.all()?.iter().map(Shown::of).collect();
    arguments.output.print(&Plans { plans })?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Plans {
    plans: Vec<Shown>,
}

/// A plan with its examples.
#[derive(Serialize)]
struct Shown {
    /// Name of the trunk or preset.
    plan: String,
    settings: EffectiveProfile,
    examples: Vec<Example>,
}

impl Shown {
    fn of(trunk: &Trunk) -> Shown {
        Shown {
            plan: trunk.name.clone(),
            settings: EffectiveProfile::of(trunk, trunk),
            examples: examples(&trunk.profile.plan, trunk.country, &trunk.contexts),
        }
    }
}

impl Answer for Plans {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        for (index, shown) in self.plans.iter().enumerate() {
            if index > 0 {
                writeln!(writer)?;
            }
            writeln!(writer, "{}", output::clean(&shown.plan))?;
            for (name, value) in shown.settings.lines() {
                writeln!(writer, "  {name:<22} {}", output::clean(&value))?;
            }
            let rows = shown.examples.iter().map(|example| {
                let reading = example.reading();
                vec![format!("  {}", example.format), example.text.clone(), reading]
            });
            let columns = ["  format", "example", "is read as"];
            writeln!(writer, "\n{}", output::table(Some(&columns), rows).trim_fmt())?;
        }
        Ok(())
    }

    fn raw(&self) -> Vec<Vec<String>> {
        let mut lines = Vec::new();
        for shown in &self.plans {
            for (name, value) in shown.settings.lines() {
                lines.push(vec![shown.plan.clone(), name.to_owned(), value, "-".to_owned()]);
            }
            for example in &shown.examples {
                let number = known(example.number.as_ref());
                let format = example.format.clone();
                lines.push(vec![shown.plan.clone(), format, example.text.clone(), number]);
            }
        }
        lines
    }
}

/// A preset in the list.
#[derive(Serialize)]
struct Listed {
    country: &'static str,
    country_code: &'static str,
    trunk_prefix: &'static str,
    international_prefixes: &'static [&'static str],
    national_lengths: &'static [&'static str],
    leading_zero: bool,
    formats: &'static [Format],
}

impl Listed {
    fn of(preset: &Preset) -> Listed {
        Listed {
            country: preset.country,
            country_code: preset.code,
            trunk_prefix: preset.trunk_prefix,
            international_prefixes: preset.international,
            national_lengths: preset.lengths,
            leading_zero: preset.leading_zero,
            formats: preset.formats,
        }
    }
}

impl Row for Listed {
    const NOUN: &'static str = "preset";
    const COLUMNS: &'static [&'static str] =
        &["country", "code", "trunk prefix", "international prefixes", "formats", "lengths"];

    fn cells(&self) -> Vec<String> {
        self.raw()
    }

    fn raw(&self) -> Vec<String> {
        let formats: Vec<_> = self.formats.iter().map(|format| format.name()).collect();
        let fields = [
            self.country,
            self.country_code,
            self.trunk_prefix,
            &self.international_prefixes.join(" "),
            &formats.join(" "),
            &self.national_lengths.join("; "),
        ];
        fields.map(|field| known((!field.is_empty()).then_some(field))).to_vec()
    }
}
