//! `VirtualService` and `DestinationRule` of Istio.

pub(super) mod conditions;
pub(super) mod gateway;
pub(super) mod policy;

use crate::import::cors::Cors;
use crate::import::draft::{Service, Track, Yaml, duration, map, percent, plain, target, text};
use crate::import::finding::Report;
use crate::import::kubernetes::{Cluster, Labels, hosts, labels, short, value};
use crate::import::manifest::{Field, Fields, Manifest};
use crate::import::share;
use conditions::matches;
use policy::policy;

/// What a `DestinationRule` says of a host.
struct DestinationRule {
    host: String,
    subsets: Vec<(String, Labels)>,
    settings: Vec<(String, Yaml)>,
}

/// What is being put together.
struct Builder<'m, 'c> {
    draft: Service,
    /// Host, subset and port of each track.
    targets: Vec<(String, Option<String>, Option<u64>)>,
    rules: &'c [DestinationRule],
    cluster: &'c Cluster<'m>,
    /// The route without a condition has been read.
    has_default: bool,
}

/// The services that `VirtualService`s describe; those for the same host become one.
pub(super) fn import(
    manifests: &[Manifest],
    cluster: &Cluster<'_>,
    report: &Report,
) -> Vec<Service> {
    let rules: Vec<DestinationRule> = manifests
        .iter()
        .filter(|one| one.kind == "DestinationRule" && one.api.starts_with("networking.istio.io/"))
        .filter_map(|one| destination_rule(&one.spec(report)?))
        .collect();
    let mut builders: Vec<Builder> = Vec::new();
    for one in manifests {
        if one.kind != "VirtualService" || !one.api.starts_with("networking.istio.io/") {
            continue;
        }
        let Some((whole, spec)) = one.spec(report) else { continue };
        let names = spec.get("hosts").map(|hosts| hosts.list()).unwrap_or_default();
        let names: Vec<&str> = names.iter().filter_map(Field::text).collect();
        let Some(first) = names.first() else {
            whole.fault("has no `spec.hosts`");
            continue;
        };
        let first = if *first == "*" { &*one.name } else { short(first) };
        let known = builders.iter().position(|builder| builder.draft.name == first);
        let index = known.unwrap_or_else(|| {
            let draft = Service {
                name: first.to_owned(),
                namespace: namespace(manifests, first),
                ..Service::default()
            };
            let targets = Vec::new();
            let builder = Builder { draft, targets, rules: &rules, cluster, has_default: false };
            builders.push(builder);
            builders.len() - 1
        });
        let builder = &mut builders[index];
        builder.draft.sources.push(format!("VirtualService/{}", one.name));
        builder.take(&names, &spec, &whole);
    }
    builders.into_iter().map(Builder::finish).collect()
}

/// The namespace of a host, where one of its manifests names it.
fn namespace(manifests: &[Manifest], host: &str) -> Option<String> {
    manifests.iter().filter(|one| one.name == host).find_map(|one| one.namespace.clone())
}

fn destination_rule((_, spec): &(Field<'_>, Fields<'_>)) -> Option<DestinationRule> {
    spec.skip(&["exportTo"]);
    let host = spec.text("host")?.to_owned();
    let mut settings = Vec::new();
    if let Some(field) = spec.get("trafficPolicy") {
        settings = policy(&field.map());
    }
    let mut subsets = Vec::new();
    for field in spec.get("subsets").map(|subsets| subsets.list()).unwrap_or_default() {
        let subset = field.map();
        let Some(name) = subset.text("name") else { continue };
        let found = subset.get("labels").map(|field| labels(&field)).unwrap_or_default();
        if let Some(field) = subset.get("trafficPolicy") {
            field.unsupported("is a subset's own; policies are one for a service");
        }
        subset.finish();
        field.exact(format!("the track {name}"));
        subsets.push((name.to_owned(), found));
    }
    spec.refuse(&[("workloadSelector", "is for sidecars")]);
    spec.finish();
    Some(DestinationRule { host, subsets, settings })
}

