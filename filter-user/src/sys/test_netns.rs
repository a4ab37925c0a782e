//! Tests in a network namespace of their own; they need root and `ip` of iproute2.

#![expect(unsafe_code, reason = "loads a program of two instructions without the real one")]

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::Command;

use nix::libc;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};

use crate::sys::netlink::{Attached, by_name};

/// Runs a test on a thread that has a new network namespace with nothing but `lo`.
pub fn in_new_namespace(test: impl Future<Output = ()> + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: run tests as root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` in the namespace of this thread.
pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Puts an XDP program on an interface that is not ours: it passes everything.
pub async fn put_foreign_xdp(interface: &str, attached: Attached) {
    let flag = match attached {
        Attached::Generic => 1 << 1,
        Attached::Native => 1 << 2,
        Attached::Offloaded => 1 << 3,
    };
    let program = load_pass().unwrap();
    let mut message = LinkMessage::default();
    message.header.index = by_name(interface).await.unwrap().unwrap().index;
    message.attributes =
        vec![LinkAttribute::Xdp(vec![LinkXdp::Fd(program.as_raw_fd()), LinkXdp::Flags(flag)])];
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    let connection = tokio::spawn(connection);
    handle.link().set(message).execute().await.unwrap();
    connection.abort();
}

/// The start of `union bpf_attr` of `BPF_PROG_LOAD` (linux/bpf.h).
#[repr(C)]
struct ProgramLoad {
    program_type: u32,
    instructions: u32,
    code: u64,
    license: u64,
}

/// Loads a program that passes everything.
pub fn load_pass() -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_TYPE_XDP: u32 = 6;
    // r0 = XDP_PASS; exit
    let code = [0x0000_0002_0000_00b7_u64, 0x0000_0000_0000_0095];
    let load = ProgramLoad {
        program_type: BPF_PROG_TYPE_XDP,
        instructions: code.len() as u32,
        code: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
    };
    // SAFETY: the kernel reads the struct of the given size and the two things that it points
    // to, all of which outlive the call.
    let fd =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of_val(&load)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this file descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
