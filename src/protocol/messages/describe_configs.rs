//! DescribeConfigs: configurations with their sources (KIP-226).

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// Resources to describe.
    request DescribeConfigs DescribeConfigsRequest -> DescribeConfigsResponse {
        /// The resources.
        resources: Vec<DescribeConfigsResource> [0..],
        /// Whether to say where else values are set.
        include_synonyms: bool [1..],
        /// Whether to explain the entries.
        include_documentation: bool [3..],
    }

    /// A resource to describe.
    part DescribeConfigsResource {
        /// The kind of resource: 2 topic, 4 broker, 8 broker logger.
        resource_type: i8 [0..],
        /// The resource's name: a topic's name or a broker's id.
        resource_name: Text [0..],
        /// The entries wanted; null for all.
        configuration_keys: Option<Vec<Text>> [0..] [null 0..],
    }

    /// The configurations.
    response DescribeConfigs DescribeConfigsResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [0..],
        /// What became of each.
        results: Vec<DescribeConfigsResult> [0..],
    }

    /// One resource's configuration.
    part DescribeConfigsResult {
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The error in words, if there is one.
        error_message: Option<Text> [0..] [null 0..],
        /// The kind of resource: 2 topic, 4 broker, 8 broker logger.
        resource_type: i8 [0..],
        /// The resource's name: a topic's name or a broker's id.
        resource_name: Text [0..],
        /// The configuration entries.
        configs: Vec<DescribeConfigsResourceResult> [0..],
    }

    /// One entry.
    part DescribeConfigsResourceResult {
        /// The name.
        name: Text [0..],
        /// The value; null for none, or a secret.
        value: Option<Text> [0..] [null 0..],
        /// Whether it cannot be changed.
        read_only: bool [0..],
        /// Where the value is set: 1 topic, 2 and 3 dynamic broker, 4 static broker, 5 default.
        config_source: i8 [1..] [or -1] [ignorable],
        /// Whether it is a secret.
        is_sensitive: bool [0..],
        /// Where else the value is set.
        synonyms: Vec<DescribeConfigsSynonym> [1..] [ignorable],
        /// The value's type.
        config_type: i8 [3..] [ignorable],
        /// What the entry is for.
        documentation: Option<Text> [3..] [null 0..] [ignorable],
    }

    /// Where else the entry's value is set, strongest first.
    part DescribeConfigsSynonym {
        /// The name.
        name: Text [1..],
        /// The value; null for none, or a secret.
        value: Option<Text> [1..] [null 0..],
        /// Where the value is set.
        source: i8 [1..],
    }
}
