//! A store that is made beside its place, so that it is complete or does not exist.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use tempfile::{Builder, NamedTempFile};

use crate::store::error::Error;
use crate::store::{connection, schema, vacuum};

/// The owner writes; its group, to which the roles belong, reads.
const MODE: u32 = 0o640;

/// A store that is made beside its place, so that it is complete or does not exist. It is deleted with
/// this value unless it gets its name.
pub(crate) struct Part {
    pub(super) file: NamedTempFile,
    /// Its place; messages name this.
    pub(super) path: PathBuf,
}

impl Part {
    /// Creates an empty file beside `path`, which is absolute.
    pub(crate) fn begin(path: PathBuf) -> Result<Part, Error> {
        let begin = || {
            let name = path.file_name().unwrap_or_default();
            let file = Builder::new().prefix(name).suffix(".part").tempfile_in(folder(&path))?;
            file.as_file().set_permissions(Permissions::from_mode(MODE))?;
            Ok(file)
        };
        let file = begin().map_err(|error| Error::io(&path, error))?;
        Ok(Part { file, path })
    }

    /// Makes the tables in it.
    pub(crate) fn migrate(&self) -> Result<(), Error> {
        self.with(|conn| {
            vacuum::make_incremental(conn)?;
            schema::migrate(conn)
        })
    }

    /// Changes the database in it.
    pub(super) fn with(
        &self,
        change: impl FnOnce(&mut Connection) -> rusqlite::Result<()>,
    ) -> Result<(), Error> {
        connection::open(self.file.path(), OpenFlags::SQLITE_OPEN_READ_WRITE)
            .and_then(|mut conn| change(&mut conn))
            .map_err(|error| Error::sqlite(&self.path, error))
    }

    /// Gives it to the owner of the file in its place, or of the folder. The user who restores may
    /// differ from the daemon's user.
    pub(super) fn give_to_owner(&self) -> Result<(), Error> {
        fs::metadata(&self.path)
            .or_else(|_| fs::metadata(folder(&self.path)))
            .and_then(|owner| chown(self.file.path(), Some(owner.uid()), Some(owner.gid())))
            .map_err(|error| Error::io(&self.path, error))
    }

    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.as_file().sync_all().map_err(|error| Error::io(&self.path, error))
    }

    /// Moves it to its place, where no file may be.
    pub(crate) fn name(self) -> Result<(), Error> {
        let Part { file, path } = self;
        file.persist_noclobber(&path)
            .map_err(|error| error.error)
            .and_then(|_| File::open(folder(&path))?.sync_all())
            .map_err(|error| Error::io(&path, error))
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}
