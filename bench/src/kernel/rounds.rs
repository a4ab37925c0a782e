//! Times of the rounds of one line.

/// ns per packet of each round.
#[derive(Clone, Debug, Default)]
pub struct Rounds(Vec<f64>);

impl Rounds {
    /// Adds a round.
    pub fn push(&mut self, time: f64) {
        self.0.push(time);
    }

    /// Returns the smallest round, which was disturbed least.
    pub fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Returns the median round.
    pub fn median(&self) -> f64 {
        let mut rounds = self.0.clone();
        rounds.sort_by(f64::total_cmp);
        rounds.get(rounds.len() / 2).copied().unwrap_or(f64::NAN)
    }
}
