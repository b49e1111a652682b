//! `ganglion new`.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::print;
use crate::plain::plain;

/// The files of a module's crate, each with its template.
const FILES: [(&str, &str); 6] = [
    ("Cargo.toml", include_str!("new/Cargo.toml.in")),
    ("README.md", include_str!("new/README.md.in")),
    (".gitignore", "/target\n"),
    ("ganglion.yaml", include_str!("new/ganglion.yaml.in")),
    ("src/lib.rs", include_str!("new/lib.rs.in")),
    ("src/main.rs", include_str!("new/main.rs.in")),
];

/// The longest name, in bytes.
const MAX_NAME: usize = 64;

/// Words that no crate can have for a name: Rust's own, crates that the new one uses, and directories that cargo builds in.
const TAKEN: [&str; 61] = [
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "build",
    "const",
    "continue",
    "core",
    "crate",
    "deps",
    "do",
    "dyn",
    "else",
    "enum",
    "examples",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "ganglion",
    "gen",
    "if",
    "impl",
    "in",
    "incremental",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "pub",
    "ref",
    "return",
    "self",
    "serde",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

/// Types and variants that the template uses, by their names.
const TYPES: [&str; 23] = [
    "BTreeSet",
    "Config",
    "Denial",
    "Deserialize",
    "Err",
    "JsonObject",
    "Module",
    "ModuleApi",
    "ModuleError",
    "ModuleTest",
    "None",
    "Ok",
    "Option",
    "Outcome",
    "OwnedUserId",
    "Registry",
    "Result",
    "Some",
    "SpamCheckerCallbacks",
    "String",
    "UserId",
    "UserMayCreateRoom",
    "Verdict",
];

/// Writes the crate of a module, with a test and a config that run, into a directory that is not there yet.
pub(super) fn new(name: &str) -> anyhow::Result<()> {
    check(name)?;
    let (module, r#type) = (name.replace('-', "_"), type_name(name));
    match fs::create_dir(name) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{name} is there already: nothing was written; choose another name, or move it away")
        }
        made => made.with_context(|| format!("cannot make the directory {name}"))?,
    }
    let ganglion = dependency();
    let fill = |template: &str| {
        let text = template.replace("{{name}}", name).replace("{{crate}}", &module);
        text.replace("{{type}}", &r#type).replace("{{ganglion}}", &ganglion)
    };
    if let Err(error) = write(Path::new(name), fill) {
        // It was made just now, and half a crate would be in the way of the next try.
        let _ = fs::remove_dir_all(name);
        return Err(error);
    }
    print(&format!(
        "{name}/ holds the module {module}.{type}, on ganglion {{ {ganglion} }}. Next:\n\
         \x20 cd {name}\n\
         \x20 cargo test\n\
         \x20 cargo run -- check -c ganglion.yaml\n",
        r#type = r#type,
    ))?;
    Ok(())
}

fn write(directory: &Path, fill: impl Fn(&str) -> String) -> anyhow::Result<()> {
    for (file, template) in FILES {
        let path = directory.join(file);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        let written = made.and_then(|()| fs::write(&path, fill(template)));
        written.with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Refuses names that cargo or the template would stumble over.
fn check(name: &str) -> anyhow::Result<()> {
    let word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let fits = name.len() <= MAX_NAME
        && name.split(['-', '_']).all(word)
        && name.starts_with(|c: char| c.is_ascii_lowercase());
    if !fits {
        let shown = plain(&name.chars().take(MAX_NAME).collect::<String>());
        bail!(
            "{shown}: expected a name such as room-quota: at most {MAX_NAME} lower-case letters, digits and single dashes or \
             underscores, a letter first"
        );
    }
    if TAKEN.contains(&name) {
        bail!("{name}: Rust or a crate that a module needs has this name; choose another");
    }
    if TYPES.contains(&type_name(name).as_str()) {
        bail!("{name}: the module would be called as a type that it uses; choose another name, such as my-{name}");
    }
    Ok(())
}

/// `room-quota` is `RoomQuota`.
fn type_name(name: &str) -> String {
    let mut r#type = String::with_capacity(name.len());
    for word in name.split(['-', '_']) {
        let mut characters = word.chars();
        r#type.extend(characters.next().map(|first| first.to_ascii_uppercase()));
        r#type.push_str(characters.as_str());
    }
    r#type
}

/// Where the new crate gets Ganglion from: the sources that this program was built from, while they are there, else the
/// release of its version.
fn dependency() -> String {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    match sources.to_str() {
        // A text of JSON is one of TOML.
        Some(path) if sources.join("Cargo.toml").is_file() => format!("path = {}", serde_json::Value::from(path)),
        _ => format!("version = \"{}\"", env!("CARGO_PKG_VERSION")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_a_type() {
        assert_eq!(type_name("room-quota"), "RoomQuota");
        assert_eq!(type_name("a_1b"), "A1b");
    }

    #[test]
    fn every_type_that_the_template_imports_is_taken() {
        let (_, template) = FILES.iter().find(|(file, _)| *file == "src/lib.rs").unwrap();
        let imports = template.split("use ").skip(1).filter_map(|rest| rest.split_once(';'));
        let names = imports.flat_map(|(import, _)| import.split(|c: char| !c.is_ascii_alphanumeric()));
        let types: Vec<&str> = names
            .filter(|name| name.starts_with(|c: char| c.is_ascii_uppercase()))
            .collect();
        assert!(types.len() > 10, "{types:?}");
        for name in types {
            assert!(TYPES.contains(&name), "{name}");
        }
    }

    #[test]
    fn names_that_no_crate_can_have_are_refused() {
        for name in [
            "",
            "-",
            "a--b",
            "a-",
            "1a",
            "Room",
            "a b",
            "../a",
            "a/b",
            "ä",
            "self",
            "serde",
            "verdict",
            "owned-user-id",
        ] {
            assert!(check(name).is_err(), "{name}");
        }
        assert!(check(&"a".repeat(MAX_NAME + 1)).is_err());
        for taken in ["while", "build", "user-may-create-room"] {
            assert!(check(taken).is_err(), "{taken}");
        }
        for name in ["a", "room-quota", "room_quota_2"] {
            assert!(check(name).is_ok(), "{name}");
        }
    }
}
