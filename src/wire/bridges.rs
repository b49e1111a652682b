//! The bridges that are connected: the homeserver, as modules ask it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ganglion_actors::Lineage;
use ganglion_api::wire::{ModuleApiCall, code, method};
use ganglion_api::{Homeserver, HomeserverError, JsonObject, LocalFuture, MatrixError};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::counts::WireCounts;
use super::peer::{CallError, Peer};

/// The bridges that are connected, and the calls of modules that they do something for.
///
/// A module's request goes to the process of the homeserver that asked the callback, else to the main process, else to
/// any. A callback that the request causes there is below the module's call.
#[derive(Default)]
pub struct Bridges {
    connected: Mutex<Vec<Arc<Peer>>>,
    calls: Mutex<HashMap<u64, Lineage>>,
    next: AtomicU64,
    counts: WireCounts,
}

impl Bridges {
    /// What happened on the wire since the start.
    #[must_use]
    pub fn counts(&self) -> &WireCounts {
        &self.counts
    }

    pub(super) fn add(&self, peer: &Arc<Peer>) {
        self.connected().push(Arc::clone(peer));
    }

    pub(super) fn remove(&self, peer: &Arc<Peer>) {
        self.connected().retain(|connected| !Arc::ptr_eq(connected, peer));
    }

    /// The module's call with this name, as long as it waits for a bridge.
    pub(super) fn call_named(&self, name: &str) -> Option<Lineage> {
        let number = name.strip_prefix('c')?.parse().ok()?;
        self.calls().get(&number).cloned()
    }

    /// The bridge for a call: the newest that fits best.
    fn choose(&self, lineage: Option<&Lineage>) -> Option<Arc<Peer>> {
        let caller = lineage.map(Lineage::caller);
        let connected = self.connected();
        let able = connected.iter().filter(|peer| peer.can("module_api"));
        let fit = |peer: &Arc<Peer>| (Some(peer.caller) == caller, peer.hello.worker_name.is_none());
        able.max_by_key(|peer| fit(peer)).cloned()
    }

    fn connected(&self) -> MutexGuard<'_, Vec<Arc<Peer>>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<u64, Lineage>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, method: &'static str, args: Value) -> Result<Value, HomeserverError> {
        let lineage = Lineage::here();
        let peer = self.choose(lineage.as_ref());
        let peer = peer.ok_or(HomeserverError::NotConnected { method })?;
        let until = lineage.as_ref().and_then(Lineage::until);
        let depth = lineage.as_ref().map_or(0, Lineage::depth);
        let named = lineage.map(|lineage| Named::new(self, lineage));
        let params = ModuleApiCall {
            method: method.into(),
            args,
            deadline_ms: until.map(|until| milliseconds(until.saturating_duration_since(Instant::now()))),
            call: named.as_ref().map(|named| format!("c{}", named.number).into()),
            depth,
        };
        let answer = peer.call(method::MODULE_API, &params, until).await;
        answer.map_err(|error| match error {
            CallError::Refused(error) if error.code == code::UNKNOWN_METHOD => HomeserverError::Unsupported { method },
            CallError::Refused(error) if error.code == code::MATRIX => match error.data.and_then(matrix_error) {
                Some(error) => HomeserverError::Matrix(Box::new(error)),
                None => HomeserverError::Failed {
                    method,
                    reason: "an error that is none".into(),
                },
            },
            CallError::Gone => HomeserverError::NotConnected { method },
            other => HomeserverError::Failed {
                method,
                reason: other.to_string(),
            },
        })
    }
}

impl fmt::Debug for Bridges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridges")
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Homeserver for Bridges {
    fn call(&self, method: &'static str, arguments: Value) -> LocalFuture<'_, Result<Value, HomeserverError>> {
        Box::pin(self.ask(method, arguments))
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A Matrix error of the homeserver.
fn matrix_error(data: Value) -> Option<MatrixError> {
    #[derive(Deserialize)]
    struct Data {
        status: u16,
        errcode: String,
        error: String,
        #[serde(default)]
        fields: JsonObject,
    }
    let data: Data = serde_json::from_value(data).ok()?;
    let mut error = MatrixError::new(data.status, data.errcode, data.error);
    error.fields = data.fields;
    Some(error)
}

/// A call of a module that a bridge can name, until this is dropped.
struct Named<'a> {
    bridges: &'a Bridges,
    number: u64,
}

impl<'a> Named<'a> {
    fn new(bridges: &'a Bridges, lineage: Lineage) -> Self {
        let number = bridges.next.fetch_add(1, Ordering::Relaxed);
        bridges.calls().insert(number, lineage);
        Self { bridges, number }
    }
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        self.bridges.calls().remove(&self.number);
    }
}
