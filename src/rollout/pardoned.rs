//! What was pardoned: how often and why, by track.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::record::{Pardon, TrackShard};

/// Ends that were not their upstream's fault, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pardoned {
    /// The canary's, in the order of [`Pardon::ALL`].
    pub canary: Counts,
    /// Stable's.
    pub stable: Counts,
}

/// Ends of one track.
pub type Counts = [u64; Pardon::COUNT];

/// Ends by track and by why.
pub type Named = BTreeMap<&'static str, BTreeMap<&'static str, u64>>;

/// What workers counted of one track since they started.
#[must_use]
pub fn counted<'a>(shards: impl Iterator<Item = &'a TrackShard>) -> Counts {
    shards.fold(Counts::default(), |sums, shard| {
        std::array::from_fn(|reason| sums[reason] + shard.pardoned(Pardon::ALL[reason]))
    })
}

impl Pardoned {
    /// Adds what was pardoned later.
    pub fn add(&mut self, more: &Self) {
        for (sums, more) in [(&mut self.canary, more.canary), (&mut self.stable, more.stable)] {
            *sums = std::array::from_fn(|reason| sums[reason] + more[reason]);
        }
    }

    /// Whether nothing was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What came on top of `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let beyond = |now: Counts, before: Counts| {
            std::array::from_fn(|reason| now[reason].saturating_sub(before[reason]))
        };
        Self {
            canary: beyond(self.canary, before.canary),
            stable: beyond(self.stable, before.stable),
        }
    }

    /// By track and reason, where there were any.
    #[must_use]
    pub fn by_reason(&self) -> Named {
        let named = |counts: Counts| {
            let all =
                Pardon::ALL.into_iter().map(|reason| (reason.as_str(), counts[reason as usize]));
            all.filter(|(_, count)| *count > 0).collect()
        };
        [("canary", named(self.canary)), ("stable", named(self.stable))].into()
    }

    /// In words, the most frequent reason first; empty where nothing was pardoned.
    #[must_use]
    pub fn text(&self) -> String {
        let sum = |counts: &Counts| counts.iter().sum::<u64>();
        let (canary, stable) = (sum(&self.canary), sum(&self.stable));
        if self.is_empty() {
            return String::new();
        }
        let mut reasons: Vec<(u64, Pardon)> = Pardon::ALL
            .into_iter()
            .map(|reason| (self.canary[reason as usize] + self.stable[reason as usize], reason))
            .filter(|(count, _)| *count > 0)
            .collect();
        reasons.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        let mut text =
            format!("{canary} of the canary's and {stable} of stable's requests pardoned (");
        for (position, (count, reason)) in reasons.into_iter().enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            let _ = write!(text, "{comma}{count} {}", reason.as_str());
        }
        text.push(')');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_by_track_and_reason_the_most_frequent_first() {
        let mut pardoned = Pardoned::default();
        assert_eq!(pardoned.text(), "");
        let mut more = Pardoned::default();
        more.canary[Pardon::ClientLeft as usize] = 2;
        more.stable[Pardon::ClientLeft as usize] = 3;
        more.canary[Pardon::ClientStalled as usize] = 40;
        pardoned.add(&more);
        pardoned.add(&more);
        assert_eq!(pardoned.since(&more), more);
        assert_eq!(
            pardoned.text(),
            "84 of the canary's and 6 of stable's requests pardoned (80 client_stalled, 10 \
             client_left)"
        );
    }
}
