//! A real Prometheus, and what it is asked.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value as Json;

use super::{Client, PATIENCE, Upstream, folder};

/// A Prometheus of our own, ended by its pid.
pub struct Prometheus {
    child: Child,
    pub address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one that scrapes `target`.
    pub fn start(binary: &Path, target: SocketAddr) -> Self {
        Self::start_with(binary, target, "")
    }

    /// The same with `more` sections in its configuration.
    pub fn start_with(binary: &Path, target: SocketAddr, more: &str) -> Self {
        // A port that was free a moment ago; Prometheus cannot be asked to choose one.
        Self::start_at(binary, Upstream::refusing(), target, more)
    }

    /// The same at an address.
    pub fn start_at(binary: &Path, address: SocketAddr, target: SocketAddr, more: &str) -> Self {
        let folder = folder();
        let config = format!(
            "global: {{ scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms \
             }}\nscrape_configs:\n  - job_name: splitway\n    static_configs: [{{ targets: \
             ['{target}'] }}]\n{more}"
        );
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new(binary)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Self { child, address, _folder: folder };
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "prometheus does not start");
            std::thread::yield_now();
        }
        prometheus
    }

    /// The samples of an instant query: labels and value.
    pub fn query(&self, query: &str) -> Vec<(Json, f64)> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let mut client = Client::connect(self.address);
        let answer = client.get(&format!("/api/v1/query?query={encoded}"), "");
        if answer.status == 503 {
            // It listens before it is ready.
            return Vec::new();
        }
        let body: Json = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["status"], "success", "{body}");
        let samples = body["data"]["result"].as_array().unwrap().iter();
        let value = |sample: &Json| sample["value"][1].as_str().unwrap().parse().unwrap();
        samples.map(|sample| (sample["metric"].clone(), value(sample))).collect()
    }

    /// Waits until a query with one answer satisfies `test`.
    pub fn await_one(&self, query: &str, test: impl Fn(f64) -> bool) -> f64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let samples = self.query(query);
            if let [(_, value)] = samples[..]
                && test(value)
            {
                return value;
            }
            assert!(Instant::now() < deadline, "{query}: {samples:?}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