impl Builder<'_, '_> {
    fn take(&mut self, names: &[&str], spec: &Fields<'_>, whole: &Field<'_>) {
        self.draft.comments.push(format!("from {}", whole.origin()));
        for name in names.iter().filter(|name| **name != "*") {
            for host in hosts(name, self.draft.namespace.as_deref()) {
                if !self.draft.hosts.contains(&host) {
                    self.draft.hosts.push(host);
                }
            }
        }
        if let Some(gateways) = spec.get("gateways") {
            gateways.differs(
                "name who listens; here that is `listeners`, for everybody who reaches it",
            );
        }
        spec.skip(&["exportTo"]);
        spec.refuse(&[
            ("tcp", "splits connections; Splitway splits requests"),
            ("tls", "passes TLS through; Splitway ends it: give a listener the certificate"),
        ]);
        let mut is_closed = false;
        for route in spec.get("http").map(|http| http.list()).unwrap_or_default() {
            if is_closed {
                route.differs(
                    "is behind a route without conditions, so nothing ever reached it: left out",
                );
                continue;
            }
            is_closed = self.route(&route);
        }
        if !self.draft.more.iter().any(|(key, _)| key == "retries") {
            let on = Yaml::List(vec![plain("reset"), plain(503)]);
            self.draft.set("retries", map([("attempts", plain(2)), ("on", on)]));
            whole.differs("names no retries, and Istio then tries twice again where nothing was answered or 503; written out, for what may be sent twice");
        }
        spec.finish();
    }

    /// Takes a route in; whether nothing behind it can be reached.
    fn route(&mut self, field: &Field<'_>) -> bool {
        let route = field.map();
        route.skip(&["name"]);
        let condition = match route.get("match") {
            Some(list) if !list.list().is_empty() => {
                let Some(condition) = matches(&list) else {
                    field.unsupported(
                        "has no condition that can be tested here; the route is left out",
                    );
                    return false;
                };
                Some(condition)
            }
            _ => None,
        };
        route.refuse(&[
            ("fault", "injects faults; there is no counterpart, test with a version that fails"),
            ("delegate", "sends on to another VirtualService; import that one in its place"),
        ]);
        self.settings(&route);
        let (mut edits, ends) = (edits(&route), ends(&route));
        let cors = route.get("corsPolicy").and_then(|field| Cors::read(&field, 200).parts(&field));
        let shares = route.get("route").map(|list| self.destinations(&list)).unwrap_or_default();
        self.mirror(&route, &shares);
        route.finish();
        let mut rule = Vec::new();
        if let Some(end) = ends {
            rule.push(end);
        } else if condition.is_some() {
            rule.extend(target(&shares));
        } else if self.has_default {
            field.differs(
                "is a second route without conditions for this host; the first one decides",
            );
            return true;
        } else {
            self.has_default = true;
            self.draft.weights = shares;
        }
        let is_default = condition.is_none();
        let condition = condition.unwrap_or_else(|| map([("path", plain("/"))]));
        if let Some(cors) = cors {
            cors.add(&mut edits);
            self.draft.rules.push(cors.rule(&condition));
        }
        rule.extend(edits);
        if !rule.is_empty() {
            let mut entries = vec![("match".to_owned(), condition)];
            entries.extend(rule);
            let rule = Yaml::Map(entries);
            if !self.draft.rules.contains(&rule) {
                self.draft.rules.push(rule);
            }
        }
        field.exact(if is_default { "the weights" } else { "a rule" });
        is_default
    }

    /// The shares of a route's destinations by track.
    fn destinations(&mut self, list: &Field<'_>) -> Vec<(String, u64)> {
        let mut shares: Vec<(String, u64)> = Vec::new();
        let members = list.list();
        let is_one = members.len() == 1;
        for member in members {
            let member_fields = member.map();
            member_fields
                .refuse(&[("headers", "are one destination's own; here they are a rule's")]);
            let weight = member_fields.get("weight").and_then(|weight| weight.number());
            let weight = weight.unwrap_or(u64::from(is_one));
            if let Some(track) =
                member_fields.get("destination").and_then(|field| self.track(&field))
            {
                shares.push((track, weight));
            }
            member_fields.finish();
        }
        if shares.iter().all(|(_, weight)| *weight == 0) {
            // Nobody's share is everybody's in equal parts.
            for (_, weight) in &mut shares {
                *weight = 1;
            }
        }
        let total: u64 = shares.iter().map(|(_, weight)| weight).sum();
        if shares.iter().any(|(_, weight)| weight * 10_000 % total.max(1) != 0) {
            list.differs("does not divide into hundredths of a percent; rounded to them");
        }
        share(&shares)
    }

