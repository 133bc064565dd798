//! The steps of a request that are ours: parse, route, rewrite, record.
#![allow(missing_docs, reason = "criterion makes public functions of its own")]

use std::hint::black_box;
use std::rc::Rc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use splitway::http1::rewrite::{self, Forwarding, Returning};
use splitway::http1::{Limits, Owned, RequestHead, ResponseHead, Version};
use splitway::record::{Live, Reason, Recorder, Split, outcome::End};
use splitway::route::rules::Target;
use splitway::route::{Headers, Match, Rule, RuleEdits, Source, Table, Text, View};
use splitway::track::Weight;

/// What a browser sends, less its cookies.
const REQUEST: &[u8] = b"GET /api/v1/items?page=2 HTTP/1.1\r\nHost: api.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0\r\n\
    Accept: application/json\r\nAccept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nConnection: keep-alive\r\n\
    X-Request-Id: 3f0c1d2e-6a7b-4c8d-9e0f-112233445566\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nserver: up\r\ndate: Mon, 23 Nov 2026 10:00:00 GMT\r\n\
    content-type: application/json\r\ncache-control: no-store\r\ncontent-length: 1024\r\n\r\n";

fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head");
    group.throughput(Throughput::Bytes(REQUEST.len() as u64));
    let mut fields = Vec::new();
    group.bench_function("request_parse", |bencher| {
        bencher.iter(|| {
            let head = RequestHead::parse(black_box(REQUEST), Limits::default(), &mut fields);
            head.expect("it is well-formed").is_some()
        });
    });
    let head = RequestHead::parse(REQUEST, Limits::default(), &mut fields);
    let head = head.expect("it is well-formed").expect("it is whole");
    let forwarding = Forwarding {
        peer: "203.0.113.7",
        client: Some([203, 0, 113, 7].into()),
        trusted: false,
        scheme: "http",
        certificate: None,
        via: None,
        upgrade: false,
        target: None,
        owned: &Owned::default(),
        edits: &[],
        made: b"",
    };
    let mut out = Vec::with_capacity(4_096);
    group.bench_function("request_rewrite", |bencher| {
        bencher.iter(|| {
            out.clear();
            rewrite::request(&mut out, black_box(&head), &forwarding);
            out.len()
        });
    });
    let mut response_fields = Vec::new();
    let returning = Returning {
        version: Version::Http11,
        keep_alive: true,
        upgrade: false,
        unchunk: false,
        cookie: None,
        edits: &[],
        added: b"",
        via: None,
    };
    group.bench_function("response_parse_and_rewrite", |bencher| {
        bencher.iter(|| {
            let limits = Limits::default();
            let head = ResponseHead::parse(black_box(RESPONSE), limits, &mut response_fields);
            let head = head.expect("it is well-formed").expect("it is whole");
            out.clear();
            rewrite::response(&mut out, &head, &returning);
            out.len()
        });
    });
    group.finish();
}

fn routing(criterion: &mut Criterion) {
    let live = Live::new("api", 1);
    let canary = live.track("canary").expect("the first track has a place");
    let exact = |name: &str, value: &str| Rule {
        any: vec![Match {
            headers: vec![(name.into(), Text::Exact(value.as_bytes().into()))],
            ..Match::default()
        }],
        from: Vec::new(),
        target: Target::Track(canary),
        rewrite: None,
        edits: RuleEdits::default(),
    };
    let rules =
        [exact("canary", "true"), exact("x-user-group", "beta"), exact("x-region", "us-west-1")];
    let mut table = Table::default();
    for service in 0..100 {
        table.insert(Some(&format!("s{service}.example.com")), "/", service);
    }
    table.insert(Some("api.example.com"), "/api", 100);
    let mut fields = Vec::new();
    let head = RequestHead::parse(REQUEST, Limits::default(), &mut fields);
    let head = head.expect("it is well-formed").expect("it is whole");
    let view = View {
        method: head.method,
        path: b"/api/v1/items",
        query: b"page=2",
        source: Source::Known([203, 0, 113, 7].into()),
        headers: &head as &dyn Headers,
    };
    criterion.bench_function("route/service_of_101", |bencher| {
        bencher.iter(|| table.find(black_box(b"api.example.com"), black_box(b"/api/v1/items")));
    });
    criterion.bench_function("route/three_header_rules_without_a_match", |bencher| {
        bencher.iter(|| rules.iter().any(|rule| rule.matches(black_box(&view))));
    });
    let weight = |points| Weight::from_basis_points(points).expect("at most 10,000");
    let stable = live.track("stable").expect("the second track has a place");
    let split = Split::new(1, &[(canary, weight(500)), (stable, weight(9_500))]);
    criterion.bench_function("route/pick", |bencher| {
        bencher.iter(|| split.pick(black_box(4_711)));
    });
}

fn recording(criterion: &mut Criterion) {
    let live = Live::new("api", 1);
    let track = live.track("stable").expect("the first track has a place");
    let split = Split::new(1, &[(track, Weight::FULL)]);
    let recorder = Rc::new(Recorder::new(&live, 0, [track].into_iter()));
    criterion.bench_function("record/a_whole_request", |bencher| {
        bencher.iter(|| {
            let mut outcome =
                recorder.assign(black_box(&split), track, Reason::Weight, None, 1_000);
            outcome.sent(1_100);
            outcome.head(900_000, 200, false, false);
            outcome.finish(black_box(950_000), End::Complete, None);
        });
    });
}

criterion_group!(benches, heads, routing, recording);
criterion_main!(benches);
