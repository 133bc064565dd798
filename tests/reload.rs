//! Weights and everything else change while requests flow, and nothing is dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{Client, Gateway, StopOnDrop, Turn, Upstream, two_tracks};

#[test]
fn a_reload_every_20_ms_under_load_fails_no_request() {
    let _turn = Turn::take();
    let tracks = [Upstream::track("stable"), Upstream::track("canary")];
    let file = |weight: f64| two_tracks(tracks[0].address, tracks[1].address, weight, "");
    let gateway = Gateway::start(&file(0.0));
    // Which of 0 % and 100 % is in force: 0, 1, or 2 while it changes.
    let allowed = Arc::new(AtomicUsize::new(0));
    let changes = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let answers = Arc::new(Mutex::new(HashMap::<String, usize>::new()));
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                let mut client = gateway.connect();
                let mut tracks = HashMap::<String, usize>::new();
                while !stop.load(Ordering::SeqCst) {
                    let before = (allowed.load(Ordering::SeqCst), changes.load(Ordering::SeqCst));
                    let answer = client.get("/", "");
                    let after = (allowed.load(Ordering::SeqCst), changes.load(Ordering::SeqCst));
                    assert_eq!(answer.status, 200);
                    if before == after && before.0 < 2 {
                        let expected = ["stable", "canary"][before.0];
                        assert_eq!(answer.track(), expected, "the config of that moment");
                    }
                    *tracks.entry(answer.track().to_owned()).or_default() += 1;
                }
                for (track, count) in tracks {
                    *answers.lock().unwrap().entry(track).or_default() += count;
                }
            });
        }
        // Whatever fails below, the clients end.
        let _ends = StopOnDrop(&stop);
        // One connection for all: a lost handshake would cost seconds of the ten.
        let mut admin = Client::connect(gateway.admin);
        let started = Instant::now();
        let mut answered = Instant::now();
        let mut reloads = 0;
        while reloads <= 50 || started.elapsed() < Duration::from_secs(10) {
            let next = (reloads + 1) % 2;
            changes.fetch_add(1, Ordering::SeqCst);
            allowed.store(2, Ordering::SeqCst);
            gateway.replace(&file(next as f64 * 100.0));
            // The admin API closes connections that are idle for 10 s, and a busy disk has been
            // seen to take as long for a rename.
            if answered.elapsed() > Duration::from_secs(2) {
                eprintln!("the file took {:?} to be replaced", answered.elapsed());
                admin = Client::connect(gateway.admin);
            }
            admin.send(
                "POST /api/v1/reload HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n",
            );
            assert_eq!(admin.response().status, 200);
            answered = Instant::now();
            allowed.store(next, Ordering::SeqCst);
            reloads += 1;
            // The pace is part of what is tested.
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let answers = answers.lock().unwrap();
    assert!(answers["stable"] > 100 && answers["canary"] > 100, "{answers:?}");
    let answered = (answers["stable"] + answers["canary"]) as f64;
    gateway.await_metric("http_requests_total", &["status=\"200\""], |count| count == answered);
    gateway.await_metric("http_requests_total", &[], |count| count == answered);
}

#[test]
fn a_saved_file_is_noticed_by_itself() {
    let tracks = [Upstream::track("stable"), Upstream::track("canary")];
    let file = |weight: f64| two_tracks(tracks[0].address, tracks[1].address, weight, "");
    let gateway = Gateway::start(&file(0.0));
    let mut client = gateway.connect();
    assert_eq!(client.get("/", "").track(), "stable");
    gateway.edit(&file(100.0));
    assert_eq!(client.get("/", "").track(), "canary");
    gateway.await_metric("splitway_weight_ratio", &["canary"], |value| value == 1.0);
    // Written in place, as a careless editor does.
    let seen = gateway.log_len();
    let text = std::fs::read_to_string(gateway.path()).unwrap();
    std::fs::write(
        gateway.path(),
        text.replace("canary: 100", "canary: 30").replace("stable: 0", "stable: 70"),
    )
    .unwrap();
    gateway.await_line(seen, "configuration reloaded");
    gateway.await_metric("splitway_weight_ratio", &["canary"], |value| value == 0.3);
}

