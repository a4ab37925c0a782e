//! The control API: HTTP and JSON on a Unix socket. Everything that the CLI does goes through it.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use filter_common::abi::{EVENT_FROM, EVENT_PAI, Verdict};
use filter_common::bytes::Slice;
use filter_common::number::Number;
use filter_common::reason::Reason;
use filter_common::sip::message::call_id_hash;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use utoipa::OpenApi;

use super::access;
use super::accounts::Accounts;
use super::control::{Control, PREFIXES_MAX, Role, Who, allow_of, block_of};
use super::evidence::{Evidence, Watch, evidence_of};
use super::held;
use super::import::Import;
use super::limits;
use super::links::Links;
use super::lists;
use super::person::audit_row_of;
use super::privileges;
use super::reports::report_of;
use super::reviews::{Reviews, review_of};
use super::top;
use crate::clock;
use crate::config::XdpMode;
use crate::policy::Subject;
use crate::status;
use crate::store::{AuditFilter, CallFilter, CallRow, Entry, Kind, ReportFilter};
use crate::wire::{self, Colour, Problem, ProblemKind};

/// Lines about an import that wait for a slow reader.
const NEWS: usize = 8;
/// Longest line of an import.
const LINE_MAX: usize = 4 * 1024;
/// Bytes that a row of an import may have on average, where there are as many as there is room for.
const ROW_BYTES: u64 = 512;
/// Bytes that any import may have: rows that are refused are counted and named, not only cut off.
const IMPORT_BYTES: u64 = 64 << 20;
/// How long an import may take for its next rows: somebody may type them.
const CHUNK_TIME: Duration = Duration::from_secs(60);

/// What the handlers share.
#[derive(Clone)]
pub struct App {
    /// Commands and questions.
    pub control: Arc<Control>,
    /// Where the filter stands.
    pub links: Arc<Links>,
    /// Which attempts have a record.
    pub accounts: Arc<Accounts>,
    /// Redial grants, as they are given.
    pub reviews: Reviews,
    /// Calls, as they are judged.
    pub live: broadcast::Sender<CallRow>,
    /// INVITEs of refused calls, where somebody wants them.
    pub evidence: Arc<Evidence>,
    /// Since when the daemon runs.
    pub since: Timestamp,
    /// What was wrong with the configuration when it was read last.
    pub config_problem: Arc<std::sync::Mutex<Option<String>>>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = match self.kind {
            ProblemKind::Usage => StatusCode::BAD_REQUEST,
            ProblemKind::Refused => StatusCode::FORBIDDEN,
            ProblemKind::NotFound => StatusCode::NOT_FOUND,
            ProblemKind::Superseded => StatusCode::CONFLICT,
            ProblemKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            ProblemKind::Store => StatusCode::SERVICE_UNAVAILABLE,
            ProblemKind::Full => StatusCode::INSUFFICIENT_STORAGE,
            ProblemKind::Busy => {
                let headers = [(header::RETRY_AFTER, "1")];
                return (StatusCode::TOO_MANY_REQUESTS, headers, Json(self)).into_response();
            }
            ProblemKind::Overloaded => {
                let headers = [(header::RETRY_AFTER, "1")];
                return (StatusCode::SERVICE_UNAVAILABLE, headers, Json(self)).into_response();
            }
        };
        (status, Json(self)).into_response()
    }
}

fn usage(message: impl ToString) -> Problem {
    Problem { kind: ProblemKind::Usage, message: message.to_string() }
}

type Answer<T> = Result<Json<T>, Problem>;

/// The body of a request, refused as a [`Problem`].
struct Asked<T>(T);

impl<T: DeserializeOwned> FromRequest<App> for Asked<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Asked<T>, Problem> {
        let body = Bytes::from_request(request, app).await.map_err(usage)?;
        let body = if body.is_empty() { &b"{}"[..] } else { &body };
        serde_json::from_slice(body).map(Asked).map_err(usage)
    }
}

/// The routes for people and programs on the Unix socket.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/v1/status", get(get_status))
        .route("/v1/blocks", get(list_blocks).post(add_block))
        .route("/v1/blocks/import", post(import_blocks))
        .route("/v1/blocks/{number}", get(show_block).delete(remove_block))
        .route("/v1/allows", get(list_allows).post(add_allow).delete(end_incident))
        .route("/v1/allows/{number}", axum::routing::delete(remove_allow))
        .route("/v1/callback", post(callback))
        .route("/v1/override", get(get_override).put(set_override))
        .route("/v1/mode", get(get_mode).put(set_mode))
        .route("/v1/check/{number}", get(check))
        .route("/v1/explain/{number}", get(explain))
        .route("/v1/calls", get(list_calls))
        .route("/v1/calls/live", get(live_calls))
        .route("/v1/calls/{id}", get(show_call))
        .route("/v1/top", get(get_top))
        .route("/v1/reports", get(list_reports).post(add_report))
        .route("/v1/reviews", get(list_reviews))
        .route("/v1/reviews/{id}/close", post(close_review))
        .route("/v1/reviews/{id}/extend", post(extend_review))
        .route("/v1/reviews/{id}/free", post(free_review))
        .route("/v1/events", get(events))
        .route("/v1/numbers/{number}", get(export_number).delete(erase_number))
        .route("/v1/audit", get(list_audit))
        .route("/v1/audit/verify", get(verify_audit))
        .route("/v1/config", get(get_config))
        .route("/v1/interfaces/{name}", post(attach).delete(detach))
        .route("/v1/store/backup", post(backup))
        .route("/v1/store/adopt", post(adopt_store))
        .route("/openapi.json", get(openapi))
        .fallback(no_route)
        .method_not_allowed_fallback(no_route)
        .layer(axum::middleware::from_fn(in_time))
        .layer(axum::middleware::from_fn(limits::admit))
        .with_state(app)
}

