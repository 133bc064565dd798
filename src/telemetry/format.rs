//! How a line of the access log is written: as JSON, or by a template.

use std::io::Write;

use super::Facts;
use super::access::AccessLine;
use crate::calendar::Moment;
use crate::plain;

/// Apache's combined format, as every log reader knows it. What it calls the response's size is here
/// all that was written to the client, its head included.
const COMBINED: &str = "{client} - - [{time_clf}] \"{method} {path} {protocol}\" {status} {bytes} \
     \"{request.referer}\" \"{request.user-agent}\"";
/// What stands for a value that is not there.
const NONE: &[u8] = b"-";

/// The form of lines of the access log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessFormat {
    /// `None`: JSON.
    pieces: Option<Vec<Piece>>,
    /// Fields of the request's head that are needed, in lower case.
    fields: Vec<Box<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Value(Named),
    /// A field of the head, by its place among the wanted ones.
    Field(usize),
}

/// Declares what a template may name, once for reading and once for the message that lists it.
macro_rules! named {
    ($($name:literal => $variant:ident),+ $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Named { $($variant),+ }

        impl Named {
            const ALL: &[&str] = &[$($name),+];

            fn of(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

named! {
    "time" => Time, "time_clf" => TimeClf, "time_ms" => TimeMs, "client" => Client,
    "method" => Method, "host" => Host, "path" => Path, "protocol" => Protocol, "app" => App,
    "track" => Track, "reason" => Reason, "endpoint" => Endpoint, "status" => Status,
    "bytes" => Bytes, "duration_us" => DurationUs, "duration_ms" => DurationMs,
    "trace_id" => TraceId,
}

impl AccessFormat {
    /// Apache's combined format.
    ///
    /// # Panics
    /// Never: its template is valid, which a test sees.
    #[must_use]
    pub fn combined() -> Self {
        Self::parse(COMBINED).expect("the template is valid")
    }

    /// Reads a template: text with `{names}` and `{request.FIELD}`; `{{` is a brace.
    ///
    /// # Errors
    /// In words, with the remedy.
    pub fn parse(template: &str) -> Result<Self, String> {
        let (mut pieces, mut fields) = (Vec::new(), Vec::new());
        let mut text = String::new();
        let mut rest = template;
        while let Some(open) = rest.find('{') {
            text.push_str(&rest[..open]);
            rest = &rest[open + 1..];
            if let Some(after) = rest.strip_prefix('{') {
                text.push('{');
                rest = after;
                continue;
            }
            let close = rest.find('}').ok_or("has a `{` without `}`; write {{ for a brace")?;
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text).into()));
            }
            pieces.push(piece(&rest[..close], &mut fields)?);
            rest = &rest[close + 1..];
        }
        text.push_str(rest);
        if text.contains(char::is_control) || template.contains(char::is_control) {
            return Err("holds a control character; a line of the log is one line".into());
        }
        if pieces.is_empty() {
            return Err("names nothing; write json, combined, or a template such as \
                        '{client} {method} {path} {status} {duration_ms}'"
                .into());
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text.into()));
        }
        Ok(Self { pieces: Some(pieces), fields })
    }

    /// The fields of the request's head that a line needs, in lower case.
    #[must_use]
    pub fn fields(&self) -> &[Box<str>] {
        &self.fields
    }

    /// Appends `line`, without its end.
    pub(super) fn write(&self, line: &AccessLine, out: &mut Vec<u8>) {
        let Some(pieces) = &self.pieces else {
            // Serializing fails for maps with odd keys alone.
            let written = serde_json::to_string(&line.facts).unwrap_or_default();
            out.extend_from_slice(plain::json(&written).as_bytes());
            return;
        };
        for piece in pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Value(named) => named.write(&line.facts, out),
                Piece::Field(index) => {
                    escaped(line.fields.get(*index).map_or("", String::as_str), out);
                }
            }
        }
    }
}

fn piece(name: &str, fields: &mut Vec<Box<str>>) -> Result<Piece, String> {
    if let Some(field) = name.strip_prefix("request.") {
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if field.is_empty() || !field.bytes().all(is_token) {
            return Err(format!(
                "names `{field}`, which is no field; write {{request.user-agent}}"
            ));
        }
        let field = field.to_ascii_lowercase().into_boxed_str();
        let known = fields.iter().position(|known| *known == field);
        return Ok(Piece::Field(known.unwrap_or_else(|| {
            fields.push(field);
            fields.len() - 1
        })));
    }
    let unknown = || {
        let known = Named::ALL.join(", ");
        format!("names `{name}`, which is unknown; known are {known}, and request.FIELD")
    };
    Named::of(name).map(Piece::Value).ok_or_else(unknown)
}

