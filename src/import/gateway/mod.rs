//! `HTTPRoute` and `Gateway` of Gateway API: matches in the order of its own precedence.

mod conditions;
mod filters;

use std::cmp::Reverse;

use crate::import::cors::Cors;
use crate::import::draft::{
    Draft, Service, Track, Yaml, duration, map, percent, plain, target, text,
};
use crate::import::finding::Report;
use crate::import::kubernetes::Cluster;
use crate::import::manifest::{Field, Fields, Manifest};
use crate::import::share;
use crate::import::tracks::{Backend, Tracks};
use conditions::{Condition, conditions};
use filters::{edits, merge, redirect, replacement};

/// An `HTTPRoute`.
struct Route<'m> {
    manifest: &'m Manifest,
    whole: Field<'m>,
    /// Empty: any.
    hosts: Vec<String>,
    rules: Vec<Field<'m>>,
    created: String,
}

/// One match of a rule, and what becomes of its requests.
struct Entry<'r, 'm> {
    route: &'r Route<'m>,
    rule: &'r Field<'m>,
    condition: Condition,
}

/// Adds the services that `HTTPRoute`s describe; those for the same hosts become one.
pub(super) fn import(
    manifests: &[Manifest],
    cluster: &Cluster<'_>,
    report: &Report,
    draft: &mut Draft,
) {
    let is_ours = |one: &&Manifest| one.api.starts_with("gateway.networking.k8s.io/");
    for one in manifests.iter().filter(is_ours).filter(|one| one.kind == "Gateway") {
        gateway(one, report, draft);
    }
    let mut routes: Vec<Route> = manifests
        .iter()
        .filter(is_ours)
        .filter(|one| one.kind == "HTTPRoute")
        .filter_map(|one| read(one, report))
        .collect();
    routes.retain(|route| !is_to_https(route, draft));
    // The oldest first, then by name, as the specification has it.
    routes.sort_by_key(|route| {
        (route.created.clone(), route.manifest.namespace.clone(), route.manifest.name.clone())
    });
    let mut hosts: Vec<&str> = Vec::new();
    for host in routes.iter().flat_map(|route| &route.hosts) {
        if !hosts.contains(&&**host) {
            hosts.push(host);
        }
    }
    // Hosts of the same routes are one service.
    let mut groups: Vec<(Vec<usize>, Vec<String>)> = Vec::new();
    for host in hosts {
        let has = |index: &usize| routes[*index].hosts.iter().any(|known| known == host);
        let of: Vec<usize> = (0..routes.len()).filter(has).collect();
        match groups.iter_mut().find(|(known, _)| *known == of) {
            Some((_, hosts)) => hosts.push(host.to_owned()),
            None => groups.push((of, vec![host.to_owned()])),
        }
    }
    for (of, hosts) in groups {
        let first = &routes[of[0]];
        let mut builder =
            Builder { service: Service::default(), tracks: Tracks::default(), cluster };
        builder.service.name = name(&first.manifest.name, &draft.services);
        builder.service.namespace.clone_from(&first.manifest.namespace);
        builder.service.hosts = hosts.into_iter().filter(|host| !host.is_empty()).collect();
        let of: Vec<&Route> = of.iter().map(|&index| &routes[index]).collect();
        builder.take(&of);
        draft.services.push(builder.service);
    }
}

fn name(wanted: &str, known: &[Service]) -> String {
    let numbered = (2..).map(|number| format!("{wanted}-{number}"));
    let mut names = std::iter::once(wanted.to_owned()).chain(numbered);
    let is_free = |name: &String| !known.iter().any(|one| one.name == *name);
    names.find(is_free).unwrap_or_default()
}

