//! What moves the traffic of a Rollout, and the routes that its steps set up.

use crate::import::draft::{Service, Yaml, map, plain, text};
use crate::import::istio::conditions;
use crate::import::manifest::{Field, Fields};

/// What a Rollout moves.
#[derive(Debug, Default)]
pub(super) struct Routing {
    /// Objects that have become services, as `VirtualService/api`.
    pub(super) sources: Vec<String>,
    /// The subsets that it calls stable and canary.
    pub(super) subsets: Option<(String, String)>,
    /// A header that leads to the canary.
    pub(super) header: Option<(String, String)>,
}

impl Routing {
    pub(super) fn read(field: &Field<'_>) -> Self {
        let routing = field.map();
        let mut found = Self::default();
        if let Some(istio) = routing.get("istio") {
            found.istio(&istio);
        }
        if let Some(nginx) = routing.get("nginx") {
            found.nginx(&nginx);
        }
        if let Some(plugins) = routing.get("plugins") {
            let fields = plugins.map();
            if let Some(gateway) = fields.get("argoproj-labs/gatewayAPI") {
                found.gateway(&gateway);
            }
            fields.finish();
        }
        routing.skip(&["managedRoutes"]);
        for key in ["alb", "smi", "ambassador", "traefik", "apisix", "appMesh", "maxTrafficWeight"]
        {
            if let Some(field) = routing.get(key) {
                field.unsupported(
                    "is another router's; Splitway splits by itself, name hosts and endpoints",
                );
            }
        }
        routing.finish();
        found
    }

    fn istio(&mut self, field: &Field<'_>) {
        let istio = field.map();
        if let Some(one) = istio.get("virtualService") {
            let one = one.map();
            self.sources.extend(one.text("name").map(|name| format!("VirtualService/{name}")));
            one.skip(&["routes"]);
            one.refuse(&[("tlsRoutes", "pass TLS through"), ("tcpRoutes", "split connections")]);
            one.finish();
        }
        if let Some(rule) = istio.get("destinationRule") {
            let rule = rule.map();
            rule.skip(&["name"]);
            let pair = (rule.text("stableSubsetName"), rule.text("canarySubsetName"));
            if let (Some(stable), Some(canary)) = pair {
                self.subsets = Some((stable.to_owned(), canary.to_owned()));
            }
            rule.finish();
        }
        istio.refuse(&[("virtualServices", "are several; give the Rollout one")]);
        istio.finish();
        field.exact("the weights are the rollout's");
    }

    fn nginx(&mut self, field: &Field<'_>) {
        let nginx = field.map();
        let several = nginx.get("stableIngresses").map(|list| list.list()).unwrap_or_default();
        let named = several.iter().filter_map(Field::text).chain(nginx.text("stableIngress"));
        self.sources.extend(named.map(|name| format!("Ingress/{name}")));
        nginx.skip(&["annotationPrefix"]);
        if let Some(annotations) = nginx.get("additionalIngressAnnotations") {
            let annotations = annotations.map();
            let name = annotations.text("canary-by-header");
            let value = annotations.text("canary-by-header-value").unwrap_or("always");
            self.header = name.map(|name| (name.to_owned(), value.to_owned()));
            annotations.finish();
        }
        nginx.finish();
        field.exact("the weights are the rollout's");
    }

    fn gateway(&mut self, field: &Field<'_>) {
        let gateway = field.map();
        gateway.skip(&["namespace"]);
        let several = gateway.get("httpRoutes").map(|list| list.list()).unwrap_or_default();
        let several = several.iter().filter_map(|one| one.map().text("name"));
        let named = several.chain(gateway.text("httpRoute"));
        self.sources.extend(named.map(|name| format!("HTTPRoute/{name}")));
        gateway.refuse(&[("grpcRoute", "is not read; write an HTTPRoute")]);
        gateway.finish();
        field.exact("the weights are the rollout's");
    }
}

/// A copy of the traffic, which Argo makes for a time.
pub(super) fn mirror_route(field: &Field<'_>, service: &mut Service) {
    let route: Fields<'_> = field.map();
    route.skip(&["name"]);
    route.refuse(&[("match", "copies some requests only; `mirror` copies a share of all")]);
    let share = route.get("percentage").and_then(|share| share.number());
    route.finish();
    let Some(share) = share.filter(|share| *share > 0) else {
        field.differs("takes a copy away again; `mirror` copies as long as it is in the file");
        return;
    };
    let mirror = map([
        ("from", text("stable")),
        ("to", text("canary")),
        ("share", plain(share.min(100))),
        ("methods", plain("any")),
    ]);
    field.differs(if service.set("mirror", mirror) {
        "is `mirror`, from the first request on; what writes is written twice (`methods: safe` copies reads alone)"
    } else {
        "is the second one; a service has one mirror, the first"
    });
}

/// A route by header, which Argo sets up on the way.
pub(super) fn header_route(field: &Field<'_>, service: &mut Service) {
    let route = field.map();
    route.skip(&["name"]);
    let mut headers = Vec::new();
    for one in route.get("match").map(|list| list.list()).unwrap_or_default() {
        let one_fields = one.map();
        let name = one_fields.text("headerName");
        let value = one_fields.get("headerValue");
        one_fields.finish();
        if let (Some(name), Some(test)) = (name, value.and_then(|value| conditions::test(&value))) {
            headers.push((name.to_owned(), test));
        }
    }
    route.finish();
    if headers.is_empty() {
        field.differs("takes a route away again; a rule stands as long as it is in the file");
        return;
    }
    field.differs("is a rule, from the first request on");
    let condition = map([("headers", Yaml::Map(headers))]);
    service.lead(map([("match", condition), ("track", text("canary"))]));
}

/// Calls the only track of a Service of Kubernetes `name`, and whoever was called so after its own;
/// whether there is one.
pub(in crate::import) fn call(service: &mut Service, behind: &str, name: &str) -> bool {
    let mut of = service.tracks.iter().filter(|track| track.behind == behind);
    let (Some(track), None) = (of.next(), of.next()) else { return false };
    let old = track.name.clone();
    let other = service.tracks.iter().find(|track| track.name == name && old != name);
    let other = other.map(|track| track.behind.clone());
    let mut names = vec![(old, name)];
    names.extend(other.as_deref().map(|other| (name.to_owned(), other)));
    rename(service, &names);
    true
}

/// Other names for tracks, everywhere.
pub(super) fn rename(service: &mut Service, names: &[(String, &str)]) {
    let new = |old: &str| {
        names
            .iter()
            .find(|(known, _)| known == old)
            .map_or(old.to_owned(), |(_, new)| (*new).to_owned())
    };
    for track in &mut service.tracks {
        track.name = new(&track.name);
    }
    for (name, _) in &mut service.weights {
        *name = new(name);
    }
    for rule in &mut service.rules {
        let Yaml::Map(entries) = rule else { continue };
        for (key, value) in entries {
            match (&**key, value) {
                ("track", Yaml::Text(name)) => *name = new(name),
                ("weights", Yaml::Map(weights)) => {
                    for (name, _) in weights {
                        *name = new(name);
                    }
                }
                _ => {}
            }
        }
    }
    for (key, value) in &mut service.more {
        if let ("mirror", Yaml::Map(entries)) = (&**key, value) {
            for (key, value) in entries {
                if let ("from" | "to", Yaml::Text(name)) = (&**key, value) {
                    *name = new(name);
                }
            }
        }
    }
}
