//! Who may say what in a request's head: strangers, trusted proxies, and spellings of either.

use std::path::Path;

use crate::support::{Gateway, Upstream, two_tracks};

/// A server that answers with the head that it got.
fn echo() -> Upstream {
    Upstream::scripted(|session| {
        while let Some(head) = session.request() {
            let length = head.len();
            session.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{head}"));
        }
    })
}

fn gateway(upstream: &Upstream, top: &str, more: &str) -> Gateway {
    let file = two_tracks(upstream.address, upstream.address, 0.0, more);
    Gateway::start(&format!("{top}{file}"))
}

/// Fields by which servers go when they ask who the client is and how it came.
const TOLD: [&str; 29] = [
    "Forwarded",
    "X-Forwarded",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Ssl",
    "X-Forwarded-Scheme",
    "X-Forwarded-Server",
    "X-Forwarded-Protocol",
    "X-Forwarded-User",
    "X-Forwarded-Client-Cert",
    "X-Real-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "X-Original-URL",
    "X-Original-Forwarded-For",
    "X-Rewrite-URL",
    "X-Scheme",
    "X-Url-Scheme",
    "Front-End-Https",
    "True-Client-IP",
    "CF-Connecting-IP",
    "Fastly-Client-IP",
    "X-Envoy-External-Address",
    "X-Splitway-Mirror",
    "Client-Cert",
    "Client-Cert-Chain",
    "SSL-Client-Verify",
    "X-SSL-Client-CN",
    "X-Client-Cert",
];

#[test]
fn what_proxies_tell_is_kept_from_trusted_ones_only() {
    let upstream = echo();
    let all: String = TOLD.iter().map(|name| format!("{name}: 6.6.6.6\r\n")).collect();
    let ours = "X-Client-Certificate-Subject: 6.6.6.6\r\nx-client-certificate-new: 6.6.6.6\r\n\
        Proxy: http://6.6.6.6\r\n";
    for (trusted, kept) in [("10.0.0.0/8", 0), ("127.0.0.0/8", TOLD.len())] {
        let gateway = gateway(&upstream, &format!("trusted_proxies: [{trusted}]\n"), "");
        let text = gateway.connect().get("/", &format!("{all}{ours}x-mine: 1\r\n")).text();
        assert_eq!(text.matches("6.6.6.6").count(), kept, "{trusted}: {text}");
        assert!(text.contains("x-mine: 1"), "{text}");
        // Nominating what a trusted proxy says does not take it away.
        let text = gateway.connect().get("/", &format!("connection: x-real-ip\r\n{all}")).text();
        assert_eq!(text.contains("X-Real-IP"), kept > 0, "{text}");
    }
}

#[test]
fn names_in_another_spelling_are_not_passed_on() {
    let upstream = echo();
    let more = "    sticky: { header: x-user-id }\n    rate_limit: { per_second: 1000, header: x-api-key }\n    \
        balance: { by: key, header: x-shard }\n    request_id: true\n    headers: { request: { set: { \
        x-authenticated: 'no' }, add: { x_more: ours }, remove: [x-internal] } }\n    rules:\n      - match: { \
        headers: { x-user-group: beta } }\n        from: [10.0.0.0/8]\n        track: canary\n      - match: { \
        headers: { x-deny: { present: true } } }\n        respond: { status: 403 }\n      - match: { path: / }\n        \
        headers: { request: { remove: [x-secret] } }\n";
    for trusted in ["", "trusted_proxies: [127.0.0.0/8]\n"] {
        let gateway = gateway(&upstream, trusted, more);
        let mut client = gateway.connect();
        for name in [
            "x_user_group",
            "X-User_Group",
            "X.User.Group",
            "x_authenticated",
            "X_Internal",
            "x-secret_",
            "x_secret",
            "x_deny",
            "x_user-id",
            "x_api_key",
            "x_shard",
            "x_request_id",
            "X-More",
            "x_forwarded_for",
            "X_Forwarded-Proto",
            "x_forwarded_host",
            "x_forwarded_port",
            "x_real_ip",
            "x_client_certificate_subject",
            "ssl_client_verify",
            "x_splitway_mirror",
            "content_length",
            "transfer_encoding",
            "keep_alive",
            "Proxy",
            "PROXY",
        ] {
            let text = client
                .get("/", &format!("x-a_b: fine\r\n{name}: forged\r\nuser_agent: fine\r\n"))
                .text();
            let is_passed = text.contains("forged");
            // What only looks like one of them is nobody's but the client's.
            assert_eq!(is_passed, name == "x-secret_", "{name}: {text}");
            assert_eq!(text.matches("fine").count(), 2, "{name}: {text}");
        }
        // A name that is configured with a `_` is that field.
        let text = client.get("/", "x_more: theirs\r\n").text();
        assert!(text.contains("x_more: theirs") && text.contains("x_more: ours"), "{text}");
    }
}

