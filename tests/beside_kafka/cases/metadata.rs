//! Metadata, DescribeCluster and DescribeTopicPartitions.

use ottla::ids::TopicId;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::describe_log_dirs::DescribableLogDirTopic;
use ottla::protocol::messages::describe_topic_partitions::{Cursor, TopicRequest};
use ottla::protocol::messages::metadata::MetadataRequestTopic;
use ottla::protocol::messages::{
    DescribeClusterRequest, DescribeLogDirsRequest, DescribeTopicPartitionsRequest, MetadataRequest,
};

use super::kit::{NO_TOPIC, create, versions};
use crate::run::Run;

/// The cases.
pub fn cases(run: &mut Run) {
    create(run, "meta-b", 3, &[]);
    let id = create(run, "meta-a", 1, &[]);
    whole(run);
    by_name(run);
    by_id(run, id);
    log_dirs(run);
    created(run);
    cluster(run);
    topic_partitions(run);
    cursors(run);
}

fn topics(names: &[&str]) -> Option<Vec<MetadataRequestTopic>> {
    let topic = |name: &&str| MetadataRequestTopic { name: Some((*name).into()), ..Default::default() };
    Some(names.iter().map(topic).collect())
}

fn named(names: &[&str]) -> MetadataRequest {
    MetadataRequest { topics: topics(names), allow_auto_topic_creation: true, ..Default::default() }
}

/// From version 4 on creation can be forbidden.
fn only_asked(names: &[&str], version: i16) -> MetadataRequest {
    MetadataRequest { allow_auto_topic_creation: version < 4, ..named(names) }
}

fn whole(run: &mut Run) {
    run.case("all topics");
    run.step("null is all", |version| MetadataRequest {
        topics: if version == 0 { Some(Vec::new()) } else { None },
        ..Default::default()
    });
    run.step_from("an empty list is none", 1, |_| named(&[]));
    run.step_from("with operations", 8, |version| MetadataRequest {
        include_topic_authorized_operations: true,
        include_cluster_authorized_operations: version <= 10,
        ..named(&["meta-a", "meta-b"])
    });
}

fn by_name(run: &mut Run) {
    run.case("by name");
    run.step("two that exist", |_| named(&["meta-b", "meta-a"]));
    run.step("one named twice", |_| named(&["meta-a", "meta-a"]));
    run.step_from("one that does not exist", 4, |version| only_asked(&["meta-none", "meta-a"], version));
    let long = "x".repeat(250);
    for (what, name) in [
        ("an empty name", ""),
        ("a dot", "."),
        ("two dots", ".."),
        ("a slash", "a/b"),
        ("not ASCII", "ä"),
        ("too long", &long),
        ("a name that collides", "meta_a"),
    ] {
        run.step_from(what, 4, |version| only_asked(&[name], version));
    }
    for name in ["", "a/b", &long] {
        run.step(&format!("to be created: {}", &name[..name.len().min(3)]), |_| named(&[name]));
    }
}

fn by_id(run: &mut Run, id: TopicId) {
    run.case("by id");
    let asked = |ids: &[TopicId], name: Option<&str>| MetadataRequest {
        topics: Some(ids.iter().map(|id| MetadataRequestTopic { topic_id: *id, name: name.map(Into::into) }).collect()),
        ..Default::default()
    };
    run.step_from("one that exists", 10, |_| asked(&[id], None));
    run.step_from("one that does not exist", 12, |_| asked(&[NO_TOPIC, id], None));
    run.step_from("the same twice", 12, |_| asked(&[id, id], None));
    run.step_from("id and name", 10, |_| asked(&[id], Some("meta-b")));
    run.step_from("neither", 10, |_| asked(&[TopicId::ZERO], None));
    run.step_from("by id and by name", 12, |_| MetadataRequest {
        topics: Some(vec![
            MetadataRequestTopic { topic_id: id, name: None },
            MetadataRequestTopic { topic_id: TopicId::ZERO, name: Some("meta-b".into()) },
        ]),
        ..Default::default()
    });
}

