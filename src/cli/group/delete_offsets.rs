//! `ottla group delete-offsets`.

use serde_json::json;

use super::offsets::committed;
use crate::cli::client::ClientError;
use crate::cli::connect::{Connect, Failure, Format, print_json};
use crate::cli::topic::{Outcome, check};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::OffsetDeleteRequest;
use crate::protocol::messages::offset_delete::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic, OffsetDeleteResponsePartition,
};

/// Delete a group's offsets of topics that it does not read any more.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ottla group delete-offsets billing --topics orders")]
pub struct Args {
    /// The group.
    group: String,
    /// The topics.
    #[arg(
        short,
        long = "topics",
        visible_alias = "topic",
        required = true,
        value_delimiter = ',',
        value_name = "TOPIC,..."
    )]
    topics: Vec<String>,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.connect.client().await?;
    let offsets = committed(&mut client, &args.group).await?;
    let topic = |name: &String| {
        let of_topic = offsets.keys().filter(|(topic, _)| topic == name);
        let partitions = of_topic.map(|(_, partition)| OffsetDeleteRequestPartition { partition_index: *partition });
        OffsetDeleteRequestTopic { name: name.as_str().into(), partitions: partitions.collect() }
    };
    let topics = args.topics.iter().map(topic).collect();
    let coordinator = client.coordinator(&args.group).await?;
    let request = OffsetDeleteRequest { group_id: args.group.as_str().into(), topics };
    let response = client.ask_broker(coordinator, &request).await?;
    match response.error_code {
        ErrorCode::GROUP_ID_NOT_FOUND => return Err(Failure::NoGroup(args.group.clone())),
        code if code.is_error() => {
            let what = format!("deleting offsets of group {}", args.group);
            return Err(ClientError::Refused { what, code, message: None }.into());
        }
        _ => {}
    }
    let answers = response.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |it| (&*topic.name, it)));
    let answers: Vec<(&str, &OffsetDeleteResponsePartition)> = answers.collect();
    if args.format == Format::Json {
        let value = |(topic, it): &(&str, &OffsetDeleteResponsePartition)| {
            let error = it.error_code.is_error().then(|| it.error_code.name());
            json!({"topic": topic, "partition": it.partition_index, "deleted": error.is_none(), "error": error})
        };
        print_json(&json!({"group": args.group, "offsets": answers.iter().map(value).collect::<Vec<_>>()}))?;
    }
    let outcome = |(topic, it): &(&str, &OffsetDeleteResponsePartition)| {
        Outcome::new(&format!("{topic} partition {}", it.partition_index), it.error_code, None)
    };
    check("deleting the offset of", &answers.iter().map(outcome).collect::<Vec<_>>())
}
