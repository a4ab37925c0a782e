//! The modules of a crate, and what each file imports from the other files of its crate.
//!
//! Found from the tokens: `mod`, `use` and every path with `::`. Names are followed through `use`
//! to the file that declares them, so a re-export does not hide where a name comes from. Items that
//! are only compiled for tests are left out.

use std::collections::{BTreeMap, BTreeSet};

use super::rust::{Kind, Token, lex};
use super::tree::{File, Tree, folder, join};

/// An import of one file by another of the same crate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// The file that imports.
    pub from: String,
    /// The file that declares what is imported.
    pub to: String,
    /// Line in `from`.
    pub line: usize,
}

/// A use of a crate of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// First part of the path: `aya`.
    pub name: String,
    /// The file that uses it.
    pub from: String,
    /// Line in `from`.
    pub line: usize,
}

/// A module: a file, or a block inside of one.
#[derive(Default)]
struct Module {
    file: String,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    /// Names that `use` brings in, with their paths.
    names: BTreeMap<String, Vec<String>>,
    /// Paths with `*`.
    globs: Vec<Vec<String>>,
    /// Names of items declared here.
    items: BTreeSet<String>,
    /// Each path that is written here.
    paths: Vec<Written>,
}

/// A path as it is written.
struct Written {
    segments: Vec<String>,
    line: usize,
    /// A `pub use`: files that use the name import from the file that declares it.
    is_reexport: bool,
}

/// All modules below one root file.
pub struct Modules {
    modules: Vec<Module>,
}

impl Modules {
    /// Reads the modules below a root file such as `src/lib.rs`.
    pub fn read(tree: &Tree, root: &str) -> Modules {
        let mut modules = Modules { modules: Vec::new() };
        if let Some(file) = tree.file(root) {
            let module = modules.add(root, None);
            modules.read_file(tree, file, module, folder(root));
        }
        modules
    }

    /// Returns the files of these modules.
    pub fn files(&self) -> BTreeSet<&str> {
        self.modules.iter().map(|module| module.file.as_str()).collect()
    }

    /// Returns each import of a file by another one, the first of several.
    pub fn imports(&self) -> Vec<Import> {
        let mut first = BTreeMap::<(&str, &str), usize>::new();
        for (index, module) in self.modules.iter().enumerate() {
            for path in &module.paths {
                let Some(target) = self.resolve(index, &path.segments, 0) else { continue };
                let target = &self.modules[target];
                let is_child = target.file != module.file && self.is_below(target, index);
                if target.file == module.file || (path.is_reexport && is_child) {
                    continue;
                }
                let line = first.entry((&module.file, &target.file)).or_insert(path.line);
                *line = path.line.min(*line);
            }
        }
        let imports = first.into_iter().map(|((from, to), line)| Import {
            from: from.to_owned(),
            to: to.to_owned(),
            line,
        });
        imports.collect()
    }

    /// Returns each use of a crate of others among `names`.
    pub fn foreign(&self, names: &[String]) -> Vec<Foreign> {
        let mut found = Vec::new();
        for (index, module) in self.modules.iter().enumerate() {
            for path in &module.paths {
                let name = &path.segments[0];
                if names.contains(name) && self.resolve(index, &path.segments, 0).is_none() {
                    let (name, from) = (name.clone(), module.file.clone());
                    found.push(Foreign { name, from, line: path.line });
                }
            }
        }
        found
    }

    fn is_below(&self, module: &Module, ancestor: usize) -> bool {
        let mut parent = module.parent;
        while let Some(index) = parent {
            if index == ancestor {
                return true;
            }
            parent = self.modules[index].parent;
        }
        false
    }

    fn add(&mut self, file: &str, parent: Option<usize>) -> usize {
        self.modules.push(Module { file: file.to_owned(), parent, ..Module::default() });
        self.modules.len() - 1
    }

    /// Reads a file as the module `module`; its modules are in files below `children`.
    fn read_file(&mut self, tree: &Tree, file: &File, module: usize, children: &str) {
        let tokens = lex(&file.text);
        let code: Vec<_> =
            tokens.into_iter().filter(|token| !token.is_comment() && !token.test).collect();
        let mut reader = Reader { tree, modules: self, file, tokens: &code, at: 0 };
        reader.read_block(module, children);
    }

