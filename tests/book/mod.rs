//! The book: what its pages show is what the program takes, and what they say to do is done.

mod hardening;
mod reference;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::tools;

/// Seconds that the steps of a page may take; simulations have been slow on a busy machine.
const TIME_MAX: &str = "900";
/// Where the steps of a page are done.
const ADDRESS: &str = "127.0.0.81";

/// A page by its path below the root, with its text.
type Page = (String, String);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<Page> {
    let mut found = vec!["README.md".to_owned()];
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        found.push(format!("docs/{}", entry.unwrap().file_name().into_string().unwrap()));
    }
    assert!(found.len() > 20);
    found.sort();
    found
        .into_iter()
        .map(|name| (name.clone(), fs::read_to_string(root().join(name)).unwrap()))
        .collect()
}

/// The blocks of code of a page: what stands behind the fence, and the content.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find("```") {
        let (kind, after) = rest[start + 3..].split_once('\n').unwrap();
        let (content, behind) = after.split_once("```").expect("a block that ends");
        found.push((kind, content));
        rest = behind;
    }
    found
}

#[test]
fn the_references_are_as_generated() {
    for (name, generated) in [
        ("docs/metrics.md", reference::metrics()),
        ("docs/configuration.md", reference::configuration()),
    ] {
        if std::env::var_os("SPLITWAY_BLESS").is_some() {
            fs::write(root().join(name), &generated).unwrap();
        }
        let written = fs::read_to_string(root().join(name)).unwrap_or_default();
        assert!(
            written == generated,
            "{name} is not as generated; SPLITWAY_BLESS=1 cargo test references writes it anew"
        );
    }
}

