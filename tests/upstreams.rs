//! Endpoints: balance, refusals, back-off, stale connections, limits, names.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Gateway, Upstream, two_tracks};

/// One track over several endpoints.
fn one_track(endpoints: &[String], more: &str) -> String {
    format!(
        "services:\n  - name: api\n    tracks: {{ stable: {{ endpoints: [{}] }} }}\n{more}",
        endpoints.join(", ")
    )
}

#[test]
fn requests_are_spread_over_the_endpoints() {
    let upstreams: Vec<Upstream> = (0..4).map(|_| Upstream::track("stable")).collect();
    let addresses: Vec<String> =
        upstreams.iter().map(|upstream| format!("'{}'", upstream.address)).collect();
    let gateway = Gateway::start(&one_track(&addresses, ""));
    let mut client = gateway.connect();
    for _ in 0..4_000 {
        assert_eq!(client.get("/", "").status, 200);
    }
    for upstream in &upstreams {
        let requests = upstream.requests();
        // 1,000 each; five standard deviations of a fair draw are 137.
        assert!((850..1_150).contains(&requests), "{requests}");
    }
}

#[test]
fn an_endpoint_that_refuses_costs_no_request_and_no_more_than_its_share_of_dials() {
    let good = Upstream::track("stable");
    let dead = Upstream::refusing();
    let addresses = [format!("'{}'", good.address), format!("'{dead}'")];
    let gateway = Gateway::start(&one_track(&addresses, ""));
    let mut client = gateway.connect();
    for _ in 0..3_000 {
        assert_eq!(client.get("/", "").status, 200);
    }
    let dead = format!("endpoint=\"{dead}\"");
    let failures = gateway.metric("splitway_upstream_connect_failures_total", &[&dead]);
    // At once, after 1 s, after 3 s, …: a handful however many requests there were.
    assert!((1.0..=8.0).contains(&failures), "{failures}");
    gateway.await_metric("http_requests_total", &["status=\"200\""], |value| value == 3_000.0);
}

#[test]
fn an_endpoint_that_comes_back_is_used_again() {
    let good = Upstream::track("stable");
    let address = Upstream::refusing();
    let addresses = [format!("'{}'", good.address), format!("'{address}'")];
    let gateway = Gateway::start(&one_track(&addresses, ""));
    let label = format!("endpoint=\"{address}\"");
    let mut client = gateway.connect();
    while gateway.metric("splitway_upstream_connect_failures_total", &[&label]) == 0.0 {
        client.get("/", "");
    }
    let returned = Upstream::scripted_on(TcpListener::bind(address).unwrap(), |session| {
        while session.request().is_some() {
            session.send("HTTP/1.1 200 OK\r\nx-track: back\r\ncontent-length: 0\r\n\r\n");
        }
    });
    while client.get("/", "").track() != "back" {}
    assert!(returned.connections() >= 1);
}

#[test]
fn a_track_that_refuses_is_a_502_of_that_track() {
    let stable = Upstream::track("stable");
    let gateway = Gateway::start(&two_tracks(stable.address, Upstream::refusing(), 100.0, ""));
    let mut client = gateway.connect();
    for _ in 0..3 {
        let answer = client.get("/", "");
        assert_eq!(answer.status, 502);
        assert_eq!(answer.header("splitway-error"), Some("upstream connect failed"));
        assert_eq!(answer.header("connection"), None, "the client's connection is fine");
    }
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc");
    assert_eq!(client.response().status, 502);
    gateway.await_metric("http_requests_total", &["canary", "502"], |value| value == 4.0);
}

