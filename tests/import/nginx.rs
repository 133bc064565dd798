//! ingress-nginx as its documentation has it, interpreted by itself, and asked the same as the gateway
//! with the imported file.

use std::fmt::Write;
use std::path::Path;

use splitway::import::finding::Grade;
use splitway::import::{Source, import};

use super::reference::Dice;
use super::{gateway_of, splitway, text, with_servers};
use crate::support::{Certificates, Gateway, Upstream, tools};

/// A path of a host, who answers, and whose canary.
#[derive(Clone, Debug)]
struct Location {
    kind: &'static str,
    path: &'static str,
    backend: &'static str,
    canary: Option<Canary>,
}

#[derive(Clone, Debug)]
struct Canary {
    backend: &'static str,
    header: bool,
    value: Option<&'static str>,
    pattern: Option<&'static str>,
    cookie: bool,
    /// 0 or 100, so that a request has one answer.
    weight: u32,
}

#[derive(Clone, Debug)]
struct Request {
    path: &'static str,
    header: Option<&'static str>,
    cookie: Option<&'static str>,
}

impl Canary {
    /// "Canary rules are evaluated in order of precedence": by header, then by cookie, then by weight.
    fn takes(&self, request: &Request) -> bool {
        if let (true, Some(header)) = (self.header, request.header) {
            if let Some(value) = self.value {
                if header == value {
                    return true;
                }
            } else if let Some(pattern) = self.pattern {
                if regex::Regex::new(pattern).unwrap().is_match(header) {
                    return true;
                }
            } else if header == "always" {
                return true;
            } else if header == "never" {
                return false;
            }
        }
        if let (true, Some(cookie)) = (self.cookie, request.cookie) {
            if cookie == "always" {
                return true;
            } else if cookie == "never" {
                return false;
            }
        }
        self.weight == 100
    }

    fn annotations(&self) -> String {
        let mut text = String::new();
        let mut add = |name: &str, value: &str| {
            writeln!(text, "    nginx.ingress.kubernetes.io/{name}: '{value}'").unwrap();
        };
        add("canary", "true");
        if self.header {
            add("canary-by-header", "x-canary");
        }
        if let Some(value) = self.value {
            add("canary-by-header-value", value);
        }
        if let Some(pattern) = self.pattern {
            add("canary-by-header-pattern", pattern);
        }
        if self.cookie {
            add("canary-by-cookie", "group");
        }
        add("canary-weight", &self.weight.to_string());
        text
    }
}

/// Which location nginx chooses: exact, else the longest prefix. With one regular expression on a host
/// all of its paths are, without regard to case, and the longest text is asked first.
fn chosen<'l>(locations: &'l [Location], is_regex: bool, path: &str) -> Option<&'l Location> {
    let fits = |location: &Location| {
        if is_regex {
            let pattern = format!("(?i)^{}", location.path);
            return regex::Regex::new(&pattern).unwrap().is_match(path);
        }
        match location.kind {
            "Exact" => path == location.path,
            // "Matching is done on a path element by element basis."
            "Prefix" => {
                let wanted = location.path.split('/').filter(|part| !part.is_empty());
                let mut given = path.split('/').filter(|part| !part.is_empty());
                wanted.into_iter().all(|part| given.next() == Some(part))
            }
            _ => path.starts_with(location.path),
        }
    };
    let rank = |location: &&Location| {
        let is_first = !is_regex && location.kind == "Exact";
        (is_first, location.path.len(), location.path)
    };
    locations.iter().filter(|one| fits(one)).max_by_key(rank)
}

/// The path that nginx's locations see: decoded, slashes merged, dots resolved.
fn normalized(path: &str) -> String {
    let mut decoded = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let mut digit = || char::from(bytes.next().unwrap()).to_digit(16).unwrap();
        decoded.push(if byte == b'%' { (digit() * 16 + digit()) as u8 } else { byte });
    }
    let decoded = String::from_utf8(decoded).unwrap();
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    let ends = ["/", "/.", "/.."].iter().any(|end| decoded.ends_with(end));
    format!("/{}{}", segments.join("/"), if ends && !segments.is_empty() { "/" } else { "" })
}

