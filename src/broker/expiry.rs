//! Proposes that idle producers are forgotten (`limits.producer_idle_seconds`).
//!
//! Only the leader looks, and only at its own clock; what it finds goes into the log as a command that names each producer with its last
//! batch, so that every replica forgets the same ones at the same entry, and none that has written since.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Inner;
use super::janitor::STEP_PATIENCE;
use crate::ids::{Offset, PartitionId, ProducerId, Term};
use crate::machine::partition::EXPIRED_MAX;
use crate::machine::producer_state::{Expired, ExpiryWatch};

/// Looks within the time after which a producer is idle: each is forgotten at most a tenth too late.
const LOOKS: u32 = 10;
/// The longest time between two looks: Kafka's `producer.id.expiration.check.interval.ms`.
const LOOK_PERIOD_MAX: Duration = Duration::from_secs(600);

/// Since when each producer has been idle.
#[derive(Debug)]
pub(super) struct IdleProducers {
    idle: Duration,
    next: Duration,
    watches: BTreeMap<PartitionId, (Term, ExpiryWatch)>,
}

impl IdleProducers {
    /// Producers are idle when they have written nothing for that long.
    pub(super) fn new(idle: Duration) -> Self {
        Self { idle, next: Duration::ZERO, watches: BTreeMap::new() }
    }

    /// Looks at every partition that this broker leads, if it is time to. `now` is a time that never goes back.
    pub(super) async fn look(&mut self, inner: &Inner, now: Duration) {
        if now < self.next {
            return;
        }
        self.next = now + (self.idle / LOOKS).min(LOOK_PERIOD_MAX);
        let mut before = std::mem::take(&mut self.watches);
        for replica in inner.replicas.open() {
            // Copied, so that the leader is not kept waiting while they are compared.
            let (Some(term), producers) = (replica.term(), replica.last_batches()) else { continue };
            let watch = before.remove(&replica.id());
            let expired = self.find(replica.id(), term, watch, producers, now);
            if expired.is_empty() {
                continue;
            }
            let count = expired.len();
            let Ok(outcome) = tokio::time::timeout(STEP_PATIENCE, replica.expire_producers(expired)).await else {
                tracing::warn!(partition = %replica.id(), "forgetting idle producers takes too long; it is tried again");
                continue;
            };
            match outcome {
                Ok(()) => tracing::debug!(partition = %replica.id(), count, "forgot idle producers"),
                Err(error) => {
                    tracing::warn!(partition = %replica.id(), %error, "idle producers could not be forgotten; it is tried again")
                }
            }
        }
    }

    /// Who has been idle for long enough, and goes on watching. A leader of a new term gives everybody their time again.
    fn find(
        &mut self,
        id: PartitionId,
        term: Term,
        watch: Option<(Term, ExpiryWatch)>,
        producers: Vec<(ProducerId, Offset)>,
        now: Duration,
    ) -> Vec<Expired> {
        if producers.is_empty() {
            return Vec::new();
        }
        let mut watch = watch.filter(|(watched, _)| *watched == term).map(|(_, watch)| watch).unwrap_or_default();
        let expired = watch.look(producers, now, self.idle, EXPIRED_MAX);
        self.watches.insert(id, (term, watch));
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{PartitionIndex, TopicId};

    #[test]
    fn a_leader_of_a_new_term_gives_every_producer_its_time_again() {
        let id = PartitionId { topic: TopicId([1; 16]), partition: PartitionIndex(0) };
        let hour = Duration::from_secs(3600);
        let mut idle = IdleProducers::new(hour);
        let mut look = |term, now: u32, last| {
            let watch = idle.watches.remove(&id);
            let found = idle.find(id, Term(term), watch, vec![(ProducerId(5), Offset(last))], hour * now);
            found.len()
        };
        assert_eq!((look(1, 0, 7), look(1, 1, 7)), (0, 1), "idle for an hour");
        assert_eq!((look(2, 2, 7), look(2, 3, 7)), (0, 1), "seen by another leader");
        assert_eq!((look(2, 4, 9), look(2, 5, 9)), (0, 1), "it has written");
        assert_eq!(look(2, 6, 9), 1, "proposed again until it is gone");
        let watch = idle.watches.remove(&id);
        assert!(idle.find(id, Term(2), watch, Vec::new(), hour * 7).is_empty());
        assert!(idle.watches.is_empty(), "nothing is kept of a partition without producers");
    }
}
