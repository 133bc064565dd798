//! The integration tests: one binary, themed modules, real sockets and servers throughout.
#![allow(missing_docs, reason = "tests say what they mean in their names")]
#![allow(unreachable_pub, reason = "nothing outside could reach in")]
#![allow(clippy::pedantic, reason = "brevity helps a test more than pedantry")]

mod admin;
mod blame;
mod book;
mod closing;
mod commands;
mod differential;
mod drain;
mod early;
mod endpoints;
mod exchange;
mod faults;
mod grpc;
mod handover;
mod hardening;
mod heads;
mod http2;
mod import;
mod judge;
mod kubernetes;
mod limits;
mod listeners;
mod machine;
mod mirror;
mod monitoring;
mod notifications;
mod operators;
mod opinions;
mod page;
mod paths;
mod prometheus;
mod reload;
mod replies;
mod retries;
mod rollout;
mod seed;
mod socket;
mod split;
mod sticky;
mod strict;
mod support;
mod tidy;
mod tls;
mod tracing;
mod trailers;
mod trust;
mod upstreams;
mod websocket;
mod written;
