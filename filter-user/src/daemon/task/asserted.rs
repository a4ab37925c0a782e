//! Watches for trunks that read `From` although they assert another caller. `P-Asserted-Identity` alone names a
//! caller who hides the number, and a block misses that caller.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use filter_common::abi::{EVENT_PAI_IGNORED, EventEntry};
use filter_common::reason::Reason;

use crate::daemon::task::last_hour::LastHour;
use crate::model::plan::asserted::names_other;
use crate::model::policy::Trunk;

/// Fewer such calls are no finding: a forwarded call now and then has two numbers, too.
const CALLS_MIN: u64 = 5;

/// Calls of each trunk, by its name.
type Counts = BTreeMap<String, u64>;

/// The calls whose `P-Asserted-Identity` names another caller than `From`, since the start of the daemon.
#[derive(Clone, Default)]
pub struct Asserted(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    total: Counts,
    /// The totals of each minute.
    minutes: LastHour<Counts>,
}

impl Asserted {
    /// Counts a call of a trunk if it is one of these.
    pub fn take(&self, entry: &EventEntry, trunk: &Trunk) {
        let event = &entry.event;
        if event.flags & EVENT_PAI_IGNORED == 0 {
            return;
        }
        let is_withheld = Reason::from_number(event.reason).is_some_and(Reason::is_without_number);
        let value = entry.ignored_pai();
        if is_withheld || names_other(value, event.number, &trunk.profile.plan) {
            *self.lock().total.entry(trunk.name.clone()).or_default() += 1;
        }
    }

    /// Begins another minute.
    pub fn tick(&self) {
        let mut state = self.lock();
        let total = state.total.clone();
        state.minutes.keep(total);
    }

    /// Returns the calls of each trunk since the start.
    pub fn total(&self) -> Counts {
        self.lock().total.clone()
    }

    /// Returns the calls of each trunk in the last hour, or since the start; only trunks with enough of them
    /// for a finding.
    pub fn last_hour(&self) -> Counts {
        let state = self.lock();
        let oldest = state.minutes.oldest();
        let before = |trunk| oldest.and_then(|oldest| oldest.get(trunk)).copied().unwrap_or(0);
        let counts =
            state.total.iter().map(|(trunk, count)| (trunk.clone(), count - before(trunk)));
        counts.filter(|(_, count)| *count >= CALLS_MIN).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use filter_common::abi::{CALL_ID_EVENT_MAX, Event, UNREAD_MAX};
    use filter_common::number::{Digits, Number};

    use super::*;
    use crate::daemon::task::last_hour::MINUTES;
    use crate::model::policy::Policy;

    fn call(reason: Reason, flags: u8, value: &str) -> EventEntry {
        let number = match reason.is_unread() {
            true => Number::NONE,
            false => Number::e164(Digits::parse("6281200000001").unwrap()),
        };
        let mut unread = [0; UNREAD_MAX];
        unread[..value.len()].copy_from_slice(value.as_bytes());
        EventEntry {
            event: Event { number, flags, reason: reason as u8, ..Event::default() },
            call_id: [0; CALL_ID_EVENT_MAX],
            unread,
            unread_len: value.len() as u64,
        }
    }

    #[test]
    fn calls_that_name_two_callers_are_counted() {
        let trunk = &Policy::default().trunks[0];
        let asserted = Asserted::default();
        asserted.tick();
        let other = "<tel:+6281200000002>";
        for (reason, flags, value) in [
            (Reason::NotBlocked, 0, ""),
            (Reason::NotBlocked, EVENT_PAI_IGNORED, "<tel:+6281200000001>"),
            (Reason::NotBlocked, EVENT_PAI_IGNORED, "<sip:siti@x>"),
            (Reason::BadHeader, EVENT_PAI_IGNORED, "Siti, <sip:1@x>"),
            (Reason::NotANumber, 0, "<sip:anonymous@x>"),
        ] {
            asserted.take(&call(reason, flags, value), trunk);
        }
        assert_eq!(asserted.total(), Counts::new());
        for _ in 0..2 {
            asserted.take(&call(Reason::NotBlocked, EVENT_PAI_IGNORED, other), trunk);
            let hidden = call(Reason::NotANumber, EVENT_PAI_IGNORED, "<sip:anonymous@x>");
            asserted.take(&hidden, trunk);
        }
        assert_eq!(asserted.total(), Counts::from([("default".to_owned(), 4)]));
        assert_eq!(asserted.last_hour(), Counts::new(), "too few");
        asserted.take(&call(Reason::NotBlocked, EVENT_PAI_IGNORED, other), trunk);
        assert_eq!(asserted.last_hour(), Counts::from([("default".to_owned(), 5)]));
        for _ in 0..=MINUTES {
            asserted.tick();
        }
        assert_eq!(asserted.last_hour(), Counts::new(), "an hour ago");
        assert_eq!(asserted.total()["default"], 5);
    }
}
