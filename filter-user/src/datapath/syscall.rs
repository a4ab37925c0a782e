//! The system call bpf(2), for what aya has no function.

#![expect(unsafe_code, reason = "nix has no bpf(2)")]

use std::os::fd::{FromRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::libc;

/// A command of `bpf(2)` (Linux `include/uapi/linux/bpf.h`).
pub(crate) type Command = libc::c_long;

pub(crate) const MAP_CREATE: Command = 0;
pub(crate) const PROG_LOAD: Command = 5;
pub(crate) const OBJ_PIN: Command = 6;
pub(crate) const OBJ_GET: Command = 7;
pub(crate) const OBJ_GET_INFO: Command = 15;
pub(crate) const BTF_LOAD: Command = 18;
pub(crate) const LINK_CREATE: Command = 28;

/// Calls `bpf(2)` with a command that makes a file descriptor, and returns it. The attributes are the beginning
/// of `union bpf_attr` for the command; the kernel reads the rest as zero. Addresses in them point to what outlives
/// the call.
pub(crate) fn bpf<T>(command: Command, attributes: &mut T) -> Result<OwnedFd, Errno> {
    let fd = call(command, attributes)?;
    // SAFETY: the kernel just made this file descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Calls `bpf(2)` with a command that makes no file descriptor, as [`bpf`].
pub(crate) fn bpf_only<T>(command: Command, attributes: &mut T) -> Result<(), Errno> {
    call(command, attributes).map(drop)
}

fn call<T>(command: Command, attributes: &mut T) -> Result<libc::c_long, Errno> {
    // SAFETY: the kernel reads and writes the attributes, by the given size. All that they point to outlives the call:
    // the callers here hold it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>() as libc::c_long,
        )
    };
    if done < 0 { Err(Errno::last()) } else { Ok(done) }
}
