//! Coordinator partitions on this broker: the task that leads each, and how requests get to it.
//!
//! One task a partition decides about what waits, commits all records of that turn as one batch, and answers when they are applied.
//! Meanwhile the next turn gathers: one sync for each turn, however many requests it has. A batch that is not committed takes all
//! decisions of its turn with it: the groups are read again from committed state, and whoever waits is told to ask again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, RwLock, Weak};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant};

use super::{Replica, Submission};
use crate::clock::Clock;
use crate::ids::{PartitionId, TopicId};
use crate::machine::groups::coordinator::Coordinator;
use crate::machine::groups::record::Record;
use crate::machine::groups::{Answer, Effects, Limits, Moment, Now, Ticket, Topics};
use crate::machine::keyed::LastValues;
use crate::protocol::batch::BatchHeader;
use crate::protocol::compression::Compression;
use crate::protocol::record::{BatchBuilder, NewRecord};

/// Requests that may wait for a coordinator's task.
const QUEUE: usize = 4096;
/// Requests decided in one turn.
const REQUESTS_PER_TURN: usize = 1024;
/// Turns in which nobody is taken for dead because others wait to be heard.
const TURNS_UNEXPIRED_MAX: usize = 16;
/// Between a commit that failed and the next one.
const REST_AFTER_FAILURE: Duration = Duration::from_millis(200);
/// Who waits for a commit of a leader without a lease is sent away after so long.
const CUT_OFF_AFTER: Duration = Duration::from_millis(400);
/// Between two looks at a lease that is in doubt.
const LEASE_PAUSE: Duration = Duration::from_millis(20);
/// A turn whose records take so much takes no more requests.
const TURN_BYTES_MAX: usize = 4 << 20;
/// What a batch may take, unless one record alone is larger: a segment must hold it.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// What a request wants of the coordinator: it decides, and answers its ticket, now or later.
pub type Work = Box<dyn FnOnce(&mut Turn<'_>, Ticket) + Send>;

/// What a request's decision works on.
pub struct Turn<'a> {
    /// The groups.
    pub coordinator: &'a mut Coordinator,
    /// What is committed. Decisions of this turn are not in it.
    pub committed: &'a LastValues,
    /// When this is.
    pub now: Now,
    /// What the turn does.
    pub out: &'a mut Effects,
}

/// Why a coordinator gives no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// It is not here.
    #[error("this broker does not coordinate that partition")]
    NotHere,
    /// It cannot commit; whether it has is unknown.
    #[error("the coordinator could not commit")]
    NotCommitted,
}

/// What a simulation puts between the coordinators and what they load and commit: failures, and bugs that its checks must catch. The broker
/// that ships has none.
pub trait Tamper: Send + Sync + 'static {
    /// What the groups of a partition are made from, if not from what is committed.
    fn loads(&self, _id: PartitionId, _committed: &LastValues) -> Option<LastValues> {
        None
    }

    /// Changes what a turn commits and answers. What is returned is answered before anything is committed.
    fn decided(&self, _out: &mut Effects) -> Vec<(Ticket, Answer)> {
        Vec::new()
    }

    /// Whether a turn is refused before it is proposed, as on a full disk.
    fn refuses(&self) -> bool {
        false
    }
}

struct Request {
    work: Work,
    /// Whether the work reads what is committed, so that nothing of its own turn may come before it.
    alone: bool,
    tell: oneshot::Sender<Answer>,
}

/// The coordinators on this broker, by partition.
pub struct Coordinators {
    queues: RwLock<HashMap<PartitionId, mpsc::Sender<Request>>>,
    /// Held by a partition's task: the next one reads the groups only when the one before has ended, and with it all that it proposed.
    turns: Mutex<HashMap<PartitionId, Arc<tokio::sync::Mutex<()>>>>,
    tamper: Option<Arc<dyn Tamper>>,
}

