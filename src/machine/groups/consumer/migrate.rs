//! Online migration between the protocols: a classic group of consumers becomes one of the consumer protocol when the first member of that
//! joins, and a classic one again when the last has left.
//!
//! Members keep what they have: nobody is given a partition that another still has (`dual-owner`).

use std::collections::BTreeMap;

use super::super::member::Member as ClassicMember;
use super::super::record::group_key;
use super::super::{Effects, Limits, Now, Topics, classic};
use super::classic::{by_id, by_name, classic_value};
use super::heartbeat::sorted;
use super::member::{Member, Standing, State};
use super::record::{Given, MemberValue, Partitions};
use super::{Group, Moment, Record};
use crate::protocol::consumer_protocol::{self, Assignment, CONSUMER, Subscription};
use crate::protocol::value::Text;

/// Why a group stays what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoMigration(pub String);

impl Group {
    /// The group that a classic one becomes.
    ///
    /// # Errors
    /// When it is no group of consumers, or somebody's share cannot be taken over.
    pub fn from_classic(
        id: &Text,
        classic: &classic::Group,
        limits: &Limits,
        now: Now,
        topics: &dyn Topics,
    ) -> Result<Self, NoMigration> {
        if classic.protocol_type().is_none_or(|kind| *kind != CONSUMER) {
            return Err(NoMigration(format!("Group {id} is not a group of consumers.")));
        }
        let mut group = Self::new(id.clone(), now);
        (group.epoch, group.target_epoch) = (classic.generation(), classic.generation());
        for member in classic.members() {
            group.take_over(member, classic, limits, topics)?;
        }
        // As all of it will be read again: one place that builds what follows from the members.
        group.all_stored(now, limits.consumer_session_ms);
        group.digest = group.digest_of(topics);
        Ok(group)
    }

    fn take_over(
        &mut self,
        member: &ClassicMember,
        classic: &classic::Group,
        limits: &Limits,
        topics: &dyn Topics,
    ) -> Result<(), NoMigration> {
        let damaged = |what: &str| NoMigration(format!("What member {} of group {} says {what}.", member.id, self.id));
        if self.members.len() >= limits.members_max {
            return Err(NoMigration(format!("Group {} has too many members.", self.id)));
        }
        let metadata = match classic.protocol().filter(|protocol| member.knows(protocol)) {
            Some(protocol) => member.metadata(protocol),
            None => member.protocols.first().map(|(_, metadata)| metadata.clone()).unwrap_or_default(),
        };
        let subscription = Subscription::decode(metadata).map_err(|_| damaged("of its subscription is malformed"))?;
        let share = Assignment::decode(member.assignment.clone()).map_err(|_| damaged("of its share is malformed"))?;
        if share.user_data.is_some_and(|data| !data.is_empty()) {
            return Err(NoMigration(format!(
                "Group {} uses an assignor of its own, which cannot be taken over.",
                self.id
            )));
        }
        let target = by_id(&share.topics, topics);
        let epoch = self.epoch;
        let given = with_epoch(target.clone(), epoch);
        let ms = |ms: u64| i32::try_from(ms).unwrap_or(i32::MAX);
        let says = MemberValue {
            instance_id: member.instance_id.clone(),
            rack_id: subscription.rack.as_ref().map(Text::detached),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            topics: sorted(&subscription.topics.iter().map(Text::detached).collect::<Vec<_>>()),
            regex: None,
            rebalance_timeout_ms: ms(member.rebalance_timeout_ms),
            assignor: None,
            classic: Some(classic_value(ms(member.session_timeout_ms), &member.protocols)),
        };
        // What it said it had, and was not given again, it may still have: a cooperative member gives it up after it was told to.
        let mut had = by_id(&subscription.owned, topics);
        for (topic, partitions) in &mut had {
            partitions.retain(|partition| !target.get(topic).is_some_and(|target| target.contains(partition)));
        }
        let revoking: Given = with_epoch(had, epoch);
        let state = if revoking.is_empty() { State::Stable } else { State::Revoking };
        let standing = Standing { epoch, previous_epoch: epoch, state, given, revoking };
        self.targets.insert(member.id.clone(), target);
        self.members.insert(member.id.clone(), Member { standing, ..Member::new(says) });
        Ok(())
    }

    /// Records that store a group that was a classic one.
    pub fn remember_upgrade(&self, now: Now, out: &mut Effects) {
        // Last: half of it would be a group without its members.
        self.remember_all(now, out);
        out.records.push(Record { key: group_key(&self.id), value: None });
    }

    /// The classic group that a group becomes whose members are all of the classic protocol. If not all have what they shall have, they
    /// have to join again.
    pub fn into_classic(self, now: Now, limits: &Limits, topics: &dyn Topics, out: &mut Effects) -> classic::Group {
        let is_settled = self.epoch == self.target_epoch && self.state() == super::State::Stable;
        let of = |(id, member): (&Text, &Member)| classic_member(id, member, now.moment, topics);
        let members = self.members.iter().map(of).collect();
        // The epoch that members have been told: with a later one they would take themselves for fenced.
        let mut group = classic::Group::of_consumers(self.id.clone(), self.target_epoch, members, now);
        group.begin_again(now, limits, is_settled, out);
        // Last: half of it would be a group without its members.
        self.forget_all(out);
        group
    }
}

/// Partitions that somebody has had since an epoch.
fn with_epoch(partitions: Partitions, epoch: i32) -> Given {
    let of = |(topic, partitions): (_, std::collections::BTreeSet<i32>)| {
        (topic, partitions.into_iter().map(|partition| (partition, epoch)).collect::<BTreeMap<_, _>>())
    };
    partitions.into_iter().map(of).filter(|(_, partitions)| !partitions.is_empty()).collect()
}

fn classic_member(id: &Text, member: &Member, now: Moment, topics: &dyn Topics) -> ClassicMember {
    let classic = member.says.classic.clone().unwrap_or_default();
    let session_timeout_ms = u64::try_from(classic.session_timeout_ms).unwrap_or(0);
    let version = classic.protocols.first().and_then(|first| consumer_protocol::version_of(&first.metadata).ok());
    ClassicMember {
        id: id.clone(),
        instance_id: member.says.instance_id.clone(),
        client_id: member.says.client_id.clone(),
        client_host: member.says.client_host.clone(),
        rebalance_timeout_ms: member.rebalance_timeout_ms(),
        session_timeout_ms,
        protocols: classic.protocols.into_iter().map(|protocol| (protocol.name, protocol.metadata)).collect(),
        assignment: by_name(&member.standing.given, topics).encode(version.unwrap_or(0)),
        waiting: None,
        is_new: false,
        synced: true,
        expires: Some(now.after(session_timeout_ms)),
    }
}