/// Lets no request through whose answer nobody waits for any more: a daemon that hung would
/// else do what has been done without it, or undone, since.
async fn in_time(request: Request, next: Next) -> Response {
    let deadline = request.headers().get(wire::DEADLINE);
    let deadline = deadline.and_then(|text| text.to_str().ok()?.parse::<u64>().ok());
    if deadline.is_some_and(|deadline| deadline < clock::boot()) {
        let message = "too late: nobody waits for this any more; nothing was done".into();
        return Problem { kind: ProblemKind::Failed, message }.into_response();
    }
    next.run(request).await
}

/// The one question that a SIP server on this machine may ask over TCP: nothing else is served
/// there, because nobody can tell who asks.
pub fn check_router(app: App) -> Router {
    Router::new().route("/v1/check/{number}", get(check_unasked)).fallback(no_route).with_state(app)
}

async fn no_route() -> Problem {
    Problem {
        kind: ProblemKind::NotFound,
        message: "no such route or method: see /openapi.json".into(),
    }
}

/// The document of this API.
#[derive(OpenApi)]
#[openapi(
    modifiers(&Refusals),
    info(title = "Palang control API", description = "The caller gate for emergency call centres"),
    paths(
        get_status,
        list_blocks,
        add_block,
        import_blocks,
        show_block,
        remove_block,
        list_allows,
        add_allow,
        remove_allow,
        callback,
        end_incident,
        get_override,
        set_override,
        get_mode,
        set_mode,
        check,
        explain,
        list_calls,
        live_calls,
        show_call,
        get_top,
        list_reports,
        add_report,
        list_reviews,
        close_review,
        extend_review,
        free_review,
        events,
        export_number,
        erase_number,
        list_audit,
        verify_audit,
        get_config,
        attach,
        detach,
        backup,
        adopt_store
    )
)]
pub struct Document;

/// What any request may be answered instead of its own answer ([`limits`]).
struct Refusals;

impl utoipa::Modify for Refusals {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::{ContentBuilder, Ref, ResponseBuilder};
        let answer = |description: &str| {
            let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem")));
            let answer = ResponseBuilder::new().description(description);
            answer.content("application/json", problem.build()).build()
        };
        for item in document.paths.paths.values_mut() {
            for operation in [&mut item.get, &mut item.post, &mut item.put, &mut item.delete]
                .into_iter()
                .flatten()
            {
                let responses = &mut operation.responses.responses;
                responses.entry("429".into()).or_insert_with(|| {
                    answer("This user has too many such requests under way").into()
                });
                responses.entry("503".into()).or_insert_with(|| {
                    answer("All users together have too many such requests under way").into()
                });
            }
        }
    }
}

async fn openapi() -> impl IntoResponse {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| {
        // It is made of strings; a test reads it.
        Document::openapi().to_json().unwrap_or_default().into()
    });
    ([(header::CONTENT_TYPE, "application/json")], TEXT.clone())
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DryRun {
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowQuery {
    incident: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndIncident {
    incident: String,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImportQuery {
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    skip_bad: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CallQuery {
    since: Option<Timestamp>,
    caller: Option<String>,
    call_id: Option<String>,
    verdict: Option<String>,
    reason: Option<String>,
    trunk: Option<String>,
    limit: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    since: Option<Timestamp>,
    number: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyQuery {
    head: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EraseQuery {
    reason: String,
    #[serde(default)]
    dry_run: bool,
}

/// The part of a path that names something, refused as a [`Problem`].
struct Named(String);

impl axum::extract::FromRequestParts<App> for Named {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        app: &App,
    ) -> Result<Named, Problem> {
        let path = Path::<String>::from_request_parts(parts, app).await;
        path.map(|Path(name)| Named(name)).map_err(|error| usage(error.body_text()))
    }
}

/// The query of a request, refused as a [`Problem`].
struct Queried<T>(T);

impl<T: DeserializeOwned + Send> axum::extract::FromRequestParts<App> for Queried<T> {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        app: &App,
    ) -> Result<Queried<T>, Problem> {
        let query = Query::<T>::from_request_parts(parts, app).await;
        query.map(|Query(query)| Queried(query)).map_err(|error| usage(error.body_text()))
    }
}

// ---- routes -------------------------------------------------------------------------------

/// How the gate is. Role read.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = wire::Status)))]
async fn get_status(State(app): State<App>, who: Who) -> Answer<wire::Status> {
    who.may(Role::Read)?;
    app.status().await.map(Json)
}

/// All blocks, one a line. Role read.
#[utoipa::path(get, path = "/v1/blocks",
    responses((status = 200, body = wire::Block, content_type = "application/x-ndjson")))]
async fn list_blocks(State(app): State<App>, who: Who) -> Result<Response, Problem> {
    who.may(Role::Read)?;
    let mut last = None;
    lists::list(&app.control.keeper, move |reader, page| {
        reader.for_each_after(Kind::Block, last, |decision| {
            last = Some(decision.subject);
            let block = block_of(&decision);
            page.put(&wire::Block { number: who.sees(block.number), ..block })
        })
    })
    .await
}

/// Blocks a number or prefix, or moves the end of its block. Role operate; permanent: admin.
#[utoipa::path(post, path = "/v1/blocks", request_body = wire::AddBlock,
    responses((status = 200, body = wire::Changed<wire::Block>), (status = 400, body = Problem),
        (status = 403, body = Problem), (status = 409, body = Problem), (status = 503, body = Problem),
        (status = 507, body = Problem)))]
