//! A day of every service's figures in bounded memory: what the page draws.
//!
//! A second is kept for ten minutes, ten seconds for three hours, a minute for a day. Each level
//! is computed from the counters themselves, so that its quantiles are those of its whole period
//! and not means of means.

use std::collections::{HashMap, VecDeque};

use serde_json::{Value as Json, json};

use crate::record::histogram::Summary;
use crate::record::live::STATUS_MIN;
use crate::record::{Reason, TrackShard};
use crate::rollout::report::ServiceReport;
use crate::state::{Service, Track};

/// Services with a history, about a quarter of a mebibyte each; those beyond have none.
pub const SERVICES_MAX: usize = 64;

/// A resolution: how long a point covers, and how many points are kept.
#[derive(Clone, Copy, Debug)]
pub struct Level {
    /// What it is asked for by.
    pub window: &'static str,
    /// Seconds of a point.
    pub period_s: u64,
    /// Points that are kept.
    pub points: usize,
}

/// The resolutions, the finest first.
pub const LEVELS: [Level; 3] = [
    Level { window: "10m", period_s: 1, points: 600 },
    Level { window: "3h", period_s: 10, points: 1_080 },
    Level { window: "24h", period_s: 60, points: 1_440 },
];

/// The history of every service.
#[derive(Debug, Default)]
pub struct Series {
    services: HashMap<String, History>,
    /// Seconds that were sampled.
    ticks: u64,
}

#[derive(Debug, Default)]
struct History {
    levels: [Ring; LEVELS.len()],
}

#[derive(Debug, Default)]
struct Ring {
    /// The counters when its present period began.
    before: HashMap<String, Counts>,
    points: VecDeque<Point>,
}

/// What the counters of a track say at one moment.
#[derive(Clone, Debug, Default)]
struct Counts {
    drawn: u64,
    requests: u64,
    errors: u64,
    latencies: Summary,
}

/// One period of one service.
#[derive(Clone, Debug)]
struct Point {
    at_s: u64,
    e: Option<f32>,
    error_limit: Option<f32>,
    latency_limits_ms: [Option<f32>; 2],
    tracks: Vec<(Box<str>, TrackPoint)>,
}

/// One period of one track.
#[derive(Clone, Copy, Debug, Default)]
struct TrackPoint {
    weight: f32,
    share: Option<f32>,
    rps: f32,
    errors: Option<f32>,
    quantiles_ms: [Option<f32>; QUANTILES.len()],
}

const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

impl Series {
    /// Takes a second's sample. Services that are gone are forgotten.
    pub fn sample<'a>(
        &mut self,
        at_s: u64,
        services: impl Iterator<Item = (&'a Service, Option<&'a ServiceReport>)>,
    ) {
        self.ticks += 1;
        let mut present = HashMap::new();
        for (service, report) in services.take(SERVICES_MAX) {
            let name = service.live.name();
            let mut history = self.services.remove(name).unwrap_or_default();
            let now: HashMap<String, Counts> = service
                .tracks
                .iter()
                .map(|track| (track.name.to_string(), count(service, track)))
                .collect();
            for (level, ring) in LEVELS.iter().zip(&mut history.levels) {
                if self.ticks.is_multiple_of(level.period_s) || ring.before.is_empty() {
                    ring.close(*level, at_s, (service, report), &now);
                }
            }
            present.insert(name.to_owned(), history);
        }
        self.services = present;
    }

    /// The points of a service over a window of [`LEVELS`], as columns; `None` for an unknown
    /// service or window.
    #[must_use]
    pub fn columns(&self, service: &str, window: &str) -> Option<Json> {
        let position = LEVELS.iter().position(|level| level.window == window)?;
        let points = &self.services.get(service)?.levels[position].points;
        let mut columns = columns(&points.iter());
        columns["service"] = service.into();
        columns["window"] = window.into();
        columns["period_s"] = LEVELS[position].period_s.into();
        Some(columns)
    }

    /// The last second of every service, as columns of one point.
    #[must_use]
    pub fn last(&self) -> Json {
        let last = self.services.iter().map(|(name, history)| {
            let [second, ten, _] = &history.levels;
            let last = second.points.back();
            let mut point = columns(&last.into_iter());
            let ten = ten.points.back().or(last);
            point["ten_seconds"] = columns(&ten.into_iter())["tracks"].clone();
            (name.clone(), point)
        });
        Json::Object(last.collect())
    }
}

