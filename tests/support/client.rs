//! A client that writes the bytes it is told and reads answers strictly.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::PATIENCE;

/// A connection.
pub struct Client {
    pub stream: TcpStream,
    /// Read and not used.
    pub held: Vec<u8>,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The head as it came.
    pub head: String,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn track(&self) -> &str {
        self.header("x-track").unwrap_or("none")
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    /// The same, where it is not certain that somebody listens.
    pub fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Ok(Self { stream, held: Vec::new() })
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// A GET with further header lines, and its answer.
    pub fn get(&mut self, path: &str, headers: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n{headers}\r\n"));
        self.response()
    }

    /// A GET and its answer, of a body without length only the head; `None` when there is none.
    pub fn try_get(&mut self, path: &str, headers: &str) -> Option<Response> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n{headers}\r\n");
        self.stream.write_all(request.as_bytes()).ok()?;
        while !self.held.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            let mut buffer = [0; 4 * 1024];
            let count = self.stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
            self.held.extend_from_slice(&buffer[..count]);
        }
        let mut response = self.head();
        if response.header("content-length").is_some() {
            self.body_of(&mut response).ok()?;
        }
        Some(response)
    }

    pub fn close_write(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Reads more; false at the end of the stream.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.held.extend_from_slice(&buffer[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("no answer: {error}; so far {:?}", self.held_text()),
        }
    }

    fn held_text(&self) -> String {
        String::from_utf8_lossy(&self.held[..self.held.len().min(500)]).into_owned()
    }

    /// Everything up to the end of the stream.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.held)
    }

    /// The head of the next answer, interim ones included.
    pub fn head(&mut self) -> Response {
        loop {
            let end = self.held.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            if let Some(end) = end {
                let head: Vec<u8> = self.held.drain(..end + 4).collect();
                return parse_head(&head);
            }
            assert!(self.fill(), "closed within a head: {:?}", self.held_text());
        }
    }

    /// The next final answer to a request that was no HEAD.
    pub fn response(&mut self) -> Response {
        let mut response = self.head();
        while response.status < 200 && response.status != 101 {
            response = self.head();
        }
        self.body_of(&mut response).unwrap_or_else(|error| panic!("{error}: {}", response.head));
        response
    }

    /// Reads the body that a head announces; an error when it is cut short.
    pub fn body_of(&mut self, response: &mut Response) -> Result<(), &'static str> {
        if response.header("transfer-encoding") == Some("chunked") {
            return self.chunked(response);
        }
        let Some(length) = response.header("content-length") else {
            if !matches!(response.status, 101 | 204 | 304) {
                response.body = self.rest();
            }
            return Ok(());
        };
        if response.status == 304 {
            return Ok(());
        }
        let length: usize = length.parse().unwrap();
        while self.held.len() < length {
            if !self.fill() {
                return Err("closed within a counted body");
            }
        }
        response.body = self.held.drain(..length).collect();
        Ok(())
    }

    fn chunked(&mut self, response: &mut Response) -> Result<(), &'static str> {
        loop {
            let line = self.line().ok_or("closed within chunk framing")?;
            let size = usize::from_str_radix(line.split(';').next().unwrap(), 16).unwrap();
            if size == 0 {
                break;
            }
            while self.held.len() < size + 2 {
                if !self.fill() {
                    return Err("closed within a chunk");
                }
            }
            response.body.extend(self.held.drain(..size));
            assert_eq!(self.line().unwrap(), "");
        }
        loop {
            let trailer = self.line().ok_or("closed within trailers")?;
            if trailer.is_empty() {
                return Ok(());
            }
            let (name, value) = trailer.split_once(": ").unwrap();
            response.headers.push((format!("trailer-{name}"), value.to_owned()));
        }
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.held.windows(2).position(|bytes| bytes == b"\r\n") {
                let line: Vec<u8> = self.held.drain(..end + 2).collect();
                return Some(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            if !self.fill() {
                return None;
            }
        }
    }
}

fn parse_head(head: &[u8]) -> Response {
    let mut fields = [httparse::EMPTY_HEADER; 200];
    let mut parsed = httparse::Response::new(&mut fields);
    assert!(parsed.parse(head).unwrap().is_complete());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Response {
        status: parsed.code.unwrap(),
        headers: parsed
            .headers
            .iter()
            .map(|header| (header.name.to_owned(), text(header.value)))
            .collect(),
        body: Vec::new(),
        head: text(head),
    }
}
