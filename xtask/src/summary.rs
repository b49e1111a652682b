//! The table of all groups: ours beside the floor and the best peer, and whether a goal is met.

use serde::Deserialize;

/// A line, as a bench hands it on.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Line {
    what: String,
    goal: String,
    ours: String,
    floor: String,
    ratio: String,
    peer: String,
    peer_ratio: String,
    /// `None` without a goal.
    met: Option<bool>,
}

impl Line {
    fn written(&self, group: &str) -> String {
        let Self {
            what,
            goal,
            ours,
            floor,
            ratio,
            peer,
            peer_ratio,
            met,
        } = self;
        let met = match met {
            None => NO_GOAL,
            Some(true) => MET,
            Some(false) => MISSED,
        };
        format!("| {group} | {what} | {goal} | {ours} | {floor} | {ratio} | {peer} | {peer_ratio} | {met} |")
    }
}

const MET: &str = "ok";
const MISSED: &str = "**miss**";
const NO_GOAL: &str = "-";

const HEADING: &str = "## Summary";

const TABLE: &str = "\
| group | | goal | ours | floor | ours / floor | best peer | ours / peer | |
|---|---|---|---|---|---|---|---|---|";

/// The lines of the groups that ran.
#[derive(Debug, Default)]
pub(crate) struct Summary(Vec<(String, Vec<String>)>);

impl Summary {
    /// Adds those of a group.
    pub(crate) fn add(&mut self, group: &str, lines: Vec<Line>) {
        let lines: Vec<_> = lines.into_iter().map(|line| line.written(group)).collect();
        if !lines.is_empty() {
            self.0.push((group.to_owned(), lines));
        }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The table of the groups that ran.
    pub(crate) fn table(&self) -> String {
        table(self.0.iter().flat_map(|(_, lines)| lines.iter().map(String::as_str)))
    }

    /// The section of the document, in this order of groups. The lines of groups that did not run are those that it had before.
    pub(crate) fn section(&self, before: &str, order: &[&str]) -> String {
        let lines = order.iter().flat_map(|group| -> Vec<&str> {
            match self.0.iter().find(|(ran, _)| ran == group) {
                Some((_, lines)) => lines.iter().map(String::as_str).collect(),
                None => {
                    let own = format!("| {group} |");
                    before.lines().filter(|line| line.starts_with(&own)).collect()
                }
            }
        });
        format!("{HEADING}\n\n{}", table(lines))
    }
}

fn table<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let lines: Vec<&str> = lines.collect();
    let count = |mark: &str| {
        let end = format!("| {mark} |");
        lines.iter().filter(|line| line.ends_with(&end)).count()
    };
    format!(
        "{TABLE}\n{}\n\n{} ok, {} missed, {} without a goal.",
        lines.join("\n"),
        count(MET),
        count(MISSED),
        count(NO_GOAL)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(what: &str, met: Option<bool>) -> Line {
        Line {
            what: what.into(),
            goal: "≤ 2x".into(),
            ours: "2 ns".into(),
            floor: "1 ns".into(),
            ratio: "2.00x".into(),
            peer: "-".into(),
            peer_ratio: "-".into(),
            met,
        }
    }

    #[test]
    fn groups_that_did_not_run_keep_their_lines_and_their_place() {
        let mut first = Summary::default();
        first.add("b", vec![line("old b", Some(true))]);
        first.add("c", vec![line("old c", None)]);
        let before = first.section("", &["a", "b", "c"]);
        let mut second = Summary::default();
        second.add("b", vec![line("new b", Some(false))]);
        second.add("a", vec![line("new a", Some(true))]);
        let after = second.section(&before, &["a", "b", "c"]);
        let place = |text: &str| after.find(text);
        assert_eq!(place("old b"), None);
        assert!(
            place("new a") < place("new b") && place("new b") < place("old c"),
            "{after}"
        );
        assert!(after.ends_with("1 ok, 1 missed, 1 without a goal."), "{after}");
    }
}
