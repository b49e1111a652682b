//! Rows that are measured in turns.
//!
//! Criterion measures one row after the other, some seconds each. On a machine that is shared, or that changes its clock,
//! two rows then differ by what the machine did in between, and their ratio, which is what a bench is for here, with them.
//! So this is a small harness of its own: in each round every row runs once, for a short time, every second round in
//! the reverse order; the number of a row is the median of its rounds, and a ratio is the median of the ratios of single
//! rounds, whose rows were neighbours in time. What disturbs one round is then no part of the result.

use std::time::Duration;

/// How many rounds there are, and how long a row runs in each.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How many rounds.
    pub rounds: usize,
    /// How long a row runs in a round, about.
    pub each: Duration,
}

/// Does the work this many times, and says how long that took.
pub type Run<'a> = Box<dyn FnMut(u64) -> Duration + 'a>;

struct Row<'a, K> {
    key: K,
    run: Run<'a>,
}

/// The rows of a group; a key tells which is which.
pub struct Rows<'a, K>(Vec<Row<'a, K>>);

impl<K> Default for Rows<'_, K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'a, K: PartialEq> Rows<'a, K> {
    /// No rows yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row.
    pub fn add(&mut self, key: K, run: impl FnMut(u64) -> Duration + 'a) {
        self.0.push(Row {
            key,
            run: Box::new(run),
        });
    }

    /// Each row with its key, in the order in which they were added.
    pub fn each(self) -> impl Iterator<Item = (K, Run<'a>)> {
        self.0.into_iter().map(|row| (row.key, row.run))
    }

    /// Runs all rounds. `told` is given the number of each round, counted from 1, when it begins.
    #[must_use]
    pub fn measure(mut self, pace: Pace, told: impl Fn(usize)) -> Results<K> {
        let counts: Vec<u64> = self
            .0
            .iter_mut()
            .map(|row| calibrated(&mut row.run, pace.each))
            .collect();
        let mut series = vec![Series(Vec::with_capacity(pace.rounds)); counts.len()];
        for round in 0..pace.rounds {
            told(round + 1);
            let mut order: Vec<usize> = (0..counts.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for row in order {
                let took = (self.0[row].run)(counts[row]);
                series[row].0.push(took.as_secs_f64() / counts[row] as f64);
            }
        }
        let keys = self.0.into_iter().map(|row| row.key);
        Results(keys.zip(series).collect())
    }
}

/// How often the work is done in about this time. It warms the row up, too.
fn calibrated(run: &mut Run<'_>, each: Duration) -> u64 {
    let mut count = 1;
    loop {
        let took = run(count).as_secs_f64().max(1e-9);
        let wanted = each.as_secs_f64() / took;
        if wanted <= 4.0 {
            return ((count as f64 * wanted) as u64).max(1);
        }
        // Not at once to the end: the first runs are slower than all others.
        count = (count as f64 * wanted.min(16.0)) as u64;
    }
}

/// The seconds that one piece of work took, one number a round.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series(Vec<f64>);

impl Series {
    /// One number a round.
    #[must_use]
    pub fn new(rounds: Vec<f64>) -> Self {
        Self(rounds)
    }

    /// The median.
    #[must_use]
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => sorted[odd / 2],
            even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
        }
    }

    /// How far apart the quarter of the fastest rounds and that of the slowest are, as a part of the median.
    #[must_use]
    pub fn spread(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let quarter = sorted.len() / 4;
        match (sorted.get(quarter), sorted.iter().rev().nth(quarter)) {
            (Some(low), Some(high)) => (high - low) / self.median(),
            _ => f64::NAN,
        }
    }

    /// Round by round, this by the other.
    #[must_use]
    pub fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(own, other)| own / other).collect())
    }

    /// Round by round, this less the other.
    #[must_use]
    pub fn less(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(own, other)| own - other).collect())
    }

    /// These rounds of it, some perhaps several times.
    ///
    /// # Panics
    /// It has no such round.
    #[must_use]
    pub fn pick(&self, rounds: &[usize]) -> Self {
        Self(rounds.iter().map(|round| self.0[*round]).collect())
    }

    /// How many rounds there are.
    #[must_use]
    pub fn rounds(&self) -> usize {
        self.0.len()
    }
}

/// What was measured.
#[derive(Debug)]
pub struct Results<K>(Vec<(K, Series)>);

impl<K: PartialEq> Results<K> {
    /// The row with this key.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn of(&self, key: &K) -> &Series {
        let row = self.0.iter().find(|(other, _)| other == key);
        row.map(|(_, series)| series).expect("a row that was added")
    }

    /// All rows, in the order in which they were added.
    pub fn each(&self) -> impl Iterator<Item = (&K, &Series)> {
        self.0.iter().map(|(key, series)| (key, series))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_not_moved_by_one_round_that_was_disturbed() {
        let (calm, disturbed) = (Series::new(vec![1.0, 1.0, 1.0]), Series::new(vec![2.0, 90.0, 2.0]));
        assert!((disturbed.median() - 2.0).abs() < f64::EPSILON);
        assert!((disturbed.over(&calm).median() - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn every_row_runs_once_a_round_as_long_as_it_should() {
        let pace = Pace {
            rounds: 4,
            each: Duration::from_millis(10),
        };
        let mut rows = Rows::new();
        for (key, micros) in [("slow", 1000), ("fast", 1)] {
            rows.add(key, move |count| Duration::from_micros(micros * count));
        }
        let results = rows.measure(pace, |_| {});
        assert_eq!(results.each().count(), 2);
        assert_eq!(results.of(&"slow").0.len(), 4);
        assert!((results.of(&"slow").over(results.of(&"fast")).median() - 1000.0).abs() < 1.0);
    }
}
