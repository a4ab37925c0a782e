//! An apt of our own: other suites and architectures than this machine's, without a change to this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::arch::Arch;
use crate::debian::mirror;
use crate::shell;

/// The keys that Debian signs all its suites with (package debian-archive-keyring).
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The names of Debian's two archives.
const MAIN: &str = "Debian";
const SECURITY: &str = "Debian-Security";

/// A folder with sources, lists and cache of its own.
pub struct Apt {
    folder: PathBuf,
    arch: Arch,
}

impl Apt {
    /// Makes `folder` know the packages that `suites` have now.
    pub fn open(folder: PathBuf, suites: &[&str], arch: Arch) -> Result<Self> {
        for name in ["state/lists/partial", "cache/archives/partial"] {
            let folder = folder.join(name);
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let mut sources = String::new();
        for suite in suites {
            let label = if suite.ends_with("-security") { SECURITY } else { MAIN };
            sources += &format!("deb [signed-by={KEYS}] {} {suite} main\n", mirror(label)?);
        }
        fs::write(folder.join("sources.list"), sources)?;
        fs::write(folder.join("status"), "")?; // nothing is installed
        let apt = Self { folder, arch };
        shell::run_as(
            &format!("apt-get update  # {} of {}", arch.debian(), suites.join(", ")),
            apt.command("apt-get").args(["--quiet=2", "update"]),
        )?;
        Ok(apt)
    }

    /// Returns the names of the packages whose name fits a regular expression.
    pub fn search(&self, expression: &str) -> Result<Vec<String>> {
        let mut search = self.command("apt-cache");
        let found = shell::read(search.args(["search", "--names-only", expression]))?;
        Ok(found.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
    }

    /// Downloads a package, in this version if one is given, and unpacks it to `folder`.
    pub fn unpack(&self, package: &str, version: Option<&str>, folder: &Path) -> Result<()> {
        let download = self.folder.join("download");
        if download.exists() {
            fs::remove_dir_all(&download)?; // what an interrupted run left
        }
        for folder in [&download, folder] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let wanted = version.map_or_else(|| package.to_owned(), |v| format!("{package}={v}"));
        shell::run_as(
            &format!("apt-get download {wanted}  # {}", self.arch.debian()),
            self.command("apt-get").args(["--quiet=2", "download", &wanted]).current_dir(&download),
        )?;
        let archive = fs::read_dir(&download)?.filter_map(Result::ok).map(|entry| entry.path());
        let archive = archive.last().with_context(|| {
            format!("apt-get download left no package in {}", download.display())
        })?;
        shell::run(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(folder))?;
        fs::remove_dir_all(&download)?;
        Ok(())
    }

    /// Returns a program of apt that looks into our folder only.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        let here = |name: &str| self.folder.join(name).display().to_string();
        for option in [
            format!("Dir::Etc::sourcelist={}", here("sources.list")),
            "Dir::Etc::sourceparts=/dev/null".into(),
            // A preference of the machine would hide what a suite has.
            "Dir::Etc::preferences=/dev/null".into(),
            "Dir::Etc::preferencesparts=/dev/null".into(),
            format!("Dir::State={}", here("state")),
            format!("Dir::State::status={}", here("status")),
            format!("Dir::Cache={}", here("cache")),
            format!("APT::Architecture={}", self.arch.debian()),
            format!("APT::Architectures={}", self.arch.debian()),
            // Our folder need not be readable for apt's own user.
            "APT::Sandbox::User=root".into(),
            // A suite that cannot be read is an error, not a warning.
            "APT::Update::Error-Mode=any".into(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }
}

/// Returns the code name of the Debian that this machine runs: "bookworm".
pub fn codename() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let name = name.map(|name| name.trim_matches('"').to_owned()).unwrap_or_default();
    ensure!(!name.is_empty(), "/etc/os-release has no VERSION_CODENAME: Debian's has one");
    Ok(name)
}
