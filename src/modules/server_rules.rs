//! `ganglion.modules.ServerRules`: who may do what by their server or their user ID.

use std::borrow::Cow;

use ganglion_api::{
    AcceptMakeJoin, Callback, CallbackSet, ConfigError, Denial, Event, FederatedUserMayInvite, Module, ModuleApi,
    ModuleError, ServerName, UserId, UserMayCreateRoom, UserMayInvite, UserMayJoinRoom, UserMayPublishRoom,
    UserMaySend3pidInvite, Verdict, spec,
};
use serde::Deserialize;
use serde_json::Value;

use super::globs::{Glob, GlobSet};
use super::list_file::{BadList, Entry, List, ListConfig};
use crate::config::near;

/// Denies what users and servers do, by two lists. The meaning is that of `m.room.server_acl`: whom `deny` matches is denied,
/// and whom `allow` does not match, if there is one.
#[derive(Debug)]
pub struct ServerRules {
    /// `None` lets everybody in whom `deny` does not match.
    allow: Option<List<Rules>>,
    deny: List<Rules>,
    denial: Denial,
}

/// The config of [`ServerRules`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerRulesConfig {
    #[serde(default)]
    allow: ListConfig,
    #[serde(default)]
    deny: ListConfig,
    /// The callbacks that are looked at.
    #[serde(default = "all_callbacks")]
    callbacks: Vec<String>,
    /// What the client is told; absent, the homeserver words it.
    #[serde(default)]
    message: Option<String>,
}

fn all_callbacks() -> Vec<String> {
    CALLBACKS.iter().map(|name| (*name).to_owned()).collect()
}

/// What callbacks are about.
trait LookedAt: Callback {
    /// Who acts: both lists are matched against this user.
    fn acting(&self) -> &UserId;
    /// Whom or what the action concerns: `deny` alone is matched against this too.
    fn concerned(&self) -> Concerned<'_>;
}

enum Concerned<'a> {
    Nobody,
    User(&'a UserId),
    Server(&'a ServerName),
}

macro_rules! looked_at {
    ($($callback:ident: |$acting:ident| $user:expr, |$args:pat_param| $concerned:expr;)+) => {
        $(impl LookedAt for $callback {
            fn acting(&self) -> &UserId {
                let $acting = self;
                $user
            }

            fn concerned(&self) -> Concerned<'_> {
                let $args = self;
                $concerned
            }
        })+

        /// The callbacks that there can be rules for.
        const CALLBACKS: &[&str] = &[$($callback::SPEC.name),+];

        /// Answers those of these names.
        fn callbacks(names: &[String]) -> CallbackSet<ServerRules> {
            let mut callbacks = CallbackSet::new();
            $(if names.iter().any(|name| name == $callback::SPEC.name) {
                callbacks = callbacks
                    .answer::<$callback, _>(async |rules: &ServerRules, args: &$callback| Ok(rules.verdict(args)));
            })+
            callbacks
        }
    };
}

// docs/modules/server-rules.md has this table too.
looked_at! {
    // callback             both lists               `deny` alone
    UserMayInvite:          |args| &args.inviter,      |args| Concerned::User(&args.invitee);
    FederatedUserMayInvite: |args| &args.event.sender, |args| invitee(&args.event);
    UserMayJoinRoom:        |args| &args.user,         |args| server(args.room.server_name());
    AcceptMakeJoin:         |args| &args.user,         |_| Concerned::Nobody;
    UserMaySend3pidInvite:  |args| &args.inviter,      |_| Concerned::Nobody;
    UserMayCreateRoom:      |args| &args.user_id,      |_| Concerned::Nobody;
    UserMayPublishRoom:     |args| &args.user_id,      |_| Concerned::Nobody;
}

/// Who is invited by an event. Where its state key is no user ID it invites nobody, and the homeserver refuses it.
fn invitee(event: &Event) -> Concerned<'_> {
    let user = event.state_key.as_deref().and_then(|key| <&UserId>::try_from(key).ok());
    user.map_or(Concerned::Nobody, Concerned::User)
}

/// The server in a room ID. Since room version 12 there is none.
fn server(name: Option<&ServerName>) -> Concerned<'_> {
    name.map_or(Concerned::Nobody, Concerned::Server)
}

impl Module for ServerRules {
    type Config = ServerRulesConfig;

