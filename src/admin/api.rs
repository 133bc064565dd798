//! Routes, tokens and errors of the admin API.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};

use crate::metrics::{self, Exposition, ReloadStatus};
use crate::plain;
use crate::rollout::{Command, Report};
use crate::state::State;

use super::body::Content;
use super::command::Asked;
use super::connections::Connections;
use super::feed::{self, Feed};
use super::guard::{Need, Refusal, Tokens, Who};
use super::{command, page, series, status};

/// How long a raise may wait for the disk before its client is told so.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(3);
/// Where services are.
const SERVICES: &str = "/api/v1/services/";
/// How long a client may take for its head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// What a connection may have read and not been answered, or answered and not taken.
const BUFFER_BYTES: usize = 64 * 1024;
/// How long accepting rests while every connection is being answered.
const FULL_PAUSE: Duration = Duration::from_millis(10);

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
        /// Who asks: what the gateway knows of them, and what they say.
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
    /// Who may look and who may act.
    pub tokens: Tokens,
    /// The history, and who watches.
    pub feed: Feed,
}

/// An answer.
pub(super) type Reply = Response<Content>;

/// Answers on `listener` and on the socket file, and feeds those who watch, for as long as the
/// future is polled.
pub async fn serve(listener: TcpListener, local: Option<UnixListener>, admin: Arc<Admin>) {
    let accept_tcp = accept(Arc::clone(&admin), || async {
        listener.accept().await.map(|(stream, peer)| (stream, Caller::Remote(peer.ip())))
    });
    let accept_local = accept(Arc::clone(&admin), || async {
        match &local {
            Some(listener) => listener.accept().await.map(|(stream, _)| {
                let user = stream.peer_cred().ok().map(|peer| peer.uid());
                (stream, Caller::Local(user))
            }),
            None => std::future::pending().await,
        }
    });
    tokio::select! {
        () = accept_tcp => {}
        () = accept_local => {}
        () = feed::follow(admin) => {}
    }
}

/// Where a request comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// Over the network, loopback included.
    Remote(IpAddr),
    /// Through the socket file, whose permissions have spoken: which user, where the system tells.
    Local(Option<u32>),
}

impl Caller {
    /// Whose share of the connections it takes.
    fn source(self) -> Option<IpAddr> {
        match self {
            Self::Remote(source) => Some(source),
            Self::Local(_) => None,
        }
    }
}