impl Coordinators {
    /// No coordinators yet; in a simulation, with something between them and what they load and commit.
    #[must_use]
    pub fn new(tamper: Option<Arc<dyn Tamper>>) -> Self {
        Self { queues: RwLock::default(), turns: Mutex::default(), tamper }
    }

    /// Has a partition's coordinator decide, and waits for the answer. With `alone`, it decides on committed state, with nothing undecided
    /// before it.
    ///
    /// # Errors
    /// When there is none, or it stops.
    pub async fn ask(&self, id: PartitionId, alone: bool, work: Work) -> Result<Answer, NoAnswer> {
        let queue = self.queues.read().expect("no panic under the lock").get(&id).cloned();
        let (tell, answer) = oneshot::channel();
        let queue = queue.ok_or(NoAnswer::NotHere)?;
        queue.send(Request { work, alone, tell }).await.map_err(|_| NoAnswer::NotHere)?;
        // Whoever waits must not keep a queue open that nobody else can reach any more.
        drop(queue);
        answer.await.map_err(|_| NoAnswer::NotCommitted)
    }

    /// Begins to coordinate a partition that this broker leads. The future is its task.
    pub fn start(
        &self,
        replica: &Arc<Replica>,
        clock: Arc<dyn Clock>,
        limits: Limits,
        topics: Arc<dyn Topics + Send + Sync>,
    ) -> impl Future<Output = ()> + use<> {
        let (sender, queue) = mpsc::channel(QUEUE);
        self.queues.write().expect("no panic under the lock").insert(replica.id(), sender);
        let task = Task {
            replica: Arc::downgrade(replica),
            clock,
            limits,
            topics,
            tamper: self.tamper.clone(),
            began: Instant::now(),
            next_ticket: 0,
            turns_unexpired: 0,
        };
        let turn = Arc::clone(self.turns.lock().expect("no panic under the lock").entry(replica.id()).or_default());
        async move {
            let _turn = turn.lock_owned().await;
            task.run(queue).await;
        }
    }

