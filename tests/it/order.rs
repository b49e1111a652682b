//! Who is asked, in which order.

use std::sync::{Arc, Mutex};

use ganglion::api::{
    CheckEventForSpam, Event, JsonObject, Module, ModuleApi, ModuleError, Registry, SpamCheckerCallbacks, UserId,
    Verdict,
};
use ganglion::{Ganglion, registry};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{canned, config, config_with, with_modules};

/// Writes its name down whenever it is asked.
struct Recorder {
    name: String,
    record: Arc<Mutex<Vec<String>>>,
}

#[derive(Deserialize)]
struct RecorderConfig {
    name: String,
}

// The modules of one test process share the record through their registry's type.
static RECORD: Mutex<Option<Arc<Mutex<Vec<String>>>>> = Mutex::new(None);

impl Module for Recorder {
    type Config = RecorderConfig;

    fn new(config: RecorderConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let record = RECORD.lock().unwrap().get_or_insert_default().clone();
        api.register_spam_checker_callbacks(
            SpamCheckerCallbacks::new()
                .check_event_for_spam(Self::check)
                .check_event_for_spam(Self::check),
        )?;
        Ok(Self {
            name: config.name,
            record,
        })
    }
}

impl Recorder {
    async fn check(&self, _: &CheckEventForSpam) -> Result<Verdict, ModuleError> {
        self.record.lock().unwrap().push(self.name.clone());
        Ok(Verdict::Pass)
    }
}

fn recorders() -> Registry {
    registry().with::<Recorder>("test.Recorder")
}

const MODULES: &str = "
server_name: example.com
modules:
  - {module: test.Recorder, config: {name: third}}
  - {module: test.Recorder, priority: -1, config: {name: last}}
  - {module: test.Recorder, priority: 7, config: {name: first}}
  - {module: test.Recorder, enabled: false, config: {name: never}}
  - {module: test.Recorder, id: fourth, config: {name: fourth}}
  - {module: test.Recorder, priority: 7, id: second, config: {name: second}}
";

#[tokio::test]
async fn the_recorded_order_of_calls_is_that_of_the_printed_route_and_of_the_steps() {
    let ganglion = Ganglion::start(&config_with(MODULES, &recorders())).await.unwrap();
    let user = UserId::parse("@bob:example.com").unwrap();
    let room = ganglion::api::RoomId::parse("!r:example.com").unwrap();
    let event = Event::new("m.room.message", user, room, None, JsonObject::new());
    let decision = ganglion.ask(CheckEventForSpam::new(event)).await;

    let names: Vec<_> = RECORD.lock().unwrap().take().unwrap().lock().unwrap().clone();
    let twice = |names: [&str; 5]| {
        names
            .iter()
            .flat_map(|name| [*name; 2].map(str::to_owned))
            .collect::<Vec<_>>()
    };
    assert_eq!(names, twice(["first", "second", "third", "fourth", "last"]));

    let ids = [
        "test.Recorder#3",
        "second",
        "test.Recorder",
        "fourth",
        "test.Recorder#2",
    ];
    let steps: Vec<_> = decision.steps.iter().map(|step| step.module.to_string()).collect();
    assert_eq!(steps, twice(ids));
    let routes = ganglion.dispatch().routes();
    let (_, route) = routes
        .overview()
        .find(|(spec, _)| spec.name == "check_event_for_spam")
        .unwrap();
    let printed: Vec<_> = route.iter().map(|module| module.id().to_owned()).collect();
    assert_eq!(printed, steps);
}

/// A module's place in the file: what it answers, its priority, whether it is enabled.
type Place = (Vec<&'static str>, i64, bool);

fn places() -> impl Strategy<Value = Vec<Place>> {
    let callbacks = vec![
        "check_event_for_spam",
        "is_user_expired",
        "on_new_event",
        "on_create_room",
        "on_logged_out",
    ];
    let place = (
        proptest::sample::subsequence(callbacks, 0..=5),
        -2_i64..3,
        proptest::bool::weighted(0.8),
    );
    proptest::collection::vec(place, 0..6)
}

fn answer(callback: &str) -> Value {
    if callback.starts_with("check") || callback == "on_create_room" {
        json!({"verdict": "pass"})
    } else {
        json!({"value": null})
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_route_has_the_enabled_modules_that_answer_by_priority_and_then_by_place(places in places()) {
        let modules = places.iter().enumerate().map(|(index, (callbacks, priority, enabled))| {
            let answers: serde_json::Map<_, _> =
                callbacks.iter().map(|callback| ((*callback).to_owned(), answer(callback))).collect();
            let mut module = canned(&index.to_string(), &json!(answers));
            module["priority"] = json!(priority);
            module["enabled"] = json!(enabled);
            module
        });
        let config = config(&with_modules(&modules.collect::<Value>().to_string()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ganglion = runtime.block_on(Ganglion::load(&config)).unwrap();
        for (spec, route) in ganglion.dispatch().routes().overview() {
            let mut expected: Vec<_> = places.iter().enumerate().collect();
            expected.retain(|(_, (callbacks, _, enabled))| *enabled && callbacks.contains(&spec.name));
            expected.sort_by_key(|(_, (_, priority, _))| -priority);
            let expected: Vec<_> = expected.iter().map(|(index, _)| index.to_string()).collect();
            let route: Vec<_> = route.iter().map(|module| module.id().to_owned()).collect();
            prop_assert_eq!(route, expected, "{}", spec.name);
        }
    }
}
