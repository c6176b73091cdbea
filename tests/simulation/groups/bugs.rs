//! Bugs that the checks of groups must catch. Each breaks one rule of a coordinator: between the wire and the coordinators of the broker that
//! ships, or between these and their logs.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ottla::ids::PartitionId;
use ottla::machine::groups::consumer::record::{CurrentValue, MemberValue, decode, record};
use ottla::machine::groups::record::{GroupValue, Key, Part, Phase, Record, decode_key};
use ottla::machine::groups::{Answer, Effects, Ticket};
use ottla::machine::keyed::LastValues;
use ottla::protocol::messages::{
    ConsumerGroupHeartbeatRequest, HeartbeatRequest, JoinGroupRequest, OffsetCommitRequest, SyncGroupRequest,
};
use ottla::protocol::value::Text;
use ottla::replica::coordinator::Tamper;

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Answers leave before what they say is committed.
    AnsweredFirst,
    /// The last record of a turn's batch is left out.
    LastRecordLeftOut,
    /// A generation is committed with its shares only, after its members were told of it.
    GenerationStoredLate,
    /// A leave is not stored: whoever takes over finds the member still there.
    LeaveNotStored,
    /// A generation without shares is loaded as one that has them.
    PhaseForgotten,
    /// Static members are loaded without their instance ids.
    InstancesForgotten,
    /// Every member that waits is told the same share.
    ShareOfAnother,
    /// The groups are loaded as of an old checkpoint, without what followed.
    LoadedFromOldCheckpoint,
    /// A commit's generation is taken for the present one.
    GenerationNotChecked,
    /// A rebalance hardly waits for the members that there are.
    RebalanceNotWaited,
    /// Sessions are as many seconds long as they should be milliseconds.
    SessionInSeconds,
    /// Static members are taken for dynamic ones.
    InstanceIdIgnored,
    /// A partition that a member is told to give up is free at once.
    RevocationNotAwaited,
    /// What a member has still to give up is free after a restart.
    RevocationForgotten,
    /// A member's later epochs are not stored.
    EpochNotStored,
    /// A commit's member epoch is taken for the present one.
    EpochNotChecked,
    /// What members shall have is not stored.
    TargetNotStored,
    /// A static member that leaves for a while is taken out.
    AwayForGood,
}

/// What stands between clients, coordinators and logs in one run: a bug, if one is planted, and turns that are refused for a while.
#[derive(Default)]
pub struct Front {
    bug: Option<Bug>,
    refuses: AtomicBool,
    /// The newest generation of each group, or the newest epoch of each member.
    newest: Mutex<BTreeMap<String, i32>>,
    /// What each coordinator was loaded from the last time.
    checkpoints: Mutex<BTreeMap<PartitionId, LastValues>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Front {
    /// With a bug, or without.
    pub fn new(bug: Option<Bug>) -> Self {
        Self { bug, ..Self::default() }
    }

    /// From now on turns are refused, or not.
    pub fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::Relaxed);
    }

    /// A request that goes to the broker.
    pub fn asked(&self, request: &mut dyn Any) {
        match self.bug {
            Some(Bug::GenerationNotChecked) => self.take_for_newest(request),
            Some(Bug::SessionInSeconds) => {
                if let Some(join) = request.downcast_mut::<JoinGroupRequest>() {
                    join.session_timeout_ms *= 1000;
                }
            }
            Some(Bug::RebalanceNotWaited) => {
                if let Some(join) = request.downcast_mut::<JoinGroupRequest>() {
                    join.rebalance_timeout_ms = 1;
                }
            }
            Some(Bug::InstanceIdIgnored) => ignore_instance(request),
            Some(Bug::RevocationNotAwaited) => {
                if let Some(beat) =
                    request.downcast_mut::<ConsumerGroupHeartbeatRequest>().filter(|beat| beat.member_epoch > 0)
                {
                    beat.topic_partitions = Some(Vec::new());
                }
            }
            Some(Bug::AwayForGood) => {
                if let Some(beat) = request.downcast_mut::<ConsumerGroupHeartbeatRequest>() {
                    beat.member_epoch = beat.member_epoch.max(-1);
                }
            }
            Some(Bug::EpochNotChecked) => {
                if let Some(commit) = request.downcast_mut::<OffsetCommitRequest>()
                    && let Some(epoch) = lock(&self.newest).get(&*commit.member_id)
                {
                    commit.generation_id_or_member_epoch = *epoch;
                }
            }
            _ => {}
        }
    }

    fn take_for_newest(&self, request: &mut dyn Any) {
        let mut newest = lock(&self.newest);
        if let Some(sync) = request.downcast_ref::<SyncGroupRequest>() {
            let generation = newest.entry(sync.group_id.to_string()).or_default();
            *generation = sync.generation_id.max(*generation);
        } else if let Some(commit) = request.downcast_mut::<OffsetCommitRequest>()
            && commit.generation_id_or_member_epoch >= 0
            && let Some(generation) = newest.get(&*commit.group_id)
        {
            commit.generation_id_or_member_epoch = *generation;
        }
    }
}

impl Front {
    fn note_epochs(&self, answers: &[(Ticket, Answer)]) {
        for (_, answer) in answers {
            if let Answer::Heartbeat(told) = answer
                && let Some(member) = told.member_id.as_ref().filter(|_| told.member_epoch > 0)
            {
                lock(&self.newest).insert(member.to_string(), told.member_epoch);
            }
        }
    }
}