    /// The partitions that are coordinated here, in order.
    #[must_use]
    pub fn ids(&self) -> Vec<PartitionId> {
        let mut ids: Vec<PartitionId> = self.queues.read().expect("no panic under the lock").keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Has every coordinator forget the offsets that nobody wants any more.
    pub async fn expire_offsets(&self, topics: impl Fn(&str) -> Option<TopicId> + Clone + Send + 'static) {
        for id in self.ids() {
            let mut after = None;
            loop {
                let topics = topics.clone();
                let work: Work = Box::new(move |turn, ticket| {
                    let rest = turn.coordinator.expire_offsets(turn.now, &after, turn.committed, topics, turn.out);
                    turn.out.answer(ticket, Answer::Expired(rest));
                });
                match self.ask(id, true, work).await {
                    Ok(Answer::Expired(Some(rest))) => after = Some(rest),
                    Ok(_) => break,
                    Err(error) => {
                        tracing::debug!(partition = %id, %error, "old offsets could not be forgotten; it is tried again");
                        break;
                    }
                }
            }
        }
    }

    /// Ends all coordinators: whoever waits is told to look for another.
    pub fn stop_all(&self) {
        self.queues.write().expect("no panic under the lock").clear();
    }

    /// Ends a partition's coordinator.
    pub fn stop(&self, id: PartitionId) {
        self.queues.write().expect("no panic under the lock").remove(&id);
    }
}

struct Task {
    replica: Weak<Replica>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    topics: Arc<dyn Topics + Send + Sync>,
    tamper: Option<Arc<dyn Tamper>>,
    began: Instant,
    next_ticket: u64,
    /// Turns since members were last taken for dead.
    turns_unexpired: usize,
}

/// Who waits.
type Waiting = BTreeMap<Ticket, oneshot::Sender<Answer>>;

fn tell(waiting: &mut Waiting, answers: Vec<(Ticket, Answer)>) {
    for (ticket, answer) in answers {
        if let Some(tell) = waiting.remove(&ticket) {
            // Nobody waits any more if the connection is gone.
            let _ = tell.send(answer);
        }
    }
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut waiting = Waiting::new();
        let mut requests = VecDeque::new();
        loop {
            // Whoever waits for what was not committed is told so.
            waiting.clear();
            if queue.is_closed() {
                return;
            }
            let Some(replica) = self.replica.upgrade() else { return };
            let Some(term) = replica.term() else {
                // Its lease is in doubt. Whoever asked is told to ask again; when it is over, the queue is closed.
                drop(replica);
                requests.clear();
                tokio::time::sleep(LEASE_PAUSE).await;
                continue;
            };
            drop(replica);
            let Some(mut coordinator) = self.load() else { return };
            loop {
                if requests.is_empty() && !self.wait(&mut queue, &mut requests, coordinator.next_deadline()).await {
                    return;
                }
                // Whoever coordinates now may have decided something else since.
                let Some(replica) = self.replica.upgrade() else { return };
                if replica.term() != Some(term) {
                    // A lease that was away for a moment comes back without anybody being told; if it does not, the queue is closed.
                    requests.clear();
                    break;
                }
                let mut out = Effects::default();
                self.decide(&replica, &mut coordinator, &mut requests, queue.is_empty(), &mut waiting, &mut out);
                if let Some(tamper) = &self.tamper {
                    tell(&mut waiting, tamper.decided(&mut out));
                }
                let records = std::mem::take(&mut out.records);
                if !records.is_empty() && !self.commit(&replica, records, &mut waiting).await {
                    // What keeps it from committing (a full disk) does not pass at once.
                    tokio::time::sleep(REST_AFTER_FAILURE).await;
                    break;
                }
                tell(&mut waiting, out.answers);
                // Nobody has been heard since: to take members for dead now is not its place. Whoever still waits in the queue asks its successor.
                if queue.is_closed() {
                    return;
                }
            }
        }
    }

    fn now(&self) -> Now {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { moment: Moment(ms), wall: self.clock.now() }
    }

    fn load(&self) -> Option<Coordinator> {
        let replica = self.replica.upgrade()?;
        let (coordinator, unreadable) = {
            let machine = replica.group().machine().lock().expect("a machine's apply does not panic");
            let committed = machine.values()?;
            let instead = self.tamper.as_ref().and_then(|tamper| tamper.loads(replica.id(), committed));
            let values = instead.as_ref().unwrap_or(committed);
            Coordinator::load(values, self.limits, self.now(), Arc::clone(&self.topics))
        };
        for what in unreadable {
            tracing::error!(partition = %replica.id(), what, "what is stored of a group cannot be read: it begins without members");
        }
        Some(coordinator)
    }

