//! Judges datagrams that this machine only forwards: no socket here gets them, so the second look meets none. Netfilter
//! puts them together and asks a program of ours (Linux 6.6).
//!
//! ```text
//! <pins>/forwarded-ipv4    the links; they outlive every process
//! <pins>/forwarded-ipv6
//! ```
//! aya knows no programs of netfilter. It relocates the object; this file does the rest by bpf(2).

use std::collections::HashSet;
use std::fs;
use std::io;
use std::mem;
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::maps::Map;
use aya_obj::btf::{Btf, BtfFeatures, BtfKind};
use aya_obj::generated::bpf_insn;
use aya_obj::{Function, Object};
use filter_common::abi::DYNPTR_FROM_SKB;
use filter_common::maps::{MAPS, MaxEntries};
use nix::errno::Errno;

use crate::datapath::attach::Filter;
use crate::datapath::error::Error;
use crate::datapath::load::{Gate, Plan};
use crate::datapath::object::OBJECT;
use crate::datapath::pins::{Pins, linked_program, remove_pin};
use crate::datapath::syscall::{BTF_LOAD, LINK_CREATE, PROG_LOAD, ProgramLoad, bpf, pin};
use crate::exit::chain;

/// Name of the program.
const PROGRAM: &str = "palang_forward";
/// The function of the kernel that the program calls.
const FUNCTION: &str = "bpf_dynptr_from_skb";

/// Numbers of Linux `include/uapi/linux/bpf.h`.
const TYPE_NETFILTER: u32 = 32;
const ATTACH_NETFILTER: u32 = 45;
const CALL: u8 = 0x85;
const PSEUDO_KFUNC_CALL: u8 = 2;
/// Netfilter puts fragments together before the program (Linux 6.6).
const IP_DEFRAG: u32 = 1;
/// Numbers of Linux `include/uapi/linux/netfilter.h`.
const HOOK_FORWARD: u32 = 2;
const FAMILIES: [(&str, u32, &str); 2] =
    [("forwarded-ipv4", 2, "IPv4"), ("forwarded-ipv6", 10, "IPv6")];
/// Before the rules of a firewall at 0. Two programs cannot have the same priority: the next number is for one that
/// replaces another, and for another gate.
const PRIORITIES: RangeInclusive<i32> = -191..=-160;
/// Bytes of the verifier's text; the first ones name what it refuses.
const LOG_LEN: usize = 4096;

impl Pins {
    /// Returns the pins of the links at forwarded packets: IPv4, then IPv6.
    #[must_use]
    pub fn forwarded(&self) -> [PathBuf; 2] {
        FAMILIES.map(|(name, _, _)| self.folder().join(name))
    }

    /// Checks whether the program is attached to forwarded packets.
    #[must_use]
    pub fn has_forwarded(&self) -> bool {
        self.forwarded().iter().all(|pin| pin.exists())
    }

    /// Returns the ids of the programs that judge forwarded packets.
    ///
    /// # Errors
    /// [`Error::Forwarded`] if a link cannot be read.
    pub fn forwarded_programs(&self) -> Result<Vec<u32>, Error> {
        let pins = self.forwarded().into_iter().filter(|pin| pin.exists());
        let ids = pins.map(|pin| linked_program(&pin));
        ids.collect::<Result<_, _>>().map_err(|error| Error::Forwarded(chain(&error)))
    }

    /// Detaches the program from forwarded packets; `false` if it was not attached.
    ///
    /// # Errors
    /// [`Error::Pin`] if a pin cannot be removed.
    pub fn detach_forwarded(&self) -> Result<bool, Error> {
        let mut was_on = false;
        for pin in self.forwarded() {
            // A crash may have left the new pin of an attempt.
            was_on |= remove_pin(&new_pin(&pin))? | remove_pin(&pin)?;
        }
        Ok(was_on)
    }
}

