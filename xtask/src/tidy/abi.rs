//! Reads the layouts of `filter-common`'s `abi` from its source text.

use std::collections::BTreeMap;

use super::rust::{Kind, Token, lex};
use super::tree::Tree;

/// The constant that is the version of all layouts.
pub const VERSION: &str = "ABI_VERSION";

/// Where `abi` and the types that it is made of are.
const CRATE: &str = "filter-common/src/";
const ABI: &str = "filter-common/src/abi";

/// Constants with this ending say how long something is remembered: they are part of no layout.
const TIMES: &str = "_NS";

/// All layouts and constants of `abi`.
#[derive(Debug, Default)]
pub struct Abi {
    /// Value of `ABI_VERSION`.
    pub version: u64,
    /// File and line of `ABI_VERSION`.
    pub version_at: (String, usize),
    /// Structures, also those of other files that a structure of `abi` holds.
    pub layouts: BTreeMap<String, Layout>,
    /// Integer constants; values of an enumeration as `Name::Value`.
    pub constants: BTreeMap<String, u64>,
    /// File and line of each.
    pub places: BTreeMap<String, (String, usize)>,
}

/// Bytes of a structure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Bytes.
    pub size: u64,
    /// Fields by offset.
    pub fields: Vec<Field>,
}

/// Bytes of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// Name; its place for a field without a name.
    pub name: String,
}

impl Layout {
    /// Returns the layout without names.
    pub fn shape(&self) -> (u64, Vec<(u64, u64)>) {
        (self.size, self.fields.iter().map(|field| (field.offset, field.size)).collect())
    }

    /// Returns how `after` differs, and whether bytes written in one are misread in the other.
    pub fn difference(&self, after: &Layout) -> Option<(String, bool)> {
        if self == after {
            return None;
        }
        if self.size != after.size {
            return Some((format!("{} bytes, {} now", self.size, after.size), true));
        }
        if self.shape() != after.shape() {
            return Some(("its fields have other places".to_owned(), true));
        }
        // The same places: new names, or names that changed places?
        let pairs = || self.fields.iter().zip(&after.fields).filter(|(a, b)| a.name != b.name);
        let swapped = pairs().any(|(a, _)| after.fields.iter().any(|field| field.name == a.name));
        let names: Vec<_> = pairs().map(|(a, b)| format!("`{}` is `{}`", a.name, b.name)).collect();
        Some((names.join(", "), swapped))
    }
}

/// A declaration that cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    /// File.
    pub path: String,
    /// Line.
    pub line: usize,
    /// The error.
    pub what: String,
}

