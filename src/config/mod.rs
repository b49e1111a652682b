//! The config file: one YAML document, read whole, every problem found named by its key.
//!
//! A file for each section; `section` reads mappings, `yaml` is the only place that knows serde_yaml's parser.

mod admin;
mod breaker;
mod cache;
mod dispatch;
mod http;
mod modules;
mod on_failure;
mod restart;
mod section;
mod token;
mod value;
mod wire;
mod yaml;

use std::fmt;
use std::path::{Path, PathBuf};

use ganglion_api::{OwnedServerName, Registry, ServerName};
use ganglion_dispatcher::FailureRule;
use serde_yaml::Value;

pub use self::admin::AdminConfig;
pub use self::cache::CacheConfig;
pub use self::dispatch::DispatchConfig;
pub use self::http::HttpConfig;
pub use self::modules::ModuleConfig;
use self::section::{Problems, Section};
pub use self::token::Token;
pub(crate) use self::token::bearer;
pub(crate) use self::value::{bytes_of, near, unknown_callback};
pub use self::wire::WireConfig;

/// What is wrong at one place of the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, for example `modules[1].call_timeout`; empty for the document itself.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

/// Why a config was not accepted: every problem that was found, each on a line with the file and the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblems {
    /// The file.
    pub file: PathBuf,
    /// The line and column of a syntax error, counted from 1.
    pub location: Option<(usize, usize)>,
    /// The problems, in the order of the file's sections; at least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", self.file.display())?;
            if let Some((line, column)) = self.location {
                write!(f, ":{line}:{column}")?;
            }
            write!(f, ": {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigProblems {}

/// A whole config, checked.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Where the file is: relative paths in it are relative to this.
    pub directory: PathBuf,
    /// The homeserver's name.
    pub server_name: OwnedServerName,
    /// The public listener.
    pub http: HttpConfig,
    /// The listener for the homeserver and for operators.
    pub admin: AdminConfig,
    /// Where other processes connect.
    pub wire: WireConfig,
    /// Workers and deadlines.
    pub dispatch: DispatchConfig,
    /// The global failure rules.
    pub on_failure: Vec<FailureRule>,
    /// What cached functions have by default.
    pub cache: CacheConfig,
    /// The modules, in the order of the file, disabled ones too.
    pub modules: Vec<ModuleConfig>,
}

impl Config {
    /// Reads a file. Relative paths in it are relative to it.
    ///
    /// # Errors
    /// The file cannot be read, is no YAML, or has keys or values that are not accepted: all of them are named.
    pub fn from_file(file: impl AsRef<Path>, registry: &Registry) -> Result<Self, ConfigProblems> {
        let file = file.as_ref();
        let text = std::fs::read_to_string(file).map_err(|error| ConfigProblems {
            file: file.to_owned(),
            location: None,
            problems: vec![Problem {
                path: String::new(),
                message: format!("cannot read the file: {error}"),
            }],
        })?;
        Self::from_yaml(&text, file, registry)
    }

    /// Reads a text; `file` is what errors name and what relative paths are relative to.
    ///
    /// # Errors
    /// As for [`from_file`](Self::from_file).
    pub fn from_yaml(text: &str, file: impl AsRef<Path>, registry: &Registry) -> Result<Self, ConfigProblems> {
        let file = file.as_ref();
        let refuse = |location, problems| ConfigProblems {
            file: file.to_owned(),
            location,
            problems,
        };
        let document = yaml::parse(text).map_err(|error| {
            refuse(
                error.location,
                vec![Problem {
                    path: String::new(),
                    message: error.message,
                }],
            )
        })?;
        let directory = file.parent().unwrap_or(Path::new(""));
        let problems = Problems::default();
        let config = read(document, directory, registry, &problems);
        let problems = problems.into_inner();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(refuse(None, problems)),
        }
    }
}

/// `None` only with a problem.
fn read(document: Value, directory: &Path, registry: &Registry, problems: &Problems) -> Option<Config> {
    let mut section = Section::open(document, String::new(), problems);
    let server_name = section.required("server_name", |value| {
        ServerName::parse(value::text(value)?).map_err(|error| format!("expected the homeserver's name: {error}"))
    });
    let http = HttpConfig::read(section.section("http"));
    let admin = AdminConfig::read(section.section("admin"), directory);
    if http.bind == admin.bind && http.bind.port() != 0 {
        problems.push(
            "admin.bind",
            format!("{} is http.bind too: two listeners need two addresses", admin.bind),
        );
    }
    let wire = WireConfig::read(section.section("wire"), directory);
    let dispatch = DispatchConfig::read(section.section("dispatch"));
    let on_failure = on_failure::read(&mut section);
    let cache = CacheConfig::read(section.section("cache"));
    let modules = modules::read(&mut section, registry);
    section.finish();
    Some(Config {
        directory: directory.to_owned(),
        server_name: server_name?,
        http,
        admin,
        wire,
        dispatch,
        on_failure,
        cache,
        modules,
    })
}
