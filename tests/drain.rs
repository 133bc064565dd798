//! SIGTERM: what is under way is finished, then the process ends well.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use crate::support::{Client, Gateway, StopOnDrop, Turn, Upstream, two_tracks};

#[test]
fn a_request_under_way_is_finished_and_idle_connections_are_closed() {
    let (asked, seen) = channel();
    let (go, wait) = channel::<()>();
    let (asked, wait) = (Mutex::new(asked), Mutex::new(wait));
    let upstream = Upstream::scripted(move |session| {
        while let Some(request) = session.request() {
            if request.contains("/slow") {
                asked.lock().unwrap().send(()).unwrap();
                wait.lock().unwrap().recv().unwrap();
            }
            session.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone");
        }
    });
    // One worker, so that what closes the idle connection has reached the other one, too.
    let services = two_tracks(upstream.address, upstream.address, 0.0, "");
    let mut gateway = Gateway::start_with("workers: 1\n", &services);
    let mut idle = gateway.connect();
    assert_eq!(idle.get("/", "").status, 200);
    let mut at_work = gateway.connect();
    assert_eq!(at_work.get("/", "").header("connection"), None);
    let mut slow = gateway.connect();
    slow.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
    seen.recv().unwrap();
    gateway.signal("TERM");
    gateway.await_line(0, "draining");
    // Its request may be on its way when the signal comes: it is answered, and told.
    loop {
        let answer = at_work.get("/", "");
        assert_eq!(answer.status, 200);
        if answer.header("connection") == Some("close") {
            break;
        }
    }
    assert_eq!(idle.rest(), b"", "an idle connection is closed after a while");
    assert_eq!(gateway.admin_get("/readyz").status, 503);
    go.send(()).unwrap();
    let answer = slow.response();
    assert_eq!((answer.status, answer.text().as_str()), (200, "done"));
    assert_eq!(answer.header("connection"), Some("close"));
    // Clients that close when they are told to: the gateway waits for those that do not.
    drop((idle, at_work, slow));
    assert_eq!(gateway.wait().code(), Some(0));
    let log = gateway.output();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    assert_eq!(last["path"], "/slow", "{log}");
    assert_eq!(last["track"], "stable");
    assert_eq!(last["status"], 200);
    assert_eq!(last["endpoint"], upstream.address.to_string());
}

#[test]
fn a_load_that_moves_when_it_is_not_ready_loses_nothing() {
    let _turn = Turn::take();
    let upstream = Upstream::track("stable");
    let services = two_tracks(upstream.address, upstream.address, 0.0, "");
    let mut leaving = Gateway::start(&format!("drain_delay: 1s\n{services}"));
    let staying = Gateway::start(&services);
    // What a balancer in front does: it asks for the readiness, and sends elsewhere when told so.
    let target = Mutex::new(leaving.address);
    let stop = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let one = |keeps: bool| {
            let mut client = Client::connect(*target.lock().unwrap());
            while !stop.load(Ordering::SeqCst) {
                let answer = client.try_get("/", "").expect("no request is lost");
                assert_eq!(answer.status, 200);
                answered.fetch_add(1, Ordering::SeqCst);
                if !keeps || answer.header("connection") == Some("close") {
                    client = Client::connect(*target.lock().unwrap());
                }
            }
        };
        let clients = [true, true, true, true, true, false, false, false];
        let clients = clients.map(|keeps| scope.spawn(move || one(keeps)));
        let _ends = StopOnDrop(&stop);
        while answered.load(Ordering::SeqCst) < 500 {
            assert!(clients.iter().all(|client| !client.is_finished()));
            std::thread::yield_now();
        }
        leaving.signal("TERM");
        while leaving.admin_get("/readyz").status == 200 {
            std::thread::yield_now();
        }
        *target.lock().unwrap() = staying.address;
        assert_eq!(leaving.wait().code(), Some(0));
        let until = answered.load(Ordering::SeqCst) + 200;
        while answered.load(Ordering::SeqCst) < until {
            assert!(clients.iter().all(|client| !client.is_finished()));
            std::thread::yield_now();
        }
    });
    assert!(staying.metric("http_requests_total", &["status=\"200\""]) > 0.0);
}

#[test]
fn a_drain_has_a_deadline() {
    let (asked, seen) = channel();
    let asked = Mutex::new(asked);
    let upstream = Upstream::scripted(move |session| {
        session.request();
        asked.lock().unwrap().send(()).unwrap();
        session.rest();
    });
    let file = two_tracks(upstream.address, upstream.address, 0.0, "");
    let mut gateway = Gateway::start(&format!("drain: 300ms\n{file}"));
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    seen.recv().unwrap();
    gateway.signal("TERM");
    gateway.await_line(0, "drain deadline passed");
    assert_eq!(gateway.wait().code(), Some(0));
}
