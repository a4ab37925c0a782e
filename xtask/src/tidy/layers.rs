//! The layer rule: no file imports from a higher floor, and nothing imports each other in a circle.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::finding::Finding;
use super::modules::{Import, Modules};
use super::roots;
use super::tree::Tree;

const LAYER: &str = "layer";
const CIRCLE: &str = "circle";

/// The table of floors.
const TABLE: &str = "xtask/tidy/layers.toml";

/// The table of one crate.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Floors {
    /// Whether every file needs a floor.
    complete: bool,
    floors: Vec<Vec<String>>,
    /// Folders whose files and folders do not import each other.
    #[serde(default)]
    apart: Vec<String>,
    /// Crates of others, and the rooms that may use each.
    #[serde(default)]
    only: BTreeMap<String, Vec<String>>,
}

/// Returns imports that lead upwards or in a circle.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let table: BTreeMap<String, Floors> = match tree.file(TABLE) {
        None => BTreeMap::new(),
        Some(file) => match toml::from_str(&file.text) {
            Ok(table) => table,
            Err(error) => {
                let line = error.span().map_or(1, |at| file.text[..at.start].lines().count());
                let what = error.message().to_owned();
                return vec![Finding::new(LAYER, TABLE, line, what, "see the head of this file")];
            }
        },
    };
    let mut findings = Vec::new();
    for root in roots::roots(tree) {
        let modules = Modules::read(tree, &root.path);
        let imports = modules.imports();
        circles(&imports, &mut findings);
        if let Some(floors) = table.get(&root.folder) {
            let crate_of = Crate { source: format!("{}/src/", root.folder), floors };
            crate_of.check(&modules, &imports, &mut findings);
        }
    }
    // A file that belongs to two programs is found twice.
    findings.sort_by(|a, b| (&a.path, a.line, &a.what).cmp(&(&b.path, b.line, &b.what)));
    findings.dedup();
    findings
}

/// Adds the imports between files that lead back to where they begin.
fn circles(imports: &[Import], findings: &mut Vec<Finding>) {
    let edges: BTreeSet<_> =
        imports.iter().map(|import| (import.from.as_str(), import.to.as_str())).collect();
    for import in imports {
        if let Some(way) = way(&edges, &import.to, &import.from) {
            let what = format!("a circle of imports: {} → {}", import.from, way.join(" → "));
            let advice = "move what both need into a file below both";
            findings.push(Finding::new(CIRCLE, &import.from, import.line, what, advice));
        }
    }
}

/// Returns a shortest way along `edges`, both ends included.
fn way<'a>(edges: &BTreeSet<(&'a str, &'a str)>, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
    let mut before = BTreeMap::from([(from, from)]);
    let mut queue = vec![from];
    while let Some(&here) = queue.first() {
        queue.remove(0);
        if here == to {
            let mut way = vec![here];
            while let Some(&previous) = way.last().and_then(|last| before.get(last)) {
                if Some(&previous) == way.last() {
                    break;
                }
                way.push(previous);
            }
            way.reverse();
            return Some(way);
        }
        for &(_, next) in edges.range((here, "")..).take_while(|(start, _)| *start == here) {
            if !before.contains_key(next) {
                before.insert(next, here);
                queue.push(next);
            }
        }
    }
    None
}

/// A crate with floors.
struct Crate<'a> {
    /// `filter-user/src/`
    source: String,
    floors: &'a Floors,
}

impl Crate<'_> {
    fn check(&self, modules: &Modules, imports: &[Import], findings: &mut Vec<Finding>) {
        for path in modules.files() {
            if self.floors.complete && self.is_inner(path) && self.room(path).is_none() {
                let (what, advice) = ("this file has no floor", format!("give it one in {TABLE}"));
                findings.push(Finding::new(LAYER, path, 1, what, advice));
            }
        }
        let mut rooms = BTreeMap::<(&str, &str), &Import>::new();
        for import in imports {
            let (Some(from), Some(to)) = (self.room(&import.from), self.room(&import.to)) else {
                continue;
            };
            if from.floor < to.floor {
                let what = format!(
                    "`{}` imports `{}` from a higher floor, {}",
                    from.name, to.name, import.to
                );
                let advice = format!("move what both need down ({TABLE} has the floors)");
                findings.push(Finding::new(LAYER, &import.from, import.line, what, advice));
            } else if from.name != to.name {
                rooms.entry((from.name, to.name)).or_insert(import);
            }
            self.check_apart(import, findings);
        }
        self.check_rooms(&rooms, findings);
        self.check_only(modules, findings);
    }

    /// Adds circles of rooms whose files are in no circle.
    fn check_rooms(&self, rooms: &BTreeMap<(&str, &str), &Import>, findings: &mut Vec<Finding>) {
        let edges: BTreeSet<_> = rooms.keys().copied().collect();
        for (&(from, to), import) in rooms {
            if let Some(way) = way(&edges, to, from) {
                let what = format!("a circle of rooms: {from} → {}", way.join(" → "));
                let advice = "let one of them do without the other";
                findings.push(Finding::new(CIRCLE, &import.from, import.line, what, advice));
            }
        }
    }

    fn check_apart(&self, import: &Import, findings: &mut Vec<Finding>) {
        for folder in &self.floors.apart {
            let part = |path: &str| {
                let path = path.strip_prefix(&self.source)?.strip_prefix(folder)?;
                let part = path.strip_prefix('/')?.split('/').next()?;
                Some(part.trim_end_matches(".rs").to_owned())
            };
            if let (Some(from), Some(to)) = (part(&import.from), part(&import.to))
                && from != to
                && from != "mod"
            {
                let what = format!("`{from}` imports `{to}`, and nothing in {folder} may do that");
                let advice = "move what both need to a lower floor";
                findings.push(Finding::new(LAYER, &import.from, import.line, what, advice));
            }
        }
    }

    fn check_only(&self, modules: &Modules, findings: &mut Vec<Finding>) {
        let names: Vec<_> = self.floors.only.keys().cloned().collect();
        for foreign in modules.foreign(&names) {
            let rooms = &self.floors.only[&foreign.name];
            let inside = foreign.from.strip_prefix(&self.source).unwrap_or_default();
            if !rooms.iter().any(|room| is_in(inside, room)) {
                let what = format!("only {} may use `{}`", rooms.join(", "), foreign.name);
                let advice = "ask that room for what this file needs";
                findings.push(Finding::new(LAYER, &foreign.from, foreign.line, what, advice));
            }
        }
    }

    /// Returns whether this is a file of the crate, and not at its very top.
    fn is_inner(&self, path: &str) -> bool {
        path.strip_prefix(&self.source).is_some_and(|path| path != "lib.rs" && path != "main.rs")
    }

    fn room(&self, path: &str) -> Option<Room<'_>> {
        let path = path.strip_prefix(&self.source).filter(|_| self.is_inner(path))?;
        let all = self.floors.floors.iter().enumerate();
        let rooms =
            all.flat_map(|(floor, names)| names.iter().map(move |name| Room { floor, name }));
        rooms.filter(|room| is_in(path, room.name)).max_by_key(|room| room.name.len())
    }
}

