//! What single values of a configuration look like: durations, sizes, weights, addresses, tests.

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::time::Duration;

use ipnet::IpNet;
use regex::bytes::{Regex, RegexBuilder};
use serde_json::{Value as Json, json};

use crate::track::Weight;

use super::fault::Place;
use super::node::{Kind, Node};
use super::section::{Reader, Value};

/// A value with its place, for faults that only show when values are compared.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

impl<T> Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for At<T> {
    /// Moving a value within the file changes nothing.
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Value> Value for At<T> {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        Some(Self { value: T::read(node, reader)?, place: node.place })
    }

    fn schema() -> Json {
        T::schema()
    }
}

impl<T: Value> Value for Option<T> {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        if node.kind == Kind::Null { Some(None) } else { T::read(node, reader).map(Some) }
    }

    fn schema() -> Json {
        T::schema()
    }
}

impl<T: Value> Value for Vec<T> {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Kind::List(items) = &node.kind else {
            reader.fault(node.place, format!("is {}; write a list", node.kind.describe()));
            return None;
        };
        let read: Vec<Option<T>> = items
            .iter()
            .enumerate()
            .map(|(index, item)| reader.below_index(index, |reader| T::read(item, reader)))
            .collect();
        read.into_iter().collect()
    }

    fn schema() -> Json {
        json!({ "type": "array", "items": T::schema() })
    }
}

/// One value, or a list of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T: Value> Value for OneOrMany<T> {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        if matches!(node.kind, Kind::List(_)) {
            return Vec::read(node, reader).map(Self);
        }
        T::read(node, reader).map(|one| Self(vec![one]))
    }

    fn schema() -> Json {
        json!({ "oneOf": [T::schema(), { "type": "array", "items": T::schema() }] })
    }
}

/// Values by name, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Named<T>(pub Vec<(At<String>, T)>);

impl<T> Named<T> {
    /// The value called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(key, _)| key.value == name).map(|(_, value)| value)
    }
}

impl<T: Value> Value for Named<T> {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Kind::Map(entries) = &node.kind else {
            let is = node.kind.describe();
            reader.fault(node.place, format!("is {is}; write a mapping from name to value"));
            return None;
        };
        let read: Vec<Option<(At<String>, T)>> = entries
            .iter()
            .map(|(key, node)| {
                let value = reader.below(&key.name, |reader| T::read(node, reader))?;
                Some((At { value: key.name.clone(), place: key.place }, value))
            })
            .collect();
        read.into_iter().collect::<Option<_>>().map(Self)
    }

    fn schema() -> Json {
        json!({ "type": "object", "additionalProperties": T::schema() })
    }
}

/// A value, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrOff<T>(pub Option<T>);

impl<T: Value> Value for OrOff<T> {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        if matches!(&node.kind, Kind::Scalar(text) if text == "off" || text == "false") {
            return Some(Self(None));
        }
        T::read(node, reader).map(|value| Self(Some(value)))
    }

    fn schema() -> Json {
        json!({ "oneOf": [T::schema(), { "enum": ["off", false] }] })
    }
}

impl Value for String {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        reader.scalar(node, "a text").map(str::to_owned)
    }

    fn schema() -> Json {
        json!({ "type": ["string", "number", "boolean"] })
    }
}

impl Value for bool {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match reader.scalar(node, "true or false")? {
            "true" => Some(true),
            "false" => Some(false),
            other => {
                reader.fault(node.place, format!("`{other}` is neither true nor false"));
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "type": "boolean" })
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole<const MIN: u32, const MAX: u32>(pub u32);

impl<const MIN: u32, const MAX: u32> Value for Whole<MIN, MAX> {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, "a whole number")?;
        let number = text.parse().ok().filter(|number| (MIN..=MAX).contains(number));
        if number.is_none() {
            let message = format!("`{text}` is no whole number from {MIN} to {MAX}");
            reader.fault(node.place, message);
        }
        number.map(Self)
    }

    fn schema() -> Json {
        json!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// A duration with its unit: `250ms`, `10s`, `30m`, `1h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    /// A duration of whole seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// In nanoseconds.
    #[must_use]
    pub fn ns(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = text[..digits].parse().ok()?;
        let unit_ms = match &text[digits..] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        // A year bounds every sum of durations far away from overflow.
        let ms = number.checked_mul(unit_ms).filter(|ms| (1..=365 * 86_400_000).contains(ms))?;
        Some(Self(Duration::from_millis(ms)))
    }
}

impl Value for Span {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, "a duration like 10s")?;
        let span = Self::parse(text);
        if span.is_none() {
            let message = format!(
                "`{text}` is no duration; write a number and a unit, like 250ms, 10s, 30m or 1h"
            );
            reader.fault(node.place, message);
        }
        span
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" })
    }
}

/// A number of bytes: `4096`, `64KiB`, `10MiB`, `1GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Value for Size {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, "a size like 64KiB")?;
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let unit: Option<u64> = match &text[digits..] {
            "" | "B" => Some(1),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            "TiB" => Some(1 << 40),
            _ => None,
        };
        let number: Option<u64> = text[..digits].parse().ok();
        let size = number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
        if size.is_none() {
            let message =
                format!("`{text}` is no size; write a number and a unit, like 64KiB or 10MiB");
            reader.fault(node.place, message);
        }
        size.map(Self)
    }

    fn schema() -> Json {
        json!({ "type": ["string", "integer"], "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB)?$" })
    }
}

impl Value for Weight {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, "a percentage like 5")?;
        match text.parse() {
            Ok(weight) => Some(weight),
            Err(error) => {
                reader.fault(node.place, format!("`{text}` {error}"));
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "type": "number", "minimum": 0, "maximum": 100, "multipleOf": 0.01 })
    }
}

