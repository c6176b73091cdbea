//! What members of every kind have in common: who they are, what they are told to do, and how they read and commit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::fetch::{FetchPartition, FetchTopic};
use ottla::protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use ottla::protocol::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use ottla::protocol::messages::{FetchRequest, OffsetCommitRequest, OffsetFetchRequest};
use ottla::protocol::value::Text;

use super::events::{At, Commit, Seen};
use super::line::{Line, REST};
use super::{Stage, TOPIC, classic, consumer};
use crate::client::Lost;

const VERSION_FETCH: i16 = 11;
const VERSION_COMMIT: i16 = 8;
const VERSION_COMMIT_OF_EPOCHS: i16 = 9;
const VERSION_OFFSETS: i16 = 7;
const VERSION_OFFSETS_OF_EPOCHS: i16 = 9;
/// How long a fetch waits for records.
const FETCH_WAIT_MS: i32 = 20;

/// The protocol that a member speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// JoinGroup, SyncGroup, Heartbeat, in these versions of JoinGroup.
    Classic { join: i16 },
    /// ConsumerGroupHeartbeat.
    Consumer,
}

impl Kind {
    /// Whether both speak the same protocol.
    pub fn is_as(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// Who a member is.
#[derive(Clone, Debug)]
pub struct Spec {
    pub group: &'static str,
    /// What its client calls itself: no other does.
    pub name: String,
    /// The id of a static member.
    pub instance: Option<String>,
    pub kind: Kind,
    /// The id that it has in its group, where members make theirs themselves.
    pub id: String,
    /// How often it commits.
    pub commits_every: Duration,
    /// How long it takes to share out what there is, when it leads.
    pub thinks: Duration,
}

/// What a member is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Leave, and go on committing for a while.
    Leave,
    /// Leave for a while: a static member of the consumer protocol.
    Away,
    /// Join anew under the same id, without a word: a member of the consumer protocol.
    Again,
    /// Do nothing for so long, then commit as if nothing had happened.
    Pause(Duration),
}

/// How a member is.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Its id.
    pub member: String,
    /// The generation it belongs to, or its epoch.
    pub generation: i32,
    /// What it has; nothing while it does not know.
    pub owned: Option<BTreeSet<i32>>,
    /// Commits of it that were acknowledged.
    pub acked: u64,
    /// Whether it has ended: it left, or was told that another has its place.
    pub gone: bool,
}

/// A member, for those who tell it what to do.
pub struct Member {
    pub spec: Spec,
    stage: Stage,
    me: Me,
    task: tokio::task::JoinHandle<()>,
}

/// A member, for itself.
#[derive(Clone)]
pub struct Me {
    status: Arc<Mutex<Status>>,
    orders: Arc<Mutex<VecDeque<Order>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Me {
    /// How it is.
    pub fn status(&self) -> MutexGuard<'_, Status> {
        lock(&self.status)
    }

    /// What it is to do now.
    pub fn order(&self) -> Option<Order> {
        lock(&self.orders).front().copied()
    }

    /// It has done what it was to do.
    pub fn obeyed(&self) {
        lock(&self.orders).pop_front();
    }
}

impl Member {
    /// A member begins.
    pub fn spawn(stage: &Stage, spec: Spec) -> Self {
        let me = Me { status: Arc::default(), orders: Arc::default() };
        let task = match spec.kind {
            Kind::Classic { join } => tokio::spawn(classic::live(stage.clone(), spec.clone(), me.clone(), join)),
            Kind::Consumer => tokio::spawn(consumer::live(stage.clone(), spec.clone(), me.clone())),
        };
        Self { spec, stage: stage.clone(), me, task }
    }

    /// How it is.
    pub fn status(&self) -> Status {
        self.me.status().clone()
    }

    /// Tells it what to do.
    pub fn order(&self, order: Order) {
        lock(&self.me.orders).push_back(order);
    }

    /// Whether it has done all that it was told.
    pub fn has_obeyed(&self) -> bool {
        lock(&self.me.orders).is_empty()
    }

    /// It vanishes, whatever it is about.
    pub fn crash(&self) {
        self.task.abort();
        let mut status = self.me.status();
        status.gone = true;
        let mut events = self.stage.log.lock();
        for member in [&self.spec.id, &status.member] {
            events.keeps(self.spec.group, member, &BTreeSet::new());
        }
    }
}

/// As whom a commit is sent.
#[derive(Clone, Debug)]
pub struct Identity {
    pub member: String,
    pub instance: Option<String>,
    /// The generation, or the epoch; negative for a client that is no member.
    pub generation: i32,
    /// How often it was out of the group before, and came back under the same id.
    pub life: u32,
    /// Whether its client knows that members have epochs.
    pub knows_epochs: bool,
}

impl Identity {
    /// Of a client that is no member.
    pub fn nobody() -> Self {
        Self { member: String::new(), instance: None, generation: -1, life: 0, knows_epochs: false }
    }
}

