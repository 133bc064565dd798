//! SIGTERM: what is under way is finished, then the process ends well.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use crate::support::{Gateway, Upstream, two_tracks};

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
    let mut slow = gateway.connect();
    slow.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
    seen.recv().unwrap();
    gateway.signal("TERM");
    gateway.await_line(0, "draining");
    assert_eq!(idle.rest(), b"", "an idle connection is closed");
    assert_eq!(gateway.admin_get("/readyz").status, 503);
    go.send(()).unwrap();
    let answer = slow.response();
    assert_eq!((answer.status, answer.text().as_str()), (200, "done"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(gateway.wait().code(), Some(0));
    let log = gateway.output();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert_eq!(lines[1]["path"], "/slow");
    assert_eq!(lines[1]["track"], "stable");
    assert_eq!(lines[1]["status"], 200);
    assert_eq!(lines[1]["endpoint"], upstream.address.to_string());
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
