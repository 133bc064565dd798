//! Whose fault an end is: what clients and the gateway itself can cause is held against no
//! upstream, and what upstreams do is, whatever their clients do beside it.

use std::io::Read;
use std::process::Command;
use std::time::Duration;

use serde_json::Value as Json;

use crate::support::{Client, Gateway, Session, Upstream};

/// A rollout that stays at 50 %, both tracks served by `script`, with `top` ahead of the services.
fn judged(
    top: &str,
    script: impl Fn(&mut Session) + Clone + Send + Sync + 'static,
) -> (Gateway, [Upstream; 2]) {
    let servers = [Upstream::scripted(script.clone()), Upstream::scripted(script)];
    (started(top, &servers), servers)
}

fn started(top: &str, servers: &[Upstream; 2]) -> Gateway {
    let config = format!(
        "{top}services:\n  - name: api\n    tracks:\n      stable: {{ version: v1, endpoints: \
         ['{}'] }}\n      canary: {{ version: v2, endpoints: ['{}'] }}\n    ejection: {{ \
         consecutive: 3 }}\n    rollout: {{ stages: [50, 100], min: 10m, judge: {{ warmup: 1s }} }}\n",
        servers[0].address, servers[1].address
    );
    let gateway = Gateway::start_with("workers: 1\n", &config);
    gateway.await_phase("progressing");
    gateway
}

/// Requests that the judge has seen, their errors, and what was pardoned, over both tracks.
fn seen(rollout: &Json) -> (u64, u64, u64) {
    let of = |track: &str, what: &str| rollout["run_evidence"][track][what].as_u64().unwrap();
    let pardoned = |track: &str| {
        let reasons = rollout["pardoned"][track].as_object().unwrap();
        reasons.values().map(|count| count.as_u64().unwrap()).sum::<u64>()
    };
    (
        of("stable", "requests") + of("canary", "requests"),
        of("stable", "errors") + of("canary", "errors"),
        pardoned("stable") + pardoned("canary"),
    )
}

fn await_seen(gateway: &Gateway, expected: (u64, u64, u64)) {
    gateway.await_rollout("api", |rollout| seen(rollout) == expected);
    // Whatever is held against nobody's upstream ejects no endpoint and keeps none away.
    let is_clean = expected.1 == 0;
    assert!(!is_clean || gateway.metric("splitway_upstream_ejections_total", &[]) == 0.0);
    let backing_off = gateway.metric("splitway_track_endpoints", &["backing_off"]);
    assert_eq!(backing_off, 0.0);
}

fn pardoned(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric("splitway_pardoned_total", &[&format!("reason=\"{reason}\"")])
}

