//! Writes the Ethernet addresses of this machine: the program answers no frame for another machine, and can be
//! made to judge none.
//!
//! They are not part of [`Maps`](crate::datapath::Maps): the maps of an older program of the same layout lack
//! this one, and can still be read.

use std::collections::BTreeSet;
use std::path::Path;

use aya::maps::{HashMap, Map, MapData};
use filter_common::frame::{OWN_ADDRESSES_ONLY, address_number};

use crate::datapath::error::Error;
use crate::datapath::maps::layout::{open, typed};

const NAME: &str = "OWN_ADDRESSES";

/// The map of the addresses.
pub struct OwnAddresses(HashMap<MapData, u64, u32>);

impl OwnAddresses {
    pub(crate) fn new(
        mut take: impl FnMut(&'static str) -> Result<Map, Error>,
    ) -> Result<OwnAddresses, Error> {
        typed(&mut take, NAME).map(OwnAddresses)
    }

    /// Opens the map pinned in a folder.
    ///
    /// # Errors
    /// [`Error::Pin`] if the map is missing, [`Error::Layout`] if it has another layout.
    pub fn open(folder: &Path) -> Result<OwnAddresses, Error> {
        OwnAddresses::new(|name| open(folder, name))
    }

    /// Writes the addresses of this machine. The program answers only calls to them. With `only` it judges only these, too;
    /// without an address it judges all frames. At every moment it judges at least the frames that it judges before or after the
    /// change.
    ///
    /// # Errors
    /// [`Error::Map`] if a system call fails: all frames are judged then, or those of the old addresses.
    pub fn set(&mut self, own: &[[u8; 6]], only: bool) -> Result<(), Error> {
        let failed = |error| Error::map(NAME, error);
        let wanted: BTreeSet<u64> = own.iter().map(|own| address_number(*own)).collect();
        let there: BTreeSet<u64> = self.0.keys().collect::<Result<_, _>>().map_err(failed)?;
        let is_only = there.contains(&OWN_ADDRESSES_ONLY);
        let only = only && !wanted.is_empty();
        if is_only && !only {
            self.0.remove(&OWN_ADDRESSES_ONLY).map_err(failed)?;
        }
        for address in wanted.difference(&there) {
            self.0.insert(address, 1, 0).map_err(failed)?;
        }
        if only && !is_only {
            self.0.insert(OWN_ADDRESSES_ONLY, 1, 0).map_err(failed)?;
        }
        for address in there.difference(&wanted).filter(|address| **address != OWN_ADDRESSES_ONLY) {
            self.0.remove(address).map_err(failed)?;
        }
        Ok(())
    }
}
