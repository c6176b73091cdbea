//! `ottla group delete`.

use serde_json::json;

use crate::cli::connect::{Connect, Failure, Format, print_json};
use crate::cli::topic::{Outcome, check};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::DeleteGroupsRequest;

/// Delete groups that have no members, with their offsets.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ottla group delete billing\n  ottla group delete billing audit --if-exists")]
pub struct Args {
    /// The groups.
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
    /// It is fine if a group is not there.
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
    let (mut outcomes, mut values) = (Vec::new(), Vec::new());
    for name in &args.groups {
        let coordinator = client.coordinator(name).await?;
        let request = DeleteGroupsRequest { groups_names: vec![name.as_str().into()] };
        let response = client.ask_broker(coordinator, &request).await?;
        let code = response.results.first().map_or(ErrorCode::UNKNOWN_SERVER_ERROR, |result| result.error_code);
        values.push(json!({"group": name, "deleted": !code.is_error(), "error": code.is_error().then(|| code.name())}));
        let is_fine = args.if_exists && code == ErrorCode::GROUP_ID_NOT_FOUND;
        if code == ErrorCode::GROUP_ID_NOT_FOUND && !is_fine && args.groups.len() == 1 {
            return Err(Failure::NoGroup(name.clone()));
        }
        outcomes.push(Outcome::new(name, if is_fine { ErrorCode::NONE } else { code }, None));
    }
    if args.format == Format::Json {
        print_json(&json!({ "groups": values }))?;
    }
    check("deleting group", &outcomes)
}
