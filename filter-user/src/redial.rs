//! When a blocked caller who calls again and again is let through: the redial grant's settings.

use std::fmt;
use std::str::FromStr;

use filter_common::abi::Block;
use jiff::{Span, SpanRelativeTo};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Seconds of the shortest and the longest window and grant.
const SECONDS: std::ops::RangeInclusive<u32> = 60..=24 * 60 * 60;
/// Attempts that can open a grant. The first never does: that would be no block.
const ATTEMPTS: std::ops::RangeInclusive<u8> = 2..=8;

/// The `attempts`-th separate attempt within the window passes and opens a grant. Written
/// `3/10m/30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Redial {
    /// Which separate attempt opens a grant, 2 to 8; 0: none does.
    pub attempts: u8,
    /// Seconds that the attempts may be apart from the first, 60 to 86,400.
    pub window: u32,
    /// Seconds that the grant lasts, 60 to 86,400.
    pub grant: u32,
}

impl Default for Redial {
    fn default() -> Redial {
        // Two, not the three of other practice: a simulated year loses fewer emergencies by it and
        // lets nine pranks a day more through (docs/policy.md).
        Redial { attempts: 2, window: 10 * 60, grant: 30 * 60 }
    }
}

impl Redial {
    /// Whether the attempts are what they may be: 0 or 2 to 8.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check_attempts(attempts: i64) -> Result<u8, String> {
        match u8::try_from(attempts) {
            Ok(attempts) if attempts == 0 || ATTEMPTS.contains(&attempts) => Ok(attempts),
            Ok(_) | Err(_) => Err("attempts: 2 to 8, or 0 for no redial grant".to_owned()),
        }
    }

    /// The seconds of a window or a grant, such as `10m`.
    ///
    /// # Errors
    /// What is wrong with them; `name` is the setting.
    pub fn check_seconds(name: &str, text: &str) -> Result<u32, String> {
        let wrong = || format!("{name}: {text:?} is not 1m to 24h, in whole seconds");
        let span: Span = text.parse().map_err(|_| wrong())?;
        let duration =
            span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
        match u32::try_from(duration.as_secs()) {
            Ok(seconds) if SECONDS.contains(&seconds) && duration.subsec_nanos() == 0 => {
                Ok(seconds)
            }
            Ok(_) | Err(_) => Err(wrong()),
        }
    }

    /// Gives them to a block as the kernel knows it.
    pub fn put(self, block: &mut Block) {
        block.redial_attempts = self.attempts;
        block.redial_window = self.window;
        block.redial_grant = self.grant;
    }

    /// Whether a block may have these settings of its own.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(self) -> Result<(), String> {
        if !ATTEMPTS.contains(&self.attempts) {
            return Err("redial: 2 to 8 attempts; no_redial switches it off".to_owned());
        }
        if !SECONDS.contains(&self.window) || !SECONDS.contains(&self.grant) {
            return Err("redial: window and grant are 60 to 86400 seconds each".to_owned());
        }
        Ok(())
    }
}

impl fmt::Display for Redial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.attempts, short(self.window), short(self.grant))
    }
}

impl FromStr for Redial {
    type Err = String;

    fn from_str(text: &str) -> Result<Redial, String> {
        let parts: Vec<_> = text.split('/').collect();
        let [attempts, window, grant] = parts[..] else {
            return Err(format!("{text:?} is no redial setting such as 3/10m/30m"));
        };
        let redial = Redial {
            attempts: attempts
                .parse()
                .map_err(|_| format!("{attempts:?} is no number of attempts, 2 to 8"))?,
            window: Redial::check_seconds("window", window)?,
            grant: Redial::check_seconds("grant", grant)?,
        };
        redial.check().map(|()| redial)
    }
}

/// `90s`, `10m`, `24h`: in the largest unit that is exact.
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
    fn as_people_write_it() {
        let default: Redial = "2/10m/30m".parse().unwrap();
        assert_eq!(default, Redial::default());
        let long: Redial = "8/24h/90s".parse().unwrap();
        assert_eq!((long.attempts, long.window, long.grant), (8, 86_400, 90));
        assert_eq!(long.to_string(), "8/24h/90s");
        for (text, part) in [
            ("3/10m", "such as 3/10m/30m"),
            ("", "such as 3/10m/30m"),
            ("1/10m/30m", "2 to 8 attempts"),
            ("0/10m/30m", "no_redial switches it off"),
            ("9/10m/30m", "2 to 8 attempts"),
            ("-3/10m/30m", "no number of attempts"),
            ("3/59s/30m", "window: \"59s\""),
            ("3/10m/25h", "grant: \"25h\""),
            ("3/10m/1month", "grant: \"1month\""),
            ("3/10/30m", "window: \"10\""),
        ] {
            let error = text.parse::<Redial>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_as_the_same(
            attempts in 2u8..=8, window in 60u32..=86_400, grant in 60u32..=86_400,
        ) {
            let redial = Redial { attempts, window, grant };
            prop_assert_eq!(redial.to_string().parse(), Ok(redial));
        }
    }
}
