//! Clients of groups that are no members: those that only commit, and those that only look.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::consumer_group_describe::DescribedGroup;
use ottla::protocol::messages::{ConsumerGroupDescribeRequest, DescribeGroupsRequest};

use super::cast::{Cast, Speaks};
use super::events::{At, Shown};
use super::line::{Line, REST};
use super::member::{Identity, commit, offsets};
use super::{MEMBERLESS, OBSERVED_EVERY, Rng, Stage, TOPIC, partitions};

const VERSION_DESCRIBE: i16 = 4;
const VERSION_DESCRIBE_CONSUMERS: i16 = 1;
/// How often people look at a group of the consumer protocol.
const WATCHED_EVERY: Duration = Duration::from_millis(100);

/// Commits higher and higher offsets of some partitions to a group without members.
pub async fn commit_alone(stage: Stage, name: String, seed: u64) {
    let mut rng = Rng(seed);
    let mut line = Line::new(&stage, &name, MEMBERLESS);
    let nobody = Identity::nobody();
    let mut next: BTreeMap<i32, i64> = BTreeMap::new();
    loop {
        tokio::time::sleep(rng.between(5, 60)).await;
        let partition = i32::try_from(rng.below(TOPIC.partitions.unsigned_abs().into())).expect("few");
        for partition in [partition, (partition + 1) % TOPIC.partitions] {
            *next.entry(partition).or_default() += 1;
        }
        if let Ok(code) = commit(&stage, &mut line, MEMBERLESS, &nobody, &next).await {
            match code {
                ErrorCode::NONE => {}
                ErrorCode::COORDINATOR_NOT_AVAILABLE | ErrorCode::NOT_COORDINATOR => line.hang_up(),
                code => stage.log.lock().wrong(format!("{name} was told {code:?}")),
            }
        }
    }
}

/// Looks at the offsets of a group, again and again.
pub async fn observe(stage: Stage, group: &'static str) {
    let mut line = Line::new(&stage, "observer", group);
    loop {
        // What is lost is asked again.
        let _ = offsets(&stage, &mut line, group, &partitions()).await;
        tokio::time::sleep(OBSERVED_EVERY).await;
    }
}

/// What people are told of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub state: String,
    /// The group's epoch, if it is of the consumer protocol.
    pub epoch: Option<i32>,
    /// Its members, in the order of their ids.
    pub members: Vec<String>,
    /// What each of them has at which epoch, in a group of the consumer protocol.
    pub shares: BTreeMap<String, (i32, BTreeSet<i32>)>,
}

/// What people are told of a group, whichever protocol it is of.
pub async fn describe(stage: &Stage, group: &'static str) -> Described {
    let mut line = Line::new(stage, "observer", group);
    loop {
        if !Cast::is_classic(group)
            && let Some(described) = describe_consumers(stage, &mut line, group).await
        {
            return described;
        }
        let request = DescribeGroupsRequest { groups: vec![group.into()], ..Default::default() };
        if let Ok(response) = line.call(VERSION_DESCRIBE, request).await
            && let Some(found) = response.groups.into_iter().find(|group| !group.error_code.is_error())
        {
            let mut members: Vec<String> = found.members.iter().map(|member| member.member_id.to_string()).collect();
            members.sort_unstable();
            let state = found.group_state.to_string();
            return Described { state, epoch: None, members, shares: BTreeMap::new() };
        }
        // Its coordinator may be elsewhere by now.
        line.hang_up();
        tokio::time::sleep(REST).await;
    }
}

/// Nothing if nobody answers, or the group is none of the consumer protocol.
async fn describe_consumers(stage: &Stage, line: &mut Line, group: &'static str) -> Option<Described> {
    let sent = stage.log.now();
    let request = ConsumerGroupDescribeRequest { group_ids: vec![group.into()], ..Default::default() };
    let response = line.call(VERSION_DESCRIBE_CONSUMERS, request).await.ok()?;
    let found = response.groups.into_iter().next()?;
    if matches!(found.error_code, ErrorCode::NOT_COORDINATOR | ErrorCode::COORDINATOR_NOT_AVAILABLE) {
        line.hang_up();
    }
    if found.error_code.is_error() {
        return None;
    }
    let mut shares = BTreeMap::new();
    for member in &found.members {
        let partitions = member.assignment.topic_partitions.iter().flat_map(|topic| topic.partitions.iter().copied());
        shares.insert(member.member_id.to_string(), (member.member_epoch, partitions.collect()));
    }
    note_epochs(stage, group, &found, sent);
    let (state, members) = (found.group_state.to_string(), shares.keys().cloned().collect());
    Some(Described { state, epoch: Some(found.group_epoch), members, shares })
}

fn note_epochs(stage: &Stage, group: &'static str, found: &DescribedGroup, sent: At) {
    let mut events = stage.log.lock();
    let told = events.now();
    let members = found.members.iter().map(|member| (Some(member.member_id.to_string()), member.member_epoch));
    // One that migrates has generations in between.
    let of_group = (Cast::speaks(group) == Some(Speaks::Consumer)).then_some((None, found.group_epoch));
    for (member, epoch) in members.chain(of_group) {
        events.shown.push(Shown { group, member, epoch, sent, told });
    }
}

/// Looks at a group of the consumer protocol, again and again.
pub async fn watch(stage: Stage, group: &'static str) {
    let mut line = Line::new(&stage, "watcher", group);
    loop {
        let _ = describe_consumers(&stage, &mut line, group).await;
        tokio::time::sleep(WATCHED_EVERY).await;
    }
}

/// Commits to a group that has members as somebody who is none: what comes of it.
pub async fn intrude(stage: &Stage, group: &'static str) -> ErrorCode {
    let mut line = Line::new(stage, "intruder", group);
    let nobody = Identity::nobody();
    let everything = partitions().into_iter().map(|partition| (partition, i64::from(i32::MAX))).collect();
    loop {
        match commit(stage, &mut line, group, &nobody, &everything).await {
            Ok(ErrorCode::COORDINATOR_NOT_AVAILABLE | ErrorCode::NOT_COORDINATOR) | Err(_) => line.hang_up(),
            Ok(code) => return code,
        }
        tokio::time::sleep(REST).await;
    }
}
