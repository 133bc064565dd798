//! One probe: a connection, an HTTP request in the endpoint's own protocol, or a call of gRPC's
//! health protocol.

use std::io::{Error, ErrorKind, Result};

use bytes::Bytes;
use http::{Method, Request, StatusCode, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::state::ProbePolicy;
use crate::upstream::{Endpoint, dial};
use crate::wire::Io;

/// Longest status line that is read of an answer.
const ANSWER_BYTES_MAX: usize = 64;
/// Largest answer of the health protocol that is read; it has two bytes.
const HEALTH_BYTES_MAX: usize = 1_024;

/// Whether the endpoint answers as wanted.
///
/// # Errors
/// The connection's.
pub(super) async fn ask(endpoint: &Endpoint, policy: &ProbePolicy) -> Result<bool> {
    let (wire, is_http2) = dial::connect(endpoint).await?;
    let Some(io) = wire.into_io(Vec::new()) else { return Ok(false) };
    let host = policy.host.as_deref().unwrap_or(endpoint.authority());
    let scheme = endpoint.transport().scheme();
    if let Some(service) = &policy.grpc {
        let uri = format!("{scheme}://{host}/grpc.health.v1.Health/Check");
        return check_health(io, &uri, service).await;
    }
    let Some(path) = &policy.path else { return Ok(true) };
    let status = if is_http2 {
        let request = request(Method::GET, &format!("{scheme}://{host}{path}"))?;
        call(io, request, None).await?.0.as_u16()
    } else {
        http1(io, host, path).await?.unwrap_or(0)
    };
    Ok(policy.statuses.iter().any(|range| range.contains(&status)))
}

async fn http1(mut io: Io, host: &str, path: &str) -> Result<Option<u16>> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: splitway-probe\r\nconnection: \
         close\r\n\r\n"
    );
    io.write_all(request.as_bytes()).await?;
    io.flush().await?;
    let mut answer = Vec::new();
    while answer.len() < ANSWER_BYTES_MAX && !answer.contains(&b'\n') {
        if io.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    let line = String::from_utf8_lossy(&answer);
    Ok(line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok()))
}

fn request(method: Method, uri: &str) -> Result<http::request::Builder> {
    // Host and path come from the configuration, which may hold what no URI does.
    let uri: http::Uri = uri.parse().map_err(|error| Error::new(ErrorKind::InvalidInput, error))?;
    let request = Request::builder().version(Version::HTTP_2).method(method).uri(uri);
    Ok(request.header("user-agent", "splitway-probe"))
}

/// Asks whether `service` is serving
/// (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).
async fn check_health(io: Io, uri: &str, service: &str) -> Result<bool> {
    let request = request(Method::POST, uri)?
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let name = service.as_bytes();
    let Ok(length) = u8::try_from(name.len()).map(|length| length.min(127)) else {
        return Ok(false);
    };
    // HealthCheckRequest { string service = 1 } behind gRPC's flag and length.
    let message = if length == 0 { Vec::new() } else { [&[0x0a, length], name].concat() };
    let size = u8::try_from(message.len()).unwrap_or(u8::MAX);
    let body = [&[0, 0, 0, 0, size], &message[..]].concat();
    let (status, answer) = call(io, request, Some(body.into())).await?;
    // HealthCheckResponse { ServingStatus status = 1 }, where SERVING is 1.
    Ok(status == StatusCode::OK && answer.get(5..7) == Some(&[0x08, 0x01]))
}

/// One request over HTTP/2; the status and the first bytes of the answer.
async fn call(
    io: Io,
    request: http::request::Builder,
    body: Option<Bytes>,
) -> Result<(StatusCode, Vec<u8>)> {
    let failed = |error: h2::Error| Error::new(ErrorKind::ConnectionReset, error);
    let request = request.body(()).map_err(|error| Error::new(ErrorKind::InvalidInput, error))?;
    let (send, connection) = h2::client::handshake(io).await.map_err(failed)?;
    let mut send = send;
    let asking = async {
        let (response, mut stream) = send.send_request(request, body.is_none()).map_err(failed)?;
        if let Some(body) = body {
            stream.send_data(body, true).map_err(failed)?;
        }
        let mut response = response.await.map_err(failed)?;
        let mut answer = Vec::new();
        while answer.len() < HEALTH_BYTES_MAX {
            let Some(data) = response.body_mut().data().await else { break };
            answer.extend_from_slice(&data.map_err(failed)?);
        }
        Ok((response.status(), answer))
    };
    // The connection is driven while the answer is awaited, and closed with it.
    tokio::select! {
        biased;
        answer = asking => answer,
        ended = connection => match ended {
            Ok(()) => Err(ErrorKind::UnexpectedEof.into()),
            Err(error) => Err(failed(error)),
        },
    }
}
