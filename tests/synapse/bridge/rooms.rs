//! Rooms: creating, inviting, joining, naming and publishing them.

use serde_json::json;

use super::{WORDS, assert_error, assert_ok, assert_refused};
use crate::client::Body;
use crate::sides::{behind_ganglion, on_both};

#[test]
fn a_room_is_created_unless_the_module_objects() {
    on_both(|stage| {
        let carla = stage.user("carla")?;
        for word in WORDS {
            let reply = carla.post("createRoom", &json!({ "name": word }))?;
            assert_refused(&reply, word);
        }
        let room = carla.room(&json!({ "name": "a fine room", "preset": "public_chat" }))?;
        assert_eq!(
            carla.get(&format!("rooms/{room}/state/m.room.name"))?.body["name"],
            "a fine room"
        );
        stage.noted("user_may_create_room", &carla.id)?;
        Ok(())
    });
}

#[test]
fn the_request_for_a_room_is_edited_or_denied_by_the_module() {
    on_both(|stage| {
        let edda = stage.user("edda")?;
        let room = edda.room(&json!({ "name": "first", "topic": "rename", "org.example.kept": [1, null] }))?;
        assert_eq!(
            edda.get(&format!("rooms/{room}/state/m.room.name"))?.body,
            json!({ "name": "renamed" })
        );
        assert_error(
            &edda.get(&format!("rooms/{room}/state/m.room.topic"))?,
            404,
            "M_NOT_FOUND",
        );
        let note = stage.noted("on_create_room", &edda.id)?;
        assert_eq!((&note[1]["user_id"], &note[3]), (&json!(edda.id), &json!(false)));
        // What the module left is what the next callback is asked about.
        let note = stage.noted("user_may_create_room", &edda.id)?;
        assert_eq!(note[2], json!({ "name": "renamed", "org.example.kept": [1, null] }));

        for word in ["deny-text", "raise-matrix"] {
            assert_refused(&edda.post("createRoom", &json!({ "topic": word }))?, word);
        }
        // Here an exception is a denial.
        assert_error(
            &edda.post("createRoom", &json!({ "topic": "raise-plain" }))?,
            403,
            "M_UNKNOWN",
        );
        Ok(())
    });
}

#[test]
fn an_administrator_s_room_and_an_upgraded_one_are_asked_about_as_synapse_does() {
    on_both(|stage| {
        let (ulla, admin) = (stage.user("ulla")?, stage.admin()?);
        admin.room(&json!({ "name": "deny, but for the administrator", "topic": "of ulla" }))?;
        assert_eq!(stage.noted("on_create_room", "of ulla")?[3], true);
        assert!(stage.notes("user_may_create_room", "for the administrator")?.is_empty());

        let room = ulla.room(&json!({ "name": "old", "room_version": "10", "topic": "before" }))?;
        assert_ok(&ulla.post(&format!("rooms/{room}/upgrade"), &json!({ "new_version": "11" }))?);
        let note = stage.noted("user_may_create_room", "predecessor")?;
        assert_eq!(note[2]["creation_content"]["room_version"], "11");
        assert!(stage.notes("on_create_room", "predecessor")?.is_empty());
        Ok(())
    });
}

#[test]
fn an_invite_is_sent_unless_the_module_objects() {
    on_both(|stage| {
        let (host, guest) = (stage.user("hasty-ines")?, stage.user("ingo")?);
        let room = host.room(&json!({}))?;
        for word in WORDS {
            let invitee = format!("@{word}-ines:example.com");
            let reply = host.post(&format!("rooms/{room}/invite"), &json!({ "user_id": invitee }))?;
            assert_refused(&reply, word);
        }
        assert_ok(&host.post(&format!("rooms/{room}/invite"), &json!({ "user_id": guest.id }))?);
        stage.noted("user_may_invite", &guest.id)?;
        assert_ok(&guest.post(&format!("join/{room}"), &json!({}))?);
        assert_eq!(stage.noted("user_may_join_room", &guest.id)?[3], true);
        Ok(())
    });
}

