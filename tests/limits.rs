//! Bounds: many idle clients, slow clients, endless bodies, and no file descriptors left.

use std::io::{Read, Write};
use std::time::Duration;

use crate::support::{Client, Gateway, StopOnDrop, Upstream, two_tracks};

/// Resident memory of a process in KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn five_thousand_idle_connections_are_cheap_and_alive() {
    let upstream = Upstream::track("stable");
    let file = two_tracks(upstream.address, upstream.address, 0.0, "");
    let gateway = Gateway::start(&format!("limits: {{ connections_per_source: off }}\n{file}"));
    // The test's own limit: 5,000 sockets and some.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    gateway.connect().get("/", "");
    let before = resident_kib(gateway.pid());
    let mut clients: Vec<Client> = (0..5_000)
        .map(|_| {
            let mut client = gateway.connect();
            assert_eq!(client.get("/", "").status, 200);
            client
        })
        .collect();
    let open = gateway.metric("splitway_downstream_connections", &[]);
    assert!(open >= 5_000.0, "{open}");
    let per_connection = (resident_kib(gateway.pid()) - before) / 5_000;
    // The goal is 3 KiB; twice that still tells a leak of buffers (16 KiB and more each).
    assert!(per_connection <= 6, "{per_connection} KiB for an idle connection");
    for client in clients.iter_mut().step_by(97) {
        assert_eq!(client.get("/", "").status, 200);
    }
}

#[test]
fn a_gibibyte_passes_each_way_in_bounded_memory() {
    const GIB: u64 = 1 << 30;
    let upstream = Upstream::scripted(|session| {
        session.request();
        session.skip(GIB);
        session.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {GIB}\r\n\r\n"));
        let piece = vec![b'y'; 1 << 20];
        for _ in 0..1_024 {
            assert!(session.try_send(&piece));
        }
    });
    let gateway = Gateway::start(&two_tracks(upstream.address, upstream.address, 0.0, ""));
    let mut client = gateway.connect();
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {GIB}\r\n\r\n"));
    let before = resident_kib(gateway.pid());
    let mut writer = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        let piece = vec![b'x'; 1 << 20];
        (0..1_024).for_each(|_| writer.write_all(&piece).unwrap());
    });
    let answer = client.head();
    assert_eq!(answer.status, 200);
    sending.join().unwrap();
    let mut left = GIB - client.held.len() as u64;
    let mut buffer = vec![0; 1 << 20];
    let mut most = 0;
    while left > 0 {
        let count = client.stream.read(&mut buffer).unwrap() as u64;
        assert!(count > 0, "{left} bytes are missing");
        left -= count;
        most = most.max(resident_kib(gateway.pid()));
    }
    assert!(most < before + 8 * 1_024, "{before} KiB grew to {most} KiB");
}

#[test]
fn a_slow_reader_is_not_buffered_for() {
    let upstream = Upstream::scripted(|session| {
        session.request();
        session.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        let piece = [b"40000\r\n".to_vec(), vec![b'y'; 0x40000], b"\r\n".to_vec()].concat();
        // Until the gateway takes no more, or the client has gone.
        while session.try_send(&piece) {}
    });
    let file = two_tracks(upstream.address, upstream.address, 0.0, "");
    let gateway = Gateway::start(&format!("timeouts: {{ between_bytes: 2s }}\n{file}"));
    let before = resident_kib(gateway.pid());
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.head().status, 200);
    // The client reads no more; the gateway gives it up and says whose fault it was.
    gateway.await_metric("splitway_downstream_connections", &[], |open| open == 0.0);
    assert!(resident_kib(gateway.pid()) < before + 4 * 1_024);
    gateway.await_metric("http_requests_total", &["status=\"200\""], |value| value == 1.0);
}

