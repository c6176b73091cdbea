//! One partition on this broker: submit, read, watermarks.
//!
//! A [`Replica`] owns its group, the bounded queue into its leader task, and the watermarks that readers see. Invariants:
//! `hw-regress`, `log-start-regress` (asserted where they are published), `read-past-hw` (a read is cut at the published high
//! watermark), `reply-names-its-entry` (see [`leader`]).

pub mod controller;
pub mod coordinator;
pub mod election;
pub mod leader;
pub mod quorum;
pub mod set;
mod submit;
pub mod watermarks;

#[cfg(test)]
mod full_disk_tests;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Duration, Instant};

use crate::flaws::{Flaw, Flaws};
use crate::ids::{Offset, PartitionId, ProducerId, RaftIndex, ReplicaId, Term, Timestamp};
use crate::log::retention::new_log_start;
use crate::log::{Log, LogConfig, LogError, SegmentInfo};
use crate::machine::partition::{Command, PartitionMachine};
use crate::machine::producer_state::{Expired, Refusal};
use crate::machine::topic_config::{Durability, TopicConfig};
use crate::machine::{Committed, Machine, What};
use crate::net::BoxFuture;
use crate::protocol::batch::BatchHeader;
use crate::raft::{AppliedState, Flusher, Group, GroupConfig, Node, Observer, StartError};
use leader::{Leader, Place};
pub use set::ReplicaSet;
use watermarks::{Published, Watermarks};

/// Batches and commands that may wait for a partition's leader task. Their bytes are bounded by the server.
const SUBMIT_QUEUE: usize = 512;
/// For so long after a replica was opened a producer of whom nothing is known begins with its first batch.
const NEW_FOR: Duration = Duration::from_secs(1);

/// A batch handed to a partition.
pub struct Submission {
    /// One whole v2 batch that passed every check which needs no state.
    pub batch: Bytes,
    /// Its header.
    pub header: BatchHeader,
    /// Called once with the outcome, when it may be told.
    pub done: Done,
}

/// Receives the outcome of a submission.
pub type Done = Box<dyn FnOnce(Result<Submitted, SubmitError>) + Send>;

/// A batch that is committed and durable as its topic promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// Whether it had been appended by an earlier request already (an idempotent retry).
    pub duplicate: bool,
}

/// Why a batch was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// This replica does not lead the partition, or is stopping.
    #[error("this replica does not lead the partition")]
    NotLeader,
    /// There is no room on the disk; reads go on, and writes do once there is room.
    #[error("no space left for partition {0}")]
    StorageFull(PartitionId),
    /// The producer's state refuses it.
    #[error("{0:?}")]
    Refused(Refusal),
    /// The batch may or may not be committed.
    #[error("whether the batch is committed is unknown")]
    Unknown,
}

/// What a leader task is asked to do.
pub(crate) enum Request {
    Batch(Submission),
    /// A command of the partition's machine, and who waits for it.
    Command(Bytes, Box<dyn FnOnce(Result<(), SubmitError>) + Send>),
}

/// One partition on this broker.
pub struct Replica {
    id: PartitionId,
    opened: Instant,
    group: Group<PartitionMachine>,
    published: Arc<Publisher>,
    requests: mpsc::Sender<Request>,
    leader: Arc<Mutex<Leader>>,
    flusher: Arc<Flusher>,
    config: Mutex<Arc<TopicConfig>>,
    flaws: Flaws,
    /// Whether its machine is a coordinator's, so that its log is needed only as far as the last snapshot.
    coordinates: bool,
}

/// Publishes what the group applied.
#[derive(Debug)]
pub struct Publisher {
    marks: Published,
    id: PartitionId,
    /// The other brokers, if this one has others: then the term that is served comes from them.
    among: Option<Arc<Node>>,
    blank: Mutex<Option<Term>>,
    /// Set by every application, taken by the janitor: a partition that nobody writes to is not looked at.
    touched: AtomicBool,
    /// Set when log start has moved, taken when what lies below it has been purged.
    purgeable: AtomicBool,
    janitor: Arc<Notify>,
}

