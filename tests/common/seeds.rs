//! Messages of other SIP stacks' tests, to be mutated (`seeds/MANIFEST.tsv`).

use std::path::Path;

/// Returns all seed messages.
///
/// # Panics
/// When the folder cannot be read.
#[must_use]
pub fn all() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    collect(&crate::fixtures().join("seeds"), &mut seeds);
    assert!(seeds.len() > 100);
    seeds
}

fn collect(folder: &Path, seeds: &mut Vec<Vec<u8>>) {
    let mut entries: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, seeds);
        } else if !path.ends_with("README.md") && !path.ends_with("MANIFEST.tsv") {
            seeds.push(std::fs::read(path).unwrap());
        }
    }
}
