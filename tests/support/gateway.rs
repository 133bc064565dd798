//! The built binary as a child process, found by its log and ended by its pid.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use serde_json::Value as Json;

use super::{Client, PATIENCE, folder};

/// A running gateway.
pub struct Gateway {
    child: Child,
    folder: Option<tempfile::TempDir>,
    log: Arc<Log>,
    /// Who took over from it; no child of ours.
    successor: Option<u32>,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    /// Every listener, in the order of the file; `address` is the first.
    pub listeners: Vec<SocketAddr>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

/// A service with a stable and a canary track, and `more` of its keys.
pub fn two_tracks(
    stable: SocketAddr,
    canary: SocketAddr,
    canary_weight: f64,
    more: &str,
) -> String {
    format!(
        "services:\n  - name: api\n    tracks:\n      stable: {{ version: v1, endpoints: ['{stable}'] }}\n      \
         canary: {{ version: v2, endpoints: ['{canary}'] }}\n    weights: {{ stable: {}, canary: \
         {canary_weight} }}\n{more}",
        100.0 - canary_weight
    )
}

impl Gateway {
    /// Starts a gateway with two workers on fresh ports, with `config` as the rest of its file.
    pub fn start(config: &str) -> Self {
        Self::start_with("workers: 2\n", config)
    }

    /// Starts a gateway with `head` and `config` as its file, ports and logs aside.
    pub fn start_with(head: &str, config: &str) -> Self {
        Self::start_in(folder(), head, config, &[])
    }

