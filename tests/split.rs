//! Every request reaches stable or canary, exactly as told.

use std::collections::HashMap;
use std::net::SocketAddr;

use splitway::route::{Sticky, StickyKey, sticky};

use crate::support::{Client, Gateway, Turn, Upstream, two_tracks};

/// Two-sided 99.99 % of the normal distribution.
const Z: f64 = 3.891;

/// Sends `count` requests with `headers` over a few connections; answers by track.
fn count_tracks(gateway: &Gateway, count: usize, headers: &str) -> HashMap<String, usize> {
    const BATCH: usize = 100;
    let request = format!("GET / HTTP/1.1\r\nhost: test\r\n{headers}\r\n");
    let batch = request.repeat(BATCH);
    let one = |_| {
        let mut client = gateway.connect();
        let mut tracks = HashMap::new();
        for _ in 0..count / BATCH / 4 {
            client.send(&batch);
            for _ in 0..BATCH {
                *tracks.entry(client.response().track().to_owned()).or_insert(0) += 1;
            }
        }
        tracks
    };
    let mut sum = HashMap::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|index| scope.spawn(move || one(index))).collect();
        for thread in threads {
            for (track, count) in thread.join().unwrap() {
                *sum.entry(track).or_insert(0) += count;
            }
        }
    });
    sum
}

fn assert_share(found: usize, total: usize, share: f64) {
    let (total, expected) = (total as f64, total as f64 * share);
    let bound = Z * (total * share * (1.0 - share)).sqrt();
    let off = (found as f64 - expected).abs();
    assert!(off <= bound, "{found} of {total}, expected {expected} within {bound}");
}

#[test]
fn two_hundred_thousand_requests_split_five_to_ninety_five() {
    let _turn = Turn::take();
    let (stable, canary) = (Upstream::track("stable"), Upstream::track("canary"));
    let gateway = Gateway::start(&two_tracks(stable.address, canary.address, 5.0, ""));
    let tracks = count_tracks(&gateway, 200_000, "");
    assert_eq!(tracks["stable"] + tracks["canary"], 200_000);
    assert_share(tracks["canary"], 200_000, 0.05);
    let counted = gateway.metric("splitway_assignments_total", &["canary", "weight"]);
    assert_eq!(counted as usize, tracks["canary"]);
    let labels = ["app=\"api\"", "status=\"200\""];
    gateway.await_metric("http_requests_total", &labels, |count| count == 200_000.0);
}

#[test]
fn two_hundred_thousand_requests_split_over_three_tracks() {
    let _turn = Turn::take();
    let tracks = ["stable", "canary", "shadow"].map(Upstream::track);
    let gateway = Gateway::start(&format!(
        "services:\n  - name: api\n    tracks:\n      stable: {{ endpoints: ['{}'] }}\n      canary: \
         {{ endpoints: ['{}'] }}\n      shadow: {{ endpoints: ['{}'] }}\n    weights: {{ stable: \
         92.75, canary: 5, shadow: 2.25 }}\n",
        tracks[0].address, tracks[1].address, tracks[2].address
    ));
    let tracks = count_tracks(&gateway, 200_000, "");
    assert_share(tracks["stable"], 200_000, 0.9275);
    assert_share(tracks["canary"], 200_000, 0.05);
    assert_share(tracks["shadow"], 200_000, 0.0225);
}

#[test]
fn the_three_header_rules_reach_the_canary_always() {
    let (stable, canary) = (Upstream::track("stable"), Upstream::track("canary"));
    let file = include_str!("../config/canary.yaml");
    let gateway = Gateway::start(&services_of(file, stable.address, canary.address));
    for rule in ["canary: true\r\n", "x-user-group: beta\r\n", "X-Region: us-west-1\r\n"] {
        let tracks = count_tracks(&gateway, 2_000, rule);
        assert_eq!(tracks, HashMap::from([("canary".to_owned(), 2_000)]), "{rule}");
    }
    for no_rule in ["canary: false\r\n", "x-user-group: alpha\r\n", "x-region: us-west-10\r\n"] {
        assert!(count_tracks(&gateway, 2_000, no_rule)["stable"] > 1_500, "{no_rule}");
    }
    gateway
        .await_metric("splitway_assignments_total", &["reason=\"rule\""], |value| value == 6_000.0);
}

