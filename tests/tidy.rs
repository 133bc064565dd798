//! The house rules as tests: layers, purity, openings, sizes.

use std::fs;
use std::path::PathBuf;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

/// The part of a source file ahead of its tests.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap()
}

/// The top-level module of a source file: `proxy` for `src/proxy/exchange.rs`.
fn module(name: &str) -> &str {
    name.trim_start_matches("src/").split(['/', '.']).next().unwrap()
}

/// What a file uses of the crate: the module names behind `crate::`.
fn uses(text: &str) -> Vec<String> {
    let code: String = product(text)
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let names = code.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|char: char| !char.is_alphanumeric() && char != '_');
        rest[..end.unwrap_or(rest.len())].to_owned()
    });
    names.filter(|name| !name.is_empty()).collect()
}

/// Which modules each module may use. What is not listed is forbidden.
const LAYERS: &[(&str, &[&str])] = &[
    ("track", &[]),
    ("http1", &[]),
    ("route", &["http1", "track"]),
    ("record", &["track"]),
    ("calendar", &[]),
    ("plain", &[]),
    ("private", &[]),
    ("telemetry", &["calendar", "plain"]),
    ("tls", &[]),
    ("memory", &[]),
    ("wire", &["http1", "memory"]),
    ("upstream", &["tls", "wire"]),
    ("state", &["http1", "memory", "record", "route", "telemetry", "tls", "track", "upstream"]),
    (
        "proxy",
        &[
            "calendar",
            "http1",
            "memory",
            "plain",
            "record",
            "route",
            "state",
            "telemetry",
            "tls",
            "track",
            "upstream",
            "wire",
        ],
    ),
    ("server", &["memory", "proxy", "state", "telemetry"]),
    ("judge", &[]),
    ("evidence", &["judge", "record", "track"]),
    ("rollout", &["evidence", "judge", "private", "record", "state", "track"]),
    ("simulate", &["evidence", "judge", "record", "rollout", "track"]),
    ("outbound", &["tls"]),
    ("otlp", &["outbound", "telemetry"]),
    ("notify", &["calendar", "outbound", "plain", "rollout", "track"]),
    ("opinion", &["outbound", "plain", "rollout", "track"]),
    (
        "config",
        &[
            "http1",
            "judge",
            "memory",
            "notify",
            "opinion",
            "otlp",
            "outbound",
            "plain",
            "record",
            "rollout",
            "route",
            "state",
            "telemetry",
            "tls",
            "track",
            "upstream",
        ],
    ),
    ("import", &["config", "opinion", "plain"]),
    ("discovery", &["config", "judge", "rollout", "state", "upstream", "wire"]),
    (
        "metrics",
        &[
            "calendar", "http1", "memory", "notify", "otlp", "proxy", "record", "rollout",
            "server", "state", "upstream",
        ],
    ),
    ("admin", &["calendar", "metrics", "plain", "record", "rollout", "state"]),
    (
        "app",
        &[
            "admin",
            "calendar",
            "config",
            "discovery",
            "memory",
            "metrics",
            "notify",
            "opinion",
            "otlp",
            "private",
            "proxy",
            "rollout",
            "server",
            "state",
            "telemetry",
        ],
    ),
    (
        "cli",
        &["app", "calendar", "config", "import", "judge", "plain", "rollout", "simulate", "track"],
    ),
    ("main", &[]),
    ("lib", &[]),
];

#[test]
fn layers_use_only_what_they_may() {
    for (name, text) in sources("src") {
        let module = module(&name);
        let layer = LAYERS.iter().find(|(layer, _)| *layer == module);
        let (_, allowed) = layer.unwrap_or_else(|| panic!("{name} is in no layer of the design"));
        for used in uses(&text) {
            let is_macro_path = module == "config" && used == "config";
            let is_allowed = used == module || allowed.contains(&used.as_str()) || is_macro_path;
            assert!(is_allowed, "{name} uses crate::{used}, which its layer may not");
        }
    }
}

