//! Keeps records within limits of age and size, in steps between which other changes have a turn.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use nix::sys::statvfs::statvfs;

use crate::api::wire::{Problem, ProblemKind};
use crate::config::Config;
use crate::daemon::state::Control;
use crate::store::{self, Error, Size, Step, Store};
use crate::sys::clock;

/// How often the size of the store is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often old records are looked for.
const AGE: Duration = Duration::from_secs(3600);
/// How soon they are looked for again when the disk took no change.
const AGAIN: Duration = Duration::from_secs(5);
/// How long a step takes, besides its commit: others wait for it.
const STEP: Duration = Duration::from_millis(20);
/// Bytes of free pages that stay in the file for new rows: at least these, or this share of it.
const FREE: u64 = 16 << 20;
const FREE_SHARE: u64 = 10;
/// The store takes at most these, or this share of the disk's free space, where nothing is
/// configured.
const MAX_BYTES: u64 = 10 << 30;
const DISK_SHARE: u64 = 5;
/// Room that removing the oldest records makes, in percent of the limit.
const ROOM: u64 = 5;

const OLD: &str = "old records stay";
const LARGE: &str = "the store is larger than [retention] max_bytes";
const PAGES: &str = "the store's file does not shrink";
const LOG: &str = "the log beside the store does not shrink";

/// Removes records that are too old or too many.
pub async fn run(control: Arc<Control>) {
    let mut tick = tokio::time::interval(LOOK);
    let mut next = Instant::now();
    let mut fits = None;
    loop {
        tick.tick().await;
        let config = control.config();
        fits = fit(&control, &config, fits).await.or(fits);
        if let Some(limit) = config.max_bytes.or(fits) {
            control.limit.set(limit);
        }
        if Instant::now() >= next {
            let done = control.chores.tried(OLD, by_age(&control, &config).await);
            next = Instant::now() + if done.is_some() { AGE } else { AGAIN };
        }
        let limit = control.limit.bytes();
        if limit > 0 {
            control.chores.tried(LARGE, by_size(&control, limit).await);
        }
        control.chores.tried(PAGES, give_back(&control).await);
        control.chores.tried(LOG, bring_in_log(&control).await);
    }
}

/// Returns the default limit of the store. It only grows until the next start, and begins with at
/// least the present size: files of other programs cost no records.
async fn fit(control: &Control, config: &Config, before: Option<u64>) -> Option<u64> {
    let size = control.store_handle.read(|reader| reader.size()).await.ok()?;
    let folder = config.paths.state.clone();
    let free = tokio::task::spawn_blocking(move || free(&folder)).await.ok()??;
    Some(default_limit(free, size).max(before.unwrap_or(size.used.min(MAX_BYTES))))
}

/// Returns the default limit on a disk with this free space.
fn default_limit(free: u64, size: Size) -> u64 {
    MAX_BYTES.min(free.saturating_add(size.used + size.free) / DISK_SHARE)
}

fn free(folder: &Path) -> Option<u64> {
    let found = statvfs(folder).ok()?;
    Some(found.blocks_available() * found.fragment_size())
}

/// Removes records that are too old, and INVITEs, which are kept for a shorter time. If INVITEs are
/// no longer kept, existing ones are removed with their records.
async fn by_age(control: &Arc<Control>, config: &Config) -> Result<(), Problem> {
    let now = clock::now();
    let before = |kept| now.checked_sub(kept).unwrap_or(Timestamp::MIN);
    if let Some(evidence) = config.evidence {
        let old = before(evidence.kept);
        steps(control, move |store| store.prune_evidence(old, STEP)).await?;
    }
    let old = before(config.calls_kept);
    steps(control, move |store| store.prune_calls(old, STEP)).await?;
    steps(control, move |store| store.prune_reviews(old, STEP)).await?;
    let old = before(reports_kept(config));
    steps(control, move |store| store.prune_reports(old, STEP)).await
}

/// Returns how long reports are kept: as long as call records, and as long as strikes count.
fn reports_kept(config: &Config) -> SignedDuration {
    config.calls_kept.max(SignedDuration::from_secs(config.ladder.fades.cast_signed()))
}

/// Removes the oldest calls of a store that is too large, of any age.
async fn by_size(control: &Arc<Control>, limit: u64) -> Result<(), Problem> {
    let mut used = control.store_handle.read(|reader| reader.size()).await?.used;
    if used <= limit {
        return Ok(());
    }
    let mut is_done = false;
    while !is_done && used > limit - limit * ROOM / 100 {
        let prune = |store: &mut Store| {
            let step = store.prune_calls(Timestamp::MAX, STEP)?;
            Ok((step.is_done, store.reader().size()?.used))
        };
        (is_done, used) = control.store_handle.write_through(prune).await?;
        bring_in_log(control).await?;
    }
    if used <= limit {
        return Ok(());
    }
    let message =
        format!("it takes {} of {} MiB without any call record: raise it", used >> 20, limit >> 20);
    Err(Problem { kind: ProblemKind::Full, message })
}

/// Gives free pages back to the file system.
async fn give_back(control: &Arc<Control>) -> Result<(), Problem> {
    let Size { used, free } = control.store_handle.read(|reader| reader.size()).await?;
    let keep = FREE.max(used / FREE_SHARE);
    // Not for each page: new rows need pages soon.
    if free <= 2 * keep {
        return Ok(());
    }
    steps(control, move |store| store.give_back(keep, STEP)).await
}

/// Repeats a step until nothing is left to do, and leaves half of the time to others.
async fn steps(
    control: &Arc<Control>,
    step: impl Fn(&mut Store) -> Result<Step, Error> + Clone + Send + 'static,
) -> Result<(), Problem> {
    loop {
        let (begun, step) = (Instant::now(), step.clone());
        let done = control.store_handle.write_through(move |store| Ok(step(store)?)).await?;
        bring_in_log(control).await?;
        if done.is_done {
            return Ok(());
        }
        tokio::time::sleep(begun.elapsed()).await;
    }
}

/// Moves the log into the file, on a thread of its own: no change waits for that. A file with a
/// problem is left alone.
async fn bring_in_log(control: &Control) -> Result<(), Problem> {
    let path = control.config().paths.store();
    if control.store_handle.problem().is_some() || !store::is_log_long(&path) {
        return Ok(());
    }
    // Another file in its place would receive the changes of this one.
    control.store_handle.write_through(|store| Ok(store.check_place()?)).await?;
    tokio::task::spawn_blocking(move || store::bring_in_log(&path)).await??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn default_limit_is_a_share_of_the_disk_and_does_not_shrink_as_the_store_grows() {
        let size = |used, free| Size { used, free };
        assert_eq!(default_limit(100 * GIB, size(0, 0)), 10 * GIB);
        assert_eq!(default_limit(5 * GIB, size(0, 0)), GIB);
        assert_eq!(default_limit(4 * GIB, size(GIB / 2, GIB / 2)), GIB);
        assert_eq!(default_limit(0, size(0, 0)), 0);
        assert_eq!(default_limit(u64::MAX, size(GIB, 0)), 10 * GIB);
    }
}
