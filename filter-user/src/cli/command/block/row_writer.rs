//! Writes blocks to a file, as CSV or JSON lines.

use std::io::{self, Write};

use crate::cli::command::block::rows::{FileRow, Format, HEADER, to_cell};

/// Writes rows to a file.
pub enum Writer<W: Write> {
    /// CSV with the header.
    Csv(Box<csv::Writer<W>>),
    /// One JSON object per line.
    Json(W),
}

impl<W: Write> Writer<W> {
    /// Returns a writer; the header of CSV is already written.
    ///
    /// # Errors
    /// Returns the error of `writer`.
    pub fn new(writer: W, format: Format) -> io::Result<Writer<W>> {
        match format {
            Format::Csv => {
                let mut csv = csv::WriterBuilder::new().has_headers(false).from_writer(writer);
                csv.write_record(HEADER)?;
                Ok(Writer::Csv(Box::new(csv)))
            }
            Format::Json => Ok(Writer::Json(writer)),
        }
    }

    /// Writes a row.
    ///
    /// # Errors
    /// Returns the error of the underlying writer.
    pub fn row(&mut self, row: &FileRow) -> io::Result<()> {
        match self {
            Writer::Csv(csv) => Ok(csv.serialize(row.clone().with_texts(to_cell))?),
            Writer::Json(writer) => {
                serde_json::to_writer(&mut *writer, row)?;
                writer.write_all(b"\n")
            }
        }
    }

    /// Writes what is buffered and returns the underlying writer.
    ///
    /// # Errors
    /// Returns the error of the underlying writer.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Writer::Csv(csv) => csv.into_inner().map_err(csv::IntoInnerError::into_error),
            Writer::Json(writer) => Ok(writer),
        }
    }
}
