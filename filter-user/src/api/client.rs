//! Client of the control API: one request per connection to the daemon's Unix socket.

use std::fmt::Display;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use nix::unistd::{Gid, Group};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::api::wire::{self, Problem, ProblemKind};
use crate::exit::{Exit, Failure, chain};
use crate::sys::{clock, user};

/// Timeout of commands that also work without the daemon.
pub const SHORT: Duration = Duration::from_secs(3);
/// Timeout of other commands.
pub const LONG: Duration = Duration::from_secs(30);
/// Timeout for a copy of the store.
pub const BACKUP: Duration = Duration::from_secs(600);

/// Wait before a connection is tried again for which the socket had no room.
const AGAIN: Duration = Duration::from_millis(20);

/// Longest line of a list in bytes; a longer one is not a list.
const LINE_MAX: usize = 16 << 20;
const CHUNK: usize = 64 << 10;

/// All characters but the unreserved ones of RFC 3986 §2.3 and `*`, which a segment may contain.
const ESCAPED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'*');

/// Errors of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nobody listens, or nobody answers in time; the message names the socket.
    #[error("{0}")]
    Silent(String),
    /// No permission for the socket; the message names the group that has it.
    #[error("{0}")]
    Forbidden(String),
    /// The daemon refuses the request.
    #[error("{}", .0.message)]
    Problem(Problem),
    /// The answer is not understood or incomplete.
    #[error("{0}")]
    Answer(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::Silent(message) => Failure::new(
                Exit::NoDaemon,
                format!("{message}\nstate of the daemon: systemctl status palang"),
            ),
            Error::Forbidden(message) => Failure::new(Exit::Refused, message),
            // The message may contain text from others, so control characters are removed.
            Error::Problem(problem) => Failure::new(
                exit(problem.kind),
                problem.message.replace(char::is_control, "\u{fffd}"),
            ),
            Error::Answer(message) => Failure::new(Exit::Failed, message),
        }
    }
}

/// Returns the exit code of a kind of problem.
#[must_use]
pub fn exit(kind: ProblemKind) -> Exit {
    match kind {
        ProblemKind::Usage => Exit::Usage,
        ProblemKind::Refused => Exit::Refused,
        ProblemKind::NotFound => Exit::NotFound,
        ProblemKind::Failed
        | ProblemKind::Store
        | ProblemKind::Full
        | ProblemKind::Superseded
        | ProblemKind::Busy
        | ProblemKind::Overloaded => Exit::Failed,
    }
}

/// Builds an API path: segments are percent-encoded, parameters without a value are omitted.
#[must_use]
pub fn path(segments: &[&str], query: &[(&str, Option<&str>)]) -> String {
    let mut path = String::from("/v1");
    for segment in segments {
        path += &format!("/{}", utf8_percent_encode(segment, ESCAPED));
    }
    let query = query.iter().filter_map(|(name, value)| Some((name, (*value)?)));
    for (index, (name, value)) in query.enumerate() {
        let mark = if index == 0 { '?' } else { '&' };
        path += &format!("{mark}{name}={}", utf8_percent_encode(value, ESCAPED));
    }
    path
}

type Body = BoxBody<Bytes, io::Error>;

