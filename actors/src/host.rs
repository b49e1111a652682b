//! What a module's host does for it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix::ArbiterHandle;
use ganglion_api::{
    BackgroundTask, CacheOptions, CacheStore, CancelBackgroundCall, Homeserver, ModuleHost, OwnedServerName,
    RegistrationError, Schedule, ServerName,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::background::{Background, start};
use crate::cache::CacheService;

/// The host of one module.
#[derive(Clone)]
pub struct Host {
    /// The module's id.
    pub(crate) module: Arc<str>,
    /// The homeserver's name.
    pub(crate) server_name: OwnedServerName,
    /// The homeserver.
    pub(crate) homeserver: Arc<dyn Homeserver>,
    /// Where background calls run.
    pub(crate) home: ArbiterHandle,
    /// True as soon as all modules are loaded.
    pub(crate) loaded: watch::Receiver<bool>,
    /// Cancelled when the module is stopped.
    pub(crate) stopped: CancellationToken,
    /// The caches of all modules.
    pub(crate) caches: Arc<CacheService>,
}

impl ModuleHost for Host {
    fn server_name(&self) -> &ServerName {
        &self.server_name
    }

    fn homeserver(&self) -> &dyn Homeserver {
        &*self.homeserver
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
        let call = Background {
            module: Arc::clone(&self.module),
            description,
            schedule,
            loaded: self.loaded.clone(),
            cancelled: self.stopped.child_token(),
        };
        start(&self.home, call, task)
    }

    fn open_cache(&self, name: &str, options: &CacheOptions) -> Result<Arc<dyn CacheStore>, RegistrationError> {
        self.caches.open(&self.module, name, options, &self.home)
    }
}