#[test]
fn examples_in_the_pages_are_configurations() {
    let mut count = 0;
    for (name, page) in pages() {
        for (kind, text) in blocks(&page) {
            if !kind.starts_with("yaml") {
                continue;
            }
            if text.contains("apiVersion:") {
                // What others' manifests look like; at least they are YAML with a kind.
                for document in text.split("---\n") {
                    assert!(document.contains("\nkind: "), "{name}:\n{document}");
                }
                continue;
            }
            if text.starts_with("scrape_configs:") {
                assert_eq!(name, "docs/monitoring.md");
                continue;
            }
            let whole = whole(text);
            splitway::config::parse(Path::new(&name), &whole)
                .unwrap_or_else(|faults| panic!("{faults}\nin\n{whole}"));
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

/// A part of a service is shown without the file around it, and a file without its listeners.
fn whole(text: &str) -> String {
    let listeners = "listeners: [{ address: '127.0.0.1:1' }]\n";
    if text.contains("services:") {
        let is_part = !text.contains("listeners:");
        return format!("{}{text}", if is_part { listeners } else { "" });
    }
    let indented: String = text.lines().map(|line| format!("    {line}\n")).collect();
    let has = |key: &str| text.lines().any(|line| line.starts_with(key));
    let tracks =
        "    tracks:\n      stable: { endpoints: ['a:1'] }\n      canary: { endpoints: ['a:2'] }\n";
    let weights = "    weights: { stable: 95, canary: 5 }\n";
    format!(
        "{listeners}services:\n  - name: api\n{}{}{indented}",
        if has("tracks:") { "" } else { tracks },
        if has("weights:") { "" } else { weights },
    )
}

#[test]
fn prometheus_takes_the_scrape_configuration() {
    let Some(promtool) = tools::program("promtool", "prometheus") else { return };
    let page = fs::read_to_string(root().join("docs/monitoring.md")).unwrap();
    let text = blocks(&page).into_iter().find(|(_, text)| text.starts_with("scrape_configs:"));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("prometheus.yml"), text.unwrap().1).unwrap();
    fs::copy(root().join("monitoring/alerts.yml"), folder.path().join("alerts.yml")).unwrap();
    let check = Command::new(promtool)
        .args(["check", "config", "prometheus.yml"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}

#[test]
fn commands_in_the_pages_are_understood() {
    let mut count = 0;
    for (name, page) in pages() {
        let mut shown: Vec<String> = Vec::new();
        for (kind, text) in blocks(&page) {
            if kind == "console" || kind == "sh" {
                shown.extend(text.lines().map(str::to_owned));
            }
        }
        // In a sentence a command stands between backquotes.
        let outside = page.split("```").step_by(2);
        shown
            .extend(outside.flat_map(|text| text.split('`').skip(1).step_by(2)).map(str::to_owned));
        for line in shown.iter().filter_map(|line| command(line)) {
            for one in alternatives(&line) {
                splitway::cli::understands(&one)
                    .unwrap_or_else(|error| panic!("{name}: `{one}`\n{error}"));
                count += 1;
            }
        }
    }
    assert!(count > 60, "{count}");
}

/// The command of ours in a line of a shell, without what the shell makes of the rest.
fn command(line: &str) -> Option<String> {
    let line = line.trim().trim_start_matches("$ ");
    let line = line.strip_prefix("until ").unwrap_or(line);
    let line = line.strip_prefix("SPLITWAY_TOKEN=… ").unwrap_or(line);
    let is_ours = line.starts_with("splitway ") && !line.starts_with("splitway COMMAND");
    let is_cut = |at: &usize| {
        [" #", " > ", " 2>", ";", " | grep", " | head"]
            .iter()
            .any(|cut| line[*at..].starts_with(cut))
    };
    let end = line.char_indices().map(|(at, _)| at).find(is_cut).unwrap_or(line.len());
    // `--rps N`: where a number belongs, one stands for it.
    let words = line[..end].split(' ').map(|word| if word == "N" { "1" } else { word });
    let words: Vec<&str> = words.collect();
    // A command is also spoken of by its name alone.
    let help = if words.len() == 2 { " --help" } else { "" };
    is_ours.then(|| words.join(" ") + help)
}

/// `splitway pause | promote [--full]` shows two commands, one of them with an option.
fn alternatives(line: &str) -> Vec<String> {
    let all = line.trim_start_matches("splitway ").split(" | ");
    let all = all.flat_map(|one| {
        // `completions bash|zsh|fish`
        match one.split_once('|') {
            None => vec![one.to_owned()],
            Some((first, rest)) => {
                let (before, first) = first.rsplit_once(' ').unwrap();
                let words = std::iter::once(first).chain(rest.split('|'));
                words.map(|word| format!("{before} {word}")).collect()
            }
        }
    });
    all.map(|one| format!("splitway {}", one.replace(['[', ']'], ""))).collect()
}

#[test]
fn metrics_in_the_pages_exist() {
    let name = regex::Regex::new(r"\b(splitway|http_request)s?_[a-z0-9_]+\b").unwrap();
    let families: Vec<&str> =
        splitway::metrics::table::FAMILIES.iter().map(|family| family.name).collect();
    let is_known = |found: &str| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| found.strip_suffix(end));
        families.contains(&found) || base.is_some_and(|base| families.contains(&base))
    };
    for (page, text) in pages() {
        for found in name.find_iter(&text) {
            assert!(is_known(found.as_str()), "{page} names {}", found.as_str());
        }
    }
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    let link = regex::Regex::new(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)").unwrap();
    for (name, page) in pages() {
        let folder = root().join(&name).parent().unwrap().to_owned();
        for found in link.captures_iter(&page) {
            let path = found.get(1).unwrap().as_str();
            if path.starts_with("http") {
                continue;
            }
            let target = if path.is_empty() { root().join(&name) } else { folder.join(path) };
            assert!(target.exists(), "{name}: {path}");
            if let Some(anchor) = found.get(2) {
                let text = fs::read_to_string(&target).unwrap();
                let mut headings = text.lines().filter_map(|line| line.strip_prefix("## "));
                assert!(
                    headings.any(|heading| reference::anchor(heading) == anchor.as_str()),
                    "{name}: {}",
                    &found[0]
                );
            }
        }
    }
}

/// Does what a page says, step by step, in a folder of its own, on ports of its own; what its
/// commands write.
fn follow(name: &str) -> String {
    let page = fs::read_to_string(root().join(name)).unwrap();
    let mut script = "set -eu\n".to_owned();
    for (kind, text) in blocks(&page) {
        if kind == "sh" {
            script.push_str(text);
        } else if let Some(file) = kind.strip_prefix("yaml ") {
            script.push_str(&format!("cat > {file} <<'END'\n{text}END\n"));
        }
    }
    // All are bound at once, so that no port is given twice; and on an address where no other test
    // is, so that they stay free until they are used.
    let ports: Vec<TcpListener> =
        (0..5).map(|_| TcpListener::bind((ADDRESS, 0)).unwrap()).collect();
    let numbers: Vec<String> =
        ports.iter().map(|port| port.local_addr().unwrap().port().to_string()).collect();
    drop(ports);
    for (fixed, free) in ["8080", "9001", "9002", "9003"].iter().zip(&numbers) {
        script = script.replace(fixed, free);
    }
    script = script.replace("127.0.0.1", ADDRESS);
    // Fewer simulations say the same with less certainty, which nobody reads here.
    script = script.replace("--runs 200", "--runs 20").replace("--runs 100", "--runs 20");
    let admin = format!("{ADDRESS}:{}", numbers[4]);
    script =
        script.replace("\nservices:", &format!("\nadmin: {{ address: '{admin}' }}\nservices:"));
    let folder = tempfile::tempdir().unwrap();
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_splitway"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    // What it started ends with it, also where it stops half way.
    let script = format!("trap 'kill $(jobs -p) 2> end.log || true' EXIT\n{script}");
    let output = Command::new("timeout")
        .args([TIME_MAX, "bash", "-c", &script])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("SPLITWAY_ADMIN", admin)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let log = fs::read_to_string(folder.path().join("splitway.log")).unwrap_or_default();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}\n{text}\n{errors}\n{log}", output.status);
    text
}

#[test]
fn the_first_rollout_goes_as_its_page_says() {
    let text = follow("docs/first-rollout.md");
    let answers: Vec<&str> = text.lines().filter(|line| line.starts_with("I am ")).collect();
    // Both versions by themselves; one that is drawn; then the rule's, the promoted version's, and
    // the one rolled back to.
    assert_eq!(answers[..2], ["I am v1", "I am v2"], "{text}");
    assert_eq!(answers[3..], ["I am v2"; 3], "{text}");
    assert!(text.contains("hello: promoted at 100 %"), "{text}");
    assert!(text.contains("hello: rolled back: evidence"), "{text}");
}

#[test]
fn plans_are_simulated_as_their_page_says() {
    let text = follow("docs/plans.md");
    assert_eq!(text.matches("A canary like stable is promoted in").count(), 3, "{text}");
}