fn manifest(host: &str, locations: &[Location], is_regex: bool) -> String {
    let mut text = String::new();
    let mut ingress = |name: &str, notes: &str, of: &[(&str, &str, &str)]| {
        let notes =
            if notes.is_empty() { String::new() } else { format!("\n  annotations:\n{notes}") };
        let notes = notes.trim_end();
        write!(
            text,
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}{notes}\nspec:\n  rules:\n    - host: {host}\n      http:\n        paths:\n"
        )
        .unwrap();
        for (kind, path, backend) in of {
            writeln!(
                text,
                "          - {{ pathType: {kind}, path: '{path}', backend: {{ service: {{ name: svc-{backend}, port: {{ number: 80 }} }} }} }}"
            )
            .unwrap();
        }
    };
    let mains: Vec<_> = locations.iter().map(|one| (one.kind, one.path, one.backend)).collect();
    let notes = if is_regex { "    nginx.ingress.kubernetes.io/use-regex: 'true'\n" } else { "" };
    ingress(host, notes, &mains);
    for (index, one) in locations.iter().enumerate() {
        if let Some(canary) = &one.canary {
            let name = format!("{host}-canary-{index}");
            ingress(&name, &canary.annotations(), &[(one.kind, one.path, canary.backend)]);
        }
    }
    text
}

impl Dice {
    fn canary(&mut self, main: &str) -> Canary {
        let others: Vec<_> = ["a", "b", "c", "d"].into_iter().filter(|one| *one != main).collect();
        Canary {
            backend: self.one(&others),
            header: self.below(3) > 0,
            value: self.one(&[None, None, Some("beta")]),
            pattern: self.one(&[None, Some("^be"), Some("ta$|^al"), Some("a")]),
            cookie: self.below(2) == 0,
            weight: self.one(&[0, 0, 100]),
        }
    }

    fn locations(&mut self, is_regex: bool) -> Vec<Location> {
        let paths: &[(&str, &str)] = if is_regex {
            &[
                ("ImplementationSpecific", "/"),
                ("Prefix", "/api"),
                ("ImplementationSpecific", "/api/v[0-9]+"),
                ("Exact", "/a.b"),
                ("ImplementationSpecific", "/x/(one|two)$"),
            ]
        } else {
            &[
                ("Prefix", "/"),
                ("ImplementationSpecific", "/"),
                ("Prefix", "/api"),
                ("Exact", "/api"),
                ("Prefix", "/api/v1"),
                ("ImplementationSpecific", "/api/v"),
                ("Exact", "/a.b"),
                ("Prefix", "/x"),
                ("ImplementationSpecific", "/x/"),
            ]
        };
        let mut found: Vec<Location> = Vec::new();
        for _ in 0..=self.below(4) {
            let (kind, path) = self.one(paths);
            // nginx knows a path of a kind once, and `/` is the same as either.
            let is_known = |one: &Location| one.path == path && (one.kind == kind || path == "/");
            if found.iter().any(is_known) {
                continue;
            }
            let backend = self.one(&["a", "b", "c", "d"]);
            let canary = (self.below(2) == 0).then(|| self.canary(backend));
            found.push(Location { kind, path, backend, canary });
        }
        found
    }
}

