//! The presets of all countries, from the metadata of libphonenumber (`table.rs`).

use crate::model::plan::preset::Preset;
use crate::model::plan::table;

/// Returns the preset of a country (ISO 3166-1 alpha-2, in any case); `None` without one.
#[must_use]
pub fn of(country: &str) -> Option<&'static Preset> {
    all().iter().find(|preset| preset.country.eq_ignore_ascii_case(country))
}

/// Returns all presets by country.
#[must_use]
pub fn all() -> &'static [Preset] {
    table::PRESETS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::plan::lengths;

    #[test]
    fn presets_of_the_page_are_those_of_the_table() {
        let page = include_str!("../../../../docs/plans.md");
        let mut rows = 0;
        for preset in all() {
            let formats: Vec<_> = preset.formats.iter().map(|format| format.name()).collect();
            let prefix = if preset.trunk_prefix.is_empty() { "–" } else { preset.trunk_prefix };
            let international = preset.international.join(" ");
            let row =
                format!("| {} | {prefix} | {international} | {} |", preset.code, formats.join(" "));
            let start = format!("| {} ", preset.country);
            if let Some(line) = page.lines().find(|line| line.starts_with(&start)) {
                assert!(line.ends_with(&row), "docs/plans.md: {line} has to end with {row}");
                rows += 1;
            }
        }
        assert!(rows >= 40, "{rows}");
    }

    #[test]
    fn each_text_of_the_table_is_read() {
        for preset in all() {
            let plan = preset.plan();
            let international = plan.international.iter().filter(|prefix| !prefix.is_empty());
            assert_eq!(international.count(), preset.international.len(), "{}", preset.country);
            assert_eq!(lengths::texts(&plan.no_lengths), preset.lengths, "{}", preset.country);
            assert_eq!(plan.country.to_string(), preset.code);
            assert_eq!(plan.trunk_prefix.to_string(), preset.trunk_prefix);
        }
        assert_eq!(of("id"), of("ID"));
        assert_eq!(of("XX"), None);
    }
}
