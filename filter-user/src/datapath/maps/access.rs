//! Single accesses to a map, and the errors that are an answer: an element that is not there.

use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, MapData, MapError};
use filter_common::abi::PrefixKey;
use nix::errno::Errno;

use crate::datapath::error::{Error, is_errno};
use crate::datapath::maps::layout::{Hash, Trie};
use crate::datapath::raw::Raw;
use crate::model::policy::Subject;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The mutex guards a file descriptor, which a panic cannot leave half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn key(subject: Subject) -> Key<[u8; 8]> {
    let key = subject.key();
    Key::new(key.prefix_len, key.number)
}

pub(crate) fn found<V>(name: &'static str, got: Result<V, MapError>) -> Result<Option<V>, Error> {
    match got {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(Error::map(name, error)),
    }
}

pub(crate) fn removed(name: &'static str, done: Result<(), MapError>) -> Result<bool, Error> {
    match done {
        Ok(()) => Ok(true),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(MapError::SyscallError(error)) if is_errno(&error.io_error, Errno::ENOENT) => Ok(false),
        Err(error) => Err(Error::map(name, error)),
    }
}

pub(crate) fn longest<V: Copy + 'static>(
    name: &'static str,
    trie: &Trie<[u8; 8], Raw<V>>,
    key: &PrefixKey,
) -> Result<Option<V>, Error> {
    let got = lock(trie).get(&Key::new(key.prefix_len, key.number), 0);
    Ok(found(name, got)?.map(|Raw(value)| value))
}

pub(crate) fn set<V: aya::Pod>(
    name: &'static str,
    array: &Mutex<Array<MapData, V>>,
    index: u32,
    value: V,
) -> Result<(), Error> {
    lock(array).set(index, value, 0).map_err(|error| Error::map(name, error))
}

pub(crate) fn clear_trie<K: aya::Pod, V: aya::Pod>(
    name: &'static str,
    trie: &Trie<K, V>,
) -> Result<(), Error> {
    let mut trie = lock(trie);
    let keys: Result<Vec<_>, _> = trie.keys().collect();
    for key in keys.map_err(|error| Error::map(name, error))? {
        trie.remove(&key).map_err(|error| Error::map(name, error))?;
    }
    Ok(())
}

pub(crate) fn clear_hash<K: aya::Pod, V: aya::Pod>(
    name: &'static str,
    hash: &Hash<K, V>,
) -> Result<(), Error> {
    let mut hash = lock(hash);
    let keys: Result<Vec<_>, _> = hash.keys().collect();
    for key in keys.map_err(|error| Error::map(name, error))? {
        hash.remove(&key).map_err(|error| Error::map(name, error))?;
    }
    Ok(())
}
