//! When groups that migrate began anew.
//!
//! A group of the consumer protocol that takes the place of a classic one without members counts its epochs from the beginning, as Kafka's does: nobody is
//! left who knows the classic one's generations. So a lower epoch than a generation that was there is no fault by itself; what the members of
//! before may still do afterwards is nothing.

use std::collections::BTreeMap;

use super::cast::{Cast, Speaks};
use super::events::{At, Commit, Events, Joined};

/// A group that began anew: a member of it asked, and was told so.
#[derive(Clone, Copy, Debug)]
struct Beginning {
    sent: At,
    told: At,
}

/// See the module's documentation.
pub struct Anew(BTreeMap<&'static str, Vec<Beginning>>);

impl Anew {
    /// When the groups of these events began anew.
    pub fn of(events: &Events) -> Self {
        let mut anew: BTreeMap<&'static str, Vec<Beginning>> = BTreeMap::new();
        let mut epochs: Vec<&Joined> = events.joined.iter().filter(|joined| joined.leader.is_none()).collect();
        epochs.retain(|joined| Cast::speaks(joined.group) == Some(Speaks::Both));
        epochs.sort_by_key(|joined| joined.told);
        for joined in epochs {
            let known = anew.entry(joined.group).or_default();
            let after = known.last().map_or(0, |last| last.told);
            let is_higher = |led: &&Joined| {
                let is_before = after <= led.sent && led.told < joined.sent;
                led.group == joined.group && led.leader.is_some() && is_before && led.generation > joined.generation
            };
            if events.joined.iter().any(|led| is_higher(&led)) {
                known.push(Beginning { sent: joined.sent, told: joined.told });
            }
        }
        Self(anew)
    }

    fn of_group(&self, group: &str) -> &[Beginning] {
        self.0.get(group).map(Vec::as_slice).unwrap_or_default()
    }

    /// How often a group had begun anew by then.
    pub fn times(&self, group: &str, at: At) -> usize {
        self.of_group(group).iter().filter(|beginning| beginning.told <= at).count()
    }

    /// Whether a group began anew between the two.
    pub fn is_between(&self, group: &str, from: At, to: At) -> bool {
        self.times(group, from) != self.times(group, to)
    }

    /// Whether a commit is of one who was a member only before the group began anew, and was sent afterwards.
    pub fn is_of_before(&self, events: &Events, commit: &Commit) -> bool {
        let Some(last) = self.of_group(commit.group).iter().rev().find(|last| last.told < commit.sent) else {
            return false;
        };
        let is_it = |joined: &&Joined| {
            let is_member = joined.group == commit.group && joined.member == commit.member;
            is_member && joined.generation == commit.generation && joined.told < commit.sent
        };
        let mut told = events.joined.iter().filter(is_it).map(|joined| joined.told).peekable();
        told.peek().is_some() && told.all(|told| told < last.sent)
    }
}