impl Publisher {
    /// A publisher for a partition that wakes `janitor` when log start has moved. `among` are the other brokers, if there are any.
    #[must_use]
    pub fn new(id: PartitionId, janitor: Arc<Notify>, among: Option<Arc<Node>>) -> Arc<Self> {
        // Log start may have moved just before the last life ended.
        let (touched, purgeable) = (AtomicBool::new(true), AtomicBool::new(true));
        let (marks, blank) = (Published::default(), Mutex::default());
        Arc::new(Self { marks, id, among, blank, touched, purgeable, janitor })
    }

    /// The term whose first entry was applied last.
    fn blank(&self) -> Option<Term> {
        *self.blank.lock().expect("no panic under the lock of a term")
    }
}

impl Observer<PartitionMachine> for Publisher {
    fn voters(&self, voters: &[BTreeSet<ReplicaId>]) {
        if let Some(node) = &self.among {
            node.set_voters(self.id, voters);
        }
    }

    fn applied(&self, machine: &PartitionMachine, state: AppliedState) {
        let log_start = machine.log_start();
        let mut moved = false;
        self.marks.update(|marks| {
            moved = marks.log_start != log_start && marks.applied.is_some();
            marks.high_watermark = state.next_offset;
            marks.log_start = log_start;
            marks.applied = Some(state.last);
            if self.among.is_none() {
                marks.term = state.blank_term;
            }
        });
        let before =
            std::mem::replace(&mut *self.blank.lock().expect("no panic under the lock of a term"), state.blank_term);
        if let (Some(node), Some(term)) = (&self.among, state.blank_term.filter(|_| before != state.blank_term)) {
            node.began_term(self.id, term);
        }
        self.touched.store(true, Ordering::Relaxed);
        if moved {
            self.purgeable.store(true, Ordering::Relaxed);
            self.janitor.notify_one();
        }
    }
}

impl Replica {
    /// Starts the partition's group and its leader task. One that has its group for itself leads it when this returns; of others, whoever is elected.
    ///
    /// # Errors
    /// As [`Group::lead`].
    pub async fn open(
        group: GroupConfig<PartitionMachine>,
        config: Arc<TopicConfig>,
        published: Arc<Publisher>,
        spawn: impl FnOnce(BoxFuture<'static, ()>),
    ) -> Result<Arc<Self>, StartError> {
        let (flusher, flaws) = (Arc::clone(&group.flusher), group.node.flaws());
        let coordinates = group.machine.lock().expect("nobody else has it yet").values().is_some();
        let group = Group::open(group).await?;
        let leader = Arc::new(Mutex::new(Leader::new(Term(0), Place { index: RaftIndex(0), base_offset: Offset(0) })));
        let (requests, queue) = mpsc::channel(SUBMIT_QUEUE);
        let id = group.id();
        let config = Mutex::new(config);
        let replica = Arc::new(Self {
            id,
            opened: Instant::now(),
            group,
            published,
            requests,
            leader,
            flusher,
            config,
            flaws,
            coordinates,
        });
        spawn(Box::pin(submit::run(Arc::downgrade(&replica), queue)));
        if let Some(node) = &replica.published.among {
            node.open(id, replica.group.member(), replica.group.voters(), replica.group.order());
            // What was applied before the others could be told.
            if let Some(term) = replica.published.blank() {
                node.began_term(id, term);
            }
        }
        Ok(replica)
    }

    /// This replica leads, and serves, in that term from now on; or does not. Who waits for the partition is woken.
    pub fn serves(&self, term: Option<Term>) {
        self.published.marks.update(|marks| marks.term = term);
    }

    /// Whether its machine is a coordinator's.
    #[must_use]
    pub fn coordinates(&self) -> bool {
        self.coordinates
    }

    /// The term in which this replica may propose: it was elected, and has applied everything that was committed before.
    #[must_use]
    pub fn term_to_propose(&self) -> Option<Term> {
        match &self.published.among {
            None => self.watermarks().term,
            // Raft itself sees to it that nothing is committed in a term that is over.
            Some(_) => self.group.term().filter(|term| self.published.blank() == Some(*term)),
        }
    }

    /// The partition.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// The partition's log.
    #[must_use]
    pub fn log(&self) -> &Arc<Log> {
        self.group.log()
    }

    /// The partition's group.
    #[must_use]
    pub fn group(&self) -> &Group<PartitionMachine> {
        &self.group
    }

    /// What readers may see now; nothing once a sync has failed.
    #[must_use]
    pub fn watermarks(&self) -> Watermarks {
        // The lease first: what was committed when it held is in what is read then.
        let serving = self.published.among.as_ref().map(|node| node.serving(self.id));
        let mut marks = self.published.marks.get();
        if self.flusher.is_dead() || serving.is_some_and(|serving| serving != marks.term) {
            marks.term = None;
        }
        if self.flaws.has(Flaw::ServedPastHighWatermark) {
            marks.high_watermark = self.log().state().next_offset;
        }
        marks
    }

    /// The term in which this replica serves.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        self.watermarks().term
    }

