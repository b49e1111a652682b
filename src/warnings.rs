//! What an operator should look at, though it is no error.

use std::collections::BTreeSet;
use std::time::Duration;

use ganglion_actors::ModuleState;
use ganglion_api::{FailureKind, RECOMMENDED_NAMESPACE};
use ganglion_dispatcher::{DispatchHandle, FederatedDenial, NeverDecides, PassedOver, RuleList, Why};

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
    warnings.extend(failure_rules(dispatch));
    warnings
}

/// Rules that never decide, that deny events of other servers, or that deny where nothing can be denied.
fn failure_rules(dispatch: &DispatchHandle) -> Vec<String> {
    let review = dispatch.review();
    let never = review.never.iter().map(never_decides);
    let passed_over = review.passed_over.iter().map(passed_over);
    let federated = review.federated.iter().map(|denial| {
        let module = &dispatch.modules()[denial.module];
        federated_denial(denial, module.id())
    });
    never.chain(passed_over).chain(federated).collect()
}

fn never_decides(NeverDecides { rule, why }: &NeverDecides) -> String {
    let why = match why {
        Why::NoCallback => "none of its callbacks is in one of its categories".to_owned(),
        Why::NotRegistered => match rule.list {
            RuleList::Module(_) => "this module is asked in no callback that it is for".to_owned(),
            RuleList::Global => "no module is asked in a callback that it is for".to_owned(),
        },
        Why::Origin => "the callbacks that it is for are always local, nobody acts in them".to_owned(),
        Why::Kinds(kinds) => {
            let reasons = kinds.iter().map(|kind| match kind {
                FailureKind::BreakerOpen => "breaker_open needs a breaker with mode enabled".to_owned(),
                kind => format!("{kind} does not happen in this version"),
            });
            reasons.collect::<Vec<_>>().join(", ")
        }
        Why::RulesBefore(rules) => {
            let decide = if rules.len() == 1 { "decides" } else { "decide" };
            format!("{} before it {decide} all that it is for", listed(rules))
        }
        Why::NoDenyVerdict => "it denies, and nothing that it is for can be denied".to_owned(),
    };
    format!("{rule}: it can never match: {why}")
}

fn passed_over(passed_over: &PassedOver) -> String {
    let PassedOver { rule, callbacks, .. } = passed_over;
    let elsewhere = if passed_over.never_decides {
        "; it decides nowhere else"
    } else {
        ""
    };
    format!(
        "{rule}: it denies, so it is passed over in {}, where nothing can be denied{elsewhere}",
        listed(callbacks)
    )
}

fn federated_denial(denial: &FederatedDenial, id: &str) -> String {
    let FederatedDenial {
        module,
        callback,
        effect,
        rules,
    } = denial;
    let denying = rules
        .iter()
        .map(|(rule, kinds)| format!("{rule} denies on {}", listed(kinds)));
    let denying = denying.collect::<Vec<_>>().join(", ");
    let first = rules.keys().next().map(ToString::to_string).unwrap_or_default();
    format!(
        "modules[{module}] ({id}): a failure may deny a federated event in {callback}, and {effect}: {denying}; put \
         {{ callback: {callback}, origin: federated, then: pass }} before {first}, or add origin: local to {}",
        listed(rules.keys())
    )
}

/// `a, b and c`.
fn listed<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match &items[..] {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
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
