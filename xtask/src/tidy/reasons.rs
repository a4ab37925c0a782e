//! A reason's number never gets another name, also after the reason is gone: counters, call records
//! and audit rows of other versions carry the number.

use std::collections::BTreeMap;

use super::finding::Finding;
use super::rust::{Kind, lex};
use super::tree::Tree;

const CHECK: &str = "reason";

/// The table of reasons.
const TABLE: &str = "filter-common/src/reason.rs";
/// Every number that a reason ever had, with its name: lines `47 = "blocked-number"`.
pub const LIST: &str = "xtask/tidy/reasons.toml";

/// A reason in the table.
struct Reason {
    number: u64,
    name: String,
    line: usize,
}

/// Returns the reasons whose number or name is another one's, and those that the list lacks.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let Some(table) = tree.file(TABLE) else { return Vec::new() };
    let list = match list(tree) {
        Ok(list) => list,
        Err(finding) => return vec![finding],
    };
    let reasons = reasons(&table.text);
    if reasons.is_empty() {
        let what = "no reason was found in this file";
        return vec![Finding::new(CHECK, TABLE, 1, what, "mend `xtask/src/tidy/reasons.rs`")];
    }
    let findings = reasons.iter().filter_map(|Reason { number, name, line }| {
        let (what, advice) = match list.get(number) {
            Some(listed) if listed == name => return None,
            Some(listed) => (
                format!("reason number {number} is \"{listed}\" forever, not \"{name}\""),
                format!("give \"{name}\" a number that {LIST} does not have"),
            ),
            None if list.values().any(|listed| listed == name) => (
                format!("the name \"{name}\" belonged to another reason number"),
                "keep its number, or find another name".to_owned(),
            ),
            None => (
                format!("reason {number} \"{name}\" is not in {LIST}"),
                "run `cargo xtask tidy --update`".to_owned(),
            ),
        };
        Some(Finding::new(CHECK, TABLE, *line, what, advice))
    });
    findings.collect()
}

/// Returns the text of the list with the reasons that it lacks; `None` when it lacks none.
pub fn update(tree: &Tree) -> Option<String> {
    let (table, list) = (tree.file(TABLE)?, list(tree).ok()?);
    let mut all = list.clone();
    for Reason { number, name, .. } in reasons(&table.text) {
        if !list.values().any(|listed| *listed == name) {
            all.entry(number).or_insert(name);
        }
    }
    if all == list {
        return None;
    }
    let mut text = "\
# Every number that a reason ever had, and its name. Nothing is ever removed or changed here: other
# versions wrote these numbers into counters, call records and audit rows.
# A new reason is added by `cargo xtask tidy --update`.
"
    .to_owned();
    for (number, name) in &all {
        text += &format!("{number} = {name:?}\n");
    }
    Some(text)
}

/// Returns the listed reasons, or the finding that the list cannot be read.
fn list(tree: &Tree) -> Result<BTreeMap<u64, String>, Finding> {
    let Some(file) = tree.file(LIST) else { return Ok(BTreeMap::new()) };
    let wrong = |what: &str| Finding::new(CHECK, LIST, 1, what, "write lines like 47 = \"name\"");
    let table: BTreeMap<String, String> =
        toml::from_str(&file.text).map_err(|error| wrong(error.message()))?;
    let entries = table.into_iter().map(|(number, name)| match number.parse() {
        Ok(number) => Ok((number, name)),
        Err(_) => Err(wrong(&format!("\"{number}\" is not a reason number"))),
    });
    entries.collect()
}

/// Returns the entries `Name = 47, "name", Fate;` of the table.
fn reasons(text: &str) -> Vec<Reason> {
    let tokens: Vec<_> = lex(text).into_iter().filter(|token| !token.is_comment()).collect();
    let entries = tokens.windows(8).filter_map(|window| {
        let [variant, equal, number, comma, name, second, fate, end] = window else { return None };
        let is_entry = variant.kind == Kind::Word
            && equal.is("=")
            && number.kind == Kind::Number
            && comma.is(",")
            && name.kind == Kind::Text
            && second.is(",")
            && fate.kind == Kind::Word
            && end.is(";");
        if !is_entry {
            return None;
        }
        let name = name.text.trim_matches('"').to_owned();
        Some(Reason { number: number.text.parse().ok()?, name, line: variant.line })
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REASONS: &str =
        "reasons! {\n/// Old.\nOld = 7, \"old\", Pass;\nNew = 9, \"new\", Refuse;\n}";

    fn found(list: &str) -> Vec<String> {
        let findings = check(&Tree::of(&[(TABLE, REASONS), (LIST, list)]));
        findings.into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn check_reasons_of_the_list_are_right() {
        assert_eq!(found("7 = \"old\"\n8 = \"retired\"\n9 = \"new\"\n"), [""; 0]);
    }

    #[test]
    fn check_number_of_a_retired_reason_is_found() {
        let found = found("7 = \"old\"\n9 = \"retired\"\n");
        assert_eq!(found, ["reason number 9 is \"retired\" forever, not \"new\""]);
    }

    #[test]
    fn check_name_with_another_number_is_found() {
        let found = found("7 = \"old\"\n8 = \"new\"\n");
        assert_eq!(found, ["the name \"new\" belonged to another reason number"]);
    }

    #[test]
    fn check_table_in_another_form_is_found() {
        let findings = check(&Tree::of(&[(TABLE, "enum Reason { Old = 7 }")]));
        assert_eq!(findings.len(), 1);
    }

    #[test]
    fn update_new_reason_is_added_and_a_retired_one_stays() {
        let list = "7 = \"old\"\n8 = \"retired\"\n";
        assert_eq!(found(list), [format!("reason 9 \"new\" is not in {LIST}")]);
        let text = update(&Tree::of(&[(TABLE, REASONS), (LIST, list)])).unwrap();
        assert!(text.ends_with("7 = \"old\"\n8 = \"retired\"\n9 = \"new\"\n"));
        assert_eq!(update(&Tree::of(&[(TABLE, REASONS), (LIST, &text)])), None);
    }

    #[test]
    fn update_number_of_a_retired_reason_is_not_written() {
        let list = "7 = \"old\"\n9 = \"retired\"\n";
        assert_eq!(update(&Tree::of(&[(TABLE, REASONS), (LIST, list)])), None);
    }
}
