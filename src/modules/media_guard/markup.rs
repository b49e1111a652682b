//! Whether a file is HTML, XML or SVG: what stands before its root, and what its root is.

use infer::text;

use super::signatures::HEAD;

/// `infer` takes a blank or `>` for the end of a tag, and no line break. And behind comments or a declaration, as in XHTML,
/// it does not look: there the root tells.
pub(super) fn is_html(head: &[u8]) -> bool {
    const TAGS: [&[u8]; 15] = [
        b"html", b"head", b"script", b"iframe", b"h1", b"div", b"font", b"table", b"a", b"style", b"title", b"b",
        b"body", b"br", b"p",
    ];
    let text = without_mark(head).trim_ascii_start();
    let is_ended = |rest: &[u8]| {
        let next = rest.first();
        next.is_some_and(|byte| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>'))
    };
    let begins = |tag: &&[u8]| {
        without_prefix(text, b"<")
            .and_then(|text| without_prefix(text, tag))
            .is_some_and(is_ended)
    };
    let doctype = without_prefix(text, DOCTYPE).map(<[u8]>::trim_ascii_start);
    TAGS.iter().any(begins)
        || text.strip_prefix(b"<!--").is_some_and(is_ended)
        || doctype
            .and_then(|name| without_prefix(name, b"html"))
            .is_some_and(is_ended)
        || Root::of(head) == Root::Html
}

/// With a declaration, or with a root that is SVG, or with so much before its root that it is out of sight.
pub(super) fn is_xml(head: &[u8]) -> bool {
    text::is_xml(head) || matches!(Root::of(head), Root::Svg | Root::OutOfSight)
}

pub(super) fn is_svg(head: &[u8]) -> bool {
    Root::of(head) == Root::Svg
}

/// The root of an XML document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    Svg,
    Html,
    /// Another one, or it is no XML.
    Other,
    /// What comes before it is longer than the head, or is not understood.
    OutOfSight,
}

impl Root {
    fn of(head: &[u8]) -> Self {
        let is_full = head.len() >= HEAD;
        let mut rest = without_mark(head).trim_ascii_start();
        loop {
            let end = if rest.starts_with(b"<?") {
                let end = after(rest, 2, b"?>");
                // Source of PHP, say, ends so too.
                if end.is_none() && !is_full {
                    return Self::Other;
                }
                end
            } else if rest.starts_with(b"<!--") {
                after(rest, 4, b"-->")
            } else if without_prefix(rest, DOCTYPE).is_some() {
                end_of_doctype(rest)
            } else {
                break;
            };
            match end.and_then(|end| rest.get(end..)) {
                Some(behind) => rest = behind.trim_ascii_start(),
                None => return Self::OutOfSight,
            }
        }
        let Some(name) = rest.strip_prefix(b"<") else {
            return match rest.is_empty() && is_full {
                true => Self::OutOfSight,
                false => Self::Other,
            };
        };
        let end = name
            .iter()
            .position(|byte| byte.is_ascii_whitespace() || matches!(byte, b'>' | b'/'));
        if end.is_none() && is_full {
            return Self::OutOfSight;
        }
        let name = &name[..end.unwrap_or(name.len())];
        // A namespace may have any prefix.
        match name.rsplit(|byte| *byte == b':').next() {
            Some(local) if local.eq_ignore_ascii_case(b"svg") => Self::Svg,
            Some(local) if local.eq_ignore_ascii_case(b"html") => Self::Html,
            _ => Self::Other,
        }
    }
}

/// How a document type begins, in letters of any case.
const DOCTYPE: &[u8] = b"<!doctype";

/// What follows this, in letters of any case, if the text begins so.
fn without_prefix<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (begin, rest) = text.split_at_checked(prefix.len())?;
    begin.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Text without the byte order mark that some editors put before it.
fn without_mark(head: &[u8]) -> &[u8] {
    head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head)
}

/// Where the first of these marks ends that begins there or later.
fn after(text: &[u8], from: usize, mark: &[u8]) -> Option<usize> {
    let at = text
        .get(from..)?
        .windows(mark.len())
        .position(|window| window == mark)?;
    Some(from + at + mark.len())
}

/// A document type may have quoted texts, and in brackets declarations with comments and instructions. In all of them `>` and
/// `]` may stand without a meaning.
fn end_of_doctype(text: &[u8]) -> Option<usize> {
    let mut at = DOCTYPE.len();
    let mut is_in_brackets = false;
    loop {
        let here = text.get(at..)?;
        at += match here.first()? {
            b'"' => after(here, 1, b"\"")?,
            b'\'' => after(here, 1, b"'")?,
            b'<' if here.starts_with(b"<!--") => after(here, 4, b"-->")?,
            b'<' if here.starts_with(b"<?") => after(here, 2, b"?>")?,
            b'>' if !is_in_brackets => return Some(at + 1),
            mark => {
                is_in_brackets = match mark {
                    b'[' => true,
                    b']' => false,
                    _ => is_in_brackets,
                };
                1
            }
        };
    }
}
