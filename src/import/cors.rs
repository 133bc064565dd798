//! Answers to browsers of other sites (CORS): a rule for what they ask ahead, fields for the rest. Fields
//! are fixed here, so that it can be one origin, or all.

use super::draft::{Yaml, map, plain, text};
use super::manifest::{Field, Fields};

/// What a site of another origin may do.
#[derive(Debug, Default)]
pub(super) struct Cors {
    pub(super) origins: Vec<String>,
    pub(super) methods: Vec<String>,
    pub(super) headers: Vec<String>,
    pub(super) expose: Vec<String>,
    pub(super) credentials: bool,
    pub(super) max_age_s: Option<u64>,
    /// 200 or 204.
    pub(super) status: u16,
}

impl Cors {
    /// What can be had of it: the rule's parts for what is asked ahead, and fields of all answers; `None`
    /// where the origin is none that is fixed, which is said.
    pub(super) fn parts(&self, field: &Field<'_>) -> Option<Parts> {
        let [origin] = &self.origins[..] else {
            field.unsupported("names several origins, and fields of answers are fixed here; write `headers.response` for one, or let the service answer");
            return None;
        };
        let is_any = origin == "*";
        if origin.contains('*') && !is_any {
            field.unsupported("names a pattern of origins, and fields of answers are fixed here; let the service answer");
            return None;
        }
        if is_any && self.credentials {
            field.differs(
                "lets anybody in with credentials, which browsers refuse; it is written without",
            );
        } else {
            field
                .differs("is said on every answer, also to those who do not ask from another site");
        }
        let mut fields = vec![("access-control-allow-origin".to_owned(), text(&**origin))];
        if self.credentials && !is_any {
            fields.push(("access-control-allow-credentials".to_owned(), text("true")));
        }
        let mut ahead = fields.clone();
        let list = |to: &mut Vec<(String, Yaml)>, name: &str, words: &[String]| {
            if !words.is_empty() {
                to.push((name.to_owned(), text(words.join(", "))));
            }
        };
        list(&mut ahead, "access-control-allow-methods", &self.methods);
        list(&mut ahead, "access-control-allow-headers", &self.headers);
        list(&mut fields, "access-control-expose-headers", &self.expose);
        if let Some(seconds) = self.max_age_s {
            ahead.push(("access-control-max-age".to_owned(), text(seconds.to_string())));
        }
        let present = || map([("present", plain(true))]);
        let origin = if is_any { present() } else { text(&**origin) };
        let tests = map([("origin", origin), ("access-control-request-method", present())]);
        let answer = map([("status", plain(self.status)), ("headers", Yaml::Map(ahead))]);
        Some(Parts { tests, answer, fields })
    }

    /// As Istio, Flagger and Gateway API write it.
    pub(super) fn read(field: &Field<'_>, status: u16) -> Self {
        let fields = field.map();
        let list = |key: &str| -> Vec<String> {
            let listed = fields.get(key).map(|list| list.list()).unwrap_or_default();
            listed.iter().filter_map(Field::text).map(str::to_owned).collect()
        };
        let mut found = Self {
            methods: list("allowMethods"),
            headers: list("allowHeaders"),
            expose: list("exposeHeaders"),
            credentials: fields.text("allowCredentials") == Some("true"),
            status,
            ..Self::default()
        };
        found.max_age_s = fields.get("maxAge").and_then(|age| Some(age.duration_ms()? / 1_000));
        for origin in fields.get("allowOrigins").map(|list| list.list()).unwrap_or_default() {
            found.origins.push(if origin.is_map() {
                exactly(&origin.map())
            } else {
                origin.text().unwrap_or("*").to_owned()
            });
        }
        // The old form of Istio.
        found.origins.extend(list("allowOrigin"));
        fields.skip(&["unmatchedPreflights"]);
        fields.finish();
        found
    }
}

/// The origin of a test on text; other tests are patterns.
fn exactly(test: &Fields<'_>) -> String {
    let exact = test.text("exact").map(str::to_owned);
    let other = ["prefix", "regex"].iter().find_map(|key| test.text(key));
    exact.or_else(|| other.map(|text| format!("{text}*"))).unwrap_or_else(|| "*".to_owned())
}

/// What it becomes.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    /// Tests on the fields of what is asked ahead.
    tests: Yaml,
    /// The answer to it.
    answer: Yaml,
    /// Fields of all other answers.
    pub(super) fields: Vec<(String, Yaml)>,
}

impl Parts {
    /// The rule that answers what is asked ahead, where `condition` holds besides.
    pub(super) fn rule(&self, condition: &Yaml) -> Yaml {
        let ahead = |condition: &Yaml| {
            let Yaml::Map(known) = condition else { return condition.clone() };
            let mut entries: Vec<(String, Yaml)> = known
                .iter()
                .filter(|(key, _)| key != "headers" && key != "method")
                .cloned()
                .collect();
            let Yaml::Map(mut tests) = self.tests.clone() else { return condition.clone() };
            if let Some((_, Yaml::Map(others))) = known.iter().find(|(key, _)| key == "headers") {
                tests.splice(0..0, others.clone());
            }
            entries.push(("method".to_owned(), text("OPTIONS")));
            entries.push(("headers".to_owned(), Yaml::Map(tests)));
            Yaml::Map(entries)
        };
        let condition = match condition {
            Yaml::List(any) => Yaml::List(any.iter().map(ahead).collect()),
            one => ahead(one),
        };
        map([("match", condition), ("respond", self.answer.clone())])
    }

    /// Adds the fields of answers to what a rule or service changes.
    pub(super) fn add(&self, edits: &mut Vec<(String, Yaml)>) {
        let index = edits.iter().position(|(key, _)| key == "headers").unwrap_or_else(|| {
            edits.push(("headers".to_owned(), Yaml::Map(Vec::new())));
            edits.len() - 1
        });
        let below = |yaml: &mut Yaml, key: &str, more: Vec<(String, Yaml)>| {
            let Yaml::Map(entries) = yaml else { return };
            match entries.iter_mut().find(|(known, _)| known == key) {
                Some((_, Yaml::Map(known))) => known.extend(more),
                _ => entries.push((key.to_owned(), Yaml::Map(more))),
            }
        };
        let Yaml::Map(heads) = &mut edits[index].1 else { return };
        if let Some((_, response)) = heads.iter_mut().find(|(key, _)| key == "response") {
            below(response, "set", self.fields.clone());
        } else {
            let set = Yaml::Map(self.fields.clone());
            heads.push(("response".to_owned(), map([("set", set)])));
        }
    }
}
