//! `ganglion.modules.HttpAntispam`: asks a server that speaks the protocol of synapse-http-antispam, such as Meowlnir,
//! Draupnir or another Ganglion.

mod asked;
mod config;
mod silence;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ganglion_api::{
    AcceptMakeJoin, Callback, CallbackSet, CheckEventForSpam, CheckLoginForSpam, CheckUsernameForSpam, ConfigError,
    FederatedUserMayInvite, Module, ModuleApi, ModuleError, UserMayCreateRoom, UserMayCreateRoomAlias, UserMayInvite,
    UserMayJoinRoom, UserMayPublishRoom, UserMaySend3pidInvite, Verdict,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use self::config::HttpAntispamConfig;
use self::silence::Silence;
use self::verdict::{Mode, NoVerdict};
use super::http_client::{Limits, Service};

/// The longest answer, in bytes: that of a verdict is far shorter.
const MAX_ANSWER: usize = 64 * 1024;

/// How long after a ping without an answer the next one goes out.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// How many questions may be open that nobody waits for.
const MAX_BACKGROUND: usize = 256;

/// Asks a server of the antispam protocol.
#[derive(Debug)]
pub struct HttpAntispam {
    api: ModuleApi<Self>,
    service: Service,
    mode: Mode,
    /// The callbacks that pass at once and are asked about later.
    later: BTreeSet<String>,
    /// What a failure counts as; where a callback is not named it is a failure.
    fail_open: BTreeMap<String, bool>,
    silence: Silence,
    background: Arc<Semaphore>,
    /// How many questions were not asked since there were too many.
    dropped: AtomicU64,
}

impl Module for HttpAntispam {
    type Config = HttpAntispamConfig;

    fn parse_config(config: Value) -> Result<HttpAntispamConfig, ConfigError> {
        let config: HttpAntispamConfig = ganglion_api::read_config(config)?;
        config.check()?;
        Ok(config)
    }

    fn new(config: HttpAntispamConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let token = config.secret().read(api)?;
        api.register_callbacks(callbacks(&config))?;
        let service = Service::new(config.base_url, token)?;
        if config.do_ping {
            api.run_as_background_process("ping", Self::ping);
        }
        Ok(Self {
            api: api.clone(),
            service,
            mode: config.mode,
            later: config
                .asynchronous
                .into_iter()
                .filter(|(_, later)| *later)
                .map(|(name, _)| name)
                .collect(),
            fail_open: config.fail_open,
            silence: Silence::default(),
            background: Arc::new(Semaphore::new(MAX_BACKGROUND)),
            dropped: AtomicU64::new(0),
        })
    }
}

/// The callbacks that are enabled.
fn callbacks(config: &HttpAntispamConfig) -> CallbackSet<HttpAntispam> {
    fn add<C: Callback<Answer = Verdict>>(
        callbacks: CallbackSet<HttpAntispam>,
        config: &HttpAntispamConfig,
    ) -> CallbackSet<HttpAntispam> {
        if config.is_enabled(C::SPEC.name) {
            callbacks.answer::<C, _>(HttpAntispam::ask::<C>)
        } else {
            callbacks
        }
    }
    let all = [
        add::<CheckEventForSpam>,
        add::<FederatedUserMayInvite>,
        add::<UserMayJoinRoom>,
        add::<AcceptMakeJoin>,
        add::<UserMayCreateRoom>,
        add::<UserMayInvite>,
        add::<UserMaySend3pidInvite>,
        add::<UserMayCreateRoomAlias>,
        add::<UserMayPublishRoom>,
        add::<CheckUsernameForSpam>,
        add::<CheckLoginForSpam>,
    ];
    all.into_iter()
        .fold(CallbackSet::new(), |callbacks, add| add(callbacks, config))
}

impl HttpAntispam {
    async fn ask<C: Callback<Answer = Verdict>>(&self, args: &C) -> Result<Verdict, ModuleError> {
        let callback = C::SPEC.name;
        let body = asked::body(args)?;
        if self.later.contains(callback) {
            self.ask_later(callback, body);
            return Ok(Verdict::Pass);
        }
        let asked = self.verdict(callback, &body).await;
        Ok(verdict::settle(asked, self.fail_open.get(callback).copied())?)
    }

