//! Accepts the connections of a listener, and ends those that stay silent for too long.

use std::future::Future;
use std::io;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::resource::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::unix::UCred;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt as _;

use crate::daemon::connections::{Connection, Connections, FILES, Handle, Limits};

/// How long a connection waits for a whole head of a request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long an answer waits for a reader who takes nothing of it: a person may page through a list.
const READER_TIME: Duration = Duration::from_secs(300);
/// How long accepting pauses after the kernel had no file descriptor or no memory for it.
const PAUSE: Duration = Duration::from_millis(50);
/// Interval of the log lines about that.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// A listening socket.
pub trait Listener: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Send + 'static;

    /// Accepts the next connection, with the user at its other end; `None`: the user is unknown.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Option<UCred>)>> + Send;
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Option<UCred>)> {
        let (stream, _) = UnixListener::accept(self).await?;
        let user = stream.peer_cred().ok();
        Ok((stream, user))
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Option<UCred>)> {
        Ok((TcpListener::accept(self).await?.0, None))
    }
}

/// Accepts connections without an end, and answers on them. `peer` creates what the handlers know
/// of the other end.
pub async fn serve<L: Listener, P: Clone + Send + Sync + 'static>(
    name: &'static str,
    listener: L,
    limits: Limits,
    router: Router,
    peer: impl Fn(Option<UCred>, Handle) -> P,
) {
    // Without this limit of Linux, the limits remain as they are.
    let (files, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((FILES, FILES));
    let connections = Connections::new(limits.within(files));
    let mut logged: Option<Instant> = None;
    loop {
        let (stream, user) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_of_the_peer(&error) => continue,
            Err(error) => {
                if logged.is_none_or(|logged| logged.elapsed() > LOG_INTERVAL) {
                    tracing::error!(
                        listener = name,
                        %error,
                        "cannot accept connections: those that wait longest are closed"
                    );
                    logged = Some(Instant::now());
                }
                connections.close_one();
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some((connection, closed)) = connections.open(user.map(|user| user.uid())) else {
            tracing::debug!(listener = name, "closed a new connection: all others are busy");
            continue;
        };
        let peer = axum::extract::ConnectInfo(peer(user, connection.handle.clone()));
        tokio::spawn(answer(stream, connection, closed, router.clone(), peer));
    }
}

/// Returns whether only the other side caused the error.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Answers the requests of one connection until it ends or is closed.
async fn answer<P: Clone + Send + Sync + 'static>(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    connection: Connection,
    closed: oneshot::Receiver<()>,
    router: Router,
    peer: axum::extract::ConnectInfo<P>,
) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(READER_TIME));
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.clone().oneshot(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    tokio::select! {
        // Its error is the other side's: it hung up, or did not use HTTP.
        _ = serving => {}
        _ = closed => {}
    }
    drop(connection);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::connections::METRICS;

    /// Accepts the connections of a test.
    struct Scripted(tokio::sync::Mutex<Vec<io::Result<tokio::io::DuplexStream>>>);

    impl Listener for Scripted {
        type Stream = tokio::io::DuplexStream;

        async fn accept(&self) -> io::Result<(tokio::io::DuplexStream, Option<UCred>)> {
            match self.0.lock().await.pop() {
                Some(stream) => Ok((stream?, None)),
                None => std::future::pending().await,
            }
        }
    }

    #[tokio::test]
    async fn listener_without_a_file_descriptor_accepts_the_next_connection() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut near, far) = tokio::io::duplex(4096);
        let error = |errno: nix::errno::Errno| Err(io::Error::from(errno));
        let script = vec![
            Ok(far),
            error(nix::errno::Errno::EMFILE),
            error(nix::errno::Errno::ECONNABORTED),
            error(nix::errno::Errno::ENOMEM),
        ];
        let router = Router::new().fallback(async || "here");
        let listener = Scripted(tokio::sync::Mutex::new(script));
        tokio::spawn(serve("a test", listener, METRICS, router, |_, _| ()));
        near.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut said = String::new();
        near.read_to_string(&mut said).await.unwrap();
        assert!(said.ends_with("here"), "{said}");
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_sends_nothing_is_disconnected() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        for half in [&b""[..], b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
            let (mut near, far) = tokio::io::duplex(4096);
            let connections = Connections::new(METRICS);
            let (connection, closed) = connections.open(None).unwrap();
            let router = Router::new().fallback(async || "here");
            let peer = axum::extract::ConnectInfo(());
            let answering = tokio::spawn(answer(far, connection, closed, router, peer));
            near.write_all(half).await.unwrap();
            let begun = tokio::time::Instant::now();
            let mut said = Vec::new();
            near.read_to_end(&mut said).await.unwrap();
            assert!(begun.elapsed() < 2 * HEAD_TIME, "{:?}", begun.elapsed());
            answering.await.unwrap();
            assert!(connections.is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_reads_nothing_is_disconnected() {
        use tokio::io::AsyncWriteExt as _;
        let (mut near, far) = tokio::io::duplex(4096);
        let connections = Connections::new(METRICS);
        let (connection, closed) = connections.open(None).unwrap();
        let router = Router::new().fallback(async || vec![0; 1 << 20]);
        let peer = axum::extract::ConnectInfo(());
        let answering = tokio::spawn(answer(far, connection, closed, router, peer));
        near.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let begun = tokio::time::Instant::now();
        answering.await.unwrap();
        let took = begun.elapsed();
        assert!(took >= READER_TIME && took < 2 * READER_TIME, "{took:?}");
        drop(near);
    }
}
