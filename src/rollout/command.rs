//! What an operator can ask for.

use crate::track::Weight;

/// A command to one rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Stop rising; it may still fall.
    Pause,
    /// Go on, at the next greater stage, with proofs reset.
    Resume,
    /// One stage up now, and go on from there.
    Promote {
        /// To the last stage at once.
        full: bool,
        /// Although the evidence speaks against it.
        force: bool,
    },
    /// All traffic back to stable.
    Rollback,
    /// A new run of a version that was rolled back, with a fresh account.
    Retry,
    /// This share for the canary, and pause.
    SetWeight(Weight),
}

impl Command {
    /// The word for it in the admin API, the journal and the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Promote { .. } => "promote",
            Self::Rollback => "rollback",
            Self::Retry => "retry",
            Self::SetWeight(_) => "set-weight",
        }
    }
}
