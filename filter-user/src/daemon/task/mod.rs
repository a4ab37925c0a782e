//! Runs what the daemon does by itself, without a request.

pub(crate) mod asserted;
pub(crate) mod audit_watch;
pub(crate) mod auto_rate;
pub(crate) mod ends;
pub(crate) mod flood;
pub(crate) mod grant_watch;
pub(crate) mod housekeeping;
pub(crate) mod last_hour;
pub(crate) mod machine_redials;
pub(crate) mod queue;
pub(crate) mod reconcile_loop;
pub(crate) mod recorder;
pub(crate) mod replies;
pub(crate) mod retention;
pub(crate) mod unread;
pub(crate) mod webhook;
