//! Many globs at once: whether any of a hundred thousand matches a text.
//!
//! Globs without a wildcard are looked up in a set. Each of the others is known by one literal piece of it, the rarest: an
//! automaton finds the pieces that a text has, and only globs with such a piece are compared. A glob of wildcards alone says
//! no more than how long the text is.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};

use super::list_file::{BadList, Entry};

/// The longest glob, in bytes; no identifier of Matrix is longer.
const MAX_GLOB: usize = 255;

/// How many globs with wildcards a set may have: the automaton takes memory for each character of their pieces.
const MAX_PATTERNS: usize = 1_000_000;

/// Why a text is no glob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// It is empty, and would match no text that there is.
    #[error("an empty pattern")]
    Empty,
    /// It is longer than any text that it is for.
    #[error("a pattern of more than {MAX_GLOB} bytes")]
    TooLong,
    /// It has a control character, which nothing that it is for can have.
    #[error("a control character in a pattern")]
    Control,
}

/// More globs than a set can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many patterns with wildcards: at most {MAX_PATTERNS}")]
pub struct TooManyGlobs;

/// A pattern for whole texts: `*` is any number of characters, `?` is exactly one, and upper and lower case of ASCII letters
/// are the same. Source: the globs of `m.room.server_acl`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Glob(Box<str>);

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// It can match nothing that has a name.
    pub fn parse(pattern: &str) -> Result<Self, GlobError> {
        if pattern.is_empty() {
            return Err(GlobError::Empty);
        }
        if pattern.len() > MAX_GLOB {
            return Err(GlobError::TooLong);
        }
        if pattern.contains(char::is_control) {
            return Err(GlobError::Control);
        }
        let mut pattern = pattern.to_ascii_lowercase();
        // Two are as good as one, and each costs time.
        while pattern.contains("**") {
            pattern = pattern.replace("**", "*");
        }
        Ok(Self(pattern.into()))
    }

    /// Whether it matches this text, which has no upper-case ASCII letters.
    ///
    /// Each `*` first stands for nothing. Where the rest does not fit, the last `*` takes one character more: the ones before
    /// it need not change, since what is between them fitted at the first place.
    fn is_match(&self, text: &str) -> bool {
        let (glob, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut g, mut t) = (0, 0);
        // Behind the last star, and the end of what it stands for.
        let mut star = None;
        while t < text.len() {
            match glob.get(g) {
                Some(b'*') => {
                    g += 1;
                    star = Some((g, t));
                }
                Some(b'?') => {
                    g += 1;
                    t += width(text[t]);
                }
                Some(byte) if *byte == text[t] => {
                    g += 1;
                    t += 1;
                }
                _ => {
                    let Some((behind, end)) = star else { return false };
                    let end = end + width(text[end]);
                    (g, t) = (behind, end);
                    star = Some((behind, end));
                }
            }
        }
        glob[g..].iter().all(|byte| *byte == b'*')
    }

    fn has_wildcards(&self) -> bool {
        self.0.contains(WILDCARDS)
    }

    /// The literal pieces between the wildcards.
    fn pieces(&self) -> impl Iterator<Item = &str> {
        self.0.split(WILDCARDS).filter(|piece| !piece.is_empty())
    }
}

const WILDCARDS: [char; 2] = ['*', '?'];

/// How many bytes the character has that begins with this one.
fn width(first: u8) -> usize {
    match first {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    }
}

/// Globs that are asked together.
#[derive(Debug, Default)]
pub struct GlobSet {
    literals: HashSet<Box<str>>,
    pieces: Option<Pieces>,
    lengths: Lengths,
    len: usize,
}

