//! InitProducerId: a producer's id and epoch (KIP-98, KIP-360).

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// Asks for a producer id, or for the next epoch of one.
    request InitProducerId InitProducerIdRequest -> InitProducerIdResponse {
        /// The transactional id, if there is one.
        transactional_id: Option<Text> [0..] [null 0..],
        /// After how many milliseconds the broker aborts a transaction.
        transaction_timeout_ms: i32 [0..],
        /// The producer id to go on with, or -1.
        producer_id: i64 [3..] [or -1],
        /// Its epoch, or -1.
        producer_epoch: i16 [3..] [or -1],
    }

    /// The producer's id and epoch.
    response InitProducerId InitProducerIdResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [0..] [ignorable],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The producer's id.
        producer_id: i64 [0..] [or -1],
        /// The producer's epoch.
        producer_epoch: i16 [0..],
    }
}
