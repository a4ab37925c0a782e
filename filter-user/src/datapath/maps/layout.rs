//! TODO-DOC

use crate::datapath::error::Error;
use aya::maps::{HashMap, LpmTrie, Map, MapData, MapError, MapType};
use filter_common::abi::{
    Allow, Attempt, AttemptKey, Block, EventStats, EvidenceStats, FragmentKey, Grace, Grant,
    PrefixKey, Profile, RedialCounter, Settings,
};
use std::path::Path;
use std::sync::Mutex;

/// Sets of settings: one in force, one to write the next into.
pub(crate) const GENERATIONS: u32 = 2;

pub(crate) const TRUNK_GENERATION_BITS: u32 = 32;

/// What a pinned map has to look like.
pub(crate) struct Spec {
    pub name: &'static str,
    pub(crate) kind: MapType,
    pub(crate) key: usize,
    pub(crate) value: usize,
}

pub(crate) const fn spec(name: &'static str, kind: MapType, key: usize, value: usize) -> Spec {
    Spec { name, kind, key, value }
}

/// All maps that outlive the daemon. `SCRATCH` and the like are a program's own.
pub(crate) const SPECS: &[Spec] = &[
    spec("GENERATION", MapType::Array, 4, 4),
    spec("SETTINGS", MapType::Array, 4, size_of::<Settings>()),
    spec("PORTS", MapType::Array, 4, 8),
    spec("PROFILES", MapType::Array, 4, size_of::<Profile>()),
    spec("TRUNKS", MapType::LpmTrie, 24, 4),
    spec("OVERRIDE", MapType::Array, 4, 8),
    spec("PROTECTED", MapType::LpmTrie, size_of::<PrefixKey>(), size_of::<Allow>()),
    spec("ALLOWED_NUMBERS", MapType::Hash, 8, size_of::<Allow>()),
    spec("ALLOWED_PREFIXES", MapType::LpmTrie, size_of::<PrefixKey>(), size_of::<Allow>()),
    spec("BLOCKED_NUMBERS", MapType::Hash, 8, size_of::<Block>()),
    spec("BLOCKED_PREFIXES", MapType::LpmTrie, size_of::<PrefixKey>(), size_of::<Block>()),
    spec("ATTEMPTS", MapType::LruHash, size_of::<AttemptKey>(), size_of::<Attempt>()),
    spec("REDIALS", MapType::LruHash, 8, size_of::<RedialCounter>()),
    spec("GRANTS", MapType::Hash, 8, size_of::<Grant>()),
    spec("GRACE", MapType::LruHash, 8, size_of::<Grace>()),
    spec("FRAGMENTS", MapType::LruHash, size_of::<FragmentKey>(), 8),
    spec("COUNTERS", MapType::PerCpuArray, 4, 8),
    spec("EVENT_STATS", MapType::PerCpuArray, 4, size_of::<EventStats>()),
    spec("EVENTS_REFUSED", MapType::RingBuf, 0, 0),
    spec("EVENTS_PASSED", MapType::RingBuf, 0, 0),
    spec("EVIDENCE_PER_SECOND", MapType::Array, 4, 4),
    spec("EVIDENCE", MapType::RingBuf, 0, 0),
    spec("EVIDENCE_STATS", MapType::PerCpuArray, 4, size_of::<EvidenceStats>()),
];

pub(crate) type Trie<K, V> = Mutex<LpmTrie<MapData, K, V>>;

pub(crate) type Hash<K, V> = Mutex<HashMap<MapData, K, V>>;

/// The map that `take` hands out, as what it is.
pub(crate) fn typed<M: TryFrom<Map, Error = MapError>>(
    take: &mut impl FnMut(&'static str) -> Result<Map, Error>,
    name: &'static str,
) -> Result<M, Error> {
    M::try_from(take(name)?).map_err(|error| Error::map(name, error))
}

/// A pinned map, its layout compared.
pub(crate) fn open(folder: &Path, name: &'static str) -> Result<Map, Error> {
    let data = open_data(folder, name)?;
    Map::from_map_data(data).map_err(|error| Error::map(name, error))
}

pub(crate) fn open_data(folder: &Path, name: &'static str) -> Result<MapData, Error> {
    let path = folder.join(name);
    let data = MapData::from_pin(&path).map_err(|error| Error::pin(&path, error))?;
    let info = data.info().map_err(|error| Error::pin(&path, error))?;
    let wrong = |what: String| Error::Layout { path: path.clone(), what };
    let spec = SPECS.iter().find(|spec| spec.name == name).ok_or(Error::Missing(name))?;
    let kind = info.map_type().map_err(|error| Error::pin(&path, error))?;
    if kind != spec.kind {
        return Err(wrong(format!("it is a {kind:?} map, not {:?}", spec.kind)));
    }
    let found = (info.key_size() as usize, info.value_size() as usize);
    if found != (spec.key, spec.value) {
        return Err(wrong(format!(
            "keys and values of {}+{} bytes, not {}+{}",
            found.0, found.1, spec.key, spec.value
        )));
    }
    Ok(data)
}
