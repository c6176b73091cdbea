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
use crate::log::LogError;
use crate::log::disk::Lane;

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
        witness: Some(proto::LogId { term: witness.term.0, index: witness.index.0 }),
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
    let witness = LogId { term: Term(witness.term), index: RaftIndex(witness.index) };
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

/// Asks a peer where its log of a group ends; none if it is empty.
///
/// # Errors
/// If the peer does not answer, or does not have it.
pub(crate) async fn end(link: &Link, group: PartitionId) -> Result<Option<LogId>, String> {
    let request = proto::EndRequest { group: Some(wire::put_group(group)) };
    match tokio::time::timeout(PATIENCE, link.control().end(link.request(request))).await {
        Ok(Ok(reply)) => {
            let last = reply.into_inner().last;
            Ok(last.map(|last| LogId { term: Term(last.term), index: RaftIndex(last.index) }))
        }
        Ok(Err(status)) => Err(format!("{link:?}: {}", status.message())),
        Err(_) => Err(format!("{link:?} does not answer")),
    }
}

/// Tells a peer where a log ends.
pub(super) fn tell_end(groups: &Groups, request: proto::EndRequest) -> Result<proto::EndReply, Status> {
    let group = wire::group(&request.group.ok_or_else(|| Status::invalid_argument("no group"))?)?;
    let log = groups.log(group).ok_or_else(|| Status::not_found(format!("{group} is not open here")))?;
    let last = log.state().last.map(|last| proto::LogId { term: last.term.0, index: last.index.0 });
    Ok(proto::EndReply { last })
}
