//! What a listener keeps out: services bound to others, and PROXY headers of strangers.

use std::net::SocketAddr;
use std::process::Command;

use crate::support::{Certificates, Gateway, Upstream, folder, tools};

/// A server that answers with its name and the head that it got.
fn echo(name: &'static str) -> Upstream {
    Upstream::scripted(move |session| {
        while let Some(head) = session.request() {
            let body = format!("{name} {}", head.to_lowercase());
            let length = body.len();
            session.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"));
        }
    })
}

/// What curl prints for `url`, with further arguments: the status, then the body.
fn curl(arguments: &[&str]) -> Option<String> {
    let curl = tools::program("curl", "curl")?;
    let output = Command::new(curl)
        .args(["-sS", "--max-time", "20", "-w", "%{stderr}%{http_code}"])
        .args(arguments)
        .output()
        .unwrap();
    let text = [output.stderr, b" ".to_vec(), output.stdout].concat();
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_service_is_reached_through_its_listeners_alone() {
    let (made, open, inner) = (Certificates::new(), echo("open"), echo("inner"));
    made.issue("a", &["open.example", "inner.example"]).issue("someone", &["someone"]);
    let ca = made.path("ca.crt").display().to_string();
    let pair = made.pair("a");
    let service = |name: &str, upstream: &Upstream, listeners: &str| {
        format!(
            "  - name: {name}\n    hosts: [{name}.example]\n{listeners}    tracks: {{ stable: {{ \
             endpoints: ['{}'] }} }}\n",
            upstream.address
        )
    };
    let config = |bound: &str| {
        format!(
            "listeners:\n  - address: 127.0.0.1:0\n  - {{ address: '127.0.0.1:0', name: shop, tls: \
             {{ certificates: [{pair}] }} }}\n  - {{ address: '127.0.0.1:0', name: partners, tls: {{ \
             certificates: [{pair}], client_ca: '{ca}' }} }}\nservices:\n{}{}",
            service("open", &open, ""),
            service("inner", &inner, bound),
        )
    };
    let bound = config("    listeners: [partners]\n");
    let gateway = Gateway::start(&bound);
    let ports: Vec<u16> = gateway.listeners.iter().map(SocketAddr::port).collect();
    let mut client = gateway.connect();
    let mut status = |host: &str| {
        client.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        client.response().status
    };
    for host in ["inner.example", "INNER.example.", "inner.example:443"] {
        assert_eq!(status(host), 404, "{host}");
    }
    assert_eq!(status("open.example"), 200);
    let resolve = |port: u16| {
        ["open.example", "inner.example"].map(|name| format!("{name}:{port}:127.0.0.1"))
    };
    let ask = |port: u16, scheme: &str, more: &[&str]| {
        let [open, inner] = resolve(port);
        let urls = ["open", "inner"].map(|name| format!("{scheme}://{name}.example:{port}/"));
        let mut arguments = vec!["--cacert", &ca, "--resolve", &open, "--resolve", &inner];
        arguments.extend_from_slice(more);
        // Both on one connection, which the certificate's names allow.
        arguments.extend(urls.iter().map(String::as_str));
        curl(&arguments)
    };
    let (certificate, key) = (made.path("someone.crt"), made.path("someone.key"));
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let known = ["--cert", &*certificate, "--key", &key];
    let Some(text) = ask(ports[0], "http", &["--http2-prior-knowledge"]) else { return };
    assert!(text.starts_with("200404"), "{text}");
    for version in ["--http1.1", "--http2"] {
        let text = ask(ports[1], "https", &[version]).unwrap();
        assert!(text.starts_with("200404") && !text.contains("inner get"), "{text}");
        let text = ask(ports[2], "https", &[&[version], &known[..]].concat()).unwrap();
        assert!(text.starts_with("200200") && text.contains("inner get"), "{text}");
    }
    assert_eq!(inner.requests(), 2);
    // Bound to none it answers on each; and back, while connections stay.
    gateway.edit(&config(""));
    assert_eq!(status("inner.example"), 200);
    gateway.edit(&bound);
    assert_eq!(status("inner.example"), 404);
}

#[test]
fn bindings_are_checked() {
    let folder = folder();
    let check = |bound: &str, second: &str| {
        let service = |name: &str, more: &str| {
            format!(
                "  - {{ name: {name}, {more}, tracks: {{ stable: {{ endpoints: ['10.0.0.1:1'] }} }} }}\n"
            )
        };
        let config = format!(
            "listeners: [{{ address: '0.0.0.0:80' }}, {{ address: '0.0.0.0:443', name: safe }}, {second}]\n\
             services:\n{}{}",
            service("a", "listeners: [safe]"),
            service("b", bound),
        );
        let path = folder.path().join("c.yaml");
        std::fs::write(&path, config).unwrap();
        let checked = Command::new(env!("CARGO_BIN_EXE_splitway")).arg("check").arg(&path).output();
        let checked = checked.unwrap();
        String::from_utf8([checked.stdout, checked.stderr].concat()).unwrap()
    };
    let third = "{ address: '127.0.0.1:0' }";
    for (bound, second, said) in [
        ("listeners: ['0.0.0.0:80']", third, "ok, 2 services"),
        ("listeners: [safe]", third, "also leads to services[0]"),
        ("paths: [/]", third, "also leads to services[0]"),
        ("listeners: []", third, "services[1].listeners: is empty"),
        ("listeners: [sale]", third, "`sale` is no listener; known: 0.0.0.0:80, safe"),
        ("listeners: ['0.0.0.0:443']", third, "also leads to services[0]"),
        (
            "listeners: ['127.0.0.1:0']",
            "{ address: '127.0.0.1:0' }, { address: '127.0.0.1:0' }",
            "is more than one listener",
        ),
        ("listeners: ['0.0.0.0:80']", "{ address: '127.0.0.1:0', name: safe }", "names are unique"),
        (
            "listeners: ['0.0.0.0:80']",
            "{ address: '127.0.0.1:0', proxy_protocol: { from: [] } }",
            "name the balancers' networks",
        ),
        (
            "listeners: ['0.0.0.0:80']",
            "{ address: '127.0.0.1:0', proxy_protocol: yes-please }",
            "write { from: [NETWORK] }",
        ),
    ] {
        let text = check(bound, second);
        assert!(text.contains(said), "{bound} {second}: {text}");
    }
}

#[test]
fn nobody_but_a_named_balancer_speaks_for_others() {
    let upstream = echo("up");
    let config = |from: &str| {
        format!(
            "listeners: [{{ address: '127.0.0.1:0', proxy_protocol: {from} }}]\nservices: [{{ name: \
             a, tracks: {{ stable: {{ endpoints: ['{}'] }} }} }}]\n",
            upstream.address
        )
    };
    let gateway = Gateway::start(&config("{ from: [127.0.0.2] }"));
    let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let header = "PROXY TCP4 10.1.2.3 127.0.0.1 5 6\r\n";
    for header in [header, "", "PROXY UNKNOWN\r\n"] {
        let mut stranger = gateway.connect();
        // The connection may be closed before all of it is written.
        stranger.send(format!("{header}{request}"));
        assert_eq!(stranger.rest(), b"", "{header}");
    }
    gateway.await_metric("splitway_downstream_refused_total", &["proxy_header"], |n| n == 3.0);
    assert_eq!(upstream.requests(), 0);
    for from in ["{ from: [10.0.0.0/8, '127.0.0.0/8'] }", "{ from: 127.0.0.1 }", "true"] {
        gateway.edit(&config(from));
        let mut client = gateway.connect();
        client.send(format!("{header}{request}"));
        assert!(client.response().text().contains("x-forwarded-for: 10.1.2.3\r\n"), "{from}");
    }
}
