//! `AnalysisTemplate`s as checks.

use std::cell::RefCell;

use crate::opinion::expression::Condition;

use crate::import::draft::{Yaml, duration, plain, text};
use crate::import::finding::Report;
use crate::import::istio::conditions;
use crate::import::manifest::{Field, Fields, Manifest};

/// The templates of all files.
pub(super) struct Templates<'m> {
    all: Vec<(&'m Manifest, Field<'m>)>,
    used: RefCell<Vec<bool>>,
}

impl<'m> Templates<'m> {
    pub(super) fn read(manifests: &'m [Manifest], report: &'m Report) -> Self {
        let is_one =
            |one: &&Manifest| matches!(&*one.kind, "AnalysisTemplate" | "ClusterAnalysisTemplate");
        let all: Vec<_> =
            manifests.iter().filter(is_one).map(|one| (one, one.whole(report))).collect();
        let used = RefCell::new(vec![false; all.len()]);
        Self { all, used }
    }

    fn find(&self, name: &str, is_cluster: bool) -> Option<Field<'m>> {
        let kind = if is_cluster { "ClusterAnalysisTemplate" } else { "AnalysisTemplate" };
        let index = self.all.iter().position(|(one, _)| one.kind == kind && one.name == name)?;
        self.used.borrow_mut()[index] = true;
        Some(self.all[index].1.clone())
    }

    /// Templates that nobody names are findings, too.
    pub(super) fn finish(&self) {
        for ((_, field), used) in self.all.iter().zip(self.used.borrow().iter()) {
            if !used {
                field.differs("is named by no Rollout in these files: left out");
            }
        }
    }
}

/// What stands for an argument.
type Arguments = Vec<(String, String)>;

/// The checks that an analysis of a Rollout asks for.
pub(super) fn checks(analysis: &Field<'_>, templates: &Templates<'_>) -> Vec<Yaml> {
    let fields = analysis.map();
    fields.skip(&["startingStep"]);
    let given = fields.get("args").map(|args| arguments(&args)).unwrap_or_default();
    let mut found = Vec::new();
    for one in fields.get("templates").map(|list| list.list()).unwrap_or_default() {
        let template = one.map();
        let is_cluster = template.text("clusterScope") == Some("true");
        let Some(name) = template.text("templateName") else { continue };
        template.finish();
        let Some(field) = templates.find(name, is_cluster) else {
            one.unsupported(format!(
                "names `{name}`, which is not in these files; give its file, too"
            ));
            continue;
        };
        found.extend(template_checks(&field, &given));
    }
    without_effect(&fields, &mut found);
    fields.refuse(&[
        ("analysisRunMetadata", "labels Argo's own objects"),
        ("measurementRetention", "keeps Argo's own objects"),
    ]);
    fields.finish();
    found
}

/// Leaves out what is measured without effect.
fn without_effect(fields: &Fields<'_>, checks: &mut Vec<Yaml>) {
    for one in fields.get("dryRun").map(|list| list.list()).unwrap_or_default() {
        let one_fields = one.map();
        let pattern = one_fields.text("metricName");
        one_fields.finish();
        let Some(pattern) = pattern.and_then(|pattern| conditions::checked(&one, pattern)) else {
            continue;
        };
        let Ok(pattern) = regex::Regex::new(&format!("^(?:{pattern})$")) else { continue };
        one.differs("is measured without effect there; here it is left out");
        checks.retain(|check| {
            let Yaml::Map(entries) = check else { return true };
            let name = entries.iter().find(|(key, _)| key == "name");
            !matches!(name, Some((_, Yaml::Text(name))) if pattern.is_match(name))
        });
    }
}

fn arguments(list: &Field<'_>) -> Arguments {
    let mut found = Arguments::new();
    for one in list.list() {
        let argument = one.map();
        let name = argument.text("name");
        let value = argument.text("value");
        argument.refuse(&[("valueFrom", "is read from the cluster; write the value")]);
        argument.finish();
        if let (Some(name), Some(value)) = (name, value) {
            found.push((name.to_owned(), value.to_owned()));
        }
    }
    found
}