    fn parse_config(config: Value) -> Result<ServerRulesConfig, ConfigError> {
        let config: ServerRulesConfig = ganglion_api::read_config(config)?;
        if config.allow.is_absent() && config.deny.is_absent() {
            return Err(ConfigError::new(
                "neither allow nor deny has an entry: nothing would be denied",
            ));
        }
        config.allow.check("allow", Rules::parse)?;
        config.deny.check("deny", Rules::parse)?;
        if config.callbacks.is_empty() {
            return Err(ConfigError::at("callbacks", "no callback: nothing would be denied"));
        }
        for (index, name) in config.callbacks.iter().enumerate() {
            known(name).map_err(|reason| ConfigError::at(format!("callbacks[{index}]"), reason))?;
        }
        if config
            .message
            .as_deref()
            .is_some_and(|message| message.trim().is_empty())
        {
            return Err(ConfigError::at(
                "message",
                "empty: leave it out, and the homeserver words the error",
            ));
        }
        Ok(config)
    }

    fn new(config: ServerRulesConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let own = api.server_name().to_owned();
        let allow = move |entries: &[Entry<'_>]| {
            let rules = Rules::parse(entries)?;
            if rules.is_empty() {
                // A file that was cut off must not open the door, nor close it.
                return Err(BadList::whole("no entries: without allow everybody is let in"));
            }
            let names_local_users = entries.iter().any(|entry| may_be_local(entry.text, &own));
            if !names_local_users && !rules.match_server(&own) {
                tracing::warn!(server = %own, "ServerRules: allow does not match this homeserver, its own users are denied");
            }
            Ok(rules)
        };
        let has_allow = !config.allow.is_absent();
        let rules = Self {
            allow: has_allow.then(|| config.allow.open("allow", api, allow)).transpose()?,
            deny: config.deny.open("deny", api, Rules::parse)?,
            denial: match config.message {
                Some(message) => Denial::forbidden().with_error(message),
                None => Denial::forbidden(),
            },
        };
        api.register_callbacks(callbacks(&config.callbacks))?;
        Ok(rules)
    }
}

fn known(name: &str) -> Result<(), String> {
    if CALLBACKS.contains(&name) {
        return Ok(());
    }
    Err(match spec(name) {
        Some(_) => format!(
            "there are no rules for this callback, only for {}",
            CALLBACKS.join(", ")
        ),
        None => format!("unknown callback{}", near(name, CALLBACKS.iter().copied())),
    })
}

impl ServerRules {
    fn verdict(&self, args: &impl LookedAt) -> Verdict {
        if self.denies(args) || !self.allows(args.acting()) {
            return Verdict::Deny(self.denial.clone());
        }
        Verdict::Pass
    }

    fn denies(&self, args: &impl LookedAt) -> bool {
        let deny = self.deny.now();
        deny.match_user(args.acting())
            || match args.concerned() {
                Concerned::Nobody => false,
                Concerned::User(user) => deny.match_user(user),
                Concerned::Server(server) => deny.match_server(server),
            }
    }

    fn allows(&self, user: &UserId) -> bool {
        self.allow.as_ref().is_none_or(|allow| allow.now().match_user(user))
    }
}

/// One list.
#[derive(Debug)]
struct Rules {
    servers: GlobSet,
    users: GlobSet,
}

impl Rules {
    fn parse(entries: &[Entry<'_>]) -> Result<Self, BadList> {
        let (mut servers, mut users) = (Vec::new(), Vec::new());
        for entry in entries {
            let is_user = entry.text.starts_with('@');
            let possible = if is_user {
                user_glob(entry.text)
            } else {
                server_glob(entry.text)
            };
            possible.map_err(|reason| entry.refuse(reason))?;
            let glob = Glob::parse(entry.text).map_err(|error| entry.refuse(error.to_string()))?;
            let globs = if is_user { &mut users } else { &mut servers };
            globs.push(glob);
        }
        let set = |globs| GlobSet::new(globs).map_err(|error| BadList::whole(error.to_string()));
        Ok(Self {
            servers: set(servers)?,
            users: set(users)?,
        })
    }

    fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.users.is_empty()
    }

    fn match_user(&self, user: &UserId) -> bool {
        self.users.is_match(&without_root(user)) || self.match_server(user.server_name())
    }

    fn match_server(&self, server: &ServerName) -> bool {
        self.servers.is_match(server.host().trim_end_matches('.'))
    }
}

