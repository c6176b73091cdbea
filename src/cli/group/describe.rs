//! `ottla group describe`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::described::{Group, described};
use super::members;
use super::offsets::{COLUMNS, Partition, Standing, standings};
use crate::cli::connect::{Connect, Failure, Format, print_json, print_table, print_text};
use crate::protocol::consumer_protocol::CONSUMER;

type Standings = BTreeMap<Partition, Standing>;

/// Describe groups: type, state, members, offsets and lag.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ottla group describe billing\n  ottla group describe billing audit --format json")]
pub struct Args {
    /// The groups.
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.connect.client().await?;
    let mut values = Vec::new();
    for (at, name) in args.groups.iter().enumerate() {
        let group = described(&mut client, name).await?;
        let standings = standings(&mut client, name, &group).await?;
        if args.format == Format::Json {
            values.push(json(name, &group, &standings));
            continue;
        }
        if at > 0 {
            print_text("\n")?;
        }
        print(name, &group, &standings)?;
    }
    if args.format == Format::Json { print_json(&json!({ "groups": values })) } else { Ok(()) }
}

fn lag(standings: &Standings) -> i64 {
    standings.values().filter_map(|standing| standing.lag()).sum()
}

/// A group for programs: the same keys for both types. Null is what a group of that type does not have.
fn json(name: &str, group: &Group, standings: &Standings) -> Value {
    let offsets = standings.iter().map(|(partition, standing)| standing.json(partition));
    json!({"group": name, "state": group.state, "type": group.kind.name(), "protocol_type": group.protocol_type,
           "protocol": group.protocol, "assignor": group.assignor(), "coordinator": group.coordinator,
           "epoch": group.epochs.map(|(epoch, _)| epoch), "assignment_epoch": group.epochs.map(|(_, assigned)| assigned),
           "lag": lag(standings), "members": group.members.iter().map(members::json).collect::<Vec<_>>(),
           "offsets": offsets.collect::<Vec<_>>()})
}

fn print(name: &str, group: &Group, standings: &Standings) -> Result<(), Failure> {
    let or_none = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let mut lines =
        vec![("Group", name.to_owned()), ("Type", group.kind.name().to_owned()), ("State", or_none(&group.state))];
    lines.push(match group.assignor() {
        None if group.protocol_type != CONSUMER && !group.protocol_type.is_empty() => {
            ("Protocol", format!("{} of {}", or_none(&group.protocol), group.protocol_type))
        }
        assignor => ("Assignor", or_none(assignor.unwrap_or_default())),
    });
    lines.extend(group.epochs.map(|(epoch, assigned)| match epoch == assigned {
        true => ("Epoch", epoch.to_string()),
        false => ("Epoch", format!("{epoch} (assignment: {assigned})")),
    }));
    lines.push(("Coordinator", group.coordinator.to_string()));
    lines.push(("Members", group.members.len().to_string()));
    lines.push(("Lag", lag(standings).to_string()));
    print_text(&lines.iter().map(|(key, value)| format!("{key:<11}  {value}\n")).collect::<String>())?;
    if !group.members.is_empty() {
        print_text("\n")?;
        members::print(&group.members)?;
    }
    if !standings.is_empty() {
        print_text("\n")?;
        let rows: Vec<_> = standings.iter().map(|(partition, standing)| standing.row(partition)).collect();
        print_table(COLUMNS, &rows)?;
    }
    Ok(())
}
