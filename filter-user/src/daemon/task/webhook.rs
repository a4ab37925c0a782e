//! Sends notifications to the webhook of the configuration.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::api::wire;
use crate::config::Webhook;
use crate::daemon::state::Control;

/// How long a console may take for one answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of the answer that are read; their content has no meaning.
const ANSWER_MAX: usize = 64 * 1024;

/// Pauses before a notification is sent again.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// State of the webhook.
#[derive(Debug, Default)]
pub(crate) struct Hook {
    pub(crate) undelivered: AtomicU64,
    pub(crate) problem: Mutex<Option<String>>,
}

impl Hook {
    pub(crate) fn note(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

/// Sends notifications to the webhook, one after the other.
pub(crate) async fn post_all(
    control: Arc<Control>,
    mut posts: mpsc::Receiver<wire::Event>,
    hook: Arc<Hook>,
) {
    while let Some(event) = posts.recv().await {
        let Ok(body) = serde_json::to_vec(&event) else { continue };
        let body = Bytes::from(body);
        let mut pauses = PAUSES.iter();
        while let Some(webhook) = control.config().webhook.clone() {
            let error = match post(&webhook, body.clone()).await {
                Ok(()) => {
                    hook.note(None);
                    break;
                }
                Err(error) => format!("{}: {error}", webhook.url),
            };
            tracing::warn!(%error, "webhook: notification not delivered");
            hook.note(Some(error));
            match pauses.next() {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => {
                    hook.undelivered.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
        }
    }
}

/// Why the webhook did not confirm a notification.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostError {
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    #[error(transparent)]
    Request(#[from] hyper::http::Error),
    #[error(transparent)]
    Exchange(#[from] hyper::Error),
    #[error("it answered {0}")]
    Refused(hyper::StatusCode),
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silent,
}

/// Sends a notification once.
///
/// # Errors
/// [`PostError`] if the webhook did not confirm it.
pub(crate) async fn post(webhook: &Webhook, body: Bytes) -> Result<(), PostError> {
    let asked = tokio::time::timeout(PATIENCE, exchange(webhook.address, webhook, body)).await;
    asked.unwrap_or(Err(PostError::Silent))
}

async fn exchange(address: SocketAddr, webhook: &Webhook, body: Bytes) -> Result<(), PostError> {
    let stream = TcpStream::connect(address).await.map_err(PostError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::post(webhook.path.as_str())
        .header(header::HOST, address.to_string())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close")
        .body(Full::new(body))?;
    // The connection ends with this exchange, even if the other side still sends.
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    // The answer is read to its end: otherwise the other side may see its answer cut off.
    let _ = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    if status.is_success() { Ok(()) } else { Err(PostError::Refused(status)) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// More than is read of an answer, and than lies in the buffers of two sockets.
    const ENDLESS: usize = 64 << 20;

    /// Starts a console that never stops its answer; returns how much it could send.
    fn endless(head: &'static [u8]) -> (Webhook, std::thread::JoinHandle<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sent = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(head).unwrap();
            let (chunk, mut sent) = ([b'a'; 64 * 1024], 0);
            while sent < ENDLESS && stream.write_all(&chunk).is_ok() {
                sent += chunk.len();
            }
            sent
        });
        let url = format!("http://{address}/");
        (Webhook { url, address, path: "/".to_owned() }, sent)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn webhook_answer_without_an_end_is_cut() {
        let (webhook, sent) = endless(b"HTTP/1.1 200 OK\r\n\r\n");
        post(&webhook, Bytes::from_static(b"{}")).await.unwrap();
        let sent = sent.join().unwrap();
        assert!(sent < ENDLESS, "{sent} bytes");
        let (webhook, sent) = endless(b"HTTP/1.1 200 OK\r\nX: ");
        post(&webhook, Bytes::from_static(b"{}")).await.unwrap_err();
        let sent = sent.join().unwrap();
        assert!(sent < ENDLESS, "{sent} bytes");
    }
}
