//! Handles the routes of the status and the configuration.

use axum::Json;
use axum::extract::State;

use crate::api::wire::{self, Problem, ProblemKind};
use crate::daemon::app::App;
use crate::daemon::http::extract::Answer;
use crate::daemon::role::{self, Principal, Role};

/// Shows the status. Role read.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = wire::Status)))]
pub(crate) async fn get_status(State(app): State<App>, who: Principal) -> Answer<wire::Status> {
    who.may(Role::Read)?;
    app.status().await.map(Json)
}

/// Shows the configuration in force. Role read; below operate without comments, and with protected
/// numbers masked.
#[utoipa::path(get, path = "/v1/config", responses((status = 200, body = wire::ConfigInForce)))]
pub(crate) async fn get_config(
    State(app): State<App>,
    who: Principal,
) -> Answer<wire::ConfigInForce> {
    who.may(Role::Read)?;
    let config = app.control.config();
    let masked = who.role < Role::Operate;
    let text = if masked {
        let shown = config.effective().masked(role::masked);
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
