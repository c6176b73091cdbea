//! ApiVersions: what this broker speaks, and which of Kafka's features are turned on. Any client can ask, in any version.

use crate::protocol::api::ApiKey;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::api_versions::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use crate::protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use crate::server::dispatch::Call;

/// The first version in which the client names its software (KIP-511).
const SOFTWARE_FROM: i16 = 3;

/// The first version whose clients can read that a feature's lowest level is 0 (KAFKA-17492).
const LEVEL_ZERO_FROM: i16 = 4;

/// A feature of the cluster (KIP-584): the levels that this broker has, and the one that is turned on, which is the highest.
struct Feature {
    name: &'static str,
    lowest: i16,
    highest: i16,
}

/// Those of Kafka 4.3's features that are here. Others turn on what is not: transactions, share and streams groups.
const FEATURES: [Feature; 2] = [
    // The consumer protocol of groups (KIP-848).
    Feature { name: "group.version", lowest: 0, highest: 1 },
    // What clients take for the version of the cluster: 4.3.
    Feature { name: "metadata.version", lowest: 7, highest: 30 },
];
/// Grows whenever [`FEATURES`] changes: of several brokers' answers clients believe the one of the highest number, and none below 0.
const FEATURES_EPOCH: i64 = 1;

/// Handles one ApiVersions request.
pub async fn handle(call: &Call, request: ApiVersionsRequest) -> ApiVersionsResponse {
    let names = [&request.client_software_name, &request.client_software_version];
    if call.version() >= SOFTWARE_FROM && !names.iter().all(|name| is_software_name(name)) {
        return ApiVersionsResponse { error_code: ErrorCode::INVALID_REQUEST, ..Default::default() };
    }
    let api_keys = ApiKey::advertised().map(|(api, versions)| row(api, *versions.start(), *versions.end()));
    let can_read = |feature: &&Feature| feature.lowest > 0 || call.version() >= LEVEL_ZERO_FROM;
    ApiVersionsResponse {
        api_keys: api_keys.collect(),
        supported_features: FEATURES.iter().filter(can_read).map(supported).collect(),
        finalized_features_epoch: FEATURES_EPOCH,
        finalized_features: FEATURES.iter().map(finalized).collect(),
        ..Default::default()
    }
}

fn supported(feature: &Feature) -> SupportedFeatureKey {
    SupportedFeatureKey { name: feature.name.into(), min_version: feature.lowest, max_version: feature.highest }
}

fn finalized(feature: &Feature) -> FinalizedFeatureKey {
    let level = feature.highest;
    FinalizedFeatureKey { name: feature.name.into(), max_version_level: level, min_version_level: level }
}

/// The answer to a version that this broker does not have, to be sent in version 0: the client asks again in one it has (KIP-511).
#[must_use]
pub fn unsupported() -> ApiVersionsResponse {
    let versions = &ApiKey::ApiVersions.spec().versions;
    ApiVersionsResponse {
        error_code: ErrorCode::UNSUPPORTED_VERSION,
        api_keys: vec![row(ApiKey::ApiVersions, *versions.start(), *versions.end())],
        ..Default::default()
    }
}

fn row(api: ApiKey, min_version: i16, max_version: i16) -> ApiVersion {
    ApiVersion { api_key: api.key(), min_version, max_version }
}

/// Letters and digits, with dashes and dots between them.
fn is_software_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    match name.as_bytes() {
        [] => false,
        [only] => only.is_ascii_alphanumeric(),
        [first, middle @ .., last] => {
            first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() && middle.iter().all(|byte| inner(*byte))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_are_those_that_kafka_accepts() {
        for good in ["a", "1", "apache-kafka-java", "4.1.0", "librdkafka", "2.3.0-RC1"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-", "a-", ".a", "a b", "a_b", "ä", "unknown?"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }

    #[test]
    fn an_unknown_version_is_answered_with_the_versions_to_ask_in() {
        let response = unsupported();
        assert_eq!(response.error_code, ErrorCode::UNSUPPORTED_VERSION);
        assert_eq!(response.api_keys, [ApiVersion { api_key: 18, min_version: 0, max_version: 4 }]);
    }
}
