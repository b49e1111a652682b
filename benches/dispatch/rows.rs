//! The rows of the group: ways to ask modules, ours and others'.

use std::fmt;
use std::sync::Arc;

use actix::ArbiterHandle;
use ganglion::actors::{ModuleThread, Tier, Worker};
use ganglion::api::{CheckEventForSpam, CheckRegistrationForSpam, RegistrationVerdict};
use ganglion::dispatcher::{AskContext, DispatchHandle, Outcome};
use ganglion_benches::driver::{Driver, run_all};
use ganglion_benches::host::{Host, Threads, yaml_of};
use ganglion_benches::rounds::Rows;
use ganglion_benches::work::{self, LOOKS, MODULES, args, assert_denied, assert_passed};

use crate::peers::{Actix, ActixAsync, Kameo, Peer, Ractor, Tokio, boxed};

/// Where those are who are asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Place {
    /// All on the thread of who asks.
    Here,
    /// Each on a thread of its own, which is not that of who asks.
    Apart,
}

/// A way to ask.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Way {
    /// `ask`, and nobody has subscribed.
    NoSubscriber,
    /// `ask_on`: in a task on the worker's thread, at the routing table.
    AskOn(Tier),
    /// The same; the first module denies.
    Denied(Tier),
    /// `ask` in a task on the worker's thread.
    Ask(Tier),
    /// `ask` from a thread that is no worker.
    AskFromAfar(Tier),
    /// Boxed async calls in a loop.
    Boxed,
    /// Asks of actix actors whose handlers are plain functions.
    Actix(Place),
    /// Asks of actix actors whose handlers are async.
    ActixAsync(Place),
    /// Tasks with channels.
    Tokio(Place),
    /// Asks of kameo actors.
    Kameo(Place),
    /// Calls of ractor actors.
    Ractor(Place),
}

/// A row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Case {
    pub(crate) way: Way,
    pub(crate) modules: usize,
    pub(crate) in_flight: usize,
    pub(crate) workers: usize,
}

impl Case {
    /// Five modules, one worker, one question at a time.
    pub(crate) const fn of(way: Way) -> Self {
        Self {
            way,
            modules: MODULES,
            in_flight: 1,
            workers: 1,
        }
    }

    pub(crate) const fn modules(self, modules: usize) -> Self {
        Self { modules, ..self }
    }

    pub(crate) const fn in_flight(self, in_flight: usize) -> Self {
        Self { in_flight, ..self }
    }

    pub(crate) const fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Here => "one thread",
            Self::Apart => "a thread each",
        })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSubscriber => write!(f, "`ask`, nobody has subscribed"),
            Self::AskOn(tier) => write!(f, "`ask_on`, {tier}"),
            Self::Denied(tier) => write!(f, "`ask_on`, {tier}, the first denies"),
            Self::Ask(tier) => write!(f, "`ask`, {tier}"),
            Self::AskFromAfar(tier) => write!(f, "`ask` from another thread, {tier}"),
            Self::Boxed => write!(f, "floor: boxed async calls"),
            Self::Actix(place) => write!(f, "floor: actix asks, {place}"),
            Self::ActixAsync(place) => write!(f, "floor: actix asks of async handlers, {place}"),
            Self::Tokio(place) => write!(f, "tokio tasks and channels, {place}"),
            Self::Kameo(place) => write!(f, "kameo asks, {place}"),
            Self::Ractor(place) => write!(f, "ractor calls, {place}"),
        }
    }
}

/// Side by side: from one to as many as a module's permits.
pub(crate) const IN_FLIGHT: [usize; 3] = [1, 8, 64];

/// How many modules are asked.
pub(crate) const COUNTS: [usize; 3] = [1, MODULES, 20];

/// The last of [`IN_FLIGHT`], where two workers are compared to one.
pub(crate) const MANY: usize = 64;

/// Every row, in the order of the table.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![Case::of(Way::NoSubscriber).modules(0)];
    for tier in Tier::ALL {
        cases.extend(COUNTS.map(|count| Case::of(Way::AskOn(tier)).modules(count)));
    }
    cases.extend([Tier::Inline, Tier::Actor].map(|tier| Case::of(Way::Denied(tier))));
    for ask in [Way::Ask, Way::AskFromAfar] {
        for tier in Tier::ALL {
            cases.extend(IN_FLIGHT.map(|in_flight| Case::of(ask(tier)).in_flight(in_flight)));
        }
    }
    for tier in [Tier::Inline, Tier::Actor] {
        cases.extend([1, 2].map(|workers| Case::of(Way::AskOn(tier)).in_flight(MANY).workers(workers)));
        cases.push(Case::of(Way::Ask(tier)).in_flight(MANY).workers(2));
    }
    cases.extend(COUNTS.map(|count| Case::of(Way::Boxed).modules(count)));
    for place in [Place::Here, Place::Apart] {
        for peer in [Way::Actix, Way::ActixAsync, Way::Tokio, Way::Kameo, Way::Ractor] {
            cases.extend(IN_FLIGHT.map(|in_flight| Case::of(peer(place)).in_flight(in_flight)));
        }
    }
    cases
}

/// What runs for the rows.
pub(crate) struct Stage {
    /// Threads without modules: one who asks, and five who are asked.
    threads: Threads,
    /// Modules by tier, number and workers.
    hosts: Vec<((Tier, usize, usize), Host)>,
    /// Modules whose first denies.
    denying: Vec<(Tier, Host)>,
    /// No modules.
    empty: Host,
}

