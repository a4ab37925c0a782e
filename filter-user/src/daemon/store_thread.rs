//! Runs the thread that owns the store. Changes that block wait for it; changes that let calls
//! through do not.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::api::wire::{Persisted, Problem, ProblemKind};
use crate::daemon::limits;
use crate::daemon::limits::Turn;
use crate::store::{Error, Reader, Store};

/// How long an answer about a change in force waits for the disk: the answer must come within a
/// second.
const PATIENCE: Duration = Duration::from_millis(750);
/// How long the start waits for the store to open.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// How often a failed write is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Bounds of the durations of changes: 0.5 ms to 16 s, each twice the one before.
const FIRST_BUCKET: f64 = 0.0005;
const BUCKETS: u16 = 16;

/// Threads of each lane of readers. Together they are far fewer than tokio's blocking threads, and
/// their files fit into the limit of open files.
const SOON: usize = 8;
/// See [`SOON`].
const SHORT: usize = 8;
/// See [`SOON`].
const PAGE: usize = 4;
/// See [`SOON`]. A small server has two processors or one more.
const LONG: usize = 2;

/// The open store, or why it cannot be opened.
type Opened = Result<Store, Arc<Error>>;

type Job = Box<dyn FnOnce(&mut Opened) + Send>;
type Lasting = Box<dyn FnMut(&mut Store) -> Result<(), Error> + Send>;

enum Order {
    Once(Job),
    /// The change is in force: it is written now or, if that fails, as soon as possible.
    Lasting(Lasting, oneshot::Sender<Result<(), Arc<Error>>>),
}

/// A handle on the store.
#[derive(Clone)]
pub struct StoreHandle {
    path: PathBuf,
    orders: Sender<Order>,
    unsaved: Arc<AtomicUsize>,
    problem: Arc<Mutex<Option<String>>>,
    took: Histogram,
    lanes: Arc<Lanes>,
    /// Nothing is ever sent: it is closed when the thread has ended.
    alive: watch::Receiver<()>,
}

/// Readers that run at the same time; those of one lane wait for no other.
struct Lanes {
    /// For changes that let calls through, and for the status.
    soon: Arc<Semaphore>,
    /// For questions about a few rows.
    short: Arc<Semaphore>,
    /// For pages of lists.
    page: Arc<Semaphore>,
    /// For questions about the whole store.
    long: Arc<Semaphore>,
}

