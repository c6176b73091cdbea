//! IncrementalAlterConfigs: changes single configuration entries (KIP-339).

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// Changes to configurations.
    request IncrementalAlterConfigs IncrementalAlterConfigsRequest -> IncrementalAlterConfigsResponse {
        /// The resources.
        resources: Vec<AlterConfigsResource> [0..],
        /// Whether only to check, and change nothing.
        validate_only: bool [0..],
    }

    /// The changes to one resource.
    part AlterConfigsResource {
        /// The kind of resource: 2 topic, 4 broker, 8 broker logger.
        resource_type: i8 [0..],
        /// The resource's name: a topic's name or a broker's id.
        resource_name: Text [0..],
        /// The configuration entries.
        configs: Vec<AlterableConfig> [0..],
    }

    /// One entry.
    part AlterableConfig {
        /// The name.
        name: Text [0..],
        /// What to do: 0 set, 1 delete, 2 append, 3 subtract.
        config_operation: i8 [0..],
        /// The value; null for none, or a secret.
        value: Option<Text> [0..] [null 0..],
    }

    /// What became of the changes.
    response IncrementalAlterConfigs IncrementalAlterConfigsResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [0..],
        /// What became of each.
        responses: Vec<AlterConfigsResourceResponse> [0..],
    }

    /// What became of the changes to one resource.
    part AlterConfigsResourceResponse {
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The error in words, if there is one.
        error_message: Option<Text> [0..] [null 0..],
        /// The kind of resource: 2 topic, 4 broker, 8 broker logger.
        resource_type: i8 [0..],
        /// The resource's name: a topic's name or a broker's id.
        resource_name: Text [0..],
    }
}
