//! Answers with lists, as newline-delimited JSON: read page by page, as fast as the client reads.
//!
//! Between two pages a list holds no thread and no transaction. So a slow or stopped reader delays
//! nobody, and the store's log can shrink. A list therefore has no single moment: a row that exists
//! from its beginning to its end is in it once.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use futures_util::{Stream, StreamExt as _, stream};
use serde::Serialize;

use crate::api::wire::{Problem, ProblemKind};
use crate::daemon::limits;
use crate::daemon::limits::Slot;
use crate::daemon::store_thread::StoreHandle;
use crate::store::{Error, Reader};

/// Bytes of a page, but for its last line.
const PAGE_BYTES: usize = 128 * 1024;
/// Rows that are looked at for a page, whether they are in it or not.
const PAGE_ROWS: usize = 5_000;

/// A page that is being read.
#[derive(Debug, Default)]
pub struct Page {
    bytes: Vec<u8>,
    rows: usize,
    /// There is no room for more; another page begins after the last row.
    is_full: bool,
    /// A line that cannot be written as JSON, which should not be.
    failed: Option<serde_json::Error>,
}

impl Page {
    /// Adds a row to the list; breaks when the page is full.
    pub fn put(&mut self, line: &impl Serialize) -> ControlFlow<()> {
        self.failed = serde_json::to_writer(&mut self.bytes, line).err();
        self.bytes.push(b'\n');
        self.pass()
    }

    /// Skips a row; breaks when the page is full.
    pub fn pass(&mut self) -> ControlFlow<()> {
        self.rows += 1;
        self.is_full = self.bytes.len() >= PAGE_BYTES || self.rows >= PAGE_ROWS;
        if self.is_full || self.failed.is_some() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

/// Adds rows to a page, and continues with the next page where it stopped.
pub trait Rows: FnMut(&Reader, &mut Page) -> Result<(), Error> + Send + 'static {}

impl<F: FnMut(&Reader, &mut Page) -> Result<(), Error> + Send + 'static> Rows for F {}

/// Answers with a list. If an error comes later, the connection is cut: half a list never looks
/// like a whole one.
///
/// # Errors
/// [`ProblemKind::Store`] if the first page cannot be read.
pub async fn list(store_handle: &StoreHandle, rows: impl Rows) -> Result<Response, Problem> {
    let (bytes, rest) = page(store_handle, rows).await?;
    let list = List { bytes, rest, store_handle: store_handle.clone(), slot: limits::slot() };
    let pages = stream::unfold(list, async |mut list| {
        while list.bytes.is_empty() {
            let next = page(&list.store_handle, list.rest.take()?);
            match limits::within(list.slot.clone(), next).await {
                Ok((bytes, rest)) => (list.bytes, list.rest) = (bytes, rest),
                Err(problem) => return Some((Err(io::Error::other(problem.message)), list)),
            }
        }
        let bytes = std::mem::take(&mut list.bytes);
        Some((Ok(Bytes::from(bytes)), list))
    });
    Ok(ndjson(Body::from_stream(pages)))
}

/// A list that is being sent.
struct List<R> {
    /// Bytes that were read and not sent.
    bytes: Vec<u8>,
    /// Reads the rest; `None`: all was read.
    rest: Option<R>,
    store_handle: StoreHandle,
    slot: Option<Arc<Slot>>,
}

/// Reads a page, and returns the reader of the next one; `None`: there is no next one.
async fn page<R: Rows>(
    store_handle: &StoreHandle,
    mut rows: R,
) -> Result<(Vec<u8>, Option<R>), Problem> {
    let read = store_handle.read_page(move |reader| {
        let mut page = Page::default();
        rows(reader, &mut page)?;
        Ok((page, rows))
    });
    let (page, rows) = read.await?;
    match page.failed {
        None => Ok((page.bytes, page.is_full.then_some(rows))),
        Some(error) => {
            let message = format!("a row cannot be written as JSON: {error}");
            Err(Problem { kind: ProblemKind::Failed, message })
        }
    }
}

/// Answers with one line for each item of a stream.
pub fn lines<T: Serialize>(items: impl Stream<Item = T> + Send + 'static) -> Response {
    let lines = items.map(|item| {
        serde_json::to_vec(&item).map(|mut line| {
            line.push(b'\n');
            Bytes::from(line)
        })
    });
    ndjson(Body::from_stream(lines))
}

/// Answers as [`lines`], and holds the slot of the request until the stream ends.
pub fn endless<T: Serialize>(items: impl Stream<Item = T> + Send + 'static) -> Response {
    let slot = limits::slot();
    lines(items.map(move |item| {
        let _slot = &slot;
        item
    }))
}

fn ndjson(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_ends_with_its_bytes_or_with_its_rows() {
        let mut page = Page::default();
        let line = "x".repeat(PAGE_BYTES / 3);
        assert!(page.put(&line).is_continue() && page.put(&line).is_continue());
        assert!(page.put(&line).is_break() && page.is_full);
        let mut page = Page::default();
        let rows = (0..).take_while(|_| page.pass().is_continue()).count();
        assert_eq!((rows + 1, page.bytes.len()), (PAGE_ROWS, 0));
        assert!(page.is_full);
    }
}
