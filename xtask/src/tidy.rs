//! `cargo xtask tidy`: rules that the compiler does not know.
//!
//! Reads source text only: no build, no root, a few seconds. Each finding says what to do. Findings
//! that were there before their check are counted in a baseline, and may only become fewer.

mod abi;
mod baseline;
mod changed;
mod docs;
mod finding;
mod layers;
mod layout;
mod length;
mod modules;
mod prose;
mod reasons;
mod references;
mod roots;
mod rust;
mod tree;
mod words;

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::shell;
use baseline::Baseline;
use finding::Finding;
use tree::Tree;

/// All checks.
const CHECKS: [fn(&Tree) -> Vec<Finding>; 7] = [
    layers::check,
    references::check,
    words::check,
    docs::check,
    layout::check,
    reasons::check,
    length::check,
];

/// Checks the repository and prints each finding that the baseline does not permit.
///
/// With `paths`, prints every finding of these files and folders, also those of the baseline.
///
/// # Errors
/// Fails if there are findings, or if a file cannot be read.
pub fn check(paths: &[String]) -> Result<()> {
    let start = Instant::now();
    let tree = Tree::read(shell::root())?;
    let findings = findings(&tree);
    if !paths.is_empty() {
        return list(paths, findings);
    }
    let baseline::Judged { new, known, spare } = Baseline::read(&tree)?.judge(findings);
    let new = changed::narrow(new);
    for finding in &new {
        println!("{finding}");
    }
    eprintln!(
        "tidy: {} files, {} findings, {known} known ones, in {:.1} s",
        tree.files.len(),
        new.len(),
        start.elapsed().as_secs_f32()
    );
    if spare > 0 {
        eprintln!("tidy: {spare} fewer than in the baseline: run `cargo xtask tidy --update`");
    }
    if !new.is_empty() {
        bail!(
            "the repository is not tidy: mend the findings above. Where a file has known findings of \
             a check, and no changed line has one, all of them are listed"
        );
    }
    Ok(())
}

/// Writes the records and the baseline as the repository is now, where their rules permit it.
///
/// # Errors
/// Fails if a check would have more findings than before, or if a file cannot be written.
pub fn update() -> Result<()> {
    let mut tree = Tree::read(shell::root())?;
    for (path, text) in
        [(layout::RECORD, layout::update(&tree)), (reasons::LIST, reasons::update(&tree))]
    {
        if let Some(text) = text {
            write(path, &text)?;
        }
    }
    tree = Tree::read(shell::root())?;
    let before = Baseline::read(&tree)?;
    match before.update(&findings(&tree)) {
        Ok(text) => {
            if tree.file(baseline::PATH).is_none_or(|file| file.text != text) {
                write(baseline::PATH, &text)?;
            }
            check(&[])
        }
        Err(grown) => {
            let result = check(&[]);
            eprintln!("tidy: the baseline stays as it was: {}", grown.join(", "));
            result
        }
    }
}

fn findings(tree: &Tree) -> Vec<Finding> {
    let mut findings: Vec<_> = CHECKS.iter().flat_map(|check| check(tree)).collect();
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    findings
}

fn list(paths: &[String], mut findings: Vec<Finding>) -> Result<()> {
    findings.retain(|finding| {
        paths.iter().any(|path| {
            let rest = finding.path.strip_prefix(path.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    });
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings, those of the baseline included", findings.len());
    }
    Ok(())
}

fn write(path: &str, text: &str) -> Result<()> {
    fs::write(shell::root().join(path), text).with_context(|| path.to_owned())?;
    eprintln!("tidy: wrote {path}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_of_this_repository_have_a_place_and_an_advice() {
        let tree = Tree::read(shell::root()).unwrap();
        for finding in findings(&tree) {
            assert!(tree.file(&finding.path).is_some() && finding.line > 0, "{finding}");
            assert!(!finding.what.is_empty() && !finding.advice.is_empty(), "{finding}");
        }
    }
}