impl Ring {
    fn close(
        &mut self,
        level: Level,
        at_s: u64,
        (service, report): (&Service, Option<&ServiceReport>),
        now: &HashMap<String, Counts>,
    ) {
        // The counters before the first sample cover an unknown time.
        if !self.before.is_empty() {
            let point = point(at_s, level.period_s, (service, report), now, &self.before);
            self.keep(level, point);
        }
        self.before.clone_from(now);
    }

    fn keep(&mut self, level: Level, point: Point) {
        if self.points.len() == level.points {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }
}

fn count(service: &Service, track: &Track) -> Counts {
    let mut counts = Counts::default();
    let is_error = |status: u16| status >= 500 || service.error_statuses.contains(&status);
    for shard in service.live.shards() {
        let shard: &TrackShard = shard.track(track.index);
        let drawn = Reason::ALL.into_iter().filter(|reason| reason.is_evidence());
        counts.drawn += drawn.map(|reason| shard.assigned(reason)).sum::<u64>();
        for status in STATUS_MIN..1_000 {
            let count = shard.status(status);
            counts.requests += count;
            counts.errors += if is_error(status) { count } else { 0 };
        }
        let failing = shard.grpc().enumerate();
        let failing = failing.filter(|(status, _)| service.grpc_errors & 1 << status != 0);
        counts.errors += failing.map(|(_, count)| count).sum::<u64>();
        counts.latencies.add(&shard.latencies);
    }
    // A call that failed by both its statuses is one error; which did is not known here.
    counts.errors = counts.errors.min(counts.requests);
    counts
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "figures for the eye"
)]
fn point(
    at_s: u64,
    period_s: u64,
    (service, report): (&Service, Option<&ServiceReport>),
    now: &HashMap<String, Counts>,
    before: &HashMap<String, Counts>,
) -> Point {
    let split = service.live.split().load();
    let nothing = Counts::default();
    let since = |name: &str, of: fn(&Counts) -> u64| {
        let (now, before) = (now.get(name), before.get(name));
        of(now.unwrap_or(&nothing)).saturating_sub(of(before.unwrap_or(&nothing)))
    };
    let share = |part: u64, of: u64| (of > 0).then(|| (part as f64 / of as f64) as f32);
    let drawn: u64 = service.tracks.iter().map(|track| since(&track.name, |c| c.drawn)).sum();
    let tracks = service.tracks.iter().map(|track| {
        let name: &str = &track.name;
        let requests = since(name, |counts| counts.requests);
        let latencies = now.get(name).map(|now| {
            let before = before.get(name).unwrap_or(&nothing);
            now.latencies.since(&before.latencies)
        });
        let quantile_ms = |quantile| {
            let ns = latencies.as_ref()?.quantile_ns(quantile).filter(|ns| *ns < u64::MAX)?;
            Some((ns as f64 / 1e6) as f32)
        };
        let point = TrackPoint {
            weight: split.weight(track.index).ratio() as f32,
            share: share(since(name, |counts| counts.drawn), drawn),
            rps: (requests as f64 / period_s as f64) as f32,
            errors: share(since(name, |counts| counts.errors), requests),
            quantiles_ms: QUANTILES.map(quantile_ms),
        };
        (name.into(), point)
    });
    let tracks: Vec<(Box<str>, TrackPoint)> = tracks.collect();
    // Of the whole rollout: a second of stable's own errors is noise.
    let limit = |report: &ServiceReport| {
        let stable = report.run_evidence.stable;
        let rate = f64::from(share(stable.errors, stable.requests)?);
        Some((report.error_limit.ratio * rate + report.error_limit.slack) as f32)
    };
    let cuts = report.map_or([None; 2], |report| report.cuts_ms.canary);
    Point {
        at_s,
        e: report.map(|report| report.e as f32),
        error_limit: report.and_then(limit),
        latency_limits_ms: cuts.map(|cut| cut.map(|cut| cut as f32)),
        tracks,
    }
}

