//! `ottla topic delete`.

use serde_json::json;

use super::{Outcome, check};
use crate::cli::connect::{Connect, Failure, Format, print_json};
use crate::ids::TopicId;
use crate::protocol::api::ApiKey;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::DeleteTopicsRequest;
use crate::protocol::messages::delete_topics::{DeletableTopicResult, DeleteTopicState};

/// The first version of DeleteTopics that names topics in structs (KIP-516).
const STRUCTS_FROM: i16 = 6;

/// Delete topics and all that is in them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ottla topic delete orders\n  ottla topic delete orders payments --if-exists")]
pub struct Args {
    /// The topics.
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// It is fine if a topic is not there.
    #[arg(long)]
    if_exists: bool,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.connect.client().await?;
    let topics: Vec<&str> = args.topics.iter().map(String::as_str).collect();
    let responses = delete(&mut client, &topics).await?;
    let gone = |code| args.if_exists && code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    if args.format == Format::Json {
        let topic = |topic: &DeletableTopicResult| {
            json!({"topic": topic.name.as_deref(), "deleted": !topic.error_code.is_error(),
                   "error": topic.error_code.is_error().then(|| topic.error_code.name())})
        };
        print_json(&json!({ "topics": responses.iter().map(topic).collect::<Vec<_>>() }))?;
    }
    let outcome = |topic: &DeletableTopicResult| {
        let code = if gone(topic.error_code) { ErrorCode::NONE } else { topic.error_code };
        Outcome::new(topic.name.as_deref().unwrap_or_default(), code, topic.error_message.as_deref())
    };
    check("deleting topic", &responses.iter().map(outcome).collect::<Vec<_>>())
}

/// Deletes topics; what became of each is in the answer.
///
/// # Errors
/// If no answer came.
pub(crate) async fn delete(
    client: &mut crate::cli::client::Client,
    topics: &[&str],
) -> Result<Vec<DeletableTopicResult>, crate::cli::client::ClientError> {
    let structs = client.any().await?.version(ApiKey::DeleteTopics)? >= STRUCTS_FROM;
    let state = |name: &&str| DeleteTopicState { name: Some((*name).into()), topic_id: TopicId::ZERO };
    let request = DeleteTopicsRequest {
        topics: if structs { topics.iter().map(state).collect() } else { Vec::new() },
        topic_names: if structs { Vec::new() } else { topics.iter().map(|name| (*name).into()).collect() },
        timeout_ms: i32::try_from(client.timeout().as_millis()).unwrap_or(i32::MAX),
    };
    Ok(client.ask_controller(&request).await?.responses)
}
