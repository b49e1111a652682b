//! What a module's host does for it.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ganglion_api::{
    BackgroundTask, CacheOptions, CacheStore, CancelBackgroundCall, Homeserver, HomeserverError, LocalFuture,
    ModuleHost, RegistrationError, Schedule, ServerName,
};
use serde_json::Value;

use crate::background::Background;
use crate::incarnation::Incarnation;
use crate::load::Surroundings;
use crate::nesting::{Lineage, remaining};

/// The host of one incarnation.
pub(crate) struct Host {
    incarnation: Arc<Incarnation>,
    surroundings: Surroundings,
    homeserver: AskedBelow,
}

/// The homeserver for a module: what it asks there it asks below its call.
struct AskedBelow(Arc<dyn Homeserver>);

impl Homeserver for AskedBelow {
    fn call(&self, method: &'static str, arguments: Value) -> LocalFuture<'_, Result<Value, HomeserverError>> {
        let Some(lineage) = Lineage::here().map(|here| here.anew()) else {
            return self.0.call(method, arguments);
        };
        Box::pin(async move {
            let below = lineage.clone();
            let answer = below.scope(async { self.0.call(method, arguments).await }).await;
            // Whatever the homeserver made of it, the module learns that it was its own doing.
            match lineage.refused() {
                Some(too_deep) => Err(too_deep.clone().into()),
                None => answer,
            }
        })
    }
}

impl Host {
    pub(crate) fn new(incarnation: Arc<Incarnation>, surroundings: Surroundings) -> Self {
        Self {
            incarnation,
            homeserver: AskedBelow(Arc::clone(&surroundings.homeserver)),
            surroundings,
        }
    }
}

impl ModuleHost for Host {
    fn server_name(&self) -> &ServerName {
        &self.surroundings.server_name
    }

    fn resolve_path(&self, path: &Path) -> PathBuf {
        self.surroundings.directory.join(path)
    }

    fn homeserver(&self) -> &dyn Homeserver {
        &self.homeserver
    }

    fn remaining_budget(&self) -> Option<Duration> {
        remaining()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        // Made when it is polled: a timer belongs to the runtime that waits.
        Box::pin(async move { tokio::time::sleep(duration).await })
    }

    fn background(
        &self,
        description: String,
        schedule: Schedule,
        task: BackgroundTask,
    ) -> Arc<dyn CancelBackgroundCall> {
        let loaded = self.surroundings.loaded.clone();
        Background::start(&self.incarnation, loaded, description, schedule, task)
    }

    fn open_cache(
        &self,
        name: &str,
        options: &CacheOptions,
        key_length: usize,
    ) -> Result<Arc<dyn CacheStore>, RegistrationError> {
        let caches = &self.surroundings.caches;
        caches.open(&self.incarnation, name, options, key_length)
    }
}
