//! Measures starts of a daemon under traffic.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use palang::api::client::{Client, SHORT};
use palang::api::wire::Status;
use palang_tests::lab::{Daemon, Lab, Record, now};

/// INVITEs per second.
const PER_SECOND: u32 = 500;

/// Longest time for a start.
const LONGEST: Duration = Duration::from_secs(3600);

/// Interval between two checks.
const AGAIN: Duration = Duration::from_millis(2);

/// Results of one start.
pub struct Start {
    /// Time from the start of the process to its first answer.
    pub answers: Duration,
    /// Time from the start of the process to the first refused INVITE, if there was one.
    pub in_force: Option<Duration>,
    /// INVITEs of the blocked number, from before the daemon ended until after it answered.
    pub sent: usize,
    /// INVITEs of these that were let through.
    pub passed: usize,
}

/// Waits until the daemon answers.
pub fn wait(daemon: &mut Daemon<'_>, client: &Client) -> Result<()> {
    let deadline = Instant::now() + LONGEST;
    while client.get::<Status>("/v1/status", SHORT).is_err() {
        ensure!(daemon.is_running(), "the daemon ended at its start: {}", daemon.stderr());
        ensure!(Instant::now() < deadline, "the daemon does not answer: {}", daemon.stderr());
        sleep(AGAIN);
    }
    Ok(())
}

/// Stops the daemon, however long it takes.
pub fn stop(daemon: &mut Daemon<'_>) {
    daemon.signal("TERM");
    while daemon.is_running() {
        sleep(AGAIN);
    }
}

/// Restarts the daemon as an upgrade does: program and maps stay.
pub fn with_maps(
    lab: &Lab,
    daemon: &mut Daemon<'_>,
    client: &Client,
    blocked: &str,
) -> Result<Start> {
    restart(lab, daemon, client, blocked, |_| Ok(()))
}

/// Restarts the daemon as after a restart of the machine: without program and maps.
pub fn without_maps(
    lab: &Lab,
    daemon: &mut Daemon<'_>,
    client: &Client,
    blocked: &str,
) -> Result<Start> {
    restart(lab, daemon, client, blocked, |daemon| {
        fs::remove_dir_all(daemon.pins()).context("removing the pins")
    })
}

fn restart(
    lab: &Lab,
    daemon: &mut Daemon<'_>,
    client: &Client,
    blocked: &str,
    between: impl Fn(&Daemon<'_>) -> Result<()>,
) -> Result<Start> {
    let receiver = lab.receiver(5060);
    let traffic = lab.traffic(&receiver, &[blocked], PER_SECOND, usize::MAX);
    traffic.wait_for(20);
    stop(daemon);
    between(daemon)?;
    let (began, clock) = (now(), Instant::now());
    daemon.spawn();
    wait(daemon, client)?;
    let answers = clock.elapsed();
    traffic.wait_for(20);
    let record: Record = traffic.stop();
    ensure!(record.lost_by_lab == 0, "the lab lost {} packets", record.lost_by_lab);
    let refused = |at: u64| {
        let mut since = record.invites.iter().filter(|invite| invite.sent_at >= at);
        since.find(|invite| invite.arrived_at.is_none())
    };
    Ok(Start {
        answers,
        in_force: refused(began).map(|invite| Duration::from_nanos(invite.sent_at - began)),
        sent: record.invites.len(),
        passed: record.invites.iter().filter(|invite| invite.arrived_at.is_some()).count(),
    })
}
