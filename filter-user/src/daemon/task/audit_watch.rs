//! Notices an audit that another program cut or rewrote.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::api::wire::Problem;
use crate::daemon::state::Control;
use crate::store::Head;

/// Interval of the look at the newest row.
const TICK: Duration = Duration::from_secs(1);

/// Time after the start until the whole chain is computed: not while the maps are filled.
const FIRST: Duration = Duration::from_secs(10 * 60);

/// Interval of computing the whole chain.
const WHOLE: Duration = Duration::from_secs(24 * 60 * 60);

/// Looks each second whether the row that was the last one is still there, and computes the whole chain once a day. A
/// finding stays until the daemon ends. Each new head is logged: the log leaves the machine, and cannot be changed later.
pub(crate) async fn run(control: Arc<Control>) {
    let mut tick = tokio::time::interval(TICK);
    // A look that had to wait is not made up for.
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut whole = tokio::time::interval_at(Instant::now() + FIRST, WHOLE);
    let mut known = Head::default();
    loop {
        let result = tokio::select! {
            _ = tick.tick() => newest(&control, &mut known).await,
            _ = whole.tick() => verify(&control).await,
        };
        if let Ok(Some(problem)) = result {
            control.audit_change.note(problem);
        }
    }
}

/// Returns what is wrong with the newest rows. An error is one of the store, which has its own finding.
async fn newest(control: &Control, known: &mut Head) -> Result<Option<String>, Problem> {
    let before = *known;
    let look = control.store_handle.read(move |reader| {
        // In this order: a row that is written in between is no fault.
        let is_there = reader.audit_has(before)?;
        Ok((is_there, reader.audit_head()?))
    });
    let (is_there, head) = look.await?;
    if head != before {
        tracing::info!(%head, "audit head");
        *known = head;
    }
    Ok((!is_there).then(|| format!("row {} is missing or is another one", before.seq)))
}

async fn verify(control: &Control) -> Result<Option<String>, Problem> {
    let check = control.store_handle.read_long(|reader| reader.verify_audit(None)).await?;
    Ok(check.first_bad.map(|row| format!("row {row} does not follow from the rows before it")))
}
