//! Ingresses of ingress-nginx: a canary's beside its main one's, paths in nginx's order.

mod canary;
mod edge;
mod notes;
mod path;
mod settings;

use crate::import::draft::{Draft, Service, Yaml, map, plain, text};
use crate::import::finding::Report;
use crate::import::kubernetes::Cluster;
use crate::import::manifest::{Field, Fields, Manifest};
use crate::import::tracks::{Backend, Tracks};
use canary::Canary;
use notes::Notes;
use path::{Path, Way};
use settings::{Settings, settings};

/// Of a canary whose main Ingress is not there.
const LONE: &str =
    "is a canary of no Ingress with this host and path, so nothing ever reached it: left out";

/// The answer where what guarded or changed requests has no counterpart: nobody is let in for that.
const CLOSED: &str = "not imported; see the findings\n";

/// An Ingress.
struct Ingress<'m> {
    manifest: &'m Manifest,
    whole: Field<'m>,
    notes: Notes<'m>,
    canary: Option<Canary>,
    settings: Settings,
    locations: Vec<Location<'m>>,
    tls_hosts: Vec<String>,
}

/// A path of a host, and who answers there.
struct Location<'m> {
    /// Empty: any that no other Ingress names.
    host: String,
    path: Path,
    backend: Backend,
    field: Field<'m>,
}

/// A location of a main Ingress, and of its canary.
struct Routed<'i, 'm> {
    main: &'i Ingress<'m>,
    location: &'i Location<'m>,
    canary: Option<(&'i Ingress<'m>, &'i Location<'m>)>,
    way: Way,
}

impl Routed<'_, '_> {
    /// What locations share that become one service.
    fn is_like(&self, other: &Self) -> bool {
        let canary = |one: &Self| {
            one.canary.map(|(ingress, location)| {
                (ingress.manifest.name.clone(), location.backend.clone())
            })
        };
        self.main.manifest.name == other.main.manifest.name
            && self.location.backend == other.location.backend
            && canary(self) == canary(other)
            && self.way.rewrite == other.way.rewrite
            && self.way.is_closed == other.way.is_closed
    }
}

/// Adds the services that Ingresses describe, with listeners and limits.
pub(super) fn import(
    manifests: &[Manifest],
    cluster: &Cluster<'_>,
    report: &Report,
    draft: &mut Draft,
) {
    let all: Vec<Ingress> = manifests
        .iter()
        .filter(|one| one.kind == "Ingress")
        .filter_map(|one| read(one, cluster, report, draft))
        .collect();
    let mut hosts: Vec<&str> = Vec::new();
    for location in all.iter().filter(|one| one.canary.is_none()).flat_map(|one| &one.locations) {
        if !hosts.contains(&&*location.host) {
            hosts.push(&location.host);
        }
    }
    let mut done: Vec<(Vec<Routed>, Vec<String>)> = Vec::new();
    for &host in &hosts {
        let routed = routed(&all, host);
        if routed.is_empty() {
            // Each of its paths has its finding.
            continue;
        }
        let has_root = routed.iter().any(|one| one.way.prefix.as_deref() == Some("/"));
        // Whoever fits no path here must not be taken for another host's.
        let others = all.iter().flat_map(|one| &one.locations).any(|one| one.host != host);
        let is_simple = routed.iter().all(|one| one.way.prefix.is_some()) && (has_root || !others);
        let parts = if is_simple { split(routed) } else { vec![routed] };
        for part in parts {
            let same = done.iter_mut().find(|(known, _)| is_same(known, &part));
            match same {
                Some((_, hosts)) => hosts.push(host.to_owned()),
                None => done.push((part, vec![host.to_owned()])),
            }
        }
    }
    for (part, hosts) in &done {
        let mut builder =
            Builder { service: Service::default(), tracks: Tracks::default(), cluster };
        builder.service.name = name(part, &draft.services);
        builder.take(part, hosts);
        draft.services.push(builder.service);
    }
    edge::write(&all, draft);
    for one in &all {
        let lost = one.locations.iter().filter(|one| !hosts.contains(&&*one.host));
        for location in lost.filter(|_| one.canary.is_some()) {
            location.field.differs(LONE);
        }
        one.notes.finish(one.canary.is_some());
    }
}