impl Named {
    fn write(self, line: &Facts, out: &mut Vec<u8>) {
        // A Vec takes every write.
        let _ = match self {
            Self::Time => write!(out, "{}", Moment::of(line.time_ms).precise()),
            Self::TimeClf => write!(out, "{}", Moment::of(line.time_ms).common_log()),
            Self::TimeMs => write!(out, "{}", line.time_ms),
            Self::Client => write!(out, "{}", line.client),
            Self::Method => return escaped(&line.method, out),
            Self::Host => return escaped(&line.host, out),
            Self::Path => return escaped(&line.path, out),
            Self::Protocol => return escaped(line.protocol, out),
            Self::App => return escaped(&line.service, out),
            Self::Track => return escaped(&line.track, out),
            Self::Reason => return escaped(line.reason, out),
            Self::Endpoint => match line.endpoint {
                Some(endpoint) => write!(out, "{endpoint}"),
                None => out.write_all(NONE),
            },
            Self::Status => write!(out, "{}", line.status),
            Self::Bytes => write!(out, "{}", line.bytes),
            Self::DurationUs => write!(out, "{}", line.duration_us),
            Self::DurationMs => {
                write!(out, "{}.{:03}", line.duration_us / 1_000, line.duration_us % 1_000)
            }
            Self::TraceId => match line.trace_id {
                Some(id) => write!(out, "{id}"),
                None => out.write_all(NONE),
            },
        };
    }
}

/// Appends what a client may have sent so that it ends neither the line nor a quotation, and acts on
/// no terminal: as Apache does, byte by byte.
fn escaped(text: &str, out: &mut Vec<u8>) {
    if text.is_empty() {
        out.extend_from_slice(NONE);
    }
    for char in text.chars() {
        let mut bytes = [0; 4];
        let bytes = char.encode_utf8(&mut bytes).as_bytes();
        if plain::acts(char) || matches!(char, '"' | '\\') {
            for byte in bytes {
                // A Vec takes every write.
                let _ = write!(out, "\\x{byte:02X}");
            }
        } else {
            out.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn written(format: &AccessFormat, fields: &[&str]) -> String {
        let fields = fields.iter().map(|field| (*field).to_owned()).collect();
        let facts = Facts {
            time_ms: 1_772_366_400_250,
            method: "GET".into(),
            path: "/a\"b\r\n?q".into(),
            protocol: "HTTP/1.1",
            track: "canary".into(),
            status: 200,
            bytes: 1_234,
            duration_us: 12_034,
            ..Facts::default()
        };
        let line = AccessLine { format: Arc::new(format.clone()), facts, fields };
        let mut out = Vec::new();
        format.write(&line, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn combined_is_apaches_and_cannot_be_forged() {
        assert_eq!(
            written(&AccessFormat::combined(), &["", "curl/8 \"\\\n\u{9b}é\u{2028}"]),
            "unknown - - [01/Mar/2026:12:00:00 +0000] \"GET /a\\x22b\\x0D\\x0A?q HTTP/1.1\" 200 1234 \
             \"-\" \"curl/8 \\x22\\x5C\\x0A\\xC2\\x9Bé\\xE2\\x80\\xA8\""
        );
    }

    #[test]
    fn templates_write_what_they_name() {
        let template = "{{{track}} {time} {duration_ms} {request.X-A}/{request.x-a} {endpoint}.";
        let format = AccessFormat::parse(template).unwrap();
        assert_eq!(format.fields(), ["x-a".into()]);
        let line = written(&format, &["one"]);
        assert_eq!(line, "{canary} 2026-03-01T12:00:00.250Z 12.034 one/one -.");
    }

    #[test]
    fn faults_of_templates_name_the_remedy() {
        for (template, says) in [
            ("{client", "without `}`"),
            ("{colour}", "known are time, time_clf"),
            ("{request.}", "is no field"),
            ("{request.a b}", "is no field"),
            ("plain", "names nothing"),
            ("", "names nothing"),
            ("{client}\n", "control character"),
        ] {
            let fault = AccessFormat::parse(template).unwrap_err();
            assert!(fault.contains(says), "{template}: {fault}");
        }
    }
}
