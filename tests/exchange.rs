//! The exchange: bodies, framing, interim answers, pipelining, upgrades, ends of every kind.

use std::sync::mpsc::channel;

use crate::support::{Client, Gateway, Upstream, two_tracks};

/// A gateway in front of one scripted server.
fn behind(
    script: impl Fn(&mut crate::support::upstream::Session) + Send + Sync + 'static,
) -> (Gateway, Upstream) {
    let upstream = Upstream::scripted(script);
    let gateway = Gateway::start(&two_tracks(upstream.address, upstream.address, 0.0, ""));
    (gateway, upstream)
}

#[test]
fn a_request_is_forwarded_byte_for_byte_less_its_hop() {
    let (gateway, upstream) = behind(|session| {
        session.request();
        session.body(5);
        session.send(
            "HTTP/1.1 201 Made It\r\nX-Case: Kept\r\nkeep-alive: 5\r\ncontent-length: 2\r\n\r\nok",
        );
    });
    let mut client = gateway.connect();
    client.send(
        "POST /a%20b?c=d HTTP/1.1\r\nHost: Example.com\r\nX-Odd-CASE:  spaced  \r\n\
         connection: x-hop\r\nx-hop: 1\r\ncontent-length: 5\r\nx-forwarded-for: 6.6.6.6\r\n\r\nhello",
    );
    let answer = client.response();
    let sent = "POST /a%20b?c=d HTTP/1.1\r\nhost: example.com\r\ncontent-length: 5\r\n\
        X-Odd-CASE:  spaced  \r\nx-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\n\
        x-forwarded-host: example.com\r\n\r\nhello";
    assert_eq!(String::from_utf8(upstream.bytes()).unwrap(), sent);
    assert_eq!(answer.head, "HTTP/1.1 201 Made It\r\ncontent-length: 2\r\nX-Case: Kept\r\n\r\n");
    assert_eq!(answer.body, b"ok");
}

#[test]
fn chunked_bodies_and_trailers_pass_both_ways() {
    let (gateway, upstream) = behind(|session| {
        session.request();
        session.body("3;e=1\r\nabc\r\n0\r\nx-sum: 9\r\n\r\n".len());
        session.send(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n4\r\nwxyz\r\n",
        );
        session.send("0\r\nx-t: 7\r\n\r\n");
        session.rest();
    });
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send("3;e=1\r\nabc\r\n");
    client.send("0\r\nx-sum: 9\r\n\r\n");
    let answer = client.response();
    assert_eq!(answer.body, b"wxyz");
    assert_eq!(answer.header("trailer-x-t"), Some("7"));
    let sent = String::from_utf8(upstream.bytes()).unwrap();
    assert!(sent.contains("te: trailers\r\nconnection: te\r\n"), "{sent}");
    assert!(sent.ends_with("\r\n\r\n3;e=1\r\nabc\r\n0\r\nx-sum: 9\r\n\r\n"), "{sent}");
}

#[test]
fn an_http_10_client_gets_plain_bytes_and_a_close() {
    let (gateway, upstream) = behind(|session| {
        session.request();
        session.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
        session.send("2\r\nde\r\n0\r\n\r\n");
        session.rest();
    });
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
    let answer = client.response();
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(answer.body, b"abcde");
    assert!(
        String::from_utf8(upstream.bytes()).unwrap().starts_with("GET / HTTP/1.1\r\nhost: \r\n")
    );
}

#[test]
fn an_http_10_client_may_keep_its_connection() {
    let upstream = Upstream::track("stable");
    let gateway = Gateway::start(&two_tracks(upstream.address, upstream.address, 0.0, ""));
    let mut client = gateway.connect();
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n");
        assert_eq!(client.response().header("connection"), Some("keep-alive"));
    }
    client.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
    assert_eq!(client.response().header("connection"), Some("close"));
    assert_eq!(client.rest(), b"");
}

#[test]
fn answers_without_a_body_have_none() {
    let (gateway, _upstream) = behind(|session| {
        while let Some(request) = session.request() {
            let status = request.split(['/', ' ']).nth(2).unwrap().to_owned();
            session.send(format!("HTTP/1.1 {status} X\r\ncontent-length: 3\r\netag: y\r\n\r\n"));
        }
    });
    let mut client = gateway.connect();
    for (method, status) in [("GET", 304), ("HEAD", 200), ("GET", 204), ("HEAD", 404)] {
        client.send(format!("{method} /{status} HTTP/1.1\r\nhost: a\r\n\r\n"));
        let answer = client.head();
        assert_eq!(answer.status, status);
        // RFC 9110 §8.6: 204 has no content that could be measured.
        let length = if status == 204 { None } else { Some("3") };
        assert_eq!(answer.header("content-length"), length);
    }
    assert!(client.held.is_empty());
}

