//! What sending a message takes, for a client of a Synapse with these modules or those.

use std::path::Path;
use std::time::Instant;

use ganglion_benches::group::Group;
use ganglion_benches::rounds::Series;
use ganglion_benches::work::MODULES;
use serde_json::{Value, json};

use crate::client::{Client, Wrong};
use crate::ganglion::{self, Serving};
use crate::homeserver::Homeserver;
use crate::{Found, Way};

/// Messages of a block that are not counted: another Synapse had the machine before.
const WARM_UP: u64 = 2;

/// Where Synapse tells how often the Python modules were asked; see noop.py.
const CALLS: &str = "/_synapse/client/bench/calls";

/// How many blocks of each Synapse there are, and how many messages of a block are counted.
pub(crate) struct Pace {
    pub(crate) rounds: usize,
    pub(crate) messages: u64,
}

/// Sends messages through one Synapse each, in turns.
pub(crate) fn measure(
    group: &Group,
    pace: &Pace,
    python: &Path,
    directory: &Path,
    ganglion: &Serving,
) -> Result<Found, Wrong> {
    group.progress("four Synapses start");
    let mut homeservers = Way::ALL
        .into_iter()
        .map(|way| Homeserver::start(way, python, directory, &modules(way, ganglion)))
        .collect::<Result<Vec<_>, _>>()?;
    let mut clients = Vec::new();
    for homeserver in &mut homeservers {
        clients.push(registered(homeserver)?);
    }
    // The first messages are slower than all others.
    for client in &mut clients {
        block(client, WARM_UP + pace.messages)?;
    }
    let before = told(&mut clients)?;
    let (mut random, mut order) = (fastrand::Rng::with_seed(11), Way::ALL);
    let mut medians = Way::ALL.map(|_| Vec::with_capacity(pace.rounds));
    for round in 0..pace.rounds {
        if round % 25 == 0 {
            group.progress(&format!("round {} of {}", round + 1, pace.rounds));
        }
        // Nobody is always the one who comes after.
        random.shuffle(&mut order);
        for way in order {
            let (at, begun) = (way as usize, ganglion::calls());
            let took = block(&mut clients[at], WARM_UP + pace.messages)?;
            let asked = if way.is_native() { took.len() as u64 } else { 0 };
            check(ganglion::calls().0 - begun.0, asked, way)?;
            medians[at].push(Series::new(took[WARM_UP as usize..].to_vec()).median());
        }
    }
    let sent = pace.rounds as u64 * (WARM_UP + pace.messages);
    for (before, after) in before.iter().zip(told(&mut clients)?) {
        // Of one module.
        check((after - before) * MODULES as u64, sent, Way::Python)?;
    }
    Ok(Found(medians.map(Series::new)))
}

/// A user with a room, which every module was asked about.
fn registered(homeserver: &mut Homeserver) -> Result<Client, Wrong> {
    let begun = ganglion::calls();
    let mut client = homeserver.client()?;
    let asked = ganglion::calls().1 - begun.1;
    check(asked, u64::from(homeserver.way.is_native()), homeserver.way)?;
    if homeserver.way == Way::Python {
        let told = client.get(CALLS)?;
        let asked = told.as_array().into_iter().flatten();
        let asked = asked.filter_map(|module| module["user_may_create_room"].as_u64());
        check(asked.sum(), 1, homeserver.way)?;
    }
    Ok(client)
}

/// How often each Python module was asked about an event.
fn told(clients: &mut [Client]) -> Result<Vec<u64>, Wrong> {
    let told = clients[Way::Python as usize].get(CALLS)?;
    let asked = told.as_array().into_iter().flatten();
    let asked: Vec<u64> = asked
        .filter_map(|module| module["check_event_for_spam"].as_u64())
        .collect();
    if asked.len() == MODULES {
        Ok(asked)
    } else {
        Err(format!("not {MODULES} modules: {told}").into())
    }
}

/// Every module was asked so often.
fn check(calls: u64, asked: u64, way: Way) -> Result<(), Wrong> {
    if calls == asked * MODULES as u64 {
        Ok(())
    } else {
        Err(format!(
            "{}: {calls} calls of {MODULES} modules, and not {asked} of each",
            way.name()
        )
        .into())
    }
}

/// Seconds that each message took.
fn block(client: &mut Client, messages: u64) -> Result<Vec<f64>, Wrong> {
    let one = |_| {
        let begun = Instant::now();
        client.send()?;
        Ok(begun.elapsed().as_secs_f64())
    };
    (0..messages).map(one).collect()
}

/// The section `modules` of the homeserver's config.
fn modules(way: Way, ganglion: &Serving) -> Value {
    match way {
        Way::Nobody => json!([]),
        Way::Python => (0..MODULES)
            .map(|_| json!({"module": "noop.Noop", "config": {}}))
            .collect(),
        Way::Bridge => json!([{"module": "ganglion_synapse.Bridge", "config": {"socket": ganglion.socket()}}]),
        Way::Antispam => json!([{
            "module": "synapse_http_antispam.HTTPAntispam",
            "config": {
                "base_url": ganglion.antispam(),
                "enabled_callbacks": ["check_event_for_spam", "user_may_create_room"],
            },
        }]),
    }
}
