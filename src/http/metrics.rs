//! `GET /metrics`: what the modules do, for Prometheus.
//!
//! Nothing is counted here: a scrape reads the snapshots that the admin API shows, so the two agree.

use std::fmt;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use ganglion_actors::{BreakerState, CacheStatistics, ModuleHandle, ModuleSnapshot, ModuleState};
use ganglion_api::FailureKind;
use ganglion_dispatcher::DispatchCounts;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::Surface;
use super::caches::statistics;
use super::error::{HttpError, use_get};
use crate::wire::WireSnapshot;

/// What the encoder writes.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn mount(config: &mut web::ServiceConfig) {
    config.service(
        web::resource("/metrics")
            .route(web::get().to(metrics))
            .route(web::head().to(metrics))
            .default_service(web::to(use_get)),
    );
}

async fn metrics(surface: web::Data<Surface>) -> Result<HttpResponse, HttpError> {
    let dispatch = surface.ganglion.dispatch();
    let scrape = Scrape {
        dispatch: dispatch.counts(),
        modules: dispatch.modules().iter().map(ModuleHandle::snapshot).collect(),
        caches: statistics(&surface.ganglion).await?,
        wire: surface.bridges.counts().snapshot(),
    };
    let text = scrape
        .into_text()
        .map_err(|_| HttpError::internal("the metrics cannot be written"))?;
    Ok(HttpResponse::Ok().content_type(CONTENT_TYPE).body(text))
}

/// A number that each of many things has: name, help, type, and how it is read.
type Reading<T> = (&'static str, &'static str, MetricType, fn(&T) -> u64);

/// Names are without the `_total` of counters, which the encoder writes.
const OF_MODULES: [Reading<ModuleSnapshot>; 9] = [
    (
        "ganglion_module_calls",
        "Calls that were made, failed ones too",
        MetricType::Counter,
        |module| module.calls,
    ),
    (
        "ganglion_module_in_flight",
        "Calls that run",
        MetricType::Gauge,
        |module| module.in_flight as u64,
    ),
    (
        "ganglion_module_queued",
        "Calls that wait for a permit",
        MetricType::Gauge,
        |module| module.queued as u64,
    ),
    (
        "ganglion_module_shed",
        "Calls that gave way to others where there was no room for all",
        MetricType::Counter,
        |module| module.shed,
    ),
    (
        "ganglion_module_restarts",
        "How often the module was re-created",
        MetricType::Counter,
        |module| module.restarts,
    ),
    (
        "ganglion_module_blocked",
        "Threads that the module blocked",
        MetricType::Counter,
        |module| module.blocked,
    ),
    (
        "ganglion_module_stuck_threads",
        "Threads that the module blocks still",
        MetricType::Gauge,
        |module| module.stuck_threads as u64,
    ),
    (
        "ganglion_module_poison_inputs",
        "Args that bypass the module",
        MetricType::Gauge,
        |module| module.poison.len() as u64,
    ),
    (
        "ganglion_module_poison_bypasses",
        "Calls that bypassed the module for their args",
        MetricType::Counter,
        |module| module.poison_bypasses,
    ),
];

const OF_CACHES: [Reading<CacheStatistics>; 8] = [
    (
        "ganglion_cache_entries",
        "Results that are kept",
        MetricType::Gauge,
        |cache| cache.entries,
    ),
    (
        "ganglion_cache_weight",
        "What the results that are kept weigh, where they are weighed",
        MetricType::Gauge,
        |cache| cache.weight,
    ),
    (
        "ganglion_cache_hits",
        "Results that were there",
        MetricType::Counter,
        |cache| cache.hits,
    ),
    (
        "ganglion_cache_misses",
        "Results that were not there",
        MetricType::Counter,
        |cache| cache.misses,
    ),
    (
        "ganglion_cache_failures",
        "Computations that failed",
        MetricType::Counter,
        |cache| cache.failures,
    ),
    (
        "ganglion_cache_evictions",
        "Results that were dropped for room or for age",
        MetricType::Counter,
        |cache| cache.evictions,
    ),
    (
        "ganglion_cache_expired",
        "Results of these that were dropped for age",
        MetricType::Counter,
        |cache| cache.expired,
    ),
    (
        "ganglion_cache_invalidations",
        "Invalidations of one result, by a prefix or of all",
        MetricType::Counter,
        |cache| cache.invalidations,
    ),
];

