//! Values of a rollout's section: choices, decimal numbers, stages, where the state is kept.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use crate::http1::grpc;
use crate::opinion::gate;
use crate::rollout::plan::{Mode, OnFailure, OnMax, Ready};
use crate::track::Weight;

use super::node::{Kind, Node};
use super::section::{Reader, Value, section};
use super::values::{At, OrOff, Span};

/// Makes an enum readable as one of its words.
macro_rules! choice {
    ($type:ty, $($word:literal => $value:expr),+ $(,)?) => {
        impl Value for $type {
            fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
                const WORDS: &[&str] = &[$($word),+];
                match reader.scalar(node, &WORDS.join(" or "))? {
                    $($word => Some($value),)+
                    other => {
                        let words = WORDS.join(", ");
                        reader.fault(node.place, format!("`{other}` is none of {words}"));
                        None
                    }
                }
            }

            fn schema() -> Json {
                json!({ "enum": [$($word),+] })
            }
        }
    };
}

choice!(Mode, "sequential" => Mode::Sequential, "threshold" => Mode::Threshold, "off" => Mode::Off);
choice!(OnMax, "hold" => OnMax::Hold, "advance" => OnMax::Advance, "rollback" => OnMax::Rollback);
choice!(OnFailure, "rollback" => OnFailure::Rollback, "hold" => OnFailure::Hold);
choice!(gate::Kind, "pre_rollout" => gate::Kind::PreRollout,
    "confirm_advance" => gate::Kind::ConfirmAdvance,
    "confirm_promotion" => gate::Kind::ConfirmPromotion,
    "post_rollout" => gate::Kind::PostRollout);
choice!(Ready, "all" => Ready::All, "any" => Ready::Any);

pub(super) use choice;

/// A bound that is set, taken from what the process may have, or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound<T> {
    /// What the process may have.
    Auto,
    /// None.
    Off,
    /// So much.
    Set(T),
}

impl<T: Value> Value for Bound<T> {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        if matches!(&node.kind, Kind::Scalar(text) if text == "auto") {
            return Some(Self::Auto);
        }
        let value = OrOff::<T>::read(node, reader)?;
        Some(value.0.map_or(Self::Off, Self::Set))
    }

    fn schema() -> Json {
        json!({ "oneOf": [T::schema(), { "enum": ["auto", "off", false] }] })
    }
}

impl<T> Bound<T> {
    /// The bound by `auto`, which knows what the process may have.
    pub fn or<U>(self, auto: U, off: U, set: impl FnOnce(T) -> U) -> U {
        match self {
            Self::Auto => auto,
            Self::Off => off,
            Self::Set(value) => set(value),
        }
    }
}

/// What becomes of a client that has closed its side while its answer is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfClose {
    /// It has left, if it asked for nothing to happen.
    Leave,
    /// It gets its answer.
    Serve,
}

choice!(HalfClose, "leave" => HalfClose::Leave, "serve" => HalfClose::Serve);

/// Where rules that name the canary lead after a rollback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterRollback {
    /// To stable.
    Stable,
    /// To the canary as before.
    Keep,
}

choice!(AfterRollback, "stable" => AfterRollback::Stable, "keep" => AfterRollback::Keep);

/// What happens to a request whose track has no endpoint that can be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failover {
    /// The canary's go to stable.
    Stable,
    /// Stable's go to the canary too.
    Both,
    /// They fail.
    Off,
}

choice!(Failover, "stable" => Failover::Stable, "both" => Failover::Both, "off" => Failover::Off,
    "false" => Failover::Off);

/// Which requests are copied to another track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorMethods {
    /// Those that only read (RFC 9110 §9.2.1).
    Safe,
    /// All.
    Any,
}

choice!(MirrorMethods, "safe" => MirrorMethods::Safe, "any" => MirrorMethods::Any);

/// How the endpoints of a track are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolChoice {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 under TLS.
    H2,
    /// HTTP/2 in the clear.
    H2c,
    /// What TLS agrees on.
    Auto,
}

choice!(ProtocolChoice, "http1" => ProtocolChoice::Http1, "h2" => ProtocolChoice::H2,
    "h2c" => ProtocolChoice::H2c, "auto" => ProtocolChoice::Auto);

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    /// Those who do not are refused.
    Required,
    /// Those who do are known.
    Optional,
}

choice!(ClientCertificate, "required" => ClientCertificate::Required,
    "optional" => ClientCertificate::Optional);

/// The oldest version of TLS that is agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinVersion {
    /// 1.2
    Tls12,
    /// 1.3
    Tls13,
}

choice!(MinVersion, "1.2" => MinVersion::Tls12, "1.3" => MinVersion::Tls13);

/// A decimal number that is not negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decimal(pub f64);

