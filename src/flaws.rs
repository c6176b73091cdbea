//! Bugs that a simulation plants in the broker that ships, one at a time, to see that its checks catch them.
//!
//! Each breaks one rule, at the place that keeps it: production comes there with [`Flaws::NONE`] and asks one byte. A check that looks from outside and
//! does not notice such a bug proves nothing. `docs/invariants.md` says which check catches which; `tests/tidy.rs` sees to it that nothing in `src/`
//! plants one.

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// An append counts as durable when it is written.
    AckBeforeSync,
    /// A write is acknowledged when it is handed to Raft, whoever has it by then.
    AckBeforeMajority,
    /// A replica that has lost what it acknowledged opens, and votes, as if it had it.
    ForgottenVotes,
    /// Readers see all that the leader's log holds.
    ServedPastHighWatermark,
    /// After anything but a clean stop a log goes on from its last flushed mark, and gives the offsets behind it again.
    OffsetsReused,
    /// A leader that comes back goes on in the term that it led in (openraft's `enable_leader_restore`).
    LeaderRestored,
    /// What was decided on a proposal that was refused goes on to count.
    OverlaySurvives,
    /// A group has a leader as long as its core remembers one (openraft's `current_leader`).
    LeaderOnRecord,
    /// Checkpoints name entries that are not durable yet.
    CheckpointAhead,
    /// Whoever was elected serves reads until it hears of another.
    ReadWithoutLease,
    /// Where a log starts is moved by its leader alone, and told to nobody.
    LogStartNotReplicated,
    /// Votes are given against a leader that was promised there would be none.
    VoteDespitePromise,
    /// Votes are not written down.
    VoteNotStored,
}

/// The bug that is planted in a broker, if one is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flaws(Option<Flaw>);

impl Flaws {
    /// What ships.
    pub const NONE: Self = Self(None);

    /// With a bug.
    #[must_use]
    pub const fn plant(flaw: Flaw) -> Self {
        Self(Some(flaw))
    }

    /// Whether that bug is planted.
    #[must_use]
    pub fn has(self, flaw: Flaw) -> bool {
        self.0 == Some(flaw)
    }
}
