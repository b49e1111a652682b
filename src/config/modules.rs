//! The section `modules`, as a homeserver's config has it, with keys of our own beside `module` and `config`.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use ganglion_actors::{BreakerSettings, ModuleLimits, RestartSettings, Tier};
use ganglion_api::{ModuleFactory, Registry};
use ganglion_dispatcher::FailureRule;
use serde_yaml::Value;

use super::section::{Problems, Section};
use super::{breaker, on_failure, restart, value, yaml};
use crate::modules::missing_feature;

/// One module of the config.
#[derive(Clone)]
#[non_exhaustive]
pub struct ModuleConfig {
    /// Its `module:` path.
    pub path: String,
    /// Its id.
    pub id: String,
    /// Whether it takes part from the start.
    pub enabled: bool,
    /// Makes it; `None` only if it is disabled and its path is not known.
    pub factory: Option<Arc<dyn ModuleFactory>>,
    /// Its config; a falsy one is an empty object, as in Synapse. That of a disabled module was not checked, and is an
    /// empty object too if it is no JSON.
    pub config: serde_json::Value,
    /// Higher is asked first.
    pub priority: i64,
    /// How strongly it is isolated.
    pub tier: Tier,
    /// What it may use.
    pub limits: ModuleLimits,
    /// When its calls are refused; each of its callbacks has a breaker of its own.
    pub breaker: BreakerSettings,
    /// How often it is made again after a failure.
    pub restart: RestartSettings,
    /// Its failure rules.
    pub on_failure: Vec<FailureRule>,
}

impl ModuleConfig {
    /// Whether it takes part from the start.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }
}

impl fmt::Debug for ModuleConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the config, which may hold secrets.
        f.debug_struct("ModuleConfig")
            .field("id", &self.id)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Reads the list. What is falsy is no list at all, as in Synapse.
pub(super) fn read(document: &mut Section<'_>, registry: &Registry) -> Vec<ModuleConfig> {
    let problems = document.problems();
    let items = match document.take("modules") {
        Some(Value::Sequence(items)) => items,
        Some(value) if !is_falsy(&value) => {
            let found = value::kind(&value);
            problems.push(
                "modules",
                format!("expected a list of mappings, each with a module: path, found {found}"),
            );
            return Vec::new();
        }
        _ => return Vec::new(),
    };
    let mut modules = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        let path = format!("modules[{index}]");
        if matches!(item, Value::Mapping(_)) {
            modules.extend(read_module(Section::open(item, path, problems), registry));
        } else {
            let found = value::kind(&item);
            problems.push(path, format!("expected a mapping with a module: path, found {found}"));
        }
    }
    identify(modules, problems)
}

/// A module that was read, its id still open.
struct Unnamed {
    module: ModuleConfig,
    id: Option<String>,
    place: String,
}

fn read_module(mut section: Section<'_>, registry: &Registry) -> Option<Unnamed> {
    let problems = section.problems();
    let place = section.path("id");
    let path = section.required("module", |value| value::text(value).map(str::to_owned));
    let id = section.optional("id", module_id);
    let enabled = section.or("enabled", true, value::flag);
    let config_place = section.path("config");
    let config = section.take("config").filter(|config| !is_falsy(config));
    let priority = section.or("priority", 0, value::integer);
    let tier = section.or("tier", Tier::default(), tier);
    let default_timeout = Duration::from_secs(1);
    let call_timeout = section.checked("call_timeout", default_timeout, value::duration);
    let limits = ModuleLimits {
        call_timeout: call_timeout.unwrap_or(default_timeout),
        max_in_flight: section.or("max_in_flight", 64, value::count(1..=1_000_000)),
        mailbox: section.or("mailbox", 1024, value::count(0..=1_000_000)),
        start_timeout: section.or("start_timeout", Duration::from_secs(30), value::duration),
    };
    let on_failure = on_failure::read(&mut section);
    let breaker = breaker::read(section.section("breaker"), call_timeout);
    let restart = restart::read(section.section("restart"));
    let module_place = section.path("module");
    section.finish();

    let empty = || serde_json::json!({});
    let config = config.map_or_else(|| Ok(empty()), |config| yaml::to_json(&config, &config_place));
    let path = path?;
    // A disabled module may be one that does not load: that is a reason to disable it.
    let (factory, config) = if enabled {
        let factory = resolve(&path, registry)
            .map_err(|message| problems.push(module_place, message))
            .ok();
        let config = config.map_err(|(place, message)| problems.push(place, message)).ok();
        if let (Some(factory), Some(config)) = (&factory, &config) {
            check_config(&**factory, config, &config_place, problems);
        }
        (factory, config)
    } else {
        match config {
            Ok(config) => (registry.factory(&path), Some(config)),
            // It could not be made as it is written.
            Err(_) => (None, Some(empty())),
        }
    };
    let module = ModuleConfig {
        path,
        id: String::new(),
        enabled,
        factory,
        config: config?,
        priority,
        tier,
        limits,
        breaker,
        restart,
        on_failure,
    };
    Some(Unnamed { module, id, place })
}

