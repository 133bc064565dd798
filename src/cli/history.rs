//! `splitway history`: what moved a rollout, when and why.

use clap::Args;
use serde_json::Value as Json;

use super::client::{Client, fail};
use super::{DONE, print};

/// List what moved a rollout, when and why.
#[derive(Debug, Args)]
pub struct History {
    /// The service; may be omitted where only one has a rollout
    service: Option<String>,
    #[command(flatten)]
    client: Client,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl History {
    /// Runs the command and returns its exit code.
    #[must_use]
    pub fn run(self) -> u8 {
        let found = self
            .client
            .service(self.service.as_deref())
            .and_then(|service| self.client.get(&format!("/api/v1/services/{service}/history")));
        match found {
            Ok(found) if self.json => print(&format!("{found:#}\n")),
            Ok(found) => {
                let list = found["history"].as_array().cloned().unwrap_or_default();
                print(&list.iter().map(line).collect::<String>());
            }
            Err(error) => return fail(&error),
        }
        DONE
    }
}

/// One transition as a line: time, version, phases, weights, evidence, who and why.
#[must_use]
pub fn line(transition: &Json) -> String {
    let text = |key: &str| transition[key].as_str().unwrap_or("-").to_owned();
    let time = time(transition["at_ms"].as_u64().unwrap_or(0));
    let (version, from, to) = (text("version"), text("from"), text("to"));
    let percent = |key: &str| transition[key].as_f64().unwrap_or(0.0);
    let (before, after) = (percent("weight_before"), percent("weight"));
    let e = transition["e"].as_f64().unwrap_or(0.0);
    let attempt = match transition["attempt"].as_u64() {
        Some(attempt) if attempt > 1 => format!(" (attempt {attempt})"),
        _ => String::new(),
    };
    format!(
        "{time}  {version}{attempt}  {from} → {to}  {before} → {after} %  evidence {e:.2}  {}: {}\n",
        text("actor"),
        text("why")
    )
}

/// A time in UTC, as RFC 3339 writes it: `2026-03-01T12:00:00Z`.
#[must_use]
pub fn time(at_ms: u64) -> String {
    let (days, second) = (at_ms / 86_400_000, at_ms / 1_000 % 86_400);
    // Howard Hinnant's days-to-civil algorithm, with years that begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (at_ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_767_225_599_999, "2025-12-31T23:59:59Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(time(at_ms), text);
        }
    }
}
