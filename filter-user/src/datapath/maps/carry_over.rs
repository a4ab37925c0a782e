//! TODO-DOC

use crate::datapath::error::Error;
use crate::datapath::maps::access::set;
use crate::datapath::maps::layout::open;
use crate::datapath::maps::pass_maps::PassMaps;
use crate::datapath::maps::{Maps, walk_blocks};
use crate::datapath::pins::Pins;
use crate::datapath::raw::Raw;
use aya::maps::HashMap;
use filter_common::abi::Grant;
use std::path::Path;

/// Copies into `to` what it lacks of the maps of another version or capacity: what lets through
/// and, where the layout is the same, the blocks and the mode. What cannot be read is left out,
/// and why is told: the store has the rest. `now` is boot time: grants that are over stay behind.
pub fn carry_over(from: &Path, to: &Maps, now: u64) -> Vec<Error> {
    let mut failed = Vec::new();
    let mut note = |done: Result<(), Error>| failed.extend(done.err());
    note(PassMaps::open(from).and_then(|old| {
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
