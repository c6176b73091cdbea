//! Who shall have which partitions: the assignors that the coordinator offers to groups of the consumer protocol (KIP-848).
//!
//! - `uniform`: members have equally many partitions, as far as what they read allows, and keep what they had as far as that allows.
//! - `range`: of each topic, members have ranges in the order of their ids, so that topics with equally many partitions are shared out alike.
//!
//! A partition is given to one member at most (`dual-owner`), and to one that reads its topic; each that somebody reads is given.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::record::Partitions;
use crate::ids::TopicId;
use crate::protocol::value::Text;

/// Steps that making shares of unlike readers even may take, roughly: a reader looked at for a partition is one.
const BALANCING_STEPS_MAX: usize = 20_000_000;

/// How partitions are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assignor {
    /// In ranges.
    Range,
    /// Evenly.
    Uniform,
}

impl Assignor {
    /// The one for groups whose members want none.
    pub const DEFAULT: Self = Self::Uniform;
    /// All, as an error names them.
    pub const NAMES: &str = "uniform, range";

    /// The name that clients know.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::Uniform => "uniform",
        }
    }

    /// The assignor of that name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Range, Self::Uniform].into_iter().find(|assignor| assignor.name() == name)
    }

    /// Shares the partitions of all topics out: what each reader shall have, in the order of the readers. `counts` says how many partitions
    /// each topic has; topics that are not in it are not there. And how many steps that took, roughly.
    #[must_use]
    pub fn assign(self, readers: &[Reader<'_>], counts: &BTreeMap<TopicId, i32>) -> (Vec<Partitions>, usize) {
        let partitions = counts.values().map(|count| usize::try_from(*count).unwrap_or(0)).sum::<usize>();
        match self {
            Self::Range => (range(readers, counts), partitions + readers.len() * counts.len()),
            Self::Uniform => {
                let (shares, steps) = uniform(readers, counts);
                (shares, partitions + readers.len() + steps)
            }
        }
    }
}

/// A member that reads topics.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// Its id.
    pub id: &'a Text,
    /// The id of a static member.
    pub instance_id: Option<&'a Text>,
    /// What it reads.
    pub topics: &'a BTreeSet<TopicId>,
    /// What it should have so far.
    pub has: Option<&'a Partitions>,
}

fn range(readers: &[Reader<'_>], counts: &BTreeMap<TopicId, i32>) -> Vec<Partitions> {
    let mut order: Vec<usize> = (0..readers.len()).collect();
    // Static members first: their ids outlive their clients.
    order.sort_by_key(|at| (readers[*at].instance_id.is_none(), readers[*at].instance_id, readers[*at].id));
    let mut shares = vec![Partitions::new(); readers.len()];
    for (topic, count) in counts {
        let of_topic: Vec<usize> = order.iter().copied().filter(|at| readers[*at].topics.contains(topic)).collect();
        let (count, among) = (usize::try_from(*count).unwrap_or(0), of_topic.len());
        if among == 0 {
            continue;
        }
        let mut left = 0..*counts.get(topic).expect("it is one of them");
        for (place, at) in of_topic.into_iter().enumerate() {
            let size = count / among + usize::from(place < count % among);
            let share: BTreeSet<i32> = left.by_ref().take(size).collect();
            if !share.is_empty() {
                shares[at].insert(*topic, share);
            }
        }
    }
    shares
}

/// Shares in the making.
struct Shares<'a> {
    readers: &'a [Reader<'a>],
    of: Vec<Partitions>,
    sizes: Vec<usize>,
    /// Partitions that nobody has.
    free: Vec<(TopicId, i32)>,
}