impl GlobSet {
    /// Makes the set. For a hundred thousand globs this takes some tenths of a second: not for a thread that others wait for.
    ///
    /// # Errors
    /// There are too many with wildcards.
    pub fn new(globs: impl IntoIterator<Item = Glob>) -> Result<Self, TooManyGlobs> {
        let mut set = Self::default();
        let mut patterns = HashSet::new();
        for glob in globs {
            if !glob.has_wildcards() {
                set.literals.insert(glob.0);
            } else if glob.pieces().next().is_none() {
                set.lengths.add(&glob);
            } else {
                patterns.insert(glob);
                if patterns.len() > MAX_PATTERNS {
                    return Err(TooManyGlobs);
                }
            }
        }
        set.len = set.literals.len() + patterns.len() + set.lengths.len();
        set.pieces = Pieces::of(&patterns)?;
        Ok(set)
    }

    /// The globs of a list in a module's config.
    pub(super) fn of_list(entries: &[Entry<'_>]) -> Result<Self, BadList> {
        let glob = |entry: &Entry<'_>| Glob::parse(entry.text).map_err(|error| entry.refuse(error.to_string()));
        let globs = entries.iter().map(glob).collect::<Result<Vec<_>, _>>()?;
        Self::new(globs).map_err(|error| BadList::whole(error.to_string()))
    }

    /// Whether one of them matches the whole text.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        let text = if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(text.to_ascii_lowercase())
        } else {
            Cow::Borrowed(text)
        };
        self.literals.contains(&*text)
            || self.pieces.as_ref().is_some_and(|pieces| pieces.is_match(&text))
            || self.lengths.is_match(&text)
    }

    /// How many different globs it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none, and matches nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Globs with wildcards and literal pieces.
#[derive(Debug)]
struct Pieces {
    /// Finds the pieces of a text, with their numbers.
    automaton: AhoCorasick,
    /// By the number of a piece: which of the globs it stands for.
    globs_of: Vec<Range<usize>>,
    globs: Vec<Glob>,
}

impl Pieces {
    /// `None` for no globs.
    fn of(globs: &HashSet<Glob>) -> Result<Option<Self>, TooManyGlobs> {
        if globs.is_empty() {
            return Ok(None);
        }
        let mut common: HashMap<&str, u32> = HashMap::new();
        for piece in globs.iter().flat_map(Glob::pieces) {
            *common.entry(piece).or_default() += 1;
        }
        // The rarest, and of several the longest: it is in the fewest texts.
        let rank = |piece: &&str| (common[piece], usize::MAX - piece.len());
        let known_by = |glob: &Glob| -> Box<str> { glob.pieces().min_by_key(rank).unwrap_or_default().into() };
        let mut known: Vec<(Box<str>, &Glob)> = globs.iter().map(|glob| (known_by(glob), glob)).collect();
        known.sort_unstable();

        let (mut pieces, mut globs_of): (Vec<&str>, Vec<Range<usize>>) = (Vec::new(), Vec::new());
        for (index, (piece, _)) in known.iter().enumerate() {
            match globs_of.last_mut() {
                Some(last) if pieces.last() == Some(&&**piece) => last.end = index + 1,
                _ => {
                    pieces.push(piece);
                    globs_of.push(index..index + 1);
                }
            }
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .build(&pieces)
            .map_err(|_| TooManyGlobs)?;
        Ok(Some(Self {
            automaton,
            globs_of,
            globs: known.into_iter().map(|(_, glob)| glob.clone()).collect(),
        }))
    }

    fn is_match(&self, text: &str) -> bool {
        // A piece may be in a text a thousand times; its globs do not match it better for that.
        let mut compared = Vec::new();
        self.automaton.find_overlapping_iter(text).any(|found| {
            let piece = found.pattern().as_usize();
            if compared.contains(&piece) {
                return false;
            }
            compared.push(piece);
            let candidates = &self.globs[self.globs_of[piece].clone()];
            candidates.iter().any(|glob| glob.is_match(text))
        })
    }
}

/// Globs of wildcards alone: how long a text may be, in characters.
#[derive(Debug, Default)]
struct Lengths {
    exactly: HashSet<usize>,
    /// So long or longer.
    from: HashSet<usize>,
}

impl Lengths {
    fn add(&mut self, glob: &Glob) {
        let characters = glob.0.bytes().filter(|byte| *byte == b'?').count();
        let lengths = if characters == glob.0.len() {
            &mut self.exactly
        } else {
            &mut self.from
        };
        lengths.insert(characters);
    }

