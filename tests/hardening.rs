//! What the page on hardening says and no other test holds.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Gateway, Tested, Upstream, folder, two_tracks};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root(path)).unwrap()
}

#[test]
fn nothing_that_a_client_says_becomes_a_label() {
    let upstream = Upstream::track("stable");
    let gateway = Gateway::start(&two_tracks(upstream.address, upstream.address, 0.0, ""));
    let mut client = gateway.connect();
    let mut ask = |method: &str, path: &str, fields: &str| {
        client.send(format!("{method} {path} HTTP/1.1\r\n{fields}\r\n"));
        client.response().status
    };
    assert_eq!(ask("MARKED", "/marked?marked", "host: marked\r\nmarked: marked\r\n"), 200);
    assert_eq!(ask("GET", "/", "host: marked\r\nuser-agent: marked\r\ncookie: marked=1\r\n"), 200);
    gateway.await_metric("http_requests_total", &[], |count| count == 2.0);
    for path in ["/metrics", "/healthz", "/readyz"] {
        let page = gateway.admin_get(path);
        assert_eq!(page.status, 200);
        assert!(!page.text().to_ascii_lowercase().contains("marked"), "{path}");
    }
}

#[test]
fn the_journal_is_all_that_is_written() {
    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    let rollout = "    rollout: { stages: [5, 100], min: 10m }\n";
    let gateway = Gateway::start(&two_tracks(stable.address(), canary.address(), 0.0, rollout));
    gateway.await_phase("progressing");
    assert_eq!(gateway.connect().get("/", "").status, 200);
    assert_eq!(gateway.command("/api/v1/services/api/pause", "").0, 200);
    let process = PathBuf::from(format!("/proc/{}", gateway.pid()));
    let mut written = Vec::new();
    for entry in std::fs::read_dir(process.join("fd")).unwrap() {
        let name = entry.unwrap().file_name();
        let Ok(target) = std::fs::read_link(process.join("fd").join(&name)) else { continue };
        let Ok(info) = std::fs::read_to_string(process.join("fdinfo").join(&name)) else {
            continue;
        };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
        // The lowest bits are O_WRONLY and O_RDWR.
        let is_file =
            std::fs::metadata(process.join("fd").join(&name)).is_ok_and(|at| at.is_file());
        if flags & 3 != 0 && is_file {
            written.push(target);
        }
    }
    assert_eq!(written, [gateway.folder().canonicalize().unwrap().join("state/journal.jsonl")]);
    let files = std::fs::read_dir(gateway.folder()).unwrap();
    let mut files: Vec<_> = files.map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["splitway.yaml", "state"]);
}

#[test]
fn the_package_forbids_unsafe_code() {
    assert!(text("Cargo.toml").contains("\nunsafe_code = \"forbid\"\n"));
}

#[test]
fn a_regular_expression_is_bounded() {
    let place = folder();
    let file = place.path().join("splitway.yaml");
    for (regex, is_taken) in [("[a-z]{1,50}", true), ("(\\\\w{1,100}){1,100}", false)] {
        let rule = format!(
            "    rules:\n      - match: {{ headers: {{ a: {{ regex: \"{regex}\" }} }} }}\n        \
             track: canary\n"
        );
        let address = "127.0.0.1:1".parse().unwrap();
        let services = two_tracks(address, address, 0.0, &rule);
        std::fs::write(&file, format!("listeners: [{{ address: '127.0.0.1:1' }}]\n{services}"))
            .unwrap();
        let mut check = Command::new(env!("CARGO_BIN_EXE_splitway"));
        let output = check.arg("check").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), is_taken, "{regex}: {said}");
    }
    // The engine has neither backtracking nor look-around to run away with.
    for unbounded in [["(a)", "\\1"], ["(?", "=a)"]] {
        assert!(regex::Regex::new(&unbounded.concat()).is_err());
    }
}

#[test]
fn the_manifests_take_every_right_that_is_not_needed() {
    let manifest = text("k8s/base/deployment.yaml");
    for line in [
        "runAsNonRoot: true",
        "runAsUser: 65532",
        "readOnlyRootFilesystem: true",
        "allowPrivilegeEscalation: false",
        "drop: [ALL]",
    ] {
        assert!(manifest.contains(line), "{line} is missing");
    }
    assert!(text("Dockerfile").contains("USER 65532"));
}

#[test]
fn every_change_is_checked_and_fuzzed() {
    let script = text(".ci/run");
    for command in ["cargo deny --locked check", "licenses sources", "fuzz/smoke"] {
        assert!(script.contains(command), "{command} is missing");
    }
}

#[test]
fn the_edge_of_the_page_keeps_strangers_out() {
    let page = text("docs/hardening.md");
    let file = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let (stable, canary) = (Upstream::track("stable"), Upstream::track("canary"));
    let place = folder();
    let mut config = String::new();
    let mut is_tls = false;
    for line in file.lines() {
        // What it says of TLS has tests of its own.
        is_tls = line == "    tls:" || is_tls && line.starts_with("      ");
        if !is_tls {
            config += &format!("{line}\n");
        }
    }
    for (from, to) in [
        ("0.0.0.0:443", "127.0.0.1:0".to_owned()),
        ("127.0.0.1:9900", "127.0.0.1:0".to_owned()),
        ("/run/splitway/admin.sock", place.path().join("admin.sock").display().to_string()),
        ("10.0.0.11:8000", format!("'{}'", stable.address)),
        ("10.0.0.21:8000", format!("'{}'", canary.address)),
    ] {
        assert!(config.contains(from), "{from}");
        config = config.replace(from, &to);
    }
    let gateway = Gateway::start(&config);
    let mut client = gateway.connect();
    let mut ask = |host: &str, fields: &str| {
        client.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n"));
        client.response()
    };
    assert_eq!(ask("other.example.com", "").status, 404);
    // A stranger says to be from inside, and wants the canary.
    let fields = "x-forwarded-for: 10.1.2.3\r\ncanary: true\r\nx-user-id: a\r\n";
    let answer = ask("api.example.com", fields);
    assert_eq!((answer.status, answer.track()), (200, "stable"));
    let seen = String::from_utf8_lossy(&stable.bytes()).to_ascii_lowercase();
    assert!(!seen.contains("canary") && !seen.contains("10.1.2.3"), "{seen}");
    // Whoever asks more often than 50 times a second is told so in the end.
    assert!((0..10_000).any(|_| ask("api.example.com", "").status == 429));
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nhost: other.example.com\r\ncontent-length: 10485761\r\n\r\n");
    assert!(matches!(client.response().status, 404 | 413));
    let mut client = gateway.connect();
    client.send(format!("GET / HTTP/1.1\r\nhost: a\r\na: {}\r\n\r\n", "a".repeat(16 * 1024)));
    assert_eq!(client.response().status, 431);
    assert_eq!(canary.requests(), 0);
}
