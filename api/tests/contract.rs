//! The contract as a whole: the reference, and what must not compile.

use ganglion_api::reference;
use serde_json::{Value, json};

#[test]
fn the_reference_is_the_documented_one() {
    let documented: Value = serde_json::from_str(include_str!("../../tests/golden/reference.json")).unwrap();
    let documented = documented.as_array().unwrap();
    assert_eq!(documented.len(), 52);
    for (spec, documented) in reference().iter().zip(documented) {
        assert_eq!(&json!(spec), documented);
    }
    assert_eq!(reference().len(), documented.len());
}

#[test]
fn mistakes_of_module_authors_do_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*.rs");
}

#[test]
fn the_crate_of_module_authors_has_no_runtime_and_no_web_framework() {
    let tree = std::process::Command::new(env!("CARGO"))
        .args([
            "tree",
            "--package",
            "ganglion-api",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.contains("serde_json"), "{tree}");
    for runtime in ["tokio", "actix", "actix-web", "futures-executor"] {
        assert!(
            !tree.lines().any(|line| line.starts_with(&format!("{runtime} "))),
            "{runtime}"
        );
    }
}
