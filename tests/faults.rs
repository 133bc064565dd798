//! Faults by real means: packets that vanish, full disks, scanners and slow clients, a browser.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{
    Certificates, Client, Gateway, PATIENCE, Turn, Upstream, folder, tools, two_tracks, until,
};

#[test]
fn packets_and_clients_that_vanish_and_very_many_connections() {
    let Some(python) = tools::python_with("http.server") else { return };
    let may = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
    };
    // A container may be allowed neither; what is tested here is not the container.
    if !may("unshare", &["--net", "ip", "link", "set", "lo", "up"]) || !may("nft", &["--version"]) {
        eprintln!("skipped: needs a network namespace, ip and nft (iproute2, nftables)");
        return;
    }
    let _turn = Turn::take();
    let limit = if may("prlimit", &["--nofile=65536:65536", "true"]) { "65536" } else { "" };
    let folder = folder();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/network.py");
    let output = Command::new("unshare")
        .args(["--net", "prlimit"])
        .args((!limit.is_empty()).then(|| format!("--nofile={limit}:{limit}")))
        .arg(&python)
        .args([script.as_os_str(), env!("CARGO_BIN_EXE_splitway").as_ref()])
        .arg(folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    eprintln!("{text}");
    assert!(text.starts_with("lost packets\nlost client\n"), "{text}");
}

#[test]
fn a_full_disk_for_logs_costs_lines_and_no_request() {
    let upstream = Upstream::track("stable");
    let folder = folder();
    let path = folder.path().join("splitway.yaml");
    let services = two_tracks(upstream.address, upstream.address, 0.0, "");
    let port = Upstream::refusing();
    let text = format!(
        "listeners: [{{ address: '{port}' }}]\nadmin: {{ address: '127.0.0.1:0' }}\nstate: memory\n\
         log: {{ access: true, level: debug }}\n{services}"
    );
    std::fs::write(&path, text).unwrap();
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let mut child = Command::new(env!("CARGO_BIN_EXE_splitway"))
        .args(["run", "--config"])
        .arg(&path)
        .stdout(full())
        .stderr(full())
        .spawn()
        .unwrap();
    // Another test may have had the port for a moment: who is there must stay, and answer.
    let mut client = until("the gateway answers", || {
        assert_eq!(child.try_wait().unwrap(), None, "it lives");
        let mut client = Client::try_connect(port).ok()?;
        (client.try_get("/", "")?.status == 200).then_some(client)
    });
    for _ in 0..200 {
        assert_eq!(client.get("/", "").status, 200);
    }
    assert!(child.try_wait().unwrap().is_none(), "it lives");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A listener under TLS in front of `services`.
fn secure(certificates: &Certificates, more: &str, services: &str) -> Gateway {
    let pair = certificates.issue("edge", &["localhost"]).pair("edge");
    Gateway::start(&format!(
        "listeners:\n  - {{ address: '127.0.0.1:0', tls: {{ certificates: [{pair}], hsts: 365d }} }}\n\
         {more}{services}"
    ))
}

#[test]
fn testssl_finds_nothing_to_complain_of() {
    let Some(testssl) = tools::program("testssl", "testssl.sh") else { return };
    let upstream = Upstream::track("stable");
    let services = two_tracks(upstream.address, upstream.address, 0.0, "");
    let gateway = secure(&Certificates::new(), "", &services);
    let output = Command::new(testssl)
        .args(["--quiet", "--color", "0", "--warnings", "off", "-p", "-s", "-f", "-h", "-U"])
        .args(["--ip", "127.0.0.1", &format!("localhost:{}", gateway.address.port())])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let squeezed = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.join(" ")
    };
    let lines: Vec<String> = text.lines().map(squeezed).collect();
    let wanted = [
        "SSLv3 not offered (OK)",
        "TLS 1 not offered",
        "TLS 1.1 not offered",
        "TLS 1.2 offered (OK)",
        "TLS 1.3 offered (OK): final",
        "ALPN/HTTP2 h2, http/1.1 (offered)",
        "Strong encryption (AEAD ciphers) offered (OK)",
        "Strict Transport Security 365 days=31536000 s, just this domain",
    ];
    for line in wanted {
        assert!(lines.iter().any(|seen| seen == line), "{line}\n{text}");
    }
    assert!(!text.contains("NOT ok") && !text.contains("VULNERABLE"), "{text}");
}

