//! Which member had which partition, and from when to when, as the members saw it.
//!
//! A member has a partition from the answer that gave it until it *sends* that it has given it up, is told that it is out, or is heard of no
//! more for a session: whoever is given the partition before that shares it (`dual-owner`). Whoever is taken out by somebody else, by an
//! administrator or by a static member's successor, may not know it yet: that is not the coordinator's fault.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::SESSION;
use super::events::{At, Events, NEVER};

/// A partition in a member's hands.
#[derive(Clone, Debug)]
pub struct Hold {
    pub group: &'static str,
    pub partition: i32,
    pub member: String,
    /// Its instance id, if it is a static one, or its id.
    pub whose: String,
    /// The member's epoch when it was given.
    pub epoch: i32,
    /// When that was asked for which it was the answer.
    asked: At,
    pub from: At,
    pub until: At,
    /// Whether the member was told that it is fenced, and gave the partition up without saying so.
    is_abandoned: bool,
    began: Instant,
    /// By when the member's session has run out, unless it is heard of again.
    runs_out: Instant,
}

/// A member that somebody takes out.
#[derive(Clone, Debug)]
struct Forced {
    group: &'static str,
    /// Its instance id.
    whom: String,
    /// The one that takes its place, if it is one.
    by: String,
    sent: At,
    told: At,
}

/// When something was asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub at: At,
    pub time: Instant,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Holds {
    pub all: Vec<Hold>,
    open: BTreeMap<(&'static str, String), BTreeMap<i32, usize>>,
    forced: Vec<Forced>,
}

impl Events {
    /// Somebody asks now.
    pub fn ask(&mut self) -> Asked {
        Asked { at: self.now(), time: Instant::now() }
    }

    /// A member was told that it may use these partitions, those that it has already among them.
    pub fn holds(&mut self, group: &'static str, member: &str, epoch: i32, partitions: &BTreeSet<i32>, asked: Asked) {
        let (from, whose) = (self.now(), self.whose(member).to_owned());
        let open = self.holds.open.entry((group, member.to_owned())).or_default();
        for partition in partitions {
            open.entry(*partition).or_insert_with(|| {
                self.holds.all.push(Hold {
                    group,
                    partition: *partition,
                    member: member.to_owned(),
                    whose: whose.clone(),
                    epoch,
                    asked: asked.at,
                    from,
                    until: NEVER,
                    is_abandoned: false,
                    began: Instant::now(),
                    runs_out: asked.time + SESSION,
                });
                self.holds.all.len() - 1
            });
        }
    }

    /// A member was heard: its session begins anew.
    pub fn is_alive(&mut self, group: &'static str, member: &str, asked: Asked) {
        for at in self.holds.open.get(&(group, member.to_owned())).into_iter().flat_map(BTreeMap::values) {
            self.holds.all[*at].runs_out = asked.time + SESSION;
        }
    }

    /// A member has no more than these from now on.
    pub fn keeps(&mut self, group: &'static str, member: &str, partitions: &BTreeSet<i32>) {
        let until = self.now();
        let Some(open) = self.holds.open.get_mut(&(group, member.to_owned())) else { return };
        for (_, at) in open.extract_if(.., |partition, _| !partitions.contains(partition)) {
            self.holds.all[at].until = until;
        }
    }

    /// A member has nothing any more, and does not say so.
    pub fn abandons(&mut self, group: &'static str, member: &str) {
        for at in self.holds.open.get(&(group, member.to_owned())).into_iter().flat_map(BTreeMap::values) {
            self.holds.all[*at].is_abandoned = true;
        }
        self.keeps(group, member, &BTreeSet::new());
    }

    /// Somebody asks to have a member taken out. The number of that.
    pub fn forces(&mut self, group: &'static str, whom: &str, by: &str) -> usize {
        let sent = self.now();
        let (whom, by) = (whom.to_owned(), by.to_owned());
        self.holds.forced.push(Forced { group, whom, by, sent, told: NEVER });
        self.holds.forced.len() - 1
    }

    /// What came of it.
    pub fn has_forced(&mut self, number: usize, is_done: bool) {
        let told = self.now();
        let forced = &mut self.holds.forced[number];
        if is_done {
            forced.told = told;
        } else {
            forced.sent = NEVER;
        }
    }
}

impl Holds {
    /// Whether a member has had a partition since an epoch at the latest, and has it at some point. What it has abandoned, its coordinator takes
    /// for its own until somebody else has it.
    pub fn has_had(&self, group: &str, member: &str, partition: i32, epoch: i32, at: At) -> bool {
        let of_partition = || self.all.iter().filter(|hold| hold.group == group && hold.partition == partition);
        let is_free = |from: At| !of_partition().any(|hold| hold.member != member && (from..at).contains(&hold.from));
        of_partition()
            .filter(|hold| hold.member == member && hold.epoch <= epoch && hold.from < at)
            .any(|hold| at < hold.until || (hold.is_abandoned && is_free(hold.from)))
    }

    /// No two members have a partition at once.
    pub fn violations(&self, found: &mut Vec<String>) {
        let mut of_partition: BTreeMap<(&str, i32), Vec<&Hold>> = BTreeMap::new();
        for hold in &self.all {
            of_partition.entry((hold.group, hold.partition)).or_default().push(hold);
        }
        for holds in of_partition.values() {
            for (n, later) in holds.iter().enumerate() {
                let both = |hold: &&&Hold| {
                    let is_held = later.from < hold.until && later.began < hold.runs_out;
                    hold.whose != later.whose && is_held && !self.is_forced(hold, later.from)
                };
                if let Some(hold) = holds[..n].iter().find(both) {
                    found.push(format!("dual-owner: given to {later:?}, held by {hold:?}"));
                }
            }
        }
    }

    fn is_forced(&self, hold: &Hold, by: At) -> bool {
        let concerns =
            |forced: &&Forced| forced.group == hold.group && forced.whom == hold.whose && forced.by != hold.member;
        self.forced.iter().filter(concerns).any(|forced| hold.asked < forced.told && forced.sent < by)
    }

    /// How often a member gave a partition up that another had later.
    pub fn passed_on(&self) -> usize {
        let mut last: BTreeMap<(&str, i32), &str> = BTreeMap::new();
        let mut count = 0;
        for hold in &self.all {
            let before = last.insert((hold.group, hold.partition), hold.whose.as_str());
            count += usize::from(before.is_some_and(|before| before != hold.whose));
        }
        count
    }
}
