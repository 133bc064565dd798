//! Istio's matching as its documentation has it, interpreted by itself, and asked the same as the
//! gateway with the imported file.

use std::fmt::Write;

use super::gateway_of;

/// A test on text, as Istio's StringMatch.
#[derive(Clone, Debug)]
enum Test {
    Exact(&'static str),
    Prefix(&'static str),
    Regex(&'static str),
    Present,
}

impl Test {
    fn yaml(&self) -> String {
        match self {
            Self::Exact(text) => format!("{{ exact: '{text}' }}"),
            Self::Prefix(text) => format!("{{ prefix: '{text}' }}"),
            Self::Regex(text) => format!("{{ regex: '{text}' }}"),
            Self::Present => "{}".into(),
        }
    }

    fn holds(&self, value: Option<&str>, ignores_case: bool) -> bool {
        let Some(value) = value else { return false };
        let fold = |text: &str| if ignores_case { text.to_lowercase() } else { text.to_owned() };
        match self {
            Self::Exact(text) => fold(value) == fold(text),
            Self::Prefix(text) => fold(value).starts_with(&fold(text)),
            // Istio's are anchored, and not folded.
            Self::Regex(text) => {
                let case = if ignores_case { "(?i)" } else { "" };
                regex::Regex::new(&format!("{case}^(?:{text})$")).unwrap().is_match(value)
            }
            Self::Present => true,
        }
    }
}

/// One HTTPMatchRequest: everything in it must hold.
#[derive(Clone, Debug, Default)]
struct Alternative {
    uri: Option<Test>,
    ignores_case: bool,
    method: Option<&'static str>,
    headers: Vec<(&'static str, Test)>,
    without: Vec<(&'static str, Test)>,
    query: Vec<(&'static str, Test)>,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: &'static str,
    pub path: &'static str,
    pub query: Vec<(&'static str, &'static str)>,
    pub headers: Vec<(&'static str, &'static str)>,
}

impl Request {
    /// As it is sent to a host.
    pub fn head(&self, host: &str) -> String {
        let query: Vec<_> =
            self.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        let mut head = format!(
            "{} {}{mark}{} HTTP/1.1\r\nhost: {host}\r\n",
            self.method,
            self.path,
            query.join("&")
        );
        for (name, value) in &self.headers {
            // Names are the same in upper and lower case.
            let name = if *value == "b" { name.to_uppercase() } else { (*name).to_owned() };
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        if self.method == "POST" {
            head.push_str("content-length: 0\r\n");
        }
        head + "\r\n"
    }
}

fn of<'v>(pairs: &[(&str, &'v str)], name: &str) -> Option<&'v str> {
    pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

impl Alternative {
    fn holds(&self, request: &Request) -> bool {
        self.uri.as_ref().is_none_or(|uri| uri.holds(Some(request.path), self.ignores_case))
            && self.method.is_none_or(|method| method == request.method)
            && self.headers.iter().all(|(name, test)| test.holds(of(&request.headers, name), false))
            && self
                .without
                .iter()
                .all(|(name, test)| !test.holds(of(&request.headers, name), false))
            && self.query.iter().all(|(name, test)| test.holds(of(&request.query, name), false))
    }

    fn yaml(&self) -> String {
        let mut parts = Vec::new();
        if let Some(uri) = &self.uri {
            parts.push(format!("uri: {}", uri.yaml()));
            if self.ignores_case {
                parts.push("ignoreUriCase: true".into());
            }
        }
        if let Some(method) = self.method {
            parts.push(format!("method: {{ exact: {method} }}"));
        }
        for (key, tests) in [
            ("headers", &self.headers),
            ("withoutHeaders", &self.without),
            ("queryParams", &self.query),
        ] {
            if !tests.is_empty() {
                let tests: Vec<_> =
                    tests.iter().map(|(name, test)| format!("{name}: {}", test.yaml())).collect();
                parts.push(format!("{key}: {{ {} }}", tests.join(", ")));
            }
        }
        format!("{{ {} }}", parts.join(", "))
    }
}

/// A small generator of numbers, so that the matrix is the same every time.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, most: usize) -> usize {
        // Steele and Vigna's SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % most as u64).unwrap()
    }

    pub fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    fn alternative(&mut self) -> Alternative {
        use Test::{Exact, Prefix, Present, Regex};
        let values =
            [Exact("a"), Exact("ab"), Prefix("a"), Regex("a|b"), Regex("a.*"), Present, Exact("A")];
        let mut found = Alternative::default();
        if self.below(3) > 0 {
            let paths = [
                Exact("/api"),
                Prefix("/api"),
                Prefix("/api/"),
                Prefix("/"),
                Regex("/api/v[0-9]+"),
                Exact("/a.b"),
                Prefix("/a.b"),
            ];
            found.uri = Some(self.one(&paths));
            found.ignores_case = self.below(4) == 0;
        }
        if self.below(4) == 0 {
            found.method = Some(self.one(&["GET", "POST"]));
        }
        if self.below(2) == 0 {
            found.headers.push(("x-a", self.one(&values)));
        }
        if self.below(4) == 0 {
            found.headers.push(("x-b", self.one(&values)));
        }
        if self.below(4) == 0 {
            found.without.push(("x-c", self.one(&values)));
        }
        if self.below(4) == 0 {
            found.query.push(("q", self.one(&values)));
        }
        if found.uri.is_none() && found.method.is_none() && found.headers.is_empty() {
            found.headers.push(("x-a", Present));
        }
        found
    }

    fn request(&mut self) -> Request {
        let paths = [
            "/", "/api", "/apix", "/api/", "/api/v1", "/api/vx", "/API", "/Api/x", "/a.b", "/axb",
            "/a.bc",
        ];
        let mut request = Request {
            method: self.one(&["GET", "POST", "GET"]),
            path: self.one(&paths),
            query: Vec::new(),
            headers: Vec::new(),
        };
        for name in ["x-a", "x-b", "x-c"] {
            if self.below(2) == 0 {
                request.headers.push((name, self.one(&["a", "ab", "b", "A", "c"])));
            }
        }
        if self.below(2) == 0 {
            request.query.push(("q", self.one(&["a", "ab", "b", "c"])));
        }
        request
    }
}

/// Routes in their order, each with its alternatives and subset; the last for everybody, if any.
type Routes = Vec<(Vec<Alternative>, &'static str)>;

fn manifest(host: &str, routes: &Routes) -> String {
    let mut text = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{ name: {host} }}\nspec:\n  hosts: [{host}]\n  http:\n"
    );
    for (alternatives, subset) in routes {
        let alternatives: Vec<_> = alternatives.iter().map(Alternative::yaml).collect();
        let matches = match &alternatives[..] {
            [] => String::new(),
            all => format!("match: [{}], ", all.join(", ")),
        };
        writeln!(
            text,
            "    - {{ {matches}route: [{{ destination: {{ host: {host}, subset: {subset} }} }}] }}"
        )
        .unwrap();
    }
    text
}

#[test]
fn an_interpreter_of_istio_and_the_imported_file_agree() {
    let mut dice = Dice(7);
    let mut all = Vec::new();
    for number in 0..60 {
        let mut routes: Routes = (0..=dice.below(4))
            .map(|_| {
                let alternatives = (0..=dice.below(2)).map(|_| dice.alternative()).collect();
                (alternatives, dice.one(&["a", "b", "c"]))
            })
            .collect();
        if dice.below(4) > 0 {
            routes.push((Vec::new(), dice.one(&["a", "b", "c"])));
        }
        all.push((format!("h{number}"), routes));
    }
    let text: Vec<String> = all.iter().map(|(host, routes)| manifest(host, routes)).collect();
    let (gateway, _, _servers) = gateway_of(text.join("---\n"), &["a", "b", "c"]);
    let mut client = gateway.connect();
    let mut seen = std::collections::BTreeMap::new();
    for (host, routes) in &all {
        for _ in 0..50 {
            let request = dice.request();
            let fits = |(alternatives, _): &&(Vec<Alternative>, _)| {
                alternatives.is_empty() || alternatives.iter().any(|one| one.holds(&request))
            };
            let wanted = routes.iter().find(fits).map_or("none", |(_, subset)| *subset);
            client.send(request.head(host));
            let response = client.response();
            assert_eq!(response.track(), wanted, "{request:?}\n{}", manifest(host, routes));
            assert_eq!(response.status == 404, wanted == "none");
            *seen.entry(wanted).or_insert(0) += 1;
        }
    }
    // A matrix that always says the same would show nothing.
    assert!(seen.len() == 4 && seen.values().all(|&count| count > 100), "{seen:?}");
}