#[test]
fn the_architecture_page_shows_the_same_layers() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for (layer, allowed) in LAYERS.iter().filter(|(layer, _)| !["main", "lib"].contains(layer)) {
        let uses = if allowed.is_empty() { "–".to_owned() } else { allowed.join(" ") };
        let row = format!("| `{layer}` | {uses} |");
        assert!(page.contains(&row), "ARCHITECTURE.md lacks the row\n{row}");
    }
}

#[test]
fn pure_modules_have_no_clock_no_dice_and_no_io() {
    const FORBIDDEN: &[&str] = &[
        "std::fs",
        "std::net::Tcp",
        "std::io::Read",
        "std::time::Instant",
        "SystemTime",
        "tokio",
        "rand::",
        "std::thread",
        "std::env",
        "println!",
        "tracing::",
    ];
    const FILES: &[&str] = &[
        "src/upstream/balance.rs",
        "src/rollout/command.rs",
        "src/rollout/edit.rs",
        "src/rollout/explain.rs",
        "src/rollout/external.rs",
        "src/notify/event.rs",
        "src/notify/format.rs",
        "src/opinion/expression.rs",
        "src/opinion/tally.rs",
        "src/rollout/machine.rs",
        "src/rollout/outlook.rs",
        "src/rollout/plan.rs",
        "src/rollout/progress.rs",
        "src/rollout/record.rs",
        "src/rollout/run.rs",
    ];
    for (name, text) in sources("src") {
        let is_pure =
            ["evidence", "http1", "import", "judge", "plain", "route", "simulate", "track"]
                .contains(&module(&name))
                || FILES.contains(&name.as_str());
        // A simulation is given its dice.
        let takes_dice = module(&name) == "simulate";
        let forbidden = FORBIDDEN.iter().filter(|word| !(takes_dice && **word == "rand::"));
        for word in forbidden.filter(|_| is_pure) {
            assert!(!product(&text).contains(word), "{name} is pure and names {word}");
        }
    }
}

#[test]
fn prometheus_and_yaml_stay_behind_their_walls() {
    for (name, text) in sources("src") {
        let code = product(&text);
        if module(&name) != "metrics" {
            assert!(!code.contains("prometheus::"), "{name} uses prometheus");
        }
        if module(&name) != "config" {
            assert!(!code.contains("saphyr"), "{name} uses YAML");
        }
    }
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    for (name, text) in ["src", "tests", "benches"].into_iter().flat_map(sources) {
        assert!(text.starts_with("//! "), "{name} does not open with `//!`");
        let first = text.lines().next().unwrap();
        assert!(first.len() > 20, "{name} opens with {first:?}");
    }
}

#[test]
fn files_are_short_and_say_nothing_unfinished() {
    // Spelled so that this file does not contain them.
    let unfinished = ["TO\x44O", "FIX\x4dE", "XX\x58", "unim\x70lemented!", "to\x64o!"];
    for (name, text) in sources("src") {
        let lines = product(&text).lines().count();
        assert!(lines <= 500, "{name} has {lines} lines ahead of its tests");
        for word in unfinished {
            assert!(!text.contains(word), "{name} says {word}");
        }
    }
}

#[test]
fn what_is_shown_is_written_in_few_places() {
    const MAY: &[(&str, &[&str])] = &[
        // A line of the log.
        ("src/telemetry/mod.rs", &["std::io::stderr"]),
        // A line of the access log.
        ("src/telemetry/access.rs", &["std::io::stdout"]),
        // Everything that commands say, and how far a simulation is.
        ("src/cli/terminal.rs", &["std::io::stdout", "eprintln!"]),
        ("src/cli/parallel.rs", &["std::io::stderr"]),
        // Whether somebody watches.
        ("src/cli/watch.rs", &["std::io::stdout().is_terminal"]),
    ];
    const WRITES: &[&str] = &["println!", "print!", "io::stdout", "io::stderr", "dbg!"];
    for (name, text) in sources("src") {
        let may = MAY.iter().find(|(file, _)| *file == name).map_or(&[][..], |(_, may)| may);
        let code: String =
            product(&text).lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let code = may.iter().fold(code, |code, may| code.replace(may, ""));
        for writes in WRITES {
            assert!(!code.contains(writes), "{name} writes by {writes}; see cli/terminal.rs");
        }
    }
}