/// A room of a crate.
struct Room<'a> {
    floor: usize,
    name: &'a str,
}

/// Returns whether a path below `src` is the room `name` or in it.
fn is_in(path: &str, name: &str) -> bool {
    let rest = path.strip_prefix(name);
    rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOORS: &str = "[a]\ncomplete = true\nfloors = [[\"low\"], [\"mid\", \"side\"], [\"top\"]]\n\
        apart = [\"top\"]\nonly = { aya = [\"low\"] }\n";
    const LIB: &str = "mod low;\nmod mid;\nmod side;\nmod top;";

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let manifest = ("a/Cargo.toml", "[package]\nname = \"a\"\n");
        let all = [&[manifest, ("a/src/lib.rs", LIB), (TABLE, FLOORS)], files].concat();
        let findings = check(&Tree::of(&all)).into_iter();
        findings.map(|found| format!("{}:{} {}", found.path, found.line, found.what)).collect()
    }

    #[test]
    fn check_imports_downwards_are_right() {
        let files = [
            ("a/src/low.rs", "use aya::Ebpf;"),
            ("a/src/mid.rs", "use crate::low::L;"),
            ("a/src/side.rs", "use crate::mid::M;"),
            ("a/src/top.rs", "use crate::{low, mid, side};"),
        ];
        assert_eq!(found(&files), [""; 0]);
    }

    #[test]
    fn check_import_upwards_is_found() {
        let files = [("a/src/low.rs", "\nuse crate::top::T;"), ("a/src/top.rs", "pub struct T;")];
        let found = found(&files);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("a/src/low.rs:2 `low` imports `top` from a higher floor"));
    }

    #[test]
    fn check_circle_of_files_is_found_at_each_import() {
        let files = [
            ("a/src/mid.rs", "mod one;\nmod two;\nmod three;"),
            ("a/src/mid/one.rs", "use super::two::B;"),
            ("a/src/mid/two.rs", "use super::three::C;"),
            ("a/src/mid/three.rs", "fn f() { super::one::g() }"),
        ];
        let found = found(&files);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].ends_with(
            "a/src/mid/one.rs → a/src/mid/two.rs → a/src/mid/three.rs → a/src/mid/one.rs"
        ));
    }

    #[test]
    fn check_circle_of_rooms_without_a_circle_of_files_is_found() {
        let files = [
            ("a/src/mid/mod.rs", "mod one;\nmod two;"),
            ("a/src/mid/one.rs", "use crate::side::x::S;"),
            ("a/src/mid/two.rs", "pub struct M;"),
            ("a/src/side/mod.rs", "pub mod x;\npub mod y;"),
            ("a/src/side/x.rs", "pub struct S;"),
            ("a/src/side/y.rs", "use crate::mid::two::M;"),
        ];
        let found = found(&files);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0], "a/src/mid/one.rs:1 a circle of rooms: mid → side → mid");
    }

    #[test]
    fn check_file_without_a_floor_and_foreign_crate_are_found() {
        let files = [
            ("a/src/lib.rs", "mod new;\nmod mid;"),
            ("a/src/new.rs", ""),
            ("a/src/mid.rs", "fn f(_: aya::Ebpf) {}"),
        ];
        let manifest = ("a/Cargo.toml", "[package]\nname = \"a\"\n");
        let all = [&[manifest, (TABLE, FLOORS)][..], &files].concat();
        let found: Vec<_> = check(&Tree::of(&all)).into_iter().map(|found| found.what).collect();
        assert_eq!(found, ["only low may use `aya`", "this file has no floor"]);
    }

    #[test]
    fn check_parts_of_a_folder_apart_are_found() {
        let files = [
            ("a/src/top/mod.rs", "mod one;\nmod two;\nuse one::A;"),
            ("a/src/top/one.rs", "pub struct A;\nuse super::two::inner::B;"),
            ("a/src/top/two/mod.rs", "pub mod inner;\nuse inner::B;"),
            ("a/src/top/two/inner.rs", "pub struct B;"),
        ];
        let found = found(&files);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("a/src/top/one.rs:2 `one` imports `two`"));
    }
}
