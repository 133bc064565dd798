//! Guards by path hold in every spelling: held against what nginx guards, and against what servers
//! that read paths loosely would show.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};

use crate::support::{Gateway, Upstream, folder, tools, until};

/// Spellings, and how a gateway that guards `/admin` with 403 answers them.
pub const SPELLINGS: &[(&str, u16)] = &[
    // As people write them.
    ("/admin", 403),
    ("/admin/", 403),
    ("/admin/x", 403),
    ("/admin?x=1", 403),
    ("/admin/?/../../x", 403),
    ("/", 200),
    ("/x", 200),
    ("/x/admin", 200),
    ("/x?/../admin", 200),
    ("/Admin", 200),
    ("/adm/in", 200),
    ("/caf%C3%A9", 200),
    ("/a%20b", 200),
    ("/a+b", 200),
    ("/100%25", 200),
    ("/@me/a:b,c=d&e!$'()*~-._", 200),
    ("/a;jsessionid=1?x", 200),
    ("/v1.2/x.html", 200),
    // Escapes of plain characters.
    ("/%61dmin", 403),
    ("/%61%64%6D%69%6E", 403),
    ("/%61%64%6d%69%6e/x", 403),
    ("/adm%69n?x", 403),
    ("/x/%2e%2e/admin", 403),
    ("/x/%2E%2e/%61dmin", 403),
    ("/x/.%2E/admin", 403),
    ("/%2e/admin", 403),
    ("/%63af%c3%a9", 200),
    ("/%7e", 200),
    // Dots and slashes.
    ("//admin", 403),
    ("///admin//x", 403),
    ("/./admin", 403),
    ("/.//admin", 403),
    ("//./admin", 403),
    ("/x/../admin", 403),
    ("/x//../admin", 403),
    ("/x/y/../../admin/.", 403),
    ("/admin/../admin", 403),
    ("/admin/..", 200),
    ("/admin/../x", 200),
    ("/%61dmin/../x", 200),
    ("/../admin", 403),
    ("/../../admin", 403),
    ("/x/.../admin", 200),
    // Parameters, and what some servers take for the end of a name.
    ("/admin;a=b", 403),
    ("/admin;a=b/x", 403),
    ("/admin;", 403),
    ("/;a/admin", 403),
    ("/admin%3Ba=b", 403),
    ("/admin%3bx/y", 403),
    ("/admin%3Fx", 403),
    ("/admin%23", 403),
    ("/admin.", 403),
    ("/admin%20", 403),
    ("/admin%20/x", 403),
    ("/x;/../admin", 403),
    ("/x/..;/admin", 400),
    ("/x/..;a=b/admin", 400),
    ("/x/.;/../admin", 400),
    ("/x/%2e%2e;/admin", 400),
    ("/x/..%3B/admin", 400),
    ("/x/..%20/admin", 400),
    ("/x/..%23/admin", 400),
    // What is a slash for some.
    ("/%2fadmin", 400),
    ("/%2Fadmin", 400),
    ("/x/..%2fadmin", 400),
    ("/x/..%2Fadmin", 400),
    ("/x%2f..%2fadmin", 400),
    ("/x/%2e%2e%2fadmin", 400),
    ("/admin%2fx", 400),
    ("/x%5c..%5cadmin", 400),
    ("/x/..%5Cadmin", 400),
    ("/%5cadmin", 400),
    ("/x\\..\\admin", 400),
    ("/\\admin", 400),
    ("/admin\\x", 400),
    // What ends a path for some, and what is no escape.
    ("/admin%00", 400),
    ("/admin%00.html", 400),
    ("/%00/admin", 400),
    ("/admin%0a", 400),
    ("/admin%0d%0a", 400),
    ("/admin%09", 400),
    ("/admin%7f", 400),
    ("/admin%", 400),
    ("/%4", 400),
    ("/%zz/admin", 400),
    ("/%%36%31dmin", 400),
    ("/%u0061dmin", 400),
    // Escapes of escapes, and other character sets.
    ("/%2561dmin", 400),
    ("/%25%36%31dmin", 400),
    ("/x/%252e%252e/admin", 400),
    ("/x/..%252fadmin", 400),
    ("/x/%c0%ae%c0%ae/admin", 400),
    ("/x/..%c0%afadmin", 400),
    ("/%c1%a1dmin", 400),
    ("/%e0%80%afadmin", 400),
    ("/x/..%ef%bc", 400),
    ("/caf%e9", 400),
];

/// A guard for `/admin` as nginx has it, and a server with a page there.
struct Nginx {
    child: Child,
    folder: tempfile::TempDir,
}

