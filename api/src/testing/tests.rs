//! The kit, with a host that only notes what it is asked for and futures that are polled by hand.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Misbehave, Misbehaviour};
use crate::{
    AuthCheckers, AuthenticatedUser, BackgroundTask, CacheOptions, CacheStore, Callback, CallbackSet,
    CancelBackgroundCall, Concern, CreateError, Created, Denies, FromJson, Homeserver, JsonObject, JsonPath,
    LoginTypes, Module, ModuleApi, ModuleError, ModuleHost, NoConfig, NotConnected, OnNewEvent, OwnedServerName,
    Registration, RegistrationError, Registry, Schedule, ServerName, SpamCheckerCallbacks, UserId, UserMayCreateRoom,
    Verdict, WebRequest, WebResponse,
};

const BOB: &str = "@bob:example.com";
const EVE: &str = "@eve:example.com";

thread_local! {
    /// How many instances were dropped on this thread, which is one test's.
    static DROPS: Cell<usize> = const { Cell::new(0) };
}

/// A module that passes everything, in two sets.
struct Mild;

impl Drop for Mild {
    fn drop(&mut self) {
        DROPS.set(DROPS.get() + 1);
    }
}

impl Module for Mild {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        api.register_spam_checker_callbacks(
            SpamCheckerCallbacks::new().user_may_create_room(async |_: &Self, _| Ok(Verdict::Pass)),
        )?;
        let logins = LoginTypes::new().login_type("com.example.code", ["code"], async |_: &Self, _: &AuthCheckers| {
            Ok(Some(AuthenticatedUser::new(BOB)))
        });
        let told = CallbackSet::new().answer::<OnNewEvent, _>(async |_: &Self, _: &OnNewEvent| Ok(()));
        api.register_callbacks(told.auth_checkers(logins))?;
        api.register_web_resource("/mild", async |_: &Self, _| {
            Ok(WebResponse::new(Bytes::from_static(b"mild")))
        })?;
        Ok(Self)
    }
}

/// A host that notes what it is asked for. Its sleeps are over at once.
struct Notes {
    server_name: OwnedServerName,
    sleeps: Mutex<Vec<Duration>>,
    background: Mutex<Vec<(Schedule, BackgroundTask)>>,
}

impl Notes {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            server_name: ServerName::parse("example.com").unwrap(),
            sleeps: Mutex::default(),
            background: Mutex::default(),
        })
    }
}

struct NoCancel;

impl CancelBackgroundCall for NoCancel {
    fn cancel(&self) {}
}

impl ModuleHost for Notes {
    fn server_name(&self) -> &ServerName {
        &self.server_name
    }

    fn resolve_path(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }

    fn homeserver(&self) -> &dyn Homeserver {
        &NotConnected
    }

    fn remaining_budget(&self) -> Option<Duration> {
        None
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.sleeps.lock().unwrap().push(duration);
        Box::pin(async {})
    }

    fn background(&self, _: String, schedule: Schedule, task: BackgroundTask) -> Arc<dyn CancelBackgroundCall> {
        self.background.lock().unwrap().push((schedule, task));
        Arc::new(NoCancel)
    }

    fn open_cache(&self, name: &str, _: &CacheOptions, _: usize) -> Result<Arc<dyn CacheStore>, RegistrationError> {
        Err(RegistrationError::CachedFunction {
            name: name.into(),
            reason: "this host has no caches",
        })
    }
}

/// What one poll gives.
fn poll<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// The result of a future that is ready at once.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match poll(future) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("it hangs"),
    }
}

fn create(misbehaviour: &Misbehaviour, host: &Arc<Notes>) -> Result<Created, CreateError> {
    let registry = Registry::new()
        .with::<Mild>("mild")
        .misbehaving("wild", "mild", misbehaviour.clone());
    let host: Arc<dyn ModuleHost> = host.clone();
    registry.factory("wild").unwrap().create(json!({}), host)
}

fn wild(misbehaviour: &Misbehaviour) -> Created {
    create(misbehaviour, &Notes::new()).ok().unwrap()
}

fn room_of(user: &str) -> UserMayCreateRoom {
    UserMayCreateRoom::new(UserId::parse(user).unwrap(), JsonObject::new())
}

async fn ask<C: Callback>(created: &Created, args: &C) -> Result<C::Answer, ModuleError> {
    let callbacks = &created.registered.callbacks;
    let subscriber = callbacks.iter().find_map(Registration::subscriber::<C>);
    subscriber.unwrap().call(args).await
}

async fn ask_of(created: &Created, user: &str) -> Result<Verdict, ModuleError> {
    ask(created, &room_of(user)).await
}

fn request(uri: &str) -> WebRequest {
    http::Request::get(uri).body(Bytes::new()).unwrap()
}