/// A user ID without dots at the end of the host. They stand for the root of all names: the server is the same one.
fn without_root(user: &UserId) -> Cow<'_, str> {
    let (id, server) = (user.as_str(), user.server_name());
    if !server.host().ends_with('.') {
        return Cow::Borrowed(id);
    }
    let (before_port, port) = id.split_at(id.len() - server.as_str().len() + server.host().len());
    Cow::Owned(format!("{}{port}", before_port.trim_end_matches('.')))
}

/// Whether an entry is a glob for user IDs that can match one of this homeserver.
fn may_be_local(entry: &str, own: &ServerName) -> bool {
    // What is behind the last star is the end of what it matches.
    let end = entry.rsplit('*').next().unwrap_or_default().chars().rev();
    let own = own.as_str().chars().rev().chain([':']);
    let fits = |(glob, own): (char, char)| glob == '?' || glob.eq_ignore_ascii_case(&own);
    entry.starts_with('@') && end.zip(own).all(fits)
}

const DOT_AT_THE_END: &str = "a dot at the end of a server's name is not looked at: leave it out";

/// Refuses what no user ID matches: a rule that was meant for somebody would look as if it held.
fn user_glob(glob: &str) -> Result<(), &'static str> {
    if glob.contains(char::is_whitespace) {
        return Err("a blank in a user ID");
    }
    if !glob.contains([':', '*']) {
        return Err("no user ID is like this: write @name:server");
    }
    if glob.ends_with('.') {
        return Err(DOT_AT_THE_END);
    }
    Ok(())
}

