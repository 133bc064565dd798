//! The section of notifications.

use serde_json::{Value as Json, json};

use crate::notify::{Format, Kind, Receiver, Secret};
use crate::outbound::Url;

use super::choices::choice;
use super::node::Node;
use super::questions::{UrlValue, contact, fields};
use super::section::{Reader, Value, section};
use super::types::Config;
use super::values::{At, Named, Span, Whole};

/// Most receivers: each has a queue and a task.
const RECEIVERS_MAX: usize = 20;

section! {
    /// Who is told of what rollouts do. A receiver that hangs or fails delays nothing.
    pub struct Notification {
        /// What it is called, in logs and metrics.
        pub name: At<String> = required,
        /// Where it is. This or `url_file`.
        pub url: Option<UrlValue> = or(None),
        /// A file that holds the address, where that is a secret, as Slack's are.
        pub url_file: Option<At<String>> = or(None),
        /// `slack`, `teams`, `cloudevents` (1.0, structured), or `json` (the plain event).
        pub format: Format = or(Format::Json),
        /// Of what: transition, hold, alarm.
        pub events: Vec<Kind> = or(vec![Kind::Transition, Kind::Hold, Kind::Alarm]),
        /// Of which services; empty: of all.
        pub services: Vec<At<String>> = or(Vec::new()),
        /// A file with a secret of Standard Webhooks (`whsec_…`), which signs what is sent.
        pub secret_file: Option<At<String>> = or(None),
        /// Further fields of the request.
        pub headers: Named<At<String>> = or(Named(Vec::new())),
        /// A file whose content is sent as a bearer token.
        pub token_file: Option<At<String>> = or(None),
        /// For an answer.
        pub timeout: Span = or(Span::seconds(10)),
        /// How often it is sent again, after 1 s, 2 s, and so on up to a minute.
        pub retries: Whole<0, 100> = or(Whole(8)),
    }
}

choice!(Format, "slack" => Format::Slack, "teams" => Format::Teams,
    "cloudevents" => Format::CloudEvents, "json" => Format::Json);
choice!(Kind, "transition" => Kind::Transition, "hold" => Kind::Hold, "alarm" => Kind::Alarm);

/// Notes everything that is wrong with the notifications.
pub(super) fn validate(config: &Config, check: &mut Reader) {
    for (index, one) in config.notifications.iter().enumerate() {
        check.below_index(index, |check| {
            let (name, place) = (&one.name.value, one.name.place);
            if name.is_empty() || name.len() > 60 || name.chars().any(char::is_control) {
                check.fault(place, "`name` needs 1 to 60 printable characters");
            }
            if config.notifications[..index].iter().any(|other| other.name.value == *name) {
                check.fault(place, format!("`{name}` is the name of another receiver"));
            }
            if index == RECEIVERS_MAX {
                check.fault(place, format!("is one too many; {RECEIVERS_MAX} are allowed"));
            }
            if one.url.is_some() == one.url_file.is_some() {
                check.fault(place, "needs an address: write `url`, or `url_file`, and not both");
            }
            for service in &one.services {
                if !config.services.iter().any(|known| known.name.value == service.value) {
                    let message = format!("`{}` is no service of this file", service.value);
                    check.below("services", |check| check.fault(service.place, message));
                }
            }
            fields(&one.headers, check);
        });
    }
}

/// A receiver, with what its files hold.
pub(super) fn receiver(
    section: &Notification,
    url: Url,
    secret: Option<Secret>,
    folder: &std::path::Path,
) -> Receiver {
    Receiver {
        name: section.name.value.clone(),
        webhook: contact(
            url,
            (&section.headers, section.token_file.as_ref()),
            section.timeout,
            folder,
        ),
        format: section.format,
        events: section.events.clone(),
        services: section.services.iter().map(|service| service.value.clone()).collect(),
        secret,
        retries: section.retries.0,
    }
}
