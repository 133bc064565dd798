//! The commands on files: faults with their places, the schema, the examples, the demo.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use splitway::config::types::{self, Config};
use splitway::config::{self};

use crate::support::{Turn, folder};

fn splitway(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_splitway")).args(arguments).output().unwrap()
}

fn check(text: impl AsRef<[u8]>) -> (Option<i32>, String, Duration) {
    let folder = folder();
    let file = folder.path().join("bad.yaml");
    std::fs::write(&file, text).unwrap();
    let started = Instant::now();
    let output = splitway(&["check", file.to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said.replace(file.to_str().unwrap(), "bad.yaml"), started.elapsed())
}

fn root(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_fault_is_shown_with_its_place_field_and_remedy() {
    let text = "\
listeners:
  - adress: 127.0.0.1:8080
    address: 0.0.0.0
timeouts: { head: 10, idle: 5x }
services:
  - name: a b
    tracks:
      stable: { endpoints: [http://10.0.0.1:80] }
      canary: { endpoints: [] }
    weights: { stable: 95, canary: 4.999 }
    rules:
      - match: { headers: { a: { regex: '(' } } }
        track: canary
";
    let (code, said, _) = check(text);
    assert_eq!(code, Some(2));
    for expected in [
        "bad.yaml:2:5: listeners[0].adress: unknown key; did you mean `address`?",
        "bad.yaml:3:14: listeners[0].address: `0.0.0.0` is no address to listen on; write IP:PORT",
        "bad.yaml:4:19: timeouts.head: `10` is no duration; write a number and a unit",
        "bad.yaml:4:29: timeouts.idle: `5x` is no duration",
        "bad.yaml:8:29: services[0].tracks.stable.endpoints[0]: `http://10.0.0.1:80` is no endpoint; write HOST:PORT without a scheme",
        "bad.yaml:10:36: services[0].weights.canary: `4.999` has more than two decimals",
        "bad.yaml:12:41: services[0].rules[0].match.headers.a.regex: is no regular expression",
    ] {
        assert!(said.contains(expected), "{expected}\nis not in\n{said}");
    }
}

#[test]
fn faults_between_values_are_shown_together_too() {
    let text = "\
listeners: [{ address: 127.0.0.1:8080 }, { address: 127.0.0.1:8080 }]
admin: { address: 0.0.0.0:9900 }
services:
  - name: a b
    tracks:
      stable: { endpoints: ['10.0.0.1:80'] }
      canary: { endpoints: [] }
    weights: { stable: 95, canry: 4 }
    rules:
      - match: {}
        track: nobody
      - match: { method: get }
    sticky: { header: a, cookie: b }
  - name: b
    tracks: { main: { endpoints: ['10.0.0.1:80'] } }
  - name: b
    hosts: [a.example, 'a:80']
    paths: [x]
    tracks: { main: { endpoints: ['10.0.0.1:80'] } }
  - name: c
    hosts: [A.example]
    paths: [x]
    tracks: { x: { endpoints: ['10.0.0.1:80'] }, y: { endpoints: ['10.0.0.1:80'] } }
";
    let (code, said, _) = check(text);
    assert_eq!(code, Some(2));
    for expected in [
        "bad.yaml:1:42: listeners[1]: 127.0.0.1:8080 is listened on twice",
        "bad.yaml:2:19: admin.address: is not a loopback address",
        "bad.yaml:4:11: services[0].name: `a b` is no name",
        "bad.yaml:7:28: services[0].tracks.canary.endpoints: is empty",
        "bad.yaml:8:14: services[0].weights: sums to 99; weights must sum to 100",
        "bad.yaml:8:28: services[0].weights: `canry` is no track of this service; known: stable, canary",
        "services[0].rules[0].match[0]: has no condition",
        "services[0].rules[0].track: `nobody` is no track",
        "services[0].rules[1]: needs exactly one of `track`, `weights`, `redirect` and `respond`",
        "services[0].rules[1].match[0].method: methods are upper case; write GET",
        "services[0].sticky: needs exactly one of `header` and `cookie`",
        "services[1]: `any host` with path `/` also leads to services[0]",
        "services[2].name: `b` is also the name of services[1]",
        "services[2].hosts[1]: `a:80` is no host",
        "services[2].paths[0]: `x` is no path prefix",
        "services[3]: `A.example` with path `x` also leads to services[2]",
        "bad.yaml:20:11: services[3]: `weights` is missing; give x and y their shares",
    ] {
        assert!(said.contains(expected), "{expected}\nis not in\n{said}");
    }
}

#[test]
fn hopeless_files_are_refused_at_once() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    for (name, text) in [
        ("an alias bomb", bomb.into_bytes()),
        ("deep nesting", "[".repeat(100_000).into_bytes()),
        ("deep block nesting", "- ".repeat(100_000).into_bytes()),
        ("deep mappings", "{a: ".repeat(100_000).into_bytes()),
        ("a duplicate key", b"listeners: []\nservices: []\nlisteners: []\n".to_vec()),
        ("an unknown key", b"listners: []\nservices: []\n".to_vec()),
        ("no UTF-8", b"listeners: \xff\xfe\n".to_vec()),
        ("an empty file", Vec::new()),
        ("a scalar", b"hello\n".to_vec()),
        ("a list", b"- a\n".to_vec()),
        ("a syntax error", b"a: [1, 2\nb: }\n".to_vec()),
        ("a large file", vec![b'#'; 2 * 1024 * 1024]),
        ("a second document", b"listeners: []\n---\nservices: []\n".to_vec()),
    ] {
        let (code, said, time) = check(text);
        assert_eq!(code, Some(2), "{name}: {said}");
        assert!(
            said.starts_with("bad.yaml:") && said.trim().lines().count() <= 4,
            "{name}: {said}"
        );
        assert!(said.len() < 1_000, "{name}: {said}");
        assert!(!said.contains("budget") && !said.contains("Policy"), "{name}: {said}");
        // It takes milliseconds; what is not bounded would take minutes on any machine.
        assert!(time < Duration::from_secs(10), "{name} took {time:?}");
    }
    let output = splitway(&["check", &root("config"), "/nowhere.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("config: is a directory"), "{said}");
    assert!(said.contains("/nowhere.yaml: cannot be read"), "{said}");
}

#[test]
fn a_duplicate_key_has_its_place() {
    let (_, said, _) = check("listeners: []\nservices: []\nlisteners: []\n");
    assert!(said.starts_with("bad.yaml:3:1: "), "{said}");
    assert!(said.contains("duplicate key `listeners`; keep one of them"), "{said}");
}

#[test]
fn run_refuses_a_bad_file_with_every_fault() {
    let output = splitway(&["run", "--config", "/nowhere.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    let output = splitway(&["run"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn an_address_in_use_is_a_failure_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let folder = folder();
    let file = folder.path().join("a.yaml");
    let text = format!(
        "listeners: [{{ address: '{address}' }}]\nadmin: {{ address: '127.0.0.1:0' }}\nservices: [{{ \
         name: a, tracks: {{ s: {{ endpoints: ['127.0.0.1:1'] }} }} }}]\n"
    );
    std::fs::write(&file, text).unwrap();
    let output = splitway(&["run", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("cannot listen on {address}")), "{said}");
}

#[test]
fn the_examples_pass_the_check() {
    let folder = std::fs::read_dir(root("config")).unwrap();
    let files: Vec<String> =
        folder.map(|entry| entry.unwrap().path().display().to_string()).collect();
    assert!(files.len() >= 5);
    let arguments: Vec<&str> = files.iter().map(String::as_str).collect();
    let output = splitway(&[&["check", "--without-files"], &arguments[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let output = splitway(&["check", "--json", &root("config/canary.yaml")]);
    let results: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(results[0]["faults"].as_array().map(Vec::len), Some(0));
}

#[test]
fn the_reference_shows_every_default_as_it_is() {
    let path = root("config/reference.yaml");
    let reference = config::load(Path::new(&path)).unwrap().config;
    assert_eq!(reference.workers, None);
    assert_eq!(reference.admin, types::all_defaults());
    assert_eq!(reference.timeouts, types::all_defaults());
    assert_eq!(reference.limits, types::all_defaults());
    assert_eq!(reference.upstream, types::all_defaults());
    assert_eq!(reference.log, types::all_defaults());
    let text = "listeners: [{ address: '0.0.0.0:8080' }]\nservices: [{ name: api, tracks: { stable: { endpoints: ['a:1'] } } }]\n";
    let minimal: Config = config::parse(Path::new("x"), text).unwrap();
    assert_eq!(reference.via, minimal.via);
    assert_eq!(reference.drain, minimal.drain);
    assert_eq!(reference.trusted_proxies, minimal.trusted_proxies);
    assert_eq!(reference.services[0].hosts, minimal.services[0].hosts);
    assert_eq!(reference.services[0].paths, minimal.services[0].paths);
}

#[test]
fn the_reference_has_every_key_of_the_schema() {
    let reference = std::fs::read_to_string(root("config/reference.yaml")).unwrap();
    let mut keys = Vec::new();
    collect_keys(&splitway::cli::schema::document(), &mut keys);
    assert!(keys.len() > 50, "{keys:?}");
    for key in keys {
        let is_there = reference
            .match_indices(&format!("{key}:"))
            .any(|(at, _)| reference[..at].ends_with([' ', '\n', '{']) || at == 0);
        assert!(is_there, "`{key}` is missing in config/reference.yaml");
    }
}

fn collect_keys(schema: &Json, keys: &mut Vec<String>) {
    if !schema.is_object() {
        return;
    }
    if let Some(properties) = schema["properties"].as_object() {
        for (key, inner) in properties {
            assert!(
                !inner["description"].is_null()
                    || keys.contains(key)
                    || inner.is_boolean()
                    || ["exact", "prefix", "regex", "present", "not"].contains(&key.as_str()),
                "{key}"
            );
            keys.push(key.clone());
            collect_keys(inner, keys);
        }
    }
    for inner in [&schema["items"], &schema["additionalProperties"]] {
        collect_keys(inner, keys);
    }
    for inner in schema["oneOf"].as_array().into_iter().flatten() {
        collect_keys(inner, keys);
    }
}

#[test]
fn the_schema_command_prints_the_schema() {
    let output = splitway(&["schema"]);
    let schema: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema, splitway::cli::schema::document());
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["required"], serde_json::json!(["listeners", "services"]));
}

#[test]
fn the_demo_promotes_a_good_canary() {
    let _turn = Turn::take();
    let output = splitway(&["demo", "--seconds", "1", "--rps", "1500", "--canary-errors", "0%"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("v2.0.0 was promoted on proof"), "{said}");
    assert!(said.contains("progressing → promoted  75 → 100 %"), "{said}");
}

#[test]
fn the_demo_rolls_a_bad_canary_back() {
    let _turn = Turn::take();
    let output = splitway(&["demo", "--canary-errors", "20%"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("v2.0.0 was rolled back"), "{said}");
    assert!(said.contains("against the canary, from errors"), "{said}");
}

#[test]
fn replay_judges_like_the_reference_and_reads_its_plan_from_a_configuration() {
    let folder = folder();
    let file = folder.path().join("evidence.jsonl");
    let clean = r#"{"dt_s":1.0,"canary":{"requests":50,"errors":0,"slow":[0,0]},"stable":{"requests":950,"errors":1,"slow":[9,95]}}"#;
    std::fs::write(&file, format!("{clean}\n").repeat(400)).unwrap();
    let lines = |arguments: &[&str]| -> Vec<Json> {
        let output = splitway(&[&["replay", file.to_str().unwrap()], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let found = lines(&[]);
    assert_eq!(found[0]["tick"], 1);
    assert_eq!((&found[0]["stage"], &found[0]["weight"]), (&1.into(), &5.into()));
    assert!((found[0]["e"].as_f64().unwrap() - 0.826_245_750_925_691).abs() < 1e-9);
    let verdicts: Vec<&Json> = found.iter().map(|line| &line["verdict"]).collect();
    assert_eq!(verdicts[58], "hold");
    assert_eq!(verdicts[59], "advance", "a minute at least");
    let plan = folder.path().join("plan.yaml");
    std::fs::write(
        &plan,
        "listeners: [{ address: 127.0.0.1:1 }]\nservices:\n  - name: api\n    tracks:\n      stable: { \
         version: v1, endpoints: ['a:1'] }\n      canary: { version: v2, endpoints: ['b:1'] }\n    \
         rollout: { stages: [20, 100], min: 1s, judge: { warmup: 1s } }\n",
    )
    .unwrap();
    let found = lines(&["--config", plan.to_str().unwrap()]);
    assert_eq!(found[0]["weight"], 20);
    let last = found.last().unwrap();
    assert_eq!(last["verdict"], "promote", "it ends there: {last}");
    assert!(found.len() < 400);
    std::fs::write(&file, format!("{clean}\nnonsense\n")).unwrap();
    let output = splitway(&["replay", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("evidence.jsonl:2: is no JSON"));
}

#[test]
fn simulate_answers_in_words_and_in_the_figures_of_scenarios() {
    let _turn = Turn::take();
    let output = splitway(&["simulate", "--rps", "1000", "--runs", "50"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("A canary like stable is promoted in 5 min"), "{said}");
    assert!(said.contains("1 % errors               is rolled back in"), "{said}");
    let folder = folder();
    let file = folder.path().join("scenarios.json");
    let dead = r#"{"scenarios":[{"name":"dead","spec":{"rps":100,"ps":0.001,"pc":1.0}}]}"#;
    std::fs::write(&file, dead).unwrap();
    let run = || {
        let path = file.to_str().unwrap();
        let output =
            splitway(&["simulate", "--scenarios", path, "--runs", "40", "--seed", "7", "--json"]);
        serde_json::from_slice::<Json>(&output.stdout).unwrap()
    };
    let found = run();
    let figures = &found["scenarios"][0];
    assert_eq!((&figures["name"], &figures["detected_pct"]), (&"dead".into(), &100.0.into()));
    assert!(figures["failed_req_p50"].as_f64().unwrap() <= 6.0, "{figures}");
    assert_eq!(found, run(), "the same seed, the same figures");
    std::fs::write(&file, dead.replace("\"rps\":100", "\"rps\":100,\"wave\":1")).unwrap();
    let output = splitway(&["simulate", "--scenarios", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("wave"));
}

#[test]
fn completions_are_scripts_that_their_shell_accepts() {
    for (shell, names) in
        [("bash", "set-weight"), ("zsh", "#compdef splitway"), ("fish", "set-weight")]
    {
        let output = splitway(&["completions", shell]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains(names), "{shell}");
        if shell == "bash" {
            let place = folder();
            let file = place.path().join("completions");
            std::fs::write(&file, text).unwrap();
            let read = std::process::Command::new("bash").arg("-n").arg(&file).output().unwrap();
            assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        }
    }
}

#[test]
fn man_pages_name_every_command() {
    let page = String::from_utf8(splitway(&["man"]).stdout).unwrap();
    for command in
        ["run", "check", "status", "watch", "explain", "rollback", "set\\-weight", "demo"]
    {
        assert!(page.contains(&format!("splitway\\-{command}(1)")), "{command}\n{page}");
    }
    let page = String::from_utf8(splitway(&["man", "promote"]).stdout).unwrap();
    assert!(page.contains("\\-\\-force"), "{page}");
    let output = splitway(&["man", "nothing"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn what_is_dead_is_a_warning_and_a_fault_when_asked_strictly() {
    let folder = folder();
    let file = folder.path().join("dead.yaml");
    let mut expired = rcgen::CertificateParams::new(Vec::new()).unwrap();
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = expired.self_signed(&key).unwrap();
    std::fs::write(folder.path().join("a.crt"), certificate.pem()).unwrap();
    std::fs::write(folder.path().join("a.key"), key.serialize_pem()).unwrap();
    let text = "listeners: [{ address: 127.0.0.1:1, tls: { certificates: [{ certificate: a.crt, key: a.key }] } }]
services:
  - name: shop
    paths: ['/api/*']
    tracks: { stable: { endpoints: ['10.0.0.1:80'] } }
";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let output = splitway(&["check", file]);
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stderr).unwrap();
    for expected in [
        ": listeners[0].tls.certificates[0]: `a.crt` expired ",
        "listeners[0].tls.certificates[0]: `a.crt` is for no name",
        "dead.yaml:4:13: services[0].paths[0]: `/api/*` is compared star and all",
    ] {
        assert!(said.contains(expected), "{expected}\nis not in\n{said}");
    }
    assert!(said.lines().all(|line| line.starts_with("warning: ")), "{said}");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("ok, 1 service, 3 warnings\n"));
    assert_eq!(splitway(&["check", "--strict", file]).status.code(), Some(2));
    let output = splitway(&["check", "--json", "--without-files", file]);
    let results: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(results[0]["warnings"][0]["field"], "services[0].paths[0]");
}
