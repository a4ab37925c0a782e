//! The way out without the daemon: the pinned maps, as root (DESIGN §3.5).

use crate::exit::{Exit, Failure};
use crate::wire;

fn missing() -> Failure {
    Failure::new(Exit::Failed, "this version cannot work on the kernel's maps without the daemon")
}

/// Sets the override in the kernel's maps.
///
/// # Errors
/// No pins, no permission, a layout of another version.
pub fn set_override(_: &wire::SetOverride) -> Result<wire::Override, Failure> {
    Err(missing())
}

/// Reads the override from the kernel's maps.
///
/// # Errors
/// No pins, no permission, a layout of another version.
pub fn get_override() -> Result<wire::Override, Failure> {
    Err(missing())
}

/// Puts an allow into the kernel's maps.
///
/// # Errors
/// No pins, no permission, a layout of another version, a full map.
pub fn add_allow(_: &wire::AddAllow) -> Result<wire::Changed<wire::Allow>, Failure> {
    Err(missing())
}

/// Takes the filter off an interface, or off all.
///
/// # Errors
/// No pins, no permission, an interface without the filter.
pub fn detach(_: Option<&str>, _dry_run: bool) -> Result<Vec<wire::Interface>, Failure> {
    Err(missing())
}

/// Reads the status from the kernel's maps.
///
/// # Errors
/// No pins, no permission, a layout of another version.
pub fn status() -> Result<wire::Status, Failure> {
    Err(missing())
}
