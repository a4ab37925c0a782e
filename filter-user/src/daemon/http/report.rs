//! Handles the routes of reports.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;

use crate::api::wire;
use crate::api::wire::Problem;
use crate::daemon::app::App;
use crate::daemon::convert::report_of;
use crate::daemon::http::extract::{Answer, JsonBody, QueryParams, number_of};
use crate::daemon::http::lists;
use crate::daemon::role::{Principal, Role};
use crate::store::ReportFilter;
use crate::sys::clock;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReportQuery {
    pub(crate) since: Option<Timestamp>,
    pub(crate) number: Option<String>,
}

/// Lists reports of calls, newest first, one a line. Role read; with `number` report.
#[utoipa::path(get, path = "/v1/reports",
    params(("since" = Option<String>, Query), ("number" = Option<String>, Query)),
    responses((status = 200, body = wire::Report, content_type = "application/x-ndjson")))]
pub(crate) async fn list_reports(
    State(app): State<App>,
    who: Principal,
    QueryParams(query): QueryParams<ReportQuery>,
) -> Result<Response, Problem> {
    who.may(Role::Read)?;
    let number = number_of(&app, &who, "number", query.number.as_deref())?;
    let config = app.control.config();
    let mut filter = ReportFilter { since: query.since, number, after: None };
    lists::list(&app.control.store_handle, move |reader, page| {
        let now = clock::now();
        let mut last = filter.after;
        reader.reports(&filter, |(id, report)| {
            last = Some((report.time, id));
            let report = report_of(Some(id), report, &config.ladder, now);
            page.put(&wire::Report {
                number: who.mask(report.number),
                call_id: report.call_id.map(|call_id| who.mask_text(call_id)),
                ..report
            })
        })?;
        filter.after = last;
        Ok(())
    })
    .await
}

/// Reports a call. The report is a strike if its number and Call-ID are those of a call of the last
/// 24 h. The call must have passed, on a trunk that vouches for the number. The ladder decides what
/// the strikes lead to. Role report.
#[utoipa::path(post, path = "/v1/reports", request_body = wire::AddReport,
    responses((status = 200, body = wire::Reported), (status = 400, body = Problem),
        (status = 403, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn add_report(
    State(app): State<App>,
    who: Principal,
    JsonBody(add): JsonBody<wire::AddReport>,
) -> Answer<wire::Reported> {
    who.may(Role::Report)?;
    app.control.add_report(&who, add).await.map(Json)
}
