//! Routes, tokens and errors of the admin API.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderValue, ORIGIN, WWW_AUTHENTICATE,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::metrics::{self, Exposition, ReloadStatus};
use crate::rollout::{Command, Report};
use crate::state::State;

use super::{command, status};

/// Admin connections at a time; people and scrapers need a few.
const CONNECTIONS_MAX: usize = 128;
/// How long a raise may wait for the disk before its client is told so.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(3);
/// Where services are.
const SERVICES: &str = "/api/v1/services/";
/// How long a client may take for its head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A wish to read the configuration again; answered with its faults, one a line.
pub type Reload = oneshot::Sender<Result<(), Vec<String>>>;

/// What the control thread is asked to do.
#[derive(Debug)]
pub enum Wish {
    /// Read the configuration again.
    Reload(Reload),
    /// Do something to a rollout.
    Command {
        /// The service.
        service: String,
        /// What.
        command: Command,
        /// Who asks.
        actor: String,
        /// Told how it went.
        reply: oneshot::Sender<Result<Json, String>>,
    },
}

/// What the admin API knows.
pub struct Admin {
    /// The state in force.
    pub state: Arc<ArcSwap<State>>,
    /// How reloads went.
    pub reload: Arc<ReloadStatus>,
    /// Serving and not draining.
    pub is_ready: Arc<AtomicBool>,
    /// Renders the metrics.
    pub exposition: Exposition,
    /// What every rollout does.
    pub report: Arc<ArcSwap<Report>>,
    /// Where wishes go.
    pub wishes: mpsc::Sender<Wish>,
    /// Tokens that may look.
    pub read_tokens: Vec<String>,
    /// Tokens that may look and act.
    pub operate_tokens: Vec<String>,
}

type Reply = Response<Full<Bytes>>;

/// What a request needs to be allowed to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Read,
    Operate,
}

/// Answers on `listener` for as long as the future is polled.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let slots = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "an admin connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let answer = hyper::service::service_fn(move |request| {
                let admin = Arc::clone(&admin);
                async move {
                    let mut reply = admin.answer(request).await;
                    if !admin.is_ready.load(Ordering::Relaxed) {
                        // A successor may have the socket; the next question is for it.
                        let close = HeaderValue::from_static("close");
                        reply.headers_mut().insert(CONNECTION, close);
                    }
                    Ok::<_, Infallible>(reply)
                }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), answer);
            // A client that goes away in the middle has nobody to be told.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an admin connection ended badly");
            }
            drop(slot);
        });
    }
}