/// The services of an example file, at other endpoints.
fn services_of(file: &str, stable: SocketAddr, canary: SocketAddr) -> String {
    let services = &file[file.find("services:").unwrap()..];
    let services = services.replace("127.0.0.1:8001", &stable.to_string());
    services.replace("127.0.0.1:8002", &canary.to_string())
}

/// What every replica must compute for a user at a canary weight of `percent`.
fn expected_track(key: &str, percent: f64) -> &'static str {
    let sticky = Sticky {
        key: StickyKey::Header("x-user-id".into()),
        salt: sticky::salt("api", "v2"),
        secret: None,
    };
    let bucket = sticky::bucket(sticky.fingerprint(key.as_bytes()));
    if f64::from(bucket) < percent * 100.0 { "canary" } else { "stable" }
}

#[test]
fn sticky_users_keep_their_track_and_only_move_forward() {
    let (stable, canary) = (Upstream::track("stable"), Upstream::track("canary"));
    let file = |weight| {
        let sticky = "    sticky: { header: x-user-id }\n";
        two_tracks(stable.address, canary.address, weight, sticky)
    };
    let gateway = Gateway::start(&file(0.0));
    let mut client = gateway.connect();
    for weight in [5.0, 10.0, 37.5] {
        gateway.edit(&file(weight));
        for user in 0..2_000 {
            let answer = client.get("/", &format!("x-user-id: user-{user}\r\n"));
            assert_eq!(answer.track(), expected_track(&format!("user-{user}"), weight), "{user}");
        }
    }
    gateway.await_metric("splitway_assignments_total", &["reason=\"sticky\""], |value| {
        value == 6_000.0
    });
    // A request without a key is drawn afresh.
    let tracks: Vec<String> = (0..200).map(|_| client.get("/", "").track().to_owned()).collect();
    assert!(tracks.iter().any(|track| track == "stable"));
    assert!(tracks.iter().any(|track| track == "canary"));
}

