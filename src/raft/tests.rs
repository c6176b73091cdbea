//! openraft's own storage suite over the log store, and a group of one through its lives.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, IOFlushed, LogState, RaftLogStorage, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageError};

use super::applier::{AppliedState, Observer, Snapshots};
use super::flusher::{Flusher, LogFlusher};
use super::group::{Group, GroupConfig, ProposeError, Proposed};
use super::log_store::LogStore;
use super::node::Node;
use super::transport::Peers;
use super::types::{Applied, Command, RaftEntry, RaftLogId, RaftStoredMembership, RaftVote, TypeConfig, log_id};
use crate::flaws::Flaws;
use crate::ids::{BrokerId, Incarnation, Offset, PartitionId, PartitionIndex, ReplicaId, Term, TopicId};
use crate::log::disk::Disk;
use crate::log::journal::Journal;
use crate::log::mem_disk::MemDisk;
use crate::log::{Descriptor, Log, LogConfig, OpenAfter, Recovered};
use crate::machine::Machine;
use crate::machine::partition::PartitionMachine;
use crate::metrics::Metrics;
use crate::net::TokioNetwork;
use crate::protocol::compression::Compression;
use crate::protocol::record::{BatchBuilder, NewRecord};

/// The suite makes its node ids from numbers.
impl From<u64> for ReplicaId {
    fn from(number: u64) -> Self {
        Self { broker: BrokerId(1), incarnation: Incarnation(number) }
    }
}

const ID: PartitionId = PartitionId { topic: TopicId([7; 16]), partition: PartitionIndex(0) };
const ME: ReplicaId = ReplicaId { broker: BrokerId(1), incarnation: Incarnation(1) };

#[derive(Default)]
struct Seen(Mutex<Option<AppliedState>>);

impl<M> Observer<M> for Seen {
    fn applied(&self, _machine: &M, state: AppliedState) {
        *self.0.lock().unwrap() = Some(state);
    }
}

struct Parts {
    log: Arc<Log>,
    journal: Arc<Journal>,
    flusher: Arc<Flusher>,
    recovered: Recovered,
}

fn open(disk: &MemDisk, config: LogConfig) -> Parts {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let journal = Journal::open(Arc::clone(&disk)).or_else(|_| Journal::create(Arc::clone(&disk))).unwrap();
    let (log, recovered) =
        Log::open(Arc::clone(&disk), Arc::clone(&journal), ID, config, OpenAfter { clean: false }).unwrap();
    let flusher = Flusher::new(disk, Arc::new(Metrics::new(&[], &[])), Arc::new(|fatal| panic!("{fatal:?}")));
    Parts { log: Arc::new(log), journal, flusher, recovered }
}

struct Builder;

/// The suite is about the log store; it applies entries out of nowhere, which the applier refuses. This one takes anything.
#[derive(Default)]
struct AnyMachine {
    last: Option<RaftLogId>,
    membership: RaftStoredMembership,
    snapshot: Option<SnapshotOf<TypeConfig, u64>>,
}

struct AnySnapshot(SnapshotOf<TypeConfig, u64>);

impl RaftSnapshotBuilder<TypeConfig> for AnySnapshot {
    type SnapshotData = u64;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, u64>, io::Error> {
        Ok(self.0.clone())
    }
}

impl RaftStateMachine<TypeConfig> for AnyMachine {
    type SnapshotData = u64;
    type SnapshotBuilder = AnySnapshot;

