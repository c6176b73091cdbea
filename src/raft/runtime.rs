//! The async runtime under openraft: tokio's, but whoever waits for a watched value is woken in the order of waiting.
//!
//! tokio's own watch channel wakes those that wait in a random order, which no seed decides: a simulation would not repeat itself.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use openraft_rt::watch::{self, RecvError, SendError};
use openraft_rt::{AsyncRuntime, OptionalSend, OptionalSync};
use openraft_rt_tokio::TokioRuntime;
use tokio::sync::{Notify, watch as tokio_watch};
use tokio::task::unconstrained;

/// tokio, with another watch channel.
#[derive(Debug)]
pub struct Ordered(TokioRuntime);

impl AsyncRuntime for Ordered {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = OrderedWatch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        TokioRuntime::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

/// Watch channels that wake in order.
pub struct OrderedWatch;

/// What all senders of a channel share: the last of them closes it.
struct Source<T> {
    values: Option<tokio_watch::Sender<T>>,
    changes: Arc<Notify>,
}

impl<T> Source<T> {
    fn values(&self) -> &tokio_watch::Sender<T> {
        self.values.as_ref().expect("it is taken when it is dropped")
    }
}

impl<T> Drop for Source<T> {
    fn drop(&mut self) {
        drop(self.values.take());
        self.changes.notify_waiters();
    }
}

/// Sets the value.
pub struct OrderedSender<T>(Arc<Source<T>>);

impl<T> Clone for OrderedSender<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Sees the value.
pub struct OrderedReceiver<T> {
    values: tokio_watch::Receiver<T>,
    changes: Arc<Notify>,
}

impl<T> OrderedReceiver<T> {
    /// Whether a value came, or the sender went, since [`OrderedReceiver::borrow_and_update`](openraft_rt::watch::WatchReceiver::borrow_and_update).
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.values.has_changed().unwrap_or(true)
    }
}

impl<T> Clone for OrderedReceiver<T> {
    fn clone(&self) -> Self {
        Self { values: self.values.clone(), changes: Arc::clone(&self.changes) }
    }
}

impl watch::Watch for OrderedWatch {
    type Sender<T: OptionalSend + OptionalSync> = OrderedSender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = OrderedReceiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = tokio_watch::Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Self::Sender<T>, Self::Receiver<T>) {
        let (sender, values) = tokio_watch::channel(init);
        let changes = Arc::new(Notify::new());
        let source = Source { values: Some(sender), changes: Arc::clone(&changes) };
        (OrderedSender(Arc::new(source)), OrderedReceiver { values, changes })
    }
}

impl<T: OptionalSend + OptionalSync> watch::WatchSender<OrderedWatch, T> for OrderedSender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.0.values().send(value).map_err(|error| SendError(error.0))?;
        self.0.changes.notify_waiters();
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        let modified = self.0.values().send_if_modified(modify);
        if modified {
            self.0.changes.notify_waiters();
        }
        modified
    }

    fn borrow_watched(&self) -> tokio_watch::Ref<'_, T> {
        self.0.values().borrow()
    }

    fn subscribe(&self) -> OrderedReceiver<T> {
        OrderedReceiver { values: self.0.values().subscribe(), changes: Arc::clone(&self.0.changes) }
    }
}

impl<T: OptionalSend + OptionalSync> watch::WatchReceiver<OrderedWatch, T> for OrderedReceiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        loop {
            let mut change = pin!(self.changes.notified());
            // Before it is looked: what is sent after that wakes.
            change.as_mut().enable();
            // Not by tokio's budget for a task: used up, it would say that nothing has changed, and nobody would wake this one again.
            if let Some(changed) = unconstrained(self.values.changed()).now_or_never() {
                return changed.map_err(|_| RecvError(()));
            }
            change.await;
        }
    }

    fn borrow_watched(&self) -> tokio_watch::Ref<'_, T> {
        self.values.borrow()
    }

    fn borrow_and_update(&mut self) -> tokio_watch::Ref<'_, T> {
        self.values.borrow_and_update()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft_rt::watch::{Watch as _, WatchReceiver as _, WatchSender as _};

    /// A task that has used up what tokio lets it do in one go must see a change all the same.
    #[tokio::test]
    async fn a_change_is_seen_however_busy_its_task_is() {
        let (sender, mut receiver) = OrderedWatch::channel(0);
        for value in 1..2_000 {
            sender.send(value).unwrap();
            receiver.changed().await.unwrap();
            assert_eq!(*receiver.borrow_and_update(), value);
        }
        drop(sender);
        assert!(receiver.changed().await.is_err());
    }
}
