//! Finds out the features of this kernel by loading a few instructions. Release numbers are not
//! enough: distributions add features to older kernels.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use crate::datapath::error::Error;
use crate::datapath::syscall::{MAP_CREATE, PROG_LOAD, ProgramLoad, bpf};

/// Number of tries of a load that a signal interrupts.
pub(crate) const TRIES: u32 = 10;

/// Numbers of Linux `include/uapi/linux/bpf.h`.
const TYPE_PROG_ARRAY: u32 = 3;
const TYPE_SOCKET_FILTER: u32 = 1;
const TYPE_XDP: u32 = 6;
const XDP_HAS_FRAGS: u32 = 1 << 5;
const KTIME_GET_COARSE_NS: u32 = 160;
const XDP_GET_BUFF_LEN: u32 = 188;
const XDP_LOAD_BYTES: u32 = 189;
const XDP_STORE_BYTES: u32 = 190;
const TAIL_CALL: u32 = 12;
const PSEUDO_MAP_FD: u8 = 1;
const PSEUDO_CALL: u8 = 1;

/// Features of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Whether it gives programs frames of several buffers (`xdp.frags`, Linux 5.18).
    pub frags: bool,
    /// Whether it has `bpf_xdp_get_buff_len`, `bpf_xdp_load_bytes` and `bpf_xdp_store_bytes` (Linux 5.18). Without them
    /// the daemon sends the replies to refused calls.
    pub buffer_helpers: bool,
    /// Whether it has tail calls in a program with functions (Linux 5.10, on aarch64 6.0). The first look answers no
    /// call without them.
    pub replies: bool,
    /// Whether it counts maps against `ulimit -l` of the process (before Linux 5.11).
    pub locked_memory: bool,
}

impl Features {
    /// Finds out the features of this kernel.
    ///
    /// # Errors
    /// [`Error::Permission`] without the capabilities, [`Error::Load`] if the kernel accepts no program
    /// at all.
    pub fn probe() -> Result<Features, Error> {
        let pass = [move_imm(0, 2), EXIT];
        if !accepts(TYPE_XDP, 0, &pass)? {
            return Err(Error::Load("the kernel accepts no XDP program".into()));
        }
        let buff_len = [call(XDP_GET_BUFF_LEN), move_imm(0, 2), EXIT];
        // Copies eight bytes to the stack.
        let load_bytes = [
            move_imm(2, 0),
            move_reg(3, 10),
            add_imm(3, -8),
            move_imm(4, 8),
            call(XDP_LOAD_BYTES),
            move_imm(0, 2),
            EXIT,
        ];
        let store_bytes = [
            move_imm(2, 0),
            move_reg(3, 10),
            add_imm(3, -8),
            store_zero(3),
            move_imm(4, 8),
            call(XDP_STORE_BYTES),
            move_imm(0, 2),
            EXIT,
        ];
        // libbpf does the same: the helper is as old as the other way of counting.
        let coarse = [call(KTIME_GET_COARSE_NS), EXIT];
        Ok(Features {
            frags: accepts(TYPE_XDP, XDP_HAS_FRAGS, &pass)?,
            buffer_helpers: accepts(TYPE_XDP, 0, &buff_len)?
                && accepts(TYPE_XDP, 0, &load_bytes)?
                && accepts(TYPE_XDP, 0, &store_bytes)?,
            replies: has_tail_calls()?,
            locked_memory: !accepts(TYPE_SOCKET_FILTER, 0, &coarse)?,
        })
    }

    /// Lifts the limit of locked memory of this process, if maps count against it.
    pub(crate) fn lift_memory_limit(self) {
        if self.locked_memory {
            // Without permission, the error of the first map says so.
            let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
        }
    }
}

/// Returns the bytes of maps that a kernel that counts them permits this process; `None`: any number.
#[must_use]
pub fn memory_limit() -> Option<u64> {
    let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    (soft != RLIM_INFINITY).then_some(soft)
}

