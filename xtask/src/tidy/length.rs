//! No source file is longer than a person can keep in mind, except for a reason.

use super::finding::Finding;
use super::tree::Tree;

const CHECK: &str = "length";

/// Most lines of a Rust source file.
const LINES_MAX: usize = 600;

/// The file and the section that name the files that may be longer, each with a reason.
const ARCHITECTURE: &str = "ARCHITECTURE.md";
const SECTION: &str = "## Long files";

/// Returns the Rust source files that are longer than 600 lines without a reason.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let exceptions = exceptions(tree);
    for (path, line) in &exceptions {
        let lines = tree.file(path).map(|file| file.text.lines().count());
        let (what, advice) = match lines {
            None => (format!("`{path}` does not exist"), "remove its line"),
            Some(lines) if lines <= LINES_MAX => {
                (format!("`{path}` has only {lines} lines"), "remove its line")
            }
            Some(_) => continue,
        };
        findings.push(Finding::new(CHECK, ARCHITECTURE, *line, what, advice));
    }
    for file in tree.files.iter().filter(|file| file.is_rust()) {
        let lines = file.text.lines().count();
        if lines <= LINES_MAX || exceptions.iter().any(|(path, _)| *path == file.path) {
            continue;
        }
        let what = format!("{lines} lines, {LINES_MAX} are the most");
        let advice = format!(
            "split it by what its parts do, or name it with the reason in {ARCHITECTURE} under \
             \"{SECTION}\""
        );
        let mut finding = Finding::new(CHECK, &file.path, LINES_MAX + 1, what, advice);
        finding.weight = lines - LINES_MAX;
        findings.push(finding);
    }
    findings
}

/// Returns the files that the section names, with the line of each: "- `path`: reason".
fn exceptions(tree: &Tree) -> Vec<(&str, usize)> {
    let Some(file) = tree.file(ARCHITECTURE) else { return Vec::new() };
    let lines = file.text.lines().zip(1..).skip_while(|(line, _)| *line != SECTION).skip(1);
    let section = lines.take_while(|(line, _)| !line.starts_with("## "));
    let entries = section.filter_map(|(line, number)| {
        let (path, reason) = line.strip_prefix("- `")?.split_once("`: ")?;
        (!reason.trim().is_empty()).then_some((path, number))
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_long_file_is_found_with_its_surplus() {
        let long = "\n".repeat(612);
        let tree = Tree::of(&[("a/src/long.rs", &long), ("a/src/short.rs", "\n")]);
        let findings = check(&tree);
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].path.as_str(), findings[0].weight), ("a/src/long.rs", 12));
    }

    #[test]
    fn check_long_file_with_a_reason_is_not_found() {
        let long = "\n".repeat(612);
        let page = "# A\n## Long files\n- `a/src/long.rs`: one table\n## Next\n";
        assert_eq!(check(&Tree::of(&[("a/src/long.rs", &long), (ARCHITECTURE, page)])), []);
        let no_reason = page.replace(": one table", ": ");
        let tree = Tree::of(&[("a/src/long.rs", &long), (ARCHITECTURE, &no_reason)]);
        assert_eq!(check(&tree).len(), 1);
    }

    #[test]
    fn check_exception_that_is_not_needed_is_found() {
        let page = "## Long files\n- `a/src/gone.rs`: one table\n- `a/src/short.rs`: one table\n";
        let findings = check(&Tree::of(&[("a/src/short.rs", "\n"), (ARCHITECTURE, page)]));
        assert_eq!(findings.iter().map(|finding| finding.line).collect::<Vec<_>>(), [2, 3]);
    }
}
