//! Which endpoint of a track gets a request, and which gets none for a while.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::{Client, Gateway, Load, Tested, Upstream, until};

/// A server that names itself, and fails when told to; its probes at /healthz too.
fn named(name: &'static str) -> (Upstream, Arc<AtomicBool>) {
    let fails = Arc::<AtomicBool>::default();
    let told = Arc::clone(&fails);
    let upstream = Upstream::scripted(move |session| {
        while session.request().is_some() {
            let status = if told.load(Ordering::SeqCst) { 500 } else { 200 };
            let length = name.len();
            session.send(format!(
                "HTTP/1.1 {status} x\r\nx-track: {name}\r\ncontent-length: {length}\r\n\r\n{name}"
            ));
        }
    });
    (upstream, fails)
}

fn one_track(endpoints: &[SocketAddr], more: &str) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|one| format!("'{one}'")).collect();
    let endpoints = endpoints.join(", ");
    format!(
        "services:\n  - name: api\n    tracks: {{ stable: {{ endpoints: [{endpoints}] }} }}\n{more}"
    )
}

/// How many of `count` requests each server answered, and how many failed.
fn answers(client: &mut Client, count: usize, headers: &str) -> HashMap<String, usize> {
    let mut answers = HashMap::new();
    for _ in 0..count {
        let answer = client.get("/", headers);
        let name = if answer.status == 200 { answer.track().to_owned() } else { "failed".into() };
        *answers.entry(name).or_default() += 1;
    }
    answers
}

#[test]
fn endpoints_take_turns_or_belong_to_whoever_asks() {
    let servers = [named("a"), named("b"), named("c")];
    let addresses = [0, 1, 2].map(|index: usize| servers[index].0.address);
    let gateway = Gateway::start(&one_track(&addresses, "    balance: { by: round_robin }\n"));
    let mut client = gateway.connect();
    let seen = answers(&mut client, 30, "");
    assert!(["a", "b", "c"].iter().all(|name| seen[*name] == 10), "{seen:?}");

    let by_key = "    balance: { by: key, header: x-user }\n";
    gateway.edit(&one_track(&addresses, by_key));
    let mut homes = HashMap::<String, usize>::new();
    for user in 0..60 {
        let seen = answers(&mut client, 3, &format!("x-user: {user}\r\n"));
        assert_eq!(seen.len(), 1, "user {user} has one endpoint: {seen:?}");
        *homes.entry(seen.into_keys().next().unwrap()).or_default() += 1;
    }
    assert!(homes.len() == 3 && homes.values().all(|count| *count >= 8), "{homes:?}");
    // Without the field the source is what tells.
    assert_eq!(answers(&mut client, 10, "").len(), 1);
}

#[test]
fn an_endpoint_that_stands_out_is_ejected_named_and_given_another_chance() {
    let (good, bad) = (named("good"), named("bad"));
    let more = "    ejection: { consecutive: 3, base: 1s }\n";
    let gateway =
        Gateway::start_with("workers: 1\n", &one_track(&[good.0.address, bad.0.address], more));
    let mut client = gateway.connect();
    bad.1.store(true, Ordering::SeqCst);
    let label = format!("endpoint=\"{}\"", bad.0.address);
    // Few requests, so that three failures in a row are there soon and little more.
    while gateway.metric("splitway_upstream_ejections_total", &[&label]) == 0.0 {
        answers(&mut client, 5, "");
    }
    let (_, line) = gateway.await_line(0, "endpoint is ejected");
    assert!(line.contains(&bad.0.address.to_string()) && line.contains("in a row"), "{line}");
    gateway.await_metric("splitway_upstream_standing_ratio", &[&label], |ratio| ratio == 0.0);
    assert_eq!(answers(&mut client, 50, "")["good"], 50);
    bad.1.store(false, Ordering::SeqCst);
    gateway.await_line(0, "endpoint is back");
    gateway.await_metric("splitway_upstream_standing_ratio", &[&label], |ratio| ratio == 1.0);
    assert!(answers(&mut client, 50, "")["bad"] > 5);
    // The other one is never ejected with it: one of two is the most.
    good.1.store(true, Ordering::SeqCst);
    bad.1.store(true, Ordering::SeqCst);
    answers(&mut client, 100, "");
    let out = gateway.metric("splitway_upstream_ejections_total", &[]);
    assert!(out <= 2.0, "{out}");
}

