//! What a module's host does for it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ganglion_api::{
    BackgroundTask, CacheOptions, CacheStore, CancelBackgroundCall, Homeserver, ModuleHost, RegistrationError,
    Schedule, ServerName,
};

use crate::background::Background;
use crate::incarnation::Incarnation;
use crate::load::Surroundings;

/// The host of one incarnation.
pub(crate) struct Host {
    incarnation: Arc<Incarnation>,
    surroundings: Surroundings,
}

impl Host {
    pub(crate) fn new(incarnation: Arc<Incarnation>, surroundings: Surroundings) -> Self {
        Self {
            incarnation,
            surroundings,
        }
    }
}

impl ModuleHost for Host {
    fn server_name(&self) -> &ServerName {
        &self.surroundings.server_name
    }

    fn homeserver(&self) -> &dyn Homeserver {
        &*self.surroundings.homeserver
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

    fn open_cache(&self, name: &str, options: &CacheOptions) -> Result<Arc<dyn CacheStore>, RegistrationError> {
        self.surroundings.caches.open(&self.incarnation, name, options)
    }
}
