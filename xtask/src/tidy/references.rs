//! Paths and sections that comments, messages and pages name exist.

use super::finding::Finding;
use super::prose::comments;
use super::rust::{Kind, lex};
use super::tree::{File, Tree, join};

const CHECK: &str = "reference";

/// References that are right although nothing here has that name.
const EXCEPTIONS: &str = "xtask/tidy/references.toml";

/// A text and its line.
type Line<'a> = (usize, &'a str);

/// Returns the references to files and sections that do not exist.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let exceptions = match exceptions(tree) {
        Ok(exceptions) => exceptions,
        Err(finding) => return vec![finding],
    };
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.path != EXCEPTIONS) {
        let checker = Checker { tree, file, exceptions: &exceptions };
        checker.check(&mut findings);
    }
    findings
}

/// Returns the exceptions, or the finding that their list cannot be read.
fn exceptions(tree: &Tree) -> Result<Vec<String>, Finding> {
    let Some(file) = tree.file(EXCEPTIONS) else { return Ok(Vec::new()) };
    let wrong =
        |what: &str| Finding::new(CHECK, EXCEPTIONS, 1, what, "write \"name\" = \"reason\"");
    let table: toml::Table = toml::from_str(&file.text).map_err(|error| wrong(error.message()))?;
    let entries = table.into_iter().map(|(name, reason)| match reason.as_str() {
        Some(reason) if !reason.is_empty() => Ok(name),
        _ => Err(wrong(&format!("\"{name}\" has no reason"))),
    });
    entries.collect()
}

struct Checker<'a> {
    tree: &'a Tree,
    file: &'a File,
    exceptions: &'a [String],
}

impl Checker<'_> {
    fn check(&self, findings: &mut Vec<Finding>) {
        let mut dead = |line, what: String, advice: &str| {
            findings.push(Finding::new(CHECK, &self.file.path, line, what, advice));
        };
        let is_page = self.file.path.ends_with(".md");
        for (line, text) in self.texts() {
            if is_page {
                for target in links(text) {
                    self.check_link(line, target, &mut dead);
                }
            }
            for (word, rest) in words(text) {
                let Some(path) = self.as_path(word) else { continue };
                if self.exceptions.iter().any(|name| name == path) {
                    continue;
                }
                match self.find(path) {
                    None => {
                        let what = format!("`{path}` does not exist");
                        dead(line, what, "name the file that it is now, or remove the reference");
                    }
                    Some(found) => self.check_section(line, &found, rest, &mut dead),
                }
            }
        }
    }

    /// Returns the lines that can name a file.
    fn texts(&self) -> Vec<Line<'_>> {
        if !self.file.is_rust() {
            return (1..).zip(self.file.text.lines()).collect();
        }
        let tokens = lex(&self.file.text);
        let mut lines: Vec<Line<'_>> = comments(&tokens).into_iter().flatten().collect();
        let is_message = |text: &str| text.contains(' ');
        let messages = tokens.iter().filter(|token| {
            token.kind == Kind::Text
                && !token.test
                && !self.file.is_test()
                && is_message(token.text)
        });
        for token in messages {
            lines.extend((token.line..).zip(token.text.lines()));
        }
        lines
    }

    /// Returns a word that is written like the path of a file of ours.
    fn as_path<'a>(&self, word: &'a str) -> Option<&'a str> {
        let word = word.trim_start_matches(['`', '(', '"', '\'', '*', '[', '<']);
        let end = word.find(['`', ')', '"', '\'', ']', '>', '#', ',', ';']).unwrap_or(word.len());
        let word = word[..end].trim_end_matches(['.', ':', '*', '/', '…', '!', '?', '|', '\\']);
        // A path with a line: "README.md", or "mod.rs:12".
        let word = word.split_once(".rs:").map_or(word, |(stem, _)| &word[..stem.len() + 3]);
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-./+@".contains(c);
        if word.is_empty() || !word.chars().all(plain) || word.starts_with(['/', '-', '@', '.']) {
            return None;
        }
        let (first, rest) = word.split_once('/').unwrap_or((word, ""));
        let is_source = (word.ends_with(".rs") || word.ends_with(".md"))
            && word.rsplit('/').next().is_some_and(|name| name.len() > 3);
        // "tests/live", not "and/or".
        let is_ours = !rest.is_empty() && self.tree.is_at_top(first) && !first.contains(".rs");
        (is_source || is_ours).then_some(word)
    }

    /// Returns the file or folder that a path names, as seen from here or by its last parts.
    fn find(&self, path: &str) -> Option<String> {
        let near = join(self.file.folder(), path).filter(|path| self.tree.exists(path));
        let from_top = || self.tree.exists(path).then(|| path.to_owned());
        let anywhere = || self.tree.has_ending(path).then(|| path.to_owned());
        near.or_else(from_top).or_else(anywhere)
    }

    /// Checks the target of a link in a page.
    fn check_link(&self, line: usize, target: &str, dead: &mut impl FnMut(usize, String, &str)) {
        // An address, or the documentation of an item (`crate::a`).
        if target.contains("://") || target.contains("::") || target.starts_with("mailto:") {
            return;
        }
        let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
        let folder = self.file.folder();
        let found = if path.is_empty() { Some(self.file.path.clone()) } else { join(folder, path) };
        let Some(found) = found.filter(|found| self.tree.exists(found)) else {
            let what = format!("the link to `{path}` leads nowhere");
            dead(line, what, "link to the file that it is now");
            return;
        };
        if let Some(page) = self.tree.file(&found).filter(|_| !anchor.is_empty())
            && page.path.ends_with(".md")
            && !headings(&page.text).any(|heading| slug(heading) == anchor)
        {
            let what = format!("`{found}` has no heading `#{anchor}`");
            dead(line, what, "link to a heading that it has");
        }
    }

    /// Checks that a page has the section that is named after it by "§" and its number.
    fn check_section(
        &self,
        line: usize,
        path: &str,
        rest: &str,
        dead: &mut impl FnMut(usize, String, &str),
    ) {
        let Some(number) = rest.trim_start_matches(['`', ')', ' ', ',']).strip_prefix('§') else {
            return;
        };
        let end = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
        let number = number[..end].trim_end_matches('.');
        let file = self
            .tree
            .files
            .iter()
            .find(|file| file.path == path || file.path.ends_with(&format!("/{path}")));
        if let Some(file) = file.filter(|file| !has_section(&file.text, number)) {
            let what = format!("`{}` has no section {number}", file.path);
            dead(line, what, "name a section that it has");
        }
    }
}