#[test]
fn a_connect_failure_is_mended_for_any_method() {
    let good = Upstream::scripted(|session| {
        while session.request().is_some() {
            session.body(3);
            session.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let addresses = [
        format!("'{}'", Upstream::refusing()),
        format!("'{}'", Upstream::refusing()),
        format!("'{}'", good.address),
    ];
    let gateway = Gateway::start(&one_track(&addresses, ""));
    let mut client = gateway.connect();
    for _ in 0..50 {
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc");
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(good.requests(), 50);
}

/// A server that answers once per connection and closes when told, without `Connection: close`.
fn closes_behind(requests: usize) -> Upstream {
    Upstream::scripted(move |session| {
        for _ in 0..requests {
            if session.request().is_none() {
                return;
            }
            session.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
        if session.number == 0 {
            // Takes the next request and closes without a byte: the race that a pool cannot win.
            session.request();
        } else {
            session.rest();
        }
    })
}

#[test]
fn a_get_on_a_stale_connection_is_sent_again() {
    let upstream = closes_behind(1);
    let gateway = Gateway::start(&two_tracks(upstream.address, upstream.address, 0.0, ""));
    let mut client = gateway.connect();
    assert_eq!(client.get("/", "").status, 200);
    assert_eq!(client.get("/", "").status, 200);
    assert_eq!(upstream.connections(), 2);
    gateway.await_metric("splitway_retries_total", &["result=\"answered\""], |value| value == 1.0);
    gateway.await_metric("http_requests_total", &["status=\"200\""], |value| value == 2.0);
}

#[test]
fn a_post_on_a_stale_connection_is_not_sent_again() {
    let upstream = closes_behind(1);
    let gateway = Gateway::start(&two_tracks(upstream.address, upstream.address, 0.0, ""));
    let mut client = gateway.connect();
    assert_eq!(client.get("/", "").status, 200);
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
    let answer = client.response();
    assert_eq!(answer.status, 502);
    assert_eq!(answer.header("splitway-error"), Some("upstream closed early"));
    assert_eq!(upstream.requests(), 2, "it may have been acted upon, so it is not repeated");
}

#[test]
fn a_fresh_connection_that_closes_is_no_reason_to_ask_again() {
    let upstream = Upstream::scripted(|session| {
        session.request();
    });
    let gateway = Gateway::start(&two_tracks(upstream.address, upstream.address, 0.0, ""));
    assert_eq!(gateway.connect().get("/", "").status, 502);
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn connections_closed_while_idle_fail_no_get_and_none_is_kept_past_its_age() {
    let upstream = Upstream::track("stable");
    let gateway = Gateway::start_with(
        "workers: 1\n",
        &two_tracks(upstream.address, upstream.address, 0.0, ""),
    );
    let mut client = gateway.connect();
    for _ in 0..20 {
        assert_eq!(client.get("/", "").status, 200);
        upstream.close_connections();
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
        let status = client.response().status;
        assert!(status == 200 || status == 502, "{status}");
    }
    // An idle connection is not kept past its age.
    gateway.await_metric("splitway_upstream_connections", &[], |open| open == 0.0);
}

#[test]
fn an_answer_with_bytes_behind_it_ends_its_connection() {
    let upstream = Upstream::scripted(|session| {
        while session.request().is_some() {
            session.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil");
        }
    });
    let gateway = Gateway::start(&two_tracks(upstream.address, upstream.address, 0.0, ""));
    let mut client = gateway.connect();
    for _ in 0..5 {
        assert_eq!(client.get("/", "").body, b"ok");
    }
    assert_eq!(upstream.connections(), 5);
}

#[test]
fn connections_to_an_endpoint_are_bounded_over_all_workers() {
    let release = Arc::new(AtomicBool::new(false));
    let waiting = Arc::clone(&release);
    let upstream = Upstream::scripted(move |session| {
        session.request();
        while !waiting.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        session.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    });
    let file = two_tracks(upstream.address, upstream.address, 0.0, "");
    let limits = "upstream: { max_connections: 3, pending: off }\n";
    let gateway = Gateway::start(&format!("{limits}{file}"));
    let mut held: Vec<_> = (0..3).map(|_| gateway.connect()).collect();
    for client in &mut held {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    gateway.await_metric("splitway_upstream_connections", &[], |open| open == 3.0);
    let answer = gateway.connect().get("/", "");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("splitway-error"), Some("endpoint connections are exhausted"));
    release.store(true, Ordering::SeqCst);
    for client in &mut held {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(upstream.connections(), 3);
    assert_eq!(gateway.metric("splitway_exhausted_total", &["stable"]), 1.0);
}

#[test]
fn requests_wait_for_connections_in_a_bounded_queue() {
    let release = Arc::new(AtomicBool::new(false));
    let waiting = Arc::clone(&release);
    let upstream = Upstream::scripted(move |session| {
        while session.request().is_some() {
            while !waiting.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            session.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let file = two_tracks(upstream.address, upstream.address, 0.0, "");
    let limits = "upstream: { max_connections: 2, pending: 6 }\ntimeouts: { connect: 30s }\n";
    let gateway = Gateway::start(&format!("{limits}{file}"));
    // Of both workers, some of whom get a connection only when the other's is closed.
    let mut clients: Vec<_> = (0..8).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    gateway.await_metric("splitway_pending", &[], |count| count == 6.0);
    assert_eq!(gateway.connect().get("/", "").status, 503, "the queue is full");
    release.store(true, Ordering::SeqCst);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    gateway.await_metric("splitway_pending", &[], |count| count == 0.0);
    assert_eq!(gateway.metric("splitway_exhausted_total", &["stable"]), 1.0);
    // Whoever waits too long is told.
    release.store(false, Ordering::SeqCst);
    let limits = limits.replace("30s", "200ms");
    let gateway = Gateway::start_with("workers: 1\n", &format!("{limits}{file}"));
    let before = upstream.requests();
    let mut clients: Vec<_> = (0..2).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    while upstream.requests() < before + 2 {
        std::thread::yield_now();
    }
    let answer = gateway.connect().get("/", "");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("splitway-error"), Some("endpoint connections are exhausted"));
    release.store(true, Ordering::SeqCst);
}

#[test]
fn names_are_resolved() {
    let upstream = Upstream::track("stable");
    let port = upstream.address.port();
    let gateway = Gateway::start(&one_track(&[format!("localhost:{port}")], ""));
    assert_eq!(gateway.connect().get("/", "").track(), "stable");
    let gateway = Gateway::start(&one_track(&["no-such-name.invalid:80".to_owned()], ""));
    let answer = gateway.connect().get("/", "");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("splitway-error"), Some("track has no endpoint"));
}

#[test]
fn killing_an_upstream_mid_body_truncates_the_answer() {
    let Some(python) = crate::support::tools::program("python3", "python3") else { return };
    let script = r#"
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
client, _ = server.accept()
client.recv(65536)
client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 1000)
client.recv(1)
"#;
    let mut child = std::process::Command::new(python)
        .args(["-c", script])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    let address = format!("127.0.0.1:{}", line.trim()).parse().unwrap();
    let gateway = Gateway::start(&two_tracks(address, address, 0.0, ""));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut answer = client.head();
    assert_eq!(answer.status, 200);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(client.body_of(&mut answer), Err("closed within a counted body"));
}
