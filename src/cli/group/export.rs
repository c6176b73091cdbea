//! `ottla group export`.

use serde_json::json;

use super::described::described;
use super::offsets::committed;
use crate::cli::connect::{Connect, Failure, print_json};

/// Print a group's offsets as JSON, for `ottla group import`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ottla group export billing > billing.json")]
pub struct Args {
    /// The group.
    group: String,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.connect.client().await?;
    described(&mut client, &args.group).await?;
    let offsets = committed(&mut client, &args.group).await?;
    let offset = |((topic, partition), offset): (&(String, i32), &i64)| json!({"topic": topic, "partition": partition, "offset": offset});
    print_json(&json!({"group": args.group, "offsets": offsets.iter().map(offset).collect::<Vec<_>>()}))
}
