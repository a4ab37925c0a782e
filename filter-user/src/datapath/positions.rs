//! Counts the events that the kernel ever put into its two rings, and those that user space ever read.
//!
//! A ring counts both by itself, in bytes, on the two pages before its data (Linux,
//! Documentation/bpf/ringbuf.rst). These counts are as old as the ring and belong to no process. So they
//! show how many events a killed daemon had read.

#![expect(unsafe_code, reason = "the two pages of a ring with its counts are shared memory")]

use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use aya::maps::{MapData, MapInfo};
use filter_common::abi::EventEntry;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::{SysconfVar, sysconf};

use crate::datapath::error::Error;
use crate::model::per_ring::PerRing;

/// Bytes of the header that the kernel puts before an entry (`BPF_RINGBUF_HDR_SZ`).
const HEADER: usize = 8;
/// Entries begin at multiples of this.
const ALIGNED: usize = 8;
/// Bytes that an event takes in a ring.
pub const EVENT_BYTES: u64 = (HEADER + size_of::<EventEntry>()).next_multiple_of(ALIGNED) as u64;
/// Another text after each start of the machine (Linux, Documentation/admin-guide/sysctl/kernel.rst).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The counts of both rings.
pub struct Positions {
    rings: String,
    refused: Pages,
    passed: Pages,
}

impl Positions {
    /// Opens the counts of the rings pinned in a folder, of any layout.
    ///
    /// # Errors
    /// [`Error::Pin`] if a ring is missing or a system call fails.
    pub fn open(folder: &Path) -> Result<Positions, Error> {
        let path = folder.join("EVENTS_REFUSED");
        let id = MapInfo::from_pin(&path).map_err(|error| Error::pin(&path, error))?.id();
        let boot_id = Path::new(BOOT_ID);
        let boot = fs::read_to_string(boot_id).map_err(|error| Error::pin(boot_id, error))?;
        Ok(Positions {
            rings: format!("{}/{id}", boot.trim()),
            refused: Pages::open(&path)?,
            passed: Pages::open(&folder.join("EVENTS_PASSED"))?,
        })
    }

    /// Returns the name of these rings, which no others ever have.
    #[must_use]
    pub fn rings(&self) -> &str {
        &self.rings
    }

    /// Returns the events that the kernel ever put in, at `event_bytes` each.
    #[must_use]
    pub fn made(&self, event_bytes: u64) -> PerRing {
        self.count(event_bytes, Pages::made)
    }

    /// Returns the events that user space ever read, at `event_bytes` each.
    #[must_use]
    pub fn taken(&self, event_bytes: u64) -> PerRing {
        self.count(event_bytes, Pages::taken)
    }

    fn count(&self, event_bytes: u64, bytes: impl Fn(&Pages) -> u64) -> PerRing {
        let events = |pages| bytes(pages) / event_bytes.max(1);
        PerRing { refused: events(&self.refused), passed: events(&self.passed) }
    }
}

/// The two pages of a ring before its data.
struct Pages {
    first: NonNull<u8>,
    page: NonZero<usize>,
    len: NonZero<usize>,
}

// SAFETY: read-only memory of the kernel, read by atomic loads only. It is unmapped when this, its
// only owner, is dropped.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    fn open(path: &Path) -> Result<Pages, Error> {
        let ring = MapData::from_pin(path).map_err(|error| Error::pin(path, error))?;
        let failed = |error: nix::Error| Error::pin(path, std::io::Error::from(error));
        let page = sysconf(SysconfVar::PAGE_SIZE).map_err(failed)?;
        let page = page.and_then(|page| NonZero::new(usize::try_from(page).ok()?));
        let sizes = page.and_then(|page| Some((page, page.checked_mul(NonZero::new(2)?)?)));
        let (page, len) = sizes.ok_or_else(|| failed(nix::Error::EINVAL))?;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let first =
            unsafe { mmap(None, len, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, ring.fd(), 0) };
        Ok(Pages { first: first.map_err(failed)?.cast(), page, len })
    }

    /// Returns the bytes that user space read: the first page.
    fn taken(&self) -> u64 {
        self.load(0)
    }

    /// Returns the bytes that the kernel put in: the second page.
    fn made(&self) -> u64 {
        self.load(self.page.get())
    }

    fn load(&self, offset: usize) -> u64 {
        // SAFETY: within the two pages. Each begins with an aligned `unsigned long`, which the kernel
        // writes atomically.
        let position = unsafe { self.first.add(offset).cast::<AtomicUsize>().as_ref() };
        position.load(Ordering::Acquire) as u64
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped in `open` with this length, and no other value has the address.
        let _ = unsafe { munmap(self.first.cast(), self.len.get()) };
    }
}