/// A Gateway's certificates.
fn gateway(manifest: &Manifest, report: &Report, draft: &mut Draft) {
    let Some((whole, spec)) = manifest.spec(report) else { return };
    spec.skip(&["gatewayClassName", "infrastructure"]);
    for field in spec.get("listeners").map(|list| list.list()).unwrap_or_default() {
        let listener = field.map();
        listener.skip(&["name", "hostname", "port", "allowedRoutes"]);
        let protocol = listener.text("protocol").unwrap_or("HTTP");
        if !matches!(protocol, "HTTP" | "HTTPS") {
            field.unsupported(format!("speaks {protocol}; Splitway splits requests of HTTP"));
        }
        if let Some(tls) = listener.get("tls") {
            let tls = tls.map();
            if tls.text("mode") == Some("Passthrough") {
                field.unsupported(
                    "passes TLS through; Splitway ends it: give a listener the certificate",
                );
            }
            for reference in tls.get("certificateRefs").map(|list| list.list()).unwrap_or_default()
            {
                let fields = reference.map();
                fields.skip(&["group", "kind", "namespace"]);
                let Some(name) = fields.text("name") else { continue };
                fields.finish();
                draft.certificate(name, &reference);
            }
            tls.refuse(&[
                (
                    "frontendValidation",
                    "asks clients for certificates; write `client_ca` at the listener's `tls`",
                ),
                ("options", "are of one implementation"),
            ]);
            tls.finish();
        }
        listener.finish();
    }
    spec.refuse(&[("addresses", "are given by the Service in front of Splitway")]);
    spec.finish();
    whole.differs(
        "listens on ports of its own; the listeners here are 8080 and, with certificates, 8443",
    );
}

fn read<'m>(manifest: &'m Manifest, report: &'m Report) -> Option<Route<'m>> {
    let (whole, spec) = manifest.spec(report)?;
    spec.skip(&["parentRefs"]);
    let hosts = spec.get("hostnames").map(|hosts| hosts.list()).unwrap_or_default();
    let mut hosts: Vec<String> =
        hosts.iter().filter_map(Field::text).map(str::to_ascii_lowercase).collect();
    if hosts.is_empty() {
        hosts.push(String::new());
    }
    let rules = spec.get("rules").map(|rules| rules.list()).unwrap_or_default();
    spec.finish();
    let metadata = whole.map().get("metadata").map(|metadata| metadata.map());
    let created = metadata.and_then(|metadata| metadata.text("creationTimestamp"));
    let created = created.unwrap_or_default().to_owned();
    Some(Route { manifest, whole, hosts, rules, created })
}

/// Whether a route does nothing but send everybody to HTTPS: a listener does that by itself.
fn is_to_https(route: &Route<'_>, draft: &mut Draft) -> bool {
    let [rule] = &route.rules[..] else { return false };
    let rule = rule.map();
    let filters = rule.get("filters").map(|filters| filters.list()).unwrap_or_default();
    let [filter] = &filters[..] else { return false };
    let Some(redirect) = filter.map().get("requestRedirect") else { return false };
    let fields = redirect.map();
    let is_plain = fields.get("hostname").is_none() && fields.get("path").is_none();
    if fields.text("scheme") != Some("https") || !is_plain || rule.get("matches").is_some() {
        return false;
    }
    fields.skip(&["statusCode", "port"]);
    fields.finish();
    rule.skip(&["name"]);
    rule.finish();
    if draft.certificates.is_empty() {
        redirect.unsupported("sends to HTTPS, and no listener with a certificate is in these files; give the Gateway's file, too");
    } else {
        draft.redirects = true;
        redirect.differs("is the listener's `redirect_https`, for all hosts, with 308");
    }
    true
}

struct Builder<'c, 'm> {
    service: Service,
    tracks: Tracks,
    cluster: &'c Cluster<'m>,
}

