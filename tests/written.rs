//! What is written down: nothing that a stranger says forges a line or acts on a terminal, files
//! are the gateway's alone, and nobody is recorded as another.

use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value as Json, json};

use crate::support::{Client, Gateway, Receiver, Tested, Upstream, folder, two_tracks, until};

/// Ends a line, begins another, clears the screen, sets a title, by C0 and by C1, turns the
/// direction of reading, and separates lines for some readers.
const ACTS: &str = "x\n2026-01-01T00:00:00Z  INFO forged\r\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}31m\u{202e}\u{2028}\u{7f}\u{feff}";

/// What must not come through: everything in [`ACTS`] that acts.
fn acts(text: &str) -> bool {
    text.chars()
        .any(|char| ACTS.contains(char) && !char.is_ascii_graphic() && !" \n".contains(char))
        || text.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z"))
}

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_splitway"));
    command.args(arguments).env_remove("SPLITWAY_ADMIN").env_remove("SPLITWAY_TOKEN");
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A gateway whose log is text in a file.
struct Plain {
    child: Child,
    folder: tempfile::TempDir,
}

impl Plain {
    /// Starts one with `config` as its file, under `umask`.
    fn start(folder: tempfile::TempDir, umask: &str, config: &str) -> Self {
        let file = folder.path().join("splitway.yaml");
        std::fs::write(&file, config).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let script = format!("umask {umask}; exec \"$0\" run --config \"$1\"");
        let child = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_splitway")])
            .arg(&file)
            .env_remove("RUST_LOG")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let started = Self { child, folder };
        started.await_line("admin API listening");
        started
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn await_line(&self, with: &str) -> String {
        until(with, || self.log().lines().find(|line| line.contains(with)).map(str::to_owned))
    }

    fn address(&self, of: &str) -> SocketAddr {
        let line = self.await_line(of);
        line.split("address=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that answers every request with a status and JSON.
fn answering(code: u16, body: Json) -> Upstream {
    Upstream::scripted(move |session| {
        if session.request().is_some() {
            let body = body.to_string();
            let length = body.len();
            session.send(format!(
                "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: \
                 {length}\r\nconnection: close\r\n\r\n{body}"
            ));
        }
    })
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn no_text_of_another_program_forges_a_line_of_the_log() {
    let says = format!("{ACTS}{}", "A".repeat(5_000));
    let prometheus = answering(400, json!({ "status": "error", "error": says }));
    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    let config = format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0' }}\nstate: \
         memory\nlog: {{ level: 'debug' }}\nservices:\n  - name: api\n    tracks:\n      stable: {{ \
         version: v1, endpoints: ['{}'] }}\n      canary: {{ version: v2, endpoints: ['{}'] }}\n    \
         rollout:\n      stages: [25, 100]\n      mode: off\n      checks: [{{ name: errors, address: \
         'http://{}', query: up, success: result > 0, interval: 1s, error_limit: 0 }}]\n",
        stable.address(),
        canary.address(),
        prometheus.address
    );
    let gateway = Plain::start(folder(), "022", &config);
    let admin = gateway.address("admin API listening").to_string();
    until("a rollout that waits for a person", || {
        let (code, ..) = run(&["resume", "--admin", &admin], &[]);
        (code == Some(0)).then_some(())
    });
    let line = gateway.await_line("no measurement");
    assert!(line.contains("why=\"the query was refused (400): x\\\\n2026"), "{line}");
    assert!(line.chars().count() < 1_000, "{line}");
    // A client's last words, a file's keys.
    let listening =
        gateway.log().lines().find(|line| line.contains(" listening address")).map(str::to_owned);
    let traffic: SocketAddr = listening
        .and_then(|line| line.split("address=").nth(1)?.split(' ').next()?.parse().ok())
        .unwrap();
    let mut client = Client::connect(traffic);
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    let mut goaway = vec![0, 0, 8 + ACTS.len() as u8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];
    goaway.extend_from_slice(ACTS.as_bytes());
    client.send(goaway);
    gateway.await_line("http2 connection ended badly");
    std::fs::write(
        gateway.folder.path().join("splitway.yaml"),
        format!("{config}{}: 1\n", json!(format!("{ACTS}\n"))),
    )
    .unwrap();
    gateway.await_line("reload refused");
    for words in [&["explain"][..], &["status"], &["history"], &["watch", "--once"]] {
        let shown = until("the check's words", || {
            let (_, shown, _) = run(&[words, &["--admin", &admin]].concat(), &[]);
            (words[0] != "watch" || shown.contains("query was refused")).then_some(shown)
        });
        assert!(!acts(&shown), "{words:?}: {shown:?}");
    }
    let log = gateway.log();
    assert!(!acts(&log), "{log:?}");
    assert!(log.lines().all(|line| line.starts_with("20") && line.contains('Z')), "{log}");
    let metrics = run(&["status", "--json", "--admin", &admin], &[]).1;
    assert!(serde_json::from_str::<Json>(&metrics).is_ok());
}

#[test]
fn no_gateway_acts_on_the_terminal_of_its_commands() {
    let hostile = json!({
        "name": ACTS, "service": ACTS, "version": ACTS, "phase": ACTS, "explain": ACTS,
        "detail": ACTS, "history": [{ "version": ACTS, "from": ACTS, "to": ACTS, "actor": ACTS, "why": ACTS }],
        "services": [{
            "name": ACTS,
            "tracks": [{ "name": ACTS, "version": ACTS, "endpoints": [ACTS], "statuses": { "2xx": ACTS } }],
            "rollout": { "explain": ACTS, "phase": ACTS, "outlook": { "headline": ACTS } },
        }],
    });
    let event = json!({ "status": hostile, "points": {} });
    let events = Upstream::scripted(move |session| {
        session.request();
        session.send(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {event}\n\n"
        ));
    });
    let (good, bad) = (answering(200, hostile.clone()), answering(409, hostile.clone()));
    let (good, bad) = (good.address.to_string(), bad.address.to_string());
    let garbage = Upstream::scripted(|session| {
        session.request();
        session.send(format!("{ACTS}\r\n\r\n"));
    });
    let garbage = garbage.address.to_string();
    for words in [
        &["status"][..],
        &["explain", "api"],
        &["history", "api"],
        &["pause", "api"],
        &["set-weight", "api", "5"],
        &["ready"],
        &["watch", "--once"],
        &["status", "--wait", "--timeout", "1s"],
    ] {
        for admin in [&good, &bad, &garbage] {
            let (code, shown, said) = run(&[words, &["--admin", admin]].concat(), &[]);
            assert!(!acts(&shown) && !acts(&said), "{words:?}: {shown:?} {said:?}");
            assert!(code == Some(1) || *admin == good, "{words:?} at {admin}: {code:?} {said}");
        }
    }
    let (code, shown, said) =
        run(&["watch", "--once", "--admin", &events.address.to_string()], &[]);
    assert!(code == Some(0) && !acts(&shown), "{shown:?} {said}");
    // For machines it is what it was, and still acts on no terminal.
    let (_, shown, _) = run(&["status", "--json", "--admin", &good], &[]);
    assert!(!acts(&shown), "{shown:?}");
    assert_eq!(serde_json::from_str::<Json>(&shown).unwrap(), hostile);
}

#[test]
fn no_file_acts_on_the_terminal_of_the_commands() {
    let place = folder();
    let name = |file: &str| place.path().join(file).display().to_string();
    let text = json!(ACTS);
    std::fs::write(name("a.yaml"), format!("services: [{{ {text}: {text} }}]\n")).unwrap();
    std::fs::write(
        name("manifest.yaml"),
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{ name: {text}, namespace: \
             {text}, annotations: {{ nginx.ingress.kubernetes.io/canary: {text}, {text}: {text} }} \
             }}\nspec: {{ rules: [{{ host: {text}, http: {{ paths: [{{ path: {text}, pathType: Prefix, \
             backend: {{ service: {{ name: {text}, port: {{ number: 80 }} }} }} }}] }} }}] }}\n"
        ),
    )
    .unwrap();
    std::fs::write(name("evidence"), format!("{{ {text}: 1 }}\n{ACTS}\n")).unwrap();
    for words in [
        vec!["check".to_owned(), name("a.yaml")],
        vec!["check".to_owned(), "--json".to_owned(), name("a.yaml")],
        vec!["check".to_owned(), ACTS.to_owned()],
        vec!["run".to_owned(), "--config".to_owned(), name("a.yaml")],
        vec!["import".to_owned(), name("manifest.yaml")],
        vec!["import".to_owned(), "--allow-partial".to_owned(), name("manifest.yaml")],
        vec!["import".to_owned(), "--json".to_owned(), name("manifest.yaml")],
        vec!["replay".to_owned(), name("evidence")],
        vec!["status".to_owned(), "--admin".to_owned(), ACTS.to_owned()],
    ] {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (_, shown, said) = run(&words, &[]);
        assert!(!(shown.is_empty() && said.is_empty()), "{words:?}");
        assert!(!acts(&shown) && !acts(&said), "{words:?}: {shown:?} {said:?}");
    }
}

#[test]
fn no_request_forges_a_line_of_the_access_log() {
    for form in ["json", "combined", "'{client} {host} {path} {request.referer} {request.x-a}'"] {
        let upstream = Upstream::track("stable");
        let services = two_tracks(upstream.address, upstream.address, 0.0, "");
        let mut gateway = Gateway::start(&format!("access: {form}\n{services}"));
        let long = "a".repeat(10_000);
        let mut client = gateway.connect();
        for fields in [
            "referer: \u{9b}31m\u{2028}\u{202e}\u{feff}é\r\n",
            "referer: x\" 200 0 \"-\" \"y\\\r\nx-a: \" - - [01/Jan/2026\r\n",
            &format!("x-a: {long}\r\nreferer: {long}\r\n"),
        ] {
            assert_eq!(client.get(&format!("/{}?\"\\", &long[..9_000]), fields).status, 200);
        }
        gateway.await_metric("http_requests_total", &[], |count| count == 3.0);
        gateway.signal("TERM");
        gateway.wait();
        let output = gateway.output();
        assert_eq!(output.lines().count(), 3, "{output}");
        assert!(!acts(&output), "{output:?}");
        assert!(output.lines().all(|line| line.len() < 40_000 && line.contains('…')));
        if form == "combined" {
            assert!(
                output.contains("\"\\xC2\\x9B31m\\xE2\\x80\\xA8\\xE2\\x80\\xAE\\xEF\\xBB\\xBFé\"")
            );
            assert!(output.lines().all(|line| line.matches('"').count() == 6), "{output}");
        }
    }
}

#[test]
fn a_command_at_a_wrong_address_says_so() {
    let (upstream, ready) = (Upstream::track("stable"), Upstream::track("ready"));
    let gateway = Gateway::start(&two_tracks(upstream.address, upstream.address, 0.0, ""));
    let traffic = gateway.address.to_string();
    for words in
        [&["status"][..], &["explain"], &["watch"], &["watch", "--once"], &["ready"], &["pause"]]
    {
        let (code, _, said) = run(&[words, &["--admin", &traffic]].concat(), &[]);
        let says_so = said.contains("is no admin API") && said.contains("`admin.address`");
        assert!(code == Some(1) && says_so, "{words:?}: {code:?} {said}");
    }
    // What answers 200 to everything is not ready.
    let (code, _, said) = run(&["ready", "--admin", &ready.address.to_string()], &[]);
    assert!(code == Some(1) && said.contains("is no admin API"), "{said}");
    for (admin, says) in [
        ("127.0.0.1", "write HOST:PORT, as in 127.0.0.1:9900"),
        ("https://127.0.0.1:9900", "write HOST:PORT"),
        (&Upstream::refusing().to_string(), "does the gateway run"),
        ("/nowhere/admin.sock", "no answer from the admin API at /nowhere/admin.sock"),
    ] {
        let (code, _, said) = run(&["status", "--admin", admin], &[]);
        assert!(code == Some(1) && said.contains(says), "{admin}: {said}");
    }
    let (code, shown, said) =
        run(&["status"], &[("SPLITWAY_ADMIN", &format!("http://{}/", gateway.admin))]);
    assert!(code == Some(0) && shown.contains("api"), "{said}");
}

/// A rollout with its journal in `state`, and a socket file beside it.
fn journalled(place: &Path, stable: &Tested, canary: &Tested) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]\nadmin: {{ address: '127.0.0.1:0', socket: \
         '{0}/admin.sock' }}\nstate: {{ directory: '{0}/state' }}\nservices:\n  - name: api\n    \
         tracks:\n      stable: {{ version: v1, endpoints: ['{1}'] }}\n      canary: {{ version: v2, \
         endpoints: ['{2}'] }}\n    rollout: {{ stages: [5, 100], min: 10m }}\n",
        place.display(),
        stable.address(),
        canary.address()
    )
}