#[test]
fn slow_clients_keep_nobody_from_being_served() {
    let Some(slowhttptest) = tools::program("slowhttptest", "slowhttptest") else { return };
    let upstream = Upstream::scripted(|session| {
        while let Some(request) = session.request() {
            if request.starts_with("POST") {
                // As most servers do: the whole body first.
                session.rest();
                return;
            }
            session.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let services = two_tracks(upstream.address, upstream.address, 0.0, "");
    let limits = "timeouts: { head: 1s, between_bytes: 1s }\n";
    let gateway = Gateway::start(&format!("{limits}{services}"));
    let url = format!("http://{}/", gateway.address);
    let _turn = Turn::take();
    // Slow heads, then slow bodies.
    for kind in ["-H", "-B"] {
        let mut attack = Command::new(&slowhttptest)
            .args(["-c", "300", "-r", "300", "-i", "2", "-l", "5", "-p", "3", kind, "-u", &url])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        gateway.await_metric("splitway_downstream_connections", &[], |count| count > 100.0);
        let mut client = gateway.connect();
        while attack.try_wait().unwrap().is_none() {
            assert_eq!(client.get("/", "").status, 200);
        }
        drop(client);
        gateway.await_metric("splitway_downstream_connections", &[], |count| count == 0.0);
    }
}

const PAGE: &str = "<!doctype html><title>page</title><script>
const results = [];
const all = [...Array(20).keys()].map(n => fetch('/item/' + n).then(answer => answer.text()));
Promise.all(all).then(texts => {
    results.push(new Set(texts).size);
    results.push(performance.getEntriesByType('navigation')[0].nextHopProtocol);
    const socket = new WebSocket('wss://' + location.host + '/socket');
    socket.onopen = () => socket.send('hello');
    socket.onmessage = event => { results.push(event.data); socket.close(1000); };
    socket.onclose = event => { results.push(event.code); fetch('/result/' + results.join('-')); };
});
</script>";

#[test]
fn a_browser_loads_a_page_over_http2_and_opens_a_websocket_from_it() {
    let Some(chromium) = tools::program("chromium", "chromium") else { return };
    let Some(python) = tools::python_with("websockets") else { return };
    let (reported, results) = std::sync::mpsc::channel();
    let reported = std::sync::Mutex::new(reported);
    let pages = Upstream::scripted(move |session| {
        while let Some(request) = session.request() {
            let path = request.split(' ').nth(1).unwrap().to_owned();
            if let Some(result) = path.strip_prefix("/result/") {
                let _ = reported.lock().unwrap().send(result.to_owned());
            }
            let body = if path == "/" { PAGE } else { &path };
            let length = body.len();
            session.send(format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {length}\r\n\r\n{body}"
            ));
        }
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/websocket/server.py");
    let mut sockets = Command::new(python)
        .args([script.as_os_str(), "stable".as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    BufReader::new(sockets.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let socket_address = SocketAddr::from(([127, 0, 0, 1], port.trim().parse().unwrap()));
    let services = format!(
        "services:\n  - {{ name: pages, tracks: {{ stable: {{ endpoints: ['{}'] }} }} }}\n  \
         - {{ name: sockets, paths: [/socket], tracks: {{ stable: {{ endpoints: ['{socket_address}'] }} }} }}\n",
        pages.address
    );
    let gateway = secure(&Certificates::new(), "", &services);
    let profile = tempfile::tempdir().unwrap();
    let mut browser = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors"])
        .args(["--disable-dev-shm-usage", "--remote-debugging-port=0", "--no-first-run"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("https://localhost:{}/", gateway.address.port()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let result = results.recv_timeout(PATIENCE * 2);
    for child in [&mut browser, &mut sockets] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(result.unwrap(), "20-h2-hello-1000");
}