    /// The track for a destination.
    fn track(&mut self, field: &Field<'_>) -> Option<String> {
        let destination = field.map();
        let host = destination.text("host")?.to_owned();
        let subset = destination.text("subset").map(str::to_owned);
        let port = destination.get("port").and_then(|port| {
            let port = port.map();
            port.get("number")?.number()
        });
        destination.finish();
        let target = (host, subset, port);
        if let Some(index) = self.targets.iter().position(|known| *known == target) {
            return Some(self.draft.tracks[index].name.clone());
        }
        if self.targets.len() == 8 {
            field.unsupported("is a ninth track; a service has 1 to 8");
            return None;
        }
        let (host, subset, port) = &target;
        let rule = self.rules.iter().find(|rule| short(&rule.host) == short(host));
        let labels = subset.as_ref().and_then(|subset| {
            Some(rule?.subsets.iter().find(|(name, _)| name == subset)?.1.clone())
        });
        if subset.is_some() && labels.is_none() {
            field.differs("names a subset of a DestinationRule that is not in these files; add it to learn the version");
        }
        let plain_name = subset.clone().unwrap_or_else(|| short(host).to_owned());
        let is_taken = self.draft.tracks.iter().any(|track| track.name == plain_name);
        let name = if is_taken { format!("{}-{plain_name}", short(host)) } else { plain_name };
        let labels = labels.unwrap_or_default();
        let by_label =
            |key: &str| labels.iter().filter(|(known, _)| known == key).cloned().collect();
        let selects: Labels = match subset {
            Some(_) if value(&labels, "track").is_some() => by_label("track"),
            Some(subset) if labels.is_empty() => vec![("version".into(), subset.clone())],
            _ => labels.clone(),
        };
        let namespace = self.draft.namespace.as_deref();
        let behind = short(host).to_owned();
        let (endpoints, todo) = self.cluster.endpoints((host, namespace), &name, &selects, *port);
        for message in todo {
            field.differs(message);
        }
        let version = value(&labels, "version").map(str::to_owned);
        let version =
            version.or_else(|| self.cluster.version(&labels).filter(|_| !labels.is_empty()));
        let settings = rule.map(|rule| rule.settings.clone()).unwrap_or_default();
        let mut track =
            Track { name: name.clone(), version, endpoints, behind, ..Track::default() };
        for (key, value) in settings {
            // What is the track's own; the rest is the service's.
            if matches!(&*key, "tls" | "max_in_flight" | "protocol") {
                track.more.push((key, value));
            } else {
                self.draft.set(&key, value);
            }
        }
        self.draft.tracks.push(track);
        self.targets.push(target);
        Some(name)
    }

    /// Timeout and retries, which are one for a service.
    fn settings(&mut self, route: &Fields<'_>) {
        if let Some(field) = route.get("timeout")
            && let Some(ms) = field.duration_ms()
        {
            let value = if ms == 0 { plain("off") } else { duration(ms) };
            if self.draft.set("timeouts", map([("request", value)])) {
                field.exact("`timeouts.request`");
            } else {
                field.differs(
                    "is another route's too, with another value; a service has one, the first",
                );
            }
        }
        if let Some(field) = route.get("retries") {
            let message = if self.draft.set("retries", self::policy::retries(&field)) {
                "only what may be sent twice is tried again (idempotent methods, or an Idempotency-Key), within a budget of 20 %"
            } else {
                "is another route's too, with another value; a service has one, the first"
            };
            field.differs(message);
        }
    }

    /// Copies: the first is the service's mirror.
    fn mirror(&mut self, route: &Fields<'_>, shares: &[(String, u64)]) {
        let percentage = |fields: &Fields<'_>, key: &str| -> Option<f64> {
            fields.get(key)?.map().text("value")?.parse().ok()
        };
        let older = route.get("mirrorPercent").and_then(|field| field.text()?.parse().ok());
        let single = percentage(route, "mirrorPercentage").or(older);
        if let Some(field) = route.get("mirror") {
            self.copies(&field, single, shares);
        }
        for one in route.get("mirrors").map(|list| list.list()).unwrap_or_default() {
            let fields = one.map();
            let share = percentage(&fields, "percentage");
            if let Some(field) = fields.get("destination") {
                self.copies(&field, share, shares);
            }
            fields.finish();
        }
    }

    fn copies(&mut self, field: &Field<'_>, share: Option<f64>, shares: &[(String, u64)]) {
        let Some(to) = self.track(field) else { return };
        let Some((from, _)) = shares.iter().max_by_key(|(_, weight)| *weight) else { return };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
        let share = (share.unwrap_or(100.0).clamp(0.0, 100.0) * 100.0).round() as u64;
        let mirror = map([
            ("from", text(&**from)),
            ("to", text(to)),
            ("share", percent(share)),
            ("methods", plain("any")),
        ]);
        if !self.draft.set("mirror", mirror) {
            field.unsupported("is the second one; a service has one mirror, the first");
            return;
        }
        field.differs("copies what the track is sent, whichever rule sent it; what writes is written twice (`methods: safe` copies reads alone)");
    }

    fn finish(mut self) -> Service {
        if !self.has_default && !self.draft.tracks.is_empty() {
            // Istio answers 404 where no route fits.
            self.draft.refuse_rest();
            self.draft.weights.clear();
        }
        self.draft.complete_weights();
        self.draft
    }
}

