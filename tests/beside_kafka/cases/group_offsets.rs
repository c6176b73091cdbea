//! Offsets of groups: committed, fetched and deleted, by name and by id.

use ottla::ids::TopicId;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use ottla::protocol::messages::offset_delete::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use ottla::protocol::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use ottla::protocol::messages::{OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest};
use ottla::protocol::value::Text;

use super::groups::{DESCRIBE, JOIN, SYNC, describe, join_in, sync};
use super::kit::{NO_TOPIC, create, recreate, versions};
use crate::run::Run;

type Offset = (i32, i64, Option<&'static str>);

fn commit(
    version: i16,
    group: &str,
    member: &Text,
    generation: i32,
    topic: &str,
    offsets: &[Offset],
) -> OffsetCommitRequest {
    let partition = |(partition, offset, metadata): &Offset| OffsetCommitRequestPartition {
        partition_index: *partition,
        committed_offset: *offset,
        committed_leader_epoch: if version >= 6 { 0 } else { -1 },
        committed_metadata: metadata.map(Into::into),
    };
    let topics = vec![OffsetCommitRequestTopic {
        name: topic.into(),
        partitions: offsets.iter().map(partition).collect(),
        ..Default::default()
    }];
    OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: generation,
        member_id: member.clone(),
        topics,
        ..Default::default()
    }
}

fn fetch(version: i16, group: &str, topics: Option<&[(&str, &[i32])]>) -> OffsetFetchRequest {
    if version < 8 {
        let topic = |(name, partitions): &(&str, &[i32])| OffsetFetchRequestTopic {
            name: (*name).into(),
            partition_indexes: partitions.to_vec(),
        };
        let topics = topics.map(|topics| topics.iter().map(topic).collect());
        return OffsetFetchRequest { group_id: group.into(), topics, ..Default::default() };
    }
    let topic = |(name, partitions): &(&str, &[i32])| OffsetFetchRequestTopics {
        name: (*name).into(),
        partition_indexes: partitions.to_vec(),
        ..Default::default()
    };
    let topics = topics.map(|topics| topics.iter().map(topic).collect());
    let groups = vec![OffsetFetchRequestGroup { group_id: group.into(), topics, ..Default::default() }];
    OffsetFetchRequest { groups, ..Default::default() }
}

/// The cases.
pub fn cases(run: &mut Run) {
    nobody_commits(run);
    members_commit(run);
    by_id(run);
    delete_offsets(run);
}

fn nobody_commits(run: &mut Run) {
    run.case("offsets of a client that is no member");
    let nobody = Text::default();
    for version in versions::<OffsetCommitRequest>() {
        let group = format!("simple-v{version}");
        let group = group.as_str();
        let offsets: &[Offset] = &[(0, 5, Some("kept")), (1, 6, None), (2, 7, None)];
        run.one("commits", version, &commit(version, group, &nobody, -1, "grouped", offsets));
        run.one("commits to a topic that is not there", version, &commit(version, group, &nobody, -1, "none", offsets));
        run.one("commits as somebody", version, &commit(version, group, &"x".into(), 3, "grouped", offsets));
        run.one(
            "commits as somebody of no group",
            version,
            &commit(version, "no-such-group", &"x".into(), 3, "grouped", offsets),
        );
        run.one("commits with an empty group id", version, &commit(version, "", &nobody, -1, "grouped", offsets));
        run.one(
            "commits no topic",
            version,
            &OffsetCommitRequest { topics: Vec::new(), ..commit(version, group, &nobody, -1, "grouped", &[]) },
        );
        let long: &'static str = "m".repeat(4097).leak();
        let one_too_long: &[Offset] = &[(0, 8, Some(long)), (1, 9, Some(&long[1..]))];
        run.one("keeps too much", version, &commit(version, group, &nobody, -1, "grouped", one_too_long));
        run.one("a negative offset", version, &commit(version, group, &nobody, -1, "grouped", &[(0, -5, None)]));
    }
    for version in versions::<OffsetFetchRequest>() {
        let group = "simple-v9";
        let topics: &[(&str, &[i32])] = &[("grouped", &[0, 2, 7]), ("none", &[0])];
        run.one("fetches", version, &fetch(version, group, Some(topics)));
        run.one("fetches of no group", version, &fetch(version, "no-such-group", Some(topics)));
        run.one("fetches nothing", version, &fetch(version, group, Some(&[])));
        run.one("fetches with an empty group id", version, &fetch(version, "", Some(topics)));
        if version >= 2 {
            run.one("fetches no topics of no group", version, &fetch(version, "no-such-group", None));
        }
    }
    run.one("the group", DESCRIBE, &describe(&["simple-v9"]));
}

fn members_commit(run: &mut Run) {
    run.case("offsets of a member");
    let group = "committing";
    let joined = join_in(run, "joins", JOIN, group);
    let (member, generation) = (&joined.member_id, joined.generation_id);
    let offsets: &[Offset] = &[(0, 5, Some("kept"))];
    run.step("before it has its share", |version| commit(version, group, member, generation, "grouped", offsets));
    run.one("asks for its share", SYNC, &sync(group, &joined, &[(member, "all")]));
    run.step("commits", |version| commit(version, group, member, generation, "grouped", offsets));
    run.step("of another generation", |version| commit(version, group, member, generation - 1, "grouped", offsets));
    run.step("of another member", |version| commit(version, group, &"x".into(), generation, "grouped", offsets));
    run.step("of nobody", |version| commit(version, group, &Text::default(), -1, "grouped", offsets));
    run.step_from("of an instance that nobody knows", 7, |version| OffsetCommitRequest {
        group_instance_id: Some("i".into()),
        ..commit(version, group, member, generation, "grouped", offsets)
    });
    run.step("fetches", |version| fetch(version, group, Some(&[("grouped", &[0, 1])])));
    run.step_from("fetches all", 2, |version| fetch(version, group, None));
}

