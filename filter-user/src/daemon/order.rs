//! Orders all changes of the policy: a change never undoes one that was accepted later.
//!
//! A change gets its place when the daemon accepts it, and the store's thread gets it at the same
//! moment. A change that lets calls through is in force at once. Every other change waits for the
//! thread, and may find there that a later change of the same key is in force.
//!
//! One lock guards the places, the maps' entries of every key, and the hand-over to the thread. It
//! is held during system calls on maps only, never during a write to the disk.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::api::wire::{Persisted, Problem, ProblemKind};
use crate::daemon::store_thread::StoreHandle;
use crate::model::policy::Subject;
use crate::store::{Decision, Error, Store};

/// Number of remembered keys before unneeded ones are dropped.
const REMEMBERED: usize = 64;

/// The object of a change. Changes of different keys never undo each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// Observe or enforce.
    Mode,
    /// The override.
    Override,
    /// The block against a number or prefix.
    Block(Subject),
    /// The allow for a number or prefix.
    Allow(Subject),
    /// The allows of an incident, which only the store knows.
    Incident,
}

/// A change that was in force before it was on disk.
#[derive(Clone, Debug)]
pub struct Later {
    /// Its place in the order.
    place: u64,
    /// Action and author, such as `block remove by siti`.
    what: String,
    /// The allow that it made; `None`: it made none.
    allow: Option<Decision>,
}

impl Later {
    /// Creates a change with this place, action and author.
    #[must_use]
    pub fn new(place: u64, action: &str, author: &str) -> Later {
        Later { place, what: format!("{action} by {author}"), allow: None }
    }

    /// Adds the allow that the change made.
    #[must_use]
    pub fn with_allow(self, allow: Decision) -> Later {
        Later { allow: Some(allow), ..self }
    }
}

/// Exists until the store's thread comes to a change.
type Alive = Arc<()>;

#[derive(Debug)]
struct Waiting {
    place: u64,
    alive: Weak<()>,
}

#[derive(Debug)]
struct Bulk {
    place: u64,
    subjects: Weak<HashSet<Subject>>,
}

#[derive(Debug, Default)]
struct State {
    /// The newest place.
    last: u64,
    /// The newest change of a key that was in force at once.
    in_force: HashMap<Key, (Later, Weak<()>)>,
    /// Changes that wait for the store's thread.
    waiting: HashMap<Key, Vec<Waiting>>,
    /// Imports that wait for it.
    bulks: Vec<Bulk>,
    /// Number of keys before [`State::tidy`] drops unneeded ones.
    enough: usize,
}

impl State {
    /// Drops entries that no waiting change needs, so that memory stays bounded.
    fn tidy(&mut self) {
        if self.in_force.len() + self.waiting.len() + self.bulks.len() <= self.enough {
            return;
        }
        self.waiting.retain(|_, list| {
            list.retain(|one| one.alive.strong_count() > 0);
            !list.is_empty()
        });
        self.bulks.retain(|bulk| bulk.subjects.strong_count() > 0);
        let waiting = self.waiting.values().flatten().map(|one| one.place);
        let oldest = waiting.chain(self.bulks.iter().map(|bulk| bulk.place)).min();
        self.in_force.retain(|_, (later, alive)| {
            alive.strong_count() > 0 || oldest.is_some_and(|oldest| oldest < later.place)
        });
        let left = self.in_force.len() + self.waiting.len() + self.bulks.len();
        self.enough = REMEMBERED.max(2 * left);
    }
}

/// The order of all changes.
pub struct Order {
    store_handle: StoreHandle,
    state: Mutex<State>,
    /// Number of changes that let calls through and wait for the lock.
    hurried: AtomicUsize,
}

impl Order {
    /// Creates an order that continues after the place `last`.
    #[must_use]
    pub fn new(store_handle: StoreHandle, last: u64) -> Order {
        let state = State { last, enough: REMEMBERED, ..State::default() };
        Order { store_handle, state: Mutex::new(state), hurried: AtomicUsize::new(0) }
    }