async fn add_block(
    State(app): State<App>,
    who: Who,
    Asked(add): Asked<wire::AddBlock>,
) -> Answer<wire::Changed<wire::Block>> {
    who.may(Role::Operate)?;
    app.control.add_block(&who, add).await.map(Json)
}

/// Imports blocks, all or none: newline-delimited JSON in both directions. Role operate.
#[utoipa::path(post, path = "/v1/blocks/import",
    params(("dry_run" = Option<bool>, Query), ("skip_bad" = Option<bool>, Query)),
    request_body(content = wire::ImportRow, content_type = "application/x-ndjson"),
    responses((status = 200, body = wire::ImportNews, content_type = "application/x-ndjson")))]
async fn import_blocks(
    State(app): State<App>,
    who: Who,
    Queried(query): Queried<ImportQuery>,
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
        // It goes on when whoever asked hangs up.
        let _slot = slot;
        import.finish(query.skip_bad, query.dry_run, sender).await;
    });
    let stream = futures_util::stream::unfold(receiver, async |mut receiver| {
        let news: wire::ImportNews = receiver.recv().await?;
        let line = serde_json::to_vec(&news).map(|mut line| {
            line.push(b'\n');
            Bytes::from(line)
        });
        Some((line, receiver))
    });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((headers, Body::from_stream(stream)).into_response())
}

fn fits(number: u64, line: &[u8]) -> Result<(), Problem> {
    if line.len() > LINE_MAX {
        return Err(usage(format!("line {number} is longer than {LINE_MAX} bytes")));
    }
    Ok(())
}

/// One block. Role report: whoever may ask for numbers finds masked ones by asking for all.
#[utoipa::path(get, path = "/v1/blocks/{number}", params(("number" = String, Path)),
    responses((status = 200, body = wire::Block), (status = 403, body = Problem),
        (status = 404, body = Problem)))]
async fn show_block(State(app): State<App>, who: Who, Named(number): Named) -> Answer<wire::Block> {
    who.may(Role::Report)?;
    let block = app.control.show_block(&number).await?;
    Ok(Json(wire::Block { number: who.sees(block.number), ..block }))
}

/// Ends a block: in force before it is on disk. Role operate.
#[utoipa::path(delete, path = "/v1/blocks/{number}",
    params(("number" = String, Path), ("dry_run" = Option<bool>, Query)),
    responses((status = 200, body = wire::Changed<wire::Block>), (status = 404, body = Problem)))]
async fn remove_block(
    State(app): State<App>,
    who: Who,
    Named(number): Named,
    Queried(query): Queried<DryRun>,
) -> Answer<wire::Changed<wire::Block>> {
    who.may(Role::Operate)?;
    app.control.remove_block(&who, &number, query.dry_run).await.map(Json)
}

/// All allows, or those of an incident, one a line. Role read.
#[utoipa::path(get, path = "/v1/allows", params(("incident" = Option<String>, Query)),
    responses((status = 200, body = wire::Allow, content_type = "application/x-ndjson")))]
async fn list_allows(
    State(app): State<App>,
    who: Who,
    Queried(query): Queried<AllowQuery>,
) -> Result<Response, Problem> {
    who.may(Role::Read)?;
    let mut last = None;
    lists::list(&app.control.keeper, move |reader, page| {
        reader.for_each_after(Kind::Allow, last, |decision| {
            last = Some(decision.subject);
            if query.incident.is_some() && query.incident != decision.incident {
                return page.pass();
            }
            let allow = allow_of(&decision);
            page.put(&wire::Allow { number: who.sees(allow.number), ..allow })
        })
    })
    .await
}

/// Ends all allows of an incident. Role operate.
#[utoipa::path(delete, path = "/v1/allows",
    params(("incident" = String, Query), ("dry_run" = Option<bool>, Query)),
    responses((status = 200, body = wire::IncidentEnded), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
async fn end_incident(
    State(app): State<App>,
    who: Who,
    Queried(query): Queried<EndIncident>,
) -> Answer<wire::IncidentEnded> {
    who.may(Role::Operate)?;
    app.control.end_incident(&who, &query.incident, query.dry_run).await.map(Json)
}

/// Allows a number or prefix, whatever is blocked: in force before it is on disk. Role operate.
#[utoipa::path(post, path = "/v1/allows", request_body = wire::AddAllow,
    responses((status = 200, body = wire::Changed<wire::Allow>), (status = 400, body = Problem)))]
