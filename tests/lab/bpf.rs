//! The system call bpf(2), for tests that change a pinned map as another program may.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::libc;

// linux/bpf.h
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_LINK_DETACH: libc::c_int = 34;

/// The start of `union bpf_attr` of `BPF_MAP_UPDATE_ELEM` and `BPF_MAP_DELETE_ELEM`.
#[repr(C)]
struct Element {
    map: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The start of `union bpf_attr` of `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
#[repr(C)]
pub struct ObjectPin {
    /// The address of the path, which ends with a 0.
    pub path: u64,
    /// The object that is pinned; 0 where a pin is opened.
    pub fd: u32,
    /// None are used.
    pub flags: u32,
}

/// Puts an element into a pinned map, or removes it where there is no value.
///
/// # Panics
/// When the kernel says no; sizes of key and value have to be those of the map.
pub fn set_element(map: &Path, key: &[u8], value: Option<&[u8]>) {
    let map = open_pin(map);
    let element = Element {
        map: map.as_raw_fd().cast_unsigned(),
        reserved: 0,
        key: key.as_ptr() as u64,
        value: value.map_or(0, |value| value.as_ptr() as u64),
        flags: 0,
    };
    let command = if value.is_some() { BPF_MAP_UPDATE_ELEM } else { BPF_MAP_DELETE_ELEM };
    bpf(command, &element).expect("an element of the map");
}

/// Takes the program of a pinned link off, as `bpftool link detach` does. The pin stays.
///
/// # Panics
/// When the kernel says no.
pub fn detach_link(pin: &Path) {
    let link = open_pin(pin);
    bpf(BPF_LINK_DETACH, &link.as_raw_fd().cast_unsigned()).expect("a detached link");
}

/// Opens a pinned map or link.
///
/// # Panics
/// When there is no such pin.
pub fn open_pin(pin: &Path) -> OwnedFd {
    let name = CString::new(pin.as_os_str().as_bytes()).expect("a path");
    let get = ObjectPin { path: name.as_ptr() as u64, fd: 0, flags: 0 };
    let fd = bpf(BPF_OBJ_GET, &get).expect("a pinned map");
    // SAFETY: the kernel just made this file descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Calls bpf(2) with the start of `union bpf_attr`.
///
/// # Errors
/// Returns the error of the kernel.
pub fn bpf<T>(command: libc::c_int, what: &T) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads the struct of the given size and what it points to, all of which
    // outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, what, size_of::<T>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done as libc::c_int) }
}