    /// Asks while nobody waits. Whatever comes of it is in the log only.
    fn ask_later(&self, callback: &'static str, body: Value) {
        let Ok(place) = Arc::clone(&self.background).try_acquire_owned() else {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            // Said each time that there are twice as many: a server that is too slow is so for long.
            if dropped.is_power_of_two() {
                let service = self.service.origin();
                tracing::warn!(
                    service,
                    callback,
                    dropped,
                    "the antispam server is too slow: questions are not asked"
                );
            }
            return;
        };
        self.api
            .run_as_background_process(callback, async move |module: &Self| {
                let _place = place;
                // A denial comes too late, and what went wrong is said already.
                let _ = module.verdict(callback, &body).await;
                Ok(())
            });
    }

    /// Asks the server for a verdict.
    async fn verdict(&self, callback: &'static str, body: &Value) -> Result<Verdict, NoVerdict> {
        let limits = Limits::within(self.api.remaining_budget(), MAX_ANSWER);
        let verdict = match self.service.post(callback, body, limits).await {
            Ok(answer) => verdict::read(self.mode, &answer).ok_or_else(|| NoVerdict::Other {
                service: self.service.origin().to_owned(),
                status: answer.status,
            }),
            Err(error) => Err(error.into()),
        };
        self.note(callback, verdict.as_ref().err());
        verdict
    }

    /// Says that the server gives no verdicts, or does so again; not each time.
    fn note(&self, callback: &'static str, failed: Option<&NoVerdict>) {
        if !self.silence.is_news(callback, failed.is_some()) {
            return;
        }
        let service = self.service.origin();
        match failed {
            Some(error) => {
                tracing::warn!(service, callback, %error, "the antispam server does not answer; said once until it does");
            }
            None => tracing::info!(service, callback, "the antispam server answers again"),
        }
    }

    /// Asks whether the server is there, until it is.
    async fn ping(&self) -> Result<(), ModuleError> {
        loop {
            let id = ping_id();
            let limits = Limits::within(None, MAX_ANSWER);
            let failed = match self.service.post("ping", &json!({ "id": id }), limits).await {
                Ok(answer) if verdict::is_pong(&answer, &id) => None,
                Ok(answer) => Some(NoVerdict::Other {
                    service: self.service.origin().to_owned(),
                    status: answer.status,
                }),
                Err(error) => Some(error.into()),
            };
            self.note("ping", failed.as_ref());
            if failed.is_none() {
                tracing::info!(service = self.service.origin(), "the antispam server answered a ping");
                return Ok(());
            }
            self.api.sleep(PING_INTERVAL).await;
        }
    }
}

/// Eight letters that no ping before had.
fn ping_id() -> String {
    let mut random = RandomState::new().hash_one("ping");
    let letter = |_| {
        let letter = b"abcdefghijklmnopqrstuvwxyz"[(random % 26) as usize];
        random /= 26;
        char::from(letter)
    };
    (0..8).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::antispam::CALLBACKS;
    use crate::testing::ModuleTest;

    #[test]
    fn a_ping_has_eight_letters_and_none_is_like_the_other() {
        let ids: BTreeSet<_> = (0..100).map(|_| ping_id()).collect();
        assert_eq!(ids.len(), 100);
        assert!(
            ids.iter()
                .all(|id| id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_lowercase()))
        );
    }

