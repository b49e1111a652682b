//! Every combine rule through HTTP, with chains of `Canned` modules. What is expected is what Synapse's own composition
//! gave for the same answers: `tests/synapse/combine.py` made the data.

use serde_json::{Value, json};

use crate::support::{TestServer, canned, with_modules};

/// Callbacks that a module must register together with the one that a case is about.
fn company(callback: &str) -> Option<(&'static str, Value)> {
    match callback {
        "default_batch_size" | "min_batch_size" => Some(("on_update", json!({"value": {"duration_ms": 100}}))),
        "get_users_for_states" => Some(("get_interested_users", json!({"value": []}))),
        "get_interested_users" => Some(("get_users_for_states", json!({"value": {}}))),
        _ => None,
    }
}

fn modules(case: &Value) -> Value {
    let callback = case["callback"].as_str().unwrap();
    let chain = case["chain"].as_array().unwrap().iter().enumerate();
    let modules = chain.map(|(index, answer)| {
        let mut answers = json!({ callback: answer });
        if let Some((other, answer)) = company(callback) {
            answers[other] = answer;
        }
        canned(&index.to_string(), &answers)
    });
    modules.collect()
}

/// Arrays that stand for sets have no order.
fn without_order(callback: &str, mut outcome: Value) -> Value {
    fn sort(value: &mut Value) {
        match value {
            Value::Array(items) => items.sort_by_key(Value::to_string),
            Value::Object(entries) => entries.values_mut().for_each(sort),
            _ => {}
        }
    }
    if matches!(callback, "get_users_for_states" | "get_interested_users") {
        sort(&mut outcome["value"]);
    }
    outcome
}

#[test]
fn every_chain_of_answers_ends_as_in_synapse() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../golden/combine.json")).unwrap();
    assert!(cases.len() > 100, "{}", cases.len());
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let callback = case["callback"].as_str().unwrap();
        let server = TestServer::start(&with_modules(&modules(&case).to_string()));
        let decision = server.decide(callback, &case["args"]);
        let outcome = without_order(callback, decision["outcome"].clone());
        assert_eq!(
            outcome,
            without_order(callback, case["outcome"].clone()),
            "{name}: {decision}"
        );
        let asked = decision["steps"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|step| step["result"] != "skipped");
        let asked: Vec<usize> = asked
            .map(|step| step["module"].as_str().unwrap().parse().unwrap())
            .collect();
        assert_eq!(json!(asked), case["asked"], "{name}: {decision}");
    }
}
