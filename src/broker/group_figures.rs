//! What `/metrics` says of groups: counted when somebody asks, a little at a time, so that no coordinator waits for it and no partition is woken.
//!
//! Groups and members are counted by the coordinators, each between two of its turns. Offsets are read from committed state, and how far they
//! are behind from the high watermarks that this broker has published.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;

use super::Inner;
use crate::ids::{PartitionId, PartitionIndex, TopicId};
use crate::machine::groups::coordinator::Coordinator;
use crate::machine::groups::record::{Committed, Key, decode_key};
use crate::machine::groups::{classic, consumer};
use crate::machine::keyed::LastValues;
use crate::metrics::{GroupFigures, Standing};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::replica::coordinator::{Coordinators, Work};
use crate::replica::watermarks::Watermarks;

/// Pairs of a group and a topic that are shown: the first by their names, so that it is always the same ones.
const SHOWN_MAX: usize = 1000;
/// A group whose name is longer is not shown: each series repeats it. Clients' own names have at most so many bytes too.
const NAME_BYTES_MAX: usize = 255;
/// Keys that are looked at in one go, with the coordinator's state locked.
const KEYS_AT_ONCE: usize = 1024;
/// Keys from here on are of other things than offsets.
const BEHIND_OFFSETS: [u8; 2] = [0, 2];
/// The states that are shown when no group is in them.
const STATES: [&str; 6] = [
    classic::State::Empty.name(),
    classic::State::Preparing.name(),
    classic::State::Completing.name(),
    classic::State::Stable.name(),
    consumer::State::Assigning.name(),
    consumer::State::Reconciling.name(),
];
/// How long a coordinator may take to count its groups, which is a look between two turns. One that takes longer keeps the figures it had.
const PATIENCE: Duration = Duration::from_secs(2);

/// Counts, and remembers what each coordinator said last. Whoever asks meanwhile waits: two walks at once would cost twice as much.
#[derive(Debug, Default)]
pub(super) struct GroupCounter(Mutex<BTreeMap<PartitionId, Census>>);

impl GroupCounter {
    /// Brings the figures up to date.
    pub(super) async fn count(&self, inner: &Inner) {
        let mut last = self.0.lock().await;
        let (mut census, mut walk) = (BTreeMap::new(), Walk::new(SHOWN_MAX));
        for id in inner.coordinators.ids() {
            let counted = Census::ask(&inner.coordinators, id).await;
            census.extend(counted.or_else(|| last.remove(&id)).map(|counted| (id, counted)));
            let Some(replica) = inner.replicas.get(id) else { continue };
            walk.begin();
            let marks = |id| inner.replicas.get(id).map(|replica| replica.watermarks());
            let topic = |name: &str| inner.controller.topic_id(name);
            let mut goes_on = true;
            while goes_on {
                let machine = replica.group().machine();
                goes_on = {
                    let machine = machine.lock().expect("a machine's apply does not panic");
                    machine.values().is_some_and(|values| walk.go_on(values, KEYS_AT_ONCE, topic, marks))
                };
                tokio::task::yield_now().await;
            }
        }
        let mut figures = GroupFigures { states: STATES.map(|name| (name.to_owned(), 0)).into(), ..walk.figures() };
        for (state, count) in census.values().flat_map(|census| &census.states) {
            *figures.states.entry((*state).to_owned()).or_default() += count;
        }
        figures.members = census.values().map(|census| census.members).sum();
        *last = census;
        inner.metrics.show_groups(figures);
    }
}

/// What one coordinator counts.
#[derive(Clone, Debug, Default)]
struct Census {
    states: BTreeMap<&'static str, u64>,
    members: u64,
}

impl Census {
    /// Has a coordinator count. `None`: it is not here any more, or has other things to do.
    async fn ask(coordinators: &Coordinators, id: PartitionId) -> Option<Self> {
        let (tell, told) = oneshot::channel();
        let work: Work = Box::new(move |turn, ticket| {
            // Nobody listens any more if it took too long.
            let _ = tell.send(Self::of(turn.coordinator));
            turn.out.answer(ticket, ErrorCode::NONE);
        });
        let asked = async {
            // What this turn commits has nothing to do with it.
            drop(coordinators.ask(id, false, work).await);
            told.await.ok()
        };
        timeout(PATIENCE, asked).await.ok().flatten()
    }

    fn of(coordinator: &Coordinator) -> Self {
        let mut census = Self::default();
        for (state, members) in coordinator.sizes() {
            *census.states.entry(state).or_default() += 1;
            census.members += u64::try_from(members).expect("a count fits");
        }
        census
    }
}

