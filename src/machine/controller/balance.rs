//! Moves that nobody asked for by name: away from brokers that are drained, and to those that hold less than others.
//!
//! A few at a time: each costs the bytes of a replica, and its partition a moment without a leader if that has to go.

use std::collections::{BTreeMap, BTreeSet};

use super::names::is_internal;
use super::{Controller, Record};
use crate::ids::{BrokerId, Incarnation, PartitionId, PartitionIndex, ReplicaId};

/// Partitions on their way at a time.
pub const MOVES_AT_ONCE: usize = 8;
/// Brokers whose numbers of replicas differ by less are left alone; what has begun goes on until they differ by one.
const WORTH_IT: usize = 3;
const WORTH_GOING_ON: usize = 2;

/// What is known of the brokers where this is decided.
#[derive(Clone, Debug, Default)]
pub struct Presence {
    /// Those that have been there for a while.
    pub steady: BTreeSet<BrokerId>,
    /// Those that have been away for long: what was on its way to them goes elsewhere.
    pub lost: BTreeSet<BrokerId>,
}

/// Who holds how much, as replicas are given to others.
struct Loads<'a> {
    controller: &'a Controller,
    /// Brokers that may get replicas.
    takers: BTreeSet<BrokerId>,
    held: BTreeMap<BrokerId, usize>,
    led: BTreeMap<BrokerId, usize>,
    next: Incarnation,
    records: Vec<Record>,
}

impl Controller {
    /// The moves that are due: from drained brokers, and, with `evens_out`, from brokers that hold more than others.
    #[must_use]
    pub fn decide_moves(&self, presence: &Presence, evens_out: bool) -> Vec<Record> {
        let is_under_way = |id: &PartitionId| {
            let moving = self.moving(*id).filter(|moving| moving.before.is_some());
            moving.is_some_and(|moving| moving.adding.iter().all(|replica| !presence.lost.contains(&replica.broker)))
        };
        let under_way = self.all_moving().filter(|(id, _)| is_under_way(id)).count();
        let room = MOVES_AT_ONCE.saturating_sub(under_way);
        if room == 0 {
            return Vec::new();
        }
        let takers: BTreeSet<BrokerId> = self.staying().filter(|broker| presence.steady.contains(broker)).collect();
        let mut loads = Loads::of(self, takers);
        for (id, replicas, is_internal) in self.partitions() {
            if loads.records.len() == room {
                break;
            }
            loads.drain(id, replicas, is_internal, presence);
        }
        if evens_out {
            let worth = if under_way == 0 && loads.records.is_empty() { WORTH_IT } else { WORTH_GOING_ON };
            loads.even_out(room, worth);
        }
        loads.records
    }

    /// All partitions, with their replicas, and whether they are the cluster's own.
    fn partitions(&self) -> impl Iterator<Item = (PartitionId, &Vec<ReplicaId>, bool)> {
        self.topics().flat_map(|topic| {
            let id = |at| PartitionId { topic: topic.id, partition: PartitionIndex(at) };
            let is_internal = is_internal(&topic.name);
            (0..).zip(&topic.partitions).map(move |(at, replicas)| (id(at), replicas, is_internal))
        })
    }

    fn rack(&self, broker: BrokerId) -> Option<&str> {
        let endpoints = self.broker(broker)?.endpoints.as_ref()?;
        Some(endpoints.rack.as_str()).filter(|rack| !rack.is_empty())
    }
}

impl<'a> Loads<'a> {
    fn of(controller: &'a Controller, takers: BTreeSet<BrokerId>) -> Self {
        let nothing: BTreeMap<BrokerId, usize> = controller.brokers().map(|(broker, _)| (broker, 0)).collect();
        let (mut held, mut led) = (nothing.clone(), nothing);
        for (_, replicas, _) in controller.partitions() {
            for replica in replicas {
                held.entry(replica.broker).and_modify(|count| *count += 1);
            }
            led.entry(replicas[0].broker).and_modify(|count| *count += 1);
        }
        Self { controller, takers, held, led, next: controller.next_incarnation, records: Vec::new() }
    }

    /// Replaces what a partition has on drained brokers, or what was to get there and does not.
    fn drain(&mut self, id: PartitionId, replicas: &[ReplicaId], is_internal: bool, presence: &Presence) {
        let moving = self.controller.moving(id);
        let leaves = |broker: BrokerId| self.controller.is_draining(broker);
        let had = moving.and_then(|moving| moving.before.as_deref()).unwrap_or_default();
        let is_drain = had.iter().any(|replica| leaves(replica.broker));
        let is_stuck = |replica: &ReplicaId| {
            let is_added = moving.is_some_and(|moving| moving.adding.contains(replica));
            is_added && (leaves(replica.broker) || is_drain && presence.lost.contains(&replica.broker))
        };
        let goes = |replica: &ReplicaId| is_stuck(replica) || moving.is_none() && leaves(replica.broker);
        if !replicas.iter().any(goes) {
            return;
        }
        let mut wanted: Vec<ReplicaId> = Vec::new();
        let mut stays: Vec<ReplicaId> = replicas.iter().filter(|replica| !goes(replica)).copied().collect();
        let going: BTreeSet<ReplicaId> = replicas.iter().filter(|replica| goes(replica)).copied().collect();
        for (at, replica) in replicas.iter().enumerate() {
            if !going.contains(replica) {
                wanted.push(*replica);
                continue;
            }
            match self.taker(&stays, at == 0) {
                Some(broker) => {
                    let taken = self.give(id, replica.broker, broker, at == 0);
                    stays.push(taken);
                    wanted.push(taken);
                }
                // The cluster's own topics make do with fewer.
                None if is_internal && !stays.is_empty() => {}
                None => return,
            }
        }
        self.records.push(Record::ReplicasChanged { partition: id, replicas: wanted });
    }

