//! Logins by passwords and codes that the module knows, and what it says about them.

use serde_json::{Value, json};

use super::{WORDS, assert_error, assert_ok, assert_refused};
use crate::client::Reply;
use crate::sides::{Stage, login, on_both};

fn log_in(stage: &Stage, form: &Value) -> anyhow::Result<Reply> {
    stage.ask("POST", "/_matrix/client/v3/login", form)
}

#[test]
fn the_login_types_of_the_module_are_offered() {
    on_both(|stage| {
        let flows = stage.ask("GET", "/_matrix/client/v3/login", &Value::Null)?.body["flows"].clone();
        let flows = flows.as_array().cloned().unwrap_or_default();
        assert!(flows.contains(&json!({ "type": "org.example.code" })), "{flows:?}");
        assert!(flows.contains(&json!({ "type": "m.login.password" })), "{flows:?}");
        Ok(())
    });
}

#[test]
fn a_password_that_the_module_knows_is_enough() {
    on_both(|stage| {
        let lena = stage.user("lena")?;
        let reply = log_in(stage, &login("lena", "module says yes"))?;
        assert_ok(&reply);
        assert_eq!(reply.body["user_id"], lena.id.as_str());
        let note = stage.noted("check_password", "\"lena\"")?;
        assert_eq!(
            note,
            json!(["check_password", "lena", "m.login.password", ["password"]])
        );
        stage.noted("on_user_login", &lena.id)?;
        // Synapse's own password goes on to work, and another does not.
        assert_ok(&log_in(stage, &login("lena", "lena"))?);
        assert_error(&log_in(stage, &login("lena", "wrong"))?, 403, "M_FORBIDDEN");
        // A checker that fails is skipped.
        for word in ["raise-matrix", "raise-plain"] {
            let reply = log_in(stage, &login("lena", &format!("module {word}")))?;
            assert_error(&reply, 403, "M_FORBIDDEN");
        }
        assert_error(&log_in(stage, &login("lena", "module says nobody"))?, 404, "M_UNKNOWN");
        Ok(())
    });
}

#[test]
fn the_module_adds_to_the_response_of_a_login_or_refuses_it_late() {
    on_both(|stage| {
        let luca = stage.user("luca")?;
        let reply = log_in(stage, &login("luca", "module greet"))?;
        assert_ok(&reply);
        assert_eq!(reply.body["org.example.greeting"], "hello @luca:example.com");
        assert!(reply.body["access_token"].is_string(), "{reply:?}");
        let reply = log_in(stage, &login("luca", "module trip"))?;
        let body = json!({
            "errcode": "ORG.EXAMPLE.CLOSED", "error": "the door is closed", "org.example.user": luca.id,
        });
        assert_eq!((reply.status, reply.body), (403, body));
        Ok(())
    });
}

#[test]
fn a_login_type_of_the_module_is_checked_by_it() {
    on_both(|stage| {
        let lars = stage.user("lars")?;
        let form = |code: &str| {
            json!({
                "type": "org.example.code",
                "identifier": { "type": "m.id.user", "user": "lars" },
                "code": code,
                "hint": { "any": ["json"] },
                "more": "not declared",
            })
        };
        let reply = log_in(stage, &form("123"))?;
        assert_ok(&reply);
        assert_eq!(reply.body["user_id"], lars.id.as_str());
        let note = stage.noted("check_code", "\"lars\"")?;
        assert_eq!(note[3], json!({ "code": "123", "hint": { "any": ["json"] } }));
        for code in ["124", "raise-matrix", "raise-plain"] {
            assert_error(&log_in(stage, &form(code))?, 403, "M_FORBIDDEN");
        }
        let mut incomplete = form("123");
        incomplete.as_object_mut().map(|form| form.remove("hint"));
        assert_error(&log_in(stage, &incomplete)?, 400, "M_UNKNOWN");
        Ok(())
    });
}

#[test]
fn a_user_confirms_who_they_are_to_the_module() {
    on_both(|stage| {
        let lukas = stage.user("lukas")?;
        let delete = |password: &str| {
            lukas.post(
                "delete_devices",
                &json!({ "devices": ["NODEVICE"], "auth": login("lukas", password) }),
            )
        };
        assert_error(&delete("wrong")?, 401, "M_FORBIDDEN");
        // What a login would run is not run here.
        assert_ok(&delete("module trip")?);
        Ok(())
    });
}

#[test]
fn an_address_and_a_password_that_the_module_knows_are_enough() {
    on_both(|stage| {
        stage.user("lola")?;
        let form = |password: &str| {
            json!({
                "type": "m.login.password",
                "identifier": { "type": "m.id.thirdparty", "medium": "email", "address": "Lola@Example.org" },
                "password": password,
            })
        };
        let reply = log_in(stage, &form("module says yes"))?;
        assert_ok(&reply);
        assert_eq!(reply.body["user_id"], "@lola:example.com");
        assert_eq!(
            stage.noted("check_3pid_auth", "lola")?,
            json!(["check_3pid_auth", "email", "lola@example.org"])
        );
        let reply = log_in(stage, &form("module greet"))?;
        assert_eq!(reply.body["org.example.greeting"], "hello @lola:example.com");
        for password in ["wrong", "module raise-matrix", "module raise-plain"] {
            assert_error(&log_in(stage, &form(password))?, 403, "M_FORBIDDEN");
        }
        Ok(())
    });
}

#[test]
fn a_login_is_let_through_unless_the_module_objects() {
    on_both(|stage| {
        let liam = stage.user("liam")?;
        let form = |device: &str| {
            let mut form = login("liam", "liam");
            form["initial_device_display_name"] = json!(device);
            form
        };
        for word in WORDS {
            assert_refused(&log_in(stage, &form(word))?, word);
        }
        assert_ok(&log_in(stage, &form("a fine device"))?);
        let note = stage.noted("check_login_for_spam", "a fine device")?;
        assert_eq!((&note[1], &note[2]), (&json!(liam.id), &Value::Null));
        assert_eq!(note[4][0][1], "127.0.0.1");
        Ok(())
    });
}

#[test]
fn a_login_fails_if_the_module_fails_when_it_is_told() {
    on_both(|stage| {
        for word in ["raise-matrix", "raise-plain"] {
            let name = format!("welcomed-{word}");
            stage.user(&name)?;
            assert_refused(&log_in(stage, &login(&name, &name))?, word);
        }
        let user = stage.user("welcomed")?;
        assert_ok(&log_in(stage, &login("welcomed", "welcomed"))?);
        assert_eq!(stage.noted("on_user_login", &user.id)?[2], "m.login.password");
        Ok(())
    });
}

#[test]
fn the_module_is_told_of_logouts_and_breaks_nothing_there() {
    on_both(|stage| {
        for name in ["leaver", "leaver-raise-matrix", "leaver-raise-plain"] {
            let user = stage.user(name)?;
            assert_ok(&user.post("logout", &json!({}))?);
            let note = stage.noted("on_logged_out", &user.id)?;
            assert!(note[2].is_string() && note[3].is_string(), "{note}");
            assert_error(&user.get("account/whoami")?, 401, "M_UNKNOWN_TOKEN");
        }
        Ok(())
    });
}
