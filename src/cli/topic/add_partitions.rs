//! `ottla topic add-partitions`.

use super::{Outcome, check};
use crate::cli::connect::{Connect, Failure};
use crate::protocol::messages::CreatePartitionsRequest;
use crate::protocol::messages::create_partitions::CreatePartitionsTopic;

/// Add partitions to topics. Records with keys go to other partitions from then on.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ottla topic add-partitions orders --add 4\n  ottla topic add-partitions orders --total 12"
)]
#[command(group(clap::ArgGroup::new("count").required(true).args(["add", "total"])))]
pub struct Args {
    /// The topics.
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// How many more.
    #[arg(short = 'n', long, value_parser = clap::value_parser!(i32).range(1..))]
    add: Option<i32>,
    /// How many there shall be.
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(1..))]
    total: Option<i32>,
    /// Only say whether it would work.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.connect.client().await?;
    let mut topics = Vec::new();
    for name in &args.topics {
        let now = client.topic(name, false).await?.partitions.len();
        let now = i32::try_from(now).expect("a count from an array of the protocol");
        let count = args.total.unwrap_or_else(|| now.saturating_add(args.add.unwrap_or(0)));
        topics.push(CreatePartitionsTopic { name: name.as_str().into(), count, assignments: None });
    }
    let request = CreatePartitionsRequest {
        topics,
        timeout_ms: i32::try_from(client.timeout().as_millis()).unwrap_or(i32::MAX),
        validate_only: args.dry_run,
    };
    let response = client.ask_controller(&request).await?;
    let outcomes: Vec<_> = response
        .results
        .iter()
        .map(|result| Outcome::new(&result.name, result.error_code, result.error_message.as_deref()))
        .collect();
    check("adding partitions to topic", &outcomes)
}
