//! TODO-DOC

use crate::api::wire;
use crate::api::wire::Problem;
use crate::daemon::app::App;
use crate::daemon::http::extract::{Answer, PathParam};
use crate::daemon::role::{Principal, Role};
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

/// What a call from this number gets now. With `Accept: text/plain` one line, the verdict first,
/// for SIP servers. Role report: whoever may ask for numbers finds masked ones by asking for all.
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

/// Which rule decides on a number, and what the kernel's maps hold. Role operate.
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
