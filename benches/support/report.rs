//! Numbers and tables for people.

use serde::Serialize;

use crate::rounds::Series;

/// A time that is given in seconds.
#[must_use]
pub fn time(seconds: f64) -> String {
    let nanos = seconds * 1e9;
    match nanos.abs() {
        small if small < 99.95 => format!("{nanos:.1} ns"),
        small if small < 999.5 => format!("{nanos:.0} ns"),
        micros if micros < 99.95e3 => format!("{:.2} \u{b5}s", nanos / 1e3),
        micros if micros < 999.5e3 => format!("{:.0} \u{b5}s", nanos / 1e3),
        _ => format!("{:.2} ms", nanos / 1e6),
    }
}

/// How much that is in a second, if one takes so many seconds.
#[must_use]
pub fn rate(seconds: f64) -> String {
    match 1.0 / seconds {
        millions if millions >= 999.5e3 => format!("{:.2} M/s", millions / 1e6),
        thousands if thousands >= 9999.5 => format!("{:.1} k/s", thousands / 1e3),
        ones => format!("{ones:.0} /s"),
    }
}

/// A ratio.
#[must_use]
pub fn ratio(ratio: f64) -> String {
    match ratio {
        endless if endless.is_infinite() => "\u{221e}".to_owned(),
        large if large >= 99.5 => format!("{large:.0}x"),
        ratio => format!("{ratio:.2}x"),
    }
}

/// A table in Markdown.
#[must_use]
pub fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
    let titles: Vec<String> = titles.iter().map(ToString::to_string).collect();
    let mut lines = vec![line(&titles), format!("|{}", "---|".repeat(titles.len()))];
    lines.extend(rows.iter().map(|row| line(row)));
    lines.join("\n")
}

/// The cells of a row: what one piece of work takes, and how far the rounds are apart.
#[must_use]
pub fn cells(series: &Series) -> [String; 2] {
    let spread = format!("{:.0} %", series.spread() * 100.0);
    [time(series.median()), spread]
}

/// What a number should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// Less than that many times the other.
    Below(f64),
    /// At most that many times the other.
    AtMost(f64),
    /// At least that many times the other.
    AtLeast(f64),
}

impl Goal {
    fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::Below(bound) => ratio < bound,
            Self::AtMost(most) => ratio <= most,
            Self::AtLeast(least) => ratio >= least,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Below(bound) => format!("< {bound}x"),
            Self::AtMost(most) => format!("\u{2264} {most}x"),
            Self::AtLeast(least) => format!("\u{2265} {least}x"),
        }
    }
}

/// Ours beside its floor and the best of its peers: a line of the summary.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
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

impl Comparison {
    /// Ours against a floor, by the median of the rounds' ratios.
    #[must_use]
    pub fn of(what: &str, goal: Option<Goal>, ours: &Series, floor: (&str, &Series)) -> Self {
        let by = ours.over(floor.1).median();
        Self {
            what: what.into(),
            goal: goal.map_or_else(|| "-".into(), Goal::text),
            ours: time(ours.median()),
            floor: format!("{}: {}", floor.0, time(floor.1.median())),
            ratio: ratio(by),
            peer: "-".into(),
            peer_ratio: "-".into(),
            met: goal.map(|goal| goal.is_met(by)),
        }
    }

    /// One number of seconds against another, with the interval of their ratio; where no side of the goal holds the
    /// whole interval, it is not decided, and neither met nor missed.
    #[must_use]
    pub fn within(what: &str, goal: Goal, ours: f64, floor: (&str, f64), interval: (f64, f64)) -> Self {
        let (low, high) = (goal.is_met(interval.0), goal.is_met(interval.1));
        let word = if low == high { "" } else { "undecided: " };
        let [by, low_text, high_text] = [ours / floor.1, interval.0, interval.1].map(ratio);
        Self {
            what: what.into(),
            goal: goal.text(),
            ours: time(ours),
            floor: format!("{}: {}", floor.0, time(floor.1)),
            ratio: format!("{word}{by} ({low_text} to {high_text})"),
            peer: "-".into(),
            peer_ratio: "-".into(),
            met: (low == high).then_some(low),
        }
    }

    /// A number by itself, which is at most as large as the goal.
    #[must_use]
    pub fn alone(what: &str, goal: &str, ours: &str, met: bool) -> Self {
        Self {
            what: what.into(),
            goal: goal.into(),
            ours: ours.into(),
            floor: "-".into(),
            ratio: "-".into(),
            peer: "-".into(),
            peer_ratio: "-".into(),
            met: Some(met),
        }
    }

    /// Beside the fastest of these peers, too.
    #[must_use]
    pub fn beside<'a>(mut self, ours: &Series, peers: impl IntoIterator<Item = (&'a str, &'a Series)>) -> Self {
        let best = peers.into_iter().min_by(|a, b| a.1.median().total_cmp(&b.1.median()));
        if let Some((name, peer)) = best {
            self.peer = format!("{name}: {}", time(peer.median()));
            self.peer_ratio = ratio(ours.over(peer).median());
        }
        self
    }

    /// Tells rates in place of times: how many of them make so many seconds a second. A ratio is then one of rates, too.
    #[must_use]
    pub fn rates(what: &str, goal: Option<Goal>, ours: &Series, floor: (&str, &Series)) -> Self {
        let by = floor.1.over(ours).median();
        Self {
            ours: rate(ours.median()),
            floor: format!("{}: {}", floor.0, rate(floor.1.median())),
            ratio: ratio(by),
            met: goal.map(|goal| goal.is_met(by)),
            ..Self::of(what, goal, ours, floor)
        }
    }

    /// Tells how many times faster ours is than the other.
    #[must_use]
    pub fn faster(what: &str, goal: Option<Goal>, ours: &Series, floor: (&str, &Series)) -> Self {
        let by = floor.1.over(ours).median();
        Self {
            goal: goal.map_or_else(|| "-".to_owned(), |goal| format!("{} faster", goal.text())),
            ratio: format!("{} faster", ratio(by)),
            met: goal.map(|goal| goal.is_met(by)),
            ..Self::of(what, None, ours, floor)
        }
    }

    /// With another text for the goal.
    #[must_use]
    pub fn goal(mut self, text: &str) -> Self {
        self.goal = text.into();
        self
    }

    fn cells(&self) -> Vec<String> {
        let met = match self.met {
            None => "-",
            Some(true) => "ok",
            Some(false) => "**miss**",
        };
        let texts = [
            &self.what,
            &self.goal,
            &self.ours,
            &self.floor,
            &self.ratio,
            &self.peer,
            &self.peer_ratio,
        ];
        texts.into_iter().cloned().chain([met.to_owned()]).collect()
    }
}

/// The table of comparisons.
#[must_use]
pub fn comparisons(comparisons: &[Comparison]) -> String {
    let titles = [
        "",
        "goal",
        "ours",
        "floor",
        "ours / floor",
        "best peer",
        "ours / peer",
        "",
    ];
    let rows: Vec<_> = comparisons.iter().map(Comparison::cells).collect();
    table(&titles, &rows)
}
