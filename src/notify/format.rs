//! News in the words of whoever receives it. Pure.

use serde_json::{Value as Json, json};

use crate::calendar::rfc3339;

use super::event::{Event, Tone};

/// Longest text that is sent: Slack takes 3,000 characters in a block.
const TEXT_CHARS_MAX: usize = 2_500;

/// How a receiver wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An incoming webhook of Slack (Block Kit).
    Slack,
    /// A workflow of Microsoft Teams (an adaptive card).
    Teams,
    /// `CloudEvents` 1.0 in JSON.
    CloudEvents,
    /// The plain event.
    Json,
}

impl Format {
    /// The media type of the body.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::CloudEvents => "application/cloudevents+json; charset=utf-8",
            _ => "application/json",
        }
    }

    /// The body.
    #[must_use]
    pub fn body(self, event: &Event) -> Json {
        match self {
            Self::Slack => slack(event),
            Self::Teams => teams(event),
            Self::CloudEvents => cloud_event(event),
            Self::Json => event.data(),
        }
    }
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(TEXT_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// <https://docs.slack.dev/messaging/formatting-message-text#escaping>
fn escaped(text: &str) -> String {
    shortened(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn slack(event: &Event) -> Json {
    let color = match event.tone {
        Tone::Good => "#166534",
        Tone::Neutral => "#64748b",
        Tone::Doubtful => "#b45309",
        Tone::Bad => "#b91c1c",
    };
    let title = escaped(&event.title);
    let facts: Vec<String> =
        event.facts.iter().map(|(name, value)| format!("*{name}* {}", escaped(value))).collect();
    let mut blocks = vec![json!({
        "type": "section",
        "text": { "type": "mrkdwn", "text": format!("*{title}*\n{}", escaped(&event.text)) },
    })];
    if !facts.is_empty() {
        let text = facts.join("  ");
        blocks.push(json!({
            "type": "context",
            "elements": [{ "type": "mrkdwn", "text": shortened(&text) }],
        }));
    }
    json!({ "text": title, "attachments": [{ "color": color, "blocks": blocks }] })
}

fn teams(event: &Event) -> Json {
    let color = match event.tone {
        Tone::Good => "Good",
        Tone::Neutral => "Default",
        Tone::Doubtful => "Warning",
        Tone::Bad => "Attention",
    };
    let facts: Vec<Json> = event
        .facts
        .iter()
        .map(|(name, value)| json!({ "title": name, "value": shortened(value) }))
        .collect();
    let text = |text: &str| json!({ "type": "TextBlock", "text": shortened(text), "wrap": true });
    let mut title = text(&event.title);
    title["weight"] = "Bolder".into();
    title["color"] = color.into();
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": [title, text(&event.text), { "type": "FactSet", "facts": facts }],
            },
        }],
    })
}

/// <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>
fn cloud_event(event: &Event) -> Json {
    let mut cloud = json!({
        "specversion": "1.0",
        "id": event.id,
        "source": "splitway",
        "type": format!("splitway.rollout.{}", event.kind.as_str()),
        "time": rfc3339(event.at_ms),
        "datacontenttype": "application/json",
        "data": event.data(),
    });
    // A subject must not be empty.
    if !event.service.is_empty() {
        cloud["subject"] = event.service.clone().into();
    }
    cloud
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::event::Kind;

    fn event(text: &str) -> Event {
        Event {
            id: "api-1-1".into(),
            kind: Kind::Transition,
            service: "api".into(),
            at_ms: 1_767_225_599_999,
            title: "api: v2 was rolled back".into(),
            text: text.into(),
            tone: Tone::Bad,
            facts: vec![("weight", "0 %".into())],
        }
    }

    #[test]
    fn what_has_a_meaning_to_slack_is_escaped_and_long_texts_are_cut() {
        let body = Format::Slack.body(&event("<!channel> errors > 5 & more"));
        let text = body["attachments"][0]["blocks"][0]["text"]["text"].as_str().expect("a text");
        assert!(text.contains("&lt;!channel&gt; errors &gt; 5 &amp; more"), "{text}");
        let long = Format::Slack.body(&event(&"é".repeat(10_000)));
        let text = long["attachments"][0]["blocks"][0]["text"]["text"].as_str().expect("a text");
        assert!(text.chars().count() < 3_000 && text.ends_with('…'));
    }

    #[test]
    fn a_card_and_a_cloud_event_have_what_their_readers_need() {
        let card = Format::Teams.body(&event("why"));
        let content = &card["attachments"][0]["content"];
        assert_eq!(content["body"][0]["color"], "Attention");
        assert_eq!(content["body"][2]["facts"][0], json!({ "title": "weight", "value": "0 %" }));
        let cloud = Format::CloudEvents.body(&event("why"));
        assert_eq!(cloud["time"], "2025-12-31T23:59:59Z");
        assert_eq!(
            (&cloud["type"], &cloud["subject"]),
            (&"splitway.rollout.transition".into(), &"api".into())
        );
    }
}
