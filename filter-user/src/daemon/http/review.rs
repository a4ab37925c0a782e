//! Handles the routes of reviews and events.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;

use crate::api::wire;
use crate::api::wire::Problem;
use crate::daemon::app::{App, usage};
use crate::daemon::convert::review_of;
use crate::daemon::http::extract::{Answer, JsonBody, PathParam, QueryParams};
use crate::daemon::http::lists;
use crate::daemon::role::{Principal, Role};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReviewQuery {
    #[serde(default)]
    pub(crate) all: bool,
}

/// Lists open reviews of redial grants and reports, oldest first, one a line; with `all` also
/// closed ones. Role read.
#[utoipa::path(get, path = "/v1/reviews", params(("all" = Option<bool>, Query)),
    responses((status = 200, body = wire::Review, content_type = "application/x-ndjson")))]
pub(crate) async fn list_reviews(
    State(app): State<App>,
    who: Principal,
    QueryParams(query): QueryParams<ReviewQuery>,
) -> Result<Response, Problem> {
    who.may(Role::Read)?;
    let mut last = 0;
    lists::list(&app.control.store_handle, move |reader, page| {
        reader.reviews(query.all, last, |(id, review)| {
            last = id;
            let review = review_of(Some(id), review);
            page.put(&wire::Review {
                number: who.mask(review.number),
                call_id: review.call_id.map(|call_id| who.mask_text(call_id)),
                ..review
            })
        })
    })
    .await
}

/// Closes the review of a redial grant or a report. Role operate.
#[utoipa::path(post, path = "/v1/reviews/{id}/close", params(("id" = u64, Path)),
    request_body = wire::CloseReview,
    responses((status = 200, body = wire::ReviewClosed), (status = 403, body = Problem),
        (status = 404, body = Problem)))]
pub(crate) async fn close_review(
    State(app): State<App>,
    who: Principal,
    PathParam(id): PathParam,
    JsonBody(close): JsonBody<wire::CloseReview>,
) -> Answer<wire::ReviewClosed> {
    who.may(Role::Operate)?;
    app.control.close_review(&who, review_id(&id)?, close).await.map(Json)
}

/// Extends the block of a review's number and closes the review. Role operate.
#[utoipa::path(post, path = "/v1/reviews/{id}/extend", params(("id" = u64, Path)),
    request_body = wire::ExtendReview,
    responses((status = 200, body = wire::ReviewSettled), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn extend_review(
    State(app): State<App>,
    who: Principal,
    PathParam(id): PathParam,
    JsonBody(extend): JsonBody<wire::ExtendReview>,
) -> Answer<wire::ReviewSettled> {
    who.may(Role::Operate)?;
    app.control.extend_review(&who, review_id(&id)?, extend).await.map(Json)
}

/// Ends the block of a review's number and closes the review. Role operate.
#[utoipa::path(post, path = "/v1/reviews/{id}/free", params(("id" = u64, Path)),
    request_body = wire::CloseReview,
    responses((status = 200, body = wire::ReviewSettled), (status = 403, body = Problem),
        (status = 404, body = Problem)))]
pub(crate) async fn free_review(
    State(app): State<App>,
    who: Principal,
    PathParam(id): PathParam,
    JsonBody(free): JsonBody<wire::CloseReview>,
) -> Answer<wire::ReviewSettled> {
    who.may(Role::Operate)?;
    app.control.free_review(&who, review_id(&id)?, free).await.map(Json)
}

fn review_id(id: &str) -> Result<u64, Problem> {
    id.parse().map_err(|_| usage(format!("{id:?} is no number of a review")))
}

/// Streams events, one a line, until the connection is closed. Role read.
#[utoipa::path(get, path = "/v1/events",
    responses((status = 200, body = wire::Event, content_type = "application/x-ndjson")))]
pub(crate) async fn events(State(app): State<App>, who: Principal) -> Result<Response, Problem> {
    who.may(Role::Read)?;
    let news = (app.reviews.listen(), who);
    let stream = futures_util::stream::unfold(news, async |(mut news, who)| {
        let event = match news.recv().await {
            Ok(wire::Event::RedialGrant { review }) => {
                let number = who.mask(review.number);
                wire::Event::RedialGrant { review: wire::Review { number, ..review } }
            }
            Ok(
                other @ (wire::Event::Lost { .. }
                | wire::Event::EnforceEnded { .. }
                | wire::Event::OverrideEnded { .. }),
            ) => other,
            Err(RecvError::Lagged(count)) => wire::Event::Lost { count },
            Err(RecvError::Closed) => return None,
        };
        Some((event, (news, who)))
    });
    Ok(lists::endless(stream))
}
