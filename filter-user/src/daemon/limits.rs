//! Limits how much of the daemon one user gets: slots for each kind of request.
//!
//! A request that finds no slot is answered at once. Kinds do not share slots: changes that let
//! calls through and the status never wait for other requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use axum::http::Method;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::wire::{Problem, ProblemKind};
use crate::daemon::connections::{API, Busy, Handle};

/// The kind of a request, as far as others could have to wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Lets calls through, or shows the state of the gate.
    WayOut,
    /// Changes something else.
    Change,
    /// Reads a little.
    Read,
    /// Reads a list, page by page.
    List,
    /// Streams events, without an end.
    Stream,
    /// Reads the whole store, or all of one number.
    Long,
    /// Writes a whole list.
    Import,
}

const KINDS: [Kind; 7] =
    [Kind::WayOut, Kind::Change, Kind::Read, Kind::List, Kind::Stream, Kind::Long, Kind::Import];

impl Kind {
    /// Returns the kind of a request for a route of the API.
    #[must_use]
    pub fn of(method: &Method, route: Option<&str>) -> Kind {
        // HEAD does all that GET does.
        let method = if method == Method::HEAD { &Method::GET } else { method };
        match (method.as_str(), route.unwrap_or_default()) {
            ("GET", "/v1/status")
            | ("GET" | "PUT", "/v1/override" | "/v1/mode")
            | ("POST", "/v1/allows" | "/v1/callback" | "/v1/reviews/{id}/free")
            | ("DELETE", "/v1/blocks/{number}") => Kind::WayOut,
            ("GET", "/v1/blocks" | "/v1/allows" | "/v1/calls")
            | ("GET", "/v1/reports" | "/v1/reviews" | "/v1/audit") => Kind::List,
            ("GET", "/v1/events" | "/v1/calls/live" | "/v1/top") => Kind::Stream,
            ("GET", "/v1/audit/verify" | "/v1/numbers/{number}") | ("POST", "/v1/store/backup") => {
                Kind::Long
            }
            ("POST", "/v1/blocks/import") => Kind::Import,
            ("GET", _) => Kind::Read,
            _ => Kind::Change,
        }
    }

    /// Returns the number of requests of this kind for one user, and for all users together.
    const fn slots(self) -> (usize, usize) {
        match self {
            Kind::WayOut => (32, API.all),
            Kind::Change | Kind::Read => (16, 64),
            Kind::List => (16, 64),
            Kind::Stream => (32, 128),
            Kind::Long => (2, 8),
            Kind::Import => (2, 4),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::WayOut => "ways out and status",
            Kind::Change => "changes",
            Kind::Read => "questions",
            Kind::List => "lists",
            Kind::Stream => "live answers",
            Kind::Long => "verifications, exports and backups",
            Kind::Import => "imports",
        }
    }
}

// A user whose slots are all taken still has connections that can be closed for a new one.
const _: () = {
    let (mut sum, mut index) = (0, 0);
    while index < KINDS.len() {
        sum += KINDS[index].slots().0;
        index += 1;
    }
    assert!(sum < API.each);
};

type Slots = [Arc<Semaphore>; KINDS.len()];

/// Work that one user gets one at a time, because it keeps a thread busy for longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A page of a list.
    Page,
    /// A read of the whole store, or of all of one number.
    Long,
}

/// One user's slots; they are forgotten with the last connection and the last request.
#[derive(Debug)]
pub struct User {
    each: Slots,
    all: Arc<Slots>,
    turns: [Arc<Semaphore>; 2],
}

/// All users that have a connection or a request under way.
#[derive(Debug)]
pub struct Users {
    known: Mutex<HashMap<u32, Weak<User>>>,
    all: Arc<Slots>,
}

impl Users {
    /// Creates the table without users.
    #[must_use]
    pub fn new() -> Users {
        let all = Arc::new(KINDS.map(|kind| Arc::new(Semaphore::new(kind.slots().1))));
        Users { known: Mutex::default(), all }
    }