impl Value for Decimal {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, "a number like 2.5")?;
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
        if number.is_none() {
            reader.fault(node.place, format!("`{text}` is no number from 0 up; write it like 2.5"));
        }
        number.map(Self)
    }

    fn schema() -> Json {
        json!({ "type": "number", "minimum": 0 })
    }
}

section! {
    /// One weight of a plan.
    pub struct LongStage {
        /// The canary's share in percent.
        pub weight: At<Weight> = required,
        /// Least time at it. Omitted: the rollout's.
        pub min: Option<Span> = or(None),
        /// Time after which `on_max` decides. Omitted: the rollout's.
        pub max: Option<Span> = or(None),
        /// A person must run `splitway promote` before it is left; for the last, before it is entered.
        pub approve: bool = or(false),
    }
}

/// A stage: a percentage, or a mapping with one.
#[derive(Clone, Debug, PartialEq)]
pub struct StageValue(pub LongStage);

impl Value for StageValue {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        if matches!(node.kind, Kind::Map(_)) {
            return LongStage::read(node, reader).map(Self);
        }
        let weight = At::read(node, reader)?;
        Some(Self(LongStage { weight, min: None, max: None, approve: false }))
    }

    fn schema() -> Json {
        json!({ "oneOf": [Weight::schema(), LongStage::schema()] })
    }
}

section! {
    /// Where the journal of rollouts is kept.
    pub struct StateDirectory {
        /// The directory; it is created when missing.
        pub directory: At<String> = required,
    }
}

/// Where the state of rollouts is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum StateValue {
    /// In a directory.
    Directory(PathBuf),
    /// Nowhere; rollouts start only by `resume`.
    Memory,
}

impl Value for StateValue {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        if matches!(&node.kind, Kind::Scalar(text) if text == "memory") {
            return Some(Self::Memory);
        }
        if !matches!(node.kind, Kind::Map(_)) {
            let is = node.kind.describe();
            reader.fault(node.place, format!("is {is}; write {{ directory: PATH }} or memory"));
            return None;
        }
        let state = StateDirectory::read(node, reader)?;
        if state.directory.is_empty() {
            let place = state.directory.place;
            reader.below("directory", |reader| {
                reader.fault(place, "is empty; name a directory, or write state: memory");
            });
            return None;
        }
        Some(Self::Directory(state.directory.value.into()))
    }

    fn schema() -> Json {
        json!({ "oneOf": [{ "const": "memory" }, StateDirectory::schema()] })
    }
}

/// How endpoints are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BalanceChoice {
    /// The fewest requests under way, of two drawn.
    LeastRequests,
    /// In turn.
    RoundRobin,
    /// By whoever asks.
    Key,
}

choice!(BalanceChoice, "least_requests" => BalanceChoice::LeastRequests,
    "round_robin" => BalanceChoice::RoundRobin, "key" => BalanceChoice::Key);

/// What a request is tried again after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryOn {
    /// A reset, a close or a malformed answer.
    Reset,
    /// A try that took too long.
    Timeout,
    /// This status.
    Status(u16),
}

impl Value for RetryOn {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, "reset, timeout or a status like 503")?;
        let status = || text.parse().ok().filter(|status| (400..=599).contains(status));
        let read = match text {
            "reset" => Some(Self::Reset),
            "timeout" => Some(Self::Timeout),
            _ => status().map(Self::Status),
        };
        if read.is_none() {
            let message =
                format!("`{text}` is none of reset, timeout and a status from 400 to 599");
            reader.fault(node.place, message);
        }
        read
    }

    fn schema() -> Json {
        json!({ "oneOf": [
            { "enum": ["reset", "timeout"] },
            { "type": "integer", "minimum": 400, "maximum": 599 },
        ]})
    }
}

/// A status of gRPC by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcStatus(pub u8);

impl Value for GrpcStatus {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, "a status of gRPC like UNAVAILABLE")?;
        let found = grpc::NAMES.iter().position(|name| *name == text);
        if found.is_none() {
            let names = grpc::NAMES[1..].join(", ");
            reader.fault(node.place, format!("`{text}` is no status of gRPC; known: {names}"));
        }
        found.and_then(|found| u8::try_from(found).ok()).map(Self)
    }

    fn schema() -> Json {
        json!({ "enum": grpc::NAMES })
    }
}

/// Statuses that a probe accepts: `200`, or `200-399`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange(pub u16, pub u16);

impl Value for StatusRange {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, "a status like 200 or 200-399")?;
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        let status = |text: &str| text.parse().ok().filter(|status| (100..=599).contains(status));
        let range = status(low).zip(status(high)).filter(|(low, high)| low <= high);
        if range.is_none() {
            let message = format!("`{text}` is no status; write it like 200 or 200-399");
            reader.fault(node.place, message);
        }
        range.map(|(low, high)| Self(low, high))
    }

    fn schema() -> Json {
        json!({ "type": ["integer", "string"], "pattern": "^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$" })
    }
}
