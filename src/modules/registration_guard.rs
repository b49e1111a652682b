//! `ganglion.modules.RegistrationGuard`: who may register, and who is shown in the user directory.

mod addresses;
mod names;
mod rate;

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ganglion_api::{
    CallbackSet, CheckRegistrationForSpam, CheckUsernameForSpam, ConfigError, Denial, MatrixError, Module, ModuleApi,
    ModuleError, RegistrationVerdict, Verdict,
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use self::addresses::{Addresses, Networks};
use self::names::Names;
use self::rate::{Pace, Rate};
use super::globs::GlobSet;
use super::list_file::{BadList, Entry, List, ListConfig};

/// The longest time over which registrations are counted.
const MAX_PER: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The most registrations that a rate may allow.
const MAX_REGISTRATIONS: u32 = 1_000_000;

/// Refuses registrations, or bans what they make without a word, by ordered rules and by how many come from one place; hides
/// profiles from the user directory.
#[derive(Debug)]
pub struct RegistrationGuard {
    rules: Vec<Rule>,
    rate: Option<(Rate, Then)>,
    hide: Option<List<Names>>,
    /// How many registrations had an address that cannot be read since the last time that this was said.
    unreadable: AtomicU64,
}

/// The config of [`RegistrationGuard`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrationGuardConfig {
    /// The first that matches decides.
    #[serde(default)]
    rules: Vec<RuleConfig>,
    /// For registrations that no rule decides.
    #[serde(default)]
    rate: Option<RateConfig>,
    #[serde(default)]
    hide: Option<HideConfig>,
}

/// All conditions must hold.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleConfig {
    #[serde(default, deserialize_with = "condition")]
    addresses: Option<ListConfig>,
    #[serde(default, deserialize_with = "condition")]
    names: Option<ListConfig>,
    #[serde(default, deserialize_with = "condition")]
    email_domains: Option<ListConfig>,
    #[serde(default, deserialize_with = "condition")]
    providers: Option<ListConfig>,
    then: Then,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RateConfig {
    registrations: NonZeroU32,
    #[serde(deserialize_with = "super::duration::read")]
    per: Duration,
    then: Then,
    #[serde(default = "one_ipv4_address")]
    ipv4_prefix: u8,
    #[serde(default = "one_ipv6_network")]
    ipv6_prefix: u8,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct HideConfig {
    names: ListConfig,
}

/// What becomes of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Then {
    Allow,
    ShadowBan,
    Deny,
}

impl From<Then> for RegistrationVerdict {
    fn from(then: Then) -> Self {
        match then {
            Then::Allow => Self::Pass,
            Then::ShadowBan => Self::ShadowBan,
            Then::Deny => Self::Deny(Denial::forbidden()),
        }
    }
}

/// A condition that is there: null is none, and a rule without it would decide more than it was meant to.
fn condition<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ListConfig>, D::Error> {
    ListConfig::deserialize(deserializer).map(Some)
}

fn one_ipv4_address() -> u8 {
    32
}

/// What a subscriber has at least.
fn one_ipv6_network() -> u8 {
    64
}

impl Module for RegistrationGuard {
    type Config = RegistrationGuardConfig;

    fn parse_config(config: Value) -> Result<RegistrationGuardConfig, ConfigError> {
        let config: RegistrationGuardConfig = ganglion_api::read_config(config)?;
        for (index, rule) in config.rules.iter().enumerate() {
            rule.check(&format!("rules[{index}]"))?;
        }
        config.check_what_is_never_asked()?;
        if let Some(rate) = &config.rate {
            rate.check()?;
        }
        if let Some(hide) = &config.hide {
            check_list("hide.names", Some(&hide.names), Names::parse)?;
        }
        Ok(config)
    }

    fn new(config: RegistrationGuardConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let rules = config.rules.iter().enumerate();
        let rules = rules.map(|(index, rule)| rule.open(&format!("rules[{index}]"), api));
        let hide = config.hide.map(|hide| hide.names.open("hide.names", api, Names::parse));
        let guard = Self {
            rules: rules.collect::<Result<_, _>>()?,
            rate: config.rate.map(|rate| (rate.begin(), rate.then)),
            hide: hide.transpose()?,
            unreadable: AtomicU64::new(0),
        };
        let mut callbacks = CallbackSet::new();
        if !guard.rules.is_empty() || guard.rate.is_some() {
            callbacks = callbacks.answer::<CheckRegistrationForSpam, _>(Self::check_registration);
        }
        if guard.hide.is_some() {
            callbacks = callbacks.answer::<CheckUsernameForSpam, _>(Self::check_username);
        }
        api.register_callbacks(callbacks)?;
        if guard.rate.is_some() || guard.rules.iter().any(|rule| rule.addresses.is_some()) {
            api.looping_background_call(
                rate::FORGET_EVERY,
                "forget addresses that are quiet",
                Self::forget_quiet,
            );
        }
        Ok(guard)
    }
}

