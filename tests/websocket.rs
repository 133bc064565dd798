//! WebSocket through the gateway, with the client and server of PyPI's `websockets`.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::support::{Certificates, Gateway, Upstream, folder, tools, two_tracks};

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

/// A Python 2.7 with the Autobahn suite, which runs nowhere else; few machines have one.
fn autobahn() -> Option<PathBuf> {
    let python = std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|path| path.join("python2.7"))
        .find(|path| path.is_file());
    let works = |python: &PathBuf| {
        let output = Command::new(python).args(["-c", "import autobahntestsuite"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let found = python.filter(works);
    if found.is_none() {
        eprintln!("skipped: no Python 2.7 with autobahntestsuite");
    }
    found
}

#[test]
fn the_autobahn_suite_fails_nothing_that_does_not_fail_without_the_gateway() {
    let (Some(suite), Some(python)) = (autobahn(), python()) else { return };
    let (_server, address) = server(&python, "stable");
    let gateway = Gateway::start(&two_tracks(address, address, 50.0, ""));
    let folder = folder();
    let servers = serde_json::json!([
        { "agent": "alone", "url": format!("ws://{address}") },
        { "agent": "behind", "url": format!("ws://{}", gateway.address) },
    ]);
    // Without those that measure speed and compression at length.
    let spec = serde_json::json!({
        "outdir": folder.path().join("reports"), "servers": servers, "cases": ["*"],
        "exclude-cases": ["9.*", "12.*", "13.*"], "exclude-agent-cases": {},
    });
    std::fs::write(folder.path().join("spec.json"), spec.to_string()).unwrap();
    let script = "import sys; sys.argv = ['wstest', '-m', 'fuzzingclient', '-s', 'spec.json']\n\
        from autobahntestsuite.wstest import run; run()";
    let output =
        Command::new(suite).args(["-c", script]).current_dir(folder.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let index = std::fs::read(folder.path().join("reports/index.json")).expect(&text);
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let failed = |agent: &str| -> Vec<String> {
        let cases = index[agent].as_object().unwrap();
        assert!(cases.len() > 200, "{}", cases.len());
        let bad = |case: &&String| {
            let behavior = cases[*case]["behavior"].as_str().unwrap();
            !matches!(behavior, "OK" | "NON-STRICT" | "INFORMATIONAL")
        };
        cases.keys().filter(bad).cloned().collect()
    };
    let alone = failed("alone");
    let behind = failed("behind");
    assert!(behind.iter().all(|case| alone.contains(case)), "{behind:?}, alone {alone:?}");
}
