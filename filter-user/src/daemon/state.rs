//! Holds the state that the tasks and handlers of the daemon share.
//!
//! Changes that let calls through (override, allow, the end of a block, observe) reach the kernel's
//! maps first and never wait for a disk. Changes that block are stored first, and wait for their
//! turn on the store's thread. [`crate::daemon::order`] keeps an earlier change from undoing a
//! later one.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use filter_common::abi;
use filter_common::decide::is_live;

use crate::api::wire::{Problem, ProblemKind};
use crate::config::Config;
use crate::daemon::audit_change::AuditChange;
use crate::daemon::busiest::Busiest;
use crate::daemon::chores::Chores;
use crate::daemon::map_hold::MapHold;
use crate::daemon::order::{Order, Turn};
use crate::daemon::reply_path::ReplyPath;
use crate::daemon::store_limit::StoreLimit;
use crate::daemon::store_thread::{StoreHandle, refused};
use crate::datapath;
use crate::datapath::Maps;
use crate::model::number_text;
use crate::model::policy::{Policy, Subject, Trunk};
use crate::store::{Decision, Error, Kind};
use crate::sys::clock;

/// The state of the daemon that its tasks share.
pub struct Control {
    /// The live maps.
    pub maps: Maps,
    /// Where they are pinned.
    pub folder: PathBuf,
    /// The store.
    pub store_handle: StoreHandle,
    /// The order of all changes; its lock guards what the maps hold of mode, override, blocks and
    /// allows, and the settings.
    pub order: Order,
    /// Differences between store and maps that were repaired.
    pub drift: AtomicU64,
    /// Re-attachments.
    pub reattached: AtomicU32,
    /// Callers that are refused most.
    pub busiest: Busiest,
    /// Problems of the work that the daemon does by itself.
    pub chores: Chores,
    /// Whether carriers acknowledge replies.
    pub replies: ReplyPath,
    /// Limit of the store's size.
    pub limit: StoreLimit,
    /// Whether the maps keep their entries, because the store is not their own.
    pub held: MapHold,
    /// Held while offline changes are adopted: two tasks would put the same note into the audit twice.
    pub(crate) adopting: tokio::sync::Mutex<()>,
    pub(crate) comparison: Mutex<Option<String>>,
    /// The fault of the audit.
    pub(crate) audit_change: AuditChange,
    pub(crate) config: RwLock<Arc<Config>>,
    /// Mode and end of enforcing that were put into force; `None`: those of the map.
    pub(crate) mode: Mutex<Option<(u8, u64)>>,
    pub(crate) node: String,
}

/// Returns a policy with this mode and end of enforcing.
pub(crate) fn with_mode(policy: &Policy, mode: u8, until: u64) -> Policy {
    let mut policy = policy.clone();
    policy.settings.mode = mode;
    policy.settings.enforce_until = until;
    policy
}

pub(crate) fn problem<T>(kind: ProblemKind, message: impl Into<String>) -> Result<T, Problem> {
    Err(Problem { kind, message: message.into() })
}

impl From<datapath::Error> for Problem {
    fn from(error: datapath::Error) -> Problem {
        let kind = if error.is_full() { ProblemKind::Full } else { ProblemKind::Failed };
        Problem { kind, message: error.to_string() }
    }
}

impl From<tokio::task::JoinError> for Problem {
    fn from(error: tokio::task::JoinError) -> Problem {
        Problem { kind: ProblemKind::Failed, message: error.to_string() }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        refused(&error)
    }
}

impl Control {
    /// Creates the state for loaded maps; `last_rule` is the highest number that a rule ever had.
    #[must_use]
    pub fn new(
        maps: Maps,
        folder: PathBuf,
        store_handle: StoreHandle,
        config: Config,
        node: String,
        last_rule: u64,
    ) -> Control {
        Control {
            maps,
            folder,
            order: Order::new(store_handle.clone(), last_rule),
            store_handle,
            drift: AtomicU64::new(0),
            reattached: AtomicU32::new(0),
            busiest: Busiest::default(),
            chores: Chores::default(),
            replies: ReplyPath::default(),
            limit: StoreLimit::default(),
            held: MapHold::default(),
            adopting: tokio::sync::Mutex::default(),
            comparison: Mutex::default(),
            audit_change: AuditChange::default(),
            config: RwLock::new(Arc::new(config)),
            mode: Mutex::default(),
            node,
        }
    }