/// Refuses what no server name matches.
fn server_glob(glob: &str) -> Result<(), &'static str> {
    // An IPv6 address stands in brackets; what follows is a port.
    let (address, rest) = match glob.find(']') {
        Some(end) if glob.starts_with('[') => glob.split_at(end + 1),
        _ => ("", glob),
    };
    if rest.ends_with('.') {
        return Err(DOT_AT_THE_END);
    }
    if rest.contains(':') {
        return Err("a server's port is not looked at: leave it out");
    }
    if !glob.is_ascii() {
        return Err("server names are ASCII: write an international name in its form with xn--");
    }
    let in_name = |c: char| c.is_ascii_alphanumeric() || ".-_*?".contains(c);
    let in_address = |c: char| c.is_ascii_hexdigit() || "[]:.*?".contains(c);
    if !rest.chars().all(in_name) || !address.chars().all(in_address) {
        return Err("no server name is like this: write a name such as example.com or *.example.com, or @name:server");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use serde_json::json;
    use tempfile::TempDir;

    use super::*;
    use crate::testing::{ModuleTest, RunningModule};

    /// What becomes of these args, as one word; `-` if nobody was asked.
    async fn ask(module: &RunningModule, callback: &str, args: Value) -> String {
        let decision = module.ask_json(callback, args).await;
        let step = &decision["steps"][0]["result"];
        step.as_str().unwrap_or("-").to_owned()
    }

    async fn create(module: &RunningModule, user: &str) -> String {
        ask(module, "user_may_create_room", json!({"user_id": user})).await
    }

    fn test(config: &str) -> ModuleTest {
        ModuleTest::new::<ServerRules>(config)
    }

    #[test]
    fn whom_deny_matches_is_denied_whatever_allow_says() {
        let config = "{allow: ['*'], deny: ['evil.example', '*.evil.example', '@spam*:*', '@bob:*.example']}";
        test(config).run(async |module| {
            for (user, expected) in [
                ("@a:evil.example", "deny"),
                ("@a:EVIL.example", "deny"),
                ("@a:evil.example:8448", "deny"),
                ("@a:evil.example.", "deny"),
                ("@a:x.evil.example..:8448", "deny"),
                ("@a:x.evil.example", "deny"),
                ("@a:notevil.example", "pass"),
                ("@spammer:good.example", "deny"),
                ("@aspammer:good.example", "pass"),
                ("@bob:good.example", "deny"),
                ("@bob:good.example.", "deny"),
                ("@bob.:good.example", "pass"),
            ] {
                assert_eq!(create(module, user).await, expected, "{user}");
            }
        });
    }

    #[test]
    fn whom_allow_does_not_match_is_denied_if_there_is_one() {
        test("{allow: [example.com, '@bob:friend.example', '[2001:db8::1]']}").run(async |module| {
            for (user, expected) in [
                ("@a:example.com", "pass"),
                ("@bob:friend.example", "pass"),
                ("@eve:friend.example", "deny"),
                ("@a:[2001:db8::1]:8448", "pass"),
                ("@a:[2001:db8::2]", "deny"),
            ] {
                assert_eq!(create(module, user).await, expected, "{user}");
            }
        });
        test("{allow: [], deny: [evil.example]}").run(async |module| {
            assert_eq!(create(module, "@a:good.example").await, "pass");
        });
    }

    fn invite(sender: &str, state_key: &str) -> Value {
        json!({"event": {
            "type": "m.room.member", "sender": sender, "state_key": state_key, "room_id": "!r:x.example",
            "content": {"membership": "invite"},
        }})
    }

    /// Each callback with its args: this user acts, and those are concerned.
    fn all(user: &str, concerned: &str, room: &str) -> Vec<(&'static str, Value)> {
        let both = json!({"user": user, "room": room});
        let publish = json!({"user_id": user, "room_id": room});
        let address = json!({"inviter": user, "medium": "email", "address": "a@b.example", "room_id": room});
        let invites = json!({"inviter": user, "invitee": concerned, "room_id": "!r:x.example"});
        let join = json!({"user": user, "room": room, "is_invited": false});
        vec![
            ("user_may_invite", invites),
            ("federated_user_may_invite", invite(user, concerned)),
            ("user_may_join_room", join),
            ("accept_make_join", both),
            ("user_may_send_3pid_invite", address),
            ("user_may_create_room", json!({"user_id": user})),
            ("user_may_publish_room", publish),
        ]
    }

    #[test]
    fn the_acting_user_of_every_callback_is_looked_at() {
        for config in ["{deny: [evil.example]}", "{allow: [good.example]}"] {
            test(config).run(async |module| {
                for (user, expected) in [("@a:evil.example", "deny"), ("@a:good.example", "pass")] {
                    let questions = all(user, "@b:good.example", "!r:good.example");
                    assert_eq!(questions.len(), CALLBACKS.len());
                    for (callback, args) in questions {
                        assert_eq!(
                            ask(module, callback, args).await,
                            expected,
                            "{config} {callback} {user}"
                        );
                    }
                }
            });
        }
    }

    #[test]
    fn deny_alone_is_matched_against_invitees_and_the_server_of_a_room_that_is_joined() {
        for (config, concerned) in [
            (
                "{deny: [evil.example]}",
                &["user_may_invite", "federated_user_may_invite", "user_may_join_room"][..],
            ),
            ("{allow: [good.example]}", &[]),
        ] {
            test(config).run(async |module| {
                for (callback, args) in all("@a:good.example", "@b:evil.example", "!r:evil.example") {
                    let expected = if concerned.contains(&callback) { "deny" } else { "pass" };
                    assert_eq!(ask(module, callback, args).await, expected, "{config} {callback}");
                }
            });
        }
        test("{deny: [evil.example, '@*evil*']}").run(async |module| {
            // No server in the room ID, no user in the state key.
            let join = json!({"user": "@a:good.example", "room": "!evil", "is_invited": true});
            assert_eq!(ask(module, "user_may_join_room", join).await, "pass");
            let strange = invite("@a:good.example", "evil");
            assert_eq!(ask(module, "federated_user_may_invite", strange).await, "pass");
        });
    }

    #[test]
    fn only_the_callbacks_that_were_named_are_looked_at_and_the_message_goes_to_the_client() {
        let config = "{deny: [evil.example], callbacks: [user_may_create_room], message: 'not from there'}";
        test(config).run(async |module| {
            for (callback, args) in all("@a:evil.example", "@b:good.example", "!r:good.example") {
                let expected = if callback == "user_may_create_room" {
                    "deny"
                } else {
                    "-"
                };
                assert_eq!(ask(module, callback, args).await, expected, "{callback}");
            }
            let args = json!({"user_id": "@a:evil.example"});
            let decision = module.ask_json("user_may_create_room", args).await;
            assert_eq!(
                decision["outcome"],
                json!({"verdict": "deny", "errcode": "M_FORBIDDEN", "error": "not from there", "fields": {}})
            );
        });
    }

    #[test]
    fn a_config_that_cannot_work_is_refused_with_its_key() {
        for (config, refusal) in [
            (
                "{}",
                "config: neither allow nor deny has an entry: nothing would be denied",
            ),
            ("{allow: [], deny: []}", "config: neither allow nor deny has an entry"),
            ("{deny: [a.example], callbacks: []}", "config.callbacks: no callback"),
            (
                "{deny: [a.example], callbacks: [user_may_joinroom]}",
                "config.callbacks[0]: unknown callback, did you mean user_may_join_room?",
            ),
            (
                "{deny: [a.example], callbacks: [check_event_for_spam]}",
                "config.callbacks[0]: there are no rules for this callback, only for user_may_invite, ",
            ),
            ("{deny: [a.example], message: ' '}", "config.message: empty"),
            ("{deny: [a.example], denny: []}", "unknown field `denny`"),
            ("{deny: a.example}", "expected a list of texts or {file: path}"),
            ("{deny: [a.example, '@eve']}", "config.deny[1]: no user ID is like this"),
            ("{deny: ['@e ve:x']}", "config.deny[0]: a blank in a user ID"),
            (
                "{allow: ['a.example:8448']}",
                "config.allow[0]: a server's port is not looked at",
            ),
            (
                "{allow: ['[::1]:8448']}",
                "config.allow[0]: a server's port is not looked at",
            ),
            (
                "{allow: ['https://a.example']}",
                "config.allow[0]: a server's port is not looked at",
            ),
            (
                "{allow: ['a.example/']}",
                "config.allow[0]: no server name is like this",
            ),
            (
                "{allow: ['a.example.']}",
                "config.allow[0]: a dot at the end of a server's name",
            ),
            (
                "{deny: ['@a:a.example.']}",
                "config.deny[0]: a dot at the end of a server's name",
            ),
            ("{allow: ['bücher.example']}", "config.allow[0]: server names are ASCII"),
        ] {
            let error = test(config).refusal();
            assert!(
                error.starts_with("modules[0].config") && error.contains(refusal),
                "{config}: {error}"
            );
        }
    }

    #[test]
    fn an_entry_for_users_is_known_to_be_for_local_ones_or_not() {
        let own = <&ServerName>::try_from("example.com:8448").unwrap();
        for (entry, expected) in [
            ("@bob:example.com:8448", true),
            ("@bob:EXAMPLE.com:8448", true),
            ("@bob:*", true),
            ("@*", true),
            ("@*b:example.???:*8", true),
            ("@*.com:8448", true),
            ("@bob:example.com", false),
            ("@bob:friend.example", false),
            ("@*:friend.example", false),
            ("@bob:anexample.com:8448", false),
            // One for servers.
            ("*", false),
        ] {
            assert_eq!(may_be_local(entry, own), expected, "{entry}");
        }
    }

    #[test]
    fn a_list_file_is_followed_and_a_bad_one_changes_nothing() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("denied.txt");
        fs::write(&file, "evil.example\n").unwrap();
        let test = test("{deny: {file: denied.txt}}").directory(directory.path());
        test.run(async |module| {
            let changed = async |text: &str| {
                fs::write(&file, text).unwrap();
                module.advance(Duration::from_secs(6)).await;
                let users = ["@a:evil.example", "@a:worse.example"];
                [create(module, users[0]).await, create(module, users[1]).await]
            };
            assert_eq!(changed("evil.example\n").await, ["deny", "pass"]);
            assert_eq!(changed("# other\nworse.example\n").await, ["pass", "deny"]);
            assert_eq!(changed("evil.example\nno server\n").await, ["pass", "deny"]);
            fs::remove_file(&file).unwrap();
            module.advance(Duration::from_secs(6)).await;
            assert_eq!(create(module, "@a:worse.example").await, "deny");
            assert_eq!(changed("evil.example\nworse.example\n").await, ["deny", "deny"]);
            assert_eq!(changed("").await, ["pass", "pass"]);
        });
    }

    #[test]
    fn an_allow_file_without_entries_opens_no_door() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("allowed.txt");
        let test = || test("{allow: {file: allowed.txt}}").directory(directory.path());
        fs::write(&file, "# nobody yet\n").unwrap();
        let error = test().refusal();
        assert!(error.contains("config.allow.file: "), "{error}");
        assert!(error.contains("allowed.txt: no entries"), "{error}");
        fs::remove_file(&file).unwrap();
        assert!(test().refusal().contains("allowed.txt: cannot read it: "));
        fs::write(&file, "example.com\nbad one\n").unwrap();
        assert!(test().refusal().contains("allowed.txt:2: no server name is like this"));

        fs::write(&file, "example.com\n").unwrap();
        test().run(async |module| {
            fs::write(&file, "").unwrap();
            module.advance(Duration::from_secs(6)).await;
            assert_eq!(create(module, "@a:example.com").await, "pass");
            assert_eq!(create(module, "@a:evil.example").await, "deny");
        });
    }
}
