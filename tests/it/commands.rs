//! Ten thousand commands while calls are made.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ganglion::Ganglion;
use ganglion::actors::ModuleCommand::{Disable, Enable, Restart};
use ganglion::actors::ModuleState;
use ganglion::api::{JsonObject, RoomId, UserId, UserMayCreateRoom, UserMayPublishRoom};
use serde_json::json;

use crate::support::{TestServer, canned, poll_until, runtime, with_modules};

/// The module that is told what to do. The system cuts the names of its threads to fifteen bytes.
const ID: &str = "rapid-1";

/// How many threads of this name the process has; other tests run in it at the same time.
fn threads(named: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    tasks.map(name).filter(|name| name.trim_end() == named).count()
}

/// Asks both modules until it is told to stop, and says how often.
async fn ask(ganglion: Ganglion, done: Arc<AtomicBool>) -> usize {
    let user = UserId::parse("@bob:example.com").unwrap();
    let room = RoomId::parse("!r:example.com").unwrap();
    let mut asked = 0;
    while !done.load(Ordering::SeqCst) {
        let create = UserMayCreateRoom::new(user.clone(), JsonObject::new());
        let decision = ganglion.ask(create).await;
        assert_eq!(decision.decided_by.as_deref(), Some("healthy"));
        // This one answers, fails, or is on no route; each is a decision.
        let decision = ganglion.ask(UserMayPublishRoom::new(user.clone(), room.clone())).await;
        assert!(decision.decided_by.as_deref() == Some(ID) || decision.steps.is_empty());
        asked += 1;
    }
    asked
}

/// Gives commands, one after the other.
async fn command(ganglion: Ganglion, turn: usize) {
    let commands = [Restart, Disable, Enable, Restart, Enable];
    for number in 0..2500 {
        let command = commands[(number + turn) % commands.len()];
        // A restart of a disabled module is refused, nothing else is.
        let answer = ganglion.command(ID, command).await;
        assert!(answer.is_ok() || command == Restart, "{answer:?}");
    }
}

#[test]
fn ten_thousand_commands_under_load_lose_no_call_and_leak_no_thread() {
    let mut rapid = canned(ID, &json!({"user_may_publish_room": {"verdict": "deny"}}));
    rapid["tier"] = "thread".into();
    let modules = json!([
        rapid,
        canned("healthy", &json!({"user_may_create_room": {"verdict": "deny"}}))
    ]);
    let server = TestServer::start(&with_modules(&modules.to_string()));
    let runtime = runtime();
    let done = Arc::new(AtomicBool::new(false));
    let asks: Vec<_> = (0..4)
        .map(|_| runtime.spawn(ask(server.ganglion.clone(), Arc::clone(&done))))
        .collect();
    let commands: Vec<_> = (0..4)
        .map(|turn| runtime.spawn(command(server.ganglion.clone(), turn)))
        .collect();
    runtime.block_on(async {
        for task in commands {
            task.await.unwrap();
        }
        done.store(true, Ordering::SeqCst);
        for asked in asks {
            assert!(asked.await.unwrap() > 0);
        }
        server.ganglion.command(ID, Enable).await.unwrap();
    });
    let module = server.ganglion.dispatch().module(ID).unwrap();
    poll_until(|| module.state() == ModuleState::Running);
    let publish = json!({"user_id": "@bob:example.com", "room_id": "!r:example.com"});
    assert_eq!(server.decide("user_may_publish_room", &publish)["decided_by"], ID);
    // One for the module that runs; nothing is left of the others.
    poll_until(|| threads("module rapid-1") == 1);
    assert_eq!(module.snapshot().stuck_threads, 0);
}
