//! Handles the routes of tests of redirections.

use axum::Json;
use axum::extract::State;

use crate::api::wire::{self, Problem};
use crate::daemon::app::App;
use crate::daemon::http::extract::{Answer, JsonBody, PathParam};
use crate::daemon::role::{Principal, Role};

/// Answers one caller with 302 for a while, if the trunk has a contact. Role admin.
#[utoipa::path(post, path = "/v1/redirects/{name}", params(("name" = String, Path)),
    request_body = wire::TestRedirect,
    responses((status = 200, body = wire::RedirectTest), (status = 400, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn begin_test(
    State(app): State<App>,
    who: Principal,
    PathParam(trunk): PathParam,
    JsonBody(test): JsonBody<wire::TestRedirect>,
) -> Answer<wire::RedirectTest> {
    who.may(Role::Admin)?;
    app.control.begin_redirect_test(&who, &trunk, test).await.map(Json)
}

/// Stores the result of a test. A trunk may answer with 302 once it was passed. Role admin.
#[utoipa::path(put, path = "/v1/redirects/{name}", params(("name" = String, Path)),
    request_body = wire::SetRedirect,
    responses((status = 200, body = wire::RedirectTested), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn end_test(
    State(app): State<App>,
    who: Principal,
    PathParam(trunk): PathParam,
    JsonBody(result): JsonBody<wire::SetRedirect>,
) -> Answer<wire::RedirectTested> {
    who.may(Role::Admin)?;
    app.control.end_redirect_test(&who, &trunk, result).await.map(Json)
}