async fn add_allow(
    State(app): State<App>,
    who: Who,
    Asked(add): Asked<wire::AddAllow>,
) -> Answer<wire::Changed<wire::Allow>> {
    who.may(Role::Operate)?;
    app.control.add_allow(&who, add).await.map(Json)
}

/// Ends an allow. Role operate.
#[utoipa::path(delete, path = "/v1/allows/{number}",
    params(("number" = String, Path), ("dry_run" = Option<bool>, Query)),
    responses((status = 200, body = wire::Changed<wire::Allow>), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
async fn remove_allow(
    State(app): State<App>,
    who: Who,
    Named(number): Named,
    Queried(query): Queried<DryRun>,
) -> Answer<wire::Changed<wire::Allow>> {
    who.may(Role::Operate)?;
    app.control.remove_allow(&who, &number, query.dry_run).await.map(Json)
}

/// The centre calls this number: it passes for as long as the call-back grace. For calls that do
/// not leave over UDP. Role operate.
#[utoipa::path(post, path = "/v1/callback", request_body = wire::Callback,
    responses((status = 200, body = wire::Changed<wire::Allow>), (status = 400, body = Problem),
        (status = 403, body = Problem)))]
async fn callback(
    State(app): State<App>,
    who: Who,
    Asked(call): Asked<wire::Callback>,
) -> Answer<wire::Changed<wire::Allow>> {
    who.may(Role::Operate)?;
    app.control.callback(&who, call).await.map(Json)
}

/// The override. Role read.
#[utoipa::path(get, path = "/v1/override", responses((status = 200, body = wire::Override)))]
async fn get_override(State(app): State<App>, who: Who) -> Answer<wire::Override> {
    who.may(Role::Read)?;
    app.control.get_override().await.map(Json)
}

/// Switches the override: in force before it is on disk. Role operate.
#[utoipa::path(put, path = "/v1/override", request_body = wire::SetOverride,
    responses((status = 200, body = wire::Override), (status = 400, body = Problem)))]
async fn set_override(
    State(app): State<App>,
    who: Who,
    Asked(set): Asked<wire::SetOverride>,
) -> Answer<wire::Override> {
    who.may(Role::Operate)?;
    app.control.set_override(&who, set).await.map(Json)
}

/// The mode. Role read.
#[utoipa::path(get, path = "/v1/mode", responses((status = 200, body = wire::Mode)))]
async fn get_mode(State(app): State<App>, who: Who) -> Answer<wire::Mode> {
    who.may(Role::Read)?;
    app.control.get_mode().map(Json)
}

/// Sets the mode. Role admin.
#[utoipa::path(put, path = "/v1/mode", request_body = wire::SetMode,
    responses((status = 200, body = wire::Mode), (status = 400, body = Problem),
        (status = 409, body = Problem)))]
async fn set_mode(
    State(app): State<App>,
    who: Who,
    Asked(set): Asked<wire::SetMode>,
) -> Answer<wire::Mode> {
    who.may(Role::Admin)?;
    app.control.set_mode(&who, set).await.map(Json)
}

/// What a call from this number gets now. With `Accept: text/plain` one line, the verdict first,
/// for SIP servers. Role report: whoever may ask for numbers finds masked ones by asking for all.
#[utoipa::path(get, path = "/v1/check/{number}", params(("number" = String, Path)),
    responses((status = 200, body = wire::Check), (status = 400, body = Problem),
        (status = 403, body = Problem)))]
async fn check(
    State(app): State<App>,
    who: Who,
    Named(number): Named,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    who.may(Role::Report)?;
    app.check(&number, &headers)
}

async fn check_unasked(
    State(app): State<App>,
    Named(number): Named,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.check(&number, &headers)
}

/// Which rule decides on a number, and what the kernel's maps hold. Role operate.
#[utoipa::path(get, path = "/v1/explain/{number}", params(("number" = String, Path)),
    responses((status = 200, body = wire::Explain), (status = 400, body = Problem)))]
async fn explain(State(app): State<App>, who: Who, Named(number): Named) -> Answer<wire::Explain> {
    who.may(Role::Operate)?;
    app.control.explain(&number).await.map(Json)
}

/// The number that a query names, if it names one. For the role report: whoever may ask for
/// numbers finds masked ones by asking for all.
fn number_of(
    app: &App,
    who: &Who,
    name: &str,
    text: Option<&str>,
) -> Result<Option<Number>, Problem> {
    if text.is_some() {
        who.may(Role::Report)?;
    }
    match text.map(|text| app.control.subject(text)).transpose()? {
        None => Ok(None),
        Some(Subject::Number(number)) => Ok(Some(number)),
        Some(Subject::Prefix(_)) => Err(usage(format!("{name}: a number, not a prefix"))),
    }
}

