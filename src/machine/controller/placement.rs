//! Which brokers hold which partitions.

use crate::ids::BrokerId;

/// Spreads partitions over brokers: leaders go round, and followers are shifted by one more on each lap, so that the load
/// of a lost broker falls on all others. `start` is drawn at random by the caller, so that small topics spread too.
///
/// # Panics
/// When there are fewer brokers than replicas, or none.
#[must_use]
pub fn spread(brokers: &[BrokerId], partitions: usize, replicas: usize, start: u32) -> Vec<Vec<BrokerId>> {
    assert!(replicas >= 1 && replicas <= brokers.len(), "{replicas} replicas on {} brokers", brokers.len());
    let start = usize::try_from(start).expect("32 bits fit") % brokers.len();
    let place = |partition: usize| {
        let leader = start + partition;
        let lap = leader / brokers.len();
        let follower = |n: usize| leader + 1 + (lap + n) % (brokers.len() - 1);
        std::iter::once(leader).chain((0..replicas - 1).map(follower)).map(|at| brokers[at % brokers.len()]).collect()
    };
    (0..partitions).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn replicas_are_on_distinct_brokers_and_leaders_are_even(brokers in 1..12i32, partitions in 1..60usize, rf in 1..12usize, start in any::<u32>()) {
            let brokers: Vec<_> = (1..=brokers).map(BrokerId).collect();
            let rf = rf.min(brokers.len());
            let placed = spread(&brokers, partitions, rf, start);
            prop_assert_eq!(placed.len(), partitions);
            for replicas in &placed {
                prop_assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), rf);
            }
            let led = |broker: &BrokerId| placed.iter().filter(|replicas| replicas[0] == *broker).count();
            let (least, most) = (brokers.iter().map(led).min().unwrap(), brokers.iter().map(led).max().unwrap());
            prop_assert!(most - least <= 1);
        }
    }

    #[test]
    fn the_followers_of_one_broker_are_all_others() {
        let brokers: Vec<_> = (1..=4).map(BrokerId).collect();
        let placed = spread(&brokers, 12, 2, 0);
        let followers: BTreeSet<_> =
            placed.iter().filter(|replicas| replicas[0] == BrokerId(1)).map(|replicas| replicas[1]).collect();
        assert_eq!(followers, [2, 3, 4].map(BrokerId).into());
    }
}