#[test]
fn files_are_closed_to_others_whatever_the_umask_and_what_was_open_is_closed() {
    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    for umask in ["000", "022", "077"] {
        let place = folder();
        let config = journalled(place.path(), &stable, &canary);
        let gateway = Plain::start(place, umask, &config);
        let path = gateway.folder.path().to_owned();
        let admin = gateway.address("admin API listening").to_string();
        until("a line of the journal", || {
            let (code, ..) = run(&["set-weight", "5", "--admin", &admin], &[]);
            (code == Some(0)).then_some(())
        });
        let modes =
            ["state", "state/journal.jsonl", "admin.sock"].map(|name| mode(&path.join(name)));
        assert_eq!(modes, [0o700, 0o600, 0o600], "umask {umask}");
        assert!(!gateway.log().contains("closed to others"), "{}", gateway.log());
    }
    // As versions before this one left it.
    let place = folder();
    let state = place.path().join("state");
    std::fs::create_dir(&state).unwrap();
    for name in ["journal.jsonl", "journal.1.jsonl"] {
        std::fs::write(state.join(name), "").unwrap();
        std::fs::set_permissions(state.join(name), PermissionsExt::from_mode(0o644)).unwrap();
    }
    std::fs::set_permissions(&state, PermissionsExt::from_mode(0o755)).unwrap();
    let config = journalled(place.path(), &stable, &canary);
    let gateway = Plain::start(place, "022", &config);
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join("journal.jsonl")), 0o600);
    assert_eq!(mode(&state.join("journal.1.jsonl")), 0o600);
    assert_eq!(gateway.log().matches("closed to others").count(), 3, "{}", gateway.log());
}

