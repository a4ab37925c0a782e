//! Handles the signals: reload, comparison and end.

use std::sync::PoisonError;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::config::Config;
use crate::daemon::app::App;
use crate::daemon::command::redirect;
use crate::exit::{Exit, Failure};
use crate::store::Entry;
use crate::sys::clock;

/// Waits for signals: SIGHUP reads the configuration again, SIGUSR1 compares store and maps now,
/// SIGTERM and SIGINT end the daemon.
pub(crate) async fn wait_for_signal(app: &App, compare: &Notify) -> Result<(), Failure> {
    let wait = |kind| signal(kind).map_err(|error| Failure::new(Exit::Failed, error));
    let mut hangup = wait(SignalKind::hangup())?;
    let mut user1 = wait(SignalKind::user_defined1())?;
    let mut terminate = wait(SignalKind::terminate())?;
    let mut interrupt = wait(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = hangup.recv() => reload(app, compare).await,
            _ = user1.recv() => compare.notify_one(),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    Ok(())
}

/// Reads the configuration again. If it has an error, the old one remains in force.
pub(crate) async fn reload(app: &App, compare: &Notify) {
    let old = app.control.config();
    let read = Config::read(&old.path).map_err(|error| error.to_string()).and_then(|new| {
        let cannot = old.changes_needing_restart(&new);
        if cannot.is_empty() {
            Ok(new)
        } else {
            Err(format!("{} cannot change while the daemon runs: restart it", cannot.join(", ")))
        }
    });
    let read = match read {
        Ok(new) => match redirect::untested(&app.control.store_handle, &new).await {
            Some(why) => Err(why),
            None => Ok(new),
        },
        Err(error) => Err(error),
    };
    let done = read.and_then(|new| {
        let interfaces = new.interfaces.clone();
        app.control.set_config(new).map_err(|problem| problem.message)?;
        app.control.chores.note(redirect::UNTESTED, None);
        Ok(interfaces)
    });
    let entry = Entry::new(clock::now(), "daemon", "reload");
    let problem = match done {
        Ok(interfaces) => {
            let gone: Vec<_> =
                old.interfaces.iter().filter(|name| !interfaces.contains(name)).cloned().collect();
            app.attachments.leave(&gone).await;
            app.attachments.settle().await;
            tracing::info!("the configuration was read again");
            app.evidence.configure(app.control.config().evidence.is_some());
            if app.control.config().redial != old.redial {
                compare.notify_one();
            }
            app.control.store_handle.write_behind(move |store| store.audit(entry.clone())).await;
            None
        }
        Err(error) => {
            tracing::error!(%error, "the old configuration remains in force");
            Some(error)
        }
    };
    *app.config_problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
}
