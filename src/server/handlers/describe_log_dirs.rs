//! DescribeLogDirs: what lies in this broker's data directory (KIP-113, KIP-827).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::on_disk::on_disk;
use crate::ids::TopicId;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use crate::protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use crate::protocol::value::Text;
use crate::replica::set::Held;
use crate::server::dispatch::Call;

/// Handles one DescribeLogDirs request.
pub async fn handle(call: &Call, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let context = &call.context;
    let asked: Option<HashSet<(Text, i32)>> = request.topics.map(|topics| {
        let named = |name: Text, partitions: Vec<i32>| partitions.into_iter().map(move |index| (name.clone(), index));
        topics.into_iter().flat_map(|topic| named(topic.topic, topic.partitions)).collect()
    });
    let names: BTreeMap<TopicId, Text> = context
        .controller
        .read(|controller| controller.topics().map(|topic| (topic.id, topic.name.as_str().into())).collect());
    let mut topics: Vec<DescribeLogDirsTopic> = Vec::new();
    for (id, held) in context.replicas.all() {
        let (Held::Open(replica), Some(name)) = (held, names.get(&id.topic)) else { continue };
        let index = id.partition.0;
        if asked.as_ref().is_some_and(|asked| !asked.contains(&(name.clone(), index))) {
            continue;
        }
        // Partitions come in order of identity, so those of a topic come together.
        if topics.last().is_none_or(|topic| topic.name != *name) {
            topics.push(DescribeLogDirsTopic { name: name.clone(), ..Default::default() });
        }
        let partition = DescribeLogDirsPartition {
            partition_index: index,
            partition_size: i64::try_from(replica.log().size_bytes()).unwrap_or(i64::MAX),
            offset_lag: 0,
            is_future_key: false,
        };
        topics.last_mut().expect("pushed above").partitions.push(partition);
    }
    let disk = Arc::clone(&context.disk);
    let space = on_disk(call, move || disk.space()).await;
    let (error_code, total, free) = match space {
        Ok(Ok(space)) => (ErrorCode::NONE, space.total_bytes, space.free_bytes),
        Ok(Err(_)) | Err(_) => (ErrorCode::KAFKA_STORAGE_ERROR, 0, 0),
    };
    let bytes = |bytes: u64| if error_code.is_error() { -1 } else { i64::try_from(bytes).unwrap_or(i64::MAX) };
    let result = DescribeLogDirsResult {
        error_code,
        log_dir: context.data_dir.as_str().into(),
        topics: if error_code.is_error() { Vec::new() } else { topics },
        total_bytes: bytes(total),
        usable_bytes: bytes(free),
        is_cordoned: false,
    };
    DescribeLogDirsResponse { results: vec![result], ..Default::default() }
}