async fn respond(created: &Created, uri: &str) -> Result<WebResponse, ModuleError> {
    created.registered.resources[0].1.respond(request(uri)).await
}

/// Waits for what another thread is about to do.
fn until(condition: impl Fn() -> bool) {
    for _ in 0..50_000_000 {
        if condition() {
            return;
        }
        std::thread::yield_now();
    }
    panic!("it never happened");
}

/// Which of this many calls fail, from 1.
fn failing(misbehaviour: &Misbehaviour, calls: usize) -> Vec<usize> {
    let created = wild(misbehaviour);
    (1..=calls).filter(|_| ready(ask_of(&created, BOB)).is_err()).collect()
}

#[test]
fn each_word_is_that_of_its_misbehaviour() {
    for misbehave in Misbehave::ALL {
        assert_eq!(Misbehave::from_word(misbehave.as_str()), Some(misbehave));
    }
    assert_eq!(Misbehave::from_word("smile"), None);
}

#[test]
fn on_call_is_one_call_and_every_is_its_multiples() {
    let error = || Misbehaviour::new(Misbehave::Error);
    assert_eq!(failing(&error(), 3), [1, 2, 3]);
    assert_eq!(failing(&error().on_call(3), 7), [3]);
    assert_eq!(failing(&error().every(3), 7), [3, 6]);
    assert!(failing(&error().on_call(0), 3).is_empty());
    assert!(failing(&error().every(0), 3).is_empty());
}

#[test]
fn for_key_is_the_calls_with_the_text_as_a_value() {
    let misbehaviour = Misbehaviour::new(Misbehave::Error).for_key(EVE);
    let created = wild(&misbehaviour);
    assert!(ready(ask_of(&created, EVE)).is_err());
    assert!(ready(ask_of(&created, BOB)).is_ok());
    assert!(ready(ask_of(&created, "@eve:example.com.au")).is_ok());
    let deep: JsonObject = FromJson::from_json(json!({"invite": [{"user": EVE}]}), &JsonPath::Root).unwrap();
    let bob = UserId::parse(BOB).unwrap();
    assert!(ready(ask(&created, &UserMayCreateRoom::new(bob, deep))).is_err());
    assert!(ready(respond(&created, "/mild?user=%40eve%3Aexample.com")).is_err());
    assert!(ready(respond(&created, "/mild?user=bob")).is_ok());
    assert_eq!((misbehaviour.calls(), misbehaviour.misbehaved()), (6, 3));
}

#[test]
fn calls_of_all_callbacks_resources_and_instances_are_counted_together() {
    let misbehaviour = Misbehaviour::new(Misbehave::Error).on_call(4);
    let (first, second) = (wild(&misbehaviour), wild(&misbehaviour));
    assert!(ready(ask_of(&first, BOB)).is_ok());
    assert!(ready(respond(&first, "/mild")).is_ok());
    assert!(ready(ask_of(&second, BOB)).is_ok());
    assert!(ready(respond(&second, "/mild")).is_err());
    assert!(ready(ask_of(&second, BOB)).is_ok());
    assert_eq!((misbehaviour.calls(), misbehaviour.misbehaved()), (5, 1));
}

#[test]
fn a_panic_comes_when_the_call_is_polled_and_not_when_it_is_made() {
    let misbehaviour = Misbehaviour::new(Misbehave::Panic);
    let created = wild(&misbehaviour);
    let call = ask_of(&created, BOB);
    assert_eq!(misbehaviour.calls(), 0);
    let panic = catch_unwind(AssertUnwindSafe(|| ready(call))).unwrap_err();
    let text = panic.downcast_ref::<String>().unwrap();
    assert_eq!(text, "misbehaviour: a panic on purpose, on call 1");
}

#[test]
fn an_error_is_no_matrix_error() {
    let created = wild(&Misbehaviour::new(Misbehave::Error));
    let error = ready(ask_of(&created, BOB)).unwrap_err();
    assert!(matches!(error, ModuleError::Other(_)), "{error}");
    assert!(error.to_string().starts_with("misbehaviour: "), "{error}");
}

