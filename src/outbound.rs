//! Calls that the gateway itself makes: questions to a Prometheus, webhooks. Control side only.
//!
//! One connection a call, closed behind it: calls are seconds apart, and a receiver that hangs
//! holds nothing but its own.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls::{ClientTls, TlsError, client};

/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Longest address.
const URL_BYTES_MAX: usize = 4 * 1024;

/// Where a call goes: `http://HOST[:PORT][/PATH]`, or `https://`.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    is_tls: bool,
    host: String,
    port: u16,
    /// Path and query.
    target: String,
}

impl fmt::Debug for Url {
    /// Without path and query, which may hold a secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.origin())
    }
}

impl Url {
    /// Reads an address.
    ///
    /// # Errors
    /// In words, with the remedy.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad =
            |why: &str| Err(format!("is no address to call: {why}; write http://HOST:PORT/PATH"));
        if text.len() > URL_BYTES_MAX {
            return bad("it is longer than 4 KiB");
        }
        let Ok(uri) = text.parse::<http::Uri>() else { return bad("it is no URL") };
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return bad("it names neither http nor https"),
        };
        let Some(authority) = uri.authority() else { return bad("it names no host") };
        if authority.as_str().contains('@') {
            return bad("it holds a user; pass secrets as a header");
        }
        let host = authority.host();
        if host.is_empty() {
            return bad("it names no host");
        }
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        Ok(Self { is_tls, host: host.to_owned(), port, target: target.to_owned() })
    }

    /// The same with `more` behind its path.
    #[must_use]
    pub fn below(&self, more: &str) -> Self {
        let path = self.path().trim_end_matches('/');
        Self { target: format!("{path}{more}"), ..self.clone() }
    }

    /// The path, without a query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Scheme, host and port: what may be shown and logged.
    #[must_use]
    pub fn origin(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }
}

/// Whom the gateway calls, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Contact {
    /// The address.
    pub url: Url,
    /// Further fields of every request.
    pub headers: HeaderMap,
    /// A file whose content is sent as a bearer token; read anew, so that a renewed one is used.
    pub token_file: Option<PathBuf>,
    /// For everything, from the name's resolution to the answer's last byte.
    pub timeout: Duration,
}

/// One request to a contact.
struct Call<'a> {
    contact: &'a Contact,
    url: &'a Url,
    method: Method,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The whole body.
    pub body: Bytes,
}

/// Why no answer came. It says where the call went, without path and query.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It took too long.
    #[error("{origin} has not answered within {after_ms} ms")]
    Timeout {
        /// Where the call went.
        origin: String,
        /// The limit.
        after_ms: u128,
    },
    /// The file with the token cannot be used.
    #[error("the token in {0} cannot be used: {1}")]
    Token(String, String),
    /// Nobody could be connected.
    #[error("{0} cannot be connected: {1}")]
    Connect(String, std::io::Error),
    /// TLS cannot be had at all.
    #[error("{0}")]
    Tls(TlsError),
    /// The answer is no HTTP, broke off, or is larger than 1 MiB.
    #[error("{0} gave no whole answer: {1}")]
    Answer(String, String),
}

impl Contact {
    /// Asks at its address, with `more` behind the path. Redirects are answers like any other.
    ///
    /// # Errors
    /// When no whole answer came in time.
    pub async fn get(&self, more: &str) -> Result<Answer, CallError> {
        let url = &self.url.below(more);
        let headers = self.headers.clone();
        self.call(Call { contact: self, url, method: Method::GET, headers, body: Vec::new() }).await
    }

