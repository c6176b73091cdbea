//! `ottla topic list`.

use serde_json::json;

use crate::cli::connect::{Connect, Failure, Format, print_json, print_table};
use crate::protocol::messages::metadata::MetadataResponseTopic;

/// List topics.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ottla topic list\n  ottla topic list --internal --format json")]
pub struct Args {
    /// The cluster's own topics too.
    #[arg(short, long)]
    internal: bool,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.connect.client().await?;
    let mut topics = client.metadata(None, false).await?.topics;
    topics.retain(|topic| args.internal || !topic.is_internal);
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    if args.format == Format::Json {
        let topic = |topic: &MetadataResponseTopic| {
            json!({"topic": topic.name.as_deref(), "id": topic.topic_id.to_string(), "internal": topic.is_internal,
                   "partitions": topic.partitions.len(), "replication_factor": replicas(topic)})
        };
        return print_json(&json!({ "topics": topics.iter().map(topic).collect::<Vec<_>>() }));
    }
    let row = |topic: &MetadataResponseTopic| {
        let name = topic.name.as_deref().unwrap_or_default();
        [name.to_owned(), topic.partitions.len().to_string(), replicas(topic).to_string()]
    };
    print_table(["TOPIC", "PARTITIONS", "REPLICAS"], &topics.iter().map(row).collect::<Vec<_>>())
}

/// The most replicas that a partition of the topic has.
pub(super) fn replicas(topic: &MetadataResponseTopic) -> usize {
    topic.partitions.iter().map(|partition| partition.replica_nodes.len()).max().unwrap_or(0)
}
