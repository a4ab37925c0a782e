//! Handles the routes of allows.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use crate::api::wire;
use crate::api::wire::Problem;
use crate::change_plan::allow::allow_of;
use crate::daemon::app::App;
use crate::daemon::http::extract::{Answer, DryRun, JsonBody, PathParam, QueryParams};
use crate::daemon::http::lists;
use crate::daemon::role::{Principal, Role};
use crate::store::Kind;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AllowQuery {
    pub(crate) incident: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndIncident {
    pub(crate) incident: String,
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// Lists all allows, or those of an incident, one a line. Role read.
#[utoipa::path(get, path = "/v1/allows", params(("incident" = Option<String>, Query)),
    responses((status = 200, body = wire::Allow, content_type = "application/x-ndjson")))]
pub(crate) async fn list_allows(
    State(app): State<App>,
    who: Principal,
    QueryParams(query): QueryParams<AllowQuery>,
) -> Result<Response, Problem> {
    who.may(Role::Read)?;
    let mut last = None;
    lists::list(&app.control.store_handle, move |reader, page| {
        reader.for_each_after(Kind::Allow, last, |decision| {
            last = Some(decision.subject);
            if query.incident.is_some() && query.incident != decision.incident {
                return page.pass();
            }
            let allow = allow_of(&decision);
            page.put(&wire::Allow { number: who.mask(allow.number), ..allow })
        })
    })
    .await
}

/// Ends all allows of an incident. Role operate.
#[utoipa::path(delete, path = "/v1/allows",
    params(("incident" = String, Query), ("dry_run" = Option<bool>, Query)),
    responses((status = 200, body = wire::IncidentEnded), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(crate) async fn end_incident(
    State(app): State<App>,
    who: Principal,
    QueryParams(query): QueryParams<EndIncident>,
) -> Answer<wire::IncidentEnded> {
    who.may(Role::Operate)?;
    app.control.end_incident(&who, &query.incident, query.dry_run).await.map(Json)
}

/// Allows a number or prefix, even if it is blocked: in force before it is on disk. Role operate.
#[utoipa::path(post, path = "/v1/allows", request_body = wire::AddAllow,
    responses((status = 200, body = wire::Changed<wire::Allow>), (status = 400, body = Problem)))]
pub(crate) async fn add_allow(
    State(app): State<App>,
    who: Principal,
    JsonBody(add): JsonBody<wire::AddAllow>,
) -> Answer<wire::Changed<wire::Allow>> {
    who.may(Role::Operate)?;
    app.control.add_allow(&who, add).await.map(Json)
}

/// Ends an allow. Role operate.
#[utoipa::path(delete, path = "/v1/allows/{number}",
    params(("number" = String, Path), ("dry_run" = Option<bool>, Query)),
    responses((status = 200, body = wire::Changed<wire::Allow>), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(crate) async fn remove_allow(
    State(app): State<App>,
    who: Principal,
    PathParam(number): PathParam,
    QueryParams(query): QueryParams<DryRun>,
) -> Answer<wire::Changed<wire::Allow>> {
    who.may(Role::Operate)?;
    app.control.remove_allow(&who, &number, query.dry_run).await.map(Json)
}

/// Allows a number that the centre calls, for the call-back grace. For calls that do not leave over
/// UDP. Role operate.
#[utoipa::path(post, path = "/v1/callback", request_body = wire::Callback,
    responses((status = 200, body = wire::Changed<wire::Allow>), (status = 400, body = Problem),
        (status = 403, body = Problem)))]
pub(crate) async fn callback(
    State(app): State<App>,
    who: Principal,
    JsonBody(call): JsonBody<wire::Callback>,
) -> Answer<wire::Changed<wire::Allow>> {
    who.may(Role::Operate)?;
    app.control.callback(&who, call).await.map(Json)
}
