//! The system call bpf(2), for what aya has no function.

#![expect(unsafe_code, reason = "nix has no bpf(2)")]

use std::ffi::CString;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

/// A command of `bpf(2)` (Linux `include/uapi/linux/bpf.h`).
pub(crate) type Command = libc::c_long;

pub(crate) const MAP_CREATE: Command = 0;
pub(crate) const PROG_LOAD: Command = 5;
const OBJ_PIN: Command = 6;
const OBJ_GET: Command = 7;
pub(crate) const OBJ_GET_INFO: Command = 15;
pub(crate) const BTF_LOAD: Command = 18;
pub(crate) const LINK_CREATE: Command = 28;

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
#[derive(Default)]
#[repr(C)]
pub(crate) struct ProgramLoad {
    pub(crate) program_type: u32,
    pub(crate) instruction_count: u32,
    pub(crate) instructions: u64,
    pub(crate) license: u64,
    pub(crate) log_level: u32,
    pub(crate) log_len: u32,
    pub(crate) log: u64,
    pub(crate) kernel_version: u32,
    pub(crate) flags: u32,
    pub(crate) name: [u8; 16],
    pub(crate) interface: u32,
    pub(crate) attach_type: u32,
    pub(crate) types: u32,
    pub(crate) function_len: u32,
    pub(crate) functions: u64,
    pub(crate) function_count: u32,
    pub(crate) line_len: u32,
}

/// The beginning of `union bpf_attr` for `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
#[repr(C)]
struct ObjectPin {
    path: u64,
    object: u32,
    flags: u32,
}

/// Pins an object to a path.
pub(crate) fn pin(object: &OwnedFd, path: &Path) -> Result<(), Errno> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let object = object.as_raw_fd().cast_unsigned();
    bpf_only(OBJ_PIN, &mut ObjectPin { path: path.as_ptr() as u64, object, flags: 0 })
}

/// Opens the object that is pinned to a path.
pub(crate) fn open_pin(path: &Path) -> Result<OwnedFd, Errno> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    bpf(OBJ_GET, &mut ObjectPin { path: path.as_ptr() as u64, object: 0, flags: 0 })
}

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