const OF_DISPATCH: [Reading<DispatchCounts>; 2] = [
    (
        "ganglion_dispatch_refused",
        "Questions that no worker had room for",
        MetricType::Counter,
        |counts| counts.refused,
    ),
    (
        "ganglion_dispatch_too_deep",
        "Questions that were refused because callbacks nested too deeply",
        MetricType::Counter,
        |counts| counts.too_deep,
    ),
];

const OF_WIRE: [Reading<WireSnapshot>; 3] = [
    (
        "ganglion_wire_requests",
        "Requests that came over the wire",
        MetricType::Counter,
        |wire| wire.requests,
    ),
    (
        "ganglion_wire_cancelled",
        "Requests over the wire that were cancelled before they had their answer",
        MetricType::Counter,
        |wire| wire.cancelled,
    ),
    (
        "ganglion_wire_refused_connections",
        "Connections of the wire that did not get past the hello",
        MetricType::Counter,
        |wire| wire.refused_connections,
    ),
];

/// What there is at one moment.
#[derive(Debug)]
struct Scrape {
    dispatch: DispatchCounts,
    modules: Vec<ModuleSnapshot>,
    caches: Vec<CacheStatistics>,
    wire: WireSnapshot,
}

impl Scrape {
    fn into_text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut written = String::new();
        text::encode(&mut written, &registry)?;
        Ok(written)
    }

    fn modules(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "1 for the state that the module is in";
        let mut family = encoder.encode_descriptor("ganglion_module_state", help, None, MetricType::Gauge)?;
        for module in &self.modules {
            for state in ModuleState::ALL {
                let labels = [("module", module.id.as_str()), ("state", state.as_str())];
                gauge(&mut family, &labels, u64::from(module.state == state))?;
            }
        }
        for reading in &OF_MODULES {
            write(encoder, reading, &self.modules, |module| [("module", &module.id)])?;
        }
        let help = "Calls that failed, by kind";
        let mut family = encoder.encode_descriptor("ganglion_module_failures", help, None, MetricType::Counter)?;
        for module in &self.modules {
            for kind in FailureKind::ALL {
                let labels = [("module", module.id.as_str()), ("kind", kind.as_str())];
                counter(&mut family, &labels, module.failures.get(&kind).copied().unwrap_or(0))?;
            }
        }
        self.policies(encoder)?;
        self.durations(encoder)
    }

    fn durations(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "How long calls took in which the module's code took part, the wait for a permit included";
        let name = "ganglion_module_call_duration_seconds";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for ModuleSnapshot { id, durations, .. } in &self.modules {
            // The encoder adds them up.
            let bound = |bound: Option<Duration>| bound.map_or(f64::INFINITY, |bound| bound.as_secs_f64());
            let buckets: Vec<_> = durations.buckets().map(|(most, count)| (bound(most), count)).collect();
            let labels = [("module", id.as_str())];
            let mut metric = family.encode_family(&labels)?;
            let sum = durations.sum().as_secs_f64();
            metric.encode_histogram::<NoLabelSet>(sum, durations.count(), &buckets, None)?;
        }
        Ok(())
    }

    /// Most of the many pairs are never used, so only those that were are written.
    fn policies(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "What failures counted as, by kind";
        let name = "ganglion_module_failure_policies";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for module in &self.modules {
            for (kind, used) in &module.policies {
                for (then, count) in used {
                    let labels = [
                        ("module", module.id.as_str()),
                        ("kind", kind.as_str()),
                        ("policy", then.as_str()),
                    ];
                    counter(&mut family, &labels, *count)?;
                }
            }
        }
        Ok(())
    }

    fn breakers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let breakers = || {
            self.modules.iter().flat_map(|module| {
                let breakers = module.breakers.iter();
                breakers.map(|(callback, breaker)| (module.id.as_str(), *callback, breaker))
            })
        };
        let help = "1 for the state that the breaker is in";
        let mut family = encoder.encode_descriptor("ganglion_breaker_state", help, None, MetricType::Gauge)?;
        for (module, callback, breaker) in breakers() {
            for state in BreakerState::ALL {
                let labels = [("module", module), ("callback", callback), ("state", state.as_str())];
                gauge(&mut family, &labels, u64::from(breaker.state == state))?;
            }
        }
        let help = "How often the breaker opened";
        let mut family = encoder.encode_descriptor("ganglion_breaker_trips", help, None, MetricType::Counter)?;
        for (module, callback, breaker) in breakers() {
            counter(
                &mut family,
                &[("module", module), ("callback", callback)],
                breaker.trips,
            )?;
        }
        Ok(())
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, metric_type, read) in OF_DISPATCH {
            let mut metric = encoder.encode_descriptor(name, help, None, metric_type)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&read(&self.dispatch), None)?;
        }
        for (name, help, metric_type, read) in OF_WIRE {
            let mut metric = encoder.encode_descriptor(name, help, None, metric_type)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&read(&self.wire), None)?;
        }
        let help = "Connections of the wire, by role";
        let mut family = encoder.encode_descriptor("ganglion_wire_connections", help, None, MetricType::Gauge)?;
        gauge(&mut family, &[("role", "bridge")], self.wire.bridges)?;
        gauge(&mut family, &[("role", "client")], self.wire.clients)?;
        self.modules(&mut encoder)?;
        self.breakers(&mut encoder)?;
        for reading in &OF_CACHES {
            write(&mut encoder, reading, &self.caches, |cache| {
                [("module", &cache.module), ("function", &cache.name)]
            })?;
        }
        Ok(())
    }
}

