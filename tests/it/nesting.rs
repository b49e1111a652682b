//! Modules that cause callbacks themselves: depth, deadline and permits of calls below calls.

use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

use ganglion::actors::Lineage;
use ganglion::api::{
    CacheOptions, Cached, Denial, Homeserver, HomeserverError, JsonObject, LocalFuture, Module, ModuleApi, ModuleError,
    NoConfig, RoomId, SpamCheckerCallbacks, UserId, UserMayCreateRoom, UserMayPublishRoom, Verdict,
};
use ganglion::dispatcher::{AskContext, JsonDecision};
use ganglion::{Config, Ganglion, registry};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::{config_with, poll_until, runtime, with_modules};

const TIERS: [&str; 3] = ["inline", "actor", "thread"];

/// How a homeserver comes back with what a module causes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// In the module's own task.
    SameTask,
    /// In a task of its own, with the call that it is for.
    OtherTask,
    /// In a task of its own, for nobody.
    Forgotten,
}

type Answer = LocalFuture<'static, Result<Value, HomeserverError>>;

/// A homeserver that answers with a function, which is given the Ganglion that it is connected to.
struct Connected<F> {
    ganglion: OnceLock<Ganglion>,
    answer: F,
}

impl<F: Fn(Ganglion, &'static str, Value) -> Answer + Send + Sync> Homeserver for Connected<F> {
    fn call(&self, method: &'static str, arguments: Value) -> LocalFuture<'_, Result<Value, HomeserverError>> {
        (self.answer)(self.ganglion.get().unwrap().clone(), method, arguments)
    }
}

/// Starts the modules, connected to a homeserver.
fn start<F>(runtime: &Runtime, config: &Config, answer: F) -> Ganglion
where
    F: Fn(Ganglion, &'static str, Value) -> Answer + Send + Sync + 'static,
{
    let homeserver = Arc::new(Connected {
        ganglion: OnceLock::new(),
        answer,
    });
    let started = Ganglion::start_with(config, Arc::clone(&homeserver) as _);
    let ganglion = runtime.block_on(started).unwrap();
    let _ = homeserver.ganglion.set(ganglion.clone());
    ganglion
}

fn create(n: i64) -> UserMayCreateRoom {
    let user = UserId::parse(format!("@{n}:example.com")).unwrap();
    UserMayCreateRoom::new(user, JsonObject::new())
}

/// A homeserver that asks whether `@n:example.com` may create a room when a module sends an event as that user.
fn echo(way: Way) -> impl Fn(Ganglion, &'static str, Value) -> Answer + Send + Sync {
    move |ganglion, _, arguments| {
        let lineage = Lineage::here();
        Box::pin(async move {
            let ask = async move |context| {
                let args = create(arguments["n"].as_i64().unwrap());
                let decision = ganglion.ask_in(context, Arc::new(args)).await;
                // The call above still runs, and has the only permit.
                assert_eq!(ganglion.dispatch().modules()[0].snapshot().in_flight, 1);
                json!(decision.into_json())
            };
            Ok(match way {
                Way::SameTask => ask(AskContext::new()).await,
                Way::OtherTask => {
                    let context = AskContext::new().below(lineage.unwrap());
                    tokio::spawn(async move { ask(context).await }).await.unwrap()
                }
                Way::Forgotten => tokio::spawn(async move { ask(AskContext::new()).await }).await.unwrap(),
            })
        })
    }
}

/// Asked about `@n:example.com`, it sends events as `@n-1:example.com` first, and denies what these are denied; it denies
/// for `@0`. It tells what it was told.
struct Sends {
    api: ModuleApi<Self>,
    config: SendsConfig,
    cached: Cached<(i64, i64), Value>,
}

#[derive(serde::Deserialize)]
#[serde(default)]
struct SendsConfig {
    /// How many events, side by side.
    events: usize,
    /// Through a cached function.
    cached: bool,
    /// Where it tells: tests run side by side.
    tells: usize,
}

impl Default for SendsConfig {
    fn default() -> Self {
        Self {
            events: 1,
            cached: false,
            tells: 0,
        }
    }
}

/// What a call was told: which user it is about, its remaining budget, and the error of the homeserver.
#[derive(Debug, Clone)]
struct Told {
    n: i64,
    remaining: Duration,
    error: Option<HomeserverError>,
}

static TOLD: Mutex<Vec<Vec<Told>>> = Mutex::new(Vec::new());

impl Sends {
    async fn send(&self, n: i64) -> Result<Value, HomeserverError> {
        self.api
            .homeserver()
            .call("create_and_send_event_into_room", json!({"n": n}))
            .await
    }

    async fn user_may_create_room(&self, args: &UserMayCreateRoom) -> Result<Verdict, ModuleError> {
        let n: i64 = args.user_id.localpart().parse()?;
        let remaining = self.api.remaining_budget().expect("it is told");
        let told = |error| TOLD.lock().unwrap()[self.config.tells].push(Told { n, remaining, error });
        if n == 0 {
            told(None);
            return Ok(Verdict::Deny(Denial::forbidden()));
        }
        let events = (0..self.config.events).map(|event| async move {
            if self.config.cached {
                let answer = self.cached.get((n - 1, i64::try_from(event)?)).await?;
                return Ok(Value::clone(&answer));
            }
            Ok::<_, ModuleError>(self.send(n - 1).await.inspect_err(|error| told(Some(error.clone())))?)
        });
        let answers = futures_util::future::try_join_all(events).await?;
        told(None);
        let denied = answers.iter().all(|answer| answer["outcome"]["verdict"] == "deny");
        Ok(if denied {
            Verdict::Deny(Denial::forbidden())
        } else {
            Verdict::Pass
        })
    }
}

impl Module for Sends {
    type Config = SendsConfig;

    fn new(config: SendsConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let callbacks = SpamCheckerCallbacks::new().user_may_create_room(Self::user_may_create_room);
        api.register_spam_checker_callbacks(callbacks)?;
        let cached = api.cached(
            "send",
            CacheOptions::default(),
            async |module: &Self, (n, _event): (i64, i64)| {
                assert!(module.api.remaining_budget().is_none(), "a computation has no budget");
                Ok(module.send(n).await?)
            },
        )?;
        Ok(Self {
            api: api.clone(),
            config,
            cached,
        })
    }
}

struct Scene {
    ganglion: Ganglion,
    tells: usize,
    runtime: Runtime,
}

impl Scene {
    fn new(way: Way, keys: &Value) -> Self {
        Self::with(way, keys, "workers: 2")
    }

    fn with(way: Way, keys: &Value, dispatch: &str) -> Self {
        let tells = {
            let mut told = TOLD.lock().unwrap();
            told.push(Vec::new());
            told.len() - 1
        };
        let mut module = json!({"module": "test.Sends", "id": "sends", "max_in_flight": 1, "mailbox": 0,
            "call_timeout": "20s", "config": {"tells": tells}});
        for (key, value) in keys.as_object().unwrap() {
            if key == "config" {
                module["config"]
                    .as_object_mut()
                    .unwrap()
                    .extend(value.as_object().unwrap().clone());
            } else {
                module[key] = value.clone();
            }
        }
        let yaml =
            with_modules(&json!([module]).to_string()).replace("workers: 2", &format!("deadline: 20s, {dispatch}"));
        let config = config_with(&yaml, &registry().with::<Sends>("test.Sends"));
        let runtime = runtime();
        let ganglion = start(&runtime, &config, echo(way));
        Self {
            ganglion,
            tells,
            runtime,
        }
    }

    fn ask_in(&self, context: AskContext, n: i64) -> JsonDecision {
        let decided = self
            .runtime
            .block_on(self.ganglion.ask_in(context, Arc::new(create(n))));
        decided.into_json()
    }

    fn ask(&self, n: i64) -> Value {
        json!(self.ask_in(AskContext::new(), n))
    }

    /// What the calls were told, the innermost first.
    fn told(&self) -> Vec<Told> {
        std::mem::take(&mut TOLD.lock().unwrap()[self.tells])
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.ganglion.shutdown();
    }
}

#[test]
fn three_calls_below_each_other_need_one_permit() {
    for tier in TIERS {
        for way in [Way::SameTask, Way::OtherTask] {
            for cached in [false, true] {
                let scene = Scene::new(way, &json!({"tier": tier, "config": {"cached": cached}}));
                let decision = scene.ask(2);
                assert_eq!(
                    decision["outcome"]["verdict"], "deny",
                    "{tier} {way:?} {cached} {decision}"
                );
                let told: Vec<_> = scene.told().iter().map(|told| told.n).collect();
                assert_eq!(told, [0, 1, 2], "{tier} {way:?} {cached}");
                let snapshot = scene.ganglion.dispatch().module("sends").unwrap().snapshot();
                assert_eq!((snapshot.in_flight, snapshot.calls, snapshot.failures.len()), (0, 3, 0));
                // The permit is there again for the next one.
                assert_eq!(scene.ask(0)["outcome"]["verdict"], "deny");
            }
        }
    }
}

#[test]
fn without_its_lineage_a_call_needs_a_permit_of_its_own() {
    let scene = Scene::new(Way::Forgotten, &json!({}));
    let decision = scene.ask(1);
    // The inner question is refused, and the module passes what was not denied.
    assert_eq!(decision["outcome"]["verdict"], "pass", "{decision}");
    let snapshot = scene.ganglion.dispatch().module("sends").unwrap().snapshot();
    assert_eq!(json!(snapshot.failures), json!({"overloaded": 1}));
}

#[test]
fn calls_side_by_side_below_one_call_take_turns_with_its_permit() {
    for tier in TIERS {
        // Nobody may wait for a permit, but for that of the call above.
        let scene = Scene::new(Way::SameTask, &json!({"tier": tier, "config": {"events": 3}}));
        let decision = scene.ask(2);
        assert_eq!(decision["outcome"]["verdict"], "deny", "{tier} {decision}");
        // Three below the first, and three below each of these: each with what is below it before the next.
        let told: Vec<_> = scene.told().iter().map(|told| told.n).collect();
        assert_eq!(told, [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 2], "{tier}");
    }
}

#[test]
fn past_the_greatest_depth_a_callback_is_an_error_that_names_the_cycle() {
    let log = log();
    for (dispatch, depth) in [
        ("workers: 2", 8),
        ("workers: 2, max_depth: 3", 3),
        ("workers: 2, max_depth: 1", 1),
    ] {
        for tier in TIERS {
            let scene = Scene::with(
                Way::SameTask,
                &json!({"tier": tier, "id": format!("deep-{tier}-{depth}")}),
                dispatch,
            );
            let decision = scene.ask(100);
            // The innermost call is told; what it makes of it is an error of its own, which all above it take for no denial.
            let told = scene.told();
            let cycle = format!("user_may_create_room (deep-{tier}-{depth}) > user_may_create_room");
            let expected = HomeserverError::NestedTooDeep {
                max_depth: depth,
                cycle: cycle.clone(),
            };
            assert_eq!(told[0].error, Some(expected), "{tier} {decision}");
            assert_eq!(told[0].n, 101 - i64::try_from(depth).unwrap());
            assert_eq!(told.len(), depth, "{tier} {told:?}");
            assert_eq!(scene.ganglion.dispatch().counts().too_deep, 1);
            let text =
                format!("callbacks nest too deeply: the last one is an error max_depth={depth} cycle=\"{cycle}\"");
            assert!(log.lock().unwrap().contains(&text), "{text}");
        }
    }
}

#[test]
fn the_refused_callback_is_the_constant_error_without_steps() {
    let scene = Scene::with(Way::SameTask, &json!({}), "workers: 2, max_depth: 1");
    // A lineage that is one deep, taken from a call.
    static TAKEN: Mutex<Option<Lineage>> = Mutex::new(None);
    let yaml = with_modules(&json!([{"module": "test.Sends", "config": {"tells": scene.tells}}]).to_string());
    let config = config_with(&yaml, &registry().with::<Sends>("test.Sends"));
    let takes = start(&scene.runtime, &config, |_, _, _| {
        *TAKEN.lock().unwrap() = Lineage::here();
        Box::pin(std::future::ready(Ok(json!({}))))
    });
    scene.runtime.block_on(takes.ask(create(1)));
    let lineage = TAKEN.lock().unwrap().take().unwrap();
    assert_eq!(lineage.depth(), 1);
    let decision = json!(scene.ask_in(AskContext::new().below(lineage), 0));
    let error = json!({"verdict": "error", "status": 500, "errcode": "M_UNKNOWN", "error": "Internal server error", "fields": {}});
    assert_eq!(decision, json!({"outcome": error, "decided_by": null, "steps": []}));
}

#[test]
fn a_call_below_another_has_no_more_time_than_is_left_of_it() {
    for way in [Way::SameTask, Way::OtherTask] {
        let scene = Scene::new(way, &json!({"call_timeout": "19s"}));
        scene.ask_in(AskContext::new().deadline(Duration::from_secs(15)), 3);
        let told = scene.told();
        let remaining: Vec<_> = told.iter().map(|told| told.remaining).collect();
        assert_eq!(remaining.len(), 4);
        assert!(remaining.is_sorted(), "{way:?} {remaining:?}");
        assert!(remaining[3] <= Duration::from_secs(15), "{way:?} {remaining:?}");
        // The configured deadline is the most.
        scene.ask_in(AskContext::new().deadline(Duration::MAX), 0);
        assert!(scene.told()[0].remaining <= Duration::from_secs(19));
    }
}

/// Asks something below a call; the callback of that blocks its thread until the test lets it go.
struct BlocksBelow {
    api: ModuleApi<Self>,
}

static LET_GO: (Mutex<bool>, Condvar) = (Mutex::new(true), Condvar::new());

fn let_go(free: bool) {
    *LET_GO.0.lock().unwrap() = free;
    LET_GO.1.notify_all();
}

impl Module for BlocksBelow {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let callbacks = SpamCheckerCallbacks::new()
            .user_may_create_room(Self::create)
            .user_may_publish_room(Self::publish);
        api.register_spam_checker_callbacks(callbacks)?;
        Ok(Self { api: api.clone() })
    }
}

impl BlocksBelow {
    async fn create(&self, args: &UserMayCreateRoom) -> Result<Verdict, ModuleError> {
        if args.user_id.localpart() == "1" {
            self.api.homeserver().call("publish", json!({})).await?;
        }
        Ok(Verdict::Pass)
    }

    async fn publish(&self, _: &UserMayPublishRoom) -> Result<Verdict, ModuleError> {
        drop(LET_GO.1.wait_while(LET_GO.0.lock().unwrap(), |free| !*free).unwrap());
        Ok(Verdict::Pass)
    }
}

#[test]
fn a_permit_that_was_lent_to_a_thread_that_is_given_up_comes_back() {
    struct LetGo;
    impl Drop for LetGo {
        fn drop(&mut self) {
            let_go(true);
        }
    }
    for tier in ["inline", "actor"] {
        let _let_go = LetGo;
        let_go(false);
        let module = json!([{"module": "test.BlocksBelow", "tier": tier, "max_in_flight": 1, "call_timeout": "300ms"}]);
        let yaml = with_modules(&module.to_string()).replace("workers: 2", "workers: 3, deadline: 20s");
        let config = config_with(&yaml, &registry().with::<BlocksBelow>("test.BlocksBelow"));
        let runtime = runtime();
        let ganglion = start(&runtime, &config, |ganglion, _, _| {
            let (user, room) = (UserId::parse("@1:example.com"), RoomId::parse("!r:example.com"));
            let args = UserMayPublishRoom::new(user.unwrap(), room.unwrap());
            Box::pin(async move { Ok(json!(ganglion.ask(args).await.into_json())) })
        });
        runtime.block_on(ganglion.ask(create(1)));
        let module = || ganglion.dispatch().modules()[0].snapshot();
        poll_until(|| module().stuck_threads == 1 && module().in_flight == 0);
        let decision = json!(runtime.block_on(ganglion.ask(create(0))).into_json());
        assert_eq!(decision["steps"][0]["result"], "pass", "{tier} {decision}");
        let_go(true);
        poll_until(|| module().stuck_threads == 0);
        assert_eq!(module().in_flight, 0, "{tier}");
        ganglion.shutdown();
    }
}

/// A module whose cached function asks the homeserver twice: for something that nests too deeply, and then for something
/// that does not.
struct AsksTwice(Cached<i64, [bool; 2]>);

impl Module for AsksTwice {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let callbacks = SpamCheckerCallbacks::new().user_may_create_room(Self::create);
        api.register_spam_checker_callbacks(callbacks)?;
        let own = api.clone();
        let twice = api.cached("twice", CacheOptions::default(), async move |_: &Self, _: i64| {
            let deep = own.homeserver().call("publish", json!({})).await;
            let fine = own.homeserver().call("nothing", json!({})).await;
            Ok([deep, fine].map(|answer| matches!(answer, Err(HomeserverError::NestedTooDeep { .. }))))
        })?;
        Ok(Self(twice))
    }
}

