//! `ottla group import`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::offsets::{Partition, committed};
use super::reset::apply_or_show;
use crate::cli::connect::{Connect, Failure, Format};

/// Commit the offsets that `ottla group export` printed. Without --apply it only shows what would change.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ottla group import billing.json\n  ottla group import billing.json --group billing-2 --apply"
)]
pub struct Args {
    /// The file.
    file: PathBuf,
    /// The group; left out, the one that the file names. It must have no members.
    #[arg(short, long)]
    group: Option<String>,
    /// Do it.
    #[arg(long)]
    apply: bool,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exported {
    group: String,
    offsets: Vec<ExportedOffset>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportedOffset {
    topic: String,
    partition: i32,
    offset: i64,
}

pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let bad = |problem: String| Failure::Data { what: args.file.display().to_string(), problem };
    let text = std::fs::read_to_string(&args.file).map_err(|error| bad(error.to_string()))?;
    let exported: Exported = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    let group = args.group.clone().unwrap_or(exported.group);
    let mut after: BTreeMap<Partition, i64> = BTreeMap::new();
    for ExportedOffset { topic, partition, offset } in exported.offsets {
        if partition < 0 || offset < 0 {
            return Err(bad(format!("{topic} partition {partition}: offset {offset} cannot be")));
        }
        after.insert((topic, partition), offset);
    }
    let mut client = args.connect.client().await?;
    let before = committed(&mut client, &group).await?;
    apply_or_show(&mut client, args.format, &group, args.apply, (&before, &after)).await
}
