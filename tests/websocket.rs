//! WebSocket through the gateway, with the client and server of PyPI's `websockets`.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::support::{Certificates, Gateway, Upstream, tools, two_tracks};

fn python() -> Option<PathBuf> {
    tools::python_with("websockets")
}

/// A script with both of its ends in our hands; it ends when dropped.
struct Script {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Script {
    fn start(python: &Path, name: &str, arguments: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/websocket").join(name);
        let mut child = Command::new(python)
            .arg(script)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { input: child.stdin.take(), child, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn echo(&mut self, text: &str) -> String {
        writeln!(self.input.as_mut().unwrap(), "{text}").unwrap();
        self.line()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server and its address.
fn server(python: &Path, track: &str) -> (Script, SocketAddr) {
    let mut server = Script::start(python, "server.py", &[track]);
    let port: u16 = server.line().parse().unwrap();
    (server, SocketAddr::from(([127, 0, 0, 1], port)))
}

fn client(python: &Path, url: &str, ca: &str, what: &str) -> Script {
    Script::start(python, "client.py", &[url, ca, what])
}

#[test]
fn messages_of_every_shape_go_through_in_the_clear_and_under_tls() {
    let Some(python) = python() else { return };
    let (_server, address) = server(&python, "stable");
    let certificates = Certificates::new();
    let pair = certificates.issue("edge", &["localhost"]).pair("edge");
    let services = two_tracks(address, address, 50.0, "");
    let gateway = Gateway::start(&format!(
        "listeners:\n  - address: '127.0.0.1:0'\n  - {{ address: '127.0.0.1:0', tls: {{ certificates: [{pair}] }} }}\n{services}"
    ));
    let ca = certificates.path("ca.crt").display().to_string();
    let urls = [
        format!("ws://127.0.0.1:{}/", gateway.listeners[0].port()),
        format!("wss://localhost:{}/", gateway.listeners[1].port()),
    ];
    for url in urls {
        let mut echo = client(&python, &url, &ca, "echo");
        assert_eq!(
            [echo.line(), echo.line(), echo.line()],
            ["echoed True", "1000", "4001 as told"]
        );
        assert_eq!(client(&python, &url, &ca, "many").line(), "all");
    }
    gateway.await_metric("http_requests_total", &["status=\"101\""], |count| count == 204.0);
}

#[test]
fn a_drain_leaves_websockets_open_until_its_deadline() {
    let Some(python) = python() else { return };
    let (_server, address) = server(&python, "stable");
    let services = two_tracks(address, address, 0.0, "");
    let mut gateway = Gateway::start(&format!("drain: 10s\n{services}"));
    let url = format!("ws://{}/", gateway.address);
    let mut held = client(&python, &url, "", "held");
    assert_eq!(held.line(), "open");
    assert_eq!(held.echo("before"), "before");
    gateway.signal("TERM");
    gateway.await_line(0, "draining");
    assert_eq!(held.echo("during"), "during");
    drop(held.input.take());
    assert_eq!(held.line(), "closed 1000", "it ends by itself, in order");
    assert_eq!(gateway.wait().code(), Some(0));

    let mut gateway = Gateway::start(&format!("drain: 500ms\n{services}"));
    let url = format!("ws://{}/", gateway.address);
    let mut held = client(&python, &url, "", "idle");
    gateway.await_metric("splitway_upstream_connections", &[], |count| count == 1.0);
    gateway.signal("TERM");
    gateway.await_line(0, "drain deadline passed");
    assert_eq!(held.line(), "closed 1006");
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn a_websocket_without_traffic_ends_and_a_refused_one_says_so() {
    let Some(python) = python() else { return };
    let (_server, address) = server(&python, "stable");
    let idle = "    timeouts: { tunnel_idle: 300ms }\n";
    let gateway = Gateway::start(&two_tracks(address, address, 0.0, idle));
    let url = format!("ws://{}/", gateway.address);
    assert_eq!(client(&python, &url, "", "idle").line(), "closed 1006");
    let refusing = Upstream::track("stable");
    gateway.edit(&two_tracks(refusing.address, refusing.address, 0.0, ""));
    assert_eq!(client(&python, &url, "", "refused").line(), "200");
}