fn read<'m>(
    manifest: &'m Manifest,
    cluster: &Cluster<'_>,
    report: &'m Report,
    draft: &mut Draft,
) -> Option<Ingress<'m>> {
    if !manifest.api.starts_with("networking.k8s.io/v1") || manifest.api.contains("beta") {
        manifest.whole(report).unsupported("is of an old API; write it as networking.k8s.io/v1");
        return None;
    }
    let (whole, spec) = manifest.spec(report)?;
    if let Some(class) = spec.get("ingressClassName")
        && class.text().is_some_and(|name| !name.contains("nginx"))
    {
        class.differs("is another controller's perhaps; it is read as ingress-nginx does");
    }
    let notes = Notes::read(&whole);
    let canary = notes.is_true("canary").then(|| Canary::read(&notes));
    let settings = match canary {
        Some(_) => Settings::default(),
        None => settings(&notes, &whole),
    };
    let mut locations = Vec::new();
    if let Some(field) = spec.get("defaultBackend")
        && let Some(backend) = backend(&field, manifest, cluster)
    {
        locations.push(Location { host: String::new(), path: Path::root(), backend, field });
    }
    for rule in spec.get("rules").map(|rules| rules.list()).unwrap_or_default() {
        let rule = rule.map();
        let host = rule.text("host").unwrap_or_default().to_ascii_lowercase();
        if let (true, Some(field)) = (host.starts_with("*."), rule.get("host")) {
            field.differs("is one label for nginx; here names of several fit, too");
        }
        if let Some(http) = rule.get("http") {
            let http = http.map();
            for field in http.get("paths").map(|paths| paths.list()).unwrap_or_default() {
                let path = field.map();
                let found =
                    path.get("backend").and_then(|field| backend(&field, manifest, cluster));
                let kind = path.get("pathType").and_then(|kind| kind.text());
                let at = path.text("path").unwrap_or("/");
                path.finish();
                if let (Some(backend), Some(path)) = (found, Path::read(at, kind, &field)) {
                    locations.push(Location { host: host.clone(), path, backend, field });
                }
            }
            http.finish();
        }
        rule.finish();
    }
    let tls_hosts = tls(&spec, draft);
    spec.finish();
    Some(Ingress { manifest, whole, notes, canary, settings, locations, tls_hosts })
}

fn backend(field: &Field<'_>, manifest: &Manifest, cluster: &Cluster<'_>) -> Option<Backend> {
    let fields = field.map();
    fields.refuse(&[("resource", "is no Service; name one")]);
    let service = fields.get("service");
    fields.finish();
    let service = service?.map();
    let name = service.text("name")?.to_owned();
    let mut number = None;
    if let Some(port) = service.get("port") {
        let fields = port.map();
        number = fields.get("number").and_then(|number| number.number());
        if let Some(word) = fields.text("name") {
            number = cluster.named_port(&name, word);
            if number.is_none() {
                port.differs(format!(
                    "`{word}` is a port of a Service that is not in these files; give its file, too"
                ));
            }
        }
        fields.finish();
    }
    service.finish();
    Some(Backend { service: name, namespace: manifest.namespace.clone(), port: number })
}

/// Notes the certificates; the hosts that have one.
fn tls(spec: &Fields<'_>, draft: &mut Draft) -> Vec<String> {
    let mut found = Vec::new();
    for field in spec.get("tls").map(|tls| tls.list()).unwrap_or_default() {
        let fields = field.map();
        let hosts = fields.get("hosts").map(|hosts| hosts.list()).unwrap_or_default();
        found.extend(hosts.iter().filter_map(Field::text).map(str::to_ascii_lowercase));
        let secret = fields.text("secretName");
        fields.finish();
        if let Some(name) = secret {
            draft.certificate(name, &field);
        } else {
            field.differs("had the controller's own certificate; make a Secret called default");
            draft.certificate("default", &field);
        }
    }
    found
}

/// The locations of a host in the order in which nginx asks them.
fn routed<'i, 'm>(all: &'i [Ingress<'m>], host: &str) -> Vec<Routed<'i, 'm>> {
    let mut found: Vec<(&Ingress, &Location)> = Vec::new();
    for main in all.iter().filter(|one| one.canary.is_none()) {
        for location in main.locations.iter().filter(|one| one.host == host) {
            match found.iter().find(|(_, known)| known.path == location.path) {
                Some((known, _)) => location.field.differs(format!(
                    "is this host's and path's second; {} has it first",
                    known.whole.origin()
                )),
                None => found.push((main, location)),
            }
        }
    }
    // One of them makes all paths of the host regular expressions.
    let is_regex = found.iter().any(|(main, location)| {
        let target = main.notes.text("rewrite-target");
        main.notes.is_true("use-regex") || target.is_some_and(|to| to != location.path.text)
    });
    let mut routed = Vec::new();
    for (main, location) in found {
        let Some(way) = location.path.way(is_regex, &main.notes, &location.field) else { continue };
        routed.push(Routed { main, location, canary: None, way });
    }
    routed.sort_by(|one, other| one.location.path.order(is_regex, &other.location.path));
    for ingress in all.iter().filter(|one| one.canary.is_some()) {
        for location in ingress.locations.iter().filter(|one| one.host == host) {
            match routed.iter_mut().find(|one| one.location.path == location.path) {
                Some(Routed { canary: Some(_), .. }) => location.field.differs(
                    "is a second canary of this host and path; ingress-nginx knows one, the first",
                ),
                Some(known) => {
                    known.canary = Some((ingress, location));
                    location.field.exact("the track canary");
                }
                None => location.field.differs(LONE),
            }
        }
    }
    routed
}

