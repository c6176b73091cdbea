//! One group on several brokers: replication, elections, and replicas that come later.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::VoteRequest;

use super::cluster_kit::{Cluster, ID, replica};
use super::group::ProposeError;
use super::transport::client::GroupNetwork;
use super::transport::{Asked, Peers, Votes};
use super::types::{Command, RaftVote};
use crate::ids::{Incarnation, Offset, PartitionId, ReplicaId, Term, TopicId};
use crate::machine::partition::Command as PartitionCommand;

async fn produce(cluster: &Cluster, broker: i32, term: Term, records: std::ops::Range<i64>) {
    for offset in records {
        let proposed = cluster.propose(broker, term, &format!("record {offset}")).await.unwrap();
        assert_eq!(proposed.applied.base_offset, Offset(offset));
    }
}

async fn all_have(cluster: &Cluster, brokers: &[i32], offset: i64) {
    let has =
        |cluster: &Cluster, broker: i32| cluster.seen(broker).is_some_and(|seen| seen.next_offset == Offset(offset));
    let have = |cluster: &Cluster| brokers.iter().all(|broker| has(cluster, *broker));
    cluster.until(&format!("{brokers:?} have {offset} records"), have).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_leader_acknowledges_its_followers_hold_byte_for_byte() {
    let cluster = Cluster::start(3, 3).await;
    let term = cluster.elect(2).await;
    produce(&cluster, 2, term, 0..50).await;
    all_have(&cluster, &[1, 2, 3], 50).await;
    let entries = cluster.entries(2);
    assert_eq!(cluster.entries(1), entries);
    assert_eq!(cluster.entries(3), entries);
    assert_eq!(cluster.group(1).leader(), Some(replica(2)));
    assert_eq!(cluster.propose(1, term, "from a follower").await, Err(ProposeError::NotLeader));
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_was_away_is_sent_what_it_missed() {
    let mut cluster = Cluster::start(3, 3).await;
    let term = cluster.elect(1).await;
    produce(&cluster, 1, term, 0..10).await;
    cluster.kill(3).await;
    produce(&cluster, 1, term, 10..300).await;
    cluster.boot(3).await;
    cluster.group(1).heartbeat().await;
    all_have(&cluster, &[1, 2, 3], 300).await;
    assert_eq!(cluster.entries(3), cluster.entries(1));
}

/// Longer than this nobody who can take something waits for it: some beats, and what a session takes to be opened.
const SENT_WITHIN: Duration = Duration::from_millis(400);

/// Broker 3 misses something in its absence, which begins and ends some time into the beats and into how long it is waited before it is tried again: how
/// long it then lacks that, at most.
async fn longest_wait(
    cluster: &mut Cluster,
    goes: impl AsyncFn(&mut Cluster),
    comes: impl AsyncFn(&mut Cluster),
) -> Duration {
    let term = cluster.elect(1).await;
    let (mut next, mut longest) = (0, Duration::ZERO);
    for away in [50, 300, 730, 1_310, 2_000, 2_470, 3_090, 4_640, 5_210, 6_850] {
        goes(cluster).await;
        produce(cluster, 1, term, next..next + 3).await;
        next += 3;
        tokio::time::sleep(Duration::from_millis(away)).await;
        comes(cluster).await;
        let began = tokio::time::Instant::now();
        all_have(cluster, &[1, 2, 3], next).await;
        longest = longest.max(began.elapsed());
        assert_eq!(cluster.leader(), Some((1, term)));
    }
    longest
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_opened_late_is_sent_at_once_what_it_lacks() {
    let mut cluster = Cluster::start(3, 3).await;
    let waited = longest_wait(&mut cluster, async |it| it.shut(3), async |it| it.open(3)).await;
    assert!(waited < SENT_WITHIN, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_has_started_again_is_sent_at_once_what_it_lacks() {
    let mut cluster = Cluster::start(3, 3).await;
    let waited = longest_wait(&mut cluster, async |it| it.kill(3).await, async |it| it.boot(3).await).await;
    assert!(waited < SENT_WITHIN, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_reached_again_is_sent_at_once_what_it_lacks() {
    let mut cluster = Cluster::start(3, 3).await;
    let waited = longest_wait(&mut cluster, async |it| it.cut(1, 3), async |it| it.heal()).await;
    assert!(waited < SENT_WITHIN, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_stays_away_is_not_tried_more_often_than_it_is_sent_beats() {
    let mut cluster = Cluster::start(3, 3).await;
    let term = cluster.elect(1).await;
    produce(&cluster, 1, term, 0..1).await;
    cluster.kill(3).await;
    for (tenth, next) in (1..=100u32).zip(1..) {
        produce(&cluster, 1, term, next..next + 1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        // As many beats, and a group that waits longer and longer.
        let tried = cluster.refused(1, 3);
        assert!(tried <= tenth + tenth / 10 + 6, "{tried} times in {tenth} tenths of a second");
    }
}

#[tokio::test(start_paused = true)]
async fn when_a_leader_dies_another_goes_on_with_all_that_was_acknowledged() {
    let mut cluster = Cluster::start(3, 3).await;
    let mut next = 0;
    let mut last_term = Term(0);
    for round in 0..6 {
        let leader = 1 + round % 3;
        let term = cluster.elect(leader).await;
        assert!(term >= last_term, "terms only grow");
        produce(&cluster, leader, term, next..next + 20).await;
        next += 20;
        cluster.kill(leader).await;
        let successor = 1 + (round + 1) % 3;
        let term = cluster.elect(successor).await;
        produce(&cluster, successor, term, next..next + 5).await;
        (next, last_term) = (next + 5, term);
        cluster.boot(leader).await;
        cluster.group(successor).heartbeat().await;
        all_have(&cluster, &[1, 2, 3], next).await;
    }
    assert_eq!(cluster.entries(1), cluster.entries(2));
    assert_eq!(cluster.entries(3), cluster.entries(2));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_acknowledges_nothing_and_follows_when_it_is_back() {
    let cluster = Cluster::start(3, 3).await;
    let old = cluster.elect(1).await;
    produce(&cluster, 1, old, 0..5).await;
    cluster.cut(1, 2);
    cluster.cut(1, 3);
    let lost = cluster.propose(1, old, "lost");
    let new = async {
        let term = cluster.elect(3).await;
        produce(&cluster, 3, term, 5..15).await;
        cluster.heal();
        cluster.group(3).heartbeat().await;
        term
    };
    let (lost, new) = tokio::join!(lost, new);
    assert!(matches!(lost, Err(ProposeError::Unknown | ProposeError::NotLeader)), "{lost:?}");
    assert!(new > old);
    all_have(&cluster, &[1, 2, 3], 15).await;
    assert_eq!(cluster.entries(1), cluster.entries(3));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_makes_room_is_followed_at_once() {
    let cluster = Cluster::start(3, 3).await;
    let old = cluster.elect(1).await;
    produce(&cluster, 1, old, 0..5).await;
    cluster.node(1).withdraw(ID);
    cluster.group(1).transfer(replica(3)).await;
    cluster.until("broker 3 leads", |cluster| cluster.group(3).term().is_some()).await;
    let term = cluster.elect(3).await;
    produce(&cluster, 3, term, 5..10).await;
    all_have(&cluster, &[1, 2, 3], 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_comes_later_is_sent_the_state_and_what_is_behind_it() {
    let mut cluster = Cluster::start(4, 3).await;
    let term = cluster.elect(1).await;
    produce(&cluster, 1, term, 0..400).await;
    let (tell, outcome) = tokio::sync::oneshot::channel();
    let start = Command::Machine(PartitionCommand::LogStart(Offset(300)).encode());
    let done = move |result| {
        let _ = tell.send(result);
    };
    cluster.group(1).propose(term, start, done).await;
    outcome.await.unwrap().unwrap();
    cluster.group(1).checkpoint().await;
    cluster.group(1).purge().await;
    let purged = |cluster: &Cluster| cluster.group(1).log().state().purged.is_some();
    cluster.until("the leader has purged", purged).await;
    cluster.group(1).add_learner(replica(4)).await.unwrap();
    all_have(&cluster, &[4], 400).await;
    let start = cluster.group(4).machine().lock().unwrap().log_start();
    assert_eq!(start, Offset(300));
    assert!(cluster.group(4).log().state().purged.is_some(), "it begins behind the state it was sent");
    let voters = BTreeSet::from([replica(2), replica(3), replica(4)]);
    let at = cluster.group(1).members().at;
    cluster.group(1).change_voters(voters, at).await.unwrap();
    cluster.kill(1).await;
    let term = cluster.elect(4).await;
    produce(&cluster, 4, term, 400..420).await;
    // It holds what it was sent through a restart.
    cluster.kill(4).await;
    cluster.boot(4).await;
    let term = cluster.elect(2).await;
    produce(&cluster, 2, term, 420..430).await;
    all_have(&cluster, &[2, 3, 4], 430).await;
}

/// Lets everybody ask for everything.
#[derive(Debug)]
struct Anything;

impl Votes for Anything {
    fn votes(&self, _: PartitionId, _: ReplicaId) -> bool {
        true
    }

    fn may_stand(&self, _: PartitionId, _: Term, _: Asked) -> bool {
        true
    }

    fn may_vote(&self, _: PartitionId, _: ReplicaId, _: Term, _: Asked) -> Result<(), &'static str> {
        Ok(())
    }

    fn did_not_vote(&self, _: PartitionId, _: ReplicaId, _: Term) {}
}

/// What a replica is told that asks another for a vote.
async fn asks(peers: Arc<Peers>, group: PartitionId, to: ReplicaId) -> String {
    let mut network = GroupNetwork::new(peers, Arc::new(Anything), group).new_client(to, &()).await;
    let leader = openraft::impls::leader_id_std::LeaderId { term: 9, voted_for: replica(3) };
    let request = VoteRequest::new(RaftVote { leader_id: leader, committed: false }, None);
    match network.vote(request, RPCOption::new(Duration::from_secs(1))).await {
        Ok(answer) => format!("granted: {}", answer.vote_granted),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_of_another_cluster_or_speaks_to_nobody_is_refused() {
    let cluster = Cluster::start(3, 3).await;
    let term = cluster.elect(1).await;
    let told = asks(cluster.peers(3, "another"), ID, replica(1)).await;
    assert!(told.contains("this broker is of cluster kit, not of \"another\""), "{told}");
    let other = PartitionId { topic: TopicId([1; 16]), ..ID };
    let told = asks(cluster.peers(3, "kit"), other, replica(1)).await;
    assert!(told.contains("is not open here"), "{told}");
    let later = ReplicaId { incarnation: Incarnation(77), ..replica(1) };
    let told = asks(cluster.peers(3, "kit"), ID, later).await;
    assert!(told.contains("is not open here"), "an incarnation that is not this one: {told}");
    produce(&cluster, 1, term, 0..3).await;
}

/// Nobody writes, time passes.
async fn rest(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

async fn since(began: tokio::time::Instant, cluster: &Cluster, not: i32) -> Duration {
    cluster.until("another leads", |cluster| cluster.leader().is_some_and(|(leader, _)| leader != not)).await;
    began.elapsed()
}

/// Longer than this nobody waits for a new leader: suspicion, promise, jitter, an election.
const FAILOVER_MAX: Duration = Duration::from_millis(1_200);

#[tokio::test(start_paused = true)]
async fn a_group_that_rests_keeps_its_leader_and_takes_the_first_write_at_once() {
    let cluster = Cluster::start(3, 3).await;
    let (leader, term) = cluster.elected().await;
    produce(&cluster, leader, term, 0..1).await;
    let mut next = 1;
    for idle in [1, 5, 20, 40] {
        rest(idle).await;
        assert_eq!(cluster.leader(), Some((leader, term)));
        let began = tokio::time::Instant::now();
        produce(&cluster, leader, term, next..next + 1).await;
        assert!(began.elapsed() < Duration::from_millis(50), "{:?} after {idle} s", began.elapsed());
        next += 1;
    }
    let follower = 1 + leader % 3;
    all_have(&cluster, &[follower], next).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_of_a_group_that_rests_is_replaced() {
    let mut cluster = Cluster::start(3, 3).await;
    let (leader, term) = cluster.elected().await;
    produce(&cluster, leader, term, 0..3).await;
    rest(10).await;
    let began = tokio::time::Instant::now();
    cluster.kill(leader).await;
    let gap = since(began, &cluster, leader).await;
    assert!(gap < FAILOVER_MAX, "{gap:?}");
    let (new, term) = cluster.leader().unwrap();
    assert_eq!(cluster.group(6 - leader - new).leader(), Some(replica(new)));
    produce(&cluster, new, term, 3..6).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_back_before_it_is_suspected_does_not_go_on_as_one() {
    let mut cluster = Cluster::start(3, 3).await;
    let (leader, old) = cluster.elected().await;
    produce(&cluster, leader, old, 0..3).await;
    rest(3).await;
    let began = tokio::time::Instant::now();
    cluster.kill(leader).await;
    cluster.boot(leader).await;
    assert!(began.elapsed() < Duration::from_millis(100));
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(cluster.serving().iter().all(|(_, term)| *term > old), "in the term of its last life");
    }
    cluster.until("somebody leads anew", |cluster| cluster.leader().is_some_and(|(_, term)| term > old)).await;
    assert!(began.elapsed() < FAILOVER_MAX * 2, "{:?}", began.elapsed());
    let (new, term) = cluster.leader().unwrap();
    produce(&cluster, new, term, 3..6).await;
    all_have(&cluster, &[1, 2, 3], 6).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_core_in_a_process_that_lives_is_replaced() {
    let cluster = Cluster::start(3, 3).await;
    let (leader, term) = cluster.elected().await;
    produce(&cluster, leader, term, 0..3).await;
    rest(3).await;
    let began = tokio::time::Instant::now();
    cluster.group(leader).stop().await;
    let gap = since(began, &cluster, leader).await;
    assert!(gap < FAILOVER_MAX, "{gap:?}");
    let (new, term) = cluster.leader().unwrap();
    produce(&cluster, new, term, 3..6).await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_between_two_of_three_moves_nothing_back_and_forth() {
    let cluster = Cluster::start(3, 3).await;
    let (leader, term) = cluster.elected().await;
    produce(&cluster, leader, term, 0..3).await;
    let other = 1 + leader % 3;
    cluster.cut(leader, other);
    for written in 3..13 {
        rest(2).await;
        assert_eq!(cluster.leader(), Some((leader, term)));
        produce(&cluster, leader, term, written..written + 1).await;
    }
    cluster.heal();
    cluster.group(leader).heartbeat().await;
    all_have(&cluster, &[1, 2, 3], 13).await;
    assert_eq!(cluster.leader(), Some((leader, term)));
}

#[tokio::test(start_paused = true)]
async fn two_brokers_never_serve_reads_at_the_same_time() {
    let mut cluster = Cluster::start(3, 3).await;
    let mut next = 0;
    for round in 0..12 {
        let (leader, term) = cluster.elected().await;
        produce(&cluster, leader, term, next..next + 2).await;
        next += 2;
        match round % 3 {
            0 => (1..=3).filter(|other| *other != leader).for_each(|other| cluster.cut(leader, other)),
            1 => cluster.kill(leader).await,
            _ => cluster.cut(leader, 1 + leader % 3),
        }
        for _ in 0..300 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let serving = cluster.serving();
            assert!(serving.len() <= 1, "round {round}: {serving:?}");
        }
        cluster.heal();
        if round % 3 == 1 {
            cluster.boot(leader).await;
        }
        rest(1).await;
    }
    let (leader, _) = cluster.elected().await;
    cluster.group(leader).heartbeat().await;
    all_have(&cluster, &[1, 2, 3], next).await;
}