/// Gives every module its id: its own, else its path, and `path#2` for a second one.
fn identify(modules: Vec<Unnamed>, problems: &Problems) -> Vec<ModuleConfig> {
    let mut taken: HashSet<String> = HashSet::new();
    for id in modules
        .iter()
        .filter_map(|unnamed| unnamed.id.as_ref().map(|id| (id, &unnamed.place)))
    {
        if !taken.insert(id.0.clone()) {
            problems.push(
                id.1.clone(),
                format!("{:?} is the id of another module: ids are unique", id.0),
            );
        }
    }
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut identified = Vec::with_capacity(modules.len());
    for Unnamed { mut module, id, .. } in modules {
        module.id = id.unwrap_or_else(|| {
            let count = seen.entry(module.path.clone()).or_default();
            loop {
                *count += 1;
                let id = if *count == 1 {
                    module.path.clone()
                } else {
                    format!("{}#{count}", module.path)
                };
                if taken.insert(id.clone()) {
                    break id;
                }
            }
        });
        identified.push(module);
    }
    identified
}

fn resolve(path: &str, registry: &Registry) -> Result<Arc<dyn ModuleFactory>, String> {
    if !path.contains('.') {
        return Err(format!("expected a path such as package.Class, found {path:?}"));
    }
    let unknown = || match missing_feature(path) {
        Some(feature) => format!("this ganglion was built without the feature {feature}"),
        None => format!("no module is known by {path:?}{}", value::near(path, registry.paths())),
    };
    registry.factory(path).ok_or_else(unknown)
}

/// Lets the module check its config; its panic is an error like any other.
fn check_config(factory: &dyn ModuleFactory, config: &serde_json::Value, place: &str, problems: &Problems) {
    match catch_unwind(AssertUnwindSafe(|| factory.check(config.clone()))) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let dot = if error.path.is_empty() || error.path.starts_with('[') {
                ""
            } else {
                "."
            };
            problems.push(format!("{place}{dot}{}", error.path), error.message);
        }
        Err(_panic) => problems.push(place, "the module panicked while it read its config"),
    }
}

fn module_id(value: &Value) -> Result<String, String> {
    let id = value::text(value)?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-#".contains(&byte);
    if id.is_empty() || id.len() > 255 || !id.bytes().all(fits) {
        return Err("expected 1 to 255 letters, digits, dots, dashes, underscores or #".into());
    }
    Ok(id.to_owned())
}

fn tier(value: &Value) -> Result<Tier, String> {
    let word = value::text(value)?;
    if let "process" | "wasm" = word {
        return Err(format!(
            "not in this version: {word} is still to come; use inline, actor or thread"
        ));
    }
    let found = Tier::ALL.into_iter().find(|tier| tier.as_str() == word);
    found.ok_or_else(|| {
        let near = value::near(word, Tier::ALL.map(Tier::as_str));
        format!("expected inline, actor or thread, found {word:?}{near}")
    })
}

/// What Python takes for false: Synapse gives a module `{}` instead.
fn is_falsy(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Sequence(items) => items.is_empty(),
        Value::Mapping(entries) => entries.is_empty(),
        Value::Tagged(_) => false,
    }
}
