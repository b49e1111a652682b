//! SIEVE beside a model of it.

use ganglion_api::CacheArgs as _;
use proptest::prelude::*;

use super::*;

/// The queue as a list, the oldest first: a key and whether it is marked.
#[derive(Default)]
struct Model {
    queue: Vec<(i64, bool)>,
    hand: usize,
}

impl Model {
    fn evict(&mut self) -> Option<i64> {
        if self.queue.is_empty() {
            return None;
        }
        loop {
            let (key, marked) = self.queue[self.hand];
            if !marked {
                self.remove(key);
                return Some(key);
            }
            self.queue[self.hand].1 = false;
            self.hand = (self.hand + 1) % self.queue.len();
        }
    }

    fn remove(&mut self, key: i64) -> bool {
        let Some(at) = self.queue.iter().position(|(other, _)| *other == key) else {
            return false;
        };
        self.queue.remove(at);
        if at < self.hand {
            self.hand -= 1;
        }
        // Past the newest it begins with the oldest, whatever comes meanwhile.
        if self.hand >= self.queue.len() {
            self.hand = 0;
        }
        true
    }
}

/// Few hashes, so that keys share them.
fn hash(key: i64) -> u64 {
    key.unsigned_abs() % 3
}

#[derive(Debug, Clone)]
enum Step {
    Get(i64),
    Push(i64),
    Remove(i64),
    Evict,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || 0..12_i64;
    let step = prop_oneof![
        3 => key().prop_map(Step::Get),
        3 => key().prop_map(Step::Push),
        1 => key().prop_map(Step::Remove),
        2 => Just(Step::Evict),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(steps in steps()) {
        let now = Moment::ORIGIN;
        let (mut sieve, mut model) = (Sieve::new(Ages::default()), Model::default());
        for step in steps {
            match step {
                Step::Get(key) => {
                    let found = sieve.get(hash(key), &key.key(), now, |value| Some(*value));
                    let known = model.queue.iter_mut().find(|(other, _)| *other == key);
                    prop_assert_eq!(found, known.map(|known| {
                        known.1 = true;
                        key
                    }));
                }
                Step::Push(key) => {
                    let removed = sieve.remove(hash(key), &key.key(), now).is_some();
                    prop_assert_eq!(removed, model.remove(key));
                    sieve.push(hash(key), key.key(), key, 1, now);
                    model.queue.push((key, false));
                }
                Step::Remove(key) => {
                    let removed = sieve.remove(hash(key), &key.key(), now);
                    prop_assert_eq!(removed.map(|gone| gone.value), model.remove(key).then_some(key));
                }
                Step::Evict => prop_assert_eq!(sieve.evict(now).map(|gone| gone.value), model.evict()),
            }
            prop_assert_eq!((sieve.len(), sieve.weight()), (model.queue.len(), model.queue.len() as u64));
        }
        let kept = std::cell::RefCell::new(Vec::new());
        sieve.retain(now, |_, value| { kept.borrow_mut().push(*value); *value % 2 == 0 });
        prop_assert_eq!(kept.into_inner(), model.queue.iter().map(|(key, _)| *key).collect::<Vec<_>>());
        prop_assert_eq!(sieve.len(), model.queue.iter().filter(|(key, _)| key % 2 == 0).count());
    }
}

#[test]
fn what_is_too_old_is_swept_out_by_what_comes() {
    let second = 1_000_000_000;
    let at = |seconds: u64| Moment::ORIGIN.after(seconds * second);
    let mut sieve = Sieve::new(Ages::new(Some(Duration::from_secs(10)), None));
    for key in 0..100_i64 {
        sieve.push(hash(key), key.key(), key, 1, at(0));
    }
    let mut swept = 0;
    for key in 100..160_i64 {
        swept += sieve
            .sweep(at(10))
            .into_iter()
            .flatten()
            .filter(|gone| gone.was_too_old)
            .count();
        sieve.push(hash(key), key.key(), key, 1, at(10));
    }
    assert_eq!((swept, sieve.len()), (100, 60));
}

#[test]
fn what_is_too_old_goes_before_what_is_not_though_it_was_asked_for() {
    let at = |nanos| Moment::ORIGIN.after(nanos);
    let mut sieve = Sieve::new(Ages::new(None, Some(Duration::from_nanos(10))));
    for key in 0..3_i64 {
        sieve.push(hash(key), key.key(), key, 1, at(0));
        sieve.get(hash(key), &key.key(), at(0), |_| Some(()));
    }
    for key in [0, 2] {
        sieve.get(hash(key), &key.key(), at(5), |_| Some(()));
    }
    let gone = sieve.evict(at(12)).unwrap();
    assert_eq!((gone.value, gone.was_too_old), (1, true));
    assert_eq!(sieve.get(hash(0), &0_i64.key(), at(14), |value| Some(*value)), Some(0));
    assert_eq!(sieve.get(hash(2), &2_i64.key(), at(15), |value| Some(*value)), None);
}
