//! wip
pub mod control;
pub mod keeper;
pub mod reconcile;
