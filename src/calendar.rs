//! The wall clock, and how its times are written.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, by the machine's clock, which may jump: for people, never for durations.
#[must_use]
pub fn wall_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// A time in UTC, as RFC 3339 writes it: `2026-03-01T12:00:00Z`.
#[must_use]
pub fn rfc3339(at_ms: u64) -> String {
    Moment::of(at_ms).to_string()
}

/// A time as heads of HTTP say it (RFC 9110 §5.6.7): `Sun, 01 Mar 2026 12:00:00 GMT`.
#[must_use]
pub fn http_date(at_ms: u64) -> String {
    let Moment { year, month, day, hour, minute, second, .. } = Moment::of(at_ms);
    // 1970 began on a Thursday.
    let weekday = usize::try_from(at_ms / 86_400_000 % 7).map_or("", |index| WEEKDAYS[index]);
    let month = usize::try_from(month - 1).map_or("", |index| MONTHS[index]);
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Names of days, from the one on which 1970 began.
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];

/// Names of months as logs abbreviate them.
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A second of a day. Shown as RFC 3339 writes it: `2026-03-01T12:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Of our era.
    pub year: u64,
    /// From 1.
    pub month: u64,
    /// Of the month, from 1.
    pub day: u64,
    /// 0 to 23.
    pub hour: u64,
    /// 0 to 59.
    pub minute: u64,
    /// 0 to 59.
    pub second: u64,
    /// Milliseconds of the second, which only [`Self::precise`] shows.
    pub ms: u64,
}

impl Moment {
    /// What day and time it is `at_ms` after 1970 began.
    #[must_use]
    pub fn of(at_ms: u64) -> Self {
        let (days, second) = (at_ms / 86_400_000, at_ms / 1_000 % 86_400);
        // Howard Hinnant's days-to-civil algorithm, with years that begin in March.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Self {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: second / 3_600,
            minute: second / 60 % 60,
            second: second % 60,
            ms: at_ms % 1_000,
        }
    }

    /// With milliseconds: `2026-03-01T12:00:00.250Z`.
    #[must_use]
    pub fn precise(&self) -> String {
        let text = self.to_string();
        format!("{}.{:03}Z", text.trim_end_matches('Z'), self.ms)
    }

    /// As the Common Log Format has it: `01/Mar/2026:12:00:00 +0000`.
    #[must_use]
    pub fn common_log(&self) -> String {
        let Self { year, month, day, hour, minute, second, .. } = self;
        let month = usize::try_from(month - 1).map_or("", |index| MONTHS[index]);
        format!("{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000")
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, second, .. } = self;
        write!(formatter, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leap_days_and_turns_of_the_year() {
        // By `date -u -d @SECONDS`.
        for (at_s, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Moment::of(at_s * 1_000).to_string(), text);
        }
        let moment = Moment::of(1_772_366_400_250);
        assert_eq!(moment.precise(), "2026-03-01T12:00:00.250Z");
        assert_eq!(moment.common_log(), "01/Mar/2026:12:00:00 +0000");
        assert_eq!(http_date(1_772_366_400_250), "Sun, 01 Mar 2026 12:00:00 GMT");
        // The example of RFC 9110.
        assert_eq!(http_date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
