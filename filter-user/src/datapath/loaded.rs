//! Programs that are in the kernel, and the maps that they judge by.

use std::path::Path;

use aya::maps::MapInfo;
use aya::programs::loaded_programs;

use crate::datapath::error::Error;

/// A program in the kernel, as the kernel tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its id.
    pub id: u32,
    /// Its name, cut at 15 bytes.
    pub name: String,
    /// A hash of its instructions, as `bpftool prog` shows it in hexadecimal.
    pub tag: u64,
    /// Ids of its maps.
    pub maps: Vec<u32>,
}

/// The program with this id; `None`: there is none.
///
/// # Errors
/// Missing capabilities, a failing system call.
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

/// The id of the map that is pinned in a folder under this name.
///
/// # Errors
/// No such pin, missing capabilities.
pub fn map_id(folder: &Path, name: &str) -> Result<u32, Error> {
    let path = folder.join(name);
    let info = MapInfo::from_pin(&path).map_err(|error| Error::pin(&path, error))?;
    Ok(info.id())
}
