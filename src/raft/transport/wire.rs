//! Between openraft's messages and those on the wire.

use std::time::Duration;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};

use super::proto::{self, append_reply, entry, refusal};
use crate::ids::{BrokerId, Incarnation, LogId, PartitionId, PartitionIndex, RaftIndex, ReplicaId, Term, TopicId};
use crate::protocol::batch::{BatchHeader, MAGIC, crc_matches, crc32c};
use crate::raft::liveness::{Ack, Beat, Relay};
use crate::raft::types::{
    Command, RaftEntry, RaftLogId, RaftVote, TypeConfig, decode_membership, decode_vote, encode_membership,
    encode_vote, log_id, raft_log_id,
};

/// What a peer sent cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of a peer cannot be read: {0}")]
pub struct Malformed(pub &'static str);

/// The replica of a group that is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The group.
    pub group: PartitionId,
    /// The replica in it.
    pub replica: ReplicaId,
}

impl From<Target> for proto::Target {
    fn from(target: Target) -> Self {
        Self {
            topic_id: Bytes::copy_from_slice(&target.group.topic.0),
            partition: target.group.partition.0,
            broker: target.replica.broker.0,
            incarnation: target.replica.incarnation.0,
        }
    }
}

/// Reads a target.
pub fn target(wire: Option<proto::Target>) -> Result<Target, Malformed> {
    let wire = wire.ok_or(Malformed("no target"))?;
    let topic = wire.topic_id.as_ref().try_into().map_err(|_| Malformed("a topic id of another size"))?;
    let group = PartitionId { topic: TopicId(topic), partition: PartitionIndex(wire.partition) };
    let replica = ReplicaId { broker: BrokerId(wire.broker), incarnation: Incarnation(wire.incarnation) };
    Ok(Target { group, replica })
}

/// A log id on the wire.
pub fn put_id(id: &RaftLogId) -> proto::LogId {
    let id = log_id(id);
    proto::LogId { term: id.term.0, index: id.index.0 }
}

/// Reads a log id.
pub fn id(wire: &proto::LogId) -> RaftLogId {
    raft_log_id(LogId { term: Term(wire.term), index: RaftIndex(wire.index) })
}

/// Reads a vote.
pub fn vote(wire: &[u8]) -> Result<RaftVote, Malformed> {
    decode_vote(wire).map_err(|_| Malformed("a vote"))
}

/// A request, and how large it is on the wire, near enough.
pub fn put_append(session: u64, request: AppendEntriesRequest<TypeConfig>) -> proto::AppendFrame {
    proto::AppendFrame {
        session,
        target: None,
        vote: encode_vote(&request.vote),
        previous: request.prev_log_id.as_ref().map(put_id),
        committed: request.leader_commit.as_ref().map(put_id),
        entries: request.entries.into_iter().map(put_entry).collect(),
        closes: false,
    }
}

fn put_entry(from: RaftEntry) -> proto::Entry {
    let payload = match from.payload {
        EntryPayload::Blank => None,
        EntryPayload::Membership(membership) => Some(entry::Payload::Membership(encode_membership(&membership))),
        EntryPayload::Normal(Command::Records(batch) | Command::Replicated(batch)) => {
            Some(entry::Payload::Records(batch))
        }
        EntryPayload::Normal(Command::Machine(command)) => Some(entry::Payload::Command(command)),
        EntryPayload::Normal(Command::At(..) | Command::Stored(_)) => {
            unreachable!("what is replicated is read from the log, as it was stored")
        }
    };
    let crc = checked(payload.as_ref()).map_or(0, |bytes| crc32c(&[bytes]));
    proto::Entry { id: Some(put_id(&from.log_id)), payload, crc }
}

/// What of a payload has no CRC of its own.
fn checked(payload: Option<&entry::Payload>) -> Option<&Bytes> {
    match payload {
        Some(entry::Payload::Command(bytes) | entry::Payload::Membership(bytes)) => Some(bytes),
        Some(entry::Payload::Records(_)) | None => None,
    }
}