/// Client of one daemon; every request uses its own connection.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Creates a client for the daemon at this socket.
    #[must_use]
    pub fn new(socket: &Path) -> Client {
        Client { socket: socket.to_owned() }
    }

    /// Requests an object.
    ///
    /// # Errors
    /// `Silent` without an answer in time; otherwise see [`Error`].
    pub fn get<T: DeserializeOwned>(&self, path: &str, patience: Duration) -> Result<T, Error> {
        self.object(Method::GET, path, empty(), patience)
    }

    /// Sends DELETE and returns the answer.
    ///
    /// # Errors
    /// `Silent` without an answer in time; otherwise see [`Error`].
    pub fn delete<T: DeserializeOwned>(&self, path: &str, patience: Duration) -> Result<T, Error> {
        self.object(Method::DELETE, path, empty(), patience)
    }

    /// Posts an object and returns the answer.
    ///
    /// # Errors
    /// `Silent` without an answer in time; otherwise see [`Error`].
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        what: &impl Serialize,
        patience: Duration,
    ) -> Result<T, Error> {
        self.object(Method::POST, path, json(what)?, patience)
    }

    /// Puts an object and returns the answer.
    ///
    /// # Errors
    /// `Silent` without an answer in time; otherwise see [`Error`].
    pub fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        what: &impl Serialize,
        patience: Duration,
    ) -> Result<T, Error> {
        self.object(Method::PUT, path, json(what)?, patience)
    }

    /// Requests a list and passes each line to `each` as it arrives, until `each` breaks.
    ///
    /// # Errors
    /// `Answer` if the answer is not a list or is incomplete; `each` has received the lines before.
    pub fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        each: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.run(async {
            let mut sending = pin!(self.send(Method::GET, path, empty(), None));
            // A search may take long, so the user must know why the command waits.
            let response = match tokio::time::timeout(LONG, &mut sending).await {
                Ok(response) => response?,
                Err(_) => {
                    let socket = self.socket.display();
                    eprintln!("palang: still waiting for the daemon at {socket} (Ctrl-C ends it)");
                    sending.await?
                }
            };
            lines(response, each).await
        })
    }

    /// Requests a list, like [`Client::list`], and gives up if it has not ended in time.
    ///
    /// # Errors
    /// `Silent` if the time is over; `Answer` if the answer is not a list or is incomplete.
    pub fn list_within<T: DeserializeOwned>(
        &self,
        path: &str,
        patience: Duration,
        each: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.run(async {
            let list = async {
                let response = self.send(Method::GET, path, empty(), None).await?;
                lines(response, each).await
            };
            let ended = tokio::time::timeout(patience, list).await;
            ended.unwrap_or_else(|_| Err(self.late("did not end its list", patience)))
        })
    }

    /// Requests an endless list, like [`Client::list`], without a message while it waits.
    ///
    /// # Errors
    /// `Silent` without an answer in time; `Answer` if the answer is not a list or is incomplete.
    pub fn watch<T: DeserializeOwned>(
        &self,
        path: &str,
        each: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.run(async {
            let sending = self.send(Method::GET, path, empty(), None);
            let Ok(response) = tokio::time::timeout(SHORT, sending).await else {
                return Err(self.late("gave no answer", SHORT));
            };
            lines(response?, each).await
        })
    }

    /// Posts newline-delimited JSON from a reader. `sent` receives the number of bytes of each chunk, and
    /// `each` the lines of the answer.
    ///
    /// # Errors
    /// `Answer` if the answer is not a list or is incomplete.
    pub fn post_lines<T: DeserializeOwned>(
        &self,
        path: &str,
        reader: impl Read + Send + Sync + 'static,
        sent: impl Fn(u64) + Send + Sync + 'static,
        each: impl FnMut(T) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut reader = reader;
        let chunks = std::iter::from_fn(move || {
            let mut chunk = vec![0; CHUNK];
            match reader.read(&mut chunk) {
                Ok(0) => None,
                Ok(length) => {
                    chunk.truncate(length);
                    sent(length as u64);
                    Some(Ok(Frame::data(Bytes::from(chunk))))
                }
                Err(error) => Some(Err(error)),
            }
        });
        let body = BoxBody::new(StreamBody::new(stream::iter(chunks)));
        self.run(async {
            let response = self.send(Method::POST, path, body, None).await?;
            lines(response, each).await
        })
    }

    fn object<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Body,
        patience: Duration,
    ) -> Result<T, Error> {
        // Computed first, so that the daemon's deadline is not after our timeout.
        let deadline = clock::deadline(patience);
        self.run(async {
            let answer = async {
                let response = self.send(method, path, body, Some(deadline)).await?;
                let bytes = response.into_body().collect().await.map_err(broken)?.to_bytes();
                serde_json::from_slice(&bytes).map_err(not_understood)
            };
            let answered = tokio::time::timeout(patience, answer).await;
            answered.unwrap_or_else(|_| Err(self.late("gave no answer", patience)))
        })
    }

    fn run<T>(&self, future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime
            .map_err(|error| Error::Answer(format!("cannot wait for I/O: {error}")))?
            .block_on(future)
    }

    /// Sends a request. An answer with an error status becomes an error.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Body,
        deadline: Option<u64>,
    ) -> Result<Response<Incoming>, Error> {
        let stream = self.connect().await.map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.silent(&error))?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "palang")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(deadline) = deadline {
            request = request.header(wire::DEADLINE, deadline);
        }
        if let Some(user) = user::sudo() {
            request = request.header(wire::AUTHOR, user);
        }
        let request = request
            .body(body)
            .map_err(|error| Error::Answer(format!("cannot send the request {path}: {error}")))?;
        let response = sender.send_request(request).await.map_err(|error| self.silent(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = response.into_body().collect().await.map_err(broken)?.to_bytes();
        Err(problem(status, &bytes))
    }

    /// Connects. If the queue of the socket is full, the kernel returns EAGAIN (connect(2)); the client
    /// then tries again for up to [`SHORT`].
    async fn connect(&self) -> io::Result<UnixStream> {
        let begun = tokio::time::Instant::now();
        loop {
            match UnixStream::connect(&self.socket).await {
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && begun.elapsed() < SHORT =>
                {
                    tokio::time::sleep(AGAIN).await;
                }
                done => return done,
            }
        }
    }

    /// Reports a daemon that was too slow.
    fn late(&self, did_not: &str, patience: Duration) -> Error {
        let (socket, seconds) = (self.socket.display(), patience.as_secs());
        Error::Silent(format!("the daemon at {socket} {did_not} in {seconds} s"))
    }

    /// Reports a connection that ended before an answer began.
    fn silent(&self, error: &hyper::Error) -> Error {
        let socket = self.socket.display();
        let error = chain(error);
        Error::Silent(format!(
            "the daemon at {socket} closed the connection without an answer: {error}"
        ))
    }

    fn unreachable(&self, error: &io::Error) -> Error {
        let socket = self.socket.display();
        let kind = error.kind();
        if kind == io::ErrorKind::PermissionDenied {
            let group = self.group();
            let whose = group.map_or_else(String::new, |group| {
                format!(": only root and the group {group} have it")
            });
            return Error::Forbidden(format!("no permission for the socket {socket}{whose}"));
        }
        let why = if kind == io::ErrorKind::NotFound {
            "the socket does not exist: the daemon does not run, or uses another socket (--socket)"
        } else if kind == io::ErrorKind::ConnectionRefused {
            "nothing listens on the socket: the daemon does not run"
        } else {
            &error.to_string()
        };
        Error::Silent(format!("cannot reach the daemon at {socket}: {why}"))
    }

    /// Returns the group of the socket, or of its first parent folder that we may inspect.
    fn group(&self) -> Option<String> {
        let found = self.socket.ancestors().find_map(|path| path.metadata().ok())?;
        let gid = Gid::from_raw(found.gid());
        let name = Group::from_gid(gid).ok().flatten().map(|group| group.name);
        Some(name.unwrap_or_else(|| gid.to_string()))
    }
}

