//! `ottla topic create`.

use serde_json::json;

use super::{Outcome, check};
use crate::cli::connect::{Connect, Failure, Format, print_json, print_table, setting};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::CreateTopicsRequest;
use crate::protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfig};

/// Create topics.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ottla topic create orders\n  \
ottla topic create orders payments --partitions 12 --config retention.ms=86400000 --config cleanup.policy=delete\n  \
ottla topic create orders --if-not-exists --format json")]
pub struct Args {
    /// The names: letters, digits, '.', '_' and '-', at most 249.
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Partitions of each topic; left out, the broker's default.
    #[arg(short, long, default_value_t = -1, value_parser = clap::value_parser!(i32).range(-1..), hide_default_value = true)]
    partitions: i32,
    /// Replicas of each partition; left out, the broker's default.
    #[arg(short, long, default_value_t = -1, value_parser = clap::value_parser!(i16).range(-1..), hide_default_value = true, alias = "replicas")]
    replication_factor: i16,
    /// A configuration of the topics; may be repeated.
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = setting)]
    config: Vec<(String, String)>,
    /// It is fine if a topic is there already.
    #[arg(long)]
    if_not_exists: bool,
    /// Only say whether it would work.
    #[arg(long)]
    dry_run: bool,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.connect.client().await?;
    let config = |(name, value): &(String, String)| CreatableTopicConfig {
        name: name.as_str().into(),
        value: Some(value.as_str().into()),
    };
    let topic = |name: &String| CreatableTopic {
        name: name.as_str().into(),
        num_partitions: args.partitions,
        replication_factor: args.replication_factor,
        assignments: Vec::new(),
        configs: args.config.iter().map(config).collect(),
    };
    let request = CreateTopicsRequest {
        topics: args.topics.iter().map(topic).collect(),
        timeout_ms: i32::try_from(client.timeout().as_millis()).unwrap_or(i32::MAX),
        validate_only: args.dry_run,
    };
    let response = client.ask_controller(&request).await?;

    let exists = |code| args.if_not_exists && code == ErrorCode::TOPIC_ALREADY_EXISTS;
    let created: Vec<_> = response.topics.iter().filter(|topic| !topic.error_code.is_error()).collect();
    if args.format == Format::Json {
        let topics = response.topics.iter().map(|topic| {
            json!({"topic": *topic.name, "id": topic.topic_id.to_string(), "partitions": topic.num_partitions,
                   "replication_factor": topic.replication_factor, "created": !topic.error_code.is_error() && !args.dry_run,
                   "error": topic.error_code.is_error().then(|| topic.error_code.name())})
        });
        print_json(&json!({ "topics": topics.collect::<Vec<_>>() }))?;
    } else if !created.is_empty() {
        let number = |n: i32| if n < 0 { "-".to_owned() } else { n.to_string() };
        let rows: Vec<_> = created
            .iter()
            .map(|t| [t.name.to_string(), number(t.num_partitions), number(t.replication_factor.into())])
            .collect();
        print_table(["TOPIC", "PARTITIONS", "REPLICAS"], &rows)?;
    }
    let outcome = |topic: &crate::protocol::messages::create_topics::CreatableTopicResult| {
        let code = if exists(topic.error_code) { ErrorCode::NONE } else { topic.error_code };
        Outcome::new(&topic.name, code, topic.error_message.as_deref())
    };
    check("creating topic", &response.topics.iter().map(outcome).collect::<Vec<_>>())
}
