//! Rollout and `AnalysisTemplate` of Argo Rollouts.

pub(super) mod analysis;
pub(super) mod routing;

use crate::import::draft::{Service, Track, Yaml, duration, map, plain, text};
use crate::import::finding::Report;
use crate::import::kubernetes::{Cluster, Labels, hosts, labels, value};
use crate::import::manifest::{Field, Fields, Manifest};
use analysis::{Templates, checks};
use routing::{Routing, call, header_route, mirror_route, rename};

/// Fields that are about replicas alone.
const REPLICAS: &[&str] = &[
    "maxSurge",
    "maxUnavailable",
    "dynamicStableScale",
    "scaleDownDelaySeconds",
    "scaleDownDelayRevisionLimit",
    "abortScaleDownDelaySeconds",
    "minPodsPerReplicaSet",
];

/// One stage under way.
#[derive(Default)]
struct Stage {
    weight: u64,
    min_ms: Option<u64>,
    is_approved: bool,
}

/// Gives the services their plans; a Rollout whose service is not there yet brings its own.
pub(super) fn import(
    manifests: &[Manifest],
    cluster: &Cluster<'_>,
    report: &Report,
    services: &mut Vec<Service>,
) {
    let templates = Templates::read(manifests, report);
    for one in manifests {
        if one.kind != "Rollout" || !one.api.starts_with("argoproj.io/") {
            continue;
        }
        let Some((whole, spec)) = one.spec(report) else { continue };
        spec.skip(&[
            "revisionHistoryLimit",
            "minReadySeconds",
            "analysis",
            "rollbackWindow",
            "restartAt",
            "paused",
        ]);
        for key in ["replicas", "selector", "template", "workloadRef"] {
            if let (Some(field), "replicas" | "workloadRef") = (spec.get(key), key) {
                field.differs("stays with Kubernetes: make two Deployments, one for stable and one for the canary");
            }
        }
        if let Some(field) = spec.get("progressDeadlineSeconds") {
            field.differs("is `start.timeout`, how long the canary's endpoints may take (10 min unless written)");
        }
        spec.skip(&["progressDeadlineAbort"]);
        let Some(strategy) = spec.get("strategy") else {
            whole.fault("has no `spec.strategy`");
            continue;
        };
        let pods = pods(&spec);
        spec.finish();
        let strategy = strategy.map();
        let (canary, blue_green) = (strategy.get("canary"), strategy.get("blueGreen"));
        strategy.finish();
        let Some(field) = canary.as_ref().or(blue_green.as_ref()) else {
            whole.fault("has neither `canary` nor `blueGreen` below `spec.strategy`");
            continue;
        };
        let plan =
            Rollout { manifest: one, field: field.clone(), cluster, templates: &templates, pods };
        if canary.is_some() { plan.canary(services) } else { plan.blue_green(services) }
    }
    templates.finish();
}

/// Labels, port and image tag of the pods that a Rollout makes.
#[derive(Clone, Default)]
struct Pods {
    labels: Labels,
    port: Option<u64>,
}

fn pods(spec: &Fields<'_>) -> Pods {
    let mut pods = Pods::default();
    let Some(template) = spec.get("template") else { return pods };
    let template = template.map();
    if let Some(found) = template.get("metadata").and_then(|metadata| metadata.map().get("labels"))
    {
        pods.labels = labels(&found);
    }
    let containers = template.get("spec").and_then(|spec| spec.map().get("containers"));
    let first = containers.and_then(|list| list.list().into_iter().next());
    let ports = first.and_then(|container| container.map().get("ports"));
    let port = ports.and_then(|list| list.list().into_iter().next());
    pods.port = port.and_then(|port| port.map().get("containerPort")?.number());
    pods
}

struct Rollout<'m, 'c> {
    manifest: &'m Manifest,
    field: Field<'m>,
    cluster: &'c Cluster<'m>,
    templates: &'c Templates<'m>,
    pods: Pods,
}