    /// The same in a folder that is there already, with variables in its environment.
    pub fn start_in(
        folder: tempfile::TempDir,
        head: &str,
        config: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        std::fs::write(
            folder.path().join("splitway.yaml"),
            Self::file(folder.path(), head, config),
        )
        .unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_splitway"))
            .args(["run", "--config"])
            .arg(folder.path().join("splitway.yaml"))
            .env_remove("RUST_LOG")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::<Log>::default();
        let (stderr, collected) = (child.stderr.take().unwrap(), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let Ok(line) = line else { break };
                collected.lines.lock().unwrap().push(line);
                collected.grown.notify_all();
            }
        });
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        let listeners = Vec::new();
        let mut gateway = Self {
            child,
            folder: Some(folder),
            log,
            successor: None,
            address: any,
            admin: any,
            listeners,
        };
        gateway.admin = gateway.logged_addresses("admin API listening")[0];
        gateway.listeners = gateway.logged_addresses("listening");
        gateway.address = gateway.listeners[0];
        gateway
    }

    /// Kills the process as a crash would, and starts another on the same files.
    pub fn crash_and_restart(self, config: &str) -> Self {
        Self::start_in(self.crash(), "workers: 2\n", config, &[])
    }

    /// Kills the process as a crash would; its files stay.
    pub fn crash(mut self) -> tempfile::TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.folder.take().unwrap()
    }

    fn file(folder: &Path, head: &str, config: &str) -> String {
        let state = folder.join("state");
        // A test that says where its state is means it.
        let state = if config.contains("state:") {
            String::new()
        } else {
            format!("state: {{ directory: '{}' }}\n", state.display())
        };
        let admin =
            if config.contains("admin:") { "" } else { "admin: { address: '127.0.0.1:0' }\n" };
        let listeners = if config.contains("listeners:") {
            ""
        } else {
            "listeners: [{ address: '127.0.0.1:0' }]\n"
        };
        // The tests read the log as JSON; how requests are logged may be a test's own.
        let (access, config) = match config.split_once("access: ") {
            Some((before, rest)) => {
                let (access, rest) = rest.split_once('\n').unwrap();
                (access, format!("{before}{rest}"))
            }
            None => ("json", config.to_owned()),
        };
        format!(
            "{head}{listeners}{admin}{state}\
             log: {{ format: json, level: 'info,splitway=debug', access: {access} }}\n{config}"
        )
    }

    fn logged_addresses(&self, message: &str) -> Vec<SocketAddr> {
        let text = format!("\"message\":\"{message}\"");
        self.await_line(0, &text);
        let lines = self.log.lines.lock().unwrap();
        let address = |line: &String| {
            let line: Json = serde_json::from_str(line).unwrap();
            line["address"].as_str().unwrap().parse().unwrap()
        };
        lines.iter().filter(|line| line.contains(&text)).map(address).collect()
    }

    /// Waits for a log line with `text` from the `from`th on; returns its number and itself.
    pub fn await_line(&self, from: usize, text: &str) -> (usize, String) {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.log.lines.lock().unwrap();
        loop {
            let found = lines.iter().enumerate().skip(from).find(|(_, line)| line.contains(text));
            if let Some((number, line)) = found {
                return (number, line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no log line with {text:?} in {lines:#?}");
            lines = self.log.grown.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Every log line so far.
    pub fn log_len(&self) -> usize {
        self.log.lines.lock().unwrap().len()
    }

    /// The process that serves.
    pub fn pid(&self) -> u32 {
        self.successor.unwrap_or_else(|| self.child.id())
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().unwrap().path()
    }

    /// The configuration file.
    pub fn path(&self) -> PathBuf {
        self.folder().join("splitway.yaml")
    }

    /// Posts a command to the admin API; its status and what it says.
    pub fn command(&self, path: &str, body: &str) -> (u16, Json) {
        let mut client = Client::connect(self.admin);
        let length = body.len();
        client.send(format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}"
        ));
        let answer = client.response();
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }

    /// What the status says of a service's rollout.
    pub fn rollout(&self, service: &str) -> Json {
        let answer = self.admin_get(&format!("/api/v1/services/{service}"));
        let service: Json = serde_json::from_slice(&answer.body).unwrap();
        service["rollout"].clone()
    }

    /// Waits until `test` holds for what the status says of a service's rollout.
    pub fn await_rollout(&self, service: &str, test: impl Fn(&Json) -> bool) -> Json {
        let deadline = Instant::now() + PATIENCE * 2;
        loop {
            let rollout = self.rollout(service);
            if test(&rollout) {
                return rollout;
            }
            assert!(Instant::now() < deadline, "the rollout is {rollout:#}");
            // Reports come with ticks; asking without pause would slow what is waited for.
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Waits for a phase.
    pub fn await_phase(&self, phase: &str) -> Json {
        self.await_rollout("api", |rollout| rollout["phase"] == phase)
    }

    /// Replaces the configuration file in one step, without waiting for anything.
    pub fn replace(&self, config: &str) {
        let next = self.folder().join(".next");
        let text = Self::file(self.folder(), "workers: 2\n", config);
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, self.path()).unwrap();
    }

    /// Replaces the configuration file and waits until it is in force.
    pub fn edit(&self, config: &str) {
        let seen = self.log_len();
        self.replace(config);
        self.await_line(seen, "configuration reloaded");
    }

    /// A new connection.
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// A path of the admin API.
    pub fn admin_get(&self, path: &str) -> super::client::Response {
        let mut client = Client::connect(self.admin);
        client.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"));
        client.response()
    }

    /// The sum of all samples of a metric whose labels contain every one of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let page = self.admin_get("/metrics").text();
        let samples = page.lines().filter(|line| {
            let after = line.strip_prefix(name).unwrap_or("x");
            (after.starts_with('{') || after.starts_with(' '))
                && labels.iter().all(|label| line.contains(label))
        });
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Waits until `test` holds for a metric.
    pub fn await_metric(&self, name: &str, labels: &[&str], test: impl Fn(f64) -> bool) -> f64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.metric(name, labels);
            if test(value) {
                return value;
            }
            assert!(Instant::now() < deadline, "{name} {labels:?} is {value}");
            std::thread::yield_now();
        }
    }

    /// Sends a signal to the process that serves, by its pid.
    pub fn signal(&self, name: &str) {
        assert!(kill(name, self.pid()));
    }

    /// Tells the process to hand its sockets over, and waits until a successor serves and the
    /// process has ended.
    pub fn hand_over(&mut self) {
        let (seen, before) = (self.log_len(), self.pid());
        self.signal("USR2");
        let (_, line) = self.await_line(seen, "a successor serves");
        let line: Json = serde_json::from_str(&line).unwrap();
        self.successor = Some(line["pid"].as_u64().unwrap() as u32);
        if before == self.child.id() {
            assert_eq!(self.wait().code(), Some(0));
        }
        self.await_end(before);
    }

    /// Waits until a process that may be no child of ours has ended.
    pub fn await_end(&self, pid: u32) {
        let deadline = Instant::now() + PATIENCE;
        while std::fs::read_link(format!("/proc/{pid}/exe")).is_ok() {
            assert!(Instant::now() < deadline, "{pid} does not end");
            std::thread::yield_now();
        }
    }

    /// Waits for the process to end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the gateway does not end");
            std::thread::yield_now();
        }
    }

    /// What the process has written to standard output, once it has ended.
    pub fn output(&mut self) -> String {
        let mut text = String::new();
        let mut stdout = self.child.stdout.take().unwrap();
        std::io::Read::read_to_string(&mut stdout, &mut text).unwrap();
        text
    }
}

fn kill(name: &str, pid: u32) -> bool {
    Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success()
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(pid) = self.successor {
            kill("KILL", pid);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let lines = self.log.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let last = lines.len().saturating_sub(20);
            eprintln!("the gateway's last lines: {:#?}", &lines[last..]);
        }
    }
}