/// Reads a request.
pub fn append(frame: proto::AppendFrame) -> Result<AppendEntriesRequest<TypeConfig>, Malformed> {
    let prev_log_id = frame.previous.as_ref().map(id);
    let first = prev_log_id.map_or(0, |id| id.index() + 1);
    let mut entries = Vec::with_capacity(frame.entries.len());
    for (index, wire) in (first..).zip(frame.entries) {
        let entry = read_entry(wire)?;
        // Raft's core takes this for granted.
        if entry.log_id.index() != index {
            return Err(Malformed("entries that do not follow on each other"));
        }
        entries.push(entry);
    }
    Ok(AppendEntriesRequest {
        vote: vote(&frame.vote)?,
        prev_log_id,
        entries,
        leader_commit: frame.committed.as_ref().map(id),
    })
}

fn read_entry(wire: proto::Entry) -> Result<RaftEntry, Malformed> {
    let log_id = wire.id.as_ref().map(id).ok_or(Malformed("an entry without id"))?;
    if checked(wire.payload.as_ref()).is_some_and(|bytes| crc32c(&[bytes]) != wire.crc) {
        return Err(Malformed("a command or membership whose CRC does not match"));
    }
    let payload = match wire.payload {
        None => EntryPayload::Blank,
        Some(entry::Payload::Records(batch)) => {
            check_batch(&batch, wire.id.as_ref().map_or(0, |id| id.term))?;
            EntryPayload::Normal(Command::Replicated(batch))
        }
        Some(entry::Payload::Command(command)) => EntryPayload::Normal(Command::Machine(command)),
        Some(entry::Payload::Membership(bytes)) => {
            EntryPayload::Membership(decode_membership(&bytes).map_err(|_| Malformed("a membership"))?)
        }
    };
    Ok(RaftEntry { log_id, payload })
}

/// A batch that was damaged on its way must not end the core that would store it, and much less be stored.
fn check_batch(batch: &Bytes, term: u64) -> Result<(), Malformed> {
    let header = BatchHeader::parse(batch).map_err(|_| Malformed("a batch without a header"))?;
    if header.size_bytes() != batch.len() || header.magic != MAGIC {
        return Err(Malformed("a batch of another length or format than it says"));
    }
    // Base offset and epoch lie outside the CRC; the log compares the offset with its own.
    if u64::try_from(header.leader_epoch) != Ok(term) || header.last_offset_delta < 0 {
        return Err(Malformed("a batch of another epoch than its entry"));
    }
    if crc_matches(batch) { Ok(()) } else { Err(Malformed("a batch whose CRC does not match")) }
}

/// A group on the wire.
#[must_use]
pub fn put_group(group: PartitionId) -> proto::Group {
    proto::Group { topic_id: Bytes::copy_from_slice(&group.topic.0), partition: group.partition.0 }
}

/// Reads a group.
///
/// # Errors
/// If its topic's id is none.
pub fn group(wire: &proto::Group) -> Result<PartitionId, Malformed> {
    let topic = wire.topic_id.as_ref().try_into().map_err(|_| Malformed("a topic id of another size"))?;
    Ok(PartitionId { topic: TopicId(topic), partition: PartitionIndex(wire.partition) })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).expect("a broker does not live for half a million years")
}

/// A beat on the wire.
pub fn put_beat(from: BrokerId, beat: Beat) -> proto::BeatRequest {
    let claim = |(group, term): (PartitionId, Term)| proto::Claim { group: Some(put_group(group)), term: term.0 };
    let relay =
        |relay: Relay| proto::Relay { broker: relay.broker.0, claimed: relay.claimed.into_iter().map(claim).collect() };
    let behind = |(group, brokers): (PartitionId, Vec<BrokerId>)| proto::Behind {
        group: Some(put_group(group)),
        brokers: brokers.into_iter().map(|broker| broker.0).collect(),
    };
    proto::BeatRequest {
        from: from.0,
        boot: beat.boot,
        sent_us: micros(beat.sent),
        since: beat.since,
        version: beat.version,
        claimed: beat.claimed.into_iter().map(claim).collect(),
        withdrawn: beat.withdrawn.into_iter().map(put_group).collect(),
        refusals: beat.refusals,
        relays: beat.relays.into_iter().map(relay).collect(),
        behind: beat.behind.into_iter().map(behind).collect(),
    }
}