fn empty() -> Body {
    Full::default().map_err(|never| match never {}).boxed()
}

fn json(what: &impl Serialize) -> Result<Body, Error> {
    let bytes = serde_json::to_vec(what)
        .map_err(|error| Error::Answer(format!("cannot write the request: {error}")))?;
    Ok(Full::from(bytes).map_err(|never| match never {}).boxed())
}

/// Converts an answer with an error status.
fn problem(status: StatusCode, body: &[u8]) -> Error {
    serde_json::from_slice(body).map_or_else(
        |_| {
            let text = String::from_utf8_lossy(body);
            Error::Answer(format!("the daemon answers {status}: {}", text.trim()))
        },
        Error::Problem,
    )
}

fn broken(error: hyper::Error) -> Error {
    Error::Answer(format!("the daemon's answer is incomplete: {}", chain(&error)))
}

fn not_understood(error: impl Display) -> Error {
    Error::Answer(format!(
        "cannot parse the daemon's answer (does it have another version?): {error}"
    ))
}

async fn lines<T: DeserializeOwned>(
    response: Response<Incoming>,
    mut each: impl FnMut(T) -> ControlFlow<()>,
) -> Result<(), Error> {
    let mut body = response.into_body();
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        rest.extend_from_slice(&data);
        let mut start = 0;
        while let Some(length) = rest[start..].iter().position(|byte| *byte == b'\n') {
            let line = &rest[start..start + length];
            start += length + 1;
            if each(row(line)?).is_break() {
                return Ok(());
            }
        }
        rest.drain(..start);
        if rest.len() > LINE_MAX {
            return Err(not_understood("a line is too long"));
        }
    }
    if rest.is_empty() {
        return Ok(());
    }
    let _ = each(row(&rest)?);
    Ok(())
}

