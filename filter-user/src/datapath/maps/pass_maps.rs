//! The maps that let callers through: the override and the allows.

use std::collections::HashMap as StdHashMap;
use std::path::Path;
use std::sync::Mutex;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, Map, MapData};
use filter_common::abi::Allow;
use filter_common::number::{DIGITS_MAX, Number};

use crate::datapath::error::Error;
use crate::datapath::maps::access::{found, key, lock, removed};
use crate::datapath::maps::layout::{Hash, Trie, open, typed};
use crate::datapath::raw::Raw;
use crate::model::policy::Subject;

/// An allow in the two maps. The allow of a number is in a hash and in the trie of prefixes; the allow
/// of a prefix is in the trie only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllowHalves {
    /// Entry of the hash.
    pub hash: Option<Allow>,
    /// Entry of the trie.
    pub trie: Option<Allow>,
}

impl AllowHalves {
    /// Returns the allow in force: if the two entries differ, the trie has the newer one.
    #[must_use]
    pub fn allow(self) -> Option<Allow> {
        self.trie.or(self.hash)
    }

    /// Checks whether the two entries of a number differ, or one of them is missing.
    #[must_use]
    pub fn differ(&self, subject: Subject) -> bool {
        matches!(subject, Subject::Number(_)) && self.hash != self.trie
    }
}

/// The maps that let callers through. A person in an emergency cannot wait for the end of an upgrade.
/// So these maps can be read and written in another version, whose other maps cannot be read.
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

    /// Opens the maps pinned in a folder, after comparing their layouts.
    ///
    /// # Errors
    /// [`Error::Pin`] if a map is missing or is not a map, [`Error::Layout`] if it has another layout.
    pub fn open(folder: &Path) -> Result<PassMaps, Error> {
        PassMaps::new(&mut |name| open(folder, name))
    }

    /// Returns the end of the override, in boot time. 0: no override was ever set;
    /// [`TOMBSTONE`](filter_common::abi::TOMBSTONE): it was switched off.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn override_until(&self) -> Result<u64, Error> {
        lock(&self.override_until).get(&0, 0).map_err(|error| Error::map("OVERRIDE", error))
    }

    /// Sets the end of the override, in boot time: no call is refused before it.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn set_override(&self, until: u64) -> Result<(), Error> {
        lock(&self.override_until).set(0, until, 0).map_err(|error| Error::map("OVERRIDE", error))
    }

    /// Returns the allow for exactly this subject. The allow of a number counts if it is in one of its
    /// two maps; if they differ, the trie has the newer one.
    ///
    /// # Errors
    /// [`Error::Map`] if a system call fails.
    pub fn allow(&self, subject: Subject) -> Result<Option<Allow>, Error> {
        Ok(self.allow_halves(subject)?.allow())
    }

    /// Returns the entries of both maps for exactly this subject.
    ///
    /// # Errors
    /// [`Error::Map`] if a system call fails.
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
        // The prefix of all digits of the number has the same number in its entry.
        let prefix = in_trie(&Key::new(key.prefix_len().min(4 * DIGITS_MAX), key.data()))?;
        let entry = found("ALLOWED_NUMBERS", lock(&self.allowed_numbers).get(&number.0, 0))?;
        Ok(AllowHalves {
            hash: entry.map(|Raw(allow)| allow).filter(is_it),
            trie: trie.filter(|_| trie != prefix),
        })
    }

    /// Returns the hash's allow for a number, as the kernel looks it up.
    pub(crate) fn allowed_number(&self, number: Number) -> Result<Option<Allow>, Error> {
        let entry = found("ALLOWED_NUMBERS", lock(&self.allowed_numbers).get(&number.0, 0))?;
        Ok(entry.map(|Raw(allow)| allow))
    }

    /// Writes an allow. The allow of a number goes into the trie first: no call misses it there while the
    /// hash is written.
    ///
    /// # Errors
    /// [`Error::Full`] if a map is full, [`Error::Map`] if a system call fails. The allow in force then
    /// stays.
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
            // An allow in one map only would let the number through, too.
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

    /// Removes an allow; `false` if it did not exist.
    ///
    /// # Errors
    /// [`Error::Map`] if a system call fails.
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

    /// Returns all allows, also those of numbers that are in one map only, after a write or removal that
    /// did not end.
    ///
    /// # Errors
    /// [`Error::Map`] if a system call fails.
    pub fn allows(&self) -> Result<Vec<(Subject, Allow)>, Error> {
        let halves = self.all_allows()?.into_iter();
        let allow = |(subject, halves): (Subject, AllowHalves)| {
            halves.allow().map(|allow| (subject, allow))
        };
        Ok(halves.filter_map(allow).collect())
    }

    /// Returns the entries of both maps for all allows.
    ///
    /// # Errors
    /// [`Error::Map`] if a system call fails.
    pub fn all_allows(&self) -> Result<StdHashMap<Subject, AllowHalves>, Error> {
        let mut all: StdHashMap<_, AllowHalves> = StdHashMap::new();
        for entry in lock(&self.allowed_numbers).iter() {
            let (_, Raw(allow)) = entry.map_err(|error| Error::map("ALLOWED_NUMBERS", error))?;
            all.entry(Subject::Number(allow.number)).or_default().hash = Some(allow);
        }
        for entry in lock(&self.allowed_prefixes).iter() {
            let (key, Raw(allow)) = entry.map_err(|error| Error::map("ALLOWED_PREFIXES", error))?;
            let subject = Subject::of_trie_entry(key.prefix_len(), allow.number);
            all.entry(subject).or_default().trie = Some(allow);
        }
        Ok(all)
    }
}
