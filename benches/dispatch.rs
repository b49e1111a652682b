//! What a dispatch costs, each beside the floor that does the same work without Ganglion.
//!
//! `cargo bench --bench dispatch`

use std::pin::Pin;

use divan::Bencher;
use ganglion::api::{JsonObject, OwnedUserId, UserId, UserMayCreateRoom, Verdict};
use ganglion::{Config, Ganglion, registry};
use tokio::runtime::Runtime;

fn main() {
    divan::main();
}

const MODULES: usize = 5;

fn user() -> OwnedUserId {
    UserId::parse("@bob:example.com").expect("a user id")
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// `count` modules that pass.
fn ganglion(runtime: &Runtime, count: usize) -> Ganglion {
    let module = "{module: demo.DemoModule}";
    let modules = vec![module; count].join(", ");
    let yaml = format!("{{server_name: example.com, dispatch: {{workers: 1}}, modules: [{modules}]}}");
    let config = Config::from_yaml(&yaml, "bench.yaml", &registry()).expect("a config");
    runtime.block_on(Ganglion::start(&config)).expect("a start")
}

/// Asks with nobody subscribed: the neutral outcome from the routing table.
#[divan::bench]
fn no_subscriber(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    let ganglion = ganglion(&runtime, 0);
    bencher
        .with_inputs(|| UserMayCreateRoom::new(user(), JsonObject::new()))
        .bench_local_values(|args| runtime.block_on(ganglion.ask(args)));
}

/// Asks five modules, from another thread than theirs.
#[divan::bench]
fn five_modules(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    let ganglion = ganglion(&runtime, MODULES);
    bencher
        .with_inputs(|| UserMayCreateRoom::new(user(), JsonObject::new()))
        .bench_local_values(|args| runtime.block_on(ganglion.ask(args)));
}

type Boxed = Box<dyn Fn(&UserMayCreateRoom) -> Pin<Box<dyn Future<Output = Verdict> + Send>> + Send + Sync>;

/// Five boxed async calls in a loop, on the caller's thread.
#[divan::bench]
fn five_modules_floor_boxed_calls(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    let denied = UserId::parse("@evilguy:example.com").expect("a user id");
    let module = || -> Boxed {
        let denied = denied.clone();
        Box::new(move |args| {
            let denied = args.user_id == denied;
            Box::pin(async move {
                if denied {
                    Verdict::Deny(ganglion::api::Denial::forbidden())
                } else {
                    Verdict::Pass
                }
            })
        })
    };
    let modules: Vec<_> = (0..MODULES).map(|_| module()).collect();
    bencher
        .with_inputs(|| UserMayCreateRoom::new(user(), JsonObject::new()))
        .bench_local_values(|args| {
            runtime.block_on(async {
                for module in &modules {
                    if let denied @ Verdict::Deny(_) = module(&args).await {
                        return denied;
                    }
                }
                Verdict::Pass
            })
        });
}

/// One message to another thread and back, which every ask from outside pays.
#[divan::bench]
fn five_modules_floor_one_hop(bencher: Bencher<'_, '_>) {
    let runtime = runtime();
    let (ask, mut asked) = tokio::sync::mpsc::channel::<tokio::sync::oneshot::Sender<()>>(16);
    let worker = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        runtime.block_on(async move {
            while let Some(answer) = asked.recv().await {
                let _ = answer.send(());
            }
        });
    });
    bencher.bench_local(|| {
        runtime.block_on(async {
            let (answer, answered) = tokio::sync::oneshot::channel();
            ask.send(answer).await.expect("the worker runs");
            answered.await.expect("the worker answers");
        });
    });
    drop(ask);
    worker.join().expect("the worker ends");
}
