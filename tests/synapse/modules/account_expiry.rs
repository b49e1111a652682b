//! Accounts that end.

use std::time::{Duration, SystemTime};

use anyhow::ensure;
use serde_json::{Value, json};

use super::behind_synapse;
use crate::client::{Body, Client, Reply};
use crate::ganglion::Wired;
use crate::homeserver::Homeserver;

const RESOURCE: &str = "/_synapse/client/account_expiry";

#[test]
fn an_account_is_refused_after_its_end_and_works_again_when_it_is_extended() {
    behind_synapse(
        &modules(),
        |_| Ok(()),
        |ganglion, synapse| {
            let (before, bob, after) = (now()?, synapse.user("bob")?, now()?);
            let who = || {
                synapse.client().ask(
                    "GET",
                    "/_matrix/client/v3/account/whoami",
                    Some(bob.token()),
                    &Body::Nothing,
                )
            };
            let admin = ganglion.http()?;
            let shown = ask(&admin, "GET", "?user_id=%40bob%3Aexample.com", &Body::Nothing)?;
            let end = shown.body["expires_at"].as_u64().unwrap_or_default();
            let period = 30 * 24 * 60 * 60 * 1000;
            assert!((before + period..=after + period).contains(&end), "{shown:?}");
            assert_eq!(who()?.status, 200);

            post(&admin, &json!({ "user_id": "@bob:example.com", "expires_at": before }))?;
            assert_eq!(who()?.refusal(), (403, "ORG_MATRIX_EXPIRED_ACCOUNT"));
            assert_eq!(bob.try_create_room()?.refusal(), (403, "ORG_MATRIX_EXPIRED_ACCOUNT"));

            post(&admin, &json!({ "user_id": "@bob:example.com", "extend_by": "1d" }))?;
            assert_eq!(who()?.status, 200);
            bob.create_room()?;
            Ok(())
        },
    );
}

#[test]
fn a_registration_that_was_answered_has_its_end_after_a_kill() -> anyhow::Result<()> {
    let mut ganglion = Wired::absent()?;
    ganglion.serve(&modules())?;
    let bridge = json!([{ "module": "ganglion_synapse.Bridge", "config": { "socket": ganglion.socket() } }]);
    let synapse = Homeserver::start(&bridge)?;
    synapse.user("bob")?;
    ganglion.kill()?;
    ganglion.serve(&modules())?;
    let shown = ask(
        &ganglion.http()?,
        "GET",
        "?user_id=%40bob%3Aexample.com",
        &Body::Nothing,
    )?;
    assert!(shown.body["expires_at"].is_u64(), "{shown:?}");
    Ok(())
}

fn modules() -> Value {
    let config = json!({ "database": "expiry.db", "period": "30d", "token": "s3cret" });
    json!([{ "module": "ganglion.modules.AccountExpiry", "config": config }])
}

fn post(admin: &Client, body: &Value) -> anyhow::Result<()> {
    let reply = ask(admin, "POST", "", &Body::Json(body))?;
    ensure!(reply.status == 200, "{reply:?}");
    Ok(())
}

fn ask(admin: &Client, method: &str, query: &str, body: &Body<'_>) -> anyhow::Result<Reply> {
    admin.ask(method, &format!("{RESOURCE}{query}"), Some("s3cret"), body)
}

/// Now, in milliseconds since the Unix epoch.
fn now() -> anyhow::Result<u64> {
    let since: Duration = SystemTime::UNIX_EPOCH.elapsed()?;
    Ok(u64::try_from(since.as_millis())?)
}
