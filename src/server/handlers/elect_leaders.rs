//! ElectLeaders: has partitions led by their preferred replicas (KIP-460). Whichever broker is asked, each partition's leader hands over.
//!
//! A replica that lacks what was acknowledged never leads: what an unclean election would do, this one does not.

use std::collections::BTreeMap;

use futures::future::join_all;

use crate::ids::{BrokerId, PartitionId, PartitionIndex};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::elect_leaders::{PartitionResult, ReplicaElectionResult};
use crate::protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};
use crate::protocol::value::Text;
use crate::replica::election::{Elected, elect_elsewhere, elect_preferred};
use crate::server::Context;
use crate::server::dispatch::Call;

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// A partition that is asked for: none where there is no such partition.
struct Asked {
    index: i32,
    id: Option<PartitionId>,
    outcome: ErrorCode,
}

/// Handles one ElectLeaders request.
pub async fn handle(call: &Call, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let election_type = request.election_type;
    if !matches!(election_type, PREFERRED | UNCLEAN) {
        // There is no place for it in version 0, which has no other types either.
        return ElectLeadersResponse { error_code: ErrorCode::INVALID_REQUEST, ..Default::default() };
    }
    let context = &call.context;
    let is_all = request.topic_partitions.is_none();
    let mut topics: Vec<(Text, Vec<Asked>)> = match request.topic_partitions {
        None => every_partition(context),
        Some(topics) => {
            let asked = |name: &Text, index: i32| Asked {
                index,
                id: context.controller.read(|controller| controller.find_partition(name, index).ok()),
                outcome: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            };
            let topics = topics.into_iter().map(|topic| {
                let partitions = topic.partitions.iter().map(|index| asked(&topic.topic, *index)).collect();
                (topic.topic, partitions)
            });
            topics.collect()
        }
    };
    for asked in topics.iter_mut().flat_map(|(_, partitions)| partitions) {
        if let Some(id) = asked.id {
            asked.outcome = first_look(context, id, election_type);
        }
    }
    elect(context, topics.iter_mut().flat_map(|(_, partitions)| partitions)).await;
    let mut results = Vec::with_capacity(topics.len());
    for (topic, mut partitions) in topics {
        // Asked for all, Kafka leaves out those where nothing is to do, and names their topics.
        partitions.retain(|asked| !is_all || asked.outcome != ErrorCode::ELECTION_NOT_NEEDED);
        let partition_result = partitions.into_iter().map(|asked| told(call, &asked)).collect();
        results.push(ReplicaElectionResult { topic, partition_result });
    }
    ElectLeadersResponse { replica_election_results: results, ..Default::default() }
}

fn every_partition(context: &Context) -> Vec<(Text, Vec<Asked>)> {
    context.controller.read(|controller| {
        let topics = controller.topics().map(|topic| {
            let partition = |(index, _): (i32, _)| {
                let id = PartitionId { topic: topic.id, partition: PartitionIndex(index) };
                Asked { index, id: Some(id), outcome: ErrorCode::NONE }
            };
            (topic.name.as_str().into(), (0..).zip(&topic.partitions).map(partition).collect())
        });
        topics.collect()
    })
}

/// What can be said at once; no error where the leader has to hand over.
fn first_look(context: &Context, id: PartitionId, election_type: i8) -> ErrorCode {
    let leader = context.leader(id).map(|(leader, _)| leader);
    if election_type == UNCLEAN {
        return match leader {
            Some(_) => ErrorCode::ELECTION_NOT_NEEDED,
            None => ErrorCode::ELIGIBLE_LEADERS_NOT_AVAILABLE,
        };
    }
    let preferred = context.controller.read(|controller| Some(controller.replicas(id)?.first()?.broker));
    match (leader, preferred) {
        (Some(leader), Some(preferred)) if leader == preferred => ErrorCode::ELECTION_NOT_NEEDED,
        (Some(_), Some(preferred)) if context.is_alive(preferred) => ErrorCode::NONE,
        _ => ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE,
    }
}

/// Has the leaders hand over, all at the same time.
async fn elect(context: &Context, all: impl Iterator<Item = &mut Asked>) {
    let mut by_leader: BTreeMap<BrokerId, Vec<(&mut Asked, PartitionId)>> = BTreeMap::new();
    for asked in all.filter(|asked| asked.outcome == ErrorCode::NONE) {
        let leader = asked.id.and_then(|id| Some((context.leader(id)?.0, id)));
        match leader {
            Some((leader, id)) => by_leader.entry(leader).or_default().push((asked, id)),
            None => asked.outcome = ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE,
        }
    }
    let electing = by_leader.into_iter().map(|(leader, mut asked)| async move {
        let ids: Vec<PartitionId> = asked.iter().map(|(_, id)| *id).collect();
        let outcomes = ask(context, leader, &ids).await;
        for ((asked, _), elected) in asked.iter_mut().zip(outcomes) {
            asked.outcome = match elected {
                Elected::Done => ErrorCode::NONE,
                Elected::NotNeeded => ErrorCode::ELECTION_NOT_NEEDED,
                // It leads no more: whoever leads now is found when it is asked again.
                Elected::NotLeader | Elected::Unavailable => ErrorCode::PREFERRED_LEADER_NOT_AVAILABLE,
            };
        }
    });
    join_all(electing).await;
}

async fn ask(context: &Context, leader: BrokerId, ids: &[PartitionId]) -> Vec<Elected> {
    if leader == context.broker {
        return elect_preferred(context.among.as_ref(), &context.controller, &context.replicas, ids).await;
    }
    elect_elsewhere(context.among.as_ref(), leader, ids).await
}

fn told(call: &Call, asked: &Asked) -> PartitionResult {
    let error_code = asked.outcome;
    if error_code.is_error() {
        call.context.metrics.error(call.header.api.key(), error_code.0);
    }
    let error_message = error_code.is_error().then(|| error_code.meaning().into());
    PartitionResult { partition_id: asked.index, error_code, error_message }
}
