//! Looks up the policy in the kernel's maps, so that user space decides about a call like the program.

use std::cell::Cell;

use filter_common::abi::{Allow, Attempt, Block, Grace, Grant, PrefixKey, RedialCounter};
use filter_common::number::Number;

use crate::datapath::maps::Maps;
use crate::model::policy::Subject;

/// A look-up for one call that is not made: it reads the maps and changes nothing.
pub struct LookUp<'a> {
    pub(crate) maps: &'a Maps,
    pub(crate) now: u64,
    pub(crate) block: Cell<Option<Block>>,
    counted: Option<u32>,
    opens: bool,
}

impl<'a> LookUp<'a> {
    /// Creates a look-up; `now` is boot time in nanoseconds.
    #[must_use]
    pub fn new(maps: &'a Maps, now: u64) -> LookUp<'a> {
        LookUp { maps, now, block: Cell::new(None), counted: None, opens: false }
    }

    /// Returns the block that was found last. After a decision this is the one that decided.
    #[must_use]
    pub fn block(&self) -> Option<Block> {
        self.block.get()
    }

    /// Returns the number of the separate attempt that this call would be; `None` if the call would not
    /// count.
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

impl filter_common::decide::PolicyLookup for LookUp<'_> {
    fn now(&mut self) -> u64 {
        self.now
    }

    fn override_until(&self) -> u64 {
        self.maps.pass_maps().override_until().unwrap_or(u64::MAX)
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
        self.maps.pass_maps().allowed_number(number).ok().flatten()
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

    /// Returns no attempt: a look-up is not an attempt.
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

    fn redial(&self, number: Number) -> Option<RedialCounter> {
        self.maps.redial(number).ok().flatten()
    }

    fn count_redial(&mut self, redial: &RedialCounter) -> bool {
        self.counted = Some(redial.count);
        true
    }
}
