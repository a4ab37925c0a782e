//! Handles the routes of the store.

use std::path::PathBuf;

use axum::Json;
use axum::extract::State;

use crate::api::wire::{self, Problem, ProblemKind};
use crate::daemon::adoption;
use crate::daemon::app::{App, usage};
use crate::daemon::http::extract::{Answer, JsonBody};
use crate::daemon::role::{Principal, Role};
use crate::daemon::start::privileges;

/// Copies the store while it is in use, to a file below `[paths] state` or `backup`. Role admin.
#[utoipa::path(post, path = "/v1/store/backup", request_body = wire::Backup,
    responses((status = 200), (status = 403, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn backup(
    State(app): State<App>,
    who: Principal,
    JsonBody(backup): JsonBody<wire::Backup>,
) -> Answer<serde_json::Value> {
    who.may(Role::Admin)?;
    let path = PathBuf::from(backup.path);
    if !path.is_absolute() {
        return Err(usage("path: it must be absolute"));
    }
    privileges::may_write_backup(&app.control.config(), &path)
        .map_err(|place| Problem { kind: ProblemKind::Refused, message: place.to_string() })?;
    app.control.store_handle.read_long(move |reader| reader.backup(&path)).await?;
    Ok(Json(serde_json::json!({})))
}

/// Decides between store and maps, if the maps were not written from this store. Role admin.
#[utoipa::path(post, path = "/v1/store/adopt", request_body = wire::AdoptStore,
    responses((status = 200, body = wire::Adopted), (status = 400, body = Problem),
        (status = 403, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn adopt_store(
    State(app): State<App>,
    who: Principal,
    JsonBody(adopt): JsonBody<wire::AdoptStore>,
) -> Answer<wire::Adopted> {
    who.may(Role::Admin)?;
    adoption::adopt(&app.control, &who, adopt).await.map(Json)
}
