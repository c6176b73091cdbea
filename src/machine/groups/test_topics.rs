//! The topics of a cluster, for tests of what needs them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::{KnownTopic, Topics};
use crate::ids::TopicId;
use crate::protocol::value::Text;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct TestTopics {
    state: Mutex<(u64, BTreeMap<String, KnownTopic>)>,
}

/// The id of a topic: its name, and how often it was made.
fn id(name: &str, made: u8) -> TopicId {
    let mut bytes = [made; 16];
    let name = &name.as_bytes()[..name.len().min(15)];
    bytes[..name.len()].copy_from_slice(name);
    TopicId(bytes)
}

impl TestTopics {
    /// Topics with so many partitions.
    pub(super) fn new(topics: &[(&str, i32)]) -> Arc<Self> {
        let new = Arc::new(Self::default());
        topics.iter().for_each(|(name, partitions)| new.set(name, *partitions));
        new
    }

    /// A topic has so many partitions from now on.
    pub(super) fn set(&self, name: &str, partitions: i32) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        state.1.insert(name.to_owned(), KnownTopic { id: id(name, 1), partitions });
    }

    /// A topic is gone.
    pub(super) fn delete(&self, name: &str) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        state.1.remove(name);
    }
}

impl Topics for TestTopics {
    fn version(&self) -> u64 {
        self.state.lock().unwrap().0
    }

    fn find(&self, name: &str) -> Option<KnownTopic> {
        self.state.lock().unwrap().1.get(name).copied()
    }

    fn name(&self, id: TopicId) -> Option<Text> {
        let state = self.state.lock().unwrap();
        state.1.iter().find(|(_, topic)| topic.id == id).map(|(name, _)| name.as_str().into())
    }

    fn names(&self) -> Vec<Text> {
        let state = self.state.lock().unwrap();
        state.1.keys().map(|name| name.as_str().into()).collect()
    }
}
