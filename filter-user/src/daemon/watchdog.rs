//! Reports to systemd that the daemon lives.

use std::time::Duration;

use crate::daemon::app::App;

/// Notifies systemd each time after the maps were read and a client could have been answered. A
/// store that hangs is no reason to be killed: the override has to work.
pub(crate) async fn watchdog(app: App, limit: Duration) {
    let mut tick = tokio::time::interval(limit / 3);
    loop {
        tick.tick().await;
        let status = tokio::time::timeout(limit / 3, app.status()).await;
        let text = match status {
            Ok(Ok(status)) => match status.findings.first() {
                Some(finding) => finding.message.clone(),
                None => format!("{} blocks, mode {}", status.blocks.unwrap_or(0), status.mode.mode),
            },
            Ok(Err(problem)) => {
                tracing::error!(problem = %problem.message, "unhealthy");
                continue;
            }
            Err(_) if app.control.maps.settings().is_ok() => "the store does not answer".to_owned(),
            Err(_) => continue,
        };
        let _ = sd_notify::notify(&[
            sd_notify::NotifyState::Watchdog,
            sd_notify::NotifyState::Status(&text),
        ]);
    }
}
