//! Args as a homeserver sends them, made up from a seed.
//!
//! The world is small enough that users and rooms come again, as they do: a few of them are in most questions. An arg is
//! made by its name, so a callback that is new needs nothing here unless it brings a new kind of arg.

mod events;
mod requests;

use fastrand::Rng;
use ganglion_api::{CallbackSpec, JsonObject, LoginType};
use serde_json::{Value, json};

/// How many there are of each.
const LOCAL_USERS: usize = 2_000;
const REMOTE_USERS: usize = 8_000;
const ROOMS: usize = 500;
const SERVERS: usize = 60;

/// When the made-up questions are asked, milliseconds since the Unix epoch: the same in every run.
const NOW: i64 = 1_767_225_600_000;

/// Share of the events of a busy server that come from other servers, in percent.
const FEDERATED: u8 = 70;

const WORDS: [&str; 64] = [
    "the",
    "a",
    "and",
    "to",
    "of",
    "it",
    "is",
    "in",
    "that",
    "for",
    "you",
    "on",
    "with",
    "this",
    "not",
    "but",
    "we",
    "can",
    "so",
    "if",
    "what",
    "just",
    "like",
    "when",
    "there",
    "room",
    "server",
    "think",
    "about",
    "would",
    "really",
    "yes",
    "no",
    "maybe",
    "thanks",
    "hello",
    "tomorrow",
    "meeting",
    "update",
    "release",
    "version",
    "bug",
    "fixed",
    "again",
    "works",
    "here",
    "https://example.org/a/long/path?with=query",
    "grüße",
    "привет",
    "你好",
    "👍",
    "today",
    "please",
    "look",
    "second",
    "issue",
    "event",
    "message",
    "homeserver",
    "bridge",
    "client",
    "element",
    "sync",
    "key",
];

/// What spam says. Of a hundred messages three say two of these, so that filters have something to find.
const SPAM: [&str; 6] = [
    "viagra",
    "casino",
    "free bitcoin",
    "crypto giveaway",
    "click here to win",
    "cheap pills",
];

/// A made-up homeserver and what happens on it.
pub(super) struct World {
    rng: Rng,
    server: String,
    /// The login types that a module declared, with their fields: other logins are no question for it.
    logins: Vec<LoginType>,
    /// The state of each room, made when it is needed first.
    states: Vec<Option<Value>>,
}

impl World {
    /// A world of this homeserver, fixed by the seed.
    pub(super) fn new(server: &str, logins: Vec<LoginType>, seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            server: server.to_owned(),
            logins,
            states: vec![None; ROOMS],
        }
    }

    /// The args of one question.
    pub(super) fn args(&mut self, spec: &CallbackSpec) -> Value {
        let about = About::of(spec, self);
        let mut args = JsonObject::new();
        for arg in spec.args {
            if let Some(value) = self.arg(spec.name, arg.name, &about) {
                args.insert(arg.name.to_owned(), value);
            }
        }
        Value::Object(args)
    }

    /// One arg; `None` for a name that nobody here knows.
    fn arg(&mut self, callback: &str, name: &str, about: &About) -> Option<Value> {
        let value = match name {
            "event" => self.event_of(callback, about),
            "state_events" => self.state(about.room),
            "delivery" => self.delivery(about),
            "state_updates" => self.presences(),
            "room_id" if callback == "on_account_data_updated" && self.percent(50) => Value::Null,
            "room" | "room_id" => json!(self.room_id(about.room)),
            "user" if callback == "accept_make_join" => json!(self.remote_user()),
            "user" | "user_id" | "inviter" | "requester_id" => json!(about.user),
            "invitee" => json!(self.any_user()),
            "content" => self.small_content(about),
            _ => return self.of_request(name, about).or_else(|| self.of_account(name, about)),
        };
        Some(value)
    }

    /// Whether it happens, in this share of all cases.
    fn percent(&mut self, share: u8) -> bool {
        self.rng.u8(0..100) < share
    }

    /// One of so many, the first ones much more often than the last.
    fn popular(&mut self, count: usize) -> usize {
        let uniform = self.rng.f64();
        ((uniform * uniform * uniform * count as f64) as usize).min(count - 1)
    }

    fn number(&mut self, range: std::ops::Range<i64>) -> i64 {
        self.rng.i64(range)
    }

    fn token(&mut self, length: usize) -> String {
        (0..length).map(|_| self.rng.alphanumeric()).collect()
    }

    fn local_user(&mut self) -> String {
        let user = self.popular(LOCAL_USERS);
        format!("@user{user}:{}", self.server)
    }

    fn remote_user(&mut self) -> String {
        let (user, server) = (self.popular(REMOTE_USERS), self.popular(SERVERS));
        format!("@guest{user}:{}", remote_server(server))
    }

    fn any_user(&mut self) -> String {
        if self.percent(FEDERATED) {
            self.remote_user()
        } else {
            self.local_user()
        }
    }

    fn room_id(&self, room: usize) -> String {
        format!("!room{room}:{}", self.server)
    }

    fn email(&mut self) -> String {
        let user = self.popular(LOCAL_USERS);
        format!("user{user}@mail{}.example", user % 7)
    }

    fn mxc(&mut self) -> String {
        let server = self.popular(SERVERS);
        format!("mxc://{}/{}", remote_server(server), self.token(24))
    }

    /// Some words, of this length or little more.
    fn words(&mut self, length: usize) -> String {
        let mut text = String::with_capacity(length + 16);
        while text.len() < length {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(WORDS[self.rng.usize(0..WORDS.len())]);
        }
        text
    }
}