impl Rollout<'_, '_> {
    fn canary(&self, services: &mut Vec<Service>) {
        let canary = self.field.map();
        let names = (canary.text("stableService"), canary.text("canaryService"));
        let routing = canary.get("trafficRouting").map(|field| Routing::read(&field));
        let routing = routing.unwrap_or_default();
        let stands_for = |service: &Service, source: &String| {
            let has_stable = || service.tracks.iter().any(|one| names.0 == Some(&*one.behind));
            // An Ingress may have become several services.
            service.sources.contains(source) && (source.starts_with("Virtual") || has_stable())
        };
        let known = services.iter().position(|service| {
            routing.sources.iter().any(|source| stands_for(service, source))
                || service.name == self.manifest.name
        });
        let index = known.unwrap_or_else(|| {
            services.push(self.fresh(names));
            services.len() - 1
        });
        if let (Some(index), Some(stable)) = (known, names.0) {
            let known = &services[index];
            let is_route = known.sources.iter().any(|source| !source.starts_with("Virtual"));
            if is_route && !known.takes_rollout((stable, names.1), &self.field) {
                return;
            }
        }
        let is_named = services.iter().any(|service| service.name == self.manifest.name);
        let service = &mut services[index];
        service.comments.push(format!("from {}", self.manifest.origin()));
        self.adopt(service, names);
        if names.0 == Some(&*service.name) && !is_named {
            // It was called after who answers; what is rolled out is the application.
            service.name.clone_from(&self.manifest.name);
        }
        self.name_tracks(service, routing.subsets);
        if let Some((name, value)) = &routing.header {
            let condition = map([("headers", Yaml::Map(vec![(name.clone(), text(&**value))]))]);
            service.lead(map([("match", condition), ("track", text("canary"))]));
        }
        let steps = canary.get("steps").map(|steps| steps.list()).unwrap_or_default();
        let mut used = Vec::new();
        let stages = Self::stages(&steps, service, &mut used);
        if let Some(field) = canary.get("analysis") {
            let analysis = field.map();
            if let Some(step) = analysis.get("startingStep") {
                step.differs("checks are asked at every stage from the first");
            }
            used.push(field.clone());
        }
        let mut rollout = vec![("stages".to_owned(), Yaml::List(stages))];
        rollout.push(("on_max".to_owned(), plain("advance")));
        let checks: Vec<Yaml> =
            used.iter().flat_map(|field| checks(field, self.templates)).collect();
        if !checks.is_empty() {
            rollout.push(("checks".to_owned(), Yaml::List(checks)));
        }
        service.rollout = Some(Yaml::Map(rollout));
        for key in REPLICAS {
            if let Some(field) = canary.get(key) {
                field.differs("is about replicas, which stay with Kubernetes; keep stable at full size until `bake` has passed");
            }
        }
        canary.refuse(&[
            ("canaryMetadata", "labels pods by role; the two Deployments have labels of their own"),
            ("stableMetadata", "labels pods by role; the two Deployments have labels of their own"),
            ("antiAffinity", "places pods; write it in the Deployments"),
            ("pingPong", "swaps Services; here the file names who is stable"),
        ]);
        canary.finish();
    }

    /// A service for a Rollout that comes alone.
    fn fresh(&self, (stable, canary): (Option<&str>, Option<&str>)) -> Service {
        let name = &self.manifest.name;
        let namespace = self.manifest.namespace.as_deref();
        let mut service = Service {
            name: name.clone(),
            namespace: namespace.map(str::to_owned),
            hosts: hosts(name, namespace),
            ..Service::default()
        };
        for (track, own) in [("stable", stable), ("canary", canary)] {
            let selects: Labels = match own {
                Some(_) => Labels::new(),
                None => vec![("track".to_owned(), track.to_owned())],
            };
            let host = (own.unwrap_or(name), namespace);
            service.tracks.push(self.track(track, host, &selects));
        }
        service.weights = vec![("stable".to_owned(), 10_000), ("canary".to_owned(), 0)];
        service
    }

    fn track(&self, name: &str, host: (&str, Option<&str>), selects: &Labels) -> Track {
        let (endpoints, todo) = self.cluster.endpoints(host, name, selects, self.pods.port);
        let (name, behind) = (name.to_owned(), host.0.to_owned());
        let todo = todo.into_iter().map(|message| (self.field.origin(), message)).collect();
        Track { name, endpoints, behind, todo, ..Track::default() }
    }

