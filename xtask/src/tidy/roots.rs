//! The root files of all packages: where the modules of a library, program or test begin.

use serde::Deserialize;

use super::tree::{Tree, folder};

/// A root file.
#[derive(Debug, PartialEq, Eq)]
pub struct Root {
    /// Folder of its package.
    pub folder: String,
    /// The file.
    pub path: String,
}

/// The parts of a `Cargo.toml` that name root files.
#[derive(Default, Deserialize)]
struct Manifest {
    package: Option<toml::Table>,
    lib: Option<Target>,
    #[serde(default)]
    bin: Vec<Target>,
    #[serde(default)]
    test: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    path: Option<String>,
}

/// Returns the root files of all packages, those that Cargo finds by itself included.
pub fn roots(tree: &Tree) -> Vec<Root> {
    let mut roots = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with("Cargo.toml")) {
        let Ok(manifest) = toml::from_str::<Manifest>(&file.text) else { continue };
        if manifest.package.is_none() {
            continue;
        }
        let package = file.folder();
        let named = manifest.lib.iter().chain(&manifest.bin).chain(&manifest.test);
        let named = named.filter_map(|target| target.path.as_deref());
        let usual = ["build.rs", "src/lib.rs", "src/main.rs"];
        let inside = |path: &str| {
            if package.is_empty() { path.to_owned() } else { format!("{package}/{path}") }
        };
        let mut paths: Vec<String> = named.chain(usual).map(inside).collect();
        for folder_of_roots in ["src/bin", "tests", "examples", "benches"].map(inside) {
            let files = tree.files.iter().map(|file| &file.path);
            paths.extend(files.filter(|path| folder(path) == folder_of_roots).cloned());
        }
        paths.retain(|path| path.ends_with(".rs") && tree.file(path).is_some());
        paths.sort();
        paths.dedup();
        roots.extend(paths.into_iter().map(|path| Root { folder: package.to_owned(), path }));
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_named_and_usual_ones_are_found() {
        let manifest = "[package]\nname = \"a\"\n[lib]\npath = \"lib.rs\"\n[[test]]\nname = \"t\"\npath = \"t/main.rs\"\n";
        let tree = Tree::of(&[
            ("Cargo.toml", "[workspace]\n"),
            ("a/Cargo.toml", manifest),
            ("a/lib.rs", ""),
            ("a/t/main.rs", ""),
            ("a/src/main.rs", ""),
            ("a/src/bin/b.rs", ""),
            ("a/src/other.rs", ""),
        ]);
        let paths: Vec<_> = roots(&tree).into_iter().map(|root| root.path).collect();
        assert_eq!(paths, ["a/lib.rs", "a/src/bin/b.rs", "a/src/main.rs", "a/t/main.rs"]);
    }
}
