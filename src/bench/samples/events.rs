//! Events, the state of rooms, and what comes with them.

use serde_json::{Value, json};

use super::{About, NOW, SERVERS, SPAM, World, remote_server};

/// How large an event may be, with room for its other keys.
const MOST: usize = 60_000;

impl World {
    /// The event that this callback is asked about.
    pub(super) fn event_of(&mut self, callback: &str, about: &About) -> Value {
        if callback == "federated_user_may_invite" {
            return self.invite(about);
        }
        let kind = self.rng.u8(0..100);
        match kind {
            0..35 => self.encrypted(about),
            35..66 => self.message(about),
            66..71 => self.media(about),
            71..85 => self.reaction(about),
            85..88 => self.redaction(about),
            // A spam checker is not asked about local membership changes.
            88..97 if callback != "check_event_for_spam" || !about.user.ends_with(&self.server) => self.member(about),
            88..97 => self.message(about),
            _ => self.topic(about),
        }
    }

    /// An event with the keys that a homeserver has beside its content.
    fn event(&mut self, about: &About, kind: &str, content: &Value) -> Value {
        let ids: Vec<_> = (0..3).map(|_| format!("${}", self.token(43))).collect();
        json!({
            "type": kind, "sender": about.user, "room_id": self.room_id(about.room), "content": content,
            "event_id": ids[0], "room_version": "11", "depth": self.number(1..100_000),
            "origin_server_ts": NOW - self.number(0..100_000),
            "prev_events": [ids[1]], "auth_events": [ids[2]],
            "hashes": {"sha256": self.token(43)},
            "signatures": {self.server.clone(): {"ed25519:a_abcd": self.token(86)}},
            "unsigned": {"age": self.number(1..1000)},
            "internal_metadata": {"stream_ordering": self.number(1..10_000_000)},
        })
    }

    fn state_event(&mut self, about: &About, kind: &str, key: &str, content: &Value) -> Value {
        let mut event = self.event(about, kind, content);
        event["state_key"] = json!(key);
        event
    }

    fn encrypted(&mut self, about: &About) -> Value {
        let length = self.length() * 4 / 3 + 250;
        let content = json!({
            "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": self.token(length), "device_id": self.token(10),
            "sender_key": self.token(43), "session_id": self.token(43),
        });
        self.event(about, "m.room.encrypted", &content)
    }

    fn message(&mut self, about: &About) -> Value {
        let length = self.length();
        let mut body = self.words(length);
        if self.percent(3) {
            let [one, other] = [(); 2].map(|()| SPAM[self.rng.usize(0..SPAM.len())]);
            body = format!("{one}! {body} {other}");
        }
        let mut content = json!({"msgtype": "m.text", "body": body});
        if self.percent(20) {
            content["format"] = json!("org.matrix.custom.html");
            content["formatted_body"] = json!(format!("<p>{body}</p>"));
        }
        if self.percent(15) {
            let id = self.token(43);
            content["m.relates_to"] = json!({"m.in_reply_to": {"event_id": format!("${id}")}});
        }
        self.event(about, "m.room.message", &content)
    }

    fn media(&mut self, about: &About) -> Value {
        let info = json!({"mimetype": "image/jpeg", "size": self.number(10_000..5_000_000), "w": 1920, "h": 1080,
                          "xyz.amorgan.blurhash": self.token(28), "thumbnail_url": self.mxc()});
        let content = json!({"msgtype": "m.image", "body": format!("{}.jpg", self.token(8)), "url": self.mxc(),
                             "info": info});
        self.event(about, "m.room.message", &content)
    }

    fn reaction(&mut self, about: &About) -> Value {
        let relates = json!({"rel_type": "m.annotation", "event_id": format!("${}", self.token(43)), "key": "👍"});
        self.event(about, "m.reaction", &json!({"m.relates_to": relates}))
    }

    fn redaction(&mut self, about: &About) -> Value {
        let redacts = format!("${}", self.token(43));
        self.event(about, "m.room.redaction", &json!({"redacts": redacts}))
    }

    fn member(&mut self, about: &About) -> Value {
        let content = json!({"membership": "join", "displayname": self.words(8), "avatar_url": self.mxc()});
        self.state_event(about, "m.room.member", &about.user, &content)
    }

    fn topic(&mut self, about: &About) -> Value {
        let content = json!({"topic": self.words(60)});
        self.state_event(about, "m.room.topic", "", &content)
    }

    fn invite(&mut self, about: &About) -> Value {
        let user = self.local_user();
        let mut invite = self.state_event(about, "m.room.member", &user, &json!({"membership": "invite"}));
        let stripped = json!([
            {"type": "m.room.name", "state_key": "", "sender": about.user, "content": {"name": self.words(20)}},
            {"type": "m.room.join_rules", "state_key": "", "sender": about.user, "content": {"join_rule": "invite"}},
        ]);
        invite["unsigned"]["invite_room_state"] = stripped;
        invite
    }

    /// How long a text is: mostly a line, sometimes a page, and now and then all that an event may have.
    fn length(&mut self) -> usize {
        match self.rng.u16(0..1000) {
            0..600 => self.rng.usize(4..80),
            600..900 => self.rng.usize(80..400),
            900..985 => self.rng.usize(400..2_000),
            985..999 => self.rng.usize(2_000..12_000),
            _ => self.rng.usize(12_000..MOST / 2),
        }
    }

    /// The state of a room: what rules and a few members need. Whoever asks about a room gets the same.
    pub(super) fn state(&mut self, room: usize) -> Value {
        if let Some(state) = &self.states[room] {
            return state.clone();
        }
        let about = About {
            user: self.local_user(),
            room,
            medium: "email",
            login: 0,
        };
        let levels = json!({"users": {about.user.clone(): 100}, "events_default": 0, "state_default": 50, "ban": 50});
        let state = json!([
            self.state_event(&about, "m.room.create", "", &json!({"room_version": "11"})),
            self.state_event(&about, "m.room.power_levels", "", &levels),
            self.state_event(&about, "m.room.join_rules", "", &json!({"join_rule": "public"})),
            self.state_event(
                &about,
                "m.room.history_visibility",
                "",
                &json!({"history_visibility": "shared"})
            ),
            self.topic(&about),
            self.member(&about),
        ]);
        self.states[room] = Some(state.clone());
        state
    }

    /// Events that another server received.
    pub(super) fn delivery(&mut self, about: &About) -> Value {
        let events: Vec<_> = (0..self.rng.usize(1..4))
            .map(|_| self.event_of("delivery", about))
            .collect();
        let server = self.popular(SERVERS);
        json!({"server_name": remote_server(server), "method": "/send", "events": events})
    }

    /// The presence of a few users.
    pub(super) fn presences(&mut self) -> Value {
        let count = self.rng.usize(1..5);
        let presences = (0..count).map(|_| {
            let state = ["online", "unavailable", "offline"][self.rng.usize(0..3)];
            json!({"user_id": self.any_user(), "state": state, "last_active_ts": NOW - self.number(0..900_000),
                   "last_federation_update_ts": NOW, "last_user_sync_ts": NOW, "status_msg": null,
                   "currently_active": state == "online"})
        });
        Value::Array(presences.collect())
    }

    /// The content of account data or of a state event.
    pub(super) fn small_content(&mut self, about: &About) -> Value {
        json!({"event_id": format!("${}", self.token(43)), "by": about.user})
    }
}