fn template_checks(whole: &Field<'_>, given: &Arguments) -> Vec<Yaml> {
    let root = whole.map();
    root.skip(&["apiVersion", "kind", "metadata"]);
    let Some(spec) = root.get("spec") else { return Vec::new() };
    root.finish();
    let spec = spec.map();
    let mut all = given.clone();
    for (name, value) in spec.get("args").map(|args| arguments(&args)).unwrap_or_default() {
        if !all.iter().any(|(known, _)| *known == name) {
            all.push((name, value));
        }
    }
    let metrics = spec.get("metrics").map(|metrics| metrics.list()).unwrap_or_default();
    let mut found = metrics.iter().filter_map(|metric| check(metric, &all)).collect();
    without_effect(&spec, &mut found);
    spec.refuse(&[
        ("templates", "names further templates; name them in the Rollout"),
        ("measurementRetention", "keeps Argo's own objects"),
    ]);
    spec.finish();
    found
}

fn check(field: &Field<'_>, arguments: &Arguments) -> Option<Yaml> {
    let metric = field.map();
    let name = metric.text("name")?;
    let mut entries = vec![("name".to_owned(), text(name))];
    let provider = metric.get("provider")?;
    let (address, query, timeout, headers) = prometheus(&provider, arguments)?;
    entries.push(("address".to_owned(), text(address)));
    remarks(&query, &provider);
    entries.push(("query".to_owned(), Yaml::Block(query)));
    let mut has_condition = false;
    for (key, ours) in [("successCondition", "success"), ("failureCondition", "failure")] {
        let Some(condition) = metric.get(key) else { continue };
        let filled = fill(condition.text()?, arguments, &condition)?;
        match Condition::parse(&filled) {
            Ok(_) => {
                entries.push((ours.to_owned(), text(filled)));
                has_condition = true;
            }
            Err(fault) => {
                condition.unsupported(format!(
                    "column {}: {}; the check is left out",
                    fault.column, fault.why
                ));
                return None;
            }
        }
    }
    if !has_condition {
        field.unsupported("has neither condition, so it could not fail: left out");
        return None;
    }
    for (key, ours) in [("interval", "interval"), ("initialDelay", "initial_delay")] {
        let ms = metric.get(key).and_then(|field| field.duration_ms());
        entries.extend(ms.map(|ms| (ours.to_owned(), duration(ms.max(100)))));
    }
    for (key, ours) in [
        ("count", "count"),
        ("failureLimit", "failure_limit"),
        ("inconclusiveLimit", "inconclusive_limit"),
        ("consecutiveErrorLimit", "error_limit"),
    ] {
        let number = metric.get(key).and_then(|field| field.number());
        entries.extend(number.map(|number| (ours.to_owned(), plain(number))));
    }
    entries.extend(timeout.map(|ms| ("timeout".to_owned(), duration(ms))));
    entries.extend(headers);
    metric.refuse(&[("consecutiveSuccessLimit", "has no counterpart; `count` good ones suffice")]);
    metric.finish();
    field.exact("a check; what is inconclusive holds, and the judge decides besides");
    Some(Yaml::Map(entries))
}

type Question = (String, String, Option<u64>, Option<(String, Yaml)>);

fn prometheus(provider: &Field<'_>, arguments: &Arguments) -> Option<Question> {
    let fields = provider.map();
    let Some(field) = fields.get("prometheus") else {
        provider
            .unsupported("is no Prometheus; a gate asks a webhook, a check a Prometheus: left out");
        fields.all();
        return None;
    };
    fields.finish();
    let prometheus = field.map();
    let address = prometheus.get("address")?;
    let address = fill(address.text()?, arguments, &address)?;
    let query = prometheus.get("query")?;
    let query = fill(query.text()?, arguments, &query)?;
    let timeout = prometheus.get("timeout").and_then(|field| field.duration_ms());
    let mut headers = Vec::new();
    for one in prometheus.get("headers").map(|list| list.list()).unwrap_or_default() {
        let header = one.map();
        if let (Some(key), Some(value)) = (header.text("key"), header.text("value")) {
            headers.push((key.to_owned(), text(value)));
        }
        header.finish();
    }
    prometheus.refuse(&[
        ("authentication", "needs a secret; write `token_file` or `headers`"),
        ("insecure", "believes anybody; certificates are checked here"),
        ("rangeQuery", "asks for a range; a check asks for the present"),
    ]);
    prometheus.finish();
    let headers = (!headers.is_empty()).then(|| ("headers".to_owned(), Yaml::Map(headers)));
    Some((address, query, timeout, headers))
}