impl AsksTwice {
    async fn create(&self, _: &UserMayCreateRoom) -> Result<Verdict, ModuleError> {
        let refused = self.0.get(1).await?;
        Ok(if *refused == [true, false] {
            Verdict::Deny(Denial::forbidden())
        } else {
            Verdict::Pass
        })
    }
}

#[test]
fn only_the_call_of_the_homeserver_that_nests_too_deeply_is_refused() {
    let yaml = with_modules(r#"[{"module": "test.AsksTwice"}]"#).replace("workers: 2", "workers: 2, max_depth: 1");
    let config = config_with(&yaml, &registry().with::<AsksTwice>("test.AsksTwice"));
    let runtime = runtime();
    let ganglion = start(&runtime, &config, |ganglion, method, _| {
        Box::pin(async move {
            if method == "publish" {
                ganglion.ask(create(1)).await;
            }
            Ok(Value::Null)
        })
    });
    let decision = json!(runtime.block_on(ganglion.ask(create(1))).into_json());
    assert_eq!(decision["steps"][0]["result"], "deny", "{decision}");
    ganglion.shutdown();
}

/// What is logged about depth, in the whole process.
fn log() -> &'static Mutex<Vec<String>> {
    use std::fmt::Write as _;

    use tracing::field::{Field, Visit};

    static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

    struct Text(String);
    impl Visit for Text {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            if field.name() == "message" {
                self.0.insert_str(0, &format!("{value:?}"));
            } else {
                let _ = write!(self.0, " {}={value:?}", field.name());
            }
        }
    }

    struct Keep;
    impl tracing::Subscriber for Keep {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            *metadata.level() == tracing::Level::ERROR && metadata.target() == "ganglion_dispatcher::handle"
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            let mut text = Text(String::new());
            event.record(&mut text);
            LOG.lock().unwrap().push(text.0);
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }
    let _ = tracing::subscriber::set_global_default(Keep);
    &LOG
}