impl Admin {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::GET | &Method::HEAD, "/metrics") => {
                text(StatusCode::OK, metrics::CONTENT_TYPE, self.exposition.text())
            }
            (&Method::GET | &Method::HEAD, "/healthz") => {
                text(StatusCode::OK, "text/plain", "ok\n")
            }
            (&Method::GET | &Method::HEAD, "/readyz") => self.readiness(),
            (&Method::GET, "/api/v1/status") => self
                .guarded(&request, Need::Read, || self.status())
                .unwrap_or_else(|refusal| *refusal),
            (&Method::POST, "/api/v1/reload") => {
                match self.guarded(&request, Need::Operate, || ()) {
                    Ok(()) => self.reload().await,
                    Err(refusal) => *refusal,
                }
            }
            (method, path) if path.starts_with(SERVICES) => {
                let rest = path[SERVICES.len()..].to_owned();
                let (name, what) = rest.split_once('/').unwrap_or((&rest, ""));
                if method == Method::GET {
                    return self
                        .guarded(&request, Need::Read, || self.service(name, what))
                        .unwrap_or_else(|refusal| *refusal);
                }
                if method != Method::POST {
                    return problem(StatusCode::METHOD_NOT_ALLOWED, "use GET or POST here");
                }
                match self.guarded(&request, Need::Operate, || ()) {
                    Ok(()) => self.command(name, what, request).await,
                    Err(refusal) => *refusal,
                }
            }
            (_, "/metrics" | "/healthz" | "/readyz" | "/api/v1/status") => {
                problem(StatusCode::METHOD_NOT_ALLOWED, "use GET here")
            }
            (_, "/api/v1/reload") => problem(StatusCode::METHOD_NOT_ALLOWED, "use POST here"),
            _ => problem(
                StatusCode::NOT_FOUND,
                "known: /metrics /healthz /readyz /api/v1/status /api/v1/reload \
                 /api/v1/services/{name}[/history|/explain] and, by POST, \
                 /api/v1/services/{name}/{pause|resume|promote|rollback|retry|weight}",
            ),
        }
    }

    /// Does `work` if the request's token allows it and no other site sent it.
    fn guarded<T>(
        &self,
        request: &Request<Incoming>,
        need: Need,
        work: impl FnOnce() -> T,
    ) -> Result<T, Box<Reply>> {
        // A browser names the page that sends; no page but our own may act, and ours is later's.
        if need == Need::Operate && request.headers().contains_key(ORIGIN) {
            return Err(Box::new(problem(StatusCode::FORBIDDEN, "cross-site requests cannot act")));
        }
        if self.read_tokens.is_empty() && self.operate_tokens.is_empty() {
            return Ok(work());
        }
        let header = request.headers().get(AUTHORIZATION).map(http::HeaderValue::as_bytes);
        let token = header.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
        let is_in = |tokens: &[String]| {
            // Every token is compared in full: the time says nothing of which one was near.
            tokens.iter().fold(false, |found, known| found | same(known.as_bytes(), token))
        };
        let (operates, reads) = (is_in(&self.operate_tokens), is_in(&self.read_tokens));
        match need {
            Need::Read if operates || reads => Ok(work()),
            Need::Operate if operates => Ok(work()),
            Need::Operate if reads => {
                Err(Box::new(problem(StatusCode::FORBIDDEN, "this token may look, not act")))
            }
            _ => {
                let mut reply =
                    problem(StatusCode::UNAUTHORIZED, "send Authorization: Bearer TOKEN");
                let challenge = http::HeaderValue::from_static("Bearer");
                reply.headers_mut().insert(WWW_AUTHENTICATE, challenge);
                Err(Box::new(reply))
            }
        }
    }

    fn readiness(&self) -> Reply {
        if self.is_ready.load(Ordering::Relaxed) {
            text(StatusCode::OK, "text/plain", "ready\n")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "draining\n")
        }
    }

    fn status(&self) -> Reply {
        let is_ready = self.is_ready.load(Ordering::Relaxed);
        let (state, report) = (self.state.load(), self.report.load());
        json_reply(StatusCode::OK, &status::gateway(&state, &report, &self.reload, is_ready))
    }

    fn service(&self, name: &str, what: &str) -> Reply {
        let (state, report) = (self.state.load(), self.report.load());
        let Some(service) = state.services.iter().find(|service| service.live.name() == name)
        else {
            return problem(StatusCode::NOT_FOUND, &format!("no service is called `{name}`"));
        };
        match (what, report.service(name)) {
            ("", _) => json_reply(StatusCode::OK, &status::service(service, &report)),
            ("explain", Some(rollout)) => json_reply(StatusCode::OK, &status::explain(rollout)),
            ("history", Some(rollout)) => json_reply(
                StatusCode::OK,
                &json!({
                    "service": name,
                    "history": &*rollout.history,
                }),
            ),
            ("explain" | "history", None) => {
                problem(StatusCode::NOT_FOUND, &format!("`{name}` has no rollout"))
            }
            _ => problem(StatusCode::NOT_FOUND, "known here: history, explain"),
        }
    }

    async fn command(&self, service: &str, word: &str, request: Request<Incoming>) -> Reply {
        let (command, actor) = match command::read(word, request).await {
            Ok(read) => read,
            Err((status, detail)) => return problem(status, &detail),
        };
        if !self.state.load().services.iter().any(|one| one.live.name() == service) {
            return problem(StatusCode::NOT_FOUND, &format!("no service is called `{service}`"));
        }
        let (reply, answer) = oneshot::channel();
        let wish = Wish::Command { service: service.to_owned(), command, actor, reply };
        if self.wishes.send(wish).await.is_err() {
            return problem(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping");
        }
        match tokio::time::timeout(COMMAND_TIMEOUT, answer).await {
            Ok(Ok(Ok(done))) => json_reply(StatusCode::OK, &done),
            Ok(Ok(Err(why))) => problem(StatusCode::CONFLICT, &why),
            // The sender goes without a word when a lowering overtakes a raise.
            Ok(Err(_)) => problem(StatusCode::CONFLICT, "something else came first; see history"),
            Err(_) => problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "the journal has not confirmed it yet: what lowers is in force, what raises is not",
            ),
        }
    }

    async fn reload(&self) -> Reply {
        let (reply, answer) = oneshot::channel();
        if self.wishes.send(Wish::Reload(reply)).await.is_err() {
            return problem(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping");
        }
        match answer.await {
            Ok(Ok(())) => json_reply(StatusCode::OK, &json!({ "reloaded": true })),
            Ok(Err(faults)) => {
                let mut problem = problem_body(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "the configuration has faults; the old one serves on",
                );
                problem["faults"] = faults.into();
                problem_reply(StatusCode::UNPROCESSABLE_ENTITY, &problem)
            }
            Err(_) => problem(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping"),
        }
    }
}

/// Compares in a time that depends on the lengths alone.
fn same(known: &[u8], given: &[u8]) -> bool {
    known.len() == given.len()
        && known.iter().zip(given).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

fn text(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Reply {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, content_type)
        .header("cache-control", "no-store")
        .body(Full::new(body.into()))
        .expect("a status and constant fields make a response")
}

fn json_reply(status: StatusCode, body: &Json) -> Reply {
    text(status, "application/json", format!("{body:#}\n"))
}

/// An error in the form of RFC 9457.
fn problem(status: StatusCode, detail: &str) -> Reply {
    problem_reply(status, &problem_body(status, detail))
}

fn problem_body(status: StatusCode, detail: &str) -> Json {
    json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "detail": detail,
    })
}

fn problem_reply(status: StatusCode, body: &Json) -> Reply {
    text(status, "application/problem+json", format!("{body:#}\n"))
}
