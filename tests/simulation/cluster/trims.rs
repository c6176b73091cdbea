//! A client that deletes the oldest records of a partition, again and again.

use std::time::Duration;

use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::DeleteRecordsRequest;
use ottla::protocol::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};

use super::clients::{Stage, pause};

const VERSION: i16 = 1;
const EVERY: Duration = Duration::from_millis(250);
/// Records that it leaves, so that readers are rarely overtaken.
const LEAVES: i64 = 40;

impl Stage {
    /// Deletes for ever. Where the partition starts is known from each answer on.
    pub async fn trim(self, partition: i32, mut turn: u64) {
        loop {
            let mut led = self.leader(&mut turn, partition).await;
            loop {
                tokio::time::sleep(EVERY).await;
                let (offset, floor) = {
                    let mut seen = self.evidence.lock();
                    let offset = (seen.floor(partition) - LEAVES).max(0);
                    let asked = seen.asked_starts.entry(partition).or_default();
                    *asked = offset.max(*asked);
                    (offset, seen.log_start(partition))
                };
                let asked = DeleteRecordsPartition { partition_index: partition, offset };
                let topic = DeleteRecordsTopic { name: self.topic.into(), partitions: vec![asked] };
                let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 1_000 };
                let Ok(response) = led.client.call(VERSION, &request).await else { break };
                let found = &response.topics[0].partitions[0];
                if found.error_code != ErrorCode::NONE {
                    break;
                }
                let mut seen = self.evidence.lock();
                seen.moved_starts += u64::from(found.low_watermark > floor);
                // Somebody else may have moved it further before.
                seen.starts("a deletion", partition, floor.max(offset), found.low_watermark);
            }
            pause().await;
        }
    }
}
