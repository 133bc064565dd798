//! Canary of Flagger: its Services as tracks, its steps as stages, its webhooks as gates.

mod metrics;

use crate::import::argo::routing::call;
use crate::import::argo::versions;
use crate::import::cors::Cors;
use crate::import::draft::{Draft, Service, Track, Yaml, duration, map, percent, plain, text};
use crate::import::finding::Report;
use crate::import::istio;
use crate::import::istio::conditions;
use crate::import::istio::policy;
use crate::import::kubernetes::{Cluster, Labels, hosts};
use crate::import::manifest::{Field, Fields, Manifest};
use metrics::{Templates, Words};

/// Most stages of a rollout.
const STAGES_MAX: usize = 50;

/// Gives services their plans; a Canary whose Ingress is not here brings its own service.
pub(super) fn import(
    manifests: &[Manifest],
    cluster: &Cluster<'_>,
    report: &Report,
    draft: &mut Draft,
) {
    let is_ours = |one: &&Manifest| one.api.starts_with("flagger.app/");
    let templates = Templates::read(manifests, report);
    let providers: Vec<&Manifest> =
        manifests.iter().filter(is_ours).filter(|one| one.kind == "AlertProvider").collect();
    for manifest in manifests.iter().filter(is_ours).filter(|one| one.kind == "Canary") {
        let Some((whole, spec)) = manifest.spec(report) else { continue };
        let canary = Canary { manifest, whole, cluster, templates: &templates };
        canary.import(&spec, draft);
    }
    alert_providers(&providers, report, draft);
    templates.finish();
}

/// Notes the Services that Canaries split, so that nobody else does.
pub(super) fn take_services(manifests: &[Manifest], cluster: &Cluster<'_>) {
    let quiet = Report::default();
    for one in manifests.iter().filter(|one| one.kind == "Canary") {
        let spec = one.whole(&quiet).map().get("spec").map(|spec| spec.map());
        let Some(spec) = spec else { continue };
        for key in ["service", "targetRef"] {
            let name = spec.get(key).and_then(|field| field.map().text("name"));
            if let Some(name) = name {
                cluster.take(name);
            }
        }
    }
}

struct Canary<'m, 'c> {
    manifest: &'m Manifest,
    whole: Field<'m>,
    cluster: &'c Cluster<'m>,
    templates: &'c Templates<'m>,
}

impl Canary<'_, '_> {
    fn import(&self, spec: &Fields<'_>, draft: &mut Draft) {
        let target = spec.get("targetRef").map(|target| target.map());
        let target = target.and_then(|target| target.text("name"));
        let Some(target) = target else {
            return self.whole.fault("has no `spec.targetRef.name`");
        };
        spec.skip(&["provider", "metricsServer", "revertOnDeletion", "routeRef", "upstreamRef"]);
        let ingress = spec.get("ingressRef").and_then(|ingress| ingress.map().text("name"));
        if let Some(field) = spec.get("autoscalerRef") {
            field.differs("stays with Kubernetes: one autoscaler for each of the two Deployments");
        }
        let Some(service_field) = spec.get("service") else {
            return self.whole.fault("has no `spec.service`");
        };
        let service_fields = service_field.map();
        let name = service_fields.text("name").unwrap_or(target).to_owned();
        let source = ingress.map(|ingress| format!("Ingress/{ingress}"));
        let known = draft.services.iter().position(|service| {
            let leads_here = || service.tracks.iter().any(|track| track.behind == name);
            source.as_ref().is_some_and(|source| service.sources.contains(source)) && leads_here()
        });
        let canary = format!("{name}-canary");
        let both = (&*name, Some(&*canary));
        if known.is_some_and(|index| !draft.services[index].takes_rollout(both, &self.whole)) {
            return;
        }
        let index = known.unwrap_or_else(|| {
            for other in draft.services.iter().filter(|known| known.name == name) {
                self.whole.differs(format!(
                    "takes the place of {}, which Flagger makes",
                    other.sources.join(" and ")
                ));
            }
            draft.services.retain(|known| known.name != name);
            let namespace = self.manifest.namespace.clone();
            let hosts = hosts(&name, namespace.as_deref());
            draft.services.push(Service {
                name: name.clone(),
                namespace,
                hosts,
                ..Service::default()
            });
            draft.services.len() - 1
        });
        let service = &mut draft.services[index];
        service.comments.push(format!("from {}", self.whole.origin()));
        self.tracks(service, &service_field, &service_fields, &name);
        routing(service, &service_fields);
        let words = Words {
            name: &self.manifest.name,
            namespace: self.manifest.namespace.as_deref().unwrap_or("default"),
            target,
            service: &name,
            ingress: ingress.unwrap_or_default(),
        };
        service.rollout = Some(Yaml::Map(self.rollout(spec, service, &words)));
        if let Some(field) = spec.get("skipAnalysis")
            && field.text() == Some("true")
        {
            field.differs("promotes at once: `splitway promote --full` does, when it should");
        }
        if let Some(field) = spec.get("suspend")
            && field.text() == Some("true")
        {
            field.differs("stands still: `splitway pause` does");
        }
        spec.finish();
    }

