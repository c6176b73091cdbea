//! Work that blocks runs on the disk's threads.

use tokio::sync::oneshot;

use crate::log::disk::Lane;
use crate::protocol::error_code::ErrorCode;
use crate::server::dispatch::Call;

/// Runs work that a client waits for on the disk's threads.
///
/// # Errors
/// If those have ended: the broker is stopping, and the client asks elsewhere.
pub(super) async fn on_disk<T: Send + 'static>(
    call: &Call,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ErrorCode> {
    let (tell, done) = oneshot::channel();
    call.context.disk.offload(Lane::Read, Box::new(move || drop(tell.send(work()))));
    done.await.map_err(|_| ErrorCode::NOT_LEADER_OR_FOLLOWER)
}
