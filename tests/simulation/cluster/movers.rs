//! A client that changes on which brokers a partition has its replicas, again and again, and in the end wants one on each.

use std::time::Duration;

use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::alter_partition_reassignments::{ReassignablePartition, ReassignableTopic};
use ottla::protocol::messages::list_partition_reassignments::ListPartitionReassignmentsTopics;
use ottla::protocol::messages::{AlterPartitionReassignmentsRequest, ListPartitionReassignmentsRequest};

use super::clients::{Stage, pause};
use super::story::BROKERS;
use crate::client::Lost;
use crate::draw;

/// One broker is left out, and then none, so that there are always two that have everything.
const REPLICAS_MIN: usize = BROKERS - 1;

impl Stage {
    /// Moves until the story is over.
    pub async fn moves(self, partition: i32, mut turn: u64) {
        let mut is_everywhere = true;
        loop {
            let is_over = self.room.is_over();
            let mut replicas: Vec<i32> = (1..).take(BROKERS).collect();
            replicas.rotate_left(usize::try_from(draw(&mut turn, BROKERS as u64)).expect("small"));
            if is_everywhere && !is_over {
                replicas.truncate(REPLICAS_MIN);
            }
            let wanted = replicas.len();
            self.reassign(partition, Some(replicas), &mut turn).await;
            // Now and then it is called off on the way.
            let patience = (!is_over && draw(&mut turn, 4) == 0).then(|| draw(&mut turn, 300));
            if self.has_moved(partition, patience, &mut turn).await {
                is_everywhere = wanted == BROKERS;
                self.evidence.lock().moves += 1;
            } else {
                self.reassign(partition, None, &mut turn).await;
                self.evidence.lock().called_off += 1;
            }
            // A request that was given up may have been on its way, and called the last one off.
            if is_over && self.replicas(partition, &mut turn).await == BROKERS {
                return;
            }
            tokio::time::sleep(Duration::from_millis(draw(&mut turn, 400))).await;
        }
    }

    /// Asks for these replicas, or that what is under way is called off, until somebody says yes, or that nothing is under way.
    async fn reassign(&self, partition_index: i32, replicas: Option<Vec<i32>>, turn: &mut u64) {
        let partition = ReassignablePartition { partition_index, replicas };
        let topic = ReassignableTopic { name: self.topic.into(), partitions: vec![partition] };
        let request = AlterPartitionReassignmentsRequest {
            timeout_ms: 1_000,
            allow_replication_factor_change: true,
            topics: vec![topic],
        };
        loop {
            let mut client = self.anybody(turn).await;
            if let Ok(response) = client.call(1, &request).await
                && response.error_code == ErrorCode::NONE
                && [ErrorCode::NONE, ErrorCode::NO_REASSIGNMENT_IN_PROGRESS]
                    .contains(&response.responses[0].partitions[0].error_code)
            {
                return;
            }
            pause().await;
        }
    }

    /// How many replicas a partition has, as somebody knows.
    async fn replicas(&self, partition: i32, turn: &mut u64) -> usize {
        loop {
            if let Ok(metadata) = self.metadata(&mut self.anybody(turn).await).await
                && let Some(topic) = metadata.topics.first()
                && let Some(found) = topic.partitions.iter().find(|found| found.partition_index == partition)
            {
                return found.replica_nodes.len();
            }
            pause().await;
        }
    }

    /// Waits until nothing moves, as somebody knows: for so many milliseconds, or until it is so.
    async fn has_moved(&self, partition: i32, patience_ms: Option<u64>, turn: &mut u64) -> bool {
        let began = tokio::time::Instant::now();
        loop {
            if let Ok(false) = self.is_moving(partition, turn).await {
                return true;
            }
            if patience_ms.is_some_and(|ms| began.elapsed() >= Duration::from_millis(ms)) {
                return false;
            }
            pause().await;
        }
    }

    async fn is_moving(&self, partition: i32, turn: &mut u64) -> Result<bool, Lost> {
        let asked = ListPartitionReassignmentsTopics { name: self.topic.into(), partition_indexes: vec![partition] };
        let request = ListPartitionReassignmentsRequest { timeout_ms: 1_000, topics: Some(vec![asked]) };
        let response = self.anybody(turn).await.call(0, &request).await?;
        match response.error_code {
            ErrorCode::NONE => Ok(!response.topics.is_empty()),
            _ => Err(Lost),
        }
    }
}
