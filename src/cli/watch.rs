//! `splitway watch`: every rollout live in the terminal.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use serde_json::Value as Json;

use crate::plain;

use super::client::{Client, fail};
use super::{DONE, draw, print, shown};

/// How long a lost gateway is left alone before it is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Width of bars.
const BAR: usize = 20;

/// Show every rollout live; in a file or a pipe, a line for every change.
#[derive(Debug, Args)]
pub struct Watch {
    /// Only this service
    service: Option<String>,
    #[command(flatten)]
    client: Client,
    /// Show it once and end, for logs
    #[arg(long)]
    once: bool,
}

impl Watch {
    /// Runs the command and returns its exit code. Without `--once` it ends by Ctrl-C.
    #[must_use]
    pub fn run(self) -> u8 {
        let is_live = std::io::stdout().is_terminal() && !self.once;
        let ink = Ink(std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none());
        let mut said = String::new();
        loop {
            let ended = self.client.follow(|event| {
                let event = &shown(event);
                if self.once {
                    draw(&view(event, self.service.as_deref(), ink));
                } else if is_live {
                    let head =
                        format!("splitway at {}, live; Ctrl-C ends\n\n", self.client.address());
                    let text = view(event, self.service.as_deref(), ink);
                    // Home, and each line up to its end: what stays does not flicker.
                    let text = format!("{head}{text}").replace('\n', "\x1b[K\n");
                    draw(&format!("\x1b[H{text}\x1b[J"));
                } else {
                    let (state, lines) = lines(event, self.service.as_deref());
                    if state != said {
                        print(&lines);
                        said = state;
                    }
                }
                !self.once
            });
            match ended {
                Ok(()) => return DONE,
                Err(lost) if self.once || lost.is_final => return fail(&lost.why),
                Err(lost) => {
                    let lines = format!("not live: {}; trying again\n", plain::line(&lost.why));
                    if lines != said {
                        print(&lines);
                        said = lines;
                    }
                }
            }
            std::thread::sleep(RETRY_AFTER);
        }
    }
}

/// Colours, where they are wanted.
#[derive(Clone, Copy)]
struct Ink(bool);

