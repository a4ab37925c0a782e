//! Handles the routes of interfaces.

use axum::Json;
use axum::extract::State;

use crate::api::wire;
use crate::api::wire::Problem;
use crate::daemon::app::{App, usage};
use crate::daemon::http::extract::{Answer, DryRun, JsonBody, PathParam, QueryParams};
use crate::daemon::role::{Principal, Role};
use crate::model::xdp_mode::XdpMode;

/// Attaches the filter to an interface. Role admin.
#[utoipa::path(post, path = "/v1/interfaces/{name}", params(("name" = String, Path)),
    request_body = wire::Attach,
    responses((status = 200, body = wire::Interface), (status = 404, body = Problem)))]
pub(crate) async fn attach(
    State(app): State<App>,
    who: Principal,
    PathParam(name): PathParam,
    JsonBody(attach): JsonBody<wire::Attach>,
) -> Answer<wire::Interface> {
    who.may(Role::Admin)?;
    let mode = match attach.mode {
        None => None,
        Some(mode) => {
            let parsed = serde_json::from_value::<XdpMode>(serde_json::Value::String(mode));
            Some(parsed.map_err(usage)?)
        }
    };
    let done = app.attachments.attach(&who, &name, mode, attach.dry_run).await?;
    app.attachments.settle().await;
    Ok(Json(done))
}

/// Detaches the filter from an interface. Role admin.
#[utoipa::path(delete, path = "/v1/interfaces/{name}",
    params(("name" = String, Path), ("dry_run" = Option<bool>, Query)),
    responses((status = 200, body = wire::Interface), (status = 404, body = Problem)))]
pub(crate) async fn detach(
    State(app): State<App>,
    who: Principal,
    PathParam(name): PathParam,
    QueryParams(query): QueryParams<DryRun>,
) -> Answer<wire::Interface> {
    who.may(Role::Admin)?;
    let done = app.attachments.detach(&who, &name, query.dry_run).await?;
    app.attachments.settle().await;
    Ok(Json(done))
}
