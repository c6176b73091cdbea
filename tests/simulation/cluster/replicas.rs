//! Whether all replicas hold the same, entry by entry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla::ids::{LogId, PartitionId, RaftIndex, ReplicaId, Term, TopicId};
use ottla::log::disk::Disk;
use ottla::log::mem_disk::MemDisk;
use ottla::log::{Log, TOPICS};
use ottla::machine::Machine;
use ottla::raft::Group;
use ottla::raft::group::Members;

use super::room::Room;
use super::story::BROKERS;
use crate::world::World;

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

/// Who leads each partition, and in which term.
pub type Leaders = BTreeMap<PartitionId, (Term, usize)>;

/// Who leads each partition of topics, as the brokers' own Raft cores have it: of several, the one in the latest term.
pub fn leaders(room: &Room) -> Leaders {
    let mut leaders = Leaders::new();
    for (broker, world) in room.brokers.iter().enumerate() {
        let open = world.running().map(|running| running.replicas.open()).unwrap_or_default();
        for replica in open.iter().filter(|replica| !replica.coordinates()) {
            if let Some(term) = replica.group().term() {
                let leader = leaders.entry(replica.id()).or_insert((term, broker));
                *leader = (*leader).max((term, broker));
            }
        }
    }
    leaders
}

/// The broker that leads the first partition of the topic.
pub fn leader_of_first(room: &Room) -> Option<usize> {
    let of_first = leaders(room).into_iter().find(|(id, _)| id.partition.0 == 0);
    of_first.map(|(_, (_, broker))| broker)
}

/// Entries of a broker's partitions that are not synced.
pub fn unsynced(world: &World) -> u64 {
    let Some(running) = world.running() else { return 0 };
    let behind = |log: &Log| {
        let state = log.state();
        let index = |id: Option<LogId>| id.map_or(0, |id| id.index.0);
        index(state.last) - index(state.flushed)
    };
    running.replicas.open().iter().map(|replica| behind(replica.log())).sum()
}

/// The files of all logs of partitions.
pub fn log_files(disk: &MemDisk) -> Vec<String> {
    let names = |dir: &str| disk.list(dir).unwrap_or_default();
    let mut found = Vec::new();
    for topic in names(TOPICS).iter().filter(|topic| topic.name != TopicId::CONTROLLER.to_string()) {
        for partition in names(&format!("{TOPICS}/{}", topic.name)) {
            let dir = format!("{TOPICS}/{}/{}", topic.name, partition.name);
            let logs = names(&dir).into_iter().filter(|file| file.name.ends_with(".log"));
            found.extend(logs.map(|file| format!("{dir}/{}", file.name)));
        }
    }
    found
}
