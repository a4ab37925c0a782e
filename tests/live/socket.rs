//! Bytes on the daemon's socket, right and wrong ones, and what comes back.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use palang_tests::lab::Daemon;
use serde::de::DeserializeOwned;

/// Longest that an answer may take.
pub const LONGEST: Duration = Duration::from_secs(30);

/// An answer of HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// As they came, with the status line.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as one value of JSON.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}: {}", self.head, self.text()))
    }

    /// Returns the body as newline-delimited JSON.
    pub fn lines<T: DeserializeOwned>(&self) -> Vec<T> {
        assert!(self.body.is_empty() || self.body.ends_with(b"\n"), "cut: {}", self.text());
        let line = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        };
        self.text().lines().map(line).collect()
    }
}

/// Opens a connection to the daemon's socket.
pub fn connect(daemon: &Daemon<'_>) -> UnixStream {
    let stream = UnixStream::connect(daemon.runtime().join("palang.sock")).expect("connected");
    stream.set_read_timeout(Some(LONGEST)).expect("SO_RCVTIMEO");
    stream.set_write_timeout(Some(LONGEST)).expect("SO_SNDTIMEO");
    stream
}

/// Sends one request to the daemon's socket.
pub fn ask(daemon: &Daemon<'_>, method: &str, path: &str, body: &str) -> Answer {
    request(connect(daemon), method, path, body)
}

/// A request that was sent, and what has come of its answer.
pub struct Sent {
    stream: UnixStream,
    come: Vec<u8>,
}

impl Sent {
    /// Sends one request to the daemon's socket.
    pub fn new(daemon: &Daemon<'_>, method: &str, path: &str, body: &str) -> Sent {
        let mut stream = connect(daemon);
        stream.write_all(request_text(method, path, body).as_bytes()).expect("sent");
        Sent { stream, come: Vec::new() }
    }

    /// Returns whether the answer is complete: the daemon has closed the connection.
    pub fn is_answered(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("O_NONBLOCK");
        let read = self.stream.read_to_end(&mut self.come);
        self.stream.set_nonblocking(false).expect("no O_NONBLOCK");
        !read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Waits for the answer.
    pub fn answer(self) -> Answer {
        answer_on(self.come.as_slice().chain(self.stream))
    }
}

/// Sends one request to a daemon that may be killed before it answers.
pub fn try_ask(daemon: &Daemon<'_>, method: &str, path: &str, body: &str) -> Option<Answer> {
    let mut stream = UnixStream::connect(daemon.runtime().join("palang.sock")).ok()?;
    let request = request_text(method, path, body);
    stream.write_all(request.as_bytes()).ok()?;
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    answer(&all)
}

/// Sends one request on a connection.
pub fn request(stream: impl Read + Write, method: &str, path: &str, body: &str) -> Answer {
    exchange(stream, request_text(method, path, body).as_bytes())
}

fn request_text(method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: palang\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

/// Sends bytes that ask for the connection to be closed, and reads what comes back.
pub fn exchange(mut stream: impl Read + Write, bytes: &[u8]) -> Answer {
    // The daemon may refuse a request before its last byte.
    let _ = stream.write_all(bytes);
    answer_on(stream)
}

/// Reads the answer to a request, after which the daemon closes the connection.
fn answer_on(mut stream: impl Read) -> Answer {
    let mut all = Vec::new();
    let ended = stream.read_to_end(&mut all);
    answer(&all)
        .unwrap_or_else(|| panic!("no answer ({ended:?}): {:?}", String::from_utf8_lossy(&all)))
}

fn answer(all: &[u8]) -> Option<Answer> {
    let end = all.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(all[..end].to_vec()).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let rest = &all[end + 4..];
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunked(rest)? } else { rest.to_vec() };
    Some(Answer { status, head, body })
}

/// Returns a whole chunked body (RFC 9112 §7.1); None where its end is missing.
fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let length = usize::from_str_radix(str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(end + 2..end + 2 + length)?);
        rest = rest.get(end + 2 + length + 2..)?;
    }
}

/// Asks again and again until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LONGEST;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
