//! An XDP program that is not ours, and what it may do to our maps.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::bpf::{ObjectPin, bpf, open_pin};
use super::wait::eventually;
use super::{Lab, run};
use nix::libc;

// linux/bpf.h
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_PROG_TYPE_XDP: u32 = 6;

/// The start of `union bpf_attr` of `BPF_PROG_LOAD`.
#[repr(C)]
struct ProgramLoad {
    program_type: u32,
    instructions: u32,
    code: u64,
    license: u64,
}

/// Pins a program that passes everything; its id.
pub fn pin(path: &Path) -> u32 {
    pin_with(path, &[])
}

/// Pins such a program that has these pinned maps.
pub fn pin_with(path: &Path, maps: &[PathBuf]) -> u32 {
    let mut code = Vec::new();
    let mut open = Vec::new();
    for map in maps {
        let map = open_pin(map);
        // r1 = map
        code.extend([u64::from(map.as_raw_fd().cast_unsigned()) << 32 | 0x1118, 0]);
        open.push(map);
    }
    // r0 = XDP_PASS; exit
    code.extend([0x0000_0002_0000_00b7_u64, 0x0000_0000_0000_0095]);
    let load = ProgramLoad {
        program_type: BPF_PROG_TYPE_XDP,
        instructions: code.len() as u32,
        code: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
    };
    let fd = bpf(BPF_PROG_LOAD, &load).expect("a program");
    // SAFETY: the kernel just made this file descriptor for us.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    let name = CString::new(path.as_os_str().as_bytes()).expect("a path");
    let pin = ObjectPin { path: name.as_ptr() as u64, fd: fd.cast_unsigned(), flags: 0 };
    bpf(BPF_OBJ_PIN, &pin).expect("a pin");
    let info = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
    let info = fs::read_to_string(info).expect("what the kernel says of the program");
    let id = info.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok());
    id.expect("its id")
}

/// Puts a program that passes everything on the trunk's end of the veth pair. Without one, veth does not wake the
/// receiver of a frame that XDP sends (Linux `veth_xdp_flush`), and a reply waits for the next packet.
pub fn wake_trunk(lab: &Lab, pins: &Path) {
    let path = pins.with_file_name(format!("{}-wake", pins.file_name().unwrap().display()));
    pin(&path);
    let mut attach = lab.command_in_trunk("ip");
    let name = path.display().to_string();
    run::must(attach.args(["link", "set", "dev", "trunk0", "xdpdrv", "pinned", &name]));
    fs::remove_file(&path).expect("the pin removed");
}

/// Puts a pinned program into the driver of `gate0`, as soon as what was there is gone: the kernel
/// takes its time.
pub fn attach(lab: &Lab, pin: &Path) {
    let pin = pin.display().to_string();
    eventually("the interface is free", || {
        let mut show = lab.command_in_gate("ip");
        !run::must(show.args(["-o", "link", "show", "dev", "gate0"])).contains("prog/xdp")
    });
    let mut attach = lab.command_in_gate("ip");
    run::must(attach.args(["link", "set", "dev", "gate0", "xdpdrv", "pinned", &pin]));
}
