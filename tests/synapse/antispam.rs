//! The `modules:` section of `homeserver.yaml` that lets Synapse ask Ganglion.

use serde_json::{Value, json};

/// Options of synapse-http-antispam.
pub(crate) struct Antispam {
    /// Where Ganglion answers.
    pub(crate) base_url: String,
    /// The bearer token that Synapse sends.
    pub(crate) token: &'static str,
    /// What counts as a pass when no answer can be had: a bool a callback.
    pub(crate) fail_open: Value,
}

impl Antispam {
    /// The section. It names the callbacks, because the default set has one that upstream Synapse does not know.
    pub(crate) fn modules(&self) -> Value {
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