/// Attempts, newest first, one a line. Role read; with `caller` report.
#[utoipa::path(get, path = "/v1/calls",
    params(("since" = Option<String>, Query), ("caller" = Option<String>, Query),
        ("call_id" = Option<String>, Query), ("verdict" = Option<String>, Query),
        ("reason" = Option<String>, Query), ("trunk" = Option<String>, Query),
        ("limit" = Option<u64>, Query)),
    responses((status = 200, body = wire::Call, content_type = "application/x-ndjson")))]
async fn list_calls(
    State(app): State<App>,
    who: Who,
    Queried(query): Queried<CallQuery>,
) -> Result<Response, Problem> {
    who.may(Role::Read)?;
    let number = number_of(&app, &who, "caller", query.caller.as_deref())?;
    if let Some(verdict) = &query.verdict
        && !["pass", "drop", "reply", "divert"].contains(&verdict.as_str())
    {
        return Err(usage("verdict: pass, drop, reply or divert"));
    }
    if let Some(reason) = &query.reason
        && !Reason::ALL.iter().any(|known| known.name() == reason)
    {
        return Err(usage(format!("reason: {reason:?} is none; `palang calls` shows them")));
    }
    let hash = query.call_id.as_ref().map(|text| {
        let bytes = text.as_bytes();
        call_id_hash(&Slice::from(bytes), 0, bytes.len())
    });
    let mut left = query.limit.unwrap_or(u64::MAX);
    let mut filter =
        CallFilter { since: query.since, number, call_hash: hash, ..CallFilter::default() };
    lists::list(&app.control.keeper, move |reader, page| {
        let mut last = filter.after;
        reader.calls(&filter, |(id, row)| {
            last = Some((row.time, id));
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

/// All of one attempt, with its INVITE where that was kept. Role operate.
#[utoipa::path(get, path = "/v1/calls/{id}", params(("id" = String, Path)),
    responses((status = 200, body = wire::CallShown), (status = 403, body = Problem),
        (status = 404, body = Problem)))]
async fn show_call(State(app): State<App>, who: Who, Named(id): Named) -> Answer<wire::CallShown> {
    who.may(Role::Operate)?;
    let id: u64 = id.parse().map_err(|_| usage(format!("{id:?} is no number of a call")))?;
    let read = app.control.keeper.read(move |reader| Ok((reader.call(id)?, reader.evidence(id)?)));
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
struct LiveQuery {
    #[serde(default)]
    evidence: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReportQuery {
    since: Option<Timestamp>,
    number: Option<String>,
}

/// Reports of calls, newest first, one a line. Role read; with `number` report.
#[utoipa::path(get, path = "/v1/reports",
    params(("since" = Option<String>, Query), ("number" = Option<String>, Query)),
    responses((status = 200, body = wire::Report, content_type = "application/x-ndjson")))]
async fn list_reports(
    State(app): State<App>,
    who: Who,
    Queried(query): Queried<ReportQuery>,
) -> Result<Response, Problem> {
    who.may(Role::Read)?;
    let number = number_of(&app, &who, "number", query.number.as_deref())?;
    let config = app.control.config();
    let mut filter = ReportFilter { since: query.since, number, after: None };
    lists::list(&app.control.keeper, move |reader, page| {
        let now = clock::now();
        let mut last = filter.after;
        reader.reports(&filter, |(id, report)| {
            last = Some((report.time, id));
            let report = report_of(Some(id), report, &config.ladder, now);
            page.put(&wire::Report { number: who.sees(report.number), ..report })
        })?;
        filter.after = last;
        Ok(())
    })
    .await
}

/// Reports a call. It is a strike where number and Call-ID are those of a call of the last 24 h
/// that passed, on a trunk that vouches for the number; what the strikes lead to says the ladder.
/// Role report.
#[utoipa::path(post, path = "/v1/reports", request_body = wire::AddReport,
    responses((status = 200, body = wire::Reported), (status = 400, body = Problem),
        (status = 403, body = Problem), (status = 503, body = Problem)))]
async fn add_report(
    State(app): State<App>,
    who: Who,
    Asked(add): Asked<wire::AddReport>,
) -> Answer<wire::Reported> {
    who.may(Role::Report)?;
    app.control.add_report(&who, add).await.map(Json)
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReviewQuery {
    #[serde(default)]
    all: bool,
}

/// Redial grants and reports that nobody has looked at, oldest first, one a line; with `all` also the
/// others.
/// Role read.
#[utoipa::path(get, path = "/v1/reviews", params(("all" = Option<bool>, Query)),
    responses((status = 200, body = wire::Review, content_type = "application/x-ndjson")))]
async fn list_reviews(
    State(app): State<App>,
    who: Who,
    Queried(query): Queried<ReviewQuery>,
) -> Result<Response, Problem> {
    who.may(Role::Read)?;
    let mut last = 0;
    lists::list(&app.control.keeper, move |reader, page| {
        reader.reviews(query.all, last, |(id, review)| {
            last = id;
            let review = review_of(Some(id), review);
            page.put(&wire::Review { number: who.sees(review.number), ..review })
        })
    })
    .await
}

/// Notes that somebody looked at a redial grant or a report. Role operate.
#[utoipa::path(post, path = "/v1/reviews/{id}/close", params(("id" = u64, Path)),
    request_body = wire::CloseReview,
    responses((status = 200, body = wire::ReviewClosed), (status = 403, body = Problem),
        (status = 404, body = Problem)))]