#[test]
fn slow_heads_and_bodies_are_timed_out() {
    let upstream = Upstream::scripted(|session| {
        session.request();
        session.rest();
    });
    let file = two_tracks(upstream.address, upstream.address, 0.0, "");
    let gateway = Gateway::start(&format!(
        "timeouts: {{ head: 300ms, idle: 400ms, between_bytes: 500ms, first_byte: 600ms }}\n{file}"
    ));
    let mut slow_head = gateway.connect();
    slow_head.send("GET / HTTP/1.1\r\nhost:");
    let mut slow_body = gateway.connect();
    slow_body.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc");
    let mut slow_answer = gateway.connect();
    slow_answer.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut silent = gateway.connect();
    assert_eq!(slow_head.response().status, 408);
    assert_eq!(slow_body.response().status, 408);
    let answer = slow_answer.response();
    assert_eq!(answer.status, 504);
    assert_eq!(answer.header("splitway-error"), Some("upstream timed out"));
    assert_eq!(silent.rest(), b"", "a silent connection is closed without a word");
    gateway.await_metric("splitway_upstream_connections", &[], |open| open == 0.0);
}

#[test]
fn an_upstream_that_stops_reading_is_timed_out() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let upstream = Upstream::scripted(move |session| {
        session.request();
        // Holds the connection open without reading any more of it.
        let _ = wait.lock().unwrap().recv();
    });
    let file = two_tracks(upstream.address, upstream.address, 0.0, "");
    let gateway = Gateway::start(&format!("timeouts: {{ between_bytes: 500ms }}\n{file}"));
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n");
    let mut writer = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        // Ends when the gateway has had enough.
        while writer.write_all(&[b'x'; 64 * 1024]).is_ok() {}
    });
    gateway.await_metric("http_requests_total", &["status=\"504\""], |count| count == 1.0);
    drop(client);
    drop(go);
    drop(gateway);
    sending.join().unwrap();
}

#[test]
fn a_body_may_take_longer_to_begin_than_a_head_or_a_connect_may_take() {
    let upstream = Upstream::scripted(|session| {
        session.request();
        session.body(3);
        session.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        session.rest();
    });
    let file = two_tracks(upstream.address, upstream.address, 0.0, "");
    let gateway = Gateway::start(&format!("timeouts: {{ head: 200ms, connect: 200ms }}\n{file}"));
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n");
    // Time itself is tested here.
    std::thread::sleep(Duration::from_millis(700));
    client.send("abc");
    assert_eq!(client.response().status, 200);
}

#[test]
fn a_trickled_head_is_timed_out_however_steadily_it_comes() {
    let upstream = Upstream::track("stable");
    let file = two_tracks(upstream.address, upstream.address, 0.0, "");
    let gateway = Gateway::start(&format!("timeouts: {{ head: 500ms }}\n{file}"));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nx: ");
    client.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    // Time itself is tested here: a byte at every turn, until the gateway has had enough.
    let mut answer = [0; 12];
    let read = loop {
        if client.stream.write_all(b"y").is_err() {
            break client.stream.read(&mut answer).unwrap_or(0);
        }
        match client.stream.read(&mut answer) {
            Ok(count) => break count,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break 0,
            Err(_) => {}
        }
    };
    assert!(read == 0 || &answer == b"HTTP/1.1 408");
    gateway.await_metric("splitway_downstream_refused_total", &["head_timeout"], |n| n == 1.0);
}

#[test]
fn a_whole_request_may_have_a_deadline() {
    let upstream = Upstream::scripted(|session| {
        session.request();
        session.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        while session.try_send(b"1\r\nx\r\n") {
            std::thread::yield_now();
        }
    });
    let service = "    timeouts: { request: 700ms }\n";
    let gateway = Gateway::start(&two_tracks(upstream.address, upstream.address, 0.0, service));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut answer = client.head();
    assert!(client.body_of(&mut answer).is_err(), "steady bytes do not extend a deadline");
}

