//! Formats values in the way that the files write them.

use jiff::SignedDuration;

use crate::model::ladder::{DAY, HOUR, MINUTE};
use crate::model::policy::Subject;

/// Formats the call-back grace: `60m`, `90s`; `0` is off.
pub(crate) fn grace(seconds: u32) -> String {
    match seconds {
        0 => "0".to_owned(),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

/// Formats a duration: `90d` if it is whole days, otherwise hours, minutes and seconds.
pub(crate) fn days(duration: SignedDuration) -> String {
    const DAY: i64 = 24 * 60 * 60;
    match duration.as_secs() {
        seconds if seconds % DAY == 0 && duration.subsec_nanos() == 0 => {
            format!("{}d", seconds / DAY)
        }
        _ => format!("{duration:#}"),
    }
}

/// Formats a number or prefix so that it has only one reading.
pub(crate) fn subject(subject: Subject) -> String {
    match subject {
        Subject::Number(number) if number.is_local() => number.to_string(),
        Subject::Number(_) | Subject::Prefix(_) => format!("+{subject}"),
    }
}

/// Formats seconds in the largest exact unit: `24h`, `3d`; one day is `24h`.
#[must_use]
pub fn length(seconds: u64) -> String {
    match seconds {
        s if s > DAY && s.is_multiple_of(DAY) => format!("{}d", s / DAY),
        s if s.is_multiple_of(HOUR) => format!("{}h", s / HOUR),
        s if s.is_multiple_of(MINUTE) => format!("{}m", s / MINUTE),
        s => format!("{s}s"),
    }
}
