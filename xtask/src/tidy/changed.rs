//! Lines that were changed since the last commit, to show the new finding among the known ones.

use std::ops::Range;
use std::process::Command;

use super::finding::Finding;
use crate::shell;

/// Returns the findings on changed lines; all of a file whose changed lines have none.
pub fn narrow(findings: Vec<Finding>) -> Vec<Finding> {
    let mut narrowed: Vec<Finding> = Vec::new();
    for of_file in findings.chunk_by(|a, b| a.path == b.path) {
        let lines = lines(&of_file[0].path);
        let is_changed =
            |finding: &&Finding| lines.iter().any(|range| range.contains(&finding.line));
        let changed: Vec<_> = of_file.iter().filter(is_changed).cloned().collect();
        narrowed.extend(if changed.is_empty() { of_file.to_vec() } else { changed });
    }
    narrowed
}

/// Returns the changed lines of a file; none if git cannot say.
fn lines(path: &str) -> Vec<Range<usize>> {
    let mut git = Command::new("git");
    git.current_dir(shell::root()).args(["diff", "--unified=0", "HEAD", "--", path]);
    match git.output() {
        Ok(output) if output.status.success() => ranges(&String::from_utf8_lossy(&output.stdout)),
        _ => Vec::new(),
    }
}

/// Returns the new lines of a diff: `@@ -10,2 +11,3 @@` are lines 11 to 13.
fn ranges(diff: &str) -> Vec<Range<usize>> {
    let heads = diff.lines().filter_map(|line| line.strip_prefix("@@ ")?.split(' ').nth(1));
    let ranges = heads.filter_map(|head| {
        let (start, count) = head.strip_prefix('+')?.split_once(',').unwrap_or((&head[1..], "1"));
        let (start, count): (usize, usize) = (start.parse().ok()?, count.parse().ok()?);
        Some(start..start + count)
    });
    ranges.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_diff_are_its_new_lines() {
        let diff = "--- a/x\n+++ b/x\n@@ -1 +1 @@ fn f\n-a\n+b\n@@ -5,2 +5,0 @@\n@@ -9,0 +8,3 @@\n";
        assert_eq!(ranges(diff), [1..2, 5..5, 8..11]);
    }
}