    /// Waits for requests, or for the next deadline. `false`: nobody will come any more.
    async fn wait(
        &self,
        queue: &mut mpsc::Receiver<Request>,
        requests: &mut VecDeque<Request>,
        deadline: Option<Moment>,
    ) -> bool {
        let mut came = Vec::new();
        let at = deadline.map(|at| self.began + Duration::from_millis(at.0));
        let wait = async {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let goes_on = tokio::select! {
            biased;
            count = queue.recv_many(&mut came, REQUESTS_PER_TURN) => count > 0,
            () = wait => true,
        };
        requests.extend(came);
        goes_on
    }

    /// Decides about a turn's requests: all, or those before one that has to stand alone.
    fn decide(
        &mut self,
        replica: &Replica,
        coordinator: &mut Coordinator,
        requests: &mut VecDeque<Request>,
        queue_is_empty: bool,
        waiting: &mut Waiting,
        out: &mut Effects,
    ) {
        let now = self.now();
        let machine = replica.group().machine().lock().expect("a machine's apply does not panic");
        let committed = machine.values().expect("a coordinator was loaded from them");
        let mut bytes = 0;
        let takes_more = |next: &Request, bytes: usize| if next.alone { bytes == 0 } else { bytes < TURN_BYTES_MAX };
        while let Some(request) = requests.pop_front_if(|next| takes_more(next, bytes)) {
            let before = out.records.len();
            self.next_ticket += 1;
            let ticket = Ticket(self.next_ticket);
            waiting.insert(ticket, request.tell);
            (request.work)(&mut Turn { coordinator, committed, now, out }, ticket);
            bytes += out.records[before..].iter().map(Record::bytes).sum::<usize>();
        }
        // A sign of life that waits for its turn counts, unless there is no end of them.
        let waits = !(requests.is_empty() && queue_is_empty) && self.turns_unexpired < TURNS_UNEXPIRED_MAX;
        if waits {
            self.turns_unexpired += 1;
        } else {
            self.turns_unexpired = 0;
            coordinator.expire(now, out);
        }
    }

    /// Commits the records of a turn: as one batch, unless they are what deleting a large group takes.
    async fn commit(&self, replica: &Replica, records: Vec<Record>, waiting: &mut Waiting) -> bool {
        if self.tamper.as_ref().is_some_and(|tamper| tamper.refuses()) {
            return false;
        }
        let mut records = records.as_slice();
        while !records.is_empty() {
            let mut bytes = 0;
            let fitting = records.iter().take_while(|record| {
                bytes += record.bytes();
                bytes <= BATCH_BYTES_MAX
            });
            let (now, later) = records.split_at(fitting.count().max(1));
            if !self.commit_batch(replica, now, waiting).await {
                return false;
            }
            records = later;
        }
        true
    }

    async fn commit_batch(&self, replica: &Replica, records: &[Record], waiting: &mut Waiting) -> bool {
        let timestamp = self.clock.now().0;
        let mut builder = BatchBuilder::new(Compression::None);
        for Record { key, value } in records {
            builder.push(&NewRecord { timestamp, key: Some(key), value: value.as_deref(), headers: &[] });
        }
        let batch = builder.build();
        let header = BatchHeader::parse(&batch).expect("it was just built");
        let (done, mut outcome) = oneshot::channel();
        let done = Box::new(move |result| drop(done.send(result)));
        replica.submit(Submission { batch, header, done }).await;
        let mut cut_off: Option<Instant> = None;
        let outcome = loop {
            if let Ok(outcome) = tokio::time::timeout(LEASE_PAUSE, &mut outcome).await {
                break outcome;
            }
            // What becomes of it has to be known before anything else is decided. Those who wait have to look for another coordinator: a leader that
            // is cut off may learn it late.
            match replica.term() {
                Some(_) => cut_off = None,
                None if cut_off.get_or_insert_with(Instant::now).elapsed() >= CUT_OFF_AFTER => waiting.clear(),
                None => {}
            }
        };
        match outcome {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                tracing::warn!(partition = %replica.id(), %error, "a coordinator could not commit; its groups are read again");
                false
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::ids::PartitionIndex;

    #[tokio::test]
    async fn whoever_waits_does_not_keep_a_stopped_coordinator_going() {
        let id = PartitionId { topic: TopicId([9; 16]), partition: PartitionIndex(0) };
        let coordinators = Coordinators::new(None);
        let (sender, mut queue) = mpsc::channel(1);
        coordinators.queues.write().unwrap().insert(id, sender);
        let mut asked = Box::pin(coordinators.ask(id, false, Box::new(|_, _| ())));
        assert_eq!(asked.as_mut().now_or_never(), None);
        let request = queue.try_recv().map_err(|error| error.to_string()).expect("it was asked");
        coordinators.stop(id);
        assert!(queue.is_closed(), "its successor is asked from now on");
        drop(request);
        assert_eq!(asked.await, Err(NoAnswer::NotCommitted));
    }
}
