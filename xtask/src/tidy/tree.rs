//! The files of the repository.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Folders that are not part of the repository.
const SKIPPED: [&str; 2] = [".git", "target"];

/// Files whose text the checks read, by the end of their name.
const TEXTS: [&str; 12] = [
    ".rs",
    ".md",
    ".toml",
    ".yml",
    ".yaml",
    ".sh",
    ".py",
    ".cfg",
    ".service",
    ".sysusers",
    ".txt",
    ".json",
];

/// Folders of recorded calls: their files are other people's, except for our notes and scripts.
const RECORDED: [&str; 2] = ["tests/fixtures/pcaps/", "tests/fixtures/seeds/"];

/// A file and its text.
pub struct File {
    /// Path from the top folder of the repository, with `/`.
    pub path: String,
    /// Content.
    pub text: String,
}

impl File {
    /// Returns whether this is a Rust source file.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Returns the folder of this file: `docs` for `docs/policy.md`, empty for `README.md`.
    pub fn folder(&self) -> &str {
        folder(&self.path)
    }

    /// Returns whether this file holds only tests.
    pub fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.contains("/tests/")
    }
}

/// Returns the folder of a path; empty for a path without a folder.
pub fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Returns `path` as seen from `folder`, without `.` and `..`; `None` when it leaves the repository.
pub fn join(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// All files of the repository; the texts that the checks read are in memory.
pub struct Tree {
    /// Texts, ordered by path.
    pub files: Vec<File>,
    /// Paths of all files and folders.
    paths: BTreeSet<String>,
}

impl Tree {
    /// Reads the repository below `root`, except for `.git` and `target`.
    ///
    /// # Errors
    /// A folder or file that cannot be read.
    pub fn read(root: &Path) -> Result<Tree> {
        let mut tree = Tree { files: Vec::new(), paths: BTreeSet::new() };
        tree.read_folder(root, "")?;
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(tree)
    }

    fn read_folder(&mut self, root: &Path, folder: &str) -> Result<()> {
        let here = root.join(folder);
        let entries = fs::read_dir(&here).with_context(|| here.display().to_string())?;
        for entry in entries {
            let entry = entry.with_context(|| here.display().to_string())?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let kind = entry.file_type().with_context(|| path.clone())?;
            if kind.is_dir() {
                // A worktree has a file `.git`, a clone has a folder.
                if !SKIPPED.contains(&name.as_str()) {
                    self.paths.insert(path.clone());
                    self.read_folder(root, &path)?;
                }
                continue;
            }
            if is_text(&path) {
                let bytes = fs::read(root.join(&path)).with_context(|| path.clone())?;
                if let Ok(text) = String::from_utf8(bytes) {
                    self.files.push(File { path: path.clone(), text });
                }
            }
            self.paths.insert(path);
        }
        Ok(())
    }

    /// Returns a repository of these files.
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree { files: Vec::new(), paths: BTreeSet::new() };
        for (path, text) in files {
            tree.files.push(File { path: (*path).to_owned(), text: (*text).to_owned() });
            let mut path = *path;
            while !path.is_empty() {
                tree.paths.insert(path.to_owned());
                path = folder(path);
            }
        }
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        tree
    }

    /// Returns the text file at `path`.
    pub fn file(&self, path: &str) -> Option<&File> {
        let index = self.files.binary_search_by(|file| file.path.as_str().cmp(path)).ok()?;
        Some(&self.files[index])
    }

    /// Returns whether a file or folder is at `path`.
    pub fn exists(&self, path: &str) -> bool {
        path.is_empty() || self.paths.contains(path)
    }

    /// Returns whether the path of a file or folder ends in these whole parts.
    pub fn has_ending(&self, ending: &str) -> bool {
        self.paths.iter().any(|path| {
            path.strip_suffix(ending).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
        })
    }

    /// Returns whether `name` is a file or folder at the top of the repository.
    pub fn is_at_top(&self, name: &str) -> bool {
        !name.is_empty() && !name.contains('/') && self.paths.contains(name)
    }
}

fn is_text(path: &str) -> bool {
    let recorded = RECORDED.iter().any(|folder| path.starts_with(folder));
    if recorded {
        return path.ends_with(".md") || path.ends_with(".py");
    }
    // Files without a known ending that hold a script or sentences.
    let named = path.starts_with(".ci/")
        || path.starts_with(".githooks/")
        || ["packaging/deb/", "packaging/rpm/"].iter().any(|folder| path.starts_with(folder));
    named || TEXTS.iter().any(|ending| path.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn join_path_with_dots_is_resolved() {
        assert_eq!(join("docs", "../src/a.rs").as_deref(), Some("src/a.rs"));
        assert_eq!(join("", "./README.md").as_deref(), Some("README.md"));
        assert_eq!(join("docs", "../../elsewhere.md"), None);
    }

    #[test]
    fn has_ending_half_a_name_is_not_found() {
        let tree = Tree::of(&[("filter-user/src/config.rs", "")]);
        assert!(tree.has_ending("src/config.rs"));
        assert!(tree.has_ending("filter-user/src"));
        assert!(!tree.has_ending("fig.rs"));
    }

    #[test]
    fn read_this_repository_finds_this_file() {
        let tree = Tree::read(crate::shell::root()).unwrap();
        assert!(tree.file("xtask/src/tidy/tree.rs").is_some());
        assert!(tree.exists("docs"));
        assert!(!tree.exists("target"));
    }
}