/// Writes the number of each thing.
fn write<'a, T, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, metric_type, read): &Reading<T>,
    all: &'a [T],
    labels: impl Fn(&'a T) -> [(&'static str, &'a String); N],
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, *metric_type)?;
    for one in all {
        let labels = labels(one).map(|(key, value)| (key, value.as_str()));
        match metric_type {
            MetricType::Counter => counter(&mut family, &labels, read(one))?,
            _ => gauge(&mut family, &labels, read(one))?,
        }
    }
    Ok(())
}

fn gauge<const N: usize>(family: &mut MetricEncoder<'_>, labels: &[(&str, &str); N], value: u64) -> fmt::Result {
    family.encode_family(labels)?.encode_gauge(&value)
}

fn counter<const N: usize>(family: &mut MetricEncoder<'_>, labels: &[(&str, &str); N], value: u64) -> fmt::Result {
    let mut metric = family.encode_family(labels)?;
    metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_breakers_are_those_of_the_snapshot() {
        for state in BreakerState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }

    #[test]
    fn label_values_are_escaped() {
        let cache = CacheStatistics {
            module: "demo".into(),
            name: "a\"b\\c\nd".into(),
            entries: 1,
            max_entries: Some(2),
            hits: 3,
            misses: u64::MAX,
            evictions: 5,
            ..CacheStatistics::default()
        };
        let scrape = Scrape {
            dispatch: DispatchCounts::default(),
            modules: Vec::new(),
            caches: vec![cache],
            wire: WireSnapshot::default(),
        };
        let text = scrape.into_text().unwrap();
        for line in [
            r#"ganglion_cache_entries{module="demo",function="a\"b\\c\nd"} 1"#,
            r#"ganglion_cache_misses_total{module="demo",function="a\"b\\c\nd"} 18446744073709551615"#,
            "# TYPE ganglion_cache_hits counter",
        ] {
            assert!(text.lines().any(|written| written == line), "{line}\n{text}");
        }
        assert!(text.ends_with("\n# EOF\n"));
    }
}
