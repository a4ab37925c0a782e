//! The store: one SQLite file with the decisions, the audit and the call records.
//!
//! | table | content | file |
//! |---|---|---|
//! | `decisions` | blocks and allows in force | [`decisions`] |
//! | `audit` | every change, as a hash chain with pseudonyms of numbers | [`audit`], [`pseudonym`] |
//! | `calls` | every attempt that the gate saw | [`calls`], [`records`] |
//! | `evidence` | INVITEs of refused attempts, where they are kept | [`evidence`] |
//! | `reviews` | redial grants and reports, for a person to look at | [`reviews`] |
//! | `reports` | reports of call-takers about calls | [`reports`] |
//! | `state` | mode, override, newest time seen, key of the pseudonyms, account of records | `state` |
//!
//! Everything about one number is read and erased together: [`person`].
//!
//! [`Store`] writes and has one owner. Each of its methods is one transaction: a change and
//! its audit row are on disk together when it returns, or neither is. [`Reader`] only reads,
//! there may be many, and none waits for the writer (WAL). A store reads as a reader does.
//!
//! Times are kept to the millisecond, cut downwards.

pub mod audit;
pub mod backup;
pub mod calls;
pub(crate) mod chain;
pub(crate) mod connection;
pub(crate) mod decision;
pub mod decisions;
pub(crate) mod error;
pub mod evidence;
pub(crate) mod hex;
pub(crate) mod number_in_text;
pub(crate) mod offline_journal;
pub(crate) mod part;
pub(crate) mod path;
pub mod person;
pub(crate) mod place;
pub mod pseudonym;
pub(crate) mod reader;
pub mod records;
pub mod redirects;
pub mod reports;
pub mod retention;
pub mod reviews;
#[cfg(test)]
pub(crate) mod sandbox;
pub(crate) mod schema;
pub(crate) mod state;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod vacuum;
pub(crate) mod writer;

pub use audit::{AuditCheck, AuditFilter, AuditRow};
pub use backup::{check_restore, restore};
pub use calls::{CallFilter, CallRow};
pub use chain::{Entry, Head};
pub use decision::{Decision, Kind};
pub use error::Error;
pub use evidence::{EvidenceRow, Room, Unplaced};
pub use hex::hex;
pub use person::{Counts, NumberRecords};
pub use pseudonym::Pseudonyms;
pub use reader::Reader;
pub use records::{Account, Records, Stored};
pub use reports::{Added, Report, ReportFilter, ReportedCall};
pub use retention::{Step, bring_in_log, is_log_long};
pub use reviews::{Closed, Review};
pub use state::{HELD, RESTORED};
pub use vacuum::Size;
pub use writer::Store;
