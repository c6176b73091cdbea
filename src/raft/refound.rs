//! A group that goes on from one replica's log, alone: the only unclean recovery, and only by an operator's word.
//!
//! The replica has a new incarnation, so nobody takes it for the one that was. Its term is far above any that the lost majority can have
//! reached, so that clients and brokers that heard of later terms follow it. What stands in its log counts as committed from then on, whether it was
//! or not; what only the lost ones had is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use openraft::impls::leader_id_std;

use super::applier::decode_stored_membership;
use super::types::{RaftMembership, RaftVote, decode_membership, decode_vote, encode_membership, encode_vote};
use crate::ids::{LogId, RaftIndex, ReplicaId, Term};
use crate::log::entry::{Body, NewEntry, RaftEntryKind};
use crate::log::journal::Journal;
use crate::log::{Log, LogError};

/// Terms that are passed over: elections that the lost majority may have held without this replica.
const TERMS_PASSED_OVER: u64 = 1000;

/// A vote for itself that a replica goes on with, and the term of it.
pub(super) fn vote_alone(journal: &Journal, log: &Log, me: ReplicaId) -> io::Result<(Bytes, Term)> {
    let id = log.id();
    let voted = journal.group(id).vote.map(|vote| decode_vote(&vote)).transpose()?;
    let voted = voted.map_or(0, |vote| vote.leader_id.term);
    let last = log.state().last.map_or(0, |last| last.term.0);
    let term = voted.max(last) + TERMS_PASSED_OVER;
    if Term(term) > Term::MAX {
        return Err(io::Error::other(format!(
            "no terms are left to pass over in {id}: it is in term {}",
            voted.max(last)
        )));
    }
    let vote = RaftVote { leader_id: leader_id_std::LeaderId { term, voted_for: me }, committed: false };
    Ok((encode_vote(&vote), Term(term)))
}

/// The entry that makes a replica its group's only voter.
pub(super) fn alone(me: ReplicaId) -> io::Result<Body> {
    let membership = RaftMembership::new(vec![BTreeSet::from([me])], BTreeMap::from([(me, ())]));
    let body = encode_membership(&membership.map_err(io::Error::other)?);
    Ok(Body::Raft { kind: RaftEntryKind::Membership, body })
}

/// The voters that an entry of a log names; two sets while they change.
///
/// # Errors
/// If it is not a membership.
pub fn logged_voters(body: &[u8]) -> io::Result<Vec<BTreeSet<ReplicaId>>> {
    Ok(decode_membership(body)?.get_joint_config().clone())
}

/// The voters that a checkpoint names; two sets while they change.
///
/// # Errors
/// If it is not a membership.
pub fn stored_voters(stored: &[u8]) -> io::Result<Vec<BTreeSet<ReplicaId>>> {
    Ok(decode_stored_membership(stored)?.membership().get_joint_config().clone())
}

/// Makes `me` the only voter of a log's group, and adds commands behind that; durable on return. Nothing else may use the log. Blocks.
///
/// # Errors
/// Of the disk, or if no terms are left.
pub fn go_on_alone(log: &Log, journal: &Arc<Journal>, me: ReplicaId, commands: Vec<Bytes>) -> io::Result<LogId> {
    let (vote, term) = vote_alone(journal, log, me)?;
    let (tell, done) = std::sync::mpsc::channel();
    // First: a log must not hold a term that its vote does not know.
    journal.put_vote(log.id(), vote, Box::new(move |outcome| drop(tell.send(outcome))));
    done.recv().map_err(io::Error::other)??;
    let first = log.state().last.map_or(RaftIndex(0), |last| last.index.next());
    let commands = commands.into_iter().map(|body| Body::Raft { kind: RaftEntryKind::Command, body });
    let bodies: Vec<Body> = std::iter::once(alone(me)?).chain(commands).collect();
    let entries: Vec<NewEntry> = (first.0..)
        .zip(bodies)
        .map(|(index, body)| NewEntry { id: LogId { term, index: RaftIndex(index) }, body })
        .collect();
    let other = |error: LogError| io::Error::other(error);
    let last = log.append(&entries).map_err(other)?.last;
    log.seal_clean().map_err(other)?;
    let (tell, done) = std::sync::mpsc::channel();
    journal.sync(Box::new(move |outcome| drop(tell.send(outcome))));
    done.recv().map_err(io::Error::other)??;
    Ok(last)
}
