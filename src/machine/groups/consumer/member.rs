//! A member of a group of the consumer protocol, and how it comes from what it has to what it shall have.
//!
//! A partition changes hands in steps: the member that has it is told to give it up, says that it has, and only then another member is told
//! that it has it (`dual-owner`). Kafka calls the steps the states of a member.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Moment;
use super::record::{CurrentValue, Given, MemberValue, Partitions, given_of, given_value};
use crate::ids::TopicId;
use crate::protocol::value::Text;

/// The epoch of a static member that has left and will be back.
pub(super) const AWAY: i32 = -2;

/// How far a member has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// It has all that was free of what it shall have at its epoch.
    #[default]
    Stable,
    /// It has to give partitions up.
    Revoking,
    /// Others have to give up partitions that it shall have.
    Waiting,
}

impl State {
    /// The number in records: Kafka's STABLE, UNREVOKED_PARTITIONS, UNRELEASED_PARTITIONS.
    const fn number(self) -> i8 {
        match self {
            Self::Stable => 1,
            Self::Revoking => 2,
            Self::Waiting => 3,
        }
    }

    const fn from_number(number: i8) -> Self {
        match number {
            2 => Self::Revoking,
            3 => Self::Waiting,
            _ => Self::Stable,
        }
    }
}

/// What a member has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) epoch: i32,
    /// The one before: the answer with the new one may be lost.
    pub(super) previous_epoch: i32,
    pub(super) state: State,
    /// What it may use.
    pub(super) given: Given,
    /// What it has to give up.
    pub(super) revoking: Given,
}

impl Standing {
    /// Of a member that has just come.
    pub(super) const NEW: Self =
        Self { epoch: 0, previous_epoch: -1, state: State::Stable, given: Given::new(), revoking: Given::new() };

    pub(super) fn value(&self) -> CurrentValue {
        CurrentValue {
            epoch: self.epoch,
            previous_epoch: self.previous_epoch,
            state: self.state.number(),
            assigned: given_value(&self.given),
            revoking: given_value(&self.revoking),
        }
    }

    pub(super) fn stored(value: CurrentValue) -> Self {
        Self {
            epoch: value.epoch,
            previous_epoch: value.previous_epoch,
            state: State::from_number(value.state),
            given: given_of(value.assigned, value.epoch),
            revoking: given_of(value.revoking, value.epoch),
        }
    }

    /// All partitions that nobody else may have.
    pub(super) fn held(&self) -> impl Iterator<Item = (TopicId, i32)> {
        let all = self.given.iter().chain(&self.revoking);
        all.flat_map(|(topic, partitions)| partitions.keys().map(|partition| (*topic, *partition)))
    }

    /// The epoch at which it got a partition, if it has it, or has still to give it up.
    pub(super) fn epoch_of(&self, topic: TopicId, partition: i32) -> Option<i32> {
        let of = |given: &Given| given.get(&topic)?.get(&partition).copied();
        of(&self.given).or_else(|| of(&self.revoking))
    }

    /// All that it has, it has had since this epoch only.
    pub(super) fn has_since(&mut self, epoch: i32) {
        let all = self.given.values_mut().chain(self.revoking.values_mut());
        all.flat_map(BTreeMap::values_mut).for_each(|since| *since = epoch);
    }

    pub(super) fn is_reconciled_to(&self, epoch: i32) -> bool {
        self.state == State::Stable && self.epoch == epoch
    }

    /// Whether it has been given everything that it says it has.
    pub(super) fn has_all(&self, owned: &Partitions) -> bool {
        let has =
            |topic: &TopicId, partition: &i32| self.given.get(topic).is_some_and(|given| given.contains_key(partition));
        owned.iter().all(|(topic, partitions)| partitions.iter().all(|partition| has(topic, partition)))
    }
}

/// What a member is to come to.
pub(super) struct Goal<'a> {
    /// What it shall have.
    pub(super) target: &'a Partitions,
    /// The epoch for which that was computed.
    pub(super) epoch: i32,
    /// The topics that it reads.
    pub(super) reads: &'a BTreeSet<TopicId>,
    /// Whether they are other topics than before.
    pub(super) reads_others: bool,
    /// What it says it has; nothing said means that it has all it had.
    pub(super) owned: Option<&'a Partitions>,
    /// Whether a partition is in nobody else's hands.
    pub(super) is_free: &'a dyn Fn(TopicId, i32) -> bool,
}

