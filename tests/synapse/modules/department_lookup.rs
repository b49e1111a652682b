//! A department is asked for once, until its user is deactivated at a real Synapse.

use anyhow::{Context, ensure};
use serde_json::json;

use super::behind_synapse;
use crate::client::Body;
use crate::service::{Does, Service};
use crate::sides::login;

#[test]
fn a_department_is_cached_until_its_user_is_deactivated() {
    let people = Service::start(|_| Does::json(200, &json!({ "department": "Research" })));
    let people = people.unwrap_or_else(|error| panic!("{error:?}"));
    let modules = json!([{
        "module": "ganglion.modules.DepartmentLookup",
        "call_timeout": "30s",
        "config": { "url": people.url("/people"), "token": "s3cret" },
    }]);
    behind_synapse(
        &modules,
        |_| Ok(()),
        |ganglion, synapse| {
            let public = ganglion.http()?;
            let look_up = || {
                let path = "/_synapse/client/department?user_id=@dora:example.com";
                let reply = public.ask("GET", path, None, &Body::Nothing)?;
                ensure!(reply.success("department")? == "Research", "another department");
                anyhow::Ok(people.asked().len())
            };
            let dora = synapse.user("dora")?;
            assert_eq!((look_up()?, look_up()?), (1, 1));

            let leave = json!({ "auth": login("dora", "dora") });
            let path = "/_matrix/client/v3/account/deactivate";
            let reply = synapse
                .client()
                .ask("POST", path, Some(dora.token()), &Body::Json(&leave))?;
            assert_eq!(reply.status, 200, "{reply:?}");
            // Synapse waits for what it tells modules, so it is forgotten by now.
            assert_eq!(look_up().context("after the deactivation")?, 2);
            assert_eq!(look_up()?, 2);
            Ok(())
        },
    );
}