/// Locations with prefixes, each with those that are one service with it.
fn split<'i, 'm>(routed: Vec<Routed<'i, 'm>>) -> Vec<Vec<Routed<'i, 'm>>> {
    let mut parts: Vec<Vec<Routed>> = Vec::new();
    for one in routed {
        match parts.iter_mut().find(|part| part[0].is_like(&one)) {
            Some(part) => part.push(one),
            None => parts.push(vec![one]),
        }
    }
    // The widest first, as a person would write them.
    parts.sort_by_key(|part| part[0].way.prefix.as_ref().map_or(0, String::len));
    parts
}

fn is_same(one: &[Routed<'_, '_>], other: &[Routed<'_, '_>]) -> bool {
    let pair = |(one, other): (&Routed, &Routed)| {
        one.is_like(other) && one.location.path == other.location.path
    };
    one.len() == other.len() && one.iter().zip(other).all(pair)
}

/// What the service is called: as who answers, or else with its Ingress.
fn name(part: &[Routed<'_, '_>], known: &[Service]) -> String {
    let root = part.iter().find(|one| one.way.prefix.as_deref() == Some("/"));
    let one = root.unwrap_or(&part[0]);
    let service = one.location.backend.service.clone();
    let full = format!("{}-{service}", one.main.manifest.name);
    let numbered = (2..).map(|number| format!("{full}-{number}"));
    let names = [service, full.clone()].into_iter().chain(numbered);
    let is_free = |name: &String| !known.iter().any(|one| one.name == *name);
    names.into_iter().find(is_free).unwrap_or(full)
}

struct Builder<'c, 'm> {
    service: Service,
    tracks: Tracks,
    cluster: &'c Cluster<'m>,
}

impl Builder<'_, '_> {
    fn take(&mut self, part: &[Routed<'_, '_>], hosts: &[String]) {
        let mut hosts: Vec<&String> = hosts.iter().filter(|host| !host.is_empty()).collect();
        let is_simple = part.iter().all(|one| one.way.prefix.is_some())
            && part.iter().all(|one| one.is_like(&part[0]));
        for one in part {
            hosts.extend(&one.main.settings.aliases);
            self.service.namespace.clone_from(&one.main.manifest.namespace);
            for ingress in std::iter::once(one.main).chain(one.canary.map(|(ingress, _)| ingress)) {
                let source = format!("Ingress/{}", ingress.manifest.name);
                if !self.service.sources.contains(&source) {
                    self.service.comments.push(format!("from {}", ingress.whole.origin()));
                    self.service.sources.push(source);
                }
            }
        }
        for host in hosts {
            if !self.service.hosts.contains(host) {
                self.service.hosts.push(host.clone());
            }
        }
        if is_simple {
            let paths = part.iter().filter_map(|one| one.way.prefix.clone());
            self.service.paths = paths.collect();
            self.location(&part[0], None);
        } else {
            let (root, rest): (Vec<_>, Vec<_>) =
                part.iter().partition(|one| one.way.prefix.as_deref() == Some("/"));
            for one in rest {
                self.location(one, Some(&one.way.test));
            }
            match root.first() {
                Some(root) => self.location(root, None),
                None => self.service.refuse_rest(),
            }
        }
        self.service.complete_weights();
    }

