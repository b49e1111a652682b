//! `ganglion callbacks`.

use std::fmt::Write as _;

use ganglion_api::{ArgSpec, reference};

/// Prints the reference.
pub(super) fn print(json: bool) -> anyhow::Result<()> {
    let text = if json {
        serde_json::to_string_pretty(reference())? + "\n"
    } else {
        table()
    };
    super::print(&text)?;
    Ok(())
}

fn table() -> String {
    let mut text = String::new();
    let mut category = None;
    for spec in reference() {
        if category != Some(spec.category) {
            let gap = if category.is_some() { "\n" } else { "" };
            let _ = writeln!(text, "{gap}{}", spec.category);
            category = Some(spec.category);
        }
        let args: Vec<_> = spec.args.iter().map(arg).collect();
        let _ = writeln!(text, "  {}({})", spec.name, args.join(", "));
        let _ = writeln!(
            text,
            "    since {}, {}, on failure {}",
            spec.since,
            spec.combine.as_str(),
            spec.on_failure.as_str()
        );
    }
    text
}

fn arg(arg: &ArgSpec) -> String {
    let optional = if arg.optional { "?" } else { "" };
    format!("{}{optional}: {}", arg.name, arg.r#type)
}
