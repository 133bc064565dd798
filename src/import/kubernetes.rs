//! Services, their endpoints, and Deployments: who stands behind a name, and how replicas have split
//! the traffic.

use std::cell::RefCell;

use super::draft::{Service, Track};
use super::finding::Report;
use super::manifest::{Field, Fields, Manifest};
use super::share;

/// Labels in their order.
pub(super) type Labels = Vec<(String, String)>;

/// What is known of a cluster.
#[derive(Debug, Default)]
pub(super) struct Cluster<'m> {
    pub(super) services: Vec<KubeService<'m>>,
    deployments: Vec<Deployment<'m>>,
    addresses: Vec<Addresses<'m>>,
    /// Services that something else than replicas leads to.
    used: RefCell<Vec<String>>,
}

/// An `EndpointSlice` or `Endpoints`.
#[derive(Debug)]
struct Addresses<'m> {
    service: String,
    hosts: Vec<String>,
    /// By the names of ports; those of a Service with one port have none.
    ports: Vec<(Option<&'m str>, u64)>,
    field: Field<'m>,
}

/// A Service of Kubernetes.
#[derive(Debug)]
pub(super) struct KubeService<'m> {
    pub(super) name: &'m str,
    namespace: Option<&'m str>,
    selector: Labels,
    ports: Vec<Port<'m>>,
    /// The name outside of the cluster that it stands for.
    external: Option<&'m str>,
    field: Field<'m>,
}

/// A port of a Service: the one that clients use, and the one that pods listen on.
#[derive(Debug)]
struct Port<'m> {
    number: u64,
    target: Option<u64>,
    name: Option<&'m str>,
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
                "EndpointSlice" | "Endpoints" => {
                    cluster.addresses.push(addresses(manifest, &whole));
                }
                _ => {}
            }
        }
        for one in &cluster.addresses {
            let service = cluster.services.iter().find(|service| service.name == one.service);
            one.field.exact(match service {
                Some(service) if service.selector.is_empty() => "the endpoints of its Service",
                Some(_) => "changes with the pods of its Service, so the Service's name is written",
                None => "is of a Service that is not in these files: left out",
            });
        }
        cluster
    }

    /// The number of a port that a Service has under this name.
    pub(super) fn named_port(&self, host: &str, name: &str) -> Option<u64> {
        let service = self.services.iter().find(|service| service.name == short(host))?;
        service.ports.iter().find(|port| port.name == Some(name)).map(|port| port.number)
    }

    /// The version of all that a Service selects.
    pub(super) fn version_behind(&self, host: &str) -> Option<String> {
        let service = self.services.iter().find(|service| service.name == short(host))?;
        (!service.selector.is_empty()).then(|| self.version(&service.selector)).flatten()
    }

    /// The addresses of a Service that selects nothing, or the name outside that it stands for.
    fn fixed(&self, host: &str, port: Option<u64>) -> Option<Vec<String>> {
        let service = self.services.iter().find(|service| service.name == short(host))?;
        if let Some(name) = service.external {
            let port = port.or_else(|| Some(service.ports.first()?.number)).unwrap_or(80);
            return Some(vec![format!("{name}:{port}")]);
        }
        if !service.selector.is_empty() {
            return None;
        }
        let wanted = service.ports.iter().find(|one| port.is_none_or(|port| one.number == port));
        let named = wanted.and_then(|port| port.name);
        let mut found = Vec::new();
        for one in self.addresses.iter().filter(|one| one.service == service.name) {
            let port = one.ports.iter().find(|(name, _)| *name == named).or(one.ports.first());
            let Some((_, port)) = port else { continue };
            let joined = |host: &String| {
                if host.contains(':') {
                    format!("[{host}]:{port}")
                } else {
                    format!("{host}:{port}")
                }
            };
            found.extend(one.hosts.iter().map(joined));
        }
        (!found.is_empty()).then_some(found)
    }

    /// The port on which the pods behind `host` listen, for clients that use `port`.
    pub(super) fn port(&self, host: &str, port: Option<u64>) -> Option<u64> {
        let service = self.services.iter().find(|service| service.name == short(host))?;
        let ports = &service.ports;
        let port = match port {
            Some(port) => ports.iter().find(|known| known.number == port)?,
            None => ports.first()?,
        };
        Some(port.target.unwrap_or(port.number))
    }

    /// The label `version` of pods that have these labels.
    pub(super) fn version(&self, wanted: &Labels) -> Option<String> {
        let mut fitting = self.deployments.iter().filter(|one| has(&one.labels, wanted));
        let one = fitting.next()?;
        value(&one.labels, "version").filter(|_| fitting.next().is_none()).map(str::to_owned)
    }

    /// The endpoints for the pods with `labels` behind `host`, and what must be done so that they are.
    pub(super) fn endpoints(
        &self,
        (host, namespace): (&str, Option<&str>),
        track: &str,
        labels: &Labels,
        port: Option<u64>,
    ) -> (Vec<String>, Vec<String>) {
        self.take(short(host));
        if let Some(fixed) = self.fixed(host, port).filter(|_| labels.is_empty()) {
            return (fixed, Vec::new());
        }
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
        (vec![format!("{full}:{}", known.unwrap_or(80))], todo)
    }

    /// Replicas do not split the traffic of this Service.
    pub(super) fn take(&self, service: &str) {
        self.used.borrow_mut().push(service.to_owned());
    }

    /// The services whose traffic replicas split, except those in `taken`.
    pub(super) fn native(&self, taken: &[Service]) -> Vec<Service> {
        let used = self.used.borrow().clone();
        let fresh = |service: &&KubeService| {
            !taken.iter().any(|known| known.name == service.name)
                && !used.iter().any(|known| known == service.name)
        };
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
            let host = (service.name, namespace);
            let (endpoints, todo) = self.endpoints(host, &name, &selects, None);
            for message in todo {
                one.field.differs(message);
            }
            one.field.exact(format!("the track {name}"));
            let version = value(&one.labels, "version").map(str::to_owned);
            let behind = service.name.to_owned();
            draft.tracks.push(Track {
                name: name.clone(),
                version,
                endpoints,
                behind,
                ..Track::default()
            });
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
        external: None,
        field: whole.clone(),
    };
    let Some(spec) = root.get("spec") else { return found };
    let spec = spec.map();
    found.external = spec.get("externalName").and_then(|name| name.text());
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
            let name = port.text("name");
            found.ports.push(Port { number, target, name });
        }
    }
    found
}

