//! What changes in the heads that pass, and what rules answer themselves.

use crate::support::{Gateway, Upstream, two_tracks};

/// A server that answers with the head that it got, and two fields of its own.
fn echo() -> Upstream {
    Upstream::scripted(|session| {
        while let Some(head) = session.request() {
            let length = head.len();
            session.send(format!(
                "HTTP/1.1 200 OK\r\nserver: inner\r\nx-debug: secret\r\ncontent-length: \
                 {length}\r\n\r\n{head}"
            ));
        }
    })
}

fn gateway(upstream: &Upstream, more: &str) -> Gateway {
    Gateway::start(&two_tracks(upstream.address, upstream.address, 0.0, more))
}

#[test]
fn fields_are_set_added_and_removed_per_service_and_rule() {
    let upstream = echo();
    let gateway = gateway(
        &upstream,
        "    headers:\n      request: { set: { Host: inner.example, x-one: new }, add: { x-two: b }, \
         remove: [x-gone] }\n      response: { set: { server: splitway }, remove: [x-debug] }\n    \
         rules:\n      - match: { path: /rule }\n        headers: { request: { set: { x-rule: '1' } \
         }, response: { add: { x-rule: back } } }\n",
    );
    let mut client = gateway.connect();
    let answer = client.get("/", "x-one: old\r\nX-ONE: older\r\nx-two: a\r\nX-Gone: 1\r\n");
    let text = answer.text();
    for expected in [
        "\r\nhost: inner.example\r\n",
        "\r\nx-one: new\r\n",
        "\r\nx-two: a\r\n",
        "\r\nx-two: b\r\n",
    ] {
        assert_eq!(text.matches(expected).count(), 1, "{expected:?} in {text}");
    }
    assert!(
        !text.to_lowercase().contains("old") && !text.to_lowercase().contains("x-gone"),
        "{text}"
    );
    assert!(text.contains("x-forwarded-host: test\r\n") && !text.contains("x-rule"), "{text}");
    assert_eq!((answer.header("server"), answer.header("x-debug")), (Some("splitway"), None));
    let answer = client.get("/rule", "");
    assert!(answer.text().contains("\r\nx-rule: 1\r\n") && answer.text().contains("x-one: new"));
    assert_eq!(answer.header("x-rule"), Some("back"));
    // A rule that only changes something leaves the draw to the weights.
    assert_eq!(gateway.metric("splitway_assignments_total", &["reason=\"rule\""]), 0.0);
    assert_eq!(gateway.metric("splitway_assignments_total", &["reason=\"weight\""]), 2.0);
}

#[test]
fn paths_are_rewritten_and_places_redirected() {
    let upstream = echo();
    let gateway = gateway(
        &upstream,
        "    rules:\n      - match: { path: /api }\n        rewrite: { prefix: /api, to: /v2 }\n      \
         - match: { path: /moved }\n        redirect: { to: 'https://new.example', keep_path: true }\n      \
         - match: { path: /here }\n        redirect: { to: /there, status: 302 }\n      \
         - match: { path: /down }\n        respond: { status: 503, body: '<p>soon</p>', \
         content_type: text/html }\n      \
         - match: { method: OPTIONS }\n        \
         respond: { status: 204, headers: { Access-Control-Allow-Origin: '*' } }\n",
    );
    let mut client = gateway.connect();
    let line = |client: &mut crate::support::Client, path: &str| {
        client.get(path, "").text().lines().next().unwrap().to_owned()
    };
    assert_eq!(line(&mut client, "/api/x?q=1"), "GET /v2/x?q=1 HTTP/1.1");
    assert_eq!(line(&mut client, "/a/../api/x"), "GET /v2/x HTTP/1.1");
    assert_eq!(line(&mut client, "/apix"), "GET /apix HTTP/1.1");
    let asked = upstream.requests();
    let answer = client.get("/moved/x?q", "");
    let location = "https://new.example/moved/x?q";
    assert_eq!((answer.status, answer.header("location")), (308, Some(location)));
    let answer = client.get("/here", "");
    assert_eq!((answer.status, answer.header("location")), (302, Some("/there")));
    let answer = client.get("/down", "");
    assert_eq!((answer.status, answer.text().as_str()), (503, "<p>soon</p>"));
    assert_eq!(answer.header("content-type"), Some("text/html"));
    client.send("HEAD /down HTTP/1.1\r\nhost: a\r\n\r\nGET /here HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.head().header("content-length"), Some("11"));
    assert_eq!(client.response().status, 302, "no content follows a HEAD");
    // 204 has no content and names no length, so that the next answer is not taken for it.
    client.send("OPTIONS / HTTP/1.1\r\nhost: a\r\n\r\nGET /here HTTP/1.1\r\nhost: a\r\n\r\n");
    let answer = client.head();
    assert_eq!((answer.status, answer.header("content-length")), (204, None));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(client.response().status, 302);
    // What of a body was not read cannot be told from the next request.
    client.send("POST /down HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(client.response().header("connection"), Some("close"));
    assert_eq!(upstream.requests(), asked);
    assert_eq!(gateway.metric("splitway_direct_responses_total", &[]), 8.0);
}

#[test]
fn requests_are_given_an_id_and_a_trace_unless_they_have_them() {
    let upstream = echo();
    let more = "    request_id: true\n    traceparent: true\n    echo_track: true\n";
    let gateway = gateway(&upstream, more);
    let mut client = gateway.connect();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let answer = client.get("/", "");
        assert_eq!(answer.header("x-splitway-track"), Some("stable"));
        let text = answer.text();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name} in {text}")).to_owned()
        };
        let trace = value("traceparent: ");
        let parts: Vec<&str> = trace.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2]);
        assert!(trace.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'), "{trace}");
        let id = value("x-request-id: ");
        assert_eq!(id.len(), 32);
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1]);
    let given = "x-request-id: mine\r\ntraceparent: 00-1-2-00\r\n";
    let text = client.get("/", given).text();
    assert!(
        text.contains("\r\nx-request-id: mine\r\n")
            && text.contains("\r\ntraceparent: 00-1-2-00\r\n")
    );
    assert_eq!(text.matches("traceparent").count() + text.matches("x-request-id").count(), 2);
}

#[test]
fn routing_fields_are_believed_from_whom_they_may_come() {
    let upstream = echo();
    let more = |from: &str| {
        format!(
            "    echo_track: true\n    rules:\n      - match: {{ headers: {{ canary: 'true' }} }}\n        \
             from: [{from}]\n        track: canary\n"
        )
    };
    let gateway = gateway(&upstream, &more("127.0.0.0/8"));
    let mut client = gateway.connect();
    let answer = client.get("/", "canary: true\r\n");
    assert_eq!(answer.header("x-splitway-track"), Some("canary"));
    assert!(answer.text().contains("canary: true"));
    gateway.edit(&two_tracks(upstream.address, upstream.address, 0.0, &more("10.0.0.0/8")));
    let answer = client.get("/", "canary: true\r\n");
    assert_eq!(answer.header("x-splitway-track"), Some("stable"));
    assert!(!answer.text().contains("canary"), "nobody behind believes it either");
}

#[test]
fn what_a_client_says_of_its_certificate_tests_nothing() {
    let upstream = echo();
    let gateway = gateway(
        &upstream,
        "    rules:\n      - match: { headers: { x-client-certificate-subject: CN=admin } }\n        \
         respond: { status: 200, body: inside }\n",
    );
    let answer = gateway.connect().get("/", "X-Client-Certificate-Subject: CN=admin\r\n");
    assert!(answer.text().starts_with("GET / HTTP/1.1") && !answer.text().contains("CN=admin"));
}