#[test]
fn a_body_that_ends_with_the_connection_passes() {
    let (gateway, _upstream) = behind(|session| {
        session.request();
        session.send("HTTP/1.0 200 OK\r\n\r\nall of ");
        session.send("it");
    });
    let mut client = gateway.connect();
    let answer = client.get("/", "");
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(answer.body, b"all of it");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (gateway, upstream) = behind(|session| {
        while let Some(request) = session.request() {
            let path = request.split(' ').nth(1).unwrap().to_owned();
            if request.starts_with("POST") {
                session.body(3);
            }
            session
                .send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len()));
        }
    });
    let mut client = gateway.connect();
    let mut all = String::new();
    for number in 0..200 {
        all += &match number % 2 {
            0 => format!("GET /{number} HTTP/1.1\r\nhost: a\r\n\r\n"),
            _ => format!("POST /{number} HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nxyz"),
        };
    }
    // Cut where no boundary is, so that heads and bodies come in pieces.
    for piece in all.as_bytes().chunks(1_009) {
        client.send(piece);
    }
    for number in 0..200 {
        assert_eq!(client.response().text(), format!("/{number}"));
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn interim_answers_pass_and_expectations_are_met() {
    let (gateway, upstream) = behind(|session| {
        let head = session.request().unwrap();
        assert!(head.contains("expect: 100-continue"), "{head}");
        session.send("HTTP/1.1 100 Continue\r\n\r\n");
        session.body(4);
        session.send("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        session.rest();
    });
    let mut client = gateway.connect();
    client.send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(client.head().status, 100);
    client.send("body");
    let hints = client.head();
    assert_eq!((hints.status, hints.header("link")), (103, Some("x")));
    assert_eq!(client.response().status, 200);
    assert!(upstream.bytes().ends_with(b"body"));
}

#[test]
fn an_http_10_client_gets_no_interim_answer() {
    let (gateway, _upstream) = behind(|session| {
        session.request();
        session
            .send("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        session.rest();
    });
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
    assert_eq!(client.head().status, 200);
}

#[test]
fn an_answer_may_come_before_the_request_has_ended() {
    let (gateway, _upstream) = behind(|session| {
        session.request();
        session.send("HTTP/1.1 413 Too Much\r\ncontent-length: 2\r\n\r\nno");
        session.rest();
    });
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nonly a start");
    let answer = client.response();
    assert_eq!((answer.status, answer.text().as_str()), (413, "no"));
    assert_eq!(client.rest(), b"", "the connection cannot be used again");
}

#[test]
fn a_half_closed_client_gets_its_answer_where_that_is_wished() {
    let (asked, answer) = channel();
    let (go, wait) = channel::<()>();
    let (asked, wait) = (std::sync::Mutex::new(asked), std::sync::Mutex::new(wait));
    let upstream = Upstream::scripted(move |session| {
        session.request();
        asked.lock().unwrap().send(()).unwrap();
        wait.lock().unwrap().recv().unwrap();
        session.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhere");
        session.rest();
    });
    let file = two_tracks(upstream.address, upstream.address, 0.0, "");
    let gateway = Gateway::start(&format!("half_close: serve\n{file}"));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    client.close_write();
    answer.recv().unwrap();
    go.send(()).unwrap();
    assert_eq!(client.response().body, b"here");
    assert_eq!(client.rest(), b"");
}

/// Clients that ask for something, and leave by a FIN and nothing more.
#[test]
fn a_client_that_left_frees_its_place_while_its_answer_is_awaited() {
    let upstream = Upstream::scripted(|session| {
        session.request();
        session.rest();
    });
    let file = format!(
        "services:\n  - name: api\n    tracks: {{ stable: {{ endpoints: ['{}'], max_in_flight: 3 }} }}\n",
        upstream.address
    );
    let gateway = Gateway::start(&file);
    for head in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "HEAD / HTTP/1.0\r\n\r\n",
        // What is pipelined behind it waits unread.
        "OPTIONS / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\n",
    ] {
        let mut client = gateway.connect();
        client.send(head);
        client.close_write();
        // It may be closed for the client too, as soon as it is seen to have left.
        assert_eq!(client.rest(), b"", "{head}");
    }
    gateway.await_metric("splitway_in_flight", &[], |requests| requests == 0.0);
    gateway.await_metric("http_requests_total", &["status=\"499\""], |count| count == 3.0);
    gateway.await_metric("splitway_downstream_connections", &[], |open| open == 0.0);
    gateway.await_metric("splitway_upstream_connections", &[], |open| open == 0.0);
}

#[test]
fn who_asked_for_something_to_happen_is_answered_after_a_half_close() {
    let (gateway, _upstream) = behind(|session| {
        session.request();
        // Longer than it takes until a client is looked after; time itself is tested here.
        std::thread::sleep(std::time::Duration::from_millis(1_200));
        session.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhere");
        session.rest();
    });
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
    client.close_write();
    assert_eq!(client.response().body, b"here");
}

#[test]
fn a_client_that_resets_is_a_499() {
    let (asked, seen) = channel();
    let asked = std::sync::Mutex::new(asked);
    let (gateway, _upstream) = behind(move |session| {
        session.request();
        asked.lock().unwrap().send(()).unwrap();
        session.rest();
    });
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    seen.recv().unwrap();
    socket2::SockRef::from(&client.stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    gateway.await_metric("http_requests_total", &["status=\"499\""], |count| count == 1.0);
    gateway.await_metric("splitway_upstream_connections", &[], |open| open == 0.0);
}

#[test]
fn a_truncated_answer_reaches_the_client_truncated() {
    for (head, cut) in [
        ("content-length: 10\r\n\r\nabc", "closed within a counted body"),
        ("transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", "closed within chunk framing"),
        ("transfer-encoding: chunked\r\n\r\n9\r\nabc", "closed within a chunk"),
    ] {
        let (gateway, _upstream) = behind(move |session| {
            session.request();
            session.send(format!("HTTP/1.1 200 OK\r\n{head}"));
        });
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let mut answer = client.head();
        assert_eq!(client.body_of(&mut answer), Err(cut));
    }
}

#[test]
fn a_reset_of_an_uncounted_body_is_a_reset_to_the_client() {
    let (gateway, _upstream) = behind(|session| {
        session.request();
        session.send("HTTP/1.1 200 OK\r\n\r\nhalf of it");
        session.reset();
    });
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let error = loop {
        match std::io::Read::read(&mut client.stream, &mut [0; 1_024]) {
            Ok(0) => panic!("a clean close would look complete"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

fn websocket(gateway: &Gateway) -> Client {
    let mut client = gateway.connect();
    client.send(
        "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-key: x\r\n\r\n",
    );
    let answer = client.head();
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert_eq!(answer.header("connection"), Some("upgrade"));
    client
}

#[test]
fn an_upgrade_becomes_a_tunnel() {
    let (gateway, upstream) = behind(|session| {
        let head = session.request().unwrap();
        assert!(head.contains("connection: upgrade\r\n"), "{head}");
        session.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nfirst");
        let said = session.body(5);
        session.send(said);
        let rest = session.rest();
        session.send(format!("bye {}", rest.len()));
    });
    let mut client = websocket(&gateway);
    client.send("hello");
    let mut said = Vec::new();
    while said.len() < 10 {
        let mut buffer = [0; 16];
        said.extend_from_slice(&std::mem::take(&mut client.held));
        if said.len() < 10 {
            let count = std::io::Read::read(&mut client.stream, &mut buffer).unwrap();
            said.extend_from_slice(&buffer[..count]);
        }
    }
    assert_eq!(said, b"firsthello");
    client.send(vec![b'x'; 300_000]);
    client.close_write();
    assert_eq!(client.rest(), b"bye 300000");
    gateway.await_metric("http_requests_total", &["status=\"101\""], |count| count == 1.0);
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer() {
    let (gateway, _upstream) = behind(|session| {
        while session.request().is_some() {
            session.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno");
        }
    });
    let mut client = gateway.connect();
    for _ in 0..2 {
        let answer = client.get("/", "connection: upgrade\r\nupgrade: websocket\r\n");
        assert_eq!(answer.body, b"no");
    }
}

#[test]
fn via_is_added_when_asked_for() {
    let upstream = Upstream::scripted(|session| {
        session.request();
        session.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        session.rest();
    });
    let file = two_tracks(upstream.address, upstream.address, 0.0, "");
    let gateway = Gateway::start(&format!("via: gate\n{file}"));
    assert_eq!(gateway.connect().get("/", "").header("via"), Some("1.1 gate"));
    assert!(String::from_utf8(upstream.bytes()).unwrap().contains("\r\nvia: 1.1 gate\r\n"));
}

#[test]
fn forwarded_fields_are_extended_behind_trusted_proxies() {
    let upstream = Upstream::scripted(|session| {
        session.request();
        session.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        session.rest();
    });
    let file = two_tracks(upstream.address, upstream.address, 0.0, "");
    let gateway = Gateway::start(&format!("trusted_proxies: [127.0.0.0/8]\n{file}"));
    let headers = "x-forwarded-for: 9.9.9.9\r\nx-forwarded-proto: https\r\n";
    gateway.connect().get("/", headers);
    let sent = String::from_utf8(upstream.bytes()).unwrap();
    assert!(sent.contains("x-forwarded-for: 9.9.9.9, 127.0.0.1\r\n"), "{sent}");
    assert!(sent.contains("x-forwarded-proto: https\r\n"), "{sent}");
    assert!(sent.contains("x-forwarded-host: test\r\n"), "{sent}");
}
