//! UnregisterBroker: takes a broker out of the cluster (KIP-500).

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// The broker that has left.
    request UnregisterBroker UnregisterBrokerRequest -> UnregisterBrokerResponse {
        /// Its id.
        broker_id: i32 [0..],
    }

    /// Whether it is forgotten.
    response UnregisterBroker UnregisterBrokerResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [0..],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The error in words, if there is one.
        error_message: Option<Text> [0..] [null 0..],
    }
}
