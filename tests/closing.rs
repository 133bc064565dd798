//! Every end of a connection lets what was written arrive: a close while the client's bytes are
//! unread would reset it away.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use socket2::{Domain, Protocol, Socket, Type};

use crate::http2::{frame, next_frame, raw};
use crate::support::{Certificates, Client, Gateway, PATIENCE, Upstream, two_tracks};

/// More than the sockets of both sides hold, so that a good part of it is unsent at the close.
const SIZE: usize = 6 << 20;

/// gateway's end.
fn large() -> Upstream {
    Upstream::scripted(|session| {
        while let Some(request) = session.request() {
            if request.starts_with("GET /until-close") {
                session.send("HTTP/1.1 200 OK\r\n\r\n");
                session.send(vec![b'x'; SIZE]);
                return;
            }
            session.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n"));
            session.send(vec![b'x'; SIZE]);
        }
    })
}

fn services(upstream: &Upstream) -> String {
    two_tracks(upstream.address, upstream.address, 0.0, "")
}

/// A connection that takes little at a time, as one over a slow line does.
fn narrow(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP));
    let socket = socket.unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// How many bytes come, and what ends them, where `more` is written behind the first of them.
fn read_slowly(stream: &mut (impl Read + Write), more: &[&[u8]]) -> (usize, Option<ErrorKind>) {
    let (mut count, mut slept, mut more) = (0, 0, more.iter());
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (count, None),
            Ok(read) => count += read,
            Err(error) => return (count, Some(error.kind())),
        }
        if count / (64 << 10) > slept {
            // Little by little, so that the gateway is done long before the client.
            slept = count / (64 << 10);
            std::thread::sleep(Duration::from_millis(2));
        }
        if count > 500_000
            && let Some(more) = more.next()
        {
            // The gateway may have closed in between: then it takes no more.
            let _ = stream.write_all(more);
        }
    }
}

#[test]
fn what_a_client_sends_behind_its_last_request_costs_no_answer() {
    let upstream = large();
    let gateway = Gateway::start(&services(&upstream));
    for request in [
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\nhost: a\r\n\r\n",
        "GET /until-close HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        for more in [&b"\r\n"[..], b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n"] {
            let mut client = narrow(gateway.address);
            client.write_all(request.as_bytes()).unwrap();
            let (count, end) = read_slowly(&mut client, &[more, more]);
            assert!(count > SIZE && end.is_none(), "{request} {more:?}: {count} then {end:?}");
        }
    }
}

