//! What happened on the wire since the start, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use ganglion_api::wire::Role;

/// Counters of all connections.
#[derive(Debug, Default)]
pub struct WireCounts {
    bridges: AtomicU64,
    clients: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) refused_connections: AtomicU64,
    pub(super) cancelled: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WireSnapshot {
    /// Bridges that are connected.
    pub bridges: u64,
    /// Clients that are connected.
    pub clients: u64,
    /// Requests that came.
    pub requests: u64,
    /// Connections that did not get past the hello.
    pub refused_connections: u64,
    /// Requests that were cancelled before they had their answer.
    pub cancelled: u64,
}

/// A connection is counted until this is dropped.
pub(super) struct Connected<'a>(&'a AtomicU64);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl WireCounts {
    pub(super) fn connected(&self, role: Role) -> Connected<'_> {
        let gauge = match role {
            Role::Bridge => &self.bridges,
            _ => &self.clients,
        };
        gauge.fetch_add(1, Ordering::Relaxed);
        Connected(gauge)
    }

    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> WireSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WireSnapshot {
            bridges: read(&self.bridges),
            clients: read(&self.clients),
            requests: read(&self.requests),
            refused_connections: read(&self.refused_connections),
            cancelled: read(&self.cancelled),
        }
    }
}
