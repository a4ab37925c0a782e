//! `palang doctor`.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::Args;

use crate::bringup::doctor::{self, Check, State};
use crate::cli::output::checks::{count, table};
use crate::cli::output::{Format, Output, written};
use crate::config::limits;
use crate::exit::{Exit, Failure};

/// Check what the gate needs from this machine, and say how to fix problems
///
/// palang doctor
///
/// Needs no daemon and changes nothing. Exit code 1 if a check failed; warnings do not count.
/// Raw: state, check, interface, finding, fix.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Configuration file
    #[arg(long, env = "PALANG_CONFIG", value_name = "FILE", default_value = limits::PATH)]
    config: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// Runs every check and prints the results.
///
/// # Errors
/// `Failed` if a check failed or the output cannot be written.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failed, error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(&error))?;
    let checks = runtime.block_on(doctor::checks(&arguments.config));
    let text = match arguments.output.format {
        Format::Table => table(&checks),
        Format::Json => checks
            .iter()
            .map(|check| serde_json::to_string(check).map(|line| line + "\n"))
            .collect::<Result<_, _>>()
            .map_err(|error| failed(&error))?,
        Format::Raw => checks.iter().map(raw).collect(),
    };
    written(io::stdout().write_all(text.as_bytes()))?;
    match count(&checks, State::Fail) {
        0 => Ok(()),
        1 => Err(failed(&"1 check failed")),
        fails => Err(failed(&format!("{fails} checks failed"))),
    }
}

fn raw(check: &Check) -> String {
    let fields = [
        check.state.name(),
        check.check,
        check.interface.as_deref().unwrap_or("-"),
        &check.finding,
        check.mend.as_deref().unwrap_or("-"),
    ];
    let fields = fields.map(|field| field.replace(['\t', '\n'], " "));
    fields.join("\t") + "\n"
}
