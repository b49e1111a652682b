//! A flood of calls to a module that answers none of them: memory stays bounded, in bytes that the allocator counts. In a
//! process of its own, since it counts everything.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use ganglion::actors::Caller;
use ganglion::api::{CheckEventForSpam, Event, FromJson as _, JsonPath, OnLoggedOut, UserId};
use ganglion::dispatcher::{AskContext, StepResult};
use ganglion::{Config, Ganglion, registry};
use peak_alloc::PeakAlloc;
use serde_json::json;
use tokio::task::unconstrained;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const CALLS: usize = 1_000_000;

/// The flood may take this much at its peak, in bytes: twice what a thousand calls in the module's mailbox and 16 384 on
/// their way to two workers take, their futures on the caller's side among it. Without bounds a million calls take more
/// than 3 GiB.
const BOUND: usize = 128 << 20;

const CONFIG: &str = "
server_name: example.com
dispatch: {workers: 2, deadline: 1h}
modules:
  - id: hangs
    module: ganglion.modules.Canned
    call_timeout: 1h
    config: {answers: {check_event_for_spam: {fail: hang}, on_logged_out: {fail: hang}}}
";

fn event(text: &str) -> Event {
    let event = json!({"type": "m.room.message", "sender": "@bob:example.com", "room_id": "!r:example.com",
        "event_id": "$e", "content": {"msgtype": "m.text", "body": text}});
    Event::from_json(event, &JsonPath::Root).unwrap()
}

/// Every other call is a notification.
async fn ask(ganglion: Ganglion, caller: Caller, number: usize) -> StepResult {
    let context = AskContext::new().caller(caller);
    if number.is_multiple_of(2) {
        let args = CheckEventForSpam::new(event(&"x".repeat(500)));
        ganglion.ask_in(context, Arc::new(args)).await.steps[0].result
    } else {
        let user = UserId::parse("@bob:example.com").unwrap();
        let args = OnLoggedOut::new(user, None, "token".to_owned());
        ganglion.ask_in(context, Arc::new(args)).await.steps[0].result
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_calls_to_a_module_that_hangs_take_a_bounded_number_of_bytes() {
    let config = Config::from_yaml(CONFIG, "ganglion.yaml", &registry()).unwrap();
    let ganglion = Ganglion::start(&config).await.unwrap();
    let callers = [(); 4].map(|()| Caller::link());
    let mut results = BTreeMap::<&str, usize>::new();
    let mut count = |result: StepResult| *results.entry(result.as_str()).or_default() += 1;
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let mut under_way = FuturesUnordered::new();
    for number in 0..CALLS {
        under_way.push(ask(ganglion.clone(), callers[number % callers.len()], number));
        // Without tokio's budget, which would leave what is answered where it is until this task pauses.
        while let Poll::Ready(Some(result)) = futures_util::poll!(unconstrained(under_way.next())) {
            count(result);
        }
    }
    let growth = ALLOCATOR.peak_usage() - before;
    println!("{CALLS} calls took {} KiB at their peak", growth >> 10);
    assert!(growth < BOUND, "{growth} bytes");

    // Those who are left: they run, or wait for a permit.
    let left = 64 + 1024;
    while under_way.len() > left {
        count(
            tokio::time::timeout(Duration::from_secs(60), under_way.next())
                .await
                .unwrap()
                .unwrap(),
        );
    }
    let snapshot = ganglion.dispatch().module("hangs").unwrap().snapshot();
    assert_eq!((snapshot.in_flight, snapshot.queued), (64, 1024));
    assert!(snapshot.shed > 0);
    ganglion.shutdown();
    while let Some(result) = under_way.next().await {
        count(result);
    }
    assert_eq!(results["overloaded"], CALLS - left);
    assert_eq!(results["not_running"], left);
    drop((under_way, results, ganglion));
    let kept = ALLOCATOR.current_usage().saturating_sub(before);
    assert!(kept < 1 << 20, "{kept} bytes are kept");
}
