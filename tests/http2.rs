//! HTTP/2 from clients and to upstreams: curl and h2load, and frames written by hand.

use std::io::{Read, Write};
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use crate::support::{Client, Gateway, Turn, Upstream, folder, tools, two_tracks};

/// What curl prints for `path` over HTTP/2 in the clear.
fn curl(gateway: &Gateway, path: &str, arguments: &[&str]) -> Option<String> {
    let curl = tools::program("curl", "curl")?;
    let url = format!("http://{}{path}", gateway.address);
    let output = Command::new(curl)
        .args(["-sS", "-i", "--max-time", "20", "--http2-prior-knowledge", &url])
        .args(arguments)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// A gateway whose upstream is another one over HTTP/2, and that one's upstream `server`.
fn chain(server: &Upstream) -> (Gateway, Gateway) {
    let inner = Gateway::start(&two_tracks(server.address, server.address, 0.0, ""));
    let config = format!(
        "services:\n  - name: outer\n    tracks: {{ stable: {{ endpoints: ['{}'], protocol: h2c }} }}\n",
        inner.address
    );
    (Gateway::start(&config), inner)
}

/// Answers in every framing, with what it was asked.
fn various() -> Upstream {
    Upstream::scripted(|session| {
        while let Some(head) = session.request() {
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let length = head.lines().find_map(|line| {
                line.to_lowercase()
                    .strip_prefix("content-length: ")
                    .map(|text| text.parse().unwrap())
            });
            let body = session.body(length.unwrap_or(0));
            let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
            match path.as_str() {
                "/chunked" => session.send(
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n\
                     0\r\nx-sum: 5\r\n\r\n",
                ),
                "/close" => {
                    session.send("HTTP/1.1 200 OK\r\n\r\nuntil the end");
                    return;
                }
                "/early" => session.send(
                    "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\
                     content-length: 1\r\n\r\nx",
                ),
                "/none" => session.send("HTTP/1.1 204 No Content\r\n\r\n"),
                "/cut" => {
                    session.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this");
                    return;
                }
                _ if head.starts_with("HEAD") => {
                    session.send("HTTP/1.1 200 OK\r\ncontent-length: 77\r\n\r\n");
                }
                _ => {
                    let said = format!("{head}{} bytes, chunked {is_chunked}", body.len());
                    let length = said.len();
                    session
                        .send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{said}"));
                }
            }
        }
    })
}

#[test]
fn every_framing_crosses_both_protocols() {
    let server = various();
    let (outer, inner) = chain(&server);
    for gateway in [&inner, &outer] {
        let Some(text) = curl(gateway, "/chunked", &[]) else { return };
        assert!(text.starts_with("HTTP/2 200") && text.contains("\r\n\r\nabcde"), "{text}");
        assert!(text.contains("x-sum: 5"), "trailers come through: {text}");
        assert!(!text.contains("transfer-encoding"), "{text}");
        let text = curl(gateway, "/close", &[]).unwrap();
        assert!(text.ends_with("\r\n\r\nuntil the end"), "{text}");
        let text = curl(gateway, "/early", &[]).unwrap();
        assert!(text.contains("HTTP/2 103") && text.contains("link: </a>"), "{text}");
        assert!(text.ends_with("\r\n\r\nx"), "{text}");
        let text = curl(gateway, "/none", &[]).unwrap();
        assert!(text.starts_with("HTTP/2 204") && !text.contains("content-length"), "{text}");
        let text = curl(gateway, "/", &["-I"]).unwrap();
        assert!(text.contains("content-length: 77"), "{text}");
        let text = curl(gateway, "/cut", &[]).unwrap();
        // A reset may overtake the head that it follows.
        let is_refused = |status: &str| text.starts_with(&format!("HTTP/2 {status}"));
        assert!(text.contains("curl: (") || is_refused("502"), "{text}");
        let text = curl(gateway, "/", &["-d", "12345", "-H", "cookie: a=1; b=2"]).unwrap();
        assert!(text.ends_with("5 bytes, chunked false"), "{text}");
        assert!(text.contains("POST / HTTP/1.1") && text.contains("cookie: a=1; b=2"), "{text}");
        assert!(text.contains("x-forwarded-proto: http\r\n"), "{text}");
        // The same from a client that speaks HTTP/1.
        let mut client = gateway.connect();
        let answer = client.get("/chunked", "te: trailers\r\n");
        assert_eq!((answer.text().as_str(), answer.header("trailer-x-sum")), ("abcde", Some("5")));
        assert_eq!(client.get("/", "").status, 200);
        let cut = client.try_get("/cut", "");
        assert!(cut.is_none_or(|answer| answer.status == 502), "it must not look complete");
    }
}

#[test]
fn large_bodies_stream_both_ways() {
    let server = Upstream::scripted(|session| {
        while let Some(head) = session.request() {
            if head.starts_with("POST") {
                let length = head.lines().find_map(|line| {
                    line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned)
                });
                session.skip(length.unwrap().parse().unwrap());
                session.send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ngot");
            } else {
                session.send("HTTP/1.1 200 OK\r\ncontent-length: 20000000\r\n\r\n");
                session.send(vec![b'x'; 20_000_000]);
            }
        }
    });
    let (outer, inner) = chain(&server);
    let folder = folder();
    let file = folder.path().join("body");
    std::fs::write(&file, vec![b'y'; 20_000_000]).unwrap();
    for gateway in [&inner, &outer] {
        let upload = format!("@{}", file.display());
        let Some(text) = curl(gateway, "/", &["--data-binary", &upload]) else { return };
        assert!(text.ends_with("got"), "{text}");
        let text = curl(gateway, "/", &[]).unwrap();
        assert!(text.len() > 20_000_000 && text.ends_with("xxxx"), "{}", text.len());
    }
}

