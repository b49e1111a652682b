//! `ganglion.modules.RegistrationGuard`.

use anyhow::Context;
use serde_json::{Value, json};

use super::behind_synapse;
use crate::client::{Body, Reply};
use crate::homeserver::Homeserver;

fn register(synapse: &Homeserver, name: &str) -> anyhow::Result<Reply> {
    let form = json!({ "username": name, "password": "x", "auth": { "type": "m.login.dummy" } });
    synapse
        .client()
        .ask("POST", "/_matrix/client/v3/register", None, &Body::Json(&form))
}

/// What an administrator sees of an account.
fn account(synapse: &Homeserver, name: &str) -> anyhow::Result<Value> {
    let login = json!({
        "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "admin" }, "password": "admin",
    });
    let client = synapse.client();
    let login = client.ask("POST", "/_matrix/client/v3/login", None, &Body::Json(&login))?;
    let token = login
        .success("access_token")
        .context("the administrator cannot log in")?;
    let path = format!("/_synapse/admin/v2/users/@{name}:example.com");
    Ok(client.ask("GET", &path, Some(&token), &Body::Nothing)?.body)
}

#[test]
fn a_registration_is_refused_banned_in_secret_or_counted() {
    let modules = json!([{
        "module": "ganglion.modules.RegistrationGuard",
        "config": {
            "rules": [
                { "names": ["admin", "friend*"], "then": "allow" },
                { "names": ["/^spam[0-9]+$/"], "addresses": ["127.0.0.0/8"], "then": "deny" },
                { "names": ["*casino*"], "then": "shadow_ban" },
            ],
            "rate": { "registrations": 2, "per": "1h", "then": "deny" },
        },
    }]);
    behind_synapse(
        &modules,
        |_| Ok(()),
        |_, synapse| {
            synapse.register_admin()?;
            // On purpose this looks as if there had been too many.
            assert_eq!(register(synapse, "spam24")?.refusal(), (429, "M_UNKNOWN"));
            assert_eq!(register(synapse, "bestcasino")?.status, 200);
            assert_eq!(account(synapse, "bestcasino")?["shadow_banned"], true);
            for (name, status) in [("ann", 200), ("bob", 200), ("carl", 429), ("friend", 200)] {
                assert_eq!(register(synapse, name)?.status, status, "{name}");
            }
            assert_eq!(account(synapse, "ann")?["shadow_banned"], false);
            Ok(())
        },
    );
}