#[test]
fn a_journal_that_is_a_link_is_not_followed() {
    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    for is_directory in [false, true] {
        let place = folder();
        let path = place.path().to_owned();
        std::fs::create_dir(path.join("real")).unwrap();
        let precious = path.join("real/journal.jsonl");
        std::fs::write(&precious, "precious").unwrap();
        if is_directory {
            symlink(path.join("real"), path.join("state")).unwrap();
        } else {
            std::fs::create_dir(path.join("state")).unwrap();
            symlink(&precious, path.join("state/journal.jsonl")).unwrap();
        }
        let config = journalled(&path, &stable, &canary);
        let gateway = Plain::start(place, "022", &config);
        let line = gateway.await_line("no journal: nothing rises");
        assert!(line.contains("is a symbolic link"), "{line}");
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
    }
}

#[test]
fn a_handover_cannot_be_stopped_by_who_guesses_its_folder() {
    let upstream = Upstream::track("stable");
    let (place, temporary) = (folder(), folder());
    let variables = [
        ("TMPDIR", temporary.path().to_str().unwrap()),
        ("XDG_RUNTIME_DIR", ""),
        ("RUNTIME_DIRECTORY", ""),
    ];
    let services = two_tracks(upstream.address, upstream.address, 0.0, "");
    let mut gateway = Gateway::start_in(place, "workers: 1\n", &services, &variables);
    std::fs::create_dir(temporary.path().join(format!("splitway-{}", gateway.pid()))).unwrap();
    gateway.hand_over();
    assert_eq!(gateway.connect().get("/", "").status, 200);
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn nobody_is_recorded_as_another() {
    let (stable, canary) = (Tested::new("stable"), Tested::new("canary"));
    let receiver = Receiver::new();
    let place = folder();
    let socket = place.path().join("admin.sock");
    let config = format!(
        "admin: {{ address: '127.0.0.1:0', socket: '{}', tokens: {{ operate: [first-of-all-the-tokens, \
         second-of-all-tokens] }} }}\nnotifications: [{{ name: team, url: 'http://{}/', format: json }}]\n{}",
        socket.display(),
        receiver.address(),
        two_tracks(
            stable.address(),
            canary.address(),
            0.0,
            "    rollout: { stages: [5, 100], min: 10m }\n"
        )
    );
    let gateway = Gateway::start(&config);
    let admin = gateway.admin.to_string();
    let token = |token| [("SPLITWAY_TOKEN", token)];
    let (first, second) = (token("first-of-all-the-tokens"), token("second-of-all-tokens"));
    let local = socket.display().to_string();
    let user = std::fs::metadata(&socket).unwrap().uid();
    until("the first stage", || {
        run(&["status", "--admin", &local], &[]).1.contains("hold at 5 %").then_some(())
    });
    // printf %s TOKEN | sha256sum
    let (one, other) = ("token:23072a56", "token:244fb194");
    for (admin, variables, says, actor) in [
        (&admin, &first[..], "ann", format!("{one} (says ann)")),
        (&admin, &second[..], "ann", format!("{other} (says ann)")),
        (&admin, &second[..], "judge", format!("{other} (says judge)")),
        (&admin, &second[..], one, format!("{other} (says {one})")),
        (&admin, &second[..], "x) token:1 (", format!("{other} (says \"x) token:1 (\")")),
        (&local, &[][..], "root", format!("user:{user} (says root)")),
    ] {
        let before = receiver.received().len();
        for words in [&["set-weight", "20"][..], &["resume"]] {
            let (code, _, said) =
                run(&[words, &["--actor", says, "--admin", admin]].concat(), variables);
            assert_eq!(code, Some(0), "{said}");
        }
        let (_, history, _) = run(&["history", "--json", "--admin", &local], &[]);
        let history: Json = serde_json::from_str(&history).unwrap();
        let last = history["history"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(last["actor"], *actor, "{says}");
        assert_eq!(last["why"], format!("resume by {actor}"));
        let told = receiver.await_one(|one| one.body["text"] == format!("resume by {actor}"));
        assert_eq!(told.body["facts"]["actor"], actor);
        assert!(receiver.received().len() > before);
    }
    let journal = std::fs::read_to_string(gateway.folder().join("state/journal.jsonl")).unwrap();
    assert!(journal.contains(&format!("\"{one} (says ann)\"")), "{journal}");
    // No line of it, nor anything else that is told, holds a token.
    assert!(!journal.contains("of-all"));
}