    async fn applied_state(&mut self) -> Result<(Option<RaftLogId>, RaftStoredMembership), io::Error> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            self.last = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = RaftStoredMembership::new(Some(entry.log_id), membership);
            }
            if let Some(responder) = responder {
                responder.send(Applied::default());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> AnySnapshot {
        let meta = SnapshotMetaOf::<TypeConfig> { last_log_id: self.last, last_membership: self.membership.clone() };
        let snapshot = SnapshotOf::<TypeConfig, u64> { meta, snapshot: 0 };
        self.snapshot = Some(snapshot.clone());
        AnySnapshot(snapshot)
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<TypeConfig>, snapshot: u64) -> Result<(), io::Error> {
        self.last = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.snapshot = Some(SnapshotOf::<TypeConfig, u64> { meta: meta.clone(), snapshot });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<TypeConfig, u64>>, io::Error> {
        Ok(self.snapshot.clone())
    }
}

/// The log store, with what installing a snapshot would have done before openraft purges beyond the log's end: without a descriptor
/// for that very point the log refuses.
struct SuiteStore {
    store: LogStore,
    log: Arc<Log>,
    journal: Arc<Journal>,
}

impl RaftLogStorage<TypeConfig> for SuiteStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        self.store.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.store.get_log_reader().await
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        self.store.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        self.store.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        self.store.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.store.append(entries, callback).await
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        self.store.truncate_after(last).await
    }

    async fn purge(&mut self, upto: RaftLogId) -> Result<(), io::Error> {
        let id = log_id(&upto);
        if self.log.state().last.is_none_or(|last| last.index < id.index) {
            let descriptor = Descriptor {
                id,
                membership: Bytes::new(),
                next_offset: Offset(0),
                log_start: Offset(0),
                epochs: Vec::new(),
                machine: Bytes::new(),
                place: None,
                roll: false,
            };
            self.journal.put_descriptor(ID, descriptor, Box::new(drop));
        }
        self.store.purge(upto).await
    }
}

impl StoreBuilder<TypeConfig, SuiteStore, AnyMachine, ()> for Builder {
    async fn build(&self) -> Result<((), SuiteStore, AnyMachine), StorageError<TypeConfig>> {
        let parts = open(&MemDisk::inline(), LogConfig::default());
        let flusher = LogFlusher::new(Arc::clone(&parts.flusher), Arc::clone(&parts.log), false, Flaws::NONE);
        let store = LogStore::new(Arc::clone(&parts.log), Arc::clone(&parts.journal), flusher);
        let store = SuiteStore { store, log: parts.log, journal: parts.journal };
        Ok(((), store, AnyMachine::default()))
    }
}

#[tokio::test]
async fn the_log_store_passes_openrafts_own_suite() {
    let suite = super::types::Runtime::scope(7, Suite::test_all(Builder));
    suite.await.unwrap();
}

struct Life {
    group: Group<PartitionMachine>,
    seen: Arc<Seen>,
    journal: Arc<Journal>,
}

async fn live(disk: &MemDisk) -> Life {
    live_as(disk, PartitionMachine::default).await
}

async fn live_as(disk: &MemDisk, fresh: fn() -> PartitionMachine) -> Life {
    let parts = open(disk, LogConfig { segment_bytes: 2048 });
    let machine = match &parts.recovered.descriptor {
        Some(descriptor) => PartitionMachine::restore(&descriptor.machine).unwrap(),
        None => fresh(),
    };
    let seen = Arc::new(Seen::default());
    let journal = Arc::clone(&parts.journal);
    let group = Group::lead(GroupConfig {
        me: ME,
        founders: BTreeSet::from([ME]),
        order: Vec::new(),
        node: Node::new(ME.broker, Peers::new(Arc::new(TokioNetwork), "test"), 1, Flaws::NONE),
        log: parts.log,
        journal: parts.journal,
        flusher: parts.flusher,
        page_cache: false,
        machine: Arc::new(Mutex::new(machine)),
        descriptor: parts.recovered.descriptor,
        observer: Arc::clone(&seen) as _,
        snapshots: Snapshots::AtLogStart,
        seed: 1,
    })
    .await
    .unwrap();
    Life { group, seen, journal }
}

/// Founds a group of one, or goes on with it.
fn found(store: &LogStore, me: ReplicaId) -> io::Result<()> {
    store.found(me, &BTreeSet::from([me]), None)
}

fn batch(text: &str) -> Command {
    keyed(None, text)
}

fn keyed(key: Option<&str>, text: &str) -> Command {
    let mut builder = BatchBuilder::new(Compression::None);
    let key = key.map(str::as_bytes);
    builder.push(&NewRecord { timestamp: 1, key, value: Some(text.as_bytes()), headers: &[] });
    Command::Records(builder.build())
}

async fn propose(life: &Life, term: Term, command: Command) -> Result<Proposed, ProposeError> {
    let (tell, outcome) = tokio::sync::oneshot::channel();
    life.group.propose(term, command, move |result| assert!(tell.send(result).is_ok())).await;
    outcome.await.unwrap()
}

