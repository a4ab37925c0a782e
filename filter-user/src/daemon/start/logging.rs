//! Starts the log.

use std::io;

/// Logs to the journal if systemd runs us, otherwise to standard error.
pub(crate) fn log() {
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;
    let filter = tracing_subscriber::EnvFilter::try_from_env("PALANG_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let done = match journal {
        Some(journal) => registry.with(journal).try_init(),
        None => {
            let plain = tracing_subscriber::fmt::layer().with_writer(io::stderr).without_time();
            registry.with(plain.with_target(false)).try_init()
        }
    };
    if let Err(error) = done {
        eprintln!("palang: no log: {error}");
    }
}
