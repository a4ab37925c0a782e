//! The JSON of the control API, which is a contract with consoles and scripts.
//!
//! Times are RFC 3339 in UTC. A number is E.164 digits without `+` or a local number; with a
//! `*` at its end it is a prefix. A field that is not known is null, and a list is never cut.

pub(crate) mod call;
pub(crate) mod check;
pub(crate) mod decision;
pub(crate) mod mode;
pub(crate) mod number;
pub(crate) mod problem;
pub(crate) mod redirect;
pub(crate) mod report;
pub(crate) mod status;
pub(crate) mod store;

pub use self::call::{Call, CallShown, Evidence, Live, Lost};
pub use self::check::{Check, Explain, Granted, NextAttempt, Step};
pub use self::decision::{
    AddAllow, AddBlock, Allow, BadRow, Block, Callback, Change, Changed, ImportNews, ImportRow,
    IncidentEnded, Persisted,
};
pub use self::mode::{Mode, Override, SetMode, SetOverride};
pub use self::number::{AuditRow, AuditVerdict, Erasure, NumberExport, Redials, Remembered};
pub use self::problem::{AUTHOR, DEADLINE, OVERRIDE_MAX, Problem, ProblemKind, SOCKET};
pub use self::redirect::{RedirectTest, RedirectTested, SetRedirect, TestRedirect};
pub use self::report::{
    AddReport, CloseReview, Event, ExtendReview, Report, Reported, Review, ReviewClosed,
    ReviewSettled,
};
pub use self::status::{
    Attach, Attempts, Backup, BusyCaller, ConfigInForce, Finding, Health, Interface, MachineRedial,
    Records, Replies, Status, Top, TrunkPackets,
};
pub use self::store::{AdoptFrom, AdoptStore, Adopted};

pub use crate::model::ladder::ReportKind;
pub use crate::model::redial::RedialPolicy;