    /// Returns the module that declares what `segments` names, as seen from `module`.
    fn resolve(&self, module: usize, segments: &[String], depth: usize) -> Option<usize> {
        // A circle of `use` does not compile, but is no reason to hang.
        if depth > 16 {
            return None;
        }
        let (first, mut rest) = segments.split_first()?;
        let mut here = match first.as_str() {
            "crate" => 0,
            "self" => module,
            "super" => self.modules[module].parent?,
            name => match self.modules[module].children.get(name) {
                Some(&child) => child,
                None => self.named(module, name, depth)?,
            },
        };
        while let Some((name, after)) = rest.split_first() {
            let next = match name.as_str() {
                "self" => Some(here),
                "super" => self.modules[here].parent,
                name => match self.modules[here].children.get(name) {
                    Some(&child) => Some(child),
                    None => self.named(here, name, depth),
                },
            };
            match next {
                Some(next) => here = next,
                // An item of `here`, or a part of one.
                None => break,
            }
            rest = after;
        }
        Some(here)
    }

    /// Returns the module that declares a name which `use` brings into `module`.
    fn named(&self, module: usize, name: &str, depth: usize) -> Option<usize> {
        let here = &self.modules[module];
        if let Some(path) = here.names.get(name) {
            // `use clap::…` beside a module `clap` of our own.
            return (path.first().map(String::as_str) != Some(name))
                .then(|| self.resolve(module, path, depth + 1))?;
        }
        if here.items.contains(name) {
            return None;
        }
        here.globs.iter().find_map(|path| {
            let target = self.resolve(module, path, depth + 1)?;
            let declares = self.modules[target].items.contains(name);
            if declares { Some(target) } else { self.named(target, name, depth + 1) }
        })
    }
}

/// Reads the tokens of one file.
struct Reader<'a, 'b> {
    tree: &'a Tree,
    modules: &'b mut Modules,
    file: &'a File,
    tokens: &'a [Token<'a>],
    at: usize,
}

impl Reader<'_, '_> {
    fn is(&self, ahead: usize, text: &str) -> bool {
        self.tokens.get(self.at + ahead).is_some_and(|token| token.is(text))
    }

    fn word(&self, ahead: usize) -> Option<&str> {
        let token = self.tokens.get(self.at + ahead)?;
        (token.kind == Kind::Word).then_some(token.text)
    }

    fn is_path_end(&self, ahead: usize) -> bool {
        !(self.is(ahead, ":") && self.is(ahead + 1, ":"))
    }

    /// Reads up to the end of the file or to the bracket that closes an inline module.
    fn read_block(&mut self, module: usize, children: &str) {
        let mut depth = 0_usize;
        let mut attribute_path = None;
        while self.at < self.tokens.len() {
            if self.is(0, "{") {
                depth += 1;
                self.at += 1;
            } else if self.is(0, "}") {
                self.at += 1;
                if depth == 0 {
                    return;
                }
                depth -= 1;
            } else if self.is(0, "#") && self.is(1, "[") && self.is(2, "path") {
                let text = self.tokens.get(self.at + 4).map(|token| token.text.trim_matches('"'));
                attribute_path = text.map(str::to_owned);
                self.at += 6;
            } else if self.is(0, "mod") && self.word(1).is_some() {
                self.read_module(module, children, attribute_path.take());
            } else if self.is(0, "use") && !self.is(1, "<") {
                let is_reexport = self.is_reexport();
                self.at += 1;
                self.read_use(module, &[], is_reexport);
            } else {
                self.read_other(module, depth == 0);
            }
        }
    }