impl Nginx {
    fn start() -> Option<Self> {
        // Debian has it where only root's PATH looks.
        let nginx = ["/usr/sbin/nginx", "/usr/local/sbin/nginx"]
            .iter()
            .find(|path| std::path::Path::new(path).is_file());
        let nginx =
            nginx.map(std::path::PathBuf::from).or_else(|| tools::program("nginx", "nginx"))?;
        let folder = folder();
        let at = folder.path().display();
        let mut paths = String::new();
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            paths += &format!("{kind}_temp_path {at}/{kind};\n");
        }
        let config = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/errors;\nevents {{}}\n\
             http {{ access_log off;\n{paths}\
             server {{ listen unix:{at}/guard; location /admin {{ return 403; }} location / {{ return 200 open; }} }}\n\
             server {{ listen unix:{at}/page; location = /admin {{ return 200 secret; }}\n\
             location ^~ /admin/ {{ return 200 secret; }} location / {{ return 200 open; }} }} }}\n"
        );
        std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
        let child = Command::new(nginx)
            .args(["-e", "stderr", "-p"])
            .arg(folder.path())
            .arg("-c")
            .arg(folder.path().join("nginx.conf"))
            .spawn()
            .unwrap();
        let found = Self { child, folder };
        until("nginx listens", || UnixStream::connect(found.folder.path().join("page")).ok());
        Some(found)
    }

    /// Status and content of its answer.
    fn ask(&self, server: &str, target: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(self.folder.path().join(server)).unwrap();
        let head = format!("GET {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that tells the target that it was asked for.
fn echo() -> Upstream {
    Upstream::scripted(|session| {
        while let Some(head) = session.request() {
            let target = head.split(' ').nth(1).unwrap();
            let length = target.len();
            session.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{target}"));
        }
    })
}

/// What servers may take a target for: decoded once or twice, before or after the query and
/// parameters are cut off, with backslashes as slashes, and a zero byte as the end.
fn readings(target: &str) -> Vec<String> {
    fn decoded(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let digits = text.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
            let value = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
            match value.filter(|_| text[at] == b'%') {
                Some(value) => {
                    out.push(value);
                    at += 3;
                }
                None => {
                    out.push(text[at]);
                    at += 1;
                }
            }
        }
        out
    }
    let raw = target.split('?').next().unwrap().as_bytes();
    let (once, twice) = (decoded(raw), decoded(&decoded(raw)));
    let mut found = Vec::new();
    for path in [raw, &once, &twice] {
        for ends in ["", ";", ";?#", "?#\0", ";?#\0\n\r\t"] {
            let mut segments: Vec<String> = Vec::new();
            for segment in path.split(|byte| b"/\\".contains(byte)) {
                let end = segment.iter().position(|byte| ends.as_bytes().contains(byte));
                let text = String::from_utf8_lossy(&segment[..end.unwrap_or(segment.len())]);
                match text.as_ref() {
                    "" | "." => {}
                    ".." => drop(segments.pop()),
                    text => segments.push(text.trim_end_matches(['.', ' ']).to_owned()),
                }
            }
            found.push(format!("/{}", segments.join("/")));
        }
    }
    found
}

fn is_guarded(path: &str) -> bool {
    path == "/admin" || path.starts_with("/admin/")
}

fn service(name: &str, upstream: &Upstream, more: &str) -> String {
    format!(
        "  - name: {name}\n    hosts: [{name}.example]\n    tracks: {{ stable: {{ endpoints: ['{}'] }} }}\n{more}",
        upstream.address
    )
}

const GUARD: &str = "    rules: [{ match: { path: /admin }, respond: { status: 403 } }]\n";

fn ask(gateway: &Gateway, host: &str, target: &str) -> crate::support::client::Response {
    let mut client = gateway.connect();
    client.send(format!("GET {target} HTTP/1.1\r\nhost: {host}.example\r\n\r\n"));
    client.response()
}

#[test]
fn what_nginx_guards_is_guarded_and_no_server_shows_it() {
    let Some(nginx) = Nginx::start() else { return };
    assert!(SPELLINGS.len() >= 60);
    let upstream = echo();
    let gateway = Gateway::start(&format!("services:\n{}", service("guarded", &upstream, GUARD)));
    for (position, (target, expected)) in SPELLINGS.iter().enumerate() {
        let answer = ask(&gateway, "guarded", target);
        assert_eq!(answer.status, *expected, "{target} {}", answer.text());
        let by_nginx = nginx.ask("guard", target).0;
        if by_nginx == 403 {
            assert_ne!(answer.status, 200, "nginx guards {target}");
        }
        if position < 17 {
            assert_eq!(answer.status, by_nginx, "{target} is an ordinary spelling");
        }
        if answer.status == 200 {
            let forwarded = answer.text();
            assert_eq!(nginx.ask("page", &forwarded), (200, "open".to_owned()), "{forwarded}");
            let seen = readings(&forwarded);
            assert!(!seen.iter().any(|path| is_guarded(path)), "{forwarded} {seen:?}");
        }
    }
    let refused = SPELLINGS.iter().filter(|(_, status)| *status == 400).count();
    let counted = gateway.metric("splitway_downstream_refused_total", &["ambiguous_path"]);
    assert_eq!(counted as usize, refused);
}

#[test]
fn every_form_of_a_target_is_read_alike() {
    let upstream = echo();
    let gateway = Gateway::start(&format!("services:\n{}", service("guarded", &upstream, GUARD)));
    for (target, expected) in SPELLINGS {
        let answer = ask(&gateway, "other", &format!("http://guarded.example{target}"));
        assert_eq!(answer.status, *expected, "absolute {target}");
    }
    let mut client = gateway.connect();
    client.send("OPTIONS * HTTP/1.1\r\nhost: guarded.example\r\n\r\n");
    assert_eq!(client.response().text(), "*");
    let Some(curl) = tools::program("curl", "curl") else { return };
    // Raw backslashes curl makes slashes of, and Debian's cannot ask twice on a connection.
    for (target, expected) in SPELLINGS.iter().filter(|(target, _)| !target.contains('\\')) {
        let output = Command::new(&curl)
            .args(["-sSg", "--max-time", "20", "--path-as-is", "--http2-prior-knowledge"])
            .args(["-H", "host: guarded.example", "-w", "%{http_code} %{http_version}"])
            .args(["-o", "/dev/null"])
            .arg(format!("http://{}{target}", gateway.address))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said, format!("{expected} 2"), "{target} by HTTP/2");
    }
}

