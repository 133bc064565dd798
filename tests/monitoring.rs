//! The alert rules and the dashboard, by a real Prometheus and a real Alertmanager.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value as Json;
use splitway::metrics::table::FAMILIES;

use crate::support::tools::program;
use crate::support::{Gateway, Load, Prometheus, Receiver, Tested, Upstream, folder};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("monitoring").join(name)
}

fn rollout(stable: &Tested, canary: &Tested) -> String {
    format!(
        "services:\n  - name: api\n    tracks:\n      stable: {{ version: v1, endpoints: ['{}'] }}\n      \
         canary: {{ version: v2, endpoints: ['{}'] }}\n    rollout:\n      stages: [5, 25, 100]\n      \
         min: 10m\n      judge: {{ warmup: 1s }}\n",
        stable.address(),
        canary.address()
    )
}

/// Every query of the dashboard, with its panel's title.
fn queries() -> Vec<(String, String)> {
    let dashboard: Json =
        serde_json::from_slice(&std::fs::read(file("dashboard.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter(|panel| panel["type"] != "row").flat_map(|panel| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().unwrap().iter();
        targets.map(move |target| (title.clone(), target["expr"].as_str().unwrap().to_owned()))
    });
    targets.collect()
}

#[test]
fn every_alert_fires_when_it_should_and_is_silent_when_not() {
    let Some(promtool) = program("promtool", "prometheus") else { return };
    let output = Command::new(promtool)
        .args(["test", "rules"])
        .arg(file("alerts_test.yml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    // A rule without a test would pass as well.
    let (rules, tests) = (
        std::fs::read_to_string(file("alerts.yml")).unwrap(),
        std::fs::read_to_string(file("alerts_test.yml")).unwrap(),
    );
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let alerts: Vec<&str> = alerts.collect();
    assert_eq!(alerts.len(), 13);
    for alert in alerts {
        let fires = format!("alertname: {alert}\n        exp_alerts:");
        assert!(tests.contains(&fires), "{alert} has no test");
    }
}

#[test]
fn rules_and_dashboard_name_only_metrics_that_there_are() {
    let rules = std::fs::read_to_string(file("alerts.yml")).unwrap();
    let mut text = rules;
    for (_, query) in queries() {
        text += &query;
        text.push('\n');
    }
    let words = text.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_'));
    let named = words.filter(|word| word.starts_with("splitway_") || word.starts_with("http_"));
    let mut count = 0;
    for word in named {
        count += 1;
        let family = word.strip_suffix("_bucket").unwrap_or(word);
        assert!(FAMILIES.iter().any(|known| known.name == family), "{word} is no metric");
    }
    assert!(count > 40, "{count}");
}

#[test]
fn every_panel_of_the_dashboard_has_something_to_show_during_a_rollout() {
    let Some(binary) = program("prometheus", "prometheus") else { return };
    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    let gateway = Gateway::start(&rollout(&stable, &canary));
    let _load = Load::start(gateway.address, 200, |_| String::new());
    gateway.await_phase("progressing");
    let prometheus = Prometheus::start(&binary, gateway.admin);
    // Rates need two scrapes; the evidence needs its cohorts to close.
    prometheus.await_one("sum(rate(splitway_evidence_total[5s]))", |rate| rate > 0.0);
    for (title, query) in queries() {
        let asked = query
            .replace("$app", ".*")
            .replace("$instance", ".*")
            .replace("$__rate_interval", "5s");
        let samples = prometheus.query(&asked);
        // Without faults and certificates these have nothing to say.
        let may_be_empty =
            query.contains("_failures_total") || query.contains("_certificate_expiry_");
        assert!(!samples.is_empty() || may_be_empty, "{title}: {asked} has no answer");
    }
}

/// A program of ours, ended by its pid.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_rollback_reaches_a_webhook_by_prometheus_and_alertmanager() {
    let Some(binary) = program("prometheus", "prometheus") else { return };
    let Some(alertmanager) = program("prometheus-alertmanager", "prometheus-alertmanager") else {
        return;
    };
    let receiver = Receiver::new();
    let place = folder();
    let config = place.path().join("alertmanager.yml");
    let text = format!(
        "route: {{ receiver: people, group_wait: 100ms, group_interval: 1s }}\nreceivers:\n  - name: \
         people\n    webhook_configs: [{{ url: 'http://{}/alerts' }}]\n",
        receiver.address()
    );
    std::fs::write(&config, text).unwrap();
    let address = Upstream::refusing();
    let child = Command::new(alertmanager)
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.path={}", place.path().join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .arg("--cluster.listen-address=")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _alertmanager = Ended(child);
    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    let gateway = Gateway::start(&rollout(&stable, &canary));
    let _load = Load::start(gateway.address, 200, |_| String::new());
    gateway.await_phase("progressing");
    let more = format!(
        "rule_files: ['{}']\nalerting: {{ alertmanagers: [{{ static_configs: [{{ targets: \
         ['{address}'] }}] }}] }}\n",
        file("alerts.yml").display()
    );
    let prometheus = Prometheus::start_with(&binary, gateway.admin, &more);
    prometheus.await_one(r#"splitway_rollout_info{phase="progressing"}"#, |value| value == 1.0);
    assert!(receiver.received().is_empty(), "nothing is wrong yet");
    canary.set_errors(1_000);
    let alert = receiver.await_one(|one| one.body["status"] == "firing");
    assert!(alert.head.starts_with("POST /alerts "), "{}", alert.head);
    let alert = &alert.body["alerts"][0];
    assert_eq!(alert["labels"]["alertname"], "CanaryRolledBack");
    assert_eq!(alert["annotations"]["summary"], "api: v2 was rolled back");
}