    /// Reads `mod name;` or `mod name { … }`.
    fn read_module(&mut self, module: usize, children: &str, attribute_path: Option<String>) {
        let name = self.word(1).unwrap_or_default().to_owned();
        if self.is(2, "{") {
            self.at += 3;
            let inner = self.modules.add(&self.file.path, Some(module));
            self.modules.modules[module].children.insert(name.clone(), inner);
            self.read_block(inner, &format!("{children}/{name}"));
            return;
        }
        self.at += 3;
        let own = self.file.folder();
        let candidates = match attribute_path {
            Some(path) => vec![join(own, &path)],
            None => vec![
                join(children, &format!("{name}.rs")),
                join(children, &format!("{name}/mod.rs")),
            ],
        };
        let file = candidates.into_iter().flatten().find_map(|path| self.tree.file(&path));
        let Some(file) = file else { return };
        let inner = self.modules.add(&file.path, Some(module));
        self.modules.modules[module].children.insert(name.clone(), inner);
        let stem = file.path.rsplit_once('.').map_or("", |(stem, _)| stem);
        let children = if stem.ends_with("/mod") { folder(&file.path) } else { stem };
        self.modules.read_file(self.tree, file, inner, children);
    }

    /// Returns whether the `use` here is after `pub` or `pub(…)`.
    fn is_reexport(&self) -> bool {
        let before = |back: usize| self.at.checked_sub(back).and_then(|at| self.tokens.get(at));
        match before(1) {
            Some(token) if token.is("pub") => true,
            Some(token) if token.is(")") => (2..8).filter_map(before).any(|token| token.is("pub")),
            _ => false,
        }
    }

    /// Reads a tree of `use` up to its `;`, `,` or `}`.
    fn read_use(&mut self, module: usize, prefix: &[String], is_reexport: bool) {
        let mut path = prefix.to_vec();
        let line = self.tokens.get(self.at).map_or(0, |token| token.line);
        loop {
            if self.is(0, ":") {
                self.at += 1;
            } else if self.is(0, "{") {
                self.at += 1;
                while self.at < self.tokens.len() && !self.is(0, "}") {
                    self.read_use(module, &path, is_reexport);
                    if self.is(0, ",") {
                        self.at += 1;
                    }
                }
                self.at += 1;
                if self.is(0, ";") {
                    self.at += 1;
                }
                return;
            } else if self.is(0, "*") {
                self.at += 1;
                let here = &mut self.modules.modules[module];
                here.globs.push(path.clone());
                here.paths.push(Written { segments: path.clone(), line, is_reexport });
                break;
            } else if let Some(word) = self.word(0) {
                if word == "as" {
                    break;
                }
                path.push(word.to_owned());
                self.at += 1;
            } else {
                break;
            }
            if self.is(0, ",") || self.is(0, ";") || self.is(0, "}") {
                break;
            }
        }
        self.end_use(module, path, line, is_reexport);
    }

