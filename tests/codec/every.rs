//! Every message of the codec, for tests that hold for all of them.

use ottla::protocol::api::ApiKey;
use ottla::protocol::messages::*;
use ottla::protocol::wire::Message;

/// Something that is done to every message.
pub trait Visit {
    /// One message at one version.
    fn message<M: Message>(&mut self, version: i16);
}

/// Visits the request and the response of every API at every version.
#[allow(dead_code)]
pub fn every_message(visit: &mut impl Visit) {
    for api in ApiKey::ALL {
        api.spec().versions.clone().for_each(|version| both_messages(visit, *api, version));
    }
}

/// Visits the request and the response of one API.
pub fn both_messages(visit: &mut impl Visit, api: ApiKey, version: i16) {
    match api {
        ApiKey::Produce => both::<ProduceRequest, ProduceResponse>(visit, version),
        ApiKey::Fetch => both::<FetchRequest, FetchResponse>(visit, version),
        ApiKey::ListOffsets => both::<ListOffsetsRequest, ListOffsetsResponse>(visit, version),
        ApiKey::Metadata => both::<MetadataRequest, MetadataResponse>(visit, version),
        ApiKey::FindCoordinator => both::<FindCoordinatorRequest, FindCoordinatorResponse>(visit, version),
        ApiKey::OffsetCommit => both::<OffsetCommitRequest, OffsetCommitResponse>(visit, version),
        ApiKey::OffsetFetch => both::<OffsetFetchRequest, OffsetFetchResponse>(visit, version),
        ApiKey::JoinGroup => both::<JoinGroupRequest, JoinGroupResponse>(visit, version),
        ApiKey::Heartbeat => both::<HeartbeatRequest, HeartbeatResponse>(visit, version),
        ApiKey::LeaveGroup => both::<LeaveGroupRequest, LeaveGroupResponse>(visit, version),
        ApiKey::SyncGroup => both::<SyncGroupRequest, SyncGroupResponse>(visit, version),
        ApiKey::DescribeGroups => both::<DescribeGroupsRequest, DescribeGroupsResponse>(visit, version),
        ApiKey::ListGroups => both::<ListGroupsRequest, ListGroupsResponse>(visit, version),
        ApiKey::DeleteGroups => both::<DeleteGroupsRequest, DeleteGroupsResponse>(visit, version),
        ApiKey::OffsetDelete => both::<OffsetDeleteRequest, OffsetDeleteResponse>(visit, version),
        ApiKey::ApiVersions => both::<ApiVersionsRequest, ApiVersionsResponse>(visit, version),
        ApiKey::CreateTopics => both::<CreateTopicsRequest, CreateTopicsResponse>(visit, version),
        ApiKey::DeleteTopics => both::<DeleteTopicsRequest, DeleteTopicsResponse>(visit, version),
        ApiKey::DeleteRecords => both::<DeleteRecordsRequest, DeleteRecordsResponse>(visit, version),
        ApiKey::InitProducerId => both::<InitProducerIdRequest, InitProducerIdResponse>(visit, version),
        ApiKey::OffsetForLeaderEpoch => {
            both::<OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse>(visit, version);
        }
        ApiKey::DescribeConfigs => both::<DescribeConfigsRequest, DescribeConfigsResponse>(visit, version),
        ApiKey::AlterConfigs => both::<AlterConfigsRequest, AlterConfigsResponse>(visit, version),
        ApiKey::DescribeLogDirs => both::<DescribeLogDirsRequest, DescribeLogDirsResponse>(visit, version),
        ApiKey::CreatePartitions => both::<CreatePartitionsRequest, CreatePartitionsResponse>(visit, version),
        ApiKey::IncrementalAlterConfigs => {
            both::<IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse>(visit, version);
        }
        ApiKey::DescribeCluster => both::<DescribeClusterRequest, DescribeClusterResponse>(visit, version),
        ApiKey::DescribeQuorum => both::<DescribeQuorumRequest, DescribeQuorumResponse>(visit, version),
        ApiKey::ConsumerGroupHeartbeat => {
            both::<ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse>(visit, version);
        }
        ApiKey::ConsumerGroupDescribe => {
            both::<ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse>(visit, version);
        }
        ApiKey::ElectLeaders => both::<ElectLeadersRequest, ElectLeadersResponse>(visit, version),
        ApiKey::AlterPartitionReassignments => {
            both::<AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse>(visit, version);
        }
        ApiKey::ListPartitionReassignments => {
            both::<ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse>(visit, version);
        }
        ApiKey::UnregisterBroker => both::<UnregisterBrokerRequest, UnregisterBrokerResponse>(visit, version),
        ApiKey::DescribeTopicPartitions => {
            both::<DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse>(visit, version);
        }
    }
}

fn both<Q: Message, P: Message>(visit: &mut impl Visit, version: i16) {
    visit.message::<Q>(version);
    visit.message::<P>(version);
}
