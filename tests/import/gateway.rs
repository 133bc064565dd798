//! `HTTPRoute` as its specification has it, interpreted by itself, and asked the same as the gateway with
//! the imported file.

use std::fmt::Write;

use super::gateway_of;
use super::reference::{Dice, Request};

#[derive(Clone, Debug, Default)]
struct Match {
    /// Exact, and the path.
    path: Option<(bool, &'static str)>,
    method: Option<&'static str>,
    headers: Vec<(&'static str, &'static str)>,
    query: Vec<(&'static str, &'static str)>,
}

#[derive(Clone, Debug)]
struct Rule {
    matches: Vec<Match>,
    /// Empty: nobody answers, which is 500.
    backend: &'static str,
}

impl Match {
    fn fits(&self, request: &Request) -> bool {
        let path = match self.path {
            None => true,
            Some((true, path)) => request.path == path,
            // "Matching is done on a path element by element basis", and a slash at the end says nothing.
            Some((false, path)) => {
                let mut given = request.path.split('/').filter(|part| !part.is_empty());
                path.split('/')
                    .filter(|part| !part.is_empty())
                    .all(|part| given.next() == Some(part))
            }
        };
        let has = |pairs: &[(&str, &str)], wanted: &(&str, &str)| pairs.contains(wanted);
        path && self.method.is_none_or(|method| method == request.method)
            && self.headers.iter().all(|one| has(&request.headers, one))
            && self.query.iter().all(|one| has(&request.query, one))
    }

    /// "Exact" path match, the number of characters in a matching "Prefix" path match, method match, the
    /// largest number of header matches, of query param matches.
    fn rank(&self) -> (bool, usize, bool, usize, usize) {
        let (is_exact, path) = self.path.unwrap_or((false, "/"));
        let length = if is_exact { 0 } else { path.trim_end_matches('/').len() };
        (is_exact, length, self.method.is_some(), self.headers.len(), self.query.len())
    }

    fn yaml(&self) -> String {
        let mut parts = Vec::new();
        if let Some((is_exact, path)) = self.path {
            let kind = if is_exact { "Exact" } else { "PathPrefix" };
            parts.push(format!("path: {{ type: {kind}, value: {path} }}"));
        }
        parts.extend(self.method.map(|method| format!("method: {method}")));
        for (key, pairs) in [("headers", &self.headers), ("queryParams", &self.query)] {
            let pairs: Vec<_> = pairs
                .iter()
                .map(|(name, value)| format!("{{ name: {name}, value: {value} }}"))
                .collect();
            if !pairs.is_empty() {
                parts.push(format!("{key}: [{}]", pairs.join(", ")));
            }
        }
        format!("{{ {} }}", parts.join(", "))
    }
}

/// Whoever has the highest rank; among equals the first rule.
fn chosen(rules: &[Rule], request: &Request) -> Option<&'static str> {
    let mut best: Option<(&Rule, _)> = None;
    for rule in rules {
        let everything = [Match::default()];
        let matches = if rule.matches.is_empty() { &everything[..] } else { &rule.matches };
        for one in matches.iter().filter(|one| one.fits(request)) {
            if best.is_none_or(|(_, rank)| one.rank() > rank) {
                best = Some((rule, one.rank()));
            }
        }
    }
    best.map(|(rule, _)| rule.backend)
}

fn manifest(number: usize, rules: &[Rule]) -> String {
    let mut text = format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: r{number} }}\nspec:\n  hostnames: [h{number}.example.com]\n  rules:\n"
    );
    for rule in rules {
        let matches: Vec<_> = rule.matches.iter().map(Match::yaml).collect();
        let matches = match &matches[..] {
            [] => String::new(),
            all => format!("matches: [{}], ", all.join(", ")),
        };
        let backends = match rule.backend {
            "" => "backendRefs: []".to_owned(),
            name => format!("backendRefs: [{{ name: svc-{name}, port: 80 }}]"),
        };
        writeln!(text, "    - {{ {matches}{backends} }}").unwrap();
    }
    text
}

impl Dice {
    fn pairs(
        &mut self,
        names: &[&'static str],
        rarely: usize,
    ) -> Vec<(&'static str, &'static str)> {
        let mut found = Vec::new();
        for name in names {
            if self.below(rarely) == 0 {
                found.push((*name, self.one(&["a", "b"])));
            }
        }
        found
    }

    fn rule(&mut self) -> Rule {
        let mut matches = Vec::new();
        for _ in 0..self.below(3) {
            let paths = [
                None,
                Some((false, "/")),
                Some((false, "/api")),
                Some((false, "/api/")),
                Some((false, "/api/v1")),
                Some((true, "/api")),
                Some((true, "/api/v1")),
            ];
            matches.push(Match {
                path: self.one(&paths),
                method: self.one(&[None, None, Some("GET"), Some("POST")]),
                headers: self.pairs(&["x-a", "x-b"], 3),
                query: self.pairs(&["q", "r"], 4),
            });
        }
        Rule { matches, backend: self.one(&["a", "b", "c", "d", ""]) }
    }
}

#[test]
fn an_interpreter_of_http_routes_and_the_imported_file_agree() {
    let mut dice = Dice(5);
    let all: Vec<Vec<Rule>> =
        (0..80).map(|_| (0..=dice.below(4)).map(|_| dice.rule()).collect()).collect();
    let text: String =
        all.iter().enumerate().map(|(number, rules)| manifest(number, rules)).collect();
    let (gateway, file, _servers) = gateway_of(text, &["a", "b", "c", "d"]);
    let mut client = gateway.connect();
    let mut seen = std::collections::BTreeMap::new();
    for (number, rules) in all.iter().enumerate() {
        for _ in 0..60 {
            let request = Request {
                method: dice.one(&["GET", "POST"]),
                path: dice.one(&["/", "/api", "/api/", "/apix", "/api/v1", "/api/v1/x", "/api/v2"]),
                headers: dice.pairs(&["x-a", "x-b"], 2),
                query: dice.pairs(&["q", "r"], 2),
            };
            client.send(request.head(&format!("h{number}.example.com")));
            let response = client.response();
            let wanted = match chosen(rules, &request) {
                None => (404, "none"),
                Some("") => (500, "none"),
                Some(name) => (200, name),
            };
            let manifest = || manifest(number, rules);
            assert_eq!(
                (response.status, response.track()),
                wanted,
                "{request:?}\n{}\n{file}",
                manifest()
            );
            *seen.entry(wanted).or_insert(0) += 1;
        }
    }
    assert!(seen.len() == 6 && seen.values().all(|&count| count > 100), "{seen:?}");
}

#[test]
fn weights_of_a_million_are_shares() {
    let text = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: api }
spec:
  rules:
    - backendRefs:
        - { name: svc-a, port: 80, weight: 950000 }
        - { name: svc-b, port: 80, weight: 50000 }
        - { name: svc-c, port: 80, weight: 0 }
";
    let (gateway, _, _servers) = gateway_of(text.into(), &["a", "b", "c"]);
    let mut client = gateway.connect();
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..4_000 {
        client.send("GET / HTTP/1.1\r\nhost: anybody\r\n\r\n");
        *counts.entry(client.response().track().to_owned()).or_insert(0) += 1;
    }
    assert!(!counts.contains_key("c"), "{counts:?}");
    // 200 are due; five standard deviations are 69.
    assert!((131..=269).contains(&counts["b"]), "{counts:?}");
}