#[test]
fn many_streams_share_few_connections_and_split_exactly() {
    let Some(h2load) = tools::program("h2load", "nghttp2-client") else { return };
    let _turn = Turn::take();
    let tracks = [Upstream::track("stable"), Upstream::track("canary")];
    let inner = Gateway::start(&two_tracks(tracks[0].address, tracks[1].address, 25.0, ""));
    let config = format!(
        "services:\n  - name: outer\n    tracks: {{ stable: {{ endpoints: ['{}'], protocol: h2c }} }}\n",
        inner.address
    );
    let outer = Gateway::start(&config);
    let output = Command::new(h2load)
        .args(["-n", "4000", "-c", "8", "-m", "32", &format!("http://{}/", outer.address)])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("4000 succeeded, 0 failed, 0 errored"), "{text}");
    let count = |track: &str| inner.metric("http_requests_total", &[track, "status=\"200\""]);
    let (stable, canary) = (count("track=\"stable\""), count("track=\"canary\""));
    assert_eq!(stable + canary, 4_000.0);
    // Five standard deviations of a fair draw.
    assert!((canary - 1_000.0).abs() < 137.0, "{canary}");
    assert!(outer.metric("splitway_upstream_connects_total", &[]) <= 16.0);
}

#[test]
fn what_http2_could_smuggle_is_refused() {
    let server = various();
    let gateway = Gateway::start(&two_tracks(server.address, server.address, 0.0, ""));
    let Some(text) = curl(&gateway, "/", &["-H", "host: other", "-H", "x: y"]) else { return };
    // curl takes Host for the authority; two that differ need frames by hand.
    assert!(text.contains("host: other"), "{text}");
    let mut client = raw(&gateway);
    client.send(headers(1, &[GET_A, b"\x40\x04host\x01b"].concat(), END_STREAM));
    let status = answer_to(&mut client, 1);
    assert_eq!(status, b"400");
    assert_eq!(gateway.metric("splitway_downstream_refused_total", &["bad_head"]), 1.0);
    let mut client = raw(&gateway);
    client.send(headers(1, b"\x42\x07CONNECT\x41\x01a", END_STREAM));
    assert_eq!(answer_to(&mut client, 1), b"405");
}

#[test]
fn a_client_that_gives_up_is_seen_at_once() {
    let (asked, seen) = channel();
    let (gone, left) = channel();
    let (asked, gone) = (Mutex::new(asked), Mutex::new(gone));
    let server = Upstream::scripted(move |session| {
        session.request();
        asked.lock().unwrap().send(()).unwrap();
        session.rest();
        gone.lock().unwrap().send(()).unwrap();
    });
    let gateway = Gateway::start(&two_tracks(server.address, server.address, 0.0, ""));
    let mut client = raw(&gateway);
    client.send(headers(1, GET_A, END_STREAM));
    seen.recv().unwrap();
    client.send(frame(3, 0, 1, &[0, 0, 0, 8]));
    left.recv().unwrap();
    gateway.await_metric("http_requests_total", &["status=\"499\""], |count| count == 1.0);
}