/// A walk through the committed offsets of all coordinators, in steps.
#[derive(Debug)]
struct Walk {
    shown_max: usize,
    shown: BTreeMap<(Text, Text), Standing>,
    left_out: u64,
    /// The last key that was looked at.
    at: Option<Box<[u8]>>,
    pair: Option<Pair>,
}

/// The pair of a group and a topic that a walk is at.
#[derive(Debug)]
struct Pair {
    /// What the keys of its offsets begin with.
    prefix: Box<[u8]>,
    /// Its names and the topic; `None` if it is not shown.
    shown: Option<(Text, Text, TopicId)>,
    standing: Standing,
}

impl Walk {
    fn new(shown_max: usize) -> Self {
        Self { shown_max, shown: BTreeMap::new(), left_out: 0, at: None, pair: None }
    }

    /// Begins with the next coordinator's offsets.
    fn begin(&mut self) {
        (self.at, self.pair) = (None, None);
    }

    /// Looks at the next keys. `false`: these were the last ones.
    fn go_on(
        &mut self,
        values: &LastValues,
        keys_max: usize,
        topic: impl Fn(&str) -> Option<TopicId>,
        marks: impl Fn(PartitionId) -> Option<Watermarks>,
    ) -> bool {
        let mut last = None;
        let from = self.at.take();
        for (key, value) in values.behind(from.as_deref()).take(keys_max) {
            if key >= &BEHIND_OFFSETS[..] {
                last = None;
                break;
            }
            last = Some(key);
            let Some((prefix, partition)) = key.split_last_chunk::<4>() else { continue };
            if self.pair.as_ref().is_none_or(|pair| *pair.prefix != *prefix) {
                self.end_pair();
                let Ok(Key::Offset(of)) = decode_key(key) else { continue };
                self.pair = Some(self.pair(prefix, of.group, of.topic, &topic));
            }
            let pair = self.pair.as_mut().expect("it was just made");
            pair.add(PartitionIndex(i32::from_be_bytes(*partition)), value, &marks);
        }
        self.at = last.map(Into::into);
        if self.at.is_none() {
            self.end_pair();
        }
        self.at.is_some()
    }

    fn pair(&mut self, prefix: &[u8], group: Text, topic: Text, id: impl Fn(&str) -> Option<TopicId>) -> Pair {
        let id = id(&topic);
        let names = (group, topic);
        let is_full = self.shown.len() >= self.shown_max;
        let is_past = is_full && self.shown.last_key_value().is_none_or(|(last, _)| *last < names);
        // Offsets of a topic that is gone are forgotten soon.
        let fits = id.is_some() && !is_past && names.0.len() <= NAME_BYTES_MAX;
        self.left_out += u64::from(id.is_some() && !fits);
        let shown = id.filter(|_| fits).map(|id| (names.0, names.1, id));
        Pair { prefix: prefix.into(), shown, standing: Standing::default() }
    }

    /// Keeps what the walk has found of the pair it was at.
    fn end_pair(&mut self) {
        let Some(Pair { shown: Some((group, topic, _)), standing, .. }) = self.pair.take() else { return };
        if standing.partitions == 0 {
            return;
        }
        self.shown.insert((group, topic), standing);
        if self.shown.len() > self.shown_max {
            self.shown.pop_last();
            self.left_out += 1;
        }
    }

    fn figures(self) -> GroupFigures {
        let named = |((group, topic), standing): ((Text, Text), _)| ((group.to_string(), topic.to_string()), standing);
        let standings = self.shown.into_iter().map(named).collect();
        GroupFigures { standings, left_out: self.left_out, ..Default::default() }
    }
}

