//! gRPC through the gateway, with grpcio's own client, server and health service.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{Certificates, Gateway, Upstream, tools};

fn python() -> Option<PathBuf> {
    tools::python_with("grpc, grpc_health")
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grpc").join(name)
}

/// A server; it ends when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(python: &Path, track: &str, certificate: Option<&Path>) -> Self {
        let mut child = Command::new(python)
            .arg(script("server.py"))
            .arg(track)
            .args(certificate)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port: u16 = line.trim().parse().unwrap();
        Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client(python: &Path, address: &str, ca: &str, what: &[&str]) -> String {
    let output = Command::new(python)
        .arg(script("client.py"))
        .args([address, ca])
        .args(what)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

const SHAPES: &str = "stable:hello t\nstable\nTrue True\n499500\n2000000\nba,dc\n3000007\n\
    NOT_FOUND as asked\nINTERNAL as asked\n";

#[test]
fn calls_of_every_shape_go_through_in_the_clear_and_under_tls() {
    let Some(python) = python() else { return };
    let made = Certificates::new();
    made.issue("a", &["localhost", "127.0.0.1"]);
    let ca = made.path("ca.crt").display().to_string();
    let plain = Server::start(&python, "stable", None);
    let secure = Server::start(&python, "stable", Some(&made.path("a")));
    for (server, keys) in
        [(&plain, "protocol: h2c".to_owned()), (&secure, format!("tls: {{ ca: '{ca}' }}"))]
    {
        let config = format!(
            "listeners:\n  - address: 127.0.0.1:0\n  - address: 127.0.0.1:0\n    tls: {{ \
             certificates: [{}] }}\nservices:\n  - name: api\n    tracks: {{ stable: {{ \
             endpoints: ['{}'], {keys} }} }}\n",
            made.pair("a"),
            server.address
        );
        let gateway = Gateway::start(&config);
        let secure_address = format!("localhost:{}", gateway.listeners[1].port());
        for (address, ca) in [(gateway.address.to_string(), "-"), (secure_address, &*ca)] {
            let text = client(&python, &address, ca, &["shapes"]);
            assert!(text.starts_with(SHAPES), "{text}");
            assert!(text.contains("DEADLINE_EXCEEDED"), "{text}");
            assert!(text.ends_with("OK\n"), "{text}");
        }
        let calls = |status: &str| {
            gateway.metric("splitway_grpc_calls_total", &[&format!("grpc_status=\"{status}\"")])
        };
        assert_eq!((calls("NOT_FOUND"), calls("INTERNAL")), (2.0, 2.0));
        assert!(calls("OK") >= 12.0, "{}", calls("OK"));
    }
}

#[test]
fn what_the_gateway_says_itself_a_grpc_client_understands() {
    let Some(python) = python() else { return };
    let config = format!(
        "services:\n  - name: api\n    hosts: [known.example]\n    tracks: {{ stable: {{ endpoints: \
         ['{}'], protocol: h2c }} }}\n",
        Upstream::refusing()
    );
    let gateway = Gateway::start(&config);
    let address = gateway.address.to_string();
    let text = client(&python, &address, "-", &["hello"]);
    assert_eq!(text, "UNIMPLEMENTED no service for this host and path\n");
    gateway.edit(&config.replace("    hosts: [known.example]\n", ""));
    let text = client(&python, &address, "-", &["hello"]);
    assert_eq!(text, "UNAVAILABLE upstream connect failed\n");
}

/// How a call ends whose first metadata has come; `then` is done in between.
fn begun(python: &Path, gateway: &Gateway, then: impl FnOnce()) -> String {
    let mut client = Command::new(python)
        .arg(script("client.py"))
        .args([&gateway.address.to_string(), "-", "begun"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("begun"));
    then();
    let ended = lines.next().unwrap();
    assert!(client.wait().unwrap().success());
    ended
}

#[test]
fn a_call_whose_head_has_gone_is_told_how_it_ended() {
    let Some(python) = python() else { return };
    let server = Server::start(&python, "stable", None);
    let config = format!(
        "timeouts: {{ request: 500ms }}\nservices:\n  - name: api\n    tracks: {{ stable: {{ \
         endpoints: ['{}'], protocol: h2c }} }}\n",
        server.address
    );
    let gateway = Gateway::start(&config);
    // The server sends its first metadata at once, and nothing else for a minute.
    assert_eq!(begun(&python, &gateway, || ()), "DEADLINE_EXCEEDED upstream timed out");
    gateway.edit(&config.replace("500ms", "1m"));
    let told = begun(&python, &gateway, || drop(server));
    assert_eq!(told, "UNAVAILABLE upstream closed early");
    let statuses = |status: &str| gateway.metric("splitway_grpc_calls_total", &[status]);
    assert_eq!((statuses("DEADLINE_EXCEEDED"), statuses("UNAVAILABLE")), (1.0, 1.0));
}

/// Servers of gRPC close connections that are pinged while they have nothing to send.
#[test]
fn a_quiet_call_is_left_alone_and_a_frozen_server_is_noticed() {
    let Some(python) = python() else { return };
    let server = Server::start(&python, "stable", None);
    let gateway = Gateway::start(&format!(
        "services:\n  - name: api\n    tracks: {{ stable: {{ endpoints: ['{}'], protocol: h2c }} }}\n",
        server.address
    ));
    let address = gateway.address.to_string();
    assert_eq!(client(&python, &address, "-", &["slow 16"]), "OK\n");
    if let Some(ss) = tools::program("ss", "iproute2") {
        let port = format!("dport = :{}", server.address.port());
        let output = Command::new(ss).args(["-tnoH", &port]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("timer:(keepalive,"), "{text}");
    }
    let signal = |name: &str| {
        let pid = server.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    };
    signal("-STOP");
    let told = client(&python, &address, "-", &["hello"]);
    signal("-CONT");
    assert_eq!(told, "UNAVAILABLE upstream closed early\n", "not after its first-byte timeout");
    assert_eq!(client(&python, &address, "-", &["hello"]), "OK\n");
}

#[test]
fn a_canary_whose_calls_fail_is_rolled_back_though_its_heads_are_good() {
    let Some(python) = python() else { return };
    let servers = [Server::start(&python, "stable", None), Server::start(&python, "canary", None)];
    let config = format!(
        "services:\n  - name: api\n    tracks:\n      stable: {{ version: v1, endpoints: ['{}'], \
         protocol: h2c }}\n      canary: {{ version: v2, endpoints: ['{}'], protocol: h2c }}\n    \
         health: {{ grpc: test.Echo }}\n    rollout: {{ stages: [50, 100] }}\n",
        servers[0].address, servers[1].address
    );
    let canary = servers[1].address.to_string();
    assert_eq!(client(&python, &canary, "-", &["mode INTERNAL"]), "OK\n");
    let gateway = Gateway::start(&config);
    let mut load = Command::new(&python)
        .arg(script("client.py"))
        .args([&gateway.address.to_string(), "-", "forever"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let rollout = gateway.await_phase("rolled_back");
    let _ = load.kill();
    let _ = load.wait();
    assert_eq!(rollout["weight"], 0.0, "{rollout:#}");
    let failed = gateway.metric("http_requests_total", &["canary", "status=\"200\""]);
    assert!(failed > 0.0, "the heads were good");
}

#[test]
fn the_health_protocol_tells_who_is_ready() {
    let Some(python) = python() else { return };
    let servers = [Server::start(&python, "stable", None), Server::start(&python, "canary", None)];
    let config = |service: &str| {
        format!(
            "services:\n  - name: api\n    tracks:\n      stable: {{ version: v1, endpoints: \
             ['{}'], protocol: h2c }}\n      canary: {{ version: v2, endpoints: ['{}'], protocol: \
             h2c }}\n    health: {{ grpc: '{service}', interval: 50ms }}\n    rollout: {{ stages: \
             [50, 100] }}\n",
            servers[0].address, servers[1].address
        )
    };
    let gateway = Gateway::start(&config("test.Echo"));
    gateway.await_phase("progressing");
    gateway.edit(&config("test.OnlyStable"));
    let rollout = gateway.await_phase("rolled_back");
    let explained = gateway.admin_get("/api/v1/services/api/explain").text();
    assert!(explained.contains("readiness probes"), "{explained} {rollout:#}");
}
