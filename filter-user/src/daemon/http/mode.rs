//! Handles the routes of the override and the mode.

use axum::Json;
use axum::extract::State;

use crate::api::wire;
use crate::api::wire::Problem;
use crate::daemon::app::App;
use crate::daemon::http::extract::{Answer, JsonBody};
use crate::daemon::role::{Principal, Role};

/// Shows the override. Role read.
#[utoipa::path(get, path = "/v1/override", responses((status = 200, body = wire::Override)))]
pub(crate) async fn get_override(State(app): State<App>, who: Principal) -> Answer<wire::Override> {
    who.may(Role::Read)?;
    app.control.get_override().await.map(Json)
}

/// Switches the override: in force before it is on disk. Role operate.
#[utoipa::path(put, path = "/v1/override", request_body = wire::SetOverride,
    responses((status = 200, body = wire::Override), (status = 400, body = Problem)))]
pub(crate) async fn set_override(
    State(app): State<App>,
    who: Principal,
    JsonBody(set): JsonBody<wire::SetOverride>,
) -> Answer<wire::Override> {
    who.may(Role::Operate)?;
    app.control.set_override(&who, set).await.map(Json)
}

/// Shows the mode. Role read.
#[utoipa::path(get, path = "/v1/mode", responses((status = 200, body = wire::Mode)))]
pub(crate) async fn get_mode(State(app): State<App>, who: Principal) -> Answer<wire::Mode> {
    who.may(Role::Read)?;
    app.control.get_mode().map(Json)
}

/// Sets the mode. Role admin.
#[utoipa::path(put, path = "/v1/mode", request_body = wire::SetMode,
    responses((status = 200, body = wire::Mode), (status = 400, body = Problem),
        (status = 409, body = Problem)))]
pub(crate) async fn set_mode(
    State(app): State<App>,
    who: Principal,
    JsonBody(set): JsonBody<wire::SetMode>,
) -> Answer<wire::Mode> {
    who.may(Role::Admin)?;
    app.control.set_mode(&who, set).await.map(Json)
}