/// An instruction: operation, registers, offset, immediate (Linux `Documentation/bpf/standardization`).
#[derive(Clone, Copy)]
#[repr(C)]
struct Instruction {
    operation: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const EXIT: Instruction = Instruction { operation: 0x95, registers: 0, offset: 0, immediate: 0 };

const fn move_imm(to: u8, immediate: i32) -> Instruction {
    Instruction { operation: 0xB7, registers: to, offset: 0, immediate }
}

const fn move_reg(to: u8, from: u8) -> Instruction {
    Instruction { operation: 0xBF, registers: from << 4 | to, offset: 0, immediate: 0 }
}

const fn add_imm(to: u8, immediate: i32) -> Instruction {
    Instruction { operation: 0x07, registers: to, offset: 0, immediate }
}

const fn call(helper: u32) -> Instruction {
    Instruction { operation: 0x85, registers: 0, offset: 0, immediate: helper.cast_signed() }
}

/// Stores eight zero bytes at the address in a register.
const fn store_zero(to: u8) -> Instruction {
    Instruction { operation: 0x7A, registers: to, offset: 0, immediate: 0 }
}

/// Calls the function that begins `after` instructions later.
const fn call_function(after: i32) -> Instruction {
    Instruction { operation: 0x85, registers: PSEUDO_CALL << 4, offset: 0, immediate: after }
}

/// Puts a map into a register; it is the first of two instructions.
const fn load_map(to: u8, fd: i32) -> [Instruction; 2] {
    let first = PSEUDO_MAP_FD << 4 | to;
    [
        Instruction { operation: 0x18, registers: first, offset: 0, immediate: fd },
        Instruction { operation: 0, registers: 0, offset: 0, immediate: 0 },
    ]
}

/// The beginning of `union bpf_attr` for `BPF_MAP_CREATE`; the kernel reads the rest as zero.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// Checks whether the kernel accepts a tail call in a program that also calls a function.
///
/// # Errors
/// As [`accepts`]; [`Error::Load`] if the kernel makes no map of programs.
fn has_tail_calls() -> Result<bool, Error> {
    let mut attributes =
        MapCreate { map_type: TYPE_PROG_ARRAY, key_size: 4, value_size: 4, max_entries: 1 };
    let map = bpf(MAP_CREATE, &mut attributes).map_err(|error| {
        if error == Errno::EPERM {
            return Error::Permission;
        }
        Error::Load(format!("a map of programs: {}", io::Error::from(error)).into())
    })?;
    let [first, second] = load_map(2, map.as_raw_fd());
    let calls = [
        move_reg(6, 1),
        call_function(7),
        move_reg(1, 6),
        first,
        second,
        move_imm(3, 0),
        call(TAIL_CALL),
        move_imm(0, 2),
        EXIT,
        // The function.
        move_imm(0, 0),
        EXIT,
    ];
    accepts(TYPE_XDP, 0, &calls)
}

/// Checks whether the kernel accepts a program with these flags.
///
/// # Errors
/// [`Error::Permission`] without the capabilities, [`Error::Load`] for an error that is not about the
/// program.
fn accepts(prog_type: u32, prog_flags: u32, instructions: &[Instruction]) -> Result<bool, Error> {
    let mut attributes = ProgramLoad {
        program_type: prog_type,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        flags: prog_flags,
        ..ProgramLoad::default()
    };
    let mut left = TRIES;
    loop {
        let Err(error) = bpf(PROG_LOAD, &mut attributes) else {
            return Ok(true);
        };
        left -= 1;
        if error == Errno::EAGAIN && left > 0 {
            continue;
        }
        if error == Errno::EPERM {
            return Err(Error::Permission);
        }
        if [Errno::EINVAL, Errno::EACCES, Errno::E2BIG].contains(&error) {
            return Ok(false);
        }
        let message = format!("a program of two instructions: {}", io::Error::from(error));
        return Err(Error::Load(message.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn programs_that_a_kernel_accepts_and_refuses_are_distinguished() {
        let pass = [move_imm(0, 2), EXIT];
        assert!(accepts(TYPE_XDP, 0, &pass).unwrap());
        assert!(!accepts(TYPE_XDP, 1 << 30, &pass).unwrap(), "a flag that no kernel has");
        let unknown = [call(0x7FFF_FFFF), move_imm(0, 2), EXIT];
        assert!(!accepts(TYPE_XDP, 0, &unknown).unwrap(), "a helper that no kernel has");
        assert!(!accepts(TYPE_XDP, 0, &[EXIT]).unwrap(), "r0 is not set");
        assert!(!accepts(0x7FFF, 0, &pass).unwrap(), "a type that no kernel has");
    }

    #[test]
    fn probe_without_capabilities_is_a_permission_error() {
        let refused = std::thread::spawn(|| {
            caps::clear(None, caps::CapSet::Effective).unwrap();
            Features::probe()
        });
        assert!(matches!(refused.join().unwrap(), Err(Error::Permission)));
    }
}
