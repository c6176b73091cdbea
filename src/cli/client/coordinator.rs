//! Which broker coordinates a group.

use tokio::time::{Instant, sleep};

use super::{Client, ClientError, RETRY_PAUSE};
use crate::protocol::api::ApiKey;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::FindCoordinatorRequest;

/// The first version of FindCoordinator that asks for several keys (KIP-699).
const BATCHED_FROM: i16 = 4;

impl Client {
    /// The broker that coordinates a group. Waits while its coordinator is being made or moved.
    ///
    /// # Errors
    /// If no answer came, or there is no coordinator within the client's timeout.
    pub async fn coordinator(&mut self, group: &str) -> Result<i32, ClientError> {
        let is_batched = self.any().await?.version(ApiKey::FindCoordinator)? >= BATCHED_FROM;
        let mut request = FindCoordinatorRequest::default();
        if is_batched {
            request.coordinator_keys = vec![group.into()];
        } else {
            request.key = group.into();
        }
        let deadline = Instant::now() + self.timeout();
        loop {
            let response = self.ask(&request).await?;
            let found = response.coordinators.into_iter().next();
            let (code, node, message) = match found {
                Some(found) => (found.error_code, found.node_id, found.error_message),
                None => (response.error_code, response.node_id, response.error_message),
            };
            let may_pass =
                [ErrorCode::COORDINATOR_NOT_AVAILABLE, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS].contains(&code);
            if may_pass && Instant::now() < deadline {
                sleep(RETRY_PAUSE).await;
                continue;
            }
            if code.is_error() {
                let what = format!("FindCoordinator of group {group}");
                return Err(self.any().await?.refused(&what, code, message.as_deref()));
            }
            if !self.brokers().contains_key(&node) {
                self.metadata(Some(&[]), false).await?;
            }
            return Ok(node);
        }
    }
}
