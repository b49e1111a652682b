//! One golden request and answer for each callback, in `tests/golden/callbacks/`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ganglion::api::reference;
use serde_json::{Value, json};

use crate::support::{TestServer, canned, normalized, with_modules};

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/callbacks")
}

/// The modules of a golden file: `a`, `b`, … each with its answer, and with what `also` says.
fn modules(callback: &str, golden: &Value) -> Value {
    let answers = golden["answers"].as_array().unwrap();
    let modules = answers.iter().zip('a'..).map(|(answer, id)| {
        let mut answers = golden["also"].as_object().cloned().unwrap_or_default();
        answers.insert(callback.into(), answer.clone());
        canned(&id.to_string(), &json!(answers))
    });
    modules.collect()
}

#[test]
fn every_callback_answers_as_its_golden_file_says() {
    for spec in reference() {
        let file = directory().join(spec.name).with_extension("json");
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let golden: Value = serde_json::from_str(&text).unwrap();
        let server = TestServer::start(&with_modules(&modules(spec.name, &golden).to_string()));
        let decision = normalized(server.decide(spec.name, &golden["args"]));
        assert_eq!(decision, golden["response"], "{}", spec.name);
    }
}

#[test]
fn there_is_a_golden_file_for_each_callback_and_no_other() {
    let files = std::fs::read_dir(directory()).unwrap();
    let files: BTreeSet<_> = files
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let names: BTreeSet<_> = reference().iter().map(|spec| spec.name.to_owned()).collect();
    assert_eq!(files, names);
}

#[test]
fn a_golden_request_has_the_args_of_the_reference() {
    for spec in reference() {
        let text = std::fs::read_to_string(directory().join(spec.name).with_extension("json")).unwrap();
        let golden: Value = serde_json::from_str(&text).unwrap();
        let given = golden["args"].as_object().unwrap();
        for arg in spec.args {
            assert!(
                arg.optional || given.contains_key(arg.name),
                "{}: {}",
                spec.name,
                arg.name
            );
        }
        let known: BTreeSet<_> = spec.args.iter().map(|arg| arg.name).collect();
        assert!(given.keys().all(|key| known.contains(key.as_str())), "{}", spec.name);
    }
}
