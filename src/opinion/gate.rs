//! Gates: webhooks that must agree before a rollout starts, advances or is promoted, and those
//! that are told when it has ended. Their payload is Flagger's, so that receivers made for it work.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderMap;
use serde_json::{Value as Json, json};
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use crate::outbound::Contact;
use crate::plain;
use crate::rollout::Phase;
use crate::rollout::external::{Moment, Opinion, Standing};
use crate::rollout::report::ServiceReport;

use super::{Desk, Situation, begin, is_over};

/// What a gate stands before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The start.
    PreRollout,
    /// Every advance.
    ConfirmAdvance,
    /// The last stage.
    ConfirmPromotion,
    /// Nothing: it is told of the end.
    PostRollout,
}

/// A gate.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// Its name.
    pub name: String,
    /// What it stands before.
    pub kind: Kind,
    /// Who is asked.
    pub webhook: Contact,
    /// What is sent along as it is.
    pub metadata: BTreeMap<String, String>,
    /// The namespace in Flagger's payload.
    pub namespace: String,
    /// Time between two questions.
    pub interval: Duration,
    /// Refusals and missing answers that are borne.
    pub failure_limit: u32,
    /// Beyond them the canary goes back; otherwise it waits on.
    pub rolls_back: bool,
}

impl Gate {
    pub(super) fn opinion(&self) -> Opinion {
        let moment = match self.kind {
            Kind::PreRollout => Moment::Start,
            Kind::ConfirmAdvance => Moment::Advance,
            Kind::ConfirmPromotion | Kind::PostRollout => Moment::Promotion,
        };
        Opinion {
            name: self.name.clone(),
            moment,
            is_last: true,
            standing: Standing::Waits,
            rolls_back: self.rolls_back,
            mark: 0,
            says: "is asked when nothing else is missing".into(),
        }
    }

    /// Whether what it says decides anything.
    pub(super) fn is_heard(&self) -> bool {
        self.kind != Kind::PostRollout
    }

    /// Whether it is to be asked now.
    pub(super) fn is_asked(&self, rollout: &ServiceReport, is_news: bool) -> bool {
        match self.kind {
            Kind::PreRollout => rollout.awaits == Some(Moment::Start),
            Kind::ConfirmAdvance => {
                matches!(rollout.awaits, Some(Moment::Advance | Moment::Promotion))
            }
            Kind::ConfirmPromotion => rollout.awaits == Some(Moment::Promotion),
            Kind::PostRollout => {
                is_news && matches!(rollout.phase, Phase::Promoted | Phase::RolledBack)
            }
        }
    }

    fn payload(&self, situation: &Situation) -> Json {
        let phase = match (self.kind, situation.phase) {
            (Kind::PostRollout, Some(Phase::RolledBack)) => "Failed",
            (Kind::PostRollout, _) => "Succeeded",
            (Kind::ConfirmPromotion, _) => "WaitingPromotion",
            _ => "Progressing",
        };
        let mut metadata = self.metadata.clone();
        for (key, value) in [
            ("version", situation.canary.clone()),
            ("stable_version", situation.stable.clone()),
            ("weight", situation.weight.to_string()),
        ] {
            metadata.entry(key.to_owned()).or_insert(value);
        }
        json!({
            "name": situation.service,
            "namespace": self.namespace,
            "phase": phase,
            "checksum": format!("{:016x}", xxh3_64(situation.canary.as_bytes())),
            "metadata": metadata,
        })
    }
}

/// Asks for as long as it is polled.
pub(super) async fn ask(gate: Gate, mut seen: watch::Receiver<Situation>, desk: Desk) {
    while let Some(situation) = begin(&mut seen).await {
        let mark = situation.mark;
        let mut over = seen.clone();
        tokio::select! {
            () = knock(&gate, &situation, &desk) => is_over(&mut seen, mark).await,
            () = is_over(&mut over, mark) => {}
        }
    }
}

/// Asks until the gate agrees.
async fn knock(gate: &Gate, situation: &Situation, desk: &Desk) {
    let mut refusals: u32 = 0;
    loop {
        let why = match asked(gate, situation).await {
            Ok(()) => {
                desk.note(situation.mark, (Standing::Agrees, "agrees".into()));
                return;
            }
            Err(why) => why,
        };
        refusals = refusals.saturating_add(1);
        tracing::info!(
            gate = gate.name,
            service = situation.service,
            why,
            refusals,
            "a gate has not agreed"
        );
        if refusals > gate.failure_limit {
            if !gate.is_heard() {
                return;
            }
            let says = format!("has not agreed in {refusals} times: {why}");
            desk.note(situation.mark, (Standing::Disagrees, says));
        } else {
            desk.note(situation.mark, (Standing::Waits, format!("has not agreed yet: {why}")));
        }
        tokio::time::sleep(gate.interval).await;
    }
}

async fn asked(gate: &Gate, situation: &Situation) -> Result<(), String> {
    let body = gate.payload(situation).to_string().into_bytes();
    match gate.webhook.post("application/json", HeaderMap::new(), body).await {
        Ok(answer) if (200..300).contains(&answer.status) => Ok(()),
        Ok(answer) => Err(format!("it answers {}", answer.status)),
        Err(error) => Err(plain::quote(&error.to_string()).into_owned()),
    }
}
