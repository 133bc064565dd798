//! Notifications: real rollouts, real receivers, and the standards' own libraries.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use base64::Engine;
use serde_json::{Value as Json, json};

use crate::support::{Gateway, Load, Receiver, Tested, tools, until};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn receiver(name: &str, receiver: &Receiver, more: &str) -> String {
    format!("  - {{ name: {name}, url: 'http://{}/hook'{more} }}\n", receiver.address())
}

/// Two versions whose rollout only people move.
fn config(receivers: &str, stable: &Tested, canary: &Tested) -> String {
    format!(
        "notifications:\n{receivers}services:\n  - name: api\n    tracks:\n      stable: {{ version: v1, \
         endpoints: ['{}'] }}\n      canary: {{ version: v2, endpoints: ['{}'] }}\n    rollout: {{ \
         stages: [5, 25, 100], min: 10m, judge: {{ warmup: 1s }} }}\n",
        stable.address(),
        canary.address()
    )
}

fn ok() -> Option<String> {
    Some("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into())
}

fn command(gateway: &Gateway, word: &str) {
    assert_eq!(gateway.command(&format!("/api/v1/services/api/{word}"), "").0, 200);
}

#[test]
fn every_format_is_what_its_reader_expects() {
    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    let [slack, teams, plain, quiet] = [(); 4].map(|()| Receiver::new());
    let receivers = [
        receiver("slack", &slack, ", format: slack"),
        receiver("teams", &teams, ", format: teams"),
        receiver("plain", &plain, ", headers: { x-team: payments }"),
        receiver("quiet", &quiet, ", events: [alarm]"),
    ];
    let gateway = Gateway::start(&config(&receivers.concat(), &stable, &canary));
    gateway.await_phase("progressing");
    command(&gateway, "promote");
    command(&gateway, "rollback");
    let title = "api: v2 was rolled back";
    let told = slack.await_one(|one| one.body["text"] == title);
    let blocks = &told.body["attachments"][0]["blocks"];
    assert!(
        blocks[0]["text"]["text"].as_str().unwrap().contains("rollback by peer:127.0.0.1"),
        "{blocks}"
    );
    let told =
        teams.await_one(|one| one.body["attachments"][0]["content"]["body"][0]["text"] == title);
    assert_eq!(told.body["type"], "message");
    let told = plain.await_one(|one| one.body["title"] == title);
    assert_eq!(told.headers()["x-team"], "payments");
    assert_eq!(told.body["event"], "transition");
    assert_eq!(told.body["facts"]["cause"], "operator");
    assert_eq!(told.body["facts"]["weight_before"], "25 %");
    // In the order in which it happened, each once.
    let titles: Vec<Json> = plain.received().iter().map(|one| one.body["title"].clone()).collect();
    let expected =
        ["api: a rollout of v2 begins", "api: v2 is now at 5 %", "api: v2 is now at 25 %", title];
    assert_eq!(titles, expected);
    assert!(quiet.received().is_empty());
    gateway.await_metric("splitway_notifications_total", &["plain", "sent"], |sent| sent == 4.0);
}

#[test]
fn signed_cloud_events_satisfy_the_libraries_of_their_standards() {
    let Some(python) = tools::python_with("cloudevents, standardwebhooks") else { return };
    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    let events = Receiver::new();
    let place = crate::support::folder();
    let file = place.path().join("secret");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let more = format!(", format: cloudevents, secret_file: '{}'", file.display());
    let gateway = Gateway::start(&config(&receiver("events", &events, &more), &stable, &canary));
    gateway.await_phase("progressing");
    command(&gateway, "rollback");
    events.await_one(|one| one.body["data"]["facts"]["to"] == "rolled_back");
    let mut verify = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/notify/verify.py"))
        .arg(SECRET)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = verify.stdin.take().unwrap();
    let received = events.received();
    for one in &received {
        let body = base64::engine::general_purpose::STANDARD.encode(&one.bytes);
        writeln!(input, "{}", json!({ "headers": one.headers(), "body": body })).unwrap();
    }
    drop(input);
    let output = verify.wait_with_output().unwrap();
    assert!(output.status.success());
    let lines: Vec<Json> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let states: Vec<&str> = lines.iter().map(|line| line["to"].as_str().unwrap()).collect();
    assert_eq!(states, ["waiting", "progressing", "rolled_back"]);
    assert_eq!(lines[0]["type"], "splitway.rollout.transition");
    assert_eq!(lines[0]["subject"], "api");
}

#[test]
fn a_receiver_that_fails_is_tried_again_and_one_that_refuses_is_not() {
    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    let answer = |status: u16| Some(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n"));
    let fails = Receiver::answering(move |number| if number < 2 { answer(503) } else { ok() });
    let refuses = Receiver::answering(move |_| answer(410));
    let receivers = [receiver("fails", &fails, ""), receiver("refuses", &refuses, "")];
    let gateway = Gateway::start(&config(&receivers.concat(), &stable, &canary));
    gateway.await_metric("splitway_notifications_total", &["fails", "sent"], |sent| sent == 2.0);
    let received = fails.received();
    assert_eq!(received.len(), 4);
    // The same news under the same id, so that a receiver can tell.
    let ids: Vec<Json> = received.iter().map(|one| one.headers()["webhook-id"].clone()).collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3], "{ids:?}");
    gateway.await_metric("splitway_notifications_total", &["refuses", "failed"], |failed| {
        failed == 2.0
    });
    assert_eq!(refuses.received().len(), 2);
}

#[test]
fn receivers_that_hang_or_are_gone_delay_no_rollback() {
    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    let hangs = Receiver::answering(|_| None);
    let receivers = [
        receiver("hangs", &hangs, ", timeout: 1h"),
        "  - { name: gone, url: 'http://127.0.0.1:1/' }\n".to_owned(),
        "  - { name: nowhere, url: 'http://no-such-host.invalid/' }\n".to_owned(),
    ];
    let gateway = Gateway::start(&config(&receivers.concat(), &stable, &canary));
    let _load = Load::start(gateway.address, 200, |_| String::new());
    gateway.await_phase("progressing");
    hangs.await_one(|_| true);
    // More news than any queue holds.
    until("a dropped notification", || {
        for _ in 0..20 {
            command(&gateway, "pause");
            command(&gateway, "resume");
        }
        let dropped = gateway.metric("splitway_notifications_total", &["hangs", "dropped"]);
        (dropped >= 1.0).then_some(())
    });
    let begun = Instant::now();
    canary.set_errors(1_000);
    let rolled_back = gateway.await_phase("rolled_back");
    eprintln!(
        "rolled back {} ms after the first failure could happen",
        begun.elapsed().as_millis()
    );
    // What it cost is what it costs without receivers.
    assert!(rolled_back["run_evidence"]["canary"]["errors"].as_u64().unwrap() <= 20);
    assert_eq!(hangs.received().len(), 1);
}

#[test]
fn a_hold_and_an_alarm_are_told_when_they_begin() {
    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    let told = Receiver::new();
    let receivers = receiver("told", &told, ", events: [hold, alarm]");
    let text = config(&receivers, &stable, &canary).replace(
        "stages: [5, 25, 100], min: 10m",
        "stages: [{ weight: 25, approve: true, min: 1s }, 100], mode: off",
    );
    let gateway = Gateway::start(&text);
    let event = told.await_one(|one| one.body["event"] == "hold");
    assert!(event.body["text"].as_str().unwrap().contains("waits for approval"), "{}", event.body);
    drop(gateway);
}