/// What a client may have written, and behind it what the balancer in front saw.
const FORWARDED: [(&str, &str); 16] = [
    ("203.0.113.5", "203.0.113.5"),
    ("10.9.9.9, 203.0.113.5", "203.0.113.5"),
    ("x, 203.0.113.5", "203.0.113.5"),
    ("unknown, 203.0.113.5", "203.0.113.5"),
    ("_hidden, 203.0.113.5", "203.0.113.5"),
    ("1.2.3.4:99, 203.0.113.5:4711", "203.0.113.5"),
    ("[2001:db8::1], 203.0.113.5", "203.0.113.5"),
    ("[2001:db8::1]:443", "2001:db8::1"),
    ("10.0.0.9\r\nx-forwarded-for: 203.0.113.5", "203.0.113.5"),
    ("\u{ff}, 203.0.113.5, 127.0.0.9", "203.0.113.5"),
    ("unknown", "unknown"),
    ("_hidden, 127.0.0.9", "unknown"),
    ("10.0.0.9, fe80::1%eth0", "unknown"),
    ("10.0.0.9\r\nx-forwarded-for:", "unknown"),
    ("10.0.0.9, \u{ff}", "unknown"),
    ("10.0.0.9, 10.0.0.9:http", "unknown"),
];

#[test]
fn nobody_gets_in_by_what_cannot_be_read() {
    let upstream = echo();
    let more = "    echo_track: true\n    rules:\n      - match: { path: /denied, not_source: [127.0.0.0/8, \
        10.0.0.0/8] }\n        respond: { status: 403 }\n      - match: { path: /inner, source: [127.0.0.0/8, \
        10.0.0.0/8] }\n        respond: { status: 204 }\n      - match: { headers: { canary: 'true' } }\n        \
        from: [127.0.0.0/8, 10.0.0.0/8]\n        track: canary\n";
    let top = "trusted_proxies: [127.0.0.0/8]\naccess: '{client} {path}'\n";
    let mut gateway = gateway(&upstream, top, more);
    let mut client = gateway.connect();
    for (list, _) in FORWARDED {
        let fields = format!("canary: true\r\nx-forwarded-for: {list}\r\n");
        let answer = client.get("/", &fields);
        assert_eq!(answer.header("x-splitway-track"), Some("stable"), "{list}");
        assert!(!answer.text().contains("canary"), "{list}");
        assert_eq!(client.get("/denied", &fields).status, 403, "{list}");
        assert_eq!(client.get("/inner", &fields).status, 200, "{list}");
    }
    for inner in ["10.9.9.9", "127.0.0.9", "x, 10.9.9.9", "10.9.9.9:80", "::ffff:10.9.9.9"] {
        let fields = format!("canary: true\r\nx-forwarded-for: {inner}\r\n");
        let answer = client.get("/", &fields);
        assert_eq!(answer.header("x-splitway-track"), Some("canary"), "{inner}");
        assert_eq!(client.get("/denied", &fields).status, 200, "{inner}");
        assert_eq!(client.get("/inner", &fields).status, 204, "{inner}");
    }
    let unknown = 3 * FORWARDED.iter().filter(|(_, client)| *client == "unknown").count();
    assert_eq!(gateway.metric("splitway_downstream_unknown_sources_total", &[]), unknown as f64);
    drop(client);
    gateway.signal("TERM");
    gateway.wait();
    let output = gateway.output();
    let logged: Vec<&str> = output.lines().filter_map(|line| line.strip_suffix(" /")).collect();
    assert_eq!(logged[..FORWARDED.len()], FORWARDED.map(|(_, client)| client));
}