#[test]
fn accepting_pauses_when_no_file_descriptor_is_left_and_goes_on() {
    let upstream = Upstream::track("stable");
    let gateway = Gateway::start(&two_tracks(upstream.address, upstream.address, 0.0, ""));
    gateway.connect().get("/", "");
    let pid = gateway.pid().to_string();
    let count = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let open = count();
    let limit = |most: usize| {
        let most = format!("--nofile={most}:{most}");
        let status = std::process::Command::new("prlimit").args(["--pid", &pid, &most]).status();
        assert!(status.unwrap().success());
    };
    // Room for the five that stay, a dial by each worker, and a look at the file; not for thirty.
    limit(open + 12);
    let mut clients: Vec<Client> = (0..30).map(|_| gateway.connect()).collect();
    gateway.await_line(0, "accepting pauses");
    drop(clients.drain(..25));
    // Those that left free their places first, or there is none to dial an upstream with.
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while count() > open + 6 {
        assert!(std::time::Instant::now() < deadline, "{} files are open", count());
        std::thread::yield_now();
    }
    // The rest were waiting in the kernel's queue and are served now.
    for client in &mut clients {
        assert_eq!(client.get("/", "").status, 200);
    }
    assert!(gateway.metric("splitway_downstream_accept_pauses_total", &[]) >= 1.0);
}

#[test]
fn connections_are_limited_in_total_and_by_source() {
    let upstream = Upstream::track("stable");
    let config = |limits: &str| {
        let services = two_tracks(upstream.address, upstream.address, 0.0, "");
        format!("limits: {{ {limits} }}\n{services}")
    };
    let gateway = Gateway::start(&config("connections: 3"));
    let mut kept: Vec<Client> = (0..3).map(|_| gateway.connect()).collect();
    for client in &mut kept {
        assert_eq!(client.get("/", "").status, 200);
    }
    assert_eq!(gateway.connect().rest(), b"", "one too many is closed");
    let rejected =
        |limit: &str| gateway.metric("splitway_downstream_connections_rejected_total", &[limit]);
    assert_eq!((rejected("total"), rejected("source")), (1.0, 0.0));
    gateway.edit(&config("connections_per_source: 2"));
    drop(kept);
    gateway.await_metric("splitway_downstream_connections", &[], |open| open == 0.0);
    let mut kept: Vec<Client> = (0..2).map(|_| gateway.connect()).collect();
    for client in &mut kept {
        assert_eq!(client.get("/", "").status, 200);
    }
    assert_eq!(gateway.connect().rest(), b"");
    assert_eq!(rejected("source"), 1.0);
    kept.pop();
    gateway.await_metric("splitway_downstream_connections", &[], |open| open == 1.0);
    assert_eq!(gateway.connect().get("/", "").status, 200, "a place is free again");
}

/// A connection from an address of its own, and with it a source of its own.
fn connect_from(source: [u8; 4], gateway: &Gateway) -> std::net::TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&gateway.address.into()).unwrap();
    socket.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    socket.into()
}

#[test]
fn a_trusted_proxy_may_have_any_number_of_connections() {
    let upstream = Upstream::track("stable");
    let services = two_tracks(upstream.address, upstream.address, 0.0, "");
    let gateway = Gateway::start(&format!(
        "trusted_proxies: [127.0.0.1/32]\nlimits: {{ connections_per_source: 1 }}\n{services}"
    ));
    let mut proxy: Vec<Client> = (0..3).map(|_| gateway.connect()).collect();
    assert!(proxy.iter_mut().all(|client| client.get("/", "").status == 200));
    let _first = connect_from([127, 0, 0, 2], &gateway);
    let mut second = connect_from([127, 0, 0, 2], &gateway);
    assert_eq!(second.read(&mut [0]).unwrap_or(0), 0, "a stranger may not");
    assert_eq!(gateway.metric("splitway_downstream_connections_rejected_total", &["source"]), 1.0);
}

