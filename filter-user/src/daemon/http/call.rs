//! Handles the routes of calls.

use std::ops::ControlFlow;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use filter_common::bytes::Slice;
use filter_common::reason::Reason;
use filter_common::sip::message::call_id_hash;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::api::wire::{self, Problem, ProblemKind};
use crate::daemon::app::{App, usage};
use crate::daemon::convert::call;
use crate::daemon::convert::evidence_of;
use crate::daemon::evidence::Watch;
use crate::daemon::http::extract::{Answer, PathParam, QueryParams, number_of};
use crate::daemon::http::lists;
use crate::daemon::role::{Principal, Role};
use crate::store::{CallFilter, CallRow, Entry};
use crate::sys::clock;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallQuery {
    pub(crate) since: Option<Timestamp>,
    pub(crate) caller: Option<String>,
    pub(crate) call_id: Option<String>,
    pub(crate) verdict: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) trunk: Option<String>,
    pub(crate) unread: Option<bool>,
    pub(crate) limit: Option<u64>,
}

/// Lists attempts, newest first, one a line. Role read; with `caller` report.
#[utoipa::path(get, path = "/v1/calls",
    params(("since" = Option<String>, Query), ("caller" = Option<String>, Query),
        ("call_id" = Option<String>, Query), ("verdict" = Option<String>, Query),
        ("reason" = Option<String>, Query), ("trunk" = Option<String>, Query),
        ("unread" = Option<bool>, Query), ("limit" = Option<u64>, Query)),
    responses((status = 200, body = wire::Call, content_type = "application/x-ndjson")))]
pub(crate) async fn list_calls(
    State(app): State<App>,
    who: Principal,
    QueryParams(query): QueryParams<CallQuery>,
) -> Result<Response, Problem> {
    who.may(Role::Read)?;
    let number = number_of(&app, &who, "caller", query.caller.as_deref())?;
    if let Some(verdict) = &query.verdict
        && !["pass", "drop"].contains(&verdict.as_str())
    {
        return Err(usage("verdict: pass or drop"));
    }
    if let Some(reason) = &query.reason
        && !Reason::ALL.iter().any(|known| known.name() == reason)
    {
        return Err(usage(format!(
            "reason: {reason:?} is not a reason; `palang calls` shows them"
        )));
    }
    let hash = query.call_id.as_ref().map(|text| {
        let bytes = text.as_bytes();
        call_id_hash(&Slice::from(bytes), 0, bytes.len())
    });
    let mut left = query.limit.unwrap_or(u64::MAX);
    let mut filter =
        CallFilter { since: query.since, number, call_hash: hash, ..CallFilter::default() };
    lists::list(&app.control.store_handle, move |reader, page| {
        let mut last = filter.after;
        reader.calls(&filter, |(id, row)| {
            last = Some((row.time, id));
            let is_unread = Reason::from_number(row.reason).is_some_and(Reason::is_unread);
            if query.unread.is_some_and(|wanted| wanted != is_unread) {
                return page.pass();
            }
            let call = call(id, row, &who);
            let is_other = |wanted: &Option<String>, is: Option<&String>| {
                wanted.as_ref().is_some_and(|wanted| Some(wanted) != is)
            };
            if is_other(&query.verdict, Some(&call.verdict))
                || is_other(&query.reason, Some(&call.reason))
                || is_other(&query.trunk, call.trunk.as_ref())
            {
                return page.pass();
            }
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            page.put(&call)
        })?;
        filter.after = last;
        Ok(())
    })
    .await
}

/// Shows one attempt, with its INVITE if that was kept. Role operate.
#[utoipa::path(get, path = "/v1/calls/{id}", params(("id" = String, Path)),
    responses((status = 200, body = wire::CallShown), (status = 403, body = Problem),
        (status = 404, body = Problem)))]