fn ignore_instance(request: &mut dyn Any) {
    if let Some(join) = request.downcast_mut::<JoinGroupRequest>() {
        join.group_instance_id = None;
    } else if let Some(sync) = request.downcast_mut::<SyncGroupRequest>() {
        sync.group_instance_id = None;
    } else if let Some(heartbeat) = request.downcast_mut::<HeartbeatRequest>() {
        heartbeat.group_instance_id = None;
    } else if let Some(commit) = request.downcast_mut::<OffsetCommitRequest>() {
        commit.group_instance_id = None;
    }
}

impl Tamper for Front {
    fn loads(&self, id: PartitionId, committed: &LastValues) -> Option<LastValues> {
        match self.bug? {
            Bug::PhaseForgotten => Some(with_groups(committed, |group| group.phase = 0)),
            Bug::InstancesForgotten => Some(with_groups(&without_instances(committed), |group| {
                group.members.iter_mut().for_each(|member| member.group_instance_id = None);
            })),
            Bug::RevocationForgotten => Some(without_revocations(committed)),
            Bug::LoadedFromOldCheckpoint => lock(&self.checkpoints).insert(id, committed.clone()),
            _ => None,
        }
    }

    fn decided(&self, out: &mut Effects) -> Vec<(Ticket, Answer)> {
        match self.bug {
            Some(Bug::AnsweredFirst) => return std::mem::take(&mut out.answers),
            Some(Bug::LastRecordLeftOut) if out.records.len() > 1 => drop(out.records.pop()),
            Some(Bug::GenerationStoredLate) => {
                out.records.retain(|record| phase_of(record) != Some(Phase::Completing));
            }
            Some(Bug::ShareOfAnother) => tell_one_share(&mut out.answers),
            Some(Bug::EpochNotStored) => out.records.retain(|record| !is_later_epoch(record)),
            Some(Bug::TargetNotStored) => {
                out.records.retain(|record| {
                    record.value.is_none() || !matches!(part_of(&record.key), Some((_, Part::Target(_))))
                });
            }
            Some(Bug::EpochNotChecked) => self.note_epochs(&out.answers),
            Some(Bug::LeaveNotStored) => out.records.retain(|record| phase_of(record) != Some(Phase::Preparing)),
            _ => {}
        }
        Vec::new()
    }

    fn refuses(&self) -> bool {
        self.refuses.load(Ordering::Relaxed)
    }
}

fn tell_one_share(answers: &mut [(Ticket, Answer)]) {
    let mut one = None;
    for (_, answer) in answers {
        if let Answer::Sync(sync) = answer
            && !sync.assignment.is_empty()
        {
            sync.assignment = one.get_or_insert_with(|| sync.assignment.clone()).clone();
        }
    }
}

/// What the members were about, if this is the record of a group.
fn phase_of(record: &Record) -> Option<Phase> {
    let is_group = matches!(decode_key(&record.key), Ok(Key::Group(_)));
    let value = record.value.as_ref().filter(|_| is_group)?;
    GroupValue::decode(value).ok().map(|group| Phase::from_number(group.phase))
}

/// The same values, with every group changed.
fn with_groups(values: &LastValues, change: impl Fn(&mut GroupValue)) -> LastValues {
    let mut changed = values.clone();
    for (key, value) in values.with_prefix(&[]) {
        if let (Ok(Key::Group(_)), Ok(mut group)) = (decode_key(key), GroupValue::decode(value)) {
            change(&mut group);
            let phase = Phase::from_number(group.phase);
            changed.put(key, Some(&group.encode(phase)));
        }
    }
    changed
}

/// The part of a group of the consumer protocol that a record is about.
fn part_of(key: &[u8]) -> Option<(Text, Part)> {
    match decode_key(key) {
        Ok(Key::Consumer { group, part }) => Some((group, part)),
        _ => None,
    }
}

/// Whether this is the record of an epoch that a member has come to from another.
fn is_later_epoch(record: &Record) -> bool {
    let is_current = matches!(part_of(&record.key), Some((_, Part::Current(_))));
    let value = record.value.as_ref().filter(|_| is_current).and_then(|value| decode::<CurrentValue>(value).ok());
    value.is_some_and(|value| value.previous_epoch > 0)
}

/// The same values, with every part changed of which a new value is made.
fn with_parts(values: &LastValues, change: impl Fn(&Text, &Part, &[u8]) -> Option<Record>) -> LastValues {
    let mut changed = values.clone();
    for (key, value) in values.with_prefix(&[]) {
        if let Some((group, part)) = part_of(key)
            && let Some(record) = change(&group, &part, value)
        {
            changed.put(&record.key, record.value.as_deref());
        }
    }
    changed
}

fn without_instances(values: &LastValues) -> LastValues {
    with_parts(values, |group, part, value| {
        let mut says: MemberValue = decode(value).ok().filter(|_| matches!(part, Part::Member(_)))?;
        says.instance_id = None;
        Some(record(group, part, &says))
    })
}

fn without_revocations(values: &LastValues) -> LastValues {
    with_parts(values, |group, part, value| {
        let mut current: CurrentValue = decode(value).ok().filter(|_| matches!(part, Part::Current(_)))?;
        current.revoking.clear();
        Some(record(group, part, &current))
    })
}
