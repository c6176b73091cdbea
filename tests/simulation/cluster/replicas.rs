//! Whether all replicas hold the same, entry by entry.

use std::collections::BTreeSet;
use std::sync::Arc;

use ottla::ids::{LogId, PartitionId, RaftIndex, ReplicaId};
use ottla::log::Log;
use ottla::machine::Machine;
use ottla::raft::Group;
use ottla::raft::group::Members;

use super::room::Room;
use super::story::BROKERS;

/// Entries that are read at a time.
const READ_BYTES: u64 = 1 << 20;

/// One replica.
struct Copy {
    id: PartitionId,
    broker: usize,
    me: ReplicaId,
    members: Members,
    log: Arc<Log>,
}

impl Copy {
    fn of<M: Machine>(group: &Group<M>, broker: usize) -> Self {
        let (id, me, members, log) = (group.id(), group.me(), group.members(), Arc::clone(group.log()));
        Self { id, broker, me, members, log }
    }
}

/// Looks at every partition on every broker. What is not the same, or not there yet.
pub fn compare(room: &Room) -> Result<(), String> {
    let mut copies: Vec<Copy> = Vec::new();
    for (broker, world) in room.brokers.iter().enumerate() {
        let running = world.running().ok_or_else(|| format!("broker {} does not run", broker + 1))?;
        copies.push(Copy::of(running.controller.group(), broker));
        copies.extend(running.replicas.open().iter().map(|replica| Copy::of(replica.group(), broker)));
    }
    copies.sort_by_key(|copy| (copy.id, copy.broker));
    for group in copies.chunk_by(|one, other| one.id == other.id) {
        let id = group[0].id;
        if group.len() != BROKERS {
            return Err(format!("partition {id} is open on {} brokers", group.len()));
        }
        let replicas: BTreeSet<ReplicaId> = group.iter().map(|copy| copy.me).collect();
        for copy in group {
            let broker = copy.broker + 1;
            if copy.members.voters != [replicas.clone()] || !copy.members.learners.is_empty() {
                return Err(format!("partition {id}, broker {broker}: its members are {:?}", copy.members));
            }
            same(&group[0].log, &copy.log).map_err(|what| format!("partition {id}, broker {broker}: {what}"))?;
        }
    }
    Ok(())
}

fn same(one: &Log, other: &Log) -> Result<(), String> {
    let (mine, theirs) = (one.state(), other.state());
    if mine.last != theirs.last || mine.next_offset != theirs.next_offset {
        return Err(format!("its log ends at {:?}, the first broker's at {:?}", theirs.last, mine.last));
    }
    let after = |purged: Option<LogId>| purged.map_or(0, |id| id.index.0 + 1);
    let mut next = after(mine.purged).max(after(theirs.purged));
    let end = after(mine.last);
    while next < end {
        let range = RaftIndex(next)..RaftIndex(end);
        let read = |log: &Log| log.stored(range.clone(), READ_BYTES).map_err(|error| error.to_string());
        let (mine, theirs) = (read(one)?, read(other)?);
        for (mine, theirs) in mine.iter().zip(&theirs) {
            if mine != theirs {
                return Err(format!("replica-divergence: entry {} is not the first broker's", mine.id.index.0));
            }
            next = mine.id.index.0 + 1;
        }
    }
    Ok(())
}
