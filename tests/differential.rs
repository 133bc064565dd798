//! Whatever we accept, hyper's parser and Python's h11 read alike.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use splitway::http1::{Limits, RequestHead, ResponseHead};

use crate::support::tools::python_with;

/// How a reader understood a request: method, target, fields, and body length (`None`: chunked).
#[derive(Debug, PartialEq, Eq)]
struct Reading {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    length: Option<u64>,
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Names in lower case, and the one allowed coding as h11 hands it over.
fn spelled(name: String, value: String) -> (String, String) {
    let name = name.to_lowercase();
    let is_coding = name == "transfer-encoding";
    (name, if is_coding { value.to_lowercase() } else { value })
}

fn ours(bytes: &[u8]) -> Option<Reading> {
    let mut spans = Vec::new();
    let head = RequestHead::parse(bytes, Limits::default(), &mut spans).ok()??;
    let target = bytes.split(|byte| *byte == b' ').nth(1).unwrap();
    Some(Reading {
        method: latin1(head.method),
        target: latin1(target),
        fields: head
            .fields
            .iter()
            .map(|field| spelled(latin1(field.name(head.bytes)), latin1(field.value(head.bytes))))
            .collect(),
        length: if head.facts.chunked {
            None
        } else {
            Some(head.facts.content_length.unwrap_or(0))
        },
    })
}

fn hypers(bytes: &[u8]) -> Option<Reading> {
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut fields);
    if !request.parse(bytes).ok()?.is_complete() {
        return None;
    }
    let fields: Vec<(String, String)> = request
        .headers
        .iter()
        .map(|header| spelled(header.name.to_owned(), latin1(header.value)))
        .collect();
    let value = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, v)| v.clone());
    let length = match value("transfer-encoding") {
        Some(_) => None,
        None => Some(value("content-length").map_or(0, |length| length.parse().unwrap())),
    };
    let (method, target) = (request.method?.to_owned(), request.path?.to_owned());
    Some(Reading { method, target, fields, length })
}

