//! Notices the end of connections to peers: nothing tells sooner that one has died.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use crate::ids::BrokerId;
use crate::net::Probe;

/// Who is asked about many partitions at once does not look for each. A client that has just lost its broker takes longer to ask another.
const LOOK_AGAIN_AFTER: Duration = Duration::from_micros(20);
/// The same in units of how long a look takes, which with many brokers is more: no more than this part of anybody's time goes into looking.
const LOOKS_PART: u32 = 8;

/// Hears that a connection to a broker has ended, by the other side or by the network.
pub type EndedHook = Box<dyn Fn(BrokerId) + Send + Sync>;

/// Who hears it, nobody at first; and the connections that are open.
#[derive(Clone, Default)]
pub(super) struct Ended(Arc<Inner>);

#[derive(Default)]
struct Inner {
    hook: OnceLock<EndedHook>,
    open: Mutex<Vec<Weak<Open>>>,
    look_again_at: Mutex<Option<Instant>>,
}

/// A connection that is still read from, and whether its end has been told.
struct Open {
    broker: BrokerId,
    probe: Option<Probe>,
    is_told: AtomicBool,
}

impl Ended {
    /// Says who hears it. Once.
    pub(super) fn set(&self, hook: EndedHook) {
        drop(self.0.hook.set(hook));
    }

    /// Looks at all connections, unless it just has: tells of those that have ended, whatever of them is still to be read.
    pub(super) fn look(&self, now: impl Fn() -> Instant) {
        let again_at = || self.0.look_again_at.lock().expect("no panic under the lock of a time");
        let began = now();
        if again_at().is_some_and(|again_at| began < again_at) {
            return;
        }
        let open: Vec<Arc<Open>> = self.open().iter().filter_map(Weak::upgrade).collect();
        for connection in open {
            if connection.probe.as_ref().is_some_and(|is_over| is_over()) {
                self.tell(&connection);
            }
        }
        // Not before: whoever does not look for that reason counts on what was found.
        *again_at() = Some(began + LOOK_AGAIN_AFTER.max((now() - began) * LOOKS_PART));
    }

    fn open(&self) -> MutexGuard<'_, Vec<Weak<Open>>> {
        self.0.open.lock().expect("no panic under the lock of connections")
    }

    fn tell(&self, connection: &Open) {
        if connection.is_told.load(Ordering::Relaxed) {
            return;
        }
        // Told before it is noted: two may tell it, but nobody who relies on it is too early.
        if let Some(hook) = self.0.hook.get() {
            hook(connection.broker);
        }
        connection.is_told.store(true, Ordering::Relaxed);
    }
}

/// What is read from a peer, and the end of it.
pub(super) struct Watched<R> {
    inner: R,
    connection: Arc<Open>,
    ended: Ended,
}

impl<R> Watched<R> {
    pub(super) fn new(inner: R, probe: Option<Probe>, broker: BrokerId, ended: Ended) -> Self {
        let connection = Arc::new(Open { broker, probe, is_told: AtomicBool::new(false) });
        {
            let mut open = ended.open();
            open.retain(|one| one.strong_count() > 0);
            open.push(Arc::downgrade(&connection));
        }
        Self { inner, connection, ended }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Watched<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        let is_over = match &polled {
            Poll::Ready(Ok(())) => room > 0 && buffer.filled().len() == before,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        if is_over {
            self.ended.tell(&self.connection);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn the_end_is_told_once() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let (ended, noted) = (Ended::default(), Arc::clone(&told));
        ended.set(Box::new(move |broker| noted.lock().unwrap().push(broker)));
        let mut watched = Watched::new(&b"something"[..], None, BrokerId(2), ended);
        let mut bytes = [0; 9];
        watched.read_exact(&mut bytes).await.unwrap();
        assert!(told.lock().unwrap().is_empty());
        assert_eq!(watched.read(&mut bytes).await.unwrap(), 0);
        assert_eq!(watched.read(&mut bytes).await.unwrap(), 0);
        assert_eq!(*told.lock().unwrap(), [BrokerId(2)]);
    }

    #[tokio::test]
    async fn an_end_that_was_found_is_not_told_again_when_it_is_read() {
        let (told, is_over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (ended, noted, asked) = (Ended::default(), Arc::clone(&told), Arc::clone(&is_over));
        ended.set(Box::new(move |broker| noted.lock().unwrap().push(broker)));
        let probe: Probe = Box::new(move || asked.load(Ordering::Relaxed));
        let mut watched = Watched::new(&b"unread"[..], Some(probe), BrokerId(2), ended.clone());
        let began = Instant::now();
        ended.look(|| began);
        is_over.store(true, Ordering::Relaxed);
        ended.look(|| began);
        assert!(told.lock().unwrap().is_empty(), "it has just looked");
        ended.look(|| began + LOOK_AGAIN_AFTER);
        ended.look(|| began + 2 * LOOK_AGAIN_AFTER);
        assert_eq!(watched.read_to_end(&mut Vec::new()).await.unwrap(), 6);
        assert_eq!(*told.lock().unwrap(), [BrokerId(2)]);
        drop(watched);
        ended.look(|| began + 3 * LOOK_AGAIN_AFTER);
        assert_eq!(told.lock().unwrap().len(), 1, "nobody asks after a connection that is gone");
    }
}