#[test]
fn where_no_path_decides_the_bytes_go_on_as_they_came() {
    let upstream = echo();
    let gateway = Gateway::start(&format!(
        "services:\n{}{}{}",
        service("plain", &upstream, "    rules: [{ match: { method: PUT }, track: stable }]\n"),
        service("allowed", &upstream, &format!("    ambiguous_paths: allow\n{GUARD}")),
        service("below", &upstream, "    paths: [/b%65low]\n"),
    ));
    for target in ["/a%2Fb//%61/./c%5cd?%2f", "/%zz", "/x/..;/y", "/%e9"] {
        let answer = ask(&gateway, "plain", target);
        assert_eq!((answer.status, answer.text()), (200, target.to_owned()));
    }
    for (target, forwarded) in [
        ("/a%2fb", Some("/a%2Fb")),
        ("/go/https://%61/", Some("/go/https://a/")),
        ("/x/..%2Fadmin?%61", Some("/x/..%2Fadmin?%61")),
        ("/a?", Some("/a?")),
        ("/%61?", Some("/a?")),
        ("/%61dmin", None),
        ("//admin", None),
        ("/admin;x", None),
    ] {
        let answer = ask(&gateway, "allowed", target);
        let expected = forwarded.map_or((403, ""), |forwarded| (200, forwarded));
        assert_eq!((answer.status, &*answer.text()), expected, "{target}");
    }
    for (target, status) in [("/below/%78//y", 200), ("/below%2fx", 404), ("/%62elow/a%2fb", 400)] {
        let answer = ask(&gateway, "below", target);
        assert_eq!(answer.status, status, "{target}");
        assert!(status != 200 || answer.text() == "/below/x/y", "{}", answer.text());
    }
}

#[test]
fn every_test_on_a_path_reads_the_same_spelling() {
    let upstream = echo();
    let rules = "    rules:
      - match: { path: { exact: /exact } }
        respond: { status: 410 }
      - match: { path: { prefix: /sta } }
        respond: { status: 411 }
      - match: { path: { regex: '/r[0-9]+/(caf%C3%A9|x)' } }
        respond: { status: 412 }
      - match: { path: { exact: '/th\u{e9} x' } }
        respond: { status: 413 }
      - match: { path: /v1 }
        rewrite: { prefix: /v%31, to: /api }
      - match: { path: /all }
        rewrite: { to: /fixed }
";
    let gateway = Gateway::start(&format!("services:\n{}", service("site", &upstream, rules)));
    for (target, status, text) in [
        ("/%65xact", 410, ""),
        ("/exact;x", 410, ""),
        ("/exact/", 200, "/exact/"),
        ("/%73tart", 411, ""),
        ("//x/..//start", 411, ""),
        ("/r%31/caf%c3%a9", 412, ""),
        ("/r12/x;y", 412, ""),
        ("/th%c3%a9%20x", 413, ""),
        ("/v1/%61%2bb;c=%2d/?q=%61", 200, "/api/a%2Bb;c=-/?q=%61"),
        ("/x/..//%76%31;p", 200, "/api"),
        ("/%61ll/x?y", 200, "/fixed?y"),
    ] {
        let answer = ask(&gateway, "site", target);
        assert_eq!((answer.status, &*answer.text()), (status, text), "{target}");
    }
}

#[test]
fn a_refusal_says_why_and_leaves_the_connection() {
    let upstream = echo();
    let gateway = Gateway::start(&format!("services:\n{}", service("guarded", &upstream, GUARD)));
    let mut client = gateway.connect();
    client.send("GET /a%2fb HTTP/1.1\r\nhost: guarded.example\r\n\r\n");
    let answer = client.response();
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("path is ambiguous: it has an escaped slash"), "{answer:?}");
    client.send("GET /x HTTP/1.1\r\nhost: guarded.example\r\n\r\n");
    assert_eq!(client.response().text(), "/x");
}
