//! TLS to clients and to upstreams, with curl and Python's ssl at the other end.

use std::net::SocketAddr;
use std::process::Command;

use crate::support::{Certificates, Gateway, Upstream, tools, two_tracks};

/// What curl prints for `url` with further arguments, and whether it was content.
fn curl(arguments: &[&str]) -> Option<(bool, String)> {
    let curl = tools::program("curl", "curl")?;
    let output = Command::new(curl).args(["-sS", "--max-time", "20"]).args(arguments).output();
    let output = output.unwrap();
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

fn service(upstream: SocketAddr) -> String {
    two_tracks(upstream, upstream, 0.0, "")
}

fn listener(keys: &str) -> String {
    format!("listeners: [{{ address: '127.0.0.1:0', tls: {{ {keys} }} }}]\n")
}

/// A server that answers with the head that it got.
fn echo() -> Upstream {
    Upstream::scripted(|session| {
        while let Some(head) = session.request() {
            let head = head.to_lowercase();
            let length = head.len();
            session.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{head}"));
        }
    })
}

#[test]
fn clients_agree_on_http2_or_http1_and_upstreams_learn_the_scheme() {
    let (made, upstream) = (Certificates::new(), echo());
    made.issue("a", &["a.example"]);
    let keys = format!("certificates: [{}], hsts: 365d", made.pair("a"));
    let gateway = Gateway::start(&format!("{}{}", listener(&keys), service(upstream.address)));
    let port = gateway.address.port();
    let (ca, url) = (made.path("ca.crt"), format!("https://a.example:{port}/x"));
    let (ca, resolve) = (ca.to_str().unwrap(), format!("a.example:{port}:127.0.0.1"));
    for (version, said) in [("--http2", "HTTP/2 200"), ("--http1.1", "HTTP/1.1 200")] {
        let arguments = [version, "-i", "--cacert", ca, "--resolve", &resolve, &url];
        let Some((is_good, text)) = curl(&arguments) else { return };
        assert!(is_good && text.starts_with(said), "{text}");
        assert!(text.contains("strict-transport-security: max-age=31536000\r\n"), "{text}");
        assert!(text.contains("x-forwarded-proto: https"), "{text}");
        assert!(text.contains(&format!("x-forwarded-host: a.example:{port}")), "{text}");
    }
    // Somebody who speaks no TLS costs a counter and nothing else.
    let mut plain = gateway.connect();
    plain.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    plain.rest();
    gateway.await_metric("splitway_downstream_tls_failures_total", &[], |count| count == 1.0);
    let label = made.path("a.crt").display().to_string();
    let end = gateway.metric("splitway_certificate_expiry_timestamp_seconds", &[&label]);
    assert!(end > 2e9, "{end}");
}

#[test]
fn the_certificate_of_the_asked_name_is_shown_and_renewed_ones_are_taken_up() {
    let (made, upstream) = (Certificates::new(), echo());
    made.issue("a", &["a.example"]).issue("b", &["*.b.example"]);
    let keys = format!("certificates: [{}, {}]", made.pair("a"), made.pair("b"));
    let gateway = Gateway::start(&format!("{}{}", listener(&keys), service(upstream.address)));
    let ca = made.path("ca.crt");
    let get = |name: &str| {
        let port = gateway.address.port();
        let resolve = format!("{name}:{port}:127.0.0.1");
        let url = format!("https://{name}:{port}/");
        curl(&["--cacert", ca.to_str().unwrap(), "--resolve", &resolve, &url])
    };
    let Some((is_good, text)) = get("a.example") else { return };
    assert!(is_good, "{text}");
    assert!(get("x.b.example").unwrap().0);
    // The first is for all other names, which it is not good for.
    assert!(!get("c.example").unwrap().0);

    let seen = gateway.log_len();
    made.issue("a", &["a.example", "c.example"]);
    gateway.await_line(seen, "configuration reloaded");
    assert!(get("c.example").unwrap().0);

    // A key that belongs to another certificate changes nothing and is named.
    let seen = gateway.log_len();
    std::fs::copy(made.path("b.key"), made.path("a.key")).unwrap();
    let (_, line) = gateway.await_line(seen, "reload refused");
    assert!(line.contains("listeners[0].tls.certificates[0]"), "{line}");
    assert!(line.contains("certificate and key do not belong together"), "{line}");
    assert!(get("c.example").unwrap().0);
    assert_eq!(gateway.metric("splitway_config_last_reload_successful", &[]), 0.0);
}

#[test]
fn client_certificates_are_required_and_their_subject_is_passed_on() {
    let (made, upstream) = (Certificates::new(), echo());
    made.issue("a", &["localhost"]).issue("someone", &["someone"]);
    let stranger = Certificates::new();
    stranger.issue("other", &["other"]);
    let ca = made.path("ca.crt").display().to_string();
    let keys = format!("certificates: [{}], client_ca: '{ca}'", made.pair("a"));
    let config = format!("{}{}", listener(&keys), service(upstream.address));
    let gateway = Gateway::start(&config);
    let url = format!("https://localhost:{}/", gateway.address.port());
    let said = "x-client-certificate-subject";
    let with = |from: &Certificates, file: &str| {
        let path = |kind: &str| from.path(&format!("{file}.{kind}")).display().to_string();
        let forged = format!("{said}: CN=admin");
        let (certificate, key) = (path("crt"), path("key"));
        curl(&["--cacert", &ca, "--cert", &certificate, "--key", &key, "-H", &forged, &url])
    };
    let Some((is_good, text)) = with(&made, "someone") else { return };
    assert!(is_good && text.contains(&format!("{said}: cn=someone\r\n")), "{text}");
    assert!(!text.contains("cn=admin"), "{text}");
    assert!(!with(&stranger, "other").unwrap().0);
    assert!(!curl(&["--cacert", &ca, &url]).unwrap().0);
    // Optional: who shows none is served, unknown.
    gateway.edit(&config.replace("client_ca", "client_certificate: optional, client_ca"));
    let (is_good, text) = curl(&["--cacert", &ca, "-H", &format!("{said}: x"), &url]).unwrap();
    assert!(is_good && !text.contains(said), "{text}");
}

#[test]
fn sessions_are_resumed_and_old_versions_refused() {
    let Some(python) = tools::python_with("ssl") else { return };
    let (made, upstream) = (Certificates::new(), echo());
    made.issue("a", &["localhost"]);
    let keys = format!("certificates: [{}], min_version: 1.3", made.pair("a"));
    let gateway = Gateway::start(&format!("{}{}", listener(&keys), service(upstream.address)));
    let script = r#"
import socket, ssl, sys
ca, port = sys.argv[1], int(sys.argv[2])
context = ssl.create_default_context(cafile=ca)
def ask(session):
    raw = socket.create_connection(("127.0.0.1", port), 20)
    tls = context.wrap_socket(raw, server_hostname="localhost", session=session)
    tls.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    while tls.recv(65536): pass
    return tls.session_reused, tls.session
print(ask(ask(None)[1])[0])
context.maximum_version = ssl.TLSVersion.TLSv1_2
try:
    ask(None)
    print("agreed")
except ssl.SSLError:
    print("refused")
"#;
    let output = Command::new(python)
        .args(["-c", script, made.path("ca.crt").to_str().unwrap()])
        .arg(gateway.address.port().to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text, "True\nrefused\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn upstreams_are_spoken_to_under_tls_only_if_they_are_who_they_should_be() {
    let (made, upstream) = (Certificates::new(), echo());
    made.issue("a", &["127.0.0.1", "inner.example"]).issue("gateway", &["gateway"]);
    let ca = made.path("ca.crt").display().to_string();
    let keys = format!("certificates: [{}], client_ca: '{ca}'", made.pair("a"));
    let inner = Gateway::start(&format!("{}{}", listener(&keys), service(upstream.address)));
    let outer = |tls: &str, protocol: &str| {
        format!(
            "services:\n  - name: outer\n    tracks:\n      stable:\n        endpoints: ['{}']\n        \
             tls: {{ {tls} }}\n        {protocol}\n",
            inner.address
        )
    };
    let ours = format!("client: {}", made.pair("gateway"));
    let good = format!("ca: '{ca}', {ours}");
    let gateway = Gateway::start(&outer(&good, ""));
    let mut client = gateway.connect();
    for protocol in ["", "protocol: http1", "protocol: h2"] {
        gateway.edit(&outer(&good, &format!("version: 'of {protocol}'\n        {protocol}")));
        for _ in 0..5 {
            let answer = client.get("/", "x-one: 1\r\n");
            assert_eq!(answer.status, 200, "{protocol} {}", answer.head);
            let text = answer.text();
            assert!(text.contains("x-client-certificate-subject: cn=gateway"), "{text}");
            assert!(text.contains("x-one: 1"), "{text}");
        }
    }
    // HTTP/2 needs one connection per worker for all of them.
    assert!(gateway.metric("splitway_upstream_connects_total", &[]) < 13.0);
    gateway.edit(&outer(&format!("{good}, server_name: inner.example"), ""));
    assert_eq!(client.get("/", "").status, 200);

    let stranger = Certificates::new();
    for bad in [
        format!("{good}, server_name: other.example"),
        format!("ca: '{}', {ours}", stranger.path("ca.crt").display()),
        format!("ca: '{ca}'"),
    ] {
        gateway.edit(&outer(&bad, ""));
        let status = client.get("/", "").status;
        assert_eq!(status, 502, "{bad}");
    }
    gateway.edit(&outer(&format!("verify: false, {ours}"), ""));
    assert_eq!(client.get("/", "").status, 200);
}

#[test]
fn a_balancer_names_its_client_by_the_proxy_protocol() {
    let (made, upstream) = (Certificates::new(), echo());
    made.issue("a", &["localhost"]);
    let listeners = format!(
        "listeners:\n  - {{ address: '127.0.0.1:0', proxy_protocol: true }}\n  - address: \
         127.0.0.1:0\n    proxy_protocol: true\n    tls: {{ certificates: [{}] }}\n",
        made.pair("a")
    );
    let gateway = Gateway::start(&format!("{listeners}{}", service(upstream.address)));
    let mut client = gateway.connect();
    // In pieces, with the request right behind.
    client.send("PROXY TCP4 192.0.");
    client.send("2.7 127.0.0.1 5 6\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(client.response().text().contains("x-forwarded-for: 192.0.2.7\r\n"));
    let mut client = gateway.connect();
    let two = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x08\x7f\0\0\x01\0\x05\0\x06";
    client.send([&two[..], b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"].concat());
    assert!(client.response().text().contains("x-forwarded-for: 192.0.2.8\r\n"));
    let mut liar = gateway.connect();
    liar.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(liar.rest(), b"");
    gateway.await_metric("splitway_downstream_refused_total", &["proxy_header"], |n| n == 1.0);
    // The header comes ahead of TLS.
    let url = format!("https://localhost:{}/", gateway.listeners[1].port());
    let ca = made.path("ca.crt").display().to_string();
    let Some((is_good, text)) = curl(&["--haproxy-protocol", "--cacert", &ca, &url]) else {
        return;
    };
    assert!(is_good && text.contains("x-forwarded-for: 127.0.0.1"), "{text}");
}

#[test]
fn requests_in_the_clear_are_sent_to_https() {
    let upstream = echo();
    let listeners = "listeners: [{ address: '127.0.0.1:0', redirect_https: 8443 }]\n";
    let config =
        format!("{listeners}trusted_proxies: [127.0.0.2/32]\n{}", service(upstream.address));
    let gateway = Gateway::start(&config);
    let mut client = gateway.connect();
    let answer = client.get("/p?q=1", "");
    assert_eq!((answer.status, answer.header("location")), (308, Some("https://test:8443/p?q=1")));
    assert_eq!(client.get("/", "").status, 308, "the connection stays");
    assert_eq!(upstream.requests(), 0);
    assert_eq!(gateway.metric("splitway_downstream_https_redirects_total", &[]), 2.0);
    gateway.edit(&config.replace("127.0.0.2/32", "127.0.0.1/32"));
    assert_eq!(client.get("/", "x-forwarded-proto: https\r\n").status, 200);
}

#[test]
fn files_that_cannot_be_used_are_named_with_their_place() {
    let made = Certificates::new();
    made.issue("a", &["a"]).issue("b", &["b"]);
    let folder = made.folder.path();
    std::fs::copy(made.path("b.key"), made.path("a.key")).unwrap();
    std::fs::write(made.path("empty.crt"), "").unwrap();
    let config = "listeners:\n  - address: 127.0.0.1:0\n    tls:\n      certificates:\n        \
        - { certificate: none.crt, key: a.key }\n  - address: 127.0.0.1:0\n    tls:\n      \
        certificates: [{ certificate: a.crt, key: a.key }]\nservices:\n  - name: a\n    \
        tracks: { stable: { endpoints: ['1.2.3.4:5'], tls: { ca: empty.crt } } }\n";
    std::fs::write(folder.join("c.yaml"), config).unwrap();
    let check = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_splitway"));
        let output = command.arg("check").args(more).arg(folder.join("c.yaml")).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = check(&[]);
    assert_eq!(code, Some(2));
    for expected in [
        "c.yaml:5:26: listeners[0].tls.certificates[0].certificate: `none.crt` cannot be read",
        "c.yaml:8:22: listeners[1].tls.certificates[0]: certificate and key do not belong together",
        "services[0].tracks.stable.tls: has no PEM certificate",
    ] {
        assert!(text.contains(expected), "{text}\nlacks {expected}");
    }
    assert_eq!(check(&["--without-files"]).0, Some(0));
}
