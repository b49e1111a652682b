//! Events: refused, replaced, told of, decorated.

use serde_json::{Value, json};

use super::{WORDS, assert_error, assert_ok, assert_refused};
use crate::sides::on_both;

const RULE: &str = "org.example.rule";

#[test]
fn a_message_is_sent_unless_the_module_takes_it_for_spam() {
    on_both(|stage| {
        let mia = stage.user("mia")?;
        let room = mia.room(&json!({}))?;
        let say = |text: &str| mia.event(&room, "m.room.message", &json!({ "msgtype": "m.text", "body": text }));
        for word in WORDS {
            assert_refused(&say(word)?, word);
        }
        // Before there were codes, a module could word the refusal.
        let reply = say("deny-legacy")?;
        let body = json!({ "errcode": "M_FORBIDDEN", "error": "a text of the module" });
        assert_eq!((reply.status, reply.body), (403, body));
        assert_ok(&say("good morning from mia ✓ \u{1f980} \"quoted\"")?);
        stage.noted("check_event_for_spam", "good morning from mia")?;
        let messages = mia.get(&format!("rooms/{room}/messages?dir=b&limit=1"))?;
        assert_eq!(
            messages.body["chunk"][0]["content"]["body"],
            "good morning from mia ✓ \u{1f980} \"quoted\""
        );
        Ok(())
    });
}

#[test]
fn an_event_is_sent_unless_the_rules_forbid_it() {
    on_both(|stage| {
        let erik = stage.user("erik")?;
        let room = erik.room(&json!({}))?;
        let send = |word: &str| erik.event(&room, RULE, &json!({ "word": word }));
        for word in ["deny", "deny-code-plain", "deny-text", "raise-matrix", "raise-plain"] {
            let reply = send(if word == "deny-code-plain" { "deny-code" } else { word })?;
            match word {
                "deny-code-plain" => {
                    let body = json!({ "errcode": "M_RESOURCE_LIMIT_EXCEEDED", "error": "no room" });
                    assert_eq!((reply.status, reply.body), (403, body));
                }
                _ => assert_refused(&reply, word),
            }
        }
        let sent = send("fine")?;
        assert_ok(&sent);
        let sent = sent.success("event_id")?;
        assert_eq!(
            erik.get(&format!("rooms/{room}/event/{sent}"))?.body["content"],
            json!({ "word": "fine" })
        );
        Ok(())
    });
}

#[test]
fn an_event_is_sent_as_the_rules_replace_it() {
    on_both(|stage| {
        let erna = stage.user("erna")?;
        let room = erna.room(&json!({}))?;
        let sent = erna
            .event(&room, RULE, &json!({ "word": "replace" }))?
            .success("event_id")?;
        let event = erna.get(&format!("rooms/{room}/event/{sent}"))?.body;
        assert_eq!(event["content"], json!({ "word": "replaced", "by": "the module" }));
        assert_eq!(event["sender"], erna.id.as_str());
        // What is no event is the module's fault.
        assert_error(
            &erna.event(&room, RULE, &json!({ "word": "replace-badly" }))?,
            500,
            "M_UNKNOWN",
        );
        Ok(())
    });
}

#[test]
fn the_rules_see_the_state_of_the_room() {
    on_both(|stage| {
        let zita = stage.user("zita")?;
        let room = zita.room(&json!({}))?;
        let try_rule = |content: Value| zita.event(&room, RULE, &content);

        assert_ok(&try_rule(json!({ "word": "by-topic" }))?);
        assert_ok(&zita.state(&room, "m.room.topic", "", &json!({ "topic": "silence" }))?);
        assert_error(&try_rule(json!({ "word": "by-topic" }))?, 403, "M_FORBIDDEN");

        assert_error(&try_rule(json!({ "word": "by-entry" }))?, 403, "M_FORBIDDEN");
        assert_ok(&zita.state(&room, "org.example.entry", "key", &json!({ "open": true }))?);
        assert_ok(&try_rule(json!({ "word": "by-entry" }))?);

        for index in 0..20 {
            assert_ok(&zita.state(&room, "org.example.entry", &format!("n{index}"), &json!({}))?);
        }
        assert_error(
            &try_rule(json!({ "word": "by-count", "count": 20 }))?,
            403,
            "M_FORBIDDEN",
        );
        assert_ok(&try_rule(json!({ "word": "by-count", "count": 21 }))?);
        assert_eq!(stage.noted("state", &zita.id)?[2].as_array().map(Vec::len), Some(21));
        Ok(())
    });
}