async fn close_review(
    State(app): State<App>,
    who: Who,
    Named(id): Named,
    Asked(close): Asked<wire::CloseReview>,
) -> Answer<wire::ReviewClosed> {
    who.may(Role::Operate)?;
    app.control.close_review(&who, review_id(&id)?, close).await.map(Json)
}

/// Extends the block of a review's number and closes the review. Role operate.
#[utoipa::path(post, path = "/v1/reviews/{id}/extend", params(("id" = u64, Path)),
    request_body = wire::ExtendReview,
    responses((status = 200, body = wire::ReviewSettled), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn extend_review(
    State(app): State<App>,
    who: Who,
    Named(id): Named,
    Asked(extend): Asked<wire::ExtendReview>,
) -> Answer<wire::ReviewSettled> {
    who.may(Role::Operate)?;
    app.control.extend_review(&who, review_id(&id)?, extend).await.map(Json)
}

/// Ends the block of a review's number and closes the review. Role operate.
#[utoipa::path(post, path = "/v1/reviews/{id}/free", params(("id" = u64, Path)),
    request_body = wire::CloseReview,
    responses((status = 200, body = wire::ReviewSettled), (status = 403, body = Problem),
        (status = 404, body = Problem)))]
async fn free_review(
    State(app): State<App>,
    who: Who,
    Named(id): Named,
    Asked(free): Asked<wire::CloseReview>,
) -> Answer<wire::ReviewSettled> {
    who.may(Role::Operate)?;
    app.control.free_review(&who, review_id(&id)?, free).await.map(Json)
}

fn review_id(id: &str) -> Result<u64, Problem> {
    id.parse().map_err(|_| usage(format!("{id:?} is no number of a review")))
}

/// What happens from now on, one event a line, until the connection is closed. Role read.
#[utoipa::path(get, path = "/v1/events",
    responses((status = 200, body = wire::Event, content_type = "application/x-ndjson")))]
async fn events(State(app): State<App>, who: Who) -> Result<Response, Problem> {
    who.may(Role::Read)?;
    let news = (app.reviews.listen(), who);
    let stream = futures_util::stream::unfold(news, async |(mut news, who)| {
        let event = match news.recv().await {
            Ok(wire::Event::RedialGrant { review }) => {
                let number = who.sees(review.number);
                wire::Event::RedialGrant { review: wire::Review { number, ..review } }
            }
            Ok(lost @ wire::Event::Lost { .. }) => lost,
            Err(RecvError::Lagged(count)) => wire::Event::Lost { count },
            Err(RecvError::Closed) => return None,
        };
        Some((event, (news, who)))
    });
    Ok(lists::endless(stream))
}

/// Attempts as they are judged, one a line, and once a second how many were lost, until the
/// connection is closed. Role read. With `evidence=true` also the INVITEs of refused ones, which
/// the kernel keeps for as long: role operate, and the audit tells of it.
#[utoipa::path(get, path = "/v1/calls/live", params(("evidence" = Option<bool>, Query)),
    responses((status = 200, body = wire::Live, content_type = "application/x-ndjson"),
        (status = 403, body = Problem)))]
async fn live_calls(
    State(app): State<App>,
    who: Who,
    Queried(query): Queried<LiveQuery>,
) -> Result<Response, Problem> {
    who.may(Role::Read)?;
    struct Looking {
        app: App,
        who: Who,
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
        app.control.keeper.keep(move |store| store.audit(entry.clone())).await;
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

/// The status, counts by trunk, and who is refused most, once a second, until the connection is
/// closed. Role read.
#[utoipa::path(get, path = "/v1/top",
    responses((status = 200, body = wire::Top, content_type = "application/x-ndjson")))]
async fn get_top(State(app): State<App>, who: Who) -> Result<Response, Problem> {
    who.may(Role::Read)?;
    Ok(lists::endless(top::lines(app, who)))
}

/// All that is held about one number. Role operate.
#[utoipa::path(get, path = "/v1/numbers/{number}", params(("number" = String, Path)),
    responses((status = 200, body = wire::Held), (status = 400, body = Problem)))]
async fn export_number(
    State(app): State<App>,
    who: Who,
    Named(number): Named,
) -> Answer<wire::Held> {
    who.may(Role::Operate)?;
    app.control.export_number(&who, &number).await.map(Json)
}

/// Forgets a number: its calls, reports and reviews are deleted, and in the audit only its pseudonym
/// is left. Refused while a block, an allow or a redial grant for exactly this number is in force.
/// Role admin.
#[utoipa::path(delete, path = "/v1/numbers/{number}",
    params(("number" = String, Path), ("reason" = String, Query),
        ("dry_run" = Option<bool>, Query)),
    responses((status = 200, body = wire::Erased), (status = 400, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 503, body = Problem)))]
async fn erase_number(
    State(app): State<App>,
    who: Who,
    Named(number): Named,
    Queried(query): Queried<EraseQuery>,
) -> Answer<wire::Erased> {
    who.may(Role::Admin)?;
    app.control.erase_number(&who, &number, query.reason, query.dry_run).await.map(Json)
}