fn uniform(readers: &[Reader<'_>], counts: &BTreeMap<TopicId, i32>) -> (Vec<Partitions>, usize) {
    let Some(first) = readers.first() else { return (Vec::new(), 0) };
    let mut shares = Shares::kept(readers, counts);
    let reads_same = |reader: &Reader<'_>| std::ptr::eq(reader.topics, first.topics) || reader.topics == first.topics;
    if readers.iter().all(reads_same) {
        shares.level();
        return (shares.of, 0);
    }
    let mut readers_of: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
    for (at, reader) in readers.iter().enumerate() {
        reader.topics.iter().for_each(|topic| readers_of.entry(*topic).or_default().push(at));
    }
    let mut steps = readers_of.values().map(Vec::len).sum();
    steps += shares.hand_out(&readers_of);
    steps += shares.balance(&readers_of);
    (shares.of, steps)
}

impl<'a> Shares<'a> {
    /// What everybody has and still reads.
    fn kept(readers: &'a [Reader<'a>], counts: &BTreeMap<TopicId, i32>) -> Self {
        let mut taken: BTreeSet<(TopicId, i32)> = BTreeSet::new();
        let mut of = Vec::with_capacity(readers.len());
        for reader in readers {
            let mut share = Partitions::new();
            for (topic, partitions) in reader.has.into_iter().flatten() {
                let count = counts.get(topic).copied().filter(|_| reader.topics.contains(topic)).unwrap_or(0);
                let kept = partitions.range(0..count).filter(|it| taken.insert((*topic, **it)));
                let kept: BTreeSet<i32> = kept.copied().collect();
                if !kept.is_empty() {
                    share.insert(*topic, kept);
                }
            }
            of.push(share);
        }
        let read: BTreeSet<TopicId> = distinct(readers).into_iter().flatten().copied().collect();
        let all = counts.iter().filter(|(topic, _)| read.contains(topic));
        let all = all.flat_map(|(topic, count)| (0..*count).map(|partition| (*topic, partition)));
        let free = all.filter(|partition| !taken.contains(partition)).collect();
        let sizes = of.iter().map(|share: &Partitions| share.values().map(BTreeSet::len).sum()).collect();
        Self { readers, of, sizes, free }
    }

    /// Gives everybody equally many: all read the same.
    fn level(&mut self) {
        let members = self.readers.len();
        let total = self.free.len() + self.sizes.iter().sum::<usize>();
        let (each, mut extra) = (total / members, total % members);
        // Those who have more than the others keep one more, as far as there are so many.
        let mut most = vec![each; members];
        let rich = (0..members).filter(|at| self.sizes[*at] > each).collect::<Vec<_>>();
        let poor = (0..members).filter(|at| self.sizes[*at] <= each).collect::<Vec<_>>();
        for at in rich.into_iter().chain(poor) {
            if extra > 0 {
                most[at] += 1;
                extra -= 1;
            }
        }
        for (at, most) in most.iter().enumerate() {
            while self.sizes[at] > *most {
                let last = self.take_last(at).expect("it has some");
                self.free.push(last);
            }
        }
        self.free.sort_unstable_by_key(|partition| Reverse(*partition));
        for (at, most) in most.iter().enumerate() {
            while self.sizes[at] < *most {
                let Some(partition) = self.free.pop() else { return };
                self.give(at, partition);
            }
        }
    }

    /// Gives each free partition to the one who has least of those who read it; those first that few read. How many steps that took.
    fn hand_out(&mut self, readers_of: &BTreeMap<TopicId, Vec<usize>>) -> usize {
        let mut free = std::mem::take(&mut self.free);
        free.sort_by_key(|(topic, partition)| (readers_of[topic].len(), *topic, *partition));
        let mut steps = 0;
        for partition in free {
            let readers = &readers_of[&partition.0];
            steps += readers.len();
            let least = readers.iter().copied().min_by_key(|at| (self.sizes[*at], *at));
            self.give(least.expect("somebody reads it"), partition);
        }
        steps
    }

    /// Moves partitions to readers who have less, while that makes shares more even and does not take too long. How many steps it took.
    fn balance(&mut self, readers_of: &BTreeMap<TopicId, Vec<usize>>) -> usize {
        let mut steps = 0;
        loop {
            let mut moved = false;
            let mut richest: Vec<usize> = (0..self.readers.len()).collect();
            richest.sort_by_key(|at| (Reverse(self.sizes[*at]), *at));
            steps += richest.len();
            for from in richest {
                for topic in self.of[from].keys().copied().collect::<Vec<_>>() {
                    let others = &readers_of[&topic];
                    while steps < BALANCING_STEPS_MAX {
                        steps += others.len();
                        let least = others.iter().copied().min_by_key(|at| (self.sizes[*at], *at));
                        let Some(to) = least.filter(|to| self.sizes[*to] + 1 < self.sizes[from]) else { break };
                        let Some(partition) = self.take_of(from, topic) else { break };
                        self.give(to, partition);
                        moved = true;
                    }
                }
            }
            if !moved || steps >= BALANCING_STEPS_MAX {
                return steps;
            }
        }
    }

    fn give(&mut self, at: usize, (topic, partition): (TopicId, i32)) {
        self.of[at].entry(topic).or_default().insert(partition);
        self.sizes[at] += 1;
    }

    fn take_last(&mut self, at: usize) -> Option<(TopicId, i32)> {
        let topic = *self.of[at].keys().next_back()?;
        self.take_of(at, topic)
    }

    fn take_of(&mut self, at: usize, topic: TopicId) -> Option<(TopicId, i32)> {
        let partitions = self.of[at].get_mut(&topic)?;
        let partition = partitions.pop_last()?;
        if partitions.is_empty() {
            self.of[at].remove(&topic);
        }
        self.sizes[at] -= 1;
        Some((topic, partition))
    }
}