#[tokio::test]
async fn a_group_of_one_keeps_what_it_acknowledged_through_kills_and_power_cuts() {
    let mut disk = MemDisk::inline().seeded(3);
    let mut next = 0;
    let mut last_term = Term(0);
    for round in 0..12 {
        let life = live(&disk).await;
        let term = life.group.term().unwrap();
        assert!(term > last_term, "each life leads in a term of its own");
        last_term = term;
        assert_eq!(life.seen.0.lock().unwrap().unwrap().next_offset, Offset(next), "round {round}");
        for n in 0..7 {
            let proposed = propose(&life, term, batch(&"x".repeat(200 + n))).await.unwrap();
            assert_eq!(proposed.applied.base_offset, Offset(next));
            next += 1;
        }
        disk = match round % 3 {
            0 => disk.crash_process(),
            1 => disk.after_power_cut(),
            _ => {
                life.group.checkpoint().await;
                life.group.stop().await;
                life.group.log().seal_clean().unwrap();
                disk.crash_process()
            }
        };
    }
}

#[tokio::test]
async fn a_group_whose_first_entries_were_lost_while_its_vote_was_kept_is_founded_again() {
    let disk = MemDisk::inline();
    {
        let parts = open(&disk, LogConfig::default());
        let leader = openraft::impls::leader_id_std::LeaderId { term: 1, voted_for: ME };
        let vote = super::types::encode_vote(&RaftVote { leader_id: leader, committed: true });
        parts.journal.put_vote(ID, vote, Box::new(|outcome| outcome.unwrap()));
    }
    let life = live(&disk.after_power_cut()).await;
    assert_eq!(life.group.term(), Some(Term(2)));
    assert_eq!(propose(&life, Term(2), batch("a")).await.unwrap().applied.base_offset, Offset(0));
}

#[tokio::test]
async fn a_proposal_in_a_term_that_is_over_is_refused() {
    let disk = MemDisk::inline();
    let life = live(&disk).await;
    let term = life.group.term().unwrap();
    assert_eq!(propose(&life, term.next(), batch("a")).await.unwrap_err(), ProposeError::NotLeader);
    assert_eq!(propose(&life, term, batch("b")).await.unwrap().applied.base_offset, Offset(0));
}

#[tokio::test]
async fn a_stopped_group_answers_what_it_is_asked() {
    let life = live(&MemDisk::inline()).await;
    let term = life.group.term().unwrap();
    life.group.stop().await;
    assert_eq!(propose(&life, term, batch("a")).await.unwrap_err(), ProposeError::Stopped);
}

#[tokio::test]
async fn moving_log_start_lets_the_log_be_purged() {
    use crate::machine::partition::Command as PartitionCommand;
    let disk = MemDisk::inline();
    let life = live(&disk).await;
    let term = life.group.term().unwrap();
    for _ in 0..40 {
        propose(&life, term, batch(&"y".repeat(300))).await.unwrap();
    }
    assert!(life.group.log().segments().len() > 5);
    let start = PartitionCommand::LogStart(Offset(30)).encode();
    propose(&life, term, Command::Machine(start)).await.unwrap();
    life.group.purge().await;
    // The purge happens in the core; the next proposal is behind it.
    for _ in 0..50 {
        propose(&life, term, batch("z")).await.unwrap();
        if life.group.log().state().purged.is_some() {
            break;
        }
    }
    let purged = life.group.log().state().purged.expect("the cut has moved");
    let first = life.group.log().first_offset_kept();
    assert!(first > Offset(0) && first <= Offset(30), "kept from {first}, cut at {purged}");
    let disk = disk.crash_process();
    let again = live(&disk).await;
    assert_eq!(again.group.machine().lock().unwrap().log_start(), Offset(30));
}