/// What the args of one question have in common.
struct About {
    /// Who acts.
    user: String,
    /// Where.
    room: usize,
    /// `email` or `msisdn`.
    medium: &'static str,
    /// Which of the declared login types.
    login: usize,
}

impl About {
    fn of(spec: &CallbackSpec, world: &mut World) -> Self {
        let remote = match spec.name {
            // Of events of other servers only.
            "should_drop_federated_event" | "federated_user_may_invite" => true,
            "check_event_for_spam" | "on_new_event" | "add_field_to_unsigned" => world.percent(FEDERATED),
            _ => false,
        };
        Self {
            user: if remote {
                world.remote_user()
            } else {
                world.local_user()
            },
            room: world.popular(ROOMS),
            medium: if world.percent(90) { "email" } else { "msisdn" },
            login: world.rng.usize(0..world.logins.len().max(1)),
        }
    }
}

fn remote_server(server: usize) -> String {
    format!("matrix{server}.remote.example")
}

#[cfg(test)]
mod tests {
    use ganglion_api::{Callback, JsonPath, reference, visit_all, visit_each_callback};

    use super::*;

    fn world(seed: u64) -> World {
        World::new("example.com", Vec::new(), seed)
    }

    #[test]
    fn every_callback_reads_its_args_and_every_arg_is_there() {
        struct Read(World);
        impl Read {
            fn read<C: Callback>(&mut self) {
                for _ in 0..200 {
                    let args = self.0.args(&C::SPEC);
                    for arg in C::SPEC.args {
                        assert!(args.get(arg.name).is_some(), "{}: {}", C::SPEC.name, arg.name);
                    }
                    let read = C::from_json(args, &JsonPath::Root);
                    assert!(read.is_ok(), "{}: {:?}", C::SPEC.name, read.map(drop));
                }
            }
        }
        visit_each_callback!(Read, |self, C| self.read::<C>());
        visit_all(&mut Read(world(1)));
    }

    #[test]
    fn one_seed_is_one_world_and_another_seed_another() {
        let hundred = |seed| -> Vec<Value> {
            let mut world = world(seed);
            reference().iter().map(|spec| world.args(spec)).collect()
        };
        assert_eq!(hundred(7), hundred(7));
        assert_ne!(hundred(7), hundred(8));
    }

    #[test]
    fn events_differ_in_who_sends_them_and_how_long_they_are() {
        let mut world = world(1);
        let spec = ganglion_api::spec("check_event_for_spam").unwrap();
        let events: Vec<Value> = (0..1000).map(|_| world.args(spec)["event"].take()).collect();
        let remote = |event: &&Value| !event["sender"].as_str().unwrap().ends_with(":example.com");
        assert!((600..800).contains(&events.iter().filter(remote).count()));
        let mut lengths: Vec<_> = events.iter().map(|event| event.to_string().len()).collect();
        lengths.sort_unstable();
        assert!(lengths[999] > 10 * lengths[0], "{} to {}", lengths[0], lengths[999]);
        let spam = |event: &&Value| SPAM.iter().any(|spam| event["content"].to_string().contains(spam));
        assert!(events.iter().filter(spam).count() > 0);
    }
}
