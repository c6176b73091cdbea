//! What the clients of groups saw, in the order in which they saw it. [`super::check`] says what of it must not be.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ottla::protocol::error_code::ErrorCode;

/// A place in the order of all that clients send and are told.
pub type At = u64;

/// An offset that a client asked to commit. It is stored with the commit's number, so that whoever reads it knows which one it is.
#[derive(Clone, Debug)]
pub struct Commit {
    pub group: &'static str,
    pub partition: i32,
    pub offset: i64,
    /// The member that commits; empty for a client that is none.
    pub member: String,
    pub generation: i32,
    pub sent: At,
    /// What came of it; nothing if nobody was told: it may be committed, now or later.
    pub told: Option<(At, ErrorCode)>,
}

/// An offset that a client was shown.
#[derive(Clone, Debug)]
pub struct Seen {
    pub group: &'static str,
    pub partition: i32,
    /// The offset and what was stored with it; nothing if nothing was committed.
    pub found: Option<(i64, String)>,
    pub sent: At,
    pub told: At,
}

/// A generation that a member was told of.
#[derive(Clone, Debug)]
pub struct Joined {
    pub group: &'static str,
    pub generation: i32,
    /// Who leads the generation. Where nobody does, generations are epochs, and each member has its own.
    pub leader: Option<String>,
    pub member: String,
    pub sent: At,
    pub told: At,
}

/// A share that a member was told of.
#[derive(Clone, Debug)]
pub struct Share {
    pub group: &'static str,
    pub generation: i32,
    pub member: String,
    pub partitions: BTreeSet<i32>,
    /// The generation for which the leader made it.
    pub made_for: i32,
}

/// A member that is out of its group, and no way leads back.
#[derive(Clone, Debug)]
pub struct Removed {
    pub group: &'static str,
    pub member: String,
    pub told: At,
}

/// A generation that was over: a client of it was told that there is another.
#[derive(Clone, Debug)]
pub struct Over {
    pub group: &'static str,
    pub generation: i32,
    pub told: At,
}

/// See the module's documentation.
#[derive(Default)]
pub struct Events {
    clock: At,
    pub commits: Vec<Commit>,
    pub seen: Vec<Seen>,
    pub joined: Vec<Joined>,
    pub shares: Vec<Share>,
    pub removed: Vec<Removed>,
    pub over: Vec<Over>,
    /// What was found wrong while the run went on.
    pub found: Vec<String>,
    /// Requests without an answer.
    pub lost: usize,
    /// Events that happened to members in churn.
    pub happened: usize,
    /// Times that all groups kept their generations over something that gave them no reason to rebalance.
    pub kept: usize,
}

/// The events of one run, shared by its clients.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Events>>);

impl Log {
    /// The events, locked.
    pub fn lock(&self) -> MutexGuard<'_, Events> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of what happens now.
    pub fn now(&self) -> At {
        self.lock().now()
    }
}

impl Events {
    /// The place of what happens now.
    pub fn now(&mut self) -> At {
        self.clock += 1;
        self.clock
    }

    /// Something that no broker should do.
    pub fn wrong(&mut self, what: String) {
        self.found.push(what);
    }

    /// Takes note of what a code says about a member and its generation.
    pub fn refused(&mut self, group: &'static str, member: &str, generation: i32, code: ErrorCode) {
        let told = self.now();
        match code {
            ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::FENCED_INSTANCE_ID => self.is_out(group, member),
            ErrorCode::ILLEGAL_GENERATION => self.over.push(Over { group, generation, told }),
            _ => {}
        }
    }

    /// A member is none any more.
    pub fn is_out(&mut self, group: &'static str, member: &str) {
        if !member.is_empty() {
            let told = self.now();
            self.removed.push(Removed { group, member: member.to_owned(), told });
        }
    }
}

/// The instance id of a static member, or the id of a dynamic one: static members come back under other ids.
pub fn who(member: &str) -> &str {
    const UUID_BYTES: usize = 36;
    let is_static = member.starts_with(super::INSTANCE);
    let end = member.len().saturating_sub(UUID_BYTES + 1);
    if is_static { &member[..end] } else { member }
}
