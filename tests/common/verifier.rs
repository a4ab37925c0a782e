//! The verdict of the kernel's verifier on each program that is loaded, on every kernel.
//!
//! Linux reports the verified instructions of a loaded program since 5.16. Before, only the
//! verifier's log has the number, and Aya drops the log of a program that loads. So [`watch`] lets
//! the kernel stop the loading thread at each `BPF_PROG_LOAD`, and makes the same call itself, with a
//! log. It uses the seccomp user notification of Linux 5.0
//! (`Documentation/userspace-api/seccomp_filter.rst`).

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::mpsc::channel;

use nix::libc;

/// Command of `bpf(2)` (`enum bpf_cmd`, Linux `include/uapi/linux/bpf.h`).
const BPF_PROG_LOAD: u32 = 5;
/// The verifier logs its statistics, and why it refuses a program (Linux `include/linux/bpf_verifier.h`).
const BPF_LOG_STATS: u32 = 4;
/// Places in `union bpf_attr` for [`BPF_PROG_LOAD`], in bytes.
const LOG_LEVEL: usize = 24;
const LOG_SIZE: usize = 28;
const LOG_BUF: usize = 32;
const PROG_NAME: usize = 48;
const PROG_NAME_LEN: usize = 16;
/// Room for the log, in bytes. The log of a refused program grows with the depth of the calls only.
const LOG_ROOM: usize = 1 << 20;

/// One program load and what became of it.
#[derive(Clone, Debug)]
pub struct Load {
    /// Name of the program in the kernel: at most 15 bytes.
    pub program: String,
    /// Whether the kernel took it, or its error.
    pub result: Result<(), i32>,
    /// The verifier's log.
    pub log: String,
}

impl Load {
    /// Returns how many instructions the verifier walked; `None`: it did not get that far.
    #[must_use]
    pub fn verified(&self) -> Option<u32> {
        let (_, after) = self.log.rsplit_once("processed ")?;
        after.split(' ').next()?.parse().ok()
    }
}

/// Calls `load` on a thread of its own. Returns its result and each program load that it tried, in
/// order. Some of these loads are Aya's, to find out what the kernel can do. They are made with
/// the capabilities of the thread that called this.
///
/// # Panics
/// When `load` panics, or the kernel has no seccomp.
pub fn watch<T: Send>(load: impl FnOnce() -> T + Send) -> (T, Vec<Load>) {
    std::thread::scope(|scope| {
        let (sender, receiver) = channel();
        let loading = scope.spawn(move || {
            sender.send(stop_at_loads().expect("seccomp")).unwrap();
            load()
        });
        let loads = receiver.recv().map_or_else(|_| Vec::new(), |listener| serve(&listener));
        (loading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), loads)
    })
}

/// Makes the kernel stop this thread at each program load, for whom reads the descriptor.
fn stop_at_loads() -> io::Result<OwnedFd> {
    let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    // The number of the call and the low half of its first argument in `struct seccomp_data`.
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let mut program = [
        op(load, 0, 0, 0),
        op(equal, 0, 3, libc::SYS_bpf as u32),
        op(load, 0, 0, 16),
        op(equal, 0, 1, BPF_PROG_LOAD),
        op(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        op(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: takes no pointers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the filter lives until the call is over; the kernel copies it.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const filter,
        )
    };
    if listener < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(listener as i32) })
}

/// Makes the calls of the stopped thread until that thread ends.
fn serve(listener: &OwnedFd) -> Vec<Load> {
    let fd = listener.as_raw_fd();
    let mut loads = Vec::new();
    loop {
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, which lives until the call is over.
        let ready = unsafe { libc::poll(&raw mut poll, 1, -1) };
        if ready > 0 && poll.revents & libc::POLLIN == 0 {
            return loads; // the thread has ended (POLLHUP)
        }
        // SAFETY: plain numbers, for which zero is a value; the kernel wants it zeroed.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel fills this structure.
        if unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) } != 0 {
            continue; // a signal took the thread out of its call
        }
        let (returned, load) = load(call.data.args[1], call.data.args[2]);
        let mut answer = libc::seccomp_notif_resp {
            id: call.id,
            val: returned.unwrap_or(0),
            error: returned.as_ref().map_or_else(|error| -error, |_| 0),
            flags: 0,
        };
        loads.push(load);
        // SAFETY: the kernel reads this structure. It fails when a signal took the thread out of
        // its call, which then is made again.
        unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
    }
}

