//! Connections of a listener: how many there may be, how long one may say nothing, and which is
//! closed when there is one too many.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// How long a connection waits for a whole head of a request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long an answer waits for a reader who takes nothing of it: somebody may page through a list.
const READER_TIME: Duration = Duration::from_secs(300);
/// How long nobody is accepted after the kernel had no file descriptor or no memory for it.
const PAUSE: Duration = Duration::from_millis(50);
/// How often that is logged.
const TOLD: Duration = Duration::from_secs(60);
/// File descriptors that the limits below are made for; whoever has fewer gets less of each.
const FILES: u64 = 1024;

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of all users.
    pub all: usize,
    /// Of one user.
    pub each: usize,
}

/// Of the socket of the API.
pub const API: Limits = Limits { all: 512, each: 128 };
/// Of `check_listen`; nobody can tell its users apart.
pub const CHECK: Limits = Limits { all: 192, each: 192 };
/// Of the listener for metrics.
pub const METRICS: Limits = Limits { all: 16, each: 16 };

impl Limits {
    /// What is left of them where a process may open so many files.
    fn within(self, files: u64) -> Limits {
        let part = |most: usize| {
            let part = most as u64 * files.min(FILES) / FILES;
            usize::try_from(part).unwrap_or(most).max(1)
        };
        Limits { all: part(self.all), each: part(self.each) }
    }
}

/// Somebody who listens.
pub trait Listener: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Send + 'static;

    /// The next connection, and the user at its other end; `None`: nobody can tell.
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

/// Accepts connections for ever, and answers on them. `peer` makes what handlers get to know of
/// the other end.
pub async fn serve<L: Listener, P: Clone + Send + Sync + 'static>(
    name: &'static str,
    listener: L,
    limits: Limits,
    router: Router,
    peer: impl Fn(Option<UCred>, Handle) -> P,
) {
    // Linux says how many; where it does not, the limits are as they are.
    let (files, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((FILES, FILES));
    let connections = Connections::new(limits.within(files));
    let mut told: Option<Instant> = None;
    loop {
        let (stream, user) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_of_the_peer(&error) => continue,
            Err(error) => {
                if told.is_none_or(|told| told.elapsed() > TOLD) {
                    tracing::error!(
                        "{name}: cannot accept connections, those that wait longest are closed: \
                         {error}"
                    );
                    told = Some(Instant::now());
                }
                connections.close_one();
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some((connection, closed)) = connections.open(user.map(|user| user.uid())) else {
            tracing::debug!("{name}: a connection was closed: all others are busy");
            continue;
        };
        let peer = axum::extract::ConnectInfo(peer(user, connection.handle.clone()));
        tokio::spawn(answer(stream, connection, closed, router.clone(), peer));
    }
}

/// What only the other side did wrong.
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
        // Its error is the other side's: it hung up, or spoke no HTTP.
        _ = serving => {}
        _ = closed => {}
    }
    drop(connection);
}

/// The open connections of a listener.
#[derive(Clone, Debug)]
pub struct Connections {
    limits: Limits,
    open: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    /// The number of the next connection.
    next: u64,
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    /// Whose it is; `None`: nobody can tell.
    uid: Option<u32>,
    /// Requests of it that have a slot.
    busy: usize,
    /// Since when none has.
    since: Instant,
    /// Dropped, it closes the connection.
    _close: oneshot::Sender<()>,
}

