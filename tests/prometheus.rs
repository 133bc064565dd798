//! A real Prometheus scrapes the gateway and answers the questions people ask of a canary.

use std::process::{Command, Stdio};

use crate::support::tools::program;
use crate::support::{Gateway, Prometheus, Upstream, two_tracks};

/// A track that answers 200, and 503 to every `fail_every`th request.
fn failing(fail_every: usize) -> Upstream {
    Upstream::scripted(move |session| {
        let mut count = 0;
        while session.request().is_some() {
            count += 1;
            let status = if count % fail_every == 0 { 503 } else { 200 };
            session.send(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n"));
        }
    })
}

#[test]
fn prometheus_answers_the_kpi_queries_with_the_right_numbers() {
    let Some(binary) = program("prometheus", "prometheus") else { return };
    let (stable, canary) = (Upstream::track("stable"), failing(4));
    let rule = "    rules: [{ match: { headers: { canary: 'true' } }, track: canary }]\n";
    let gateway =
        Gateway::start_with("workers: 1\n", &two_tracks(stable.address, canary.address, 0.0, rule));
    let mut client = gateway.connect();
    // Series must exist before they grow, or rate() cannot see the growth.
    for _ in 0..4 {
        client.get("/", "canary: true\r\n");
    }
    let prometheus = Prometheus::start(&binary, gateway.admin);
    let canary_total = r#"sum(http_requests_total{app="api",track="canary"})"#;
    prometheus.await_one(canary_total, |count| count == 4.0);
    for _ in 0..400 {
        client.get("/", "canary: true\r\n");
        client.get("/", "");
    }
    prometheus.await_one(canary_total, |count| count == 404.0);
    prometheus
        .await_one(r#"http_requests_total{app="api",track="canary",status="503"}"#, |n| n == 101.0);
    // Enough scrapes at rest, so that every rate below covers the same increase.
    prometheus.await_one(r#"count_over_time(up[1m])"#, |scrapes| scrapes >= 15.0);

    // 1. Error rate, summed over status codes as the analysis template does.
    let errors = r#"sum(rate(http_requests_total{track="canary",status=~"5.."}[5m]))
        / sum(rate(http_requests_total{track="canary"}[5m]))"#;
    assert!((prometheus.query(errors)[0].1 - 0.25).abs() < 1e-6, "{:?}", prometheus.query(errors));
    // To the letter it divides each failing series by itself.
    let letter = r#"rate(http_requests_total{track="canary",status=~"5.."}[5m])
        / rate(http_requests_total{track="canary"}[5m])"#;
    let found = prometheus.query(letter);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].0["status"].as_str(), found[0].1), (Some("503"), 1.0));
    // 2. Response time: on loopback far below the second bucket's 10 ms, above nothing.
    let p99 = r#"histogram_quantile(0.99, rate(http_request_duration_seconds_bucket{track="canary"}[5m]))"#;
    let found = prometheus.query(p99);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].1 > 0.0 && found[0].1 < 1.0, "{found:?}");
    // 3. Request rate, against what was sent: Prometheus extrapolates both alike.
    let ratio = r#"sum(rate(http_requests_total{track="canary"}[5m]))
        / sum(rate(http_request_duration_seconds_count{track="canary"}[5m]))"#;
    assert!((prometheus.query(ratio)[0].1 - 1.0).abs() < 1e-6);
    assert!(prometheus.query(r#"sum(rate(http_requests_total{track="canary"}[5m]))"#)[0].1 > 0.0);
    // The analysis template's success rate.
    let success = r#"sum(rate(http_requests_total{app="api",track="canary",status!~"5.."}[1m]))
        / sum(rate(http_requests_total{app="api",track="canary"}[1m]))"#;
    assert!((prometheus.query(success)[0].1 - 0.75).abs() < 1e-6);
}

#[test]
fn promtool_finds_nothing_to_mend() {
    let Some(promtool) = program("promtool", "prometheus") else { return };
    let (stable, canary) = (Upstream::track("stable"), failing(2));
    let gateway = Gateway::start(&two_tracks(stable.address, canary.address, 50.0, ""));
    let mut client = gateway.connect();
    for _ in 0..50 {
        client.get("/", "");
    }
    let page = gateway.admin_get("/metrics");
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut check.stdin.take().unwrap(), &page.body).unwrap();
    let output = check.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}
