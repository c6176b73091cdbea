//! What people are told of a group of the consumer protocol.

use std::collections::BTreeMap;

use super::super::Topics;
use super::Group;
use super::member::Member;
use crate::ids::TopicId;
use crate::protocol::messages::consumer_group_describe::{
    Assignment, DescribedGroup, Member as DescribedMember, TopicPartitions,
};
use crate::protocol::value::Text;

/// How ConsumerGroupDescribe tells members of the two protocols apart (KIP-1099).
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

fn named(partitions: impl Iterator<Item = (TopicId, Vec<i32>)>, topics: &dyn Topics) -> Assignment {
    let of =
        |(topic_id, partitions)| Some(TopicPartitions { topic_name: topics.name(topic_id)?, topic_id, partitions });
    Assignment { topic_partitions: partitions.filter_map(of).collect() }
}

impl Group {
    /// The group, for people.
    #[must_use]
    pub fn describe(&self, topics: &dyn Topics) -> DescribedGroup {
        let of = |(id, member): (&Text, &Member)| {
            let given = member.standing.given.iter();
            let given = given.map(|(topic, has): (_, &BTreeMap<i32, i32>)| (*topic, has.keys().copied().collect()));
            let target = self.targets.get(id).into_iter().flatten();
            let target = target.map(|(topic, partitions)| (*topic, partitions.iter().copied().collect()));
            DescribedMember {
                member_id: id.clone(),
                instance_id: member.says.instance_id.clone(),
                rack_id: member.says.rack_id.clone(),
                member_epoch: member.standing.epoch,
                client_id: member.says.client_id.clone(),
                client_host: member.says.client_host.clone(),
                subscribed_topic_names: member.says.topics.clone(),
                subscribed_topic_regex: Some(member.says.regex.clone().unwrap_or_default()),
                assignment: named(given, topics),
                target_assignment: named(target, topics),
                member_type: if member.is_classic() { CLASSIC_MEMBER } else { CONSUMER_MEMBER },
            }
        };
        DescribedGroup {
            group_id: self.id.clone(),
            group_state: Text::from_static(self.state().name()),
            group_epoch: self.epoch,
            assignment_epoch: self.target_epoch,
            assignor_name: Text::from_static(self.assignor().name()),
            members: self.members.iter().map(of).collect(),
            ..DescribedGroup::default()
        }
    }
}
