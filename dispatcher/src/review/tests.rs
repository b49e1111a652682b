use ganglion_api::{Category, spec};
use proptest::prelude::*;

use super::*;
use crate::policy::Policy;

fn module<'a>(rules: &'a [FailureRule], callbacks: &[&'static str]) -> Reviewed<'a> {
    Reviewed {
        rules,
        callbacks: Some(callbacks.iter().copied().collect()),
        breakers_refuse: true,
    }
}

fn disabled(rules: &[FailureRule]) -> Reviewed<'_> {
    Reviewed {
        rules,
        callbacks: None,
        breakers_refuse: true,
    }
}

/// A rule for one callback.
fn of(callback: &'static str, then: Then) -> FailureRule {
    FailureRule {
        callbacks: [callback].into(),
        ..FailureRule::all(then)
    }
}

fn federated(then: Then) -> FailureRule {
    FailureRule {
        origin: Some(Origin::Federated),
        ..FailureRule::all(then)
    }
}

fn place(list: RuleList, index: usize) -> RulePlace {
    RulePlace { list, index }
}

/// The rules that never decide, by their paths.
fn never(modules: &[Reviewed<'_>], global: &[FailureRule]) -> Vec<(String, Why)> {
    let never = review(modules, global).never.into_iter();
    never.map(|found| (found.rule.to_string(), found.why)).collect()
}

#[test]
fn a_rule_for_a_callback_that_nobody_registered_never_decides() {
    let own = [of("user_may_invite", Then::Pass)];
    let global = [of("user_may_invite", Then::Pass), of("on_new_event", Then::Error)];
    let modules = [module(&own, &["on_new_event"]), module(&[], &["user_may_join_room"])];
    assert_eq!(
        never(&modules, &global),
        [
            ("modules[0].on_failure[0]".to_owned(), Why::NotRegistered),
            ("on_failure[0]".to_owned(), Why::NotRegistered),
        ]
    );
    assert_eq!(
        never(&[], &global[..1]),
        [("on_failure[0]".to_owned(), Why::NotRegistered)]
    );
}

#[test]
fn of_a_disabled_module_anything_may_be_registered() {
    let own = [of("user_may_invite", Then::Deny), federated(Then::Deny)];
    let global = [of("user_may_join_room", Then::Deny), of("on_update", Then::Pass)];
    let found = review(&[disabled(&own), module(&[], &["check_event_for_spam"])], &global);
    assert_eq!(found, Review::default());
}

#[test]
fn what_cannot_be_is_cannot_be_of_a_disabled_module_either() {
    let rules = [
        FailureRule {
            categories: [Category::Federation].into(),
            ..of("user_may_invite", Then::Pass)
        },
        FailureRule {
            origin: Some(Origin::Federated),
            ..of("on_update", Then::Pass)
        },
        FailureRule {
            kinds: [FailureKind::Protocol].into(),
            ..FailureRule::all(Then::Pass)
        },
        FailureRule {
            categories: [Category::AccountValidity].into(),
            ..FailureRule::all(Then::Deny)
        },
    ];
    let whys = never(&[disabled(&rules)], &[]).into_iter().map(|(_, why)| why);
    assert_eq!(
        whys.collect::<Vec<_>>(),
        [
            Why::NoCallback,
            Why::Origin,
            Why::Kinds([FailureKind::Protocol].into()),
            Why::NoDenyVerdict,
        ]
    );
}

#[test]
fn a_breaker_that_refuses_nothing_gives_no_breaker_open() {
    let rules = [FailureRule {
        kinds: [FailureKind::BreakerOpen, FailureKind::Protocol].into(),
        ..FailureRule::all(Then::Pass)
    }];
    let mut module = module(&[], &["user_may_invite"]);
    assert_eq!(never(&[module], &rules), []);
    module = self::module(&[], &["user_may_invite"]);
    module.breakers_refuse = false;
    assert_eq!(
        never(&[module], &rules),
        [("on_failure[0]".to_owned(), Why::Kinds(rules[0].kinds.clone()))]
    );
}

#[test]
fn rules_before_that_match_all_are_named() {
    let local = FailureRule {
        origin: Some(Origin::Local),
        ..FailureRule::all(Then::Error)
    };
    let global = [
        federated(Then::Pass),
        local,
        of("user_may_invite", Then::Synapse),
        of("user_may_join_room", Then::Synapse),
    ];
    let own = [of("user_may_join_room", Then::Pass)];
    let modules = [module(&own, &["user_may_join_room"]), module(&[], &["user_may_invite"])];
    assert_eq!(
        never(&modules, &global),
        [
            (
                "on_failure[2]".to_owned(),
                Why::RulesBefore([place(RuleList::Global, 0), place(RuleList::Global, 1)].into())
            ),
            (
                "on_failure[3]".to_owned(),
                Why::RulesBefore([place(RuleList::Module(0), 0)].into())
            ),
        ]
    );
}

#[test]
fn a_failure_that_denies_an_event_of_another_server_is_found_with_its_rules() {
    let own = [FailureRule {
        kinds: [FailureKind::Panicked, FailureKind::Protocol].into(),
        ..of("check_event_for_spam", Then::Deny)
    }];
    let global = [
        FailureRule {
            kinds: [FailureKind::Panicked, FailureKind::Overloaded].into(),
            ..FailureRule::all(Then::Deny)
        },
        FailureRule {
            origin: Some(Origin::Local),
            ..FailureRule::all(Then::Deny)
        },
    ];
    let callbacks = ["check_event_for_spam", "user_may_invite"];
    let passes = [FailureRule {
        origin: Some(Origin::Federated),
        ..of("check_event_for_spam", Then::Pass)
    }];
    let modules = [module(&own, &callbacks), module(&passes, &callbacks)];
    let found = review(&modules, &global);
    assert_eq!(found.never, []);
    let [denial] = &found.federated[..] else {
        panic!("{found:?}");
    };
    assert_eq!((denial.module, denial.callback), (0, "check_event_for_spam"));
    assert_eq!(
        denial.rules,
        [
            (place(RuleList::Module(0), 0), [FailureKind::Panicked].into()),
            (place(RuleList::Global, 0), [FailureKind::Overloaded].into()),
        ]
        .into()
    );
}

#[test]
fn a_deny_rule_is_told_where_it_is_passed_over() {
    let callbacks = ["is_user_expired", "user_may_invite", "on_update"];
    let global = [of("on_update", Then::Pass), FailureRule::all(Then::Deny)];
    let found = review(&[module(&[], &callbacks)], &global);
    assert_eq!(
        found.passed_over,
        [PassedOver {
            rule: place(RuleList::Global, 1),
            callbacks: ["is_user_expired"].into(),
            never_decides: false,
        }]
    );
    // It decides nothing at all, which is said once.
    let found = review(&[module(&[], &callbacks[..1])], &global[1..]);
    assert_eq!(found.never, []);
    assert!(found.passed_over[0].never_decides);
}

/// With and without a deny verdict, with and without an acting user.
const CALLBACKS: [&str; 6] = [
    "check_event_for_spam",
    "check_media_file_for_spam",
    "federated_user_may_invite",
    "is_user_expired",
    "on_create_room",
    "on_update",
];

fn some<T: Clone + fmt::Debug + Ord + 'static>(all: &[T]) -> impl Strategy<Value = BTreeSet<T>> + use<T> {
    let picked = proptest::sample::subsequence(all.to_vec(), 0..=all.len());
    picked.prop_map(|picked| picked.into_iter().collect())
}