    /// Subscribes to moves of the watermarks.
    #[must_use]
    pub fn subscribe(&self, list: &Arc<watermarks::ReadyList>, token: usize) -> Watermarks {
        self.published.marks.subscribe(list, token)
    }

    /// A batch was refused before it came to the leader, for a reason that may pass: those that its producer has sent behind it must not be taken, nor refused for the
    /// gap, before it has come again.
    pub fn send_back(&self, header: &BatchHeader) {
        self.leader.lock().expect("no panic under the leader's locks").send_back(header);
    }

    /// Whether the replica was opened a moment ago, among several brokers: before that, batches were sent back without a note of it.
    fn is_new(&self) -> bool {
        self.published.among.is_some() && self.opened.elapsed() < NEW_FOR
    }

    /// Hands a batch to the partition. Waits while the queue is full, so that one connection's batches stay in order.
    pub async fn submit(&self, submission: Submission) {
        if let Err(mpsc::error::SendError(Request::Batch(refused))) =
            self.requests.send(Request::Batch(submission)).await
        {
            (refused.done)(Err(SubmitError::NotLeader));
        }
    }

    /// Moves log start to `offset` (DeleteRecords, retention) and waits until the move is committed.
    ///
    /// # Errors
    /// As for a batch. Moving to or below the present log start succeeds and changes nothing.
    pub async fn move_log_start(&self, offset: Offset) -> Result<(), SubmitError> {
        if self.flaws.has(Flaw::LogStartNotReplicated) {
            self.move_log_start_here(offset);
            return Ok(());
        }
        self.command(Command::LogStart(offset).encode()).await
    }

    fn move_log_start_here(&self, offset: Offset) {
        let mut machine = self.group.machine().lock().expect("a machine's apply does not panic");
        let (what, id) = (Command::LogStart(offset).encode(), self.log().state().last.unwrap_or_default());
        if machine.apply(Committed { id, what: What::Command(&what) }).is_ok() {
            let log_start = machine.log_start();
            self.published.marks.update(|marks| marks.log_start = log_start);
        }
    }

    /// Proposes a command of the partition's machine and waits until it is applied.
    ///
    /// # Errors
    /// As for a batch.
    pub async fn command(&self, command: Bytes) -> Result<(), SubmitError> {
        let (done, outcome) = tokio::sync::oneshot::channel();
        let done = Box::new(move |result| drop(done.send(result)));
        if self.requests.send(Request::Command(command, done)).await.is_err() {
            return Err(SubmitError::NotLeader);
        }
        outcome.await.unwrap_or(Err(SubmitError::NotLeader))
    }

    /// The idempotent producers that are known, each with the offset of its last batch.
    #[must_use]
    pub fn last_batches(&self) -> Vec<(ProducerId, Offset)> {
        self.group.machine().lock().expect("a machine's apply does not panic").producers().last_batches().collect()
    }