/// Who an `EndpointSlice` or `Endpoints` names; those that are not ready count, as they may become so.
fn addresses<'m>(manifest: &'m Manifest, whole: &Field<'m>) -> Addresses<'m> {
    let root = whole.map();
    let metadata = root.get("metadata").map(|metadata| metadata.map());
    let labelled = metadata.and_then(|metadata| Some(labels(&metadata.get("labels")?)));
    let labelled = labelled.as_ref().and_then(|labels| value(labels, "kubernetes.io/service-name"));
    let service = match &*manifest.kind {
        "EndpointSlice" => labelled.unwrap_or_default().to_owned(),
        _ => manifest.name.clone(),
    };
    let list =
        |fields: &Fields<'m>, key| fields.get(key).map(|list| list.list()).unwrap_or_default();
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    let mut take_ports = |fields: &Fields<'m>| {
        for port in list(fields, "ports") {
            let port = port.map();
            let number = port.get("port").and_then(|port| port.number());
            ports.extend(
                number.map(|number| (port.text("name").filter(|name| !name.is_empty()), number)),
            );
        }
    };
    for endpoint in list(&root, "endpoints") {
        let listed = list(&endpoint.map(), "addresses");
        hosts.extend(listed.iter().filter_map(Field::text).map(str::to_owned));
    }
    take_ports(&root);
    for subset in list(&root, "subsets") {
        let subset = subset.map();
        for key in ["addresses", "notReadyAddresses"] {
            let listed = list(&subset, key);
            hosts.extend(listed.iter().filter_map(|one| one.map().text("ip")).map(str::to_owned));
        }
        take_ports(&subset);
    }
    Addresses { service, hosts, ports, field: whole.clone() }
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
