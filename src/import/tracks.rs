//! Tracks by the Services of Kubernetes that they stand for.

use super::draft::{Service, Track};
use super::kubernetes::{Cluster, Labels};
use super::manifest::Field;

/// Most tracks of a service.
const TRACKS_MAX: usize = 8;

/// A Service and its port.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Backend {
    pub(super) service: String,
    pub(super) namespace: Option<String>,
    pub(super) port: Option<u64>,
}

/// The tracks of one service so far.
#[derive(Debug, Default)]
pub(super) struct Tracks {
    known: Vec<Backend>,
}

impl Tracks {
    /// The track for a backend that `field` names, called `usual` where that is free; `None` where there
    /// are too many.
    pub(super) fn of(
        &mut self,
        service: &mut Service,
        cluster: &Cluster<'_>,
        backend: &Backend,
        usual: &str,
        field: &Field<'_>,
    ) -> Option<String> {
        if let Some(index) = self.known.iter().position(|known| known == backend) {
            return Some(service.tracks[index].name.clone());
        }
        if self.known.len() == TRACKS_MAX {
            field.unsupported("is the ninth who answers, where a service has 1 to 8 tracks; give some of its paths a service of their own");
            return None;
        }
        let is_taken = |name: &str| service.tracks.iter().any(|track| track.name == name);
        let numbered = (2..).map(|number| format!("{}-{number}", backend.service));
        let names = [usual.to_owned(), backend.service.clone()].into_iter().chain(numbered);
        let name = names.into_iter().find(|name| !is_taken(name))?;
        let host = (&*backend.service, backend.namespace.as_deref());
        let (endpoints, todo) = cluster.endpoints(host, &name, &Labels::new(), backend.port);
        service.tracks.push(Track {
            name: name.clone(),
            version: cluster.version_behind(&backend.service),
            endpoints,
            behind: backend.service.clone(),
            todo: todo.into_iter().map(|message| (field.origin(), message)).collect(),
            more: Vec::new(),
        });
        self.known.push(backend.clone());
        Some(name)
    }
}
