//! The only place that knows serde_yaml's parser.

use serde::Deserialize as _;
use serde_json::{Map, Number, Value as Json};
use serde_yaml::{Deserializer, Value};

use super::section::KEYS_ARE_TEXT;

/// A document that is no YAML.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) message: String,
    /// Line and column, counted from 1.
    pub(super) location: Option<(usize, usize)>,
}

/// Parses one document and applies its merge keys (`<<`).
pub(super) fn parse(text: &str) -> Result<Value, SyntaxError> {
    let mut documents = Deserializer::from_str(text);
    let Some(first) = documents.next() else {
        return Ok(Value::Null);
    };
    let mut document = Value::deserialize(first).map_err(|error| syntax_error(&error))?;
    if documents.next().is_some() {
        return Err(SyntaxError {
            message: "expected one YAML document, found several".into(),
            location: None,
        });
    }
    document.apply_merge().map_err(|error| syntax_error(&error))?;
    Ok(document)
}

fn syntax_error(error: &serde_yaml::Error) -> SyntaxError {
    let location = error.location().map(|location| (location.line(), location.column()));
    let text = error.to_string();
    // The location stands in front already.
    let message = match text.split(" at line ").next().unwrap_or(&text) {
        "recursion limit exceeded" => "nested too deeply, or an alias that holds itself",
        "repetition limit exceeded" => "aliases repeat too much",
        message => message,
    };
    SyntaxError {
        message: message.to_owned(),
        location,
    }
}

/// A value for a native module, which reads JSON. `Err` holds the place and what is wrong there.
pub(super) fn to_json(value: &Value, path: &str) -> Result<Json, (String, String)> {
    let refuse = |message: &str| Err((path.to_owned(), message.to_owned()));
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(flag) => Json::Bool(*flag),
        Value::String(text) => Json::String(text.clone()),
        Value::Number(number) => {
            let json = number
                .as_i64()
                .map(Number::from)
                .or_else(|| number.as_u64().map(Number::from))
                .or_else(|| Number::from_f64(number.as_f64()?));
            match json {
                Some(json) => Json::Number(json),
                None => return refuse("infinity and not-a-number cannot be given to a module"),
            }
        }
        Value::Sequence(items) => {
            let items = items.iter().enumerate();
            Json::Array(
                items
                    .map(|(index, item)| to_json(item, &format!("{path}[{index}]")))
                    .collect::<Result<_, _>>()?,
            )
        }
        Value::Mapping(entries) => {
            let mut object = Map::new();
            for (key, value) in entries {
                let Value::String(key) = key else {
                    return refuse(KEYS_ARE_TEXT);
                };
                object.insert(key.clone(), to_json(value, &format!("{path}.{key}"))?);
            }
            Json::Object(object)
        }
        Value::Tagged(tagged) => return refuse(&format!("the tag {} is not known", tagged.tag)),
    })
}
