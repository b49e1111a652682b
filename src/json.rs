//! Reads JSON of strangers, up to a depth.

use serde::Deserialize;

/// How deeply JSON may be nested: twice what Synapse accepts of an event, and far from what a stack holds.
const MAX_NESTING: usize = 256;

/// Why JSON was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It is nested too deeply.
    #[error("nested too deeply")]
    TooDeep,
    /// It is no JSON, or not of the type that was wanted.
    #[error("{}", without_values(.0))]
    NotJson(#[from] serde_json::Error),
}

/// What is wrong, and where. Serde's own words about a wrong type repeat the value, which may be secret.
fn without_values(error: &serde_json::Error) -> String {
    if error.is_data() {
        format!("a key is missing or of another type, before column {}", error.column())
    } else {
        error.to_string()
    }
}

/// Reads a whole text.
pub(crate) fn read<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, ReadError> {
    if brackets(text) > MAX_NESTING && nesting(text) > MAX_NESTING {
        return Err(ReadError::TooDeep);
    }
    // serde_json's own limit is that of a bare event in Synapse; an event inside of args lies deeper, and one that was
    // refused here could pass by its sender's `fail_open`.
    let mut json = serde_json::Deserializer::from_slice(text);
    json.disable_recursion_limit();
    let value = T::deserialize(&mut json)?;
    json.end()?;
    Ok(value)
}

/// How many brackets open, those in strings too: no text is nested more deeply, and most have so few that nobody need look
/// closer.
fn brackets(json: &[u8]) -> usize {
    json.iter().filter(|byte| matches!(byte, b'[' | b'{')).count()
}

/// How deeply brackets outside of strings are nested.
fn nesting(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_repeats_no_value() {
        #[derive(Debug, Deserialize)]
        struct Wanted {
            #[expect(dead_code, reason = "only read")]
            token: u8,
        }
        for text in [r#"{"token": "s3cret"}"#, r#"{"token": 123456}"#, r#"{"token": "s3cret"#] {
            let error = read::<Wanted>(text.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains("s3cret") && !error.contains("123456"), "{error}");
            assert!(error.contains("column"), "{error}");
        }
    }

    #[test]
    fn brackets_in_strings_nest_nothing() {
        assert_eq!(nesting(br#"{"a": ["[[", "\"[{", {}], "b": []}"#), 3);
        assert_eq!(nesting(b"]]]["), 1);
        assert_eq!(brackets(br#"{"a": ["[[", "\"[{", {}], "b": []}"#), 8);
    }
}
