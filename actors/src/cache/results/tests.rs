//! Results beside a model: what was put there last, and when.

use std::collections::HashMap;
use std::time::Duration;

use ganglion_api::CacheArgs as _;
use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

#[derive(Debug, Clone)]
enum Step {
    Get(i64),
    Insert(i64, u32),
    Remove(i64),
    Retain(i64),
    Evict,
    Clear,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || 0..40_i64;
    let step = prop_oneof![
        10 => key().prop_map(Step::Get),
        20 => (key(), 0..12_u32).prop_map(|(key, weight)| Step::Insert(key, weight)),
        4 => key().prop_map(Step::Remove),
        1 => key().prop_map(Step::Retain),
        2 => Just(Step::Evict),
        1 => Just(Step::Clear),
        4 => (0..4_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..300)
}

fn limits() -> impl Strategy<Value = (u64, Option<u64>, Option<u64>, Option<u64>)> {
    let age = || prop::option::of(1..8_u64);
    // With many queues too.
    let entries = prop_oneof![1..20_u64, MANY..MANY + 2];
    (entries, prop::option::of(1..40_u64), age(), age())
}

#[derive(Debug, Clone, Copy)]
struct Known {
    value: u32,
    made: u64,
    asked: u64,
}

proptest! {
    #[test]
    fn limits_hold_and_nothing_wrong_is_found(
        (max_entries, max_weight, ttl, idle) in limits(),
        steps in steps(),
    ) {
        let age = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        let limits = Limits { max_entries, max_weight, ages: Ages::new(age(ttl), age(idle)) };
        let room = Arc::new(Room::new(u64::MAX));
        let results: Results<(u32, u32)> = Results::new(limits, vec![Arc::clone(&room)]);
        let (mut known, mut next, mut clock): (HashMap<i64, Known>, u32, u64) = (HashMap::new(), 0, 0);
        // Each insertion is kept, or one of these.
        let (mut inserted, mut forgotten) = (0_u64, 0_u64);
        for step in steps {
            let now = Moment::ORIGIN.after(clock * SECOND);
            match step {
                Step::Get(key) => {
                    let found = results.get(&key.key(), now, |(value, _)| Some(*value));
                    if let Some(found) = found {
                        let last = known.get_mut(&key).expect("it was put there");
                        prop_assert_eq!(found, last.value);
                        prop_assert!(ttl.is_none_or(|ttl| clock - last.made < ttl));
                        prop_assert!(idle.is_none_or(|idle| clock - last.asked < idle));
                        last.asked = clock;
                    }
                }
                Step::Insert(key, weight) => {
                    next += 1;
                    inserted += 1;
                    let before = (results.evictions(), results.entries());
                    let removed = results.insert(key.key(), weight, now, || (next, weight)).len() as u64;
                    let is_too_heavy = max_weight.is_some_and(|most| u64::from(weight) > most);
                    prop_assert_eq!(results.entries(), before.1 + 1 - removed);
                    // What went and was not dropped was replaced.
                    forgotten += removed - (results.evictions() - before.0);
                    if is_too_heavy {
                        known.remove(&key);
                    } else {
                        known.insert(key, Known { value: next, made: clock, asked: clock });
                        let found = results.get(&key.key(), now, |(value, _)| Some(*value));
                        prop_assert_eq!(found, Some(next), "the newest is there");
                    }
                }
                Step::Remove(key) => {
                    let expired = results.expired();
                    let gone = results.remove(&key.key(), now).is_some();
                    forgotten += u64::from(gone) - (results.expired() - expired);
                    known.remove(&key);
                }
                Step::Retain(least) => {
                    let before = results.expired();
                    let gone = results.retain(now, |key, _| *key >= least.key()).len() as u64;
                    forgotten += gone - (results.expired() - before);
                    known.retain(|key, _| key.key() >= least.key());
                }
                Step::Evict => {
                    let was_empty = results.entries() == 0;
                    prop_assert_eq!(results.evict(now).is_none(), was_empty);
                }
                Step::Clear => {
                    forgotten += results.entries();
                    drop(results.clear());
                    known.clear();
                    prop_assert_eq!((results.entries(), results.weight()), (0, 0));
                }
                Step::Wait(seconds) => clock += seconds,
            }
            prop_assert!(results.entries() <= max_entries);
            prop_assert!(max_weight.is_none_or(|most| results.weight() <= most));
            prop_assert_eq!(inserted, results.entries() + results.evictions() + forgotten);
            prop_assert!(results.expired() <= results.evictions());
            prop_assert_eq!(room.taken(), results.entries());
        }
        drop(results);
        prop_assert_eq!(room.taken(), 0);
    }
}

#[test]
fn threads_that_add_at_once_leave_no_more_than_the_limit() {
    for max_entries in [100, 2000] {
        let limits = Limits {
            max_entries,
            max_weight: None,
            ages: Ages::default(),
        };
        let results = Results::new(limits, Vec::new());
        std::thread::scope(|scope| {
            for thread in 0..4_i64 {
                let results = &results;
                scope.spawn(move || {
                    for key in 0..5000 {
                        let key = key * 4 + thread;
                        drop(results.insert(key.key(), 0, Moment::ORIGIN, || key));
                        results.get(&(key / 2).key(), Moment::ORIGIN, |_| Some(()));
                        assert!(results.entries() <= max_entries + 4);
                    }
                });
            }
        });
        // Two threads that see the same one too many let one more go than they need.
        let entries = results.entries();
        assert!((max_entries - 4..=max_entries).contains(&entries), "{entries}");
        assert_eq!(entries + results.evictions(), 20_000);
        assert_eq!(results.retain(Moment::ORIGIN, |_, _| false).len() as u64, entries);
    }
}
