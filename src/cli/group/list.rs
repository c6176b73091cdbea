//! `ottla group list`.

use serde_json::json;

use crate::cli::client::ClientError;
use crate::cli::connect::{Connect, Failure, Format, print_json, print_table};
use crate::protocol::messages::ListGroupsRequest;
use crate::protocol::messages::list_groups::ListedGroup;
use crate::protocol::value::Text;

/// List consumer groups, of all brokers.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ottla group list\n  ottla group list --state Empty --type consumer --format json")]
pub struct Args {
    /// Only groups in these states: Empty, PreparingRebalance, CompletingRebalance, Assigning, Reconciling, Stable.
    #[arg(short, long, value_delimiter = ',', value_name = "STATE,...")]
    state: Vec<String>,
    /// Only groups of these types: classic, consumer.
    #[arg(short = 'T', long = "type", value_delimiter = ',', value_name = "TYPE,...")]
    types: Vec<String>,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.connect.client().await?;
    let brokers: Vec<i32> = client.brokers().keys().copied().collect();
    let mut groups: Vec<ListedGroup> = Vec::new();
    for broker in brokers {
        let response = client.ask_broker(broker, &ListGroupsRequest::default()).await?;
        if response.error_code.is_error() {
            let what = format!("ListGroups of broker {broker}");
            return Err(ClientError::Refused { what, code: response.error_code, message: None }.into());
        }
        groups.extend(response.groups);
    }
    let is_wanted =
        |of: &[String], value: &str| of.is_empty() || of.iter().any(|wanted| wanted.eq_ignore_ascii_case(value));
    groups.retain(|group| is_wanted(&args.state, &group.group_state) && is_wanted(&args.types, &group.group_type));
    groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
    if args.format == Format::Json {
        let group = |group: &ListedGroup| {
            json!({"group": *group.group_id, "state": *group.group_state, "type": *group.group_type,
                   "protocol_type": *group.protocol_type})
        };
        return print_json(&json!({ "groups": groups.iter().map(group).collect::<Vec<_>>() }));
    }
    let row = |group: &ListedGroup| {
        let or_none = |text: &Text| if text.is_empty() { "-".to_owned() } else { text.to_string() };
        [
            group.group_id.to_string(),
            or_none(&group.group_state),
            or_none(&group.group_type),
            or_none(&group.protocol_type),
        ]
    };
    print_table(["GROUP", "STATE", "TYPE", "PROTOCOL-TYPE"], &groups.iter().map(row).collect::<Vec<_>>())
}
