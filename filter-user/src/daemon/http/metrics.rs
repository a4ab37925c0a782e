//! Answers `/metrics`, `/healthz` and `/readyz` on a loopback address, for Prometheus.
//!
//! All values are read on request. The kernel counts packets, so they also count while no daemon
//! runs. A label is never a number, a Call-ID or an address.

use std::fmt::Write as _;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use filter_common::abi::TRUNKS_MAX;
use filter_common::reason::{Fate, Reason};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tower::limit::GlobalConcurrencyLimitLayer;

use crate::api::wire::{Health, Problem, Status};
use crate::daemon::app::App;
use crate::daemon::connections::Handle;
use crate::store::Head;

/// Content type that Prometheus expects.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Number of concurrent answers; others wait for their turn.
const AT_ONCE: usize = 2;

/// Answers on the loopback address.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .layer(GlobalConcurrencyLimitLayer::new(AT_ONCE))
        .layer(middleware::from_fn(busy))
        .with_state(app)
}

/// Keeps the connection open while its answer is made.
async fn busy(
    ConnectInfo(connection): ConnectInfo<Handle>,
    request: Request,
    next: Next,
) -> Response {
    let _busy = connection.busy();
    next.run(request).await
}

/// Checks that the daemon lives and reaches the kernel's maps.
async fn healthz(State(app): State<App>) -> Result<&'static str, Problem> {
    app.control.maps.settings()?;
    Ok("ok\n")
}

/// Checks that the status has no red finding.
async fn readyz(State(app): State<App>) -> Result<Response, Problem> {
    let status = app.status().await?;
    let mut text = String::new();
    for finding in status.findings.iter().filter(|finding| finding.colour == Health::Red) {
        let _ = writeln!(text, "{}", finding.message);
    }
    if text.is_empty() {
        return Ok("ready\n".into_response());
    }
    Ok((StatusCode::SERVICE_UNAVAILABLE, text).into_response())
}

