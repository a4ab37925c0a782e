//! TODO-DOC

use crate::datapath::error::Error;
use crate::datapath::maps::AllowHalves;
use crate::datapath::maps::access::{found, key, lock, removed};
use crate::datapath::maps::layout::{Hash, Trie, open, typed};
use crate::datapath::raw::Raw;
use crate::model::policy::Subject;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, Map, MapData};
use filter_common::abi::{Allow, PrefixKey};
use filter_common::number::{DIGITS_MAX, Number};
use std::collections::HashMap as StdHashMap;
use std::path::Path;
use std::sync::Mutex;

/// The maps that let through. Whoever needs a way out cannot wait for the end of an upgrade: they
/// may be those of another version, where all others cannot be read.
pub struct PassMaps {
    pub(crate) override_until: Mutex<Array<MapData, u64>>,
    pub(crate) allowed_numbers: Hash<u64, Raw<Allow>>,
    pub(crate) allowed_prefixes: Trie<[u8; 8], Raw<Allow>>,
}

impl PassMaps {
    pub(crate) fn new(
        take: &mut impl FnMut(&'static str) -> Result<Map, Error>,
    ) -> Result<PassMaps, Error> {
        Ok(PassMaps {
            override_until: Mutex::new(typed(take, "OVERRIDE")?),
            allowed_numbers: Mutex::new(typed(take, "ALLOWED_NUMBERS")?),
            allowed_prefixes: Mutex::new(typed(take, "ALLOWED_PREFIXES")?),
        })
    }

    /// Opens those pinned in a folder, after comparing their layouts.
    ///
    /// # Errors
    /// A map that is missing, that is none, or that another layout wrote.
    pub fn open(folder: &Path) -> Result<PassMaps, Error> {
        PassMaps::new(&mut |name| open(folder, name))
    }

    /// Until when nothing is refused, in boot time; 0: no override was ever set;
    /// [`TOMBSTONE`](filter_common::abi::TOMBSTONE): it was switched off.
    ///
    /// # Errors
    /// A failing system call.
    pub fn override_until(&self) -> Result<u64, Error> {
        lock(&self.override_until).get(&0, 0).map_err(|error| Error::map("OVERRIDE", error))
    }

    /// Nothing is refused before this time.
    ///
    /// # Errors
    /// A failing system call.
    pub fn set_override(&self, until: u64) -> Result<(), Error> {
        lock(&self.override_until).set(0, until, 0).map_err(|error| Error::map("OVERRIDE", error))
    }

    /// The allow for exactly this subject. That of a number counts when it is in one of its two
    /// maps; where they differ, the trie has the newer one.
    ///
    /// # Errors
    /// A failing system call.
    pub fn allow(&self, subject: Subject) -> Result<Option<Allow>, Error> {
        let halves = self.allow_halves(subject)?;
        Ok(halves.trie.or(halves.hash))
    }

    /// What each of the two maps has of the allow for exactly this subject.
    ///
    /// # Errors
    /// A failing system call.
    pub fn allow_halves(&self, subject: Subject) -> Result<AllowHalves, Error> {
        let is_it = |allow: &Allow| allow.number == subject.raw();
        let in_trie = |key: &Key<[u8; 8]>| {
            let entry = found("ALLOWED_PREFIXES", lock(&self.allowed_prefixes).get(key, 0))?;
            Ok(entry.map(|Raw(allow)| allow).filter(is_it))
        };
        let key = key(subject);
        let trie = in_trie(&key)?;
        let Subject::Number(number) = subject else {
            return Ok(AllowHalves { hash: None, trie });
        };
        // The entry of a prefix of all its digits carries the same number.
        let prefix = in_trie(&Key::new(key.prefix_len().min(4 * DIGITS_MAX), key.data()))?;
        let entry = found("ALLOWED_NUMBERS", lock(&self.allowed_numbers).get(&number.0, 0))?;
        Ok(AllowHalves {
            hash: entry.map(|Raw(allow)| allow).filter(is_it),
            trie: trie.filter(|_| trie != prefix),
        })
    }

    /// The allow that the hash has of a number, as the kernel asks it.
    pub(crate) fn allowed_number(&self, number: Number) -> Result<Option<Allow>, Error> {
        let entry = found("ALLOWED_NUMBERS", lock(&self.allowed_numbers).get(&number.0, 0))?;
        Ok(entry.map(|Raw(allow)| allow))
    }

    /// Writes an allow; that of a number into the trie first, where none of its calls can miss it while
    /// the hash is written.
    ///
    /// # Errors
    /// A full map, a failing system call. What was in force stays so.
    pub fn set_allow(&self, subject: Subject, allow: Allow) -> Result<(), Error> {
        let before = self.allow_halves(subject)?.trie;
        let put = |allow| {
            lock(&self.allowed_prefixes)
                .insert(&key(subject), Raw(allow), 0)
                .map_err(|error| Error::map("ALLOWED_PREFIXES", error))
        };
        put(allow)?;
        let Subject::Number(number) = subject else { return Ok(()) };
        let done = lock(&self.allowed_numbers).insert(number.0, Raw(allow), 0);
        if done.is_err() {
            // Half an allow would let through all the same.
            match before {
                Some(before) => put(before)?,
                None => {
                    let gone = lock(&self.allowed_prefixes).remove(&key(subject));
                    removed("ALLOWED_PREFIXES", gone)?;
                }
            }
        }
        done.map_err(|error| Error::map("ALLOWED_NUMBERS", error))
    }

    /// Takes an allow out; `false`: there was none.
    ///
    /// # Errors
    /// A failing system call.
    pub fn remove_allow(&self, subject: Subject) -> Result<bool, Error> {
        let of_hash = match subject {
            Subject::Number(number) => {
                removed("ALLOWED_NUMBERS", lock(&self.allowed_numbers).remove(&number.0))?
            }
            Subject::Prefix(_) => false,
        };
        let of_trie =
            removed("ALLOWED_PREFIXES", lock(&self.allowed_prefixes).remove(&key(subject)))?;
        Ok(of_hash || of_trie)
    }

    /// All allows, also one of a number whose writing or removal was cut short: in one map only.
    ///
    /// # Errors
    /// A failing system call.
    pub fn allows(&self) -> Result<Vec<(Subject, Allow)>, Error> {
        let halves = self.all_allows()?.into_iter();
        let allow = |(subject, halves): (Subject, AllowHalves)| {
            halves.trie.or(halves.hash).map(|allow| (subject, allow))
        };
        Ok(halves.filter_map(allow).collect())
    }

    /// What each of the two maps has of all allows.
    ///
    /// # Errors
    /// A failing system call.
    pub fn all_allows(&self) -> Result<StdHashMap<Subject, AllowHalves>, Error> {
        let mut all: StdHashMap<_, AllowHalves> = StdHashMap::new();
        for entry in lock(&self.allowed_numbers).iter() {
            let (_, Raw(allow)) = entry.map_err(|error| Error::map("ALLOWED_NUMBERS", error))?;
            all.entry(Subject::Number(allow.number)).or_default().hash = Some(allow);
        }
        for entry in lock(&self.allowed_prefixes).iter() {
            let (key, Raw(allow)) = entry.map_err(|error| Error::map("ALLOWED_PREFIXES", error))?;
            let is_number = key.prefix_len() == PrefixKey::number(allow.number).prefix_len;
            let subject = match is_number {
                true => Subject::Number(allow.number),
                false => Subject::of_prefix_entry(allow.number),
            };
            all.entry(subject).or_default().trie = Some(allow);
        }
        Ok(all)
    }
}