    /// Sends `body` with fields of this request's own. Redirects are answers like any other.
    ///
    /// # Errors
    /// When no whole answer came in time.
    pub async fn post(
        &self,
        content_type: &'static str,
        own: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Answer, CallError> {
        let mut headers = own;
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.extend(self.headers.clone());
        self.call(Call { contact: self, url: &self.url, method: Method::POST, headers, body }).await
    }

    async fn call(&self, call: Call<'_>) -> Result<Answer, CallError> {
        let asking = connect_and_ask(call);
        tokio::time::timeout(self.timeout, asking).await.unwrap_or_else(|_| {
            let (origin, after_ms) = (self.url.origin(), self.timeout.as_millis());
            Err(CallError::Timeout { origin, after_ms })
        })
    }
}

async fn connect_and_ask(mut call: Call<'_>) -> Result<Answer, CallError> {
    if let Some(file) = &call.contact.token_file {
        let token = token(file).await;
        let token = token.map_err(|why| CallError::Token(file.display().to_string(), why))?;
        call.headers.insert(header::AUTHORIZATION, token);
    }
    let url = call.url;
    let lost = |error| CallError::Connect(url.origin(), error);
    let bare = url.host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let stream = TcpStream::connect((bare.as_str(), url.port)).await.map_err(lost)?;
    if !url.is_tls {
        return ask(stream, call).await;
    }
    let tls = settings().map_err(CallError::Tls)?;
    let name = ServerName::try_from(bare)
        .map_err(|error| CallError::Connect(url.origin(), std::io::Error::other(error)))?;
    let stream = TlsConnector::from(Arc::clone(&tls.config)).connect(name, stream).await;
    ask(stream.map_err(lost)?, call).await
}

/// The field for the token in `file`. Another thread reads: a disk may stall.
async fn token(file: &Path) -> Result<HeaderValue, String> {
    let file = file.to_owned();
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(file)).await;
    let text = read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let mut value = HeaderValue::try_from(format!("Bearer {}", text.trim()))
        .map_err(|_| "it is no text that can stand in a head".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

async fn ask<S>(stream: S, call: Call<'_>) -> Result<Answer, CallError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let origin = call.url.origin();
    let broken = |error: &dyn fmt::Display| CallError::Answer(origin.clone(), error.to_string());
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let mut request = Request::builder()
        .method(call.method)
        .uri(&call.url.target)
        .header(header::HOST, format!("{}:{}", call.url.host, call.url.port))
        .header(header::USER_AGENT, concat!("splitway/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, HeaderValue::from_static("close"))
        .body(Full::new(Bytes::from(call.body)))
        .map_err(|error| broken(&error))?;
    request.headers_mut().extend(call.headers);
    let asking = async {
        let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok(Answer { status, body: body.map_err(|error| broken(&error))?.to_bytes() })
    };
    // The connection moves the bytes; it ends with the answer at the latest.
    let mut asking = std::pin::pin!(asking);
    tokio::select! {
        biased;
        answer = &mut asking => answer,
        ended = connection => match ended {
            Ok(()) => asking.await,
            Err(error) => Err(broken(&error)),
        },
    }
}

/// Believes the system's roots, or those of `SSL_CERT_FILE`; read once.
fn settings() -> Result<&'static ClientTls, TlsError> {
    static SETTINGS: OnceLock<Result<ClientTls, TlsError>> = OnceLock::new();
    let terms = client::Terms { ca: None, pair: None, verify: true, alpn: &["http/1.1"] };
    SETTINGS.get_or_init(|| ClientTls::new(&terms)).as_ref().map_err(Clone::clone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_their_secrets() {
        let url = Url::parse("https://hooks.example.com/services/T0/secret?x=1").unwrap();
        assert_eq!(url.origin(), "https://hooks.example.com:443");
        assert_eq!(format!("{url:?}"), "https://hooks.example.com:443");
        assert_eq!(url.target, "/services/T0/secret?x=1");
        let url = Url::parse("http://[::1]:9090/prometheus/").unwrap();
        assert_eq!(url.below("/api/v1/query?query=up").target, "/prometheus/api/v1/query?query=up");
        for bad in ["", "prometheus:9090", "ftp://a/", "http://", "http://a:b@c/", "http://a b/"] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }
}