/// What changes on the way.
pub(super) fn edits(route: &Fields<'_>) -> Vec<(String, Yaml)> {
    let mut edits = Vec::new();
    if let Some(field) = route.get("rewrite") {
        let rewrite = field.map();
        if let Some(to) = rewrite.get("uri").and_then(|uri| uri.text()) {
            let prefix = route.get("match").and_then(|list| only_prefix(&list));
            let to = text(to);
            edits.push(match prefix {
                Some(prefix) => {
                    field.differs("replaces the prefix by whole segments");
                    ("rewrite".into(), map([("prefix", text(prefix)), ("to", to)]))
                }
                None => ("rewrite".into(), map([("to", to)])),
            });
        }
        if let Some(authority) = rewrite.get("authority").and_then(|field| field.text()) {
            let set = map([("host", text(authority))]);
            edits.push(("headers".into(), map([("request", map([("set", set)]))])));
        }
        rewrite.refuse(&[("uriRegexRewrite", "rewrites by capture groups; `rewrite` has none")]);
        rewrite.finish();
    }
    if let Some(field) = route.get("headers") {
        let heads = field.map();
        let mut both = Vec::new();
        for side in ["request", "response"] {
            if let Some(changes) = heads.get(side) {
                both.push((side.to_owned(), head_edits(&changes)));
            }
        }
        heads.finish();
        if edits.iter().any(|(key, _)| key == "headers") {
            field.unsupported("stands beside `rewrite.authority`; write both below one `headers`");
        } else {
            edits.push(("headers".into(), Yaml::Map(both)));
        }
    }
    edits
}

/// A redirect or an answer, which ends the request here.
fn ends(route: &Fields<'_>) -> Option<(String, Yaml)> {
    if let Some(field) = route.get("redirect") {
        let redirect = field.map();
        redirect.refuse(&[("port", "is written in `to`"), ("derivePort", "is written in `to`")]);
        let authority = redirect.text("authority");
        let uri = redirect.text("uri");
        let scheme = redirect.text("scheme").unwrap_or("https");
        let code = redirect.get("redirectCode").and_then(|code| code.number()).unwrap_or(301);
        redirect.finish();
        let to = match (authority, uri) {
            (Some(authority), uri) => format!("{scheme}://{authority}{}", uri.unwrap_or("")),
            (None, Some(uri)) => uri.to_owned(),
            (None, None) => {
                field.unsupported(
                    "changes the scheme alone; `redirect_https` of the listener does that",
                );
                return None;
            }
        };
        return Some((
            "redirect".into(),
            map([("to", text(to)), ("keep_path", plain(uri.is_none())), ("status", plain(code))]),
        ));
    }
    let field = route.get("directResponse")?;
    let answer = field.map();
    let status = answer.get("status")?.number()?;
    let body = answer.get("body").and_then(|body| {
        let body = body.map();
        body.refuse(&[("bytes", "are not text; write `respond.body`")]);
        body.text("string").map(str::to_owned)
    });
    answer.finish();
    let body = text(body.unwrap_or_default());
    Some(("respond".into(), map([("status", plain(status)), ("body", body)])))
}

/// The prefix of a match that tests nothing else.
fn only_prefix(list: &Field<'_>) -> Option<String> {
    let all = list.list();
    let [one] = &all[..] else { return None };
    let uri = one.map().get("uri")?;
    let prefix = uri.map().text("prefix")?.to_owned();
    Some(if prefix == "/" { prefix } else { prefix.trim_end_matches('/').to_owned() })
}

pub(super) fn head_edits(field: &Field<'_>) -> Yaml {
    let changes = field.map();
    let mut edits = Vec::new();
    for key in ["set", "add"] {
        if let Some(field) = changes.get(key) {
            let all = field.map().all().into_iter();
            let all = all.filter_map(|(name, value)| Some((name.to_owned(), text(value.text()?))));
            edits.push((key.to_owned(), Yaml::Map(all.collect())));
        }
    }
    if let Some(field) = changes.get("remove") {
        let names = field.list().iter().filter_map(Field::text).map(text).collect();
        edits.push(("remove".to_owned(), Yaml::List(names)));
    }
    changes.finish();
    Yaml::Map(edits)
}
