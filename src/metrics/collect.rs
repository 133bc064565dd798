//! Families from shards: the collector behind the exposition.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::core::{Collector as Collects, Desc};
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::http1::grpc;
use crate::notify;
use crate::proxy::{AnswerFault, Failure};
use crate::record::histogram::{EXPOSED_US, Summary};
use crate::record::{Counter as Count, Pardon, Reason, TrackShard};
use crate::rollout::Cause;
use crate::rollout::report::{ServiceReport, VERDICTS};
use crate::state::{Service, Track};
use crate::upstream::Endpoint;
use crate::upstream::endpoint::FULL;

use super::Sources;
use super::table::{self, FAMILIES, Family, Kind};

/// Builds every family of the table at each scrape.
pub struct Collector {
    sources: Sources,
    descriptions: Vec<Desc>,
}

impl Collector {
    /// A collector of `sources`.
    ///
    /// # Panics
    /// Never: the table's names are valid, which a test checks.
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        let description = |family: &Family| {
            let labels = family.labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(
                family.name.into(),
                family.help.into(),
                labels,
                std::collections::HashMap::new(),
            )
            .expect("the names of the table are valid")
        };
        Self { sources, descriptions: FAMILIES.iter().map(description).collect() }
    }
}

impl Collects for Collector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut page = Page::default();
        let state = self.sources.state.load();
        for service in &state.services {
            for track in &service.tracks {
                page.track(service, track);
            }
            let shards = service.live.shards().iter();
            let answered = shards.map(|shard| shard.answered.get()).sum();
            page.count(&table::DIRECT, &[service.live.name()], answered);
            let shards = service.live.shards().iter();
            let limited = shards.map(|shard| shard.limited.get()).sum();
            page.count(&table::RATE_LIMITED, &[service.live.name()], limited);
            if let Some(pending) = &service.pending {
                page.gauge(&table::PENDING, &[service.live.name()], f64::from(pending.count()));
            }
        }
        let report = self.sources.report.load();
        for rollout in &report.services {
            page.rollout(rollout);
        }
        let is_writable = if report.journal_fault.is_none() { 1.0 } else { 0.0 };
        page.gauge(&table::JOURNAL_GOOD, &[], is_writable);
        page.endpoints(&state.services);
        for (file, end_s) in &state.certificates {
            #[expect(clippy::cast_precision_loss, reason = "years stay far below 2^52 seconds")]
            page.gauge(&table::CERTIFICATE_END, &[file], *end_s as f64);
        }
        page.downstream(&self.sources);
        page.process(&self.sources);
        page.finish()
    }
}

