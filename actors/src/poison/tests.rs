use ganglion_api::{UserMayCreateRoom, UserMayPublishRoom};
use proptest::prelude::*;
use tokio::time::advance;

use super::*;

const PANIC: FailureKind = FailureKind::Panicked;
const HANG: FailureKind = FailureKind::DeadlineExceeded;
const SECOND: Duration = Duration::from_secs(1);

fn create(user: &str) -> UserMayCreateRoom {
    let user = ganglion_api::OwnedUserId::try_from(user).unwrap();
    UserMayCreateRoom::new(user, serde_json::Map::new())
}

fn publish(user: &str) -> UserMayPublishRoom {
    let user = ganglion_api::OwnedUserId::try_from(user).unwrap();
    UserMayPublishRoom::new(user, ganglion_api::OwnedRoomId::try_from("!r:b").unwrap())
}

#[tokio::test(start_paused = true)]
async fn args_bypass_the_module_after_three_strikes() {
    let poison = Poison::default();
    let (bad, good) = (create("@bad:b"), create("@good:b"));
    assert_eq!(poison.strike(&bad, PANIC), None);
    assert_eq!(poison.strike(&bad, PANIC), None);
    assert_eq!((poison.bypasses(&bad), poison.snapshot()), (None, vec![]));
    assert_eq!(poison.strike(&bad, PANIC), Some(3));
    advance(12 * SECOND).await;
    let why = "poison input: these args made the module panic 3 times, last 12 s ago; it gets them again in 588 s, \
               or after clear_poison";
    assert_eq!(poison.bypasses(&bad).as_deref(), Some(why));
    assert_eq!(poison.bypasses(&good), None);
    assert_eq!(poison.bypasses(&publish("@bad:b")), None);
    // One that was under way already.
    assert_eq!(poison.strike(&bad, HANG), None);
    assert!(
        poison
            .bypasses(&bad)
            .unwrap()
            .contains("panic or hang 4 times, last 0 s")
    );
    let snapshot = &poison.snapshot()[0];
    assert_eq!(
        (snapshot.callback, snapshot.cause, snapshot.strikes, snapshot.bypassed),
        ("user_may_create_room", HANG, 4, 2)
    );
    assert_eq!(snapshot.expires.duration_since(snapshot.last).unwrap(), EXPIRY);
    assert_eq!(snapshot.fingerprint.len(), 16);
    poison.clear();
    assert_eq!((poison.bypasses(&bad), poison.snapshot()), (None, vec![]));
    assert_eq!(poison.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn strikes_count_until_some_time_after_the_last_one() {
    let poison = Poison::default();
    let bad = create("@bad:b");
    poison.strike(&bad, PANIC);
    advance(EXPIRY - SECOND).await;
    poison.strike(&bad, PANIC);
    advance(EXPIRY - SECOND).await;
    assert!(poison.strike(&bad, PANIC).is_some());
    advance(EXPIRY - SECOND).await;
    assert!(poison.bypasses(&bad).is_some());
    // A bypass is no strike.
    advance(SECOND).await;
    assert_eq!((poison.bypasses(&bad), poison.snapshot()), (None, vec![]));
    assert_eq!(poison.struck.load(Ordering::Relaxed), 0);
    assert_eq!(poison.strike(&bad, PANIC), None);
    assert_eq!(poison.strike(&bad, PANIC), None);
    assert!(poison.strike(&bad, PANIC).is_some());
}

#[tokio::test(start_paused = true)]
async fn hangs_are_forgotten_by_callback_and_panics_are_not() {
    let poison = Poison::default();
    let (hangs, both, other) = (create("@hangs:b"), create("@both:b"), publish("@hangs:b"));
    for _ in 0..3 {
        poison.strike(&hangs, HANG);
        poison.strike(&other, HANG);
        poison.strike(&both, PANIC);
    }
    poison.strike(&both, HANG);
    poison.forget_hangs(Operation::callback::<UserMayCreateRoom>());
    assert!(poison.bypasses(&hangs).is_none());
    assert!(poison.bypasses(&other).is_some());
    assert!(poison.bypasses(&both).unwrap().contains("panic 3 times"));
    assert_eq!(poison.strike(&hangs, HANG), None);
}

#[tokio::test(start_paused = true)]
async fn a_full_table_forgets_what_struck_longest_ago_and_poison_last() {
    let poison = Poison::default();
    let user = |number: usize| create(&format!("@u{number}:b"));
    for _ in 0..3 {
        poison.strike(&user(0), PANIC);
    }
    for number in 1..ENTRIES {
        advance(Duration::from_millis(1)).await;
        poison.strike(&user(number), PANIC);
        poison.strike(&user(number), PANIC);
    }
    // The oldest is poison, so the second one goes.
    poison.strike(&user(ENTRIES), PANIC);
    assert_eq!(poison.lock().0.len(), ENTRIES);
    assert_eq!(poison.strike(&user(1), PANIC), None, "its strikes are forgotten");
    assert!(poison.bypasses(&user(0)).is_some());
    assert!(poison.strike(&user(3), PANIC).is_some(), "its strikes are known");
}

/// One step of a table's life.
#[derive(Debug, Clone)]
enum Step {
    Strike(u64, FailureKind),
    Bypass(u64),
    ForgetHangs(usize),
    Clear,
    Wait(u64),
}

/// How many fingerprints there are; the callback of each is told by its remainder.
const FINGERPRINTS: u64 = 6;

fn operation(fingerprint: u64) -> Operation {
    if fingerprint.is_multiple_of(2) {
        Operation::callback::<UserMayCreateRoom>()
    } else {
        Operation::callback::<UserMayPublishRoom>()
    }
}

fn step() -> impl Strategy<Value = Step> {
    let fingerprint = 0..FINGERPRINTS;
    prop_oneof![
        8 => (fingerprint.clone(), any::<bool>()).prop_map(|(fingerprint, panics)| {
            Step::Strike(fingerprint, if panics { PANIC } else { HANG })
        }),
        4 => fingerprint.prop_map(Step::Bypass),
        1 => (0_usize..2).prop_map(Step::ForgetHangs),
        1 => Just(Step::Clear),
        2 => (1_u64..400).prop_map(Step::Wait),
    ]
}

/// All strikes since the start or the last clear: fingerprint, cause, when.
#[derive(Default)]
struct Model(Vec<(u64, FailureKind, Instant)>);

impl Model {
    fn strikes(&self, fingerprint: u64) -> usize {
        self.0.iter().filter(|(own, ..)| *own == fingerprint).count()
    }

    fn forget_old(&mut self, now: Instant) {
        for fingerprint in 0..FINGERPRINTS {
            let own = self.0.iter().filter(|(own, ..)| *own == fingerprint);
            let last = own.map(|(_, _, at)| *at).max();
            if last.is_some_and(|last| now - last >= EXPIRY) {
                self.0.retain(|(own, ..)| *own != fingerprint);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_table_does_what_a_list_of_strikes_does(steps in proptest::collection::vec(step(), 0..80)) {
        let (mut table, mut model, mut now) = (Table::default(), Model::default(), Instant::now());
        for step in steps {
            table.forget_old(now);
            model.forget_old(now);
            match step {
                Step::Strike(fingerprint, cause) => {
                    model.0.push((fingerprint, cause, now));
                    let struck = Struck { operation: operation(fingerprint), cause, time: SystemTime::now() };
                    let became = table.strike(Fingerprint(fingerprint), struck, now);
                    prop_assert_eq!(became.is_some(), model.strikes(fingerprint) == 3);
                }
                Step::Bypass(fingerprint) => {
                    let bypassed = table.bypass(Fingerprint(fingerprint), now).is_some();
                    prop_assert_eq!(bypassed, model.strikes(fingerprint) >= 3);
                }
                Step::ForgetHangs(callback) => {
                    table.forget_hangs(operation(callback as u64));
                    let concerned = |fingerprint: u64| fingerprint as usize % 2 == callback;
                    model.0.retain(|(own, cause, _)| *cause == PANIC || !concerned(*own));
                }
                Step::Clear => (table.0.clear(), model.0.clear()).1,
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
            }
            let struck = model.0.iter().fold(0, |struck, (own, ..)| struck | bit(operation(*own)));
            prop_assert_eq!(table.struck(), struck);
        }
    }

    #[test]
    fn a_table_is_bounded(fingerprints in proptest::collection::vec(0_u64..400, 0..1200)) {
        let (mut table, now) = (Table::default(), Instant::now());
        for (index, fingerprint) in fingerprints.into_iter().enumerate() {
            let struck = Struck { operation: operation(fingerprint), cause: PANIC, time: SystemTime::now() };
            table.strike(Fingerprint(fingerprint), struck, now + Duration::from_millis(index as u64));
            prop_assert!(table.0.len() <= ENTRIES);
            prop_assert!(table.0.contains_key(&Fingerprint(fingerprint)));
        }
    }
}