#[test]
fn a_call_that_hangs_goes_on_and_answers_when_it_is_calm() {
    struct Woken(AtomicU64);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let misbehaviour = Misbehaviour::new(Misbehave::Hang);
    let created = wild(&misbehaviour);
    let woken = Arc::new(Woken(AtomicU64::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    let context = &mut Context::from_waker(&waker);
    let mut call = pin!(ask_of(&created, BOB));
    assert!(call.as_mut().poll(context).is_pending());
    assert!(call.as_mut().poll(context).is_pending());
    assert_eq!((misbehaviour.running(), woken.0.load(Ordering::SeqCst)), (1, 0));
    misbehaviour.calm();
    // Also if it is over before the call is polled again.
    misbehaviour.resume();
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    assert!(matches!(call.poll(context), Poll::Ready(Ok(Verdict::Pass))));
    assert_eq!(misbehaviour.running(), 0);
}

#[test]
fn a_call_that_hangs_and_is_dropped_does_not_run_any_more() {
    let misbehaviour = Misbehaviour::new(Misbehave::Hang);
    let created = wild(&misbehaviour);
    {
        let mut call = pin!(ask_of(&created, BOB));
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(misbehaviour.running(), 1);
    }
    assert_eq!(misbehaviour.running(), 0);
}

#[test]
fn threads_that_block_or_spin_go_on_and_answer_when_it_is_calm() {
    for misbehave in [Misbehave::Block, Misbehave::Spin] {
        let misbehaviour = Misbehaviour::new(misbehave);
        let created = wild(&misbehaviour);
        std::thread::scope(|scope| {
            let _guard = misbehaviour.calm_on_drop();
            let calls = [(); 2].map(|()| scope.spawn(|| ready(ask_of(&created, BOB))));
            until(|| misbehaviour.running() == 2);
            assert!(calls.iter().all(|call| !call.is_finished()), "{misbehave}");
            misbehaviour.calm();
            for call in calls {
                assert!(matches!(call.join().unwrap(), Ok(Verdict::Pass)), "{misbehave}");
            }
        });
        assert_eq!(misbehaviour.running(), 0);
    }
}

#[test]
fn nothing_misbehaves_while_it_is_calm() {
    let misbehaviour = Misbehaviour::new(Misbehave::Error);
    let created = wild(&misbehaviour);
    drop(misbehaviour.calm_on_drop());
    assert!(ready(ask_of(&created, BOB)).is_ok());
    misbehaviour.resume();
    assert!(ready(ask_of(&created, BOB)).is_err());
    assert_eq!((misbehaviour.calls(), misbehaviour.misbehaved()), (2, 1));
}

#[test]
fn a_slow_call_waits_with_the_host_and_answers() {
    let host = Notes::new();
    let slow = Duration::from_secs(3600);
    let created = create(&Misbehaviour::new(Misbehave::Slow(slow)), &host).ok().unwrap();
    assert!(ready(ask_of(&created, BOB)).is_ok());
    assert_eq!(*host.sleeps.lock().unwrap(), [slow]);
}

#[test]
fn a_call_that_leaks_or_floods_answers() {
    let host = Notes::new();
    for misbehave in [Misbehave::Leak, Misbehave::Flood] {
        let created = create(&Misbehaviour::new(misbehave), &host).ok().unwrap();
        assert!(ready(ask_of(&created, BOB)).is_ok());
    }
    let mut background = host.background.lock().unwrap();
    assert_eq!(background.len(), 1000);
    assert!(background.iter().all(|(schedule, _)| *schedule == Schedule::Now));
    assert!(ready((background[0].1)()).is_ok());
}

#[test]
fn garbage_is_a_denial_and_an_error_by_turns() {
    let created = wild(&Misbehaviour::new(Misbehave::Garbage));
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let mut denied = ready(ask_of(&created, BOB)).unwrap();
        let denial = denied.denial_mut().unwrap();
        assert!(denial.fields.contains_key("msg") && denial.fields.contains_key("code"));
        assert!(denial.errcode.as_str().contains('\0'));
        assert_eq!(denial.error.as_ref().unwrap().len(), 1024 * 1024);
        match ready(ask_of(&created, BOB)) {
            Err(ModuleError::Matrix(error)) if error.fields.contains_key("msg") => statuses.push(error.status),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(statuses, [7, 200]);
    let refused = ready(respond(&created, "/mild")).unwrap_err();
    assert!(matches!(refused, ModuleError::Matrix(_)));
}

#[test]
fn garbage_of_a_callback_without_a_verdict_is_an_error() {
    let created = wild(&Misbehaviour::new(Misbehave::Garbage));
    for _ in 0..2 {
        let error = ready(ask(&created, &login(&json!({"code": "1"})))).unwrap_err();
        assert!(matches!(error, ModuleError::Matrix(_)));
    }
}

fn login(login_dict: &Value) -> AuthCheckers {
    let args = json!({"username": "bob", "login_type": "com.example.code", "login_dict": login_dict});
    AuthCheckers::from_json(args, &JsonPath::Root).unwrap()
}

#[test]
fn registrations_keep_their_group_their_login_types_and_whom_they_concern() {
    let created = wild(&Misbehaviour::new(Misbehave::Error));
    let plain = Registry::new().with::<Mild>("mild").factory("mild").unwrap();
    let plain = plain.create(json!({}), Notes::new()).ok().unwrap();
    let shape = |created: &Created| -> Vec<_> {
        let callbacks = created.registered.callbacks.iter();
        callbacks
            .map(|callback| (callback.index(), callback.group(), callback.login_types().to_vec()))
            .collect()
    };
    assert_eq!(shape(&created), shape(&plain));
    assert_eq!(shape(&created).len(), 3);
    assert_eq!(created.registered.resources[0].0, plain.registered.resources[0].0);

    let callbacks = &created.registered.callbacks;
    let checkers = callbacks.iter().find_map(Registration::subscriber::<AuthCheckers>);
    let checkers = checkers.unwrap();
    assert_eq!(checkers.concern(&login(&json!({"code": "1"}))), Ok(Concern::Asked));
    assert!(checkers.concern(&login(&json!({}))).is_err());
    let mut other = login(&json!({}));
    other.login_type = "m.login.password".into();
    assert_eq!(checkers.concern(&other), Ok(Concern::Skipped));
}

#[test]
fn a_constructor_misbehaves_and_the_calls_do_not() {
    let error = Misbehaviour::new(Misbehave::Error).on_call(2).in_constructor();
    let created = wild(&error);
    let refused = create(&error, &Notes::new());
    assert!(matches!(refused, Err(CreateError::Constructor(_))));
    assert!(create(&error, &Notes::new()).is_ok());
    assert!(ready(ask_of(&created, BOB)).is_ok());
    assert_eq!((error.calls(), error.misbehaved()), (3, 1));

    let panics = Misbehaviour::new(Misbehave::Panic).in_constructor();
    assert!(catch_unwind(AssertUnwindSafe(|| wild(&panics))).is_err());

    let blocks = Misbehaviour::new(Misbehave::Block).in_constructor();
    std::thread::scope(|scope| {
        let _guard = blocks.calm_on_drop();
        let made = scope.spawn(|| create(&blocks, &Notes::new()).is_ok());
        until(|| blocks.running() == 1);
        blocks.calm();
        assert!(made.join().unwrap());
    });
}

#[test]
fn what_does_not_fit_a_place_does_nothing_there() {
    for misbehave in [Misbehave::Hang, Misbehave::Leak, Misbehave::Flood, Misbehave::Garbage] {
        let (made, dropped) = (Misbehaviour::new(misbehave), Misbehaviour::new(misbehave));
        let (made, dropped) = (made.in_constructor(), dropped.in_drop());
        drop((wild(&made), wild(&dropped)));
        assert_eq!((made.calls(), dropped.calls()), (1, 1));
        assert_eq!((made.misbehaved(), dropped.misbehaved()), (0, 0));
    }
}

#[test]
fn a_drop_misbehaves_with_the_last_that_holds_the_instance() {
    let misbehaviour = Misbehaviour::new(Misbehave::Panic).in_drop();
    let Created { instance, registered } = wild(&misbehaviour);
    drop(instance);
    assert_eq!(misbehaviour.calls(), 0);
    assert_eq!(DROPS.get(), 0);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(registered))).is_err());
    assert_eq!((misbehaviour.calls(), misbehaviour.misbehaved()), (1, 1));
    assert_eq!(DROPS.get(), 1, "the module's own is dropped all the same");
}