impl Pair {
    fn add(&mut self, partition: PartitionIndex, value: &[u8], marks: impl Fn(PartitionId) -> Option<Watermarks>) {
        let Some((_, _, topic)) = self.shown else { return };
        let Ok(committed) = Committed::decode(value) else { return };
        // An offset of a topic that had the same name is none.
        if committed.topic.is_some_and(|of| of != topic) {
            return;
        }
        let (Ok(offset), Some(marks)) = (u64::try_from(committed.offset.0), marks(PartitionId { topic, partition }))
        else {
            return;
        };
        let from = committed.offset.max(marks.log_start);
        let lag = u64::try_from(marks.high_watermark.0.saturating_sub(from.0)).unwrap_or(0);
        let standing = &mut self.standing;
        standing.partitions += 1;
        standing.committed = standing.committed.saturating_add(offset);
        standing.lag = standing.lag.saturating_add(lag);
        standing.lag_max = standing.lag_max.max(lag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Offset, Timestamp};
    use crate::machine::groups::record::{group_key, offset_key};

    const TOPIC: TopicId = TopicId([1; 16]);

    fn put(values: &mut LastValues, group: &str, topic: &str, partition: i32, offset: i64, of: Option<TopicId>) {
        let committed = Committed {
            offset: Offset(offset),
            leader_epoch: -1,
            metadata: Text::default(),
            at: Timestamp(0),
            expires: None,
            topic: of,
        };
        let key = offset_key(&group.into(), &topic.into(), PartitionIndex(partition));
        values.put(&key, Some(&committed.encode()));
    }

    /// Every partition holds the records from 100 to 1000, but for partition 9, which is not here.
    fn marks(id: PartitionId) -> Option<Watermarks> {
        let marks = Watermarks { high_watermark: Offset(1000), log_start: Offset(100), ..Default::default() };
        (id.topic == TOPIC && id.partition.0 != 9).then_some(marks)
    }

    fn walk(coordinators: &[&LastValues], shown_max: usize, keys_max: usize) -> GroupFigures {
        let mut walk = Walk::new(shown_max);
        for values in coordinators {
            walk.begin();
            while walk.go_on(values, keys_max, |topic| (topic != "gone").then_some(TOPIC), marks) {}
        }
        walk.figures()
    }

    fn shown(figures: &GroupFigures) -> Vec<(&str, &str)> {
        figures.standings.keys().map(|(group, topic)| (group.as_str(), topic.as_str())).collect()
    }

    #[test]
    fn lag_is_what_is_still_there_and_not_read_whatever_the_steps() {
        let mut values = LastValues::default();
        put(&mut values, "readers", "a", 0, 400, Some(TOPIC));
        put(&mut values, "readers", "a", 1, 990, None);
        // Retention has passed it; it is ahead of a log that lost its end; the partition is not here.
        put(&mut values, "readers", "b", 0, 30, Some(TOPIC));
        put(&mut values, "readers", "b", 1, 1_000_000, Some(TOPIC));
        put(&mut values, "readers", "b", 9, 7, Some(TOPIC));
        // No offset, another topic of the same name, a topic that is gone.
        put(&mut values, "idle", "a", 0, -1, Some(TOPIC));
        put(&mut values, "idle", "b", 0, 5, Some(TopicId([2; 16])));
        put(&mut values, "idle", "gone", 0, 5, None);
        values.put(&group_key(&"readers".into()), Some(b"members"));
        values.put(b"", Some(b"nothing that anybody knows"));
        for keys_max in [1, 2, 3, 100] {
            let figures = walk(&[&values], 10, keys_max);
            assert_eq!(shown(&figures), [("readers", "a"), ("readers", "b")], "{keys_max} at once");
            let of = |topic: &str| figures.standings[&("readers".to_owned(), topic.to_owned())];
            assert_eq!(of("a"), Standing { partitions: 2, committed: 1390, lag: 610, lag_max: 600 });
            assert_eq!(of("b"), Standing { partitions: 2, committed: 1_000_030, lag: 900, lag_max: 900 });
            assert_eq!(figures.left_out, 0);
        }
    }

    #[test]
    fn the_first_by_name_are_shown_wherever_they_are_and_the_others_counted() {
        let (mut one, mut two) = (LastValues::default(), LastValues::default());
        for (number, name) in ["zebra", "a", "mm", "bb", "long name"].into_iter().enumerate() {
            let values = if number % 2 == 0 { &mut one } else { &mut two };
            put(values, name, "t", 0, 500, None);
            put(values, name, "u", 0, 500, None);
        }
        put(&mut one, &"a".repeat(256), "t", 0, 500, None);
        put(&mut two, &"b".repeat(255), "t", 0, 500, None);
        for (shown_max, count) in [(3, 3), (11, 11), (100, 11)] {
            let (figures, turned) = (walk(&[&one, &two], shown_max, 2), walk(&[&two, &one], shown_max, 3));
            assert_eq!(figures, turned, "the order of coordinators does not matter");
            assert_eq!(figures.standings.len(), count);
            assert_eq!(figures.left_out, 12 - u64::try_from(count).unwrap());
            assert_eq!(shown(&figures)[..3], [("a", "t"), ("a", "u"), ("bb", "t")]);
        }
    }
}
