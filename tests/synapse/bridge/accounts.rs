//! Accounts: made, named, watched, ended.

use serde_json::{Value, json};

use super::{assert_error, assert_ok, assert_refused};
use crate::client::Body;
use crate::sides::{Actor, behind_ganglion, login, on_both};

#[test]
fn an_account_is_made_refused_or_shadow_banned() {
    on_both(|stage| {
        let form = |name: &str| json!({ "username": name, "password": "x" });
        // On purpose this looks as if there had been too many.
        assert_error(&stage.register(&form("refused-rolf"))?, 429, "M_UNKNOWN");
        for word in ["raise-matrix", "raise-plain"] {
            assert_refused(&stage.register(&form(&format!("newcomer-{word}")))?, word);
        }
        assert_ok(&stage.register(&form("shadow-rolf"))?);
        assert_ok(&stage.register(&form("rolf"))?);
        let note = stage.noted("check_registration_for_spam", "\"rolf\"")?;
        assert_eq!(
            (&note[1], &note[2], &note[4]),
            (&Value::Null, &json!("rolf"), &Value::Null)
        );
        assert_eq!(note[3][0][1], "127.0.0.1");

        let admin = stage.admin()?;
        for (name, banned) in [("shadow-rolf", true), ("rolf", false)] {
            let path = format!("/_synapse/admin/v2/users/@{name}:example.com");
            assert_eq!(admin.send("GET", &path, &Body::Nothing)?.body["shadow_banned"], banned);
        }
        Ok(())
    });
}

#[test]
fn an_account_exists_even_if_the_module_fails_when_it_is_told() {
    on_both(|stage| {
        for word in ["raise-matrix", "raise-plain"] {
            let form = json!({ "username": format!("greeted-{word}"), "password": "x" });
            assert_refused(&stage.register(&form)?, word);
            assert_error(&stage.register(&form)?, 400, "M_USER_IN_USE");
        }
        let user = stage.user("greeted")?;
        stage.noted("on_user_registration", &user.id)?;
        Ok(())
    });
}

#[test]
fn a_new_account_gets_the_names_that_the_module_gives() {
    on_both(|stage| {
        let form = json!({
            "username": "wished",
            "password": "x",
            "org.example.username": "Given",
            "org.example.displayname": "The Given",
        });
        let reply = stage.register(&form)?;
        assert_ok(&reply);
        assert_eq!(reply.body["user_id"], "@given:example.com");
        let profile = stage.ask("GET", "/_matrix/client/v3/profile/@given:example.com", &Value::Null)?;
        assert_eq!(profile.body["displayname"], "The Given");
        let note = stage.noted("get_displayname_for_registration", "The Given")?;
        assert_eq!(note[1], json!({ "m.login.dummy": true }));
        assert_eq!(note[2].get("password"), None);

        // Even a Matrix error is a failure of the server here.
        for key in ["org.example.username", "org.example.displayname"] {
            for word in ["raise-matrix", "raise-plain"] {
                let form = json!({ "username": format!("{key}.{word}"), "password": "x", key: word });
                assert_error(&stage.register(&form)?, 500, "M_UNKNOWN");
            }
        }
        Ok(())
    });
}

#[test]
fn an_address_is_used_unless_the_module_objects() {
    on_both(|stage| {
        let ask = |number: &str| {
            let body = json!({
                "client_secret": "s", "country": "GB", "phone_number": number, "send_attempt": 1,
            });
            stage.ask("POST", "/_matrix/client/v3/register/msisdn/requestToken", &body)
        };
        assert_error(&ask("07700900066")?, 403, "M_THREEPID_DENIED");
        assert_error(&ask("07700900013")?, 500, "M_UNKNOWN");
        // This homeserver does not know how to validate one, but that is asked later.
        assert_error(&ask("07700900001")?, 400, "M_UNKNOWN");
        let note = stage.noted("is_3pid_allowed", "447700900001")?;
        assert_eq!((&note[1], &note[3]), (&json!("msisdn"), &json!(true)));
        Ok(())
    });
}

