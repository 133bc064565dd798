//! SIGUSR2: a new binary takes the sockets over, and no client notices.

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::two_tracks;
use crate::support::{Client, Gateway, Load, PATIENCE, StopOnDrop, Tested, Turn, Upstream, folder};

#[test]
fn a_handover_under_load_fails_no_request() {
    let _turn = Turn::take();
    let upstream = Upstream::track("stable");
    let mut gateway = Gateway::start(&two_tracks(upstream.address, upstream.address, 0.0, ""));
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let address = gateway.address;
    std::thread::scope(|scope| {
        let (stop, answered) = (&stop, &answered);
        let one = move |keeps: bool| {
            let mut client = Client::connect(address);
            while !stop.load(Ordering::SeqCst) {
                let answer = client.try_get("/", "").expect("no request is lost");
                assert_eq!(answer.status, 200);
                answered.fetch_add(1, Ordering::SeqCst);
                if !keeps || answer.header("connection") == Some("close") {
                    client = Client::connect(address);
                }
            }
        };
        let clients: Vec<_> =
            (0..16).map(|number| scope.spawn(move || one(number % 2 == 0))).collect();
        let _ends = StopOnDrop(stop);
        let some_more = || {
            let until = answered.load(Ordering::SeqCst) + 500;
            while answered.load(Ordering::SeqCst) < until {
                assert!(clients.iter().all(|client| !client.is_finished()));
                std::thread::yield_now();
            }
        };
        some_more();
        // A successor hands over like the first.
        for _ in 0..3 {
            gateway.hand_over();
            some_more();
        }
    });
    assert_eq!(gateway.admin_get("/readyz").status, 200, "the successor has the admin API too");
    // What stopped is what the last of them ends with, too.
    let last = gateway.pid();
    gateway.signal("TERM");
    gateway.await_end(last);
}

#[test]
fn who_cannot_take_over_leaves_the_old_one_serving() {
    let upstream = Upstream::track("stable");
    let good = two_tracks(upstream.address, upstream.address, 0.0, "");
    let gateway = Gateway::start(&good);
    let mut client = gateway.connect();
    assert_eq!(client.get("/", "").status, 200);
    let seen = gateway.log_len();
    gateway.replace("services: 7\n");
    gateway.await_line(seen, "reload refused");
    gateway.signal("USR2");
    let (_, line) = gateway.await_line(seen, "no successor; this process serves on");
    assert!(line.contains("ended before it was ready (exit status: 2)"), "{line}");
    assert_eq!(client.get("/", "").status, 200, "the connection is kept");
    assert_eq!(gateway.connect().get("/", "").status, 200);
    gateway.edit(&two_tracks(upstream.address, upstream.address, 10.0, ""));
}

#[test]
fn a_rollout_goes_on_in_the_successor() {
    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    let rollout = "    rollout: { stages: [25, 50, 100], min: 1h }\n";
    let mut gateway = Gateway::start(&two_tracks(stable.address(), canary.address(), 0.0, rollout));
    gateway.await_phase("progressing");
    let load = Load::start(gateway.address, 300, |_| String::new());
    let judged = |gateway: &Gateway| {
        gateway.rollout("api")["run_evidence"]["canary"]["requests"].as_u64().unwrap()
    };
    gateway.await_rollout("api", |one| {
        one["run_evidence"]["canary"]["requests"].as_u64().unwrap() > 100
    });
    let before = judged(&gateway);
    gateway.hand_over();
    gateway.await_phase("progressing");
    assert_eq!(gateway.rollout("api")["weight"], 25.0);
    assert!(judged(&gateway) >= before, "no evidence is forgotten");
    gateway.await_rollout("api", |one| {
        one["run_evidence"]["canary"]["requests"].as_u64().unwrap() > before + 100
    });
    assert_eq!(load.failed(), 0);
}

/// What systemd does with a `.socket` unit: the sockets are descriptors 3 and up, and readiness is
/// told by a datagram.
#[test]
fn sockets_of_a_service_manager_are_used_as_they_are() {
    let upstream = Upstream::track("stable");
    let folder = folder();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // A connection from before it started: it waits in the socket's queue.
    let mut early = Client::connect(address);
    early.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let config = folder.path().join("splitway.yaml");
    let services = two_tracks(upstream.address, upstream.address, 0.0, "");
    let text = format!(
        "listeners: [{{ address: '{address}' }}]\nadmin: {{ address: '127.0.0.1:0' }}\n\
         state: memory\n{services}"
    );
    std::fs::write(&config, text).unwrap();
    let notified = folder.path().join("notify");
    let readiness = UnixDatagram::bind(&notified).unwrap();
    readiness.set_read_timeout(Some(PATIENCE)).unwrap();
    // A shell puts the descriptor where the protocol wants it, and says for which pid it is.
    let script = format!(
        "exec 3<&0; exec env LISTEN_FDS=1 LISTEN_PID=$$ NOTIFY_SOCKET='{}' {} run --config '{}'",
        notified.display(),
        env!("CARGO_BIN_EXE_splitway"),
        config.display(),
    );
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut message = [0; 256];
    let length = readiness.recv(&mut message).unwrap();
    assert_eq!(&message[..length], b"READY=1\n");
    assert_eq!(early.response().status, 200);
    assert_eq!(Client::connect(address).get("/", "").status, 200);
    child.kill().unwrap();
    child.wait().unwrap();
}