#[tokio::test]
async fn a_state_larger_than_segments_is_written_once_for_as_much_log_and_found_again() {
    use crate::machine::partition::Command as PartitionCommand;
    const KEYS: usize = 30;
    let mut disk = MemDisk::inline();
    let (mut snapshots, mut log_bytes, mut number) = (0, 0, 0);
    for round in 0..6 {
        let life = live_as(&disk, PartitionMachine::coordinator).await;
        let term = life.group.term().unwrap();
        let described = || life.journal.group(ID).checkpoint().map(|descriptor| descriptor.id);
        let mut last = described();
        for _ in 0..40 {
            let value = format!("{number:0>300}");
            log_bytes += u64::try_from(value.len()).unwrap();
            propose(&life, term, keyed(Some(&format!("key {}", number % KEYS)), &value)).await.unwrap();
            number += 1;
            snapshots += u64::from(std::mem::replace(&mut last, described()) != last);
            if number % 10 == 0 {
                life.group.checkpoint().await;
                snapshots += u64::from(std::mem::replace(&mut last, described()) != last);
            }
        }
        let end = life.group.log().state().next_offset;
        let start = PartitionCommand::LogStart(Offset(end.0 - 10)).encode();
        propose(&life, term, Command::Machine(start)).await.unwrap();
        life.group.purge().await;
        // The purge happens in the core; the next proposals are behind it.
        for _ in 0..5 {
            propose(&life, term, keyed(Some("key"), "behind")).await.unwrap();
        }
        let values = life.group.machine().lock().unwrap().values().unwrap().clone();
        assert!((round == 0 || values.bytes() > 4 * 2048) && values.get(b"key 7").is_some());
        disk = if round % 2 == 0 { disk.crash_process() } else { disk.after_power_cut() };
        let again = live_as(&disk, PartitionMachine::coordinator).await;
        assert_eq!(again.group.machine().lock().unwrap().values(), Some(&values), "round {round}");
        disk = disk.crash_process();
    }
    let life = live_as(&disk, PartitionMachine::coordinator).await;
    let (state, kept) = (life.group.machine().lock().unwrap().snapshot_bytes(), life.group.log().segments());
    assert!(
        snapshots >= 2 && snapshots <= 2 * log_bytes / state + 6,
        "{snapshots} for {log_bytes} of log, {state} of state"
    );
    let kept: u64 = kept.iter().map(|segment| segment.size_bytes).sum();
    assert!(kept < 3 * state + 4 * 2048, "{kept} bytes of log are kept");
}

#[test]
fn a_log_is_taken_over_by_a_later_incarnation_of_its_only_voter_and_by_nobody_else() {
    let disk = MemDisk::inline();
    let parts = open(&disk, LogConfig { segment_bytes: 1 << 20 });
    let flusher = LogFlusher::new(Arc::clone(&parts.flusher), Arc::clone(&parts.log), false, Flaws::NONE);
    let store = LogStore::new(Arc::clone(&parts.log), Arc::clone(&parts.journal), flusher);
    let replica = |broker, incarnation| ReplicaId { broker: BrokerId(broker), incarnation: Incarnation(incarnation) };
    let last = || parts.log.state().last.map(|last| last.index.0);
    found(&store, replica(1, 5)).unwrap();
    found(&store, replica(1, 5)).unwrap();
    assert_eq!(last(), Some(0), "written once");
    let refused = found(&store, replica(1, 4)).unwrap_err();
    assert!(refused.to_string().contains("none of the voters"), "{refused}");
    found(&store, replica(2, 9)).unwrap();
    assert_eq!(last(), Some(0), "another broker's replica waits to be told");
    found(&store, replica(1, 6)).unwrap();
    found(&store, replica(1, 6)).unwrap();
    assert_eq!(last(), Some(1));
    assert!(found(&store, replica(1, 5)).is_err(), "who was replaced does not come back");
}

#[tokio::test]
async fn a_group_goes_on_over_entries_that_a_repair_took_out() {
    let disk = MemDisk::inline();
    let life = live(&disk).await;
    let term = life.group.term().unwrap();
    let mut next = 0;
    // Until the last segment, which no checkpoint covers, has some entries.
    while next < 20 || life.group.log().segments().last().unwrap().size_bytes < 1200 {
        propose(&life, term, batch(&"r".repeat(300))).await.unwrap();
        next += 1;
    }
    life.group.log().mark_flushed();
    life.journal.sync(Box::new(|outcome| outcome.unwrap()));
    let disk = disk.crash_process();
    let dir = crate::log::directory(ID);
    let name = disk.list(&dir).unwrap().into_iter().rfind(|entry| entry.name.ends_with(".log")).unwrap().name;
    disk.flip_bit(&format!("{dir}/{name}"), 500, 2).unwrap();
    let group = Journal::look(&disk).unwrap().remove(&ID).unwrap();
    let examined = crate::log::repair::examine(&disk, &group, ID).unwrap();
    let lost = examined.behind_checkpoint().expect("a restart would have folded it").damage.clone();
    examined.apply(&disk).unwrap();
    let life = live(&disk).await;
    assert_eq!(life.seen.0.lock().unwrap().unwrap().next_offset, Offset(next), "{lost}");
    let term = life.group.term().unwrap();
    assert_eq!(propose(&life, term, batch("on")).await.unwrap().applied.base_offset, Offset(next));
}
