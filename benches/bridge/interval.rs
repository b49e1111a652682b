//! How sure a number is.

/// How often rounds are drawn anew.
const DRAWN: usize = 4000;

/// The bootstrap interval, of 95 %, of what `of` makes of rounds: as many are drawn as there are, some of them several
/// times, again and again. It is the same each time.
pub(crate) fn interval(rounds: usize, of: impl Fn(&[usize]) -> f64) -> (f64, f64) {
    let mut random = fastrand::Rng::with_seed(7);
    let mut found: Vec<f64> = (0..DRAWN)
        .map(|_| {
            let drawn: Vec<usize> = (0..rounds).map(|_| random.usize(0..rounds)).collect();
            of(&drawn)
        })
        .collect();
    found.sort_by(f64::total_cmp);
    (found[DRAWN / 40], found[DRAWN - 1 - DRAWN / 40])
}
