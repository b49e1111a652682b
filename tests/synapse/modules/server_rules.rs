//! `ganglion.modules.ServerRules`, with a list file that changes.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;

use super::behind_synapse;
use crate::client::{Body, Reply, User};
use crate::homeserver::Homeserver;

/// How long a change of a file may take to have its effect.
const PATIENCE: Duration = Duration::from_secs(60);

fn invite(synapse: &Homeserver, inviter: &User<'_>, room: &str, invitee: &str) -> anyhow::Result<Reply> {
    let path = format!("/_matrix/client/v3/rooms/{room}/invite");
    let body = json!({ "user_id": format!("@{invitee}:example.com") });
    synapse
        .client()
        .ask("POST", &path, Some(inviter.token()), &Body::Json(&body))
}

/// Puts a whole file in the place of another, as operators should.
fn replace(directory: &Path, text: &str) -> anyhow::Result<()> {
    let fresh = directory.join("denied.fresh");
    fs::write(&fresh, text)?;
    fs::rename(fresh, directory.join("denied.txt")).context("cannot replace the list")
}

#[test]
fn who_is_on_the_list_makes_no_room_and_is_not_invited_and_the_list_may_change() {
    let modules = json!([{
        "module": "ganglion.modules.ServerRules",
        "config": { "deny": { "file": "denied.txt" }, "message": "not here" },
    }]);
    behind_synapse(
        &modules,
        |files| replace(files, "# who made trouble\n@eve:*\n"),
        |ganglion, synapse| {
            let (bob, eve) = (synapse.user("bob")?, synapse.user("eve")?);
            synapse.user("dora")?;
            let refused = eve.try_create_room()?;
            assert_eq!(refused.refusal(), (403, "M_FORBIDDEN"));
            assert_eq!(refused.body["error"], "not here");
            let room = bob.create_room()?;
            assert_eq!(eve.try_join(&room)?.refusal(), (403, "M_FORBIDDEN"));
            assert_eq!(invite(synapse, &bob, &room, "eve")?.refusal(), (403, "M_FORBIDDEN"));

            replace(ganglion.files(), "@dora:*\n")?;
            let begun = Instant::now();
            while eve.try_create_room()?.status != 200 {
                ensure!(begun.elapsed() < PATIENCE, "the change of the list has no effect");
            }
            assert_eq!(invite(synapse, &bob, &room, "eve")?.status, 200);
            assert_eq!(eve.try_join(&room)?.status, 200);
            assert_eq!(invite(synapse, &bob, &room, "dora")?.refusal(), (403, "M_FORBIDDEN"));
            Ok(())
        },
    );
}
