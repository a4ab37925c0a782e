//! Where the programs of a carrier come from, and their files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::super::Lab;

/// A folder for the files of a program: of this machine, or of another Debian that is a folder here.
pub struct Files {
    folder: TempDir,
    root: Option<PathBuf>,
}

impl Files {
    /// Returns a folder for programs of this machine.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn here() -> Files {
        Files { folder: TempDir::new().expect("a folder"), root: None }
    }

    /// Returns a folder for programs of the Debian in `root`.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn of(root: &Path) -> Files {
        let folder = TempDir::new_in(root.join("tmp")).expect("a folder below /tmp of that Debian");
        Files { folder, root: Some(root.to_owned()) }
    }

    /// Returns the folder as the programs see it.
    ///
    /// # Panics
    /// Never: the folder is below the root.
    #[must_use]
    pub fn inside(&self) -> PathBuf {
        match &self.root {
            None => self.folder.path().to_owned(),
            Some(root) => {
                Path::new("/").join(self.folder.path().strip_prefix(root).expect("below the root"))
            }
        }
    }

    /// Writes a file and returns its path as the programs see it.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.folder.path().join(name), text).expect("a file");
        self.inside().join(name)
    }

    /// Returns the text of a file; empty if it is not there.
    #[must_use]
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    /// Starts a program in the trunk's network. Its output is the file `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub(super) fn start(&self, lab: &Lab, program: &str, arguments: &[&str]) -> Child {
        let mut command = self.command(lab, program);
        let log = File::create(self.folder.path().join("log")).expect("a log");
        let same = log.try_clone().expect("the log again");
        command.args(arguments).stdin(Stdio::null()).stdout(log).stderr(same);
        command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"))
    }

    fn command(&self, lab: &Lab, program: &str) -> Command {
        match &self.root {
            None => lab.command_in_trunk(program),
            Some(root) => {
                let mut command = lab.command_in_trunk("chroot");
                command.arg(root).arg(program);
                command
            }
        }
    }
}