/// A text with its arguments filled in; `None` where one is missing.
fn fill(template: &str, arguments: &Arguments, field: &Field<'_>) -> Option<String> {
    fill_in(template, field, |name| {
        let name = name.strip_prefix("args.")?;
        arguments.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    })
}

/// A text with what stands in `{{ }}` replaced; `None` where nobody knows by what.
pub(in crate::import) fn fill_in(
    template: &str,
    field: &Field<'_>,
    known: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let mut filled = String::new();
    let mut rest = template;
    while let Some(start) = rest.find("{{") {
        filled.push_str(&rest[..start]);
        let Some(end) = rest[start..].find("}}") else { break };
        let name = rest[start + 2..start + end].trim();
        let Some(value) = known(name) else {
            field.unsupported(format!("needs `{name}`, which nobody gives; the check is left out"));
            return None;
        };
        filled.push_str(&value);
        rest = &rest[start + end + 2..];
    }
    filled.push_str(rest);
    Some(filled)
}

/// Says of a query what its reader should know: who has made its metrics, and whether the judge asks
/// the same by itself.
pub(in crate::import) fn remarks(query: &str, field: &Field<'_>) {
    for (start, who) in [
        ("istio_", "Istio's proxies"),
        ("envoy_", "Envoy"),
        ("nginx_ingress_", "ingress-nginx"),
        ("linkerd_", "Linkerd"),
        ("flagger_", "Flagger"),
    ] {
        if query.contains(start) {
            field.differs(format!("asks for metrics that {who} made, and no longer makes when Splitway stands in its place; ask for http_requests_total and http_request_duration_seconds, by app and track"));
        }
    }
    if let Some(what) = native(query) {
        field.differs(format!("asks for {what}, which the judge compares with stable's by itself; it stays as a check, a bound that does not move: take it away to leave it to the judge"));
    }
}

/// What the judge measures itself, if a query asks for that: the share of failures or of successes, or
/// a quantile of the latency.
fn native(query: &str) -> Option<&'static str> {
    let text: String = query.chars().filter(|char| !char.is_whitespace()).collect();
    if text.starts_with("histogram_quantile(") && text.contains("_bucket") {
        return Some("a quantile of the latency");
    }
    let (part, whole) = text.split_once(")/sum(").or_else(|| text.split_once(")/(sum("))?;
    let is_sum = |text: &str| text.contains("rate(") && text.contains("_total");
    let by_status = ["!~\"5", "=~\"5", "!=\"5", "=\"5"];
    let is_by_status = by_status
        .iter()
        .any(|test| ["status", "code"].iter().any(|key| part.contains(&format!("{key}{test}"))));
    (is_sum(part) && is_sum(whole) && is_by_status).then_some("the share of failures")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_judge_asks_itself_is_recognised() {
        let failures = Some("the share of failures");
        let latency = Some("a quantile of the latency");
        for (query, what) in [
            (
                "sum(rate(http_requests_total{app='a',status!~\"5..\"}[1m]))\n/\nsum(rate(http_requests_total{app='a'}[1m]))",
                failures,
            ),
            (
                "1 - sum(irate(istio_requests_total{response_code=~\"5.*\"}[5m])) / sum(irate(istio_requests_total[5m]))",
                failures,
            ),
            ("histogram_quantile(0.99, sum(rate(http_seconds_bucket[1m])) by (le))", latency),
            ("sum(rate(orders_total[1m])) / sum(rate(visits_total[1m]))", None),
            ("up", None),
        ] {
            assert_eq!(native(query), what, "{query}");
        }
    }
}
