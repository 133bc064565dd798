//! Trailers of either direction and protocol carry nothing that belongs into a head.

use crate::support::{Gateway, Upstream, two_tracks};

/// What must not go on, in several spellings; `canary` is guarded, `x-set` and `x-gone` are edited.
const REMOVED: [&str; 16] = [
    "X-Client-Certificate-Subject",
    "x_client_certificate_subject",
    "x-forwarded-for",
    "X_Forwarded_Proto",
    "x-forwarded-anything",
    "canary",
    "Canary",
    "x-set",
    "X_Set",
    "x-gone",
    "host",
    "content-length",
    "content_length",
    "authorization",
    "x-splitway-mirror",
    "cookie",
];
const KEPT: [&str; 4] = ["x-sum", "grpc-status", "grpc-message", "server-timing"];

const KEYS: &str = "    headers:\n      \
    request: { set: { x-set: '1' }, remove: [x-gone] }\n      \
    response: { set: { x-set: '1' }, remove: [x-gone] }\n    \
    rules:\n      - match: { headers: { canary: 'true' } }\n        from: [10.0.0.0/8]\n        \
    track: canary\n";

fn lines() -> String {
    REMOVED.iter().chain(&KEPT).map(|name| format!("{name}: 1\r\n")).collect()
}

/// A server that answers with the names of the trailers it got, and with all trailers itself.
fn server() -> Upstream {
    Upstream::scripted(|session| {
        while session.request().is_some() {
            let mut names = Vec::new();
            while session.line() != "0" {
                session.line();
            }
            loop {
                let line = session.line();
                if line.is_empty() {
                    break;
                }
                names.push(line.split(':').next().unwrap().to_lowercase());
            }
            let said = names.join(" ");
            // Guards are for what clients say.
            let lines = lines().replace("canary: 1\r\n", "").replace("Canary: 1\r\n", "");
            session.send(format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{said}\r\n0\r\n{}\r\n",
                said.len(),
                lines
            ));
        }
    })
}

#[test]
fn http1_trailers_are_held_to_what_heads_are_held_to() {
    let server = server();
    let gateway = Gateway::start(&two_tracks(server.address, server.address, 0.0, KEYS));
    let outer = Gateway::start(&format!(
        "services:\n  - name: outer\n    tracks: {{ stable: {{ endpoints: ['{}'], protocol: h2c }} }}\n",
        gateway.address
    ));
    let body = format!("3\r\nabc\r\n0\r\n{}\r\n", lines());
    let head = "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\r\n";
    let whole = format!("{head}{body}");
    // In one piece, with the body behind the head, and cut within the trailers.
    let at = |text: &str| whole.find(text).unwrap();
    for cut in [0, head.len(), at("0\r\nX-"), at("cookie"), at("x-sum") + 3, whole.len() - 1] {
        for gateway in [&gateway, &outer] {
            let mut client = gateway.connect();
            client.send(&whole[..cut]);
            client.send(&whole[cut..]);
            let answer = client.response();
            assert_eq!(answer.text(), KEPT.join(" "), "of the request, cut at {cut}");
            let names = answer.headers.iter().filter_map(|(name, _)| name.strip_prefix("trailer-"));
            assert_eq!(names.collect::<Vec<_>>(), KEPT, "of the answer, cut at {cut}");
        }
    }
}

#[test]
fn http2_trailers_are_held_to_what_heads_are_held_to() {
    let server = server();
    let gateway = Gateway::start(&two_tracks(server.address, server.address, 0.0, KEYS));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (said, names) = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        let request = http::Request::post("http://a/").body(()).unwrap();
        let (answer, mut body) = client.send_request(request, false).unwrap();
        body.send_data("abc".into(), false).unwrap();
        let mut trailers = http::HeaderMap::new();
        for name in REMOVED.iter().chain(&KEPT) {
            let name = http::HeaderName::from_bytes(name.to_lowercase().as_bytes()).unwrap();
            trailers.insert(name, http::HeaderValue::from_static("1"));
        }
        body.send_trailers(trailers).unwrap();
        let mut body = answer.await.unwrap().into_body();
        let said = body.data().await.unwrap().unwrap();
        let trailers = body.trailers().await.unwrap().unwrap();
        let names: Vec<String> = trailers.keys().map(|name| name.as_str().to_owned()).collect();
        (said, names)
    });
    let sorted = |names: Vec<&str>| {
        let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        names.sort();
        names
    };
    let said = std::str::from_utf8(&said).unwrap().split(' ').collect();
    assert_eq!(sorted(said), sorted(KEPT.to_vec()), "of the request");
    let names = names.iter().map(String::as_str).collect();
    assert_eq!(sorted(names), sorted(KEPT.to_vec()), "of the answer");
}

#[test]
fn trailers_are_bounded() {
    let server = Upstream::scripted(|session| {
        session.request();
        session.rest();
    });
    let gateway = Gateway::start(&two_tracks(server.address, server.address, 0.0, ""));
    for trailers in ["x: 1\r\n".repeat(1_000), format!("x: {}\r\n", "y".repeat(20_000))] {
        let mut client = gateway.connect();
        client.send(format!(
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n{trailers}\r\n"
        ));
        assert_eq!(client.response().status, 400);
    }
    let forwarded = String::from_utf8(server.bytes()).unwrap();
    assert!(!forwarded.contains("x: "), "{forwarded}");
}