    /// Who takes a replica beside those: on a rack of its own if there is one, and with least to hold.
    fn taker(&self, beside: &[ReplicaId], leads: bool) -> Option<BrokerId> {
        let is_free = |broker: &BrokerId| beside.iter().all(|replica| replica.broker != *broker);
        let free = self.takers.iter().copied().filter(is_free);
        free.min_by_key(|broker| {
            let led = if leads { self.led[broker] } else { 0 };
            (self.neighbours(*broker, beside), self.held[broker], led, *broker)
        })
    }

    /// How many of those are on a broker's rack.
    fn neighbours(&self, broker: BrokerId, beside: &[ReplicaId]) -> usize {
        let Some(rack) = self.controller.rack(broker) else { return 0 };
        beside.iter().filter(|replica| self.controller.rack(replica.broker) == Some(rack)).count()
    }

    /// The replica that `to` gets in place of that of `from`: the one that it has still, if there is one.
    fn give(&mut self, id: PartitionId, from: BrokerId, to: BrokerId, leads: bool) -> ReplicaId {
        let pass = |counts: &mut BTreeMap<BrokerId, usize>| {
            counts.entry(from).and_modify(|count| *count -= 1);
            counts.entry(to).and_modify(|count| *count += 1);
        };
        pass(&mut self.held);
        if leads {
            pass(&mut self.led);
        }
        let present = self.controller.in_group(id).into_iter().find(|replica| replica.broker == to);
        present.unwrap_or_else(|| {
            let incarnation = self.next;
            self.next = self.next.next();
            ReplicaId { broker: to, incarnation }
        })
    }

    /// Moves replicas from brokers that hold most to those that hold least, until all hold about as many.
    fn even_out(&mut self, room: usize, worth: usize) {
        let taken: BTreeSet<PartitionId> = self.records.iter().filter_map(partition_of).collect();
        let mut worth = worth;
        let mut still: Vec<(PartitionId, &Vec<ReplicaId>)> = self
            .controller
            .partitions()
            .map(|(id, replicas, _)| (id, replicas))
            .filter(|(id, _)| self.controller.moving(*id).is_none() && !taken.contains(id))
            .collect();
        while self.records.len() < room {
            let Some((chosen, at, to)) = self.choose(&still, worth) else { return };
            let (id, replicas) = still.swap_remove(chosen);
            let mut wanted = replicas.clone();
            wanted[at] = self.give(id, replicas[at].broker, to, at == 0);
            self.records.push(Record::ReplicasChanged { partition: id, replicas: wanted });
            worth = WORTH_GOING_ON;
        }
    }

    /// The next replica to move: the place of its partition in the list, its own place there, and where it goes.
    fn choose(&self, partitions: &[(PartitionId, &Vec<ReplicaId>)], worth: usize) -> Option<(usize, usize, BrokerId)> {
        let mut by_held: Vec<BrokerId> = self.takers.iter().copied().collect();
        by_held.sort_by_key(|broker| (self.held[broker], *broker));
        for to in &by_held {
            for from in by_held.iter().rev() {
                if self.held[from] < self.held[to] + worth {
                    break;
                }
                if let Some((chosen, at)) = self.choose_between(partitions, *from, *to) {
                    return Some((chosen, at, *to));
                }
            }
        }
        None
    }

    fn choose_between(
        &self,
        partitions: &[(PartitionId, &Vec<ReplicaId>)],
        from: BrokerId,
        to: BrokerId,
    ) -> Option<(usize, usize)> {
        // A leadership goes along where that evens those out too.
        let wants_lead = self.led[&from] > self.led[&to];
        let fits = |(nth, (_, replicas)): (usize, &(PartitionId, &Vec<ReplicaId>))| {
            let at = replicas.iter().position(|replica| replica.broker == from)?;
            if replicas.iter().any(|replica| replica.broker == to) {
                return None;
            }
            let others: Vec<ReplicaId> = replicas.iter().filter(|replica| replica.broker != from).copied().collect();
            let (before, after) = (self.neighbours(from, &others), self.neighbours(to, &others));
            (after <= before).then_some((after, (at == 0) != wants_lead, nth, at))
        };
        partitions.iter().enumerate().filter_map(fits).min().map(|(_, _, nth, at)| (nth, at))
    }
}

fn partition_of(record: &Record) -> Option<PartitionId> {
    match record {
        Record::ReplicasChanged { partition, .. } => Some(*partition),
        _ => None,
    }
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
