//! The words that every layer shares: weights in basis points and the index of a track.

use std::fmt;
use std::str::FromStr;

/// Most tracks that one service may have.
///
/// A rollout has two; comparisons of a few versions fit; per-track arrays stay small enough to
/// live inside one cohort slot.
pub const TRACKS_MAX: usize = 8;

/// The number of buckets that a draw falls into: one per basis point.
pub const BUCKETS: u16 = 10_000;

/// A track's share in basis points, 0 to 10,000 (10,000 is all traffic).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u16);

/// Why a text or number is no weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeightError {
    /// Not a decimal number.
    #[error("is not a number; write a percentage from 0 to 100")]
    NotANumber,
    /// Below 0 or above 100 percent.
    #[error("is outside 0 to 100 percent")]
    OutOfRange,
    /// More than two decimals.
    #[error("has more than two decimals; the finest step is 0.01 percent")]
    TooFine,
}

impl Weight {
    /// No traffic.
    pub const ZERO: Self = Self(0);
    /// All traffic.
    pub const FULL: Self = Self(BUCKETS);

    /// A weight of `basis_points`, or `None` above 10,000.
    #[must_use]
    pub const fn from_basis_points(basis_points: u16) -> Option<Self> {
        if basis_points <= BUCKETS { Some(Self(basis_points)) } else { None }
    }

    /// The weight in basis points, 0 to 10,000.
    #[must_use]
    pub const fn basis_points(self) -> u16 {
        self.0
    }

    /// What is left of all traffic.
    #[must_use]
    pub const fn rest(self) -> Self {
        Self(BUCKETS - self.0)
    }

    /// The weight as a ratio, 0.0 to 1.0.
    #[must_use]
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / f64::from(BUCKETS)
    }
}

impl FromStr for Weight {
    type Err = WeightError;

    /// Reads a percentage with up to two decimals exactly, without going through floating point.
    fn from_str(text: &str) -> Result<Self, WeightError> {
        let text = text.trim();
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if let Some(positive) = text.strip_prefix('-') {
            let is_number = positive.parse::<f64>().is_ok();
            return Err(if is_number { WeightError::OutOfRange } else { WeightError::NotANumber });
        }
        if whole.is_empty() || !digits(whole) || !digits(fraction) {
            return Err(WeightError::NotANumber);
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > 2 {
            return Err(WeightError::TooFine);
        }
        let percent: u32 = whole.parse().map_err(|_| WeightError::OutOfRange)?;
        let hundredths: u32 = format!("{fraction:0<2}").parse().unwrap_or(0);
        percent
            .checked_mul(100)
            .and_then(|value| value.checked_add(hundredths))
            .and_then(|value| u16::try_from(value).ok())
            .and_then(Self::from_basis_points)
            .ok_or(WeightError::OutOfRange)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (percent, hundredths) = (self.0 / 100, self.0 % 100);
        match hundredths {
            0 => write!(out, "{percent}"),
            h if h % 10 == 0 => write!(out, "{percent}.{}", h / 10),
            h => write!(out, "{percent}.{h:02}"),
        }
    }
}

/// The place of a track in its service's live record; stable for as long as the service lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackIndex(u8);

impl TrackIndex {
    /// The index `position`, or `None` from [`TRACKS_MAX`] on.
    #[must_use]
    pub fn new(position: usize) -> Option<Self> {
        u8::try_from(position).ok().filter(|_| position < TRACKS_MAX).map(Self)
    }

    /// The index as a position in an array of [`TRACKS_MAX`].
    #[must_use]
    pub const fn position(self) -> usize {
        self.0 as usize
    }
}

/// One value per track of a service, addressed by [`TrackIndex`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackMap<T>([T; TRACKS_MAX]);

impl<T: Default> Default for TrackMap<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| T::default()))
    }
}

impl<T> std::ops::Index<TrackIndex> for TrackMap<T> {
    type Output = T;

    fn index(&self, track: TrackIndex) -> &T {
        &self.0[track.position()]
    }
}

impl<T> std::ops::IndexMut<TrackIndex> for TrackMap<T> {
    fn index_mut(&mut self, track: TrackIndex) -> &mut T {
        &mut self.0[track.position()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_read_exactly() {
        for (text, basis_points) in
            [("0", 0), ("5", 500), ("0.01", 1), ("33.3", 3_330), ("33.34", 3_334), ("100", 10_000)]
        {
            assert_eq!(text.parse::<Weight>(), Ok(Weight(basis_points)), "{text}");
        }
        assert_eq!("5.500".parse::<Weight>(), Ok(Weight(550)));
    }

    #[test]
    fn what_is_no_percentage_says_why() {
        for (text, error) in [
            ("", WeightError::NotANumber),
            ("five", WeightError::NotANumber),
            ("+5", WeightError::NotANumber),
            ("1e1", WeightError::NotANumber),
            ("-1", WeightError::OutOfRange),
            ("100.01", WeightError::OutOfRange),
            ("99999999999", WeightError::OutOfRange),
            ("0.001", WeightError::TooFine),
        ] {
            assert_eq!(text.parse::<Weight>(), Err(error), "{text}");
        }
    }

    #[test]
    fn display_reads_back() {
        for basis_points in 0..=BUCKETS {
            let weight = Weight(basis_points);
            assert_eq!(weight.to_string().parse(), Ok(weight));
        }
    }
}