/// Loads a program as the stopped thread wants it: the descriptor or the error of the call.
fn load(attributes: u64, size: u64) -> (Result<i64, i32>, Load) {
    let mut copy = vec![0; (size as usize).max(PROG_NAME + PROG_NAME_LEN)];
    // SAFETY: the stopped thread is of this process and gave these bytes to the kernel.
    unsafe {
        std::ptr::copy_nonoverlapping(attributes as *const u8, copy.as_mut_ptr(), size as usize);
    }
    let mut log = vec![0_u8; LOG_ROOM];
    let word = |at: usize| u32::from_ne_bytes(copy[at..at + 4].try_into().unwrap());
    let theirs = word(LOG_LEVEL) != 0;
    let name = &copy[PROG_NAME..PROG_NAME + PROG_NAME_LEN];
    let name = text(name);
    let (room, size_of_log) = if theirs {
        let pointer = u64::from_ne_bytes(copy[LOG_BUF..LOG_BUF + 8].try_into().unwrap());
        (pointer as *const u8, word(LOG_SIZE) as usize)
    } else {
        copy[LOG_LEVEL..LOG_LEVEL + 4].copy_from_slice(&BPF_LOG_STATS.to_ne_bytes());
        copy[LOG_SIZE..LOG_SIZE + 4].copy_from_slice(&(LOG_ROOM as u32).to_ne_bytes());
        copy[LOG_BUF..LOG_BUF + 8].copy_from_slice(&(log.as_mut_ptr() as u64).to_ne_bytes());
        (log.as_ptr(), LOG_ROOM)
    };
    // SAFETY: what the attributes point to lives as long as the stopped thread waits, and `log`
    // until the end of this function.
    let returned = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, copy.as_ptr(), size) };
    let returned = match returned {
        fd if fd >= 0 => Ok(fd),
        _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)),
    };
    // SAFETY: either `log` or the stopped thread's own room of this size, written by the kernel.
    let log = text(unsafe { std::slice::from_raw_parts(room, size_of_log) });
    (returned, Load { program: name, result: returned.map(drop), log })
}

/// Returns the text before the first zero byte.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use caps::{CapSet, Capability};
    use palang::datapath::Replay;
    use palang::model::policy::Policy;

    use super::watch;

    // One test: the first load of a process finds out what the kernel can do, for all threads.
    #[test]
    fn loads_are_listed_with_the_log_of_the_verifier() {
        let (reported, loads) =
            watch(|| Replay::load(&Policy::default()).unwrap().verified_instructions().unwrap());
        let load = loads.iter().rfind(|load| load.program == "palang").unwrap();
        assert_eq!(load.result, Ok(()));
        assert!(load.verified().is_some());
        // The kernel itself reports the number since 5.16.
        assert!(reported.is_none() || load.verified() == reported, "{reported:?}: {load:?}");

        let (loaded, loads) = std::thread::spawn(|| {
            // The verifier refuses the program without CAP_PERFMON.
            let too_few = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN];
            caps::set(None, CapSet::Effective, &too_few.into_iter().collect()).unwrap();
            watch(|| Replay::load(&Policy::default()).is_ok())
        })
        .join()
        .unwrap();
        assert!(!loaded);
        let load = loads.last().unwrap();
        assert_eq!(load.program, "palang");
        assert!(load.result.is_err() && load.log.contains("pointer"), "{load:?}");
    }
}
