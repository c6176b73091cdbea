//! Fetch: reads committed batches as slices of the segments, and waits for more when there are too few.
//!
//! Partitions are read in the order of the request or session; the first that has records gives at least one whole batch, and
//! all together keep to the request's limit. A request that waits subscribes to its partitions once, and a wake reads again only
//! those that moved. Nothing is read past the high watermark (`read-past-hw`), and no record is looked at.
//! There are no transactions yet, so both isolation levels see the same.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::fetch_session::{Answer, Ask, Key, TopicKey, Want};
use super::on_disk::on_disk;
use crate::ids::{BrokerId, Offset, PartitionId, PartitionIndex, Term, TopicId};
use crate::log::{ColdRange, Fetched, ReadError, Reading};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::frame::decode_request;
use crate::protocol::messages::fetch::{
    EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use crate::protocol::messages::{FetchRequest, FetchResponse};
use crate::protocol::value::Records;
use crate::replica::Replica;
use crate::replica::watermarks::{ReadyList, Watermarks};
use crate::server::brokers::Reachable;
use crate::server::connection::{ConnectionError, Reply, Slot};
use crate::server::dispatch::Call;
use crate::server::error;
use crate::server::memory::Held;

/// The first version that names topics by id (KIP-516).
const IDS_FROM: i16 = 13;
/// The first version whose errors name the leader (KIP-951).
const LEADER_FROM: i16 = 16;
/// The last version whose clients do not know KAFKA_STORAGE_ERROR.
const NO_STORAGE_ERROR_UPTO: i16 = 5;
/// How often a cold range is warmed for one read before it is read into memory of its own: its pages go faster than they come.
const WARM_ATTEMPTS: usize = 4;
/// How long a read waits until damage is mended, and how often it looks.
const MEND_PATIENCE: Duration = Duration::from_secs(1);
const MEND_LOOK: Duration = Duration::from_millis(10);
/// How much is read into memory of its own at most.
const COPY_BYTES_MAX: usize = 1 << 20;

/// Handles one Fetch request. All of it happens in the reply's turn, as if the connection's requests were handled one by one.
///
/// # Errors
/// If the body is malformed.
pub async fn handle(
    call: &Call,
    body: Bytes,
    memory: &mut Held,
    closed: watch::Receiver<bool>,
) -> Result<Slot, ConnectionError> {
    let request = decode_request::<FetchRequest>(body, call.version())?;
    let partitions = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    call.context.request_memory.grow_for_answers(memory, partitions).await?;
    let call = call.clone();
    Ok(Slot::later(answer(call, request, closed)))
}

async fn answer(call: Call, request: FetchRequest, closed: watch::Receiver<bool>) -> Reply {
    let now = Instant::now();
    let max_wait = u64::try_from(request.max_wait_ms).unwrap_or(0);
    let size = |bytes: i32| usize::try_from(bytes).unwrap_or(0);
    let max_bytes = size(request.max_bytes).min(call.context.limits.fetch_bytes);
    let min_bytes = size(request.min_bytes).min(max_bytes);
    let read_committed = request.isolation_level > 0;
    let context = Arc::clone(&call.context);
    let (ticket, wanted) = match context.sessions.begin(ask(&call, request), now) {
        Ok(begun) => begun,
        Err(error_code) => {
            context.metrics.error(call.header.api.key(), error_code.0);
            return call.reply(&FetchResponse { error_code, ..Default::default() });
        }
    };
    let (parts, bytes, patience) = (resolve(&call, wanted), 0, None);
    let mut fetch = Fetch { parts, call, read_committed, max_bytes, min_bytes, bytes, patience };
    fetch.run(now + Duration::from_millis(max_wait), closed).await;
    context.metrics.fetched(u64::try_from(fetch.bytes).expect("a length fits"));
    let Fetch { call, parts, .. } = fetch;
    let finished = context.sessions.finish(ticket, into_answers(parts), Instant::now());
    for answer in finished.answers.iter().filter(|answer| answer.data.error_code.is_error()) {
        context.metrics.error(call.header.api.key(), answer.data.error_code.0);
    }
    let mut response =
        FetchResponse { error_code: finished.error, session_id: finished.session_id, ..Default::default() };
    list(&call, finished.answers, &mut response);
    call.reply(&response)
}

fn ask(call: &Call, request: FetchRequest) -> Ask {
    let uses_ids = call.version() >= IDS_FROM;
    let count = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    let mut wanted = Vec::with_capacity(count);
    for topic in request.topics {
        let key = if uses_ids { TopicKey::Id(topic.topic_id) } else { TopicKey::Name(topic.topic) };
        wanted.extend(topic.partitions.iter().map(|partition| {
            let want = Want {
                offset: partition.fetch_offset,
                max_bytes: partition.partition_max_bytes,
                current_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
            };
            (Key { topic: key.clone(), partition: partition.partition }, want)
        }));
    }
    let mut forgotten = Vec::new();
    for topic in request.forgotten_topics_data {
        let key = if uses_ids { TopicKey::Id(topic.topic_id) } else { TopicKey::Name(topic.topic) };
        forgotten.extend(topic.partitions.iter().map(|partition| Key { topic: key.clone(), partition: *partition }));
    }
    Ask { session_id: request.session_id, session_epoch: request.session_epoch, uses_ids, wanted, forgotten }
}

/// Where a partition is read.
enum Place {
    /// There is no such topic or partition: that is no reason to answer the others early.
    Nowhere,
    /// It exists, and this broker cannot serve it now.
    Elsewhere,
    /// Here. With the watermarks that were seen when it was last read.
    Here(Arc<Replica>, Watermarks),
}

/// One partition of the request, with what was read of it so far.
struct Part {
    key: Key,
    want: Want,
    place: Place,
    bytes: usize,
    data: PartitionData,
}

fn empty(partition: i32, error_code: ErrorCode) -> PartitionData {
    PartitionData {
        partition_index: partition,
        error_code,
        high_watermark: -1,
        records: Some(Records::default()),
        ..Default::default()
    }
}

fn resolve(call: &Call, wanted: Vec<(Key, Want)>) -> Vec<Part> {
    // Partitions of a topic mostly come together.
    let mut last: Option<(TopicKey, Option<TopicId>)> = None;
    let mut parts = Vec::with_capacity(wanted.len());
    for (key, want) in wanted {
        let topic = match &last {
            Some((topic, id)) if *topic == key.topic => *id,
            _ => {
                let id = match &key.topic {
                    TopicKey::Name(name) => call.context.controller.topic_id(name),
                    TopicKey::Id(id) => Some(*id),
                };
                last = Some((key.topic.clone(), id));
                id
            }
        };
        let (place, error_code) = locate(call, &key, topic);
        let mut data = empty(key.partition, error_code);
        match (&place, topic) {
            (Place::Nowhere, _) => data.aborted_transactions = Some(Vec::new()),
            (Place::Elsewhere, Some(topic)) => {
                let id = PartitionId { topic, partition: PartitionIndex(key.partition) };
                let (leader_id, leader_epoch) = call.context.leader_hint(id);
                data.current_leader = LeaderIdAndEpoch { leader_id, leader_epoch };
            }
            _ => {}
        }
        parts.push(Part { key, want, place, bytes: 0, data });
    }
    parts
}

fn locate(call: &Call, key: &Key, topic: Option<TopicId>) -> (Place, ErrorCode) {
    let Some(topic) = topic else { return (Place::Nowhere, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) };
    let id = PartitionId { topic, partition: PartitionIndex(key.partition) };
    if let Some(replica) = call.context.replicas.get(id) {
        let marks = replica.watermarks();
        return (Place::Here(replica, marks), ErrorCode::NONE);
    }
    if !call.context.controller.has_partition(id) {
        let is_unknown_id = matches!(key.topic, TopicKey::Id(_))
            && !call.context.controller.read(|controller| controller.topic_by_id(topic).is_some());
        let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        return (Place::Nowhere, if is_unknown_id { ErrorCode::UNKNOWN_TOPIC_ID } else { unknown });
    }
    (Place::Elsewhere, error::missing_partition(&call.context, id))
}

struct Fetch {
    call: Call,
    parts: Vec<Part>,
    read_committed: bool,
    max_bytes: usize,
    min_bytes: usize,
    /// Bytes of records read, over all parts.
    bytes: usize,
    /// Until when it waits for damage to be mended, once it has met some: however many parts are damaged.
    patience: Option<Instant>,
}

impl Fetch {
    /// Reads, and waits until there is enough, something is wrong, the peer has gone, or time is up.
    async fn run(&mut self, deadline: Instant, mut closed: watch::Receiver<bool>) {
        for index in 0..self.parts.len() {
            self.read(index).await;
        }
        if self.is_enough() || deadline <= Instant::now() {
            return;
        }
        let list = ReadyList::new();
        let mut moved = self.subscribe(&list);
        let time_is_up = tokio::time::sleep_until(deadline);
        tokio::pin!(time_is_up);
        loop {
            for index in std::mem::take(&mut moved) {
                self.read(index).await;
            }
            if self.is_enough() {
                return;
            }
            tokio::select! {
                biased;
                _ = closed.wait_for(|closed| *closed) => return,
                () = list.wait() => moved.extend(list.take()),
                () = &mut time_is_up => return,
            }
        }
    }

    /// Subscribes to every partition, and returns those that have moved since they were read.
    fn subscribe(&self, list: &Arc<ReadyList>) -> Vec<usize> {
        let mut moved = Vec::new();
        for (index, part) in self.parts.iter().enumerate() {
            if let Place::Here(replica, seen) = &part.place {
                let marks = replica.subscribe(list, index);
                if (marks.high_watermark, marks.log_start, marks.term)
                    != (seen.high_watermark, seen.log_start, seen.term)
                {
                    moved.push(index);
                }
            }
        }
        moved
    }

    /// Whether there is nothing to wait for.
    fn is_enough(&self) -> bool {
        if self.bytes >= self.min_bytes {
            return true;
        }
        let can_wait = |part: &Part| part.data.error_code == ErrorCode::NONE && part.data.diverging_epoch.epoch < 0;
        let is_waiting = |part: &Part| !matches!(part.place, Place::Nowhere);
        !self.parts.iter().any(is_waiting) || !self.parts.iter().filter(|part| is_waiting(part)).all(can_wait)
    }

    /// Reads a part again from its beginning.
    async fn read(&mut self, index: usize) {
        let part = &mut self.parts[index];
        let Place::Here(replica, seen) = &mut part.place else { return };
        self.bytes -= std::mem::take(&mut part.bytes);
        let left = self.max_bytes.saturating_sub(self.bytes);
        // The first records of an answer are whole batches, however large: else the client could not go on.
        let room =
            Room { bytes: left.min(usize::try_from(part.want.max_bytes).unwrap_or(0)), whole_first: self.bytes == 0 };
        *seen = replica.watermarks();
        let marks = *seen;
        let read = match check(replica, marks, &part.want) {
            Ok(None) => read(&self.call, replica, marks, (&part.want, room), &mut self.patience)
                .await
                .map(|fetched| (fetched, EpochEndOffset::default())),
            Ok(Some(diverging)) => Ok((nothing(), diverging)),
            Err(code) => Err(code),
        };
        part.data = match read {
            Ok((fetched, diverging_epoch)) => {
                part.bytes = fetched.bytes;
                self.bytes += fetched.bytes;
                PartitionData {
                    partition_index: part.key.partition,
                    high_watermark: marks.high_watermark.0,
                    last_stable_offset: marks.high_watermark.0,
                    log_start_offset: marks.log_start.0,
                    diverging_epoch,
                    aborted_transactions: self.read_committed.then(Vec::new),
                    records: Some(Records::from(fetched.slices)),
                    ..Default::default()
                }
            }
            Err(code) => {
                // The topic may have been deleted while this request waited.
                let is_gone = code == ErrorCode::NOT_LEADER_OR_FOLLOWER
                    && !self.call.context.controller.has_partition(replica.id());
                let code = if is_gone { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION } else { code };
                let mut data = empty(part.key.partition, code);
                let (leader_id, leader_epoch) = self.call.context.leader_hint(replica.id());
                data.current_leader = LeaderIdAndEpoch { leader_id, leader_epoch };
                data
            }
        };
    }
}

/// How much a read may give.
#[derive(Clone, Copy)]
struct Room {
    bytes: usize,
    /// Whether the first batch is given even if it is larger.
    whole_first: bool,
}

/// Checks epochs and offset (KIP-320): an error, or where the reader's log and this one part, or nothing against reading.
fn check(replica: &Replica, marks: Watermarks, want: &Want) -> Result<Option<EpochEndOffset>, ErrorCode> {
    error::leader_epoch(marks.term, want.current_epoch)?;
    if want.last_fetched_epoch >= 0 {
        let epoch = u64::try_from(want.last_fetched_epoch).expect("not negative");
        let (found, end) = replica.log().end_of_epoch(Term(epoch)).ok_or(ErrorCode::OFFSET_OUT_OF_RANGE)?;
        if want.offset < marks.log_start.0 {
            return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
        }
        if found < Term(epoch) || end.0 < want.offset {
            return Ok(Some(EpochEndOffset { epoch: found.epoch(), end_offset: end.0 }));
        }
    }
    if want.offset < marks.log_start.0 {
        return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
    }
    // Between the high watermark and the log's end there is nothing to see yet, and nothing wrong.
    if want.offset > marks.high_watermark.0 && want.offset > replica.log().state().next_offset.0 {
        return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
    }
    Ok(None)
}

async fn read(
    call: &Call,
    replica: &Replica,
    marks: Watermarks,
    (want, room): (&Want, Room),
    patience: &mut Option<Instant>,
) -> Result<Fetched, ErrorCode> {
    let (offset, end) = (Offset(want.offset), marks.high_watermark);
    if offset >= end || (room.bytes == 0 && !room.whole_first) {
        return Ok(nothing());
    }
    let mut attempts = 0;
    let fetched = loop {
        match replica.log().read(offset, room.bytes, end) {
            Err(ReadError::Corrupt(_)) if is_worth_waiting(replica, patience) => {
                // Has it noted, and mended, if nobody has met it before.
                drop(copy_quietly(call, replica, offset, end).await?);
                tokio::time::sleep(MEND_LOOK).await;
                attempts = 0;
                continue;
            }
            Ok(Reading::Fetched(fetched)) => break fetched,
            Ok(Reading::NeedsDevice(cold)) if attempts < WARM_ATTEMPTS => warm(call, replica, cold).await?,
            Ok(Reading::NeedsDevice(_)) => break copy(call, replica, offset, room, end).await?,
            Err(read_error) => return Err(failed(call, replica, &read_error)),
        }
        attempts += 1;
    };
    let fits = room.whole_first || fetched.bytes <= room.bytes;
    Ok(if fits { fetched } else { nothing() })
}

/// Whether another replica mends what is damaged here, so that the client need not hear of it.
fn is_worth_waiting(replica: &Replica, until: &mut Option<Instant>) -> bool {
    let until = *until.get_or_insert_with(|| Instant::now() + MEND_PATIENCE);
    replica.log().is_tended() && Instant::now() < until
}

async fn copy_quietly(
    call: &Call,
    replica: &Replica,
    offset: Offset,
    end: Offset,
) -> Result<Result<Fetched, ReadError>, ErrorCode> {
    let log = Arc::clone(replica.log());
    on_disk(call, move || log.read_copy(offset, 1, end)).await
}

fn nothing() -> Fetched {
    Fetched { slices: Vec::new(), bytes: 0, next_offset: Offset(0) }
}

async fn warm(call: &Call, replica: &Replica, cold: ColdRange) -> Result<(), ErrorCode> {
    let log = Arc::clone(replica.log());
    // Damage that is found tells its log's tender.
    on_disk(call, move || log.warm(cold)).await?.map(drop).map_err(|error| failed(call, replica, &error))
}

async fn copy(call: &Call, replica: &Replica, offset: Offset, room: Room, end: Offset) -> Result<Fetched, ErrorCode> {
    let log = Arc::clone(replica.log());
    let max_bytes = room.bytes.min(COPY_BYTES_MAX);
    let read = on_disk(call, move || log.read_copy(offset, max_bytes, end)).await?;
    read.map_err(|error| failed(call, replica, &error))
}

fn failed(call: &Call, replica: &Replica, read_error: &ReadError) -> ErrorCode {
    let code = error::read(read_error);
    if code != ErrorCode::OFFSET_OUT_OF_RANGE {
        tracing::warn!(partition = %replica.id(), peer = %call.peer, error = %read_error, "a fetch failed");
    }
    code
}

/// What was read, as the response lists it: first what exists, then what does not, each in order.
fn into_answers(parts: Vec<Part>) -> Vec<Answer> {
    let mut answers = Vec::with_capacity(parts.len());
    let mut nowhere = Vec::new();
    for Part { key, want, place, data, .. } in parts {
        let list = if matches!(place, Place::Nowhere) { &mut nowhere } else { &mut answers };
        list.push(Answer { key, want, data });
    }
    answers.append(&mut nowhere);
    answers
}

/// Lists the answers by topic, and says where the leaders are that they name.
fn list(call: &Call, answers: Vec<Answer>, response: &mut FetchResponse) {
    let version = call.version();
    let mut last: Option<TopicKey> = None;
    let mut leaders = BTreeSet::new();
    for Answer { key, mut data, .. } in answers {
        let moved = matches!(data.error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::FENCED_LEADER_EPOCH);
        if version < LEADER_FROM || !moved {
            data.current_leader = LeaderIdAndEpoch::default();
        }
        leaders.insert(data.current_leader.leader_id);
        if version <= NO_STORAGE_ERROR_UPTO && data.error_code == ErrorCode::KAFKA_STORAGE_ERROR {
            data.error_code = ErrorCode::NOT_LEADER_OR_FOLLOWER;
        }
        if last.as_ref() != Some(&key.topic) {
            let mut topic = FetchableTopicResponse::default();
            match &key.topic {
                TopicKey::Name(name) => topic.topic = name.clone(),
                TopicKey::Id(id) => topic.topic_id = *id,
            }
            response.responses.push(topic);
            last = Some(key.topic);
        }
        response.responses.last_mut().expect("pushed above").partitions.push(data);
    }
    let known = leaders.into_iter().filter_map(|leader| call.context.reachable(BrokerId(leader)));
    response.node_endpoints =
        known.map(|Reachable { id, host, port, rack }| NodeEndpoint { node_id: id.0, host, port, rack }).collect();
}