impl Ink {
    fn paint(self, mood: &str, text: &str) -> String {
        let code = match mood {
            "good" => "32",
            "doubtful" => "33",
            "bad" => "31",
            _ => "0",
        };
        if self.0 { format!("\x1b[1;{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn services<'a>(event: &'a Json, named: Option<&'a str>) -> impl Iterator<Item = &'a Json> {
    let all = event["status"]["services"].as_array().map_or(&[][..], Vec::as_slice);
    all.iter().filter(move |one| named.is_none_or(|named| one["name"] == *named))
}

/// What has to change before there is something to say, and a line per rollout that says it.
fn lines(event: &Json, named: Option<&str>) -> (String, String) {
    let (mut state, mut out) = (String::new(), String::new());
    for one in services(event, named).filter(|one| !one["rollout"].is_null()) {
        let (name, rollout) = (text(&one["name"]), &one["rollout"]);
        let (phase, mood) = (text(&rollout["phase"]), text(&rollout["outlook"]["mood"]));
        let weight = weight(rollout);
        let _ = write!(state, "{name} {phase} {weight} {mood} ");
        let headline = text(&rollout["outlook"]["headline"]);
        let _ = writeln!(out, "{name}: {phase} at {weight} %. {headline}");
    }
    (state, out)
}

/// The canary's weight in percent.
fn weight(rollout: &Json) -> f64 {
    rollout["weight"].as_f64().unwrap_or(0.0)
}

/// Everything, for a person.
fn view(event: &Json, named: Option<&str>, ink: Ink) -> String {
    let mut out = String::new();
    for service in services(event, named) {
        let name = text(&service["name"]);
        let rollout = &service["rollout"];
        if rollout.is_null() {
            let _ = writeln!(out, "{name}: no rollout");
        } else {
            head(&mut out, name, rollout, ink);
        }
        tracks(&mut out, service, &event["points"][name]["ten_seconds"]);
        if !rollout.is_null() {
            conditions(&mut out, rollout);
        }
        out.push('\n');
    }
    if out.is_empty() {
        out.push_str("no such service\n");
    }
    out
}

fn head(out: &mut String, name: &str, rollout: &Json, ink: Ink) {
    let (stable, canary) = (text(&rollout["stable_version"]), text(&rollout["version"]));
    let phase = text(&rollout["phase"]).replace('_', " ");
    let _ = writeln!(out, "{name}  {stable} → {canary}  {phase} at {} %", weight(rollout));
    let outlook = &rollout["outlook"];
    let _ = writeln!(out, "  {}", ink.paint(text(&outlook["mood"]), text(&outlook["headline"])));
    for (title, key) in [("How sure", "certainty"), ("Cost", "cost"), ("Next", "next")] {
        let says = text(&outlook[key]);
        if !says.is_empty() {
            let _ = writeln!(out, "  {title:<9} {says}");
        }
    }
    let number = |key: &str| rollout[key].as_f64().unwrap_or(1.0);
    let (e, limit) = (number("e"), number("limit"));
    let far = (e.max(1.0).ln() / limit.max(1.01).ln()).clamp(0.0, 1.0);
    let _ = writeln!(out, "  Evidence  {} {e:.2} of {limit:.0}", bar(far));
}

fn tracks(out: &mut String, service: &Json, figures: &Json) {
    let titles = ["", "weight", "share", "req/s", "errors", "p50", "p90", "p99"];
    let mut rows = vec![titles.map(str::to_owned)];
    for track in service["tracks"].as_array().map_or(&[][..], Vec::as_slice) {
        let name = text(&track["name"]);
        let last = |key: &str| figures[name][key].as_array().and_then(|list| list.last()?.as_f64());
        let percent =
            |key: &str| last(key).map_or("–".into(), |share| format!("{:.2} %", share * 100.0));
        let ms = |key: &str| last(key).map_or("–".into(), |ms| format!("{ms:.1} ms"));
        rows.push([
            name.to_owned(),
            format!("{} %", track["weight"].as_f64().unwrap_or(0.0)),
            percent("share"),
            last("rps").map_or("–".into(), |rps| format!("{rps:.0}")),
            percent("errors"),
            ms("p50_ms"),
            ms("p90_ms"),
            ms("p99_ms"),
        ]);
    }
    let cuts = &service["rollout"]["cuts_ms"]["canary"];
    if cuts.is_array() {
        let ms =
            |index: usize| cuts[index].as_f64().map_or("–".into(), |ms| format!("{ms:.1} ms"));
        let mut limits = [const { String::new() }; 8];
        limits[0] = "limit".into();
        (limits[6], limits[7]) = (ms(1), ms(0));
        rows.push(limits);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; 8] = std::array::from_fn(|column| width(column).unwrap_or(0));
    for row in rows {
        let _ = write!(out, "  {:<width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(widths).skip(1) {
            let _ = write!(out, "  {cell:>width$}");
        }
        out.push('\n');
    }
}

fn conditions(out: &mut String, rollout: &Json) {
    let conditions = &rollout["outlook"]["conditions"];
    for condition in conditions.as_array().map_or(&[][..], Vec::as_slice) {
        let mark = if condition["holds"] == true { '✓' } else { '…' };
        let far = bar(condition["progress"].as_f64().unwrap_or(0.0));
        let (name, says) = (text(&condition["name"]), text(&condition["says"]));
        let _ = writeln!(out, "  {mark} {name:<9} {far} {says}");
    }
}

fn text(value: &Json) -> &str {
    value.as_str().unwrap_or_default()
}

/// How far something is, from 0 to 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of twenty"
)]
fn bar(share: f64) -> String {
    let full = (share.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full))
}
