//! What members of every kind have in common: who they are, what they are told to do, and how they read and commit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::fetch::{FetchPartition, FetchTopic};
use ottla::protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use ottla::protocol::messages::offset_fetch::OffsetFetchRequestTopic;
use ottla::protocol::messages::{FetchRequest, OffsetCommitRequest, OffsetFetchRequest};

use super::events::Commit;
use super::line::{Line, REST};
use super::{Stage, TOPIC, classic};
use crate::client::Lost;

const VERSION_FETCH: i16 = 11;
const VERSION_COMMIT: i16 = 8;
const VERSION_OFFSETS: i16 = 7;
/// How long a fetch waits for records.
const FETCH_WAIT_MS: i32 = 20;

/// The protocol that a member speaks. Another kind is one more line here, one in [`Member::spawn`], and a file beside `classic.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// JoinGroup, SyncGroup, Heartbeat, in these versions of JoinGroup.
    Classic { join: i16 },
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
        };
        Self { spec, me, task }
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
        self.me.status().gone = true;
    }
}

/// As whom a commit is sent.
#[derive(Clone, Debug)]
pub struct Identity {
    pub member: String,
    pub instance: Option<String>,
    /// The generation, or the epoch; negative for a client that is no member.
    pub generation: i32,
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
}

impl Reader {
    /// A reader that has nothing.
    pub fn new(stage: &Stage, name: &str, group: &'static str) -> Self {
        let line = Line::new(stage, name, group);
        Self { stage: stage.clone(), group, line, positions: BTreeMap::new(), unknown: BTreeSet::new() }
    }

    /// It has these partitions from now on, and goes on where the group is.
    pub fn own(&mut self, partitions: &BTreeSet<i32>) {
        self.positions.clear();
        self.unknown = partitions.clone();
    }

    /// Reads a little further.
    pub async fn read(&mut self, coordinator: &mut Line) -> Result<(), Lost> {
        if !self.unknown.is_empty() {
            let found = offsets(&self.stage, coordinator, self.group, &self.unknown).await?;
            self.unknown.clear();
            self.positions = found.into_iter().map(|(partition, offset)| (partition, offset.unwrap_or(0))).collect();
        }
        if self.positions.is_empty() {
            tokio::time::sleep(REST).await;
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
    let response = line.call(VERSION_COMMIT, request).await?;
    let codes: Vec<ErrorCode> = response.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
    let mut events = stage.log.lock();
    let told = events.now();
    for (number, code) in numbers.zip(&codes) {
        events.commits[number].told = Some((told, *code));
    }
    if codes.iter().any(|code| *code != codes[0]) {
        events.wrong(format!("a commit of {group} was taken in part: {codes:?}"));
    }
    events.refused(group, &identity.member, identity.generation, codes[0]);
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
    let mut events = stage.log.lock();
    let told = events.now();
    let mut offsets = BTreeMap::new();
    for shown in response.topics.iter().flat_map(|topic| &topic.partitions) {
        let partition = shown.partition_index;
        let stored = shown.metadata.as_deref().unwrap_or_default().to_owned();
        let found = (shown.committed_offset >= 0).then_some((shown.committed_offset, stored));
        offsets.insert(partition, found.as_ref().map(|(offset, _)| *offset));
        events.seen.push(super::events::Seen { group, partition, found, sent, told });
    }
    Ok(offsets)
}