#[test]
fn a_user_joins_unless_the_module_objects() {
    on_both(|stage| {
        let room = stage.user("joachim")?.room(&json!({ "preset": "public_chat" }))?;
        for word in WORDS {
            let joiner = stage.user(&format!("joins-{word}"))?;
            assert_refused(&joiner.post(&format!("join/{room}"), &json!({}))?, word);
        }
        let joiner = stage.user("joins")?;
        assert_ok(&joiner.post(&format!("join/{room}"), &json!({}))?);
        assert_eq!(stage.noted("user_may_join_room", &joiner.id)?[3], false);
        Ok(())
    });
}

#[test]
fn an_address_is_not_invited_if_one_of_two_callbacks_objects() {
    on_both(|stage| {
        let host = stage.user("thea")?;
        let room = host.room(&json!({}))?;
        // Nobody answers there: Synapse takes the address for unknown, and asks the module.
        let invite = |room: &str, address: &str| {
            let id_server = "127.0.0.1:1";
            let (path, token) = (format!("rooms/{room}/invite"), "x");
            host.post(
                &path,
                &json!({ "id_server": id_server, "id_access_token": token, "medium": "email", "address": address }),
            )
        };
        assert_error(&invite(&room, "blocked-thea@example.org")?, 403, "M_FORBIDDEN");
        assert!(stage.notes("user_may_send_3pid_invite", "blocked-thea")?.is_empty());
        for word in ["deny", "deny-code", "deny-text", "deny-own"] {
            assert_refused(&invite(&room, &format!("{word}-thea@example.org"))?, word);
        }
        // The first callback's errors are skipped, the second's are not.
        for word in ["raise-matrix", "raise-plain"] {
            assert_refused(&invite(&room, &format!("{word}-thea@example.org"))?, word);
        }
        let note = stage.noted("user_may_send_3pid_invite", "raise-plain-thea")?;
        assert_eq!(note[2], "email");
        // Nobody objects, and only now is the identity server missed.
        let missed = invite(&room, "welcome-thea@example.org")?;
        assert_error(&missed, 403, "M_UNKNOWN");
        assert_eq!(missed.body["error"], "IP address blocked");
        // The first callback sees the room's state.
        let closed = host.room(&json!({ "topic": "members only" }))?;
        assert_error(&invite(&closed, "welcome-thea@example.org")?, 403, "M_FORBIDDEN");
        Ok(())
    });
}

#[test]
fn an_alias_is_made_unless_the_module_objects() {
    on_both(|stage| {
        let alma = stage.user("alma")?;
        let room = alma.room(&json!({}))?;
        let name = |alias: &str| {
            alma.put(
                &format!("directory/room/%23{alias}%3Aexample.com"),
                &json!({ "room_id": room }),
            )
        };
        for word in WORDS {
            assert_refused(&name(&format!("{word}-alley"))?, word);
        }
        assert_ok(&name("almas-alley")?);
        assert_eq!(
            stage.noted("user_may_create_room_alias", "almas")?[2],
            "#almas-alley:example.com"
        );
        let reply = alma.post("createRoom", &json!({ "room_alias_name": "deny-text-avenue" }))?;
        assert_refused(&reply, "deny-text");
        Ok(())
    });
}

#[test]
fn a_room_is_published_unless_the_module_objects() {
    on_both(|stage| {
        for word in WORDS {
            let user = stage.user(&format!("prints-{word}"))?;
            let room = user.room(&json!({}))?;
            let path = format!("directory/list/room/{room}");
            assert_refused(&user.put(&path, &json!({ "visibility": "public" }))?, word);
        }
        let user = stage.user("prints")?;
        let (open, secret) = (user.room(&json!({}))?, user.room(&json!({ "topic": "secret" }))?);
        let publish = |room: &str, visibility: &str| {
            user.put(
                &format!("directory/list/room/{room}"),
                &json!({ "visibility": visibility }),
            )
        };
        assert_ok(&publish(&open, "public")?);
        stage.noted("user_may_publish_room", &user.id)?;
        assert_error(&publish(&secret, "public")?, 403, "M_UNKNOWN");
        let told = stage.notes("check_visibility_can_be_modified", &secret)?;
        let told: Vec<_> = told.iter().map(|note| note[2].clone()).collect();
        assert_eq!(told, ["private", "public"]);
        // What fails here lets pass.
        for word in ["raise-matrix", "raise-plain"] {
            let room = user.room(&json!({}))?;
            assert_ok(&user.state(&room, "m.room.topic", "", &json!({ "topic": word }))?);
            assert_ok(&publish(&room, "public")?);
        }
        // The way back is not asked about.
        assert_ok(&publish(&secret, "private")?);
        let listed = user.get(&format!("directory/list/room/{open}"))?;
        assert_eq!(listed.body["visibility"], "public");
        Ok(())
    });
}