/// Often the empty set, which matches everything.
fn named<T: Clone + fmt::Debug + Ord + 'static>(all: &[T]) -> impl Strategy<Value = BTreeSet<T>> + use<T> {
    prop_oneof![1 => Just(BTreeSet::new()), 1 => some(all)]
}

fn rules() -> impl Strategy<Value = Vec<FailureRule>> {
    let rule = (
        named(&CALLBACKS),
        named(&[Category::SpamChecker, Category::BackgroundUpdateController]),
        named(&FailureKind::ALL),
        proptest::option::of(proptest::sample::select(Origin::ALL.to_vec())),
        proptest::sample::select(Then::ALL.to_vec()),
    );
    let rule = rule.prop_map(|(callbacks, categories, kinds, origin, then)| FailureRule {
        callbacks,
        categories,
        kinds,
        origin,
        then,
    });
    proptest::collection::vec(rule, 0..4)
}

#[derive(Debug, Clone)]
struct Drawn {
    rules: Vec<FailureRule>,
    callbacks: Option<BTreeSet<&'static str>>,
    breakers_refuse: bool,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let callbacks = prop_oneof![4 => some(&CALLBACKS).prop_map(Some), 1 => Just(None)];
    (rules(), callbacks, any::<bool>()).prop_map(|(rules, callbacks, breakers_refuse)| Drawn {
        rules,
        callbacks,
        breakers_refuse,
    })
}

