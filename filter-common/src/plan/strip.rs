//! Prefixes that a carrier puts before numbers, and that are removed before the plan reads them.

use super::{Context, DIALLED_MAX, Dialled, Plan, STRIP_DIGITS_MAX};
use crate::number::{DIGITS_MAX, Digits};

/// All digits that count are kept ([`Dialled::count`]).
const _: () = assert!(DIALLED_MAX + STRIP_DIGITS_MAX <= 32);

impl Plan {
    /// Returns the digits without the prefix that is removed, and the length of that prefix; `None` if nothing is
    /// removed. Host only.
    #[must_use]
    pub fn stripped(&self, dialled: &Dialled) -> Option<(u32, Dialled)> {
        let len = self.strip_of(dialled);
        (len != 0).then_some((len, Dialled { count: dialled.count - len, ..*dialled }))
    }

    /// Returns the length of the prefix that is removed; 0: none. A local number keeps it, and so does a number
    /// whose place is named.
    pub(super) fn strip_of(&self, dialled: &Dialled) -> u32 {
        if dialled.plus || dialled.context != Context::None {
            return 0;
        }
        let top = Digits(dialled.top() & !0xF | DIGITS_MAX as u64);
        for prefix in &self.strip {
            let rest = dialled.count.wrapping_sub(prefix.len());
            if !prefix.is_empty()
                && rest <= DIALLED_MAX
                && rest > self.short_digits as u32
                && top.starts_with(*prefix)
            {
                return prefix.len();
            }
        }
        0
    }
}
