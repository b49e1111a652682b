//! Failure rules, global and of a module.

use std::collections::BTreeSet;

use ganglion_api::{CallbackSpec, Category, FailureKind, Then, reference, spec};
use ganglion_dispatcher::{FailureRule, Origin};
use serde_yaml::Value;

use super::section::Section;
use super::value::{near, text, texts};

/// Reads the key `on_failure` of a section.
pub(super) fn read(section: &mut Section<'_>) -> Vec<FailureRule> {
    let problems = section.problems();
    let rules = section.list("on_failure");
    rules
        .into_iter()
        .filter_map(|(path, rule)| read_rule(Section::open(rule, path, problems)))
        .collect()
}

fn read_rule(mut section: Section<'_>) -> Option<FailureRule> {
    let callbacks = section.or("callback", Vec::new(), |value| each(value, callback));
    let categories = section.or("category", BTreeSet::new(), |value| each(value, category));
    let kinds = section.or("kind", BTreeSet::new(), |value| each(value, kind));
    let origin = section.optional("origin", origin);
    let then = section.required("then", then);
    let then = then.inspect(|then| {
        if let Some(callback) = callbacks
            .iter()
            .find(|spec| *then == Then::Deny && !spec.combine.has_deny_verdict())
        {
            let message = format!("{} has no deny verdict: use pass, error or synapse", callback.name);
            section.problems().push(section.path("then"), message);
        }
    });
    section.finish();
    Some(FailureRule {
        callbacks: callbacks.iter().map(|spec| spec.name).collect(),
        categories,
        kinds,
        origin,
        then: then?,
    })
}

/// One word or a list of words, each understood.
fn each<T, C: FromIterator<T>>(value: &Value, read: impl Fn(&str) -> Result<T, String>) -> Result<C, String> {
    let words = texts(value)?;
    if words.is_empty() {
        // Nothing named would mean that everything matches: too much for a slip.
        return Err("expected at least one; leave the key out to match all".into());
    }
    words.into_iter().map(read).collect()
}

fn callback(name: &str) -> Result<&'static CallbackSpec, String> {
    spec(name).ok_or_else(|| {
        format!(
            "unknown callback {name:?}{}",
            near(name, reference().iter().map(|spec| spec.name))
        )
    })
}

fn category(word: &str) -> Result<Category, String> {
    Category::from_word(word).ok_or_else(|| {
        format!(
            "unknown category {word:?}{}",
            near(word, Category::ALL.map(Category::as_str))
        )
    })
}

fn kind(word: &str) -> Result<FailureKind, String> {
    FailureKind::from_word(word).ok_or_else(|| {
        format!(
            "unknown kind {word:?}{}",
            near(word, FailureKind::ALL.map(FailureKind::as_str))
        )
    })
}

fn origin(value: &Value) -> Result<Origin, String> {
    let word = text(value)?;
    Origin::from_word(word).ok_or_else(|| {
        let hint = near(word, Origin::ALL.map(Origin::as_str));
        format!("expected local or federated, found {word:?}{hint}")
    })
}

fn then(value: &Value) -> Result<Then, String> {
    let word = text(value)?;
    let found = Then::ALL.into_iter().find(|then| then.as_str() == word);
    found.ok_or_else(|| format!("expected pass, deny, error or synapse, found {word:?}"))
}