#[test]
fn a_drain_says_goaway_and_finishes_what_is_under_way() {
    let (asked, seen) = channel();
    let (go, wait) = channel::<()>();
    let (asked, wait) = (Mutex::new(asked), Mutex::new(wait));
    let server = Upstream::scripted(move |session| {
        while session.request().is_some() {
            asked.lock().unwrap().send(()).unwrap();
            wait.lock().unwrap().recv().unwrap();
            session.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone");
        }
    });
    let config = two_tracks(server.address, server.address, 0.0, "");
    let mut gateway = Gateway::start_with("workers: 1\n", &config);
    let mut client = raw(&gateway);
    client.send(headers(1, GET_A, END_STREAM));
    seen.recv().unwrap();
    gateway.signal("TERM");
    loop {
        let (kind, flags, _, payload) = next_frame(&mut client).expect("a GOAWAY comes first");
        // The first goodbye is followed by a ping that it waits for.
        if kind == 6 && flags == 0 {
            client.send(frame(6, 1, 0, &payload));
        }
        if kind == 7 {
            break;
        }
    }
    go.send(()).unwrap();
    assert_eq!(answer_to(&mut client, 1), b"200");
    assert_eq!(gateway.wait().code(), Some(0));
}

/// A client may say goodbye with any code and any text: neither is ours to write down or to count.
#[test]
fn what_a_client_says_at_its_end_is_no_flood_and_no_line() {
    let server = various();
    let config = two_tracks(server.address, server.address, 0.0, "");
    let gateway = Gateway::start(&config);
    for code in [1, 11] {
        let seen = gateway.log_len();
        let mut client = raw(&gateway);
        let text = b"\nFORGED flood of http2 control frames \x1b[2J";
        client.send(frame(7, 0, 0, &[&[0, 0, 0, 0, 0, 0, 0, code][..], text].concat()));
        let (_, line) = gateway.await_line(seen, "http2 connection ended badly");
        assert!(!line.contains("FORGED"), "{line}");
    }
    let floods = gateway.metric("splitway_downstream_refused_total", &["reason=\"http2_flood\""]);
    assert_eq!(floods, 0.0);
}

#[test]
fn users_who_leave_end_no_connection_and_those_who_never_came_do() {
    let (asked, seen) = channel();
    let asked = Mutex::new(asked);
    let server = Upstream::scripted(move |session| {
        while session.request().is_some() {
            asked.lock().unwrap().send(()).unwrap();
        }
    });
    let service = two_tracks(server.address, server.address, 0.0, "");
    let gateway = Gateway::start(&format!("limits: {{ http2_resets: 200 }}\n{service}"));
    let mut client = raw(&gateway);
    let ids = |from: u32| (from..from + 30).map(|index| index * 2 + 1);
    let reset = |id: u32| frame(3, 0, id, &[0, 0, 0, 8]);
    for wave in 0..5 {
        client
            .send(ids(wave * 30).flat_map(|id| headers(id, GET_A, END_STREAM)).collect::<Vec<_>>());
        for _ in 0..30 {
            seen.recv_timeout(crate::support::PATIENCE).unwrap();
        }
        client.send(ids(wave * 30).flat_map(reset).collect::<Vec<_>>());
    }
    client.send(frame(6, 0, 0, b"are you?"));
    let is_answer = |(kind, flags, _, payload): &(u8, u8, u32, Vec<u8>)| {
        (*kind, *flags) == (6, 1) && payload == b"are you?"
    };
    while !is_answer(&next_frame(&mut client).expect("the connection stays")) {}
    assert_eq!(gateway.metric("splitway_downstream_refused_total", &["http2_flood"]), 0.0);
    // What is given up before it was looked at goes nowhere, and only half as much of it is borne.
    let before = server.requests();
    let mut client = raw(&gateway);
    let hasty = (0..150).map(|index| index * 2 + 1);
    let hasty = hasty.flat_map(|id| [headers(id, GET_A, END_STREAM), reset(id)].concat());
    // It may be closed before all of it was taken.
    let _ = client.stream.write_all(&hasty.collect::<Vec<_>>());
    let _ = client.stream.read_to_end(&mut Vec::new());
    gateway.await_metric("splitway_downstream_refused_total", &["http2_flood"], |n| n == 1.0);
    assert!(server.requests() <= before + 10, "{before} {}", server.requests());
}

