//! What the clients of groups saw, in the order in which they saw it. [`super::check`] says what of it must not be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ottla::protocol::error_code::ErrorCode;

use super::cast::Cast;
use super::holds::Holds;
use super::member::Identity;

/// A place in the order of all that clients send and are told.
pub type At = u64;
/// Never, or not known to have been.
pub const NEVER: At = At::MAX;

/// An offset that a client asked to commit. It is stored with the commit's number, so that whoever reads it knows which one it is.
#[derive(Clone, Debug)]
pub struct Commit {
    pub group: &'static str,
    pub partition: i32,
    pub offset: i64,
    /// The member that commits; empty for a client that is none.
    pub member: String,
    /// How often the member had been out of the group before.
    pub life: u32,
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
    /// How often the member had been out of the group before.
    pub life: u32,
    pub sent: At,
    pub told: At,
}

/// An epoch that a client was shown: of a member, or of a group.
#[derive(Clone, Debug)]
pub struct Shown {
    pub group: &'static str,
    /// Nothing: it is the group's.
    pub member: Option<String>,
    pub epoch: i32,
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
    /// The generation for which the leader made it, where a leader does.
    pub made_for: Option<i32>,
}

/// A member that is out of its group. If it comes back, it is as another.
#[derive(Clone, Debug)]
pub struct Removed {
    pub group: &'static str,
    pub member: String,
    pub life: u32,
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
    pub shown: Vec<Shown>,
    pub holds: Holds,
    /// Static members whose ids do not say so: a coordinator of the consumer protocol gives such to members of the classic one.
    pub instances: BTreeMap<String, String>,
    /// Times that a member of the consumer protocol was told that it is out.
    pub fenced: usize,
    /// Times that a member was told to give up something.
    pub revoked: usize,
    /// What was found wrong while the run went on.
    pub found: Vec<String>,
    /// Requests without an answer.
    pub lost: usize,
    /// Who coordinates each group, as was told last, and how often that had changed.
    pub coordinators: BTreeMap<&'static str, i32>,
    pub failovers: usize,
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

    /// The instance id of a static member, or the id of a dynamic one.
    pub fn whose<'a>(&'a self, member: &'a str) -> &'a str {
        self.instances.get(member).map_or_else(|| who(member), String::as_str)
    }

    /// A group's coordinator was found.
    pub fn coordinates(&mut self, group: &'static str, broker: i32) {
        let before = self.coordinators.insert(group, broker);
        self.failovers += usize::from(before.is_some_and(|before| before != broker));
    }

    /// Something that no broker should do.
    pub fn wrong(&mut self, what: String) {
        self.found.push(what);
    }

    /// Takes note of what a code says about a member and its generation.
    pub fn refused(&mut self, group: &'static str, of: &Identity, code: ErrorCode) {
        let told = self.now();
        match code {
            ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::FENCED_INSTANCE_ID => self.is_out(group, &of.member, of.life),
            // Of the consumer protocol, each member is at an epoch of its own.
            ErrorCode::ILLEGAL_GENERATION if Cast::is_classic(group) => {
                self.over.push(Over { group, generation: of.generation, told });
            }
            _ => {}
        }
    }

    /// A member is none any more.
    pub fn is_out(&mut self, group: &'static str, member: &str, life: u32) {
        if !member.is_empty() {
            let told = self.now();
            self.removed.push(Removed { group, member: member.to_owned(), life, told });
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
