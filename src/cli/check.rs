//! `ganglion check`.

use std::fmt::Write as _;
use std::path::Path;

use ganglion_api::Registry;

use super::print;
use crate::config::Config;
use crate::ganglion::Ganglion;
use crate::plain::plain;

/// Loads everything that `serve` would, and says what it would do. Nothing listens, no background call begins.
pub(super) fn check(file: &Path, registry: &Registry) -> anyhow::Result<()> {
    let config = Config::from_file(file, registry)?;
    let ganglion = actix_web::rt::System::new().block_on(Ganglion::load(&config))?;
    print(&report(&config, &ganglion))?;
    Ok(())
}

fn report(config: &Config, ganglion: &Ganglion) -> String {
    let dispatch = ganglion.dispatch();
    let mut text = String::new();
    let (routes, resources) = (dispatch.routes(), dispatch.resources());
    for (spec, modules) in routes.overview().filter(|(_, modules)| !modules.is_empty()) {
        let order: Vec<_> = modules.iter().map(ganglion_actors::ModuleHandle::id).collect();
        let _ = writeln!(text, "{}: {}", spec.name, order.join(" > "));
    }
    for mounted in resources.mounted() {
        let _ = writeln!(text, "{}: {}", plain(&mounted.path.to_string()), mounted.module().id());
    }
    for module in config.modules.iter().filter(|module| !module.is_enabled()) {
        let _ = writeln!(text, "disabled: {}", module.id);
    }
    let warnings = ganglion.warnings();
    for warning in &warnings {
        let _ = writeln!(text, "warning: {}", plain(warning));
    }
    let modules = config.modules.iter().filter(|module| module.is_enabled()).count();
    let _ = writeln!(text, "ok: {modules} modules, {} warnings", warnings.len());
    text
}
