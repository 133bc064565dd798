//! Checks: what a Prometheus says of the canary, asked all the time.

use std::time::Duration;

use serde_json::Value as Json;
use tokio::sync::watch;

use crate::outbound::Contact;
use crate::plain;
use crate::rollout::external::{Moment, Opinion, Standing};

use super::tally::{Measurement, Tally, Terms};
use super::{Desk, Situation, begin, is_over};

/// Most values of a result that are looked at.
const VALUES_MAX: usize = 1_000;

/// A check.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// The Prometheus.
    pub prometheus: Contact,
    /// What is asked; `{{service}}`, `{{canary}}`, `{{stable}}` and `{{weight}}` stand for what
    /// they name.
    pub query: String,
    /// Time between two measurements.
    pub interval: Duration,
    /// Time from a stage's start to its first measurement.
    pub initial_delay: Duration,
    /// What is good, and what is borne.
    pub terms: Terms,
    /// When it fails the canary goes back.
    pub rolls_back: bool,
}

impl Check {
    pub(super) fn opinion(&self) -> Opinion {
        Opinion {
            name: self.name.clone(),
            moment: Moment::Advance,
            is_last: false,
            standing: Standing::Waits,
            rolls_back: self.rolls_back,
            mark: 0,
            says: "has not said yet".into(),
        }
    }
}

/// Measures for as long as it is polled.
pub(super) async fn ask(check: Check, mut seen: watch::Receiver<Situation>, desk: Desk) {
    while let Some(situation) = begin(&mut seen).await {
        let mark = situation.mark;
        let mut tally = Tally::default();
        desk.note(mark, tally.standing(&check.terms));
        let measuring = async {
            tokio::time::sleep(check.initial_delay).await;
            loop {
                // The weight of a paused rollout may change under way.
                let now = seen.borrow().clone();
                let measurement = measure(&check, &now).await;
                if let Measurement::Error(why) = &measurement {
                    tracing::warn!(check = check.name, service = now.service, %why, "no measurement");
                }
                tally.note(&measurement, &check.terms);
                desk.note(mark, tally.standing(&check.terms));
                tokio::time::sleep(check.interval).await;
            }
        };
        let mut over = seen.clone();
        tokio::select! {
            () = measuring => {}
            () = is_over(&mut over, mark) => {}
        }
    }
}

async fn measure(check: &Check, situation: &Situation) -> Measurement {
    let query = check
        .query
        .replace("{{service}}", &situation.service)
        .replace("{{canary}}", &situation.canary)
        .replace("{{stable}}", &situation.stable)
        .replace("{{weight}}", &situation.weight.to_string());
    match check.prometheus.get(&format!("/api/v1/query?query={}", encoded(&query))).await {
        Ok(answer) => read(answer.status, &answer.body),
        Err(error) => Measurement::Error(plain::quote(&error.to_string()).into_owned()),
    }
}

/// Everything but what never needs it (RFC 3986 §2.3).
fn encoded(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::with_capacity(text.len() * 2), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// The values of an instant query
/// (<https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries>).
fn read(status: u16, body: &[u8]) -> Measurement {
    let error = |why: String| Measurement::Error(plain::quote(&why).into_owned());
    let Ok(answer) = serde_json::from_slice::<Json>(body) else {
        return error(format!("the answer ({status}) is no JSON; is it a Prometheus?"));
    };
    if answer["status"] != "success" {
        let why = answer["error"].as_str().unwrap_or("no reason given");
        return error(format!("the query was refused ({status}): {why}"));
    }
    let number = |sample: &Json| sample[1].as_str().and_then(value);
    let result = &answer["data"]["result"];
    let values: Option<Vec<f64>> = match answer["data"]["resultType"].as_str() {
        Some("scalar") => number(result).map(|number| vec![number]),
        Some("vector") => result.as_array().and_then(|list| {
            list.iter().take(VALUES_MAX).map(|sample| number(&sample["value"])).collect()
        }),
        other => {
            let kind = other.unwrap_or("no kind");
            return error(format!("the query gives {kind}; it must give a vector or a scalar"));
        }
    };
    values.map_or_else(|| error("the answer's values are no numbers".into()), Measurement::Values)
}

fn value(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_a_prometheus_are_read() {
        let vector = br#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{},"value":[1,"0.95"]},{"metric":{},"value":[1,"+Inf"]}]}}"#;
        assert_eq!(read(200, vector), Measurement::Values(vec![0.95, f64::INFINITY]));
        let scalar = br#"{"status":"success","data":{"resultType":"scalar","result":[1,"3"]}}"#;
        assert_eq!(read(200, scalar), Measurement::Values(vec![3.0]));
        let empty = br#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
        assert_eq!(read(200, empty), Measurement::Values(Vec::new()));
        for (status, body) in [
            (400, r#"{"status":"error","error":"parse error at char 3"}"#),
            (502, "<html>bad gateway</html>"),
            (200, r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#),
            (
                200,
                r#"{"status":"success","data":{"resultType":"vector","result":[{"value":[1,"x"]}]}}"#,
            ),
            (200, "{}"),
        ] {
            assert!(matches!(read(status, body.as_bytes()), Measurement::Error(_)), "{body}");
        }
    }

    #[test]
    fn what_a_prometheus_says_is_quoted_on_a_line_and_cut() {
        let says = "no\n\u{1b}[2J\u{202e}".repeat(1_000);
        let body = serde_json::json!({ "status": "error", "error": says }).to_string();
        let Measurement::Error(why) = read(422, body.as_bytes()) else { panic!("an error") };
        assert!(!why.chars().any(plain::acts), "{why}");
        assert!(
            why.starts_with("the query was refused (422): no\\n") && why.len() < 5_000,
            "{why}"
        );
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encoded("a{b=\"c\"}[1m] > 0.5"), "a%7Bb%3D%22c%22%7D%5B1m%5D%20%3E%200.5");
    }
}
