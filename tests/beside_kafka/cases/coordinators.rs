//! FindCoordinator, and InitProducerId for transactions. Last, because Kafka makes its internal topics then.

use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::metadata::MetadataRequestTopic;
use ottla::protocol::messages::{FindCoordinatorRequest, InitProducerIdRequest, MetadataRequest};

use super::kit::{batch, produce};
use crate::run::Run;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

/// The cases.
pub fn cases(run: &mut Run) {
    one(run);
    several(run);
    transactions(run);
    internal(run);
}

fn find(kind: i8, keys: &[&str], version: i16) -> FindCoordinatorRequest {
    let key_type = if version == 0 { 0 } else { kind };
    if version < 4 {
        return FindCoordinatorRequest { key: keys[0].into(), key_type, ..Default::default() };
    }
    let coordinator_keys = keys.iter().map(|key| (*key).into()).collect();
    FindCoordinatorRequest { key_type, coordinator_keys, ..Default::default() }
}

/// Asks until the coordinator is there, which for us those of transactions never are.
fn await_coordinator(run: &mut Run, kind: i8) {
    let is_never = run.is_ours() && kind == TRANSACTION;
    run.await_answer(&find(kind, &["warm"], 6), |response| {
        is_never || response.coordinators[0].error_code == ErrorCode::NONE
    });
}

fn one(run: &mut Run) {
    run.case("FindCoordinator");
    await_coordinator(run, GROUP);
    await_coordinator(run, TRANSACTION);
    run.step("of a group", |version| find(GROUP, &["g"], version));
    run.step_in("of a transaction", 1..=6, |version| find(TRANSACTION, &["t"], version));
    run.step("of an empty group", |version| find(GROUP, &[""], version));
    run.step_in("of an empty transaction", 1..=6, |version| find(TRANSACTION, &[""], version));
    for kind in [3, 99, -1] {
        run.step_in(&format!("key type {kind}"), 1..=6, |version| find(kind, &["x"], version));
    }
    // Group, topic id and partition.
    let key = "g:AAAAAAAAAAAAAAAAAAAAAQ:0";
    run.step_in("of a share group", 1..=6, |version| find(SHARE, &[key], version));
    run.step_in("of a share group, its key malformed", 1..=6, |version| find(SHARE, &["x"], version));
}

fn several(run: &mut Run) {
    run.case("FindCoordinator, several");
    run.step_in("two groups", 4..=6, |version| find(GROUP, &["a", "b"], version));
    run.step_in("one twice", 4..=6, |version| find(GROUP, &["a", "a"], version));
    run.step_in("none", 4..=6, |version| find(GROUP, &[], version));
}

fn transactions(run: &mut Run) {
    run.case("InitProducerId for transactions");
    let transactional = |id: &str, timeout| InitProducerIdRequest {
        transactional_id: Some(id.into()),
        transaction_timeout_ms: timeout,
        ..Default::default()
    };
    let is_ours = run.is_ours();
    run.await_answer(&transactional("warm", 60_000), |response| is_ours || response.error_code == ErrorCode::NONE);
    run.step("a new one", |version| transactional(&format!("t-v{version}"), 60_000));
    run.step("the same again", |version| transactional(&format!("t-v{version}"), 60_000));
    run.step("no timeout", |_| transactional("t", 0));
    run.step("a timeout that is too long", |_| transactional("t", i32::MAX));
}

/// Nobody but the coordinators writes to their topic.
fn internal(run: &mut Run) {
    run.case("the coordinators' topic");
    let name = "__consumer_offsets";
    let asked = MetadataRequestTopic { name: Some(name.into()), ..Default::default() };
    let topics = run.ask(&MetadataRequest { topics: Some(vec![asked]), ..Default::default() }).topics;
    run.know_topic(name, topics[0].topic_id);
    run.step("Produce", |_| produce(-1, &[(name, 0, Some(batch(1, &["a"])))]));
    run.step("Produce to no partition", |_| produce(-1, &[(name, 99, Some(batch(1, &["a"])))]));
}
