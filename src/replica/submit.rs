//! The leader task: reserves space, decides, proposes, and lets replies leave when what they rest on is applied.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::mpsc;

use super::leader::{Answer, Decision, Leader, Place};
use super::{Done, Replica, Request, Submission, SubmitError, Submitted};
use crate::flaws::{Flaw, Flaws};
use crate::ids::RaftIndex;
use crate::log::LogError;
use crate::protocol::batch::HEADER_BYTES;
use crate::raft::types::Placed;
use crate::raft::{Command, ProposeError};

/// Requests taken from the queue in one go.
const REQUESTS_PER_TURN: usize = 64;

/// Replies that wait for an entry, by its index.
type Parked = BTreeMap<RaftIndex, Vec<Box<dyn FnOnce(bool) + Send>>>;

/// What the leader task shares with the callbacks of its proposals.
#[derive(Clone)]
struct Shared {
    leader: Arc<Mutex<Leader>>,
    parked: Arc<Mutex<Parked>>,
    flaws: Flaws,
}

impl Shared {
    /// The proposal at `index` ended. Releases what waited for it.
    fn ended(&self, index: RaftIndex, applied: bool) {
        {
            let mut leader = lock(&self.leader);
            if applied {
                leader.applied(index);
            } else if self.flaws.has(Flaw::OverlaySurvives) {
                leader.forget(index);
            } else {
                leader.failed(index);
            }
        }
        let parked = lock(&self.parked).remove(&index);
        for release in parked.into_iter().flatten() {
            release(applied);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no panic under the leader's locks")
}

/// Runs until the replica is dropped or its core stops.
pub(super) async fn run(replica: Weak<Replica>, mut queue: mpsc::Receiver<Request>) {
    let mut turn = Vec::with_capacity(REQUESTS_PER_TURN);
    let parked = Arc::default();
    while queue.recv_many(&mut turn, REQUESTS_PER_TURN).await > 0 {
        let Some(replica) = replica.upgrade() else { return };
        let shared = Shared { leader: Arc::clone(&replica.leader), parked: Arc::clone(&parked), flaws: replica.flaws };
        for request in turn.drain(..) {
            match request {
                Request::Batch(submission) => batch(&replica, &shared, submission).await,
                Request::Command(body, done) => command(&replica, &shared, body, done).await,
            }
        }
    }
}

/// Makes sure that the proposal of a batch will find room, before Raft sees it: an append that fails ends the group's core.
fn reserve(replica: &Replica, shared: &Shared, bytes: u64) -> Result<(), SubmitError> {
    check_usable(replica, shared)?;
    let outstanding = lock(&shared.leader).in_flight_bytes();
    room(replica, replica.log().reserve(outstanding + bytes))
}

fn check_usable(replica: &Replica, shared: &Shared) -> Result<(), SubmitError> {
    let usable = !replica.flusher.is_dead() && usable(replica, shared);
    if usable { Ok(()) } else { Err(SubmitError::NotLeader) }
}

/// As [`reserve`], for a command, which finds room when batches do not.
fn reserve_command(replica: &Replica, shared: &Shared, bytes: u64) -> Result<(), SubmitError> {
    check_usable(replica, shared)?;
    // The log's end first: what is appended meanwhile is counted twice, never not at all.
    let last = replica.log().state().last.map(|last| last.index);
    let outstanding = lock(&shared.leader).unappended_bytes(last);
    room(replica, replica.log().reserve_command(outstanding + bytes))
}

fn room(replica: &Replica, reserved: Result<(), LogError>) -> Result<(), SubmitError> {
    reserved.map_err(|error| match error {
        LogError::Full => SubmitError::StorageFull(replica.id),
        _ => SubmitError::NotLeader,
    })
}

/// Whether decisions may be taken; begins anew in another term, or on a poisoned overlay, once everything that was appended is applied.
fn usable(replica: &Replica, shared: &Shared) -> bool {
    let mut leader = lock(&shared.leader);
    let Some(term) = replica.term_to_propose() else { return false };
    if leader.term() == term && !leader.is_poisoned() {
        return true;
    }
    let state = replica.log().state();
    let all_applied = leader.is_idle() && replica.watermarks().applied == state.last;
    if all_applied {
        let index = state.last.map_or(RaftIndex(0), |last| last.index.next());
        leader.rebuild(term, Place { index, base_offset: state.next_offset });
    }
    all_applied
}

async fn batch(replica: &Replica, shared: &Shared, submission: Submission) {
    let Submission { batch, header, done } = submission;
    let bytes = u64::try_from(batch.len()).expect("a length fits");
    // Decided before space is reserved: a duplicate is answered on a full disk too.
    let is_usable = !replica.flusher.is_dead() && usable(replica, shared);
    let decision = {
        let mut leader = lock(&shared.leader);
        let machine = lock(replica.group.machine());
        let comes_too_soon = leader.comes_too_soon(&machine, &header)
            || (replica.is_new() && leader.begins_in_the_middle(&machine, &header));
        if !is_usable || comes_too_soon {
            leader.send_back(&header);
            drop((leader, machine));
            return done(Err(SubmitError::NotLeader));
        }
        leader.decide(&machine, &header)
    };
    match decision {
        // A leader that was deposed and has not heard of it refuses what the present one would take.
        Decision::Now(Answer::Refused(_)) if replica.term().is_none() => done(Err(SubmitError::NotLeader)),
        Decision::Now(answer) => done(answered(answer)),
        Decision::After(index, answer) => park(shared, index, move |applied| {
            done(if applied { answered(answer) } else { Err(SubmitError::NotLeader) });
        }),
        Decision::Propose(_) => {
            if let Err(error) = reserve(replica, shared, bytes) {
                lock(&shared.leader).send_back(&header);
                return done(Err(error));
            }
            let (term, place) = {
                let mut leader = lock(&shared.leader);
                (leader.term(), leader.proposed_batch(&header, bytes))
            };
            let proposal = shared.clone();
            let done = acknowledged_first(replica, done, place);
            let ended = move |outcome: Result<crate::raft::group::Proposed, ProposeError>| {
                if let Ok(proposed) = &outcome {
                    assert_eq!(proposed.id.index, place.index, "overlay-predicts: the index");
                    assert_eq!(proposed.applied.base_offset, place.base_offset, "overlay-predicts: the offset");
                }
                if outcome.is_err() {
                    lock(&proposal.leader).send_back(&header);
                }
                proposal.ended(place.index, outcome.is_ok());
                done(match outcome {
                    Ok(_) => Ok(Submitted { base_offset: place.base_offset, duplicate: false }),
                    Err(error) => Err(error.into()),
                });
            };
            // What was decided with it stands or falls with what it was decided on: at another place it is nothing.
            replica
                .group
                .propose(term, Command::At(place.index, place.base_offset, Placed::Records(batch)), ended)
                .await;
        }
    }
}

/// What is called with the outcome; with a planted bug, nobody any more.
fn acknowledged_first(replica: &Replica, done: Done, place: Place) -> Done {
    if !replica.flaws.has(Flaw::AckBeforeMajority) {
        return done;
    }
    done(Ok(Submitted { base_offset: place.base_offset, duplicate: false }));
    Box::new(drop)
}

impl From<ProposeError> for SubmitError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader => Self::NotLeader,
            ProposeError::Unknown | ProposeError::Stopped => Self::Unknown,
        }
    }
}

