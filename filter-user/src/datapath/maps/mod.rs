//! The policy maps, from user space: the private maps of a replay or the pinned maps of a live filter.
//!
//! Each write is one system call and in force with it. Every map has a lock of its own, held for that
//! call only. So a change that lets a call through never waits for many blocks.

pub(crate) mod access;
pub(crate) mod carry_over;
pub(crate) mod copy;
pub(crate) mod layout;
pub(crate) mod lookup;
pub(crate) mod pass_maps;

use std::collections::HashMap as StdHashMap;
use std::path::Path;
use std::sync::Mutex;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray};
use filter_common::abi::{
    Allow, Attempt, AttemptKey, Block, EventStats, FragmentKey, GENERATIONS, Grace, Grant,
    PORT_WORDS, PrefixKey, Profile, RedialCounter, Settings, TRUNKS_MAX,
};
use filter_common::number::{DIGITS_MAX, Number};
use filter_common::reason::{REASON_NUMBERS, Reason};

use crate::datapath::error::Error;
use crate::datapath::maps::access::{
    clear_hash, clear_trie, found, key, lock, longest, removed, set,
};
use crate::datapath::maps::layout::{Hash, TRUNK_GENERATION_BITS, Trie, open, open_data, typed};
use crate::datapath::maps::pass_maps::PassMaps;
use crate::datapath::raw::Raw;
use crate::model::policy::{Policy, Protected, Subject};

/// The maps that user space reads and writes.
pub struct Maps {
    pub(crate) generation: Mutex<Array<MapData, u32>>,
    pub(crate) settings: Mutex<Array<MapData, Raw<Settings>>>,
    pub(crate) ports: Mutex<Array<MapData, u64>>,
    pub(crate) profiles: Mutex<Array<MapData, Raw<Profile>>>,
    pub(crate) trunks: Trie<[u8; 20], u32>,
    pass_maps: PassMaps,
    pub(crate) protected: Trie<[u8; 8], Raw<Allow>>,
    blocked_numbers: Hash<u64, Raw<Block>>,
    blocked_prefixes: Trie<[u8; 8], Raw<Block>>,
    attempts: Hash<Raw<AttemptKey>, Raw<Attempt>>,
    redials: Hash<u64, Raw<RedialCounter>>,
    pub(crate) grace: Hash<u64, Raw<Grace>>,
    grants: Hash<u64, Raw<Grant>>,
    fragments: Hash<Raw<FragmentKey>, u64>,
    counters: PerCpuArray<MapData, u64>,
    pub(crate) event_stats: PerCpuStats,
}

impl Maps {
    /// Creates the maps from those that `take` returns by name.
    pub(crate) fn new(
        mut take: impl FnMut(&'static str) -> Result<Map, Error>,
    ) -> Result<Maps, Error> {
        let take = &mut take;
        Ok(Maps {
            generation: Mutex::new(typed(take, "GENERATION")?),
            settings: Mutex::new(typed(take, "SETTINGS")?),
            ports: Mutex::new(typed(take, "PORTS")?),
            profiles: Mutex::new(typed(take, "PROFILES")?),
            trunks: Mutex::new(typed(take, "TRUNKS")?),
            pass_maps: PassMaps::new(take)?,
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

    /// Opens the maps pinned in a folder, after comparing every layout. The kernel also opens a map of
    /// another layout, which would be read wrongly in silence.
    ///
    /// # Errors
    /// [`Error::Pin`] if a map is missing or is not a map, [`Error::Layout`] if it has another layout.
    pub fn open(folder: &Path) -> Result<Maps, Error> {
        Maps::new(|name| open(folder, name))
    }

    /// Returns the maps that let callers through.
    #[must_use]
    pub fn pass_maps(&self) -> &PassMaps {
        &self.pass_maps
    }

    /// Returns the number of blocked numbers that fit.
    ///
    /// # Errors
    /// [`Error::Pin`] if the map is missing, [`Error::Layout`] if it has another layout.
    pub fn capacity(folder: &Path) -> Result<u32, Error> {
        let data = open_data(folder, "BLOCKED_NUMBERS")?;
        let info = data.info().map_err(|error| Error::map("BLOCKED_NUMBERS", error))?;
        Ok(info.max_entries())
    }

    /// Returns the block of exactly this subject.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
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
    /// [`Error::Full`] if the map is full, [`Error::Map`] if the system call fails.
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

    /// Removes a block; `false` if it did not exist.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
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

    /// Returns the protected entry that a key begins with.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn protected(&self, key: &PrefixKey) -> Result<Option<Allow>, Error> {
        longest("PROTECTED", &self.protected, key)
    }

    /// Returns the trie's allow for the longest prefix of a key, the whole number included, as the
    /// kernel looks it up.
    pub(crate) fn longest_allowed(&self, key: &PrefixKey) -> Result<Option<Allow>, Error> {
        longest("ALLOWED_PREFIXES", &self.pass_maps.allowed_prefixes, key)
    }

    /// Returns the allowed prefix that a key begins with.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn allowed_prefix(&self, key: &PrefixKey) -> Result<Option<Allow>, Error> {
        // The trie has whole numbers, too.
        let key = PrefixKey { prefix_len: key.prefix_len.min(4 * DIGITS_MAX), ..*key };
        longest("ALLOWED_PREFIXES", &self.pass_maps.allowed_prefixes, &key)
    }

    /// Returns the blocked prefix that a key begins with.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn blocked_prefix(&self, key: &PrefixKey) -> Result<Option<Block>, Error> {
        longest("BLOCKED_PREFIXES", &self.blocked_prefixes, key)
    }

    /// Returns the program's entry of an attempt.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn attempt(&self, attempt: AttemptKey) -> Result<Option<Attempt>, Error> {
        let entry = found("ATTEMPTS", lock(&self.attempts).get(&Raw(attempt), 0))?;
        Ok(entry.map(|Raw(entry)| entry).filter(|entry| entry.key == attempt))
    }

