//! `splitway import`: the founding document's methods, Istio's matching against an interpreter of its
//! semantics, findings to the letter, and what hostile files get.

mod gateway;
mod golden;
mod nginx;
mod reference;
mod steps;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value as Json;
use splitway::import::{Source, import};

use crate::support::{Client, Gateway, Upstream};

fn founding() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import/founding")
}

fn splitway(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_splitway"))
        .arg("import")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Whoever refuses early does not read to the end.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// An imported file with these servers in the place of the cluster's names.
pub fn with_servers(file: &str, servers: &[(&str, String)]) -> String {
    let listeners = "listeners:\n  - address: 0.0.0.0:8080\n";
    assert!(file.contains(listeners), "{file}");
    let mut file = file.replace(listeners, "");
    for (end, address) in servers {
        let name = regex::Regex::new(&format!(r"[a-z0-9-]+-{end}(\.[a-z0-9.-]+)?:\d+")).unwrap();
        file = name.replace_all(&file, address.as_str()).into_owned();
    }
    file
}

/// A gateway with the file that manifests become, and servers in the place of the Services and subsets
/// whose names end so. They live as long as what is returned.
pub fn gateway_of(manifests: String, ends: &[&'static str]) -> (Gateway, String, Vec<Upstream>) {
    let imported = import(&[Source { name: "manifests.yaml".into(), text: manifests }]).unwrap();
    let upstreams: Vec<Upstream> = ends.iter().map(|end| Upstream::track(end)).collect();
    let addresses = upstreams.iter().map(|upstream| upstream.address.to_string());
    let servers: Vec<(&str, String)> = ends.iter().copied().zip(addresses).collect();
    let file = with_servers(&imported.text.unwrap(), &servers);
    (Gateway::start(&file), file, upstreams)
}

fn ask(client: &mut Client, headers: &str) -> String {
    client.send(format!("GET / HTTP/1.1\r\nhost: orders-api\r\n{headers}\r\n"));
    client.response().track().to_owned()
}

fn founding_routes(manifests: &[&str]) {
    let paths: Vec<String> =
        manifests.iter().map(|name| founding().join(name).display().to_string()).collect();
    let output = splitway(&paths.iter().map(String::as_str).collect::<Vec<_>>(), "");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let (stable, canary) = (Upstream::track("stable"), Upstream::track("canary"));
    let servers = [("stable", stable.address.to_string()), ("canary", canary.address.to_string())];
    let file = with_servers(&text(&output.stdout), &servers);
    let gateway = Gateway::start(&file);
    let mut client = gateway.connect();
    for (header, manifest) in [
        ("canary: true", "istio.yaml"),
        ("x-user-group: beta", "groups.yaml"),
        ("x-region: us-west-1", "regions.yaml"),
    ] {
        if manifests.contains(&manifest) {
            for _ in 0..20 {
                assert_eq!(
                    ask(&mut client, &format!("{header}\r\n")),
                    "canary",
                    "{header}\n{file}"
                );
            }
        }
    }
    let count = (0..4_000).filter(|_| ask(&mut client, "canary: no\r\n") == "canary").count();
    // 200 are due; five standard deviations are 69.
    assert!((131..=269).contains(&count), "{count}\n{file}");
}

#[test]
fn replicas_become_weights_of_the_same_ratio() {
    founding_routes(&["service.yaml", "stable.yaml", "canary.yaml"]);
}

#[test]
fn istios_rules_and_weights_route_as_they_did() {
    founding_routes(&["istio.yaml"]);
    founding_routes(&["istio.yaml", "groups.yaml", "regions.yaml", "service.yaml"]);
}

#[test]
fn all_of_the_founding_manifests_become_one_file_that_runs() {
    let output = splitway(&[founding().to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let file = text(&output.stdout);
    for part in [
        "- { weight: 5, min: 10m }",
        "- { weight: 25, approve: true }",
        "        - 50\n",
        "        - 100\n",
        "{ match: { headers: { x-user-group: beta } }, track: canary }",
        "app=\"orders-api\",track=\"canary\",status!~\"5..\"",
        "failure_limit: 3",
        "version: v2.0.0",
    ] {
        assert!(file.contains(part), "{part}\n{file}");
    }
    let (stable, canary) = (Upstream::track("stable"), Upstream::track("canary"));
    let servers = [("stable", stable.address.to_string()), ("canary", canary.address.to_string())];
    let gateway = Gateway::start(&with_servers(&file, &servers));
    let mut client = gateway.connect();
    assert_eq!(ask(&mut client, "x-region: us-west-1\r\n"), "canary");
    gateway.await_metric("splitway_rollout_info", &["progressing"], |is| is == 1.0);
}

#[test]
fn the_seed_itself_is_imported_where_it_is_at_hand() {
    let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/seed");
    if !seed.exists() {
        eprintln!("skipped: the founding manifests are not at hand");
        return;
    }
    let output = splitway(&[seed.to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let file = text(&output.stdout);
    for part in ["x-region: us-west-1", "{ weight: 75, min: 10m }", "result >= 0.95"] {
        assert!(file.contains(part), "{part}\n{file}");
    }
}

const FULL: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: api }
spec:
  hosts: [api]
  gateways: [edge]
  http:
    - match:
        - uri: { prefix: /old }
      redirect: { authority: new.example.com, uri: /new }
    - match:
        - sourceLabels: { app: web }
        - method: { exact: POST }
      fault: { abort: { httpStatus: 500, percentage: { value: 1 } } }
      route: [{ destination: { host: api, subset: b, port: { number: 9000 } } }]
    - route: [{ destination: { host: api, subset: a, port: { number: 9000 } } }]
      timeout: 1.5s
      retries: { attempts: 3, retryOn: 'gateway-error,cancelled', perTryTimeout: 500ms }
      colour: blue
---
kind: Sidecar
apiVersion: networking.istio.io/v1
metadata: { name: api }
";

#[test]
fn findings_name_file_line_object_path_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("splitway.yaml");
    let out = out.to_str().unwrap();
    let output = splitway(&["-", "--out", out], FULL);
    assert_eq!(output.status.code(), Some(4));
    assert!(!Path::new(out).exists(), "nothing is written");
    let object = "VirtualService/api spec";
    assert_eq!(
        text(&output.stderr),
        format!(
            "differs: -:6 {object}.gateways: name who listens; here that is `listeners`, for everybody who reaches it
unsupported: -:12 {object}.http[1].match[0].sourceLabels: is known to a sidecar alone; the alternative is left out
unsupported: -:14 {object}.http[1].fault: injects faults; there is no counterpart, test with a version that fails
differs: -:15 {object}.http[1].route[0].destination: names a subset of a DestinationRule that is not in these files; add it to learn the version
differs: -:15 {object}.http[1].route[0].destination: Splitway reads names, not labels: make a headless Service api-b that selects version=b
differs: -:16 {object}.http[2].route[0].destination: names a subset of a DestinationRule that is not in these files; add it to learn the version
differs: -:16 {object}.http[2].route[0].destination: Splitway reads names, not labels: make a headless Service api-a that selects version=a
differs: -:18 {object}.http[2].retries: only what may be sent twice is tried again (idempotent methods, or an Idempotency-Key), within a budget of 20 %
differs: -:18 {object}.http[2].retries.retryOn: `cancelled` has no counterpart and is left out
unsupported: -:19 {object}.http[2].colour: is not known here and is left out
unsupported: -:21 Sidecar/api: is of a kind that is not imported
splitway: nothing written; --allow-partial writes the rest
"
        )
    );

    let output = splitway(&["-", "--out", out, "--allow-partial"], FULL);
    assert_eq!(output.status.code(), Some(4));
    let written = std::fs::read_to_string(out).unwrap();
    let expected = "services:
  # from -:1 VirtualService/api
  - name: api
    hosts: [api]
    tracks:
      a: { endpoints: [api-a:9000] }
      b: { endpoints: [api-b:9000] }
    rules:
      - match: { path: { regex: \"/old.*\" } }
        redirect: { to: \"https://new.example.com/new\", keep_path: false, status: 301 }
      - { match: { method: POST }, track: b }
    weights: { a: 100, b: 0 }
    timeouts: { request: 1500ms }
    retries: { attempts: 3, on: [reset, 502, 503, 504], per_try_timeout: 500ms }
";
    assert!(written.ends_with(expected), "{written}");
    let check = Command::new(env!("CARGO_BIN_EXE_splitway")).args(["check", out]).output().unwrap();
    assert!(check.status.success(), "{}", text(&check.stderr));
    // What is there is not overwritten.
    let output = splitway(&["-", "--out", out, "--allow-partial"], FULL);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));

    let output = splitway(&["-", "--json"], FULL);
    assert_eq!(output.status.code(), Some(4));
    let json: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["file"].is_null());
    let finding =
        json["findings"].as_array().unwrap().iter().find(|one| one["line"] == 19).unwrap();
    assert_eq!(finding["path"], "spec.http[2].colour");
    assert_eq!(finding["grade"], "unsupported");
}

#[test]
fn argos_own_routing_and_its_limits() {
    let rollout = "apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: { name: api, namespace: shop }
spec:
  template:
    metadata: { labels: { app: api, version: v9 } }
    spec: { containers: [{ name: api, ports: [{ containerPort: 8080 }] }] }
  strategy:
    canary:
      stableService: api-stable
      canaryService: api-canary
      steps:
        - setHeaderRoute: { name: beta, match: [{ headerName: x-beta, headerValue: { exact: 'yes' } }] }
        - setWeight: 20
        - analysis: { templates: [{ templateName: odd }] }
        - setWeight: 10
        - setMirrorRoute: { name: m, percentage: 30 }
      maxSurge: 25%
---
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: { name: odd }
spec:
  metrics:
    - name: odd
      successCondition: result[0] in [1, 2]
      provider: { prometheus: { address: 'http://p:9090', query: up } }
    - name: web
      successCondition: result > 1
      provider: { web: { url: 'http://w' } }
";
    let output = splitway(&["-", "--allow-partial"], rollout);
    assert_eq!(output.status.code(), Some(4));
    let file = text(&output.stdout);
    for part in [
        "{ match: { headers: { x-beta: \"yes\" } }, track: canary }",
        "version: v9",
        "endpoints: [api-stable.shop.svc.cluster.local:8080]",
        "    mirror: { from: stable, to: canary, share: 30, methods: any }\n    rollout: { stages: [20, 100], on_max: advance }\n",
    ] {
        assert!(file.contains(part), "{part}\n{file}");
    }
    let findings = text(&output.stderr);
    for part in [
        "-:16 Rollout/api spec.strategy.canary.steps[3].setWeight: does not rise",
        "steps[4].setMirrorRoute: is `mirror`, from the first request on",
        "spec.strategy.canary.maxSurge: is about replicas",
        "AnalysisTemplate/odd spec.metrics[0].successCondition: column 11:",
        "AnalysisTemplate/odd spec.metrics[1].provider: is no Prometheus",
    ] {
        assert!(findings.contains(part), "{part}\n{findings}");
    }
}

#[test]
fn hostile_and_broken_files_are_refused_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.yaml");
    let service =
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: { name: a }\n";
    let bomb = {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let below = vec![format!("*a{}", level - 1); 10].join(", ");
            text += &format!("a{level}: &a{level} [{below}]\n");
        }
        text
    };
    for (input, says) in [
        ("a: b\n".repeat(2_100_000), "-:1: is larger than 4 MiB"),
        (bomb, "too large once its aliases are expanded"),
        (
            format!("{service}spec: [1, 2]\n"),
            "-:4 VirtualService/a spec: is a list; write a mapping",
        ),
        (
            format!("{service}spec: {{ hosts: [a], http: no }}\n"),
            "spec.http: is a single value; write a list",
        ),
        (
            format!(
                "{service}spec: {{ hosts: [a], http: [{{ route: [{{ weight: x, destination: {{ host: a }} }}] }}] }}\n"
            ),
            "spec.http[0].route[0].weight: `x` is no number",
        ),
        (format!("{service}spec: {{ hosts: [a\n"), "is no YAML"),
        ("kind: Service\n".into(), "-:1: Service has no `metadata.name`"),
        ("services: []\n".into(), "`kind` is missing"),
        ("kind: Service\nkind: Service\n".into(), "-:2: duplicate key `kind`"),
        ("[".repeat(10_000), "-:1: is nested more than"),
        (String::new(), "these manifests split no traffic"),
        ("kind: ConfigMap\nmetadata: { name: a }\n".into(), "these manifests split no traffic"),
        (format!("{service}spec: {{}}\n"), "has no `spec.hosts`"),
    ] {
        let output = splitway(&["-", "--out", out.to_str().unwrap()], &input);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(says), "{says}\n{said}");
        assert!(!out.exists());
    }
    assert_eq!(splitway(&["/nowhere.yaml"], "").status.code(), Some(2));
}

#[test]
fn the_same_manifests_become_the_same_file() {
    let sources: Vec<Source> = ["istio.yaml", "rollout.yaml", "analysis.yaml", "service.yaml"]
        .into_iter()
        .map(|name| Source {
            name: name.into(),
            text: std::fs::read_to_string(founding().join(name)).unwrap(),
        })
        .collect();
    let first = import(&sources).unwrap();
    for _ in 0..20 {
        assert_eq!(import(&sources).unwrap(), first);
    }
}

#[test]
fn what_is_measured_without_effect_is_no_check_and_one_mirror_of_several_stays() {
    let text = "apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: { name: api }
spec:
  strategy:
    canary: { steps: [{ setWeight: 20 }], analysis: { templates: [{ templateName: two }] } }
---
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: { name: two }
spec:
  dryRun: [{ metricName: 'try.*' }]
  metrics:
    - { name: trial, successCondition: result > 1, provider: { prometheus: { address: 'http://p:9090', query: up } } }
    - { name: kept, successCondition: result > 1, provider: { prometheus: { address: 'http://p:9090', query: up } } }
    - { name: try-it, successCondition: result > 1, provider: { prometheus: { address: 'http://p:9090', query: up } } }
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: other }
spec:
  hosts: [other]
  http:
    - route: [{ destination: { host: other } }]
      mirrors:
        - { destination: { host: copy }, percentage: { value: 12.5 } }
        - { destination: { host: second } }
";
    let output = splitway(&["-", "--allow-partial"], text);
    let file = self::text(&output.stdout);
    assert!(file.contains("name: trial") && file.contains("name: kept"), "{file}");
    assert!(!file.contains("try-it"), "{file}");
    let mirror = "mirror: { from: other, to: copy, share: 12.5, methods: any }";
    assert!(file.contains(mirror), "{file}");
    let findings = self::text(&output.stderr);
    let second = "spec.http[0].mirrors[1].destination: is the second one";
    assert!(findings.contains(second), "{findings}");
}

