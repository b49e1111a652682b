//! Names that rules are for.

use regex::{RegexBuilder, RegexSet, RegexSetBuilder};

use super::super::globs::{Glob, GlobSet};
use super::super::list_file::{BadList, Entry};

/// How many regular expressions a list may have, how large one may be, and all together, in bytes when compiled.
const MAX_EXPRESSIONS: usize = 1000;
const MAX_EXPRESSION: usize = 1 << 20;
const MAX_ALL_EXPRESSIONS: usize = 64 << 20;

/// How much of a name is looked at, in bytes. No localpart is longer; a display name may be as long as its server likes.
const MAX_NAME: usize = 1024;

/// Globs for whole names, and regular expressions for parts of them, between slashes. Upper and lower case are the same.
#[derive(Debug)]
pub(super) struct Names {
    globs: GlobSet,
    expressions: RegexSet,
}

impl Names {
    pub(super) fn parse(entries: &[Entry<'_>]) -> Result<Self, BadList> {
        let (mut globs, mut expressions) = (Vec::new(), Vec::new());
        for entry in entries {
            if !entry.text.starts_with('/') {
                let glob = Glob::parse(&entry.text.to_lowercase());
                globs.push(glob.map_err(|error| entry.refuse(error.to_string()))?);
                continue;
            }
            expressions.push(expression(entry.text).map_err(|reason| entry.refuse(reason))?);
            if expressions.len() > MAX_EXPRESSIONS {
                return Err(entry.refuse(format!("too many regular expressions: at most {MAX_EXPRESSIONS}")));
            }
        }
        let expressions = RegexSetBuilder::new(expressions)
            .case_insensitive(true)
            .size_limit(MAX_ALL_EXPRESSIONS)
            .build()
            .map_err(|error| BadList::whole(format!("regular expressions: {}", short(&error))))?;
        Ok(Self {
            globs: GlobSet::new(globs).map_err(|error| BadList::whole(error.to_string()))?,
            expressions,
        })
    }

    pub(super) fn is_match(&self, name: &str) -> bool {
        let name = &name[..name.floor_char_boundary(MAX_NAME)];
        self.globs.is_match(&name.to_lowercase()) || self.expressions.is_match(name)
    }
}

/// What stands between the slashes, if it is a regular expression.
fn expression(text: &str) -> Result<&str, String> {
    let inner = text.strip_prefix('/').and_then(|text| text.strip_suffix('/'));
    let inner = inner.filter(|inner| !inner.is_empty());
    let expression = inner.ok_or("a regular expression stands between two slashes")?;
    // By itself first: in a set nobody could say which is wrong.
    RegexBuilder::new(expression)
        .case_insensitive(true)
        .size_limit(MAX_EXPRESSION)
        .build()
        .map_err(|error| format!("a regular expression that cannot be used: {}", short(&error)))?;
    Ok(expression)
}

/// One line of what may be a drawing.
fn short(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "it is too large".into(),
        other => {
            let text = other.to_string();
            let last = text.lines().next_back().unwrap_or_default();
            last.trim_start_matches("error: ").into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::list_file::ListConfig;
    use super::*;

    fn names(texts: &[&str]) -> Names {
        let list = ListConfig::Inline(texts.iter().map(|text| (*text).to_owned()).collect());
        let mut names = None;
        let parse = |entries: &[Entry<'_>]| {
            names = Some(Names::parse(entries)?);
            Ok(())
        };
        list.check("names", parse).unwrap();
        names.unwrap()
    }

    fn refusal(text: &str) -> String {
        let list = ListConfig::Inline(vec![text.to_owned()]);
        list.check("names", Names::parse).unwrap_err().to_string()
    }

    #[test]
    fn globs_are_for_the_whole_name_and_expressions_for_a_part() {
        let names = names(&["*casino*", "adm?n", "/^[a-z]{2}[0-9]{6,}$/", "/КАЗИНО/", "über*"]);
        for (name, expected) in [
            ("BestCasino24", true),
            ("admin", true),
            ("administrator", false),
            ("ab123456", true),
            ("AB1234567", true),
            ("abc123456", false),
            ("лучшее казино", true),
            ("ÜBERMENSCH", true),
            ("", false),
        ] {
            assert_eq!(names.is_match(name), expected, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_in_one_line() {
        for (text, reason) in [
            ("/a", "config.names[0]: a regular expression stands between two slashes"),
            ("//", "config.names[0]: a regular expression stands between two slashes"),
            (
                "/(a/",
                "config.names[0]: a regular expression that cannot be used: unclosed group",
            ),
            (
                "/(?:a{1000}){1000}/",
                "config.names[0]: a regular expression that cannot be used: it is too large",
            ),
            ("a\u{7}b", "config.names[0]: a control character in a pattern"),
        ] {
            assert_eq!(refusal(text), reason);
        }
    }

    #[test]
    fn a_list_has_a_bounded_number_of_expressions() {
        let list = |count: usize| ListConfig::Inline((0..count).map(|number| format!("/a{number}/")).collect());
        assert_eq!(list(1000).check("names", Names::parse), Ok(()));
        let error = list(1001).check("names", Names::parse).unwrap_err();
        assert_eq!(
            error.to_string(),
            "config.names[1000]: too many regular expressions: at most 1000"
        );
    }

    #[test]
    fn only_the_beginning_of_a_long_name_is_looked_at() {
        let names = names(&["*casino*", "/casino/"]);
        assert!(names.is_match(&("é".repeat(500) + "casino")));
        assert!(!names.is_match(&("é".repeat(512) + "casino")));
    }
}
