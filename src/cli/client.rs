//! The command line's hand on a running gateway: its admin API.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use clap::Args;
use serde_json::Value as Json;

use crate::plain;

use super::{FAILED, complain};

/// Where it listens unless it is told otherwise.
const DEFAULT: &str = "127.0.0.1:9900";
/// How long the admin API may take; a raise waits for the disk for up to three of them.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Where the gateway is, and who asks.
#[derive(Clone, Debug, Args)]
pub struct Client {
    /// Where the admin API listens: HOST:PORT, or the path of `admin.socket`; omitted:
    /// `SPLITWAY_ADMIN`, else 127.0.0.1:9900
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// A bearer token; better passed as `SPLITWAY_TOKEN`
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
}

impl Client {
    /// A client of the admin API at `admin`, without a token.
    #[must_use]
    pub fn at(admin: &str) -> Self {
        Self { admin: Some(admin.to_owned()), token: None }
    }

    /// Gets what is at `path`.
    ///
    /// # Errors
    /// In words: no answer, or what the gateway says is wrong.
    pub fn get(&self, path: &str) -> Result<Json, String> {
        self.ask("GET", path, "")
    }

    /// What the gateway does.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub fn status(&self) -> Result<Json, String> {
        let path = "/api/v1/status";
        let status = self.get(path)?;
        // Other servers have JSON there, too.
        if status["services"].is_array() { Ok(status) } else { Err(self.stranger(path, "200")) }
    }

    /// The status and the text at `path`.
    ///
    /// # Errors
    /// In words: no answer.
    pub fn text(&self, path: &str) -> Result<(u16, String), String> {
        let answer = self.exchange("GET", path, "")?;
        let answer = Answer::read(&answer).ok_or_else(|| self.no_http())?;
        let status = answer.code.parse().map_err(|_| self.no_http())?;
        Ok((status, answer.body.to_owned()))
    }

    /// Posts `body` to `path`.
    ///
    /// # Errors
    /// In words: no answer, or what the gateway says is wrong.
    pub fn post(&self, path: &str, body: &Json) -> Result<Json, String> {
        self.ask("POST", path, &body.to_string())
    }

    /// The service that is meant: the one named, or the only one with a rollout.
    ///
    /// # Errors
    /// None, or several.
    pub fn service(&self, named: Option<&str>) -> Result<String, String> {
        if let Some(name) = named {
            return Ok(name.to_owned());
        }
        let status = self.status()?;
        let services = status["services"].as_array().cloned().unwrap_or_default();
        let with_rollout: Vec<&str> = services
            .iter()
            .filter(|service| !service["rollout"].is_null())
            .filter_map(|service| service["name"].as_str())
            .collect();
        match with_rollout[..] {
            [one] => Ok(one.to_owned()),
            [] => Err("no service has a rollout".into()),
            _ => Err(format!("name the service, one of {}", with_rollout.join(", "))),
        }
    }

    /// Where the admin API is.
    #[must_use]
    pub fn address(&self) -> String {
        let named = || std::env::var("SPLITWAY_ADMIN").ok().filter(|named| !named.is_empty());
        let address = self.admin.clone().or_else(named);
        address.map_or_else(
            || DEFAULT.to_owned(),
            |address| {
                let bare = address.strip_prefix("unix:").or(address.strip_prefix("http://"));
                bare.unwrap_or(&address).trim_end_matches('/').to_owned()
            },
        )
    }

    /// Follows the events: calls `each` with every one until it says to stop or the stream ends.
    ///
    /// # Errors
    /// In words: no answer, what the gateway says is wrong, or a stream that fell silent.
    pub fn follow(&self, mut each: impl FnMut(&Json) -> bool) -> Result<(), Lost> {
        let path = "/api/v1/events";
        let stream = self.send("GET", path, "");
        let stream = stream.map_err(Lost::for_now)?;
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let line = self.line(&mut lines)?;
            if !head.starts_with("HTTP/1.") && !line.starts_with("HTTP/1.") {
                return Err(Lost::for_good(self.no_http()));
            }
            head.push_str(&line);
            if head.len() as u64 > ANSWER_BYTES_MAX {
                return Err(Lost::for_good(self.no_http()));
            }
        }
        let is_stream = Answer::read(&head).is_some_and(|head| {
            head.code == "200" && head.content_type().starts_with("text/event-stream")
        });
        if !is_stream {
            let mut rest = Vec::new();
            let read = lines.take(ANSWER_BYTES_MAX).read_to_end(&mut rest);
            read.map_err(|error| Lost::for_now(self.lost(&error)))?;
            head.push_str(&String::from_utf8_lossy(&rest));
            let why = self.parse(path, &head).err();
            let why = why.unwrap_or_else(|| self.stranger(path, "200"));
            // Too many watch: one of them may end.
            let is_full = Answer::read(&head).is_some_and(|answer| answer.code == "503");
            return Err(if is_full { Lost::for_now(why) } else { Lost::for_good(why) });
        }
        loop {
            let line = self.line(&mut lines)?;
            let Some(data) = line.strip_prefix("data: ") else { continue };
            let event = serde_json::from_str(data);
            let event = event.map_err(|_| Lost::for_good(self.stranger(path, "200")))?;
            if !each(&event) {
                return Ok(());
            }
        }
    }

    /// The next line of a stream, its end included.
    fn line(&self, lines: &mut impl BufRead) -> Result<String, Lost> {
        let mut line = Vec::new();
        let read = (&mut *lines).take(ANSWER_BYTES_MAX).read_until(b'\n', &mut line);
        if read.map_err(|error| Lost::for_now(self.lost(&error)))? == 0 {
            return Err(Lost::for_now(format!("{} ended the stream", self.address())));
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<Json, String> {
        self.parse(path, &self.exchange(method, path, body)?)
    }

    /// One request, the connection closed behind it.
    fn exchange(&self, method: &str, path: &str, body: &str) -> Result<String, String> {
        let mut answer = Vec::new();
        let stream = self.send(method, path, body)?;
        let read = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
        // Whoever closes badly may have said all that there is to say.
        if let Err(error) = read
            && answer.is_empty()
        {
            return Err(self.lost(&error));
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Sends a request. HTTP/1.0, so that the body comes as it is.
    fn send(&self, method: &str, path: &str, body: &str) -> Result<Box<dyn Read>, String> {
        let address = self.address();
        let token = self.token.clone().or_else(|| std::env::var("SPLITWAY_TOKEN").ok());
        let token =
            token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
        let length = body.len();
        let request = |host: &str| {
            format!(
                "{method} {path} HTTP/1.0\r\nhost: {host}\r\ncontent-length: {length}\r\n\
                 {token}\r\n{body}"
            )
        };
        if address.starts_with(['/', '.']) {
            let send = || -> std::io::Result<Box<dyn Read>> {
                let mut stream = UnixStream::connect(&address)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                stream.write_all(request("localhost").as_bytes())?;
                Ok(Box::new(stream))
            };
            return send().map_err(|error| self.lost(&error));
        }
        check_address(&address)?;
        let send = || -> std::io::Result<Box<dyn Read>> {
            let mut stream = TcpStream::connect(&address)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            stream.write_all(request(&address).as_bytes())?;
            Ok(Box::new(stream))
        };
        send().map_err(|error| self.lost(&error))
    }

    /// The JSON of an answer that is 200.
    fn parse(&self, path: &str, answer: &str) -> Result<Json, String> {
        let answer = Answer::read(answer).ok_or_else(|| self.no_http())?;
        let is_ours =
            matches!(answer.content_type(), "application/json" | "application/problem+json");
        let body: Option<Json> = serde_json::from_str(answer.body).ok().filter(|_| is_ours);
        let body = body.ok_or_else(|| self.stranger(path, answer.code))?;
        if answer.code == "200" {
            return Ok(body);
        }
        let detail = body["detail"].as_str().ok_or_else(|| self.stranger(path, answer.code))?;
        Err(format!("{} answered {}: {detail}", self.address(), answer.code))
    }

    fn lost(&self, error: &std::io::Error) -> String {
        format!(
            "no answer from the admin API at {}: {error}; does the gateway run, and is this its \
             `admin.address`? Name another by --admin",
            self.address()
        )
    }

    fn no_http(&self) -> String {
        format!(
            "what answers at {} speaks no HTTP, so it is no admin API; name the gateway's \
             `admin.address` by --admin",
            self.address()
        )
    }

    fn stranger(&self, path: &str, code: &str) -> String {
        format!(
            "what answers at {} is no admin API (it answered {code} to {path}); its port may be one \
             of traffic: name the gateway's `admin.address` by --admin",
            self.address()
        )
    }
}

/// Why nothing more is heard.
#[derive(Debug)]
pub struct Lost {
    /// In words.
    pub why: String,
    /// Asking again would change nothing.
    pub is_final: bool,
}

impl Lost {
    fn for_now(why: String) -> Self {
        Self { why, is_final: false }
    }

    fn for_good(why: String) -> Self {
        Self { why, is_final: true }
    }
}

/// An answer as it came.
struct Answer<'a> {
    code: &'a str,
    head: &'a str,
    body: &'a str,
}

impl<'a> Answer<'a> {
    /// `None`: it is no HTTP.
    fn read(text: &'a str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let code = head.strip_prefix("HTTP/1.")?.split([' ', '\r']).nth(1)?;
        let is_code = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
        is_code.then_some(Self { code, head, body })
    }

    fn content_type(&self) -> &'a str {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut types = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        types.next().map_or("", |(_, value)| value.split(';').next().unwrap_or_default().trim())
    }
}

/// Whether `address` is HOST:PORT.
fn check_address(address: &str) -> Result<(), String> {
    let is_host = |host: &str| !host.is_empty() && (!host.contains(':') || host.starts_with('['));
    let parts = address.rsplit_once(':');
    if parts.is_some_and(|(host, port)| is_host(host) && port.parse::<u16>().is_ok()) {
        return Ok(());
    }
    Err(format!(
        "`{address}` is no address of an admin API; write HOST:PORT, as in 127.0.0.1:9900, or the \
         path of `admin.socket`"
    ))
}

/// Says what went wrong, and returns the exit code for it.
#[must_use]
pub fn fail(error: &str) -> u8 {
    complain(&format!("splitway: {}", plain::line(error)));
    FAILED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_people_write_them() {
        for (given, address) in [
            ("http://127.0.0.1:9900/", "127.0.0.1:9900"),
            ("127.0.0.1:9900", "127.0.0.1:9900"),
            ("[::1]:9900", "[::1]:9900"),
            ("gateway.example:9900", "gateway.example:9900"),
            ("unix:/run/splitway/admin.sock", "/run/splitway/admin.sock"),
        ] {
            let found = Client::at(given).address();
            assert_eq!(found, address);
            assert!(found.starts_with('/') || check_address(&found).is_ok(), "{given}");
        }
        for bad in
            ["127.0.0.1", "::1", ":9900", "a:b", "https://127.0.0.1:9900", "a:9900/metrics", ""]
        {
            assert!(check_address(&Client::at(bad).address()).is_err(), "{bad}");
        }
    }
}
