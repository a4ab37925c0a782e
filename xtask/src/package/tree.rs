//! The files that the packages bring, as they lie on the server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::source::{Source, files};
use crate::shell;

/// The line of docs/palang.toml that names an interface, and the one that names none: what a
/// package installs attaches nothing.
const INTERFACES: [&str; 2] = [r#"interfaces = ["eth0"]  "#, r#"interfaces = []        "#];

/// Puts the tree together, and Debian's changelog beside it.
pub fn make(source: &Source, binary: &Path) -> Result<()> {
    let tree = Tree { root: source.folder().join("tree") };
    if tree.root.exists() {
        fs::remove_dir_all(&tree.root)?;
    }
    let at = |path: &str| source.root.join(path);
    tree.copy(binary, "usr/bin/palang")?;
    tree.copy(&at("packaging/palang.service"), "usr/lib/systemd/system/palang.service")?;
    tree.copy(&at("packaging/palang.sysusers"), "usr/lib/sysusers.d/palang.conf")?;
    tree.write("etc/palang/palang.toml", &example(&at("docs/palang.toml"))?)?;
    for (shell, path) in [
        ("bash", "usr/share/bash-completion/completions/palang"),
        ("fish", "usr/share/fish/vendor_completions.d/palang.fish"),
        // Debian and Red Hat have other folders for it.
        ("zsh", "usr/share/zsh/_palang"),
    ] {
        let script = shell::read(Command::new(binary).args(["completions", shell]))?;
        tree.write(path, &script)?;
    }
    for folder in ["grafana", "prometheus"] {
        for file in files(&at("packaging").join(folder))? {
            tree.copy_into(&file, &format!("usr/share/palang/{folder}"))?;
        }
    }
    let doc = "usr/share/doc/palang";
    for file in files(&at("docs"))?.iter().filter(|file| file.is_file()) {
        tree.copy_into(file, doc)?;
    }
    tree.copy_into(&at("README.md"), doc)?;
    tree.copy_into(&at("packaging/sudoers"), doc)?;
    tree.copy(&at("CHANGELOG.md"), &format!("{doc}/changelog"))?;
    // Copied, too: the .rpm keeps the time of a file that is older than the commit.
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        tree.copy_into(&at(licence), "usr/share/licenses/palang")?;
    }
    for (member, name) in [("filter-user", "palang"), ("filter-ebpf", "palang-kernel-program")] {
        tree.write(&format!("{doc}/{name}.cdx.json"), &bill(source, member)?)?;
    }
    let mut pages = Command::new(source.folder().join("release/palang-pages"));
    pages.arg(tree.root.join("usr/share/man")).arg(at("docs/palang.toml"));
    pages.arg(date(source, "+%F")?);
    shell::run(&mut pages)?;
    tree.compress(&["usr/share/man/man1", "usr/share/man/man5"], |_| true)?;
    tree.compress(&[doc], |name| name == "changelog" || name.ends_with(".json"))?;
    fs::write(source.folder().join("debian-changelog"), debian_changelog(source)?)?;
    Ok(())
}

struct Tree {
    root: PathBuf,
}

impl Tree {
    fn place(&self, path: &str) -> Result<PathBuf> {
        let place = self.root.join(path);
        fs::create_dir_all(place.parent().unwrap_or(&self.root))?;
        Ok(place)
    }

    fn write(&self, path: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.place(path)?, text)?)
    }

    fn copy(&self, from: &Path, path: &str) -> Result<()> {
        fs::copy(from, self.place(path)?).with_context(|| from.display().to_string())?;
        Ok(())
    }

    fn copy_into(&self, from: &Path, folder: &str) -> Result<()> {
        let name = from.file_name().unwrap_or_default();
        self.copy(from, &format!("{folder}/{}", name.display()))
    }

    /// Compresses a file as Debian wants it: small, and without name and time of the file.
    fn compress(&self, folders: &[&str], wanted: impl Fn(&str) -> bool) -> Result<()> {
        let mut gzip = Command::new("gzip");
        gzip.args(["-9", "--no-name"]);
        for folder in folders {
            let files = files(&self.root.join(folder))?;
            gzip.args(files.iter().filter(|file| {
                file.file_name().is_some_and(|name| wanted(&name.to_string_lossy()))
            }));
        }
        shell::run_as("gzip -9 --no-name …", &mut gzip)
    }
}

/// Returns the commented example without an interface.
fn example(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let [named, none] = INTERFACES;
    ensure!(text.matches(named).count() == 1, "{}: no line {named:?}", file.display());
    Ok(text.replace(named, none))
}

/// Writes the parts of a member of the workspace (CycloneDX).
fn bill(source: &Source, member: &str) -> Result<String> {
    let name = "package-bill";
    let mut cyclonedx = source.cargo()?;
    cyclonedx.args(["cyclonedx", "--quiet", "--format", "json", "--spec-version", "1.5"]);
    cyclonedx.args([
        "--manifest-path",
        &format!("{member}/Cargo.toml"),
        "--override-filename",
        name,
    ]);
    shell::run(&mut cyclonedx)?;
    // It writes one for each member, beside its Cargo.toml.
    let made = |folder: &Path| folder.join(format!("{name}.json"));
    let file = made(&source.root.join(member));
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string());
    let _ = Command::new("find")
        .arg(&source.root)
        .args(["-maxdepth", "3", "-name"])
        .arg(format!("{name}.json"))
        .arg("-delete")
        .status();
    Ok(text?.replace(&source.root.display().to_string(), "/usr/src/palang"))
}

/// Writes a changelog in Debian's form; ours is CHANGELOG.md.
fn debian_changelog(source: &Source) -> Result<String> {
    Ok(format!(
        "palang ({}-1) unstable; urgency=medium\n\n  * Changes: /usr/share/doc/palang/changelog.gz\n\n \
         -- The Palang founders <palang@palang.invalid>  {}\n",
        env!("CARGO_PKG_VERSION"),
        date(source, "--rfc-email")?
    ))
}

fn date(source: &Source, format: &str) -> Result<String> {
    let mut date = Command::new("date");
    date.env("LC_ALL", "C").args(["--utc", "--date", &format!("@{}", source.time), format]);
    Ok(shell::read(&mut date)?.trim().to_owned())
}
