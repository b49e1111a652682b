//! Ten thousand questions at once.

use anyhow::Context;
use serde_json::json;

use crate::client::Body;
use crate::ganglion::Wired;
use crate::homeserver::Homeserver;

#[test]
fn ten_thousand_events_at_once_are_ten_thousand_decisions_each_the_right_one() {
    let run = || {
        let mut ganglion = Wired::absent()?;
        let keywords = json!({ "keywords": ["viagra"] });
        let modules = json!([{ "module": "ganglion.modules.KeywordFilter", "config": keywords }]);
        // The other tests have the socket.
        let config = ganglion.serve_over_tcp(&modules)?;
        let synapse = Homeserver::start(&json!([
            { "module": "ganglion_synapse.Bridge", "config": config },
            { "module": "burst.Burst" },
        ]))?;
        let reply = synapse
            .client()
            .ask("GET", "/burst?count=10000", None, &Body::Nothing)?;
        assert_eq!(reply.body, json!({ "ham pass": 5000, "spam deny": 5000 }), "{reply:?}");
        let snapshot = ganglion.snapshot("ganglion.modules.KeywordFilter")?;
        assert_eq!(snapshot["calls"], 10_000, "{snapshot}");
        assert_eq!((&snapshot["failures"], &snapshot["shed"]), (&json!({}), &json!(0)));
        anyhow::Ok(())
    };
    if let Err(error) = run().context("the scenario broke off") {
        panic!("{error:?}");
    }
}
