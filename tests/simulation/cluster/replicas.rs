//! Whether all replicas hold the same, entry by entry.

use std::sync::Arc;

use ottla::ids::{LogId, PartitionId, RaftIndex};
use ottla::log::Log;

use super::room::Room;
use super::story::BROKERS;

/// Entries that are read at a time.
const READ_BYTES: u64 = 1 << 20;

/// Looks at every partition on every broker. What is not the same, or not there yet.
pub fn compare(room: &Room) -> Result<usize, String> {
    let mut logs: Vec<(PartitionId, usize, Arc<Log>)> = Vec::new();
    for (place, broker) in room.brokers.iter().enumerate() {
        let running = broker.running().ok_or_else(|| format!("broker {} does not run", place + 1))?;
        logs.push((PartitionId::CONTROLLER, place, Arc::clone(running.controller.log())));
        for replica in running.replicas.open() {
            logs.push((replica.id(), place, Arc::clone(replica.log())));
        }
    }
    logs.sort_by_key(|(id, place, _)| (*id, *place));
    let mut partitions = 0;
    for group in logs.chunk_by(|one, other| one.0 == other.0) {
        let id = group[0].0;
        if group.len() != BROKERS {
            return Err(format!("partition {id} is open on {} brokers", group.len()));
        }
        for (_, place, log) in &group[1..] {
            same(&group[0].2, log).map_err(|what| format!("partition {id}, broker {}: {what}", place + 1))?;
        }
        partitions += 1;
    }
    Ok(partitions)
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
