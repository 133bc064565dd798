//! Replies of the gateway's own: where they lead, when they are sent, and what they say of answers
//! that are not passed on; and what of an answer is a request's duration.

use crate::support::{Client, Gateway, Upstream, two_tracks};

fn answers(script: impl Fn(&str) -> String + Send + Sync + 'static) -> Upstream {
    Upstream::scripted(move |session| {
        while let Some(head) = session.request() {
            let path = head.split(' ').nth(1).unwrap();
            session.send(script(path));
        }
    })
}

/// The status and location that a raw request gets.
fn location(gateway: &Gateway, request: &str) -> (u16, Option<String>) {
    let mut client = gateway.connect();
    client.send(request);
    let answer = client.response();
    (answer.status, answer.header("location").map(str::to_owned))
}

#[test]
fn redirects_of_rules_lead_to_their_place() {
    let upstream = Upstream::track("stable");
    let gateway = Gateway::start(&two_tracks(
        upstream.address,
        upstream.address,
        0.0,
        "    rules:\n      - match: { path: /go }\n        redirect: { to: /, keep_path: true }\n      \
         - match: { path: /in }\n        redirect: { to: /inner, keep_path: true }\n      \
         - match: { path: / }\n        redirect: { to: 'https://www.example.com', keep_path: true }\n",
    ));
    for target in [
        "//evil.example/",
        "///evil.example/",
        "//go",
        "//go//evil.example",
        "////go//evil.example",
        "/\\evil.example",
        "/\\/evil.example",
        "/go//evil.example",
        "/./go",
        "/.//go",
        "/in//evil.example",
        "//in/\\evil.example",
        "/?//evil.example",
        "//evil.example@x/",
        "/@evil.example",
        "/:1@evil.example",
    ] {
        let (status, to) = location(&gateway, &format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n"));
        if status == 400 {
            continue;
        }
        let to = to.unwrap();
        let is_path = to.starts_with('/') && !to.starts_with("//") && !to.starts_with("/\\");
        assert!(is_path || to.starts_with("https://www.example.com/"), "{target}: {to}");
    }
    let star = location(&gateway, "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(
        matches!(&star, (400 | 404, None)) || star.1.as_deref() == Some("https://www.example.com"),
        "{star:?}"
    );
}

#[test]
fn redirects_to_https_lead_to_the_same_host() {
    let upstream = Upstream::track("stable");
    let service = |hosts: &str| {
        format!(
            "listeners: [{{ address: '127.0.0.1:0', redirect_https: 443 }}]\nservices:\n  - name: a\n    \
             {hosts}tracks: {{ stable: {{ endpoints: ['{}'] }} }}\n",
            upstream.address
        )
    };
    let gateway = Gateway::start(&service("hosts: [a.example, '*.b.example']\n    "));
    for (request, expected) in [
        ("GET /x?y HTTP/1.1\r\nhost: A.example:80\r\n\r\n", Some("https://a.example/x?y")),
        ("GET / HTTP/1.1\r\nhost: x.b.example\r\n\r\n", Some("https://x.b.example/")),
        (
            "GET //evil.example HTTP/1.1\r\nhost: a.example\r\n\r\n",
            Some("https://a.example//evil.example"),
        ),
        ("GET http://a.example/x HTTP/1.1\r\nhost: a.example\r\n\r\n", Some("https://a.example/x")),
        ("OPTIONS * HTTP/1.1\r\nhost: a.example\r\n\r\n", Some("https://a.example")),
        ("GET http://evil.example/x HTTP/1.1\r\nhost: a.example\r\n\r\n", None),
        ("GET http://a.example/x HTTP/1.1\r\nhost: evil.example\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nhost: evil.example\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nhost: a.example.evil.example\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nhost: a.example@evil.example\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nhost:\r\n\r\n", None),
        ("GET / HTTP/1.0\r\n\r\n", None),
        ("CONNECT a.example:443 HTTP/1.1\r\nhost: a.example:443\r\n\r\n", None),
    ] {
        let (status, to) = location(&gateway, request);
        assert_eq!(to.as_deref(), expected, "{request:?}");
        assert!(if expected.is_some() { status == 308 } else { status >= 400 }, "{request:?}");
    }
    // A service without hosts has every one; still there are not two.
    let gateway = Gateway::start(&service(""));
    let two = "GET http://evil.example/ HTTP/1.1\r\nhost: a.example\r\n\r\n";
    assert_eq!(location(&gateway, two), (400, None));
    let (_, to) = location(&gateway, "GET / HTTP/1.1\r\nhost: any.example\r\n\r\n");
    assert_eq!(to.as_deref(), Some("https://any.example/"));
}

#[test]
fn replies_of_our_own_are_dated_and_405_says_what_is_allowed() {
    let refusing = Upstream::refusing();
    let gateway = Gateway::start(&two_tracks(
        refusing,
        refusing,
        0.0,
        "    rules:\n      - match: { path: /move }\n        redirect: { to: /x }\n      \
         - match: { path: /say }\n        respond: { status: 200, body: x }\n",
    ));
    for (status, request) in [
        (502, "GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
        (308, "GET /move HTTP/1.1\r\nhost: a\r\n\r\n"),
        (200, "GET /say HTTP/1.1\r\nhost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (405, "CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n"),
    ] {
        let mut client = gateway.connect();
        client.send(request);
        let answer = client.response();
        assert_eq!(answer.status, status, "{request}");
        let date = answer.header("date").unwrap();
        assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
        assert_eq!(answer.headers.iter().filter(|(name, _)| name == "date").count(), 1);
        assert_eq!(answer.header("allow").is_some(), status == 405);
    }
    let mut admin = Client::connect(gateway.admin);
    admin.send("DELETE /metrics HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
    let answer = admin.response();
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn answers_that_are_not_passed_on_are_told_apart() {
    let upstream = answers(|path| {
        let fields = match path {
            "/many" => "a: b\r\n".repeat(200),
            "/large" => format!("a: {}\r\n", "b".repeat(70_000)),
            "/lengths" => "content-length: 2\r\ncontent-length: 2\r\n".to_owned(),
            "/coding" => "transfer-encoding: gzip\r\n".to_owned(),
            "/name" => "a b: c\r\n".to_owned(),
            "/chunk" => "transfer-encoding: chunked\r\n\r\nx".to_owned(),
            "/interim" => return "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(20),
            "/switch" => return "HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned(),
            _ => return "\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned(),
        };
        format!("HTTP/1.1 200 OK\r\n{fields}\r\nok")
    });
    let config = two_tracks(upstream.address, upstream.address, 0.0, "");
    let gateway = Gateway::start(&format!("limits: {{ head: 64KiB, headers: 128 }}\n{config}"));
    let mut reasons = Vec::new();
    for (path, cause) in [
        ("/many", "too_many_fields"),
        ("/large", "head_too_large"),
        ("/lengths", "content_length"),
        ("/coding", "transfer_encoding"),
        ("/name", "malformed_head"),
        ("/chunk", "chunk"),
        ("/interim", "interim"),
        ("/switch", "switch"),
    ] {
        let answer = gateway.connect().get(path, "");
        assert_eq!(answer.status, 502, "{path}");
        reasons.push(answer.header("splitway-error").unwrap().to_owned());
        let label = format!("cause=\"{cause}\"");
        let refused = gateway.metric("splitway_answers_refused_total", &[&label]);
        assert_eq!(refused, 1.0, "{path}");
    }
    gateway.await_line(0, "an answer is not passed on");
    let before = reasons.len();
    reasons.sort();
    reasons.dedup();
    assert_eq!(reasons.len(), before, "each has a reason of its own: {reasons:?}");
    assert_eq!(gateway.connect().get("/", "").text(), "ok", "empty lines ahead are skipped");
}

#[test]
fn lifetimes_of_streams_are_no_durations() {
    let upstream = Upstream::scripted(|session| {
        while let Some(head) = session.request() {
            if head.contains("/plain") {
                session.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                continue;
            }
            session.send(if head.contains("/tunnel") {
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"
            } else {
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n"
            });
            session.rest();
            return;
        }
    });
    let gateway = Gateway::start(&two_tracks(upstream.address, upstream.address, 0.0, ""));
    gateway.connect().get("/plain", "");
    let upgrade = "connection: upgrade\r\nupgrade: x\r\n";
    for (path, more, count) in [("/tunnel", upgrade, 1.0), ("/events", "", 2.0)] {
        let mut client = gateway.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n{more}\r\n"));
        assert!(matches!(client.head().status, 101 | 200));
        // Long enough to be told from the way to the head.
        std::thread::sleep(std::time::Duration::from_millis(1_500));
        drop(client);
        upstream.close_connections();
        gateway
            .await_metric("splitway_streams_total", &["track=\"stable\""], |ended| ended == count);
    }
    let seconds = |name: &str| gateway.metric(name, &["track=\"stable\""]);
    assert!(seconds("splitway_stream_seconds_total") >= 2.5);
    assert!(seconds("http_request_duration_seconds_sum") < 2.5);
    assert_eq!(seconds("http_request_duration_seconds_count"), 3.0);
}
