//! The admin API's socket file: who may open it may act.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use crate::support::{Client, Gateway, Tested, folder, tools, until};

/// Two versions, tokens for the network, and a socket file.
fn config(socket: &Path, stable: &Tested, canary: &Tested) -> String {
    format!(
        "admin: {{ address: '127.0.0.1:0', socket: '{}', tokens: {{ operate: \
         [0123456789abcdef] }} }}\nservices:\n  - name: api\n    tracks:\n      stable: {{ version: \
         v1, endpoints: ['{}'] }}\n      canary: {{ version: v2, endpoints: ['{}'] }}\n    \
         rollout: {{ stages: [5, 100], min: 10m }}\n",
        socket.display(),
        stable.address(),
        canary.address()
    )
}

fn splitway(socket: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_splitway"))
        .args(arguments)
        .env("SPLITWAY_ADMIN", socket)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap(), said + &String::from_utf8_lossy(&output.stderr))
}

#[test]
fn whoever_may_open_the_socket_may_act_without_a_token() {
    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    let place = folder();
    let socket = place.path().join("admin.sock");
    // What a crash leaves is replaced.
    drop(UnixListener::bind(&socket).unwrap());
    let mut gateway = Gateway::start(&config(&socket, &stable, &canary));
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut client = Client::connect(gateway.admin);
    client.send("GET /api/v1/status HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(client.response().status, 401, "the network needs its token all the same");
    let is_held = || splitway(&socket, &["status"]).1.contains("hold at 5 %").then_some(());
    until("the first stage", is_held);
    let (code, said) = splitway(&socket, &["set-weight", "20", "--actor", "ann"]);
    assert_eq!((code, said.as_str()), (0, "api: v2 is paused at 20 %\n"));
    let (code, said) = splitway(&socket, &["watch", "--once"]);
    assert!(code == 0 && said.contains("paused at 20 %"), "{said}");
    if let Some(curl) = tools::program("curl", "curl") {
        let output = Command::new(curl)
            .args(["-s", "--unix-socket"])
            .arg(&socket)
            .arg("http://splitway/api/v1/services/api/explain")
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("paused at 20 %"));
    }
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code(), Some(0));
    assert!(!socket.exists(), "the file goes with its gateway");
}

#[test]
fn a_socket_file_is_taken_from_nobody_but_a_predecessor() {
    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    let place = folder();
    let socket = place.path().join("admin.sock");
    let text = config(&socket, &stable, &canary);
    let mut gateway = Gateway::start(&text);
    let second = |socket: &Path| {
        let file = place.path().join("second.yaml");
        let text = config(socket, &stable, &canary);
        std::fs::write(&file, format!("listeners: [{{ address: '127.0.0.1:0' }}]\n{text}"))
            .unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_splitway"))
            .args(["run", "--config"])
            .arg(&file)
            .env("XDG_STATE_HOME", place.path().join("state"))
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = second(&socket);
    assert!(code == Some(1) && said.contains("is the gateway running already?"), "{said}");
    let plain = place.path().join("plain");
    std::fs::write(&plain, "mine").unwrap();
    let (code, said) = second(&plain);
    assert!(code == Some(1) && said.contains("is no socket"), "{said}");
    assert_eq!(std::fs::read_to_string(&plain).unwrap(), "mine");
    gateway.hand_over();
    let (code, said) = splitway(&socket, &["status"]);
    assert!(code == 0 && said.contains("v2"), "the successor answers: {said}");
}
