//! Handles the routes of blocks.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use futures_util::StreamExt as _;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::api::wire::{self, Problem};
use crate::daemon::app::{App, usage};
use crate::daemon::block_change::PREFIXES_MAX;
use crate::daemon::command::import::Import;
use crate::daemon::convert::block_of;
use crate::daemon::http::extract::{Answer, DryRun, JsonBody, PathParam, QueryParams};
use crate::daemon::http::lists;
use crate::daemon::limits;
use crate::daemon::role::{Principal, Role};
use crate::store::Kind;

/// Lines about an import that wait for a slow reader.
const NEWS: usize = 8;
/// Longest line of an import.
const LINE_MAX: usize = 4 * 1024;
/// Bytes that a row of an import may have on average, where there are as many as there is room for.
const ROW_BYTES: u64 = 512;
/// Bytes that any import may have: refused rows are counted and named, not only cut off.
const IMPORT_BYTES: u64 = 64 << 20;
/// How long an import may wait for its next rows: a person may type them.
const CHUNK_TIME: Duration = Duration::from_secs(60);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportQuery {
    #[serde(default)]
    pub(crate) dry_run: bool,
    #[serde(default)]
    pub(crate) skip_bad: bool,
}

/// Lists all blocks, one a line. Role read.
#[utoipa::path(get, path = "/v1/blocks",
    responses((status = 200, body = wire::Block, content_type = "application/x-ndjson")))]
pub(crate) async fn list_blocks(
    State(app): State<App>,
    who: Principal,
) -> Result<Response, Problem> {
    who.may(Role::Read)?;
    let mut last = None;
    lists::list(&app.control.store_handle, move |reader, page| {
        reader.for_each_after(Kind::Block, last, |decision| {
            last = Some(decision.subject);
            let block = block_of(&decision);
            page.put(&wire::Block { number: who.mask(block.number), ..block })
        })
    })
    .await
}

/// Blocks a number or prefix, or updates its block. Role operate; permanent: admin.
#[utoipa::path(post, path = "/v1/blocks", request_body = wire::AddBlock,
    responses((status = 200, body = wire::Changed<wire::Block>), (status = 400, body = Problem),
        (status = 403, body = Problem), (status = 409, body = Problem), (status = 503, body = Problem),
        (status = 507, body = Problem)))]
pub(crate) async fn add_block(
    State(app): State<App>,
    who: Principal,
    JsonBody(add): JsonBody<wire::AddBlock>,
) -> Answer<wire::Changed<wire::Block>> {
    who.may(Role::Operate)?;
    app.control.add_block(&who, add).await.map(Json)
}

/// Imports blocks, all or none: newline-delimited JSON in both directions. Role operate.
#[utoipa::path(post, path = "/v1/blocks/import",
    params(("dry_run" = Option<bool>, Query), ("skip_bad" = Option<bool>, Query)),
    request_body(content = wire::ImportRow, content_type = "application/x-ndjson"),
    responses((status = 200, body = wire::ImportNews, content_type = "application/x-ndjson")))]
pub(crate) async fn import_blocks(
    State(app): State<App>,
    who: Principal,
    QueryParams(query): QueryParams<ImportQuery>,
    body: Body,
) -> Result<Response, Problem> {
    who.may(Role::Operate)?;
    let mut import = Import::new(Arc::clone(&app.control), who);
    let mut body = body.into_data_stream();
    let (mut rest, mut number, mut bytes) = (Vec::new(), 0, 0);
    let most = (u64::from(app.control.config().blocks) + PREFIXES_MAX) * ROW_BYTES;
    let most = most.max(IMPORT_BYTES);
    loop {
        let Ok(chunk) = tokio::time::timeout(CHUNK_TIME, body.next()).await else {
            let seconds = CHUNK_TIME.as_secs();
            return Err(usage(format!("no row came for {seconds} s; nothing was changed")));
        };
        let Some(chunk) = chunk else { break };
        let chunk = chunk.map_err(usage)?;
        bytes += chunk.len() as u64;
        if bytes > most {
            let message = format!("it is longer than {most} bytes; nothing was changed");
            return Err(usage(message));
        }
        rest.extend_from_slice(&chunk);
        let mut done = 0;
        while let Some(end) = rest[done..].iter().position(|byte| *byte == b'\n') {
            number += 1;
            let line = &rest[done..done + end];
            fits(number, line)?;
            if !line.is_empty() {
                import.line(number, line)?;
            }
            done += end + 1;
        }
        rest.drain(..done);
        fits(number + 1, &rest)?;
    }
    if !rest.is_empty() {
        import.line(number + 1, &rest)?;
    }
    let (sender, receiver) = mpsc::channel(NEWS);
    let slot = limits::slot();
    tokio::spawn(async move {
        // The import continues if the client hangs up.
        let _slot = slot;
        import.finish(query.skip_bad, query.dry_run, sender).await;
    });
    let news = futures_util::stream::unfold(receiver, async |mut receiver| {
        let news: wire::ImportNews = receiver.recv().await?;
        Some((news, receiver))
    });
    Ok(lists::lines(news))
}

/// Shows one block. Role report: a user who may ask for single numbers can find masked ones by
/// asking for all.
#[utoipa::path(get, path = "/v1/blocks/{number}", params(("number" = String, Path)),
    responses((status = 200, body = wire::Block), (status = 403, body = Problem),
        (status = 404, body = Problem)))]
pub(crate) async fn show_block(
    State(app): State<App>,
    who: Principal,
    PathParam(number): PathParam,
) -> Answer<wire::Block> {
    who.may(Role::Report)?;
    let block = app.control.show_block(&number).await?;
    Ok(Json(wire::Block { number: who.mask(block.number), ..block }))
}

/// Ends a block: in force before it is on disk. Role operate.
#[utoipa::path(delete, path = "/v1/blocks/{number}",
    params(("number" = String, Path), ("dry_run" = Option<bool>, Query)),
    responses((status = 200, body = wire::Changed<wire::Block>), (status = 404, body = Problem)))]
pub(crate) async fn remove_block(
    State(app): State<App>,
    who: Principal,
    PathParam(number): PathParam,
    QueryParams(query): QueryParams<DryRun>,
) -> Answer<wire::Changed<wire::Block>> {
    who.may(Role::Operate)?;
    app.control.remove_block(&who, &number, query.dry_run).await.map(Json)
}

fn fits(number: u64, line: &[u8]) -> Result<(), Problem> {
    if line.len() > LINE_MAX {
        return Err(usage(format!("line {number} is longer than {LINE_MAX} bytes")));
    }
    Ok(())
}
