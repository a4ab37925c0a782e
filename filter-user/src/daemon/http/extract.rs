//! Extracts body, path and query of a request, and refuses them as a [`Problem`].

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Path, Query, Request};
use filter_common::number::Number;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::api::wire::Problem;
use crate::daemon::app::{App, usage};
use crate::daemon::role::{Principal, Role};
use crate::model::policy::Subject;

pub(crate) type Answer<T> = Result<Json<T>, Problem>;

/// The body of a request, refused as a [`Problem`].
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<JsonBody<T>, Problem> {
        let body = Bytes::from_request(request, app).await.map_err(usage)?;
        let body = if body.is_empty() { &b"{}"[..] } else { &body };
        serde_json::from_slice(body).map(JsonBody).map_err(usage)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DryRun {
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// The part of a path that names something, refused as a [`Problem`].
pub(crate) struct PathParam(pub(crate) String);

impl axum::extract::FromRequestParts<App> for PathParam {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        app: &App,
    ) -> Result<PathParam, Problem> {
        let path = Path::<String>::from_request_parts(parts, app).await;
        path.map(|Path(name)| PathParam(name)).map_err(|error| usage(error.body_text()))
    }
}

/// The query of a request, refused as a [`Problem`].
pub(crate) struct QueryParams<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> axum::extract::FromRequestParts<App> for QueryParams<T> {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        app: &App,
    ) -> Result<QueryParams<T>, Problem> {
        let query = Query::<T>::from_request_parts(parts, app).await;
        query.map(|Query(query)| QueryParams(query)).map_err(|error| usage(error.body_text()))
    }
}

/// Returns the number of a query, if it has one. Role report: a user who may ask for single numbers
/// can find masked ones by asking for all.
pub(crate) fn number_of(
    app: &App,
    who: &Principal,
    name: &str,
    text: Option<&str>,
) -> Result<Option<Number>, Problem> {
    if text.is_some() {
        who.may(Role::Report)?;
    }
    match text.map(|text| app.control.subject(text)).transpose()? {
        None => Ok(None),
        Some(Subject::Number(number)) => Ok(Some(number)),
        Some(Subject::Prefix(_)) => Err(usage(format!("{name}: a number, not a prefix"))),
    }
}