/// The part of a member that reads and commits, whatever protocol gives it its share.
pub struct Reader {
    stage: Stage,
    group: &'static str,
    line: Line,
    /// Where it goes on, in each partition that it has.
    positions: BTreeMap<i32, i64>,
    /// What it has, and has not asked the offsets of yet.
    unknown: BTreeSet<i32>,
    /// As whom it asks for them, where members have epochs.
    identity: Option<Identity>,
}

impl Reader {
    /// A reader that has nothing.
    pub fn new(stage: &Stage, name: &str, group: &'static str) -> Self {
        let line = Line::new(stage, name, group);
        Self { stage: stage.clone(), group, line, positions: BTreeMap::new(), unknown: BTreeSet::new(), identity: None }
    }

    /// It has these partitions from now on, and goes on where the group is.
    pub fn own(&mut self, partitions: &BTreeSet<i32>) {
        self.positions.clear();
        self.unknown = partitions.clone();
    }

    /// It has these partitions from now on, and goes on where it is in those that it had.
    pub fn change(&mut self, partitions: &BTreeSet<i32>) {
        self.positions.retain(|partition, _| partitions.contains(partition));
        self.unknown =
            partitions.iter().filter(|partition| !self.positions.contains_key(*partition)).copied().collect();
    }

    /// It asks for offsets as this member from now on.
    pub fn identify(&mut self, identity: &Identity) {
        self.identity = Some(identity.clone());
    }

    /// Reads a little further.
    pub async fn read(&mut self, coordinator: &mut Line) -> Result<(), Lost> {
        if !self.unknown.is_empty() {
            let found = match &self.identity {
                Some(member) => offsets_of_member(&self.stage, coordinator, self.group, member, &self.unknown).await?,
                None => offsets(&self.stage, coordinator, self.group, &self.unknown).await?,
            };
            self.unknown.clear();
            self.positions.extend(found.into_iter().map(|(partition, offset)| (partition, offset.unwrap_or(0))));
        }
        if self.positions.is_empty() {
            tokio::time::sleep(REST).await;
            return Ok(());
        }
        if self.stage.room.is_some() {
            // Who leads which partition is for others to find out: here it counts what becomes of commits.
            tokio::time::sleep(REST).await;
            self.positions.values_mut().for_each(|offset| *offset += 1);
            return Ok(());
        }
        let wanted = self.positions.iter().map(|(partition, offset)| FetchPartition {
            partition: *partition,
            fetch_offset: *offset,
            partition_max_bytes: 4096,
            ..Default::default()
        });
        let topic = FetchTopic { topic: TOPIC.name.into(), partitions: wanted.collect(), ..Default::default() };
        let request = FetchRequest {
            max_wait_ms: FETCH_WAIT_MS,
            min_bytes: 1,
            max_bytes: 1 << 20,
            session_epoch: -1,
            topics: vec![topic],
            ..Default::default()
        };
        let response = self.line.call(VERSION_FETCH, request).await?;
        for partition in response.responses.iter().flat_map(|topic| &topic.partitions) {
            let bytes = partition.records.clone().map(|records| records.into_bytes()).unwrap_or_default();
            let Some(position) = self.positions.get_mut(&partition.partition_index) else { continue };
            *position = (*position).max(end_of(&bytes));
        }
        Ok(())
    }

    /// Commits where it is, all partitions in one request. Nothing if it has none, or knows none yet.
    pub async fn commit(&mut self, coordinator: &mut Line, identity: &Identity) -> Option<Result<ErrorCode, Lost>> {
        let positions = self.positions();
        if positions.is_empty() {
            return None;
        }
        Some(commit(&self.stage, coordinator, self.group, identity, &positions).await)
    }

    /// Where it is.
    pub fn positions(&self) -> BTreeMap<i32, i64> {
        self.positions.clone()
    }
}

/// The offset behind the last whole batch.
fn end_of(mut bytes: &[u8]) -> i64 {
    const LAST_OFFSET_DELTA: usize = 23;
    let mut end = 0;
    while let Some((base, rest)) = bytes.split_first_chunk::<8>() {
        let Some(size) = rest.first_chunk::<4>().map(|size| 12 + u32::from_be_bytes(*size) as usize) else { break };
        let Some(delta) = bytes.get(LAST_OFFSET_DELTA..).and_then(|rest| rest.first_chunk::<4>()) else { break };
        if bytes.len() < size {
            break;
        }
        end = i64::from_be_bytes(*base) + i64::from(i32::from_be_bytes(*delta)) + 1;
        bytes = &bytes[size..];
    }
    end
}