    /// The Services of a Rollout are the tracks, where something else has led to them before.
    fn adopt(&self, service: &mut Service, (stable, canary): (Option<&str>, Option<&str>)) {
        for (name, own) in [("stable", stable), ("canary", canary)] {
            let Some(own) = own else { continue };
            if call(service, own, name) {
                self.correct(service, name, own);
                continue;
            }
            if service.tracks.iter().any(|track| track.name == name) {
                continue;
            }
            if name == "canary" {
                let namespace = service.namespace.clone();
                let mut track = self.track(name, (own, namespace.as_deref()), &Labels::new());
                let stable = service.tracks.iter().find(|track| track.name == "stable");
                let Some(stable) = stable else { continue };
                track.more.clone_from(&stable.more);
                service.tracks.push(track);
            }
        }
    }

    /// A Rollout knows the port of its pods, where a route knows the Service's alone.
    fn correct(&self, service: &mut Service, name: &str, own: &str) {
        let namespace = service.namespace.clone();
        let track =
            service.tracks.iter_mut().find(|track| track.name == name && track.behind == own);
        if let (Some(track), Some(_)) = (track, self.pods.port) {
            let found = self.track(name, (own, namespace.as_deref()), &Labels::new());
            track.endpoints = found.endpoints;
            track.todo = found.todo;
        }
    }

    /// A rollout needs the tracks `stable` and `canary`, and their versions.
    fn name_tracks(&self, service: &mut Service, subsets: Option<(String, String)>) {
        let has = |service: &Service, name: &str| service.tracks.iter().any(|one| one.name == name);
        if !(has(service, "stable") && has(service, "canary")) {
            let by_weight = || {
                let mut weights = service.weights.clone();
                weights.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
                let mut names = weights.into_iter().map(|(name, _)| name);
                Some((names.next()?, names.next()?))
            };
            let Some((stable, canary)) = subsets.or_else(by_weight) else {
                self.field
                    .unsupported("has no two tracks to choose from; name `stable` and `canary`");
                return;
            };
            self.field.differs(format!("`{stable}` is called stable here, `{canary}` canary"));
            rename(service, &[(stable, "stable"), (canary, "canary")]);
        }
        versions(service, value(&self.pods.labels, "version"), &self.field);
    }

    /// The steps as stages; steps that analyse go to `used`.
    fn stages<'f>(
        steps: &[Field<'f>],
        service: &mut Service,
        used: &mut Vec<Field<'f>>,
    ) -> Vec<Yaml> {
        let mut stages: Vec<Stage> = Vec::new();
        for step in steps {
            let fields = step.map();
            if let Some(weight) = fields.get("setWeight") {
                let weight_text = weight.number().unwrap_or(0);
                match stages.last() {
                    _ if weight_text == 0 => {
                        weight.differs("is where every rollout begins: left out");
                    }
                    Some(last) if weight_text <= last.weight => {
                        weight.unsupported(
                            "does not rise; stages ascend, and a person lowers by `set-weight`",
                        );
                    }
                    _ if weight_text > 100 => weight.fault("is more than 100 %"),
                    _ => {
                        weight.exact("a stage");
                        stages.push(Stage { weight: weight_text, ..Stage::default() });
                    }
                }
            }
            if let Some(pause) = fields.get("pause") {
                Self::pause(&pause, stages.last_mut());
            }
            if let Some(analysis) = fields.get("analysis") {
                analysis.differs("is asked at every stage, not at this one alone");
                used.push(analysis);
            }
            if let Some(route) = fields.get("setHeaderRoute") {
                header_route(&route, service);
            }
            if let Some(scale) = fields.get("setCanaryScale") {
                scale.differs(
                    "is about replicas, which stay with Kubernetes: scale the canary's Deployment",
                );
            }
            if let Some(route) = fields.get("setMirrorRoute") {
                mirror_route(&route, service);
            }
            fields.refuse(&[
                ("experiment", "starts further versions; a service may have up to eight tracks"),
                ("plugin", "runs Argo's own plugins"),
                ("replicaProgressThreshold", "is about replicas; see `start.ready`"),
            ]);
            fields.finish();
        }
        if stages.last().is_none_or(|last| last.weight < 100) {
            stages.push(Stage { weight: 100, ..Stage::default() });
        }
        if let [only] = &mut stages[..] {
            // Nothing could be judged before.
            only.is_approved = true;
        }
        stages.into_iter().map(Stage::yaml).collect()
    }

