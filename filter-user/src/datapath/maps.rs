//! The policy maps, from user space: a replay's private ones or a live filter's pinned ones.
//!
//! Each write is one system call and in force with it. Every map has a lock of its own,
//! held for that call only, so that nothing which lets a call through waits for a bulk of blocks.

mod copy;

use std::cell::Cell;
use std::collections::HashMap as StdHashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, MapType, PerCpuArray};
use filter_common::abi::{
    Allow, Attempt, AttemptKey, Block, EventStats, EvidenceStats, FragmentKey, Grace, Grant,
    PORT_WORDS, PrefixKey, Profile, Redial, Settings, TRUNKS_MAX,
};
use filter_common::number::{DIGITS_MAX, Number};
use filter_common::reason::{REASON_NUMBERS, Reason};

use super::error::Error;
use super::live::Pins;
use super::raw::Raw;
use crate::policy::{Policy, Protected, Subject};

/// Sets of settings: one in force, one to write the next into.
const GENERATIONS: u32 = 2;
const TRUNK_GENERATION_BITS: u32 = 32;

/// What a pinned map has to look like.
pub(super) struct Spec {
    pub name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
}

const fn spec(name: &'static str, kind: MapType, key: usize, value: usize) -> Spec {
    Spec { name, kind, key, value }
}