    fn rollout(
        &self,
        spec: &Fields<'_>,
        service: &mut Service,
        words: &Words<'_>,
    ) -> Vec<(String, Yaml)> {
        let analysis = spec.get("analysis").or_else(|| spec.get("canaryAnalysis"));
        let mut rollout = if let Some(field) = analysis {
            self.analysis(&field, service, words)
        } else {
            self.whole.differs("has no `analysis`: a person promotes");
            let stage = map([("weight", plain(100)), ("approve", plain(true))]);
            vec![("stages".to_owned(), Yaml::List(vec![stage]))]
        };
        if let Some(field) = spec.get("progressDeadlineSeconds") {
            let ms = field.duration_ms().unwrap_or(600_000).max(1_000);
            field.differs("is `start.timeout`, how long the canary's endpoints may take");
            rollout.push(("start".to_owned(), map([("timeout", duration(ms))])));
        }
        rollout
    }

    /// What Flagger has made of the Service: one for the primary, one for the canary.
    fn tracks(&self, service: &mut Service, field: &Field<'_>, fields: &Fields<'_>, name: &str) {
        let port = fields.get("port").and_then(|port| port.number());
        let own = fields.get("targetPort").and_then(|port| port.text()?.parse().ok());
        let more = service.tracks.first().map(|track| track.more.clone()).unwrap_or_default();
        let version = service.tracks.iter().find_map(|track| track.version.clone());
        let version = version.or_else(|| self.cluster.version_behind(name));
        let namespace = self.manifest.namespace.as_deref();
        call(service, name, "stable");
        service.tracks.clear();
        service.weights.clear();
        for (track, end) in [("stable", "primary"), ("canary", "canary")] {
            let behind = format!("{name}-{end}");
            let host = (&*behind, namespace);
            let (endpoints, _) = self.cluster.endpoints(host, track, &Labels::new(), own.or(port));
            let more = more.clone();
            let version = version.clone().filter(|_| track == "canary");
            let name = track.to_owned();
            let track = Track { name, version, endpoints, behind, more, ..Track::default() };
            service.tracks.push(track);
        }
        field.differs(format!("has Services of Flagger, {name}-primary and {name}-canary, which go with it: make them yourself, headless (`clusterIP: None`), for a Deployment each"));
        service.complete_weights();
        versions(service, None, &self.whole);
    }