#[test]
fn whoever_pipelines_in_a_drain_gets_the_answer_before() {
    let upstream = large();
    let mut gateway = Gateway::start(&services(&upstream));
    let mut client = narrow(gateway.address);
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut first = [0; 1];
    client.read_exact(&mut first).unwrap();
    gateway.signal("TERM");
    gateway.await_line(0, "draining");
    let more: [&[u8]; 2] = [b"\r\n", b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n"];
    let (count, end) = read_slowly(&mut client, &more);
    assert!(count >= SIZE && end.is_none(), "{count} bytes, then {end:?}");
    drop(client);
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn an_upload_that_is_refused_gets_its_answer_when_all_of_it_is_sent() {
    let upstream = large();
    let gateway = Gateway::start(&format!("limits: {{ body: 1MiB }}\n{}", services(&upstream)));
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 8000000\r\n\r\n");
    client.send(vec![b'x'; 8_000_000]);
    assert_eq!(client.response().status, 413);
    let mut byte = [0];
    assert_eq!(client.stream.read(&mut byte).unwrap(), 0, "and no reset behind it");
}

#[test]
fn a_connection_without_its_proxy_header_ends_in_order() {
    let upstream = large();
    let gateway = Gateway::start(&format!(
        "listeners: [{{ address: '127.0.0.1:0', proxy_protocol: true }}]\n{}",
        services(&upstream)
    ));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.stream.read(&mut [0]).unwrap(), 0);
}

/// What a tunnel's server sends last arrives, whatever the client still sends.
#[test]
fn the_end_of_a_tunnel_arrives() {
    const LAST: usize = 600_000;
    for waits in [false, true] {
        let upstream = Upstream::scripted(move |session| {
            session.request();
            session.send(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
            );
            session.send(vec![b'x'; LAST]);
            session.body(1);
            if waits {
                session.close_write();
                session.rest();
            }
        });
        let gateway = Gateway::start(&services(&upstream));
        let mut client = narrow(gateway.address);
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
            .unwrap();
        // The first tells the server to end; what follows finds nobody there.
        let (count, end) = read_slowly(&mut client, &[b"a", b"b", b"b"]);
        assert!(count > LAST && end.is_none(), "waits {waits}: {count} bytes, then {end:?}");
    }
}

/// A connection under TLS that holds a missing `close_notify` to be a fault, as it is.
fn under_tls(address: SocketAddr, made: &Certificates, alpn: &[u8]) -> Tls {
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(made.path("ca.crt")).unwrap();
    for root in CertificateDer::pem_slice_iter(&pem) {
        roots.add(root.unwrap()).unwrap();
    }
    let mut config =
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    if !alpn.is_empty() {
        config.alpn_protocols = vec![alpn.to_vec()];
    }
    let name = "localhost".try_into().unwrap();
    let session = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    rustls::StreamOwned::new(session, narrow(address))
}

type Tls = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

fn tls_listener(made: &Certificates, more: &str) -> String {
    made.issue("a", &["localhost"]);
    let pair = made.pair("a");
    format!("listeners: [{{ address: '127.0.0.1:0', tls: {{ certificates: [{pair}] }} }}]\n{more}")
}

#[test]
fn every_end_under_tls_says_close_notify() {
    let (made, upstream) = (Certificates::new(), large());
    let gateway = Gateway::start(&format!(
        "{}{}",
        tls_listener(&made, "timeouts: { idle: 1s }\n"),
        services(&upstream)
    ));
    for (request, least) in [
        ("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", SIZE),
        ("GET / HTTP/1.0\r\nhost: a\r\n\r\n", SIZE),
        ("GET /until-close HTTP/1.1\r\nhost: a\r\n\r\n", SIZE),
        // At rest until the gateway has waited long enough.
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", SIZE),
        ("GET\r\n\r\n", 20),
    ] {
        let mut client = under_tls(gateway.address, &made, b"");
        client.write_all(request.as_bytes()).unwrap();
        let (count, end) = read_slowly(&mut client, &[b"\r\n"]);
        assert!(count >= least && end.is_none(), "{request}: {count} bytes, then {end:?}");
    }
}

#[test]
fn whoever_agrees_on_http2_and_says_nothing_is_told_that_it_ends() {
    let (made, upstream) = (Certificates::new(), large());
    let listener = tls_listener(&made, "timeouts: { head: 2s }\n");
    let gateway = Gateway::start(&format!("{listener}{}", services(&upstream)));
    let mut client = under_tls(gateway.address, &made, b"h2");
    let mut bytes = Vec::new();
    // A missing close_notify is an error here.
    client.read_to_end(&mut bytes).unwrap();
}

#[test]
fn whoever_speaks_no_tls_is_told_so() {
    let (made, upstream) = (Certificates::new(), large());
    let gateway = Gateway::start(&format!("{}{}", tls_listener(&made, ""), services(&upstream)));
    let mut client = Client::connect(gateway.address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(100));
    // A fatal alert, then the end.
    let mut alert = [0; 7];
    client.stream.read_exact(&mut alert).unwrap();
    assert_eq!((alert[0], alert[5]), (21, 2));
    assert_eq!(client.stream.read(&mut [0]).unwrap(), 0);
}

/// Asks over HTTP/2, has the gateway drain when the answer begins, and reads on slowly, opening its
/// windows as every client does; the bytes that came, and whether they were all.
fn drained_over_http2(stream: &mut (impl Read + Write), drain: impl FnOnce()) -> (usize, bool) {
    let window = (16_u32 << 20).to_be_bytes();
    let hello = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, &[&[0, 4][..], &window].concat()),
        frame(8, 0, 0, &window),
        frame(1, 5, 1, b"\x82\x86\x84\x41\x01a"),
    ];
    stream.write_all(&hello.concat()).unwrap();
    let (mut count, mut drain) = (0, Some(drain));
    loop {
        let mut header = [0; 9];
        if stream.read_exact(&mut header).is_err() {
            return (count, false);
        }
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; length as usize];
        if stream.read_exact(&mut payload).is_err() {
            return (count, false);
        }
        let answer = match (header[3], header[4]) {
            (0, flags) => {
                count += payload.len();
                if let Some(drain) = drain.take() {
                    drain();
                }
                if flags & 1 == 1 {
                    return (count, true);
                }
                std::thread::sleep(Duration::from_millis(1));
                frame(8, 0, 0, &length.max(1).to_be_bytes())
            }
            (4, 0) => frame(4, 1, 0, &[]),
            (6, 0) => frame(6, 1, 0, &payload),
            _ => continue,
        };
        let _ = stream.write_all(&answer);
    }
}

#[test]
fn a_drain_cuts_no_answer_over_http2() {
    let (made, upstream) = (Certificates::new(), large());
    for secure in [false, true] {
        let listener = if secure { tls_listener(&made, "") } else { String::new() };
        let mut gateway = Gateway::start(&format!("{listener}{}", services(&upstream)));
        let address = gateway.address;
        let drain = || {
            gateway.signal("TERM");
            gateway.await_line(0, "draining");
        };
        let (count, is_whole) = if secure {
            drained_over_http2(&mut under_tls(address, &made, b"h2"), drain)
        } else {
            drained_over_http2(&mut narrow(address), drain)
        };
        assert!(is_whole && count == SIZE, "secure {secure}: {count} of {SIZE} bytes");
        assert_eq!(gateway.wait().code(), Some(0));
    }
}

/// The goodbye is said twice: no new requests, then which one was the last (RFC 9113 §6.8), to a
/// client that confirms the first at once, and to one that never does.
#[test]
fn a_goodbye_names_the_last_stream_before_the_connection_ends() {
    for confirms in [true, false] {
        let upstream = Upstream::track("stable");
        let mut gateway = Gateway::start(&services(&upstream));
        let mut client = raw(&gateway);
        client.send(frame(1, 5, 1, b"\x82\x86\x84\x41\x01a"));
        let (mut last, mut is_asked) = (Vec::new(), false);
        while last.len() < 2 {
            let (kind, flags, stream, payload) = next_frame(&mut client).expect("a goodbye");
            match (kind, flags) {
                (0, flags) if flags & 1 == 1 && stream == 1 => gateway.signal("TERM"),
                (6, 0) if confirms => client.send(frame(6, 1, 0, &payload)),
                (7, _) => {
                    assert_eq!(payload[4..8], [0; 4], "without an error");
                    last.push(u32::from_be_bytes(payload[..4].try_into().unwrap()));
                }
                _ => is_asked |= kind == 1,
            }
        }
        assert_eq!((last.as_slice(), is_asked), (&[0x7fff_ffff, 1][..], true));
        assert_eq!(client.stream.read(&mut [0]).unwrap(), 0, "confirms {confirms}");
        drop(client);
        assert_eq!(gateway.wait().code(), Some(0));
    }
}
