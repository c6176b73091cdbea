//! openraft's type configuration, and the stored forms of votes and memberships.

use std::collections::BTreeSet;
use std::fmt;
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::impls::leader_id_std;
use openraft::vote::RaftLeaderId;

use crate::ids::{BrokerId, Incarnation, LogId, Offset, RaftIndex, ReplicaId, Term};
use crate::log::entry::EntrySummary;

/// What a leader proposes, and what the machine is handed back once it is committed.
#[derive(Clone, Debug)]
pub enum Command {
    /// One whole v2 record batch. The log overwrites its base offset and leader epoch.
    Records(Bytes),
    /// One whole batch from the leader, stamped as the leader stored it: this replica would have stamped it alike, or it stops.
    Replicated(Bytes),
    /// A machine's own command: an entry without records.
    Machine(Bytes),
    /// A command that rests on being the entry of that index, behind records up to that offset. At another place nothing is stored but a blank: what it
    /// rests on was refused, or something came between.
    At(RaftIndex, Offset, Placed),
    /// An entry as read back for applying: its header, never its records.
    Stored(Box<EntrySummary>),
}

/// What [`Command::At`] places.
#[derive(Clone, Debug)]
pub enum Placed {
    /// As [`Command::Records`].
    Records(Bytes),
    /// As [`Command::Machine`].
    Machine(Bytes),
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Records(batch) | Self::Replicated(batch) => write!(f, "records({} bytes)", batch.len()),
            Self::Machine(body) => write!(f, "command({} bytes)", body.len()),
            Self::At(index, ..) => write!(f, "at({index})"),
            Self::Stored(summary) => write!(f, "stored({})", summary.id),
        }
    }
}

/// The answer to a proposal once it is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The offset of the entry's first record; of the next record if the entry has none.
    pub base_offset: Offset,
    /// Whether the entry is blank: of a proposal that rested on another place, nothing was stored.
    pub is_blank: bool,
}

/// Runs a closure with a proposal's outcome, on the task that applied it: no further wake-up.
pub struct Callback<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Callback<T> {
    /// A responder that calls `done`.
    pub fn new(done: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(done))
    }
}

impl<T: 'static> openraft::raft::responder::Responder<TypeConfig, T> for Callback<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// The async runtime under openraft: tokio, with randomness from the group's seed and no other, so that a simulation repeats itself.
pub type Runtime = openraft_rt::deterministic_rng::DeterministicRng<super::runtime::Ordered>;

/// openraft's types as Ottla uses them. One leader per term (`leader_id_std`): the term is the Kafka leader epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Command;
    type R = Applied;
    type NodeId = ReplicaId;
    type Node = ();
    type Term = u64;
    type LeaderId = leader_id_std::LeaderId<u64, ReplicaId>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Command, ReplicaId, ()>;
    type Entry = openraft::impls::Entry<<Self::LeaderId as RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = Callback<T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// openraft's log id under this configuration.
pub type RaftLogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// openraft's vote under this configuration.
pub type RaftVote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// openraft's entry under this configuration.
pub type RaftEntry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// openraft's membership under this configuration.
pub type RaftMembership = openraft::Membership<ReplicaId, ()>;
/// openraft's AppendEntries under this configuration.
pub type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
/// A membership with the log id that set it.
pub type RaftStoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;

/// Our log id from openraft's.
#[must_use]
pub fn log_id(id: &RaftLogId) -> LogId {
    LogId { term: Term(**id.committed_leader_id()), index: RaftIndex(id.index()) }
}

/// openraft's log id from ours.
#[must_use]
pub fn raft_log_id(id: LogId) -> RaftLogId {
    RaftLogId::new_term_index(id.term.0, id.index.0)
}

const VOTE_FORMAT: u8 = 1;
const MEMBERSHIP_FORMAT: u8 = 1;
/// More voters than any group will have; a stored membership that claims more is damaged.
const MEMBERS_MAX: usize = 4096;

/// A vote's stored form.
#[must_use]
pub fn encode_vote(vote: &RaftVote) -> Bytes {
    let mut out = BytesMut::with_capacity(22);
    out.put_u8(VOTE_FORMAT);
    out.put_u64(vote.leader_id.term);
    put_replica(&mut out, &vote.leader_id.voted_for);
    out.put_u8(u8::from(vote.committed));
    out.freeze()
}

