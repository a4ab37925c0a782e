//! Handles the routes that check and explain a number.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use crate::api::wire;
use crate::api::wire::Problem;
use crate::daemon::app::App;
use crate::daemon::http::extract::{Answer, PathParam};
use crate::daemon::role::{Principal, Role};

/// Checks what happens to a call from this number now. With `Accept: text/plain` the answer is one
/// line for SIP servers, the verdict first. Role report: a user who may ask for single numbers can
/// find masked ones by asking for all.
#[utoipa::path(get, path = "/v1/check/{number}", params(("number" = String, Path)),
    responses((status = 200, body = wire::Check), (status = 400, body = Problem),
        (status = 403, body = Problem)))]
pub(crate) async fn check(
    State(app): State<App>,
    who: Principal,
    PathParam(number): PathParam,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    who.may(Role::Report)?;
    app.check(&number, &headers)
}

pub(crate) async fn check_unasked(
    State(app): State<App>,
    PathParam(number): PathParam,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.check(&number, &headers)
}

/// Explains which rule decides on a number, with the entries of the kernel's maps. Role operate.
#[utoipa::path(get, path = "/v1/explain/{number}", params(("number" = String, Path)),
    responses((status = 200, body = wire::Explain), (status = 400, body = Problem)))]
pub(crate) async fn explain(
    State(app): State<App>,
    who: Principal,
    PathParam(number): PathParam,
) -> Answer<wire::Explain> {
    who.may(Role::Operate)?;
    app.control.explain(&number).await.map(Json)
}
