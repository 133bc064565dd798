//! Sticky cookies: nobody makes his own, and everybody who has one is known again.

use crate::support::{Gateway, Upstream, folder, two_tracks};

const SECRET: &str = "a-secret-of-all-replicas";

fn sticky(stable: &Upstream, canary: &Upstream, keys: &str) -> String {
    let more = format!("    sticky: {{ cookie: split{keys} }}\n");
    two_tracks(stable.address, canary.address, 50.0, &more)
}

/// The cookie that a user without one gets, as he sends it back.
fn fresh(gateway: &Gateway, headers: &str) -> (String, String) {
    let answer = gateway.connect().get("/", headers);
    let set = answer.header("set-cookie").expect("a cookie is set").to_owned();
    (set.split(';').next().unwrap().to_owned(), answer.track().to_owned())
}

/// The track of a user with `cookie`, and whether he got another one.
fn seen(gateway: &Gateway, cookie: &str) -> (String, bool) {
    let answer = gateway.connect().get("/", &format!("cookie: {cookie}\r\n"));
    (answer.track().to_owned(), answer.header("set-cookie").is_some())
}

#[test]
fn a_cookie_that_we_did_not_make_is_replaced() {
    let (stable, canary) = (Upstream::track("stable"), Upstream::track("canary"));
    let gateway = Gateway::start(&sticky(&stable, &canary, ""));
    let (pair, track) = fresh(&gateway, "");
    let value = pair.strip_prefix("split=").unwrap();
    let (key, tag) = value.split_at(32);
    let other = |text: &str| text.replace(&text[..1], if &text[..1] == "0" { "1" } else { "0" });
    for forged in [
        String::new(),
        "k1".into(),
        key.into(),
        other(key) + tag,
        key.to_owned() + &other(tag),
        value.to_uppercase() + "0",
        format!("{value}0"),
        "0".repeat(64),
        "0".repeat(4_000),
    ] {
        assert!(seen(&gateway, &format!("split={forged}")).1, "{forged}");
    }
    // What is forged is drawn anew each time: nobody stays where he wants to be.
    let forged = format!("split={}", "a".repeat(64));
    let tracks: Vec<String> = (0..64).map(|_| seen(&gateway, &forged).0).collect();
    assert!(tracks.contains(&"stable".into()) && tracks.contains(&"canary".into()));
    // The first of ours wins, whatever stands before it; but not behind a heap of others.
    for before in ["split=; ", "split=k1; ", &format!("{forged}; "), "a=b; "] {
        assert_eq!(seen(&gateway, &format!("{before}{pair}")), (track.clone(), false), "{before}");
    }
    let heap = format!("{forged}; ").repeat(60);
    assert!(seen(&gateway, &format!("{heap}{pair}")).1);
}

#[test]
fn a_cookie_that_came_by_https_goes_back_by_https_alone() {
    let (stable, canary) = (Upstream::track("stable"), Upstream::track("canary"));
    let file = sticky(&stable, &canary, "");
    let gateway = Gateway::start(&format!("trusted_proxies: [127.0.0.2]\n{file}"));
    let flags = |headers: &str| {
        let answer = gateway.connect().get("/", headers);
        let set = answer.header("set-cookie").unwrap();
        assert!(set.contains("; HttpOnly") && set.contains("; SameSite=Lax"), "{set}");
        set.contains("; Secure")
    };
    let told = "x-forwarded-proto: https\r\n";
    assert!(!flags("") && !flags(told), "a stranger's word is none");
    gateway.edit(&format!("trusted_proxies: [127.0.0.1]\n{file}"));
    assert!(flags(told) && !flags("x-forwarded-proto: http\r\n"));
}

#[test]
fn users_are_known_at_every_replica_that_has_the_secret() {
    let (stable, canary) = (Upstream::track("stable"), Upstream::track("canary"));
    let start = |keys: &str| Gateway::start(&sticky(&stable, &canary, keys));
    let here = start(&format!(", secret: {SECRET}"));
    let in_file = folder();
    let file = in_file.path().join("secret");
    std::fs::write(&file, format!("a-newer-secret-of-all\n{SECRET}\n")).unwrap();
    let replicas = [
        start(&format!(", secret: {SECRET}")),
        start(&format!(", secret_file: '{}'", file.display())),
        start(&format!(", salt: api, secret: {SECRET}")),
    ];
    let salted = [start(", salt: old-and-secret"), start(", salt: old-and-secret")];
    let stranger = start("");
    for _ in 0..20 {
        let (pair, track) = fresh(&here, "");
        for replica in &replicas {
            assert_eq!(seen(replica, &pair), (track.clone(), false));
        }
        assert!(seen(&stranger, &pair).1 && seen(&salted[0], &pair).1);
        let (pair, track) = fresh(&salted[0], "");
        assert_eq!(seen(&salted[1], &pair), (track, false));
    }
    let (pair, _) = fresh(&replicas[1], "");
    assert!(seen(&here, &pair).1, "the first of a file signs");
}

#[test]
fn without_a_secret_users_are_known_after_a_restart_and_a_handover() {
    let (stable, canary) = (Upstream::track("stable"), Upstream::track("canary"));
    let file = sticky(&stable, &canary, "");
    let gateway = Gateway::start(&file);
    let users: Vec<_> = (0..10).map(|_| fresh(&gateway, "")).collect();
    let are_known = |gateway: &Gateway, users: &[(String, String)]| {
        let known =
            |(pair, track): &(String, String)| seen(gateway, pair) == (track.clone(), false);
        users.iter().all(known)
    };
    let mut gateway = gateway.crash_and_restart(&file);
    assert!(are_known(&gateway, &users));
    gateway.hand_over();
    assert!(are_known(&gateway, &users));
    // Kept nowhere, a successor is told of it all the same, and its own; and nobody else is.
    let file = format!("state: memory\n{file}");
    let mut gateway = Gateway::start(&file);
    gateway.await_line(0, "set sticky.secret");
    assert!(!are_known(&gateway, &users));
    let users: Vec<_> = (0..10).map(|_| fresh(&gateway, "")).collect();
    for _ in 0..2 {
        gateway.hand_over();
        assert!(are_known(&gateway, &users));
    }
}

#[test]
fn services_that_share_a_cookie_believe_each_other() {
    let upstream = Upstream::track("stable");
    let service = |name: &str, keys: &str| {
        format!(
            "  - name: {name}\n    paths: [/{name}]\n    sticky: {{ cookie: split{keys} }}\n    tracks: \
             {{ stable: {{ endpoints: ['{}'] }} }}\n",
            upstream.address
        )
    };
    let services = service("a", "")
        + &service("b", ", salt: pepper")
        + &service("c", ", secret: sixteen-characters");
    let gateway = Gateway::start(&format!("services:\n{services}"));
    let mut client = gateway.connect();
    for first in ["/a", "/b", "/c"] {
        let answer = client.get(first, "");
        let pair = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        for other in ["/a", "/b", "/c"] {
            let answer = client.get(other, &format!("cookie: {pair}\r\n"));
            assert_eq!(answer.header("set-cookie"), None, "{first} {other}");
        }
    }
}