#[test]
fn a_configmap_swap_is_noticed() {
    // A ConfigMap volume: splitway.yaml -> ..data/splitway.yaml, ..data -> ..time; an update makes
    // a new folder and renames a new ..data over the old one.
    let tracks = [Upstream::track("stable"), Upstream::track("canary")];
    let file = |weight: f64| two_tracks(tracks[0].address, tracks[1].address, weight, "");
    let gateway = Gateway::start(&file(0.0));
    let folder = gateway.path().parent().unwrap().to_owned();
    let text = std::fs::read_to_string(gateway.path()).unwrap();
    let publish = |version: &str, text: &str| {
        std::fs::create_dir(folder.join(version)).unwrap();
        std::fs::write(folder.join(version).join("splitway.yaml"), text).unwrap();
        std::os::unix::fs::symlink(version, folder.join("..data_tmp")).unwrap();
        std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    publish("..1", &text);
    std::os::unix::fs::symlink("..data/splitway.yaml", folder.join("link")).unwrap();
    std::fs::rename(folder.join("link"), gateway.path()).unwrap();
    let seen = gateway.log_len();
    publish("..2", &text.replace("canary: 0", "canary: 100").replace("stable: 100", "stable: 0"));
    gateway.await_line(seen, "configuration reloaded");
    assert_eq!(gateway.connect().get("/", "").track(), "canary");
}

#[test]
fn a_bad_file_keeps_the_old_configuration_serving() {
    let tracks = [Upstream::track("stable"), Upstream::track("canary")];
    let file = |weight: f64| two_tracks(tracks[0].address, tracks[1].address, weight, "");
    let gateway = Gateway::start(&file(0.0));
    let mut client = gateway.connect();
    let seen = gateway.log_len();
    gateway.replace(&file(0.0).replace("stable: 100", "stable: 99"));
    let (_, line) = gateway.await_line(seen, "reload refused");
    assert!(line.contains("splitway.yaml:11:14: ") && line.contains("sums to 99"), "{line}");
    assert!(line.contains("services[0].weights"), "{line}");
    assert_eq!(client.get("/", "").track(), "stable");
    gateway.await_metric("splitway_config_last_reload_successful", &[], |value| value == 0.0);

    let mut admin = Client::connect(gateway.admin);
    admin.send("POST /api/v1/reload HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
    let answer = admin.response();
    assert_eq!(answer.status, 422);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert!(answer.text().contains("sums to 99"), "{}", answer.text());

    gateway.edit(&file(100.0));
    assert_eq!(client.get("/", "").track(), "canary");
    gateway.await_metric("splitway_config_last_reload_successful", &[], |value| value == 1.0);
}

#[test]
fn sighup_reloads() {
    let tracks = [Upstream::track("stable"), Upstream::track("canary")];
    let file = two_tracks(tracks[0].address, tracks[1].address, 0.0, "");
    let gateway = Gateway::start(&file);
    let seen = gateway.log_len();
    gateway.signal("HUP");
    gateway.await_line(seen, "configuration reloaded");
}

#[test]
fn counters_and_unchanged_endpoints_survive_a_reload() {
    let tracks = [Upstream::track("stable"), Upstream::track("canary"), Upstream::track("canary")];
    let file = |canary: usize, weight| {
        let services = two_tracks(tracks[0].address, tracks[canary].address, weight, "");
        // However long a busy disk takes for the file, the pool does not age meanwhile.
        format!("upstream: {{ idle_age: 5m }}\n{services}")
    };
    let gateway = Gateway::start_with("workers: 1\n", &file(1, 0.0));
    let mut client = gateway.connect();
    for _ in 0..10 {
        client.get("/", "");
    }
    gateway.edit(&file(2, 0.0));
    for _ in 0..10 {
        client.get("/", "");
    }
    assert_eq!(tracks[0].connections(), 1, "the pool was kept");
    gateway.await_metric("http_requests_total", &["stable"], |value| value == 20.0);
    gateway.edit(&file(2, 100.0));
    assert_eq!(client.get("/", "").track(), "canary");
    assert_eq!((tracks[1].connections(), tracks[2].connections()), (0, 1));
}