    /// The plan.
    fn analysis(
        &self,
        field: &Field<'_>,
        service: &mut Service,
        words: &Words<'_>,
    ) -> Vec<(String, Yaml)> {
        let fields = field.map();
        let interval = fields.get("interval").and_then(|field| field.duration_ms());
        let interval = interval.unwrap_or(60_000).max(1_000);
        let threshold = fields.get("threshold").and_then(|field| field.number()).unwrap_or(1);
        let borne = threshold.saturating_sub(1).min(1_000);
        let (stages, is_stepped) = stages(&fields, field);
        let mut rollout = vec![("stages".to_owned(), Yaml::List(stages))];
        if is_stepped {
            rollout.push(("min".to_owned(), duration(interval)));
            rollout.push(("on_max".to_owned(), plain("advance")));
            field.differs("moves on after each interval without a failure; here `interval` is the least time of a stage, and it also waits for proof (`max` goes on without)");
        }
        for (key, what) in [("primaryReadyThreshold", "stable"), ("canaryReadyThreshold", "canary")]
        {
            if let Some(field) = fields.get(key) {
                field.differs(format!("is about how many pods of {what} are ready; here all endpoints of the canary, or `start.ready: any`"));
            }
        }
        let mut checks = Vec::new();
        for metric in fields.get("metrics").map(|list| list.list()).unwrap_or_default() {
            checks.extend(self.templates.check(&metric, words, interval, borne));
        }
        if !checks.is_empty() {
            rollout.push(("checks".to_owned(), Yaml::List(checks)));
        }
        let mut gates = Vec::new();
        for hook in fields.get("webhooks").map(|list| list.list()).unwrap_or_default() {
            gates.extend(self.gate(&hook, borne));
        }
        if !gates.is_empty() {
            rollout.push(("gates".to_owned(), Yaml::List(gates)));
        }
        if let Some(list) = fields.get("match") {
            match conditions::matches(&list) {
                Some(condition) => {
                    list.differs("leads to the canary from the first request on, not only while it is analysed");
                    let rule = map([("match", condition), ("track", text("canary"))]);
                    service.lead(rule);
                }
                None => list.unsupported("has no condition that can be tested here"),
            }
        }
        mirror(&fields, service);
        if let Some(affinity) = fields.get("sessionAffinity") {
            let fields = affinity.map();
            let cookie = fields.text("cookieName").unwrap_or("flagger-cookie");
            let age = fields.get("maxAge").and_then(|field| field.number()).unwrap_or(86_400);
            fields.skip(&["primaryCookieName"]);
            fields.finish();
            affinity.differs("keeps users on their track, on stable as well");
            let age = duration(age.max(1) * 1_000);
            service.set("sticky", map([("cookie", text(cookie)), ("max_age", age)]));
        }
        for alert in fields.get("alerts").map(|list| list.list()).unwrap_or_default() {
            alert.differs("is a top-level entry of `notifications`, for transitions, holds and alarms of all services");
        }
        fields.finish();
        rollout
    }

