//! Handles the routes of the audit.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;

use crate::api::wire;
use crate::api::wire::Problem;
use crate::daemon::app::{App, usage};
use crate::daemon::convert::audit_row_of;
use crate::daemon::http::extract::{Answer, QueryParams};
use crate::daemon::http::lists;
use crate::daemon::role::{Principal, Role};
use crate::store::AuditFilter;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditQuery {
    pub(crate) since: Option<Timestamp>,
    pub(crate) number: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyQuery {
    pub(crate) head: Option<String>,
}

/// Lists the audit, oldest first, one row a line. The number may also be a pseudonym. Role operate.
#[utoipa::path(get, path = "/v1/audit",
    params(("since" = Option<String>, Query), ("number" = Option<String>, Query)),
    responses((status = 200, body = wire::AuditRow, content_type = "application/x-ndjson")))]
pub(crate) async fn list_audit(
    State(app): State<App>,
    who: Principal,
    QueryParams(query): QueryParams<AuditQuery>,
) -> Result<Response, Problem> {
    who.may(Role::Operate)?;
    let number = match query.number {
        None => None,
        Some(pseudonym) if pseudonym.starts_with('#') => Some(pseudonym),
        Some(text) => Some(app.control.subject(&text)?.to_string()),
    };
    let mut next = 0;
    let filter = AuditFilter { since: query.since, number };
    lists::list(&app.control.store_handle, move |reader, page| {
        reader.audit_rows(next, &filter, |row| {
            next = row.seq + 1;
            page.put(&audit_row_of(row))
        })
    })
    .await
}

/// Computes the chain of the audit again. Role read.
#[utoipa::path(get, path = "/v1/audit/verify", params(("head" = Option<String>, Query)),
    responses((status = 200, body = wire::AuditVerdict)))]
pub(crate) async fn verify_audit(
    State(app): State<App>,
    who: Principal,
    QueryParams(query): QueryParams<VerifyQuery>,
) -> Answer<wire::AuditVerdict> {
    who.may(Role::Read)?;
    let head = query.head.map(|head| head.parse().map_err(usage)).transpose()?;
    let check = app.control.store_handle.read_long(move |reader| reader.verify_audit(head)).await?;
    Ok(Json(wire::AuditVerdict {
        rows: check.rows,
        first_bad: check.first_bad,
        head: check.head.to_string(),
    }))
}