pub(crate) async fn show_call(
    State(app): State<App>,
    who: Principal,
    PathParam(id): PathParam,
) -> Answer<wire::CallShown> {
    who.may(Role::Operate)?;
    let id: u64 = id.parse().map_err(|_| usage(format!("{id:?} is no number of a call")))?;
    let read =
        app.control.store_handle.read(move |reader| Ok((reader.call(id)?, reader.evidence(id)?)));
    let (Some(row), evidence) = read.await? else {
        let message =
            format!("no call {id}: never recorded, or deleted by [retention] or an erase");
        return Err(Problem { kind: ProblemKind::NotFound, message });
    };
    Ok(Json(wire::CallShown {
        call: call(id, row, &who),
        evidence: evidence.map(|row| evidence_of(id, &row)),
    }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LiveQuery {
    #[serde(default)]
    pub(crate) evidence: bool,
}

/// Streams attempts as they are judged, one a line, and once a second the number of lost ones,
/// until the connection is closed. Role read. With `evidence=true` also the INVITEs of refused
/// attempts, which the kernel keeps for that time: role operate, and the audit records it.
#[utoipa::path(get, path = "/v1/calls/live", params(("evidence" = Option<bool>, Query)),
    responses((status = 200, body = wire::Live, content_type = "application/x-ndjson"),
        (status = 403, body = Problem)))]
pub(crate) async fn live_calls(
    State(app): State<App>,
    who: Principal,
    QueryParams(query): QueryParams<LiveQuery>,
) -> Result<Response, Problem> {
    who.may(Role::Read)?;
    struct Looking {
        app: App,
        who: Principal,
        calls: broadcast::Receiver<CallRow>,
        watch: Option<Watch>,
        tick: tokio::time::Interval,
        missed: u64,
        missed_frames: u64,
    }
    let calls = app.live.subscribe();
    let watch = if query.evidence {
        who.may(Role::Operate)?;
        let entry = Entry::new(clock::now(), &who.name, "evidence watch");
        app.control.store_handle.write_behind(move |store| store.audit(entry.clone())).await;
        Some(app.evidence.watch())
    } else {
        None
    };
    let tick = tokio::time::interval(Duration::from_secs(1));
    let looking = Looking { app, who, calls, watch, tick, missed: 0, missed_frames: 0 };
    let stream = futures_util::stream::unfold(looking, async |mut looking| {
        let frame = async |watch: &mut Option<Watch>| match watch {
            Some(watch) => watch.frames.recv().await,
            None => std::future::pending().await,
        };
        loop {
            let line = tokio::select! {
                row = looking.calls.recv() => match row {
                    Ok(row) => wire::Live::Call(Box::new(call(0, row, &looking.who))),
                    Err(RecvError::Lagged(count)) => {
                        looking.missed += count;
                        continue;
                    }
                    Err(RecvError::Closed) => return None,
                },
                kept = frame(&mut looking.watch) => match kept {
                    Ok(kept) => {
                        let (time, frame) = (clock::wall(kept.time), kept.frame());
                        let evidence = wire::Evidence::new(0, time, kept.frame_len, frame);
                        wire::Live::Evidence(Box::new(evidence))
                    }
                    Err(RecvError::Lagged(count)) => {
                        looking.missed_frames += count;
                        continue;
                    }
                    Err(RecvError::Closed) => return None,
                },
                _ = looking.tick.tick() => {
                    let stats = looking.app.control.maps.event_stats().unwrap_or_default();
                    let attempts = looking.app.accounts.attempts(stats);
                    let evidence = looking.watch.as_ref().and(looking.app.evidence.stats().ok());
                    wire::Live::Lost(wire::Lost {
                        refused: attempts.refused.lost,
                        passed: attempts.passed.lost + attempts.passed.thinned,
                        thinned: attempts.refused.thinned,
                        missed: looking.missed,
                        evidence: evidence
                            .map(|stats| stats.lost + stats.limited + looking.missed_frames),
                    })
                }
            };
            return Some((line, looking));
        }
    });
    Ok(lists::endless(stream))
}
