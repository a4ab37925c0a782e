//! Reads `strip_prefixes`: digits that a carrier puts before numbers, and that are removed.
//!
//! No number may begin with such a prefix by itself: it would be read as another number, and a block would refuse a
//! stranger. So only formats are permitted whose texts begin with a known prefix.

use filter_common::plan::{FORMAT_NATIONAL, FORMAT_OWN_E164, Plan, Prefix};

use crate::model::plan::format::Format;

/// Returns what is wrong with the prefixes of a plan, of which all other settings were read before.
pub(crate) fn mistake(plan: &Plan) -> Option<String> {
    let used = || plan.strip.iter().filter(|prefix| !prefix.is_empty());
    used().next()?;
    let unfit: Vec<_> = Format::of_bits(plan.formats & !(FORMAT_OWN_E164 | FORMAT_NATIONAL))
        .map(|format| format!("{:?}", format.name()))
        .collect();
    if !unfit.is_empty() {
        return Some(format!(
            "numbers in the format {} can begin with any digits; set formats to \"own-e164\", \"national\" or both",
            unfit.join(" or ")
        ));
    }
    for (index, prefix) in used().enumerate() {
        let collides = |what: &str, other: &Prefix| {
            let is_same_start = !other.is_empty() && Prefix::exact(*prefix).overlaps(other);
            is_same_start.then(|| format!("{prefix} collides with {what} {other}"))
        };
        let others = used().take(index).map(|other| ("the prefix", Prefix::exact(*other)));
        let code = (plan.formats & FORMAT_OWN_E164 != 0).then_some(plan.country);
        let trunk_prefix = (plan.formats & FORMAT_NATIONAL != 0).then_some(plan.trunk_prefix);
        let found = others
            .chain(code.map(|code| ("the country code", Prefix::exact(code))))
            .chain(trunk_prefix.map(|prefix| ("the trunk prefix", Prefix::exact(prefix))))
            .chain(plan.international.map(|prefix| ("the international prefix", prefix)))
            .find_map(|(what, other)| collides(what, &other));
        if found.is_some() {
            return found;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use filter_common::number::Digits;
    use filter_common::plan::{FORMAT_BARE_NATIONAL, FORMAT_E164};

    use super::*;
    use crate::model::plan::presets;

    fn of(formats: u8, prefixes: &[&str]) -> Option<String> {
        let mut plan = Plan { formats, ..presets::of("ID").unwrap().plan() };
        plan.international[15] = Prefix::parse("9x1").unwrap();
        for (slot, prefix) in plan.strip.iter_mut().zip(prefixes) {
            *slot = Digits::parse(prefix).unwrap();
        }
        mistake(&plan)
    }

    #[test]
    fn prefix_that_a_number_can_begin_with_is_a_mistake() {
        let both = FORMAT_OWN_E164 | FORMAT_NATIONAL;
        for (formats, prefixes, message) in [
            (FORMAT_E164, &["88"][..], "numbers in the format \"e164\" can begin with any digits"),
            (both | FORMAT_BARE_NATIONAL, &["88"], "\"bare-national\" can begin"),
            (both, &["6"], "6 collides with the country code 62"),
            (both, &["88", "01"], "01 collides with the trunk prefix 0"),
            (both, &["88", "881"], "881 collides with the prefix 88"),
            (FORMAT_OWN_E164, &["0011"], "0011 collides with the international prefix 001"),
            (FORMAT_OWN_E164, &["99"], "99 collides with the international prefix 9x1"),
        ] {
            let found = of(formats, prefixes).expect(message);
            assert!(found.contains(message), "{found}");
        }
        assert_eq!(of(both, &["88", "1001", "7"]), None);
        // A format that the trunk does not send leaves its prefix free.
        assert_eq!(of(FORMAT_NATIONAL, &["62"]), None);
        assert_eq!(of(FORMAT_E164, &[]), None);
    }
}
