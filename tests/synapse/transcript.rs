//! What two homeservers said, made comparable: whatever is random or a time is replaced by its kind.

use crate::client::Reply;

/// One line for a reply.
pub(crate) fn line(request: &str, reply: &Reply) -> String {
    plain(&format!("{request} -> {} {}", reply.status, reply.text))
}

/// The text with ids, tokens and times replaced by their kinds. All other bytes are kept.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| is_part(c)) {
        let (before, from) = rest.split_at(start);
        plain.push_str(before);
        let end = from.find(|c: char| !is_part(c)).unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        let key = plain.rsplit('"').nth(1).unwrap_or_default();
        plain.push_str(kind(key, word).unwrap_or(word));
        rest = after;
    }
    plain.push_str(rest);
    plain
}

/// Whether a word goes on with this.
fn is_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_!$.=~+-%@#".contains(c)
}

/// What a word stands for, if that differs from run to run. `key` is the string before it: its key, if it is a number.
fn kind(key: &str, word: &str) -> Option<&'static str> {
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
    if word.starts_with("syt_") {
        return Some("<token>");
    }
    if word.len() == 24 && word.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Some("<id>");
    }
    if word.len() > 18 && (word.starts_with('!') || word.starts_with("%21")) {
        return Some("<room>");
    }
    if word.len() > 40 && word.starts_with('$') {
        return Some("<event>");
    }
    if word.len() == 10 && word.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Some("<device>");
    }
    if word.contains("_0_0_0_") {
        return Some("<position>");
    }
    // Synapse writes down when a user was seen now and then.
    if key == "last_seen_ts" || (is_number && (word.len() == 13 || key.ends_with("_ts"))) {
        return Some("<time>");
    }
    if is_number && ["age", "retry_after_ms"].contains(&key) && word != "2000" {
        return Some("<duration>");
    }
    None
}

#[test]
fn what_is_random_is_replaced_and_the_rest_is_kept() {
    let text = r#"GET /rooms/!abcdefghijklmnopqr:example.com/state {"age":12,"device_id":"ABCDEFGHIJ","n":12,"at":1766000000000,"x_ts":1}"#;
    assert_eq!(
        plain(text),
        r#"GET /rooms/<room>:example.com/state {"age":<duration>,"device_id":"<device>","n":12,"at":<time>,"x_ts":<time>}"#
    );
}
