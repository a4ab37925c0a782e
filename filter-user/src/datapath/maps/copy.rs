//! Reads the policy back from the maps, to test it elsewhere without changing them.

use std::net::Ipv6Addr;

use aya::maps::lpm_trie::Key;
use filter_common::abi::{DROPPED_WITHOUT_DAEMON, PORT_WORDS, TRUNKS_MAX};

use crate::datapath::error::Error;
use crate::datapath::maps::Maps;
use crate::datapath::maps::access::lock;
use crate::datapath::maps::layout::TRUNK_GENERATION_BITS;
use crate::datapath::raw::Raw;
use crate::model::policy::{Policy, Protected, Subject, Trunk};

impl Maps {
    /// Returns settings, ports, trunks, override, protected entries and allows in force. Blocks are not
    /// copied: there may be millions. A trunk without a source is missing, and the maps have no names.
    ///
    /// # Errors
    /// [`Error::Map`] if a system call fails.
    pub fn copy_without_blocks(&self) -> Result<Policy, Error> {
        let mut generation = self.generation()?;
        loop {
            let policy = self.copy_of(generation)?;
            // Swapped meanwhile: the copy may have a part of the next settings.
            let now = self.generation()?;
            if now == generation {
                return Ok(policy);
            }
            generation = now;
        }
    }

    fn copy_of(&self, generation: u32) -> Result<Policy, Error> {
        let mut policy = Policy { trunks: self.copy_trunks(generation)?, ..Policy::default() };
        let settings = lock(&self.settings).get(&generation, 0);
        policy.settings = settings.map_err(|error| Error::map("SETTINGS", error))?.0;
        policy.ports = self.copy_ports(generation)?;
        policy.override_until = self.pass_maps().override_until()?;
        policy.allows = self.pass_maps().allows()?;
        for entry in lock(&self.protected).iter() {
            let (key, Raw(entry)) = entry.map_err(|error| Error::map("PROTECTED", error))?;
            let subject = Subject::of_trie_entry(key.prefix_len(), entry.number);
            policy.protected.push(Protected {
                subject,
                entry,
                name: String::new(),
                is_placeholder: false,
            });
        }
        Ok(policy)
    }

    fn copy_ports(&self, generation: u32) -> Result<Vec<u16>, Error> {
        let map = lock(&self.ports);
        let mut ports = Vec::new();
        for word in 0..PORT_WORDS {
            let bits = map
                .get(&(generation * PORT_WORDS + word), 0)
                .map_err(|error| Error::map("PORTS", error))?;
            ports.extend(
                (0..64).filter(|bit| bits >> bit & 1 != 0).map(|bit| (word * 64 + bit) as u16),
            );
        }
        Ok(ports)
    }

    fn copy_trunks(&self, generation: u32) -> Result<Vec<Trunk>, Error> {
        let mut sources: Vec<Vec<([u8; 16], u32)>> = vec![Vec::new()];
        for entry in lock(&self.trunks).iter() {
            let (key, trunk): (Key<[u8; 20]>, u32) =
                entry.map_err(|error| Error::map("TRUNKS", error))?;
            if key.data()[..4] != generation.to_be_bytes() || trunk >= TRUNKS_MAX {
                continue;
            }
            let mut address = [0; 16];
            address.copy_from_slice(&key.data()[4..]);
            let trunk = trunk as usize;
            sources.resize(sources.len().max(trunk + 1), Vec::new());
            sources[trunk].push((address, key.prefix_len().saturating_sub(TRUNK_GENERATION_BITS)));
        }
        let map = lock(&self.profiles);
        let mut trunks = Vec::new();
        for (index, mut sources) in (0..).zip(sources) {
            // In the order in which a person would list them.
            sources.sort_by_key(|(address, bits)| (Ipv6Addr::from(*address), *bits));
            let profile = map
                .get(&(generation * TRUNKS_MAX + index), 0)
                .map_err(|error| Error::map("PROFILES", error))?;
            trunks.push(Trunk {
                name: if index == 0 { "default".to_owned() } else { format!("trunk {index}") },
                sources,
                profile: profile.0,
                trusts_from: false,
                esinet: false,
                passes_without_daemon: profile.0.without_daemon != DROPPED_WITHOUT_DAEMON,
                // The maps have no names.
                country: None,
                contexts: Vec::new(),
            });
        }
        Ok(trunks)
    }
}