    /// Takes the lock, for a change that lets calls through.
    pub fn hurry(&self) -> Turn<'_> {
        self.hurried.fetch_add(1, Ordering::SeqCst);
        let state = self.lock();
        self.hurried.fetch_sub(1, Ordering::SeqCst);
        Turn { order: self, state }
    }

    /// Takes the lock, for every other change. A mutex is not fair: without this wait, a million
    /// blocks in a row would delay a change that lets calls through.
    pub fn turn(&self) -> Turn<'_> {
        while self.hurried.load(Ordering::SeqCst) > 0 {
            std::thread::yield_now();
        }
        Turn { order: self, state: self.lock() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is whole after each of its statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts a change that waits for the store's thread. `job` gets its place, which is also the
    /// number of its rule. It calls [`Turn::check`] before it writes the store and the map.
    ///
    /// # Errors
    /// Those of [`StoreHandle::write_through`].
    pub fn queue<T, F>(
        &self,
        key: Key,
        job: F,
    ) -> impl Future<Output = Result<T, Problem>> + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&mut Store, u64) -> Result<T, Problem> + Send + 'static,
    {
        let mut turn = self.turn();
        let place = turn.places(1);
        let alive = Alive::default();
        let waiting = Waiting { place, alive: Arc::downgrade(&alive) };
        turn.state.waiting.entry(key).or_default().push(waiting);
        turn.state.tidy();
        self.store_handle.write_through(move |store| {
            let _alive = alive;
            job(store, place)
        })
    }

    /// Accepts many blocks at once, otherwise as [`Order::queue`]. `job` gets the first of their
    /// places.
    ///
    /// # Errors
    /// Those of [`StoreHandle::write_through`].
    pub fn queue_bulk<T, F>(
        &self,
        subjects: HashSet<Subject>,
        job: F,
    ) -> impl Future<Output = Result<T, Problem>> + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&mut Store, u64) -> Result<T, Problem> + Send + 'static,
    {
        let subjects = Arc::new(subjects);
        let mut turn = self.turn();
        let place = turn.places(subjects.len() as u64);
        turn.state.bulks.push(Bulk { place, subjects: Arc::downgrade(&subjects) });
        turn.state.tidy();
        self.store_handle.write_through(move |store| {
            let _subjects = subjects;
            job(store, place)
        })
    }
}

/// The lock of the order: nobody else changes a map's entry of any key.
pub struct Turn<'o> {
    order: &'o Order,
    state: MutexGuard<'o, State>,
}

impl Turn<'_> {
    /// Reserves N places, and returns the first.
    pub fn places(&mut self, count: u64) -> u64 {
        let first = self.state.last + 1;
        self.state.last += count;
        first
    }

    /// Checks that no later change of this key is in force.
    ///
    /// # Errors
    /// [`ProblemKind::Superseded`] if there is a later change.
    pub fn check(&self, key: Key, place: u64) -> Result<(), Problem> {
        match self.state.in_force.get(&key) {
            Some((later, _)) if later.place > place => Err(superseded(&later.what)),
            Some(_) | None => Ok(()),
        }
    }

    /// Returns whether the map has a change of this key that the store does not have yet.
    #[must_use]
    pub fn is_unsaved(&self, key: Key) -> bool {
        self.state.in_force.get(&key).is_some_and(|(_, alive)| alive.strong_count() > 0)
    }

    /// Returns the allow for this subject that is in force and not on disk yet.
    #[must_use]
    pub fn unsaved_allow(&self, subject: Subject) -> Option<&Decision> {
        let (later, alive) = self.state.in_force.get(&Key::Allow(subject))?;
        later.allow.as_ref().filter(|_| alive.strong_count() > 0)
    }

    /// Returns whether a change of this key waits for the store's thread.
    #[must_use]
    pub fn is_waiting(&self, key: Key) -> bool {
        let waits = |key: &Key| {
            let list = self.state.waiting.get(key);
            list.is_some_and(|list| list.iter().any(|one| one.alive.strong_count() > 0))
        };
        match key {
            Key::Allow(_) => waits(&key) || waits(&Key::Incident),
            Key::Block(subject) => {
                let mut bulks = self.state.bulks.iter().filter_map(|bulk| bulk.subjects.upgrade());
                waits(&key) || bulks.any(|subjects| subjects.contains(&subject))
            }
            Key::Mode | Key::Override | Key::Incident => waits(&key),
        }
    }

    /// Hands a change that the map has to the store's thread.
    pub fn keep<F>(
        mut self,
        key: Key,
        later: Later,
        mut write: F,
    ) -> impl Future<Output = Persisted> + use<F>
    where
        F: FnMut(&mut Store) -> Result<(), Error> + Send + 'static,
    {
        let alive = Alive::default();
        self.state.in_force.insert(key, (later, Arc::downgrade(&alive)));
        self.state.tidy();
        self.order.store_handle.write_behind(move |store| {
            let _alive = &alive;
            write(store)
        })
    }
}

/// Returns the problem of a change that a later one has overtaken.
#[must_use]
pub fn superseded(what: &str) -> Problem {
    let message = format!("superseded by a later change: {what}; this change is not in force");
    Problem { kind: ProblemKind::Superseded, message }
}
