//! Notices the end of connections to peers: nothing tells sooner that one has died.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use crate::ids::BrokerId;

/// Hears that a connection to a broker has ended, by the other side or by the network.
pub type EndedHook = Box<dyn Fn(BrokerId) + Send + Sync>;

/// Who hears it; nobody at first.
#[derive(Clone, Default)]
pub(super) struct Ended(Arc<OnceLock<EndedHook>>);

impl Ended {
    /// Says who hears it. Once.
    pub(super) fn set(&self, hook: EndedHook) {
        drop(self.0.set(hook));
    }

    fn tell(&self, broker: BrokerId) {
        if let Some(hook) = self.0.get() {
            hook(broker);
        }
    }
}

/// What is read from a peer, and the end of it.
pub(super) struct Watched<R> {
    inner: R,
    broker: BrokerId,
    ended: Option<Ended>,
}

impl<R> Watched<R> {
    pub(super) fn new(inner: R, broker: BrokerId, ended: Ended) -> Self {
        Self { inner, broker, ended: Some(ended) }
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
        if is_over && let Some(ended) = self.ended.take() {
            ended.tell(self.broker);
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
        let mut watched = Watched::new(&b"something"[..], BrokerId(2), ended);
        let mut bytes = [0; 9];
        watched.read_exact(&mut bytes).await.unwrap();
        assert!(told.lock().unwrap().is_empty());
        assert_eq!(watched.read(&mut bytes).await.unwrap(), 0);
        assert_eq!(watched.read(&mut bytes).await.unwrap(), 0);
        assert_eq!(*told.lock().unwrap(), [BrokerId(2)]);
    }
}