/// Asked whether a user may publish a room, it lets the homeserver ask whether they may create one; asked that, it denies, but
/// says so in a task of its own.
struct BeginsTasks {
    api: ModuleApi<Self>,
}

impl Module for BeginsTasks {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let publish = async |module: &Self, _: &UserMayPublishRoom| {
            let homeserver = module.api.homeserver();
            let answer = homeserver.call("create_room", json!({"n": 0})).await?;
            let denied = answer["outcome"]["verdict"] == "deny";
            Ok(if denied {
                Verdict::Deny(Denial::forbidden())
            } else {
                Verdict::Pass
            })
        };
        let create = async |_: &Self, _: &UserMayCreateRoom| {
            let task = actix_web::rt::spawn(async { Verdict::Deny(Denial::forbidden()) });
            Ok(task.await?)
        };
        let callbacks = SpamCheckerCallbacks::new()
            .user_may_publish_room(publish)
            .user_may_create_room(create);
        api.register_spam_checker_callbacks(callbacks)?;
        Ok(Self { api: api.clone() })
    }
}

#[test]
fn a_module_may_begin_tasks_whoever_asks_it() {
    for (tier, way) in TIERS
        .iter()
        .flat_map(|tier| [(tier, Way::SameTask), (tier, Way::Forgotten)])
    {
        let modules = json!([{"module": "test.BeginsTasks", "id": "m", "tier": tier}]);
        let config = config_with(
            &with_modules(&modules.to_string()),
            &registry().with::<BeginsTasks>("test.BeginsTasks"),
        );
        let runtime = runtime();
        let ganglion = start(&runtime, &config, move |ganglion, _, arguments| {
            Box::pin(async move {
                let ask = async move || json!(ganglion.ask(create(arguments["n"].as_i64().unwrap())).await.into_json());
                Ok(match way {
                    // On the worker's thread, in a task that its runtime polls and not actix.
                    Way::Forgotten => tokio::spawn(async move { ask().await }).await.unwrap(),
                    _ => ask().await,
                })
            })
        });
        let room = RoomId::parse("!r:example.com").unwrap();
        let publish = UserMayPublishRoom::new(UserId::parse("@bob:example.com").unwrap(), room);
        let decision = json!(runtime.block_on(ganglion.ask(publish)).into_json());
        assert_eq!(decision["outcome"]["verdict"], "deny", "{tier} {way:?}: {decision}");
        ganglion.shutdown();
    }
}