#[test]
fn a_state_event_is_sent_unless_the_module_objects() {
    on_both(|stage| {
        let stefan = stage.user("stefan")?;
        let room = stefan.room(&json!({}))?;
        let send = |word: &str| stefan.state(&room, "org.example.state", "a%20key", &json!({ "word": word, "n": 15 }));
        for word in WORDS.into_iter().filter(|word| *word != "deny-fields") {
            assert_refused(&send(word)?, word);
        }
        assert_ok(&send("fine")?);
        let note = stage.noted("user_may_send_state_event", "\"fine\"")?;
        assert_eq!(note[5], json!({ "word": "fine", "n": 15 }));
        Ok(())
    });
}

#[test]
fn invites_are_limited_at_the_rate_that_the_module_gives() {
    on_both(|stage| {
        for (name, allowed) in [("hasty-rita", 6), ("slow-rita", 2), ("rita", 4)] {
            let host = stage.user(name)?;
            let room = host.room(&json!({}))?;
            let invite = |index: usize| {
                let user_id = format!("@guest{index}-of-{name}:example.com");
                host.post(&format!("rooms/{room}/invite"), &json!({ "user_id": user_id }))
            };
            for index in 0..allowed {
                assert_ok(&invite(index)?);
            }
            if allowed < 6 {
                assert_error(&invite(allowed)?, 429, "M_LIMIT_EXCEEDED");
            }
        }
        Ok(())
    });
}

#[test]
fn a_room_is_shut_down_unless_the_module_keeps_it() {
    on_both(|stage| {
        let (user, admin) = (stage.user("sonja")?, stage.admin()?);
        let (kept, other) = (user.room(&json!({}))?, user.room(&json!({}))?);
        assert_ok(&user.event(&kept, "org.example.keep", &json!({ "word": "sonja" }))?);
        stage.noted("on_new_event", "\"sonja\"")?;
        let delete = |room: &str| {
            let body = json!({ "purge": true });
            admin.send(
                "DELETE",
                &format!("/_synapse/admin/v1/rooms/{room}"),
                &Body::Json(&body),
            )
        };
        assert_error(&delete(&kept)?, 403, "M_FORBIDDEN");
        assert_eq!(stage.noted("check_can_shutdown_room", &kept)?[1], admin.id);
        assert_ok(&delete(&other)?);
        Ok(())
    });
}

#[test]
fn a_denial_with_reserved_fields_is_answered_without_them() {
    behind_ganglion(|stage| {
        let reply = stage
            .user("rosa")?
            .post("createRoom", &json!({ "name": "deny-reserved" }))?;
        assert_error(&reply, 403, "M_FORBIDDEN");
        let fields: Vec<_> = reply
            .body
            .as_object()
            .into_iter()
            .flat_map(|body| body.keys())
            .collect();
        assert_eq!(fields, ["errcode", "error", "org.example.sent"]);
        Ok(())
    });
}

#[test]
fn a_rate_of_zero_is_no_limit() {
    behind_ganglion(|stage| {
        let host = stage.user("boundless-bea")?;
        let room = host.room(&json!({}))?;
        for index in 0..6 {
            let guest = json!({ "user_id": format!("@guest{index}-of-bea:example.com") });
            assert_ok(&host.post(&format!("rooms/{room}/invite"), &guest)?);
        }
        Ok(())
    });
}
