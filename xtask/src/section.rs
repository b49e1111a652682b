//! A part of a document that a task writes, between two marks; the rest belongs to people.

use anyhow::ensure;

/// The document with another text in its section of this name. One that has no such section gets it at the end.
///
/// # Errors
/// The marks are not a pair in order.
pub(crate) fn replace(document: &str, name: &str, text: &str) -> anyhow::Result<String> {
    let (begin, end) = (format!("<!-- {name}: begin -->"), format!("<!-- {name}: end -->"));
    let section = format!("{begin}\n\n{}\n\n{end}", text.trim());
    let (begins, ends) = (document.matches(&begin).count(), document.matches(&end).count());
    if (begins, ends) == (0, 0) {
        let gap = match document {
            "" => "",
            document if document.ends_with("\n\n") => "",
            document if document.ends_with('\n') => "\n",
            _ => "\n\n",
        };
        return Ok(format!("{document}{gap}{section}\n"));
    }
    let pair = document
        .split_once(&begin)
        .and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    ensure!(
        (begins, ends) == (1, 1) && pair.is_some(),
        "expected `{begin}` and then `{end}`, each once"
    );
    let (before, after) = pair.unwrap_or_default();
    Ok(format!("{before}{section}{after}"))
}

/// The text of a section; `None` if there is no such section.
pub(crate) fn find<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = document.split_once(&format!("<!-- {name}: begin -->"))?;
    let (text, _) = rest.split_once(&format!("<!-- {name}: end -->"))?;
    Some(text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str =
        "# Title\r\n\n<!-- a: begin -->\nold\n<!-- a: end -->  \n\n\n<!-- b: begin -->\nb\n<!-- b: end -->";

    #[test]
    fn a_section_is_replaced_and_all_else_stays_as_it_is() {
        let replaced = replace(DOCUMENT, "a", "new\n").unwrap();
        let expected = DOCUMENT.replace("\nold\n", "\n\nnew\n\n");
        assert_eq!(replaced, expected);
        assert_eq!(replace(&replaced, "a", "new").unwrap(), replaced);
    }

    #[test]
    fn a_section_is_found_by_its_name() {
        assert_eq!(find(DOCUMENT, "a"), Some("old"));
        assert_eq!(find(&replace(DOCUMENT, "b", "new").unwrap(), "b"), Some("new"));
        assert_eq!(find(DOCUMENT, "c"), None);
    }

    #[test]
    fn a_section_that_is_not_there_comes_last() {
        let section = "<!-- c: begin -->\n\nnew\n\n<!-- c: end -->\n";
        assert_eq!(
            replace(DOCUMENT, "c", "new").unwrap(),
            format!("{DOCUMENT}\n\n{section}")
        );
        assert_eq!(replace("head\n", "c", "new").unwrap(), format!("head\n\n{section}"));
        assert_eq!(replace("", "c", "new").unwrap(), section);
    }

    #[test]
    fn marks_that_are_no_pair_are_refused() {
        let (begin, end) = ("<!-- a: begin -->", "<!-- a: end -->");
        for document in [
            begin.to_owned(),
            end.to_owned(),
            format!("{end}{begin}"),
            format!("{begin}{end}{begin}{end}"),
        ] {
            assert!(replace(&document, "a", "new").is_err(), "{document}");
        }
    }
}
