//! The admin API: health, status, tokens, errors.

use serde_json::Value as Json;

use crate::support::{Client, Gateway, Upstream, folder, two_tracks, until};

fn json(answer: &crate::support::client::Response) -> Json {
    serde_json::from_slice(&answer.body).unwrap()
}

#[test]
fn health_readiness_and_status_are_served() {
    let (stable, canary) = (Upstream::track("stable"), Upstream::track("canary"));
    let gateway = Gateway::start(&two_tracks(stable.address, canary.address, 12.5, ""));
    let mut client = gateway.connect();
    for _ in 0..20 {
        client.get("/", "");
    }
    // Requests are counted when their answer has been written.
    gateway.await_metric("http_requests_total", &[], |count| count == 20.0);
    assert_eq!(gateway.admin_get("/healthz").text(), "ok\n");
    assert_eq!(gateway.admin_get("/readyz").text(), "ready\n");
    let status = json(&gateway.admin_get("/api/v1/status"));
    let service = &status["services"][0];
    assert_eq!(service["name"], "api");
    assert_eq!(service["tracks"][1]["name"], "canary");
    assert_eq!(service["tracks"][1]["weight"], 12.5);
    assert_eq!(service["tracks"][1]["version"], "v2");
    let requests: u64 =
        (0..2).map(|track| service["tracks"][track]["statuses"]["2xx"].as_u64().unwrap()).sum();
    assert_eq!(requests, 20);
    assert_eq!(json(&gateway.admin_get("/api/v1/services/api"))["name"], "api");
}

#[test]
fn errors_are_problem_details() {
    let upstream = Upstream::track("stable");
    let gateway = Gateway::start(&two_tracks(upstream.address, upstream.address, 0.0, ""));
    for (request, status) in [
        ("GET /nowhere", 404),
        ("GET /api/v1/services/nobody", 404),
        ("GET /api/v1/reload", 405),
        ("POST /metrics", 405),
    ] {
        let mut client = Client::connect(gateway.admin);
        client.send(format!("{request} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n"));
        let answer = client.response();
        assert_eq!(answer.status, status, "{request}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(json(&answer)["status"], status);
    }
}

#[test]
fn tokens_guard_the_api_and_not_the_metrics() {
    let upstream = Upstream::track("stable");
    let folder = folder();
    let file = folder.path().join("splitway.yaml");
    let services = two_tracks(upstream.address, upstream.address, 0.0, "");
    let text = format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '0.0.0.0:0', tokens: {{ read: \
         [reads-and-reads-16], operate: [operates-and-more] }} }}\nlog: {{ format: json }}\n{services}"
    );
    std::fs::write(&file, text).unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_splitway"))
        .args(["run", "--config"])
        .arg(&file)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let log = std::io::BufReader::new(child.stderr.take().unwrap());
    let port = std::io::BufRead::lines(log)
        .map(|line| serde_json::from_str::<Json>(&line.unwrap()).unwrap())
        .find(|line| line["message"] == "admin API listening")
        .map(|line| line["address"].as_str().unwrap().rsplit(':').next().unwrap().to_owned());
    let admin: std::net::SocketAddr = format!("127.0.0.1:{}", port.unwrap()).parse().unwrap();
    let ask = |request: &str, token: &str| {
        let mut client = Client::connect(admin);
        client.send(format!("{request} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n{token}\r\n"));
        client.response().status
    };
    let (reads, operates) = (
        "authorization: Bearer reads-and-reads-16\r\n",
        "authorization: Bearer operates-and-more\r\n",
    );
    for (request, token, status) in [
        ("GET /metrics", "", 200),
        ("GET /healthz", "", 200),
        ("GET /readyz", "", 200),
        ("GET /api/v1/status", "", 401),
        ("GET /api/v1/status", "authorization: Bearer operates-and-mord\r\n", 401),
        ("GET /api/v1/status", reads, 200),
        ("GET /api/v1/status", operates, 200),
        ("POST /api/v1/reload", "", 401),
        ("POST /api/v1/reload", reads, 403),
        ("POST /api/v1/reload", operates, 200),
    ] {
        assert_eq!(ask(request, token), status, "{request} {token}");
    }
    let status = |token: &str| {
        std::process::Command::new(env!("CARGO_BIN_EXE_splitway"))
            .args(["status", "--admin", &admin.to_string()])
            .env("SPLITWAY_TOKEN", token)
            .output()
            .unwrap()
    };
    assert_eq!(status("reads-and-reads-16").status.code(), Some(0));
    let refused = status("wrong");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("answered 401"));
    let from_a_page = format!("{operates}origin: http://evil.example\r\n");
    assert_eq!(ask("POST /api/v1/reload", &from_a_page), 403);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_status_command_shows_the_tracks() {
    let (stable, canary) = (Upstream::track("stable"), Upstream::track("canary"));
    let gateway = Gateway::start(&two_tracks(stable.address, canary.address, 12.5, ""));
    gateway.connect().get("/", "");
    let run = |arguments: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_splitway"))
            .arg("status")
            .args(["--admin", &gateway.admin.to_string()])
            .args(arguments)
            .output()
            .unwrap()
    };
    let text = String::from_utf8(run(&[]).stdout).unwrap();
    assert!(text.starts_with("SERVICE"), "{text}");
    assert!(text.contains("canary") && text.contains("12.5 %"), "{text}");
    let status: Json = serde_json::from_slice(&run(&["--json"]).stdout).unwrap();
    assert_eq!(status["services"][0]["tracks"][0]["name"], "stable");
    let nobody = run(&["--admin", &Upstream::refusing().to_string()]);
    assert_eq!(nobody.status.code(), Some(2), "an option given twice is a usage error");
}

