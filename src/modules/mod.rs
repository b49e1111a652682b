//! The modules that ship.

#[cfg(feature = "sqlite")]
mod account_expiry;
mod canned;
mod demo;
mod duration;
mod globs;
mod keyword_filter;
mod list_file;
mod media_guard;
mod registration_guard;
mod server_rules;

use ganglion_api::Registry;

#[cfg(feature = "sqlite")]
pub use self::account_expiry::AccountExpiry;
pub use self::canned::Canned;
pub use self::demo::DemoModule;
pub use self::globs::{Glob, GlobError, GlobSet, TooManyGlobs};
pub use self::keyword_filter::KeywordFilter;
pub use self::media_guard::MediaGuard;
pub use self::registration_guard::RegistrationGuard;
pub use self::server_rules::ServerRules;

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
    registry
}