#[test]
fn an_interpreter_of_ingress_nginx_and_the_imported_file_agree() {
    let mut dice = Dice(11);
    let mut all = Vec::new();
    for number in 0..80 {
        let is_regex = dice.below(4) == 0;
        all.push((format!("h{number}.example.com"), dice.locations(is_regex), is_regex));
    }
    let text: Vec<String> =
        all.iter().map(|(host, locations, is)| manifest(host, locations, *is)).collect();
    let (gateway, file, _servers) = gateway_of(text.concat(), &["a", "b", "c", "d"]);
    let mut client = gateway.connect();
    let mut seen = std::collections::BTreeMap::new();
    let paths = [
        "/",
        "/api",
        "/apix",
        "/api/",
        "/api/v1",
        "/api/v1/x",
        "/api/v12",
        "/API/V1",
        "/a.b",
        "/axb",
        "/a.b/c",
        "/x",
        "/x/one",
        "/x/oneone",
        "/xy",
        "/%61pi",
        "//api",
        "/%41pi/v%31",
        "/./api//v1/%78",
        "/x/../api/",
        "/y/%2e%2e/api/v1/../v12",
        "/a%2eb",
        "/%78/o%6ee",
        "/api%2fv1",
        "/y/..%2Fx",
    ];
    for (host, locations, is_regex) in &all {
        for _ in 0..60 {
            let values =
                [None, Some("always"), Some("never"), Some("beta"), Some("alpha"), Some("other")];
            let request = Request {
                path: dice.one(&paths),
                header: dice.one(&values),
                cookie: dice.one(&values),
            };
            let wanted = chosen(locations, *is_regex, &normalized(request.path)).map_or(
                "none",
                |location| match &location.canary {
                    Some(canary) if canary.takes(&request) => canary.backend,
                    _ => location.backend,
                },
            );
            let mut head = format!("GET {} HTTP/1.1\r\nhost: {host}\r\n", request.path);
            if let Some(value) = request.header {
                write!(head, "x-canary: {value}\r\n").unwrap();
            }
            if let Some(value) = request.cookie {
                write!(head, "cookie: z=1; group={value}\r\n").unwrap();
            }
            client.send(format!("{head}\r\n"));
            let response = client.response();
            // What servers read differently goes no further where a path decides.
            let is_refused = matches!(response.status, 400 | 404);
            if is_refused && request.path.to_lowercase().contains("%2f") {
                continue;
            }
            let manifest = || manifest(host, locations, *is_regex);
            assert_eq!(response.track(), wanted, "{request:?}\n{}\n{file}", manifest());
            assert_eq!(response.status == 404, wanted == "none", "{request:?}\n{}", manifest());
            *seen.entry(wanted).or_insert(0) += 1;
        }
    }
    assert!(seen.len() == 5 && seen.values().all(|&count| count > 200), "{seen:?}");
}

#[test]
fn a_weight_of_a_total_is_that_share() {
    let canary = |total: &str| {
        format!(
            "    nginx.ingress.kubernetes.io/canary: 'true'\n    nginx.ingress.kubernetes.io/canary-weight: '60'\n{total}"
        )
    };
    let ingress = |name: &str, notes: &str, backend: &str| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\n  annotations:\n{notes}spec:\n  rules:\n    - host: api.example.com\n      http:\n        paths: [{{ pathType: Prefix, path: /, backend: {{ service: {{ name: svc-{backend}, port: {{ number: 80 }} }} }} }}]\n"
        )
    };
    let main = "    nginx.ingress.kubernetes.io/whitelist-source-range: 127.0.0.0/8\n";
    for (total, low, high) in [
        // 1,200 and 200 of 2,000 are due; five standard deviations are 110 and 68.
        ("", 1_090, 1_310),
        ("    nginx.ingress.kubernetes.io/canary-weight-total: '600'\n", 132, 268),
    ] {
        let text = ingress("api", main, "a") + &ingress("api-canary", &canary(total), "b");
        let (gateway, _, _servers) = gateway_of(text, &["a", "b"]);
        let mut client = gateway.connect();
        let mut count = 0;
        for _ in 0..2_000 {
            client.send("GET / HTTP/1.1\r\nhost: api.example.com\r\n\r\n");
            count += u32::from(client.response().track() == "b");
        }
        assert!((low..=high).contains(&count), "{count}");
    }
}

