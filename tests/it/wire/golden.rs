//! The golden messages, which the other side reads too.

use std::path::Path;

use ganglion::api::wire::{self, Incoming};
use serde_json::{Value, json};

#[test]
fn the_golden_messages_are_read_and_written_as_they_are() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/wire.json");
    let golden: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    for golden in &golden {
        let (name, message) = (golden["name"].as_str().unwrap(), &golden["message"]);
        let text = message.to_string();
        let written = match Incoming::read(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}")) {
            Incoming::Request { id, method, params } => {
                let params = again(&method, params.unwrap().get());
                wire::request(id, &method, &params)
            }
            Incoming::Notification { method, params } => {
                wire::notification(&method, &again(&method, params.unwrap().get()))
            }
            Incoming::Answer { id, result: Err(error) } => wire::error(id, &error),
            Incoming::Answer { id, result: Ok(result) } => {
                let result = result.unwrap().get();
                let id = id.unwrap();
                match name {
                    "hello_answer" => wire::result(id, &serde_json::from_str::<wire::Welcome>(result).unwrap()),
                    "state_get_answer" => wire::result(id, &serde_json::from_str::<wire::StateGot>(result).unwrap()),
                    "state_page_answer" => {
                        wire::result(id, &serde_json::from_str::<wire::StateEventsPage>(result).unwrap())
                    }
                    "media_read_answer" => wire::result(id, &serde_json::from_str::<wire::MediaPart>(result).unwrap()),
                    _ => wire::result(id, &serde_json::from_str::<Value>(result).unwrap()),
                }
            }
        };
        let written: Value = serde_json::from_slice(&written.unwrap()).unwrap();
        assert_eq!(&written, message, "{name}");
    }
    assert_eq!(golden.len(), 28);
}

/// The params of a method, read into their type and written again.
fn again(method: &str, params: &str) -> Value {
    fn through<'a, T: serde::Deserialize<'a> + serde::Serialize>(params: &'a str) -> Value {
        json!(serde_json::from_str::<T>(params).unwrap())
    }
    match method {
        wire::method::HELLO => through::<wire::Hello>(params),
        wire::method::ANNOUNCE => through::<wire::Announcement>(params),
        wire::method::CALLBACK => through::<wire::Ask<'_>>(params),
        wire::method::CONTINUE => through::<wire::GoOn>(params),
        wire::method::STATE_GET => through::<wire::StateGet<'_>>(params),
        wire::method::STATE_PAGE => through::<wire::StateFrom<'_>>(params),
        wire::method::MEDIA_READ => through::<wire::MediaRead<'_>>(params),
        wire::method::MODULE_API => through::<wire::ModuleApiCall<'_>>(params),
        wire::method::CANCEL => through::<wire::Cancel>(params),
        wire::method::GOODBYE => through::<wire::Goodbye<'_>>(params),
        other => panic!("{other} is in no golden message"),
    }
}
