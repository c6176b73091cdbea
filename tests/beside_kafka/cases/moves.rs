//! AlterPartitionReassignments, ListPartitionReassignments, ElectLeaders, UnregisterBroker: as far as one broker can go.

use ottla::protocol::messages::alter_partition_reassignments::{ReassignablePartition, ReassignableTopic};
use ottla::protocol::messages::elect_leaders::TopicPartitions;
use ottla::protocol::messages::list_partition_reassignments::ListPartitionReassignmentsTopics;
use ottla::protocol::messages::{
    AlterPartitionReassignmentsRequest, ElectLeadersRequest, ListPartitionReassignmentsRequest, UnregisterBrokerRequest,
};

use super::kit::{TIMEOUT_MS, create};
use crate::run::Run;

/// An id that no broker has.
const NO_BROKER: i32 = 77;

/// The cases.
pub fn cases(run: &mut Run) {
    create(run, "moves", 2, &[]);
    reassigned(run);
    listed(run);
    elected(run);
    run.case("UnregisterBroker");
    run.step("a broker that is not there", |_| UnregisterBrokerRequest { broker_id: NO_BROKER });
}

fn partition(partition_index: i32, replicas: Option<&[i32]>) -> ReassignablePartition {
    ReassignablePartition { partition_index, replicas: replicas.map(<[i32]>::to_vec) }
}

fn reassign(name: &str, partitions: Vec<ReassignablePartition>) -> AlterPartitionReassignmentsRequest {
    let topics = vec![ReassignableTopic { name: name.into(), partitions }];
    AlterPartitionReassignmentsRequest { timeout_ms: TIMEOUT_MS, topics, ..Default::default() }
}

fn reassigned(run: &mut Run) {
    run.case("AlterPartitionReassignments");
    run.step("nothing", |_| AlterPartitionReassignmentsRequest { timeout_ms: TIMEOUT_MS, ..Default::default() });
    run.step("to where they are", |_| reassign("moves", vec![partition(0, Some(&[1])), partition(1, Some(&[1]))]));
    run.step("no such topic", |_| reassign("moves-none", vec![partition(0, Some(&[1])), partition(0, None)]));
    run.step("no such partition", |_| reassign("moves", vec![partition(2, Some(&[1])), partition(-1, None)]));
    run.step("to nobody", |_| reassign("moves", vec![partition(0, Some(&[]))]));
    run.step("to one twice", |_| reassign("moves", vec![partition(0, Some(&[1, 1]))]));
    run.step("to a broker that is not there", |_| reassign("moves", vec![partition(0, Some(&[NO_BROKER]))]));
    run.step("called off, and nothing moves", |_| reassign("moves", vec![partition(0, None)]));
    run.step("a topic without partitions", |_| reassign("moves", Vec::new()));
    run.step_from("no other number of replicas", 1, |_| AlterPartitionReassignmentsRequest {
        allow_replication_factor_change: false,
        ..reassign("moves", vec![partition(0, Some(&[1])), partition(1, Some(&[1, 1]))])
    });
}

fn listed(run: &mut Run) {
    run.case("ListPartitionReassignments");
    let of = |topics| ListPartitionReassignmentsRequest { timeout_ms: TIMEOUT_MS, topics };
    let topic = |name: &str, partitions: &[i32]| ListPartitionReassignmentsTopics {
        name: name.into(),
        partition_indexes: partitions.to_vec(),
    };
    run.step("all", |_| of(None));
    run.step("none", |_| of(Some(Vec::new())));
    run.step("some", |_| of(Some(vec![topic("moves", &[0, 1, 7]), topic("moves-none", &[0])])));
}

fn elected(run: &mut Run) {
    run.case("ElectLeaders");
    let of = |partitions: Option<&[(&str, &[i32])]>| {
        let topic = |(topic, partitions): &(&str, &[i32])| TopicPartitions {
            topic: (*topic).into(),
            partitions: partitions.to_vec(),
        };
        ElectLeadersRequest {
            topic_partitions: partitions.map(|topics| topics.iter().map(topic).collect()),
            timeout_ms: TIMEOUT_MS,
            ..Default::default()
        }
    };
    // All of them would be those of other cases too.
    run.step("none", |_| of(Some(&[])));
    run.step("led as they are to be", |_| of(Some(&[("moves", &[0, 1])])));
    run.step("not there", |_| of(Some(&[("moves", &[2, -1]), ("moves-none", &[0])])));
    let unclean = |request| ElectLeadersRequest { election_type: 1, ..request };
    run.step_from("unclean", 1, |_| unclean(of(Some(&[("moves", &[0]), ("moves-none", &[0])]))));
    run.step_from("of no type", 1, |_| ElectLeadersRequest { election_type: 9, ..of(None) });
}
