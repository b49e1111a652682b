//! Running other programs, for all to see.

use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, ensure};

/// Echoes `command` and runs it to its end.
///
/// # Errors
/// When it cannot be started or does not succeed.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = line(command);
    eprintln!("\n$ {line}");
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    ensure!(status.success(), "`{line}` failed: {status}");
    Ok(())
}

/// Echoes `command`, runs it to its end, and gives what it printed, also if it does not succeed.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn captured(command: &mut Command) -> anyhow::Result<(String, ExitStatus)> {
    let line = line(command);
    eprintln!("\n$ {line}");
    let output = command.output().with_context(|| format!("cannot start `{line}`"))?;
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), output.status))
}

/// What `command` prints, without an echo; nothing if it cannot be started or does not succeed.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

/// The command as it would be typed, the variables that it sets included.
fn line(command: &Command) -> String {
    let variables = command
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)))
        .map(|(name, value)| format!("{}={}", name.to_string_lossy(), quoted(&value.to_string_lossy())));
    // Cargo names itself by its full path; that only makes the line hard to read.
    let program = command.get_program().to_string_lossy();
    let program = if program.ends_with("/bin/cargo") {
        "cargo".into()
    } else {
        program
    };
    let arguments = command.get_args().map(|argument| quoted(&argument.to_string_lossy()));
    variables
        .chain([program.into_owned()])
        .chain(arguments)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Quotes a word that a shell would take apart.
fn quoted(word: &str) -> String {
    if word.contains(char::is_whitespace) {
        format!("'{word}'")
    } else {
        word.to_owned()
    }
}
