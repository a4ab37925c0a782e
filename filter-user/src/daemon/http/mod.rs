//! Serves the control API: HTTP and JSON on a Unix socket. The CLI does everything through it.

pub(crate) mod admit;
pub(crate) mod allow;
pub(crate) mod audit;
pub(crate) mod auth;
pub(crate) mod block;
pub(crate) mod call;
pub(crate) mod check;
pub(crate) mod extract;
pub(crate) mod interface;
pub(crate) mod listen;
pub(crate) mod lists;
pub(crate) mod metrics;
pub(crate) mod mode;
pub(crate) mod number;
pub(crate) mod redirect;
pub(crate) mod report;
pub(crate) mod review;
pub(crate) mod status;
pub(crate) mod store;
pub(crate) mod top;

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use utoipa::OpenApi;

use crate::api::wire::{self, Problem, ProblemKind};
use crate::daemon::app::App;
use crate::sys::clock;

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

/// Returns the routes for people and programs on the Unix socket.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/v1/status", get(status::get_status))
        .route("/v1/blocks", get(block::list_blocks).post(block::add_block))
        .route("/v1/blocks/import", post(block::import_blocks))
        .route("/v1/blocks/{number}", get(block::show_block).delete(block::remove_block))
        .route(
            "/v1/allows",
            get(allow::list_allows).post(allow::add_allow).delete(allow::end_incident),
        )
        .route("/v1/allows/{number}", axum::routing::delete(allow::remove_allow))
        .route("/v1/callback", post(allow::callback))
        .route("/v1/override", get(mode::get_override).put(mode::set_override))
        .route("/v1/mode", get(mode::get_mode).put(mode::set_mode))
        .route("/v1/check/{number}", get(check::check))
        .route("/v1/explain/{number}", get(check::explain))
        .route("/v1/calls", get(call::list_calls))
        .route("/v1/calls/live", get(call::live_calls))
        .route("/v1/calls/{id}", get(call::show_call))
        .route("/v1/top", get(top::get_top))
        .route("/v1/reports", get(report::list_reports).post(report::add_report))
        .route("/v1/reviews", get(review::list_reviews))
        .route("/v1/reviews/{id}/close", post(review::close_review))
        .route("/v1/reviews/{id}/extend", post(review::extend_review))
        .route("/v1/reviews/{id}/free", post(review::free_review))
        .route("/v1/events", get(review::events))
        .route("/v1/numbers/{number}", get(number::export_number).delete(number::erase_number))
        .route("/v1/audit", get(audit::list_audit))
        .route("/v1/audit/verify", get(audit::verify_audit))
        .route("/v1/config", get(status::get_config))
        .route("/v1/redirects/{name}", post(redirect::begin_test).put(redirect::end_test))
        .route("/v1/interfaces/{name}", post(interface::attach).delete(interface::detach))
        .route("/v1/store/backup", post(store::backup))
        .route("/v1/store/adopt", post(store::adopt_store))
        .route("/openapi.json", get(openapi))
        .fallback(no_route)
        .method_not_allowed_fallback(no_route)
        .layer(axum::middleware::from_fn(in_time))
        .layer(axum::middleware::from_fn(admit::admit))
        .with_state(app)
}

/// Refuses requests whose client has given up. A daemon that hung would otherwise repeat a change
/// that was made without it, or undone, since.
async fn in_time(request: Request, next: Next) -> Response {
    let deadline = request.headers().get(wire::DEADLINE);
    let deadline = deadline.and_then(|text| text.to_str().ok()?.parse::<u64>().ok());
    if deadline.is_some_and(|deadline| deadline < clock::boot()) {
        let message = "too late: the client has given up; nothing was done".into();
        return Problem { kind: ProblemKind::Failed, message }.into_response();
    }
    next.run(request).await
}

/// Returns the only route for a SIP server on this machine over TCP. The user is unknown there, so
/// nothing else is served.
pub fn check_router(app: App) -> Router {
    Router::new()
        .route("/v1/check/{number}", get(check::check_unasked))
        .fallback(no_route)
        .with_state(app)
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
        status::get_status,
        block::list_blocks,
        block::add_block,
        block::import_blocks,
        block::show_block,
        block::remove_block,
        allow::list_allows,
        allow::add_allow,
        allow::remove_allow,
        allow::callback,
        allow::end_incident,
        mode::get_override,
        mode::set_override,
        mode::get_mode,
        mode::set_mode,
        check::check,
        check::explain,
        call::list_calls,
        call::live_calls,
        call::show_call,
        top::get_top,
        report::list_reports,
        report::add_report,
        review::list_reviews,
        review::close_review,
        review::extend_review,
        review::free_review,
        review::events,
        number::export_number,
        number::erase_number,
        audit::list_audit,
        audit::verify_audit,
        status::get_config,
        redirect::begin_test,
        redirect::end_test,
        interface::attach,
        interface::detach,
        store::backup,
        store::adopt_store
    )
)]
pub struct Document;

/// Adds the answers that any request may get ([`admit`]).
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

pub(crate) async fn openapi() -> impl IntoResponse {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| {
        // The document consists of strings; a test reads it.
        Document::openapi().to_json().unwrap_or_default().into()
    });
    ([(header::CONTENT_TYPE, "application/json")], TEXT.clone())
}