/// Topics by id, in the versions that have no names.
fn by_id(run: &mut Run) {
    run.case("offsets by topic id");
    let id = create(run, "ids", 2, &[]);
    let other = create(run, "ids-other", 1, &[]);
    let group = "by-id";
    let committed = |topics: &[(TopicId, &[i32])]| {
        let partition = |index: &i32| OffsetCommitRequestPartition {
            partition_index: *index,
            committed_offset: 7,
            ..Default::default()
        };
        let topic = |(id, partitions): &(TopicId, &[i32])| OffsetCommitRequestTopic {
            topic_id: *id,
            partitions: partitions.iter().map(partition).collect(),
            ..Default::default()
        };
        let topics = topics.iter().map(topic).collect();
        OffsetCommitRequest { group_id: group.into(), topics, ..Default::default() }
    };
    let fetched = |topics: &[(TopicId, &[i32])]| {
        let topic = |(id, partitions): &(TopicId, &[i32])| OffsetFetchRequestTopics {
            topic_id: *id,
            partition_indexes: partitions.to_vec(),
            ..Default::default()
        };
        let topics = Some(topics.iter().map(topic).collect());
        let groups = vec![OffsetFetchRequestGroup { group_id: group.into(), topics, ..Default::default() }];
        OffsetFetchRequest { groups, ..Default::default() }
    };
    run.step_from("commits to no topic's id", 10, |_| committed(&[(NO_TOPIC, &[0, 1])]));
    run.step_from("commits without an id", 10, |_| committed(&[(TopicId::ZERO, &[0])]));
    run.step_from("commits to one of three", 10, |_| committed(&[(NO_TOPIC, &[0]), (id, &[0, 9]), (other, &[0])]));
    run.step_from("commits to one twice", 10, |_| committed(&[(id, &[0]), (id, &[1])]));
    run.step_from("commits as a member of no group", 10, |_| OffsetCommitRequest {
        group_id: "no-such-group".into(),
        generation_id_or_member_epoch: 3,
        member_id: "x".into(),
        ..committed(&[(NO_TOPIC, &[0]), (id, &[0])])
    });
    run.step_from("fetches", 10, |_| fetched(&[(id, &[0, 1, 9]), (other, &[0])]));
    run.step_from("fetches of no topic's id", 10, |_| fetched(&[(NO_TOPIC, &[0, 1]), (id, &[0])]));
    run.step_from("fetches without an id", 10, |_| fetched(&[(TopicId::ZERO, &[0])]));
    run.step_from("fetches of one twice", 10, |_| fetched(&[(id, &[0]), (id, &[1])]));
    run.step_from("fetches all", 8, |version| fetch(version, group, None));
    run.step_from("fetches of two groups", 8, |version| {
        let mut request = fetch(version, group, Some(&[("ids", &[0])]));
        request.groups.extend(fetch(version, "no-such-group", None).groups);
        request
    });
    let again = recreate(run, "ids", 2);
    // Kafka forgets the offsets of a deleted topic in its own time.
    run.await_answer(&fetch(10, group, None), |response| response.groups[0].topics.len() == 1);
    run.step_from("commits to a topic that was", 10, |_| committed(&[(id, &[0])]));
    run.step_from("fetches of a topic that was", 10, |_| fetched(&[(id, &[0]), (again, &[0])]));
    run.step_from("fetches all but of a topic that was", 8, |version| fetch(version, group, None));
    let answer = run.one("commits to the topic that is", 10, &committed(&[(again, &[1])])).expect("an answer");
    assert_eq!(answer.topics[0].partitions[0].error_code, ErrorCode::NONE);
    run.step_from("fetches all of the topic that is", 8, |version| fetch(version, group, None));
}

fn delete_offsets(run: &mut Run) {
    run.case("OffsetDelete");
    let delete = |group: &str, topics: &[(&str, &[i32])]| {
        let topic = |(name, partitions): &(&str, &[i32])| OffsetDeleteRequestTopic {
            name: (*name).into(),
            partitions: partitions
                .iter()
                .map(|partition| OffsetDeleteRequestPartition { partition_index: *partition })
                .collect(),
        };
        OffsetDeleteRequest { group_id: group.into(), topics: topics.iter().map(topic).collect() }
    };
    run.step("of a group that is not there", |_| delete("no-such-group", &[("grouped", &[0])]));
    run.step("with an empty group id", |_| delete("", &[("grouped", &[0])]));
    run.step("of what members read", |_| delete("committing", &[("grouped", &[0])]));
    run.step("of a topic that is not there", |_| delete("simple-v9", &[("none", &[0]), ("grouped", &[9])]));
    run.step("of nobody's", |_| delete("simple-v9", &[("grouped", &[0])]));
    run.step("of none", |_| delete("simple-v9", &[]));
    for version in [9, 10] {
        run.one("what is left", version, &fetch(version, "simple-v9", None));
    }
}
