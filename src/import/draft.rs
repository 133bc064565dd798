//! The Splitway file that is being put together, and how it is written.

use std::fmt::Write;

use crate::plain;

use super::finding::Origin;
use super::manifest::Field;

/// A piece of YAML to be written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Yaml {
    /// A word or a number that needs no quotes, and flow text made here.
    Plain(String),
    /// Text of others: quoted where it could be taken for something else.
    Text(String),
    /// A text of several lines.
    Block(String),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

impl Yaml {
    /// A member of a mapping.
    fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }
}

/// A mapping in the order in which it is given.
pub(super) fn map<const N: usize>(entries: [(&str, Yaml); N]) -> Yaml {
    Yaml::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

pub(super) fn text(text: impl Into<String>) -> Yaml {
    Yaml::Text(text.into())
}

#[expect(clippy::needless_pass_by_value, reason = "words and numbers alike")]
pub(super) fn plain(text: impl ToString) -> Yaml {
    Yaml::Plain(text.to_string())
}

/// A duration as the file has it.
pub(super) fn duration(ms: u64) -> Yaml {
    Yaml::Plain(match ms {
        0 => "0s".to_owned(),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    })
}

/// A size as the file has it.
pub(super) fn size(bytes: u64) -> Yaml {
    Yaml::Plain(match bytes {
        bytes if bytes % (1 << 30) == 0 => format!("{}GiB", bytes >> 30),
        bytes if bytes % (1 << 20) == 0 => format!("{}MiB", bytes >> 20),
        bytes if bytes % (1 << 10) == 0 => format!("{}KiB", bytes >> 10),
        bytes => format!("{bytes}B"),
    })
}

/// One version.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Track {
    pub(super) name: String,
    pub(super) version: Option<String>,
    pub(super) endpoints: Vec<String>,
    /// The Service of Kubernetes that is behind it.
    pub(super) behind: String,
    /// What must be done so that its endpoints are there, and where that was found.
    pub(super) todo: Vec<(Origin, String)>,
    pub(super) more: Vec<(String, Yaml)>,
}

/// One service.
#[derive(Clone, Debug, Default)]
pub(super) struct Service {
    /// Where it comes from, for the reader.
    pub(super) comments: Vec<String>,
    /// What it was made of, as `VirtualService/api`.
    pub(super) sources: Vec<String>,
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    pub(super) hosts: Vec<String>,
    /// Prefixes; empty: everything.
    pub(super) paths: Vec<String>,
    pub(super) tracks: Vec<Track>,
    /// In hundredths of a percent.
    pub(super) weights: Vec<(String, u64)>,
    pub(super) rules: Vec<Yaml>,
    /// What stands below the rules, by its key.
    pub(super) more: Vec<(String, Yaml)>,
    pub(super) rollout: Option<Yaml>,
}

impl Service {
    /// Sets a key once; false where another value stands already. Timeouts are set one by one.
    pub(super) fn set(&mut self, key: &str, value: Yaml) -> bool {
        if let Some((_, known)) = self.more.iter_mut().find(|(known, _)| known == key) {
            let is_same = *known == value;
            if let ("timeouts", Yaml::Map(known), Yaml::Map(more)) = (key, known, value) {
                let clashes = |(key, value): &(String, Yaml)| {
                    known.iter().any(|(own, other)| own == key && other != value)
                };
                if more.iter().any(clashes) {
                    return false;
                }
                for (key, value) in more {
                    if !known.iter().any(|(own, _)| *own == key) {
                        known.push((key, value));
                    }
                }
                return true;
            }
            return is_same;
        }
        self.more.push((key.to_owned(), value));
        true
    }

    /// Adds a rule ahead of the others, except those that keep people out: they stay first.
    pub(super) fn lead(&mut self, rule: Yaml) {
        let keeps_out = |rule: &Yaml| {
            let answer = rule.get("respond").and_then(|answer| answer.get("status"));
            ["403", "500", "503"].iter().any(|status| answer == Some(&plain(status)))
        };
        let at = self.rules.iter().rposition(keeps_out).map_or(0, |last| last + 1);
        self.rules.insert(at, rule);
    }