#[test]
fn an_expired_account_is_shut_out() {
    on_both(|stage| {
        let whoami = |user: &Actor<'_>| user.get("account/whoami");
        assert_ok(&whoami(&stage.user("unlimited")?)?);
        assert_ok(&whoami(&stage.user("lasting")?)?);
        let lapsed = stage.user("lapsed")?;
        assert_error(&whoami(&lapsed)?, 403, "ORG_MATRIX_EXPIRED_ACCOUNT");
        for word in ["raise-matrix", "raise-plain"] {
            assert_refused(&whoami(&stage.user(&format!("lapsed-{word}"))?)?, word);
        }
        // One can leave.
        assert_ok(&lapsed.post("logout", &json!({}))?);
        Ok(())
    });
}

#[test]
fn an_account_is_deactivated_unless_the_module_keeps_it() {
    on_both(|stage| {
        let deactivate = |name: &str, user: &Actor<'_>, erase: bool| {
            let auth = login(name, name);
            user.post("account/deactivate", &json!({ "auth": auth, "erase": erase }))
        };
        let keeper = stage.user("keep-dora")?;
        assert_error(&deactivate("keep-dora", &keeper, false)?, 403, "M_FORBIDDEN");
        assert_eq!(stage.noted("check_can_deactivate_user", &keeper.id)?[2], false);
        // What fails here lets pass.
        for word in ["raise-matrix", "raise-plain"] {
            let name = format!("leaves-{word}");
            assert_ok(&deactivate(&name, &stage.user(&name)?, false)?);
        }
        let (dora, dirk) = (stage.user("dora")?, stage.user("dirk")?);
        assert_ok(&deactivate("dora", &dora, false)?);
        assert_eq!(
            stage.noted("on_user_deactivation_status_changed", &dora.id)?,
            json!(["on_user_deactivation_status_changed", dora.id, true, false])
        );
        assert_ok(&deactivate("dirk", &dirk, true)?);
        assert_eq!(
            stage.noted("on_profile_update", &dirk.id)?,
            json!(["on_profile_update", dirk.id, { "display_name": null, "avatar_url": null }, false, true])
        );
        Ok(())
    });
}

#[test]
fn the_module_is_told_of_profiles_and_breaks_nothing_there() {
    on_both(|stage| {
        let (paul, admin) = (stage.user("paul")?, stage.admin()?);
        let path = format!("profile/{}/displayname", paul.id);
        assert_ok(&paul.put(&path, &json!({ "displayname": "Paul P." }))?);
        assert_eq!(
            stage.noted("on_profile_update", "Paul P.")?,
            json!(["on_profile_update", paul.id, { "display_name": "Paul P.", "avatar_url": null }, false, false])
        );
        for word in ["raise-matrix", "raise-plain"] {
            let name = format!("Paul {word}");
            assert_ok(&paul.put(&path, &json!({ "displayname": name }))?);
            stage.noted("on_profile_update", &name)?;
        }
        let body = json!({ "displayname": "Paul by admin" });
        let path = format!("/_synapse/admin/v2/users/{}", paul.id);
        assert_ok(&admin.send("PUT", &path, &Body::Json(&body))?);
        assert_eq!(stage.noted("on_profile_update", "Paul by admin")?[3], true);
        Ok(())
    });
}

#[test]
fn the_module_is_told_of_addresses_that_come_and_go() {
    on_both(|stage| {
        let (otto, admin) = (stage.user("otto")?, stage.admin()?);
        let path = format!("/_synapse/admin/v2/users/{}", otto.id);
        let set = |threepids: Value| admin.send("PUT", &path, &Body::Json(&json!({ "threepids": threepids })));
        assert_ok(&set(json!([{ "medium": "email", "address": "otto@example.org" }]))?);
        for callback in ["on_add_user_third_party_identifier", "on_threepid_bind"] {
            let note = stage.noted(callback, &otto.id)?;
            assert_eq!(note, json!([callback, otto.id, "email", "otto@example.org"]));
        }
        assert_ok(&set(json!([]))?);
        stage.noted("on_remove_user_third_party_identifier", &otto.id)?;
        Ok(())
    });
}

#[test]
fn users_whom_the_module_hides_are_not_found() {
    on_both(|stage| {
        stage.user("wanda-hidden")?;
        stage.user("wanda-shown")?;
        let seeker = stage.user("seeker")?;
        let search = json!({ "search_term": "wanda" });
        stage.wait("wanda in the directory", || {
            let found = seeker.peek_at("user_directory/search", &search)?;
            Ok((found.body["results"] != json!([])).then_some(()))
        })?;
        let found = seeker.post("user_directory/search", &search)?.body;
        assert_eq!(found["results"].as_array().map(Vec::len), Some(1));
        assert_eq!(found["results"][0]["user_id"], "@wanda-shown:example.com");
        let note = stage.noted("check_username_for_spam", "wanda-hidden")?;
        assert_eq!(note[2], seeker.id.as_str());
        for word in ["raise-matrix", "raise-plain"] {
            let seeker = stage.user(&format!("seeker-{word}"))?;
            assert_refused(&seeker.post("user_directory/search", &search)?, word);
        }
        Ok(())
    });
}

