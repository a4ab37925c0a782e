//! Stores the override and the mode, and writes the mode into the maps.

use std::sync::PoisonError;

use filter_common::abi::{MODE_ENFORCE, MODE_OBSERVE, TOMBSTONE};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::api::wire::{Persisted, Problem};
use crate::daemon::order::{Key, Later, Turn};
use crate::daemon::state::{Control, with_mode};
use crate::inspect;
use crate::store::Entry;
use crate::sys::clock;

/// Keys of the store's state.
pub const OVERRIDE: &str = "override";

/// See [`OVERRIDE`].
pub const MODE: &str = "mode";

/// Hands an override that the map has to the store's thread. Without an entry the audit gets no
/// record.
pub fn keep_override(
    turn: Turn<'_>,
    place: u64,
    action: &str,
    stored: StoredOverride,
    entry: Option<Entry>,
) -> impl Future<Output = Persisted> + use<> {
    let later = Later::new(place, action, &stored.author);
    turn.keep(Key::Override, later, move |store| store.set_state(OVERRIDE, &stored, entry.clone()))
}

/// Hands a mode that the map has to the store's thread.
pub fn keep_mode(
    turn: Turn<'_>,
    place: u64,
    action: &str,
    author: &str,
    stored: StoredMode,
    entry: Entry,
) -> impl Future<Output = Persisted> + use<> {
    let later = Later::new(place, action, author);
    turn.keep(Key::Mode, later, move |store| store.set_state(MODE, &stored, Some(entry.clone())))
}

/// The override as the store has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoredOverride {
    /// The end; null: off.
    pub until: Option<Timestamp>,
    /// The beginning; null: not known.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// The deadline in the map. It identifies the override that this daemon set.
    #[serde(default)]
    pub deadline: Option<u64>,
    /// The reason.
    pub reason: String,
    /// The user who set it.
    pub author: String,
}

impl StoredOverride {
    /// Creates the audit record of the override.
    #[must_use]
    pub fn entry(&self, action: &str) -> Entry {
        Entry::new(clock::now(), &self.author, action)
            .with("reason", self.reason.as_str())
            .with("until", json!(self.until))
    }

    /// Returns whether this override has that deadline in the map.
    #[must_use]
    pub fn is(&self, deadline: u64) -> bool {
        self.deadline == Some(deadline) || self.ends_with(deadline)
    }

    /// Returns whether this override ends with that deadline by the wall clock, which may have been
    /// set since.
    #[must_use]
    pub fn ends_with(&self, deadline: u64) -> bool {
        let stored = self.until.filter(|until| *until > Timestamp::now());
        match (stored, inspect::live(deadline).map(clock::wall)) {
            (None, None) => true,
            // Converting between clocks is not exact.
            (Some(stored), Some(in_map)) => {
                in_map.duration_since(stored).abs() < SignedDuration::from_secs(2)
            }
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

/// The mode as the store has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoredMode {
    /// Enforce, or observe.
    pub enforce: bool,
    /// The beginning.
    pub since: Option<Timestamp>,
    /// The time at which enforce falls back to observe.
    pub until: Option<Timestamp>,
}

impl Control {
    /// Puts a mode into force.
    ///
    /// # Errors
    /// [`Problem`] of the kind `Failed` if a system call fails.
    pub fn write_mode(&self, turn: &Turn<'_>, stored: &StoredMode) -> Result<(), Problem> {
        let now = clock::now();
        let until = match stored.since {
            // Distinguishes it from maps in which no mode was ever set.
            Some(_) if !stored.enforce => TOMBSTONE,
            since => clock::kernel_expiry(since.unwrap_or(now), stored.until, now),
        };
        let mode = if stored.enforce { MODE_ENFORCE } else { MODE_OBSERVE };
        self.write_settings(turn, &self.config().policy, mode, until)
    }

    /// Ends enforcing at this boot time at the latest.
    ///
    /// # Errors
    /// [`Problem`] of the kind `Failed` if a system call fails.
    pub fn end_enforce(&self, turn: &Turn<'_>, until: u64) -> Result<(), Problem> {
        let (mode, before) = self.mode_in_force(turn)?;
        let until = if before == 0 { until } else { before.min(until) };
        self.write_settings(turn, &self.config().policy, mode, until)
    }

    /// Returns the mode and the end of enforcing that the daemon put into force, or found at its
    /// start.
    ///
    /// # Errors
    /// [`Problem`] of the kind `Failed` if a system call fails.
    pub fn mode_in_force(&self, _turn: &Turn<'_>) -> Result<(u8, u64), Problem> {
        let known = *self.mode.lock().unwrap_or_else(PoisonError::into_inner);
        match known {
            Some(known) => Ok(known),
            None => {
                let settings = self.maps.settings()?;
                Ok((settings.mode, settings.enforce_until))
            }
        }
    }

    /// Repairs the settings in the maps: mode, ports, trunks, profiles and protected numbers.
    /// Returns the number of wrong entries.
    ///
    /// # Errors
    /// [`Problem`] of the kind `Failed` if a system call fails.
    pub fn reconcile_settings(&self) -> Result<u64, Problem> {
        let turn = self.order.turn();
        let config = self.config();
        let (mode, until) = self.mode_in_force(&turn)?;
        let wrong = self.maps.wrong_protected(&config.policy.protected)?;
        if wrong > 0 {
            tracing::warn!(entries = wrong, "protected entries were changed without the daemon");
            self.maps.set_protected(&config.policy.protected)?;
        }
        if self.maps.has_settings(&with_mode(&config.policy, mode, until))? {
            return Ok(wrong);
        }
        tracing::warn!("mode, ports, trunks or profiles were changed without the daemon");
        self.write_settings(&turn, &config.policy, mode, until)?;
        Ok(wrong + 1)
    }
}
