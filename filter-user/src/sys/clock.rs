//! Converts between wall-clock time (UTC, for people) and boot time (for the kernel's maps).
//!
//! Boot time (`CLOCK_BOOTTIME`) continues during suspend and cannot be set. Therefore a step of the
//! wall clock does not move an expiry that is already in a map.

use std::time::Duration;

use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};
use nix::time::{ClockId, clock_gettime};

/// Returns the nanoseconds since the machine started, as `bpf_ktime_get_boot_ns` counts them.
#[must_use]
pub fn boot() -> u64 {
    // Fails only for a clock that the kernel does not have; it has this one since 2.6.39.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| {
        time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs()
    })
}

/// Returns the boot time that is `patience` from now.
#[must_use]
pub fn deadline(patience: Duration) -> u64 {
    boot().saturating_add(u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX))
}

/// Returns the current time in milliseconds, the precision of the store.
#[must_use]
pub fn now() -> Timestamp {
    to_the_millisecond(Timestamp::now())
}

fn to_the_millisecond(time: Timestamp) -> Timestamp {
    let round = TimestampRound::new().smallest(Unit::Millisecond).mode(RoundMode::Trunc);
    time.round(round).unwrap_or(time)
}

/// Converts the end of an entry to boot time; 0 means no end.
///
/// A block lasts `min(expires − now, expires − created)`: a wall clock that was set back never makes
/// it longer than intended.
#[must_use]
pub fn kernel_expiry(created: Timestamp, expires: Option<Timestamp>, now: Timestamp) -> u64 {
    let Some(expires) = expires else {
        return 0;
    };
    let life = expires.duration_since(now).min(expires.duration_since(created));
    // 0 would mean no end, so an entry that has ended gets 1 ns.
    boot().saturating_add_signed(nanoseconds(life)).max(1)
}

/// Converts a boot time to UTC by the current wall clock.
#[must_use]
pub fn wall(time: u64) -> Timestamp {
    let ago = SignedDuration::from_nanos(boot().wrapping_sub(time).cast_signed());
    // The conversion is not exact to the microsecond and must not look as if it were.
    to_the_millisecond(Timestamp::now().checked_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH))
}

/// Returns wall clock minus boot time; it changes only if the wall clock is stepped.
#[must_use]
pub fn offset() -> SignedDuration {
    let boot = SignedDuration::from_nanos(boot().cast_signed());
    Timestamp::now().duration_since(Timestamp::UNIX_EPOCH).saturating_sub(boot)
}

fn nanoseconds(duration: SignedDuration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(if duration.is_negative() {
        i64::MIN
    } else {
        i64::MAX
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn seconds(count: i64) -> SignedDuration {
        SignedDuration::from_secs(count)
    }

    /// Returns the seconds that a block lasts in the kernel.
    fn life(created: Timestamp, expires: Timestamp, now: Timestamp) -> u64 {
        kernel_expiry(created, Some(expires), now).saturating_sub(boot()).div_ceil(SECOND)
    }

    #[test]
    fn no_clock_error_lengthens_a_block() {
        let created = Timestamp::now();
        let expires = created + seconds(3600);
        assert_eq!(life(created, expires, created), 3600);
        assert_eq!(life(created, expires, created + seconds(3000)), 600);
        // The clock was set back by years.
        assert_eq!(life(created, expires, created - seconds(100_000_000)), 3600);
        // It was set forward: the block is over.
        assert_eq!(life(created, expires, created + seconds(100_000_000)), 0);
        assert_eq!(kernel_expiry(created, None, created), 0);
        assert_ne!(kernel_expiry(created, Some(created - seconds(1 << 30)), created), 0);
    }

    #[test]
    fn boot_time_converts_to_wall_time() {
        let time = boot() - 5 * SECOND;
        let ago = Timestamp::now().duration_since(wall(time));
        assert!((ago - seconds(5)).abs() < seconds(1), "{ago}");
    }
}
