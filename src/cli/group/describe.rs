//! `ottla group describe`.

use serde_json::json;

use super::described;
use super::members::{self, member_rows};
use super::offsets::{COLUMNS, committed, standings};
use crate::cli::connect::{Connect, Failure, Format, print_json, print_table, print_text};

/// Describe groups: state, members, offsets and lag.
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
        let coordinator = client.coordinator(name).await?;
        let offsets = committed(&mut client, name).await?;
        let standings = standings(&mut client, &offsets).await?;
        let lag: i64 = standings.values().map(|standing| standing.lag()).sum();
        if args.format == Format::Json {
            let offsets = standings.iter().map(|(partition, standing)| standing.json(partition));
            values.push(json!({"group": name, "state": *group.group_state, "protocol_type": *group.protocol_type,
                "protocol": *group.protocol_data, "coordinator": coordinator, "lag": lag,
                "members": group.members.iter().map(members::json).collect::<Vec<_>>(),
                "offsets": offsets.collect::<Vec<_>>()}));
            continue;
        }
        if at > 0 {
            print_text("\n")?;
        }
        let protocol = if group.protocol_data.is_empty() { "-" } else { &*group.protocol_data };
        print_text(&format!(
            "Group        {name}\nState        {}\nProtocol     {protocol}\nCoordinator  {coordinator}\nMembers      {}\nLag          {lag}\n",
            group.group_state,
            group.members.len()
        ))?;
        if !group.members.is_empty() {
            print_text("\n")?;
            print_table(members::COLUMNS, &member_rows(&group))?;
        }
        if !standings.is_empty() {
            print_text("\n")?;
            let rows: Vec<_> = standings.iter().map(|(partition, standing)| standing.row(partition)).collect();
            print_table(COLUMNS, &rows)?;
        }
    }
    if args.format == Format::Json { print_json(&json!({ "groups": values })) } else { Ok(()) }
}
