//! Opens pinned maps, and compares their layout with the table [`MAPS`].

use std::path::Path;
use std::sync::Mutex;

use aya::maps::{HashMap, LpmTrie, Map, MapData, MapError, MapType};
use filter_common::maps::{MAPS, MapKind};

use crate::datapath::error::Error;

/// Bits of a trunk's key before its source address.
pub(crate) const TRUNK_GENERATION_BITS: u32 = 32;

/// Smallest capacity of the program's memory of attempts.
const ATTEMPTS_MIN: u32 = 65_536;

pub(crate) type Trie<K, V> = Mutex<LpmTrie<MapData, K, V>>;

pub(crate) type Hash<K, V> = Mutex<HashMap<MapData, K, V>>;

/// Returns the capacity of the program's memory of attempts: two for each blocked number, and the free
/// entries that each CPU keeps for itself. In a smaller map the program forgets attempts too early.
///
/// # Errors
/// [`Error::Cpus`] if the number of CPUs is not known.
pub(crate) fn attempts_capacity(blocks: u32) -> Result<u32, Error> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| Error::Cpus(error))? as u32;
    Ok(blocks.saturating_mul(2).saturating_add(128 * cpus).max(ATTEMPTS_MIN))
}

/// Returns the map that `take` returns for a name, with the type of its keys and values.
pub(crate) fn typed<M: TryFrom<Map, Error = MapError>>(
    take: &mut impl FnMut(&'static str) -> Result<Map, Error>,
    name: &'static str,
) -> Result<M, Error> {
    M::try_from(take(name)?).map_err(|error| Error::map(name, error))
}

/// Opens a pinned map after comparing its layout.
pub(crate) fn open(folder: &Path, name: &'static str) -> Result<Map, Error> {
    let data = open_data(folder, name)?;
    Map::from_map_data(data).map_err(|error| Error::map(name, error))
}

pub(crate) fn open_data(folder: &Path, name: &'static str) -> Result<MapData, Error> {
    let path = folder.join(name);
    let data = MapData::from_pin(&path).map_err(|error| Error::pin(&path, error))?;
    let info = data.info().map_err(|error| Error::pin(&path, error))?;
    let wrong = |what: String| Error::Layout { path: path.clone(), what };
    let spec = MAPS.iter().find(|spec| spec.name == name).ok_or(Error::Missing(name))?;
    let kind = info.map_type().map_err(|error| Error::pin(&path, error))?;
    if kind != map_type(spec.kind) {
        return Err(wrong(format!("it is a {kind:?} map, not {:?}", spec.kind)));
    }
    let found = (info.key_size(), info.value_size());
    if found != (spec.key_size, spec.value_size) {
        return Err(wrong(format!(
            "keys and values of {}+{} bytes, not {}+{}",
            found.0, found.1, spec.key_size, spec.value_size
        )));
    }
    Ok(data)
}

fn map_type(kind: MapKind) -> MapType {
    match kind {
        MapKind::Array => MapType::Array,
        MapKind::PerCpuArray => MapType::PerCpuArray,
        MapKind::Hash => MapType::Hash,
        MapKind::LruHash => MapType::LruHash,
        MapKind::LpmTrie => MapType::LpmTrie,
        MapKind::RingBuf => MapType::RingBuf,
    }
}
