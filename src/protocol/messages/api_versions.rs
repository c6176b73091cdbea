//! ApiVersions: what a broker speaks (KIP-35, KIP-511), and the cluster's features (KIP-584).

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// Asks what the broker speaks, and says who asks.
    request ApiVersions ApiVersionsRequest -> ApiVersionsResponse {
        /// What the client calls itself.
        client_software_name: Text [3..] [ignorable],
        /// The client's version.
        client_software_version: Text [3..] [ignorable],
    }

    /// What the broker speaks.
    response ApiVersions ApiVersionsResponse {
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The APIs.
        api_keys: Vec<ApiVersion> [0..],
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [1..] [ignorable],
        /// The features that the broker supports.
        supported_features: Vec<SupportedFeatureKey> [3..] [tag 0] [ignorable],
        /// The number of the last change to the features, or -1 if unknown.
        finalized_features_epoch: i64 [3..] [tag 1] [or -1] [ignorable],
        /// The features that the cluster has turned on.
        finalized_features: Vec<FinalizedFeatureKey> [3..] [tag 2] [ignorable],
        /// Always false: there was no ZooKeeper.
        zk_migration_ready: bool [3..] [tag 3] [ignorable],
    }

    /// The versions of one API.
    part ApiVersion {
        /// The API's key.
        api_key: i16 [0..],
        /// The lowest version.
        min_version: i16 [0..],
        /// The highest version.
        max_version: i16 [0..],
    }

    /// A feature that the broker supports.
    part SupportedFeatureKey {
        /// The name.
        name: Text [3..],
        /// The lowest version.
        min_version: i16 [3..],
        /// The highest version.
        max_version: i16 [3..],
    }

    /// A feature that the cluster has turned on.
    part FinalizedFeatureKey {
        /// The name.
        name: Text [3..],
        /// The highest level.
        max_version_level: i16 [3..],
        /// The lowest level.
        min_version_level: i16 [3..],
    }
}