    /// Notes the name that a `use` brings in.
    fn end_use(&mut self, module: usize, mut path: Vec<String>, line: usize, is_reexport: bool) {
        let is_glob = self.tokens.get(self.at.wrapping_sub(1)).is_some_and(|token| token.is("*"));
        if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
            path.pop();
        }
        let mut name = path.last().cloned();
        if self.is(0, "as") {
            name = self.word(1).map(str::to_owned);
            self.at += 2;
        }
        if self.is(0, ";") {
            self.at += 1;
        }
        if let (Some(name), false) = (name, is_glob || path.is_empty()) {
            let here = &mut self.modules.modules[module];
            here.names.insert(name, path.clone());
            here.paths.push(Written { segments: path, line, is_reexport });
        }
    }

    /// Reads a path, notes the name of an item, or passes one token over.
    fn read_other(&mut self, module: usize, is_outside: bool) {
        const ITEMS: [&str; 9] =
            ["fn", "struct", "enum", "trait", "union", "type", "const", "static", "macro_rules"];
        let Some(word) = self.word(0) else {
            self.at += 1;
            return;
        };
        if ITEMS.contains(&word) {
            let ahead = if self.is(1, "!") { 2 } else { 1 };
            // A method is not an item of the module.
            if let Some(name) = self.word(ahead).map(str::to_owned).filter(|_| is_outside) {
                self.modules.modules[module].items.insert(name);
            }
            self.at += 1;
            return;
        }
        // `.method::<T>()` is no path.
        let is_method = self.at > 0 && self.tokens[self.at - 1].is(".");
        if is_method || self.is_path_end(1) {
            self.at += 1;
            return;
        }
        let line = self.tokens[self.at].line;
        let mut segments = vec![word.to_owned()];
        self.at += 1;
        while !self.is_path_end(0) {
            let Some(word) = self.word(2).map(str::to_owned) else {
                self.at += 2;
                break;
            };
            segments.push(word);
            self.at += 3;
        }
        let path = Written { segments, line, is_reexport: false };
        self.modules.modules[module].paths.push(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Imports as "from → to".
    fn imports(files: &[(&str, &str)]) -> Vec<String> {
        let modules = Modules::read(&Tree::of(files), "a/src/lib.rs");
        let short = |path: &str| path.trim_start_matches("a/src/").to_owned();
        let imports = modules.imports().into_iter();
        imports.map(|i| format!("{}:{} → {}", short(&i.from), i.line, short(&i.to))).collect()
    }

    #[test]
    fn imports_every_way_to_write_one_is_found() {
        for (text, found) in [
            ("use crate::b::B;", true),
            ("use super::b;", true),
            ("use super::{b::{self, B}};", true),
            ("use crate::{b as c};", true),
            ("pub use crate::b::B;", true),
            ("use crate::b::*;", true),
            ("fn f() { crate::b::g(); }", true),
            ("fn f() -> super::b::B {}", true),
            ("mod inner { use super::super::b::B; }", true),
            ("macro_rules! m { () => { $crate::b::g() } }", true),
            ("fn f() { let b = 1; b::<u8>(); }", false),
            ("use std::b::B;", false),
            ("#[cfg(test)] mod tests { use crate::b::B; }", false),
            ("// use crate::b::B;", false),
            ("fn f() { \"crate::b::g()\"; }", false),
        ] {
            let files =
                [("a/src/lib.rs", "mod a;\nmod b;"), ("a/src/a.rs", text), ("a/src/b.rs", "")];
            let expected: &[&str] = if found { &["a.rs:1 → b.rs"] } else { &[] };
            assert_eq!(imports(&files), expected, "{text}");
        }
    }

    #[test]
    fn imports_names_are_followed_to_the_file_that_declares_them() {
        let files = [
            ("a/src/lib.rs", "mod part;\nmod user;"),
            (
                "a/src/part/mod.rs",
                "mod inner;\npub use inner::Thing;\npub use self::inner::*;\npub fn own() {}",
            ),
            ("a/src/part/inner.rs", "pub struct Thing;\npub struct Other;"),
            (
                "a/src/user.rs",
                "use crate::part;\nfn f() -> part::Thing { part::own() }\nfn g(_: part::Other) {}",
            ),
        ];
        assert_eq!(imports(&files), ["user.rs:2 → part/inner.rs", "user.rs:1 → part/mod.rs"]);
    }

    #[test]
    fn imports_of_a_parent_and_of_a_child_are_found() {
        let files = [
            ("a/src/lib.rs", "mod part;"),
            ("a/src/part.rs", "mod inner;\nuse inner::g;\npub fn f() { g(); }"),
            ("a/src/part/inner.rs", "pub fn g() { super::f(); }"),
        ];
        assert_eq!(imports(&files), ["part.rs:2 → part/inner.rs", "part/inner.rs:1 → part.rs"]);
    }

    #[test]
    fn imports_file_at_a_path_of_its_own_is_read() {
        let files = [
            ("a/src/lib.rs", "#[path = \"../../b/x.rs\"]\nmod x;\nmod y;\nuse y::Y;"),
            ("b/x.rs", "use crate::y::Y;"),
            ("a/src/y.rs", "pub struct Y;"),
        ];
        assert_eq!(imports(&files), ["lib.rs:4 → y.rs", "b/x.rs:1 → y.rs"]);
    }

    #[test]
    fn foreign_crate_is_found_and_our_module_of_its_name_is_not() {
        let files = [
            ("a/src/lib.rs", "mod aya;\nmod x;"),
            ("a/src/aya.rs", ""),
            ("a/src/x.rs", "use aya::Ebpf;\nuse crate::aya as ours;"),
        ];
        let modules = Modules::read(&Tree::of(&files), "a/src/lib.rs");
        let found = modules.foreign(&["aya".to_owned()]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].from.as_str(), found[0].line), ("a/src/x.rs", 1));
    }
}