impl Builder<'_, '_> {
    fn take(&mut self, routes: &[&Route<'_>]) {
        let mut entries = Vec::new();
        for route in routes {
            self.service.sources.push(format!("HTTPRoute/{}", route.manifest.name));
            self.service.comments.push(format!("from {}", route.whole.origin()));
            for rule in &route.rules {
                let found = conditions(rule);
                entries.extend(found.into_iter().map(|condition| Entry { route, rule, condition }));
            }
        }
        // Stable: among equals the route's and rule's order decides.
        entries.sort_by_key(|entry| Reverse(entry.condition.rank));
        let mut is_closed = false;
        let mut read: Vec<String> = Vec::new();
        for entry in &entries {
            if is_closed {
                entry.rule.differs(
                    "is behind a match of everything, so nothing ever reached it: left out",
                );
                continue;
            }
            // A rule with several matches is read for each; its findings are told once.
            let at = entry.rule.origin().to_string();
            let is_first = !read.contains(&at);
            read.push(at);
            is_closed = self.entry(entry, is_first);
        }
        if !is_closed {
            self.service.refuse_rest();
        }
        if self.service.tracks.is_empty() {
            // A service has a track; where all is answered here, nobody is ever asked.
            self.service
                .comments
                .push("every request is answered by a rule; nobody is asked".into());
            let endpoints = vec!["127.0.0.1:9".to_owned()];
            let name = "stable".to_owned();
            self.service.tracks.push(Track { name, endpoints, ..Track::default() });
        }
        self.service.complete_weights();
    }

    /// Takes an entry in; whether nothing behind it can be reached.
    fn entry(&mut self, entry: &Entry<'_, '_>, is_first: bool) -> bool {
        let quiet = Report::default();
        let field = if is_first { entry.rule.clone() } else { entry.rule.told(&quiet) };
        let rule = field.map();
        rule.skip(&["name", "matches"]);
        let filters = rule.get("filters").map(|filters| filters.list()).unwrap_or_default();
        let Some(mut does) = self.filters(&filters, entry) else {
            // "Requests that would have been processed by that filter MUST receive a HTTP error
            // response", says the specification of filters that are not known.
            field.unsupported("has a filter without counterpart; its requests are answered 500");
            rule.all();
            let answer = map([("status", plain(500)), ("body", text(""))]);
            let condition = entry.condition.yaml.clone();
            self.service.rules.push(map([("match", condition), ("respond", answer)]));
            return entry.condition.is_everything;
        };
        let shares = self.backends(&rule, entry);
        self.settings(&rule);
        if let Some(field) = rule.get("sessionPersistence") {
            self.persistence(&field);
        }
        rule.finish();
        let is_everything = entry.condition.is_everything;
        let answers = does.iter().any(|(key, _)| key == "redirect");
        if let Some((_, mirror)) = take(&mut does, "mirror") {
            self.mirror(mirror, &shares, &field);
        }
        if !answers && shares.is_empty() {
            does = vec![("respond".to_owned(), map([("status", plain(500)), ("body", text(""))]))];
        } else if !answers && is_everything {
            self.service.weights = shares;
        } else if !answers {
            does.splice(0..0, target(&shares));
        }
        if !does.is_empty() {
            let mut rule = vec![("match".to_owned(), entry.condition.yaml.clone())];
            rule.extend(does);
            self.service.rules.push(Yaml::Map(rule));
        }
        field.exact(if is_everything { "the weights" } else { "a rule" });
        is_everything
    }

    /// What filters do; `None` where one of them cannot be had.
    fn filters(
        &mut self,
        filters: &[Field<'_>],
        entry: &Entry<'_, '_>,
    ) -> Option<Vec<(String, Yaml)>> {
        let mut does = Vec::new();
        let mut answers = Vec::new();
        let mut heads: Vec<(String, Vec<(String, Yaml)>)> = Vec::new();
        for filter in filters {
            let fields = filter.map();
            fields.skip(&["type"]);
            for (key, side) in
                [("requestHeaderModifier", "request"), ("responseHeaderModifier", "response")]
            {
                if let Some(field) = fields.get(key) {
                    heads.push((side.to_owned(), edits(&field)));
                }
            }
            if let Some(field) = fields.get("urlRewrite") {
                let rewrite = field.map();
                if let Some(host) = rewrite.text("hostname") {
                    let set = map([("host", text(host))]);
                    heads.push(("request".to_owned(), vec![("set".to_owned(), set)]));
                }
                if let Some(path) = rewrite.get("path") {
                    does.push(("rewrite".to_owned(), replacement(&path, &entry.condition)?));
                }
                rewrite.finish();
            }
            if let Some(field) = fields.get("requestRedirect") {
                does.push(("redirect".to_owned(), redirect(&field, &entry.route.hosts)?));
            }
            if let Some(field) = fields.get("cors") {
                let cors = Cors::read(&field, 204).parts(&field)?;
                self.service.rules.push(cors.rule(&entry.condition.yaml));
                answers.push(cors);
            }
            if let Some(field) = fields.get("requestMirror") {
                does.push(("mirror".to_owned(), self.copies(&field, entry)?));
            }
            for (key, why) in [
                ("extensionRef", "is of one implementation"),
                (
                    "externalAuth",
                    "authenticates, which Splitway does not do; put an authenticating proxy behind it",
                ),
            ] {
                if let Some(field) = fields.get(key) {
                    field.unsupported(why);
                    return None;
                }
            }
            fields.finish();
        }
        if !heads.is_empty() {
            let mut merged: Vec<(String, Vec<(String, Yaml)>)> = Vec::new();
            for (side, entries) in heads {
                match merged.iter_mut().find(|(known, _)| *known == side) {
                    Some((_, known)) => known.extend(entries),
                    None => merged.push((side, entries)),
                }
            }
            let merged =
                merged.into_iter().map(|(side, entries)| (side, Yaml::Map(merge(entries))));
            does.push(("headers".to_owned(), Yaml::Map(merged.collect())));
        }
        for cors in answers {
            cors.add(&mut does);
        }
        Some(does)
    }

    fn backends(&mut self, rule: &Fields<'_>, entry: &Entry<'_, '_>) -> Vec<(String, u64)> {
        let mut shares = Vec::new();
        let Some(list) = rule.get("backendRefs") else { return shares };
        for field in list.list() {
            let fields = field.map();
            fields.refuse(&[("filters", "are one backend's own; here they are a rule's")]);
            let weight = fields.get("weight").and_then(|weight| weight.number()).unwrap_or(1);
            if let Some(name) = self.backend(&fields, &field, entry) {
                shares.push((name, weight));
            }
            fields.finish();
        }
        let total: u64 = shares.iter().map(|(_, weight)| weight).sum();
        if total == 0 {
            // Nobody's share is answered 500.
            return Vec::new();
        }
        if shares.iter().any(|(_, weight)| weight * 10_000 % total != 0) {
            list.differs("does not divide into hundredths of a percent; rounded to them");
        }
        share(&shares)
    }

    fn backend(
        &mut self,
        fields: &Fields<'_>,
        field: &Field<'_>,
        entry: &Entry<'_, '_>,
    ) -> Option<String> {
        let group = fields.text("group").unwrap_or("");
        let kind = fields.text("kind").unwrap_or("Service");
        let own = entry.route.manifest.namespace.clone();
        let namespace = fields.text("namespace").map(str::to_owned).or(own);
        let port = fields.get("port").and_then(|port| port.number());
        let service = fields.text("name")?.to_owned();
        if kind != "Service" || !group.is_empty() {
            field.unsupported(format!("is a {kind}; name a Service"));
            return None;
        }
        let usual = match service.rsplit_once('-') {
            Some((_, "stable" | "primary")) => "stable",
            Some((_, "canary")) => "canary",
            _ => &*service,
        };
        let usual = usual.to_owned();
        let backend = Backend { service, namespace, port };
        self.tracks.of(&mut self.service, self.cluster, &backend, &usual, field)
    }

    /// Timeouts and retries, which are one for a service.
    fn settings(&mut self, rule: &Fields<'_>) {
        let second = "is another rule's, too, with another value; a service has one, the first";
        let mut per_try = None;
        if let Some(field) = rule.get("timeouts") {
            let timeouts = field.map();
            let request = timeouts.get("request").and_then(|field| field.duration_ms());
            per_try = timeouts.get("backendRequest").and_then(|field| field.duration_ms());
            timeouts.finish();
            let whole = request.or(per_try.filter(|_| rule.get("retry").is_none()));
            if let Some(ms) = whole {
                let value = if ms == 0 { plain("off") } else { duration(ms) };
                if !self.service.set("timeouts", map([("request", value)])) {
                    field.differs(second);
                }
            }
        }
        if let Some(field) = rule.get("retry") {
            let retry = field.map();
            let attempts = retry.get("attempts").and_then(|field| field.number()).unwrap_or(1);
            let codes = retry.get("codes").map(|codes| codes.list()).unwrap_or_default();
            let codes = codes.iter().filter_map(Field::number).map(plain);
            let on = std::iter::once(plain("reset")).chain(codes).collect();
            if let Some(backoff) = retry.get("backoff") {
                backoff.differs("is not waited: another endpoint is tried at once");
            }
            retry.finish();
            let mut entries = vec![("attempts".to_owned(), plain(attempts.min(10)))];
            entries.push(("on".to_owned(), Yaml::List(on)));
            let per_try = per_try.filter(|ms| *ms > 0);
            entries.extend(per_try.map(|ms| ("per_try_timeout".to_owned(), duration(ms))));
            let is_one = self.service.set("retries", Yaml::Map(entries));
            field.differs(if is_one {
                "only what may be sent twice is tried again (idempotent methods, or an Idempotency-Key), within a budget of 20 %"
            } else {
                second
            });
        }
    }

    fn persistence(&mut self, field: &Field<'_>) {
        let fields = field.map();
        let cookie = fields.text("sessionName").unwrap_or("split");
        if fields.text("type") == Some("Header") {
            field.unsupported(
                "hands out a header; `sticky` reads one that users bring, or sets a cookie",
            );
            fields.all();
            return;
        }
        let age = fields.get("absoluteTimeout").and_then(|field| field.duration_ms());
        fields
            .refuse(&[("idleTimeout", "has no counterpart; `max_age` is from the first request")]);
        fields.skip(&["cookieConfig"]);
        fields.finish();
        let mut entries = vec![("cookie".to_owned(), text(cookie))];
        entries.extend(age.map(|ms| ("max_age".to_owned(), duration(ms))));
        self.service.set("sticky", Yaml::Map(entries));
        field.differs("keeps a client on its track, for all rules; its endpoint is kept by `balance: { by: key }`");
    }

    /// Where a mirror leads, and how much of it.
    fn copies(&mut self, field: &Field<'_>, entry: &Entry<'_, '_>) -> Option<Yaml> {
        let fields = field.map();
        let reference = fields.get("backendRef")?;
        let backend = reference.map();
        let to = self.backend(&backend, &reference, entry)?;
        let mut share = 10_000;
        if let Some(whole) = fields.get("percent").and_then(|field| field.number()) {
            share = whole.min(100) * 100;
        }
        if let Some(fraction) = fields.get("fraction") {
            let fraction = fraction.map();
            let number = |key| fraction.get(key).and_then(|field| field.number());
            let (part, of) = (number("numerator").unwrap_or(0), number("denominator"));
            share = (part.min(1 << 32) * 10_000 / of.unwrap_or(100).max(1)).min(10_000);
        }
        fields.finish();
        Some(map([("to", text(to)), ("share", percent(share)), ("methods", plain("any"))]))
    }

    fn mirror(&mut self, mirror: Yaml, shares: &[(String, u64)], field: &Field<'_>) {
        let Some((from, _)) = shares.iter().max_by_key(|(_, weight)| *weight) else { return };
        let Yaml::Map(mut entries) = mirror else { return };
        entries.insert(0, ("from".to_owned(), text(&**from)));
        field.differs(if self.service.set("mirror", Yaml::Map(entries)) {
            "copies what the track is sent, whichever rule sent it; what writes is written twice (`methods: safe` copies reads alone)"
        } else {
            "has the second mirror; a service has one, the first"
        });
    }
}

fn take(entries: &mut Vec<(String, Yaml)>, key: &str) -> Option<(String, Yaml)> {
    let index = entries.iter().position(|(known, _)| known == key)?;
    Some(entries.remove(index))
}
