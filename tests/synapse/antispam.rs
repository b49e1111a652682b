//! A real Synapse asks `ganglion serve` over HTTP, through the published module synapse-http-antispam, and a client
//! sees what comes of it. Here is shown what no test inside this repository's own code can show: that the dialect is
//! the one that a homeserver in use speaks, and that Ganglion's failures are failures to it, not denials.

use anyhow::Context;
use serde_json::{Value, json};

use crate::client::Reply;
use crate::ganglion::{Ganglion, TOKEN};
use crate::homeserver::Homeserver;

/// Options of synapse-http-antispam.
struct Antispam {
    /// Where Ganglion answers.
    base_url: String,
    /// The bearer token that Synapse sends.
    token: &'static str,
    /// What counts as a pass when no answer can be had: a bool a callback.
    fail_open: Value,
}

impl Antispam {
    /// The section. It names the callbacks, because the default set has one that upstream Synapse does not know.
    fn modules(&self) -> Value {
        json!([{
            "module": "synapse_http_antispam.HTTPAntispam",
            "config": {
                "base_url": self.base_url,
                "authorization": self.token,
                "do_ping": true,
                "enabled_callbacks": ["check_event_for_spam", "user_may_create_room", "user_may_join_room"],
                "fail_open": self.fail_open,
            },
        }])
    }
}

/// How a client learns of a denial.
const DENIED: (u16, &str) = (403, "M_FORBIDDEN");

const WRONG_TOKEN: &str = "not-the-right-token";

/// Why synapse-http-antispam had no answer, in its own words, which tell a refused token from an unreachable Ganglion.
const TOKEN_REFUSED: &str = "Unexpected response from antispam server";
const UNREACHABLE: &str = "Failed to connect to antispam server";

/// Runs `scenario` against a Ganglion and a Synapse that sends it `token`.
fn with_synapse(
    token: &'static str,
    fail_open: Value,
    scenario: impl FnOnce(&mut Ganglion, &Homeserver) -> anyhow::Result<()>,
) {
    let run = || {
        let mut ganglion = Ganglion::start()?;
        let antispam = Antispam {
            base_url: ganglion.antispam_url(),
            token,
            fail_open,
        };
        let synapse = Homeserver::start(&antispam.modules())?;
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

#[test]
fn the_configured_user_creates_no_room_and_another_does() {
    with_synapse(TOKEN, json!({}), |_, synapse| {
        synapse.wait_for_ping()?;
        assert_eq!(synapse.user("evil")?.try_create_room()?.refusal(), DENIED);
        let room = synapse.user("alice")?.create_room()?;
        assert_eq!(synapse.user("bob")?.try_join(&room)?.status, 200);
        Ok(())
    });
}

#[test]
fn a_message_with_a_keyword_does_not_arrive_and_another_does() {
    with_synapse(TOKEN, json!({}), |_, synapse| {
        let alice = synapse.user("alice")?;
        let room = alice.create_room()?;
        assert_eq!(alice.try_send(&room, "buy Viagra now")?.refusal(), DENIED);
        assert_eq!(alice.try_send(&room, "good morning")?.status, 200);
        assert_eq!(alice.messages(&room)?, ["good morning"]);
        Ok(())
    });
}

#[test]
fn with_ganglion_stopped_rooms_fail_closed_and_messages_open_by_default() {
    with_synapse(TOKEN, json!({}), |ganglion, synapse| {
        let alice = synapse.user("alice")?;
        let room = alice.create_room()?;
        ganglion.stop()?;
        assert_failed_closed(&alice.try_create_room()?, UNREACHABLE);
        assert_eq!(alice.try_send(&room, "buy viagra now")?.status, 200);
        assert_eq!(alice.messages(&room)?, ["buy viagra now"]);
        Ok(())
    });
}

#[test]
fn with_a_wrong_token_rooms_fail_closed_by_default() {
    with_synapse(WRONG_TOKEN, json!({}), |_, synapse| {
        assert_failed_closed(&synapse.user("alice")?.try_create_room()?, TOKEN_REFUSED);
        Ok(())
    });
}

#[test]
fn with_a_wrong_token_or_ganglion_stopped_fail_open_decides_callback_by_callback() {
    with_synapse(
        WRONG_TOKEN,
        json!({ "user_may_create_room": true }),
        |ganglion, synapse| {
            let (evil, bob) = (synapse.user("evil")?, synapse.user("bob")?);
            let only_joins_fail_closed = |why| {
                let room = evil.create_room()?;
                assert_eq!(evil.try_send(&room, "buy viagra now")?.status, 200);
                assert_eq!(evil.messages(&room)?, ["buy viagra now"]);
                assert_failed_closed(&bob.try_join(&room)?, why);
                anyhow::Ok(())
            };
            only_joins_fail_closed(TOKEN_REFUSED)?;
            ganglion.stop()?;
            only_joins_fail_closed(UNREACHABLE)
        },
    );
}

/// Shows that nobody decided anything: the module refused because it had no answer.
#[track_caller]
fn assert_failed_closed(reply: &Reply, why: &str) {
    assert_eq!(
        (reply.status, &reply.body),
        (403, &json!({ "errcode": "M_UNKNOWN", "error": why }))
    );
}
