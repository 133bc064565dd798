//! wip
pub mod track; pub mod http1; pub mod route; pub mod record; pub mod upstream; pub mod state; pub mod telemetry; pub mod proxy; pub mod server; pub mod config; pub mod discovery; pub mod metrics; pub mod admin; pub mod app;
