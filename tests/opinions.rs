//! Checks and gates: a real Prometheus and real webhooks have a say, and no more than that.

use serde_json::Value as Json;

use crate::support::tools::program;
use crate::support::{Gateway, Load, Prometheus, Receiver, Tested, Upstream};

/// Two versions, stages that are left as soon as everybody agrees, and `more` of the rollout.
fn config(stable: &Tested, canary: &Tested, more: &str) -> String {
    format!(
        "services:\n  - name: api\n    tracks:\n      stable: {{ version: v1, endpoints: ['{}'] }}\n      \
         canary: {{ version: v2, endpoints: ['{}'] }}\n    rollout:\n      stages: [25, 100]\n      \
         min: 1s\n      mode: off\n{more}",
        stable.address(),
        canary.address()
    )
}

fn check(address: std::net::SocketAddr, query: &str, more: &str) -> String {
    format!(
        "      checks:\n        - name: success-rate\n          address: http://{address}\n          \
         query: '{query}'\n          interval: 200ms\n{more}"
    )
}

fn last(gateway: &Gateway) -> Json {
    let answer = gateway.admin_get("/api/v1/services/api/history");
    let history: Json = serde_json::from_slice(&answer.body).unwrap();
    history["history"].as_array().unwrap().last().unwrap().clone()
}

fn says(rollout: &Json, text: &str) -> bool {
    rollout["explain"].as_str().unwrap().contains(text)
}

/// The share of good answers, as the founding document asks for it.
const SUCCESS_RATE: &str = "sum(rate(http_requests_total{app=\"{{service}}\",track=\"canary\",\
    status!~\"5..\"}[2s])) / sum(rate(http_requests_total{app=\"{{service}}\",track=\"canary\"}[2s]))";

#[test]
fn a_check_lets_a_good_canary_pass_and_sends_a_bad_one_back() {
    let Some(binary) = program("prometheus", "prometheus") else { return };
    for errors in [0, 300] {
        let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
        canary.set_errors(errors);
        let address = Upstream::refusing();
        let more = check(
            address,
            SUCCESS_RATE,
            "          success: result >= 0.95\n          count: 5\n          \
            failure_limit: 3\n          inconclusive_limit: 1000\n          error_limit: 1000\n",
        );
        let gateway = Gateway::start(&config(&stable, &canary, &more));
        let _load = Load::start(gateway.address, 200, |_| String::new());
        let waiting = gateway.await_rollout("api", |rollout| says(rollout, "success-rate"));
        assert_eq!(waiting["weight"], 25.0, "nobody answers yet: {waiting}");
        let _prometheus = Prometheus::start_at(&binary, address, gateway.admin, "");
        if errors == 0 {
            gateway.await_phase("promoted");
            continue;
        }
        gateway.await_phase("rolled_back");
        let last = last(&gateway);
        assert_eq!(last["cause"], "check");
        let why = last["why"].as_str().unwrap();
        assert!(why.contains("`success-rate` failed: 4 bad measurements, 3 are borne"), "{why}");
        assert!(gateway.metric("splitway_transitions_total", &["check"]) == 1.0);
    }
}

#[test]
fn no_data_and_nobody_there_hold_and_never_roll_back() {
    let Some(binary) = program("prometheus", "prometheus") else { return };
    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    let nobody = Upstream::refusing();
    let terms = "          success: result >= 0.95\n          error_limit: 2\n";
    let gateway = Gateway::start(&config(&stable, &canary, &check(nobody, "up", terms)));
    let held = gateway.await_rollout("api", |rollout| says(rollout, "is not answered"));
    assert!(says(&held, "cannot be connected"), "{held}");
    assert_eq!((&held["phase"], &held["weight"]), (&"progressing".into(), &25.0.into()));

    let prometheus = Prometheus::start(&binary, gateway.admin);
    let terms = "          success: result >= 0.95\n          inconclusive_limit: 2\n";
    let more = check(prometheus.address, "sum(no_such_metric)", terms);
    gateway.edit(&config(&stable, &canary, &more));
    let held = gateway.await_rollout("api", |rollout| says(rollout, "is inconclusive"));
    assert!(says(&held, "no data"), "{held}");
    let more = check(
        prometheus.address,
        "sum(rate(",
        "          success: result >= 0.95\n          error_limit: 1\n",
    );
    gateway.edit(&config(&stable, &canary, &more));
    let held = gateway.await_rollout("api", |rollout| says(rollout, "is not answered"));
    assert!(says(&held, "was refused"), "the fault of the query is shown: {held}");
    // A person may go on all the same.
    let (status, done) = gateway.command("/api/v1/services/api/promote", "");
    assert_eq!((status, &done["phase"]), (200, &"promoted".into()));
}

#[test]
fn founding_kpis_of_cpu_and_memory_compare_the_tracks() {
    let Some(binary) = program("prometheus", "prometheus") else { return };
    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    // What a kubelet would say of the pods of both tracks.
    let kubelet = Upstream::scripted(|session| {
        while session.request().is_some() {
            let page = "container_memory_usage_bytes{pod=\"api-stable-1\"} 1e8\n\
                        container_memory_usage_bytes{pod=\"api-canary-1\"} 3e8\n";
            let length = page.len();
            session.send(format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: \
                 {length}\r\n\r\n{page}"
            ));
        }
    });
    let prometheus = Prometheus::start(&binary, kubelet.address);
    prometheus.await_one("count(container_memory_usage_bytes)", |count| count == 2.0);
    let query = "avg(container_memory_usage_bytes{pod=~\".*-canary-.*\"}) / \
                 avg(container_memory_usage_bytes{pod=~\".*-stable-.*\"})";
    let terms = "          failure: result > 2\n          on_failure: hold\n";
    let gateway =
        Gateway::start(&config(&stable, &canary, &check(prometheus.address, query, terms)));
    let held =
        gateway.await_rollout("api", |rollout| says(rollout, "`success-rate`, which failed"));
    assert!(says(&held, "the last is 3, where result > 2 is not wanted"), "{held}");
    assert_eq!((&held["phase"], &held["weight"]), (&"progressing".into(), &25.0.into()));
}

