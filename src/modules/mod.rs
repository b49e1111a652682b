//! The modules that ship.

mod canned;
mod demo;
mod duration;
mod keyword_filter;
mod list_file;

use ganglion_api::Registry;

pub use self::canned::Canned;
pub use self::demo::DemoModule;
pub use self::keyword_filter::KeywordFilter;

/// The modules that ship, under their `module:` paths.
#[must_use]
pub fn registry() -> Registry {
    Registry::new()
        .with::<DemoModule>("demo.DemoModule")
        .with::<KeywordFilter>("ganglion.modules.KeywordFilter")
        .with::<Canned>("ganglion.modules.Canned")
}
