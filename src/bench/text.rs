//! Numbers and names as people read them.

use crate::plain::plain;

/// How wide the name of a row is.
pub(super) const NAME: usize = 32;

/// The name of a row, cut in the middle where it is too long: the beginnings of paths are often the same.
pub(super) fn cell(name: &str, width: usize) -> String {
    let name = plain(name);
    let characters: Vec<char> = name.chars().collect();
    if characters.len() <= width {
        return format!("{name:width$}");
    }
    let head = (width - 1) / 2;
    let tail = width - 1 - head;
    let (first, last) = (&characters[..head], &characters[characters.len() - tail..]);
    first.iter().chain(&['…']).chain(last).collect()
}

/// Microseconds, with as many digits as say something.
pub(super) fn us(micros: Option<f64>) -> String {
    match micros {
        None => "-".to_owned(),
        Some(micros) if micros < 9.995 => format!("{micros:.2}"),
        Some(micros) if micros < 999.95 => format!("{micros:.1}"),
        Some(micros) => format!("{micros:.0}"),
    }
}

/// Calls a second.
pub(super) fn rate(per_s: f64) -> String {
    if per_s < 99.95 {
        format!("{per_s:.1}")
    } else {
        format!("{per_s:.0}")
    }
}

/// A share of 0 to 1.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// How much something changed; `None` from nothing to something.
pub(super) fn change(before: f64, after: f64) -> Option<f64> {
    if before == after {
        return Some(0.0);
    }
    (before > 0.0).then(|| (after / before - 1.0) * 100.0)
}

/// The change as people read it, with a real minus.
pub(super) fn signed(percent: Option<f64>) -> String {
    match percent.map(f64::round) {
        None => "new".to_owned(),
        Some(0.0) => "=".to_owned(),
        Some(percent) if percent < 0.0 => format!("−{:.0} %", -percent),
        Some(percent) if percent >= 1000.0 => format!("×{:.0}", percent / 100.0 + 1.0),
        Some(percent) => format!("+{percent:.0} %"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_change_is_in_percent_of_what_was_before() {
        assert_eq!(signed(change(12.3, 10.1)), "−18 %");
        assert_eq!(signed(change(10.0, 15.0)), "+50 %");
        assert_eq!(signed(change(10.0, 10.04)), "=");
        assert_eq!(signed(change(0.0, 0.0)), "=");
        assert_eq!(signed(change(0.0, 1.0)), "new");
        assert_eq!(signed(change(10.0, 0.0)), "−100 %");
        assert_eq!(signed(change(1.0, 250.0)), "×250");
    }

    #[test]
    fn a_number_has_the_digits_that_say_something() {
        let texts = [
            None,
            Some(0.041),
            Some(9.994),
            Some(9.996),
            Some(123.44),
            Some(999.96),
            Some(1_234_567.8),
        ]
        .map(us);
        assert_eq!(texts, ["-", "0.04", "9.99", "10.0", "123.4", "1000", "1234568"]);
    }

    proptest! {
        #[test]
        fn a_cell_is_as_wide_as_it_should_be_and_plain(name in any::<String>(), width in 3_usize..60) {
            let cell = cell(&name, width);
            prop_assert_eq!(cell.chars().count(), width);
            prop_assert!(!cell.chars().any(char::is_control));
        }
    }
}