    fn gate(&self, field: &Field<'_>, borne: u64) -> Option<Yaml> {
        let fields = field.map();
        let name = fields.text("name").unwrap_or("gate");
        let url = fields.text("url");
        let kind = fields.text("type").unwrap_or("rollout");
        let timeout = fields.get("timeout").and_then(|field| field.duration_ms());
        let metadata = fields.get("metadata").map(|metadata| metadata.map().all());
        fields.skip(&["muteAlert", "retries"]);
        fields.refuse(&[("disableTLS", "believes anybody; certificates are checked here")]);
        fields.finish();
        let (on, counts) = match kind {
            "confirm-rollout" => ("pre_rollout", false),
            "pre-rollout" => ("pre_rollout", true),
            "rollout" => {
                field.differs("is asked ahead of each advance, not in every interval; no load needs to be made, there is traffic");
                ("confirm_advance", true)
            }
            "confirm-traffic-increase" => ("confirm_advance", false),
            "confirm-promotion" => ("confirm_promotion", false),
            "post-rollout" => ("post_rollout", false),
            "rollback" => {
                field.unsupported("is asked whether to go back; `splitway rollback`, or a POST to the admin API, says so");
                return None;
            }
            "event" => {
                field.unsupported("is told of events; write an entry of `notifications`");
                return None;
            }
            other => {
                field.unsupported(format!("has the type `{other}`, which is not known here"));
                return None;
            }
        };
        let mut entries = vec![
            ("name".to_owned(), text(name)),
            ("on".to_owned(), plain(on)),
            ("url".to_owned(), text(url?)),
        ];
        entries.extend(timeout.map(|ms| ("timeout".to_owned(), duration(ms.max(100)))));
        if counts {
            if borne > 0 {
                entries.push(("failure_limit".to_owned(), plain(borne)));
            }
            entries.push(("on_failure".to_owned(), plain("rollback")));
        }
        let metadata = metadata.unwrap_or_default().into_iter();
        let metadata: Vec<(String, Yaml)> = metadata
            .filter_map(|(key, value)| Some((key.to_owned(), text(value.text()?))))
            .collect();
        if !metadata.is_empty() {
            entries.push(("metadata".to_owned(), Yaml::Map(metadata)));
        }
        if let Some(namespace) = &self.manifest.namespace {
            entries.push(("namespace".to_owned(), text(&**namespace)));
        }
        field.exact("a gate, with the same payload");
        Some(Yaml::Map(entries))
    }
}

/// What the Service's routes do besides.
fn routing(service: &mut Service, fields: &Fields<'_>) {
    fields.skip(&["portName", "appProtocol", "portDiscovery", "apex", "primary", "canary"]);
    for field in fields.get("hosts").map(|hosts| hosts.list()).unwrap_or_default() {
        if let Some(host) = field.text().filter(|host| *host != "*")
            && !service.hosts.iter().any(|known| known == host)
        {
            service.hosts.push(host.to_owned());
        }
    }
    for key in ["gateways", "gatewayRefs"] {
        if let Some(field) = fields.get(key) {
            field.differs(
                "name who listens; here that is `listeners`, for everybody who reaches it",
            );
        }
    }
    if let Some(list) = fields.get("match") {
        // The usual one says nothing.
        let says = conditions::matches(&list);
        if says != Some(map([("path", plain("/"))])) {
            list.unsupported(
                "takes some requests only; write `paths`, or a rule that answers the others 404",
            );
        }
    }
    if let Some(field) = fields.get("timeout")
        && let Some(ms) = field.duration_ms()
    {
        service.set("timeouts", map([("request", duration(ms.max(1)))]));
    }
    if let Some(field) = fields.get("retries") {
        service.set("retries", policy::retries(&field));
        field.differs("only what may be sent twice is tried again (idempotent methods, or an Idempotency-Key), within a budget of 20 %");
    }
    if let Some(field) = fields.get("trafficPolicy") {
        for (key, value) in policy::policy(&field.map()) {
            if matches!(&*key, "tls" | "max_in_flight" | "protocol") {
                for track in &mut service.tracks {
                    track.more.push((key.clone(), value.clone()));
                }
            } else {
                service.set(&key, value);
            }
        }
    }
    let mut edits = istio::edits(fields);
    if let Some(field) = fields.get("corsPolicy")
        && let Some(cors) = Cors::read(&field, 200).parts(&field)
    {
        service.rules.push(cors.rule(&map([("path", plain("/"))])));
        cors.add(&mut edits);
    }
    if !edits.is_empty() {
        let mut rule = vec![("match".to_owned(), map([("path", plain("/"))]))];
        rule.extend(edits);
        service.rules.push(Yaml::Map(rule));
    }
    fields.refuse(&[
        ("backends", "are of App Mesh"),
        ("meshName", "is of App Mesh"),
        ("delegation", "makes a VirtualService for another; name the host at `hosts`"),
        ("mirror", "copies the whole time; write `mirror`"),
    ]);
    fields.finish();
}