impl RegistrationGuardConfig {
    /// Refuses what looks as if it guarded something.
    fn check_what_is_never_asked(&self) -> Result<(), ConfigError> {
        let decides_all = self.rules.iter().position(RuleConfig::has_no_condition);
        if let Some(index) = decides_all {
            let at = format!("rules[{index}]");
            if index + 1 < self.rules.len() {
                return Err(ConfigError::at(
                    at,
                    "without a condition it decides everything: no rule after it is asked",
                ));
            }
            if self.rate.is_some() {
                return Err(ConfigError::at(
                    at,
                    "without a condition it decides everything: nothing is left for rate",
                ));
            }
        }
        let refuses = self.rules.iter().any(|rule| rule.then != Then::Allow);
        if !refuses && self.rate.is_none() && self.hide.is_none() {
            return Err(ConfigError::new(
                "nothing is ever refused or hidden: it needs rules, rate or hide",
            ));
        }
        Ok(())
    }
}

impl RuleConfig {
    fn has_no_condition(&self) -> bool {
        let Self {
            addresses,
            names,
            email_domains,
            providers,
            then: _,
        } = self;
        [addresses, names, email_domains, providers]
            .iter()
            .all(|list| list.is_none())
    }

    fn check(&self, key: &str) -> Result<(), ConfigError> {
        let Self {
            addresses,
            names,
            email_domains,
            providers,
            then: _,
        } = self;
        check_list(&format!("{key}.addresses"), addresses.as_ref(), Networks::parse)?;
        check_list(&format!("{key}.names"), names.as_ref(), Names::parse)?;
        check_list(&format!("{key}.email_domains"), email_domains.as_ref(), domains)?;
        check_list(&format!("{key}.providers"), providers.as_ref(), GlobSet::of_list)
    }

    fn open(&self, key: &str, api: &ModuleApi<RegistrationGuard>) -> Result<Rule, ConfigError> {
        let Self {
            addresses,
            names,
            email_domains,
            providers,
            then,
        } = self;
        Ok(Rule {
            addresses: open(addresses.as_ref(), &format!("{key}.addresses"), api, Networks::parse)?,
            names: open(names.as_ref(), &format!("{key}.names"), api, Names::parse)?,
            email_domains: open(email_domains.as_ref(), &format!("{key}.email_domains"), api, domains)?,
            providers: open(providers.as_ref(), &format!("{key}.providers"), api, GlobSet::of_list)?,
            then: *then,
        })
    }
}

impl RateConfig {
    fn check(&self) -> Result<(), ConfigError> {
        if self.registrations.get() > MAX_REGISTRATIONS {
            let reason = format!("expected 1 to {MAX_REGISTRATIONS}");
            return Err(ConfigError::at("rate.registrations", reason));
        }
        if self.per < Duration::from_secs(1) || self.per > MAX_PER {
            return Err(ConfigError::at("rate.per", "expected 1s to 30d"));
        }
        if self.then == Then::Allow {
            return Err(ConfigError::at("rate.then", "expected shadow_ban or deny"));
        }
        for (key, prefix, most) in [
            ("ipv4_prefix", self.ipv4_prefix, 32),
            ("ipv6_prefix", self.ipv6_prefix, 128),
        ] {
            if !(1..=most).contains(&prefix) {
                return Err(ConfigError::at(format!("rate.{key}"), format!("expected 1 to {most}")));
            }
        }
        Ok(())
    }

    fn begin(&self) -> Rate {
        Rate::new(self.registrations, self.per, self.ipv4_prefix, self.ipv6_prefix)
    }
}