#[test]
fn a_sticky_cookie_is_set_once_and_holds_no_track() {
    let (stable, canary) = (Upstream::track("stable"), Upstream::track("canary"));
    let sticky = "    sticky: { cookie: split, max_age: 1h }\n";
    let gateway = Gateway::start(&two_tracks(stable.address, canary.address, 50.0, sticky));
    let mut seen = HashMap::new();
    for _ in 0..40 {
        let mut client: Client = gateway.connect();
        let first = client.get("/", "");
        let cookie = first.header("set-cookie").unwrap().to_owned();
        assert!(cookie.contains("; Max-Age=3600") && cookie.contains("HttpOnly"), "{cookie}");
        let pair = cookie.split(';').next().unwrap();
        let key = pair.strip_prefix("split=").unwrap();
        assert!(key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
        for _ in 0..5 {
            let next = client.get("/", &format!("cookie: other=1; {pair}\r\n"));
            assert_eq!(next.track(), first.track());
            assert_eq!(next.header("set-cookie"), None);
        }
        *seen.entry(first.track().to_owned()).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 2, "40 users at 50 % fall on both tracks");
}

#[test]
fn rules_match_on_everything_that_they_can() {
    let (stable, canary) = (Upstream::track("stable"), Upstream::track("canary"));
    let rules = r#"
    rules:
      - match: { cookies: { group: beta } }
        track: canary
      - match: { query: { preview: { present: true } } }
        track: canary
      - match: { method: [PUT, DELETE], path: /admin }
        track: canary
      - match: { headers: { user-agent: { regex: 'curl/[0-9.]+' }, x-skip: { not: { present: true } } } }
        track: canary
      - match: [{ headers: { a: { prefix: x- } } }, { source: 203.0.113.0/24 }]
        weights: { canary: 100 }
"#;
    let file = two_tracks(stable.address, canary.address, 0.0, rules);
    let gateway = Gateway::start(&format!("trusted_proxies: [127.0.0.1]\n{file}"));
    let mut client = gateway.connect();
    for (line, headers, track) in [
        ("GET /", "", "stable"),
        ("GET /", "cookie: a=b; group=beta\r\n", "canary"),
        ("GET /?x=1&preview", "", "canary"),
        ("PUT /admin/users", "", "canary"),
        ("PUT /administrator", "", "stable"),
        ("PUT /x/../admin/", "", "canary"),
        ("GET /admin", "", "stable"),
        ("GET /", "user-agent: curl/8.1.2\r\n", "canary"),
        ("GET /", "user-agent: curl/8.1.2\r\nx-skip: 1\r\n", "stable"),
        ("GET /", "user-agent: xcurl/8\r\n", "stable"),
        ("GET /", "a: x-1\r\n", "canary"),
        ("GET /", "x-forwarded-for: 203.0.113.9\r\n", "canary"),
        ("GET /", "x-forwarded-for: 203.0.113.9, 198.51.100.1\r\n", "stable"),
        ("GET /", "x-forwarded-for: 203.0.113.9, 127.0.0.1\r\n", "canary"),
    ] {
        client.send(format!("{line} HTTP/1.1\r\nhost: a\r\n{headers}\r\n"));
        assert_eq!(client.response().track(), track, "{line} {headers}");
    }
}

#[test]
fn the_most_specific_service_answers_and_others_never_see_the_request() {
    let names = ["any", "suffix", "exact", "path"];
    let upstreams = names.map(Upstream::track);
    let matches = [
        "",
        "hosts: ['*.example.com']",
        "hosts: [api.example.com]",
        "hosts: [api.example.com]\n    paths: [/v2]",
    ];
    let services: String = names
        .iter()
        .zip(&upstreams)
        .zip(matches)
        .map(|((name, upstream), matches)| {
            format!(
                "  - name: {name}\n    {matches}\n    tracks: {{ main: {{ endpoints: ['{}'] }} }}\n",
                upstream.address
            )
        })
        .skip(1)
        .collect();
    let gateway = Gateway::start(&format!("services:\n{services}"));
    let ask = |host: &str, path: &str| {
        let mut client = gateway.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        let response = client.response();
        if response.status == 404 { "404".to_owned() } else { response.track().to_owned() }
    };
    for (host, path, service) in [
        ("api.example.com", "/", "exact"),
        ("API.Example.com:8080", "/v2/x", "path"),
        ("api.example.com", "/v2x", "exact"),
        ("api.example.com", "/v1/../v2", "path"),
        ("www.example.com", "/v2", "suffix"),
        ("example.com", "/", "404"),
        ("evil.com", "/", "404"),
    ] {
        assert_eq!(ask(host, path), service, "{host}{path}");
    }
    assert_eq!(upstreams[0].connections(), 0);
    gateway
        .await_metric("splitway_downstream_refused_total", &["no_service"], |value| value == 2.0);
}

#[test]
fn an_exact_path_is_no_prefix() {
    let (stable, canary) = (Upstream::track("stable"), Upstream::track("canary"));
    let rules = "    rules:\n      - { match: { path: { exact: /new } }, track: canary }\n      \
                 - { match: { path: /tree }, track: canary }\n";
    let gateway = Gateway::start(&two_tracks(stable.address, canary.address, 0.0, rules));
    let mut client = gateway.connect();
    for (path, track) in [
        ("/new", "canary"),
        ("/new?a=1", "canary"),
        ("/new/", "stable"),
        ("/new/more", "stable"),
        ("/tree/more", "canary"),
        ("/trees", "stable"),
    ] {
        assert_eq!(client.get(path, "").track(), track, "{path}");
    }
}
