//! Carries out the commands of the API, one file for each object.

pub(crate) mod allow;
pub(crate) mod block;
pub(crate) mod check;
pub(crate) mod import;
pub(crate) mod mode;
pub(crate) mod number;
pub(crate) mod redirect;
pub(crate) mod report;
pub(crate) mod review;
