//! Copies policy and grants from the maps of another version or capacity.

use std::path::Path;

use aya::maps::HashMap;
use filter_common::abi::Grant;

use crate::datapath::error::Error;
use crate::datapath::maps::access::set;
use crate::datapath::maps::layout::open;
use crate::datapath::maps::pass_maps::PassMaps;
use crate::datapath::maps::{Maps, walk_blocks};
use crate::datapath::pins::Pins;
use crate::datapath::raw::Raw;

/// Copies missing entries into `to` from the maps of another version or capacity: the override, allows
/// and grants. From maps of the same layout it also copies blocks and settings. Grants that ended
/// before `now`, in boot time, are not copied. Returns the errors: the store has the entries that
/// cannot be read.
pub fn carry_over(from: &Path, to: &Maps, now: u64) -> Vec<Error> {
    let mut failed = Vec::new();
    let mut note = |done: Result<(), Error>| failed.extend(done.err());
    note(PassMaps::open(from).and_then(|old| {
        let new = to.pass_maps();
        if new.override_until()? == 0 {
            new.set_override(old.override_until()?)?;
        }
        for (subject, allow) in old.allows()? {
            if new.allow(subject)?.is_none() {
                new.set_allow(subject, allow)?;
            }
        }
        Ok(())
    }));
    // A layout older than the grants has no map of them.
    let grants = from.join("GRANTS").exists().then(|| open(from, "GRANTS"));
    note(grants.map_or(Ok(()), |map| {
        let map = map?;
        let old: HashMap<_, u64, Raw<Grant>> =
            map.try_into().map_err(|error| Error::map("GRANTS", error))?;
        old.iter().try_for_each(|entry| {
            let (_, Raw(grant)) = entry.map_err(|error| Error::map("GRANTS", error))?;
            // A grant that was given meanwhile is newer.
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