#[test]
fn who_holds_the_most_goes_first_when_memory_is_short() {
    let upstream = Upstream::track("stable");
    let services = two_tracks(upstream.address, upstream.address, 0.0, "");
    let gateway = Gateway::start(&format!("limits: {{ memory: 1MiB }}\n{services}"));
    let mut honest = gateway.connect();
    assert_eq!(honest.get("/", "").status, 200);
    let unfinished = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}", "v".repeat(30_000));
    let mut heavy: Vec<std::net::TcpStream> = (0..60)
        .map(|_| {
            let mut client = connect_from([127, 0, 0, 9], &gateway);
            // The last may be refused already.
            let _ = client.write_all(unfinished.as_bytes());
            client
        })
        .collect();
    gateway.await_line(0, "clients hold more than `limits.memory`");
    gateway.await_metric("splitway_memory_held_bytes", &[], |held| held < 1_048_576.0);
    // What it opens while it is refused is closed at once.
    heavy.push(connect_from([127, 0, 0, 9], &gateway));
    let rejected = "splitway_downstream_connections_rejected_total";
    gateway.await_metric(rejected, &["memory"], |count| count > 0.0);
    assert_eq!(honest.get("/", "").status, 200, "others are served");
    assert_eq!(gateway.connect().get("/", "").status, 200, "and may come");
    drop(heavy);
    gateway.await_line(0, "memory is enough again");
    let mut again = connect_from([127, 0, 0, 9], &gateway);
    again.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert!(again.read(&mut [0; 64]).unwrap() > 0);
}

#[test]
fn a_connection_at_its_end_holds_nothing_however_long_its_client_stays() {
    let upstream = Upstream::track("stable");
    let services = two_tracks(upstream.address, upstream.address, 0.0, "");
    let gateway = Gateway::start(&format!("limits: {{ memory: 1MiB }}\n{services}"));
    let unfinished = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}", "v".repeat(30_000));
    let mut heavy: Vec<std::net::TcpStream> = (0..60)
        .map(|_| {
            let mut client = connect_from([127, 0, 0, 9], &gateway);
            let _ = client.write_all(unfinished.as_bytes());
            client
        })
        .collect();
    gateway.await_line(0, "clients hold more than `limits.memory`");
    let ends = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&ends);
        // Something comes of each of them all the time, so none is given up for its silence.
        scope.spawn(|| {
            while !ends.load(std::sync::atomic::Ordering::SeqCst) {
                heavy.iter_mut().for_each(|client| drop(client.write(b"v")));
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
        });
        gateway.await_line(0, "memory is enough again");
    });
}