fn check_list<T>(
    key: &str,
    list: Option<&ListConfig>,
    parse: impl FnOnce(&[Entry<'_>]) -> Result<T, BadList>,
) -> Result<(), ConfigError> {
    let Some(list) = list else { return Ok(()) };
    if list.is_absent() {
        return Err(ConfigError::at(key, "an empty list matches nothing: leave it out"));
    }
    list.check(key, parse)
}

fn open<T: Send + Sync + 'static>(
    list: Option<&ListConfig>,
    key: &str,
    api: &ModuleApi<RegistrationGuard>,
    parse: fn(&[Entry<'_>]) -> Result<T, BadList>,
) -> Result<Option<List<T>>, ConfigError> {
    list.map(|list| list.open(key, api, parse)).transpose()
}

fn domains(entries: &[Entry<'_>]) -> Result<GlobSet, BadList> {
    if let Some(address) = entries.iter().find(|entry| entry.text.contains('@')) {
        return Err(address.refuse("a domain is what stands behind the @: leave out what is before it"));
    }
    if let Some(dotted) = entries.iter().find(|entry| entry.text.ends_with('.')) {
        return Err(dotted.refuse("a dot at the end of a domain is not looked at: leave it out"));
    }
    GlobSet::of_list(entries)
}

/// A rule with its lists.
#[derive(Debug)]
struct Rule {
    addresses: Option<List<Networks>>,
    names: Option<List<Names>>,
    email_domains: Option<List<GlobSet>>,
    providers: Option<List<GlobSet>>,
    then: Then,
}

impl Rule {
    /// Whether all of its conditions hold. Addresses come last: if one cannot be read, that is an error only where it
    /// matters.
    fn matches(&self, args: &CheckRegistrationForSpam, addresses: &Addresses) -> Result<bool, MatrixError> {
        let others = holds(self.names.as_ref(), args.username.as_deref(), Names::is_match)
            && holds(self.email_domains.as_ref(), email_domain(args), GlobSet::is_match)
            && holds(
                self.providers.as_ref(),
                args.auth_provider_id.as_deref(),
                GlobSet::is_match,
            );
        let Some(networks) = self.addresses.as_ref().filter(|_| others) else {
            return Ok(others);
        };
        let (addresses, networks) = (addresses.known()?, networks.now());
        Ok(match self.then {
            // Who adds one address of a friend to others is not let in by it.
            Then::Allow => !addresses.is_empty() && addresses.iter().all(|address| networks.contain(*address)),
            Then::ShadowBan | Then::Deny => addresses.iter().any(|address| networks.contain(*address)),
        })
    }
}

/// Whether a condition holds: it is not there, or the text is and matches.
fn holds<T>(list: Option<&List<T>>, text: Option<&str>, is_match: impl Fn(&T, &str) -> bool) -> bool {
    list.is_none_or(|list| text.is_some_and(|text| is_match(&list.now(), text)))
}

fn email_domain(args: &CheckRegistrationForSpam) -> Option<&str> {
    let email = args
        .email_threepid
        .as_ref()
        .filter(|threepid| threepid.medium == "email")?;
    let domain = email.address.rsplit('@').next()?;
    // The root of all names: with it a name is the same one.
    Some(domain.trim_end_matches('.'))
}

impl RegistrationGuard {
    async fn check_registration(&self, args: &CheckRegistrationForSpam) -> Result<RegistrationVerdict, ModuleError> {
        self.verdict(args).map_err(|unreadable| {
            self.unreadable.fetch_add(1, Ordering::Relaxed);
            unreadable.into()
        })
    }

    fn verdict(&self, args: &CheckRegistrationForSpam) -> Result<RegistrationVerdict, MatrixError> {
        let addresses = Addresses::of(args.request_info.iter().map(|request| request.1.as_str()));
        for rule in &self.rules {
            if rule.matches(args, &addresses)? {
                return Ok(rule.then.into());
            }
        }
        match &self.rate {
            Some((rate, then)) if rate.count(addresses.known()?) == Pace::TooFast => Ok((*then).into()),
            _ => Ok(RegistrationVerdict::Pass),
        }
    }

    async fn check_username(&self, args: &CheckUsernameForSpam) -> Result<Verdict, ModuleError> {
        let profile = &args.user_profile;
        let names = [Some(profile.user_id.localpart()), profile.display_name.as_deref()];
        let is_hidden = self.hide.as_ref().is_some_and(|hide| {
            let hidden = hide.now();
            names.into_iter().flatten().any(|name| hidden.is_match(name))
        });
        Ok(if is_hidden {
            Verdict::Deny(Denial::forbidden())
        } else {
            Verdict::Pass
        })
    }

    async fn forget_quiet(&self) -> Result<(), ModuleError> {
        if let Some((rate, _)) = &self.rate {
            rate.forget_quiet();
        }
        let registrations = self.unreadable.swap(0, Ordering::Relaxed);
        if registrations > 0 {
            tracing::warn!(
                registrations,
                "RegistrationGuard: refused, their addresses cannot be read; look at X-Forwarded-For at the reverse proxy"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