/// Returns whether a page has a heading with this number; "5.7" may be item 7 below heading 5.
fn has_section(text: &str, number: &str) -> bool {
    let is = |line: &str, number: &str| {
        let rest = line.trim_start_matches(['#', ' ']).strip_prefix(number);
        rest.is_some_and(|rest| rest.starts_with(". ") || rest.starts_with(' '))
    };
    if headings(text).any(|heading| is(heading, number)) {
        return true;
    }
    let Some((chapter, item)) = number.rsplit_once('.') else { return false };
    let mut lines = text.lines().skip_while(|line| !(line.starts_with('#') && is(line, chapter)));
    lines.next().is_some()
        && lines.take_while(|line| !line.starts_with("## ")).any(|line| is(line, item))
}

fn headings(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        is_code ^= line.starts_with("```");
        !is_code && line.starts_with('#')
    })
}

/// Returns the anchor of a heading, as code hosts make it.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_' || *c == ' ');
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Returns the targets of links: `[text](target)`, `[name]: target`.
fn links(text: &str) -> Vec<&str> {
    let mut targets = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("](") {
        let end = after.find([')', ' ']).unwrap_or(after.len());
        targets.push(&after[..end]);
        rest = &after[end..];
    }
    if let Some((_, target)) = text.strip_prefix('[').and_then(|text| text.split_once("]: ")) {
        targets.push(target.split_whitespace().next().unwrap_or_default());
    }
    targets.retain(|target| !target.is_empty());
    targets
}

/// Returns the words of a line, each with what follows it; targets of links are left out.
fn words(text: &str) -> Vec<(&str, &str)> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| !c.is_whitespace()) {
        rest = &rest[start..];
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let word = &rest[..end];
        let text = word.split_once("](").map_or(word, |(text, _)| text);
        if !word.contains("://") {
            words.push((text, &rest[end..]));
        }
        rest = &rest[end..];
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESIGN: &str =
        "# Design\n## 5. The way\n1. First.\n7. Seventh.\n### 5.9 Last part\n## 6 End\n";

    fn found(path: &str, text: &str) -> Vec<String> {
        let tree = Tree::of(&[
            ("docs/design.md", DESIGN),
            ("docs/policy.md", ""),
            ("a/src/part/inner.rs", ""),
            ("tests/lab/net.rs", ""),
            (EXCEPTIONS, "\"docs.rs\" = \"a web site\"\n"),
            (path, text),
        ]);
        check(&tree).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn check_references_that_exist_are_right() {
        for (path, text) in [
            ("a/src/a.rs", "/// See `docs/design.md` and a/src/part/inner.rs:12."),
            ("a/src/a.rs", "// `part/inner.rs` and `inner.rs`, [`x`](crate::part), tests/lab."),
            ("a/src/a.rs", "fn f() { print(\"see docs/policy.md for more\") }"),
            ("docs/b.md", "[a](policy.md), [b](../a/src/part/inner.rs), [c](design.md#5-the-way)"),
            ("docs/b.md", "docs.rs, https://x/docs/gone.md, /etc/palang/x.md, and/or, *.rs"),
            (
                "docs/b.md",
                "docs/design.md §5, `docs/design.md` §5.7, docs/design.md §5.9, docs/design.md §6",
            ),
            ("a/src/a.rs", "fn f() { open(\"docs/gone.md\") }"), // no message: the compiler or a test sees it
        ] {
            assert_eq!(found(path, text), [""; 0], "{text}");
        }
    }

    #[test]
    fn check_dead_references_are_found() {
        for (path, text, what) in [
            ("a/src/a.rs", "/// See `docs/gone.md`.", "`docs/gone.md` does not exist"),
            ("a/src/a.rs", "// In outer.rs.", "`outer.rs` does not exist"),
            (
                "a/src/a.rs",
                "fn f() { print(\"see tests/gone/x for more\") }",
                "`tests/gone/x` does not exist",
            ),
            ("docs/b.md", "[a](gone.md)", "the link to `gone.md` leads nowhere"),
            ("docs/b.md", "[a](../../outside.md)", "the link to `../../outside.md` leads nowhere"),
            (
                "docs/b.md",
                "[a](design.md#5-the-end)",
                "`docs/design.md` has no heading `#5-the-end`",
            ),
            ("docs/b.md", "[a](#none)", "`docs/b.md` has no heading `#none`"),
            ("a/src/a.rs", "// As in docs/design.md §5.8.", "`docs/design.md` has no section 5.8"),
            ("a.toml", "x = 1 # see docs/gone.toml", "`docs/gone.toml` does not exist"),
        ] {
            assert_eq!(found(path, text), [what], "{text}");
        }
    }

    #[test]
    fn check_exception_without_a_reason_is_found() {
        let tree = Tree::of(&[(EXCEPTIONS, "\"docs.rs\" = \"\"\n")]);
        assert_eq!(check(&tree)[0].what, "\"docs.rs\" has no reason");
    }
}