    /// Returns the call-back grace of a number, also one that has ended.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn grace(&self, number: Number) -> Result<Option<Grace>, Error> {
        let entry = found("GRACE", lock(&self.grace).get(&number.0, 0))?;
        Ok(entry.map(|Raw(grace)| grace).filter(|grace| grace.number == number))
    }

    /// Returns the redial grant of a number, also one that has ended.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn grant(&self, number: Number) -> Result<Option<Grant>, Error> {
        let entry = found("GRANTS", lock(&self.grants).get(&number.0, 0))?;
        Ok(entry.map(|Raw(grant)| grant).filter(|grant| grant.number == number))
    }

    /// Returns all redial grants, also those that have ended.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn grants(&self) -> Result<Vec<Grant>, Error> {
        let map = lock(&self.grants);
        let grants = map.iter().map(|entry| entry.map(|(_, Raw(grant))| grant));
        grants.collect::<Result<_, _>>().map_err(|error| Error::map("GRANTS", error))
    }

    /// Removes those of these grants that ended before `ended`, in boot time: they have no effect, and
    /// occupy room that the program needs for others. Returns their number.
    ///
    /// A grant that the program renews between check and removal, a microsecond, is removed, too. The
    /// call that opened it has passed, and further calls are counted again.
    ///
    /// # Errors
    /// [`Error::Map`] if a system call fails.
    pub fn forget_grants(&self, grants: &[Grant], ended: u64) -> Result<usize, Error> {
        let mut forgotten = 0;
        for grant in grants.iter().filter(|grant| grant.until < ended) {
            // Read again: the program may have renewed it since the map was read.
            if self.grant(grant.number)?.is_some_and(|grant| grant.until < ended) {
                forgotten +=
                    usize::from(removed("GRANTS", lock(&self.grants).remove(&grant.number.0))?);
            }
        }
        Ok(forgotten)
    }

    /// Writes a grant into maps that no program uses yet. Later, only the program writes grants.
    ///
    /// # Errors
    /// [`Error::Full`] if the map is full, [`Error::Map`] if the system call fails.
    pub fn carry_grant(&self, grant: Grant) -> Result<(), Error> {
        lock(&self.grants)
            .insert(grant.number.0, Raw(grant), 0)
            .map_err(|error| Error::map("GRANTS", error))
    }

    /// Returns the recent attempts of a blocked number.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn redial(&self, number: Number) -> Result<Option<RedialCounter>, Error> {
        let entry = found("REDIALS", lock(&self.redials).get(&number.0, 0))?;
        Ok(entry.map(|Raw(redial)| redial).filter(|redial| redial.number == number))
    }

    /// Returns the settings in force.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn settings(&self) -> Result<Settings, Error> {
        let generation = self.generation()?;
        lock(&self.settings)
            .get(&generation, 0)
            .map(|Raw(settings)| settings)
            .map_err(|error| Error::map("SETTINGS", error))
    }

    /// Returns the profile in force of a trunk.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn profile(&self, trunk: u32) -> Result<Profile, Error> {
        let index = self.generation()? * TRUNKS_MAX + trunk.min(TRUNKS_MAX - 1);
        lock(&self.profiles)
            .get(&index, 0)
            .map(|Raw(profile)| profile)
            .map_err(|error| Error::map("PROFILES", error))
    }

    pub(crate) fn generation(&self) -> Result<u32, Error> {
        lock(&self.generation)
            .get(&0, 0)
            .map(|generation| generation % GENERATIONS)
            .map_err(|error| Error::map("GENERATION", error))
    }

    /// Writes settings, ports, profiles and trunks of a policy beside those in force, and then brings
    /// them into force with one store.
    ///
    /// # Errors
    /// [`Error::TooManyTrunks`] or [`Error::Full`] for more trunks or sources than fit, [`Error::Map`]
    /// if a system call fails. The settings in force then stay.
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
        // Entries of the settings before the last.
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

    /// Checks whether settings, ports, trunks and profiles are exactly those of a policy.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
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

    /// Counts the protected entries that are missing, differ from these, or are too many.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
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

    /// Replaces the protected entries, element by element: an entry that stays is never missing.
    ///
    /// # Errors
    /// [`Error::Full`] for more entries than fit, [`Error::Map`] if a system call fails.
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

    /// Writes a whole policy into maps that no live filter uses.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::TooManyTrunks`] for a policy that does not fit, [`Error::Map`] if a
    /// system call fails.
    pub fn fill(&self, policy: &Policy) -> Result<(), Error> {
        self.pass_maps.set_override(policy.override_until)?;
        self.set_protected(&policy.protected)?;
        for (subject, allow) in &policy.allows {
            self.pass_maps.set_allow(*subject, *allow)?;
        }
        for (subject, block) in &policy.blocks {
            self.set_block(*subject, *block)?;
        }
        self.set_settings(policy)
    }

    /// Removes all entries from the maps of a replay, also those of the program.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn clear(&self) -> Result<(), Error> {
        clear_trie("PROTECTED", &self.protected)?;
        clear_trie("ALLOWED_PREFIXES", &self.pass_maps.allowed_prefixes)?;
        clear_trie("BLOCKED_PREFIXES", &self.blocked_prefixes)?;
        clear_trie("TRUNKS", &self.trunks)?;
        clear_hash("ALLOWED_NUMBERS", &self.pass_maps.allowed_numbers)?;
        clear_hash("BLOCKED_NUMBERS", &self.blocked_numbers)?;
        clear_hash("ATTEMPTS", &self.attempts)?;
        clear_hash("REDIALS", &self.redials)?;
        clear_hash("GRACE", &self.grace)?;
        clear_hash("GRANTS", &self.grants)?;
        clear_hash("FRAGMENTS", &self.fragments)
    }

    /// Returns the number of packets of a trunk with a reason, over all CPUs.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn count(&self, trunk: u32, reason: Reason) -> Result<u64, Error> {
        debug_assert!(trunk < TRUNKS_MAX);
        let index = trunk * REASON_NUMBERS + reason as u32;
        let values = self.counters.get(&index, 0).map_err(|error| Error::map("COUNTERS", error))?;
        Ok(values.iter().sum())
    }

    /// Returns the numbers of packets of each trunk, by reason in the order of [`Reason::ALL`], over all CPUs.
    ///
    /// # Errors
    /// [`Error::Map`] if a system call fails.
    pub fn counts(&self) -> Result<Vec<Vec<u64>>, Error> {
        let of_trunk =
            |trunk| Reason::ALL.iter().map(|reason| self.count(trunk, *reason)).collect();
        (0..TRUNKS_MAX).map(of_trunk).collect()
    }

    /// Returns the numbers of events that were thinned out or lost, over all CPUs.
    ///
    /// # Errors
    /// [`Error::Map`] if the system call fails.
    pub fn event_stats(&self) -> Result<EventStats, Error> {
        sum(&self.event_stats)
    }
}

