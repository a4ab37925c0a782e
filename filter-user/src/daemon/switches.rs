//! TODO-DOC

use crate::api::wire::{Persisted, Problem};
use crate::daemon::order::{Key, Later, Turn};
use crate::daemon::state::{Control, with_mode};
use crate::inspect;
use crate::store::Entry;
use crate::sys::clock;
use filter_common::abi::{MODE_ENFORCE, MODE_OBSERVE, TOMBSTONE};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::sync::PoisonError;

/// Keys of the store's state.
pub const OVERRIDE: &str = "override";

/// See [`OVERRIDE`].
pub const MODE: &str = "mode";

/// Hands an override to the store's thread that the map has already; without an entry it is no
/// news.
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

/// Hands a mode to the store's thread that the map has already.
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

/// What the store keeps of the override.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoredOverride {
    /// Until when; null: off.
    pub until: Option<Timestamp>,
    /// Since when; null: not known.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// What the map has, which tells it from one that somebody else set there.
    #[serde(default)]
    pub deadline: Option<u64>,
    /// Why.
    pub reason: String,
    /// Who.
    pub author: String,
}

impl StoredOverride {
    /// The audit's record of it.
    #[must_use]
    pub fn entry(&self, action: &str) -> Entry {
        Entry::new(clock::now(), &self.author, action)
            .with("reason", self.reason.as_str())
            .with("until", json!(self.until))
    }

    /// Whether it is the one with this deadline in the map.
    #[must_use]
    pub fn is(&self, deadline: u64) -> bool {
        self.deadline == Some(deadline) || self.ends_with(deadline)
    }

    /// Whether it ends with this deadline by the wall clock, which somebody may have set since.
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

/// What the store keeps of the mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoredMode {
    /// Enforce, or observe.
    pub enforce: bool,
    /// Since when.
    pub since: Option<Timestamp>,
    /// When enforce falls back to observe.
    pub until: Option<Timestamp>,
}

impl Control {
    /// Puts a mode into force.
    ///
    /// # Errors
    /// A failing system call.
    pub fn write_mode(&self, turn: &Turn<'_>, stored: &StoredMode) -> Result<(), Problem> {
        let now = clock::now();
        let until = match stored.since {
            // Tells it from maps that nobody has set a mode in.
            Some(_) if !stored.enforce => TOMBSTONE,
            since => clock::kernel_expiry(since.unwrap_or(now), stored.until, now),
        };
        let mode = if stored.enforce { MODE_ENFORCE } else { MODE_OBSERVE };
        self.write_settings(turn, &self.config().policy, mode, until)
    }

    /// Ends enforcing at this boot time at the latest.
    ///
    /// # Errors
    /// A failing system call.
    pub fn end_enforce(&self, turn: &Turn<'_>, until: u64) -> Result<(), Problem> {
        let (mode, before) = self.mode_in_force(turn)?;
        let until = if before == 0 { until } else { before.min(until) };
        self.write_settings(turn, &self.config().policy, mode, until)
    }

    /// The mode and the end of enforcing that the daemon put into force, or found at its start.
    ///
    /// # Errors
    /// A failing system call.
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

    /// Writes what the maps lack of the settings in force: mode, ports, trunks, profiles and
    /// protected numbers. How many of settings and protected entries were wrong.
    ///
    /// # Errors
    /// A failing system call.
    pub fn reconcile_settings(&self) -> Result<u64, Problem> {
        let turn = self.order.turn();
        let config = self.config();
        let (mode, until) = self.mode_in_force(&turn)?;
        let wrong = self.maps.wrong_protected(&config.policy.protected)?;
        if wrong > 0 {
            tracing::warn!("{wrong} protected entries were changed without the daemon");
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