/// The sets of topics that readers have: many have the same one, in the same place.
fn distinct<'a>(readers: &[Reader<'a>]) -> Vec<&'a BTreeSet<TopicId>> {
    let mut sets: Vec<&BTreeSet<TopicId>> = readers.iter().map(|reader| reader.topics).collect();
    sets.dedup_by(|a, b| std::ptr::eq(*a, *b));
    sets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(number: u8) -> TopicId {
        TopicId([number; 16])
    }

    struct World {
        ids: Vec<Text>,
        topics: Vec<BTreeSet<TopicId>>,
        counts: BTreeMap<TopicId, i32>,
        has: Vec<Partitions>,
    }

    impl World {
        /// So many members, each of which reads these topics.
        fn new(reads: &[&[u8]], counts: &[(u8, i32)]) -> Self {
            Self {
                ids: (0..reads.len()).map(|at| format!("m{at:03}").into()).collect(),
                topics: reads.iter().map(|topics| topics.iter().map(|it| topic(*it)).collect()).collect(),
                counts: counts.iter().map(|(it, count)| (topic(*it), *count)).collect(),
                has: vec![Partitions::new(); reads.len()],
            }
        }

        /// Assigns, checks what always holds, and keeps it. How many partitions moved.
        fn assign(&mut self, assignor: Assignor) -> usize {
            let reader = |at: usize| Reader {
                id: &self.ids[at],
                instance_id: None,
                topics: &self.topics[at],
                has: Some(&self.has[at]),
            };
            let readers: Vec<Reader<'_>> = (0..self.ids.len()).map(reader).collect();
            let (shares, _) = assignor.assign(&readers, &self.counts);
            let mut given: BTreeMap<(TopicId, i32), usize> = BTreeMap::new();
            for (at, share) in shares.iter().enumerate() {
                for (topic, partitions) in share {
                    assert!(self.topics[at].contains(topic), "member {at} does not read {topic}");
                    for partition in partitions {
                        assert!((0..self.counts[topic]).contains(partition));
                        assert_eq!(given.insert((*topic, *partition), at), None, "dual-owner");
                    }
                }
            }
            for (topic, count) in &self.counts {
                let is_read = self.topics.iter().any(|topics| topics.contains(topic));
                let of_topic = given.keys().filter(|(of, _)| of == topic).count();
                assert_eq!(of_topic, if is_read { usize::try_from(*count).unwrap() } else { 0 });
            }
            let had = |at: usize, (topic, partition): &(TopicId, i32)| {
                self.has[at].get(topic).is_some_and(|partitions| partitions.contains(partition))
            };
            let moved = given.iter().filter(|(partition, at)| !had(**at, partition)).count();
            self.has = shares;
            moved
        }

        fn sizes(&self) -> Vec<usize> {
            self.has.iter().map(|share| share.values().map(BTreeSet::len).sum()).collect()
        }

        fn join(&mut self, reads: &[u8]) {
            self.ids.push(format!("m{:03}", self.ids.len()).into());
            self.topics.push(reads.iter().map(|it| topic(*it)).collect());
            self.has.push(Partitions::new());
        }
    }

    #[test]
    fn uniform_is_even_and_moves_as_little_as_that_allows() {
        let mut world = World::new(&[&[1, 2]], &[(1, 6), (2, 4), (3, 9)]);
        assert_eq!(world.assign(Assignor::Uniform), 10);
        world.join(&[1, 2]);
        assert_eq!((world.assign(Assignor::Uniform), world.sizes()), (5, vec![5, 5]));
        world.join(&[1, 2]);
        assert_eq!((world.assign(Assignor::Uniform), world.sizes()), (3, vec![4, 3, 3]));
        assert_eq!(world.assign(Assignor::Uniform), 0, "nothing has changed");
        world.topics.remove(0);
        world.ids.remove(0);
        world.has.remove(0);
        assert_eq!((world.assign(Assignor::Uniform), world.sizes()), (4, vec![5, 5]));
        world.counts.insert(topic(1), 3);
        world.assign(Assignor::Uniform);
        assert_eq!(world.sizes().iter().sum::<usize>(), 7);
    }

    #[test]
    fn more_members_than_partitions_leave_some_without() {
        let reads: Vec<&[u8]> = vec![&[1]; 5];
        let mut world = World::new(&reads, &[(1, 3)]);
        for assignor in [Assignor::Uniform, Assignor::Range] {
            world.assign(assignor);
            assert_eq!(world.sizes(), [1, 1, 1, 0, 0]);
        }
    }

    #[test]
    fn uniform_is_as_even_as_what_members_read_allows() {
        let mut world = World::new(&[&[1, 2], &[1], &[2]], &[(1, 4), (2, 2)]);
        world.assign(Assignor::Uniform);
        assert_eq!(world.sizes(), [2, 2, 2]);
        world.join(&[1]);
        world.assign(Assignor::Uniform);
        assert!(world.sizes().iter().all(|size| (1..=2).contains(size)), "{:?}", world.sizes());
        // One who reads what nobody else does has it all.
        let mut world = World::new(&[&[1], &[1, 2]], &[(1, 2), (2, 9)]);
        world.assign(Assignor::Uniform);
        assert_eq!(world.sizes(), [2, 9]);
    }

    #[test]
    fn whoever_comes_and_goes_all_is_given_once() {
        let mut draw = 7_u32;
        let mut next = |below: u32| {
            draw = draw.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (draw >> 8) % below
        };
        for assignor in [Assignor::Uniform, Assignor::Range] {
            let mut world = World::new(&[&[1]], &[(1, 5), (2, 12), (3, 1)]);
            for _ in 0..300 {
                match next(5) {
                    0 if world.ids.len() > 1 => {
                        let at = usize::try_from(next(u32::try_from(world.ids.len()).unwrap())).unwrap();
                        world.ids.remove(at);
                        world.topics.remove(at);
                        world.has.remove(at);
                    }
                    1 => {
                        let count = i32::try_from(next(20)).unwrap();
                        world.counts.insert(topic(u8::try_from(1 + next(4)).unwrap()), count);
                    }
                    2 => world.join(&[1, 2, 3]),
                    _ => world.join(&[u8::try_from(1 + next(4)).unwrap(), u8::try_from(1 + next(4)).unwrap()]),
                }
                world.assign(assignor);
                if world.ids.len() > 12 {
                    world = World::new(&[&[1], &[2, 3]], &[(1, 5), (2, 12), (3, 1)]);
                }
            }
        }
    }

    #[test]
    fn range_shares_topics_out_alike_and_static_members_stay_in_place() {
        let mut world = World::new(&[&[1, 2], &[1, 2]], &[(1, 3), (2, 3)]);
        world.assign(Assignor::Range);
        let of = |partitions: &[i32]| -> Partitions {
            [1, 2].into_iter().map(|it| (topic(it), partitions.iter().copied().collect())).collect()
        };
        assert_eq!(world.has, [of(&[0, 1]), of(&[2])]);
        let topics = BTreeSet::from([topic(1)]);
        let (a, z, instance) = (Text::from("a"), Text::from("z"), Text::from("i"));
        let reader = |id, instance_id| Reader { id, instance_id, topics: &topics, has: None };
        let (shares, _) = Assignor::Range.assign(&[reader(&a, None), reader(&z, Some(&instance))], &world.counts);
        assert_eq!(shares[1][&topic(1)], BTreeSet::from([0, 1]));
    }
}
