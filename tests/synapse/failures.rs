//! Ganglion is not there, goes away, comes back, hangs: what clients of a homeserver with the bridge see of it.

use std::thread;

use anyhow::Context;
use serde_json::{Value, json};

use crate::client::{Body, Client, Reply};
use crate::ganglion::Wired;
use crate::homeserver::Homeserver;

/// What the bridge logs when it has a connection, and when it has none any more.
const CONNECTED: &str = "connected to ganglion";
const DISCONNECTED: &str = "not connected to Ganglion";

/// Starts a Synapse with the bridge to a Ganglion that is not there, and plays a scenario.
fn with_bridge(
    config: impl FnOnce(&Wired) -> Value,
    scenario: impl FnOnce(&mut Wired, &Homeserver) -> anyhow::Result<()>,
) {
    let run = || {
        let mut ganglion = Wired::absent()?;
        let modules = json!([{ "module": "ganglion_synapse.Bridge", "config": config(&ganglion) }]);
        let synapse = Homeserver::start(&modules)?;
        // An error has to become a panic while both are there: only then do they show what they printed.
        if let Err(error) = scenario(&mut ganglion, &synapse).context("the scenario broke off") {
            panic!("{error:?}");
        }
        anyhow::Ok(())
    };
    if let Err(error) = run() {
        panic!("{error:?}");
    }
}

/// Shows that nobody decided, and that a client learns no more than that.
#[track_caller]
fn assert_failed(reply: &Reply) {
    let text = r#"{"errcode":"M_UNKNOWN","error":"Internal server error"}"#;
    assert_eq!((reply.status, reply.text.as_str()), (500, text));
}

/// Shows that the module decided, with this text.
#[track_caller]
fn assert_denied(reply: &Reply, error: &str) {
    let body = json!({ "errcode": "M_FORBIDDEN", "error": error });
    assert_eq!((reply.status, &reply.body), (403, &body));
}

fn deny(error: &str) -> Value {
    json!({ "verdict": "deny", "error": error })
}

fn versions(client: &Client) -> anyhow::Result<u16> {
    let reply = client.ask("GET", "/_matrix/client/versions", None, &Body::Nothing)?;
    Ok(reply.status)
}

#[test]
fn synapse_serves_without_ganglion_and_asks_it_whenever_it_is_there() {
    let config = |ganglion: &Wired| json!({ "socket": ganglion.socket(), "call_timeout": "500ms" });
    with_bridge(config, |ganglion, synapse| {
        let client = synapse.client();
        synapse.wait_for_lines(DISCONNECTED, 1)?;
        assert_eq!(versions(client)?, 200);
        // Knowing nothing, the bridge asks about all that could be denied.
        let form = json!({ "username": "alice", "password": "x", "auth": { "type": "m.login.dummy" } });
        let register = || client.ask("POST", "/_matrix/client/v3/register", None, &Body::Json(&form));
        assert_failed(&register()?);

        ganglion.start(&json!({ "user_may_create_room": deny("closed today") }))?;
        synapse.wait_for_lines(CONNECTED, 1)?;
        let alice = synapse.user("alice")?;
        assert_denied(&alice.try_create_room()?, "closed today");
        let config = || {
            client.ask(
                "GET",
                "/_matrix/client/v1/media/config",
                Some(alice.token()),
                &Body::Nothing,
            )
        };
        let usual = config()?.body;

        ganglion.kill()?;
        synapse.wait_for_lines(DISCONNECTED, 2)?;
        assert_failed(&alice.try_create_room()?);
        assert_eq!(versions(client)?, 200);

        // It comes back with other modules: Synapse learns of a callback that it has never asked.
        ganglion.start(&json!({
            "user_may_create_room": { "verdict": "pass" },
            "user_may_join_room": { "fail": "panic" },
            "get_media_config_for_user": { "value": { "m.upload.size": 7 } },
        }))?;
        synapse.wait_for_lines(CONNECTED, 2)?;
        let room = alice.create_room()?;
        assert_ne!(usual, json!({ "m.upload.size": 7 }));
        assert_eq!(config()?.body, json!({ "m.upload.size": 7 }));

        // However often it was tried, a change is said once.
        assert_eq!(
            (synapse.count_lines(DISCONNECTED), synapse.count_lines(CONNECTED)),
            (2, 2)
        );

        // It does not answer in time, and answers again later.
        ganglion.suspend()?;
        assert_failed(&alice.try_create_room()?);
        ganglion.resume()?;
        synapse.wait_for_lines(CONNECTED, 3)?;
        assert_eq!(alice.try_create_room()?.status, 200);

        // Its module panics. Afterwards it is made anew, so this comes last.
        assert_failed(&synapse.user("bob")?.try_join(&room)?);
        Ok(())
    });
}

#[test]
fn a_rule_lets_pass_what_ganglion_does_not_answer_and_a_restart_is_waited_for() {
    let config = |ganglion: &Wired| {
        json!({
            "socket": ganglion.socket(),
            "call_timeout": "60s",
            "callbacks": ["user_may_create_room"],
            "on_failure": [{ "callback": "user_may_create_room", "then": "pass" }],
        })
    };
    with_bridge(config, |ganglion, synapse| {
        let alice = synapse.user("alice")?;
        synapse.wait_for_lines(DISCONNECTED, 1)?;
        assert_eq!(alice.try_create_room()?.status, 200);

        let closed = json!({ "user_may_create_room": deny("closed today") });
        ganglion.start(&closed)?;
        synapse.wait_for_lines(CONNECTED, 1)?;
        assert_denied(&alice.try_create_room()?, "closed today");

        // It stops without a word: who asks waits, all others do not.
        ganglion.suspend()?;
        thread::scope(|scope| {
            let asked = scope.spawn(|| alice.try_create_room());
            for _ in 0..100 {
                assert_eq!(versions(synapse.client())?, 200);
            }
            assert!(!asked.is_finished(), "a room without a decision");
            ganglion.resume()?;
            let reply = asked.join().map_err(|_| anyhow::anyhow!("a request panicked"))?;
            assert_denied(&reply?, "closed today");
            anyhow::Ok(())
        })?;

        // It crashes and is started again: who asks meanwhile does not notice.
        ganglion.kill()?;
        synapse.wait_for_lines(DISCONNECTED, 2)?;
        thread::scope(|scope| {
            let asked = scope.spawn(|| alice.try_create_room());
            for _ in 0..20 {
                assert_eq!(versions(synapse.client())?, 200);
            }
            assert!(!asked.is_finished(), "a room without a decision");
            ganglion.start(&closed)?;
            let reply = asked.join().map_err(|_| anyhow::anyhow!("a request panicked"))?;
            assert_denied(&reply?, "closed today");
            anyhow::Ok(())
        })?;

        // It is restarted in order: whether it got the question before it stopped or not, there is a decision.
        ganglion.suspend()?;
        thread::scope(|scope| {
            let asked = scope.spawn(|| alice.try_create_room());
            for _ in 0..20 {
                assert_eq!(versions(synapse.client())?, 200);
            }
            ganglion.terminate()?;
            ganglion.resume()?;
            ganglion.wait_for_end()?;
            ganglion.start(&closed)?;
            let reply = asked.join().map_err(|_| anyhow::anyhow!("a request panicked"))?;
            assert_denied(&reply?, "closed today");
            anyhow::Ok(())
        })
    });
}
