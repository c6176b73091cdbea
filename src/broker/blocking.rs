//! Blocking work on the disk's own threads, awaited.

use std::sync::Arc;

use crate::log::disk::{Disk, Lane};

/// The disk dropped a job without running it: it is gone, and so is the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the disk has stopped")]
pub struct DiskStopped;

/// Runs `work` in a lane of the disk and waits for its result.
///
/// # Errors
/// If the disk stopped before the work was done.
pub async fn on_disk<T: Send + 'static>(
    disk: &Arc<dyn Disk>,
    lane: Lane,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DiskStopped> {
    let (tell, done) = tokio::sync::oneshot::channel();
    disk.offload(lane, Box::new(move || drop(tell.send(work()))));
    done.await.map_err(|_| DiskStopped)
}
