//! Results beside a model: what was put there last, and when.

use std::cell::RefCell;
use std::collections::HashMap;

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
    GiveWay(u64),
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
        2 => (0..5_u64).prop_map(Step::GiveWay),
        1 => Just(Step::Clear),
        4 => (0..4_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..200)
}

fn limits() -> impl Strategy<Value = (Most, Option<u64>, Option<u64>)> {
    let age = || prop::option::of(1..8_u64);
    let most = prop_oneof![(1..30_u64).prop_map(Most::Entries), (1..60_u64).prop_map(Most::Weight)];
    (most, age(), age())
}

#[derive(Debug, Clone, Copy)]
struct Known {
    value: u32,
    made: u64,
    asked: u64,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn limits_hold_and_nothing_wrong_is_found((most, ttl, idle) in limits(), steps in steps()) {
        let age = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        let limits = Limits { most, ages: Ages::new(age(ttl), age(idle)) };
        let room = Arc::new(Room::new(u64::MAX));
        let results: Results<(u32, u32)> = Results::new(limits, vec![Arc::clone(&room)]);
        let (mut known, mut next, mut clock): (HashMap<i64, Known>, u32, u64) = (HashMap::new(), 0, 0);
        for step in steps {
            let now = Moment::ORIGIN.after(clock * SECOND);
            match step {
                Step::Get(key) => {
                    if let Some(found) = results.get(&key.key(), now, |(value, _)| Some(*value)) {
                        let last = known.get_mut(&key).expect("it was put there");
                        prop_assert_eq!(found, last.value);
                        prop_assert!(ttl.is_none_or(|ttl| clock - last.made < ttl));
                        prop_assert!(idle.is_none_or(|idle| clock - last.asked < idle));
                        last.asked = clock;
                    }
                }
                Step::Insert(key, weight) => {
                    next += 1;
                    results.insert(key.key(), weight, now, (next, weight));
                    known.insert(key, Known { value: next, made: clock, asked: clock });
                }
                Step::Remove(key) => {
                    results.remove(&key.key());
                    known.remove(&key);
                }
                Step::Retain(least) => {
                    results.retain(now, |key, _| *key >= least.key());
                    known.retain(|key, _| key.key() >= least.key());
                }
                Step::GiveWay(count) => {
                    results.settle();
                    let (before, evicted) = (results.entries(), results.evictions());
                    results.give_way(count);
                    let gone = count.min(before);
                    prop_assert_eq!((results.entries(), results.evictions()), (before - gone, evicted + gone));
                }
                Step::Clear => {
                    results.clear();
                    known.clear();
                    prop_assert_eq!((results.entries(), results.weight()), (0, 0));
                }
                Step::Wait(seconds) => clock += seconds,
            }
            let expired = results.expired();
            prop_assert!(expired <= results.evictions());
            if let Some(most) = most.weight() {
                results.settle();
                prop_assert!(results.weight() <= most);
            }
        }
        // What is counted is what is there.
        results.settle();
        let there = RefCell::new(Vec::new());
        results.retain(Moment::ORIGIN, |key, (value, weight)| {
            there.borrow_mut().push((key.clone(), *value, *weight));
            true
        });
        let there = there.into_inner();
        for (key, value, _) in &there {
            prop_assert!(known.iter().any(|(known, last)| known.key() == *key && last.value == *value));
        }
        prop_assert_eq!(results.entries(), there.len() as u64);
        prop_assert_eq!(results.weight(), there.iter().map(|(_, _, weight)| u64::from(*weight)).sum::<u64>());
        prop_assert!(most.entries().is_none_or(|most| results.entries() <= most));
        prop_assert_eq!(room.taken(), results.entries());
        drop(results);
        prop_assert_eq!(room.taken(), 0);
    }
}

fn with_room(most: u64) -> Results<i64> {
    let limits = Limits {
        most: Most::Entries(most),
        ages: Ages::default(),
    };
    Results::new(limits, vec![Arc::new(Room::new(most))])
}

fn there(results: &Results<i64>) -> Vec<i64> {
    let there = RefCell::new(Vec::new());
    results.retain(Moment::ORIGIN, |_, value| {
        there.borrow_mut().push(*value);
        true
    });
    there.into_inner()
}

#[test]
fn what_was_neither_asked_for_nor_added_lately_gives_way_first() {
    let results = with_room(1000);
    for key in 0..200_i64 {
        results.insert(key.key(), 0, Moment::ORIGIN, key);
    }
    results.settle();
    // All were added just now. To find one that can go, all marks are taken away.
    results.give_way(1);
    let left = there(&results);
    assert_eq!(left.len(), 199);
    let asked: Vec<i64> = left.iter().copied().step_by(4).collect();
    for key in &asked {
        assert!(results.get(&key.key(), Moment::ORIGIN, |_| Some(())).is_some());
    }
    for key in 200..250_i64 {
        results.insert(key.key(), 0, Moment::ORIGIN, key);
    }
    results.settle();
    results.give_way(149);
    let left = there(&results);
    assert_eq!(left.len(), 100);
    assert!(asked.iter().all(|key| left.contains(key)), "what was asked for stays");
    assert!((200..250).all(|key| left.contains(&key)), "what was added stays");
    assert_eq!(results.evictions(), 150);
}

#[test]
fn no_part_of_the_keys_is_spared_in_the_long_run() {
    let results = with_room(1000);
    for key in 0..20_000_i64 {
        results.insert(key.key(), 0, Moment::ORIGIN, key);
        if results.entries() > 800 {
            results.settle();
            results.give_way(50);
        }
    }
    // Nobody asks for anything: what came first is gone.
    let left = there(&results);
    let old = left.iter().filter(|key| **key < 10_000).count();
    assert!(old * 20 < left.len(), "{old} of {}", left.len());
}

#[test]
fn threads_that_add_at_once_leave_no_more_than_the_limit() {
    let limits = Limits {
        most: Most::Entries(1000),
        ages: Ages::default(),
    };
    let results = Results::new(limits, Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..4_i64 {
            let results = &results;
            scope.spawn(move || {
                for key in 0..5000 {
                    let key = key * 4 + thread;
                    results.insert(key.key(), 0, Moment::ORIGIN, key);
                    results.get(&(key / 2).key(), Moment::ORIGIN, |_| Some(()));
                }
            });
        }
    });
    results.settle();
    let entries = results.entries();
    assert!(entries <= 1000, "{entries}");
    assert_eq!(entries + results.evictions(), 20_000);
    results.retain(Moment::ORIGIN, |_, _| false);
    assert_eq!(results.entries(), 0);
}