type PerCpuStats = PerCpuArray<MapData, Raw<EventStats>>;

/// Reads the numbers of events that were thinned out or lost, from the maps pinned in a folder.
///
/// # Errors
/// [`Error::Pin`] if the map is missing, [`Error::Layout`] if it has another layout, [`Error::Map`] if
/// the system call fails.
pub fn event_stats(folder: &Path) -> Result<EventStats, Error> {
    sum(&typed::<PerCpuStats>(&mut |name| open(folder, name), "EVENT_STATS")?)
}

pub(crate) fn sum(stats: &PerCpuStats) -> Result<EventStats, Error> {
    let values = stats.get(&0, 0).map_err(|error| Error::map("EVENT_STATS", error))?;
    Ok(values.iter().fold(EventStats::default(), |sum, Raw(value)| EventStats {
        refused_lost: sum.refused_lost + value.refused_lost,
        passed_lost: sum.passed_lost + value.passed_lost,
        passed_thinned: sum.passed_thinned + value.passed_thinned,
        judged_again: sum.judged_again + value.judged_again,
        ..EventStats::default()
    }))
}

/// Walks all blocked numbers and prefixes of pinned maps, with file descriptors of its own, so that no
/// other access waits. The kernel begins again if the element under the walk is removed, so an entry
/// may come twice. The walk ends after `limit` steps at the latest.
///
/// # Errors
/// [`Error::Pin`], [`Error::Layout`] or [`Error::Map`] if a map cannot be read, and the errors of
/// `each`.
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

/// Returns the ports of a policy in the form of the map: a bit each.
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
