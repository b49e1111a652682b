//! The modules that ship, asked by a real Synapse through the bridge.

mod account_expiry;
#[cfg(feature = "http-client")]
mod department_lookup;
#[cfg(feature = "http-client")]
mod http_antispam;
mod media_guard;
mod registration_guard;
mod server_rules;

use anyhow::Context;
use serde_json::{Value, json};

use crate::ganglion::Wired;
use crate::homeserver::Homeserver;

/// Starts a Ganglion with these modules and a Synapse with the bridge to it, and plays a scenario. `files` puts what the
/// modules read into the directory of Ganglion's config.
fn behind_synapse(
    modules: &Value,
    files: impl FnOnce(&std::path::Path) -> anyhow::Result<()>,
    scenario: impl FnOnce(&Wired, &Homeserver) -> anyhow::Result<()>,
) {
    let run = || {
        let mut ganglion = Wired::absent()?;
        files(ganglion.files())?;
        ganglion.serve(modules)?;
        let bridge = json!([{ "module": "ganglion_synapse.Bridge", "config": { "socket": ganglion.socket() } }]);
        let synapse = Homeserver::start(&bridge)?;
        // An error has to become a panic while both are there: only then do they show what they printed.
        if let Err(error) = scenario(&ganglion, &synapse).context("the scenario broke off") {
            panic!("{error:?}");
        }
        anyhow::Ok(())
    };
    if let Err(error) = run() {
        panic!("{error:?}");
    }
}

#[test]
fn the_demo_module_denies_rooms_and_the_keyword_filter_messages() {
    let modules = json!([
        { "module": "demo.DemoModule", "config": { "deny_user": "@eve:example.com" } },
        { "module": "ganglion.modules.KeywordFilter", "config": { "keywords": ["Viagra"] } },
    ]);
    let no_files = |_: &std::path::Path| Ok(());
    behind_synapse(&modules, no_files, |_, synapse| {
        let reply = synapse.user("eve")?.try_create_room()?;
        assert_eq!(reply.refusal(), (403, "M_FORBIDDEN"));
        let bob = synapse.user("bob")?;
        let room = bob.create_room()?;
        assert_eq!(bob.try_send(&room, "cheap viagra")?.refusal(), (403, "M_FORBIDDEN"));
        assert_eq!(bob.try_send(&room, "cheap tea")?.status, 200);
        Ok(())
    });
}