async fn metrics(State(app): State<App>) -> Result<Response, Problem> {
    let status = app.status().await?;
    let mut registry = Registry::with_prefix("palang");
    packets(&app, &mut registry)?;
    state(&app, &status, &mut registry);
    attempts(&app, &status, &mut registry);
    replies(&status, &mut registry);
    evidence(&app, &mut registry).await?;
    let help = "How long changes took on the store's thread, the wait for the disk included";
    registry.register_with_unit(
        "store_commit",
        help,
        Unit::Seconds,
        app.control.store_handle.took(),
    );
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = text::encode(&mut text, &registry);
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    trunk: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByVerdict {
    trunk: String,
    verdict: &'static str,
}

/// Registers the counts of the kernel.
fn packets(app: &App, registry: &mut Registry) -> Result<(), Problem> {
    let by_reason = Family::<ByReason, Counter<u64, AtomicU64>>::default();
    let invites = Family::<ByVerdict, Counter<u64, AtomicU64>>::default();
    let config = app.control.config();
    for index in 0..TRUNKS_MAX {
        // Counts of a trunk that is no longer configured stay in the map.
        let Some(trunk) = config.policy.trunks.get(index as usize) else { break };
        for reason in Reason::ALL {
            let count = app.control.maps.count(index, *reason)?;
            let labels = ByReason { trunk: trunk.name.clone(), reason: reason.name() };
            by_reason.get_or_create(&labels).inc_by(count);
            if let Some(verdict) = verdict(*reason) {
                let labels = ByVerdict { trunk: trunk.name.clone(), verdict };
                invites.get_or_create(&labels).inc_by(count);
            }
        }
    }
    registry.register("packets", "Packets by what became of them, repeats included", by_reason);
    let help = "INVITEs by verdict, repeats included; unread: passed, because they could not be \
                read for sure";
    registry.register("invites", help, invites);
    let asserted = Family::<ByTrunk, Counter<u64, AtomicU64>>::default();
    let counts = app.asserted.total();
    for trunk in &config.policy.trunks {
        // A counter that begins with its first count has no rate.
        let count = counts.get(&trunk.name).copied().unwrap_or(0);
        asserted.get_or_create(&ByTrunk { trunk: trunk.name.clone() }).inc_by(count);
    }
    let help = "Calls that passed and whose P-Asserted-Identity, which the trunk does not read, names \
                another caller than From; since the start of the daemon";
    registry.register("asserted_others", help, asserted);
    let again = Family::<ByTrunk, Gauge<f64, AtomicU64>>::default();
    let found = app.machines.found();
    for trunk in &config.policy.trunks {
        let machine = found.iter().find(|(name, _)| *name == trunk.name);
        let gap = machine.map_or(0.0, |(_, machine)| machine.gap as f64 / 1000.0);
        again.get_or_create(&ByTrunk { trunk: trunk.name.clone() }).set(gap);
    }
    let help =
        "Seconds after a refused call until the carrier calls again by machine; 0: it does not";
    registry.register("machine_redial_seconds", help, again);
    Ok(())
}

/// Returns the verdict on an INVITE with this reason; `None`: it is not about a new call.
fn verdict(reason: Reason) -> Option<&'static str> {
    reason.is_attempt().then(|| match reason.fate() {
        Fate::Refuse => "refused",
        Fate::Pass if reason.is_unread() => "unread",
        Fate::Pass => "passed",
    })
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Version {
    version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attached {
    interface: String,
    mode: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ring {
    verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByTrunk {
    trunk: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Registers the counts of INVITEs of refused attempts. They do not change while no reader wants
/// INVITEs.
async fn evidence(app: &App, registry: &mut Registry) -> Result<(), Problem> {
    let stats = app.evidence.stats()?;
    let frames = Family::<Outcome, Counter<u64, AtomicU64>>::default();
    for (outcome, count) in [("kept", stats.kept), ("lost", stats.lost), ("limited", stats.limited)]
    {
        frames.get_or_create(&Outcome { outcome }).inc_by(count);
    }
    let help = "INVITEs of refused attempts while they were wanted; limited: above the rate";
    registry.register("evidence", help, frames);
    // Unknown values are left out: 0 would be wrong.
    if let Ok(room) = app.control.store_handle.read_soon(|reader| reader.evidence_size()).await {
        let mut gauge = |name: &str, help: &str, value: u64| {
            let gauge = Gauge::<i64>::default();
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            registry.register(name, help, gauge);
        };
        gauge("evidence_stored", "INVITEs in the store", room.frames);
        gauge("evidence_stored_bytes", "Bytes of INVITEs in the store", room.bytes);
    }
    Ok(())
}

/// Registers the state of the daemon.
fn state(app: &App, status: &Status, registry: &mut Registry) {
    let build = Family::<Version, Gauge>::default();
    build.get_or_create(&Version { version: status.version.clone() }).set(1);
    registry.register("build_info", "Version of the daemon", build);

    let attached = Family::<Attached, Gauge>::default();
    for interface in &status.interfaces {
        let mode = interface.xdp.clone().unwrap_or_else(|| "none".to_owned());
        let good = interface.xdp.is_some() && interface.problem.is_none();
        let labels = Attached { interface: interface.name.clone(), mode };
        attached.get_or_create(&labels).set(good.into());
    }
    let help = "1: the filter is on this interface, which is up";
    registry.register("attached", help, attached);

    let mut gauge = |name: &str, help: &str, value: u64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    };
    let colour = match status.colour {
        Health::Green => 0,
        Health::Amber => 1,
        Health::Red => 2,
    };
    gauge("status", "0: green, 1: amber, 2: red", colour);
    let enforcing = status.mode.mode == "enforce";
    gauge("enforcing", "1: mode enforce, 0: observe", enforcing.into());
    let ended = status.mode.ended.is_some();
    gauge(
        "enforce_ended",
        "1: a period of mode enforce ran out, and nothing is refused",
        ended.into(),
    );
    gauge("override_active", "1: nothing is refused", status.r#override.until.is_some().into());
    gauge("blocks_capacity", "Blocked numbers that fit", status.blocks_capacity);
    let unsaved = app.control.store_handle.unsaved() as u64;
    gauge("changes_unsaved", "Changes in force and not on disk", unsaved);
    let reload = app.config_problem.lock().unwrap_or_else(PoisonError::into_inner).is_none();
    gauge("config_last_reload_successful", "0: the old configuration is in force", reload.into());
    // Unknown values are left out: 0 would be wrong.
    let stored = [
        ("blocks", "Blocks in force", status.blocks),
        ("allows", "Allows in force", status.allows),
        ("reviews_open", "Reviews that are open", status.reviews),
        ("audit_head_seq", "Number of the newest row of the audit", audit_head(status)),
    ];
    for (name, help, value) in stored {
        if let Some(value) = value {
            gauge(name, help, value);
        }
    }
    let mut counter = |name: &str, help: &str, value: u64| {
        let counter = Counter::<u64, AtomicU64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    };
    counter("drift", "Differences of store and maps that were repaired", status.drift);
    counter("reattached", "Times that the filter was attached again", status.reattached);
}

/// Registers which attempts have a record: judged is the sum of recorded, waiting, lost and thinned.
fn attempts(app: &App, status: &Status, registry: &mut Registry) {
    let lost = Family::<Ring, Counter<u64, AtomicU64>>::default();
    lost.get_or_create(&Ring { verdict: "refused" }).inc_by(status.refused_lost);
    lost.get_or_create(&Ring { verdict: "passed" }).inc_by(status.passed_lost);
    let help = "Attempts without a record; passed ones are thinned above a rate";
    registry.register("events_lost", help, lost);
    let Some(attempts) = &status.attempts else { return };
    let judged = Family::<Ring, Counter<u64, AtomicU64>>::default();
    let recorded = Family::<Ring, Counter<u64, AtomicU64>>::default();
    let waiting = Family::<Ring, Gauge>::default();
    for (verdict, records) in [("refused", attempts.refused), ("passed", attempts.passed)] {
        let ring = Ring { verdict };
        judged.get_or_create(&ring).inc_by(records.judged);
        recorded.get_or_create(&ring).inc_by(records.recorded);
        let count = i64::try_from(records.waiting).unwrap_or(i64::MAX);
        waiting.get_or_create(&ring).set(count);
    }
    registry.register("attempts", "Attempts that were judged, without repeats", judged);
    let help = "Attempts that have a record, or count in one";
    registry.register("attempts_recorded", help, recorded);
    let help = "Attempts whose record is not in the store yet";
    registry.register("attempts_waiting", help, waiting);
    let thinned = Family::<ByTrunk, Counter<u64, AtomicU64>>::default();
    for trunk in &app.control.config().policy.trunks {
        // A counter that begins with its first count has no rate.
        thinned.get_or_create(&ByTrunk { trunk: trunk.name.clone() }).inc_by(0);
    }
    for (trunk, count) in &attempts.thinned {
        thinned.get_or_create(&ByTrunk { trunk: trunk.clone() }).inc_by(*count);
    }
    let help = "Refusals of floods that are only counted, above [records] per_trunk";
    registry.register("refusals_thinned", help, thinned);
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReplyOutcome {
    trunk: String,
    outcome: &'static str,
}

/// Registers the replies to refused calls.
fn replies(status: &Status, registry: &mut Registry) {
    let family = Family::<ReplyOutcome, Counter<u64, AtomicU64>>::default();
    let good = Family::<ByTrunk, Gauge>::default();
    let moved = Family::<ByTrunk, Gauge>::default();
    for replies in &status.replies {
        // A trunk that refuses in silence, or nothing, has no carrier to acknowledge replies.
        if replies.refuse.parse::<u16>().is_ok() {
            let trunk = ByTrunk { trunk: replies.trunk.clone() };
            let is_good = replies.path != "none" && replies.problem.is_none();
            good.get_or_create(&trunk).set(is_good.into());
            moved.get_or_create(&trunk).set(replies.moved.into());
        }
        for (outcome, count) in [
            ("sent", replies.sent),
            ("repeated", replies.repeated),
            ("acked", replies.acks),
            ("limited", replies.limited),
            ("damaged", replies.damaged),
            ("impossible", replies.impossible),
            ("by_daemon", replies.by_daemon),
            ("without_daemon", replies.without_daemon),
            ("failed", replies.failed),
        ] {
            let labels = ReplyOutcome { trunk: replies.trunk.clone(), outcome };
            family.get_or_create(&labels).inc_by(count);
        }
    }
    let help = "Replies to refused calls. repeated, by_daemon: of those sent, to a call that came again, by the daemon. \
                limited, damaged, impossible, without_daemon, failed: no reply";
    registry.register("replies", help, family);
    let help = "1: refused calls of this trunk are answered, and its carrier acknowledges replies";
    registry.register("replies_acknowledged", help, good);
    let help = "1: the daemon sends the replies of this trunk, because too few of the driver's were acknowledged";
    registry.register("replies_moved", help, moved);
}

fn audit_head(status: &Status) -> Option<u64> {
    status.audit_head.as_ref()?.parse::<Head>().ok().map(|head| head.seq)
}
