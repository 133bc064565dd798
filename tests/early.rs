//! Answers that come before the request has ended: the rest of an upload goes on while the server
//! reads, and nobody's next request is lost.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use crate::http2::{frame, next_frame, raw};
use crate::support::{Client, Gateway, Upstream, two_tracks};

fn gateway(upstream: &Upstream, more: &str) -> Gateway {
    let services = two_tracks(upstream.address, upstream.address, 0.0, "");
    Gateway::start(&format!("{more}{services}"))
}

/// The two framings: their field, a body's first part and the rest.
const FRAMINGS: [(&str, &str, &str); 2] = [
    ("content-length: 10", "hello", "world"),
    ("transfer-encoding: chunked", "5\r\nhello\r\n", "5\r\nworld\r\n0\r\n\r\n"),
];

#[test]
fn a_body_that_ends_behind_its_answer_costs_no_next_request() {
    let upstream = Upstream::scripted(|session| {
        while let Some(request) = session.request() {
            session.send("HTTP/1.1 202 Accepted\r\ncontent-length: 5\r\n\r\nearly");
            match request.contains("POST") {
                true if request.contains("chunked") => drop(session.body(25)),
                true => drop(session.body(10)),
                false => {}
            }
        }
    });
    let gateway = gateway(&upstream, "");
    for (field, first, rest) in FRAMINGS {
        let mut client = gateway.connect();
        for _ in 0..3 {
            client.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{field}\r\n\r\n{first}"));
            let answer = client.response();
            assert_eq!((answer.status, answer.header("connection")), (202, None), "{field}");
            client.send(rest);
            assert_eq!(client.get("/next", "").status, 202, "{field}");
        }
    }
    assert!(upstream.connections() <= 2, "one for each worker, kept over early answers");
}

#[test]
fn an_upload_goes_on_behind_its_answer_while_the_server_reads() {
    const SIZE: usize = 3_000_000;
    for more in ["", "connection: close\r\n"] {
        let (stored, read) = channel();
        let stored = Mutex::new(stored);
        let upstream = Upstream::scripted(move |session| {
            session.request();
            session.send(format!("HTTP/1.1 202 Accepted\r\n{more}content-length: 2\r\n\r\nok"));
            stored.lock().unwrap().send(session.body(SIZE).len()).unwrap();
        });
        let gateway = gateway(&upstream, "");
        let mut client = gateway.connect();
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {SIZE}\r\n\r\n"));
        let answer = client.response();
        assert_eq!(answer.status, 202);
        assert_eq!(answer.header("connection").is_some(), !more.is_empty());
        for _ in 0..SIZE / 100_000 {
            client.send([b'x'; 100_000]);
        }
        assert_eq!(read.recv().unwrap(), SIZE);
    }
}

#[test]
fn whoever_waits_for_a_100_and_gets_another_answer_is_told_to_close() {
    let upstream = Upstream::scripted(|session| {
        session.request();
        session.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        session.rest();
    });
    let gateway = gateway(&upstream, "");
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n");
    let answer = client.response();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
}

/// A server that has answered and closes with the upload unread resets the connection: its answer
/// is passed on all the same.
#[test]
fn an_answer_of_a_server_that_takes_no_more_arrives() {
    let upstream = Upstream::scripted(|session| {
        session.request();
        session.send("HTTP/1.1 413 Too Much\r\ncontent-length: 4\r\n\r\nmuch");
    });
    let gateway = gateway(&upstream, "");
    for _ in 0..10 {
        let mut client = gateway.connect();
        // More than all sockets on the way hold: it cannot be through before the answer.
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 30000000\r\n\r\n");
        client.send(vec![b'x'; 30_000_000]);
        let answer = client.response();
        assert_eq!((answer.status, answer.text().as_str()), (413, "much"));
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(std::io::Read::read(&mut client.stream, &mut [0]).unwrap(), 0);
    }
}

#[test]
fn a_server_that_goes_away_behind_its_answer_costs_no_next_request() {
    let upstream = Upstream::scripted(|session| {
        while let Some(request) = session.request() {
            session.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            if request.starts_with("POST") {
                return;
            }
        }
    });
    let gateway = gateway(&upstream, "");
    for (field, first, rest) in FRAMINGS {
        let mut client = gateway.connect();
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{field}\r\n\r\n{first}"));
        let answer = client.response();
        if answer.header("connection") == Some("close") {
            // The reset was quicker than the answer.
            continue;
        }
        for piece in rest.as_bytes() {
            client.send([*piece]);
        }
        assert_eq!(client.get("/next", "").status, 200, "{field}");
    }
}

/// Both directions at once: each piece waits for the other side's.
#[test]
fn both_directions_stream_at_once() {
    let upstream = Upstream::scripted(|session| {
        session.request();
        session.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        for _ in 0..3 {
            assert_eq!(session.body(6), b"1\r\nx\r\n");
            session.send("1\r\ny\r\n");
        }
        session.send("0\r\n\r\n");
        assert_eq!(session.body(11), b"1\r\nx\r\n0\r\n\r\n");
        while session.request().is_some() {
            session.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    let gateway = gateway(&upstream, "");
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut answer = client.head();
    assert_eq!(answer.header("connection"), None);
    for _ in 0..3 {
        client.send("1\r\nx\r\n");
    }
    client.body_of(&mut answer).unwrap();
    assert_eq!(answer.body, b"yyy");
    client.send("1\r\nx\r\n0\r\n\r\n");
    assert_eq!(client.get("/next", "").status, 200);
}

/// `POST http://a/` in HPACK's static table.
const POST_A: &[u8] = b"\x83\x86\x84\x41\x01a";

/// Frames of a stream up to its end or reset: the bytes, and the code of a reset.
fn ended(client: &mut Client, stream: u32) -> (usize, Option<u32>) {
    let mut count = 0;
    while let Some((kind, flags, id, payload)) = next_frame(client) {
        match kind {
            0 if id == stream => count += payload.len(),
            3 if id == stream => {
                return (count, Some(u32::from_be_bytes(payload[..4].try_into().unwrap())));
            }
            _ => {}
        }
        if kind <= 1 && id == stream && flags & 1 == 1 {
            return (count, None);
        }
    }
    panic!("the connection ended");
}

#[test]
fn a_stream_whose_server_answers_early_goes_on_or_ends_without_an_error() {
    let (stored, read) = channel();
    let stored = Mutex::new(stored);
    let upstream = Upstream::scripted(move |session| {
        while let Some(request) = session.request() {
            let status = if request.contains("x-refuse") { "413 No" } else { "202 Yes" };
            session.send(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok"));
            if status.starts_with('4') {
                session.rest();
                return;
            }
            stored.lock().unwrap().send(session.body(40_000).len()).unwrap();
        }
    });
    let gateway = gateway(&upstream, "");
    let mut client = raw(&gateway);
    let length = b"\x0f\x0d\x0540000";
    // It goes on.
    client.send(frame(1, 4, 1, &[POST_A, length].concat()));
    assert_eq!(ended(&mut client, 1), (2, None));
    for _ in 0..4 {
        client.send(frame(0, 0, 1, &[b'x'; 10_000]));
    }
    client.send(frame(0, 1, 1, b""));
    assert_eq!(read.recv().unwrap(), 40_000);
    // The answer is whole, and no more of the request is wanted (RFC 9113 §8.1).
    let refuse = b"\x00\x08x-refuse\x01y";
    client.send(frame(1, 4, 3, &[POST_A, length, refuse].concat()));
    assert_eq!(ended(&mut client, 3), (2, None));
    assert_eq!(ended(&mut client, 3), (0, Some(0)));
}
