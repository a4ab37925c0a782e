//! Lengths of time, as command line and configuration write them.

use jiff::{SignedDuration, Span, SpanRelativeTo};

/// Parses a length of time such as `24h`, `7d` or `1h 30m`. A day has 24 hours; months and years have
/// no fixed length and are `None`, as is any other text.
#[must_use]
pub fn parse(text: &str) -> Option<SignedDuration> {
    let span: Span = text.parse().ok()?;
    span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()
}

/// Parses a length of time into seconds; `None` also if it is negative or not in whole seconds.
#[must_use]
pub fn seconds(text: &str) -> Option<u64> {
    let whole = parse(text).filter(|length| length.subsec_nanos() == 0)?;
    u64::try_from(whole.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_of_time_parses_or_is_none() {
        for (text, expected) in [
            ("0s", 0),
            ("90s", 90),
            ("30m", 1800),
            ("1h 30m", 5400),
            ("1.5h", 5400),
            ("24h", 86_400),
            ("7d", 604_800),
            ("2w", 1_209_600),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in ["", "24", "next week", "1month", "1y", "-5m", "5m ago", "1.9s", "0.5s"] {
            assert_eq!(seconds(text), None, "{text}");
        }
        assert_eq!(parse("1.9s"), Some(SignedDuration::from_millis(1900)));
        assert_eq!(parse("-5m"), Some(SignedDuration::from_mins(-5)));
    }
}