impl Stage {
    /// Starts everything.
    pub(crate) fn start() -> Self {
        let mut hosts: Vec<((Tier, usize, usize), Host)> = Vec::new();
        for case in cases() {
            let (Way::AskOn(tier) | Way::Ask(tier) | Way::AskFromAfar(tier)) = case.way else {
                continue;
            };
            let which = (tier, case.modules, case.workers);
            if hosts.iter().all(|(other, _)| *other != which) {
                hosts.push((which, Host::of(tier, case.modules, case.workers)));
            }
        }
        Self {
            threads: Threads::start(1 + MODULES),
            hosts,
            denying: [Tier::Inline, Tier::Actor]
                .map(|tier| (tier, denying(tier)))
                .into_iter()
                .collect(),
            empty: Host::of(Tier::Inline, 0, 1),
        }
    }

    /// All rows.
    pub(crate) fn rows(&self) -> Rows<'static, Case> {
        let mut rows = Rows::new();
        for case in cases() {
            let drivers = self.drivers(case);
            rows.add(case, move |count| run_all(&drivers, count, case.in_flight));
        }
        rows
    }

    fn host(&self, tier: Tier, case: Case) -> &Host {
        let which = (tier, case.modules, case.workers);
        let host = self.hosts.iter().find(|(other, _)| *other == which);
        host.map(|(_, host)| host).expect("a host for each case")
    }

    fn drivers(&self, case: Case) -> Vec<Driver> {
        let here = self.threads.arbiter(0);
        let places = |place| -> Vec<ArbiterHandle> {
            let thread = |module| self.threads.arbiter(if place == Place::Here { 0 } else { module });
            (1..=MODULES).map(thread).collect()
        };
        let driver = match case.way {
            Way::NoSubscriber => no_subscriber(&self.empty),
            Way::AskOn(tier) => {
                let host = self.host(tier, case);
                let each = host.threads().iter();
                return each.map(|thread| ask_on(host, thread, case.modules)).collect();
            }
            Way::Ask(tier) => {
                let host = self.host(tier, case);
                let each = host.threads().iter();
                return each.map(|thread| ask(host, thread.arbiter())).collect();
            }
            Way::Denied(tier) => {
                let host = self.denying.iter().find(|(other, _)| *other == tier);
                denied(&host.expect("a host for each case").1)
            }
            Way::AskFromAfar(tier) => ask(self.host(tier, case), &here),
            Way::Boxed => boxed(&here, case.modules),
            Way::Actix(place) => Actix::driver(&here, places(place)),
            Way::ActixAsync(place) => ActixAsync::driver(&here, places(place)),
            Way::Tokio(place) => Tokio::driver(&here, places(place)),
            Way::Kameo(place) => Kameo::driver(&here, places(place)),
            Way::Ractor(place) => Ractor::driver(&here, places(place)),
        };
        vec![driver]
    }
}

/// Five modules, of which the first denies.
fn denying(tier: Tier) -> Host {
    let module = |index| {
        let denies = index == 0;
        format!("{{id: m{index}, module: {LOOKS}, tier: {tier}, config: {{denies: {denies}}}}}")
    };
    let modules: Vec<String> = (0..MODULES).map(module).collect();
    Host::start(&yaml_of(&modules, 1), &work::registry())
}

/// Args that hold nothing are made for nothing, so that the row is the ask alone.
fn no_subscriber(host: &Host) -> Driver {
    let handle = host.handle();
    let set_up = async move || handle;
    Driver::start(host.threads()[0].arbiter(), set_up, async |handle: &DispatchHandle| {
        let decision = handle
            .ask(CheckRegistrationForSpam::new(None, None, Vec::new(), None))
            .await;
        assert_eq!(decision.outcome, Outcome::Decided(RegistrationVerdict::Pass));
    })
}

struct OnWorker {
    worker: Worker,
    handle: DispatchHandle,
    args: Arc<CheckEventForSpam>,
}

impl OnWorker {
    fn new(thread: Arc<ModuleThread>, handle: DispatchHandle) -> Self {
        Self {
            worker: Worker::new(thread),
            handle,
            args: Arc::new(args()),
        }
    }
}

fn ask_on(host: &Host, thread: &Arc<ModuleThread>, modules: usize) -> Driver {
    let (own, handle) = (Arc::clone(thread), host.handle());
    let set_up = async move || OnWorker::new(own, handle);
    Driver::start(thread.arbiter(), set_up, async move |on: &OnWorker| {
        assert_passed(&on.handle.ask_on(&on.worker, Arc::clone(&on.args)).await, modules);
    })
}

fn denied(host: &Host) -> Driver {
    let (thread, handle) = (Arc::clone(&host.threads()[0]), host.handle());
    let arbiter = thread.arbiter().clone();
    let set_up = async move || OnWorker::new(thread, handle);
    Driver::start(&arbiter, set_up, async |on: &OnWorker| {
        assert_denied(&on.handle.ask_on(&on.worker, Arc::clone(&on.args)).await);
    })
}

fn ask(host: &Host, place: &ArbiterHandle) -> Driver {
    let handle = host.handle();
    let set_up = async move || (handle, Arc::new(args()));
    Driver::start(
        place,
        set_up,
        async |(handle, args): &(DispatchHandle, Arc<CheckEventForSpam>)| {
            let asked = handle.ask_in(AskContext::new(), Arc::clone(args));
            assert_passed(&asked.await, MODULES);
        },
    )
}