#[test]
fn the_module_is_told_of_account_data_and_breaks_nothing_there() {
    on_both(|stage| {
        let anna = stage.user("anna")?;
        let room = anna.room(&json!({}))?;
        let content = json!({ "deep": { "list": [1, "two", null] } });
        assert_ok(&anna.put(&format!("user/{}/account_data/org.example.data", anna.id), &content)?);
        assert_eq!(
            stage.noted("on_account_data_updated", &anna.id)?,
            json!(["on_account_data_updated", anna.id, null, "org.example.data", content])
        );
        let path = format!("user/{}/rooms/{room}/account_data/org.example.anna-room", anna.id);
        assert_ok(&anna.put(&path, &content)?);
        assert_eq!(stage.noted("on_account_data_updated", "anna-room")?[2], room.as_str());
        for word in ["raise-matrix", "raise-plain"] {
            let data = format!("org.example.anna-{word}");
            assert_ok(&anna.put(&format!("user/{}/account_data/{data}", anna.id), &json!({}))?);
            stage.noted("on_account_data_updated", &data)?;
        }
        Ok(())
    });
}

#[test]
fn a_user_sees_the_presence_that_the_module_routes_to_them() {
    on_both(|stage| {
        let (watcher, star, other) = (stage.user("watcher")?, stage.user("star")?, stage.user("notastar")?);
        let since = watcher.peek("sync?timeout=0")?.success("next_batch")?;
        for user in [&other, &star] {
            let path = format!("presence/{}/status", user.id);
            assert_ok(&user.put(&path, &json!({ "presence": "online", "status_msg": "here I am" }))?);
        }
        let seen = stage.wait("presence of the star", || {
            let sync = watcher.peek(&format!("sync?timeout=0&since={since}"))?;
            let events = sync.body["presence"]["events"].as_array().cloned().unwrap_or_default();
            let senders: Vec<_> = events.iter().map(|event| event["sender"].clone()).collect();
            Ok(senders.contains(&json!(star.id)).then_some(senders))
        })?;
        assert!(!seen.contains(&json!(other.id)), "{seen:?}");
        Ok(())
    });
}

#[test]
fn an_account_is_renewed_by_the_module() {
    on_both(|stage| {
        let renew = |token: &str| {
            let path = format!("/_matrix/client/v3/account_validity/renew?token={token}");
            stage.ask("GET", &path, &Value::Null)
        };
        for (token, status) in [("good", 200), ("stale", 200), ("bad", 404)] {
            assert_eq!(renew(token)?.status, status, "{token}");
        }
        let user = stage.user("renata")?;
        assert_ok(&user.post("account_validity/send_mail", &json!({}))?);
        stage.noted("on_legacy_send_mail", &user.id)?;
        let admin = stage.admin()?;
        let ask = |user_id: &str| {
            let body = json!({ "user_id": user_id, "expiration_ts": 41 });
            admin.send(
                "POST",
                "/_synapse/admin/v1/account_validity/validity",
                &Body::Json(&body),
            )
        };
        assert_eq!(ask(&user.id)?.body, json!({ "expiration_ts": 42 }));
        for word in ["raise-matrix", "raise-plain"] {
            assert_refused(&renew(word)?, word);
            assert_refused(&ask(word)?, word);
            let user = stage.user(&format!("renata-{word}"))?;
            assert_refused(&user.post("account_validity/send_mail", &json!({}))?, word);
        }
        Ok(())
    });
}

#[test]
fn a_user_who_sees_everybody_syncs_even_if_nobody_is_routed_to_them() {
    behind_ganglion(|stage| {
        let omniscient = stage.user("omniscient")?;
        let path = format!("presence/{}/status", omniscient.id);
        assert_ok(&omniscient.put(&path, &json!({ "presence": "online" }))?);
        assert_ok(&omniscient.peek("sync?timeout=0")?);
        Ok(())
    });
}
