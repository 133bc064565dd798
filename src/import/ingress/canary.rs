//! A canary of ingress-nginx: a header first, then a cookie, then the dice.

use super::notes::Notes;
use crate::import::draft::{Yaml, map, text};
use crate::import::istio::conditions::checked;
use crate::import::share;

/// What a canary's annotations say.
#[derive(Debug, Default)]
pub(super) struct Canary {
    /// Tests in their order, and whether who fits gets the canary.
    rules: Vec<((String, Yaml), bool)>,
    weight: u64,
    total: u64,
}

impl Canary {
    pub(super) fn read(notes: &Notes<'_>) -> Self {
        let mut found = Self::default();
        let on = |kind: &str, name: &str, test: Yaml| (kind.to_owned(), map([(name, test)]));
        let value = notes.text("canary-by-header-value");
        let pattern = notes.get("canary-by-header-pattern");
        let pattern =
            pattern.as_ref().filter(|field| field.text().is_some_and(|text| !text.is_empty()));
        if let Some(name) = notes.text("canary-by-header") {
            // A value rules out a pattern, and each of them the two words.
            if let Some(value) = value {
                found.rules.push((on("headers", name, text(value)), true));
            } else if let Some(field) = pattern {
                if let Some(pattern) = field.text().and_then(|text| checked(field, text)) {
                    let test = map([("regex", text(anywhere(pattern)))]);
                    found.rules.push((on("headers", name, test), true));
                }
            } else {
                found.rules.push((on("headers", name, text("always")), true));
                found.rules.push((on("headers", name, text("never")), false));
            }
        } else {
            for field in ["canary-by-header-value", "canary-by-header-pattern"] {
                if let Some(field) = notes.get(field) {
                    field.exact("has no effect without `canary-by-header`");
                }
            }
        }
        if let Some(name) = notes.text("canary-by-cookie") {
            found.rules.push((on("cookies", name, text("always")), true));
            found.rules.push((on("cookies", name, text("never")), false));
        }
        let number = |name: &str| notes.get(name).and_then(|field| field.number());
        // A lower total is taken for 100, whatever its documentation says.
        found.total = number("canary-weight-total").unwrap_or(100).max(100);
        found.weight = number("canary-weight").unwrap_or(0).min(found.total);
        for name in ["load-balance", "upstream-hash-by", "affinity"] {
            if let Some(field) = notes.get(name) {
                field.differs("is the canary's own for ingress-nginx; here it is the service's");
            }
        }
        found
    }

    /// Conditions of `match` in their order, and whether they lead to the canary.
    pub(super) fn rules(&self) -> Vec<((String, Yaml), bool)> {
        self.rules.clone()
    }

    pub(super) fn shares(&self, stable: &str, canary: &str) -> Vec<(String, u64)> {
        let rest = self.total - self.weight;
        share(&[(stable.to_owned(), rest), (canary.to_owned(), self.weight)])
    }
}

/// A pattern that may fit anywhere, as one that fits the whole.
fn anywhere(pattern: &str) -> String {
    // With anchors that hold for all of it, it can be read.
    let mut depth = 0;
    let mut has_branch = pattern.contains(['\\', '[']);
    for char in pattern.chars() {
        match char {
            '(' => depth += 1,
            ')' => depth -= 1,
            '|' if depth == 0 => has_branch = true,
            _ => {}
        }
    }
    if has_branch {
        return format!(".*(?:{pattern}).*");
    }
    let (ahead, inner) = pattern.strip_prefix('^').map_or((".*", pattern), |rest| ("", rest));
    let (inner, behind) = inner.strip_suffix('$').map_or((inner, ".*"), |rest| (rest, ""));
    format!("{ahead}{inner}{behind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_anywhere_unless_they_are_anchored() {
        for (pattern, whole) in [
            ("beta", ".*beta.*"),
            ("^beta$", "beta"),
            ("^(beta|alpha)", "(beta|alpha).*"),
            ("beta$|^alpha", ".*(?:beta$|^alpha).*"),
            ("^a\\$", ".*(?:^a\\$).*"),
        ] {
            assert_eq!(anywhere(pattern), whole);
        }
    }
}
