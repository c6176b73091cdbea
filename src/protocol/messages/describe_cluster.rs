//! DescribeCluster (KIP-700, KIP-919).

use crate::protocol::error_code::ErrorCode;
use crate::protocol::value::Text;
use crate::protocol::wire::message;

message! {
    /// Asks for the cluster's members.
    request DescribeCluster DescribeClusterRequest -> DescribeClusterResponse {
        /// Whether to say what the client may do with the cluster.
        include_cluster_authorized_operations: bool [0..],
        /// Whose endpoints: 1 the brokers', 2 the controllers'.
        endpoint_type: i8 [1..] [or 1],
        /// Whether to list brokers that are fenced, too (KIP-1073).
        include_fenced_brokers: bool [2..],
    }

    /// The cluster's members.
    response DescribeCluster DescribeClusterResponse {
        /// For how many milliseconds a quota delays the client.
        throttle_time_ms: i32 [0..],
        /// What went wrong, if anything.
        error_code: ErrorCode [0..],
        /// The error in words, if there is one.
        error_message: Option<Text> [0..] [null 0..],
        /// Whose endpoints: 1 the brokers', 2 the controllers'.
        endpoint_type: i8 [1..] [or 1],
        /// The cluster's id.
        cluster_id: Text [0..],
        /// A broker that takes administrative requests.
        controller_id: i32 [0..] [or -1],
        /// The brokers.
        brokers: Vec<DescribeClusterBroker> [0..],
        /// A bit set of what the client may do with the cluster; the lowest value means that it was not asked.
        cluster_authorized_operations: i32 [0..] [or i32::MIN],
    }

    /// A broker, or a controller.
    part DescribeClusterBroker {
        /// The broker's id.
        broker_id: i32 [0..],
        /// Its host name or address.
        host: Text [0..],
        /// Its port.
        port: i32 [0..],
        /// Its rack, if it has one.
        rack: Option<Text> [0..] [null 0..],
        /// Whether it is fenced: registered, and not alive.
        is_fenced: bool [2..],
    }
}
