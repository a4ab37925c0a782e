//! Handles the routes of one number.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use crate::api::wire;
use crate::api::wire::Problem;
use crate::daemon::app::App;
use crate::daemon::http::extract::{Answer, PathParam, QueryParams};
use crate::daemon::role::{Principal, Role};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EraseQuery {
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// Exports all records about one number. Role operate.
#[utoipa::path(get, path = "/v1/numbers/{number}", params(("number" = String, Path)),
    responses((status = 200, body = wire::NumberExport), (status = 400, body = Problem)))]
pub(crate) async fn export_number(
    State(app): State<App>,
    who: Principal,
    PathParam(number): PathParam,
) -> Answer<wire::NumberExport> {
    who.may(Role::Operate)?;
    app.control.export_number(&who, &number).await.map(Json)
}

/// Erases a number: its calls, reports and reviews are deleted, and the audit keeps only its
/// pseudonym. Refused while a block, an allow or a redial grant for exactly this number is in
/// force. Role admin.
#[utoipa::path(delete, path = "/v1/numbers/{number}",
    params(("number" = String, Path), ("reason" = String, Query),
        ("dry_run" = Option<bool>, Query)),
    responses((status = 200, body = wire::Erasure), (status = 400, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 503, body = Problem)))]
pub(crate) async fn erase_number(
    State(app): State<App>,
    who: Principal,
    PathParam(number): PathParam,
    QueryParams(query): QueryParams<EraseQuery>,
) -> Answer<wire::Erasure> {
    who.may(Role::Admin)?;
    app.control.erase_number(&who, &number, query.reason, query.dry_run).await.map(Json)
}
