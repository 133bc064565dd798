//! Whatever we forward, hyper reads as the one request that we took it for: nothing that we pass on
//! can smuggle a second one, or another body, to the server behind.
#![no_main]

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use splitway::http1::rewrite::{self, Forwarding};
use splitway::http1::{Limits, Owned, RequestHead, trailers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[derive(Debug, PartialEq)]
struct Reading {
    method: Vec<u8>,
    target: Vec<u8>,
    body: Vec<u8>,
}

fuzz_target!(|bytes: &[u8]| {
    let mut spans = Vec::new();
    let Ok(Some(head)) = RequestHead::parse(bytes, Limits::default(), &mut spans) else { return };
    // CONNECT is not served, and an expectation makes hyper wait for nobody.
    if head.method == b"CONNECT" {
        return;
    }
    let mut body = head.body();
    let (rest, mut content, mut raw) = (&bytes[head.bytes.len()..], Vec::new(), Vec::new());
    let Ok(taken) = body.read_parts(rest, Some(&mut content), &mut raw) else { return };
    if !body.is_done() {
        return;
    }
    let forwarding = Forwarding {
        peer: "192.0.2.1",
        client: Some([192, 0, 2, 1].into()),
        trusted: true,
        scheme: "http",
        certificate: None,
        via: None,
        upgrade: false,
        target: None,
        owned: &Owned::default(),
        edits: &[],
        made: b"",
    };
    let mut out = Vec::new();
    rewrite::request(&mut out, &head, &forwarding);
    out.extend_from_slice(&rest[..taken.passed]);
    if !raw.is_empty() && trailers::write(&mut out, &raw, |_| false).is_err() {
        return;
    }
    let ours = Reading {
        method: head.method.to_vec(),
        target: head.path_and_query.to_vec(),
        body: content,
    };
    // hyper may refuse what we accept; what it reads must be what we read, and all of it.
    let theirs = hypers(out);
    assert!(theirs.len() <= 1, "{theirs:?}");
    if let Some(theirs) = theirs.first() {
        assert_eq!(theirs, &ours);
    }
});

/// The requests that hyper reads.
fn hypers(bytes: Vec<u8>) -> Vec<Reading> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let noted = Rc::clone(&seen);
    let answer = move |request: Request<Incoming>| {
        let noted = Rc::clone(&noted);
        async move {
            let method = request.method().as_str().as_bytes().to_vec();
            let target = request.uri().path_and_query();
            let target = target.map_or("*", |target| target.as_str()).as_bytes().to_vec();
            if let Ok(body) = request.into_body().collect().await {
                let body = body.to_bytes().to_vec();
                noted.borrow_mut().push(Reading { method, target, body });
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(bytes.len() + 1024);
        let serving = http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(server), service_fn(answer));
        let asking = async {
            let _ = client.write_all(&bytes).await;
            let _ = client.shutdown().await;
            let mut answers = Vec::new();
            let _ = client.read_to_end(&mut answers).await;
        };
        let _ = tokio::join!(serving, asking);
    });
    Rc::try_unwrap(seen).map_or_else(|seen| seen.take(), RefCell::into_inner)
}