    fn pause(field: &Field<'_>, stage: Option<&mut Stage>) {
        let pause = field.map();
        let duration = pause.get("duration").and_then(|duration| duration.duration_ms());
        pause.finish();
        match (stage, duration) {
            (None, Some(_)) => field.unsupported(
                "comes ahead of the first weight; a gate on `pre_rollout` can wait there",
            ),
            (None, None) => field.unsupported(
                "comes ahead of the first weight; write `approve: true` on the first stage",
            ),
            (Some(stage), Some(ms)) => {
                stage.min_ms = Some(stage.min_ms.unwrap_or(0) + ms);
                field.differs("is the stage's `min`: it also waits for proof; `max` with `on_max: advance` goes on without");
            }
            (Some(stage), None) => {
                stage.is_approved = true;
                field.exact("`approve: true`: `splitway promote` goes on");
            }
        }
    }

    fn blue_green(&self, services: &mut Vec<Service>) {
        let plan = self.field.map();
        let names = (plan.text("activeService"), plan.text("previewService"));
        let is_automatic = plan.text("autoPromotionEnabled") != Some("false");
        let seconds = plan.get("autoPromotionSeconds").and_then(|field| field.duration_ms());
        if is_automatic || seconds.is_some() {
            self.field.differs("switches by itself; here a person does by `splitway promote`, because nothing can be judged before the switch");
        }
        let mut service = self.fresh(names);
        service.comments.push(format!("from {}", self.manifest.origin()));
        self.name_tracks(&mut service, None);
        let mut stage = vec![("weight".to_owned(), plain(100))];
        stage.push(("approve".to_owned(), plain(true)));
        let mut rollout = vec![("stages".to_owned(), Yaml::List(vec![Yaml::Map(stage)]))];
        let mut found = Vec::new();
        if let Some(field) = plan.get("prePromotionAnalysis") {
            field.unsupported("asks before the switch, when the canary has no traffic; a gate on `pre_rollout` can");
        }
        if let Some(field) = plan.get("postPromotionAnalysis") {
            field.differs("is asked during `bake`");
            found = checks(&field, self.templates);
        }
        if !found.is_empty() {
            rollout.push(("checks".to_owned(), Yaml::List(found)));
        }
        if let Some(field) = plan.get("scaleDownDelaySeconds") {
            if let Some(ms) = field.duration_ms() {
                rollout.push(("bake".to_owned(), duration(ms.max(1_000))));
            }
            field.differs("is `bake`; scale the old version down after it");
        }
        for key in [
            "previewReplicaCount",
            "scaleDownDelayRevisionLimit",
            "abortScaleDownDelaySeconds",
            "maxUnavailable",
        ] {
            if let Some(field) = plan.get(key) {
                field.differs("is about replicas, which stay with Kubernetes");
            }
        }
        plan.refuse(&[
            ("antiAffinity", "places pods; write it in the Deployments"),
            ("activeMetadata", "labels pods by role; the two Deployments have labels of their own"),
            (
                "previewMetadata",
                "labels pods by role; the two Deployments have labels of their own",
            ),
        ]);
        plan.finish();
        service.rollout = Some(Yaml::Map(rollout));
        services.retain(|known| known.name != service.name);
        services.push(service);
    }
}

impl Stage {
    fn yaml(self) -> Yaml {
        if self.min_ms.is_none() && !self.is_approved {
            return plain(self.weight);
        }
        let mut entries = vec![("weight".to_owned(), plain(self.weight))];
        entries.extend(self.min_ms.map(|ms| ("min".to_owned(), duration(ms))));
        entries.extend(self.is_approved.then(|| ("approve".to_owned(), plain(true))));
        Yaml::Map(entries)
    }
}

/// A rollout needs versions; `next` is the canary's, where it is known.
pub(super) fn versions(service: &mut Service, next: Option<&str>, field: &Field<'_>) {
    for track in &mut service.tracks {
        let (next, usual) = match &*track.name {
            "stable" => (None, "v1"),
            "canary" => (next, "v2"),
            _ => continue,
        };
        if track.version.is_none() {
            let version = next.unwrap_or(usual);
            field.differs(format!(
                "needs the version of {}; {version} is written, put the one that runs there",
                track.name
            ));
            track.version = Some(version.to_owned());
        }
    }
}
