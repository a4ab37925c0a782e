//! The reasons that a finding names.

/// Reasons that are named.
const NAMED: usize = 3;

/// Names the most frequent reasons with their calls: `ambiguous-number 6, bad-header 3`.
#[must_use]
pub fn most_frequent<'a>(calls: impl IntoIterator<Item = (&'a str, u64)>) -> String {
    let mut calls: Vec<_> = calls.into_iter().collect();
    calls.sort_unstable_by_key(|(reason, calls)| (std::cmp::Reverse(*calls), *reason));
    let named = calls.iter().take(NAMED).map(|(reason, calls)| format!("{reason} {calls}"));
    named.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_frequent_reasons_come_first() {
        let calls = [("no-user", 1), ("bad-header", 4), ("headers-cut", 9), ("extension", 4)];
        assert_eq!(most_frequent(calls), "headers-cut 9, bad-header 4, extension 4");
        assert_eq!(most_frequent([]), "");
    }
}
