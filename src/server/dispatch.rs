//! From a frame to its handler: one exhaustive match, and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::Context;
use super::connection::{ConnectionError, Reply, Slot};
use super::handlers;
use super::memory::Held;
use crate::protocol::api::ApiKey;
use crate::protocol::frame::{decode_request, encode_response};
use crate::protocol::header::{HeaderError, RequestHeader};
use crate::protocol::wire::{Request, Response};

/// The other end of a connection.
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Turns true when it has gone: nobody reads replies any more.
    pub closed: watch::Receiver<bool>,
}

/// One request, as its handler sees it.
#[derive(Clone)]
pub struct Call {
    /// The broker.
    pub context: Arc<Context>,
    /// The request's header.
    pub header: RequestHeader,
    /// The peer's address.
    pub peer: SocketAddr,
}

impl Call {
    /// The request's version.
    #[must_use]
    pub fn version(&self) -> i16 {
        self.header.version
    }

    /// The reply that carries `response`.
    #[must_use]
    pub fn reply<R: Response>(&self, response: &R) -> Reply {
        reply(self.header.version, self.header.correlation_id, response)
    }
}

fn reply<R: Response>(version: i16, correlation_id: i32, response: &R) -> Reply {
    match encode_response(version, correlation_id, response) {
        Ok(frame) => Reply::Frame(frame),
        Err(error) => {
            // A handler filled a field that the version does not have: ours, and a test encodes every response at every version.
            tracing::error!(message = R::NAME, version, %error, "a response could not be encoded");
            Reply::Close
        }
    }
}

/// Decodes a request and runs its handler, or reserves the slot of a reply that comes later. `memory` is what the request holds; it may
/// take more.
///
/// # Errors
/// When the request cannot be understood: the connection is closed, as Kafka does.
pub async fn dispatch(
    context: &Arc<Context>,
    peer: &Peer,
    frame: Bytes,
    memory: &mut Held,
) -> Result<Slot, ConnectionError> {
    let (header, body) = match RequestHeader::decode(frame) {
        Ok(parts) => parts,
        // The one API that is answered in a version that it does not have (KIP-511).
        Err(HeaderError::Version { api: ApiKey::ApiVersions, correlation_id, .. }) => {
            return Ok(Slot::Ready(reply(0, correlation_id, &handlers::api_versions::unsupported())));
        }
        Err(error) => return Err(error.into()),
    };
    context.metrics.request(header.api.key());
    let call = Call { context: Arc::clone(context), header, peer: peer.address };
    if !matches!(call.header.api, ApiKey::Produce | ApiKey::Fetch) {
        context.request_memory.grow_for_lists(memory, body.len()).await?;
    }
    match call.header.api {
        ApiKey::Produce => handlers::produce::handle(&call, body, memory).await,
        ApiKey::Fetch => handlers::fetch::handle(&call, body, memory, peer.closed.clone()).await,
        ApiKey::ListOffsets => answer(&call, body, handlers::list_offsets::handle).await,
        ApiKey::Metadata => answer(&call, body, handlers::metadata::handle).await,
        ApiKey::OffsetCommit => answer(&call, body, handlers::offset_commit::handle).await,
        ApiKey::OffsetFetch => answer(&call, body, handlers::offset_fetch::handle).await,
        ApiKey::FindCoordinator => answer(&call, body, handlers::find_coordinator::handle).await,
        ApiKey::JoinGroup => {
            answer(&call, body, async |call: &Call, request| handlers::join_group::handle(call, request, memory).await)
                .await
        }
        ApiKey::Heartbeat => answer(&call, body, handlers::heartbeat::handle).await,
        ApiKey::LeaveGroup => answer(&call, body, handlers::leave_group::handle).await,
        ApiKey::SyncGroup => {
            answer(&call, body, async |call: &Call, request| handlers::sync_group::handle(call, request, memory).await)
                .await
        }
        ApiKey::DescribeGroups => answer(&call, body, handlers::describe_groups::handle).await,
        ApiKey::ListGroups => answer(&call, body, handlers::list_groups::handle).await,
        ApiKey::ApiVersions => answer(&call, body, handlers::api_versions::handle).await,
        ApiKey::CreateTopics => answer(&call, body, handlers::create_topics::handle).await,
        ApiKey::DeleteTopics => answer(&call, body, handlers::delete_topics::handle).await,
        ApiKey::DeleteRecords => answer(&call, body, handlers::delete_records::handle).await,
        ApiKey::InitProducerId => answer(&call, body, handlers::init_producer_id::handle).await,
        ApiKey::OffsetForLeaderEpoch => answer(&call, body, handlers::offset_for_leader_epoch::handle).await,
        ApiKey::DescribeConfigs => answer(&call, body, handlers::describe_configs::handle).await,
        ApiKey::AlterConfigs => answer(&call, body, handlers::alter_configs::handle).await,
        ApiKey::DescribeLogDirs => answer(&call, body, handlers::describe_log_dirs::handle).await,
        ApiKey::CreatePartitions => answer(&call, body, handlers::create_partitions::handle).await,
        ApiKey::DeleteGroups => answer(&call, body, handlers::delete_groups::handle).await,
        ApiKey::OffsetDelete => answer(&call, body, handlers::offset_delete::handle).await,
        ApiKey::IncrementalAlterConfigs => answer(&call, body, handlers::incremental_alter_configs::handle).await,
        ApiKey::ElectLeaders => answer(&call, body, handlers::elect_leaders::handle).await,
        ApiKey::AlterPartitionReassignments => {
            answer(&call, body, handlers::alter_partition_reassignments::handle).await
        }
        ApiKey::ListPartitionReassignments => answer(&call, body, handlers::list_partition_reassignments::handle).await,
        ApiKey::UnregisterBroker => answer(&call, body, handlers::unregister_broker::handle).await,
        ApiKey::DescribeCluster => answer(&call, body, handlers::describe_cluster::handle).await,
        ApiKey::DescribeQuorum => answer(&call, body, handlers::describe_quorum::handle).await,
        ApiKey::ConsumerGroupHeartbeat => {
            let handle =
                async |call: &Call, request| handlers::consumer_group_heartbeat::handle(call, request, memory).await;
            answer(&call, body, handle).await
        }
        ApiKey::ConsumerGroupDescribe => answer(&call, body, handlers::consumer_group_describe::handle).await,
        ApiKey::DescribeTopicPartitions => answer(&call, body, handlers::describe_topic_partitions::handle).await,
    }
}

async fn answer<R: Request>(
    call: &Call,
    body: Bytes,
    handler: impl AsyncFnOnce(&Call, R) -> R::Response,
) -> Result<Slot, ConnectionError> {
    let request = decode_request::<R>(body, call.version())?;
    let response = handler(call, request).await;
    Ok(Slot::Ready(call.reply(&response)))
}