/// Reads a beat, and whose it is.
pub fn beat(wire: proto::BeatRequest) -> Result<(BrokerId, Beat), Malformed> {
    let claim = |claim: &proto::Claim| {
        let named = claim.group.as_ref().ok_or(Malformed("a claim without a group"))?;
        Ok((group(named)?, Term(claim.term)))
    };
    let relay = |relay: &proto::Relay| {
        let claimed = relay.claimed.iter().map(claim).collect::<Result<_, _>>()?;
        Ok(Relay { broker: BrokerId(relay.broker), claimed })
    };
    let behind = |behind: &proto::Behind| {
        let named = behind.group.as_ref().ok_or(Malformed("a group without a name"))?;
        Ok((group(named)?, behind.brokers.iter().copied().map(BrokerId).collect()))
    };
    let beat = Beat {
        boot: wire.boot,
        sent: Duration::from_micros(wire.sent_us),
        since: wire.since,
        version: wire.version,
        claimed: wire.claimed.iter().map(claim).collect::<Result<_, _>>()?,
        withdrawn: wire.withdrawn.iter().map(group).collect::<Result<_, _>>()?,
        refusals: wire.refusals,
        relays: wire.relays.iter().map(relay).collect::<Result<_, _>>()?,
        behind: wire.behind.iter().map(behind).collect::<Result<_, _>>()?,
    };
    Ok((BrokerId(wire.from), beat))
}

/// An ack on the wire.
pub fn put_ack(ack: Ack) -> proto::BeatReply {
    let groups = |refused: Vec<PartitionId>| proto::Groups { groups: refused.into_iter().map(put_group).collect() };
    let (sent_us, refused) = (micros(ack.sent), ack.refused.map(groups));
    let unheard = ack.unheard.into_iter().map(|broker| broker.0).collect();
    let by = ack.by.map(|(broker, boot)| proto::Life { broker: broker.0, boot });
    proto::BeatReply { to: ack.to, sent_us, version: ack.version, refusals: ack.refusals, refused, unheard, by }
}

/// Reads an ack.
pub fn ack(wire: &proto::BeatReply) -> Result<Ack, Malformed> {
    let groups = |refused: &proto::Groups| refused.groups.iter().map(group).collect::<Result<_, _>>();
    let refused = wire.refused.as_ref().map(groups).transpose()?;
    let (sent, refusals) = (Duration::from_micros(wire.sent_us), wire.refusals);
    let unheard = wire.unheard.iter().copied().map(BrokerId).collect();
    let by = wire.by.as_ref().map(|life| (BrokerId(life.broker), life.boot));
    Ok(Ack { to: wire.to, sent, version: wire.version, refusals, refused, unheard, by })
}

/// Bytes of the entries of a request.
pub fn size_bytes(frame: &proto::AppendFrame) -> usize {
    /// What an entry takes on a disk beside its payload, and more than it takes on the wire.
    const ENTRY_BYTES: usize = 64;
    let payload = |entry: &proto::Entry| match &entry.payload {
        None => 0,
        Some(entry::Payload::Records(bytes) | entry::Payload::Command(bytes) | entry::Payload::Membership(bytes)) => {
            bytes.len()
        }
    };
    frame.entries.iter().map(|entry| ENTRY_BYTES + payload(entry)).sum()
}

/// Whether a request has batches among its entries.
pub fn has_records(frame: &proto::AppendFrame) -> bool {
    frame.entries.iter().any(|entry| matches!(entry.payload, Some(entry::Payload::Records(_))))
}

/// What a follower answers.
pub fn put_result(session: u64, result: StreamAppendResult<TypeConfig>) -> proto::AppendReply {
    let outcome = match result {
        Ok(upto) => append_reply::Outcome::Matching(proto::Matching { upto: upto.as_ref().map(put_id) }),
        Err(StreamAppendError::Conflict(id)) => append_reply::Outcome::Conflict(put_id(&id)),
        Err(StreamAppendError::HigherVote(vote)) => append_reply::Outcome::HigherVote(encode_vote(&vote)),
    };
    proto::AppendReply { session, outcome: Some(outcome) }
}