#[test]
fn who_is_not_on_the_list_is_answered_403() {
    let text = "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: api
  annotations: { nginx.ingress.kubernetes.io/allowlist-source-range: '10.0.0.0/8,192.168.0.0/16' }
spec:
  rules:
    - http: { paths: [{ pathType: Prefix, path: /, backend: { service: { name: svc-a, port: { number: 80 } } } }] }
";
    let imported = import(&[Source { name: "api.yaml".into(), text: text.into() }]).unwrap();
    let stable = Upstream::track("a");
    let servers = [("a", stable.address.to_string())];
    let file = with_servers(&imported.text.unwrap(), &servers);
    let gateway = Gateway::start(&format!("trusted_proxies: [127.0.0.0/8]\n{file}"));
    let mut client = gateway.connect();
    for (source, status) in [("10.1.2.3", 200), ("192.168.7.7", 200), ("172.16.0.1", 403)] {
        client.send(format!("GET / HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {source}\r\n\r\n"));
        assert_eq!(client.response().status, status, "{source}");
    }
}

#[test]
fn other_sites_are_answered_as_by_ingress_nginx() {
    let text = "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: api
  annotations:
    nginx.ingress.kubernetes.io/enable-cors: 'true'
    nginx.ingress.kubernetes.io/cors-allow-origin: https://shop.example.com
    nginx.ingress.kubernetes.io/cors-expose-headers: x-total
    nginx.ingress.kubernetes.io/cors-max-age: '600'
spec:
  rules:
    - http: { paths: [{ pathType: Prefix, path: /, backend: { service: { name: svc-a, port: { number: 80 } } } }] }
";
    let (gateway, _, _servers) = gateway_of(text.into(), &["a"]);
    let mut client = gateway.connect();
    client.send(
        "OPTIONS /x HTTP/1.1\r\nhost: x\r\norigin: https://shop.example.com\r\naccess-control-request-method: PUT\r\n\r\n",
    );
    let answer = client.head();
    assert_eq!(answer.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "https://shop.example.com"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "GET, PUT, POST, DELETE, PATCH, OPTIONS"),
        ("access-control-max-age", "600"),
    ] {
        assert_eq!(answer.header(name), Some(value));
    }
    // OPTIONS that asks nothing ahead is the service's.
    client.send("OPTIONS /x HTTP/1.1\r\nhost: x\r\norigin: https://shop.example.com\r\n\r\n");
    let answer = client.response();
    assert_eq!((answer.status, answer.track()), (200, "a"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://shop.example.com"));
    assert_eq!(answer.header("access-control-expose-headers"), Some("x-total"));
    assert_eq!(answer.header("access-control-allow-methods"), None);
}

#[test]
fn a_host_whose_paths_all_have_no_counterpart_is_left_out() {
    let text = "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: api, annotations: { nginx.ingress.kubernetes.io/use-regex: 'true' } }
spec:
  rules:
    - http: { paths: [{ path: /(?!a), backend: { service: { name: svc-a, port: { number: 80 } } } }] }
";
    let imported = import(&[Source { name: "api.yaml".into(), text: text.into() }]).unwrap();
    assert_eq!(imported.text, None);
    assert_eq!(imported.grade(), Grade::Unsupported);
}

#[test]
fn nobody_is_let_in_where_what_guarded_a_path_has_no_counterpart() {
    let ingress = |name: &str, path: &str, notes: &str| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\n  annotations: {{ {notes} }}\nspec:\n  rules:\n    - http: {{ paths: [{{ path: {path}, pathType: ImplementationSpecific, backend: {{ service: {{ name: svc-a, port: {{ number: 80 }} }} }} }}] }}\n"
        )
    };
    let text = ingress("open", "/", "")
        + &ingress("admin", "/admin", "nginx.ingress.kubernetes.io/auth-url: http://auth")
        + &ingress("swap", "/(a)/(b)", "nginx.ingress.kubernetes.io/rewrite-target: /$2/$1");
    let (gateway, file, _servers) = gateway_of(text, &["a"]);
    let mut client = gateway.connect();
    for (path, status) in [("/", 200), ("/admin", 503), ("/ADMIN/x", 503), ("/a/b", 503)] {
        client.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"));
        assert_eq!(client.response().status, status, "{path}\n{file}");
    }
}