impl Filter {
    /// Returns why the kernel does not take the program for forwarded packets; `None` if it did, or nothing has
    /// loaded it.
    #[must_use]
    pub fn no_forwarded(&self) -> Option<&str> {
        self.no_forwarded.as_deref()
    }

    /// Loads the program for forwarded packets, so that it can be attached later.
    ///
    /// # Errors
    /// [`Error::Forwarded`] if the kernel refuses it, such as one before 6.4.
    pub fn load_forwarded(&mut self) -> Result<(), Error> {
        match load(&self.gate().ebpf, OBJECT) {
            Ok(program) => {
                self.forwarded = Some(program);
                self.no_forwarded = None;
                Ok(())
            }
            Err(error) => {
                self.no_forwarded = Some(error.to_string());
                Err(error)
            }
        }
    }

    /// Attaches the program to forwarded packets of this network namespace, in place of an older one of ours. For a
    /// moment both are attached, so no datagram is missed. `reassemble`: netfilter puts all fragments together for it
    /// (Linux 6.6). Without that, it sees those that connection tracking has put together.
    ///
    /// # Errors
    /// [`Error::Forwarded`] if it is not loaded or cannot be attached, [`Error::Pin`] if a pin cannot be written.
    pub fn attach_forwarded(&mut self, reassemble: bool) -> Result<(), Error> {
        let Some(program) = &self.forwarded else {
            return Err(Error::Forwarded("it is not loaded".into()));
        };
        for (name, family, packets) in FAMILIES {
            let path = self.pins().folder().join(name);
            let new = new_pin(&path);
            remove_pin(&new)?;
            let link = link(program, family, reassemble).map_err(|why| {
                Error::Forwarded(format!("cannot attach it to {packets} packets: {why}"))
            })?;
            pin(&link, &new).map_err(|error| Error::pin(&new, io::Error::from(error)))?;
            fs::rename(&new, &path).map_err(|error| Error::pin(&path, error))?;
        }
        Ok(())
    }
}

/// Returns the pin of a link until it takes the place of another one. No dot: the BPF file system reserves names with
/// one.
fn new_pin(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push("-new");
    path.with_file_name(name)
}

/// Loads the program, attached to nothing: the kernel shows whether it takes it.
///
/// # Errors
/// [`Error::Forwarded`] if it does not, and the errors of a load.
pub fn try_forwarded() -> Result<OwnedFd, Error> {
    let gate = Gate::load(OBJECT, &Plan::of_this_kernel()?, |loader| {
        loader.override_global("REPLAY", &0u32, true);
        for spec in MAPS {
            if !matches!(spec.max_entries, MaxEntries::Fixed(_)) {
                loader.map_max_entries(spec.name, 1);
            }
        }
    })?;
    load(&gate.ebpf, OBJECT)
}

/// Returns the tag of a loaded program: a hash of its instructions, equal for each load of one object.
///
/// # Errors
/// [`Error::Forwarded`] if the kernel does not show it.
pub fn tag(program: &OwnedFd) -> Result<u64, Error> {
    let failed = |why: &str| Error::Forwarded(format!("its tag cannot be read: {why}"));
    let path = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
    let text = fs::read_to_string(path).map_err(|error| failed(&error.to_string()))?;
    let tag = text.lines().find_map(|line| line.strip_prefix("prog_tag:"));
    let tag = tag.ok_or_else(|| failed("the kernel does not show it"))?.trim();
    u64::from_str_radix(tag, 16).map_err(|error| failed(&error.to_string()))
}