async fn accept<S, F>(admin: Arc<Admin>, next: impl Fn() -> F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = std::io::Result<(S, Caller)>>,
{
    let connections = Arc::<Connections>::default();
    loop {
        let (stream, caller) = match next().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "an admin connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Where every one is busy, a moment later one is not.
        let Some(place) = connections.enter(caller.source()) else {
            tokio::time::sleep(FULL_PAUSE).await;
            continue;
        };
        let (admin, place) = (Arc::clone(&admin), Arc::new(place));
        let number = place.number();
        let task = tokio::spawn(async move {
            let answer = hyper::service::service_fn(move |request| {
                let (admin, place) = (Arc::clone(&admin), Arc::clone(&place));
                async move {
                    // One answer a turn: whoever pipelines many waits behind all others.
                    tokio::task::yield_now().await;
                    let request = command::collect(request).await;
                    let busy = place.busy();
                    let mut reply = admin.answer(request, caller).await;
                    if matches!(reply.body(), Content::Events(_)) {
                        busy.stay();
                    }
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
                .max_buf_size(BUFFER_BYTES)
                .serve_connection(TokioIo::new(stream), answer);
            // A client that goes away in the middle has nobody to be told.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an admin connection ended badly");
            }
        });
        connections.is_served_by(number, task.abort_handle());
    }
}

impl Admin {
    async fn answer(&self, request: Asked, caller: Caller) -> Reply {
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
                .guarded(&request, caller, Need::Read, || self.status())
                .unwrap_or_else(|refusal| *refusal),
            (&Method::GET, "/api/v1/events") => self
                .guarded(&request, caller, Need::Read, || self.events())
                .unwrap_or_else(|refusal| *refusal),
            (&Method::POST, "/api/v1/reload") => {
                match self.guarded(&request, caller, Need::Operate, || ()) {
                    Ok(()) => self.reload().await,
                    Err(refusal) => *refusal,
                }
            }
            (method, path) if path.starts_with(SERVICES) => {
                let rest = path[SERVICES.len()..].to_owned();
                let (name, what) = rest.split_once('/').unwrap_or((&rest, ""));
                if method == Method::GET {
                    let query = request.uri().query().unwrap_or("window=10m");
                    return self
                        .guarded(&request, caller, Need::Read, || match what {
                            "series" => self.series(name, query),
                            _ => self.service(name, what),
                        })
                        .unwrap_or_else(|refusal| *refusal);
                }
                if method != Method::POST {
                    return not_allowed("GET, POST", "use GET or POST here");
                }
                match self.admit(&request, caller, Need::Operate) {
                    Ok(who) => self.command(name, what, &who, request).await,
                    Err(refusal) => *refusal,
                }
            }
            (&Method::GET | &Method::HEAD, path) if page::is_part(path) => page::part(path),
            (_, "/metrics" | "/healthz" | "/readyz" | "/api/v1/status" | "/api/v1/events") => {
                let is_api = path.starts_with("/api");
                not_allowed(if is_api { "GET" } else { "GET, HEAD" }, "use GET here")
            }
            (_, "/api/v1/reload") => not_allowed("POST", "use POST here"),
            _ => problem(
                StatusCode::NOT_FOUND,
                "known: / /metrics /healthz /readyz /api/v1/status /api/v1/events /api/v1/reload \
                 /api/v1/services/{name}[/history|/explain|/series] and, by POST, \
                 /api/v1/services/{name}/{pause|resume|promote|rollback|retry|weight}",
            ),
        }
    }

    /// Does `work` if the request may have what it needs.
    fn guarded<T>(
        &self,
        request: &Asked,
        caller: Caller,
        need: Need,
        work: impl FnOnce() -> T,
    ) -> Result<T, Box<Reply>> {
        self.admit(request, caller, need).map(|_| work())
    }

    /// Who asks, if they may have what the request needs.
    fn admit(&self, request: &Asked, caller: Caller, need: Need) -> Result<Who, Box<Reply>> {
        let peer = match caller {
            Caller::Local(user) => return Ok(Who::User(user)),
            Caller::Remote(peer) => peer,
        };
        self.tokens.allow(request.headers(), need, peer).map_err(|refusal| {
            let status = match refusal {
                Refusal::Unknown => StatusCode::UNAUTHORIZED,
                Refusal::CrossSite | Refusal::ForeignHost | Refusal::MayOnlyLook => {
                    StatusCode::FORBIDDEN
                }
            };
            let mut reply = problem(status, refusal.detail());
            if refusal == Refusal::Unknown {
                let challenge = HeaderValue::from_static("Bearer");
                reply.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            Box::new(reply)
        })
    }

    fn readiness(&self) -> Reply {
        if self.is_ready.load(Ordering::Relaxed) {
            text(StatusCode::OK, "text/plain", "ready\n")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "draining\n")
        }
    }

    /// What the status says of the whole gateway.
    pub(super) fn status_json(&self) -> Json {
        let is_ready = self.is_ready.load(Ordering::Relaxed);
        let (state, report) = (self.state.load(), self.report.load());
        status::gateway(&state, &report, &self.reload, is_ready)
    }

    fn status(&self) -> Reply {
        json_reply(StatusCode::OK, &self.status_json())
    }

    fn events(&self) -> Reply {
        let Some(events) = self.feed.watch() else {
            let most = format!("{} watch already, which is the most", feed::WATCHERS_MAX);
            return problem(StatusCode::SERVICE_UNAVAILABLE, &most);
        };
        let mut reply = text(StatusCode::OK, "text/event-stream", "");
        *reply.body_mut() = Content::Events(events);
        reply
    }

    fn series(&self, name: &str, window: &str) -> Reply {
        let window = window.strip_prefix("window=").unwrap_or(window);
        if let Some(columns) = self.feed.columns(name, window) {
            return text(StatusCode::OK, "application/json", format!("{columns}\n"));
        }
        let windows = series::LEVELS.map(|level| level.window).join(", ");
        let most = series::SERVICES_MAX;
        let why = format!(
            "write ?window=, one of {windows}; the first {most} services have a history, from \
             their first second on"
        );
        problem(StatusCode::NOT_FOUND, &why)
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
            _ => problem(StatusCode::NOT_FOUND, "known here: history, explain, series"),
        }
    }

    async fn command(&self, service: &str, word: &str, who: &Who, request: Asked) -> Reply {
        let (command, says) = match command::read(word, request.into_body()) {
            Ok(read) => read,
            Err((status, detail)) => return problem(status, &detail),
        };
        if !self.state.load().services.iter().any(|one| one.live.name() == service) {
            return problem(StatusCode::NOT_FOUND, &format!("no service is called `{service}`"));
        }
        let (reply, answer) = oneshot::channel();
        let actor = who.actor(says.as_deref());
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

/// A whole answer.
pub(super) fn text(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Reply {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, content_type)
        .header("cache-control", "no-store")
        .body(Content::from(body.into()))
        .expect("a status and constant fields make a response")
}

fn json_reply(status: StatusCode, body: &Json) -> Reply {
    text(status, "application/json", shown(body))
}

/// An error in the form of RFC 9457.
fn problem(status: StatusCode, detail: &str) -> Reply {
    problem_reply(status, &problem_body(status, detail))
}

/// The refusal of a method where others are `allowed`.
fn not_allowed(allowed: &'static str, detail: &str) -> Reply {
    let mut reply = problem(StatusCode::METHOD_NOT_ALLOWED, detail);
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    reply
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
    text(status, "application/problem+json", shown(body))
}

/// A value as text that acts on no terminal of whoever asks by `curl`.
fn shown(body: &Json) -> String {
    plain::json(&format!("{body:#}\n")).into_owned()
}
