//! What readers of a partition may see, published as one value, and who waits for it to move.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::Notify;

use crate::ids::{LogId, Offset, Term};

/// What readers may see: one consistent value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watermarks {
    /// Records below this offset are committed: readers see them.
    pub high_watermark: Offset,
    /// The first offset that readers may still read.
    pub log_start: Offset,
    /// The last applied entry.
    pub applied: Option<LogId>,
    /// The term in which this replica serves, if it does.
    pub term: Option<Term>,
}

/// Somebody who waits for partitions to move. It learns *which* moved, so that a wake looks at nothing else.
#[derive(Debug, Default)]
pub struct ReadyList {
    ready: Mutex<BTreeSet<usize>>,
    notify: Notify,
}

impl ReadyList {
    /// An empty list.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn push(&self, token: usize) {
        self.ready.lock().expect("no panic under the ready list's lock").insert(token);
        self.notify.notify_one();
    }

    /// Takes the tokens of the partitions that moved since the last call.
    #[must_use]
    pub fn take(&self) -> BTreeSet<usize> {
        std::mem::take(&mut *self.ready.lock().expect("no panic under the ready list's lock"))
    }

    /// Waits until some partition has moved. A move before the call counts.
    pub async fn wait(&self) {
        self.notify.notified().await;
    }
}

/// A partition's published watermarks and their subscribers.
#[derive(Debug, Default)]
pub struct Published {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    marks: Watermarks,
    subscribers: Vec<(Weak<ReadyList>, usize)>,
}

impl Published {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic under the watermarks' lock")
    }

    /// The present watermarks.
    #[must_use]
    pub fn get(&self) -> Watermarks {
        self.lock().marks
    }

    /// Changes the watermarks and wakes the subscribers if anything that they can see moved.
    ///
    /// # Panics
    /// If the high watermark or log start would go back (`hw-regress`, `log-start-regress`).
    pub fn update(&self, change: impl FnOnce(&mut Watermarks)) {
        let mut state = self.lock();
        let before = state.marks;
        change(&mut state.marks);
        let after = state.marks;
        assert!(after.high_watermark >= before.high_watermark, "hw-regress: {before:?} to {after:?}");
        assert!(after.log_start >= before.log_start, "log-start-regress: {before:?} to {after:?}");
        let moved = after.high_watermark != before.high_watermark
            || after.log_start != before.log_start
            || after.term != before.term;
        if moved && !state.subscribers.is_empty() {
            state.subscribers.retain(|(list, token)| list.upgrade().map(|list| list.push(*token)).is_some());
        }
    }

    /// Subscribes `list` under `token` until the list is dropped. Returns the watermarks as of the subscription.
    #[must_use]
    pub fn subscribe(&self, list: &Arc<ReadyList>, token: usize) -> Watermarks {
        let mut state = self.lock();
        state.subscribers.retain(|(list, _)| list.strong_count() > 0);
        state.subscribers.push((Arc::downgrade(list), token));
        state.marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_learns_which_partition_moved() {
        let (one, two) = (Published::default(), Published::default());
        let list = ReadyList::new();
        let _ = one.subscribe(&list, 1);
        let _ = two.subscribe(&list, 2);
        two.update(|marks| marks.high_watermark = Offset(5));
        two.update(|marks| marks.applied = Some(LogId::default()));
        assert_eq!(list.take(), BTreeSet::from([2]));
        assert!(list.take().is_empty());
    }

    #[test]
    #[should_panic(expected = "hw-regress")]
    fn a_high_watermark_never_goes_back() {
        let published = Published::default();
        published.update(|marks| marks.high_watermark = Offset(5));
        published.update(|marks| marks.high_watermark = Offset(4));
    }
}