/// Set when nobody waits for a reader.
#[derive(Default)]
struct Abandoned(Arc<AtomicBool>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl StoreHandle {
    /// Opens the store on a thread of its own. A store that cannot be opened is not an error: the
    /// filter is in force without it, and the thread tries again.
    #[must_use]
    pub fn start(path: &Path) -> StoreHandle {
        let (orders, receiver) = channel();
        let (lives, alive) = watch::channel(());
        let lane = |threads| Arc::new(Semaphore::new(threads));
        let store_handle = StoreHandle {
            lanes: Arc::new(Lanes {
                soon: lane(SOON),
                short: lane(SHORT),
                page: lane(PAGE),
                long: lane(LONG),
            }),
            alive,
            path: path.to_owned(),
            orders,
            unsaved: Arc::default(),
            problem: Arc::default(),
            took: Histogram::new(exponential_buckets(FIRST_BUCKET, 2.0, BUCKETS)),
        };
        let took = store_handle.took.clone();
        let (path, unsaved) = (path.to_owned(), Arc::clone(&store_handle.unsaved));
        let problem = Arc::clone(&store_handle.problem);
        let (opened, wait) = channel();
        let started = thread::Builder::new().name("store".into()).spawn(move || {
            let _lives = lives;
            let store = Store::open(&path).map_err(Arc::new);
            let _ = opened.send(store.as_ref().err().map(|error| error.message()));
            let waiting = VecDeque::new();
            Thread { path, store, unsaved, problem, waiting, took }.run(&receiver);
        });
        let found = match (started, wait.recv_timeout(OPEN_PATIENCE)) {
            (Ok(_), Ok(found)) => found,
            (Ok(_), Err(_)) => Some(format!("{} does not answer", store_handle.path.display())),
            (Err(error), _) => Some(format!("no thread for the store: {error}")),
        };
        note(&store_handle.problem, found);
        store_handle
    }

    /// Returns the known problem of the store.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts the changes that are in force and not on disk.
    #[must_use]
    pub fn unsaved(&self) -> usize {
        self.unsaved.load(Ordering::Relaxed)
    }

    /// Returns the durations of changes on the store's thread, in seconds.
    #[must_use]
    pub fn took(&self) -> Histogram {
        self.took.clone()
    }

    /// Writes a change that must be on disk before it is in force. The thread has the change when
    /// this returns; the future only waits for the answer. The thread skips the change if the
    /// caller has given up before its turn.
    ///
    /// # Errors
    /// [`ProblemKind::Store`] if the store takes no writes; any problem that `write` returns.
    pub fn write_through<T, F>(
        &self,
        write: F,
    ) -> impl Future<Output = Result<T, Problem>> + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&mut Store) -> Result<T, Problem> + Send + 'static,
    {
        let (answer, wait) = oneshot::channel();
        let found = Arc::clone(&self.problem);
        let job: Job = Box::new(move |store| {
            if answer.is_closed() {
                return;
            }
            let done = match store {
                Ok(store) => write(store),
                Err(error) => Err(no_writes(error.message())),
            };
            match &done {
                Ok(_) => note(&found, None),
                Err(problem) if problem.kind == ProblemKind::Store => {
                    note(&found, Some(problem.message.clone()));
                }
                Err(_) => {}
            }
            let _ = answer.send(done);
        });
        // The thread ends only with the process.
        let _ = self.orders.send(Order::Once(job));
        async {
            wait.await.unwrap_or_else(|_| {
                Err(no_writes("the store's thread has ended: restart the daemon".to_owned()))
            })
        }
    }

    /// Writes a change that is in force already. The thread has the change when this returns; the
    /// future reports after a moment whether it is on disk.
    pub fn write_behind<F>(&self, write: F) -> impl Future<Output = Persisted> + use<F>
    where
        F: FnMut(&mut Store) -> Result<(), Error> + Send + 'static,
    {
        let (answer, wait) = oneshot::channel();
        self.unsaved.fetch_add(1, Ordering::Relaxed);
        let _ = self.orders.send(Order::Lasting(Box::new(write), answer));
        let slot = limits::slot();
        async move {
            let waited = async move {
                let _slot = slot;
                tokio::time::timeout(PATIENCE, wait).await
            };
            // The slot is held for that long even if the client hangs up: no client piles up work.
            match tokio::spawn(waited).await {
                Ok(Ok(Ok(Ok(())))) => Persisted::Yes,
                Ok(Ok(Ok(Err(why)))) => Persisted::No(why.message()),
                Ok(Ok(Err(_)) | Err(_)) | Err(_) => Persisted::Pending,
            }
        }
    }

    /// Returns when the store's thread has ended, which it does only by a panic.
    pub async fn ended(&self) {
        while self.alive.clone().changed().await.is_ok() {}
    }

    /// Reads as [`StoreHandle::read`], for changes and questions that must not wait. A disk that
    /// does not answer for [`PATIENCE`] counts as unreadable.
    ///
    /// # Errors
    /// [`ProblemKind::Store`] if the store cannot be read in time.
    pub async fn read_soon<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Problem> {
        match tokio::time::timeout(PATIENCE, self.read_on(&self.lanes.soon, None, read)).await {
            Ok(done) => done,
            Err(_) => Err(no_writes(format!("{} does not answer", self.path.display()))),
        }
    }

    /// Reads a few rows, on a connection that never waits for the writer.
    ///
    /// # Errors
    /// [`ProblemKind::Store`] if the store cannot be read.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Problem> {
        self.read_on(&self.lanes.short, None, read).await
    }

    /// Reads one page of a list, otherwise as [`StoreHandle::read`].
    ///
    /// # Errors
    /// [`ProblemKind::Store`] if the store cannot be read.
    pub async fn read_page<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = limits::turn(Turn::Page).await;
        self.read_on(&self.lanes.page, turn, read).await
    }

    /// Reads the whole store, or all of one number, otherwise as [`StoreHandle::read`].
    ///
    /// # Errors
    /// [`ProblemKind::Store`] if the store cannot be read.
    pub async fn read_long<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = limits::turn(Turn::Long).await;
        self.read_on(&self.lanes.long, turn, read).await
    }

    /// Reads on a thread of a lane. The read and the user's turn end when the caller gives up.
    async fn read_on<T: Send + 'static>(
        &self,
        lane: &Arc<Semaphore>,
        turn: Option<OwnedSemaphorePermit>,
        read: impl FnOnce(&Reader) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Problem> {
        // A lane is never closed.
        let thread = Arc::clone(lane).acquire_owned().await.ok();
        let slot = limits::slot();
        let abandoned = Abandoned::default();
        let is_abandoned = Arc::clone(&abandoned.0);
        let path = self.path.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _held = (thread, turn, slot);
            let mut reader = Reader::open(&path)?;
            reader.end_when(is_abandoned)?;
            read(&reader)
        });
        let done = done.await?;
        if let Some(damage) = done.as_ref().err().and_then(Error::damage) {
            let stop: Job = Box::new(move |store| {
                if let Ok(store) = store {
                    store.stop_writing(&damage);
                }
            });
            let _ = self.orders.send(Order::Once(stop));
        }
        done.map_err(|error| refused(&error))
    }
}

