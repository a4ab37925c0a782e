//! Writing a policy into the maps.

use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapError};
use filter_common::abi::{Allow, Attempt, AttemptKey, Block, FragmentKey, PORT_WORDS, TRUNKS_MAX};

use super::error::Error;
use super::raw::Raw;
use crate::policy::{Policy, Subject};

/// The generation of settings that a private copy of the maps uses.
const GENERATION: u32 = 0;
const TRUNK_GENERATION_BITS: u32 = 32;

/// Writes a whole policy into empty maps.
pub fn policy(ebpf: &mut Ebpf, policy: &Policy) -> Result<(), Error> {
    if policy.trunks.len() > TRUNKS_MAX as usize {
        return Err(Error::TooManyTrunks(policy.trunks.len()));
    }
    set_override(ebpf, policy.override_until)?;
    for (subject, allow) in &policy.protected {
        insert_prefix(ebpf, "PROTECTED", *subject, Raw(*allow))?;
    }
    for (subject, allow) in &policy.allows {
        insert_allow(ebpf, *subject, *allow)?;
    }
    for (subject, block) in &policy.blocks {
        match subject {
            Subject::Number(number) => insert(ebpf, "BLOCKED_NUMBERS", number.0, Raw(*block))?,
            Subject::Prefix(_) => insert_prefix(ebpf, "BLOCKED_PREFIXES", *subject, Raw(*block))?,
        }
    }
    let mut ports = [0u64; PORT_WORDS as usize];
    for port in &policy.ports {
        ports[*port as usize / 64] |= 1 << (port & 63);
    }
    for (index, word) in (0..).zip(ports) {
        set(ebpf, "PORTS", GENERATION * PORT_WORDS + index, word)?;
    }
    for (trunk, entry) in policy.trunks.iter().enumerate() {
        let trunk = trunk as u32;
        set(ebpf, "PROFILES", GENERATION * TRUNKS_MAX + trunk, Raw(entry.profile))?;
        for (address, bits) in &entry.sources {
            let mut key = [0; 20];
            key[..4].copy_from_slice(&GENERATION.to_be_bytes());
            key[4..].copy_from_slice(address);
            let mut trunks: LpmTrie<_, [u8; 20], u32> = map(ebpf, "TRUNKS")?;
            trunks
                .insert(&Key::new(TRUNK_GENERATION_BITS + bits, key), trunk, 0)
                .map_err(|error| Error::map("TRUNKS", error))?;
        }
    }
    set(ebpf, "SETTINGS", GENERATION, Raw(policy.settings))?;
    set(ebpf, "GENERATION", 0, GENERATION)
}

/// Nothing is refused before this time.
pub fn set_override(ebpf: &mut Ebpf, until: u64) -> Result<(), Error> {
    set(ebpf, "OVERRIDE", 0, until)
}

/// Takes everything out of the maps, also the program's own memory.
pub fn clear(ebpf: &mut Ebpf) -> Result<(), Error> {
    for name in ["PROTECTED", "ALLOWED_PREFIXES"] {
        clear_trie::<[u8; 8], Raw<Allow>>(ebpf, name)?;
    }
    clear_trie::<[u8; 8], Raw<Block>>(ebpf, "BLOCKED_PREFIXES")?;
    clear_trie::<[u8; 20], u32>(ebpf, "TRUNKS")?;
    clear_hash::<u64, Raw<Allow>>(ebpf, "ALLOWED_NUMBERS")?;
    clear_hash::<u64, Raw<Block>>(ebpf, "BLOCKED_NUMBERS")?;
    clear_hash::<Raw<AttemptKey>, Raw<Attempt>>(ebpf, "ATTEMPTS")?;
    clear_hash::<Raw<FragmentKey>, u64>(ebpf, "FRAGMENTS")
}

fn clear_trie<K: aya::Pod, V: aya::Pod>(ebpf: &mut Ebpf, name: &'static str) -> Result<(), Error> {
    let mut trie: LpmTrie<_, K, V> = map(ebpf, name)?;
    let keys: Result<Vec<_>, _> = trie.keys().collect();
    for key in keys.map_err(|error| Error::map(name, error))? {
        trie.remove(&key).map_err(|error| Error::map(name, error))?;
    }
    Ok(())
}

fn clear_hash<K: aya::Pod, V: aya::Pod>(ebpf: &mut Ebpf, name: &'static str) -> Result<(), Error> {
    let mut hash: HashMap<_, K, V> = map(ebpf, name)?;
    let keys: Result<Vec<_>, _> = hash.keys().collect();
    for key in keys.map_err(|error| Error::map(name, error))? {
        hash.remove(&key).map_err(|error| Error::map(name, error))?;
    }
    Ok(())
}

fn insert_allow(ebpf: &mut Ebpf, subject: Subject, allow: Allow) -> Result<(), Error> {
    match subject {
        Subject::Number(number) => insert(ebpf, "ALLOWED_NUMBERS", number.0, Raw(allow)),
        Subject::Prefix(_) => insert_prefix(ebpf, "ALLOWED_PREFIXES", subject, Raw(allow)),
    }
}

/// A map of the object, for writing.
pub fn map<'a, M>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<M, Error>
where
    M: TryFrom<&'a mut Map, Error = MapError>,
{
    let map = ebpf.map_mut(name).ok_or(Error::Missing(name))?;
    M::try_from(map).map_err(|error| Error::map(name, error))
}

fn set<V: aya::Pod>(ebpf: &mut Ebpf, name: &'static str, index: u32, v: V) -> Result<(), Error> {
    let mut array: Array<_, V> = map(ebpf, name)?;
    array.set(index, v, 0).map_err(|error| Error::map(name, error))
}

fn insert<V: aya::Pod>(ebpf: &mut Ebpf, name: &'static str, key: u64, v: V) -> Result<(), Error> {
    let mut hash: HashMap<_, u64, V> = map(ebpf, name)?;
    hash.insert(key, v, 0).map_err(|error| Error::map(name, error))
}

fn insert_prefix<V: aya::Pod>(
    ebpf: &mut Ebpf,
    name: &'static str,
    subject: Subject,
    value: V,
) -> Result<(), Error> {
    let key = subject.key();
    let mut trie: LpmTrie<_, [u8; 8], V> = map(ebpf, name)?;
    trie.insert(&Key::new(key.prefix_len, key.number), value, 0)
        .map_err(|error| Error::map(name, error))
}
