//! `palang daemon`.

use std::path::PathBuf;

use clap::Args;

use crate::config;
use crate::daemon;
use crate::exit::Failure;

/// Load the filter, attach it and answer for it (the service runs this)
///
/// palang daemon --config palang.toml
///
/// Attaches to the interfaces of the configuration. When it ends, however it ends, the filter
/// stays in force; `palang detach` takes it out. SIGHUP reads the configuration again, SIGUSR1
/// compares the store with the kernel's maps now (it is done every minute anyway).
#[derive(Debug, Args)]
pub struct Arguments {
    /// Configuration (TOML)
    #[arg(long, value_name = "FILE", default_value = config::PATH)]
    config: PathBuf,
}

/// Runs the daemon.
///
/// # Errors
/// See [`daemon::run`].
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    daemon::run(&arguments.config)
}