/// Notes the problem of the store, and logs a change.
fn note(problem: &Mutex<Option<String>>, found: Option<String>) {
    let mut known = problem.lock().unwrap_or_else(PoisonError::into_inner);
    match (&*known, &found) {
        (None, Some(found)) => tracing::error!(problem = %found, "the store takes no writes"),
        (Some(_), None) => tracing::info!("the store takes writes again"),
        (Some(_), Some(_)) | (None, None) => {}
    }
    *known = found;
}

/// Returns the problem that a client gets for an error of the store.
#[must_use]
pub fn refused(error: &Error) -> Problem {
    no_writes(error.message())
}

fn no_writes(message: String) -> Problem {
    Problem { kind: ProblemKind::Store, message }
}

struct Thread {
    path: PathBuf,
    store: Opened,
    unsaved: Arc<AtomicUsize>,
    problem: Arc<Mutex<Option<String>>>,
    waiting: VecDeque<Lasting>,
    took: Histogram,
}

impl Thread {
    fn run(&mut self, orders: &Receiver<Order>) {
        let mut tried = Instant::now();
        loop {
            let order = match orders.recv_timeout(RETRY) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if tried.elapsed() >= RETRY {
                self.mend();
                tried = Instant::now();
            }
            let begun = order.is_some().then(Instant::now);
            match order {
                // Waiting changes come first: otherwise they could undo this one.
                Some(Order::Once(job)) => match self.catch_up() {
                    Ok(()) => job(&mut self.store),
                    Err(error) => job(&mut Err(error)),
                },
                Some(Order::Lasting(mut write, answer)) => {
                    let done = self.attempt(&mut write);
                    note(&self.problem, done.as_ref().err().map(|error| error.message()));
                    if done.is_err() {
                        self.waiting.push_back(write);
                    } else {
                        self.unsaved.fetch_sub(1, Ordering::Relaxed);
                    }
                    let _ = answer.send(done);
                }
                None => {}
            }
            if let Some(begun) = begun {
                self.took.observe(begun.elapsed().as_secs_f64());
            }
        }
    }

    fn attempt(&mut self, write: &mut Lasting) -> Result<(), Arc<Error>> {
        self.catch_up()?;
        let store = self.store.as_mut().map_err(|error| Arc::clone(error))?;
        write(store).map_err(Arc::new)
    }