#[test]
fn the_module_is_told_of_new_events_and_breaks_nothing_there() {
    on_both(|stage| {
        let nele = stage.user("nele")?;
        let room = nele.room(&json!({}))?;
        assert_ok(&nele.state(&room, "org.example.news", "k", &json!({ "word": "nele-state" }))?);
        stage.noted("on_new_event", "nele-state")?;
        assert_eq!(stage.noted("on_new_event: state", &nele.id)?[1], true);
        for word in ["raise-matrix", "raise-plain"] {
            let word = format!("nele-{word}");
            assert_ok(&nele.event(&room, "org.example.news", &json!({ "word": word }))?);
            stage.noted("on_new_event", &word)?;
        }
        Ok(())
    });
}

#[test]
fn fields_of_the_module_are_in_unsigned_beside_the_homeserver_s_own() {
    on_both(|stage| {
        let uwe = stage.user("uwe")?;
        let room = uwe.room(&json!({}))?;
        let say = |stamp: &str| {
            uwe.event(
                &room,
                "m.room.message",
                &json!({ "msgtype": "m.text", "body": "x", "org.example.stamp": stamp }),
            )?
            .success("event_id")
        };
        let event = say("seen")?;
        let unsigned = uwe.get(&format!("rooms/{room}/event/{event}"))?.body["unsigned"].clone();
        assert_eq!(unsigned["org.example.stamp"], json!({ "of": uwe.id, "says": "seen" }));
        assert!(unsigned["age"].is_number(), "{unsigned}");
        for word in ["raise-matrix", "raise-plain"] {
            let event = say(word)?;
            assert_refused(&uwe.get(&format!("rooms/{room}/event/{event}"))?, word);
        }
        Ok(())
    });
}

#[test]
fn the_module_asks_the_homeserver_while_it_is_asked() {
    on_both(|stage| {
        let (aron, admin) = (stage.user("aron")?, stage.admin()?);
        let rule = |word: &str| json!({ "word": word });
        let (room, other) = (aron.room(&json!({}))?, admin.room(&json!({}))?);
        assert_error(&aron.event(&room, RULE, &rule("by-admin"))?, 403, "M_FORBIDDEN");
        assert_ok(&admin.event(&other, RULE, &rule("by-admin"))?);
        // An error of the homeserver is passed on to the client.
        assert_error(&aron.event(&room, RULE, &rule("by-alias"))?, 404, "M_NOT_FOUND");
        Ok(())
    });
}

#[test]
fn what_the_module_makes_the_homeserver_do_is_asked_about_too() {
    on_both(|stage| {
        let ella = stage.user("ella")?;
        let room = ella.room(&json!({}))?;
        let say = |text: &str| ella.event(&room, "m.room.message", &json!({ "msgtype": "m.text", "body": text }));
        assert_ok(&say("echo hello, says ella")?);
        let messages = ella.get(&format!("rooms/{room}/messages?dir=b&limit=2"))?.body;
        let bodies: Vec<_> = messages["chunk"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|event| event["content"]["body"].clone())
            .collect();
        assert_eq!(bodies, ["echo hello, says ella", "hello, says ella"]);
        let told = stage.notes("check_event_for_spam", &ella.id)?.len();
        assert_eq!(told, 2);
        // The refusal of the echo refuses the message.
        assert_refused(&say("echo deny-text")?, "deny-text");
        Ok(())
    });
}