    /// Adds the rules of a location: of one path, or of all that is left.
    fn location(&mut self, routed: &Routed<'_, '_>, at: Option<&Yaml>) {
        let settings = &routed.main.settings;
        let path = || at.map(|test| ("path".to_owned(), test.clone()));
        let everything = || path().unwrap_or_else(|| ("path".to_owned(), plain("/")));
        self.guards(routed, at);
        if let Some(redirect) = &settings.redirect {
            let condition = Yaml::Map(vec![everything()]);
            self.service.rules.push(map([("match", condition), ("redirect", redirect.clone())]));
            if at.is_some() {
                return;
            }
        }
        let backend = &routed.location.backend;
        let Some(stable) = self.track(routed, routed.main, backend, "stable") else { return };
        if routed.way.is_closed {
            return;
        }
        let mut edits: Vec<(String, Yaml)> = routed.way.rewrite.clone().into_iter().collect();
        let mut heads = Vec::new();
        if !settings.set.is_empty() {
            let set = map([("set", Yaml::Map(settings.set.clone()))]);
            heads.push(("headers".to_owned(), map([("request", set)])));
        }
        if let Some(cors) = &settings.cors {
            self.service.rules.push(cors.rule(&Yaml::Map(vec![everything()])));
            cors.add(&mut heads);
        }
        let is_all = at.is_none();
        if is_all { &mut self.service.more } else { &mut edits }.append(&mut heads);
        for (key, value) in settings.service.clone() {
            // Who has one track is on it anyhow.
            if key == "sticky" && routed.canary.is_none() {
                continue;
            }
            if !self.service.set(&key, value) {
                routed.main.whole.differs(format!(
                    "has a `{key}` of its own for {}; the service has one, the first",
                    routed.location.path.text
                ));
            }
        }
        let canary = routed.canary.and_then(|(ingress, location)| {
            let track = self.track(routed, ingress, &location.backend, "canary")?;
            Some((ingress.canary.as_ref()?, track))
        });
        let mut shares = vec![(stable.clone(), 10_000)];
        if let Some((canary, track)) = canary {
            for (test, is_canary) in canary.rules() {
                let condition = Yaml::Map(path().into_iter().chain([test]).collect());
                let to = if is_canary { &track } else { &stable };
                let mut rule = vec![("match".to_owned(), condition)];
                rule.push(("track".to_owned(), text(&**to)));
                rule.extend(edits.clone());
                self.service.rules.push(Yaml::Map(rule));
            }
            shares = canary.shares(&stable, &track);
        }
        if at.is_none() {
            self.service.weights.clone_from(&shares);
            if edits.is_empty() {
                return;
            }
        }
        let mut rule = vec![("match".to_owned(), Yaml::Map(vec![everything()]))];
        if at.is_some() {
            rule.extend(crate::import::draft::target(&shares));
        }
        rule.extend(edits);
        self.service.rules.push(Yaml::Map(rule));
    }

    /// What is answered ahead of everything else.
    fn guards(&mut self, routed: &Routed<'_, '_>, at: Option<&Yaml>) {
        let settings = &routed.main.settings;
        let path = || at.map(|test| ("path".to_owned(), test.clone()));
        if settings.is_closed || routed.way.is_closed {
            let everything = || ("path".to_owned(), plain("/"));
            let condition = Yaml::Map(vec![path().unwrap_or_else(everything)]);
            let answer = map([("status", plain(503)), ("body", text(CLOSED))]);
            self.service.rules.push(map([("match", condition), ("respond", answer)]));
        }
        for (key, nets) in [("not_source", &settings.allowed), ("source", &settings.denied)] {
            if !nets.is_empty() {
                let nets = (key.to_owned(), Yaml::List(nets.clone()));
                let condition = Yaml::Map(path().into_iter().chain([nets]).collect());
                let answer = map([("status", plain(403)), ("body", text(""))]);
                self.service.rules.push(map([("match", condition), ("respond", answer)]));
            }
        }
        let is_root = routed.way.prefix.as_deref() == Some("/");
        if let (Some(to), true) = (&settings.app_root, is_root) {
            let condition = map([("path", map([("exact", plain("/"))]))]);
            let redirect =
                map([("to", text(&**to)), ("keep_path", plain(false)), ("status", plain(302))]);
            self.service.rules.push(map([("match", condition), ("redirect", redirect)]));
        }
    }

    /// The track for a backend.
    fn track(
        &mut self,
        routed: &Routed<'_, '_>,
        ingress: &Ingress<'_>,
        backend: &Backend,
        usual: &str,
    ) -> Option<String> {
        let before = self.service.tracks.len();
        let name =
            self.tracks.of(&mut self.service, self.cluster, backend, usual, &ingress.whole)?;
        for track in &mut self.service.tracks[before..] {
            track.more.clone_from(&routed.main.settings.track);
            // Whoever has chosen the Service's address wants one endpoint.
            let is_one_address = routed.main.notes.is_true("service-upstream");
            track.todo.retain(|(_, todo)| !is_one_address || !todo.contains("headless"));
        }
        Some(name)
    }
}