#[test]
fn floods_of_frames_are_broken_off_and_hurt_nobody_else() {
    let server = various();
    let gateway = Gateway::start(&two_tracks(server.address, server.address, 0.0, ""));
    let many = |one: Vec<u8>| one.repeat(20_000);
    let open = headers(1, &[&GET_A[1..], b"\x83"].concat(), 0);
    let resets: Vec<u8> = (0..20_000_u32)
        .flat_map(|index| {
            let id = index * 2 + 1;
            [headers(id, GET_A, END_STREAM), frame(3, 0, id, &[0, 0, 0, 8])].concat()
        })
        .collect();
    let bomb: Vec<u8> = [GET_A.to_vec(), vec![0x40, 1, b'x', 127, 0xe1, 0x1e], vec![b'y'; 4_000]]
        .concat()
        .into_iter()
        .chain(vec![0xbe; 8_000])
        .collect();
    for (name, flood) in [
        ("rapid reset", resets),
        ("ping", many(frame(6, 0, 0, &[0; 8]))),
        ("settings", many(frame(4, 0, 0, &[]))),
        ("empty data", [open, many(frame(0, 0, 1, &[]))].concat()),
        ("continuation", [frame(1, 0, 1, GET_A), many(frame(9, 0, 1, &[]))].concat()),
        ("priority", many(frame(2, 0, 3, &[0, 0, 0, 0, 1]))),
    ] {
        let mut client = raw(&gateway);
        // It may be closed before all of it was taken.
        let _ = client.stream.write_all(&flood);
        let _ = client.stream.read_to_end(&mut Vec::new());
        assert_eq!(gateway.connect().get("/", "").status, 200, "{name}");
    }
    let floods = gateway.metric("splitway_downstream_refused_total", &["http2_flood"]);
    assert!(floods >= 4.0, "{floods}");
    // A list of fields that unpacks to 32 MB is no flood; it is answered, and not unpacked.
    let mut client = raw(&gateway);
    client.send(headers(1, &bomb, END_STREAM));
    let refused = answer_to(&mut client, 1);
    assert!(refused == b"431" || refused.is_empty(), "{refused:?}");
    assert_eq!(gateway.connect().get("/", "").status, 200);
}

// === frames by hand ===

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `GET http://a/` in HPACK's static table, the method last but for the authority.
const GET_A: &[u8] = b"\x82\x86\x84\x41\x01a";

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn headers(stream: u32, block: &[u8], flags: u8) -> Vec<u8> {
    let mut first = block.chunks(16_000);
    let head = first.next().unwrap();
    let rest: Vec<&[u8]> = first.collect();
    let end = if rest.is_empty() { END_HEADERS } else { 0 };
    let mut bytes = frame(1, flags | end, stream, head);
    for (index, piece) in rest.iter().enumerate() {
        let end = if index + 1 == rest.len() { END_HEADERS } else { 0 };
        bytes.extend(frame(9, end, stream, piece));
    }
    bytes
}

/// A connection that has said hello.
pub fn raw(gateway: &Gateway) -> Client {
    let mut client = gateway.connect();
    client.send([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &[])[..]].concat());
    client
}

/// The next frame's type, flags, stream and payload.
pub fn next_frame(client: &mut Client) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut header = [0; 9];
    client.stream.read_exact(&mut header).ok()?;
    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
    let mut payload = vec![0; length as usize];
    client.stream.read_exact(&mut payload).ok()?;
    let stream = u32::from_be_bytes(header[5..9].try_into().unwrap());
    Some((header[3], header[4], stream, payload))
}

/// The status of the answer on `stream`; nothing when the stream or connection is reset.
fn answer_to(client: &mut Client, stream: u32) -> Vec<u8> {
    while let Some((kind, _, id, payload)) = next_frame(client) {
        if kind == 3 && id == stream {
            break;
        }
        if kind == 1 && id == stream {
            return match payload[0] {
                0x88 => b"200".to_vec(),
                0x8c => b"400".to_vec(),
                0x8d => b"404".to_vec(),
                // A literal with the name of the static table's :status.
                0x48 => huffman_digits(&payload[2..2 + usize::from(payload[1] & 0x7f)]),
                other => panic!("{other:x} {payload:x?}"),
            };
        }
    }
    Vec::new()
}

