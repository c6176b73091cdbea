//! DescribeCluster: the cluster's id, its brokers, and a broker that takes administrative requests (any of them does).

use super::authorized;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::describe_cluster::DescribeClusterBroker;
use crate::protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};
use crate::server::dispatch::Call;

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// Handles one DescribeCluster request.
pub async fn handle(call: &Call, request: DescribeClusterRequest) -> DescribeClusterResponse {
    match request.endpoint_type {
        BROKERS => {}
        CONTROLLERS => {
            let message =
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER";
            return refused(call, ErrorCode::MISMATCHED_ENDPOINT_TYPE, message.to_owned());
        }
        other => {
            return refused(call, ErrorCode::UNSUPPORTED_ENDPOINT_TYPE, format!("Unsupported endpoint type {other}"));
        }
    }
    let context = &call.context;
    let all = context.all_brokers().into_iter();
    let listed = all.filter(|broker| request.include_fenced_brokers || context.is_alive(broker.id));
    let brokers = listed.map(|broker| DescribeClusterBroker {
        is_fenced: !context.is_alive(broker.id),
        broker_id: broker.id.0,
        host: broker.host,
        port: broker.port,
        rack: broker.rack,
    });
    let mut response = DescribeClusterResponse {
        cluster_id: context.cluster_id.as_str().into(),
        controller_id: context.controller_id(),
        brokers: brokers.collect(),
        ..Default::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = authorized::CLUSTER;
    }
    response
}

fn refused(call: &Call, code: ErrorCode, message: String) -> DescribeClusterResponse {
    // The codes for endpoint types came with version 1 (KIP-919).
    let error_code = if call.version() == 0 { ErrorCode::INVALID_REQUEST } else { code };
    DescribeClusterResponse { error_code, error_message: Some(message.into()), ..Default::default() }
}