/// A Python that reads requests with h11: one hex line in, one JSON line out.
struct H11 {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

const H11_SCRIPT: &str = r#"
import sys, json, h11
for line in sys.stdin:
    connection = h11.Connection(h11.SERVER)
    try:
        connection.receive_data(bytes.fromhex(line.strip()))
        event = connection.next_event()
        if isinstance(event, h11.Request):
            headers = [[n.decode('latin1'), v.decode('latin1')] for n, v in event.headers]
            named = dict(headers)
            length = None if 'transfer-encoding' in named else int(named.get('content-length', 0))
            print(json.dumps([event.method.decode('latin1'), event.target.decode('latin1'), headers, length]))
        else:
            print('null')
    except h11.RemoteProtocolError as error:
        print(json.dumps(str(error)))
    sys.stdout.flush()
"#;

impl H11 {
    fn start() -> Option<Self> {
        let mut child = Command::new(python_with("h11")?)
            .args(["-c", H11_SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Some(Self { child, answers })
    }

    fn read(&mut self, bytes: &[u8]) -> Result<Reading, String> {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(self.child.stdin.as_mut().unwrap(), "{hex}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let answer: serde_json::Value = serde_json::from_str(&line).unwrap();
        let Some(parts) = answer.as_array() else { return Err(answer.to_string()) };
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let fields = parts[2].as_array().unwrap().iter();
        Ok(Reading {
            method: text(&parts[0]),
            target: text(&parts[1]),
            fields: fields.map(|field| (text(&field[0]), text(&field[1]))).collect(),
            length: parts[3].as_u64(),
        })
    }
}

impl Drop for H11 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Requests that are nearly right: parts that are mostly good, joined mostly well, then a few
/// bytes changed.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let part = |good: &'static [&'static str], odd: &'static [&'static str]| prop_oneof![8 => prop::sample::select(good), 1 => prop::sample::select(odd)];
    let method = part(&["GET", "POST", "PUT", "OPTIONS"], &["", "G T", "get", "M-S~"]);
    let target = part(
        &["/", "/a/b?c=d", "/%20", "http://a.example/x"],
        &["", "*", "a", "/ x", "/\t", "//", "http://", "/é"],
    );
    let version =
        part(&["HTTP/1.1", "HTTP/1.0"], &["HTTP/1.2", "http/1.1", "HTTP/1.1 ", "HTTP/11"]);
    let line = part(
        &[
            "accept: */*",
            "x-a:b",
            "x-b:  c  ",
            "X-C:",
            "content-length: 3",
            "cookie: a=b; c=d",
            "transfer-encoding: chunked",
            "connection: keep-alive, x-a",
            "x-high: \u{e9}",
        ],
        &[
            "content-length: 4",
            "content-length: 3,3",
            "content-length: 03",
            "Content-Length: ",
            "transfer-encoding: gzip",
            "Transfer-Encoding: CHUNKED",
            "host: b",
            "host:",
            " folded",
            "no colon",
            "a b: c",
            "x\u{0}: y",
            "x: \u{0}",
            "x: y\rz",
            "x: \u{7f}",
            "x: \u{1}",
            "\u{e9}: x",
            "x:\ty\t",
            ": x",
        ],
    );
    let end = part(&["\r\n"], &["\n", "\r", "\r\r\n", " \r\n", "\r\n\r\n"]);
    let lines = prop::collection::vec((line, end.clone()), 0..6);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2);
    (method, target, version, end, lines, changes, any::<bool>()).prop_map(
        |(method, target, version, end, lines, changes, has_host)| {
            let mut text = format!("{method} {target} {version}{end}");
            if has_host {
                text += "host: a.example\r\n";
            }
            lines.iter().for_each(|(line, end)| text.extend([*line, *end]));
            text += "\r\n";
            // Latin-1, so that single high bytes occur.
            let mut bytes: Vec<u8> = text.chars().map(|char| char as u8).collect();
            for (index, byte) in changes {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            bytes
        },
    )
}

#[test]
fn what_we_accept_hyper_and_h11_read_alike() {
    let h11 = std::cell::RefCell::new(H11::start());
    let accepted = std::cell::Cell::new(0);
    let mut runner =
        TestRunner::new(Config { cases: 20_000, failure_persistence: None, ..Config::default() });
    let result = runner.run(&requests(), |bytes| {
        // Empty lines ahead are skipped by all three, which shifts the target in this test.
        let Some(ours) = ours(bytes.trim_ascii_start()) else { return Ok(()) };
        accepted.set(accepted.get() + 1);
        let bytes = bytes.trim_ascii_start();
        let hypers = hypers(bytes);
        prop_assert_eq!(Some(&ours), hypers.as_ref(), "hyper reads {:?}", latin1(bytes));
        if let Some(h11) = h11.borrow_mut().as_mut() {
            let h11s = h11.read(bytes);
            prop_assert_eq!(Ok(&ours), h11s.as_ref(), "h11 reads {:?}", latin1(bytes));
        }
        Ok(())
    });
    result.unwrap();
    assert!(accepted.get() > 1_000, "only {} of the requests were accepted", accepted.get());
}

#[test]
fn answers_we_accept_hyper_reads_alike() {
    let lines = prop::sample::select(vec![
        "content-length: 3\r\n",
        "transfer-encoding: chunked\r\n",
        "x: y\r\n",
        "x : y\r\n",
        "x: \r\n",
        " x\r\n",
        "x: y\n",
        "set-cookie: a\r\n",
        "content-length: 3, 3\r\n",
        "\u{0}: x\r\n",
    ]);
    let start = prop::sample::select(vec![
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 404\r\n",
        "HTTP/1.1 500 \r\n",
        "HTTP/1.1 20\r\n",
        "HTTP/1.1 200 O\u{1}K\r\n",
        "HTTP/1.2 200 OK\r\n",
        "HTTP/1.1 200 OK\n",
    ]);
    let answers = (
        start,
        prop::collection::vec(lines, 0..4),
        prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    );
    let accepted = std::cell::Cell::new(0);
    let mut runner =
        TestRunner::new(Config { cases: 20_000, failure_persistence: None, ..Config::default() });
    let result = runner.run(&answers, |(start, lines, change)| {
        let mut bytes = format!("{start}{}\r\n", lines.concat()).into_bytes();
        if let Some((index, byte)) = change {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let mut spans = Vec::new();
        let Ok(Some(head)) = ResponseHead::parse(&bytes, Limits::default(), &mut spans) else {
            return Ok(());
        };
        accepted.set(accepted.get() + 1);
        let mut fields = [httparse::EMPTY_HEADER; 128];
        let mut response = httparse::Response::new(&mut fields);
        prop_assert_eq!(response.parse(&bytes), Ok(httparse::Status::Complete(head.bytes.len())));
        prop_assert_eq!(response.code, Some(head.status));
        let theirs: Vec<_> =
            response.headers.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
        let ours: Vec<_> = head
            .fields
            .iter()
            .map(|field| (field.name(head.bytes), field.value(head.bytes)))
            .collect();
        prop_assert_eq!(ours, theirs);
        Ok(())
    });
    result.unwrap();
    assert!(accepted.get() > 1_000, "only {} of the answers were accepted", accepted.get());
}