#[test]
fn an_endpoint_whose_probes_fail_gets_nothing_unless_too_many_do() {
    let (good, bad) = (named("good"), named("bad"));
    bad.1.store(true, Ordering::SeqCst);
    let more = "    health: { path: /healthz, interval: 50ms, fall: 2, rise: 2 }\n";
    let gateway = Gateway::start(&one_track(&[good.0.address, bad.0.address], more));
    let label = |server: &Upstream| format!("endpoint=\"{}\"", server.address);
    let standing = |server: &Upstream, ratio: f64| {
        let name = "splitway_upstream_standing_ratio";
        gateway.await_metric(name, &[&label(server)], |found| found == ratio);
    };
    let mut client = gateway.connect();
    standing(&bad.0, 0.0);
    assert_eq!(answers(&mut client, 50, "")["good"], 50);
    // When the other one fails as well, both are used: one of them may still answer.
    good.1.store(true, Ordering::SeqCst);
    standing(&bad.0, 1.0);
    assert_eq!(answers(&mut client, 20, "")["failed"], 20);
    bad.1.store(false, Ordering::SeqCst);
    standing(&good.0, 0.0);
    assert_eq!(answers(&mut client, 50, "")["bad"], 50);
}

#[test]
fn probes_ask_for_a_host_that_is_one() {
    for (hosts, health, asked) in [
        ("['*.a.example', b.example, c.example]", "", "b.example"),
        ("['*.a.example', '*.b.example']", "", "probe.a.example"),
        ("['*.a.example', b.example]", ", host: d.example", "d.example"),
        ("[]", "", "127.0.0.1:"),
    ] {
        let heads = Arc::new(Mutex::new(String::new()));
        let seen = Arc::clone(&heads);
        let server = Upstream::scripted(move |session| {
            while let Some(head) = session.request() {
                seen.lock().unwrap().push_str(&head);
                session.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            }
        });
        let more =
            format!("    hosts: {hosts}\n    health: {{ path: /up, interval: 50ms{health} }}\n");
        let _gateway = Gateway::start(&one_track(&[server.address], &more));
        let head =
            until("a probe", || Some(heads.lock().unwrap().clone()).filter(|it| !it.is_empty()));
        assert!(head.starts_with("GET /up ") && head.contains(&format!("host: {asked}")), "{head}");
    }
}

#[test]
fn an_endpoint_that_comes_is_warmed_up() {
    let (old, new) = (named("old"), named("new"));
    let more = "    balance: { slow_start: 1h }\n";
    let gateway = Gateway::start(&one_track(&[old.0.address], more));
    let mut client = gateway.connect();
    answers(&mut client, 1, "");
    gateway.await_metric("splitway_upstream_standing_ratio", &[], |ratio| ratio == 1.0);
    gateway.edit(&one_track(&[old.0.address, new.0.address], more));
    let label = format!("endpoint=\"{}\"", new.0.address);
    gateway.await_metric("splitway_upstream_standing_ratio", &[&label], |ratio| ratio == 0.01);
    let seen = answers(&mut client, 500, "");
    assert!(seen.get("new").copied().unwrap_or(0) < 50, "{seen:?}");
}

#[test]
fn explain_blames_the_one_endpoint_that_fails() {
    let (stable, good, bad) = (Tested::new("stable"), Tested::new("canary"), Tested::new("canary"));
    let config = format!(
        "services:\n  - name: api\n    tracks:\n      stable: {{ version: v1, endpoints: ['{}'] }}\n      \
         canary: {{ version: v2, endpoints: ['{}', '{}'] }}\n    rollout: {{ stages: [50, 100], \
         on_failure: hold }}\n",
        stable.address(),
        good.address(),
        bad.address()
    );
    let gateway = Gateway::start(&config);
    gateway.await_phase("progressing");
    bad.set_errors(300);
    let _load = Load::start(gateway.address, 300, |_| String::new());
    let name = format!("failures are of {}", bad.address());
    let rollout = gateway.await_rollout("api", |rollout| {
        rollout["explain"].as_str().is_some_and(|text| text.contains(&name))
    });
    assert!(!rollout["explain"].as_str().unwrap().contains(&good.address().to_string()));
}