    /// Whether a rollout between these Services of Kubernetes, which `field` asks for, can be had here: it
    /// needs two tracks and moves what no rule takes. What it would not move is said.
    pub(super) fn takes_rollout(
        &self,
        (stable, canary): (&str, Option<&str>),
        field: &Field<'_>,
    ) -> bool {
        let is_one = |track: &&Track| track.behind == stable;
        let is_other = |track: &Track| track.behind != stable && Some(&*track.behind) != canary;
        let track = self.tracks.iter().find(is_one);
        let Some(track) = track.filter(|_| !self.tracks.iter().any(is_other)) else {
            field.unsupported("is of a host where others answer, too, as further tracks, and a rollout needs two; give its paths a host of their own");
            return false;
        };
        // All paths of an Ingress are moved; of a route only those with shares.
        let is_ingress = self.sources.iter().any(|source| source.starts_with("Ingress/"));
        let is_fixed = |rule: &Yaml| {
            let by_path = rule.get("match").is_some_and(|test| test.get("path").is_some());
            let leads_here = rule.get("track") == Some(&text(&*track.name));
            rule.get("weights").is_some() || is_ingress && by_path && leads_here
        };
        if self.rules.iter().any(is_fixed) {
            field.unsupported("does not move rules by path that have shares of their own; give these paths a host of their own");
        }
        true
    }

    /// Whatever fits no rule is answered 404, as where there is no default.
    pub(super) fn refuse_rest(&mut self) {
        self.rules.push(map([
            ("match", map([("path", plain("/"))])),
            ("respond", map([("status", plain(404)), ("body", text(""))])),
        ]));
    }

    /// Every track has a weight; whoever has none gets nothing.
    pub(super) fn complete_weights(&mut self) {
        if let (Some(first), true) = (self.tracks.first(), self.weights.is_empty()) {
            self.weights.push((first.name.clone(), 10_000));
        }
        for track in &self.tracks {
            if !self.weights.iter().any(|(name, _)| *name == track.name) {
                self.weights.push((track.name.clone(), 0));
            }
        }
    }

    fn yaml(&self) -> Yaml {
        let mut entries = vec![("name".to_owned(), text(&*self.name))];
        let texts = |list: &[String]| Yaml::List(list.iter().map(text).collect());
        if !self.hosts.is_empty() {
            entries.push(("hosts".into(), texts(&self.hosts)));
        }
        if !self.paths.is_empty() && self.paths != ["/"] {
            entries.push(("paths".into(), texts(&self.paths)));
        }
        let mut tracks: Vec<&Track> = self.tracks.iter().collect();
        // As a person writes them; the others by their names.
        tracks.sort_by_key(|track| (track.name != "stable", track.name != "canary", &track.name));
        let tracks = tracks.into_iter().map(|track| {
            let mut entries = Vec::new();
            entries.extend(track.version.as_ref().map(|version| ("version".into(), text(version))));
            entries.push(("endpoints".into(), texts(&track.endpoints)));
            entries.extend(track.more.clone());
            (track.name.clone(), Yaml::Map(entries))
        });
        entries.push(("tracks".into(), Yaml::Map(tracks.collect())));
        if !self.rules.is_empty() {
            entries.push(("rules".into(), Yaml::List(self.rules.clone())));
        }
        // Who is alone needs no share.
        if self.rollout.is_none() && self.tracks.len() > 1 && !self.weights.is_empty() {
            let weights = self.weights.iter();
            let weights = weights.map(|(track, weight)| (track.clone(), percent(*weight)));
            entries.push(("weights".into(), Yaml::Map(weights.collect())));
        }
        entries.extend(self.more.clone());
        entries.extend(self.rollout.clone().map(|rollout| ("rollout".into(), rollout)));
        Yaml::Map(entries)
    }
}