/// The audit, oldest first, one row a line. The number may also be a pseudonym. Role operate.
#[utoipa::path(get, path = "/v1/audit",
    params(("since" = Option<String>, Query), ("number" = Option<String>, Query)),
    responses((status = 200, body = wire::AuditRow, content_type = "application/x-ndjson")))]
async fn list_audit(
    State(app): State<App>,
    who: Who,
    Queried(query): Queried<AuditQuery>,
) -> Result<Response, Problem> {
    who.may(Role::Operate)?;
    let number = match query.number {
        None => None,
        Some(pseudonym) if pseudonym.starts_with('#') => Some(pseudonym),
        Some(text) => Some(app.control.subject(&text)?.to_string()),
    };
    let mut next = 0;
    let filter = AuditFilter { since: query.since, number };
    lists::list(&app.control.keeper, move |reader, page| {
        reader.audit_rows(next, &filter, |row| {
            next = row.seq + 1;
            page.put(&audit_row_of(row))
        })
    })
    .await
}

/// Computes the chain of the audit again. Role read.
#[utoipa::path(get, path = "/v1/audit/verify", params(("head" = Option<String>, Query)),
    responses((status = 200, body = wire::AuditVerdict)))]
async fn verify_audit(
    State(app): State<App>,
    who: Who,
    Queried(query): Queried<VerifyQuery>,
) -> Answer<wire::AuditVerdict> {
    who.may(Role::Read)?;
    let head = query.head.map(|head| head.parse().map_err(usage)).transpose()?;
    let check = app.control.keeper.read_long(move |reader| reader.verify_audit(head)).await?;
    Ok(Json(wire::AuditVerdict {
        rows: check.rows,
        first_bad: check.first_bad,
        head: check.head.to_string(),
    }))
}

/// The configuration in force. Role read; below operate without comments, and with protected
/// numbers masked.
#[utoipa::path(get, path = "/v1/config", responses((status = 200, body = wire::ConfigInForce)))]
async fn get_config(State(app): State<App>, who: Who) -> Answer<wire::ConfigInForce> {
    who.may(Role::Read)?;
    let config = app.control.config();
    let masked = who.role < Role::Operate;
    let text = if masked {
        let shown = config.shown().masked(access::masked);
        toml::to_string(&shown).map_err(|error| Problem {
            kind: ProblemKind::Failed,
            message: format!("the configuration cannot be shown: {error}"),
        })?
    } else {
        config.text.clone()
    };
    let path = config.path.display().to_string();
    let problem = app.config_problem.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(Json(wire::ConfigInForce { path, text, masked, problem: problem.clone() }))
}

/// Attaches the filter to an interface. Role admin.
#[utoipa::path(post, path = "/v1/interfaces/{name}", params(("name" = String, Path)),
    request_body = wire::Attach,
    responses((status = 200, body = wire::Interface), (status = 404, body = Problem)))]
async fn attach(
    State(app): State<App>,
    who: Who,
    Named(name): Named,
    Asked(attach): Asked<wire::Attach>,
) -> Answer<wire::Interface> {
    who.may(Role::Admin)?;
    let mode = match attach.mode {
        None => None,
        Some(mode) => {
            let parsed = serde_json::from_value::<XdpMode>(serde_json::Value::String(mode));
            Some(parsed.map_err(usage)?)
        }
    };
    let done = app.links.attach(&who, &name, mode, attach.dry_run).await?;
    app.links.settle().await;
    Ok(Json(done))
}

/// Takes the filter off an interface. Role admin.
#[utoipa::path(delete, path = "/v1/interfaces/{name}",
    params(("name" = String, Path), ("dry_run" = Option<bool>, Query)),
    responses((status = 200, body = wire::Interface), (status = 404, body = Problem)))]
async fn detach(
    State(app): State<App>,
    who: Who,
    Named(name): Named,
    Queried(query): Queried<DryRun>,
) -> Answer<wire::Interface> {
    who.may(Role::Admin)?;
    let done = app.links.detach(&who, &name, query.dry_run).await?;
    app.links.settle().await;
    Ok(Json(done))
}

/// Copies the store while it is in use, to a file below `[paths] state` or `backup`. Role admin.
#[utoipa::path(post, path = "/v1/store/backup", request_body = wire::Backup,
    responses((status = 200), (status = 403, body = Problem), (status = 503, body = Problem)))]
async fn backup(
    State(app): State<App>,
    who: Who,
    Asked(backup): Asked<wire::Backup>,
) -> Answer<serde_json::Value> {
    who.may(Role::Admin)?;
    let path = PathBuf::from(backup.path);
    if !path.is_absolute() {
        return Err(usage("path: it must be absolute"));
    }
    privileges::may_write_backup(&app.control.config(), &path)
        .map_err(|message| Problem { kind: ProblemKind::Refused, message })?;
    app.control.keeper.read_long(move |reader| reader.backup(&path)).await?;
    Ok(Json(serde_json::json!({})))
}

/// Decides, where the store is not the one that the kernel's maps were written from. Role admin.
#[utoipa::path(post, path = "/v1/store/adopt", request_body = wire::AdoptStore,
    responses((status = 200, body = wire::Adopted), (status = 400, body = Problem),
        (status = 403, body = Problem), (status = 503, body = Problem)))]