    /// Forgets idle producers and waits until that is committed.
    ///
    /// # Errors
    /// As for a batch.
    pub async fn expire_producers(&self, expired: Vec<Expired>) -> Result<(), SubmitError> {
        self.command(Command::ExpireProducers(expired).encode()).await
    }

    /// The topic's configs.
    #[must_use]
    pub fn config(&self) -> Arc<TopicConfig> {
        Arc::clone(&self.config.lock().expect("no panic under the config's lock"))
    }

    /// Takes new configs; they count from the next batch on.
    pub fn configure(&self, config: Arc<TopicConfig>) {
        let mut present = self.config.lock().expect("no panic under the config's lock");
        if *present != config {
            self.log().reconfigure(log_config(&config));
            self.group.flusher().set_page_cache(config.durability == Durability::PageCache);
            *present = config;
            self.published.touched.store(true, Ordering::Relaxed);
        }
    }

    /// Whether anything was applied, or configs changed, since the last call.
    #[must_use]
    pub fn take_touched(&self) -> bool {
        self.published.touched.swap(false, Ordering::Relaxed)
    }

    /// Whether log start has moved since the last call: what lies below it can be purged.
    #[must_use]
    pub fn take_purgeable(&self) -> bool {
        self.published.purgeable.swap(false, Ordering::Relaxed)
    }

    /// The log start that retention by size, and by time if wanted, asks for at `now`, if it is ahead of the present one. Rolls the active segment when its time has come.
    /// Blocks: timestamps are in the files.
    ///
    /// # Errors
    /// Of the log.
    pub fn retention_due(&self, now: Timestamp, by_time: bool) -> Result<Option<Offset>, LogError> {
        let config = self.config();
        if self.log().roll_due(now, config.segment_ms)? {
            match self.log().roll() {
                // What retention finds below may be what makes room.
                Ok(()) | Err(LogError::Full) => {}
                Err(error) => return Err(error),
            }
        }
        let log = self.log();
        let marks = self.watermarks();
        if self.coordinates {
            // All of it is in the machine's snapshots: what is kept is for people who look.
            let bytes = u64::try_from(config.segment_bytes).ok();
            return new_log_start(&log.segments(), marks.log_start, marks.high_watermark, bytes, |_| Ok(false));
        }
        if !config.delete {
            return Ok(None);
        }
        let bytes = config.retention_bytes.and_then(|bytes| u64::try_from(bytes).ok());
        let ms = config.retention_ms.filter(|ms| by_time && *ms >= 0);
        let oldest = ms.map(|ms| Timestamp(now.0.saturating_sub(ms)));
        let is_old = |segment: &SegmentInfo| oldest.map_or(Ok(false), |oldest| log.is_older(segment, oldest));
        new_log_start(&log.segments(), marks.log_start, marks.high_watermark, bytes, is_old)
    }

    /// Lets the log end the active segment if log start has passed all of it, so that its bytes can go. May block for a moment.
    ///
    /// # Errors
    /// Of the log; it is then tried again when the janitor next comes by.
    pub fn roll_below_log_start(&self) -> Result<(), LogError> {
        let marks = self.watermarks();
        let state = self.log().state();
        if marks.log_start == Offset(0) || marks.log_start != state.next_offset {
            return Ok(());
        }
        self.log().roll().inspect_err(|_| self.published.purgeable.store(true, Ordering::Relaxed))
    }

    /// Stops serving: what waits is answered with a retriable error.
    pub async fn close(&self) {
        if let Some(node) = &self.published.among {
            node.close(self.id);
        }
        self.published.marks.update(|marks| marks.term = None);
        self.group.stop().await;
    }
}

/// How a log is laid out under a topic's configs.
#[must_use]
pub fn log_config(config: &TopicConfig) -> LogConfig {
    LogConfig { segment_bytes: u64::try_from(config.segment_bytes).expect("a checked config is positive") }
}
