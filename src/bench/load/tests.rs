use std::sync::atomic::AtomicUsize;

use ganglion_api::{
    Module, ModuleApi, ModuleError, NoConfig, OwnedUserId, Registry, SpamCheckerCallbacks, UserMayCreateRoom, Verdict,
    spec,
};

use super::*;
use crate::bench::mix::Mix;
use crate::bench::questions::Homeserver;
use crate::config::Config;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
static ASKED: Mutex<Vec<OwnedUserId>> = Mutex::new(Vec::new());

/// Takes down who asks, and how many at once.
struct Watches;

impl Module for Watches {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        api.register_spam_checker_callbacks(SpamCheckerCallbacks::new().user_may_create_room(Self::may))?;
        Ok(Self)
    }
}

impl Watches {
    async fn may(&self, args: &UserMayCreateRoom) -> Result<Verdict, ModuleError> {
        MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        ASKED.lock().unwrap().push(args.user_id.clone());
        tokio::task::yield_now().await;
        NOW.fetch_sub(1, Ordering::SeqCst);
        Ok(Verdict::Pass)
    }
}

async fn load(in_flight: usize, pace: Pace) -> Load {
    let registry = Registry::new().with::<Watches>("test.Watches");
    let yaml = "{server_name: example.com, modules: [{module: test.Watches}]}";
    let config = Config::from_yaml(yaml, "g.yaml", &registry).unwrap();
    let homeserver = Homeserver {
        name: "example.com",
        logins: Vec::new(),
        seed: 1,
    };
    let specs = vec![spec("user_may_create_room").unwrap()];
    Load {
        ganglion: Ganglion::start(&config).await.unwrap(),
        questions: Arc::new(Questions::new(&specs, &Mix::Synapse, &homeserver)),
        in_flight,
        pace,
    }
}

async fn run(in_flight: usize, pace: Pace, duration: Duration) -> (Record, Arc<Phase>, Option<Schedule>) {
    let callers = Callers::start().unwrap();
    let phase = Phase::counted();
    let schedule = load(in_flight, pace).await.run(&callers, &phase, duration).await;
    (callers.take_record(), phase, schedule)
}

/// One test: they share what the module takes down.
#[tokio::test]
async fn no_more_are_open_than_may_be_and_all_are_noted() {
    for pace in [Pace::Closed, Pace::Rate(5_000.0)] {
        MOST.store(0, Ordering::SeqCst);
        ASKED.lock().unwrap().clear();
        let (record, phase, schedule) = run(3, pace, Duration::from_millis(200)).await;
        let asked = std::mem::take(&mut *ASKED.lock().unwrap());
        assert_eq!(record.calls(), asked.len() as u64, "{pace}");
        assert!(
            (1..=3).contains(&phase.most_open()) && MOST.load(Ordering::SeqCst) <= 3,
            "{pace}"
        );
        if let Some(schedule) = schedule {
            assert_eq!((schedule.ticks, schedule.not_asked), (1000, 0));
            assert_eq!((record.calls(), schedule.slip.count()), (1000, 1000));
        }
    }

    // One after the other, so that the order is seen.
    let asked = |asked: Vec<OwnedUserId>| asked.into_iter().take(20).collect::<Vec<_>>();
    run(1, Pace::Rate(1_000.0), Duration::from_millis(20)).await;
    let first = asked(std::mem::take(&mut *ASKED.lock().unwrap()));
    run(1, Pace::Closed, Duration::from_millis(200)).await;
    let second = asked(std::mem::take(&mut *ASKED.lock().unwrap()));
    assert_eq!(first.len(), 20);
    assert_eq!(first[..second.len()], second);
}

#[tokio::test]
async fn a_phase_that_is_ended_asks_no_more() {
    let callers = Callers::start().unwrap();
    for pace in [Pace::Closed, Pace::Rate(1.0)] {
        let phase = Phase::counted();
        phase.end();
        let mut load = load(2, pace).await;
        load.pace = pace;
        let schedule = load.run(&callers, &phase, Duration::from_secs(3600)).await;
        assert_eq!(callers.take_record().calls(), 0, "{pace}");
        assert_eq!(
            schedule.map(|schedule| schedule.not_asked),
            pace.ticks(Duration::from_secs(3600))
        );
    }
}