/// Loads the program with the maps of the loaded object.
fn load(ebpf: &Ebpf, object: &[u8]) -> Result<OwnedFd, Error> {
    let failed = |what: &str, error: &dyn std::error::Error| {
        Error::Forwarded(format!("{what}: {}", chain(error)))
    };
    let number = function_of_the_kernel()?;
    let mut object = Object::parse(object).map_err(|error| failed("the object", &error))?;
    // Linux 6.4, the oldest that can take the program, has all of them.
    let features = BtfFeatures::new(true, true, true, true, true, true, true, true);
    let types = object.fixup_and_sanitize_btf(&features);
    let types = types.map_err(|error| failed("its types", &error))?.map(Btf::to_bytes);
    let types = types.map(|types| load_types(&types)).transpose()?;
    let maps = mem::take(&mut object.maps);
    // A map that is not there is one of another program.
    let fds = maps.iter().map(|(name, map)| (name.as_str(), ebpf.map(name).map_or(-1, fd), map));
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_maps(fds, &sections).map_err(|error| failed("its maps", &error))?;
    object.relocate_calls(&sections).map_err(|error| failed("its calls", &error))?;
    let program = object.programs.get(PROGRAM).ok_or(Error::Missing(PROGRAM))?;
    let function = object.functions.get_mut(&program.function_key());
    let function = function.ok_or(Error::Missing(PROGRAM))?;
    for instruction in &mut function.instructions {
        if is_marked(instruction) {
            instruction.set_src_reg(PSEUDO_KFUNC_CALL);
            instruction.imm = number.cast_signed();
        }
    }
    load_function(function, types.as_ref())
}

/// Returns the number of the function in the types of the kernel.
fn function_of_the_kernel() -> Result<u32, Error> {
    let types = Btf::from_sys_fs().map_err(|error| Error::Forwarded(chain(&error)))?;
    types.id_by_type_name_kind(FUNCTION, BtfKind::Func).map_err(|_| {
        Error::Forwarded(format!("this kernel has no function {FUNCTION} (Linux 6.4)"))
    })
}

fn is_marked(instruction: &bpf_insn) -> bool {
    instruction.code == CALL && instruction.src_reg() == 0 && instruction.imm == DYNPTR_FROM_SKB
}

/// The beginning of `union bpf_attr` for `BPF_BTF_LOAD`.
#[repr(C)]
struct TypesLoad {
    types: u64,
    log: u64,
    types_len: u32,
    log_len: u32,
}

fn load_types(types: &[u8]) -> Result<OwnedFd, Error> {
    let mut attributes = TypesLoad {
        types: types.as_ptr() as u64,
        log: 0,
        types_len: types.len() as u32,
        log_len: 0,
    };
    bpf(BTF_LOAD, &mut attributes).map_err(|error| refused("its types", error, ""))
}

fn load_function(function: &Function, types: Option<&OwnedFd>) -> Result<OwnedFd, Error> {
    const ERRORS_ONLY: u32 = 4;
    let functions = function.func_info.func_info_bytes();
    let mut name = [0; 16];
    name[..PROGRAM.len()].copy_from_slice(PROGRAM.as_bytes());
    let mut log = vec![0_u8; LOG_LEN];
    let mut attributes = ProgramLoad {
        program_type: TYPE_NETFILTER,
        instruction_count: function.instructions.len() as u32,
        instructions: function.instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        name,
        attach_type: ATTACH_NETFILTER,
        types: types.map_or(0, |types| types.as_raw_fd().cast_unsigned()),
        function_len: function.func_info_rec_size as u32,
        functions: functions.as_ptr() as u64,
        function_count: function.func_info.len() as u32,
        ..ProgramLoad::default()
    };
    let first = bpf(PROG_LOAD, &mut attributes);
    let Err(error) = first else { return first.map_err(|error| refused(PROGRAM, error, "")) };
    attributes.log_level = ERRORS_ONLY;
    attributes.log_len = LOG_LEN as u32;
    attributes.log = log.as_mut_ptr() as u64;
    // A signal may have ended the first try.
    bpf(PROG_LOAD, &mut attributes).map_err(|again| {
        let text = String::from_utf8_lossy(&log);
        let text = text.trim_end_matches('\0').trim();
        refused(PROGRAM, if again == Errno::ENOSPC { error } else { again }, text)
    })
}

