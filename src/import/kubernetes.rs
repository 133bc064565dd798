//! Services and Deployments: who stands behind a name, and how replicas have split the traffic.

use super::draft::{Service, Track};
use super::finding::Report;
use super::manifest::{Field, Manifest};
use super::share;

/// Labels in their order.
pub(super) type Labels = Vec<(String, String)>;

/// What is known of a cluster.
#[derive(Debug, Default)]
pub(super) struct Cluster<'m> {
    pub(super) services: Vec<KubeService<'m>>,
    deployments: Vec<Deployment<'m>>,
}

/// A Service of Kubernetes.
#[derive(Debug)]
pub(super) struct KubeService<'m> {
    pub(super) name: &'m str,
    namespace: Option<&'m str>,
    selector: Labels,
    /// The port that clients use, and the one that pods listen on.
    ports: Vec<(u64, Option<u64>)>,
    field: Field<'m>,
}

/// A Deployment, or another that makes pods.
#[derive(Debug)]
struct Deployment<'m> {
    name: &'m str,
    namespace: Option<&'m str>,
    labels: Labels,
    replicas: u64,
    field: Field<'m>,
}

/// A host as manifests name it: `api`, `api.shop`, `api.shop.svc.cluster.local`.
pub(super) fn short(host: &str) -> &str {
    host.split('.').next().unwrap_or(host)
}

fn namespace_of(host: &str) -> Option<&str> {
    let mut parts = host.split('.').skip(1);
    let namespace = parts.next()?;
    matches!(parts.next(), Some("svc") | None).then_some(namespace)
}

impl<'m> Cluster<'m> {
    pub(super) fn read(manifests: &'m [Manifest], report: &'m Report) -> Self {
        let mut cluster = Self::default();
        for manifest in manifests {
            let namespace = manifest.namespace.as_deref();
            let whole = manifest.whole(report);
            match &*manifest.kind {
                "Service" if manifest.api == "v1" => {
                    cluster.services.push(service(manifest, &whole));
                }
                "Deployment" | "StatefulSet" | "ReplicaSet" => {
                    let root = whole.map();
                    let Some(spec) = root.get("spec") else { continue };
                    let spec = spec.map();
                    let labels = spec.get("template").and_then(|template| {
                        let metadata = template.map().get("metadata")?;
                        Some(labels(&metadata.map().get("labels")?))
                    });
                    let replicas = spec.get("replicas").and_then(|replicas| replicas.number());
                    cluster.deployments.push(Deployment {
                        name: &manifest.name,
                        namespace,
                        labels: labels.unwrap_or_default(),
                        replicas: replicas.unwrap_or(1),
                        field: whole,
                    });
                }
                _ => {}
            }
        }
        cluster
    }

    /// The port on which the pods behind `host` listen, for clients that use `port`.
    pub(super) fn port(&self, host: &str, port: Option<u64>) -> Option<u64> {
        let service = self.services.iter().find(|service| service.name == short(host))?;
        let ports = &service.ports;
        let (port, target) = match port {
            Some(port) => ports.iter().find(|(known, _)| *known == port)?,
            None => ports.first()?,
        };
        Some(target.unwrap_or(*port))
    }

    /// The label `version` of pods that have these labels.
    pub(super) fn version(&self, wanted: &Labels) -> Option<String> {
        let mut fitting = self.deployments.iter().filter(|one| has(&one.labels, wanted));
        let one = fitting.next()?;
        value(&one.labels, "version").filter(|_| fitting.next().is_none()).map(str::to_owned)
    }

    /// The endpoint for the pods with `labels` behind `host`, and what must be done so that it is one.
    pub(super) fn endpoint(
        &self,
        (host, namespace): (&str, Option<&str>),
        track: &str,
        labels: &Labels,
        port: Option<u64>,
    ) -> (String, Vec<String>) {
        let known = self.port(host, port).or(port);
        let namespace = namespace_of(host).or(namespace);
        let name = if labels.is_empty() {
            short(host).to_owned()
        } else {
            format!("{}-{track}", short(host))
        };
        let full = namespace.map_or_else(
            || name.clone(),
            |namespace| format!("{name}.{namespace}.svc.cluster.local"),
        );
        let mut todo = Vec::new();
        if labels.is_empty() {
            todo.push(format!("make the Service {name} headless (`clusterIP: None`), or its endpoints count as one"));
        } else {
            let own = self.services.iter().find(|service| service.name == short(host));
            let mut selector = own.map_or_else(Labels::new, |service| service.selector.clone());
            for (key, value) in labels {
                if !selector.iter().any(|(known, _)| known == key) {
                    selector.push((key.clone(), value.clone()));
                }
            }
            todo.push(format!(
                "Splitway reads names, not labels: make a headless Service {name} that selects {}",
                words(&selector)
            ));
        }
        if known.is_none() {
            todo.push(
                "the port is not in these files; 80 is written, put the one of the pods".into(),
            );
        }
        (format!("{full}:{}", known.unwrap_or(80)), todo)
    }

