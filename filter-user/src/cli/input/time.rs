//! Parses and formats times and durations.

use std::fmt::Display;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use crate::cli::input::error::InputError;
use crate::model::duration;

/// Parses a duration into whole seconds: `24h`, `30m`, `90s`, `7d` (a day has 24 hours) or `1h 30m`.
///
/// # Errors
/// `Duration` if the text is not a duration of at least 1 s in whole seconds.
pub fn seconds(text: &str) -> Result<u64, InputError> {
    duration::seconds(text)
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| InputError::Duration(text.to_owned()))
}

/// Parses a point in time: RFC 3339, or a local date and time such as `2026-11-25 18:20`.
///
/// # Errors
/// `Time` if the text is neither.
pub fn point(text: &str) -> Result<Timestamp, InputError> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let local = text.parse::<DateTime>().and_then(|time| TimeZone::system().to_timestamp(time));
    local.map_err(|_| InputError::Time(text.to_owned()))
}

/// Returns the time that many seconds after now.
///
/// # Errors
/// `TooFarAhead` after the last representable time.
pub fn after(seconds: u64) -> Result<Timestamp, InputError> {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| {
            Timestamp::now().checked_add(Span::new().try_seconds(seconds).ok()?).ok()
        })
        .ok_or(InputError::TooFarAhead)
}

/// Parses a point in time, or a duration before now.
///
/// # Errors
/// `Since` if the text is neither; `TooFarBack` before the first representable time.
pub fn since(text: &str) -> Result<Timestamp, InputError> {
    if let Ok(seconds) = seconds(text) {
        let before = Span::new().try_seconds(i64::try_from(seconds).unwrap_or(i64::MAX));
        return before
            .and_then(|before| Timestamp::now().checked_sub(before))
            .map_err(|_| InputError::TooFarBack(text.to_owned()));
    }
    point(text).map_err(|_| InputError::Since(text.to_owned()))
}

/// Formats a time in the local zone: `2026-11-25 18:20:00 +07`.
pub fn local(time: Timestamp) -> impl Display {
    time.to_zoned_datetime(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %:::z")
}

/// Formats the distance from now: `in 24 h`, `3 min ago`, `now`; at most two units, rounded.
#[must_use]
pub fn distance(time: Timestamp, now: Timestamp) -> String {
    let seconds = time.duration_since(now).as_millis();
    // Rounds to the nearest second: an answer is some milliseconds old when it is read.
    let seconds = (seconds + if seconds < 0 { -500 } else { 500 }) / 1000;
    let text = in_words(seconds.unsigned_abs());
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("in {text}"),
        _ => format!("{text} ago"),
    }
}

/// Formats a duration in seconds: `45 s`, `30 min`, `1 h 30 min`, `6 d 2 h`.
fn in_words(seconds: u128) -> String {
    let two = |great: u128, name: &str, small: u128, unit: &str| match small {
        0 => format!("{great} {name}"),
        _ => format!("{great} {name} {small} {unit}"),
    };
    let minutes = (seconds + 30) / 60;
    let hours = (minutes + 30) / 60;
    if seconds < 100 {
        format!("{seconds} s")
    } else if minutes < 100 {
        format!("{minutes} min")
    } else if minutes < 48 * 60 {
        two(minutes / 60, "h", minutes % 60, "min")
    } else {
        two(hours / 24, "d", hours % 24, "h")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in
            [("24h", 86_400), ("30m", 1800), ("90s", 90), ("7d", 604_800), ("1h 30m", 5400)]
        {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in ["", "24", "0s", "-5m", "5m ago", "1month", "0.5s", "next week", "1y"] {
            let error = seconds(text).unwrap_err().to_string();
            assert!(error.contains("30m, 24h or 7d"), "{text}: {error}");
        }
    }

    #[test]
    fn points_in_time() {
        let utc: Timestamp = "2026-11-25T11:20:00Z".parse().unwrap();
        assert_eq!(point("2026-11-25T18:20:00+07:00"), Ok(utc));
        // A local time in the zone of this machine.
        let expected =
            TimeZone::system().to_timestamp(jiff::civil::date(2026, 11, 25).at(18, 20, 0, 0));
        assert_eq!(point("2026-11-25 18:20"), Ok(expected.unwrap()));
        assert!(point("24h").unwrap_err().to_string().contains("not a time such as"));
        assert!(point("25.11.2026").is_err());
    }

    #[test]
    fn since_takes_both() {
        assert_eq!(since("2026-11-25T11:20:00Z"), point("2026-11-25T11:20:00Z"));
        let hour = since("1h").unwrap();
        let ago = Timestamp::now().duration_since(hour).as_secs();
        assert!((3600..4000).contains(&ago), "{ago}");
        assert!(since("999999999h").is_err());
        assert!(since("yesterday").unwrap_err().to_string().contains("not a duration such as 1h"));
    }

    #[test]
    fn distances() {
        let now: Timestamp = "2026-11-25T11:20:00Z".parse().unwrap();
        for (time, expected) in [
            ("2026-11-26T11:19:59.9Z", "in 24 h"),
            ("2026-12-02T11:20:00Z", "in 7 d"),
            ("2026-11-28T13:20:00Z", "in 3 d 2 h"),
            ("2026-11-25T13:50:20Z", "in 2 h 30 min"),
            ("2026-11-25T11:50:00Z", "in 30 min"),
            ("2026-11-25T11:21:00Z", "in 60 s"),
            ("2026-11-25T11:20:00.1Z", "now"),
            ("2026-11-25T11:17:00Z", "3 min ago"),
        ] {
            assert_eq!(distance(time.parse().unwrap(), now), expected);
        }
    }
}