impl Goal<'_> {
    /// Whether the member still has some of what it has to give up.
    fn still_has(&self, revoking: &Given) -> bool {
        let Some(owned) = self.owned else { return true };
        let is_revoked = |topic: &TopicId, partition: &i32| {
            revoking.get(topic).is_some_and(|partitions| partitions.contains_key(partition))
        };
        owned.iter().any(|(topic, partitions)| partitions.iter().any(|partition| is_revoked(topic, partition)))
    }
}

impl Standing {
    /// The next step.
    pub(super) fn next(&self, goal: &Goal<'_>) -> Self {
        match self.state {
            State::Stable if self.epoch != goal.epoch => self.advance(self.epoch, goal),
            State::Revoking if !goal.still_has(&self.revoking) => {
                self.advance(self.epoch.saturating_add(1).min(goal.epoch), goal)
            }
            State::Stable | State::Revoking if goal.reads_others => self.drop_unread(goal),
            State::Stable | State::Revoking => self.clone(),
            State::Waiting => self.advance(self.epoch, goal),
        }
    }

    /// Whoever has been heard at an epoch is not heard at the one before any more.
    const fn at(&self, epoch: i32, state: State, given: Given, revoking: Given) -> Self {
        Self { epoch, previous_epoch: self.epoch, state, given, revoking }
    }

    /// Gives up what is not its own any more; when it has, takes what is free. `epoch` is the one at which it gives up.
    fn advance(&self, epoch: i32, goal: &Goal<'_>) -> Self {
        let none = BTreeSet::new();
        let (mut kept, mut revoking) = (Given::new(), Given::new());
        for (topic, given) in &self.given {
            let target = goal.target.get(topic).filter(|_| goal.reads.contains(topic)).unwrap_or(&none);
            let (keep, give_up): (BTreeMap<i32, i32>, BTreeMap<i32, i32>) =
                given.iter().partition(|(partition, _)| target.contains(partition));
            for (map, partitions) in [(&mut kept, keep), (&mut revoking, give_up)] {
                if !partitions.is_empty() {
                    map.insert(*topic, partitions);
                }
            }
        }
        if !revoking.is_empty() && goal.still_has(&revoking) {
            return self.at(epoch, State::Revoking, kept, revoking);
        }
        let mut waits = false;
        for (topic, target) in goal.target.iter().filter(|(topic, _)| goal.reads.contains(topic)) {
            for partition in target {
                if kept.get(topic).is_some_and(|has| has.contains_key(partition)) {
                    continue;
                }
                if (goal.is_free)(*topic, *partition) {
                    kept.entry(*topic).or_default().insert(*partition, goal.epoch);
                } else {
                    waits = true;
                }
            }
        }
        let state = if waits { State::Waiting } else { State::Stable };
        self.at(goal.epoch, state, kept, Given::new())
    }

    /// Gives up what it does not read any more.
    fn drop_unread(&self, goal: &Goal<'_>) -> Self {
        let (given, dropped): (Given, Given) =
            self.given.clone().into_iter().partition(|(topic, _)| goal.reads.contains(topic));
        if dropped.is_empty() {
            return self.clone();
        }
        let mut revoking = self.revoking.clone();
        for (topic, partitions) in dropped {
            revoking.entry(topic).or_default().extend(partitions);
        }
        let (epoch, previous_epoch) = (self.epoch, self.previous_epoch);
        if goal.still_has(&revoking) {
            Self { epoch, previous_epoch, state: State::Revoking, given, revoking }
        } else {
            Self { epoch, previous_epoch, state: self.state, given, revoking: self.revoking.clone() }
        }
    }
}

/// Until when a member must have done something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Timers {
    /// Shown itself.
    pub(super) session: Option<Moment>,
    /// Given up partitions.
    pub(super) revoke: Option<Moment>,
    /// Joined again: a member of the classic protocol that was told to.
    pub(super) rejoin: Option<Moment>,
    /// Asked for its share: a member of the classic protocol that has joined.
    pub(super) sync: Option<Moment>,
}

impl Timers {
    pub(super) fn first(&self) -> Option<Moment> {
        [self.session, self.revoke, self.rejoin, self.sync].into_iter().flatten().min()
    }
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// What it says of itself.
    pub(super) says: MemberValue,
    pub(super) standing: Standing,
    pub(super) timers: Timers,
}

impl Member {
    pub(super) fn new(says: MemberValue) -> Self {
        Self { says, standing: Standing::NEW, timers: Timers::default() }
    }

