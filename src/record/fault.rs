//! Whose fault the end of a request is, and the words for what speaks against nobody's upstream.
//!
//! An outcome is what the upstream did, and nothing that a client or we ourselves did. What ends
//! by one of the [`Pardon`]s is out of the judge's evidence, of ejection and of back-off alike.

/// Whose doing an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The upstream's.
    Upstream,
    /// The client's.
    Client,
    /// The gateway's.
    Ours,
    /// The client's and the upstream's: nobody can tell which of them it would have been alone.
    Shared,
}

impl Fault {
    /// In a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Client => "client",
            Self::Ours => "ours",
            Self::Shared => "shared",
        }
    }
}

/// Why the end of a request is not its upstream's fault; the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pardon {
    /// The client left.
    ClientLeft,
    /// The client did not take the answer.
    ClientStalled,
    /// The client's body did not come, not in time, or not as it may.
    ClientBody,
    /// The time that the client itself allows was over.
    ClientDeadline,
    /// The track's protocol has no words for the request.
    Unsayable,
    /// No file descriptor, port or buffer was left for a connection to the upstream.
    Descriptors,
    /// As many requests of the track were under way as may be.
    InFlight,
    /// As many connections to its endpoints were open as may be.
    Connections,
    /// We ended it: a drain, a rollback's last term, a panic.
    Ended,
    /// Upstream or we ended what the client had held up for most of its time.
    HeldUp,
}

impl Pardon {
    /// How many there are.
    pub const COUNT: usize = 10;

    /// Every one, in the order of their counters.
    pub const ALL: [Self; Self::COUNT] = [
        Self::ClientLeft,
        Self::ClientStalled,
        Self::ClientBody,
        Self::ClientDeadline,
        Self::Unsayable,
        Self::Descriptors,
        Self::InFlight,
        Self::Connections,
        Self::Ended,
        Self::HeldUp,
    ];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientLeft => "client_left",
            Self::ClientStalled => "client_stalled",
            Self::ClientBody => "client_body",
            Self::ClientDeadline => "client_deadline",
            Self::Unsayable => "unsayable",
            Self::Descriptors => "descriptors",
            Self::InFlight => "in_flight",
            Self::Connections => "connections",
            Self::Ended => "ended",
            Self::HeldUp => "held_up",
        }
    }

    /// Whose fault it is instead.
    #[must_use]
    pub const fn fault(self) -> Fault {
        match self {
            Self::ClientLeft
            | Self::ClientStalled
            | Self::ClientBody
            | Self::ClientDeadline
            | Self::Unsayable => Fault::Client,
            Self::Descriptors | Self::InFlight | Self::Connections | Self::Ended => Fault::Ours,
            Self::HeldUp => Fault::Shared,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_words_of_their_own_and_none_is_the_upstreams() {
        let words: std::collections::HashSet<_> =
            Pardon::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(words.len(), Pardon::COUNT);
        assert!(Pardon::ALL.iter().all(|reason| reason.fault() != Fault::Upstream));
        for (position, reason) in Pardon::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, position, "counters are found by it");
        }
    }
}