#[test]
fn the_header_of_a_rollout_leads_nobody_past_the_list_of_its_ingress() {
    let text = "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: api
  annotations: { nginx.ingress.kubernetes.io/whitelist-source-range: 10.0.0.0/8 }
spec:
  rules:
    - http: { paths: [{ pathType: Prefix, path: /, backend: { service: { name: svc-a, port: { number: 80 } } } }] }
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: { name: api }
spec:
  strategy:
    canary:
      stableService: svc-a
      canaryService: svc-b
      trafficRouting: { nginx: { stableIngress: api } }
      steps:
        - setHeaderRoute: { name: h, match: [{ headerName: x-canary, headerValue: { exact: 'yes' } }] }
        - setWeight: 10
";
    let imported = import(&[Source { name: "api.yaml".into(), text: text.into() }]).unwrap();
    let (stable, canary) = (Upstream::track("a"), Upstream::track("b"));
    let servers = [("a", stable.address.to_string()), ("b", canary.address.to_string())];
    let file = with_servers(&imported.text.unwrap(), &servers);
    let gateway = Gateway::start(&format!("trusted_proxies: [127.0.0.0/8]\n{file}"));
    let mut client = gateway.connect();
    for (source, status) in [("10.1.2.3", 200), ("172.16.0.1", 403)] {
        client.send(format!(
            "GET / HTTP/1.1\r\nhost: x\r\nx-canary: yes\r\nx-forwarded-for: {source}\r\n\r\n"
        ));
        let answer = client.response();
        assert_eq!(answer.status, status, "{file}");
        assert_eq!(answer.track(), if status == 200 { "b" } else { "none" });
    }
}

/// A host with an exact path is one service with several Services of Kubernetes as its tracks.
#[test]
fn a_rollout_moves_its_own_service_and_no_other_of_the_host() {
    let ingress = |cart: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{ name: shop }}
spec:
  rules:
    - host: shop.example.com
      http:
        paths:
          - {{ pathType: Exact, path: /cart, backend: {{ service: {{ name: {cart}, port: {{ number: 80 }} }} }} }}
          - {{ pathType: Prefix, path: /, backend: {{ service: {{ name: svc-b, port: {{ number: 80 }} }} }} }}
---
"
        )
    };
    let argo = "apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: { name: r }
spec:
  strategy:
    canary:
      stableService: svc-b
      canaryService: svc-b-canary
      trafficRouting: { nginx: { stableIngress: shop } }
      steps: [{ setWeight: 10 }]
";
    let flagger = "apiVersion: flagger.app/v1beta1
kind: Canary
metadata: { name: c }
spec:
  targetRef: { kind: Deployment, name: svc-b }
  ingressRef: { name: shop }
  service: { port: 80 }
  analysis: { stepWeight: 50 }
";
    for (cart, plan, has_rollout, says) in [
        ("svc-a", argo, false, "where others answer, too"),
        ("svc-a", flagger, false, "where others answer, too"),
        ("svc-b", argo, true, "does not move rules by path"),
        ("svc-b", flagger, true, "does not move rules by path"),
    ] {
        let text = ingress(cart) + plan;
        let imported = import(&[Source { name: "all.yaml".into(), text }]).unwrap();
        assert_eq!(imported.grade(), Grade::Unsupported);
        assert!(imported.findings.iter().any(|finding| finding.message.contains(says)));
        let file = imported.text.unwrap();
        assert_eq!(file.contains("rollout:"), has_rollout, "{file}");
    }
}