#[test]
fn unknown_clients_are_limited_by_their_peer() {
    let upstream = echo();
    let more = "    rate_limit: { per_second: 1, burst: 4, header: x-key }\n";
    let gateway = gateway(&upstream, "trusted_proxies: [127.0.0.0/8]\n", more);
    let mut client = gateway.connect();
    let mut ask = |list: &str, key: &str| {
        client.get("/", &format!("x-forwarded-for: {list}\r\n{key}")).status
    };
    // However the word is spelled, and whether or not an empty key is sent, it is the one peer.
    let words = ["unknown", "_a", "_b", "x", "", "fe80::1%1", "1.1.1.1:x", "y"];
    let answers = (0..15).flat_map(|_| words).map(|word| ask(word, "x-key: \r\n"));
    let limited = answers.filter(|status| *status == 429).count();
    assert!(limited > 0, "120 requests are more than 4 at once and 1 per second");
    assert_eq!(ask("203.0.113.5", ""), 200, "an address of its own");
    assert_eq!(ask("_a", "x-key: mine\r\n"), 200, "a key of its own");
}

#[test]
fn however_many_rules_guard_a_service_all_its_changes_apply() {
    let upstream = echo();
    for count in [6, 7, 8, 9, 12, 40] {
        let guards: String = (0..count)
            .map(|index| {
                format!(
                    "      - match: {{ headers: {{ x-g{index}: '1' }} }}\n        from: [10.{index}.0.0/16]\n        \
                     track: canary\n"
                )
            })
            .collect();
        let more = format!(
            "    headers: {{ request: {{ remove: [x-internal], set: {{ x-authenticated: 'no' }} }}, \
             response: {{ set: {{ x-answer: ours }} }} }}\n    rules:\n{guards}      - match: {{ path: / }}\n        \
             headers: {{ request: {{ remove: [x-secret], set: {{ x-rule: 'yes' }} }} }}\n"
        );
        let gateway = gateway(&upstream, "", &more);
        let fields: String = (0..count).map(|index| format!("x-g{index}: 1\r\n")).collect();
        let forged = "x-internal: forged\r\nx-secret: forged\r\nx-authenticated: forged\r\n";
        let text = gateway.connect().get("/", &format!("{fields}{forged}")).text();
        assert!(!text.contains("forged") && !text.contains("x-g"), "{count}: {text}");
        assert!(text.contains("x-authenticated: no\r\n") && text.contains("x-rule: yes\r\n"));
    }
}

#[test]
fn an_empty_value_is_no_key() {
    let upstream = echo();
    let more = "    request_id: true\n    sticky: { cookie: seat }\n";
    let gateway = gateway(&upstream, "", more);
    let mut client = gateway.connect();
    let answer = client.get("/", "cookie: seat=\r\nx-request-id:\r\n");
    assert!(answer.header("set-cookie").is_some_and(|cookie| cookie.starts_with("seat=")));
    let text = answer.text();
    let ids: Vec<&str> =
        text.lines().filter(|line| line.to_lowercase().starts_with("x-request-id")).collect();
    assert!(matches!(ids[..], [id] if id.len() > 30), "{text}");
}

