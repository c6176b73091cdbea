//! `ottla topic trim`.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Outcome, check};
use crate::cli::client::by_leader;
use crate::cli::connect::{Connect, Failure, Format, print_json, print_table};
use crate::cli::position::Position;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::DeleteRecordsRequest;
use crate::protocol::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};

/// Delete the records of a topic that are older than an offset.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Positions:\n  1000                    that offset\n  end                     everything there is\n  \
@1700000000000          the first record of that time (milliseconds) or later\n  -100                    all but the last 100\n\n\
Examples:\n  ottla topic trim orders --before 1000 --partitions 0\n  ottla topic trim orders --before end"
)]
pub struct Args {
    /// The topic.
    topic: String,
    /// What lies before this position is deleted.
    #[arg(long, visible_alias = "offset", value_name = "POSITION", allow_hyphen_values = true)]
    before: Position,
    /// Only these partitions; left out, all.
    #[arg(short, long, value_delimiter = ',', value_name = "N,...")]
    partitions: Vec<i32>,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.connect.client().await?;
    let topic = client.topic(&args.topic, false).await?;
    let partitions = match args.partitions.is_empty() {
        true => topic.partitions.iter().map(|partition| partition.partition_index).collect(),
        false => args.partitions.clone(),
    };
    let offsets = args.before.resolve(&mut client, &topic, &partitions).await?;
    let mut results: BTreeMap<i32, (ErrorCode, i64)> = BTreeMap::new();
    for (leader, partitions) in by_leader(&topic, &partitions)? {
        let wanted = |index: i32| DeleteRecordsPartition { partition_index: index, offset: offsets[&index] };
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: args.topic.as_str().into(),
                partitions: partitions.into_iter().map(wanted).collect(),
            }],
            timeout_ms: i32::try_from(client.timeout().as_millis()).unwrap_or(i32::MAX),
        };
        let response = client.ask_broker(leader, &request).await?;
        let found = response.topics.iter().flat_map(|topic| &topic.partitions);
        results.extend(found.map(|p| (p.partition_index, (p.error_code, p.low_watermark))));
    }
    if args.format == Format::Json {
        let partition = |(index, (code, start)): (&i32, &(ErrorCode, i64))| json!({"partition": index, "log_start_offset": start, "error": code.is_error().then(|| code.name())});
        print_json(&json!({"topic": args.topic, "partitions": results.iter().map(partition).collect::<Vec<_>>()}))?;
    } else {
        let done = results.iter().filter(|(_, (code, _))| !code.is_error());
        let rows: Vec<_> = done.map(|(index, (_, start))| [index.to_string(), start.to_string()]).collect();
        if !rows.is_empty() {
            print_table(["PARTITION", "LOG-START"], &rows)?;
        }
    }
    let outcome = |(index, (code, _)): (&i32, &(ErrorCode, i64))| {
        Outcome::new(&format!("{} partition {index}", args.topic), *code, None)
    };
    check("trimming topic", &results.iter().map(outcome).collect::<Vec<_>>())
}