    /// Returns the user with this number.
    #[must_use]
    pub fn user(&self, uid: u32) -> Arc<User> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(user) = known.get(&uid).and_then(Weak::upgrade) {
            return user;
        }
        known.retain(|_, user| user.strong_count() > 0);
        let each = KINDS.map(|kind| Arc::new(Semaphore::new(kind.slots().0)));
        let turns = [Turn::Page, Turn::Long].map(|_| Arc::new(Semaphore::new(1)));
        let user = Arc::new(User { each, all: Arc::clone(&self.all), turns });
        known.insert(uid, Arc::downgrade(&user));
        user
    }
}

/// Permits a request to run. The permit ends with its last copy: that of the handler, or of the
/// work that the handler started.
#[derive(Debug)]
pub struct Slot {
    _each: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
    /// Keeps the taken slots when the user hangs up.
    user: Arc<User>,
    _busy: Busy,
}

impl User {
    /// Takes a slot.
    ///
    /// # Errors
    /// [`ProblemKind::Busy`] if the user has taken all of its own; [`ProblemKind::Overloaded`] if
    /// all users together have taken all.
    pub fn slot(self: &Arc<User>, kind: Kind, connection: &Handle) -> Result<Slot, Problem> {
        let take = |slots: &Slots| Arc::clone(&slots[kind as usize]).try_acquire_owned().ok();
        let (each, all) = kind.slots();
        let none = |problem, count, whose| {
            let what = kind.name();
            let message = format!(
                "{count} {what} {whose} are under way, which is the limit: nothing was done; try \
                 again when one of them has ended"
            );
            Err(Problem { kind: problem, message })
        };
        let Some(own) = take(&self.each) else {
            return none(ProblemKind::Busy, each, "of this user");
        };
        let Some(shared) = take(&self.all) else {
            return none(ProblemKind::Overloaded, all, "of all users");
        };
        Ok(Slot { _each: own, _all: shared, user: Arc::clone(self), _busy: connection.busy() })
    }
}

tokio::task_local! {
    static SLOT: Arc<Slot>;
}

/// Returns the slot of the current request; `None`: it is the daemon's own work.
#[must_use]
pub fn slot() -> Option<Arc<Slot>> {
    SLOT.try_with(Arc::clone).ok()
}

/// Runs work as part of the request that has this slot.
pub async fn within<T>(slot: Option<Arc<Slot>>, work: impl Future<Output = T>) -> T {
    match slot {
        Some(slot) => SLOT.scope(slot, work).await,
        None => work.await,
    }
}

/// Waits until no other work of this user has this turn; `None`: it is the daemon's own work.
pub async fn turn(turn: Turn) -> Option<OwnedSemaphorePermit> {
    let turns = Arc::clone(&slot()?.user.turns[turn as usize]);
    // The semaphore is never closed.
    turns.acquire_owned().await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::connections::{Connections, Limits};

    fn connection() -> Handle {
        Connections::new(Limits { all: 10, each: 10 }).open(Some(7)).unwrap().0.handle.clone()
    }

    #[test]
    fn slots_of_one_user_are_not_those_of_another() {
        let users = Users::new();
        let connection = connection();
        let (each, _) = Kind::Long.slots();
        let take = |uid| users.user(uid).slot(Kind::Long, &connection);
        let mut taken: Vec<_> = (0..each).map(|_| take(1).unwrap()).collect();
        let problem = take(1).unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Busy);
        assert!(problem.message.contains("nothing was done"), "{}", problem.message);
        assert!(users.user(1).slot(Kind::WayOut, &connection).is_ok());
        taken.push(take(2).unwrap());
        // A slot is free when its request has ended, even if the user's connections are closed.
        drop(taken.remove(0));
        taken.push(take(1).unwrap());
        assert_eq!(take(1).unwrap_err().kind, ProblemKind::Busy);
        drop(taken);
        assert!(take(1).is_ok());
    }

    #[test]
    fn slots_of_all_users_have_a_limit_except_pass_maps() {
        let users = Users::new();
        let connection = connection();
        let take = |uid| users.user(uid).slot(Kind::Long, &connection);
        let (each, all) = Kind::Long.slots();
        let taken: Vec<_> = (0..all).map(|index| take((index / each) as u32).unwrap()).collect();
        let problem = take(99).unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Overloaded);
        drop(taken);
        let (each, all) = Kind::WayOut.slots();
        assert!(all >= API.all, "as many as there are connections");
        assert!(each * 4 < all);
    }
}
