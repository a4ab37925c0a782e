//! Why a value on the command line is not valid.

/// Why a value is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// The number is empty.
    #[error("the number is empty: write it like 0812-3456-7890")]
    EmptyNumber,
    /// The text is not a duration of at least 1 s in whole seconds.
    #[error("{0:?} is not a duration such as 30m, 24h or 7d")]
    Duration(String),
    /// The text is not a point in time.
    #[error("{0:?} is not a time such as '2026-11-25 18:20' or 2026-11-25T11:20:00Z")]
    Time(String),
    /// The text is neither a point in time nor a duration.
    #[error(
        "{0:?} is not a time such as '2026-11-25 18:20' or 2026-11-25T11:20:00Z, and not a duration \
         such as 1h"
    )]
    Since(String),
    /// The duration goes beyond the last time that can be represented.
    #[error("the length is too long for a date: give a shorter one")]
    TooFarAhead,
    /// The duration goes back beyond the first time that can be represented.
    #[error("{0:?} ago is too far in the past")]
    TooFarBack(String),
}