#[test]
fn a_slow_drop_ends_when_it_is_calm() {
    let misbehaviour = Misbehaviour::new(Misbehave::Slow(Duration::from_secs(3600))).in_drop();
    let created = wild(&misbehaviour);
    std::thread::scope(|scope| {
        let _guard = misbehaviour.calm_on_drop();
        let dropping = scope.spawn(|| drop(created));
        until(|| misbehaviour.misbehaved() == 1);
        misbehaviour.calm();
        dropping.join().unwrap();
    });
}

#[test]
fn a_background_call_misbehaves_when_it_runs() {
    let host = Notes::new();
    let misbehaviour = Misbehaviour::new(Misbehave::Error).in_background();
    let created = create(&misbehaviour, &host).ok().unwrap();
    assert_eq!(misbehaviour.calls(), 0);
    let (schedule, mut task) = host.background.lock().unwrap().pop().unwrap();
    assert_eq!(schedule, Schedule::Now);
    assert!(ready(task()).is_err());
    assert!(ready(ask_of(&created, BOB)).is_ok());
    assert_eq!((misbehaviour.calls(), misbehaviour.misbehaved()), (1, 1));
}

#[test]
#[should_panic(expected = "no module has the path \"mild\"")]
fn a_module_that_is_not_there_cannot_misbehave() {
    let _ = Registry::new().misbehaving("wild", "mild", Misbehaviour::new(Misbehave::Error));
}
