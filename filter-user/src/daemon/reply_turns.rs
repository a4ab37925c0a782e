//! Takes turns between the trunks whose refused calls the daemon answers. The calls of one trunk, however many and however
//! long, delay those of no other trunk. Whole datagrams, which are long, wait apart from the others of their trunk.

use std::collections::{BTreeMap, VecDeque};

use filter_common::handed_over::{HANDED_REQUEST, HandedOver};

/// Bytes of one queue that wait at most; further calls of it get no reply, and come again.
const BYTES_MAX: usize = 256 << 10;

/// A refused call: the head of its entry in the ring, and its frame.
pub type Refused = (HandedOver, Vec<u8>);

/// The calls that wait for their reply.
#[derive(Debug, Default)]
pub struct Turns {
    queues: BTreeMap<u16, Queue>,
    /// The queue that has the next turn, or the next one after it.
    next: u16,
}

#[derive(Debug, Default)]
struct Queue {
    calls: VecDeque<Refused>,
    bytes: usize,
}

impl Turns {
    /// Adds a call. Returns it if its queue is full.
    ///
    /// # Errors
    /// The call.
    pub fn add(&mut self, call: Refused) -> Result<(), Refused> {
        let (head, frame) = &call;
        let is_long = u16::from(head.flags & HANDED_REQUEST != 0);
        let queue = self.queues.entry(u16::from(head.trunk) * 2 + is_long).or_default();
        if queue.bytes + frame.len() > BYTES_MAX {
            return Err(call);
        }
        queue.bytes += frame.len();
        queue.calls.push_back(call);
        Ok(())
    }

    /// Removes the oldest call of the queue that has its turn.
    pub fn take(&mut self) -> Option<Refused> {
        let mut queue = self.queues.range_mut(self.next..).next();
        if queue.is_none() {
            queue = self.queues.range_mut(..).next();
        }
        let (&key, queue) = queue?;
        let call = queue.calls.pop_front();
        queue.bytes -= call.as_ref().map_or(0, |(_, frame)| frame.len());
        if queue.calls.is_empty() {
            self.queues.remove(&key);
        }
        self.next = key + 1;
        call
    }

    /// Returns whether no call waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(trunk: u8, flags: u8, len: usize) -> Refused {
        (HandedOver { trunk, flags, ..HandedOver::default() }, vec![0; len])
    }

    fn trunks(turns: &mut Turns) -> Vec<(u8, bool)> {
        std::iter::from_fn(|| turns.take())
            .map(|(head, _)| (head.trunk, head.flags & HANDED_REQUEST != 0))
            .collect()
    }

    #[test]
    fn each_trunk_has_its_turn_and_long_calls_wait_apart() {
        let mut turns = Turns::default();
        for _ in 0..3 {
            turns.add(call(1, HANDED_REQUEST, 16_000)).unwrap();
        }
        turns.add(call(1, 0, 500)).unwrap();
        turns.add(call(7, 0, 500)).unwrap();
        let (long, short) = ((1, true), (1, false));
        assert_eq!(trunks(&mut turns), [short, long, (7, false), long, long]);
        assert!(turns.is_empty());
    }

    #[test]
    fn flood_of_long_calls_displaces_no_call_of_another_queue() {
        let mut turns = Turns::default();
        let sent = (0..1_000).filter(|_| turns.add(call(1, HANDED_REQUEST, 16_000)).is_ok());
        assert_eq!(sent.count(), BYTES_MAX / 16_000);
        turns.add(call(1, 0, 500)).unwrap();
        turns.add(call(2, HANDED_REQUEST, 16_000)).unwrap();
        let mut order = trunks(&mut turns);
        order.truncate(4);
        assert!(order.contains(&(1, false)) && order.contains(&(2, true)), "{order:?}");
        // There is room again.
        turns.add(call(1, HANDED_REQUEST, 16_000)).unwrap();
    }
}
