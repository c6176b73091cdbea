//! What a broker with an empty data directory does: found a cluster, join one, or wait.
//!
//! One cluster comes of one list of seeds, never two: the seed with the lowest id founds it, and only when every seed answers, has the same list,
//! and belongs to no cluster. A broker that is no seed never founds. Whoever finds a seed that belongs to a cluster joins that one.

use std::collections::BTreeMap;

use super::Introduction;
use crate::ids::BrokerId;

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Found a cluster.
    Found,
    /// Join the cluster of that id, by whoever listens at that address.
    Join {
        /// Who answered there.
        address: String,
        /// The cluster.
        cluster_id: String,
    },
    /// Ask again in a moment: why, for people.
    Wait(String),
}

/// What cannot come right by waiting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Seeds of several clusters.
    #[error("cluster.seeds names brokers of two clusters: {first} at {first_at} and {second} at {second_at}")]
    TwoClusters {
        /// A cluster's id.
        first: String,
        /// One of its brokers.
        first_at: String,
        /// Another's.
        second: String,
        /// One of its brokers.
        second_at: String,
    },
    /// Another name.
    #[error("the broker at {at} is of the cluster {theirs:?}, but cluster.name is {mine:?}")]
    OtherName {
        /// Where.
        at: String,
        /// Its cluster's name.
        theirs: String,
        /// What this broker is configured with.
        mine: String,
    },
    /// Two brokers with this one's id.
    #[error("the broker at {at} has the id {id} too: give each broker an id of its own (broker.id)")]
    SameId {
        /// Where.
        at: String,
        /// The id.
        id: BrokerId,
    },
}

/// Looks at what each seed answered, by its address; none where nobody did.
///
/// # Errors
/// What an operator has to put right.
pub fn step(me: &Introduction, answers: &BTreeMap<String, Option<Introduction>>) -> Result<Step, Trouble> {
    let mut cluster: Option<(&str, &str)> = None;
    for (at, seed) in answers.iter().filter_map(|(at, answer)| Some((at.as_str(), answer.as_ref()?))) {
        if seed.cluster_name != me.cluster_name {
            let (theirs, mine) = (seed.cluster_name.clone(), me.cluster_name.clone());
            return Err(Trouble::OtherName { at: at.to_owned(), theirs, mine });
        }
        let Some(id) = seed.cluster_id.as_deref() else {
            if seed.broker == me.broker && seed.directory != me.directory {
                return Err(Trouble::SameId { at: at.to_owned(), id: me.broker });
            }
            continue;
        };
        match cluster {
            Some((first, first_at)) if first != id => {
                return Err(Trouble::TwoClusters {
                    first: first.to_owned(),
                    first_at: first_at.to_owned(),
                    second: id.to_owned(),
                    second_at: at.to_owned(),
                });
            }
            _ => cluster = Some((id, at)),
        }
    }
    if let Some((cluster_id, address)) = cluster {
        return Ok(Step::Join { address: address.to_owned(), cluster_id: cluster_id.to_owned() });
    }
    if let Some((silent, _)) = answers.iter().find(|(_, answer)| answer.is_none()) {
        return Ok(Step::Wait(format!("the seed {silent} does not answer")));
    }
    let seeds = || answers.iter().filter_map(|(at, answer)| Some((at, answer.as_ref()?)));
    let mine = sorted(&me.seeds);
    if let Some((at, _)) = seeds().find(|(_, seed)| sorted(&seed.seeds) != mine) {
        return Ok(Step::Wait(format!(
            "the seed {at} has another list of seeds: cluster.seeds must be the same on each"
        )));
    }
    match seeds().map(|(_, seed)| seed).min_by_key(|seed| seed.broker) {
        Some(lowest) if lowest.directory == me.directory => Ok(Step::Found),
        Some(lowest) => Ok(Step::Wait(format!("broker {} founds the cluster", lowest.broker))),
        None => Ok(Step::Wait("there are no seeds".to_owned())),
    }
}

fn sorted(seeds: &[String]) -> Vec<&str> {
    let mut seeds: Vec<&str> = seeds.iter().map(String::as_str).collect();
    seeds.sort_unstable();
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::controller::DirectoryId;

    fn broker(id: i32) -> Introduction {
        Introduction {
            broker: BrokerId(id),
            directory: DirectoryId([u8::try_from(id).unwrap(); 16]),
            cluster_id: None,
            cluster_name: "ottla".to_owned(),
            address: at(id),
            seeds: vec![at(1), at(2), at(3)],
        }
    }

    fn at(id: i32) -> String {
        format!("broker-{id}:9192")
    }

    fn answers(all: impl IntoIterator<Item = Introduction>) -> BTreeMap<String, Option<Introduction>> {
        all.into_iter().map(|it| (it.address.clone(), Some(it))).collect()
    }

    fn of(id: i32, cluster: &str) -> Introduction {
        Introduction { cluster_id: Some(cluster.to_owned()), ..broker(id) }
    }

    #[test]
    fn the_lowest_seed_founds_when_all_are_there_and_empty() {
        let all = answers([1, 2, 3].map(broker));
        let steps = [1, 2, 3].map(|id| step(&broker(id), &all).unwrap());
        assert_eq!(steps[0], Step::Found);
        assert!(steps[1..].iter().all(|step| matches!(step, Step::Wait(_))), "{steps:?}");
    }

    #[test]
    fn nobody_founds_while_a_seed_is_silent_or_was_told_something_else() {
        let mut all = answers([1, 2].map(broker));
        all.insert(at(3), None);
        assert_eq!(step(&broker(1), &all), Ok(Step::Wait("the seed broker-3:9192 does not answer".to_owned())));
        let other = Introduction { seeds: vec![at(3), at(2)], ..broker(3) };
        assert!(
            matches!(step(&broker(1), &answers([broker(1), broker(2), other])), Ok(Step::Wait(why)) if why.contains("another list"))
        );
    }

    #[test]
    fn a_broker_that_is_no_seed_never_founds() {
        let mut newcomer = broker(0);
        newcomer.seeds = vec![at(1), at(2), at(3)];
        assert!(matches!(step(&newcomer, &answers([1, 2, 3].map(broker))), Ok(Step::Wait(_))));
    }

    #[test]
    fn whoever_finds_a_cluster_joins_it() {
        let mut all = answers([broker(1), of(2, "c")]);
        all.insert(at(3), None);
        assert_eq!(step(&broker(1), &all), Ok(Step::Join { address: at(2), cluster_id: "c".to_owned() }));
        // Its own earlier self stands among the seeds of the wiped broker no more.
        assert_eq!(step(&broker(3), &all), Ok(Step::Join { address: at(2), cluster_id: "c".to_owned() }));
    }

    #[test]
    fn what_only_an_operator_can_put_right_is_said() {
        let two = step(&broker(1), &answers([broker(1), of(2, "c"), of(3, "d")]));
        assert!(matches!(two, Err(Trouble::TwoClusters { .. })), "{two:?}");
        let named = Introduction { cluster_name: "staging".to_owned(), ..broker(2) };
        assert!(matches!(step(&broker(1), &answers([named])), Err(Trouble::OtherName { .. })));
        let twin = Introduction { directory: DirectoryId([9; 16]), address: at(2), ..broker(1) };
        assert!(matches!(step(&broker(1), &answers([broker(1), twin])), Err(Trouble::SameId { .. })));
    }
}