    #[test]
    fn a_server_that_does_not_answer_is_pinged_again_and_again() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("base_url: http://{}/", listener.local_addr().unwrap());
        ModuleTest::new::<HttpAntispam>(url).run(async |module| {
            // Each is given up after ten seconds, and the next one begins five seconds later.
            module.advance(Duration::from_secs(50)).await;
        });
        listener.set_nonblocking(true).unwrap();
        let pings = std::iter::from_fn(|| listener.accept().ok()).count();
        assert_eq!(pings, 4);
    }

    #[test]
    fn a_server_that_hangs_is_a_failure_before_the_call_is_late_or_what_fail_open_says() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ask = |fail_open: &str| {
            let config = format!("{{base_url: 'http://{address}/', do_ping: false, fail_open: {fail_open}}}");
            ModuleTest::new::<HttpAntispam>(config).run(async |module| {
                let args = json!({"user_id": "@bob:example.com"});
                module.ask_json("user_may_create_room", args).await
            })
        };
        assert_eq!(
            ask("{user_may_create_room: true}")["outcome"],
            json!({"verdict": "pass"})
        );
        let denied = ask("{user_may_create_room: false}");
        assert_eq!(
            denied["outcome"],
            json!({"verdict": "deny", "errcode": "M_UNKNOWN", "error": "the antispam server gave no answer", "fields": {}})
        );
        let failed = ask("{user_may_invite: true}");
        assert_eq!(failed["outcome"]["verdict"], "error");
        assert_eq!(failed["steps"][0]["result"], "module_error");
        assert_eq!(
            failed["steps"][0]["detail"],
            format!("http://{address} did not answer within 900ms")
        );
    }

    #[test]
    fn what_is_said_of_a_callback_that_is_never_asked_or_always_passes_is_refused() {
        let url = "http://127.0.0.1:1/";
        for (config, path, message) in [
            (
                json!({"base_url": url, "enabled_callbacks": ["user_may_invite"], "fail_open": {"user_may_join_room": true}}),
                "fail_open.user_may_join_room",
                "the callback is not in enabled_callbacks: add it there, or leave this out",
            ),
            (
                json!({"base_url": url, "enabled_callbacks": ["user_may_invite"], "async": {"user_may_join_room": false}}),
                "async.user_may_join_room",
                "the callback is not in enabled_callbacks: add it there, or leave this out",
            ),
            (
                json!({"base_url": url, "async": {"user_may_invite": true}, "fail_open": {"user_may_invite": false}}),
                "fail_open.user_may_invite",
                "the callback is async and passes before the server is asked: leave this out",
            ),
        ] {
            let error = HttpAntispam::parse_config(config).err().unwrap();
            assert_eq!((error.path.as_str(), error.message.as_str()), (path, message));
        }
    }

    #[test]
    fn a_config_error_names_the_key() {
        let url = "http://127.0.0.1:1/";
        let names = CALLBACKS.map(|name| json!(name));
        for (config, path, message) in [
            (json!({}), "", "missing field `base_url`"),
            (
                json!({"base_url": "x"}),
                "base_url",
                "expected a URL such as https://antispam.example.com/path",
            ),
            (
                json!({"base_url": url, "authorization": 4711}),
                "authorization",
                "expected text, printable ASCII without spaces",
            ),
            (
                json!({"base_url": url, "authorization": "a", "authorization_path": "b"}),
                "authorization_path",
                "give authorization or authorization_path, not both",
            ),
            (
                json!({"base_url": url, "enabled_callbacks": []}),
                "enabled_callbacks",
                "expected at least one callback; leave the key out for all",
            ),
            (
                json!({"base_url": url, "enabled_callbacks": ["user_may_invite", "user_may_joinroom"]}),
                "enabled_callbacks[1]",
                "the antispam protocol has no such callback, did you mean user_may_join_room?",
            ),
            (
                json!({"base_url": url, "fail_open": {"on_new_event": true}}),
                "fail_open.on_new_event",
                "the antispam protocol has no such callback",
            ),
            (
                json!({"base_url": url, "async": {"ping": true}}),
                "async.ping",
                "the antispam protocol has no such callback",
            ),
        ] {
            let error = HttpAntispam::parse_config(config).err().unwrap();
            assert_eq!((error.path.as_str(), error.message.as_str()), (path, message));
        }
        for config in [
            json!({"base_url": url, "mode": "lenient"}),
            json!({"base_url": url, "modus": "strict"}),
            json!({"base_url": url, "fail_open": {"user_may_invite": "yes"}}),
        ] {
            assert!(HttpAntispam::parse_config(config).is_err());
        }
        let config = json!({"base_url": url, "enabled_callbacks": names});
        assert!(HttpAntispam::parse_config(config).is_ok());
    }
}