#[test]
fn a_canary_of_a_host_that_nobody_serves_is_told() {
    let ingress = |name: &str, host: &str, notes: &str| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{ name: {name}, annotations: {{ {notes} }} }}\nspec: {{ rules: [{{ host: {host}, http: {{ paths: [{{ path: /, pathType: Prefix, backend: {{ service: {{ name: {name}, port: {{ number: 80 }} }} }} }}] }} }}] }}\n"
        )
    };
    let canary = "nginx.ingress.kubernetes.io/canary: 'true'";
    let text =
        ingress("api", "a.example.com", "") + &ingress("api-canary", "b.example.com", canary);
    let output = splitway(&["-"], &text);
    assert_eq!(output.status.code(), Some(3));
    let findings = self::text(&output.stderr);
    assert!(
        findings.contains("Ingress/api-canary spec.rules[0].http.paths[0]: is a canary of no"),
        "{findings}"
    );
}

#[test]
fn a_kustomization_is_told_of_and_not_taken_for_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["service.yaml", "stable.yaml", "canary.yaml"] {
        std::fs::copy(founding().join(name), folder.path().join(name)).unwrap();
    }
    let text = "kind: Kustomization\nresources: [service.yaml]\n";
    std::fs::write(folder.path().join("kustomization.yaml"), text).unwrap();
    let output = splitway(&[folder.path().to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(3));
    let said = self::text(&output.stderr);
    assert!(said.contains("Kustomization/kustomization: changes what stands beside it"), "{said}");
}