    fn len(&self) -> usize {
        self.exactly.len() + self.from.len()
    }

    fn is_match(&self, text: &str) -> bool {
        if self.len() == 0 {
            return false;
        }
        let characters = text.chars().count();
        self.exactly.contains(&characters) || self.from.iter().any(|from| characters >= *from)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(patterns: &[&str]) -> GlobSet {
        GlobSet::new(patterns.iter().map(|pattern| Glob::parse(pattern).unwrap())).unwrap()
    }

    /// The meaning of a glob, as slow as can be.
    fn naive(glob: &[char], text: &[char]) -> bool {
        match (glob, text) {
            ([], []) => true,
            (['*', rest @ ..], _) => (0..=text.len()).any(|taken| naive(rest, &text[taken..])),
            (['?', rest @ ..], [_, text @ ..]) => naive(rest, text),
            ([literal, rest @ ..], [first, text @ ..]) => literal.eq_ignore_ascii_case(first) && naive(rest, text),
            _ => false,
        }
    }

    #[test]
    fn a_glob_matches_the_whole_text_and_ascii_letters_of_either_case() {
        for (pattern, text, expected) in [
            ("evil.example", "EVIL.example", true),
            ("evil.example", "not.evil.example", false),
            ("*.evil.example", "a.b.Evil.example", true),
            ("*.evil.example", "evil.example", false),
            ("*evil*", "devilish", true),
            ("evil.*", "evil.example.org", true),
            ("@spam?:*", "@spam7:any.example", true),
            ("@spam?:*", "@spam77:any.example", false),
            ("@*bot*:*.example", "@a-bot-b:x.example", true),
            ("*", "anything", true),
            ("??", "ab", true),
            ("??", "abc", false),
            ("?*?", "a", false),
            ("?*?", "ab", true),
            // One character, be it of several bytes.
            ("?", "é", true),
            ("a?b", "a😀b", true),
            ("*?x", "ééx", true),
            // Letters that are not ASCII are told apart.
            ("É", "é", false),
        ] {
            assert_eq!(set(&[pattern]).is_match(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn patterns_that_can_match_nothing_are_refused() {
        assert_eq!(Glob::parse(""), Err(GlobError::Empty));
        assert_eq!(Glob::parse("a\tb"), Err(GlobError::Control));
        assert_eq!(Glob::parse(&"a".repeat(256)), Err(GlobError::TooLong));
        assert!(Glob::parse(&"a".repeat(255)).is_ok());
    }

    #[test]
    fn a_set_has_each_glob_once() {
        let twice = set(&["a", "A", "*.b", "*.B", "**.b", "?", "*", "**"]);
        assert_eq!(twice.len(), 4);
        assert!(set(&[]).is_empty() && !set(&[]).is_match(""));
    }

    #[test]
    fn a_pattern_with_many_stars_takes_no_time_to_speak_of() {
        let pattern = "a*".repeat(127) + "b";
        assert!(!set(&[&pattern]).is_match(&("a".repeat(100_000) + "c")));
    }

    proptest! {
        #[test]
        fn a_set_says_what_its_globs_say_one_by_one(
            patterns in prop::collection::vec("[abAé*?:.]{1,8}", 0..12),
            texts in prop::collection::vec("[abBé:.😀]{0,10}", 1..12),
        ) {
            let set = GlobSet::new(patterns.iter().map(|pattern| Glob::parse(pattern).unwrap())).unwrap();
            for text in &texts {
                let characters: Vec<char> = text.chars().collect();
                let expected = patterns.iter().any(|pattern| {
                    let pattern: Vec<char> = pattern.chars().collect();
                    naive(&pattern, &characters)
                });
                prop_assert_eq!(set.is_match(text), expected, "{:?} {}", patterns, text);
            }
        }
    }
}
