//! What an operator should look at, though it is no error.

use std::collections::BTreeSet;
use std::time::Duration;

use ganglion_actors::ModuleState;
use ganglion_api::RECOMMENDED_NAMESPACE;
use ganglion_dispatcher::DispatchHandle;

/// The warnings about modules that were loaded together.
pub(crate) fn of(dispatch: &DispatchHandle) -> Vec<String> {
    let mut warnings = never_asked(dispatch);
    let routes = dispatch.routes();
    warnings.extend(routes.ignored().iter().map(|(module, spec)| {
        format!(
            "module {module}: its {} is ignored, another module controls background updates",
            spec.name
        )
    }));
    let resources = dispatch.resources();
    warnings.extend(resources.shadowed().iter().map(|(module, path)| {
        let first = resources.mounted().find(|mounted| mounted.path == *path);
        let first = first.map_or("another", |mounted| mounted.module().id());
        format!("module {module}: its web resource {path} is never asked, module {first} is before it and has the path")
    }));
    warnings.extend(resources.outside_namespace().map(|mounted| {
        let module = mounted.module().id();
        format!(
            "module {module}: its web resource {} is outside of {RECOMMENDED_NAMESPACE}",
            mounted.path
        )
    }));
    warnings.extend(long_chains(dispatch));
    warnings
}

/// Modules on no route and with no resource.
fn never_asked(dispatch: &DispatchHandle) -> Vec<String> {
    let mut asked: BTreeSet<&str> = BTreeSet::new();
    let (routes, resources) = (dispatch.routes(), dispatch.resources());
    for (_, modules) in routes.overview() {
        asked.extend(modules.iter().map(ganglion_actors::ModuleHandle::id));
    }
    asked.extend(resources.mounted().map(|mounted| mounted.module().id()));
    let enabled = dispatch
        .modules()
        .iter()
        .filter(|module| module.state() != ModuleState::Disabled);
    let modules = enabled.filter(|module| !asked.contains(module.id()));
    modules
        .map(|module| {
            format!(
                "module {}: it can never be asked, it has no callback and no web resource",
                module.id()
            )
        })
        .collect()
}

/// Chains whose modules may together take longer than the chain may.
fn long_chains(dispatch: &DispatchHandle) -> Vec<String> {
    let deadline = dispatch.deadline();
    let routes = dispatch.routes();
    let chains = routes.overview().filter_map(|(spec, modules)| {
        let budgets: Duration = modules.iter().map(|module| module.limits().call_timeout).sum();
        (budgets > deadline).then(|| {
            format!(
                "{}: the call_timeout of its modules add up to {}, the deadline of a chain is {}",
                spec.name,
                humantime::format_duration(budgets),
                humantime::format_duration(deadline)
            )
        })
    });
    chains.collect()
}
