//! Clients of groups that are no members: those that only commit, and those that only look.

use std::collections::BTreeMap;

use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::DescribeGroupsRequest;

use super::line::{Line, REST};
use super::member::{Identity, commit, offsets};
use super::{MEMBERLESS, OBSERVED_EVERY, Rng, Stage, TOPIC, partitions};

const VERSION_DESCRIBE: i16 = 4;

/// Commits higher and higher offsets of some partitions to a group without members.
pub async fn commit_alone(stage: Stage, name: String, seed: u64) {
    let mut rng = Rng(seed);
    let mut line = Line::new(&stage, &name, MEMBERLESS);
    let nobody = Identity { member: String::new(), instance: None, generation: -1 };
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

/// The state of a group, and its members' ids in order.
pub async fn describe(stage: &Stage, group: &'static str) -> (String, Vec<String>) {
    let mut line = Line::new(stage, "observer", group);
    loop {
        let request = DescribeGroupsRequest { groups: vec![group.into()], ..Default::default() };
        if let Ok(response) = line.call(VERSION_DESCRIBE, request).await
            && let Some(found) = response.groups.into_iter().find(|group| !group.error_code.is_error())
        {
            let mut members: Vec<String> = found.members.iter().map(|member| member.member_id.to_string()).collect();
            members.sort_unstable();
            return (found.group_state.to_string(), members);
        }
        tokio::time::sleep(REST).await;
    }
}

/// Commits to a group that has members as somebody who is none: what comes of it.
pub async fn intrude(stage: &Stage, group: &'static str) -> ErrorCode {
    let mut line = Line::new(stage, "intruder", group);
    let nobody = Identity { member: String::new(), instance: None, generation: -1 };
    let everything = partitions().into_iter().map(|partition| (partition, i64::from(i32::MAX))).collect();
    loop {
        match commit(stage, &mut line, group, &nobody, &everything).await {
            Ok(ErrorCode::COORDINATOR_NOT_AVAILABLE | ErrorCode::NOT_COORDINATOR) | Err(_) => line.hang_up(),
            Ok(code) => return code,
        }
        tokio::time::sleep(REST).await;
    }
}