/// Where a rule with these shares leads.
pub(super) fn target(shares: &[(String, u64)]) -> Vec<(String, Yaml)> {
    match shares.iter().find(|(_, weight)| *weight == 10_000) {
        Some((track, _)) => vec![("track".into(), text(&**track))],
        None if shares.is_empty() => Vec::new(),
        None => {
            let weights = shares.iter().map(|(track, weight)| (track.clone(), percent(*weight)));
            vec![("weights".into(), Yaml::Map(weights.collect()))]
        }
    }
}

/// Hundredths of a percent as percent.
pub(super) fn percent(weight: u64) -> Yaml {
    let (whole, part) = (weight / 100, weight % 100);
    plain(match part {
        0 => whole.to_string(),
        part if part % 10 == 0 => format!("{whole}.{}", part / 10),
        part => format!("{whole}.{part:02}"),
    })
}

/// The file: what stands above the services, and these.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    /// The certificates of the listener with TLS; none: there is no such listener.
    pub(super) certificates: Vec<Yaml>,
    /// What else that listener has.
    pub(super) tls: Vec<(String, Yaml)>,
    /// The one in the clear sends everybody to the other.
    pub(super) redirects: bool,
    /// Further sections, by their key.
    pub(super) top: Vec<(String, Yaml)>,
    pub(super) services: Vec<Service>,
}

impl Draft {
    /// Gives the listener with TLS the certificate of a Secret, which `field` names.
    pub(super) fn certificate(&mut self, secret: &str, field: &Field<'_>) {
        let file = |end: &str| text(format!("tls/{secret}/tls.{end}"));
        let pair = map([("certificate", file("crt")), ("key", file("key"))]);
        field.differs(format!(
            "needs the Secret {secret} as files, tls/{secret}/tls.crt and tls.key beside the Splitway file: mount it, or take it by `kubectl get secret`"
        ));
        if !self.certificates.contains(&pair) {
            self.certificates.push(pair);
        }
    }
}

/// Writes the file.
pub(super) fn write(draft: &Draft, header: &[String]) -> String {
    let mut out = String::new();
    for line in header {
        // What is quoted from a manifest must not end the comment.
        writeln!(out, "# {}", plain::line(line)).unwrap_or_default();
    }
    out.push_str("listeners:\n  - address: 0.0.0.0:8080\n");
    if !draft.certificates.is_empty() {
        if draft.redirects {
            out.push_str("    redirect_https: 443\n");
        }
        out.push_str("  - address: 0.0.0.0:8443\n    tls:\n      ");
        let mut tls = vec![("certificates".to_owned(), Yaml::List(draft.certificates.clone()))];
        tls.extend(draft.tls.clone());
        block(&Yaml::Map(tls), 6, &mut out);
    }
    if !draft.top.is_empty() {
        block(&Yaml::Map(draft.top.clone()), 0, &mut out);
    }
    out.push_str("services:\n");
    for service in &draft.services {
        for comment in &service.comments {
            writeln!(out, "  # {}", plain::line(comment)).unwrap_or_default();
        }
        out.push_str("  - ");
        block(&service.yaml(), 4, &mut out);
    }
    out
}

/// Widest line of a mapping or list in flow style.
const WIDTH_MAX: usize = 88;

/// Writes a mapping or list in block style, its first line where the text stands now.
fn block(yaml: &Yaml, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match yaml {
        Yaml::Map(entries) if !entries.is_empty() => {
            for (index, (key, value)) in entries.iter().enumerate() {
                if index > 0 {
                    out.push_str(&pad);
                }
                out.push_str(&name(key));
                out.push(':');
                // The parts of a service are what a person reads down.
                let is_opened = matches!(&**key, "tracks" | "rules" | "checks" | "stages");
                member(value, indent, is_opened, out);
            }
        }
        Yaml::List(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(&pad);
                }
                out.push('-');
                match item {
                    Yaml::Map(_) if flow(item).len() + indent > WIDTH_MAX => {
                        out.push(' ');
                        block(item, indent + 2, out);
                    }
                    item => member(item, indent, false, out),
                }
            }
        }
        other => {
            out.push_str(&flow(other));
            out.push('\n');
        }
    }
}

