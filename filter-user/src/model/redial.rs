//! Settings of the redial grant, which lets a blocked caller through who keeps calling.

use std::fmt;
use std::str::FromStr;

use filter_common::abi::Block;
use filter_common::decide::separation;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::duration;

/// Shortest and longest window and grant, in seconds.
const SECONDS: std::ops::RangeInclusive<u32> = 60..=24 * 60 * 60;
/// Attempts that can open a grant. The first cannot: the block would have no effect.
const ATTEMPTS: std::ops::RangeInclusive<u8> = 2..=8;

/// Reasons why a redial setting is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedialError {
    /// A number of attempts other than 0 and 2 to 8.
    #[error("attempts: 2 to 8, or 0 for no redial grant")]
    Attempts,
    /// A window or grant other than 1 min to 24 h in whole seconds: its name and text.
    #[error("{0}: {1:?} is not 1m to 24h, in whole seconds")]
    Seconds(String, String),
    /// A block's own number of attempts other than 2 to 8.
    #[error("redial: 2 to 8 attempts; to switch it off use no_redial")]
    OwnAttempts,
    /// A block's own window or grant other than 60 to 86,400 s.
    #[error("redial: window and grant must each be 60 to 86400 seconds")]
    OwnSeconds,
    /// A text without three parts.
    #[error("{0:?} is not a redial setting such as 3/10m/30m")]
    Parts(String),
    /// A first part that is not a number.
    #[error("{0:?} is not a number of attempts (2 to 8)")]
    NotANumber(String),
}

/// The `attempts`-th separate attempt within the window passes and opens a grant. Written as
/// `3/10m/30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RedialPolicy {
    /// The separate attempt that opens a grant, 2 to 8; 0: no grant.
    pub attempts: u8,
    /// Length of the window from the first attempt, in seconds, 60 to 86,400.
    pub window: u32,
    /// Length of the grant in seconds, 60 to 86,400.
    pub grant: u32,
}

impl Default for RedialPolicy {
    fn default() -> RedialPolicy {
        // Two, not the usual three: a simulated year then loses fewer emergencies and lets nine more
        // pranks a day through (docs/policy.md).
        RedialPolicy { attempts: 2, window: 10 * 60, grant: 30 * 60 }
    }
}

impl RedialPolicy {
    /// Returns after how many seconds the kernel takes attempts for separate, where a trunk says `separate`. A whole number:
    /// the kernel counts up to a second less.
    #[must_use]
    pub fn separation(self, separate: u32) -> u32 {
        let nanoseconds =
            separation(separate, u64::from(self.window) * 1_000_000_000, self.attempts);
        u32::try_from(nanoseconds.div_ceil(1_000_000_000)).unwrap_or(separate)
    }

    /// Checks a number of attempts: 0 or 2 to 8.
    ///
    /// # Errors
    /// [`RedialError::Attempts`] for any other number.
    pub fn check_attempts(attempts: i64) -> Result<u8, RedialError> {
        match u8::try_from(attempts) {
            Ok(attempts) if attempts == 0 || ATTEMPTS.contains(&attempts) => Ok(attempts),
            Ok(_) | Err(_) => Err(RedialError::Attempts),
        }
    }

    /// Parses the length of a window or a grant, such as `10m`, into seconds.
    ///
    /// # Errors
    /// [`RedialError::Seconds`] with this `name` if it is not 1 min to 24 h in whole seconds.
    pub fn check_seconds(name: &str, text: &str) -> Result<u32, RedialError> {
        duration::seconds(text)
            .and_then(|seconds| u32::try_from(seconds).ok())
            .filter(|seconds| SECONDS.contains(seconds))
            .ok_or_else(|| RedialError::Seconds(name.to_owned(), text.to_owned()))
    }

    /// Reads the settings of a block's map value.
    #[must_use]
    pub fn of(block: &Block) -> RedialPolicy {
        RedialPolicy {
            attempts: block.redial_attempts,
            window: block.redial_window,
            grant: block.redial_grant,
        }
    }

    /// Writes the settings into a block's map value.
    pub fn put(self, block: &mut Block) {
        block.redial_attempts = self.attempts;
        block.redial_window = self.window;
        block.redial_grant = self.grant;
    }

    /// Checks settings that a block has of its own.
    ///
    /// # Errors
    /// [`RedialError::OwnAttempts`] or [`RedialError::OwnSeconds`] for a value out of range.
    pub fn check(self) -> Result<(), RedialError> {
        if !ATTEMPTS.contains(&self.attempts) {
            return Err(RedialError::OwnAttempts);
        }
        if !SECONDS.contains(&self.window) || !SECONDS.contains(&self.grant) {
            return Err(RedialError::OwnSeconds);
        }
        Ok(())
    }
}

impl fmt::Display for RedialPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.attempts, short(self.window), short(self.grant))
    }
}

impl FromStr for RedialPolicy {
    type Err = RedialError;

    fn from_str(text: &str) -> Result<RedialPolicy, RedialError> {
        let parts: Vec<_> = text.split('/').collect();
        let [attempts, window, grant] = parts[..] else {
            return Err(RedialError::Parts(text.to_owned()));
        };
        let redial = RedialPolicy {
            attempts: attempts.parse().map_err(|_| RedialError::NotANumber(attempts.to_owned()))?,
            window: RedialPolicy::check_seconds("window", window)?,
            grant: RedialPolicy::check_seconds("grant", grant)?,
        };
        redial.check().map(|()| redial)
    }
}

/// Formats seconds in the largest exact unit: `90s`, `10m`, `24h`.
#[must_use]
pub fn short(seconds: u32) -> String {
    match seconds {
        seconds if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        seconds if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn redial_setting_parses_or_returns_the_reason() {
        let default: RedialPolicy = "2/10m/30m".parse().unwrap();
        assert_eq!(default, RedialPolicy::default());
        let long: RedialPolicy = "8/24h/90s".parse().unwrap();
        assert_eq!((long.attempts, long.window, long.grant), (8, 86_400, 90));
        assert_eq!(long.to_string(), "8/24h/90s");
        for (text, part) in [
            ("3/10m", "such as 3/10m/30m"),
            ("", "such as 3/10m/30m"),
            ("1/10m/30m", "2 to 8 attempts"),
            ("0/10m/30m", "to switch it off use no_redial"),
            ("9/10m/30m", "2 to 8 attempts"),
            ("-3/10m/30m", "not a number of attempts"),
            ("3/59s/30m", "window: \"59s\""),
            ("3/10m/25h", "grant: \"25h\""),
            ("3/10m/1month", "grant: \"1month\""),
            ("3/10/30m", "window: \"10\""),
        ] {
            let error = text.parse::<RedialPolicy>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn printed_setting_parses_as_the_same(
            attempts in 2u8..=8, window in 60u32..=86_400, grant in 60u32..=86_400,
        ) {
            let redial = RedialPolicy { attempts, window, grant };
            prop_assert_eq!(redial.to_string().parse(), Ok(redial));
        }
    }
}
