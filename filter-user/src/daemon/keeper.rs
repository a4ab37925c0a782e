//! The thread that owns the store. What blocks waits for it; what lets through does not.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::oneshot;

use crate::store::{Error, Reader, Store};
use crate::wire::{Persisted, Problem, ProblemKind};

/// How long an answer about something that is in force already waits for the disk.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the start waits for the store to open.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// How often what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Bounds of the times that changes take: 0.5 ms to 16 s, twice as long each.
const FIRST_BUCKET: f64 = 0.0005;
const BUCKETS: u16 = 16;

type Job = Box<dyn FnOnce(&mut Result<Store, String>) + Send>;
type Lasting = Box<dyn FnMut(&mut Store) -> Result<(), Error> + Send>;

enum Order {
    Once(Job),
    /// In force already: written now or, when that fails, as soon as it can be.
    Lasting(Lasting, oneshot::Sender<Result<(), String>>),
}

/// A handle on the store.
#[derive(Clone)]
pub struct Keeper {
    path: PathBuf,
    orders: Sender<Order>,
    unsaved: Arc<AtomicUsize>,
    problem: Arc<Mutex<Option<String>>>,
    took: Histogram,
}

impl Keeper {
    /// Opens the store on a thread of its own. A store that cannot be opened is no error: the
    /// filter is in force without it, and it is tried again.
    #[must_use]
    pub fn start(path: &Path) -> Keeper {
        let (orders, receiver) = channel();
        let keeper = Keeper {
            path: path.to_owned(),
            orders,
            unsaved: Arc::default(),
            problem: Arc::default(),
            took: Histogram::new(exponential_buckets(FIRST_BUCKET, 2.0, BUCKETS)),
        };
        let took = keeper.took.clone();
        let (path, unsaved) = (path.to_owned(), Arc::clone(&keeper.unsaved));
        let problem = Arc::clone(&keeper.problem);
        let (opened, wait) = channel();
        let started = thread::Builder::new().name("store".into()).spawn(move || {
            let store = Store::open(&path).map_err(|error| error.to_string());
            let _ = opened.send(store.as_ref().err().cloned());
            let waiting = VecDeque::new();
            Thread { path, store, unsaved, problem, waiting, took }.run(&receiver);
        });
        let found = match (started, wait.recv_timeout(OPEN_PATIENCE)) {
            (Ok(_), Ok(found)) => found,
            (Ok(_), Err(_)) => Some(format!("{} does not answer", keeper.path.display())),
            (Err(error), _) => Some(format!("no thread for the store: {error}")),
        };
        note(&keeper.problem, found);
        keeper
    }

    /// What is wrong with the store, as far as known.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes that are in force and not on disk.
    #[must_use]
    pub fn unsaved(&self) -> usize {
        self.unsaved.load(Ordering::Relaxed)
    }

    /// How long changes took on the store's thread, in seconds.
    #[must_use]
    pub fn took(&self) -> Histogram {
        self.took.clone()
    }

    /// Writes something that must be on disk before it is in force. The thread has it when this
    /// returns; the future only waits for the answer. It is not done when whoever asked has given
    /// up before its turn comes.
    ///
    /// # Errors
    /// That the store takes no writes, and why; what `write` says.
    pub fn write<T, F>(&self, write: F) -> impl Future<Output = Result<T, Problem>> + use<T, F>
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
                Err(error) => Err(no_writes(error.clone())),
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

    /// Writes down what is in force already. The thread has it when this returns; the future says
    /// after a moment whether it is on disk.
    pub fn keep<F>(&self, write: F) -> impl Future<Output = Persisted> + use<F>
    where
        F: FnMut(&mut Store) -> Result<(), Error> + Send + 'static,
    {
        let (answer, wait) = oneshot::channel();
        self.unsaved.fetch_add(1, Ordering::Relaxed);
        let _ = self.orders.send(Order::Lasting(Box::new(write), answer));
        async {
            match tokio::time::timeout(PATIENCE, wait).await {
                Ok(Ok(Ok(()))) => Persisted::Yes,
                Ok(Ok(Err(why))) => Persisted::No(why),
                Ok(Err(_)) | Err(_) => Persisted::Pending,
            }
        }
    }

    /// As [`Keeper::read`], for what must not wait: a disk that does not answer within a second
    /// is one that cannot be read.
    ///
    /// # Errors
    /// A store that cannot be read in time, and why.
    pub async fn read_soon<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Problem> {
        match tokio::time::timeout(PATIENCE, self.read(read)).await {
            Ok(done) => done,
            Err(_) => Err(no_writes(format!("{} does not answer", self.path.display()))),
        }
    }

    /// Asks the store on a connection that never waits for the writer.
    ///
    /// # Errors
    /// A store that cannot be read, and why.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Problem> {
        let path = self.path.clone();
        let done = tokio::task::spawn_blocking(move || read(&Reader::open(&path)?)).await;
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                return Err(Problem { kind: ProblemKind::Failed, message: error.to_string() });
            }
        };
        if let Err(Error::Corrupt { what, .. }) = &done {
            let what = what.clone();
            let stop: Job = Box::new(move |store| {
                if let Ok(store) = store {
                    store.stop_writing(&what);
                }
            });
            let _ = self.orders.send(Order::Once(stop));
        }
        done.map_err(|error| refused(&error))
    }
}

/// Notes what is wrong with the store, and tells when that changes.
fn note(problem: &Mutex<Option<String>>, found: Option<String>) {
    let mut known = problem.lock().unwrap_or_else(PoisonError::into_inner);
    match (&*known, &found) {
        (None, Some(found)) => tracing::error!("the store takes no writes: {found}"),
        (Some(_), None) => tracing::info!("the store takes writes again"),
        (Some(_), Some(_)) | (None, None) => {}
    }
    *known = found;
}

/// The problem that a store's error is for whoever asked.
#[must_use]
pub fn refused(error: &Error) -> Problem {
    no_writes(error.to_string())
}

fn no_writes(message: String) -> Problem {
    Problem { kind: ProblemKind::Store, message }
}

struct Thread {
    path: PathBuf,
    store: Result<Store, String>,
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
                // What waits comes first: else it could undo what is written now.
                Some(Order::Once(job)) => match self.catch_up() {
                    Ok(()) => job(&mut self.store),
                    Err(error) => job(&mut Err(error)),
                },
                Some(Order::Lasting(mut write, answer)) => {
                    let done = self.attempt(&mut write);
                    note(&self.problem, done.as_ref().err().cloned());
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

    fn attempt(&mut self, write: &mut Lasting) -> Result<(), String> {
        self.catch_up()?;
        let store = self.store.as_mut().map_err(|error| error.clone())?;
        write(store).map_err(|error| error.to_string())
    }

    fn catch_up(&mut self) -> Result<(), String> {
        while let Some(write) = self.waiting.front_mut() {
            let store = self.store.as_mut().map_err(|error| error.clone())?;
            write(store).map_err(|error| error.to_string())?;
            self.waiting.pop_front();
            self.unsaved.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Opens a store that could not be opened, and writes what waits.
    fn mend(&mut self) {
        if self.store.is_ok() && self.waiting.is_empty() {
            return;
        }
        if self.store.is_err() {
            self.store = Store::open(&self.path).map_err(|error| error.to_string());
        }
        let done = match &self.store {
            Ok(_) => self.catch_up(),
            Err(error) => Err(error.clone()),
        };
        note(&self.problem, done.err());
    }
}
