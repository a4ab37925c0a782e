//! Reproducible random numbers.

use std::ops::Range;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

/// A random source. For the same seed and purpose it always yields the same numbers, independent of
/// other draws, so that every policy meets the same callers.
pub struct Chance(Xoshiro256PlusPlus);

impl Chance {
    /// Creates a source for one purpose.
    #[must_use]
    pub fn new(seed: u64, purpose: u64) -> Chance {
        Chance(Xoshiro256PlusPlus::seed_from_u64(mixed(seed ^ mixed(purpose))))
    }

    /// Derives a seed for something else.
    pub fn seed(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Returns true with this probability.
    pub fn happens(&mut self, share: f64) -> bool {
        self.0.random::<f64>() < share
    }

    /// Returns a uniform number from a range.
    pub fn within(&mut self, range: &Range<f64>) -> f64 {
        range.start + (range.end - range.start) * self.0.random::<f64>()
    }

    /// Returns a uniform number from 0 to N - 1.
    pub fn one_of(&mut self, count: usize) -> usize {
        self.0.random_range(0..count)
    }

    /// Returns an index with these probabilities; the last index gets the remainder.
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

    /// Returns a number of at least 1 with this mean (geometric).
    pub fn count(&mut self, mean: f64) -> u32 {
        let mut count = 1;
        while self.happens(1.0 - 1.0 / mean) {
            count += 1;
        }
        count
    }

    /// Returns an exponential number with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.0.random::<f64>()).ln()
    }

    /// Returns a Pareto number of at least 1.
    pub fn pareto(&mut self, exponent: f64) -> f64 {
        (1.0 - self.0.random::<f64>()).powf(-1.0 / exponent)
    }

    /// Returns random times in a range of an event with this mean count (Poisson).
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
