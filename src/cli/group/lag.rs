//! `ottla group lag`.

use serde_json::json;

use super::described::described;
use super::offsets::{COLUMNS, standings};
use crate::cli::connect::{Connect, Failure, Format, print_json, print_table};

/// Show how far a group has come in each partition, and what is left; "-" where nothing is committed yet.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ottla group lag billing\n  ottla group lag billing --format json")]
pub struct Args {
    /// The group.
    group: String,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.connect.client().await?;
    let group = described(&mut client, &args.group).await?;
    let standings = standings(&mut client, &args.group, &group).await?;
    if args.format == Format::Json {
        let lag: i64 = standings.values().filter_map(|standing| standing.lag()).sum();
        let offsets: Vec<_> = standings.iter().map(|(partition, standing)| standing.json(partition)).collect();
        return print_json(&json!({"group": args.group, "lag": lag, "offsets": offsets}));
    }
    let rows: Vec<_> = standings.iter().map(|(partition, standing)| standing.row(partition)).collect();
    print_table(COLUMNS, &rows)
}
