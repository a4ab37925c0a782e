//! `palang daemon`.

use std::path::PathBuf;

use clap::Args;

use crate::config::limits;
use crate::daemon;
use crate::exit::Failure;

/// Load and attach the filter and serve the API (run by the service)
///
/// palang daemon --config palang.toml
///
/// Attaches to the interfaces in the configuration. The filter stays in force however the daemon
/// ends; `palang detach` removes it. SIGHUP reloads the configuration. SIGUSR1 compares the store
/// with the kernel's maps now; this also happens every minute.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", default_value = limits::PATH)]
    config: PathBuf,
}

/// Runs the daemon.
///
/// # Errors
/// See [`daemon::run`].
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    daemon::run(&arguments.config)
}