    /// Returns the configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another configuration into force: ports, trunks, plans, protected numbers.
    ///
    /// # Errors
    /// [`ProblemKind::Failed`] if a map refuses it.
    pub fn set_config(&self, config: Config) -> Result<(), Problem> {
        let turn = self.order.turn();
        let (mode, until) = self.mode_in_force(&turn)?;
        self.maps.set_protected(&config.policy.protected)?;
        self.write_settings(&turn, &config.policy, mode, until)?;
        self.replies.keep_only(&config.policy.trunks);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        Ok(())
    }

    /// Lets the daemon send the replies to a trunk until another configuration is put into force. Returns `false` if the
    /// trunk refuses in silence, or names its path.
    ///
    /// # Errors
    /// [`ProblemKind::Failed`] if a map refuses it.
    pub fn answer_by_daemon(&self, trunk: &str) -> Result<bool, Problem> {
        let turn = self.order.turn();
        let mut config = Config::clone(&self.config());
        let is_it = |found: &&mut Trunk| found.name == trunk;
        let Some(found) = config.policy.trunks.iter_mut().find(is_it) else { return Ok(false) };
        if !found.answer_by_daemon() {
            return Ok(false);
        }
        let path = found.profile.reply_path;
        let (mode, until) = self.mode_in_force(&turn)?;
        self.write_settings(&turn, &config.policy, mode, until)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        self.replies.note_moved(trunk, path);
        Ok(true)
    }

    /// Returns why the last comparison of store and maps failed; `None`: it did not.
    #[must_use]
    pub fn comparison(&self) -> Option<String> {
        self.comparison.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes why a comparison failed, and logs a change.
    pub fn note_comparison(&self, problem: Option<String>) {
        let mut known = self.comparison.lock().unwrap_or_else(PoisonError::into_inner);
        match &problem {
            Some(text) if known.as_ref() != Some(text) => {
                tracing::error!(problem = %text, "store and kernel maps are out of sync");
            }
            None if known.is_some() => tracing::info!("store and kernel maps are in sync again"),
            Some(_) | None => {}
        }
        *known = problem;
    }

    /// Returns the name of this edge in decisions.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Parses a number or prefix under the plan of the profile `default`.
    ///
    /// # Errors
    /// [`ProblemKind::Usage`] if the text is not a valid number or prefix.
    pub fn subject(&self, text: &str) -> Result<Subject, Problem> {
        let plan = self.config().policy.trunks[0].profile.plan;
        number_text::typed(text, &plan)
            .map_err(|error| Problem { kind: ProblemKind::Usage, message: error.to_string() })
    }

    /// Returns the stored decision of the live allow for exactly this subject. Without a live
    /// allow, the store is not read.
    pub(crate) async fn known_allow(&self, subject: Subject) -> Result<Option<Decision>, Problem> {
        // A second try, if the allow changes meanwhile.
        for _ in 0..2 {
            let Some(there) = self.live_allow_of(subject)? else { return Ok(None) };
            let Ok(stored) = self.find_soon(Kind::Allow, subject).await else { return Ok(None) };
            if stored.as_ref().is_some_and(|stored| stored.rule == there.rule) {
                return Ok(stored);
            }
        }
        Ok(None)
    }

    /// Returns the live allow for exactly this subject.
    pub(crate) fn live_allow_of(&self, subject: Subject) -> Result<Option<abi::Allow>, Problem> {
        let now = clock::boot();
        let live = |allow: &abi::Allow| is_live(allow.expires, now);
        Ok(self.maps.pass_maps().allow(subject)?.filter(live))
    }

    /// Writes settings, ports, trunks and profiles into the maps. The caller holds the lock since
    /// before it read them.
    pub(crate) fn write_settings(
        &self,
        _turn: &Turn<'_>,
        policy: &Policy,
        mode: u8,
        until: u64,
    ) -> Result<(), Problem> {
        self.maps.set_settings(&with_mode(policy, mode, until))?;
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner) = Some((mode, until));
        Ok(())
    }

    /// Finds the stored decision about a subject, for callers that must not wait.
    pub(crate) async fn find_soon(
        &self,
        kind: Kind,
        subject: Subject,
    ) -> Result<Option<Decision>, Problem> {
        self.store_handle.read_soon(move |reader| reader.find(kind, subject)).await
    }

    /// Finds the stored decision about a subject.
    ///
    /// # Errors
    /// [`ProblemKind::Store`] if the store cannot be read.
    pub async fn find(&self, kind: Kind, subject: Subject) -> Result<Option<Decision>, Problem> {
        self.store_handle.read(move |reader| reader.find(kind, subject)).await
    }
}
