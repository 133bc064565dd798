//! Copies of requests for another track: bounded, thrown away, and never in the original's way.

use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};

use crate::support::upstream::Session;
use crate::support::{Gateway, PATIENCE, Upstream, two_tracks};

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (known, value) = line.split_once(": ")?;
        known.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// The body that a head announces.
fn body(session: &mut Session, head: &str) -> Vec<u8> {
    let length = field(head, "content-length").map_or(0, |text| text.parse().unwrap());
    session.body(length)
}

#[test]
fn copies_are_whole_marked_and_seen_by_nobody_but_their_track() {
    // It reads all of a request before it answers: only what was sent whole is copied.
    let stable = Upstream::scripted(|session| {
        while let Some(head) = session.request() {
            body(session, &head);
            session.send("HTTP/1.1 200 OK\r\nx-track: stable\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let (copied, copies) = channel();
    let copied = Mutex::new(copied);
    let dark = Upstream::scripted(move |session| {
        while let Some(head) = session.request() {
            let body = body(session, &head);
            copied.lock().unwrap().send((head, body)).unwrap();
            session.send("HTTP/1.1 500 Dark\r\ncontent-length: 4\r\n\r\ndark");
        }
    });
    let mirror = "    mirror: { methods: any, body: 1KiB }\n";
    let gateway = Gateway::start(&two_tracks(stable.address, dark.address, 0.0, mirror));
    let mut client = gateway.connect();
    for number in 0..10 {
        let answer = client.get(&format!("/a?n={number}"), "x-splitway-mirror: forged\r\n");
        assert_eq!((answer.status, answer.track()), (200, "stable"));
        let (head, body) = copies.recv_timeout(PATIENCE).unwrap();
        assert!(head.starts_with(&format!("GET /a?n={number} HTTP/1.1\r\n")), "{head}");
        assert_eq!(field(&head, "x-splitway-mirror"), Some("stable"));
        assert_eq!(field(&head, "host"), Some("test"));
        assert!(body.is_empty());
        // Its connection is free for the next one when it has been counted, not when it has come.
        let counted = f64::from(number + 1);
        gateway.await_metric("splitway_mirrored_total", &["result=\"failed\""], |n| n == counted);
    }
    assert!(!String::from_utf8_lossy(&stable.bytes()).contains("mirror"), "nobody forges a copy");
    // A body that comes in pieces is copied too, one beyond the limit is not.
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\n");
    client.send("abc");
    client.send("def");
    assert_eq!(client.response().status, 200);
    assert_eq!(copies.recv_timeout(PATIENCE).unwrap().1, b"abcdef");
    let dropped = ["canary", "result=\"dropped\""];
    gateway.await_metric("splitway_mirrored_total", &["result=\"failed\""], |n| n == 11.0);
    let mut large = gateway.connect();
    large.send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n");
    large.send(vec![b'x'; 100_000]);
    assert_eq!(large.head().status, 200);
    large.close_write();
    gateway.await_metric("splitway_mirrored_total", &dropped, |count| count == 1.0);
    // No judge, no count of requests and no endpoint's record knows of copies.
    assert_eq!(gateway.metric("http_requests_total", &["canary"]), 0.0);
    assert_eq!(dark.connections(), 1, "the connection is used again");
}

#[test]
fn a_track_that_hangs_costs_its_copies_and_no_request() {
    let stable = Upstream::track("stable");
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let opened = Arc::clone(&gate);
    let dark = Upstream::scripted(move |session| {
        session.request();
        let (is_open, changed) = &*opened;
        drop(changed.wait_while(is_open.lock().unwrap(), |is_open| !*is_open).unwrap());
        session.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        session.rest();
    });
    let mirror = "    mirror: { max_in_flight: 5, timeout: 1h }\n";
    let gateway = Gateway::start(&two_tracks(stable.address, dark.address, 0.0, mirror));
    let mut client = gateway.connect();
    for _ in 0..50 {
        assert_eq!(client.get("/", "").status, 200);
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(client.response().status, 200);
    }
    let of = |result: &str| format!("result=\"{result}\"");
    gateway.await_metric("splitway_mirrored_total", &[&of("dropped")], |count| count == 45.0);
    assert_eq!(dark.connections(), 5, "what writes is not copied unless told");
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    gateway.await_metric("splitway_mirrored_total", &[&of("answered")], |count| count == 5.0);
    // A share, and the canary's requests for stable.
    let mirror = "    mirror: { from: canary, to: stable, share: 50 }\n";
    gateway.edit(&two_tracks(stable.address, dark.address, 0.0, mirror));
    assert_eq!(client.get("/", "").status, 200);
    assert_eq!(gateway.metric("splitway_mirrored_total", &["stable"]), 0.0);
}

#[test]
fn the_share_of_copies_is_the_share_that_is_asked_for() {
    let (stable, dark) = (Upstream::track("stable"), Upstream::track("dark"));
    let mirror = "    mirror: { share: 20, max_in_flight: 1000 }\n";
    let gateway = Gateway::start(&two_tracks(stable.address, dark.address, 0.0, mirror));
    let mut client = gateway.connect();
    for _ in 0..2_000 {
        assert_eq!(client.get("/", "").status, 200);
    }
    // Six standard deviations around 400.
    let answered = ["canary", "result=\"answered\""];
    let count = gateway.await_metric("splitway_mirrored_total", &answered, |count| count >= 293.0);
    assert!(count <= 507.0, "{count}");
    // A canary that is taken out of the file takes its copies with it.
    let alone = format!(
        "services:\n  - name: api\n    tracks: {{ stable: {{ endpoints: ['{}'] }} }}\n{mirror}",
        stable.address
    );
    gateway.edit(&alone);
    assert_eq!(client.get("/", "").status, 200);
}