async fn adopt_store(
    State(app): State<App>,
    who: Who,
    Asked(adopt): Asked<wire::AdoptStore>,
) -> Answer<wire::Adopted> {
    who.may(Role::Admin)?;
    held::adopt(&app.control, &who, adopt).await.map(Json)
}

impl App {
    fn check(&self, number: &str, headers: &HeaderMap) -> Result<Response, Problem> {
        let Subject::Number(number) = self.control.subject(number)? else {
            return Err(usage("check a number, not a prefix"));
        };
        let check = self.control.check(number)?;
        let plain = headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .is_some_and(|accept| accept.starts_with("text/plain"));
        if plain {
            return Ok(format!("{} {}\n", check.verdict, check.reason).into_response());
        }
        Ok(Json(check).into_response())
    }

    /// How everything is.
    ///
    /// # Errors
    /// A failing system call.
    pub async fn status(&self) -> Result<wire::Status, Problem> {
        let control = &self.control;
        let config = control.config();
        let attempts = Some(self.accounts.attempts(control.maps.event_stats()?));
        let mut status =
            status::of_maps(&control.maps, config.blocks, self.links.seen(), attempts)?;
        status.daemon = true;
        status.since = Some(self.since);
        status.r#override = control.get_override().await?;
        status.drift = control.drift.load(Ordering::Relaxed);
        status.reattached = control.reattached.load(Ordering::Relaxed).into();
        if self.accounts.is_flood() {
            let message = "a flood: refusals above [records] per_trunk are only counted; `palang top` shows who calls";
            status.find(Colour::Amber, message);
        }
        let stored = control
            .keeper
            .read_soon(|reader| {
                let head = reader.audit_head()?;
                let newest = reader.newest()?;
                let reviews = reader.open_reviews()?;
                let counts = (reader.count(Kind::Block)?, reader.count(Kind::Allow)?);
                Ok((counts, head, newest, reviews, reader.size()?))
            })
            .await;
        match stored {
            Ok(((blocks, allows), head, newest, reviews, size)) => {
                if let Some(finding) = control.limit.finding(size) {
                    status.find(Colour::Amber, finding);
                }
                status.reviews = Some(reviews);
                status.blocks = Some(blocks);
                status.allows = Some(allows);
                status.audit_head = Some(head.to_string());
                if blocks * 10 > status.blocks_capacity * 9 {
                    status.find(
                        Colour::Amber,
                        format!("{blocks} of {} blocks: nearly full", status.blocks_capacity),
                    );
                }
                if let Some(newest) = newest
                    && newest > clock::now() + jiff::SignedDuration::from_secs(5)
                {
                    let message =
                        format!("the clock is behind the store's newest record, {newest}: set it");
                    status.find(Colour::Red, message);
                }
            }
            Err(problem) => status.find(Colour::Red, format!("store: {}", problem.message)),
        }
        if let Some(finding) = control.held.finding() {
            status.find(Colour::Red, finding);
        }
        if let Some(problem) = control.comparison() {
            let message = format!("store and maps are not one, the filter goes on: {problem}");
            status.find(Colour::Red, message);
        }
        if let Some(problem) = control.keeper.problem() {
            let message = format!("the store takes no writes; the filter goes on: {problem}");
            status.find(Colour::Red, message);
        }
        let unsaved = control.keeper.unsaved();
        if unsaved > 0 {
            let message = format!("{unsaved} changes are in force and not on disk");
            status.find(Colour::Amber, message);
        }
        let lock = self.config_problem.lock();
        if let Some(problem) = lock.unwrap_or_else(std::sync::PoisonError::into_inner).as_ref() {
            status.find(
                Colour::Amber,
                format!("the configuration was not reloaded, the old one is in force: {problem}"),
            );
        }
        for problem in control.chores.problems() {
            status.find(Colour::Amber, problem);
        }
        if let Some(problem) = self.reviews.problem() {
            status.find(Colour::Amber, problem);
        }
        if let Some(why) = self.links.slow_reader() {
            status.find_slow_reader(why);
        }
        if status.drift > 0 {
            let message = format!("{} differences of store and maps were repaired", status.drift);
            status.find(Colour::Amber, message);
        }
        Ok(status)
    }
}

/// A call as the API tells it to this user.
pub fn call(id: u64, row: CallRow, who: &Who) -> wire::Call {
    let verdict = |number| Verdict::from_number(number).unwrap_or(Verdict::Pass).name().to_owned();
    wire::Call {
        id,
        time: row.time,
        caller: row.number.map(|number| who.sees(number.to_string())),
        trunk: row.trunk,
        source: row.source,
        call_id: row.call_id,
        identity: match row.identity {
            EVENT_FROM => Some("from".to_owned()),
            EVENT_PAI => Some("pai".to_owned()),
            _ => None,
        },
        verdict: verdict(row.verdict),
        would: verdict(row.would),
        reason: Reason::from_number(row.reason).map_or("unknown", Reason::name).to_owned(),
        rule: row.rule,
        repeats: row.repeats,
        attempts: row.count,
    }
}
