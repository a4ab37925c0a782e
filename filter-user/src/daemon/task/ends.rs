//! Notices that a period of mode enforce, or an override, ran out. No command comes at that moment, so the daemon writes
//! the row of the audit and sends the event.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::broadcast;

use crate::api::wire::{Event, Problem};
use crate::daemon::state::Control;
use crate::inspect::{enforce_ended, override_ended};
use crate::store::{AuditFilter, Entry};
use crate::sys::clock;

/// Interval of the looks.
const TICK: Duration = Duration::from_secs(1);
/// The clock may have been set a little since a row was written.
const SLACK: SignedDuration = SignedDuration::from_secs(5);

/// Problem for the status: the settings cannot be read.
const FAILED: &str = "the end of mode enforce and of the override is not noticed";

/// A state that ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Period {
    Enforce,
    Override,
}

impl Period {
    /// Returns the action in the audit.
    fn action(self) -> &'static str {
        match self {
            Period::Enforce => "enforce ended",
            Period::Override => "override ended",
        }
    }

    /// Returns when it ended, in boot time; `None`: it lasts, or somebody ended it.
    fn end(self, control: &Control) -> Result<Option<u64>, Problem> {
        Ok(match self {
            Period::Enforce => enforce_ended(&control.maps.settings()?),
            Period::Override => override_ended(control.maps.pass_maps().override_until()?),
        })
    }

    fn event(self, until: Timestamp) -> Event {
        match self {
            Period::Enforce => Event::EnforceEnded { until },
            Period::Override => Event::OverrideEnded { until },
        }
    }
}

/// Watches both periods, and notes each end once, also one that came while no daemon ran.
pub async fn run(control: Arc<Control>, news: broadcast::Sender<Event>) {
    let mut tick = tokio::time::interval(TICK);
    let mut noted = [0; 2];
    loop {
        tick.tick().await;
        for (period, noted) in [Period::Enforce, Period::Override].into_iter().zip(&mut noted) {
            control.chores.tried(FAILED, look(&control, &news, period, noted).await);
        }
    }
}

async fn look(
    control: &Control,
    news: &broadcast::Sender<Event>,
    period: Period,
    noted: &mut u64,
) -> Result<(), Problem> {
    let Some(end) = period.end(control)?.filter(|end| end != noted) else { return Ok(()) };
    let until = clock::wall(end);
    if !has_row(control, period, until).await? {
        tracing::warn!(%until, "{}", period.action());
        let entry =
            Entry::new(clock::now(), "daemon", period.action()).with("until", until.to_string());
        control.store_handle.write_behind(move |store| store.audit(entry.clone())).await;
        // It may have no listener.
        let _ = news.send(period.event(until));
    }
    *noted = end;
    Ok(())
}

/// Returns whether the audit has the end: another daemon may have noted it.
async fn has_row(control: &Control, period: Period, until: Timestamp) -> Result<bool, Problem> {
    let since = until.saturating_sub(SLACK).unwrap_or(until);
    let filter = AuditFilter { since: Some(since), number: None };
    let read = control.store_handle.read(move |reader| {
        let mut found = false;
        reader.audit_rows(0, &filter, |row| {
            let record: Result<serde_json::Value, _> = serde_json::from_str(&row.record);
            found |= record.is_ok_and(|record| record["action"] == period.action());
            if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(found)
    });
    read.await
}