impl Value for SocketAddr {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, "an address like 0.0.0.0:8080")?;
        let address = text.parse().ok();
        if address.is_none() {
            let message = format!(
                "`{text}` is no address to listen on; write IP:PORT, like 0.0.0.0:8080 or [::]:8080"
            );
            reader.fault(node.place, message);
        }
        address
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

impl Value for IpNet {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, "a network like 10.0.0.0/8")?;
        let net = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(Self::from));
        if net.is_none() {
            let message = format!("`{text}` is no network; write it like 10.0.0.0/8 or 192.0.2.1");
            reader.fault(node.place, message);
        }
        net
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

/// Where an endpoint listens: an address, or a name that is resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointAddress {
    /// The IP address or DNS name.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl EndpointAddress {
    /// The address, if it is no name.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Some(Self { host: address.ip().to_string(), port: address.port() });
        }
        let (host, port) = text.rsplit_once(':')?;
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        let name = host.strip_suffix('.').unwrap_or(host);
        let is_name = name.len() <= 253 && name.split('.').all(label);
        // Four numbers that are no address are a mistyped one, not a name.
        let is_numeric = name.split('.').all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (is_name && !is_numeric).then(|| Self { host: host.to_owned(), port })
    }
}

impl Value for EndpointAddress {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = reader.scalar(node, "an endpoint like 10.0.0.11:8000")?;
        let endpoint = Self::parse(text);
        if endpoint.is_none() {
            let scheme = if text.contains("://") { " without a scheme" } else { "" };
            let message = format!(
                "`{text}` is no endpoint; write HOST:PORT{scheme}, like 10.0.0.11:8000 or \
                 api.internal:8000"
            );
            reader.fault(node.place, message);
        }
        endpoint
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^.+:[0-9]+$" })
    }
}

/// A test on a text.
#[derive(Clone, Debug)]
pub enum TextTest {
    /// A text without more: equal; of a path, a prefix by whole segments.
    Plain(String),
    /// Equal.
    Exact(String),
    /// Starts with.
    Prefix(String),
    /// Matches as a whole.
    Regex(Regex),
    /// Is there.
    Present,
    /// The inner test does not hold.
    Not(Box<Self>),
}

impl PartialEq for TextTest {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Plain(a), Self::Plain(b))
            | (Self::Exact(a), Self::Exact(b))
            | (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            (Self::Present, Self::Present) => true,
            (Self::Not(a), Self::Not(b)) => a == b,
            _ => false,
        }
    }
}

/// Largest compiled regular expression; a longer one is a table in disguise.
const REGEX_BYTES_MAX: usize = 1024 * 1024;

impl Value for TextTest {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        const FORMS: [&str; 5] = ["exact", "prefix", "regex", "present", "not"];
        let entries = match &node.kind {
            Kind::Scalar(text) => return Some(Self::Plain(text.clone())),
            Kind::Map(entries) if entries.len() == 1 => entries,
            _ => {
                let message = "write a text, or one of { exact: … }, { prefix: … }, \
                    { regex: … }, { present: true }, { not: … }";
                reader.fault(node.place, message);
                return None;
            }
        };
        reader.entries(node, &FORMS)?;
        let (key, inner) = &entries[0];
        reader.below(&key.name, |reader| match key.name.as_str() {
            "exact" => String::read(inner, reader).map(Self::Exact),
            "prefix" => String::read(inner, reader).map(Self::Prefix),
            "regex" => regex(inner, reader).map(Self::Regex),
            "present" => bool::read(inner, reader).map(|present| {
                if present { Self::Present } else { Self::Not(Box::new(Self::Present)) }
            }),
            "not" => Self::read(inner, reader).map(|inner| Self::Not(Box::new(inner))),
            _ => None,
        })
    }

    fn schema() -> Json {
        let text = String::schema();
        let form = |name: &str, schema: Json| {
            json!({
                "type": "object",
                "properties": { name: schema },
                "required": [name],
                "additionalProperties": false,
            })
        };
        json!({ "oneOf": [
            text,
            form("exact", text.clone()),
            form("prefix", text.clone()),
            form("regex", json!({ "type": "string", "format": "regex" })),
            form("present", json!({ "type": "boolean" })),
            form("not", json!(true)),
        ]})
    }
}

fn regex(node: &Node, reader: &mut Reader) -> Option<Regex> {
    let text = reader.scalar(node, "a regular expression")?;
    match RegexBuilder::new(&format!("^(?:{text})$")).size_limit(REGEX_BYTES_MAX).build() {
        Ok(regex) => Some(regex),
        Err(error) => {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
            let message = format!("is no regular expression: {reason}; see docs.rs/regex");
            reader.fault(node.place, message);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, ms) in [("250ms", 250), ("10s", 10_000), ("30m", 1_800_000), ("1d", 86_400_000)]
        {
            assert_eq!(Span::parse(text), Some(Span(Duration::from_millis(ms))), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1.5s", "1 s", "0s", "99999999999999999999s", "400d"] {
            assert_eq!(Span::parse(text), None, "{text}");
        }
    }

    #[test]
    fn endpoints_are_addresses_or_names() {
        for text in ["10.0.0.1:80", "[::1]:80", "api:1", "a.b-c.svc.cluster.local.:65535", "my_a:2"]
        {
            assert!(EndpointAddress::parse(text).is_some(), "{text}");
        }
        for text in ["10.0.0.1", "http://a:80", "a:", "a:0", "a:65536", ":80", "a b:1", "1.2.3:4"] {
            assert!(EndpointAddress::parse(text).is_none(), "{text}");
        }
    }
}
