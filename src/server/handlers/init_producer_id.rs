//! InitProducerId: an id for an idempotent producer (KIP-98). There are no transactions yet: a transactional id is refused
//! with an error that no client tries again.

use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};
use crate::server::dispatch::Call;

const NO_PRODUCER_ID: i64 = -1;
const NO_PRODUCER_EPOCH: i16 = -1;

/// Handles one InitProducerId request.
pub async fn handle(call: &Call, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let half_given = (request.producer_id == NO_PRODUCER_ID) != (request.producer_epoch == NO_PRODUCER_EPOCH);
    if half_given || request.transactional_id.is_some() {
        return failed(ErrorCode::INVALID_REQUEST);
    }
    // Without a transactional id there is nothing to continue: whatever id the producer had, it gets a new one.
    match call.context.controller.producer_id().await {
        Ok(id) => InitProducerIdResponse { producer_id: id.0, producer_epoch: 0, ..Default::default() },
        Err(_) => failed(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS),
    }
}

fn failed(error_code: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse {
        error_code,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        ..Default::default()
    }
}