#[test]
fn the_history_has_the_figures_of_every_second() {
    let stable = Upstream::scripted(|session| {
        while let Some(request) = session.request() {
            let status = if request.contains("/fails") { 500 } else { 200 };
            session.send(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n"));
        }
    });
    let gateway = Gateway::start(&two_tracks(stable.address, stable.address, 0.0, ""));
    let series = |window: &str| gateway.admin_get(&format!("/api/v1/services/api/series{window}"));
    // The first second starts when the counters have been read once.
    until("a history", || (series("").status == 200).then_some(()));
    let mut client = gateway.connect();
    for number in 0..50 {
        client.get(if number < 10 { "/fails" } else { "/" }, "");
    }
    let columns = until("fifty requests in the history", || {
        let columns = json(&series("?window=10m"));
        let rps = columns["tracks"]["stable"]["rps"].as_array().cloned().unwrap_or_default();
        (rps.iter().filter_map(Json::as_f64).sum::<f64>() >= 50.0).then_some(columns)
    });
    assert_eq!(columns["period_s"], 1);
    let list = |key: &str| columns["tracks"]["stable"][key].as_array().unwrap().clone();
    let failed: f64 = list("rps")
        .iter()
        .zip(list("errors"))
        .map(|(rps, errors)| rps.as_f64().unwrap() * errors.as_f64().unwrap_or(0.0))
        .sum();
    assert!((failed - 10.0).abs() < 0.01, "{failed}");
    assert!(list("p99_ms").iter().any(|ms| ms.as_f64().is_some_and(|ms| ms > 0.0)));
    assert_eq!(list("rps").len(), columns["at_s"].as_array().unwrap().len());
    for (window, status) in [("?window=24h", 200), ("?window=5m", 404), ("?5m", 404)] {
        assert_eq!(series(window).status, status, "{window}");
    }
}

#[test]
fn events_come_every_second_and_their_watchers_are_bounded() {
    let upstream = Upstream::track("stable");
    let gateway = Gateway::start(&two_tracks(upstream.address, upstream.address, 0.0, ""));
    let watch = || {
        let mut client = Client::connect(gateway.admin);
        client.send("GET /api/v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let head = client.head();
        (client, head)
    };
    let mut watchers: Vec<_> = (0..32).map(|_| watch()).collect();
    for (_, head) in &watchers {
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    }
    assert_eq!(watch().1.status, 503);
    // Whoever leaves makes room, as soon as the next event cannot be written to it.
    drop(watchers.split_off(16));
    until("room for another", || (watch().1.status == 200).then_some(()));
    let (client, _) = &mut watchers[0];
    let mut text = String::new();
    while text.matches("event: status\n").count() < 3 {
        let mut buffer = [0; 64 * 1024];
        let count = std::io::Read::read(&mut client.stream, &mut buffer).unwrap();
        assert!(count > 0, "the stream ended: {text}");
        text += &String::from_utf8_lossy(&buffer[..count]);
    }
    let event = text.split("data: ").nth(2).unwrap().lines().next().unwrap();
    let event: Json = serde_json::from_str(event).unwrap();
    assert_eq!(event["status"]["services"][0]["name"], "api");
    assert_eq!(event["points"]["api"]["tracks"]["stable"]["weight"], serde_json::json!([1.0]));
}

#[test]
fn the_page_is_files_of_the_binary_under_a_strict_policy() {
    let upstream = Upstream::track("stable");
    let gateway = Gateway::start(&two_tracks(upstream.address, upstream.address, 0.0, ""));
    let page = gateway.admin_get("/");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let text = page.text();
    let parts = text.split(['"']).filter(|part| part.starts_with("page/"));
    for part in parts.chain(["page/api.js", "page/charts.js", "page/uplot/LICENSE"]) {
        let answer = gateway.admin_get(&format!("/{part}"));
        assert_eq!(answer.status, 200, "{part}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{part}");
    }
    // Nothing inline, which the policy would refuse, and nothing from elsewhere.
    assert!(
        !text.contains("style=") && !text.contains("onclick") && !text.contains("//"),
        "{text}"
    );
}

#[test]
fn without_tokens_no_foreign_name_and_no_other_page_gets_in() {
    let upstream = Upstream::track("stable");
    let gateway = Gateway::start(&two_tracks(upstream.address, upstream.address, 0.0, ""));
    let own = format!("http://{}", gateway.admin);
    let ask = |request: &str, host: &str, more: &str| {
        let mut client = Client::connect(gateway.admin);
        client
            .send(format!("{request} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\n{more}\r\n"));
        client.response().status
    };
    let at = gateway.admin.to_string();
    for (request, host, more, status) in [
        ("GET /api/v1/status", "evil.example", String::new(), 403),
        ("GET /api/v1/events", "evil.example", String::new(), 403),
        ("POST /api/v1/reload", "evil.example", String::new(), 403),
        ("GET /metrics", "evil.example", String::new(), 200),
        ("GET /api/v1/status", at.as_str(), String::new(), 200),
        ("POST /api/v1/reload", at.as_str(), format!("origin: {own}\r\n"), 200),
        ("POST /api/v1/reload", at.as_str(), "origin: http://127.0.0.1:1\r\n".into(), 403),
        ("POST /api/v1/reload", at.as_str(), "sec-fetch-site: cross-site\r\n".into(), 403),
    ] {
        assert_eq!(ask(request, host, &more), status, "{request} {host} {more}");
    }
}

#[test]
fn tokens_may_stand_in_files_and_ready_needs_none() {
    let upstream = Upstream::track("stable");
    let place = folder();
    let file = place.path().join("operate");
    std::fs::write(&file, "first-token-of-16\n\n  second-token-of-16  \n").unwrap();
    let admin = format!(
        "admin: {{ address: '127.0.0.1:0', tokens: {{ operate_file: '{}' }} }}\n",
        file.display()
    );
    let services = two_tracks(upstream.address, upstream.address, 0.0, "");
    let gateway = Gateway::start(&format!("{admin}{services}"));
    let status = |token: &str| {
        let mut client = Client::connect(gateway.admin);
        client.send(format!(
            "GET /api/v1/status HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n"
        ));
        client.response().status
    };
    for (token, expected) in [
        ("first-token-of-16", 200),
        ("second-token-of-16", 200),
        ("third-token-of-16", 401),
        ("", 401),
    ] {
        assert_eq!(status(token), expected, "{token}");
    }
    let ready = |admin: String| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_splitway"));
        command.args(["ready", "--admin", &admin]).output().unwrap().status.code()
    };
    assert_eq!(ready(gateway.admin.to_string()), Some(0));
    assert_eq!(ready(Upstream::refusing().to_string()), Some(1));
    for (text, says) in [("short\n", "16 or more"), ("", "16 or more")] {
        std::fs::write(&file, text).unwrap();
        let config = place.path().join("splitway.yaml");
        std::fs::write(
            &config,
            format!("listeners: [{{ address: '127.0.0.1:0' }}]\n{admin}{services}"),
        )
        .unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_splitway"));
        let output = command.arg("check").arg(&config).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("admin.tokens.operate_file") && said.contains(says), "{said}");
    }
}

#[test]
fn connections_that_are_held_keep_nobody_from_health_and_commands() {
    let upstream = Upstream::track("stable");
    let gateway = Gateway::start(&two_tracks(upstream.address, upstream.address, 0.0, ""));
    for (name, sent) in [
        ("silent", String::new()),
        ("half a head", "GET /healthz HTTP/1.1\r\nhost: localhost\r\n".to_owned()),
        ("kept alive", "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned()),
        (
            "a command without its body",
            "POST /api/v1/services/api/pause HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n"
                .to_owned(),
        ),
    ] {
        let held: Vec<Client> = (0..200)
            .map(|_| {
                let mut client = Client::connect(gateway.admin);
                client.send(&sent);
                client
            })
            .collect();
        let asked = std::time::Instant::now();
        assert_eq!(gateway.admin_get("/healthz").status, 200, "{name}");
        let (status, _) = gateway.command("/api/v1/services/api/rollback", "");
        assert_eq!(status, 409, "{name}: there is no rollout");
        // Well below the ten seconds that a head may take.
        assert!(asked.elapsed() < std::time::Duration::from_secs(5), "{name}");
        drop(held);
    }
}