fn gates(receiver: &Receiver, more: &str) -> String {
    let address = receiver.address();
    let mut text = String::from("      gates:\n");
    for on in ["pre_rollout", "confirm_advance", "confirm_promotion", "post_rollout"] {
        text += &format!(
            "        - name: {on}\n          on: {on}\n          url: http://{address}/{on}\n          \
             interval: 100ms\n          metadata: {{ owner: ann }}\n{more}"
        );
    }
    text
}

#[test]
fn gates_are_asked_in_turn_with_the_payload_of_flagger() {
    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    let receiver = Receiver::new();
    let config = config(&stable, &canary, &gates(&receiver, ""))
        .replace("stages: [25, 100]", "stages: [25, 50, 100]");
    let gateway = Gateway::start(&config);
    gateway.await_phase("promoted");
    let told = receiver.await_one(|one| one.head.contains("/post_rollout"));
    assert_eq!(told.body["phase"], "Succeeded");
    let received = receiver.received();
    let paths: Vec<&str> = received.iter().map(|one| one.head.split(' ').nth(1).unwrap()).collect();
    assert_eq!(paths[..2], ["/pre_rollout", "/confirm_advance"]);
    let mut rest = paths[2..].to_vec();
    rest.sort_unstable();
    assert_eq!(rest, ["/confirm_advance", "/confirm_promotion", "/post_rollout"]);
    let body = &received[0].body;
    assert_eq!(body["name"], "api");
    assert_eq!(body["namespace"], "default");
    assert_eq!(body["phase"], "Progressing");
    assert_eq!(body["checksum"].as_str().unwrap().len(), 16);
    assert_eq!(body["metadata"]["owner"], "ann");
    assert_eq!(body["metadata"]["version"], "v2");
    assert!(received[0].head.contains("content-type: application/json"));
}

#[test]
fn a_gate_that_refuses_holds_and_says_so_until_it_agrees() {
    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    let reply = |status: u16| format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
    let receiver =
        Receiver::answering(move |number| Some(reply(if number < 30 { 403 } else { 200 })));
    let gate = format!(
        "      gates: [{{ name: change-window, on: pre_rollout, url: 'http://{}/', interval: 100ms }}]\n",
        receiver.address()
    );
    let gateway = Gateway::start(&config(&stable, &canary, &gate));
    let waiting = gateway.await_rollout("api", |rollout| says(rollout, "`change-window`"));
    assert_eq!((&waiting["phase"], &waiting["weight"]), (&"waiting".into(), &0.0.into()));
    gateway.await_rollout("api", |rollout| says(rollout, "it answers 403"));
    gateway.await_phase("progressing");
    assert!(receiver.received().len() >= 31);
}

#[test]
fn a_gate_that_hangs_fails_by_its_policy_and_delays_no_rollback() {
    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    let receiver = Receiver::answering(|_| None);
    let gate = |policy: &str| {
        format!(
            "      gates: [{{ name: silent, on: confirm_advance, url: 'http://{}/', interval: 100ms, \
             timeout: 300ms, on_failure: {policy} }}]\n",
            receiver.address()
        )
    };
    let gateway = Gateway::start(&config(&stable, &canary, &gate("hold")));
    let held =
        gateway.await_rollout("api", |rollout| says(rollout, "has not answered within 300 ms"));
    assert_eq!((&held["phase"], &held["weight"]), (&"progressing".into(), &25.0.into()));
    // While it hangs, a rollback is as prompt as ever.
    let (status, done) = gateway.command("/api/v1/services/api/rollback", "");
    assert_eq!((status, &done["weight"]), (200, &0.0.into()));

    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    let gateway = Gateway::start(&config(&stable, &canary, &gate("rollback")));
    gateway.await_phase("rolled_back");
    assert_eq!(last(&gateway)["cause"], "check");
}

#[test]
fn a_receiver_that_lies_is_an_error_and_no_more() {
    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    let endless = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 1_u64 << 40);
    let answers = [
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}x".to_owned(),
        "nonsense\r\n\r\n".to_owned(),
        format!("{endless}{}", "x".repeat(3 * 1024 * 1024)),
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"status\":\"success\"".to_owned(),
    ];
    let liar = Receiver::answering(move |number| Some(answers[number % answers.len()].clone()));
    let terms =
        "          success: result >= 0.95\n          timeout: 500ms\n          error_limit: 9\n";
    let gateway = Gateway::start(&config(&stable, &canary, &check(liar.address(), "up", terms)));
    // Reports come each second: a count between two of them is never seen.
    let unanswered = |rollout: &Json| {
        let explain = rollout["explain"].as_str().unwrap();
        let (_, rest) = explain.split_once("is not answered, ")?;
        rest.split_once(" times")?.0.parse::<u32>().ok()
    };
    let held = gateway.await_rollout("api", |rollout| unanswered(rollout) > Some(9));
    assert_eq!((&held["phase"], &held["weight"]), (&"progressing".into(), &25.0.into()));
}