fn member(value: &Yaml, indent: usize, is_opened: bool, out: &mut String) {
    if let Yaml::Block(text) = value {
        out.push_str(" |\n");
        for line in text.lines() {
            writeln!(out, "{}{line}", " ".repeat(indent + 2)).unwrap_or_default();
        }
        return;
    }
    let short = flow(value);
    let has_block = contains_block(value);
    let is_short = short.len() + indent < WIDTH_MAX && !has_block;
    let is_plain_list =
        matches!(value, Yaml::List(items) if items.iter().all(|one| matches!(one, Yaml::Plain(_))));
    if is_short && (!is_opened || is_plain_list) || !matches!(value, Yaml::Map(_) | Yaml::List(_)) {
        out.push(' ');
        out.push_str(&short);
        out.push('\n');
    } else {
        let inner = indent + 2;
        out.push('\n');
        out.push_str(&" ".repeat(inner));
        block(value, inner, out);
    }
}

fn contains_block(yaml: &Yaml) -> bool {
    match yaml {
        Yaml::Block(_) => true,
        Yaml::List(items) => items.iter().any(contains_block),
        Yaml::Map(entries) => entries.iter().any(|(_, value)| contains_block(value)),
        Yaml::Plain(_) | Yaml::Text(_) => false,
    }
}

fn flow(yaml: &Yaml) -> String {
    match yaml {
        Yaml::Plain(text) => text.clone(),
        Yaml::Text(text) | Yaml::Block(text) => scalar(text),
        Yaml::List(items) => {
            format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", "))
        }
        Yaml::Map(entries) if entries.is_empty() => "{}".to_owned(),
        Yaml::Map(entries) => {
            let members =
                entries.iter().map(|(key, value)| format!("{}: {}", name(key), flow(value)));
            format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
        }
    }
}

/// A key: those of the file itself are never quoted (`on`).
fn name(key: &str) -> String {
    let is_word = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let first = key.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    if is_word && first { key.to_owned() } else { scalar(key) }
}

/// Text as a scalar that is read as that text everywhere, also by readers of YAML 1.1.
fn scalar(text: &str) -> String {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    let is_path = text.starts_with('/');
    let words = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    if (first || is_path)
        && text.bytes().all(is_safe)
        && !words.contains(&&*text.to_ascii_lowercase())
    {
        return text.to_owned();
    }
    // HOST:PORT is plain text, too, where something stands behind the colon.
    let is_endpoint = text.rsplit_once(':').is_some_and(|(host, port)| {
        !port.is_empty()
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && host.bytes().all(is_safe)
            && host.bytes().any(|byte| byte.is_ascii_alphabetic())
            && first
    });
    if is_endpoint {
        return text.to_owned();
    }
    // JSON's strings are YAML's.
    plain::json(&serde_json::Value::from(text).to_string()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        for plain in ["api", "v1.0.0", "api.example.com:8000", "x-user-group"] {
            assert_eq!(scalar(plain), plain);
        }
        for (odd, quoted) in [
            ("true", "\"true\""),
            ("No", "\"No\""),
            ("1.10", "\"1.10\""),
            ("", "\"\""),
            ("a: b", "\"a: b\""),
            ("a\n- b", "\"a\\n- b\""),
            ("*", "\"*\""),
            ("\u{9b}\u{2028}é", "\"\\u009b\\u2028é\""),
        ] {
            assert_eq!(scalar(odd), quoted);
        }
    }

    #[test]
    fn shares_and_durations_are_short() {
        assert_eq!(percent(9_500), plain("95"));
        assert_eq!(percent(1_750), plain("17.5"));
        assert_eq!(percent(3_333), plain("33.33"));
        assert_eq!(duration(600_000), plain("10m"));
        assert_eq!(duration(1_500), plain("1500ms"));
    }
}
