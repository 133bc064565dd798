//! Splitway: a gateway in front of the stable and the canary version of a service.
//!
//! It splits the traffic between tracks by weight and rule, watches both, and moves the weight by
//! itself, forward on proof and back on evidence. The file tree is the architecture; from the
//! outside in:
//!
//! - [`cli`]: one file per command; [`app`]: the only wiring of the parts below.
//! - Control side: [`config`] (the YAML edge), [`rollout`] (plan, machine, journal, controller),
//!   [`evidence`] (from counts to cohorts), [`discovery`] (names, probes), [`opinion`] (checks and
//!   gates: what others say), [`notify`] (news for people), [`otlp`] (spans for a collector),
//!   [`outbound`] (the calls that these make), [`metrics`] (exposition), [`admin`] (HTTP API). It
//!   runs on its own thread and is never on a request's path.
//! - The meeting place: [`state`] (the immutable picture that workers read) and, inside it, one
//!   [`record::Live`] per service, which outlives reloads.
//! - Data side: [`server`] (sockets, workers), [`proxy`] (the life of a request), [`upstream`]
//!   (endpoints, pools), [`wire`] (sockets, TLS and HTTP/2 streams, all read as HTTP/1), [`tls`]
//!   (what is agreed, with whom), [`record`] (what workers write).
//! - Pure: [`import`] (manifests of others in, a file of ours out), [`judge`] (evidence in, verdict out), [`simulate`] (rollouts in simulated time),
//!   [`http1`] (the wire), [`route`] (who goes where), [`track`] (shared words), [`calendar`],
//!   [`plain`] (text of others, fit to be shown).
//! - [`private`]: files and folders that are the gateway's alone.
//!
//! [`telemetry`] writes the logs; [`calendar`] tells the time of day. `ARCHITECTURE.md` says which layer may use which, and a test holds it to that.

pub mod admin;
pub mod app;
pub mod calendar;
pub mod cli;
pub mod config;
pub mod discovery;
pub mod evidence;
pub mod http1;
pub mod import;
pub mod judge;
pub mod memory;
pub mod metrics;
pub mod notify;
pub mod opinion;
pub mod otlp;
pub mod outbound;
pub mod plain;
pub mod private;
pub mod proxy;
pub mod record;
pub mod rollout;
pub mod route;
pub mod server;
pub mod simulate;
pub mod state;
pub mod telemetry;
pub mod tls;
pub mod track;
pub mod upstream;
pub mod wire;
