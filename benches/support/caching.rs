//! A module with cached functions, and a way to them from outside.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ganglion::api::{CacheOptions, Cached, Module, ModuleApi, ModuleError, NoConfig, Registry};

use crate::host::Host;

/// How many results each function keeps.
pub const MAX_ENTRIES: u64 = 10_000;

/// How long results are kept that nobody asks for, where that is limited.
pub const HOUR: Duration = Duration::from_secs(3600);

/// The module: its functions give back what they are asked with.
#[derive(Debug)]
pub struct Caching;

/// What its functions are called by.
#[derive(Debug, Clone)]
pub struct Functions {
    /// What forgets results.
    pub api: ModuleApi<Caching>,
    /// By number.
    pub number: Cached<i64, i64>,
    /// By text; the result is its length.
    pub text: Cached<String, usize>,
    /// By number; results that nobody asks for are forgotten after an hour.
    pub idle: Cached<i64, i64>,
    /// By two numbers, the first of which is a prefix.
    pub pair: Cached<(i64, i64), i64>,
    /// By number; another one, so that what is new in one takes nobody's place in the other.
    pub fresh: Cached<i64, i64>,
    /// By number; it waits once before it answers.
    pub slow: Cached<i64, i64>,
    /// By number; it keeps a hundred times more.
    pub many: Cached<i64, i64>,
}

/// A constructor has no other way out than by what it registers.
static MADE: Mutex<Option<Functions>> = Mutex::new(None);

impl Module for Caching {
    type Config = NoConfig;

    fn new(_: NoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        let options = CacheOptions::new().max_entries(MAX_ENTRIES);
        let many = CacheOptions::new().max_entries(100 * MAX_ENTRIES);
        let idle = options.clone().idle(HOUR);
        let pair = options.clone().prefix_keys();
        let functions = Functions {
            api: api.clone(),
            number: api.cached("number", options.clone(), async |_: &Self, number| Ok(number))?,
            idle: api.cached("idle", idle, async |_: &Self, number| Ok(number))?,
            pair: api.cached("pair", pair, async |_: &Self, (_, number)| Ok(number))?,
            fresh: api.cached("fresh", options.clone(), async |_: &Self, number| Ok(number))?,
            text: api.cached("text", options.clone(), async |_: &Self, text: String| Ok(text.len()))?,
            slow: api.cached("slow", options, Self::slow)?,
            many: api.cached("many", many, async |_: &Self, number| Ok(number))?,
        };
        *MADE.lock().unwrap_or_else(PoisonError::into_inner) = Some(functions);
        Ok(Self)
    }
}

impl Caching {
    async fn slow(&self, number: i64) -> Result<i64, ModuleError> {
        wait_once().await;
        Ok(number)
    }
}

/// Lets all others go first, once.
pub async fn wait_once() {
    tokio::task::yield_now().await;
}

/// Starts the module, on one worker.
///
/// # Panics
/// It does not start.
#[must_use]
pub fn start() -> (Host, Functions) {
    let registry = Registry::new().with::<Caching>("bench.Caching");
    let host = Host::start(
        &crate::host::yaml_of(&["{module: bench.Caching}".to_owned()], 1),
        &registry,
    );
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    (host, made.take().expect("the constructor has run"))
}