    pub(super) const fn is_classic(&self) -> bool {
        self.says.classic.is_some()
    }

    pub(super) fn regex(&self) -> Option<&Text> {
        self.says.regex.as_ref().filter(|regex| !regex.is_empty())
    }

    /// How long it may take to give up partitions.
    pub(super) fn rebalance_timeout_ms(&self) -> u64 {
        u64::try_from(self.says.rebalance_timeout_ms).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: TopicId = TopicId([1; 16]);

    fn partitions(list: &[i32]) -> Partitions {
        if list.is_empty() { Partitions::new() } else { Partitions::from([(T, list.iter().copied().collect())]) }
    }

    fn given(list: &[(i32, i32)]) -> Given {
        if list.is_empty() { Given::new() } else { Given::from([(T, list.iter().copied().collect())]) }
    }

    struct Case<'a> {
        target: &'a [i32],
        epoch: i32,
        owned: Option<&'a [i32]>,
        taken: &'a [i32],
    }

    fn next(standing: &Standing, case: &Case<'_>) -> Standing {
        let (target, owned) = (partitions(case.target), case.owned.map(partitions));
        let goal = Goal {
            target: &target,
            epoch: case.epoch,
            reads: &BTreeSet::from([T]),
            reads_others: false,
            owned: owned.as_ref(),
            is_free: &|_, partition| !case.taken.contains(&partition),
        };
        standing.next(&goal)
    }

    #[test]
    fn a_new_member_takes_what_is_free_and_waits_for_the_rest() {
        let case = Case { target: &[0, 1], epoch: 3, owned: Some(&[]), taken: &[1] };
        let waiting = next(&Standing::NEW, &case);
        assert_eq!((waiting.epoch, waiting.previous_epoch, waiting.state), (3, 0, State::Waiting));
        assert_eq!(waiting.given, given(&[(0, 3)]));
        let stable = next(&waiting, &Case { taken: &[], owned: None, ..case });
        assert_eq!((stable.state, stable.given), (State::Stable, given(&[(0, 3), (1, 3)])));
    }

    #[test]
    fn a_partition_is_given_up_before_the_epoch_moves_on() {
        let stable = Standing { epoch: 3, given: given(&[(0, 2), (1, 3)]), ..Standing::NEW };
        let case = Case { target: &[0, 2], epoch: 5, owned: None, taken: &[] };
        let revoking = next(&stable, &case);
        assert_eq!((revoking.epoch, revoking.state), (3, State::Revoking));
        assert_eq!((&revoking.given, &revoking.revoking), (&given(&[(0, 2)]), &given(&[(1, 3)])));
        assert_eq!(next(&revoking, &case), revoking, "nothing is said of what it has");
        assert_eq!(next(&revoking, &Case { owned: Some(&[0, 1]), ..case }), revoking, "it has not given it up yet");
        let done = next(&revoking, &Case { owned: Some(&[0]), ..case });
        assert_eq!((done.epoch, done.previous_epoch, done.state), (5, 3, State::Stable));
        assert_eq!(done.given, given(&[(0, 2), (2, 5)]), "what it keeps, it has had since epoch 2");
        assert_eq!((done.epoch_of(T, 0), done.epoch_of(T, 1)), (Some(2), None));
        assert_eq!((revoking.epoch_of(T, 1), revoking.held().count()), (Some(3), 2));
    }

    #[test]
    fn what_it_does_not_read_any_more_is_given_up_at_once() {
        let stable = Standing { epoch: 3, given: given(&[(0, 3)]), ..Standing::NEW };
        let goal = Goal {
            target: &partitions(&[0]),
            epoch: 3,
            reads: &BTreeSet::new(),
            reads_others: true,
            owned: None,
            is_free: &|_, _| true,
        };
        let revoking = stable.next(&goal);
        assert_eq!((revoking.state, revoking.revoking.len()), (State::Revoking, 1));
        let none = partitions(&[]);
        let free = stable.next(&Goal { owned: Some(&none), ..goal });
        assert_eq!((free.state, free.given.len(), free.revoking.len()), (State::Stable, 0, 0));
    }

    #[test]
    fn it_has_what_it_was_given() {
        let standing = Standing { given: given(&[(0, 3), (1, 3)]), ..Standing::NEW };
        assert!(standing.has_all(&partitions(&[])) && standing.has_all(&partitions(&[1])));
        assert!(!standing.has_all(&partitions(&[1, 2])));
    }
}