fn created(run: &mut Run) {
    run.case("created by asking");
    run.step("the first answer", |version| named(&[&format!("meta-made-v{version}")]));
    for version in versions::<MetadataRequest>() {
        let name = format!("meta-made-v{version}");
        let request = named(&[&name]);
        let response = run.await_answer(&request, |response| {
            response.topics[0].error_code == ErrorCode::NONE && response.topics[0].partitions[0].leader_id >= 0
        });
        run.know_topic(&name, response.topics[0].topic_id);
    }
    run.step("once it is there", |version| named(&[&format!("meta-made-v{version}")]));
    run.step_from("an internal topic", 4, |version| only_asked(&["__transaction_state"], version));
}

fn cluster(run: &mut Run) {
    run.case("DescribeCluster");
    run.step("plain", |_| DescribeClusterRequest::default());
    run.step("with operations", |_| DescribeClusterRequest {
        include_cluster_authorized_operations: true,
        ..Default::default()
    });
    run.step_from("with fenced brokers", 2, |_| DescribeClusterRequest {
        include_fenced_brokers: true,
        ..Default::default()
    });
    for endpoint_type in [0, 2, 3, 99] {
        run.step_from(&format!("endpoint type {endpoint_type}"), 1, |_| DescribeClusterRequest {
            endpoint_type,
            ..Default::default()
        });
    }
}

/// Here, where there are few topics.
fn log_dirs(run: &mut Run) {
    run.case("DescribeLogDirs");
    run.step("all topics", |_| DescribeLogDirsRequest { topics: None });
    let asked = |topic: &str, partitions: &[i32]| DescribableLogDirTopic {
        topic: topic.into(),
        partitions: partitions.to_vec(),
    };
    run.step("some partitions", |_| DescribeLogDirsRequest {
        topics: Some(vec![asked("meta-b", &[1, 7]), asked("meta-none", &[0])]),
    });
    run.step("none", |_| DescribeLogDirsRequest { topics: Some(Vec::new()) });
}

fn described(names: &[&str], limit: i32, cursor: Option<(&str, i32)>) -> DescribeTopicPartitionsRequest {
    let cursor = cursor.map(|(name, partition_index)| Cursor { topic_name: name.into(), partition_index });
    DescribeTopicPartitionsRequest {
        topics: names.iter().map(|name| TopicRequest { name: (*name).into() }).collect(),
        response_partition_limit: limit,
        cursor,
    }
}

fn topic_partitions(run: &mut Run) {
    run.case("DescribeTopicPartitions");
    run.step("two topics, not in order", |_| described(&["meta-b", "meta-a"], 2000, None));
    run.step("the same twice", |_| described(&["meta-a", "meta-a"], 2000, None));
    run.step("all topics", |_| described(&[], 2000, None));
    run.step("an unknown name", |_| described(&["meta-none", "meta-a"], 2000, None));
    run.step("names that cannot be", |_| described(&["a/b", "meta-a", "."], 2000, None));
    run.step("an empty name", |_| described(&["", "meta-a"], 2000, None));
    run.step("an internal topic", |_| described(&["__transaction_state"], 2000, None));
}

fn cursors(run: &mut Run) {
    run.case("DescribeTopicPartitions, page by page");
    let both = &["meta-a", "meta-b"];
    run.step("two partitions", |_| described(both, 2, None));
    run.step("the limit falls between topics", |_| described(both, 1, None));
    run.step("no partitions", |_| described(both, 0, None));
    run.step("fewer than none", |_| described(both, -1, None));
    run.step("from a partition", |_| described(both, 2000, Some(("meta-b", 1))));
    run.step("from a partition, all topics", |_| described(&[], 2, Some(("meta-b", 1))));
    run.step("from behind the last partition", |_| described(both, 2000, Some(("meta-b", 3))));
    run.step("from far behind the last partition", |_| described(both, 2000, Some(("meta-b", 9))));
    run.step("from a negative partition", |_| described(both, 2000, Some(("meta-b", -1))));
    run.step("from a topic that is not asked for", |_| described(&["meta-a"], 2000, Some(("meta-b", 0))));
    run.step("from a topic that does not exist", |_| described(&["meta-a", "meta-b1"], 2000, Some(("meta-b1", 0))));
    run.step("all topics, from one that does not exist", |_| described(&[], 3, Some(("meta-aa", 0))));
    run.step("from a name that cannot be", |_| described(&["a/b", "meta-a"], 2000, Some(("a/b", 0))));
}
