//! Synapse, the bridge, a Ganglion that asks another one in the antispam protocol, and what a client sees of all that.

use std::fs;

use serde_json::json;

use super::behind_synapse;
use crate::ganglion::{Ganglion, TOKEN};

#[test]
fn another_ganglion_decides_and_when_it_is_gone_fail_open_and_the_policy_do() {
    let mut other = Ganglion::start().unwrap_or_else(|error| panic!("{error:?}"));
    let modules = json!([{
        "module": "ganglion.modules.HttpAntispam",
        "call_timeout": "30s",
        "config": {
            "base_url": other.antispam_url(),
            "authorization_path": "antispam-token",
            "fail_open": { "check_event_for_spam": true },
        },
    }]);
    behind_synapse(
        &modules,
        |files| Ok(fs::write(files.join("antispam-token"), format!("{TOKEN}\n"))?),
        |ganglion, synapse| {
            ganglion.wait_for_lines("the antispam server answered a ping", 1)?;
            let (alice, bob) = (synapse.user("alice")?, synapse.user("bob")?);
            assert_eq!(synapse.user("evil")?.try_create_room()?.refusal(), (403, "M_FORBIDDEN"));
            let room = alice.create_room()?;
            assert_eq!(bob.try_join(&room)?.status, 200);
            assert_eq!(bob.try_send(&room, "buy Viagra now")?.refusal(), (403, "M_FORBIDDEN"));
            assert_eq!(bob.try_send(&room, "good morning")?.status, 200);

            other.stop()?;
            assert_eq!(bob.try_send(&room, "buy viagra now")?.status, 200);
            assert_eq!(bob.messages(&room)?, ["buy viagra now", "good morning"]);
            // Nothing is said about rooms, so it is a failure, and as in Synapse nobody gets past one.
            assert_eq!(alice.try_create_room()?.refusal(), (500, "M_UNKNOWN"));
            ganglion.wait_for_lines("the antispam server does not answer", 1)
        },
    );
}
