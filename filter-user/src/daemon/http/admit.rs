//! Reads the body of a request, and gives the request a slot before a handler sees it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::api::wire::{Problem, ProblemKind};
use crate::daemon::http::auth::Peer;
use crate::daemon::limits;
use crate::daemon::limits::Kind;

/// Bytes of a body, unless it is an import.
const BODY_MAX: usize = 64 * 1024;
/// How long such a body may take.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Lets a complete request with a slot through, and refuses all others.
pub async fn admit(request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<Option<Peer>>>();
    let Some(peer) = peer.and_then(|ConnectInfo(peer)| peer.clone()) else {
        let message = "the kernel did not name the user of this connection".to_owned();
        return Problem { kind: ProblemKind::Refused, message }.into_response();
    };
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let kind = Kind::of(request.method(), route);
    let request = if kind == Kind::Import { Ok(request) } else { whole(request).await };
    let slot = request.and_then(|request| Ok((peer.user.slot(kind, &peer.connection)?, request)));
    match slot {
        Ok((slot, request)) => limits::within(Some(Arc::new(slot)), next.run(request)).await,
        Err(problem) => problem.into_response(),
    }
}

/// Reads the whole body of a request.
async fn whole(request: Request) -> Result<Request, Problem> {
    let usage = |message| Problem { kind: ProblemKind::Usage, message };
    let (parts, body) = request.into_parts();
    let body = tokio::time::timeout(BODY_TIME, Limited::new(body, BODY_MAX).collect()).await;
    let body = body.map_err(|_| {
        usage(format!("the body was not complete within {} s", BODY_TIME.as_secs()))
    })?;
    let body = body.map_err(|error| match error.is::<LengthLimitError>() {
        true => usage(format!("the body is longer than {BODY_MAX} bytes")),
        false => usage(format!("the body is incomplete: {error}")),
    })?;
    Ok(Request::from_parts(parts, Body::from(body.to_bytes())))
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;

    #[test]
    fn changes_that_let_through_share_slots_with_no_other_request() {
        let ways_out = [
            ("GET", "/v1/status"),
            ("GET", "/v1/override"),
            ("PUT", "/v1/override"),
            ("GET", "/v1/mode"),
            ("PUT", "/v1/mode"),
            ("POST", "/v1/allows"),
            ("POST", "/v1/callback"),
            ("DELETE", "/v1/blocks/{number}"),
            ("POST", "/v1/reviews/{id}/free"),
        ];
        let document = <crate::daemon::http::Document as utoipa::OpenApi>::openapi();
        let document = serde_json::to_value(document).unwrap();
        let mut found = 0;
        for (path, operations) in document["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys() {
                let method = method.to_uppercase();
                let kind = Kind::of(&method.parse().unwrap(), Some(path));
                let is_one = ways_out.contains(&(&*method, path));
                assert_eq!(kind == Kind::WayOut, is_one, "{method} {path}");
                assert_ne!((kind, &*method), (Kind::Change, "GET"), "{path}");
                found += usize::from(is_one);
            }
        }
        assert_eq!(found, ways_out.len());
        assert_eq!(Kind::of(&Method::GET, None), Kind::Read);
        assert_eq!(Kind::of(&Method::HEAD, Some("/v1/audit/verify")), Kind::Long);
        assert_eq!(Kind::of(&Method::from_bytes(b"ODD").unwrap(), None), Kind::Change);
    }

    #[tokio::test]
    async fn body_that_is_too_long_is_refused_with_a_reason() {
        let request = |length| Request::new(Body::from(vec![b' '; length]));
        assert!(whole(request(BODY_MAX)).await.is_ok());
        let problem = whole(request(BODY_MAX + 1)).await.unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Usage);
        assert!(problem.message.contains("longer than 65536 bytes"), "{}", problem.message);
    }
}
