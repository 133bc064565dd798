//! Commands as they come over the admin API: a word in the path, and JSON where it says more.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::time::timeout;

use crate::plain;
use crate::rollout::Command;
use crate::rollout::plan::percent::from_percent;

/// Largest body of a command.
const BODY_BYTES_MAX: usize = 4 * 1024;
/// How long a client may take for it.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest name of an actor.
const ACTOR_CHARS_MAX: usize = 64;

/// What a command's body may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    /// Who asks, as they say, for the journal.
    actor: Option<String>,
    /// `promote`: to the last stage at once.
    #[serde(default)]
    full: bool,
    /// `promote`: although the evidence speaks against it.
    #[serde(default)]
    force: bool,
    /// `weight`: the canary's share in percent.
    weight: Option<f64>,
}

/// A status and a sentence for whoever asked.
type Refused = (StatusCode, String);

/// A request with its whole body, or why it has none.
pub(super) type Asked = Request<Result<Bytes, Refused>>;

/// Reads the whole body of a request. Only then is there something to do for its client.
pub(super) async fn collect(request: Request<Incoming>) -> Asked {
    let (parts, body) = request.into_parts();
    let read = timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    let body = match read {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => {
            let why = "the body is too large or broke off";
            Err((StatusCode::PAYLOAD_TOO_LARGE, why.to_owned()))
        }
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body came too slowly".to_owned())),
    };
    Request::from_parts(parts, body)
}

/// Reads the command `word` and who its sender says to be.
///
/// # Errors
/// A status and a sentence for whoever asked.
pub(super) fn read(
    word: &str,
    body: Result<Bytes, Refused>,
) -> Result<(Command, Option<String>), Refused> {
    parse(word, &body?)
}

fn parse(word: &str, bytes: &Bytes) -> Result<(Command, Option<String>), Refused> {
    let bad = |why: String| (StatusCode::BAD_REQUEST, why);
    let body: Body = if bytes.is_empty() {
        Body::default()
    } else {
        serde_json::from_slice(bytes)
            .map_err(|error| bad(format!("the body is no command: {error}")))?
    };
    let command = match word {
        "pause" => Command::Pause,
        "resume" => Command::Resume,
        "promote" => Command::Promote { full: body.full, force: body.force },
        "rollback" | "abort" => Command::Rollback,
        "retry" => Command::Retry,
        "weight" => {
            let weight = body.weight.and_then(from_percent);
            let weight = weight.ok_or_else(|| {
                bad("write {\"weight\": PERCENT} with a number from 0 to 100".into())
            })?;
            Command::SetWeight(weight)
        }
        _ => {
            let known = "known: pause, resume, promote, rollback, retry, weight";
            return Err((StatusCode::NOT_FOUND, format!("`{word}` is no command; {known}")));
        }
    };
    let is_plain = |actor: &String| {
        !actor.is_empty()
            && actor.chars().count() <= ACTOR_CHARS_MAX
            && !actor.chars().any(plain::acts)
    };
    if !body.actor.as_ref().is_none_or(is_plain) {
        return Err(bad(format!("`actor` needs 1 to {ACTOR_CHARS_MAX} printable characters")));
    }
    Ok((command, body.actor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::track::Weight;

    #[test]
    fn commands_are_words_with_a_little_json() {
        let parse =
            |word: &str, body: &'static str| parse(word, &Bytes::from_static(body.as_bytes()));
        assert_eq!(parse("pause", "").unwrap(), (Command::Pause, None));
        let promote = Command::Promote { full: true, force: false };
        assert_eq!(
            parse("promote", r#"{"full":true,"actor":"ann"}"#).unwrap(),
            (promote, Some("ann".into()))
        );
        let weight = Weight::from_basis_points(1_250).unwrap();
        assert_eq!(parse("weight", r#"{"weight":12.5}"#).unwrap().0, Command::SetWeight(weight));
        for (word, body) in [
            ("weight", ""),
            ("weight", r#"{"weight":101}"#),
            ("pause", r#"{"ful":true}"#),
            ("pause", "[]"),
            ("pause", r#"{"actor":""}"#),
            ("pause", r#"{"actor":"a\nb"}"#),
            ("pause", r#"{"actor":"a\u202eb"}"#),
            ("explode", ""),
        ] {
            assert!(parse(word, body).is_err(), "{word} {body}");
        }
    }
}