fn answered(answer: Answer) -> Result<Submitted, SubmitError> {
    match answer {
        Answer::Duplicate(base_offset) => Ok(Submitted { base_offset, duplicate: true }),
        Answer::Refused(refusal) => Err(SubmitError::Refused(refusal)),
    }
}

/// Parks a reply until the entry at `index` ends; at once if it has meanwhile.
fn park(shared: &Shared, index: RaftIndex, release: impl FnOnce(bool) + Send + 'static) {
    let mut parked = lock(&shared.parked);
    // `ended` forgets the proposal before it takes the parked replies, both in this order of locks: what is still in flight here
    // will find the reply, what is not has been applied or has poisoned the overlay.
    let (in_flight, poisoned) = {
        let leader = lock(&shared.leader);
        (leader.is_in_flight(index), leader.is_poisoned())
    };
    if in_flight {
        parked.entry(index).or_default().push(Box::new(release));
    } else {
        drop(parked);
        release(!poisoned);
    }
}

async fn command(
    replica: &Replica,
    shared: &Shared,
    body: bytes::Bytes,
    done: Box<dyn FnOnce(Result<(), SubmitError>) + Send>,
) {
    let bytes = u64::try_from(HEADER_BYTES + body.len()).expect("a length fits");
    if let Err(error) = reserve_command(replica, shared, bytes) {
        return done(Err(error));
    }
    let (term, place) = {
        let mut leader = lock(&shared.leader);
        (leader.term(), leader.proposed_command(bytes))
    };
    let proposal = shared.clone();
    let ended = move |outcome: Result<crate::raft::group::Proposed, ProposeError>| {
        proposal.ended(place.index, outcome.is_ok());
        done(outcome.map(drop).map_err(SubmitError::from));
    };
    replica.group.propose(term, Command::At(place.index, place.base_offset, Placed::Machine(body)), ended).await;
}
