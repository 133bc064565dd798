//! A line of the log: the only place that writes one, so that no text that reaches it can end it,
//! pass for another field, or act on the terminal that shows it.

use std::fmt::{self, Debug};

use serde_json::{Map, Value as Json};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::registry::LookupSpan;

use crate::plain;

use super::LogFormat;

/// The name of what an event says in words.
const MESSAGE: &str = "message";

/// Writes events as lines.
pub(super) struct Lines(pub(super) LogFormat);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (level, target) = (event.metadata().level(), event.metadata().target());
        match self.0 {
            LogFormat::Text => {
                write!(writer, "{time} {level:>5} {}", fields.message)?;
                for (name, value) in &fields.others {
                    match value {
                        Json::String(text) => write!(writer, " {name}={}", plain::value(text))?,
                        other => write!(writer, " {name}={other}")?,
                    }
                }
                writeln!(writer)
            }
            LogFormat::Json => {
                let mut line = Map::new();
                line.insert("timestamp".into(), time.into());
                line.insert("level".into(), level.to_string().into());
                line.insert(MESSAGE.into(), fields.message.into());
                line.extend(fields.others);
                line.insert("target".into(), target.into());
                writeln!(writer, "{}", plain::json(&Json::Object(line).to_string()))
            }
        }
    }
}

/// What an event carries, each text bounded.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Json>,
}

impl Fields {
    fn take(&mut self, field: &Field, text: &str) {
        if field.name() == MESSAGE {
            self.message = plain::line(text).into_owned();
        } else {
            let text = plain::cut(text, plain::LINE_CHARS_MAX).into_owned();
            self.others.insert(field.name().into(), text.into());
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.take(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.others.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.others.insert(field.name().into(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.others.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.others.insert(field.name().into(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What stands in the log.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat, says: impl FnOnce()) -> String {
        let log = Log::default();
        let to = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(Lines(format))
            .with_writer(move || to.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, says);
        String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
    }

    /// What others say: a forged line, a forged field, and what terminals obey.
    const FOREIGN: &str = "x\n2026-01-01T00:00:00Z  INFO all is well service=\"shop\" \u{1b}[2J\u{9b}31m\u{202e}\u{2028}\u{7f}";

    fn everything(format: LogFormat) -> String {
        let (error, long) = (std::io::Error::other(FOREIGN), FOREIGN.repeat(10_000));
        written(format, || {
            tracing::info!(count = 3_u64, is_on = true, address = "10.0.0.1:80", "plain");
            tracing::info!(%error, quoted = ?FOREIGN, text = FOREIGN, "an error");
            tracing::info!(text = long, why = %long, "{long}");
        })
    }

    #[test]
    fn a_line_of_text_cannot_be_forged() {
        let text = everything(LogFormat::Text);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].ends_with(" INFO plain count=3 is_on=true address=10.0.0.1:80"), "{text}");
        assert!(!text.chars().any(|char| plain::acts(char) && char != '\n'), "{text:?}");
        // The only `service=` outside of quotation marks would be a field.
        let outside: String =
            lines[1].replace("\\\\", "").replace("\\\"", "").split('"').step_by(2).collect();
        assert!(!outside.contains("service="), "{}", lines[1]);
        assert!(text.len() < 30_000, "{} bytes", text.len());
    }

    #[test]
    fn a_line_of_json_cannot_be_forged() {
        let text = everything(LogFormat::Json);
        let lines: Vec<Json> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!((&lines[0]["count"], &lines[0]["is_on"]), (&3.into(), &true.into()));
        assert_eq!(lines[1]["text"], FOREIGN);
        assert!(!text.chars().any(|char| plain::acts(char) && char != '\n'), "{text:?}");
        assert!(text.len() < 60_000, "{} bytes", text.len());
    }
}
