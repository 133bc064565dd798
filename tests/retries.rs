//! Another try: on another endpoint, within a budget, and the canary's failures on stable.

use crate::support::{Gateway, Load, Tested, Upstream, two_tracks};
use std::net::SocketAddr;

/// A server that answers every request the same way, with its name and what it got.
fn always(name: &'static str, status: u16) -> Upstream {
    Upstream::scripted(move |session| {
        while let Some(head) = session.request() {
            let length = head.lines().find_map(|line| {
                line.to_lowercase()
                    .strip_prefix("content-length: ")
                    .map(|text| text.parse().unwrap())
            });
            let body = session.body(length.unwrap_or(0));
            let body = format!("{name}:{}", String::from_utf8_lossy(&body));
            let length = body.len();
            session.send(format!(
                "HTTP/1.1 {status} x\r\nx-track: {name}\r\ncontent-length: {length}\r\n\r\n{body}"
            ));
        }
    })
}

fn one_track(endpoints: &[SocketAddr], retries: &str) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|one| format!("'{one}'")).collect();
    let endpoints = endpoints.join(", ");
    format!(
        "services:\n  - name: api\n    tracks: {{ stable: {{ endpoints: [{endpoints}] }} }}\n    \
         retries: {{ {retries} }}\n"
    )
}

#[test]
fn a_failure_is_tried_on_another_endpoint_and_stays_on_record() {
    let (bad, good) = (always("bad", 503), always("good", 200));
    let gateway = Gateway::start(&one_track(&[bad.address, good.address], "budget: 100"));
    let mut client = gateway.connect();
    for _ in 0..20 {
        assert_eq!(client.get("/", "").status, 200);
        // What can be sent twice without harm by its key is sent with its body.
        client.send(
            "POST / HTTP/1.1\r\nhost: a\r\nidempotency-key: 7\r\ncontent-length: 3\r\n\r\nabc",
        );
        let answer = client.response();
        assert_eq!((answer.status, answer.text().as_str()), (200, "good:abc"));
    }
    let failed = bad.requests() as f64;
    assert!(failed > 0.0);
    gateway.await_metric("http_requests_total", &["status=\"503\""], |count| count == failed);
    let answered = gateway.metric("splitway_retries_total", &["result=\"answered\""]);
    assert_eq!(answered, failed);
    // A request that may have been acted upon is not repeated.
    let statuses: Vec<u16> = (0..40)
        .map(|_| {
            client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc");
            client.response().status
        })
        .collect();
    assert!(statuses.contains(&503), "{statuses:?}");
}

#[test]
fn a_large_body_is_sent_once_and_a_small_one_may_come_late() {
    let (bad, good) = (always("bad", 503), always("good", 200));
    let config = one_track(&[bad.address, good.address], "body: 1KiB, budget: 100");
    let gateway = Gateway::start(&config);
    let mut client = gateway.connect();
    let mut seen = Vec::new();
    for _ in 0..20 {
        client.send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\n");
        client.send("abc");
        client.send("def");
        let answer = client.response();
        assert_eq!((answer.status, answer.text().as_str()), (200, "good:abcdef"));
        client.send(format!("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", 200_000));
        client.send(vec![b'x'; 200_000]);
        seen.push(client.response().status);
    }
    assert!(seen.contains(&503) && seen.contains(&200), "{seen:?}");
}

#[test]
fn a_reset_and_a_try_without_answer_are_tried_again() {
    let good = always("good", 200);
    let resetting = Upstream::scripted(|session| {
        session.request();
        session.reset();
    });
    let gateway =
        Gateway::start(&one_track(&[resetting.address, good.address], "on: [reset], budget: 100"));
    let mut client = gateway.connect();
    for _ in 0..20 {
        assert_eq!(client.get("/", "").status, 200);
    }
    assert!(resetting.requests() > 0);
    let silent = Upstream::scripted(|session| {
        session.request();
        session.rest();
    });
    let keys = "on: timeout, per_try_timeout: 100ms, budget: 100";
    gateway.edit(&one_track(&[silent.address, good.address], keys));
    while silent.requests() == 0 {
        assert_eq!(client.get("/", "").status, 200);
    }
    gateway.await_metric("http_requests_total", &["status=\"504\""], |count| count >= 1.0);
}

#[test]
fn retries_do_not_add_to_the_load_of_a_service_that_fails_as_a_whole() {
    let bad = always("bad", 503);
    let gateway = Gateway::start(&one_track(&[bad.address], "attempts: 3, budget_min: 0"));
    let mut client = gateway.connect();
    for _ in 0..500 {
        assert_eq!(client.get("/", "").status, 503);
    }
    let asked = bad.requests();
    assert!((550..=600).contains(&asked), "{asked} for 500 requests at a budget of 20 %");
    assert!(gateway.metric("splitway_retries_total", &["no_budget"]) > 300.0);
}

#[test]
fn a_rescue_hides_the_canarys_failures_from_users_and_not_from_the_record() {
    let (stable, canary) = (always("stable", 200), always("canary", 500));
    let more = "    rules: [{ match: { headers: { canary: 'true' } }, track: canary }]\n    \
        retries: { attempts: 0, rescue: true, budget: 100 }\n";
    let gateway = Gateway::start(&two_tracks(stable.address, canary.address, 50.0, more));
    let mut client = gateway.connect();
    for _ in 0..100 {
        let answer = client.get("/", "");
        assert_eq!((answer.status, answer.track()), (200, "stable"));
    }
    let asked = canary.requests() as f64;
    assert!(asked > 20.0);
    gateway.await_metric("http_requests_total", &["canary", "status=\"500\""], |n| n == asked);
    assert_eq!(gateway.metric("splitway_rescued_total", &[]), asked);
    // Whoever asks for the canary gets the canary.
    assert_eq!(client.get("/", "canary: true\r\n").status, 500);
}

#[test]
fn a_dying_canary_is_rolled_back_though_no_user_saw_a_failure() {
    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    let more = "    rollout: { stages: [20, 100] }\n    \
        retries: { attempts: 0, rescue: true, budget: 50, budget_min: 100 }\n";
    let file = format!(
        "services:\n  - name: api\n    tracks:\n      stable: {{ version: v1, endpoints: ['{}'] }}\n      \
         canary: {{ version: v2, endpoints: ['{}'] }}\n{more}",
        stable.address(),
        canary.address()
    );
    let gateway = Gateway::start(&file);
    gateway.await_phase("progressing");
    let load = Load::start(gateway.address, 300, |_| String::new());
    canary.set_errors(1_000);
    gateway.await_phase("rolled_back");
    assert_eq!(load.failed(), 0, "users saw nothing");
    assert!(gateway.metric("splitway_rescued_total", &[]) > 0.0);
}