/// Metrics by the name of their family.
#[derive(Default)]
struct Page(BTreeMap<&'static str, Vec<Metric>>);

impl Page {
    fn add(&mut self, family: &Family, values: &[&str], metric: impl FnOnce(&mut Metric)) {
        debug_assert_eq!(family.labels.len(), values.len());
        let pair = |(name, value): (&&str, &&str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        let mut one = Metric::from_label(family.labels.iter().zip(values).map(pair).collect());
        metric(&mut one);
        self.0.entry(family.name).or_default().push(one);
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
    fn count(&mut self, family: &Family, values: &[&str], count: u64) {
        self.add(family, values, |metric| {
            let mut counter = Counter::default();
            counter.set_value(count as f64);
            metric.set_counter(counter);
        });
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
    fn count_seconds(&mut self, family: &Family, values: &[&str], ns: u64) {
        self.add(family, values, |metric| {
            let mut counter = Counter::default();
            counter.set_value(ns as f64 / 1e9);
            metric.set_counter(counter);
        });
    }

    fn gauge(&mut self, family: &Family, values: &[&str], value: f64) {
        self.add(family, values, |metric| {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        });
    }

    fn track(&mut self, service: &Service, track: &Track) {
        let (app, name) = (service.live.name(), &*track.name);
        let shards: Vec<&TrackShard> =
            service.live.shards().iter().map(|shard| &**shard.track(track.index)).collect();
        let sum =
            |count: &dyn Fn(&TrackShard) -> u64| shards.iter().map(|shard| count(shard)).sum();
        for status in 100..1_000 {
            let count: u64 = sum(&|shard| shard.status(status));
            if count > 0 {
                self.count(&table::REQUESTS, &[app, name, &status.to_string()], count);
            }
        }
        let mut calls = [0; grpc::STATUSES];
        for shard in &shards {
            calls.iter_mut().zip(shard.grpc()).for_each(|(sum, count)| *sum += count);
        }
        for (status, count) in grpc::NAMES.into_iter().zip(calls).filter(|(_, count)| *count > 0) {
            self.count(&table::GRPC, &[app, name, status], count);
        }
        self.answers((app, name), &shards);
        for reason in Reason::ALL {
            let values = [app, name, reason.as_str()];
            self.count(&table::ASSIGNMENTS, &values, sum(&|shard| shard.assigned(reason)));
        }
        let answered = sum(&|shard| shard.retries_answered.get());
        self.count(&table::RETRIES, &[app, name, "answered"], answered);
        let failed = sum(&|shard| shard.retries_failed.get());
        self.count(&table::RETRIES, &[app, name, "failed"], failed);
        let over_budget = sum(&|shard| shard.retries_over_budget.get());
        self.count(&table::RETRIES, &[app, name, "no_budget"], over_budget);
        if name == "canary" {
            self.count(&table::RESCUED, &[app], sum(&|shard| shard.rescued.get()));
        }
        self.count(&table::SHED, &[app, name], sum(&|shard| shard.shed.get()));
        let exhausted = sum(&|shard| shard.exhausted.get());
        self.count(&table::EXHAUSTED, &[app, name], exhausted);
        for reason in Pardon::ALL {
            let pardoned = sum(&|shard| shard.pardoned(reason));
            self.count(&table::PARDONED, &[app, name, reason.as_str()], pardoned);
        }
        if service.mirror.as_ref().is_some_and(|mirror| mirror.to == track.index) {
            let answered = sum(&|shard| shard.mirrored_answered.get());
            self.count(&table::MIRRORED, &[app, name, "answered"], answered);
            let failed = sum(&|shard| shard.mirrored_failed.get());
            self.count(&table::MIRRORED, &[app, name, "failed"], failed);
            let dropped = sum(&|shard| shard.mirrored_dropped.get());
            self.count(&table::MIRRORED, &[app, name, "dropped"], dropped);
        }
        if let Some(limit) = &track.in_flight {
            self.gauge(&table::IN_FLIGHT, &[app, name], f64::from(limit.count()));
        }
        let failed_over = sum(&|shard| shard.failed_over.get());
        self.count(&table::FAILED_OVER, &[app, name], failed_over);
        for state in Endpoint::STATES {
            let count = track.endpoints.iter().filter(|one| one.state() == state).count();
            let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
            self.gauge(&table::TRACK_ENDPOINTS, &[app, name, state], count);
        }
        let weight = service.live.split().load().weight(track.index);
        self.gauge(&table::WEIGHT, &[app, name], weight.ratio());
        let mut durations = Summary::default();
        for shard in &shards {
            durations.add(&shard.durations);
        }
        self.add(&table::DURATION, &[app, name], |metric| {
            metric.set_histogram(histogram(&durations));
        });
    }

    /// What became of answers that were not passed on, and of those that lasted.
    fn answers(&mut self, (app, name): (&str, &str), shards: &[&TrackShard]) {
        for (position, cause) in AnswerFault::LABELS.into_iter().enumerate() {
            let count = shards.iter().map(|shard| shard.answers_refused[position].get()).sum();
            if count > 0 {
                self.count(&table::ANSWERS_REFUSED, &[app, name, cause], count);
            }
        }
        let ended = shards.iter().map(|shard| shard.streams.get()).sum();
        self.count(&table::STREAMS, &[app, name], ended);
        let lasted_ns = shards.iter().map(|shard| shard.streams_ns.get()).sum();
        self.count_seconds(&table::STREAM_SECONDS, &[app, name], lasted_ns);
    }

    fn rollout(&mut self, rollout: &ServiceReport) {
        let (app, tallies) = (&*rollout.service, &rollout.tallies);
        let arms = tallies.evidence;
        for (track, arm) in [("stable", arms.stable), ("canary", arms.canary)] {
            for (event, count) in [
                ("request", arm.requests),
                ("error", arm.errors),
                ("slow_p99", arm.slow[0]),
                ("slow_p90", arm.slow[1]),
            ] {
                self.count(&table::EVIDENCE, &[app, track, event], count);
            }
        }
        for (pot, wealth) in ["errors", "p99", "p90"].into_iter().zip(rollout.pots) {
            self.gauge(&table::WEALTH, &[app, pot], wealth);
        }
        self.gauge(&table::WEALTH_LIMIT, &[app], rollout.limit);
        for (proof, wealth) in ["errors", "latency"].into_iter().zip(rollout.proofs) {
            self.gauge(&table::PROOF, &[app, proof], wealth);
        }
        for (verdict, count) in VERDICTS.into_iter().zip(tallies.verdicts) {
            self.count(&table::VERDICTS, &[app, verdict], count);
        }
        let version = rollout.version.as_deref().unwrap_or_default();
        self.gauge(&table::ROLLOUT, &[app, version, rollout.phase.as_str()], 1.0);
        self.gauge(&table::STAGE, &[app], f64::from(u32::try_from(rollout.stage).unwrap_or(0)));
        for (cause, count) in Cause::ALL.into_iter().zip(tallies.transitions) {
            self.count(&table::TRANSITIONS, &[app, cause.as_str()], count);
        }
    }

    fn endpoints(&mut self, services: &[Arc<Service>]) {
        let tracks = services.iter().flat_map(|service| &service.tracks);
        let endpoints: BTreeMap<_, _> = tracks
            .flat_map(|track| &track.endpoints)
            .map(|endpoint| (endpoint.address(), endpoint))
            .collect();
        for (address, endpoint) in endpoints {
            let label = [&*address.to_string()];
            let connections = f64::from(endpoint.connections());
            self.gauge(&table::UPSTREAM_CONNECTIONS, &label, connections);
            self.count(&table::UPSTREAM_CONNECTS, &label, endpoint.dials());
            self.count(&table::UPSTREAM_CONNECT_FAILURES, &label, endpoint.failures());
            let standing = f64::from(endpoint.standing()) / f64::from(FULL);
            self.gauge(&table::UPSTREAM_STANDING, &label, standing);
            self.count(&table::UPSTREAM_EJECTIONS, &label, endpoint.ejections());
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "connections stay far below 2^52")]
    fn downstream(&mut self, sources: &Sources) {
        let sum = |count: &dyn Fn(usize) -> u64| (0..sources.downstream.len()).map(count).sum();
        let counters = &sources.downstream;
        let closed: u64 = sum(&|worker| counters[worker].closed.get());
        let opened: u64 = sum(&|worker| counters[worker].opened.get());
        let open = opened.saturating_sub(closed) as f64;
        self.gauge(&table::DOWNSTREAM_CONNECTIONS, &[], open);
        self.count(&table::DOWNSTREAM_OPENED, &[], opened);
        for (position, cause) in Failure::REFUSALS.into_iter().enumerate() {
            let refused = |worker: usize| Count::get(&counters[worker].refused[position]);
            self.count(&table::DOWNSTREAM_REFUSED, &[cause], sum(&refused));
        }
        let redirects = sum(&|worker| counters[worker].redirects.get());
        self.count(&table::REDIRECTS, &[], redirects);
        let unknown = sum(&|worker| counters[worker].unknown_sources.get());
        self.count(&table::UNKNOWN_SOURCES, &[], unknown);
        let failures = sum(&|worker| counters[worker].tls_failures.get());
        self.count(&table::TLS_FAILURES, &[], failures);
        for (limit, count) in sources.accept.rejected() {
            self.count(&table::REJECTED, &[limit], count);
        }
        self.gauge(&table::MEMORY_HELD, &[], sources.budget.sources().held() as f64);
        let limit = match sources.budget.limit() {
            usize::MAX => f64::INFINITY,
            limit => limit as f64,
        };
        self.gauge(&table::MEMORY_LIMIT, &[], limit);
        self.count(&table::ACCEPT_PAUSES, &[], sources.accept.pauses());
        let dropped = sum(&|worker| counters[worker].log_dropped.get());
        self.count(&table::LOG_DROPPED, &[], dropped);
        let dropped = sum(&|worker| counters[worker].traces_dropped.get());
        let traced = &sources.traced;
        for (result, count) in
            [("exported", traced.exported()), ("failed", traced.failed()), ("dropped", dropped)]
        {
            self.count(&table::TRACES, &[result], count);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds stay far below 2^52")]
    fn process(&mut self, sources: &Sources) {
        let good = if sources.reload.is_good() { 1.0 } else { 0.0 };
        self.gauge(&table::RELOAD_GOOD, &[], good);
        self.gauge(&table::RELOAD_TIME, &[], sources.reload.success_s() as f64);
        for (receiver, counts) in sources.notified.all() {
            for (result, count) in notify::RESULTS.into_iter().zip(counts) {
                self.count(&table::NOTIFICATIONS, &[&receiver, result], count);
            }
        }
        self.gauge(&table::BUILD, &[env!("CARGO_PKG_VERSION")], 1.0);
    }

    fn finish(mut self) -> Vec<MetricFamily> {
        let family = |family: &Family| {
            let metrics = self.0.remove(family.name)?;
            let mut built = MetricFamily::default();
            built.set_name(family.name.to_owned());
            built.set_help(family.help.to_owned());
            built.set_field_type(match family.kind {
                Kind::Counter => MetricType::COUNTER,
                Kind::Gauge => MetricType::GAUGE,
                Kind::Histogram => MetricType::HISTOGRAM,
            });
            built.set_metric(metrics);
            Some(built)
        };
        FAMILIES.iter().filter_map(family).collect()
    }
}

fn histogram(durations: &Summary) -> Histogram {
    let bucket = |(upper_bound_us, count): (u32, u64)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(f64::from(upper_bound_us) / 1e6);
        bucket.set_cumulative_count(count);
        bucket
    };
    let mut histogram = Histogram::default();
    let counts = durations.cumulative();
    histogram.set_bucket(EXPOSED_US.into_iter().zip(counts).map(bucket).collect());
    histogram.set_sample_count(durations.count());
    histogram.set_sample_sum(durations.sum_seconds());
    histogram
}
