//! The layouts of `filter-common`'s `abi` change only together with `ABI_VERSION`.
//!
//! A map that an older program pinned is read by the new one when both have the same version. A
//! checked-in file holds the offset and size of each field and the value of each constant. A change
//! of them without a new version is a finding.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::abi::{self, Abi, Layout};
use super::finding::Finding;
use super::tree::Tree;

const CHECK: &str = "layout";

/// The layouts as they were when this version was given.
pub const RECORD: &str = "xtask/tidy/layout.txt";

const HEADER: &str = "\
# The layouts of filter-common's abi: offset, size and name of each field, value of each constant.
# Written by `cargo xtask tidy --update`. When a line changes, a map that an older program pinned
# would be misread: raise ABI_VERSION first. Only a new name for the same bytes needs no new version.
";

const UPDATE: &str = "run `cargo xtask tidy --update`";

/// Returns what changed in the layouts without a new version.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let abi = match abi::read(tree) {
        Ok(Some(abi)) => abi,
        Ok(None) => return Vec::new(),
        Err(error) => {
            let advice = "write it in a form that `xtask/src/tidy/abi.rs` can read, or mend that";
            return vec![Finding::new(CHECK, &error.path, error.line, error.what, advice)];
        }
    };
    let at = |name: &str| abi.places.get(name).cloned().unwrap_or_else(|| abi.version_at.clone());
    let finding = |name: &str, what: String, advice: &str| {
        let (path, line) = at(name);
        Finding::new(CHECK, &path, line, what, advice)
    };
    let recorded = match record(tree) {
        Some(Ok(recorded)) => recorded,
        Some(Err(line)) => {
            let what = "this line is not of the record's form";
            return vec![Finding::new(CHECK, RECORD, line, what, UPDATE)];
        }
        None => {
            let what = format!("the layouts are not recorded in {RECORD}");
            return vec![finding(abi::VERSION, what, UPDATE)];
        }
    };
    let (then, now) = (recorded.version, abi.version);
    if now < then {
        let what = format!("ABI_VERSION is {now}, and was {then} before");
        return vec![finding(abi::VERSION, what, "a version is never used again: raise it")];
    }
    if now > then {
        let what = format!("ABI_VERSION is {now}, {RECORD} is of {then}");
        return vec![finding(abi::VERSION, what, UPDATE)];
    }
    let changes = changes(&recorded, &abi);
    let findings = changes.into_iter().map(|Change { name, what, is_layout }| {
        let advice = if is_layout {
            format!("raise {} above {then}, then {UPDATE}", abi::VERSION)
        } else {
            UPDATE.to_owned()
        };
        finding(&name, what, &advice)
    });
    findings.collect()
}

/// Returns the record of the present layouts; `None` when the file is right, or when a layout
/// changed without a new version.
pub fn update(tree: &Tree) -> Option<String> {
    let abi = abi::read(tree).ok()??;
    if let Some(Ok(recorded)) = record(tree) {
        let changes = changes(&recorded, &abi);
        let is_same = changes.is_empty() && abi.version == recorded.version;
        let breaks = changes.iter().any(|change| change.is_layout);
        if is_same || abi.version < recorded.version || (breaks && abi.version == recorded.version)
        {
            return None;
        }
    }
    Some(text(&abi))
}

fn text(abi: &Abi) -> String {
    let mut text = format!("{HEADER}\n{} = {}\n", abi::VERSION, abi.version);
    for (name, value) in &abi.constants {
        let _ = writeln!(text, "{name} = {value}");
    }
    for (name, layout) in &abi.layouts {
        let _ = write!(text, "\n{name}: {} bytes\n", layout.size);
        for field in &layout.fields {
            let _ = writeln!(text, "{:>6} {:>4} {}", field.offset, field.size, field.name);
        }
    }
    text
}

/// Reads the record; `None` when it does not exist, the line's number when one is not readable.
fn record(tree: &Tree) -> Option<Result<Abi, usize>> {
    let file = tree.file(RECORD)?;
    let mut abi = Abi::default();
    let mut last = String::new();
    for (line, number) in file.text.lines().zip(1..) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let read = if let Some((name, value)) = line.split_once(" = ") {
            value.parse().ok().map(|value| {
                if name == abi::VERSION {
                    abi.version = value;
                } else {
                    abi.constants.insert(name.to_owned(), value);
                }
            })
        } else if let Some((name, size)) = line.split_once(": ") {
            last = name.to_owned();
            size.strip_suffix(" bytes").and_then(|size| size.parse().ok()).map(|size| {
                abi.layouts.insert(name.to_owned(), Layout { size, fields: Vec::new() });
            })
        } else {
            field(line).and_then(|field| {
                abi.layouts.get_mut(&last).map(|layout| layout.fields.push(field))
            })
        };
        if read.is_none() {
            return Some(Err(number));
        }
    }
    Some(Ok(abi))
}

fn field(line: &str) -> Option<abi::Field> {
    let mut words = line.split_whitespace();
    let (offset, size) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(abi::Field { offset, size, name: words.next()?.to_owned() })
}

/// A difference between the record and the source.
struct Change {
    /// The layout or constant that changed.
    name: String,
    what: String,
    /// Whether a map of before would be misread; otherwise only names or additions.
    is_layout: bool,
}