/// Digits of HPACK's Huffman code: 0 to 2 have five bits, 3 to 9 six.
fn huffman_digits(bytes: &[u8]) -> Vec<u8> {
    let bits: Vec<u8> =
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let (mut digits, mut at) = (Vec::new(), 0);
    let value = |from: usize, count: usize| {
        bits.get(from..from + count).map(|bits| bits.iter().fold(0_u8, |sum, bit| sum * 2 + bit))
    };
    while let Some(five) = value(at, 5) {
        if five < 3 {
            digits.push(b'0' + five);
            at += 5;
        } else {
            match value(at, 6) {
                Some(six @ 0x19..=0x1f) => digits.push(b'0' + six - 0x19 + 3),
                _ => break,
            }
            at += 6;
        }
    }
    digits
}

/// Memory that a process has for itself, in KiB.
fn held_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A field that is sent as it is, name and value below 127 bytes each or the value up to 16 KiB.
fn literal(name: &str, value: &[u8]) -> Vec<u8> {
    let mut field = vec![0, name.len() as u8];
    field.extend_from_slice(name.as_bytes());
    // An integer with a prefix of seven bits (RFC 7541 §5.1).
    let mut rest = value.len();
    if rest < 127 {
        field.push(rest as u8);
    } else {
        field.push(127);
        rest -= 127;
        while rest >= 128 {
            field.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        field.push(rest as u8);
    }
    field.extend_from_slice(value);
    field
}

/// An upstream that takes connections and nothing of what comes on them.
fn deaf() -> (socket2::Socket, std::net::SocketAddr) {
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&any.into()).unwrap();
    // The kernel agrees to each, and nobody accepts.
    socket.listen(4_096).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// What 128 streams of a connection can make the gateway hold: 64 KiB and more each, or a head each,
/// if it grew for as long as somebody does not read.
#[test]
fn connections_whose_streams_are_blocked_stay_small() {
    const CONNECTIONS: u32 = 4;
    const STREAMS: u32 = 128;
    const MOST_KIB: u64 = 16 * 1_024;
    let generous = Upstream::scripted(|session| {
        session.request();
        session.send("HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n");
        session.try_send(&[b'y'; 200_000]);
        session.rest();
    });
    let (_socket, deaf) = deaf();
    let large = [GET_A, &literal("x-large", &[b'v'; 30_000])].concat();
    // SETTINGS_INITIAL_WINDOW_SIZE: nothing, or a mebibyte.
    let (shut, wide): (&[u8], &[u8]) = (&[0, 4, 0, 0, 0, 0], &[0, 4, 0, 16, 0, 0]);
    for (name, settings, head, upstream) in [
        ("answers without a window", shut, GET_A, generous.address),
        ("answers that are not read", wide, GET_A, generous.address),
        ("heads", wide, &large, deaf),
    ] {
        let gateway = Gateway::start(&two_tracks(upstream, upstream, 0.0, ""));
        gateway.admin_get("/metrics");
        let before = held_kib(gateway.pid());
        let mut clients: Vec<Client> = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut client = gateway.connect();
            client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            client.send(frame(4, 0, 0, settings));
            client.send(frame(8, 0, 0, &[127, 0, 0, 0]));
            for stream in 0..STREAMS {
                client.send(headers(1 + 2 * stream, head, END_STREAM));
            }
            clients.push(client);
        }
        // Everybody is looked at in turn: what came before has been when another is answered.
        let mut most = before;
        for _ in 0..20 {
            most = most.max(held_kib(gateway.pid()));
            gateway.admin_get("/healthz");
            // Growth itself is tested here: it would go on for as long as one looks.
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let grown = most - before;
        assert!(grown < MOST_KIB, "{name}: {grown} KiB for {CONNECTIONS} connections");
        if head.len() > 10_000 {
            let refused = gateway.metric("splitway_downstream_refused_total", &["\"memory\""]);
            assert!(refused > 0.0, "a connection that holds much gets no more");
        }
        // Such a client is in nobody's way.
        assert_eq!(gateway.admin_get("/readyz").status, 200);
    }
}
