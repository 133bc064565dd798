//! Traces and the access log: what is told of requests, read as their readers read it.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use serde_json::Value as Json;

use crate::support::{Client, Gateway, Receiver, Tested, Upstream, tools, two_tracks, until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A server that answers with `status` and the trace fields of the request.
fn telling(status: u16) -> Upstream {
    Upstream::scripted(move |session| {
        while let Some(head) = session.request() {
            let is_of_trace = |line: &&str| line.to_lowercase().starts_with("trace");
            let body: Vec<&str> = head.lines().filter(is_of_trace).collect();
            let body = body.join("\n");
            let length = body.len();
            session.send(format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n{body}"));
        }
    })
}

fn tracing(collector: SocketAddr, more: &str) -> String {
    format!("tracing: {{ endpoint: 'http://{collector}', timeout: 1s{more} }}\n")
}

fn one_track(endpoints: &[SocketAddr], more: &str) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|one| format!("'{one}'")).collect();
    format!(
        "services:\n  - name: api\n    tracks: {{ stable: {{ version: v1, endpoints: [{}] }} }}\n{more}",
        endpoints.join(", ")
    )
}

/// The spans in what `collector` got, as OpenTelemetry's library reads them.
fn spans(collector: &Receiver) -> Option<Vec<Json>> {
    let python = tools::python_with("opentelemetry.proto.trace.v1.trace_pb2")?;
    let mut decode = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tracing/decode.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = decode.stdin.take().unwrap();
    for one in collector.received() {
        assert!(one.head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{}", one.head);
        assert_eq!(one.headers()["content-type"], "application/x-protobuf");
        writeln!(input, "{}", base64::engine::general_purpose::STANDARD.encode(&one.bytes))
            .unwrap();
    }
    drop(input);
    let output = decode.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn exported(gateway: &Gateway, count: f64) {
    gateway.await_metric("splitway_traces_total", &["exported"], |exported| exported >= count);
}

fn get(gateway: &Gateway, fields: &str) -> String {
    let answer = gateway.connect().get("/shop?token=secret", fields);
    assert_eq!(answer.status, 200);
    answer.text()
}

#[test]
fn every_attempt_has_a_span_and_tells_it_to_the_upstream_that_it_asks() {
    let (bad, good) = (telling(503), telling(200));
    let collector = Receiver::new();
    let retries = "    retries: { budget: 100 }\n    sticky: { header: x-user-id }\n";
    let services = one_track(&[bad.address, good.address], retries);
    let more = ", service_name: edge";
    let gateway = Gateway::start(&format!("{}{services}", tracing(collector.address(), more)));
    let fields =
        format!("traceparent: 00-{TRACE}-{CALLER}-01\r\ntracestate: a=1\r\nuser-agent: t\r\n");
    let mut told = Vec::new();
    // Until one was tried twice, and its answer tells what the second upstream was told.
    while bad.requests() == 0 {
        told = vec![get(&gateway, &fields)];
    }
    let count = bad.requests() + good.requests();
    exported(&gateway, f64::from(u32::try_from(good.requests()).unwrap()));
    let Some(spans) = spans(&collector) else { return };
    assert_eq!(spans.len(), count + good.requests(), "one for each exchange and each attempt");
    assert!(spans.iter().all(|span| span["trace"] == TRACE), "{spans:#?}");
    let failed = spans.iter().find(|span| span["attributes"]["http.response.status_code"] == 503);
    let failed = failed.unwrap();
    let exchange = spans.iter().find(|span| span["span"] == failed["parent"]).unwrap();
    let of_exchange = |span: &&Json| span["parent"] == exchange["span"];
    let second = spans.iter().filter(of_exchange).find(|span| *span != failed).unwrap();

    assert_eq!(
        (&exchange["kind"], &exchange["parent"]),
        (&"SPAN_KIND_SERVER".into(), &CALLER.into())
    );
    assert_eq!(
        (&exchange["name"], &exchange["status"]),
        (&"GET api".into(), &"STATUS_CODE_UNSET".into())
    );
    assert_eq!(exchange["resource"]["service.name"], "edge");
    let of = |name: &str| exchange["attributes"][name].clone();
    assert_eq!((of("splitway.track"), of("splitway.version")), ("stable".into(), "v1".into()));
    assert_eq!((of("splitway.reason"), of("splitway.app")), ("weight".into(), "api".into()));
    assert_eq!((of("url.path"), of("http.response.status_code")), ("/shop".into(), 200.into()));
    assert_eq!(
        (of("user_agent.original"), of("network.protocol.version")),
        ("t".into(), "1.1".into())
    );

    assert_eq!(
        (&failed["kind"], &failed["status"]),
        (&"SPAN_KIND_CLIENT".into(), &"STATUS_CODE_ERROR".into())
    );
    assert_eq!(failed["attributes"]["server.port"], bad.address.port());
    assert_eq!(second["attributes"]["server.port"], good.address.port());
    assert_eq!(second["attributes"]["http.request.resend_count"], 1);
    let second_span = second["span"].as_str().unwrap();
    assert_eq!(told, [format!("tracestate: a=1\ntraceparent: 00-{TRACE}-{second_span}-01")]);

    let time = |span: &Json, name: &str| span[name].as_u64().unwrap();
    assert!(time(exchange, "start") <= time(failed, "start"));
    assert!(time(failed, "end") <= time(second, "start"));
    assert!(time(second, "end") <= time(exchange, "end"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let age_s = (now - u128::from(time(exchange, "end"))) / 1_000_000_000;
    assert!(age_s < 120, "ended {age_s} s ago");
}

#[test]
fn callers_decide_and_what_they_garble_begins_anew() {
    let upstream = telling(200);
    let collector = Receiver::new();
    let services = one_track(&[upstream.address], "    request_id: true\n");
    let file = |more: &str| format!("{}{services}", tracing(collector.address(), more));
    let gateway = Gateway::start(&file(", sample: 0"));
    let parent = |flags: &str| format!("traceparent: 00-{TRACE}-{CALLER}-{flags}");
    // A caller that does not record is passed on untouched.
    let state = "tracestate: a=1\r\n";
    assert_eq!(
        get(&gateway, &format!("{}\r\n{state}", parent("00"))),
        format!("{}\ntracestate: a=1", parent("00"))
    );
    // One that brings nothing is not recorded at 0 %, and those behind are told so.
    let told = get(&gateway, "");
    assert!(told.starts_with("traceparent: 00-") && told.ends_with("-00"), "{told}");
    // Garbled, doubled: another trace, without what belonged to the first.
    for fields in [
        format!("traceparent: 00-{TRACE}-0000000000000000-01\r\n{state}"),
        format!("{0}\r\n{0}\r\n{state}", parent("01")),
    ] {
        let told = get(&gateway, &fields);
        assert!(told.starts_with("traceparent: 00-") && told.ends_with("-00"), "{told}");
        assert!(!told.contains(TRACE) && !told.contains("tracestate"), "{told}");
    }
    assert!(get(&gateway, &format!("{}\r\n", parent("01"))).contains(TRACE));
    exported(&gateway, 1.0);

    // At 100 % every request is recorded, but never more than are allowed in a second.
    gateway.edit(&file(", sample: 100, per_second: 2"));
    let mut client = gateway.connect();
    let since = Instant::now();
    let is_sampled = |client: &mut Client| client.get("/", "").text().ends_with("-01");
    until("another second", || is_sampled(&mut client).then_some(()));
    let sampled = 1 + (0..40).filter(|_| is_sampled(&mut client)).count() as u64;
    // One connection is one worker, whose part of the two is one in each second that was touched.
    assert!(sampled <= since.elapsed().as_secs() + 2, "{sampled} in {:?}", since.elapsed());
    // A caller that wishes for more than that goes on as it came.
    let since = Instant::now();
    let told = (0..40).map(|_| client.get("/", &format!("{}\r\n", parent("01"))).text());
    let untouched = told.filter(|told| *told == parent("01")).count() as u64;
    assert!(untouched + since.elapsed().as_secs() + 2 >= 40, "{untouched}");
}

#[test]
fn a_collector_that_fails_or_hangs_costs_spans_and_no_request() {
    let upstream = telling(200);
    let refused = "HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n";
    let taken = "HTTP/1.1 200 x\r\ncontent-length: 0\r\n\r\n";
    // It refuses once, then takes; the same is sent again.
    let flaky =
        Receiver::answering(move |number| Some(if number == 0 { refused } else { taken }.into()));
    let services = one_track(&[upstream.address], "");
    let file = |collector: SocketAddr| format!("{}{services}", tracing(collector, ", sample: 100"));
    let gateway = Gateway::start(&file(flaky.address()));
    get(&gateway, "");
    exported(&gateway, 1.0);
    let received = flaky.received();
    assert_eq!(received[0].bytes, received[1].bytes);

    // One that says that it takes nothing is believed: 5 spans refused, "no".
    let part = "\n\x06\x08\x05\x12\x02no";
    let picky = Receiver::answering(move |_| {
        Some(format!("HTTP/1.1 200 x\r\ncontent-length: {}\r\n\r\n{part}", part.len()))
    });
    gateway.edit(&file(picky.address()));
    get(&gateway, "");
    gateway.await_metric("splitway_traces_total", &["failed"], |failed| failed == 1.0);
    gateway.await_line(0, "it refused 5 spans: no");

    let silent = Receiver::answering(|_| None);
    gateway.edit(&file(silent.address()));
    for _ in 0..50 {
        get(&gateway, "");
    }
    silent.await_one(|_| true);
    get(&gateway, "");
    // At its end the gateway waits a moment for it, no more; its leaving is what is awaited here.
    drop(gateway);
}

#[test]
fn the_last_spans_are_sent_at_the_end() {
    let upstream = telling(200);
    let collector = Receiver::new();
    let services = one_track(&[upstream.address], "");
    let mut gateway =
        Gateway::start(&format!("{}{services}", tracing(collector.address(), ", sample: 100")));
    get(&gateway, "");
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code(), Some(0));
    assert_eq!(collector.received().len(), 1);
}

/// What a gateway with this access log writes of `requests`.
fn logged(access: &str, requests: impl Fn(&mut Client)) -> Vec<String> {
    let (stable, canary) = (Upstream::track("stable"), Upstream::track("canary"));
    let services = two_tracks(stable.address, canary.address, 0.0, "");
    let mut gateway = Gateway::start(&format!("access: {access}\n{services}"));
    requests(&mut gateway.connect());
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code(), Some(0));
    gateway.output().lines().map(str::to_owned).collect()
}

#[test]
fn the_access_log_has_the_form_that_is_asked_for() {
    let one = |client: &mut Client| {
        let fields = "user-agent: curl/8 \"x\"\r\nreferer: http://a/\r\n";
        assert_eq!(client.get("/p?q=1", fields).status, 200);
    };
    let lines = logged("json", one);
    let line: Json = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((&line["app"], &line["track"]), (&"api".into(), &"stable".into()));
    assert_eq!((&line["path"], &line["protocol"]), (&"/p?q=1".into(), &"HTTP/1.1".into()));
    assert!(line["time_ms"].as_u64().unwrap() > 1_700_000_000_000 && line["trace_id"].is_null());

    let lines = logged("combined", one);
    let combined = regex::Regex::new(
        r#"^127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/20\d\d(:\d\d){3} \+0000\] "GET /p\?q=1 HTTP/1\.1" 200 [1-9]\d+ "http://a/" "curl/8 \\x22x\\x22"$"#,
    );
    assert!(combined.unwrap().is_match(&lines[0]), "{}", lines[0]);

    let lines = logged("'{{{app}/{track}} {reason} {status} {request.X-None} {endpoint}'", one);
    let rest = lines[0].strip_prefix("{api/stable} weight 200 - 127.0.0.1:").unwrap();
    assert!(rest.parse::<u16>().is_ok(), "{}", lines[0]);
}

#[test]
fn another_form_of_the_access_log_is_in_force_at_once() {
    let upstream = Tested::new("stable");
    let services = one_track(&[upstream.address()], "");
    let mut gateway = Gateway::start(&format!("access: '{{path}}'\n{services}"));
    let mut client = gateway.connect();
    client.get("/first", "");
    gateway.edit(&format!("access: 'now {{path}} {{trace_id}}'\n{services}"));
    client.get("/second", "");
    gateway.edit(&format!("access: off\n{services}"));
    client.get("/third", "");
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code(), Some(0));
    assert_eq!(gateway.output(), "/first\nnow /second -\n");
}

#[test]
fn what_is_answered_here_has_its_line_too() {
    let upstream = Tested::new("stable");
    let rules = "    hosts: [a.test]
    rules:
      - match: { path: /old }
        redirect: { to: https://b.test, status: 301 }
      - match: { path: /robots.txt }
        respond: { status: 200, body: 'no' }
";
    let services = one_track(&[upstream.address()], rules);
    let access = "'{app} {track} {path} {status} {bytes} {request.host}'";
    let mut gateway = Gateway::start(&format!("access: {access}\n{services}"));
    let mut client = gateway.connect();
    for (host, path, status) in
        [("a.test", "/old", 301), ("a.test", "/robots.txt", 200), ("c.test", "/", 404)]
    {
        client.send(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        assert_eq!(client.response().status, status);
    }
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code(), Some(0));
    let lines = gateway.output();
    let lines: Vec<&str> = lines.lines().collect();
    for (line, form) in lines.iter().zip([
        r"^api - /old 301 [1-9]\d+ a\.test$",
        r"^api - /robots\.txt 200 [1-9]\d+ a\.test$",
        r"^- - / 404 [1-9]\d+ c\.test$",
    ]) {
        assert!(regex::Regex::new(form).unwrap().is_match(line), "{line}");
    }
    assert_eq!(lines.len(), 3);
}
