//! Entries of a log as they are stored, from one replica to another on whose disk they are damaged.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use tonic::Status;

use super::groups::Groups;
use super::link::Link;
use super::proto;
use super::wire;
use crate::ids::{LogId, PartitionId, RaftIndex, Term};
use crate::log::disk::Lane;
use crate::log::{Log, LogError};
use crate::raft::node::Node;

/// How long a peer may take: it may have to read from a device that has much to do.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is lent at a time, and one entry at least.
const LENT_BYTES_MAX: u64 = 1 << 20;

/// Asks a peer for entries of a group's log, some at least of a range. An error is why there are none, for people.
///
/// # Errors
/// If the peer does not answer, or does not have them.
pub(crate) async fn borrow(
    link: &Link,
    group: PartitionId,
    range: Range<RaftIndex>,
    witness: LogId,
) -> Result<Bytes, String> {
    let request = proto::LendRequest {
        group: Some(wire::put_group(group)),
        first: range.start.0,
        end: range.end.0,
        witness: Some(put_id(witness)),
        max_bytes: LENT_BYTES_MAX,
    };
    let mut client = link.data();
    match tokio::time::timeout(PATIENCE, client.lend(link.request(request))).await {
        Ok(Ok(reply)) => Ok(reply.into_inner().entries),
        Ok(Err(status)) => Err(format!("{link:?}: {}", status.message())),
        Err(_) => Err(format!("{link:?} does not answer")),
    }
}

/// Lends what a peer asks for, if it is here.
pub(super) async fn lend(groups: &Groups, request: proto::LendRequest) -> Result<proto::LendReply, Status> {
    let group = wire::group(&request.group.ok_or_else(|| Status::invalid_argument("no group"))?)?;
    let witness = request.witness.ok_or_else(|| Status::invalid_argument("no witness"))?;
    let witness = id(witness);
    let range = RaftIndex(request.first)..RaftIndex(request.end);
    if range.is_empty() {
        return Err(Status::invalid_argument("no entries are asked for"));
    }
    let log = groups.log(group).ok_or_else(|| Status::not_found(format!("{group} is not open here")))?;
    let (tell, lent) = tokio::sync::oneshot::channel();
    let (disk, max_bytes) = (log.disk(), request.max_bytes.min(LENT_BYTES_MAX));
    disk.offload(Lane::Read, Box::new(move || drop(tell.send(log.lend(range, witness, max_bytes)))));
    let lent = lent.await.map_err(|_| Status::unavailable("this broker stops"))?;
    match lent {
        Ok(entries) => Ok(proto::LendReply { entries }),
        Err(error @ LogError::NoSuchEntries { .. }) => Err(Status::out_of_range(error.to_string())),
        Err(error) => Err(Status::data_loss(error.to_string())),
    }
}

/// What a broker has of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// The last entry; none of an empty log.
    pub(crate) last: Option<LogId>,
    /// The last one that is known to be committed.
    pub(crate) committed: Option<LogId>,
    /// Whether the entry that was asked for is there.
    pub(crate) holds: bool,
    /// Whether it leads the group, and a majority listens to it.
    pub(crate) serves: bool,
}

impl End {
    /// What this broker has of a group, and whether an entry is there.
    pub(crate) fn here(node: &Node, log: &Log, holds: Option<LogId>) -> Self {
        let group = log.id();
        let leads = node.leader(group).is_some_and(|(leader, _)| leader == node.me());
        Self {
            last: log.state().last,
            committed: log.committed(),
            holds: holds.is_none_or(|entry| log.holds(entry)),
            serves: leads && node.has_lease(group),
        }
    }
}

/// Asks a peer what it has of a group, and whether an entry is there.
///
/// # Errors
/// If the peer does not answer, or has nothing of it.
pub(crate) async fn end(link: &Link, group: PartitionId, holds: Option<LogId>) -> Result<End, String> {
    let request = proto::EndRequest { group: Some(wire::put_group(group)), holds: holds.map(put_id) };
    match tokio::time::timeout(PATIENCE, link.control().end(link.request(request))).await {
        Ok(Ok(reply)) => {
            let proto::EndReply { last, committed, holds, serves } = reply.into_inner();
            Ok(End { last: last.map(id), committed: committed.map(id), holds, serves })
        }
        Ok(Err(status)) => Err(format!("{link:?}: {}", status.message())),
        Err(_) => Err(format!("{link:?} does not answer")),
    }
}

/// Tells a peer what is here of a group.
pub(super) fn tell_end(node: &Node, request: proto::EndRequest) -> Result<proto::EndReply, Status> {
    let group = wire::group(&request.group.ok_or_else(|| Status::invalid_argument("no group"))?)?;
    let log = node.groups().log(group).ok_or_else(|| Status::not_found(format!("{group} is not open here")))?;
    let End { last, committed, holds, serves } = End::here(node, &log, request.holds.map(id));
    Ok(proto::EndReply { last: last.map(put_id), committed: committed.map(put_id), holds, serves })
}

fn id(id: proto::LogId) -> LogId {
    LogId { term: Term(id.term), index: RaftIndex(id.index) }
}

fn put_id(id: LogId) -> proto::LogId {
    proto::LogId { term: id.term.0, index: id.index.0 }
}
