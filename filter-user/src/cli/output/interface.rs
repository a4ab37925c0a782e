//! Describes an interface and the filter on it.

use clap::ValueEnum;

use crate::api::wire::Interface;
use crate::cli::output::known;

/// Where the program runs.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Name {
    /// In the network driver
    Native,
    /// After the driver: slower, but works on any interface
    Generic,
    /// In the driver if it can, otherwise after it
    NativeOrGeneric,
}

/// Describes the filter on an interface: `ens1: native (program 42)`, and its problem.
#[must_use]
pub fn describe(interface: &Interface) -> String {
    let program = interface.program.map(|id| format!("program {id}"));
    let mut text = match (&interface.xdp, program) {
        (Some(xdp), Some(program)) => format!("{}: {xdp} ({program})", interface.name),
        (Some(xdp), None) => format!("{}: {xdp}", interface.name),
        (None, Some(program)) => format!("{}: not ours ({program})", interface.name),
        (None, None) => format!("{}: no filter", interface.name),
    };
    if let Some(problem) = &interface.problem {
        text += &format!(": {problem}");
    }
    text
}

/// Returns the fields of the raw line.
#[must_use]
pub fn fields(interface: &Interface) -> Vec<String> {
    vec![
        interface.name.clone(),
        known(interface.index),
        known(interface.xdp.as_ref()),
        known(interface.program),
        known(interface.problem.as_ref()),
    ]
}