/// A type with a fixed layout.
struct Type<'a> {
    name: &'a str,
    /// Name and type of each field.
    fields: Vec<(String, &'a [Token<'a>])>,
    /// For an enumeration: its integer type, and its values.
    repr: Option<&'a str>,
    values: Vec<(&'a str, &'a [Token<'a>])>,
    place: (String, usize),
}

/// All declarations of the crate.
#[derive(Default)]
struct Declared<'a> {
    types: Vec<Type<'a>>,
    constants: BTreeMap<&'a str, (&'a [Token<'a>], (String, usize))>,
}

/// Reads all layouts; `None` when the repository has no `abi`.
///
/// # Errors
/// [`Unreadable`] when the size of a field or the value of a constant cannot be found out.
pub fn read(tree: &Tree) -> Result<Option<Abi>, Unreadable> {
    let files: Vec<_> = tree.files.iter().filter(|file| file.path.starts_with(CRATE)).collect();
    if !files.iter().any(|file| file.path.starts_with(ABI)) {
        return Ok(None);
    }
    let code = files.iter().map(|file| {
        let tokens = lex(&file.text);
        let code: Vec<_> =
            tokens.into_iter().filter(|token| !token.is_comment() && !token.test).collect();
        (file.path.as_str(), code)
    });
    let code: Vec<_> = code.collect();
    let mut declared = Declared::default();
    for (path, tokens) in &code {
        declared.collect(path, tokens);
    }

    let mut abi = Abi::default();
    for (name, (value, place)) in &declared.constants {
        if !place.0.starts_with(ABI) || name.ends_with(TIMES) {
            continue;
        }
        let value = declared.value(value).ok_or_else(|| unreadable(place, name))?;
        if *name == VERSION {
            abi.version = value;
            abi.version_at = place.clone();
        } else {
            abi.constants.insert((*name).to_owned(), value);
            abi.places.insert((*name).to_owned(), place.clone());
        }
    }
    for declaration in &declared.types {
        if declaration.place.0.starts_with(ABI) {
            declared.add(&mut abi, declaration)?;
        }
    }
    Ok(Some(abi))
}

fn unreadable(place: &(String, usize), name: &str) -> Unreadable {
    let what = format!("the layout or value of `{name}` cannot be read");
    Unreadable { path: place.0.clone(), line: place.1, what }
}

impl<'a> Declared<'a> {
    /// Collects the types with `repr` and the integer constants of a file.
    fn collect(&mut self, path: &str, tokens: &'a [Token<'a>]) {
        let mut repr = None;
        let mut at = 0;
        while at < tokens.len() {
            let is =
                |at: usize, text| tokens.get(at).is_some_and(|token: &Token<'_>| token.is(text));
            if is(at, "macro_rules") {
                // `macro_rules! name { … }`
                at = end(tokens, at + 3);
            } else if is(at, "#") && is(at + 1, "[") && is(at + 2, "repr") {
                repr = tokens.get(at + 4).map(|token| token.text);
                at = end(tokens, at + 1);
            } else if is(at, "#") && is(at + 1, "[") {
                at = end(tokens, at + 1);
            } else if is(at, "const") && is(at + 2, ":") && is(at + 4, "=") {
                let value_end = tokens[at..].iter().position(|token| token.is(";"));
                let value_end = at + value_end.unwrap_or(tokens.len() - at);
                let place = (path.to_owned(), tokens[at].line);
                if is_integer(tokens[at + 3].text) {
                    let value = &tokens[at + 5..value_end];
                    // `abi` first: other files may have a constant of the same name.
                    if path.starts_with(ABI) || !self.constants.contains_key(tokens[at + 1].text) {
                        self.constants.insert(tokens[at + 1].text, (value, place));
                    }
                }
                at = value_end;
            } else if let Some(repr) = repr.filter(|_| is(at, "struct") || is(at, "enum")) {
                at = self.collect_type(path, tokens, at, repr);
            } else {
                if !is(at, "pub") && !is(at, "(") && !is(at, "crate") && !is(at, ")") {
                    repr = None;
                }
                at += 1;
            }
        }
    }

    /// Collects the type whose `struct` or `enum` is at `at`; returns the index of its end.
    fn collect_type(
        &mut self,
        path: &str,
        tokens: &'a [Token<'a>],
        at: usize,
        repr: &'a str,
    ) -> usize {
        let is_enum = tokens[at].is("enum");
        let Some(name) = tokens.get(at + 1) else { return at + 1 };
        let open =
            tokens[at..].iter().position(|token| token.is("{") || token.is("(") || token.is(";"));
        let Some(open) = open.map(|open| at + open) else { return at + 1 };
        let close = end(tokens, open);
        let mut declaration = Type {
            name: name.text,
            fields: Vec::new(),
            repr: is_enum.then_some(repr),
            values: Vec::new(),
            place: (path.to_owned(), tokens[at].line),
        };
        if tokens[open].is("{") || tokens[open].is("(") {
            let body = &tokens[open + 1..close.saturating_sub(1)];
            for (index, part) in split(body).into_iter().enumerate() {
                let part = without_head(part);
                if is_enum {
                    if let [name, equal, value @ ..] = part
                        && equal.is("=")
                    {
                        declaration.values.push((name.text, value));
                    }
                } else if tokens[open].is("(") {
                    declaration.fields.push((index.to_string(), part));
                } else if let [name, colon, field @ ..] = part
                    && colon.is(":")
                {
                    declaration.fields.push((name.text.to_owned(), field));
                }
            }
        }
        self.types.push(declaration);
        close
    }

    /// Adds a type and the types that it holds.
    fn add(&self, abi: &mut Abi, declaration: &Type<'a>) -> Result<(), Unreadable> {
        let name = declaration.name;
        if abi.layouts.contains_key(name) {
            return Ok(());
        }
        for (value, text) in &declaration.values {
            let constant = format!("{name}::{value}");
            let number =
                self.value(text).ok_or_else(|| unreadable(&declaration.place, &constant))?;
            abi.places.insert(constant.clone(), declaration.place.clone());
            abi.constants.insert(constant, number);
        }
        let failed = || unreadable(&declaration.place, name);
        let (size, _) = self.size_of(declaration).ok_or_else(failed)?;
        let mut fields = Vec::new();
        let mut offset = 0_u64;
        for (field, text) in &declaration.fields {
            let (size, align) = self.size(text).ok_or_else(failed)?;
            offset = offset.next_multiple_of(align);
            fields.push(Field { offset, size, name: field.clone() });
            offset += size;
            for inner in text.iter().filter_map(|token| self.find(token.text)) {
                self.add(abi, inner)?;
            }
        }
        abi.places.insert(name.to_owned(), declaration.place.clone());
        abi.layouts.insert(name.to_owned(), Layout { size, fields });
        Ok(())
    }

    fn find(&self, name: &str) -> Option<&Type<'a>> {
        self.types.iter().find(|declaration| declaration.name == name)
    }

    /// Returns size and alignment of a type in bytes, by the rules of `repr(C)`.
    fn size_of(&self, declaration: &Type<'a>) -> Option<(u64, u64)> {
        if let Some(repr) = declaration.repr {
            return integer(repr);
        }
        let (mut size, mut align) = (0_u64, 1);
        for (_, field) in &declaration.fields {
            let (field_size, field_align) = self.size(field)?;
            size = size.next_multiple_of(field_align) + field_size;
            align = align.max(field_align);
        }
        Some((size.next_multiple_of(align), align))
    }

    /// Returns size and alignment of a type as it is written.
    fn size(&self, text: &[Token<'a>]) -> Option<(u64, u64)> {
        match text {
            [open, inner @ .., close] if open.is("[") && close.is("]") => {
                // The last `;`: an array of arrays has one more inside.
                let half = inner.iter().rposition(|token| token.is(";"))?;
                let (size, align) = self.size(&inner[..half])?;
                Some((size * self.value(&inner[half + 1..])?, align))
            }
            [.., name] => match integer(name.text) {
                Some(size) => Some(size),
                None => self.size_of(self.find(name.text)?),
            },
            [] => None,
        }
    }

    /// Returns the value of an expression of integers and constants.
    fn value(&self, text: &[Token<'a>]) -> Option<u64> {
        const OPERATORS: [&[&str]; 3] = [&["<<"], &["+", "-"], &["*", "/"]];
        let text = match text.iter().position(|token| token.is("as")) {
            // A cast changes no value that fits.
            Some(at) if text[at + 1..].len() == 1 => &text[..at],
            _ => text,
        };
        for operators in OPERATORS {
            for at in (1..text.len()).rev() {
                let two = text[at].is("<") && text[at - 1].is("<");
                let operator = if two { "<<" } else { text[at].text };
                if !operators.contains(&operator) || depth(&text[..at]) != 0 {
                    continue;
                }
                let left = self.value(&text[..at - usize::from(two)])?;
                let right = self.value(&text[at + 1..])?;
                return match operator {
                    "<<" => left.checked_shl(u32::try_from(right).ok()?),
                    "+" => left.checked_add(right),
                    "-" => left.checked_sub(right),
                    "*" => left.checked_mul(right),
                    _ => left.checked_div(right),
                };
            }
        }
        match text {
            [open, inner @ .., close] if open.is("(") && close.is(")") => self.value(inner),
            // `u32::MAX`, `i64::MAX`
            [kind, _, _, name] if name.is("MAX") && is_integer(kind.text) => {
                let bits = 8 * integer(kind.text)?.0;
                let bits = if kind.text.starts_with('i') { bits - 1 } else { bits };
                Some(u64::MAX >> (64 - bits))
            }
            [number] if number.kind == Kind::Number => parse(number.text),
            [.., name] => self.value(self.constants.get(name.text)?.0),
            [] => None,
        }
    }
}

/// Returns how many brackets are open at the end.
fn depth(text: &[Token<'_>]) -> usize {
    let open = text.iter().filter(|token| token.is("(")).count();
    open - text.iter().filter(|token| token.is(")")).count().min(open)
}

fn parse(text: &str) -> Option<u64> {
    let digits = text.replace('_', "");
    let digits = INTEGERS
        .iter()
        .fold(digits.as_str(), |digits, (name, _)| digits.strip_suffix(name).unwrap_or(digits));
    match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => match digits.strip_prefix("0b") {
            Some(digits) => u64::from_str_radix(digits, 2).ok(),
            None => digits.parse().ok(),
        },
    }
}

/// Integer types and their bytes, as the BPF target and the hosts have them.
const INTEGERS: [(&str, u64); 11] = [
    ("usize", 8),
    ("isize", 8),
    ("u8", 1),
    ("i8", 1),
    ("bool", 1),
    ("u16", 2),
    ("i16", 2),
    ("u32", 4),
    ("i32", 4),
    ("u64", 8),
    ("i64", 8),
];

fn integer(name: &str) -> Option<(u64, u64)> {
    INTEGERS.iter().find(|(integer, _)| *integer == name).map(|&(_, size)| (size, size))
}

fn is_integer(name: &str) -> bool {
    integer(name).is_some()
}

/// Returns the index after the bracket that closes the first one from `at` on, or after a `;`.
fn end(tokens: &[Token<'_>], at: usize) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        if ["(", "[", "{"].iter().any(|open| token.is(open)) {
            depth += 1;
        } else if [")", "]", "}"].iter().any(|close| token.is(close)) {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return index + 1;
            }
        } else if depth == 0 && token.is(";") {
            return index + 1;
        }
    }
    tokens.len()
}

