//! `splitway status`: what a running gateway does, from its admin API.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value as Json;

use super::client::{Client, fail};
use super::{DONE, FAILED, UNDECIDED, print, print_json, shown};

/// How often a rollout that is waited for is looked at.
const WAIT_EVERY: Duration = Duration::from_millis(500);

/// Show what a running gateway does.
#[derive(Debug, Args)]
pub struct Status {
    /// Only this service
    service: Option<String>,
    #[command(flatten)]
    client: Client,
    /// Wait until the rollout has ended: 0 promoted, 1 rolled back, 3 undecided
    #[arg(long)]
    wait: bool,
    /// How long to wait at most, like 90s, 30m or 1h
    #[arg(long, default_value = "1h", requires = "wait", value_parser = span)]
    timeout: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    /// Runs the command and returns its exit code.
    #[must_use]
    pub fn run(self) -> u8 {
        let result = if self.wait { self.wait() } else { self.fetch().map(|all| (all, DONE)) };
        match result {
            Ok((status, code)) => {
                let status = self.filtered(status);
                if self.json {
                    print_json(&status);
                } else {
                    print(&table(&shown(&status)));
                }
                code
            }
            Err(error) => fail(&error),
        }
    }

    /// Waits for the end of the rollout, which decides the exit code.
    fn wait(&self) -> Result<(Json, u8), String> {
        let service = self.client.service(self.service.as_deref())?;
        let until = Instant::now() + self.timeout;
        loop {
            let status = self.fetch()?;
            let services = status["services"].as_array().cloned().unwrap_or_default();
            let found = services.iter().find(|one| one["name"] == *service);
            let rollout = found.map_or(Json::Null, |one| one["rollout"].clone());
            if rollout.is_null() {
                return Err(format!("`{service}` has no rollout"));
            }
            let promoted_idle = rollout["phase"] == "idle" && rollout["promoted"] == true;
            let code = match rollout["phase"].as_str() {
                Some("promoted") => Some(DONE),
                _ if promoted_idle => Some(DONE),
                Some("rolled_back") => Some(FAILED),
                _ if Instant::now() >= until => Some(UNDECIDED),
                _ => None,
            };
            if let Some(code) = code {
                return Ok((status, code));
            }
            std::thread::sleep(WAIT_EVERY);
        }
    }

    fn fetch(&self) -> Result<Json, String> {
        self.client.status()
    }

    fn filtered(&self, mut status: Json) -> Json {
        if let (Some(name), Some(services)) = (&self.service, status["services"].as_array_mut()) {
            services.retain(|service| service["name"] == **name);
        }
        status
    }
}

/// Reads `90s`, `30m`, `1h`, or a number of seconds.
///
/// # Errors
/// In words.
fn span(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit_s = match &text[digits..] {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        _ => None,
    };
    let number: Option<u64> = text[..digits].parse().ok();
    let seconds = number.zip(unit_s).and_then(|(number, unit_s)| number.checked_mul(unit_s));
    // A year bounds every sum with the present away from overflow.
    let seconds = seconds.filter(|seconds| *seconds <= 365 * 86_400);
    seconds.map(Duration::from_secs).ok_or("write a duration like 90s, 30m or 1h".into())
}

/// The status for people: a line per track.
fn table(status: &Json) -> String {
    let mut rows = vec![
        ["SERVICE", "TRACK", "VERSION", "WEIGHT", "REQUESTS", "5XX", "ENDPOINTS"]
            .map(str::to_owned),
    ];
    let list = |value: &Json| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Json| value.as_str().unwrap_or("-").to_owned();
    for service in list(&status["services"]) {
        for track in list(&service["tracks"]) {
            let counts = track["statuses"].as_object().cloned().unwrap_or_default();
            let requests: u64 = counts.values().filter_map(Json::as_u64).sum();
            rows.push([
                text(&service["name"]),
                text(&track["name"]),
                text(&track["version"]),
                format!("{} %", track["weight"].as_f64().unwrap_or(0.0)),
                requests.to_string(),
                track["statuses"]["5xx"].to_string(),
                list(&track["endpoints"]).len().to_string(),
            ]);
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    for service in list(&status["services"]) {
        if let Some(explain) = service["rollout"]["explain"].as_str() {
            let _ = writeln!(out, "{}: {explain}", text(&service["name"]));
        }
    }
    if status["config"]["last_reload_successful"] == false {
        out.push_str("The last reload was refused; the configuration before it serves on.\n");
    }
    out
}