/// The stages, and whether they are steps of time.
fn stages(fields: &Fields<'_>, field: &Field<'_>) -> (Vec<Yaml>, bool) {
    let number = |key: &str| fields.get(key).and_then(|field| field.number());
    let (step, most) = (number("stepWeight").unwrap_or(0), number("maxWeight"));
    let listed = fields.get("stepWeights").map(|list| list.list()).unwrap_or_default();
    let mut weights: Vec<u64> = Vec::new();
    for weight in listed {
        let Some(number) = weight.number() else { continue };
        match weights.last() {
            Some(last) if number <= *last => weight.unsupported("does not rise; stages ascend"),
            _ if number == 0 => weight.differs("is where every rollout begins: left out"),
            _ if number > 100 => weight.fault("is more than 100 %"),
            _ => weights.push(number),
        }
    }
    if weights.is_empty() && step > 0 {
        let most = most.filter(|most| *most > 0).unwrap_or(100).min(100);
        let mut weight = 0;
        // Flagger steps until it is not below the most any more.
        while weight < most {
            weight = (weight + step).min(100);
            weights.push(weight);
        }
    }
    if weights.len() >= STAGES_MAX {
        field.differs(format!(
            "has {} steps, where a rollout has at most {STAGES_MAX} stages; some are left out",
            weights.len()
        ));
        let every = weights.len().div_ceil(STAGES_MAX - 1);
        weights = weights.into_iter().skip(every - 1).step_by(every).collect();
    }
    if let Some(promotion) = fields.get("stepWeightPromotion") {
        promotion.differs("goes to 100 % by steps; write further stages for that");
    }
    let iterations = fields.get("iterations");
    if weights.is_empty() {
        iterations.as_ref().unwrap_or(field).differs("promotes by itself after so many intervals; here a person does by `splitway promote`, because nothing can be judged before the switch");
        return (vec![map([("weight", plain(100)), ("approve", plain(true))])], false);
    }
    if let Some(iterations) = iterations {
        iterations.differs("is not needed beside steps, as for Flagger");
    }
    if weights.last().is_none_or(|last| *last < 100) {
        weights.push(100);
    }
    (weights.into_iter().map(plain).collect(), true)
}

fn mirror(fields: &Fields<'_>, service: &mut Service) {
    let share = fields.get("mirrorWeight").and_then(|field| field.number()).unwrap_or(100);
    let Some(field) = fields.get("mirror") else { return };
    if field.text() != Some("true") {
        return;
    }
    let mirror = map([
        ("from", text("stable")),
        ("to", text("canary")),
        ("share", percent(share.min(100) * 100)),
    ]);
    service.set("mirror", mirror);
    field.differs(
        "copies the whole time, not only ahead of the first step, and therefore safe methods alone",
    );
}

/// Who is told: each provider once.
fn alert_providers(providers: &[&Manifest], report: &Report, draft: &mut Draft) {
    let mut told = Vec::new();
    for one in providers {
        let Some((whole, spec)) = one.spec(report) else { continue };
        spec.skip(&["channel", "username"]);
        let format = match spec.text("type") {
            Some("slack") => Some("slack"),
            Some("msteams") => Some("teams"),
            _ => None,
        };
        let address = spec.text("address");
        spec.refuse(&[
            ("secretRef", "holds the address; mount it and name the file as `url_file`"),
            ("proxy", "has no counterpart"),
        ]);
        spec.finish();
        match (format, address) {
            (Some(format), Some(address)) => told.push(map([
                ("name", text(&*one.name)),
                ("url", text(address)),
                ("format", plain(format)),
            ])),
            (None, _) => whole.unsupported("is of a type that is not spoken here; slack, msteams, or `cloudevents` to a receiver of your own"),
            (_, None) => {}
        }
    }
    if !told.is_empty() {
        draft.top.push(("notifications".to_owned(), Yaml::List(told)));
    }
}