/// All maps that outlive the daemon. `SCRATCH` and the like are a program's own.
pub(super) const SPECS: &[Spec] = &[
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
    spec("REDIALS", MapType::LruHash, 8, size_of::<Redial>()),
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

type Trie<K, V> = Mutex<LpmTrie<MapData, K, V>>;
type Hash<K, V> = Mutex<HashMap<MapData, K, V>>;

/// The maps that user space reads and writes.
pub struct Maps {
    generation: Mutex<Array<MapData, u32>>,
    settings: Mutex<Array<MapData, Raw<Settings>>>,
    ports: Mutex<Array<MapData, u64>>,
    profiles: Mutex<Array<MapData, Raw<Profile>>>,
    trunks: Trie<[u8; 20], u32>,
    way_out: WayOut,
    protected: Trie<[u8; 8], Raw<Allow>>,
    blocked_numbers: Hash<u64, Raw<Block>>,
    blocked_prefixes: Trie<[u8; 8], Raw<Block>>,
    attempts: Hash<Raw<AttemptKey>, Raw<Attempt>>,
    redials: Hash<u64, Raw<Redial>>,
    grace: Hash<u64, Raw<Grace>>,
    grants: Hash<u64, Raw<Grant>>,
    fragments: Hash<Raw<FragmentKey>, u64>,
    counters: PerCpuArray<MapData, u64>,
    event_stats: PerCpuStats,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind it is a file descriptor: nothing that a panic could have left half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The maps that let through. Whoever needs a way out cannot wait for the end of an upgrade: they
/// may be those of another version, where all others cannot be read.
pub struct WayOut {
    override_until: Mutex<Array<MapData, u64>>,
    allowed_numbers: Hash<u64, Raw<Allow>>,
    allowed_prefixes: Trie<[u8; 8], Raw<Allow>>,
}

impl WayOut {
    fn new(take: &mut impl FnMut(&'static str) -> Result<Map, Error>) -> Result<WayOut, Error> {
        Ok(WayOut {
            override_until: Mutex::new(typed(take, "OVERRIDE")?),
            allowed_numbers: Mutex::new(typed(take, "ALLOWED_NUMBERS")?),
            allowed_prefixes: Mutex::new(typed(take, "ALLOWED_PREFIXES")?),
        })
    }

    /// Opens those pinned in a folder, after comparing their layouts.
    ///
    /// # Errors
    /// A map that is missing, that is none, or that another layout wrote.
    pub fn open(folder: &Path) -> Result<WayOut, Error> {
        WayOut::new(&mut |name| open(folder, name))
    }

    /// Until when nothing is refused, in boot time; 0: no override was ever set;
    /// [`LIFTED`](filter_common::abi::LIFTED): it was switched off.
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
    fn allowed_number(&self, number: Number) -> Result<Option<Allow>, Error> {
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

/// An allow in the two maps: that of a number is in a hash and in the trie of prefixes, that of a
/// prefix in the trie only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllowHalves {
    /// What the hash has.
    pub hash: Option<Allow>,
    /// What the trie has.
    pub trie: Option<Allow>,
}

impl AllowHalves {
    /// Whether one of the maps lacks what the other has of a number, or has something else.
    #[must_use]
    pub fn differ(&self, subject: Subject) -> bool {
        matches!(subject, Subject::Number(_)) && self.hash != self.trie
    }
}

impl std::ops::Deref for Maps {
    type Target = WayOut;

    fn deref(&self) -> &WayOut {
        &self.way_out
    }
}

impl Maps {
    /// The maps that `take` hands out by name.
    pub(super) fn new(
        mut take: impl FnMut(&'static str) -> Result<Map, Error>,
    ) -> Result<Maps, Error> {
        let take = &mut take;
        Ok(Maps {
            generation: Mutex::new(typed(take, "GENERATION")?),
            settings: Mutex::new(typed(take, "SETTINGS")?),
            ports: Mutex::new(typed(take, "PORTS")?),
            profiles: Mutex::new(typed(take, "PROFILES")?),
            trunks: Mutex::new(typed(take, "TRUNKS")?),
            way_out: WayOut::new(take)?,
            protected: Mutex::new(typed(take, "PROTECTED")?),
            blocked_numbers: Mutex::new(typed(take, "BLOCKED_NUMBERS")?),
            blocked_prefixes: Mutex::new(typed(take, "BLOCKED_PREFIXES")?),
            attempts: Mutex::new(typed(take, "ATTEMPTS")?),
            redials: Mutex::new(typed(take, "REDIALS")?),
            grace: Mutex::new(typed(take, "GRACE")?),
            grants: Mutex::new(typed(take, "GRANTS")?),
            fragments: Mutex::new(typed(take, "FRAGMENTS")?),
            counters: typed(take, "COUNTERS")?,
            event_stats: typed(take, "EVENT_STATS")?,
        })
    }

    /// Opens the maps pinned in a folder, after comparing every layout: the kernel would hand
    /// out a map of another layout just as well, and it would be read wrongly in silence.
    ///
    /// # Errors
    /// A map that is missing, that is none, or that another layout wrote.
    pub fn open(folder: &Path) -> Result<Maps, Error> {
        Maps::new(|name| open(folder, name))
    }

    /// How many blocked numbers fit.
    ///
    /// # Errors
    /// A failing system call.
    pub fn capacity(folder: &Path) -> Result<u32, Error> {
        let data = open_data(folder, "BLOCKED_NUMBERS")?;
        let info = data.info().map_err(|error| Error::map("BLOCKED_NUMBERS", error))?;
        Ok(info.max_entries())
    }

    /// The block against exactly this subject.
    ///
    /// # Errors
    /// A failing system call.
    pub fn block(&self, subject: Subject) -> Result<Option<Block>, Error> {
        let entry = match subject {
            Subject::Number(number) => {
                found("BLOCKED_NUMBERS", lock(&self.blocked_numbers).get(&number.0, 0))?
            }
            Subject::Prefix(_) => {
                found("BLOCKED_PREFIXES", lock(&self.blocked_prefixes).get(&key(subject), 0))?
            }
        };
        Ok(entry.map(|Raw(block)| block).filter(|block| block.number == subject.raw()))
    }

    /// Writes a block.
    ///
    /// # Errors
    /// A full map, a failing system call.
    pub fn set_block(&self, subject: Subject, block: Block) -> Result<(), Error> {
        match subject {
            Subject::Number(number) => lock(&self.blocked_numbers)
                .insert(number.0, Raw(block), 0)
                .map_err(|error| Error::map("BLOCKED_NUMBERS", error)),
            Subject::Prefix(_) => lock(&self.blocked_prefixes)
                .insert(&key(subject), Raw(block), 0)
                .map_err(|error| Error::map("BLOCKED_PREFIXES", error)),
        }
    }

    /// Takes a block out; `false`: there was none.
    ///
    /// # Errors
    /// A failing system call.
    pub fn remove_block(&self, subject: Subject) -> Result<bool, Error> {
        match subject {
            Subject::Number(number) => {
                removed("BLOCKED_NUMBERS", lock(&self.blocked_numbers).remove(&number.0))
            }
            Subject::Prefix(_) => {
                removed("BLOCKED_PREFIXES", lock(&self.blocked_prefixes).remove(&key(subject)))
            }
        }
    }

    /// The protected entry that a key begins with.
    ///
    /// # Errors
    /// A failing system call.
    pub fn protected(&self, key: &PrefixKey) -> Result<Option<Allow>, Error> {
        longest("PROTECTED", &self.protected, key)
    }

    /// The allow that the trie has of the longest prefix of a key, the whole number included, as the
    /// kernel asks it.
    fn longest_allowed(&self, key: &PrefixKey) -> Result<Option<Allow>, Error> {
        longest("ALLOWED_PREFIXES", &self.allowed_prefixes, key)
    }

    /// The allowed prefix that a key begins with.
    ///
    /// # Errors
    /// A failing system call.
    pub fn allowed_prefix(&self, key: &PrefixKey) -> Result<Option<Allow>, Error> {
        // Whole numbers stand there, too.
        let key = PrefixKey { prefix_len: key.prefix_len.min(4 * DIGITS_MAX), ..*key };
        longest("ALLOWED_PREFIXES", &self.allowed_prefixes, &key)
    }

    /// The blocked prefix that a key begins with.
    ///
    /// # Errors
    /// A failing system call.
    pub fn blocked_prefix(&self, key: &PrefixKey) -> Result<Option<Block>, Error> {
        longest("BLOCKED_PREFIXES", &self.blocked_prefixes, key)
    }

    /// What the program remembers of an attempt.
    ///
    /// # Errors
    /// A failing system call.
    pub fn attempt(&self, attempt: AttemptKey) -> Result<Option<Attempt>, Error> {
        let entry = found("ATTEMPTS", lock(&self.attempts).get(&Raw(attempt), 0))?;
        Ok(entry.map(|Raw(entry)| entry).filter(|entry| entry.key == attempt))
    }

    /// The call-back grace of a number, also one that is over.
    ///
    /// # Errors
    /// A failing system call.
    pub fn grace(&self, number: Number) -> Result<Option<Grace>, Error> {
        let entry = found("GRACE", lock(&self.grace).get(&number.0, 0))?;
        Ok(entry.map(|Raw(grace)| grace).filter(|grace| grace.number == number))
    }

    /// The redial grant of a number, also one that is over.
    ///
    /// # Errors
    /// A failing system call.
    pub fn grant(&self, number: Number) -> Result<Option<Grant>, Error> {
        let entry = found("GRANTS", lock(&self.grants).get(&number.0, 0))?;
        Ok(entry.map(|Raw(grant)| grant).filter(|grant| grant.number == number))
    }

    /// All redial grants, also those that are over.
    ///
    /// # Errors
    /// A failing system call.
    pub fn grants(&self) -> Result<Vec<Grant>, Error> {
        let map = lock(&self.grants);
        let grants = map.iter().map(|entry| entry.map(|(_, Raw(grant))| grant));
        grants.collect::<Result<_, _>>().map_err(|error| Error::map("GRANTS", error))
    }

    /// Takes those of these grants out that ended before `ended`, in boot time: they are of no use any
    /// more, and the program has no room for others that they stand in. How many they were.
    ///
    /// One that the program renews between the look and the removal, a microsecond, goes with it:
    /// the call that it was given to has passed, and further ones are counted anew.
    ///
    /// # Errors
    /// A failing system call.
    pub fn forget_grants(&self, grants: &[Grant], ended: u64) -> Result<usize, Error> {
        let mut forgotten = 0;
        for grant in grants.iter().filter(|grant| grant.until < ended) {
            // Looked at again: it may have been renewed since the map was read.
            if self.grant(grant.number)?.is_some_and(|grant| grant.until < ended) {
                forgotten +=
                    usize::from(removed("GRANTS", lock(&self.grants).remove(&grant.number.0))?);
            }
        }
        Ok(forgotten)
    }

    /// Writes a grant into maps that no program uses yet: afterwards only the program does.
    ///
    /// # Errors
    /// A failing system call.
    pub fn carry_grant(&self, grant: Grant) -> Result<(), Error> {
        lock(&self.grants)
            .insert(grant.number.0, Raw(grant), 0)
            .map_err(|error| Error::map("GRANTS", error))
    }

    /// How often a blocked number called of late.
    ///
    /// # Errors
    /// A failing system call.
    pub fn redial(&self, number: Number) -> Result<Option<Redial>, Error> {
        let entry = found("REDIALS", lock(&self.redials).get(&number.0, 0))?;
        Ok(entry.map(|Raw(redial)| redial).filter(|redial| redial.number == number))
    }

    /// The settings in force.
    ///
    /// # Errors
    /// A failing system call.
    pub fn settings(&self) -> Result<Settings, Error> {
        let generation = self.generation()?;
        lock(&self.settings)
            .get(&generation, 0)
            .map(|Raw(settings)| settings)
            .map_err(|error| Error::map("SETTINGS", error))
    }

    /// The profile of a trunk that is in force.
    ///
    /// # Errors
    /// A failing system call.
    pub fn profile(&self, trunk: u32) -> Result<Profile, Error> {
        let index = self.generation()? * TRUNKS_MAX + trunk.min(TRUNKS_MAX - 1);
        lock(&self.profiles)
            .get(&index, 0)
            .map(|Raw(profile)| profile)
            .map_err(|error| Error::map("PROFILES", error))
    }

    fn generation(&self) -> Result<u32, Error> {
        lock(&self.generation)
            .get(&0, 0)
            .map(|generation| generation % GENERATIONS)
            .map_err(|error| Error::map("GENERATION", error))
    }

    /// Writes settings, ports, profiles and trunks of a policy beside those in force, and
    /// then puts them into force with one store.
    ///
    /// # Errors
    /// More trunks or sources than fit; a failing system call. What was in force stays so.
    pub fn set_settings(&self, policy: &Policy) -> Result<(), Error> {
        if policy.trunks.len() > TRUNKS_MAX as usize {
            return Err(Error::TooManyTrunks(policy.trunks.len()));
        }
        let generation = (self.generation()? + 1) % GENERATIONS;
        for (index, word) in (generation * PORT_WORDS..).zip(port_words(policy)) {
            set("PORTS", &self.ports, index, word)?;
        }
        self.set_trunks(policy, generation)?;
        set("SETTINGS", &self.settings, generation, Raw(policy.settings))?;
        set("GENERATION", &self.generation, 0, generation)
    }

    fn set_trunks(&self, policy: &Policy, generation: u32) -> Result<(), Error> {
        let error = |error| Error::map("TRUNKS", error);
        let mut trunks = lock(&self.trunks);
        // Left over from the settings before the last.
        let keys: Result<Vec<_>, _> = trunks.keys().collect();
        for key in keys.map_err(error)? {
            if key.data()[..4] == generation.to_be_bytes() {
                trunks.remove(&key).map_err(error)?;
            }
        }
        for (trunk, entry) in policy.trunks.iter().enumerate() {
            let trunk = trunk as u32;
            let index = generation * TRUNKS_MAX + trunk;
            set("PROFILES", &self.profiles, index, Raw(entry.profile))?;
            for (address, bits) in &entry.sources {
                trunks.insert(&trunk_key(generation, address, *bits), trunk, 0).map_err(error)?;
            }
        }
        Ok(())
    }

    /// Whether settings, ports, trunks and profiles are exactly those of a policy.
    ///
    /// # Errors
    /// A failing system call.
    pub fn has_settings(&self, policy: &Policy) -> Result<bool, Error> {
        let generation = self.generation()?;
        if self.settings()? != policy.settings {
            return Ok(false);
        }
        for (index, word) in (generation * PORT_WORDS..).zip(port_words(policy)) {
            let there = lock(&self.ports).get(&index, 0);
            if there.map_err(|error| Error::map("PORTS", error))? != word {
                return Ok(false);
            }
        }
        for (index, trunk) in (generation * TRUNKS_MAX..).zip(&policy.trunks) {
            let there = lock(&self.profiles).get(&index, 0);
            let Raw(there) = there.map_err(|error| Error::map("PROFILES", error))?;
            if there != trunk.profile {
                return Ok(false);
            }
        }
        let mut wanted = StdHashMap::new();
        for (index, trunk) in (0u32..).zip(&policy.trunks) {
            let sources = trunk.sources.iter();
            wanted.extend(sources.map(|(address, bits)| {
                let key = trunk_key(generation, address, *bits);
                ((key.prefix_len(), key.data()), index)
            }));
        }
        for entry in lock(&self.trunks).iter() {
            let (key, trunk) = entry.map_err(|error| Error::map("TRUNKS", error))?;
            let is_in_force = key.data()[..4] == generation.to_be_bytes();
            if is_in_force && wanted.remove(&(key.prefix_len(), key.data())) != Some(trunk) {
                return Ok(false);
            }
        }
        Ok(wanted.is_empty())
    }

    /// How many protected entries are missing, are others than these, or are too many.
    ///
    /// # Errors
    /// A failing system call.
    pub fn wrong_protected(&self, wanted: &[Protected]) -> Result<u64, Error> {
        let mut missing: StdHashMap<_, _> = wanted
            .iter()
            .map(|protected| (protected.subject.key(), protected.entry))
            .map(|(key, entry)| ((key.prefix_len, key.number), entry))
            .collect();
        let mut wrong = 0;
        for entry in lock(&self.protected).iter() {
            let (key, Raw(entry)) = entry.map_err(|error| Error::map("PROTECTED", error))?;
            let known = missing.remove(&(key.prefix_len(), key.data()));
            wrong += u64::from(known != Some(entry));
        }
        Ok(wrong + missing.len() as u64)
    }

    /// Makes the protected entries exactly these, element by element: what stays is never out.
    ///
    /// # Errors
    /// More than fit; a failing system call.
    pub fn set_protected(&self, wanted: &[Protected]) -> Result<(), Error> {
        let error = |error| Error::map("PROTECTED", error);
        let mut trie = lock(&self.protected);
        for protected in wanted {
            trie.insert(&key(protected.subject), Raw(protected.entry), 0).map_err(error)?;
        }
        let keys: Result<Vec<_>, _> = trie.keys().collect();
        for found in keys.map_err(error)? {
            let found = PrefixKey { prefix_len: found.prefix_len(), number: found.data() };
            if !wanted.iter().any(|protected| protected.subject.key() == found) {
                trie.remove(&Key::new(found.prefix_len, found.number)).map_err(error)?;
            }
        }
        Ok(())
    }

    /// Writes a whole policy into maps of no use to a live filter.
    ///
    /// # Errors
    /// A policy that does not fit; a failing system call.
    pub fn fill(&self, policy: &Policy) -> Result<(), Error> {
        self.set_override(policy.override_until)?;
        self.set_protected(&policy.protected)?;
        for (subject, allow) in &policy.allows {
            self.set_allow(*subject, *allow)?;
        }
        for (subject, block) in &policy.blocks {
            self.set_block(*subject, *block)?;
        }
        self.set_settings(policy)
    }

    /// Takes everything out of the maps of a replay, also the program's own memory.
    ///
    /// # Errors
    /// A failing system call.
    pub fn clear(&self) -> Result<(), Error> {
        clear_trie("PROTECTED", &self.protected)?;
        clear_trie("ALLOWED_PREFIXES", &self.allowed_prefixes)?;
        clear_trie("BLOCKED_PREFIXES", &self.blocked_prefixes)?;
        clear_trie("TRUNKS", &self.trunks)?;
        clear_hash("ALLOWED_NUMBERS", &self.allowed_numbers)?;
        clear_hash("BLOCKED_NUMBERS", &self.blocked_numbers)?;
        clear_hash("ATTEMPTS", &self.attempts)?;
        clear_hash("REDIALS", &self.redials)?;
        clear_hash("GRACE", &self.grace)?;
        clear_hash("GRANTS", &self.grants)?;
        clear_hash("FRAGMENTS", &self.fragments)
    }

    /// How many packets of a trunk got a reason, over all CPUs.
    ///
    /// # Errors
    /// A failing system call.
    pub fn count(&self, trunk: u32, reason: Reason) -> Result<u64, Error> {
        debug_assert!(trunk < TRUNKS_MAX);
        let index = trunk * REASON_NUMBERS + reason as u32;
        let values = self.counters.get(&index, 0).map_err(|error| Error::map("COUNTERS", error))?;
        Ok(values.iter().sum())
    }

    /// Events that were thinned out or lost, over all CPUs.
    ///
    /// # Errors
    /// A failing system call.
    pub fn event_stats(&self) -> Result<EventStats, Error> {
        sum(&self.event_stats)
    }
}

type PerCpuStats = PerCpuArray<MapData, Raw<EventStats>>;

/// Events of the maps pinned in a folder that were thinned out or lost.
///
/// # Errors
/// A map that is missing, or of another layout; a failing system call.
pub fn event_stats(folder: &Path) -> Result<EventStats, Error> {
    sum(&typed::<PerCpuStats>(&mut |name| open(folder, name), "EVENT_STATS")?)
}

fn sum(stats: &PerCpuStats) -> Result<EventStats, Error> {
    let values = stats.get(&0, 0).map_err(|error| Error::map("EVENT_STATS", error))?;
    Ok(values.iter().fold(EventStats::default(), |sum, Raw(value)| EventStats {
        refused_lost: sum.refused_lost + value.refused_lost,
        passed_lost: sum.passed_lost + value.passed_lost,
        passed_thinned: sum.passed_thinned + value.passed_thinned,
        ..EventStats::default()
    }))
}

/// Walks all blocked numbers and prefixes of pinned maps, on file descriptors of its own, so
/// that nobody waits. The kernel begins anew when the element under the walk is removed, so
/// an entry may come twice; the walk ends after `limit` steps at the latest.
///
/// # Errors
/// A failing system call, and whatever `each` says.
pub fn walk_blocks(
    folder: &Path,
    limit: u64,
    mut each: impl FnMut(Subject, Block) -> Result<(), Error>,
) -> Result<(), Error> {
    let numbers: HashMap<_, u64, Raw<Block>> = open(folder, "BLOCKED_NUMBERS")?
        .try_into()
        .map_err(|error| Error::map("BLOCKED_NUMBERS", error))?;
    let mut steps = 0;
    for entry in numbers.iter() {
        let (_, Raw(block)) = entry.map_err(|error| Error::map("BLOCKED_NUMBERS", error))?;
        each(Subject::Number(block.number), block)?;
        steps += 1;
        if steps >= limit {
            break;
        }
    }
    let prefixes: LpmTrie<_, [u8; 8], Raw<Block>> = open(folder, "BLOCKED_PREFIXES")?
        .try_into()
        .map_err(|error| Error::map("BLOCKED_PREFIXES", error))?;
    for entry in prefixes.iter() {
        let (_, Raw(block)) = entry.map_err(|error| Error::map("BLOCKED_PREFIXES", error))?;
        each(Subject::of_prefix_entry(block.number), block)?;
    }
    Ok(())
}

/// The map that `take` hands out, as what it is.
pub(super) fn typed<M: TryFrom<Map, Error = MapError>>(
    take: &mut impl FnMut(&'static str) -> Result<Map, Error>,
    name: &'static str,
) -> Result<M, Error> {
    M::try_from(take(name)?).map_err(|error| Error::map(name, error))
}

/// A pinned map, its layout compared.
pub(super) fn open(folder: &Path, name: &'static str) -> Result<Map, Error> {
    let data = open_data(folder, name)?;
    Map::from_map_data(data).map_err(|error| Error::map(name, error))
}

fn open_data(folder: &Path, name: &'static str) -> Result<MapData, Error> {
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

/// The ports of a policy as the map has them, a bit each.
fn port_words(policy: &Policy) -> [u64; PORT_WORDS as usize] {
    let mut words = [0; PORT_WORDS as usize];
    for port in &policy.ports {
        words[*port as usize / 64] |= 1 << (port & 63);
    }
    words
}

fn trunk_key(generation: u32, address: &[u8; 16], bits: u32) -> Key<[u8; 20]> {
    let mut data = [0; 20];
    data[..4].copy_from_slice(&generation.to_be_bytes());
    data[4..].copy_from_slice(address);
    Key::new(TRUNK_GENERATION_BITS + bits, data)
}

fn key(subject: Subject) -> Key<[u8; 8]> {
    let key = subject.key();
    Key::new(key.prefix_len, key.number)
}

fn found<V>(name: &'static str, got: Result<V, MapError>) -> Result<Option<V>, Error> {
    match got {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(Error::map(name, error)),
    }
}

/// `ENOENT` of a deletion: the element is not there.
const ENOENT: i32 = 2;

fn removed(name: &'static str, done: Result<(), MapError>) -> Result<bool, Error> {
    match done {
        Ok(()) => Ok(true),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(ENOENT) => {
            Ok(false)
        }
        Err(error) => Err(Error::map(name, error)),
    }
}

fn longest<V: Copy + 'static>(
    name: &'static str,
    trie: &Trie<[u8; 8], Raw<V>>,
    key: &PrefixKey,
) -> Result<Option<V>, Error> {
    let got = lock(trie).get(&Key::new(key.prefix_len, key.number), 0);
    Ok(found(name, got)?.map(|Raw(value)| value))
}

fn set<V: aya::Pod>(
    name: &'static str,
    array: &Mutex<Array<MapData, V>>,
    index: u32,
    value: V,
) -> Result<(), Error> {
    lock(array).set(index, value, 0).map_err(|error| Error::map(name, error))
}

fn clear_trie<K: aya::Pod, V: aya::Pod>(
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

fn clear_hash<K: aya::Pod, V: aya::Pod>(
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

/// The decision of the kernel's program, asked of its own maps: what a call would get now.
pub struct LookUp<'a> {
    maps: &'a Maps,
    now: u64,
    block: Cell<Option<Block>>,
    counted: Option<u32>,
    opens: bool,
}

impl<'a> LookUp<'a> {
    /// Nothing was asked yet; `now` is boot time in nanoseconds.
    #[must_use]
    pub fn new(maps: &'a Maps, now: u64) -> LookUp<'a> {
        LookUp { maps, now, block: Cell::new(None), counted: None, opens: false }
    }

    /// The block that was met last: of what decides, the one that decided.
    #[must_use]
    pub fn block(&self) -> Option<Block> {
        self.block.get()
    }

    /// The separate attempt that this call would be; `None`: it would not be counted.
    #[must_use]
    pub fn attempt_counted(&self) -> Option<u32> {
        let opens = self.block.get().filter(|_| self.opens);
        opens.map(|block| u32::from(block.redial_attempts)).or(self.counted)
    }

    fn met(&self, block: Option<Block>) -> Option<Block> {
        if block.is_some() {
            self.block.set(block);
        }
        block
    }
}

impl filter_common::policy::Lists for LookUp<'_> {
    fn now(&mut self) -> u64 {
        self.now
    }

    fn override_until(&self) -> u64 {
        self.maps.override_until().unwrap_or(u64::MAX)
    }

    fn protected(&self, key: &PrefixKey) -> Option<Allow> {
        self.maps.protected(key).ok().flatten()
    }

    fn short_rule(&self, digits: u32) -> u64 {
        self.maps.settings().map_or(0, |settings| settings.short_rule(digits))
    }

    fn shortest_prefix(&self) -> u8 {
        self.maps.settings().map_or(u8::MAX, |settings| settings.shortest_prefix)
    }

    fn allowed_number(&self, number: Number) -> Option<Allow> {
        self.maps.allowed_number(number).ok().flatten()
    }

    fn allowed_prefix(&self, key: &PrefixKey) -> Option<Allow> {
        self.maps.longest_allowed(key).ok().flatten()
    }

    fn blocked_number(&self, number: Number) -> Option<Block> {
        self.met(self.maps.block(Subject::Number(number)).ok().flatten())
    }

    fn blocked_prefix(&self, key: &PrefixKey) -> Option<Block> {
        self.met(self.maps.blocked_prefix(key).ok().flatten())
    }

    /// A question is no attempt.
    fn attempt(&mut self, _number: Number, _call_id: u64, _now: u64) -> Option<Attempt> {
        None
    }

    fn remember(&mut self, _attempt: &Attempt) -> bool {
        true
    }

    fn grace(&self, number: Number) -> Option<Grace> {
        self.maps.grace(number).ok().flatten()
    }

    fn grant(&self, number: Number) -> Option<Grant> {
        self.maps.grant(number).ok().flatten()
    }

    fn open_grant(&mut self, _grant: &Grant) -> bool {
        self.opens = true;
        true
    }

    fn redial(&self, number: Number) -> Option<Redial> {
        self.maps.redial(number).ok().flatten()
    }

    fn count_redial(&mut self, redial: &Redial) -> bool {
        self.counted = Some(redial.count);
        true
    }
}

/// Copies into `to` what it lacks of the maps of another version or capacity: what lets through
/// and, where the layout is the same, the blocks and the mode. What cannot be read is left out,
/// and why is told: the store has the rest. `now` is boot time: grants that are over stay behind.
pub fn carry_over(from: &Path, to: &Maps, now: u64) -> Vec<Error> {
    let mut failed = Vec::new();
    let mut note = |done: Result<(), Error>| failed.extend(done.err());
    note(WayOut::open(from).and_then(|old| {
        if to.override_until()? == 0 {
            to.set_override(old.override_until()?)?;
        }
        for (subject, allow) in old.allows()? {
            if to.allow(subject)?.is_none() {
                to.set_allow(subject, allow)?;
            }
        }
        Ok(())
    }));
    // A layout from before there were grants has no map of them.
    let grants = from.join("GRANTS").exists().then(|| open(from, "GRANTS"));
    note(grants.map_or(Ok(()), |map| {
        let map = map?;
        let old: HashMap<_, u64, Raw<Grant>> =
            map.try_into().map_err(|error| Error::map("GRANTS", error))?;
        old.iter().try_for_each(|entry| {
            let (_, Raw(grant)) = entry.map_err(|error| Error::map("GRANTS", error))?;
            // A grant that was given since is the younger one.
            if grant.until <= now || to.grant(grant.number)?.is_some() {
                return Ok(());
            }
            to.carry_grant(grant)
        })
    }));
    if Pins::is_of_this_version(from) {
        note(walk_blocks(from, u64::MAX, |subject, block| match to.block(subject)? {
            None => to.set_block(subject, block),
            Some(_) => Ok(()),
        }));
        note(Maps::open(from).and_then(|old| {
            if to.settings()?.abi_version == 0 {
                set("SETTINGS", &to.settings, to.generation()?, Raw(old.settings()?))?;
            }
            Ok(())
        }));
    }
    failed
}
