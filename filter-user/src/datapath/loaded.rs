//! Lists programs in the kernel and their maps.

use std::path::Path;

use aya::maps::MapInfo;
use aya::programs::loaded_programs;

use crate::datapath::error::Error;

/// A program in the kernel, as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its ID.
    pub id: u32,
    /// Its name, cut at 15 bytes.
    pub name: String,
    /// A hash of its instructions, as `bpftool prog` shows it in hexadecimal.
    pub tag: u64,
    /// IDs of its maps.
    pub maps: Vec<u32>,
}

/// Returns the program with this ID; `None` if the kernel has no such program.
///
/// # Errors
/// [`Error::Permission`] without the capabilities, [`Error::Load`] if the system call fails.
pub fn loaded(id: u32) -> Result<Option<Loaded>, Error> {
    for info in loaded_programs() {
        let info = info.map_err(Error::program)?;
        if info.id() == id {
            let maps = info.map_ids().map_err(Error::program)?.unwrap_or_default();
            let name = String::from_utf8_lossy(info.name()).into_owned();
            return Ok(Some(Loaded { id, name, tag: info.tag(), maps }));
        }
    }
    Ok(None)
}

/// Returns the ID of the map that is pinned in a folder under this name.
///
/// # Errors
/// [`Error::Pin`] if there is no such pin, [`Error::Permission`] without the capabilities.
pub fn map_id(folder: &Path, name: &str) -> Result<u32, Error> {
    let path = folder.join(name);
    let info = MapInfo::from_pin(&path).map_err(|error| Error::pin(&path, error))?;
    Ok(info.id())
}