/// The end of a session.
pub fn refuse(session: u64, reason: refusal::Reason, message: impl Into<String>) -> proto::AppendReply {
    let refusal = proto::Refusal { reason: reason.into(), message: message.into() };
    proto::AppendReply { session, outcome: Some(append_reply::Outcome::Refusal(refusal)) }
}

/// Reads what a follower answers; a refusal is its text.
pub fn result(reply: proto::AppendReply) -> Result<StreamAppendResult<TypeConfig>, String> {
    match reply.outcome {
        Some(append_reply::Outcome::Matching(matching)) => Ok(Ok(matching.upto.as_ref().map(id))),
        Some(append_reply::Outcome::Conflict(at)) => Ok(Err(StreamAppendError::Conflict(id(&at)))),
        Some(append_reply::Outcome::HigherVote(bytes)) => match vote(&bytes) {
            Ok(vote) => Ok(Err(StreamAppendError::HigherVote(vote))),
            Err(malformed) => Err(malformed.to_string()),
        },
        Some(append_reply::Outcome::Refusal(refusal)) => Err(refusal.message),
        None => Err("an answer that says nothing".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::compression::Compression;
    use crate::protocol::record::{BatchBuilder, NewRecord};

    fn batch(epoch: i32) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(&NewRecord { timestamp: 1, key: None, value: Some(b"value"), headers: &[] });
        let mut batch = builder.build().to_vec();
        batch[12..16].copy_from_slice(&epoch.to_be_bytes());
        batch
    }

    fn frame(entries: Vec<proto::Entry>) -> proto::AppendFrame {
        let leader = openraft::impls::leader_id_std::LeaderId { term: 3, voted_for: ReplicaId::default() };
        let vote = encode_vote(&RaftVote { leader_id: leader, committed: true });
        let previous = Some(proto::LogId { term: 2, index: 6 });
        proto::AppendFrame { session: 1, vote, previous, entries, ..proto::AppendFrame::default() }
    }

    fn entry(index: u64, payload: Option<entry::Payload>) -> proto::Entry {
        let crc = checked(payload.as_ref()).map_or(0, |bytes| crc32c(&[bytes]));
        proto::Entry { id: Some(proto::LogId { term: 3, index }), payload, crc }
    }

    #[test]
    fn a_request_reads_back_as_it_was_sent() {
        let records = Some(entry::Payload::Records(batch(3).into()));
        let sent = frame(vec![entry(7, None), entry(8, records), entry(9, Some(entry::Payload::Command("c".into())))]);
        let request = append(sent.clone()).unwrap();
        assert_eq!(request.entries.len(), 3);
        assert_eq!(put_append(1, request), sent);
    }

    #[test]
    fn what_was_damaged_on_its_way_is_refused() {
        let read = |bytes: Vec<u8>| append(frame(vec![entry(7, Some(entry::Payload::Records(bytes.into())))]));
        assert!(read(batch(3)).is_ok());
        assert!(read(batch(2)).is_err(), "of another epoch");
        let good = batch(3);
        for at in (0..good.len()).filter(|at| !(0..8).contains(at)) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(read(bad).is_err(), "byte {at} changed");
        }
        for cut in 0..good.len() {
            assert!(read(good[..cut].to_vec()).is_err(), "cut at {cut}");
        }
        let mut command = entry(7, Some(entry::Payload::Command("command".into())));
        command.payload = Some(entry::Payload::Command("Command".into()));
        assert!(append(frame(vec![command])).is_err());
    }

    #[test]
    fn entries_that_do_not_follow_on_each_other_are_refused() {
        assert!(append(frame(vec![entry(7, None), entry(8, None)])).is_ok());
        assert!(append(frame(vec![entry(7, None), entry(9, None)])).is_err());
        assert!(append(frame(vec![entry(8, None)])).is_err());
        assert!(append(frame(vec![proto::Entry::default()])).is_err());
        assert!(append(proto::AppendFrame { vote: "short".into(), ..frame(vec![]) }).is_err());
    }
}