fn changes(then: &Abi, now: &Abi) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut add = |name: &str, what: String, is_layout| {
        changes.push(Change { name: name.to_owned(), what, is_layout });
    };
    let names: BTreeSet<_> = then.layouts.keys().chain(now.layouts.keys()).collect();
    for name in names {
        match (then.layouts.get(name), now.layouts.get(name)) {
            (Some(before), Some(after)) => {
                if let Some((what, is_layout)) = before.difference(after) {
                    add(name, format!("the layout of `{name}` changed: {what}"), is_layout);
                }
            }
            (Some(before), None) => {
                // Under another name, with the same fields?
                let renamed = now.layouts.iter().any(|(other, after)| {
                    !then.layouts.contains_key(other) && before.shape() == after.shape()
                });
                add(name, format!("`{name}` is gone or has another name"), !renamed);
            }
            (None, _) => add(name, format!("`{name}` is not in {RECORD}"), false),
        }
    }
    constants(&then.constants, &now.constants, &mut add);
    changes
}

fn constants(
    then: &BTreeMap<String, u64>,
    now: &BTreeMap<String, u64>,
    add: &mut impl FnMut(&str, String, bool),
) {
    let names: BTreeSet<_> = then.keys().chain(now.keys()).collect();
    for name in names {
        match (then.get(name), now.get(name)) {
            (Some(before), Some(after)) if before != after => {
                add(name, format!("`{name}` was {before} and is {after}"), true);
            }
            (Some(before), None) => {
                let renamed =
                    now.iter().any(|(other, after)| !then.contains_key(other) && before == after);
                add(name, format!("`{name}` is gone or has another name"), !renamed);
            }
            (None, _) => add(name, format!("`{name}` is not in {RECORD}"), false),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "
pub const ABI_VERSION: u32 = 3;
pub const FRAME_MAX: usize = 1 << 4;
#[repr(C)]
pub struct Block { pub number: Number, pub flags: u8, pub action: u8, pub rest: [u8; 6] }
";
    const NUMBER: &str = "#[repr(transparent)]\npub struct Number(pub u64);\n";

    fn tree(source: &str, record: &str) -> Tree {
        let (abi, number) = ("filter-common/src/abi.rs", "filter-common/src/number.rs");
        Tree::of(&[(abi, source), (number, NUMBER), (RECORD, record)])
    }

    fn recorded() -> String {
        let none = Tree::of(&[
            ("filter-common/src/abi.rs", SOURCE),
            ("filter-common/src/number.rs", NUMBER),
        ]);
        update(&none).unwrap()
    }

    fn found(source: &str) -> Vec<String> {
        let findings = check(&tree(source, &recorded()));
        findings.iter().map(|finding| format!("{}; {}", finding.what, finding.advice)).collect()
    }

    #[test]
    fn check_same_layouts_are_right() {
        assert_eq!(found(SOURCE), [""; 0]);
        assert!(recorded().contains("Block: 16 bytes\n     0    8 number\n     8    1 flags\n"));
        assert!(recorded().contains("FRAME_MAX = 16\n"));
    }

    #[test]
    fn check_comments_and_other_writing_change_nothing() {
        let source = SOURCE.replace("pub flags: u8,", "/// Flags.\n pub flags : u8 ,");
        assert_eq!(found(&source.replace("1 << 4", "0x10")), [""; 0]);
    }

    #[test]
    fn check_changed_layout_without_a_new_version_is_found() {
        for (from, to) in [
            ("pub flags: u8, pub action: u8", "pub action: u8, pub flags: u8"), // swapped
            ("pub flags: u8, pub action: u8", "pub flags: u16"),
            ("[u8; 6]", "[u8; 14]"),
            ("1 << 4", "1 << 5"),
        ] {
            let changed = SOURCE.replace(from, to);
            let found = found(&changed);
            assert_eq!(found.len(), 1, "{to}: {found:?}");
            assert!(found[0].contains("raise ABI_VERSION"), "{found:?}");
            assert_eq!(update(&tree(&changed, &recorded())), None, "{to}");
        }
    }

    #[test]
    fn check_layout_of_a_type_in_another_file_counts() {
        let number = "#[repr(transparent)]\npub struct Number(pub u32);\n";
        let tree = Tree::of(&[
            ("filter-common/src/abi.rs", SOURCE),
            ("filter-common/src/number.rs", number),
            (RECORD, &recorded()),
        ]);
        assert!(check(&tree)[0].advice.contains("raise ABI_VERSION"));
    }

    #[test]
    fn check_changed_layout_with_a_new_version_needs_the_record_only() {
        let changed = SOURCE.replace("[u8; 6]", "[u8; 14]").replace("u32 = 3", "u32 = 4");
        let found = found(&changed);
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with(UPDATE), "{found:?}");
        let record = update(&tree(&changed, &recorded())).unwrap();
        assert_eq!(check(&tree(&changed, &record)), []);
        // The version of before is not used again.
        assert!(!check(&tree(SOURCE, &record)).is_empty());
        assert_eq!(update(&tree(SOURCE, &record)), None);
    }

    #[test]
    fn check_new_name_for_the_same_bytes_needs_no_new_version() {
        for changed in [
            SOURCE.replace("action", "verdict"),
            SOURCE.replace("Block", "Entry"),
            SOURCE.replace("FRAME_MAX", "KEPT_MAX"),
        ] {
            let found = found(&changed);
            assert!(!found.is_empty() && found.iter().all(|text| text.ends_with(UPDATE)));
            assert!(found.iter().all(|text| !text.contains("raise")), "{found:?}");
            let record = update(&tree(&changed, &recorded())).unwrap();
            assert_eq!(check(&tree(&changed, &record)), []);
        }
    }

    #[test]
    fn check_record_that_is_damaged_is_found() {
        let findings = check(&tree(SOURCE, "ABI_VERSION = 3\nwhat\n"));
        assert_eq!((findings[0].path.as_str(), findings[0].line), (RECORD, 2));
    }
}
