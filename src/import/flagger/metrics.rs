//! Metrics of Flagger: those built in are the judge's, the others are checks.

use std::cell::RefCell;

use crate::import::argo::analysis::{fill_in, remarks};
use crate::import::draft::{Yaml, duration, plain, text};
use crate::import::finding::Report;
use crate::import::manifest::{Field, Fields, Manifest};

/// What a query may name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words<'w> {
    pub(super) name: &'w str,
    pub(super) namespace: &'w str,
    pub(super) target: &'w str,
    pub(super) service: &'w str,
    pub(super) ingress: &'w str,
}

/// The `MetricTemplate`s of all files.
pub(super) struct Templates<'m> {
    all: Vec<(&'m Manifest, Field<'m>)>,
    used: RefCell<Vec<bool>>,
}

impl<'m> Templates<'m> {
    pub(super) fn read(manifests: &'m [Manifest], report: &'m Report) -> Self {
        let all: Vec<_> = manifests
            .iter()
            .filter(|one| one.kind == "MetricTemplate" && one.api.starts_with("flagger.app/"))
            .map(|one| (one, one.whole(report)))
            .collect();
        let used = RefCell::new(vec![false; all.len()]);
        Self { all, used }
    }

    /// Templates that nobody names are findings, too.
    pub(super) fn finish(&self) {
        for ((_, field), used) in self.all.iter().zip(self.used.borrow().iter()) {
            if !used {
                field.differs("is named by no Canary in these files: left out");
            }
        }
    }

    /// The check that a metric asks for; `None` where the judge sees to it, or nobody can.
    pub(super) fn check(
        &self,
        metric: &Field<'_>,
        words: &Words<'_>,
        interval_ms: u64,
        borne: u64,
    ) -> Option<Yaml> {
        let fields = metric.map();
        let name = fields.text("name")?;
        let interval = fields.text("interval").unwrap_or("1m");
        let condition = condition(&fields);
        let variables = fields.get("templateVariables").map(|field| field.map().all());
        let variables: Vec<(String, String)> = variables
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value.text()?.to_owned())))
            .collect();
        let reference = fields.get("templateRef");
        let query = fields.get("query");
        fields.finish();
        if reference.is_none() && query.is_none() {
            match name {
                "request-success-rate" | "request-duration" => metric.differs("is what the judge sees to by itself: failures, p90 and p99 of the canary, compared with stable's instead of a number that does not move"),
                _ => metric.unsupported("names neither `templateRef` nor a metric that is built in"),
            }
            return None;
        }
        let Some(reference) = reference else {
            metric.unsupported("has its query here and its Prometheus in Flagger's own flags; write a check with both");
            return None;
        };
        let (address, query) = self.template(&reference, words, interval, &variables)?;
        let Some(condition) = condition else {
            metric.unsupported("has no `thresholdRange`, so it could not fail: left out");
            return None;
        };
        let mut entries = vec![
            ("name".to_owned(), text(name)),
            ("address".to_owned(), text(address)),
            ("query".to_owned(), Yaml::Block(query)),
            ("success".to_owned(), text(condition)),
            ("interval".to_owned(), duration(interval_ms)),
        ];
        if borne > 0 {
            entries.push(("failure_limit".to_owned(), plain(borne)));
        }
        metric.differs("is a check; failures are counted for it alone and for each stage, Flagger's `threshold` for all together; no data holds");
        Some(Yaml::Map(entries))
    }

    /// Address and query of a template.
    fn template(
        &self,
        reference: &Field<'_>,
        words: &Words<'_>,
        interval: &str,
        variables: &[(String, String)],
    ) -> Option<(String, String)> {
        let fields = reference.map();
        let name = fields.text("name")?;
        fields.skip(&["namespace"]);
        fields.finish();
        let Some(index) = self.all.iter().position(|(one, _)| one.name == name) else {
            reference.unsupported(format!(
                "names `{name}`, which is not in these files; give its file, too"
            ));
            return None;
        };
        self.used.borrow_mut()[index] = true;
        let root = self.all[index].1.map();
        let Some(spec) = root.get("spec") else {
            self.all[index].1.fault("has no `spec`");
            return None;
        };
        let spec = spec.map();
        let provider_field = spec.get("provider")?;
        let provider = provider_field.map();
        if provider.text("type") != Some("prometheus") {
            provider_field.unsupported("is no Prometheus; a check asks a Prometheus: left out");
            provider.skip(&["type", "address", "secretRef", "region", "headers"]);
            return None;
        }
        let address = provider.text("address")?.to_owned();
        provider.refuse(&[
            ("secretRef", "holds a token; mount it and write `token_file`"),
            ("insecureSkipVerify", "believes anybody; certificates are checked here"),
            ("headers", "are the check's `headers`"),
        ]);
        provider.finish();
        let query_field = spec.get("query")?;
        spec.finish();
        let query = fill_in(query_field.text()?, &query_field, |word| {
            Some(match word {
                "name" => words.name.to_owned(),
                "namespace" => words.namespace.to_owned(),
                "target" => words.target.to_owned(),
                "service" => words.service.to_owned(),
                "ingress" => words.ingress.to_owned(),
                "interval" => interval.to_owned(),
                other => {
                    let name = other.strip_prefix("variables.")?;
                    variables.iter().find(|(known, _)| known == name)?.1.clone()
                }
            })
        })?;
        remarks(&query, &query_field);
        Some((address, query))
    }
}

/// What must hold, of a range.
fn condition(fields: &Fields<'_>) -> Option<String> {
    if let Some(field) = fields.get("threshold") {
        field.unsupported("is of an old API; write `thresholdRange`");
    }
    let range = fields.get("thresholdRange")?.map();
    let number = |key: &str| {
        let field = range.get(key)?;
        let text = field.text()?;
        if text.parse::<f64>().is_err() {
            field.fault(format!("`{text}` is no number"));
        }
        Some(text)
    };
    let least = number("min").map(|text| format!("result >= {text}"));
    let most = number("max").map(|text| format!("result <= {text}"));
    range.finish();
    match (least, most) {
        (Some(least), Some(most)) => Some(format!("{least} && {most}")),
        (one, other) => one.or(other),
    }
}