/// Reads back [`encode_vote`].
///
/// # Errors
/// `InvalidData` when the bytes are not a vote: the replica has forgotten and must not open its group.
pub fn decode_vote(mut bytes: &[u8]) -> io::Result<RaftVote> {
    if bytes.len() != 22 || bytes.get_u8() != VOTE_FORMAT {
        return Err(damaged("vote"));
    }
    let term = bytes.get_u64();
    let voted_for = get_replica(&mut bytes);
    let leader_id = leader_id_std::LeaderId { term, voted_for };
    Ok(RaftVote { leader_id, committed: bytes.get_u8() == 1 })
}

/// A membership's stored form: its voter sets, then all its nodes.
#[must_use]
pub fn encode_membership(membership: &RaftMembership) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(MEMBERSHIP_FORMAT);
    let count = |n: usize| u16::try_from(n).expect("a group has few members");
    out.put_u16(count(membership.get_joint_config().len()));
    for set in membership.get_joint_config() {
        out.put_u16(count(set.len()));
        set.iter().for_each(|replica| put_replica(&mut out, replica));
    }
    out.put_u16(count(membership.nodes().count()));
    membership.nodes().for_each(|(replica, ())| put_replica(&mut out, replica));
    out.freeze()
}

/// Reads back [`encode_membership`].
///
/// # Errors
/// `InvalidData` when the bytes are not a membership.
pub fn decode_membership(mut bytes: &[u8]) -> io::Result<RaftMembership> {
    if bytes.is_empty() || bytes.get_u8() != MEMBERSHIP_FORMAT {
        return Err(damaged("membership"));
    }
    let sets = get_count(&mut bytes)?;
    let mut configs = Vec::new();
    for _ in 0..sets {
        configs.push(get_replicas(&mut bytes)?);
    }
    let nodes = get_replicas(&mut bytes)?;
    if !bytes.is_empty() {
        return Err(damaged("membership"));
    }
    if configs.is_empty() && nodes.is_empty() {
        return Ok(RaftMembership::default());
    }
    let nodes: std::collections::BTreeMap<ReplicaId, ()> = nodes.into_iter().map(|replica| (replica, ())).collect();
    RaftMembership::new(configs, nodes).map_err(|_| damaged("membership"))
}

fn get_replicas(bytes: &mut &[u8]) -> io::Result<BTreeSet<ReplicaId>> {
    let count = get_count(bytes)?;
    if bytes.remaining() < count * 12 {
        return Err(damaged("membership"));
    }
    Ok((0..count).map(|_| get_replica(bytes)).collect())
}

fn get_count(bytes: &mut &[u8]) -> io::Result<usize> {
    if bytes.remaining() < 2 {
        return Err(damaged("membership"));
    }
    let count = usize::from(bytes.get_u16());
    if count > MEMBERS_MAX { Err(damaged("membership")) } else { Ok(count) }
}

fn put_replica(out: &mut BytesMut, replica: &ReplicaId) {
    out.put_i32(replica.broker.0);
    out.put_u64(replica.incarnation.0);
}

fn get_replica(bytes: &mut &[u8]) -> ReplicaId {
    ReplicaId { broker: BrokerId(bytes.get_i32()), incarnation: Incarnation(bytes.get_u64()) }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("stored {what} is damaged"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(broker: i32, incarnation: u64) -> ReplicaId {
        ReplicaId { broker: BrokerId(broker), incarnation: Incarnation(incarnation) }
    }

    #[test]
    fn a_vote_reads_back_as_it_was_stored() {
        for committed in [false, true] {
            let vote = RaftVote { leader_id: leader_id_std::LeaderId { term: 9, voted_for: replica(3, 7) }, committed };
            assert_eq!(decode_vote(&encode_vote(&vote)).unwrap(), vote);
        }
        assert!(decode_vote(b"").is_err());
        assert!(decode_vote(&[0; 22]).is_err());
    }

    #[test]
    fn a_membership_reads_back_as_it_was_stored() {
        let sets = vec![BTreeSet::from([replica(1, 1), replica(2, 5)]), BTreeSet::from([replica(1, 1)])];
        let nodes: std::collections::BTreeMap<_, _> =
            [replica(1, 1), replica(2, 5), replica(3, 2)].into_iter().map(|r| (r, ())).collect();
        let membership = RaftMembership::new(sets, nodes).unwrap();
        let bytes = encode_membership(&membership);
        assert_eq!(decode_membership(&bytes).unwrap(), membership);
        for cut in 0..bytes.len() {
            assert!(decode_membership(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