    fn catch_up(&mut self) -> Result<(), Arc<Error>> {
        while let Some(write) = self.waiting.front_mut() {
            let store = self.store.as_mut().map_err(|error| Arc::clone(error))?;
            write(store).map_err(Arc::new)?;
            self.waiting.pop_front();
            self.unsaved.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Opens a store that could not be opened, and writes the waiting changes.
    fn mend(&mut self) {
        if self.store.is_ok() && self.waiting.is_empty() {
            return;
        }
        if self.store.is_err() {
            self.store = Store::open(&self.path).map_err(Arc::new);
        }
        let done = match &self.store {
            Ok(_) => self.catch_up(),
            Err(error) => Err(Arc::clone(error)),
        };
        note(&self.problem, done.err().map(|error| error.message()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    /// Opens a new store.
    fn store_handle() -> (tempfile::TempDir, StoreHandle) {
        let folder = tempfile::tempdir().unwrap();
        let store_handle = StoreHandle::start(&folder.path().join("palang.db"));
        assert_eq!(store_handle.problem(), None);
        (folder, store_handle)
    }

    /// Starts reads that do not end by themselves, on all threads of a lane and more.
    fn hogs(lane: impl Fn() -> tokio::task::JoinHandle<()>) -> Vec<tokio::task::JoinHandle<()>> {
        (0..3 * SOON).map(|_| lane()).collect()
    }

    /// Returns a read that lasts until the sender of `ended` is dropped.
    fn until_end(
        ended: watch::Receiver<()>,
    ) -> impl FnOnce(&Reader) -> Result<(), Error> + Clone + Send + 'static {
        move |_| {
            while ended.has_changed().is_ok() {
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn lanes_of_readers_do_not_wait_for_each_other() {
        let (_folder, store_handle) = store_handle();
        let (end, ended) = watch::channel(());
        let hog = {
            let store_handle = store_handle.clone();
            move || {
                let (store_handle, ended) = (store_handle.clone(), ended.clone());
                tokio::spawn(async move {
                    let wait = until_end(ended);
                    let _ = tokio::join!(
                        store_handle.read_long(wait.clone()),
                        store_handle.read_page(wait.clone()),
                        store_handle.read(wait)
                    );
                })
            }
        };
        let hogs = hogs(hog);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let head = store_handle.read_soon(|reader| reader.audit_head()).await.unwrap();
        assert_eq!(head.seq, 0);
        assert!(hogs.iter().all(|hog| !hog.is_finished()), "they are not in the way");
        drop(end);
        for hog in hogs {
            hog.await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn read_soon_on_a_disk_that_hangs_fails_after_a_moment() {
        let (_folder, store_handle) = store_handle();
        let (end, ended) = watch::channel(());
        let hog = {
            let store_handle = store_handle.clone();
            move || {
                let (store_handle, ended) = (store_handle.clone(), ended.clone());
                tokio::spawn(async move {
                    // Like a disk that hangs, it does not notice that nobody waits.
                    let wait = until_end(ended);
                    let _ = store_handle.read_soon(wait).await;
                })
            }
        };
        for hog in hogs(hog) {
            hog.await.unwrap();
        }
        let problem = store_handle.read_soon(|_| Ok(())).await.unwrap_err();
        assert!(problem.message.contains("does not answer"), "{}", problem.message);
        drop(end);
        while store_handle.read_soon(|_| Ok(())).await.is_err() {}
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn read_of_a_client_that_gave_up_is_interrupted() {
        let (_folder, store_handle) = store_handle();
        let rows = 300;
        let write = store_handle.write_through(move |store| {
            for _ in 0..rows {
                store.audit(crate::store::Entry::new(clock::now(), "siti", "attach"))?;
            }
            Ok(())
        });
        write.await.unwrap();
        let (begun, has_begun) = std::sync::mpsc::channel();
        let (sender, outcome) = std::sync::mpsc::channel();
        let read = move |reader: &Reader| {
            let _ = begun.send(());
            // Until it is interrupted.
            let error = loop {
                if let Err(error) = reader.verify_audit(None) {
                    break error;
                }
            };
            let _ = sender.send(error.message());
            Ok(())
        };
        let reading = tokio::spawn(async move { store_handle.read_long(read).await });
        let outcome = tokio::task::spawn_blocking(move || {
            has_begun.recv().unwrap();
            reading.abort();
            outcome.recv_timeout(Duration::from_secs(20))
        });
        assert!(outcome.await.unwrap().unwrap().contains("interrupted"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn long_reads_of_one_user_run_one_at_a_time() {
        use crate::daemon::connections::{API, Connections};
        let (_folder, store_handle) = store_handle();
        let users = limits::Users::new();
        let (connection, _closed) = Connections::new(API).open(None).unwrap();
        let slot = |uid| {
            let slot = users.user(uid).slot(limits::Kind::Long, &connection.handle);
            Some(Arc::new(slot.unwrap()))
        };
        let (end, ended) = watch::channel(());
        let (begun, has_begun) = std::sync::mpsc::channel();
        let mut reads = Vec::new();
        for _ in 0..2 {
            let (store_handle, slot, begun) = (store_handle.clone(), slot(1), begun.clone());
            let ended = ended.clone();
            reads.push(tokio::spawn(limits::within(slot, async move {
                let wait = move |_: &Reader| {
                    let _ = begun.send(());
                    while ended.has_changed().is_ok() {
                        thread::sleep(Duration::from_millis(5));
                    }
                    Ok(())
                };
                store_handle.read_long(wait).await.unwrap();
            })));
        }
        let other = limits::within(slot(2), store_handle.read_long(|_| Ok(())));
        other.await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(has_begun.try_iter().count(), 1, "the second waits for the first");
        drop(end);
        for read in reads {
            read.await.unwrap();
        }
        assert_eq!(has_begun.try_iter().count(), 1);
    }

    #[tokio::test]
    async fn store_thread_that_panics_is_noticed() {
        let (_folder, store_handle) = store_handle();
        let ended = store_handle.ended();
        let answer =
            store_handle.write_through(|_| -> Result<(), Problem> { panic!("a test") }).await;
        assert!(answer.unwrap_err().message.contains("has ended"));
        ended.await;
    }
}
