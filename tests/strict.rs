//! What is ambiguous is refused, and nothing of it is forwarded.

use crate::support::{Gateway, Upstream, two_tracks};

/// Requests that must be refused, with the status of the refusal.
const REFUSED: &[(u16, &str)] = &[
    (
        400,
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
    ),
    (400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc"),
    (400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd"),
    (400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 3\r\n\r\nabc"),
    (400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc"),
    (400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -3\r\n\r\nabc"),
    (400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3 3\r\n\r\nabc"),
    (400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\nabc"),
    (400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x3\r\n\r\nabc"),
    (400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    (
        400,
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (400, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    (400, "GET / HTTP/1.1\nhost: a\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nhost: a\r\nx: y\rz\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nhost: a\r\nx: y\r\n z\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\n x: y\r\nhost: a\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nhost : a\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nhost: a\r\nx y: z\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nhost: a\r\n: z\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nhost: a\r\nnocolon\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nhost: a b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nhost: user@a\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nhost: a:port\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nhost: a\r\nx: \x7f\r\n\r\n"),
    (400, "GET /\x01 HTTP/1.1\r\nhost: a\r\n\r\n"),
    (400, "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n"),
    (400, "GET  / HTTP/1.1\r\nhost: a\r\n\r\n"),
    (400, "GET /#f HTTP/1.1\r\nhost: a\r\n\r\n"),
    (400, "GET a HTTP/1.1\r\nhost: a\r\n\r\n"),
    (400, "GET http://b@c/ HTTP/1.1\r\nhost: a\r\n\r\n"),
    (400, "GET /\r\n\r\n"),
    (400, "G@T / HTTP/1.1\r\nhost: a\r\n\r\n"),
    (400, "\x16\x03\x01\x00\u{ff}\x01"),
    (405, "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n"),
    (505, "GET / HTTP/2.0\r\nhost: a\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nx\r\n"),
    (400, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n"),
    (400, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\na"),
    (
        400,
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1;\x01\r\na\r\n0\r\n\r\n",
    ),
    (400, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\na b: c\r\n\r\n"),
];

#[test]
fn what_is_ambiguous_is_refused_and_nothing_is_forwarded() {
    let (stable, canary) = (Upstream::track("stable"), Upstream::track("canary"));
    let gateway = Gateway::start(&two_tracks(stable.address, canary.address, 50.0, ""));
    for (status, request) in REFUSED {
        // Latin-1, so that every byte can be written in the list.
        let bytes: Vec<u8> = request.chars().map(|char| char as u8).collect();
        let mut client = gateway.connect();
        client.send(&bytes);
        let answer = client.response();
        assert_eq!(answer.status, *status, "{request:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{request:?}");
        assert!(answer.header("splitway-error").is_some(), "{request:?}");
        assert_eq!(client.rest(), b"", "nothing follows a refusal: {request:?}");
    }
    assert_eq!(stable.connections() + canary.connections(), 0);
    let refused = gateway.metric("splitway_downstream_refused_total", &[]);
    assert_eq!(refused as usize, REFUSED.len());
}

#[test]
fn refusals_are_the_same_when_bytes_come_one_by_one() {
    let (stable, canary) = (Upstream::track("stable"), Upstream::track("canary"));
    let gateway = Gateway::start(&two_tracks(stable.address, canary.address, 50.0, ""));
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n";
    let mut client = gateway.connect();
    for byte in head.bytes() {
        client.send([byte]);
    }
    assert_eq!(client.response().status, 400);
    let mut client = gateway.connect();
    for byte in b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" {
        client.send([*byte]);
    }
    assert_eq!(client.response().status, 200);
    assert_eq!(stable.requests() + canary.requests(), 1);
}

#[test]
fn bad_chunks_behind_a_good_start_end_the_request_unfinished() {
    let upstream = Upstream::scripted(|session| {
        session.request();
        session.rest();
    });
    let address = upstream.address;
    let gateway = Gateway::start(&two_tracks(address, address, 0.0, ""));
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
    gateway.await_metric("splitway_upstream_connections", &[], |open| open == 1.0);
    client.send("3\r\nabcX");
    assert_eq!(client.response().status, 400);
    assert_eq!(client.rest(), b"");
    gateway.await_metric("splitway_upstream_connections", &[], |open| open == 0.0);
    let forwarded = String::from_utf8(upstream.bytes()).unwrap();
    assert!(!forwarded.contains("abcX") && !forwarded.ends_with("0\r\n\r\n"), "{forwarded}");
}

#[test]
fn heads_have_limits() {
    let (stable, canary) = (Upstream::track("stable"), Upstream::track("canary"));
    let file = two_tracks(stable.address, canary.address, 50.0, "");
    let gateway =
        Gateway::start(&format!("limits: {{ head: 4KiB, headers: 10, body: 1KiB }}\n{file}"));
    for (status, request) in [
        (200, format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(4_000))),
        (431, format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(5_000))),
        (431, format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "y".repeat(100_000))),
        (431, format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "a: b\r\n".repeat(10))),
        (413, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1025\r\n\r\n".to_owned()),
    ] {
        let mut client = gateway.connect();
        client.send(&request);
        assert_eq!(client.response().status, status, "{}", &request[..40]);
    }
}

#[test]
fn a_chunked_body_has_the_same_limit() {
    let upstream = Upstream::scripted(|session| {
        session.request();
        session.rest();
    });
    let file = two_tracks(upstream.address, upstream.address, 0.0, "");
    let gateway = Gateway::start(&format!("limits: {{ body: 1KiB }}\n{file}"));
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunk = format!("200\r\n{}\r\n", "x".repeat(512));
    let mut at_once = gateway.connect();
    at_once.send(format!("{head}{chunk}{chunk}"));
    assert_eq!(at_once.response().status, 413);
    assert_eq!(upstream.connections(), 0);
    let mut in_pieces = gateway.connect();
    in_pieces.send(format!("{head}{chunk}"));
    gateway.await_metric("splitway_upstream_connections", &[], |open| open == 1.0);
    in_pieces.send(&chunk);
    assert_eq!(in_pieces.response().status, 413);
    gateway.await_metric("splitway_upstream_connections", &[], |open| open == 0.0);
}

#[test]
fn bad_answers_are_a_502() {
    const ANSWERS: &[&str] = &[
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\na",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\na",
        "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\na: b\n\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "",
    ];
    for answer in ANSWERS {
        let upstream = Upstream::scripted(move |session| {
            session.request();
            session.send(answer);
            session.close_write();
            session.rest();
        });
        let gateway = Gateway::start(&two_tracks(upstream.address, upstream.address, 0.0, ""));
        let response = gateway.connect().get("/", "");
        assert_eq!(response.status, 502, "{answer:?}");
        gateway.await_metric("http_requests_total", &["502", "stable"], |count| count == 1.0);
    }
}
