//! Manifests of others become one Splitway file that behaves the same, with a finding for everything
//! that does not.
//!
//! Read are Services, their endpoints, Deployments and the Ingresses of ingress-nginx; `VirtualService`
//! and `DestinationRule` of Istio; `Gateway` and `HTTPRoute` of Gateway API; Rollout and
//! `AnalysisTemplate` of Argo Rollouts; Canary and `MetricTemplate` of Flagger. It is pure: text in, text
//! and findings out.

mod argo;
mod cors;
mod draft;
pub mod finding;
mod flagger;
mod gateway;
mod ingress;
mod istio;
mod kubernetes;
mod manifest;
mod tracks;

use std::path::Path;

use crate::config;

use draft::Draft;
use finding::{BadInput, Finding, Grade, Origin, Report};
use kubernetes::Cluster;

pub use manifest::{FILE_BYTES_MAX, Source};

/// Kinds that stay in the cluster as they are and say nothing about who gets which request.
const APART: &[&str] = &[
    "Namespace",
    "GatewayClass",
    "IngressClass",
    "ReferenceGrant",
    "Certificate",
    "ConfigMap",
    "Secret",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
    "NetworkPolicy",
    "PersistentVolumeClaim",
    "PodMonitor",
    "ServiceMonitor",
    "PrometheusRule",
    "Pod",
    "Job",
    "CronJob",
    "DaemonSet",
];
/// Kinds that are read.
const READ: &[&str] = &[
    "Service",
    "Endpoints",
    "Ingress",
    "Gateway",
    "HTTPRoute",
    "EndpointSlice",
    "Deployment",
    "StatefulSet",
    "ReplicaSet",
    "VirtualService",
    "DestinationRule",
    "Rollout",
    "Canary",
    "MetricTemplate",
    "AlertProvider",
    "AnalysisTemplate",
    "ClusterAnalysisTemplate",
];

/// What was made of manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The Splitway file, which `check` accepts; `None` where no service was found.
    pub text: Option<String>,
    /// What became of each part, in the order of the files.
    pub findings: Vec<Finding>,
}

impl Imported {
    /// The worst grade of all findings.
    #[must_use]
    pub fn grade(&self) -> Grade {
        self.findings.iter().map(|finding| finding.grade).max().unwrap_or(Grade::Exact)
    }
}

/// Imports what `sources` describe, together.
///
/// # Errors
/// What is no manifest, or a malformed one.
pub fn import(sources: &[Source]) -> Result<Imported, Vec<BadInput>> {
    let report = Report::default();
    let manifests = manifest::read(sources, &report);
    for one in &manifests {
        if APART.contains(&&*one.kind) {
            report.find(Grade::Exact, one.origin(), "stays as it is; it does not route");
        } else if one.kind == "Kustomization" {
            let message = "changes what stands beside it; import what `kubectl kustomize` prints";
            report.find(Grade::Differs, one.origin(), message);
        } else if !READ.contains(&&*one.kind) {
            report.find(Grade::Unsupported, one.origin(), "is of a kind that is not imported");
        }
    }
    let mut draft = Draft::default();
    {
        let cluster = Cluster::read(&manifests, &report);
        draft.services = istio::import(&manifests, &cluster, &report);
        istio::gateway::import(&manifests, &report, &mut draft);
        gateway::import(&manifests, &cluster, &report, &mut draft);
        ingress::import(&manifests, &cluster, &report, &mut draft);
        flagger::take_services(&manifests, &cluster);
        let native = cluster.native(&draft.services);
        draft.services.extend(native);
        argo::import(&manifests, &cluster, &report, &mut draft.services);
        flagger::import(&manifests, &cluster, &report, &mut draft);
    }
    draft.services.retain(|service| !service.tracks.is_empty());
    for track in draft.services.iter().flat_map(|service| &service.tracks) {
        for (origin, message) in &track.todo {
            report.find(Grade::Differs, origin.clone(), message.clone());
        }
    }
    drop(manifests);
    let mut findings = report.close()?;
    let order = |origin: &Origin| {
        let file = sources.iter().position(|source| source.name == origin.file);
        (file, origin.place.line, origin.place.column)
    };
    findings.sort_by_key(|finding| order(&finding.origin));
    let is_empty = draft.services.is_empty();
    let text = (!is_empty).then(|| draft::write(&draft, &header(&findings)));
    if let Some(text) = &text {
        accepted(text)?;
    }
    Ok(Imported { text, findings })
}

/// What the file says of itself.
fn header(findings: &[Finding]) -> Vec<String> {
    let notable = |finding: &&Finding| finding.grade != Grade::Exact;
    let told = findings.iter().filter(notable).map(|finding| {
        format!("- {}: {}", finding.origin, finding.message.replace(['\n', '\r'], " "))
    });
    let told: Vec<String> = told.collect();
    let first = if told.is_empty() {
        "Made by `splitway import`; everything is as before."
    } else {
        "Made by `splitway import`. What is not the same as before:"
    };
    std::iter::once(first.to_owned()).chain(told).collect()
}

/// The result must be a configuration, whatever was read.
fn accepted(text: &str) -> Result<(), Vec<BadInput>> {
    let name = Path::new("the imported file");
    config::parse(name, text).map(drop).map_err(|faults| {
        let fault = |line: String| BadInput {
            origin: Origin {
                file: name.display().to_string(),
                place: config::fault::Place { line: 1, column: 1 },
                object: String::new(),
                path: String::new(),
            },
            message: format!("{line}; change the manifest there"),
        };
        faults.lines().map(fault).collect()
    })
}

/// Shares in hundredths of a percent that sum to 100 %, by the largest remainders.
fn share(counts: &[(String, u64)]) -> Vec<(String, u64)> {
    let mut merged: Vec<(String, u64)> = Vec::new();
    for (name, count) in counts {
        match merged.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = known.saturating_add(*count),
            None => merged.push((name.clone(), *count)),
        }
    }
    let total: u128 = merged.iter().map(|(_, count)| u128::from(*count)).sum();
    if total == 0 {
        merged.iter_mut().take(1).for_each(|(_, count)| *count = 1);
        return if merged.is_empty() { merged } else { share(&merged) };
    }
    let exact = |count: u64| u128::from(count) * 10_000;
    let mut shares: Vec<(String, u64, u128)> = merged
        .into_iter()
        .map(|(name, count)| {
            let whole = u64::try_from(exact(count) / total).unwrap_or(10_000);
            (name, whole, exact(count) % total)
        })
        .collect();
    let missing = 10_000 - shares.iter().map(|(_, whole, _)| whole).sum::<u64>();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(shares[index].2));
    for &index in order.iter().take(usize::try_from(missing).unwrap_or(0)) {
        shares[index].1 += 1;
    }
    shares.into_iter().map(|(name, whole, _)| (name, whole)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_to_everything() {
        let of = |counts: &[u64]| {
            let named: Vec<_> = counts
                .iter()
                .enumerate()
                .map(|(index, count)| (index.to_string(), *count))
                .collect();
            share(&named).into_iter().map(|(_, share)| share).collect::<Vec<_>>()
        };
        assert_eq!(of(&[19, 1]), [9_500, 500]);
        assert_eq!(of(&[1, 1, 1]), [3_334, 3_333, 3_333]);
        assert_eq!(of(&[0, 0]), [10_000, 0]);
        assert_eq!(of(&[u64::MAX, u64::MAX]), [5_000, 5_000]);
    }
}