#[test]
fn a_track_sheds_what_is_beyond_its_limit() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (asked, seen) = std::sync::mpsc::channel();
    let (wait, asked) = (std::sync::Mutex::new(wait), std::sync::Mutex::new(asked));
    let upstream = Upstream::scripted(move |session| {
        while session.request().is_some() {
            asked.lock().unwrap().send(()).unwrap();
            wait.lock().unwrap().recv().unwrap();
            session.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let config = format!(
        "services:\n  - name: api\n    tracks: {{ stable: {{ endpoints: ['{}'], max_in_flight: 1 }} }}\n",
        upstream.address
    );
    let gateway = Gateway::start(&config);
    let mut first = gateway.connect();
    first.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    seen.recv().unwrap();
    assert_eq!(gateway.metric("splitway_in_flight", &[]), 1.0);
    let answer = gateway.connect().get("/", "");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.header("splitway-error"), Some("track is at its limit"));
    assert_eq!(gateway.metric("splitway_shed_total", &[]), 1.0);
    go.send(()).unwrap();
    assert_eq!(first.response().status, 200);
    go.send(()).unwrap();
    assert_eq!(first.get("/", "").status, 200, "a place is free again");
}

#[test]
fn a_slow_upload_that_is_collected_holds_no_place() {
    let upstream = Upstream::scripted(|session| {
        while let Some(head) = session.request() {
            let length = if head.starts_with("POST /small") { 10 } else { 0 };
            session.body(length);
            session.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let config = format!(
        "services:\n  - name: api\n    buffer_requests: 64KiB\n    tracks: {{ stable: {{ \
         endpoints: ['{}'], max_in_flight: 1 }} }}\n",
        upstream.address
    );
    let gateway = Gateway::start(&config);
    let mut slow = gateway.connect();
    slow.send("POST /small HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n01234");
    let mut quick = gateway.connect();
    // An answer is there a little before its place is free.
    let is_free = || {
        gateway.await_metric("splitway_in_flight", &[], |requests| requests == 0.0);
    };
    for _ in 0..3 {
        assert_eq!(quick.get("/", "").status, 200, "the place is free");
        is_free();
    }
    assert_eq!(upstream.requests(), 3, "nothing of the slow one is there");
    slow.send("56789");
    assert_eq!(slow.response().status, 200);
    is_free();
    // The same connection goes on, and in chunks.
    slow.send(
        "POST /chunked HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    );
    assert_eq!(quick.get("/", "").status, 200);
    is_free();
    slow.send("0\r\n\r\n");
    assert_eq!(slow.head().status, 200);
    is_free();
    let seen = String::from_utf8(upstream.bytes()).unwrap();
    assert!(seen.contains("0123456789") && seen.contains("3\r\nabc\r\n0\r\n\r\n"), "{seen}");
    // What is larger passes as it comes.
    let mut large = gateway.connect();
    large.send("POST /large HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n0");
    assert_eq!(large.head().status, 200);
}

#[test]
fn whoever_asks_too_often_is_told_so() {
    let upstream = Upstream::track("stable");
    let limit = "    rate_limit: { per_second: 1, burst: 3, header: x-api-key }\n";
    let file = two_tracks(upstream.address, upstream.address, 0.0, limit);
    let gateway = Gateway::start(&file);
    let mut client = gateway.connect();
    let mut statuses =
        |headers: &str| -> Vec<u16> { (0..5).map(|_| client.get("/", headers).status).collect() };
    let started = std::time::Instant::now();
    for key in ["x-api-key: one\r\n", "x-api-key: two\r\n", ""] {
        let seen = statuses(key);
        // A machine that takes a second for this has earned one more.
        let most = 3 + started.elapsed().as_secs() as usize;
        let good = seen.iter().filter(|status| **status == 200).count();
        assert!((3..=most).contains(&good), "{key} {seen:?}");
        assert!(seen[..3] == [200; 3] && seen.iter().all(|status| [200, 429].contains(status)));
    }
    let limited = gateway.metric("splitway_rate_limited_total", &[]);
    assert!((1.0..=6.0).contains(&limited), "{limited}");
    assert_eq!(upstream.requests() as f64, 15.0 - limited);
}

#[test]
fn fresh_keys_get_nobody_around_the_rate_and_take_nothing_from_others() {
    let upstream = Upstream::track("stable");
    let limit =
        "    rate_limit: { per_second: 1, burst: 4, header: x-api-key, keys_per_source: 16 }\n";
    let gateway = Gateway::start(&two_tracks(upstream.address, upstream.address, 0.0, limit));
    let started = std::time::Instant::now();
    let mut client = gateway.connect();
    let mut good = |count: usize, key: &dyn Fn(usize) -> String| -> usize {
        (0..count).filter(|at| client.get("/", &key(*at)).status == 200).count()
    };
    let fresh = good(400, &|at| format!("x-api-key: fresh{at}\r\n"));
    // Two keys' of this connection, by a second each.
    let most = 8 + 2 * (1 + started.elapsed().as_secs() as usize);
    assert!((8..=most).contains(&fresh), "{fresh} of {most}");
    // Behind the same address, on another connection, a first-time key is served, and no key is too.
    assert_eq!(gateway.connect().get("/", "x-api-key: honest\r\n").status, 200);
    let keyless = good(4, &|_| String::new());
    assert_eq!(keyless, 4);
    // With connections as fresh as its keys it gets what sixteen would.
    let asked =
        (0..200).map(|at| gateway.connect().get("/", &format!("x-api-key: more{at}\r\n")).status);
    let fresh = asked.filter(|status| *status == 200).count();
    let most = 64 + 16 * (1 + started.elapsed().as_secs() as usize);
    assert!(fresh <= most, "{fresh} of {most}");
}
