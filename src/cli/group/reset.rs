//! `ottla group reset`.

use std::collections::BTreeMap;

use serde_json::json;

use super::offsets::{Partition, commit, committed, in_the_way, occupied};
use crate::cli::client::Client;
use crate::cli::connect::{Connect, Failure, Format, print_json, print_table, print_text};
use crate::cli::position::Position;

/// Move a group's offsets. Without --apply it only shows what would change.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Positions:\n  start                   the first record that is still there\n  end                     \
behind the last record\n  1000                    that offset\n  @1700000000000          the first record of that time \
(milliseconds) or later\n  +100 / -100             that many behind the first / before the end\n\n\
Examples:\n  ottla group reset billing --to start\n  ottla group reset billing --topics orders --to @1700000000000 --apply\n  \
ottla group reset billing --shift -10 --apply"
)]
pub struct Args {
    /// The group. It must have no members.
    group: String,
    /// Only these topics; left out, those that the group has offsets of.
    #[arg(short, long = "topics", visible_alias = "topic", value_delimiter = ',', value_name = "TOPIC,...")]
    topics: Vec<String>,
    /// Where the group goes on.
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true, required_unless_present = "shift")]
    to: Option<Position>,
    /// By how many records the group goes on or back from where it is.
    #[arg(long, value_name = "RECORDS", allow_hyphen_values = true, conflicts_with = "to")]
    shift: Option<i64>,
    /// Do it.
    #[arg(long)]
    apply: bool,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.connect.client().await?;
    let before = committed(&mut client, &args.group).await?;
    let after = wanted(&mut client, args, &before).await?;
    if after.is_empty() {
        let message = format!("group {} has no offsets there; name the topics with --topics", args.group);
        return Err(Failure::Usage(message));
    }
    apply_or_show(&mut client, args.format, &args.group, args.apply, (&before, &after)).await
}

/// Sets a group's offsets if that is wanted, and prints where it was and where it is, or would be.
pub(super) async fn apply_or_show(
    client: &mut Client,
    format: Format,
    group: &str,
    applied: bool,
    (before, after): (&BTreeMap<Partition, i64>, &BTreeMap<Partition, i64>),
) -> Result<(), Failure> {
    let in_the_way = in_the_way(client, group).await?;
    if applied {
        if let Some(members) = &in_the_way {
            return Err(occupied(group, members).into());
        }
        commit(client, group, after).await?;
    }
    if format == Format::Json {
        let offset = |(partition, after): (&Partition, &i64)| json!({"topic": partition.0, "partition": partition.1, "before": before.get(partition), "after": after});
        let offsets: Vec<_> = after.iter().map(offset).collect();
        return print_json(&json!({"group": group, "applied": applied, "offsets": offsets}));
    }
    let row = |(partition, after): (&Partition, &i64)| {
        let before = before.get(partition).map_or_else(|| "-".to_owned(), ToString::to_string);
        [partition.0.clone(), partition.1.to_string(), before, after.to_string()]
    };
    print_table(["TOPIC", "PARTITION", "BEFORE", "AFTER"], &after.iter().map(row).collect::<Vec<_>>())?;
    match in_the_way {
        _ if applied => Ok(()),
        None => print_text("Nothing was changed; --apply does it.\n"),
        Some(members) => print_text(&format!("Nothing was changed; stop {members}, then --apply does it.\n")),
    }
}

/// Where the group is to go on.
async fn wanted(
    client: &mut Client,
    args: &Args,
    before: &BTreeMap<Partition, i64>,
) -> Result<BTreeMap<Partition, i64>, Failure> {
    let mut topics: Vec<&str> = match args.topics.is_empty() {
        true => before.keys().map(|(topic, _)| topic.as_str()).collect(),
        false => args.topics.iter().map(String::as_str).collect(),
    };
    topics.dedup();
    let mut after = BTreeMap::new();
    for name in topics {
        let topic = client.topic(name, false).await?;
        let is_known = |partition: &i32| before.contains_key(&(name.to_owned(), *partition));
        let partitions: Vec<i32> = topic.partitions.iter().map(|partition| partition.partition_index).collect();
        let of_group = !args.topics.is_empty() && args.shift.is_none();
        let partitions: Vec<i32> = partitions.into_iter().filter(|partition| of_group || is_known(partition)).collect();
        let start = Position::Start.resolve(client, &topic, &partitions).await?;
        let end = Position::End.resolve(client, &topic, &partitions).await?;
        let to = match args.to {
            Some(position) => position.resolve(client, &topic, &partitions).await?,
            None => BTreeMap::new(),
        };
        for partition in partitions {
            let key = (name.to_owned(), partition);
            let offset = match args.shift {
                Some(records) => before[&key].saturating_add(records),
                None => to[&partition],
            };
            // A place that is not there would send each consumer where its own setting says.
            after.insert(key, offset.clamp(start[&partition], end[&partition]));
        }
    }
    Ok(after)
}