/// A client that asks by HTTP/1 or HTTP/2 and takes no more of the answer than it must.
fn asks_and_takes_nothing(gateway: &Gateway, http2: bool) -> Client {
    let mut client = gateway.connect();
    if http2 {
        // Settings, then a GET of / on host a that opens no window beyond the first 64 KiB.
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        client.send(b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a");
    } else {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    client
}

/// Many: a fair draw gives both tracks some of them.
const MANY: u64 = 12;

#[test]
fn a_client_that_takes_no_answer_is_nobody_elses_fault() {
    let (gateway, _servers) = judged("timeouts: { between_bytes: 500ms }\n", |session| {
        session.request();
        session.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        let piece = [b"40000\r\n".to_vec(), vec![b'y'; 0x40000], b"\r\n".to_vec()].concat();
        // Until the gateway takes no more.
        while session.try_send(&piece) {}
    });
    for http2 in [false, true] {
        let _clients: Vec<Client> =
            (0..MANY).map(|_| asks_and_takes_nothing(&gateway, http2)).collect();
        let count = if http2 { 2 * MANY } else { MANY };
        // The answers that came are the upstream's, and good.
        await_seen(&gateway, (count, 0, count));
        assert_eq!(pardoned(&gateway, "client_stalled"), count as f64);
    }
    let answer = gateway.admin_get("/api/v1/services/api/explain");
    let said = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(said.contains("24 client_stalled"), "{said}");
}

#[test]
fn an_upstream_that_cuts_its_answer_is_blamed_though_the_client_stalls() {
    let (gateway, _servers) = judged("timeouts: { between_bytes: 5s }\n", |session| {
        session.request();
        session.send("HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n");
        session.send(vec![b'y'; 30_000]);
    });
    let _clients: Vec<Client> =
        (0..MANY).map(|count| asks_and_takes_nothing(&gateway, count % 2 == 0)).collect();
    gateway.await_rollout("api", |rollout| seen(rollout) == (MANY, MANY, 0));
}

#[test]
fn a_callers_own_deadline_is_its_own() {
    let call = |timeout: &str| {
        format!(
            "POST /s/m HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ngrpc-timeout: \
             {timeout}\r\ncontent-length: 0\r\n\r\n"
        )
    };
    // Answers that the time was over, as a server does that is told of it.
    let (gateway, _servers) = judged("", |session| {
        while session.request().is_some() {
            session.send(
                "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: \
                 4\r\ncontent-length: 0\r\n\r\n",
            );
        }
    });
    for _ in 0..MANY {
        let mut client = gateway.connect();
        client.send(call("1n"));
        client.response();
    }
    await_seen(&gateway, (0, 0, MANY));
    assert_eq!(pardoned(&gateway, "client_deadline"), MANY as f64);
    // With time left the same answer is the upstream's own.
    for _ in 0..MANY {
        let mut client = gateway.connect();
        client.send(call("1M"));
        client.response();
    }
    gateway.await_rollout("api", |rollout| seen(rollout) == (MANY, MANY, MANY));
}

#[test]
fn a_body_that_never_comes_is_its_senders_fault_and_an_error_ahead_of_it_the_servers() {
    let upload = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc";
    let (gateway, _servers) = judged("", |session| {
        session.request();
        session.rest();
    });
    for _ in 0..MANY {
        let mut client = gateway.connect();
        client.send(upload);
        client.close_write();
        assert_eq!(client.rest(), b"");
    }
    await_seen(&gateway, (0, 0, MANY));
    assert_eq!(pardoned(&gateway, "client_body"), MANY as f64);
    let (gateway, _servers) = judged("", |session| {
        session.request();
        session.send("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n");
        session.rest();
    });
    for _ in 0..MANY {
        let mut client = gateway.connect();
        client.send(upload);
        assert_eq!(client.head().status, 500);
    }
    gateway.await_rollout("api", |rollout| seen(rollout) == (MANY, MANY, 0));
}

#[test]
fn a_canary_that_hangs_is_found_out_though_its_clients_give_up() {
    let hangs = Upstream::scripted(|session| {
        session.request();
        session.rest();
    });
    let servers = [Upstream::track("stable"), hangs];
    let gateway = started("", &servers);
    let waits = || {
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        // Longer than a cohort is waited for, which is two seconds.
        client.stream.set_read_timeout(Some(Duration::from_millis(2_500))).unwrap();
        let _ = client.stream.read(&mut [0; 12]);
        socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
    };
    std::thread::scope(|scope| {
        (0..40).for_each(|_| {
            scope.spawn(waits);
        });
    });
    gateway.await_phase("rolled_back");
}

#[test]
fn descriptors_that_we_lack_are_held_against_nobody() {
    let (gateway, servers) = judged("upstream: { pending: off }\n", |session| {
        // A connection for each request, so that each needs a descriptor.
        if session.request().is_some() {
            session.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let mut clients: Vec<Client> = (0..MANY).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/", "").status, 200);
    }
    await_seen(&gateway, (MANY, 0, 0));
    let pid = gateway.pid().to_string();
    let limit = |most: usize| {
        let most = format!("--nofile={most}:4096");
        let status = Command::new("prlimit").args(["--pid", &pid, &most]).status();
        assert!(status.unwrap().success());
    };
    // The admin port gets what it asks for again before anything is read of it.
    limit(8);
    for client in &mut clients {
        assert_eq!(client.get("/", "").status, 503);
    }
    limit(4_096);
    for client in &mut clients {
        assert_eq!(client.get("/", "").status, 200, "no endpoint is left alone for it");
    }
    gateway.await_rollout("api", |rollout| {
        // What stable could not serve counts as if it had failed: it never speaks for a rollback.
        let unserved = rollout["pardoned"]["stable"]["descriptors"].as_u64().unwrap_or(0);
        seen(rollout) == (2 * MANY + unserved, unserved, MANY)
    });
    assert_eq!(gateway.metric("splitway_upstream_ejections_total", &[]), 0.0);
    assert_eq!(gateway.metric("splitway_track_endpoints", &["backing_off"]), 0.0);
    assert_eq!(pardoned(&gateway, "descriptors"), MANY as f64);
    assert_eq!(gateway.metric("splitway_upstream_connect_failures_total", &[]), 0.0);
    assert!(servers.iter().map(Upstream::requests).sum::<usize>() == 2 * MANY as usize);
}

#[test]
fn what_rules_send_fills_its_own_places_and_turns_no_drawn_user_away() {
    let server = Upstream::scripted(|session| {
        while let Some(head) = session.request() {
            if head.starts_with("POST") {
                session.rest();
                return;
            }
            session.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let rule = "    rules: [{ match: { headers: { beta: \"1\" } }, track: stable }]\n";
    for (limit, top, reason) in [
        (", max_in_flight: 2", "", "in_flight"),
        ("", "upstream: { max_connections: 2, pending: off }\n", "connections"),
    ] {
        let config = format!(
            "{top}services:\n  - name: api\n    tracks: {{ stable: {{ endpoints: ['{}']{limit} }} \
             }}\n{rule}",
            server.address
        );
        let gateway = Gateway::start_with("workers: 1\n", &config);
        let upload = |headers: &str| {
            let mut client = gateway.connect();
            client
                .send(format!("POST / HTTP/1.1\r\nhost: a\r\n{headers}content-length: 9\r\n\r\nx"));
            client
        };
        let before = server.requests();
        let _held = [upload("beta: 1\r\n"), upload("beta: 1\r\n")];
        while server.requests() < before + 2 {
            std::thread::yield_now();
        }
        let mut client = gateway.connect();
        assert_eq!(client.get("/", "beta: 1\r\n").status, 503, "{reason}");
        assert_eq!(client.get("/", "").status, 200, "{reason}");
        // And the other way round.
        drop(client);
        let _held = [upload(""), upload("")];
        gateway.await_metric("splitway_pardoned_total", &[reason], |count| count == 1.0);
        while server.requests() < before + 5 {
            std::thread::yield_now();
        }
        assert_eq!(gateway.connect().get("/", "").status, 503, "{reason}");
        gateway.await_metric("splitway_pardoned_total", &[reason], |count| count == 2.0);
    }
}