/// Points by figure, each a list in the order of time.
fn columns<'a>(points: &(impl Iterator<Item = &'a Point> + Clone)) -> Json {
    let column = |of: &dyn Fn(&Point) -> Option<f32>| -> Json {
        points.clone().map(|point| of(point).map_or(Json::Null, short)).collect()
    };
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in points.clone().flat_map(|point| &point.tracks) {
        if !names.contains(&&**name) {
            names.push(name);
        }
    }
    let tracks = names.into_iter().map(|name| {
        let one = |of: fn(&TrackPoint) -> Option<f32>| {
            column(&|point: &Point| {
                let found = point.tracks.iter().find(|(known, _)| &**known == name);
                found.and_then(|(_, track)| of(track))
            })
        };
        let figures = json!({
            "weight": one(|track| Some(track.weight)),
            "share": one(|track| track.share),
            "rps": one(|track| Some(track.rps)),
            "errors": one(|track| track.errors),
            "p50_ms": one(|track| track.quantiles_ms[0]),
            "p90_ms": one(|track| track.quantiles_ms[1]),
            "p99_ms": one(|track| track.quantiles_ms[2]),
        });
        (name.to_owned(), figures)
    });
    let tracks: serde_json::Map<String, Json> = tracks.collect();
    json!({
        "at_s": points.clone().map(|point| point.at_s).collect::<Vec<_>>(),
        "e": column(&|point| point.e),
        "limits": {
            "errors": column(&|point| point.error_limit),
            "p99_ms": column(&|point| point.latency_limits_ms[0]),
            "p90_ms": column(&|point| point.latency_limits_ms[1]),
        },
        "tracks": tracks,
    })
}

/// Four digits say all that a chart shows.
fn short(value: f32) -> Json {
    let text = format!("{value:.3e}");
    text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map_or(Json::Null, Json::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(at_s: u64) -> Point {
        let track = |weight| TrackPoint { weight, rps: 12.345_67, ..TrackPoint::default() };
        Point {
            at_s,
            e: Some(f32::INFINITY),
            error_limit: None,
            latency_limits_ms: [Some(31.5), None],
            tracks: vec![("stable".into(), track(0.95)), ("canary".into(), track(0.05))],
        }
    }

    #[test]
    fn a_day_is_kept_and_no_more() {
        for level in LEVELS {
            let mut ring = Ring::default();
            for at_s in 0..3_000 {
                ring.keep(level, at(at_s));
            }
            assert_eq!(ring.points.len(), level.points);
            assert_eq!(
                ring.points.front().map(|point| point.at_s),
                Some(3_000 - level.points as u64)
            );
        }
        let last = LEVELS[LEVELS.len() - 1];
        assert_eq!(last.period_s * last.points as u64, 86_400);
    }

    #[test]
    fn columns_are_lists_of_one_length_without_what_json_cannot_say() {
        let mut points = [at(1), at(2)];
        // A reload took the canary away.
        points[1].tracks.truncate(1);
        let columns = columns(&points.iter());
        assert_eq!(columns["at_s"], json!([1, 2]));
        assert_eq!(columns["e"], json!([null, null]));
        assert_eq!(columns["limits"]["p99_ms"], json!([31.5, 31.5]));
        assert_eq!(columns["tracks"]["stable"]["rps"], json!([12.35, 12.35]));
        assert_eq!(columns["tracks"]["canary"]["weight"], json!([0.05, null]));
        assert_eq!(columns["tracks"]["canary"]["p99_ms"], json!([null, null]));
    }
}