/// Commits offsets as somebody, and notes what came of it.
pub async fn commit(
    stage: &Stage,
    line: &mut Line,
    group: &'static str,
    identity: &Identity,
    offsets: &BTreeMap<i32, i64>,
) -> Result<ErrorCode, Lost> {
    let (numbers, request) = {
        let mut events = stage.log.lock();
        let sent = events.now();
        let first = events.commits.len();
        events.commits.extend(offsets.iter().map(|(partition, offset)| Commit {
            group,
            partition: *partition,
            offset: *offset,
            member: identity.member.clone(),
            life: identity.life,
            generation: identity.generation,
            sent,
            told: None,
        }));
        let numbers = first..events.commits.len();
        let partitions =
            offsets.iter().zip(first..).map(|((partition, offset), number)| OffsetCommitRequestPartition {
                partition_index: *partition,
                committed_offset: *offset,
                committed_metadata: Some(number.to_string().into()),
                ..Default::default()
            });
        let topic = OffsetCommitRequestTopic {
            name: TOPIC.name.into(),
            partitions: partitions.collect(),
            ..Default::default()
        };
        let request = OffsetCommitRequest {
            group_id: group.into(),
            generation_id_or_member_epoch: identity.generation,
            member_id: identity.member.as_str().into(),
            group_instance_id: identity.instance.as_deref().map(Into::into),
            topics: vec![topic],
            ..Default::default()
        };
        (numbers, request)
    };
    let version = if identity.knows_epochs { VERSION_COMMIT_OF_EPOCHS } else { VERSION_COMMIT };
    let response = line.call(version, request).await?;
    let codes: Vec<ErrorCode> = response.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
    let mut events = stage.log.lock();
    let told = events.now();
    for (number, code) in numbers.zip(&codes) {
        events.commits[number].told = Some((told, *code));
    }
    if codes.iter().any(|code| *code != codes[0]) {
        events.wrong(format!("a commit of {group} was taken in part: {codes:?}"));
    }
    events.refused(group, identity, codes[0]);
    Ok(codes[0])
}

/// Asks for offsets, and notes what is shown.
pub async fn offsets(
    stage: &Stage,
    line: &mut Line,
    group: &'static str,
    partitions: &BTreeSet<i32>,
) -> Result<BTreeMap<i32, Option<i64>>, Lost> {
    let sent = stage.log.now();
    let topic =
        OffsetFetchRequestTopic { name: TOPIC.name.into(), partition_indexes: partitions.iter().copied().collect() };
    let request = OffsetFetchRequest { group_id: group.into(), topics: Some(vec![topic]), ..Default::default() };
    let response = line.call(VERSION_OFFSETS, request).await?;
    if response.error_code.is_error() {
        line.hang_up();
        return Err(Lost);
    }
    let shown = response.topics.into_iter().flat_map(|topic| topic.partitions);
    Ok(note_offsets(stage, group, sent, shown.map(|it| (it.partition_index, it.committed_offset, it.metadata))))
}

/// The same as a member of the consumer protocol, at its epoch.
async fn offsets_of_member(
    stage: &Stage,
    line: &mut Line,
    group: &'static str,
    member: &Identity,
    partitions: &BTreeSet<i32>,
) -> Result<BTreeMap<i32, Option<i64>>, Lost> {
    let sent = stage.log.now();
    let partition_indexes = partitions.iter().copied().collect();
    let topic = OffsetFetchRequestTopics { name: TOPIC.name.into(), partition_indexes, ..Default::default() };
    let of_group = OffsetFetchRequestGroup {
        group_id: group.into(),
        member_id: Some(member.member.as_str().into()),
        member_epoch: member.generation,
        topics: Some(vec![topic]),
    };
    let request = OffsetFetchRequest { groups: vec![of_group], ..Default::default() };
    let response = line.call(VERSION_OFFSETS_OF_EPOCHS, request).await?;
    let of_group = response.groups.into_iter().next().ok_or(Lost)?;
    match of_group.error_code {
        ErrorCode::NONE => {
            let shown = of_group.topics.into_iter().flat_map(|topic| topic.partitions);
            Ok(note_offsets(stage, group, sent, shown.map(|it| (it.partition_index, it.committed_offset, it.metadata))))
        }
        // It is told in a heartbeat what has come about.
        ErrorCode::STALE_MEMBER_EPOCH | ErrorCode::UNKNOWN_MEMBER_ID => {
            tokio::time::sleep(REST).await;
            Err(Lost)
        }
        _ => {
            line.hang_up();
            Err(Lost)
        }
    }
}

/// Takes note of offsets that were shown: partition, offset, and what was stored with it.
fn note_offsets(
    stage: &Stage,
    group: &'static str,
    sent: At,
    shown: impl Iterator<Item = (i32, i64, Option<Text>)>,
) -> BTreeMap<i32, Option<i64>> {
    let mut events = stage.log.lock();
    let told = events.now();
    let mut offsets = BTreeMap::new();
    for (partition, offset, stored) in shown {
        let found = (offset >= 0).then(|| (offset, stored.as_deref().unwrap_or_default().to_owned()));
        offsets.insert(partition, found.as_ref().map(|(offset, _)| *offset));
        events.seen.push(Seen { group, partition, found, sent, told });
    }
    offsets
}
