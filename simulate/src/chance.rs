//! Chance that can be repeated.

use std::ops::Range;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

/// A source of chance. Of the same seed and purpose it is always the same, whatever else was drawn:
/// so that every policy meets the same callers.
pub struct Chance(Xoshiro256PlusPlus);

impl Chance {
    /// For one purpose.
    #[must_use]
    pub fn new(seed: u64, purpose: u64) -> Chance {
        Chance(Xoshiro256PlusPlus::seed_from_u64(mixed(seed ^ mixed(purpose))))
    }

    /// A seed of something else.
    pub fn seed(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Whether something of this share happens.
    pub fn happens(&mut self, share: f64) -> bool {
        self.0.random::<f64>() < share
    }

    /// Evenly from a range.
    pub fn within(&mut self, range: &Range<f64>) -> f64 {
        range.start + (range.end - range.start) * self.0.random::<f64>()
    }

    /// One of so many, from 0.
    pub fn one_of(&mut self, count: usize) -> usize {
        self.0.random_range(0..count)
    }

    /// Which of these shares; the last takes what is left.
    pub fn which(&mut self, shares: &[f64]) -> usize {
        let mut left = self.0.random::<f64>();
        for (index, share) in shares.iter().enumerate() {
            left -= share;
            if left < 0.0 {
                return index;
            }
        }
        shares.len().saturating_sub(1)
    }

    /// 1 and more, with this mean (geometric).
    pub fn count(&mut self, mean: f64) -> u32 {
        let mut count = 1;
        while self.happens(1.0 - 1.0 / mean) {
            count += 1;
        }
        count
    }

    /// Exponential, with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.0.random::<f64>()).ln()
    }

    /// Pareto, 1 at the least.
    pub fn pareto(&mut self, exponent: f64) -> f64 {
        (1.0 - self.0.random::<f64>()).powf(-1.0 / exponent)
    }

    /// Times within a range at which something happens that happens so often in it on average.
    pub fn times(&mut self, range: &Range<f64>, expected: f64) -> Vec<f64> {
        let mut times = Vec::new();
        if expected <= 0.0 {
            return times;
        }
        let mean = (range.end - range.start) / expected;
        let mut time = range.start + self.exponential(mean);
        while time < range.end {
            times.push(time);
            time += self.exponential(mean);
        }
        times
    }
}

/// Spreads the bits of a counter (the finalizer of SplitMix64).
#[must_use]
pub fn mixed(counter: u64) -> u64 {
    let z = counter.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
