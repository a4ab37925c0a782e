//! An output file that appears under its name only when it is complete, or standard output.

use std::fs;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::NamedTempFile;

use crate::api::client;
use crate::cli::output::{self, Answer, Output, counted};
use crate::exit::{Exit, Failure};

/// Destination of an export.
pub enum WholeFile {
    /// Standard output.
    Stdout(BufWriter<StdoutLock<'static>>),
    /// A temporary file in the folder of the final file.
    File(BufWriter<NamedTempFile>, PathBuf),
}

impl WholeFile {
    /// Creates an output that only its owner can read; `None` or `-` is standard output.
    ///
    /// # Errors
    /// `Usage` if the path exists and is not a regular file; `Failed` if its folder cannot be written.
    pub fn create(path: Option<&Path>) -> Result<WholeFile, Failure> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(WholeFile::Stdout(BufWriter::new(io::stdout().lock())));
        };
        // A rename would replace a symbolic link or a device instead of writing to it.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            let message = format!("{}: not a regular file; `-` is standard output", path.display());
            return Err(Failure::new(Exit::Usage, message));
        }
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            Some(_) | None => Path::new("."),
        };
        match NamedTempFile::new_in(folder) {
            Ok(file) => Ok(WholeFile::File(BufWriter::new(file), path)),
            Err(error) => {
                let message = format!("cannot write a file in {}: {error}", folder.display());
                Err(Failure::new(Exit::Failed, message))
            }
        }
    }

    fn keep(self) -> io::Result<()> {
        match self {
            WholeFile::Stdout(mut writer) => writer.flush(),
            WholeFile::File(writer, path) => {
                let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.as_file().sync_all()?;
                file.persist(path)?;
                Ok(())
            }
        }
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            WholeFile::Stdout(writer) => writer.write(bytes),
            WholeFile::File(writer, _) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            WholeFile::Stdout(writer) => writer.flush(),
            WholeFile::File(writer, _) => writer.flush(),
        }
    }
}

/// Moves the file to its name if it was written and the list that it holds is complete.
///
/// # Errors
/// Returns the error of the list or of the write; the file is then missing or as it was before.
pub fn finish(
    file: WholeFile,
    result: io::Result<()>,
    end: Result<(), client::Error>,
) -> Result<(), Failure> {
    end?;
    output::written(result.and_then(|()| file.keep()))
}

/// Reports an export.
#[derive(Serialize)]
pub struct Exported {
    file: String,
    rows: u64,
    #[serde(skip)]
    noun: &'static str,
}

impl Exported {
    /// Prints the report, unless the export itself went to standard output.
    ///
    /// # Errors
    /// `Failed` if the output cannot be written.
    pub fn print(
        file: Option<&Path>,
        rows: u64,
        noun: &'static str,
        output: Output,
    ) -> Result<(), Failure> {
        let Some(file) = file.filter(|path| *path != Path::new("-")) else { return Ok(()) };
        output.print(&Exported { file: file.display().to_string(), rows, noun })
    }
}

impl Answer for Exported {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        writeln!(writer, "{} in {}", counted(self.rows, self.noun), output::clean(&self.file))
    }

    fn raw(&self) -> Vec<Vec<String>> {
        vec![vec![self.file.clone(), self.rows.to_string()]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_appears_only_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blocks.csv");
        fs::write(&path, "before").unwrap();
        let begin = || {
            let mut file = WholeFile::create(Some(&path)).unwrap();
            file.write_all(b"after").unwrap();
            file
        };
        let end = Err(client::Error::Answer("broke off".into()));
        assert!(finish(begin(), Ok(()), end).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"before");
        assert!(finish(begin(), Err(io::Error::other("disk full")), Ok(())).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"before");
        finish(begin(), Ok(()), Ok(())).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_device_is_not_replaced() {
        let failure = WholeFile::create(Some(Path::new("/dev/null"))).err().unwrap();
        assert_eq!(failure.exit, Exit::Usage);
    }
}