fn refused(what: &str, error: Errno, log: &str) -> Error {
    if error == Errno::EPERM {
        return Error::Permission;
    }
    let log = log.lines().next().map(|line| format!(" ({line})")).unwrap_or_default();
    Error::Forwarded(format!("the kernel refuses {what}: {}{log}", error.desc()))
}

/// The beginning of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    family: u32,
    hook: u32,
    priority: i32,
    netfilter_flags: u32,
}

/// Attaches the program to forwarded packets of a family. Returns why the kernel refuses it.
fn link(program: &OwnedFd, family: u32, reassemble: bool) -> Result<OwnedFd, String> {
    let mut last = Errno::EBUSY;
    for priority in PRIORITIES.rev() {
        let mut attributes = LinkCreate {
            program: program.as_raw_fd().cast_unsigned(),
            target: 0,
            attach_type: ATTACH_NETFILTER,
            flags: 0,
            family,
            hook: HOOK_FORWARD,
            priority,
            netfilter_flags: if reassemble { IP_DEFRAG } else { 0 },
        };
        match bpf(LINK_CREATE, &mut attributes) {
            Ok(link) => return Ok(link),
            Err(error) => last = error,
        }
        // EBUSY: another program has this priority.
        if last != Errno::EBUSY {
            break;
        }
    }
    let why = if last == Errno::EINVAL {
        " (netfilter puts fragments together since Linux 6.6)"
    } else {
        ""
    };
    Err(format!("{}{why}", last.desc()))
}

/// Returns the file descriptor of a map.
fn fd(map: &Map) -> RawFd {
    let (Map::Array(map)
    | Map::ArrayOfMaps(map)
    | Map::BloomFilter(map)
    | Map::CgroupArray(map)
    | Map::CgroupStorage(map)
    | Map::CgrpStorage(map)
    | Map::CpuMap(map)
    | Map::DevMap(map)
    | Map::DevMapHash(map)
    | Map::HashMap(map)
    | Map::HashOfMaps(map)
    | Map::InodeStorage(map)
    | Map::LpmTrie(map)
    | Map::LruHashMap(map)
    | Map::PerCpuArray(map)
    | Map::PerCpuCgroupStorage(map)
    | Map::PerCpuHashMap(map)
    | Map::PerCpuLruHashMap(map)
    | Map::PerfEventArray(map)
    | Map::ProgramArray(map)
    | Map::Queue(map)
    | Map::ReusePortSockArray(map)
    | Map::RingBuf(map)
    | Map::SkStorage(map)
    | Map::SockHash(map)
    | Map::SockMap(map)
    | Map::Stack(map)
    | Map::StackTraceMap(map)
    | Map::Unsupported(map)
    | Map::XskMap(map)) = map;
    use std::os::fd::AsFd as _;
    map.fd().as_fd().as_raw_fd()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
    #[test]
    fn program_is_attached_replaced_and_detached() {
        let folder = format!("/sys/fs/bpf/palang-unit-forwarded-{}", std::process::id());
        let pins = Pins::new(Path::new(&folder));
        let load = || {
            let mut filter = Filter::load(&pins, 1000).unwrap_or_else(|error| panic!("{error}"));
            filter.load_forwarded().unwrap_or_else(|error| panic!("{error}"));
            filter
        };
        let mut filter = load();
        assert_eq!(pins.forwarded_programs().unwrap(), [0; 0]);
        filter.attach_forwarded(true).unwrap_or_else(|error| panic!("{error}"));
        assert!(pins.has_forwarded());
        let first = pins.forwarded_programs().unwrap();
        assert!(first.len() == 2 && first[0] == first[1], "{first:?}");
        drop(filter);
        load().attach_forwarded(true).unwrap_or_else(|error| panic!("{error}"));
        assert_ne!(pins.forwarded_programs().unwrap(), first);
        assert!(pins.detach_forwarded().unwrap());
        assert!(!pins.detach_forwarded().unwrap(), "it was off already");
        fs::remove_dir_all(folder).unwrap();
    }
}