#[test]
fn the_real_client_can_be_set() {
    let upstream = echo();
    let more = "    headers: { request: { set: { X-Real-IP: '{client}', x-forwarded-for: '{client}', \
        x-forwarded-scheme: '{scheme}' }, add: { x-url: '{scheme}://{host}/{id}?{}&{client' } } }\n    rules:\n      - match: \
        { path: /rule }\n        headers: { request: { set: { x-from: 'ip={client};' } } }\n";
    let gateway = gateway(&upstream, "trusted_proxies: [127.0.0.0/8]\n", more);
    let mut client = gateway.connect();
    for (told, address, scheme) in [
        ("", "127.0.0.1", "http"),
        (
            "x-forwarded-for: x, 203.0.113.5:80\r\nx-forwarded-proto: https\r\n",
            "203.0.113.5",
            "https",
        ),
        ("x-forwarded-for: [2001:db8::1]\r\nx-forwarded-proto: gopher\r\n", "2001:db8::1", "http"),
        ("x-forwarded-for: unknown\r\n", "unknown", "http"),
    ] {
        let text = client.get("/rule", &format!("x-real-ip: 6.6.6.6\r\n{told}")).text();
        for line in [
            format!("\r\nx-real-ip: {address}\r\n"),
            format!("\r\nx-forwarded-for: {address}\r\n"),
            format!("\r\nx-forwarded-scheme: {scheme}\r\n"),
            format!("\r\nx-url: {scheme}://test/{{id}}?{{}}&{{client\r\n"),
            format!("\r\nx-from: ip={address};\r\n"),
        ] {
            assert!(text.contains(&line), "{line:?} in {text}");
        }
        let lower = text.to_lowercase();
        assert_eq!(lower.matches("\r\nx-real-ip:").count(), 1, "{text}");
        assert_eq!(lower.matches("\r\nx-forwarded-for:").count(), 1, "{text}");
    }
}

#[test]
fn what_cannot_be_guarded_or_filled_in_is_told_at_check() {
    let rule = |name: &str, from: &str| {
        format!("    rules: [ {{ match: {{ headers: {{ {name}: a }} }}, {from}track: canary }} ]\n")
    };
    let address = "127.0.0.1:1".parse().unwrap();
    let faults = |more: &str| {
        let text = format!(
            "listeners: [ {{ address: '127.0.0.1:0' }} ]\n{}",
            two_tracks(address, address, 0.0, more)
        );
        let parsed = splitway::config::parse(Path::new("a.yaml"), &text);
        parsed.err().map_or_else(String::new, |faults| faults.to_string())
    };
    for name in ["cookie", "Cookie", "host", "authorization", "content-length", "user-agent", "te"]
    {
        let told = faults(&rule(name, "from: [10.0.0.0/8], "));
        assert!(
            told.contains("rules[0].match[0].headers: ") && told.contains("would be taken"),
            "{told}"
        );
        assert!(told.contains("`source` in the match"), "{told}");
        assert_eq!(told.contains("under `cookies`"), name.eq_ignore_ascii_case("cookie"), "{told}");
        assert_eq!(faults(&rule(name, "")), "", "{name}");
    }
    assert_eq!(faults(&rule("canary", "from: [10.0.0.0/8], ")), "");
    let set = |way: &str, value: &str| {
        format!("    headers: {{ {way}: {{ set: {{ x-a: '{value}' }} }} }}\n")
    };
    for (way, value, expected) in [
        ("request", "{cleint}", "`{cleint}` is no placeholder; known: {client}, {host}, {scheme}"),
        ("request", "{remote_addr}", "is no placeholder"),
        ("request", "{Client}", "is no placeholder"),
        ("request", "{client}", ""),
        ("request", "/users/{id}", ""),
        ("request", "{\"a\": 1}", ""),
        ("request", "{}", ""),
        ("response", "{id}", ""),
        ("response", "a {client}", "is filled in for requests only"),
    ] {
        let told = faults(&set(way, value));
        assert!(
            told.contains(expected) && told.is_empty() == expected.is_empty(),
            "{value}: {told}"
        );
    }
}