    /// The services whose traffic replicas split, except those in `taken`.
    pub(super) fn native(&self, taken: &[Service]) -> Vec<Service> {
        let fresh = |service: &&KubeService| !taken.iter().any(|known| known.name == service.name);
        self.services.iter().filter(fresh).filter_map(|service| self.by_replicas(service)).collect()
    }

    fn by_replicas(&self, service: &KubeService<'_>) -> Option<Service> {
        let behind: Vec<&Deployment> = self
            .deployments
            .iter()
            .filter(|one| !service.selector.is_empty() && has(&one.labels, &service.selector))
            .collect();
        if behind.len() < 2 {
            service
                .field
                .differs("has one version behind it, so there is nothing to split: left out");
            return None;
        }
        if behind.len() > 8 {
            service
                .field
                .unsupported("has more than 8 Deployments behind it; a service has 1 to 8 tracks");
            return None;
        }
        let namespace = service.namespace.or_else(|| behind.iter().find_map(|one| one.namespace));
        let mut draft = Service {
            comments: vec![format!("from {}", service.field.origin())],
            name: service.name.to_owned(),
            namespace: namespace.map(str::to_owned),
            hosts: hosts(service.name, namespace),
            ..Service::default()
        };
        let mut replicas = Vec::new();
        for one in behind {
            let name = track_name(service, one, &draft.tracks);
            let own: Labels = ["track", "version"]
                .iter()
                .filter_map(|key| Some(((*key).to_owned(), value(&one.labels, key)?.to_owned())))
                .collect();
            let selects: Labels = own.into_iter().take(1).collect();
            let (endpoint, todo) = self.endpoint((service.name, namespace), &name, &selects, None);
            for message in todo {
                one.field.differs(message);
            }
            one.field.exact(format!("the track {name}"));
            let version = value(&one.labels, "version").map(str::to_owned);
            let endpoints = vec![endpoint];
            draft.tracks.push(Track { name: name.clone(), version, endpoints, more: Vec::new() });
            replicas.push((name, one.replicas));
        }
        let total: u64 = replicas.iter().map(|(_, count)| count).sum();
        draft.weights = share(&replicas);
        service.field.exact(format!(
            "the weights are the shares of {total} replicas; they stay so however many there are"
        ));
        Some(draft)
    }
}

fn service<'m>(manifest: &'m Manifest, whole: &Field<'m>) -> KubeService<'m> {
    let root = whole.map();
    let mut found = KubeService {
        name: &manifest.name,
        namespace: manifest.namespace.as_deref(),
        selector: Labels::new(),
        ports: Vec::new(),
        field: whole.clone(),
    };
    let Some(spec) = root.get("spec") else { return found };
    let spec = spec.map();
    if let Some(selector) = spec.get("selector") {
        found.selector = labels(&selector);
    }
    if let Some(affinity) = spec.get("sessionAffinity")
        && affinity.text() == Some("ClientIP")
    {
        affinity.differs(
            "is by pod; `balance: { by: key }` keeps a client's endpoint, `sticky` its track",
        );
    }
    for port in spec.get("ports").map(|ports| ports.list()).unwrap_or_default() {
        let port = port.map();
        let target = port.get("targetPort").and_then(|target| target.text()?.parse().ok());
        if let Some(number) = port.get("port").and_then(|port| port.number()) {
            found.ports.push((number, target));
        }
    }
    found
}

/// What the track of a Deployment is called: by its label, else by what its name says beyond the
/// Service's.
fn track_name(service: &KubeService<'_>, one: &Deployment<'_>, others: &[Track]) -> String {
    let beyond = one.name.strip_prefix(service.name).map(|rest| rest.trim_start_matches('-'));
    let name = value(&one.labels, "track")
        .or_else(|| value(&one.labels, "version"))
        .or(beyond.filter(|rest| !rest.is_empty()))
        .unwrap_or(one.name);
    if others.iter().any(|other| other.name == name) {
        one.name.to_owned()
    } else {
        name.to_owned()
    }
}

/// The names by which clients in the cluster call a Service.
pub(super) fn hosts(host: &str, namespace: Option<&str>) -> Vec<String> {
    let mut names = vec![host.to_owned()];
    if let (false, Some(namespace)) = (host.contains('.'), namespace) {
        for end in ["", ".svc", ".svc.cluster.local"] {
            names.push(format!("{host}.{namespace}{end}"));
        }
    }
    names
}

pub(super) fn labels(field: &Field<'_>) -> Labels {
    let all = field.map().all().into_iter();
    all.filter_map(|(key, value)| Some((key.to_owned(), value.text()?.to_owned()))).collect()
}

fn has(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|pair| labels.contains(pair))
}

pub(super) fn value<'l>(labels: &'l Labels, key: &str) -> Option<&'l str> {
    labels.iter().find(|(known, _)| known == key).map(|(_, value)| &**value)
}

fn words(labels: &Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}