impl Connections {
    /// None yet.
    #[must_use]
    pub fn new(limits: Limits) -> Connections {
        Connections { limits, open: Arc::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a connection, and closes another where there is one too many: the one that
    /// has waited longest without a slot, of this user, or of the user with the most. What is
    /// handed out beside it ends when it is to be closed itself. `None`: all others are busy.
    #[must_use]
    pub fn open(&self, uid: Option<u32>) -> Option<(Connection, oneshot::Receiver<()>)> {
        let mut table = self.table();
        let own = table.open.values().filter(|open| open.uid == uid).count();
        if own >= self.limits.each {
            table.close_one_of(uid)?;
        } else if table.open.len() >= self.limits.all {
            let most = table.whose_are_most()?;
            table.close_one_of(most)?;
        }
        let (close, closed) = oneshot::channel();
        let number = table.next;
        table.next += 1;
        table.open.insert(number, Open { uid, busy: 0, since: Instant::now(), _close: close });
        Some((Connection { handle: Handle { number, of: self.clone() } }, closed))
    }

    /// Closes the connection that has waited longest, of the user with the most.
    fn close_one(&self) {
        let mut table = self.table();
        if let Some(most) = table.whose_are_most() {
            let _ = table.close_one_of(most);
        }
    }
}

impl Table {
    fn whose_are_most(&self) -> Option<Option<u32>> {
        let mut counts = HashMap::new();
        for open in self.open.values() {
            *counts.entry(open.uid).or_insert(0_usize) += 1;
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(uid, _)| uid)
    }

    fn close_one_of(&mut self, uid: Option<u32>) -> Option<()> {
        let waiting = self.open.iter().filter(|(_, open)| open.uid == uid && open.busy == 0);
        let longest = waiting.min_by_key(|(number, open)| (open.since, **number));
        let number = *longest?.0;
        self.open.remove(&number).map(drop)
    }
}

/// A connection; dropped, it is not counted any more.
#[derive(Debug)]
pub struct Connection {
    /// What others may have of it.
    pub handle: Handle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Handle { number, of } = &self.handle;
        of.table().open.remove(number);
    }
}

/// What names a connection.
#[derive(Clone, Debug)]
pub struct Handle {
    number: u64,
    of: Connections,
}

impl Handle {
    /// Keeps the connection from being closed for another one, as long as this lives.
    #[must_use]
    pub fn busy(&self) -> Busy {
        if let Some(open) = self.of.table().open.get_mut(&self.number) {
            open.busy += 1;
        }
        Busy(self.clone())
    }
}

/// See [`Handle::busy`].
#[derive(Debug)]
pub struct Busy(Handle);

impl Drop for Busy {
    fn drop(&mut self) {
        let Handle { number, of } = &self.0;
        // The connection may have ended before what it set in motion.
        if let Some(open) = of.table().open.get_mut(number) {
            open.busy -= 1;
            open.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens a connection of a user; a receiver that tells when it is closed.
    fn open(connections: &Connections, uid: u32) -> (Connection, oneshot::Receiver<()>) {
        connections.open(Some(uid)).expect("room")
    }

    fn is_closed(closed: &mut oneshot::Receiver<()>) -> bool {
        closed.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn one_too_many_of_a_user_closes_the_one_that_waits_longest() {
        let connections = Connections::new(Limits { all: 10, each: 3 });
        let mut other = open(&connections, 1);
        let mut first = open(&connections, 2);
        let mut second = open(&connections, 2);
        let mut third = open(&connections, 2);
        let busy = second.0.handle.busy();
        // The first has been asked something since; the third has said nothing.
        drop(first.0.handle.busy());
        let mut fourth = open(&connections, 2);
        assert!(is_closed(&mut third.1));
        for open in [&mut other, &mut first, &mut second, &mut fourth] {
            assert!(!is_closed(&mut open.1));
        }
        let others = [first.0.handle.busy(), fourth.0.handle.busy()];
        assert!(connections.open(Some(2)).is_none(), "all are busy");
        drop(busy);
        let _fifth = open(&connections, 2);
        assert!(is_closed(&mut second.1));
        drop(others);
        // What ended gives its place back, and what is closed is not counted twice.
        drop((first, second, third));
        let mut sixth = open(&connections, 2);
        assert!(!is_closed(&mut fourth.1) && !is_closed(&mut sixth.1));
    }

    #[test]
    fn one_too_many_of_all_closes_one_of_the_user_with_the_most() {
        let connections = Connections::new(Limits { all: 5, each: 4 });
        let mut few: Vec<_> = (0..2).map(|_| open(&connections, 1)).collect();
        let mut many: Vec<_> = (0..3).map(|_| open(&connections, 2)).collect();
        let _new = open(&connections, 3);
        assert!(few.iter_mut().all(|open| !is_closed(&mut open.1)));
        let closed: Vec<_> = many.iter_mut().map(|open| is_closed(&mut open.1)).collect();
        assert_eq!(closed, [true, false, false]);
    }

    #[test]
    fn with_few_files_there_are_few_connections() {
        assert_eq!(API.within(1_000_000), API);
        assert_eq!(API.within(1024), API);
        assert_eq!(API.within(256), Limits { all: 128, each: 32 });
        assert_eq!(METRICS.within(1), Limits { all: 1, each: 1 });
        let all = API.all + CHECK.all + METRICS.all;
        // The rest is for the store, the maps and what is open from the start.
        assert!(all as u64 <= FILES * 3 / 4, "{all}");
    }

    /// Accepts what a test puts there.
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
    async fn without_a_file_descriptor_the_next_one_is_accepted_all_the_same() {
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
    async fn whoever_says_nothing_is_cut_off() {
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
            assert!(connections.table().open.is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_reads_nothing_is_cut_off() {
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