fn reviewed(modules: &[Drawn]) -> Vec<Reviewed<'_>> {
    let reviewed = modules.iter().map(|drawn| Reviewed {
        rules: &drawn.rules,
        callbacks: drawn.callbacks.clone(),
        breakers_refuse: drawn.breakers_refuse,
    });
    reviewed.collect()
}

/// What every failure that can happen counts as, by the policies that chains use.
fn resolved(modules: &[Drawn], global: &[FailureRule], denials_only: bool) -> Vec<Then> {
    let mut all = Vec::new();
    for module in modules {
        for callback in reference() {
            let known = module.callbacks.as_ref();
            let skipped = denials_only && !callback.combine.has_deny_verdict();
            if skipped || known.is_some_and(|known| !known.contains(callback.name)) {
                continue;
            }
            let policy = Policy::resolve(&module.rules, global, callback);
            for kind in FailureKind::ALL {
                let happens =
                    kind != FailureKind::Protocol && (kind != FailureKind::BreakerOpen || module.breakers_refuse);
                if happens {
                    all.push(policy.then(kind, Origin::Local));
                    all.extend(callback.acting.map(|_| policy.then(kind, Origin::Federated)));
                }
            }
        }
    }
    all
}

/// The list that a place is in.
fn list_of<'a>(
    place: RulePlace,
    modules: &'a mut [Drawn],
    global: &'a mut Vec<FailureRule>,
) -> &'a mut Vec<FailureRule> {
    match place.list {
        RuleList::Module(module) => &mut modules[module].rules,
        RuleList::Global => global,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rule_never_decides_if_and_only_if_it_changes_nothing(
        modules in proptest::collection::vec(drawn(), 1..4),
        global in rules(),
    ) {
        let reviewed = reviewed(&modules);
        let found = review(&reviewed, &global);
        let never: BTreeSet<_> = found.never.iter().map(|found| found.rule)
            .chain(found.passed_over.iter().filter(|found| found.never_decides).map(|found| found.rule))
            .collect();
        let [everywhere, where_denied] = [false, true].map(|denials_only| resolved(&modules, &global, denials_only));
        let own = modules.iter().enumerate().flat_map(|(module, drawn)| placed(RuleList::Module(module), &drawn.rules));
        for (place, rule) in own.chain(placed(RuleList::Global, &global)) {
            let (mut without, mut global_without) = (modules.clone(), global.clone());
            list_of(place, &mut without, &mut global_without).remove(place.index);
            if never.contains(&place) {
                prop_assert_eq!(
                    &everywhere, &resolved(&without, &global_without, false), "{}", place
                );
                continue;
            }
            // It decides somewhere: with another word it says something else there. Only a deny rule says more with
            // another word, where nothing can be denied.
            let (mut other, mut global_other) = (modules.clone(), global.clone());
            list_of(place, &mut other, &mut global_other)[place.index].then =
                if rule.then == Then::Pass { Then::Error } else { Then::Pass };
            let denies = rule.then == Then::Deny;
            prop_assert_ne!(
                if denies { &where_denied } else { &everywhere },
                &resolved(&other, &global_other, denies),
                "{}", place
            );
        }
    }

    #[test]
    fn a_federated_event_is_denied_where_the_policy_says_so_and_nowhere_else(
        modules in proptest::collection::vec(drawn(), 1..4),
        global in rules(),
    ) {
        let reviewed = reviewed(&modules);
        let found = review(&reviewed, &global);
        for (module, drawn) in modules.iter().enumerate() {
            for callback in CALLBACKS {
                let asked = ["check_event_for_spam", "federated_user_may_invite"].contains(&callback)
                    && drawn.callbacks.as_ref().is_some_and(|known| known.contains(callback));
                let policy = Policy::resolve(&drawn.rules, &global, spec(callback).unwrap());
                let denied: BTreeSet<_> = reviewed[module].kinds()
                    .filter(|kind| asked && policy.then(*kind, Origin::Federated) == Then::Deny)
                    .collect();
                let said = found.federated.iter().filter(|said| (said.module, said.callback) == (module, callback));
                let said: BTreeSet<_> = said.flat_map(|said| said.rules.values().flatten().copied()).collect();
                prop_assert_eq!(said, denied);
            }
        }
    }
}