/// Splits at the commas that are in no bracket.
fn split<'a>(tokens: &'a [Token<'a>]) -> Vec<&'a [Token<'a>]> {
    let mut depth = 0_usize;
    let parts = tokens.split(|token| {
        if ["(", "[", "{"].iter().any(|open| token.is(open)) {
            depth += 1;
        } else if [")", "]", "}"].iter().any(|close| token.is(close)) {
            depth = depth.saturating_sub(1);
        }
        depth == 0 && token.is(",")
    });
    parts.filter(|part| !part.is_empty()).collect()
}

/// Returns a field or value without attributes and `pub`, `pub(crate)`.
fn without_head<'a>(mut part: &'a [Token<'a>]) -> &'a [Token<'a>] {
    while part.first().is_some_and(|token| token.is("#")) {
        part = &part[end(part, 1)..];
    }
    if part.first().is_some_and(|token| token.is("pub")) {
        part = &part[1..];
        // `pub(crate)`; the type of a field may be in brackets, too, but no tuple is in `abi`.
        if part.first().is_some_and(|token| token.is("(")) {
            part = &part[end(part, 0)..];
        }
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    fn abi(source: &str) -> Abi {
        read(&Tree::of(&[("filter-common/src/abi.rs", source)])).unwrap().unwrap()
    }

    #[test]
    fn read_padding_and_alignment_follow_repr_c() {
        let abi = abi(
            "#[derive(Clone)]\n#[repr(C)]\npub struct A { a: u8, b: u32, c: [[u16; 2]; 3], d: u8 }",
        );
        let a = &abi.layouts["A"];
        assert_eq!(a.shape(), (24, vec![(0, 1), (4, 4), (8, 12), (20, 1)]));
    }

    #[test]
    fn read_expressions_of_constants_are_computed() {
        let text = "const A: u32 = 65_536 / 64;\npub const B: u64 = (A as u64 + 2) * 3 - 1 << 1;\n\
                    pub const C: u64 = i64::MAX as u64;\npub const D: u8 = 0xF0u8;\n\
                    pub const WAIT_NS: u64 = 5;\npub const E: &str = \"e\";";
        let abi = abi(text);
        assert_eq!(abi.constants["A"], 1024);
        assert_eq!(abi.constants["B"], (1026 * 3 - 1) << 1);
        assert_eq!(abi.constants["C"], i64::MAX as u64);
        assert_eq!(abi.constants["D"], 0xF0);
        assert_eq!(abi.constants.len(), 4);
    }

    #[test]
    fn read_values_of_an_enumeration_are_constants() {
        let abi = abi(
            "#[repr(u8)]\npub enum V { /// A.\n A = 0, B = 1 }\n#[repr(C)]\nstruct S { v: V, w: V }",
        );
        assert_eq!(abi.constants["V::B"], 1);
        assert_eq!(abi.layouts["S"].size, 2);
    }

    #[test]
    fn read_size_that_cannot_be_known_is_refused() {
        let tree = Tree::of(&[("filter-common/src/abi.rs", "#[repr(C)]\nstruct S { v: Gone }")]);
        assert_eq!(read(&tree).unwrap_err().line, 2);
    }

    #[test]
    fn read_this_repository_has_the_sizes_that_the_compiler_has() {
        let tree = Tree::read(crate::shell::root()).unwrap();
        let abi = read(&tree).unwrap().unwrap();
        // filter-common asserts these in its macro `layout!`.
        let text = &tree.file("filter-common/src/abi.rs").unwrap().text;
        let (_, sizes) = text.split_once("\nlayout! {").unwrap();
        let (sizes, _) = sizes.split_once('}').unwrap();
        for (name, size) in sizes.split(',').filter_map(|entry| entry.trim().split_once(" = ")) {
            assert_eq!(abi.layouts[name].size.to_string(), size, "{name}");
        }
    }
}