/// Parses a line of a list. If the list fails, a problem appears in place of a row.
fn row<T: DeserializeOwned>(line: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(line).map_err(|error| {
        serde_json::from_slice(line).map_or_else(|_| not_understood(error), Error::Problem)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_do_nothing_to_a_terminal() {
        let message = "by siti: \u{1b}[2J\npalang: done".to_owned();
        let failure =
            Failure::from(Error::Problem(Problem { kind: ProblemKind::Refused, message }));
        assert_eq!(failure.message, "by siti: \u{fffd}[2J\u{fffd}palang: done");
    }

    #[test]
    fn list_of_a_daemon_that_hangs_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _never_accepts = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let each = |_: crate::api::wire::Call| ControlFlow::Continue(());
        let answer = Client::new(&path).list_within("/v1/calls", AGAIN, each);
        let Err(Error::Silent(said)) = answer else { panic!("{answer:?}") };
        assert!(said.contains("did not end its list"), "{said}");
    }

    /// Fills the backlog of a socket, which has room again when a connection is accepted.
    #[test]
    fn connect_retries_while_the_backlog_is_full() {
        use std::os::unix::net::{UnixListener, UnixStream};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
        let _waiting = [UnixStream::connect(&path).unwrap(), UnixStream::connect(&path).unwrap()];
        let client = Client::new(&path);
        let acceptor = std::thread::spawn(move || {
            std::thread::sleep(5 * AGAIN);
            drop((listener.accept().unwrap(), listener.accept().unwrap()));
            // Hangs up on the client, too.
            drop(listener.accept().unwrap());
        });
        let answer = client.get::<crate::api::wire::Status>("/v1/status", LONG);
        let Err(Error::Silent(said)) = answer else { panic!("{answer:?}") };
        assert!(said.contains("closed the connection"), "{said}");
        acceptor.join().unwrap();
    }

    #[test]
    fn paths_are_percent_encoded() {
        assert_eq!(path(&["blocks", "+62811*"], &[]), "/v1/blocks/%2B62811*");
        assert_eq!(path(&["blocks", "0812 34/5"], &[]), "/v1/blocks/0812%2034%2F5");
        assert_eq!(
            path(&["calls"], &[("caller", None), ("call_id", Some("a&b@c")), ("limit", Some("3"))]),
            "/v1/calls?call_id=a%26b%40c&limit=3"
        );
    }

    #[test]
    fn error_answer_without_a_problem_is_printed() {
        let Error::Answer(message) = problem(StatusCode::PAYLOAD_TOO_LARGE, b"too much\n") else {
            panic!("no answer")
        };
        assert_eq!(message, "the daemon answers 413 Payload Too Large: too much");
    }

    #[test]
    fn list_may_contain_a_problem() {
        let line = br#"{"kind":"failed","message":"the store broke"}"#;
        let Err(Error::Problem(problem)) = row::<crate::api::wire::Block>(line) else {
            panic!("no problem")
        };
        assert_eq!(problem.message, "the store broke");
        assert!(matches!(row::<crate::api::wire::Block>(b"{"), Err(Error::Answer(_))));
    }
}