/// As somebody comes over: the pair of the page, imported, its Secret mounted, checked and run.
#[test]
fn the_pair_of_the_page_becomes_an_edge_with_tls() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/from-ingress-nginx.md");
    let page = std::fs::read_to_string(page).unwrap();
    let pair = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let certificates = Certificates::new();
    std::fs::create_dir_all(certificates.path("tls/api-tls")).unwrap();
    certificates.issue("tls/api-tls/tls", &["api.example.com"]);
    let written = certificates.path("imported.yaml");
    let output = splitway(&["-", "--out", written.to_str().unwrap()], pair);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let check = std::process::Command::new(env!("CARGO_BIN_EXE_splitway"))
        .args(["check", written.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", text(&check.stderr));
    let (stable, canary) = (Upstream::track("stable"), Upstream::track("canary"));
    let file = std::fs::read_to_string(&written).unwrap();
    let file = ["0.0.0.0:8080", "0.0.0.0:8443"]
        .iter()
        .fold(file, |file, address| file.replace(address, "'127.0.0.1:0'"))
        .replace("[api:8000]", &format!("['{}']", stable.address))
        .replace("[api-canary:8000]", &format!("['{}']", canary.address));
    let Certificates { folder, .. } = certificates;
    let ca = folder.path().join("ca.crt").display().to_string();
    let gateway = Gateway::start_in(folder, "workers: 2\n", &file, &[]);
    let [clear, secure] = gateway.listeners[..] else { panic!("{:?}", gateway.listeners) };
    let Some(curl) = tools::program("curl", "curl") else { return };
    let ask = |more: &[&str], url: &str, port: u16| {
        let resolve = format!("api.example.com:{port}:127.0.0.1");
        let output = std::process::Command::new(&curl)
            .args(["-sSi", "--max-time", "20", "--cacert", &ca, "--resolve", &resolve])
            .args(more)
            .arg(format!("{url}:{port}/orders"))
            .output()
            .unwrap();
        text(&output.stdout) + &text(&output.stderr)
    };
    let answer = ask(&[], "http://api.example.com", clear.port());
    assert!(
        answer.contains("308") && answer.contains("https://api.example.com/orders"),
        "{answer}"
    );
    for (more, track) in [(&["-H", "canary: true"][..], "canary"), (&[], "")] {
        let answer = ask(more, "https://api.example.com", secure.port());
        assert!(answer.contains("200") && answer.contains("x-track: "), "{answer}");
        assert!(answer.contains(&format!("x-track: {track}")), "{answer}");
        assert!(answer.contains("strict-transport-security: max-age=31536000"), "{answer}");
    }
}

#[test]
fn a_guarded_path_is_guarded_in_every_spelling() {
    let ingress = |name: &str, notes: &str, path: &str| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\n  annotations: {{ {notes} }}\nspec:\n  rules:\n    - host: shop.example.com\n      http: {{ paths: [{{ pathType: Prefix, path: {path}, backend: {{ service: {{ name: svc-a, port: {{ number: 80 }} }} }} }}] }}\n"
        )
    };
    let guard = "nginx.ingress.kubernetes.io/allowlist-source-range: 10.0.0.0/8";
    let text = ingress("shop", "a: b", "/") + &ingress("admin", guard, "/admin");
    let (gateway, file, _servers) = gateway_of(text, &["a"]);
    for (target, status) in crate::paths::SPELLINGS {
        let mut client = gateway.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nhost: shop.example.com\r\n\r\n"));
        assert_eq!(client.response().status, *status, "{target}\n{file}");
    }
}

#[test]
fn paths_that_nginx_compares_decoded_are_spelled_as_requests_are() {
    let text = "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: shop }
spec:
  rules:
    - host: shop.example.com
      http:
        paths:
          - { pathType: Prefix, path: /caf\u{e9}, backend: { service: { name: svc-a, port: { number: 80 } } } }
          - { pathType: Exact, path: '/a b%c', backend: { service: { name: svc-b, port: { number: 80 } } } }
";
    let (gateway, file, _servers) = gateway_of(text.to_owned(), &["a", "b"]);
    for (target, track) in [("/caf%c3%a9/x", "a"), ("/a%20b%25c", "b"), ("/cafe", "none")] {
        let mut client = gateway.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nhost: shop.example.com\r\n\r\n"));
        assert_eq!(client.response().track(), track, "{target}\n{file}");
    }
}
