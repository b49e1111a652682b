//! The modules that ship.

#[cfg(feature = "sqlite")]
mod account_expiry;
mod canned;
mod demo;
#[cfg(feature = "http-client")]
mod department_lookup;
mod duration;
mod globs;
#[cfg(feature = "http-client")]
mod http_antispam;
#[cfg(feature = "http-client")]
mod http_client;
mod keyword_filter;
mod list_file;
mod media_guard;
mod registration_guard;
#[cfg(any(feature = "http-client", feature = "sqlite"))]
mod secret;
mod server_rules;

use ganglion_api::Registry;

#[cfg(feature = "sqlite")]
pub use self::account_expiry::AccountExpiry;
pub use self::canned::Canned;
pub use self::demo::DemoModule;
#[cfg(feature = "http-client")]
pub use self::department_lookup::DepartmentLookup;
pub use self::globs::{Glob, GlobError, GlobSet, TooManyGlobs};
#[cfg(feature = "http-client")]
pub use self::http_antispam::HttpAntispam;
pub use self::keyword_filter::KeywordFilter;
pub use self::media_guard::MediaGuard;
pub use self::registration_guard::RegistrationGuard;
pub use self::server_rules::ServerRules;

/// The modules that need a feature of this crate, and whether it is there.
const WITH_FEATURES: [(&str, &str, bool); 3] = [
    ("ganglion.modules.AccountExpiry", "sqlite", cfg!(feature = "sqlite")),
    (
        "ganglion.modules.DepartmentLookup",
        "http-client",
        cfg!(feature = "http-client"),
    ),
    (
        "ganglion.modules.HttpAntispam",
        "http-client",
        cfg!(feature = "http-client"),
    ),
];

/// The feature without which this one was built, and without which there is no module of this path.
pub(crate) fn missing_feature(path: &str) -> Option<&'static str> {
    let mut missing = WITH_FEATURES.iter().filter(|(_, _, is_there)| !is_there);
    missing.find(|(of, _, _)| *of == path).map(|(_, feature, _)| *feature)
}

/// The modules that ship, under their `module:` paths.
#[must_use]
pub fn registry() -> Registry {
    let registry = Registry::new()
        .with::<DemoModule>("demo.DemoModule")
        .with::<KeywordFilter>("ganglion.modules.KeywordFilter")
        .with::<Canned>("ganglion.modules.Canned")
        .with::<MediaGuard>("ganglion.modules.MediaGuard")
        .with::<RegistrationGuard>("ganglion.modules.RegistrationGuard")
        .with::<ServerRules>("ganglion.modules.ServerRules");
    #[cfg(feature = "sqlite")]
    let registry = registry.with::<AccountExpiry>("ganglion.modules.AccountExpiry");
    #[cfg(feature = "http-client")]
    let registry = registry
        .with::<DepartmentLookup>("ganglion.modules.DepartmentLookup")
        .with::<HttpAntispam>("ganglion.modules.HttpAntispam");
    registry
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn a_module_is_there_or_its_feature_is_said_to_be_missing() {
        for (path, feature, is_there) in WITH_FEATURES {
            assert_eq!(registry().factory(path).is_some(), is_there, "{path}");
            let yaml = format!("{{server_name: example.com, modules: [{{module: {path}}}]}}");
            let refusal = Config::from_yaml(&yaml, "ganglion.yaml", &registry())
                .unwrap_err()
                .to_string();
            let reason = format!("modules[0].module: this ganglion was built without the feature {feature}");
            assert_eq!(refusal.contains(&reason), !is_there, "{refusal}");
        }
    }
}
